"""`keystead settings`."""

from typing import Annotated

import typer

from keystead.api.types.watching import SetSetting
from keystead.cli.app import this
from keystead.core.errors import NotFound

app = typer.Typer(rich_markup_mode=None, add_completion=False)


@app.callback()
def settings() -> None:
    """What can be set: defaults, then the home's keystead.toml, then the environment, then `settings set` (numbers alone); the last wins."""


@app.command("get")
def get_settings(
    context: typer.Context, name: Annotated[str, typer.Argument(metavar="[NAME]", help="One setting; all where none is named.")] = ""
) -> None:
    """Show the effective settings and where each comes from. Times are in milliseconds."""
    app = this(context)
    found = app.call("settings.get")
    if not name:
        app.show(found)
        return
    one = next((setting for setting in found if setting.name == name), None)
    if one is None:
        raise NotFound("setting_unknown", f"there is no setting {name}", "keystead settings get lists them all")
    app.show(one)


@app.command("set")
def set_setting(
    context: typer.Context, name: str, value: Annotated[str, typer.Argument(help="Times may have a unit: 500ms, 90s, 5m, 4h, 7d.")]
) -> None:
    """Store a setting for the whole installation; running processes read it when they start again."""
    app = this(context)
    app.show(app.call("settings.set", SetSetting(name=name, value=value)))
