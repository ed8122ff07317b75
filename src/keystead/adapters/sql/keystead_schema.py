"""Tables of the service's database. Times are milliseconds since the epoch; ids are UUIDs as text; content is only ever in sealed columns."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    text,
)

METADATA = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "pk": "pk_%(table_name)s",
    }
)

COUNTED = BigInteger().with_variant(Integer, "sqlite")
"""Of a number the database counts up: an Integer of SQLite's has 64 bits, and no other type of it counts."""


def _id(name: str = "id", *, primary: bool = False) -> Column[str]:
    return Column(name, String(36), primary_key=primary, nullable=False)


tenants = Table(
    "tenants",
    METADATA,
    _id(primary=True),
    Column("name", String(128), nullable=False, unique=True),
    Column("domain", String(253), nullable=False, unique=True),
    Column("geos", Text, nullable=False),
    Column("created", BigInteger, nullable=False),
)

people = Table(
    "people",
    METADATA,
    _id(primary=True),
    Column("tenant_id", String(36), ForeignKey("tenants.id")),
    Column("upn", String(320), nullable=False, unique=True),
    Column("roles", Text, nullable=False),
    Column("created", BigInteger, nullable=False),
    Index(None, "tenant_id", "upn"),
)

tokens = Table(
    "tokens",
    METADATA,
    Column("digest", LargeBinary(32), primary_key=True),
    Column("id", String(36), nullable=False, unique=True),
    Column("kind", String(16), nullable=False),
    Column("upn", String(320), nullable=False, index=True),
    Column("tenant_id", String(36), index=True),
    Column("name", String(128), nullable=False),
    Column("scopes", Text),
    Column("created", BigInteger, nullable=False),
    Column("expires", BigInteger, nullable=False),
    Column("last_used", BigInteger),
)

signing_keys = Table(
    "signing_keys",
    METADATA,
    _id(primary=True),
    Column("public_key", LargeBinary(32), nullable=False),
    Column("sealed", LargeBinary, nullable=False),
    Column("created", BigInteger, nullable=False),
    Column("ends", BigInteger),
)

sign_in_providers = Table(
    "sign_in_providers",
    METADATA,
    Column("tenant_id", String(36), ForeignKey("tenants.id"), primary_key=True),
    Column("issuer", String(512), nullable=False),
    Column("audience", String(256), nullable=False),
    Column("upn_claim", String(64), nullable=False),
    Column("required_claim", String(64), nullable=False),
    Column("required_value", String(256), nullable=False),
    Column("created", BigInteger, nullable=False),
    Index(None, "issuer", "audience"),
)

onboardings = Table(
    "onboardings",
    METADATA,
    Column("tenant_id", String(36), ForeignKey("tenants.id"), primary_key=True),
    Column("workload", String(16), primary_key=True),
    Column("subscription_ids", Text, nullable=False),
    Column("officers", Text, nullable=False),
    Column("completed", BigInteger, nullable=False),
)

policies = Table(
    "policies",
    METADATA,
    _id(primary=True),
    Column("tenant_id", String(36), ForeignKey("tenants.id"), nullable=False),
    Column("workload", String(16), nullable=False),
    Column("name", String(64), nullable=False),
    Column("description", Text, nullable=False),
    Column("enabled", Boolean, nullable=False),
    Column("created", BigInteger, nullable=False),
    Column("version_id", String(36), nullable=False),
    Column("version", Integer, nullable=False),
    Column("check_value", LargeBinary(32), nullable=False),
    Column("shred_key_id", String(36), nullable=False),
    Column("availability_key_id", String(36), nullable=False),
    UniqueConstraint("tenant_id", "workload", "name"),
)

policy_versions = Table(
    "policy_versions",
    METADATA,
    _id(primary=True),
    Column("policy_id", String(36), ForeignKey("policies.id"), nullable=False),
    Column("number", Integer, nullable=False),
    Column("created", BigInteger, nullable=False),
    Column("reason", String(32), nullable=False),
    UniqueConstraint("policy_id", "number"),
)

policy_copies = Table(
    "policy_copies",
    METADATA,
    Column("version_id", String(36), ForeignKey("policy_versions.id"), primary_key=True),
    Column("role", String(16), primary_key=True),
    Column("key_uri", Text, nullable=False, index=True),
    Column("algorithm", String(32), nullable=False),
    Column("envelope", LargeBinary, nullable=False),
)

