"""Tables of the vault database. Every table carries the tenant; names have a lower-case twin, because they compare without case.

Times are milliseconds since the epoch. Private keys are sealed before they come here (`core/vaults/seal.py`).
"""

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
    false,
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

vault_seal = Table(
    "vault_seal",
    METADATA,
    Column("id", Integer, primary_key=True),
    Column("check_value", LargeBinary, nullable=False),
    Column("generation", BigInteger, nullable=False, server_default="0"),
    Column("record", LargeBinary),
)

vault_stamp = Table(
    "vault_stamp",
    METADATA,
    Column("id", Integer, primary_key=True),
    Column("stamp", BigInteger, nullable=False),
)
"""One row: a number that no other state of the rest had, the log apart. None in a database that nothing was written to yet."""

vault_former_backup_key = Table(
    "vault_former_backup_key",
    METADATA,
    Column("generation", BigInteger, primary_key=True, autoincrement=False),
    Column("sealed", LargeBinary, nullable=False),
)

vault_release_key = Table(
    "vault_release_key",
    METADATA,
    Column("id", String(36), primary_key=True),
    Column("certificates", LargeBinary, nullable=False),
    Column("sealed", LargeBinary, nullable=False),
    Column("created", BigInteger, nullable=False),
    Column("ends", BigInteger, nullable=False),
)

UNTOLD = text("expires IS NOT NULL AND (expired_told IS NULL OR expired_told <> expires)")
"""Versions whose expiry is still to be told of: few, of many. A query that finds them by the index has these very words, here and below."""

ROTATING = text("rotation_policy <> ''")
"""Keys with a rotation policy."""

ROUTINE = ("Authentication", "KeyDecrypt", "KeyEncrypt", "KeyGet", "KeySign", "KeyUnwrap", "KeyVerify", "KeyWrap")
"""What applications do all day: most of the log. Their records cost no index of their own."""

RARE = text(
    "operation_name NOT IN ('KeyDecrypt', 'KeyEncrypt', 'KeyGet', 'KeySign', 'KeyUnwrap', 'KeyVerify', 'KeyWrap', 'Authentication')"
)
"""All other operations of the log."""

REFUSED = text("result_type = 'Failure'")
"""Calls that were refused."""

subscription = Table(
    "subscription",
    METADATA,
    Column("id", String(36), primary_key=True),
    Column("tenant_id", String(36), nullable=False),
    Column("name", String(128), nullable=False),
    Column("name_lower", String(128), nullable=False),
    Column("kind", String(16), nullable=False),
    Column("cancelled", Boolean, nullable=False),
    Column("protected_from", BigInteger),
    Column("created", BigInteger, nullable=False),
    Column("created_by", String(320), nullable=False),
    UniqueConstraint("tenant_id", "name_lower"),
)

vault = Table(
    "vault",
    METADATA,
    Column("id", String(36), primary_key=True),
    Column("tenant_id", String(36), nullable=False),
    Column("name", String(24), nullable=False),
    Column("name_lower", String(24), nullable=False, unique=True),
    Column("subscription_id", String(36), ForeignKey("subscription.id"), nullable=False),
    Column("resource_group", String(128), nullable=False),
    Column("region", String(32), nullable=False),
    Column("sku", String(16), nullable=False),
    Column("rbac", Boolean, nullable=False),
    Column("purge_protection", Boolean, nullable=False),
    Column("retention_days", Integer, nullable=False),
    Column("created", BigInteger, nullable=False),
    Column("deleted", BigInteger),
    Column("network_rules", Text, nullable=False, server_default=""),
    Column("read_only", Boolean, nullable=False, server_default=false()),
    Index(None, "tenant_id"),
)

vault_access = Table(
    "vault_access",
    METADATA,
    Column("vault_id", String(36), ForeignKey("vault.id"), primary_key=True),
    Column("principal_kind", String(16), primary_key=True),
    Column("principal", String(320), primary_key=True),
    Column("tenant_id", String(36), nullable=False),
    Column("permissions", Text, nullable=False),
    Column("contributor", Boolean, nullable=False),
    Column("roles", Text, nullable=False),
)

