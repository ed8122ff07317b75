"""Every operation of the face's OpenAPI document, driven by schemathesis, by callers who hold everything, something, nothing, and no token.

No answer is a fault of the server, none is one that the document does not tell of, and each has the form that it tells of. Each operation
is sent one good request of its own (GOOD), which has to succeed, and others that are drawn. What is drawn hangs on what else the process has
loaded, for hypothesis takes constants from there, so nothing is asked of it but that no answer is wrong; two thirds of the names drawn are
replaced by names of keys that are there, so that what is behind the door is reached too.
"""

from __future__ import annotations

import json
import uuid
from hashlib import sha256
from typing import TYPE_CHECKING, Any, NamedTuple
from zlib import crc32

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from joserfc.jwk import RSAKey
from schemathesis.checks import not_a_server_error
from schemathesis.core import NOT_SET
from schemathesis.core.result import Ok
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from keystead.core.vaults.access import Permission
from keystead.core.vaults.jwk import encode
from keystead.frontends.vault_http.openapi import document
from keystead.frontends.vault_http.routes import ROWS
from support.enclave import Enclave, authority, policy_document
from support.tokens import PretendedIssuers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from schemathesis import APIOperation, Case
    from schemathesis.core.transport import Response

    from keystead.ports.vault_store import VaultClient
    from vault_http.face import Face

pytestmark = pytest.mark.xdist_group("vault-face-schema")

EXAMPLES = 25
"""Requests drawn for each operation."""
CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance, response_headers_conformance]
SCHEMA = schemathesis.openapi.from_dict(json.loads(json.dumps(document())))
OPERATIONS: dict[str, APIOperation[Any, Any, Any, Any]] = {
    found.definition.raw["operationId"]: found
    for found in (result.ok() for result in SCHEMA.get_all_operations() if isinstance(result, Ok))
}
CALLERS = ("all", "all", "all", "some", "none", "")


SERVICE = authority()
ENCLAVE = Enclave()
PLAIN = {"alg": "RSA-OAEP-256", "value": encode(b"k" * 32)}
DIGEST = encode(sha256(b"what is signed").digest())


class Target:
    """The face and its callers."""

    def __init__(self, face: Face) -> None:
        self.face = face
        self.session = requests.Session()
        self.session.verify = face.ca_file
        # The operator lists one authority; the services are made without any, and nothing else of them changes.
        object.__setattr__(face.world.vault, "authorities", PretendedIssuers({SERVICE.name: SERVICE}))
        some = frozenset({Permission.GET, Permission.LIST})
        self.callers: dict[str, VaultClient] = {
            "all": face.admin,
            "some": face.client_of("some", some),
            "none": face.client_of("none", frozenset()),
        }
        self.versions: dict[str, str] = {}

    def refresh(self) -> None:
        """Whatever earlier draws have made of the known keys, each is there, in a version that nobody has disabled or bound to other times."""
        for name, kty in (("first", "RSA"), ("second", "EC")):
            self.face.ask("POST", f"/deletedkeys/{name}/recover")
            self.versions[name] = self.face.new_key(name, kty=kty).version

    def send(self, case: Case[Any], caller: str) -> Response:
        """The answer to a request, which is one the document tells of."""
        case.headers.clear()  # credentials are the test's
        headers = {"authorization": f"Bearer {self.face.token(self.callers[caller])}"} if caller else {}
        response = case.call(base_url=self.face.url, session=self.session, headers=headers, verify=self.face.ca_file)
        case.validate_response(response, checks=CHECKS)
        return response


@pytest.fixture(scope="module")
def target(face: Face) -> Iterator[Target]:
    made = Target(face)
    yield made
    made.session.close()


# -- one good request of each ----------------------------------------------------------------------------------------------------------


class Good(NamedTuple):
    """What a good request is made of, beside the name of a key that it alone uses."""

    body: Any = NOT_SET
    version: str = ""


def _did(face: Face, method: str, path: str, body: object = None) -> Any:
    """What a preparation gave; one that fails is told of here, not by the request it was for."""
    reply = face.ask(method, path, body)
    assert reply.status < 300, (method, path, reply.raw)
    return reply.body if reply.raw else None


def _of_a_key(body: Any = NOT_SET) -> Callable[[Face, str], Good]:
    return lambda face, name: Good(body, face.new_key(name).version)


def _of_a_deleted_key(face: Face, name: str) -> Good:
    face.new_key(name)
    _did(face, "DELETE", f"/keys/{name}")
    return Good()


def _of_what_was_encrypted(face: Face, name: str) -> Good:
    key = face.new_key(name)
    return Good({**PLAIN, "value": _did(face, "POST", f"{face.path_of(key)}/encrypt", PLAIN)["value"]}, key.version)


def _of_what_was_signed(face: Face, name: str) -> Good:
    key = face.new_key(name)
    signature = _did(face, "POST", f"{face.path_of(key)}/sign", {"alg": "RS256", "value": DIGEST})["value"]
    return Good({"alg": "RS256", "digest": DIGEST, "value": signature}, key.version)


