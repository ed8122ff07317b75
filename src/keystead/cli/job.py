"""`keystead job`."""

from typing import Annotated, Literal, cast

import typer

from keystead.api.types.watching import ListJobs, NameJob
from keystead.cli.app import this
from keystead.cli.values import words

app = typer.Typer(rich_markup_mode=None, add_completion=False)

JobId = Annotated[str, typer.Argument(metavar="JOB", help="Id of a job.")]
State = Literal["queued", "running", "done", "failed", "cancelled"]


@app.callback()
def job() -> None:
    """Long work."""


@app.command("list")
def list_jobs(
    context: typer.Context,
    state: Annotated[list[str] | None, typer.Option(metavar="STATE", help="Only queued, running, done, failed or cancelled ones.")] = None,
    limit: Annotated[int, typer.Option(metavar="N", min=1, max=5000)] = 100,
    after: Annotated[str, typer.Option(metavar="JOB", help="Those after this one.")] = "",
) -> None:
    """List jobs of the tenant, newest first."""
    app = this(context)
    # The service checks the names, as for every client.
    states = cast("list[State]", words(state))
    found = app.call("job.list", ListJobs(states=states, after=after, limit=limit))
    app.show(found, ("id", "kind", "state", "progress_percent", "created", "finished", "error"))


@app.command()
def show(context: typer.Context, job: JobId) -> None:
    """Show one job with its progress."""
    app = this(context)
    app.show(app.call("job.show", NameJob(job=job)))


@app.command()
def wait(context: typer.Context, job: JobId) -> None:
    """Get on with a job until it is finished. A job that failed gives the exit code of its cause."""
    app = this(context)
    app.plan("job.wait", {"job": job})
    view = app.wait(job)
    app.show(view)
    app.finish_job(view)


@app.command()
def cancel(context: typer.Context, job: JobId) -> None:
    """Stop a job; what it did stays done, and what it did not do is left as it is."""
    app = this(context)
    app.show(app.call("job.cancel", NameJob(job=job)))
