"""The contract of `ports/files.py` on SQLite and PostgreSQL: every method, what belongs to another left alone, and plans that use indexes."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import event

from keystead.adapters.sql.rows import Lookup
from keystead.adapters.sql.store import SqlDatabase
from keystead.core.errors import Conflict, NotFound
from keystead.core.ids import new_id
from keystead.core.policies.policy import CopyRole, Policy, PolicyCopy, PolicyVersion, Workload
from keystead.core.stores.files import (
    Chunk,
    FileLock,
    FileVersion,
    Geo,
    GeoState,
    Node,
    NodeKind,
    Site,
    SiteKey,
    SiteKind,
    SiteTree,
)
from keystead.core.stores.mailbox import MoveState
from keystead.core.stores.objects import StoredObject
from keystead.core.tenancy import Tenant
from support.databases import make_stores

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from sqlalchemy import Connection

    from keystead.ports.tx import Tx
    from support.databases import Stores

EUR, NAM = "EUR", "NAM"
MANY = 3_000


def fresh() -> str:
    return new_id(os.urandom)


@pytest.fixture
def stores(tmp_path: Path, database: str) -> Iterator[Stores]:
    made = make_stores(tmp_path, database)
    yield made
    made.close()


@pytest.fixture
def db(stores: Stores) -> Iterator[SqlDatabase]:
    database = SqlDatabase(stores.engine("keystead"))
    yield database
    database.close()


class Made:
    """A tenant with three files policies."""

    def __init__(self, db: SqlDatabase, name: str = "contoso") -> None:
        self.db = db
        self.tenant = Tenant(fresh(), name, f"{name}.example", (EUR, NAM), 1_000)
        self.policies: list[str] = []
        with db.write() as tx:
            tx.tenants.insert(self.tenant)
            for number in range(3):
                enabled = True
                made = Policy(
                    fresh(), self.tenant.id, Workload.FILES, f"files-{number}", "", enabled, 1, fresh(), 1, bytes(32), fresh(), fresh()
                )
                copy = PolicyCopy(made.version_id, CopyRole.PRIMARY, "https://v.vault.localhost/keys/k/1", "RSA-OAEP-256", b"sealed")
                tx.policies.insert(made, PolicyVersion(made.version_id, made.id, 1, 1, "created"), [copy])
                self.policies.append(made.id)

    def site(self, name: str = "", *, geo: str = EUR, policy: int = 0, **changes: Any) -> Site:
        """One that is not stored yet."""
        made = Site(
            id=fresh(),
            tenant_id=self.tenant.id,
            url=f"https://{self.tenant.domain}/sites/{name or fresh()}",
            kind=SiteKind.SITE,
            geo=geo,
            owner=f"alice@{self.tenant.domain}",
            shared=True,
            created=5,
            policy_id=self.policies[policy],
            key_version=1,
            move_state=MoveState.NONE,
            moved_at=None,
            moved=0,
            quota_bytes=2**40,
            file_count=0,
            size_bytes=0,
            stored_bytes=0,
        )
        return replace(made, **changes)

    def stored(self, name: str = "", **changes: Any) -> Site:
        """One with its key."""
        site = self.site(name, **changes)
        with self.db.write() as tx:
            tx.sites.insert(site, key(site))
        return site


def key(site: Site, version: int = 1) -> SiteKey:
    return SiteKey(site.id, version, os.urandom(60))


def node(site: Site, parent: str = "", kind: NodeKind = NodeKind.FILE, **changes: Any) -> Node:
    own = fresh()
    made = Node(
        id=own,
        site_id=site.id,
        parent_id=parent or site.id,
        kind=kind,
        key_version=1,
        name_hash=os.urandom(32),
        sealed_name=b"name",
        properties=b"",
        version=1 if kind is NodeKind.FILE else 0,
        manifest_digest=os.urandom(32),
        size=10,
        place=int(own[:4], 16),
        created=1,
        modified=2,
        changed=1,
    )
    return made._replace(**changes)


def version(of: Node, number: int, **changes: Any) -> FileVersion:
    made = FileVersion(of.id, of.site_id, number, 1, os.urandom(100), 10, 1, 1, "alice@contoso.example")
    return made._replace(**changes)


def chunk(of: Node, ref: str, last: int | None = None, **changes: Any) -> Chunk:
    return Chunk(fresh(), of.site_id, of.id, 1, os.urandom(60), ref, 0, 100, 84, last, "")._replace(**changes)


def stored_object(site: Site, items: int) -> StoredObject:
    large = False
    return StoredObject(f"c0/{fresh()}", site.id, 1, 1_000, items, large)


# -- geos ---------------------------------------------------------------------------------------------------------------------------------


def test_R_103_a_tenant_has_one_row_for_each_geo(db: SqlDatabase) -> None:
    ours, theirs = Made(db), Made(db, "fabrikam")
    first = Geo(ours.tenant.id, EUR, GeoState.REGISTERING, None, ours.policies[0], "job", fresh(), 7)
    other = Geo(theirs.tenant.id, EUR, GeoState.REGISTERED, theirs.policies[0], None, "", fresh(), 8)
    second = Geo(ours.tenant.id, NAM, GeoState.REGISTERED, ours.policies[1], ours.policies[2], "", fresh(), 8)
    with db.write() as tx:
        for geo in (second, first, other):
            tx.sites.put_geo(geo)
        assert tx.sites.geo(ours.tenant.id, EUR) == first
        assert tx.sites.geos(ours.tenant.id) == [first, second]
        registered = replace(first, state=GeoState.REGISTERED, policy_id=ours.policies[0], target_policy_id=None, changed=9)
        tx.sites.put_geo(registered)
        assert tx.sites.geos(ours.tenant.id) == [registered, second]
        assert tx.sites.geo(theirs.tenant.id, EUR) == other
        assert tx.sites.geo(theirs.tenant.id, NAM) is None
        assert tx.sites.geo_of_policy(ours.policies[0]) == registered
        assert tx.sites.geo_of_policy(ours.policies[2]) == second, "the one that sites go to"
        assert tx.sites.geo_of_policy(fresh()) is None


# -- sites --------------------------------------------------------------------------------------------------------------------------------


def test_a_site_is_found_by_its_url_or_id_inside_its_tenant_alone(db: SqlDatabase) -> None:
    ours, theirs = Made(db), Made(db, "fabrikam")
    site = ours.stored("eng", shared=False, kind=SiteKind.ONEDRIVE, move_state=MoveState.QUEUED, moved_at=3, moved=4)
    with db.read() as tx:
        assert tx.sites.find(ours.tenant.id, site.url) == site == tx.sites.find(ours.tenant.id, site.id)
        assert tx.sites.find(theirs.tenant.id, site.url) is None
        assert tx.sites.find(theirs.tenant.id, site.id) is None
        assert tx.sites.page(theirs.tenant.id, after="", limit=10) == []
    taken = ours.site("eng")
    with pytest.raises(Conflict) as refused, db.write() as tx:
        tx.sites.insert(taken, key(taken))
    assert refused.value.code == "site_exists"
    twin = replace(theirs.site(), url=site.url)
    with db.write() as tx:
        tx.sites.insert(twin, key(twin))
        assert tx.sites.find(theirs.tenant.id, site.url) == twin
        assert tx.sites.find(ours.tenant.id, site.url) == site


def test_sites_are_listed_by_url_page_by_page(db: SqlDatabase) -> None:
    made = Made(db)
    sites = [made.site(f"{number:02}", geo=(EUR, NAM)[number % 2]) for number in range(9)]
    with db.write() as tx:
        tx.sites.insert_many(sites, [key(site) for site in sites])
        assert tx.sites.page(made.tenant.id, after="", limit=4) == sites[:4]
        assert tx.sites.page(made.tenant.id, after=sites[3].url, limit=100) == sites[4:]
        assert tx.sites.page(made.tenant.id, geo=NAM, after=sites[3].url, limit=2) == [sites[5], sites[7]]
    again = [made.site(), sites[0]]
    with pytest.raises(Conflict) as refused, db.write() as tx:
        tx.sites.insert_many(again, [key(site) for site in again])
    assert refused.value.code == "site_exists"
    with db.read() as tx:
        assert len(tx.sites.page(made.tenant.id, after="", limit=100)) == len(sites), "none of them"


def test_what_may_change_of_a_site_changes_and_counts_are_added(db: SqlDatabase) -> None:
    made, theirs = Made(db), Made(db, "fabrikam")
    site = made.stored()
    changed = replace(
        site, owner="bob@contoso.example", shared=False, quota_bytes=9, key_version=2, move_state=MoveState.MOVING, moved_at=8, moved=7
    )
    with db.write() as tx:
        tx.sites.update(replace(changed, url="https://other.example/x", geo=NAM, policy_id=made.policies[2], file_count=99))
        tx.sites.update(replace(changed, tenant_id=theirs.tenant.id, owner="mallory@fabrikam.example"))
        tx.sites.add_counts(site.id, 2, 30, 40)
        tx.sites.add_counts(site.id, -1, -10, 5)
        assert tx.sites.find(made.tenant.id, site.id) == replace(changed, file_count=1, size_bytes=20, stored_bytes=45)


def test_site_keys_come_oldest_first_and_older_ones_go(db: SqlDatabase) -> None:
    made = Made(db)
    site, other = made.stored(), made.stored()
    keys = [key(site, 3), key(site, 2)]
    with db.write() as tx:
        for one in keys:
            tx.sites.insert_key(one)
        assert [one.version for one in tx.sites.keys(site.id)] == [1, 2, 3]
        assert tx.sites.remove_keys_below(site.id, 3) == 2
        assert tx.sites.keys(site.id) == keys[:1]
        assert len(tx.sites.keys(other.id)) == 1


def test_members_of_a_site(db: SqlDatabase) -> None:
    made = Made(db)
    site, other = made.stored(), made.stored()
    with db.write() as tx:
        for upn in ("carol@contoso.example", "bob@contoso.example"):
            tx.sites.add_member(site.id, upn)
        assert tx.sites.members(site.id) == ["bob@contoso.example", "carol@contoso.example"]
        assert tx.sites.is_member(site.id, "bob@contoso.example")
        assert not tx.sites.is_member(other.id, "bob@contoso.example")
        assert not tx.sites.remove_member(other.id, "bob@contoso.example")
        assert tx.sites.remove_member(site.id, "bob@contoso.example")
        assert not tx.sites.is_member(site.id, "bob@contoso.example")
    with pytest.raises(Conflict) as refused, db.write() as tx:
        tx.sites.add_member(site.id, "carol@contoso.example")
    assert refused.value.code == "member_exists"


def test_a_site_that_is_deleted_takes_all_with_it_and_its_objects_become_due(db: SqlDatabase) -> None:
    made, theirs = Made(db), Made(db, "fabrikam")
    site, other = made.stored(), made.stored()
    file, kept = node(site), node(other)
    objects = [stored_object(site, 1), stored_object(other, 1)]
    chunks = [chunk(file, objects[0].ref), chunk(kept, objects[1].ref)]
    with db.write() as tx:
        tx.objects.insert(objects)
        tx.files.insert_nodes([file, kept])
        tx.files.insert_versions([version(file, 1), version(kept, 1)])
        tx.files.insert_chunks(chunks)
        tx.sites.add_member(site.id, "bob@contoso.example")
        tx.sites.put_tree(SiteTree(site.id, 1, b"tree"))
        tx.sites.put_lock(FileLock(os.urandom(32), site.id, 1, b"lock", 99))
        tx.sites.delete(theirs.tenant.id, site.id)
        assert tx.sites.find(made.tenant.id, site.id) == site, "not theirs to delete"
        assert tx.objects.due(10, 10) == []
        tx.sites.delete(made.tenant.id, site.id)
        assert tx.sites.find(made.tenant.id, site.id) is None
        assert (tx.sites.keys(site.id), tx.sites.members(site.id), tx.sites.locks(site.id, 0)) == ([], [], [])
        assert tx.sites.tree(site.id) is None
        assert tx.files.node(site.id, file.id) is None
        assert tx.files.versions(site.id, file.id) == []
        assert tx.files.chunks(site.id, [chunks[0].id]) == {}
        assert tx.objects.due(0, 10) == [objects[0].ref]
        assert tx.files.chunks(other.id, [chunks[1].id]) == {chunks[1].id: chunks[1]}


def test_one_tree_for_each_site(db: SqlDatabase) -> None:
    made = Made(db)
    site, other = made.stored(), made.stored()
    with db.write() as tx:
        assert tx.sites.tree(site.id) is None
        tx.sites.put_tree(SiteTree(site.id, 1, b"first"))
        tx.sites.put_tree(SiteTree(other.id, 1, b"other"))
        tx.sites.put_tree(SiteTree(site.id, 2, b"second" * 1_000))
        assert tx.sites.tree(site.id) == SiteTree(site.id, 2, b"second" * 1_000)
        assert tx.sites.tree(other.id) == SiteTree(other.id, 1, b"other")


def test_locks_last_until_they_expire(db: SqlDatabase) -> None:
    made = Made(db)
    site, other = made.stored(), made.stored()
    locks = [FileLock(os.urandom(32), site.id, 1, b"sealed", expires) for expires in (10, 20)]
    elsewhere = FileLock(locks[0].token_hash, other.id, 1, b"sealed", 10)
    with db.write() as tx:
        for lock in (*locks, elsewhere):
            tx.sites.put_lock(lock)
        assert tx.sites.locks(site.id, 9) == locks
        assert tx.sites.locks(site.id, 10) == locks[1:]
        longer = replace(locks[0], expires=30, sealed=b"again", key_version=2)
        tx.sites.put_lock(longer)
        assert tx.sites.locks(site.id, 10) == [locks[1], longer]
        assert tx.sites.locks(other.id, 9) == [elsewhere]
        assert not tx.sites.remove_lock(other.id, locks[1].token_hash)
        assert tx.sites.remove_lock(site.id, locks[1].token_hash)
        assert tx.sites.remove_expired_locks(10) == 1
        assert tx.sites.locks(other.id, 0) == []
        assert tx.sites.locks(site.id, 0) == [longer]
        tx.sites.put_lock(elsewhere)
        assert (tx.sites.remove_locks(site.id), tx.sites.remove_locks(site.id)) == (1, 0)
        assert tx.sites.locks(other.id, 0) == [elsewhere]


# -- hierarchy ----------------------------------------------------------------------------------------------------------------------------


def test_R_123_sites_of_a_geo_go_from_any_policy_to_another_with_their_keys(db: SqlDatabase) -> None:
    made, theirs = Made(db), Made(db, "fabrikam")
    low, middle, high = sorted(range(3), key=made.policies.__getitem__)
    target = made.policies[middle]
    waiting = [made.stored(policy=low), made.stored(policy=high), made.stored(policy=low)]
    done, elsewhere, other = made.stored(policy=middle), made.stored(policy=low, geo=NAM), theirs.stored()
    second = key(waiting[0], 2)
    with db.write() as tx:
        tx.sites.insert_key(second)
        first = {site.id: tx.sites.keys(site.id) for site in waiting}
        found = tx.sites.awaiting(made.tenant.id, EUR, target, 10)
        assert sorted(site.id for site, _keys in found) == sorted(site.id for site in waiting)
        assert all(keys == first[site.id] and site in waiting for site, keys in found)
        assert len(tx.sites.awaiting(made.tenant.id, EUR, target, 1)) == 1
        assert tx.sites.progress(made.tenant.id, EUR, target) == (1, 4)
        assert tx.sites.on_policy(made.policies[low]) == 3

        changed = [replace(site, move_state=MoveState.QUEUED, moved_at=None, moved=0) for site in waiting[:1]] + waiting[1:]
        keys = [replace(one, wrapped=os.urandom(60)) for site in waiting for one in first[site.id]]
        tx.sites.rewrapped(made.tenant.id, EUR, target, changed, keys)
        assert tx.sites.awaiting(made.tenant.id, EUR, target, 10) == []
        for site in changed:
            assert tx.sites.find(made.tenant.id, site.id) == replace(site, policy_id=target)
            assert tx.sites.keys(site.id) == [one for one in keys if one.site_id == site.id]
        assert tx.sites.progress(made.tenant.id, EUR, target) == (3, 4), "one has content to move"
        assert not tx.sites.settled(made.tenant.id, EUR, target)
        for state in MoveState:
            tx.sites.update(replace(changed[0], move_state=state))
            assert tx.sites.settled(made.tenant.id, EUR, target) == (state in {MoveState.NONE, MoveState.DONE})
        tx.sites.update(changed[0])
        for site, tenant in ((done, made), (elsewhere, made), (other, theirs)):
            assert tx.sites.find(tenant.tenant.id, site.id) == site
        assert tx.sites.progress(made.tenant.id, NAM, target) == (0, 1)
        for policy_id in made.policies:
            assert tx.sites.settled(made.tenant.id, NAM, policy_id) == (policy_id == elsewhere.policy_id)
        assert tx.sites.progress(theirs.tenant.id, EUR, target) == (0, 1)


def test_R_109_an_empty_site_takes_a_fresh_key_in_place_of_those_it_had(db: SqlDatabase) -> None:
    made = Made(db)
    sites = [made.stored() for _ in range(6)]
    target = made.policies[1]
    changed = [replace(site, key_version=2, move_state=MoveState.DONE, moved_at=77) for site in sites]
    keys = [key(site, 2) for site in sites]
    with db.write() as tx:
        tx.sites.rewrapped(made.tenant.id, EUR, target, changed, keys)
        for site, one in zip(changed, keys, strict=True):
            assert tx.sites.keys(site.id) == [one]
            assert tx.sites.find(made.tenant.id, site.id) == replace(site, policy_id=target)


@pytest.mark.parametrize("count", [1, 5])
def test_R_241_sites_of_another_tenant_or_geo_are_not_put_under_a_policy(db: SqlDatabase, count: int) -> None:
    made, theirs = Made(db), Made(db, "fabrikam")
    for strangers in ([theirs.stored() for _ in range(count)], [made.stored(geo=NAM) for _ in range(count)]):
        own = [made.stored() for _ in range(count)]
        both = own + strangers
        with pytest.raises(NotFound), db.write() as tx:
            tx.sites.rewrapped(made.tenant.id, EUR, made.policies[1], both, [key(site) for site in both])
        with db.write() as tx:
            before = {site.id: tx.sites.keys(site.id) for site in strangers}
            tx.sites.rewrapped(made.tenant.id, EUR, made.policies[1], own, [key(site) for site in both])
            for site in strangers:
                assert tx.sites.find(site.tenant_id, site.id) == site
                assert tx.sites.keys(site.id) == before[site.id], "keys go with the sites that are given"


# -- nodes --------------------------------------------------------------------------------------------------------------------------------


def test_a_node_is_found_in_its_folder_by_a_hash_of_its_name(db: SqlDatabase) -> None:
    made = Made(db)
    site, other = made.stored(), made.stored()
    folder = node(site, kind=NodeKind.FOLDER)
    file, inner = node(site), node(site, folder.id)
    with db.write() as tx:
        tx.files.insert_nodes([folder, file, inner])
        assert tx.files.child(site.id, site.id, [file.name_hash]) == file
        assert tx.files.child(site.id, site.id, [os.urandom(32), file.name_hash]) == file, "under another version of the key"
        assert tx.files.child(site.id, folder.id, [inner.name_hash]) == inner
        assert tx.files.child(site.id, site.id, [inner.name_hash]) is None, "it lies in the folder"
        assert tx.files.child(other.id, site.id, [file.name_hash]) is None
        assert tx.files.child(site.id, site.id, []) is None
        assert tx.files.node(site.id, file.id) == file
        assert tx.files.node(other.id, file.id) is None
        assert tx.files.count(site.id) == 3
        assert tx.files.count(other.id) == 0


def test_many_nodes_and_their_current_versions_are_found_at_once(db: SqlDatabase) -> None:
    made = Made(db)
    site, other = made.stored(), made.stored()
    folder = node(site, kind=NodeKind.FOLDER)
    inside, outside = [node(site, folder.id, version=2) for _ in range(1_100)], node(site, version=0)
    with db.write() as tx:
        tx.files.insert_nodes([folder, *inside, outside])
        versions = [version(one, number) for one in inside for number in (1, 2)]
        tx.files.insert_versions(versions)
        hashes = [os.urandom(32), outside.name_hash, *(one.name_hash for one in inside)]
        assert sorted(tx.files.named(site.id, folder.id, hashes), key=_by_id) == sorted(inside, key=_by_id)
        assert tx.files.named(site.id, site.id, hashes) == [outside]
        assert tx.files.named(site.id, folder.id, [inside[3].name_hash]) == [inside[3]]
        for nothing in (tx.files.named(site.id, folder.id, []), tx.files.named(other.id, folder.id, hashes)):
            assert nothing == []
        ids = [fresh(), outside.id, *(one.id for one in inside)]
        assert tx.files.current(site.id, ids) == {one.node_id: one for one in versions if one.number == 2}
        assert tx.files.current(other.id, ids) == {} == tx.files.current(site.id, [])


def _by_id(one: Node) -> str:
    return one.id


def test_a_name_is_taken_once_in_a_folder(db: SqlDatabase) -> None:
    made = Made(db)
    site, other = made.stored(), made.stored()
    nodes = [node(site) for _ in range(6)]
    with db.write() as tx:
        tx.files.insert_nodes(nodes)
        tx.files.insert_nodes([node(other)._replace(name_hash=nodes[0].name_hash)])
    for again in ([node(site)._replace(name_hash=nodes[0].name_hash)], [*(node(site) for _ in range(6)), nodes[0]]):
        with pytest.raises(Conflict) as refused, db.write() as tx:
            tx.files.insert_nodes(again)
        assert refused.value.code == "file_exists"
    with pytest.raises(Conflict) as refused, db.write() as tx:
        tx.files.update_nodes([nodes[1]._replace(name_hash=nodes[0].name_hash)])
    assert refused.value.code == "file_exists"
    with db.read() as tx:
        assert tx.files.count(site.id) == 6


@pytest.mark.parametrize("count", [1, 7])
def test_all_of_a_node_may_change_but_where_it_is_in_the_tree(db: SqlDatabase, count: int) -> None:
    made = Made(db)
    site, other = made.stored(), made.stored()
    nodes = [node(site) for _ in range(count)]
    folder = node(site, kind=NodeKind.FOLDER)
    changed = [
        one._replace(
            parent_id=folder.id,
            key_version=2,
            name_hash=os.urandom(32),
            sealed_name=b"other",
            properties=b"set",
            version=5,
            manifest_digest=os.urandom(32),
            size=2**40,
            created=7,
            modified=8,
            changed=9,
        )
        for one in nodes
    ]
    with db.write() as tx:
        tx.files.insert_nodes([*nodes, folder])
        assert tx.files.update_nodes([one._replace(site_id=other.id) for one in changed]) == 0
        assert [tx.files.node(site.id, one.id) for one in nodes] == nodes
        assert tx.files.update_nodes([one._replace(place=one.place ^ 1) for one in changed]) == count
        assert [tx.files.node(site.id, one.id) for one in changed] == changed
        assert tx.files.update_nodes([]) == 0


def test_children_come_by_id_page_by_page(db: SqlDatabase) -> None:
    made = Made(db)
    site = made.stored()
    folder = node(site, kind=NodeKind.FOLDER)
    inside = sorted((node(site, folder.id) for _ in range(9)), key=lambda one: one.id)
    with db.write() as tx:
        tx.files.insert_nodes([folder, *inside, node(site)])
        assert tx.files.children(site.id, folder.id) == inside
        assert tx.files.children(site.id, folder.id, after=inside[4].id) == inside[5:]
        assert tx.files.children(site.id, folder.id, limit=4) == inside[:4]
        assert tx.files.children(site.id, folder.id, after=inside[3].id, limit=4) == inside[4:8]
        assert tx.files.children(site.id, inside[0].id, limit=4) == []


def test_nodes_of_a_bucket_of_the_tree_come_by_id(db: SqlDatabase) -> None:
    made = Made(db)
    site, other = made.stored(), made.stored()
    nodes = sorted((node(site) for _ in range(40)), key=lambda one: one.id)
    with db.write() as tx:
        tx.files.insert_nodes([*reversed(nodes), node(other)])
        assert tx.files.placed(site.id, 0, 0xFFFF) == nodes
        first, last = nodes[10].place, nodes[29].place
        assert tx.files.placed(site.id, first, last) == [one for one in nodes if first <= one.place <= last]
        assert tx.files.placed(site.id, nodes[0].place, nodes[0].place)[0] == nodes[0]


def test_all_below_a_folder_is_found_even_in_a_circle(db: SqlDatabase) -> None:
    made = Made(db)
    site, other = made.stored(), made.stored()
    top = node(site, kind=NodeKind.FOLDER)
    middle = node(site, top.id, NodeKind.FOLDER)
    files = [node(site, top.id), node(site, middle.id), node(site, middle.id)]
    with db.write() as tx:
        tx.files.insert_nodes([top, middle, *files, node(site), node(other, top.id)])
        found = tx.files.subtree(site.id, top.id)
        assert sorted(one.id for one in found) == sorted(one.id for one in [middle, *files])
        assert tx.files.subtree(site.id, middle.id) == sorted(files[1:], key=lambda one: one.id)
        assert len(tx.files.subtree(site.id, site.id)) == 6
        assert len(tx.files.subtree(site.id, top.id, limit=1)) == 1
        assert len(tx.files.subtree(site.id, top.id, limit=3)) == 3
        assert tx.files.subtree(other.id, middle.id) == []
        tx.files.update_nodes([top._replace(parent_id=middle.id)])
        assert len(tx.files.subtree(site.id, top.id)) == 4


def test_nodes_that_go_take_versions_and_chunks_and_empty_their_objects(db: SqlDatabase) -> None:
    made = Made(db)
    site, other = made.stored(), made.stored()
    gone, kept, theirs = [node(site) for _ in range(3)], node(site), node(other)
    shared, alone, elsewhere = stored_object(site, 4), stored_object(site, 1), stored_object(other, 1)
    chunks = [
        *(chunk(one, shared.ref) for one in gone),
        chunk(kept, shared.ref),
        chunk(gone[0], alone.ref, 1),
        chunk(theirs, elsewhere.ref),
    ]
    with db.write() as tx:
        tx.objects.insert([shared, alone, elsewhere])
        tx.files.insert_nodes([*gone, kept, theirs])
        tx.files.insert_versions([version(one, 1) for one in (*gone, kept, theirs)])
        tx.files.insert_chunks(chunks)
        assert tx.files.delete_nodes(other.id, [one.id for one in gone], due=50) == 0, "of another site"
        assert tx.files.delete_nodes(site.id, [], due=50) == 0
        assert tx.files.count(site.id) == 4
        assert tx.files.delete_nodes(site.id, [*(one.id for one in gone), theirs.id], due=50) == 400
        assert tx.files.children(site.id, site.id) == [kept]
        assert tx.files.node(other.id, theirs.id) == theirs
        assert set(tx.files.chunks(site.id, [one.id for one in chunks])) == {chunks[3].id}
        assert tx.files.versions(site.id, gone[0].id) == []
        assert (tx.objects.due(49, 9), tx.objects.due(50, 9)) == ([], [alone.ref]), "something lies in the other still"
        assert tx.files.delete_nodes(site.id, [kept.id], due=60) == 100
        assert sorted(tx.objects.due(60, 9)) == sorted([alone.ref, shared.ref])


def test_what_an_object_holds_is_never_counted_below_nothing(db: SqlDatabase, stores: Stores) -> None:
    made = Made(db)
    site = made.stored()
    file, wrong, early = node(site), stored_object(site, 1), stored_object(site, 1)
    with db.write() as tx:
        tx.objects.insert([wrong, early])
        tx.files.insert_nodes([file])
        tx.files.insert_chunks([chunk(file, wrong.ref), chunk(file, wrong.ref), chunk(file, early.ref), chunk(file, "c0/unknown")])
    stores.sql("keystead", "UPDATE objects SET due = 5 WHERE ref = ?", early.ref)
    with db.write() as tx:
        assert tx.files.delete_nodes(site.id, [file.id], due=50) == 400
    assert sorted(stores.sql("keystead", "SELECT items, due FROM objects")) == [(0, 5), (0, 50)], "what was due before stays so"


def test_what_a_move_has_still_to_do_is_what_lies_under_older_keys(db: SqlDatabase) -> None:
    made = Made(db)
    site, other = made.stored(), made.stored()
    files = sorted((node(site, key_version=1 + number % 2) for number in range(6)), key=lambda one: one.id)
    with db.write() as tx:
        tx.files.insert_nodes([*files, node(other)])
        old = [one for one in files if one.key_version == 1]
        assert sorted(one.id for one in tx.files.nodes_below(site.id, 2, limit=10)) == [one.id for one in old]
        assert len(tx.files.nodes_below(site.id, 3, limit=4)) == 4
        assert tx.files.nodes_below(site.id, 1, limit=4) == []
        versions = [version(one, number, key_version=one.key_version) for one in files for number in (1, 2)]
        tx.files.insert_versions(versions)
        newest_first = sorted(versions, key=lambda one: (one.key_version, one.node_id, one.number), reverse=True)
        assert tx.files.versions_below(site.id, 3, limit=100) == newest_first
        assert tx.files.versions_below(site.id, 3, limit=5) == newest_first[:5]
        assert tx.files.versions_below(site.id, 2, limit=100) == [one for one in newest_first if one.key_version == 1]
        assert tx.files.versions_below(other.id, 3, limit=5) == []
        moved = newest_first[-1]._replace(key_version=3, manifest=b"again" * 9)
        tx.files.update_version(moved._replace(site_id=other.id))
        assert tx.files.version(site.id, moved.node_id, moved.number) == newest_first[-1]
        tx.files.update_version(moved._replace(size=99, chunks=99))
        assert tx.files.version(site.id, moved.node_id, moved.number) == moved
        assert len(tx.files.versions_below(site.id, 3, limit=100)) == len(versions) - 1


def test_versions_of_a_file(db: SqlDatabase) -> None:
    made = Made(db)
    site, other = made.stored(), made.stored()
    file = node(site)
    versions = [version(file, number) for number in range(1, 8)]
    with db.write() as tx:
        tx.files.insert_nodes([file])
        tx.files.insert_versions(versions)
        assert tx.files.version(site.id, file.id, 3) == versions[2]
        assert tx.files.version(site.id, file.id, 9) is None
        assert tx.files.version(other.id, file.id, 3) is None
        assert tx.files.versions(site.id, file.id) == versions[::-1]
        assert tx.files.versions(other.id, file.id) == []


def test_old_versions_go_with_the_chunks_only_they_used(db: SqlDatabase) -> None:
    made = Made(db)
    site, other = made.stored(), made.stored()
    file, twin = node(site, version=3), node(site, version=3)
    first, second, third = (stored_object(site, 2) for _ in range(3))
    chunks = [
        chunk(file, first.ref, 1),
        chunk(file, first.ref, 1),
        chunk(file, second.ref, 2),
        chunk(file, second.ref),
        chunk(file, third.ref),
    ]
    theirs = chunk(twin, third.ref, 1)
    with db.write() as tx:
        tx.objects.insert([first, second, third])
        tx.files.insert_nodes([file, twin])
        tx.files.insert_versions([version(one, number) for one in (file, twin) for number in (1, 2, 3)])
        tx.files.insert_chunks([*chunks, theirs])
        ids = [one.id for one in chunks]
        assert tx.files.delete_versions(other.id, file.id, until=2, due=50) == 0
        assert len(tx.files.versions(site.id, file.id)) == 3
        assert tx.files.delete_versions(site.id, file.id, until=1, due=50) == 200
        assert [one.number for one in tx.files.versions(site.id, file.id)] == [3, 2]
        assert set(tx.files.chunks(site.id, ids)) == set(ids[2:])
        assert tx.objects.due(50, 9) == [first.ref]
        assert tx.files.delete_versions(site.id, file.id, until=2, due=60) == 100
        assert set(tx.files.chunks(site.id, ids)) == set(ids[3:]), "what the current version uses"
        assert tx.objects.due(60, 9) == [first.ref]
        assert len(tx.files.versions(site.id, twin.id)) == 3
        assert tx.files.chunks(site.id, [theirs.id]) == {theirs.id: theirs}


# -- chunks -------------------------------------------------------------------------------------------------------------------------------


def test_chunks_are_found_by_id_in_their_site(db: SqlDatabase) -> None:
    made = Made(db)
    site, other = made.stored(), made.stored()
    file = node(site)
    chunks = [chunk(file, "c0/x", offset=number * 100) for number in range(1_300)]
    ids = [one.id for one in chunks]
    with db.write() as tx:
        tx.files.insert_nodes([file])
        tx.files.insert_chunks(chunks)
        assert tx.files.chunks(site.id, [*ids, fresh()]) == {one.id: one for one in chunks}
        assert tx.files.chunks(site.id, ids[:1]) == {ids[0]: chunks[0]}
        assert tx.files.chunks(site.id, []) == {}
        assert tx.files.chunks(site.id, [fresh()]) == {}
        for wanted in (ids, ids[:1]):
            assert tx.files.chunks(other.id, wanted) == {}
        tx.files.insert_chunks([])


def test_a_version_ends_the_use_of_chunks_and_another_takes_it_up(db: SqlDatabase) -> None:
    made = Made(db)
    site, other = made.stored(), made.stored()
    file = node(site)
    chunks = [chunk(file, "c0/x") for _ in range(6)]
    ids = [one.id for one in chunks]
    with db.write() as tx:
        tx.files.insert_nodes([file])
        tx.files.insert_chunks(chunks)
        tx.files.end_chunks(other.id, ids, 4)
        tx.files.end_chunks(site.id, ids[:4], 4)
        tx.files.end_chunks(site.id, [], 4)
        tx.files.end_chunks(site.id, ids[:1], None)
        assert [one.last_version for one in map(tx.files.chunks(site.id, ids).__getitem__, ids)] == [None, 4, 4, 4, None, None]


@pytest.mark.parametrize("count", [1, 6])
def test_chunks_that_were_moved_have_successors_and_go_at_the_end(db: SqlDatabase, count: int) -> None:
    made = Made(db)
    site, other = made.stored(), made.stored()
    file, twin = node(site), node(site)
    before, after = stored_object(site, count + 2), stored_object(site, count)
    old = [chunk(file, before.ref) for _ in range(count)]
    new = [chunk(file, after.ref, key_version=2) for _ in range(count)]
    unmoved, theirs = chunk(file, before.ref), chunk(twin, before.ref, successor=fresh())
    with db.write() as tx:
        tx.objects.insert([before, after])
        tx.files.insert_nodes([file, twin])
        tx.files.insert_chunks([*old, *new, unmoved, theirs])
        pairs = [(one.id, two.id) for one, two in zip(old, new, strict=True)]
        tx.files.succeed(other.id, pairs)
        tx.files.succeed(site.id, [])
        assert tx.files.chunks(site.id, [one.id for one in old]) == {one.id: one for one in old}
        tx.files.succeed(site.id, pairs)
        found = tx.files.chunks(site.id, [one.id for one in old])
        assert [(one.id, found[one.id].successor) for one in old] == pairs
        assert tx.files.drop_chunks(other.id, file.id, below=2, due=50) == 0
        assert tx.files.drop_chunks(site.id, file.id, below=1, due=50) == 0
        assert tx.files.drop_chunks(site.id, file.id, below=2, due=50) == 100 * count
        left = tx.files.chunks(site.id, [one.id for one in (*old, *new, unmoved, theirs)])
        assert set(left) == {one.id for one in (*new, unmoved, theirs)}
        assert tx.objects.due(50, 9) == []
        tx.files.succeed(site.id, [(unmoved.id, new[0].id)])
        assert tx.files.drop_chunks(site.id, file.id, below=2, due=50) == 100
        assert tx.files.drop_chunks(site.id, twin.id, below=2, due=60) == 100
        assert tx.objects.due(60, 9) == [before.ref]


# -- costs --------------------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def plans(stores: Stores, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., str]]:
    """How the database goes about every statement of an act, in its own words."""
    engine = stores.engine("keystead")
    database = SqlDatabase(engine)
    said: list[tuple[str, Any]] = []
    asked = Lookup._cursor

    def hear(lookup: Lookup, connection: Connection, values: dict[str, object]) -> Any:
        found = asked(lookup, connection, values)
        text, ordered = lookup._compiled[connection.dialect.name]
        said.append((text, values if ordered is None else ordered(values)))
        return found

    def driven(_connection: object, _cursor: object, text: str, values: Any, _context: object, many: bool) -> None:  # noqa: FBT001 - SQLAlchemy's
        said.append((text, values[0] if many else values))

    monkeypatch.setattr(Lookup, "_cursor", hear)
    event.listen(engine, "before_cursor_execute", driven)

    def plan(act: Callable[[Tx], object]) -> str:
        with database.write() as tx:
            said.clear()
            act(tx)
            statements = [one for one in said if one[0].lstrip().startswith(("SELECT", "UPDATE", "DELETE"))]
            assert statements
            connection = tx.sites._connection  # type: ignore[attr-defined]
            explain = "EXPLAIN QUERY PLAN" if connection.dialect.name == "sqlite" else "EXPLAIN"
            rows = [row for text, values in statements for row in connection.exec_driver_sql(f"{explain} {text}", values)]
        text = "\n".join(str(row[-1]) for row in rows)
        for ours, theirs in _UNIQUE.items():
            text = text.replace(theirs, ours)
        return text

    yield plan
    database.close()


_UNIQUE = {
    "uq_file_nodes_site_id_name_hash": "sqlite_autoindex_file_nodes_2",
    "uq_sites_tenant_id_url": "sqlite_autoindex_sites_2",
}
"""What SQLite calls the index of a unique constraint."""


def _walks(plan: str) -> list[str]:
    """What of a plan goes over a whole table; what is done with the rows of a subquery or a list that was given is none."""
    return [
        line
        for line in plan.splitlines()
        if "Seq Scan" in line or (line.startswith("SCAN") and not line.startswith(("SCAN waiting", "SCAN unsettled", "SCAN json_each")))
    ]


HOT: dict[str, tuple[str, Callable[[Tx, Any], object]]] = {
    "child": ("uq_file_nodes_site_id_name_hash", lambda tx, m: tx.files.child(m.site.id, m.site.id, [m.nodes[7].name_hash])),
    "named": (
        "uq_file_nodes_site_id_name_hash",
        lambda tx, m: tx.files.named(m.site.id, m.site.id, [one.name_hash for one in m.nodes[:5]]),
    ),
    "current": ("file_versions", lambda tx, m: tx.files.current(m.site.id, [one.id for one in m.nodes[:5]])),
    "node": ("file_nodes", lambda tx, m: tx.files.node(m.site.id, m.nodes[7].id)),
    "placed": ("ix_file_nodes_site_id_place_id", lambda tx, m: tx.files.placed(m.site.id, 0, 63)),
    "children": ("ix_file_nodes_site_id_parent_id_id", lambda tx, m: tx.files.children(m.site.id, m.nodes[7].id)),
    "page": ("ix_file_nodes_site_id_parent_id_id", lambda tx, m: tx.files.children(m.site.id, m.site.id, after=m.nodes[7].id, limit=9)),
    "subtree": ("ix_file_nodes_site_id_parent_id_id", lambda tx, m: tx.files.subtree(m.site.id, m.nodes[7].id)),
    "version": ("file_versions", lambda tx, m: tx.files.version(m.site.id, m.nodes[7].id, 1)),
    "versions": ("file_versions", lambda tx, m: tx.files.versions(m.site.id, m.nodes[7].id)),
    "versions-below": ("ix_file_versions_site_id_key_version_node_id_number", lambda tx, m: tx.files.versions_below(m.site.id, 2, limit=9)),
    "nodes-below": ("ix_file_nodes_site_id_key_version", lambda tx, m: tx.files.nodes_below(m.site.id, 1, limit=9)),
    "chunk": ("file_chunks", lambda tx, m: tx.files.chunks(m.site.id, [m.chunks[7].id])),
    "chunks": ("file_chunks", lambda tx, m: tx.files.chunks(m.site.id, [one.id for one in m.chunks[:5]])),
    "end": ("file_chunks", lambda tx, m: tx.files.end_chunks(m.site.id, [one.id for one in m.chunks[:5]], 1)),
    "succeed": ("file_chunks", lambda tx, m: tx.files.succeed(m.site.id, [(one.id, "x") for one in m.chunks[:5]])),
    "update": ("file_nodes", lambda tx, m: tx.files.update_nodes(m.nodes[:5])),
    "drop-chunks": ("ix_file_chunks_node_id_last_version", lambda tx, m: tx.files.drop_chunks(m.site.id, m.nodes[7].id, below=1, due=1)),
    "old-versions": (
        "ix_file_chunks_node_id_last_version",
        lambda tx, m: tx.files.delete_versions(m.site.id, m.nodes[7].id, until=0, due=1),
    ),
    "delete": ("file_nodes", lambda tx, m: tx.files.delete_nodes(m.site.id, [one.id for one in m.nodes[:5]], due=1)),
    "find": ("uq_sites_tenant_id_url", lambda tx, m: tx.sites.find(m.tenant, m.site.url)),
    "by-id": ("sites", lambda tx, m: tx.sites.find(m.tenant, m.site.id)),
    "keys": ("site_keys", lambda tx, m: tx.sites.keys(m.site.id)),
    "awaiting": ("ix_sites_hierarchy", lambda tx, m: tx.sites.awaiting(m.tenant, EUR, m.target, 20)),
    "progress": ("ix_sites_hierarchy", lambda tx, m: tx.sites.progress(m.tenant, NAM, m.target)),
    "settled": ("ix_sites_hierarchy", lambda tx, m: tx.sites.settled(m.tenant, EUR, m.site.policy_id)),
    "on-policy": ("ix_sites_policy_id", lambda tx, m: tx.sites.on_policy(m.target)),
}
"""What is asked or done all the time, and an index it must use."""


@dataclass(frozen=True)
class Filled:
    """A tenant with many sites, one of which has many files; no statistics were made of any of it."""

    tenant: str
    target: str
    site: Site
    nodes: Sequence[Node]
    chunks: Sequence[Chunk]


@pytest.fixture
def filled(db: SqlDatabase) -> Filled:
    made = Made(db)
    sites = [made.site() for _ in range(MANY)]
    nodes = [node(sites[0]) for _ in range(MANY)]
    chunks = [chunk(one, f"c0/{number % 50}") for number, one in enumerate(nodes)]
    with db.write() as tx:
        tx.sites.insert_many(sites, [key(site) for site in sites])
        tx.files.insert_nodes(nodes)
        tx.files.insert_versions([version(one, 1) for one in nodes])
        tx.files.insert_chunks(chunks)
    return Filled(made.tenant.id, made.policies[1], sites[0], nodes, chunks)


def test_what_is_asked_all_the_time_goes_by_an_index(filled: Filled, plans: Callable[..., str]) -> None:
    for name, (index, act) in HOT.items():
        plan = plans(lambda tx, act=act: act(tx, filled))
        assert not _walks(plan), (name, plan)
        assert index in plan, (name, plan)


def test_R_123_what_waits_is_found_without_a_walk_over_what_is_done(db: SqlDatabase, filled: Filled, plans: Callable[..., str]) -> None:
    with db.write() as tx:
        while page := tx.sites.awaiting(filled.tenant, EUR, filled.target, 500):
            keys = [one for _site, keys in page for one in keys]
            tx.sites.rewrapped(filled.tenant, EUR, filled.target, [site for site, _keys in page], keys)
        assert tx.sites.progress(filled.tenant, EUR, filled.target) == (MANY, MANY)
    plan = plans(lambda tx: tx.sites.awaiting(filled.tenant, EUR, filled.target, 20))
    assert "ix_sites_hierarchy" in plan
    assert not _walks(plan), plan
