"""Nodes, versions and chunks of files."""

from __future__ import annotations

from collections import Counter
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from sqlalchemy import and_, bindparam, case, delete, func, literal_column, select, update

from keystead.adapters.sql.bulk import Among, AmongHashes, Bulk, hashed, listed
from keystead.adapters.sql.keystead_schema import file_chunks, file_nodes, file_versions, objects
from keystead.adapters.sql.rows import Lookup, Many, conflict
from keystead.adapters.sql.rows import chunks as parts_of
from keystead.core.stores.files import Chunk, FileVersion, Node, NodeKind

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import AbstractContextManager

    from sqlalchemy import Column, ColumnElement, Connection, Delete

_NODE_FIELDS = Node._fields
_VERSION_FIELDS = FileVersion._fields
_CHUNK_FIELDS = Chunk._fields
_NODE = [file_nodes.c[name] for name in _NODE_FIELDS]
_VERSION = [file_versions.c[name] for name in _VERSION_FIELDS]
_CHUNK = [file_chunks.c[name] for name in _CHUNK_FIELDS]
_FIXED = ("id", "site_id", "place")
"""What a change of a node leaves as it is."""


def _is(column: Column[str], name: str) -> ColumnElement[bool]:
    """Compared through a function, so that no plan finds rows by it where something else finds them better."""
    return func.coalesce(column, literal_column("''")) == bindparam(name)


_site_nodes = select(*_NODE).where(file_nodes.c.site_id == bindparam("site"))
# A name's hash covers its folder: the parent need not be searched for, but must be it.
_CHILD = Lookup(_site_nodes.where(file_nodes.c.name_hash == bindparam("hash"), _is(file_nodes.c.parent_id, "parent")))
_NAMED = Lookup(_site_nodes.where(AmongHashes(file_nodes.c.name_hash, "hashes"), _is(file_nodes.c.parent_id, "parent")))
_BY_ID = Lookup(select(*_NODE).where(file_nodes.c.id == bindparam("node"), _is(file_nodes.c.site_id, "site")))
_children = _site_nodes.where(file_nodes.c.parent_id == bindparam("parent"))
_CHILDREN = Lookup(_children.order_by(file_nodes.c.id))
_CHILDREN_PAGE = Lookup(_children.where(file_nodes.c.id > bindparam("after")).order_by(file_nodes.c.id).limit(bindparam("limit")))
_PLACED = Lookup(
    _site_nodes.where(file_nodes.c.place >= bindparam("first"), file_nodes.c.place <= bindparam("last")).order_by(
        file_nodes.c.place, file_nodes.c.id
    )
)
_COUNT = Lookup(select(func.count().label("nodes")).where(file_nodes.c.site_id == bindparam("site")))
_BELOW = Lookup(_site_nodes.where(file_nodes.c.key_version < bindparam("version")).limit(bindparam("limit")))
_UNDER = Lookup(_site_nodes.where(Among(file_nodes.c.parent_id, "parents")).order_by(file_nodes.c.id))
_NEW_NODES = Bulk(file_nodes, _NODE_FIELDS)
_NODE_CHANGES = tuple(name for name in _NODE_FIELDS if name not in _FIXED)
_SAME_NODES = Bulk(file_nodes, ("id", "site_id", *_NODE_CHANGES), keys=("id",), same=("site_id",))
_GONE_NODES = Many(delete(file_nodes).where(_is(file_nodes.c.site_id, "b_site"), Among(file_nodes.c.id, "b_nodes")))

_versions = select(*_VERSION).where(file_versions.c.node_id == bindparam("node"), _is(file_versions.c.site_id, "site"))
_ONE_VERSION = Lookup(_versions.where(file_versions.c.number == bindparam("number")))
_VERSIONS = Lookup(_versions.order_by(file_versions.c.number.desc()))
_VERSIONS_BELOW = Lookup(
    select(*_VERSION)
    .where(file_versions.c.site_id == bindparam("site"), file_versions.c.key_version < bindparam("version"))
    .order_by(file_versions.c.key_version.desc(), file_versions.c.node_id.desc(), file_versions.c.number.desc())
    .limit(bindparam("limit"))
)
_CURRENT = Lookup(
    select(*_VERSION)
    .select_from(file_nodes)
    .join(file_versions, and_(file_versions.c.node_id == file_nodes.c.id, file_versions.c.number == file_nodes.c.version))
    .where(Among(file_nodes.c.id, "nodes"), _is(file_nodes.c.site_id, "site"))
)
_NEW_VERSIONS = Bulk(file_versions, _VERSION_FIELDS)
_SAME_VERSION = Bulk(
    file_versions, ("node_id", "number", "site_id", "key_version", "manifest"), keys=("node_id", "number"), same=("site_id",)
)

