"""`keystead user`."""

from pathlib import Path
from typing import Annotated, cast

import typer

from keystead.api.types.tenants import AddUser, ClaimToken, ListUsers, ReissueClaim, RemoveUser, RoleName, TokenView
from keystead.cli.app import show_claim, this
from keystead.cli.output import document
from keystead.cli.values import read_text, words

app = typer.Typer(rich_markup_mode=None, add_completion=False)

ROLES = "global-admin, exchange-admin, compliance-admin, key-vault-administrator, lockbox-approver, audit-reader, user"


@app.callback()
def user() -> None:
    """People and their roles."""


@app.command()
def add(
    context: typer.Context,
    upn: str,
    role: Annotated[list[str], typer.Option(metavar="ROLE", help=f"May be repeated. One of {ROLES}.")],
    claim_file: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the claim token there instead of showing it.")] = None,
) -> None:
    """Add a person, or give one other roles. Outside dev homes a new person gets a one-time claim token."""
    app = this(context)
    # The service checks the names, as for every client.
    roles = cast("list[RoleName]", words(role))
    show_claim(app, app.call("user.add", AddUser(upn=upn, roles=roles)), claim_file)


@app.command("list")
def list_users(context: typer.Context) -> None:
    """List the tenant's people."""
    app = this(context)
    app.show(app.call("user.list", ListUsers()), ("upn", "roles", "created", "id"))


@app.command()
def remove(context: typer.Context, upn: str) -> None:
    """Remove a person; their tokens stop working at once. A mailbox stays."""
    app = this(context)
    app.show(app.call("user.remove", RemoveUser(upn=upn)))


@app.command("reissue-claim")
def reissue_claim(
    context: typer.Context,
    upn: str,
    claim_file: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the claim token there instead of showing it.")] = None,
) -> None:
    """Give a person who has no token that is still good a fresh claim token; the one before is void."""
    app = this(context)
    show_claim(app, app.call("user.reissue-claim", ReissueClaim(upn=upn)), claim_file)


@app.command()
def claim(
    context: typer.Context,
    upn: Annotated[str, typer.Option(metavar="UPN", help="Who you are; a tenant's first administrator chooses a name in its domain.")],
    claim_token_file: Annotated[Path, typer.Option(metavar="FILE", help="File with the claim token.")],
    output: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the new token there, for --token-file, instead of showing it.")
    ] = None,
) -> None:
    """Redeem a one-time claim token for a token to call with."""
    app = this(context)
    view: TokenView = app.call("user.claim", ClaimToken(claim_token=read_text(claim_token_file), upn=upn))
    if app.keep_secret(output, view.token):
        app.show({"upn": view.upn, "expires": view.expires, "token_file": str(output)})
    else:
        app.show(document(view))
