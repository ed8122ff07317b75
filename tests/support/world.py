"""A whole Keystead for tests: real databases, real key store, real embedded vault in a temporary folder; time and faults in the test's hands.

    world = World(tmp_path)
    contoso = world.tenant("contoso.example")            # with an admin, two vaults, two keys, onboarded
    policy = contoso.policy("Mail")
    alice = contoso.mailbox("alice@contoso.example", messages=3)
    contoso.assign(policy, alice)                        # re-wrapped and moved when it returns
    world.vaults.fail("contosov1", "system-error")       # every call about that vault from now on
    world.clock.advance(61 * SECOND)
    alice.read_first()

`World.process()` opens the same stores a second time, as another process would: its own keyring, its own caches.
"""

from __future__ import annotations

import io
import os
import shutil
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from keystead.adapters.keystores.sql import open_keystore
from keystead.adapters.objects.folder import FolderObjects
from keystead.adapters.sql.store import SqlDatabase
from keystead.adapters.sql.vault_store import SqlVaultStore
from keystead.adapters.vaults.embedded import EmbeddedVaults
from keystead.api.call import Content, Upload
from keystead.api.dispatch import Dispatcher
from keystead.api.routes import Side
from keystead.api.types import mailboxes as m
from keystead.api.types import policies as p
from keystead.api.types import tenants as t
from keystead.api.types import vaults as v
from keystead.api.types import watching as w
from keystead.cli.plaintext import look_for
from keystead.client.client import Client
from keystead.client.local import LocalTransport
from keystead.core.access.principal import NOBODY, Principal, Role
from keystead.core.audit.record import RecordType
from keystead.core.errors import Unauthenticated
from keystead.core.keys.outcome import Outcome, OutcomeClass
from keystead.core.secret import KEY_BYTES, SecretKey
from keystead.core.settings import Settings
from keystead.ports.clock import SECOND
from keystead.ports.vaults import VaultFailure
from keystead.services import tenants
from keystead.services.auditing import LogAndDirectory
from keystead.services.context import DevHome, HomeFacts, Services
from keystead.services.jobs.runner import push, run_due
from keystead.services.keyring import Keyring
from keystead.services.sign_in import sign_in
from keystead.services.tally import Tally
from keystead.services.unwritten import CountingDatabase, MemoryLedger
from keystead.settings import parse_setting
from keystead.vault.services import VaultServices, open_vault
from support.databases import FAMILIES, make_stores

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from keystead.ports.vaults import KeyFacts, SubscriptionFacts, Vaults, WrappedValue
    from support.databases import Stores

START = 1_780_000_000_000
"""2026-05-28: where test clocks begin."""
OPERATOR = Principal("operator@provider.example", None, frozenset({Role.OPERATOR}), dev=True)
PERMISSIONS = ["get", "wrapKey", "unwrapKey"]


class ManualClock:
    """Stands still unless moved; sleeping moves it, so nothing in a test waits."""

    def __init__(self) -> None:
        self.time = START
        self.slept: list[int] = []

    def now(self) -> int:
        return self.time

    def sleep(self, milliseconds: int) -> None:
        self.slept.append(milliseconds)
        self.time += milliseconds

    def advance(self, milliseconds: int) -> int:
        self.time += milliseconds
        return self.time


@dataclass
class ScriptedVaults:
    """In front of the embedded vault: fails as told, counts what was asked."""

    inner: Vaults
    failing: dict[str, Outcome] = field(default_factory=dict)
    wrong_bytes: set[str] = field(default_factory=set)
    asked: list[tuple[str, str]] = field(default_factory=list)
    before: Callable[[str, str], None] = lambda _verb, _vault: None

    def fail(self, vault: str, kind: str, reason: str = "scripted") -> None:
        """`kind`: system-error, denied, integrity; success ends it."""
        if kind == "success":
            self.failing.pop(vault.lower(), None)
        else:
            self.failing[vault.lower()] = Outcome(OutcomeClass(kind), reason)

    def _meet(self, verb: str, key_uri: str) -> str:
        vault = key_uri.removeprefix("https://").partition(".")[0].lower()
        self.asked.append((verb, vault))
        self.before(verb, vault)
        if vault in self.failing:
            raise VaultFailure(self.failing[vault])
        return vault

    def key_facts(self, tenant_id: str, application: str, key_uri: str) -> KeyFacts:
        self._meet("facts", key_uri)
        return self.inner.key_facts(tenant_id, application, key_uri)

    def subscription_facts(self, tenant_id: str, name: str) -> SubscriptionFacts:
        return self.inner.subscription_facts(tenant_id, name)

    def wrap(self, tenant_id: str, application: str, key_uri: str, value: bytes) -> WrappedValue:
        self._meet("wrap", key_uri)
        return self.inner.wrap(tenant_id, application, key_uri, value)

    def unwrap(self, tenant_id: str, application: str, key_uri: str, value: bytes) -> bytes:
        vault = self._meet("unwrap", key_uri)
        opened = self.inner.unwrap(tenant_id, application, key_uri, value)
        return bytes(byte ^ 0xFF for byte in opened) if vault in self.wrong_bytes else opened


