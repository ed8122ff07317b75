"""The contract of `ports/tx.py` on SQLite and PostgreSQL: conflicts, tenants kept apart, transactions that see and lose nothing they should not."""

from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy.exc import IntegrityError as SqlIntegrityError

from keystead.adapters.sql.store import SqlDatabase
from keystead.core.access.principal import Role
from keystead.core.access.tokens import SigningKey, SignInProvider, Token, TokenKind
from keystead.core.alerts import Alert, AlertKind, Event, EventState, HookState, Severity
from keystead.core.audit.record import AuditRecord, RecordType, UserType
from keystead.core.errors import Conflict
from keystead.core.ids import new_id
from keystead.core.jobs import Job, JobState
from keystead.core.policies.policy import CopyRole, Policy, PolicyCopy, PolicyVersion, Workload
from keystead.core.stores.mailbox import Folder, Item, Mailbox, MailboxKey, MailboxType, MoveState
from keystead.core.stores.objects import StoredObject
from keystead.core.tenancy import Officer, Onboarding, Person, Tenant
from keystead.ports.tx import AuditQuery, MovedItem
from support.databases import make_stores

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from keystead.ports.tx import Database, Tx
    from support.databases import Stores


def fresh() -> str:
    return new_id(os.urandom)


@pytest.fixture
def stores(tmp_path: Path, database: str) -> Iterator[Stores]:
    made = make_stores(tmp_path, database)
    yield made
    made.close()


@pytest.fixture
def db(stores: Stores) -> Iterator[SqlDatabase]:
    database = SqlDatabase(stores.engine("keystead"))
    yield database
    database.close()


@pytest.fixture
def other(stores: Stores, db: SqlDatabase) -> Iterator[SqlDatabase]:
    """The same database, opened as another process would."""
    database = SqlDatabase(stores.engine("keystead"))
    yield database
    database.close()


def tenant(name: str = "contoso") -> Tenant:
    return Tenant(fresh(), name.title(), f"{name}.example", ("EUR", "NAM"), 1_000)


def policy(tenant_id: str, name: str, workload: Workload = Workload.MAIL) -> tuple[Policy, PolicyVersion, list[PolicyCopy]]:
    enabled = True
    made = Policy(fresh(), tenant_id, workload, name, "", enabled, 1_000, fresh(), 1, bytes(32), fresh(), fresh())
    copies = [
        PolicyCopy(made.version_id, role, f"https://{role}.vault.localhost/keys/k/{'0' * 32}", "RSA-OAEP-256", b"sealed")
        for role in (CopyRole.PRIMARY, CopyRole.SECONDARY)
    ]
    return made, PolicyVersion(made.version_id, made.id, 1, 1_000, "created"), copies


def mailbox(tenant_id: str, policy_id: str, local: str, domain: str = "contoso.example") -> Mailbox:
    return Mailbox(
        id=fresh(),
        tenant_id=tenant_id,
        upn=f"{local}@{domain}",
        type=MailboxType.USER,
        licensed=True,
        created=1_000,
        policy_id=policy_id,
        pending_policy_id=None,
        key_version=1,
        move_state=MoveState.NONE,
        assigned_at=None,
        moved_at=None,
        moved_items=0,
        item_count=0,
        size_bytes=0,
    )


def item(mailbox_id: str, number: int, ref: str = "c0/" + "a" * 32) -> Item:
    return Item(fresh(), mailbox_id, fresh(), "message", number, 10, 1, number.to_bytes(32, "big"), b"sealed", ref, number * 100, 100, 1)


def job(tenant_id: str, **changes: object) -> Job:
    made = Job(fresh(), tenant_id, "", "clean", fresh(), {"a": "b"}, JobState.QUEUED, 5, 0, 10, "", 0, 0, 0, 1_000, None, None, "")
    return replace(made, **changes)  # type: ignore[arg-type]


class Made:
    """A tenant with a provider policy, a customer policy and a mailbox."""

    def __init__(self, db: Database, name: str = "contoso") -> None:
        self.tenant = tenant(name)
        provider, customer = policy(self.tenant.id, "provider", Workload.PROVIDER), policy(self.tenant.id, "Mail")
        self.provider, self.policy = provider[0], customer[0]
        self.mailbox = mailbox(self.tenant.id, self.provider.id, "alice", self.tenant.domain)
        with db.write() as tx:
            tx.tenants.insert(self.tenant)
            tx.policies.insert(*provider)
            tx.policies.insert(*customer)
            tx.mailboxes.insert(self.mailbox, MailboxKey(self.mailbox.id, 1, b"wrapped"))


# -- transactions -------------------------------------------------------------------------------------------------------------------------


