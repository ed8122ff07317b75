"""Files of a site: writing, reading, versions, folders, moving, deleting (R-112 to R-115).

Every function takes a site that `sites.open_site` has opened for the caller. What it does to rows it does in one transaction, under the
site's tree; content comes before: objects first, durable, then the commit with node, version, chunks, tree, counts and the record. A crash in
between leaves objects that no row names, which `collect-orphans` removes, and never half a file.

Two writers of one file both succeed, one version after the other, unless `if_version` says which one must be there. The site key may change
while a file comes in: what was sealed under the older version is committed under it as long as that is there, for the move that made the
newer one to re-encrypt.
"""

from __future__ import annotations

import hashlib
import unicodedata
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import chain
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from keystead.core.audit.record import RecordType
from keystead.core.errors import Conflict, IntegrityFailure, InvalidRequest, NotFound, PreconditionFailed, Refused
from keystead.core.formats.aead import NONCE_BYTES
from keystead.core.formats.files import Manifest, chunk_digest, damaged, decode_manifest, encode_manifest, manifest_context
from keystead.core.formats.sealed_object import open_object, seal
from keystead.core.ids import new_id
from keystead.core.stores.files import CHUNK_BYTES, FileVersion, Node, NodeKind
from keystead.core.stores.paths import MAX_NAMES, split_path
from keystead.services.auditing import record
from keystead.services.file_chunks import AHEAD, Ahead, ChunkGone, ChunkWriter, cut, fetched, opened_box
from keystead.services.file_nodes import (
    Trunk,
    Walk,
    names_of,
    new_node,
    not_a_file,
    not_a_folder,
    not_found,
    open_name,
    open_properties,
    renamed,
    seal_properties,
)
from keystead.services.sites import reopened

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from keystead.api.call import Call
    from keystead.core.formats.aead import Readable
    from keystead.core.formats.files import ManifestEntry
    from keystead.core.stores.files import Chunk, Site
    from keystead.core.stores.objects import StoredObject
    from keystead.ports.tx import Tx
    from keystead.services.context import Services
    from keystead.services.sites import OpenSite

T = TypeVar("T")

ATTEMPTS = 5
MAX_BATCH = 5_000
MAX_PROPERTIES = 256 * 1024
ROWS = 64
"""Chunks whose rows are read at a time."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A file or folder with its name opened.

    Attributes:
        unchanged: writing it found just these bytes there, and made no new version.
    """

    node: Node
    name: str
    unchanged: bool = False


@dataclass(frozen=True, slots=True)
class NewFile:
    """A small file of `put_many`: at most one chunk. `modified`: what is kept as its time."""

    path: str
    data: Readable
    modified: int | None = None
    media_type: str = ""


@dataclass(frozen=True, slots=True)
class Deleted:
    """What `delete` removed."""

    node: Node
    files: int
    folders: int


@dataclass(frozen=True, slots=True)
class OpenFile:
    """One version of a file, its manifest open.

    Attributes:
        opened: the site, with the keys the version lies under.
        number: of the version; 0 for a file that was made without content.
        key_version: of the site key that its manifest is sealed under.
    """

    opened: OpenSite
    node: Node
    number: int
    key_version: int
    manifest: Manifest

    @property
    def is_older(self) -> bool:
        """Whether it lies under an older site key than new versions: then none of its chunks may be kept, or a move would pass them over."""
        return self.key_version != self.opened.site.key_version

    @property
    def what(self) -> str:
        """How errors name it."""
        return f"{self.node.id} version {self.number}"


class _Moved(Exception):
    """The site key changed between opening and committing; start again with the site as it is now."""


# -- finding ------------------------------------------------------------------------------------------------------------------------


def find(services: Services, opened: OpenSite, path: str) -> Node:
    """The node of a path; the top of the site is a folder whose id is the site's.

    Raises:
        NotFound: `file_not_found`.
        InvalidRequest: `path_invalid`, `path_too_long`.
    """
    names = split_path(path)
    with services.db.read() as tx:
        node = Walk(services, tx, opened).find(names)
    if node is None:
        raise not_found()
    return node


def listing(services: Services, opened: OpenSite, path: str, *, after: str = "", limit: int = 0) -> list[Entry]:
    """What lies in a folder, by id, those after an id; all for no limit. Of a file, the file.

    Raises:
        NotFound, InvalidRequest: as `find`.
        IntegrityFailure: `file_damaged`: a name is not what was written.
    """
    return listed(services, opened, path, after=after, limit=limit)[1]


def listed(services: Services, opened: OpenSite, path: str, *, after: str = "", limit: int = 0) -> tuple[Node, list[Entry]]:
    """The same, and the node of the path itself."""
    names = split_path(path)
    with services.db.read() as tx:
        node = Walk(services, tx, opened).find(names)
        if node is None:
            raise not_found()
        if node.kind is NodeKind.FILE:
            return node, [] if after else [Entry(node, open_name(opened, node))]
        children = tx.files.children(opened.site.id, node.id, after=after, limit=limit)
    return node, [Entry(child, open_name(opened, child)) for child in children]


# -- writing ------------------------------------------------------------------------------------------------------------------------


class _Draft(NamedTuple):
    """Content that is stored, and how it becomes a version.

    Attributes:
        written: the site as it was when the content was sealed.
        kept: chunks of an earlier version among the entries.
        base: number of that version.
    """

    written: OpenSite
    entries: list[ManifestEntry]
    chunks: Sequence[Chunk]
    kept: Sequence[str]
    base: int
    size: int
    media_type: str
    modified: int | None


class _Target(NamedTuple):
    """Where a file goes, and what is expected there."""

    names: tuple[str, ...]
    if_version: int | None = None
    replace: bool = True
    parents: bool = False
    node_id: str = ""


