"""The one table of everything a client can ask for.

Each row declares who may call it (by its name in `keystead.core.access.roles.ALLOWED`), about what (scope), the largest body, the
time limit and the types, next to the handler, so that a reviewer sees the limits in one place. Both transports run exactly these rows;
OpenAPI is made from them. A handler is named as MODULE:FUNCTION and loaded when first called, so a command pays only for what it uses.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from keystead.api.types import vaults
from keystead.api.types.base import Empty

if TYPE_CHECKING:
    from typing import Any

KIB = 1024
MIB = 1024 * KIB


class Scope(StrEnum):
    """What a route is about."""

    PUBLIC = "public"
    """Anybody, signed in or not."""
    PROVIDER = "provider"
    """The installation itself: no tenant."""
    TENANT = "tenant"
    """Exactly one tenant, which the caller must belong to (or configure, as the operator of a dev home)."""


class Side(StrEnum):
    """Which half of the house answers: they share no database and never call one another."""

    SERVICE = "service"
    VAULT = "vault"


class Body(StrEnum):
    """How request and response travel."""

    JSON = "json"
    BATCH = "batch"
    """The request is MessagePack, because it carries message bytes."""
    UPLOAD = "upload"
    """The request body is one stream of bytes; the other fields travel as path and query."""
    DOWNLOAD = "download"
    """The response is one stream of bytes."""


@dataclass(frozen=True, slots=True)
class Route:
    """One row. `max_body` in bytes; `timeout` in seconds, for the whole call.

    `path` carries fields of the request in braces; the rest of a GET request travels as query.
    """

    name: str
    method: str
    path: str
    handler: str
    request: type[Any]
    response: type[Any]
    scope: Scope = Scope.TENANT
    side: Side = Side.SERVICE
    body: Body = Body.JSON
    max_body: int = 64 * KIB
    timeout: float = 30.0
    changes: bool = True
    """Whether the call changes anything: what `--what-if` stops."""


def _vault_route(
    name: str, endpoint: str, handler: str, types: tuple[Any, Any], *, changes: bool = True, max_body: int = 64 * KIB
) -> Route:
    """A row of the vault half; every one of them is about one tenant."""
    method, path = endpoint.split(" ")
    return Route(
        name,
        method,
        "/v1/tenants/{tenant}" + path,
        f"keystead.vault.{handler}",
        request=types[0],
        response=types[1],
        side=Side.VAULT,
        changes=changes,
        max_body=max_body,
    )


VAULT_ROUTES: tuple[Route, ...] = (
    _vault_route(
        "subscription.create", "POST /subscriptions", "subscriptions:create", (vaults.SubscriptionCreate, vaults.SubscriptionView)
    ),
    _vault_route(
        "subscription.list", "GET /subscriptions", "subscriptions:list_all", (Empty, list[vaults.SubscriptionView]), changes=False
    ),
    _vault_route(
        "subscription.protect",
        "POST /subscriptions/{name}/protect",
        "subscriptions:protect",
        (vaults.SubscriptionNamed, vaults.SubscriptionView),
    ),
    _vault_route(
        "subscription.cancel",
        "POST /subscriptions/{name}/cancel",
        "subscriptions:cancel",
        (vaults.SubscriptionNamed, vaults.SubscriptionView),
    ),
    _vault_route("vault.create", "POST /vaults", "vaults:create", (vaults.VaultCreate, vaults.VaultView)),
    _vault_route("vault.list", "GET /vaults", "vaults:list_all", (Empty, list[vaults.VaultView]), changes=False),
    _vault_route("vault.show", "GET /vaults/{vault}", "vaults:show", (vaults.VaultNamed, vaults.VaultView), changes=False),
    _vault_route("vault.delete", "DELETE /vaults/{vault}", "vaults:delete", (vaults.VaultNamed, vaults.VaultView)),
    _vault_route("vault.deleted", "GET /deleted-vaults", "vaults:list_deleted", (Empty, list[vaults.VaultView]), changes=False),
    _vault_route("vault.recover", "POST /deleted-vaults/{vault}/recover", "vaults:recover", (vaults.VaultNamed, vaults.VaultView)),
    _vault_route("vault.purge", "DELETE /deleted-vaults/{vault}", "vaults:purge", (vaults.VaultNamed, vaults.Purged)),
    _vault_route("vault.log", "GET /vaults/{vault}/log", "vaults:log", (vaults.VaultLogQuery, list[vaults.VaultLogEntry]), changes=False),
    _vault_route(
        "vault.access.list", "GET /vaults/{vault}/access", "access:list_all", (vaults.VaultNamed, list[vaults.AccessView]), changes=False
    ),
    _vault_route("vault.access.grant", "POST /vaults/{vault}/access/grant", "access:grant", (vaults.AccessGrant, vaults.AccessView)),
    _vault_route("vault.access.revoke", "POST /vaults/{vault}/access/revoke", "access:revoke", (vaults.AccessRevoke, vaults.AccessView)),
    _vault_route("key.create", "POST /vaults/{vault}/keys", "keys:create", (vaults.KeyCreate, vaults.KeyView)),
    _vault_route("key.import", "PUT /vaults/{vault}/keys/{name}", "keys:import_", (vaults.KeyImport, vaults.KeyView)),
    _vault_route("key.list", "GET /vaults/{vault}/keys", "keys:list_all", (vaults.KeyList, list[vaults.KeyView]), changes=False),
    _vault_route("key.show", "GET /vaults/{vault}/keys/{name}", "keys:show", (vaults.KeyVersionNamed, vaults.KeyView), changes=False),
    _vault_route(
        "key.versions",
        "GET /vaults/{vault}/keys/{name}/versions",
        "keys:list_versions",
        (vaults.KeyNamed, list[vaults.KeyView]),
        changes=False,
    ),
    _vault_route("key.enable", "POST /vaults/{vault}/keys/{name}/enable", "keys:enable", (vaults.KeyVersionNamed, vaults.KeyView)),
    _vault_route("key.disable", "POST /vaults/{vault}/keys/{name}/disable", "keys:disable", (vaults.KeyVersionNamed, vaults.KeyView)),
    _vault_route("key.update", "PATCH /vaults/{vault}/keys/{name}", "keys:update", (vaults.KeyUpdate, vaults.KeyView)),
    _vault_route("key.rotate", "POST /vaults/{vault}/keys/{name}/rotate", "keys:rotate", (vaults.KeyNamed, vaults.KeyView)),
    _vault_route(
        "key.backup", "POST /vaults/{vault}/keys/{name}/backup", "backup:backup", (vaults.KeyNamed, vaults.KeyBackupView), changes=False
    ),
    _vault_route("key.restore", "POST /vaults/{vault}/restore", "backup:restore", (vaults.KeyRestore, vaults.KeyView), max_body=8 * MIB),
    _vault_route("key.delete", "DELETE /vaults/{vault}/keys/{name}", "keys:delete", (vaults.KeyNamed, vaults.KeyView)),
    _vault_route(
        "key.deleted", "GET /vaults/{vault}/deleted-keys", "keys:list_deleted", (vaults.VaultNamed, list[vaults.KeyView]), changes=False
    ),
    _vault_route("key.recover", "POST /vaults/{vault}/deleted-keys/{name}/recover", "keys:recover", (vaults.KeyNamed, vaults.KeyView)),
    _vault_route("key.purge", "DELETE /vaults/{vault}/deleted-keys/{name}", "keys:purge", (vaults.KeyNamed, vaults.Purged)),
)
"""Subscriptions, key vaults, keys. A backup of 500 versions of RSA-4096 keys is some 3 MiB in base64."""
