"""Making job rows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from keystead.core.ids import ordered_id
from keystead.core.jobs import Job, JobState

if TYPE_CHECKING:
    from keystead.services.context import Services

NORMAL = 5


def new_job(
    services: Services,
    tenant_id: str,
    kind: str,
    subject_id: str,
    *,
    parameters: dict[str, str] | None = None,
    parent_id: str = "",
    priority: int = NORMAL,
    total: int = 0,
    not_before: int = 0,
    now: int | None = None,
) -> Job:
    """A job that waits to be run; insert it in the transaction of the act that asks for it. `now`: for whoever makes many at once."""
    created = services.clock.now() if now is None else now
    return Job(
        id=ordered_id(services.random, created),
        tenant_id=tenant_id,
        parent_id=parent_id,
        kind=kind,
        subject_id=subject_id,
        parameters=parameters or {},
        state=JobState.QUEUED,
        priority=priority,
        done=0,
        total=total,
        lease_owner="",
        lease_epoch=0,
        attempts=0,
        not_before=not_before,
        created=created,
        started=None,
        finished=None,
        error="",
    )
