"""Sites and files; objects belong to a mailbox or a site."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"

_FILLED = sa.text("items > 0")


def upgrade() -> None:
    """Bring the schema to this revision."""
    op.drop_index("ix_objects_filled", "objects")
    op.drop_index("ix_objects_mailbox_id_key_version", "objects")
    op.execute("ALTER TABLE objects RENAME COLUMN mailbox_id TO owner_id")
    op.create_index("ix_objects_owner_id_key_version", "objects", ["owner_id", "key_version"])
    op.create_index("ix_objects_filled", "objects", ["owner_id", "key_version", "ref"], sqlite_where=_FILLED, postgresql_where=_FILLED)
    op.create_table(
        "file_geos",
        sa.Column("tenant_id", sa.String(length=36), nullable=False),
        sa.Column("geo", sa.String(length=8), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("policy_id", sa.String(length=36), nullable=True),
        sa.Column("target_policy_id", sa.String(length=36), nullable=True),
        sa.Column("job_id", sa.String(length=36), nullable=False),
        sa.Column("availability_key_id", sa.String(length=36), nullable=False),
        sa.Column("changed", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["policy_id"], ["policies.id"], name="fk_file_geos_policy_id"),
        sa.ForeignKeyConstraint(["target_policy_id"], ["policies.id"], name="fk_file_geos_target_policy_id"),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.id"], name="fk_file_geos_tenant_id"),
        sa.PrimaryKeyConstraint("tenant_id", "geo", name="pk_file_geos"),
    )
    op.create_index("ix_file_geos_policy_id", "file_geos", ["policy_id"])
    op.create_index("ix_file_geos_target_policy_id", "file_geos", ["target_policy_id"])
    op.create_table(
        "sites",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("tenant_id", sa.String(length=36), nullable=False),
        sa.Column("url", sa.String(length=400), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("geo", sa.String(length=8), nullable=False),
        sa.Column("owner", sa.String(length=320), nullable=False),
        sa.Column("shared", sa.Boolean(), nullable=False),
        sa.Column("created", sa.BigInteger(), nullable=False),
        sa.Column("policy_id", sa.String(length=36), nullable=False),
        sa.Column("key_version", sa.Integer(), nullable=False),
        sa.Column("move_state", sa.String(length=16), nullable=False),
        sa.Column("moved_at", sa.BigInteger(), nullable=True),
        sa.Column("moved", sa.BigInteger(), nullable=False),
        sa.Column("quota_bytes", sa.BigInteger(), nullable=False),
        sa.Column("file_count", sa.Integer(), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("stored_bytes", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["policy_id"], ["policies.id"], name="fk_sites_policy_id"),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.id"], name="fk_sites_tenant_id"),
        sa.PrimaryKeyConstraint("id", name="pk_sites"),
        sa.UniqueConstraint("tenant_id", "url", name="uq_sites_tenant_id_url"),
    )
    op.create_index("ix_sites_policy_id", "sites", ["policy_id"])
    op.create_index("ix_sites_hierarchy", "sites", ["tenant_id", "geo", "policy_id", "move_state"])
    op.create_table(
        "site_keys",
        sa.Column("site_id", sa.String(length=36), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("wrapped", sa.LargeBinary(length=128), nullable=False),
        sa.ForeignKeyConstraint(["site_id"], ["sites.id"], name="fk_site_keys_site_id", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("site_id", "version", name="pk_site_keys"),
    )
    op.create_table(
        "site_members",
        sa.Column("site_id", sa.String(length=36), nullable=False),
        sa.Column("upn", sa.String(length=320), nullable=False),
        sa.ForeignKeyConstraint(["site_id"], ["sites.id"], name="fk_site_members_site_id", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("site_id", "upn", name="pk_site_members"),
    )
    op.create_table(
        "site_trees",
        sa.Column("site_id", sa.String(length=36), nullable=False),
        sa.Column("key_version", sa.Integer(), nullable=False),
        sa.Column("sealed", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(["site_id"], ["sites.id"], name="fk_site_trees_site_id", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("site_id", name="pk_site_trees"),
    )
    op.create_table(
        "file_nodes",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("site_id", sa.String(length=36), nullable=False),
        sa.Column("parent_id", sa.String(length=36), nullable=False),
        sa.Column("kind", sa.String(length=8), nullable=False),
        sa.Column("key_version", sa.Integer(), nullable=False),
        sa.Column("name_hash", sa.LargeBinary(length=32), nullable=False),
        sa.Column("sealed_name", sa.LargeBinary(), nullable=False),
        sa.Column("properties", sa.LargeBinary(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("manifest_digest", sa.LargeBinary(length=32), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("place", sa.Integer(), nullable=False),
        sa.Column("created", sa.BigInteger(), nullable=False),
        sa.Column("modified", sa.BigInteger(), nullable=False),
        sa.Column("changed", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["site_id"], ["sites.id"], name="fk_file_nodes_site_id", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name="pk_file_nodes"),
        sa.UniqueConstraint("site_id", "name_hash", name="uq_file_nodes_site_id_name_hash"),
    )
    op.create_index("ix_file_nodes_site_id_key_version", "file_nodes", ["site_id", "key_version"])
    op.create_index("ix_file_nodes_site_id_parent_id_id", "file_nodes", ["site_id", "parent_id", "id"])
    op.create_index("ix_file_nodes_site_id_place_id", "file_nodes", ["site_id", "place", "id"])
    op.create_table(
        "file_versions",
        sa.Column("node_id", sa.String(length=36), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("site_id", sa.String(length=36), nullable=False),
        sa.Column("key_version", sa.Integer(), nullable=False),
        sa.Column("manifest", sa.LargeBinary(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("chunks", sa.Integer(), nullable=False),
        sa.Column("created", sa.BigInteger(), nullable=False),
        sa.Column("created_by", sa.String(length=320), nullable=False),
        sa.ForeignKeyConstraint(["node_id"], ["file_nodes.id"], name="fk_file_versions_node_id", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("node_id", "number", name="pk_file_versions"),
    )
    op.create_index("ix_file_versions_site_id_key_version_node_id_number", "file_versions", ["site_id", "key_version", "node_id", "number"])
    op.create_table(
        "file_chunks",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("site_id", sa.String(length=36), nullable=False),
        sa.Column("node_id", sa.String(length=36), nullable=False),
        sa.Column("key_version", sa.Integer(), nullable=False),
        sa.Column("wrapped", sa.LargeBinary(length=128), nullable=False),
        sa.Column("object_ref", sa.String(length=80), nullable=False),
        sa.Column("offset", sa.BigInteger(), nullable=False),
        sa.Column("length", sa.BigInteger(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("last_version", sa.Integer(), nullable=True),
        sa.Column("successor", sa.String(length=36), nullable=False),
        sa.ForeignKeyConstraint(["node_id"], ["file_nodes.id"], name="fk_file_chunks_node_id", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name="pk_file_chunks"),
    )
    op.create_index("ix_file_chunks_node_id_last_version", "file_chunks", ["node_id", "last_version"])
    op.create_index("ix_file_chunks_object_ref", "file_chunks", ["object_ref"])
    op.create_table(
        "file_locks",
        sa.Column("site_id", sa.String(length=36), nullable=False),
        sa.Column("token_hash", sa.LargeBinary(length=32), nullable=False),
        sa.Column("key_version", sa.Integer(), nullable=False),
        sa.Column("sealed", sa.LargeBinary(), nullable=False),
        sa.Column("expires", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["site_id"], ["sites.id"], name="fk_file_locks_site_id", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("site_id", "token_hash", name="pk_file_locks"),
    )
    op.create_index("ix_file_locks_expires", "file_locks", ["expires"])
