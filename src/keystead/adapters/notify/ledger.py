"""The count of what the database did not take, as a file of the run folder: it outlives the process, which may be a single command.

One line for each: time in milliseconds, a space, the code. Lines are appended without a lock; whoever takes them renames the file first,
under the lock of a second file, so no two processes take the same.
"""

from __future__ import annotations

import fcntl
import os
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

from keystead.ports.notify import Unwritten

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LARGEST = 64 * 1024
"""Bytes; what comes later is not counted: thousands say as much as more."""


class FileLedger:
    """Implements `Ledger`. What the disk does not take either is kept in memory, for as long as the process lives.

    Args:
        path: the file; its folder exists. Beside it lie `.taken` and `.lock`.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._taken = path.with_suffix(".taken")
        self._lock_file = path.with_suffix(".lock")
        self._lock = threading.Lock()
        self._kept: Unwritten | None = None

    def note(self, now: int, code: str) -> None:
        """One more."""
        try:
            descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                if os.fstat(descriptor).st_size < LARGEST:
                    line = f"{now} {code}\n".encode()
                    if os.write(descriptor, line) != len(line):
                        raise OSError
            finally:
                os.close(descriptor)
        except OSError:
            with self._lock:
                self._kept = Unwritten(1, now, now, code).plus(self._kept)

    @contextmanager
    def taking(self) -> Iterator[Unwritten | None]:
        """What was counted by all processes of this machine. A crash inside leaves the renamed file: the next one takes it again."""
        if not self._kept and not self._path.exists() and not self._taken.exists():
            yield None  # as nearly always
            return
        with self._lock_file.open("ab") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield None
                return
            with self._lock:
                kept, self._kept = self._kept, None
            try:
                yield self._read(kept)
            except BaseException:
                with self._lock:
                    self._kept = kept.plus(self._kept) if kept else self._kept
                raise
            self._taken.unlink(missing_ok=True)

    def _read(self, kept: Unwritten | None) -> Unwritten | None:
        """The lines of what was taken, now or by somebody who died at it, and what this process kept."""
        if not self._taken.exists() and self._path.exists():
            self._path.rename(self._taken)
        found = kept
        lines = self._taken.read_text("ascii", "replace").splitlines() if self._taken.exists() else []
        for line in lines:
            time, _, code = line.partition(" ")
            if time.isascii() and time.isdecimal():  # a line that was cut off by a full disk counts for nothing
                found = Unwritten(1, int(time), int(time), code[:64]).plus(found)
        return found
