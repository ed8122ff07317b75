"""Putting a server together: homes, the HTTP front end, job threads, and the processes that share an address.

Each process has a Home of its own. With several, a supervisor that opens no store holds the listening socket and the lock of
run/server.json, starts the others, and replaces one that dies; should the supervisor die, they stop.
"""

from __future__ import annotations

import contextlib
import fcntl
import hmac
import os
import secrets
import signal
import threading
import time
from dataclasses import dataclass, replace
from typing import IO, TYPE_CHECKING, Self

import msgspec

from keystead.adapters.files import write_durably
from keystead.api.openapi import openapi_document
from keystead.api.wire import JSON
from keystead.client.running import FILE, LOCK, SECRET, ServerFile
from keystead.core.access.principal import NOBODY, Principal
from keystead.core.errors import InvalidRequest, Unauthenticated, Unavailable
from keystead.frontends.asgi.server import UNIX, bind, tls_context
from keystead.frontends.http.answers import Document
from keystead.frontends.http.app import Parts
from keystead.frontends.http.credentials import Proxies, is_loopback
from keystead.frontends.http.figures import forget_process, shared_figures
from keystead.frontends.http.server import serve
from keystead.frontends.logs import start_log
from keystead.services.alerting import key_store_failure, standing_watch
from keystead.services.auditing import LogAndDirectory
from keystead.services.jobs.runner import job_threads
from keystead.services.sign_in import sign_in
from keystead.wiring import describe_home, open_home

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable
    from pathlib import Path

    from keystead.core.configuration import ServerConfig, WebdavConfig
    from keystead.frontends.http.app import Observer
    from keystead.frontends.http.credentials import Credentials
    from keystead.frontends.logs import RequestLog
    from keystead.frontends.webdav.app import Seen as SeenWebdav
    from keystead.frontends.webdav.credentials import Shown
    from keystead.frontends.webdav.server import WebdavServer
    from keystead.wiring import Home

SECRET_BYTES = 32
LOCK_TRIES, LOCK_PAUSE = 40, 0.05
"""A command that looks whether a server runs holds the lock for an instant: so taking it is tried for two seconds."""
RESTART_PAUSE = 1.0
"""Seconds between the death of a server process and the start of the next, so that one that cannot start does not keep a machine busy."""


def run_servers(
    path: Path, *, listen: str, webdav: str = "", processes: int, ready_file: Path | None, announced: Callable[[str, str], None]
) -> None:
    """Serve a home until SIGTERM or SIGINT.

    Args:
        path: the home.
        listen: in place of the configured address; empty for that one.
        webdav: the same for WebDAV, which is served where there is an address for it.
        processes: how many share the address.
        ready_file: written with the address when calls are taken, removed at the end.
        announced: told the address at the same time, and that of WebDAV, empty for none.

    Raises:
        KeysteadError: the home or the address cannot be used.
    """
    file, written = describe_home(path)
    requests = start_log(written.configuration.log)
    config = written.configuration.server
    config = _resolved(path, replace(config, listen=listen or config.listen))
    dav = written.configuration.webdav
    dav = replace(dav, listen=webdav or dav.listen)
    tls_context(config)  # refused before anything listens
    listening, url = bind(config)
    beside: Beside | None = None
    try:
        beside = _bind_webdav(dav, config)
        with _Shown(path, url, config, beside, dev=file.dev, ready_file=ready_file, announced=announced) as shown:
            if processes == 1:
                _serve(open_home(path), config, listening, shown.secret, requests, shown.started, beside=beside)
            else:
                with shared_figures(path / "run") as folder:
                    _Supervisor(path, config, listening, shown, processes, requests, folder, beside).run()
    finally:
        listening.close()
        if beside is not None:
            beside.listening.close()
        if config.listen.startswith(UNIX):
            with contextlib.suppress(OSError):
                os.unlink(url.removeprefix(UNIX))  # noqa: PTH108 - a socket's name as text


