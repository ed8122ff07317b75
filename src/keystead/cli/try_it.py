"""`keystead demo`; what it does is in `keystead.cli.demo`."""

from pathlib import Path
from typing import Annotated

import typer

from keystead.cli.app import this

app = typer.Typer(rich_markup_mode=None, add_completion=False)


@app.command()
def demo(
    context: typer.Context,
    mail: Annotated[Path | None, typer.Option(metavar="MBOX|MAILDIR", help="Mail to use; without it the demo writes its own.")] = None,
    separate_vaults: Annotated[
        bool, typer.Option("--separate-vaults", help="Run the customer's two key vaults in homes and processes of their own.")
    ] = False,
) -> None:
    """Run the whole main job in a home of its own: keys, policy, import, assignment, revocation, recovery.

    Each step says in one line what it shows. The home is ./demo-home unless --home is given; one that an earlier demo left there is removed first. Exit code 0 only if everything held.
    """
    app = this(context)
    home = Path(app.options.home).expanduser() if app.options.home else None
    app.plan("demo", {"home": str(home) if home else None, "mail": str(mail) if mail else None, "separate_vaults": separate_vaults})
    from keystead.cli.demo import run

    raise typer.Exit(run(home, mail, json_output=app.options.json, separate=separate_vaults))
