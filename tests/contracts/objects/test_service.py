"""Keystead on remote containers: what it does when they lie, lose answers, or keep what nobody names."""

from __future__ import annotations

import os
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import TYPE_CHECKING, Any

import pytest

from contracts.objects.remotes import REMOTE
from keystead.adapters.objects import remote as adapter
from keystead.adapters.objects.memory import MemoryObjects
from keystead.adapters.objects.open import open_objects
from keystead.api.errors import status_of
from keystead.core.configuration import ObjectsConfig
from keystead.core.errors import IntegrityFailure, Unavailable
from keystead.core.jobs import JobState
from keystead.ports.clock import DAY
from keystead.services.jobs.runner import run_due, run_one
from keystead.services.jobs.upkeep import schedule_upkeep
from support.objects import Exchange, Proxy, Store, flip_bytes, lose_answer, says
from support.world import World, message

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from keystead.ports.objects import ObjectInfo, ObjectStore
    from support.world import MailboxWorld, TenantWorld

pytestmark = REMOTE
MIB = 1024 * 1024
SMALL = [message(index, size=2_000) for index in range(12)]
LARGE = [message(50 + index, size=3 * MIB) for index in range(2)]


@pytest.fixture(autouse=True)
def _no_long_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adapter, "FIRST_WAIT", 0.001)


@pytest.fixture(params=["s3", "azure"])
def proxy(request: pytest.FixtureRequest) -> Iterator[Proxy]:
    """In front of one store; the other keeps a second container, untouched."""
    store: Store = request.getfixturevalue("moto_store" if request.param == "s3" else "azure_store")
    with Proxy(store.port) as made:
        yield made


@pytest.fixture
def contoso(request: pytest.FixtureRequest, proxy: Proxy, tmp_path: Path) -> Iterator[TenantWorld]:
    """A tenant of an installation whose objects lie in two containers of that store."""
    kind = request.node.callspec.params["proxy"]
    store: Store = request.getfixturevalue("moto_store" if kind == "s3" else "azure_store")
    prefix = f"service/{os.urandom(8).hex()}"
    containers = tuple(store.container(name, tmp_path, port=proxy.port, prefix=prefix) for name in ("c0", "c1"))
    home = tmp_path / "home"
    home.mkdir()
    with on(World(home), open_objects(ObjectsConfig(containers, 20_000, 4), tmp_path)) as world:
        yield world.tenant()


@contextmanager
def on(world: World, objects: ObjectStore) -> Iterator[World]:
    """A world whose first process keeps its objects elsewhere than in its folder."""
    process = world.process("elsewhere", objects=objects)
    world.services, world.vault, world.vaults, world.dispatcher = process.services, process.vault, process.vaults, process.dispatcher
    try:
        yield world
    finally:
        world.close()


def filled(contoso: TenantWorld) -> MailboxWorld:
    box = contoso.mailbox("alice")
    box.add(*SMALL)
    for data in LARGE:
        box.add_large(data)
    return box


def listed(contoso: TenantWorld) -> set[str]:
    return {info.ref for info in contoso.world.services.objects.all_objects()}


def named(contoso: TenantWorld) -> set[str]:
    return {ref for (ref,) in contoso.world.sql("SELECT DISTINCT object_ref FROM items")}


def failures(contoso: TenantWorld) -> list[Any]:
    return [record for record in contoso.audit("MailItemsAccessed") if record.result_status == "Failed"]


def test_mail_comes_in_moves_and_goes_through_lost_answers_and_nothing_is_there_twice(contoso: TenantWorld, proxy: Proxy) -> None:
    """Every third request is carried out and its answer lost, every seventh is refused for a moment."""
    count = 0

    def unreliable(exchange: Exchange) -> None:
        nonlocal count
        count += 1
        (lose_answer if not count % 3 else says(503, "SlowDown") if not count % 7 else Exchange.forward)(exchange)

    proxy.always = unreliable
    box = filled(contoso)
    assert box.read_all() == sorted(SMALL + LARGE)
    assert box.add(*SMALL).already_present == len(SMALL)
    assert listed(contoso) == named(contoso)
    before = named(contoso)
    contoso.assign(contoso.policy(), box)
    assert box.read_all() == sorted(SMALL + LARGE)
    contoso.world.clock.advance(DAY)
    run_due(contoso.world.services)
    assert listed(contoso) == named(contoso)
    assert before.isdisjoint(named(contoso)), "old objects went after the move"


