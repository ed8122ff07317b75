"""The inline runner: takes jobs from the database and runs them in slices (design section 7).

A slice is one transaction that holds the changed rows, the cursor and the progress, committed only under the lease epoch the job was
claimed with. So a slice done twice, or by a runner that was thought dead, changes nothing; `kill -9` anywhere loses at most one slice.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING

from keystead.core.alerts import Alert, AlertKind
from keystead.core.errors import KeysteadError, Refused, Unavailable
from keystead.core.jobs import Job, JobState
from keystead.services.jobs.hierarchy import change_hierarchy, move_mailbox
from keystead.services.jobs.slices import LostLeaseError
from keystead.services.jobs.upkeep import clean, collect_orphans, schedule_upkeep

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Mapping

    from keystead.services.context import Services

    Slice = Callable[[Services, Job], Job]
    """Does one slice and returns the job as it was saved."""

KINDS: Mapping[str, Slice] = {
    "change-hierarchy": change_hierarchy,
    "move-mailbox": move_mailbox,
    "clean": clean,
    "collect-orphans": collect_orphans,
}

FIRST_WAIT = 1_000
LONGEST_WAIT = 300_000
"""Milliseconds between tries of a job that fails: doubling from one second to five minutes."""
CLAIM_TIME = 5_000
"""How long one claim runs slices before it gives the job back, so that urgent jobs get their turn."""
IDLE = 500
"""How long a worker with nothing to do waits before it looks again, in milliseconds."""


def run_one(services: Services, *, only: str = "", kind: str = "", stopping: Callable[[], bool] = bool) -> Job | None:
    """Claim the most urgent job and run slices of it for a few seconds; None when there is nothing to do.

    Args:
        services: the service.
        only: run this job, or one it started, and no other.
        kind: run jobs of this kind, and no other.
        stopping: whether to give the job back after the slice that runs.
    """
    job = _claim(services, only, kind)
    if job is None:
        return None
    until = services.clock.now() + CLAIM_TIME
    try:
        while job.state is JobState.RUNNING:
            job = KINDS[job.kind](services, job)
            if job.state is JobState.RUNNING:
                if services.clock.now() >= until or stopping():
                    return _give_back(services, job)
                _extend(services, job)
    except LostLeaseError:
        return job
    except KeysteadError as error:
        return _failed(services, job, error)
    except Exception as error:
        # A defect of ours. One job that meets it must not stop the others: it is tried again later, and the log has the trace.
        logging.getLogger("keystead.jobs").exception("the job %s (%s) met a defect", job.id, job.kind)
        return _failed(
            services, job, Unavailable("defect", f"the job met a defect: {type(error).__name__}", "report it; the log has the trace")
        )
    return job


def push(services: Services, job_id: str) -> None:
    """Get on with a job for whoever waits for it; what cannot run now is waited for a moment.

    Whoever waits also removes what earlier jobs left to be removed, so that a home without a worker does not grow.
    """
    if run_one(services, only=job_id) is None and run_one(services, kind="clean") is None:
        services.clock.sleep(IDLE // 5)


def run_until_stopped(services: Services, stopped: threading.Event, upkeep: Callable[[], None]) -> None:
    """What `keystead worker` and each job thread of `keystead serve` does: run jobs, and once a minute the upkeep of service and vault.

    When told to stop it gives its job back after the slice that runs. A database that does not answer is asked again after a moment.
    """
    next_upkeep = 0
    while not stopped.is_set():
        try:
            now = services.clock.now()
            if now >= next_upkeep:
                schedule_upkeep(services)
                upkeep()
                next_upkeep = now + 60_000
            idle = run_one(services, stopping=stopped.is_set) is None
        except Unavailable as error:
            logging.getLogger("keystead.jobs").warning("no job can be run now: %s", error)
            idle = True
        if idle:
            stopped.wait(IDLE / 1_000)


def run_due(services: Services) -> None:
    """Run everything that is due, now: for tests and for small homes without a worker."""
    while run_one(services) is not None:
        pass


def _claim(services: Services, only: str, kind: str) -> Job | None:
    """Take a job; leases of processes that are known to be dead end first."""
    services.alive(services.owner)
    with services.db.read() as tx:
        owners = tx.jobs.running_owners()
    dead = [owner for owner in owners if not services.alive(owner)]
    now = services.clock.now()
    with services.db.write() as tx:
        for owner in dead:
            tx.jobs.release(owner)
        return tx.jobs.claim(services.owner, now, now + services.settings.job_lease, only=only, kind=kind)


def _extend(services: Services, job: Job) -> None:
    with services.db.write() as tx:
        if not tx.jobs.extend(job, services.clock.now() + services.settings.job_lease):
            raise LostLeaseError


def _give_back(services: Services, job: Job) -> Job:
    queued = replace(job, state=JobState.QUEUED)
    with services.db.write() as tx:
        tx.jobs.save(queued)
    return queued


def _failed(services: Services, job: Job, error: KeysteadError) -> Job:
    """Faults and denials are tried again, later and later; what cannot mend itself ends the job."""
    now = services.clock.now()
    again = isinstance(error, Unavailable | Refused)
    attempts = max(1, job.attempts)  # a slice that got on before this one failed has set them to none
    wait = min(LONGEST_WAIT, FIRST_WAIT << min(attempts, 20))
    failed = replace(
        job,
        attempts=attempts,
        state=JobState.QUEUED if again else JobState.FAILED,
        not_before=now + wait if again else 0,
        finished=None if again else now,
        error=str(error),
    )
    with services.db.write() as tx:
        if tx.jobs.save(failed):
            tx.alerts.raise_alert(Alert(job.tenant_id, AlertKind.JOB_FAILING, job.id, now, None, f"{job.kind}: {error.code}"))
    return failed
