"""Reading every file of a site, to see that it is all there and opens: `verification.verify` calls this for each site.

Nothing is changed, and rows may change meanwhile: what does not hold is looked at again with fresh rows, and is a problem only when they
are still the same.
"""

from __future__ import annotations

import hashlib
import hmac
from typing import TYPE_CHECKING, NamedTuple

from keystead.core.errors import IntegrityFailure, KeyDenied, KeysteadError, NotFound, Unavailable
from keystead.core.formats.files import chunk_digest, damaged
from keystead.core.stores.files import NodeKind
from keystead.services.file_chunks import ChunkGone, open_chunk
from keystead.services.file_nodes import LAST_PLACE, Trunk, open_name, open_properties
from keystead.services.file_reading import open_manifest
from keystead.services.sites import Use, opened_site

if TYPE_CHECKING:
    from collections.abc import Iterator

    from keystead.core.formats.files import Manifest, ManifestEntry
    from keystead.core.stores.files import Chunk, FileVersion, Node
    from keystead.ports.tx import Tx
    from keystead.services.context import Services
    from keystead.services.sites import OpenSite
    from keystead.services.verification import Verified

NODES = 1_000
"""Nodes that are read at a time, by whole buckets of the tree."""
CHUNKS = 64
"""Chunks whose rows are read at a time."""
ATTEMPTS = 4


class _Changed(Exception):
    """The site's key or policy changed since it was opened."""


class _File(NamedTuple):
    """Rows of a file at one moment."""

    node: Node
    versions: list[FileVersion]

    @property
    def state(self) -> tuple[Node, tuple[tuple[int, int], ...]]:
        """What is another after any change of it."""
        return self.node, tuple((one.number, one.key_version) for one in self.versions)


def verify_site(services: Services, tenant_id: str, site_id: str, request_id: str, result: Verified) -> None:
    """Check the tree of a site and read every version of every file.

    Args:
        services: the service.
        tenant_id: whose site.
        site_id: which; nothing is wrong when it is gone.
        request_id: for the records that opening keys makes.
        result: told what was found.
    """
    result.sites += 1
    try:
        _Site(services, tenant_id, site_id, request_id, result).verify()
    except (KeyDenied, Unavailable) as error:
        result.unopened.append(f"site {site_id}: {error.code}")
    except NotFound as error:
        if error.code != "site_not_found":
            result.found(f"site {site_id}", error)
    except IntegrityFailure as error:
        result.found(f"site {site_id}", error)


