"""What the service's applications ask a vault for by key identifier: wrapKey, unwrapKey and the facts of a key.

The calls themselves are those of `operations.py`; here identifiers become places, and the answers name the version that was used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from keystead.core.errors import InvalidRequest, KeysteadError
from keystead.core.vaults.uri import parse_key_uri
from keystead.core.vaults.usage import KeyOperation
from keystead.ports.vaults import KeyFacts, WrappedValue
from keystead.vault import operations
from keystead.vault.guard import need_address
from keystead.vault.lookup import find_key, find_vault, held, level
from keystead.vault.operations import LOG_NAMES, Place
from keystead.vault.record import Act, recorded, refused
from keystead.vault.subscriptions import subscription_facts
from keystead.vault.views import key_uri

if TYPE_CHECKING:
    from keystead.ports.vault_store import VaultWriter
    from keystead.vault.services import Identity, VaultServices


def wrap_key(vault: VaultServices, identity: Identity, uri: str, algorithm: str, value: bytes) -> WrappedValue:
    """Wrap a value with a key version, the current one where the URI names none; the answer names it.

    Raises:
        InvalidRequest: `key_uri_invalid`.
        KeysteadError: as `operations.wrap_key`.
    """
    done = operations.wrap_key(vault, identity, _place(vault, identity, KeyOperation.WRAP_KEY, uri), algorithm, value)
    return WrappedValue(key_uri(done.vault, done.version, vault.settings.uri_suffix), done.value)


def unwrap_key(vault: VaultServices, identity: Identity, uri: str, algorithm: str, value: bytes) -> bytes:
    """Unwrap a value with the key version that wrapped it, which the URI must name (R-027).

    Raises:
        InvalidRequest: `key_uri_invalid`, `key_version_missing`.
        KeysteadError: as `operations.unwrap_key`.
    """
    place = _place(vault, identity, KeyOperation.UNWRAP_KEY, uri)
    if place.version is None:
        error = InvalidRequest("key_version_missing", f"{uri} names no version", "give the identifier that wrapKey answered with")
        refused(vault, identity, Act(LOG_NAMES[KeyOperation.UNWRAP_KEY], place.vault, place.name), error)
        raise error
    return operations.unwrap_key(vault, identity, place, algorithm, value).value


def key_facts(vault: VaultServices, identity: Identity, uri: str) -> KeyFacts:
    """What the creation checks of a policy look at. Told even to an application that lacks `get`: its permissions are among the facts.

    Raises:
        InvalidRequest: the URI.
        NotFound: no such vault, key or version, or it is deleted.
        Forbidden: the caller acts for another tenant.
    """
    now = vault.clock.now()

    def change(tx: VaultWriter) -> KeyFacts:
        named = parse_key_uri(uri, vault.settings.uri_suffix)
        found = find_vault(tx, identity, named.vault, now)
        need_address(identity, found)
        version = find_key(tx, found, named.name, named.version, now)
        return KeyFacts(
            key_uri=key_uri(found, version, vault.settings.uri_suffix),
            vault=found.name,
            kty=version.kty,
            size=version.size,
            enabled=version.enabled,
            key_ops=frozenset(str(operation) for operation in version.key_ops),
            not_before=version.not_before,
            expires=version.expires,
            recovery_level=str(level(found, now)),
            region=found.region,
            subscription=subscription_facts(found.subscription, now),
            tenant_id=found.tenant_id,
            permissions=frozenset(str(permission) for permission in held(tx, identity, found).effective),
        )

    return recorded(vault, identity, _act("KeyGet", vault, uri, "facts"), change)


def _place(vault: VaultServices, identity: Identity, operation: KeyOperation, uri: str) -> Place:
    """The key an identifier names; a malformed one is about no vault, and is recorded and refused as that."""
    try:
        named = parse_key_uri(uri, vault.settings.uri_suffix)
    except KeysteadError as error:
        refused(vault, identity, Act(LOG_NAMES[operation]), error)
        raise
    return Place(named.vault, named.name, named.version)


def _act(operation: str, vault: VaultServices, uri: str, note: str = "") -> Act:
    """What a call is about; one with a malformed URI is about no vault, and is recorded and refused as that."""
    try:
        named = parse_key_uri(uri, vault.settings.uri_suffix)
    except KeysteadError:
        return Act(operation)
    return Act(operation, named.vault, named.name, named.version, note)
