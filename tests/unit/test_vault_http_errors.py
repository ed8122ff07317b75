"""The table of the keys face's errors: whatever is raised is told in the shape, with a status its clients know (R-037, R-038, R-043, R-066)."""

from __future__ import annotations

import json

import pytest

from keystead.core.errors import (
    Conflict,
    Forbidden,
    IntegrityFailure,
    InvalidRequest,
    KeysteadError,
    NotFound,
    PreconditionFailed,
    Throttled,
    Unauthenticated,
    Unavailable,
)
from keystead.frontends.vault_http.errors import BY_CODE, error_body, retry_after, told

CASES = [
    (InvalidRequest("anything", "x"), 400, "BadParameter", None),
    (Unauthenticated("token_expired", "x"), 401, "Unauthorized", None),
    (Unauthenticated("anything", "x"), 401, "Unauthorized", None),
    (Forbidden("vault_access_denied", "x"), 403, "Forbidden", "AccessDenied"),
    (Forbidden("vault_firewall", "x"), 403, "Forbidden", "ForbiddenByFirewall"),
    (PreconditionFailed("key_disabled", "x"), 403, "Forbidden", "KeyDisabled"),
    (PreconditionFailed("purge_protected", "x"), 403, "Forbidden", "ForbiddenByPolicy"),
    (PreconditionFailed("vault_read_only", "x"), 403, "Forbidden", "VaultReadOnly"),
    (NotFound("key_deleted", "x"), 404, "KeyNotFound", None),
    (NotFound("vault_not_found", "x"), 404, "VaultNotFound", None),
    (Conflict("key_deleted_but_recoverable", "x"), 409, "Conflict", "ObjectIsDeletedButRecoverable"),
    (Throttled("vault_throttled", "x", retry_after=1_200), 429, "Throttled", "VaultRequestTypeLimitReached"),
    (Unavailable("anything", "x"), 503, "ServiceUnavailable", None),
    (IntegrityFailure("unwrap_failed", "x"), 400, "BadParameter", None),
    (IntegrityFailure("private_key_damaged", "x"), 500, "InternalServerError", None),
    (KeysteadError("unexpected", "x"), 500, "InternalServerError", None),
]


@pytest.mark.parametrize(("error", "status", "code", "inner"), CASES, ids=lambda value: getattr(value, "code", None))
def test_how_errors_are_told(error: KeysteadError, status: int, code: str, inner: str | None) -> None:
    assert told(error).status == status
    shown = json.loads(error_body(error))["error"]
    assert shown["code"] == code
    assert shown.get("innererror") == (None if inner is None else {"code": inner})
    assert shown["message"] == told(error).text or shown["message"].endswith("x")


def test_how_long_to_wait_R_066() -> None:
    assert retry_after(Throttled("vault_throttled", "x", retry_after=1_200)) == 2
    assert retry_after(Throttled("vault_throttled", "x", retry_after=1)) == 1
    assert retry_after(Unavailable("anything", "x")) > 0
    assert retry_after(Forbidden("anything", "x")) == 0


def test_a_firewall_is_told_apart_from_a_permission_R_043() -> None:
    assert BY_CODE["vault_firewall"].inner != BY_CODE["vault_access_denied"].inner


def test_mending_speaks_of_the_command_line_and_stays_there() -> None:
    assert b"keystead" not in error_body(Forbidden("vault_access_denied", "x", "keystead vault access grant"))
