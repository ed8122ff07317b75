"""Small files that survive a power cut (adapters/files.py)."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import pytest

from keystead.adapters.files import remove_durably, write_durably
from keystead.core.errors import Unavailable


def test_a_file_is_written_whole_and_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "seal.1"
    write_durably(path, b"first")
    assert (path.read_bytes(), stat.S_IMODE(path.stat().st_mode)) == (b"first", 0o600)
    write_durably(path, b"other", mode=0o640)
    assert (path.read_bytes(), stat.S_IMODE(path.stat().st_mode)) == (b"other", 0o640)
    assert list(tmp_path.iterdir()) == [path]


def test_file_then_name_then_folder_reach_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "seal.1"
    seen: list[tuple[str, bool]] = []
    sync = os.fsync

    def fsync(descriptor: int) -> None:
        seen.append((Path(f"/proc/self/fd/{descriptor}").readlink().suffix, path.exists()))
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    write_durably(path, b"value")
    assert seen == [(".tmp", False), ("", True)]
    seen.clear()
    remove_durably(path)
    assert seen == [(".1", True), ("", False)]


def test_what_is_removed_was_overwritten_on_the_disk_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "seal.1"
    write_durably(path, b"secret bytes")
    left: list[bytes] = []
    sync = os.fsync

    def fsync(descriptor: int) -> None:
        sync(descriptor)
        left.extend(each.read_bytes() for each in tmp_path.iterdir())

    monkeypatch.setattr(os, "fsync", fsync)
    remove_durably(path)
    assert left == [bytes(12)]
    remove_durably(path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("number", "code"), [(errno.ENOSPC, "storage_full"), (errno.EIO, "storage_unavailable")])
def test_a_failed_write_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, code: str
) -> None:
    path = tmp_path / "seal.1"
    write_durably(path, b"old")

    def fail(_descriptor: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(Unavailable) as caught:
        write_durably(path, b"new")
    assert caught.value.code == code
    assert "seal.1" in caught.value.detail
    assert str(tmp_path) not in str(caught.value)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]
