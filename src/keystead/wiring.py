"""Putting the house together: the only place that picks adapters.

A *home* is one directory:

    home.json         what it is: version, dev or not      keystead.toml   settings, if there are any
    keystead.db       the service's database        objects/    ciphertext
    keys.db           the key store                 seals/      what opens the key store and the vault
    vault.db          the embedded key vault        run/        dev clock, dev faults, who is running

Where keystead.toml names a database server, the directory is one *member* of a fleet: the stores are where the file says, home.json is
not needed, and any number of machines may have such a directory, with the same file and the same seals.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import socket
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING

import msgspec

from keystead import __version__
from keystead.adapters.clock import DevClock, SystemClock
from keystead.adapters.files import remove_durably, write_durably
from keystead.adapters.keystores.sql import open_keystore
from keystead.adapters.notify.ledger import FileLedger
from keystead.adapters.objects.open import open_objects
from keystead.adapters.seals import key_file, open_seal
from keystead.adapters.sql.engine import open_engine
from keystead.adapters.sql.migrate import upgrade
from keystead.adapters.sql.rows_work import SqlJobRows
from keystead.adapters.sql.store import SqlDatabase
from keystead.adapters.sql.vault_store import SqlVaultStore
from keystead.adapters.vaults.embedded import EmbeddedVaults
from keystead.adapters.vaults.faults import FaultyVaults, set_fault
from keystead.adapters.vaults.routed import RoutedVaults, open_entries
from keystead.api.dispatch import Dispatcher
from keystead.api.routes import Side
from keystead.client.client import Client
from keystead.client.local import LocalTransport
from keystead.core.access.principal import NOBODY, Principal, Role
from keystead.core.access.throttle import Pace
from keystead.core.access.tokens import TokenKind
from keystead.core.alerts import AlertKind, Condition
from keystead.core.configuration import Runner, SignInConfig
from keystead.core.errors import Conflict, IntegrityFailure, InvalidRequest, KeysteadError, NotFound, Unavailable
from keystead.core.ids import new_id
from keystead.core.secret import KEY_BYTES, SecretKey
from keystead.ports.issuers import Issuers, NoIssuers
from keystead.services import tenants
from keystead.services.alerting import INSTALLATION, KEY_STORE, raise_alert
from keystead.services.auditing import LogAndDirectory
from keystead.services.context import Basics, DevHome, HomeFacts, Services
from keystead.services.keyring import Keyring
from keystead.services.sign_in import for_the_log, sign_in
from keystead.services.tally import Tally
from keystead.services.tokens import issue
from keystead.services.unwritten import CountingDatabase
from keystead.settings import FILE, parse_setting, read_settings, read_written, shown
from keystead.vault.management import upkeep
from keystead.vault.services import VaultServices, VaultSettings, open_vault

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from sqlalchemy import Connection, Engine

    from keystead.core.configuration import Configuration, VaultConfig
    from keystead.core.settings import Settings
    from keystead.ports.clock import Clock
    from keystead.ports.notify import Hook
    from keystead.ports.objects import ObjectStore
    from keystead.ports.tx import Database
    from keystead.ports.vaults import Vaults
    from keystead.settings import Written

FORMAT = 1
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
"""Another one each time the machine starts."""


class HomeFile(msgspec.Struct, frozen=True):
    """home.json."""

    version: int
    dev: bool
    operator: str


@dataclass(frozen=True, slots=True)
class Home:
    """An opened home."""

    path: Path
    file: HomeFile
    configuration: Configuration
    services: Services
    vault: VaultServices
    dispatcher: Dispatcher
    close: Callable[[], None]

    def client(self, principal: Callable[[], Principal], tenant: str = "") -> Client:
        """A client that calls this home, in this process, as somebody."""
        transport = LocalTransport(self.dispatcher, principal, self._push, lambda: None)
        return Client(transport, tenant)

    def _push(self, job_id: str) -> bool:
        """Run a slice of a job. The runner is loaded when first needed: a read should not pay for it."""
        from keystead.services.jobs.runner import push  # noqa: PLC0415 - as said

        return push(self.services, job_id)

    def as_person(self, upn: str) -> Callable[[], Principal]:
        """Call as anybody, in a dev home.

        Raises:
            InvalidRequest: the home is not a dev home.
        """
        if not self.file.dev:
            raise InvalidRequest("as_needs_dev_home", "--as works in dev homes only", "sign in with --token-file")
        return lambda: tenants.impersonate(self.services, upn)

    def as_operator(self) -> Callable[[], Principal]:
        """Call as the operator of a dev home; elsewhere nobody is signed in without a token."""
        if not self.file.dev:
            return lambda: NOBODY
        return lambda: Principal(self.file.operator, None, frozenset({Role.OPERATOR}), dev=True)

    def as_token(self, token: str) -> Callable[[], Principal]:
        """Call as whoever a token names, by the time of each call."""
        return lambda: sign_in(self.services, token, "")


def create_home(path: Path, *, dev: bool, operator: str, token_file: Path | None = None) -> dict[str, object]:
    """Make a home, or the stores of a fleet, and the operator with a token file.

    home.json is written last: a crash before it leaves a folder that is not a home yet, and `init` can be run again. In a fleet it can
    be run by whoever holds its file and its seals, and gives the operator another token.

    Raises:
        Conflict: there is a home already.
        IntegrityFailure: the fleet's seals are missing here; none are left in their place.
    """
    if (path / "home.json").exists():
        raise Conflict("home_exists", f"{path} is a home already", "use it, or choose another --home")
    prepared = (path / "seals").is_dir() or (path / FILE).exists()
    if path.exists() and any(path.iterdir()) and not prepared:
        raise Conflict("folder_not_empty", f"{path} is not empty and not a home", "choose an empty folder")
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.chmod(0o700)
    written = read_written(path, os.environ)
    configuration = written.configuration
    for folder in (path / configuration.keystore.seals, path / "objects", path / "run"):
        folder.mkdir(mode=0o700, exist_ok=True)
    seals = (path / configuration.keystore.master_file, key_file(configuration.vault, path, os.environ))
    made = [seal for seal in seals if seal is not None and not seal.exists()]
    for seal in made:
        write_durably(seal, os.urandom(KEY_BYTES))
    file = _member_file(configuration) if configuration.fleet else HomeFile(FORMAT, dev, operator)
    try:
        for family, engine in _engines(path, configuration).items():
            upgrade(engine, family)
            engine.dispose()
        home = _open(path, file, written)
    except IntegrityFailure:
        for seal in made:  # the stores are older than these, and were never opened with them
            remove_durably(seal)
        raise
    token_file = token_file or path / "operator.token"
    try:
        with home.services.db.read() as tx:
            person = tx.tenants.person(file.operator.lower())
        if person is None:
            person, token = tenants.make_operator(home.services, file.operator)
        else:
            with home.services.db.write() as tx:
                token = issue(home.services, tx, TokenKind.SIGN_IN, person.upn, None).secret
    finally:
        home.close()
    write_durably(token_file, token.encode())
    if not configuration.fleet:
        write_durably(path / "home.json", msgspec.json.encode(HomeFile(FORMAT, dev, person.upn)))
    return {"home": str(path), "dev": file.dev, "operator": {"upn": person.upn, "token_file": str(token_file)}}


def describe_home(path: Path, environment: Mapping[str, str] | None = None) -> tuple[HomeFile, Written]:
    """What a home is and what its settings are, without opening its stores.

    Raises:
        NotFound: there is none.
        IntegrityFailure: home.json cannot be read.
        InvalidRequest: another version of Keystead made the home, or its settings do not fit.
    """
    written = read_written(path, os.environ if environment is None else environment)
    return (_member_file(written.configuration) if written.configuration.fleet else _home_file(path)), written


def open_home(path: Path, environment: Mapping[str, str] | None = None) -> Home:
    """Open a home.

    Raises:
        NotFound: there is none.
        IntegrityFailure: a seal does not fit, or a part is missing.
    """
    file, written = describe_home(path, environment)
    if written.configuration.fleet:
        return _open(path, file, written)
    for name in written.configuration.databases:
        database = path / f"{name}.db"
        if not database.is_file() or not database.stat().st_size:  # opening would make an empty one, and everything would seem gone
            raise IntegrityFailure("home_part_missing", f"{database.name} of the home is missing", "restore it from a backup")
    return _open(path, file, written)


def _home_file(path: Path) -> HomeFile:
    """home.json.

    Raises:
        NotFound: there is none.
        IntegrityFailure: it cannot be read.
        InvalidRequest: another version of Keystead made the home.
    """
    file = path / "home.json"
    if not file.is_file():
        raise NotFound("home_not_found", f"{path} is not a home", "make one with keystead init, or name one with --home")
    try:
        described = msgspec.json.decode(file.read_bytes(), type=HomeFile)
    except msgspec.DecodeError as error:
        raise IntegrityFailure("home_damaged", f"{file} is not readable: {error}", "restore it from a backup") from error
    if described.version != FORMAT:
        raise InvalidRequest(
            "home_version", f"the home has version {described.version}; this program knows {FORMAT}", "use the version that made it"
        )
    return described


def _member_file(configuration: Configuration) -> HomeFile:
    """What home.json says of a home, for a member of a fleet."""
    return HomeFile(FORMAT, configuration.installation.dev, configuration.installation.operator)


def _open(path: Path, file: HomeFile, written: Written) -> Home:
    engines = _engines(path, written.configuration)
    try:
        return _opened(path, file, written, engines)
    except BaseException:  # a program that tries again must not hold more and more of a server's connections
        for engine in engines.values():
            engine.dispose()
        raise


def _opened(path: Path, file: HomeFile, written: Written, engines: Mapping[str, Engine]) -> Home:
    configuration = written.configuration
    (path / "run").mkdir(mode=0o700, exist_ok=True)  # a machine that joins a fleet has none yet
    clock: Clock = DevClock(path / "run" / "clock") if file.dev else SystemClock()
    tally = Tally()
    unwritten = FileLedger(path / "run" / "unwritten")
    db = CountingDatabase(SqlDatabase(engines["keystead"], _job_rows(configuration)), unwritten, clock, tally)
    with db.read() as tx:
        stored = tx.settings.all()
    settings, sources = read_settings(written, stored)
    try:
        keystore = open_keystore(
            engines["keys"], path / configuration.keystore.seals, _seal(path / configuration.keystore.master_file), clock, os.urandom
        )
    except (IntegrityFailure, Unavailable) as error:
        # opened with a seal that is not its own is an attempt; anything else means that it is gone or damaged.
        kind = AlertKind.KEY_STORE if error.code == "keystore_seal_refused" else AlertKind.KEY_STORE_UNREADABLE
        with db.write() as tx:
            raise_alert(Basics(clock, os.urandom, settings), tx, Condition(INSTALLATION, kind, KEY_STORE, error.code))
        raise
    vault = open_vault(
        SqlVaultStore(engines["vault"]),
        open_seal(configuration.vault, path, os.environ),
        clock,
        os.urandom,
        _vault_settings(settings),
        _authorities(configuration.vault, path, settings, clock),
    )
    entries = open_entries(configuration.vaults, path, settings, clock)
    routed = RoutedVaults(EmbeddedVaults(vault), vault.settings.uri_suffix, entries, lambda domain: _tenant_of(db, domain))
    vaults: Vaults = routed
    dev = None
    if file.dev and isinstance(clock, DevClock):
        faults = path / "run" / "faults"
        faults.mkdir(mode=0o700, exist_ok=True)
        vaults = FaultyVaults(vaults, faults, clock, settings.vault_timeout)
        dev = DevHome(clock.advance, lambda name, kind: set_fault(faults, name, kind))
    presence = Presence(path / "run")
    keyring = Keyring(db, keystore, vaults, clock, os.urandom, settings, presence.owner, tally)
    services = Services(
        db=db,
        keystore=keystore,
        objects=open_objects(configuration.objects, path),
        vaults=vaults,
        clock=clock,
        random=os.urandom,
        settings=settings,
        keyring=keyring,
        owner=presence.owner,
        alive=presence.alive,
        home=HomeFacts(
            str(path),
            file.dev,
            __version__,
            {**written.sources, **sources},
            parse_setting,
            tuple(shown(configuration)),
            configuration.sign_in.issuer,
        ),
        dev=dev,
        upkeep=lambda: upkeep(vault),
        hooks=_hooks(configuration, path),
        unwritten=unwritten,
        issuers=_issuers(configuration.sign_in, settings, clock),
        tally=tally,
    )
    dispatcher = Dispatcher({Side.SERVICE: services, Side.VAULT: vault}, LogAndDirectory(services), os.urandom)

    def close() -> None:
        with suppress(KeysteadError):  # what is not recorded now never is, and a database that is gone must not keep a process from ending
            for_the_log(services, all_of_it=True)
        keyring.close()
        routed.close()
        vault.journal.close()
        for engine in engines.values():
            engine.dispose()
        presence.close()

    return Home(path, file, configuration, services, vault, dispatcher, close)


def _tenant_of(db: Database, domain: str) -> str | None:
    """Id of the tenant that has a domain now."""
    with db.read() as tx:
        found = tx.tenants.find(domain)
    return found.id if found is not None and found.domain == domain.lower() else None


def _job_rows(configuration: Configuration) -> Callable[[Connection], SqlJobRows]:
    """How jobs are kept: in a fleet whose runner is Procrastinate, rows that ring.

    Raises:
        InvalidRequest: `configuration_invalid`: there is no PostgreSQL to ring.
    """
    if configuration.worker.runner is Runner.INLINE:
        return SqlJobRows
    if not configuration.fleet:
        raise InvalidRequest(
            "configuration_invalid",
            "the runner procrastinate needs a database on PostgreSQL",
            "name one as `url` of [database] in keystead.toml, or leave `runner` of [worker] out",
        )
    from keystead.adapters.jobs.rings import RingingJobRows  # noqa: PLC0415 - a home does without

    return RingingJobRows


def _issuers(config: SignInConfig, settings: Settings, clock: Clock) -> Issuers:
    """Who asks the sign-in providers of tenants. The HTTP library is loaded where an issuer is allowed at all."""
    if not config.issuers:
        return NoIssuers()
    from keystead.adapters.oidc import HttpIssuers  # noqa: PLC0415 - as said

    return HttpIssuers(config, settings, clock)


def _authorities(config: VaultConfig, path: Path, settings: Settings, clock: Clock) -> Issuers:
    """On whose word the vault releases keys. They publish theirs as sign-in providers do, so the same code asks them; over TLS alone."""
    if not config.release_authorities:
        return NoIssuers()
    from keystead.adapters.oidc import HttpIssuers  # noqa: PLC0415 - as for issuers

    ca_file = str(path / config.release_ca_file) if config.release_ca_file else ""
    return HttpIssuers(
        SignInConfig(issuers=config.release_authorities, key_hosts=config.release_key_hosts, ca_file=ca_file), settings, clock
    )


def _vault_settings(settings: Settings) -> VaultSettings:
    """The vault's own share of the settings. Who fails to sign in waits there as long as here."""
    return VaultSettings(
        rate_percent=settings.vault_rate_percent,
        client_secret_lifetime=settings.vault_client_secret_lifetime,
        client_token_lifetime=settings.vault_client_token_lifetime,
        token_key_lifetime=settings.vault_token_key_lifetime,
        clock_leeway=settings.clock_leeway,
        pace=Pace(settings.sign_in_free_attempts, settings.sign_in_delay, settings.sign_in_delay_max, settings.sign_in_forget),
    )


