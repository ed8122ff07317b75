"""Sites: making them, who may use them, how they are encrypted, and opening them (R-103, R-109, R-121).

Whose content somebody may reach:

- the owner and the members of a site, and when it is shared all people of the tenant, read and change what is in it;
- administrators put files into any site, as they import mail, and neither list nor read nor change what is there;
- a personal drive belongs to its person: nobody else shares it, and its person alone says who its members are.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING

from keystead.api.types.base import utc, utc_or_none
from keystead.api.types.sites import MembersView, SiteStatus, SiteView, UnlockedView
from keystead.api.types.tenants import Done
from keystead.core.access.principal import Role
from keystead.core.access.tokens import covers
from keystead.core.audit.record import RecordType
from keystead.core.errors import Forbidden, IntegrityFailure, InvalidRequest, NotFound, PreconditionFailed
from keystead.core.formats.aead import NONCE_BYTES
from keystead.core.formats.files import name_hash
from keystead.core.formats.sealed_object import open_object, seal
from keystead.core.ids import geo_code, is_id, new_id, user_principal_name
from keystead.core.keys.decide import Operation
from keystead.core.policies.policy import Workload
from keystead.core.stores.files import GeoState, Site, SiteKey, SiteKind
from keystead.core.stores.mailbox import MOVE_AT_REST, MoveState
from keystead.core.stores.paths import check_site_url
from keystead.services.auditing import record
from keystead.services.jobs.rows import new_job

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from keystead.api.call import Call
    from keystead.api.types import sites as t
    from keystead.core.formats.context import Context
    from keystead.core.keys.hierarchy import SiteKeys
    from keystead.core.policies.policy import PolicyState
    from keystead.ports.tx import Tx
    from keystead.services.context import Services
    from keystead.services.keyring import OpenPolicy

ADMINS = frozenset({Role.GLOBAL_ADMIN, Role.EXCHANGE_ADMIN, Role.OPERATOR})
WATCHERS = ADMINS | {Role.COMPLIANCE_ADMIN, Role.AUDIT_READER}
"""Who sees all sites, and nothing of what is in them."""


class Use(StrEnum):
    """What a site is opened for."""

    READ = "read"
    CHANGE = "change"
    PUT = "put"
    """Bringing files in: what administrators may do too."""


@dataclass(frozen=True, slots=True)
class OpenSite:
    """A site whose keys are open, for somebody who may use it.

    Attributes:
        opened: the policy it lies under.
        keys: of the version of the site key that new content is sealed under.
        all_keys: by version: during a move content lies under either.
        use: what it was opened for.
        owner: whether whoever opened it is its owner.
        reads: whether whoever opened it may read what is in it. For who may not, what comes in is never compared with what is there: the
            answer would tell.
    """

    site: Site
    opened: OpenPolicy
    keys: SiteKeys
    all_keys: Mapping[int, SiteKeys]
    use: Use
    owner: bool
    reads: bool

    @property
    def operation(self) -> Operation:
        """Who receives content."""
        return operation_of(self.use)

    def hashes(self, parent_id: str, name: str) -> list[bytes]:
        """What a node of that name may be found by, the newest version of the key first."""
        return [name_hash(keys, parent_id, name) for keys in self.all_keys.values()]

    def keys_of(self, version: int, what: str) -> SiteKeys:
        """The opened key of a version that a row names.

        Raises:
            IntegrityFailure: the key's row is gone, or there never was such a version; `what` names the thing that lies under it.
        """
        found = self.all_keys.get(version)
        if found is None:
            raise IntegrityFailure(
                "site_key_missing", f"the site key of {what} is missing (version {version})", "restore the database from a backup"
            )
        return found

    def sealed(self, services: Services, context: Context, data: bytes) -> bytes:
        """A box under the newest version of the site key."""
        return seal_box(services, self.site, self.keys, self.site.key_version, context, data)

    def unsealed(self, box: bytes, version: int, context: Context, what: str) -> bytes:
        """What is in a box under the version of the site key that its row names; `what` names the thing.

        Raises:
            IntegrityFailure: `site_key_missing`; `object_damaged`: it is not what was written.
        """
        keys = self.keys_of(version, what)
        return open_object(keys.seal, box, key_id=self.site.id, key_version=version, context=context, object_name=what)


def seal_box(services: Services, site: Site, keys: SiteKeys, version: int, context: Context, data: bytes) -> bytes:
    """A box under some version of a site key."""
    return seal(keys.seal, data, key_id=site.id, key_version=version, context=context, nonce=services.random(NONCE_BYTES))


# -- sites --------------------------------------------------------------------------------------------------------------------------


def create_site(services: Services, call: Call, request: t.CreateSite) -> SiteView:
    """Make a site with a key of its own under the files policy of its geo, or under the provider's where there is none (R-251)."""
    url = check_site_url(request.url)
    kind = SiteKind(request.kind)
    owner = _owner_of(call, request.owner)
    _require_maker(call, kind, owner)
    with services.db.read() as tx:
        geo = geo_of(tx, call, request.geo)
        _require_person(tx, call, owner)
        policy_id = policy_for(tx, call.tenant_id, geo)
    opened = services.keyring.open(policy_id, Operation.SYSTEM, request_id=call.request_id)
    site = Site(
        id=new_id(services.random),
        tenant_id=call.tenant_id,
        url=url,
        kind=kind,
        geo=geo,
        owner=owner,
        shared=kind is not SiteKind.ONEDRIVE and not request.private,
        created=services.clock.now(),
        policy_id=policy_id,
        key_version=1,
        move_state=MoveState.NONE,
        moved_at=None,
        moved=0,
        quota_bytes=services.settings.site_quota_bytes,
        file_count=0,
        size_bytes=0,
        stored_bytes=0,
    )
    wrapped = opened.new_site_key(site.id, 1, services.random)
    services.checkpoint("create site: key made")
    with services.db.write() as tx:
        _require_person(tx, call, owner)  # again: removed meanwhile, the next of that name would have it
        if policy_for(tx, call.tenant_id, geo) != policy_id:
            raise PreconditionFailed("geo_changed", f"the files policy of {geo} changed while the site was made", "try again")
        tx.sites.insert(site, SiteKey(site.id, 1, wrapped))
        parameters = (("Url", url), ("Kind", kind.value), ("Geo", geo), ("Owner", owner), ("Shared", str(site.shared)))
        record(services, tx, call, site.id, parameters, record_type=RecordType.SHAREPOINT)
    return _view(site)


