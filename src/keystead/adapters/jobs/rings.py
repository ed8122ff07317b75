"""Rings: how PostgreSQL tells workers, through Procrastinate, that a job wants to be run (docs/adr/0023-rings-beside-rows.md).

A job is its row in `jobs`, and only that. A *ring* is a job of Procrastinate's that says "run job ID"; it stands in the same database and is
made by the transaction that inserts or re-queues the row, so a crash leaves both or none. A ring too many does nothing; one that was
lost is made again by the sweep (`keystead.adapters.jobs.worker`).

Rings are made by one statement of ours for any number of jobs, not through Procrastinate's `defer`: that raises in the middle of the
transaction when a ring is there already, and costs twice as much for the thousands of moves that an assignment starts. The statement
relies on Procrastinate's table, whose version is pinned by `keystead.adapters.jobs.schema`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, LiteralString

from keystead.adapters.sql.rows_work import SqlJobRows
from keystead.core.jobs import JobState

if TYPE_CHECKING:
    from collections.abc import Sequence

    from keystead.core.jobs import Job

QUEUE = "keystead"
RUN = "keystead:run"
"""The task of every ring; its argument `job` is the job's id."""
ONE_AT_A_TIME = frozenset({"change-hierarchy"})
"""Kinds of which never two work on one subject at once: the second would find nothing to do, and hold a worker for it."""
HORIZON = 600_000
"""Milliseconds. What is to start later than that gets its ring from the sweep: a queue full of rings for later is slow to look through."""
LATE = 250
"""Milliseconds a ring comes after the job is due: by a worker's clock that lags behind the database's it would still be too early."""
MOST_LOST = 5_000
"""Lost rings made again in one sweep; the next one finds the others."""
STUCK_SECONDS = 60
"""A ring that some worker holds for so long though nobody runs its job: the worker lost it with its connection."""

_BELLS: LiteralString = """
INSERT INTO procrastinate_jobs (queue_name, task_name, priority, lock, queueing_lock, args, scheduled_at)
SELECT 'keystead', 'keystead:run', -bell.priority, bell.lock, 'keystead:' || bell.id, jsonb_build_object('job', bell.id),
       CASE WHEN bell.not_before > 0 THEN to_timestamp((bell.not_before + 250) / 1000.0) END
"""
_ONCE: LiteralString = """
ON CONFLICT (queueing_lock) WHERE status = 'todo'
DO UPDATE SET scheduled_at = EXCLUDED.scheduled_at
WHERE procrastinate_jobs.scheduled_at > COALESCE(EXCLUDED.scheduled_at, '-infinity')
"""
"""One ring for a job waits at a time; one that waits for later than is wanted now is brought forward."""
RING: LiteralString = (
    _BELLS
    + """
FROM unnest(%(ids)s::text[], %(priorities)s::integer[], %(locks)s::text[], %(times)s::bigint[]) AS bell (id, priority, lock, not_before)
WHERE bell.not_before <= extract(epoch FROM clock_timestamp()) * 1000 + %(horizon)s
"""
    + _ONCE
)
RING_LOST: LiteralString = (
    _BELLS  # noqa: S608 - constants of this module
    + """
FROM (
    SELECT id, priority, CASE WHEN kind = ANY(%(one_at_a_time)s::text[]) THEN kind || ':' || subject_id END AS lock, 0 AS not_before
    FROM jobs
    WHERE ((state = 'queued' AND not_before <= %(now)s) OR (state = 'running' AND lease_until <= %(now)s))
    AND NOT EXISTS (
        SELECT 1 FROM procrastinate_jobs AS ring
        WHERE ring.queueing_lock = 'keystead:' || jobs.id AND ring.status = 'todo'
        AND (ring.scheduled_at IS NULL OR ring.scheduled_at <= now())
    )
    ORDER BY priority, sequence
    LIMIT %(limit)s
) AS bell
"""
    + _ONCE
)
"""Rings for jobs that are due, or whose runner's lease ran out, and that no ring waits for."""
DROP_STUCK: LiteralString = """
DELETE FROM procrastinate_jobs AS ring
WHERE ring.status = 'doing' AND ring.task_name = 'keystead:run' AND (
    EXISTS (SELECT 1 FROM jobs WHERE jobs.id = ring.args ->> 'job' AND jobs.state = 'running' AND jobs.lease_until = 0)
    OR (
        NOT EXISTS (SELECT 1 FROM jobs WHERE jobs.id = ring.args ->> 'job' AND jobs.state = 'running' AND jobs.lease_until > %(now)s)
        AND EXISTS (
            SELECT 1 FROM procrastinate_events AS event
            WHERE event.job_id = ring.id AND event.type = 'started' AND event.at < now() - make_interval(secs => %(seconds)s)
        )
    )
)
"""
"""Rings of a runner that is known to be dead, and rings that a living worker took and could not give back, because the database was away
just then: nothing would ever end those. A dropped ring lets go of its lock."""


def lock_of(job: Job) -> str | None:
    """What no two running jobs may have in common."""
    return f"{job.kind}:{job.subject_id}" if job.kind in ONE_AT_A_TIME else None


class RingingJobRows(SqlJobRows):
    """Implements ports.tx.JobRows for a fleet: a job that is inserted or put back is rung for in the same transaction."""

    def insert(self, new: Sequence[Job]) -> None:
        super().insert(new)
        self._ring([job for job in new if job.state is JobState.QUEUED])

    def save(self, job: Job) -> bool:
        saved = super().save(job)
        if saved and job.state is JobState.QUEUED:
            self._ring([job])
        return saved

    def _ring(self, jobs: Sequence[Job]) -> None:
        if not jobs:
            return
        self._connection.exec_driver_sql(
            RING,
            {
                "ids": [job.id for job in jobs],
                "priorities": [job.priority for job in jobs],
                "locks": [lock_of(job) for job in jobs],
                "times": [job.not_before for job in jobs],
                "horizon": HORIZON,
            },
        )
