"""Reading files: a version is opened, with the tree vouching for its row and the manifest for its chunks, and then its chunks one by one.

What is given out was written so by Keystead, in this order, for this file; whatever else the database or an object holds is an integrity
failure that names the file. Access is checked again before each chunk (design section 5).
"""

from __future__ import annotations

import hashlib
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from keystead.core.audit.record import RecordType
from keystead.core.errors import Conflict, IntegrityFailure, InvalidRequest, NotFound
from keystead.core.formats.files import Manifest, damaged, decode_manifest, encode_manifest, manifest_context
from keystead.core.stores.files import CHUNK_BYTES, MAX_BATCH_FILE, FileVersion, Node, NodeKind
from keystead.core.stores.paths import split_path
from keystead.ports.clock import SECOND
from keystead.services.auditing import record
from keystead.services.file_chunks import AHEAD, Ahead, ChunkGone, in_advance, open_chunk, opened_box, part_of_object
from keystead.services.file_nodes import Trunk, Walk, not_a_file, not_found, open_of_file
from keystead.services.sites import opened_site, reopened

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from keystead.api.call import Call
    from keystead.core.stores.files import Chunk
    from keystead.ports.tx import Tx
    from keystead.services.context import Services
    from keystead.services.sites import OpenSite

T = TypeVar("T")

ATTEMPTS = 5
"""How often something is started over for a site whose key changes meanwhile."""
LOOK = SECOND
"""How long a stream goes on at most without looking which policy its site lies under, in milliseconds."""
ROWS = 64
"""Chunks whose rows are read at a time."""


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

    def what_of(self, index: int) -> str:
        """How errors name one of its chunks."""
        return f"{self.what}, chunk {index} ({self.manifest.entries[index].chunk_id})"


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
    def look(tx: Tx, now: OpenSite) -> OpenFile:
        node = find_node(tx, now)
        if node is None:
            raise not_found()
        return open_version(tx, now, node, version)

    return newest(services, call, opened, look)[1]


def newest(services: Services, call: Call, opened: OpenSite, look: Callable[[Tx, OpenSite], T]) -> tuple[OpenSite, T]:
    """Look something up in one snapshot of a site, with the newest version of its key there.

    Content is sealed under that, too: what is sealed under one that is about to go could not be committed.

    Args:
        services: the service.
        call: who asks; whether they may still use the site is asked again when it has a newer key.
        opened: the site as it was opened.
        look: may be called again.

    Returns:
        The site as it was looked at, and what was found.

    Raises:
        NotFound: `site_not_found`: it was deleted.
        Conflict: `site_busy`.
    """
    current = opened
    for _attempt in range(ATTEMPTS):
        with services.db.read() as tx:
            site = tx.sites.find(opened.site.tenant_id, opened.site.id)
            if site is None:
                raise site_gone(opened)
            if site.key_version == current.site.key_version:
                current = replace(current, site=site)
                return current, look(tx, current)
        current = reopened(services, call, current)
    raise site_busy(opened)


def contents(services: Services, call: Call, file: OpenFile, *, offset: int = 0, length: int | None = None) -> Iterator[bytes]:
    """Bytes of an opened file; that it was read is recorded here. Arguments and errors as `read`."""
    size = file.manifest.size
    end = size if length is None else min(size, offset + length)
    if not 0 <= offset <= size or end < offset:
        raise out_of_range(offset, size)
    if not file.opened.owner or services.settings.record_owner_reads:
        with services.db.write() as tx:
            parameters = (("Version", str(file.number)), ("Offset", str(offset)), ("Length", str(end - offset)))
            record_file(services, tx, call, file.opened, file.node.id, "FileDownloaded", parameters)
    return pieces(services, call, file, offset, end)


def looked(services: Services, opened: OpenSite, look: Callable[[Tx, OpenSite], T]) -> T:
    """Look something up in one snapshot of a site, with the keys that its rows lie under there.

    What was opened before a move began knows nothing of the newer key: what lies under that looks as if it were missing, or damaged.

    Args:
        services: the service.
        opened: the site as it was opened.
        look: may be called again.
    """
    current = opened
    for _attempt in range(ATTEMPTS):
        with services.db.read() as tx:
            try:
                return look(tx, current)
            except (NotFound, IntegrityFailure):
                site = tx.sites.find(opened.site.tenant_id, opened.site.id)
                if site is None or site.key_version == current.site.key_version:
                    raise
                wrapped = tx.sites.keys(site.id)
        current = opened_site(services, site, wrapped, opened.use, owner=opened.owner, reads=opened.reads, request_id="")
    raise site_busy(opened)


class Part(NamedTuple):
    """A chunk of one of many files that are read at once: of which file, its number there, and its row where there is one.

    A file without chunks has one part all the same.
    """

    file: OpenFile
    number: int
    chunk: Chunk | None


