"""Waiting in tests for what another thread or process does: nothing else tells of it, so it is looked at again and again."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

SECONDS = 60
"""After which it is not coming."""


def until(what: Callable[[], object]) -> None:
    """Wait for something to hold."""
    end = time.monotonic() + SECONDS
    while not what():
        assert time.monotonic() < end, "it does not come"
        time.sleep(0.005)
