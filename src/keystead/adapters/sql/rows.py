"""Helpers that all tables share."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

from sqlalchemy.exc import IntegrityError

from keystead.core.errors import Conflict

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


_T = TypeVar("_T")

IN_LIMIT = 500
"""Values in one IN list: SQLite takes at most 32,766 variables a statement, and short lists keep the statement cache useful."""


@contextmanager
def conflict(code: str, detail: str, mend: str) -> Iterator[None]:
    """A violated uniqueness becomes a Conflict that names what is taken."""
    try:
        yield
    except IntegrityError as error:
        raise Conflict(code, detail, mend) from error


def chunks(values: Sequence[_T], size: int = IN_LIMIT) -> Iterator[Sequence[_T]]:
    """The values, at most `size` at a time."""
    for start in range(0, len(values), size):
        yield values[start : start + size]
