"""Copying between folders and sites: the loops that the command line, the demo and the benchmarks share.

Small files travel in batches, large ones each as a stream; memory stays flat. Symbolic links are not followed. What comes from a server is
checked before it becomes a file name: it never leads out of the folder that was named.
"""

from __future__ import annotations

import os
import stat
import threading
from concurrent.futures import FIRST_COMPLETED, FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Self

import msgspec

from keystead.api import frames
from keystead.api.call import Upload
from keystead.api.types.sites import (
    MAX_GET_FILES,
    BatchFile,
    BatchResult,
    DownloadFile,
    FileView,
    GetBatch,
    ListFiles,
    UploadBatch,
    UploadFile,
)
from keystead.client.local_files import NewFile, make_folder, prepare, write_file, write_files
from keystead.core.errors import Conflict, IntegrityFailure, InvalidRequest, NotFound
from keystead.core.stores.files import CHUNK_BYTES
from keystead.core.stores.paths import check_name, join_path, split_path

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from concurrent.futures import Future

    from keystead.api.call import Content
    from keystead.client.client import Client

    Progress = Callable[[float], None]

SMALL_FILE = 1024 * 1024
"""Files of at most this many bytes travel in batches."""
BATCH_BYTES = 15 * 1024 * 1024
BATCH_FILES = 2_000
GET_BYTES = 128 * 1024 * 1024
"""What one answer with many files holds at most, about: it is streamed, and the more it holds the less often the same rows are looked at."""
ENTRY_BYTES = 128
"""What a file of a batch takes beside its path and its bytes, at most."""
PAGE = 1_000
WAITING = 2
"""How many batches or large files wait at most while one of their kind is under way."""
WRITERS, GROUPS = 2, 16
"""Threads that write small files, and how many groups of them may wait for those."""
GROUP_BYTES = 2 * 1024 * 1024
"""Of small files that are written in one go, about."""
PIECE = 4 * 1024 * 1024


class Refused(msgspec.Struct, frozen=True):
    """A local file that was not taken in; `reason` is the code of the error."""

    path: str
    reason: str


class PutResult(msgspec.Struct, frozen=True):
    """What went into a site. `skipped`: symbolic links and what is neither file nor folder."""

    uploaded: int
    unchanged: int
    files: int
    bytes: int
    skipped: int = 0
    refused: list[Refused] = []


class GetResult(msgspec.Struct, frozen=True):
    """What came out of a site."""

    output: str
    files: int
    folders: int
    bytes: int


# -- progress -----------------------------------------------------------------------------------------------------------------------


class _Stopped(Exception):
    """Another part of the same copy failed, or was interrupted."""


class _Moved:
    """Counts the bytes that several threads have moved, and tells of them."""

    def __init__(self, on_progress: Progress | None) -> None:
        self._on_progress = on_progress
        self._lock = threading.Lock()
        self._bytes = 0
        self._stopped = False

    def more(self, size: int) -> None:
        """So many bytes more. Raises: `_Stopped`."""
        with self._lock:
            if self._stopped:
                raise _Stopped
            self._bytes += size
            if self._on_progress is not None:
                self._on_progress(self._bytes)

    def stop(self) -> None:
        """Have whoever moves something now end at its next piece."""
        with self._lock:
            self._stopped = True


class _Lane:
    """Parts of one kind: how many go on at one time, each in a thread, and how many may wait for those."""

    def __init__(self, threads: int, waiting: int) -> None:
        self.pool = ThreadPoolExecutor(threads, thread_name_prefix="copy-files")
        self.most = threads + waiting
        self.under_way: set[Future[None]] = set()


