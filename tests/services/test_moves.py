"""Moves: what may come between, what is gone at the end, and what stays when one is stopped."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from keystead.api.types import mailboxes as m
from keystead.api.types import watching as w
from keystead.core.errors import NotFound, PreconditionFailed, Unavailable
from keystead.ports.clock import DAY, HOUR, MINUTE
from keystead.ports.tx import AuditQuery
from keystead.services import tenants
from keystead.services.jobs.runner import run_due, run_one
from keystead.services.jobs.upkeep import schedule_upkeep
from support.world import OPERATOR, SECOND, World, message

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from keystead.ports.tx import Database, Tx
    from support.world import MailboxWorld, Process, TenantWorld

STORED = "move: new objects stored"
MAIL = [message(index) for index in range(6)]


@pytest.fixture(scope="module")
def contoso(tmp_path_factory: pytest.TempPathFactory, database: str) -> Iterator[TenantWorld]:
    """One tenant with two policies for the module; each test makes its own mailboxes."""
    world = World(tmp_path_factory.mktemp("world"))
    tenant = world.tenant("contoso.example")
    tenant.policy("First")
    tenant.policy("Second")
    yield tenant
    world.close()


def box_with_mail(contoso: TenantWorld, local: str) -> MailboxWorld:
    box = contoso.mailbox(local)
    box.add(*MAIL)
    return box


def mover(contoso: TenantWorld, owner: str, at: Callable[[str], None] = lambda _step: None) -> Process:
    """A process with small slices, and something that happens between its steps."""
    return contoso.world.process(owner, checkpoint=at, settings=replace(contoso.world.settings, slice_items=2))


def rows(world: World, mailbox_id: str) -> dict[str, list[tuple[object, ...]]]:
    """Everything the database says about a mailbox and its jobs."""
    return {
        table: sorted(world.sql(f"SELECT * FROM {table} WHERE {column} = ?", mailbox_id), key=repr)  # noqa: S608 - our own names
        for table, column in (
            ("mailboxes", "id"),
            ("mailbox_keys", "mailbox_id"),
            ("items", "mailbox_id"),
            ("folders", "mailbox_id"),
            ("objects", "owner_id"),
            ("jobs", "subject_id"),
        )
    }


def once(action: Callable[[], None], step: str = STORED) -> Callable[[str], None]:
    """Do something the first time a step is reached."""
    done: list[str] = []

    def at(name: str) -> None:
        if name == step and not done:
            done.append(name)
            action()

    return at


# -- what may come between --------------------------------------------------------------------------------------------------------------


def test_another_policy_in_the_middle_of_a_move_wins(contoso: TenantWorld) -> None:
    """R-087, R-098."""
    box = box_with_mail(contoso, "reassigned")
    process = mover(contoso, "reassigning", once(lambda: void(contoso.assign("Second", box, wait=False))))
    first = contoso.assign("First", box, wait=False)
    run_due(process.services)
    found = box.statistics()
    assert (found.policy_name, found.is_encrypted, found.item_count) == ("Second", True, 6)
    assert box.read_all() == sorted(MAIL)
    assert contoso.admin.call("job.show", w.NameJob(job=first.id)).state == "done"
    assert len(rows(contoso.world, found.id)["mailbox_keys"]) == 1


def test_the_same_policy_again_in_the_middle_of_a_move_ends_well(contoso: TenantWorld) -> None:
    box = box_with_mail(contoso, "again")
    process = mover(contoso, "asking-again", once(lambda: void(contoso.assign("First", box, wait=False))))
    contoso.assign("First", box, wait=False)
    run_due(process.services)
    assert (box.statistics().policy_name, box.statistics().is_encrypted) == ("First", True)
    assert box.read_all() == sorted(MAIL)


def test_an_unassignment_in_the_middle_of_a_move_wins(contoso: TenantWorld) -> None:
    """R-099."""
    box = box_with_mail(contoso, "turned-back")
    unassign = once(lambda: void(contoso.admin.call("mailbox.unassign", m.UnassignPolicy(upn=box.upn))))
    contoso.assign("First", box, wait=False)
    run_due(mover(contoso, "turning", unassign).services)
    assert (box.statistics().policy_name, box.statistics().is_encrypted) == (None, False)
    assert box.read_all() == sorted(MAIL)


def test_a_mailbox_deleted_in_the_middle_of_a_move_is_gone(contoso: TenantWorld) -> None:
    box = box_with_mail(contoso, "deleted")
    mailbox_id = box.statistics().id
    delete = once(lambda: void(contoso.admin.call("mailbox.delete", m.NameMailbox(upn=box.upn))))
    job = contoso.assign("First", box, wait=False)
    run_due(mover(contoso, "deleting", delete).services)
    assert contoso.admin.call("job.show", w.NameJob(job=job.id)).state == "done"
    found = rows(contoso.world, mailbox_id)
    assert (found["mailboxes"], found["mailbox_keys"], found["items"], found["folders"]) == ([], [], [], [])
    with pytest.raises(NotFound):
        box.items()


def test_items_deleted_in_the_middle_of_a_move_stay_deleted(contoso: TenantWorld) -> None:
    box = box_with_mail(contoso, "shrinking")
    deleted: list[str] = []

    def at(step: str) -> None:
        if step == STORED and len(deleted) < 2:
            deleted.append(box.items()[0].id)
            box.owner.call("mailbox.delete-item", m.NameItem(upn=box.upn, item=deleted[-1]))

    contoso.assign("First", box, wait=False)
    run_due(mover(contoso, "shrinking", at).services)
    left = box.items()
    assert {item.id for item in left}.isdisjoint(deleted)
    assert (len(left), box.statistics().item_count, box.statistics().is_encrypted) == (4, 4, True)


def test_all_items_deleted_in_the_middle_of_a_move(contoso: TenantWorld) -> None:
    box = box_with_mail(contoso, "emptied")

    def empty() -> None:
        for item in box.items():
            box.owner.call("mailbox.delete-item", m.NameItem(upn=box.upn, item=item.id))

    contoso.assign("First", box, wait=False)
    run_due(mover(contoso, "emptying", once(empty)).services)
    assert (box.statistics().is_encrypted, box.items()) == (True, [])
    with contoso.world.services.db.read() as tx:
        assert len(tx.mailboxes.keys(box.statistics().id)) == 1
    box.add(MAIL[0])
    assert box.read_all() == [MAIL[0]]


# -- stopping -----------------------------------------------------------------------------------------------------------------------


def test_a_cancelled_move_stays_where_it_is_and_can_be_asked_for_again(contoso: TenantWorld) -> None:
    box = box_with_mail(contoso, "cancelled")
    job = contoso.assign("First", box, wait=False)
    cancel = once(lambda: void(contoso.admin.call("job.cancel", w.NameJob(job=job.id))))
    run_due(mover(contoso, "cancelling", cancel).services)
    shown: w.JobView = contoso.admin.call("job.show", w.NameJob(job=job.id))
    assert shown.state == "cancelled"
    assert shown.finished is not None
    assert not box.statistics().is_encrypted
    assert box.statistics().policy_name == "First", "the re-wrap was done, and stays done"
    assert box.read_all() == sorted(MAIL)
    with pytest.raises(PreconditionFailed) as caught:
        contoso.admin.call("job.cancel", w.NameJob(job=job.id))
    assert caught.value.code == "job_finished"
    assert any(one.object_id == job.id for one in contoso.audit("Remove-MoveRequest"))
    assert contoso.assign("First", box).state == "done"
    assert box.statistics().is_encrypted
    assert box.read_all() == sorted(MAIL)


def test_a_change_cancelled_before_it_began_changes_nothing(contoso: TenantWorld) -> None:
    box = box_with_mail(contoso, "never-began")
    job = contoso.assign("First", box, wait=False)
    view: w.JobView = contoso.admin.call("job.cancel", w.NameJob(job=job.id))
    assert view.state == "cancelled"
    run_due(contoso.world.services)
    assert box.statistics().policy_name is None
    assert contoso.assign("Second", box).state == "done"
    assert box.statistics().policy_name == "Second"


# -- failing ------------------------------------------------------------------------------------------------------------------------


def test_a_failing_move_waits_longer_each_time_says_it_is_stuck_and_recovers(contoso: TenantWorld) -> None:
    box = box_with_mail(contoso, "no-room")
    inner = contoso.world.services.objects
    full = True

    class Full:
        def put(self, ref: str, chunks: Iterator[bytes]) -> int:
            if full:
                raise Unavailable("storage_full", f"the disk is full: {ref} was not written", "free some room, then try again")
            return inner.put(ref, chunks)

        def __getattr__(self, name: str) -> object:
            return getattr(inner, name)

    process = contoso.world.process("full", objects=Full())
    job = contoso.assign("First", box, wait=False)
    waits: list[int] = []
    failing = ""
    for attempt in range(11):
        while run_one(process.services, only=job.id) is not None:
            pass
        with contoso.world.services.db.read() as tx:
            move = tx.jobs.troubled(job.id)
        assert move is not None
        assert "storage_full" in move.error
        view: w.JobView = contoso.admin.call("job.show", w.NameJob(job=job.id))
        assert (view.state, view.stuck) == ("running", attempt >= 2)
        assert "storage_full" in view.error
        failing = move.id
        waits.append(move.not_before - contoso.world.clock.now())
        contoso.world.clock.advance(waits[-1])
    assert waits[:4] == [2 * SECOND, 4 * SECOND, 8 * SECOND, 16 * SECOND]
    assert waits[-1] == 5 * MINUTE
    assert box.read_all() == sorted(MAIL)
    alerts: list[w.AlertView] = contoso.admin.call("alerts.list", w.ListAlerts())
    assert len([one for one in alerts if one.subject_id == failing and one.resolved is None]) == 1
    full = False
    run_due(process.services)
    view = contoso.admin.call("job.show", w.NameJob(job=job.id))
    assert (view.state, view.stuck, view.error) == ("done", False, "")
    alerts = contoso.admin.call("alerts.list", w.ListAlerts())
    assert all(one.resolved is not None for one in alerts if one.subject_id == failing)
    assert box.statistics().is_encrypted


def test_a_defect_in_one_job_does_not_stop_the_others(contoso: TenantWorld, caplog: pytest.LogCaptureFixture) -> None:
    ill, well = box_with_mail(contoso, "ill"), box_with_mail(contoso, "well")
    ill_id = ill.statistics().id

    def at(step: str) -> None:
        if step == STORED and ill.statistics().move_state == "moving" and not ill.statistics().is_encrypted:
            raise ZeroDivisionError

    job = contoso.assign("First", ill, wait=False)
    run_due(mover(contoso, "defective", at).services)
    view: w.JobView = contoso.admin.call("job.show", w.NameJob(job=job.id))
    assert "ZeroDivisionError" in view.error
    assert any("ZeroDivisionError" in record.getMessage() or record.exc_info for record in caplog.records)
    contoso.assign("First", well)
    assert well.statistics().is_encrypted
    contoso.world.clock.advance(HOUR)
    run_due(contoso.world.services)
    assert ill.statistics().is_encrypted
    assert ill.statistics().id == ill_id
    assert ill.read_all() == sorted(MAIL)


# -- leases -------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", ["re-wrap: policies opened", STORED])
def test_a_slice_of_a_runner_that_lost_its_lease_changes_nothing(contoso: TenantWorld, step: str) -> None:
    """Two runners on one job: the one that was thought dead comes back and finds that its lease epoch is over."""
    box = box_with_mail(contoso, f"fenced-{step[:4]}")
    mailbox_id = box.statistics().id
    second = mover(contoso, "second")
    seen: list[dict[str, list[tuple[object, ...]]]] = []

    def lose() -> None:
        contoso.world.clock.advance(31 * SECOND)
        run_due(second.services)
        seen.append(rows(contoso.world, mailbox_id))

    first = mover(contoso, "first", once(lose, step))
    job = contoso.assign("First", box, wait=False)
    for _turn in range(20):  # a job of this size gets there in a few; one that fails again and again must not keep the test for ever
        if not seen:
            run_one(first.services, only=job.id)
    assert len(seen) == 1
    assert rows(contoso.world, mailbox_id) == seen[0]
    assert box.statistics().is_encrypted
    assert box.read_all() == sorted(MAIL)


def test_a_runner_that_lost_its_lease_does_not_call_a_finished_move_failed(contoso: TenantWorld) -> None:
    box = box_with_mail(contoso, "not-failed")
    second = mover(contoso, "second-again")
    inner = contoso.world.services.objects
    lost: list[str] = []

    class Slow:
        """While it reads, another runner finishes the move, and what was to be read is cleaned away."""

        def get(self, ref: str, offset: int, length: int) -> bytes:
            if not lost:
                lost.append(ref)
                contoso.world.clock.advance(31 * SECOND)
                run_due(second.services)
                contoso.world.clock.advance(2 * HOUR)
                run_due(second.services)
            return inner.get(ref, offset, length)

        def __getattr__(self, name: str) -> object:
            return getattr(inner, name)

    slow = contoso.world.process("slow", objects=Slow())
    job = contoso.assign("First", box, wait=False)
    while not lost:
        run_one(slow.services, only=job.id)
    assert (box.statistics().move_state, box.statistics().is_encrypted) == ("done", True)
    assert contoso.admin.call("job.show", w.NameJob(job=job.id)).state == "done"
    assert box.read_all() == sorted(MAIL)


def test_a_lease_that_still_runs_is_respected_and_a_dead_runners_is_not(contoso: TenantWorld) -> None:
    box = box_with_mail(contoso, "lease")
    job = contoso.assign("First", box, wait=False)
    other = mover(contoso, "other")
    dead = contoso.world.process("finder", alive=lambda owner: owner != "busy")
    tried: list[object] = []
    busy = mover(contoso, "busy", once(lambda: tried.append(run_one(other.services, only=job.id))))
    run_due(busy.services)
    assert tried == [None], "nobody else may run it while its runner lives"
    again = contoso.assign("Second", box, wait=False)

    class Stopped(BaseException):
        pass

    def stop(step: str) -> None:
        if step == STORED:
            raise Stopped

    with pytest.raises(Stopped):
        run_due(mover(contoso, "busy", stop).services)
    assert run_one(other.services, only=again.id) is None
    assert run_one(dead.services, only=again.id) is not None, "a process that is known to be dead holds nothing"
    assert box.statistics().is_encrypted
    assert box.read_all() == sorted(MAIL)


def test_a_long_job_gives_others_their_turn(contoso: TenantWorld) -> None:
    box = box_with_mail(contoso, "long")
    job = contoso.assign("First", box, wait=False)
    process = mover(contoso, "yielding", lambda step: void(contoso.world.clock.advance(6 * SECOND)) if step == STORED else None)
    seen: list[tuple[str, float]] = []
    while (ran := run_one(process.services, only=job.id)) is not None:
        seen.append((ran.state.value, box.statistics().progress_percent))
    states = [state for state, _percent in seen]
    assert states.count("queued") >= 2, "given back after five seconds, though there is more to do"
    percents = [percent for _state, percent in seen]
    assert percents == sorted(percents)
    assert percents[-1] == 100.0
    assert len(set(percents)) >= 3


# -- what is left at the end ------------------------------------------------------------------------------------------------------------


def test_at_the_end_old_keys_are_destroyed_and_old_packs_deleted_after_the_grace_period(contoso: TenantWorld) -> None:
    """R-097, R-098."""
    world = contoso.world
    others = world.objects()
    box = box_with_mail(contoso, "packs")
    old = world.objects() - others
    with world.services.db.read() as tx:
        (before,) = tx.mailboxes.keys(box.statistics().id)
    begun = world.clock.now()
    contoso.assign("First", box)
    with world.services.db.read() as tx:
        (after,) = tx.mailboxes.keys(box.statistics().id)
    assert (before.version, after.version) == (1, 2)
    assert old <= world.objects(), "readers may still hold their place"
    dues = {due for ref, due in world.sql("SELECT ref, due FROM objects") if ref in old}
    assert min(dues) >= begun + HOUR
    world.clock.advance(min(dues) - 1 - world.clock.now())  # who waits for a lock moves this clock, so it is not counted from here
    run_due(world.services)
    assert old <= world.objects()
    world.clock.advance(max(dues) - world.clock.now())
    run_due(world.services)
    assert old.isdisjoint(world.objects())
    assert box.read_all() == sorted(MAIL)


def test_orphans_are_collected_once_they_are_a_day_old(contoso: TenantWorld) -> None:
    world = contoso.world
    box = box_with_mail(contoso, "beside-orphans")
    orphan = world.services.objects.new_ref(world.services.random)
    world.services.objects.put(orphan, [b"what a crash left"])

    def collect() -> None:
        schedule_upkeep(world.services)
        for _look in range(2):
            world.clock.advance(DAY)
            run_due(world.services)

    collect()
    assert orphan in world.objects(), "it is younger than a day by the disk's clock"
    world.age_objects(24 * 3600)
    collect()
    assert orphan not in world.objects()
    assert box.read_all() == sorted(MAIL)
    with world.services.db.read() as tx:
        (record, *_earlier) = tx.audit.search(AuditQuery(tenant_id="", operations=("Remove-OrphanedObjects",)))
    assert [name for name, _count in record.parameters] == ["Where", "Count", "Names"]
    assert int(record.parameters[1][1]) >= 1


def test_a_move_is_on_the_log_with_its_policy_and_job(contoso: TenantWorld) -> None:
    box = box_with_mail(contoso, "logged")
    contoso.world.client(OPERATOR, contoso.id).call("mailbox.list", m.ListMailboxes())
    contoso.assign("First", box)
    (record,) = [one for one in contoso.audit("Complete-MailboxMove") if one.object_id == box.statistics().id]
    names = {parameter.name: parameter.value for parameter in record.parameters}
    assert names["Items"] == "6"
    assert names["Job"] == record.request_id
    assert record.user_type == 4


def void(_value: object) -> None:
    """For lambdas whose value nobody wants."""


class _LosesCommit:
    """A database that gives up one writing transaction at its end, as a server does that is shut down."""

    def __init__(self, inner: Database) -> None:
        self._inner = inner
        self.in_turn = 0

    @contextmanager
    def write(self) -> Iterator[Tx]:
        with self._inner.write() as tx:
            yield tx
            self.in_turn -= 1
            if self.in_turn == 0:
                raise Unavailable("database_unavailable", "the database gave the transaction up", "")

    @contextmanager
    def read(self) -> Iterator[Tx]:
        with self._inner.read() as tx:
            yield tx


@pytest.mark.parametrize("who_goes_on", ["the same process", "another process"])
def test_a_mailbox_key_whose_commit_was_lost_is_used_for_nothing(contoso: TenantWorld, who_goes_on: str) -> None:
    """R-097, R-098. The key lies in the memory of the process that made it, under the version that the next one gets."""
    box = box_with_mail(contoso, f"lost-{who_goes_on.partition(' ')[0]}")
    job = contoso.assign("First", box, wait=False)
    database = _LosesCommit(contoso.world.services.db)
    unlucky, other = contoso.world.process("unlucky", db=database), mover(contoso, "other")
    assert run_one(unlucky.services, only=job.id) is not None  # re-wrapped
    assert run_one(unlucky.services, only=job.id, alone=True) is None
    database.in_turn = 2  # the first writer claims the move, the second stores the fresh key
    tried = run_one(unlucky.services, only=job.id)
    assert tried is not None
    assert "gave the transaction up" in tried.error
    contoso.world.clock.advance(MINUTE)
    goes_on = unlucky if who_goes_on == "the same process" else other
    while run_one(goes_on.services, only=job.id) is not None:
        continue
    assert box.statistics().is_encrypted
    owner = contoso.world.as_person(box.upn)
    for reader in (unlucky, other, contoso.world.process("cold")):
        client = reader.client(tenants.impersonate(reader.services, box.upn))
        assert {item.folder for item in box.items(client)} == {"Inbox"}
        assert sorted(box.read(item.id, client) for item in box.items(client)) == sorted(MAIL)
    assert box.add(message(99), client=unlucky.client(tenants.impersonate(unlucky.services, f"admin@{contoso.domain}"))).imported == 1
    contoso.world.forget()
    assert sorted(box.read(item.id, owner) for item in box.items(owner)) == sorted([*MAIL, message(99)])
