"""From method and path to a row of ROUTES: a tree made once, walked by segments of the raw path.

The path is split before anything in it is decoded, so an encoded slash is never a separator, and `.` and `..` are never resolved: they
are refused. Where a literal and a field fit the same segment, the literal is tried first, then the field, so that a policy may be called
`validate`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import unquote_to_bytes

from keystead.api.wire import TENANT, in_path
from keystead.core.errors import InvalidRequest, NotFound

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from keystead.api.routes import Route

LONGEST_PATH = 4_096
"""Bytes of a path, before decoding."""
_ESCAPE = re.compile(rb"%(?![0-9A-Fa-f]{2})")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_DOTS = frozenset({".", ".."})


@dataclass(slots=True)
class _Node:
    literals: dict[bytes, _Node] = field(default_factory=dict)
    any: _Node | None = None
    rows: dict[str, Route] = field(default_factory=dict)


class Router:
    """Finds rows.

    Args:
        routes: the table.
    """

    def __init__(self, routes: Iterable[Route]) -> None:
        self._root = _Node()
        self._names = {route.name: in_path(route) for route in routes}
        for route in routes:
            node = self._root
            for segment in route.path.split("/")[1:]:
                if segment.startswith("{"):
                    node.any = node.any or _Node()
                    node = node.any
                else:
                    node = node.literals.setdefault(segment.encode(), _Node())
            node.rows[route.method] = route

    def find(self, method: str, raw_path: bytes) -> tuple[Route, dict[str, str]]:
        """The row of a call, and the fields its path carries, decoded; HEAD is answered by GET's row.

        Raises:
            NotFound: `route_not_found`.
            InvalidRequest: `method_not_allowed`, `path_invalid`.
        """
        wanted = "GET" if method == "HEAD" else method
        segments = _segments(raw_path)
        for node, values in self._ends(self._root, segments, 0, ()):
            route = node.rows.get(wanted)
            if route is not None:
                return route, {name: _decoded(name, value) for name, value in zip(self._names[route.name], values, strict=True)}
        allowed = self.methods(raw_path)
        if not allowed:
            raise NotFound("route_not_found", "there is nothing at this path", "see /openapi.json for all paths")
        raise InvalidRequest("method_not_allowed", f"this path does not take {method}", f"it takes {', '.join(allowed)}")

    def methods(self, raw_path: bytes) -> tuple[str, ...]:
        """What a path takes, HEAD included; none for a path that is not there."""
        found = {method for node, _values in self._ends(self._root, _segments(raw_path), 0, ()) for method in node.rows}
        return tuple(sorted(found | ({"HEAD"} if "GET" in found else set()) | ({"OPTIONS"} if found else set())))

    def _ends(self, node: _Node, segments: list[bytes], at: int, values: tuple[bytes, ...]) -> Iterator[tuple[_Node, tuple[bytes, ...]]]:
        """Nodes where the whole path ends, literal ways first; at most two ways a segment, and paths of the table are short."""
        if at == len(segments):
            if node.rows:
                yield node, values
            return
        segment = segments[at]
        literal = node.literals.get(segment)
        if literal is not None:
            yield from self._ends(literal, segments, at + 1, values)
        if node.any is not None and segment:
            yield from self._ends(node.any, segments, at + 1, (*values, segment))


def _segments(raw_path: bytes) -> list[bytes]:
    if len(raw_path) > LONGEST_PATH:
        raise InvalidRequest("path_invalid", f"the path has {len(raw_path)} bytes; at most {LONGEST_PATH} are taken", "")
    return raw_path.split(b"/")[1:]


def _decoded(name: str, value: bytes) -> str:
    try:
        text = (unquote_to_bytes(value) if b"%" in value else value).decode()
    except UnicodeDecodeError:
        text = ""
    if not text or text in _DOTS or _ESCAPE.search(value) or _CONTROL.search(text) or ("/" in text and name != TENANT):
        raise InvalidRequest(
            "path_invalid",
            f"the part {name} of the path is not a name",
            "encode it as UTF-8 with percent signs; without slashes or dots alone",
        )
    return text
