"""Figures of a whole installation, for those who watch it: numbers only, of all tenants together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping

    from keystead.core.jobs import JobState


@dataclass(frozen=True, slots=True)
class Figures:
    """One look.

    Attributes:
        jobs: how many there are by kind and state; of the finished ones only those that failed.
        oldest_due: since when the job that has waited longest could have been run, in milliseconds since the epoch; None when none waits.
        overdue_moves: mailboxes whose change of hierarchy is not done in time (R-093).
        overdue_geos: geos of tenants in which a registration, roll, recovery or return of files is not done in time (R-122).
        policies: customer policies by the last answers of primary and secondary; both empty before the first.
        alerts: lasting ones by kind.
    """

    jobs: Mapping[tuple[str, JobState], int]
    oldest_due: int | None
    overdue_moves: int
    overdue_geos: int
    policies: Mapping[tuple[str, str], int]
    alerts: Mapping[str, int]


class FigureRows(Protocol):
    """Counted by indexes of what is unfinished or lasts, so that what is over and done costs nothing."""

    def look(self, now: int, assigned_before: int, changed_before: int) -> Figures:
        """Count everything once; overdue are moves asked for before `assigned_before`, and what was begun in a geo before `changed_before`."""
        ...
