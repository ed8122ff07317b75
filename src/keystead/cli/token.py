"""`keystead token`."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from keystead.api.types.tenants import TokenView
from keystead.api.types.tokens import CreateToken, ExchangeToken, ListTokens, NameToken, RenewToken
from keystead.cli.app import refuse_usage, this
from keystead.cli.options import TOKEN
from keystead.cli.output import document
from keystead.cli.values import duration, read_text, words

if TYPE_CHECKING:
    from keystead.cli.app import App

app = typer.Typer(rich_markup_mode=None, add_completion=False)

Provider = Annotated[bool, typer.Option("--provider", help="The provider's own tokens instead of a tenant's: for the operator.")]
Output = Annotated[Path | None, typer.Option(metavar="FILE", help="Write the token there, for --token-file, instead of showing it.")]


@app.callback()
def token() -> None:
    """Tokens of people and programs."""


@app.command()
def create(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="What the program is called in lists and logs.")],
    scope: Annotated[list[str], typer.Option(metavar="SCOPE", help="A route, such as mailbox.import, or PREFIX.*; may be repeated.")],
    lifetime: Annotated[str | None, typer.Option(metavar="DURATION", help="Such as 12h or 90d.")] = None,
    output: Output = None,
    provider: Provider = False,
) -> None:
    """Make a token for a program: it does what you may do at the time, as far as its scopes go."""
    app = this(context)
    request = CreateToken(name=name, scopes=words(scope), lifetime=None if lifetime is None else duration(lifetime))
    _show(app, app.call("provider-token.create" if provider else "token.create", request), output)


@app.command("list")
def list_tokens(
    context: typer.Context,
    upn: Annotated[str, typer.Option(metavar="UPN", help="Those of one person.")] = "",
    expired: Annotated[bool, typer.Option("--expired", help="Those that ended too.")] = False,
    provider: Provider = False,
) -> None:
    """List tokens, without their secrets: your own, or as a global administrator everybody's."""
    app = this(context)
    request = ListTokens(upn=upn, expired=expired)
    columns = ("id", "kind", "upn", "name", "scopes", "expires", "last_used")
    app.show(app.call("provider-token.list" if provider else "token.list", request), columns)


@app.command()
def revoke(
    context: typer.Context, token: Annotated[str, typer.Argument(metavar="ID", help="As listed.")], provider: Provider = False
) -> None:
    """End a token, and every access token made from it, at once."""
    app = this(context)
    app.show(app.call("provider-token.revoke" if provider else "token.revoke", NameToken(id=token)))


@app.command()
def exchange(
    context: typer.Context,
    scope: Annotated[list[str] | None, typer.Option(metavar="SCOPE", help="Less than the token has; may be repeated.")] = None,
    output: Output = None,
) -> None:
    """Exchange the token you call with for an access token that lives minutes."""
    app = this(context)
    view = app.call("token.exchange", ExchangeToken(token=_held(app), scopes=words(scope or [])))
    if app.keep_secret(output, view.access_token):
        app.show(document(view) | {"access_token": None, "token_file": str(output)})
    else:
        app.show(view)


@app.command()
def renew(context: typer.Context, output: Output = None) -> None:
    """Make a fresh sign-in token with the one you call with, which then ends within the hour."""
    app = this(context)
    _show(app, app.call("token.renew", RenewToken(token=_held(app))), output)


def _held(app: "App") -> str:
    """The token of this call.

    Raises:
        InvalidRequest: none was given.
    """
    if app.options.token_file:
        return read_text(Path(app.options.token_file))
    if not app.options.token:
        refuse_usage("no token was given", f"add --token-file FILE, or set {TOKEN}")
    return app.options.token


def _show(app: "App", view: TokenView, output: Path | None) -> None:
    if app.keep_secret(output, view.token):
        app.show(document(view) | {"token": None, "token_file": os.fspath(output or "")})
    else:
        app.say("the token is shown this once")
        app.show(view)
