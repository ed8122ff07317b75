"""What `keystead vault serve` says of the addresses of its vaults."""

from __future__ import annotations

from typing import TYPE_CHECKING

from support.ports import free_port
from support.vaults import make_vault, make_vault_home, vaults_served

if TYPE_CHECKING:
    from pathlib import Path


def test_a_vault_that_is_not_there_is_named_and_its_port_waits(tmp_path: Path) -> None:
    home, port = tmp_path / "home", free_port()
    make_vault_home(home, "contoso-v1")
    with vaults_served(home, "--vault", "Contoso-v2", "--port", str(port)) as running:
        assert running.entry("contoso-v2") is None
        make_vault(home, "contoso-v2")
        found = running.until_served("contoso-v2")
        assert found is not None
        assert found.url == f"https://127.0.0.1:{port}"
    said = running.log.read_text()
    assert f"vault Contoso-v2 is not there yet; it will be at port {port}" in said
    assert "vault contoso-v1 is not there" not in said
