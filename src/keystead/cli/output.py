"""What people and programs are shown: aligned text, or one JSON document."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import msgspec

from keystead.core.errors import Unavailable

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

HIDDEN = frozenset({"public_key", "warnings"})
"""Fields left out of text: too long to read, or shown on stderr. JSON has them."""
_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


def emit(data: str | bytes) -> None:
    """Write to stdout now.

    Raises:
        BrokenPipeError: whoever read it has gone.
        Unavailable: it cannot be written, for instance because the disk behind it is full.
    """
    try:
        if isinstance(data, bytes):
            sys.stdout.buffer.write(data)
            sys.stdout.buffer.flush()
        else:
            sys.stdout.write(data)
            sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise Unavailable(
            "output_unwritable", f"the output cannot be written: {error.strerror}", "make room, or write it elsewhere"
        ) from None


def as_json(value: object) -> str:
    """One JSON document: snake_case, UTC ISO 8601, lists as arrays."""
    return msgspec.json.encode(value).decode()


def fields_of(value: object) -> dict[str, Any]:
    """The fields of a response, in order; a dictionary as it is."""
    return value if isinstance(value, dict) else msgspec.structs.asdict(value)  # type: ignore[arg-type]  # responses are structs


def document(value: object, **more: object) -> dict[str, Any]:
    """A response as a document with further fields."""
    return {**fields_of(value), **more}


def clean(text: str) -> str:
    """Text for a terminal. Subjects and names come from outside: control characters in them must not drive the terminal."""
    return text if text.isprintable() else "".join(one if one.isprintable() else _REPLACEMENT for one in text)


def warning_text(warning: object) -> str:
    """A warning of an answer as a sentence: text, or a check that did not hold but refuses nothing."""
    if isinstance(warning, str):
        return warning
    check = fields_of(warning)
    return f"{check['check']}: {check['detail']}; {check['mend']}"


def cell(value: object) -> str:
    """One value as text on one line."""
    if value is None or value == "":
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, datetime):
        return value.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%SZ")
    return _many(value)


def _many(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{clean(str(name))}={cell(part)}" for name, part in value.items()) or "-"
    if isinstance(value, list):
        return ", ".join(cell(part) for part in value) or "-"
    if isinstance(value, msgspec.Struct):
        return " ".join(cell(part) for part in fields_of(value).values() if part is not None)
    return clean(str(value))


def as_text(value: object, columns: Sequence[str] = ()) -> str:
    """A response as lines for people.

    Args:
        value: a response, a dictionary, or a list of responses.
        columns: the fields of a list that are shown; all where none are named.
    """
    if isinstance(value, list):
        return _table(value, columns)
    lines: list[str] = []
    nested: list[str] = []
    shown = {name: part for name, part in fields_of(value).items() if name not in HIDDEN}
    width = max((len(name) for name in shown), default=0)
    for name, part in shown.items():
        if isinstance(part, list) and part and isinstance(part[0], msgspec.Struct):
            nested += ["", f"{name}:", *(f"  {line}" for line in _table(part, ()).splitlines())]
        else:
            lines.append(f"{name:<{width}}  {cell(part)}")
    return "\n".join(lines + nested)


def _table(rows: Sequence[object], columns: Sequence[str]) -> str:
    if not rows:
        return "none"
    dictionaries = [fields_of(row) for row in rows]
    names = list(columns) or [name for name in dictionaries[0] if name not in HIDDEN]
    cells = [[name.upper() for name in names], *([cell(row[name]) for name in names] for row in dictionaries)]
    widths = [max(len(row[index]) for row in cells) for index in range(len(names))]
    return "\n".join(_line(row, widths) for row in cells)


def _line(row: Iterable[str], widths: Iterable[int]) -> str:
    return "  ".join(f"{text:<{width}}" for text, width in zip(row, widths, strict=True)).rstrip()
