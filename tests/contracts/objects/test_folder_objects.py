"""What the object store of a home promises beyond the port: durable, owner only, and what a crash leaves is collected."""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import signal
import stat
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from keystead.adapters.objects.folder import TEMPORARY_SECONDS, FolderObjects
from keystead.core.errors import Conflict, IntegrityFailure, NotFound, Unavailable

if TYPE_CHECKING:
    from collections.abc import Iterator

REF = "c1/" + "ab" * 16


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "objects"


def files(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())


def test_an_object_is_one_file_for_the_owner_alone(root: Path) -> None:
    FolderObjects(root).put(REF, [b"value"])
    assert files(root) == ["c1/ab/" + "ab" * 16]
    assert {stat.S_IMODE(path.stat().st_mode) for path in root.rglob("*")} == {0o600, 0o700}


def test_file_folder_and_new_parents_are_synced_before_put_returns(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[str] = []
    sync = os.fsync

    def fsync(descriptor: int) -> None:
        synced.append(str(Path(f"/proc/self/fd/{descriptor}").readlink()))
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    store = FolderObjects(root)
    store.put(REF, [b"value"])
    assert synced[:3] == [str(root.parent), str(root), str(root / "c1")]
    assert synced[3].startswith(str(root / "c1/ab"))
    assert synced[3].endswith(".tmp")
    assert synced[4:] == [str(root / "c1/ab")]
    synced.clear()
    store.put("c1/ab" + "cd" * 15, [b"value"])
    assert [path.endswith(".tmp") for path in synced] == [True, False], "known folders are not synced again but for the new name"
    synced.clear()
    store.delete(REF)
    assert synced == []


def test_two_processes_that_store_under_one_name_never_overwrite(root: Path) -> None:
    first, second = FolderObjects(root), FolderObjects(root)

    def overtaken() -> Iterator[bytes]:
        yield b"slow"
        second.put(REF, [b"fast"])

    with pytest.raises(Conflict):
        first.put(REF, overtaken())
    assert first.get(REF, 0, 4) == b"fast"
    assert len(files(root)) == 1


@pytest.mark.parametrize(
    ("failing", "number", "code"),
    [
        ("write", errno.ENOSPC, "storage_full"),
        ("fsync", errno.ENOSPC, "storage_full"),
        ("fsync", errno.EIO, "storage_unavailable"),
        ("open", errno.EMFILE, "storage_unavailable"),
        ("link", errno.EDQUOT, "storage_full"),
    ],
)
def test_a_disk_that_fails_is_unavailable_and_keeps_nothing(
    root: Path, monkeypatch: pytest.MonkeyPatch, failing: str, number: int, code: str
) -> None:
    store = FolderObjects(root)
    store.put("c1/ab" + "cd" * 15, [b"value"])

    def fail(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patched:
        patched.setattr(os, failing, fail)
        with pytest.raises(Unavailable) as caught:
            store.put(REF, [b"value"])
    assert caught.value.code == code
    assert REF in caught.value.detail
    assert str(root) not in str(caught.value), "texts name objects, not places on this machine"
    assert caught.value.mend
    with pytest.raises(NotFound):
        store.get(REF, 0, 5)
    assert len(files(root)) == 1
    assert store.put(REF, [b"value"]) == 5


def test_short_reads_and_writes_are_continued(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write, pread = os.write, os.pread
    monkeypatch.setattr(os, "write", lambda descriptor, data: write(descriptor, bytes(data[:3])))
    monkeypatch.setattr(os, "pread", lambda descriptor, length, offset: pread(descriptor, min(length, 4), offset))
    store = FolderObjects(root)
    assert store.put(REF, [b"0123456789", b"abc"]) == 13
    assert store.get(REF, 1, 11) == b"123456789ab"
    with pytest.raises(IntegrityFailure):
        store.get(REF, 1, 13)


def on_a_page(data: bytes) -> memoryview:
    """The bytes in a buffer that begins on a page, as what is written past the page cache must."""
    view = memoryview(mmap.mmap(-1, len(data)))
    view[:] = data
    return view


def test_large_chunks_on_a_page_are_stored_like_any_other(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Past the page cache go whole pages of large chunks that begin on one; a store that says no to that, or takes less, is written as usual."""
    store = FolderObjects(root)
    write, refuse = os.write, OSError(errno.EINVAL, "no")
    direct: list[int] = []

    def seen(descriptor: int, data: memoryview) -> int:
        if fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_DIRECT:
            direct.append(len(data))
        return write(descriptor, data)

    def less(descriptor: int, data: memoryview) -> int:
        return write(descriptor, data[: max(len(data) // 2 // mmap.PAGESIZE * mmap.PAGESIZE, 1)])

    def never(descriptor: int, data: memoryview) -> int:
        if fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_DIRECT:
            raise refuse
        return write(descriptor, data)

    mib = 1024 * 1024
    sizes = ([mib - 1], [mib], [mib + 1], [2 * mib + 4095, mib, 3], [3, 2 * mib])
    number = 0
    for instead in (seen, less, never):
        monkeypatch.setattr(os, "write", instead)
        for lengths in sizes:
            chunks = [os.urandom(length) for length in lengths]
            ref = f"c1/{number:032x}"
            number += 1
            whole = b"".join(chunks)
            assert store.put(ref, [on_a_page(chunk) for chunk in chunks]) == len(whole)
            assert store.get(ref, 0, len(whole)) == whole
    assert set(direct) <= {mib, 2 * mib}
    monkeypatch.setattr(os, "write", seen)
    odd = memoryview(os.urandom(2 * mib))[1:]
    assert store.put(REF, [odd]) == len(odd)
    assert store.get(REF, 0, len(odd)) == bytes(odd)


def test_a_disk_that_is_full_while_written_past_the_page_cache_keeps_nothing(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    store = FolderObjects(root)
    with monkeypatch.context() as patched:
        patched.setattr(os, "write", full)
        with pytest.raises(Unavailable) as caught:
            store.put(REF, [on_a_page(bytes(2 * 1024 * 1024))])
    assert caught.value.code == "storage_full"
    assert files(root) == []


@pytest.mark.parametrize("call", ["fsync of the file", "link", "unlink", "fsync of the folder"])
def test_a_put_that_was_killed_leaves_no_half_object(root: Path, call: str) -> None:
    """Before the link: a temporary file, collected after an hour. After it: the whole object. Never a part under the object's name."""
    store = FolderObjects(root)
    store.put("c1/ab" + "cd" * 15, [b"value"])
    child = os.fork()
    if child == 0:
        try:
            name, calls = call.split(maxsplit=1)[0], iter(range(9))
            real = getattr(os, name)

            def die(*arguments: object) -> None:
                if next(calls) == ("folder" in call):
                    os.kill(os.getpid(), signal.SIGKILL)
                real(*arguments)

            setattr(os, name, die)
            store.put(REF, [bytes(100_000)])
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status)
    store.delete("c1/ab" + "cd" * 15)
    linked = call in {"unlink", "fsync of the folder"}
    assert [info.ref for info in store.all_objects()] == ([REF] if linked else [])
    if linked:
        assert store.get(REF, 0, 100_000) == bytes(100_000)

    for path in root.rglob("*.tmp"):
        os.utime(path, (0, 0))
    for info in list(store.all_objects()):
        assert info.ref == REF or info.age_seconds > TEMPORARY_SECONDS
        store.delete(info.ref)
    assert files(root) == []


def test_a_temporary_file_is_no_object(root: Path) -> None:
    store = FolderObjects(root)
    for call in (lambda ref: store.get(ref, 0, 1), lambda ref: store.put(ref, [b"value"])):
        with pytest.raises(IntegrityFailure):
            call(f"{REF}.0123456789abcdef.tmp")


def test_objects_of_containers_no_longer_used_stay_readable(root: Path) -> None:
    FolderObjects(root, containers=8).put("c7/" + "ab" * 16, [b"value"])
    store = FolderObjects(root, containers=1)
    assert store.get("c7/" + "ab" * 16, 0, 5) == b"value"
    assert [info.ref for info in store.all_objects()] == ["c7/" + "ab" * 16]
    assert {store.new_ref(os.urandom)[:3] for _ in range(50)} == {"c0/"}


@pytest.mark.parametrize("containers", [0, 101])
def test_a_senseless_number_of_containers_is_refused(root: Path, containers: int) -> None:
    with pytest.raises(ValueError, match="containers"):
        FolderObjects(root, containers)
