"""The availability key: made with the policy, shown to nobody, on the log before it is used, and the way out when keys are lost (requirements 6)."""

from __future__ import annotations

import base64
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from keystead.adapters.sql.rows_work import SqlAuditRows
from keystead.api.routes import ROUTES
from keystead.api.types import mailboxes as m
from keystead.api.types import policies as p
from keystead.api.types import vaults as v
from keystead.core.audit.record import SYSTEM_ACCOUNT, AuditRecord, RecordType
from keystead.core.errors import Forbidden, IntegrityFailure, KeyDenied, NotFound, Unavailable
from keystead.core.keys.decide import Operation
from keystead.ports.clock import DAY, HOUR
from keystead.ports.keystore import Compartment, KeyStore
from support.world import OPERATOR, SECOND, MailboxWorld, World, message

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from keystead.api.types import tenants as t
    from keystead.ports.keystore import KeyEntry
    from support.world import TenantWorld

V1, V2 = "contosov1", "contosov2"
MAIL_KEYS = Compartment.AVAILABILITY_MAIL


@dataclass
class WatchedKeyStore:
    """In front of the real key store: notes what was opened."""

    inner: KeyStore
    opened: list[Compartment] = field(default_factory=list)

    def create(self, compartment: Compartment, key_id: str) -> None:
        self.inner.create(compartment, key_id)

    def seal(self, compartment: Compartment, key_id: str, value: bytes, context: bytes) -> bytes:
        return self.inner.seal(compartment, key_id, value, context)

    def open(self, compartment: Compartment, key_id: str, box: bytes, context: bytes) -> bytes:
        self.opened.append(compartment)
        return self.inner.open(compartment, key_id, box, context)

    def destroy(self, compartment: Compartment, key_ids: Sequence[str]) -> None:
        self.inner.destroy(compartment, key_ids)

    def entries(self, compartment: Compartment) -> list[KeyEntry]:
        return self.inner.entries(compartment)

    def rotate(self, compartment: Compartment) -> int:
        return self.inner.rotate(compartment)


@dataclass
class Scene:
    """A mailbox with two messages under a policy whose key is in nobody's memory; the key store is watched."""

    world: World
    contoso: TenantWorld
    alice: MailboxWorld
    policy: p.PolicyView
    keystore: WatchedKeyStore

    def fail(self, kind: str) -> None:
        for vault in (V1, V2):
            self.world.vaults.fail(vault, kind)

    def search(self) -> int:
        """A system operation."""
        return len(self.contoso.admin.call("mailbox.search", m.Search(text="body of message", upn=self.alice.upn)))

    def availability_key_id(self) -> str:
        ((found,),) = self.world.sql("SELECT availability_key_id FROM policies WHERE id = ?", self.policy.id)
        return str(found)

    def roll(self) -> str:
        done: t.Done = self.world.client(OPERATOR, self.contoso.id).call("keystore.roll", p.NamePolicy(policy="Mail"))
        return done.id


def watched(world: World, contoso: TenantWorld, upn: str, policy: p.PolicyView) -> Scene:
    keystore = WatchedKeyStore(world.services.keystore)
    world.services.keyring._keystore = keystore
    return Scene(world, contoso, MailboxWorld(contoso, upn), policy, keystore)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, database: str) -> Iterator[Scene]:
    world = World(tmp_path_factory.mktemp("made"))
    contoso = world.tenant("contoso.example")
    policy = contoso.policy("Mail")
    alice = contoso.mailbox("alice", messages=2)
    contoso.assign(policy, alice)
    yield watched(world, contoso, alice.upn, policy)
    world.close()


@pytest.fixture
def scene(made: Scene, tmp_path: Path) -> Iterator[Scene]:
    world = World(tmp_path, like=made.world)
    yield watched(world, made.contoso.within(world), made.alice.upn, made.policy)
    world.close()


# -- on the log -------------------------------------------------------------------------------------------------------------------------


