"""Real object stores on loopback, and a proxy in front of them that loses answers, delays, and lies.

    with moto() as store:                                      # S3 with conditional puts
        with Proxy(store.port) as proxy:
            proxy.next(lose_answer, method="PUT")
            objects = open_objects(ObjectsConfig((store.container("c0", folder, port=proxy.port),)), folder)

`rclone` is a second S3, of another make; it answers ranges with status 200, which the proxy mends, and knows no conditional puts.
`azurite` is Azure Blob storage.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import http.client
import json
import os
import re
import subprocess
import sys
import threading
from collections import deque
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from keystead.core.configuration import ContainerConfig, ContainerKind

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).resolve().parents[2]
BUCKET = "keystead"
REGION = "eu-central-1"
ACCOUNT = "keysteadtest"
ACCESS_KEY = {"access_key_id": "keysteadtest", "secret_access_key": "a-secret-of-the-tests"}


@dataclass
class Store:
    """A running store with one empty bucket.

    Attributes:
        kind: how it is reached; port: on loopback; credentials: what its file holds.
    """

    kind: ContainerKind
    port: int
    credentials: dict[str, str]

    def container(self, name: str, folder: Path, *, port: int = 0, prefix: str = "", **changes: Any) -> ContainerConfig:
        """One container of that store, with a credentials file of its own in `folder`; reached through a proxy if `port` is given."""
        file = folder / f"{name}.json"
        if not file.exists():
            file.write_text(json.dumps(self.credentials), encoding="ascii")
        values: dict[str, Any] = {
            "name": name,
            "kind": self.kind,
            "bucket": BUCKET,
            "prefix": prefix,
            "endpoint": f"http://127.0.0.1:{port or self.port}" + (f"/{ACCOUNT}" if self.kind is ContainerKind.AZURE else ""),
            "region": REGION if self.kind is ContainerKind.S3 else "",
            "account": ACCOUNT if self.kind is ContainerKind.AZURE else "",
            "credentials_file": str(file),
            "allow_http": True,
        }
        return ContainerConfig(**(values | changes))


@contextmanager
def _started(command: list[str], listens: str, environment: dict[str, str] | None = None) -> Iterator[int]:
    """A server on a free port of loopback, which it prints; ended with the block."""
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env={**os.environ, **(environment or {})}
    )
    assert process.stdout is not None
    said: deque[str] = deque(maxlen=50)
    try:
        for line in process.stdout:
            said.append(line)
            if match := re.search(listens, line):
                break
        else:
            raise AssertionError(f"{command[0]} did not start: {''.join(said)}")
        drain = threading.Thread(target=said.extend, args=(process.stdout,))
        drain.start()
        try:
            yield int(match[1])
        finally:
            process.terminate()
            drain.join()
    finally:
        process.terminate()
        process.wait(60)
        process.stdout.close()


@contextmanager
def moto(environment: dict[str, str] | None = None) -> Iterator[Store]:
    """S3 as moto plays it: conditional puts, and access control if the environment asks for it. Objects are in memory."""
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", "0"]
    with _started(command, r"Running on http://127\.0\.0\.1:(\d+)", environment) as port:
        store = Store(ContainerKind.S3, port, ACCESS_KEY)
        boto3(store).create_bucket(Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": REGION})
        yield store


@dataclass
class GuardedStore:
    """An S3 that checks who calls: an administrator, and for each bucket one user who may use it and no other.

    Attributes:
        store: whose credentials are the administrator's.
    """

    store: Store

    def make_bucket(self, name: str) -> dict[str, str]:
        """A bucket and its user, who has the same name; returns the user's credentials."""
        boto3(self.store).create_bucket(Bucket=name, CreateBucketConfiguration={"LocationConstraint": REGION})
        people = boto3(self.store, "iam")
        people.create_user(UserName=name)
        places = [f"arn:aws:s3:::{name}", f"arn:aws:s3:::{name}/*"]
        people.put_user_policy(UserName=name, PolicyName="own", PolicyDocument=_allowed(places))
        return self.make_key(name)

    def make_key(self, user: str) -> dict[str, str]:
        """One more key of a user."""
        made = boto3(self.store, "iam").create_access_key(UserName=user)["AccessKey"]
        return {"access_key_id": made["AccessKeyId"], "secret_access_key": made["SecretAccessKey"]}

    def revoke(self, user: str, credentials: dict[str, str]) -> None:
        """From now on that key opens nothing."""
        boto3(self.store, "iam").delete_access_key(UserName=user, AccessKeyId=credentials["access_key_id"])


@contextmanager
def guarded() -> Iterator[GuardedStore]:
    """moto with access control: keys, signatures and policies are checked as soon as the administrator is made."""
    with moto({"INITIAL_NO_AUTH_ACTION_COUNT": "4"}) as store:  # the bucket of every store, and the next three
        people = boto3(store, "iam")
        people.create_user(UserName="admin")
        people.put_user_policy(UserName="admin", PolicyName="all", PolicyDocument=_allowed(["*"], "*"))
        made = people.create_access_key(UserName="admin")["AccessKey"]
        store.credentials = {"access_key_id": made["AccessKeyId"], "secret_access_key": made["SecretAccessKey"]}
        yield GuardedStore(store)


