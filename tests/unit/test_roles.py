"""Who may call what: the one table, and its door (R-008, R-009, design section 8)."""

from __future__ import annotations

import pytest

from keystead.api.routes import BY_NAME
from keystead.core.access.principal import NOBODY, PROVIDER_ROLES, TENANT_ROLES, Principal, Role
from keystead.core.access.roles import ALLOWED, ANYBODY, CONTENT, allow
from keystead.core.errors import Forbidden, Unauthenticated

TENANT, OTHER = "11111111-1111-4111-8111-111111111111", "22222222-2222-4222-8222-222222222222"
OPEN = {"user.claim", "token.exchange", "token.renew", "signing-key.publish"}
MANAGERS = {Role.GLOBAL_ADMIN, Role.EXCHANGE_ADMIN}
WATCHERS = MANAGERS | {Role.COMPLIANCE_ADMIN, Role.KEY_VAULT_ADMINISTRATOR, Role.AUDIT_READER}


def person(*roles: Role, tenant: str | None = TENANT, dev: bool = False) -> Principal:
    return Principal("alex@contoso.example", tenant, frozenset(roles), dev=dev)


def may(principal: Principal, route: str, tenant: str = TENANT) -> bool:
    try:
        allow(principal, route, tenant)
    except (Forbidden, Unauthenticated):
        return False
    return True


def test_every_route_has_its_row_and_every_row_its_route() -> None:
    assert set(ALLOWED) == set(BY_NAME)


def test_a_route_without_a_row_can_be_called_by_nobody() -> None:
    for role in Role:
        with pytest.raises(Forbidden):
            allow(person(role, tenant=None if role in PROVIDER_ROLES else TENANT), "policy.destroy", TENANT)


POLICY_ROUTES = {
    **dict.fromkeys(("policy.validate", "policy.create", "policy.refresh", "policy.set", "policy.enable", "policy.disable"), MANAGERS),
    **dict.fromkeys(("policy.list", "policy.show", "policy.health", "policy.key-uses"), WATCHERS),
    "tenant.onboard": {Role.GLOBAL_ADMIN},
    "mailbox.assign": MANAGERS,
    "mailbox.unassign": MANAGERS,
    "user.add": {Role.GLOBAL_ADMIN},
    "audit.search": {Role.GLOBAL_ADMIN, Role.COMPLIANCE_ADMIN, Role.AUDIT_READER},
}


@pytest.mark.parametrize(("route", "roles"), POLICY_ROUTES.items(), ids=POLICY_ROUTES)
def test_which_role_of_the_tenant_may(route: str, roles: set[Role]) -> None:
    """R-008."""
    assert {role for role in TENANT_ROLES if may(person(role), route)} == roles


def test_the_policy_routes_of_the_table_are_all_tested_here() -> None:
    """R-008."""
    assert {route for route in ALLOWED if route.startswith("policy.")} <= set(POLICY_ROUTES)


@pytest.mark.parametrize("route", sorted(set(ALLOWED) - OPEN))
def test_nobody_and_strangers_are_refused_everywhere(route: str) -> None:
    with pytest.raises(Unauthenticated):
        allow(NOBODY, route, TENANT)
    for role in TENANT_ROLES:
        with pytest.raises(Forbidden):
            allow(person(role, tenant=OTHER), route, TENANT)


@pytest.mark.parametrize("route", sorted(CONTENT))
@pytest.mark.parametrize("dev", [False, True])
def test_the_providers_people_never_see_content_not_even_in_dev_homes(route: str, *, dev: bool) -> None:
    """R-193."""
    for role in PROVIDER_ROLES:
        with pytest.raises(Forbidden):
            allow(person(role, tenant=None, dev=dev), route, TENANT)


def test_the_operator_configures_tenants_in_dev_homes_alone() -> None:
    assert may(person(Role.OPERATOR, tenant=None, dev=True), "policy.create")
    assert not may(person(Role.OPERATOR, tenant=None, dev=False), "policy.create")
    assert not may(person(Role.SUPPORT_ENGINEER, tenant=None, dev=True), "policy.create")


def test_customers_cannot_roll_the_availability_key_and_the_operator_can() -> None:
    """R-138, R-152."""
    for route in ("keystore.roll", "keystore.rotate"):
        assert [role for role in TENANT_ROLES if may(person(role), route)] == []
        assert may(person(Role.OPERATOR, tenant=None), route)


def test_only_what_must_be_open_is_open() -> None:
    assert {route for route, roles in ALLOWED.items() if roles is ANYBODY} == OPEN
    for route in OPEN:
        assert may(NOBODY, route)