def test_what_a_write_does_is_seen_by_others_only_when_it_has_ended(db: SqlDatabase, other: SqlDatabase) -> None:
    made = tenant()
    with db.write() as tx:
        tx.tenants.insert(made)
        assert tx.tenants.find(made.id) == made
        with other.read() as outside:
            assert outside.tenants.find(made.id) is None
    with other.read() as outside:
        assert outside.tenants.find(made.id) == made


def test_a_write_that_raises_leaves_nothing(db: SqlDatabase, other: SqlDatabase) -> None:
    made = tenant()

    def fail(error: type[BaseException]) -> None:
        with db.write() as tx:
            tx.tenants.insert(made)
            tx.settings.put("probe_interval", "1s")
            raise error

    for error in (ValueError, KeyboardInterrupt):
        with pytest.raises(error):
            fail(error)
    for database in (db, other):
        with database.read() as tx:
            assert tx.tenants.all() == []
            assert tx.settings.all() == {}
    with db.write() as tx:
        tx.tenants.insert(made)


def test_a_read_sees_one_snapshot_whatever_is_written_meanwhile(db: SqlDatabase, other: SqlDatabase) -> None:
    with db.read() as tx:
        assert tx.settings.all() == {}
        with other.write() as writer:
            writer.settings.put("probe_interval", "1s")
        assert tx.settings.all() == {}
    with db.read() as tx:
        assert tx.settings.all() == {"probe_interval": "1s"}


def test_writers_queue_and_lose_no_update(db: SqlDatabase, other: SqlDatabase) -> None:
    made = Made(db)

    def add(number: int) -> None:
        with (db, other)[number % 2].write() as tx:
            found = tx.mailboxes.by_id(made.tenant.id, made.mailbox.id)
            assert found is not None
            tx.mailboxes.set_move(replace(found, moved_items=found.moved_items + 1))
            tx.mailboxes.add_counts(made.mailbox.id, 1, 10)

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(add, range(60)))
    with db.read() as tx:
        found = tx.mailboxes.by_id(made.tenant.id, made.mailbox.id)
    assert found is not None
    assert (found.moved_items, found.item_count, found.size_bytes) == (60, 60, 600)


def test_a_token_is_redeemed_by_exactly_one_of_many(db: SqlDatabase, other: SqlDatabase) -> None:
    token = Token(b"d" * 32, fresh(), TokenKind.CLAIM, "alice@contoso.example", fresh(), 1_000, 5_000)
    with db.write() as tx:
        tx.sign_in.insert(token)
        assert tx.sign_in.by_digest(token.digest) == (token, None)
    barrier = threading.Barrier(8)

    def redeem(number: int) -> bool:
        barrier.wait()
        with (db, other)[number % 2].write() as tx:
            return tx.sign_in.remove(token.id)

    with ThreadPoolExecutor(8) as pool:
        assert sorted(pool.map(redeem, range(8))) == [False] * 7 + [True]


def test_a_token_is_one_persons_in_one_tenant(db: SqlDatabase) -> None:
    made = Made(db)
    tenant = made.tenant.id
    alice = Person(fresh(), tenant, f"alice@{made.tenant.domain}", frozenset({Role.USER}), 7)
    operator = Person(fresh(), None, f"{fresh()}@provider.example", frozenset({Role.OPERATOR}), 7)
    key = SigningKey(fresh(), b"p" * 32, b"sealed", 10)
    scopes = frozenset({"mailbox.*", "audit.search"})
    own = Token(fresh().encode()[:32], fresh(), TokenKind.SERVICE, alice.upn, tenant, 3, 50, "Importer", scopes)
    provider = Token(fresh().encode()[:32], fresh(), TokenKind.SIGN_IN, operator.upn, None, 3, 5)
    stolen_name = Token(fresh().encode()[:32], fresh(), TokenKind.SIGN_IN, alice.upn, fresh(), 3, 5)
    with db.write() as tx:
        for person in (alice, operator):
            tx.tenants.insert_person(person)
        for token in (own, provider, stolen_name):
            tx.sign_in.insert(token)
        tx.sign_in.insert_signing_key(key)
        assert tx.sign_in.by_digest(own.digest) == (own, alice)
        assert tx.sign_in.by_digest(provider.digest) == (provider, operator)
        assert tx.sign_in.by_digest(stolen_name.digest) == (stolen_name, None), "the name of somebody in another tenant"
        assert tx.sign_in.by_id(own.id, key.id) == (own, alice)
        assert tx.sign_in.by_id(own.id, fresh()) is None, "a signing key that is gone"
        assert tx.sign_in.page(tenant) == [own] == tx.sign_in.page(tenant, upn=alice.upn)
        assert provider in tx.sign_in.page(None)
        assert tx.sign_in.get(tenant, provider.id) is None
        assert tx.sign_in.get(None, own.id) is None
        tx.sign_in.used(own.id, 40)
        tx.sign_in.shorten(own.id, 60)
        assert tx.sign_in.get(tenant, own.id) == replace(own, last_used=40)
        tx.sign_in.shorten(own.id, 45)
        assert tx.sign_in.get(tenant, own.id) == replace(own, last_used=40, expires=45)
        assert tx.sign_in.remove_claims(tenant, alice.upn) == 0
        assert tx.sign_in.remove_expired(45) >= 2
        assert tx.sign_in.page(tenant) == [replace(own, last_used=40, expires=45)]
        assert tx.policies.drop_missing_keys([key.id, "unknown"]) == ["unknown"]
        tx.sign_in.retire_signing_key(key.id, 99)
        assert replace(key, ends=99) in tx.sign_in.signing_keys()
        tx.sign_in.remove_signing_keys([key.id])
        assert key.id not in {one.id for one in tx.sign_in.signing_keys()}


