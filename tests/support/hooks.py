"""Somebody who is told: a real HTTP server on loopback that keeps what it is sent and answers as the test says.

    with receiver() as phone:
        phone.answer = status(500)
        ...
        assert [told.event["state"] for told in phone.told] == ["raised"]

`verify` is written from docs/spec/hooks.md alone, as a receiver would write it.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Iterator
    from pathlib import Path

    Answer = Callable[[BaseHTTPRequestHandler], None]

SECRET = "0123456789abcdef0123456789abcdef"


@dataclass(frozen=True)
class Told:
    """One POST as it came."""

    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def event(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.body)
        return found


def status(code: int, **headers: str) -> Answer:
    """Answer with a status and headers."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(code)
        for name, value in headers.items():
            handler.send_header(name, value)
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    return answer


def raw(*parts: bytes) -> Answer:
    """Answer with these bytes, whatever they are."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        for part in parts:
            handler.wfile.write(part)
        handler.close_connection = True

    return answer


@dataclass
class Receiver:
    """What it was told, and how it answers."""

    url: str
    told: list[Told] = field(default_factory=list)
    answer: Answer = field(default_factory=lambda: status(204))
    before: Callable[[], None] = lambda: None
    gone: threading.Event = field(default_factory=threading.Event)

    def states(self) -> list[tuple[str, str]]:
        """Kind and state of every event, in the order they came."""
        return [(told.event["kind"], told.event["state"]) for told in self.told]


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A caller that hung up is what some tests are about."""


@contextmanager
def receiver(tls: ssl.SSLContext | None = None) -> Iterator[Receiver]:
    """A receiver on a free port of loopback."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            made.told.append(Told(self.path, {name.lower(): value for name, value in self.headers.items()}, body))
            made.before()
            made.answer(self)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - as the base class has it
            """Quiet."""

    server = _Server(("127.0.0.1", 0), Handler)
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    made = Receiver(f"{'https' if tls else 'http'}://localhost:{server.server_address[1]}/told")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield made
    finally:
        made.gone.set()
        server.shutdown()
        thread.join()
        server.server_close()


def secret_file(folder: Path, *secrets: str) -> Path:
    """A secret file with a comment and an empty line in it."""
    path = folder / "hook.secret"
    path.write_text("# secrets of the hook\n\n" + "".join(f"{secret}\n" for secret in secrets or (SECRET,)))
    return path


def verify(secret: bytes, header: str, body: bytes, now_ms: int) -> bool:
    """The receiver's check of docs/spec/hooks.md."""
    parts = [part.split("=", 1) for part in header.split(",")]
    t = dict(parts)["t"]
    wanted = hmac.new(secret, t.encode() + b"." + body, hashlib.sha256).hexdigest()
    return abs(now_ms - int(t)) <= 300_000 and any(name == "v1" and hmac.compare_digest(value, wanted) for name, value in parts)
