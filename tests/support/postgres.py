"""A real PostgreSQL for tests: Debian's programs, a data directory of its own, a private socket, no network.

    databases = cluster().databases()           # three empty databases, each of a user that cannot reach the other two
    databases.keystead_url                      # postgresql://keystead@/t1_keystead?host=/tmp/kp-...

A cluster belongs to the process that made it and goes when that ends, however it ends: the server is told by the system when its parent
dies. It starts in about a second and does not wait for its disk. Databases are made from templates in some milliseconds.
"""

from __future__ import annotations

import atexit
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import conninfo, sql

if TYPE_CHECKING:
    from collections.abc import Iterator

ADMIN = "admin"
"""The superuser. Whoever reaches the socket may be anybody, but for the users made by `Cluster.user`, who need their password."""
USERS = {"keystead": "keystead", "keys": "keystead_keys", "vault": "keystead_vault"}
"""Who owns the databases of a family."""
START_SECONDS = 60
_SETTINGS = {
    "listen_addresses": "",
    "fsync": "off",
    "synchronous_commit": "on",
    "full_page_writes": "off",
    "max_connections": "300",
    "shared_buffers": "32MB",
    "max_wal_size": "256MB",
    "autovacuum": "off",
    "log_min_messages": "warning",
}
_RULES = "local all +passworded scram-sha-256\nlocal all all trust\n"


@dataclass(frozen=True)
class Databases:
    """The databases of one installation, by address."""

    keystead_url: str
    keys_url: str
    vault_url: str


