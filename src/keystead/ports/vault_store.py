"""Where the key vault keeps subscriptions, vaults, keys and its log.

Implementation: SQL (`adapters/sql/vault_store.py`). Not shared with the service: the vault has a database and a seal of its own.

A transaction is a `with` block: `reading()` is one snapshot; `writing()` is committed durably when its block ends and leaves nothing when the
block raises. `appending()` is a writing one that can only add to the log. The *stamp* is another one after every commit of `writing()`. Every query names the tenant, except the one that asks whether a vault name is taken, because vault names are global.
Names compare without regard to case. Times are milliseconds since the epoch. Every method raises `Unavailable` when the store cannot be
reached; nobody retries.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple, Protocol

from keystead.core.vaults.access import Held

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from contextlib import AbstractContextManager

    from keystead.core.vaults.access import VaultPrincipal
    from keystead.core.vaults.usage import KeyOperation, KeyType


@dataclass(frozen=True, slots=True)
class Subscription:
    """A subscription. `protected_from`: when its mandatory retention is Registered (perhaps later than now); None: never asked for."""

    id: str
    tenant_id: str
    name: str
    kind: str
    cancelled: bool
    protected_from: int | None
    created: int
    created_by: str


@dataclass(frozen=True, slots=True)
class Vault:
    """A vault, with its subscription as it is now (R-017)."""

    id: str
    tenant_id: str
    name: str
    subscription: Subscription
    resource_group: str
    region: str
    sku: str
    rbac: bool
    """Whether key permissions are given by role instead of by list (R-044)."""
    purge_protection: bool
    retention_days: int
    created: int
    deleted: int | None
    network_rules: str = ""
    """From where it may be called, as `core.vaults.network` writes it; empty: from everywhere."""
    read_only: bool = False
    """Failed over to its second region: keys are used, nothing is changed (R-069)."""


@dataclass(frozen=True, slots=True)
class Key:
    """A key: what all its versions share."""

    id: str
    tenant_id: str
    vault_id: str
    name: str
    created: int
    deleted: int | None
    rotation_policy: str = ""
    """As `core.vaults.rotation` writes it; empty: none."""


@dataclass(frozen=True, slots=True)
class KeyVersion:
    """One version of a key; `ordinal` counts from 1, the highest is current (R-020). The private key stays in the store."""

    key: Key
    version: str
    ordinal: int
    kty: KeyType
    size: int
    curve: str
    key_ops: frozenset[KeyOperation]
    enabled: bool
    not_before: int | None
    expires: int | None
    created: int
    updated: int
    tags: dict[str, str]
    public_key: bytes
    """SubjectPublicKeyInfo, DER (RFC 5280 section 4.1)."""
    exportable: bool = False
    """Whether it may be released to who meets its release policy; chosen when it is made."""
    release_policy: str = ""
    """As `core.vaults.release` writes it; empty: none."""


@dataclass(frozen=True, slots=True)
class VaultClient:
    """A program that signs in with a secret of its own. Access policies name it by its id, so that a name used again inherits nothing."""

    id: str
    tenant_id: str
    name: str
    created: int
    created_by: str


@dataclass(frozen=True, slots=True)
class ClientSecret:
    """A secret of a client: SHA-256 of 256 random bits, and when it ends."""

    id: str
    client_id: str
    tenant_id: str
    digest: bytes
    created: int
    expires: int


@dataclass(frozen=True, slots=True)
class TokenKey:
    """A key that access tokens are signed with; `sealed` under the vault's seal. `ends`: set when a newer one took over."""

    id: str
    public_key: bytes
    sealed: bytes
    created: int
    ends: int | None


@dataclass(frozen=True, slots=True)
class StoredSeal:
    """What a database keeps of its seal: `record` as `core.vaults.seal_record` writes it; empty before generations, when there was none."""

    check_value: bytes
    generation: int
    record: bytes


