"""Data encryption policies for mail: checking, making, refreshing, showing (R-070 to R-085, R-155 to R-163).

Order of writes: vaults and key store first, database last. What a crash leaves is a key store key that no policy names, which the job
`collect-orphans` destroys; wrapped copies that were never stored are worth nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from keystead.api.types.base import utc, utc_or_none
from keystead.api.types.policies import CopyView, KeyUses, PolicyHealth, PolicySummary, PolicyView, ValidationView
from keystead.core.access.principal import Role
from keystead.core.errors import ChecksFailed, Conflict, FailedCheck, Forbidden, NotFound
from keystead.core.ids import new_id, policy_name
from keystead.core.keys.decide import health
from keystead.core.keys.key_uri import split_key_uri
from keystead.core.keys.outcome import OutcomeClass
from keystead.core.policies.policy import CUSTOMER_ROLES, MAX_PER_TENANT, CopyRole, Policy, PolicyVersion, Workload
from keystead.ports.keystore import Compartment
from keystead.services.auditing import record
from keystead.services.key_checks import check_known, check_new, check_views, health_views, three_copies
from keystead.services.keyring import copies_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from keystead.api.call import Call
    from keystead.api.types import policies as t
    from keystead.core.policies.policy import PolicyState
    from keystead.ports.tx import Tx
    from keystead.services.context import Services


@dataclass(frozen=True, slots=True)
class _Report:
    """What the checks said, and the base identifiers of the keys."""

    failed: tuple[FailedCheck, ...]
    warnings: tuple[FailedCheck, ...]
    base_uris: tuple[str, ...]


def validate_policy(services: Services, call: Call, request: t.CreatePolicy) -> ValidationView:
    """Run every creation check and report all that failed, making nothing (R-081)."""
    _require_manager(services, call)
    report = _check(services, call, request.name, request.keys)
    return ValidationView(
        name=request.name, valid=not report.failed, failed_checks=check_views(report.failed), warnings=check_views(report.warnings)
    )


def create_policy(services: Services, call: Call, request: t.CreatePolicy) -> PolicyView:
    """Make a policy: a fresh policy key and availability key, three copies, one commit (R-079, R-080, R-137)."""
    _require_manager(services, call)
    report = _check(services, call, request.name, request.keys)
    if report.failed:
        raise ChecksFailed("policy_checks_failed", f"the policy {request.name} fails {len(report.failed)} checks", report.failed)
    now = services.clock.now()
    key = services.keyring.fresh_policy_key()
    policy = Policy(
        id=new_id(services.random),
        tenant_id=call.tenant_id,
        workload=Workload.MAIL,
        name=policy_name(request.name),
        description=request.description,
        enabled=request.enabled,
        created=now,
        version_id=new_id(services.random),
        version=1,
        check_value=services.keyring.check_value(key),
        shred_key_id=new_id(services.random),
        availability_key_id=new_id(services.random),
    )
    services.keystore.create(Compartment.SHRED, policy.shred_key_id)
    services.checkpoint("policy: shred key made")
    services.keystore.create(Compartment.AVAILABILITY_MAIL, policy.availability_key_id)
    services.checkpoint("policy: availability key made")
    copies = three_copies(services, policy, policy.version_id, report.base_uris, key)
    services.checkpoint("policy: copies wrapped")
    with services.db.write() as tx:
        if tx.policies.count(call.tenant_id, Workload.MAIL) >= MAX_PER_TENANT:  # checked again: another one may have been made meanwhile
            raise ChecksFailed("policy_checks_failed", "the tenant has 50 mailbox policies", (_limit_check(),))
        tx.policies.insert(policy, PolicyVersion(policy.version_id, policy.id, 1, now, "created"), copies)
        parameters = (("Name", policy.name), ("AzureKeyIDs", ",".join(copy.key_uri for copy in copies if copy.role in CUSTOMER_ROLES)))
        record(services, tx, call, policy.id, (*parameters, ("Enabled", str(policy.enabled))))
        return _view(tx, policy, report.warnings)


def refresh_policy(services: Services, call: Call, request: t.NamePolicy) -> PolicyView:
    """Re-wrap the policy key with the current versions of both customer keys: two wraps and one commit (R-155 to R-157, R-163).

    The availability key stays as it is (R-154). If either vault fails, nothing changes. Nothing below the policy is touched.
    """
    _require_manager(services, call)
    with services.db.read() as tx:
        policy = _find(tx, call, request.policy)
        old = copies_of(tx, policy)
    bases = tuple(_base(old[role].key_uri) for role in CUSTOMER_ROLES)
    report, _facts = check_known(services, call.tenant_id, Workload.MAIL, bases)
    if report.failed:
        raise ChecksFailed("policy_checks_failed", f"the policy {policy.name} cannot be refreshed", report.failed)
    key = services.keyring.recover_policy_key(policy, old)
    version = PolicyVersion(new_id(services.random), policy.id, policy.version + 1, services.clock.now(), "refreshed")
    copies = three_copies(services, policy, version.id, bases, key)
    services.checkpoint("refresh: copies wrapped")
    with services.db.write() as tx:
        if not tx.policies.add_version(policy.id, policy.version_id, version, copies):
            raise Conflict(
                "policy_changed",
                f"the policy {policy.name} was refreshed by somebody else at the same time",
                "look at it with keystead policy show",
            )
        parameters = (("Identity", policy.name), ("Refresh", "True"), ("Version", version.id))
        record(
            services,
            tx,
            call,
            policy.id,
            (*parameters, *((f"{copy.role.title()}KeyUri", copy.key_uri) for copy in copies if copy.role in CUSTOMER_ROLES)),
        )
        refreshed = replace(policy, version_id=version.id, version=version.number)
        return _view(tx, refreshed, report.warnings, count=False)  # counting takes longer the more mailboxes there are; a refresh must not


def list_policies(services: Services, call: Call, request: t.ListPolicies) -> list[PolicySummary]:
    """All policies of the tenant, by name (R-084)."""
    with services.db.read() as tx:
        return [_summary(policy, tx.policies.state(policy.id)) for policy in tx.policies.all(call.tenant_id)]


def show_policy(services: Services, call: Call, request: t.NamePolicy) -> PolicyView:
    """One policy by name, id, or the id of any of its versions (R-085, R-262)."""
    with services.db.read() as tx:
        return _view(tx, _find(tx, call, request.policy))


def set_policy(services: Services, call: Call, request: t.SetPolicy) -> PolicyView:
    """Rename or describe a policy."""
    _require_manager(services, call)
    with services.db.write() as tx:
        policy = _find(tx, call, request.policy)
        changed = replace(
            policy,
            name=policy.name if request.name is None else policy_name(request.name),
            description=policy.description if request.description is None else request.description,
        )
        return _update(services, tx, call, changed, (("Name", changed.name), ("Description", changed.description)))


def enable_policy(services: Services, call: Call, request: t.NamePolicy) -> PolicyView:
    """Let a policy be assigned again."""
    return _switch(services, call, request.policy, enabled=True)


def disable_policy(services: Services, call: Call, request: t.NamePolicy) -> PolicyView:
    """Refuse further assignments of a policy (R-094). Mailboxes under it go on as they are: taking the keys away is what stops them."""
    return _switch(services, call, request.policy, enabled=False)


def policy_health(services: Services, call: Call, request: t.NamePolicy) -> PolicyHealth:
    """Ask both keys now (R-147, R-256)."""
    with services.db.read() as tx:
        policy = _find(tx, call, request.policy)
    state, keys = services.keyring.probe_now(policy)
    return PolicyHealth(
        id=policy.id,
        name=policy.name,
        state=state.value,
        keys=health_views(keys),
        checked=utc(services.clock.now()),
    )


def roll_availability_key(services: Services, call: Call, policy: Policy) -> str:
    """Replace a policy's availability key, which nobody sees; the copies stay consistent at every step (R-138, R-152).

    New key, new copy, one commit; the old key is destroyed afterwards. A crash before the commit leaves the new key unreferenced, one after
    it the old: `collect-orphans` destroys either. The policy's version id does not change.
    """
    with services.db.read() as tx:
        copies = copies_of(tx, policy)
    key = services.keyring.recover_policy_key(policy, copies)
    key_id = new_id(services.random)
    services.keystore.create(Compartment.AVAILABILITY_MAIL, key_id)
    services.checkpoint("roll: new availability key made")
    copy = services.keyring.wrap_stored(policy, policy.version_id, CopyRole.AVAILABILITY, key_id, key)
    with services.db.write() as tx:
        if not tx.policies.replace_copy(copy, expected_uri=copies[CopyRole.AVAILABILITY].key_uri):
            raise Conflict("policy_changed", f"the policy {policy.name} was changed by somebody else at the same time", "try again")
        tx.policies.set_availability_key(policy.id, key_id)
        record(
            services, tx, replace(call, tenant_id=policy.tenant_id), policy.id, (("Identity", policy.name), ("AvailabilityKeyId", key_id))
        )
    services.checkpoint("roll: copy replaced")
    services.keystore.destroy(Compartment.AVAILABILITY_MAIL, [policy.availability_key_id])
    return key_id


def find_policy(tx: Tx, call: Call, reference: str) -> Policy:
    """A customer policy of the tenant, by name, id or version id.

    Raises:
        NotFound: none.
    """
    return _find(tx, call, reference)


def key_uses(services: Services, call: Call, request: t.NameKey) -> KeyUses:
    """Which copies this key version, or any version of this key, wraps: what to say before it is deleted or disabled (R-158)."""
    with services.db.read() as tx:
        return KeyUses(
            uses=[f"the {role} copy of the policy {policy.name}" for policy, role in tx.policies.wrapped_by(call.tenant_id, request.key)]
        )


# -- checks -------------------------------------------------------------------------------------------------------------------------


def _check(services: Services, call: Call, name: str, keys: Sequence[str]) -> _Report:
    failed: list[FailedCheck] = []
    policy_name(name)
    with services.db.read() as tx:
        count = tx.policies.count(call.tenant_id, Workload.MAIL)
        taken = any(policy.name == name for policy in tx.policies.all(call.tenant_id))
    if count >= MAX_PER_TENANT:
        failed.append(_limit_check())
    if taken:
        failed.append(FailedCheck("policy-name", f"there is a policy named {name} already", "choose another name"))
    bases = tuple(_base(uri) for uri in keys)
    report = check_new(services, call.tenant_id, Workload.MAIL, bases)
    return _Report((*failed, *report.failed), report.warnings, bases)


def _limit_check() -> FailedCheck:
    return FailedCheck("policy-limit", f"the tenant has {MAX_PER_TENANT} mailbox policies, as many as it may have", "use one of them")


# -- helpers ------------------------------------------------------------------------------------------------------------------------


def _require_manager(services: Services, call: Call) -> None:
    """R-008: Exchange administrators manage policies unless the setting says global administrators alone do."""
    roles = call.principal.roles
    if Role.EXCHANGE_ADMIN in roles and Role.GLOBAL_ADMIN not in roles and not services.settings.exchange_admin_manages_policies:
        raise Forbidden("role_missing", f"{call.principal.upn} may not manage policies here", "a global administrator may")


def _base(uri: str) -> str:
    return split_key_uri(uri).base


def _find(tx: Tx, call: Call, reference: str) -> Policy:
    policy = tx.policies.find(call.tenant_id, reference)
    if policy is None:
        raise NotFound("policy_not_found", f"the tenant has no policy {reference}", "keystead policy list shows its policies")
    return policy


def _switch(services: Services, call: Call, reference: str, *, enabled: bool) -> PolicyView:
    _require_manager(services, call)
    with services.db.write() as tx:
        policy = replace(_find(tx, call, reference), enabled=enabled)
        return _update(services, tx, call, policy, (("Enabled", str(enabled)),))


def _update(services: Services, tx: Tx, call: Call, policy: Policy, parameters: tuple[tuple[str, str], ...]) -> PolicyView:
    tx.policies.update(policy.id, name=policy.name, description=policy.description, enabled=policy.enabled)
    record(services, tx, call, policy.id, (("Identity", policy.name), *parameters))
    return _view(tx, policy)


def _health(state: PolicyState) -> str | None:
    """Health by the latest pair on record; None before the first."""
    return health([OutcomeClass(state.primary), OutcomeClass(state.secondary)]).value if state.primary and state.secondary else None


def _view(tx: Tx, policy: Policy, warnings: Sequence[FailedCheck] = (), *, count: bool = True) -> PolicyView:
    state = tx.policies.state(policy.id)
    return PolicyView(
        id=policy.id,
        name=policy.name,
        description=policy.description,
        workload=policy.workload.value,
        enabled=policy.enabled,
        state=policy.state,
        created=utc(policy.created),
        version=policy.version,
        version_id=policy.version_id,
        keys=[
            CopyView(role=copy.role.value, key_uri=copy.key_uri, algorithm=copy.algorithm)
            for copy in sorted(tx.policies.copies(policy.version_id), key=lambda copy: list(CopyRole).index(copy.role))
        ],
        mailboxes=tx.policies.mailboxes(policy.id) if count else None,
        health=_health(state),
        health_checked=utc_or_none(state.probed_at or None),
        warnings=check_views(warnings),
    )


def _summary(policy: Policy, state: PolicyState) -> PolicySummary:
    return PolicySummary(
        id=policy.id,
        name=policy.name,
        description=policy.description,
        workload=policy.workload.value,
        enabled=policy.enabled,
        state=policy.state,
        created=utc(policy.created),
        version=policy.version,
        version_id=policy.version_id,
        health=_health(state),
    )
