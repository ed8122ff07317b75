"""Copying between folders and sites: the loops that the command line, the demo and the benchmarks share.

Small files travel in batches, large ones each as a stream; memory stays flat. Symbolic links are not followed. What comes from a server is
checked before it becomes a file name: it never leads out of the folder that was named.
"""

from __future__ import annotations

import os
import secrets
import stat
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Self

import msgspec

from keystead.api import frames
from keystead.api.call import Upload
from keystead.api.types.sites import BatchFile, BatchResult, DownloadFile, FileView, GetBatch, ListFiles, UploadBatch, UploadFile
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
BATCH_BYTES = 7 * 1024 * 1024
BATCH_FILES = 2_000
GET_FILES = 4_000
GET_BYTES = 32 * 1024 * 1024
"""What one answer with many files holds at most, about."""
ENTRY_BYTES = 128
"""What a file of a batch takes beside its path and its bytes, at most."""
PAGE = 1_000
WRITERS, WRITTEN_AHEAD = 3, 32
"""Threads that write local files while the next ones are opened, and how many small files may wait for them."""
PIECE = 4 * 1024 * 1024
OWNER_ONLY, OWNER_FOLDER = 0o600, 0o700


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
    with _Source(local, on_progress, follow=True) as source:
        return source.send(client, site, path)


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
    run = _Put(client, site, split_path(path), on_progress)
    skipped: list[Path] = []
    for names, source, size in _walk(local, skipped):
        run.add(names, source, size)
    run.flush()
    return PutResult(run.uploaded, run.unchanged, run.uploaded + run.unchanged, run.done, len(skipped), run.refused)


def _walk(local: Path, skipped: list[Path]) -> Iterator[tuple[tuple[str, ...], Path, int]]:
    """Everything in a folder: names below it, path, and size; -1 for a folder, which comes before what is in it."""
    waiting: list[tuple[tuple[str, ...], Path]] = [((), local)]
    while waiting:
        names, folder = waiting.pop()
        try:
            with os.scandir(folder) as found:
                entries = sorted(found, key=lambda entry: entry.name)
            for entry in entries:
                here = (*names, entry.name)
                if entry.is_dir(follow_symlinks=False):
                    yield here, Path(entry.path), -1
                    waiting.append((here, Path(entry.path)))
                elif entry.is_file(follow_symlinks=False):
                    yield here, Path(entry.path), entry.stat(follow_symlinks=False).st_size
                else:
                    skipped.append(Path(entry.path))
        except OSError as error:
            raise _unreadable(folder, error) from None


class _Put:
    """One copy into a site under way."""

    def __init__(self, client: Client, site: str, top: tuple[str, ...], on_progress: Progress | None) -> None:
        self.uploaded = self.unchanged = self.done = 0
        self.refused: list[Refused] = []
        self._client = client
        self._site = site
        self._top = top
        self._on_progress = on_progress
        self._files: list[BatchFile] = []
        self._folders: list[str] = []
        self._bytes = 0

    def add(self, names: tuple[str, ...], source: Path, size: int) -> None:
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
            done = self.done
            with _Source(source, lambda sent: self._told(done + sent)) as file:
                view = file.send(self._client, self._site, path)
            self._count(int(not view.unchanged), int(view.unchanged), view.size_bytes)

    def flush(self) -> None:
        """Send what is in the batch."""
        if self._files or self._folders:
            request = UploadBatch(site=self._site, files=self._files, folders=self._folders)
            result: BatchResult = self._client.call("site.put-batch", request)
            self._files, self._folders, self._bytes = [], [], 0
            self._count(result.uploaded, result.unchanged, result.size_bytes)

    def _room(self, path: str, size: int) -> None:
        needed = len(path.encode()) + size + ENTRY_BYTES
        if self._bytes + needed > BATCH_BYTES or len(self._files) + len(self._folders) == BATCH_FILES:
            self.flush()
        self._bytes += needed

    def _count(self, uploaded: int, unchanged: int, size: int) -> None:
        self.uploaded += uploaded
        self.unchanged += unchanged
        self.done += size
        self._told(self.done)

    def _told(self, done: float) -> None:
        if self._on_progress is not None:
            self._on_progress(done)


