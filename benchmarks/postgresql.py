"""A private PostgreSQL that waits for its disk, and a member of a fleet on it."""

from __future__ import annotations

import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.timing import ROOT

from keystead.adapters.sql.engine import open_engine
from keystead.adapters.sql.migrate import upgrade
from keystead.core.configuration import DatabaseConfig

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.postgres import Cluster

DURABLE = {
    "fsync": "on",
    "full_page_writes": "on",
    "autovacuum": "on",
    "shared_buffers": "512MB",
    "effective_cache_size": "4GB",
    "max_wal_size": "4GB",
    "checkpoint_timeout": "15min",
    "random_page_cost": "1.1",
}
"""PostgreSQL's own defaults where durability is concerned; memory as for a small machine, costs as for a disk without a head."""


def available() -> bool:
    return any(Path("/usr/lib/postgresql").glob("*/bin/postgres"))


@contextmanager
def cluster(place: Path, **settings: str) -> Iterator[Cluster]:
    """A server below that folder until the block ends."""
    sys.path.append(str(ROOT / "tests"))  # the tests know how to start one
    from support.postgres import Cluster  # noqa: PLC0415 - as said

    before, tempfile.tempdir = tempfile.tempdir, str(place)
    try:
        made = Cluster(**{**DURABLE, **settings})
    finally:
        tempfile.tempdir = before
    try:
        yield made
    finally:
        made.close()


def member(path: Path, cluster: Cluster) -> Path:
    """A folder whose keystead.toml names three fresh databases, brought up to date; `benchmarks.home.bench_home` makes the rest."""
    databases = cluster.databases()
    urls = {"keystead": databases.keystead_url, "keys": databases.keys_url, "vault": databases.vault_url}
    for family, url in urls.items():
        engine = open_engine(DatabaseConfig(url=url), path / "unused", path)
        upgrade(engine, family)
        engine.dispose()
    path.mkdir(mode=0o700, parents=True)
    (path / "keystead.toml").write_text(
        '[installation]\ndev = true\noperator = "operator@provider.example"\n'
        + "".join(
            f'[{table}]\nurl = "{urls[family]}"\n' for table, family in (("database", "keystead"), ("keystore", "keys"), ("vault", "vault"))
        ),
        encoding="utf-8",
    )
    return path
