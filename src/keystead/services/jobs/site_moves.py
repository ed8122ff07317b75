"""Sealing what a site holds anew under a fresh site key, while people read and write (docs/spec/files.md section 7, R-106, R-109).

- The first slice makes the key, and a tree under it over the rows that matched the old tree. From then on new content lies under it.
- Names are next, a range of places after the other, then the versions of files, the newest of each file first: their chunks are opened,
  checked against the digests of their manifest, and written into new objects under fresh keys; an old chunk names its successor. A large
  file takes many slices.
- When nothing lies under older keys they are removed.

What of a version was done is known by the successors of its chunks; their digests, which its new manifest needs, are kept in memory. A
process that has not got them opens the successors again and goes on from there.
"""

from __future__ import annotations

import hashlib
import hmac
import threading
from collections import Counter, OrderedDict
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from keystead.core.alerts import AlertKind, Condition
from keystead.core.audit.record import RecordType
from keystead.core.errors import IntegrityFailure
from keystead.core.formats.file_tree import MAX_BITS, PLACE_BITS, Tree, bits_for, leaf_of, rolled_back
from keystead.core.formats.files import Manifest, ManifestEntry, chunk_digest, damaged
from keystead.core.keys.decide import Operation
from keystead.core.stores.files import SiteKey, SiteTree
from keystead.core.stores.mailbox import MoveState
from keystead.services.alerting import raise_alert, resolve_alerts
from keystead.services.auditing import record_system
from keystead.services.file_chunks import ChunkGone, ChunkWriter, open_chunk
from keystead.services.file_locks import sealed_anew
from keystead.services.file_nodes import LAST_PLACE, Trunk, open_name, open_tree, seal_tree, under_newest
from keystead.services.file_reading import open_manifest, seal_manifest
from keystead.services.jobs.files import settle
from keystead.services.jobs.rows import new_job
from keystead.services.jobs.slices import done, kept, save
from keystead.services.sites import Use, with_keys

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from keystead.core.jobs import Job
    from keystead.core.keys.hierarchy import SiteKeys
    from keystead.core.stores.files import Chunk, FileVersion, Node, Site
    from keystead.core.stores.objects import StoredObject
    from keystead.ports.tx import Tx
    from keystead.services.context import Services
    from keystead.services.sites import OpenSite

KNOWN_CHUNKS = 200_000
"""Chunks of moves under way whose digests under the new key a process keeps: three files of the largest size."""
ROWS = 512
"""Chunks whose rows are read at a time."""


def move_site(services: Services, job: Job) -> Job:
    """One slice of sealing a site anew."""
    with services.db.read() as tx:
        site = tx.sites.find(job.tenant_id, job.subject_id)
        wrapped = tx.sites.keys(job.subject_id)
    version = int(job.parameters.get("version", "0"))
    if site is None or site.policy_id != job.parameters["policy_id"] or (version and site.key_version != version):
        return _over(services, job)
    policy = services.keyring.open(site.policy_id, Operation.SYSTEM, request_id=job.id)
    try:
        opened = with_keys(site, wrapped, policy, Use.PUT, owner=False, reads=False)
        if not version:
            return _start(services, job, opened)
        return _names(services, job, opened) or _contents(services, job, opened) or _finish(services, job, opened)
    except IntegrityFailure as error:
        _mark_failed(services, job, site, error)
        raise


def _over(services: Services, job: Job) -> Job:
    """The site was deleted, or lies under another policy by now."""
    with services.db.write() as tx:
        return _ended(services, tx, job)


def _ended(services: Services, tx: Tx, job: Job) -> Job:
    """This site is done, or gone. It may be the last one a change of its geo waits for."""
    settle(services, tx, job.tenant_id, job.parameters["geo"], job.parameters["policy_id"])
    return done(services, tx, job, done=job.total)


def _still(tx: Tx, site: Site) -> Site | None:
    """A fresh look inside the transaction: the site as it is, None when it was deleted or changed hands since."""
    now = tx.sites.find(site.tenant_id, site.id)
    same = now is not None and (now.policy_id, now.key_version) == (site.policy_id, site.key_version)
    return now if same else None


# -- the first slice ------------------------------------------------------------------------------------------------------------------