def list_sites(services: Services, call: Call, request: t.ListSites) -> list[SiteView]:
    """Sites by URL: all of the tenant for those who look after them, else those the caller may use."""
    geo = geo_code(request.geo) if request.geo else ""
    everything = not call.principal.roles.isdisjoint(WATCHERS)
    found = _listed(services, call, geo=geo, after=request.after.lower(), limit=request.limit, everything=everything)
    return [_view(site) for site in found]


def usable_sites(services: Services, call: Call, *, limit: int) -> list[Site]:
    """The sites the caller may use, by URL: for the face that shows them as folders."""
    return _listed(services, call, geo="", after="", limit=limit, everything=False)


def show_site(services: Services, call: Call, request: t.NameSite) -> SiteStatus:
    """How the files of one site are encrypted.

    Raises:
        PreconditionFailed: `customer_key_not_set_up`: there is no files policy in its geo (R-121).
    """
    with services.db.read() as tx:
        site = find_site(tx, call, request.site)
        require_use(tx, call, site, roles=WATCHERS)
        geo = tx.sites.geo(call.tenant_id, site.geo)
        policy = tx.policies.by_id(site.policy_id)
    if geo is None or geo.state is GeoState.UNREGISTERED:
        raise PreconditionFailed(
            "customer_key_not_set_up",
            f"no customer keys are set up for the files of {site.geo}, where {site.url} lies",
            f"keystead files register --geo {site.geo}",
        )
    customer = policy is not None and policy.workload is Workload.FILES
    return SiteStatus(
        id=site.id,
        url=site.url,
        kind=site.kind.value,
        geo=site.geo,
        geo_state=geo.state.value,
        is_encrypted=customer and site.move_state in MOVE_AT_REST,
        policy_id=site.policy_id,
        key_version=site.key_version,
        move_state=site.move_state.value,
        progress_percent=_percent(site),
        moved=utc_or_none(site.moved_at),
        owner=site.owner,
        shared=site.shared,
        files=site.file_count,
        size_bytes=site.size_bytes,
        stored_bytes=site.stored_bytes,
        quota_bytes=site.quota_bytes,
    )


