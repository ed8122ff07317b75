"""The service over HTTP: an ASGI application made from ROUTES (docs/spec/http.md).

What happens to a call, in this order:

1. method and path name a row, the headers say who calls, how much comes and of which kind; what breaks a limit is refused unread;
2. a small body is read whole; before a large one is read, its sender must be allowed to send it; an upload goes to its reader piece by
   piece; uploads, and calls that may take minutes, take turns, so that nobody holds all threads;
3. a thread decodes, signs in, runs the row through the dispatcher, and encodes the answer;
4. the answer goes out with its request id; a stream is opened piece by piece as the client takes it.

The event loop never waits for a store or a vault, and no thread ever waits for a client, but for the threads of uploads, which are apart.
Starlette is not between: its routing and its request and response objects cost as much as reading a small item does.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from dataclasses import dataclass, field
from time import perf_counter
from typing import TYPE_CHECKING, Any, Protocol

from keystead.api.call import Content, Upload
from keystead.api.routes import ROUTES, Body, Scope
from keystead.api.wire import JSON, OWN_TENANT, REQUEST_ID, TENANT, takes_body
from keystead.core.access.principal import NOBODY
from keystead.core.configuration import ServerConfig
from keystead.core.errors import InvalidRequest, KeysteadError, Unavailable
from keystead.core.ids import new_id
from keystead.frontends.asgi.requests import ONCE, check_headers, linger
from keystead.frontends.asgi.threads import Threads
from keystead.frontends.http.answers import (
    Answer,
    Document,
    content_answer,
    document,
    error_answer,
    json_answer,
    nothing,
    unexpected,
)
from keystead.frontends.http.credentials import UNIX, Credentials, Proxies, credentials
from keystead.frontends.http.requests import check_media_type, from_body, from_query
from keystead.frontends.http.router import Router
from keystead.frontends.http.turns import Turns
from keystead.frontends.http.uploads import Bridge

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence

    from keystead.api.dispatch import Dispatcher
    from keystead.api.routes import Route
    from keystead.core.access.principal import Principal
    from keystead.core.ids import RandomBytes

    Scope_ = dict[str, Any]
    Receive = Callable[[], Awaitable[dict[str, Any]]]
    Send = Callable[[dict[str, Any]], Awaitable[None]]

log = logging.getLogger("keystead.http")

LARGE_BODY = 64 * 1024
"""Bytes of a request body from which on its sender is asked who they are before the rest is read."""
PIECE = 256 * 1024
"""How much of a download is given to the connection at a time."""
RANDOM_BYTES = 1024
"""For request ids, taken from the system at a time."""
LONG = 300.0
"""Seconds of a row's time limit from which on its calls take turns."""
OF_A_PERSON, OF_A_TENANT = 4, 2
"""One part in so many of the threads is what calls that take turns may hold for one person, and for all of one tenant."""
READY_TIMEOUT = 2.0
"""Seconds a store is given to answer /readyz."""

_ONCE = ONCE | {b"keystead-home-secret", b"keystead-as"}


class Connection(Protocol):
    """What the application may ask of the connection a call came by: `scope["keystead.connection"]`."""

    lost: bool
    """Whether the client has gone."""

    def abort(self) -> None:
        """Cut it, so that what was sent cannot be taken for the whole."""
        ...


@dataclass(frozen=True, slots=True)
class Seen:
    """One call that is over, for logs and figures.

    Attributes:
        route: name of the row, path of a page, or empty where there is neither.
        tenant: the tenant named, as the caller wrote it, or the caller's own; empty where there is no such tenant, and for nobody.
        upn: who called; empty for nobody.
        seconds: from the first byte of the request's head to the last of the answer's body given to the connection.
        received: bytes of the request's body; sent: of the answer's.
        code: of the error, empty for none; `cut_off` for a stream that did not end.
    """

    request_id: str
    route: str
    method: str
    tenant: str
    upn: str
    status: int
    code: str
    seconds: float
    received: int
    sent: int
    client_ip: str


class Observer(Protocol):
    """Is told of each call in the event loop; must not block."""

    def began(self) -> None:
        """The head of a request is there."""
        ...

    def ended(self, seen: Seen) -> None:
        """It is answered, or cut off."""
        ...