def test_a_tenant_has_one_sign_in_provider(db: SqlDatabase) -> None:
    made = Made(db)
    tenant = made.tenant.id
    alice = Person(fresh(), tenant, f"alice@{made.tenant.domain}", frozenset({Role.USER}), 7)
    audience = fresh()
    provider = SignInProvider(tenant, "https://login.example", audience, "upn", "", "", 5)
    with db.write() as tx:
        tx.tenants.insert_person(alice)
        tx.sign_in.put_provider(replace(provider, audience="before"))
        tx.sign_in.put_provider(provider)
        assert tx.sign_in.provider(tenant) == provider
        assert tx.sign_in.providers("https://login.example", ["other", audience]) == [(provider, made.tenant.domain)]
        assert tx.sign_in.providers("https://login.example", ["other"]) == []
        assert tx.sign_in.providers("https://login.example/", [audience]) == []
        assert tx.sign_in.provided(tenant, alice.upn) == (provider, alice)
        assert tx.sign_in.provided(tenant, "bob@contoso.example") == (provider, None)
        assert tx.sign_in.remove_provider(tenant)
        assert not tx.sign_in.remove_provider(tenant)
        assert tx.sign_in.provided(tenant, alice.upn) is None


def test_a_job_is_claimed_by_exactly_one_of_many(db: SqlDatabase, other: SqlDatabase) -> None:
    with db.write() as tx:
        tx.jobs.insert([job("") for _ in range(3)])
    barrier = threading.Barrier(6)

    def claim(number: int) -> str | None:
        barrier.wait()
        with (db, other)[number % 2].write() as tx:
            claimed = tx.jobs.claim(f"runner-{number}", 1_000, 2_000)
        return None if claimed is None else claimed.id

    with ThreadPoolExecutor(6) as pool:
        claimed = [one for one in pool.map(claim, range(6)) if one is not None]
    assert len(claimed) == len(set(claimed)) == 3


# -- conflicts ------------------------------------------------------------------------------------------------------------------------------


def test_names_that_are_taken_are_conflicts_that_say_so(db: SqlDatabase) -> None:
    made = Made(db)
    person = Person(fresh(), made.tenant.id, "alice@contoso.example", frozenset({Role.USER}), 1)
    folder = Folder(fresh(), made.mailbox.id, 1, b"h" * 32, b"sealed")
    one = item(made.mailbox.id, 1)
    with db.write() as tx:
        tx.tenants.insert_person(person)
        tx.mailboxes.insert_folder(folder)
        tx.mailboxes.insert_items([one])
        tx.mailboxes.add_delegate(made.mailbox.id, "bob@contoso.example")

    acts: list[tuple[str, Callable[[Tx], None]]] = [
        ("tenant_exists", lambda tx: tx.tenants.insert(replace(tenant("other"), name=made.tenant.name))),
        ("tenant_exists", lambda tx: tx.tenants.insert(replace(tenant("other"), domain=made.tenant.domain))),
        ("user_exists", lambda tx: tx.tenants.insert_person(replace(person, id=fresh(), tenant_id=fresh()))),
        ("mailbox_exists", lambda tx: tx.mailboxes.insert(replace(made.mailbox, id=fresh()), MailboxKey(fresh(), 1, b""))),
        ("folder_exists", lambda tx: tx.mailboxes.insert_folder(replace(folder, id=fresh()))),
        ("item_exists", lambda tx: tx.mailboxes.insert_items([item(made.mailbox.id, 2), replace(one, id=fresh())])),
        ("delegate_exists", lambda tx: tx.mailboxes.add_delegate(made.mailbox.id, "bob@contoso.example")),
        ("policy_exists", lambda tx: tx.policies.insert(*policy(made.tenant.id, "Mail"))),
    ]
    for code, act in acts:
        with pytest.raises(Conflict) as caught, db.write() as tx:
            act(tx)
        assert caught.value.code == code
        assert caught.value.mend
    with db.read() as tx:
        assert tx.tenants.find("other.example") is None
        assert tx.mailboxes.items(made.mailbox.id, after="", limit=10) == [one], "of a conflicting batch nothing stays"


