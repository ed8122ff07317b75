"""WebDAV on sites (docs/spec/webdav.md): a WSGI application around wsgidav, which speaks the protocol; sites, sign-in, locks and errors are ours.

What happens to a request, in this order:

1. its headers must mean one thing, its address must be one of a site or a file, and its body may not be too large;
2. it must say who it is from, always: there is nothing here for anybody else;
3. roles and scopes must allow it, as they must the same by the API;
4. the library takes it apart and calls `provider`, which calls the same use cases as the API does;
5. the answer goes out as it is made, with its request id. What breaks later cuts the connection: half an answer is never taken for a whole.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from io import BytesIO
from time import perf_counter
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

from wsgidav.dav_error import DAVError, PRECONDITION_CODE_PropfindFiniteDepth
from wsgidav.mw.base_mw import BaseMiddleware
from wsgidav.request_resolver import RequestResolver
from wsgidav.wsgidav_app import WsgiDAVApp
from wsgidav.xml_tools import string_to_xml

from keystead.api.wire import REQUEST_ID
from keystead.core.access.principal import NOBODY, Principal
from keystead.core.errors import Forbidden, IntegrityFailure, InvalidRequest, KeysteadError, Refused
from keystead.core.ids import new_id
from keystead.core.stores.files import CHUNK_BYTES
from keystead.frontends.webdav.credentials import Shown, read_credentials, signed_in
from keystead.frontends.webdav.errors import Answered, headers, page, phrase, status, unexpected
from keystead.frontends.webdav.locks import LockStorage
from keystead.frontends.webdav.paths import Target, read_target
from keystead.frontends.webdav.provider import CREATED, MTIME, SitesProvider
from keystead.frontends.webdav.shares import Shares
from keystead.frontends.webdav.visit import CHANGING, READING, VISIT, Visit, present
from keystead.services.file_changes import check_size

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from wsgiref.types import StartResponse

    from keystead.api.dispatch import Dispatcher
    from keystead.services.context import Services

log = logging.getLogger("keystead.webdav")

METHODS = frozenset(READING) | frozenset(CHANGING)
XML_BYTES = 256 * 1024
"""Largest body of anything but a PUT: lists of properties, and locks."""
MAX_DEPTH = 64
MAX_NAMES = 128
"""Elements inside elements, and properties asked for in one request."""
NUMBERS = 1024
"""Characters of a header that holds numbers: longer ones are turned into integers at a cost, or not at all."""
SAFE_HEADERS = (("Cache-Control", "no-store"), ("X-Content-Type-Options", "nosniff"))
CONTENT_HEADERS = (("Content-Disposition", "attachment"), ("Content-Security-Policy", "default-src 'none'; sandbox"))
"""Content is somebody else's: should a browser get it, it must neither show nor run it on this origin."""

Environ = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Seen:
    """One request that is over, for logs and figures.

    Attributes:
        method: of HTTP; empty for one that is not known.
        upn: who asked; empty for nobody.
        tenant_id: of that person.
        code: of the error; `cut_off` for an answer that did not end.
        seconds: from the head of the request to the last byte of the answer.
        received: bytes of the body that were said to come; sent: of the answer's.
    """

    request_id: str
    method: str
    tenant_id: str
    upn: str
    status: int
    code: str
    seconds: float
    received: int
    sent: int
    client_ip: str


def _nobody_looks(_seen: Seen) -> None:
    """Where no log and no figures are kept."""


def _no_other_way(_shown: Shown, _client_ip: str, _forwarded: bool) -> Principal | None:  # noqa: FBT001 - as it is called
    return None


def _peer(peer: str, _forwarded: str) -> str:
    return peer


@dataclass(frozen=True, slots=True)
class WebdavParts:
    """What the application is made of.

    Attributes:
        services: the service.
        dispatcher: knows who may call what.
        refused: records a refusal or an integrity failure.
        threads: how many requests run at once.
        known: whom credentials name that are no token, by the caller's address and whether somebody passed the request on: in dev homes.
        began: told when a request's head is there; ended: told when it is over. Neither may block.
        caller: the address of a caller, from that of the connection and X-Forwarded-For.
    """

    services: Services
    dispatcher: Dispatcher
    refused: Callable[[Any, KeysteadError], None]
    threads: int = 16
    known: Callable[[Shown, str, bool], Principal | None] = field(default=_no_other_way)
    began: Callable[[], None] = field(default=lambda: None)
    ended: Callable[[Seen], None] = field(default=_nobody_looks)
    caller: Callable[[str, str], str] = field(default=_peer)