_chunks = select(*_CHUNK).where(file_chunks.c.site_id == bindparam("site"))
_ONE_CHUNK = Lookup(_chunks.where(file_chunks.c.id == bindparam("chunk")))
_CHUNKS = Lookup(_chunks.where(Among(file_chunks.c.id, "ids")))
_NEW_CHUNKS = Bulk(file_chunks, _CHUNK_FIELDS)
_ENDED = Many(
    update(file_chunks)
    .where(file_chunks.c.site_id == bindparam("b_site"), Among(file_chunks.c.id, "b_ids"))
    .values(last_version=bindparam("b_last"))
)
_SUCCEEDED = Bulk(file_chunks, ("id", "site_id", "successor"), keys=("id",), same=("site_id",))
_EMPTIED = Many(
    update(objects)
    .where(objects.c.ref == bindparam("b_ref"), objects.c.owner_id == bindparam("b_owner"))
    .values(
        items=case((objects.c["items"] > bindparam("b_gone"), objects.c["items"] - bindparam("b_gone")), else_=literal_column("0")),
        due=case((objects.c["items"] > bindparam("b_gone"), objects.c.due), else_=func.coalesce(objects.c.due, bindparam("b_due"))),
    )
)
_KINDS = {kind.value: kind for kind in NodeKind}
_KIND = _NODE_FIELDS.index("kind")
_changed_values = attrgetter("id", "site_id", *_NODE_CHANGES)


def _node(row: Sequence[Any]) -> Node:
    kind = row[_KIND]
    return Node._make((*row[:_KIND], _KINDS.get(kind) or NodeKind(kind), *row[_KIND + 1 :]))


