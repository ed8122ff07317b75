"""WebDAV for tests: the real application on the real server, in threads of the test's own process, on loopback and a free port.

    with running(world) as face:                       # any `World`, or one of its processes
        alex = face.person("alex@contoso.example")     # signs in with a token, over Basic
        alex.put("/contoso.example,sites,plans/a.txt", b"a")

`Answer`s are what came back, whole. `Person.raw` sends bytes as they are, for what no client would send.
"""

from __future__ import annotations

import base64
import http.client
import socket
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from keystead.api.types import sites as s
from keystead.core.access.tokens import TokenKind
from keystead.core.configuration import WebdavConfig
from keystead.frontends.webdav.app import Seen, WebdavApp, WebdavParts
from keystead.frontends.webdav.server import WebdavServer
from keystead.services.auditing import LogAndDirectory
from keystead.services.tokens import issue

if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterable, Iterator, Mapping

    from keystead.services.context import Services
    from support.world import Process, World

SECONDS = 60
PLANS = "https://contoso.example/sites/plans"
ROOT = "/contoso.example,sites,plans"


@dataclass(frozen=True)
class Answer:
    """What came back."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode()


@dataclass(frozen=True)
class Person:
    """Somebody, or nobody, with a client of their own."""

    address: tuple[str, int]
    authorization: str = ""
    tls: ssl.SSLContext | None = None

    def ask(self, method: str, path: str, body: bytes | Iterable[bytes] | None = None, /, **headers: str) -> Answer:
        """One request; underscores in the names of headers stand for hyphens."""
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        if self.authorization:
            sent.setdefault("Authorization", self.authorization)
        host, port = self.address
        made = (
            http.client.HTTPConnection(host, port, timeout=SECONDS)
            if self.tls is None
            else http.client.HTTPSConnection("localhost", port, timeout=SECONDS, context=self.tls)
        )
        with closing(made) as connection:
            connection.request(method, path, body=body, headers=sent, encode_chunked=not isinstance(body, bytes | None))
            answer = connection.getresponse()
            return Answer(answer.status, dict(answer.getheaders()), answer.read())

    def put(self, path: str, data: bytes, **headers: str) -> Answer:
        return self.ask("PUT", path, data, **headers)

    def get(self, path: str, **headers: str) -> Answer:
        return self.ask("GET", path, **headers)

    def names(self, path: str) -> set[str]:
        """Addresses of what lies in a folder, and its own."""
        answer = self.ask("PROPFIND", path, Depth="1")
        assert answer.status == 207, answer
        return {part.split("<", 1)[0] for part in answer.text.split("href>")[1::2]}

    def lock(self, path: str, *, scope: str = "exclusive", depth: str = "infinity", **headers: str) -> tuple[Answer, str]:
        """Take a lock; the answer, and its token."""
        body = (
            f'<D:lockinfo xmlns:D="DAV:"><D:lockscope><D:{scope}/></D:lockscope><D:locktype><D:write/></D:locktype>'
            "<D:owner>somebody</D:owner></D:lockinfo>"
        )
        answer = self.ask("LOCK", path, body.encode(), Depth=depth, **headers)
        return answer, answer.headers.get("Lock-Token", "").strip("<>")

    def raw(self, data: bytes, *, half_closed: bool = False) -> bytes:
        """All that comes back for these bytes, until the other side closes."""
        with socket.create_connection(self.address, timeout=SECONDS) as sock:
            sock.sendall(data)
            if half_closed:
                sock.shutdown(socket.SHUT_WR)
            pieces = []
            while piece := sock.recv(65_536):
                pieces.append(piece)
        return b"".join(pieces)

    def head(self, method: str, path: str, *headers: str) -> bytes:
        """The head of a request as bytes."""
        lines = [f"{method} {path} HTTP/1.1", "Host: localhost", "Connection: close", *headers]
        if self.authorization:
            lines.append(f"Authorization: {self.authorization}")
        return "\r\n".join([*lines, "", ""]).encode()


@dataclass
class Face:
    """A running server."""

    services: Services
    url: str
    seen: list[Seen] = field(default_factory=list)
    tls: ssl.SSLContext | None = None

    @property
    def address(self) -> tuple[str, int]:
        parts = urlsplit(self.url)
        assert parts.hostname is not None
        assert parts.port is not None
        return parts.hostname, parts.port

    def token(self, upn: str) -> str:
        """A token of a person."""
        with self.services.db.write() as tx:
            person = tx.tenants.person(upn)
            assert person is not None
            return issue(self.services, tx, TokenKind.SIGN_IN, upn, person.tenant_id).secret

    def person(self, upn: str) -> Person:
        """By Basic."""
        return self.basic(upn, self.token(upn))

    def basic(self, upn: str, password: str) -> Person:
        return Person(self.address, "Basic " + base64.b64encode(f"{upn}:{password}".encode()).decode(), self.tls)

    def nobody(self, authorization: str = "") -> Person:
        return Person(self.address, authorization, self.tls)


@contextmanager
def running(
    world: World | Process,
    *,
    threads: int = 16,
    config: WebdavConfig | None = None,
    context: ssl.SSLContext | None = None,
    tls: ssl.SSLContext | None = None,
) -> Iterator[Face]:
    """Serve an installation until the block ends; `threads`: what people have shares of."""
    services = world.services
    listening = socket.create_server(("127.0.0.1", 0))
    face = Face(services, f"http://127.0.0.1:{listening.getsockname()[1]}", tls=tls)
    parts = WebdavParts(
        services=services, dispatcher=world.dispatcher, refused=LogAndDirectory(services).refused, threads=threads, ended=face.seen.append
    )
    server = WebdavServer(listening, WebdavApp(parts), config or WebdavConfig(threads=4), context)
    server.begin()
    try:
        yield face
    finally:
        server.end()
        listening.close()


def make_plans(world: World) -> None:
    """Contoso with the people alex and blake, and a site for all of its people."""
    tenant = world.tenant(ready=False)
    for local in ("alex", "blake"):
        tenant.person(local, "user")
    tenant.admin.call("site.create", s.CreateSite(url=PLANS))
