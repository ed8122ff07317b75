"""What all request and response types share.

Requests and responses are frozen structs; JSON is snake_case, times are UTC ISO 8601, ids are lower case UUIDs, percentages 0 to 100.
A request refuses unknown fields: a misspelt option must not be silently ignored.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import msgspec

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Request(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of every request."""


class Response(msgspec.Struct, frozen=True, kw_only=True):
    """Base of every response."""


class Empty(Request, frozen=True):
    """A request without fields."""


def utc(milliseconds: int) -> datetime:
    """The time of an integer of milliseconds since the epoch."""
    return _EPOCH + timedelta(milliseconds=milliseconds)


def utc_or_none(milliseconds: int | None) -> datetime | None:
    """The same for a time that may be unset."""
    return None if milliseconds is None else utc(milliseconds)


def millis(time: datetime) -> int:
    """Milliseconds since the epoch; a time without zone is taken as UTC."""
    aware = time if time.tzinfo else time.replace(tzinfo=UTC)
    return (aware - _EPOCH) // timedelta(milliseconds=1)
