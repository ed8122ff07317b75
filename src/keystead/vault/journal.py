"""The log of cryptographic calls, committed together: no answer leaves before the record of its call is durable (R-067).

A call hands its record over and waits. One thread writes what has gathered in one transaction and then lets all of its calls go on:

- With no other call under way, or waiting for its turn in a front end (`coming`), it starts at once; else it leaves `SPACING_MS` between
  the beginnings of two commits, so that calls that come close together share one. No record waits longer than that for its commit to begin,
  except for the commit before it.
- When the commit fails, every call in it fails, whatever the database may have kept: a record of a call that got no answer does no harm,
  an answer without a record does.
- A crash between hand-over and commit loses records of calls that got no answer, and that changed nothing.

The thread starts with the first record, and ends by itself when none has come for a while, or with `close`.

A front end that has many calls open must not keep a thread waiting for each. It runs a call inside `gathering`, where nothing waits; what
it gets back at the end it may send only when `Gathered.when_durable` says so.
"""

from __future__ import annotations

import os
import threading
import weakref
from time import monotonic
from typing import TYPE_CHECKING

from keystead.core.errors import KeysteadError, Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable

    from keystead.ports.vault_store import LogRecord, VaultStore

    Told = Callable[[BaseException | None], None]
    _Entry = tuple[LogRecord, Told]

SPACING_MS = 9.5
"""Between the beginnings of two commits while calls are under way. A commit costs a call's time whatever is in it: this shares it between
some fifteen calls, within the 10 ms that a record may wait (ADR 25)."""
IDLE_SECONDS = 5.0
"""How long the thread waits for one more record before it ends."""
CLOSE_SECONDS = 60.0
"""How long `close` waits for the last commit: longer than a database may keep us waiting for its write lock."""


class Gathered:
    """What a block of `Journal.gathering` handed over; belongs to one call."""

    __slots__ = ("_error", "_lock", "_open", "_then")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open = 0
        self._error: BaseException | None = None
        self._then: Told | None = None

    def when_durable(self, then: Told) -> None:
        """Say how it went, once, when everything handed over is durable: None, or why it is not. From any thread, or at once.

        `then` must not raise, and must return soon: everybody else's answers wait behind it.
        """
        with self._lock:
            self._then = then
            done = not self._open
        if done:
            then(self._error)

    def _add(self) -> None:
        with self._lock:
            self._open += 1

    def _tell(self, error: BaseException | None) -> None:
        with self._lock:
            self._open -= 1
            self._error = self._error or error
            then = None if self._open else self._then
        if then is not None:
            then(self._error)


class _Call:
    """See `Journal.call`. A class: every call enters it, and what the standard library makes of a generator takes four times as long."""

    __slots__ = ("_journal",)

    def __init__(self, journal: Journal) -> None:
        self._journal = journal

    def __enter__(self) -> None:
        self._journal._begun()  # noqa: SLF001 - the two classes are one mechanism

    def __exit__(self, *_error: object) -> None:
        self._journal._ended()  # noqa: SLF001 - as above


class _Gathering:
    """See `Journal.gathering`."""

    __slots__ = ("_current",)

    def __init__(self, current: threading.local) -> None:
        self._current = current

    def __enter__(self) -> Gathered:
        gathered = self._current.gathered = Gathered()
        return gathered

    def __exit__(self, *_error: object) -> None:
        self._current.gathered = None