class _Beside:
    """Parts of one copy that go on beside it, of two kinds; a context. The first that fails ends them all, before the block is left.

    Args:
        large: large files. One goes up at a time: a server lets one person have few uploads under way, and the next would wait unread.
        small: batches, or writing what came in them.
    """

    def __init__(self, moved: _Moved, *, large: _Lane, small: _Lane) -> None:
        self.large, self.small = large, small
        self._moved = moved

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, _error: object, _trace: object) -> None:
        try:
            if kind is None:
                wait(self.large.under_way | self.small.under_way, return_when=FIRST_EXCEPTION)
                self._collect()
        finally:
            self._moved.stop()
            for lane in (self.large, self.small):
                lane.pool.shutdown(wait=True, cancel_futures=True)

    def start(self, lane: _Lane, act: Callable[..., None], *arguments: object) -> None:
        """Do something beside the rest; waits where much of its kind is under way. Raises: what an earlier part raised."""
        self._collect()
        if len(lane.under_way) >= lane.most:
            wait(lane.under_way, return_when=FIRST_COMPLETED)
        lane.under_way.add(lane.pool.submit(act, *arguments))

    def share(self, lane: _Lane, act: Callable[..., None], *arguments: object) -> None:
        """Do something beside the rest, or at once where much is under way: who takes an answer must not stop taking it. Raises: as `start`."""
        self._collect()
        if len(lane.under_way) >= lane.most:
            act(*arguments)
        else:
            lane.under_way.add(lane.pool.submit(act, *arguments))

    def _collect(self) -> None:
        """Let go of what is done."""
        for lane in (self.large, self.small):
            done = [one for one in lane.under_way if one.done()]
            lane.under_way.difference_update(done)
            for one in done:
                one.result()


# -- in -----------------------------------------------------------------------------------------------------------------------------


def tree_bytes(local: Path) -> int:
    """Bytes of all files of a folder, for a progress bar."""
    return sum(size for _names, _path, size in _walk(local, []) if size >= 0)


def put_file(client: Client, site: str, local: Path, path: str, on_progress: Progress | None = None) -> FileView:
    """Put one file into a site; the folders above it are made.

    Raises:
        InvalidRequest: `file_unreadable`.
        KeysteadError: what the service answered.
    """
    with _Source(local, follow=True) as source:
        return source.send(client, site, path, _Moved(on_progress))


def put_tree(client: Client, site: str, local: Path, path: str = "", on_progress: Progress | None = None) -> PutResult:
    """Put what is in a local folder into a folder of a site. What is there with the same bytes stays as it is.

    Args:
        client: calls as somebody who may put files there.
        site: URL or id.
        local: the folder.
        path: the folder of the site; the top of it by default.
        on_progress: told how many bytes are done, by one thread at a time.

    Raises:
        InvalidRequest: `file_unreadable`, or a path that is none.
        KeysteadError: what the service answered; files before it are in.
    """
    moved = _Moved(on_progress)
    skipped: list[str] = []
    with _Beside(moved, large=_Lane(1, WAITING), small=_Lane(1, WAITING)) as beside:
        run = _Put(client, site, split_path(path), moved, beside)
        for names, source, size in _walk(local, skipped):
            run.add(names, source, size)
        run.flush()
    return PutResult(run.uploaded, run.unchanged, run.uploaded + run.unchanged, run.bytes, len(skipped), run.refused)


def _walk(local: Path, skipped: list[str]) -> Iterator[tuple[tuple[str, ...], str, int]]:
    """Everything in a folder: names below it, path, and size; -1 for a folder, which comes before what is in it."""
    waiting: list[tuple[tuple[str, ...], str]] = [((), str(local))]  # text, not Path: of thousands of files, paths would cost the most
    while waiting:
        names, folder = waiting.pop()
        try:
            with os.scandir(folder) as found:
                entries = sorted(found, key=lambda entry: entry.name)
            for entry in entries:
                here = (*names, entry.name)
                if entry.is_dir(follow_symlinks=False):
                    yield here, entry.path, -1
                    waiting.append((here, entry.path))
                elif entry.is_file(follow_symlinks=False):
                    yield here, entry.path, entry.stat(follow_symlinks=False).st_size
                else:
                    skipped.append(entry.path)
        except OSError as error:
            raise _unreadable(folder, error) from None


