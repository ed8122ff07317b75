"""The policies of files: one for each geo of a tenant, whose key is the tenant intermediate key (R-103 to R-109, R-122 to R-126, R-159 to R-161).

Whatever changes the hierarchy of a geo makes a fresh TIK (R-123) and a job that brings the geo's sites under it; meanwhile nothing else may
be asked for. Order of writes as for mail: vaults and key store first, database last. What a crash leaves is key store keys that no row
names, which `collect-orphans` destroys.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from keystead.api.types.base import utc, utc_or_none
from keystead.api.types.file_policies import FilesHealth, FilesStatus
from keystead.core.audit.record import RecordType
from keystead.core.errors import ChecksFailed, Conflict, InvalidRequest, NotFound, PreconditionFailed
from keystead.core.ids import new_id
from keystead.core.keys.decide import Operation, health
from keystead.core.keys.key_uri import split_key_uri
from keystead.core.keys.outcome import OutcomeClass
from keystead.core.policies.policy import CUSTOMER_ROLES, CopyRole, Policy, PolicyCopy, PolicyVersion, Workload
from keystead.core.stores.files import Geo, GeoState
from keystead.ports.keystore import Compartment
from keystead.services.auditing import record
from keystead.services.jobs.rows import new_job
from keystead.services.key_checks import KeyReport, check_new, check_views, health_views, three_copies
from keystead.services.keyring import copies_of
from keystead.services.sites import geo_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from keystead.api.call import Call
    from keystead.api.types import file_policies as t
    from keystead.ports.tx import Tx
    from keystead.services.context import Services

REGISTER, ROLL, RECOVER, REVERT = "register-files", "roll-files", "recover-files", "revert-files"
CHANGES = frozenset({REGISTER, ROLL, RECOVER, REVERT})
"""Kinds of the jobs that bring the sites of a geo under another policy."""
AT_REST = frozenset({GeoState.UNREGISTERED, GeoState.REGISTERED})
ID_DIGITS = 8
"""Of a policy's id, in its name."""


@dataclass(frozen=True, slots=True)
class _Made:
    """A policy with its wrapped copies, not stored yet."""

    policy: Policy
    copies: list[PolicyCopy]

    def insert(self, tx: Tx) -> None:
        version = PolicyVersion(self.policy.version_id, self.policy.id, 1, self.policy.created, "created")
        tx.policies.insert(self.policy, version, self.copies)


def register(services: Services, call: Call, request: t.RegisterFiles) -> FilesStatus:
    """Put the files of a geo under two customer keys: the policy, and the job that re-encrypts what is there (R-103 to R-106, R-109)."""
    uris = (_with_version(request.primary), _with_version(request.secondary))
    with services.db.read() as tx:
        geo = _geo(tx, call, request.geo)
    if geo.state is not GeoState.UNREGISTERED:
        raise _refused(geo)
    report = _checked(services, call, geo.geo, uris)
    made = _fresh_policy(services, geo, uris)
    with services.db.write() as tx:
        _require_same(tx, geo)
        made.insert(tx)
        _begin(services, tx, call, geo, GeoState.REGISTERING, REGISTER, made.policy, made.copies)
        return _status(services, tx, call.tenant_id, geo.geo, report)


def status(services: Services, call: Call, request: t.NameGeo) -> FilesStatus:
    """Both keys, the state, and how many of the sites are done (R-107, R-108, R-161)."""
    with services.db.read() as tx:
        return _status(services, tx, call.tenant_id, geo_of(tx, call, request.geo))