def test_a_store_that_gives_another_objects_bytes_gives_no_data_R_114(contoso: TenantWorld, proxy: Proxy) -> None:
    """The bytes are a whole sealed object of the same mailbox, of the same length and key: only its place is another."""
    box = filled(contoso)
    answers: dict[str, tuple[int, dict[str, str], bytes]] = {}
    places: dict[str, list[str]] = {}

    def watched(exchange: Exchange) -> None:
        exchange.forward()
        if exchange.method == "GET":
            answers[exchange.path + exchange.request_headers["range"]] = (exchange.status, exchange.headers, exchange.body)

    proxy.always = watched
    for item in box.items():
        answers.clear()
        box.read(item.id)
        places[item.id] = list(answers)
    proxy.always = watched
    answers.clear()
    for item in box.items():
        box.read(item.id)
    small, large = ([item.id for item in box.items() if (item.size_bytes > MIB) is big] for big in (False, True))
    for victim, other in ((small[0], small[1]), (small[-1], small[0]), (large[0], large[1]), (large[1], large[0])):
        swapped = dict(zip(places[victim], places[other], strict=True))

        def lies(exchange: Exchange, swapped: dict[str, str] = swapped) -> None:
            place = swapped.get(exchange.path + exchange.request_headers.get("range", ""))
            exchange.forward()
            if place is not None:
                body = answers[place][2]
                exchange.body = body[: len(exchange.body)].ljust(len(exchange.body), b"\0")

        proxy.always = lies
        before = len(failures(contoso))
        with pytest.raises(IntegrityFailure) as caught:
            box.read(victim)
        assert victim in caught.value.detail
        assert status_of(caught.value) == (500, 6)
        assert len(failures(contoso)) == before + 1
        proxy.always = None
        assert box.read(victim) in SMALL + LARGE


def test_wrong_bytes_stop_a_read_before_any_of_them_comes_out(contoso: TenantWorld, proxy: Proxy) -> None:
    box = filled(contoso)
    for item in box.items():
        proxy.next(flip_bytes, method="GET", path="c[01]/")
        with pytest.raises(IntegrityFailure) as caught:
            box.read(item.id)
        assert item.id in caught.value.detail
    assert len(failures(contoso)) == len(SMALL + LARGE)


def test_a_store_that_stays_away_is_exit_5_and_a_move_goes_on_when_it_is_back(contoso: TenantWorld, proxy: Proxy) -> None:
    box = filled(contoso)
    policy = contoso.policy()
    item = box.items()[0].id
    proxy.always = says(503, "SlowDown")
    with pytest.raises(Unavailable) as caught:
        box.read(item)
    assert status_of(caught.value) == (503, 5)
    with pytest.raises(Unavailable):
        box.add(message(99))
    job = contoso.assign(policy, box, wait=False)
    run_due(contoso.world.services)
    waiting = contoso.world.sql("SELECT state, error FROM jobs WHERE kind = 'move-mailbox'")
    assert [(state, error.partition(":")[0]) for state, error in waiting] == [("queued", "object_store_unavailable")]
    proxy.always = None
    assert contoso.admin.wait(job.id).state == "done"
    assert box.read_all() == sorted(SMALL + LARGE)
    assert box.statistics().is_encrypted


def test_orphans_are_found_in_remote_containers_once_they_are_a_day_old_there(contoso: TenantWorld, proxy: Proxy) -> None:
    """R-114: by the store's own clock; ours goes forward in between, and does not count."""
    box = filled(contoso)
    services = contoso.world.services
    orphans = {services.objects.new_ref(os.urandom) for _ in range(3)}
    for ref in orphans:
        services.objects.put(ref, [b"what a crash left"])

    def collect() -> None:
        schedule_upkeep(services)
        for _look in range(2):
            contoso.world.clock.advance(DAY)
            run_due(services)

    collect()
    assert orphans <= listed(contoso)

    def a_day_later(exchange: Exchange) -> None:
        exchange.forward()
        if exchange.method == "HEAD" and exchange.path == "/":
            exchange.headers["Date"] = format_datetime(datetime.now(UTC) + timedelta(days=1, minutes=1), usegmt=True)

    proxy.always = a_day_later
    collect()
    assert listed(contoso) == named(contoso)
    assert box.read_all() == sorted(SMALL + LARGE)


class DistantStore(MemoryObjects):
    """Takes a second for every object it lists or removes; `meanwhile` is called after every twentieth."""

    def __init__(self, world: World, meanwhile: Callable[[], None]) -> None:
        super().__init__()
        self._world, self._meanwhile, self._calls = world, meanwhile, 0

    def _second(self) -> None:
        self._world.clock.advance(1_000)
        self._calls += 1
        if not self._calls % 20:
            self._meanwhile()

    def all_objects(self) -> Iterator[ObjectInfo]:
        for info in super().all_objects():
            self._second()
            yield replace(info, age_seconds=10 * 86_400.0)

    def delete(self, ref: str) -> None:
        self._second()
        super().delete(ref)


def test_a_store_that_takes_longer_than_a_lease_keeps_its_job(world: World) -> None:
    """Another process looks for jobs whose lease ended all the while, and finds none."""
    other = world.process("other").services
    taken = []
    store = DistantStore(world, lambda: taken.append(run_one(other, kind="collect-orphans")))
    for number in range(200):
        store.put(f"c0/{number:032x}", [b"what a crash left"])
    first = replace(world.services, objects=store)
    assert first.settings.job_lease < 200 * 1_000
    schedule_upkeep(first)
    looks = []
    for _look in range(2):
        world.clock.advance(2 * DAY)
        looks.append(run_one(first, kind="collect-orphans"))
    assert [(job.state, job.done) for job in looks if job is not None] == [(JobState.QUEUED, 0), (JobState.DONE, 200)]
    assert taken == [None] * 20
    assert list(store.all_objects()) == []
