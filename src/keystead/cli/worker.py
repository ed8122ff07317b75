"""`keystead worker`."""

import signal
import threading
from types import FrameType

import typer

from keystead.cli.app import this

app = typer.Typer(rich_markup_mode=None, add_completion=False)


@app.command()
def worker(context: typer.Context) -> None:
    """Run jobs, and once a minute the upkeep of service and key vault, until interrupted (Ctrl-C, or SIGTERM).

    Any number of workers may run on one home. A worker that is killed loses at most one slice of work; the next one goes on with it.
    """
    app = this(context)
    home_path = app.options.home_path
    app.plan("worker", {"home": str(home_path)})
    from keystead.services.jobs.runner import run_until_stopped
    from keystead.vault.retention import purge_expired
    from keystead.wiring import open_home

    stopped = threading.Event()

    def stop(_signal: int, _frame: FrameType | None) -> None:
        stopped.set()

    home = open_home(home_path)

    def upkeep() -> None:
        purge_expired(home.vault)

    previous = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        app.say(f"working in {home_path}; stop with Ctrl-C")
        run_until_stopped(home.services, stopped, upkeep)
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
        home.close()