def open_many(services: Services, call: Call, opened: OpenSite, node_ids: Sequence[str]) -> tuple[list[Part], list[str]]:
    """Open many files at once; that they were read is recorded here.

    Args:
        services: the service.
        call: who reads.
        opened: the site.
        node_ids: ids that a listing gave.

    Returns:
        All chunks of the files, those of a file together and in order, the files in the order they are best read in; and the ids of those
        that are gone, are no files, or have more than `MAX_BATCH_FILE` bytes.

    Raises:
        IntegrityFailure: `file_damaged`, `file_rolled_back`.
    """

    def look(tx: Tx, now: OpenSite) -> tuple[list[OpenFile], list[str], dict[str, Chunk]]:
        found: list[OpenFile] = []
        gone: list[str] = []
        trunk = Trunk(tx, now)
        current = tx.files.current(now.site.id, node_ids)
        for node_id in node_ids:
            node = trunk.find(node_id)
            if node is None or node.kind is NodeKind.FOLDER or node.size > MAX_BATCH_FILE:
                gone.append(node_id)
            else:
                found.append(opened_version(now, node, node.version, current.get(node_id)))
        return found, gone, tx.files.chunks(now.site.id, [entry.chunk_id for file in found for entry in file.manifest.entries])

    found, gone, chunks = looked(services, opened, look)
    if not opened.owner or services.settings.record_owner_reads:
        with services.db.write() as tx:
            for file in found:
                record_file(services, tx, call, opened, file.node.id, "FileDownloaded", (("Version", str(file.number)),))
    many = [[Part(file, index, chunks.get(entry.chunk_id)) for index, entry in enumerate(file.manifest.entries)] for file in found]
    many += [[Part(file, 0, None)] for file in found if not file.manifest.entries]
    return [part for parts in sorted(filter(None, many), key=_place) for part in parts], gone


def read_many(services: Services, call: Call, opened: OpenSite, parts: Sequence[Part]) -> Iterator[tuple[Part, bytes]]:
    """The bytes of each part; chunks of different files that lie one behind the other are fetched at once.

    Raises: as `read`, for the file that is not what was written.
    """
    guard = Guard(services, call, opened)
    groups = list(_side_by_side(parts))
    for group, got in zip(groups, in_advance(_getting(services, group) for group in groups), strict=True):
        guard.check()
        if len(group) == 1:
            yield group[0], got if got is not None else _again(services, call, group[0])
            continue
        start = _span(group)[1]
        for part in group:
            data = _opened(part, memoryview(got), start) if got is not None else None
            yield part, data if data is not None else _again(services, call, part)


def _getting(services: Services, group: Sequence[Part]) -> Callable[[], bytes | None] | None:
    """Gets the bytes of the only part of a group, or what all parts of a group are in, sealed; None, or none, where that cannot be had."""
    if len(group) > 1:
        return partial(part_of_object, services, *_span(group))
    file, number, chunk = group[0]
    if chunk is None:
        return None

    def get() -> bytes | None:
        with suppress(ChunkGone):
            return open_chunk(services, file.opened, chunk, file.manifest.entries[number], file.what_of(number))
        return None

    return get


class Guard:
    """Asks before each part of a stream whether the key may still be used (design section 5): that of the policy the site lies under by now.

    A stream may begin under the provider's policy and go on when the customer's is registered. From then on what the customer's vaults say
    counts for it, as it does for whoever opens the site.
    """

    def __init__(self, services: Services, call: Call, opened: OpenSite) -> None:
        self._services = services
        self._call = call
        self._opened = opened
        self._policy = opened.opened
        self._looked = services.clock.now()

    def check(self) -> bool:
        """Whether the site was opened again, for it lies under another policy.

        Raises:
            NotFound: the site was deleted.
            Forbidden, KeyDenied, Unavailable, IntegrityFailure: as opening it does.
        """
        try:
            if not self._replaced():
                self._policy = self._services.keyring.recheck(self._policy, self._opened.operation, request_id=self._call.request_id)
                return False
        except NotFound:  # a policy that is gone was replaced: the site says by which
            pass
        self._policy = reopened(self._services, self._call, self._opened).opened
        return True

    def _replaced(self) -> bool:
        now = self._services.clock.now()
        if 0 <= now - self._looked < min(LOOK, self._services.settings.probe_interval):
            return False
        self._looked = now
        site = self._opened.site
        with self._services.db.read() as tx:
            found = tx.sites.find(site.tenant_id, site.id)
        return found is None or found.policy_id != self._policy.policy.id


def _side_by_side(parts: Sequence[Part]) -> Iterator[list[Part]]:
    """Groups of chunks that lie one behind the other in one object, each group at most as large as a chunk."""
    group: list[Part] = []
    ref, end, size = "", -1, 0
    for part in parts:
        chunk = part.chunk
        if group and (chunk is None or (chunk.object_ref, chunk.offset) != (ref, end) or size + chunk.length > CHUNK_BYTES):
            yield group
            group, size = [], 0
        group.append(part)
        if chunk is None:
            ref, end = "", -1
        else:
            ref, end, size = chunk.object_ref, chunk.offset + chunk.length, size + chunk.length
    if group:
        yield group


