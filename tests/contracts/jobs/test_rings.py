"""Rings beside job rows, on a real PostgreSQL: made with them, once, in order, and made again when they are lost (design section 7)."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import psycopg
import pytest

from keystead.adapters.jobs.rings import DROP_STUCK, HORIZON, ONE_AT_A_TIME, RING_LOST
from keystead.adapters.jobs.schema import NEWEST, check_schema, installed_schema
from keystead.core.errors import InvalidRequest, PreconditionFailed, Unavailable
from keystead.core.jobs import JobState
from keystead.services.jobs.rows import new_job
from keystead.wiring import create_home
from support.fleet import Fleet
from support.postgres import cluster

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from keystead.core.jobs import Job
    from keystead.services.context import Services
    from keystead.wiring import Home

pytestmark = pytest.mark.xdist_group("postgres")


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Fleet:
    return Fleet(tmp_path_factory.mktemp("fleet"), cluster().databases())


@pytest.fixture
def home(fleet: Fleet) -> Iterator[Home]:
    opened = fleet.open()
    yield opened
    opened.close()
    sql(fleet, "DELETE FROM procrastinate_jobs")
    sql(fleet, "DELETE FROM jobs")


@pytest.fixture
def services(home: Home) -> Services:
    return home.services


def sql(fleet: Fleet, statement: str, **values: object) -> list[tuple[object, ...]]:
    """As the service's own user, past the service."""
    with psycopg.connect(fleet.databases.keystead_url, autocommit=True) as connection:
        cursor = connection.execute(statement, values)
        return cursor.fetchall() if cursor.description else []


def rings(fleet: Fleet) -> list[tuple[object, ...]]:
    return sql(fleet, "SELECT args ->> 'job', status::text FROM procrastinate_jobs WHERE task_name = 'keystead:run' ORDER BY id")


def insert(services: Services, *jobs: Job) -> None:
    with services.db.write() as tx:
        tx.jobs.insert(jobs)


def claim(services: Services, job: Job) -> Job:
    now = services.clock.now()
    with services.db.write() as tx:
        claimed = tx.jobs.claim(services.owner, now, now + 30_000, only=job.id, alone=True)
    assert claimed is not None
    return claimed


def sweep(fleet: Fleet, services: Services) -> None:
    now = services.clock.now()
    sql(fleet, DROP_STUCK, seconds=60, now=now)
    sql(fleet, RING_LOST, now=now, limit=5_000, one_at_a_time=list(ONE_AT_A_TIME))


def test_job_and_ring_are_stored_together_or_not_at_all(fleet: Fleet, services: Services) -> None:
    kept, lost = new_job(services, "t", "clean", "kept"), new_job(services, "t", "clean", "lost")
    insert(services, kept)

    def crash() -> None:
        with services.db.write() as tx:
            tx.jobs.insert([lost])
            raise Unavailable("crash", "", "")

    with pytest.raises(Unavailable):
        crash()
    assert rings(fleet) == [(kept.id, "todo")]
    with services.db.read() as tx:
        assert tx.jobs.get(lost.id) is None


def test_a_job_that_is_put_back_is_rung_for_again_but_never_twice_at_a_time(fleet: Fleet, services: Services) -> None:
    job = new_job(services, "t", "clean", "s")
    insert(services, job)
    for _again in range(3):
        claimed = claim(services, job)
        with services.db.write() as tx:
            assert tx.jobs.save(_queued(claimed))
    assert rings(fleet) == [(job.id, "todo")]
    sql(fleet, "UPDATE procrastinate_jobs SET status = 'doing'")  # as if a worker had fetched it
    claimed = claim(services, job)
    with services.db.write() as tx:
        assert tx.jobs.save(_queued(claimed))
    assert rings(fleet) == [(job.id, "doing"), (job.id, "todo")]


def _queued(job: Job) -> Job:
    return replace(job, state=JobState.QUEUED)


def test_a_finished_job_is_not_rung_for(fleet: Fleet, services: Services) -> None:
    job = new_job(services, "t", "clean", "s")
    insert(services, job)
    sql(fleet, "DELETE FROM procrastinate_jobs")
    claimed = claim(services, job)
    with services.db.write() as tx:
        assert tx.jobs.save(replace(claimed, state=JobState.DONE))
    assert rings(fleet) == []
    sweep(fleet, services)
    assert rings(fleet) == []


def test_rings_come_in_the_order_of_urgency_and_when_due(fleet: Fleet, services: Services) -> None:
    now = services.clock.now()
    late = new_job(services, "t", "clean", "late", not_before=now + 5_000)
    far = new_job(services, "t", "clean", "far", not_before=now + HORIZON + 60_000)
    slow, quick = new_job(services, "t", "clean", "slow", priority=8), new_job(services, "t", "clean", "quick", priority=1)
    insert(services, late, far, slow, quick)
    order = sql(
        fleet,
        "SELECT args ->> 'job', (extract(epoch FROM scheduled_at) * 1000)::bigint FROM procrastinate_jobs ORDER BY priority DESC, id",
    )
    assert order == [(quick.id, None), (late.id, now + 5_250), (slow.id, None)]  # what is far off is left to the sweep


