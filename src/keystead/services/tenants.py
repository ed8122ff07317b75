"""Tenants, their people, onboarding and tokens (R-001 to R-003, design section 6)."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from keystead.api.types.base import utc
from keystead.api.types.tenants import Done, OnboardingView, TenantView, TokenView, UserView
from keystead.core.access.principal import Principal, Role
from keystead.core.access.tokens import TokenKind
from keystead.core.errors import (
    ChecksFailed,
    Conflict,
    FailedCheck,
    Forbidden,
    InvalidRequest,
    NotFound,
    PreconditionFailed,
    Unauthenticated,
)
from keystead.core.ids import display_name, domain_name, geo_code, new_id, user_principal_name
from keystead.core.policies.checks import REFUSED_SUBSCRIPTIONS
from keystead.core.policies.policy import CopyRole, Policy, PolicyVersion, Workload
from keystead.core.tenancy import Officer, Onboarding, Person, Tenant
from keystead.ports.keystore import Compartment
from keystead.ports.vaults import SubscriptionFacts, VaultFailure
from keystead.services.auditing import record
from keystead.services.keyring import raise_for
from keystead.services.sign_in import attempted, digest_of
from keystead.services.tokens import issue

if TYPE_CHECKING:
    from keystead.api.call import Call
    from keystead.api.types import tenants as t
    from keystead.api.types.base import Empty
    from keystead.ports.tx import Tx
    from keystead.services.context import Services


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
    with services.db.write() as tx:
        tx.tenants.insert(tenant)
        tx.policies.insert(policy, PolicyVersion(policy.version_id, policy.id, 1, now, "created"), [copy])
        claim = _issue_claim(services, tx, call, "", tenant.id)
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
        if facts.tenant_id not in {"", call.tenant_id}:
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
            _refuse_program(call, f"change the roles of {upn}")
            if Role.GLOBAL_ADMIN not in roles:
                _require_another_admin(tx, call.tenant_id, upn)
            tx.tenants.set_roles(call.tenant_id, upn, roles)
        else:
            if roles != {Role.USER}:
                _refuse_program(call, "give other roles than user")
            person = Person(new_id(services.random), call.tenant_id, upn, roles, now)
            tx.tenants.insert_person(person)
            claim = _issue_claim(services, tx, call, upn, call.tenant_id)
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
    upn, now = user_principal_name(request.upn), services.clock.now()
    with attempted(services, call.client_ip, request.claim_token), services.db.write() as tx:
        found = tx.sign_in.by_digest(digest_of(request.claim_token))
        held = found[0] if found else None
        if held is None or held.kind is not TokenKind.CLAIM or held.expires <= now or held.tenant_id is None or held.upn not in {"", upn}:
            raise Unauthenticated(
                "claim_token_invalid",
                "the claim token is not good: unknown, used, expired, or for somebody else",
                "ask who gave it for a new one: keystead user reissue-claim, keystead tenant reissue-claim",
            )
        _require_own_domain(tx, held.tenant_id, upn)
        person = tx.tenants.person(upn)
        if person is not None and person.tenant_id != held.tenant_id:  # one of the provider's people, who has the tenant's domain
            raise Conflict("user_exists", f"there is a person {upn} already", "choose another name in the tenant's domain")
        if not held.upn and person is None:
            tx.tenants.insert_person(Person(new_id(services.random), held.tenant_id, upn, frozenset({Role.GLOBAL_ADMIN}), now))
        elif not held.upn:
            tx.tenants.set_roles(held.tenant_id, upn, frozenset({Role.GLOBAL_ADMIN}))
        tx.sign_in.remove(held.id)
        issued = issue(services, tx, TokenKind.SIGN_IN, upn, held.tenant_id)
        _record_for(services, tx, call, held.tenant_id, upn, (("Upn", upn), ("Token", issued.token.id)))
    return issued.view()


def reissue_claim(services: Services, call: Call, request: t.ReissueClaim) -> UserView:
    """A fresh claim token for a person of the tenant who has no token that is still good; the one given before is void.

    Whoever can sign in is refused: an administrator who could make a token in the name of somebody who is there could read their mail.
    """
    upn = user_principal_name(request.upn)
    with services.db.write() as tx:
        person = tx.tenants.person(upn)
        if person is None or person.tenant_id != call.tenant_id:
            raise NotFound("user_not_found", f"the tenant has no person {upn}", "keystead user list shows them")
        good = [
            one
            for one in tx.sign_in.page(call.tenant_id, upn=upn)
            if one.kind is not TokenKind.CLAIM and one.expires > services.clock.now()
        ]
        if good:
            raise PreconditionFailed(
                "user_has_claimed",
                f"{upn} has a token that is still good",
                "keystead token renew makes the person a fresh one; keystead token revoke ends one that was lost",
            )
        claim = _issue_claim(services, tx, call, upn, call.tenant_id)
        record(services, tx, call, upn, (("Upn", upn),))
    return UserView(id=person.id, upn=upn, roles=sorted(person.roles), created=utc(person.created), claim_token=claim)


def reissue_tenant_claim(services: Services, call: Call, request: t.ReissueTenantClaim) -> TenantView:
    """A fresh claim token for a tenant's first administrator, as long as nobody has come in; the one given before is void."""
    with services.db.write() as tx:
        tenant = tx.tenants.find(request.tenant)
        if tenant is None:
            raise NotFound("tenant_not_found", f"there is no tenant {request.tenant}", "keystead tenant list shows them")
        if tx.tenants.people(tenant.id):
            raise PreconditionFailed(
                "tenant_claimed",
                f"the tenant {tenant.name} has people, who alone bring in others",
                "an administrator of the tenant runs keystead user add or keystead user reissue-claim",
            )
        claim = _issue_claim(services, tx, call, "", tenant.id)
        _record_for(services, tx, call, tenant.id, tenant.id, (("Name", tenant.name),))
        return _tenant_view(tenant, _onboarded(tx, tenant), claim)


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
        return person, issue(services, tx, TokenKind.SIGN_IN, person.upn, None).secret


def ensure_person(services: Services, tx: Tx, call: Call, upn: str) -> str | None:
    """The person a new mailbox belongs to, made where there is none; returns a claim token for a new one."""
    _require_own_domain(tx, call.tenant_id, upn)  # first: whether another tenant has such a person is not told
    person = tx.tenants.person(upn)
    if person is not None and person.tenant_id == call.tenant_id:
        return None
    tx.tenants.insert_person(Person(new_id(services.random), call.tenant_id, upn, frozenset({Role.USER}), services.clock.now()))
    return _issue_claim(services, tx, call, upn, call.tenant_id)


def _issue_claim(services: Services, tx: Tx, call: Call, upn: str, tenant_id: str) -> str | None:
    """A claim token in place of those given to that name before; none in dev homes, where everybody may be anybody.

    A program gets none either: a claim token can do more than the program's own. A person makes it, with `reissue-claim`.
    """
    if services.dev is not None or call.principal.scopes is not None:
        return None
    tx.sign_in.remove_claims(tenant_id, upn)
    return issue(services, tx, TokenKind.CLAIM, upn, tenant_id).secret


def _refuse_program(call: Call, what: str) -> None:
    """A program that could give roles could give its own maker more, and so itself.

    Raises:
        Forbidden: the caller came with a token that has scopes.
    """
    if call.principal.scopes is not None:
        raise Forbidden("program_cannot_give_roles", f"a program cannot {what}", "a global administrator does it, signed in as a person")


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
    return [workload for workload in ("mail", "files") if tx.tenants.onboarding(tenant.id, workload)]
