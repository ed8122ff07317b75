"""The service's database: what a use case can ask of one transaction.

`Database.write()` and `Database.read()` are visible `with` blocks in use cases. A write commits when its block ends and rolls back when it
raises; when the block has ended the commit is durable. No network call, object write or key store write happens inside a block
(design section 2, order of writes). Every query about a tenant's things takes the tenant; the few that do not are for the service's own
work over all tenants, and say so.

Implementation: SQL (`adapters/sql/store.py`) on SQLite; every method raises `Unavailable` when the database does not take the call.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from contextlib import AbstractContextManager

    from keystead.core.access.principal import Role
    from keystead.core.access.tokens import SigningKey, SignInProvider, Token
    from keystead.core.alerts import Alert, AlertKind, Event, HookState
    from keystead.core.audit.record import AuditRecord
    from keystead.core.jobs import Job, JobState
    from keystead.core.policies.policy import CopyRole, Policy, PolicyCopy, PolicyState, PolicyVersion, Workload
    from keystead.core.stores.mailbox import Folder, Item, Mailbox, MailboxKey
    from keystead.core.tenancy import Onboarding, Person, Tenant
    from keystead.ports.figures import FigureRows
    from keystead.ports.files import FileRows, ObjectRows, SiteRows


@dataclass(frozen=True, slots=True)
class ItemPlace:
    """All a read needs to know, in one query: the item, the wrapped key it lies under (None where its row is gone), and the mailbox's policy."""

    mailbox: Mailbox
    item: Item
    wrapped_key: bytes | None


@dataclass(frozen=True, slots=True)
class MovedItem:
    """Where a move put an item, with what had to be sealed again under the new key."""

    id: str
    key_version: int
    content_hash: bytes
    summary: bytes
    object_ref: str
    offset: int
    length: int


@dataclass(frozen=True, slots=True)
class AuditQuery:
    """Empty fields do not restrict. Times in milliseconds, start inclusive, end exclusive."""

    tenant_id: str | None
    operations: tuple[str, ...] = ()
    users: tuple[str, ...] = ()
    item: str = ""
    start: int = 0
    end: int = 2**62
    limit: int = 100
    after: str = ""


class TenantRows(Protocol):
    """Tenants, people, onboarding."""

    def insert(self, tenant: Tenant) -> None:
        """Raises Conflict when the name or domain is taken."""
        ...

    def find(self, reference: str) -> Tenant | None:
        """By id, name or domain."""
        ...

    def all(self) -> list[Tenant]:
        """Every tenant, by name: for the provider."""
        ...

    def insert_person(self, person: Person) -> None:
        """Raises Conflict when the UPN is taken."""
        ...

    def person(self, upn: str) -> Person | None:
        """A UPN is unique over all tenants: it names its tenant's domain."""
        ...

    def people(self, tenant_id: str) -> list[Person]: ...

    def remove_person(self, tenant_id: str, upn: str) -> bool:
        """Whether there was one; their tokens and memberships go too, and what sites they owned have no owner."""
        ...

    def set_roles(self, tenant_id: str, upn: str, roles: frozenset[Role]) -> None: ...

    def upsert_onboarding(self, onboarding: Onboarding) -> None: ...

    def onboarding(self, tenant_id: str, workload: str) -> Onboarding | None: ...


class SignInRows(Protocol):
    """Tokens, the keys access tokens are signed with, and the OpenID Connect providers of tenants.

    A token's person is who bears its UPN in the tenant it was made for, and None when that is nobody any more.
    """

    def insert(self, token: Token) -> None: ...

    def by_digest(self, digest: bytes) -> tuple[Token, Person | None] | None:
        """The token of a SHA-256, and its person: for every call."""
        ...

    def by_id(self, token_id: str, key_id: str) -> tuple[Token, Person | None] | None:
        """The token an access token was made from, and its person; None also when the signing key is gone: for every call."""
        ...

    def page(self, tenant_id: str | None, *, upn: str = "") -> list[Token]:
        """Tokens of a tenant, or of the provider for None; of one person where one is named. By person and age."""
        ...

    def get(self, tenant_id: str | None, token_id: str) -> Token | None: ...

    def used(self, token_id: str, day: int) -> None:
        """Store the day of last use."""
        ...

    def shorten(self, token_id: str, expires: int) -> None:
        """Let a token end then, unless it ends before."""
        ...

    def remove(self, token_id: str) -> bool:
        """Whether it was still there: a claim token is redeemed by exactly one caller."""
        ...

    def remove_claims(self, tenant_id: str, upn: str) -> int:
        """Remove the claim tokens of a name; the empty name is that of a tenant's first administrator."""
        ...

    def remove_expired(self, before: int) -> int:
        """Forget tokens of all tenants that ended before."""
        ...

    def signing_keys(self) -> list[SigningKey]:
        """The one that signs first, then the newest."""
        ...

    def insert_signing_key(self, key: SigningKey) -> None: ...

    def retire_signing_key(self, key_id: str, ends: int) -> None: ...

    def remove_signing_keys(self, key_ids: Sequence[str]) -> None: ...

    def put_provider(self, provider: SignInProvider) -> None:
        """The tenant's only one."""
        ...

    def provider(self, tenant_id: str) -> SignInProvider | None: ...

    def providers(self, issuer: str, audiences: Sequence[str]) -> list[tuple[SignInProvider, str]]:
        """Registrations of any tenant that take tokens of an issuer for one of these audiences, with the tenant's domain."""
        ...

    def provided(self, tenant_id: str, upn: str) -> tuple[SignInProvider, Person | None] | None:
        """A tenant's registration and a person of it: for every call."""
        ...

    def remove_provider(self, tenant_id: str) -> bool: ...


