"""The inline runner: takes jobs from the database and runs them in slices (design section 7).

A slice is one transaction that holds the changed rows, the cursor and the progress, committed only under the lease epoch the job was
claimed with. So a slice done twice, or by a runner that was thought dead, changes nothing; `kill -9` anywhere loses at most one slice.
"""

from __future__ import annotations

import logging
import threading
from dataclasses import replace
from typing import TYPE_CHECKING

from keystead.core.alerts import AlertKind, Condition
from keystead.core.errors import IntegrityFailure, KeysteadError, Refused, Unavailable
from keystead.core.jobs import STUCK_AFTER, Job, JobState
from keystead.services.alerting import beat, raise_alert
from keystead.services.file_policies import CHANGES
from keystead.services.jobs.files import DESTROY, MOVE, change_files, destroy_shred_key
from keystead.services.jobs.hierarchy import change_hierarchy, move_mailbox
from keystead.services.jobs.site_moves import move_site
from keystead.services.jobs.slices import LostLeaseError, extend
from keystead.services.jobs.upkeep import clean, collect_orphans, ensure_upkeep, keep_signing_keys, keep_up
from keystead.services.tally import Counted

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from keystead.services.context import Services

    Slice = Callable[[Services, Job], Job]
    """Does one slice and returns the job as it was saved."""

KINDS: Mapping[str, Slice] = {
    "change-hierarchy": change_hierarchy,
    "move-mailbox": move_mailbox,
    **dict.fromkeys(CHANGES, change_files),
    MOVE: move_site,
    DESTROY: destroy_shred_key,
    "clean": clean,
    "collect-orphans": collect_orphans,
    "signing-keys": keep_signing_keys,
    "upkeep": keep_up,
}

MENDED = CHANGES | {MOVE}
"""Kinds that a damaged row or object does not end: it can be restored or deleted, and there is one such job for a geo or site."""

_log = logging.getLogger("keystead.jobs")

FIRST_WAIT = 1_000
LONGEST_WAIT = 300_000
"""Milliseconds between tries of a job that fails: doubling from one second to five minutes."""
CLAIM_TIME = 5_000
"""How long one claim runs slices before it gives the job back, so that urgent jobs get their turn."""
BEAT = 60_000
"""How often a worker shows that it gets on, in milliseconds."""
IDLE = 500
"""How long a worker with nothing to do waits before it looks again, in milliseconds."""


def run_one(services: Services, *, only: str = "", alone: bool = False, kind: str = "", stopping: Callable[[], bool] = bool) -> Job | None:
    """Claim the most urgent job and run slices of it for a few seconds; None when there is nothing to do.

    Args:
        services: the service.
        only: run this job, or one it started, and no other.
        alone: not one it started either.
        kind: run jobs of this kind, and no other.
        stopping: whether to give the job back after the slice that runs.
    """
    if not alone:
        relieve(services)
    now = services.clock.now()
    with services.db.write() as tx:
        job = tx.jobs.claim(services.owner, now, now + services.settings.job_lease, only=only, alone=alone, kind=kind)
    if job is None:
        return None
    started = services.clock.now()
    job = _turn(services, job, started + CLAIM_TIME, stopping)
    _tell(services, job, services.clock.now() - started)
    return job


def _turn(services: Services, job: Job, until: int, stopping: Callable[[], bool]) -> Job:
    """Slices of a claimed job until its time is up; the job as it is then, still RUNNING only when its lease was lost."""
    extended = services.clock.now()
    try:
        while job.state is JobState.RUNNING:
            job = KINDS[job.kind](services, job)
            if job.state is JobState.RUNNING:
                now = services.clock.now()
                if now >= until or stopping():
                    return _give_back(services, job)
                if not 0 <= now - extended < services.settings.job_lease // 3:  # enough is left for most slices: no write for nothing
                    extend(services, job)
                    extended = now
    except LostLeaseError:
        return job
    except KeysteadError as error:
        return _failed(services, job, error)
    except Exception as error:  # noqa: BLE001 - logged with its trace
        # A defect of ours. One job that meets it must not stop the others: it is tried again later, and the log has the trace.
        _log.exception("the job %s (%s) met a defect", job.id, job.kind)
        return _failed(
            services, job, Unavailable("defect", f"the job met a defect: {type(error).__name__}", "report it; the log has the trace")
        )
    return job


