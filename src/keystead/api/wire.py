"""Which part of a request travels where (docs/spec/http.md): said once for the client, the server and the OpenAPI document.

- Fields that the path names in braces travel there, never a second time elsewhere; `{tenant}` is no field but the tenant's name.
- Of GET and DELETE requests and of uploads the other fields travel as query; a list is the same name several times.
- Of all others they are one JSON object, or one MessagePack map where the row is a batch.
"""

from __future__ import annotations

import re
from functools import cache
from typing import TYPE_CHECKING

import msgspec

from keystead.api.routes import Body

if TYPE_CHECKING:
    from keystead.api.routes import Route

TENANT = "tenant"
"""The part of a path that names the tenant."""
OWN_TENANT = "-"
"""What stands there when no tenant is named: the caller's own."""

PROBLEM = "application/problem+json"
JSON = "application/json"
MSGPACK = "application/msgpack"
BYTES = "application/octet-stream"
REQUEST_ID = "Keystead-Request-Id"
"""Header of every answer: the id under which the call is in the audit log."""
HOME_SECRET = "Keystead-Home-Secret"  # noqa: S105 - the name of a header
"""Header that proves, in dev homes and over loopback, that the caller may read the home's folder."""
CALL_AS = "Keystead-As"
"""Header beside it: the UPN to call as."""

_IN_BRACES = re.compile(r"\{([a-z_]+)\}")
_WITHOUT_BODY = frozenset({"GET", "HEAD", "DELETE"})


@cache
def in_path(route: Route) -> tuple[str, ...]:
    """Names in the braces of the row's path, in order; `tenant` among them."""
    return tuple(_IN_BRACES.findall(route.path))


@cache
def in_query(route: Route) -> tuple[str, ...]:
    """Fields of the request that travel as query."""
    return _others(route) if route.method in _WITHOUT_BODY or route.body is Body.UPLOAD else ()


@cache
def in_body(route: Route) -> tuple[str, ...]:
    """Fields of the request that travel in the body; none for an upload, whose body is the bytes."""
    return () if route.method in _WITHOUT_BODY or route.body is Body.UPLOAD else _others(route)


def takes_body(route: Route) -> bool:
    """Whether a call of the row may carry a body."""
    return route.method not in _WITHOUT_BODY


def media_type(route: Route) -> str:
    """Of the body of a call of the row."""
    return {Body.UPLOAD: BYTES, Body.BATCH: MSGPACK}.get(route.body, JSON)


def _others(route: Route) -> tuple[str, ...]:
    path = frozenset(in_path(route))
    return tuple(field.encode_name for field in msgspec.structs.fields(route.request) if field.encode_name not in path)
