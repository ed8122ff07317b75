"""A signed POST (docs/spec/hooks.md).

By the standard library's client, which goes where it is sent and nowhere else: it follows no redirects and knows no proxies, and its socket
can be shut when the time is over.
"""

from __future__ import annotations

import http.client
import io
import ssl
from typing import TYPE_CHECKING, Any
from urllib.parse import SplitResult, urlsplit

from keystead import __version__
from keystead.adapters.notify.document import body_of
from keystead.adapters.notify.limits import STEP_SECONDS, deadline, is_host, is_loopback, unfit
from keystead.adapters.notify.secrets import read_secrets, sign
from keystead.ports.notify import NotDelivered

if TYPE_CHECKING:
    import socket
    from pathlib import Path

    from keystead.core.alerts import AlertKind
    from keystead.ports.notify import Message

LARGEST_ANSWER = 64 * 1024
"""Bytes of status line and headers."""


class HttpHook:
    """Implements `Hook`.

    Args:
        name: of the hook.
        kinds: that it wants; tenant: whose alerts it wants.
        url: where to, checked by `check_url`.
        secret_file: what is signed with.
        tls: for https.
    """

    def __init__(
        self, name: str, kinds: frozenset[AlertKind], tenant: str, url: SplitResult, secret_file: Path, tls: ssl.SSLContext
    ) -> None:
        self.name = name
        self.kinds = kinds
        self.tenant = tenant
        self._url = url
        self._secret_file = secret_file
        self._tls = tls

    def __repr__(self) -> str:
        return f"HttpHook({self.name!r})"

    def send(self, message: Message, now: int) -> str:
        body = body_of(message)
        headers = {
            "Content-Type": "application/json",
            "User-Agent": f"keystead/{__version__}",
            "Keystead-Event": message.id,
            "Keystead-Signature": sign(read_secrets(self._secret_file), now, body),
            "Connection": "close",
        }
        connection = self._connection()
        try:
            with deadline(STEP_SECONDS, lambda: connection.sock):
                connection.request("POST", self._target(), body, headers)
                status = connection.getresponse().status
        except (OSError, http.client.HTTPException) as error:
            raise NotDelivered(_reason(error)) from error
        finally:
            connection.close()
        if not 200 <= status < 300:
            raise NotDelivered(f"the receiver answered {status}" + ("; redirects are not followed" if 300 <= status < 400 else ""))
        return f"the receiver answered {status}"

    def _connection(self) -> http.client.HTTPConnection:
        host, port = self._url.hostname or "", self._url.port
        if self._url.scheme == "https":
            return _Secure(host, port or http.client.HTTPS_PORT, self._tls)
        return _Plain(host, port or http.client.HTTP_PORT)

    def _target(self) -> str:
        return (self._url.path or "/") + (f"?{self._url.query}" if self._url.query else "")


def check_url(name: str, text: str) -> SplitResult:
    """The address of a hook, in its parts.

    Raises:
        InvalidRequest: it is none, or one that is not taken.
    """
    try:
        url = urlsplit(text)
        port = url.port
    except ValueError:
        raise unfit(name, "its url is none") from None
    host = url.hostname or ""
    if not text.isascii() or not text.isprintable() or " " in text or not is_host(host) or port == 0:
        raise unfit(name, "its url is none")
    if url.scheme != "https" and not (url.scheme == "http" and is_loopback(host)):
        raise unfit(name, "its url does not begin with https://, and http is for loopback alone")
    if "@" in url.netloc or url.fragment:
        raise unfit(name, "its url holds a user or a fragment")
    return url


class _Bounded(io.RawIOBase):
    """Reads no more than an answer may have."""

    def __init__(self, inner: io.RawIOBase) -> None:
        self._inner = inner
        self._left = LARGEST_ANSWER

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int | None:  # noqa: ANN401 - any writable buffer, as the base class has it
        if self._left == 0:
            raise http.client.HTTPException("the answer is too long")
        count = self._inner.readinto(memoryview(buffer)[: self._left])
        self._left -= count or 0
        return count

    def close(self) -> None:
        self._inner.close()
        super().close()


class _BoundedResponse(http.client.HTTPResponse):
    """An answer of which no more is read than the limit: without it a hundred headers of 64 KiB would be."""

    def __init__(self, sock: socket.socket, debuglevel: int = 0, method: str | None = None, url: str | None = None) -> None:
        super().__init__(sock, debuglevel, method, url)
        self.fp.close()
        self.fp = io.BufferedReader(_Bounded(sock.makefile("rb", buffering=0)))


class _Plain(http.client.HTTPConnection):
    """A connection with the limits of a hook."""

    response_class = _BoundedResponse

    def __init__(self, host: str, port: int) -> None:
        super().__init__(host, port, timeout=STEP_SECONDS)


class _Secure(_Plain):
    """The same with TLS. The handshake comes after the socket is known, so that the deadline can end it, too."""

    def __init__(self, host: str, port: int, tls: ssl.SSLContext) -> None:
        super().__init__(host, port)
        self._tls = tls

    def connect(self) -> None:
        super().connect()
        secure = self._tls.wrap_socket(self.sock, server_hostname=self.host, do_handshake_on_connect=False)
        self.sock = secure
        secure.do_handshake()


def _reason(error: Exception) -> str:
    """Why nothing came back, without anything the other side may have said: it is shown on terminals and kept."""
    if isinstance(error, TimeoutError):
        return "the receiver did not answer in time"
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the receiver's certificate is not trusted: {error.verify_message}"
    if isinstance(error, http.client.HTTPException):
        return f"the receiver's answer is no HTTP, or too long, or was cut off ({type(error).__name__})"
    return f"the receiver cannot be reached: {getattr(error, 'strerror', None) or type(error).__name__}"
