"""Tenants, their people, onboarding and tokens (R-001 to R-003, design section 6)."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import replace
from typing import TYPE_CHECKING

from keystead.api.types.base import utc
from keystead.api.types.tenants import Done, OnboardingView, TenantView, TokenView, UserView
from keystead.core.access.principal import NOBODY, Principal, Role
from keystead.core.errors import ChecksFailed, Conflict, FailedCheck, InvalidRequest, NotFound, PreconditionFailed, Unauthenticated
from keystead.core.ids import display_name, domain_name, geo_code, new_id, user_principal_name
from keystead.core.policies.checks import REFUSED_SUBSCRIPTIONS
from keystead.core.policies.policy import CopyRole, Policy, PolicyVersion, Workload
from keystead.core.tenancy import Officer, Onboarding, Person, Tenant
from keystead.ports.keystore import Compartment
from keystead.ports.tx import Token
from keystead.ports.vaults import SubscriptionFacts, VaultFailure
from keystead.services.auditing import record
from keystead.services.keyring import raise_for

if TYPE_CHECKING:
    from keystead.api.call import Call
    from keystead.api.types import tenants as t
    from keystead.api.types.base import Empty
    from keystead.ports.tx import Tx
    from keystead.services.context import Services

TOKEN_PREFIX = "ks_"  # noqa: S105 - a prefix that secret scanners can look for, not a secret


def create_tenant(services: Services, call: Call, request: t.CreateTenant) -> TenantView:
    """Make a tenant with the provider's default policy, under which everything lies until the customer brings keys (R-251, R-252).

    The key store is written first: a crash before the commit leaves keys that no policy names, which `collect-orphans` destroys.
    """
    geos = tuple(dict.fromkeys(geo_code(geo) for geo in request.geo))
    if not geos:
        raise InvalidRequest("geo_missing", "a tenant needs at least one geo", "add --geo EUR")
    now = services.clock.now()
    tenant = Tenant(new_id(services.random), display_name(request.name, "tenant"), domain_name(request.domain), geos, now)
    with services.db.read() as tx:
        if tx.tenants.find(tenant.name) or tx.tenants.find(tenant.domain):
            raise Conflict(
                "tenant_exists", f"there is a tenant named {tenant.name} or with the domain {tenant.domain} already", "choose another"
            )
    key = services.keyring.fresh_policy_key()
    policy = Policy(
        id=new_id(services.random),
        tenant_id=tenant.id,
        workload=Workload.PROVIDER,
        name="provider",
        description="The provider's default policy",
        enabled=True,
        created=now,
        version_id=new_id(services.random),
        version=1,
        check_value=services.keyring.check_value(key),
        shred_key_id=new_id(services.random),
        availability_key_id="",
    )
    services.keystore.create(Compartment.SHRED, policy.shred_key_id)
    services.checkpoint("tenant: shred key made")
    services.keystore.create(Compartment.PROVIDER, policy.id)
    services.checkpoint("tenant: provider key made")
    copy = services.keyring.wrap_stored(policy, policy.version_id, CopyRole.PROVIDER, policy.id, key)
    claim = None if call.principal.dev else _new_token(services)
    with services.db.write() as tx:
        tx.tenants.insert(tenant)
        tx.policies.insert(policy, PolicyVersion(policy.version_id, policy.id, 1, now, "created"), [copy])
        if claim is not None:
            tx.tenants.insert_token(Token(_digest(claim), "", tenant.id, claim=True, expires=now + services.settings.claim_token_lifetime))
        _record_for(services, tx, call, tenant.id, tenant.id, (("Name", tenant.name), ("Domain", tenant.domain), ("Geo", ",".join(geos))))
    return _tenant_view(tenant, [], claim)


def list_tenants(services: Services, call: Call, request: Empty) -> list[TenantView]:
    """Every tenant: for the provider."""
    with services.db.read() as tx:
        return [_tenant_view(tenant, _onboarded(tx, tenant)) for tenant in tx.tenants.all()]


def show_tenant(services: Services, call: Call, request: t.ShowTenant) -> TenantView:
    """The tenant the call is about."""
    with services.db.read() as tx:
        tenant = tx.tenants.find(call.tenant_id)
        if tenant is None:
            raise NotFound("tenant_not_found", f"there is no tenant {call.tenant_id}", "keystead tenant list shows them")
        return _tenant_view(tenant, _onboarded(tx, tenant))


def onboard(services: Services, call: Call, request: t.OnboardTenant) -> OnboardingView:
    """Record that a tenant may make policies of a workload, with which subscriptions, and who may sign (R-001 to R-003)."""
    failed: list[FailedCheck] = []
    found: dict[str, SubscriptionFacts] = {}
    for name in request.subscriptions:
        try:
            facts = services.vaults.subscription_facts(call.tenant_id, name)
        except VaultFailure as failure:
            if failure.outcome.reason != "subscription-not-found":
                raise_for(failure.outcome, f"the subscription {name}")
            failed.append(
                FailedCheck("subscription-exists", f"the tenant has no subscription {name}", f"keystead subscription create {name}", name)
            )
            continue
        found[facts.id] = facts
        if facts.tenant_id != call.tenant_id:
            failed.append(
                FailedCheck(
                    "own-directory", f"the subscription {name} belongs to another directory", "use a subscription of the tenant", name
                )
            )
        if facts.kind in REFUSED_SUBSCRIPTIONS:
            failed.append(
                FailedCheck(
                    "subscription-kind",
                    f"the subscription {name} is {facts.kind}; keys in it can vanish with it",
                    "use a paid subscription: keystead subscription create NAME --kind paid",
                    name,
                )
            )
    if len(found) + len([check for check in failed if check.check == "subscription-exists"]) != 2:
        failed.append(
            FailedCheck(
                "two-subscriptions",
                "exactly two different subscriptions are needed, one for each key vault",
                "name two with --subscription",
            )
        )
    if failed:
        raise ChecksFailed("onboarding_refused", f"onboarding for {request.workload} failed {len(failed)} checks", tuple(failed))
    officers = tuple(Officer(display_name(officer.name, "officer"), officer.certificate) for officer in request.officers)
    warnings = [] if officers else [f"no officer was named; {call.principal.upn} is recorded as the one who may sign for destruction"]
    onboarding = Onboarding(
        tenant_id=call.tenant_id,
        workload=request.workload,
        subscription_ids=tuple(found),
        officers=officers or (Officer(call.principal.upn, ""),),
        completed=services.clock.now(),
    )
    names = [officer.name for officer in onboarding.officers]
    with services.db.write() as tx:
        tx.tenants.upsert_onboarding(onboarding)
        record(
            services,
            tx,
            call,
            call.tenant_id,
            (("Scenario", request.workload), ("Subscriptions", ",".join(onboarding.subscription_ids)), ("Officers", ",".join(names))),
        )
    return OnboardingView(
        tenant_id=call.tenant_id,
        workload=request.workload,
        subscription_ids=list(onboarding.subscription_ids),
        officers=names,
        completed=utc(onboarding.completed),
        warnings=warnings,
    )


def add_user(services: Services, call: Call, request: t.AddUser) -> UserView:
    """Add a person to the tenant, or give a person of the tenant other roles. Outside dev homes the person redeems the claim token."""
    upn = user_principal_name(request.upn)
    roles = frozenset(Role(role) for role in request.roles) or frozenset({Role.USER})
    now = services.clock.now()
    with services.db.write() as tx:
        _require_own_domain(tx, call.tenant_id, upn)
        person = tx.tenants.person(upn)
        claim = None
        if person is not None and person.tenant_id == call.tenant_id:
            if Role.GLOBAL_ADMIN not in roles:
                _require_another_admin(tx, call.tenant_id, upn)
            tx.tenants.set_roles(call.tenant_id, upn, roles)
        else:
            person = Person(new_id(services.random), call.tenant_id, upn, roles, now)
            tx.tenants.insert_person(person)
            claim = _issue_claim(services, tx, call, upn)
        record(services, tx, call, upn, (("Upn", upn), ("Roles", ",".join(sorted(roles)))))
    return UserView(id=person.id, upn=upn, roles=sorted(roles), created=utc(person.created), claim_token=claim)


def list_users(services: Services, call: Call, request: t.ListUsers) -> list[UserView]:
    """The tenant's people."""
    with services.db.read() as tx:
        people = tx.tenants.people(call.tenant_id)
    return [UserView(id=person.id, upn=person.upn, roles=sorted(person.roles), created=utc(person.created)) for person in people]


