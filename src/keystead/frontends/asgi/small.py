"""Small exchanges: a body that is read whole, an answer that is sent whole, and nothing left of either that could hurt the next one."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from keystead.core.errors import InvalidRequest, Unavailable
from keystead.frontends.asgi.requests import check_headers, linger

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from keystead.frontends.asgi.protocol import Whole

    Receive = Callable[[], Awaitable[dict[str, Any]]]
    Send = Callable[[dict[str, Any]], Awaitable[None]]
    Header = tuple[bytes, bytes]


class SmallExchange:
    """One request and its answer, in the event loop. Of a request that came in one piece (`protocol.Whole`) nothing is left to wait for.

    Args:
        scope, receive, send: ASGI's.
        pause: seconds a client may go without sending a byte of its body.
        seconds: for all of it.
    """

    def __init__(self, scope: dict[str, Any], receive: Receive, send: Send, *, pause: float, seconds: float) -> None:
        self.scope = scope
        self.receive = receive
        self.send = send
        self.method: str = scope["method"]
        self.headers: dict[bytes, bytes] = dict(scope["headers"])
        self.loop = asyncio.get_running_loop()
        self.pause = pause
        self.deadline = self.loop.time() + seconds
        self.whole: Whole | None = scope.get("keystead.whole")
        self.unread = self.whole is None and (b"content-length" in self.headers or b"transfer-encoding" in self.headers)
        client = scope.get("client")
        self.peer: str = client[0] if client else ""

    def check_headers(self) -> None:
        """Refuse what could be understood in two ways.

        Raises:
            InvalidRequest: `http_invalid`, `header_invalid`, `media_type_wrong`.
        """
        check_headers(self.scope["http_version"], self.scope["headers"], self.headers)

    @property
    def size(self) -> int:
        """Bytes the body is said to have; -1 where that will show."""
        return -1 if b"transfer-encoding" in self.headers else int(self.headers.get(b"content-length", b"0"))

    async def body(self, most: int) -> bytes:
        """The whole body.

        Raises:
            InvalidRequest: `request_too_large`: more than `most` bytes; `body_timed_out`, `upload_cut_off`.
        """
        if self.whole is not None:
            if len(self.whole.body) > most:
                raise _too_large(most)
            return self.whole.body
        if not self.unread:
            return b""
        if self.size > most:
            raise _too_large(most)
        pieces: list[bytes] = []
        received = 0
        while True:
            try:
                async with asyncio.timeout_at(min(self.deadline, self.loop.time() + self.pause)):
                    message = await self.receive()
            except TimeoutError:
                raise InvalidRequest("body_timed_out", "the body did not arrive in time", "send it again, without a pause") from None
            if message["type"] == "http.disconnect":
                self.unread = False
                raise InvalidRequest("upload_cut_off", "the request ended before its stated size", "send it again")
            pieces.append(message["body"])
            received += len(message["body"])
            self.unread = message["more_body"]
            if received > most:
                raise _too_large(most)
            if not self.unread:
                return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    async def within(self, future: asyncio.Future[Any]) -> Any:  # noqa: ANN401 - carries any result
        """What a thread gives, if it does in the time of the call.

        Raises:
            Unavailable: `call_timed_out`.
        """
        expiry = self.loop.call_at(self.deadline, _expire, future)
        try:
            return await future
        finally:
            expiry.cancel()

    async def answer(self, status: int, headers: list[Header], body: bytes) -> None:
        """Send an answer. What is left of the request is read first, and the connection ends with it."""
        if self.whole is not None:
            self.whole.answer(status, headers, body)
            return
        connection = self.scope.get("keystead.connection")
        if connection is not None and connection.lost:
            return
        if self.unread:
            headers = [*headers, (b"connection", b"close")]
        await self.send({"type": "http.response.start", "status": status, "headers": headers})
        if self.unread:
            await self.send({"type": "http.response.body", "body": body, "more_body": True})
            await linger(self.receive)
            await self.send({"type": "http.response.body", "body": b""})
        else:
            await self.send({"type": "http.response.body", "body": body})


def _expire(future: asyncio.Future[Any]) -> None:
    if not future.done():
        future.set_exception(timed_out())


def timed_out() -> Unavailable:
    """A call took longer than it may."""
    return Unavailable("call_timed_out", "the call took longer than it may", "try again")


def _too_large(most: int) -> InvalidRequest:
    return InvalidRequest("request_too_large", f"the body has more than {most} bytes", "send less")
