"""The keys face of vaults over HTTP: an ASGI application made from ROWS, which the SDKs of the service it stands in for take for theirs.

What happens to a call, in this order (docs/spec/vault-http.md):

1. the address names the vault; a call without a token is answered with the challenge at once, its body unread;
2. a small body is read whole; before a large one is read, its sender's token is checked, and that the sender may do what it is for;
3. a thread checks the token, that it is of the vault's tenant, the row, the version of the interface and the body, and runs the row; rows
   that take seconds have threads of their own, so that one vault's keys in the making hold up nobody who only uses theirs;
4. the answer goes out with its request id.

A call with a good token is in the vault's log whatever comes of it (R-067): use cases record what reaches them, and this module what does not.
Calls without one are there too, counted by address (`vault/strangers.py`).
"""

from __future__ import annotations

import asyncio
import logging
import os
from contextlib import suppress
from functools import lru_cache
from itertools import takewhile
from time import monotonic
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import unquote_plus

import msgspec

from keystead.core.errors import InvalidRequest, KeysteadError, Unauthenticated, Unavailable
from keystead.core.ids import is_id, new_id
from keystead.frontends.asgi.protocol import Refusals, no_messages
from keystead.frontends.asgi.small import SmallExchange, timed_out
from keystead.frontends.asgi.threads import KEPT, Later, Threads
from keystead.frontends.vault_http.errors import UNEXPECTED, Call, document, error_body, retry_after, told
from keystead.frontends.vault_http.handlers import Asked
from keystead.frontends.vault_http.parts import Served, VaultParts
from keystead.frontends.vault_http.routes import API_VERSIONS, SMALL, allowed, find, place
from keystead.frontends.vault_http.shapes import MemberInvalidError
from keystead.vault import strangers
from keystead.vault.lookup import check_permitted
from keystead.vault.record import MAX_CLIENT_INFO, Act, refused
from keystead.vault.services import Identity

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from keystead.frontends.asgi.protocol import Plain, Refused, Whole
    from keystead.frontends.asgi.small import Header, Receive, Send
    from keystead.frontends.vault_http.routes import Row
    from keystead.recent import Report

__all__ = ["Served", "VaultApp", "VaultParts", "refusals"]

log = logging.getLogger("keystead.vault_http")

CALL_SECONDS = 60.0
"""For one call, its body included; making an RSA-4096 key takes up to a few."""
LOOK_SECONDS = 1.0
"""Between two looks for calls that take longer."""
RANDOM_BYTES = 1_024
"""For request ids, taken from the system at a time."""
MAX_TOKEN = 16 * 1024
"""Characters of a bearer token that are looked at."""
HEAVY_AT_ONCE = 2
"""Threads for rows that take seconds. The next ones wait, while all others go on."""
LARGE_AT_ONCE = 16
"""Large bodies in memory; the next ones are not read before."""
ID_CHARACTERS = 36
"""Of a UUID in its usual spelling, which is the only one that is echoed."""

JSON = b"application/json; charset=utf-8"
_JSON = b"application/json"
_TOKEN_BYTES = bytes(range(0x21, 0x7F))
_ALWAYS: tuple[Header, ...] = (
    (b"cache-control", b"no-cache"),
    (b"pragma", b"no-cache"),
    (b"expires", b"-1"),
    (b"x-content-type-options", b"nosniff"),
    (b"strict-transport-security", b"max-age=31536000;includeSubDomains"),
)


class Answer(NamedTuple):
    """One answer; `headers` are those of its own."""

    status: int
    body: bytes = b""
    headers: tuple[Header, ...] = ()


