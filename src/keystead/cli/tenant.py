"""`keystead tenant`."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from keystead.api.types.tenants import CreateTenant, OfficerInput, OnboardTenant, ReissueTenantClaim, ShowTenant
from keystead.cli.app import refuse_usage, show_claim, this
from keystead.cli.values import read_text

app = typer.Typer(rich_markup_mode=None, add_completion=False)


@app.callback()
def tenant() -> None:
    """Tenants and their onboarding."""


@app.command()
def create(
    context: typer.Context,
    name: str,
    domain: Annotated[str, typer.Option(help="The DNS domain of the tenant's people.")],
    geo: Annotated[list[str], typer.Option(metavar="GEO", help="Three letters, such as EUR; repeat it for a multi-geo tenant.")],
    claim_file: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the claim token there instead of showing it.")] = None,
) -> None:
    """Make a tenant. Outside dev homes this gives a one-time claim token for the tenant's first administrator."""
    app = this(context)
    show_claim(app, app.call("tenant.create", CreateTenant(name=name, domain=domain, geo=geo)), claim_file)


@app.command("reissue-claim")
def reissue_claim(
    context: typer.Context,
    tenant: Annotated[str, typer.Argument(help="Name, domain or id.")],
    claim_file: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the claim token there instead of showing it.")] = None,
) -> None:
    """Give a fresh claim token for a tenant's first administrator, as long as nobody has come in; the one before is void."""
    app = this(context)
    show_claim(app, app.call("tenant.reissue-claim", ReissueTenantClaim(tenant=tenant)), claim_file)


@app.command("list")
def list_tenants(context: typer.Context) -> None:
    """List all tenants: for the provider."""
    app = this(context)
    app.show(app.call("tenant.list"), ("name", "domain", "geos", "onboarded", "id"))


@app.command()
def show(context: typer.Context) -> None:
    """Show one tenant: the caller's own, or the one named with --tenant."""
    app = this(context)
    app.show(app.call("tenant.show", ShowTenant()))


@app.command()
def onboard(
    context: typer.Context,
    subscription: Annotated[list[str], typer.Option(metavar="NAME", help="Name or id; give it twice.")],
    workload: Annotated[Literal["mail", "files"], typer.Option(help="What may then be put under customer keys.")] = "mail",
    officer: Annotated[list[str] | None, typer.Option(metavar="NAME", help="Who may sign for destruction; may be repeated.")] = None,
    officer_cert: Annotated[
        list[Path] | None, typer.Option(metavar="FILE", help="Certificate (PEM) of each officer, in the order of the officers.")
    ] = None,
) -> None:
    """Allow a tenant to make policies of a workload: with which two subscriptions, and who may sign for destruction."""
    app = this(context)
    names, certificates = officer or [], officer_cert or []
    if certificates and len(certificates) != len(names):
        refuse_usage(
            f"there are {len(certificates)} certificates for {len(names)} officers",
            "give --officer-cert once for each --officer, or not at all",
        )
    texts = [read_text(path) for path in certificates] or [""] * len(names)
    officers = [OfficerInput(name=one, certificate=text) for one, text in zip(names, texts, strict=True)]
    app.show(app.call("tenant.onboard", OnboardTenant(workload=workload, subscriptions=subscription, officers=officers)))
