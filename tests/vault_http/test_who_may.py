"""Who may what through the face: every row for callers who may nothing, for strangers, from elsewhere, too often, and while failed over."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from azure.core.exceptions import HttpResponseError

from keystead.api.types import vaults as t
from keystead.core.vaults.access import Permission
from keystead.frontends.vault_http.routes import ROWS, Row
from keystead.vault import management
from vault.world import OTHER_TENANT
from vault_http.face import VAULT, faced

if TYPE_CHECKING:
    from pathlib import Path

    from keystead.ports.vault_store import VaultClient
    from vault_http.face import Face, Reply

pytestmark = pytest.mark.xdist_group("vault-face")

BODIES: dict[str, Any] = {
    "CreateIn": {"kty": "EC"},
    "UpdateIn": {"tags": {}},
    "RestoreIn": {"value": "AAAA"},
    "OperateIn": {"alg": "RSA-OAEP-256", "value": "AAAA"},
    "SignIn": {"alg": "RS256", "value": "A" * 43},
    "VerifyIn": {"alg": "RS256", "digest": "A" * 43, "value": "AAAA"},
    "RandomIn": {"count": 1},
    "ReleaseIn": {"target": "a.b.c"},
    "RotationPolicyIn": {"lifetimeActions": []},
    "ImportIn": {"key": {"kty": "RSA", "n": "AAAA"}},
}
MADE = "there"
DELETED = "was-there"
NEVER = "never-there"


@pytest.fixture(scope="module")
def version(face: Face) -> str:
    face.new_key(DELETED, kty="EC")
    face.ask("DELETE", f"/keys/{DELETED}")
    return face.new_key(MADE).version


@pytest.fixture(scope="module")
def nobody(face: Face) -> VaultClient:
    return face.client_of("nobody-at-all", frozenset())


@pytest.fixture(scope="module")
def stranger(face: Face) -> VaultClient:
    return face.client_of("of-elsewhere", frozenset(Permission), tenant=OTHER_TENANT)


def ask(face: Face, row: Row, name: str, version: str, who: VaultClient) -> Reply:
    path = row.path.replace("{name}", name).replace("{version}", version)
    return face.ask(row.method, path, None if row.takes is None else BODIES[row.takes.__name__], who=who)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_without_permission_what_is_there_looks_like_what_is_not_R_037(face: Face, row: Row, version: str, nobody: VaultClient) -> None:
    replies = [ask(face, row, name, version, nobody) for name in (MADE, DELETED, NEVER)]
    assert [(reply.status, reply.code, reply.inner) for reply in replies] == [(403, "Forbidden", "AccessDenied")] * 3
    assert len({reply.raw for reply in replies}) == 1


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_a_client_of_another_tenant_is_nobody_here_R_038(face: Face, row: Row, version: str, stranger: VaultClient) -> None:
    replies = [ask(face, row, name, version, stranger) for name in (MADE, DELETED, NEVER)]
    assert [(reply.status, reply.code) for reply in replies] == [(401, "Unauthorized")] * 3
    assert len({reply.raw for reply in replies}) == 1
    last = face.world.log()[-1]
    assert (last.operation_name, last.result_signature) == (row.operation, "token_tenant_wrong")


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_every_row_writes_one_record_under_its_name_R_067_R_068(face: Face, row: Row, version: str) -> None:
    before = len(face.world.log())
    reply = ask(face, row, NEVER, version, face.admin)
    added = face.world.log()[before:]
    status = 200 if reply.status == 204 else reply.status
    assert [(one.operation_name, one.properties.http_status_code) for one in added] == [(row.operation, status)]


def test_network_rules_R_043(face: Face, version: str) -> None:
    vault, owner = face.world.vault, face.world.call()
    elsewhere, here = t.NetworkRange(vault=VAULT, range="192.0.2.0/24"), t.NetworkRange(vault=VAULT, range="127.0.0.0/8")
    management.allow_range(vault, owner, elsewhere)
    management.set_default(vault, owner, t.NetworkDefault(vault=VAULT, action="Deny"))
    refused = face.ask("GET", f"/keys/{MADE}/{version}")
    assert (refused.status, refused.code, refused.inner) == (403, "Forbidden", "ForbiddenByFirewall")
    management.allow_range(vault, owner, here)
    assert face.ask("GET", f"/keys/{MADE}/{version}").status == 200
    management.remove_range(vault, owner, here)
    assert face.ask("GET", f"/keys/{MADE}/{version}").status == 403
    management.set_default(vault, owner, t.NetworkDefault(vault=VAULT, action="Allow"))
    assert face.ask("GET", f"/keys/{MADE}/{version}").status == 200


def test_read_only_R_069(face: Face, version: str) -> None:
    vault, owner = face.world.vault, face.world.call()
    wrapped = face.ask("POST", f"/keys/{MADE}/{version}/wrapkey", BODIES["OperateIn"]).body["value"]
    management.fail_over(vault, owner, t.FailOver(vault=VAULT, read_only=True))
    for row in (row for row in ROWS if row.name in {"createKey", "updateKey", "deleteKey", "rotateKey"}):
        refused = ask(face, row, MADE, version, face.admin)
        assert (refused.status, refused.inner) == (403, "VaultReadOnly"), row.name
    opened = face.ask("POST", f"/keys/{MADE}/{version}/unwrapkey", {"alg": "RSA-OAEP-256", "value": wrapped})
    assert opened.body["value"] == "AAAA"
    management.fail_over(vault, owner, t.FailOver(vault=VAULT, read_only=False))
    assert face.ask("PATCH", f"/keys/{MADE}/{version}", {"tags": {}}).status == 200


def test_too_often_R_066(tmp_path: Path) -> None:
    with faced(tmp_path, rate_percent=100) as face:
        replies = [face.ask("POST", "/keys/often/create", {"kty": "EC"}) for _ in range(11)]
        assert [reply.status for reply in replies] == [200] * 10 + [429]
        assert (replies[-1].code, replies[-1].inner) == ("Throttled", "VaultRequestTypeLimitReached")
        assert 1 <= int(replies[-1].headers["retry-after"]) <= 11
        with pytest.raises(HttpResponseError) as raised:
            face.keys().create_ec_key("often")
        assert raised.value.status_code == 429
        face.world.clock.sleep(11_000)
        assert face.keys().create_ec_key("often").name == "often"