class SqlFileRows:
    """Implements ports.files.FileRows."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    # -- nodes

    def child(self, site_id: str, parent_id: str, hashes: Sequence[bytes]) -> Node | None:
        for name_hash in hashes:
            row = _CHILD.first(self._connection, site=site_id, parent=parent_id, hash=name_hash)
            if row is not None:
                return _node(row)
        return None

    def named(self, site_id: str, parent_id: str, hashes: Sequence[bytes]) -> list[Node]:
        values = hashed(self._connection, "hashes", hashes)
        return [_node(row) for row in _NAMED.all(self._connection, site=site_id, parent=parent_id, **values)]

    def children(self, site_id: str, parent_id: str, *, after: str = "", limit: int = 0) -> list[Node]:
        if limit:
            rows = _CHILDREN_PAGE.all(self._connection, site=site_id, parent=parent_id, after=after, limit=limit)
        else:
            rows = _CHILDREN.all(self._connection, site=site_id, parent=parent_id)
        return [_node(row) for row in rows if row[0] > after]

    def node(self, site_id: str, node_id: str) -> Node | None:
        row = _BY_ID.first(self._connection, site=site_id, node=node_id)
        return _node(row) if row else None

    def placed(self, site_id: str, first: int, last: int) -> list[Node]:
        return [_node(row) for row in _PLACED.all(self._connection, site=site_id, first=first, last=last)]

    def count(self, site_id: str) -> int:
        return int(_COUNT.first(self._connection, site=site_id)[0])

    def insert_nodes(self, nodes: Sequence[Node]) -> None:
        with _taken():
            _NEW_NODES.run(self._connection, nodes)

    def update_nodes(self, nodes: Sequence[Node]) -> int:
        with _taken():
            return _SAME_NODES.run(self._connection, map(_changed_values, nodes))

    def subtree(self, site_id: str, node_id: str, *, limit: int = 0) -> list[Node]:
        # Level by level; `seen` ends a circle that somebody with the database made.
        found: list[Node] = []
        seen, parents = {node_id}, [node_id]
        while parents and not (limit and len(found) >= limit):
            rows = _UNDER.all(self._connection, site=site_id, parents=listed(self._connection, parents))
            level = [_node(row) for row in rows if row[0] not in seen]
            seen.update(node.id for node in level)
            found += level
            parents = [node.id for node in level if node.kind is NodeKind.FOLDER]
        return found[:limit] if limit else found

    def delete_nodes(self, site_id: str, node_ids: Sequence[str], *, due: int) -> int:
        own = delete(file_chunks).where(file_chunks.c.site_id == site_id)
        freed = sum(self._drop(site_id, own.where(file_chunks.c.node_id.in_(part)), due) for part in parts_of(node_ids))
        _GONE_NODES.run(self._connection, [{"b_site": site_id, "b_nodes": listed(self._connection, node_ids)}])
        return freed

    def nodes_below(self, site_id: str, key_version: int, *, limit: int) -> list[Node]:
        return [_node(row) for row in _BELOW.all(self._connection, site=site_id, version=key_version, limit=limit)]

    # -- versions

    def insert_versions(self, versions: Sequence[FileVersion]) -> None:
        _NEW_VERSIONS.run(self._connection, versions)

    def version(self, site_id: str, node_id: str, number: int) -> FileVersion | None:
        row = _ONE_VERSION.first(self._connection, site=site_id, node=node_id, number=number)
        return FileVersion._make(row) if row else None

    def current(self, site_id: str, node_ids: Sequence[str]) -> dict[str, FileVersion]:
        rows = _CURRENT.all(self._connection, site=site_id, nodes=listed(self._connection, node_ids))
        return {row[0]: FileVersion._make(row) for row in rows}

    def versions(self, site_id: str, node_id: str) -> list[FileVersion]:
        return [FileVersion._make(row) for row in _VERSIONS.all(self._connection, site=site_id, node=node_id)]

    def versions_below(self, site_id: str, key_version: int, *, limit: int) -> list[FileVersion]:
        return [FileVersion._make(row) for row in _VERSIONS_BELOW.all(self._connection, site=site_id, version=key_version, limit=limit)]

    def update_version(self, version: FileVersion) -> None:
        _SAME_VERSION.run(self._connection, [(version.node_id, version.number, version.site_id, version.key_version, version.manifest)])

    def delete_versions(self, site_id: str, node_id: str, *, until: int, due: int) -> int:
        self._connection.execute(
            delete(file_versions).where(
                file_versions.c.node_id == node_id, file_versions.c.site_id == site_id, file_versions.c.number <= until
            )
        )
        unused = delete(file_chunks).where(
            file_chunks.c.node_id == node_id, file_chunks.c.site_id == site_id, file_chunks.c.last_version <= until
        )
        return self._drop(site_id, unused, due)

    # -- chunks

    def insert_chunks(self, chunks: Sequence[Chunk]) -> None:
        _NEW_CHUNKS.run(self._connection, chunks)

    def chunks(self, site_id: str, chunk_ids: Sequence[str]) -> dict[str, Chunk]:
        if len(chunk_ids) == 1:
            row = _ONE_CHUNK.first(self._connection, site=site_id, chunk=chunk_ids[0])
            return {chunk_ids[0]: Chunk._make(row)} if row else {}
        rows = _CHUNKS.all(self._connection, site=site_id, ids=listed(self._connection, chunk_ids))
        return {row[0]: Chunk._make(row) for row in rows}

    def end_chunks(self, site_id: str, chunk_ids: Sequence[str], last_version: int | None) -> None:
        if chunk_ids:
            _ENDED.run(self._connection, [{"b_site": site_id, "b_ids": listed(self._connection, chunk_ids), "b_last": last_version}])

    def succeed(self, site_id: str, pairs: Sequence[tuple[str, str]]) -> None:
        _SUCCEEDED.run(self._connection, [(chunk_id, site_id, successor) for chunk_id, successor in pairs])

    def drop_chunks(self, site_id: str, node_id: str, *, below: int, due: int) -> int:
        moved = delete(file_chunks).where(
            file_chunks.c.node_id == node_id,
            file_chunks.c.site_id == site_id,
            file_chunks.c.key_version < below,
            file_chunks.c.successor != "",
        )
        return self._drop(site_id, moved, due)

    def _drop(self, site_id: str, chunks: Delete, due: int) -> int:
        """Remove chunks and count them out of their objects; bytes of ciphertext that went."""
        gone = self._connection.execute(chunks.returning(file_chunks.c.object_ref, file_chunks.c.length)).all()
        each = Counter(ref for ref, _length in gone)
        _EMPTIED.run(self._connection, [{"b_ref": ref, "b_owner": site_id, "b_gone": count, "b_due": due} for ref, count in each.items()])
        return sum(length for _ref, length in gone)


def _taken() -> AbstractContextManager[None]:
    return conflict("file_exists", "a file or folder of this name is there already", "choose another name, or replace it")
