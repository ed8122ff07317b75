"""Reading one item again and again: keyring warm, local transport, one core."""

from __future__ import annotations

import base64
import os
import time
from typing import TYPE_CHECKING

from benchmarks import home as homes
from benchmarks.timing import MB, Figure, Plan, interleaved, main, on_one_core, spread

from keystead.api.types import mailboxes as m

if TYPE_CHECKING:
    from pathlib import Path

    from keystead.client.client import Client

SMALL, LARGE = 16_000, 1_000_000
READS_A_SECOND = 3_000


def measure(place: Path, plan: Plan) -> list[Figure]:
    on_one_core()
    with homes.bench_home(place / "home") as home:
        upn = homes.mailbox(home, "alex")
        client = homes.owner(home, upn)
        homes.admin(home).wait(homes.assign(home, homes.POLICIES[0], upn))
        small, large = (_added(homes.admin(home), client, upn, size) for size in (SMALL, LARGE))
        calls = 300 if plan.quick else 3_000
        found = interleaved(
            {
                "small": lambda: _rate(client, upn, small, calls),
                "large": lambda: _rate(client, upn, large, calls // 10),
            },
            plan.runs,
        )
    reads, megabytes = spread("keystead", found["small"]), spread("keystead", [rate * LARGE / MB for rate in found["large"]])
    return [
        Figure("reading a 16 KB item", "reads/s", reads, f"at least {READS_A_SECOND:,} reads/s", reads.median >= READS_A_SECOND),
        Figure("reading a 1 MB item", "MB/s", megabytes),
    ]


def _added(admin: Client, client: Client, upn: str, size: int) -> str:
    """Import one message of about that size, half of it random; its id."""
    before = set(homes.item_ids(client, upn))
    head = b"From: sam@fabrikam.example\r\nSubject: bench\r\n\r\n"
    data = head + base64.encodebytes(os.urandom(size * 3 // 4))[: size - len(head)]
    admin.call("mailbox.import", m.ImportBatch(upn=upn, items=[m.ImportItem(position=1, ordinal=1, folder="", data=data)]))
    return (set(homes.item_ids(client, upn)) - before).pop()


def _rate(client: Client, upn: str, item: str, calls: int) -> float:
    homes.read(client, upn, item)
    start = time.perf_counter()
    for _ in range(calls):
        homes.read(client, upn, item)
    return calls / (time.perf_counter() - start)


if __name__ == "__main__":
    raise SystemExit(main("read", measure, runs=7))
