"""Taking in 10,000 messages, durable when acknowledged, beside copying the same Maildir and beside Dovecot with mail_crypt."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks import dovecot
from benchmarks import home as homes
from benchmarks.mail import write_maildir, write_mbox
from benchmarks.timing import (
    MB,
    Figure,
    Plan,
    Spread,
    child,
    copy_and_sync,
    interleaved,
    main,
    peak_megabytes,
    seconds,
    settled,
    share,
    spread,
)

from keystead.client.importing import import_source
from keystead.client.sources import open_source

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

MESSAGES, FEW = 10_000, 1_000
SHARE_OF_COPY, TIMES_DOVECOT, PEAK_MEGABYTES = 0.4, 10, 250
DOVECOT_RUNS = 2
"""A minute each."""
LARGER = 10


def measure(place: Path, plan: Plan) -> list[Figure]:
    maildir, mbox, large = place / "maildir", place / "mail.mbox", place / "large.mbox"
    total = write_maildir(maildir, FEW if plan.quick else MESSAGES)
    write_mbox(mbox, total)
    write_mbox(large, total * LARGER)
    with homes.bench_home(place / "home") as home:
        for number in range(plan.runs):
            homes.mailbox(home, f"maildir-{number}")
        for name in ("mbox", "large"):
            homes.mailbox(home, name)
    boxes = iter(range(plan.runs))
    peaks: list[float] = []
    reads: list[float] = []

    def keystead() -> float:
        settled(place)
        done = child(
            "benchmarks.import_mail", "--import", str(place / "home"), f"maildir-{next(boxes)}@{homes.DOMAIN}", str(maildir), "--read"
        )
        peaks.append(done["peak"])
        reads.append(total / MB / done["read"])
        return total / MB / float(done["seconds"])

    found = interleaved({"keystead": keystead, "cp -r and sync": lambda: total / MB / copy_and_sync(maildir, place / "copy")}, plan.runs)
    ours, copy = (spread(name, values) for name, values in found.items())
    figures = [
        _compared("import of a Maildir, durable when acknowledged", ours, copy, SHARE_OF_COPY, "of"),
        *(_beside_dovecot(place, maildir, total, min(plan.runs, DOVECOT_RUNS), ours, reads) if dovecot.available() else ()),
        _peak("peak memory of importing the Maildir", peaks),
    ]
    for name, file in (("an mbox", mbox), (f"an mbox {LARGER} times as large", large)):
        done = child(
            "benchmarks.import_mail", "--import", str(place / "home"), f"{file.stem.replace('mail', 'mbox')}@{homes.DOMAIN}", str(file)
        )
        figures += [
            Figure(f"import of {name}", "MB/s", spread("keystead", [file.stat().st_size / MB / done["seconds"]])),
            _peak(f"peak memory of importing {name}", [done["peak"]]),
        ]
    return figures


def _compared(what: str, ours: Spread, other: Spread, least: float, unit: str) -> Figure:
    part = share(ours, other)
    return Figure(what, "MB/s", ours, f"at least {least:g} {unit} {other.name}", part >= least, [other], f"{part:.2f} {unit} it")


def _beside_dovecot(place: Path, maildir: Path, total: int, runs: int, ours: Spread, reads: Sequence[float]) -> list[Figure]:
    imports: list[float] = []
    fetches: list[float] = []
    for number in range(runs):
        one = dovecot.make(place / f"dovecot-{number}", maildir)
        settled(place)
        imports.append(total / MB / seconds(_and_settle(one.import_source, place)))
        fetches.append(total / MB / seconds(one.read_back))
        if one.stored()[0] == 0:
            raise RuntimeError("Dovecot stored nothing encrypted: what was measured is something else")
    name = f"Dovecot {dovecot.version()} with mail_crypt"
    return [
        _compared("import of a Maildir, beside Dovecot", ours, spread(name, imports), TIMES_DOVECOT, "times"),
        Figure("reading everything back, item by item", "MB/s", spread("keystead", reads), beside=[spread(name, fetches)]),
    ]


def _and_settle(act: Callable[[], object], place: Path) -> Callable[[], object]:
    """An import is durable when it returns; Dovecot's is once the file system is synced."""

    def both() -> None:
        act()
        settled(place)

    return both


def _peak(what: str, values: Sequence[float]) -> Figure:
    peak = spread("keystead", values)
    return Figure(what, "MB", peak, f"under {PEAK_MEGABYTES} MB", peak.high < PEAK_MEGABYTES)


def _import(path: Path, upn: str, source: Path, *, read: bool) -> dict[str, float]:
    """What the child does: import, and where asked read everything back."""
    with homes.opened(path) as home:
        client = homes.admin(home)
        answer = {"seconds": seconds(lambda: import_source(client, upn, open_source(source))), "peak": peak_megabytes()}
        if read:
            owner = homes.owner(home, upn)
            answer["read"] = seconds(lambda: [homes.read(owner, upn, item) for item in homes.item_ids(owner, upn)])
    return answer


if __name__ == "__main__":
    if sys.argv[1:2] == ["--import"]:
        print(json.dumps(_import(Path(sys.argv[2]), sys.argv[3], Path(sys.argv[4]), read="--read" in sys.argv)))
    else:
        raise SystemExit(main("import_mail", measure, runs=5))
