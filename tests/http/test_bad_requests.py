"""Requests that are broken, oversized, slow or sly, through a plain socket to a real server.

Each has one defined status and code, or ends the connection; after each of them the server answers the next request, and nothing is stored.
"""

from __future__ import annotations

import gzip
import json
import re
import socket
import struct
import time
from collections import Counter
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from random import Random
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import msgspec
import pytest

from keystead.api.routes import BY_NAME
from keystead.client.running import SECRET
from keystead.wiring import create_home
from support.filled import ADMIN, OWNER, Filled, filled
from support.http import served

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.xdist_group("bad-requests")

TIMEOUT = 1.5
"""Seconds the server under test gives heads and pauses in bodies."""
ANSWERS = 30.0
"""Seconds a test waits for an answer; far more than any should take."""
LARGEST_HEAD = 32 * 1024


@dataclass
class Raw:
    """One answer as it came."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def code(self) -> str:
        assert self.headers["content-type"] == "application/problem+json", self
        document = json.loads(self.body)
        assert document["status"] == self.status
        assert re.fullmatch(r"[0-9a-f-]{36}", self.headers["keystead-request-id"])
        code: str = document["code"]
        return code


class Wire:
    """One connection."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self.socket = socket.create_connection((parts.hostname, parts.port), timeout=ANSWERS)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.left = b""

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def answer(self, *, head: bool = False) -> Raw | None:
        """The next answer; None when the connection ends without one."""
        while b"\r\n\r\n" not in self.left:
            if not self._more():
                assert not self.left, self.left
                return None
        top, _, self.left = self.left.partition(b"\r\n\r\n")
        line, *fields = top.decode("latin-1").split("\r\n")
        assert line.startswith("HTTP/1.1 "), line
        headers = {name.lower(): value.strip() for name, _, value in (field.partition(":") for field in fields)}
        size = 0 if head else int(headers.get("content-length", "0"))
        while len(self.left) < size:
            assert self._more(), "the answer is cut off"
        body, self.left = self.left[:size], self.left[size:]
        return Raw(int(line.split(" ")[1]), headers, body)

    def ended(self) -> bool:
        """Whether the other side closes the connection now, without another word."""
        try:
            return not self.left and not self._more()
        except TimeoutError:
            return False

    def _more(self) -> bool:
        try:
            data = self.socket.recv(65_536)
        except ConnectionResetError:
            return False
        self.left += data
        return bool(data)


@dataclass
class Target:
    """The server under test, and how to speak to it."""

    filled: Filled
    secret: str

    def wire(self) -> Any:
        wire = Wire(self.filled.server.url)
        return closing(wire.socket), wire

    def head(self, line: str, *fields: str, as_upn: str = ADMIN) -> bytes:
        """A head with what proves a caller of a dev home."""
        every = ("Host: localhost", f"Keystead-Home-Secret: {self.secret}", f"Keystead-As: {as_upn}", *fields)
        return "\r\n".join([line, *every, "", ""]).encode("latin-1")

    def ask(self, data: bytes, *, head: bool = False) -> Raw | None:
        """Send bytes over a connection of their own."""
        closer, wire = self.wire()
        with closer:
            wire.send(data)
            found: Raw | None = wire.answer(head=head)
            return found

    def refused(self, data: bytes) -> tuple[int, str]:
        found = self.ask(data)
        assert found is not None, "the connection ended without an answer"
        return found.status, found.code

    def json(self, line: str, body: bytes, *fields: str, as_upn: str = ADMIN) -> bytes:
        kind = () if any(field.lower().startswith("content-type:") for field in fields) else ("Content-Type: application/json",)
        return self.head(line, *kind, f"Content-Length: {len(body)}", *fields, as_upn=as_upn) + body


