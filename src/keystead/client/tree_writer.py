"""Writing what comes out of a site to a local folder: here, or in a process of its own beside the one that opens it.

Opening files keeps a core busy; making them in a file system does too, for half as long. The other process is told names and times, finds the
bytes in memory that both share, and writes each file whole or not at all. When who started it is gone, or gives up, it removes the file it is
at and goes.
"""

from __future__ import annotations

import sys
from datetime import datetime  # noqa: TC003 - msgspec reads the types
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, Self

import msgspec

from keystead.api import frames
from keystead.api.errors import from_problem, problem
from keystead.client import beside
from keystead.client.local_files import write_file, write_small_file
from keystead.core.errors import IntegrityFailure, KeysteadError, Unavailable
from keystead.core.stores.files import MAX_BATCH_FILE
from keystead.direct_io import LEAST_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from keystead.core.formats.aead import Readable

SLOT_BYTES, SLOTS = 4 * 1024 * 1024, 4
"""What is handed over at a time: waking another process takes as long as writing some files, so it is done for many."""


class Place(msgspec.Struct, frozen=True, array_like=True):
    """Where a file goes, its size as it was listed, and what becomes its time."""

    folder: str
    name: str
    size: int
    modified: datetime


class Task(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """What an answer of the service is written to.

    Attributes:
        size: bytes of the answer.
        places: of its files.
        ids: the files, in the order of their places, where the answer is in frames; none for an answer that is one file.
    """

    size: int
    places: list[Place]
    ids: list[str] = []


class Outcome(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """What was written. `missing`: ids that the answer had no bytes of. `problem`: what went wrong instead."""

    files: int = 0
    bytes: int = 0
    missing: list[str] = []
    problem: dict[str, Any] = {}


class _Filled(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """The next bytes of an answer are in a slot."""

    slot: int
    size: int


class _GivenUp(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """The rest of the answer does not come: what is whole stays, and there is no outcome."""


class _Freed(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """The slot that was filled first may be filled again."""


_decode_command = msgspec.msgpack.Decoder(Task | _Filled | _GivenUp).decode
_decode_answer = msgspec.msgpack.Decoder(Outcome | _Freed).decode


class TreeWriter(Protocol):
    """Carries out one task after the other. Use it as a context."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *error: object) -> None: ...

    def begin(self, task: Task, chunks: Iterable[bytes]) -> None:
        """Take all of an answer. The outcome of the task before was asked for.

        Raises:
            InvalidRequest: `file_unwritable`.
            IntegrityFailure: `file_name_invalid`: a file that was not asked for.
            Unavailable: `answer_invalid`; `helper_ended`: the other process is gone.
            KeysteadError: what comes instead of the next chunk; the file it was of is not there.
        """
        ...

    def outcome(self) -> Outcome:
        """What became of the task that was begun last, once all of it is written. Raises: as `begin`."""
        ...


def carried_out(task: Task, chunks: Iterable[Readable]) -> Outcome:
    """Write what an answer holds, as it comes. Raises: as `TreeWriter.begin`."""
    counted = _Counted(chunks)
    if not task.ids:
        _write(task.places[0], counted)
        return Outcome(1, counted.bytes)
    wanted = dict(zip(task.ids, task.places, strict=True))
    files = 0
    missing: list[str] = []
    for file_id, parts in frames.split(counted, largest=MAX_BATCH_FILE):
        place = wanted.pop(file_id, None)
        if place is None:
            raise IntegrityFailure("file_name_invalid", "the service sent a file that was not asked for", "do not trust this server")
        if parts is None:
            missing.append(file_id)
            continue
        if place.size < LEAST_BYTES:
            write_small_file(place.folder, place.name, parts, place.modified)
        else:
            _write(place, parts)
        files += 1
    heads = (files + len(missing)) * frames.HEAD.size
    return Outcome(files, counted.bytes - heads, [*missing, *wanted])


def _write(place: Place, chunks: Iterable[Readable]) -> None:
    write_file(Path(place.folder, place.name), chunks, place.modified)


class _Counted:
    """Passes pieces on, and knows how many bytes they were."""

    def __init__(self, chunks: Iterable[Readable]) -> None:
        self._chunks = chunks
        self.bytes = 0

    def __iter__(self) -> Iterator[Readable]:
        for chunk in self._chunks:
            self.bytes += len(chunk)
            yield chunk


class WriterHere:
    """Writes in this process."""

    def __init__(self) -> None:
        self._outcome = Outcome()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        """Nothing is under way."""

    def begin(self, task: Task, chunks: Iterable[bytes]) -> None:
        """Write it."""
        self._outcome = carried_out(task, chunks)

    def outcome(self) -> Outcome:
        """What was written."""
        return self._outcome


class WriterBeside:
    """Writes in a process of its own."""

    def __init__(self) -> None:
        self._process = beside.Beside(__name__, SLOTS * SLOT_BYTES)
        self._slot = self._used = self._under_way = 0
        self._task: Task | None = None
        """That has begun, and of which nothing was handed over yet."""
        self._is_over = False
        """Whether it has failed, and takes nothing any more."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._process.__exit__(*error)  # it writes nothing any more when the block is left, whether or not all is well

    def begin(self, task: Task, chunks: Iterable[bytes]) -> None:
        """Hand it over as it comes."""
        self._task = task
        left = task.size
        try:
            for chunk in chunks:
                left -= len(chunk)
                if left < 0:
                    break
                self._put(chunk)
            if left:
                raise Unavailable("answer_invalid", "the answer with the files has not as many bytes as it said", "try again")
        except KeysteadError:
            if not self._is_over:
                self._give_up(left)
            raise
        self._hand_over()

    def outcome(self) -> Outcome:
        """Wait until it is written there."""
        while not isinstance(answer := self._answer(), Outcome):
            pass
        return answer

    def _put(self, chunk: bytes) -> None:
        rest = memoryview(chunk)
        while rest:
            if self._used == SLOT_BYTES:  # not before: the last bytes are handed over when it is sure that all is well
                self._hand_over()
            taken = rest[: SLOT_BYTES - self._used]
            start = self._slot * SLOT_BYTES + self._used
            self._process.memory[start : start + len(taken)] = taken
            rest = rest[len(taken) :]
            self._used += len(taken)

    def _give_up(self, left: int) -> None:
        if left > 0:  # some files may be whole
            self._hand_over()
        if self._task is None:
            self._send(_GivenUp())
        self._task, self._used = None, 0

    def _hand_over(self) -> None:
        """What is in the slot goes there, and the next slot is waited for."""
        if self._task is not None:
            self._send(self._task)
            self._task = None
        if self._used:
            self._send(_Filled(self._slot, self._used))
            self._under_way += 1
            self._slot, self._used = (self._slot + 1) % SLOTS, 0
        while self._under_way == SLOTS:
            self._answer()

    def _send(self, message: Task | _Filled | _GivenUp) -> None:
        try:
            self._process.send(message)
        except BrokenPipeError:
            while True:  # it has said why, behind what it had to say before
                self._answer()

    def _answer(self) -> Outcome | _Freed:
        """Raises: what went wrong there; `helper_ended`."""
        self._is_over = True
        answer: Outcome | _Freed = self._process.receive(_decode_answer)
        if isinstance(answer, _Freed):
            self._under_way -= 1
        elif answer.problem:
            raise from_problem(answer.problem, 0)
        self._is_over = False
        return answer


# -- the other process ------------------------------------------------------------------------------------------------------------------


class _EndedError(Exception):
    """Who hands over is gone."""


class _GivenUpError(Exception):
    """The rest of an answer does not come."""


def main() -> None:
    """Carry out what comes from standard input, and answer at standard output."""
    source, target, memory = sys.stdin.fileno(), sys.stdout.fileno(), beside.memory_of(SLOTS * SLOT_BYTES)
    try:
        while isinstance(task := _command(source), Task):
            try:
                outcome = carried_out(task, _pieces(source, target, memory, task.size))
            except _GivenUpError:
                continue
            except KeysteadError as error:
                outcome = Outcome(problem=problem(error))
            beside.send(target, outcome)
            if outcome.problem:
                return
    except (_EndedError, BrokenPipeError):
        return


def _command(source: int) -> Task | _Filled | _GivenUp | None:
    data = beside.receive(source)
    return _decode_command(data) if data is not None else None


def _pieces(source: int, target: int, memory: memoryview, size: int) -> Iterator[memoryview]:
    while size:
        filled = _command(source)
        if isinstance(filled, _GivenUp):
            raise _GivenUpError
        if not isinstance(filled, _Filled):
            raise _EndedError
        size -= filled.size
        start = filled.slot * SLOT_BYTES
        yield memory[start : start + filled.size]
        beside.send(target, _Freed())