def roll(services: Services, call: Call, request: t.RollFiles) -> FilesStatus:
    """Put another key in the place of one of the two: a fresh TIK, and a job that wraps every site key by it (R-123, R-159 to R-161)."""
    uri = _with_version(request.key)
    role = CopyRole(request.which)
    with services.db.read() as tx:
        geo, policy = _in_force(tx, call, request.geo)
        copies = copies_of(tx, policy)
    named = {each: copies[each].key_uri for each in CUSTOMER_ROLES}
    if uri.lower() in {old.lower() for old in named.values()}:
        raise PreconditionFailed(
            "key_in_use", f"{uri} is one of the two keys of the files of {geo.geo} already", "name another version, or another key"
        )
    services.keyring.open(policy.id, Operation.SYSTEM, request_id=call.request_id)  # without it the site keys cannot be wrapped anew
    uris = tuple((named | {role: uri})[each] for each in CUSTOMER_ROLES)
    report = _checked(services, call, geo.geo, uris)
    made = _fresh_policy(services, geo, uris)
    with services.db.write() as tx:
        _require_same(tx, geo)
        made.insert(tx)
        _begin(services, tx, call, geo, GeoState.ROLLING, ROLL, made.policy, made.copies, (("KeyType", role.value.title()),))
        return _status(services, tx, call.tenant_id, geo.geo, report)


def recover(services: Services, call: Call, request: t.RecoverFiles) -> FilesStatus:
    """The customer's explicit instruction to use the availability key, since both keys are lost (R-124 to R-126).

    The instruction is on the log before the key is touched. The availability key unwraps the TIK once; wrapped by the two new keys it is
    readable at once. Then a fresh TIK takes its place, as in a roll. Where the keys were lost while something was under way, each TIK of the
    geo that does not open is wrapped by the new keys, and what was under way goes on.
    """
    uris = (_with_version(request.primary), _with_version(request.secondary))
    with services.db.read() as tx:
        geo = _geo(tx, call, request.geo)
        policies = [policy for policy in _policies_of(tx, geo) if policy.workload is Workload.FILES]
        copies = {policy.id: copies_of(tx, policy) for policy in policies}
    if not policies:
        raise _not_registered(geo)
    lost, told = _lost(services, geo, policies)
    report = _checked(services, call, geo.geo, uris)
    made = _fresh_policy(services, geo, uris) if geo.state is GeoState.REGISTERED else None
    with services.db.write() as tx:
        _require_same(tx, geo)
        asked = (("Geo", geo.geo), *((f"{role.title()}KeyUri", uri) for role, uri in zip(CUSTOMER_ROLES, uris, strict=True)))
        identities = ",".join(policy.id for policy in lost)
        record(services, tx, call, identities, (*asked, *told, ("AvailabilityKey", "True")), record_type=RecordType.SHAREPOINT)
    services.checkpoint("recover: instruction recorded")
    # A crash from here to the commit leaves the record of a use that came to nothing: the safe side.
    again = [_wrapped_again(services, policy, copies[policy.id], uris) for policy in lost]
    services.checkpoint("recover: copies wrapped")
    with services.db.write() as tx:
        _require_same(tx, geo)
        for policy, (version, wrapped) in zip(lost, again, strict=True):
            if not tx.policies.add_version(policy.id, policy.version_id, version, wrapped):
                raise _changed(geo)
        versions = ",".join(version.id for version, _wrapped in again)
        if made is not None:
            made.insert(tx)
            _begin(services, tx, call, geo, GeoState.RECOVERING, RECOVER, made.policy, made.copies, (("Version", versions),))
        else:
            done = (("Geo", geo.geo), ("State", geo.state.value), ("Version", versions), ("Job", geo.job_id))
            record(services, tx, call, identities, done, record_type=RecordType.SHAREPOINT)
        return _status(services, tx, call.tenant_id, geo.geo, report)


def _lost(services: Services, geo: Geo, policies: Sequence[Policy]) -> tuple[list[Policy], tuple[tuple[str, str], ...]]:
    """Those of a geo's policies of which neither customer key opens now, and what the keys said.

    Raises:
        PreconditionFailed: `not_in_recovery`: there is none.
    """
    lost: list[Policy] = []
    told: list[tuple[str, str]] = []
    working: list[str] = []
    for policy in policies:
        _state, keys = services.keyring.probe_now(policy)
        opening = [key.key_uri for key in keys if key.outcome.kind is OutcomeClass.SUCCESS]
        working += opening
        if not opening:
            lost.append(policy)
            told += [(f"{key.role.title()}Outcome", str(key.outcome)) for key in keys]
    if not lost:
        raise PreconditionFailed(
            "not_in_recovery",
            f"the files of {geo.geo} are not in recovery: {' and '.join(working)} {'opens' if len(working) == 1 else 'open'}",
            f"keystead files roll --geo {geo.geo} puts another key in the place of one",
        )
    return lost, tuple(told)