# -- tenants kept apart -----------------------------------------------------------------------------------------------------------------------


def test_every_query_of_one_tenant_passes_over_the_other(db: SqlDatabase) -> None:
    ours, theirs = Made(db), Made(db, "fabrikam")
    their_item = item(theirs.mailbox.id, 1)
    with db.write() as tx:
        tx.mailboxes.insert_items([their_item])
        tx.objects.insert([StoredObject(their_item.object_ref, theirs.mailbox.id, 1, 500, 1, large=False)])
        tx.jobs.insert([job(theirs.tenant.id), job(ours.tenant.id)])
        tx.alerts.insert(alert(theirs.tenant.id, theirs.policy.id))
        tx.mailboxes.ask_hierarchy(theirs.tenant.id, None, theirs.policy.id, 5)
    mine = ours.tenant.id
    with db.read() as tx:
        assert tx.mailboxes.find(mine, theirs.mailbox.upn) is None
        assert tx.mailboxes.by_id(mine, theirs.mailbox.id) is None
        assert tx.mailboxes.place(mine, theirs.mailbox.upn, their_item.id) is None
        assert [one.id for one in tx.mailboxes.page(mine, after="", limit=10)] == [ours.mailbox.id]
        assert tx.mailboxes.awaiting(mine, theirs.policy.id, 10) == []
        assert tx.mailboxes.licensed_users(mine) == (1, 1)
        assert tx.mailboxes.overdue_moves(mine, 10**9) == []
        for reference in ("Mail", ours.policy.id, ours.policy.version_id):
            found = tx.policies.find(mine, reference)
            assert found is not None
            assert found.id == ours.policy.id
        for reference in (theirs.policy.id, theirs.policy.version_id):
            assert tx.policies.find(mine, reference) is None
        assert [one.id for one in tx.policies.all(mine)] == [ours.policy.id]
        assert tx.policies.provider(mine).id == ours.provider.id
        assert {one.id for one, _role in tx.policies.wrapped_by(mine, "https://primary.vault.localhost/keys/k")} == {
            ours.policy.id,
            ours.provider.id,
        }
        assert [one.tenant_id for one in tx.jobs.page(mine, states=[], after="", limit=10)] == [mine]
        assert tx.alerts.page(mine, limit=10) == []
        assert tx.alerts.lasting(mine, theirs.policy.id, list(AlertKind)) == []
        assert tx.alerts.last_told(mine, theirs.policy.id, AlertKind.KEY_DENIED) == 0
        assert tx.tenants.people(mine) == []
    with db.write() as tx:
        assert tx.mailboxes.ask_hierarchy(mine, [theirs.mailbox.id], ours.policy.id, 9) == 0
        tx.mailboxes.delete(mine, theirs.mailbox.id)
        tx.mailboxes.set_move(replace(theirs.mailbox, tenant_id=mine, key_version=9))
        tx.mailboxes.rewrapped(mine, theirs.policy.id, [replace(theirs.mailbox, key_version=9)], [])
        assert not tx.tenants.remove_person(mine, "nobody@fabrikam.example")
    with db.read() as tx:
        found_box = tx.mailboxes.by_id(theirs.tenant.id, theirs.mailbox.id)
        assert found_box is not None
        assert (found_box.key_version, found_box.pending_policy_id) == (1, theirs.policy.id)
        assert tx.objects.due(10**9, 10) == []


# -- what is stored comes back ----------------------------------------------------------------------------------------------------------------


