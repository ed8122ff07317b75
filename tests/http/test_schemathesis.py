"""Every operation of the OpenAPI document, driven by schemathesis against a real server, by callers of every kind.

No answer is a fault of the server, none is one that the document does not tell of, and each has the form that it tells of. Each operation
is sent one request made of what is known to be there, and most of those have to succeed, always the same (NEEDS_MORE names the others).
Others are drawn. What is drawn hangs on what else the process has loaded, for hypothesis takes constants from there, so nothing is asked of
it but that no answer is wrong; half of the names drawn are replaced by names of things that are there, so that what is behind the door is
reached too.
"""

from __future__ import annotations

import json
from contextlib import contextmanager
from dataclasses import dataclass
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
    from pathlib import Path

    from schemathesis import APIOperation, Case
    from schemathesis.core.transport import Response

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
DOCUMENT = json.loads(openapi_document())
SCHEMAS = DOCUMENT["components"]["schemas"]
SCHEMA = schemathesis.openapi.from_dict(DOCUMENT)
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

    def headers(self, caller: str) -> dict[str, str]:
        if not caller:
            return {}
        return {"Keystead-Home-Secret": self.secret} | ({} if caller == OPERATOR else {"Keystead-As": caller})

    def send(self, case: Case[Any], caller: str) -> Response:
        """The answer to a request, which is one the document tells of."""
        case.headers.clear()  # credentials are the test's
        response = case.call(base_url=self.url, session=self.session, headers=self.headers(caller))
        case.validate_response(response, checks=CHECKS)
        return response


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    with _served(tmp_path_factory.mktemp("driven") / "home") as made:
        yield made


@contextmanager
def _served(home: Path) -> Iterator[Target]:
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


# -- one request of each made of what is known -------------------------------------------------------------------------------------------

MORE: dict[str, dict[str, Any]] = {
    "settings.set": {"name": "probe_interval"},
    "user.add": {"upn": "new@contoso.example", "roles": ["user"]},
    "user.remove": {"upn": "new@contoso.example"},
    "mailbox.create": {"upn": "another@contoso.example"},
    "mailbox.assign": {"upns": [OWNER]},
    "site.mkdir": {"path": "another"},
    "site.put": {"path": "file.txt"},
    "site.get": {"path": "file.txt"},
    "site.versions": {"path": "file.txt"},
    "vault.fail-over": {"read_only": False},
    "vault.network.default": {"action": "allow"},
    "vault.network.allow": {"range": "192.0.2.0/24"},
    "vault.network.remove": {"range": "192.0.2.0/24"},
    "vault.access.grant": {"principal": "mail", "permissions": ["get"]},
    "vault.access.revoke": {"principal": "mail"},
}
"""Beside what `known` has first: fields of one operation."""
NEEDS_MORE = frozenset(
    {
        "alerts.test",
        "files.health",
        "files.recover",
        "files.register",
        "files.revert",
        "files.roll",
        "job.cancel",
        "key.import",
        "key.purge",
        "key.restore",
        "key.rotation-policy.set",
        "key.rotation-policy.show",
        "keystore.roll-files",
        "mailbox.assign",
        "provider-token.create",
        "provider-token.revoke",
        "sign-in-provider.remove",
        "sign-in-provider.set",
        "sign-in-provider.show",
        "site.get-batch",
        "site.put-batch",
        "site.restore-version",
        "site.rm",
        "site.status",
        "subscription.cancel",
        "tenant.onboard",
        "tenant.reissue-claim",
        "token.create",
        "token.exchange",
        "token.renew",
        "token.revoke",
        "user.claim",
        "vault.client.delete",
        "vault.client.secret.add",
        "vault.client.secret.remove",
        "vault.client.show",
        "vault.purge",
    }
)
"""Operations of which such a request is refused: it would have to name what no other gave."""


def _known_request(known: dict[str, list[Any]], name: str) -> Case[Any]:
    """A request of what the operation needs and no more."""
    operation = OPERATIONS[name]
    raw = operation.definition.raw
    values = {field: first for field, (first, *_others) in known.items()} | MORE.get(name, {})
    needed = {
        place: [one["name"] for one in raw.get("parameters", ()) if one["in"] == place and one["required"]] for place in ("path", "query")
    }
    path, query = ({field: values.get(field, "unknown") for field in needed[place]} for place in ("path", "query"))
    for media_type, content in raw.get("requestBody", {}).get("content", {}).items():
        named = content.get("schema", {}).get("$ref", "").rpartition("/")[2]
        if not named:
            return operation.Case(path_parameters=path, query=query, body=b"content", media_type=media_type)
        wanted = {*SCHEMAS[named].get("required", ()), *MORE.get(name, ())} - {*path, *query}
        body = {field: values[field] for field in sorted(wanted) if field in values}
        return operation.Case(path_parameters=path, query=query, body=body, media_type=media_type)
    return operation.Case(path_parameters=path, query=query)


def test_what_is_known_is_let_through(tmp_path: Path) -> None:
    """What only ever refuses shows little. On a home of its own, in one order, so that nothing hangs on what is drawn."""
    assert set(OPERATIONS) == {*(route.name for route in ROUTES), "server.openapi", "server.health", "server.ready", "server.metrics"}
    with _served(tmp_path / "home") as target:
        refused = {}
        for name in ORDER:
            answers = [target.send(_known_request(target.known, name), caller) for caller in (ADMIN, OPERATOR, OWNER)]
            if not any(answer.status_code < 300 for answer in answers):
                refused[name] = [answer.text for answer in answers]
    assert set(refused) == NEEDS_MORE, {name: said for name, said in refused.items() if name not in NEEDS_MORE}


# -- what is drawn -----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ORDER)
def test_every_answer_is_one_that_the_document_tells_of(target: Target, name: str) -> None:
    operation = OPERATIONS[name]
    positive, negative = operation.as_strategy(), operation.as_strategy(generation_mode=GenerationMode.NEGATIVE)
    drawn = st.one_of(positive, positive, negative)
    tried: list[int] = []

    @seed(crc32(name.encode()))  # another one for each operation
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
        tried.append(target.send(case, caller).status_code)

    drive()
    assert tried, "nothing was drawn"
