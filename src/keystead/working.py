"""Putting a worker together: a home, and what hands it jobs."""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from typing import TYPE_CHECKING

from keystead.core.configuration import Runner
from keystead.core.errors import InvalidRequest
from keystead.frontends.logs import start_log
from keystead.services.alerting import standing_watch
from keystead.services.jobs.runner import begin, job_threads, run_rung, sweep
from keystead.wiring import open_home

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from keystead.wiring import Home

GRACE_SECONDS = 1.0
"""Between what a slice is given to end and the end of the process: for what it then writes."""
CUT_OFF = 75
"""Exit status of a worker whose jobs did not give up in time (EX_TEMPFAIL)."""

_log = logging.getLogger("keystead.jobs")


def run_worker(path: Path, *, concurrency: int, announced: Callable[[int], None]) -> None:
    """Run jobs of a home until SIGTERM or SIGINT; the jobs under way give up at the end of a slice. A second signal ends it at once.

    Args:
        path: the home.
        concurrency: jobs at once; 0 for as many as are configured.
        announced: told how many jobs it runs at once, when it begins.

    Raises:
        KeysteadError: the home cannot be used.
    """
    home = open_home(path)
    start_log(home.configuration.log)
    stopped = threading.Event()
    limit = home.configuration.worker.stop_timeout / 1_000

    def stop(_number: int, _frame: object) -> None:
        stopped.set()
        for each in previous:
            signal.signal(each, signal.SIG_DFL)
        timer = threading.Timer(limit, _cut_off)
        timer.daemon = True
        timer.start()

    previous = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        jobs = concurrency or home.configuration.worker.concurrency
        work = _fleet(home, jobs) if home.configuration.worker.runner is Runner.PROCRASTINATE else _inline(home, jobs)
        announced(jobs)
        with standing_watch(home.services):
            work(stopped)
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
        home.close()


def _inline(home: Home, concurrency: int) -> Callable[[threading.Event], None]:
    """Threads that look for jobs in the database."""

    def work(stopped: threading.Event) -> None:
        threads = job_threads(home.services, stopped, concurrency)
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    return work


def _fleet(home: Home, concurrency: int) -> Callable[[threading.Event], None]:
    """Procrastinate, told by PostgreSQL."""
    from keystead.adapters.jobs.worker import FleetWorker  # noqa: PLC0415 - only a fleet needs it
    from keystead.adapters.sql.postgresql import login  # noqa: PLC0415 - as above

    if concurrency >= home.configuration.database.pool:
        raise InvalidRequest(
            "configuration_invalid",
            f"{concurrency} jobs at once need more than the {home.configuration.database.pool} connections of [database]",
            "raise its `pool` in keystead.toml, or run more workers",
        )

    def work(stopped: threading.Event) -> None:
        FleetWorker(
            lambda: login(home.configuration.database, home.path),
            begin=lambda: begin(home.services),
            run=lambda job: run_rung(home.services, job, stopped.is_set),
            sweep=lambda: sweep(home.services),
            now=home.services.clock.now,
            concurrency=concurrency,
        ).work(stopped)

    return work


def _cut_off() -> None:
    """The limit is over. What is cut off here is a slice that has not committed: it changes nothing, and is done again by another worker."""
    _log.warning("jobs did not give up in time and are cut off")
    time.sleep(GRACE_SECONDS)
    os._exit(CUT_OFF)
