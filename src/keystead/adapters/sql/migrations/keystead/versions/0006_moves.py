"""An index by which a move finds its next object without looking at those it is done with."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"

_FILLED = sa.text("items > 0")


def upgrade() -> None:
    """Bring the schema to this revision."""
    op.create_index("ix_objects_filled", "objects", ["mailbox_id", "key_version", "ref"], sqlite_where=_FILLED, postgresql_where=_FILLED)