class PolicyRows(Protocol):
    """Policies, their versions, copies and probe states."""

    def insert(self, policy: Policy, version: PolicyVersion, copies: Sequence[PolicyCopy]) -> None:
        """Raises Conflict when the tenant has a policy of that name."""
        ...

    def find(self, tenant_id: str, reference: str) -> Policy | None:
        """A customer policy by name, id, or the id of any of its versions."""
        ...

    def by_id(self, policy_id: str) -> Policy | None:
        """For the service itself, which comes here from a row of the tenant that names the policy."""
        ...

    def all(self, tenant_id: str) -> list[Policy]:
        """Customer policies of a tenant, by name."""
        ...

    def any_provider(self) -> str | None:
        """Id of some tenant's provider policy, which is the id of its key in the key store: to see whether that is there."""
        ...

    def count(self, tenant_id: str, workload: Workload) -> int: ...

    def provider(self, tenant_id: str) -> Policy:
        """The provider's default policy of a tenant; made with the tenant."""
        ...

    def copies(self, version_id: str) -> list[PolicyCopy]: ...

    def add_version(self, policy_id: str, replaces: str, version: PolicyVersion, copies: Sequence[PolicyCopy]) -> bool:
        """Put a new version in force and drop the copies of the old; False when `replaces` is no longer in force."""
        ...

    def versions(self, policy_id: str) -> list[PolicyVersion]: ...

    def replace_copy(self, copy: PolicyCopy, *, expected_uri: str) -> bool:
        """Replace one copy of a version; False when it no longer names `expected_uri`."""
        ...

    def set_availability_key(self, policy_id: str, key_id: str) -> None: ...

    def remove(self, policy_id: str) -> None:
        """A policy under which nothing lies any more, with its versions, copies and state; nothing when it is gone already."""
        ...

    def update(self, policy_id: str, *, name: str, description: str, enabled: bool) -> None:
        """Raises Conflict when the name is taken."""
        ...

    def wrapped_by(self, tenant_id: str, key_uri: str) -> list[tuple[Policy, CopyRole]]:
        """Policies in force with a copy wrapped by a key: a version, or any version where the URI names none (R-158)."""
        ...

    def mailboxes(self, policy_id: str) -> int:
        """How many mailboxes lie under a policy or wait for it."""
        ...

    def state(self, policy_id: str) -> PolicyState: ...

    def save_state(self, state: PolicyState) -> None: ...

    def ageing(self, workload: Workload, *, after: int, until: int, probed_until: int, limit: int) -> list[str]:
        """Policies of a workload, of any tenant, whose last success lies between, and that were not asked since: for the service's own upkeep."""
        ...

    def take_probe_lease(self, policy_id: str, owner: str, now: int, until: int) -> bool:
        """Whether this caller probes now for everybody; the lease ends by itself at `until`."""
        ...

    def release_probe_lease(self, policy_id: str, owner: str) -> None: ...

    def drop_missing_keys(self, known: Iterable[str]) -> list[str]:
        """Of the given key store ids, those that no policy names: what a crash left unreferenced."""
        ...


