"""Tables of keys.db, the key store: sealed keys and nothing else (docs/spec/keystore.md).

The epoch keys that would open them are not in here: they are files in the seals folder, so that a copy of this database is
worth nothing by itself, and an older copy is worth nothing for good once its epoch key is destroyed.
"""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, ForeignKey, LargeBinary, MetaData, String, Table

METADATA = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "uq": "uq_%(table_name)s_%(column_0_name)s",
        "ix": "ix_%(table_name)s_%(column_0_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
    }
)

COMPARTMENTS = Table(
    "compartments",
    METADATA,
    Column("name", String(32), primary_key=True),
    Column(
        "epoch",
        BigInteger,
        nullable=False,
        comment="number of the epoch key that seals every entry of the compartment; only grows",
    ),
)

ENTRIES = Table(
    "entries",
    METADATA,
    Column("compartment", String(32), ForeignKey("compartments.name"), primary_key=True),
    Column("key_id", String(255), primary_key=True),
    Column("created", BigInteger, nullable=False, comment="milliseconds since 1970-01-01 UTC"),
    Column("sealed", LargeBinary, nullable=False, comment="the key under the epoch key: 66 bytes, more for an RSA key"),
)
