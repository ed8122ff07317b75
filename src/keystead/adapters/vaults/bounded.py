"""The transport under the Azure SDK: calls only hosts it was given, over TLS, and gives up in time whatever the other side does.

A customer's vault is not a friend: it may answer one byte a second, or without end. The usual time limits count from byte to byte, so
every read and write here takes what is left of the call's own limit, and a call takes in no more than `MOST_BYTES`. Redirects are not
followed, no proxy or netrc of the environment is used, and an address that is not on the list is refused before anything is looked up.
"""

from __future__ import annotations

import json
import ssl
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import requests
from requests.adapters import HTTPAdapter
from urllib3.util import Retry

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

MOST_BYTES = 256 * 1024
"""Taken in for one call, with headers and tokens; the largest answer of a vault is a few KiB."""
CONNECT_S = 2.0
"""Longest wait for a connection and for its TLS handshake, each (design section 5)."""
CONNECTIONS = 16
"""Kept open to one host by one process."""


class AddressRefused(requests.RequestException):
    """The SDK was led to an address that is not on the list."""


class TooMuch(OSError):
    """An answer larger than any can be."""


@dataclass(frozen=True, slots=True)
class SignInAnswer:
    """What the authority said when it gave no token: `error` of OAuth 2 (RFC 6749 section 5.2), and numbers it adds."""

    status: int
    error: str
    numbers: frozenset[int] = frozenset()


class _Budget(threading.local):
    """What the call of this thread has left. `until`: of time.monotonic, seconds. Slots would be shared by all threads, so it has none."""

    def __init__(self) -> None:
        self.until = 0.0
        self.bytes = 0
        self.sign_in: SignInAnswer | None = None


_left = _Budget()


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """Everything this thread asks meanwhile is over by then."""
    _left.until, _left.bytes, _left.sign_in = time.monotonic() + seconds, MOST_BYTES, None
    try:
        yield
    finally:
        _left.until = 0.0


def seconds_left() -> float:
    """Of this thread's call; never negative."""
    return max(0.0, _left.until - time.monotonic())


def last_sign_in() -> SignInAnswer | None:
    """Why the authority gave no token in this thread's call; None where it was not asked or did."""
    return _left.sign_in


class _TimedSocket(ssl.SSLSocket):
    """Each read and write takes what is left of the call's time, and reads what is left of its bytes."""

    def recv_into(self, buffer: Any, nbytes: int | None = None, flags: int = 0) -> int:  # noqa: ANN401 - as in the class above
        self._limit()
        taken = super().recv_into(buffer, nbytes, flags)
        _left.bytes -= taken
        if _left.bytes < 0:
            raise TooMuch(f"the answer has more than {MOST_BYTES} bytes")
        return taken

    def send(self, data: Any, flags: int = 0) -> int:  # noqa: ANN401 - as in the class above
        self._limit()
        return super().send(data, flags)

    def _limit(self) -> None:
        if _left.until:
            left = seconds_left()
            if not left:
                raise TimeoutError("the call's time is over")
            self.settimeout(left)


def trust(ca_file: Path | None) -> ssl.SSLContext:
    """TLS 1.2 or later with the system's authorities, or those of the file.

    Raises:
        OSError: the file cannot be read, or holds no certificate.
    """
    context = ssl.create_default_context(cafile=None if ca_file is None else str(ca_file))
    context.sslsocket_class = _TimedSocket
    return context


class _Adapter(HTTPAdapter):
    """One pool of connections; the TLS context is ours alone, whatever is asked for above."""

    def __init__(self, context: ssl.SSLContext, allows: Callable[[str], bool], authority: str) -> None:
        self._context = context
        self._allows = allows
        self._authority = authority
        super().__init__(pool_maxsize=CONNECTIONS, max_retries=Retry(total=False, redirect=False, raise_on_status=False))

    def build_connection_pool_key_attributes(
        self,
        request: requests.PreparedRequest,
        verify: Any,  # noqa: ANN401, ARG002 - as in the class above
        cert: Any = None,  # noqa: ANN401, ARG002 - as in the class above
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        parts = urlsplit(request.url or "")
        return {"scheme": parts.scheme, "host": parts.hostname, "port": parts.port}, {"ssl_context": self._context}

    def cert_verify(self, conn: Any, url: Any, verify: Any, cert: Any) -> None:  # noqa: ANN401 - as in the class above
        """Nothing: the context says it all."""

    def send(self, request: requests.PreparedRequest, *args: Any, **kwargs: Any) -> requests.Response:  # noqa: ANN401 - as in the class above
        parts = urlsplit(request.url or "")
        if parts.scheme != "https" or not self._allows(parts.netloc.lower()):
            raise AddressRefused(f"{parts.netloc} is not on the list")
        if not seconds_left():
            raise requests.Timeout("the call's time is over")
        kwargs["timeout"] = (min(CONNECT_S, seconds_left()), seconds_left())
        response = super().send(request, *args, **kwargs)
        if parts.netloc.lower() == self._authority:
            _left.sign_in = _sign_in_answer(response)
        return response


def _sign_in_answer(response: requests.Response) -> SignInAnswer | None:
    if response.status_code < HTTPStatus.BAD_REQUEST:
        return None
    try:
        said = json.loads(response.content)
        numbers = said.get("error_codes", ())
        return SignInAnswer(response.status_code, str(said.get("error", "")), frozenset(one for one in numbers if type(one) is int))
    except (ValueError, AttributeError, TypeError):
        return SignInAnswer(response.status_code, "")


def bounded_session(context: ssl.SSLContext, allows: Callable[[str], bool], authority: str) -> requests.Session:
    """What the SDK's transport sends with; shared by the vault clients and the credential of one entry of the configuration.

    Args:
        context: from `trust`.
        allows: asked about every HOST or HOST:PORT but the authority's.
        authority: HOST or HOST:PORT, lower case.
    """
    session = requests.Session()
    session.trust_env = False
    session.mount("https://", _Adapter(context, lambda host: host == authority or allows(host), authority))
    session.mount("http://", _Adapter(context, lambda _host: False, authority))
    return session
