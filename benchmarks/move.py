"""Moving a mailbox of 1 GiB under another policy, beside copying the same bytes, with and without a reader beside it.

The target is by the bytes of the mail, beside `cp` and `sync` of one file of the same 1 GiB. Keystead keeps mail compressed, so the same
moves are also set beside a copy of the objects as they are stored: fewer bytes, and no target.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks import home as homes
from benchmarks.mail import write_mbox
from benchmarks.timing import (
    MB,
    MIB,
    ROOT,
    Figure,
    Plan,
    bytes_below,
    copy_and_sync,
    interleaved,
    main,
    seconds,
    settled,
    share,
    shown,
    spread,
)

from keystead.client.importing import import_source
from keystead.client.sources import open_source

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from keystead.wiring import Home

SHARE_OF_COPY, SHARE_OF_READS = 0.4, 0.5
SCALE = 5.0
"""Messages of 65 KB on average, as in mailboxes that hold attachments."""
ALONE_SECONDS = 4.0


def measure(place: Path, plan: Plan) -> list[Figure]:
    mbox = place / "mail.mbox"
    count = write_mbox(mbox, (64 if plan.quick else 1024) * MIB, scale=SCALE)
    path = place / "home"
    with homes.bench_home(path) as home:
        upn = homes.mailbox(home, "alex")
        import_source(homes.admin(home), upn, open_source(mbox))
        mail = place / "mail"
        mail.mkdir()
        mbox = mbox.rename(mail / mbox.name)
        total = mbox.stat().st_size / MB
        same = place / "same"
        # Links to the objects as they are now: the moves leave these names alone.
        subprocess.run(["cp", "-rl", str(path / "objects"), str(same)], check=True)
        stored = bytes_below(same) / MB
        moves = _Moves(home, upn)
        alone: list[float] = []
        beside: list[float] = []

        def with_reader() -> float:
            alone.append(_reads(path, upn, lambda: time.sleep(ALONE_SECONDS)))
            taken: list[float] = []
            beside.append(_reads(path, upn, lambda: taken.append(moves.next())))
            return total / taken[0]

        found = interleaved(
            {
                "copy": lambda: total / copy_and_sync(mail, place / "copy"),
                "move": lambda: total / moves.next(),
                "stored": lambda: stored / copy_and_sync(same, place / "copy"),
                "beside": with_reader,
            },
            plan.runs,
        )
    copy, move, shared = (
        spread(name, found[key]) for name, key in (("cp -r and sync", "copy"), ("keystead", "move"), ("keystead", "beside"))
    )
    of_stored = spread("keystead", [rate * stored / total for rate in found["move"]])
    copy_stored = spread("cp -r and sync of the objects", found["stored"])
    readers, kept = spread("keystead", beside), spread("the same reader alone", alone)
    part, reads = share(move, copy), share(readers, kept)
    what = f"move of a mailbox of {count:,} messages, {shown(total)} MB"
    return [
        Figure(what, "MB/s", move, f"at least {SHARE_OF_COPY:g} of {copy.name}", part >= SHARE_OF_COPY, [copy], f"{part:.2f} of it"),
        Figure(f"the same moves by the {shown(stored)} MB that are stored", "MB/s", of_stored, beside=[copy_stored]),
        Figure("the same move with a reader beside it", "MB/s", shared),
        Figure(
            "a reader beside the move",
            "reads/s",
            readers,
            f"at least {SHARE_OF_READS:g} of its rate alone",
            reads >= SHARE_OF_READS,
            [kept],
            f"{reads:.2f} of it",
        ),
    ]


class _Moves:
    """Moves one mailbox to and fro between the two policies."""

    def __init__(self, home: Home, upn: str) -> None:
        self._home = home
        self._upn = upn
        self._number = 0

    def next(self) -> float:
        """Assign the other policy and wait until the move is done; seconds."""
        settled(self._home.path)
        policy = homes.POLICIES[self._number % 2]
        self._number += 1

        def move() -> None:
            job = homes.admin(self._home).wait(homes.assign(self._home, policy, self._upn))
            if job.state != "done":
                raise RuntimeError(f"the move ended as {job.state}: {job.error}")

        return seconds(move)


def _reads(path: Path, upn: str, act: Callable[[], object]) -> float:
    """Reads a second of a process that reads items at random while `act` runs."""
    with _reader(path, upn) as process:
        act()
        assert process.stdin is not None
        process.stdin.close()
        assert process.stdout is not None
        return float(json.loads(process.stdout.read()))


@contextmanager
def _reader(path: Path, upn: str) -> Iterator[subprocess.Popen[str]]:
    """The reader, once its keyring is warm."""
    command = [sys.executable, "-m", "benchmarks.move", "--reader", str(path), upn]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        if process.stdout.readline() != "ready\n":
            raise RuntimeError("the reader did not start")
        yield process


def _read_until_told(path: Path, upn: str) -> float:
    """What the reader does until its input ends."""
    stopped = threading.Event()

    def listen() -> None:
        os.read(0, 1)
        stopped.set()

    threading.Thread(target=listen, daemon=True).start()
    with homes.opened(path) as home:
        client = homes.owner(home, upn)
        items = homes.item_ids(client, upn)
        random.Random(1).shuffle(items)
        homes.read(client, upn, items[0])
        print("ready", flush=True)
        count, start = 0, time.perf_counter()
        while not stopped.is_set():
            homes.read(client, upn, items[count % len(items)])
            count += 1
        return count / (time.perf_counter() - start)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--reader"]:
        print(json.dumps(_read_until_told(Path(sys.argv[2]), sys.argv[3])))
    else:
        raise SystemExit(main("move", measure, runs=3))