def test_people_tokens_and_onboarding(db: SqlDatabase) -> None:
    made = Made(db)
    person = Person(fresh(), made.tenant.id, "bob@contoso.example", frozenset({Role.USER, Role.AUDIT_READER}), 7)
    operator = Person(fresh(), None, "operator@provider.example", frozenset({Role.OPERATOR}), 7)
    onboarding = Onboarding(made.tenant.id, "mail", ("a", "b"), (Officer("Officer of Contoso", "PEM"), Officer("Another", "")), 9)
    with db.write() as tx:
        tx.tenants.insert_person(person)
        tx.tenants.insert_person(operator)
        tx.sign_in.insert(Token(b"x" * 32, fresh(), TokenKind.SIGN_IN, person.upn, made.tenant.id, 3, 5))
        tx.tenants.upsert_onboarding(onboarding)
        tx.tenants.upsert_onboarding(replace(onboarding, completed=10))
    with db.write() as tx:
        assert tx.tenants.person(person.upn) == person
        assert tx.tenants.person(operator.upn) == operator
        assert tx.tenants.people(made.tenant.id) == [person]
        assert tx.tenants.onboarding(made.tenant.id, "mail") == replace(onboarding, completed=10)
        assert tx.tenants.onboarding(made.tenant.id, "files") is None
        for reference in (made.tenant.id, made.tenant.name, made.tenant.domain, made.tenant.domain.upper()):
            assert tx.tenants.find(reference) == made.tenant
        tx.tenants.set_roles(made.tenant.id, person.upn, frozenset({Role.GLOBAL_ADMIN}))
        assert tx.tenants.remove_person(made.tenant.id, person.upn)
        assert tx.sign_in.by_digest(b"x" * 32) is None, "a removed person's tokens go too"
        assert tx.tenants.person(person.upn) is None


def test_items_folders_and_objects(db: SqlDatabase) -> None:
    made = Made(db)
    box = made.mailbox.id
    new = [item(box, number) for number in range(5)]
    folder = Folder(fresh(), box, 1, b"h" * 32, b"sealed")
    refs = ["c0/" + letter * 32 for letter in "abc"]
    with db.write() as tx:
        tx.mailboxes.insert_items(new)
        tx.mailboxes.insert_items([])
        tx.mailboxes.insert_folder(folder)
        tx.mailboxes.update_folder(replace(folder, key_version=2, sealed_name=b"again"))
        for ref in refs[:2]:
            tx.objects.insert([StoredObject(ref, box, 1, 500, 5, large=False)])
    with db.read() as tx:
        assert tx.mailboxes.items(box, after="", limit=3) == [new[4], new[3], new[2]]
        assert tx.mailboxes.items(box, after=new[2].id, limit=3) == [new[1], new[0]]
        assert tx.mailboxes.items(box, after=fresh(), limit=3) == []
        assert tx.mailboxes.known_hashes(box, [one.content_hash for one in new] + [b"?" * 32]) == {one.content_hash for one in new}
        assert tx.mailboxes.items_below(box, 2, 2) == new[:2], "in the order they lie in the object store"
        assert tx.mailboxes.items_below(box, 1, 10) == []
        assert tx.mailboxes.count_below(box, 2) == (5, 50)
        assert tx.mailboxes.folders(box) == [replace(folder, key_version=2, sealed_name=b"again")]
        assert tx.objects.unknown(refs) == refs[2:]
        place = tx.mailboxes.place(made.tenant.id, made.mailbox.upn, new[0].id)
        assert place is not None
        assert (place.mailbox.id, place.item, place.wrapped_key) == (box, new[0], b"wrapped")
    moved = [MovedItem(one.id, 2, bytes([number]) * 32, b"summary", refs[1], 0, 50) for number, one in enumerate(new[:2], 100)]
    with db.write() as tx:
        assert tx.mailboxes.delete_item(box, new[0].id) == new[0]
        assert tx.mailboxes.delete_item(box, new[0].id) is None
        assert tx.mailboxes.move_items(box, moved, below=2) == 1, "the deleted one is passed over"
        assert tx.mailboxes.move_items(box, moved, below=2) == 0, "done twice changes nothing"
        assert tx.mailboxes.count_below(box, 2) == (3, 30)
        tx.mailboxes.retire_object_if_empty(refs[1], 70)
        assert tx.objects.due(10**9, 10) == [], "an item lies in it"
        assert tx.mailboxes.retire_objects_below(box, 2, 80) == 2
        assert tx.mailboxes.retire_objects_below(box, 2, 90) == 0, "a deadline is not put off"
        assert tx.objects.due(79, 10) == []
        assert sorted(tx.objects.due(80, 10)) == refs[:2]
        tx.objects.forget(refs)
        assert tx.objects.due(10**9, 10) == []
        tx.mailboxes.drop_folders([box])
        assert tx.mailboxes.folders(box) == []


