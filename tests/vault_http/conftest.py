from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from support.vaults import ServedVaults, make_vault_home, vaults_served
from vault_http.face import Face, faced

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module")
def face(tmp_path_factory: pytest.TempPathFactory, database: str) -> Iterator[Face]:
    with faced(tmp_path_factory.mktemp("face")) as made:
        yield made


@pytest.fixture(scope="module")
def served_vaults(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedVaults]:
    """A real `keystead vault serve` on a dev home with two vaults."""
    home = tmp_path_factory.mktemp("vaults") / "home"
    make_vault_home(home, "contoso-v1", "contoso-v2")
    with vaults_served(home) as running:
        yield running
