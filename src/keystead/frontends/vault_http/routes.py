"""The rows of the keys face: which path and verb is which call, what it takes and gives, and how much of it (docs/spec/vault-http.md).

Paths compare without regard to case but for names; an empty version is the current one, as the clients write it: `/keys/NAME//encrypt`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from keystead.core.errors import InvalidRequest, NotFound
from keystead.core.ids import KEY_NAME, KEY_VERSION
from keystead.core.vaults.access import Permission
from keystead.frontends.vault_http import handlers as h
from keystead.frontends.vault_http import shapes as s

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from keystead.frontends.vault_http.handlers import Asked

SMALL = 64 * 1024
"""Bytes of a request's body; a tag list of the largest size fits."""
LARGE = 8 * 1024 * 1024
"""Bytes of the largest backup with its base64url, and room around it."""

API_VERSIONS = {"2016-10-01": 0, "7.0": 0, "7.1": 1, "7.2": 2, "7.3": 3, "7.4": 4, "7.5": 5, "7.6": 6, "2025-07-01": 7}
"""Versions that are spoken, and how far each goes: later ones only add members."""


@dataclass(frozen=True, slots=True)
class Row:
    """One call.

    Attributes:
        name: of the operation in the OpenAPI document.
        operation: as the vault's log calls it (R-068).
        needs: the permission it takes (R-037); the use case asks for it, and the text of a refusal names it.
        method: HTTP's.
        path: with `{name}` and `{version}`.
        handler: runs it in a thread; None is answered as 204.
        takes: shape of the body; None: none is needed, and what comes is passed over.
        gives: shape of the answer; None: 204.
        queries: of a listing: maxresults and $skiptoken.
        statuses: beside those that every call may answer with.
        most: bytes of the body.
        since: of API_VERSIONS.
        heavy: takes up to seconds of a processor: makes keys, or handles all versions of one.
    """

    name: str
    operation: str
    needs: Permission
    method: str
    path: str
    handler: Callable[[Asked, Any], object]
    takes: type[s.Shape] | None = None
    gives: type[Any] | None = s.KeyOut
    queries: bool = False
    statuses: tuple[int, ...] = ()
    most: int = SMALL
    since: int = 0
    heavy: bool = False


def _both(row: Row) -> tuple[Row, Row]:
    """The row, and the same for the current version, whose path leaves the version out."""
    return row, Row(
        f"{row.name}Current",
        row.operation,
        row.needs,
        row.method,
        row.path.replace("/{version}", ""),
        row.handler,
        row.takes,
        row.gives,
        row.queries,
        row.statuses,
        row.most,
        row.since,
    )


def _operate(name: str, operation: str, handler: Callable[[Asked, Any], object]) -> tuple[Row, Row]:
    return _both(
        Row(name, operation, Permission(name), "POST", f"/keys/{{name}}/{{version}}/{name.lower()}", handler, s.OperateIn, s.ResultOut)
    )


