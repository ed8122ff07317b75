"""Looking after the databases of an installation: what state they are in, and bringing them to the present schema.

Nothing here opens the installation, so it works on a database that is new, behind, damaged or out of reach. Nothing but `upgrade_databases`
changes anything.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sqlalchemy import text

from keystead.adapters.sql.engine import is_server, open_engine, reading
from keystead.adapters.sql.migrate import HEADS, UPGRADE, check_ordering, present_revision, upgrade
from keystead.core.errors import IntegrityFailure, KeysteadError, PreconditionFailed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from sqlalchemy import Connection, Engine

    from keystead.core.configuration import Configuration, DatabaseConfig

CLOCK_DIFFERENCE = 5_000
"""Milliseconds by which the clocks of this machine and of a database server may differ: leases of minutes, tokens of minutes."""


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that must be done, like an error's code, detail and mend."""

    database: str
    code: str
    detail: str
    mend: str


@dataclass(slots=True)
class DatabaseState:
    """What was found.

    Attributes:
        database: keystead, keys or vault.
        place: the file's name, or USER@HOST/NAME.
        state: current, behind, new, too-new, or unreachable.
        revision: of its schema; empty for none.
        works_with: the revision this version of Keystead works with.
        server: version of PostgreSQL; empty for a file.
        clock_difference_ms: how far the server's clock is ahead of this machine's.
        problems: what must be done.
    """

    database: str
    place: str
    state: str = "unreachable"
    revision: str = ""
    works_with: str = ""
    server: str = ""
    clock_difference_ms: int | None = None
    problems: list[Problem] = field(default_factory=list)

    def problem(self, code: str, detail: str, mend: str) -> None:
        """Something must be done."""
        self.problems.append(Problem(self.database, code, detail, mend))


def check_databases(path: Path, configuration: Configuration, now: Callable[[], int]) -> list[DatabaseState]:
    """Look at the three databases.

    Args:
        path: the home, or a member of a fleet.
        configuration: where they are.
        now: this machine's clock.

    Raises:
        InvalidRequest: `configuration_invalid`: an address is none.
    """
    places = configuration.databases
    users = {family: _parameters(config).get("user", "") for family, config in places.items()}
    found = []
    for family, config in places.items():
        state = DatabaseState(family, _place(family, config), works_with=HEADS[family])
        found.append(state)
        if not config.url and not (path / f"{family}.db").is_file():
            state.problem("home_part_missing", f"{family}.db is not there", "make a home with keystead init, or restore it from a backup")
            continue
        engine = open_engine(config, path / f"{family}.db", path)
        try:
            _look(state, engine, now)
            if is_server(engine):
                with reading(engine) as connection:
                    _look_at_server(state, connection)
                    _look_at_rights(state, connection, {user for other, user in users.items() if other != family and user})
        except KeysteadError as error:
            state.problem(error.code, error.detail, error.mend)
        finally:
            engine.dispose()
    return found


def upgrade_databases(path: Path, configuration: Configuration) -> Iterator[tuple[str, str, str]]:
    """Bring each database to the present schema; gives family, the revision it was at (empty for none), and the one it is at.

    Each is one transaction: a crash or an error leaves that one and those after it as they were, and the call can be made again.

    Raises:
        PreconditionFailed: `schema_too_new`, `database_collation`.
        Conflict: `database_shared`.
        Unavailable: a server does not answer.
    """
    for family, config in configuration.databases.items():
        if not config.url and not (path / f"{family}.db").is_file():
            raise IntegrityFailure(
                "home_part_missing", f"{family}.db is not there", "make a home with keystead init, or restore it from a backup"
            )
        engine = open_engine(config, path / f"{family}.db", path)
        try:
            yield family, upgrade(engine, family) or "", HEADS[family]
        finally:
            engine.dispose()