def _place(parts: Sequence[Part]) -> tuple[str, int]:
    """Where a file lies, by its first chunk."""
    chunk = parts[0].chunk
    return (chunk.object_ref, chunk.offset) if chunk is not None else ("", 0)


def _span(group: Sequence[Part]) -> tuple[str, int, int]:
    """Where the chunks of a group lie: object, offset and length in bytes."""
    first, last = group[0].chunk, group[-1].chunk
    if first is None or last is None:
        return "", 0, 0
    return first.object_ref, first.offset, last.offset + last.length - first.offset


def _opened(part: Part, box: memoryview, start: int) -> bytes | None:
    """The bytes of a part, out of what it is in, which begins there in its object."""
    file, number, chunk = part
    if chunk is None:
        return None
    own = box[chunk.offset - start : chunk.offset - start + chunk.length]
    return opened_box(file.opened, chunk, file.manifest.entries[number], own, file.what_of(number))


def _again(services: Services, call: Call, part: Part) -> bytes:
    """The bytes of a part that could not be had where its row said: a move may have put them elsewhere meanwhile."""
    file, number, _chunk = part
    end = min(file.manifest.size, (number + 1) * CHUNK_BYTES)
    return b"".join(pieces(services, call, file, number * CHUNK_BYTES, end))


def open_version(tx: Tx, opened: OpenSite, node: Node, number: int | None) -> OpenFile:
    """A version of a file that was just read, checked against the tree."""
    Trunk(tx, opened).check(node.id)
    if node.kind is NodeKind.FOLDER:
        raise not_a_file(node)
    wanted = node.version if number is None else number
    if not wanted and node.version:
        raise NotFound("version_not_found", f"the file {node.id} has no version 0", "keystead site versions lists them")
    return opened_version(opened, node, wanted, tx.files.version(opened.site.id, node.id, wanted) if wanted else None)


def opened_version(opened: OpenSite, node: Node, number: int, row: FileVersion | None) -> OpenFile:
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
    context = manifest_context(opened.site.tenant_id, opened.site.id, row.node_id, row.number)
    return decode_manifest(open_of_file(opened, row.manifest, row.key_version, context, what), object_name=what)


def seal_manifest(services: Services, opened: OpenSite, node_id: str, number: int, manifest: Manifest) -> bytes:
    """A manifest, sealed under the site's newest key of that opening."""
    context = manifest_context(opened.site.tenant_id, opened.site.id, node_id, number)
    return opened.sealed(services, context, encode_manifest(manifest))


def pieces(services: Services, call: Call, file: OpenFile, offset: int, end: int) -> Iterator[bytes]:
    """The bytes of a file between two offsets, chunk by chunk; both are within it. Raises: as `read`."""
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
        self._guard = Guard(services, call, file.opened)
        self._last = last
        self._rows: dict[str, Chunk] = {}
        self._ahead = Ahead(services)

    def chunk(self, index: int) -> bytes:
        """The bytes of one chunk. Raises: `KeyDenied`, `Unavailable`, `IntegrityFailure`, `NotFound` for a file that was deleted."""
        if self._guard.check():
            self._look_again()
        for again in (True, False):
            entry, row, what = self._file.manifest.entries[index], self._row(index), self._file.what_of(index)
            if row is not None:
                with suppress(ChunkGone):
                    self._look_ahead(index)
                    return self._ahead.take(self._opened, row, entry, what)
            if again:
                self._look_again()
        raise damaged(f"{what}, which is missing,")

    def _look_ahead(self, index: int) -> None:
        for following in range(index + 1, min(index + AHEAD, self._last) + 1):
            entry = self._file.manifest.entries[following]
            row = self._rows.get(entry.chunk_id)
            if row is not None:
                self._ahead.want(self._opened, row, entry, self._file.what_of(following))

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
        number = self._file.number
        self._file = open_file(self._services, self._call, self._opened, self._file.node, version=number)
        self._opened = self._file.opened
        self._rows = {}


def record_file(
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


def out_of_range(offset: int, size: int) -> InvalidRequest:
    """What is raised for bytes that begin behind the end of a file."""
    return InvalidRequest("range_invalid", f"the file has {size} bytes, and none at {offset}", "begin at its end at most")


def site_busy(opened: OpenSite) -> Conflict:
    """What is raised when a site's key changes again and again."""
    return Conflict("site_busy", f"the key of the site {opened.site.url} changed {ATTEMPTS} times meanwhile", "try again")


def site_gone(opened: OpenSite) -> NotFound:
    """What is raised for a site that was deleted after it was opened."""
    return NotFound("site_not_found", f"the site {opened.site.url} was deleted meanwhile", "")
