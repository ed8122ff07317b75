"""What every test may use."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from _pytest.nodeid import coerce_node_id

from support.databases import BOTH, SQLITE, Chosen
from support.world import World

if TYPE_CHECKING:
    from collections.abc import Iterator

HERE = Path(__file__).parent
ON_BOTH = tuple(
    HERE / folder
    for folder in (
        "services",
        "tenancy",
        "vault",
        "contracts/sql",
        "contracts/keystores",
        "crash/test_keystore_crash.py",
        "crash/test_seal_crash.py",
        "attacks/test_another_tenant.py",
        "attacks/test_files_races.py",
        "attacks/test_files_stale.py",
        "attacks/test_races.py",
        "attacks/test_revoked_keys.py",
        "attacks/test_vault_log.py",
        "webdav/test_locks.py",
    )
)
"""Tests below these run on SQLite and on PostgreSQL, where they use a database."""


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests of one `xdist_group` run in one process.

    pytest-xdist 3.8 tells the scheduler of the group by `_nodeid`, which pytest 9.2 does not read any more: without this a group's tests run
    anywhere, and each process starts the servers they share.
    """
    for item in items:
        grouped = getattr(item, "_nodeid", "")
        if grouped:
            item._id = coerce_node_id(grouped)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Every test that uses a database, once for each kind."""
    if "database" in metafunc.fixturenames and any(metafunc.definition.path.is_relative_to(folder) for folder in ON_BOTH):
        metafunc.parametrize("database", BOTH, indirect=True, scope="module")


@pytest.fixture(scope="module")
def database(request: pytest.FixtureRequest) -> Iterator[str]:
    """The kind of database that installations of this test have. A fixture that makes a `World` for a whole module asks for it."""
    Chosen.kind = getattr(request, "param", SQLITE)
    yield Chosen.kind
    Chosen.kind = SQLITE


@pytest.fixture(autouse=True)
def _kind(request: pytest.FixtureRequest) -> None:
    """A test that does not ask for `database` makes installations on SQLite, whatever the rest of its module does."""
    Chosen.kind = request.getfixturevalue("database") if "database" in request.fixturenames else SQLITE


@pytest.fixture
def world(tmp_path: Path, database: str) -> Iterator[World]:
    """A whole installation in a temporary folder, with a clock that stands still."""
    made = World(tmp_path)
    yield made
    made.close()
