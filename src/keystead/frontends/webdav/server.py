"""The server that WebDAV runs on: cheroot with threads, held to limits.

cheroot gives what the library for WebDAV wants: a thread for each request, which may wait for a client. What is added here:

- a connection takes a thread only when it has something to say, and must have said its head in time; how many there are is limited;
- TLS is agreed on in the thread of a connection, so that one that never does keeps nobody else waiting;
- the body of a request that is refused is never read into memory; the client is asked for a body (100-continue) only when it is read;
- a socket that was bound before is used, so that several processes may share it;
- bytes go between socket and application whole, without copies in between.
"""

from __future__ import annotations

import contextlib
import logging
import re
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

from cheroot.server import ChunkedRFile, HeaderReader, HTTPConnection, HTTPRequest
from cheroot.ssl import Adapter
from cheroot.wsgi import Gateway_10
from cheroot.wsgi import Server as CherootServer

from keystead.frontends.asgi.requests import LINGER_BYTES, LINGER_SECONDS, ONCE

if TYPE_CHECKING:
    import socket
    import ssl
    from collections.abc import Callable, Iterable
    from wsgiref.types import StartResponse, WSGIApplication

    from keystead.core.configuration import WebdavConfig

log = logging.getLogger("keystead.webdav")

MAX_HEAD = 64 * 1024
"""Bytes of a request's line and headers."""
SMALL_REST = 64 * 1024
"""Of a body that nobody wanted: up to so many bytes are read so that the connection can be used again."""
PIECE = 256 * 1024
"""How much is sent at a time: a client must take so much within the time limit."""
SLOWEST = 1024
"""Bytes a second that a body must come at, on the whole: who sends one now and then holds a thread for nothing."""
_LINE = 64 * 1024
_CHUNK_LINE = 1024
_CHUNK_SIZE = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;[^\r\n]*)?\r\n")
_TRAILERS = 16
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class _Reader:
    """What comes from a client. cheroot's own reader is written in Python over a buffer that is copied again and again."""

    def __init__(self, sock: socket.socket, timeout: float) -> None:
        self._sock = sock
        self._timeout = timeout
        self._kept = b""
        self.bytes_read = 0
        self._began, self._before = 0.0, 0
        self.until: float | None = None
        """When the head must be there, on the monotonic clock; None while a body is read."""
        self.before: Callable[[], None] | None = None
        """Called before the first byte of a body is waited for: tells the client to send it."""

    def begin_body(self) -> None:
        """The head is there; a body must come at some pace from now on."""
        self.until, self._began, self._before = None, time.monotonic(), self.bytes_read

    def has_data(self) -> bool:
        """Whether something is there that the system will not tell of again."""
        return bool(self._kept) or bool(getattr(self._sock, "pending", int)())

    def read(self, size: int | None = None) -> bytes:
        """That many bytes; fewer at the end alone."""
        wanted = len(self._kept) if size is None or size < 0 else size
        if len(self._kept) >= wanted:
            taken, self._kept = self._kept[:wanted], self._kept[wanted:]
            return taken
        buffer = bytearray(wanted)
        view = memoryview(buffer)
        have = len(self._kept)
        view[:have] = self._kept
        self._kept = b""
        while have < wanted:
            got = self._receive(view[have:])
            if not got:
                break
            have += got
        return bytes(view[:have])

    def readline(self, size: int | None = None) -> bytes:
        """Up to and with the next line feed, or that many bytes."""
        most = _LINE if size is None or size < 0 else size
        while True:
            end = self._kept.find(b"\n", 0, most) + 1
            if end or len(self._kept) >= most:
                return self.read(end or most)
            buffer = bytearray(8192)
            got = self._receive(memoryview(buffer))
            if not got:
                return self.read(min(most, len(self._kept)))
            self._kept += buffer[:got]

    def _receive(self, into: memoryview) -> int:
        before, self.before = self.before, None
        if before is not None:
            before()
        now = time.monotonic()
        left = self._timeout
        if self.until is not None:
            left = self.until - now
        elif now - self._began > self._timeout and (self.bytes_read - self._before) < SLOWEST * (now - self._began):
            left = 0.0
        if left <= 0:
            raise TimeoutError("timed out")
        self._sock.settimeout(left)
        got = self._sock.recv_into(into)
        self.bytes_read += got
        return got

    def close(self) -> None:
        """The socket is closed by the connection."""


