"""A key vault and its authority that answer as a test says: one real HTTPS server on loopback, with certificates of its own.

    with azure_double(folder) as double:
        service = double.adapter()
        wrapped = service.wrap(TENANT, "mail", double.base, value)
        double.vault = status(429, Retry_After="1")

Only for what no real vault can be brought to do: errors, delays, lies. What it does when nothing is said is the least of the protocol.
"""

from __future__ import annotations

import base64
import json
import ssl
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

import trustme
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from keystead.adapters.vaults.azure import AzureVaults
from keystead.core.configuration import ForeignVaultConfig
from keystead.core.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from keystead.ports.clock import Clock

    Answer = Callable[[BaseHTTPRequestHandler], None]

DIRECTORY = "72f988bf-86f1-41af-91ab-2d7cd011db47"
CLIENT = "9c2a1f0e-3b5d-4f6a-8c7e-1d2e3f4a5b6c"
SECRET = "the-first-secret"
TENANT = "0d7f4c1e-5a8e-4f43-9d0a-1c2d3e4f5a6b"
VERSION = "0123456789abcdef0123456789abcdef"
_OAEP = padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), None)
_KEY = rsa.generate_private_key(65_537, 2_048)


@dataclass
class Double:
    """The server, and what it was asked.

    Attributes:
        host: HOST:PORT of vault and authority.
        ca_file: what its certificate is of.
        folder: where the client's secret lies.
        vault: how the vault answers whoever is signed in; None: as a vault does.
        authority: how the authority answers who signs in; None: as an authority does. metadata: how it answers who looks it up.
        resource: what the challenge says a token must be for.
        directory: which directory the challenge names.
        secrets: those that are good.
        tokens: those that are good; one is added at each sign-in.
        asked: method and path of each question to the vault by somebody signed in; sign_ins: secrets given to the authority.
    """

    host: str
    ca_file: Path
    folder: Path
    vault: Answer | None = None
    authority: Answer | None = None
    metadata: Answer | None = None
    resource: str = ""
    directory: str = DIRECTORY
    secrets: set[str] = field(default_factory=lambda: {SECRET})
    tokens: set[str] = field(default_factory=set)
    asked: list[tuple[str, str]] = field(default_factory=list)
    sign_ins: list[str] = field(default_factory=list)
    bodies: list[dict[str, Any]] = field(default_factory=list)

    @property
    def base(self) -> str:
        """Its one key, without version."""
        return f"https://{self.host}/keys/root"

    @property
    def key(self) -> str:
        """Its one key version."""
        return f"{self.base}/{VERSION}"

    def config(self, **changes: Any) -> ForeignVaultConfig:
        """The entry of the configuration that fits it."""
        made = ForeignVaultConfig(
            name="double",
            hosts=(self.host,),
            tenants=(TENANT,),
            authority=f"https://{self.host}",
            directory=DIRECTORY,
            client_id=CLIENT,
            client_secret_file="client.secret",
            ca_file=str(self.ca_file),
            verify_challenge=False,
        )
        return replace(made, **changes)

    def adapter(self, clock: Clock, *, timeout_ms: int = 10_000, **changes: Any) -> AzureVaults:
        """A client of it."""
        config = self.config(**changes)
        settings = replace(Settings(), vault_timeout=timeout_ms)
        return AzureVaults(config, self.folder, settings, clock, lambda host: host in config.hosts)


def status(code: int, body: object = None, **headers: str) -> Answer:
    """Answer with a status, a JSON body or bytes, and headers."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        data = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        handler.send_response(code)
        for name, value in {"Content-Type": "application/json", **{key.replace("_", "-"): value for key, value in headers.items()}}.items():
            handler.send_header(name, value)
        handler.send_header("Content-Length", str(len(data)))
        handler.end_headers()
        handler.wfile.write(data)

    return answer


def refusal(code: int, name: str, inner: str = "", **headers: str) -> Answer:
    """Answer with an error in the shape of Azure's."""
    error: dict[str, Any] = {"code": name, "message": "no"}
    if inner:
        error["innererror"] = {"code": inner}
    return status(code, {"error": error}, **headers)


