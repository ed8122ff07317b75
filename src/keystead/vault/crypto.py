"""wrapKey, unwrapKey and the facts of a key: what applications ask a vault for (R-026 to R-030, R-037, R-042).

The state of vault, access policy and key is read afresh on every call; only the private key object is kept in memory. RSA runs outside
any transaction. The log record is durable before the answer leaves: a crash in between leaves a record of a call that got no answer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from keystead.core.errors import IntegrityFailure, InvalidRequest, KeysteadError
from keystead.core.vaults.access import Permission
from keystead.core.vaults.seal import private_key_context
from keystead.core.vaults.uri import parse_key_uri
from keystead.core.vaults.usage import KeyOperation, KeyUse, check_use
from keystead.ports.vaults import KeyFacts, WrappedValue
from keystead.vault.lookup import find_key, find_vault, held, level, need, need_working_subscription
from keystead.vault.material import load, unwrap, wrap, wrap_algorithm
from keystead.vault.record import Act, prepared_and_recorded, recorded
from keystead.vault.subscriptions import subscription_facts
from keystead.vault.views import key_uri

if TYPE_CHECKING:
    from keystead.ports.vault_store import KeyVersion, Vault, VaultReader, VaultWriter
    from keystead.vault.material import PrivateKey
    from keystead.vault.services import Identity, VaultServices


def wrap_key(vault: VaultServices, identity: Identity, uri: str, algorithm: str, value: bytes) -> WrappedValue:
    """Wrap a value with a key version, the current one where the URI names none; the answer names it.

    Raises:
        InvalidRequest: the URI, algorithm or value.
        NotFound: no such vault, key or version, or it is deleted.
        Forbidden: the caller does not hold wrapKey, or acts for another tenant.
        PreconditionFailed: the key cannot be used for this now (R-024, R-028 to R-030).
    """

    def prepare() -> WrappedValue:
        found, version, private = _usable(vault, identity, uri, KeyOperation.WRAP_KEY, Permission.WRAP_KEY)
        return WrappedValue(key_uri(found, version, vault.settings.uri_suffix), wrap(private, wrap_algorithm(algorithm), value))

    return prepared_and_recorded(vault, identity, _act("KeyWrap", vault, uri), prepare, lambda _tx, wrapped: wrapped)


def unwrap_key(vault: VaultServices, identity: Identity, uri: str, algorithm: str, value: bytes) -> bytes:
    """Unwrap a value with the key version that wrapped it, which the URI must name (R-027).

    Raises:
        InvalidRequest: the URI or algorithm.
        NotFound: no such vault, key or version, or it is deleted.
        Forbidden: the caller does not hold unwrapKey, or acts for another tenant.
        PreconditionFailed: the key cannot be used for this now.
        IntegrityFailure: `unwrap_failed`.
    """

    def prepare() -> bytes:
        if parse_key_uri(uri, vault.settings.uri_suffix).version is None:
            raise InvalidRequest("key_version_missing", f"{uri} names no version", "give the identifier that wrapKey answered with")
        _, _, private = _usable(vault, identity, uri, KeyOperation.UNWRAP_KEY, Permission.UNWRAP_KEY)
        return unwrap(private, wrap_algorithm(algorithm), value)

    return prepared_and_recorded(vault, identity, _act("KeyUnwrap", vault, uri), prepare, lambda _tx, plain: plain)


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


def _usable(
    vault: VaultServices, identity: Identity, uri: str, operation: KeyOperation, permission: Permission
) -> tuple[Vault, KeyVersion, PrivateKey]:
    """A key version that the caller may use for an operation now, loaded."""
    named = parse_key_uri(uri, vault.settings.uri_suffix)
    now = vault.clock.now()
    with vault.store.reading() as tx:
        found = find_vault(tx, identity, named.vault, now)
        need(tx, identity, found, permission)
        need_working_subscription(found.subscription)
        version = find_key(tx, found, named.name, named.version, now)
        use = KeyUse(version.kty, version.key_ops, version.enabled, version.not_before, version.expires)
        check_use(operation, use, now, key_uri(found, version, vault.settings.uri_suffix))
        return found, version, vault.loaded.get(found.id, version.version, lambda: load(open_private(vault, tx, found, version)))


def open_private(vault: VaultServices, tx: VaultReader, found: Vault, version: KeyVersion) -> bytes:
    """The private key of a version, PKCS #8 DER; for use inside the vault ring only.

    Raises:
        IntegrityFailure: `private_key_damaged`.
    """
    sealed = tx.sealed_private(found.tenant_id, found.id, version.version)
    if sealed is None:
        raise IntegrityFailure(
            "private_key_damaged",
            f"the private key of {version.key.name} in the vault {found.name} is missing",
            "restore the vault database from a backup",
        )
    return vault.seal.open_private(sealed, private_key_context(found.tenant_id, found.name, version.key.name, version.version))


def _act(operation: str, vault: VaultServices, uri: str, note: str = "") -> Act:
    """What a call is about; one with a malformed URI is about no vault, and is recorded and refused as that."""
    try:
        named = parse_key_uri(uri, vault.settings.uri_suffix)
    except KeysteadError:
        return Act(operation)
    return Act(operation, named.vault, named.name, named.version, note)