def _wrapped_again(
    services: Services, lost: Policy, copies: dict[CopyRole, PolicyCopy], uris: Sequence[str]
) -> tuple[PolicyVersion, list[PolicyCopy]]:
    """A TIK out of its availability copy, wrapped by two new keys: the version of the policy that is to be stored."""
    tik = services.keyring.recover_by_instruction(lost, copies)
    version = PolicyVersion(new_id(services.random), lost.id, lost.version + 1, services.clock.now(), "recovered")
    return version, three_copies(services, lost, version.id, uris, tik)


def revert(services: Services, call: Call, request: t.NameGeo) -> FilesStatus:
    """Put the files of a geo back under the provider's keys, re-encrypted; the customer's keys must open until that is done."""
    with services.db.read() as tx:
        geo, policy = _in_force(tx, call, request.geo)
    services.keyring.open(policy.id, Operation.SYSTEM, request_id=call.request_id)
    with services.db.write() as tx:
        _require_same(tx, geo)
        _begin(services, tx, call, geo, GeoState.REVERTING, REVERT, tx.policies.provider(call.tenant_id))
        return _status(services, tx, call.tenant_id, geo.geo)


def files_health(services: Services, call: Call, request: t.NameGeo) -> FilesHealth:
    """Ask both keys of the policy in force now; of a registration, those it leads to."""
    with services.db.read() as tx:
        geo = _geo(tx, call, request.geo)
        policy = _shown_policy(tx, geo)
    if policy is None:
        raise _not_registered(geo)
    state, keys = services.keyring.probe_now(policy)
    return FilesHealth(
        geo=geo.geo,
        state=state.value,
        keys=health_views(keys),
        checked=utc(services.clock.now()),
    )


def roll_availability_key(services: Services, call: Call, named: str) -> str:
    """Replace the availability key of a geo's files, which nobody sees, and every copy of a TIK that it wraps (R-138, R-152).

    New key, new copies, one commit; the old key is destroyed afterwards. A crash before the commit leaves the new key unreferenced, one
    after it the old: `collect-orphans` destroys either. The customer's keys must open.
    """
    with services.db.read() as tx:
        geo = _geo(tx, call, named)
        policies = [policy for policy in _policies_of(tx, geo) if policy.workload is Workload.FILES]
        old = {policy.id: copies_of(tx, policy) for policy in policies}
    if not geo.availability_key_id:
        raise _not_registered(geo)
    keys = {policy.id: services.keyring.recover_policy_key(policy, old[policy.id]) for policy in policies}
    key_id = new_id(services.random)
    services.keystore.create(Compartment.AVAILABILITY_FILES, key_id)
    services.checkpoint("roll: new availability key made")
    copies = {
        policy.id: services.keyring.wrap_stored(policy, policy.version_id, CopyRole.AVAILABILITY, key_id, keys[policy.id])
        for policy in policies
    }
    with services.db.write() as tx:
        _require_same(tx, geo)
        for policy in policies:
            if not tx.policies.replace_copy(copies[policy.id], expected_uri=old[policy.id][CopyRole.AVAILABILITY].key_uri):
                raise _changed(geo)
            tx.policies.set_availability_key(policy.id, key_id)
        tx.sites.put_geo(replace(geo, availability_key_id=key_id))
        record(services, tx, call, geo.geo, (("Geo", geo.geo), ("AvailabilityKeyId", key_id)), record_type=RecordType.SHAREPOINT)
    services.checkpoint("roll: copy replaced")
    services.keystore.destroy(Compartment.AVAILABILITY_FILES, [geo.availability_key_id])
    return key_id