def _parameters(config: DatabaseConfig) -> Mapping[str, Any]:
    if not config.url:
        return {}
    from keystead.adapters.sql.postgresql import connection_parameters  # noqa: PLC0415 - a home does without the driver

    return connection_parameters(config.url)


def _place(family: str, config: DatabaseConfig) -> str:
    if not config.url:
        return f"{family}.db"
    parameters = _parameters(config)
    return f"{parameters.get('user', '')}@{parameters.get('host', '')}/{parameters.get('dbname', '')}"


def _look(state: DatabaseState, engine: Engine, now: Callable[[], int]) -> None:
    """What revision it is at, and what time it is there."""
    revision = present_revision(engine, state.database)
    state.revision = revision or ""
    if revision is None:
        state.state = "new"
    elif revision == state.works_with:
        state.state = "current"
    else:
        state.state = "too-new" if revision > state.works_with else "behind"
    if state.state == "too-new":
        state.problem(
            "schema_too_new",
            f"it is at revision {revision}; this version of Keystead knows up to {state.works_with}",
            "use the newer version",
        )
    elif state.state != "current" and is_server(engine):  # a home's files are upgraded when they are opened
        state.problem(
            "schema_behind",
            f"it is at revision {revision or 'none'}, not {state.works_with}",
            f"run {UPGRADE}, when no process of an older version is at work",
        )
    if is_server(engine):
        with reading(engine) as connection:
            before = now()
            there = int(connection.execute(text("SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint")).scalar_one())
            state.clock_difference_ms = there - (before + now()) // 2
        if abs(state.clock_difference_ms) > CLOCK_DIFFERENCE:
            state.problem(
                "clock_differs",
                f"the server's clock and this machine's differ by {abs(state.clock_difference_ms)} ms",
                "set both by the same time servers",
            )


_DURABLE = {"fsync": "on", "full_page_writes": "on"}


def _look_at_server(state: DatabaseState, connection: Connection) -> None:
    """Its version, how it orders text, and whether what it acknowledged survives a power cut."""

    def shown(name: str) -> str:
        return str(connection.execute(text("SELECT current_setting(:name)"), {"name": name}).scalar_one())

    state.server = shown("server_version")
    try:
        check_ordering(connection)
    except PreconditionFailed as error:
        state.problem(error.code, error.detail, error.mend)
    wrong = [name for name, value in _DURABLE.items() if shown(name) != value]
    wrong += ["synchronous_commit"] if shown("synchronous_commit") == "off" else []
    if wrong:
        state.problem(
            "database_not_durable",
            f"a power cut can lose what the server has acknowledged: {', '.join(wrong)} of its settings is off",
            "turn it on in the server's settings",
        )


def _look_at_rights(state: DatabaseState, connection: Connection, others: set[str]) -> None:
    """Whoever has one store's password must not be able to read another store (design section 1)."""
    user, mighty = connection.execute(text("SELECT rolname, rolsuper FROM pg_roles WHERE rolname = current_user")).one()
    if mighty:
        state.problem(
            "database_user_mighty",
            f"{user} is a superuser of the server and reads every database on it",
            f"give this store a user without rights of its own: ALTER ROLE {user} NOSUPERUSER, or another user",
        )
    for other in sorted(others):
        if other == user:
            state.problem(
                "database_user_shared", f"{user} is the user of another store too", "give each of the three stores a user of its own"
            )
            continue
        allowed = text(
            "SELECT rolname FROM pg_roles WHERE rolname = :user AND has_database_privilege(rolname, current_database(), 'CONNECT')"
        )
        if connection.execute(allowed, {"user": other}).first() is not None:
            name = connection.execute(text("SELECT current_database()")).scalar_one()
            state.problem(
                "database_open_to_others",
                f"{other}, the user of another store, may connect to this one",
                f"REVOKE CONNECT ON DATABASE {name} FROM PUBLIC; REVOKE CONNECT ON DATABASE {name} FROM {other}",
            )
