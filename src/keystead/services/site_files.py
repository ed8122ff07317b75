"""Files of sites for clients: what the rows `site.*` of the API run, over `services/files.py`."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from keystead.api import frames
from keystead.api.call import Content
from keystead.api.types.base import millis, utc
from keystead.api.types.sites import BatchResult, FileView, RemovedView, VersionView
from keystead.core.errors import InvalidRequest
from keystead.core.ids import is_id
from keystead.core.stores.files import CHUNK_BYTES, NodeKind
from keystead.core.stores.paths import join_path, split_path
from keystead.services import files
from keystead.services.sites import open_site

if TYPE_CHECKING:
    from collections.abc import Iterator

    from keystead.api.call import Call, Upload
    from keystead.api.types import sites as t
    from keystead.core.stores.files import Node
    from keystead.services.context import Services
    from keystead.services.file_reading import Part

PIECE = 1024 * 1024
"""How much of an answer with many files is given away at a time."""
ID_CHARACTERS = 36
"""Of an id as listings have it."""
BYTES = "application/octet-stream"
_FIRST, _LAST = millis(datetime(1, 1, 1, tzinfo=UTC)), millis(datetime(9999, 12, 31, 23, 59, 59, 999_000, tzinfo=UTC))


def list_files(services: Services, call: Call, request: t.ListFiles) -> list[FileView]:
    """What lies in a folder."""
    opened = open_site(services, call, request.site)
    names = split_path(request.path)
    at, found = files.listed(services, opened, request.path, after=request.after, limit=request.limit)
    return [_view(entry, names[:-1] if at.kind is NodeKind.FILE else names) for entry in found]


def upload(services: Services, call: Call, request: t.UploadFile, body: Upload) -> FileView:
    """Write a file, or a part of one."""
    part = request.offset is not None
    opened = open_site(services, call, request.site, put=not part, change=part)
    modified = _millis(request.modified)
    if request.offset is not None:
        entry = files.write(
            services,
            call,
            opened,
            request.path,
            request.offset,
            _pieces(body),
            size=body.size,
            if_version=request.if_version,
            modified=modified,
        )
    else:
        entry = files.put(
            services,
            call,
            opened,
            request.path,
            _pieces(body),
            size=body.size,
            if_version=request.if_version,
            parents=request.parents,
            modified=modified,
            media_type=request.media_type,
        )
    return _view(entry, split_path(request.path)[:-1])


def upload_batch(services: Services, call: Call, request: t.UploadBatch) -> BatchResult:
    """Write many files, and make folders."""
    opened = open_site(services, call, request.site, put=True)
    new = [files.NewFile(one.path, one.data, _millis(one.modified), one.media_type) for one in request.files]
    done = files.put_many(services, call, opened, new, folders=request.folders)
    unchanged = sum(entry.unchanged for entry in done)
    return BatchResult(uploaded=len(done) - unchanged, unchanged=unchanged, size_bytes=sum(len(one.data) for one in request.files))


def download(services: Services, call: Call, request: t.DownloadFile) -> Content:
    """The bytes of a file, or some of them."""
    opened = open_site(services, call, request.site)
    file = files.open_path(services, call, opened, request.path, version=request.version)
    chunks = files.contents(services, call, file, offset=request.offset, length=request.length)
    left = file.manifest.size - request.offset
    size = left if request.length is None else min(left, request.length)
    return Content(size, file.manifest.media_type or BYTES, chunks)


def download_batch(services: Services, call: Call, request: t.GetBatch) -> Content:
    """The bytes of many files."""
    if not all(len(one) == ID_CHARACTERS and is_id(one) for one in request.files):
        raise InvalidRequest("file_id_invalid", "a file is named by something that is no id", "give the ids that site ls shows")
    opened = open_site(services, call, request.site)
    parts, gone = files.open_many(services, call, opened, list(dict.fromkeys(map(str.lower, request.files))))
    size = sum(frames.HEAD.size + part.file.manifest.size for part in parts if not part.number) + frames.HEAD.size * len(gone)
    return Content(size, BYTES, _framed(files.read_many(services, call, opened, parts), gone))


def make_folder(services: Services, call: Call, request: t.MakeFolder) -> FileView:
    """Make a folder."""
    opened = open_site(services, call, request.site, put=True)
    entry = files.make_folder(services, call, opened, request.path, parents=request.parents)
    return _view(entry, split_path(request.path)[:-1])


def move(services: Services, call: Call, request: t.MoveFile) -> FileView:
    """Rename or move a file or folder."""
    opened = open_site(services, call, request.site, change=True)
    return _view(files.move(services, call, opened, request.path, request.to, replace=request.replace), split_path(request.to)[:-1])


def remove(services: Services, call: Call, request: t.RemoveFile) -> RemovedView:
    """Delete a file or folder."""
    opened = open_site(services, call, request.site, change=True)
    gone = files.delete(services, call, opened, request.path, recursive=request.recursive)
    return RemovedView(id=gone.node.id, files=gone.files, folders=gone.folders)


def versions(services: Services, call: Call, request: t.NameFile) -> list[VersionView]:
    """The versions of a file, newest first."""
    opened = open_site(services, call, request.site)
    node, found = files.versions(services, opened, request.path)
    return [
        VersionView(
            number=one.number,
            size_bytes=one.size,
            created=utc(one.created),
            created_by=one.created_by,
            current=one.number == node.version,
        )
        for one in found
    ]


def restore_version(services: Services, call: Call, request: t.RestoreVersion) -> FileView:
    """Make an old version the current one again."""
    opened = open_site(services, call, request.site, change=True)
    return _view(files.restore_version(services, call, opened, request.path, request.version), split_path(request.path)[:-1])


def _framed(parts: Iterator[tuple[Part, bytes]], gone: list[str]) -> Iterator[bytes]:
    """Files as frames, small chunks joined to pieces worth sending."""
    held: list[bytes] = [frames.head(name, frames.GONE) for name in gone]
    waiting = 0
    for part, data in parts:
        if not part.number:
            held.append(frames.head(part.file.node.id, part.file.manifest.size))
        if len(data) < PIECE:
            held.append(data)
            waiting += len(data)
            if waiting >= PIECE:
                yield b"".join(held)
                held, waiting = [], 0
            continue
        if held:
            yield b"".join(held)
            held, waiting = [], 0
        yield data  # not copied: it is worth sending by itself
    if held:
        yield b"".join(held)


def _pieces(body: Upload) -> Iterator[bytes]:
    while piece := body.read(CHUNK_BYTES):  # a whole chunk, where that comes at once, is not copied
        yield piece


def _millis(time: datetime | None) -> int | None:
    if time is None:
        return None
    since = millis(time)
    if not _FIRST <= since <= _LAST:  # in another zone it is a time that cannot be shown: nobody could list the folder any more
        raise InvalidRequest("time_invalid", "the file's time is none of the years 1 to 9999 in UTC", "give another one")
    return since


def _view(entry: files.Entry, above: tuple[str, ...]) -> FileView:
    node: Node = entry.node
    return FileView(
        name=entry.name,
        path=join_path((*above, entry.name)),
        kind=node.kind.value,
        size_bytes=node.size,
        modified=utc(node.modified),
        version=node.version,
        id=node.id,
        unchanged=entry.unchanged,
    )
