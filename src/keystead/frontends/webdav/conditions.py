"""Conditional requests (RFC 9110 section 13): what must hold of what a request is about, or it is not done.

The library looks at these headers too, in an order of its own, on both ends of a copy, and takes a file that has not changed for one that
has; so they are taken away before it does. The header `If` of WebDAV (RFC 4918 section 10.4) stays with it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from email.utils import formatdate, parsedate_to_datetime
from typing import TYPE_CHECKING, Any

from wsgidav.dav_error import HTTP_NOT_MODIFIED, HTTP_PRECONDITION_FAILED, DAVError

if TYPE_CHECKING:
    from collections.abc import MutableMapping

CONDITIONS = "keystead.conditions"
"""Where the environment of a request holds its conditions."""
_TAG = re.compile(r'(W/)?"([^"]*)"')


@dataclass(frozen=True, slots=True)
class Conditions:
    """The headers as they came; empty for those that did not."""

    match: str
    none_match: str
    unmodified_since: str
    modified_since: str

    @property
    def pinned(self) -> bool:
        """Whether the client means the very version it has seen."""
        return bool(self.match or self.unmodified_since)

    @property
    def new(self) -> bool:
        """Whether nothing may be there yet."""
        return self.none_match.strip() == "*"

    def check(self, method: str, *, there: bool, tag: str | None, modified: float | None) -> None:
        """Raise unless they hold, in the order of RFC 9110 section 13.2.2.

        Args:
            method: of the request.
            there: whether there is anything.
            tag: its entity tag, without quotes; None for a folder.
            modified: when it last changed, seconds since the epoch.

        Raises:
            DAVError: 412; or 304, for what the client has already.
        """
        reads = method in ("GET", "HEAD")
        if self.match:
            if not (there and (self.match.strip() == "*" or tag in _tags(self.match, weak=False))):
                raise DAVError(HTTP_PRECONDITION_FAILED, "If-Match")
        elif self.unmodified_since and there and modified is not None:
            limit = _seconds(self.unmodified_since)
            if limit is not None and int(modified) > limit:
                raise DAVError(HTTP_PRECONDITION_FAILED, "If-Unmodified-Since")
        if self.none_match:
            if there and (self.new or tag in _tags(self.none_match, weak=True)):
                raise _unchanged(tag, modified) if reads else DAVError(HTTP_PRECONDITION_FAILED, "If-None-Match")
        elif self.modified_since and reads and there and modified is not None:
            limit = _seconds(self.modified_since)
            if limit is not None and int(modified) <= limit:
                raise _unchanged(tag, modified)


def take_conditions(environ: MutableMapping[str, Any]) -> Conditions:
    """The conditions of a request, which are no longer in its environment as headers."""
    names = ("MATCH", "NONE_MATCH", "UNMODIFIED_SINCE", "MODIFIED_SINCE")
    return Conditions(*(environ.pop(f"HTTP_IF_{name}", "") for name in names))


def _tags(header: str, *, weak: bool) -> set[str]:
    """The tags of a list; for a strong comparison weak ones match nothing."""
    return {tag for mark, tag in _TAG.findall(header) if weak or not mark}


def _seconds(date: str) -> int | None:
    try:
        return int(parsedate_to_datetime(date).timestamp())
    except (TypeError, ValueError, OverflowError):
        return None  # a header that is no date is passed over


def _unchanged(tag: str | None, modified: float | None) -> DAVError:
    headers = [] if tag is None else [("ETag", f'"{tag}"')]
    if modified is not None:
        headers.append(("Last-Modified", formatdate(modified, usegmt=True)))
    return DAVError(HTTP_NOT_MODIFIED, add_headers=headers)
