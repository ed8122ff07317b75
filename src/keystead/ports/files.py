"""Sites, files and their hierarchy in the service's database: groups of rows of one transaction (`ports/tx.py`).

Every method names the tenant or a site that the caller has found by its tenant; the few that do not are for the service's own work.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from keystead.core.stores.files import Chunk, FileLock, FileVersion, Geo, Node, Site, SiteKey, SiteTree
    from keystead.core.stores.objects import StoredObject


class SiteRows(Protocol):
    """Geos, sites, their keys, members and trees."""

    def geo(self, tenant_id: str, geo: str) -> Geo | None: ...

    def geos(self, tenant_id: str) -> list[Geo]:
        """By name of the geo."""
        ...

    def put_geo(self, geo: Geo) -> None:
        """Insert or replace."""
        ...

    def changing(self, before: int) -> list[Geo]:
        """Geos of any tenant in which something has been under way since before then: for the service's own watch."""
        ...

    def geo_of_policy(self, policy_id: str) -> Geo | None:
        """The geo a files policy is in force in, or the target of: for the keyring and the upkeep."""
        ...

    def insert(self, site: Site, key: SiteKey) -> None:
        """Raises Conflict `site_exists` when the tenant has a site of that URL."""
        ...

    def insert_many(self, sites: Sequence[Site], keys: Sequence[SiteKey]) -> None:
        """The same for many at once."""
        ...

    def find(self, tenant_id: str, reference: str) -> Site | None:
        """By URL or id."""
        ...

    def page(self, tenant_id: str, *, geo: str = "", after: str, limit: int) -> list[Site]:
        """By URL, those after the given one; of all geos for none."""
        ...

    def keys(self, site_id: str) -> list[SiteKey]:
        """Oldest version first."""
        ...

    def insert_key(self, key: SiteKey) -> None: ...

    def remove_keys_below(self, site_id: str, version: int) -> int: ...

    def update(self, site: Site) -> None:
        """Store owner, shared, quota, key version, move state, moved_at and moved."""
        ...

    def add_counts(self, site_id: str, files: int, size: int, stored: int) -> None: ...

    def delete(self, tenant_id: str, site_id: str) -> None:
        """The site and all that is in it; its objects become due for deletion."""
        ...

    def members(self, site_id: str) -> list[str]: ...

    def is_member(self, site_id: str, upn: str) -> bool: ...

    def add_member(self, site_id: str, upn: str) -> None:
        """Raises Conflict `member_exists`."""
        ...

    def remove_member(self, site_id: str, upn: str) -> bool: ...

    # -- hierarchy

    def awaiting(self, tenant_id: str, geo: str, policy_id: str, limit: int) -> list[tuple[Site, list[SiteKey]]]:
        """Sites of a geo under another policy than this one, with their keys, oldest version first.

        Costs what it takes, however many are done.
        """
        ...

    def rewrapped(self, tenant_id: str, geo: str, policy_id: str, changed: Sequence[Site], keys: Sequence[SiteKey]) -> None:
        """Put sites under a policy: `key_version`, `move_state`, `moved_at` and `moved` as given, their keys replaced by the given ones.

        Each site has at least one key among the given ones; those of its keys below the lowest given go. Raises NotFound `site_not_found`
        when one of them is not in the tenant's geo.
        """
        ...

    def filled(self, site_ids: Sequence[str]) -> set[str]:
        """Those of the sites that have something under their keys: nodes there are or were, or locks."""
        ...

    def progress(self, tenant_id: str, geo: str, policy_id: str) -> tuple[int, int]:
        """How many sites of a geo lie under a policy with nothing left to move, and how many there are."""
        ...

    def settled(self, tenant_id: str, geo: str, policy_id: str) -> bool:
        """Whether all sites of a geo lie under a policy with nothing left to move; costs the same however many there are."""
        ...

    def on_policy(self, policy_id: str) -> int:
        """How many sites lie under a policy."""
        ...

    # -- trees

    def tree(self, site_id: str) -> SiteTree | None:
        """None before the first node."""
        ...

    def put_tree(self, tree: SiteTree) -> None: ...

    # -- locks

    def locks(self, site_id: str, now: int) -> list[FileLock]:
        """Those that last."""
        ...

    def put_lock(self, lock: FileLock) -> None: ...

    def remove_lock(self, site_id: str, token_hash: bytes) -> bool: ...

    def remove_locks(self, site_id: str) -> int: ...

    def remove_expired_locks(self, now: int) -> int:
        """Of all sites: for the upkeep."""
        ...


