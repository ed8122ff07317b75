"""Data encryption policies."""

from datetime import datetime
from typing import Literal

from keystead.api.types.base import Request, Response


class CreatePolicy(Request, frozen=True):
    """`keys`: exactly two base identifiers (a version, if given, is not pinned: the current one wraps)."""

    name: str
    keys: list[str]
    workload: Literal["mail"] = "mail"
    description: str = ""
    enabled: bool = True


class CheckView(Response, frozen=True):
    check: str
    subject: str
    detail: str
    mend: str


class ValidationView(Response, frozen=True):
    """What the checks say. `valid` when nothing failed; warnings do not refuse."""

    name: str
    valid: bool
    failed_checks: list[CheckView]
    warnings: list[CheckView]


class CopyView(Response, frozen=True):
    """Which key version each copy is wrapped by (R-262)."""

    role: str
    key_uri: str
    algorithm: str


class PolicyView(Response, frozen=True):
    """One policy. `id` never changes; `version_id` does with each refresh. `mailboxes` is null in the answer of a refresh, which counts none."""

    id: str
    name: str
    description: str
    workload: str
    enabled: bool
    state: str
    created: datetime
    version: int
    version_id: str
    keys: list[CopyView]
    mailboxes: int | None
    health: str | None
    health_checked: datetime | None
    warnings: list[CheckView] = []


class PolicySummary(Response, frozen=True):
    id: str
    name: str
    description: str
    workload: str
    enabled: bool
    state: str
    created: datetime
    version: int
    version_id: str
    health: str | None


class ListPolicies(Request, frozen=True):
    pass


class NamePolicy(Request, frozen=True):
    """`policy`: name, id, or the id of any of its versions."""

    policy: str


class SetPolicy(Request, frozen=True):
    """Fields left out stay as they are."""

    policy: str
    name: str | None = None
    description: str | None = None


class KeyHealthView(Response, frozen=True):
    role: str
    uri: str
    outcome: str
    reason: str


class PolicyHealth(Response, frozen=True):
    """Live: both keys were asked just now."""

    id: str
    name: str
    state: Literal["healthy", "degraded", "unreachable", "denied"]
    keys: list[KeyHealthView]
    checked: datetime


class NameKey(Request, frozen=True):
    """A key identifier, with or without version."""

    key: str


class KeyUses(Response, frozen=True):
    """Copies wrapped by the key: what stops opening when it is deleted or disabled (R-158)."""

    uses: list[str]
