"""What programs written for the service this face stands in for see beside the SDK's objects: recorded answers of that service, word for word."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from keystead.api.types import vaults as t
from keystead.core.errors import Conflict, Forbidden, PreconditionFailed, Throttled
from keystead.core.vaults.access import Permission
from keystead.core.vaults.jwk import decode, encode
from keystead.frontends.vault_http.errors import Call, error_body
from keystead.frontends.vault_http.routes import ROWS
from keystead.vault import management
from vault.world import TENANT
from vault_http.face import AUTHORITY, VAULT
from vault_http.test_sdk_keys import rsa_jwk
from vault_http.test_who_may import BODIES

if TYPE_CHECKING:
    from keystead.core.errors import KeysteadError
    from vault_http.face import Face, Reply

pytestmark = pytest.mark.xdist_group("vault-face-compatibility")

EC = {"kty": "EC"}
WRAP = {"alg": "RSA-OAEP-256", "value": encode(b"0123456789abcdef")}
NOT_FOUND = (
    "A key with (name/id) {} was not found in this key vault. "
    "If you recently deleted this key you may be able to recover it using the correct recovery command."
)
IN_THE_WAY = (
    "Key {} is currently in a deleted but recoverable state, and its name cannot be reused; "
    "in this state, the key can only be recovered or purged."
)
PROTECTED = (
    'Operation "purge" is not allowed because purge protection is enabled for this vault. '
    "Key Vault service will automatically purge it after the retention period has passed."
)


def told(reply: Reply, status: int, code: str, message: str, inner: str | None = None) -> None:
    assert reply.status == status, reply.raw
    error: dict[str, Any] = {"code": code, "message": message}
    if inner is not None:
        error["innererror"] = {"code": inner}
    assert reply.body == {"error": error}


def versions(face: Face, name: str) -> list[str]:
    """All versions, over pages of two."""
    found: list[str] = []
    path = f"/keys/{name}/versions?maxresults=2"
    while path:
        page = face.ask("GET", path, version=None if "api-version" in path else "7.6").body
        found += [one["kid"].rpartition("/")[2] for one in page["value"]]
        path = "" if page["nextLink"] is None else page["nextLink"].removeprefix(face.url)
    return found


def test_a_key_that_is_not_there_has_no_versions(face: Face) -> None:
    for name in ("never-there", "was-there"):
        if name == "was-there":
            face.new_key(name, kty="EC")
            face.ask("DELETE", f"/keys/{name}")
        reply = face.ask("GET", f"/keys/{name}/versions")
        assert (reply.status, reply.body) == (200, {"value": [], "nextLink": None})
        last = face.world.log()[-1]
        assert (last.operation_name, last.properties.http_status_code) == ("KeyListVersions", 200)
    nobody = face.client_of("lists-nothing", frozenset())
    assert face.ask("GET", "/keys/never-there/versions", who=nobody).status == 403


def test_versions_come_by_their_ids_and_not_by_their_age_R_021(face: Face) -> None:
    made = [face.new_key("aged", kty="EC").version for _ in range(7)]
    assert versions(face, "aged") == sorted(made)


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ([], [("Notify", "P30D")]),
        ([{"trigger": {"timeAfterCreate": "P2M"}, "action": {"type": "Rotate"}}], [("Rotate", "P2M"), ("Notify", "P30D")]),
        ([{"trigger": {"timeBeforeExpiry": "P60D"}, "action": {"type": "notify"}}], [("Notify", "P60D")]),
    ],
    ids=["nothing", "rotate", "notify"],
)
def test_a_rotation_policy_always_has_a_notice_R_035(face: Face, given: list[object], kept: list[tuple[str, str]]) -> None:
    face.new_key("noticed", kty="EC")
    put = face.ask("PUT", "/keys/noticed/rotationpolicy", {"lifetimeActions": given, "attributes": {}})
    assert put.status == 200
    assert put.body == face.ask("GET", "/keys/noticed/rotationpolicy").body
    assert [(one["action"]["type"], next(iter(one["trigger"].values()))) for one in put.body["lifetimeActions"]] == kept
    assert set(put.body["attributes"]) == {"created", "updated"}


@pytest.mark.parametrize(
    ("method", "path", "operation"),
    [
        ("GET", "/keys/any/latest", "latest"),
        ("PATCH", "/keys/any/versions", "versions"),
        ("POST", "/keys/any/exportkey", "exportkey"),
        ("POST", f"/keys/any/{'0' * 32}/exportkey", "exportkey"),
        ("DELETE", "/keys/any/create", "create"),
        ("GET", f"/keys/any/{'0' * 32}/encrypt", "encrypt"),
        ("DELETE", "/deletedkeys/any/purge", "purge"),
    ],
)
def test_operations_that_there_are_not(face: Face, method: str, path: str, operation: str) -> None:
    told(face.ask(method, path), 400, "BadParameter", f"Method {method} does not allow operation '{operation}'")


@pytest.mark.parametrize("kty", ["oct", "oct-HSM", "OKP", "RSA2"])
def test_types_that_a_vault_does_not_make_R_023(face: Face, kty: str) -> None:
    told(face.ask("POST", "/keys/any/create", {"kty": kty}), 400, "BadParameter", f"Invalid kty value: {kty}", "KeyTypeNotSupported")


def test_names_that_are_none_R_019(face: Face) -> None:
    told(face.ask("POST", "/keys/any_name/create", EC), 400, "BadParameter", "The request URI contains an invalid name: any_name")


def test_a_restore_over_a_key_that_is_there_R_060(face: Face) -> None:
    face.new_key("restored", kty="EC")
    blob = face.ask("POST", "/keys/restored/backup").body["value"]
    reply = face.ask("POST", "/keys/restore", {"value": blob})
    assert (reply.status, reply.code) == (409, "Conflict")
    assert reply.body["error"]["message"].startswith("There was a conflict restoring the key")
    face.ask("DELETE", "/keys/restored")
    assert face.ask("POST", "/keys/restore", {"value": blob}).inner == "ObjectIsDeletedButRecoverable"


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (
            PreconditionFailed("purge_protected", "ours"),
            f"{PROTECTED}\r\nVault: v;location=westeurope",
        ),
        (PreconditionFailed("sku_not_supported", "ours"), "Hardware key operation not allowed on standard vault"),
        (
            Throttled("vault_throttled", "ours", retry_after=1_000),
            "Request was not processed because too many requests were received. Reason: VaultRequestTypeLimitReached",
        ),
        (Forbidden("release_policy_not_met", "ours"), "ours"),
    ],
    ids=lambda value: getattr(value, "code", ""),
)
def test_other_words_programs_look_for(error: KeysteadError, message: str) -> None:
    call = Call("purgeDeletedKey", "purge", "any", "any", "v", "westeurope", "appid=x", "127.0.0.1")
    assert json.loads(error_body(error, call))["error"]["message"] == message


def test_a_text_never_stands_with_a_name_that_is_not_there() -> None:
    """A restore names no key in its path: then our own words are told, and no sentence with a hole."""
    call = Call("restoreKey", "restore", "", "", "v", "westeurope", "appid=x", "127.0.0.1")
    held = Conflict("key_deleted_but_recoverable", "the name x is held")
    assert json.loads(error_body(held, call))["error"]["message"] == "the name x is held"
    assert json.loads(error_body(held))["error"]["message"] == "the name x is held"


def test_no_token_R_038(face: Face) -> None:
    told(face.ask("GET", "/keys", token=""), 401, "Unauthorized", "AKV10000: Request is missing a Bearer or PoP token.")


def test_keys_that_are_not_there_R_022_R_048(face: Face) -> None:
    face.new_key("there", kty="EC")
    missing = "0" * 32
    for method, path in (("GET", "/keys/Nowhere/"), ("POST", "/keys/Nowhere/backup"), ("GET", "/keys/Nowhere/rotationpolicy")):
        told(face.ask(method, path), 404, "KeyNotFound", NOT_FOUND.format("Nowhere"))
    told(face.ask("GET", f"/keys/there/{missing}"), 404, "KeyNotFound", NOT_FOUND.format(f"there/{missing}"))
    told(face.ask("POST", f"/keys/there/{missing}/wrapkey", WRAP), 404, "KeyNotFound", NOT_FOUND.format(f"there/{missing}"))
    for method, path in (("GET", "/deletedkeys/there"), ("DELETE", "/deletedkeys/there"), ("POST", "/deletedkeys/there/recover")):
        told(face.ask(method, path), 404, "KeyNotFound", "Deleted Key not found: there")


def test_a_deleted_key_holds_its_name_R_048_R_049(face: Face) -> None:
    face.new_key("held", kty="EC")
    face.ask("DELETE", "/keys/held")
    told(face.ask("POST", "/keys/held/create", EC), 409, "Conflict", IN_THE_WAY.format("held"), "ObjectIsDeletedButRecoverable")
    for method, path in (("GET", "/keys/held"), ("DELETE", "/keys/held"), ("PATCH", "/keys/held")):
        told(face.ask(method, path, {}), 404, "KeyNotFound", NOT_FOUND.format("held"))


def test_keys_that_do_not_do_it_R_024_R_028_R_029_R_030(face: Face) -> None:
    face.new_key("narrow", ops=["encrypt"])
    told(
        face.ask("POST", "/keys/narrow/wrapkey", WRAP),
        403,
        "Forbidden",
        "Operation wrapKey is not permitted on this key.",
        "KeyOperationForbidden",
    )
    face.ask("PATCH", "/keys/narrow", {"attributes": {"enabled": False}})
    told(
        face.ask("POST", "/keys/narrow/encrypt", WRAP),
        403,
        "Forbidden",
        "Operation encrypt is not allowed on a disabled key.",
        "KeyDisabled",
    )
    assert face.ask("GET", "/keys/narrow").body["attributes"]["enabled"] is False, "a disabled key can be looked at"
    face.new_key("curved", kty="EC")
    told(
        face.ask("POST", "/keys/curved/wrapkey", WRAP),
        403,
        "Forbidden",
        "Operation wrapKey is not permitted on this key.",
        "KeyOperationForbidden",
    )
    now = face.world.clock.now() // 1_000
    face.ask("POST", "/keys/early/create", {"kty": "RSA", "attributes": {"nbf": now + 3_600}})
    early = face.ask("POST", "/keys/early/encrypt", WRAP)
    told(early, 403, "Forbidden", "Operation encrypt is not allowed on a key that is not yet valid.", "KeyNotYetValid")
    face.ask("POST", "/keys/late/create", {"kty": "RSA", "attributes": {"nbf": now - 7_200, "exp": now - 3_600}})
    late = face.ask("POST", "/keys/late/encrypt", WRAP)
    told(late, 403, "Forbidden", "Operation encrypt is not allowed on an expired key.", "KeyExpired")


def test_a_missing_permission_is_named_and_nothing_else_is_R_037(face: Face) -> None:
    face.new_key("secret-name", kty="EC")
    nobody = face.client_of("names-nothing", frozenset())
    caller = f"appid={nobody.id};oid={nobody.id};iss={AUTHORITY}/{TENANT}/v2.0"
    seen = set()
    for name in ("secret-name", "never-there"):
        reply = face.ask("GET", f"/keys/{name}/", who=nobody)
        message = f"The user, group or application '{caller}' does not have keys get permission on key vault '{VAULT};location=westeurope'."
        told(reply, 403, "Forbidden", message, "AccessDenied")
        seen.add(reply.raw)
    assert len(seen) == 1


def test_every_refusal_names_the_permission_that_would_have_let_the_call_through_R_037(face: Face) -> None:
    """The rows name what the use cases ask for: with it alone a call is not refused for want of it, with all others it is."""
    face.new_key("open", kty="EC")
    for row in ROWS:
        path = row.path.replace("{name}", "open").replace("{version}", "0" * 32)
        body = None if row.takes is None else BODIES[row.takes.__name__]
        without = face.client_of(f"not-{row.name}", frozenset(Permission) - {row.needs})
        refused = face.ask(row.method, path, body, who=without)
        assert (refused.status, refused.inner) == (403, "AccessDenied"), row.name
        assert f"does not have keys {row.needs} permission" in refused.body["error"]["message"], row.name


def test_a_firewall_says_so_R_043(face: Face) -> None:
    caller = face.client_of("outside", frozenset(Permission))
    vault, owner = face.world.vault, face.world.call()
    management.set_default(vault, owner, t.NetworkDefault(vault=VAULT, action="Deny"))
    try:
        reply = face.ask("GET", "/keys", who=caller)
    finally:
        management.set_default(vault, owner, t.NetworkDefault(vault=VAULT, action="Allow"))
    lines = [
        "Client address is not authorized and caller is not a trusted service.",
        "Client address: 127.0.0.1",
        f"Caller: appid={caller.id};oid={caller.id};iss={AUTHORITY}/{TENANT}/v2.0",
        f"Vault: {VAULT};location=westeurope",
    ]
    told(reply, 403, "Forbidden", "\r\n".join(lines), "ForbiddenByFirewall")


def test_an_update_changes_what_it_names_R_020(face: Face) -> None:
    """PATCH of one member leaves the others; null is no member; tags are replaced as a whole."""
    made = face.ask("POST", "/keys/patched/create", {"kty": "RSA", "tags": {"a": "1"}, "attributes": {"exp": 2_524_723_200}}).body
    assert face.ask("PATCH", "/keys/patched/", {"tags": None, "attributes": None, "key_ops": None}).body == made
    changed = face.ask("PATCH", "/keys/patched/", {"key_ops": ["decrypt", "encrypt"], "attributes": {"enabled": True, "exp": None}}).body
    assert set(changed["key"]["key_ops"]) == {"decrypt", "encrypt"}
    assert (changed["attributes"], changed["tags"]) == (made["attributes"], {"a": "1"})
    assert face.ask("PATCH", "/keys/patched/", {"tags": {"b": "2"}}).body["tags"] == {"b": "2"}
    assert "tags" not in face.ask("PATCH", "/keys/patched/", {"tags": {}}).body


def test_what_is_chosen_where_nothing_is_said_R_023(face: Face) -> None:
    every = ["encrypt", "decrypt", "sign", "verify", "wrapKey", "unwrapKey"]
    made = face.ask("POST", "/keys/plain-rsa/create", {"kty": "RSA"}).body
    assert (made["key"]["key_ops"], made["key"]["e"], len(decode(made["key"]["n"]))) == (every, "AQAB", 256)
    assert set(made["attributes"]) == {"enabled", "created", "updated", "recoveryLevel", "recoverableDays", "exportable", "hsmPlatform"}
    assert set(made) == {"key", "attributes"}
    made = face.ask("POST", "/keys/plain-ec/create", EC).body
    assert (made["key"]["key_ops"], made["key"]["crv"]) == (["sign", "verify"], "P-256")
    given = {name: encode(value) for name, value in vars(rsa_jwk()).items() if isinstance(value, bytes)}
    padded = {**given, "kty": "RSA", "n": encode(b"\0" + decode(given["n"]))}
    brought = face.ask("PUT", "/keys/plain-import", {"key": padded}).body
    assert (brought["key"]["key_ops"], brought["key"]["n"], brought["attributes"]["enabled"]) == (every, given["n"], True)


def test_what_a_deleted_key_tells_R_047(face: Face) -> None:
    made = face.ask("POST", "/keys/gone/create", EC).body
    deleted = face.ask("DELETE", "/keys/gone").body
    when = deleted["deletedDate"]
    assert deleted == {**made, "recoveryId": f"{face.url}/deletedkeys/gone", "deletedDate": when, "scheduledPurgeDate": when + 90 * 86_400}
    assert face.ask("GET", "/deletedkeys/gone").body == deleted
    line = next(one for one in face.ask("GET", "/deletedkeys").body["value"] if one["kid"] == f"{face.url}/keys/gone")
    assert line == {name: value for name, value in deleted.items() if name != "key"} | {"kid": f"{face.url}/keys/gone"}
    assert face.ask("POST", "/deletedkeys/gone/recover").body == made
    face.ask("DELETE", "/keys/gone")
    purged = face.ask("DELETE", "/deletedkeys/gone")
    assert (purged.status, purged.raw, "content-type" in purged.headers) == (204, b"", False)
