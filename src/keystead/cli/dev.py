"""`keystead dev`: for dev homes only."""

from typing import Annotated, Literal

import typer

from keystead.api.types.watching import AdvanceClock, SetFault
from keystead.cli.app import this
from keystead.cli.values import duration

app = typer.Typer(rich_markup_mode=None, add_completion=False)
clock = typer.Typer(rich_markup_mode=None, add_completion=False)
app.add_typer(clock, name="clock")

Kind = Literal[
    "timeout", "slow", "connection-refused", "dns", "tls", "http-500", "http-429", "http-401", "http-403", "firewall", "wrong-bytes", "none"
]


@app.callback()
def dev() -> None:
    """Clock and faults of homes made with `init --dev`."""


@app.command()
def fault(
    context: typer.Context,
    vault: Annotated[str, typer.Argument(metavar="VAULT")],
    kind: Annotated[Kind, typer.Argument(help="What goes wrong; `none` ends it.")],
) -> None:
    """Make a vault fail for the service's applications, in all processes; the customer's own commands go past it."""
    app = this(context)
    app.show(app.call("dev.fault", SetFault(vault=vault, fault=kind)))


@clock.callback()
def dev_clock() -> None:
    """The clock of a dev home."""


@clock.command()
def advance(context: typer.Context, by: Annotated[str, typer.Argument(metavar="DURATION", help="Such as 13h or 91d.")]) -> None:
    """Move the clock forward, in all processes of the home."""
    app = this(context)
    app.show(app.call("dev.clock.advance", AdvanceClock(milliseconds=duration(by))))
