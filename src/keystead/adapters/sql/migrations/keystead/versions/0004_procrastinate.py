"""On PostgreSQL, the tables of Procrastinate, which tell a fleet's workers of jobs (docs/adr/0023-rings-beside-rows.md).

They are there whichever runner is configured, so that it can be changed without another migration.
"""

from __future__ import annotations

from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Bring the schema to this revision."""
    connection = op.get_bind()
    if connection.dialect.name != "postgresql":
        return
    from keystead.adapters.jobs.schema import create_tables_sql  # noqa: PLC0415 - a home does without

    raw = connection.connection.driver_connection
    assert raw is not None
    raw.execute(create_tables_sql())  # as it is: SQLAlchemy would take its percent signs for parameters