def _tell(services: Services, job: Job, lasted: int) -> None:
    """Count a turn and write a line of the log: ids and numbers, and of an error its code."""
    if job.state is JobState.RUNNING:
        outcome = "lease-lost"
    elif job.state is JobState.QUEUED:
        outcome = "to-be-tried-again" if job.error else "goes-on"
    else:
        outcome = job.state.value
    services.tally.count(Counted.TURN, job.kind, outcome)
    told = {"job_id": job.id, "kind": job.kind, "tenant_id": job.tenant_id, "outcome": outcome, "done": job.done, "total": job.total}
    if job.error:
        told["code"] = job.error.partition(":")[0]
    level = logging.WARNING if job.error else logging.DEBUG if outcome == "goes-on" else logging.INFO
    _log.log(level, "job", extra={**told, "ms": lasted})


def push(services: Services, job_id: str) -> bool:
    """Get on with a job for whoever waits for it; what cannot run now is waited for a moment.

    Whoever waits also removes what earlier jobs left to be removed, so that a home without a worker does not grow.

    Returns:
        Whether the job, or one it started, got on.
    """
    if run_one(services, only=job_id) is not None:
        return True
    if run_one(services, kind="clean") is None:
        services.clock.sleep(IDLE // 5)
    return False


def run_rung(services: Services, job_id: str, stopping: Callable[[], bool]) -> None:
    """What a worker of a fleet does when a job is rung for; a job that is not due, done, or run by another is left alone."""
    services.alive(services.owner)
    run_one(services, only=job_id, alone=True, stopping=stopping)


def begin(services: Services) -> None:
    """Give up the leases this process still holds, when it runs no job: it lost them with the database, and nobody else may know."""
    services.alive(services.owner)
    with services.db.write() as tx:
        tx.jobs.release(services.owner)


def sweep(services: Services) -> None:
    """What some worker of a fleet does every few seconds: free the jobs of the dead, and see that the upkeep is asked for."""
    relieve(services)
    ensure_upkeep(services)
    beat(services)


def run_until_stopped(services: Services, stopped: threading.Event) -> None:
    """What each thread of `keystead worker` and each job thread of `keystead serve` does: run jobs, the upkeep among them.

    When told to stop it gives its job back after the slice that runs. A database that does not answer is asked again after a moment.
    """
    next_beat = 0
    while not stopped.is_set():
        try:
            now = services.clock.now()
            if now >= next_beat:
                ensure_upkeep(services)
                beat(services)
                next_beat = now + BEAT
            idle = run_one(services, stopping=stopped.is_set) is None
        except Unavailable as error:
            _log.warning("no job can be run now: %s", error)
            idle = True
        except Exception:  # noqa: BLE001 - as said
            # A defect of ours, or damaged rows. The thread stays: nobody else would notice that jobs are not run any more.
            _log.exception("running jobs met a defect")
            idle = True
        if idle:
            stopped.wait(IDLE / 1_000)


def job_threads(services: Services, stopped: threading.Event, count: int) -> list[threading.Thread]:
    """Threads that run jobs until they are told to stop; not started yet. A process that ends before them loses a slice at most."""
    return [
        threading.Thread(target=run_until_stopped, args=(services, stopped), name=f"jobs-{number}", daemon=True) for number in range(count)
    ]


def run_due(services: Services) -> None:
    """Run everything that is due, now: for tests and for small homes without a worker."""
    while run_one(services) is not None:
        pass


def relieve(services: Services) -> None:
    """End the leases of processes that are known to be dead; this one is announced on the way."""
    services.alive(services.owner)
    with services.db.read() as tx:
        owners = tx.jobs.running_owners()
    dead = [owner for owner in owners if not services.alive(owner)]
    if dead:
        with services.db.write() as tx:
            for owner in dead:
                tx.jobs.release(owner)


def _give_back(services: Services, job: Job) -> Job:
    queued = replace(job, state=JobState.QUEUED)
    with services.db.write() as tx:
        tx.jobs.save(queued)
    return queued


def _failed(services: Services, job: Job, error: KeysteadError) -> Job:
    """Faults and denials are tried again, later and later; what cannot mend itself ends the job, but for those in `MENDED`."""
    now = services.clock.now()
    again = isinstance(error, Unavailable | Refused) or (isinstance(error, IntegrityFailure) and job.kind in MENDED)
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
            stuck = not again or attempts >= STUCK_AFTER
            condition = Condition(job.tenant_id, AlertKind.JOB_FAILING, job.id, f"{job.kind}: {error.code}", escalated=stuck)
            raise_alert(services, tx, condition)
    return failed
