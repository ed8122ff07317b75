"""Time, passed in."""

from __future__ import annotations

from typing import Protocol

SECOND = 1_000
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE
DAY = 24 * HOUR
"""All times inside Keystead are integers: milliseconds since 1970-01-01 UTC; durations are milliseconds too."""


class Clock(Protocol):
    """A clock. Deadlines are computed when read, so a clock that is moved forward needs no job to run first."""

    def now(self) -> int:
        """Milliseconds since 1970-01-01 UTC."""
        ...

    def sleep(self, milliseconds: int) -> None:
        """Return after that long."""
        ...
