"""Sign-in: kinds of tokens, the keys access tokens are signed with, the OpenID Connect providers of tenants.

A token gets an id, a kind and a day of last use. It is made anew rather than altered: ids must differ from row to row, and no database can
be asked for a random one in the same way. The tokens themselves stay good.
"""

from __future__ import annotations

import uuid

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

CLAIM_DAYS, SIGN_IN_DAYS = 7, 90
DAY = 24 * 60 * 60 * 1_000
"""Default lifetimes until now: the rows do not say when they were made."""


def upgrade() -> None:
    """Bring the schema to this revision."""
    op.create_table(
        "signing_keys",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("public_key", sa.LargeBinary(length=32), nullable=False),
        sa.Column("sealed", sa.LargeBinary(), nullable=False),
        sa.Column("created", sa.BigInteger(), nullable=False),
        sa.Column("ends", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_signing_keys")),
    )
    op.create_table(
        "sign_in_providers",
        sa.Column("tenant_id", sa.String(length=36), nullable=False),
        sa.Column("issuer", sa.String(length=512), nullable=False),
        sa.Column("audience", sa.String(length=256), nullable=False),
        sa.Column("upn_claim", sa.String(length=64), nullable=False),
        sa.Column("required_claim", sa.String(length=64), nullable=False),
        sa.Column("required_value", sa.String(length=256), nullable=False),
        sa.Column("created", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.id"], name=op.f("fk_sign_in_providers_tenant_id")),
        sa.PrimaryKeyConstraint("tenant_id", name=op.f("pk_sign_in_providers")),
    )
    op.create_index(op.f("ix_sign_in_providers_issuer_audience"), "sign_in_providers", ["issuer", "audience"], unique=False)
    _tokens()


def _tokens() -> None:
    connection = op.get_bind()
    columns = sa.table("tokens", *(sa.column(name) for name in ("digest", "upn", "tenant_id", "claim", "expires")))
    rows = connection.execute(sa.select(columns)).mappings().all()
    op.drop_table("tokens")
    op.create_table(
        "tokens",
        sa.Column("digest", sa.LargeBinary(length=32), nullable=False),
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("upn", sa.String(length=320), nullable=False),
        sa.Column("tenant_id", sa.String(length=36), nullable=True),
        sa.Column("name", sa.String(length=128), nullable=False),
        sa.Column("scopes", sa.Text(), nullable=True),
        sa.Column("created", sa.BigInteger(), nullable=False),
        sa.Column("expires", sa.BigInteger(), nullable=False),
        sa.Column("last_used", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("digest", name=op.f("pk_tokens")),
        sa.UniqueConstraint("id", name=op.f("uq_tokens_id")),
    )
    op.create_index(op.f("ix_tokens_tenant_id"), "tokens", ["tenant_id"], unique=False)
    op.create_index(op.f("ix_tokens_upn"), "tokens", ["upn"], unique=False)
    names = ("digest", "id", "kind", "upn", "tenant_id", "name", "created", "expires")
    made = sa.table("tokens", *(sa.column(name) for name in names))
    if rows:
        connection.execute(sa.insert(made), [_converted(row) for row in rows])


def _converted(row: sa.RowMapping) -> dict[str, object]:
    kind, days = ("claim", CLAIM_DAYS) if row["claim"] else ("sign-in", SIGN_IN_DAYS)
    return {
        "digest": row["digest"],
        "id": str(uuid.uuid4()),
        "kind": kind,
        "upn": row["upn"],
        "tenant_id": row["tenant_id"],
        "name": "",
        "created": max(0, row["expires"] - days * DAY),
        "expires": row["expires"],
    }
