from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from vault.world import World

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def world(tmp_path: Path, database: str) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.close()