class _Put:
    """One copy into a site under way."""

    def __init__(self, client: Client, site: str, top: tuple[str, ...], moved: _Moved, beside: _Beside) -> None:
        self.uploaded = self.unchanged = self.bytes = 0
        self.refused: list[Refused] = []
        self._client = client
        self._site = site
        self._top = top
        self._moved = moved
        self._beside = beside
        self._counting = threading.Lock()
        self._files: list[BatchFile] = []
        self._folders: list[str] = []
        self._waiting = 0

    def add(self, names: tuple[str, ...], source: str, size: int) -> None:
        """A folder, a small file into the batch, or a large one by itself."""
        path = join_path((*self._top, *names))
        try:
            split_path(path)
        except InvalidRequest as error:
            self.refused.append(Refused(os.fsencode(source).decode(errors="replace"), error.code))
            return
        if size < 0:
            self._room(path, 0)
            self._folders.append(path)
        elif size <= SMALL_FILE:
            with _Source(source) as file:
                data = file.whole()
            self._room(path, len(data))
            self._files.append(BatchFile(path=path, data=data, modified=file.modified))
        else:
            self._beside.start(self._beside.large, self._send_alone, source, path)

    def flush(self) -> None:
        """Have what is in the batch sent."""
        if self._files or self._folders:
            self._beside.start(self._beside.small, self._send, UploadBatch(site=self._site, files=self._files, folders=self._folders))
            self._files, self._folders, self._waiting = [], [], 0

    def _room(self, path: str, size: int) -> None:
        needed = len(path.encode()) + size + ENTRY_BYTES
        if self._waiting + needed > BATCH_BYTES or len(self._files) + len(self._folders) == BATCH_FILES:
            self.flush()
        self._waiting += needed

    def _send(self, batch: UploadBatch) -> None:
        result: BatchResult = self._client.call("site.put-batch", batch)
        self._moved.more(result.size_bytes)
        self._count(result.uploaded, result.unchanged, result.size_bytes)

    def _send_alone(self, source: str, path: str) -> None:
        with _Source(source) as file:
            view = file.send(self._client, self._site, path, self._moved)
        self._count(int(not view.unchanged), int(view.unchanged), view.size_bytes)

    def _count(self, uploaded: int, unchanged: int, size: int) -> None:
        with self._counting:
            self.uploaded += uploaded
            self.unchanged += unchanged
            self.bytes += size


