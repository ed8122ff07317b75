"""What hooks send, as bytes (docs/spec/hooks.md)."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from keystead.ports.notify import Message

VERSION = 1
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def document_of(message: Message) -> dict[str, object]:
    """The fields of a message, in order."""
    return {"version": VERSION, **asdict(message), "when": utc_text(message.when)}


def body_of(message: Message) -> bytes:
    """The document of a message as JSON."""
    return json.dumps(document_of(message)).encode()


def utc(milliseconds: int) -> datetime:
    """The time of an integer of milliseconds since the epoch."""
    return _EPOCH + timedelta(milliseconds=milliseconds)


def utc_text(milliseconds: int) -> str:
    """A time as ISO 8601 with milliseconds: 2026-05-28T20:26:40.000Z."""
    return utc(milliseconds).isoformat(timespec="milliseconds").replace("+00:00", "Z")