def test_each_use_is_one_record_of_type_69_with_three_parameters(scene: Scene) -> None:
    """R-149: the policy, the policy version in force, and the request that needed it; by the system account, without an address."""
    scene.fail("system-error")
    assert scene.alice.read_all() == [message(0), message(1)]
    (use,) = scene.contoso.fallbacks()
    assert use.record_type == 69
    assert use.operation == "Fallback to Availability Key"
    assert [one.name for one in use.parameters] == ["Policy Id", "Scope Key Version Id", "Request Id"]
    assert [one.value for one in use.parameters] == [scene.policy.id, scene.policy.version_id, use.request_id]
    assert len(use.request_id) == 36
    assert (use.user_id, use.user_key, use.user_type, use.client_ip, use.workload) == (SYSTEM_ACCOUNT, SYSTEM_ACCOUNT, 4, "", "Exchange")
    assert (use.organization_id, use.organization_name) == (scene.contoso.id, "Contoso")
    assert (use.object_id, use.result_status, use.external_access) == (scene.policy.id, "Succeeded", False)


def test_the_request_id_is_that_of_the_operation_that_needed_it(scene: Scene) -> None:
    """R-149: a search after a denial can be found by it."""
    scene.fail("denied")
    assert scene.search() == 2
    (use,) = scene.contoso.fallbacks()
    assert use.request_id == scene.contoso.audit("New-MailboxSearch")[0].request_id


def test_the_log_of_uses_and_the_uses_of_the_key_are_as_many(scene: Scene) -> None:
    """R-149: counted at the key store itself, over reads, system operations, faults and denials."""
    for kind in ("system-error", "denied", "success", "system-error"):
        scene.fail(kind)
        scene.world.clock.advance(61 * SECOND)
        scene.search()
        if kind != "denied":
            scene.alice.read_all()
    uses = scene.keystore.opened.count(MAIL_KEYS)
    assert uses == 2
    assert len(scene.contoso.fallbacks()) == uses


def test_nothing_is_recorded_and_nothing_opened_while_customer_keys_serve(scene: Scene) -> None:
    """R-141, R-149: in a whole life of a mailbox, with one key away half of the time."""
    for turn in range(4):
        scene.world.vaults.fail(V1, "denied" if turn % 2 else "success")
        scene.world.clock.advance(61 * SECOND)
        scene.alice.add(message(10 + turn))
        scene.alice.read_all()
        scene.search()
        scene.world.forget()
    assert MAIL_KEYS not in scene.keystore.opened
    assert scene.contoso.fallbacks() == []