def put(
    services: Services,
    call: Call,
    opened: OpenSite,
    path: str,
    body: Iterable[Readable],
    *,
    size: int | None = None,
    if_version: int | None = None,
    replace: bool = True,
    parents: bool = False,
    modified: int | None = None,
    media_type: str = "",
) -> Entry:
    """Write a whole file, durable when this returns. Memory stays flat, whatever its size.

    Chunks that the current version has at the same place are kept; when nothing else is new, no version is made.

    Args:
        services: the service.
        call: who writes.
        opened: the site, opened for changing or putting.
        path: the file.
        body: its bytes, in pieces of any size; each may be used again when the next is asked for.
        size: how many there are, where that is known: it is refused at once if there is no room, and at the end if there are not so many.
        if_version: number of the version that must be the current one, 0 for no file there.
        replace: whether a file that is there gets a new version.
        parents: make the folders above it.
        modified: what is kept as the file's time, in milliseconds; now by default.
        media_type: kept with the version.

    Raises:
        InvalidRequest: `path_invalid`, `path_too_long`, `file_too_large`, `upload_cut_off`, `media_type_invalid`.
        NotFound: `folder_not_found`.
        Conflict: `file_exists`, `not_a_file`, `not_a_folder`, `file_busy`.
        PreconditionFailed: `file_changed`, `quota_exceeded`.
        KeyDenied, Unavailable, IntegrityFailure: as the keyring and the stores.
    """
    target = _Target(names_of(path), if_version, replace, parents, new_id(services.random))
    _check_media_type(media_type)
    opened = _fresh(services, call, opened)
    with services.db.read() as tx:
        present = _allowed(services, tx, opened, target, size)
        base = _base(services, tx, opened, present)
    room = _Room(services, opened, present)
    room.take(size or 0)
    with ChunkWriter(services, opened) as writer:
        entries: list[ManifestEntry] = []
        kept: list[str] = []
        total = 0
        for piece in _checked(services, call, opened, cut(body)):
            total += len(piece)
            room.take(total)
            digest = chunk_digest(opened.keys, piece)
            same = base.manifest.entries[len(entries)] if base is not None and len(entries) < len(base.manifest.entries) else None
            if same is not None and same.digest == digest and same.size == len(piece):
                entries.append(same)
                kept.append(same.chunk_id)
            else:
                entries.append(writer.add(target.node_id, piece, digest))
        if size is not None and total != size:
            raise InvalidRequest("upload_cut_off", f"the file ended after {total} bytes of {size}", "send it again")
        if base is not None and _same(base.manifest, entries, media_type):
            return Entry(base.node, target.names[-1], unchanged=True)
        writer.finish()
        services.checkpoint("put: objects stored")
        number = base.number if base is not None else 0
        draft = _Draft(opened, entries, writer.chunks, kept, number, total, media_type, modified)
        return _put_version(services, call, opened, target, draft, writer)


def write(
    services: Services,
    call: Call,
    opened: OpenSite,
    path: str,
    offset: int,
    body: Iterable[Readable],
    *,
    size: int | None = None,
    if_version: int | None = None,
    modified: int | None = None,
) -> Entry:
    """Change a part of a file, or append to it: the chunks it touches are written anew, all others stay.

    Args:
        services: the service.
        call: who writes.
        opened: the site, opened for changing.
        path: the file, which is there.
        offset: where the bytes go; at most the size of the file.
        body: the bytes, in pieces of any size.
        size: how many there are, where that is known.
        if_version: number of the version that must be the current one.
        modified: what is kept as the file's time.

    Raises:
        InvalidRequest: `range_invalid`: it begins beyond the end. As `put`.
        NotFound: `file_not_found`.
        PreconditionFailed: `file_changed`: another version came while this one was written, or before.
    """
    target = _Target(names_of(path), if_version, node_id=new_id(services.random))
    opened = _fresh(services, call, opened)
    with services.db.read() as tx:
        present = _allowed(services, tx, opened, target, None)
        if present is None:
            raise not_found()
        base = _open_version(tx, opened, present, None)
    if not 0 <= offset <= base.manifest.size:
        raise _out_of_range(offset, base.manifest.size)
    old = base.manifest
    start = 0 if base.is_older else offset // CHUNK_BYTES  # while a move is under way all of it goes under the newer key
    entries = list(old.entries[:start])
    room = _Room(services, opened, present)
    sent = _Counted(body)
    head = _pieces(services, call, base, start * CHUNK_BYTES, offset)
    with ChunkWriter(services, opened) as writer:
        for piece in _checked(services, call, opened, cut(chain(head, sent, _behind(services, call, base, sent, offset)))):
            room.take(len(entries) * CHUNK_BYTES + len(piece))
            entries.append(writer.add(target.node_id, piece, chunk_digest(opened.keys, piece)))
        if size is not None and sent.count != size:
            raise InvalidRequest("upload_cut_off", f"it ended after {sent.count} bytes of {size}", "send it again")
        if not sent.count:
            return Entry(base.node, target.names[-1], unchanged=True)
        rest = old.entries[len(entries) :]
        kept = [entry.chunk_id for entry in (*entries[:start], *rest)]
        entries += rest
        writer.finish()
        services.checkpoint("write: objects stored")
        grown = max(old.size, offset + sent.count)
        draft = _Draft(opened, entries, writer.chunks, kept, base.number, grown, old.media_type, modified)
        return _put_version(services, call, opened, target._replace(if_version=base.number), draft, writer)


def put_many(services: Services, call: Call, opened: OpenSite, files: Sequence[NewFile], *, folders: Sequence[str] = ()) -> list[Entry]:
    """Write many small files, and folders, with those above them: all of them, or when it raises none.

    Args:
        services: the service.
        call: who writes.
        opened: the site, opened for changing or putting.
        files: each at most one chunk; no path twice.
        folders: paths of folders that are to be there too.

    Returns:
        The files, in the order given.

    Raises: as `put`; `InvalidRequest` also for `batch_too_long` and `path_repeated`.
    """
    targets = _batch_targets(services, files)
    wanted = [split_path(folder) for folder in folders]
    opened = _fresh(services, call, opened)
    same = _unchanged(services, opened, targets, files)
    with ChunkWriter(services, opened) as writer:
        drafts: list[_Draft | None] = []
        for index, (target, file) in enumerate(zip(targets, files, strict=True)):
            if index in same:
                drafts.append(None)
                continue
            before = len(writer.chunks)
            entries = [writer.add(target.node_id, file.data, chunk_digest(opened.keys, file.data))] if len(file.data) else []
            drafts.append(_Draft(opened, entries, writer.chunks[before:], (), 0, len(file.data), file.media_type, file.modified))
        writer.finish()
        services.checkpoint("put: objects stored")

        def commit(tx: Tx, current: OpenSite) -> list[Entry]:
            change = _Change(services, tx, call, current)
            for names in wanted:
                change.walk.folder(names, make=True)
            change.walk.expect(target.names for target in targets)
            done = [
                same[index] if draft is None else change.version(target, draft)
                for index, (target, draft) in enumerate(zip(targets, drafts, strict=True))
            ]
            change.store(writer.objects)
            size = sum(draft.size for draft in drafts if draft is not None)
            count = sum(draft is not None for draft in drafts)
            if count or change.walk.made:
                _record(services, tx, call, current, current.site.id, "FileUploaded", (("Files", str(count)), ("Size", str(size))))
            return done

        return _committed(services, call, opened, commit, writer)


