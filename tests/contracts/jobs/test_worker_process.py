"""`keystead worker` as a process, inline on a home and rung in a fleet: how it runs jobs, how it stops, and who goes on when it does not."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from keystead.api.types import mailboxes as m
from keystead.api.types import watching as w
from keystead.wiring import create_home, open_home
from keystead.working import CUT_OFF
from support.fleet import Fleet, start_worker, tenant
from support.postgres import cluster
from support.world import message

if TYPE_CHECKING:
    from collections.abc import Iterator

    from keystead.client.client import Client
    from keystead.wiring import Home
    from support.fleet import Worker

pytestmark = pytest.mark.xdist_group("postgres")


@dataclass
class Installation:
    """A home or a fleet, with a mailbox that can be assigned."""

    path: Path
    home: Home
    admin: Client

    def assign(self) -> str:
        """Ask for a change of hierarchy; the job's id."""
        asked: m.AssignmentView = self.admin.call("mailbox.assign", m.AssignPolicy(policy="Mail", upns=["alex@contoso.example"]))
        return asked.job_id

    def state(self, job: str) -> str:
        view: w.JobView = self.admin.call("job.show", w.NameJob(job=job))
        return view.state

    def wait_for(self, job: str, state: str) -> None:
        until = time.monotonic() + 60
        while self.state(job) != state:
            assert time.monotonic() < until, self.admin.call("job.show", w.NameJob(job=job))
            time.sleep(0.02)  # polling for another process

    def hang(self, *, on: bool) -> None:
        """Make both vaults silent, or let them answer again: a slice that asks them waits for a minute (`vault_timeout`)."""
        operator = self.home.client(self.home.as_operator())
        for vault in ("contosov1", "contosov2"):
            operator.call("dev.fault", w.SetFault(vault=vault, fault="timeout" if on else "none"))


@pytest.fixture(params=["inline", "procrastinate"])
def installation(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Installation]:
    settings = {"vault_timeout": 60_000, "job_lease": 5_000}
    path = tmp_path / "home"
    if request.param == "inline":
        path.mkdir(mode=0o700)
        (path / "keystead.toml").write_text("[settings]\n" + "".join(f"{name} = {value}\n" for name, value in settings.items()))
        create_home(path, dev=True, operator="operator@provider.example")
    else:
        Fleet(path, cluster().databases(), tables={"settings": settings})
    home = open_home(path)
    admin = tenant(lambda who, which: home.client(home.as_person(who) if who else home.as_operator(), which))
    admin.call("mailbox.create", m.CreateMailbox(upn="alex@contoso.example"))
    items = [m.ImportItem(position=1, ordinal=1, folder="Inbox", data=message(1))]
    admin.call("mailbox.import", m.ImportBatch(upn="alex@contoso.example", items=items))
    yield Installation(path, home, admin)
    home.close()


@pytest.fixture
def workers() -> Iterator[list[Worker]]:
    """Those that a test started; ended with it."""
    started: list[Worker] = []
    yield started
    for worker in started:
        if worker.process.poll() is None:
            worker.process.kill()
            worker.process.wait(10)


def handled(pid: int) -> None:
    """Wait until the process has taken notice of SIGTERM: it does not catch another."""
    while int(_status(pid, "SigCgt"), 16) & (1 << (signal.SIGTERM - 1)):
        time.sleep(0.01)  # polling for another process


def _status(pid: int, name: str) -> str:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(line.partition(":")[2].strip() for line in lines if line.startswith(f"{name}:"))


def test_a_worker_runs_what_is_asked_for_and_ends_when_told(installation: Installation, workers: list[Worker]) -> None:
    workers.append(start_worker(installation.path, "--concurrency", "3"))
    job = installation.assign()
    installation.wait_for(job, "done")
    assert installation.admin.call("mailbox.statistics", m.NameMailbox(upn="alex@contoso.example")).is_encrypted
    assert "3 jobs at once" in workers[0].log.read_text()
    assert workers[0].stop() == 0
    assert not list((installation.path / "run").glob("runner-*"))
    with installation.home.services.db.read() as tx:
        assert tx.jobs.running_owners() == []
        assert tx.jobs.exists("upkeep", "")
        assert tx.hooks.last_beat() > 0


def test_a_second_signal_ends_a_worker_at_once_and_another_goes_on(installation: Installation, workers: list[Worker]) -> None:
    installation.hang(on=True)
    workers.append(start_worker(installation.path))
    job = installation.assign()
    installation.wait_for(job, "running")
    pid = workers[0].process.pid
    os.kill(pid, signal.SIGTERM)
    handled(pid)
    assert workers[0].process.poll() is None  # the slice is given its time
    assert workers[0].stop() == -signal.SIGTERM
    installation.hang(on=False)
    workers.append(start_worker(installation.path))
    installation.wait_for(job, "done")


def test_a_worker_whose_jobs_do_not_give_up_is_cut_off_and_another_goes_on(installation: Installation, workers: list[Worker]) -> None:
    installation.hang(on=True)
    workers.append(start_worker(installation.path, environment={"KEYSTEAD_WORKER_STOP_TIMEOUT": "300"}))
    job = installation.assign()
    installation.wait_for(job, "running")
    assert workers[0].stop() == CUT_OFF
    assert "cut off" in workers[0].log.read_text()
    installation.hang(on=False)
    workers.append(start_worker(installation.path))
    installation.wait_for(job, "done")
