"""Listening: sockets, TLS, and the life of a server process. Every face over HTTP is served by it."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import os
import resource
import signal
import socket
import ssl
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import uvicorn
import uvloop

from keystead.core.errors import Conflict, InvalidRequest, Unavailable
from keystead.frontends.asgi.protocol import END_OF_TLS, KeysteadProtocol, protocol_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from keystead.core.configuration import ServerConfig
    from keystead.frontends.asgi.protocol import Refusals

UNIX = "unix:"
BACKLOG = 1_024
MOST_FILES = 65_536
KEEP_ALIVE = 75
"""Seconds an idle connection is kept for the next request."""


class Application(Protocol):
    """What is served: an ASGI application that is told when the server stops."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:  # noqa: ANN401 - ASGI's own types are not fixed
        """Answer one request."""
        ...

    def stop(self) -> None:
        """No more requests should be sent here; those that come are still answered."""
        ...

    def close(self) -> None:
        """The server has ended."""
        ...


class Server(uvicorn.Server):
    """uvicorn's server, stopped by `stop`, and with a time limit for TLS handshakes."""

    def __init__(self, app: Application, config: uvicorn.Config, limits: ServerConfig) -> None:
        super().__init__(config)
        self.app = app
        self._limits = limits
        self._listen: Callable[[socket.socket], Awaitable[asyncio.Server]] | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Accept connections."""
        loop = asyncio.get_running_loop()
        await self.lifespan.startup()
        handshake = self._limits.header_timeout / 1_000 if self.config.ssl else None

        def protocol() -> asyncio.Protocol:
            made: asyncio.Protocol = self.config.http_protocol_class(  # type: ignore[call-arg]  # uvicorn's protocols take these
                config=self.config, server_state=self.server_state, app_state=self.lifespan.state, _loop=loop
            )
            return made

        async def listen(one: socket.socket) -> asyncio.Server:
            return await loop.create_server(protocol, sock=one, ssl=self.config.ssl, backlog=BACKLOG, ssl_handshake_timeout=handshake)

        self._listen = listen
        self.servers = [await listen(one) for one in sockets or ()]
        self.started = True

    async def listen(self, one: socket.socket) -> asyncio.Server:
        """Accept connections at one address more; `close` of what is given back ends that, and cuts none that are open."""
        assert self._listen is not None, "the server has started"
        server = await self._listen(one)
        self.servers.append(server)
        return server

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Take no more connections, wait for calls under way, and tell those that took too long."""
        await super().shutdown(sockets)
        late = [one for one in self.server_state.connections if isinstance(one, KeysteadProtocol)]
        for connection in late:
            connection.give_up()
        if late:
            await asyncio.sleep(END_OF_TLS)
        for connection in late:
            connection.transport.abort()
        await asyncio.sleep(0)  # the loop lets go of them before it ends

    @contextlib.contextmanager
    def capture_signals(self):  # type: ignore[no-untyped-def]  # noqa: ANN201 - as the base class has it
        """Signals are the caller's: `stop`."""
        yield

    def stop(self) -> None:
        """The first time: take no more connections, let calls finish. The second time: stop at once."""
        self.force_exit = self.should_exit
        self.should_exit = True
        self.app.stop()


def server_of(app: Application, refusals: Refusals, context: ssl.SSLContext | None) -> Server:
    """The server of an application, not yet running.

    Args:
        app: what answers.
        refusals: limits of the connections, and what they are refused with.
        context: for TLS.
    """
    limits = refusals.limits
    config = uvicorn.Config(
        app,
        http=protocol_of(refusals),
        interface="asgi3",
        lifespan="off",
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=KEEP_ALIVE,
        timeout_graceful_shutdown=limits.stop_timeout / 1_000,  # type: ignore[arg-type]  # it is only compared with a time
        ssl_context_factory=None if context is None else lambda _config, _default: context,
    )
    return Server(app, config, limits)


def run_server(
    server: Server,
    sockets: Sequence[socket.socket],
    *,
    on_start: Callable[[], None],
    on_stop: Callable[[], None],
    orphaned: Callable[[Callable[[], None]], None] | None = None,
) -> None:
    """Answer calls until SIGTERM or SIGINT; returns when calls have finished, or their time is up.

    Args:
        server: not yet running.
        sockets: bound, as `bind` gives them.
        on_start: called when connections are accepted.
        on_stop: called at the first signal, in the event loop; must not block.
        orphaned: given the function that stops the server, for another reason than a signal.
    """

    def stop() -> None:
        if not server.should_exit:
            on_stop()
        server.stop()

    async def run() -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, stop)
        if orphaned is not None:
            orphaned(stop)
        loop.call_soon(_when_started, server, loop, on_start)
        await server.serve(list(sockets))

    _take_files()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        try:
            runner.run(run())
        finally:
            server.app.close()


