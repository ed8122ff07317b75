"""docs/openapi.json is what ROUTES says, and a valid OpenAPI 3.1 document."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator

from keystead.api import openapi
from keystead.api.openapi import document, has_body, openapi_document, statuses
from keystead.api.routes import BY_NAME, ROUTES, Body, Scope
from keystead.api.wire import in_body, in_path, in_query
from keystead.core.access.roles import ALLOWED, ANYBODY

ROOT = Path(__file__).resolve().parents[2]
BESIDE_THE_ROWS = {"server.openapi", "server.health", "server.ready", "server.metrics"}


@pytest.fixture(scope="module")
def made() -> Any:
    return json.loads(openapi_document())


@pytest.fixture(scope="module")
def script() -> Any:
    loader = importlib.machinery.SourceFileLoader("make_openapi", str(ROOT / "scripts" / "make-openapi"))
    spec = importlib.util.spec_from_loader(loader.name, loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.dont_write_bytecode", True)
        loader.exec_module(module)
    return module


def operations(made: Any) -> dict[str, tuple[str, str, Any]]:
    return {
        operation["operationId"]: (method, path, operation)
        for path, methods in made["paths"].items()
        for method, operation in methods.items()
    }


def test_the_document_in_the_repository_is_what_the_routes_say(script: Any) -> None:
    assert script.main(["--check"]) == 0


def test_a_stale_document_is_found_and_mended(script: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stale = tmp_path / "openapi.json"
    stale.write_text((ROOT / "docs" / "openapi.json").read_text().replace('"tenant.create"', '"tenant.make"'))
    assert script.main(["--check", str(stale)]) == 1
    assert "run scripts/make-openapi" in capsys.readouterr().err
    assert script.main([str(stale)]) == 0
    assert script.main(["--check", str(stale)]) == 0
    assert script.main(["--check", str(tmp_path / "missing.json")]) == 1


def test_the_document_is_valid_openapi_3_1(made: Any) -> None:
    OpenAPIV31SpecValidator(made).validate()


def test_every_row_is_in_it_and_nothing_else(made: Any) -> None:
    found = operations(made)
    assert set(found) == set(BY_NAME) | BESIDE_THE_ROWS
    assert {name: found[name][:2] for name in BY_NAME} == {route.name: (route.method.lower(), route.path) for route in ROUTES}


def test_every_field_of_every_request_travels_in_exactly_one_place(made: Any) -> None:
    found = operations(made)
    for route in ROUTES:
        fields = {field.encode_name for field in msgspec.structs.fields(route.request)}
        places = [*(name for name in in_path(route) if name in fields), *in_query(route), *in_body(route)]
        assert sorted(places) == sorted(fields), route.name
        operation = found[route.name][2]
        shown = [(one["in"], one["name"]) for one in operation.get("parameters", ())]
        assert shown == [("path", name) for name in in_path(route)] + [("query", name) for name in in_query(route)], route.name
        assert ("requestBody" in operation) == has_body(route), route.name


def test_who_may_call_and_what_is_too_much_is_in_it(made: Any) -> None:
    """R-008 to R-010: the roles are those of the one table."""
    found = operations(made)
    for route in ROUTES:
        operation = found[route.name][2]
        roles = ["anybody"] if ALLOWED[route.name] is ANYBODY else sorted(ALLOWED[route.name])
        assert operation["x-keystead-roles"] == roles
        assert operation.get("x-keystead-max-body") == (route.max_body if has_body(route) else None)
        assert operation["x-keystead-timeout"] == route.timeout
        assert (operation.get("security") == []) == (route.scope is Scope.PUBLIC), "who signs in with a token says so"
        assert operation["summary"], route.name
        assert {int(status) for status in operation["responses"]} == {200, *statuses(route)}


def test_bytes_travel_as_bytes(made: Any) -> None:
    found = operations(made)
    downloads = {
        "mailbox.read": ["message/rfc822", "text/calendar"],
        "site.get": ["*/*"],  # a file has the type it came with
        "site.get-batch": ["application/octet-stream"],
    }
    assert {route.body for route in ROUTES} == set(Body)
    assert {route.name for route in ROUTES if route.body is Body.DOWNLOAD} == set(downloads)
    for route in ROUTES:
        operation = found[route.name][2]
        taken = list(operation.get("requestBody", {}).get("content", ()))
        given = list(operation["responses"]["200"]["content"])
        if route.body is Body.UPLOAD:
            assert taken == ["application/octet-stream"]
        elif route.body is Body.BATCH:
            assert taken == ["application/msgpack"]
        else:
            assert taken in ([], ["application/json"])
        assert given == downloads.get(route.name, ["application/json"])


def test_times_are_marked_and_no_query_is_null(made: Any) -> None:
    job = made["components"]["schemas"]["JobView"]["properties"]
    assert job["created"]["format"] == "date-time"
    assert {"type": "string", "format": "date-time"} in job["finished"]["anyOf"]
    start = next(one for one in operations(made)["audit.search"][2]["parameters"] if one["name"] == "start")
    assert start["schema"] == {"type": "string", "format": "date-time"}
    assert "null" not in json.dumps([one for _m, _p, operation in operations(made).values() for one in operation.get("parameters", ())])


def test_no_schema_is_named_and_missing_or_there_and_not_named(made: Any) -> None:
    text = json.dumps(made)
    for kind in ("schemas", "responses"):
        for name in made["components"][kind]:
            assert f'"#/components/{kind}/{name}"' in text, f"nothing uses {name}"


def test_a_new_row_shows_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    row = replace(BY_NAME["mailbox.statistics"], name="mailbox.new", path="/v1/tenants/{tenant}/new/{upn}")
    monkeypatch.setattr(openapi, "ROUTES", (*ROUTES, row))
    monkeypatch.setitem(ALLOWED, row.name, ANYBODY)
    assert operations(document())["mailbox.new"][:2] == ("get", row.path)


def test_no_request_has_a_field_that_the_tenant_in_the_path_would_hide() -> None:
    of_tenants = [route for route in ROUTES if "tenant" in in_path(route)]
    assert of_tenants
    assert not [route.name for route in of_tenants if "tenant" in {field.name for field in msgspec.structs.fields(route.request)}]
