# ruff: noqa: A005 - nothing here is imported by its bare name
"""The service over HTTP: requests a second and latency of reading, importing and statistics, by connections, processes and database.

Debian's wrk asks, on loopback, without TLS. One server process has one core and wrk the other; two processes share both with wrk.
"""

from __future__ import annotations

import base64
import os
import sys
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import msgspec
from benchmarks import home as homes
from benchmarks import postgresql, rows, serving, wrk
from benchmarks.timing import Figure, Plan, interleaved, main, share, spread

from keystead.api.types import mailboxes as m

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from keystead.wiring import Home

ITEM_BYTES = 16_000
ITEMS, BATCH_ITEMS = 512, 16
MAILBOXES = 16
CONNECTIONS = (1, 8, 64)
SECONDS, QUICK_SECONDS = 2, 1
IMPORT_SECONDS = 4
"""With 64 connections a batch waits for 63 others."""
READS_A_SECOND = 2_500
MSGPACK = "application/msgpack"
READ, IMPORT, STATISTICS = "reading a 16 KB item", f"importing {BATCH_ITEMS} items of 16 KB in a batch", "statistics of a mailbox"


@dataclass(frozen=True)
class Site:
    """A home, or the member of a fleet, with what is asked of it. `scripts`: what, and the script that asks."""

    database: str
    path: Path
    scripts: dict[str, Path]


def measure(place: Path, plan: Plan) -> list[Figure]:
    if not wrk.available():
        raise RuntimeError("wrk is not installed: apt-get install wrk")
    seconds = QUICK_SECONDS if plan.quick else SECONDS
    with ExitStack() as stack:
        sites = [_sqlite(place)]
        if postgresql.available():
            sites.append(stack.enter_context(_postgresql(place)))
        figures = _one_core(sites, place, plan, seconds)
        for site in sites:
            for processes in (1, 2):
                figures += _matrix(site, processes, plan, seconds)
    return figures


# -- what is measured -----------------------------------------------------------------------------------------------------------------


def _one_core(sites: list[Site], place: Path, plan: Plan, seconds: int) -> list[Figure]:
    """Reads of one server process on one core, beside the bare server loop there; the generator is on the other core."""
    server_core, wrk_core = _cores()
    bare_script = wrk.get_script(place / "bare.lua", ["/"], "none")
    figures = []
    with serving.started([sys.executable, "-m", "benchmarks.bare"], place / "bare-address", [server_core]) as bare:
        for site in sites:
            with serving.server(site.path, cores=[server_core]) as server:
                ways = {"keystead": (site.scripts[READ], server.address), "bare": (bare_script, bare.address)}
                found = interleaved(
                    {name: partial(_rate, script, address, seconds, wrk_core) for name, (script, address) in ways.items()},
                    plan.runs if plan.quick else max(plan.runs, 5),
                )
            ours, limit = spread("keystead", found["keystead"]), spread("the bare server loop, 16 KB from memory", found["bare"])
            wanted = site is sites[0]
            figures.append(
                Figure(
                    f"{READ}, one core, {site.database}, 8 connections",
                    "requests/s",
                    ours,
                    f"at least {READS_A_SECOND:,} requests/s" if wanted else "",
                    ours.median >= READS_A_SECOND if wanted else None,
                    [limit],
                    f"{share(ours, limit):.2f} of the bare loop",
                )
            )
    return figures


def _rate(script: Path, address: str, seconds: int, core: int) -> float:
    return wrk.load(script, address, 8, seconds, core=core).rate


def _matrix(site: Site, processes: int, plan: Plan, seconds: int) -> list[Figure]:
    server_core, wrk_core = _cores()
    alone = processes == 1
    with serving.server(site.path, processes=processes, cores=[server_core] if alone else []) as server:
        runs = {
            (what, connections): [
                wrk.load(
                    script,
                    server.address,
                    connections,
                    IMPORT_SECONDS if what == IMPORT else seconds,
                    core=wrk_core if alone else None,
                )
                for _ in range(plan.runs)
            ]
            for what, script in site.scripts.items()
            for connections in CONNECTIONS
        }
    return [
        Figure(
            f"{what}, {site.database}, {processes} process{'es' if processes > 1 else ''}, {connections} connection{'s' if connections > 1 else ''}",
            "requests/s",
            spread("keystead", [load.rate for load in loads]),
            beside=[spread("p50, ms", [load.p50 for load in loads]), spread("p99, ms", [load.p99 for load in loads])],
        )
        for (what, connections), loads in runs.items()
    ]


def _cores() -> tuple[int, int]:
    """One for the server, one for the generator; the same one where there is no other."""
    cores = sorted(os.sched_getaffinity(0))
    return cores[0], cores[-1]


# -- what it is measured on -----------------------------------------------------------------------------------------------------------


def _sqlite(place: Path) -> Site:
    return _site("SQLite", place / "home", place)


@contextmanager
def _postgresql(place: Path) -> Iterator[Site]:
    with postgresql.cluster(place) as cluster:
        yield _site("PostgreSQL", postgresql.member(place / "member", cluster), place)


def _site(database: str, path: Path, place: Path) -> Site:
    with homes.bench_home(path) as home:
        upn = homes.mailbox(home, "alex")
        admin = homes.admin(home)
        admin.wait(homes.assign(home, homes.POLICIES[0], upn))
        admin.call("mailbox.import", m.ImportBatch(upn=upn, items=[_item(n) for n in range(1, ITEMS + 1)]))
        items = homes.item_ids(homes.owner(home, upn), upn)
        boxes = [homes.mailbox(home, f"box{number}") for number in range(MAILBOXES)]
        for box in boxes:
            admin.wait(homes.assign(home, homes.POLICIES[0], box))
        owner_token, admin_token = rows.token_of(home, upn), rows.token_of(home, homes.ADMIN)
        tenant = _tenant_id(home)
    base = f"/v1/tenants/{tenant}/mailboxes"
    folder = place / f"{database}-scripts"
    folder.mkdir()
    scripts = {
        READ: wrk.get_script(folder / "read.lua", [f"{base}/{upn}/items/{item}" for item in items], owner_token),
        IMPORT: wrk.post_script(folder / "import.lua", [f"{base}/{box}/items" for box in boxes], admin_token, _pieces(), MSGPACK),
        STATISTICS: wrk.get_script(folder / "statistics.lua", [f"{base}/{box}/statistics" for box in boxes], admin_token),
    }
    return Site(database, path, scripts)


def _tenant_id(home: Home) -> str:
    return rows.policy_of(home, homes.POLICIES[0]).tenant_id


def _item(position: int, mark: str = "") -> m.ImportItem:
    """A message of 16 KB, half of it random as in an attachment, with a mark near its beginning."""
    head = f"From: sam@fabrikam.example\r\nSubject: {mark or position}\r\n\r\n".encode()
    data = (head + base64.encodebytes(os.urandom(ITEM_BYTES)))[:ITEM_BYTES]
    return m.ImportItem(position=position, ordinal=1, folder="Inbox", data=data)


def _pieces() -> list[bytes]:
    """A batch as it travels, cut where each item has its mark: what stands there makes an item one that nobody has sent before."""
    mark = base64.b32encode(os.urandom(20)).decode()[: wrk.MARK_BYTES]
    batch = {"items": [msgspec.to_builtins(_item(n, mark), builtin_types=(bytes,)) for n in range(1, BATCH_ITEMS + 1)]}
    pieces = msgspec.msgpack.encode(batch).split(mark.encode())
    assert len(pieces) == BATCH_ITEMS + 1
    return pieces


if __name__ == "__main__":
    raise SystemExit(main("http", measure, runs=3))
