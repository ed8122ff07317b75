"""Changing files: what one transaction does to the rows of a site, checked against its tree, and started over when the site key changed.

Content was stored before. Until the commit no row names it; when the commit may have been stored, it stays.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from keystead.core.errors import Conflict, IntegrityFailure, InvalidRequest, NotFound, PreconditionFailed, Refused
from keystead.core.formats.files import Manifest
from keystead.core.ids import new_id
from keystead.core.stores.files import FileVersion, Node, NodeKind
from keystead.core.stores.mailbox import MOVE_AT_REST
from keystead.services.file_nodes import Trunk, Walk, new_node, not_a_file
from keystead.services.file_reading import ATTEMPTS, open_manifest, record_file, seal_manifest, site_busy, site_gone
from keystead.services.sites import reopened

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from keystead.api.call import Call
    from keystead.core.formats.files import ManifestEntry
    from keystead.core.stores.files import Chunk, Site
    from keystead.core.stores.objects import StoredObject
    from keystead.ports.tx import Tx
    from keystead.services.context import Services
    from keystead.services.file_chunks import ChunkWriter
    from keystead.services.sites import OpenSite

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Entry:
    """A file or folder with its name opened.

    Attributes:
        unchanged: writing it found just these bytes there, and made no new version.
    """

    node: Node
    name: str
    unchanged: bool = False


class _Moved(Exception):
    """The site key changed between opening and committing; start again with the site as it is now."""


class Draft(NamedTuple):
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


class Target(NamedTuple):
    """Where a file goes, and what is expected there."""

    names: tuple[str, ...]
    if_version: int | None = None
    replace: bool = True
    parents: bool = False
    node_id: str = ""


def committed(services: Services, call: Call, opened: OpenSite, act: Callable[[Tx, OpenSite], T], writer: ChunkWriter | None = None) -> T:
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
                if writer is not None:
                    writer.check_age()
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
    raise site_busy(opened)


def _still(tx: Tx, current: OpenSite) -> Site:
    """The site's row, under the key it was opened with.

    Raises:
        NotFound: it was deleted.
        _Moved: it has a newer key.
    """
    site = tx.sites.find(current.site.tenant_id, current.site.id)
    if site is None:
        raise site_gone(current)
    if site.key_version != current.site.key_version:
        raise _Moved
    return site


class Change:
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

    def version(self, target: Target, draft: Draft) -> Entry:
        """A new version of a file, which is made where it is not there.

        Raises: as `put`.
        """
        parent = self.walk.folder(target.names[:-1], make=target.parents)
        present = self.walk.child(parent, target.names[-1])
        check_target(present, target)
        self._check_key(draft.written)
        self._check_kept(present, draft.kept)
        before = present.size if present is not None else 0
        self._check_quota(draft.size - before)
        number = present.version + 1 if present is not None else 1
        node_id = present.id if present is not None else target.node_id or new_id(self._services.random)
        manifest = seal_manifest(
            self._services, draft.written, node_id, number, Manifest(draft.size, tuple(draft.entries), draft.media_type)
        )
        digest = hashlib.sha256(manifest).digest()
        now = self._services.clock.now()
        modified = now if draft.modified is None else draft.modified
        if present is None:
            node = new_node(
                self._services,
                self._current,
                NodeKind.FILE,
                parent.id,
                target.names[-1],
                node_id=node_id,
                version=number,
                manifest_digest=digest,
                size=draft.size,
                modified=modified,
            )
        else:
            node = present._replace(version=number, manifest_digest=digest, size=draft.size, modified=modified, changed=present.changed + 1)
        written = draft.written.site.key_version
        self._versions.append(
            FileVersion(node.id, self._site.id, number, written, manifest, draft.size, len(draft.entries), now, self._call.principal.upn)
        )
        self._chunks += draft.chunks if node.id == target.node_id else [chunk._replace(node_id=node.id) for chunk in draft.chunks]
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

    def _replace_chunks(self, present: Node, draft: Draft) -> None:
        """Which chunks of the present version the new one no longer uses."""
        kept = list(draft.kept)
        used = set(kept)
        gone = [chunk_id for chunk_id in self._present_chunks(present) if chunk_id not in used]
        if gone:
            self._ended.append((self._with_successors(gone, used), present.version))
        if kept and draft.base != present.version:  # a version between did without some of them
            self._ended.append((self._with_successors(kept, used), None))

    def _with_successors(self, chunk_ids: list[str], used: set[str]) -> list[str]:
        """Chunks, and what a move has made of them so far: that goes out of use with them, whether or not the move comes to name it."""
        if self._site.move_state in MOVE_AT_REST:
            return chunk_ids
        successors = [chunk.successor for chunk in self._tx.files.chunks(self._site.id, chunk_ids).values()]
        return [*chunk_ids, *(one for one in successors if one and one not in used)]

    def _check_kept(self, present: Node | None, kept: Sequence[str]) -> None:
        """Chunks that a version keeps are there, and the file's own: they go with the file they are of.

        That file may have been deleted or renamed since the version was begun, and another of its name be there, or none.
        """
        if not kept:
            return
        own = present.id if present is not None else ""
        there = self._tx.files.chunks(self._site.id, kept)
        if len(there) != len(set(kept)) or any(chunk.node_id != own for chunk in there.values()):
            node_id = own or "that was there"
            raise Conflict("file_busy", f"the file {node_id} changed while it was written", "send it again")

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
            raise over_quota(self._site.url, self._site.quota_bytes)


def put_version(
    services: Services,
    call: Call,
    opened: OpenSite,
    target: Target,
    draft: Draft,
    writer: ChunkWriter | None,
    *,
    operation: str = "",
) -> Entry:
    """Commit one version of one file."""

    def commit(tx: Tx, current: OpenSite) -> Entry:
        change = Change(services, tx, call, current)
        entry = change.version(target, draft)
        change.store(writer.objects if writer is not None else ())
        what = operation or ("FileUploaded" if entry.node.version == 1 else "FileModified")
        record_file(services, tx, call, current, entry.node.id, what, (("Version", str(entry.node.version)), ("Size", str(draft.size))))
        return entry

    return committed(services, call, opened, commit, writer)


def check_target(present: Node | None, target: Target) -> None:
    """Whether what is there is what a writer expects.

    Raises:
        Conflict: `not_a_file`, `file_exists`.
        PreconditionFailed: `file_changed`.
    """
    if present is not None and present.kind is NodeKind.FOLDER:
        raise not_a_file(present)
    if present is not None and not target.replace:
        raise file_exists(present)
    version = present.version if present is not None else 0
    if target.if_version is not None and target.if_version != version:
        raise PreconditionFailed(
            "file_changed", f"the file has version {version}, not {target.if_version}", "look at it again, and write it anew if need be"
        )


def file_exists(node: Node) -> Conflict:
    """What is raised where something is in the way."""
    return Conflict("file_exists", f"there is a {node.kind} of that path already", "choose another name, or remove it first")


def check_size(size: int, most: int) -> None:
    """Refuse a file of more bytes than the setting `max_file_bytes` allows.

    Raises:
        InvalidRequest: `file_too_large`.
    """
    if size > most:
        raise InvalidRequest("file_too_large", f"the file has more than {most} bytes", "the setting max_file_bytes decides")


def over_quota(url: str, quota: int) -> PreconditionFailed:
    """What is raised where a site would hold more than it may."""
    return PreconditionFailed(
        "quota_exceeded",
        f"the files of {url} may hold {quota} bytes, and would hold more",
        "delete some, or have the quota raised: keystead site set",
    )
