"""What a vault that is called over the network needs: clients with secrets, keys for tokens, network rules, read-only mode, rotation and release."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Bring the schema to this revision."""
    with op.batch_alter_table("vault") as batch_op:
        batch_op.add_column(sa.Column("network_rules", sa.Text(), server_default="", nullable=False))
        batch_op.add_column(sa.Column("read_only", sa.Boolean(), server_default=sa.false(), nullable=False))
    with op.batch_alter_table("vault_key") as batch_op:
        batch_op.add_column(sa.Column("rotation_policy", sa.Text(), server_default="", nullable=False))
    with op.batch_alter_table("vault_key_version") as batch_op:
        batch_op.add_column(sa.Column("exportable", sa.Boolean(), server_default=sa.false(), nullable=False))
        batch_op.add_column(sa.Column("release_policy", sa.Text(), server_default="", nullable=False))
    op.create_table(
        "vault_client",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("tenant_id", sa.String(length=36), nullable=False),
        sa.Column("name", sa.String(length=128), nullable=False),
        sa.Column("name_lower", sa.String(length=128), nullable=False),
        sa.Column("created", sa.BigInteger(), nullable=False),
        sa.Column("created_by", sa.String(length=320), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_vault_client")),
        sa.UniqueConstraint("tenant_id", "name_lower", name=op.f("uq_vault_client_tenant_id_name_lower")),
    )
    op.create_table(
        "vault_client_secret",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("client_id", sa.String(length=36), nullable=False),
        sa.Column("tenant_id", sa.String(length=36), nullable=False),
        sa.Column("digest", sa.LargeBinary(length=32), nullable=False),
        sa.Column("created", sa.BigInteger(), nullable=False),
        sa.Column("expires", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["client_id"], ["vault_client.id"], name=op.f("fk_vault_client_secret_client_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_vault_client_secret")),
    )
    op.create_index(op.f("ix_vault_client_secret_client_id"), "vault_client_secret", ["client_id"])
    op.create_table(
        "vault_token_key",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("public_key", sa.LargeBinary(), nullable=False),
        sa.Column("sealed", sa.LargeBinary(), nullable=False),
        sa.Column("created", sa.BigInteger(), nullable=False),
        sa.Column("ends", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_vault_token_key")),
    )