def _take_files() -> None:
    """As many open files as the system lets this process have, within reason.

    Connections count against `max_connections` when their handshake is done. Until then, or until the time of a handshake is up, each costs a
    file: with the 1,024 that shells give, a thousand that never say a word would keep everybody else out.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST_FILES if hard == resource.RLIM_INFINITY else min(hard, MOST_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(OSError, ValueError):  # a system that gives no more: then it stays as it is
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _when_started(server: Server, loop: asyncio.AbstractEventLoop, on_start: Callable[[], None]) -> None:
    if server.started:
        on_start()
    else:
        loop.call_later(0.005, _when_started, server, loop, on_start)


def tls_context(config: ServerConfig) -> ssl.SSLContext | None:
    """TLS 1.2 and later with the configured certificate; None where there is none.

    Raises:
        InvalidRequest: `configuration_invalid`.
    """
    certificate, key = config.tls_certificate_file, config.tls_key_file
    if not certificate and not key:
        return None
    if not certificate or not key:
        raise InvalidRequest(
            "configuration_invalid", "TLS needs both server.tls_certificate_file and server.tls_key_file", "name both or none"
        )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    try:
        context.load_cert_chain(certificate, key, password=_no_passphrase)
    except (OSError, ssl.SSLError) as error:
        raise InvalidRequest(
            "configuration_invalid", f"certificate and key of the server cannot be used: {error}", "name PEM files that fit each other"
        ) from error
    return context


def _no_passphrase() -> str:
    raise InvalidRequest(
        "configuration_invalid", "the server's key is protected by a passphrase", "store it without, readable by its owner"
    )


def bind(config: ServerConfig) -> tuple[socket.socket, str]:
    """Listen; returns the socket and the address clients on this machine reach it by.

    Raises:
        InvalidRequest: not an address, or one beyond this machine without TLS.
        Conflict: somebody listens there already.
        Unavailable: the system does not give it.
    """
    if config.listen.startswith(UNIX):
        return _bind_unix(config.listen.removeprefix(UNIX))
    host, port = _host_and_port(config.listen)
    secure = bool(config.tls_certificate_file)
    addresses = _resolved(host, port)
    if not secure and not all(ipaddress.ip_address(address[0]).is_loopback for _family, address in addresses):
        raise InvalidRequest(
            "tls_needed", f"{config.listen} can be reached from other machines, and there is no TLS", "set server.tls_certificate_file and server.tls_key_file, or listen on 127.0.0.1"
        )  # fmt: skip
    family, address = addresses[0]
    listening = socket.socket(family, socket.SOCK_STREAM)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0 if address[0] == "::" else 1)
        listening.bind(address)
        listening.listen(BACKLOG)
        listening.setblocking(False)  # noqa: FBT003 - the library's signature
    except OSError as error:
        listening.close()
        raise _not_listening(config.listen, error) from error
    port = listening.getsockname()[1]
    return listening, f"{'https' if secure else 'http'}://{_reachable(address[0])}:{port}"


def _bind_unix(name: str) -> tuple[socket.socket, str]:
    """A socket that only its owner may connect to; one left behind by a server that died is replaced."""
    path = Path(name).absolute()
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        if path.exists() and stat.S_ISSOCK(path.stat().st_mode) and not _answers(path):
            path.unlink()
        before = os.umask(0o177)
        try:
            listening.bind(str(path))
        finally:
            os.umask(before)
        listening.listen(BACKLOG)
        listening.setblocking(False)  # noqa: FBT003 - the library's signature
    except OSError as error:
        listening.close()
        raise _not_listening(f"{UNIX}{name}", error) from error
    return listening, f"{UNIX}{path}"


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(path))
        except OSError:
            return False
        return True


def _host_and_port(listen: str) -> tuple[str, int]:
    host, colon, port = listen.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not colon or not host or not (port.isascii() and port.isdecimal()) or int(port) > 65_535:
        raise InvalidRequest("configuration_invalid", f"{listen!r} is no address to listen on", "write HOST:PORT or unix:PATH")
    return host, int(port)


def _resolved(host: str, port: int) -> list[tuple[socket.AddressFamily, tuple[str, int]]]:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as error:
        raise _not_listening(f"{host}:{port}", error) from error
    return [(socket.AddressFamily(family), (str(address[0]), int(address[1]))) for family, _type, _proto, _name, address in found]


def _reachable(address: str) -> str:
    """How this machine itself reaches it."""
    name = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(address, address)  # noqa: S104 - only compared with
    return f"[{name}]" if ":" in name else name


def _not_listening(where: str, error: OSError) -> Conflict | Unavailable:
    if isinstance(error, FileExistsError) or error.errno == 98:
        return Conflict("address_in_use", f"somebody listens on {where} already", "choose another address, or stop the other one")
    return Unavailable("address_unavailable", f"the system does not give {where}: {error.strerror or error}", "choose another address")