def set_site(services: Services, call: Call, request: t.SetSite) -> SiteView:
    """Change owner, sharing or quota. A personal drive stays its person's alone; one whose person was removed may be given to another."""
    owner = None if request.owner is None else user_principal_name(request.owner)
    with services.db.write() as tx:
        site = find_site(tx, call, request.site)
        taken = owner is not None and site.owner not in ("", owner)
        if site.kind is SiteKind.ONEDRIVE and (request.shared or taken):
            raise PreconditionFailed(
                "personal_drive", f"{site.url} is the personal drive of {site.owner}", "its owner may add members: keystead site member add"
            )
        if owner is not None:
            _require_person(tx, call, owner)
        changed = replace(
            site,
            owner=site.owner if owner is None else owner,
            shared=site.shared if request.shared is None else request.shared,
            quota_bytes=site.quota_bytes if request.quota_bytes is None else request.quota_bytes,
        )
        tx.sites.update(changed)
        parameters = (("Url", site.url), ("Owner", changed.owner), ("Shared", str(changed.shared)), ("Quota", str(changed.quota_bytes)))
        record(services, tx, call, site.id, parameters, record_type=RecordType.SHAREPOINT)
    return _view(changed)


def delete_site(services: Services, call: Call, request: t.NameSite) -> Done:
    """Delete a site: its keys and rows go in this transaction, which makes its objects worthless; a job removes them."""
    with services.db.write() as tx:
        site = find_site(tx, call, request.site)
        tx.sites.delete(call.tenant_id, site.id)
        tx.jobs.insert([new_job(services, call.tenant_id, "clean", site.id, priority=8)])
        parameters = (("Url", site.url), ("Files", str(site.file_count)))
        record(services, tx, call, site.id, parameters, record_type=RecordType.SHAREPOINT)
    return Done(id=site.id)


# -- members ------------------------------------------------------------------------------------------------------------------------


def add_member(services: Services, call: Call, request: t.SiteMember) -> MembersView:
    """Let a person of the tenant use a site."""
    name = user_principal_name(request.member)
    with services.db.write() as tx:
        site = find_site(tx, call, request.site)
        _require_manager(call, site)
        _require_person(tx, call, name)
        tx.sites.add_member(site.id, name)
        record(services, tx, call, site.id, (("Url", site.url), ("Member", name)), record_type=RecordType.SHAREPOINT)
        return _members(tx, site)


def remove_member(services: Services, call: Call, request: t.SiteMember) -> MembersView:
    """End it."""
    name = user_principal_name(request.member)
    with services.db.write() as tx:
        site = find_site(tx, call, request.site)
        _require_manager(call, site)
        if not tx.sites.remove_member(site.id, name):
            raise NotFound("member_not_found", f"{name} is no member of {site.url}", "nothing needs to be done")
        record(services, tx, call, site.id, (("Url", site.url), ("Member", name)), record_type=RecordType.SHAREPOINT)
        return _members(tx, site)


def list_members(services: Services, call: Call, request: t.NameSite) -> MembersView:
    """Who may use a site."""
    with services.db.read() as tx:
        site = find_site(tx, call, request.site)
        require_use(tx, call, site, roles=WATCHERS)
        return _members(tx, site)


def unlock(services: Services, call: Call, request: t.NameSite) -> UnlockedView:
    """End all locks that clients hold on what is in a site. Nothing is opened for it: who looks after a site may, and sees no path."""
    with services.db.write() as tx:
        site = find_site(tx, call, request.site)
        _require_manager(call, site)
        ended = tx.sites.remove_locks(site.id)
        record(services, tx, call, site.id, (("Url", site.url), ("Locks", str(ended))), record_type=RecordType.SHAREPOINT)
    return UnlockedView(url=site.url, locks=ended)


# -- for other services -------------------------------------------------------------------------------------------------------------


