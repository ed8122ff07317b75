"""What goes back: a status, headers, and bytes or a stream of them; errors as problem documents."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import msgspec

from keystead.api.errors import problem, status_of
from keystead.api.wire import JSON, PROBLEM
from keystead.core.errors import KeysteadError, Throttled, Unauthenticated, Unavailable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from keystead.api.call import Content

Header = tuple[bytes, bytes]

SMALL = 1024 * 1024
"""Content up to this many bytes is read whole by the thread that opened it, and sent at once."""
RETRY_AFTER = 2
"""Seconds after which something unavailable is worth another try."""

_SAFE: tuple[Header, ...] = ((b"cache-control", b"no-store"), (b"x-content-type-options", b"nosniff"))
_CONTENT: tuple[Header, ...] = (
    (b"content-disposition", b"attachment"),
    (b"content-security-policy", b"default-src 'none'; sandbox"),
)
"""Content is somebody else's: should a browser ever get it, it must neither show nor run it on this origin."""


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer.

    Attributes:
        headers: all but the request id.
        body: the whole of it, or its first piece where `rest` has more.
        size: bytes of the whole body.
        code: of the error, empty where there is none.
    """

    status: int
    headers: tuple[Header, ...]
    body: bytes = b""
    size: int = 0
    rest: Iterator[bytes] | None = None
    code: str = ""


@dataclass(frozen=True, slots=True)
class Document:
    """What a page is: bytes of a media type."""

    media_type: str
    body: bytes
    status: int = 200
    headers: tuple[Header, ...] = field(default=())


def document(page: Document) -> Answer:
    """A page as an answer."""
    size = len(page.body)
    headers = (*_SAFE, (b"content-type", page.media_type.encode()), (b"content-length", b"%d" % size), *page.headers)
    return Answer(page.status, headers, page.body, size)


def json_answer(value: object) -> Answer:
    """A response of a row."""
    return document(Document(JSON, msgspec.json.encode(value)))


def nothing(*headers: Header) -> Answer:
    """204."""
    return Answer(204, (*_SAFE, *headers))


def content_answer(content: Content) -> Answer:
    """A download, opened as far as its first piece: what is wrong before that is still a proper error.

    Raises:
        KeysteadError: the first piece does not open.
        EOFError: there is less than was said.
    """
    chunks = iter(content.chunks)
    headers = (*_SAFE, (b"content-type", content.media_type.encode()), (b"content-length", b"%d" % content.size), *_CONTENT)
    if content.size > SMALL:
        return Answer(200, headers, bytes(next(chunks)), content.size, chunks)
    body = b"".join(chunks)
    if len(body) != content.size:
        raise EOFError
    return Answer(200, headers, body, content.size)


def error_answer(error: KeysteadError, *more: Header) -> Answer:
    """An error as a problem document, with the headers its status asks for."""
    shown = problem(error)
    status = status_of(error)[0]
    body = msgspec.json.encode(shown)
    headers = [*_SAFE, (b"content-type", PROBLEM.encode()), (b"content-length", b"%d" % len(body)), *more]
    if isinstance(error, Throttled):
        headers.append((b"retry-after", b"%d" % -(-error.retry_after // 1_000)))
    elif isinstance(error, Unavailable) and status == 503:
        headers.append((b"retry-after", b"%d" % RETRY_AFTER))
    elif isinstance(error, Unauthenticated):
        headers.append((b"www-authenticate", b"Bearer"))
    return Answer(status, tuple(headers), body, len(body), code=error.code)


def unexpected(request_id: str) -> Answer:
    """A defect of ours: what it was stands in the log under the request's id, and nowhere else."""
    return error_answer(
        KeysteadError("unexpected", f"the call {request_id} met a defect of the service", "report it with this id; the log has the trace")
    )
