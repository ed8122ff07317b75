"""`keystead vault` and `keystead vault access`."""

from typing import Annotated, Literal

import typer

from keystead.api.types import vaults as t
from keystead.cli.app import App, refuse_usage, this
from keystead.cli.values import words, words_or_none

app = typer.Typer(rich_markup_mode=None, add_completion=False)
access = typer.Typer(rich_markup_mode=None, add_completion=False)
app.add_typer(access, name="access")

Vault = Annotated[str, typer.Argument(metavar="VAULT")]
Upn = Annotated[str | None, typer.Option(metavar="UPN", help="A person.")]
PrincipalName = Annotated[str | None, typer.Option(metavar="NAME", help="An application of the service: mail, files or tenant.")]
COLUMNS = ("name", "subscription", "region", "sku", "recovery_level", "state", "uri")


@app.callback()
def vault() -> None:
    """Key vaults and who may use their keys."""


@app.command()
def create(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="3 to 24 letters, digits and hyphens; unique in the whole installation.")],
    subscription: Annotated[str, typer.Option(help="Name or id.")],
    region: Annotated[str, typer.Option(help="Such as westeurope.")],
    sku: Annotated[Literal["standard", "premium"], typer.Option(help="RSA-HSM keys need premium.")] = "standard",
    resource_group: Annotated[str | None, typer.Option(metavar="NAME", help="By default named like the subscription.")] = None,
    purge_protection: Annotated[bool, typer.Option("--purge-protection", help="Nobody can purge before the retention ends.")] = False,
    retention_days: Annotated[int, typer.Option(metavar="N", help="7 to 90, fixed for good; policies need 90.")] = 90,
    rbac: Annotated[bool, typer.Option("--rbac", help="Give key permissions by role instead of by list.")] = False,
) -> None:
    """Make a vault. Its maker may change its access policy and create, import, list, get, back up and restore keys; nothing else."""
    app = this(context)
    request = t.VaultCreate(
        name=name,
        subscription=subscription,
        region=region,
        sku=sku,
        resource_group=resource_group,
        rbac=rbac,
        purge_protection=purge_protection,
        retention_days=retention_days,
    )
    app.show(app.call("vault.create", request))


@app.command("list")
def list_vaults(
    context: typer.Context, deleted: Annotated[bool, typer.Option("--deleted", help="Those that can be recovered.")] = False
) -> None:
    """List the tenant's vaults."""
    app = this(context)
    app.show(app.call("vault.deleted" if deleted else "vault.list"), ("name", "deleted", "scheduled_purge") if deleted else COLUMNS)


@app.command()
def show(context: typer.Context, vault: Vault) -> None:
    """Show one vault."""
    _named(this(context), "vault.show", vault)


@app.command()
def delete(context: typer.Context, vault: Vault) -> None:
    """Delete a vault with its keys. It can be recovered until its retention ends; until then its name stays taken."""
    app = this(context)
    app.confirm(f"Delete the vault {vault}? What its keys protect stops opening.")
    _named(app, "vault.delete", vault)


@app.command()
def recover(context: typer.Context, vault: Vault) -> None:
    """Bring a deleted vault back with its keys."""
    _named(this(context), "vault.recover", vault)


@app.command()
def purge(context: typer.Context, vault: Vault) -> None:
    """Destroy a deleted vault and its keys for good."""
    app = this(context)
    app.confirm(f"Destroy the deleted vault {vault} and all its keys for good?")
    _named(app, "vault.purge", vault)


@app.command()
def log(
    context: typer.Context,
    vault: Vault,
    limit: Annotated[int, typer.Option(metavar="N", help="How many records.")] = t.DEFAULT_PAGE,
    after: Annotated[int | None, typer.Option(metavar="NUMBER", help="The records after this one; by default the last ones.")] = None,
) -> None:
    """Show the vault's log: every call, allowed or refused, oldest first."""
    app = this(context)
    found = app.call("vault.log", t.VaultLogQuery(vault=vault, limit=limit, after=after))
    app.show(found, ("number", "time", "operation_name", "result_type", "result_signature", "identity", "result_description"))


def _named(app: App, route: str, vault: str) -> None:
    app.show(app.call(route, t.VaultNamed(vault=vault)))


# -- access ----------------------------------------------------------------------------------------------------------------------------


@access.callback()
def vault_access() -> None:
    """Who may do what with the keys of a vault."""


@access.command()
def grant(
    context: typer.Context,
    vault: Vault,
    upn: Upn = None,
    principal: PrincipalName = None,
    permissions: Annotated[list[str] | None, typer.Option(metavar="LIST", help="Such as get,wrapKey,unwrapKey.")] = None,
    roles: Annotated[list[str] | None, typer.Option(metavar="LIST", help="In a vault made with --rbac.")] = None,
    contributor: Annotated[bool, typer.Option("--contributor", help="May change the vault and this list; no key permission.")] = False,
) -> None:
    """Give a person or an application more permissions. A policy for mail needs get,wrapKey,unwrapKey for the application mail."""
    app = this(context)
    _one_principal(upn, principal)
    request = t.AccessGrant(
        vault=vault, upn=upn, principal=principal, permissions=words(permissions), roles=words(roles), contributor=contributor
    )
    app.show(app.call("vault.access.grant", request))


@access.command()
def revoke(
    context: typer.Context,
    vault: Vault,
    upn: Upn = None,
    principal: PrincipalName = None,
    permissions: Annotated[list[str] | None, typer.Option(metavar="LIST", help="By default everything it holds.")] = None,
    roles: Annotated[list[str] | None, typer.Option(metavar="LIST", help="In a vault made with --rbac.")] = None,
) -> None:
    """Take permissions from a person or an application. The service obeys within its probe interval."""
    app = this(context)
    _one_principal(upn, principal)
    request = t.AccessRevoke(vault=vault, upn=upn, principal=principal, permissions=words_or_none(permissions), roles=words_or_none(roles))
    app.show(app.call("vault.access.revoke", request))


@access.command("list")
def list_access(context: typer.Context, vault: Vault) -> None:
    """List who holds what."""
    app = this(context)
    app.show(app.call("vault.access.list", t.VaultNamed(vault=vault)), ("kind", "principal", "permissions", "roles", "contributor"))


def _one_principal(upn: str | None, principal: str | None) -> None:
    if (upn is None) == (principal is None):
        refuse_usage("exactly one of --upn and --principal is needed", "name a person with --upn, or an application with --principal")
