"""Jobs as people see and stop them, and the loop that runs them."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from keystead.api.types import mailboxes as m
from keystead.api.types import watching as w
from keystead.core.errors import Forbidden, InvalidRequest, NotFound, PreconditionFailed
from keystead.core.jobs import JobState
from keystead.ports.clock import MINUTE
from keystead.services.jobs.runner import run_due, run_one, run_until_stopped
from keystead.services.jobs.upkeep import schedule_upkeep
from support.world import OPERATOR, SECOND, World

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.world import TenantWorld


@pytest.fixture(scope="module")
def contoso(tmp_path_factory: pytest.TempPathFactory, database: str) -> Iterator[TenantWorld]:
    world = World(tmp_path_factory.mktemp("world"))
    tenant = world.tenant("contoso.example")
    tenant.policy("Mail")
    yield tenant
    world.close()


def test_a_job_tells_how_far_it_is_from_the_question_to_the_end(contoso: TenantWorld) -> None:
    boxes = [contoso.mailbox(f"far-{index}", messages=4) for index in range(3)]
    job = contoso.assign("Mail", *boxes, wait=False)
    assert (job.kind, job.state, job.progress_percent, job.started, job.finished) == ("change-hierarchy", "queued", 0.0, None, None)
    process = contoso.world.process("far", settings=replace(contoso.world.settings, slice_items=2))
    seen = []
    while run_one(process.services, only=job.id) is not None:
        contoso.world.clock.advance(SECOND)
        seen.append(contoso.admin.call("job.show", w.NameJob(job=job.id)))
    percents = [view.progress_percent for view in seen]
    assert percents == sorted(percents)
    assert percents[-1] == 100.0
    assert all(view.progress_percent < 100.0 for view in seen if view.state != "done")
    assert {view.state for view in seen} == {"running", "done"}
    assert seen[-1].started is not None
    total = sum(box.statistics().size_bytes for box in boxes)
    assert (seen[-1].done, seen[-1].total) == (total, total)


def test_waiting_reports_progress_and_ends_with_the_last_move(contoso: TenantWorld) -> None:
    box = contoso.mailbox("waited", messages=2)
    job = contoso.assign("Mail", box, wait=False)
    seen: list[str] = []
    view = contoso.admin.wait(job.id, lambda at: seen.append(at.state))
    assert view.state == "done"
    assert seen[0] == "queued"
    assert seen[-1] == "done"
    assert box.statistics().is_encrypted


def test_jobs_are_listed_newest_first_by_state_and_page(contoso: TenantWorld) -> None:
    made = [contoso.assign("Mail", contoso.mailbox(f"listed-{index}"), wait=False).id for index in range(3)]
    queued = contoso.admin.call("job.list", w.ListJobs(states=["queued"]))
    assert [one.id for one in queued][:3] == made[::-1]
    first = contoso.admin.call("job.list", w.ListJobs(limit=2))
    rest = contoso.admin.call("job.list", w.ListJobs(after=first[-1].id, limit=5000))
    whole = contoso.admin.call("job.list", w.ListJobs(limit=5000))
    assert [one.id for one in [*first, *rest]] == [one.id for one in whole]
    with pytest.raises(InvalidRequest):
        contoso.admin.call("job.list", w.ListJobs(limit=0))
    run_due(contoso.world.services)
    assert not set(made) & {one.id for one in contoso.admin.call("job.list", w.ListJobs(states=["queued"]))}


def test_only_those_who_may_change_mailboxes_may_cancel(contoso: TenantWorld) -> None:
    job = contoso.assign("Mail", contoso.mailbox("not-yours", messages=1), wait=False)
    reader = contoso.person("job-reader", "audit-reader")
    assert reader.call("job.show", w.NameJob(job=job.id)).id == job.id
    with pytest.raises(Forbidden):
        reader.call("job.cancel", w.NameJob(job=job.id))
    assert contoso.person("job-exchange", "exchange-admin").call("job.cancel", w.NameJob(job=job.id)).state == "cancelled"
    with pytest.raises(PreconditionFailed):
        contoso.admin.call("job.cancel", w.NameJob(job=job.id))
    with pytest.raises(NotFound):
        contoso.admin.call("job.cancel", w.NameJob(job="no-such-job"))


def test_urgent_jobs_come_first(contoso: TenantWorld) -> None:
    box = contoso.mailbox("urgent", messages=1)
    contoso.assign("Mail", box)
    contoso.world.clock.advance(2 * 60 * MINUTE)  # the cleaning of the old pack is due now
    other = contoso.assign("Mail", contoso.mailbox("more-urgent", messages=1), wait=False)
    first = run_one(contoso.world.services)
    assert first is not None
    assert first.id == other.id
    kinds = []
    while (job := run_one(contoso.world.services)) is not None:
        kinds.append(job.kind)
    assert kinds.index("move-mailbox") < kinds.index("clean")


def test_a_worker_runs_what_is_due_makes_the_upkeep_once_a_minute_and_stops_when_told(contoso: TenantWorld) -> None:
    world = contoso.world
    box = contoso.mailbox("worker", messages=1)
    contoso.assign("Mail", box, wait=False)
    stopped = threading.Event()
    upkeep: list[int] = []

    def at(step: str) -> None:
        if step == "move: new objects stored":
            world.clock.advance(61 * SECOND)

    def every_minute() -> None:
        upkeep.append(world.clock.now())
        if len(upkeep) == 2:
            stopped.set()

    worker = world.process("worker", checkpoint=at, upkeep=every_minute)
    run_until_stopped(worker.services, stopped)
    run_due(world.services)
    assert box.statistics().is_encrypted
    assert len(upkeep) == 2
    assert upkeep[1] - upkeep[0] >= MINUTE


def test_upkeep_is_asked_for_once_however_often_it_is_scheduled(contoso: TenantWorld) -> None:
    services = contoso.world.services
    for _again in range(3):
        schedule_upkeep(services)
    with services.db.read() as tx:
        waiting = [job for job in tx.jobs.page("", states=[JobState.QUEUED], after="", limit=100) if job.kind == "collect-orphans"]
    assert len(waiting) == 1
    assert waiting[0].not_before > contoso.world.clock.now()


def test_two_assignments_at_once_both_end_where_they_were_asked_to(contoso: TenantWorld) -> None:
    contoso.policy("Other")
    boxes = [contoso.mailbox(f"both-{index}", messages=1) for index in range(4)]
    contoso.assign("Mail", *boxes[:2], wait=False)
    contoso.assign("Other", *boxes[2:], wait=False)
    run_due(contoso.world.services)
    assert [box.statistics().policy_name for box in boxes] == ["Mail", "Mail", "Other", "Other"]
    assert all(box.statistics().is_encrypted for box in boxes)
    operator = contoso.world.client(OPERATOR, contoso.id)
    assert all(operator.call("mailbox.move-status", m.NameMailbox(upn=box.upn)).state == "done" for box in boxes)
