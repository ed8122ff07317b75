"""The OpenAPI 3.1 document, made from ROUTES: what `/openapi.json` and docs/openapi.json hold.

Nothing is written by hand twice: paths, types and limits are the rows', who may call is `core.access.roles.ALLOWED`, the text is the
docstring of the handler. Handlers are loaded for their docstrings when the document is made, and only then. What travels where is
said in `api.wire`.
"""

from __future__ import annotations

import importlib
import inspect
from functools import cache
from typing import TYPE_CHECKING, Any

import msgspec

from keystead import __version__
from keystead.api.call import Content
from keystead.api.routes import MIB, ROUTES, Body, Route, Scope
from keystead.api.types.problem import Problem
from keystead.api.wire import BYTES, JSON, OWN_TENANT, PROBLEM, REQUEST_ID, TENANT, in_body, in_path, in_query, media_type, takes_body
from keystead.core.access.roles import ALLOWED, ANYBODY
from keystead.core.stores.mailbox import MEDIA_TYPES

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_ID_HEADER = {
    "description": "The id under which the call is in the audit log and the server's log.",
    "schema": {"type": "string", "format": "uuid"},
}
_SCHEMAS = "#/components/schemas/"
_RESPONSES = "#/components/responses/"
_DOWNLOADED: Mapping[str, Iterable[str]] = {
    "mailbox.read": sorted(set(MEDIA_TYPES.values())),
    "site.get": ("*/*",),
    "site.get-batch": (BYTES,),
}
"""Media types of what a row gives as bytes; a file has the one it came with."""
_CHECKED = frozenset({"policy.create", "policy.refresh", "tenant.onboard"})
"""Rows that report several failed checks at once (422)."""
_NAMING = frozenset({"alerts.everywhere", "tenant.reissue-claim"})
"""Rows whose query or body names something that may not be there, though nothing in their path does (404)."""

_ERRORS: Mapping[int, tuple[str, str]] = {
    400: ("Invalid", "The request cannot be understood, or breaks a stated limit; sending it again unchanged cannot help."),
    401: ("NotSignedIn", "No token, or one that is not (or no longer) good."),
    403: ("Refused", "Understood and refused: role, owner, another tenant, or the customer's own keys."),
    404: ("NotFound", "Nothing of that name in this tenant."),
    408: ("TooSlow", "The body did not arrive in time."),
    409: ("Conflict", "Something of that name, or the present state, stands in the way."),
    413: ("TooLarge", "The body is larger than the route takes."),
    415: ("WrongType", "The body is of another media type than the route takes."),
    422: ("ChecksFailed", "Named checks failed; `failed_checks` has them all."),
    431: ("HeadersTooLarge", "The headers are larger than the server takes."),
    429: ("TooMany", "Too many calls or attempts; `Retry-After` says when it is worth trying again."),
    500: ("Integrity", "Stored bytes are not what was written: no other data is returned in their place."),
    503: ("Unavailable", "A vault or store did not answer; the same call may work later."),
}
_MAY_SUCCEED_LATER = frozenset({429, 503})


def has_body(route: Route) -> bool:
    """Whether a call of the row has something to say in its body; of the others an empty one is taken."""
    return route.body is Body.UPLOAD or bool(in_body(route))


_READS_IN_CONFLICT = frozenset({"key.backup", "site.status", "site.get", "site.versions"})
"""Rows that change nothing, and still need something to be in a certain state, or of a certain kind."""


def statuses(route: Route) -> tuple[int, ...]:
    """Every status a call of the row may be refused or fail with."""
    may = {400, 401, 429, 431, 500, 503}
    if route.scope is not Scope.PUBLIC:
        may.add(403)
    if in_path(route) or route.name in _NAMING:
        may.add(404)
    if route.changes or route.name in _READS_IN_CONFLICT:
        may.add(409)
    if route.name in _CHECKED:
        may.add(422)
    if takes_body(route):
        may |= {408, 413, 415}
    return tuple(sorted(may))


@cache
def openapi_document() -> bytes:
    """The document as JSON, made once per process."""
    return msgspec.json.encode(document())


def document() -> dict[str, Any]:
    """The document: every row of ROUTES, and what the server answers beside them."""
    schemas = _Schemas()
    paths: dict[str, dict[str, Any]] = {}
    for route in ROUTES:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route, schemas)
    for path, operation in _ABOUT_ITSELF.items():
        paths[path] = {"get": operation}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Keystead",
            "version": __version__,
            "summary": "Customer-controlled encryption for services that hold other people's data.",
            "description": "Times are UTC in ISO 8601, ids are UUIDs in lower case, percentages go from 0 to 100. "
            "Every error is a problem document (RFC 9457) with a stable `code`. "
            "`x-keystead-roles` says which roles may call a route at all; owners and access policies of key vaults decide on top of that.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "security": [{"token": []}],
        "tags": [{"name": noun} for noun in dict.fromkeys([*(_noun(route) for route in ROUTES), "server"])],
        "paths": paths,
        "components": {
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer", "description": "A token of `keystead`, or of an issuer."}},
            "responses": {name: _problem_answer(status, text) for status, (name, text) in _ERRORS.items()},
            "schemas": schemas.made,
        },
    }