@dataclass(frozen=True, slots=True)
class SealedKey:
    """A private key as it lies in the store, and what its context is made of."""

    key_id: str
    ordinal: int
    tenant_id: str
    vault: str
    name: str
    version: str
    sealed: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class ReleaseKey:
    """A key that released keys are signed with: `certificates` DER (RFC 5280), its own first, one after the other; `sealed` under the seal."""

    id: str
    certificates: bytes
    sealed: bytes
    created: int
    ends: int


@dataclass(frozen=True, slots=True)
class AccessEntry:
    """One line of an access policy."""

    principal: VaultPrincipal
    held: Held = field(default_factory=Held)


@dataclass(frozen=True, slots=True)
class Usable:
    """What a cryptographic call looks at, of one moment: the vault, what the caller holds on it, and the key version if there is one.

    Nothing is decided yet: each may be deleted, disabled or not allowed.
    """

    vault: Vault
    held: Held
    version: KeyVersion | None


@dataclass(frozen=True, slots=True)
class WatchedVersion:
    """What the upkeep looks at of a key version that rotates by a policy or expires.

    Attributes:
        current: whether it is the key's current one.
        near_told: the expiry that was told of when it came near; expired_told: when it had come. None: nothing was told yet.
    """

    tenant_id: str
    vault_id: str
    key_name: str
    rotation_policy: str
    version: str
    current: bool
    enabled: bool
    created: int
    expires: int | None
    near_told: int | None
    expired_told: int | None


@dataclass(frozen=True, slots=True)
class LogSearch:
    """Which records of a log are wanted; what is empty or None does not narrow.

    Attributes:
        operation: its name, such as KeyUnwrap.
        result: `Success` or `Failure`, or the result's signature, which is the code of a refusal.
        principal: the name of who called, in lower case as people, applications and clients are named, or an application's id.
        start, end: when, in milliseconds; `end` is not included.
    """

    operation: str = ""
    result: str = ""
    principal: str = ""
    start: int | None = None
    end: int | None = None


class LogRecord(NamedTuple):
    """One call, allowed or refused: the fields of requirements 2.12 (R-067). A tuple: it goes to the database as it is."""

    tenant_id: str
    vault: str
    """Name of the vault in lower case; empty for calls about none."""
    time: int
    resource_id: str
    operation_name: str
    operation_version: str
    category: str
    result_type: str
    result_signature: str
    result_description: str
    duration_ms: int
    caller_ip_address: str
    correlation_id: str
    identity_kind: str
    identity_name: str
    identity_application_id: str
    client_info: str
    request_uri: str
    object_id: str
    http_status_code: int


EVERY_RECORD = LogSearch()


