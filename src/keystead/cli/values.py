"""Values as people write them: times, durations, lists, secrets in files."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from keystead.cli.options import usage
from keystead.core.errors import Conflict, InvalidRequest

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

MAX_SMALL_FILE = 8 * 1024 * 1024
"""Tokens, certificates, keys and key backups are far smaller; this stops a wrong name from filling the memory."""
_UNITS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_DURATION = re.compile(r"(\d{1,9})(ms|s|m|h|d)")


def duration(text: str) -> int:
    """Milliseconds of a duration such as 90s, 13h, 91d or 1d12h.

    Raises:
        InvalidRequest: `usage`.
    """
    parts = list(_DURATION.finditer(text))
    if not parts or "".join(part[0] for part in parts) != text:
        raise usage(f"{text!r} is not a duration", "write a number and a unit: 90s, 5m, 13h or 91d")
    return sum(int(part[1]) * _UNITS[part[2]] for part in parts)


def time(text: str | None) -> datetime | None:
    """A time in ISO 8601; without a zone it is UTC, without a time of day it is the day's beginning.

    Raises:
        InvalidRequest: `usage`.
    """
    if text is None:
        return None
    try:
        parsed = datetime.fromisoformat(text)
    except ValueError:
        raise usage(f"{text!r} is not a time", "write ISO 8601, such as 2026-03-31T12:00:00Z") from None
    return parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)


def words(values: Iterable[str] | None) -> list[str]:
    """A list given by repeating the option, by commas, or both."""
    return [word for value in values or () for part in value.split(",") if (word := part.strip())]


def words_or_none(values: Sequence[str] | None) -> list[str] | None:
    """The same, None where the option was not given."""
    return words(values) if values else None


def tags(values: Sequence[str] | None) -> dict[str, str]:
    """Tags from NAME=VALUE.

    Raises:
        InvalidRequest: `usage`.
    """
    found: dict[str, str] = {}
    for value in values or ():
        name, equals, text = value.partition("=")
        if not equals or not name:
            raise usage(f"{value!r} is not a tag", "write --tag NAME=VALUE")
        found[name] = text
    return found


def read_small(path: Path) -> bytes:
    """The content of a small file.

    Raises:
        InvalidRequest: it cannot be read, or is too large to be what was meant.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_SMALL_FILE + 1)
    except OSError as error:
        raise InvalidRequest("file_unreadable", f"{str(path)!r} cannot be read: {error.strerror}", "check the path") from None
    if len(data) > MAX_SMALL_FILE:
        raise InvalidRequest("file_too_large", f"{str(path)!r} has more than {MAX_SMALL_FILE} bytes", "check the path")
    return data


def read_text(path: Path) -> str:
    """The text of a small file, less white space around it.

    Raises:
        InvalidRequest: it cannot be read, or is no text.
    """
    try:
        return read_small(path).decode().strip()
    except UnicodeDecodeError:
        raise InvalidRequest("file_not_text", f"{str(path)!r} is not a text file", "check the path") from None


def fresh_file(path: Path, *, overwrite: bool) -> Path:
    """The path of a file that is about to be written.

    Raises:
        Conflict: `file_exists`.
    """
    if path.exists() and not overwrite:
        raise Conflict("file_exists", f"{str(path)!r} exists already", "choose another name, or overwrite it with --yes")
    return path
