"""Cost curves: how assignment, roll, the log, lists, jobs and start-up grow with mailboxes and records. None may grow faster than they do."""

from __future__ import annotations

import math
import statistics
import time
from collections import defaultdict
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks import home as homes
from benchmarks import rows, serving
from benchmarks.policy import refresh, rewrap
from benchmarks.timing import MB, Figure, Plan, main, peak_megabytes, seconds, spread

from keystead.api.types import mailboxes as m
from keystead.api.types import watching as w
from keystead.core.jobs import JobState

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from keystead.wiring import Home

SIZES, QUICK_SIZES = (1_000, 10_000, 100_000, 1_000_000), (300, 1_000, 3_000)
POSTGRESQL_SIZES = SIZES[:3]
STEEPEST, STEEPEST_STEP = 1.1, 1.25
"""Powers that still count as linear: over the whole curve, and over its last step, which is two points only."""


@dataclass(frozen=True)
class Curve:
    """One cost.

    Attributes:
        name: for charts, without blanks.
        what: what is measured, in the report.
        unit: ms, s or MB.
        grows: of what there are more and more.
    """

    name: str
    what: str
    unit: str
    grows: str = "mailboxes"


CURVES = (
    Curve("assign", "assignment of all mailboxes: every key re-wrapped, a move begun for each", "s"),
    Curve("assign-memory", "memory it takes beyond what the process held before", "MB"),
    Curve("roll", "refresh of the policy they lie under, beyond the vaults' answers", "ms"),
    Curve("list", "first page of the list of mailboxes", "ms"),
    Curve("statistics", "statistics of one mailbox", "ms"),
    Curve("claim", "finding the next job among all that wait", "ms", "jobs"),
    Curve("show", "showing a job with all it started", "ms", "jobs"),
    Curve("alerts", "alerts, with all moves overdue", "ms", "overdue moves"),
    Curve("audit", "audit search: first page", "ms", "records"),
    Curve("audit-operation", f"audit search: by an operation that one in {rows.RARE_EVERY:,} is", "ms", "records"),
    Curve("audit-time", "audit search: one day, forty days ago", "ms", "records"),
    Curve("serve-start", "start of `serve`, until it answers", "s"),
    Curve("serve-memory", "memory of `serve`, after 100 calls", "MB"),
)


@dataclass
class Curves:
    """What was measured: curve, size, runs."""

    values: dict[str, dict[int, list[float]]] = field(default_factory=lambda: defaultdict(lambda: defaultdict(list)))

    def add(self, name: str, size: int, value: float) -> None:
        self.values[name][size].append(value)

    def repeat(self, name: str, size: int, runs: int, act: Callable[[], object]) -> None:
        """Milliseconds of an act."""
        for _ in range(runs):
            self.add(name, size, 1_000 * seconds(act))


def measure(place: Path, plan: Plan) -> list[Figure]:
    sizes = QUICK_SIZES if plan.quick else SIZES
    with homes.bench_home(place / "home") as home:
        return _figures(_grown(home, place / "home", sizes, plan), "")


def _grown(home: Home, path: Path, sizes: Sequence[int], plan: Plan) -> Curves:
    """One home that grows from size to size: so many mailboxes, jobs and records. What a size left over is removed before the next."""
    curves = Curves()
    assigned = have = 0
    policies = [rows.policy_of(home, name) for name in homes.POLICIES]
    for size in sizes:
        rows.add_mailboxes(home, policies[assigned % 2], have, size)
        rows.clear(home, "audit_records")
        rows.add_audit_records(home, policies[0].tenant_id, size)
        have = size
        _searches(curves, home, size, plan.runs)
        _looks(curves, home, size, plan.runs)
        for _ in range(1 if size >= SIZES[-1] else 2):
            rows.clear(home, "jobs")
            reset_peak()
            before = peak_megabytes()
            curves.add("assign", size, size / rewrap(home, assigned, size))
            curves.add("assign-memory", size, max(1.0, peak_megabytes() - before))
            assigned += 1
        _jobs(curves, home, size, plan.runs)
        _serve(curves, path, size, plan)
    return curves