def test_a_rewrap_changes_only_those_that_still_wait_for_that_policy(db: SqlDatabase) -> None:
    made = Made(db)
    with db.write() as tx:
        assert tx.mailboxes.ask_hierarchy(made.tenant.id, [made.mailbox.id], made.policy.id, 5) == 1
        ((waiting, keys),) = tx.mailboxes.awaiting(made.tenant.id, made.policy.id, 10)
        assert (waiting.pending_policy_id, waiting.move_state, waiting.assigned_at) == (made.policy.id, MoveState.QUEUED, 5)
        assert keys == [MailboxKey(made.mailbox.id, 1, b"wrapped")]
        assert tx.mailboxes.ask_hierarchy(made.tenant.id, None, made.policy.id, 6) == 0, "it is on its way there"
        done = replace(waiting, key_version=2, move_state=MoveState.DONE, moved_at=8)
        tx.mailboxes.rewrapped(made.tenant.id, made.policy.id, [done], [MailboxKey(waiting.id, 2, b"new")])
        found = tx.mailboxes.by_id(made.tenant.id, waiting.id)
        assert found is not None
        assert (found.policy_id, found.pending_policy_id, found.key_version, found.moved_at) == (made.policy.id, None, 2, 8)
        assert tx.mailboxes.keys(waiting.id) == [MailboxKey(waiting.id, 2, b"new")]
        assert tx.policies.mailboxes(made.policy.id) == 1
        tx.mailboxes.ask_hierarchy(made.tenant.id, [waiting.id], made.provider.id, 9)
        ((queued, _keys),) = tx.mailboxes.awaiting(made.tenant.id, made.provider.id, 10)
        tx.mailboxes.rewrapped(made.tenant.id, made.provider.id, [queued], [MailboxKey(waiting.id, 2, b"wrapped anew")])
        assert tx.mailboxes.keys(waiting.id) == [MailboxKey(waiting.id, 2, b"wrapped anew")]
        tx.mailboxes.rewrapped(made.tenant.id, made.policy.id, [replace(queued, key_version=7)], [])
        again = tx.mailboxes.by_id(made.tenant.id, waiting.id)
        assert again is not None
        assert (again.policy_id, again.key_version) == (made.provider.id, 2), "it does not wait for that policy any more"
        tx.mailboxes.insert_key(MailboxKey(waiting.id, 3, b"newer"))
        assert tx.mailboxes.remove_keys_below(waiting.id, 3) == 1
        assert [key.version for key in tx.mailboxes.keys(waiting.id)] == [3]
        tx.mailboxes.delete(made.tenant.id, waiting.id)
        assert tx.mailboxes.keys(waiting.id) == []


# -- jobs -----------------------------------------------------------------------------------------------------------------------------------


def test_jobs_are_claimed_by_urgency_and_time_and_saved_under_their_epoch_only(db: SqlDatabase) -> None:
    later, urgent, usual = job("", not_before=5_000), job("", priority=1), job("")
    child = job("", parent_id=usual.id, done=3, total=4, error="x")
    with db.write() as tx:
        tx.jobs.insert([later, usual, urgent, child])
        first = tx.jobs.claim("one", 1_000, 2_000)
        assert first is not None
        assert (first.id, first.state, first.lease_owner, first.lease_epoch, first.attempts, first.started) == (
            urgent.id,
            JobState.RUNNING,
            "one",
            1,
            1,
            1_000,
        )
        second = tx.jobs.claim("one", 1_000, 2_000, only=usual.id)
        assert second is not None
        assert second.id == usual.id
        third = tx.jobs.claim("one", 1_000, 2_000, only=usual.id)
        assert third is not None
        assert third.id == child.id, "what a job started is run for whoever waits for it"
        assert tx.jobs.claim("one", 1_000, 2_000) is None, "the last one is not due"
        assert tx.jobs.pending_of(usual.id) == (1, 3, 4)
        assert tx.jobs.running_owners() == ["one"]
        taken = tx.jobs.claim("two", 2_000, 3_000)
        assert taken is not None
        assert (taken.id, taken.lease_epoch, taken.started) == (urgent.id, 2, 1_000), "the lease ran out"
        assert not tx.jobs.save(replace(first, done=9))
        assert not tx.jobs.extend(first, 9_000)
        assert tx.jobs.save(replace(taken, done=5, parameters={"cursor": "x"}))
        assert tx.jobs.extend(taken, 9_000)
        found = tx.jobs.get(urgent.id)
        assert found is not None
        assert (found.done, found.parameters) == (5, {"cursor": "x"})
        tx.jobs.release("two")
        again = tx.jobs.claim("three", 2_000, 3_000, only=urgent.id)
        assert again is not None
        assert again.lease_epoch == 3
        assert tx.jobs.save(replace(again, state=JobState.DONE, finished=2_500))
        assert not tx.jobs.save(replace(again, done=1)), "a finished job is not changed"
        assert tx.jobs.exists("clean", child.subject_id)
        assert tx.jobs.cancel(usual.id, 2_600)
        assert not tx.jobs.cancel(usual.id, 2_700)
        cancelled = [tx.jobs.get(usual.id), tx.jobs.get(child.id)]
        assert [(one.state, one.finished) for one in cancelled if one] == [(JobState.CANCELLED, 2_600)] * 2
        assert not tx.jobs.save(replace(second, done=1)), "nor is a cancelled one"
        assert not tx.jobs.exists("clean", child.subject_id)
        page = tx.jobs.page("", states=[], after="", limit=2)
        assert [one.id for one in page] == [child.id, urgent.id]
        assert [one.id for one in tx.jobs.page("", states=[], after=page[-1].id, limit=5)] == [usual.id, later.id]
        assert [one.id for one in tx.jobs.page(None, states=[JobState.QUEUED], after="", limit=5)] == [later.id]


