"""`keystead serve` as a process of its own, on loopback, on a port the system gives."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.timing import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

START_SECONDS = 60


@dataclass
class Server:
    """A server that answers.

    Attributes:
        address: `http://HOST:PORT`.
        begin: when the program was started.
        start_seconds: from then to its first answer.
    """

    address: str
    process: subprocess.Popen[bytes]
    begin: float
    start_seconds: float = 0.0

    def get(self, path: str) -> bytes:
        with urllib.request.urlopen(self.address + path, timeout=10) as answer:  # noqa: S310 - our own loopback address
            body: bytes = answer.read()
            return body

    def pids(self) -> list[int]:
        """Of all its processes."""
        return [self.process.pid, *_children(self.process.pid)]

    def memory_bytes(self) -> int:
        """What all its processes hold; pages they share count in each."""
        return sum(resident_bytes(pid) for pid in self.pids())

    def processor_seconds(self) -> float:
        """Time its processes have had on any core so far."""
        return sum(_processor_seconds(pid) for pid in self.pids())


@contextmanager
def server(home: Path, *, processes: int = 1, cores: Sequence[int] = (), jobs: int = 0, webdav: bool = False) -> Iterator[Server]:
    """Serve a home, or a member of a fleet, until the block ends.

    Args:
        home: its folder.
        processes: how many share the address.
        cores: which cores all of them stay on; none: any.
        jobs: how many jobs each runs beside its calls.
        webdav: serve that too; `run/server.json` says where.
    """
    program = [str(Path(sys.executable).with_name("keystead")), "--home", str(home), "serve", "--listen", "127.0.0.1:0"]
    program += ["--webdav", "127.0.0.1:0"] if webdav else []
    settings = {"KEYSTEAD_SERVER_JOBS": str(jobs), "KEYSTEAD_LOG_LEVEL": "warning"}
    with started([*program, "--processes", str(processes), "--ready-file"], home / "run" / "bench-address", cores, settings) as server:
        server.get("/healthz")
        server.start_seconds = time.perf_counter() - server.begin
        yield server


@contextmanager
def started(program: Sequence[str], ready: Path, cores: Sequence[int] = (), settings: Mapping[str, str] | None = None) -> Iterator[Server]:
    """Run a program that writes its address to the file named by its last argument, which is added, until the block ends."""
    pinned = ["taskset", "-c", ",".join(map(str, cores))] if cores else []
    begin = time.perf_counter()
    log = ready.with_suffix(".log")
    with log.open("wb") as out:
        process = subprocess.Popen(
            [*pinned, *program, str(ready)], stdout=out, stderr=out, env={**os.environ, **(settings or {})}, cwd=ROOT
        )
    try:
        while not (ready.exists() and ready.stat().st_size):
            if process.poll() is not None:
                raise RuntimeError(f"{program[0]} ended with {process.returncode} before it was ready:\n{log.read_text()}")
            if time.perf_counter() - begin > START_SECONDS:
                raise RuntimeError(f"{program[0]} is not ready:\n{log.read_text()}")
            time.sleep(0.002)
        yield Server(ready.read_text(encoding="ascii").strip(), process, begin)
    finally:
        process.terminate()
        process.wait(START_SECONDS)
        ready.unlink(missing_ok=True)


def resident_bytes(pid: int) -> int:
    """Memory of a process that is in the machine's."""
    line = next(line for line in Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines() if line.startswith("VmRSS:"))
    return int(line.split()[1]) * 1024


def _processor_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")  # utime and stime, proc(5)


def _children(pid: int) -> list[int]:
    found = [int(name) for name in Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()]
    return found + [below for child in found for below in _children(child)]
