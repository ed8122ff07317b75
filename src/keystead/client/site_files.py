"""Copying between folders and sites: the loops that the command line, the demo and the benchmarks share.

Files travel in batches, large ones each as a stream; memory stays flat. Symbolic links are not followed. What comes from a server is checked
before it becomes a file name: it never leads out of the folder that was named.
"""

from __future__ import annotations

import os
import stat
from contextlib import ExitStack, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Self, cast

import msgspec

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
from keystead.client import beside
from keystead.client.local_files import make_folder, prepare, write_file
from keystead.client.tree_writer import Place, Task, WriterBeside, WriterHere
from keystead.core.errors import Conflict, IntegrityFailure, InvalidRequest, NotFound
from keystead.core.stores.paths import check_name, join_path, split_path

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from keystead.api.call import Content
    from keystead.client.client import Client
    from keystead.client.tree_writer import TreeWriter

    Progress = Callable[[float], None]

BATCHED_FILE = 12 * 1024 * 1024
"""Files of at most this many bytes travel in batches: a batch that goes in is one commit, and waits for the disk once."""
SMALL_FILE = 1024 * 1024
"""Of at most this many bytes: where batches cannot be large, these go in apart from larger ones, with as many as possible in each."""
LARGE_BATCH = 4 * BATCHED_FILE
BATCH_FILES = 2_000
GET_BYTES = 128 * 1024 * 1024
"""What one answer with many files holds at most, about: it is streamed, and the more it holds the less often the same rows are looked at."""
ENTRY_BYTES = 128
"""What a file of a batch takes beside its path and its bytes, at most."""
PAGE = 1_000
PIECE = 4 * 1024 * 1024
BESIDE_FILES, BESIDE_BYTES = 250, 16 * 1024 * 1024
"""From how many files or bytes on another process writes them: to start one takes a tenth of a second."""


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


class _Moved:
    """Counts the bytes that were moved, and tells of them."""

    def __init__(self, on_progress: Progress | None) -> None:
        self._on_progress = on_progress
        self._bytes = 0.0

    def more(self, size: float) -> None:
        """So many bytes more."""
        self._bytes += size
        if self._on_progress is not None:
            self._on_progress(self._bytes)


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
        on_progress: told how many bytes are done.

    Raises:
        InvalidRequest: `file_unreadable`, or a path that is none.
        KeysteadError: what the service answered; files before it are in.
    """
    skipped: list[str] = []
    run = _Put(client, site, split_path(path), _Moved(on_progress))
    for names, source, size in _walk(local, skipped):
        run.add(names, source, size)
    run.finish()
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


class _Batch:
    """What waits to be sent together; `waiting`: bytes of the request it will be, at most.

    Its files lie in one buffer that is used again and again: fresh memory for all of them would take longer than to read them.
    """

    def __init__(self, most: int) -> None:
        self._buffer = memoryview(bytearray(most))
        self.empty()

    def empty(self) -> None:
        """What was in it may be overwritten from now on."""
        self.files: list[BatchFile] = []
        self.folders: list[str] = []
        self.waiting = self._used = 0

    def taken_in(self, file: _Source) -> bytes:
        """All of a file there is room for. They are bytes to whoever looks at them until the batch is emptied."""
        view = file.into(self._buffer[self._used : self._used + file.size])
        self._used += len(view)
        return cast("bytes", view)


class _Put:
    """One copy into a site under way."""

    def __init__(self, client: Client, site: str, top: tuple[str, ...], moved: _Moved) -> None:
        self.uploaded = self.unchanged = self.bytes = 0
        self.refused: list[Refused] = []
        self._client = client
        self._site = site
        self._top = top
        self._moved = moved
        self._small = _Batch(client.batch_bytes)
        self._middle = self._small if client.batch_bytes >= LARGE_BATCH else _Batch(client.batch_bytes)

    def add(self, names: tuple[str, ...], source: str, size: int) -> None:
        """A folder or a file into a batch, or a large one by itself. How large it is counts when it is opened."""
        path = join_path((*self._top, *names))
        try:
            split_path(path)
        except InvalidRequest as error:
            self.refused.append(Refused(os.fsencode(source).decode(errors="replace"), error.code))
            return
        if size < 0:
            self._room(self._small, path, 0).folders.append(path)
            return
        with _Source(source) as file:
            if file.size > BATCHED_FILE:
                view = file.send(self._client, self._site, path, self._moved)
                self._count(int(not view.unchanged), int(view.unchanged), view.size_bytes)
            else:
                batch = self._room(self._small if file.size <= SMALL_FILE else self._middle, path, file.size)
                batch.files.append(BatchFile(path=path, data=batch.taken_in(file), modified=file.modified))

    def finish(self) -> None:
        """Send what is left."""
        for batch in (self._small, self._middle):
            self._send(batch)

    def _send(self, batch: _Batch) -> None:
        if batch.files or batch.folders:
            request = UploadBatch(site=self._site, files=batch.files, folders=batch.folders)
            result: BatchResult = self._client.call("site.put-batch", request)
            batch.empty()
            self._moved.more(result.size_bytes)
            self._count(result.uploaded, result.unchanged, result.size_bytes)

    def _room(self, batch: _Batch, path: str, size: int) -> _Batch:
        """The batch, with room for one more."""
        needed = len(path.encode()) + size + ENTRY_BYTES
        if batch.waiting + needed > self._client.batch_bytes or len(batch.files) + len(batch.folders) == BATCH_FILES:
            self._send(batch)
        batch.waiting += needed
        return batch

    def _count(self, uploaded: int, unchanged: int, size: int) -> None:
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

    def into(self, buffer: memoryview) -> memoryview:
        """All of it into a buffer as long as it was when it was opened; the part of the buffer that it fills."""
        used = 0
        try:
            while used < len(buffer) and (read := os.readv(self._descriptor, [buffer[used:]])):
                used += read
        except OSError as error:
            raise _unreadable(self._path, error) from None
        return buffer[:used]

    def send(self, client: Client, site: str, path: str, moved: _Moved) -> FileView:
        """Put it into a site."""
        request = UploadFile(site=site, path=path, parents=True, modified=self.modified)
        left = self.size

        def read(n: int) -> bytes:  # what is written to it meanwhile is not sent: its size was said
            nonlocal left
            try:
                data = os.read(self._descriptor, min(n, left, PIECE)) if left else b""
            except OSError as error:
                raise _unreadable(self._path, error) from None
            left -= len(data)
            moved.more(len(data))
            return data

        view: FileView = client.call("site.put", request, upload=Upload(self.size, read))
        return view


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
    write_file(local, _told(content.chunks, _Moved(on_progress)), modified)
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
        on_progress: told how many bytes are done.

    Raises:
        Conflict: `folder_not_empty`.
        InvalidRequest: `file_unwritable`.
        IntegrityFailure: `file_name_invalid`: also for a link in the folder that leads out of it.
        KeysteadError: what the service answered; files written before stay.
    """
    prepare(folder, overwrite=overwrite)
    top, target = split_path(path), str(folder.absolute())  # for another process, too, whatever becomes of the working directory
    folders = 0
    with _Get(client, site, _Moved(on_progress)) as run:
        for names, view in _listed(client, site, top, recursive=True):
            below = names[len(top) :]
            if not below:
                raise Conflict("not_a_folder", "the path names a file, not a folder", "leave out --recursive")
            place = "/".join((target, *below[:-1]))
            if view.kind == "folder":
                folders += 1
                make_folder(Path(place, view.name))
            elif view.kind == "file":
                run.add(view, place)
        run.finish()
    return GetResult(str(folder), run.files, folders, run.bytes)


