"""Requests and responses about subscriptions, key vaults and keys.

A vault or key name compares without regard to case. Key permissions and operations are named as in requirements 2.3 and 2.5. No response
carries private key material (R-025); a backup is sealed.
"""

from datetime import datetime

import msgspec

from keystead.api.types.base import Request, Response

DEFAULT_PAGE = 100


class SubscriptionCreate(Request, frozen=True):
    """Create a subscription. `kind`: paid, trial, free, sponsored, msdn or legacy."""

    name: str
    kind: str = "paid"


class SubscriptionNamed(Request, frozen=True):
    """A request about one subscription, by name or id."""

    name: str


class SubscriptionView(Response, frozen=True):
    """A subscription. `protection`: NotRegistered, Pending or Registered (R-055); `state`: Enabled or Cancelled."""

    id: str
    name: str
    kind: str
    state: str
    protection: str
    created: datetime
    created_by: str


class VaultCreate(Request, frozen=True):
    """Create a vault. The resource group has the subscription's name where none is given; retention cannot be changed later (R-046).

    `rbac`: key permissions are given by role instead of by list (R-044).
    """

    name: str
    subscription: str
    region: str
    sku: str = "standard"
    resource_group: str | None = None
    rbac: bool = False
    purge_protection: bool = False
    retention_days: int = 90


class VaultNamed(Request, frozen=True):
    """A request about one vault."""

    vault: str


class VaultView(Response, frozen=True):
    """A vault. `state`: active or deleted; `scheduled_purge`: when a deleted vault is gone for good."""

    id: str
    name: str
    uri: str
    subscription: str
    subscription_id: str
    resource_group: str
    region: str
    geography: str
    sku: str
    rbac: bool
    soft_delete: bool
    purge_protection: bool
    retention_days: int
    recovery_level: str
    state: str
    created: datetime
    deleted: datetime | None
    scheduled_purge: datetime | None
    read_only: bool = False
    """Failed over to its second region: keys are used, nothing is changed (R-069)."""


class Purged(Response, frozen=True):
    """What was destroyed for good."""

    id: str
    name: str


class VaultLogQuery(Request, frozen=True):
    """The log of one vault: the last `limit` records, or the next ones after record `after`; oldest first.

    What is given narrows: `operation` such as KeyUnwrap; `result` Success, Failure or the code of a refusal; `principal` a UPN, an
    application's name or id, or a client's id; `start` and `end` when, `end` not included.
    """

    vault: str
    limit: int = DEFAULT_PAGE
    after: int | None = None
    operation: str | None = None
    result: str | None = None
    principal: str | None = None
    start: datetime | None = None
    end: datetime | None = None


class NetworkRange(Request, frozen=True):
    """One range of addresses of a vault's network rules, in CIDR notation, or one address."""

    vault: str
    range: str


class NetworkDefault(Request, frozen=True):
    """What holds for callers in no range: `action` Allow or Deny; `bypass` AzureServices or None, unchanged where absent."""

    vault: str
    action: str
    bypass: str | None = None


class NetworkView(Response, frozen=True):
    """From where a vault may be called about its keys (R-043). `bypass`: AzureServices lets the service's own applications in one process pass."""

    vault: str
    default_action: str
    bypass: str
    ranges: list[str]


class FailOver(Request, frozen=True):
    """Set a vault's read-only mode (R-069)."""

    vault: str
    read_only: bool


class VaultLogIdentity(Response, frozen=True):
    """Who called: a person by `upn`, or an application by name and fixed id."""

    kind: str
    upn: str | None
    application: str | None
    application_id: str | None


class VaultLogProperties(Response, frozen=True):
    """The rest of a record."""

    client_info: str
    request_uri: str
    id: str
    http_status_code: int


class VaultLogEntry(Response, frozen=True):
    """One call, allowed or refused (requirements 2.12)."""

    number: int
    time: datetime
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
    identity: VaultLogIdentity
    properties: VaultLogProperties


class AccessGrant(Request, frozen=True):
    """Give a principal more key permissions on a vault: a person by `upn`, or an application (mail, files, tenant) or client by `principal`.

    In a vault of the role-based model `roles` (crypto-officer, crypto-user, crypto-service-encryption-user) take the place of
    `permissions`. `contributor` gives the right to change the vault and its access policy, which is no key permission (R-013).
    """

    vault: str
    upn: str | None = None
    principal: str | None = None
    permissions: list[str] = msgspec.field(default_factory=list)
    roles: list[str] = msgspec.field(default_factory=list)
    contributor: bool = False


