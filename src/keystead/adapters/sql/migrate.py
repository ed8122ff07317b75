"""Bringing a database to the schema this version of Keystead works with.

Each of the three databases has a family of numbered migrations in this package. Alembic is imported only when a database is new or behind:
at every other start one small read is all it costs.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import text
from sqlalchemy.exc import OperationalError

from keystead.adapters.sql.engine import reading
from keystead.core.errors import PreconditionFailed, Unavailable

if TYPE_CHECKING:
    from alembic.config import Config
    from sqlalchemy import Engine

MIGRATIONS = Path(__file__).parent / "migrations"
HEADS = {"keystead": "0001", "keys": "0001", "vault": "0001"}
"""The revision each family is at; a test compares it with the migration files."""


def present_revision(engine: Engine) -> str | None:
    """The revision a database is at; None for a new one."""
    try:
        with reading(engine) as connection:
            return connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
    except Unavailable as error:
        if isinstance(error.__cause__, OperationalError) and "no such table" in str(error.__cause__.orig):
            return None
        raise


def ensure_current(engine: Engine, family: str) -> None:
    """Upgrade a database that is new or behind.

    Raises:
        PreconditionFailed: the database was written by a newer version of Keystead.
    """
    revision = present_revision(engine)
    if revision == HEADS[family]:
        return
    if revision is not None and revision > HEADS[family]:
        raise PreconditionFailed(
            "schema_too_new",
            f"the {family} database is at revision {revision}; this version of Keystead knows up to {HEADS[family]}",
            "use the newer version",
        )
    from alembic import command  # noqa: PLC0415 - see the module's docstring

    with engine.connect() as connection:
        config = alembic_config(family)
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


def alembic_config(family: str) -> Config:
    """Alembic's configuration for one family, made here instead of in a file."""
    from alembic.config import Config  # noqa: PLC0415 - see the module's docstring

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS / family))
    config.set_main_option("path_separator", "os")
    return config