class World:
    """One installation."""

    def __init__(self, path: Path, *, like: World | None = None, **settings: Any) -> None:
        """`like`: an installation whose stores are copied, so that a test need not make its own tenants and keys."""
        self.path = path
        self.clock = ManualClock()
        self.settings = replace(Settings(), **settings)
        self.faults: dict[str, str] = {}
        if like is not None:
            shutil.copytree(like.path, path, dirs_exist_ok=True, ignore=shutil.ignore_patterns("*.db*"))
            self.clock.time = like.clock.time
        self.stores: Stores = make_stores(path) if like is None else like.stores.copy(path)
        for name in ("seals", "objects"):
            (path / name).mkdir(exist_ok=True)
        self.master: SecretKey = like.master if like is not None else SecretKey(os.urandom(KEY_BYTES))
        self.seal: SecretKey = like.seal if like is not None else SecretKey(os.urandom(KEY_BYTES))
        self._closers: list[Callable[[], None]] = []
        first = self.process("first")
        self.services, self.vault, self.vaults, self.dispatcher = first.services, first.vault, first.vaults, first.dispatcher

    def process(self, owner: str, *, dev: bool = True, **changes: Any) -> Process:
        """Open the stores once more, as a process of that name."""
        path, clock = self.path, self.clock
        engines = [self.stores.engine(family) for family in FAMILIES]
        unwritten, tally = MemoryLedger(), Tally()
        db = CountingDatabase(SqlDatabase(engines[0]), unwritten, clock, tally)
        keystore = open_keystore(engines[1], path / "seals", self.master, clock, os.urandom)
        vault = open_vault(SqlVaultStore(engines[2]), self.seal, clock, os.urandom)
        vaults = ScriptedVaults(EmbeddedVaults(vault))
        keyring = Keyring(db, keystore, vaults, clock, os.urandom, self.settings, owner, tally)
        services = Services(
            db=db,
            keystore=keystore,
            objects=FolderObjects(path / "objects"),
            vaults=vaults,
            clock=clock,
            random=os.urandom,
            settings=self.settings,
            keyring=keyring,
            owner=owner,
            alive=lambda _owner: True,
            home=HomeFacts(str(path), dev, "test", {}, parse_setting),
            dev=DevHome(clock.advance, self.faults.__setitem__) if dev else None,
            unwritten=unwritten,
            tally=tally,
        )
        services = replace(services, **changes)
        dispatcher = Dispatcher({Side.SERVICE: services, Side.VAULT: vault}, LogAndDirectory(services), os.urandom)
        self._closers += [keyring.close, vault.journal.close, *(engine.dispose for engine in engines)]
        return Process(services, vault, vaults, dispatcher)

    def close(self) -> None:
        for close in self._closers:
            close()
        self.stores.close()

    def files_holding(self, *needles: bytes) -> list[str]:
        """Which file of the home holds which of these bytes, as text for an assertion; databases and their logs included."""
        rows = self.stores.dump(*FAMILIES)
        found = [f"rows: {needle!r}" for needle in needles if needle in rows]
        return found + [f"{name}: {needle!r}" for name, needle in look_for(self.path, list(needles)).hits]

    def objects(self) -> set[str]:
        """References of the objects on the disk."""
        root = self.path / "objects"
        return {f"{path.parent.parent.name}/{path.name}" for path in root.rglob("*") if path.is_file()}

    def age_objects(self, seconds: int) -> None:
        """Make every object that much older: the store goes by the disk's clock, not by ours."""
        for path in (self.path / "objects").rglob("*"):
            if path.is_file():
                stat = path.stat()
                os.utime(path, (stat.st_atime - seconds, stat.st_mtime - seconds))

    def client(self, principal: Principal, tenant: str = "") -> Client:
        return self.first.client(principal, tenant)

    def forget(self) -> None:
        """Let the first process start with a cold keyring."""
        self.services.keyring._open.clear()

    def sql(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        """Read or change the service's database past the service, as somebody with the database could."""
        return self.stores.sql("keystead", statement, *values)

    @property
    def first(self) -> Process:
        return Process(self.services, self.vault, self.vaults, self.dispatcher)

    @property
    def operator(self) -> Client:
        return self.client(OPERATOR)

    def as_person(self, upn: str) -> Client:
        """Whoever that is by now, by the directory."""
        return self.client(tenants.impersonate(self.services, upn))

    def tenant(self, domain: str = "contoso.example", *, ready: bool = True) -> TenantWorld:
        """A tenant with a global administrator; when `ready`, with two protected subscriptions, two vaults, a key in each, onboarded."""
        name = domain.partition(".")[0]
        made = self.operator.call("tenant.create", t.CreateTenant(name=name.title(), domain=domain, geo=["EUR"]))
        self.client(OPERATOR, made.id).call("user.add", t.AddUser(upn=f"admin@{domain}", roles=["global-admin"]))
        tenant = TenantWorld(self, made.id, name, domain)
        if ready:
            tenant.make_vault(f"{name}v1", f"{name}-s1", "westeurope")
            tenant.make_vault(f"{name}v2", f"{name}-s2", "eastus")
            tenant.keys = [tenant.make_key(f"{name}v1", "root"), tenant.make_key(f"{name}v2", "root")]
            tenant.admin.call("tenant.onboard", t.OnboardTenant(workload="mail", subscriptions=[f"{name}-s1", f"{name}-s2"]))
        return tenant


@dataclass(frozen=True)
class Process:
    """One process of an installation."""

    services: Services
    vault: VaultServices
    vaults: ScriptedVaults
    dispatcher: Dispatcher

    def client(self, principal: Principal = NOBODY, tenant: str = "") -> Client:
        return Client(LocalTransport(self.dispatcher, lambda: principal, lambda job: push(self.services, job), lambda: None), tenant)


@dataclass
class TenantWorld:
    """One tenant, by its global administrator."""

    world: World
    id: str
    name: str
    domain: str
    keys: list[str] = field(default_factory=list)

    @property
    def admin(self) -> Client:
        return self.world.as_person(f"admin@{self.domain}")

    def within(self, world: World) -> TenantWorld:
        """The same tenant in a copy of its installation."""
        return replace(self, world=world)

    def person(self, local: str, *roles: t.RoleName) -> Client:
        upn = f"{local}@{self.domain}"
        self.admin.call("user.add", t.AddUser(upn=upn, roles=list(roles)))
        return self.world.as_person(upn)

    def make_vault(self, vault: str, subscription: str, region: str, **more: Any) -> None:
        """A vault in a protected paid subscription of that name, with the mail application allowed in."""
        admin = self.admin
        if subscription not in {one.name for one in admin.call("subscription.list")}:
            admin.call("subscription.create", v.SubscriptionCreate(name=subscription))
            admin.call("subscription.protect", v.SubscriptionNamed(name=subscription))
        admin.call("vault.create", v.VaultCreate(name=vault, subscription=subscription, region=region, **more))
        self.allow(vault)
        people = ["get", "list", "create", "import", "update", "delete", "recover", "purge", "rotate", "backup", "restore"]
        people += ["getrotationpolicy", "setrotationpolicy"]
        admin.call("vault.access.grant", v.AccessGrant(vault=vault, upn=f"admin@{self.domain}", permissions=people))

    def make_key(self, vault: str, name: str, **more: Any) -> str:
        """The key's base identifier."""
        made: v.KeyView = self.admin.call("key.create", v.KeyCreate(vault=vault, name=name, **({"ops": ["wrapKey", "unwrapKey"]} | more)))
        return made.base_id

    def own_keys(self, name: str) -> list[str]:
        """A key of that name in each of the two vaults, for a policy that a test may break without breaking others."""
        return [self.make_key(f"{self.name}v1", name), self.make_key(f"{self.name}v2", name)]

    def close_keys(self, name: str) -> None:
        """Disable both keys of that name; what is cached is asked again."""
        for vault in ("v1", "v2"):
            self.admin.call("key.disable", v.KeyVersionNamed(vault=self.name + vault, name=name))
        self.world.clock.advance(61 * SECOND)

    def open_keys(self, name: str) -> None:
        """Enable them again."""
        for vault in ("v1", "v2"):
            self.admin.call("key.enable", v.KeyVersionNamed(vault=self.name + vault, name=name))
        self.world.clock.advance(61 * SECOND)

    def allow(self, vault: str) -> None:
        self.admin.call("vault.access.grant", v.AccessGrant(vault=vault, principal="mail", permissions=PERMISSIONS))

    def deny(self, vault: str) -> None:
        self.admin.call("vault.access.revoke", v.AccessRevoke(vault=vault, principal="mail"))

    def policy(self, name: str = "Mail", **more: Any) -> p.PolicyView:
        made: p.PolicyView = self.admin.call("policy.create", p.CreatePolicy(name=name, keys=more.pop("keys", self.keys), **more))
        return made

    def mailbox(self, local: str, *, messages: int = 0, **more: Any) -> MailboxWorld:
        upn = f"{local.partition('@')[0]}@{self.domain}"
        self.admin.call("mailbox.create", m.CreateMailbox(upn=upn, **more))
        box = MailboxWorld(self, upn)
        if messages:
            box.add(*(message(index) for index in range(messages)))
        return box

    def assign(self, policy: p.PolicyView | str, *boxes: MailboxWorld, wait: bool = True) -> w.JobView:
        """Assign, and by default run the jobs to their end."""
        name = policy if isinstance(policy, str) else policy.name
        asked: m.AssignmentView = self.admin.call("mailbox.assign", m.AssignPolicy(policy=name, upns=[box.upn for box in boxes]))
        job: w.JobView = self.admin.wait(asked.job_id) if wait else self.admin.call("job.show", w.NameJob(job=asked.job_id))
        return job

    def audit(self, *operations: str) -> list[w.AuditRecordView]:
        found: list[w.AuditRecordView] = self.admin.call("audit.search", w.SearchAudit(operations=list(operations), limit=5000))
        return found

    def fallbacks(self) -> list[w.AuditRecordView]:
        """Uses of an availability key, newest first."""
        return [one for one in self.audit() if one.record_type == RecordType.CUSTOMER_KEY]

    def alerts(self) -> set[str]:
        """Kinds of the alerts that last."""
        return {alert.kind for alert in self.admin.call("alerts.list", w.ListAlerts()) if alert.resolved is None}

    def health(self, policy: str = "Mail") -> str:
        state: str = self.admin.call("policy.health", p.NamePolicy(policy=policy)).state
        return state


@dataclass
class MailboxWorld:
    """One mailbox, by its owner."""

    tenant: TenantWorld
    upn: str

    @property
    def owner(self) -> Client:
        return self.tenant.world.as_person(self.upn)

    def add(self, *messages: bytes, folder: str = "Inbox", client: Client | None = None) -> m.ImportResult:
        seen: dict[bytes, int] = {}
        items = []
        for position, data in enumerate(messages, 1):
            seen[data] = seen.get(data, 0) + 1
            items.append(m.ImportItem(position=position, ordinal=seen[data], folder=folder, data=data))
        result: m.ImportResult = (client or self.tenant.admin).call("mailbox.import", m.ImportBatch(upn=self.upn, items=items))
        return result

    def add_large(self, data: bytes, folder: str = "Inbox") -> m.ImportResult:
        upload = Upload(len(data), io.BytesIO(data).read)
        request = m.ImportLarge(upn=self.upn, position=1, ordinal=1, folder=folder)
        result: m.ImportResult = self.tenant.admin.call("mailbox.import-item", request, upload=upload)
        return result

    def items(self, client: Client | None = None) -> list[m.ItemView]:
        found: list[m.ItemView] = (client or self.owner).call("mailbox.items", m.ListItems(upn=self.upn, limit=1000))
        return found

    def read(self, item: str, client: Client | None = None) -> bytes:
        content: Content = (client or self.owner).call("mailbox.read", m.NameItem(upn=self.upn, item=item))
        return b"".join(content.chunks)

    def read_all(self) -> list[bytes]:
        return sorted(self.read(item.id) for item in self.items())

    def statistics(self) -> m.MailboxStatistics:
        found: m.MailboxStatistics = self.tenant.admin.call("mailbox.statistics", m.NameMailbox(upn=self.upn))
        return found


def signed_in(services: Services, token: str, client_ip: str = "") -> Principal:
    """Who a token is; NOBODY for one that is not good."""
    try:
        return sign_in(services, token, client_ip)
    except Unauthenticated:
        return NOBODY


def message(index: int, *, subject: str = "", body: str = "", size: int = 0) -> bytes:
    """A small ordinary message; equal for equal arguments."""
    text = body or f"This is the body of message {index}."
    head = f"From: sam@fabrikam.example\r\nTo: alice@contoso.example\r\nSubject: {subject or f'Message {index}'}\r\nDate: Mon, 1 Jun 2026 10:00:{index % 60:02} +0000\r\n\r\n"
    return head.encode() + text.encode() + b"x" * size + b"\r\n"


def run_jobs(world: World) -> None:
    """Run everything that is due."""
    run_due(world.services)


__all__ = [
    "OPERATOR",
    "SECOND",
    "MailboxWorld",
    "ManualClock",
    "Process",
    "ScriptedVaults",
    "TenantWorld",
    "World",
    "message",
    "run_jobs",
    "signed_in",
]
