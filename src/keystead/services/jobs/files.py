"""Changing the hierarchy the files of a geo lie under: re-wrap, then move (R-106 to R-109, R-122 to R-124, R-159 to R-161).

`change_files` wraps the keys of all sites of a geo by another policy, some thousands a slice; from then on the new policy's keys decide who
may read. A roll or a recovery is done with that. A registration and a return to provider keys go on with a `move_site` for each site that
holds anything: it makes a fresh site key and seals all content under it anew, while people read and write (docs/spec/files.md section 7).
Whoever does the last piece of work of a geo says in the same transaction that it is done, and has the old TIK destroyed.

The state of the sites is the cursor, and within a site the versions of the key that its rows name: a slice takes what is still left. New
objects are written before the commit, old ones are deleted after a grace period.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from keystead.core.alerts import KEY_KINDS, AlertKind
from keystead.core.audit.record import RecordType
from keystead.core.errors import IntegrityFailure
from keystead.core.formats.files import SITE_KEY, site_key_name
from keystead.core.formats.wrapped_key import rewrap_all
from keystead.core.keys.decide import Operation
from keystead.core.policies.policy import POLICY_KEY_VERSION, Workload
from keystead.core.stores.files import GeoState, SiteKey
from keystead.core.stores.mailbox import MoveState
from keystead.ports.keystore import Compartment
from keystead.services.alerting import resolve_alerts
from keystead.services.auditing import record_system
from keystead.services.file_policies import REGISTER, REVERT
from keystead.services.jobs.rows import new_job
from keystead.services.jobs.slices import done, save

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from keystead.core.jobs import Job
    from keystead.core.stores.files import Geo, Site
    from keystead.ports.tx import Tx
    from keystead.services.context import Services
    from keystead.services.keyring import OpenPolicy

    Wrapped = tuple[Site, list[SiteKey]]
    """A site, and its keys as they are stored."""

MOVE, DESTROY = "move-site", "destroy-shred-key"
"""Kinds of the jobs that a change of a geo starts."""
_ENDS = {
    GeoState.REGISTERING: "Complete-FilesRegistration",
    GeoState.ROLLING: "Complete-FilesRoll",
    GeoState.RECOVERING: "Complete-FilesRecovery",
    GeoState.REVERTING: "Complete-FilesRevert",
}
"""What the log calls the end of each change."""


# -- the first half: re-wrap ----------------------------------------------------------------------------------------------------------

SAMPLE = 50
"""How many waiting sites are looked at for the policies they come from; those of others wait for the next slice."""


def change_files(services: Services, job: Job) -> Job:
    """One slice of wrapping site keys by another policy.

    A site whose keys do not open stays where it is, and the others go on; when only such are left, the job says so and tries again later.
    """
    geo, policy_id = job.parameters["geo"], job.parameters["policy_id"]
    with services.db.read() as tx:
        wanted = _is_target(tx, job)
        waiting = tx.sites.awaiting(job.tenant_id, geo, policy_id, SAMPLE) if wanted else []
    if not waiting:
        return _rewrapping_done(services, job)
    new = services.keyring.open(policy_id, Operation.SYSTEM, request_id=job.id)
    if new.policy.tenant_id != job.tenant_id:  # nobody can ask for that: rows were forged, and what is wrapped so would never open again
        raise IntegrityFailure(
            "policy_another_tenant", f"the job {job.id} names a policy of another tenant", "restore the job's row from a backup"
        )
    sources = {site.policy_id for site, _keys in waiting}
    old = {source: services.keyring.open(source, Operation.SYSTEM, request_id=job.id) for source in sources}
    services.checkpoint("re-wrap: policies opened")
    with services.db.write() as tx:
        # Read inside: sites of a policy that came between are left for the next slice.
        if not _is_target(tx, job):
            return done(services, tx, job)
        batch = [
            (site, keys)
            for site, keys in tx.sites.awaiting(job.tenant_id, geo, policy_id, services.settings.rewrap_batch)
            if site.policy_id in old
        ]
        slice_ = _rewrapped(services, tx, job, batch, old, new)
        if batch and not slice_.sites:
            assert slice_.damage is not None, "a site that was not wrapped anew did not open"
            raise slice_.damage
        tx.sites.rewrapped(job.tenant_id, geo, policy_id, slice_.sites, slice_.keys)
        tx.jobs.insert(slice_.jobs)
        return save(services, tx, job, done=job.done + len(slice_.sites), total=max(job.total, job.done + len(batch)))


def _is_target(tx: Tx, job: Job) -> bool:
    """Whether the geo is to go where the job would bring it: a job of a database that was put back may be over."""
    geo = tx.sites.geo(job.tenant_id, job.parameters["geo"])
    return geo is not None and geo.target_policy_id == job.parameters["policy_id"]


def _rewrapping_done(services: Services, job: Job) -> Job:
    """No site waits any more; those that move go on by themselves."""
    geo, policy_id = job.parameters["geo"], job.parameters["policy_id"]
    with services.db.write() as tx:
        if _is_target(tx, job) and tx.sites.awaiting(job.tenant_id, geo, policy_id, 1):
            return save(services, tx, job)
        settle(services, tx, job.tenant_id, geo, policy_id)
        return done(services, tx, job)


class _Slice(NamedTuple):
    """What a slice of re-wrapping stores; `damage`: why a site is not among it."""

    sites: list[Site]
    keys: list[SiteKey]
    jobs: list[Job]
    damage: IntegrityFailure | None


def _rewrapped(services: Services, tx: Tx, job: Job, batch: Sequence[Wrapped], old: Mapping[str, OpenPolicy], new: OpenPolicy) -> _Slice:
    """The sites, keys and jobs after re-wrapping. A site that holds nothing needs no move: it gets its fresh key here and is done."""
    now = services.clock.now()
    fresh = job.kind in {REGISTER, REVERT}
    filled = tx.sites.filled([site.id for site, _keys in batch]) if fresh else frozenset()
    slice_ = _Slice([], [], [], None)
    parameters = {"geo": job.parameters["geo"], "policy_id": new.policy.id}
    for policy_id, source in old.items():
        group = [(site, keys) for site, keys in batch if site.policy_id == policy_id]
        kept = [(site, keys) for site, keys in group if not fresh or site.id in filled]
        opened, damage = _rewrapped_keys(services, job.tenant_id, kept, source, new)
        slice_ = slice_._replace(damage=slice_.damage or damage)
        for (site, _keys), keys in zip(kept, opened, strict=True):
            if keys is None:
                continue
            slice_.keys.extend(keys)
            if fresh:
                move = new_job(
                    services, job.tenant_id, MOVE, site.id, parameters=parameters, parent_id=job.id, total=site.stored_bytes, now=now
                )
                slice_.jobs.append(move)
            slice_.sites.append(replace(site, move_state=MoveState.QUEUED, moved=0) if fresh else site)
        for site, _keys in group if fresh else ():
            if site.id not in filled:
                version = site.key_version + 1
                slice_.keys.append(SiteKey(site.id, version, new.new_site_key(site.id, version, services.random)))
                slice_.sites.append(replace(site, key_version=version, move_state=MoveState.DONE, moved_at=now, moved=0))
    return slice_


def _rewrapped_keys(
    services: Services, tenant_id: str, sites: Sequence[Wrapped], old: OpenPolicy, new: OpenPolicy
) -> tuple[list[list[SiteKey] | None], IntegrityFailure | None]:
    """The keys of each site under the new policy, None for a site whose keys do not open, and what was found about the first of those."""

    def under_new(keys: Sequence[SiteKey]) -> list[SiteKey]:
        pairs = rewrap_all(
            ((site_key_name(key.site_id, key.version), key.wrapped) for key in keys),
            tenant_id=tenant_id,
            kind=SITE_KEY,
            old=old.keys.wrap,
            old_id=old.policy.id,
            old_version=POLICY_KEY_VERSION,
            new=new.keys.wrap,
            new_id=new.policy.id,
            new_version=POLICY_KEY_VERSION,
            random=services.random,
        )
        return [SiteKey(key.site_id, key.version, wrapped) for key, (_name, wrapped) in zip(keys, pairs, strict=True)]

    if all(keys for _site, keys in sites):
        with suppress(IntegrityFailure):  # find which
            flat = iter(under_new([key for _site, keys in sites for key in keys]))
            return [[next(flat) for _key in keys] for _site, keys in sites], None
    found: list[list[SiteKey] | None] = []
    damage: IntegrityFailure | None = None
    for site, keys in sites:
        try:
            found.append(under_new(_there(site, keys)))
        except IntegrityFailure as error:
            found.append(None)
            damage = damage or error
    return found, damage


def _there(site: Site, keys: list[SiteKey]) -> list[SiteKey]:
    """Raises: `IntegrityFailure` for a site that has no key."""
    if not keys:
        raise IntegrityFailure("site_key_missing", f"the site {site.id} has no site key", "restore the database from a backup")
    return keys


# -- the end --------------------------------------------------------------------------------------------------------------------------


def settle(services: Services, tx: Tx, tenant_id: str, name: str, policy_id: str) -> None:
    """Say that a change of a geo is done, if nothing of it is left; in the transaction of whatever was done last (R-109).

    The old TIK goes: its rows here, which is the intent, and its shred key by a job of its own.
    """
    geo = tx.sites.geo(tenant_id, name)
    if geo is None or geo.target_policy_id != policy_id:
        return
    if not tx.sites.settled(tenant_id, name, policy_id):  # asked after every move: it must not count
        return
    _finished, sites = tx.sites.progress(tenant_id, name, policy_id)
    reverted = geo.state is GeoState.REVERTING
    after = replace(
        geo,
        state=GeoState.UNREGISTERED if reverted else GeoState.REGISTERED,
        policy_id=None if reverted else policy_id,
        target_policy_id=None,
        changed=services.clock.now(),
    )
    tx.sites.put_geo(after)
    record_system(
        services,
        tx,
        tenant_id,
        _ENDS[geo.state],
        policy_id,
        (("Geo", name), ("Sites", str(sites)), ("Job", geo.job_id)),
        record_type=RecordType.SHAREPOINT,
        request_id=geo.job_id,
    )
    resolve_alerts(services, tx, tenant_id, geo.job_id, [AlertKind.FILES_OVERDUE])
    if geo.policy_id is not None:
        _remove_policy(services, tx, geo, geo.policy_id)


def _remove_policy(services: Services, tx: Tx, geo: Geo, policy_id: str) -> None:
    """Take a TIK out of the database that nothing lies under any more, and ask for the destruction of its shred key."""
    policy = tx.policies.by_id(policy_id)
    if policy is None or policy.workload is not Workload.FILES:
        return
    resolve_alerts(services, tx, policy.tenant_id, policy.id, [*KEY_KINDS, AlertKind.KEY_STORE])
    tx.policies.remove(policy.id)
    parameters = {"policy_id": policy.id, "geo": geo.geo}
    tx.jobs.insert([new_job(services, policy.tenant_id, DESTROY, policy.shred_key_id, parameters=parameters, parent_id=geo.job_id)])


def destroy_shred_key(services: Services, job: Job) -> Job:
    """Destroy the shred key of a policy that is gone: what is left of its envelopes, in backups too, opens for nobody any more."""
    with services.db.read() as tx:
        unnamed = tx.policies.drop_missing_keys([job.subject_id])
    if unnamed:  # else rows were put back that name it; what they say is not ours to decide
        services.keystore.destroy(Compartment.SHRED, unnamed)
    services.checkpoint("destroy: shred key destroyed")
    with services.db.write() as tx:
        parameters = (("Policy", job.parameters["policy_id"]), ("Geo", job.parameters["geo"]), ("Destroyed", str(bool(unnamed))))
        kind = RecordType.SHAREPOINT
        record_system(services, tx, job.tenant_id, "Remove-ShredKey", job.subject_id, parameters, record_type=kind, request_id=job.id)
        return done(services, tx, job)
