"""Tenants, their people, and what was recorded at onboarding."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from keystead.core.access.principal import Role

APPLICATIONS = {
    "mail": "00000002-0000-0ff1-ce00-000000000000",
    "files": "00000003-0000-0ff1-ce00-000000000000",
    "tenant": "c066d759-24ae-40e7-a56f-027002b5d3e4",
}
"""The service's applications, distinct per service, by the names of the CLI (R-014)."""


@dataclass(frozen=True, slots=True)
class Tenant:
    """One customer. `geos`: at least one; more than one is a multi-geo tenant."""

    id: str
    name: str
    domain: str
    geos: tuple[str, ...]
    created: int


@dataclass(frozen=True, slots=True)
class Person:
    """Someone who can sign in. `tenant_id` is None for the provider's people."""

    id: str
    tenant_id: str | None
    upn: str
    roles: frozenset[Role]
    created: int


@dataclass(frozen=True, slots=True)
class Officer:
    """An authorized officer, who may sign for irreversible destruction (R-002). `certificate`: PEM, empty where none was given."""

    name: str
    certificate: str


@dataclass(frozen=True, slots=True)
class Onboarding:
    """That a tenant completed onboarding for a workload (R-001): with which subscriptions (ids), and who may sign."""

    tenant_id: str
    workload: str
    subscription_ids: tuple[str, ...]
    officers: tuple[Officer, ...]
    completed: int