class _Writer:
    """What goes to a client."""

    def __init__(self, sock: socket.socket, timeout: float) -> None:
        self._sock = sock
        self._timeout = timeout
        self.bytes_written = 0

    def write(self, data: bytes) -> int:
        """All of it."""
        view = memoryview(data)
        for start in range(0, len(view), PIECE):
            self._sock.settimeout(self._timeout)
            self._sock.sendall(view[start : start + PIECE])
        self.bytes_written += len(view)
        return len(view)


class _Given(dict[bytes, bytes]):
    """Headers as they come; those that mean two things when they are there twice may not be."""

    def __setitem__(self, name: bytes, value: bytes) -> None:
        if name in self and name.lower() in ONCE:
            raise ValueError("a header is there more than once.")
        super().__setitem__(name, value)


class _Headers(HeaderReader):
    """Headers whose names have an underscore are dropped; `Expect` is answered by the reader of the body, when one is wanted."""

    def __call__(self, rfile: Any, hdict: dict[bytes, bytes] | None = None) -> dict[bytes, bytes]:  # noqa: ANN401 - cheroot's signature
        given = _Given()
        super().__call__(rfile, given)
        found = {} if hdict is None else hdict
        for name, value in given.items():
            if name == b"Expect":
                found[_EXPECTS] = value
            elif b"_" not in name:  # as a variable of WSGI it could not be told from the one with hyphens
                found[name] = value
        return found


_EXPECTS = b"Keystead-Expects"


class _Request(HTTPRequest):
    """One request."""

    header_reader = _Headers()

    def parse_request(self) -> None:
        """The head, in time."""
        rfile: _Reader = self.conn.rfile
        rfile.until, rfile.before = time.monotonic() + self.server.header_timeout, None
        try:
            super().parse_request()
        finally:
            rfile.begin_body()
        if self.inheaders.pop(_EXPECTS, b"").lower() == b"100-continue" and self.ready:
            rfile.before = lambda: self.conn.wfile.write(_CONTINUE)

    def respond(self) -> None:
        """The answer; then what is left of a refused body is passed over for a moment, else the answer could be lost with the connection."""
        super().respond()
        if self.close_connection and self._unread() and self.conn.rfile.before is None:
            self._linger()

    def send_headers(self) -> None:
        """Before the answer goes out, cheroot reads what is left of the body, all at once: a large rest closes the connection instead."""
        if self._unread() > SMALL_REST or self.conn.rfile.before is not None:
            self.close_connection = True
        super().send_headers()

    def _unread(self) -> int:
        if self.chunked_read:  # how much that is, nobody knows
            return 0 if self.rfile.closed else LINGER_BYTES
        return int(getattr(self.rfile, "remaining", 0))

    def _linger(self) -> None:
        rfile: _Reader = self.conn.rfile
        rfile.until = time.monotonic() + LINGER_SECONDS
        left = min(self._unread(), LINGER_BYTES)
        with contextlib.suppress(OSError):
            while left > 0 and (got := len(rfile.read(min(left, SMALL_REST)))):
                left -= got


class _Chunks:
    """A body in chunks (RFC 9112 section 7.1), in place of cheroot's reader, which takes a chunk of any size into memory and copies it often.

    Args:
        body: cheroot's, which is told when the body has ended.
    """

    def __init__(self, body: ChunkedRFile) -> None:
        self._body = body
        self._rfile: _Reader = body.rfile
        self._left = 0

    def read(self, size: int) -> bytes:
        """That many bytes; fewer at the end alone.

        Raises:
            ValueError: these are no chunks, or the connection ended in the middle.
        """
        pieces, wanted = [], size
        while wanted and not self._body.closed:
            if not self._left:
                self._begin()
                continue
            piece = self._rfile.read(min(wanted, self._left))
            pieces.append(piece)
            wanted -= len(piece)
            self._left -= len(piece)
            if not piece or (not self._left and self._rfile.readline(2) != b"\r\n"):
                raise ValueError("a chunk did not end where it should")
        return b"".join(pieces)

    def _begin(self) -> None:
        line = self._rfile.readline(_CHUNK_LINE)
        found = _CHUNK_SIZE.fullmatch(line)
        if found is None:
            raise ValueError("this is no size of a chunk")
        self._left = int(found[1], 16)
        if not self._left:
            for _trailer in range(_TRAILERS):
                if self._rfile.readline(_CHUNK_LINE) == b"\r\n":
                    self._body.closed = True
                    return
            raise ValueError("there are too many trailers, or one that is too long")


