"""An import killed at any step: nothing acknowledged is lost, nothing is there twice, what was left behind is collected."""

from __future__ import annotations

import io
import os
from typing import TYPE_CHECKING

import pytest

from keystead.api.call import Upload
from keystead.api.types import mailboxes as m
from keystead.api.types import tenants as t
from keystead.ports.clock import DAY
from keystead.ports.keystore import Compartment
from keystead.services.jobs.runner import run_due
from keystead.services.jobs.upkeep import schedule_upkeep
from support.crash import Fuse, Killed, die_at_every_step, dying_process
from support.world import OPERATOR, World, message

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from support.world import MailboxWorld, TenantWorld

LARGE = os.urandom(5 * 1024 * 1024)


@pytest.fixture(scope="module")
def contoso(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TenantWorld]:
    world = World(tmp_path_factory.mktemp("world"))
    yield world.tenant("contoso.example", ready=False)
    world.close()


def collect(world: World) -> None:
    """Two looks, a day apart: what no row names goes."""
    world.age_objects(2 * 24 * 3600)
    schedule_upkeep(world.services)
    for _look in range(2):
        world.clock.advance(2 * DAY)
        run_due(world.services)


def referenced(world: World) -> set[str]:
    with world.services.db.read() as tx:
        return world.objects() - set(tx.objects.unknown(sorted(world.objects())))


def test_a_batch_killed_at_any_step_comes_in_once_when_run_again(contoso: TenantWorld) -> None:
    """R-097: also what a crash leaves is sealed."""
    world = contoso.world
    source = [message(index, body="Persimmon") for index in range(5)]
    boxes: list[MailboxWorld] = []

    def prepare() -> Callable[[Fuse], None]:
        box = contoso.mailbox(f"batch-{len(boxes)}")
        boxes.append(box)
        return lambda fuse: void(box.add(*source, client=dying_process(world, fuse).client(OPERATOR, contoso.id)))

    def check(fuse: Fuse) -> None:
        box = boxes[-1]
        count = box.statistics().item_count
        assert count == (5 if "committed" in fuse.steps else 0), fuse.steps
        assert len(box.read_all()) == count
        assert world.files_holding(b"Persimmon") == []
        again = box.add(*source)
        assert (again.imported, again.already_present) == (5 - count, count)
        assert box.read_all() == sorted(source)

    assert die_at_every_step(prepare, check) >= 6
    collect(world)
    assert world.objects() == referenced(world)
    assert len(world.objects()) == len(boxes)
    assert all(box.read_all() == sorted(source) for box in boxes)


def test_a_large_item_killed_at_any_step_comes_in_once_when_sent_again(contoso: TenantWorld) -> None:
    world = contoso.world
    boxes: list[MailboxWorld] = []

    def send(fuse: Fuse, box: MailboxWorld) -> None:
        client = dying_process(world, fuse).client(OPERATOR, contoso.id)
        source = io.BytesIO(LARGE)

        def read(size: int) -> bytes:
            fuse.step("read")
            return source.read(size)

        client.call("mailbox.import-item", m.ImportLarge(upn=box.upn, position=1, ordinal=1, folder=""), upload=Upload(len(LARGE), read))

    def prepare() -> Callable[[Fuse], None]:
        box = contoso.mailbox(f"large-{len(boxes)}")
        boxes.append(box)
        return lambda fuse: send(fuse, box)

    def check(fuse: Fuse) -> None:
        box = boxes[-1]
        committed = "committed" in fuse.steps
        result = box.add_large(LARGE)
        assert (result.imported, result.already_present) == ((0, 1) if committed else (1, 0)), fuse.steps
        assert box.read_all() == [LARGE]

    die_at_every_step(prepare, check)
    collect(world)
    assert world.objects() == referenced(world)
    assert boxes[0].read_all() == [LARGE]


def test_orphans_are_kept_while_they_may_still_be_named(contoso: TenantWorld) -> None:
    """The grace period protects an import that is under way."""
    world = contoso.world
    box = contoso.mailbox("under-way")

    def at(_step: str) -> None:
        schedule_upkeep(world.services)
        world.clock.advance(2 * DAY)  # our clock: objects go by the disk's
        run_due(world.services)

    slow = world.process("slow", checkpoint=at)
    box.add(message(1), client=slow.client(OPERATOR, contoso.id))
    assert box.read_all() == [message(1)]


def test_a_tenant_killed_while_it_is_made_leaves_keys_that_are_destroyed(contoso: TenantWorld) -> None:
    """Destruction of shred keys and provider keys that no policy names (design section 2), itself killed at any step."""
    world = contoso.world
    count = 0

    def held() -> int:
        return sum(len(list(world.services.keystore.entries(compartment))) for compartment in Compartment)

    def make(fuse: Fuse) -> None:
        dying_process(world, fuse).client(OPERATOR).call(
            "tenant.create", t.CreateTenant(name=f"T{count}", domain=f"t{count}.example", geo=["EUR"])
        )

    def prepare() -> Callable[[Fuse], None]:
        nonlocal count
        count += 1
        return make

    before = held()

    def check(fuse: Fuse) -> None:
        made = [one for one in world.operator.call("tenant.list") if one.name == f"T{count}"]
        assert len(made) == (1 if "committed" in fuse.steps else 0), fuse.steps

    steps = die_at_every_step(prepare, check)
    tenants = len([one for one in world.operator.call("tenant.list") if one.name.startswith("T")])
    assert held() > before + 2 * tenants, "crashes left keys behind"
    box = contoso.mailbox("beside", messages=1)
    world.clock.advance(2 * DAY)
    for at in range(100):
        fuse = Fuse(at)
        schedule_upkeep(world.services)
        world.clock.advance(2 * DAY)
        try:
            run_due(dying_process(world, fuse).services)
        except Killed:
            continue
        break
    run_due(world.process("after", alive=lambda owner: owner == "after").services)
    assert steps > 5
    assert held() == before + 2 * tenants
    assert box.read_all() == [message(0)], "no key that is in use was touched"


def void(_value: object) -> None:
    """For lambdas whose value nobody wants."""
