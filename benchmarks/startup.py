"""Whole processes: the help, and reading one item of a home on a disk that is warm."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from benchmarks import home as homes
from benchmarks.timing import Figure, Plan, interleaved, main, seconds, spread

from keystead.api.types import mailboxes as m

HELP_SECONDS, READ_SECONDS = 0.3, 0.6


def measure(place: Path, plan: Plan) -> list[Figure]:
    path = place / "home"
    with homes.bench_home(path) as home:
        upn = homes.mailbox(home, "alex")
        homes.admin(home).wait(homes.assign(home, homes.POLICIES[0], upn))
        data = b"Subject: bench\r\n\r\n" + b"a line of text\r\n" * 1_000
        homes.admin(home).call("mailbox.import", m.ImportBatch(upn=upn, items=[m.ImportItem(position=1, ordinal=1, folder="", data=data)]))
        item = homes.item_ids(homes.owner(home, upn), upn)[0]
    read = ("--home", str(path), "--as", upn, "mailbox", "read", upn, item)
    if _run(*read) != data:
        raise RuntimeError("the command read something else than what was stored")
    found = interleaved(
        {"help": lambda: seconds(lambda: _run("--help")), "read": lambda: seconds(lambda: _run(*read)), "python": lambda: seconds(_python)},
        plan.runs,
    )
    helped, reading, python = (
        spread(name, found[key]) for name, key in (("keystead", "help"), ("keystead", "read"), ("python -c pass", "python"))
    )
    return [
        Figure("keystead --help, whole process", "s", helped, f"under {HELP_SECONDS} s", helped.median < HELP_SECONDS, [python]),
        Figure("keystead mailbox read, whole process, warm disk", "s", reading, f"under {READ_SECONDS} s", reading.median < READ_SECONDS),
    ]


def _run(*arguments: str) -> bytes:
    return subprocess.run([str(Path(sys.executable).with_name("keystead")), *arguments], check=True, stdout=subprocess.PIPE).stdout


def _python() -> None:
    subprocess.run([sys.executable, "-c", "pass"], check=True)


if __name__ == "__main__":
    raise SystemExit(main("startup", measure, runs=15))