class AccessRevoke(Request, frozen=True):
    """Take key permissions or roles from a principal; all it holds, the contributor right included, where none are named (R-040)."""

    vault: str
    upn: str | None = None
    principal: str | None = None
    permissions: list[str] | None = None
    roles: list[str] | None = None


class AccessView(Response, frozen=True):
    """What one principal holds on a vault, `permissions` by name or by role. `kind`: person, application or client."""

    vault: str
    kind: str
    principal: str
    application_id: str | None
    permissions: list[str]
    roles: list[str]
    contributor: bool


class KeyCreate(Request, frozen=True):
    """Create a key, or a new current version of one that exists (R-020).

    `kty`: RSA, RSA-HSM, EC, EC-HSM; `size` in bits for RSA; `ops`: what the key may be used for, everything its type can do where absent.
    """

    vault: str
    name: str
    kty: str = "RSA"
    size: int | None = None
    curve: str | None = None
    ops: list[str] | None = None
    enabled: bool = True
    not_before: datetime | None = None
    expires: datetime | None = None
    tags: dict[str, str] = msgspec.field(default_factory=dict)


class KeyImport(Request, frozen=True):
    """Import a private key: `pem` is PKCS #8 without a password, and is never shown again. `hsm` asks for the `-HSM` type."""

    vault: str
    name: str
    pem: str
    hsm: bool = False
    ops: list[str] | None = None
    enabled: bool = True
    not_before: datetime | None = None
    expires: datetime | None = None
    tags: dict[str, str] = msgspec.field(default_factory=dict)

    def __repr__(self) -> str:
        return f"KeyImport(vault={self.vault!r}, name={self.name!r}, pem=...)"


class KeyNamed(Request, frozen=True):
    """A request about one key."""

    vault: str
    name: str


class KeyVersionNamed(Request, frozen=True):
    """A request about a key: one version, or without it the current version (`key show`) or all of them (`key enable`, `key disable`)."""

    vault: str
    name: str
    version: str | None = None


class KeyList(Request, frozen=True):
    """The keys of a vault by name, those after the name `after`."""

    vault: str
    limit: int = DEFAULT_PAGE
    after: str = ""


class KeyUpdate(Request, frozen=True):
    """Change attributes of a key version, the current one where none is named. What is absent stays; an expiry date cannot be removed (R-031)."""

    vault: str
    name: str
    version: str | None = None
    ops: list[str] | None = None
    not_before: datetime | msgspec.UnsetType | None = msgspec.UNSET
    expires: datetime | msgspec.UnsetType | None = msgspec.UNSET
    tags: dict[str, str] | None = None


class KeyView(Response, frozen=True):
    """One key version. `id` is its full URI with version, `base_id` the one without; `size` in bits is 0 for EC keys, which have a `curve`.

    `hardware` says whether the private key lies in hardware; `recoverable_days` how long a deleted key can be brought back (R-033).
    """

    id: str
    base_id: str
    vault: str
    name: str
    version: str
    kty: str
    size: int
    curve: str | None
    key_ops: list[str]
    enabled: bool
    not_before: datetime | None
    expires: datetime | None
    created: datetime
    updated: datetime
    recovery_level: str
    recoverable_days: int
    hardware: bool
    tags: dict[str, str]
    public_key: str
    """SubjectPublicKeyInfo in PEM."""
    deleted: datetime | None
    scheduled_purge: datetime | None


class RotationAction(Request, frozen=True):
    """What happens in a version's life: `action` Rotate or Notify, with exactly one of the two durations (ISO 8601, such as P90D)."""

    action: str
    time_after_create: str | None = None
    time_before_expiry: str | None = None


class RotationPolicySet(Request, frozen=True):
    """Replace a key's rotation policy (R-035). `expiry_time`: how long each new version lives; for ever where absent."""

    vault: str
    name: str
    lifetime_actions: list[RotationAction] = msgspec.field(default_factory=list)
    expiry_time: str | None = None


class RotationPolicyView(Response, frozen=True):
    """A key's rotation policy, the default one where none was set. `next_rotation`: when the current version is rotated by it."""

    vault: str
    name: str
    lifetime_actions: list[RotationAction]
    expiry_time: str | None
    created: datetime
    updated: datetime
    next_rotation: datetime | None


class KeyBackupView(Response, frozen=True):
    """A sealed backup of a key with all versions. `blob` travels in base64."""

    id: str
    vault: str
    name: str
    suggested_name: str
    blob: bytes


class KeyRestore(Request, frozen=True):
    """Restore a key from a backup into a vault of the same subscription and geography (R-062). `blob` travels in base64."""

    vault: str
    blob: bytes
