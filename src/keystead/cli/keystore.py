"""`keystead keystore`."""

from typing import Annotated

import typer

from keystead.api.types.file_policies import NameGeo
from keystead.api.types.policies import NamePolicy
from keystead.cli.app import refuse_usage, this

app = typer.Typer(rich_markup_mode=None, add_completion=False)


@app.callback()
def keystore() -> None:
    """The provider's key store: shred keys, availability keys, provider keys. No command shows a key."""


@app.command()
def rotate(context: typer.Context) -> None:
    """Write the whole store anew under fresh epoch keys; copies made before do not open any more."""
    app = this(context)
    app.show(app.call("keystore.rotate"))


@app.command()
def roll(
    context: typer.Context,
    policy: Annotated[str, typer.Argument(metavar="[POLICY]", help="Name or id; its tenant with --tenant.")] = "",
    geo: Annotated[str, typer.Option(metavar="GEO", help="The key of that geo's files instead.")] = "",
) -> None:
    """Replace the availability key of a policy, or of a geo's files. Nobody sees it, before or after."""
    app = this(context)
    if bool(policy) == bool(geo):
        refuse_usage("either a policy is named, or a geo", "give POLICY, or --geo")
    app.show(app.call("keystore.roll-files", NameGeo(geo=geo)) if geo else app.call("keystore.roll", NamePolicy(policy=policy)))
