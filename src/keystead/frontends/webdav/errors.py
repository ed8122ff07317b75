"""Errors to statuses of WebDAV, in one place, and errors as the library knows them."""

from __future__ import annotations

import functools
import logging
from http import HTTPStatus
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from wsgidav.dav_error import DAVError

from keystead.api.errors import status_of
from keystead.core.errors import KeysteadError, Throttled, Unauthenticated, Unavailable
from keystead.frontends.webdav.credentials import CHALLENGES

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

log = logging.getLogger("keystead.webdav")

RETRY_AFTER = 2
"""Seconds after which something unavailable is worth another try."""

STATUS_BY_CODE: Mapping[str, int] = {
    "quota_exceeded": HTTPStatus.INSUFFICIENT_STORAGE,
    "file_too_large": HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    "properties_too_large": HTTPStatus.INSUFFICIENT_STORAGE,
    "folder_too_large": HTTPStatus.INSUFFICIENT_STORAGE,
    "too_many_locks": HTTPStatus.INSUFFICIENT_STORAGE,
    "too_many_locks_of_one": HTTPStatus.INSUFFICIENT_STORAGE,
    "file_changed": HTTPStatus.PRECONDITION_FAILED,
    "file_exists": HTTPStatus.PRECONDITION_FAILED,
    "file_locked": HTTPStatus.LOCKED,
    "folder_not_found": HTTPStatus.CONFLICT,
    "not_a_folder": HTTPStatus.CONFLICT,
    "upload_cut_off": HTTPStatus.BAD_REQUEST,
    "folder_into_itself": HTTPStatus.FORBIDDEN,
    "another_server": HTTPStatus.BAD_GATEWAY,
    "file_busy": HTTPStatus.SERVICE_UNAVAILABLE,
    "site_busy": HTTPStatus.SERVICE_UNAVAILABLE,
    "length_missing": HTTPStatus.LENGTH_REQUIRED,
}
"""Where WebDAV has a status of its own; everything else is answered as by the API."""

Given = ParamSpec("Given")
Made = TypeVar("Made")


class Answered(DAVError):
    """An error of ours, as the library passes it on.

    Args:
        error: what happened.
    """

    def __init__(self, error: KeysteadError) -> None:
        super().__init__(status(error), error.detail, add_headers=list(headers(error)))
        self.error = error

    def get_user_info(self) -> str:
        """The text of it."""
        return str(self.error)

    def get_response_page(self) -> tuple[str, bytes]:
        """Media type and body."""
        return page(self.error)


def status(error: KeysteadError) -> int:
    """The status an error is answered with."""
    return int(STATUS_BY_CODE.get(error.code) or status_of(error)[0])


def headers(error: KeysteadError) -> tuple[tuple[str, str], ...]:
    """The headers that its status asks for."""
    if isinstance(error, Throttled):
        return (("Retry-After", str(-(-error.retry_after // 1_000))),)
    if isinstance(error, Unavailable) or status(error) == HTTPStatus.SERVICE_UNAVAILABLE:
        return (("Retry-After", str(RETRY_AFTER)),)
    return CHALLENGES if isinstance(error, Unauthenticated) else ()


def page(error: KeysteadError) -> tuple[str, bytes]:
    """What a person is shown: code, what happened, and what to do."""
    return "text/plain; charset=utf-8", f"{error}\n".encode()


def phrase(number: int) -> str:
    """A status as it is written on the wire."""
    try:
        return f"{number} {HTTPStatus(number).phrase}"
    except ValueError:
        return f"{number} Status"


def unexpected() -> KeysteadError:
    """A defect of ours: what it was stands in the log, and nowhere else."""
    return KeysteadError("unexpected", "the request met a defect of the service", "report it with the request's id; the log has the trace")


def answered(function: Callable[Given, Made]) -> Callable[Given, Made]:
    """Around what the library calls: it would take our errors for defects, and pass over defects."""

    @functools.wraps(function)
    def around(*args: Given.args, **named: Given.kwargs) -> Made:
        try:
            return function(*args, **named)
        except DAVError:
            raise
        except KeysteadError as error:
            raise Answered(error) from error
        except Exception as error:
            log.exception("a request met a defect")
            raise Answered(unexpected()) from error

    return around
