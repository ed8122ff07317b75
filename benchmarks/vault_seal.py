"""How long rotating the seal of a vault database takes: `python benchmarks/vault_seal.py [VERSIONS] [FOLDER]`.

Fills a SQLite file with versions whose sealed private keys are as long as those of RSA-2048 (random bytes: sealing does not look inside),
three of each key, and rotates to another key file and to a passphrase.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path

from sqlalchemy import insert

from keystead.adapters.clock import SystemClock
from keystead.adapters.sql import vault_schema as tables
from keystead.adapters.sql.engine import writing
from keystead.adapters.sql.rows import Many
from keystead.adapters.sql.sqlite import sqlite_engine
from keystead.adapters.sql.vault_store import SqlVaultStore
from keystead.core.secret import SecretKey
from keystead.core.vaults.seal import private_key_context
from keystead.core.vaults.seal_record import Passphrase
from keystead.vault import sealing

PKCS8_BYTES = 1_218
"""Of an RSA-2048 key, DER."""
SPKI_BYTES = 294
TENANT = "0d7f4c1e-5a8e-4f43-9d0a-1c2d3e4f5a6b"
VERSIONS_A_KEY = 3
BATCH = 3_000


def main() -> None:
    versions = int(sys.argv[1]) if len(sys.argv) > 1 else 300_000
    with tempfile.TemporaryDirectory(dir=sys.argv[2] if len(sys.argv) > 2 else None) as folder:
        engine = sqlite_engine(Path(folder) / "vault.db")
        store = SqlVaultStore(engine)
        clock, first, second = SystemClock(), SecretKey(os.urandom(32)), SecretKey(os.urandom(32))
        seal = sealing.open_seal(store, first, clock, os.urandom)
        vault_id, subscription_id = "11111111-1111-4111-8111-111111111111", "22222222-2222-4222-8222-222222222222"
        with writing(engine) as connection:
            connection.execute(
                insert(tables.subscription).values(
                    id=subscription_id, tenant_id=TENANT, name="s", name_lower="s", kind="paid", cancelled=False, created=0, created_by="a"
                )
            )
            connection.execute(
                insert(tables.vault).values(
                    id=vault_id,
                    tenant_id=TENANT,
                    name="Contoso1",
                    name_lower="contoso1",
                    subscription_id=subscription_id,
                    resource_group="g",
                    region="westeurope",
                    sku="premium",
                    rbac=False,
                    purge_protection=True,
                    retention_days=90,
                    created=0,
                )
            )
        add_key, add_version = Many(insert(tables.vault_key)), Many(insert(tables.vault_key_version))
        for start in range(0, versions, BATCH):
            keys: list[dict[str, object]] = []
            rows: list[dict[str, object]] = []
            for number in range(start, min(start + BATCH, versions)):
                name, ordinal = f"key{number // VERSIONS_A_KEY}", number % VERSIONS_A_KEY + 1
                key_id = f"{number // VERSIONS_A_KEY:08x}-0000-4000-8000-000000000000"
                if ordinal == 1:
                    keys.append({"id": key_id, "tenant_id": TENANT, "vault_id": vault_id, "name": name, "name_lower": name, "created": 0})
                version = f"{number:032x}"
                context = private_key_context(TENANT, "Contoso1", name, version)
                rows.append(
                    {
                        "key_id": key_id,
                        "ordinal": ordinal,
                        "tenant_id": TENANT,
                        "vault_id": vault_id,
                        "version": version,
                        "kty": "RSA",
                        "size": 2_048,
                        "curve": "",
                        "key_ops": "unwrapKey,wrapKey",
                        "enabled": True,
                        "created": 0,
                        "updated": 0,
                        "tags": "{}",
                        "public_key": bytes(SPKI_BYTES),
                        "sealed_private": seal.close_private(os.urandom(PKCS8_BYTES), context, os.urandom),
                    }
                )
            with writing(engine) as connection:
                add_key.run(connection, keys)
                add_version.run(connection, rows)
        for what, old, new in (
            ("to another key file", first, second),
            ("to a passphrase", second, Passphrase("correct horse battery staple")),
        ):
            began, used = time.monotonic(), time.process_time()
            shown = sealing.rotate(store, old, new, clock, os.urandom)
            took, cpu = time.monotonic() - began, time.process_time() - used
            print(f"{shown.private_keys:,} versions, {what}: {took:.1f} s, {cpu:.1f} s of CPU, {shown.private_keys / took:,.0f} a second")
        store.close()


if __name__ == "__main__":
    main()
