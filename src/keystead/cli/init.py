"""`keystead init`."""

from pathlib import Path
from typing import Annotated

import typer

from keystead.cli.app import this

app = typer.Typer(rich_markup_mode=None, add_completion=False)


@app.command()
def init(
    context: typer.Context,
    dev: Annotated[
        bool, typer.Option("--dev", help="For trying things out: no tokens needed, a clock that can be moved, faults on demand.")
    ] = False,
    operator: Annotated[
        str, typer.Option(metavar="UPN", help="The provider's first person; a fleet's keystead.toml names its own.")
    ] = "operator@provider.example",
    token_output: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Where the operator's token goes; operator.token in the home by default.")
    ] = None,
) -> None:
    """Make a home: one directory with databases, objects and seals. Where its keystead.toml names database servers, make a fleet's stores.

    Prints where it is and which file holds the operator's token. In a fleet it can be run again, and gives the operator another token.
    """
    app = this(context)
    home = app.options.home_path
    app.plan("init", {"home": str(home), "dev": dev, "operator": operator})
    from keystead.wiring import create_home

    made = create_home(home, dev=dev, operator=operator, token_file=token_output)
    if dev:
        app.warn("this is a dev home: whoever can run keystead here may act as anybody in it")
    app.show(made)