@pytest.fixture(scope="module")
def serving(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    home = tmp_path_factory.mktemp("bad") / "home"
    create_home(home, dev=True, operator="operator@provider.example")
    milliseconds = str(int(TIMEOUT * 1_000))
    environment = {
        "KEYSTEAD_SERVER_HEADER_TIMEOUT": milliseconds,
        "KEYSTEAD_SERVER_BODY_TIMEOUT": milliseconds,
        "KEYSTEAD_SERVER_THREADS": "4",
    }
    with served(home, environment=environment) as server, filled(server) as made:
        yield Target(made, (home / "run" / SECRET).read_text())
        log = server.log.read_text()
        assert "defect" not in log, log


@pytest.fixture
def target(serving: Target) -> Iterator[Target]:
    """After each test the server answers, and holds what it held."""
    before = state(serving)
    yield serving
    health = serving.ask(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert health is not None
    assert health.status == 200
    assert state(serving) == before


def state(target: Target) -> Any:
    """All that a request here could change."""
    admin = target.filled.admin
    objects = sorted(str(path) for path in (target.filled.server.home / "objects").rglob("*") if path.is_file())
    lists = [
        admin.call(name, BY_NAME[name].request())
        for name in ("user.list", "mailbox.list", "policy.list", "vault.list", "subscription.list")
    ]
    return target.filled.statistics(), objects, lists, target.filled.client().call("tenant.list")


ITEMS = f"/v1/tenants/-/mailboxes/{OWNER}/items"
BATCH = msgspec.msgpack.encode({"items": [{"position": 1, "ordinal": 9, "folder": "Inbox", "data": b"Subject: never stored\r\n\r\n"}]})
MSGPACK = "Content-Type: application/msgpack"
OCTETS = "Content-Type: application/octet-stream"
LIST = "GET /v1/tenants/-/mailboxes HTTP/1.1"


# -- what is no HTTP ----------------------------------------------------------------------------------------------------------------------

NO_HTTP = [
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(64),  # a TLS greeting
    b"GARBAGE\r\n\r\n",
    b"GET\r\n\r\n",
    b"GET / \r\n\r\n",
    b"get /healthz HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET /healthz HTTP/2.0\r\nHost: a\r\n\r\n",
    b"GET /healthz HTTP/1.1x\r\nHost: a\r\n\r\n",
    b"GET /healthz HTTX/1.1\r\nHost: a\r\n\r\n",
    b"GET healthz HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET /heal\x00thz HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET /heal\x01thz HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET /heal thz HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET /healthz HTTP/1.1\r\nHost: a\r\nX: a\x00b\r\n\r\n",
    b"GET /healthz HTTP/1.1\r\nHost: a\r\nX: a\x01b\r\n\r\n",
    b"GET /healthz HTTP/1.1\r\nHost: a\r\nX: a\rY: b\r\n\r\n",
    b"GET /healthz HTTP/1.1\r\nHost: a\r\nX y: a\r\n\r\n",
    b"GET /healthz HTTP/1.1\r\nHost: a\r\nX : a\r\n\r\n",
    b"GET /healthz HTTP/1.1\r\nHost: a\r\n: a\r\n\r\n",
    b"GET /healthz HTTP/1.1\r\nHost: a\r\nno colon\r\n\r\n",
    b"GET /healthz HTTP/1.1\r\n Host: a\r\n\r\n",
    b"GET /healthz HTTP/1.1\r\nHost: a\r\nX: a\r\n folded\r\n\r\n",
    b"GET /healthz HTTP/1.1\nHost: a\r\n\r\n\x00",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"CONNECT evil.example:443 HTTP/1.1\r\nHost: a\r\n\r\n",
    b"POST /v1/claim HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n",
    b"POST /v1/claim HTTP/1.1\r\nHost: a\r\nContent-Length: +1\r\n\r\nx",
    b"POST /v1/claim HTTP/1.1\r\nHost: a\r\nContent-Length: 1e3\r\n\r\nx",
    b"POST /v1/claim HTTP/1.1\r\nHost: a\r\nContent-Length: 0x10\r\n\r\nx",
    b"POST /v1/claim HTTP/1.1\r\nHost: a\r\nContent-Length: 1, 1\r\n\r\nx",
    b"POST /v1/claim HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999999999999\r\n\r\nx",
    b"POST /v1/claim HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\n{}",
    b"POST /v1/claim HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{} ",
    b"POST /v1/claim HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    b"POST /v1/claim HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
    b"POST /v1/claim HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    b"POST /v1/claim HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    b"POST /v1/claim HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    b"POST /v1/claim HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    b"POST /v1/claim HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n0\r\n\r\n",
]
FOLLOWED_BY = b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n"


def test_what_is_no_clean_http_is_refused_and_ends_the_connection(target: Target) -> None:
    """Two readers of such a request could see two different ones: so what follows it on the connection is read by nobody."""
    wrong = {}
    for data in NO_HTTP:
        closer, wire = target.wire()
        with closer:
            wire.send(data + FOLLOWED_BY)
            found = wire.answer()
            said = (found.status, found.code) if found is not None and found.status != 200 else found
            if said not in {None, (400, "http_invalid"), (400, "header_invalid")} or not wire.ended():
                wrong[data] = said
    assert wrong == {}


def test_chunks_that_are_none_are_refused_and_end_the_connection(target: Target) -> None:
    head = target.head("POST /v1/tenants/-/users HTTP/1.1", "Content-Type: application/json", "Transfer-Encoding: chunked")
    wrong = {}
    for body in [
        b"zz\r\n{}\r\n0\r\n\r\n",
        b"-2\r\n{}\r\n0\r\n\r\n",
        b"+2\r\n{}\r\n0\r\n\r\n",
        b"0x2\r\n{}\r\n0\r\n\r\n",
        b"2 2\r\n{}\r\n0\r\n\r\n",
        b"2\r\n{}0\r\n\r\n",
        b"1\r\n{}\r\n0\r\n\r\n",
        b"\r\n{}\r\n0\r\n\r\n",
        b"ffffffffffffffffffff\r\n{}",
        b"2\r\n{}\r\n0\r\nno colon\r\n\r\n",
    ]:
        closer, wire = target.wire()
        with closer:
            wire.send(head + body + FOLLOWED_BY)
            found = wire.answer()
            said = (found.status, found.code) if found is not None and found.status != 200 else found
            if said not in {None, (400, "http_invalid"), (400, "request_invalid")} or not wire.ended():
                wrong[body[:40]] = said
    assert wrong == {}


def test_what_stands_around_chunks_does_not_keep_coming(target: Target) -> None:
    """Extensions and trailers are passed over, and there may be as much of them as of headers."""
    head = target.head(USERS, "Content-Type: application/json", "Transfer-Encoding: chunked")
    few = b"1;name=value\r\n{\r\n1\r\n}\r\n0\r\nX-Checksum: abc\r\nKeystead-As: x@contoso.example\r\n\r\n"
    assert target.refused(head + few) == (400, "request_invalid")
    long = [b"2;" + b"x" * 60_000, b"2\r\n{}\r\n0\r\nX: " + b"x" * 60_000, b"2\r\n{}\r\n0\r\n" + b"X: y\r\n" * 10_000]
    for start in long:
        closer, wire = target.wire()
        with closer:
            try:
                wire.send(head)
                for _ in range(100):
                    wire.send(start if _ == 0 else start[-6:] * 10_000)
                found = wire.answer()
            except (BrokenPipeError, ConnectionResetError):
                found = None
            assert found is None or (found.status, found.code) == (431, "headers_too_large"), start[:20]


def test_pipelined_requests_are_answered_in_order_and_a_broken_one_ends_the_line(target: Target) -> None:
    good = target.head(LIST)
    closer, wire = target.wire()
    with closer:
        wire.send(good + target.head("GET /healthz HTTP/1.1") + good)
        answers = [wire.answer() for _ in range(3)]
        assert [one and one.status for one in answers] == [200, 200, 200]
        assert answers[1] is not None
        assert answers[1].body == b'{"status":"ok"}'
    closer, wire = target.wire()
    with closer:
        wire.send(good + b"GARBAGE\r\n\r\n" + good)
        while (found := wire.answer()) is not None:  # of answers under way at that moment none may come; no other ones do
            assert found.status == 200 or (found.status, found.code) == (400, "http_invalid")
        assert wire.ended()


# -- heads ------------------------------------------------------------------------------------------------------------------------------


def test_heads_have_a_largest_size(target: Target) -> None:
    many = [f"X-{number}: y" for number in range(101)]
    assert target.refused(target.head(LIST, *many)) == (431, "headers_too_large")
    assert target.refused(target.head(LIST, "X: " + "y" * LARGEST_HEAD)) == (431, "headers_too_large")
    assert target.refused(target.head(f"GET /{'y' * LARGEST_HEAD} HTTP/1.1")) == (431, "headers_too_large")
    assert target.refused(target.head(f"GET /{'y' * 5_000} HTTP/1.1")) == (400, "path_invalid")
    assert target.refused(target.head(LIST, "Authorization: Bearer " + "y" * 20_000)) == (401, "authorization_invalid")
    endless = target.ask(b"GET /healthz HTTP/1.1\r\nHost: a\r\nX: " + b"y" * 200_000)
    assert endless is None or (endless.status, endless.code) == (431, "headers_too_large")


def test_a_head_that_does_not_come_ends_the_connection_in_time(target: Target) -> None:
    for start in (b"", b"G", b"GET /healthz HTTP/1.1\r\nHost: a\r\nX: ", b"\r\n\r\n"):
        closer, wire = target.wire()
        with closer:
            before = time.monotonic()
            wire.send(start)
            found = wire.answer()
            assert found is None or (found.status, found.code) == (408, "body_timed_out")
            assert wire.ended()
            assert TIMEOUT * 0.5 <= time.monotonic() - before < ANSWERS, start


def test_a_head_that_drips_in_is_not_waited_for(target: Target) -> None:
    """Each byte comes in good time, and all of them together do not."""
    closer, wire = target.wire()
    with closer:
        sent, ended = 0, False
        wire.socket.settimeout(TIMEOUT / 8)
        for byte in b"GET /healthz HTTP/1.1\r\nHost: " + b"a" * 200:
            try:
                wire.send(bytes([byte]))
                ended = wire.answer() is None or wire.ended()
            except TimeoutError:
                sent += 1
                continue
            except (BrokenPipeError, ConnectionResetError):
                ended = True
            break
        assert ended
        assert sent < 30


def test_headers_that_are_missing_or_there_twice_are_refused(target: Target) -> None:
    for name in ("Host: a", "Authorization: Bearer a", "Keystead-As: a@contoso.example", f"Keystead-Home-Secret: {target.secret}"):
        twice = (name, name) if name.startswith("Auth") else (name,)
        assert target.refused(target.head(LIST, *twice)) == (400, "header_invalid"), name
    assert target.refused(b"GET /healthz HTTP/1.1\r\n\r\n") == (400, "header_invalid")
    two = ("Content-Type: application/json", "Content-Type: text/plain", "Content-Length: 2")
    assert target.refused(target.head("POST /v1/claim HTTP/1.1", *two) + b"{}") == (400, "header_invalid")


def test_credentials_that_are_none_are_refused(target: Target) -> None:
    """Deny by default: each is refused, and none is taken for somebody."""
    host = "GET /v1/tenants/-/mailboxes HTTP/1.1\r\nHost: a\r\n"
    cases = {
        "": (400, "tenant_missing"),
        "Authorization: Basic YTpi\r\n": (401, "authorization_invalid"),
        "Authorization: Bearer\r\n": (401, "authorization_invalid"),
        "Authorization: Bearer \xff\xfe\r\n": 401,
        "Authorization: Bearer a b\r\n": 401,
        f"Authorization: Bearer {target.secret}\r\n": 401,
        "Authorization: Bearer eyJhbGciOiJub25lIn0.e30.\r\n": 401,
        "Keystead-Home-Secret: \r\nKeystead-As: admin@contoso.example\r\n": (401, "home_secret_wrong"),
        f"Keystead-Home-Secret: {target.secret[:-1]}\r\nKeystead-As: {ADMIN}\r\n": (401, "home_secret_wrong"),
        f"Keystead-Home-Secret: {target.secret}\xe9\r\nKeystead-As: {ADMIN}\r\n": (401, "home_secret_wrong"),
        f"Keystead-As: {ADMIN}\r\n": (401, "home_secret_wrong"),
        f"Keystead-Home-Secret: {target.secret}\r\nKeystead-As: nobody@contoso.example\r\n": (404, "user_not_found"),
        f"Keystead-Home-Secret: {target.secret}\r\nKeystead-As: \xff\r\n": (400, "upn_invalid"),
    }
    found = {fields: target.refused(f"{host}{fields}\r\n".encode("latin-1")) for fields in cases}
    assert found == {fields: wanted if isinstance(wanted, tuple) else (wanted, found[fields][1]) for fields, wanted in cases.items()}


def test_what_the_host_header_and_overrides_say_changes_nothing(target: Target) -> None:
    plain = target.ask(target.head(LIST))
    assert plain is not None
    assert plain.status == 200
    others = ("X-HTTP-Method-Override: DELETE", "X-Method-Override: DELETE", "X-HTTP-Method: DELETE", "X-Original-URL: /v1/home",
              "X-Rewrite-URL: /v1/home")  # fmt: skip
    for field in (
        "X-Forwarded-Host: evil.example",
        "Forwarded: for=127.0.0.1;host=evil.example",
        "X-Forwarded-For: ::1, junk",
        "Via: 1.1 a",
    ):
        assert target.refused(target.head(LIST, field)) == (401, "home_secret_wrong"), "a proxy speaks for anybody"
    for field in others:
        found = target.ask(target.head(LIST, field))
        assert found is not None
        assert (found.status, found.body) == (200, plain.body), field
    for host in ("evil.example", "evil.example:99999", "a b", "@", "[::1", "localhost, evil.example", ""):
        found = target.ask(target.head(LIST).replace(b"Host: localhost", b"Host: " + host.encode()))
        assert found is not None
        assert (found.status, found.body) == (200, plain.body), host
        assert "evil" not in repr(found)
    item = f"/v1/tenants/-/mailboxes/{OWNER}/items/{target.filled.items[0]}"
    override = target.ask(target.head(f"GET {item}?_method=DELETE HTTP/1.1", as_upn=OWNER))
    assert override is not None
    assert (override.status, override.code) == (400, "request_invalid")


# -- targets ----------------------------------------------------------------------------------------------------------------------------


def test_paths_are_taken_as_they_are_written(target: Target) -> None:
    """Nothing is resolved, joined or decoded twice: a path is a row's, or nothing is there."""
    nothing, part = (404, "route_not_found"), (400, "path_invalid")
    cases = {
        "/v1/../healthz": nothing,
        "/v1/%2e%2e/healthz": nothing,
        "/v1/tenants/-/../../../healthz": nothing,
        "//healthz": nothing,
        "///healthz": nothing,
        "/healthz/": nothing,
        "/healthz;x=y": nothing,
        "/HEALTHZ": nothing,
        "/%68ealthz": nothing,
        "/healthz%00": nothing,
        "/healthz%2f": nothing,
        "/v1//tenants": nothing,
        "/v1/tenants/": nothing,
        "/v1/tenants/-/mailboxes//statistics": nothing,
        "/v1/tenants/-/mailboxes/../statistics": part,
        "/v1/tenants/-/mailboxes/%2e%2e/statistics": part,
        "/v1/tenants/-/mailboxes/%2E/statistics": part,
        "/v1/tenants/-/mailboxes/a%2fb/statistics": part,
        "/v1/tenants/-/mailboxes/a%00b/statistics": part,
        "/v1/tenants/-/mailboxes/a%0d%0aX:%20y/statistics": part,
        "/v1/tenants/-/mailboxes/%ff/statistics": part,
        "/v1/tenants/-/mailboxes/%c0%ae/statistics": part,
        "/v1/tenants/-/mailboxes/%ed%a0%80/statistics": part,
        "/v1/tenants/-/mailboxes/%zz/statistics": part,
        "/v1/tenants/-/mailboxes/%/statistics": part,
        "/v1/tenants/-/mailboxes/%252e%252e/statistics": (404, "mailbox_not_found"),
        "/v1/tenants/%252f/mailboxes": (403, "another_tenant"),
        "/v1/tenants/..%2f..%2fetc/mailboxes": (403, "another_tenant"),
        "http://evil.example": (400, "http_invalid"),
        "http://evil.example/v1/../healthz": nothing,
        "/?": nothing,
        "/#/healthz": nothing,
        "/etc/passwd": nothing,
        "/static/../../../etc/passwd": nothing,
    }
    found = {path: target.refused(target.head(f"GET {path} HTTP/1.1")) for path in cases}
    assert found == cases
    absolute = target.ask(target.head("GET http://evil.example/healthz HTTP/1.1"))  # RFC 9112 section 3.2.2: to be taken as /healthz
    assert absolute is not None
    assert (absolute.status, absolute.body) == (200, b'{"status":"ok"}')


def test_methods_that_a_path_does_not_take(target: Target) -> None:
    cases = {
        "PUT /v1/tenants/-/mailboxes": ("GET, HEAD, OPTIONS, POST", 405),
        "DELETE /v1/tenants": ("GET, HEAD, OPTIONS, POST", 405),
        "TRACE /v1/tenants": ("GET, HEAD, OPTIONS, POST", 405),
        "PROPFIND /v1/tenants": ("GET, HEAD, OPTIONS, POST", 405),
        "POST /healthz": ("GET, HEAD, OPTIONS", 405),
        "DELETE /metrics": ("GET, HEAD, OPTIONS", 405),
    }
    for asked, (allowed, status) in cases.items():
        found = target.ask(target.head(f"{asked} HTTP/1.1"))
        assert found is not None
        assert (found.status, found.code, found.headers["allow"]) == (status, "method_not_allowed", allowed), asked
    star = target.ask(target.head("OPTIONS * HTTP/1.1"))
    assert star is not None
    assert star.status in {204, 404}
    head = target.ask(target.head("HEAD /v1/tenants/-/mailboxes HTTP/1.1"), head=True)
    assert head is not None
    assert (head.status, head.body) == (200, b"")


def test_queries_with_what_the_row_does_not_have(target: Target) -> None:
    good = ("", "?", "?limit=1", "?limit=%31", "?after=%20")
    for query in good:
        found = target.ask(target.head(f"GET /v1/tenants/-/mailboxes{query} HTTP/1.1"))
        assert found is not None
        assert found.status == 200, query
    bad = (
        "?limit=0", "?limit=-1", "?limit=1.5", "?limit=NaN", "?limit=true", "?limit=", "?limit", "?limit=%00", "?limit=1%20",
        "?limit=99999999999999999999999999", f"?limit={'9' * 5_000}", "?limit=1&limit=1", "?limit=1&limit=2", "?after=a&after=b",
        "?unknown=1", "?LIMIT=1", "?upn=a", "?tenant=fabrikam.example", "?after=%ff", "?after=%ed%a0%80", "?=1", "?&", "?limit=1&&",
        "?" + "&".join(f"a{number}=1" for number in range(1_001)),
    )  # fmt: skip
    found_bad = {query: target.refused(target.head(f"GET /v1/tenants/-/mailboxes{query} HTTP/1.1")) for query in bad}
    assert found_bad == dict.fromkeys(bad, (400, "request_invalid"))


# -- bodies -----------------------------------------------------------------------------------------------------------------------------

USERS = "POST /v1/tenants/-/users HTTP/1.1"
CREATE = "POST /v1/tenants HTTP/1.1"


def test_a_body_over_the_limit_is_refused_before_it_is_read(target: Target) -> None:
    """R-147: and by its declared size alone, where it declares one."""
    limit = BY_NAME["user.add"].max_body
    declared = target.head(USERS, "Content-Type: application/json", f"Content-Length: {limit + 1}")
    assert target.refused(declared) == (413, "request_too_large")
    claims = target.head("POST /v1/claim HTTP/1.1", "Content-Type: application/json", "Content-Length: 9000000000000000000")
    assert target.refused(claims) == (413, "request_too_large")
    upload = target.head(f"PUT {ITEMS}?position=1&ordinal=1&folder=Inbox HTTP/1.1", OCTETS, f"Content-Length: {160 * 1024 * 1024 + 1}")
    assert target.refused(upload) == (413, "request_too_large")
    expecting = target.head(USERS, "Content-Type: application/json", f"Content-Length: {limit + 1}", "Expect: 100-continue")
    assert target.refused(expecting) == (413, "request_too_large")


def test_chunks_over_the_limit_are_refused_when_it_is_passed(target: Target) -> None:
    limit = BY_NAME["user.add"].max_body
    head = target.head(USERS, "Content-Type: application/json", "Transfer-Encoding: chunked")
    chunk = b"4000\r\n" + b" " * 0x4000 + b"\r\n"
    closer, wire = target.wire()
    with closer:
        wire.send(head + chunk * (limit // 0x4000 + 1))
        found = wire.answer()
        assert found is not None
        assert (found.status, found.code, found.headers["connection"]) == (413, "request_too_large", "close")


def test_a_large_body_of_somebody_who_may_not_send_it_is_not_taken_in(target: Target) -> None:
    size = 8 * 1024 * 1024
    for as_upn, status in ((OWNER, 403), (ADMIN, None)):
        route = "POST /v1/tenants/-/assignments HTTP/1.1"
        data = target.head(route, "Content-Type: application/json", f"Content-Length: {3 * 1024 * 1024}", as_upn=as_upn)
        closer, wire = target.wire()
        with closer:
            wire.send(data + b" " * 70_000)
            wire.socket.settimeout(TIMEOUT / 2 if status is None else ANSWERS)
            try:
                found = wire.answer()
            except TimeoutError:
                found = None  # the server waits for the rest
            assert (found and found.status) == status, size


def test_a_body_that_stops_coming_is_not_waited_for(target: Target) -> None:
    cases = [
        target.head(USERS, "Content-Type: application/json", "Content-Length: 20") + b"{",
        target.head(USERS, "Content-Type: application/json", "Transfer-Encoding: chunked") + b"5\r\n{",
        target.head(f"POST {ITEMS} HTTP/1.1", MSGPACK, f"Content-Length: {len(BATCH)}") + BATCH[:-3],
        target.head(f"PUT {ITEMS}?position=1&ordinal=1&folder=Inbox HTTP/1.1", OCTETS, "Content-Length: 3000000") + b"x" * 1_500_000,
    ]
    for data in cases:
        before = time.monotonic()
        assert target.refused(data) == (408, "body_timed_out")
        assert time.monotonic() - before < ANSWERS


def test_a_body_that_is_cut_off_leaves_nothing(target: Target) -> None:
    cases = [
        target.head(USERS, "Content-Type: application/json", "Content-Length: 90") + b'{"upn": "cut@contoso.example", "roles": ["user"]}',
        target.head(f"POST {ITEMS} HTTP/1.1", MSGPACK, f"Content-Length: {len(BATCH) + 1}") + BATCH,
        target.head(f"POST {ITEMS} HTTP/1.1", MSGPACK, "Transfer-Encoding: chunked") + b"%x\r\n" % len(BATCH) + BATCH + b"\r\n",
        target.head(f"PUT {ITEMS}?position=1&ordinal=1&folder=Inbox HTTP/1.1", OCTETS, "Content-Length: 3000001") + b"x" * 3_000_000,
    ]
    for data in cases:
        for reset in (False, True):
            closer, wire = target.wire()
            with closer:
                wire.send(data)
                if reset:  # closing sends RST at once
                    wire.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                else:
                    wire.socket.shutdown(socket.SHUT_WR)
                    found = wire.answer()
                    assert found is None or found.status == 400, found


def test_an_upload_says_its_size(target: Target) -> None:
    data = target.head(f"PUT {ITEMS}?position=1&ordinal=1&folder=Inbox HTTP/1.1", OCTETS, "Transfer-Encoding: chunked")
    assert target.refused(data + b"1\r\nx\r\n0\r\n\r\n") == (400, "length_missing")


def test_bodies_of_another_kind_are_refused(target: Target) -> None:
    kinds = [
        "Content-Type: text/plain", "Content-Type: application/x-www-form-urlencoded", "Content-Type: multipart/form-data; boundary=x",
        "Content-Type: application/json; charset=utf-16", "Content-Type: application/json, text/plain", "Content-Type: application/jsonp",
        "Content-Type: application/msgpack", "Content-Type: ", "Content-Type: \xff",
    ]  # fmt: skip
    body = b'{"upn": "kind@contoso.example", "roles": ["user"]}'
    assert {kind: target.refused(target.json(USERS, body, kind)) for kind in kinds} == dict.fromkeys(kinds, (415, "media_type_wrong"))
    without = target.head(USERS, f"Content-Length: {len(body)}") + body
    assert target.refused(without) == (415, "media_type_wrong")
    for coding in ("gzip", "deflate", "br", "identity, gzip"):
        packed = target.json(USERS, gzip.compress(body), f"Content-Encoding: {coding}")
        assert target.refused(packed) == (415, "media_type_wrong"), coding
    assert target.refused(target.head(f"POST {ITEMS} HTTP/1.1", "Content-Type: application/json", "Content-Length: 2") + b"{}") == (
        415,
        "media_type_wrong",
    )
    assert target.refused(target.json("GET /v1/tenants/-/mailboxes HTTP/1.1", b"{}")) == (400, "request_invalid")
    assert target.refused(target.json(f"DELETE /v1/tenants/-/mailboxes/{OWNER} HTTP/1.1", b"{}")) == (400, "request_invalid")


DEEP = 100_000
GOOD_USER = b'"upn": "json@contoso.example", "roles": ["user"]'


def test_json_that_is_not_what_the_row_says(target: Target) -> None:
    bad = {
        "empty": b"",
        "truncated": b"{" + GOOD_USER,
        "more after it": b"{" + GOOD_USER + b"} {}",
        "a mark before it": b"\xef\xbb\xbf{" + GOOD_USER + b"}",
        "UTF-16": ("{" + GOOD_USER.decode() + "}").encode("utf-16"),
        "not UTF-8": b'{"upn": "\xff@contoso.example", "roles": ["user"]}',
        "half a pair": b'{"upn": "\\ud800@contoso.example", "roles": ["user"]}',
        "a null byte": b'{"upn": "a\x00b@contoso.example", "roles": ["user"]}',
        "NaN": b'{"upn": NaN, "roles": ["user"]}',
        "an array": b"[]",
        "null": b"null",
        "a string": b'"x"',
        "a number": b"1",
        "an unknown field": b"{" + GOOD_USER + b', "admin": true}',
        "a field of the path": b"{" + GOOD_USER + b', "tenant": "fabrikam.example"}',
        "a field missing": b'{"upn": "json@contoso.example"}',
        "another type": b'{"upn": 1, "roles": ["user"]}',
        "null for a text": b'{"upn": null, "roles": ["user"]}',
        "an unknown role": b'{"upn": "json@contoso.example", "roles": ["operator"]}',
        "deep arrays": b'{"upn": ' + b"[" * 30_000 + b"]" * 30_000 + b"}",
        "deep objects": b'{"upn": ' + b'{"a":' * 10_000 + b"1" + b"}" * 10_000 + b"}",
        "deep and not closed": b"[" * 60_000,
        "a huge number": b'{"upn": 1e999, "roles": ["user"]}',
        "many digits": b'{"upn": ' + b"9" * 50_000 + b', "roles": ["user"]}',
        "a long exponent": b'{"upn": 1e' + b"9" * 50_000 + b', "roles": ["user"]}',
    }
    found = {name: target.refused(target.json(USERS, body)) for name, body in bad.items()}
    assert found == dict.fromkeys(bad, (400, "request_invalid"))


def test_names_that_are_none_are_refused(target: Target) -> None:
    """They are JSON, and still not what the thing may be called."""
    for upn in ("", "@", "a", "a@", "a b@contoso.example", "a\\u0000@contoso.example", "a\\n@contoso.example", "x" * 400 + "@contoso.example", "a@b@contoso.example", "../a@contoso.example", "a\\u202e@contoso.example"):  # fmt: skip
        status, code = target.refused(target.json(USERS, f'{{"upn": "{upn}", "roles": ["user"]}}'.encode()))
        assert status == 400, (upn, code)


def test_messagepack_that_is_not_what_the_row_says(target: Target) -> None:
    item = {"position": 1, "ordinal": 9, "folder": "Inbox", "data": b"x"}
    pack = msgspec.msgpack.encode
    bad = {
        "empty": b"",
        "truncated": BATCH[:-1],
        "more after it": BATCH + b"\x00",
        "an array": pack([item]),
        "nil": b"\xc0",
        "never used": b"\xc1",
        "names that are numbers": b"\x81\x01\x02",
        "names that are bytes": b"\x81\xc4\x05items\x90",
        "names that are lists": b"\x81\x90\x90",
        "an extension": b"\x81\xa5items\xc7\x04\x05abcd",
        "a time": pack({"items": [item | {"folder": datetime(2026, 6, 1, tzinfo=UTC)}]}),
        "four thousand million items": b"\x81\xa5items\xdd\xff\xff\xff\xff",
        "four thousand million names": b"\xdf\xff\xff\xff\xff",
        "four thousand million bytes": b"\x81\xa5items\x91\x81\xa4data\xc6\xff\xff\xff\xff",
        "deep": b"\x81\xa5items" + b"\x91" * DEEP + b"\xc0",
        "text for bytes": pack({"items": [item | {"data": 5}]}),
        "not UTF-8": b"\x81\xa5items\x91\x84\xa8position\x01\xa7ordinal\x01\xa6folder\xa2\xff\xfe\xa4data\xc4\x01x",
        "unknown fields": pack({"items": [], "all": True}),
        "a field of the path": pack({"items": [], "upn": OWNER}),
        "an unknown field of an item": pack({"items": [item | {"owner": "x"}]}),
        "an ordinal too large": pack({"items": [item | {"ordinal": 2**32}]}),
        "an ordinal too small": pack({"items": [item | {"ordinal": -1}]}),
    }
    found = {
        name: target.refused(target.head(f"POST {ITEMS} HTTP/1.1", MSGPACK, f"Content-Length: {len(body)}") + body)
        for name, body in bad.items()
    }
    assert found == dict.fromkeys(bad, (400, "request_invalid"))


def test_requests_with_random_damage_are_answered_or_cut_and_never_a_fault(target: Target) -> None:
    """Bytes changed, dropped, doubled, and cut into pieces anywhere."""
    good = [
        target.head(LIST, "Accept: */*"),
        target.head(f"GET {ITEMS}?limit=3&after= HTTP/1.1", as_upn=OWNER),
        target.head("POST /v1/claim HTTP/1.1", "Content-Type: application/json", "Content-Length: 45", as_upn="")
        + b'{"claim_token": "a", "upn": "a@contoso.test"}',
        b"POST " + ITEMS.encode() + b" HTTP/1.1\r\nHost: a\r\nContent-Type: application/msgpack\r\nTransfer-Encoding: chunked\r\n\r\n"
        + b"%x\r\n" % len(BATCH) + BATCH + b"\r\n0\r\n\r\n",
    ]  # fmt: skip
    for one in good[:2]:
        assert (found := target.ask(one)) is not None
        assert found.status == 200
    random = Random(0)
    seen: Counter[int] = Counter()
    for _ in range(400):
        data = bytearray(random.choice(good))
        for _ in range(random.randint(1, 4)):
            at = random.randrange(len(data))
            what = random.randrange(4)
            if what == 0:
                data[at] = random.randrange(256)
            elif what == 1:
                del data[at : at + random.randint(1, 8)]
            elif what == 2:
                data[at:at] = random.choice(
                    [b"\x00", b"\r\n", b" ", b"\xff", b":", b"%", b"..", bytes(random.randrange(256) for _ in range(6))]
                )
            else:
                data[at:at] = data[at : at + random.randint(1, 40)]
        closer, wire = target.wire()
        with closer:
            cut = random.randrange(len(data))
            try:
                wire.send(bytes(data[:cut]))
                wire.send(bytes(data[cut:]))
                wire.socket.settimeout(0.2)
                found = wire.answer()
            except OSError:  # cut; or the server waits for the rest, which is not what this is about
                found = None
            seen[found.status if found is not None else 0] += 1
            assert found is None or found.status < 500, bytes(data)
    assert {0, 400, 401} <= set(seen), seen  # dozens of each; that any damage leaves a request good is rare


def test_connections_beyond_the_limit_are_told_so(tmp_path: Path) -> None:
    """And the others go on; when they leave, there is room again."""
    create_home(tmp_path / "home", dev=True, operator="operator@provider.example")
    asked = b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n"
    with served(tmp_path / "home", environment={"KEYSTEAD_SERVER_MAX_CONNECTIONS": "5"}) as server:
        wires = [Wire(server.url) for _ in range(5)]
        try:
            for wire in wires:
                wire.send(asked)
                assert (found := wire.answer()) is not None
                assert found.status == 200
            over = Wire(server.url)
            with closing(over.socket):
                over.send(asked)
                told = over.answer()
                assert told is not None
                assert (told.status, told.code) == (503, "server_busy")
                assert int(told.headers["retry-after"]) > 0
                assert over.ended()
            wires[0].send(asked)
            assert (again := wires[0].answer()) is not None
            assert again.status == 200
        finally:
            for wire in wires:
                wire.socket.close()
        assert _answered_again(server.url, asked)


def _answered_again(url: str, asked: bytes) -> bool:
    """Whether the server has noticed in time that the others have gone."""
    until = time.monotonic() + ANSWERS
    while time.monotonic() < until:
        wire = Wire(url)
        with closing(wire.socket):
            wire.send(asked)
            found = wire.answer()
            if found is not None and found.status == 200:
                return True
    return False