ROWS: tuple[Row, ...] = (
    Row("createKey", "KeyCreate", Permission.CREATE, "POST", "/keys/{name}/create", h.create, s.CreateIn, statuses=(409,), heavy=True),
    Row("importKey", "KeyImport", Permission.IMPORT, "PUT", "/keys/{name}", h.import_, s.ImportIn, statuses=(409,), heavy=True),
    Row("getKeys", "KeyList", Permission.LIST, "GET", "/keys", h.list_keys, gives=s.KeyPage, queries=True),
    Row(
        "getKeyVersions", "KeyListVersions", Permission.LIST, "GET", "/keys/{name}/versions", h.list_versions, gives=s.KeyPage, queries=True
    ),
    *_both(Row("getKey", "KeyGet", Permission.GET, "GET", "/keys/{name}/{version}", h.get)),
    *_both(Row("updateKey", "KeyUpdate", Permission.UPDATE, "PATCH", "/keys/{name}/{version}", h.update, s.UpdateIn)),
    Row("deleteKey", "KeyDelete", Permission.DELETE, "DELETE", "/keys/{name}", h.delete, gives=s.DeletedKeyOut),
    Row("getDeletedKeys", "KeyListDeleted", Permission.LIST, "GET", "/deletedkeys", h.list_deleted, gives=s.DeletedKeyPage, queries=True),
    Row("getDeletedKey", "KeyGetDeleted", Permission.GET, "GET", "/deletedkeys/{name}", h.get_deleted, gives=s.DeletedKeyOut),
    Row("purgeDeletedKey", "KeyPurge", Permission.PURGE, "DELETE", "/deletedkeys/{name}", h.purge, gives=None),
    Row("recoverDeletedKey", "KeyRecover", Permission.RECOVER, "POST", "/deletedkeys/{name}/recover", h.recover),
    Row("backupKey", "KeyBackup", Permission.BACKUP, "POST", "/keys/{name}/backup", h.backup, gives=s.ValueOut, heavy=True),
    Row(
        "restoreKey",
        "KeyRestore",
        Permission.RESTORE,
        "POST",
        "/keys/restore",
        h.restore,
        s.RestoreIn,
        statuses=(409,),
        most=LARGE,
        heavy=True,
    ),
    Row("rotateKey", "KeyRotate", Permission.ROTATE, "POST", "/keys/{name}/rotate", h.rotate, statuses=(409,), since=3, heavy=True),
    Row(
        "getKeyRotationPolicy",
        "KeyRotationPolicyGet",
        Permission.GET_ROTATION_POLICY,
        "GET",
        "/keys/{name}/rotationpolicy",
        h.get_rotation_policy,
        gives=s.RotationPolicyOut,
        since=3,
    ),
    Row(
        "updateKeyRotationPolicy",
        "KeyRotationPolicySet",
        Permission.SET_ROTATION_POLICY,
        "PUT",
        "/keys/{name}/rotationpolicy",
        h.set_rotation_policy,
        s.RotationPolicyIn,
        s.RotationPolicyOut,
        since=3,
    ),
    *_operate("encrypt", "KeyEncrypt", h.encrypt),
    *_operate("decrypt", "KeyDecrypt", h.decrypt),
    *_operate("wrapKey", "KeyWrap", h.wrap_key),
    *_operate("unwrapKey", "KeyUnwrap", h.unwrap_key),
    *_both(Row("sign", "KeySign", Permission.SIGN, "POST", "/keys/{name}/{version}/sign", h.sign, s.SignIn, s.ResultOut)),
    *_both(Row("verify", "KeyVerify", Permission.VERIFY, "POST", "/keys/{name}/{version}/verify", h.verify, s.VerifyIn, s.VerifiedOut)),
    *_both(
        Row(
            "release",
            "KeyRelease",
            Permission.RELEASE,
            "POST",
            "/keys/{name}/{version}/release",
            h.release_key,
            s.ReleaseIn,
            s.ValueOut,
            since=3,
        )
    ),
    *_both(Row("getKeyAttestation", "KeyGetAttestation", Permission.GET, "GET", "/keys/{name}/{version}/attestation", h.attest, since=6)),
    Row("getRandomBytes", "RandomBytesGet", Permission.GET, "POST", "/rng", h.random_bytes, s.RandomIn, s.ValueOut, since=2),
)

HERE = ("keys", "deletedkeys")
ELSEWHERE = ("secrets", "deletedsecrets", "certificates", "deletedcertificates", "storage", "deletedstorage")
"""What vaults of this kind also hold elsewhere, and this one does not."""


@dataclass(slots=True)
class _Node:
    rows: dict[str, Row] = field(default_factory=dict)
    literal: dict[str, _Node] = field(default_factory=dict)
    member: _Node | None = None
    member_name: str = ""


def _tree() -> _Node:
    root = _Node()
    for row in ROWS:
        node = root
        for part in row.path[1:].split("/"):
            if part.startswith("{"):
                node.member = node.member or _Node()
                node.member_name = part[1:-1]
                node = node.member
            else:
                node = node.literal.setdefault(part, _Node())
        node.rows[row.method] = row
    return root


_ROOT = _tree()


