"""Input that is broken, oversized or sly: each has one status and code in the face's own error shape, and nothing is stored."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import pytest

from keystead.core.vaults.access import Permission
from keystead.core.vaults.jwk import encode
from keystead.frontends.vault_http.routes import LARGE

if TYPE_CHECKING:
    from vault_http.face import Face, Reply

pytestmark = pytest.mark.xdist_group("vault-face")

EC = {"kty": "EC"}
WRAP = {"alg": "RSA-OAEP-256", "value": "AAAA"}


@pytest.fixture(scope="module", autouse=True)
def known(face: Face) -> str:
    """A key that is there before and after each test."""
    return face.new_key("known").version


def shown(reply: Reply, status: int, code: str) -> None:
    """The error shape, and nothing of how the service is made."""
    assert reply.status == status, reply.raw
    assert set(reply.body) == {"error"}
    assert set(reply.body["error"]) <= {"code", "message", "innererror"}
    assert reply.code == code
    assert reply.headers["content-type"] == "application/json; charset=utf-8"
    assert re.fullmatch(r"[0-9a-f-]{36}", reply.headers["x-ms-request-id"])
    assert b"Traceback" not in reply.raw
    assert b"keystead." not in reply.raw


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'"RSA"',
        b"{'kty': 'RSA'}",
        b'{"kty": "RSA"} more',
        b'{"kty": "\xff"}',
        b'{"kty": NaN}',
        b"\x00",
        b"[" * 60_000,
        b'{"kty":' + b'{"kty":' * 9_000,
        b'{"kty": "EC", "x": ' + b"[" * 30_000 + b"]" * 30_000 + b"}",
    ],
    ids=range(13),
)
def test_malformed_json(face: Face, content: bytes) -> None:
    shown(face.ask("POST", "/keys/malformed/create", content=content), 400, "BadParameter")
    assert face.ask("GET", "/keys/malformed/").status == 404


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"kty": None},
        {"kty": 1},
        {"kty": ""},
        {"kty": "RSB"},
        {"kty": "oct"},
        {"kty": "oct-HSM", "key_size": 256},
        {"kty": "RSA", "key_size": 1024},
        {"kty": "RSA", "key_size": 2049},
        {"kty": "RSA", "key_size": -1},
        {"kty": "RSA", "key_size": 2**70},
        {"kty": "RSA", "key_size": "2048"},
        {"kty": "RSA", "key_size": 2048.5},
        {"kty": "RSA", "crv": "P-256"},
        {"kty": "RSA", "public_exponent": 3},
        {"kty": "EC", "crv": "P-224"},
        {"kty": "EC", "crv": "P-256", "key_size": 384},
        {**EC, "key_ops": ["wrapKey"]},
        {**EC, "key_ops": ["export"]},
        {**EC, "key_ops": []},
        {**EC, "key_ops": "sign"},
        {**EC, "attributes": {"enabled": "yes"}},
        {**EC, "attributes": {"exp": -1}},
        {**EC, "attributes": {"exp": 2**60}},
        {**EC, "attributes": {"exp": 2**90}},
        {**EC, "attributes": {"exp": "tomorrow"}},
        {**EC, "attributes": {"nbf": 2_000_000_000, "exp": 1_900_000_000}},
        {**EC, "attributes": {"exportable": True}},
        {**EC, "tags": {str(number): "" for number in range(16)}},
        {**EC, "tags": {"": "x"}},
        {**EC, "tags": {"x" * 257: ""}},
        {**EC, "tags": {"x": "y" * 257}},
        {**EC, "tags": {"x": 1}},
        {**EC, "tags": ["x"]},
        {**EC, "release_policy": {}},
        {**EC, "release_policy": {"data": "!!"}},
        {**EC, "release_policy": {"data": encode(b"{}")}},
    ],
    ids=json.dumps,
)
def test_values_that_are_none(face: Face, body: dict[str, Any]) -> None:
    shown(face.ask("POST", "/keys/wrong/create", body), 400, "BadParameter")
    assert face.ask("GET", "/keys/wrong/").status == 404


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"alg": "RSA-OAEP-256"},
        {"value": "AAAA"},
        {"alg": "none", "value": "AAAA"},
        {"alg": "rsa-oaep-256", "value": "AAAA"},
        {"alg": "RS256", "value": "AAAA"},
        {"alg": "A256KW", "value": "AAAA"},
        {"alg": None, "value": "AAAA"},
        {"alg": "x" * 10_000, "value": "AAAA"},
        {**WRAP, "value": ""},
        {**WRAP, "value": "A"},
        {**WRAP, "value": "AAAA="},
        {**WRAP, "value": "AB=="},
        {**WRAP, "value": "AAA+"},
        {**WRAP, "value": "AA AA"},
        {**WRAP, "value": "AAAA\n"},
        {**WRAP, "value": "AB"},
        {**WRAP, "value": "ÄÄÄÄ"},
        {**WRAP, "value": 17},
        {**WRAP, "value": encode(bytes(191))},
        {**WRAP, "value": encode(bytes(20_000))},
        {**WRAP, "iv": "AAAA"},
        {**WRAP, "aad": "AAAA"},
    ],
    ids=range(23),
)
def test_algorithms_and_operands(face: Face, body: dict[str, Any]) -> None:
    for verb in ("wrapkey", "encrypt"):
        shown(face.ask("POST", f"/keys/known/{verb}", body), 400, "BadParameter")


@pytest.mark.parametrize("verb", ["unwrapkey", "decrypt"])
def test_what_does_not_open(face: Face, verb: str) -> None:
    for size in (1, 255, 256, 257, 512):
        shown(face.ask("POST", f"/keys/known/{verb}", {"alg": "RSA-OAEP-256", "value": encode(b"\x01" * size)}), 400, "BadParameter")


@pytest.mark.parametrize(
    "body",
    [
        {"alg": "RS256", "value": encode(bytes(31))},
        {"alg": "RS512", "value": encode(bytes(32))},
        {"alg": "ES256", "value": encode(bytes(32))},
        {"alg": "HS256", "value": encode(bytes(32))},
        {"alg": "RSNULL", "value": encode(bytes(32))},
    ],
    ids=lambda body: body["alg"],
)
def test_digests(face: Face, body: dict[str, Any]) -> None:
    shown(face.ask("POST", "/keys/known/sign", body), 400, "BadParameter")
    shown(face.ask("POST", "/keys/known/verify", {**body, "digest": body["value"]}), 400, "BadParameter")


@pytest.mark.parametrize("name", ["a_b", "a.b", "a%20b", "%C3%A4", "x" * 128, "a%2Fb", "%00", "..%2F", "a%"])
def test_names(face: Face, name: str) -> None:
    shown(face.ask("POST", f"/keys/{name}/create", EC), 400, "BadParameter")
    shown(face.ask("GET", f"/keys/{name}/"), 400, "BadParameter")
    shown(face.ask("GET", f"/deletedkeys/{name}"), 400, "BadParameter")


@pytest.mark.parametrize("version", ["0", "g" * 32, "0" * 31, "0" * 33, "%2e%2e", "current"])
def test_versions(face: Face, version: str) -> None:
    shown(face.ask("GET", f"/keys/known/{version}"), 400, "BadParameter")
    shown(face.ask("POST", f"/keys/known/{version}/wrapkey", WRAP), 400, "BadParameter")
    shown(face.ask("GET", f"/keys/known/{'0' * 32}"), 404, "KeyNotFound")


@pytest.mark.parametrize("version", [None, "", "6.9", "7.7", "8.0", "7.6-preview.1", "7.6'", "latest"])
def test_api_versions(face: Face, version: str | None) -> None:
    shown(face.ask("GET", "/keys", version=version), 400, "BadParameter")


def test_a_call_that_came_later_is_not_in_an_earlier_version(face: Face) -> None:
    shown(face.ask("POST", "/keys/known/rotate", version="7.2"), 400, "BadParameter")


@pytest.mark.parametrize(
    "query",
    ["maxresults=0", "maxresults=26", "maxresults=-1", "maxresults=x", "maxresults=", "maxresults=%D9%A1", "maxresults=1&maxresults=2"]
    + [
        f"$skiptoken={token}" for token in ("", "k", "!!", encode(b"x"), encode(b"vknown"), encode(b"k../"), encode(b"kKnown"), "A" * 5_000)
    ],
)
def test_pages(face: Face, query: str) -> None:
    shown(face.ask("GET", f"/keys?{query}"), 400, "BadParameter")


@pytest.mark.parametrize("token", ["", "x", "a.b.c", "Bearer", "e30.e30.AAAA", "." * 9_000, "x" * 20_000])
def test_tokens_R_038(face: Face, token: str) -> None:
    refused = face.ask("GET", "/keys", headers={"authorization": f"Bearer {token}"} if token else {}, token="")
    shown(refused, 401, "Unauthorized")
    assert refused.headers["www-authenticate"].startswith('Bearer authorization="https://')


def test_a_token_for_another_resource_an_expired_one_and_one_of_nobody_any_more_R_038(face: Face) -> None:
    wrong = face.token(face.admin, "https://graph.localhost")
    refused = face.ask("GET", "/keys", token=wrong)
    shown(refused, 401, "Unauthorized")
    assert "AKV10022" in refused.body["error"]["message"]
    leaver = face.client_of("leaver", frozenset(Permission))
    kept = face.token(leaver)
    with face.world.store.writing() as tx:
        tx.remove_client(leaver)
    shown(face.ask("GET", "/keys", token=kept), 401, "Unauthorized")


def test_other_schemes_are_no_sign_in(face: Face) -> None:
    for scheme in ("Basic YWxleDpwYXNz", "bearer", "PoP abc", f"Token {face.token(face.admin)}"):
        shown(face.ask("GET", "/keys", token="", headers={"authorization": scheme}), 401, "Unauthorized")


@pytest.mark.parametrize("path", ["/keys/known/create", "/keys/known/wrapkey"])
def test_oversized_bodies(face: Face, path: str) -> None:
    shown(face.ask("POST", path, content=b'{"kty": "' + b"x" * 70_000 + b'"}'), 413, "RequestTooLarge")


def test_a_large_body_is_not_read_for_nobody(face: Face) -> None:
    shown(face.ask("POST", "/keys/restore", content=b"x" * 1_500_000, token="nobody"), 401, "Unauthorized")


def test_backups_that_are_none_and_one_that_is_too_large(face: Face) -> None:
    for value in ("", "AAAA", encode(b"KSTDKB\x02" + bytes(100)), encode(bytes(100_000))):
        shown(face.ask("POST", "/keys/restore", {"value": value}), 400, "BadParameter")
    shown(face.ask("POST", "/keys/restore", {"value": "A" * LARGE}), 413, "RequestTooLarge")


def test_media_types(face: Face) -> None:
    refused = face.ask("POST", "/keys/typed/create", content=b'{"kty": "EC"}', headers={"content-type": "text/plain"})
    shown(refused, 415, "UnsupportedMediaType")
    shown(face.ask("POST", "/keys/typed/create", content=b"x", headers={"content-encoding": "gzip"}), 415, "UnsupportedMediaType")


@pytest.mark.parametrize("path", ["/secrets", "/secrets/x/1", "/certificates", "/certificates/x/create", "/storage", "/deletedsecrets"])
def test_what_is_not_offered(face: Face, path: str) -> None:
    for method in ("GET", "PUT", "POST", "DELETE"):
        shown(face.ask(method, path), 400, "NotSupported")


@pytest.mark.parametrize("path", ["/", "/keyz", "/keys/a/b/c/d", "//keys", "/deletedkeys/x/y", "/keys//create"])
def test_paths_that_are_none(face: Face, path: str) -> None:
    refused = face.ask("GET", path)
    assert refused.status in {400, 404, 405}
    shown(refused, refused.status, refused.code)


@pytest.mark.parametrize(("method", "path"), [("POST", "/keys"), ("PATCH", "/deletedkeys/known"), ("PUT", "/keys")])
def test_methods(face: Face, method: str, path: str) -> None:
    refused = face.ask(method, path)
    shown(refused, 405, "MethodNotAllowed")
    assert refused.headers["allow"]


def test_the_callers_id_is_echoed_when_it_is_one(face: Face) -> None:
    given = "9B1DEB4D-3B7D-4BAD-9BDD-2B0D7B3DCB6D"
    assert face.ask("GET", "/keys", headers={"x-ms-client-request-id": given}).headers["x-ms-client-request-id"] == given
    assert face.world.log()[-1].correlation_id == given.lower()
    assert "x-ms-client-request-id" not in face.ask("GET", "/keys", headers={"x-ms-client-request-id": "a b"}).headers


def test_every_refusal_of_a_caller_is_in_the_log_once_R_067(face: Face) -> None:
    before = len(face.world.log())
    face.ask("POST", "/keys/known/wrapkey", {"alg": "RSA-OAEP-256", "value": "!"})
    face.ask("POST", "/keys/known/wrapkey", content=b"{")
    face.ask("GET", "/keys/known/", version="1.0")
    face.ask("GET", "/keys/no_name/")
    added = face.world.log()[before:]
    assert [(one.operation_name, one.properties.http_status_code) for one in added] == [
        ("KeyWrap", 400),
        ("KeyWrap", 400),
        ("KeyGet", 400),
        ("KeyGet", 400),
    ]


def test_after_all_of_it_the_key_still_works(face: Face, known: str) -> None:
    wrapped = face.ask("POST", f"/keys/known/{known}/wrapkey", WRAP)
    opened = face.ask("POST", f"/keys/known/{known}/unwrapkey", {**WRAP, "value": wrapped.body["value"]})
    assert opened.body == {"kid": face.uri("known", known), "value": "AAAA"}