def _looks(curves: Curves, home: Home, size: int, runs: int) -> None:
    for _ in range(3 * runs):
        curves.add("roll", size, refresh(home))
    client, named = homes.admin(home), m.NameMailbox(upn=rows.upn_of(size // 2))
    curves.repeat("list", size, runs, lambda: client.call("mailbox.list", m.ListMailboxes()))
    curves.repeat("statistics", size, runs, lambda: client.call("mailbox.statistics", named))


def _searches(curves: Curves, home: Home, size: int, runs: int) -> None:
    client = homes.admin(home)
    now = datetime.now(UTC)
    day = w.SearchAudit(start=now - timedelta(days=40), end=now - timedelta(days=39))
    wide = w.SearchAudit(start=now - timedelta(days=rows.AUDIT_DAYS), end=now + timedelta(hours=1))
    for name, query in (
        ("audit", wide),
        ("audit-operation", w.SearchAudit(operations=[rows.RARE], start=wide.start, end=wide.end)),
        ("audit-time", day),
    ):
        if not client.call("audit.search", query):
            raise RuntimeError(f"{name}: nothing was found among {size} records")
        curves.repeat(name, size, 2 * runs, lambda: client.call("audit.search", query))  # noqa: B023 - run at once


def _jobs(curves: Curves, home: Home, size: int, runs: int) -> None:
    """With all moves of an assignment waiting."""
    client, services = homes.admin(home), home.services
    (parent,) = rows.jobs_of_kind(home, "change-hierarchy")
    curves.repeat("show", size, runs, lambda: client.call("job.show", w.NameJob(job=parent)))
    rows.backdate_moves(home)
    curves.repeat("alerts", size, runs, lambda: client.call("alerts.list", w.ListAlerts()))
    for _ in range(3 * runs):
        now = services.clock.now()
        start = time.perf_counter()
        with services.db.write() as tx:
            job = tx.jobs.claim(services.owner, now, now + 60_000)
        curves.add("claim", size, 1_000 * (time.perf_counter() - start))
        if job is None:
            raise RuntimeError("no job was there to claim")
        with services.db.write() as tx:
            tx.jobs.save(replace(job, state=JobState.QUEUED))


def _serve(curves: Curves, path: Path, size: int, plan: Plan) -> None:
    for _ in range(plan.runs):
        with serving.server(path) as server:
            curves.add("serve-start", size, server.start_seconds)
            for _ in range(100):
                server.get("/readyz")
            curves.add("serve-memory", size, server.memory_bytes() / MB)


def _figures(curves: Curves, suffix: str) -> list[Figure]:
    figures = []
    for curve in CURVES:
        points = curves.values.get(curve.name)
        if not points:
            continue
        sizes = sorted(points)
        medians = {size: statistics.median(points[size]) for size in sizes}
        whole, last = power(medians), power({size: medians[size] for size in sizes[-2:]})
        figures.append(
            Figure(
                f"{curve.what}: {sizes[-1]:,} {curve.grows}{suffix}",
                curve.unit,
                spread("keystead", points[sizes[-1]]),
                "no worse than linear",
                whole <= STEEPEST and last <= STEEPEST_STEP,
                [spread(f"{size:,}", points[size]) for size in sizes[:-1]],
                f"grows with the power {whole:.2f}, over the last step {last:.2f}",
            )
        )
    return figures


def power(points: dict[int, float]) -> float:
    """The exponent b of the curve a * size ** b through the points: least squares over their logarithms."""
    x, y = [math.log(size) for size in points], [math.log(value) for value in points.values()]
    return statistics.linear_regression(x, y).slope


def reset_peak() -> None:
    """Forget the most memory this process ever held."""
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


if __name__ == "__main__":
    raise SystemExit(main("scale", measure, runs=3))
