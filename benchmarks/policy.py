"""Refreshing a policy with few and with very many mailboxes, and re-wrapping all of them on assignment."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any, Self

from benchmarks import home as homes
from benchmarks.timing import Figure, Plan, interleaved, main, share, spread

from keystead.api.types import mailboxes as m
from keystead.api.types import policies as p
from keystead.core.ids import new_id
from keystead.core.keys.decide import Operation
from keystead.core.stores.mailbox import Mailbox, MailboxKey, MailboxType, MoveState
from keystead.services.jobs.runner import run_one

if TYPE_CHECKING:
    from pathlib import Path

    from keystead.wiring import Home

FEW, MANY = 100, 100_000
BEYOND_VAULTS_MS, MAILBOXES_A_SECOND = 100, 20_000
NO_SLOWER = 1.25
"""Noise allowed for "no slower than with 100"."""
BATCH = 5_000


def measure(place: Path, plan: Plan) -> list[Figure]:
    many = MANY // 50 if plan.quick else MANY
    with homes.bench_home(place / "few") as small, homes.bench_home(place / "many") as large:
        _fill(small, FEW)
        _fill(large, many)
        found = interleaved({"few": lambda: refresh(small), "many": lambda: refresh(large)}, max(plan.runs, 15))
        rates = [rewrap(large, number, many) for number in range(plan.runs)]
    few, lots = spread(f"with {FEW} mailboxes", found["few"]), spread("keystead", found["many"])
    ratio = share(lots, few)
    rewrap = spread("keystead", rates)
    return [
        Figure(
            f"refresh of a policy with {many:,} mailboxes, beyond the vaults' answers",
            "ms",
            lots,
            f"under {BEYOND_VAULTS_MS} ms, and no slower than with {FEW}",
            lots.median < BEYOND_VAULTS_MS and ratio < NO_SLOWER,
            [few],
            f"{ratio:.2f} times as long as with {FEW}",
        ),
        Figure(
            f"re-wrap of {many:,} mailboxes on assignment, with a move begun for each",
            "mailboxes/s",
            rewrap,
            f"at least {MAILBOXES_A_SECOND:,} mailboxes/s",
            rewrap.median >= MAILBOXES_A_SECOND,
        ),
    ]


def _fill(home: Home, count: int) -> None:
    """Mailboxes under the first policy, straight into the database, with real wrapped keys; the one item each counts is not there."""
    services = home.services
    client = homes.admin(home)
    policy: p.PolicyView = client.call("policy.show", p.NamePolicy(policy=homes.POLICIES[0]))
    with services.db.read() as tx:
        known = tx.policies.by_id(policy.id)
    assert known is not None
    opened = services.keyring.open(known.id, Operation.SYSTEM, request_id=new_id(services.random))
    for start in range(0, count, BATCH):
        with services.db.write() as tx:
            for number in range(start, min(start + BATCH, count)):
                mailbox = Mailbox(
                    id=new_id(services.random),
                    tenant_id=known.tenant_id,
                    upn=f"box{number}@{homes.DOMAIN}",
                    type=MailboxType.SHARED,
                    licensed=True,
                    created=services.clock.now(),
                    policy_id=known.id,
                    pending_policy_id=None,
                    key_version=1,
                    move_state=MoveState.DONE,
                    assigned_at=None,
                    moved_at=None,
                    moved_items=0,
                    item_count=1,
                    size_bytes=16_000,
                )
                tx.mailboxes.insert(mailbox, MailboxKey(mailbox.id, 1, opened.new_mailbox_key(mailbox.id, 1, os.urandom)))


def refresh(home: Home) -> float:
    """Milliseconds of one refresh beyond those in which a vault was being asked."""
    client = homes.admin(home)
    with _VaultTime(home) as asked:
        start = time.perf_counter()
        client.call("policy.refresh", p.NamePolicy(policy=homes.POLICIES[0]))
        return 1_000 * (time.perf_counter() - start - asked.seconds())


class _VaultTime:
    """Watches the calls to vaults; those at the same time count once."""

    _verbs = ("wrap", "unwrap", "key_facts", "subscription_facts")

    def __init__(self, home: Home) -> None:
        self._vaults = home.services.vaults
        self._spans: list[tuple[float, float]] = []

    def __enter__(self) -> Self:
        for verb in self._verbs:
            setattr(self._vaults, verb, self._watched(getattr(self._vaults, verb)))
        return self

    def __exit__(self, *_: object) -> None:
        for verb in self._verbs:
            delattr(self._vaults, verb)

    def seconds(self) -> float:
        total = end = 0.0
        for start, stop in sorted(self._spans):
            total += max(0.0, stop - max(start, end))
            end = max(end, stop)
        return total

    def _watched(self, call: Any) -> Any:  # noqa: ANN401 - any of the vaults' methods
        def watched(*arguments: object) -> object:
            start = time.perf_counter()
            try:
                return call(*arguments)
            finally:
                self._spans.append((start, time.perf_counter()))

        return watched


def rewrap(home: Home, number: int, count: int) -> float:
    """Assign the other policy to all, and run the job that re-wraps; the moves it begins are left. Mailboxes a second."""
    asked: m.AssignmentView = homes.admin(home).call("mailbox.assign", m.AssignPolicy(policy=homes.POLICIES[1 - number % 2], all=True))
    assert asked.mailboxes == count
    start = time.perf_counter()
    while True:
        with home.services.db.read() as tx:
            job = tx.jobs.get(asked.job_id)
        assert job is not None
        if job.state.value == "done":
            return count / (time.perf_counter() - start)
        if job.error:
            raise RuntimeError(f"the job that re-wraps is {job.state}: {job.error}")
        run_one(home.services, only=asked.job_id)


if __name__ == "__main__":
    raise SystemExit(main("policy", measure, runs=3))