class _Get:
    """One copy out of a site under way. Where it is large, a process of its own writes what this one opens."""

    def __init__(self, client: Client, site: str, moved: _Moved) -> None:
        self.files = self.bytes = 0
        self._client = client
        self._site = site
        self._moved = moved
        self._open = ExitStack()
        self._writer: TreeWriter = WriterHere()
        self._may_start = True
        self._seen_files = self._seen_bytes = 0
        self._wanted: dict[str, tuple[FileView, str]] = {}
        self._size = 0
        self._under_way: dict[str, tuple[FileView, str]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._open.__exit__(*error)  # type: ignore[arg-type]  # as it is called itself

    def add(self, view: FileView, folder: str) -> None:
        """A file for the next batch, or a large one by itself."""
        self._seen_files += 1
        self._seen_bytes += view.size_bytes
        large = self._seen_files > BESIDE_FILES or self._seen_bytes > BESIDE_BYTES
        if large and self._may_start and beside.can_run(folder):
            self._may_start = False
            self._settle()
            with suppress(OSError):  # a limit on files, memory or processes: it goes on here
                self._writer = self._open.enter_context(WriterBeside())
        if view.size_bytes > BATCHED_FILE:
            self._get_alone(view, folder, self._moved)
            return
        if self._size + view.size_bytes > GET_BYTES or len(self._wanted) == MAX_GET_FILES:
            self._get_batch()
        self._wanted[view.id] = (view, folder)
        self._size += view.size_bytes

    def finish(self) -> None:
        """Fetch those that wait, until all are written."""
        if self._wanted:
            self._get_batch()
        self._settle()

    def _get_batch(self) -> None:
        self._settle()
        wanted, self._wanted = self._wanted, {}
        size, self._size = self._size, 0
        content: Content = self._client.call("site.get-batch", GetBatch(site=self._site, files=list(wanted)))
        # Who looks on is told of the files alone, not of what stands between them.
        told = _told(content.chunks, self._moved, size / content.size if content.size else 0)
        self._writer.begin(Task(content.size, [_place(view, folder) for view, folder in wanted.values()], list(wanted)), told)
        self._under_way = wanted

    def _get_alone(self, view: FileView, folder: str, moved: _Moved) -> None:
        self._settle()
        content: Content = self._client.call("site.get", DownloadFile(site=self._site, path=view.path))
        self._writer.begin(Task(content.size, [_place(view, folder)]), _told(content.chunks, moved))
        self._under_way = {view.id: (view, folder)}

    def _settle(self) -> None:
        """Until all that is under way is written. What an answer had no bytes of is fetched by itself."""
        while self._under_way:
            under_way, self._under_way = self._under_way, {}
            done = self._writer.outcome()
            self.files += done.files
            self.bytes += done.bytes
            for file_id in done.missing:  # it was deleted or has become large since the folder was listed
                with suppress(NotFound):
                    self._get_alone(*under_way[file_id], _Moved(None))  # it was told of with its batch


def _place(view: FileView, folder: str) -> Place:
    return Place(folder, view.name, view.size_bytes, view.modified)


def _told(chunks: Iterable[bytes], moved: _Moved, worth: float = 1.0) -> Iterator[bytes]:
    for chunk in chunks:
        yield chunk
        moved.more(len(chunk) * worth)


def _unreadable(path: str | Path, error: OSError) -> InvalidRequest:
    return InvalidRequest("file_unreadable", f"{str(path)!r} cannot be read: {error.strerror}", "check the path and its permissions")
