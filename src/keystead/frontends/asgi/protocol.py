"""The connection: uvicorn's httptools protocol with the limits it does not have.

- A head (request line and headers) must arrive within a time, and within a size; what stands around the chunks of a body, within a size.
- More connections than the limit are answered 503; far more are cut.
- What cannot be parsed is answered in the error shape of the face, or cuts the connection when an answer is under way.
- A client that takes nothing of what waits for it is cut, whether or not its answer is finished: else whoever never reads keeps a
  connection for ever.
- The application may cut a connection, and can see that a client has gone.
- A face of small exchanges (`Refusals.take`) gets a request that came in one piece as a `Whole`, and answers it with one write. uvicorn's own
  way, through a task and messages for each piece, takes several times as long; everything else goes that way.

Every face over HTTP is served by it; what a face adds is its `Refusals`.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn
from urllib.parse import unquote

import httptools
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from keystead.core.errors import InvalidRequest, KeysteadError, Unavailable
from keystead.core.ids import new_id

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Sequence

    from uvicorn._types import ASGI3Application
    from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

    from keystead.core.configuration import ServerConfig
    from keystead.core.ids import RandomBytes

    Plain = tuple[int, tuple[tuple[bytes, bytes], ...], bytes]

log = logging.getLogger("keystead.connections")

LARGEST_HEAD = 32 * 1024
"""Bytes of the request line and all headers."""
MOST_HEADERS = 100
AROUND_A_BYTE = 8
"""Bytes that may stand around each byte of a body in chunks: sizes and line ends. Beyond that, a head's worth is taken."""
LEAST_TAKEN = 64 * 1024
"""Bytes a client takes of a waiting answer within the time of a body's pause, or all of them."""
HOLDING = 0.05
"""Seconds in which the rest of a request may come that then still counts as come in one piece."""
MOST_HELD = 64 * 1024
"""Bytes of such a body that are waited with."""
OVER_LIMIT = 100
"""Connections beyond the limit that are still told so; those beyond these are cut without a word."""
END_OF_TLS = 0.2
"""Seconds that clients which only keep their connection are given to take part in the end of TLS (RFC 8446 section 6.1) at a stop."""


@dataclass(frozen=True, slots=True)
class Refused:
    """A request that was answered without the application: nobody has read what it asks for.

    Attributes:
        size: bytes of the answer's body.
        peer: the client's address; empty where it has none.
    """

    request_id: str
    status: int
    code: str
    size: int
    peer: str


@dataclass(frozen=True, slots=True)
class Refusals:
    """What a face gives its connections.

    Attributes:
        limits: times in milliseconds, and how many connections there may be.
        random: for request ids.
        answer: an error, for a request id, as status, headers (without `connection`) and body.
        tell: told of each refusal in the event loop; must not block.
        take: given what came in one piece, in the event loop; answers it, now or later, or starts an application on it. None: everything goes
            uvicorn's way.
    """

    limits: ServerConfig
    random: RandomBytes
    answer: Callable[[KeysteadError, str], Plain]
    tell: Callable[[Refused], None]
    take: Callable[[Whole], None] | None = None


class _Nobody:
    """Who waits for the rest of a body that is there."""

    def set(self) -> None:
        """Nobody hears it."""


class Whole:
    """A request that came in one piece, and the place for its answer; to the connection a cycle like uvicorn's own.

    It is in its own scope, as `keystead.whole`, until it is answered.

    Attributes:
        body: all of it.
        disconnected: the client has gone, or was cut off: nothing is written any more.
        keep_alive: the connection stays for the next request.
        response_complete: it was answered.
    """

    __slots__ = ("_connection", "body", "disconnected", "keep_alive", "response_complete", "scope")

    message_event: ClassVar = _Nobody()

    def __init__(self, connection: KeysteadProtocol, scope: Any, body: bytes, *, keep_alive: bool) -> None:  # noqa: ANN401 - ASGI's
        self._connection = connection
        self.scope = scope
        self.body = body
        self.disconnected = False
        self.keep_alive = keep_alive
        self.response_complete = False

    def start(self, app: Any) -> None:  # noqa: ANN401 - ASGI's own types are not fixed
        """Have an application answer in a task; it gets no messages."""
        self._connection.start(self, app)

    def give_up(self) -> None:
        """The server stops, and has waited long enough."""
        error = Unavailable("server_stopping", "the server is stopping", "try again")
        self.answer(*self._connection.refusals.answer(error, new_id(self._connection.refusals.random)))

    async def run_asgi(self, app: ASGI3Application) -> None:
        """Run an application, which answers; called by the connection."""
        try:
            await app(self.scope, no_messages, no_messages)
        except Exception:
            log.exception("a request was not answered")
        finally:
            if not self.response_complete and not self.disconnected:
                self._connection.abort()

    def answer(self, status: int, headers: Sequence[tuple[bytes, bytes]], body: bytes, lines: bytes = b"") -> None:
        """Send the answer: one write, which is one record of TLS.

        Args:
            status: HTTP's.
            headers: state its size, and are not about the connection.
            body: all of it.
            lines: more headers that the application has ready as they are written, each with its line end.

        Raises:
            ValueError: a header has a line end in it.
        """
        if self.disconnected or self.response_complete:
            return
        fields = [*self._connection.server_state.default_headers, *headers]
        parts = [STATUS_LINE[status]]
        for name, value in fields:
            parts += (name, b": ", value, b"\r\n")
        head = b"".join(parts)
        if not head.count(b"\n") == head.count(b"\r") == len(fields) + 1:
            raise ValueError("a header has a line end in it")
        self.response_complete = True
        # The two name each other: unless one lets go, every request stays in memory until the collector comes, and the next takes fresh memory.
        self.scope.pop("keystead.whole", None)
        self._connection.answered(head + lines, body if self.scope["method"] != "HEAD" else b"", keep_alive=self.keep_alive)