def make_folder(services: Services, call: Call, opened: OpenSite, path: str, *, parents: bool = False) -> Entry:
    """Make a folder.

    Args:
        services: the service.
        call: who makes it.
        opened: the site, opened for changing or putting.
        path: the folder.
        parents: make those above it too, and take one that is there for made.

    Raises:
        Conflict: `file_exists`, `not_a_folder`.
        NotFound: `folder_not_found`.
    """
    names = names_of(path)

    def commit(tx: Tx, current: OpenSite) -> Entry:
        change = _Change(services, tx, call, current)
        parent = change.walk.folder(names[:-1], make=parents)
        found = change.walk.child(parent, names[-1])
        if found is not None and (not parents or found.kind is NodeKind.FILE):
            raise _exists(found)
        node = change.walk.folder(names, make=True)
        change.store(())
        if change.walk.made:
            _record(services, tx, call, current, node.id, "FolderCreated")
        return Entry(node, names[-1], unchanged=found is not None)

    return _committed(services, call, opened, commit)


def set_properties(services: Services, call: Call, opened: OpenSite, path: str, data: bytes) -> Node:
    """Keep something with a file or folder for its clients, in place of what was kept before; nothing to keep nothing.

    Raises:
        InvalidRequest: `properties_too_large`: over 256 KiB.
        NotFound: `file_not_found`.
    """
    names = names_of(path)
    if len(data) > MAX_PROPERTIES:
        raise InvalidRequest(
            "properties_too_large", f"there are {len(data)} bytes of properties", f"at most {MAX_PROPERTIES} are kept with one file"
        )

    def commit(tx: Tx, current: OpenSite) -> Node:
        node = Walk(services, tx, current).find(names)
        if node is None:
            raise not_found()
        trunk = Trunk(tx, current)
        trunk.check(node.id)
        if node.key_version != current.site.key_version:
            node = renamed(services, current, node, node.parent_id, open_name(current, node))
            trunk.change(services, changed=[node])
        sealed = seal_properties(services, current.site, current.keys, current.site.key_version, node.id, data)
        node = replace(node, properties=sealed, changed=node.changed + 1)
        tx.files.update_nodes([node])
        _record(services, tx, call, current, node.id, "FilePropertiesChanged")
        return node

    return _committed(services, call, opened, commit)


def properties(opened: OpenSite, node: Node) -> bytes:
    """What clients have set on a file or folder. Raises: `IntegrityFailure`."""
    return open_properties(opened, node)


def move(services: Services, call: Call, opened: OpenSite, path: str, to: str, *, replace: bool = False) -> Entry:
    """Rename a file or folder, or move it within its site. A folder goes with all that is in it.

    Args:
        services: the service.
        call: who moves.
        opened: the site, opened for changing.
        path: what is moved.
        to: its new path.
        replace: whether a file that is there gives way.

    Raises:
        NotFound: `file_not_found`, `folder_not_found`.
        Conflict: `file_exists`, `not_a_folder`.
        InvalidRequest: `folder_into_itself`, `path_too_long`.
    """
    source, target = names_of(path), names_of(to)

    def commit(tx: Tx, current: OpenSite) -> Entry:
        change = _Change(services, tx, call, current)
        node = change.walk.find(source)
        if node is None:
            raise not_found()
        parent = change.walk.folder(target[:-1])
        below = tx.files.subtree(current.site.id, node.id) if node.kind is NodeKind.FOLDER else []
        if parent.id == node.id or any(parent.id == one.id for one in below):
            raise InvalidRequest("folder_into_itself", f"the folder {node.id} cannot go into itself", "choose another place")
        if len(target) + _depth(node, below) > MAX_NAMES:
            raise InvalidRequest(
                "path_too_long", f"what is in the folder {node.id} would lie too deep", f"folders lie at most {MAX_NAMES} deep"
            )
        present = change.walk.child(parent, target[-1])
        if present is not None and present.id != node.id:
            if not replace or NodeKind.FOLDER in (present.kind, node.kind):
                raise _exists(present)
            change.remove([present])
        after = renamed(services, current, node, parent.id, target[-1])
        change.update(after)
        change.store(())
        same_folder = node.parent_id == parent.id
        what = ("Folder" if node.kind is NodeKind.FOLDER else "File") + ("Renamed" if same_folder else "Moved")
        _record(services, tx, call, current, node.id, what, (("From", node.parent_id), ("To", parent.id)))
        return Entry(after, target[-1])

    return _committed(services, call, opened, commit)


def delete(services: Services, call: Call, opened: OpenSite, path: str, *, recursive: bool = False) -> Deleted:
    """Delete a file with its versions, or a folder; its objects go after a grace period.

    Args:
        services: the service.
        call: who deletes.
        opened: the site, opened for changing.
        path: what is deleted.
        recursive: a folder with all that is in it.

    Raises:
        NotFound: `file_not_found`.
        Conflict: `folder_not_empty`.
    """
    names = names_of(path)

    def commit(tx: Tx, current: OpenSite) -> Deleted:
        change = _Change(services, tx, call, current)
        node = change.walk.find(names)
        if node is None:
            raise not_found()
        below = tx.files.subtree(current.site.id, node.id, limit=0 if recursive else 1) if node.kind is NodeKind.FOLDER else []
        if below and not recursive:
            raise Conflict("folder_not_empty", f"the folder {node.id} is not empty", "add --recursive to delete what is in it too")
        gone = [node, *below]
        change.remove(gone)
        change.store(())
        files = sum(one.kind is NodeKind.FILE for one in gone)
        what = "FolderDeleted" if node.kind is NodeKind.FOLDER else "FileDeleted"
        _record(services, tx, call, current, node.id, what, (("Files", str(files)), ("Folders", str(len(gone) - files))))
        return Deleted(node, files, len(gone) - files)

    return _committed(services, call, opened, commit)