def _allowed(places: list[str], actions: str = "s3:*") -> str:
    statement = {"Effect": "Allow", "Action": actions, "Resource": places}
    return json.dumps({"Version": "2012-10-17", "Statement": [statement]})


@contextmanager
def rclone(folder: Path) -> Iterator[Store]:
    """S3 as rclone serves it from a folder; it checks signatures."""
    (folder / BUCKET).mkdir(parents=True)
    pair = f"{ACCESS_KEY['access_key_id']},{ACCESS_KEY['secret_access_key']}"
    command = [str(Path(sys.executable).parent / "rclone"), "serve", "s3", str(folder), "--addr", "127.0.0.1:0", "--auth-key", pair]
    with _started([*command, "--config", "", "--vfs-read-wait", "0"], r"http://127\.0\.0\.1:(\d+)") as port:
        yield Store(ContainerKind.S3, port, ACCESS_KEY)


@contextmanager
def azurite() -> Iterator[Store]:
    """Azure Blob storage as Azurite plays it; it checks signatures. Objects are in memory."""
    key = base64.b64encode(os.urandom(32)).decode()
    command = [str(ROOT / "tests" / "node" / "node_modules" / ".bin" / "azurite-blob"), "--blobHost", "127.0.0.1", "--blobPort", "0"]
    options = ["--skipApiVersionCheck", "--inMemoryPersistence", "--disableTelemetry", "--silent"]
    with _started([*command, *options], r"success.*http://127\.0\.0\.1:(\d+)", {"AZURITE_ACCOUNTS": f"{ACCOUNT}:{key}"}) as port:
        _make_azure_container(port, key)
        yield Store(ContainerKind.AZURE, port, {"account_key": key})


def _make_azure_container(port: int, key: str) -> None:
    date, version = formatdate(usegmt=True), "2021-08-06"
    signed = "\n".join(
        ["PUT", *[""] * 11, f"x-ms-date:{date}", f"x-ms-version:{version}", f"/{ACCOUNT}/{ACCOUNT}/{BUCKET}", "restype:container"]
    )
    signature = base64.b64encode(hmac.new(base64.b64decode(key), signed.encode(), hashlib.sha256).digest()).decode()
    headers = {
        "x-ms-date": date,
        "x-ms-version": version,
        "Authorization": f"SharedKey {ACCOUNT}:{signature}",
        "Content-Length": "0",
    }
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("PUT", f"/{ACCOUNT}/{BUCKET}?restype=container", headers=headers)
    assert connection.getresponse().status == 201
    connection.close()


def boto3(store: Store, service: str = "s3", **changes: Any) -> Any:
    """Another library's client for an S3 store, or for another service of moto's."""
    library, config = import_module("boto3"), import_module("botocore.config")  # untyped; and they take a while to load
    values: dict[str, Any] = {
        "endpoint_url": f"http://127.0.0.1:{store.port}",
        "region_name": REGION,
        "aws_access_key_id": store.credentials["access_key_id"],
        "aws_secret_access_key": store.credentials["secret_access_key"],
        "config": config.Config(retries={"total_max_attempts": 1}, s3={"addressing_style": "path"}),
    }
    return library.client(service, **(values | changes))


# -- the proxy ------------------------------------------------------------------------------------------------------------------------


@dataclass
class Exchange:
    """A request, and the store's answer to it once `forward` was called.

    Attributes:
        status, headers, body: what will be answered; a fault changes them.
        answered: false: the connection is closed without a word.
        cut_after: so many bytes of the body go out, then the connection is closed.
    """

    method: str
    path: str
    request_headers: dict[str, str]
    request_body: bytes
    _forward: Callable[[Exchange], None]
    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    answered: bool = True
    cut_after: int | None = None

    def forward(self) -> None:
        """Let the store do it."""
        self._forward(self)

    def answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        """Answer in the store's place."""
        self.status, self.body, self.headers = status, body, {"Content-Length": str(len(body)), "Date": formatdate(usegmt=True), **headers}


def lose_answer(exchange: Exchange) -> None:
    """The store does it; nobody hears of it."""
    exchange.forward()
    exchange.answered = False


def lose_request(exchange: Exchange) -> None:
    """The request never gets there."""
    exchange.answered = False


def says(status: int, code: str = "InternalError", *, after: bool = False) -> Callable[[Exchange], None]:
    """The store answers with an error; `after`: when it has done what was asked."""

    def fault(exchange: Exchange) -> None:
        if after:
            exchange.forward()
        text = f"<Error><Code>{code}</Code><Message>Signature=0123456789abcdef AccountKey=hunter2</Message></Error>".encode()
        exchange.answer(status, b"" if exchange.method == "HEAD" else text)

    return fault