def _with_chunks(application: WSGIApplication) -> WSGIApplication:
    def around(environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        if isinstance(environ["wsgi.input"], ChunkedRFile):
            environ["wsgi.input"] = _Chunks(environ["wsgi.input"])
        return application(environ, start_response)

    return around


class _Connection(HTTPConnection):
    """One connection; `fresh` until it was looked at for the first time."""

    RequestHandlerClass = _Request

    def __init__(self, server: WebdavServer, sock: socket.socket, _makefile: object = None) -> None:
        def made(one: socket.socket, mode: str, _size: int) -> _Reader | _Writer:
            return _Reader(one, server.timeout) if "r" in mode else _Writer(one, server.timeout)

        super().__init__(server, sock, made)
        self.fresh = True


class _Tls(Adapter):
    """TLS by a context; agreed on when the thread of the connection first reads."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self.context = context

    def bind(self, sock: socket.socket) -> socket.socket:
        """The listening socket stays as it is."""
        return sock

    def wrap(self, sock: socket.socket) -> tuple[ssl.SSLSocket, dict[str, str]]:
        """A connection, not yet agreed."""
        return self.context.wrap_socket(sock, server_side=True, do_handshake_on_connect=False), self.get_environ()

    def get_environ(self) -> dict[str, str]:
        """What applications are told."""
        return {"wsgi.url_scheme": "https", "HTTPS": "on"}

    def makefile(self, sock: socket.socket, mode: str = "r", _bufsize: int = -1) -> object:
        """Not asked: connections make their own."""
        return _Reader(sock, 0.0) if "r" in mode else _Writer(sock, 0.0)


class WebdavServer(CherootServer):
    """A server on a socket that was bound before, not yet running.

    Args:
        listening: bound; several processes may use it.
        application: what answers.
        config: limits.
        context: for TLS.
    """

    ConnectionClass = _Connection

    def __init__(
        self, listening: socket.socket, application: WSGIApplication, config: WebdavConfig, context: ssl.SSLContext | None = None
    ) -> None:
        super().__init__(
            listening.getsockname()[:2],
            _with_chunks(application),
            numthreads=config.threads,
            max=config.threads,
            server_name="Keystead",
            request_queue_size=config.max_connections,
            timeout=max(1, config.body_timeout // 1_000),
            shutdown_timeout=max(1, config.stop_timeout // 1_000),
        )
        self.gateway = Gateway_10
        self.header_timeout = config.header_timeout / 1_000
        self.max_request_header_size = MAX_HEAD
        self.keep_alive_conn_limit = config.max_connections
        self.ssl_adapter = None if context is None else _Tls(context)
        self._connections: Any = None  # made by `prepare`
        self._listening = listening
        self._thread: threading.Thread | None = None

    def bind(self, _family: int, _type: int, _proto: int = 0) -> socket.socket:
        """The socket is there already."""
        self.socket = self._listening
        return self._listening

    def begin(self) -> None:
        """Take calls, in threads."""
        self.prepare()
        self.socket.settimeout(0)  # another process may have taken the connection that both were told of
        self._thread = threading.Thread(target=self.serve, name="webdav")
        self._thread.start()

    def end(self) -> None:
        """No more calls; those under way are given their time. Called again, it waits for the same end."""
        self.stop()
        if self._thread is not None:
            self._thread.join()

    def process_conn(self, conn: _Connection) -> None:
        """A new connection waits among the idle ones until it says something; threads are for those that do."""
        if not conn.fresh:
            super().process_conn(conn)
            return
        conn.fresh = False
        if self._connections.can_add_keepalive_connection:
            self._connections.put(conn)
        else:
            conn.close()

    def error_log(self, msg: str = "", level: int = logging.INFO, traceback: bool = False) -> None:  # noqa: ARG002, FBT001, FBT002 - cheroot's
        """What a client does to its connection is nothing to tell; a defect of ours is, without its text."""
        error = sys.exc_info()[1]
        if level >= logging.ERROR and not isinstance(error, OSError):
            log.error("a connection met a defect", exc_info=error)
