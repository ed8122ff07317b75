"""Writing what comes out of a site: the same cases in this process and in one beside it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from keystead.api import frames
from keystead.client import beside
from keystead.client.tree_writer import SLOT_BYTES, Outcome, Place, Task, WriterBeside, WriterHere
from keystead.core.errors import IntegrityFailure, InvalidRequest, NotFound, Unavailable
from keystead.core.stores.files import MAX_BATCH_FILE
from support.waiting import until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from keystead.client.tree_writer import TreeWriter

WHEN = datetime(2026, 3, 1, 12, 0, 0, 123_000, tzinfo=UTC)
SIZES = (0, 1, 19, 20, 21, 70_000, 1024 * 1024 - 1, 1024 * 1024, SLOT_BYTES - 20, SLOT_BYTES, SLOT_BYTES + 1, MAX_BATCH_FILE)


@pytest.fixture(params=[WriterHere, WriterBeside], ids=["here", "beside"])
def writer(request: pytest.FixtureRequest) -> Iterator[TreeWriter]:
    kind: Callable[[], TreeWriter] = request.param
    with kind() as made:
        yield made


def ids(count: int) -> list[str]:
    return [f"{number:08x}-1111-4111-8111-111111111111" for number in range(count)]


def place(folder: Path, name: str, size: int) -> Place:
    return Place(str(folder), name, size, WHEN)


def framed(data: dict[str, bytes]) -> bytes:
    return b"".join(frames.head(name, len(one)) + one for name, one in data.items())


def pieces(whole: bytes, size: int) -> Iterator[bytes]:
    return (whole[start : start + size] for start in range(0, len(whole), size))


def batch(folder: Path, data: dict[str, bytes], **more: Any) -> Task:
    places = [place(folder, f"f{number}", len(one)) for number, one in enumerate(data.values())]
    return Task(more.pop("size", len(framed(data))), places, list(data))


def held(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("size", [1_000, 65_536, 1024 * 1024, SLOT_BYTES + 7])
def test_files_of_an_answer_are_written_whatever_pieces_it_comes_in(writer: TreeWriter, tmp_path: Path, size: int) -> None:
    data = {name: os.urandom(length) for name, length in zip(ids(len(SIZES)), SIZES, strict=True)}
    writer.begin(batch(tmp_path, data), pieces(framed(data), size))
    assert writer.outcome() == Outcome(len(data), sum(SIZES))
    assert held(tmp_path) == {f"f{number}": one for number, one in enumerate(data.values())}
    assert {path.stat().st_mtime_ns for path in tmp_path.iterdir()} == {round(WHEN.timestamp() * 1_000) * 1_000_000}
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o600}


def test_one_task_follows_the_other(writer: TreeWriter, tmp_path: Path) -> None:
    """Also one file by itself, of many slots, and an empty one."""
    large = os.urandom(5 * SLOT_BYTES + 3)
    (tmp_path / "large").write_bytes(b"before")
    for name, data in (("large", large), ("empty", b""), ("small", b"x")):
        writer.begin(Task(len(data), [place(tmp_path, name, len(data))]), pieces(data, 1024 * 1024))
        assert writer.outcome() == Outcome(1, len(data))
        few = {one: name.encode() for one in ids(2)}
        writer.begin(batch(tmp_path, few), [framed(few)])
        assert writer.outcome() == Outcome(2, 2 * len(name))
    assert held(tmp_path) == {"large": large, "empty": b"", "small": b"x", "f0": b"small", "f1": b"small"}


def test_files_that_an_answer_has_no_bytes_of_are_said(writer: TreeWriter, tmp_path: Path) -> None:
    first, gone, never = ids(3)
    answer = framed({first: b"here"}) + frames.head(gone, frames.GONE)
    places = [place(tmp_path, name, 4) for name in ("first", "gone", "never")]
    writer.begin(Task(len(answer), places, [first, gone, never]), [answer])
    assert writer.outcome() == Outcome(1, 4, [gone, never])
    assert held(tmp_path) == {"first": b"here"}


@pytest.mark.parametrize("wrong", ["unknown", "twice", "short", "too-large"])
def test_answers_that_are_not_what_was_asked_for_are_refused(writer: TreeWriter, tmp_path: Path, wrong: str) -> None:
    """R-190."""
    one, other = ids(2)
    answer = {
        "unknown": framed({one: b"1"}) + framed({other: b"2"}),
        "twice": framed({one: b"1"}) + framed({one: b"2"}),
        "short": framed({one: b"1"})[:-1],
        "too-large": frames.head(one, MAX_BATCH_FILE + 1),
    }[wrong]
    with pytest.raises((IntegrityFailure, Unavailable)):
        begun(writer, Task(len(answer), [place(tmp_path, "f", 1)], [one]), [answer])
    assert held(tmp_path) in ({}, {"f": b"1"})


@pytest.mark.parametrize("said", [-1, 1])
def test_another_process_is_not_left_waiting_by_an_answer_of_another_length_than_it_says(tmp_path: Path, said: int) -> None:
    data = {ids(1)[0]: b"data"}
    with WriterBeside() as writer:
        with pytest.raises(Unavailable, match="answer_invalid"):
            writer.begin(batch(tmp_path, data, size=len(framed(data)) + said), [framed(data)])
        writer.begin(batch(tmp_path, data), [framed(data)])
        assert writer.outcome() == Outcome(1, 4)


@pytest.mark.parametrize("after", [0, 10, SLOT_BYTES, 6 * SLOT_BYTES, 10 * SLOT_BYTES])
def test_what_breaks_off_leaves_no_part_of_a_file_and_the_writer_as_it_was(writer: TreeWriter, tmp_path: Path, after: int) -> None:
    """A file that was deleted while it was read, for one."""

    def broken() -> Iterator[bytes]:
        yield from pieces(bytes(after), 300_000)
        raise NotFound("file_not_found", "gone", "")

    with pytest.raises(NotFound):
        writer.begin(Task(10 * SLOT_BYTES, [place(tmp_path, "broken", 10)]), broken())
    data = {name: name.encode() for name in ids(3)}
    writer.begin(batch(tmp_path, data), [framed(data)])
    assert writer.outcome().files == 3
    assert held(tmp_path) == {f"f{number}": one for number, one in enumerate(data.values())}


def begun(writer: TreeWriter, task: Task, chunks: list[bytes]) -> Outcome:
    """What went wrong in another process is heard of at the latest when the outcome is asked for."""
    writer.begin(task, iter(chunks))
    return writer.outcome()


def test_a_file_that_cannot_be_written_is_said(writer: TreeWriter, tmp_path: Path) -> None:
    data = {ids(1)[0]: b"data"}
    with pytest.raises(InvalidRequest, match="file_unwritable"):
        begun(writer, batch(tmp_path / "none", data), [framed(data)])


def test_the_reason_is_heard_while_much_more_is_being_handed_over(tmp_path: Path) -> None:
    with WriterBeside() as writer, pytest.raises(InvalidRequest, match="file_unwritable"):
        writer.begin(Task(30 * SLOT_BYTES, [place(tmp_path / "none", "f", 1)]), iter([bytes(SLOT_BYTES)] * 30))


def test_a_process_that_is_killed_is_said_and_what_breaks_off_here_ends_it(tmp_path: Path) -> None:
    with WriterBeside() as writer:
        process = writer._process._process
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        with pytest.raises(Unavailable, match="helper_ended"):
            writer.begin(Task(4, [place(tmp_path, "f", 4)]), iter([b"data"]))

    def interrupted() -> Iterator[bytes]:
        yield bytes(3 * SLOT_BYTES)
        until(lambda: list(tmp_path.glob(".keystead-*.tmp")))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), WriterBeside() as second:
        second.begin(Task(4 * SLOT_BYTES, [place(tmp_path, "f", 4)]), interrupted())
    assert second._process._process.returncode == 0
    assert list(tmp_path.iterdir()) == []


def test_nothing_that_lies_in_the_working_directory_is_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """R-190: a tree may be fetched into a folder that somebody else writes to."""
    (tmp_path / "keystead").mkdir()
    for name in ("keystead/__init__.py", "msgspec.py", "struct.py"):
        (tmp_path / name).write_text(f"open({str(tmp_path / 'run')!r}, 'w')\n")
    monkeypatch.chdir(tmp_path)
    with WriterBeside() as writer:
        assert begun(writer, Task(1, [place(tmp_path, "f", 1)]), [b"x"]) == Outcome(1, 1)
    assert not (tmp_path / "run").exists()


def in_python(script: Path, *flags: str, close: tuple[int, ...] = (), **environment: str) -> str:
    """What a Python of its own, which finds modules as its script says, writes of a file: `written` where all is well."""
    folder = script.parent / "target"
    folder.mkdir()
    script.write_text(
        f"import sys, os\nsys.path[:0] = {[place for place in sys.path if place]!r}\n"
        "from datetime import UTC, datetime\nfrom keystead.client.tree_writer import Place, Task, WriterBeside\n"
        f"for one in {close!r}: os.close(one)\n"
        f"with WriterBeside() as writer:\n    writer.begin(Task(7, [Place({str(folder)!r}, 'f', 7, datetime.now(UTC))]), [b'written'])\n"
        "    writer.outcome()\n"
    )
    variables = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")} | environment
    python = getattr(sys, "_base_executable", sys.executable)
    ended = subprocess.run([python, *flags, str(script)], env=variables, capture_output=True, text=True, timeout=60, check=False)
    return (folder / "f").read_text() if (folder / "f").exists() else ended.stderr


def test_modules_come_from_where_they_come_from_in_the_one_that_starts_it(tmp_path: Path) -> None:
    """The script adds the folders: a Python that is started without them knows nothing of this program."""
    assert in_python(tmp_path / "script.py") == "written"


def test_secrets_of_the_environment_stay_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEYSTEAD_VAULT_SEAL_PASSPHRASE", "secret passphrase")
    with WriterBeside() as writer:
        place_of = Path(f"/proc/{writer._process._process.pid}/environ")
        until(lambda: b"PATH=" in place_of.read_bytes())  # there is none while it is being started
        environment = place_of.read_bytes()
    assert b"KEYSTEAD_" not in environment


def test_variables_that_are_ignored_here_are_ignored_there(tmp_path: Path) -> None:
    """R-190."""
    evil = tmp_path / "evil"
    evil.mkdir()
    (evil / "sitecustomize.py").write_text(f"open({str(tmp_path / 'run')!r}, 'w')\n")
    assert in_python(tmp_path / "script.py", "-I", PYTHONPATH=str(evil)) == "written"
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("close", [(0,), (1,), (2,), (0, 1, 2)], ids=str)
def test_standard_streams_may_be_closed(tmp_path: Path, close: tuple[int, ...]) -> None:
    assert in_python(tmp_path / "script.py", close=close) == "written"


def test_it_is_used_where_it_can_be(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not beside.can_run("/srv/\udcff")
    assert beside.can_run("/srv") == (len(os.sched_getaffinity(0)) > 1)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _process: {0})
    assert not beside.can_run("/srv")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _process: {0, 1})
    assert beside.can_run("/srv")
    monkeypatch.setattr(sys, "executable", "")
    assert not beside.can_run("/srv")