class MailboxRows(Protocol):
    """Mailboxes, their keys, folders, items and objects."""

    def insert(self, mailbox: Mailbox, key: MailboxKey) -> None:
        """Raises Conflict when the UPN has a mailbox."""
        ...

    def find(self, tenant_id: str, upn: str) -> Mailbox | None: ...

    def by_id(self, tenant_id: str, mailbox_id: str) -> Mailbox | None: ...

    def page(self, tenant_id: str, *, after: str, limit: int) -> list[Mailbox]:
        """By UPN, those after the given one."""
        ...

    def licensed_users(self, tenant_id: str) -> tuple[int, int]:
        """How many user and mail-user mailboxes there are, and how many of them are licensed."""
        ...

    def keys(self, mailbox_id: str) -> list[MailboxKey]:
        """Oldest version first."""
        ...

    def ask_hierarchy(self, tenant_id: str, mailbox_ids: Sequence[str] | None, policy_id: str, now: int) -> int:
        """Set the pending policy of these mailboxes, or of all that may have one; how many changed."""
        ...

    def awaiting(self, tenant_id: str, policy_id: str, limit: int) -> list[tuple[Mailbox, list[MailboxKey]]]:
        """Mailboxes that wait to be re-wrapped to a policy, with their keys."""
        ...

    def rewrapped(self, tenant_id: str, policy_id: str, changed: Sequence[Mailbox], keys: Sequence[MailboxKey]) -> None:
        """Store re-wrapped keys and the new hierarchy of mailboxes that wait for it.

        Of those that are done the key version and `moved_at` are stored too, and their keys are replaced; all others are queued for a move.
        """
        ...

    def insert_key(self, key: MailboxKey) -> None: ...

    def remove_keys_below(self, mailbox_id: str, version: int) -> int: ...

    def set_move(self, mailbox: Mailbox) -> None:
        """Store key version, move state, moved_at and moved_items."""
        ...

    def delete(self, tenant_id: str, mailbox_id: str) -> None:
        """The mailbox, its keys, folders and items; its objects become due for deletion."""
        ...

    def delegates(self, mailbox_id: str) -> list[str]: ...

    def add_delegate(self, mailbox_id: str, upn: str) -> None: ...

    def remove_delegate(self, mailbox_id: str, upn: str) -> bool: ...

    def folders(self, mailbox_id: str) -> list[Folder]: ...

    def insert_folder(self, folder: Folder) -> None:
        """Raises Conflict when the mailbox has a folder of that hash."""
        ...

    def update_folder(self, folder: Folder) -> None: ...

    def drop_folders(self, mailbox_ids: Sequence[str]) -> None:
        """Remove the folders of mailboxes that hold no items."""
        ...

    def known_hashes(self, mailbox_id: str, hashes: Sequence[bytes]) -> set[bytes]:
        """Which of these content hashes the mailbox has."""
        ...

    def insert_items(self, items: Sequence[Item]) -> None:
        """Raises Conflict when one of them is already there: the caller starts its batch again."""
        ...

    def add_counts(self, mailbox_id: str, items: int, size: int) -> None: ...

    def place(self, tenant_id: str, upn: str, item_id: str) -> ItemPlace | None:
        """The hot query of reading."""
        ...

    def items(self, mailbox_id: str, *, after: str, limit: int) -> list[Item]:
        """Newest first, those after the item of that id."""
        ...

    def older_items(self, mailbox_id: str, than: tuple[int, str] | None, limit: int) -> list[Item]:
        """Newest first, those older than a time and id, whether or not there is such an item; all for None."""
        ...

    def items_below(self, mailbox_id: str, version: int, limit: int) -> list[Item]:
        """Items still under an older key, in the order they lie in the object store."""
        ...

    def count_below(self, mailbox_id: str, version: int) -> tuple[int, int]:
        """How many items are still under an older key, and their size in bytes."""
        ...

    def move_items(self, mailbox_id: str, moved: Sequence[MovedItem], *, below: int) -> int:
        """Point items at their new place; those deleted meanwhile are passed over. How many changed."""
        ...

    def delete_item(self, mailbox_id: str, item_id: str) -> Item | None: ...

    def retire_objects_below(self, mailbox_id: str, version: int, due: int) -> int: ...

    def retire_object_if_empty(self, ref: str, due: int) -> None: ...

    def mark_emptied(self, refs: Sequence[str]) -> None:
        """Note of those of the objects that no item lies in any more, so that a move passes them over."""
        ...

    def overdue_moves(self, tenant_id: str | None, assigned_before: int, limit: int | None = None) -> list[Mailbox]:
        """Mailboxes whose change of hierarchy was asked for before, and is not done, those that failed included (R-093): first those that wait longest."""
        ...