# -- the log and alerts -------------------------------------------------------------------------------------------------------------------------


def test_records_are_found_by_everything_and_in_order(db: SqlDatabase) -> None:
    def record(number: int, tenant_id: str, operation: str = "Set-Mailbox", user: str = "a") -> AuditRecord:
        return AuditRecord(
            id=fresh(),
            creation_time=number,
            record_type=RecordType.EXCHANGE_ADMIN,
            operation=operation,
            organization_id=tenant_id,
            user_type=UserType.ADMIN,
            user_key=user,
            user_id=user,
            workload="Exchange",
            result_status="Succeeded",
            object_id=f"o{number}",
            client_ip="",
            external_access=False,
            request_id=fresh(),
            parameters=(("Name", "value"), ("Name", "twice")),
        )

    records = [record(1, "t"), record(2, "u"), record(3, "t", "New-Mailbox"), record(3, "t", user="b")]
    with db.write() as tx:
        for one in records:
            tx.audit.append(one)
    with db.read() as tx:
        assert tx.audit.search(AuditQuery(tenant_id=None)) == records[::-1]
        assert tx.audit.search(AuditQuery(tenant_id="t")) == [records[3], records[2], records[0]]
        assert tx.audit.search(AuditQuery(tenant_id="t", operations=("New-Mailbox", "X"))) == [records[2]]
        assert tx.audit.search(AuditQuery(tenant_id="t", users=("b",))) == [records[3]]
        assert tx.audit.search(AuditQuery(tenant_id="t", item="o1")) == [records[0]]
        assert tx.audit.search(AuditQuery(tenant_id="t", start=1, end=3)) == [records[0]]
        assert tx.audit.search(AuditQuery(tenant_id="t", limit=1)) == [records[3]]
        assert tx.audit.search(AuditQuery(tenant_id="t", after=records[3].id, limit=1)) == [records[2]]


def alert(tenant_id: str, subject_id: str, raised: int = 5, **more: Any) -> Alert:
    known: dict[str, Any] = {"escalated": None, "resolved": None, "told": raised} | more
    return Alert(
        id=fresh(),
        tenant_id=tenant_id,
        kind=AlertKind.KEY_DENIED,
        subject_id=subject_id,
        detail="both keys",
        raised=raised,
        last_seen=raised,
        times=1,
        **known,
    )


def test_an_alert_lasts_until_it_is_resolved_and_is_kept_for_a_while(db: SqlDatabase) -> None:
    first, second = alert("t", "policy", told=6), alert("t", "policy", 9, told=None)
    with db.write() as tx:
        tx.alerts.insert(first)
        assert tx.alerts.lasting("t", "policy", [AlertKind.KEY_DEGRADED]) == []
        assert tx.alerts.lasting("u", "policy", [AlertKind.KEY_DENIED]) == []
        assert tx.alerts.lasting("t", "policy", list(AlertKind)) == [first]
        ended = replace(first, resolved=7, times=3, last_seen=7, escalated=6, detail="one key")
        tx.alerts.save(ended)
        assert tx.alerts.lasting("t", "policy", list(AlertKind)) == []
        tx.alerts.insert(second)
    with db.read() as tx:
        assert tx.alerts.page("t", limit=9) == [second, ended]
        assert tx.alerts.page("t", limit=9, lasting_only=True) == [second]
        assert tx.alerts.page("t", limit=9, kinds=[AlertKind.ORPHANS]) == []
        assert tx.alerts.page(None, limit=1, kinds=[AlertKind.KEY_DENIED]) == [second]
        assert tx.alerts.lasting_of([AlertKind.KEY_DENIED], 9) == [second]
        assert tx.alerts.untold(9) == [second]
        assert tx.alerts.last_told("t", "policy", AlertKind.KEY_DENIED) == 6
    with db.write() as tx:
        assert [tx.alerts.forget(before) for before in (7, 8)] == [0, 1]
        assert tx.alerts.page(None, limit=9) == [second]


