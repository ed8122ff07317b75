"""Geos, sites, their keys, members, trees and locks."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from sqlalchemy import and_, bindparam, delete, func, insert, literal_column, or_, select, union_all, update

from keystead.adapters.sql.bulk import Among, Bulk, listed
from keystead.adapters.sql.keystead_schema import file_geos, file_locks, file_nodes, objects, site_keys, site_members, site_trees, sites
from keystead.adapters.sql.rows import Lookup, Many, conflict
from keystead.core.errors import NotFound
from keystead.core.stores.files import FileLock, Geo, GeoState, Site, SiteKey, SiteKind, SiteTree
from keystead.core.stores.mailbox import MOVE_AT_REST, MoveState

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection, Select

_SITE_FIELDS = tuple(Site.__dataclass_fields__)
_SITE_COLUMNS = [sites.c[name] for name in _SITE_FIELDS]
_TREE_COLUMNS = [site_trees.c[name] for name in SiteTree.__dataclass_fields__]
_LOCK_COLUMNS = [file_locks.c[name] for name in FileLock.__dataclass_fields__]
_GEO_COLUMNS = [file_geos.c[name] for name in Geo.__dataclass_fields__]

_BY_URL = Lookup(select(*_SITE_COLUMNS).where(sites.c.tenant_id == bindparam("tenant"), sites.c.url == bindparam("reference")))
_BY_ID = Lookup(select(*_SITE_COLUMNS).where(sites.c.id == bindparam("reference"), sites.c.tenant_id == bindparam("tenant")))
_KEYS = Lookup(
    select(site_keys.c.site_id, site_keys.c.version, site_keys.c.wrapped)
    .where(site_keys.c.site_id == bindparam("site"))
    .order_by(site_keys.c.version)
)
_IS_MEMBER = Lookup(select(site_members.c.upn).where(site_members.c.site_id == bindparam("site"), site_members.c.upn == bindparam("upn")))
_GEO = Lookup(select(*_GEO_COLUMNS).where(file_geos.c.tenant_id == bindparam("tenant"), file_geos.c.geo == bindparam("geo")))
_TREE = Lookup(select(*_TREE_COLUMNS).where(site_trees.c.site_id == bindparam("site")))
_ADDED = Many(
    update(sites)
    .where(sites.c.id == bindparam("b_id"))
    .values(
        file_count=sites.c.file_count + bindparam("b_files"),
        size_bytes=sites.c.size_bytes + bindparam("b_size"),
        stored_bytes=sites.c.stored_bytes + bindparam("b_stored"),
    )
)
_NEW_SITES = Bulk(sites, _SITE_FIELDS)
_NEW_KEYS = Bulk(site_keys, ("site_id", "version", "wrapped"))
_MISSING_KEYS = Bulk(site_keys, ("site_id", "version", "wrapped"), or_nothing=True)
_SAME_KEYS = Bulk(site_keys, ("site_id", "version", "wrapped"), keys=("site_id", "version"))
_PUT_UNDER = Bulk(
    sites,
    ("id", "tenant_id", "geo", "policy_id", "key_version", "move_state", "moved_at", "moved"),
    keys=("id",),
    same=("tenant_id", "geo"),
)


_OLDER_KEYS = Many(delete(site_keys).where(Among(site_keys.c.site_id, "b_sites"), site_keys.c.version < bindparam("b_version")))
_TREE_VALUES = ("site_id", "key_version", "sealed")
_SAME_TREE = Bulk(site_trees, _TREE_VALUES, keys=("site_id",))
_NEW_TREE = Bulk(site_trees, _TREE_VALUES)
_LOCKS = Lookup(
    select(*_LOCK_COLUMNS)
    .where(file_locks.c.site_id == bindparam("site"), file_locks.c.expires > bindparam("now"))
    .order_by(file_locks.c.expires, file_locks.c.token_hash)
)
_LOCK_VALUES = ("site_id", "token_hash", "key_version", "sealed", "expires")
_SAME_LOCK = Bulk(file_locks, _LOCK_VALUES, keys=("site_id", "token_hash"))
_NEW_LOCK = Bulk(file_locks, _LOCK_VALUES)


def _waiting(policy: Any) -> Select[Any]:  # noqa: ANN401 - a condition on the policy
    return select(*_SITE_COLUMNS).where(sites.c.tenant_id == bindparam("tenant"), sites.c.geo == bindparam("geo"), policy)


# "Another policy" is two ranges of the index on it: neither database would use the index for what is merely unequal. Each range gives its
# rows in the index's order until there are enough, and the second is only looked at when the first has too few.
_OTHERS = (
    union_all(_waiting(sites.c.policy_id < bindparam("policy")), _waiting(sites.c.policy_id > bindparam("policy")))
    .limit(bindparam("limit"))
    .subquery("waiting")
)
_AWAITING = Lookup(
    select(*_OTHERS.c, site_keys.c.version.label("k_version"), site_keys.c.wrapped).select_from(
        _OTHERS.join(site_keys, site_keys.c.site_id == _OTHERS.c.id, isouter=True)
    )
)
_FILLED = Lookup(
    select(sites.c.id).where(
        Among(sites.c.id, "sites"),
        or_(
            select(file_nodes.c.id).where(file_nodes.c.site_id == sites.c.id).exists(),
            select(site_trees.c.site_id).where(site_trees.c.site_id == sites.c.id).exists(),
            select(file_locks.c.site_id).where(file_locks.c.site_id == sites.c.id).exists(),
        ),
    )
)
_AT_REST = tuple(state.value for state in MoveState if state in MOVE_AT_REST)
_UNDER_WAY = tuple(state.value for state in MoveState if state.value not in _AT_REST)
_of_geo = select(sites.c.id).where(sites.c.tenant_id == bindparam("tenant"), sites.c.geo == bindparam("geo"))
_UNSETTLED = Lookup(
    select(
        union_all(
            _of_geo.where(sites.c.policy_id < bindparam("policy")),
            _of_geo.where(sites.c.policy_id > bindparam("policy")),
            *(
                _of_geo.where(sites.c.policy_id == bindparam("policy"), sites.c.move_state == literal_column(f"'{state}'"))
                for state in _UNDER_WAY
            ),
        )
        .limit(literal_column("1"))
        .subquery("unsettled")
        .c.id
    )
)
_BY_STATE = Lookup(
    select(sites.c.policy_id, sites.c.move_state, func.count().label("sites"))
    .where(sites.c.tenant_id == bindparam("tenant"), sites.c.geo == bindparam("geo"))
    .group_by(sites.c.policy_id, sites.c.move_state)
)

_KINDS = {kind.value: kind for kind in SiteKind}
_STATES = {state.value: state for state in MoveState}
"""Looking a member up here takes a fifth of what calling the class does, and a roll does it for every site."""
_KIND, _SHARED, _MOVE = (_SITE_FIELDS.index(name) for name in ("kind", "shared", "move_state"))


def _site(values: Sequence[Any]) -> Site:
    fields = list(values)
    fields[_KIND] = _KINDS.get(fields[_KIND]) or SiteKind(fields[_KIND])
    fields[_SHARED] = bool(fields[_SHARED])
    fields[_MOVE] = _STATES.get(fields[_MOVE]) or MoveState(fields[_MOVE])
    return Site(*fields)


def _site_values(site: Site) -> tuple[object, ...]:
    fields = [getattr(site, name) for name in _SITE_FIELDS]
    fields[_KIND], fields[_MOVE] = site.kind.value, site.move_state.value
    return tuple(fields)


def _key_values(key: SiteKey) -> tuple[object, ...]:
    return key.site_id, key.version, key.wrapped


def _geo(values: Sequence[Any]) -> Geo:
    tenant_id, geo, state, *rest = values
    return Geo(tenant_id, geo, GeoState(state), *rest)


class SqlSiteRows:
    """Implements ports.files.SiteRows."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    # -- geos

    def geo(self, tenant_id: str, geo: str) -> Geo | None:
        row = _GEO.first(self._connection, tenant=tenant_id, geo=geo)
        return _geo(row) if row else None

    def geos(self, tenant_id: str) -> list[Geo]:
        query = select(*_GEO_COLUMNS).where(file_geos.c.tenant_id == tenant_id).order_by(file_geos.c.geo)
        return [_geo(row) for row in self._connection.execute(query)]

    def put_geo(self, geo: Geo) -> None:
        values = {**asdict(geo), "state": geo.state.value}
        same = and_(file_geos.c.tenant_id == geo.tenant_id, file_geos.c.geo == geo.geo)
        if not self._connection.execute(update(file_geos).where(same).values(**values)).rowcount:
            self._connection.execute(insert(file_geos).values(**values))

    def changing(self, before: int) -> list[Geo]:
        query = select(*_GEO_COLUMNS).where(file_geos.c.target_policy_id.is_not(None), file_geos.c.changed < before)
        return [_geo(row) for row in self._connection.execute(query.order_by(file_geos.c.changed))]

    def geo_of_policy(self, policy_id: str) -> Geo | None:
        query = select(*_GEO_COLUMNS).where(or_(file_geos.c.policy_id == policy_id, file_geos.c.target_policy_id == policy_id))
        row = self._connection.execute(query).first()
        return _geo(row) if row else None

    # -- sites

    def insert(self, site: Site, key: SiteKey) -> None:
        self.insert_many([site], [key])

    def insert_many(self, sites: Sequence[Site], keys: Sequence[SiteKey]) -> None:
        named = sites[0].url if len(sites) == 1 else "one of the sites"
        with conflict("site_exists", f"{named} is there already", "keystead site list shows the sites there are"):
            _NEW_SITES.run(self._connection, map(_site_values, sites))
        _NEW_KEYS.run(self._connection, map(_key_values, keys))

    def find(self, tenant_id: str, reference: str) -> Site | None:
        row = (_BY_URL if "/" in reference else _BY_ID).first(self._connection, tenant=tenant_id, reference=reference)
        return _site(row) if row else None

    def page(self, tenant_id: str, *, geo: str = "", after: str, limit: int) -> list[Site]:
        query = select(*_SITE_COLUMNS).where(sites.c.tenant_id == tenant_id, sites.c.url > after)
        if geo:
            query = query.where(sites.c.geo == geo)
        return [_site(row) for row in self._connection.execute(query.order_by(sites.c.url).limit(limit))]

    def keys(self, site_id: str) -> list[SiteKey]:
        return [SiteKey(*row) for row in _KEYS.all(self._connection, site=site_id)]

    def insert_key(self, key: SiteKey) -> None:
        _NEW_KEYS.run(self._connection, [_key_values(key)])

    def remove_keys_below(self, site_id: str, version: int) -> int:
        return self._connection.execute(delete(site_keys).where(site_keys.c.site_id == site_id, site_keys.c.version < version)).rowcount

    def update(self, site: Site) -> None:
        self._connection.execute(
            update(sites)
            .where(sites.c.id == site.id, sites.c.tenant_id == site.tenant_id)
            .values(
                owner=site.owner,
                shared=site.shared,
                quota_bytes=site.quota_bytes,
                key_version=site.key_version,
                move_state=site.move_state.value,
                moved_at=site.moved_at,
                moved=site.moved,
            )
        )

    def add_counts(self, site_id: str, files: int, size: int, stored: int) -> None:
        _ADDED.run(self._connection, [{"b_id": site_id, "b_files": files, "b_size": size, "b_stored": stored}])

    def delete(self, tenant_id: str, site_id: str) -> None:
        if self._connection.execute(delete(sites).where(sites.c.id == site_id, sites.c.tenant_id == tenant_id)).rowcount:
            self._connection.execute(update(objects).where(objects.c.owner_id == site_id).values(due=0, items=0))

    # -- members

    def members(self, site_id: str) -> list[str]:
        query = select(site_members.c.upn).where(site_members.c.site_id == site_id).order_by(site_members.c.upn)
        return list(self._connection.execute(query).scalars())

    def is_member(self, site_id: str, upn: str) -> bool:
        return _IS_MEMBER.first(self._connection, site=site_id, upn=upn) is not None

    def add_member(self, site_id: str, upn: str) -> None:
        with conflict("member_exists", f"{upn} is a member of the site already", "nothing needs to be done"):
            self._connection.execute(insert(site_members).values(site_id=site_id, upn=upn))

    def remove_member(self, site_id: str, upn: str) -> bool:
        return bool(
            self._connection.execute(delete(site_members).where(site_members.c.site_id == site_id, site_members.c.upn == upn)).rowcount
        )

    # -- hierarchy

    def awaiting(self, tenant_id: str, geo: str, policy_id: str, limit: int) -> list[tuple[Site, list[SiteKey]]]:
        width = len(_SITE_FIELDS)
        found: dict[str, tuple[Site, list[SiteKey]]] = {}
        for row in _AWAITING.all(self._connection, tenant=tenant_id, geo=geo, policy=policy_id, limit=limit):
            entry = found.get(row[0])
            if entry is None:
                entry = found[row[0]] = (_site(row[:width]), [])
            if row[width] is not None:  # a site whose keys are gone is damaged, not absent
                entry[1].append(SiteKey(row[0], row[width], row[width + 1]))
        for _site_found, keys in found.values():
            keys.sort(key=_version)
        return list(found.values())

    def rewrapped(self, tenant_id: str, geo: str, policy_id: str, changed: Sequence[Site], keys: Sequence[SiteKey]) -> None:
        met = _PUT_UNDER.run(
            self._connection,
            [(site.id, tenant_id, geo, policy_id, site.key_version, site.move_state.value, site.moved_at, site.moved) for site in changed],
        )
        if met != len(changed):
            raise NotFound("site_not_found", f"a site is not there, or not in {geo}", "start over: it was deleted meanwhile")
        own = {site.id for site in changed}
        given = [_key_values(key) for key in keys if key.site_id in own]
        if _SAME_KEYS.run(self._connection, given) < len(given):
            _MISSING_KEYS.run(self._connection, given)
        self._drop_below(keys)

    def _drop_below(self, keys: Sequence[SiteKey]) -> None:
        """Remove the keys of each site that are older than the oldest given, which is few statements: few versions differ."""
        oldest: dict[str, int] = {}
        for key in keys:
            oldest[key.site_id] = min(key.version, oldest.get(key.site_id, key.version))
        by_version: dict[int, list[str]] = {}
        for site_id, version in oldest.items():
            by_version.setdefault(version, []).append(site_id)
        for version, site_ids in by_version.items():
            if version > 1:
                _OLDER_KEYS.run(self._connection, [{"b_sites": listed(self._connection, site_ids), "b_version": version}])

    def filled(self, site_ids: Sequence[str]) -> set[str]:
        return {row[0] for row in _FILLED.all(self._connection, sites=listed(self._connection, site_ids))}

    def progress(self, tenant_id: str, geo: str, policy_id: str) -> tuple[int, int]:
        rows = _BY_STATE.all(self._connection, tenant=tenant_id, geo=geo)
        return sum(row[2] for row in rows if row[0] == policy_id and row[1] in _AT_REST), sum(row[2] for row in rows)

    def settled(self, tenant_id: str, geo: str, policy_id: str) -> bool:
        return _UNSETTLED.first(self._connection, tenant=tenant_id, geo=geo, policy=policy_id) is None

    def on_policy(self, policy_id: str) -> int:
        return self._connection.execute(select(func.count()).where(sites.c.policy_id == policy_id)).scalar_one()

    # -- trees

    def tree(self, site_id: str) -> SiteTree | None:
        row = _TREE.first(self._connection, site=site_id)
        return SiteTree(*row) if row else None

    def put_tree(self, tree: SiteTree) -> None:
        values = (tree.site_id, tree.key_version, tree.sealed)
        if not _SAME_TREE.run(self._connection, [values]):
            _NEW_TREE.run(self._connection, [values])

    # -- locks

    def locks(self, site_id: str, now: int) -> list[FileLock]:
        return [FileLock(*row) for row in _LOCKS.all(self._connection, site=site_id, now=now)]

    def put_lock(self, lock: FileLock) -> None:
        values = (lock.site_id, lock.token_hash, lock.key_version, lock.sealed, lock.expires)
        if not _SAME_LOCK.run(self._connection, [values]):
            _NEW_LOCK.run(self._connection, [values])

    def remove_lock(self, site_id: str, token_hash: bytes) -> bool:
        return bool(
            self._connection.execute(
                delete(file_locks).where(file_locks.c.site_id == site_id, file_locks.c.token_hash == token_hash)
            ).rowcount
        )

    def remove_locks(self, site_id: str) -> int:
        return self._connection.execute(delete(file_locks).where(file_locks.c.site_id == site_id)).rowcount

    def remove_expired_locks(self, now: int) -> int:
        return self._connection.execute(delete(file_locks).where(file_locks.c.expires <= now)).rowcount


def _version(key: SiteKey) -> int:
    return key.version
