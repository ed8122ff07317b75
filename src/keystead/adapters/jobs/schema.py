"""Procrastinate's tables: which version of them this version of Keystead works with.

They are made by a migration of ours from Procrastinate's own SQL, in the database of the jobs. A newer Procrastinate that wants other tables
is refused until a migration of ours brings them there: `pip install --upgrade` alone must not change what stands in a database.
"""

from __future__ import annotations

from pathlib import Path

from procrastinate.schema import SchemaManager

from keystead.core.errors import PreconditionFailed

NEWEST = "03.04.00_50_post_add_retry_failed_job_procedure.sql"
"""Procrastinate's last migration that is contained in ours."""


def installed_schema() -> str:
    """Name of the last migration of the Procrastinate that is installed."""
    return max(path.name for path in Path(SchemaManager.get_migrations_path()).glob("*.sql"))


def check_schema() -> None:
    """Refuse a Procrastinate that wants other tables than ours.

    Raises:
        PreconditionFailed: `jobs_library_unfit`.
    """
    found = installed_schema()
    if found != NEWEST:
        raise PreconditionFailed(
            "jobs_library_unfit",
            f"the installed Procrastinate wants its tables as of {found}; this version of Keystead makes them as of {NEWEST}",
            "install the versions of requirements/run.lock",
        )


def create_tables_sql() -> str:
    """The SQL that makes all of Procrastinate's tables, types, functions and triggers in an empty schema.

    Raises:
        PreconditionFailed: `jobs_library_unfit`.
    """
    check_schema()
    return SchemaManager.get_schema()
