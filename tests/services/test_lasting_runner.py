"""A runner of jobs outlasts what goes wrong around them."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest

from keystead.api.types import watching as w
from keystead.core.errors import IntegrityFailure, InvalidRequest
from keystead.core.jobs import JobState
from keystead.services.jobs import runner
from keystead.services.upkeep import LATEST

if TYPE_CHECKING:
    from keystead.core.jobs import Job
    from keystead.services.context import Services
    from support.world import World


@pytest.mark.parametrize("trouble", [ValueError("a defect"), IntegrityFailure("rows_damaged", "a row is not what was written")])
def test_a_runner_that_meets_a_defect_goes_on_with_the_next_job(world: World, monkeypatch: pytest.MonkeyPatch, trouble: Exception) -> None:
    """Else a server would answer calls, and no job would ever be done, and nobody would know."""
    contoso = world.tenant()
    asked = contoso.assign(contoso.policy(), contoso.mailbox("alex", messages=1), wait=False)
    stopped = threading.Event()
    met: list[str] = []
    original = runner.run_one

    def run_one(services: Services, **more: object) -> Job | None:
        if not met:
            met.append("trouble")
            raise trouble
        done = original(services, stopping=lambda: False)
        with services.db.read() as tx:
            job = tx.jobs.get(asked.id)
        if job is not None and job.state is JobState.DONE and contoso.admin.call("job.show", w.NameJob(job=asked.id)).finished is not None:
            stopped.set()
        return done

    monkeypatch.setattr(runner, "run_one", run_one)
    runner.run_until_stopped(world.services, stopped)
    assert met == ["trouble"]
    assert contoso.admin.call("job.show", w.NameJob(job=asked.id)).state == "done"


def test_the_clock_of_a_dev_home_does_not_leave_the_calendar(world: World) -> None:
    """A time no calendar holds would end every call of the home, and no other call could mend it."""
    for milliseconds in (10**15, 2**63, 10**30, LATEST - world.clock.now() + 1):
        with pytest.raises(InvalidRequest) as caught:
            world.operator.call("dev.clock.advance", w.AdvanceClock(milliseconds=milliseconds))
        assert caught.value.code in {"clock_too_far", "request_invalid"}
    reached = world.operator.call("dev.clock.advance", w.AdvanceClock(milliseconds=LATEST - world.clock.now()))
    assert reached.now.year == 2200
    assert world.operator.call("tenant.list") == []