class JobRows(Protocol):
    """Long work."""

    def insert(self, jobs: Sequence[Job]) -> None: ...

    def get(self, job_id: str) -> Job | None: ...

    def page(self, tenant_id: str | None, *, states: Sequence[JobState], after: str, limit: int) -> list[Job]:
        """Newest first; of all tenants for None."""
        ...

    def claim(self, owner: str, now: int, until: int, *, only: str = "", alone: bool = False, kind: str = "") -> Job | None:
        """Take the most urgent job that is queued and due, or whose runner's lease ran out.

        `only` restricts to one job and, unless `alone`, to what it started; `kind` to jobs of a kind.
        """
        ...

    def save(self, job: Job) -> bool:
        """Store progress and state under the job's lease epoch; False when somebody else holds it by now."""
        ...

    def extend(self, job: Job, until: int) -> bool: ...

    def cancel(self, job_id: str, now: int) -> bool:
        """Stop a job and the jobs it started; whether any of them was not finished yet."""
        ...

    def pending_of(self, parent_id: str) -> tuple[int, int, int]:
        """Of the jobs another one started: how many are unfinished, their units done, their units in all."""
        ...

    def troubled(self, parent_id: str) -> Job | None:
        """Of the jobs another one started, one that failed or fails again and again, if there is any."""
        ...

    def running_owners(self) -> list[str]:
        """Who holds leases."""
        ...

    def release(self, owner: str) -> None:
        """End the leases of a runner that is known to be dead."""
        ...

    def waiting_since(self, before: int) -> Job | None:
        """One that could have been run since before, and that nobody has taken."""
        ...

    def exists(self, kind: str, subject_id: str) -> bool:
        """Whether an unfinished job of that kind works on a thing."""
        ...


class AuditRows(Protocol):
    """Records: written in the transaction of the act, and never changed."""

    def append(self, record: AuditRecord) -> None: ...

    def search(self, query: AuditQuery) -> list[AuditRecord]:
        """Newest first."""
        ...


class AlertRows(Protocol):
    """Conditions over time. What is raised, told and resolved is decided by `services.alerting`."""

    def lasting(self, tenant_id: str, subject_id: str, kinds: Sequence[AlertKind]) -> list[Alert]:
        """Of one subject; at most one of each kind."""
        ...

    def lasting_of(self, kinds: Sequence[AlertKind], limit: int) -> list[Alert]:
        """Of all tenants, oldest first: for the service's own upkeep."""
        ...

    def untold(self, limit: int) -> list[Alert]:
        """Those that last and that no hook was told of, of all tenants."""
        ...

    def last_told(self, tenant_id: str, subject_id: str, kind: AlertKind) -> int:
        """When hooks were last told of any alert like it, ended ones included; 0 for never."""
        ...

    def insert(self, alert: Alert) -> None: ...

    def save(self, alert: Alert) -> None: ...

    def page(self, tenant_id: str | None, *, limit: int, kinds: Sequence[AlertKind] = (), lasting_only: bool = False) -> list[Alert]:
        """Newest first; of all tenants for None. No kinds: all."""
        ...

    def forget(self, before: int) -> int:
        """Remove what ended before."""
        ...


class HookRows(Protocol):
    """What hooks are told, how far each is, and which workers have shown themselves."""

    def add_event(self, event: Event) -> None:
        """Events are numbered in the order of their transactions."""
        ...

    def events_after(self, position: int, limit: int) -> list[Event]:
        """In order."""
        ...

    def ended(self, alert_ids: Sequence[str]) -> set[str]:
        """Of these alerts, those that do not last any more."""
        ...

    def forget_events(self, before: int) -> int: ...

    def state(self, name: str) -> HookState | None: ...

    def save_state(self, state: HookState) -> None: ...

    def beat(self, owner: str, now: int) -> None:
        """A worker shows that it gets on."""
        ...

    def last_beat(self) -> int:
        """When the last worker did; 0 for never."""
        ...


class SettingRows(Protocol):
    """Overrides of settings, by name."""

    def all(self) -> dict[str, str]: ...

    def put(self, name: str, value: str) -> None: ...


class Tx(Protocol):
    """One transaction."""

    @property
    def tenants(self) -> TenantRows: ...
    @property
    def sign_in(self) -> SignInRows: ...
    @property
    def policies(self) -> PolicyRows: ...
    @property
    def mailboxes(self) -> MailboxRows: ...
    @property
    def sites(self) -> SiteRows: ...
    @property
    def files(self) -> FileRows: ...
    @property
    def objects(self) -> ObjectRows: ...
    @property
    def jobs(self) -> JobRows: ...
    @property
    def audit(self) -> AuditRows: ...
    @property
    def alerts(self) -> AlertRows: ...
    @property
    def hooks(self) -> HookRows: ...
    @property
    def settings(self) -> SettingRows: ...
    @property
    def figures(self) -> FigureRows: ...


class Database(Protocol):
    """Opens transactions."""

    def write(self) -> AbstractContextManager[Tx]:
        """A writing transaction; it waits for its turn before it starts, so nothing read inside can be stale."""
        ...

    def read(self) -> AbstractContextManager[Tx]:
        """One snapshot."""
        ...
