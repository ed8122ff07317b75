"""`keystead files`."""

from typing import Annotated, Literal

import typer

from keystead.api.types import file_policies as t
from keystead.cli.app import App, this
from keystead.cli.output import document

app = typer.Typer(rich_markup_mode=None, add_completion=False)

GeoName = Annotated[str, typer.Option("--geo", metavar="GEO", help="Which geo; may be left out where the tenant has one.")]
Primary = Annotated[str, typer.Option(metavar="KEY-URI", help="A key identifier with version.")]
Secondary = Annotated[str, typer.Option(metavar="KEY-URI", help="Another, in another vault, subscription and region.")]
NoWait = Annotated[bool, typer.Option("--no-wait", help="Do not wait; a worker or `job wait` does the work.")]


@app.callback()
def files() -> None:
    """Customer keys for the files of a geo: one policy for all its sites."""


@app.command()
def register(context: typer.Context, primary: Primary, secondary: Secondary, geo: GeoName = "", no_wait: NoWait = False) -> None:
    """Put the files of a geo under two customer keys. What is there is re-encrypted, while people read and write."""
    app = this(context)
    _finish(app, app.call("files.register", t.RegisterFiles(geo=geo, primary=primary, secondary=secondary)), wait=not no_wait)


@app.command()
def status(context: typer.Context, geo: GeoName = "") -> None:
    """Show both keys, the state, and how many of the sites are done."""
    app = this(context)
    app.show(app.call("files.status", t.NameGeo(geo=geo)))


@app.command()
def health(context: typer.Context, geo: GeoName = "") -> None:
    """Ask both keys now."""
    app = this(context)
    app.show(app.call("files.health", t.NameGeo(geo=geo)))


@app.command()
def roll(
    context: typer.Context,
    which: Annotated[Literal["primary", "secondary"], typer.Option(help="Which of the two keys.")],
    key: Annotated[str, typer.Option(metavar="KEY-URI", help="What takes its place: another version, or another key, with version.")],
    geo: GeoName = "",
    no_wait: NoWait = False,
) -> None:
    """Put another key in the place of one of the two. Every site key is wrapped anew; to roll both, wait for the first."""
    app = this(context)
    _finish(app, app.call("files.roll", t.RollFiles(geo=geo, which=which, key=key)), wait=not no_wait)


@app.command()
def recover(context: typer.Context, primary: Primary, secondary: Secondary, geo: GeoName = "", no_wait: NoWait = False) -> None:
    """When both keys are lost: have the availability key used, once and on record, and two new keys take their place."""
    app = this(context)
    _finish(app, app.call("files.recover", t.RecoverFiles(geo=geo, primary=primary, secondary=secondary)), wait=not no_wait)


@app.command()
def revert(context: typer.Context, geo: GeoName = "", no_wait: NoWait = False) -> None:
    """Put the files of a geo back under the provider's keys, re-encrypted. The customer's keys must stay usable until it is done."""
    app = this(context)
    _finish(app, app.call("files.revert", t.NameGeo(geo=geo)), wait=not no_wait)


def _finish(app: App, started: t.FilesStatus, *, wait: bool) -> None:
    """Show what was asked for; by default when its job is done, with how that ended."""
    if not wait or started.job_id is None:
        app.show(started)
        return
    job = app.wait(started.job_id)
    now = app.call("files.status", t.NameGeo(geo=started.geo))
    details = {"job": job} if app.options.json else {}
    app.show(document(now, warnings=started.warnings, job_state=job.state, progress_percent=job.progress_percent, **details))
    app.finish_job(job)