def _resolved(path: Path, config: ServerConfig) -> ServerConfig:
    """Relative names of files count from the home."""
    listen = config.listen
    if listen.startswith(UNIX):
        listen = f"{UNIX}{path / listen.removeprefix(UNIX)}"
    certificate, key = (str(path / name) if name else "" for name in (config.tls_certificate_file, config.tls_key_file))
    return replace(config, listen=listen, tls_certificate_file=certificate, tls_key_file=key)


@dataclass(frozen=True, slots=True)
class Beside:
    """WebDAV beside the API: limits, a socket that is bound, and its address on this machine."""

    config: WebdavConfig
    listening: socket.socket
    url: str


def _bind_webdav(dav: WebdavConfig, config: ServerConfig) -> Beside | None:
    """Listen for WebDAV with the certificate of the API, where there is an address for it."""
    if not dav.listen:
        return None
    if dav.listen.startswith(UNIX):
        raise InvalidRequest("configuration_invalid", "WebDAV is served at a host and port", "write webdav.listen as HOST:PORT")
    return Beside(dav, *bind(replace(config, listen=dav.listen)))


# -- one process --------------------------------------------------------------------------------------------------------------------------


def _serve(
    home: Home,
    config: ServerConfig,
    listening: socket.socket,
    secret: str,
    requests: RequestLog,
    on_start: Callable[[], object],
    watch: int | None = None,
    *,
    beside: Beside | None = None,
) -> None:
    """Calls and jobs of one process, until it is told to stop; closes the home.

    Args:
        home: opened by this process.
        config: limits.
        listening: bound.
        secret: of run/server.secret.
        requests: writes a line for each call.
        on_start: called when calls are taken.
        watch: a pipe whose other end the supervisor holds: when that closes, this process stops.
        beside: WebDAV, where it is served.
    """
    stopped = threading.Event()
    jobs = job_threads(home.services, stopped, config.jobs)
    parts = server_parts(home, config, secret, requests)
    dav = None if beside is None else webdav_server(home, config, beside, parts, secret)

    def started() -> None:
        for thread in jobs:
            thread.start()
        if dav is not None:
            dav.begin()
        on_start()

    def stop() -> None:
        stopped.set()
        if dav is not None:
            threading.Thread(target=dav.end, name="webdav stop").start()

    try:
        with standing_watch(home.services):
            serve(
                parts,
                [listening],
                on_start=started,
                on_stop=stop,
                orphaned=None if watch is None else lambda stop: _watch(watch, stop),
            )
    finally:
        stopped.set()
        if dav is not None:
            dav.end()
        until = time.monotonic() + config.stop_timeout / 1_000
        for thread in jobs:
            if thread.is_alive():  # a slice takes some seconds at most; one that is cut off changes nothing
                thread.join(max(0.0, until - time.monotonic()))
        home.close()


def _watch(watch: int, stop: Callable[[], None]) -> None:
    import asyncio  # noqa: PLC0415 - only processes below a supervisor get here

    loop = asyncio.get_running_loop()

    def closed() -> None:
        loop.remove_reader(watch)
        stop()

    loop.add_reader(watch, closed)


def server_parts(home: Home, config: ServerConfig, secret: str = "", *observers: Observer) -> Parts:
    """What the HTTP application of a home is made of.

    Args:
        home: opened.
        config: limits.
        secret: of run/server.secret; empty where there is none.
        observers: told of each call, beside the figures.
    """
    from keystead.frontends.http.metrics import Metrics  # noqa: PLC0415 - when it is loaded it must be known whether figures are shared

    def who(shown: Credentials) -> Principal:
        return authenticate(home, secret, shown)

    metrics = Metrics(home.services, who)
    return Parts(
        dispatcher=home.dispatcher,
        authenticate=who,
        random=os.urandom,
        checks=_checks(home),
        pages={"/openapi.json": lambda _shown: Document(JSON, openapi_document()), "/metrics": metrics.page},
        observers=(metrics, *observers),
        config=config,
    )


