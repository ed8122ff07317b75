"""`keystead audit`."""

from typing import Annotated

import typer

from keystead.api.types.watching import SearchAudit
from keystead.cli.app import this
from keystead.cli.values import time, words

app = typer.Typer(rich_markup_mode=None, add_completion=False)


@app.callback()
def audit() -> None:
    """The audit log."""


@app.command()
def search(
    context: typer.Context,
    operations: Annotated[
        list[str] | None, typer.Option(metavar="LIST", help="Only these, such as Set-Mailbox; repeat it or use commas.")
    ] = None,
    start: Annotated[str | None, typer.Option(metavar="TIME", help="ISO 8601; by default 7 days before the end.")] = None,
    end: Annotated[str | None, typer.Option(metavar="TIME", help="ISO 8601; by default now.")] = None,
    users: Annotated[list[str] | None, typer.Option(metavar="LIST", help="Only acts of these.")] = None,
    item: Annotated[str, typer.Option(metavar="ID", help="Only records about this object.")] = "",
    limit: Annotated[int, typer.Option(metavar="N", min=1, max=5000, help="How many at most.")] = 100,
    after: Annotated[str, typer.Option(metavar="ID", help="Those after this record.")] = "",
    installation: Annotated[
        bool, typer.Option("--installation", help="For the operator: acts about no tenant, such as settings and the key store.")
    ] = False,
) -> None:
    """Search the log, newest first; at most 90 days at a time. What is not named does not restrict."""
    app = this(context)
    request = SearchAudit(
        operations=words(operations), start=time(start), end=time(end), users=words(users), item=item, after=after, limit=limit
    )
    route = "audit.installation" if installation else "audit.search"
    app.show(app.call(route, request), ("creation_time", "operation", "user_id", "result_status", "object_id"))
