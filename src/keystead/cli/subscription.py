"""`keystead subscription`."""

from typing import Annotated, Literal

import typer

from keystead.api.types.vaults import SubscriptionCreate, SubscriptionNamed
from keystead.cli.app import this

app = typer.Typer(rich_markup_mode=None, add_completion=False)

Name = Annotated[str, typer.Argument(help="Name or id.")]
COLUMNS = ("name", "kind", "state", "protection", "id")


@app.callback()
def subscription() -> None:
    """Subscriptions that hold key vaults."""


@app.command()
def create(
    context: typer.Context,
    name: str,
    kind: Annotated[
        Literal["paid", "trial", "free", "sponsored", "msdn", "legacy"], typer.Option(help="Customer keys need a paid one.")
    ] = "paid",
) -> None:
    """Make a subscription."""
    app = this(context)
    app.show(app.call("subscription.create", SubscriptionCreate(name=name, kind=kind)))


@app.command()
def protect(context: typer.Context, name: Name) -> None:
    """Register a subscription for mandatory retention, so that it cannot be cancelled at once and keys in it stay recoverable."""
    app = this(context)
    app.show(app.call("subscription.protect", SubscriptionNamed(name=name)))


@app.command()
def cancel(context: typer.Context, name: Name) -> None:
    """Cancel a subscription; what lies in it stops working."""
    app = this(context)
    app.show(app.call("subscription.cancel", SubscriptionNamed(name=name)))


@app.command("list")
def list_subscriptions(context: typer.Context) -> None:
    """List the tenant's subscriptions."""
    app = this(context)
    app.show(app.call("subscription.list"), COLUMNS)
