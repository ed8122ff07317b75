"""`keystead sign-in-provider`."""

from typing import Annotated

import typer

from keystead.api.types.tokens import SetSignInProvider
from keystead.cli.app import this

app = typer.Typer(rich_markup_mode=None, add_completion=False)


@app.callback()
def sign_in_provider() -> None:
    """The tenant's own OpenID Connect provider, whose tokens its people sign in with."""


@app.command("set")
def set_provider(
    context: typer.Context,
    issuer: Annotated[str, typer.Option(metavar="ADDRESS", help="Exactly as the tokens spell it; the operator must allow it.")],
    audience: Annotated[str, typer.Option(metavar="NAME", help="Whom the tokens are for: the client id, or the API's name.")],
    upn_claim: Annotated[str, typer.Option(metavar="CLAIM", help="The claim that holds the UPN.")] = "preferred_username",
    required_claim: Annotated[str, typer.Option(metavar="CLAIM", help="A further claim that must be there.")] = "",
    required_value: Annotated[str, typer.Option(metavar="VALUE", help="What it must be, or hold.")] = "",
) -> None:
    """Take the tokens of an issuer, in place of those of the one before."""
    app = this(context)
    request = SetSignInProvider(
        issuer=issuer, audience=audience, upn_claim=upn_claim, required_claim=required_claim, required_value=required_value
    )
    app.show(app.call("sign-in-provider.set", request))


@app.command()
def show(context: typer.Context) -> None:
    """Show what is taken."""
    app = this(context)
    app.show(app.call("sign-in-provider.show"))


@app.command()
def remove(context: typer.Context) -> None:
    """Take no such tokens any more, from the next call on."""
    app = this(context)
    app.show(app.call("sign-in-provider.remove"))