def remove_user(services: Services, call: Call, request: t.RemoveUser) -> Done:
    """Remove a person; their tokens stop working and their access to other people's mailboxes ends at once."""
    upn = user_principal_name(request.upn)
    with services.db.write() as tx:
        _require_another_admin(tx, call.tenant_id, upn)
        if not tx.tenants.remove_person(call.tenant_id, upn):
            raise NotFound("user_not_found", f"the tenant has no person {upn}", "keystead user list shows them")
        record(services, tx, call, upn, (("Upn", upn),))
    return Done(id=upn)


def claim(services: Services, call: Call, request: t.ClaimToken) -> TokenView:
    """Redeem a claim token: once, by whoever holds it, for a token to call with.

    The token of a new tenant has no name on it yet: its holder becomes the tenant's first global administrator.
    """
    digest, upn, now = _digest(request.claim_token), user_principal_name(request.upn), services.clock.now()
    with services.db.write() as tx:
        held = tx.tenants.token(digest)
        if held is None or not held.claim or held.expires <= now or held.tenant_id is None or held.upn not in {"", upn}:
            raise Unauthenticated(
                "claim_token_invalid",
                "the claim token is not good: unknown, used, expired, or for somebody else",
                "ask who gave it for a new one",
            )
        _require_own_domain(tx, held.tenant_id, upn)
        person = tx.tenants.person(upn)
        if person is not None and person.tenant_id != held.tenant_id:  # one of the provider's people, who has the tenant's domain
            raise Conflict("user_exists", f"there is a person {upn} already", "choose another name in the tenant's domain")
        if not held.upn and person is None:
            tx.tenants.insert_person(Person(new_id(services.random), held.tenant_id, upn, frozenset({Role.GLOBAL_ADMIN}), now))
        elif not held.upn:
            tx.tenants.set_roles(held.tenant_id, upn, frozenset({Role.GLOBAL_ADMIN}))
        tx.tenants.remove_token(digest)
        token = issue_token(services, tx, upn, held.tenant_id)
        _record_for(services, tx, call, held.tenant_id, upn, (("Upn", upn),))
    return TokenView(upn=upn, token=token, expires=utc(now + services.settings.token_lifetime))