class VaultReader(Protocol):
    """Queries of one transaction."""

    def stamp(self) -> int | None:
        """The stamp of what this transaction sees: see `VaultStore.stamp`."""
        ...

    def seal(self) -> StoredSeal | None:
        """What this database keeps of its seal; None for a new database."""
        ...

    def former_backup_keys(self) -> dict[int, bytes]:
        """The sealed backup keys of earlier generations."""
        ...

    def sealed_keys(self, after: tuple[str, int], limit: int) -> list[SealedKey]:
        """Private keys of every tenant, deleted keys' too, ordered by key id and ordinal: those after a place. For sealing them again."""
        ...

    def count_key_versions(self) -> int:
        """How many private keys there are, of every tenant."""
        ...

    def release_keys(self) -> list[ReleaseKey]:
        """The keys released keys are signed with, the newest first."""
        ...

    def subscription(self, tenant_id: str, name_or_id: str) -> Subscription | None:
        """A subscription by name or id."""
        ...

    def subscriptions(self, tenant_id: str) -> list[Subscription]:
        """All of a tenant, by name."""
        ...

    def vault(self, tenant_id: str, name: str) -> Vault | None:
        """A vault by name, deleted or not."""
        ...

    def vault_of_anyone(self, name: str) -> Vault | None:
        """Who holds a vault name, whatever the tenant: names are globally unique (R-016). Never shown to people of other tenants."""
        ...

    def vaults(self, tenant_id: str) -> list[Vault]:
        """All of a tenant, deleted or not, by name."""
        ...

    def all_vaults(self) -> list[Vault]:
        """The vaults of every tenant, deleted or not: for the job that removes what is past its retention."""
        ...

    def held(self, tenant_id: str, vault_id: str, principal: VaultPrincipal) -> Held:
        """What a principal holds on a vault."""
        ...

    def access(self, tenant_id: str, vault_id: str) -> list[AccessEntry]:
        """The whole access policy of a vault."""
        ...

    def key(self, tenant_id: str, vault_id: str, name: str) -> Key | None:
        """A key by name, deleted or not."""
        ...

    def deleted_keys(self, tenant_id: str, vault_id: str) -> list[KeyVersion]:
        """The current versions of all deleted keys of a vault, by name."""
        ...

    def keys(self, tenant_id: str, vault_id: str, after: str, limit: int) -> list[KeyVersion]:
        """The current versions of keys that are not deleted, by name in lower case, those after `after`."""
        ...

    def key_version(self, tenant_id: str, vault_id: str, name: str, version: str | None) -> KeyVersion | None:
        """A version of a key, deleted or not; the current one for None."""
        ...

    def usable(self, tenant_id: str, vault: str, principal: VaultPrincipal, name: str, version: str | None) -> Usable | None:
        """`vault`, `held` and `key_version` in one query; None where the tenant has no vault of that name."""
        ...

    def key_versions(self, tenant_id: str, vault_id: str, name: str) -> list[KeyVersion]:
        """All versions of a key, oldest first."""
        ...

    def sealed_private(self, tenant_id: str, vault_id: str, version: str) -> bytes | None:
        """The sealed private key of a version."""
        ...

    def client(self, tenant_id: str, name_or_id: str) -> VaultClient | None:
        """A client by name or id."""
        ...

    def client_of_anyone(self, client_id: str) -> VaultClient | None:
        """A client by id, whatever the tenant: for its sign-in, which names the tenant only in its address."""
        ...

    def clients(self, tenant_id: str) -> list[VaultClient]:
        """All of a tenant, by name."""
        ...

    def client_secrets(self, tenant_id: str, client_id: str) -> list[ClientSecret]:
        """Its secrets, the oldest first, ended ones too."""
        ...

    def token_keys(self) -> list[TokenKey]:
        """The keys tokens are signed with, the newest first."""
        ...

    def watched(self, before: int) -> list[WatchedVersion]:
        """Of every tenant, for the upkeep: current versions of keys with a rotation policy, and all whose expiry before a time is untold.

        Deleted keys are not among them.
        """
        ...

    def log(
        self, tenant_id: str, vault: str, after: int | None, limit: int, wanted: LogSearch = EVERY_RECORD
    ) -> list[tuple[int, LogRecord]]:
        """Records about a vault name with their numbers, oldest first: those after a number, or the last ones for None."""
        ...


class LogWriter(Protocol):
    """What a transaction can do that adds to the log alone."""

    def add_logs(self, records: Sequence[LogRecord]) -> None:
        """Append many with one statement."""
        ...