@pytest.mark.parametrize("kind", ["system-error", "denied"])
def test_without_a_record_there_is_no_use(scene: Scene, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """R-149: the record is durable before the key is touched; when it cannot be written the operation fails and nothing was opened."""
    append = SqlAuditRows.append

    def full(rows: SqlAuditRows, record: AuditRecord) -> None:
        if record.record_type is RecordType.CUSTOMER_KEY:
            raise Unavailable("database_full", "the database takes no more", "make room")
        append(rows, record)

    monkeypatch.setattr(SqlAuditRows, "append", full)
    scene.fail(kind)
    with pytest.raises(Unavailable):
        scene.search()
    assert MAIL_KEYS not in scene.keystore.opened
    monkeypatch.undo()
    assert scene.contoso.fallbacks() == []
    assert scene.search() == 2
    assert len(scene.contoso.fallbacks()) == 1


def test_the_record_is_there_before_the_key_store_is_asked(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """R-149: seen from another connection at the moment of use."""
    seen: list[int] = []
    inner = scene.keystore.inner.open

    def looking(compartment: Compartment, key_id: str, box: bytes, context: bytes) -> bytes:
        if compartment is MAIL_KEYS:
            ((count,),) = scene.world.sql("SELECT count(*) FROM audit_records WHERE record_type = 69")
            seen.append(count)
        return inner(compartment, key_id, box, context)

    monkeypatch.setattr(scene.keystore.inner, "open", looking)
    scene.fail("system-error")
    scene.alice.read_all()
    assert seen == [1]


# -- how long an entry lives ------------------------------------------------------------------------------------------------------------


def test_an_entry_of_the_availability_key_lives_one_probe_interval(scene: Scene) -> None:
    """R-141, R-144: then the customer's keys are asked again first."""
    scene.fail("system-error")
    scene.alice.read_all()
    asked = len(scene.world.vaults.asked)
    scene.world.clock.advance(60 * SECOND)
    scene.alice.read_all()
    assert len(scene.world.vaults.asked) == asked
    assert len(scene.contoso.fallbacks()) == 1
    scene.world.clock.advance(1)
    scene.alice.read_all()
    assert sorted(scene.world.vaults.asked[asked:]) == [("unwrap", V1), ("unwrap", V2)]
    assert len(scene.contoso.fallbacks()) == 2
    scene.fail("success")
    scene.world.clock.advance(60 * SECOND + 1)
    scene.alice.read_all()
    assert len(scene.contoso.fallbacks()) == 2


def test_an_outage_of_days_is_one_use_for_each_probe_interval_in_which_somebody_reads(scene: Scene) -> None:
    """R-144, R-149."""
    scene.fail("system-error")
    for hour in range(1, 6):
        scene.world.clock.advance(12 * HOUR)
        assert scene.alice.read_all() == [message(0), message(1)]
        assert len(scene.contoso.fallbacks()) == hour


# -- whose it is ------------------------------------------------------------------------------------------------------------------------


def test_each_policy_has_an_availability_key_of_its_own_made_with_it(scene: Scene) -> None:
    """R-079, R-137: without anybody asking for it."""
    before = {entry.key_id for entry in scene.keystore.entries(MAIL_KEYS)}
    assert scene.availability_key_id() in before
    for name in ("Second", "Third"):
        scene.contoso.policy(name)
    after = {entry.key_id for entry in scene.keystore.entries(MAIL_KEYS)}
    assert len(after - before) == 2
    rows = scene.world.sql("SELECT availability_key_id FROM policies WHERE workload = 'mail'")
    assert {row[0] for row in rows} == after
    assert len(rows) == 3


def test_availability_keys_lie_apart_from_vaults_data_and_other_keys(scene: Scene) -> None:
    """R-139: another database than the data's and the vaults', a compartment with an epoch key of its own."""
    key_id = scene.availability_key_id()
    for compartment in Compartment:
        held = {entry.key_id for entry in scene.keystore.entries(compartment)}
        assert (key_id in held) is (compartment is MAIL_KEYS)
        if compartment is not MAIL_KEYS:
            with pytest.raises(NotFound):
                scene.keystore.seal(compartment, key_id, bytes(32), b"context")
    seals = {path.name.rpartition(".")[0] for path in (scene.world.path / "seals").iterdir()}
    assert {f"keystore-{compartment}" for compartment in Compartment} <= seals
    assert key_id.encode() not in scene.world.stores.dump("vault")


def test_no_answer_of_any_route_holds_an_availability_key(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """R-138, R-152: the key itself, caught where it is made, is in no answer, no record and no file, in any usual spelling."""
    drawn: list[bytes] = []

    def random(size: int) -> bytes:
        drawn.append(os.urandom(size))
        return drawn[-1]

    contoso = world.tenant("contoso.example")
    monkeypatch.setattr(world.services.keystore, "_random", random)
    contoso.policy("Mail")
    operator = world.client(OPERATOR, contoso.id)
    answers: list[Any] = [operator.call("keystore.roll", p.NamePolicy(policy="Mail"))]
    answers += [operator.call("keystore.rotate"), contoso.admin.call("policy.show", p.NamePolicy(policy="Mail")), contoso.audit()]
    keys = [value for value in drawn if len(value) == 32]
    assert len(keys) >= 2
    needles = [
        shape for key in keys for shape in (key, key.hex().encode(), base64.b64encode(key), base64.urlsafe_b64encode(key).rstrip(b"="))
    ]
    text = repr(answers).encode()
    assert [needle for needle in needles if needle in text] == []
    assert world.files_holding(*needles) == []


def test_the_key_store_has_no_way_to_read_a_key_and_no_route_is_named_for_one() -> None:
    """R-138."""
    assert {name for name in vars(KeyStore) if not name.startswith("_")} == {"create", "seal", "open", "destroy", "entries", "rotate"}
    assert [route.name for route in ROUTES if route.name.startswith("keystore.")] == [
        "keystore.rotate",
        "keystore.roll",
        "keystore.roll-files",
    ]


# -- rolled -----------------------------------------------------------------------------------------------------------------------------


def test_the_operator_rolls_the_key_and_the_copies_stay_consistent(scene: Scene) -> None:
    """R-152: a new key, a new copy, the old key gone; the policy's version and everything below it as before."""
    old, wrapped = scene.availability_key_id(), scene.world.sql("SELECT * FROM mailbox_keys")
    new = scene.roll()
    assert new != old
    assert scene.availability_key_id() == new
    assert {entry.key_id for entry in scene.keystore.entries(MAIL_KEYS)} == {new}
    shown: p.PolicyView = scene.contoso.admin.call("policy.show", p.NamePolicy(policy="Mail"))
    assert (shown.id, shown.version_id) == (scene.policy.id, scene.policy.version_id)
    assert shown.keys[:2] == scene.policy.keys[:2]
    assert shown.keys[2].key_uri == f"availability:{new}"
    assert scene.world.sql("SELECT * FROM mailbox_keys") == wrapped
    scene.fail("system-error")
    assert scene.alice.read_all() == [message(0), message(1)]
    assert len(scene.contoso.fallbacks()) == 1
    (rolled,) = scene.contoso.audit("Update-AvailabilityKey")
    assert ("AvailabilityKeyId", new) in [(one.name, one.value) for one in rolled.parameters]


def test_a_customer_cannot_roll_it(scene: Scene) -> None:
    """R-138."""
    with pytest.raises(Forbidden):
        scene.contoso.admin.call("keystore.roll", p.NamePolicy(policy="Mail"))


@pytest.mark.parametrize(("kind", "error"), [("denied", KeyDenied), ("system-error", Unavailable)])
def test_rolling_needs_a_customer_key_and_changes_nothing_without(scene: Scene, kind: str, error: type[Exception]) -> None:
    """R-152: the old availability key is not used to make the new one."""
    old = scene.availability_key_id()
    scene.fail(kind)
    with pytest.raises(error):
        scene.roll()
    assert scene.availability_key_id() == old
    assert [entry.key_id for entry in scene.keystore.entries(MAIL_KEYS)] == [old]
    assert MAIL_KEYS not in scene.keystore.opened


def test_rewriting_the_key_store_changes_no_key(scene: Scene) -> None:
    """R-152: a new epoch, the same availability key."""
    scene.world.operator.call("keystore.rotate")
    scene.fail("system-error")
    assert scene.alice.read_all() == [message(0), message(1)]


# -- gone -------------------------------------------------------------------------------------------------------------------------------


def test_without_availability_key_and_customer_keys_nothing_opens(scene: Scene) -> None:
    """R-146, R-151: not for a user, not for the service, in no process, and not from a warm cache."""
    second = scene.world.process("second")
    scene.alice.read_all()
    second.services.keyring.open(scene.policy.id, Operation.SYSTEM, request_id="r")
    scene.keystore.destroy(MAIL_KEYS, [scene.availability_key_id()])
    scene.fail("denied")
    for vault in (V1, V2):
        second.vaults.fail(vault, "denied")
    scene.world.clock.advance(61 * SECOND)
    with pytest.raises(KeyDenied):
        scene.alice.items()
    with pytest.raises(KeyDenied, match="was destroyed"):
        scene.search()
    for operation in Operation:
        with pytest.raises(KeyDenied):
            second.services.keyring.open(scene.policy.id, operation, request_id="r")
    scene.fail("system-error")
    with pytest.raises(KeyDenied, match="was destroyed"):
        scene.alice.items()


def test_with_the_shred_key_gone_nothing_opens_whatever_the_vaults_say(scene: Scene) -> None:
    """R-151: the envelopes of all three copies are worthless."""
    ((shred,),) = scene.world.sql("SELECT shred_key_id FROM policies WHERE id = ?", scene.policy.id)
    scene.keystore.destroy(Compartment.SHRED, [shred])
    scene.world.forget()
    for kind in ("success", "system-error"):
        scene.fail(kind)
        for operation in Operation:
            with pytest.raises(IntegrityFailure):
                scene.world.services.keyring.open(scene.policy.id, operation, request_id="r")
        scene.world.clock.advance(61 * SECOND)


# -- recovery ---------------------------------------------------------------------------------------------------------------------------


def test_mailboxes_of_a_policy_whose_keys_are_gone_for_good_are_recovered_onto_a_new_policy(scene: Scene) -> None:
    """R-150: both keys deleted and past retention; new keys, a new policy, assigned: readable again by the customer's new keys alone."""
    for vault in (V1, V2):
        scene.contoso.admin.call("key.delete", v.KeyNamed(vault=vault, name="root"))
    scene.world.clock.advance(91 * DAY)
    with pytest.raises(KeyDenied):
        scene.alice.items()
    renewed = scene.contoso.policy("Renewed", keys=scene.contoso.own_keys("renewed"))
    before = len(scene.contoso.fallbacks())
    assert scene.contoso.assign(renewed, scene.alice).state == "done"
    assert len(scene.contoso.fallbacks()) > before
    statistics = scene.alice.statistics()
    assert (statistics.policy_name, statistics.is_encrypted) == ("Renewed", True)
    used = len(scene.contoso.fallbacks())
    assert scene.alice.read_all() == [message(0), message(1)]
    assert len(scene.contoso.fallbacks()) == used
    scene.contoso.close_keys("renewed")
    with pytest.raises(KeyDenied):
        scene.alice.items()


@pytest.mark.parametrize("kind", ["denied", "system-error"])
def test_the_availability_key_never_brings_a_mailbox_back_to_provider_keys(scene: Scene, kind: str) -> None:
    """R-102, R-150: going back takes the customer's keys; the mailbox stays where it is until they open."""
    scene.fail(kind)
    asked: m.AssignmentView = scene.contoso.admin.call("mailbox.unassign", m.UnassignPolicy(upn=scene.alice.upn))
    job = scene.contoso.admin.wait(asked.job_id)
    assert job.state != "done"
    assert "customer keys" in job.error
    assert scene.world.sql("SELECT policy_id FROM mailboxes WHERE upn = ?", scene.alice.upn) == [(scene.policy.id,)]
    scene.fail("success")
    scene.world.clock.advance(HOUR)
    assert scene.contoso.admin.wait(asked.job_id).state == "done"
    assert scene.alice.statistics().policy_name is None
    assert scene.alice.read_all() == [message(0), message(1)]


@pytest.mark.parametrize("kind", ["denied", "system-error"])
def test_nothing_is_moved_under_a_policy_whose_own_keys_do_not_open(scene: Scene, kind: str) -> None:
    """R-150: the availability key of the target is not what a mailbox is put under."""
    bob = scene.contoso.mailbox("bob", messages=1)
    scene.fail(kind)
    job = scene.contoso.assign("Mail", bob)
    assert job.state != "done"
    assert bob.read_all() == [message(0)]
    assert scene.world.sql("SELECT count(*) FROM mailboxes WHERE policy_id = ?", scene.policy.id) == [(1,)]
