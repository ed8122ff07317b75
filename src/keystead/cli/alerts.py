"""`keystead alerts`."""

from typing import Annotated

import typer

from keystead.api.types.watching import ListAlerts
from keystead.cli.app import this

app = typer.Typer(rich_markup_mode=None, add_completion=False)


@app.callback()
def alerts() -> None:
    """What needs attention."""


@app.command("list")
def list_alerts(
    context: typer.Context,
    limit: Annotated[int, typer.Option(metavar="N", min=1, max=5000)] = 100,
    everywhere: Annotated[bool, typer.Option("--everywhere", help="All tenants and the installation itself, for the operator.")] = False,
) -> None:
    """List alerts of the tenant, newest first; those that are over say since when."""
    app = this(context)
    route = "alerts.everywhere" if everywhere else "alerts.list"
    app.show(app.call(route, ListAlerts(limit=limit)), ("raised", "resolved", "kind", "subject_id", "detail"))