class VaultApp:
    """The ASGI application; belongs to the event loop it first runs in."""

    def __init__(self, parts: VaultParts) -> None:
        self.parts = parts
        self.large = asyncio.Semaphore(LARGE_AT_ONCE)
        self._threads: Threads | None = None
        self._heavy: Threads | None = None
        self._random = b""
        self._waiting: dict[_Exchange, None] = {}
        self._looking = False

    async def __call__(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        """Answer one request."""
        assert scope["type"] == "http", "the server is made without web sockets and lifespan"
        await _Exchange(self, scope, receive, send).run()

    def take(self, whole: Whole) -> None:
        """Answer a request that came in one piece: a thread runs it, and what it gives goes straight to the connection."""
        exchange = _Exchange(self, whole.scope, no_messages, no_messages)
        if not exchange.begin(whole.body):
            whole.start(self)
        elif not exchange.done():
            self._waiting[exchange] = None
            if not self._looking:
                self._looking = True
                asyncio.get_running_loop().call_later(LOOK_SECONDS, self._look)

    def finished(self, exchange: _Exchange) -> None:
        """One of them was answered."""
        self._waiting.pop(exchange, None)

    def _look(self) -> None:
        """Whether some have waited too long; they are in the order in which they came, and have the same time."""
        now = asyncio.get_running_loop().time()
        late = list(takewhile(lambda one: one.http.deadline <= now, self._waiting))
        for exchange in late:
            exchange.set_exception(timed_out())
        self._looking = bool(self._waiting)
        if self._looking:
            asyncio.get_running_loop().call_later(LOOK_SECONDS, self._look)

    def new_request_id(self) -> str:
        """A fresh one; the system is asked for random bytes once for many. They are no secret."""
        if len(self._random) < 16:
            self._random = self.parts.services.random(RANDOM_BYTES)
        taken, self._random = self._random[:16], self._random[16:]
        return new_id(lambda _n: taken)

    def stop(self) -> None:
        """The server takes no more connections; calls under way are finished."""

    def close(self) -> None:
        """Let the threads go."""
        for threads in (self._threads, self._heavy):
            if threads is not None:
                threads.close()

    @property
    def heavy(self) -> Threads:
        """Threads that run the rows that take seconds."""
        if self._heavy is None:
            self._heavy = Threads(asyncio.get_running_loop(), HEAVY_AT_ONCE, "vault-heavy")
        return self._heavy

    @property
    def calls(self) -> Threads:
        """Threads that run calls."""
        if self._threads is None:
            # Calls wait for nothing: their rows are remembered and others commit their records. On one core a second thread only takes turns.
            kept = min(KEPT, len(os.sched_getaffinity(0)))
            threads = self._threads = Threads(asyncio.get_running_loop(), self.parts.config.threads, "vault-call", kept=kept)
            self.parts.services.journal.coming = lambda: threads.waiting
        return self._threads


def refusals(parts: VaultParts, take: Callable[[Whole], None]) -> Refusals:
    """What connections of this face are refused with, and who takes what came in one piece."""

    def answer(error: KeysteadError, request_id: str) -> Plain:
        made = error_answer(error)
        headers = (*_ALWAYS, *_content(made), *made.headers, (b"x-ms-request-id", request_id.encode()))
        return made.status, headers, made.body

    def tell(seen: Refused) -> None:
        log.info("a request from %s was refused unread: %s", seen.peer, seen.code)

    return Refusals(parts.config, parts.services.random, answer, tell, take)


def error_answer(error: KeysteadError, call: Call | None = None) -> Answer:
    """An error with the headers its status asks for; the challenge apart. `call`: what it is the answer to, where the caller is known."""
    headers: list[Header] = []
    wait = retry_after(error)
    if wait:
        headers.append((b"retry-after", b"%d" % wait))
    return Answer(told(error).status, error_body(error, call), tuple(headers))


def challenge(served: Served) -> Header:
    """Where to sign in, and for what (RFC 6750 section 3, in the words the SDKs look for)."""
    return b"www-authenticate", f'Bearer authorization="{served.authority_url}", resource="{served.resource}"'.encode()


class _Exchange:
    """One request and its answer; of one that came in one piece, itself what waits for the answer of a thread (`Waiting`)."""

    def __init__(self, app: VaultApp, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        self.app = app
        self.parts = app.parts
        config = app.parts.config
        self.http = SmallExchange(scope, receive, send, pause=config.body_timeout / 1_000, seconds=CALL_SECONDS)
        self.path: bytes = scope["raw_path"]
        self.pairs, self.pairs_once = _pairs(scope["query_string"])
        self.id = app.new_request_id()
        self.came = monotonic()
        given = self.http.headers.get(b"x-ms-client-request-id", b"").decode("latin-1")
        self.client_id = given if len(given) == ID_CHARACTERS and is_id(given) else ""
        self.served: Served | None = None

    # -- what came in one piece --------------------------------------------------------------------------------------------------------

    def begin(self, body: bytes) -> bool:
        """Hand the call to a thread, or answer at once what is none; False for a large one, of which other things are asked first."""
        try:
            served, token, row, named, refusal = self._asked()
            if not 0 <= self.http.size <= SMALL:
                return False
            self._threads(row, refusal).hand_over(self, self._call, served, token, row, named, refusal, body)
        except BaseException as error:  # noqa: BLE001 - told to the caller
            self.set_exception(error)
        return True

    def done(self) -> bool:
        """It was answered, or nobody is there any more."""
        whole = self._whole()
        return whole.response_complete or whole.disconnected

    def set_result(self, answer: Answer) -> None:
        """Send the answer of the thread."""
        self.app.finished(self)
        try:
            self._send(answer)
        except Exception:
            log.exception("the call %s met a defect", self.id)
            self._send(self._unexpected())

    def set_exception(self, error: BaseException) -> None:
        """Send what came instead."""
        self.set_result(self._failed(error))

    def _send(self, answer: Answer) -> None:
        region = "" if self.served is None else self.served.region
        lines = _lines(self.http.peer, region, self.parts.version)
        headers = [*_content(answer), *self._own_headers(answer)]
        self._whole().answer(answer.status, headers, answer.body, lines)

    def _whole(self) -> Whole:
        assert self.http.whole is not None, "called of what came in one piece alone"
        return self.http.whole

    # -- what comes in several ---------------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Answer, whatever happens."""
        try:
            answer = await self._answer()
        except BaseException as error:  # noqa: BLE001 - told to the caller
            answer = self._failed(error)
        await self.http.answer(*self._complete(answer))

    def _failed(self, error: BaseException) -> Answer:
        if isinstance(error, KeysteadError):
            return error_answer(error)
        if isinstance(error, asyncio.CancelledError):  # the server stops and has waited long enough
            return error_answer(Unavailable("server_stopping", "the server is stopping", "try again"))
        log.error("the call %s met a defect", self.id, exc_info=error)
        return self._unexpected()

    def _complete(self, answer: Answer) -> tuple[int, list[Header], bytes]:
        """An answer with all its headers."""
        region = "" if self.served is None else self.served.region
        usual = _usual(self.http.peer, region, self.parts.version)
        return answer.status, [*usual, *_content(answer), *self._own_headers(answer)], answer.body

    def _own_headers(self, answer: Answer) -> list[Header]:
        """Those that no other answer has."""
        headers = [*answer.headers, (b"x-ms-request-id", self.id.encode())]
        if self.client_id:
            headers.append((b"x-ms-client-request-id", self.client_id.encode()))
        if answer.status == 401 and self.served is not None:
            headers.append(challenge(self.served))
        if answer.status == 405:
            headers.append((b"allow", ", ".join(allowed(self.path)).encode()))
        return headers

    def _asked(self) -> tuple[Served, str, Row | None, Mapping[str, str], KeysteadError | None]:
        """Which vault is asked, with which token, for which row, or why there is none.

        Raises:
            KeysteadError: nobody is asked.
        """
        self.http.check_headers()
        self.served = served = self.parts.resolve(self.http.scope)
        try:
            token = self._token()
        except Unauthenticated as error:
            reports = self._note(served, error)
            if reports:
                self.app.calls.submit(self._record, reports)
            raise
        return served, token, *self._row()

    async def _answer(self) -> Answer:
        http = self.http
        served, token, row, named, refusal = self._asked()
        if 0 <= http.size <= SMALL:
            return await self._read_and_run(served, token, row, named, refusal)
        # Whoever sends much, or does not say how much, is asked who they are first.
        unfit = await http.within(self.app.calls.submit(self._unfit_to_send, served, token, row))
        if row is None or row.most <= SMALL or unfit is not None:
            return await self._read_and_run(served, token, row, named, refusal or unfit)
        try:
            async with asyncio.timeout_at(http.deadline):
                await self.app.large.acquire()
        except TimeoutError:
            raise Unavailable("server_busy", "the server has as many large bodies as it takes", "try again in a moment") from None
        try:
            return await self._read_and_run(served, token, row, named, refusal)
        finally:
            self.app.large.release()

    async def _read_and_run(
        self, served: Served, token: str, row: Row | None, named: Mapping[str, str], refusal: KeysteadError | None
    ) -> Answer:
        """The answer; of a body nothing is read beyond what its row takes, and of one that will be refused nothing beyond a small one."""
        body = b""
        try:
            body = await self.http.body(SMALL if row is None or refusal is not None else row.most)
        except InvalidRequest as error:
            refusal = refusal or error
        self.came = monotonic()
        call = self._threads(row, refusal).submit(self._call, served, token, row, named, refusal, body)
        return await self.http.within(call)  # type: ignore[no-any-return]  # what _call gives

    def _threads(self, row: Row | None, refusal: KeysteadError | None) -> Threads:
        return self.app.heavy if row is not None and row.heavy and refusal is None else self.app.calls

    def _token(self) -> str:
        """The bearer token.

        Raises:
            Unauthenticated: `token_missing`.
        """
        scheme, _, rest = self.http.headers.get(b"authorization", b"").partition(b" ")
        given = rest.strip(b" ")
        # No expression: a token is long, and this is looked at in every call.
        if scheme.lower() != b"bearer" or not given or len(given) > MAX_TOKEN or given.translate(None, _TOKEN_BYTES):
            raise Unauthenticated("token_missing", "the call carries no access token", "sign in where the challenge of this answer says")
        return given.decode("ascii")

    def _row(self) -> tuple[Row | None, Mapping[str, str], KeysteadError | None]:
        """The row, or why there is none: that is told to those who have signed in."""
        try:
            row, named = find(self.http.method, self.path)
        except KeysteadError as error:
            return None, {}, error
        return row, named, None

    # -- in a thread -------------------------------------------------------------------------------------------------------------------

    def _unfit_to_send(self, served: Served, token: str, row: Row | None) -> KeysteadError | None:
        """Why the sender of a large body may not do what it is for; None where it may.

        Raises:
            Unauthenticated: the token is not good.
        """
        identity = self._identity(self.parts.verify(token, served.resource, self.came), served)
        if row is None or row.most <= SMALL:
            return None
        try:
            _check_tenant(identity, served)
            check_permitted(self.parts.services, identity, served.vault, row.needs)
        except KeysteadError as error:
            return error
        return None

    def _call(
        self, served: Served, token: str, row: Row | None, named: Mapping[str, str], refusal: KeysteadError | None, body: bytes
    ) -> Later:
        """The answer, to be sent when the log records of the call are durable (R-067); no thread waits for that."""
        with self.parts.services.journal.gathering() as gathered:
            answer = self._made(served, token, row, named, refusal, body)
        return Later(answer, gathered.when_durable)

    def _made(
        self, served: Served, token: str, row: Row | None, named: Mapping[str, str], refusal: KeysteadError | None, body: bytes
    ) -> Answer:
        identity: Identity | None = None
        try:
            try:
                identity = self._identity(self.parts.verify(token, served.resource, self.came), served)
            except Unauthenticated as error:
                self._record(self._note(served, error))
                raise
            return self._run(served, identity, row, named, refusal, body)
        except KeysteadError as error:
            return error_answer(error, None if identity is None or row is None else _asked_for(served, identity, row, named))
        except Exception:
            log.exception("the call %s met a defect", self.id)
            return self._unexpected()

    def _note(self, served: Served, error: KeysteadError) -> list[Report[strangers.Stranger]]:
        """Count a call that nobody vouches for; what is to be recorded of such calls now."""
        return strangers.note(self.parts.services, served.tenant_id, served.vault, self.http.peer, error.code)

    def _record(self, reports: list[Report[strangers.Stranger]]) -> None:
        """In a thread. Nothing was done for whoever made such calls: where it cannot be written, this process's own log says so."""
        try:
            strangers.record(self.parts.services, reports)
        except KeysteadError as error:
            log.warning("calls without a good token could not be recorded: %s", error.code)

    def _identity(self, identity: Identity, served: Served) -> Identity:
        """The caller, and what the log tells of the call."""
        version = self.pairs.get("api-version", "")
        known = version in API_VERSIONS
        return Identity(
            identity.principal,
            identity.tenant_id,
            self.http.peer,
            self.client_id.lower() or self.id,
            identity.roles,
            self.http.headers.get(b"user-agent", b"").decode("latin-1")[:MAX_CLIENT_INFO],
            f"{served.base_url}{self.path.decode('latin-1')}?api-version={version}"
            if known
            else f"{served.base_url}{self.path.decode('latin-1')}",
            version if known else "",
            identity.stamp,
        )

    def _run(
        self, served: Served, identity: Identity, row: Row | None, named: Mapping[str, str], refusal: KeysteadError | None, body: bytes
    ) -> Answer:
        try:
            _check_tenant(identity, served)
            if row is None or refusal is not None:
                raise refusal or KeysteadError("unexpected", "there is no row and no reason")
            api, query = self._version(row)
            asked = Asked(self.parts.services, identity, served, api, *place(named), query)
            shape = None if row.takes is None else self._decoded(row, body)
        except KeysteadError as error:
            refused(self.parts.services, identity, _act(served, row, named), error)
            raise
        try:
            result = row.handler(asked, shape)
        except MemberInvalidError as unread:
            refused(self.parts.services, identity, _act(served, row, named), unread.error)
            raise unread.error from None
        if result is None:
            return Answer(204)
        return Answer(200, msgspec.json.encode(result))

    def _version(self, row: Row) -> tuple[int, Mapping[str, str]]:
        """How far the version of the interface goes, and the query.

        Raises:
            InvalidRequest: `query_invalid`, `api_version_missing`, `api_version_not_supported`.
        """
        query = self.pairs
        if not self.pairs_once:
            raise InvalidRequest("query_invalid", "a parameter of the query is there more than once", "give it once")
        version = query.get("api-version", "")
        if not version:
            raise InvalidRequest("api_version_missing", "the parameter api-version is missing", f"give one of {', '.join(API_VERSIONS)}")
        api = API_VERSIONS.get(version, -1)
        if api < row.since:
            raise InvalidRequest(
                "api_version_not_supported",
                f"The specified version ({version[:32]}) is not recognized. Consider using the latest supported version (7.6).",
                f"give one of {', '.join(API_VERSIONS)}",
            )
        return api, query

    def _decoded(self, row: Row, body: bytes) -> object:
        """The body in the row's shape. The texts name places in it, never what stands there.

        Raises:
            InvalidRequest: `media_type_wrong`, `request_invalid`.
        """
        media_type = self.http.headers.get(b"content-type", _JSON)
        if media_type != _JSON and media_type.partition(b";")[0].strip().lower() != _JSON:
            raise InvalidRequest("media_type_wrong", "the body is not application/json", "send JSON")
        assert row.takes is not None, "asked for by the caller"
        try:
            return msgspec.json.decode(body, type=row.takes)
        except msgspec.ValidationError as error:
            raise InvalidRequest(
                "request_invalid", f"the body does not fit: {error}", "docs/spec/vault-http.md has its properties"
            ) from None
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise InvalidRequest("request_invalid", "the body is not JSON", "send one JSON object in UTF-8") from None

    def _unexpected(self) -> Answer:
        """A defect of ours: what it was stands in the log under the request's id, and nowhere else."""
        return Answer(UNEXPECTED.status, document(UNEXPECTED, f"the call {self.id} met a defect of the service"))


def _act(served: Served, row: Row | None, named: Mapping[str, str]) -> Act:
    """What a call is about that comes to nothing; a name that is none is not repeated."""
    name, version = "", None
    with suppress(InvalidRequest):
        name, version = place(named)
    return Act("Unknown" if row is None else row.operation, served.vault, name, version)


def _check_tenant(identity: Identity, served: Served) -> None:
    if identity.tenant_id.lower() != served.tenant_id:
        raise Unauthenticated(
            "token_tenant_wrong", "the token is of another tenant than the vault", "sign in where the challenge of this answer says"
        )


def _asked_for(served: Served, identity: Identity, row: Row, named: Mapping[str, str]) -> Call:
    """What the text of a refusal may name."""
    name, version = "", None
    with suppress(InvalidRequest):
        name, version = place(named)
    who = identity.principal.name
    return Call(
        row.name.removesuffix("Current"),
        row.needs,
        name,
        name if version is None else f"{name}/{version}",
        served.vault,
        served.region,
        f"appid={who};oid={who};iss={served.authority_url}/v2.0",
        identity.client_ip,
        served.rbac,
    )


def _pairs(query: bytes) -> tuple[Mapping[str, str], bool]:
    """A query, and whether each parameter is there once. What means nothing here is passed over later."""
    found = _USUAL_QUERIES.get(query)
    if found is not None:
        return found, True
    text = query.decode("latin-1")
    parts = [part.partition("=") for part in text.split("&") if part]
    pairs = {unquote_plus(name): unquote_plus(value) for name, _, value in parts}
    return pairs, len(pairs) == len(parts)


_USUAL_QUERIES: Mapping[bytes, Mapping[str, str]] = {
    f"api-version={version}".encode(): MappingProxyType({"api-version": version}) for version in API_VERSIONS
}
"""All that most calls ask beside their path."""


@lru_cache(maxsize=1_024)
def _usual(peer: str, region: str, version: str) -> tuple[Header, ...]:
    """What the services say with every answer to a caller."""
    family, network = (b"Ipv6", b"InterNetworkV6") if ":" in peer else (b"Ipv4", b"InterNetwork")
    about = (
        (b"x-ms-keyvault-service-version", version.encode()),
        (b"x-ms-keyvault-network-info", b"conn_type=%s;addr=%s;act_addr_fam=%s;" % (family, peer.encode(), network)),
    )
    return (*_ALWAYS, *about, *(((b"x-ms-keyvault-region", region.encode()),) if region else ()))


@lru_cache(maxsize=1_024)
def _lines(peer: str, region: str, version: str) -> bytes:
    """The same as it is written."""
    headers = _usual(peer, region, version)
    lines = b"".join(b"%s: %s\r\n" % header for header in headers)
    assert lines.count(b"\n") == lines.count(b"\r") == len(headers), "regions and versions are names"
    return lines


def _content(answer: Answer) -> tuple[Header, ...]:
    if answer.status == 204:
        return ()
    return (b"content-type", JSON), (b"content-length", b"%d" % len(answer.body))
