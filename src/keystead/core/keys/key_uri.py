"""Key identifiers as services see them: any vault host, `https://HOST/keys/NAME[/VERSION]` (requirements 2.2).

The key vault server maps its own hosts to vaults in `core.vaults.uri`; here only the parts matter, so that foreign vaults fit too.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from keystead.core.errors import InvalidRequest

_URI = re.compile(r"(https)://([A-Za-z0-9.-]{1,253}(?::[0-9]{1,5})?)/keys/([0-9A-Za-z-]{1,127})(?:/([0-9A-Za-z]{1,64}))?/?", re.IGNORECASE)
MAX_URI = 512


@dataclass(frozen=True, slots=True)
class KeyUri:
    """`base` is the identifier without version: the current version of the key."""

    base: str
    host: str
    name: str
    version: str


def split_key_uri(uri: str) -> KeyUri:
    """The parts of a key identifier; `version` is empty where it names none.

    Raises:
        InvalidRequest: not a key identifier.
    """
    match = _URI.fullmatch(uri) if len(uri) <= MAX_URI else None
    if match is None:
        raise InvalidRequest(
            "key_uri_invalid", f"{uri[:MAX_URI]!r} is not a key identifier", "give one such as https://VAULT.vault.localhost/keys/NAME"
        )
    _scheme, host, name, version = match.groups()
    return KeyUri(f"https://{host.lower()}/keys/{name}", host.lower(), name, version or "")