class _Site:
    """One site while it is read."""

    def __init__(self, services: Services, tenant_id: str, site_id: str, request_id: str, result: Verified) -> None:
        self._services = services
        self._tenant_id = tenant_id
        self._site_id = site_id
        self._request_id = request_id
        self._result = result
        self._opened = self._open()

    def verify(self) -> None:
        place = 0
        while place <= LAST_PLACE:
            place, nodes = self._page(place)
            for node in nodes:
                self._node(node.id)

    def _open(self) -> OpenSite:
        with self._services.db.read() as tx:
            site = tx.sites.find(self._tenant_id, self._site_id)
            wrapped = tx.sites.keys(self._site_id)
        if site is None:
            raise _gone(self._site_id)
        return opened_site(self._services, site, wrapped, Use.PUT, owner=False, reads=False, request_id=self._request_id)

    def _page(self, start: int) -> tuple[int, list[Node]]:
        """Nodes from a place on, by whole buckets, each of which is checked; and the place to go on from."""
        for _attempt in range(ATTEMPTS):
            try:
                with self._services.db.read() as tx:
                    self._same(tx)
                    return self._buckets(Trunk(tx, self._opened), start)
            except _Changed:
                self._opened = self._open()
        raise _busy(self._site_id)

    def _buckets(self, trunk: Trunk, start: int) -> tuple[int, list[Node]]:
        found: list[Node] = []
        while start <= LAST_PLACE and len(found) < NODES:
            start, nodes, error = trunk.bucket_from(start)
            if error is not None:
                self._result.found(f"site {self._site_id}", error)
            found += nodes
        return start, found

    def _same(self, tx: Tx) -> None:
        """Whether the site is still what was opened."""
        site = tx.sites.find(self._tenant_id, self._site_id)
        if site is None:
            raise _gone(self._site_id)
        if (site.key_version, site.policy_id) != (self._opened.site.key_version, self._opened.site.policy_id):
            raise _Changed

    def _node(self, node_id: str) -> None:
        """Everything of a file or folder; it may be gone meanwhile."""
        problem: KeysteadError | None = None
        seen: object = None
        for _attempt in range(ATTEMPTS):
            try:
                file = self._rows(node_id)
            except _Changed:
                self._opened = self._open()
                continue
            if file is None:
                return
            if problem is not None and file.state == seen:
                self._result.found(f"file {node_id} of site {self._site_id}", problem)
                return
            try:
                self._whole(file)
            except (IntegrityFailure, NotFound) as error:
                problem, seen = error, file.state
            else:
                return
        if problem is not None:
            self._result.found(f"file {node_id} of site {self._site_id}", problem)

    def _rows(self, node_id: str) -> _File | None:
        with self._services.db.read() as tx:
            self._same(tx)
            node = tx.files.node(self._site_id, node_id)
            return None if node is None else _File(node, tx.files.versions(self._site_id, node_id))

    def _whole(self, file: _File) -> None:
        """Whether it is what was written.

        Raises:
            IntegrityFailure: it is not.
        """
        node = file.node
        open_name(self._opened, node)
        open_properties(self._opened, node)
        if node.kind is NodeKind.FOLDER:
            self._result.folders += 1
            return
        current = next((one for one in file.versions if one.number == node.version), None)
        if node.version and (current is None or not _is_current(node, current)):
            raise damaged(f"{node.id} version {node.version}")
        known: dict[tuple[str, int], bytes] = {}
        for version in file.versions:
            manifest = open_manifest(self._opened, version)
            if manifest.size != version.size or len(manifest.entries) != version.chunks:
                raise damaged(f"{node.id} version {version.number}")
            self._chunks(version, manifest, known)
        self._result.files += 1
        self._result.file_versions += len(file.versions)
        self._result.file_bytes += node.size

    def _chunks(self, version: FileVersion, manifest: Manifest, known: dict[tuple[str, int], bytes]) -> None:
        """Whether the chunks of a version are there and what its manifest says; those that another version shares are read once."""
        for index, (entry, row) in enumerate(self._chunk_rows(version, manifest)):
            what = f"{version.node_id} version {version.number}, chunk {index} ({entry.chunk_id})"
            if row is None or row.node_id != version.node_id:
                raise damaged(f"{what}, which is missing,")
            if row.last_version is not None and row.last_version < version.number:
                raise damaged(f"{what}, which would go with version {row.last_version},")
            seen = entry.chunk_id, version.key_version
            if seen not in known:
                try:
                    data = open_chunk(self._services, self._opened, row, entry, what)
                except ChunkGone:
                    raise damaged(f"{what}, whose object is missing,") from None
                known[seen] = chunk_digest(self._opened.keys_of(version.key_version, what), data)
            if not hmac.compare_digest(known[seen], entry.digest):
                raise damaged(what)

    def _chunk_rows(self, version: FileVersion, manifest: Manifest) -> Iterator[tuple[ManifestEntry, Chunk | None]]:
        for start in range(0, len(manifest.entries), CHUNKS):
            part = manifest.entries[start : start + CHUNKS]
            with self._services.db.read() as tx:
                rows = tx.files.chunks(version.site_id, [entry.chunk_id for entry in part])
            for entry in part:
                yield entry, rows.get(entry.chunk_id)


def _is_current(node: Node, version: FileVersion) -> bool:
    same = hmac.compare_digest(hashlib.sha256(version.manifest).digest(), node.manifest_digest)
    return same and version.size == node.size


def _gone(site_id: str) -> NotFound:
    return NotFound("site_not_found", f"the site {site_id} was deleted meanwhile", "")


def _busy(site_id: str) -> Unavailable:
    return Unavailable("site_busy", f"the site {site_id} changed again and again", "try again when nothing is under way")