class FileRows(Protocol):
    """Nodes, versions and chunks of sites."""

    def child(self, site_id: str, parent_id: str, hashes: Sequence[bytes]) -> Node | None:
        """The node of a folder with one of these name hashes: one per version of the site key, the likeliest first."""
        ...

    def named(self, site_id: str, parent_id: str, hashes: Sequence[bytes]) -> list[Node]:
        """The nodes of a folder with any of these name hashes, in no order: for many files at once."""
        ...

    def children(self, site_id: str, parent_id: str, *, after: str = "", limit: int = 0) -> list[Node]:
        """By id, those after the given one; all for no limit."""
        ...

    def node(self, site_id: str, node_id: str) -> Node | None: ...

    def placed(self, site_id: str, first: int, last: int) -> list[Node]:
        """Nodes whose place lies between, inclusive, by id: a bucket of the site's tree."""
        ...

    def count(self, site_id: str) -> int:
        """Nodes of a site."""
        ...

    def insert_nodes(self, nodes: Sequence[Node]) -> None:
        """Raises Conflict `file_exists` when a folder has a node of that name hash."""
        ...

    def update_nodes(self, nodes: Sequence[Node]) -> int:
        """Store everything but id, site and place. Raises Conflict `file_exists`."""
        ...

    def subtree(self, site_id: str, node_id: str, *, limit: int = 0) -> list[Node]:
        """Nodes below a folder, at any depth, at most so many: for deleting it, copying it, and for what may not be moved into itself."""
        ...

    def delete_nodes(self, site_id: str, node_ids: Sequence[str], *, due: int) -> int:
        """Nodes, their versions and chunks, not what lies below a folder; bytes of ciphertext that went. Objects left empty become due then."""
        ...

    def nodes_below(self, site_id: str, key_version: int, *, limit: int) -> list[Node]:
        """Nodes whose name lies under an older key: what a move has still to do of names."""
        ...

    # -- versions

    def insert_versions(self, versions: Sequence[FileVersion]) -> None: ...

    def version(self, site_id: str, node_id: str, number: int) -> FileVersion | None: ...

    def current(self, site_id: str, node_ids: Sequence[str]) -> dict[str, FileVersion]:
        """The current version of each of these files that has one, by the file's id."""
        ...

    def versions(self, site_id: str, node_id: str) -> list[FileVersion]:
        """Newest first."""
        ...

    def versions_below(self, site_id: str, key_version: int, *, limit: int) -> list[FileVersion]:
        """Versions whose manifest lies under an older key: what a move has still to do.

        Newest key first, then by node (falling ids), the newest version of each first.
        """
        ...

    def update_version(self, version: FileVersion) -> None:
        """Store key version and manifest."""
        ...

    def delete_versions(self, site_id: str, node_id: str, *, until: int, due: int) -> int:
        """Versions up to a number, inclusive, and the chunks only they used; bytes of ciphertext that went. Objects left empty become due then.

        Never the current version of a file: a chunk it uses has no `last_version`.
        """
        ...

    # -- chunks

    def insert_chunks(self, chunks: Sequence[Chunk]) -> None: ...

    def chunks(self, site_id: str, chunk_ids: Sequence[str]) -> dict[str, Chunk]:
        """Those of the ids that are there."""
        ...

    def end_chunks(self, site_id: str, chunk_ids: Sequence[str], last_version: int | None) -> None:
        """Note that a version was the last to use these chunks; None: the current version uses them (again)."""
        ...

    def succeed(self, site_id: str, pairs: Sequence[tuple[str, str]]) -> None:
        """Note the successor of each chunk."""
        ...

    def drop_chunks(self, site_id: str, node_id: str, *, below: int, due: int) -> int:
        """Remove chunks of a node under an older key that have successors, after its last version was moved; bytes of ciphertext that went.

        Objects left empty become due then.
        """
        ...


class ObjectRows(Protocol):
    """Which objects are in use, whoever's they are."""

    def insert(self, stored: Sequence[StoredObject]) -> None: ...

    def due(self, now: int, limit: int) -> list[str]:
        """Objects of any tenant whose time has come."""
        ...

    def forget(self, refs: Sequence[str]) -> None: ...

    def unknown(self, refs: Sequence[str]) -> list[str]:
        """Of these objects, those that no row names."""
        ...
