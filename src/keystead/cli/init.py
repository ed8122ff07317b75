"""`keystead init`."""

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
    operator: Annotated[str, typer.Option(metavar="UPN", help="The provider's first person.")] = "operator@provider.example",
) -> None:
    """Make a home: one directory with databases, objects and seals.

    Prints where it is and which file holds the operator's token.
    """
    app = this(context)
    home = app.options.home_path
    app.plan("init", {"home": str(home), "dev": dev, "operator": operator})
    from keystead.wiring import create_home

    made = create_home(home, dev=dev, operator=operator)
    if dev:
        app.warn("this is a dev home: whoever can run keystead here may act as anybody in it")
    app.show(made)
