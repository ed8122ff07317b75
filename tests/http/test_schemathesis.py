"""Every operation of the OpenAPI document, driven by schemathesis against a real server, by callers of every kind.

No answer is a fault of the server, none is one that the document does not tell of, and each has the form that it tells of. What is drawn is
always the same; half of the names drawn are replaced by names of things that are there, so that what is behind the door is reached too.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from zlib import crc32

import msgspec
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

from keystead.api.openapi import openapi_document
from keystead.api.routes import ROUTES
from keystead.api.types.sites import CreateSite, MakeFolder
from keystead.client.running import SECRET
from keystead.wiring import create_home
from support.filled import ADMIN, OWNER, filled
from support.http import served

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from schemathesis import APIOperation, Case

pytestmark = pytest.mark.xdist_group("schemathesis")

EXAMPLES = 18
"""Requests drawn for each operation."""
CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance, response_headers_conformance]
OPERATOR = "operator@provider.example"
SITE = "https://contoso.example/sites/plans"
CALLERS = (ADMIN, OPERATOR, OWNER, ADMIN, OPERATOR, OWNER, "")
LAST = (
    "mailbox.unassign", "mailbox.delete-item", "mailbox.delete", "job.cancel", "user.remove", "key.disable", "key.delete", "key.recover",
    "key.purge", "site.rm", "site.delete", "vault.access.revoke", "vault.delete", "vault.recover", "vault.purge", "subscription.cancel", "dev.clock.advance", "dev.fault",
)  # fmt: skip
"""What takes something away, after everything else; in this order."""
SCHEMA = schemathesis.openapi.from_dict(json.loads(openapi_document()))
OPERATIONS: dict[str, APIOperation[Any, Any, Any, Any]] = {
    found.definition.raw["operationId"]: found
    for found in (result.ok() for result in SCHEMA.get_all_operations() if isinstance(result, Ok))
}
ORDER = sorted(OPERATIONS, key=lambda name: LAST.index(name) if name in LAST else -1)


@schemathesis.serializer("application/msgpack")
def as_msgpack(_context: schemathesis.SerializationContext, value: Any) -> bytes:
    """MessagePack; what the document shows as base64 is bytes there."""
    return msgspec.msgpack.encode(_with_bytes(value))


def _with_bytes(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            str(name): one.encode("utf-8", "replace") if name == "data" and isinstance(one, str) else _with_bytes(one)
            for name, one in value.items()
        }
    if isinstance(value, list):
        return [_with_bytes(one) for one in value]
    return value if not isinstance(value, int) or -(2**63) <= value < 2**64 else float(value)


@dataclass
class Target:
    url: str
    secret: str
    known: dict[str, list[Any]]
    session: requests.Session
    done: set[str] = field(default_factory=set)
    """Operations that somebody got a good answer of."""

    def headers(self, caller: str) -> dict[str, str]:
        if not caller:
            return {}
        return {"Keystead-Home-Secret": self.secret} | ({} if caller == OPERATOR else {"Keystead-As": caller})


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    home = tmp_path_factory.mktemp("driven") / "home"
    create_home(home, dev=True, operator=OPERATOR)
    with served(home) as server, filled(server) as made, requests.Session() as session:
        session.trust_env = False
        made.admin.call("site.create", CreateSite(url=SITE, owner=OWNER))
        for folder in ("folder", "plan.txt"):
            made.owner.call("site.mkdir", MakeFolder(site=SITE, path=folder))
        keys = [f"https://contosov{number}.vault.localhost/keys/root" for number in (1, 2)]
        known: dict[str, list[Any]] = {
            "tenant": ["contoso.example", "-"],
            "upn": [OWNER, ADMIN, "new@contoso.example"],
            "delegate": [ADMIN, OWNER],
            "item": made.items,
            "job": [made.job],
            "policy": ["Mail", "mail"],
            "vault": ["contosov1", "CONTOSOV2"],
            "name": ["root", "contoso-s1", "another", "probe_interval"],
            "subscription": ["contoso-s1"],
            "subscriptions": [["contoso-s1", "contoso-s2"]],
            "keys": [keys],
            "key": [keys[0], f"{keys[0]}/1"],
            "domain": ["fabrikam.example"],
            "geo": [["EUR"], ["EUR", "NAM"]],
            "region": ["westeurope"],
            "permissions": [["get", "list"]],
            "principal": ["mail"],
            "fault": ["none"],
            "kty": ["RSA"],
            "size": [2048],
            "curve": [None],
            "ops": [["wrapKey", "unwrapKey"]],
            "not_before": [None],
            "expires": [None],
            "kind": ["paid"],
            "sku": ["standard"],
            "retention_days": [90],
            "resource_group": [None],
            "version": [None],
            "text": ["message"],
            "value": ["60s"],
            "position": [1],
            "ordinal": [1],
            "items": [[{"position": 1, "ordinal": 1, "folder": "Inbox", "data": "Subject: x"}]],
            "milliseconds": [1_000],
            "lifetime_days": [1],
            "site": [SITE],
            "url": ["https://contoso.example/sites/another"],
            "path": ["plan.txt", "folder"],
            "to": ["moved.txt"],
            "member": [ADMIN],
            "owner": [OWNER],
        }
        yield Target(server.url, (home / "run" / SECRET).read_text(), known, session)
        log = server.log.read_text()
        assert "defect" not in log, [line for line in log.splitlines() if "defect" in line][:3]


def _make_known(draw: Callable[[Any], Any], known: dict[str, list[Any]], case: Case[Any]) -> None:
    """Put names of things that are there in place of those drawn: of all in some requests, with nothing else asked for, of some in others."""
    every = draw(st.sampled_from([True, True, False]))
    raw = case.operation.definition.raw
    optional = {one["name"] for one in raw.get("parameters", ()) if one["in"] == "query" and not one["required"]}
    for values in (case.path_parameters, case.query, case.body):
        if isinstance(values, dict):
            for name in list(values):
                if every and values is case.query and name in optional:
                    del values[name]
                elif name in known and (every or draw(st.booleans())):
                    values[name] = draw(st.sampled_from(known[name]))


@pytest.mark.parametrize("name", ORDER)
def test_every_answer_is_one_that_the_document_tells_of(target: Target, name: str) -> None:
    operation = OPERATIONS[name]
    positive, negative = operation.as_strategy(), operation.as_strategy(generation_mode=GenerationMode.NEGATIVE)
    drawn = st.one_of(positive, positive, negative)

    @seed(crc32(name.encode()))  # the same each time, and another one for each operation
    @settings(
        max_examples=EXAMPLES,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=drawn, caller=st.sampled_from(CALLERS), data=st.data())
    def drive(case: Case[Any], caller: str, data: st.DataObject) -> None:
        _make_known(data.draw, target.known | ({"upn": ["new@contoso.example"]} if name == "user.remove" else {}), case)
        case.headers.clear()  # credentials are the test's
        response = case.call(base_url=target.url, session=target.session, headers=target.headers(caller))
        case.validate_response(response, checks=CHECKS)
        if response.status_code == 200:
            target.done.add(name)

    drive()


def test_enough_of_it_was_let_through(target: Target) -> None:
    """What only ever refuses shows little: most operations gave somebody a good answer, and each was tried."""
    assert set(OPERATIONS) == {*(route.name for route in ROUTES), "server.openapi", "server.health", "server.ready", "server.metrics"}
    missing = sorted(set(OPERATIONS) - target.done)
    assert len(missing) < len(OPERATIONS) // 2, missing
