"""However the bytes of a request come, its answer is the same: in one piece, in two, slowly, or several requests at once."""

from __future__ import annotations

import http.client
import json
import re
import socket
import ssl
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from keystead.frontends.asgi.protocol import HOLDING
from keystead.vault import operations
from vault_http.face import Face, faced

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytestmark = pytest.mark.xdist_group("vault-face")

DIGEST = "A" * 43


class Wire:
    """One connection, byte for byte."""

    def __init__(self, face: Face) -> None:
        context = ssl.create_default_context(cafile=face.ca_file)
        host, port = face.url.removeprefix("https://").split(":")
        self.sock = context.wrap_socket(socket.create_connection((host, int(port)), 60), server_hostname=host)

    def send(self, *pieces: bytes, pause: float = 0.0) -> None:
        """The pieces, each in a record of its own."""
        for number, piece in enumerate(pieces):
            if number and pause:
                time.sleep(pause)  # what is tested is a client that is slow
            self.sock.sendall(piece)

    def answer(self, method: str = "POST") -> tuple[int, dict[str, str], bytes]:
        """The next answer, read to its end and no further."""
        read = http.client.HTTPResponse(self.sock, method=method)
        read.fp = _OneByOne(self.sock)  # type: ignore[assignment]  # all that is called of it
        read.begin()
        return read.status, {name.lower(): value for name, value in read.getheaders()}, read.read()


class _OneByOne:
    """Reads nothing ahead."""

    def __init__(self, sock: ssl.SSLSocket) -> None:
        self._sock = sock

    def read(self, count: int) -> bytes:
        found = b""
        while len(found) < count and (more := self._sock.recv(count - len(found))):
            found += more
        return found

    def readline(self, _most: int = 0) -> bytes:
        line = b""
        while not line.endswith(b"\n") and (more := self._sock.recv(1)):
            line += more
        return line

    def flush(self) -> None:
        """There is nothing to."""

    def close(self) -> None:
        """The connection stays."""


@pytest.fixture
def wire(face: Face) -> Iterator[Callable[[], Wire]]:
    made: list[Wire] = []

    def make() -> Wire:
        made.append(Wire(face))
        return made[-1]

    yield make
    for one in made:
        one.sock.close()


@pytest.fixture(scope="module")
def path(face: Face) -> str:
    view = face.new_key("piecewise", kty="EC")
    return face.path_of(view)


def request(face: Face, path: str, method: str = "POST", **more: Any) -> tuple[bytes, bytes]:
    """Head and body."""
    body = json.dumps({"alg": "ES256", "value": DIGEST, **more}).encode() if method == "POST" else b""
    head = (
        f"{method} {path}/sign?api-version=7.4 HTTP/1.1\r\nHost: vault.example\r\nAuthorization: Bearer {face.token(face.admin)}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode(), body


def signed(answer: tuple[int, dict[str, str], bytes], path: str) -> set[str]:
    """An answer with a signature; the names of its headers."""
    status, headers, body = answer
    assert status == 200, body
    assert json.loads(body)["kid"].endswith(path)
    assert re.fullmatch(r"[0-9a-f-]{36}", headers["x-ms-request-id"])
    return set(headers)


def test_every_way_of_sending_gets_the_same_answer(face: Face, path: str, wire: Callable[[], Wire]) -> None:
    head, body = request(face, path)
    one = wire()
    one.send(head + body)
    names = signed(one.answer(), path)
    assert {"date", "content-type", "content-length", "x-ms-request-id", "x-ms-keyvault-region", "cache-control"} <= names
    assert "connection" not in names
    for pieces, pause in (
        ((head, body), 0.0),
        ((head[:30], head[30:] + body[:5], body[5:]), 0.01),
        ((head, body[:9], body[9:]), 3 * HOLDING),
    ):
        one.send(*pieces, pause=pause)
        assert signed(one.answer(), path) == names


def test_requests_that_are_sent_ahead_are_answered_in_their_order(face: Face, path: str, wire: Callable[[], Wire]) -> None:
    """R-067: each with a record of its own."""
    one, before = wire(), len(face.world.log())
    good, bad = b"".join(request(face, path)), b"".join(request(face, path, alg="none"))
    one.send(good + bad + good)
    assert [one.answer()[0] for _ in range(3)] == [200, 400, 200]
    assert len(face.world.log()) == before + 3


def test_an_answer_to_head_has_no_body_and_leaves_the_connection_whole(face: Face, path: str, wire: Callable[[], Wire]) -> None:
    one = wire()
    one.send(request(face, path, "HEAD")[0])
    status, headers, body = one.answer("HEAD")
    assert (status, body) == (400, b"")  # no call of that method has such a path
    assert int(headers["content-length"]) > 0
    one.send(b"".join(request(face, path)))
    signed(one.answer(), path)


def test_whoever_goes_away_amid_a_body_disturbs_nobody(face: Face, path: str, wire: Callable[[], Wire]) -> None:
    head, body = request(face, path)
    for sent in (head, head + body[:4], head + body):
        gone = wire()
        gone.send(sent)
        gone.sock.close()
    one = wire()
    one.send(head + body)
    signed(one.answer(), path)


def test_a_call_that_outlasts_the_stop_of_the_server_is_told_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its client may ask another server; else it would wait for an answer that does not come."""
    entered, go_on = threading.Event(), threading.Event()

    def wait(*_asked: object) -> None:
        entered.set()
        go_on.wait(60)

    with faced(tmp_path) as face:
        path = face.path_of(face.new_key("slow", kty="EC"))
        one = Wire(face)
        monkeypatch.setattr(operations, "sign", wait)
        one.send(b"".join(request(face, path)))
        assert entered.wait(30)
    try:
        status, headers, body = one.answer()
        assert (status, headers["connection"]) == (503, "close")
        assert json.loads(body)["error"]["code"] == "ServiceUnavailable"
    finally:
        go_on.set()
        one.sock.close()


def test_a_defect_is_told_as_one_and_the_next_call_is_answered(
    face: Face, path: str, wire: Callable[[], Wire], monkeypatch: pytest.MonkeyPatch
) -> None:
    one = wire()
    with _broken(monkeypatch):
        one.send(b"".join(request(face, path)))
        status, _headers, body = one.answer()
    assert status == 500
    assert b"Traceback" not in body
    one.send(b"".join(request(face, path)))
    signed(one.answer(), path)


@contextmanager
def _broken(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    def fail(*_asked: object) -> None:
        raise ZeroDivisionError

    with monkeypatch.context() as patched:
        patched.setattr(operations, "sign", fail)
        yield
