"""Clients that hold what others need: connections, threads, memory. Real sockets, no stores."""

from __future__ import annotations

import http.client
import os
import socket
import threading
import time
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest

from keystead.api.types.base import utc
from keystead.api.types.mailboxes import ImportResult
from keystead.api.types.tenants import TenantView
from keystead.core.access.principal import NOBODY, Principal, Role
from keystead.core.configuration import ServerConfig
from keystead.core.errors import Unauthenticated
from keystead.frontends.http.answers import Document
from keystead.frontends.http.app import Parts, Seen
from support.http import running
from support.waiting import until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from keystead.api.call import Upload
    from keystead.api.routes import Route
    from keystead.frontends.http.credentials import Credentials

CONTOSO, FABRIKAM = "11111111-1111-4111-8111-111111111111", "22222222-2222-4222-8222-222222222222"
UPLOAD = "/v1/tenants/-/mailboxes/alex@contoso.example/items?position=1&ordinal=1&folder=x"
SEARCH = "/v1/tenants/-/search"
SECONDS = 60.0
THREADS = 8


def who(shown: Credentials) -> Principal:
    """The token is the name: ALEX, or ALEX of a tenant."""
    if not shown.bearer:
        return NOBODY
    local, _, domain = shown.bearer.partition("@")
    return Principal(f"{local}@{domain}", CONTOSO if domain == "contoso.example" else FABRIKAM, frozenset({Role.USER}))


@dataclass
class Stub:
    """In place of the dispatcher: uploads are read to their end, searches last until they may end."""

    may_end: threading.Event = field(default_factory=threading.Event)
    running: list[str] = field(default_factory=list)
    asked: list[dict[str, Any]] = field(default_factory=list)

    def run(self, route: Route, request: Any, *, principal: Principal, upload: Upload | None = None, **named: Any) -> Any:
        self.asked.append(named)
        if upload is not None:
            self.running.append(principal.upn)
            while upload.read(1024):
                pass
            return ImportResult(imported=1, already_present=0, malformed=[])
        if route.name == "mailbox.search":
            self.running.append(principal.upn)
            assert self.may_end.wait(SECONDS)
            return []
        return TenantView(id=CONTOSO, name="Contoso", domain="contoso.example", geos=[], created=utc(0), claim_token=None, onboarded=[])

    def admit(self, route: Route, *, principal: Principal, **_named: Any) -> None:
        if principal is NOBODY:
            raise Unauthenticated("not_signed_in", "nobody is signed in")


@dataclass
class At:
    """A running application."""

    stub: Stub
    url: str
    seen: list[Seen]

    def began(self) -> None:
        """Not looked at."""

    def ended(self, seen: Seen) -> None:
        self.seen.append(seen)

    def wire(self, buffer: int = 0) -> socket.socket:
        parts = urlsplit(self.url)
        wire = socket.socket()
        if buffer:
            wire.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
        wire.settimeout(SECONDS)
        wire.connect((parts.hostname, parts.port))
        return wire

    def ask(self, method: str, path: str, token: str = "", body: bytes | None = None, **headers: str) -> int:
        parts = urlsplit(self.url)
        signed = {"Authorization": f"Bearer {token}"} if token else {}
        with closing(http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=SECONDS)) as connection:
            connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()} | signed)
            answer = connection.getresponse()
            answer.read()
            return answer.status


@contextmanager
def serving(**config: Any) -> Iterator[At]:
    at = At(Stub(), "", [])
    page = Document("application/json", bytes(200_000))
    dispatcher: Any = at.stub
    limits = ServerConfig(threads=THREADS, **config)
    parts = Parts(dispatcher, who, os.urandom, config=limits, pages={"/page": lambda _shown: page}, observers=(at,))
    with running(parts) as at.url:
        yield at


