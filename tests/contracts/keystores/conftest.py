from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from contracts.keystores.homes import Home

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def home(tmp_path: Path, database: str) -> Iterator[Home]:
    made = Home(tmp_path)
    yield made
    made.close()
    made.stores.close()
