"""Long work: a row, done in slices (design section 7)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class JobState(StrEnum):
    """QUEUED jobs are taken by whoever runs slices; a RUNNING one whose lease ran out is taken over."""

    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


FINISHED = frozenset({JobState.DONE, JobState.FAILED, JobState.CANCELLED})


STUCK_AFTER = 3
"""Failures in a row after which a job counts as stuck. It is tried again all the same, less and less often."""


@dataclass(frozen=True, slots=True)
class Job:
    """One job.

    Attributes:
        parent_id: the job that started this one; empty for none.
        subject_id: id of what it works on (a mailbox, a policy); parameters: further ids, never content.
        priority: lower runs first.
        not_before: earliest start, milliseconds; done and total: units of work, bytes or objects, for progress.
        lease_epoch: counts who holds it; every slice commits only under the epoch it was claimed with.
    """

    id: str
    tenant_id: str
    parent_id: str
    kind: str
    subject_id: str
    parameters: dict[str, str]
    state: JobState
    priority: int
    done: int
    total: int
    lease_owner: str
    lease_epoch: int
    attempts: int
    not_before: int
    created: int
    started: int | None
    finished: int | None
    error: str
