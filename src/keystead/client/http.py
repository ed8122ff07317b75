"""The HTTP transport: carries calls to a server, and brings back what the local transport would (docs/spec/http.md).

Errors arrive as problem documents and are raised as the classes they had at the server. Redirects are never followed, and secrets go
over TLS, loopback or a Unix socket alone.
"""

from __future__ import annotations

import ipaddress
import ssl
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode, urlsplit

import httpx
import msgspec

from keystead.api.call import Content
from keystead.api.errors import from_problem
from keystead.api.routes import Body
from keystead.api.wire import BYTES, CALL_AS, HOME_SECRET, JSON, MSGPACK, OWN_TENANT, PROBLEM, TENANT, in_body, in_path, in_query
from keystead.core.errors import InvalidRequest, Unavailable

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from keystead.api.call import Upload
    from keystead.api.routes import Route

UNIX = "unix:"
CONNECT_SECONDS = 5.0
GRACE_SECONDS = 15.0
"""Beyond the time a route may take, so that the server's own word on that arrives."""
LONGEST_SILENCE = 600.0
"""Seconds without a byte: a stream may take a day, but not be silent for it."""
PIECE = 256 * 1024
LONGEST_PROBLEM = 1024 * 1024
FIRST_POLL, LONGEST_POLL = 0.05, 1.0
"""Seconds between two looks at a job that the server runs."""


class HttpTransport:
    """Calls a server.

    Args:
        url: `https://HOST[:PORT]`, `http://` on loopback, or `unix:PATH`.
        token: to call with.
        home_secret: of a dev home's server on this machine; without a token it says that the caller may call as anybody.
        as_upn: who to call as, with the secret; empty for the operator.
        certificate: PEM file with the one certificate the server may show, in place of what the system trusts.

    Raises:
        InvalidRequest: not an address, or one that a secret must not be sent to.
    """

    batch_bytes = 15 * 1024 * 1024
    """A server holds all of it, and it has to get there in the time of one call."""

    def __init__(self, url: str, *, token: str = "", home_secret: str = "", as_upn: str = "", certificate: str = "") -> None:
        base, local = _address(url)
        if (token or home_secret) and not local and not base.startswith("https:"):
            raise InvalidRequest(
                "url_not_safe", f"{url} is not encrypted, and a token would be sent over it", "use https, an address of this machine, or unix:PATH"
            )  # fmt: skip
        headers = {"User-Agent": "keystead"}
        if token:
            headers["Authorization"] = f"Bearer {token}"
        elif home_secret:
            headers[HOME_SECRET] = home_secret
            if as_upn:
                headers[CALL_AS] = as_upn
        self._where = url
        self._polls = 0
        uds = url.removeprefix(UNIX) if url.startswith(UNIX) else None
        # Without TLS the system's certificates need not be loaded, which takes longer than a call; nothing here ever goes on to another address.
        verify = _trust(certificate) if base.startswith("https:") else False
        self._client = httpx.Client(
            base_url=base,
            headers=headers,
            transport=httpx.HTTPTransport(uds=uds, verify=verify) if local or certificate else None,
            trust_env=not local,
            verify=verify,
            follow_redirects=False,
        )

    def run(self, route: Route, request: Any, *, tenant: str, upload: Upload | None) -> Any:
        """Call one row; raises what the service raised, or `Unavailable` where it cannot be asked."""
        self._polls = self._polls if route.name == "job.show" else 0
        asked = self._request(route, request, tenant, upload)
        answer = self._sent(asked, again=route.method == "GET")
        if route.body is Body.DOWNLOAD:
            return self._content(answer)
        with self._translated(), _closing(answer):
            data = answer.read()
        try:
            return msgspec.json.decode(data, type=route.response)
        except msgspec.DecodeError as error:
            raise self._no_keystead(f"its answer to {route.name} is not what this version knows") from error

    def push(self, job_id: str) -> bool:  # noqa: ARG002 - the server knows which jobs there are
        """Wait a little while the server runs the job; a little longer each time. Nothing got on here."""
        time.sleep(min(LONGEST_POLL, FIRST_POLL * 2 ** min(self._polls, 10)))
        self._polls += 1
        return False

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _request(self, route: Route, request: Any, tenant: str, upload: Upload | None) -> httpx.Request:
        if not isinstance(request, route.request):
            raise InvalidRequest("request_type", f"{route.name} takes {route.request.__name__}", "")
        path = route.path
        for name in in_path(route):
            value = (tenant or OWN_TENANT) if name == TENANT else getattr(request, name)
            path = path.replace(f"{{{name}}}", _segment(name, value))
        query = urlencode([pair for name in in_query(route) for pair in _pairs(request, name)])
        content: bytes | Iterator[bytes] | None = None
        headers = {}
        if upload is not None:
            content, headers = _pieces(upload), {"Content-Type": BYTES, "Content-Length": str(upload.size)}
        elif fields := {name: value for name in in_body(route) if (value := getattr(request, name)) is not msgspec.UNSET}:
            batch = route.body is Body.BATCH
            content = (msgspec.msgpack.encode if batch else msgspec.json.encode)(fields)
            headers = {"Content-Type": MSGPACK if batch else JSON}
        timeout = httpx.Timeout(min(route.timeout, LONGEST_SILENCE) + GRACE_SECONDS, connect=CONNECT_SECONDS)
        return self._client.build_request(
            route.method, path + (f"?{query}" if query else ""), content=content, headers=headers, timeout=timeout
        )

    def _sent(self, asked: httpx.Request, *, again: bool) -> httpx.Response:
        """The answer, once its head is there.

        Args:
            asked: the request.
            again: whether to ask once more where an idle connection turns out to have been closed; a call that may change something is not
                repeated, because it may have been done.

        Raises:
            KeysteadError: what the problem document tells.
        """
        with self._translated():
            try:
                answer = self._client.send(asked, stream=True)
            except (httpx.RemoteProtocolError, httpx.ReadError):
                if not again:
                    raise
                answer = self._client.send(asked, stream=True)
        if answer.is_success:
            return answer
        with self._translated(), _closing(answer):
            if answer.headers.get("Content-Type") != PROBLEM or int(answer.headers.get("Content-Length", "0")) > LONGEST_PROBLEM:
                raise self._no_keystead(f"it answers with status {answer.status_code}, which is not Keystead's")
            data = answer.read()
        try:
            document = msgspec.json.decode(data, type=dict[str, Any])
        except msgspec.DecodeError as error:
            raise self._no_keystead("its problem document cannot be read") from error
        raise from_problem(document, 1_000 * _seconds(answer.headers.get("Retry-After", "")))

    def _content(self, answer: httpx.Response) -> Content:
        return Content(int(answer.headers["Content-Length"]), answer.headers["Content-Type"], self._chunks(answer))

    def _chunks(self, answer: httpx.Response) -> Iterator[bytes]:
        with self._translated(), _closing(answer):
            yield from answer.iter_raw(PIECE)

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """Failures on the way become *unavailable*."""
        try:
            yield
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.UnsupportedProtocol) as error:
            raise Unavailable(
                "server_unreachable", f"{self._where} cannot be reached: {error}", "check the address, and that the server runs"
            ) from error
        except (httpx.HTTPError, httpx.StreamError) as error:
            raise Unavailable(
                "answer_lost",
                f"{self._where} did not answer to the end: {type(error).__name__}",
                "look whether it was done before trying again",
            ) from error

    def _no_keystead(self, what: str) -> Unavailable:
        return Unavailable("answer_invalid", f"{self._where} does not answer as a Keystead server: {what}", "check the address")


