"""What the application does with answers and bodies, over a dispatcher that does what a test says: real sockets, no stores."""

from __future__ import annotations

import http.client
import json
import logging
import os
import socket
import threading
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest

from keystead.api.call import Content, Upload
from keystead.api.errors import STATUS
from keystead.api.routes import ROUTES
from keystead.api.types import mailboxes as m
from keystead.api.types.base import utc
from keystead.api.types.tenants import ClaimToken, Done, TokenView
from keystead.client.client import Client
from keystead.client.http import HttpTransport
from keystead.core.access.principal import NOBODY, Principal, Role
from keystead.core.configuration import ServerConfig
from keystead.core.errors import (
    ChecksFailed,
    FailedCheck,
    InvalidRequest,
    KeyDenied,
    KeysteadError,
    Throttled,
    Unauthenticated,
    Unavailable,
)  # fmt: skip
from keystead.frontends.http import app as app_module
from keystead.frontends.http.app import Parts
from support.http import running
from support.waiting import until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from keystead.api.routes import Route
    from keystead.frontends.http.credentials import Credentials

ALEX = Principal("alex@contoso.example", "11111111-1111-4111-8111-111111111111", frozenset({Role.USER}))
READ = "/v1/tenants/-/mailboxes/alex@contoso.example/items/x"
PIECE = 1024 * 1024
SECONDS = 60.0


@dataclass
class Stub:
    """In place of the dispatcher; the answer of a row is what its function gives."""

    answers: dict[str, Callable[[Any, Upload | None], Any]] = field(default_factory=dict)
    asked: list[tuple[str, Any, dict[str, Any]]] = field(default_factory=list)
    admitted: list[str] = field(default_factory=list)
    refuse: KeysteadError | None = None

    def run(self, route: Route, request: Any, *, upload: Upload | None = None, **named: Any) -> Any:
        self.asked.append((route.name, request, named))
        return self.answers[route.name](request, upload)

    def admit(self, route: Route, **_named: Any) -> None:
        self.admitted.append(route.name)
        if self.refuse is not None:
            raise self.refuse


@dataclass
class Scene:
    """A running application over a stub."""

    stub: Stub
    url: str
    shown: list[Credentials]

    @contextmanager
    def client(self, who: str = "alex") -> Iterator[Client]:
        transport = HttpTransport(self.url, token=who)
        with closing(transport):
            yield Client(transport, "-")

    def ask(self, method: str, path: str, body: bytes | None = None, **headers: str) -> tuple[int, dict[str, str], bytes]:
        """One request by the standard library's client."""
        parts = urlsplit(self.url)
        connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=SECONDS)
        with closing(connection):
            connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
            answer = connection.getresponse()
            return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()

    def wire(self) -> socket.socket:
        parts = urlsplit(self.url)
        return socket.create_connection((parts.hostname or "", parts.port or 0), timeout=SECONDS)


@contextmanager
def scene(config: ServerConfig | None = None, **parts: Any) -> Iterator[Scene]:
    stub = Stub()
    shown: list[Credentials] = []

    def authenticate(credentials: Credentials) -> Principal:
        shown.append(credentials)
        return ALEX if credentials.bearer else NOBODY

    made = Parts(stub, authenticate, os.urandom, config=config or ServerConfig(), **parts)  # type: ignore[arg-type]  # a stand-in
    with running(made) as url:
        yield Scene(stub, url, shown)


@dataclass
class Chunks:
    """A stream that notes how far it was read, and that it was closed."""

    pieces: list[bytes | Exception]
    given: int = 0
    closed: threading.Event = field(default_factory=threading.Event)

    def stream(self) -> Iterator[bytes]:
        try:
            for piece in self.pieces:
                if isinstance(piece, Exception):
                    raise piece
                self.given += 1
                yield piece
        finally:
            self.closed.set()


def reading(stub: Stub, size: int, *pieces: bytes | Exception) -> Chunks:
    chunks = Chunks(list(pieces))
    stub.answers["mailbox.read"] = lambda _request, _upload: Content(size, "message/rfc822", chunks.stream())
    return chunks


def name_item() -> m.NameItem:
    return m.NameItem(upn="alex@contoso.example", item="x")