class Journal:
    """Takes records from any number of threads. A process that was forked off starts with an empty one: its parent's records are not its."""

    def __init__(self, store: VaultStore) -> None:
        self._store = store
        self._current = threading.local()
        self._closed = False
        self._lock = threading.Lock()
        self._work = threading.Condition(self._lock)
        self._waiting: list[_Entry] = []
        self._under_way = 0
        self._due = 0.0
        self._idle = False
        self._thread: threading.Thread | None = None
        self.coming: Callable[[], bool] = lambda: False
        """Whether calls wait for their turn, as a front end says; asked under the journal's lock, from any thread."""
        _JOURNALS.add(self)

    def __repr__(self) -> str:
        return f"Journal({len(self._waiting)} waiting)"

    def call(self) -> _Call:
        """A call that will hand over a record is under way in a `with` block: a commit is worth waiting for it a little."""
        return _Call(self)

    def gathering(self) -> _Gathering:
        """In a `with` block this thread hands records over without waiting; nothing of what comes of it may leave before they are durable."""
        return _Gathering(self._current)

    def _begun(self) -> None:
        with self._lock:
            self._under_way += 1

    def _ended(self) -> None:
        with self._lock:
            self._under_way -= 1
            if self._waiting and self._alone():
                self._work.notify()

    def keep(self, record: LogRecord) -> None:
        """Return when a record is durable; inside `gathering` at once.

        Raises:
            Unavailable: it is not, or nobody knows: the call it tells of must give no answer.
        """
        gathered = self._gathered()
        if gathered is not None:
            gathered._add()  # noqa: SLF001 - the two classes are one mechanism
            self._hand_over(record, gathered._tell)  # noqa: SLF001
            return
        told = threading.Event()
        outcome: list[BaseException | None] = []

        def tell(error: BaseException | None) -> None:
            outcome.append(error)
            told.set()

        self._hand_over(record, tell)
        told.wait()
        if outcome[0] is not None:
            raise outcome[0]

    def _gathered(self) -> Gathered | None:
        return getattr(self._current, "gathered", None)

    def close(self) -> None:
        """Commit what was handed over, and take no more."""
        with self._lock:
            self._closed = True
            thread = self._thread
            self._work.notify()
        if thread is not None and thread is not threading.current_thread():
            thread.join(CLOSE_SECONDS)

    def _hand_over(self, record: LogRecord, tell: Told) -> None:
        with self._lock:
            refused = self._closed
            if not refused:
                self._waiting.append((record, tell))
                if self._thread is None:
                    self._thread = threading.Thread(target=self._commit_all, name="vault-journal", daemon=True)
                    self._thread.start()
                elif self._idle or self._alone():
                    self._work.notify()
        if refused:
            tell(Unavailable("vault_closing", "the vault is being stopped", "try again when it runs"))

    def _alone(self) -> bool:
        return not self._under_way and not self.coming()

    # -- in the thread -----------------------------------------------------------------------------------------------------------------

    def _commit_all(self) -> None:
        while batch := self._next():
            error = self._commit([record for record, _tell in batch])
            for _record, tell in batch:
                tell(None if error is None else _own(error))

    def _next(self) -> list[_Entry]:
        """What has gathered when the next commit is due; nothing when the thread is to end."""
        with self._lock:
            while not self._waiting:
                if self._closed or self._nothing_comes():
                    self._thread = None
                    return []
            while not self._alone() and not self._closed and (left := self._due - monotonic()) > 0:
                self._work.wait(left)
            self._due = monotonic() + SPACING_MS / 1_000
            batch, self._waiting = self._waiting, []
            return batch

    def _nothing_comes(self) -> bool:
        """One may have come just as the time was up."""
        self._idle = True
        try:
            return not self._work.wait(IDLE_SECONDS) and not self._waiting
        finally:
            self._idle = False

    def _commit(self, records: list[LogRecord]) -> BaseException | None:
        try:
            with self._store.appending() as tx:
                tx.add_logs(records)
        except BaseException as error:  # noqa: BLE001 - whatever it is, it is raised where the call waits
            return error
        return None

    def _renew(self) -> None:
        """As new, in a process that was forked off: the thread is not there, and whoever held the lock is not either."""
        self._lock = threading.Lock()
        self._work = threading.Condition(self._lock)
        self._waiting, self._under_way, self._idle, self._thread = [], 0, False, None


def _own(error: BaseException) -> BaseException:
    """An exception for each call of a batch: one that several threads raise at a time would mix their tracebacks."""
    if not isinstance(error, Exception):
        return error
    if isinstance(error, Unavailable):
        own: KeysteadError = Unavailable(error.code, error.detail, error.mend)
    else:
        own = Unavailable(
            "log_not_written",
            "the vault could not write its log, without which it gives no answer",
            "look at the vault's database; then try again",
        )
    own.__cause__ = error
    return own


_JOURNALS: weakref.WeakSet[Journal] = weakref.WeakSet()


def _renew_all() -> None:
    for journal in _JOURNALS:
        journal._renew()  # noqa: SLF001 - of this module


os.register_at_fork(after_in_child=_renew_all)
