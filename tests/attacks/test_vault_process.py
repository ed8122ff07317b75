"""The process that serves vaults, from outside: what it shows, what it leaves behind, and what keeps others from their vaults."""

from __future__ import annotations

import resource
import socket
import ssl
import stat
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest

from support.vaults import ServedVaults, make_tenant, make_vault, make_vault_home, vaults_served

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.xdist_group("vault-attacks-process")

FEW = 256
"""Open files, as a process that attacks this one finds it started with."""
ADMIN = "admin@fabrikam.example"


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedVaults]:
    """A process started with few files, and with a fixed port for a vault that is not there yet, which somebody else has."""
    home = tmp_path_factory.mktemp("process") / "home"
    make_vault_home(home, "contoso-v1")
    make_tenant(home, "fabrikam.example")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with socket.create_server(("127.0.0.1", 0)) as taken, ExitStack() as stack:
        resource.setrlimit(resource.RLIMIT_NOFILE, (FEW, hard))
        try:
            made = stack.enter_context(vaults_served(home, "--vault", "taken", "--port", str(taken.getsockname()[1])))
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        yield made


def of_process(running: ServedVaults, name: str) -> bytes:
    return Path(f"/proc/{running.process.pid}/{name}").read_bytes()


def test_a_vault_whose_port_is_taken_keeps_no_other_from_its_own(running: ServedVaults) -> None:
    """Anybody who may make a vault could take the name: from then on no vault of anybody would have been served, nor one taken away."""
    make_vault(running.home, "taken", ADMIN)
    make_vault(running.home, "fabrikam-v1", ADMIN)
    entry = running.until_served("fabrikam-v1")
    assert entry is not None
    with httpx.Client(verify=ssl.create_default_context(cafile=entry.ca_file), timeout=30) as http:
        assert http.get(f"{entry.url}/keys?api-version=7.6").status_code == 401
    assert running.entry("taken") is None
    assert "the vault taken is not served" in running.log.read_text()


def test_connections_that_never_say_a_word_keep_nobody_out(running: ServedVaults) -> None:
    """More of them than the process was given files at its start; before their handshake they count against no other limit."""
    entry = running.entry("contoso-v1")
    assert entry is not None
    address = ("127.0.0.1", int(entry.url.rpartition(":")[2]))
    with ExitStack() as silent:
        for _ in range(FEW + 100):
            silent.enter_context(socket.create_connection(address, timeout=30))
        with httpx.Client(verify=ssl.create_default_context(cafile=entry.ca_file), timeout=30) as http:
            assert http.get(f"{entry.url}/keys?api-version=7.6").status_code == 401


def test_no_image_of_its_memory_is_left_when_it_dies(running: ServedVaults) -> None:
    limits = {line[:25].strip(): line[25:].split()[:2] for line in of_process(running, "limits").decode().splitlines()}
    assert limits["Max core file size"] == ["0", "0"]


def test_no_secret_is_where_other_users_look(running: ServedVaults) -> None:
    entry = running.entry("contoso-v1")
    assert entry is not None
    assert entry.client_secret
    for name in ("cmdline", "comm", "status"):
        assert entry.client_secret.encode() not in of_process(running, name)
    assert entry.client_secret not in running.log.read_text()
    holding = [path for path in running.home.rglob("*") if path.is_file() and entry.client_secret.encode() in path.read_bytes()]
    assert {path.name for path in holding} == {"vault-development.json", running.ready.name}
    private = [*holding, *(running.home / "tls").glob("*.key"), *(running.home / "seals").iterdir()]
    assert len(private) >= 4
    assert [path.name for path in private if stat.S_IMODE(path.stat().st_mode) & (stat.S_IRWXG | stat.S_IRWXO)] == []
