"""Turns: how many of something one person, or one tenant, has at once, so that nobody keeps all others waiting."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


class Turns:
    """Belongs to one event loop. Who has as many as there may be waits for one of their own to end."""

    def __init__(self) -> None:
        self._taken: dict[str, tuple[asyncio.Semaphore, int]] = {}

    @asynccontextmanager
    async def turn(self, who: str, most: int) -> AsyncIterator[None]:
        """One of `most` turns, for the length of the block."""
        turns, users = self._taken.get(who, (None, 0))
        turns = turns or asyncio.Semaphore(most)
        self._taken[who] = turns, users + 1
        try:
            async with turns:
                yield
        finally:
            users = self._taken[who][1] - 1
            if users:
                self._taken[who] = turns, users
            else:
                del self._taken[who]
