"""Figures of a whole installation."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import and_, case, func, select

from keystead.adapters.sql.keystead_schema import UNMOVED, alerts, file_geos, jobs, mailboxes, policies, policy_states
from keystead.core.jobs import JobState
from keystead.core.policies.policy import Workload
from keystead.ports.figures import Figures

if TYPE_CHECKING:
    from sqlalchemy import Connection

_COUNTED = [JobState.QUEUED.value, JobState.RUNNING.value, JobState.FAILED.value]
_COUNT = func.count()


class SqlFigureRows:
    """Implements ports.figures.FigureRows."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def look(self, now: int, assigned_before: int, changed_before: int) -> Figures:
        run = self._connection.execute
        of_jobs = select(jobs.c.kind, jobs.c.state, _COUNT).where(jobs.c.state.in_(_COUNTED)).group_by(jobs.c.kind, jobs.c.state)
        could_run = case((jobs.c.not_before > jobs.c.created, jobs.c.not_before), else_=jobs.c.created)
        oldest = select(func.min(could_run)).where(and_(jobs.c.state == JobState.QUEUED.value, jobs.c.not_before <= now))
        overdue = select(_COUNT).select_from(mailboxes).where(mailboxes.c.assigned_at < assigned_before, UNMOVED)
        late = select(_COUNT).where(file_geos.c.target_policy_id.is_not(None), file_geos.c.changed < changed_before)
        outcomes = (
            select(policy_states.c.primary_outcome, policy_states.c.secondary_outcome, _COUNT)
            .join(policies, policies.c.id == policy_states.c.policy_id)
            .where(policies.c.workload != Workload.PROVIDER.value)
            .group_by(policy_states.c.primary_outcome, policy_states.c.secondary_outcome)
        )
        of_alerts = select(alerts.c.kind, _COUNT).where(alerts.c.resolved.is_(None)).group_by(alerts.c.kind)
        return Figures(
            jobs={(kind, JobState(state)): count for kind, state, count in run(of_jobs)},
            oldest_due=run(oldest).scalar(),
            overdue_moves=run(overdue).scalar_one(),
            overdue_geos=run(late).scalar_one(),
            policies={(primary, secondary): count for primary, secondary, count in run(outcomes)},
            alerts={kind: count for kind, count in run(of_alerts)},  # noqa: C416 - rows are no pairs to a type checker,
        )