def find(method: str, raw_path: bytes) -> tuple[Row, Mapping[str, str]]:
    """The row of a request, and what its path names.

    Raises:
        NotFound: `path_not_found`.
        InvalidRequest: `not_offered`; `operation_not_allowed`; `method_not_allowed`.
    """
    return _found_before(method, raw_path) if len(raw_path) <= USUAL_PATH else _find(method, raw_path)


def _find(method: str, raw_path: bytes) -> tuple[Row, Mapping[str, str]]:
    parts = _parts(raw_path)
    found = _nodes(parts)
    last = parts[-1]
    operation = last if len(parts) > 2 and parts[0].lower() in HERE and not KEY_VERSION.fullmatch(last.lower()) else ""
    for node, named in found:
        if method in node.rows and not (operation and named.get("version") == operation):
            return node.rows[method], named
    if operation:
        # One that there is not, one of another method, or no version: so the services tell it.
        raise InvalidRequest(
            "operation_not_allowed",
            f"Method {method[:16]} does not allow operation '{operation[:64]}'",
            "docs/spec/vault-http.md lists all",
        )
    if found:
        raise InvalidRequest("method_not_allowed", f"this path does not take {method[:16]}", f"it takes {', '.join(allowed(raw_path))}")
    if parts[0].lower() in ELSEWHERE:
        raise InvalidRequest("not_offered", f"this vault holds keys only: {parts[0].lower()} are not offered here", "keep them elsewhere")
    raise NotFound("path_not_found", "there is nothing at this path", "docs/spec/vault-http.md lists all")


_found_before = lru_cache(maxsize=1_024)(_find)
"""Programs ask for the same few keys again and again; what is refused is not kept."""
USUAL_PATH = 256
"""Bytes of a path that is kept."""


def allowed(raw_path: bytes) -> tuple[str, ...]:
    """The methods a path takes."""
    return tuple(sorted({method for node, _ in _nodes(_parts(raw_path)) for method in node.rows}))


def _parts(raw_path: bytes) -> list[str]:
    """A path at its slashes, each part decoded after that: nothing in it is resolved."""
    parts = raw_path.decode("latin-1")[1:].split("/")
    if b"%" in raw_path:
        parts = [unquote(part, errors="replace") for part in parts]
    if len(parts) > 1 and not parts[-1]:
        del parts[-1]  # a slash at the end: the version is left empty, or means nothing
    return parts


def _nodes(parts: list[str]) -> list[tuple[_Node, dict[str, str]]]:
    found: list[tuple[_Node, dict[str, str]]] = []
    _walk(_ROOT, parts, {}, found)
    return found


def _walk(node: _Node, parts: list[str], named: dict[str, str], found: list[tuple[_Node, dict[str, str]]]) -> None:
    """Every node the parts lead to, words before names: the depth is that of the table, at most four."""
    if not parts:
        if node.rows:
            found.append((node, named))
        return
    word = node.literal.get(parts[0].lower())
    if word is not None:
        _walk(word, parts[1:], named, found)
    if node.member is not None and (parts[0] or node.member_name == "version"):
        _walk(node.member, parts[1:], {**named, node.member_name: parts[0]}, found)


def place(named: Mapping[str, str]) -> tuple[str, str | None]:
    """The key a path names, and its version, None for the current one.

    Raises:
        InvalidRequest: `key_name_invalid`, `key_version_invalid`.
    """
    return _place(named.get("name"), named.get("version", ""))


@lru_cache(maxsize=1_024)
def _place(name: str | None, version: str) -> tuple[str, str | None]:
    """The same of its parts. Kept as `find` keeps paths; what is refused is not."""
    version = version.lower()
    if version and not KEY_VERSION.fullmatch(version):
        raise InvalidRequest("key_version_invalid", f"{version[:64]!r} is not a version of a key", "give 32 hexadecimal digits")
    if name is not None and not KEY_NAME.fullmatch(name):
        raise InvalidRequest("key_name_invalid", f"The request URI contains an invalid name: {name[:127]}", "use letters, digits and '-'")
    return name or "", version or None
