"""`keystead demo`; what it does is in `keystead.cli.demo`."""

from pathlib import Path
from typing import Annotated

import typer

from keystead.cli.app import refuse_usage, this

app = typer.Typer(rich_markup_mode=None, add_completion=False)


@app.command()
def demo(
    context: typer.Context,
    mail: Annotated[Path | None, typer.Option(metavar="MBOX|MAILDIR", help="Mail to use; without it the demo writes its own.")] = None,
    files: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", exists=True, file_okay=False, help="A folder of files: show files instead of mail, or with --mail both."
        ),
    ] = None,
    separate_vaults: Annotated[
        bool, typer.Option("--separate-vaults", help="Run the customer's two key vaults in homes and processes of their own.")
    ] = False,
) -> None:
    """Run the whole main job in a home of its own: keys, policy, import, assignment, revocation, recovery; with --files the same for files.

    Each step says in one line what it shows. The home is ./demo-home unless --home is given; one that an earlier demo left there is removed first. Exit code 0 only if everything held.
    """
    app = this(context)
    home = Path(app.options.home).expanduser() if app.options.home else None
    if files and separate_vaults:
        refuse_usage("--separate-vaults is for the demo of mail", "leave out --files")
    plan = {"home": home, "mail": mail, "files": files}
    app.plan("demo", {name: str(path) if path else None for name, path in plan.items()} | {"separate_vaults": separate_vaults})
    from keystead.cli.demo import run

    raise typer.Exit(run(home, mail, json_output=app.options.json, separate=separate_vaults, files=files))