policy_states = Table(
    "policy_states",
    METADATA,
    Column("policy_id", String(36), ForeignKey("policies.id"), primary_key=True),
    Column("generation", Integer, nullable=False),
    Column("probed_at", BigInteger, nullable=False),
    Column("succeeded_at", BigInteger, nullable=False),
    Column("mixed_since", BigInteger, nullable=False),
    Column("primary_outcome", String(16), nullable=False),
    Column("primary_reason", String(200), nullable=False),
    Column("secondary_outcome", String(16), nullable=False),
    Column("secondary_reason", String(200), nullable=False),
    Column("lease_owner", String(64), nullable=False),
    Column("lease_until", BigInteger, nullable=False),
)

UNMOVED = text("move_state IN ('queued', 'moving', 'failed')")
"""Mailboxes whose change of hierarchy is not done: few, of many. A query that finds them by the index has these very words."""

mailboxes = Table(
    "mailboxes",
    METADATA,
    _id(primary=True),
    Column("tenant_id", String(36), ForeignKey("tenants.id"), nullable=False),
    Column("upn", String(320), nullable=False),
    Column("type", String(16), nullable=False),
    Column("licensed", Boolean, nullable=False),
    Column("created", BigInteger, nullable=False),
    Column("policy_id", String(36), ForeignKey("policies.id"), nullable=False),
    Column("pending_policy_id", String(36), ForeignKey("policies.id")),
    Column("key_version", Integer, nullable=False),
    Column("move_state", String(16), nullable=False),
    Column("assigned_at", BigInteger),
    Column("moved_at", BigInteger),
    Column("moved_items", Integer, nullable=False),
    Column("item_count", Integer, nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    UniqueConstraint("tenant_id", "upn"),
    Index(None, "pending_policy_id", "tenant_id"),
    Index(None, "policy_id"),
    Index("ix_mailboxes_unmoved", "tenant_id", "assigned_at", sqlite_where=UNMOVED, postgresql_where=UNMOVED),
)

mailbox_keys = Table(
    "mailbox_keys",
    METADATA,
    Column("mailbox_id", String(36), ForeignKey("mailboxes.id", ondelete="CASCADE"), primary_key=True),
    Column("version", Integer, primary_key=True),
    Column("wrapped", LargeBinary(128), nullable=False),
)

mailbox_delegates = Table(
    "mailbox_delegates",
    METADATA,
    Column("mailbox_id", String(36), ForeignKey("mailboxes.id", ondelete="CASCADE"), primary_key=True),
    Column("upn", String(320), primary_key=True),
)

folders = Table(
    "folders",
    METADATA,
    _id(primary=True),
    Column("mailbox_id", String(36), ForeignKey("mailboxes.id", ondelete="CASCADE"), nullable=False),
    Column("key_version", Integer, nullable=False),
    Column("name_hash", LargeBinary(32), nullable=False),
    Column("sealed_name", LargeBinary, nullable=False),
    UniqueConstraint("mailbox_id", "name_hash"),
)

items = Table(
    "items",
    METADATA,
    _id(primary=True),
    Column("mailbox_id", String(36), ForeignKey("mailboxes.id", ondelete="CASCADE"), nullable=False),
    Column("folder_id", String(36), nullable=False),
    Column("kind", String(8), nullable=False),
    Column("received", BigInteger, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("key_version", Integer, nullable=False),
    Column("content_hash", LargeBinary(32), nullable=False),
    Column("summary", LargeBinary, nullable=False),
    Column("object_ref", String(80), nullable=False, index=True),
    Column("offset", BigInteger, nullable=False),
    Column("length", BigInteger, nullable=False),
    Column("parts", Integer, nullable=False),
    UniqueConstraint("mailbox_id", "content_hash"),
    Index(None, "mailbox_id", "received", "id"),
)

FILLED = text("items > 0")
"""Objects that items lie in, like `UNMOVED`; a move sets those to none that it has emptied."""

objects = Table(
    "objects",
    METADATA,
    Column("ref", String(80), primary_key=True),
    Column("owner_id", String(36), nullable=False),
    Column("key_version", Integer, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("items", Integer, nullable=False),
    Column("large", Boolean, nullable=False),
    Column("due", BigInteger, index=True),
    Index(None, "owner_id", "key_version"),
    # For moves: the next object of a mailbox whose items lie under an older key.
    Index("ix_objects_filled", "owner_id", "key_version", "ref", sqlite_where=FILLED, postgresql_where=FILLED),
)

file_geos = Table(
    "file_geos",
    METADATA,
    Column("tenant_id", String(36), ForeignKey("tenants.id"), primary_key=True),
    Column("geo", String(8), primary_key=True),
    Column("state", String(16), nullable=False),
    Column("policy_id", String(36), ForeignKey("policies.id"), index=True),
    Column("target_policy_id", String(36), ForeignKey("policies.id"), index=True),
    Column("job_id", String(36), nullable=False),
    Column("availability_key_id", String(36), nullable=False),
    Column("changed", BigInteger, nullable=False),
)

sites = Table(
    "sites",
    METADATA,
    _id(primary=True),
    Column("tenant_id", String(36), ForeignKey("tenants.id"), nullable=False),
    Column("url", String(400), nullable=False),
    Column("kind", String(16), nullable=False),
    Column("geo", String(8), nullable=False),
    Column("owner", String(320), nullable=False),
    Column("shared", Boolean, nullable=False),
    Column("created", BigInteger, nullable=False),
    Column("policy_id", String(36), ForeignKey("policies.id"), nullable=False),
    Column("key_version", Integer, nullable=False),
    Column("move_state", String(16), nullable=False),
    Column("moved_at", BigInteger),
    Column("moved", BigInteger, nullable=False),
    Column("quota_bytes", BigInteger, nullable=False),
    Column("file_count", Integer, nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    Column("stored_bytes", BigInteger, nullable=False),
    UniqueConstraint("tenant_id", "url"),
    # For rolls: the sites of a geo that still lie under another policy, and how many are done.
    Index("ix_sites_hierarchy", "tenant_id", "geo", "policy_id", "move_state"),
    Index(None, "policy_id"),
)

site_keys = Table(
    "site_keys",
    METADATA,
    Column("site_id", String(36), ForeignKey("sites.id", ondelete="CASCADE"), primary_key=True),
    Column("version", Integer, primary_key=True),
    Column("wrapped", LargeBinary(128), nullable=False),
)

site_members = Table(
    "site_members",
    METADATA,
    Column("site_id", String(36), ForeignKey("sites.id", ondelete="CASCADE"), primary_key=True),
    Column("upn", String(320), primary_key=True),
)

site_trees = Table(
    "site_trees",
    METADATA,
    Column("site_id", String(36), ForeignKey("sites.id", ondelete="CASCADE"), primary_key=True),
    Column("key_version", Integer, nullable=False),
    Column("sealed", LargeBinary, nullable=False),
)

file_nodes = Table(
    "file_nodes",
    METADATA,
    _id(primary=True),
    Column("site_id", String(36), ForeignKey("sites.id", ondelete="CASCADE"), nullable=False),
    Column("parent_id", String(36), nullable=False),
    Column("kind", String(8), nullable=False),
    Column("key_version", Integer, nullable=False),
    Column("name_hash", LargeBinary(32), nullable=False),
    Column("sealed_name", LargeBinary, nullable=False),
    Column("properties", LargeBinary, nullable=False),
    Column("version", Integer, nullable=False),
    Column("manifest_digest", LargeBinary(32), nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("place", Integer, nullable=False),
    Column("created", BigInteger, nullable=False),
    Column("modified", BigInteger, nullable=False),
    Column("changed", BigInteger, nullable=False),
    # A folder has one node of a name, whose hash covers the folder.
    UniqueConstraint("site_id", "name_hash"),
    # For listings, page by page.
    Index(None, "site_id", "parent_id", "id"),
    Index(None, "site_id", "place", "id"),
    Index(None, "site_id", "key_version"),
)

file_versions = Table(
    "file_versions",
    METADATA,
    Column("node_id", String(36), ForeignKey("file_nodes.id", ondelete="CASCADE"), primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("site_id", String(36), nullable=False),
    Column("key_version", Integer, nullable=False),
    Column("manifest", LargeBinary, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("chunks", Integer, nullable=False),
    Column("created", BigInteger, nullable=False),
    Column("created_by", String(320), nullable=False),
    Index(None, "site_id", "key_version", "node_id", "number"),
)

file_chunks = Table(
    "file_chunks",
    METADATA,
    _id(primary=True),
    Column("site_id", String(36), nullable=False),
    Column("node_id", String(36), ForeignKey("file_nodes.id", ondelete="CASCADE"), nullable=False),
    Column("key_version", Integer, nullable=False),
    Column("wrapped", LargeBinary(128), nullable=False),
    Column("object_ref", String(80), nullable=False, index=True),
    Column("offset", BigInteger, nullable=False),
    Column("length", BigInteger, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("last_version", Integer),
    Column("successor", String(36), nullable=False),
    Index(None, "node_id", "last_version"),
)

file_locks = Table(
    "file_locks",
    METADATA,
    Column("site_id", String(36), ForeignKey("sites.id", ondelete="CASCADE"), primary_key=True),
    Column("token_hash", LargeBinary(32), primary_key=True),
    Column("key_version", Integer, nullable=False),
    Column("sealed", LargeBinary, nullable=False),
    Column("expires", BigInteger, nullable=False, index=True),
)

TROUBLED = text("error <> ''")
"""Jobs that failed at their last try: found by an index of their own, like `UNMOVED`."""

jobs = Table(
    "jobs",
    METADATA,
    _id(primary=True),
    Column("sequence", BigInteger, nullable=False, index=True),
    Column("tenant_id", String(36), nullable=False),
    Column("parent_id", String(36), nullable=False),
    Column("kind", String(32), nullable=False),
    Column("subject_id", String(36), nullable=False),
    Column("parameters", Text, nullable=False),
    Column("state", String(16), nullable=False),
    Column("priority", Integer, nullable=False),
    Column("done", BigInteger, nullable=False),
    Column("total", BigInteger, nullable=False),
    Column("lease_owner", String(64), nullable=False),
    Column("lease_epoch", Integer, nullable=False),
    Column("lease_until", BigInteger, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("not_before", BigInteger, nullable=False),
    Column("created", BigInteger, nullable=False),
    Column("started", BigInteger),
    Column("finished", BigInteger),
    Column("error", Text, nullable=False),
    # For claiming: what is to run next, of all, of a kind, of what a job started.
    Index("ix_jobs_ready", "state", "priority", "not_before", "sequence"),
    Index("ix_jobs_kind", "kind", "state", "priority", "not_before", "sequence"),
    Index("ix_jobs_children", "parent_id", "state", "priority", "not_before", "sequence"),
    Index("ix_jobs_troubled", "parent_id", sqlite_where=TROUBLED, postgresql_where=TROUBLED),
    Index(None, "tenant_id", "sequence"),
)

audit_records = Table(
    "audit_records",
    METADATA,
    Column("sequence", COUNTED, primary_key=True, autoincrement=True),
    Column("id", String(36), nullable=False, unique=True),
    Column("creation_time", BigInteger, nullable=False),
    Column("record_type", Integer, nullable=False),
    Column("operation", String(128), nullable=False),
    Column("organization_id", String(36), nullable=False),
    Column("user_type", Integer, nullable=False),
    Column("user_key", String(320), nullable=False),
    Column("user_id", String(320), nullable=False),
    Column("workload", String(32), nullable=False),
    Column("result_status", String(24), nullable=False),
    Column("object_id", Text, nullable=False),
    Column("client_ip", String(64), nullable=False),
    Column("external_access", Boolean, nullable=False),
    Column("request_id", String(36), nullable=False),
    Column("parameters", Text, nullable=False),
    Index(None, "organization_id", "creation_time", "sequence"),
    Index("ix_audit_records_operation", "organization_id", "operation", "creation_time", "sequence"),
)

alerts = Table(
    "alerts",
    METADATA,
    Column("sequence", COUNTED, primary_key=True, autoincrement=True),
    Column("id", String(36), nullable=False, unique=True),
    Column("tenant_id", String(36), nullable=False, index=True),
    Column("kind", String(32), nullable=False),
    Column("subject_id", String(36), nullable=False),
    Column("detail", Text, nullable=False),
    Column("raised", BigInteger, nullable=False),
    Column("last_seen", BigInteger, nullable=False),
    Column("times", BigInteger, nullable=False),
    Column("escalated", BigInteger),
    Column("resolved", BigInteger),
    Column("told", BigInteger),
    Index(None, "subject_id", "kind"),
    Index(
        "uq_alerts_open",
        "tenant_id",
        "subject_id",
        "kind",
        unique=True,
        sqlite_where=text("resolved IS NULL"),
        postgresql_where=text("resolved IS NULL"),
    ),
)

alert_events = Table(
    "alert_events",
    METADATA,
    Column("sequence", COUNTED, primary_key=True, autoincrement=True),
    Column("id", String(36), nullable=False, unique=True),
    Column("alert_id", String(36), nullable=False),
    Column("tenant_id", String(36), nullable=False),
    Column("kind", String(32), nullable=False),
    Column("subject_id", String(36), nullable=False),
    Column("severity", String(16), nullable=False),
    Column("state", String(16), nullable=False),
    Column("at", BigInteger, nullable=False),
)

hook_states = Table(
    "hook_states",
    METADATA,
    Column("name", String(36), primary_key=True),
    Column("since", BigInteger, nullable=False),
    Column("position", BigInteger, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("failing_since", BigInteger, nullable=False),
    Column("not_before", BigInteger, nullable=False),
    Column("last_error", Text, nullable=False),
    Column("lease_owner", String(64), nullable=False),
    Column("lease_until", BigInteger, nullable=False),
)

worker_beats = Table(
    "worker_beats",
    METADATA,
    Column("owner", String(64), primary_key=True),
    Column("at", BigInteger, nullable=False),
)

settings = Table("settings", METADATA, Column("name", String(64), primary_key=True), Column("value", Text, nullable=False))
