"""Files of a site: writing, reading, versions, folders, moving, deleting (R-112 to R-115).

Every function takes a site that `sites.open_site` has opened for the caller. What it does to rows it does in one transaction, under the
site's tree; content comes before: objects first, durable, then the commit with node, version, chunks, tree, counts and the record. A crash in
between leaves objects that no row names, which `collect-orphans` removes, and never half a file.

Two writers of one file both succeed, one version after the other, unless `if_version` says which one must be there. The site key may change
while a file comes in: what was sealed under the older version is committed under it as long as that is there, for the move that made the
newer one to re-encrypt.
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING

from keystead.core.errors import Conflict, IntegrityFailure, InvalidRequest, NotFound
from keystead.core.formats.files import chunk_digest, is_media_type
from keystead.core.formats.sealed_object import OVERHEAD_BYTES
from keystead.core.ids import new_id
from keystead.core.stores.files import CHUNK_BYTES, MAX_BATCH_FILE, FileVersion, Node, NodeKind
from keystead.core.stores.paths import MAX_NAMES, MAX_PATH_CHARACTERS, join_path, split_path
from keystead.services.file_changes import (
    Change,
    Draft,
    Entry,
    Target,
    check_size,
    check_target,
    committed,
    file_exists,
    over_quota,
    put_version,
)
from keystead.services.file_chunks import ChunkWriter, cut
from keystead.services.file_nodes import (
    Trunk,
    Walk,
    names_of,
    not_a_file,
    not_a_folder,
    not_found,
    open_name,
    open_properties,
    renamed,
    seal_properties,
)
from keystead.services.file_reading import (
    Guard,
    OpenFile,
    contents,
    looked,
    newest,
    open_file,
    open_many,
    open_path,
    open_version,
    opened_version,
    out_of_range,
    pieces,
    read,
    read_many,
    record_file,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from keystead.api.call import Call
    from keystead.core.formats.aead import Readable
    from keystead.core.formats.files import ManifestEntry
    from keystead.ports.tx import Tx
    from keystead.services.context import Services
    from keystead.services.sites import OpenSite

__all__ = [
    "Deleted",
    "Entry",
    "NewFile",
    "OpenFile",
    "contents",
    "delete",
    "find",
    "listed",
    "listing",
    "make_folder",
    "move",
    "open_file",
    "open_many",
    "open_path",
    "properties",
    "put",
    "put_many",
    "read",
    "read_many",
    "restore_version",
    "set_properties",
    "versions",
    "write",
]
"""What front ends and jobs do with files; how it is read and committed is in `file_reading` and `file_changes`."""

MAX_BATCH = 5_000
MAX_PROPERTIES = 256 * 1024


@dataclass(frozen=True, slots=True)
class NewFile:
    """A file of `put_many`: at most `MAX_BATCH_FILE` bytes. `modified`: what is kept as its time."""

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


# -- finding ------------------------------------------------------------------------------------------------------------------------


def find(services: Services, opened: OpenSite, path: str) -> Node:
    """The node of a path; the top of the site is a folder whose id is the site's.

    Raises:
        NotFound: `file_not_found`.
        InvalidRequest: `path_invalid`, `path_too_long`.
    """
    names = split_path(path)
    return looked(services, opened, lambda tx, now: _found(services, tx, now, names))


def _found(services: Services, tx: Tx, opened: OpenSite, names: tuple[str, ...]) -> Node:
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

    def look(tx: Tx, now: OpenSite) -> tuple[Node, list[Entry]]:
        node = _found(services, tx, now, names)
        if node.kind is NodeKind.FILE:
            return node, [] if after else [Entry(node, open_name(now, node))]
        children = tx.files.children(now.site.id, node.id, after=after, limit=limit)
        return node, [Entry(child, open_name(now, child)) for child in children]

    return looked(services, opened, look)


# -- writing ------------------------------------------------------------------------------------------------------------------------


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

    Chunks that the current version has at the same place are kept; when nothing else is new, no version is made. Not so for a caller who may
    not read the file: what is there is not looked at, and every write makes a version.

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
    target = Target(names_of(path), if_version, replace, parents, new_id(services.random))
    _check_media_type(media_type)

    def look(tx: Tx, now: OpenSite) -> tuple[Node | None, OpenFile | None]:
        present = _allowed(services, tx, now, target)
        return present, _base(tx, now, present) if now.reads else None

    opened, (present, base) = newest(services, call, opened, look)
    room = _Room(services, opened, present)
    room.take(size or 0)
    with ChunkWriter(services, opened) as writer:
        content = _Content(writer, opened, target.node_id, base)
        for piece in _checked(services, call, opened, cut(body, size)):
            room.take(content.size + len(piece))
            content.add(piece)
        if size is not None and content.size != size:
            raise InvalidRequest("upload_cut_off", f"the file ended after {content.size} bytes of {size}", "send it again")
        node = content.unchanged(media_type)
        if node is not None:
            return Entry(node, target.names[-1], unchanged=True)
        writer.finish()
        services.checkpoint("put: objects stored")
        return put_version(services, call, opened, target, content.draft(media_type, modified), writer)


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
    target = Target(names_of(path), if_version, node_id=new_id(services.random))

    def look(tx: Tx, now: OpenSite) -> OpenFile:
        present = _allowed(services, tx, now, target)
        if present is None:
            raise not_found()
        return open_version(tx, now, present, None)

    opened, base = newest(services, call, opened, look)
    if not 0 <= offset <= base.manifest.size:
        raise out_of_range(offset, base.manifest.size)
    old = base.manifest
    start = 0 if base.is_older else offset // CHUNK_BYTES  # while a move is under way all of it goes under the newer key
    entries = list(old.entries[:start])
    room = _Room(services, opened, base.node)
    sent = _Counted(body)
    head = pieces(services, call, base, start * CHUNK_BYTES, offset)
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
        draft = Draft(opened, entries, writer.chunks, kept, base.number, grown, old.media_type, modified)
        return put_version(services, call, opened, target._replace(if_version=base.number), draft, writer)


def put_many(services: Services, call: Call, opened: OpenSite, files: Sequence[NewFile], *, folders: Sequence[str] = ()) -> list[Entry]:
    """Write many files, and folders, with those above them: all of them, or when it raises none.

    Args:
        services: the service.
        call: who writes.
        opened: the site, opened for changing or putting.
        files: each at most `MAX_BATCH_FILE` bytes; no path twice. Of a file that is there, chunks are kept as `put` keeps them.
        folders: paths of folders that are to be there too.

    Returns:
        The files, in the order given.

    Raises: as `put`; `InvalidRequest` also for `batch_too_long` and `path_repeated`.
    """
    targets = _batch_targets(services, files)
    sizes = [len(file.data) for file in files]
    if len(folders) > MAX_BATCH:
        raise InvalidRequest(
            "batch_too_long", f"{len(folders)} folders in one batch; at most {MAX_BATCH} are taken", "send smaller batches"
        )
    wanted = [split_path(folder) for folder in folders]
    opened, bases = newest(services, call, opened, lambda tx, now: _bases(services, tx, now, targets, sizes) if now.reads else {})
    with ChunkWriter(services, opened) as writer:
        drafts: list[Draft | Entry] = []
        for index, (target, file) in enumerate(zip(targets, files, strict=True)):
            content = _Content(writer, opened, target.node_id, bases.get(index))
            for piece in cut((file.data,), sizes[index]):
                content.add(piece)
            node = content.unchanged(file.media_type)
            drafts.append(content.draft(file.media_type, file.modified) if node is None else Entry(node, target.names[-1], unchanged=True))
        writer.finish()
        services.checkpoint("put: objects stored")

        def commit(tx: Tx, current: OpenSite) -> list[Entry]:
            change = Change(services, tx, call, current)
            for names in wanted:
                change.walk.folder(names, make=True)
            change.walk.expect(target.names for target in targets)
            done = [
                draft if isinstance(draft, Entry) else change.version(target, draft) for target, draft in zip(targets, drafts, strict=True)
            ]
            change.store(writer.objects)
            size = sum(draft.size for draft in drafts if isinstance(draft, Draft))
            count = sum(isinstance(draft, Draft) for draft in drafts)
            if count or change.walk.made:
                record_file(services, tx, call, current, current.site.id, "FileUploaded", (("Files", str(count)), ("Size", str(size))))
            return done

        return committed(services, call, opened, commit, writer)


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
        change = Change(services, tx, call, current)
        parent = change.walk.folder(names[:-1], make=parents)
        found = change.walk.child(parent, names[-1])
        if found is not None and (not parents or found.kind is NodeKind.FILE):
            raise file_exists(found)
        node = change.walk.folder(names, make=True)
        change.store(())
        if change.walk.made:
            record_file(services, tx, call, current, node.id, "FolderCreated")
        return Entry(node, names[-1], unchanged=found is not None)

    return committed(services, call, opened, commit)


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
        sealed = seal_properties(services, current, node.id, data)
        node = node._replace(properties=sealed, changed=node.changed + 1)
        tx.files.update_nodes([node])
        record_file(services, tx, call, current, node.id, "FilePropertiesChanged")
        return node

    return committed(services, call, opened, commit)


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
        change = Change(services, tx, call, current)
        node = change.walk.find(source)
        if node is None:
            raise not_found()
        parent = change.walk.folder(target[:-1])
        below = tx.files.subtree(current.site.id, node.id) if node.kind is NodeKind.FOLDER else []
        if parent.id == node.id or any(parent.id == one.id for one in below):
            raise InvalidRequest("folder_into_itself", f"the folder {node.id} cannot go into itself", "choose another place")
        if len(target) + _longest(node, below, lambda _one: 0) > MAX_NAMES:  # its names, each with a slash before it
            raise InvalidRequest(
                "path_too_long", f"what is in the folder {node.id} would lie too deep", f"folders lie at most {MAX_NAMES} deep"
            )
        _check_paths(current, target, node, below)
        present = change.walk.child(parent, target[-1])
        if present is not None and present.id != node.id:
            if not replace or NodeKind.FOLDER in (present.kind, node.kind):
                raise file_exists(present)
            change.remove([present])
        after = renamed(services, current, node, parent.id, target[-1])
        change.update(after)
        change.store(())
        same_folder = node.parent_id == parent.id
        what = ("Folder" if node.kind is NodeKind.FOLDER else "File") + ("Renamed" if same_folder else "Moved")
        record_file(services, tx, call, current, node.id, what, (("From", node.parent_id), ("To", parent.id)))
        return Entry(after, target[-1])

    return committed(services, call, opened, commit)


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
        change = Change(services, tx, call, current)
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
        record_file(services, tx, call, current, node.id, what, (("Files", str(files)), ("Folders", str(len(gone) - files))))
        return Deleted(node, files, len(gone) - files)

    return committed(services, call, opened, commit)


# -- versions -----------------------------------------------------------------------------------------------------------------------


def versions(services: Services, opened: OpenSite, path: str) -> tuple[Node, list[FileVersion]]:
    """A file and its versions, newest first. Raises: as `find`; `not_a_file`."""
    names = names_of(path)

    def look(tx: Tx, now: OpenSite) -> tuple[Node, list[FileVersion]]:
        node = _found(services, tx, now, names)
        if node.kind is NodeKind.FOLDER:
            raise not_a_file(node)
        return node, tx.files.versions(now.site.id, node.id)

    return looked(services, opened, look)


def restore_version(services: Services, call: Call, opened: OpenSite, path: str, number: int) -> Entry:
    """Make a new version with the content of an old one.

    Raises:
        NotFound: `file_not_found`, `version_not_found`.
    """
    names = names_of(path)

    def look(tx: Tx, now: OpenSite) -> OpenFile:
        return open_version(tx, now, _found(services, tx, now, names), number)

    opened, old = newest(services, call, opened, look)
    node = old.node
    if number == node.version:
        return Entry(node, names[-1], unchanged=True)
    if old.is_older:  # under an older key than new versions: its content is sealed again
        body = pieces(services, call, old, 0, old.manifest.size)
        return put(services, call, opened, path, body, size=old.manifest.size, media_type=old.manifest.media_type)
    kept = [entry.chunk_id for entry in old.manifest.entries]
    draft = Draft(opened, list(old.manifest.entries), (), kept, number, old.manifest.size, old.manifest.media_type, None)
    target = Target(names, if_version=node.version)
    return put_version(services, call, opened, target, draft, None, operation="FileVersionRestored")


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
        check_size(size, self._most)
        if size > self._left and size > self._present:
            raise over_quota(self._url, self._quota)


class _Content:
    """The chunks of a file as they come in. Those that the version before has at the same place are kept, the others stored."""

    def __init__(self, writer: ChunkWriter, opened: OpenSite, node_id: str, base: OpenFile | None) -> None:
        self.size = 0
        self._writer = writer
        self._opened = opened
        self._node_id = node_id
        self._base = base
        self._before = base.manifest.entries if base is not None else ()
        self._first = len(writer.chunks)
        self._entries: list[ManifestEntry] = []
        self._kept: list[str] = []

    def add(self, piece: Readable) -> None:
        """The next chunk: a whole one, unless it is the last."""
        digest = chunk_digest(self._opened.keys, piece)
        there = len(self._entries)
        same = self._before[there] if there < len(self._before) else None
        if same is not None and same.digest == digest and same.size == len(piece):
            self._entries.append(same)
            self._kept.append(same.chunk_id)
        else:
            self._entries.append(self._writer.add(self._node_id, piece, digest))
        self.size += len(piece)

    def unchanged(self, media_type: str) -> Node | None:
        """The file as it is, if the version before has just this."""
        if self._base is None or tuple(self._entries) != self._base.manifest.entries:
            return None
        return self._base.node if media_type in ("", self._base.manifest.media_type) else None

    def draft(self, media_type: str, modified: int | None) -> Draft:
        """What is to be committed; the writer has no chunks of another file behind its own."""
        number = self._base.number if self._base is not None else 0
        chunks = self._writer.chunks[self._first :]
        return Draft(self._opened, self._entries, chunks, self._kept, number, self.size, media_type, modified)


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
    guard = Guard(services, call, opened)
    for index, piece in enumerate(pieces):
        if index:
            guard.check()
        yield piece


def _allowed(services: Services, tx: Tx, opened: OpenSite, target: Target) -> Node | None:
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
    check_target(present, target)
    return present


def _base(tx: Tx, opened: OpenSite, present: Node | None) -> OpenFile | None:
    """The current version, whose chunks may be kept."""
    if present is None or not present.version:
        return None
    return _kept_from(lambda: open_version(tx, opened, present, None))


def _bases(services: Services, tx: Tx, opened: OpenSite, targets: Sequence[Target], sizes: Sequence[int]) -> dict[int, OpenFile]:
    """The same for the files of a batch, by index: of those whose chunks might be the same."""
    walk, trunk = Walk(services, tx, opened), Trunk(tx, opened)
    walk.expect(target.names for target in targets)
    alike = {
        index: node
        for index, (target, size) in enumerate(zip(targets, sizes, strict=True))
        if (node := walk.find(target.names)) is not None
        and node.kind is NodeKind.FILE
        and (node.size == size or min(node.size, size) >= CHUNK_BYTES)
    }
    rows = tx.files.current(opened.site.id, [node.id for node in alike.values()]) if alike else {}
    bases: dict[int, OpenFile] = {}
    for index, node in alike.items():
        trunk.check(node.id)
        base = _kept_from(partial(opened_version, opened, node, node.version, rows.get(node.id))) if node.version else None
        if base is not None:
            bases[index] = base
    return bases


def _kept_from(open_base: Callable[[], OpenFile]) -> OpenFile | None:
    """A version whose chunks a newer one may keep."""
    try:
        base = open_base()
    except IntegrityFailure as error:
        if error.code != "file_damaged":
            raise
        return None  # writing it anew mends it
    return None if base.is_older else base


def _batch_targets(services: Services, files: Sequence[NewFile]) -> list[Target]:
    if len(files) > MAX_BATCH:
        raise InvalidRequest("batch_too_long", f"{len(files)} files in one batch; at most {MAX_BATCH} are taken", "send smaller batches")
    targets = []
    seen: set[tuple[str, ...]] = set()
    for file in files:
        if len(file.data) > MAX_BATCH_FILE:
            raise InvalidRequest("file_too_large", f"a file of {len(file.data)} bytes is too large for a batch", "send it by itself")
        check_size(len(file.data), services.settings.max_file_bytes)
        _check_media_type(file.media_type)
        names = names_of(file.path)
        same = tuple(unicodedata.normalize("NFC", name) for name in names)
        if same in seen:
            raise InvalidRequest("path_repeated", "two files of the batch have the same path", "send one of them")
        seen.add(same)
        targets.append(Target(names, parents=True, node_id=new_id(services.random)))
    return targets


def _behind(services: Services, call: Call, base: OpenFile, sent: _Counted, offset: int) -> Iterator[bytes]:
    """What the file has behind the bytes that were sent: of the chunk they ended in, or all of it where it goes under a newer key."""
    after = offset + sent.count
    end = base.manifest.size if base.is_older else min(base.manifest.size, -(-after // CHUNK_BYTES) * CHUNK_BYTES)
    if sent.count and after < end:
        yield from pieces(services, call, base, after, end)


def _check_media_type(media_type: str) -> None:
    if not is_media_type(media_type):
        raise InvalidRequest(
            "media_type_invalid", "that is not a media type", "use up to 255 printable characters of ASCII, such as text/plain"
        )


def _check_paths(opened: OpenSite, target: Sequence[str], node: Node, below: Sequence[Node]) -> None:
    """Refuse a folder's new place where the path of something in it would be longer than any path may be: nobody could name it.

    Sealing adds the same to every name, so the boxes say how many bytes the names have; they are opened only where those might be too many.

    Raises:
        InvalidRequest: `path_too_long`.
    """
    start = len(join_path(target))
    if start + _longest(node, below, lambda one: len(one.sealed_name) - OVERHEAD_BYTES) <= MAX_PATH_CHARACTERS:
        return
    if start + _longest(node, below, lambda one: len(open_name(opened, one))) > MAX_PATH_CHARACTERS:
        raise InvalidRequest(
            "path_too_long",
            f"what is in the folder {node.id} would have a path of more than {MAX_PATH_CHARACTERS} characters",
            "choose a shorter name or another place",
        )


def _longest(node: Node, below: Sequence[Node], length: Callable[[Node], int]) -> int:
    """The longest path from a folder on, a slash before each name; `below` is in the order of its levels."""
    ends = {node.id: 0}
    for one in below:
        ends[one.id] = ends[one.parent_id] + 1 + length(one)
    return max(ends.values())
