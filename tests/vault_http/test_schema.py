"""Every operation of the face's OpenAPI document, driven by schemathesis, by callers who hold everything, something, nothing, and no token.

No answer is a fault of the server, none is one that the document does not tell of, and each has the form that it tells of. What is drawn is
always the same; half of the names drawn are replaced by names of keys that are there, so that what is behind the door is reached too.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any
from zlib import crc32

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from schemathesis.checks import not_a_server_error
from schemathesis.core.result import Ok
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from keystead.core.vaults.access import Permission
from keystead.frontends.vault_http.openapi import document
from keystead.frontends.vault_http.routes import ROWS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from schemathesis import APIOperation, Case

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


class Target:
    """The face, its callers, and what was answered well."""

    def __init__(self, face: Face) -> None:
        self.face = face
        self.session = requests.Session()
        self.session.verify = face.ca_file
        some = frozenset({Permission.GET, Permission.LIST})
        self.callers: dict[str, VaultClient] = {
            "all": face.admin,
            "some": face.client_of("some", some),
            "none": face.client_of("none", frozenset()),
        }
        self.versions = {"first": face.new_key("first").version, "second": face.new_key("second", kty="EC").version}
        self.done: set[str] = set()

    def refresh(self) -> None:
        """What earlier draws deleted is there again, under its name, in a version that nobody has disabled or bound to other times.

        What is drawn depends on what else this process has loaded, so nothing may hang on what it has left behind.
        """
        for name, kty in (("first", "RSA"), ("second", "EC")):
            self.face.ask("POST", f"/deletedkeys/{name}/recover")
            self.versions[name] = self.face.new_key(name, kty=kty).version

    def headers(self, caller: str) -> dict[str, str]:
        return {"authorization": f"Bearer {self.face.token(self.callers[caller])}"} if caller else {}


@pytest.fixture(scope="module")
def target(face: Face) -> Iterator[Target]:
    made = Target(face)
    yield made
    made.session.close()


@pytest.mark.parametrize("name", sorted(OPERATIONS))
def test_every_answer_is_one_the_document_tells_of(target: Target, name: str) -> None:
    operation = OPERATIONS[name]
    positive, negative = operation.as_strategy(), operation.as_strategy(generation_mode=GenerationMode.NEGATIVE)
    target.refresh()
    if "deleted" in name.lower():
        target.face.ask("DELETE", "/keys/first")

    @seed(crc32(name.encode()))  # the same each time, and another one for each operation
    @settings(max_examples=EXAMPLES, database=None, deadline=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck))
    @given(case=st.one_of(positive, positive, negative), caller=st.sampled_from(CALLERS), known=st.sampled_from(["first", "second", ""]))
    def drive(case: Case[Any], caller: str, known: str) -> None:
        if known and "name" in case.path_parameters:
            case.path_parameters["name"] = known
            if "version" in case.path_parameters:
                case.path_parameters["version"] = target.versions[known]
        case.headers.clear()  # credentials are the test's
        response = case.call(base_url=target.face.url, session=target.session, headers=target.headers(caller), verify=target.face.ca_file)
        case.validate_response(response, checks=CHECKS)
        if response.status_code < 300:
            target.done.add(name)

    drive()


def test_enough_of_it_was_let_through(target: Target) -> None:
    """What only ever refuses shows little: most operations gave somebody a good answer, and each was tried."""
    assert set(OPERATIONS) == {row.name for row in ROWS}
    missing = sorted(set(OPERATIONS) - target.done)
    assert len(missing) < len(OPERATIONS) // 2, missing