def issue_token(services: Services, tx: Tx, upn: str, tenant_id: str | None) -> str:
    """A token for calls; only its hash is stored."""
    token = _new_token(services)
    tx.tenants.insert_token(
        Token(_digest(token), upn, tenant_id, claim=False, expires=services.clock.now() + services.settings.token_lifetime)
    )
    return token


def authenticate(services: Services, token: str) -> Principal:
    """Who a token is; NOBODY for a token that is not good. Tokens are 256 random bits, so looking up their hash tells nothing by its time."""
    with services.db.read() as tx:
        held = tx.tenants.token(_digest(token))
        if held is None or held.claim or held.expires <= services.clock.now():
            return NOBODY
        person = tx.tenants.person(held.upn)
    return NOBODY if person is None else Principal(person.upn, person.tenant_id, person.roles, dev=services.dev is not None)


def impersonate(services: Services, upn: str) -> Principal:
    """The principal of `--as UPN`; wiring offers this in dev homes alone.

    Raises:
        NotFound: nobody of that name.
    """
    name = user_principal_name(upn)
    with services.db.read() as tx:
        person = tx.tenants.person(name)
    if person is None:
        raise NotFound("user_not_found", f"there is no person {name}", f"keystead user add {name} --role global-admin makes one")
    return Principal(person.upn, person.tenant_id, person.roles, dev=True)


def make_operator(services: Services, upn: str) -> tuple[Person, str]:
    """The provider's first person, when a home is made: with a token."""
    person = Person(new_id(services.random), None, user_principal_name(upn), frozenset({Role.OPERATOR}), services.clock.now())
    with services.db.write() as tx:
        tx.tenants.insert_person(person)
        token = issue_token(services, tx, person.upn, None)
    return person, token


def ensure_person(services: Services, tx: Tx, call: Call, upn: str) -> str | None:
    """The person a new mailbox belongs to, made where there is none; returns a claim token for a new one."""
    _require_own_domain(tx, call.tenant_id, upn)  # first: whether another tenant has such a person is not told
    person = tx.tenants.person(upn)
    if person is not None and person.tenant_id == call.tenant_id:
        return None
    tx.tenants.insert_person(Person(new_id(services.random), call.tenant_id, upn, frozenset({Role.USER}), services.clock.now()))
    return _issue_claim(services, tx, call, upn)


def _issue_claim(services: Services, tx: Tx, call: Call, upn: str) -> str | None:
    if services.dev is not None:
        return None
    token = _new_token(services)
    tx.tenants.insert_token(
        Token(_digest(token), upn, call.tenant_id, claim=True, expires=services.clock.now() + services.settings.claim_token_lifetime)
    )
    return token


def _require_another_admin(tx: Tx, tenant_id: str, upn: str) -> None:
    """A tenant without a global administrator could never get one again: nobody but its administrators changes its people.

    Raises:
        PreconditionFailed: the person is the last one.
    """
    admins = {person.upn for person in tx.tenants.people(tenant_id) if Role.GLOBAL_ADMIN in person.roles}
    if admins == {upn}:
        raise PreconditionFailed(
            "last_global_admin",
            f"{upn} is the tenant's last global administrator",
            "make another one first: keystead user add UPN --role global-admin",
        )


def _require_own_domain(tx: Tx, tenant_id: str, upn: str) -> None:
    tenant = tx.tenants.find(tenant_id)
    if tenant is None or upn.partition("@")[2] != tenant.domain:
        domain = tenant.domain if tenant else ""
        raise InvalidRequest("upn_of_another_domain", f"{upn} is not in the tenant's domain {domain}", f"use a name such as alex@{domain}")


def _record_for(services: Services, tx: Tx, call: Call, tenant_id: str, object_id: str, parameters: tuple[tuple[str, str], ...]) -> None:
    """A record in the log of a tenant the call itself is not about."""
    record(services, tx, replace(call, tenant_id=tenant_id), object_id, parameters)


def _tenant_view(tenant: Tenant, onboarded: list[str], claim: str | None = None) -> TenantView:
    return TenantView(
        id=tenant.id,
        name=tenant.name,
        domain=tenant.domain,
        geos=list(tenant.geos),
        created=utc(tenant.created),
        claim_token=claim,
        onboarded=onboarded,
    )


def _onboarded(tx: Tx, tenant: Tenant) -> list[str]:
    return [workload for workload in ("mail",) if tx.tenants.onboarding(tenant.id, workload)]


def _new_token(services: Services) -> str:
    return TOKEN_PREFIX + base64.urlsafe_b64encode(services.random(32)).decode().rstrip("=")


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()
