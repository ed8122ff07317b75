"""The one table of everything a client can ask for.

Each row declares who may call it (by its name in `keystead.core.access.roles.ALLOWED`), about what (scope), the largest body, the
time limit and the types, next to the handler, so that a reviewer sees the limits in one place. Both transports run exactly these rows;
OpenAPI is made from them. A handler is named as MODULE:FUNCTION and loaded when first called, so a command pays only for what it uses.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Any

KIB = 1024
MIB = 1024 * KIB


class Scope(StrEnum):
    """What a route is about."""

    PUBLIC = "public"
    """Anybody, signed in or not."""
    PROVIDER = "provider"
    """The installation itself: no tenant."""
    TENANT = "tenant"
    """Exactly one tenant, which the caller must belong to (or configure, as the operator of a dev home)."""


class Side(StrEnum):
    """Which half of the house answers: they share no database and never call one another."""

    SERVICE = "service"
    VAULT = "vault"


class Body(StrEnum):
    """How request and response travel."""

    JSON = "json"
    BATCH = "batch"
    """The request is MessagePack, because it carries message bytes."""
    UPLOAD = "upload"
    """The request body is one stream of bytes; the other fields travel as path and query."""
    DOWNLOAD = "download"
    """The response is one stream of bytes."""


@dataclass(frozen=True, slots=True)
class Route:
    """One row. `max_body` in bytes; `timeout` in seconds, for the whole call.

    `path` carries fields of the request in braces; the rest of a GET request travels as query.
    """

    name: str
    method: str
    path: str
    handler: str
    request: type[Any]
    response: type[Any]
    scope: Scope = Scope.TENANT
    side: Side = Side.SERVICE
    body: Body = Body.JSON
    max_body: int = 64 * KIB
    timeout: float = 30.0
    changes: bool = True
    """Whether the call changes anything: what `--what-if` stops."""
