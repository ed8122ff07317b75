"""Clocks: the system's, and the one of dev homes, which can be moved forward in all processes at once."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

from keystead.adapters.files import write_durably

if TYPE_CHECKING:
    from pathlib import Path


class SystemClock:
    """The system's wall clock."""

    def now(self) -> int:
        return time.time_ns() // 1_000_000

    def sleep(self, milliseconds: int) -> None:
        time.sleep(milliseconds / 1_000)


class DevClock(SystemClock):
    """The wall clock plus an offset kept in a small file, which every process of the home looks at again when a millisecond has passed."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._looked = -1
        self._seen = -1
        self._offset = 0

    def now(self) -> int:
        now = time.time_ns() // 1_000_000
        if now != self._looked:  # a call asks several times, and looking costs more than all else that is done here
            self._look()
            self._looked = now
        return now + self._offset

    def _look(self) -> None:
        if not os.access(self._path, os.F_OK):  # the usual case: an exception for it would cost seven times as much. It never goes again
            self._offset = 0
            return
        changed = self._path.stat().st_mtime_ns
        if changed != self._seen:
            self._offset = int(self._path.read_text())
            self._seen = changed

    def advance(self, milliseconds: int) -> int:
        """Move forward; returns the new time. Times already written stay as they are."""
        self._look()
        write_durably(self._path, str(self._offset + milliseconds).encode())
        self._look()
        return self.now()
