"""Clocks: the system's, and the one of dev homes, which can be moved forward in all processes at once."""

from __future__ import annotations

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
    """The wall clock plus an offset kept in a small file, which every process of the home looks at before each answer."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen = -1
        self._offset = 0

    def now(self) -> int:
        try:
            changed = self._path.stat().st_mtime_ns
        except FileNotFoundError:
            return super().now()
        if changed != self._seen:
            self._offset = int(self._path.read_text())
            self._seen = changed
        return super().now() + self._offset

    def advance(self, milliseconds: int) -> int:
        """Move forward; returns the new time. Times already written stay as they are."""
        self.now()
        write_durably(self._path, str(self._offset + milliseconds).encode())
        return self.now()