async def no_messages(*_message: object) -> NoReturn:
    """What an application gets in place of ASGI's receive and send."""
    raise RuntimeError("what came whole has no messages")


class KeysteadProtocol(HttpToolsProtocol):
    """One connection."""

    def __init__(self, refusals: Refusals, **named: Any) -> None:  # noqa: ANN401 - uvicorn gives them
        super().__init__(**named)
        self.refusals = refusals
        self.limits = refusals.limits
        self.lost = False
        self._head_timer: asyncio.TimerHandle | None = None
        self._head_bytes = 0
        self._came_bytes = 0
        self._in_head = True
        self._in_body = False
        self._body_bytes = 0
        self._around_body = 0
        self._too_many = False
        self._taking_timer: asyncio.TimerHandle | None = None
        self._untaken = 0
        self._running: RequestResponseCycle | Whole | None = None
        self._held: list[bytes] | None = None
        self._holding_timer: asyncio.TimerHandle | None = None
        self._resting = False
        self._resting_since = 0.0
        self._resting_timer: asyncio.TimerHandle | None = None
        self._held_keeps = False

    # -- the connection ----------------------------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # uvicorn narrows it the same way
        """A client is there."""
        super().connection_made(transport)
        over = len(self.connections) - self.limits.max_connections
        if over > OVER_LIMIT:
            transport.abort()
            return
        self._too_many = over > 0
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """The client has gone."""
        self.lost = True
        self._head_arrived()
        self._holds_no_more()
        if self._resting_timer is not None:
            self._resting_timer.cancel()
        self._taken()
        self._gone()
        super().connection_lost(exc)
        self._unset_keepalive_if_required()

    def shutdown(self) -> None:
        """The server stops. A client that only keeps its connection does not take part in the end of TLS, so it is not waited for."""
        self._let_go()
        idle = self._idle()
        super().shutdown()
        if idle and not self.transport.get_write_buffer_size():
            self.loop.call_later(END_OF_TLS, self.transport.abort)

    def abort(self) -> None:
        """Cut the connection. Answers to requests that were sent ahead find out by `lost`."""
        self.lost = True
        self._gone()
        if not self._idle():
            self.cycle.disconnected = True  # nothing more is written, and uvicorn does not miss the end of the answer
        self.transport.abort()

    def _start_asgi_task(self, cycle: RequestResponseCycle | Whole, app: ASGI3Application) -> None:
        self._running = cycle
        super()._start_asgi_task(cycle, app)  # type: ignore[arg-type]  # of a cycle it only runs `run_asgi`

    def _gone(self) -> None:
        """Tell the request under way: `cycle`, which is all that uvicorn tells, is the last of those that were sent ahead."""
        if self._running is not None:
            self._running.disconnected = True
            self._running.message_event.set()

    def timeout_keep_alive_handler(self) -> None:
        """Nothing came after the last answer. A client that has not even taken that one does not get to keep the connection open."""
        if self.transport.get_write_buffer_size():
            self.transport.abort()
        super().timeout_keep_alive_handler()

    # -- a client that does not read ---------------------------------------------------------------------------------------------------

    def pause_writing(self) -> None:
        """More waits for the client than should."""
        super().pause_writing()
        self._await_taking()

    def resume_writing(self) -> None:
        """It has taken most of it."""
        self._taken()
        super().resume_writing()

    def on_response_complete(self) -> None:
        """An answer is written; a connection that closes behind it waits for the client to take the rest."""
        super().on_response_complete()
        if self.transport.is_closing():
            self._await_taking()

    def _await_taking(self) -> None:
        left = self.transport.get_write_buffer_size()
        if self._taking_timer is None and left and not self.lost:
            self._untaken = left
            self._taking_timer = self.loop.call_later(self.limits.body_timeout / 1_000, self._not_taken)

    def _taken(self) -> None:
        if self._taking_timer is not None:
            self._taking_timer.cancel()
            self._taking_timer = None

    def _not_taken(self) -> None:
        self._taking_timer = None
        before, left = self._untaken, self.transport.get_write_buffer_size()
        if not left or self.lost:
            return
        if before - left < LEAST_TAKEN:
            self.abort()
        else:
            self._await_taking()

    # -- the head of a request ---------------------------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        """Bytes of a head, of a body, or of the next head."""
        self._resting, self._came_bytes = False, len(data)
        if self._in_head:
            self._head_bytes += len(data)
        in_body, before = self._in_body, self._body_bytes
        super().data_received(data)
        if self.lost or self.transport.is_closing():
            return
        if self._held is not None:
            self._wait_or_let_go()
            return
        if in_body and self._in_body:
            self._count_around(len(data) - (self._body_bytes - before))
        if not self._in_head:
            if self.timeout_keep_alive_task is None and not self._resting and self._idle():
                self._await_head()  # empty lines between two requests: they end the time of an idle connection, and begin no head
        elif self._head_bytes > LARGEST_HEAD:
            self._refuse(_too_large(f"the headers have more than {LARGEST_HEAD} bytes"))
        else:
            self._await_head()

    def _count_around(self, more: int) -> None:
        """Extensions of chunks, and trailers, nobody reads: they must neither keep coming nor pile up on their way to nobody."""
        self._around_body += more
        if self._around_body > LARGEST_HEAD + AROUND_A_BYTE * self._body_bytes:
            self._refuse(_too_large(f"there are more than {LARGEST_HEAD} bytes around the body"))

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header; the trailers of a body are passed over."""
        if self._in_body:
            return
        name = name.lower()
        if name == b"expect" and value.lower() == b"100-continue":
            self.expect_100_continue = True
        self.headers.append((name, value))

    def on_message_begin(self) -> None:
        """The first byte of a request: from here on it has the time of a head. What came with it counts at most once."""
        super().on_message_begin()
        if not self._in_head:
            self._in_head, self._head_bytes = True, 0

    def on_headers_complete(self) -> None:
        """The head is there."""
        small = max(self._head_bytes, self._came_bytes) <= LARGEST_HEAD  # then none of the heads in it can be larger
        self._in_head, self._head_bytes = False, 0
        self._in_body, self._body_bytes, self._around_body = True, 0, 0
        self._head_arrived()
        if self._refused():
            return
        self.scope["keystead.connection"] = self  # type: ignore[typeddict-unknown-key]  # ours alone
        if len(self.headers) > MOST_HEADERS:
            self._refuse(_too_large(f"there are more than {MOST_HEADERS} headers"))
            return
        if not small and len(self.url) + sum(len(name) + len(value) for name, value in self.headers) > LARGEST_HEAD:
            self._refuse(_too_large(f"the headers have more than {LARGEST_HEAD} bytes"))
            return
        if self._too_many:
            self._refuse(Unavailable("server_busy", "the server has as many connections as it takes", "try again in a moment"))
            return
        if self.refusals.take is not None and self._idle() and not self.flow.write_paused:
            self._hold()
        else:
            super().on_headers_complete()

    def on_message_complete(self) -> None:
        """The body is there too; the next byte belongs to another head."""
        self._in_body = False
        if self._refused():
            return
        if self._held is None:
            super().on_message_complete()
            return
        pieces, self._held = self._held, None
        self._holds_no_more()
        whole = Whole(self, self.scope, pieces[0] if len(pieces) == 1 else b"".join(pieces), keep_alive=self._held_keeps)
        self.scope["keystead.whole"] = whole  # type: ignore[typeddict-unknown-key]  # ours alone
        self.cycle = whole  # type: ignore[assignment]  # all that is asked of the last cycle, it has
        self._running = whole
        assert self.refusals.take is not None, "only then it was held"
        try:
            self.refusals.take(whole)
        except Exception:
            log.exception("a request was not answered")
            self.abort()

    def on_body(self, body: bytes) -> None:
        """A piece of a body."""
        self._body_bytes += len(body)
        if self._refused():
            return
        if self._held is None:
            super().on_body(body)
        else:
            self._held.append(body)

    # -- a request that came in one piece ----------------------------------------------------------------------------------------------

    def _hold(self) -> None:
        """Wait with the request for the rest of what has just come in: perhaps the body's end is there too."""
        scope, version = self.scope, self.parser.get_http_version()
        url = httptools.parse_url(self.url)
        scope["method"] = self.parser.get_method().decode("ascii")
        scope["http_version"] = version
        scope["path"] = unquote(url.path.decode("ascii")) if b"%" in url.path else url.path.decode("ascii")
        scope["raw_path"] = url.path
        scope["query_string"] = url.query or b""
        self._held, self._held_keeps = [], version != "1.0" and self.parser.should_keep_alive()

    def _wait_or_let_go(self) -> None:
        """More is to come. Clients that write head and body one after the other have the rest here in a moment."""
        if self.expect_100_continue or self._body_bytes > MOST_HELD:
            self._let_go()
        elif self._holding_timer is None:
            self._holding_timer = self.loop.call_later(HOLDING, self._let_go)

    def _let_go(self) -> None:
        """It does not come in one piece: then it goes uvicorn's way."""
        pieces, self._held = self._held, None
        self._holds_no_more()
        if pieces is None or self.lost or self.transport.is_closing():
            return
        super().on_headers_complete()
        for piece in pieces:
            super().on_body(piece)

    def _holds_no_more(self) -> None:
        if self._holding_timer is not None:
            self._holding_timer.cancel()
            self._holding_timer = None

    def start(self, whole: Whole, app: ASGI3Application) -> None:
        """See `Whole.start`."""
        self._start_asgi_task(whole, app)

    def give_up(self) -> None:
        """The server has waited long enough for the request under way."""
        if isinstance(self._running, Whole):
            self._running.give_up()

    def answered(self, head: bytes, body: bytes, *, keep_alive: bool) -> None:
        """Write an answer whose head lacks its last line."""
        self.transport.write(b"".join((head, b"\r\n" if keep_alive else b"connection: close\r\n\r\n", body)))
        if not keep_alive:
            self.transport.close()
        if self.pipeline or self.transport.is_closing():
            self.on_response_complete()
            return
        self.server_state.total_requests += 1
        self.flow.resume_reading()
        self._rest()

    def _rest(self) -> None:
        """Nothing is under way: the connection is kept for a while. The timer is let run out; one a request would cost more than looking then."""
        self._resting, self._resting_since = True, self.loop.time()
        if self._resting_timer is None:
            self._resting_timer = self.loop.call_later(self.timeout_keep_alive, self._rested)

    def _rested(self) -> None:
        self._resting_timer = None
        if not self._resting:
            return
        left = self._resting_since + self.timeout_keep_alive - self.loop.time()
        if left <= 0:
            self.timeout_keep_alive_handler()
        else:
            self._resting_timer = self.loop.call_later(left, self._rested)

    def _refused(self) -> bool:
        return self.transport.is_closing()

    def _idle(self) -> bool:
        """Whether no request is under way; there is no cycle before the first one."""
        cycle: RequestResponseCycle | Whole | None = self.cycle
        return cycle is None or cycle.response_complete

    def _await_head(self) -> None:
        if self._head_timer is None:
            self._head_timer = self.loop.call_later(self.limits.header_timeout / 1_000, self._head_late)

    def _head_arrived(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _head_late(self) -> None:
        self._head_timer = None
        if self.transport.is_closing():
            return
        if not self._idle():
            self._await_head()  # a client that sends ahead may wait with the rest until it has its answer
        elif not self._head_bytes and self._in_head:
            self.transport.close()
        else:
            self._refuse(InvalidRequest("body_timed_out", "the request did not arrive in time", "send it again, without a pause"))

    # -- answering without the application ---------------------------------------------------------------------------------------------

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002 - the parser's words say nothing to people
        """What came is no HTTP."""
        self._refuse(InvalidRequest("http_invalid", "this is no valid HTTP/1.1 request", ""))

    def _refuse(self, error: KeysteadError) -> None:
        """Answer and close; where another answer is under way nothing may be written in its middle, so the connection is cut."""
        self._head_arrived()
        if not self._idle():
            self.abort()
            return
        request_id = new_id(self.refusals.random)
        status, headers, body = self.refusals.answer(error, request_id)
        peer = self.client[0] if self.client else ""
        self.refusals.tell(Refused(request_id, status, error.code, len(body), peer))
        lines = [STATUS_LINE[status]]
        for name, value in (*headers, (b"connection", b"close")):
            lines += [name, b": ", value, b"\r\n"]
        self.transport.write(b"".join([*lines, b"\r\n", body]))
        self.transport.close()
        self._await_taking()


def _too_large(what: str) -> InvalidRequest:
    return InvalidRequest("headers_too_large", what, "send less in the headers")


def protocol_of(refusals: Refusals) -> type[KeysteadProtocol]:
    """The protocol with the limits and the error shape of a face; uvicorn makes one of it for each connection."""

    class LimitedProtocol(KeysteadProtocol):
        """With these limits."""

        def __init__(self, **named: Any) -> None:  # noqa: ANN401 - uvicorn gives them
            super().__init__(refusals, **named)

    return LimitedProtocol
