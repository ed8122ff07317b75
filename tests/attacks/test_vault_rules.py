"""Getting round a vault's network rules (R-043), limits (R-066) and read-only mode (R-069) with what a caller writes into a request."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from keystead.api.types import vaults as t
from keystead.core.errors import KeysteadError
from keystead.core.vaults import network
from keystead.core.vaults.access import Permission, client
from keystead.vault import keys, management, operations, rotation
from keystead.vault.services import Identity
from vault.world import TENANT
from vault_http.face import VAULT, Face, faced

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.xdist_group("vault-attacks-rules")

INSIDE = "198.51.100.7"
FORWARDED = (
    {"x-forwarded-for": INSIDE},
    {"x-forwarded-for": f"{INSIDE}, 127.0.0.1"},
    {"forwarded": f"for={INSIDE}"},
    {"x-real-ip": INSIDE},
    {"x-client-ip": INSIDE},
    {"client-ip": INSIDE},
    {"true-client-ip": INSIDE},
    {"x-azure-clientip": INSIDE},
    {"via": f"1.1 {INSIDE}"},
    {"x-ms-keyvault-network-info": f"addr={INSIDE};conn_type=Ipv4;"},
    {"x-forwarded-for": ""},
)


@pytest.fixture(scope="module")
def face(tmp_path_factory: pytest.TempPathFactory, database: str) -> Iterator[Face]:
    with faced(tmp_path_factory.mktemp("rules")) as made:
        made.new_key("there")
        yield made


@pytest.fixture
def closed(face: Face) -> Iterator[Face]:
    vault, owner = face.world.vault, face.world.call()
    management.allow_range(vault, owner, t.NetworkRange(vault=VAULT, range=f"{INSIDE}/32"))
    management.set_default(vault, owner, t.NetworkDefault(vault=VAULT, action="Deny"))
    yield face
    management.set_default(vault, owner, t.NetworkDefault(vault=VAULT, action="Allow"))
    management.remove_range(vault, owner, t.NetworkRange(vault=VAULT, range=f"{INSIDE}/32"))


@pytest.mark.parametrize("headers", FORWARDED, ids=str)
def test_R_043_nothing_a_caller_writes_is_its_address(closed: Face, headers: dict[str, str]) -> None:
    refused = closed.ask("GET", "/keys/there", headers=headers)
    assert (refused.status, refused.inner) == (403, "ForbiddenByFirewall")
    last = closed.world.log()[-1]
    assert (last.result_signature, last.caller_ip_address) == ("vault_firewall", "127.0.0.1")


@pytest.mark.parametrize("address", ["", "unknown", "::", "198.51.100.07", "198.51.100.7/32", " 198.51.100.7", "198.51.100.7\n", "3325256711", "::198.51.100.7", "64:ff9b::198.51.100.7", "2002:c633:6407::"])  # fmt: skip
def test_R_043_an_address_that_is_none_is_in_no_range(closed: Face, address: str) -> None:
    """A face that does not know where a call came from says so, and is not taken for the inside of this process."""
    identity = Identity(client(closed.admin.id), TENANT, address, request_uri=f"{closed.url}/keys/there")
    with pytest.raises(KeysteadError) as raised:
        keys.got(closed.world.vault, identity, VAULT, "there", None)
    assert raised.value.code == "vault_firewall"


@pytest.mark.parametrize("address", [INSIDE, f"::ffff:{INSIDE}", "::ffff:c633:6407"])
def test_R_043_an_ipv4_address_is_the_same_in_ipv6_clothes(closed: Face, address: str) -> None:
    identity = Identity(client(closed.admin.id), TENANT, address, request_uri=f"{closed.url}/keys/there")
    assert keys.got(closed.world.vault, identity, VAULT, "there", None).version.key.name == "there"


@pytest.mark.parametrize(
    "text", ["1 Allow", "2 Allow AzureServices", "1 Deny AzureServices 0.0.0.0/0 0.0.0.0/0", "1 allow AzureServices", "x", " "]
)
def test_R_043_rules_that_cannot_be_read_let_nobody_in(text: str) -> None:
    with pytest.raises(KeysteadError) as raised:
        network.read(text)
    assert raised.value.code == "network_rules_damaged"


def test_R_069_nothing_changes_in_a_vault_that_is_failed_over_not_even_by_itself(face: Face) -> None:
    vault, owner = face.world.vault, face.world.call()
    face.ask(
        "PUT", "/keys/there/rotationpolicy", {"lifetimeActions": [{"action": {"type": "Rotate"}, "trigger": {"timeAfterCreate": "P7D"}}]}
    )
    face.ask("POST", "/keys/gone/create", {"kty": "EC"})
    face.ask("DELETE", "/keys/gone")
    management.fail_over(vault, owner, t.FailOver(vault=VAULT, read_only=True))
    try:
        before = face.ask("GET", "/keys/there/versions").body
        face.world.clock.days(8)
        rotation.due(vault)
        for method, path, body in (
            ("POST", "/keys/there/create", {"kty": "EC"}),
            ("POST", "/keys/there/rotate", None),
            ("PATCH", "/keys/there/", {"attributes": {"enabled": False}}),
            ("PUT", "/keys/there/rotationpolicy", {"lifetimeActions": []}),
            ("DELETE", "/keys/there", None),
            ("DELETE", "/deletedkeys/gone", None),
            ("POST", "/deletedkeys/gone/recover", None),
            ("POST", "/keys/restore", {"value": "AAAA"}),
        ):
            refused = face.ask(method, path, body)
            assert (refused.status, refused.inner) == (403, "VaultReadOnly"), path
        assert face.ask("GET", "/keys/there/versions").body == before
    finally:
        management.fail_over(vault, owner, t.FailOver(vault=VAULT, read_only=False))


def test_R_066_many_calls_at_once_get_no_more_than_the_budget(tmp_path: Path) -> None:
    with faced(tmp_path, rate_percent=100) as limited, ThreadPoolExecutor(8) as callers:
        answers = [callers.submit(limited.ask, "POST", f"/keys/many-{number}/create", {"kty": "EC"}) for number in range(40)]
        assert sorted(one.result().status for one in answers) == [200] * 10 + [429] * 30


def test_R_066_who_may_nothing_spends_nothing_of_the_budget(tmp_path: Path) -> None:
    """Else anybody with a token could keep a vault's own callers out."""
    with faced(tmp_path, rate_percent=1) as limited:
        limited.new_key("there", kty="EC")
        nobody = limited.client_of("nobody", frozenset(Permission) - {Permission.GET, Permission.SIGN})
        place, stranger = operations.Place(VAULT, "there", None), Identity(client(nobody.id), TENANT, "127.0.0.1", request_uri=limited.url)
        for _ in range(50):
            assert limited.ask("GET", "/keys/there", who=nobody).status == 403
            with pytest.raises(KeysteadError):
                operations.sign(limited.world.vault, stranger._replace(client_ip="192.0.2.1"), place, "ES256", bytes(32))
        assert [limited.ask("GET", "/keys/there").status for _ in range(21)] == [200] * 20 + [429]