class _Source:
    """A local file that is read from its beginning to its end; a link only where the file itself was named."""

    def __init__(self, path: str | Path, *, follow: bool = False) -> None:
        self._path = path
        self._links = 0 if follow else os.O_NOFOLLOW

    def __enter__(self) -> Self:
        try:
            # Not a link that came in between, and not a pipe that would never answer.
            self._descriptor = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | self._links)
        except OSError as error:
            raise _unreadable(self._path, error) from None
        found = os.fstat(self._descriptor)
        if not stat.S_ISREG(found.st_mode):
            os.close(self._descriptor)
            raise InvalidRequest("file_unreadable", f"{str(self._path)!r} is not a file", "give a file, or --recursive for a folder")
        self.size = found.st_size
        self.modified = datetime.fromtimestamp(found.st_mtime_ns // 1_000_000 / 1_000, UTC)
        return self

    def __exit__(self, *_error: object) -> None:
        os.close(self._descriptor)

    def whole(self) -> bytes:
        """All of it, as long as it is small: what is written to it meanwhile is not sent."""
        data = self._read(min(self.size, SMALL_FILE))
        while len(data) < min(self.size, SMALL_FILE) and (piece := self._read(self.size - len(data))):
            data += piece
        return data

    def send(self, client: Client, site: str, path: str, moved: _Moved) -> FileView:
        """Put it into a site."""
        request = UploadFile(site=site, path=path, parents=True, modified=self.modified)
        left = self.size

        def read(n: int) -> bytes:  # what is written to it meanwhile is not sent: its size was said
            nonlocal left
            data = self._read(min(n, left)) if left else b""
            left -= len(data)
            moved.more(len(data))
            return data

        view: FileView = client.call("site.put", request, upload=Upload(self.size, read))
        return view

    def _read(self, n: int) -> bytes:
        """At most n bytes, and none at the end."""
        try:
            return os.read(self._descriptor, min(n, PIECE))
        except OSError as error:
            raise _unreadable(self._path, error) from None


# -- out ----------------------------------------------------------------------------------------------------------------------------


def list_tree(client: Client, site: str, path: str, *, recursive: bool = False) -> Iterator[FileView]:
    """What lies in a folder, in order of names; with `recursive` what is in its folders too, each behind its folder.

    Raises:
        IntegrityFailure: `file_name_invalid`: the server named something that no file may be named.
        KeysteadError: what the service answered.
    """
    return (view for _names, view in _listed(client, site, split_path(path), recursive=recursive))


def _listed(client: Client, site: str, names: tuple[str, ...], *, recursive: bool) -> Iterator[tuple[tuple[str, ...], FileView]]:
    """The same, each with the names of its path: all of them names that a file may have."""
    waiting = [_of_folder(client, site, names)]
    while waiting:
        found = next(waiting[-1], None)
        if found is None:
            waiting.pop()
            continue
        yield found
        if recursive and found[1].kind == "folder":
            waiting.append(_of_folder(client, site, split_path(found[1].path)))


def _of_folder(client: Client, site: str, names: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], FileView]]:
    path = join_path(names)
    found: list[FileView] = []
    while page := client.call("site.ls", ListFiles(site=site, path=path, after=found[-1].id if found else "", limit=PAGE)):
        if found and page[0].id <= found[-1].id:
            raise _distrusted("the service lists the same files again and again")
        found += page
        if len(page) < PAGE:
            break
    for view in sorted(found, key=lambda one: one.name):
        checked_name(view.name)
        here = (*names, view.name)
        if view.path != join_path(here):
            here = (*names[:-1], view.name)  # of a file, the file itself
            if view.kind != "file" or view.path != join_path(here):
                raise _distrusted("the service named a file in another folder than the one that was asked for")
        yield here, view


def checked_name(name: str) -> str:
    """A name that a server gave, before it becomes one here.

    Raises:
        IntegrityFailure: it could lead elsewhere.
    """
    try:
        check_name(name)
    except InvalidRequest:
        raise _distrusted("the service named a file as no file may be named") from None
    return name


def _distrusted(what: str) -> IntegrityFailure:
    return IntegrityFailure("file_name_invalid", what, "do not trust this server")


def get_file(
    client: Client, site: str, path: str, local: Path, *, version: int | None = None, on_progress: Progress | None = None
) -> FileView:
    """Write one file of a site to a local one, whole or not at all.

    Raises:
        Conflict: `not_a_file`.
        InvalidRequest: `file_unwritable`.
        KeysteadError: what the service answered.
    """
    names = split_path(path)
    entries: list[FileView] = client.call("site.ls", ListFiles(site=site, path=path, limit=2)) if names else []
    view = entries[0] if len(entries) == 1 and entries[0].kind == "file" and entries[0].path == join_path(names) else None
    content: Content = client.call("site.get", DownloadFile(site=site, path=path, version=version))
    modified = view.modified if view is not None else None
    write_file(local, _counted(content.chunks, _Moved(on_progress)), modified)
    if view is None:
        raise NotFound("file_not_found", "the file was deleted while it was read", "what was read of it was written")
    return view