def cut_body(exchange: Exchange) -> None:
    """The connection ends in the middle of the answer."""
    exchange.forward()
    exchange.cut_after = len(exchange.body) // 2


def shorten(exchange: Exchange) -> None:
    """A whole answer, with fewer bytes than were asked for and than it says the range has."""
    exchange.forward()
    exchange.body = exchange.body[: len(exchange.body) // 2]
    exchange.headers["Content-Length"] = str(len(exchange.body))


def lengthen(exchange: Exchange) -> None:
    """A whole answer, with far more bytes than were asked for."""
    exchange.forward()
    exchange.body *= 1_000
    exchange.headers["Content-Length"] = str(len(exchange.body))


def other_range(exchange: Exchange) -> None:
    """Bytes of another range, and the answer says so."""
    exchange.forward()
    exchange.headers["Content-Range"] = re.sub(
        r"(\d+)-(\d+)", lambda match: f"{int(match[1]) + 1}-{int(match[2]) + 1}", exchange.headers["Content-Range"]
    )


def whole_object(exchange: Exchange) -> None:
    """The answer says nothing of a range, as if it had been ignored."""
    exchange.forward()
    exchange.status = 200
    del exchange.headers["Content-Range"]


def flip_bytes(exchange: Exchange) -> None:
    """As many bytes as were asked for, but others."""
    exchange.forward()
    exchange.body = bytes(byte ^ 1 for byte in exchange.body)


class Proxy:
    """Stands before a store, with TLS where it is given a context. Faults are used up one by one by the requests they are meant for; everything goes on a list.

    Attributes:
        seen: method, path and status of every request, in the order they were answered.
        always: a fault that meets every request; None for none.
    """

    def __init__(self, port: int, *, tls: ssl.SSLContext | None = None) -> None:
        self._upstream = port
        self._lock = threading.Lock()
        self._faults: list[tuple[str, str, Callable[[Exchange], None]]] = []
        self.seen: list[tuple[str, str, int]] = []
        self.always: Callable[[Exchange], None] | None = None
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True
            wbufsize = -1  # headers and body leave together
            timeout = 60

            def _serve(self) -> None:
                outer._answer(self)

            do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = _serve  # noqa: N815 - names the base class calls

            def log_message(self, *_: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_: object) -> None:
                pass  # clients hang up when they please

        self._server = Server(("127.0.0.1", 0), Handler)
        if tls is not None:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True, do_handshake_on_connect=False)
        self.port = self._server.server_port
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def next(self, fault: Callable[[Exchange], None], *, method: str = "", path: str = "", times: int = 1) -> None:
        """Meet the next requests of that method whose path matches."""
        with self._lock:
            self._faults += [(method, path, fault)] * times

    @property
    def left(self) -> int:
        """Faults that no request has met yet."""
        return len(self._faults)

    def count(self, method: str, path: str = "") -> int:
        """How many such requests came."""
        return sum(1 for verb, at, _ in self.seen if verb == method and re.search(path, at))

    def _fault(self, method: str, path: str) -> Callable[[Exchange], None]:
        with self._lock:
            for number, (verb, pattern, fault) in enumerate(self._faults):
                if verb in {"", method} and re.search(pattern, path):
                    del self._faults[number]
                    return fault
        return self.always or Exchange.forward

    def _answer(self, handler: BaseHTTPRequestHandler) -> None:
        body = handler.rfile.read(int(handler.headers.get("Content-Length") or 0))
        headers = {name.lower(): value for name, value in handler.headers.items()}
        exchange = Exchange(handler.command, handler.path, headers, body, self._forward)
        self._fault(handler.command, handler.path)(exchange)
        with self._lock:
            self.seen.append((handler.command, handler.path, exchange.status if exchange.answered else 0))
        if not exchange.answered:
            handler.close_connection = True
            return
        handler.send_response_only(exchange.status)
        for name, value in exchange.headers.items():
            handler.send_header(name, value)
        handler.end_headers()
        if exchange.method != "HEAD":
            handler.wfile.write(exchange.body if exchange.cut_after is None else exchange.body[: exchange.cut_after])
        if exchange.cut_after is not None:
            handler.close_connection = True

    def _forward(self, exchange: Exchange) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._upstream, timeout=60)
        try:
            connection.putrequest(exchange.method, exchange.path, skip_host=True, skip_accept_encoding=True)
            for name, value in exchange.request_headers.items():
                if name not in {"connection", "expect"}:
                    connection.putheader(name, value)
            connection.endheaders(exchange.request_body or None)
            answer = connection.getresponse()
            exchange.body = answer.read()
            exchange.status = answer.status
            kept = {name: value for name, value in answer.getheaders() if name.lower() not in {"connection", "transfer-encoding"}}
            exchange.headers = {name.title(): value for name, value in kept.items()}
            if exchange.method != "HEAD":
                exchange.headers["Content-Length"] = str(len(exchange.body))
        finally:
            connection.close()
        if exchange.status == 200 and "Content-Range" in exchange.headers:
            exchange.status = 206  # RFC 9110 section 15.3.7; rclone's server says 200