# -- versions -----------------------------------------------------------------------------------------------------------------------


def versions(services: Services, opened: OpenSite, path: str) -> tuple[Node, list[FileVersion]]:
    """A file and its versions, newest first. Raises: as `find`; `not_a_file`."""
    names = names_of(path)
    with services.db.read() as tx:
        node = Walk(services, tx, opened).find(names)
        if node is None:
            raise not_found()
        if node.kind is NodeKind.FOLDER:
            raise not_a_file(node)
        return node, tx.files.versions(opened.site.id, node.id)


def restore_version(services: Services, call: Call, opened: OpenSite, path: str, number: int) -> Entry:
    """Make a new version with the content of an old one.

    Raises:
        NotFound: `file_not_found`, `version_not_found`.
    """
    names = names_of(path)
    opened = _fresh(services, call, opened)
    with services.db.read() as tx:
        node = Walk(services, tx, opened).find(names)
        if node is None:
            raise not_found()
        if node.kind is NodeKind.FOLDER:
            raise not_a_file(node)
        old = _open_version(tx, opened, node, number)
    if number == node.version:
        return Entry(node, names[-1], unchanged=True)
    if old.is_older:  # under an older key than new versions: its content is sealed again
        body = _pieces(services, call, old, 0, old.manifest.size)
        return put(services, call, opened, path, body, size=old.manifest.size, media_type=old.manifest.media_type)
    kept = [entry.chunk_id for entry in old.manifest.entries]
    draft = _Draft(opened, list(old.manifest.entries), (), kept, number, old.manifest.size, old.manifest.media_type, None)
    target = _Target(names, if_version=node.version)
    return _put_version(services, call, opened, target, draft, None, operation="FileVersionRestored")


# -- reading ------------------------------------------------------------------------------------------------------------------------


def read(
    services: Services,
    call: Call,
    opened: OpenSite,
    node: Node,
    *,
    version: int | None = None,
    offset: int = 0,
    length: int | None = None,
) -> Iterator[bytes]:
    """Some bytes of a file, chunk by chunk; each is opened when it is asked for, and access is checked before.

    Args:
        services: the service.
        call: who reads.
        opened: the site.
        node: the file, as `find` gave it.
        version: number of a version; the current one by default.
        offset: the first byte, at most the size.
        length: how many; up to the end by default, and no more than there are.

    Raises:
        NotFound: `file_not_found`: it is gone. `version_not_found`.
        InvalidRequest: `range_invalid`.
        IntegrityFailure: `file_damaged`, `file_rolled_back`: also while reading; never other data.
    """
    return contents(services, call, open_file(services, call, opened, node, version=version), offset=offset, length=length)


def open_file(services: Services, call: Call, opened: OpenSite, node: Node, *, version: int | None = None) -> OpenFile:
    """One version of a file: its rows are checked, and its manifest is opened.

    Raises:
        NotFound: `file_not_found`: it is gone. `version_not_found`.
        Conflict: `not_a_file`.
        IntegrityFailure: `file_damaged`, `file_rolled_back`.
    """
    if node.kind is NodeKind.FOLDER:
        raise not_a_file(node)
    return _opened_file(services, call, opened, lambda tx, current: tx.files.node(current.site.id, node.id), version)


def open_path(services: Services, call: Call, opened: OpenSite, path: str, *, version: int | None = None) -> OpenFile:
    """The same by its path, which is found and checked in one transaction. Raises: also as `find`."""
    names = split_path(path)
    return _opened_file(services, call, opened, lambda tx, current: Walk(services, tx, current).find(names), version)


def _opened_file(
    services: Services, call: Call, opened: OpenSite, find_node: Callable[[Tx, OpenSite], Node | None], version: int | None
) -> OpenFile:
    current = opened
    for _attempt in range(ATTEMPTS):
        with services.db.read() as tx:
            site = tx.sites.find(opened.site.tenant_id, opened.site.id)
            if site is None:
                raise _site_gone(opened)
            if site.key_version == current.site.key_version:
                node = find_node(tx, current)
                if node is None:
                    raise not_found()
                return _open_version(tx, current, node, version)
        current = reopened(services, call, current)
    raise _busy(opened)


def contents(services: Services, call: Call, file: OpenFile, *, offset: int = 0, length: int | None = None) -> Iterator[bytes]:
    """Bytes of an opened file; that it was read is recorded here. Arguments and errors as `read`."""
    size = file.manifest.size
    end = size if length is None else min(size, offset + length)
    if not 0 <= offset <= size or end < offset:
        raise _out_of_range(offset, size)
    if not file.opened.owner or services.settings.record_owner_reads:
        with services.db.write() as tx:
            parameters = (("Version", str(file.number)), ("Offset", str(offset)), ("Length", str(end - offset)))
            _record(services, tx, call, file.opened, file.node.id, "FileDownloaded", parameters)
    return _pieces(services, call, file, offset, end)


@dataclass(frozen=True, slots=True)
class SmallFile:
    """A file of at most one chunk, opened for reading; `chunk` is None for an empty one."""

    file: OpenFile
    chunk: Chunk | None


def open_many(services: Services, call: Call, opened: OpenSite, node_ids: Sequence[str]) -> tuple[list[SmallFile], list[str]]:
    """Open many small files at once; that they were read is recorded here.

    Args:
        services: the service.
        call: who reads.
        opened: the site.
        node_ids: ids that a listing gave.

    Returns:
        The files in the order they are best read in, and the ids of those that are gone, are no files, or have more than one chunk.

    Raises:
        IntegrityFailure: `file_damaged`, `file_rolled_back`.
    """
    found: list[OpenFile] = []
    gone: list[str] = []
    with services.db.read() as tx:
        trunk = Trunk(tx, opened)
        nodes, current = tx.files.nodes(opened.site.id, node_ids), tx.files.current(opened.site.id, node_ids)
        for node_id in node_ids:
            node = nodes.get(node_id)
            if node is None or node.kind is NodeKind.FOLDER or node.size > CHUNK_BYTES:
                gone.append(node_id)
            else:
                trunk.check(node_id)
                found.append(_opened_version(opened, node, node.version, current.get(node_id)))
        chunks = tx.files.chunks(opened.site.id, [entry.chunk_id for file in found for entry in file.manifest.entries])
    if not opened.owner or services.settings.record_owner_reads:
        with services.db.write() as tx:
            for file in found:
                _record(services, tx, call, opened, file.node.id, "FileDownloaded", (("Version", str(file.number)),))
    small = [SmallFile(file, chunks.get(file.manifest.entries[0].chunk_id) if file.manifest.entries else None) for file in found]
    return sorted(small, key=_place), gone


