"""What every face asks of a request before it looks at it, and does with what is left of one."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

from keystead.core.errors import InvalidRequest

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

LINGER_BYTES, LINGER_SECONDS = 4 * 1024 * 1024, 2.0
"""What is still read, and thrown away, of a request that was answered before its end: else the answer could be lost with the connection."""

ONCE = frozenset({b"authorization", b"content-type", b"content-length", b"transfer-encoding", b"host"})
"""Headers that mean nothing, or two things, when they are there twice."""

_VERSIONS = frozenset({"1.0", "1.1"})


def check_headers(
    version: str, fields: Sequence[tuple[bytes, bytes]], headers: Mapping[bytes, bytes], once: frozenset[bytes] = ONCE
) -> None:
    """Refuse what could be understood in two ways.

    Args:
        version: of HTTP.
        fields: the headers as they came.
        headers: the same by name.
        once: headers that may be there once.

    Raises:
        InvalidRequest: `http_invalid`, `header_invalid`, `media_type_wrong`.
    """
    if version not in _VERSIONS:
        raise InvalidRequest("http_invalid", "this is no valid HTTP/1.1 request", "")
    if headers.get(b"transfer-encoding", b"chunked").lower() != b"chunked":
        raise InvalidRequest("header_invalid", "Transfer-Encoding may only be chunked", "send it without any other encoding")
    if version == "1.1" and b"host" not in headers:
        raise InvalidRequest("header_invalid", "the header Host is missing", "HTTP/1.1 needs it")
    if len(headers) != len(fields):
        names = [name for name, _value in fields]
        for name in once:
            if names.count(name) > 1:
                raise InvalidRequest("header_invalid", f"the header {name.decode()} is there more than once", "send it once")
    if headers.get(b"content-encoding", b"identity").lower() != b"identity":
        raise InvalidRequest("media_type_wrong", "compressed requests are not taken", "send it without Content-Encoding")


async def linger(receive: Callable[[], Awaitable[dict[str, Any]]]) -> None:
    """Read on for a moment after an early answer: closing with bytes unread would make the system throw the answer away."""
    left = LINGER_BYTES
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(LINGER_SECONDS):
            while left > 0:
                message = await receive()
                if message["type"] == "http.disconnect" or not message["more_body"]:
                    return
                left -= len(message["body"])
