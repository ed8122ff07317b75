"""Indexes by which jobs, the log and overdue moves are found however many there are."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"

_UNMOVED = sa.text("move_state IN ('queued', 'moving', 'failed')")
_TROUBLED = sa.text("error <> ''")


def upgrade() -> None:
    """Bring the schema to this revision."""
    op.drop_index("ix_audit_records_organization_id_creation_time", "audit_records")
    op.create_index(
        "ix_audit_records_organization_id_creation_time_sequence", "audit_records", ["organization_id", "creation_time", "sequence"]
    )
    op.create_index("ix_audit_records_operation", "audit_records", ["organization_id", "operation", "creation_time", "sequence"])
    for name in ("ix_jobs_parent_id", "ix_jobs_kind", "ix_jobs_ready"):
        op.drop_index(name, "jobs")
    op.create_index("ix_jobs_ready", "jobs", ["state", "priority", "not_before", "sequence"])
    op.create_index("ix_jobs_kind", "jobs", ["kind", "state", "priority", "not_before", "sequence"])
    op.create_index("ix_jobs_children", "jobs", ["parent_id", "state", "priority", "not_before", "sequence"])
    op.create_index("ix_jobs_troubled", "jobs", ["parent_id"], sqlite_where=_TROUBLED, postgresql_where=_TROUBLED)
    op.create_index("ix_jobs_tenant_id_sequence", "jobs", ["tenant_id", "sequence"])
    op.drop_index("ix_mailboxes_unmoved", "mailboxes")
    op.create_index("ix_mailboxes_unmoved", "mailboxes", ["tenant_id", "assigned_at"], sqlite_where=_UNMOVED, postgresql_where=_UNMOVED)
