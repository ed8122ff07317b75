"""From the parts of a request on the wire to the request of a row."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

import msgspec

from keystead.api.routes import Body
from keystead.api.wire import TENANT, in_path, in_query, media_type
from keystead.core.errors import InvalidRequest

if TYPE_CHECKING:
    from collections.abc import Mapping

    from keystead.api.routes import Route

MOST_FIELDS = 1_000
"""Names in one query."""


def from_query(route: Route, path: Mapping[str, str], query: bytes) -> Any:  # noqa: ANN401 - an instance of the row's request
    """The request of a row whose fields travel as path and query.

    Raises:
        InvalidRequest: `request_invalid`.
    """
    values: dict[str, Any] = {name: value for name, value in path.items() if name != TENANT}
    if query:
        lists = _lists(route)
        for name, value in _pairs(route, query):
            if name in lists:
                values.setdefault(name, []).append(value)
            elif name in values:
                raise _invalid(route, f"{name} is given twice")
            else:
                values[name] = value
    return _request(route, values, strict=False)


def from_body(route: Route, path: Mapping[str, str], body: bytes) -> Any:  # noqa: ANN401 - as above
    """The request of a row whose fields travel as path and body; no body is an empty one.

    Raises:
        InvalidRequest: `request_invalid`.
    """
    decode = msgspec.msgpack.decode if route.body is Body.BATCH else msgspec.json.decode
    try:
        values = decode(body) if body else {}
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _invalid(route, f"the body cannot be read: {error}") from error
    if not isinstance(values, dict):
        raise _invalid(route, "the body is one object with the fields by name")
    for name in in_path(route):
        if name in values:
            raise _invalid(route, f"{name} travels in the path, not in the body")
        if name != TENANT:
            values[name] = path[name]
    return _request(route, values, strict=True)


def check_media_type(route: Route, given: bytes) -> None:
    """Refuse a body of another kind than the row takes.

    Raises:
        InvalidRequest: `media_type_wrong`.
    """
    wanted = media_type(route)
    kind, _, parameters = given.partition(b";")
    if kind.strip().lower() != wanted.encode() or parameters.strip().lower() not in {b"", b"charset=utf-8", b'charset="utf-8"'}:
        raise InvalidRequest(
            "media_type_wrong", f"{route.name} takes a body of the type {wanted}", f"send it with the header Content-Type: {wanted}"
        )


def _pairs(route: Route, query: bytes) -> list[tuple[str, str]]:
    try:
        return parse_qsl(query.decode("ascii"), keep_blank_values=True, strict_parsing=True, errors="strict", max_num_fields=MOST_FIELDS)
    except ValueError as error:  # UnicodeDecodeError too
        raise _invalid(route, "the query cannot be read: NAME=VALUE, joined by &, in UTF-8 with percent signs") from error


def _request(route: Route, values: dict[Any, Any], *, strict: bool) -> Any:  # noqa: ANN401 - as above
    try:
        return msgspec.convert(values, type=route.request, strict=strict)
    except (msgspec.ValidationError, RecursionError) as error:
        raise _invalid(route, str(error)) from error


def _invalid(route: Route, what: str) -> InvalidRequest:
    return InvalidRequest("request_invalid", f"the request of {route.name} is not valid: {what}", "see /openapi.json for its fields")


@cache
def _lists(route: Route) -> frozenset[str]:
    """Fields of the query that are lists."""
    info = msgspec.inspect.type_info(route.request)
    assert isinstance(info, msgspec.inspect.StructType)
    wanted = frozenset(in_query(route))
    return frozenset(field.encode_name for field in info.fields if field.encode_name in wanted and _is_list(field.type))


def _is_list(kind: msgspec.inspect.Type) -> bool:
    if isinstance(kind, msgspec.inspect.UnionType):
        return any(_is_list(one) for one in kind.types)
    return isinstance(kind, msgspec.inspect.ListType)
