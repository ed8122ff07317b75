"""What was told of a version's expiry, which keys rotate by themselves, and indexes by which the log is searched."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

_UNTOLD = sa.text("expires IS NOT NULL AND (expired_told IS NULL OR expired_told <> expires)")
_ROTATING = sa.text("rotation_policy <> ''")
_RARE = sa.text(
    "operation_name NOT IN ('KeyDecrypt', 'KeyEncrypt', 'KeyGet', 'KeySign', 'KeyUnwrap', 'KeyVerify', 'KeyWrap', 'Authentication')"
)
_REFUSED = sa.text("result_type = 'Failure'")


def upgrade() -> None:
    """Bring the schema to this revision."""
    with op.batch_alter_table("vault_key_version") as batch_op:
        batch_op.add_column(sa.Column("near_told", sa.BigInteger(), nullable=True))
        batch_op.add_column(sa.Column("expired_told", sa.BigInteger(), nullable=True))
    op.create_index("ix_vault_key_version_untold", "vault_key_version", ["expires"], sqlite_where=_UNTOLD, postgresql_where=_UNTOLD)
    op.create_index("ix_vault_key_rotating", "vault_key", ["id"], sqlite_where=_ROTATING, postgresql_where=_ROTATING)
    op.create_index(
        "ix_vault_log_rare", "vault_log", ["tenant_id", "vault", "operation_name", "id"], sqlite_where=_RARE, postgresql_where=_RARE
    )
    op.create_index("ix_vault_log_refused", "vault_log", ["tenant_id", "vault", "id"], sqlite_where=_REFUSED, postgresql_where=_REFUSED)