class WebdavApp:
    """The WSGI application."""

    def __init__(self, parts: WebdavParts) -> None:
        self._parts = parts
        self._shares = Shares(parts.threads)
        logging.getLogger("wsgidav").setLevel(logging.CRITICAL + 1)  # what it logs holds names and bodies
        self._library = WsgiDAVApp(
            {
                "provider_mapping": {"/": SitesProvider()},
                "middleware_stack": [_Errors, RequestResolver],
                "lock_storage": LockStorage(),
                "property_manager": False,  # `provider` keeps what clients set with the files
                "block_size": CHUNK_BYTES,
                "hotfixes": {"re_encode_path_info": False},
                "suppress_version_info": True,
                "logging": {"enable": False},
                "verbose": 0,
            }
        )

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterator[bytes]:
        """Answer one request."""
        exchange = _Exchange(self._parts, self._shares, self._library, environ, start_response)
        self._parts.began()
        try:
            yield from exchange.run()
        finally:
            present.visit = None
            self._parts.ended(exchange.seen())


class _CutOffError(Exception):
    """An answer that has begun cannot be finished; the connection ends."""


class _Errors(BaseMiddleware):
    """Between the library and us: nothing goes out before its first bytes are there, so that what breaks until then is a proper error."""

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterator[bytes]:
        held: list[tuple[str, list[tuple[str, str]]]] = []

        def hold(line: str, given: list[tuple[str, str]], _info: object = None) -> Callable[[bytes], object]:
            held[:] = [(line, given)]
            return _no_write

        started = False
        for piece in self.next_app(environ, hold):
            if not started:
                start_response(*held[0])
                started = True
            yield piece
        if not started:
            start_response(*held[0])


def _no_write(_data: bytes) -> object:
    raise NotImplementedError  # WSGI's old way, which nothing here uses


