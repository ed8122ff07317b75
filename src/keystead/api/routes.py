"""The one table of everything a client can ask for.

Each row declares who may call it (by its name in `keystead.core.access.roles.ALLOWED`), about what (scope), the largest body, the
time limit and the types, next to the handler, so that a reviewer sees the limits in one place. Both transports run exactly these rows;
OpenAPI is made from them. A handler is named as MODULE:FUNCTION and loaded when first called, so a command pays only for what it uses.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from keystead.api.call import Content
from keystead.api.types import file_policies, mailboxes, policies, sites, tenants, tokens, vault_clients, vaults, watching
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


def _files_route(name: str, endpoint: str, handler: str, request: type[Any], *, changes: bool = True, timeout: float = 30.0) -> Route:
    """A row about the policy of a geo's files; the answer is how it stands."""
    method, verb = endpoint.split(" ")
    return Route(
        name,
        method,
        "/v1/tenants/{tenant}/files/" + verb,
        f"keystead.services.file_policies:{handler}",
        request,
        file_policies.FilesStatus,
        timeout=timeout,
        changes=changes,
    )


def _site_route(
    name: str,
    endpoint: str,
    handler: str,
    types: tuple[Any, Any],
    *,
    body: Body = Body.JSON,
    changes: bool = True,
    max_body: int = 64 * KIB,
    timeout: float = 30.0,
) -> Route:
    """A row about a site; every one of them is about one tenant."""
    method, path = endpoint.split(" ")
    return Route(
        name,
        method,
        "/v1/tenants/{tenant}" + path,
        f"keystead.services.{handler}",
        request=types[0],
        response=types[1],
        body=body,
        max_body=max_body,
        timeout=timeout,
        changes=changes,
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
    _vault_route("vault.protect", "POST /vaults/{vault}/protect", "management:protect", (vaults.VaultNamed, vaults.VaultView)),
    _vault_route("vault.fail-over", "PUT /vaults/{vault}/fail-over", "management:fail_over", (vaults.FailOver, vaults.VaultView)),
    _vault_route(
        "vault.network.show",
        "GET /vaults/{vault}/network",
        "management:show_network",
        (vaults.VaultNamed, vaults.NetworkView),
        changes=False,
    ),
    _vault_route(
        "vault.network.allow", "POST /vaults/{vault}/network/allow", "management:allow_range", (vaults.NetworkRange, vaults.NetworkView)
    ),
    _vault_route(
        "vault.network.remove", "POST /vaults/{vault}/network/remove", "management:remove_range", (vaults.NetworkRange, vaults.NetworkView)
    ),
    _vault_route(
        "vault.network.default", "PUT /vaults/{vault}/network", "management:set_default", (vaults.NetworkDefault, vaults.NetworkView)
    ),
    _vault_route("vault.log", "GET /vaults/{vault}/log", "vaults:log", (vaults.VaultLogQuery, list[vaults.VaultLogEntry]), changes=False),
    _vault_route(
        "vault.access.list", "GET /vaults/{vault}/access", "access:list_all", (vaults.VaultNamed, list[vaults.AccessView]), changes=False
    ),
    _vault_route("vault.access.grant", "POST /vaults/{vault}/access/grant", "access:grant", (vaults.AccessGrant, vaults.AccessView)),
    _vault_route("vault.access.revoke", "POST /vaults/{vault}/access/revoke", "access:revoke", (vaults.AccessRevoke, vaults.AccessView)),
    _vault_route(
        "vault.client.create", "POST /vault-clients", "clients:create", (vault_clients.ClientCreate, vault_clients.ClientSecretShown)
    ),
    _vault_route("vault.client.list", "GET /vault-clients", "clients:list_all", (Empty, list[vault_clients.ClientView]), changes=False),
    _vault_route(
        "vault.client.show",
        "GET /vault-clients/{client}",
        "clients:show",
        (vault_clients.ClientNamed, vault_clients.ClientView),
        changes=False,
    ),
    _vault_route("vault.client.delete", "DELETE /vault-clients/{client}", "clients:delete", (vault_clients.ClientNamed, tenants.Done)),
    _vault_route(
        "vault.client.secret.add",
        "POST /vault-clients/{client}/secrets",
        "clients:add_secret",
        (vault_clients.ClientSecretAdd, vault_clients.ClientSecretShown),
    ),
    _vault_route(
        "vault.client.secret.remove",
        "DELETE /vault-clients/{client}/secrets/{secret}",
        "clients:remove_secret",
        (vault_clients.ClientSecretNamed, tenants.Done),
    ),
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
    _vault_route(
        "key.rotation-policy.show",
        "GET /vaults/{vault}/keys/{name}/rotation-policy",
        "rotation:get_policy",
        (vaults.KeyNamed, vaults.RotationPolicyView),
        changes=False,
    ),
    _vault_route(
        "key.rotation-policy.set",
        "PUT /vaults/{vault}/keys/{name}/rotation-policy",
        "rotation:set_policy",
        (vaults.RotationPolicySet, vaults.RotationPolicyView),
    ),
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


_S = "keystead.services."

SERVICE_ROUTES: tuple[Route, ...] = (
    # the installation
    Route("home.show", "GET", "/v1/home", _S + "upkeep:show_home", Empty, watching.HomeView, scope=Scope.PROVIDER, changes=False),
    Route(
        "settings.get",
        "GET",
        "/v1/settings",
        _S + "upkeep:get_settings",
        Empty,
        list[watching.SettingView],
        scope=Scope.PROVIDER,
        changes=False,
    ),
    Route(
        "settings.set",
        "PUT",
        "/v1/settings/{name}",
        _S + "upkeep:set_setting",
        watching.SetSetting,
        watching.SettingView,
        scope=Scope.PROVIDER,
    ),
    Route(
        "keystore.rotate",
        "POST",
        "/v1/keystore/rotate",
        _S + "upkeep:rotate_keystore",
        Empty,
        list[watching.EpochView],
        scope=Scope.PROVIDER,
        timeout=300,
    ),
    Route(
        "keystore.roll",
        "POST",
        "/v1/tenants/{tenant}/policies/{policy}/roll-availability-key",
        _S + "upkeep:roll_key",
        policies.NamePolicy,
        tenants.Done,
    ),
    Route(
        "keystore.roll-files",
        "POST",
        "/v1/tenants/{tenant}/files/roll-availability-key",
        _S + "upkeep:roll_files_key",
        file_policies.NameGeo,
        tenants.Done,
    ),
    Route(
        "dev.clock.advance",
        "POST",
        "/v1/dev/clock",
        _S + "upkeep:advance_clock",
        watching.AdvanceClock,
        watching.ClockView,
        scope=Scope.PROVIDER,
    ),
    Route(
        "dev.fault", "PUT", "/v1/dev/faults/{vault}", _S + "upkeep:set_fault", watching.SetFault, watching.FaultView, scope=Scope.PROVIDER
    ),
    # tenants and people
    Route(
        "tenant.create", "POST", "/v1/tenants", _S + "tenants:create_tenant", tenants.CreateTenant, tenants.TenantView, scope=Scope.PROVIDER
    ),
    Route(
        "tenant.list",
        "GET",
        "/v1/tenants",
        _S + "tenants:list_tenants",
        Empty,
        list[tenants.TenantView],
        scope=Scope.PROVIDER,
        changes=False,
    ),
    Route("tenant.show", "GET", "/v1/tenants/{tenant}", _S + "tenants:show_tenant", tenants.ShowTenant, tenants.TenantView, changes=False),
    Route(
        "tenant.onboard",
        "POST",
        "/v1/tenants/{tenant}/onboarding",
        _S + "tenants:onboard",
        tenants.OnboardTenant,
        tenants.OnboardingView,
        max_body=256 * KIB,
    ),
    Route("user.add", "POST", "/v1/tenants/{tenant}/users", _S + "tenants:add_user", tenants.AddUser, tenants.UserView),
    Route(
        "user.list",
        "GET",
        "/v1/tenants/{tenant}/users",
        _S + "tenants:list_users",
        tenants.ListUsers,
        list[tenants.UserView],
        changes=False,
    ),
    Route("user.remove", "DELETE", "/v1/tenants/{tenant}/users/{upn}", _S + "tenants:remove_user", tenants.RemoveUser, tenants.Done),
    Route("user.claim", "POST", "/v1/claim", _S + "tenants:claim", tenants.ClaimToken, tenants.TokenView, scope=Scope.PUBLIC),
    Route(
        "user.reissue-claim",
        "POST",
        "/v1/tenants/{tenant}/users/{upn}/claim",
        _S + "tenants:reissue_claim",
        tenants.ReissueClaim,
        tenants.UserView,
    ),
    Route(
        "tenant.reissue-claim",
        "POST",
        "/v1/claims",
        _S + "tenants:reissue_tenant_claim",
        tenants.ReissueTenantClaim,
        tenants.TenantView,
        scope=Scope.PROVIDER,
    ),
    # signing in
    Route(
        "token.exchange",
        "POST",
        "/v1/access-tokens",
        _S + "tokens:exchange",
        tokens.ExchangeToken,
        tokens.AccessTokenView,
        scope=Scope.PUBLIC,
        max_body=16 * KIB,
    ),
    Route(
        "token.renew",
        "POST",
        "/v1/renewed-tokens",
        _S + "tokens:renew",
        tokens.RenewToken,
        tenants.TokenView,
        scope=Scope.PUBLIC,
        max_body=16 * KIB,
    ),
    Route("token.create", "POST", "/v1/tenants/{tenant}/tokens", _S + "tokens:create_token", tokens.CreateToken, tenants.TokenView),
    Route(
        "token.list",
        "GET",
        "/v1/tenants/{tenant}/tokens",
        _S + "tokens:list_tokens",
        tokens.ListTokens,
        list[tokens.StoredTokenView],
        changes=False,
    ),
    Route("token.revoke", "DELETE", "/v1/tenants/{tenant}/tokens/{id}", _S + "tokens:revoke_token", tokens.NameToken, tenants.Done),
    Route(
        "provider-token.create",
        "POST",
        "/v1/tokens",
        _S + "tokens:create_token",
        tokens.CreateToken,
        tenants.TokenView,
        scope=Scope.PROVIDER,
    ),
    Route(
        "provider-token.list",
        "GET",
        "/v1/tokens",
        _S + "tokens:list_tokens",
        tokens.ListTokens,
        list[tokens.StoredTokenView],
        scope=Scope.PROVIDER,
        changes=False,
    ),
    Route(
        "provider-token.revoke",
        "DELETE",
        "/v1/tokens/{id}",
        _S + "tokens:revoke_token",
        tokens.NameToken,
        tenants.Done,
        scope=Scope.PROVIDER,
    ),
    Route(
        "sign-in-provider.set",
        "PUT",
        "/v1/tenants/{tenant}/sign-in-provider",
        _S + "sign_in_providers:set_provider",
        tokens.SetSignInProvider,
        tokens.SignInProviderView,
    ),
    Route(
        "sign-in-provider.show",
        "GET",
        "/v1/tenants/{tenant}/sign-in-provider",
        _S + "sign_in_providers:show_provider",
        Empty,
        tokens.SignInProviderView,
        changes=False,
    ),
    Route(
        "sign-in-provider.remove",
        "DELETE",
        "/v1/tenants/{tenant}/sign-in-provider",
        _S + "sign_in_providers:remove_provider",
        Empty,
        tenants.Done,
    ),
    Route(
        "signing-key.list",
        "GET",
        "/v1/signing-keys",
        _S + "tokens:list_signing_keys",
        Empty,
        list[tokens.SigningKeyView],
        scope=Scope.PROVIDER,
        changes=False,
    ),
    Route(
        "signing-key.rotate",
        "POST",
        "/v1/signing-keys",
        _S + "tokens:rotate_signing_key",
        tokens.RotateSigningKey,
        tokens.SigningKeyView,
        scope=Scope.PROVIDER,
    ),
    Route(
        "signing-key.publish",
        "GET",
        "/.well-known/jwks.json",
        _S + "tokens:publish_signing_keys",
        Empty,
        tokens.JwksView,
        scope=Scope.PUBLIC,
        changes=False,
    ),
    # data encryption policies
    Route(
        "policy.validate",
        "POST",
        "/v1/tenants/{tenant}/policies/validate",
        _S + "policies:validate_policy",
        policies.CreatePolicy,
        policies.ValidationView,
        timeout=60,
        changes=False,
    ),
    Route(
        "policy.create",
        "POST",
        "/v1/tenants/{tenant}/policies",
        _S + "policies:create_policy",
        policies.CreatePolicy,
        policies.PolicyView,
        timeout=60,
    ),
    Route(
        "policy.list",
        "GET",
        "/v1/tenants/{tenant}/policies",
        _S + "policies:list_policies",
        policies.ListPolicies,
        list[policies.PolicySummary],
        changes=False,
    ),
    Route(
        "policy.show",
        "GET",
        "/v1/tenants/{tenant}/policies/{policy}",
        _S + "policies:show_policy",
        policies.NamePolicy,
        policies.PolicyView,
        changes=False,
    ),
    Route(
        "policy.refresh",
        "POST",
        "/v1/tenants/{tenant}/policies/{policy}/refresh",
        _S + "policies:refresh_policy",
        policies.NamePolicy,
        policies.PolicyView,
        timeout=60,
    ),
    Route(
        "policy.set", "PATCH", "/v1/tenants/{tenant}/policies/{policy}", _S + "policies:set_policy", policies.SetPolicy, policies.PolicyView
    ),
    Route(
        "policy.enable",
        "POST",
        "/v1/tenants/{tenant}/policies/{policy}/enable",
        _S + "policies:enable_policy",
        policies.NamePolicy,
        policies.PolicyView,
    ),
    Route(
        "policy.disable",
        "POST",
        "/v1/tenants/{tenant}/policies/{policy}/disable",
        _S + "policies:disable_policy",
        policies.NamePolicy,
        policies.PolicyView,
    ),
    Route(
        "policy.health",
        "GET",
        "/v1/tenants/{tenant}/policies/{policy}/health",
        _S + "policies:policy_health",
        policies.NamePolicy,
        policies.PolicyHealth,
        timeout=60,
        changes=False,
    ),
    Route(
        "policy.key-uses",
        "GET",
        "/v1/tenants/{tenant}/key-uses",
        _S + "policies:key_uses",
        policies.NameKey,
        policies.KeyUses,
        changes=False,
    ),
    # mailboxes
    Route(
        "mailbox.create",
        "POST",
        "/v1/tenants/{tenant}/mailboxes",
        _S + "mailboxes:create_mailbox",
        mailboxes.CreateMailbox,
        mailboxes.MailboxView,
    ),
    Route(
        "mailbox.list",
        "GET",
        "/v1/tenants/{tenant}/mailboxes",
        _S + "mailboxes:list_mailboxes",
        mailboxes.ListMailboxes,
        list[mailboxes.MailboxView],
        changes=False,
    ),
    Route(
        "mailbox.statistics",
        "GET",
        "/v1/tenants/{tenant}/mailboxes/{upn}/statistics",
        _S + "mailboxes:statistics",
        mailboxes.NameMailbox,
        mailboxes.MailboxStatistics,
        changes=False,
    ),
    Route(
        "mailbox.assign",
        "POST",
        "/v1/tenants/{tenant}/assignments",
        _S + "mailboxes:assign",
        mailboxes.AssignPolicy,
        mailboxes.AssignmentView,
        max_body=4 * MIB,
    ),
    Route(
        "mailbox.unassign",
        "DELETE",
        "/v1/tenants/{tenant}/mailboxes/{upn}/assignment",
        _S + "mailboxes:unassign",
        mailboxes.UnassignPolicy,
        mailboxes.AssignmentView,
    ),
    Route(
        "mailbox.move-status",
        "GET",
        "/v1/tenants/{tenant}/mailboxes/{upn}/move",
        _S + "mailboxes:move_status",
        mailboxes.NameMailbox,
        mailboxes.MoveStatus,
        changes=False,
    ),
    Route(
        "mailbox.delete",
        "DELETE",
        "/v1/tenants/{tenant}/mailboxes/{upn}",
        _S + "mailboxes:delete_mailbox",
        mailboxes.NameMailbox,
        tenants.Done,
    ),
    Route(
        "mailbox.delegate",
        "PUT",
        "/v1/tenants/{tenant}/mailboxes/{upn}/delegates/{delegate}",
        _S + "mailboxes:delegate",
        mailboxes.DelegateRequest,
        mailboxes.DelegateView,
    ),
    Route(
        "mailbox.import",
        "POST",
        "/v1/tenants/{tenant}/mailboxes/{upn}/items",
        _S + "items:import_batch",
        mailboxes.ImportBatch,
        mailboxes.ImportResult,
        body=Body.BATCH,
        max_body=9 * MIB,
        timeout=120,
    ),
    Route(
        "mailbox.import-item",
        "PUT",
        "/v1/tenants/{tenant}/mailboxes/{upn}/items",
        _S + "items:import_large",
        mailboxes.ImportLarge,
        mailboxes.ImportResult,
        body=Body.UPLOAD,
        max_body=160 * MIB,
        timeout=600,
    ),
    Route(
        "mailbox.items",
        "GET",
        "/v1/tenants/{tenant}/mailboxes/{upn}/items",
        _S + "items:list_items",
        mailboxes.ListItems,
        list[mailboxes.ItemView],
        changes=False,
    ),
    Route(
        "mailbox.read",
        "GET",
        "/v1/tenants/{tenant}/mailboxes/{upn}/items/{item}",
        _S + "items:read_item",
        mailboxes.NameItem,
        Content,
        body=Body.DOWNLOAD,
        timeout=600,
        changes=False,
    ),
    Route(
        "mailbox.delete-item",
        "DELETE",
        "/v1/tenants/{tenant}/mailboxes/{upn}/items/{item}",
        _S + "items:delete_item",
        mailboxes.NameItem,
        tenants.Done,
    ),
    Route(
        "mailbox.search",
        "POST",
        "/v1/tenants/{tenant}/search",
        _S + "items:search",
        mailboxes.Search,
        list[mailboxes.Hit],
        timeout=600,
        changes=False,
    ),
    # the policies of files: one for each geo
    _files_route("files.register", "POST register", "register", file_policies.RegisterFiles, timeout=120),
    _files_route("files.status", "GET status", "status", file_policies.NameGeo, changes=False),
    _files_route("files.roll", "POST roll", "roll", file_policies.RollFiles, timeout=120),
    _files_route("files.recover", "POST recover", "recover", file_policies.RecoverFiles, timeout=120),
    _files_route("files.revert", "POST revert", "revert", file_policies.NameGeo, timeout=60),
    Route(
        "files.health",
        "POST",
        "/v1/tenants/{tenant}/files/health",
        _S + "file_policies:files_health",
        file_policies.NameGeo,
        file_policies.FilesHealth,
        changes=False,
    ),
    # sites and files: a site is named by its URL, which no path takes, so it travels as query or in the body
    _site_route("site.create", "POST /sites", "sites:create_site", (sites.CreateSite, sites.SiteView)),
    _site_route("site.list", "GET /sites", "sites:list_sites", (sites.ListSites, list[sites.SiteView]), changes=False),
    _site_route("site.status", "GET /site", "sites:show_site", (sites.NameSite, sites.SiteStatus), changes=False),
    _site_route("site.set", "PATCH /site", "sites:set_site", (sites.SetSite, sites.SiteView)),
    _site_route("site.delete", "DELETE /site", "sites:delete_site", (sites.NameSite, tenants.Done)),
    _site_route("site.member.add", "POST /site/members", "sites:add_member", (sites.SiteMember, sites.MembersView)),
    _site_route("site.member.remove", "DELETE /site/members", "sites:remove_member", (sites.SiteMember, sites.MembersView)),
    _site_route("site.member.list", "GET /site/members", "sites:list_members", (sites.NameSite, sites.MembersView), changes=False),
    _site_route("site.unlock", "DELETE /site/locks", "sites:unlock", (sites.NameSite, sites.UnlockedView)),
    _site_route("site.ls", "GET /site/files", "site_files:list_files", (sites.ListFiles, list[sites.FileView]), changes=False),
    _site_route(
        "site.put",
        "PUT /site/content",
        "site_files:upload",
        (sites.UploadFile, sites.FileView),
        body=Body.UPLOAD,
        max_body=256 * 1024 * MIB,
        timeout=24 * 3600,
    ),
    _site_route(
        "site.put-batch",
        "POST /site/files",
        "site_files:upload_batch",
        (sites.UploadBatch, sites.BatchResult),
        body=Body.BATCH,
        max_body=17 * MIB,
        timeout=290,  # under the time from which on calls take turns (frontends/http/app.py:LONG): it goes beside a large file
    ),
    _site_route(
        "site.get",
        "GET /site/content",
        "site_files:download",
        (sites.DownloadFile, Content),
        body=Body.DOWNLOAD,
        timeout=24 * 3600,
        changes=False,
    ),
    _site_route(
        "site.get-batch",
        "POST /site/contents",
        "site_files:download_batch",
        (sites.GetBatch, Content),
        body=Body.DOWNLOAD,
        max_body=256 * KIB,
        timeout=3600,
        changes=False,
    ),
    _site_route("site.mkdir", "POST /site/folders", "site_files:make_folder", (sites.MakeFolder, sites.FileView)),
    _site_route("site.mv", "POST /site/move", "site_files:move", (sites.MoveFile, sites.FileView)),
    _site_route("site.rm", "DELETE /site/files", "site_files:remove", (sites.RemoveFile, sites.RemovedView), timeout=300),
    _site_route("site.versions", "GET /site/versions", "site_files:versions", (sites.NameFile, list[sites.VersionView]), changes=False),
    _site_route("site.restore-version", "POST /site/versions", "site_files:restore_version", (sites.RestoreVersion, sites.FileView)),
    # watching
    Route(
        "audit.search",
        "GET",
        "/v1/tenants/{tenant}/audit",
        _S + "watching:search_audit",
        watching.SearchAudit,
        list[watching.AuditRecordView],
        changes=False,
    ),
    Route(
        "audit.installation",
        "GET",
        "/v1/audit",
        _S + "watching:search_audit",
        watching.SearchAudit,
        list[watching.AuditRecordView],
        scope=Scope.PROVIDER,
        changes=False,
    ),
    Route(
        "alerts.everywhere",
        "GET",
        "/v1/alerts",
        _S + "watching:all_alerts",
        watching.ListAlerts,
        list[watching.AlertView],
        scope=Scope.PROVIDER,
        changes=False,
    ),
    Route(
        "alerts.hooks",
        "GET",
        "/v1/alerts/hooks",
        _S + "watching:list_hooks",
        Empty,
        list[watching.HookView],
        scope=Scope.PROVIDER,
        changes=False,
    ),
    Route(
        "alerts.test",
        "POST",
        "/v1/alerts/hooks/{hook}/test",
        _S + "watching:try_hook",
        watching.TryHook,
        watching.HookTried,
        scope=Scope.PROVIDER,
    ),
    Route(
        "alerts.list",
        "GET",
        "/v1/tenants/{tenant}/alerts",
        _S + "watching:list_alerts",
        watching.ListAlerts,
        list[watching.AlertView],
        changes=False,
    ),
    Route(
        "job.list", "GET", "/v1/tenants/{tenant}/jobs", _S + "watching:list_jobs", watching.ListJobs, list[watching.JobView], changes=False
    ),
    Route(
        "job.show", "GET", "/v1/tenants/{tenant}/jobs/{job}", _S + "watching:show_job", watching.NameJob, watching.JobView, changes=False
    ),
    Route("job.cancel", "DELETE", "/v1/tenants/{tenant}/jobs/{job}", _S + "watching:cancel_job", watching.NameJob, watching.JobView),
)

ROUTES: tuple[Route, ...] = (*SERVICE_ROUTES, *VAULT_ROUTES)
BY_NAME: dict[str, Route] = {route.name: route for route in ROUTES}
