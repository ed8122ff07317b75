"""Tenants, people, onboarding."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from sqlalchemy import bindparam, delete, insert, or_, select, update

from keystead.adapters.sql.keystead_schema import mailbox_delegates, onboardings, people, site_members, sites, tenants, tokens
from keystead.adapters.sql.rows import Lookup, conflict
from keystead.core.access.principal import Role
from keystead.core.tenancy import Officer, Onboarding, Person, Tenant

if TYPE_CHECKING:
    from sqlalchemy import Connection, Row


_PERSON = Lookup(select(people).where(people.c.upn == bindparam("upn")))


def _tenant(row: Row[tuple[object, ...]]) -> Tenant:
    return Tenant(id=row.id, name=row.name, domain=row.domain, geos=tuple(row.geos.split(",")), created=row.created)


def _person(row: Row[tuple[object, ...]]) -> Person:
    return Person(id=row.id, tenant_id=row.tenant_id, upn=row.upn, roles=roles_of(row.roles), created=row.created)


def roles_of(text: str) -> frozenset[Role]:
    """The roles of a person's row."""
    return frozenset(Role(name) for name in text.split(",") if name)


def _roles_text(roles: frozenset[Role]) -> str:
    return ",".join(sorted(roles))


class SqlTenantRows:
    """Implements ports.tx.TenantRows."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def insert(self, tenant: Tenant) -> None:
        with conflict(
            "tenant_exists",
            f"there is a tenant named {tenant.name} or with the domain {tenant.domain} already",
            "choose another name and domain",
        ):
            self._connection.execute(
                insert(tenants).values(
                    id=tenant.id,
                    name=tenant.name,
                    domain=tenant.domain,
                    geos=",".join(tenant.geos),
                    created=tenant.created,
                )
            )

    def find(self, reference: str) -> Tenant | None:
        lowered = reference.lower()
        row = self._connection.execute(
            select(tenants).where(or_(tenants.c.id == lowered, tenants.c.name == reference, tenants.c.domain == lowered)).limit(1)
        ).first()
        return _tenant(row) if row else None

    def all(self) -> list[Tenant]:
        return [_tenant(row) for row in self._connection.execute(select(tenants).order_by(tenants.c.name))]

    def insert_person(self, person: Person) -> None:
        with conflict("user_exists", f"there is a person {person.upn} already", "keystead user list shows the tenant's people"):
            self._connection.execute(
                insert(people).values(
                    id=person.id,
                    tenant_id=person.tenant_id,
                    upn=person.upn,
                    roles=_roles_text(person.roles),
                    created=person.created,
                )
            )

    def person(self, upn: str) -> Person | None:
        row = _PERSON.first(self._connection, upn=upn)
        return _person(row) if row else None

    def people(self, tenant_id: str) -> list[Person]:
        return [
            _person(row) for row in self._connection.execute(select(people).where(people.c.tenant_id == tenant_id).order_by(people.c.upn))
        ]

    def remove_person(self, tenant_id: str, upn: str) -> bool:
        removed = self._connection.execute(delete(people).where(people.c.tenant_id == tenant_id, people.c.upn == upn)).rowcount
        if removed:
            self._connection.execute(delete(tokens).where(tokens.c.tenant_id == tenant_id, tokens.c.upn == upn))
            # Whoever is given the same name one day is somebody else.
            self._connection.execute(delete(mailbox_delegates).where(mailbox_delegates.c.upn == upn))
            self._connection.execute(delete(site_members).where(site_members.c.upn == upn))
            self._connection.execute(update(sites).where(sites.c.tenant_id == tenant_id, sites.c.owner == upn).values(owner=""))
        return bool(removed)

    def set_roles(self, tenant_id: str, upn: str, roles: frozenset[Role]) -> None:
        self._connection.execute(
            update(people).where(people.c.tenant_id == tenant_id, people.c.upn == upn).values(roles=_roles_text(roles))
        )

    def upsert_onboarding(self, onboarding: Onboarding) -> None:
        self._connection.execute(
            delete(onboardings).where(onboardings.c.tenant_id == onboarding.tenant_id, onboardings.c.workload == onboarding.workload)
        )
        self._connection.execute(
            insert(onboardings).values(
                tenant_id=onboarding.tenant_id,
                workload=onboarding.workload,
                subscription_ids=json.dumps(onboarding.subscription_ids),
                officers=json.dumps([[officer.name, officer.certificate] for officer in onboarding.officers]),
                completed=onboarding.completed,
            )
        )

    def onboarding(self, tenant_id: str, workload: str) -> Onboarding | None:
        row = self._connection.execute(
            select(onboardings).where(onboardings.c.tenant_id == tenant_id, onboardings.c.workload == workload)
        ).first()
        if row is None:
            return None
        return Onboarding(
            tenant_id=row.tenant_id,
            workload=row.workload,
            subscription_ids=tuple(json.loads(row.subscription_ids)),
            officers=tuple(Officer(name, certificate) for name, certificate in json.loads(row.officers)),
            completed=row.completed,
        )
