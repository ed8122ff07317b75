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

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

START_SECONDS = 60


@dataclass
class Server:
    """A server that answers.

    Attributes:
        address: `http://HOST:PORT`.
        start_seconds: from starting the program to its first answer.
    """

    address: str
    start_seconds: float
    process: subprocess.Popen[bytes]

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


@contextmanager
def server(home: Path, *, processes: int = 1, cores: Sequence[int] = (), jobs: int = 0) -> Iterator[Server]:
    """Serve a home, or a member of a fleet, until the block ends.

    Args:
        home: its folder.
        processes: how many share the address.
        cores: which cores all of them stay on; none: any.
        jobs: how many jobs each runs beside its calls.
    """
    ready = home / "run" / "bench-address"
    program = [str(Path(sys.executable).with_name("keystead")), "--home", str(home), "serve", "--listen", "127.0.0.1:0"]
    pinned = ["taskset", "-c", ",".join(map(str, cores))] if cores else []
    begin = time.perf_counter()
    process = subprocess.Popen(
        [*pinned, *program, "--processes", str(processes), "--ready-file", str(ready)],
        stdout=subprocess.DEVNULL,
        env=os.environ | {"KEYSTEAD_SERVER_JOBS": str(jobs), "KEYSTEAD_LOG_LEVEL": "warning"},
    )
    try:
        yield _answering(process, ready, begin)
    finally:
        process.terminate()
        process.wait(START_SECONDS)


def _answering(process: subprocess.Popen[bytes], ready: Path, begin: float) -> Server:
    while not (ready.exists() and ready.stat().st_size):
        if process.poll() is not None:
            raise RuntimeError(f"serve ended with {process.returncode} before it was ready")
        if time.perf_counter() - begin > START_SECONDS:
            raise RuntimeError("serve is not ready")
        time.sleep(0.002)
    server = Server(ready.read_text(encoding="ascii").strip(), 0.0, process)
    server.get("/healthz")
    server.start_seconds = time.perf_counter() - begin
    return server


def resident_bytes(pid: int) -> int:
    """Memory of a process that is in the machine's."""
    line = next(line for line in Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines() if line.startswith("VmRSS:"))
    return int(line.split()[1]) * 1024


def _children(pid: int) -> list[int]:
    found = [int(name) for name in Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()]
    return found + [below for child in found for below in _children(child)]
