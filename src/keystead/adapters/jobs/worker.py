"""A worker of a fleet: Procrastinate fetches rings and hands each to a thread that runs the job it names.

Everything Procrastinate does here may be lost without loss: jobs are rows, claimed under a lease. So when PostgreSQL goes away the whole
session is thrown away and another one is begun when it is back. What a dead session or worker leaves behind is swept up, every ten seconds
by one worker of the fleet:

1. rings of workers whose heartbeat stopped go back into the queue (Procrastinate's recommended periodic task);
2. rings that a living worker lost with its connection are dropped;
3. jobs that are due, or whose runner is gone, and that no ring waits for are rung for.
"""

from __future__ import annotations

import asyncio
import logging
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import psycopg
from procrastinate import App, PsycopgConnector
from procrastinate.exceptions import ConnectorException, UniqueViolation
from procrastinate.jobs import DeleteJobCondition, Status
from psycopg_pool import AsyncConnectionPool

from keystead.adapters.jobs.rings import DROP_STUCK, MOST_LOST, ONE_AT_A_TIME, QUEUE, RING_LOST, RUN, STUCK_SECONDS
from keystead.adapters.jobs.schema import check_schema
from keystead.core.errors import KeysteadError

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable

    from procrastinate.jobs import Job as Ring

SWEEP = "keystead:sweep"
EVERY_TEN_SECONDS = "* * * * * */10"
HEARTBEAT_SECONDS, SILENT_SECONDS = 5.0, 20.0
"""How often a worker shows Procrastinate that it lives, and after which silence its rings go to others."""
POLL_SECONDS = 2.0
"""How often a worker looks for rings that come due; for new ones PostgreSQL wakes it at once."""
CONNECT_SECONDS = 5.0
AGAIN_SECONDS = 1.0
"""How long a worker waits before it begins again after it lost the database."""
_TICK_SECONDS = 0.2
_PLANNER = "-c enable_sort=off -c enable_bitmapscan=off"
"""The queue is read from its index in order, whatever the statistics say: they are of an hour when it was empty, and by them PostgreSQL
would sort all that waits for each ring that is fetched (50,000 rings: 30 ms each instead of 0.2)."""

_QUIET = {"procrastinate": logging.CRITICAL, "psycopg.pool": logging.ERROR}
"""They tell of every ring, and of a database that is away many times over; the worker tells once, and of jobs rather than of rings."""
_log = logging.getLogger("keystead.jobs")


