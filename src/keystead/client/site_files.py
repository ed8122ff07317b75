"""Copying between folders and sites: the loops that the command line, the demo and the benchmarks share.

Small files travel in batches, large ones each as a stream; memory stays flat. Symbolic links are not followed. What comes from a server is
checked before it becomes a file name: it never leads out of the folder that was named.
"""

from __future__ import annotations

import os
import stat
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
from keystead.client.local_files import make_folder, prepare, write_file, write_small_file
from keystead.core.errors import Conflict, IntegrityFailure, InvalidRequest, NotFound
from keystead.core.stores.files import CHUNK_BYTES
from keystead.core.stores.paths import check_name, join_path, split_path

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

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


class _Moved:
    """Counts the bytes that were moved, and tells of them."""

    def __init__(self, on_progress: Progress | None) -> None:
        self._on_progress = on_progress
        self._bytes = 0

    def more(self, size: int) -> None:
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

    def __init__(self, client: Client, site: str, top: tuple[str, ...], moved: _Moved) -> None:
        self.uploaded = self.unchanged = self.bytes = 0
        self.refused: list[Refused] = []
        self._client = client
        self._site = site
        self._top = top
        self._moved = moved
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
            with _Source(source) as file:
                view = file.send(self._client, self._site, path, self._moved)
            self._count(int(not view.unchanged), int(view.unchanged), view.size_bytes)

    def flush(self) -> None:
        """Send what is in the batch."""
        if self._files or self._folders:
            batch = UploadBatch(site=self._site, files=self._files, folders=self._folders)
            result: BatchResult = self._client.call("site.put-batch", batch)
            self._files, self._folders, self._waiting = [], [], 0
            self._moved.more(result.size_bytes)
            self._count(result.uploaded, result.unchanged, result.size_bytes)

    def _room(self, path: str, size: int) -> None:
        needed = len(path.encode()) + size + ENTRY_BYTES
        if self._waiting + needed > BATCH_BYTES or len(self._files) + len(self._folders) == BATCH_FILES:
            self.flush()
        self._waiting += needed

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
        on_progress: told how many bytes are done.

    Raises:
        Conflict: `folder_not_empty`.
        InvalidRequest: `file_unwritable`.
        IntegrityFailure: `file_name_invalid`: also for a link in the folder that leads out of it.
        KeysteadError: what the service answered; files written before stay.
    """
    prepare(folder, overwrite=overwrite)
    top = split_path(path)
    run = _Get(client, site, _Moved(on_progress))
    folders = 0
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
    """One copy out of a site under way.

    It has no threads: what the service does for it has some, and beside those they would mostly wait for their turn to run Python.
    """

    def __init__(self, client: Client, site: str, moved: _Moved) -> None:
        self.files = self.bytes = 0
        self._client = client
        self._site = site
        self._moved = moved
        self._wanted: dict[str, tuple[FileView, str]] = {}
        self._size = 0

    def add(self, view: FileView, folder: str) -> None:
        """A small file for the next batch, or a large one by itself."""
        if view.size_bytes > SMALL_FILE:
            self._get_alone(view, folder)
            return
        if self._size + view.size_bytes > GET_BYTES or len(self._wanted) == MAX_GET_FILES:
            self.flush()
        self._wanted[view.id] = (view, folder)
        self._size += view.size_bytes

    def flush(self) -> None:
        """Fetch those that wait."""
        if not self._wanted:
            return
        content: Content = self._client.call("site.get-batch", GetBatch(site=self._site, files=list(self._wanted)))
        late: list[tuple[FileView, str]] = []
        for file_id, data in frames.split(content.chunks, largest=CHUNK_BYTES):
            found = self._wanted.pop(file_id, None)
            if found is None:
                raise IntegrityFailure("file_name_invalid", "the service sent a file that was not asked for", "do not trust this server")
            if data is None:
                late.append(found)
                continue
            view, folder = found
            write_small_file(folder, view.name, data, view.modified)
            self._moved.more(len(data))
            self._count(len(data))
        late += self._wanted.values()
        self._wanted, self._size = {}, 0
        for view, folder in late:  # it was deleted or has become large since the folder was listed
            with suppress(NotFound):
                self._get_alone(view, folder)

    def _get_alone(self, view: FileView, folder: str) -> None:
        content: Content = self._client.call("site.get", DownloadFile(site=self._site, path=view.path))
        write_file(Path(folder, view.name), _counted(content.chunks, self._moved), view.modified)
        self._count(content.size)

    def _count(self, size: int) -> None:
        self.files += 1
        self.bytes += size


def _counted(chunks: Iterable[bytes], moved: _Moved) -> Iterator[bytes]:
    for chunk in chunks:
        yield chunk
        moved.more(len(chunk))


def _unreadable(path: str | Path, error: OSError) -> InvalidRequest:
    return InvalidRequest("file_unreadable", f"{str(path)!r} cannot be read: {error.strerror}", "check the path and its permissions")