class VaultWriter(VaultReader, LogWriter, Protocol):
    """Queries and changes of one writing transaction."""

    def set_seal(self, seal: StoredSeal) -> None:
        """Bind a new database to a seal, or replace it.

        Everything sealed that is stored later must be of its generation: what is of another is refused with `Unavailable`,
        `vault_seal_rotated`. So a process that opened the database before stores nothing that would not open again.
        """
        ...

    def set_former_backup_keys(self, keys: Mapping[int, bytes]) -> None:
        """Replace them all."""
        ...

    def put_sealed_keys(self, keys: Sequence[SealedKey]) -> None:
        """Replace the sealed bytes of private keys."""
        ...

    def put_token_key(self, key_id: str, sealed: bytes) -> None:
        """Replace the sealed bytes of a key for access tokens."""
        ...

    def put_release_key(self, key_id: str, sealed: bytes) -> None:
        """Replace the sealed bytes of a key for releases."""
        ...

    def add_release_key(self, key: ReleaseKey) -> None:
        """Add one."""
        ...

    def add_subscription(self, subscription: Subscription) -> None:
        """Add one."""
        ...

    def put_subscription(self, subscription: Subscription) -> None:
        """Replace its protection and state."""
        ...

    def add_vault(self, vault: Vault) -> None:
        """Add one."""
        ...

    def put_vault(self, vault: Vault) -> None:
        """Replace its network rules, its read-only mode, and its purge protection."""
        ...

    def set_vault_deleted(self, vault: Vault, deleted: int | None) -> None:
        """Delete it (softly), or bring it back."""
        ...

    def remove_vault(self, vault: Vault) -> None:
        """Remove it for good with its access policy and keys. Its log stays."""
        ...

    def put_access(self, tenant_id: str, vault_id: str, entry: AccessEntry) -> None:
        """Set what a principal holds; an entry that holds nothing is removed."""
        ...

    def drop_roles(self, tenant_id: str, vault_id: str) -> None:
        """Take all role assignments back, the contributor right included (R-057)."""
        ...

    def add_key(self, key: Key) -> None:
        """Add one, without versions yet."""
        ...

    def set_key_deleted(self, key: Key, deleted: int | None) -> None:
        """Delete it (softly), or bring it back."""
        ...

    def set_rotation_policy(self, key: Key, policy: str) -> None:
        """Replace a key's rotation policy."""
        ...

    def remove_key(self, key: Key) -> None:
        """Remove it for good with all versions and their private keys."""
        ...

    def add_key_version(self, version: KeyVersion, sealed: bytes) -> None:
        """Add a version with its sealed private key."""
        ...

    def put_key_versions(self, versions: Sequence[KeyVersion]) -> None:
        """Replace the attributes of versions; key material never changes."""
        ...

    def put_told(self, version: WatchedVersion) -> None:
        """Replace what was told of a version's expiry."""
        ...

    def add_client(self, client: VaultClient) -> None:
        """Add one, without secrets yet."""
        ...

    def remove_client(self, client: VaultClient) -> None:
        """Remove it with its secrets, and from every access policy."""
        ...

    def add_client_secret(self, secret: ClientSecret) -> None:
        """Add one."""
        ...

    def remove_client_secret(self, secret: ClientSecret) -> None:
        """Remove it."""
        ...

    def add_token_key(self, key: TokenKey) -> None:
        """Add one."""
        ...

    def end_token_key(self, key_id: str, ends: int) -> None:
        """It signs no more, and verifies until then."""
        ...

    def remove_token_keys(self, before: int) -> None:
        """Remove those that ended before a time."""
        ...

    def add_log(self, record: LogRecord) -> None:
        """Append a record."""
        ...


class VaultStore(Protocol):
    """Opens transactions."""

    def forget_past(self) -> bool:
        """Overwrite what the database's log still holds of replaced rows; False while a reader is in the way, or where that is a server's task."""
        ...

    def stamp(self) -> int | None:
        """A number that says what is committed now, whichever process wrote it: two states of one stamp are the same, the log apart.

        Also when a database was put back from a backup: a stamp is drawn anew each time, not counted. None: there is none yet, so nothing
        may be remembered.
        """
        ...

    def reading(self) -> AbstractContextManager[VaultReader]:
        """One snapshot."""
        ...

    def writing(self) -> AbstractContextManager[VaultWriter]:
        """One writing transaction; durable when the block has ended. It sets another stamp, whatever it writes."""
        ...

    def appending(self) -> AbstractContextManager[LogWriter]:
        """The same for records of the log, which nobody's rights hang on: the stamp stays."""
        ...
