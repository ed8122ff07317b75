"""Errors to HTTP status and exit code, in one place, and errors as RFC 9457 problem documents."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from keystead.core.errors import (
    ChecksFailed,
    Conflict,
    Forbidden,
    IntegrityFailure,
    InvalidRequest,
    KeyDenied,
    KeysteadError,
    NotFound,
    PreconditionFailed,
    Refused,
    Throttled,
    Unauthenticated,
    Unavailable,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

STATUS: Mapping[type[KeysteadError], tuple[int, int]] = {
    InvalidRequest: (400, 2),
    Unauthenticated: (401, 3),
    KeyDenied: (403, 3),
    Forbidden: (403, 3),
    ChecksFailed: (422, 3),
    PreconditionFailed: (409, 3),
    Conflict: (409, 3),
    Refused: (403, 3),
    NotFound: (404, 4),
    Throttled: (429, 5),
    Unavailable: (503, 5),
    IntegrityFailure: (500, 6),
    KeysteadError: (500, 1),
}
"""HTTP status and exit code by class (design section 8); looked up by the nearest class."""

EXIT_UNEXPECTED = 1
EXIT_USAGE = 2


def status_of(error: KeysteadError) -> tuple[int, int]:
    """HTTP status and exit code of an error."""
    return next(STATUS[kind] for kind in type(error).__mro__ if kind in STATUS)


def problem(error: KeysteadError) -> dict[str, Any]:
    """The error as a problem document (RFC 9457): `code`, `title`, `detail`, `mend`, and `failed_checks` where there are some."""
    status, _exit = status_of(error)
    document: dict[str, Any] = {
        "type": f"urn:keystead:error:{error.code}",
        "title": error.title,
        "status": status,
        "code": error.code,
        "detail": error.detail,
        "mend": error.mend,
    }
    if isinstance(error, ChecksFailed):
        document["failed_checks"] = [
            {"check": check.check, "subject": check.subject, "detail": check.detail, "mend": check.mend} for check in error.failed
        ]
    return document