class FleetWorker:
    """Runs rung jobs until it is told to stop.

    Args:
        login: what psycopg needs to connect to the database of the jobs; asked before each session, so that passwords can change.
        begin: give up what an earlier session of this worker still holds: called when none of its jobs runs.
        run: run a job for a while, if it is due and nobody else runs it.
        sweep: what the service itself does in each sweep: free the jobs of the dead.
        now: milliseconds since the epoch.
        concurrency: jobs at once.
    """

    def __init__(
        self,
        login: Callable[[], dict[str, Any]],
        *,
        begin: Callable[[], object],
        run: Callable[[str], object],
        sweep: Callable[[], object],
        now: Callable[[], int],
        concurrency: int,
    ) -> None:
        check_schema()
        self._login = login
        self._begin = begin
        self._run = run
        self._service_sweep = sweep
        self._now = now
        self._concurrency = concurrency

    def work(self, stopped: threading.Event) -> None:
        """Run jobs until stopped, whatever becomes of the database meanwhile; returns when the last slice has ended."""
        for name, level in _QUIET.items():
            logging.getLogger(name).setLevel(level)
        while not stopped.is_set():
            try:
                asyncio.run(self._until(stopped))
                cause = "the connection was lost"
            except (ConnectorException, KeysteadError, psycopg.Error, OSError) as error:
                cause = _first_line(error)
            if not stopped.is_set():
                _log.warning("the database is away, the worker waits for it: %s", cause)
                stopped.wait(AGAIN_SECONDS)

    async def _until(self, stopped: threading.Event) -> None:
        """One session; ends when stopped, or with the error that ended it."""
        session = asyncio.create_task(self._session())
        while not (stopped.is_set() or session.done()):
            await asyncio.wait({session}, timeout=_TICK_SECONDS)
        session.cancel()
        with suppress(asyncio.CancelledError):
            await session

    async def _session(self) -> None:
        threads = ThreadPoolExecutor(self._concurrency + 1, thread_name_prefix="job")
        loop = asyncio.get_running_loop()
        loop.set_default_executor(threads)
        loop.set_exception_handler(_without_the_database)
        login = self._login()
        login["options"] = f"{login.get('options', '')} {_PLANNER}".strip()
        pool = AsyncConnectionPool(
            kwargs=login,
            min_size=1,
            max_size=3,
            timeout=CONNECT_SECONDS,
            open=False,
            check=AsyncConnectionPool.check_connection,
            name="rings",
        )
        async with pool:
            await pool.wait(CONNECT_SECONDS)
            app = App(connector=PsycopgConnector())
            self._add_tasks(app, pool)
            async with app.open_async(pool):
                await asyncio.to_thread(self._begin)
                await self._sweep(app, pool)
                await app.run_worker_async(
                    queues=[QUEUE],
                    concurrency=self._concurrency,
                    install_signal_handlers=False,
                    delete_jobs=DeleteJobCondition.ALWAYS,
                    fetch_job_polling_interval=POLL_SECONDS,
                    abort_job_polling_interval=60.0,
                    update_heartbeat_interval=HEARTBEAT_SECONDS,
                    stalled_worker_timeout=SILENT_SECONDS,
                )

    def _add_tasks(self, app: App, pool: AsyncConnectionPool) -> None:
        @app.task(name=RUN, queue=QUEUE)
        def run(job: str) -> None:
            try:
                self._run(job)
            except Exception as error:  # noqa: BLE001 - the row tells how far the job is; the sweep rings again
                _log.warning("the job %s waits for the next sweep: %s", job, _first_line(error))

        @app.periodic(cron=EVERY_TEN_SECONDS)
        @app.task(name=SWEEP, queue=QUEUE, queueing_lock=SWEEP, priority=100)
        async def sweep(timestamp: int) -> None:  # noqa: ARG001 - Procrastinate names the tick
            await self._sweep(app, pool)

    async def _sweep(self, app: App, pool: AsyncConnectionPool) -> None:
        for ring in await app.job_manager.get_stalled_jobs(queue=QUEUE, seconds_since_heartbeat=SILENT_SECONDS):
            await _put_back(app, ring)
        await asyncio.to_thread(self._service_sweep)
        now = self._now()
        async with pool.connection() as connection:
            dropped = await connection.execute(DROP_STUCK, {"seconds": STUCK_SECONDS, "now": now})
            lost = await connection.execute(RING_LOST, {"now": now, "limit": MOST_LOST, "one_at_a_time": list(ONE_AT_A_TIME)})
        if dropped.rowcount or lost.rowcount:
            _log.info("swept: %d rings dropped, %d made again", dropped.rowcount, lost.rowcount)


async def _put_back(app: App, ring: Ring) -> None:
    """Give a dead worker's ring to the others; where another ring for the same job waits already, that one will do."""
    assert ring.id is not None
    _log.info("the worker of the job %s fell silent; its ring goes to another", ring.task_kwargs.get("job", ring.task_name))
    try:
        await app.job_manager.retry_job(ring)
    except UniqueViolation:
        await app.job_manager.finish_job_by_id_async(ring.id, Status.FAILED, delete_job=True)
    except ConnectorException as error:  # the worker came back and ended it
        _log.info("the ring %d was ended meanwhile: %s", ring.id, _first_line(error))


def _without_the_database(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """A ring that could not be ended because the database went away is swept up later, and no defect."""
    if not isinstance(context.get("exception"), ConnectorException):
        loop.default_exception_handler(context)


def _first_line(error: BaseException) -> str:
    """What an error says, or what caused it: Procrastinate's own say little."""
    return str(error.__cause__ or error).strip().partition("\n")[0]
