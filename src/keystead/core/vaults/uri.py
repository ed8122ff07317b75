"""Key identifiers: `https://VAULT.vault.localhost/keys/NAME/VERSION` (requirements 2.2, R-022).

Without the version it is the base identifier, which means the current version. Identifiers compare without regard to case.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from keystead.core.errors import InvalidRequest
from keystead.core.ids import KEY_NAME, VAULT_NAME

_IDENTIFIER = re.compile(r"https://(?P<host>[^/?#@:]+)/keys/(?P<name>[^/?#]+)(?:/(?P<version>[0-9a-f]{32}))?", re.IGNORECASE | re.ASCII)
"""The only form; names are checked by their own rules."""


@dataclass(frozen=True, slots=True)
class KeyUri:
    """A key identifier taken apart. `version` None: the base identifier."""

    vault: str
    name: str
    version: str | None = None

    def text(self, suffix: str) -> str:
        """The identifier, on the host VAULT followed by the suffix."""
        base = f"https://{self.vault.lower()}{suffix}/keys/{self.name}"
        return base if self.version is None else f"{base}/{self.version}"

    def base(self) -> KeyUri:
        """The same key without a version."""
        return KeyUri(self.vault, self.name)

    def same_as(self, other: KeyUri) -> bool:
        """Whether both identify the same, without regard to case."""
        return _folded(self) == _folded(other)


def _folded(uri: KeyUri) -> tuple[str, str, str]:
    return uri.vault.lower(), uri.name.lower(), (uri.version or "").lower()


def vault_name(text: str) -> str:
    """A valid vault name (R-016): 3 to 24 letters, digits and single hyphens, starting with a letter.

    Raises:
        InvalidRequest: `vault_name_invalid`.
    """
    if not VAULT_NAME.fullmatch(text):
        raise InvalidRequest(
            "vault_name_invalid",
            f"{text!r} is not a vault name",
            "use 3 to 24 letters, digits and single hyphens, starting with a letter and not ending with a hyphen",
        )
    return text


def parse_key_uri(text: str, suffix: str) -> KeyUri:
    """Take an identifier apart.

    Args:
        text: with or without version.
        suffix: what follows the vault's name in the host, with its dot.

    Raises:
        InvalidRequest: `key_uri_invalid`: anything but exactly such an identifier; ports, queries and user names are refused.
    """
    found = _IDENTIFIER.fullmatch(text)
    if found is not None and found["host"].lower().endswith(suffix.lower()):
        vault, name, version = found["host"].lower()[: -len(suffix)], found["name"], found["version"]
        if VAULT_NAME.fullmatch(vault) and KEY_NAME.fullmatch(name):
            return KeyUri(vault, name, version and version.lower())
    raise InvalidRequest(
        "key_uri_invalid",
        f"{text[:300]!r} is not a key identifier",
        f"give https://VAULT{suffix}/keys/NAME or https://VAULT{suffix}/keys/NAME/VERSION",
    )
