"""`keystead worker`."""

from typing import Annotated

import typer

from keystead.cli.app import this

app = typer.Typer(rich_markup_mode=None, add_completion=False)


@app.command()
def worker(
    context: typer.Context,
    concurrency: Annotated[int, typer.Option(metavar="N", min=0, max=256, help="Jobs at once; 0 for as many as are configured.")] = 0,
) -> None:
    """Run jobs, and once a minute the upkeep of service and key vault, until interrupted (Ctrl-C, or SIGTERM).

    Any number of workers may run on one home, and in a fleet on any number of machines. A worker that is killed loses at most one slice of
    work; another goes on with it. When told to stop, a worker gives its jobs back after the slice that runs; a second signal ends it at once.
    """
    current = this(context)
    home = current.options.home_path
    current.plan("worker", {"home": str(home), "concurrency": concurrency})
    from keystead.working import run_worker

    def announced(jobs: int) -> None:
        current.say(f"working in {home}, {jobs} jobs at once; stop with Ctrl-C")

    run_worker(home, concurrency=concurrency, announced=announced)
