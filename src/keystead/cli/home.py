"""`keystead home`."""

from pathlib import Path
from typing import Annotated

import typer

from keystead.cli.app import this
from keystead.cli.progress import percent_bar

app = typer.Typer(rich_markup_mode=None, add_completion=False)


@app.callback()
def home() -> None:
    """Moving an installation: from a home into a fleet, and back."""


@app.command("export")
def export_home(context: typer.Context, output: Annotated[Path, typer.Option(metavar="FOLDER", help="A new or empty folder.")]) -> None:
    """Write every row, every object and the sealed epoch keys to a folder; not the master, and not the vault's seal.

    To move, stop every process first. As a backup it may run beside them. Stopped before its end, it goes on when it is run again.
    """
    app = this(context)
    path = app.options.home_path
    app.plan("home.export", {"home": str(path), "output": str(output)})
    from keystead.relocation import export_home

    with percent_bar("exporting") as update:
        app.show(export_home(path, output, on_progress=lambda done, total: update(100 * done / total)))


@app.command("import")
def import_home(
    context: typer.Context, source: Annotated[Path, typer.Option("--input", metavar="FOLDER", help="What `home export` wrote.")]
) -> None:
    """Bring an exported installation into this empty one, and read everything back.

    --home names a folder with the master and the vault's seal of the other installation and, for a fleet, with its keystead.toml.
    Stopped before its end, it goes on when it is run again.
    """
    app = this(context)
    path = app.options.home_path
    app.plan("home.import", {"home": str(path), "input": str(source)})
    from keystead.relocation import import_home

    with percent_bar("importing") as update:
        app.show(import_home(path, source, on_progress=lambda done, total: update(100 * done / total)))


@app.command("verify")
def verify_home(context: typer.Context) -> None:
    """Read every item of every mailbox and every file of every site, and check that it is what came in; exit code 6 when something is not.

    After a restore: before anybody is let in. It opens what the service itself may open, shows nothing of it, and changes nothing.
    """
    app = this(context)
    path = app.options.home_path
    app.plan("home.verify", {"home": str(path)})
    from keystead.api.errors import EXIT_INTEGRITY
    from keystead.services.verification import verify
    from keystead.wiring import open_home

    home = open_home(path)
    try:
        with percent_bar("reading") as update:
            result = verify(home.services, lambda done, total: update(100 * done / total))
    finally:
        home.close()
    app.show(result)
    if result.problems:
        raise typer.Exit(EXIT_INTEGRITY)
