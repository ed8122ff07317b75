"""Files written on this machine: whole or not at all, for their owner alone, the large ones past the page cache where that can be done."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from keystead.client.local_files import write_file, write_small_file
from keystead.core.errors import InvalidRequest, Unavailable
from keystead.direct_io import Buffers

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MIB = 1024 * 1024
WHEN = datetime(2026, 6, 1, 12, 30, 15, 123_000, UTC)


@pytest.fixture
def direct(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many bytes each write past the page cache was given."""
    write, found = os.write, []

    def seen(descriptor: int, data: memoryview) -> int:
        if fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_DIRECT:
            found.append(len(data))
        return write(descriptor, data)

    monkeypatch.setattr(os, "write", seen)
    return found


@pytest.mark.parametrize("piece", [1_000_003, 256 * 1024, 4 * MIB, 9 * MIB])
@pytest.mark.parametrize("size", [0, 1, MIB - 1, MIB, 4 * MIB, 4 * MIB + 1, 10 * MIB + 4_095])
def test_what_is_written_is_what_came_in_whatever_pieces(tmp_path: Path, direct: list[int], size: int, piece: int) -> None:
    data = os.urandom(size)
    write_file(tmp_path / "f", (data[at : at + piece] for at in range(0, size, piece)), WHEN)
    found = (tmp_path / "f").stat()
    assert (tmp_path / "f").read_bytes() == data
    assert (stat.S_IMODE(found.st_mode), found.st_mtime_ns) == (0o600, round(WHEN.timestamp() * 1_000) * 1_000_000)
    assert all(one % 4_096 == 0 for one in direct)
    assert list(tmp_path.iterdir()) == [tmp_path / "f"]


def test_a_disk_that_knows_only_its_cache_gets_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = os.write

    def never(descriptor: int, data: memoryview) -> int:
        if fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_DIRECT:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        return write(descriptor, data[:1_000_000])  # nor all at once

    monkeypatch.setattr(os, "write", never)
    data = os.urandom(5 * MIB + 1)
    write_file(tmp_path / "f", [data])
    assert (tmp_path / "f").read_bytes() == data


def test_what_fails_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "f").write_bytes(b"before")

    def breaking() -> Iterator[bytes]:
        yield bytes(5 * MIB)
        raise Unavailable("answer_lost", "gone", "")

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(Unavailable):
        write_file(tmp_path / "f", breaking())
    monkeypatch.setattr(os, "write", full)
    with pytest.raises(InvalidRequest) as caught:
        write_file(tmp_path / "f", [bytes(5 * MIB)])
    assert caught.value.code == "file_unwritable"
    with pytest.raises(InvalidRequest):
        write_small_file(str(tmp_path), "f", [memoryview(b"new")], WHEN)
    assert list(tmp_path.iterdir()) == [tmp_path / "f"]
    assert (tmp_path / "f").read_bytes() == b"before"


def test_a_buffer_that_was_there_before_a_fork_is_not_shared_after_it() -> None:
    buffers = Buffers(8_192, 1)
    buffers.give(buffers.take())
    child = os.fork()
    if not child:
        buffers.take()[:6] = b"secret"
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert bytes(buffers.take()[:6]) == bytes(6)


def test_a_link_is_replaced_and_not_followed(tmp_path: Path) -> None:
    (tmp_path / "kept").write_bytes(b"old")
    for name in ("one", "two"):
        (tmp_path / name).symlink_to(tmp_path / "kept")
    write_file(tmp_path / "one", [b"1"])
    write_small_file(str(tmp_path), "two", [memoryview(b"2"), memoryview(b"!")], WHEN)
    assert [(tmp_path / name).read_bytes() for name in ("kept", "one", "two")] == [b"old", b"1", b"2!"]
    assert not (tmp_path / "one").is_symlink()
    assert (tmp_path / "two").stat().st_mtime == pytest.approx(WHEN.timestamp(), abs=0.001)
