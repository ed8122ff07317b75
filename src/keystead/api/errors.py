"""Errors to HTTP status and exit code, in one place, and errors as RFC 9457 problem documents."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from keystead.core.errors import (
    ChecksFailed,
    Conflict,
    FailedCheck,
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

STATUS_BY_CODE: Mapping[str, int] = {
    "method_not_allowed": 405,
    "body_timed_out": 408,
    "request_too_large": 413,
    "media_type_wrong": 415,
    "headers_too_large": 431,
}
"""Where HTTP has a status of its own for what is an invalid request everywhere else; the exit code stays."""

EXIT_UNEXPECTED = 1
EXIT_USAGE = 2
EXIT_REFUSED = 3
EXIT_INTEGRITY = 6


def status_of(error: KeysteadError) -> tuple[int, int]:
    """HTTP status and exit code of an error."""
    status, leave = next(STATUS[kind] for kind in type(error).__mro__ if kind in STATUS)
    return STATUS_BY_CODE.get(error.code, status), leave


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


_BY_TITLE: Mapping[str, type[KeysteadError]] = {kind.title: kind for kind in STATUS}
"""A problem's title names the class of the error: each class has its own."""


def from_problem(document: Mapping[str, Any], retry_after: int) -> KeysteadError:
    """The error that a problem document tells of, in the class it had where it was raised.

    Args:
        document: what `problem` made, or anything else that came as a problem.
        retry_after: milliseconds until it is worth trying again, as the answer's header says.
    """
    code, detail, mend = (str(document.get(name, "")) for name in ("code", "detail", "mend"))
    kind = _BY_TITLE.get(str(document.get("title", "")), KeysteadError)
    if kind is ChecksFailed:
        names = ("check", "detail", "mend", "subject")
        checks = (FailedCheck(*(str(check.get(name, "")) for name in names)) for check in document.get("failed_checks") or ())
        return ChecksFailed(code, detail, tuple(checks))
    if kind is Throttled:
        return Throttled(code, detail, mend, retry_after=retry_after)
    return kind(code, detail, mend)