class _Schemas:
    """Schemas of all types, and of the bodies that are a request less what its path carries."""

    def __init__(self) -> None:
        types = [route.request for route in ROUTES] + [route.response for route in ROUTES if route.response is not Content]
        unique = [Problem, *types]
        shown, components = msgspec.json.schema_components(unique, ref_template=_SCHEMAS + "{name}")
        self._of = {repr(kind): schema for kind, schema in zip(unique, shown, strict=True)}
        self.full = {name: _tidied(schema) for name, schema in components.items()}
        for route in ROUTES:
            _mark_times(self.full[route.request.__name__], route.request)
        for kind in _structs(unique):
            _mark_times(self.full[kind.__name__], kind)
        requests = {route.request.__name__ for route in ROUTES}
        self.made: dict[str, Any] = {name: schema for name, schema in sorted(self.full.items()) if name not in requests}

    def of(self, kind: object) -> dict[str, Any]:
        """Schema of a response type, by reference."""
        return dict(self._of[repr(kind)])

    def field(self, route: Route, name: str) -> dict[str, Any]:
        """Schema of one field of a request."""
        return dict(self.full[route.request.__name__]["properties"][name])

    def body(self, route: Route) -> dict[str, Any]:
        """Schema of the row's body, by reference."""
        fields = in_body(route)
        whole = self.full[route.request.__name__]
        name = route.request.__name__ + ("" if len(fields) == len(whole["properties"]) else "Body")
        part = {**whole, "title": name, "properties": {field: whole["properties"][field] for field in fields}}
        part["required"] = [field for field in whole.get("required", ()) if field in fields]
        if not part["required"]:
            del part["required"]
        assert self.made.setdefault(name, part) == part, f"two rows take {name} apart in different ways"
        return {"$ref": _SCHEMAS + name}


def _operation(route: Route, schemas: _Schemas) -> dict[str, Any]:
    """One row."""
    summary, text = _docstring(route.handler)
    made: dict[str, Any] = {
        "operationId": route.name,
        "tags": [_noun(route)],
        "summary": summary,
        "description": "\n\n".join(part for part in (text, _limits(route)) if part),
        "x-keystead-roles": ["anybody"] if ALLOWED[route.name] is ANYBODY else sorted(ALLOWED[route.name]),
        "x-keystead-timeout": float(route.timeout),
    }
    if route.scope is Scope.PUBLIC:
        made["security"] = []
    parameters = [_parameter(schemas, route, name, "path") for name in in_path(route)]
    parameters += [_parameter(schemas, route, name, "query") for name in in_query(route)]
    if parameters:
        made["parameters"] = parameters
    if has_body(route):
        made["x-keystead-max-body"] = route.max_body
        made["requestBody"] = _request_body(schemas, route)
    made["responses"] = {"200": _answer(schemas, route)}
    made["responses"] |= {str(status): {"$ref": _RESPONSES + _ERRORS[status][0]} for status in statuses(route)}
    return made


def _limits(route: Route) -> str:
    size = f"The body has at most {_size(route.max_body)}. " if has_body(route) else ""
    return f"{size}The call takes at most {route.timeout:g} s."


def _size(count: int) -> str:
    return f"{count // MIB} MiB" if count >= MIB else f"{count // 1024} KiB"


def _parameter(schemas: _Schemas, route: Route, name: str, place: str) -> dict[str, Any]:
    if name == TENANT:
        schema: dict[str, Any] = {"type": "string", "description": f"Name, domain or id; `{OWN_TENANT}` is the caller's own."}
    else:
        schema = schemas.field(route, name)
    required = place == "path" or name in schemas.full[route.request.__name__].get("required", ())
    made: dict[str, Any] = {"name": name, "in": place, "required": required, "schema": schema}
    if place == "path":
        schema["minLength"] = 1
    else:
        made["schema"] = _without_null(schema)
    return made


def _without_null(schema: dict[str, Any]) -> dict[str, Any]:
    """A field of a query is left out where it has no value: there is no null in an address."""
    kept = {key: value for key, value in schema.items() if not (key == "default" and value is None)}
    choices = kept.get("anyOf")
    if choices is None:
        return kept
    kept["anyOf"] = [choice for choice in choices if choice != {"type": "null"}]
    return {**kept.pop("anyOf")[0], **kept} if len(kept["anyOf"]) == 1 else kept


