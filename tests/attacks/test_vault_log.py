"""The log of a vault, against callers who would rather not be in it (R-067): every call is there, and nobody writes into it but texts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from keystead.core.vaults.jwk import encode
from keystead.vault import material, strangers
from support.waiting import until
from vault_http.face import Face, faced

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.xdist_group("vault-attacks-log")


@pytest.fixture(scope="module")
def face(tmp_path_factory: pytest.TempPathFactory, database: str) -> Iterator[Face]:
    with faced(tmp_path_factory.mktemp("log")) as made:
        made.new_key("there")
        yield made


@pytest.mark.parametrize("text", ["\0", "a\0b", "\x1b[2J", "\x9b31m", "\u202e", "\u2028", "\r\nSuccess", "\0" * 3_000])
@pytest.mark.parametrize("kty", ["RSA", "EC", "\0"])
def test_R_067_a_text_that_no_database_takes_does_not_keep_a_refusal_out_of_the_log(face: Face, kty: str, text: str) -> None:
    before = len(face.world.log())
    refused = face.ask("POST", "/keys/none/create", {"kty": kty, "crv": text, "key_ops": [text]}, headers={"user-agent": "a\tb"})
    added = face.world.log()[before:]
    assert refused.status == 400
    assert [(one.operation_name, one.result_type, one.properties.http_status_code) for one in added] == [("KeyCreate", "Failure", 400)]
    assert added[0].result_description.isprintable()
    assert added[0].properties.client_info.isprintable()
    assert 0 < len(added[0].result_description) <= 2_048


def test_R_067_a_use_of_a_key_that_meets_a_defect_is_in_the_log(face: Face, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever finds a way to make a call fail must not have found a way to use a key unseen."""

    def broken(*_arguments: Any) -> bytes:
        raise RuntimeError("broken inside")

    before = len(face.world.log())
    monkeypatch.setattr(material, "decrypt", broken)
    met = face.ask("POST", "/keys/there//unwrapkey", {"alg": "RSA-OAEP-256", "value": encode(bytes(256))})
    added = face.world.log()[before:]
    assert met.status == 500
    assert "broken inside" not in met.raw.decode()
    assert [(one.operation_name, one.result_type, one.properties.http_status_code) for one in added] == [("KeyUnwrap", "Failure", 500)]


def test_R_067_callers_without_a_token_cannot_fill_the_log(face: Face) -> None:
    before = len(face.world.log())
    token = face.token(face.admin)
    for forged in ("", "x", "a.b.c", token[:-4] + "AAAA", token.rpartition(".")[0] + "."):
        for path in ("/keys", "/keys/there/versions", "/nothing", "/secrets"):
            assert face.ask("GET", path, token=forged).status == 401
    until(lambda: len(face.world.log()) > before)  # a thread writes the first: nobody's answer waits for it
    face.world.clock.sleep(60_000)
    strangers.write_due(face.world.vault)
    added = face.world.log()[before:]
    assert [int(one.result_description.split(maxsplit=1)[0]) for one in added] == [1, 19]
    assert token[:20] not in repr(added)