def webdav_server(home: Home, config: ServerConfig, beside: Beside, parts: Parts, secret: str = "") -> WebdavServer:
    """The server of WebDAV on a home, not yet running.

    Args:
        home: opened.
        config: of the API: certificate, and whose word is taken on where calls come from.
        beside: its own.
        parts: of the API, whose observers are told of these requests too.
        secret: of run/server.secret, which is everybody's password in a dev home, from this machine; empty where there is none.
    """
    from keystead.frontends.http.app import Seen  # noqa: PLC0415 - these are loaded where WebDAV is served
    from keystead.frontends.webdav.app import WebdavApp, WebdavParts  # noqa: PLC0415 - as said
    from keystead.frontends.webdav.server import WebdavServer  # noqa: PLC0415 - as said

    proxies = Proxies(config.trusted_proxies)

    def known(shown: Shown, client_ip: str, forwarded: bool) -> Principal | None:  # noqa: FBT001 - as it is called
        good = hmac.compare_digest(shown.token.encode(), secret.encode())
        if not (secret and good and shown.upn and home.file.dev and is_loopback(client_ip) and not forwarded):
            return None
        return home.as_person(shown.upn)()

    def began() -> None:
        for observer in parts.observers:
            observer.began()

    def ended(one: SeenWebdav) -> None:
        route = f"webdav.{one.method.lower()}" if one.method else ""
        seen = Seen(
            request_id=one.request_id,
            route=route,
            method=one.method,
            tenant=one.tenant_id,
            upn=one.upn,
            status=one.status,
            code=one.code,
            seconds=one.seconds,
            received=one.received,
            sent=one.sent,
            client_ip=one.client_ip,
        )
        for observer in parts.observers:
            observer.ended(seen)

    application = WebdavApp(
        WebdavParts(
            services=home.services,
            dispatcher=home.dispatcher,
            refused=LogAndDirectory(home.services).refused,
            threads=beside.config.threads,
            known=known,
            began=began,
            ended=ended,
            caller=lambda peer, forwarded: proxies.caller(peer, forwarded.encode("latin-1", "replace")),
        )
    )
    return WebdavServer(beside.listening, application, beside.config, tls_context(config))


def authenticate(home: Home, secret: str, shown: Credentials) -> Principal:
    """Who credentials are: of a token, whom it names; of a dev home's secret, anybody; of neither, nobody.

    Raises:
        Unauthenticated: the token is not good; `home_secret_wrong`: not this server's secret, or not from this machine.
        Throttled: too many bad tokens from there.
        NotFound: nobody of the name to call as.
    """
    if shown.bearer:
        return sign_in(home.services, shown.bearer, shown.client_ip)
    if not shown.home_secret:
        if shown.as_upn:
            raise _secret_wrong()
        return NOBODY
    good = hmac.compare_digest(shown.home_secret.encode(), secret.encode())
    if not (secret and good and home.file.dev and shown.local):  # a proxy on this machine may speak for anybody
        raise _secret_wrong()
    return (home.as_person(shown.as_upn) if shown.as_upn else home.as_operator())()


def _secret_wrong() -> Unauthenticated:
    return Unauthenticated(
        "home_secret_wrong", "calling as somebody takes the secret of a dev home's server, on its own machine", "sign in with a token"
    )


def _checks(home: Home) -> dict[str, Callable[[], object]]:
    """What /readyz asks: one small question for each store."""
    services = home.services

    def database() -> None:
        with services.db.read() as tx:
            tx.settings.all()

    def keystore() -> None:
        if failure := key_store_failure(services, None):
            raise Unavailable(failure, "the key store does not answer", "keystead alerts list --everywhere says more")

    def objects() -> None:
        if silent := ", ".join(services.objects.check()):
            raise Unavailable(
                "object_store_unavailable", f"containers do not answer: {silent}", "check that they are up, and their credentials"
            )

    return {"database": database, "key store": keystore, "objects": objects}