def read_many(services: Services, call: Call, opened: OpenSite, found: Sequence[SmallFile]) -> Iterator[tuple[Node, bytes]]:
    """The bytes of small files; chunks that lie one behind the other are fetched at once.

    Raises: as `read`, for the file that is not what was written.
    """
    policy = opened.opened
    groups = list(_side_by_side(found))
    for group, box in zip(groups, fetched(services, map(_span, groups)), strict=True):
        policy = services.keyring.recheck(policy, opened.operation, request_id=call.request_id)
        start = _span(group)[1]
        for one in group:
            yield one.file.node, _small(services, call, one, memoryview(box), start)


def _span(group: Sequence[SmallFile]) -> tuple[str, int, int]:
    """Where the chunks of a group lie: object, offset and length in bytes."""
    first, last = group[0].chunk, group[-1].chunk
    if first is None or last is None:
        return "", 0, 0
    return first.object_ref, first.offset, last.offset + last.length - first.offset


def _small(services: Services, call: Call, one: SmallFile, box: memoryview, start: int) -> bytes:
    """The bytes of one of them, out of what was fetched where there is that."""
    file, chunk = one.file, one.chunk
    if not file.manifest.entries:
        return b""
    if chunk is None or not box:
        return b"".join(_pieces(services, call, file, 0, file.manifest.size))
    entry = file.manifest.entries[0]
    part = box[chunk.offset - start : chunk.offset - start + chunk.length]
    return opened_box(file.opened, chunk, entry, part, f"{file.what}, chunk 0 ({entry.chunk_id})")


def _side_by_side(found: Sequence[SmallFile]) -> Iterator[list[SmallFile]]:
    """Groups of files whose chunks lie one behind the other in one object, each group at most as large as a chunk."""
    group: list[SmallFile] = []
    ref, end, size = "", -1, 0
    for one in found:
        chunk = one.chunk
        if group and (chunk is None or (chunk.object_ref, chunk.offset) != (ref, end) or size + chunk.length > CHUNK_BYTES):
            yield group
            group, size = [], 0
        group.append(one)
        if chunk is not None:
            ref, end, size = chunk.object_ref, chunk.offset + chunk.length, size + chunk.length
    if group:
        yield group


def _place(one: SmallFile) -> tuple[str, int]:
    return (one.chunk.object_ref, one.chunk.offset) if one.chunk is not None else ("", 0)


def _open_version(tx: Tx, opened: OpenSite, node: Node, number: int | None) -> OpenFile:
    """A version of a file that was just read, checked against the tree."""
    Trunk(tx, opened).check(node.id)
    if node.kind is NodeKind.FOLDER:
        raise not_a_file(node)
    wanted = node.version if number is None else number
    if not wanted and node.version:
        raise NotFound("version_not_found", f"the file {node.id} has no version 0", "keystead site versions lists them")
    return _opened_version(opened, node, wanted, tx.files.version(opened.site.id, node.id, wanted) if wanted else None)


def _opened_version(opened: OpenSite, node: Node, number: int, row: FileVersion | None) -> OpenFile:
    """A version of a file that the tree has vouched for, of its row."""
    if not number:
        return OpenFile(opened, node, 0, opened.site.key_version, Manifest(0, ()))
    what = f"{node.id} version {number}"
    if row is None and number != node.version:
        raise NotFound("version_not_found", f"the file {node.id} has no version {number}", "keystead site versions lists them")
    if row is None or (number == node.version and hashlib.sha256(row.manifest).digest() != node.manifest_digest):
        raise damaged(what)
    manifest = open_manifest(opened, row)
    if manifest.size != row.size or (number == node.version and manifest.size != node.size):
        raise damaged(what)
    return OpenFile(opened, node, number, row.key_version, manifest)


def open_manifest(opened: OpenSite, row: FileVersion) -> Manifest:
    """The manifest of a version.

    Raises:
        IntegrityFailure: `file_damaged`.
    """
    what = f"{row.node_id} version {row.number}"
    try:
        data = open_object(
            opened.keys_of(row.key_version, f"file {what}").seal,
            row.manifest,
            key_id=opened.site.id,
            key_version=row.key_version,
            context=manifest_context(opened.site.tenant_id, opened.site.id, row.node_id, row.number),
            object_name=what,
        )
    except IntegrityFailure as error:
        if error.code != "object_damaged":
            raise
        raise damaged(what) from error
    return decode_manifest(data, object_name=what)


def seal_manifest(services: Services, opened: OpenSite, node_id: str, number: int, manifest: Manifest) -> bytes:
    """A manifest, sealed under the site's newest key of that opening."""
    return seal(
        opened.keys.seal,
        encode_manifest(manifest),
        key_id=opened.site.id,
        key_version=opened.site.key_version,
        context=manifest_context(opened.site.tenant_id, opened.site.id, node_id, number),
        nonce=services.random(NONCE_BYTES),
    )