# -- helpers ------------------------------------------------------------------------------------------------------------------------


def _geo(tx: Tx, call: Call, named: str) -> Geo:
    """The geo that is meant, with where it stands."""
    return _row(tx, call.tenant_id, geo_of(tx, call, named))


def _row(tx: Tx, tenant_id: str, name: str) -> Geo:
    """The row of a geo; one that was never registered has none."""
    found = tx.sites.geo(tenant_id, name)
    return found or Geo(tenant_id, name, GeoState.UNREGISTERED, None, None, job_id="", availability_key_id="", changed=0)


def _in_force(tx: Tx, call: Call, named: str) -> tuple[Geo, Policy]:
    """A registered geo at rest, and its policy.

    Raises:
        NotFound: it is not registered.
        Conflict: something is under way.
    """
    geo = _geo(tx, call, named)
    if geo.state is GeoState.UNREGISTERED:
        raise _not_registered(geo)
    if geo.state is not GeoState.REGISTERED:
        raise _refused(geo)
    policy = tx.policies.by_id(geo.policy_id or "")
    if policy is None:
        raise _not_registered(geo)
    return geo, policy


def _with_version(uri: str) -> str:
    """A key identifier with its version: files name the very version that wraps (R-105).

    Raises:
        InvalidRequest: no key identifier, or one without version.
    """
    parts = split_key_uri(uri)
    if not parts.version:
        raise InvalidRequest(
            "key_version_missing", f"{parts.base} names no version of the key", "keystead key show VAULT NAME shows its full identifier"
        )
    return f"{parts.base}/{parts.version}"


def _checked(services: Services, call: Call, geo: str, uris: Sequence[str]) -> KeyReport:
    report = check_new(services, call.tenant_id, Workload.FILES, uris)
    if report.failed:
        raise ChecksFailed("policy_checks_failed", f"the keys for the files of {geo} fail {len(report.failed)} checks", report.failed)
    return report


def _fresh_policy(services: Services, geo: Geo, uris: Sequence[str]) -> _Made:
    """A policy with a fresh TIK (R-123) and its three copies; the availability key is the geo's, made with its first policy (R-110)."""
    key = services.keyring.fresh_policy_key()
    policy_id = new_id(services.random)
    policy = Policy(
        id=policy_id,
        tenant_id=geo.tenant_id,
        workload=Workload.FILES,
        name=f"files-{geo.geo}-{policy_id[:ID_DIGITS]}",
        description="",
        enabled=True,
        created=services.clock.now(),
        version_id=new_id(services.random),
        version=1,
        check_value=services.keyring.check_value(key),
        shred_key_id=new_id(services.random),
        availability_key_id=geo.availability_key_id or new_id(services.random),
    )
    services.keystore.create(Compartment.SHRED, policy.shred_key_id)
    services.checkpoint("files: shred key made")
    if not geo.availability_key_id:
        services.keystore.create(Compartment.AVAILABILITY_FILES, policy.availability_key_id)
        services.checkpoint("files: availability key made")
    copies = three_copies(services, policy, policy.version_id, uris, key)
    services.checkpoint("files: copies wrapped")
    return _Made(policy, copies)


def _require_same(tx: Tx, seen: Geo) -> None:
    """A fresh look inside the transaction.

    Raises:
        Conflict: somebody else asked for a change of the same geo meanwhile.
    """
    if _row(tx, seen.tenant_id, seen.geo) != seen:
        raise _changed(seen)


