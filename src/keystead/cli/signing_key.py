"""`keystead signing-key`."""

from typing import Annotated

import typer

from keystead.api.types.tokens import RotateSigningKey
from keystead.cli.app import this

app = typer.Typer(rich_markup_mode=None, add_completion=False)


@app.callback()
def signing_key() -> None:
    """The keys that access tokens are signed with."""


@app.command("list")
def list_keys(context: typer.Context) -> None:
    """List the keys in use, newest first: one signs, the others verify until what they signed has ended."""
    app = this(context)
    app.show(app.call("signing-key.list"), ("id", "signs", "created", "ends"))


@app.command()
def rotate(
    context: typer.Context,
    discard: Annotated[bool, typer.Option("--discard", help="Make every access token signed before worthless at once.")] = False,
) -> None:
    """Sign with a fresh key from now on. Workers do it by themselves from time to time."""
    app = this(context)
    app.show(app.call("signing-key.rotate", RotateSigningKey(discard=discard)))


@app.command()
def publish(context: typer.Context) -> None:
    """Show the public keys, for whoever checks access tokens without asking the server for them."""
    app = this(context)
    app.show(app.call("signing-key.publish"))