def _pieces(services: Services, call: Call, file: OpenFile, offset: int, end: int) -> Iterator[bytes]:
    if offset >= end:
        return
    last = (end - 1) // CHUNK_BYTES
    reading = _Reading(services, call, file, last)
    for index in range(offset // CHUNK_BYTES, last + 1):
        data = reading.chunk(index)
        start, stop = max(0, offset - index * CHUNK_BYTES), min(len(data), end - index * CHUNK_BYTES)
        yield data if stop - start == len(data) else data[start:stop]


class _Reading:
    """Reads chunks of a version one after the other; a move may put them elsewhere meanwhile, and a roll change the policy."""

    def __init__(self, services: Services, call: Call, file: OpenFile, last: int) -> None:
        """`last`: the last chunk that will be asked for."""
        self._services = services
        self._call = call
        self._file = file
        self._opened = file.opened
        self._policy = file.opened.opened
        self._last = last
        self._rows: dict[str, Chunk] = {}
        self._ahead = Ahead(services)

    def chunk(self, index: int) -> bytes:
        """The bytes of one chunk. Raises: `KeyDenied`, `Unavailable`, `IntegrityFailure`, `NotFound` for a file that was deleted."""
        self._recheck()
        for again in (True, False):
            entry, row, what = self._file.manifest.entries[index], self._row(index), self._what(index)
            if row is not None:
                with suppress(ChunkGone):
                    box = self._ahead.take(row, entry, what)
                    self._look_ahead(index)
                    return opened_box(self._opened, row, entry, box, what)
            if again:
                self._look_again()
        raise damaged(f"{what}, which is missing,")

    def _look_ahead(self, index: int) -> None:
        for following in range(index + 1, min(index + AHEAD, self._last) + 1):
            entry = self._file.manifest.entries[following]
            row = self._rows.get(entry.chunk_id)
            if row is not None:
                self._ahead.want(row, entry, self._what(following))

    def _what(self, index: int) -> str:
        """How errors name a chunk."""
        return f"{self._file.what}, chunk {index} ({self._file.manifest.entries[index].chunk_id})"

    def _recheck(self) -> None:
        """Whether the key may still be used (design section 5). A policy that is gone was replaced: the site says by which."""
        operation, request_id = self._opened.operation, self._call.request_id
        try:
            self._policy = self._services.keyring.recheck(self._policy, operation, request_id=request_id)
        except NotFound:
            self._look_again()

    def _row(self, index: int) -> Chunk | None:
        entry = self._file.manifest.entries[index]
        if entry.chunk_id not in self._rows:
            wanted = [one.chunk_id for one in self._file.manifest.entries[index : index + ROWS]]
            with self._services.db.read() as tx:
                self._rows = tx.files.chunks(self._opened.site.id, wanted)
        return self._rows.get(entry.chunk_id)

    def _look_again(self) -> None:
        """The same version as its rows are now. A version never changes its content, so the reader goes on where it was."""
        self._opened = reopened(self._services, self._call, self._opened)
        self._policy = self._opened.opened
        number = self._file.number
        self._file = open_file(self._services, self._call, self._opened, self._file.node, version=number)
        self._opened = self._file.opened
        self._rows = {}


# -- committing ---------------------------------------------------------------------------------------------------------------------


def _committed(services: Services, call: Call, opened: OpenSite, act: Callable[[Tx, OpenSite], T], writer: ChunkWriter | None = None) -> T:
    """Do something to a site's rows in one transaction, with the keys it has then.

    Args:
        services: the service.
        call: who does it.
        opened: the site as it was opened.
        act: does it, and may be started again.
        writer: what was stored for it. It stays when the commit may have been stored.
    """
    current = opened
    for _attempt in range(ATTEMPTS):
        try:
            with services.db.write() as tx:
                done = act(tx, replace(current, site=_still(tx, current)))
        except _Moved:
            current = reopened(services, call, current)
            continue
        except (Refused, NotFound, InvalidRequest, IntegrityFailure):
            raise  # before the commit: what was stored is named by no row, and goes
        except BaseException:
            # The database may be gone, the process interrupted: the commit may have been stored all the same. The objects stay, and
            # `collect-orphans` finds out.
            if writer is not None:
                writer.keep()
            raise
        if writer is not None:
            writer.keep()
        return done
    raise _busy(opened)


def _fresh(services: Services, call: Call, opened: OpenSite) -> OpenSite:
    """The site with the newest version of its key: content that is sealed under one that is about to go could not be committed."""
    with services.db.read() as tx:
        site = tx.sites.find(opened.site.tenant_id, opened.site.id)
    if site is None:
        raise _site_gone(opened)
    return replace(opened, site=site) if site.key_version == opened.site.key_version else reopened(services, call, opened)


def _still(tx: Tx, current: OpenSite) -> Site:
    """The site's row, under the key it was opened with.

    Raises:
        NotFound: it was deleted.
        _Moved: it has a newer key.
    """
    site = tx.sites.find(current.site.tenant_id, current.site.id)
    if site is None:
        raise _site_gone(current)
    if site.key_version != current.site.key_version:
        raise _Moved
    return site


class _Change:
    """What one transaction does to the rows of a site: gathered, checked against the tree, and then done in few statements."""

    def __init__(self, services: Services, tx: Tx, call: Call, current: OpenSite) -> None:
        self.walk = Walk(services, tx, current)
        self._services = services
        self._tx = tx
        self._call = call
        self._current = current
        self._site = current.site
        self._added: list[Node] = []
        self._changed: list[Node] = []
        self._removed: list[Node] = []
        self._versions: list[FileVersion] = []
        self._chunks: list[Chunk] = []
        self._ended: list[tuple[list[str], int | None]] = []
        self._trims: list[tuple[str, int]] = []
        self._files = self._size = self._stored = 0
        self._keys_there: frozenset[int] = frozenset()

    def version(self, target: _Target, draft: _Draft) -> Entry:
        """A new version of a file, which is made where it is not there.

        Raises: as `put`.
        """
        parent = self.walk.folder(target.names[:-1], make=target.parents)
        present = self.walk.child(parent, target.names[-1])
        _check_target(present, target)
        self._check_key(draft.written)
        before = present.size if present is not None else 0
        self._check_quota(draft.size - before)
        number = present.version + 1 if present is not None else 1
        node = present or new_node(self._services, self._current, NodeKind.FILE, parent.id, target.names[-1], node_id=target.node_id)
        manifest = seal_manifest(
            self._services, draft.written, node.id, number, Manifest(draft.size, tuple(draft.entries), draft.media_type)
        )
        now = self._services.clock.now()
        node = replace(
            node,
            version=number,
            manifest_digest=hashlib.sha256(manifest).digest(),
            size=draft.size,
            modified=now if draft.modified is None else draft.modified,
            changed=node.changed + (1 if present is not None else 0),
        )
        written = draft.written.site.key_version
        self._versions.append(
            FileVersion(node.id, self._site.id, number, written, manifest, draft.size, len(draft.entries), now, self._call.principal.upn)
        )
        self._chunks += draft.chunks if node.id == target.node_id else [replace(chunk, node_id=node.id) for chunk in draft.chunks]
        self._stored += sum(chunk.length for chunk in draft.chunks)
        self._size += draft.size - before
        if present is None:
            self._files += 1
            self._added.append(self.walk.add(node, target.names[-1]))
        else:
            self._changed.append(node)
            self._replace_chunks(present, draft)
            last = number - self._services.settings.file_versions_kept
            if last > 0:
                self._trims.append((node.id, last))
        return Entry(node, target.names[-1])

    def update(self, node: Node) -> None:
        """A node that changed."""
        self._changed.append(node)

    def remove(self, nodes: Sequence[Node]) -> None:
        """Nodes that go, with their versions."""
        self._removed += nodes
        self._files -= sum(node.kind is NodeKind.FILE for node in nodes)
        self._size -= sum(node.size for node in nodes)

    def store(self, objects: Sequence[StoredObject]) -> None:
        """Do it. Raises: `IntegrityFailure` where the rows are not what they were."""
        added = [*self.walk.made, *self._added]
        removed = [node.id for node in self._removed]
        if not (added or self._changed or removed):
            return
        tx, site = self._tx, self._site
        due = self._services.clock.now() + self._services.settings.object_grace
        trunk = Trunk(tx, self._current)
        trunk.check(*self.walk.passed)  # or what is written could be led into another folder
        trunk.change(self._services, added=added, changed=self._changed, removed=removed)
        if removed:
            self._stored -= tx.files.delete_nodes(site.id, removed, due=due)
        if added:
            tx.files.insert_nodes(added)
        if self._changed:
            tx.files.update_nodes(self._changed)
        if objects:
            tx.objects.insert(objects)
        if self._versions:
            tx.files.insert_versions(self._versions)
        if self._chunks:
            tx.files.insert_chunks(self._chunks)
        for chunk_ids, last in self._ended:
            tx.files.end_chunks(site.id, chunk_ids, last)
        for node_id, until in self._trims:
            self._stored -= tx.files.delete_versions(site.id, node_id, until=until, due=due)
        tx.sites.add_counts(site.id, self._files, self._size, self._stored)

    def _replace_chunks(self, present: Node, draft: _Draft) -> None:
        """Which chunks of the present version the new one no longer uses; those it keeps must still be there."""
        kept = list(draft.kept)
        if kept:
            there = self._tx.files.chunks(self._site.id, kept)
            if len(there) != len(set(kept)):
                raise Conflict("file_busy", f"the file {present.id} changed while it was written", "send it again")
        used = set(kept)
        gone = [chunk_id for chunk_id in self._present_chunks(present) if chunk_id not in used]
        if gone:
            self._ended.append((gone, present.version))
        if kept and draft.base != present.version:  # a version between did without some of them
            self._ended.append((kept, None))

    def _present_chunks(self, present: Node) -> list[str]:
        row = self._tx.files.version(self._site.id, present.id, present.version) if present.version else None
        try:
            return [entry.chunk_id for entry in open_manifest(self._current, row).entries] if row is not None else []
        except IntegrityFailure:
            return []  # damaged: writing it anew mends the file, and its old chunks go with it

    def _check_key(self, written: OpenSite) -> None:
        """What was sealed under an older version of the site key while a move began is committed only while that key is there."""
        if written.site.key_version == self._site.key_version:
            return
        if not self._keys_there:
            self._keys_there = frozenset(key.version for key in self._tx.sites.keys(self._site.id))
        if written.site.key_version not in self._keys_there:
            raise Conflict("file_busy", f"the key of the site {self._site.url} changed while the file came in", "send it again")

    def _check_quota(self, more: int) -> None:
        if more > 0 and self._site.size_bytes + self._size + more > self._site.quota_bytes:
            raise _over_quota(self._site.url, self._site.quota_bytes)


def _put_version(
    services: Services,
    call: Call,
    opened: OpenSite,
    target: _Target,
    draft: _Draft,
    writer: ChunkWriter | None,
    *,
    operation: str = "",
) -> Entry:
    """Commit one version of one file."""

    def commit(tx: Tx, current: OpenSite) -> Entry:
        change = _Change(services, tx, call, current)
        entry = change.version(target, draft)
        change.store(writer.objects if writer is not None else ())
        what = operation or ("FileUploaded" if entry.node.version == 1 else "FileModified")
        _record(services, tx, call, current, entry.node.id, what, (("Version", str(entry.node.version)), ("Size", str(draft.size))))
        return entry

    return _committed(services, call, opened, commit, writer)


# -- before content comes in ----------------------------------------------------------------------------------------------------------


class _Room:
    """How large a file may become: refused as soon as that is known, and again when it is committed."""

    def __init__(self, services: Services, opened: OpenSite, present: Node | None) -> None:
        self._url, self._quota = opened.site.url, opened.site.quota_bytes
        self._left = self._quota - opened.site.size_bytes + (present.size if present is not None else 0)
        self._present = present.size if present is not None else 0
        self._most = services.settings.max_file_bytes

    def take(self, size: int) -> None:
        """Raises: `file_too_large`, `quota_exceeded`."""
        if size > self._most:
            raise InvalidRequest("file_too_large", f"the file has more than {self._most} bytes", "the setting max_file_bytes decides")
        if size > self._left and size > self._present:
            raise _over_quota(self._url, self._quota)


class _Counted:
    """Passes a stream on, and knows how much of it there was."""

    def __init__(self, body: Iterable[Readable]) -> None:
        self._body = body
        self.count = 0

    def __iter__(self) -> Iterator[Readable]:
        for piece in self._body:
            self.count += len(memoryview(piece).cast("B"))
            yield piece


def _checked(services: Services, call: Call, opened: OpenSite, pieces: Iterator[memoryview]) -> Iterator[memoryview]:
    """Pieces of what comes in; before each but the first, whether the key may still be used (design section 5)."""
    policy = opened.opened
    for index, piece in enumerate(pieces):
        if index:
            try:
                policy = services.keyring.recheck(policy, opened.operation, request_id=call.request_id)
            except NotFound:  # a policy that is gone was replaced: the site says by which
                policy = reopened(services, call, opened).opened
        yield piece


def _allowed(services: Services, tx: Tx, opened: OpenSite, target: _Target, size: int | None) -> Node | None:
    """What is refused before any content is taken in; the file that is there now."""
    walk = Walk(services, tx, opened)
    parent = walk.find(target.names[:-1])
    if parent is None:
        if not target.parents:
            raise NotFound("folder_not_found", "a folder above it is not there", "make the folder first")
        walk.folder(target.names[:-1], make=True)
    elif parent.kind is not NodeKind.FOLDER:
        raise not_a_folder(parent)
    present = walk.child(parent, target.names[-1]) if parent is not None else None
    _check_target(present, target)
    return present


def _check_target(present: Node | None, target: _Target) -> None:
    if present is not None and present.kind is NodeKind.FOLDER:
        raise not_a_file(present)
    if present is not None and not target.replace:
        raise _exists(present)
    version = present.version if present is not None else 0
    if target.if_version is not None and target.if_version != version:
        raise PreconditionFailed(
            "file_changed", f"the file has version {version}, not {target.if_version}", "look at it again, and write it anew if need be"
        )


def _base(services: Services, tx: Tx, opened: OpenSite, present: Node | None) -> OpenFile | None:
    """The current version, whose chunks may be kept."""
    if present is None or not present.version:
        return None
    try:
        base = _open_version(tx, opened, present, None)
    except IntegrityFailure as error:
        if error.code != "file_damaged":
            raise
        return None  # writing it anew mends it
    return None if base.is_older else base


def _same(manifest: Manifest, entries: Sequence[ManifestEntry], media_type: str) -> bool:
    return tuple(entries) == manifest.entries and media_type in ("", manifest.media_type)


def _batch_targets(services: Services, files: Sequence[NewFile]) -> list[_Target]:
    if len(files) > MAX_BATCH:
        raise InvalidRequest("batch_too_long", f"{len(files)} files in one batch; at most {MAX_BATCH} are taken", "send smaller batches")
    targets = []
    seen: set[tuple[str, ...]] = set()
    for file in files:
        if len(file.data) > CHUNK_BYTES:
            raise InvalidRequest(
                "file_too_large", f"a file of {len(file.data)} bytes is too large for a batch of small ones", "send it by itself"
            )
        _check_media_type(file.media_type)
        names = names_of(file.path)
        same = tuple(unicodedata.normalize("NFC", name) for name in names)
        if same in seen:
            raise InvalidRequest("path_repeated", "two files of the batch have the same path", "send one of them")
        seen.add(same)
        targets.append(_Target(names, parents=True, node_id=new_id(services.random)))
    return targets


def _unchanged(services: Services, opened: OpenSite, targets: Sequence[_Target], files: Sequence[NewFile]) -> Mapping[int, Entry]:
    """Of the files of a batch, those that have just these bytes already, by index."""
    found: dict[int, Entry] = {}
    with services.db.read() as tx:
        walk, trunk = Walk(services, tx, opened), Trunk(tx, opened)
        walk.expect(target.names for target in targets)
        present = [(index, node) for index, target in enumerate(targets) if (node := walk.find(target.names)) is not None]
        alike = [(index, node) for index, node in present if node.kind is NodeKind.FILE and node.size == len(files[index].data)]
        rows = tx.files.current(opened.site.id, [node.id for _index, node in alike]) if alike else {}
        for index, node in alike:
            file, row = files[index], rows.get(node.id)
            trunk.check(node.id)
            if row is None or row.key_version != opened.site.key_version or hashlib.sha256(row.manifest).digest() != node.manifest_digest:
                continue
            manifest = open_manifest(opened, row)
            digests = [chunk_digest(opened.keys, file.data)] if len(file.data) else []
            if digests == [entry.digest for entry in manifest.entries] and file.media_type in ("", manifest.media_type):
                found[index] = Entry(node, targets[index].names[-1], unchanged=True)
    return found


def _behind(services: Services, call: Call, base: OpenFile, sent: _Counted, offset: int) -> Iterator[bytes]:
    """What the file has behind the bytes that were sent: of the chunk they ended in, or all of it where it goes under a newer key."""
    after = offset + sent.count
    end = base.manifest.size if base.is_older else min(base.manifest.size, -(-after // CHUNK_BYTES) * CHUNK_BYTES)
    if sent.count and after < end:
        yield from _pieces(services, call, base, after, end)


def _check_media_type(media_type: str) -> None:
    try:
        encode_manifest(Manifest(0, (), media_type))
    except ValueError:
        raise InvalidRequest(
            "media_type_invalid", "that is not a media type", "use up to 255 printable characters of ASCII, such as text/plain"
        ) from None


def _depth(node: Node, below: Sequence[Node]) -> int:
    """How many names deep what is in a folder lies below it."""
    depths = {node.id: 0}
    waiting = {one.id: one for one in below}
    while waiting:
        found = {one.id: depths[one.parent_id] + 1 for one in waiting.values() if one.parent_id in depths}
        if not found:
            break
        depths |= found
        waiting = {name: one for name, one in waiting.items() if name not in found}
    return max(depths.values())


def _record(
    services: Services, tx: Tx, call: Call, opened: OpenSite, object_id: str, operation: str, parameters: tuple[tuple[str, str], ...] = ()
) -> None:
    """The record of something done to a file: ids and numbers, never a name."""
    record(
        services,
        tx,
        call,
        object_id,
        (("Site", opened.site.url), *parameters),
        operation=operation,
        record_type=RecordType.SHAREPOINT_FILE,
    )


def _exists(node: Node) -> Conflict:
    return Conflict("file_exists", f"there is a {node.kind} of that path already", "choose another name, or remove it first")


def _out_of_range(offset: int, size: int) -> InvalidRequest:
    return InvalidRequest("range_invalid", f"the file has {size} bytes, and none at {offset}", "begin at its end at most")


def _over_quota(url: str, quota: int) -> PreconditionFailed:
    return PreconditionFailed(
        "quota_exceeded",
        f"the files of {url} may hold {quota} bytes, and would hold more",
        "delete some, or have the quota raised: keystead site set",
    )


def _busy(opened: OpenSite) -> Conflict:
    return Conflict("site_busy", f"the key of the site {opened.site.url} changed {ATTEMPTS} times meanwhile", "try again")


def _site_gone(opened: OpenSite) -> NotFound:
    return NotFound("site_not_found", f"the site {opened.site.url} was deleted meanwhile", "")