def _request_body(schemas: _Schemas, route: Route) -> dict[str, Any]:
    if route.body is Body.UPLOAD:
        return {"required": True, "content": {media_type(route): {}}}
    schema = schemas.body(route)
    if route.body is Body.BATCH:
        return {
            "required": True,
            "description": "MessagePack; `data` is a byte string.",
            "content": {media_type(route): {"schema": schema}},
        }
    needed = "required" in schemas.made[schema["$ref"].removeprefix(_SCHEMAS)]
    return {"required": needed, "content": {media_type(route): {"schema": schema}}}


def _answer(schemas: _Schemas, route: Route) -> dict[str, Any]:
    if route.body is Body.DOWNLOAD:
        text = "The bytes."
        content: dict[str, Any] = {kind: {} for kind in _DOWNLOADED[route.name]}
    else:
        text = "Done."
        content = {JSON: {"schema": schemas.of(route.response)}}
    return {"description": text, "headers": {REQUEST_ID: _ID_HEADER}, "content": content}


def _problem_answer(status: int, text: str) -> dict[str, Any]:
    headers: dict[str, Any] = {REQUEST_ID: _ID_HEADER}
    if status in _MAY_SUCCEED_LATER:
        headers["Retry-After"] = {"description": "Seconds.", "schema": {"type": "integer", "minimum": 0}}
    if status == 401:
        headers["WWW-Authenticate"] = {"description": "`Bearer`.", "schema": {"type": "string"}}
    return {"description": text, "headers": headers, "content": {PROBLEM: {"schema": {"$ref": _SCHEMAS + "Problem"}}}}


def _noun(route: Route) -> str:
    return route.name.partition(".")[0]


@cache
def _docstring(handler: str) -> tuple[str, str]:
    """First line and rest of a handler's docstring."""
    module, _, function = handler.partition(":")
    text = inspect.getdoc(getattr(importlib.import_module(module), function)) or ""
    summary, _, rest = text.partition("\n\n")
    return " ".join(summary.split()), rest.partition("\n\nRaises:")[0].strip()


def _tidied(schema: dict[str, Any]) -> dict[str, Any]:
    """A docstring without its indentation."""
    if "description" in schema:
        schema["description"] = inspect.cleandoc(schema["description"])
    return schema


def _structs(kinds: Iterable[object]) -> list[type[msgspec.Struct]]:
    """Every struct that the types hold, themselves included."""
    found: dict[type[msgspec.Struct], None] = {}
    todo: list[object] = [msgspec.inspect.type_info(kind) for kind in kinds]
    while todo:
        one = todo.pop()
        if isinstance(one, msgspec.inspect.StructType):
            if one.cls in found:
                continue
            found[one.cls] = None
            todo += [field.type for field in one.fields]
        elif isinstance(one, msgspec.inspect.UnionType):
            todo += one.types
        elif isinstance(one, msgspec.inspect.ListType):
            todo.append(one.item_type)
    return list(found)


def _mark_times(schema: dict[str, Any], kind: type[msgspec.Struct]) -> None:
    """`format: date-time` at every time: the types say it by their Python type alone."""
    info = msgspec.inspect.type_info(kind)
    assert isinstance(info, msgspec.inspect.StructType)
    for field in info.fields:
        shown = schema["properties"][field.encode_name]
        if isinstance(field.type, msgspec.inspect.DateTimeType):
            shown["format"] = "date-time"
        elif isinstance(field.type, msgspec.inspect.UnionType) and any(
            isinstance(one, msgspec.inspect.DateTimeType) for one in field.type.types
        ):
            next(one for one in shown["anyOf"] if one.get("type") == "string")["format"] = "date-time"


def _page(name: str, summary: str, description: str, answer: dict[str, Any], *failures: int) -> dict[str, Any]:
    answers = {"200": {"description": "Yes.", "headers": {REQUEST_ID: _ID_HEADER}, "content": answer}}
    answers |= {str(status): {"$ref": _RESPONSES + _ERRORS[status][0]} for status in (*failures, 431)}
    return {
        "operationId": name,
        "tags": ["server"],
        "summary": summary,
        "description": description,
        "security": [],
        "responses": answers,
    }


_OBJECT = {JSON: {"schema": {"type": "object"}}}
_ABOUT_ITSELF: Mapping[str, dict[str, Any]] = {
    "/openapi.json": _page("server.openapi", "This document.", "", _OBJECT, 401),
    "/healthz": _page("server.health", "Whether the process answers.", "Asks nothing else.", _OBJECT, 401),
    "/readyz": _page(
        "server.ready",
        "Whether the process should be given calls.",
        "No while it stops, and while one of its stores does not answer.",
        _OBJECT,
        401,
        503,
    ),
    "/metrics": _page(
        "server.metrics",
        "Figures for Prometheus.",
        "For callers on the server's own machine, and for operators (docs/howto/watch.md).",
        {"text/plain": {"schema": {"type": "string"}}},
        401,
        403,
        503,
    ),
}
"""401: a header Authorization that holds no token is refused everywhere."""
