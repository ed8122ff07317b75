"""The seal wraps a vault key of its own, with generations; keys that released keys are signed with."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Bring the schema to this revision."""
    with op.batch_alter_table("vault_seal") as batch_op:
        batch_op.add_column(sa.Column("generation", sa.BigInteger(), server_default="0", nullable=False))
        batch_op.add_column(sa.Column("record", sa.LargeBinary(), nullable=True))
    op.create_table(
        "vault_former_backup_key",
        sa.Column("generation", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("sealed", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("generation", name=op.f("pk_vault_former_backup_key")),
    )
    op.create_table(
        "vault_release_key",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("certificates", sa.LargeBinary(), nullable=False),
        sa.Column("sealed", sa.LargeBinary(), nullable=False),
        sa.Column("created", sa.BigInteger(), nullable=False),
        sa.Column("ends", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_vault_release_key")),
    )