def _start(services: Services, job: Job, opened: OpenSite) -> Job:
    """A fresh site key, the tree and the locks under it; no file is touched."""
    site = opened.site
    version = max(opened.all_keys) + 1
    wrapped = opened.opened.new_site_key(site.id, version, services.random)
    keys = opened.opened.site_keys(site.id, version, wrapped)
    with services.db.read() as tx:  # a snapshot: for a large site this takes a while, and nobody waits for it
        seen = tx.sites.tree(site.id)
        tree = _new_tree(services, tx, opened, version, keys)
    services.checkpoint("move site: tree made")
    with services.db.write() as tx:
        now = _still(tx, opened.site)
        if now is None:
            return _ended(services, tx, job)
        if tx.sites.tree(site.id) != seen:  # somebody changed the site meanwhile: now nobody can
            tree = _new_tree(services, tx, opened, version, keys)
        tx.sites.insert_key(SiteKey(site.id, version, wrapped))
        if tree is not None:
            tx.sites.put_tree(tree)
        for lock in tx.sites.locks(site.id, services.clock.now()):
            if lock.key_version in opened.all_keys:
                tx.sites.put_lock(sealed_anew(services, opened, lock, version, keys))
        tx.sites.update(replace(now, key_version=version, move_state=MoveState.MOVING, moved=0))
        return save(services, tx, job, parameters=job.parameters | {"version": str(version), "place": "0"}, total=max(1, now.stored_bytes))


def _new_tree(services: Services, tx: Tx, opened: OpenSite, version: int, keys: SiteKeys) -> SiteTree | None:
    """A tree under the new key over all nodes of the site, which must match the old one.

    Raises:
        IntegrityFailure: `file_rolled_back`.
    """
    site = opened.site
    row = tx.sites.tree(site.id)
    old = Tree.empty(opened.keys) if row is None else open_tree(opened, row)
    nodes = tx.files.placed(site.id, 0, LAST_PLACE)
    leaves = [leaf_of(node) for node in nodes]
    if not old.matches_all(leaves):
        raise rolled_back(site.id, nodes[0].id if nodes else site.id)
    return None if row is None else seal_tree(services, site, keys, version, old.rebuilt(leaves, bits_for(len(leaves)), keys=keys))


# -- names ----------------------------------------------------------------------------------------------------------------------------


def _names(services: Services, job: Job, opened: OpenSite) -> Job | None:
    """One range of places: the names and properties of its nodes. None when all are done."""
    site = opened.site
    place = int(job.parameters["place"])
    with services.db.read() as tx:
        if place > LAST_PLACE:
            if not tx.files.nodes_below(site.id, site.key_version, limit=1):
                return None
            place = 0  # a range was passed over: once more
        count = tx.files.count(site.id)
    last = _end_of_range(place, count, services.settings.slice_items)
    with services.db.write() as tx:
        now = _still(tx, opened.site)
        if now is None:
            return _ended(services, tx, job)
        nodes = [node for node in tx.files.placed(site.id, place, last) if node.key_version < site.key_version]
        if nodes:
            moved = [under_newest(services, opened, node, node.parent_id, open_name(opened, node)) for node in nodes]
            Trunk(tx, opened).change(services, changed=moved)
            tx.files.update_nodes(moved)
        _moving(services, tx, now)
        return save(services, tx, job, parameters=job.parameters | {"place": str(last + 1)})