@pytest.mark.parametrize("last", [b"", b"Connection: close\r\n"])
def test_whoever_never_reads_does_not_keep_the_connection(last: bytes) -> None:
    """Nobody needs to be signed in for it: answers that nobody takes pile up, and the connection counts until it is cut."""
    one = b"GET /page HTTP/1.1\r\nHost: a\r\n"
    with serving(body_timeout=3_000, max_connections=2) as at, ExitStack() as wires:
        for _ in range(2):
            wire = wires.enter_context(closing(at.wire(2048)))
            wire.sendall((one + b"\r\n") * 60 + one + last + b"\r\n")
        until(lambda: at.ask("GET", "/healthz") == 503)
        until(lambda: at.ask("GET", "/healthz") == 200)


def test_whoever_reads_slowly_gets_the_whole_answer() -> None:
    with serving(body_timeout=2_500) as at, closing(at.wire()) as wire:
        wire.sendall(b"GET /page HTTP/1.1\r\nHost: a\r\n\r\n" * 199 + b"GET /page HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        taken, began = 0, time.monotonic()
        while piece := wire.recv(64 * 1024):
            taken += len(piece)
            time.sleep(0.005)  # a slow client
        assert taken > 200 * 200_000
        assert time.monotonic() - began > 2.5, "longer than whoever takes nothing is waited for"


def stalled(at: At, token: str) -> socket.socket:
    """An upload that begins and does not go on."""
    wire = at.wire()
    head = f"PUT {UPLOAD} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {token}\r\nContent-Type: application/octet-stream\r\n"
    wire.sendall(f"{head}Content-Length: 100\r\n\r\nx".encode())
    return wire


def test_uploads_that_stall_leave_threads_to_others() -> None:
    """One person's leave some to the tenant, one tenant's leave some to others; who has too many waits for their own."""
    with serving() as at, ExitStack() as wires:
        mine = [wires.enter_context(closing(stalled(at, "mallory@contoso.example"))) for _ in range(2 * THREADS)]
        until(lambda: len(at.stub.running) == THREADS // 4)
        assert at.ask("PUT", UPLOAD, "alex@contoso.example", b"abc", Content_Type="application/octet-stream") == 200
        for local in ("max", "mia", "moe"):
            for _ in range(THREADS):
                wires.enter_context(closing(stalled(at, f"{local}@contoso.example")))
        until(lambda: len(at.stub.running) == 1 + THREADS // 2)
        assert at.ask("PUT", UPLOAD, "dave@fabrikam.example", b"abc", Content_Type="application/octet-stream") == 200
        before = len(at.stub.running)
        for wire in mine:
            wire.close()
        until(lambda: len(at.stub.running) > before)


def test_uploads_of_nobody_hold_no_thread() -> None:
    with serving() as at:
        assert at.ask("PUT", UPLOAD, "", b"abc", Content_Type="application/octet-stream") == 401
        assert at.stub.running == []


def test_searches_that_last_leave_threads_to_others() -> None:
    with serving() as at, ExitStack() as wires:
        for _ in range(2 * THREADS):
            wire = wires.enter_context(closing(at.wire()))
            body = b'{"text":"x"}'
            head = (
                f"POST {SEARCH} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer mallory@contoso.example\r\nContent-Type: application/json\r\n"
            )
            wire.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        until(lambda: len(at.stub.running) == THREADS // 4)
        assert at.ask("GET", "/v1/tenants/-", "alex@contoso.example") == 200
        assert len(at.stub.running) == THREADS // 4
        at.stub.may_end.set()
        until(lambda: len(at.stub.running) == 2 * THREADS)


# -- what the log says --------------------------------------------------------------------------------------------------------------------


def test_no_tenant_that_a_caller_made_up_is_seen() -> None:
    """The log holds nothing from a request but the name of a tenant that is there: not even of a call that is no good for another reason."""
    with serving() as at:
        for path in ("/v1/tenants/secret-words/mailboxes?limit=x", "/v1/tenants/secret-words", "/v1/tenants/secret-words/mailboxes?zzz=1"):
            at.ask("GET", path, "alex@contoso.example")
        until(lambda: len(at.seen) == 3)
        assert {one.tenant for one in at.seen} == {CONTOSO}