def _begin(
    services: Services,
    tx: Tx,
    call: Call,
    geo: Geo,
    state: GeoState,
    kind: str,
    target: Policy,
    copies: Sequence[PolicyCopy] = (),
    more: tuple[tuple[str, str], ...] = (),
) -> None:
    """The job that brings the geo's sites under the target, the geo as it is from now on, and the record of both.

    `copies`: of the target, where they are the customer's; `more`: parameters that the record has beside.
    """
    _done, sites = tx.sites.progress(geo.tenant_id, geo.geo, target.id)
    job = new_job(services, geo.tenant_id, kind, target.id, parameters={"geo": geo.geo, "policy_id": target.id}, total=sites)
    tx.jobs.insert([job])
    tx.sites.put_geo(
        replace(
            geo,
            state=state,
            target_policy_id=target.id,
            job_id=job.id,
            availability_key_id=geo.availability_key_id or target.availability_key_id,
            changed=services.clock.now(),
        )
    )
    keys = tuple((f"{copy.role.title()}KeyUri", copy.key_uri) for copy in copies if copy.role in CUSTOMER_ROLES)
    record(services, tx, call, target.id, (("Geo", geo.geo), *more, *keys, ("Job", job.id)), record_type=RecordType.SHAREPOINT)


def _policies_of(tx: Tx, geo: Geo) -> list[Policy]:
    named = [policy_id for policy_id in (geo.policy_id, geo.target_policy_id) if policy_id]
    return [policy for policy in map(tx.policies.by_id, named) if policy is not None]


def _shown_policy(tx: Tx, geo: Geo) -> Policy | None:
    """The files policy that a change leads to, or the one in force."""
    return next((policy for policy in reversed(_policies_of(tx, geo)) if policy.workload is Workload.FILES), None)


def _status(services: Services, tx: Tx, tenant_id: str, geo: str, report: KeyReport | None = None) -> FilesStatus:
    found = tx.sites.geo(tenant_id, geo)
    target = (found.target_policy_id or found.policy_id) if found else None
    done, sites = tx.sites.progress(tenant_id, geo, target or "")
    policy = _shown_policy(tx, found) if found else None
    if found is None or target is None or policy is None:
        return FilesStatus(
            geo=geo,
            state=GeoState.UNREGISTERED.value,
            primary_key_uri=None,
            secondary_key_uri=None,
            percent_sites=None,
            sites=sites,
            sites_done=None,
            policy_id=None,
            job_id=None,
            started=None,
            health=None,
        )
    uris = {copy.role: copy.key_uri for copy in tx.policies.copies(policy.version_id)}
    state = tx.policies.state(policy.id)
    # Before the first probe: both keys have wrapped and unwrapped when the policy was made, or it would not be there.
    known = [OutcomeClass(said or OutcomeClass.SUCCESS) for said in (state.primary, state.secondary)]
    under_way = found.state not in AT_REST
    percent = 100.0 * done / sites if sites else 100.0
    return FilesStatus(
        geo=geo,
        state=found.state.value,
        primary_key_uri=uris.get(CopyRole.PRIMARY),
        secondary_key_uri=uris.get(CopyRole.SECONDARY),
        percent_sites=round(min(99.9, percent) if under_way else percent, 1),
        sites=sites,
        sites_done=done,
        policy_id=policy.id,
        job_id=found.job_id or None,
        started=utc_or_none(found.changed if under_way else None),
        health=health(known).value,
        overdue=under_way and services.clock.now() - found.changed > services.settings.registration_warning,
        warnings=check_views(report.warnings if report else ()),
    )


def _refused(geo: Geo) -> Conflict:
    if geo.state is GeoState.REGISTERED:
        return Conflict(
            "files_registered",
            f"the files of {geo.geo} are under customer keys already; there is one policy for each geo",
            f"keystead files roll --geo {geo.geo} changes a key",
        )
    return Conflict(
        "files_change_under_way",
        f"the files of {geo.geo} are {geo.state}; only one change runs at a time",
        f"keystead files status --geo {geo.geo} tells how far it is",
    )


def _not_registered(geo: Geo) -> NotFound:
    return NotFound(
        "files_not_registered", f"the files of {geo.geo} are not under customer keys", f"keystead files register --geo {geo.geo}"
    )


def _changed(geo: Geo) -> Conflict:
    return Conflict(
        "files_changed",
        f"somebody else asked for a change of the files of {geo.geo} at the same time",
        f"keystead files status --geo {geo.geo}",
    )