def _end_of_range(place: int, count: int, most: int) -> int:
    """The last place of a range in which about so many nodes lie; it ends where a bucket does, so that no bucket is checked twice."""
    buckets = max(1, (most << MAX_BITS) // max(1, count) >> (PLACE_BITS - bits_for(count)))
    width = 1 << (PLACE_BITS - bits_for(count))
    return min(LAST_PLACE, (place // width + buckets) * width - 1)


# -- contents -------------------------------------------------------------------------------------------------------------------------


class _Known:
    """What this process has made sure of: which chunk under a new key holds the bytes of which older one, with its digest there."""

    def __init__(self) -> None:
        self._entries: OrderedDict[tuple[str, bytes, int], ManifestEntry] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, entry: ManifestEntry, version: int) -> ManifestEntry | None:
        """The successor of a chunk under a version of the site key."""
        name = (entry.chunk_id, entry.digest, version)
        with self._lock:
            found = self._entries.get(name)
            if found is not None:
                self._entries.move_to_end(name)
            return found

    def learn(self, known: dict[ManifestEntry, ManifestEntry], version: int, missing: set[str]) -> None:
        """Keep what a slice has found and committed, and forget chunks that were not there any more."""
        with self._lock:
            for entry, successor in known.items():
                name = (entry.chunk_id, entry.digest, version)
                if successor.chunk_id in missing:
                    self._entries.pop(name, None)
                else:
                    self._entries[name] = successor
            while len(self._entries) > KNOWN_CHUNKS:
                self._entries.popitem(last=False)


_known = _Known()


@dataclass(frozen=True, slots=True)
class _Piece:
    """A version that a slice works on: its row as it was, and its new manifest when all of its chunks are there."""

    row: FileVersion
    manifest: Manifest | None


@dataclass(slots=True)
class _Work:
    """What a slice has made.

    Attributes:
        renewed: when the job's lease was last extended.
        known: entries of older manifests, and what they are under the new key.
        successors: chunks that were made, by the older ones.
        pieces: the versions it worked on.
        missing: chunks of their new manifests that are not there: what they belonged to was deleted meanwhile.
        size: bytes of plaintext it has put into new chunks.
    """

    renewed: int
    known: dict[ManifestEntry, ManifestEntry] = field(default_factory=dict)
    successors: dict[str, str] = field(default_factory=dict)
    pieces: list[_Piece] = field(default_factory=list)
    missing: set[str] = field(default_factory=set)
    size: int = 0


def _contents(services: Services, job: Job, opened: OpenSite) -> Job | None:
    """As many chunks as one slice takes. None when nothing lies under older keys."""
    site, settings = opened.site, services.settings
    with services.db.read() as tx:
        rows = tx.files.versions_below(site.id, site.key_version, limit=settings.slice_items)
    if not rows:
        return None
    work = _Work(services.clock.now())
    with ChunkWriter(services, opened) as writer:
        for row in rows:
            work.pieces.append(_Piece(row, _moved(services, job, opened, row, writer, work)))
            if work.size >= settings.slice_bytes:
                break
        writer.finish()
        services.checkpoint("move site: new objects stored")
        with services.db.write() as tx:
            now = _still(tx, opened.site)
            if now is None:
                writer.discard()
                return _ended(services, tx, job)
            writer.keep()
            grown = _store(services, tx, opened, writer, work)
            _moving(services, tx, now, moved=work.size)
            tx.sites.add_counts(site.id, 0, 0, grown)
            saved = save(services, tx, job, done=min(job.total, job.done + work.size))
    _known.learn(work.known, site.key_version, work.missing)
    return saved


def _moved(services: Services, job: Job, opened: OpenSite, row: FileVersion, writer: ChunkWriter, work: _Work) -> Manifest | None:
    """The manifest of a version under the new key; None when the slice is full before all its chunks are there.

    Raises:
        IntegrityFailure: something of it is not what was written; names file, version and chunk.
    """
    site = opened.site
    manifest = open_manifest(opened, row)
    entries: list[ManifestEntry] = []
    chunks: dict[str, Chunk] = {}
    for index, entry in enumerate(manifest.entries):
        known = work.known.get(entry) or _known.get(entry, site.key_version)
        if known is None:
            if work.size >= services.settings.slice_bytes:
                return None
            # What another process has done of a large file is opened again, and that may take longer than a slice should.
            work.renewed = kept(services, job, work.renewed)
            if entry.chunk_id not in chunks:
                with services.db.read() as tx:
                    chunks = tx.files.chunks(site.id, [one.chunk_id for one in manifest.entries[index : index + ROWS]])
            known = _successor(services, opened, row, entry, chunks.get(entry.chunk_id), writer, work)
        work.known[entry] = known
        entries.append(known)
    return Manifest(manifest.size, tuple(entries), manifest.media_type)


def _successor(
    services: Services,
    opened: OpenSite,
    row: FileVersion,
    entry: ManifestEntry,
    chunk: Chunk | None,
    writer: ChunkWriter,
    work: _Work,
) -> ManifestEntry:
    """A chunk under the new key with the bytes of an older one: the one there is, or a new one."""
    what = f"{row.node_id} version {row.number}, chunk {entry.chunk_id}"
    if chunk is None:
        raise damaged(what)
    old_keys = opened.keys_of(row.key_version, f"file {what}")
    if chunk.successor:
        found = _made_before(services, opened, entry, chunk.successor, old_keys, what)
        if found is not None:
            return found
    data = _opened(services, opened, chunk, entry, what)
    if not hmac.compare_digest(chunk_digest(old_keys, data), entry.digest):
        raise damaged(what)
    work.size += entry.size
    made = writer.add(row.node_id, data, chunk_digest(opened.keys, data))
    work.successors[entry.chunk_id] = made.chunk_id
    return made


def _made_before(
    services: Services, opened: OpenSite, entry: ManifestEntry, successor: str, old_keys: SiteKeys, what: str
) -> ManifestEntry | None:
    """The successor that a row names, if its bytes are those the older manifest says; else None, and it is made anew.

    The column is not bound to anything, so it only says where to look.
    """
    with services.db.read() as tx:
        chunk = tx.files.chunks(opened.site.id, [successor]).get(successor)
    if chunk is None or chunk.key_version != opened.site.key_version:
        return None
    try:
        data = _opened(services, opened, chunk, ManifestEntry(successor, entry.size, entry.digest), what)
    except IntegrityFailure:
        return None
    if not hmac.compare_digest(chunk_digest(old_keys, data), entry.digest):
        return None
    return ManifestEntry(successor, entry.size, chunk_digest(opened.keys, data))


def _opened(services: Services, opened: OpenSite, chunk: Chunk, entry: ManifestEntry, what: str) -> bytes:
    try:
        return open_chunk(services, opened, chunk, entry, what)
    except ChunkGone as error:
        raise IntegrityFailure(
            "object_missing", f"the object of file {what} is missing", "restore the object store from a backup, or delete the file"
        ) from error


def _store(services: Services, tx: Tx, opened: OpenSite, writer: ChunkWriter, work: _Work) -> int:
    """Commit a slice: new chunks and objects, manifests, digests under the tree; by how many bytes the site's objects grew.

    Files and versions may have been deleted, or written anew, since the slice read them. Chunks of what is gone are not stored.
    """
    site = opened.site
    older = tx.files.chunks(site.id, list(work.successors))
    made = {chunk.id: chunk for chunk in writer.chunks}
    pairs = [(old.id, work.successors[old.id]) for old in older.values()]
    stored = [made[new]._replace(last_version=older[old].last_version, node_id=older[old].node_id) for old, new in pairs]
    tx.objects.insert(_used(writer.objects, stored))
    tx.files.insert_chunks(stored)
    tx.files.succeed(site.id, pairs)
    changed: list[Node] = []
    touched: set[str] = set()
    older_of = {new.chunk_id: old.chunk_id for old, new in work.known.items()}
    for piece in work.pieces:
        row = piece.row
        if piece.manifest is None or tx.files.version(site.id, row.node_id, row.number) != row:
            continue
        named = [entry.chunk_id for entry in piece.manifest.entries]
        there = tx.files.chunks(site.id, named)
        missing = set(named) - there.keys()
        if missing:
            work.missing |= missing
            continue  # the next slice makes them anew
        sealed = seal_manifest(services, opened, row.node_id, row.number, piece.manifest)
        tx.files.update_version(row._replace(key_version=site.key_version, manifest=sealed))
        touched.add(row.node_id)
        node = tx.files.node(site.id, row.node_id)
        _use(tx, row, list(there.values()), older_of, current=node is not None and node.version == row.number)
        if node is not None and node.version == row.number:
            if hashlib.sha256(row.manifest).digest() != node.manifest_digest:  # the tree would make it good
                raise damaged(f"{row.node_id} version {row.number}")
            changed.append(node._replace(manifest_digest=hashlib.sha256(sealed).digest()))
    if changed:
        Trunk(tx, opened).change(services, changed=changed)
        tx.files.update_nodes(changed)
    return sum(chunk.length for chunk in stored) - sum(_dropped(services, tx, opened, node_id) for node_id in touched)


def _use(tx: Tx, row: FileVersion, chunks: Sequence[Chunk], older_of: Mapping[str, str], *, current: bool) -> None:
    """Say of the chunks of a version that has just come under the new key which version is the last that uses them.

    They were made as the older ones were then. Since, a version may have come about that keeps an older one, or does without it.
    """
    lasts: dict[int | None, list[str]] = {}
    there = {} if current else tx.files.chunks(row.site_id, [older_of[chunk.id] for chunk in chunks if chunk.last_version is None])
    for chunk in chunks:
        if current:
            last = None
        elif chunk.last_version is not None:
            last = max(chunk.last_version, row.number)
        else:
            old = there.get(older_of[chunk.id])
            last = old.last_version if old is not None else None
        if last != chunk.last_version:
            lasts.setdefault(last, []).append(chunk.id)
    for last, chunk_ids in lasts.items():
        tx.files.end_chunks(row.site_id, chunk_ids, last)


def _used(objects: Sequence[StoredObject], chunks: Sequence[Chunk]) -> list[StoredObject]:
    """The objects of a slice with how many chunks lie in each. One in which nothing lies gets no row: `collect-orphans` removes it."""
    count = Counter(chunk.object_ref for chunk in chunks)
    return [replace(stored, items=count[stored.ref]) for stored in objects if count[stored.ref]]


def _dropped(services: Services, tx: Tx, opened: OpenSite, node_id: str) -> int:
    """Remove a file's chunks under older keys once no version of it names them; bytes that went, after a grace period for readers."""
    site = opened.site
    if any(row.key_version < site.key_version for row in tx.files.versions(site.id, node_id)):
        return 0
    due = services.clock.now() + services.settings.object_grace
    return tx.files.drop_chunks(site.id, node_id, below=site.key_version, due=due)


# -- the end --------------------------------------------------------------------------------------------------------------------------


def _finish(services: Services, job: Job, opened: OpenSite) -> Job:
    """Nothing lies under older keys any more: they go, and with them whatever else they could open."""
    site = opened.site
    with services.db.write() as tx:
        now = _still(tx, opened.site)
        if now is None:
            return _ended(services, tx, job)
        left = tx.files.nodes_below(site.id, site.key_version, limit=1), tx.files.versions_below(site.id, site.key_version, limit=1)
        if any(left):  # written meanwhile, by somebody who had opened the site before the move began
            return save(services, tx, job)
        at = services.clock.now()
        tx.sites.remove_keys_below(site.id, site.key_version)
        tx.sites.update(replace(now, move_state=MoveState.DONE, moved_at=at, moved=now.stored_bytes))
        resolve_alerts(services, tx, site.tenant_id, site.id, [AlertKind.FILE_DAMAGED])
        due = at + services.settings.object_grace
        tx.jobs.insert([new_job(services, job.tenant_id, "clean", site.id, not_before=due, priority=8)])
        record_system(
            services,
            tx,
            job.tenant_id,
            "Complete-SiteMove",
            site.id,
            (("Url", site.url), ("DataEncryptionPolicy", site.policy_id), ("Files", str(now.file_count)), ("Job", job.id)),
            record_type=RecordType.SHAREPOINT,
            request_id=job.id,
        )
        return _ended(services, tx, job)


def _moving(services: Services, tx: Tx, now: Site, *, moved: int = 0) -> None:
    """The site gets on: what held it up before is over."""
    if now.move_state is MoveState.FAILED:
        resolve_alerts(services, tx, now.tenant_id, now.id, [AlertKind.FILE_DAMAGED])
    tx.sites.update(replace(now, move_state=MoveState.MOVING, moved=now.moved + moved))


def _mark_failed(services: Services, job: Job, site: Site, error: IntegrityFailure) -> None:
    """Say that the move does not get on, and at what. A runner that lost the job meanwhile says nothing."""
    with services.db.write() as tx:
        now = _still(tx, site)
        if now is None or not tx.jobs.extend(job, services.clock.now() + services.settings.job_lease):
            return
        raise_alert(services, tx, Condition(site.tenant_id, AlertKind.FILE_DAMAGED, site.id, f"{error.code}: {error.detail}"))
        if now.move_state is MoveState.FAILED:
            return  # it was said before
        tx.sites.update(replace(now, move_state=MoveState.FAILED))
        record_system(
            services,
            tx,
            site.tenant_id,
            "Complete-SiteMove",
            site.id,
            (("Url", site.url), ("Code", error.code), ("Detail", error.detail), ("Job", job.id)),
            record_type=RecordType.SHAREPOINT,
            request_id=job.id,
            result="Failed",
        )
