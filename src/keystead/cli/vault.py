"""`keystead vault`, `keystead vault access` and `keystead vault network`."""

from typing import Annotated, Literal

import typer

from keystead.api.types import vaults as t
from keystead.cli import vault_client, vault_seal, vault_serve
from keystead.cli.app import App, refuse_usage, this
from keystead.cli.values import time, words, words_or_none

app = typer.Typer(rich_markup_mode=None, add_completion=False)
access = typer.Typer(rich_markup_mode=None, add_completion=False)
app.add_typer(access, name="access")
network = typer.Typer(rich_markup_mode=None, add_completion=False)
app.add_typer(network, name="network")
app.add_typer(vault_seal.app, name="seal")
app.add_typer(vault_client.app, name="client")
app.command()(vault_serve.serve)

Vault = Annotated[str, typer.Argument(metavar="VAULT")]
Upn = Annotated[str | None, typer.Option(metavar="UPN", help="A person.")]
PrincipalName = Annotated[
    str | None, typer.Option(metavar="NAME", help="An application of the service (mail, files or tenant), or a client.")
]
Range = Annotated[str, typer.Argument(metavar="CIDR", help="Such as 203.0.113.0/24, 2001:db8::/32, or one address.")]
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
def protect(context: typer.Context, vault: Vault) -> None:
    """Turn purge protection on: nobody can purge before the retention ends. Nobody can turn it off again."""
    _named(this(context), "vault.protect", vault)


@app.command("fail-over")
def fail_over(context: typer.Context, vault: Vault, mode: Annotated[Literal["on", "off"], typer.Argument(metavar="on|off")]) -> None:
    """Put a vault into the read-only mode of a vault whose second region serves, or back: keys can be used, nothing can be changed."""
    app = this(context)
    app.show(app.call("vault.fail-over", t.FailOver(vault=vault, read_only=mode == "on")))


@app.command()
def log(
    context: typer.Context,
    vault: Vault,
    operation: Annotated[str | None, typer.Option(metavar="NAME", help="Such as KeyUnwrap.")] = None,
    result: Annotated[str | None, typer.Option(metavar="RESULT", help="success, failure, or the code of a refusal.")] = None,
    principal: Annotated[str | None, typer.Option(metavar="NAME", help="A UPN, an application or a client.")] = None,
    start: Annotated[str | None, typer.Option(metavar="TIME", help="ISO 8601.")] = None,
    end: Annotated[str | None, typer.Option(metavar="TIME", help="ISO 8601; not included.")] = None,
    limit: Annotated[int, typer.Option(metavar="N", help="How many records.")] = t.DEFAULT_PAGE,
    after: Annotated[int | None, typer.Option(metavar="NUMBER", help="The records after this one; by default the last ones.")] = None,
) -> None:
    """Show the vault's log, or what is searched in it: every call, allowed or refused, oldest first."""
    app = this(context)
    request = t.VaultLogQuery(
        vault=vault,
        limit=limit,
        after=after,
        operation=operation,
        result=result,
        principal=principal,
        start=time(start),
        end=time(end),
    )
    app.show(
        app.call("vault.log", request),
        ("number", "time", "operation_name", "result_type", "result_signature", "identity", "result_description"),
    )


def _named(app: App, route: str, vault: str) -> None:
    app.show(app.call(route, t.VaultNamed(vault=vault)))


# -- network ---------------------------------------------------------------------------------------------------------------------------


@network.callback()
def vault_network() -> None:
    """From where a vault's keys may be used. Changing the vault itself and these rules is allowed from everywhere."""


@network.command("show")
def show_network(context: typer.Context, vault: Vault) -> None:
    """Show a vault's network rules."""
    app = this(context)
    app.show(app.call("vault.network.show", t.VaultNamed(vault=vault)))


@network.command("allow")
def allow_range(context: typer.Context, vault: Vault, range: Range) -> None:
    """Let a range of addresses in. It matters once the default is deny."""
    app = this(context)
    app.show(app.call("vault.network.allow", t.NetworkRange(vault=vault, range=range)))


@network.command("remove")
def remove_range(context: typer.Context, vault: Vault, range: Range) -> None:
    """Take a range of addresses back."""
    app = this(context)
    app.show(app.call("vault.network.remove", t.NetworkRange(vault=vault, range=range)))


@network.command("default")
def set_default(
    context: typer.Context,
    vault: Vault,
    action: Annotated[Literal["allow", "deny"], typer.Argument(metavar="allow|deny")],
    bypass: Annotated[
        Literal["AzureServices", "None"] | None,
        typer.Option(help="AzureServices lets the service's own applications on this machine pass."),
    ] = None,
) -> None:
    """Say what holds for callers in no range."""
    app = this(context)
    app.show(app.call("vault.network.default", t.NetworkDefault(vault=vault, action=action, bypass=bypass)))


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
        refuse_usage(
            "exactly one of --upn and --principal is needed", "name a person with --upn, or an application or client with --principal"
        )
