"""`keystead vault serve`: the vaults of a home over HTTPS, and the place where their clients sign in (docs/howto/vault.md).

One process opens the home, of which it uses the vault alone, and listens: on loopback at a port for each vault and one for signing in, or
with a domain at one address for all. A thread looks every second for vaults that are new or gone; another does each minute what is due.

    tls/                         the private certificate authority, where none is configured
    run/vault-addresses.json     the ports that were chosen
    run/vault-development.json   in dev homes: id and secret of each tenant's development client, mode 0600
    run/vault-serve.lock         held while one of these two files is read and written
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import fcntl
import logging
import os
import resource
import threading
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec

from keystead import __version__
from keystead.adapters.certificates import server_certificate
from keystead.adapters.files import write_durably
from keystead.core.errors import InvalidRequest, KeysteadError, Unavailable
from keystead.core.ids import domain_name
from keystead.core.vaults.recovery import Existence
from keystead.frontends.asgi.server import bind, run_server, server_of, tls_context
from keystead.frontends.logs import start_log
from keystead.frontends.vault_http.addresses import HTTPS, LOGIN, LOOPBACK, AddressBook, Domain, Remembered, remembered
from keystead.frontends.vault_http.app import VaultApp, refusals
from keystead.frontends.vault_http.authority import AuthorityApp, AuthorityParts
from keystead.frontends.vault_http.parts import VaultParts
from keystead.vault import clients, management, strangers, tokens
from keystead.vault.clients import Credentials
from keystead.vault.lookup import vault_state
from keystead.wiring import describe_home, open_home

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from keystead.core.configuration import Configuration, ServerConfig
    from keystead.frontends.asgi.protocol import Whole
    from keystead.frontends.asgi.server import Server
    from keystead.frontends.vault_http.addresses import Place
    from keystead.ports.vault_store import Vault
    from keystead.vault.services import VaultServices

log = logging.getLogger("keystead.vault")

ADDRESSES, DEVELOPMENT, LOCK = "vault-addresses.json", "vault-development.json", "vault-serve.lock"
LOOK_PAUSE = 1.0
"""Seconds between two looks for new vaults."""
UPKEEP_PAUSE = 60.0
"""Seconds between two looks for what is due."""
LISTEN_TIMEOUT = 10.0
DOMAIN_LISTEN = "127.0.0.1:8443"
CA_VARIABLES = ("REQUESTS_CA_BUNDLE", "SSL_CERT_FILE")
"""What tells clients whom to trust: the first those that use requests (synchronous SDKs), the second those that use OpenSSL's own (asynchronous ones)."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the command line asks for.

    Attributes:
        ports: fixed ports by vault name in lower case.
        authority_port: 0 for the one from before, or any.
        domain: empty for loopback addresses.
        listen: HOST:PORT, with a domain alone.
        ready_file: written when calls are taken, and when vaults come and go; removed at the end.
    """

    ports: Mapping[str, int] = field(default_factory=dict)
    authority_port: int = 0
    domain: str = ""
    listen: str = ""
    ready_file: Path | None = None


class ReadyVault(msgspec.Struct, frozen=True, omit_defaults=True):
    """One entry of the ready file; the last two in dev homes alone."""

    name: str
    url: str
    ca_file: str
    authority: str
    tenant_id: str
    client_id: str = ""
    client_secret: str = ""

    def __repr__(self) -> str:
        return f"ReadyVault(name={self.name!r}, url={self.url!r})"


@dataclass(frozen=True, slots=True)
class Announced:
    """What people are told when calls are taken, or when vaults have come or gone."""

    vaults: tuple[tuple[str, str], ...]
    authority: str
    ca_file: str


def run_vaults(path: Path, wanted: Wanted, announced: Callable[[Announced], None]) -> None:
    """Serve the vaults of a home until SIGTERM or SIGINT.

    Args:
        path: the home.
        wanted: addresses and files.
        announced: told where the vaults are, at the start and after each change.

    Raises:
        KeysteadError: the home, an address or the certificate cannot be used.
    """
    # Private keys are in this process's memory: should it ever die of a defect in C, no image of that is left on the disk.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _file, written = describe_home(path)
    start_log(written.configuration.log)
    domain = _domain(wanted)
    config, ca_file = _tls(path, written.configuration, domain)
    context = tls_context(config)
    assert context is not None, "there is always a certificate"
    home = open_home(path)
    try:
        listeners = _Listeners(path / "run", config, wanted, domain, home.vault, ca_file, announced, dev=home.file.dev)
        with listeners:
            parts = VaultParts(home.vault, listeners.book.resolve, partial(tokens.verify, home.vault), config, __version__)
            authority = AuthorityParts(home.vault, listeners.book.authority_of, listeners.book.resource, config)
            faces = _Faces(listeners.book, AuthorityApp(authority), VaultApp(parts))
            server = server_of(faces, refusals(parts, faces.take), context)
            with _upkeep(home.vault):
                run_server(server, listeners.first, on_start=lambda: listeners.started(server), on_stop=listeners.stop)
    finally:
        home.close()


class _Faces:
    """The two applications of one server: vaults, and the place to sign in."""

    def __init__(self, book: AddressBook, authority: AuthorityApp, vaults: VaultApp) -> None:
        self._book = book
        self._authority = authority
        self._vaults = vaults

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:  # noqa: ANN401 - ASGI's
        """Hand a request to whom its address names."""
        await (self._authority if self._book.is_authority(scope) else self._vaults)(scope, receive, send)

    def take(self, whole: Whole) -> None:
        """The same with a request that came in one piece."""
        if self._book.is_authority(whole.scope):
            whole.start(self._authority)
        else:
            self._vaults.take(whole)

    def stop(self) -> None:
        """The server stops."""
        self._authority.stop()
        self._vaults.stop()

    def close(self) -> None:
        """The server has stopped."""
        self._authority.close()
        self._vaults.close()


# -- certificates -------------------------------------------------------------------------------------------------------------------------


def _domain(wanted: Wanted) -> Domain | None:
    if not wanted.domain:
        if wanted.listen:
            raise InvalidRequest(
                "usage", "--listen is for all vaults under one --domain", "name a domain, or fix ports with --vault and --port"
            )
        return None
    if wanted.ports or wanted.authority_port:
        raise InvalidRequest("usage", "under a domain all vaults are served at one address", "give --listen HOST:PORT instead of ports")
    listen = wanted.listen or DOMAIN_LISTEN
    port = listen.rpartition(":")[2]
    return Domain(domain_name(wanted.domain), int(port) if port.isascii() and port.isdecimal() else HTTPS)


def _tls(path: Path, configuration: Configuration, domain: Domain | None) -> tuple[ServerConfig, Path]:
    """Limits and certificate of the server, and the file that clients are to trust."""
    vault = configuration.vault
    certificate, key = vault.tls_certificate_file, vault.tls_key_file
    if certificate or key:
        # A missing half, a wrong key or a passphrase is refused where they are loaded.
        files = tuple(str(path / name) if name else "" for name in (certificate, key))
        return replace(configuration.server, tls_certificate_file=files[0], tls_key_file=files[1]), path / certificate
    names = [LOOPBACK, "::1", "localhost", *((f"*.{domain.name}", domain.name) if domain else ())]
    made = server_certificate(path / "tls", names, dt.datetime.now(dt.UTC))
    config = replace(configuration.server, tls_certificate_file=str(made.certificate_file), tls_key_file=str(made.key_file))
    return config, made.ca_file


# -- addresses ----------------------------------------------------------------------------------------------------------------------------


class _Listeners:
    """Sockets for vaults: those that are there at the start, and those that come; and what other programs are told of them.

    Between `started` and the end one thread looks for changes; before and after, nobody else is here.
    """

    def __init__(
        self,
        run: Path,
        config: ServerConfig,
        wanted: Wanted,
        domain: Domain | None,
        vault: VaultServices,
        ca_file: Path,
        announced: Callable[[Announced], None],
        *,
        dev: bool,
    ) -> None:
        self.book = AddressBook(domain)
        self.first: list[socket.socket] = []
        self._run, self._config, self._wanted, self._domain, self._vault = run, config, wanted, domain, vault
        self._ca_file, self._announced, self._dev = ca_file.absolute(), announced, dev
        self._ports: dict[str, int] = {}
        self._open: dict[str, asyncio.Server] = {}
        self._authority_port = 0
        self._seen: frozenset[tuple[str, str]] = frozenset()
        self._secrets: dict[str, Credentials] = {}
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> None:
        """Listen for every vault there is, and for those who sign in. A ready file that a killed process left behind tells nobody anything."""
        ready = self._wanted.ready_file
        if ready is not None:
            if not ready.absolute().parent.is_dir():
                raise InvalidRequest(
                    "ready_file_invalid", f"there is no folder for the ready file {ready.name}", "make it, or name another file"
                )
            ready.unlink(missing_ok=True)
        try:
            if self._domain is not None:
                listening, url = bind(replace(self._config, listen=self._wanted.listen or DOMAIN_LISTEN))
                self.first.append(listening)
                if not self._domain.port:
                    self._domain = Domain(self._domain.name, int(url.rpartition(":")[2]))
                    self.book = AddressBook(self._domain)
            else:
                listening, self._authority_port = self._bound(self._wanted.authority_port, remembered(self._run / ADDRESSES).authority)
                self.first.append(listening)
            for found in self._vaults():
                if (bound := self._listen(found)) is not None:
                    self.first.append(bound)
            self._write()
        except BaseException:
            for one in self.first:
                one.close()
            raise

    def __exit__(self, *_error: object) -> None:
        """Nobody is told of addresses any more that do not answer."""
        self._stopped.set()
        if self._thread is not None:
            self._thread.join()
        if self._wanted.ready_file is not None:
            self._wanted.ready_file.unlink(missing_ok=True)

    def started(self, server: Server) -> None:
        """Calls are taken; called in the event loop. From now on a thread looks for new vaults; it also tells whoever waits."""
        loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._watch, args=(server, loop), name="addresses", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """No new vaults from now on."""
        self._stopped.set()

    def _watch(self, server: Server, loop: asyncio.AbstractEventLoop) -> None:
        self._tell()
        while not self._stopped.wait(LOOK_PAUSE):
            try:
                self._look(server, loop)
            except KeysteadError as error:
                log.warning("vaults cannot be looked for: %s", error.code)
            except Exception:
                log.exception("looking for vaults met a defect")

    def _look(self, server: Server, loop: asyncio.AbstractEventLoop) -> None:
        """One look: new vaults get an address, and that of a vault that is gone for good is given up.

        A vault that gets none, because somebody else has its fixed port, is looked at again, and keeps no other from theirs.
        """
        vaults = self._vaults()
        same = frozenset((one.id, str(one.deleted)) for one in vaults) == self._seen
        opened = False
        for found in vaults:
            try:
                bound = self._listen(found)
            except KeysteadError as error:
                if not same:
                    log.warning("the vault %s is not served: %s", found.name, error.detail)
                continue
            if bound is not None:
                listening = asyncio.run_coroutine_threadsafe(server.listen(bound), loop)
                self._open[found.id] = listening.result(LISTEN_TIMEOUT)
                opened = True
        if same and not opened:
            return
        for gone in self._ports.keys() - {one.id for one in vaults}:
            self._ports.pop(gone)
            if (listener := self._open.pop(gone, None)) is not None:
                loop.call_soon_threadsafe(listener.close)
        self._write()
        self._tell()

    def _vaults(self) -> list[Vault]:
        """Those that are there or can be recovered: of the latter those that were served before keep their address, and say that they are gone."""
        now = self._vault.clock.now()
        with self._vault.store.reading() as tx:
            return [one for one in tx.all_vaults() if vault_state(one, now) is not Existence.GONE]

    def _listen(self, found: Vault) -> socket.socket | None:
        """A socket for a vault that has none yet; None for one that needs none."""
        if self._domain is not None or found.id in self._ports or found.deleted is not None:
            return None
        before = remembered(self._run / ADDRESSES).vaults.get(found.id, 0)
        bound, self._ports[found.id] = self._bound(self._wanted.ports.get(found.name.lower(), 0), before)
        return bound

    def _bound(self, fixed: int, before: int) -> tuple[socket.socket, int]:
        """Listen on a fixed port, or the one from before, or any.

        Raises:
            Conflict: `address_in_use`: somebody has the fixed one.
        """
        for port in (fixed,) if fixed else (before, 0):
            try:
                listening, url = bind(replace(self._config, listen=f"{LOOPBACK}:{port}"))
            except KeysteadError:
                if port == before and not fixed:
                    continue
                raise
            return listening, int(url.rpartition(":")[2])
        raise Unavailable("address_unavailable", "the system gives no port", "stop something that listens")

    def _write(self) -> None:
        """What requests are resolved by, what is remembered, and the development clients."""
        vaults = self._vaults()
        active = frozenset(one.id for one in vaults if one.deleted is None)
        by_key: dict[int | str, Vault] = {}
        for one in vaults:
            if self._domain is not None:
                by_key[one.name.lower()] = one
            elif one.id in self._ports:
                by_key[self._ports[one.id]] = one
        if self._domain is not None and LOGIN in by_key:
            log.warning("the vault %s cannot be reached: its name is that of the place to sign in", LOGIN)
        self.book.put(by_key, active, self._authority_port)
        with _locked(self._run / LOCK):
            if self._domain is None:
                self._remember()
            if self._dev:
                self._make_secrets({one.tenant_id for one in vaults if one.deleted is None})
        self._seen = frozenset((one.id, str(one.deleted)) for one in vaults)

    def _remember(self) -> None:
        """What another process remembers of a vault stays: its address comes back when that one has stopped."""
        before = remembered(self._run / ADDRESSES)
        now = Remembered(before.authority or self._authority_port, {**self._ports, **before.vaults})
        if now != before:
            write_durably(self._run / ADDRESSES, msgspec.json.encode(now))

    def _make_secrets(self, tenants: set[str]) -> None:
        file = self._run / DEVELOPMENT
        held: dict[str, dict[str, str]] = {}
        with contextlib.suppress(OSError, msgspec.DecodeError):
            held = msgspec.json.decode(file.read_bytes(), type=dict[str, dict[str, str]])
        known = {tenant: Credentials(**one) for tenant, one in held.items() if one.keys() == {"client_id", "client_secret"}}
        for tenant in sorted(tenants):
            self._secrets[tenant] = clients.development(self._vault, tenant, known.get(tenant))
        now = held | {tenant: {"client_id": one.client_id, "client_secret": one.client_secret} for tenant, one in self._secrets.items()}
        if now != held:
            write_durably(file, msgspec.json.encode(now))

    def _tell(self) -> None:
        places = self.book.places
        if self._wanted.ready_file is not None:
            write_durably(
                self._wanted.ready_file, msgspec.json.format(msgspec.json.encode([self._ready(place) for place in places])) + b"\n"
            )
        self._announced(Announced(tuple((place.name, place.url) for place in places), self.book.authority, str(self._ca_file)))

    def _ready(self, place: Place) -> ReadyVault:
        secret = self._secrets.get(place.tenant_id)
        more = {} if secret is None else {"client_id": secret.client_id, "client_secret": secret.client_secret}
        return ReadyVault(place.name, place.url, str(self._ca_file), self.book.authority, place.tenant_id, **more)


@contextlib.contextmanager
def _locked(file: Path) -> Iterator[None]:
    """Alone among the processes of this home; the system lets go when a process dies."""
    with file.open("wb") as lock:
        os.fchmod(lock.fileno(), 0o600)
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


# -- what is due --------------------------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _upkeep(vault: VaultServices) -> Iterator[None]:
    """Each minute, in a thread: retention, rotation, the keys of tokens. What fails is tried again with the next look."""
    stopped = threading.Event()

    def work() -> None:
        while True:
            try:
                management.upkeep(vault)
                tokens.keep_up(vault)
                strangers.write_due(vault)
            except KeysteadError as error:
                log.warning("upkeep of vaults failed: %s", error.code)
            except Exception:
                log.exception("upkeep of vaults met a defect")
            if stopped.wait(UPKEEP_PAUSE):
                return

    thread = threading.Thread(target=work, name="upkeep", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stopped.set()
        thread.join()
        with contextlib.suppress(
            KeysteadError
        ):  # what is not recorded now never is, and a database that is gone must not keep a process from ending
            strangers.write_due(vault, all_of_it=True)
