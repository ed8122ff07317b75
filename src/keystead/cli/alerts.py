"""`keystead alerts`."""

from typing import Annotated

import typer

from keystead.api.types.watching import ListAlerts, TryHook
from keystead.cli.app import this

app = typer.Typer(rich_markup_mode=None, add_completion=False)


@app.callback()
def alerts() -> None:
    """What needs attention, and who is told."""


@app.command("list")
def list_alerts(
    context: typer.Context,
    kind: Annotated[list[str] | None, typer.Option(metavar="KIND", help="Of this kind only; may be given again.")] = None,
    over: Annotated[bool, typer.Option("--all", help="Those that are over, too.")] = False,
    limit: Annotated[int, typer.Option(metavar="N", min=1, max=5000)] = 100,
    everywhere: Annotated[
        bool, typer.Option("--everywhere", help="All tenants and the installation itself, for the operator; --tenant narrows it.")
    ] = False,
) -> None:
    """List alerts of the tenant, newest first, with what to do."""
    app = this(context)
    of_tenant = app.options.tenant if everywhere else ""
    request = ListAlerts(kinds=kind or [], lasting_only=not over, of_tenant=of_tenant, limit=limit)
    columns = ("severity", "kind", "subject_name", "subject_id", "raised", "last_seen", "times", *(("resolved",) if over else ()), "detail")
    found = app.call("alerts.everywhere" if everywhere else "alerts.list", request)
    app.show(found, ("tenant_id", *columns) if everywhere else columns)
    for text, mend in dict.fromkeys((alert.text, alert.mend) for alert in found if alert.resolved is None):
        app.say(f"{text}: {mend}")


@app.command("hooks")
def list_hooks(context: typer.Context) -> None:
    """List who is told of alerts, and whether that gets through."""
    app = this(context)
    app.show(app.call("alerts.hooks"), ("name", "kinds", "tenant", "failures", "failing_since", "next_try", "last_error"))


@app.command("test")
def test_hook(context: typer.Context, hook: Annotated[str, typer.Argument(metavar="HOOK", help="Its name in keystead.toml.")]) -> None:
    """Send a test message to a hook now, and say what became of it."""
    app = this(context)
    app.show(app.call("alerts.test", TryHook(hook=hook)))