@dataclass(frozen=True, slots=True)
class Parts:
    """What the application is made of.

    Attributes:
        dispatcher: runs rows.
        authenticate: who credentials are; NOBODY where there are none.
        random: for request ids.
        checks: of /readyz: name of a store, and what raises when it does not answer.
        pages: documents beside the rows, by path; made in a thread.
        observers: told of each call.
        config: limits.
    """

    dispatcher: Dispatcher
    authenticate: Callable[[Credentials], Principal]
    random: RandomBytes
    checks: Mapping[str, Callable[[], object]] = field(default_factory=dict)
    pages: Mapping[str, Callable[[Credentials], Document]] = field(default_factory=dict)
    observers: Sequence[Observer] = ()
    config: ServerConfig = field(default_factory=ServerConfig)


class HttpApp:
    """The ASGI application; belongs to the event loop it first runs in."""

    def __init__(self, parts: Parts) -> None:
        self.parts = parts
        self.router = Router(ROUTES)
        self.proxies = Proxies(parts.config.trusted_proxies)
        self.pages = {path.encode(): page for path, page in parts.pages.items()}
        self.stopping = False
        self.active = 0
        self.body_timeout = parts.config.body_timeout / 1_000
        self.turns = Turns()
        self._threads: tuple[Threads, Threads, Threads] | None = None
        self._random = b""
        self._checking: dict[str, asyncio.Future[Any]] = {}

    async def __call__(self, scope: Scope_, receive: Receive, send: Send) -> None:
        """Answer one request."""
        assert scope["type"] == "http", "the server is made without web sockets and lifespan"
        self.active += 1
        try:
            await _Exchange(self, scope, receive, send).run()
        finally:
            self.active -= 1

    def new_request_id(self) -> str:
        """A fresh one; the system is asked for random bytes once for many, which costs as much as once for one. They are no secret."""
        if len(self._random) < 16:
            self._random = self.parts.random(RANDOM_BYTES)
        taken, self._random = self._random[:16], self._random[16:]
        return new_id(lambda _n: taken)

    def stop(self) -> None:
        """From now on /readyz says no; calls are still answered."""
        self.stopping = True

    def close(self) -> None:
        """Let the threads go."""
        for threads in self._threads or ():
            threads.close()

    @property
    def calls(self) -> Threads:
        """Threads that run calls."""
        return self._all_threads()[0]

    @property
    def uploads(self) -> Threads:
        """Threads that may wait for a client."""
        return self._all_threads()[1]

    def _all_threads(self) -> tuple[Threads, Threads, Threads]:
        if self._threads is None:
            loop, count = asyncio.get_running_loop(), self.parts.config.threads
            self._threads = (
                Threads(loop, count, "call", _let_go),
                Threads(loop, count, "upload"),
                Threads(loop, max(1, len(self.parts.checks)), "check"),
            )
        return self._threads

    async def ready(self) -> Answer:
        """Whether this process should be given calls: it does not stop, and each store answers in time."""
        if self.stopping:
            raise Unavailable("server_stopping", "the server is stopping", "ask another one, or this one when it is back")
        for name, check in self.parts.checks.items():
            if name not in self._checking:  # a store that hangs holds one thread, however often it is asked for
                self._checking[name] = self._all_threads()[2].submit(check)
        done: set[asyncio.Future[Any]] = set()
        if self._checking:
            done, _pending = await asyncio.wait(self._checking.values(), timeout=READY_TIMEOUT)
        failed = [name for name in self.parts.checks if (one := self._checking[name]) not in done or one.exception() is not None]
        self._checking = {name: one for name, one in self._checking.items() if one not in done}
        if failed:
            raise Unavailable("not_ready", f"does not answer: {', '.join(failed)}", "see the server's log")
        return json_answer({"status": "ready"})


def _let_go(result: object) -> None:
    """An answer nobody waits for any more."""
    if isinstance(result, Answer) and result.rest is not None:
        _close(result.rest)


def _close(chunks: Iterator[bytes]) -> None:
    close = getattr(chunks, "close", None)
    if close is not None:
        with contextlib.suppress(ValueError):  # another thread is still opening a piece; the stream ends when that is dropped
            close()


def _next(chunks: Iterator[bytes]) -> bytes | None:
    """The next piece of a stream; None at its end."""
    return next(chunks, None)


