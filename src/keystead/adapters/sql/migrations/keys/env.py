"""Runs the migrations of the keys database on the connection it is given, inside the transaction that was begun there."""

from alembic import context

from keystead.adapters.sql.keys_schema import METADATA

context.configure(
    connection=context.config.attributes["connection"],
    version_table=context.config.attributes["version_table"],
    target_metadata=METADATA,
    render_as_batch=True,
    compare_type=True,
)
with context.begin_transaction():
    context.run_migrations()