def _hooks(configuration: Configuration, path: Path) -> tuple[Hook, ...]:
    """Who is told of alerts."""
    if not configuration.hooks:
        return ()
    from keystead.adapters.notify.open import open_hooks  # noqa: PLC0415 - nobody else needs HTTP and mail to start

    return open_hooks(configuration, path)


def _engines(path: Path, configuration: Configuration) -> dict[str, Engine]:
    """The three databases, by family."""
    return {family: open_engine(config, path / f"{family}.db", path) for family, config in configuration.databases.items()}


@dataclass(frozen=True, slots=True)
class Stores:
    """The bare stores of an installation, for moving it: nothing is opened with a key, and no schema is asked for.

    Attributes:
        engines: by family: keystead, keys, vault.
        seals: folder of the epoch keys.
    """

    file: HomeFile
    configuration: Configuration
    engines: Mapping[str, Engine]
    objects: ObjectStore
    seals: Path
    clock: Clock


@contextmanager
def open_stores(path: Path, environment: Mapping[str, str] | None = None, new: HomeFile | None = None) -> Iterator[Stores]:
    """The stores of an installation.

    Args:
        path: the home, or a member of a fleet.
        environment: in place of the process's own.
        new: make the stores of a home that is not one yet; what its home.json will say.

    Raises:
        NotFound: there is no home.
        Conflict: there is a home already, and a new one was asked for.
    """
    if new is None:
        file, written = describe_home(path, environment)
    else:
        written = read_written(path, os.environ if environment is None else environment)
        file = _member_file(written.configuration) if written.configuration.fleet else new
        if not written.configuration.fleet and (path / "home.json").exists():
            raise Conflict("home_exists", f"{path} is a home already", "choose another --home")
    configuration = written.configuration
    for name in (configuration.keystore.seals, "objects", "run"):
        (path / name).mkdir(mode=0o700, parents=True, exist_ok=True)
    engines = _engines(path, configuration)
    try:
        yield Stores(
            file,
            configuration,
            engines,
            open_objects(configuration.objects, path),
            path / configuration.keystore.seals,
            DevClock(path / "run" / "clock") if file.dev else SystemClock(),
        )
    finally:
        for engine in engines.values():
            engine.dispose()