class _Exchange:
    """One request and its answer."""

    def __init__(self, app: HttpApp, scope: Scope_, receive: Receive, send: Send) -> None:
        self.app = app
        self.receive = receive
        self.send = send
        self.method: str = scope["method"]
        self.path: bytes = scope["raw_path"]
        self.query: bytes = scope["query_string"]
        self.fields: list[tuple[bytes, bytes]] = scope["headers"]
        self.headers = dict(self.fields)
        self.version: str = scope["http_version"]
        client = scope.get("client")
        self.peer: str = client[0] if client else ""
        self.connection: Connection = scope["keystead.connection"]
        self.loop = asyncio.get_running_loop()
        self.id = app.new_request_id()
        self.started = perf_counter()
        self.deadline = 0.0
        self.route_name = ""
        self.unread = b"content-length" in self.headers or b"transfer-encoding" in self.headers
        self.received = 0
        self.sent = 0
        self.sending = False
        self.credentials = Credentials()
        self.tenant = ""
        self.dispatched = False
        self.principal = NOBODY

    async def run(self) -> None:
        """Answer, whatever happens; then tell who looks."""
        for observer in self.app.parts.observers:
            observer.began()
        try:
            answer = await self._guarded()
            code = answer.code
            try:
                await self._send(answer)
            except asyncio.CancelledError:  # the server stops and has waited long enough
                code = "cut_off"
            except _ClientGoneError:
                code = "cut_off"
            except _CutOffError as cut:
                code = "cut_off"
                log.warning("the answer to %s was cut off: %s", self.id, cut)
            except Exception:
                code = "cut_off"
                log.exception("the answer to %s was cut off by a defect", self.id)
            if code == "cut_off":
                self.connection.abort()
                if answer.rest is not None:
                    self.app.calls.submit(_close, answer.rest)
        finally:
            seconds = perf_counter() - self.started
            tenant = self._tenant_seen(answer.code)
            upn, client_ip = self.principal.upn, self.credentials.client_ip
            seen = Seen(
                self.id, self.route_name, self.method, tenant, upn, answer.status, code, seconds, self.received, self.sent, client_ip
            )
            for observer in self.app.parts.observers:
                observer.ended(seen)

    def _tenant_seen(self, code: str) -> str:
        """The tenant for the log: nothing that a caller has only made up. A person is answered for one tenant alone."""
        if not self.principal.is_provider:
            return self.principal.tenant_id or ""
        return self.tenant if self.dispatched and code != "tenant_not_found" else ""

    async def _guarded(self) -> Answer:
        try:
            return await self._answer()
        except KeysteadError as error:
            return self._refusal(error)
        except asyncio.CancelledError:
            return error_answer(_stopping())
        except Exception:
            log.exception("the call %s met a defect", self.id)
            return unexpected(self.id)

    def _refusal(self, error: KeysteadError) -> Answer:
        if error.code == "method_not_allowed":
            return error_answer(error, (b"allow", ", ".join(self.app.router.methods(self.path)).encode()))
        return error_answer(error)

    # -- what is asked ---------------------------------------------------------------------------------------------------------------

    async def _answer(self) -> Answer:
        check_headers(self.version, self.fields, self.headers, _ONCE)
        client_ip = self.app.proxies.caller(self.peer, self.headers.get(b"x-forwarded-for", b""))
        self.credentials = credentials(self.headers, client_ip)
        page = self.app.pages.get(self.path)
        if page is not None or self.path in _OWN_PAGES:
            self.route_name = self.path.decode()
            return await self._page(page)
        if self.method == "OPTIONS":
            allowed = self.app.router.methods(self.path)
            if allowed:
                return nothing((b"allow", ", ".join(allowed).encode()))
        route, path = self.app.router.find(self.method, self.path)
        self.route_name = route.name
        self.tenant = _tenant(path)
        self.deadline = self.loop.time() + route.timeout
        size = self._body_size(route)
        if route.body is Body.UPLOAD:
            async with self._turn(route):
                return await self._upload(route, path, size)
        body = await self._body(route, size) if size else b""
        if route.timeout >= LONG and route.body is not Body.DOWNLOAD:
            async with self._turn(route):
                return await self._in_thread(route, path, body)
        return await self._in_thread(route, path, body)

    async def _in_thread(self, route: Route, path: Mapping[str, str], body: bytes) -> Answer:
        return await self._within(self.app.calls.submit(self._call, route, path, body, None))  # type: ignore[no-any-return]  # what _call gives

    @contextlib.asynccontextmanager
    async def _turn(self, route: Route) -> AsyncIterator[None]:
        """What may hold a thread for minutes: for somebody who may call the row, and not for all threads at once."""
        await self._within(self.app.calls.submit(self._admit, route))
        threads = self.app.parts.config.threads
        shares = ((self.principal.upn, OF_A_PERSON), (self.principal.tenant_id or "", OF_A_TENANT))
        async with contextlib.AsyncExitStack() as held:
            try:
                async with asyncio.timeout_at(self.deadline):
                    for whose, share in shares:
                        await held.enter_async_context(self.app.turns.turn(f"{route.body} {whose}", max(1, threads // share)))
            except TimeoutError:
                raise _timed_out() from None
            yield

    async def _page(self, page: Callable[[Credentials], Document] | None) -> Answer:
        if self.method not in {"GET", "HEAD"}:
            if self.method == "OPTIONS":
                return nothing((b"allow", b"GET, HEAD, OPTIONS"))
            error = InvalidRequest("method_not_allowed", f"this path does not take {self.method}", "it takes GET, HEAD, OPTIONS")
            return error_answer(error, (b"allow", b"GET, HEAD, OPTIONS"))
        if page is not None:
            self.deadline = self.loop.time() + 30
            return document(await self._within(self.app.calls.submit(page, self.credentials)))
        if self.path == b"/readyz":
            return await self.app.ready()
        return document(Document(JSON, b'{"status":"ok"}'))

    def _body_size(self, route: Route) -> int:
        """Bytes the body has; -1 where that will show."""
        size = -1 if b"transfer-encoding" in self.headers else int(self.headers.get(b"content-length", b"0"))
        if size and not takes_body(route):
            raise InvalidRequest("request_invalid", f"{route.name} takes no body", "its fields travel as path and query")
        if size > route.max_body:
            raise _too_large(route)
        if size or route.body is Body.UPLOAD:
            check_media_type(route, self.headers.get(b"content-type", b""))
        return size

    # -- bodies ------------------------------------------------------------------------------------------------------------------------

    async def _body(self, route: Route, size: int) -> bytes:
        """A whole body, at most as large as the row takes; a large one only from somebody who may call the row."""
        pieces: list[bytes] = []
        asked = route.scope is Scope.PUBLIC
        while True:
            if not asked and max(size, self.received) > LARGE_BODY:
                asked = True
                await self._within(self.app.calls.submit(self._admit, route))
            piece, more = await self._piece()
            pieces.append(piece)
            if self.received > route.max_body:
                raise _too_large(route)
            if not more:
                return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    async def _piece(self) -> tuple[bytes, bool]:
        """The next bytes of the body, and whether there are more.

        Raises:
            InvalidRequest: the client was too slow, or went away.
            Unavailable: the time of the whole call is up.
        """
        try:
            async with asyncio.timeout_at(min(self.deadline, self.loop.time() + self.app.body_timeout)):
                message = await self.receive()
        except TimeoutError:
            if self.loop.time() >= self.deadline:
                raise _timed_out() from None
            raise InvalidRequest("body_timed_out", "the body did not arrive in time", "send it again, without a pause") from None
        if message["type"] == "http.disconnect":
            self.unread = False
            raise InvalidRequest("upload_cut_off", "the request ended before its stated size", "send it again")
        body: bytes = message["body"]
        more: bool = message["more_body"]
        self.received += len(body)
        self.unread = more
        return body, more

    async def _upload(self, route: Route, path: Mapping[str, str], size: int) -> Answer:
        """Hand the body over while a thread reads it. When either side stops, so does the other."""
        if size < 0:
            raise InvalidRequest("length_missing", f"{route.name} needs the header Content-Length", "say how many bytes there are")
        room = asyncio.Event()
        room.set()
        bridge = Bridge(self.loop, room)
        call = self.app.uploads.submit(self._call, route, path, b"", Upload(size, bridge.read))
        pump = self.loop.create_task(self._pump(bridge, room, size))
        try:
            return await self._within(call)  # type: ignore[no-any-return]  # what _call gives
        except asyncio.CancelledError:
            bridge.fail(_stopping())
            raise
        except KeysteadError as error:
            bridge.fail(error)
            raise
        finally:
            pump.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await pump

    async def _pump(self, bridge: Bridge, room: asyncio.Event, size: int) -> None:
        """Bytes from the connection to the bridge, as fast as they are read at its other end."""
        more = size > 0
        try:
            while more:
                await room.wait()
                piece, more = await self._piece()
                bridge.put(piece)
        except KeysteadError as error:
            bridge.fail(error)
        else:
            bridge.end()

    async def _within(self, future: asyncio.Future[Any]) -> Any:  # noqa: ANN401 - carries any result
        """What a thread gives, if it does in the time of the call."""
        expiry = self.loop.call_at(self.deadline, _expire, future)
        try:
            return await future
        finally:
            expiry.cancel()

    # -- in a thread -------------------------------------------------------------------------------------------------------------------

    def _admit(self, route: Route) -> None:
        """Whether whoever sends a large body may call the row at all."""
        self.principal = self.app.parts.authenticate(self.credentials)
        self.app.parts.dispatcher.admit(
            route, principal=self.principal, tenant=self.tenant, client_ip=self.credentials.client_ip or UNIX, request_id=self.id
        )

    def _call(self, route: Route, path: Mapping[str, str], body: bytes, upload: Upload | None) -> Answer:
        """Run the row; every error becomes an answer here, where the request still is."""
        try:
            if route.scope is not Scope.PUBLIC:  # there nobody is asked who they are, so that no old token is in the way of a new one
                self.principal = self.app.parts.authenticate(self.credentials)
            in_body = takes_body(route) and upload is None
            request = from_body(route, path, body) if in_body else from_query(route, path, self.query)
            self.dispatched = True  # the first thing it does is to find the tenant
            result = self.app.parts.dispatcher.run(
                route,
                request,
                principal=self.principal,
                tenant=self.tenant,
                client_ip=self.credentials.client_ip or UNIX,  # never empty: that is a command on this machine
                request_id=self.id,
                upload=upload,
            )
            return content_answer(result) if isinstance(result, Content) else json_answer(result)
        except KeysteadError as error:
            return error_answer(error)
        except Exception:
            log.exception("the call %s of %s met a defect", self.id, route.name)
            return unexpected(self.id)

    # -- what goes back ----------------------------------------------------------------------------------------------------------------

    async def _send(self, answer: Answer) -> None:
        if self.connection.lost:
            raise _ClientGoneError("the client has gone")
        headers: list[tuple[bytes, bytes]] = [*answer.headers, (_ID_HEADER, self.id.encode())]
        if self.unread:
            headers.append((b"connection", b"close"))
        await self.send({"type": "http.response.start", "status": answer.status, "headers": headers})
        self.sending = True
        if answer.rest is not None and self.method != "HEAD":
            await self._stream(answer, answer.rest)
            return
        if answer.rest is not None:
            self.app.calls.submit(_close, answer.rest)
        if self.unread:
            await self.send({"type": "http.response.body", "body": answer.body, "more_body": True})
            await linger(self.receive)
            await self.send({"type": "http.response.body", "body": b""})
        else:
            await self.send({"type": "http.response.body", "body": answer.body})
        self.sent = len(answer.body)

    async def _stream(self, answer: Answer, rest: Iterator[bytes]) -> None:
        """One piece after another, each opened when the one before is on its way: never ahead of the client, so access is checked late."""
        piece: bytes | None = answer.body
        while piece is not None:
            view = memoryview(piece)
            self.sent += len(view)
            # The last bytes only go out when the stream has ended there: after them the client takes what it has for the whole.
            following = await self._following(rest) if self.sent == answer.size else None
            if self.sent > answer.size or following is not None:
                raise _CutOffError("it is longer than was said")
            for start in range(0, len(view), PIECE):
                await self._give(view[start : start + PIECE])
            piece = await self._following(rest) if self.sent < answer.size else None
        if self.sent < answer.size:
            raise _CutOffError("it ended before the size that was said")
        await self.send({"type": "http.response.body", "body": b""})

    async def _following(self, rest: Iterator[bytes]) -> bytes | None:
        try:
            return await self._within(self.app.calls.submit(_next, rest))  # type: ignore[no-any-return]  # what _next gives
        except KeysteadError as error:
            raise _CutOffError(str(error)) from error

    async def _give(self, piece: memoryview) -> None:
        """A piece to the connection, which takes it when the one before has gone out."""
        try:
            async with asyncio.timeout_at(min(self.deadline, self.loop.time() + self.app.body_timeout)):
                await self.send({"type": "http.response.body", "body": piece, "more_body": True})
        except TimeoutError:
            raise _ClientGoneError("the client does not take it") from None
        if self.connection.lost:
            raise _ClientGoneError("the client has gone")


_ID_HEADER = REQUEST_ID.lower().encode()
_OWN_PAGES = frozenset({b"/healthz", b"/readyz"})


class _CutOffError(Exception):
    """An answer that has begun cannot be finished."""


class _ClientGoneError(_CutOffError):
    """Nobody takes it any more."""


def _tenant(path: Mapping[str, str]) -> str:
    named = path.get(TENANT, "")
    return "" if named == OWN_TENANT else named


def _expire(future: asyncio.Future[Any]) -> None:
    if not future.done():
        future.set_exception(_timed_out())


def _timed_out() -> Unavailable:
    return Unavailable(
        "call_timed_out",
        "the call took longer than its route allows",
        "what it had begun may still have been done: look before trying again",
    )


def _stopping() -> Unavailable:
    return Unavailable("server_stopping", "the server is stopping", "ask another one, or this one when it is back")


def _too_large(route: Route) -> InvalidRequest:
    return InvalidRequest(
        "request_too_large", f"the request of {route.name} is too large; at most {route.max_body} bytes are taken", "send less at a time"
    )
