"""The log of cryptographic calls: committed together, and before any answer leaves (R-067)."""

from __future__ import annotations

import os
import signal
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from keystead.core.errors import IntegrityFailure, Unavailable
from keystead.ports.vault_store import LogRecord
from keystead.vault.journal import Journal
from support.waiting import until

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

WAIT = 30
"""Seconds until a test that hangs fails."""


def record(number: int) -> LogRecord:
    return LogRecord(*[0 if name in {"duration_ms", "http_status_code"} else "" for name in LogRecord._fields])._replace(time=number)  # type: ignore[arg-type]  # each is what its field says


def on(store: Any) -> Journal:
    """A journal on a store that can do only what a journal needs."""
    return Journal(store)


class Store:
    """Takes records in memory. `gate`: a commit waits for it; `fails`: what a commit raises."""

    def __init__(self) -> None:
        self.commits: list[list[int]] = []
        self.entered = threading.Semaphore(0)
        self.gate = threading.Event()
        self.gate.set()
        self.fails: BaseException | None = None
        self._taken: list[int] = []

    def reading(self) -> Any:
        raise AssertionError("a journal only writes")

    @contextmanager
    def appending(self) -> Iterator[Any]:
        self._taken = []
        yield self
        self.entered.release()
        assert self.gate.wait(WAIT)
        if self.fails is not None:
            raise self.fails
        self.commits.append(self._taken)

    def add_logs(self, records: Sequence[LogRecord]) -> None:
        self._taken = [one.time for one in records]


@pytest.fixture
def store() -> Store:
    return Store()


@pytest.fixture
def journal(store: Store) -> Iterator[Journal]:
    made = on(store)
    yield made
    store.gate.set()
    made.close()


class Call:
    """`keep` in a thread of its own."""

    def __init__(self, journal: Journal, number: int) -> None:
        self.error: BaseException | None = None
        self.answered = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(journal, number))
        self._thread.start()

    def _run(self, journal: Journal, number: int) -> None:
        try:
            journal.keep(record(number))
        except BaseException as error:  # noqa: BLE001 - the test looks at it
            self.error = error
        self.answered.set()

    def end(self) -> BaseException | None:
        self._thread.join(WAIT)
        assert self.answered.is_set()
        return self.error


def journals() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "vault-journal"]


def test_no_answer_before_the_record_is_durable(journal: Journal, store: Store) -> None:
    """R-067."""
    store.gate.clear()
    call = Call(journal, 1)
    assert store.entered.acquire(timeout=WAIT)
    assert not call.answered.is_set()
    assert store.commits == []
    store.gate.set()
    assert call.end() is None
    assert store.commits == [[1]]


def test_what_comes_during_a_commit_shares_the_next(journal: Journal, store: Store) -> None:
    store.gate.clear()
    first = Call(journal, 0)
    assert store.entered.acquire(timeout=WAIT)
    others = [Call(journal, number) for number in range(1, 9)]
    until(lambda: repr(journal) == "Journal(8 waiting)")
    store.gate.set()
    assert [call.end() for call in (first, *others)] == [None] * 9
    assert [sorted(commit) for commit in store.commits] == [[0], list(range(1, 9))]


@pytest.mark.parametrize(
    ("cause", "code"),
    [
        (Unavailable("commit_unknown", "nobody knows"), "commit_unknown"),
        (IntegrityFailure("database_damaged", "the file is damaged"), "log_not_written"),
        (RuntimeError("a defect"), "log_not_written"),
    ],
)
def test_when_the_commit_fails_every_call_in_it_does_and_the_next_gets_through(
    journal: Journal, store: Store, cause: Exception, code: str
) -> None:
    """R-067: each with an exception of its own."""
    store.gate.clear()
    first = Call(journal, 0)
    assert store.entered.acquire(timeout=WAIT)
    others = [Call(journal, number) for number in (1, 2, 3)]
    until(lambda: repr(journal) == "Journal(3 waiting)")
    store.fails = cause
    store.gate.set()
    errors = [call.end() for call in (first, *others)]
    assert all(isinstance(error, Unavailable) and error.code == code and error.__cause__ is cause for error in errors)
    assert len({id(error) for error in errors}) == 4
    store.fails = None
    journal.keep(record(4))
    assert store.commits == [[4]]


def test_whoever_kills_the_process_kills_the_call(journal: Journal, store: Store) -> None:
    store.fails = KeyboardInterrupt()
    assert isinstance(Call(journal, 1).end(), KeyboardInterrupt)