class _Exchange:
    """One request and its answer."""

    def __init__(self, parts: WebdavParts, shares: Shares, library: WsgiDAVApp, environ: Environ, start_response: StartResponse) -> None:
        self.parts = parts
        self.shares = shares
        self.library = library
        self.environ = environ
        self.start_response = start_response
        self.id = new_id(parts.services.random)
        self.started = perf_counter()
        self.method: str = environ["REQUEST_METHOD"]
        self.client_ip = parts.caller(environ.get("REMOTE_ADDR", ""), environ.get("HTTP_X_FORWARDED_FOR", ""))
        self.principal: Principal = NOBODY
        self.visit: Visit | None = None
        self.status = 0
        self.code = ""
        self.sent = 0
        self._page = b""

    def seen(self) -> Seen:
        """What is told of it."""
        stated = self.environ.get("CONTENT_LENGTH", "")
        return Seen(
            request_id=self.id,
            method=self.method if self.method in METHODS else "",
            tenant_id=self.principal.tenant_id or "",
            upn=self.principal.upn,
            status=self.status,
            code=self.code,
            seconds=perf_counter() - self.started,
            received=int(stated) if stated.isascii() and stated.isdecimal() else 0,
            sent=self.sent,
            client_ip=self.client_ip,
        )

    def run(self) -> Iterator[bytes]:
        """Answer, whatever happens."""
        try:
            for piece in self._answered():
                self.sent += len(piece)
                yield piece
        except Answered as error:
            yield from self._refused(error.error)
        except DAVError as error:
            yield from self._of_library(error)
        except KeysteadError as error:
            yield from self._refused(error)
        except (_CutOffError, OSError, GeneratorExit):
            self.code = self.code or "cut_off"
            raise
        except Exception as error:
            log.exception("the request %s met a defect", self.id)
            if self.status:
                self.code = "cut_off"
                raise _CutOffError from error
            yield from self._refused(unexpected())

    def _answered(self) -> Iterator[bytes]:
        target = self._checked()
        services = self.parts.services
        shown = read_credentials(self.environ.get("HTTP_AUTHORIZATION", ""))
        self.principal = self.parts.known(shown, self.client_ip, self._forwarded()) or signed_in(services, shown, self.client_ip)
        if self.principal.tenant_id is None:
            raise Forbidden("provider_never_reads", f"{self.principal.upn} belongs to no tenant", "sign in as a person of a tenant")
        visit = Visit(services, self.parts.dispatcher, self.principal, self.id, self.client_ip, self.method, target)
        visit.admit()
        if self.method in _XML and int(self.environ.get("CONTENT_LENGTH") or 0):
            self._check_xml()
        self.visit = self.environ[VISIT] = present.visit = visit
        self.environ["PATH_INFO"] = target.path
        self.environ["wsgidav.auth.user_name"] = self.principal.upn
        with self.shares.taken(self.principal.upn, self.principal.tenant_id):
            for piece in self.library(self.environ, self._start):
                yield self._page or piece

    # -- before anybody is asked who they are ------------------------------------------------------------------------------------------

    def _checked(self) -> Target:
        """What it is about.

        Raises:
            InvalidRequest: it could be understood in two ways, or not at all.
        """
        environ = self.environ
        if self.method not in METHODS:
            raise InvalidRequest("method_not_allowed", "that method is not served here", f"methods are {', '.join(sorted(METHODS))}")
        if any(len(environ.get(name, "")) > NUMBERS for name in _NUMBERED):
            raise InvalidRequest("header_invalid", f"a header that holds numbers has more than {NUMBERS} characters", "send less")
        if not environ.get("HTTP_HOST"):
            raise InvalidRequest("header_invalid", "the header Host is missing", "HTTP/1.1 needs it")
        self._check_body()
        if self.method == "PROPFIND" and environ.get("HTTP_DEPTH", "infinity").lower() == "infinity":
            raise DAVError(403, err_condition=PRECONDITION_CODE_PropfindFiniteDepth)
        if "HTTP_DESTINATION" in environ:
            # The library unquotes it whole before it takes it apart: quoted once more it comes out as it is.
            environ["HTTP_DESTINATION"] = quote(self._destination(environ["HTTP_DESTINATION"]))
        uri: str = environ["REQUEST_URI"]
        return Target("", (), collection=True) if uri == "*" else read_target(uri)

    def _check_body(self) -> None:
        environ = self.environ
        stated = environ.get("CONTENT_LENGTH", "")
        chunked = "HTTP_TRANSFER_ENCODING" in environ
        if stated and (chunked or not (stated.isascii() and stated.isdecimal())):
            raise InvalidRequest("header_invalid", "the length of the body cannot be told", "send either Content-Length or chunks")
        if self.method == "PUT":
            if not stated and not chunked:
                raise InvalidRequest("length_missing", "a PUT needs the header Content-Length, or chunks", "say how many bytes there are")
            check_size(int(stated or 0), self.parts.services.settings.max_file_bytes)
        elif chunked or int(stated or 0) > XML_BYTES:
            raise InvalidRequest("request_too_large", f"the body of {self.method} has more than {XML_BYTES} bytes", "send less at a time")
        if environ.get("HTTP_CONTENT_ENCODING", "identity").lower() != "identity":
            raise InvalidRequest("media_type_wrong", "compressed requests are not taken", "send it without Content-Encoding")

    def _check_xml(self) -> None:
        """Take in a body of XML and look how deep and how wide it is: the library goes into it by recursion, and answers each name for each file.

        Raises:
            InvalidRequest: `request_invalid`: it is no XML, declares something, or is too deep; or too many properties are asked for.
        """
        data = self.environ["wsgi.input"].read(int(self.environ["CONTENT_LENGTH"]))
        self.environ["wsgi.input"] = BytesIO(data)
        try:
            layer = [string_to_xml(data)]
        except Exception as error:  # what the parsers raise has no class in common
            raise InvalidRequest("request_invalid", "the body is no XML that is taken", "send XML without declarations") from error
        most = MAX_NAMES if self.method == "PROPFIND" else XML_BYTES
        for _depth in range(MAX_DEPTH):
            layer = [child for element in layer for child in element]
            if len(layer) > most:
                raise InvalidRequest("request_invalid", f"more than {most} properties are asked for", "ask for fewer at a time")
        if layer:
            raise InvalidRequest("request_invalid", f"the body is more than {MAX_DEPTH} elements deep", "send less")

    def _destination(self, given: str) -> str:
        """Where a copy or a move goes to, as a canonical path.

        Raises:
            InvalidRequest: `another_server`, or no address.
        """
        try:
            parts = urlsplit(given)
        except ValueError:
            raise InvalidRequest("path_invalid", "the header Destination is no address", "give one of this server") from None
        if parts.netloc and parts.netloc.lower() not in (self.environ.get("HTTP_HOST", "").lower(), self._forwarded_host()):
            raise InvalidRequest("another_server", "the destination is on another server", "copy to an address of this one")
        if parts.query or parts.fragment:
            raise InvalidRequest("path_invalid", "the header Destination has a query or a fragment", "percent-encode '?' and '#' in names")
        return read_target(parts.path).path

    def _forwarded(self) -> bool:
        """Whether somebody passed the request on."""
        return any(f"HTTP_{name}" in self.environ for name in _FORWARDED)

    def _forwarded_host(self) -> str:
        return str(self.environ.get("HTTP_X_FORWARDED_HOST", "")).lower()

    # -- what goes back ----------------------------------------------------------------------------------------------------------------

    def _start(self, line: str, given: list[tuple[str, str]], _info: object = None) -> Callable[[bytes], object]:
        number = int(line[:3])
        if number == 204 and self.environ.get(CREATED):
            number = 201
        if self.method == "PUT" and MTIME in self.environ:
            given = [*given, ("X-OC-Mtime", "accepted")]
        if self.method in ("GET", "HEAD"):
            if number in (200, 206):
                given = [*given, *CONTENT_HEADERS]
        elif ("Content-Type", _HTML) in given and ("Content-Length", "0") not in given:  # a page of the library's, about itself
            self._page = f"{phrase(number)}\n".encode()
            described = {"Content-Type": "text/plain; charset=utf-8", "Content-Length": str(len(self._page))}
            given = [*((name, value) for name, value in given if name not in described), *described.items()]
        return self._send_head(number, given)

    def _send_head(self, number: int, given: Iterable[tuple[str, str]]) -> Callable[[bytes], object]:
        self.status = number
        self.start_response(phrase(number), [*given, *SAFE_HEADERS, (REQUEST_ID, self.id)])
        return _no_write

    def _refused(self, error: KeysteadError) -> Iterator[bytes]:
        """An error of ours."""
        self.code = error.code
        if self.visit is not None and isinstance(error, Refused | IntegrityFailure):
            self.parts.refused(self.visit.call(), error)
        kind, body = page(error)
        yield from self._error(status(error), kind, body, list(headers(error)))

    def _of_library(self, error: DAVError) -> Iterator[bytes]:
        """An error of the library's: a condition that did not hold, something that is not there, a lock."""
        if error.value in (204, 304):
            yield from self._error(error.value, "", b"", list(error.add_headers or ()))
            return
        self.code = _CODES.get(error.value, "refused")
        if error.err_condition is not None:
            kind, body = error.get_response_page()
        else:
            kind, body = "text/plain; charset=utf-8", f"{phrase(error.value)}\n".encode()
        yield from self._error(error.value, kind, body, list(error.add_headers or ()))

    def _error(self, number: int, kind: str, body: bytes, more: list[tuple[str, str]]) -> Iterator[bytes]:
        if self.status:  # some of the answer has gone out
            raise _CutOffError
        described = [("Content-Type", kind), ("Content-Length", str(len(body)))] if kind else [("Content-Length", "0")]
        self._send_head(number, [*described, *more])
        if self.method != "HEAD":
            self.sent = len(body)
            yield body


_XML = frozenset({"PROPFIND", "PROPPATCH", "LOCK"})
_HTML = "text/html; charset=utf-8"
_NUMBERED = ("HTTP_RANGE", "HTTP_TIMEOUT", "HTTP_X_EXPECTED_ENTITY_LENGTH")
_FORWARDED = ("FORWARDED", "VIA", "X_FORWARDED_FOR", "X_FORWARDED_HOST", "X_FORWARDED_PROTO", "X_REAL_IP")

_CODES = {
    400: "request_invalid",
    403: "refused",
    404: "file_not_found",
    405: "method_not_allowed",
    409: "conflict",
    412: "condition_failed",
    415: "media_type_wrong",
    416: "range_invalid",
    423: "file_locked",
    424: "not_tried",
    500: "unexpected",
    501: "not_served",
    502: "another_server",
}
"""What the log and the figures call the library's own answers."""
