"""Errors as a key vault tells them: `{"error": {"code", "message", "innererror": {"code"}}}`, from one table (docs/spec/vault-http.md).

The table goes by Keystead's code first, then by the class of the error. What is in neither is a defect of ours and says nothing of itself.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import msgspec

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

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class Told:
    """How an error is told: HTTP status, code, and the narrower code where there is one."""

    status: int
    code: str
    inner: str = ""
    prefix: str = ""
    """Put before the text: clients and people look for the numbers in it."""
    text: str = ""
    """Takes the place of our own text, where programs are known to look for these words; in braces, members of `Call`."""


@dataclass(frozen=True, slots=True)
class Call:
    """What a text may name of the call it answers: nothing but what the caller wrote, or holds a token for.

    Attributes:
        operation: such as wrapKey.
        permission: what the operation takes.
        name: of the key; empty where the call names none.
        key: the same with the version, where the call names one.
        vault: name of the vault.
        region: of the vault.
        caller: who calls, by ids.
        address: from where.
        rbac: the vault gives permissions by role.
    """

    operation: str
    permission: str
    name: str
    key: str
    vault: str
    region: str
    caller: str
    address: str
    rbac: bool = False


BAD = Told(400, "BadParameter")
ACCESS_DENIED = Told(
    403,
    "Forbidden",
    "AccessDenied",
    text="The user, group or application '{caller}' does not have keys {permission} permission on key vault '{vault};location={region}'.",
)
NO_ROLE = Told(
    403,
    "Forbidden",
    "ForbiddenByRbac",
    text="Caller is not authorized to perform action on resource.\r\n"
    "If role assignments, deny assignments or role definitions were changed recently, please observe propagation time.\r\n"
    "Caller: {caller}\r\nAction: keys {permission}\r\nVault: {vault};location={region}",
)
"""In place of ACCESS_DENIED, in vaults that give permissions by role."""
FIREWALL = Told(
    403,
    "Forbidden",
    "ForbiddenByFirewall",
    text="Client address is not authorized and caller is not a trusted service.\r\n"
    "Client address: {address}\r\nCaller: {caller}\r\nVault: {vault};location={region}",
)
DISABLED = Told(403, "Forbidden", "KeyDisabled", text="Operation {operation} is not allowed on a disabled key.")
OPERATION = Told(403, "Forbidden", "KeyOperationForbidden", text="Operation {operation} is not permitted on this key.")
NO_KEY = Told(
    404,
    "KeyNotFound",
    text="A key with (name/id) {key} was not found in this key vault. "
    "If you recently deleted this key you may be able to recover it using the correct recovery command.",
)
NO_VAULT = Told(404, "VaultNotFound")
UNAUTHORIZED = Told(401, "Unauthorized")
UNEXPECTED = Told(500, "InternalServerError")

BY_CODE: Mapping[str, Told] = {
    "token_missing": Told(401, "Unauthorized", text="AKV10000: Request is missing a Bearer or PoP token."),
    "token_invalid": Told(401, "Unauthorized", prefix="AKV10001: [BearerReadAccessTokenFailed] "),
    "token_expired": Told(401, "Unauthorized", prefix="AKV10002: [TokenExpired] "),
    "token_audience_wrong": Told(401, "Unauthorized", prefix="AKV10022: Invalid audience. "),
    "token_tenant_wrong": Told(401, "Unauthorized", prefix="AKV10032: Invalid issuer. "),
    "vault_access_denied": ACCESS_DENIED,
    "vault_another_tenant": ACCESS_DENIED,
    "vault_firewall": FIREWALL,
    "vault_read_only": Told(403, "Forbidden", "VaultReadOnly"),
    "subscription_cancelled": Told(403, "Forbidden", "ForbiddenByPolicy"),
    "sku_not_supported": Told(400, "BadParameter", "SkuNotSupported", text="Hardware key operation not allowed on standard vault"),
    "key_type_invalid": Told(400, "BadParameter", "KeyTypeNotSupported"),
    "key_disabled": DISABLED,
    "key_type_cannot_wrap": OPERATION,
    "key_operation_not_allowed": OPERATION,
    "key_not_yet_valid": Told(
        403, "Forbidden", "KeyNotYetValid", text="Operation {operation} is not allowed on a key that is not yet valid."
    ),
    "key_expired": Told(403, "Forbidden", "KeyExpired", text="Operation {operation} is not allowed on an expired key."),
    "purge_protected": Told(
        403,
        "Forbidden",
        "ForbiddenByPolicy",
        text='Operation "purge" is not allowed because purge protection is enabled for this vault. '
        "Key Vault service will automatically purge it after the retention period has passed.\r\nVault: {vault};location={region}",
    ),
    "expiry_cannot_be_removed": Told(403, "Forbidden", "ForbiddenByPolicy"),
    "too_many_versions": Told(403, "Forbidden", "ForbiddenByPolicy"),
    "backup_too_large": Told(403, "Forbidden", "ForbiddenByPolicy"),
    "backup_another_tenant": Told(403, "Forbidden", "ForbiddenByPolicy"),
    "backup_another_subscription": Told(403, "Forbidden", "ForbiddenByPolicy"),
    "backup_another_geography": Told(403, "Forbidden", "ForbiddenByPolicy"),
    "release_policy_not_met": Told(403, "Forbidden", "ForbiddenByReleasePolicy"),
    "release_policy_immutable": Told(403, "Forbidden", "ForbiddenByPolicy"),
    "key_not_found": NO_KEY,
    "key_deleted": NO_KEY,
    "deleted_key_not_found": Told(404, "KeyNotFound", text="Deleted Key not found: {name}"),
    "vault_not_found": NO_VAULT,
    "vault_deleted": NO_VAULT,
    "path_not_found": Told(404, "NotFound"),
    "not_offered": Told(400, "NotSupported"),
    "method_not_allowed": Told(405, "MethodNotAllowed"),
    "key_deleted_but_recoverable": Told(
        409,
        "Conflict",
        "ObjectIsDeletedButRecoverable",
        text="Key {name} is currently in a deleted but recoverable state, and its name cannot be reused; "
        "in this state, the key can only be recovered or purged.",
    ),
    "key_already_exists": Told(409, "Conflict", prefix="There was a conflict restoring the key: "),
    "key_changed": Told(409, "Conflict"),
    "vault_throttled": Told(
        429,
        "Throttled",
        "VaultRequestTypeLimitReached",
        text="Request was not processed because too many requests were received. Reason: VaultRequestTypeLimitReached",
    ),
    "unwrap_failed": BAD,
    "backup_damaged": BAD,
    "body_timed_out": Told(408, "RequestTimeout"),
    "request_too_large": Told(413, "RequestTooLarge"),
    "media_type_wrong": Told(415, "UnsupportedMediaType"),
    "headers_too_large": Told(431, "HeadersTooLarge"),
}

BY_CLASS: Mapping[type[KeysteadError], Told] = {
    InvalidRequest: BAD,
    Unauthenticated: UNAUTHORIZED,
    Forbidden: Told(403, "Forbidden", "AccessDenied"),
    PreconditionFailed: Told(403, "Forbidden", "ForbiddenByPolicy"),
    Conflict: Told(409, "Conflict"),
    NotFound: Told(404, "KeyNotFound"),
    Throttled: Told(429, "Throttled"),
    Unavailable: Told(503, "ServiceUnavailable"),
    IntegrityFailure: UNEXPECTED,
    KeysteadError: UNEXPECTED,
}

RETRY_AFTER = 2
"""Seconds after which something unavailable is worth another try."""
STATUSES = tuple(sorted({told.status for told in (*BY_CODE.values(), *BY_CLASS.values())}))


def told(error: KeysteadError) -> Told:
    """How an error is told."""
    found = BY_CODE.get(error.code)
    return found or next(BY_CLASS[kind] for kind in type(error).__mro__ if kind in BY_CLASS)


def error_body(error: KeysteadError, call: Call | None = None) -> bytes:
    """The document of an error. `mend` speaks of the command line, so it is left to those who have one."""
    as_told = told(error)
    if as_told is ACCESS_DENIED and call is not None and call.rbac:
        as_told = NO_ROLE
    return document(as_told, _text(as_told, call) or as_told.prefix + error.detail)


def _text(as_told: Told, call: Call | None) -> str:
    """The text clients know; empty where there is none, or where the call does not name what it is about."""
    if "{" not in as_told.text:
        return as_told.text
    if call is None or (not call.name and ("{name}" in as_told.text or "{key}" in as_told.text)):
        return ""
    return as_told.text.format_map(asdict(call))


def document(as_told: Told, message: str) -> bytes:
    """The document of an error with a text of its own."""
    content: dict[str, object] = {"code": as_told.code, "message": message}
    if as_told.inner:
        content["innererror"] = {"code": as_told.inner}
    return msgspec.json.encode({"error": content})


def retry_after(error: KeysteadError) -> int:
    """Seconds of the header Retry-After; 0: none."""
    if isinstance(error, Throttled):
        return max(1, -(-error.retry_after // 1_000))
    return RETRY_AFTER if isinstance(error, Unavailable) else 0