def test_inside_gathering_nothing_waits_and_what_came_of_it_is_told_later(journal: Journal, store: Store) -> None:
    """R-067: for a front end that sends an answer when it is told to."""
    store.gate.clear()
    told: list[BaseException | None] = []
    ended = threading.Event()

    def tell(error: BaseException | None) -> None:
        told.append(error)
        ended.set()

    with journal.gathering() as gathered:
        journal.keep(record(1))
        journal.keep(record(2))
    gathered.when_durable(tell)
    assert store.entered.acquire(timeout=WAIT)
    assert told == []
    store.gate.set()
    assert ended.wait(WAIT)
    assert told == [None]
    assert sorted(number for commit in store.commits for number in commit) == [1, 2]
    journal.keep(record(3))
    assert store.commits[-1] == [3]


def test_one_failure_among_what_was_gathered_is_told(journal: Journal, store: Store) -> None:
    told: list[BaseException | None] = []
    store.fails = Unavailable("database_unavailable", "the disk is full")
    with journal.gathering() as gathered:
        journal.keep(record(1))
    until(lambda: repr(journal) == "Journal(0 waiting)")
    assert store.entered.acquire(timeout=WAIT)
    gathered.when_durable(told.append)
    until(lambda: bool(told))
    assert isinstance(told[0], Unavailable)


def test_what_gathered_nothing_is_durable_at_once(journal: Journal) -> None:
    told: list[BaseException | None] = []
    with journal.gathering() as gathered:
        pass
    gathered.when_durable(told.append)
    assert told == [None]
    assert not journals()


def test_a_commit_waits_a_little_for_a_call_that_is_under_way(journal: Journal, store: Store) -> None:
    """At most ten milliseconds (the issue's group commit): the call that never ends does not hold the others up."""
    with journal.call():
        journal.keep(record(1))
        journal.keep(record(2))
    assert store.commits == [[1], [2]]


def test_the_thread_starts_with_the_first_record_and_ends_with_close(store: Store) -> None:
    journal = on(store)
    assert not journals()
    journal.keep(record(1))
    assert len(journals()) == 1
    assert journals()[0].daemon
    journal.close()
    assert not journals()
    with pytest.raises(Unavailable, match="vault_closing"):
        journal.keep(record(2))
    journal.close()
    assert store.commits == [[1]]


def test_close_commits_what_was_handed_over(store: Store) -> None:
    journal = on(store)
    store.gate.clear()
    calls = [Call(journal, 0)]
    assert store.entered.acquire(timeout=WAIT)
    calls += [Call(journal, number) for number in (1, 2)]
    until(lambda: repr(journal) == "Journal(2 waiting)")
    closing = threading.Thread(target=journal.close)
    closing.start()
    store.gate.set()
    closing.join(WAIT)
    assert [call.end() for call in calls] == [None] * 3
    assert sorted(number for commit in store.commits for number in commit) == [0, 1, 2]


def test_the_thread_ends_when_nothing_comes_and_another_starts(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("keystead.vault.journal.IDLE_SECONDS", 0.001)
    journal = on(store)
    for number in range(3):
        journal.keep(record(number))
        until(lambda: not journals())
    assert store.commits == [[0], [1], [2]]


def test_a_forked_process_has_a_journal_of_its_own(journal: Journal, store: Store) -> None:
    """Though a commit of its parent's was under way when it was forked off."""
    store.gate.clear()
    call = Call(journal, 1)
    assert store.entered.acquire(timeout=WAIT)
    child = os.fork()
    if child == 0:  # pragma: no cover - in another process
        signal.alarm(WAIT)  # it must not hang, whatever is wrong with it
        own: Any = Store()
        journal._store = own  # what it shares with its parent is memory only
        journal.keep(record(2))
        os._exit(0 if own.commits == [[2]] and not store.commits else 1)
    assert os.waitpid(child, 0)[1] == 0
    store.gate.set()
    assert call.end() is None
    assert store.commits == [[1]]


def test_many_threads_lose_nothing(journal: Journal, store: Store) -> None:
    def keep(start: int) -> None:
        for number in range(start, start + 50):
            with journal.call():
                pass
            journal.keep(record(number))

    threads = [threading.Thread(target=keep, args=(start,)) for start in range(0, 800, 50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT)
    assert sorted(number for commit in store.commits for number in commit) == list(range(800))