def test_of_one_condition_there_is_one_alert(db: SqlDatabase) -> None:
    with db.write() as tx:
        tx.alerts.insert(alert("t", "policy", resolved=6))
        tx.alerts.insert(alert("t", "policy"))
        tx.alerts.insert(alert("u", "policy"))
    with pytest.raises(SqlIntegrityError), db.write() as tx:
        tx.alerts.insert(alert("t", "policy", 9))
    with db.read() as tx:
        assert len(tx.alerts.page("t", limit=9)) == 2


def test_events_come_in_the_order_they_were_written(db: SqlDatabase) -> None:
    lasts, over = alert("t", "a"), alert("t", "b", resolved=8)
    with db.write() as tx:
        tx.alerts.insert(lasts)
        tx.alerts.insert(over)
        for number, of in enumerate((lasts, over, lasts)):
            tx.hooks.add_event(Event(0, fresh(), of.id, "t", of.kind, of.subject_id, Severity.CRITICAL, EventState.RAISED, 9 - number))
    with db.read() as tx:
        events = tx.hooks.events_after(0, 10)
        assert [event.at for event in events] == [9, 8, 7]
        assert [event.alert_id for event in events] == [lasts.id, over.id, lasts.id]
        assert tx.hooks.events_after(events[0].sequence, 1) == events[1:2]
        assert tx.hooks.events_after(events[-1].sequence, 1) == []
        assert tx.hooks.ended([lasts.id, over.id, "gone"]) == {over.id, "gone"}
    with db.write() as tx:
        assert tx.hooks.forget_events(8) == 1
        assert tx.hooks.events_after(0, 10) == events[:2]


def test_a_hook_s_state_and_the_beats_of_workers_are_kept(db: SqlDatabase) -> None:
    state = HookState("phone", 1, 2, 3, 4, 5, "said no", "owner", 6)
    with db.write() as tx:
        assert tx.hooks.state("phone") is None
        tx.hooks.save_state(replace(state, position=1))
        tx.hooks.save_state(state)
        assert tx.hooks.last_beat() == 0
        for owner, now in (("one", 10), ("two", 20), ("one", 15)):
            tx.hooks.beat(owner, now)
    with db.read() as tx:
        assert tx.hooks.state("phone") == state
        assert tx.hooks.last_beat() == 20


def test_a_probe_lease_ends_by_itself(db: SqlDatabase, other: SqlDatabase) -> None:
    made = Made(db)

    def take(database: SqlDatabase, owner: str, now: int) -> bool:
        with database.write() as tx:
            return tx.policies.take_probe_lease(made.policy.id, owner, now, now + 100)

    assert take(db, "one", 1_000)
    assert not take(other, "two", 1_050)
    assert take(other, "two", 1_101), "a prober that died holds it no longer than that"
    with db.write() as tx:
        tx.policies.release_probe_lease(made.policy.id, "one")
    assert not take(db, "one", 1_110), "releasing what another one holds changes nothing"


def test_policy_versions_replace_one_another_only_in_turn(db: SqlDatabase) -> None:
    made = Made(db)
    new = PolicyVersion(fresh(), made.policy.id, 2, 2_000, "refreshed")
    with db.read() as tx:
        copies = [replace(copy, version_id=new.id, key_uri=copy.key_uri[:-1] + "1") for copy in tx.policies.copies(made.policy.version_id)]
    with db.write() as tx:
        assert tx.policies.add_version(made.policy.id, made.policy.version_id, new, copies)
        assert not tx.policies.add_version(made.policy.id, made.policy.version_id, replace(new, id=fresh()), [])
        found = tx.policies.by_id(made.policy.id)
        assert found is not None
        assert (found.version_id, found.version) == (new.id, 2)
        assert tx.policies.copies(made.policy.version_id) == [], "copies of the old version are gone"
        assert {copy.key_uri for copy in tx.policies.copies(new.id)} == {copy.key_uri for copy in copies}
        assert not tx.policies.replace_copy(replace(copies[0], envelope=b"new"), expected_uri="https://elsewhere")
        assert tx.policies.replace_copy(replace(copies[0], envelope=b"new"), expected_uri=copies[0].key_uri)
        assert [version.number for version in tx.policies.versions(made.policy.id)] == [1, 2]
        for reference in (made.policy.version_id, new.id):
            again = tx.policies.find(made.tenant.id, reference)
            assert again is not None
            assert again.id == made.policy.id