class _Source:
    """A local file that is read from its beginning to its end; a link only where the file itself was named."""

    def __init__(self, path: Path, on_progress: Progress | None = None, *, follow: bool = False) -> None:
        self._path = path
        self._links = 0 if follow else os.O_NOFOLLOW
        self._on_progress = on_progress
        self._sent = 0

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
        """All of it, as long as it is small."""
        pieces = []
        left = SMALL_FILE
        while left and (piece := self.read(left)):
            pieces.append(piece)
            left -= len(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def read(self, n: int) -> bytes:
        """At most n bytes, and none at the end."""
        try:
            data = os.read(self._descriptor, min(n, PIECE))
        except OSError as error:
            raise _unreadable(self._path, error) from None
        self._sent += len(data)
        if self._on_progress is not None:
            self._on_progress(self._sent)
        return data

    def send(self, client: Client, site: str, path: str) -> FileView:
        """Put it into a site."""
        request = UploadFile(site=site, path=path, parents=True, modified=self.modified)
        left = self.size

        def read(n: int) -> bytes:  # what is written to it meanwhile is not sent: its size was said
            nonlocal left
            data = self.read(min(n, left)) if left else b""
            left -= len(data)
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
    found: list[FileView] = []
    while page := client.call("site.ls", ListFiles(site=site, path=path, after=found[-1].id if found else "", limit=PAGE)):
        if found and page[0].id <= found[-1].id:
            raise _distrusted("the service lists the same files again and again")
        found += page
        if len(page) < PAGE:
            break
    names = split_path(path)
    for view in sorted(found, key=lambda one: one.name):
        checked_name(view.name)
        if view.path != join_path((*names, view.name)) and (view.kind != "file" or view.path != join_path((*names[:-1], view.name))):
            raise _distrusted("the service named a file in another folder than the one that was asked for")
        yield view
        if recursive and view.kind == "folder":
            yield from list_tree(client, site, join_path((*split_path(path), view.name)), recursive=True)


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
    _write(local.parent, local.name, _counted(content.chunks, on_progress), modified)
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
    _prepare(folder, overwrite=overwrite)
    top = split_path(path)
    folders = 0
    with _Get(client, site, on_progress) as run:
        for view in list_tree(client, site, path, recursive=True):
            names = split_path(view.path)[len(top) :]
            if not names:
                raise Conflict("not_a_folder", "the path names a file, not a folder", "leave out --recursive")
            target = folder.joinpath(*map(checked_name, names))
            if view.kind == "folder":
                folders += 1
                _make_folder(target)
            elif view.kind == "file":
                run.add(view, target)
        run.flush()
        run.settle()
    return GetResult(str(folder), run.files, folders, run.done)


class _Get:
    """One copy out of a site under way."""

    def __init__(self, client: Client, site: str, on_progress: Progress | None) -> None:
        self.files = self.done = 0
        self._client = client
        self._site = site
        self._on_progress = on_progress
        self._waiting: dict[str, tuple[FileView, Path]] = {}
        self._bytes = 0
        self._writers = ThreadPoolExecutor(WRITERS, thread_name_prefix="write-files")
        self._written: deque[Future[None]] = deque()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self._writers.shutdown(wait=True, cancel_futures=True)

    def settle(self) -> None:
        """Wait until all files are written. Raises: `InvalidRequest` for one that could not be."""
        while self._written:
            self._written.popleft().result()

    def add(self, view: FileView, target: Path) -> None:
        """A small file for the next batch, or a large one by itself."""
        if view.size_bytes > SMALL_FILE:
            self._alone(view, target)
            return
        if self._bytes + view.size_bytes > GET_BYTES or len(self._waiting) == GET_FILES:
            self.flush()
        self._waiting[view.id] = (view, target)
        self._bytes += view.size_bytes

    def flush(self) -> None:
        """Fetch those that wait."""
        if not self._waiting:
            return
        content: Content = self._client.call("site.get-batch", GetBatch(site=self._site, files=list(self._waiting)))
        late: list[tuple[FileView, Path]] = []
        for file_id, data in frames.split(content.chunks, largest=CHUNK_BYTES):
            found = self._waiting.pop(file_id, None)
            if found is None:
                raise IntegrityFailure("file_name_invalid", "the service sent a file that was not asked for", "do not trust this server")
            view, target = found
            if data is None:
                late.append(found)
            else:
                self._written.append(self._writers.submit(_write, target.parent, target.name, (data,), view.modified))
                if len(self._written) > WRITTEN_AHEAD:
                    self._written.popleft().result()
                self._count(len(data))
        late += self._waiting.values()
        self._waiting, self._bytes = {}, 0
        for view, target in late:  # it was deleted or has become large since the folder was listed
            with suppress(NotFound):
                self._alone(view, target)

    def _alone(self, view: FileView, target: Path) -> None:
        content: Content = self._client.call("site.get", DownloadFile(site=self._site, path=view.path))
        done = self.done
        _write(target.parent, target.name, _counted(content.chunks, lambda got: self._told(done + got)), view.modified)
        self._count(content.size)

    def _count(self, size: int) -> None:
        self.files += 1
        self.done += size
        self._told(self.done)

    def _told(self, done: float) -> None:
        if self._on_progress is not None:
            self._on_progress(done)


def _counted(chunks: Iterable[bytes], on_progress: Progress | None) -> Iterator[bytes]:
    done = 0
    for chunk in chunks:
        yield chunk
        done += len(chunk)
        if on_progress is not None:
            on_progress(done)


def _write(folder: Path, name: str, chunks: Iterable[bytes], modified: datetime | None) -> None:
    """Write a file whole or not at all: under another name first, so a crash leaves at most that. Links are replaced, never followed."""
    temporary = f"{folder}/.keystead-{secrets.token_hex(8)}.tmp"
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, OWNER_ONLY)
    except OSError as error:
        raise _unwritable(folder / name, error) from None
    try:
        try:
            for chunk in chunks:
                rest = memoryview(chunk)
                while rest:
                    rest = rest[os.write(descriptor, rest) :]
            if modified is not None:
                nanoseconds = round(modified.timestamp() * 1_000) * 1_000_000
                os.utime(descriptor, ns=(nanoseconds, nanoseconds))
        finally:
            os.close(descriptor)
        os.replace(temporary, f"{folder}/{name}")  # noqa: PTH105 - text paths: this is done for thousands of files
    except BaseException as error:
        with suppress(OSError):
            os.unlink(temporary)  # noqa: PTH108 - as above
        if isinstance(error, OSError):
            raise _unwritable(folder / name, error) from None
        raise


def _prepare(folder: Path, *, overwrite: bool) -> None:
    try:
        folder.mkdir(mode=OWNER_FOLDER, parents=True, exist_ok=True)
        empty = next(folder.iterdir(), None) is None
    except OSError as error:
        raise _unwritable(folder, error) from None
    if not empty and not overwrite:
        raise Conflict("folder_not_empty", f"the folder {str(folder)!r} is not empty", "choose an empty one, or add --yes")


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(mode=OWNER_FOLDER, exist_ok=True)
        link = folder.is_symlink()
    except OSError as error:
        raise _unwritable(folder, error) from None
    if link:
        raise IntegrityFailure(
            "file_name_invalid", f"{str(folder)!r} is a link, which may lead elsewhere", "remove it, or choose another folder"
        )


def _unreadable(path: Path, error: OSError) -> InvalidRequest:
    return InvalidRequest("file_unreadable", f"{str(path)!r} cannot be read: {error.strerror}", "check the path and its permissions")


def _unwritable(path: Path, error: OSError) -> InvalidRequest:
    return InvalidRequest(
        "file_unwritable", f"{str(path)!r} cannot be written: {error.strerror}", "check the path, its permissions and the room on the disk"
    )