# -- downloads ---------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sizes", [[0], [5], [PIECE], [PIECE + 1], [PIECE, PIECE, 7], [3 * PIECE]])
def test_downloads_come_whole(sizes: list[int]) -> None:
    with scene() as at:
        pieces = [os.urandom(size) for size in sizes]
        chunks = reading(at.stub, sum(sizes), *pieces)
        status, headers, body = at.ask("GET", READ)
        assert (status, body) == (200, b"".join(pieces))
        assert headers["content-length"] == str(sum(sizes))
        assert headers["content-disposition"] == "attachment"
        assert headers["content-security-policy"] == "default-src 'none'; sandbox"
        assert "server" not in headers
        assert chunks.closed.wait(SECONDS)


@pytest.mark.parametrize(
    ("size", "pieces"),
    [
        (3 * PIECE, [bytes(PIECE), KeyDenied("denied_by_customer_key", "no")]),
        (3 * PIECE, [bytes(PIECE), RuntimeError("a defect")]),
        (3 * PIECE, [bytes(PIECE), bytes(PIECE)]),
        (2 * PIECE, [bytes(PIECE), bytes(PIECE), b"more"]),
    ],
    ids=["denied", "defect", "too short", "too long"],
)
def test_a_stream_that_fails_half_way_is_cut_and_never_taken_for_the_whole(size: int, pieces: list[bytes | Exception]) -> None:
    """What was opened before the keys said no has gone out; nothing after it, and no end."""
    with scene() as at, at.client() as client:
        chunks = reading(at.stub, size, *pieces)
        content = client.call("mailbox.read", name_item())
        received = 0
        with pytest.raises(Unavailable) as caught:  # noqa: PT012 - the stream is the statement
            for piece in content.chunks:
                received += len(piece)
        assert caught.value.code == "answer_lost"
        assert received <= 2 * PIECE
        assert chunks.closed.wait(SECONDS)
        reading(at.stub, 2, b"ok")
        assert b"".join(client.call("mailbox.read", name_item()).chunks) == b"ok"


def test_what_is_wrong_with_the_first_part_is_a_proper_error() -> None:
    with scene() as at, at.client() as client:
        reading(at.stub, 3 * PIECE, KeyDenied("denied_by_customer_key", "the keys say no", "ask"))
        with pytest.raises(KeyDenied) as caught:
            client.call("mailbox.read", name_item())
        assert (caught.value.code, caught.value.detail, caught.value.mend) == ("denied_by_customer_key", "the keys say no", "ask")
        reading(at.stub, 5, b"four")
        assert json.loads(at.ask("GET", READ)[2])["code"] == "unexpected"