def _address(url: str) -> tuple[str, bool]:
    """The address for requests, and whether it stays on this machine."""
    if url.startswith(UNIX):
        return "http://localhost", True
    try:
        parts = urlsplit(url)
        usable = (
            parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.username is None and not (parts.query or parts.fragment)
        )
        _port = parts.port
    except ValueError:
        usable = False
    if not usable:
        raise InvalidRequest("url_invalid", f"{url!r} is no address of a server", "write https://HOST[:PORT] or unix:PATH")
    return url.rstrip("/"), _is_loopback(parts.hostname or "")


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _trust(certificate: str) -> ssl.SSLContext | bool:
    """A home's own server shows the certificate its settings name: that one is trusted, by whatever name the home is reached."""
    if not certificate:
        return True
    context = ssl.create_default_context(cafile=certificate)
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    context.check_hostname = False
    return context


def _segment(name: str, value: str) -> str:
    if not value or value in {".", ".."} or ("/" in value and name != TENANT):
        raise InvalidRequest("path_invalid", f"{value!r} cannot be a {name} over HTTP", "give its id")
    return quote(value, safe="@")


def _pairs(request: Any, name: str) -> list[tuple[str, str]]:
    """A field as it stands in a query; what has no value, or its default, is left out."""
    value = getattr(request, name)
    if value is None or value is msgspec.UNSET:
        return []
    return [(name, _text(one)) for one in (value if isinstance(value, list) else [value])]


def _text(value: str | float | datetime) -> str:
    if isinstance(value, str):
        return value
    return msgspec.json.encode(value).decode().strip('"')


def _pieces(upload: Upload) -> Iterator[bytes]:
    while piece := upload.read(PIECE):
        yield piece


def _seconds(text: str) -> int:
    return int(text) if text.isascii() and text.isdecimal() else 0


@contextmanager
def _closing(answer: httpx.Response) -> Iterator[None]:
    try:
        yield
    finally:
        answer.close()
