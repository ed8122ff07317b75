"""What every test may use."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from support.world import World

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """A whole installation in a temporary folder, with a clock that stands still."""
    made = World(tmp_path)
    yield made
    made.close()
