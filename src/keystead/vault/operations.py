"""The cryptographic calls: encrypt, decrypt, wrapKey, unwrapKey, sign, verify (R-024, R-026 to R-030, R-037, R-042).

Each call reads the vault, what the caller holds, and the key version in one query, unless nothing has changed since they were read
(`seen.py`); the private key object is kept in memory. What it does with the key runs outside any transaction. Its log record is durable before its answer leaves (`journal.py`).

What is looked at, in this order: the vault is there and may be called from there; the permission is held; the subscription works; the
vault is not called too often; the key version is there; it may be used for this now; the algorithm and the value fit it. So a caller
without the permission learns nothing about keys.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from keystead.core.vaults import algorithms
from keystead.core.vaults.access import Held, Permission, allow
from keystead.core.vaults.limits import LOOK, using
from keystead.core.vaults.recovery import Existence
from keystead.core.vaults.usage import KeyKind, KeyOperation, KeyUse, check_use
from keystead.ports.vault_store import Usable
from keystead.vault import material
from keystead.vault.guard import counted, need_address
from keystead.vault.loaded import open_private
from keystead.vault.lookup import find_key, find_vault, key_state, need_working_subscription, vault_state
from keystead.vault.record import Act, journaled
from keystead.vault.views import key_uri

if TYPE_CHECKING:
    from collections.abc import Callable

    from keystead.core.vaults.limits import CallKind
    from keystead.ports.vault_store import KeyVersion, Vault
    from keystead.vault.material import PrivateKey
    from keystead.vault.services import Identity, VaultServices

    Compute = Callable[[PrivateKey, KeyKind], bytes]


class Place(NamedTuple):
    """Which key a call is about; the current version where none is named (R-022)."""

    vault: str
    name: str
    version: str | None


@dataclass(frozen=True, slots=True)
class Done:
    """What a call answers: the key version that was used, and the result."""

    vault: Vault
    version: KeyVersion
    value: bytes = field(repr=False)


class Looked(NamedTuple):
    """What a call looked at, and what follows from it alone. Nothing is decided: another call may come from elsewhere, or later."""

    vault: Vault
    held: Held
    version: KeyVersion
    use: KeyUse
    kind: KeyKind
    cost: CallKind
    uri: str


_PERMISSIONS = {operation: Permission(operation) for operation in KeyOperation}
"""What each takes: the permission of its name."""

LOG_NAMES = {
    KeyOperation.ENCRYPT: "KeyEncrypt",
    KeyOperation.DECRYPT: "KeyDecrypt",
    KeyOperation.WRAP_KEY: "KeyWrap",
    KeyOperation.UNWRAP_KEY: "KeyUnwrap",
    KeyOperation.SIGN: "KeySign",
    KeyOperation.VERIFY: "KeyVerify",
}
"""As the log calls them (R-068)."""


def encrypt(services: VaultServices, identity: Identity, place: Place, algorithm: str, value: bytes) -> Done:
    """Encrypt a small value with the public half of an RSA key.

    Raises:
        InvalidRequest: `algorithm_not_supported`, `algorithm_key_mismatch`, `value_invalid`.
        NotFound: no such vault, key or version, or it is deleted.
        Forbidden: the caller does not hold the permission, acts for another tenant, or calls from where the vault may not be called.
        PreconditionFailed: the key cannot be used for this now (R-024, R-028 to R-030); `subscription_cancelled`.
        Throttled: `vault_throttled`.
        Unavailable: the store does not answer, or the log record could not be written.
    """
    return _used(services, identity, place, KeyOperation.ENCRYPT, _closing(algorithm, value))


def decrypt(services: VaultServices, identity: Identity, place: Place, algorithm: str, value: bytes) -> Done:
    """Decrypt what `encrypt` gave. Works outside the key's dates too (R-030).

    Raises:
        IntegrityFailure: `unwrap_failed`: the value was not closed by this version with this algorithm.
        KeysteadError: as `encrypt`.
    """
    return _used(services, identity, place, KeyOperation.DECRYPT, _opening(algorithm, value))


def wrap_key(services: VaultServices, identity: Identity, place: Place, algorithm: str, value: bytes) -> Done:
    """Wrap a key with the public half of an RSA key; the same as `encrypt` under a permission of its own (R-026).

    Raises:
        KeysteadError: as `encrypt`.
    """
    return _used(services, identity, place, KeyOperation.WRAP_KEY, _closing(algorithm, value))


def unwrap_key(services: VaultServices, identity: Identity, place: Place, algorithm: str, value: bytes) -> Done:
    """Unwrap a key that `wrap_key` wrapped, with the version that wrapped it (R-027). Works outside the key's dates too (R-030).

    Raises:
        IntegrityFailure: `unwrap_failed`: the value was not wrapped by this version with this algorithm.
        KeysteadError: as `encrypt`.
    """
    return _used(services, identity, place, KeyOperation.UNWRAP_KEY, _opening(algorithm, value))


def sign(services: VaultServices, identity: Identity, place: Place, algorithm: str, digest: bytes) -> Done:
    """Sign a digest.

    Raises:
        InvalidRequest: `algorithm_not_supported`, `algorithm_key_mismatch`, `digest_invalid`.
        KeysteadError: else as `encrypt`.
    """

    def compute(private: PrivateKey, kind: KeyKind) -> bytes:
        chosen = algorithms.signature(algorithm, kind)
        algorithms.check_digest(chosen, digest)
        return material.sign(private, chosen, digest)

    return _used(services, identity, place, KeyOperation.SIGN, compute)


def verify(services: VaultServices, identity: Identity, place: Place, algorithm: str, digest: bytes, signature: bytes) -> bool:
    """Whether a signature over a digest is of this key version; a wrong one is an answer and no error. Works outside the key's dates too.

    Raises:
        InvalidRequest: `algorithm_not_supported`, `algorithm_key_mismatch`, `digest_invalid`, `signature_invalid`.
        KeysteadError: else as `encrypt`.
    """

    def compute(private: PrivateKey, kind: KeyKind) -> bytes:
        chosen = algorithms.signature(algorithm, kind)
        algorithms.check_digest(chosen, digest)
        algorithms.check_signature(signature)
        return _VALID if material.verify(private, chosen, digest, signature) else b""

    return _used(services, identity, place, KeyOperation.VERIFY, compute).value == _VALID


_VALID = b"\x01"


def _closing(algorithm: str, value: bytes) -> Compute:
    def compute(private: PrivateKey, kind: KeyKind) -> bytes:
        chosen = algorithms.encryption(algorithm, kind)
        algorithms.check_plain(chosen, kind, value)
        return material.encrypt(private, chosen, value)

    return compute


def _opening(algorithm: str, value: bytes) -> Compute:
    return lambda private, kind: material.decrypt(private, algorithms.encryption(algorithm, kind), value)


def _used(services: VaultServices, identity: Identity, place: Place, operation: KeyOperation, compute: Compute) -> Done:
    """Use a key version, and answer when the record of that is durable."""

    def call() -> tuple[Done, str]:
        looked, private = _usable(services, identity, place, operation)
        return Done(looked.vault, looked.version, compute(private, looked.kind)), looked.uri

    return journaled(services, identity, Act(LOG_NAMES[operation], place.vault, place.name, place.version), call)


def _usable(services: VaultServices, identity: Identity, place: Place, operation: KeyOperation) -> tuple[Looked, PrivateKey]:
    """A key version that the caller may use for an operation now, loaded. The permission has the operation's name."""
    now = services.clock.now()
    asked = (identity.tenant_id, place.vault, identity.principal, place.name, place.version)
    looked = services.usables.get(services.stamps.current() if identity.stamp is None else identity.stamp, asked)
    if looked is not None and _there(looked.vault, looked.version):
        private = services.loaded.find(looked.vault.id, looked.version.version)
        if private is not None:
            _let_in(services, identity, looked.vault, looked.held, looked.cost, operation, now)
            check_use(operation, looked.use, now, looked.uri)
            return looked, private
    with services.store.reading() as tx:
        usable = tx.usable(*asked)
        if usable is None or vault_state(usable.vault, now) is not Existence.ACTIVE:
            # Raises, and says which of the ways of not being there it is; nothing is held here in any case.
            usable = Usable(find_vault(tx, identity, place.vault, now), Held(), None)
        found, version = usable.vault, usable.version
        cost = LOOK if version is None else using(version.kty, version.size)
        _let_in(services, identity, found, usable.held, cost, operation, now)
        if version is None or key_state(version, found, now) is not Existence.ACTIVE:
            version = find_key(tx, found, place.name, place.version, now)  # raises likewise
        looked = _looked(services, found, usable.held, version, cost)
        check_use(operation, looked.use, now, looked.uri)
        private = services.loaded.get(
            found.id, looked.version.version, lambda: material.load(open_private(services, tx, found, looked.version))
        )
        services.usables.put(tx.stamp(), asked, looked)
        return looked, private


def _looked(services: VaultServices, found: Vault, held: Held, version: KeyVersion, cost: CallKind) -> Looked:
    use = KeyUse(version.kty, version.key_ops, version.enabled, version.not_before, version.expires)
    kind = KeyKind(version.kty, version.size, version.curve)
    return Looked(found, held, version, use, kind, cost, key_uri(found, version, services.settings.uri_suffix))


def _there(found: Vault, version: KeyVersion) -> bool:
    """Whether neither the vault nor the key is deleted."""
    return found.deleted is None and version.key.deleted is None


def _let_in(
    services: VaultServices, identity: Identity, found: Vault, held: Held, cost: CallKind, operation: KeyOperation, now: int
) -> None:
    """Everything that is looked at before the key. Using one changes nothing, so a vault that is failed over takes it too (R-069)."""
    need_address(identity, found)
    allow(held, _PERMISSIONS[operation], identity.principal, found.name)
    need_working_subscription(found.subscription)
    counted(services, identity, found, cost, now)