def one_after_another(*answers: Answer) -> Answer:
    """Each once, the last for ever."""
    left = list(answers)

    def answer(handler: BaseHTTPRequestHandler) -> None:
        (left.pop(0) if len(left) > 1 else left[0])(handler)

    return answer


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, context: ssl.SSLContext, handler: type[BaseHTTPRequestHandler]) -> None:
        super().__init__(("127.0.0.1", 0), handler)
        self._context = context

    def finish_request(self, request: Any, client_address: Any) -> None:
        # The handshake in the connection's own thread: one that never comes must not hold up the others.
        with self._context.wrap_socket(request, server_side=True) as secured:
            super().finish_request(secured, client_address)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A caller that hung up is what many tests are about."""


class _Handler(BaseHTTPRequestHandler):
    double: Double

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1

    def do_GET(self) -> None:
        self._meet({})

    def do_POST(self) -> None:
        self._meet_body(self.rfile.read(int(self.headers.get("Content-Length") or 0)))

    def _meet_body(self, body: bytes) -> None:
        if "/oauth2/" in self.path:
            form = parse_qs(body.decode())
            self.double.sign_ins.append(form["client_secret"][0])
            self._sign_in(form)
        else:
            self._meet(json.loads(body) if body else {})

    def _meet(self, body: dict[str, Any]) -> None:
        if ".well-known" in self.path:
            base = f"https://{self.double.host}/{DIRECTORY}"
            known = {"token_endpoint": f"{base}/oauth2/v2.0/token", "authorization_endpoint": f"{base}/authorize", "issuer": base}
            (self.double.metadata or status(200, known))(self)
        elif self.headers.get("Authorization", "").removeprefix("Bearer ") not in self.double.tokens:
            resource = self.double.resource or f"https://{self.double.host}"
            challenge = f'Bearer authorization="https://{self.double.host}/{self.double.directory}", resource="{resource}"'
            refusal(401, "Unauthorized", WWW_Authenticate=challenge)(self)
        else:
            self.double.asked.append((self.command, self.path.partition("?")[0]))
            self.double.bodies.append(body)
            (self.double.vault or _as_a_vault(self.double, body))(self)

    def _sign_in(self, form: dict[str, list[str]]) -> None:
        if self.double.authority is not None:
            self.double.authority(self)
        elif form["client_secret"][0] not in self.double.secrets:
            status(401, {"error": "invalid_client", "error_description": "wrong secret", "error_codes": [7000215]})(self)
        else:
            token = f"token-{len(self.double.sign_ins)}"
            self.double.tokens.add(token)
            status(200, {"token_type": "Bearer", "expires_in": 3600, "access_token": token})(self)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - as the base class has it
        """Quiet."""


@contextmanager
def azure_double(folder: Path, *, expired: bool = False) -> Iterator[Double]:
    """A vault with one key, and its authority, on a free port of loopback.

    Args:
        folder: for the secret and the certificate authority.
        expired: the certificate has expired.
    """
    authority = trustme.CA()
    ca_file = folder / "ca.pem"
    authority.cert_pem.write_to_path(str(ca_file))
    (folder / "client.secret").write_text(SECRET + "\n")
    certificate = authority.issue_cert("127.0.0.1", "localhost", not_after=datetime.now(UTC) - timedelta(days=1) if expired else None)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(context)

    class Handler(_Handler):
        """Of this one server."""

    server = _Server(context, Handler)
    made = Double(f"127.0.0.1:{server.server_address[1]}", ca_file, folder)
    Handler.double = made
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield made
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _as_a_vault(double: Double, body: dict[str, Any]) -> Answer:
    """What the vault does when nothing is said: one RSA key that wraps, unwraps and is shown."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        what = handler.path.partition("?")[0].rpartition("/")[2]
        if what == "wrapkey":
            value = _KEY.public_key().encrypt(decoded(body["value"]), _OAEP)
            status(200, {"kid": double.key, "value": encoded(value)})(handler)
        elif what == "unwrapkey":
            status(200, {"kid": double.key, "value": encoded(_KEY.decrypt(decoded(body["value"]), _OAEP))})(handler)
        else:
            status(200, bundle(double))(handler)

    return answer


def bundle(double: Double, **attributes: Any) -> dict[str, Any]:
    """The key as the vault shows it."""
    modulus = encoded(_KEY.public_key().public_numbers().n.to_bytes(256))
    key = {"kid": double.key, "kty": "RSA", "key_ops": ["wrapKey", "unwrapKey"], "n": modulus, "e": "AQAB"}
    return {"key": key, "attributes": {"enabled": True, "recoveryLevel": "Recoverable", "created": 1, "updated": 1, **attributes}}


def encoded(value: bytes) -> str:
    """Base64url without padding."""
    return base64.urlsafe_b64encode(value).rstrip(b"=").decode()


def decoded(text: str) -> bytes:
    """The bytes of that."""
    return base64.urlsafe_b64decode(text + "==")