def open_site(services: Services, call: Call, reference: str, *, change: bool = False, put: bool = False) -> OpenSite:
    """Open a site of the caller's tenant, for somebody who may use it.

    Args:
        services: the service.
        call: who asks.
        reference: URL or id.
        change: for changing what is in it.
        put: for bringing files in alone, which administrators may do in any site.

    Raises:
        NotFound: the tenant has no such site.
        Forbidden: it is not the caller's to use.
        KeyDenied, Unavailable, IntegrityFailure: as the keyring.
    """
    use = Use.PUT if put else Use.CHANGE if change else Use.READ
    gone = ""
    while True:
        with services.db.read() as tx:
            site = find_site(tx, call, reference)
            owner = require_use(tx, call, site, roles=ADMINS if put else frozenset())
            reads = _may_read(tx, call, site)
            wrapped = tx.sites.keys(site.id)
            state = tx.policies.state(site.policy_id)
        try:
            return opened_site(services, site, wrapped, use, owner=owner, reads=reads, request_id=call.request_id, state=state)
        except NotFound:
            if site.policy_id == gone:
                raise
            gone = site.policy_id  # a policy that is gone was replaced just now: the site says by which


def reopened(services: Services, call: Call, old: OpenSite) -> OpenSite:
    """The same site as it is now, for the same use and by the same caller. Raises: as `open_site`."""
    return open_site(services, call, old.site.id, change=old.use is Use.CHANGE, put=old.use is Use.PUT)


def opened_site(
    services: Services,
    site: Site,
    wrapped: Sequence[SiteKey],
    use: Use,
    *,
    owner: bool,
    reads: bool,
    request_id: str,
    state: PolicyState | None = None,
) -> OpenSite:
    """Open the keys of a site that was just read, without asking who does. Raises: as the keyring."""
    opened = services.keyring.open(site.policy_id, operation_of(use), request_id=request_id, state=state)
    return with_keys(site, wrapped, opened, use, owner=owner, reads=reads)


def with_keys(site: Site, wrapped: Sequence[SiteKey], opened: OpenPolicy, use: Use, *, owner: bool, reads: bool) -> OpenSite:
    """A site whose policy is open. Raises: `IntegrityFailure` for a key that is not what was written, or not there."""
    keys = {key.version: opened.site_keys(site.id, key.version, key.wrapped) for key in sorted(wrapped, key=_newest_first)}
    current = keys.get(site.key_version)
    if current is None:
        raise IntegrityFailure(
            "site_key_missing", f"the site key of {site.url} is missing (version {site.key_version})", "restore the database from a backup"
        )
    return OpenSite(site, opened, current, keys, use, owner, reads)


def operation_of(use: Use) -> Operation:
    """Who receives content: nobody where files come in."""
    return Operation.SYSTEM if use is Use.PUT else Operation.USER


def find_site(tx: Tx, call: Call, reference: str) -> Site:
    """A site of the tenant, by URL in any usual spelling, or by id.

    Raises:
        NotFound: none of that name.
    """
    name = reference.lower() if is_id(reference) else check_site_url(reference)
    site = tx.sites.find(call.tenant_id, name)
    if site is None:
        raise NotFound("site_not_found", f"the tenant has no site {name}", "keystead site list shows its sites")
    return site


def require_use(tx: Tx, call: Call, site: Site, *, roles: frozenset[Role] = frozenset()) -> bool:
    """Let those pass who may use what is in a site, and holders of the roles. Returns whether it is the owner.

    Raises:
        Forbidden: anybody else.
    """
    if call.principal.upn == site.owner and not call.principal.is_provider:
        return True
    if not call.principal.roles.isdisjoint(roles) or _may_use(tx, call, site):
        return False
    raise Forbidden(
        "not_a_member",
        f"{call.principal.upn} is not a member of {site.url}",
        "its owner or an administrator adds members: keystead site member add",
    )


def policy_for(tx: Tx, tenant_id: str, geo: str) -> str:
    """Id of the policy that a new site of a geo lies under: where things go to while something is under way."""
    row = tx.sites.geo(tenant_id, geo)
    named = row and (row.target_policy_id or row.policy_id)
    return named or tx.policies.provider(tenant_id).id


