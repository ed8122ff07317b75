"""The body of an upload on its way from the event loop to the thread that reads it, with a bounded amount in between."""

from __future__ import annotations

import threading
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio

    from keystead.core.errors import KeysteadError

HELD = 1024 * 1024
"""Bytes that lie between the two at most, beside one piece; the client waits while it is full."""


class Bridge:
    """One body. The loop calls `put`, `end` and `fail`; the thread calls `read`.

    Args:
        loop: whose `room` tells it that more fits in.
        room: an event of the loop.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, room: asyncio.Event) -> None:
        self._loop = loop
        self._room = room
        self._pieces: deque[bytes] = deque()
        self._held = 0
        self._ended = False
        self._error: KeysteadError | None = None
        self._changed = threading.Condition()

    # -- called by the loop --------------------------------------------------------------------------------------------------------

    def put(self, piece: bytes) -> None:
        """Hand over a piece; wait for `room` before the next one."""
        with self._changed:
            self._pieces.append(piece)
            self._held += len(piece)
            if self._held >= HELD:
                self._room.clear()
            self._changed.notify()

    def end(self) -> None:
        """That was all."""
        with self._changed:
            self._ended = True
            self._changed.notify()

    def fail(self, error: KeysteadError) -> None:
        """There will be no more: whoever reads gets this error, at once and from then on."""
        with self._changed:
            self._error = self._error or error
            self._pieces.clear()
            self._changed.notify()

    # -- called by the thread ------------------------------------------------------------------------------------------------------

    def read(self, n: int) -> bytes:
        """At most n bytes; none at the end.

        Raises:
            KeysteadError: what `fail` was told.
        """
        with self._changed:
            while not self._pieces and not self._ended and self._error is None:
                self._changed.wait()
            if self._error is not None:
                raise self._error
            if not self._pieces:
                return b""
            piece = self._pieces.popleft()
            if len(piece) > n:
                self._pieces.appendleft(piece[n:])
                piece = piece[:n]
            before, self._held = self._held, self._held - len(piece)
            fits = before >= HELD > self._held
        if fits:
            self._loop.call_soon_threadsafe(self._room.set)
        return piece
