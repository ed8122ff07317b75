"""Threads that run calls for the event loop: a hand-over that costs a few microseconds each way.

The standard library's executor takes some 60 microseconds a call under load, a fifth of a read; and it wakes the loop once for each
result. Here results are collected, and the loop is woken once for all that are there.
"""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    Job = tuple[asyncio.Future[Any], Callable[..., Any], tuple[Any, ...]]


class Threads:
    """A fixed number of threads, started when first needed. They are daemons: a call that hangs must not keep the process alive.

    Args:
        loop: where results are delivered.
        size: how many.
        name: of the threads.
        unwanted: told of results nobody waits for any more, so that what they hold can be let go.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, size: int, name: str, unwanted: Callable[[Any], None] = lambda _result: None
    ) -> None:
        self._loop = loop
        self._size = size
        self._name = name
        self._unwanted = unwanted
        self._queue: SimpleQueue[Job | None] = SimpleQueue()
        self._done: deque[tuple[asyncio.Future[Any], Any, BaseException | None]] = deque()
        self._woken = False
        self._busy = 0
        self._started = 0

    def submit(self, function: Callable[..., Any], *arguments: Any) -> asyncio.Future[Any]:  # noqa: ANN401 - carries any call
        """Run a function in a thread. A future that is done before its turn comes (cancelled, timed out) is not run at all."""
        future = self._loop.create_future()
        self._busy += 1
        if self._started < min(self._busy, self._size):
            self._started += 1
            threading.Thread(target=self._work, name=f"{self._name}-{self._started}", daemon=True).start()
        self._queue.put((future, function, arguments))
        return future

    @property
    def busy(self) -> int:
        """Calls that run or wait for a thread."""
        return self._busy

    def close(self) -> None:
        """Let the threads end when they have nothing left to do."""
        for _ in range(self._started):
            self._queue.put(None)

    def _work(self) -> None:
        while (job := self._queue.get()) is not None:
            future, function, arguments = job
            result: Any = None
            error: BaseException | None = None
            if not future.done():
                try:
                    result = function(*arguments)
                except BaseException as raised:  # noqa: BLE001 - it is raised again where the result is waited for
                    error = raised
            self._done.append((future, result, error))
            del job, future, function, arguments, result, error  # nothing of a call is kept while waiting for the next one
            if not self._woken:
                self._woken = True
                with contextlib.suppress(RuntimeError):  # the loop is closed: the process ends, and nobody waits any more
                    self._loop.call_soon_threadsafe(self._deliver)

    def _deliver(self) -> None:
        # First the flag, then the queue: a result appended from here on either is seen below or wakes the loop again.
        self._woken = False
        while self._done:
            future, result, error = self._done.popleft()
            self._busy -= 1
            if future.done():
                if result is not None:
                    self._unwanted(result)
            elif error is not None:
                future.set_exception(error)
            else:
                future.set_result(result)