# -- what other processes see -------------------------------------------------------------------------------------------------------------


class _Shown:
    """The home's run/server.json, and the ready file. A second server on the same home takes calls too, but commands use the first."""

    def __init__(
        self,
        path: Path,
        url: str,
        config: ServerConfig,
        beside: Beside | None,
        *,
        dev: bool,
        ready_file: Path | None,
        announced: Callable[[str, str], None],
    ) -> None:
        self._run = path / "run"
        webdav = beside.url if beside is not None else ""
        self._file = ServerFile(url, os.getpid(), time.time_ns() // 1_000_000, config.tls_certificate_file, webdav)
        self._ready_file = ready_file
        self._announced = announced
        self._lock: IO[bytes] | None = None
        self.secret = secrets.token_hex(SECRET_BYTES) if dev else ""

    def __enter__(self) -> Self:
        """Take the lock. What a killed server left behind is removed before its name could be taken for ours."""
        self._run.mkdir(mode=0o700, exist_ok=True)
        lock = (self._run / LOCK).open("wb")
        for _ in range(LOCK_TRIES):
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                time.sleep(LOCK_PAUSE)
                continue
            self._lock = lock
            self._remove()
            return self
        lock.close()
        return self

    def started(self) -> None:
        """Calls are taken. The secret is there before the address is."""
        if self._lock is not None:
            if self.secret:
                write_durably(self._run / SECRET, self.secret.encode())
            write_durably(self._run / FILE, msgspec.json.encode(self._file))
        if self._ready_file is not None:
            write_durably(self._ready_file, self._file.url.encode() + b"\n")
        self._announced(self._file.url, self._file.webdav)

    def __exit__(self, *_error: object) -> None:
        """Take it all away again; the lock goes last."""
        if self._ready_file is not None:
            self._ready_file.unlink(missing_ok=True)
        if self._lock is not None:
            self._remove()
            self._lock.close()

    def _remove(self) -> None:
        for name in (FILE, SECRET):
            (self._run / name).unlink(missing_ok=True)


# -- several processes --------------------------------------------------------------------------------------------------------------------


@dataclass
class _Supervisor:
    """Starts server processes and replaces those that die, until it is told to stop."""

    path: Path
    config: ServerConfig
    listening: socket.socket
    shown: _Shown
    count: int
    requests: RequestLog
    figures: Path
    beside: Beside | None = None

    def run(self) -> None:
        """Until SIGTERM or SIGINT, and until all processes have ended."""
        stopped = threading.Event()
        children: set[int] = set()

        def stop(number: int, _frame: object) -> None:
            stopped.set()
            for child in children:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(child, number)

        previous = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
        alive, held = os.pipe()
        reports, ready = os.pipe()
        try:
            for _ in range(self.count):
                children.add(self._start(alive, held, ready))
            os.close(ready)
            self._await_all(reports)
            if not stopped.is_set():
                self.shown.started()
            while children:
                child, _status = os.wait()
                children.discard(child)
                forget_process(self.figures, child)
                if not stopped.is_set() and not stopped.wait(RESTART_PAUSE):
                    children.add(self._start(alive, held, None))
        finally:
            os.close(held)
            for number, handler in previous.items():
                signal.signal(number, handler)

    def _await_all(self, reports: int) -> None:
        """Until each process has said that it takes calls, or has ended."""
        while len(os.read(reports, self.count)):
            pass
        os.close(reports)

    def _start(self, alive: int, held: int, ready: int | None) -> int:
        """Fork a server process: this one has no threads and no store open, so nothing is torn in two."""
        child = os.fork()
        if child:
            return child
        code = 1
        try:
            os.close(held)
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, signal.SIG_DFL)
            started = bool if ready is None else lambda: os.close(ready)
            _serve(open_home(self.path), self.config, self.listening, self.shown.secret, self.requests, started, alive, beside=self.beside)
            code = 0
        finally:
            os._exit(code)