class Cluster:
    """One server. Use `cluster()`; make one only to break it."""

    def __init__(self, **settings: str) -> None:
        """`settings`: of postgresql.conf, over those that make it quick."""
        self._programs = programs()
        self.folder = Path(tempfile.mkdtemp(prefix="kp-", dir=tempfile.gettempdir()))
        self._numbers = count(1)
        self._server: subprocess.Popen[bytes] | None = None
        self._kept: psycopg.Connection[tuple[Any, ...]] | None = None
        atexit.register(self.close)
        self._run_as: list[str] = []
        if os.geteuid() == 0:  # PostgreSQL refuses to run as root
            owner = _unprivileged()
            self._run_as = [f"--reuid={owner.pw_uid}", f"--regid={owner.pw_gid}", "--clear-groups", "--inh-caps=-all"]
            os.chown(self.folder, owner.pw_uid, owner.pw_gid)
        made = self._command("initdb", "-D", str(self._data), "-U", ADMIN, "-A", "trust", "--locale=C", "--encoding=UTF8", "--no-sync")
        subprocess.run(made, check=True, capture_output=True, cwd="/")
        lines = "".join(f"{name} = '{value}'\n" for name, value in {**_SETTINGS, **settings}.items())
        with (self._data / "postgresql.conf").open("a") as file:
            file.write(f"{lines}unix_socket_directories = '{self.folder}'\n")
        (self._data / "pg_hba.conf").write_text(_RULES)
        self.start()
        self.execute("CREATE ROLE passworded NOLOGIN")
        for user in USERS.values():
            self.execute(f"CREATE ROLE {user} LOGIN")

    @property
    def _data(self) -> Path:
        return self.folder / "data"

    def _command(self, program: str, *arguments: str) -> list[str]:
        """As the server's own user; told to stop when this process dies."""
        return ["setpriv", *self._run_as, "--pdeathsig=QUIT", "--", str(self._programs / program), *arguments]

    def start(self) -> None:
        """Start the server, and wait until it answers."""
        with (self.folder / "log").open("ab") as log:
            self._server = subprocess.Popen(
                self._command("postgres", "-D", str(self._data)), stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd="/"
            )
        end = time.monotonic() + START_SECONDS
        while True:
            try:
                with psycopg.connect(self.url(ADMIN, "postgres")):
                    return
            except psycopg.OperationalError:
                assert self._server.poll() is None, f"PostgreSQL did not start:\n{self.log()}"
                assert time.monotonic() < end, f"PostgreSQL does not answer:\n{self.log()}"
                time.sleep(0.01)

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """Stop the server: SIGINT breaks connections off, SIGQUIT leaves it as a power cut would."""
        if self._kept is not None:
            self._kept.close()
            self._kept = None
        if self._server is not None:
            self._server.send_signal(how)
            self._server.wait(START_SECONDS)
            self._server = None

    def restart(self, how: signal.Signals = signal.SIGINT) -> None:
        """Stop and start; connections are lost."""
        self.stop(how)
        self.start()

    def close(self) -> None:
        """Stop the server and remove all it had."""
        self.stop(signal.SIGQUIT)
        shutil.rmtree(self.folder, ignore_errors=True)
        atexit.unregister(self.close)

    def log(self) -> str:
        """What the server had to say."""
        return (self.folder / "log").read_text(errors="replace")

    def url(self, user: str, database: str) -> str:
        """The address of a database for a user."""
        return f"postgresql://{user}@/{database}?host={self.folder}"

    def _admin(self) -> psycopg.Connection[tuple[Any, ...]]:
        """The superuser's connection, made anew after a restart."""
        if self._kept is None or self._kept.closed:
            self._kept = psycopg.connect(self.url(ADMIN, "postgres"), autocommit=True)
        return self._kept

    @contextmanager
    def connection(self, database: str = "postgres") -> Iterator[psycopg.Connection[tuple[Any, ...]]]:
        """A connection of the superuser's, of the caller's own; every statement is a transaction."""
        with psycopg.connect(self.url(ADMIN, database), autocommit=True) as connection:
            yield connection

    def execute(self, statement: str) -> list[tuple[Any, ...]]:
        """Run a statement as superuser, in no database of a test; its rows, if it has any."""
        cursor = self._admin().execute(sql.SQL(statement))
        return cursor.fetchall() if cursor.description else []

    def user(self, name: str, password: str) -> None:
        """A user who is let in with this password only."""
        made = sql.SQL("CREATE ROLE {} LOGIN PASSWORD {} IN ROLE passworded").format(sql.Identifier(name), sql.Literal(password))
        self._admin().execute(made)

    def database(self, owner: str, *, template: str = "template0", name: str = "", options: str = "") -> str:
        """Make a database that nobody but its owner may enter; returns its name.

        Args:
            owner: a user there is.
            template: copied; nobody may be connected to it.
            name: of the new database; a fresh one when empty.
            options: of CREATE DATABASE.
        """
        name = name or f"t{next(self._numbers)}"
        self.execute(f"CREATE DATABASE {name} OWNER {owner} TEMPLATE {template} {options}")
        self.execute(f"REVOKE ALL ON DATABASE {name} FROM PUBLIC")
        return name

    def drop(self, *names: str) -> None:
        """Remove databases; whoever is connected is thrown out."""
        for name in names:
            self.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")

    def copied(self, databases: Databases) -> Databases:
        """Three databases just like these; whoever is connected to them is thrown out."""
        number = next(self._numbers)
        urls = {}
        for family, user in USERS.items():
            template = str(conninfo.conninfo_to_dict(getattr(databases, f"{family}_url"))["dbname"])
            self.disconnect(template)
            urls[f"{family}_url"] = self.url(user, self.database(user, template=template, name=f"t{number}_{family}"))
        return Databases(**urls)

    def disconnect(self, name: str, *, keep: int = 0) -> int:
        """Throw everybody out of a database, but for one process of the server; returns how many that were."""
        thrown = "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE datname = %s AND pid <> %s"
        return len(self._admin().execute(thrown, (name, keep)).fetchall())

    def databases(self) -> Databases:
        """Three fresh, empty databases."""
        number = next(self._numbers)
        urls = {f"{family}_url": self.url(user, self.database(user, name=f"t{number}_{family}")) for family, user in USERS.items()}
        return Databases(**urls)


@cache
def cluster() -> Cluster:
    """This process's server, started when first asked for."""
    return Cluster()


def programs() -> Path:
    """The newest PostgreSQL there is."""
    found = [path.parent for path in Path("/usr/lib/postgresql").glob("*/bin/postgres")]
    assert found, "the tests need PostgreSQL: run scripts/setup-tools"
    return max(found, key=lambda path: int(path.parent.name))


def _unprivileged() -> pwd.struct_passwd:
    """Whom Debian's package runs the server as; any other powerless user does as well."""
    try:
        return pwd.getpwnam("postgres")
    except KeyError:
        return pwd.getpwnam("nobody")