def test_a_client_that_does_not_read_is_not_read_ahead_for_and_is_cut_in_time() -> None:
    """Flat memory: a hundred parts are there, and no more of them are opened than fit on the way."""
    with scene(ServerConfig(body_timeout=500)) as at, closing(at.wire()) as wire:
        wire.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        chunks = reading(at.stub, 100 * PIECE, *[bytes(PIECE)] * 100)
        wire.sendall(f"GET {READ} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
        assert chunks.closed.wait(SECONDS)
        assert chunks.given < 20


def test_a_client_that_goes_away_ends_the_stream() -> None:
    with scene() as at:
        chunks = reading(at.stub, 100 * PIECE, *[bytes(PIECE)] * 100)
        with closing(at.wire()) as wire:
            wire.sendall(f"GET {READ} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
            assert wire.recv(100)
        assert chunks.closed.wait(SECONDS)
        assert chunks.given < 100


def test_head_is_get_without_a_body() -> None:
    with scene() as at:
        for size in (10, 3 * PIECE):
            chunks = reading(at.stub, size, bytes(min(size, PIECE)), bytes(2 * PIECE)) if size > 10 else reading(at.stub, 10, bytes(10))
            status, headers, body = at.ask("HEAD", READ)
            assert (status, headers["content-length"], body) == (200, str(size), b"")
            assert chunks.closed.wait(SECONDS)


def test_options_and_wrong_methods_say_what_a_path_takes_and_other_origins_get_nothing() -> None:
    with scene() as at:
        status, headers, body = at.ask("OPTIONS", "/v1/tenants", Origin="https://evil.example")
        assert (status, headers["allow"], body) == (204, "GET, HEAD, OPTIONS, POST", b"")
        assert not [name for name in headers if name.startswith("access-control")]
        status, headers, body = at.ask("PUT", "/v1/tenants")
        assert (status, headers["allow"], json.loads(body)["code"]) == (405, "GET, HEAD, OPTIONS, POST", "method_not_allowed")
        assert at.ask("OPTIONS", "/v1/nothing")[0] == 404
        assert at.ask("POST", "/healthz")[:1] == (405,)


# -- uploads -----------------------------------------------------------------------------------------------------------------------------


def large() -> m.ImportLarge:
    return m.ImportLarge(upn="alex@contoso.example", position=1, ordinal=1, folder="Inbox")


def test_an_upload_is_read_piece_by_piece_and_waits_for_its_reader() -> None:
    """Flat memory: with the reader standing still, the sender does too."""
    go, sent = threading.Event(), 0
    got: list[int] = []

    def slow(_request: Any, upload: Upload | None) -> Any:
        assert upload is not None
        got.append(len(upload.read(10)))
        go.wait(SECONDS)
        while piece := upload.read(100_000):
            got.append(len(piece))
        return m.ImportResult(imported=1, already_present=0, malformed=[])

    size = 64 * PIECE
    moved = threading.Event()

    def source(n: int) -> bytes:
        nonlocal sent
        piece = bytes(min(n, size - sent))
        sent += len(piece)
        moved.set()
        return piece

    with scene() as at, at.client() as client:
        at.stub.answers["mailbox.import-item"] = slow
        answers: list[Any] = []
        thread = threading.Thread(target=lambda: answers.append(client.call("mailbox.import-item", large(), upload=Upload(size, source))))
        thread.start()
        until(lambda: got)
        while moved.wait(0.3):  # until nothing has moved for a moment
            moved.clear()
        assert sent < 32 * PIECE, "the buffers of two sockets and one mebibyte between them, not the whole"
        go.set()
        thread.join(SECONDS)
        assert answers[0].imported == 1
        assert (got[0], sum(got)) == (10, size)
        assert max(got) <= 100_000


def test_a_sender_that_goes_away_ends_the_reader() -> None:
    seen: list[KeysteadError] = []
    done = threading.Event()

    def read_all(_request: Any, upload: Upload | None) -> Any:
        assert upload is not None
        try:
            while upload.read(1000):
                pass
        except KeysteadError as error:
            seen.append(error)
            raise
        finally:
            done.set()

    with scene() as at:
        at.stub.answers["mailbox.import-item"] = read_all
        with closing(at.wire()) as wire:
            wire.sendall(
                b"PUT /v1/tenants/-/mailboxes/a@b.example/items?position=1&ordinal=1&folder= HTTP/1.1\r\nHost: a\r\n"
                b"Content-Type: application/octet-stream\r\nContent-Length: 1000000\r\n\r\n" + bytes(5000)
            )
        assert done.wait(SECONDS)
        assert isinstance(seen[0], InvalidRequest)
        assert seen[0].code == "upload_cut_off"


def test_a_refused_upload_is_answered_before_its_end() -> None:
    """The sender learns why, although it is still sending."""
    with scene() as at, at.client() as client:

        def refuse(_request: Any, _upload: Upload | None) -> Any:
            raise KeyDenied("denied_by_customer_key", "no")

        at.stub.answers["mailbox.import-item"] = refuse
        with pytest.raises(KeyDenied):
            client.call(
                "mailbox.import-item",
                large(),
                upload=Upload(2 * PIECE, _reader(2 * PIECE)),
            )
        with pytest.raises(InvalidRequest) as caught:
            client.call("mailbox.import-item", large(), upload=Upload(200 * PIECE, _reader(200 * PIECE)))
        assert caught.value.code == "request_too_large"


def _reader(size: int) -> Callable[[int], bytes]:
    left = size

    def read(n: int) -> bytes:
        nonlocal left
        piece = bytes(min(n, left))
        left -= len(piece)
        return piece

    return read


# -- bodies ------------------------------------------------------------------------------------------------------------------------------


def test_a_large_body_is_only_taken_from_somebody_who_may_send_it() -> None:
    item = m.ImportItem(position=1, ordinal=1, folder="", data=bytes(5 * PIECE))
    batch = m.ImportBatch(upn="alex@contoso.example", items=[item])
    with scene() as at, at.client() as client:
        at.stub.answers["mailbox.import"] = lambda request, _upload: m.ImportResult(
            imported=len(request.items[0].data), already_present=0, malformed=[]
        )
        assert client.call("mailbox.import", batch).imported == 5 * PIECE
        assert at.stub.admitted == ["mailbox.import"]
        at.stub.refuse = Unauthenticated("not_signed_in", "nobody is signed in")
        with pytest.raises(Unauthenticated):
            client.call("mailbox.import", batch)
        assert len(at.stub.asked) == 1
        small = m.ImportBatch(upn="alex@contoso.example", items=[m.ImportItem(position=1, ordinal=1, folder="", data=b"x")])
        assert client.call("mailbox.import", small).imported == 1
        assert len(at.stub.admitted) == 2, "small ones are asked about once, with the call itself"


def test_on_public_routes_nobody_is_asked_who_they_are() -> None:
    """So that an old token in the environment is not in the way of claiming a new one."""
    with scene() as at, at.client("expired") as client:
        view = TokenView(id="i", upn="alex@contoso.example", token="t", expires=utc(0))
        at.stub.answers["user.claim"] = lambda _request, _upload: view
        assert client.call("user.claim", ClaimToken(claim_token="c", upn="alex@contoso.example")) == view
        assert at.shown == []
        assert at.stub.asked[0][2]["principal"] == NOBODY


# -- errors ------------------------------------------------------------------------------------------------------------------------------

CHECKS = (
    FailedCheck("vault_protected", "it is not", "protect it", "contosov1"),
    FailedCheck("regions_differ", "they do not", "choose", ""),
)
EVERY_ERROR = [
    *(kind("some_code", "what happened: été", "what to do") for kind in STATUS if kind not in {ChecksFailed, Throttled}),
    ChecksFailed("checks_failed", "two checks failed", CHECKS),
    Throttled("too_many", "too many", "wait", retry_after=7_000),
]


@pytest.mark.parametrize("error", EVERY_ERROR, ids=lambda error: type(error).__name__)
def test_errors_arrive_in_the_class_and_with_the_words_they_had(error: KeysteadError) -> None:
    """R-081: failed checks all together, too."""

    def fail(_request: Any, _upload: Upload | None) -> Any:
        raise error

    with scene() as at, at.client() as client:
        at.stub.answers["mailbox.read"] = fail
        with pytest.raises(type(error)) as caught:
            client.call("mailbox.read", name_item())
        assert type(caught.value) is type(error)
        assert vars(caught.value) == vars(error)


def test_errors_have_the_headers_of_their_status() -> None:
    with scene() as at:
        cases: list[tuple[KeysteadError, int, str, str]] = [
            (Unauthenticated("c", "d"), 401, "www-authenticate", "Bearer"),
            (Throttled("c", "d", retry_after=1_001), 429, "retry-after", "2"),
            (Unavailable("c", "d"), 503, "retry-after", "2"),
        ]
        for error, status, name, value in cases:
            at.stub.answers["mailbox.read"] = _raising(error)
            found, headers, _body = at.ask("GET", READ)
            assert (found, headers[name], headers["content-type"]) == (status, value, "application/problem+json")


def _raising(error: Exception) -> Callable[[Any, Upload | None], Any]:
    def fail(_request: Any, _upload: Upload | None) -> Any:
        raise error

    return fail


def test_a_defect_shows_its_request_id_and_nothing_else_and_the_log_has_the_rest(caplog: pytest.LogCaptureFixture) -> None:
    with scene() as at, at.client() as client, caplog.at_level(logging.ERROR):
        at.stub.answers["mailbox.read"] = _raising(ValueError("select * from secrets"))
        status, headers, body = at.ask("GET", READ)
        identifier = headers["keystead-request-id"]
        assert status == 500
        assert b"secrets" not in body
        assert identifier in json.loads(body)["detail"]
        assert at.stub.asked[-1][2]["request_id"] == identifier
        assert [record for record in caplog.records if identifier in record.getMessage() and record.exc_info]
        with pytest.raises(KeysteadError) as caught:
            client.call("mailbox.read", name_item())
        assert (type(caught.value), caught.value.code) == (KeysteadError, "unexpected")


# -- time --------------------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every call has a second."""
    monkeypatch.setattr(app_module, "ROUTES", tuple(replace(route, timeout=1.0) for route in ROUTES))


def test_a_call_that_takes_too_long_is_answered_and_what_it_gives_later_is_let_go(hasty: None) -> None:
    go = threading.Event()
    chunks = Chunks([bytes(PIECE), bytes(PIECE)])

    def slow(_request: Any, _upload: Upload | None) -> Any:
        go.wait(SECONDS)
        return Content(2 * PIECE, "message/rfc822", chunks.stream())

    with scene() as at:
        at.stub.answers["mailbox.read"] = slow
        status, headers, body = at.ask("GET", READ)
        assert (status, json.loads(body)["code"]) == (503, "call_timed_out")
        assert "retry-after" in headers
        go.set()
        assert chunks.closed.wait(SECONDS), "a late stream is closed"
        assert at.ask("GET", "/healthz")[0] == 200


def test_the_time_of_a_call_covers_its_body_and_its_stream(hasty: None) -> None:
    ended = threading.Event()

    def read_all(_request: Any, upload: Upload | None) -> Any:
        assert upload is not None
        try:
            while upload.read(1000):
                pass
        finally:
            ended.set()

    with scene() as at:
        at.stub.answers["mailbox.import-item"] = read_all
        with closing(at.wire()) as wire:
            wire.sendall(
                b"PUT /v1/tenants/-/mailboxes/a@b.example/items?position=1&ordinal=1&folder= HTTP/1.1\r\nHost: a\r\n"
                b"Content-Type: application/octet-stream\r\nContent-Length: 1000000\r\n\r\n"
            )
            assert b" 503 " in wire.recv(1000)
        assert ended.wait(SECONDS)
        late = Chunks([bytes(PIECE)] * 2)
        hold = threading.Event()

        def waiting() -> Iterator[bytes]:
            yield from (bytes(PIECE),)
            hold.wait(SECONDS)
            yield from late.stream()

        at.stub.answers["mailbox.read"] = lambda _request, _upload: Content(3 * PIECE, "message/rfc822", waiting())
        with at.client() as client, pytest.raises(Unavailable) as caught:
            b"".join(client.call("mailbox.read", name_item()).chunks)
        assert caught.value.code == "answer_lost"
        hold.set()


def test_calls_that_wait_do_not_keep_others_from_running() -> None:
    """There are three threads while calls compute, and more when they wait: for a vault that does not answer, say."""
    go = threading.Event()
    waiting = []

    def wait(_request: Any, _upload: Upload | None) -> Any:
        waiting.append(1)
        go.wait(SECONDS)
        return Done(id="x")

    with scene(ServerConfig(threads=8)) as at, at.client() as client:
        at.stub.answers["mailbox.delete"] = wait
        reading(at.stub, 2, b"ok")
        others = [threading.Thread(target=at.ask, args=("DELETE", "/v1/tenants/-/mailboxes/a@b.example")) for _ in range(7)]
        for thread in others:
            thread.start()
        until(lambda: len(waiting) == 7)
        assert b"".join(client.call("mailbox.read", name_item()).chunks) == b"ok"
        go.set()
        for thread in others:
            thread.join(SECONDS)


# -- health ------------------------------------------------------------------------------------------------------------------------------


def test_readiness_names_the_stores_that_do_not_answer_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app_module, "READY_TIMEOUT", 1.0)
    go, broken, asked = threading.Event(), [False], []

    def database() -> None:
        if broken[0]:
            raise Unavailable("database_unavailable", "postgresql://keystead@10.1.2.3/keystead is gone")

    def objects() -> None:
        asked.append(1)
        if broken[0]:
            go.wait(SECONDS)

    with scene(checks={"database": database, "key store": list, "objects": objects}) as at:
        assert at.ask("GET", "/readyz")[0] == 200
        broken[0] = True
        for _ in range(3):
            status, _headers, body = at.ask("GET", "/readyz")
            assert (status, json.loads(body)["code"], json.loads(body)["detail"]) == (
                503,
                "not_ready",
                "does not answer: database, objects",
            )
        assert len(asked) == 2, "a store that hangs is not asked again meanwhile"
        assert at.ask("GET", "/healthz")[0] == 200
        broken[0] = False
        go.set()
        until(lambda: at.ask("GET", "/readyz")[0] == 200)


def test_credentials_are_taken_from_the_headers_and_never_shown() -> None:
    with scene(ServerConfig(trusted_proxies=("127.0.0.0/8", "10.0.0.1"))) as at:
        reading(at.stub, 2, b"ok")
        at.ask("GET", READ, Authorization="bearer  token-1 ", X_Forwarded_For="6.6.6.6, 192.0.2.7, 10.0.0.1")
        at.ask("GET", READ, Keystead_Home_Secret="s", Keystead_As="alex@contoso.example", X_Forwarded_For="made-up")
        assert [(one.bearer, one.home_secret, one.as_upn, one.client_ip) for one in at.shown] == [
            ("token-1", "", "", "192.0.2.7"),
            ("", "s", "alex@contoso.example", "127.0.0.1"),
        ]
        assert "token-1" not in repr(at.shown)
        assert at.ask("GET", READ, Authorization="Basic YTpi")[0] == 401
