"""The OpenAPI 3.1 document of the keys face, made from ROWS and the shapes: what docs/vault-openapi.json holds.

It is not served: the service this face stands in for serves none.
"""

from __future__ import annotations

import inspect
from typing import Any

import msgspec

from keystead import __version__
from keystead.core.ids import KEY_NAME
from keystead.frontends.vault_http.errors import STATUSES
from keystead.frontends.vault_http.handlers import MOST_RESULTS
from keystead.frontends.vault_http.routes import API_VERSIONS, ROWS, Row
from keystead.frontends.vault_http.shapes import ErrorOut

JSON = "application/json"
_SCHEMAS = "#/components/schemas/"
_ERROR = "#/components/responses/Error"
_ALWAYS = frozenset({400, 401, 403, 404, 429, 431, 500, 503})
"""What every call may be refused or fail with."""
_OF_A_BODY = frozenset({408, 413, 415})
"""A body that nobody asked for is read as well, and may be late, too large or compressed."""
_HEADERS = {
    "x-ms-request-id": {
        "description": "The id under which the call is in the server's log.",
        "schema": {"type": "string", "format": "uuid"},
    },
    "x-ms-keyvault-service-version": {"description": "Version of the service.", "schema": {"type": "string"}},
    "x-ms-keyvault-network-info": {"description": "From where the call came.", "schema": {"type": "string"}},
}


def document() -> dict[str, Any]:
    """The document: every row."""
    types = [ErrorOut, *(row.takes for row in ROWS if row.takes), *(row.gives for row in ROWS if row.gives)]
    unique = list(dict.fromkeys(types))
    _, components = msgspec.json.schema_components(unique, ref_template=_SCHEMAS + "{name}")
    paths: dict[str, dict[str, Any]] = {}
    for row in ROWS:
        paths.setdefault(row.path, {})[row.method.lower()] = _operation(row)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Keystead key vault",
            "version": __version__,
            "summary": "The keys interface of a vault, as clients of Azure Key Vault speak it.",
            "description": "docs/spec/vault-http.md says the same for people. Bytes are base64url without padding, times are seconds since the epoch.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "security": [{"token": []}],
        "paths": paths,
        "components": {
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer", "description": "Of the authority that the challenge names."}},
            "responses": {
                "Error": {
                    "description": "Refused or failed; `error.code` says why.",
                    "headers": _HEADERS,
                    "content": {JSON: {"schema": {"$ref": _SCHEMAS + "ErrorOut"}}},
                }
            },
            "schemas": {name: _tidied(schema) for name, schema in sorted(components.items())},
        },
    }


def statuses(row: Row) -> tuple[int, ...]:
    """Every status a call of the row may be refused or fail with."""
    return tuple(sorted((_ALWAYS | _OF_A_BODY | frozenset(row.statuses)) & frozenset(STATUSES)))


def _operation(row: Row) -> dict[str, Any]:
    summary, _, text = (inspect.getdoc(row.handler) or "").partition("\n\n")
    made: dict[str, Any] = {
        "operationId": row.name,
        "tags": ["keys"],
        "summary": " ".join(summary.split()),
        "parameters": [*_in_path(row), *_in_query(row)],
        "x-keystead-log-operation": row.operation,
    }
    if text:
        made["description"] = text
    if row.takes is not None:
        made["x-keystead-max-body"] = row.most
        made["requestBody"] = {"required": True, "content": {JSON: {"schema": {"$ref": _SCHEMAS + row.takes.__name__}}}}
    if row.gives is None:
        answers: dict[str, Any] = {"204": {"description": "Done.", "headers": _HEADERS}}
    else:
        schema = {"$ref": _SCHEMAS + row.gives.__name__}
        answers = {"200": {"description": "Done.", "headers": _HEADERS, "content": {JSON: {"schema": schema}}}}
    made["responses"] = answers | {str(status): {"$ref": _ERROR} for status in statuses(row)}
    return made


def _in_path(row: Row) -> list[dict[str, Any]]:
    known = {
        "name": {"type": "string", "pattern": f"^{KEY_NAME.pattern}$"},
        "version": {"type": "string", "pattern": "^[0-9a-fA-F]{32}$"},
    }
    return [{"name": name, "in": "path", "required": True, "schema": schema} for name, schema in known.items() if f"{{{name}}}" in row.path]


def _in_query(row: Row) -> list[dict[str, Any]]:
    versions = [version for version, level in API_VERSIONS.items() if level >= row.since]
    made: list[dict[str, Any]] = [{"name": "api-version", "in": "query", "required": True, "schema": {"type": "string", "enum": versions}}]
    if row.queries:
        made += [
            {
                "name": "maxresults",
                "in": "query",
                "required": False,
                "schema": {"type": "integer", "minimum": 1, "maximum": MOST_RESULTS, "default": MOST_RESULTS},
            },
            {"name": "$skiptoken", "in": "query", "required": False, "schema": {"type": "string", "description": "Of a nextLink."}},
        ]
    return made


def _tidied(schema: dict[str, Any]) -> dict[str, Any]:
    if "description" in schema:
        schema["description"] = inspect.cleandoc(schema["description"])
    return schema
