"""Calls without a good token: each is answered 401, and the vault's log tells how many came from where, and nothing that they showed (R-067)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import httpx
import pytest

from keystead.api.types import vaults as v
from keystead.recent import MOST_REPORTED
from keystead.vault import strangers
from keystead.vault.tokens import AUTHENTICATION
from support.vaults import call_as_admin, make_vault_home, vaults_served
from support.waiting import until
from vault.world import TENANT
from vault_http.face import VAULT, faced

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from keystead.api.types.vaults import VaultLogEntry
    from vault_http.face import Face

pytestmark = pytest.mark.xdist_group("vault-face")


@pytest.fixture
def face(tmp_path: Path) -> Iterator[Face]:
    """One that nobody has called yet."""
    with faced(tmp_path) as face:
        yield face


def told(face: Face) -> list[VaultLogEntry]:
    """What the log says of strangers."""
    return [one for one in face.world.log() if one.operation_name == AUTHENTICATION]


def test_the_first_is_recorded_at_once_and_the_rest_of_a_minute_in_one_record(face: Face) -> None:
    secret = "eyJhbGciOiJSUzI1NiJ9.c2VjcmV0.c2lnbmVk"
    assert face.ask("GET", "/keys", token=secret).status == 401
    first = told(face)
    assert [(one.result_type, one.result_signature, one.result_description) for one in first] == [
        ("Failure", "token_invalid", "1 call without a good token: token_invalid 1")
    ]
    assert (first[0].properties.http_status_code, first[0].caller_ip_address) == (401, "127.0.0.1")
    for token in ("", secret, "x", ""):
        assert face.ask("POST", "/keys/a/1/unwrapkey", {"alg": "RSA-OAEP", "value": "AAAA"}, token=token).status == 401
    face.world.clock.sleep(59_999)
    strangers.write_due(face.world.vault)
    assert told(face) == first
    face.world.clock.sleep(1)
    strangers.write_due(face.world.vault)
    assert [one.result_description for one in told(face)[1:]] == ["4 calls without a good token: token_invalid 2, token_missing 2"]
    assert "eyJ" not in repr(face.world.log())


def test_a_call_without_a_token_is_told_of_though_no_thread_runs_it(face: Face) -> None:
    assert face.ask("GET", "/keys", token="").status == 401
    until(lambda: told(face))
    assert told(face)[0].result_signature == "token_missing"


def test_a_token_of_another_tenant_has_a_record_of_its_own_and_is_not_counted(face: Face) -> None:
    elsewhere = face.client_of("elsewhere", frozenset(), tenant="6b9e2f0c-1d3a-4c5b-8e7f-9a0b1c2d3e4f")
    assert face.ask("GET", "/keys", who=elsewhere).status == 401
    strangers.write_due(face.world.vault, all_of_it=True)
    assert [one.result_signature for one in face.world.log() if one.result_type == "Failure"] == ["token_tenant_wrong"]


def test_many_addresses_do_not_flood_the_log(face: Face) -> None:
    vault = face.world.vault
    for number in range(MOST_REPORTED + 50):
        strangers.record(vault, strangers.note(vault, TENANT, VAULT, f"10.0.{number // 250}.{number % 250}", "token_missing"))
    assert len(told(face)) == MOST_REPORTED
    face.world.clock.sleep(60_000)
    strangers.write_due(vault)
    last = told(face)[-1]
    assert (last.caller_ip_address, last.result_description) == (strangers.MANY, "50 calls without a good token: token_missing 50")
    assert len(told(face)) == MOST_REPORTED + 1


def test_what_is_counted_is_recorded_when_the_server_stops(tmp_path: Path) -> None:
    home = tmp_path / "home"
    make_vault_home(home, "contoso-v1")
    with vaults_served(home) as running:
        one = running.entries[0]
        for _call in range(5):
            assert httpx.get(f"{one.url}/keys?api-version=7.6", verify=False).status_code == 401  # noqa: S501 - nothing is told to it
    found = call_as_admin(home, "vault.log", v.VaultLogQuery(vault="contoso-v1", operation=AUTHENTICATION))
    assert isinstance(found, list)
    assert sum(int(entry.result_description.split(maxsplit=1)[0]) for entry in found) == 5