def get_tree(
    client: Client, site: str, path: str, folder: Path, *, overwrite: bool = False, on_progress: Progress | None = None
) -> GetResult:
    """Write what is in a folder of a site to a local folder.

    Args:
        client: calls as somebody who may use the site.
        site: URL or id.
        path: the folder of the site.
        folder: made where it does not exist; what is written is for its owner alone.
        overwrite: whether the folder may hold something already; files of the same names are replaced.
        on_progress: told how many bytes are done, by one thread at a time.

    Raises:
        Conflict: `folder_not_empty`.
        InvalidRequest: `file_unwritable`.
        IntegrityFailure: `file_name_invalid`: also for a link in the folder that leads out of it.
        KeysteadError: what the service answered; files written before stay.
    """
    prepare(folder, overwrite=overwrite)
    top = split_path(path)
    moved = _Moved(on_progress)
    folders = 0
    with _Beside(moved, large=_Lane(2, WAITING), small=_Lane(WRITERS, GROUPS)) as beside:
        run = _Get(client, site, moved, beside)
        for names, view in _listed(client, site, top, recursive=True):
            below = names[len(top) :]
            if not below:
                raise Conflict("not_a_folder", "the path names a file, not a folder", "leave out --recursive")
            place = "/".join((str(folder), *below[:-1]))
            if view.kind == "folder":
                folders += 1
                make_folder(Path(place, view.name))
            elif view.kind == "file":
                run.add(view, place)
        run.flush()
    return GetResult(str(folder), run.files, folders, run.bytes)


class _Get:
    """One copy out of a site under way."""

    def __init__(self, client: Client, site: str, moved: _Moved, beside: _Beside) -> None:
        self.files = self.bytes = 0
        self._client = client
        self._site = site
        self._moved = moved
        self._beside = beside
        self._counting = threading.Lock()
        self._wanted: dict[str, tuple[FileView, str]] = {}
        self._size = 0

    def add(self, view: FileView, folder: str) -> None:
        """A small file for the next batch, or a large one by itself."""
        if view.size_bytes > SMALL_FILE:
            self._beside.start(self._beside.large, self._get_alone, view, folder)
            return
        if self._size + view.size_bytes > GET_BYTES or len(self._wanted) == MAX_GET_FILES:
            self.flush()
        self._wanted[view.id] = (view, folder)
        self._size += view.size_bytes

    def flush(self) -> None:
        """Fetch those that wait, and have them written, folder by folder: two threads in one folder would wait for each other."""
        if not self._wanted:
            return
        content: Content = self._client.call("site.get-batch", GetBatch(site=self._site, files=list(self._wanted)))
        late: list[tuple[FileView, str]] = []
        group: list[NewFile] = []
        place, size = "", 0
        for file_id, data in frames.split(content.chunks, largest=CHUNK_BYTES):
            found = self._wanted.pop(file_id, None)
            if found is None:
                raise IntegrityFailure("file_name_invalid", "the service sent a file that was not asked for", "do not trust this server")
            if data is None:
                late.append(found)
                continue
            view, folder = found
            if group and (folder != place or size > GROUP_BYTES):
                self._beside.share(self._beside.small, self._write, place, group)
                group, size = [], 0
            place = folder
            group.append(NewFile(view.name, data, view.modified))
            size += len(data)
        if group:
            self._beside.share(self._beside.small, self._write, place, group)
        late += self._wanted.values()
        self._wanted, self._size = {}, 0
        for view, folder in late:  # it was deleted or has become large since the folder was listed
            with suppress(NotFound):
                self._get_alone(view, folder)

    def _write(self, folder: str, group: list[NewFile]) -> None:
        write_files(folder, group)
        size = sum(len(file.data) for file in group)
        self._moved.more(size)
        self._count(len(group), size)

    def _get_alone(self, view: FileView, folder: str) -> None:
        content: Content = self._client.call("site.get", DownloadFile(site=self._site, path=view.path))
        write_file(Path(folder, view.name), _counted(content.chunks, self._moved), view.modified)
        self._count(1, content.size)

    def _count(self, files: int, size: int) -> None:
        with self._counting:
            self.files += files
            self.bytes += size


def _counted(chunks: Iterable[bytes], moved: _Moved) -> Iterator[bytes]:
    for chunk in chunks:
        yield chunk
        moved.more(len(chunk))


def _unreadable(path: str | Path, error: OSError) -> InvalidRequest:
    return InvalidRequest("file_unreadable", f"{str(path)!r} cannot be read: {error.strerror}", "check the path and its permissions")