def _of_what_may_leave(face: Face, name: str) -> Good:
    policy = {"data": encode(policy_document())}
    body = {"kty": "RSA-HSM", "attributes": {"exportable": True}, "release_policy": policy}
    version = _did(face, "POST", f"/keys/{name}/create", body)["key"]["kid"].rpartition("/")[2]
    return Good({"target": SERVICE.token(ENCLAVE.claims()), "nonce": "n-1"}, version)


def _of_a_backup(face: Face, name: str) -> Good:
    """One of a key that is gone for good: its name is free."""
    face.new_key(name)
    blob = _did(face, "POST", f"/keys/{name}/backup")["value"]
    _did(face, "DELETE", f"/keys/{name}")
    _did(face, "DELETE", f"/deletedkeys/{name}")
    return Good({"value": blob})


def _of_another_s_key(_face: Face, _name: str) -> Good:
    return Good({"key": RSAKey.generate_key(2_048, auto_kid=False).as_dict(private=True)})


GOOD: Mapping[str, Callable[[Face, str], Good]] = {
    "createKey": lambda _face, _name: Good({"kty": "RSA", "key_size": 2_048}),
    "importKey": _of_another_s_key,
    "getKeys": _of_a_key(),
    "getKeyVersions": _of_a_key(),
    "getKey": _of_a_key(),
    "updateKey": _of_a_key({"attributes": {"enabled": True}, "tags": {"purpose": "test"}}),
    "deleteKey": _of_a_key(),
    "getDeletedKeys": _of_a_deleted_key,
    "getDeletedKey": _of_a_deleted_key,
    "purgeDeletedKey": _of_a_deleted_key,
    "recoverDeletedKey": _of_a_deleted_key,
    "backupKey": _of_a_key(),
    "restoreKey": _of_a_backup,
    "rotateKey": _of_a_key(),
    "getKeyRotationPolicy": _of_a_key(),
    "updateKeyRotationPolicy": _of_a_key(
        {
            "lifetimeActions": [{"action": {"type": "Rotate"}, "trigger": {"timeAfterCreate": "P60D"}}],
            "attributes": {"expiryTime": "P90D"},
        }
    ),
    "encrypt": _of_a_key(PLAIN),
    "decrypt": _of_what_was_encrypted,
    "wrapKey": _of_a_key(PLAIN),
    "unwrapKey": _of_what_was_encrypted,
    "sign": _of_a_key({"alg": "RS256", "value": DIGEST}),
    "verify": _of_what_was_signed,
    "release": _of_what_may_leave,
    "getKeyAttestation": _of_a_key(),
    "getRandomBytes": lambda _face, _name: Good({"count": 16}),
}
"""By operation, with and without a version in its path: makes what the request needs, under a name that nothing else knows."""


def test_every_operation_has_a_good_request() -> None:
    assert set(OPERATIONS) == {row.name for row in ROWS}
    assert set(GOOD) == {name.removesuffix("Current") for name in OPERATIONS}


@pytest.mark.parametrize("name", sorted(OPERATIONS))
def test_a_good_request_is_let_through(target: Target, name: str) -> None:
    """What only ever refuses shows little. No draw can have touched the key: its name is made here, and is no constant that one takes."""
    operation = OPERATIONS[name]
    key = f"good-{uuid.uuid4().hex}"
    good = GOOD[name.removesuffix("Current")](target.face, key)
    path = {part: value for part, value in (("name", key), ("version", good.version)) if f"{{{part}}}" in operation.path}
    assert all(path.values()), "a version that is left empty is another operation"
    media_type = None if good.body is NOT_SET else "application/json"
    response = target.send(operation.Case(path_parameters=path, query={"api-version": "7.6"}, body=good.body, media_type=media_type), "all")
    assert 200 <= response.status_code < 300, response.text


# -- what is drawn ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(OPERATIONS))
def test_every_answer_is_one_the_document_tells_of(target: Target, name: str) -> None:
    operation = OPERATIONS[name]
    positive, negative = operation.as_strategy(), operation.as_strategy(generation_mode=GenerationMode.NEGATIVE)
    target.refresh()
    if "deleted" in name.lower():
        target.face.ask("DELETE", "/keys/first")
    tried: list[int] = []

    @seed(crc32(name.encode()))  # another one for each operation
    @settings(max_examples=EXAMPLES, database=None, deadline=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck))
    @given(case=st.one_of(positive, positive, negative), caller=st.sampled_from(CALLERS), known=st.sampled_from(["first", "second", ""]))
    def drive(case: Case[Any], caller: str, known: str) -> None:
        if known and "name" in case.path_parameters:
            case.path_parameters["name"] = known
            if "version" in case.path_parameters:
                case.path_parameters["version"] = target.versions[known]
        tried.append(target.send(case, caller).status_code)

    drive()
    assert tried, "nothing was drawn"