def test_a_ring_for_later_is_brought_forward(fleet: Fleet, services: Services) -> None:
    job = new_job(services, "t", "clean", "s", not_before=services.clock.now() + 60_000)
    insert(services, job)
    sql(fleet, "UPDATE jobs SET not_before = 0")
    sweep(fleet, services)
    assert sql(fleet, "SELECT args ->> 'job', scheduled_at FROM procrastinate_jobs") == [(job.id, None)]


def test_two_changes_of_one_hierarchy_have_one_lock_and_moves_have_none(fleet: Fleet, services: Services) -> None:
    insert(services, *(new_job(services, "t", kind, "policy") for kind in ("change-hierarchy", "change-hierarchy", "move-mailbox")))
    assert sql(fleet, "SELECT lock FROM procrastinate_jobs ORDER BY id") == [("change-hierarchy:policy",)] * 2 + [(None,)]


def test_the_sweep_rings_for_what_is_due_and_for_what_a_dead_runner_held_and_for_nothing_else(fleet: Fleet, services: Services) -> None:
    now = services.clock.now()
    due, abandoned, running, later = (new_job(services, "t", "clean", str(number)) for number in range(4))
    insert(services, due, abandoned, running, later)
    claim(services, abandoned)
    claim(services, running)
    sql(fleet, "UPDATE jobs SET lease_until = %(now)s WHERE id = %(id)s", now=now - 1, id=abandoned.id)
    sql(fleet, "UPDATE jobs SET not_before = %(at)s WHERE id = %(id)s", at=now + 60_000, id=later.id)
    sql(fleet, "DELETE FROM procrastinate_jobs")
    for _again in range(2):
        sweep(fleet, services)
        assert sorted(rings(fleet)) == sorted([(due.id, "todo"), (abandoned.id, "todo")])


def test_a_ring_that_a_living_worker_lost_is_dropped_and_its_lock_with_it(fleet: Fleet, services: Services) -> None:
    job = new_job(services, "t", "change-hierarchy", "policy")
    insert(services, job)
    sql(fleet, "UPDATE procrastinate_jobs SET status = 'doing'")
    sweep(fleet, services)
    assert rings(fleet) == [(job.id, "doing"), (job.id, "todo")]
    sql(fleet, "UPDATE procrastinate_events SET at = at - interval '61 seconds'")
    sweep(fleet, services)
    assert rings(fleet) == [(job.id, "todo")]
    sql(fleet, "UPDATE procrastinate_jobs SET status = 'doing'")
    sql(fleet, "UPDATE procrastinate_events SET at = at - interval '61 seconds'")
    claim(services, job)
    sweep(fleet, services)
    assert rings(fleet) == [(job.id, "doing")]  # a job that runs is not stuck


def test_the_ring_of_a_runner_that_is_known_to_be_dead_is_dropped_at_once(fleet: Fleet, services: Services) -> None:
    job = new_job(services, "t", "change-hierarchy", "policy")
    insert(services, job)
    sql(fleet, "UPDATE procrastinate_jobs SET status = 'doing'")
    claim(services, job)
    with services.db.write() as tx:
        tx.jobs.release(services.owner)
    sweep(fleet, services)
    assert rings(fleet) == [(job.id, "todo")]


def test_only_the_job_that_is_rung_for_is_claimed(fleet: Fleet, services: Services) -> None:
    parent = new_job(services, "t", "clean", "parent")
    child = new_job(services, "t", "clean", "child", parent_id=parent.id)
    insert(services, parent, child)
    claim(services, parent)
    now = services.clock.now()
    with services.db.write() as tx:
        assert tx.jobs.claim("another", now, now + 30_000, only=parent.id, alone=True) is None
        found = tx.jobs.claim("another", now, now + 30_000, only=parent.id)
    assert found is not None
    assert found.id == child.id


def test_the_installed_procrastinate_is_the_one_whose_tables_are_made(monkeypatch: pytest.MonkeyPatch) -> None:
    assert installed_schema() == NEWEST
    check_schema()
    monkeypatch.setattr("keystead.adapters.jobs.schema.NEWEST", "03.00.00_01_older.sql")
    with pytest.raises(PreconditionFailed, match=r"03\.04\.00"):
        check_schema()


def test_a_home_of_files_cannot_be_rung(tmp_path: Path) -> None:
    (tmp_path / "keystead.toml").write_text('[worker]\nrunner = "procrastinate"\n')
    with pytest.raises(InvalidRequest, match="needs a database on PostgreSQL"):
        create_home(tmp_path, dev=True, operator="operator@provider.example")