def geo_of(tx: Tx, call: Call, named: str) -> str:
    """A geo of the tenant; its only one where none is named.

    Raises:
        InvalidRequest: `geo_missing`: there are several. `geo_invalid`.
        PreconditionFailed: `geo_unknown`: the tenant has no such geo (R-103).
    """
    tenant = tx.tenants.find(call.tenant_id)
    geos = tenant.geos if tenant is not None else ()
    if not named and len(geos) == 1:
        return geos[0]
    if not named:
        raise InvalidRequest("geo_missing", f"the tenant has the geos {', '.join(geos)}, and none is named", "add --geo GEO")
    geo = geo_code(named)
    if geo not in geos:
        raise PreconditionFailed("geo_unknown", f"the tenant has no geo {geo}", f"its geos are {', '.join(geos)}")
    return geo


# -- helpers ------------------------------------------------------------------------------------------------------------------------


def _listed(services: Services, call: Call, *, geo: str, after: str, limit: int, everything: bool) -> list[Site]:
    """Sites by URL, after one: all of them, or those the caller may use."""
    found: list[Site] = []
    with services.db.read() as tx:
        while len(found) < limit:
            page = tx.sites.page(call.tenant_id, geo=geo, after=after, limit=limit)
            found += [site for site in page if everything or _may_use(tx, call, site)]
            if len(page) < limit:
                break
            after = page[-1].url
    return found[:limit]


def _may_use(tx: Tx, call: Call, site: Site) -> bool:
    principal = call.principal
    if principal.is_provider or principal.tenant_id != site.tenant_id:
        return False
    if site.kind is SiteKind.ONEDRIVE and not site.owner:  # its person was removed: it is nobody's until it has another
        return False
    return principal.upn == site.owner or site.shared or tx.sites.is_member(site.id, principal.upn)


def _may_read(tx: Tx, call: Call, site: Site) -> bool:
    """Whether what is in a site may be told to the caller: neither to administrators who bring files in, nor to a program for that alone."""
    scopes = call.principal.scopes
    return _may_use(tx, call, site) and (scopes is None or covers(scopes, "site.get"))


def _owner_of(call: Call, named: str) -> str:
    if named:
        return user_principal_name(named)
    if call.principal.is_provider:
        raise InvalidRequest("owner_missing", "a site has an owner, a person of the tenant, and none is named", "add --owner UPN")
    return call.principal.upn


def _require_maker(call: Call, kind: SiteKind, owner: str) -> None:
    """Administrators make any site; everybody makes a personal drive of their own."""
    own = kind is SiteKind.ONEDRIVE and owner == call.principal.upn
    if not own and call.principal.roles.isdisjoint(ADMINS):
        raise Forbidden(
            "role_missing",
            f"{call.principal.upn} may make a personal drive of their own alone",
            "an administrator makes other sites: global-admin or exchange-admin",
        )


def _require_manager(call: Call, site: Site) -> None:
    """Who says who the members are, and ends locks: the owner, and for what is no personal drive administrators."""
    if call.principal.upn == site.owner:
        return
    if site.kind is SiteKind.ONEDRIVE or call.principal.roles.isdisjoint(ADMINS):
        who = f"{site.owner} may do it" if site.owner else "an administrator gives it an owner: keystead site set --owner"
        raise Forbidden("not_the_owner", f"{call.principal.upn} is not the owner of {site.url}", who)


def _require_person(tx: Tx, call: Call, upn: str) -> None:
    person = tx.tenants.person(upn)
    if person is None or person.tenant_id != call.tenant_id:
        raise NotFound("user_not_found", f"the tenant has no person {upn}", "keystead user list shows them")


def _newest_first(key: SiteKey) -> int:
    return -key.version


def _percent(site: Site) -> float:
    if site.move_state in MOVE_AT_REST:
        return 100.0
    if site.move_state is MoveState.QUEUED or not site.stored_bytes:
        return 0.0
    return round(min(99.9, 100.0 * site.moved / site.stored_bytes), 1)


def _members(tx: Tx, site: Site) -> MembersView:
    return MembersView(url=site.url, owner=site.owner, shared=site.shared, members=tx.sites.members(site.id))


def _view(site: Site) -> SiteView:
    return SiteView(
        id=site.id,
        url=site.url,
        kind=site.kind.value,
        geo=site.geo,
        owner=site.owner,
        shared=site.shared,
        created=utc(site.created),
        files=site.file_count,
        size_bytes=site.size_bytes,
        stored_bytes=site.stored_bytes,
        quota_bytes=site.quota_bytes,
    )