def _seal(path: Path) -> SecretKey:
    try:
        material = path.read_bytes()
    except OSError as error:
        raise IntegrityFailure(
            "seal_missing", f"the seal {path.name} of the home cannot be read: {error.strerror}", "restore the seals folder from a backup"
        ) from error
    if len(material) != KEY_BYTES:
        raise IntegrityFailure(
            "seal_damaged",
            f"the seal {path.name} of the home has {len(material)} bytes, not {KEY_BYTES}",
            "restore the seals folder from a backup",
        )
    return SecretKey(material)


class Presence:
    """Shows other processes of the home that this one lives: a locked file, which the system unlocks when the process dies.

    So the jobs of a killed process are taken over at once instead of after their lease. A file speaks only to those who see the same
    folder from the same running machine, so the name of an owner says which these are: of any other nothing is known here, and its lease
    decides, as it does after a restart of the machine.
    """

    def __init__(self, run: Path) -> None:
        self._place = _place(run)
        self.owner = f"{new_id(os.urandom)}@{self._place}"
        self._run = run
        self._file: IO[bytes] | None = None

    def _path(self, owner: str) -> Path:
        return self._run / f"runner-{owner}"

    def announce(self) -> None:
        """Lock the file: called before the first lease is taken."""
        if self._file is None:
            self._file = self._path(self.owner).open("wb")
            fcntl.flock(self._file, fcntl.LOCK_EX)

    def alive(self, owner: str) -> bool:
        """False when the process that goes by that name is known to be dead; this process is announced on the way."""
        self.announce()
        if owner == self.owner or owner.partition("@")[2] != self._place:
            return True
        try:
            with self._path(owner).open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except FileNotFoundError:
            return False
        except BlockingIOError:
            return True
        self._path(owner).unlink(missing_ok=True)
        return False

    def close(self) -> None:
        """Go."""
        if self._file is not None:
            self._file.close()
            self._path(self.owner).unlink(missing_ok=True)


def _place(run: Path) -> str:
    """Names this folder on this running machine: twelve hexadecimal digits. Containers of one machine have folders of their own."""
    folder = run.stat()
    try:
        machine = BOOT_ID.read_text().strip()
    except OSError:  # not Linux: the name of the machine is the best there is
        machine = socket.gethostname()
    return hashlib.sha256(f"{machine} {folder.st_dev} {folder.st_ino}".encode()).hexdigest()[:12]