vault_key = Table(
    "vault_key",
    METADATA,
    Column("id", String(36), primary_key=True),
    Column("tenant_id", String(36), nullable=False),
    Column("vault_id", String(36), ForeignKey("vault.id"), nullable=False),
    Column("name", String(127), nullable=False),
    Column("name_lower", String(127), nullable=False),
    Column("created", BigInteger, nullable=False),
    Column("deleted", BigInteger),
    Column("rotation_policy", Text, nullable=False, server_default=""),
    UniqueConstraint("vault_id", "name_lower"),
    Index("ix_vault_key_rotating", "id", sqlite_where=ROTATING, postgresql_where=ROTATING),
)

vault_key_version = Table(
    "vault_key_version",
    METADATA,
    Column("key_id", String(36), ForeignKey("vault_key.id"), primary_key=True),
    Column("ordinal", Integer, primary_key=True),
    Column("tenant_id", String(36), nullable=False),
    Column("vault_id", String(36), nullable=False),
    Column("version", String(32), nullable=False),
    Column("kty", String(16), nullable=False),
    Column("size", Integer, nullable=False),
    Column("curve", String(16), nullable=False),
    Column("key_ops", Text, nullable=False),
    Column("enabled", Boolean, nullable=False),
    Column("not_before", BigInteger),
    Column("expires", BigInteger),
    Column("created", BigInteger, nullable=False),
    Column("updated", BigInteger, nullable=False),
    Column("tags", Text, nullable=False),
    Column("public_key", LargeBinary, nullable=False),
    Column("sealed_private", LargeBinary, nullable=False),
    Column("exportable", Boolean, nullable=False, server_default=false()),
    Column("release_policy", Text, nullable=False, server_default=""),
    Column("near_told", BigInteger),
    Column("expired_told", BigInteger),
    UniqueConstraint("vault_id", "version"),
    Index("ix_vault_key_version_untold", "expires", sqlite_where=UNTOLD, postgresql_where=UNTOLD),
)

vault_client = Table(
    "vault_client",
    METADATA,
    Column("id", String(36), primary_key=True),
    Column("tenant_id", String(36), nullable=False),
    Column("name", String(128), nullable=False),
    Column("name_lower", String(128), nullable=False),
    Column("created", BigInteger, nullable=False),
    Column("created_by", String(320), nullable=False),
    UniqueConstraint("tenant_id", "name_lower"),
)

vault_client_secret = Table(
    "vault_client_secret",
    METADATA,
    Column("id", String(36), primary_key=True),
    Column("client_id", String(36), ForeignKey("vault_client.id"), nullable=False),
    Column("tenant_id", String(36), nullable=False),
    Column("digest", LargeBinary(32), nullable=False),
    Column("created", BigInteger, nullable=False),
    Column("expires", BigInteger, nullable=False),
    Index(None, "client_id"),
)

vault_token_key = Table(
    "vault_token_key",
    METADATA,
    Column("id", String(36), primary_key=True),
    Column("public_key", LargeBinary, nullable=False),
    Column("sealed", LargeBinary, nullable=False),
    Column("created", BigInteger, nullable=False),
    Column("ends", BigInteger),
)

vault_log = Table(
    "vault_log",
    METADATA,
    Column("id", COUNTED, primary_key=True, autoincrement=True),
    Column("tenant_id", String(36), nullable=False),
    Column("vault", String(24), nullable=False),
    Column("time", BigInteger, nullable=False),
    Column("resource_id", Text, nullable=False),
    Column("operation_name", String(64), nullable=False),
    Column("operation_version", String(16), nullable=False),
    Column("category", String(32), nullable=False),
    Column("result_type", String(16), nullable=False),
    Column("result_signature", String(64), nullable=False),
    Column("result_description", Text, nullable=False),
    Column("duration_ms", Integer, nullable=False),
    Column("caller_ip_address", String(64), nullable=False),
    Column("correlation_id", String(64), nullable=False),
    Column("identity_kind", String(16), nullable=False),
    Column("identity_name", String(320), nullable=False),
    Column("identity_application_id", String(36), nullable=False),
    Column("client_info", String(256), nullable=False),
    Column("request_uri", Text, nullable=False),
    Column("object_id", Text, nullable=False),
    Column("http_status_code", Integer, nullable=False),
    Index(None, "tenant_id", "vault", "id"),
    Index("ix_vault_log_rare", "tenant_id", "vault", "operation_name", "id", sqlite_where=RARE, postgresql_where=RARE),
    Index("ix_vault_log_refused", "tenant_id", "vault", "id", sqlite_where=REFUSED, postgresql_where=REFUSED),
    sqlite_autoincrement=True,
)
