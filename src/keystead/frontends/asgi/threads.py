"""Threads that run calls for the event loop: a hand-over that costs a few microseconds each way, and no more threads than pay.

The standard library's executor takes some 60 microseconds a call under load, a fifth of a read; and it wakes the loop once for each
result. Here results are collected, and the loop is woken once for all that are there.

Calls that compute get in one another's way: sixteen threads at Python's one lock spend twice the time on a read that three do. Calls that
wait (for a vault, a database over the network) need threads to wait in. So there are three threads (one computes, one is just letting go
of the lock, one waits for the disk; with two it is six in a hundred less), and more only while calls queue and the process is not computing all the
time; a thread that finds nothing to do ends, and one of too many in a process that computes all the time, down to the three.
"""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from functools import partial
from pathlib import Path
from queue import Empty, SimpleQueue
from time import monotonic, process_time
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    Job = tuple["Waiting", Callable[..., Any], tuple[Any, ...]]

KEPT = 3
"""Threads that stay."""
LOOK = 0.02
"""Seconds between two looks at whether one more thread would pay, while calls queue. Several of the system's time slices: in a shorter time a
process that others keep from computing looks like one that waits."""
BUSY_LOOK = 5 * LOOK
"""The same after a look that found the process computing: a look costs as much as a small call, and it mostly goes on like that."""
COMPUTING = 0.85
"""From which part of the time on the process counts as computing, or as kept from it by others: more threads would only take turns."""


class Later:
    """A result that may not be delivered before something else is done; no thread waits for that.

    Args:
        result: of the call.
        when: is handed a function, which it calls once, from any thread: with None when that is done, or with why it is not.
    """

    __slots__ = ("result", "when")

    def __init__(self, result: object, when: Callable[[Callable[[BaseException | None], None]], None]) -> None:
        self.result = result
        self.when = when


class Waiting(Protocol):
    """What waits for a call: a future, or something else that has its methods. They must not raise."""

    def done(self) -> bool:
        """Whether it does not wait any more. From any thread."""
        ...

    def set_result(self, result: Any, /) -> None:  # noqa: ANN401 - carries any result
        """The call is done."""
        ...

    def set_exception(self, error: BaseException, /) -> None:
        """The call failed."""
        ...


class Threads:
    """Up to a number of threads, started when needed. They are daemons: a call that hangs must not keep the process alive.

    Args:
        loop: where results are delivered, and the only thread that may call `submit` and `close`.
        size: how many at most.
        name: of the threads.
        unwanted: told of results nobody waits for any more, so that what they hold can be let go.
        kept: threads that stay.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        size: int,
        name: str,
        unwanted: Callable[[Any], None] = lambda _result: None,
        *,
        kept: int = KEPT,
    ) -> None:
        self._loop = loop
        self._size = size
        self._name = name
        self._unwanted = unwanted
        self._kept = kept
        self._too_many = False
        self._queue: SimpleQueue[Job | None] = SimpleQueue()
        self._done: deque[tuple[Waiting, Any, BaseException | None]] = deque()
        self._woken = False
        self._busy = 0
        self._alive = 0
        self._counting = threading.Lock()
        self._looking = False
        self._looked = (0.0, 0.0)
        self._native = {threading.get_native_id(): None}

    def submit(self, function: Callable[..., Any], *arguments: Any) -> asyncio.Future[Any]:  # noqa: ANN401 - carries any call
        """Run a function in a thread; the result of a `Later` comes when its time has come.

        A future that is done before its turn comes (cancelled, timed out) is not run at all.
        """
        future = self._loop.create_future()
        self.hand_over(future, function, *arguments)
        return future

    def hand_over(self, to: Waiting, function: Callable[..., Any], *arguments: Any) -> None:  # noqa: ANN401 - as above
        """The same for something else that waits for the result: it is told in the event loop, without a task that wakes up for it."""
        self._busy += 1
        self._queue.put((to, function, arguments))
        if self._alive < min(self._busy, self._size, self._kept):
            self._start()
        elif self._busy > self._alive and not self._looking and self._alive < self._size:
            self._looking = True
            self._looked = (monotonic(), self._wanted())
            self._loop.call_later(LOOK, self._look)

    @property
    def busy(self) -> int:
        """Calls that run or wait for a thread."""
        return self._busy

    @property
    def waiting(self) -> bool:
        """Whether calls wait for a thread. From any thread."""
        return not self._queue.empty()

    def close(self) -> None:
        """Let the threads end when they have nothing left to do."""
        with self._counting:
            for _ in range(self._alive):
                self._queue.put(None)

    def _start(self) -> None:
        with self._counting:
            self._alive += 1
        threading.Thread(target=self._work, name=self._name, daemon=True).start()

    def _look(self) -> None:
        """Whether calls still queue although the process does not even want to compute: then one thread more."""
        (wall, wanted), self._looked = self._looked, (monotonic(), self._wanted())
        self._looking = not self._queue.empty() and self._alive < self._size
        if not self._looking:
            return
        self._too_many = self._looked[1] - wanted >= COMPUTING * (self._looked[0] - wall)
        if not self._too_many and not self._one_is_kept_waiting():
            self._start()
        self._loop.call_later(BUSY_LOOK if self._too_many else LOOK, self._look)

    def _one_is_kept_waiting(self) -> bool:
        """Whether a thread could compute if it had a core: how long it waits for one is told only when it has got it."""
        own = threading.get_native_id()
        for native in list(self._native):
            with contextlib.suppress(OSError, IndexError):  # as below
                if native != own and Path(f"/proc/self/task/{native}/stat").read_bytes().rpartition(b")")[2].split()[0] == b"R":  # proc(5)
                    return True
        return False

    def _wanted(self) -> float:
        """Seconds this process has computed, and this thread and those that run calls have waited for a core that others had."""
        delayed = 0
        for native in list(self._native):
            with contextlib.suppress(OSError, IndexError, ValueError):  # it has just ended; or another system, which does not tell
                delayed += int(Path(f"/proc/self/task/{native}/schedstat").read_bytes().split()[1])  # nanoseconds, proc(5)
        return process_time() + delayed / 1e9

    # -- in a thread -------------------------------------------------------------------------------------------------------------------

    def _work(self) -> None:
        native = threading.get_native_id()
        self._native[native] = None
        while (job := self._next()) is not None:
            future, function, arguments = job
            result: Any = None
            error: BaseException | None = None
            if not future.done():
                try:
                    result = function(*arguments)
                except BaseException as raised:  # noqa: BLE001 - it is raised again where the result is waited for
                    error = raised
            if isinstance(result, Later):
                result.when(partial(self._finished, future, result.result))
            else:
                self._finished(future, result, error)
            del job, future, function, arguments, result, error  # nothing of a call is kept while waiting for the next one
        del self._native[native]

    def _finished(self, future: Waiting, result: object, error: BaseException | None) -> None:
        """Have the loop deliver what came of a call; woken once for all that is there."""
        self._done.append((future, None if error is not None else result, error))
        if not self._woken:
            self._woken = True
            with contextlib.suppress(RuntimeError):  # the loop is closed: the process ends, and nobody waits any more
                self._loop.call_soon_threadsafe(self._deliver)

    def _next(self) -> Job | None:
        """The next call; None for a thread that is not needed any more."""
        if self._too_many and self._may_end():
            return None
        try:
            return self._queue.get_nowait()
        except Empty:
            if self._may_end():
                return None
        return self._queue.get()

    def _may_end(self) -> bool:
        with self._counting:
            more = self._alive > self._kept
            self._alive -= more
        return more

    # -- in the loop -------------------------------------------------------------------------------------------------------------------

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
