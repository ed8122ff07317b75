"""What all slices share."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from keystead.core.alerts import AlertKind
from keystead.core.jobs import FINISHED, Job, JobState
from keystead.services.alerting import resolve_alerts

if TYPE_CHECKING:
    from keystead.ports.tx import Tx
    from keystead.services.context import Services


class LostLeaseError(Exception):
    """Somebody else runs this job by now, or it was cancelled: the slice's transaction must not commit."""


def extend(services: Services, job: Job) -> None:
    """Keep a job's lease for another while.

    Raises:
        LostLeaseError: another took the job meanwhile, or somebody cancelled it.
    """
    with services.db.write() as tx:
        if not tx.jobs.extend(job, services.clock.now() + services.settings.job_lease):
            raise LostLeaseError


def kept(services: Services, job: Job, since: int) -> int:
    """Keep the lease where a third of it is over: for what takes longer than a slice should.

    Args:
        services: the service.
        job: claimed by this process.
        since: when the lease was last extended, or what this gave before.

    Returns:
        When it was last extended.

    Raises:
        LostLeaseError: as `extend`.
    """
    now = services.clock.now()
    if now - since < services.settings.job_lease // 3:
        return since
    extend(services, job)
    return now


def save(services: Services, tx: Tx, job: Job, **changes: object) -> Job:
    """Store progress in the slice's own transaction, under the lease epoch; a slice that got on clears the error.

    Raises:
        LostLeaseError: the job is not this runner's any more; raised inside the transaction, which rolls back.
    """
    saved = replace(job, attempts=0, error="", **changes)  # type: ignore[arg-type]  # fields of Job by name
    if saved.state in FINISHED:
        saved = replace(saved, finished=services.clock.now())
    if not tx.jobs.save(saved):
        raise LostLeaseError
    if job.error:
        resolve_alerts(services, tx, job.tenant_id, job.id, [AlertKind.JOB_FAILING])
    return saved


def done(services: Services, tx: Tx, job: Job, **changes: object) -> Job:
    """Finish a job in the slice's own transaction."""
    return save(services, tx, job, state=JobState.DONE, **changes)
