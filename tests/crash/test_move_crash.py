"""Assign, reassign, unassign, delete and clean, killed at every step: content stays readable, the next process finishes, nothing is left."""

from __future__ import annotations

import os
from dataclasses import replace
from itertools import count
from typing import TYPE_CHECKING

import pytest

from keystead.api.types import mailboxes as m
from keystead.core.errors import NotFound
from keystead.ports.clock import DAY, HOUR
from keystead.services.jobs.runner import run_due
from keystead.services.jobs.upkeep import schedule_upkeep
from support.crash import Fuse, die_at_every_step, dying_process
from support.world import OPERATOR, World, message

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from support.world import MailboxWorld, Process, TenantWorld

LARGE = os.urandom(1024 * 1024 + 1)
CONTENT = sorted([*(message(index, body="Persimmon") for index in range(3)), LARGE])
_numbers = count()


@pytest.fixture(scope="module")
def contoso(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TenantWorld]:
    world = World(tmp_path_factory.mktemp("world"))
    tenant = world.tenant("contoso.example")
    tenant.policy("First")
    tenant.policy("Second")
    yield tenant
    world.close()


def filled(contoso: TenantWorld, policy: str = "") -> MailboxWorld:
    box = contoso.mailbox(f"box-{next(_numbers)}")
    box.add(*(message(index, body="Persimmon") for index in range(3)))
    box.add_large(LARGE)
    if policy:
        contoso.assign(policy, box)
        run_due(contoso.world.services)
    return box


def small_slices(contoso: TenantWorld, fuse: Fuse) -> Process:
    """Two items a slice, so that a move has several."""
    return dying_process(contoso.world, fuse, settings=replace(contoso.world.settings, slice_items=2))


def finish(contoso: TenantWorld) -> None:
    """Another process finds the dead one's leases and goes on."""
    owner = f"after-{next(_numbers)}"
    run_due(contoso.world.process(owner, alive=lambda name: name == owner).services)


def nothing_left(contoso: TenantWorld) -> None:
    """After the grace periods, every object is one that items lie in, and every item has one."""
    world = contoso.world
    world.clock.advance(2 * HOUR)
    finish(contoso)
    world.age_objects(2 * 24 * 3600)
    schedule_upkeep(world.services)
    for _look in range(2):
        world.clock.advance(2 * DAY)
        finish(contoso)
    with world.services.db.read() as tx:
        boxes = tx.mailboxes.page(contoso.id, after="", limit=1000)
        used = {item.object_ref for box in boxes for item in tx.mailboxes.items(box.id, after="", limit=1000)}
        assert all(len(tx.mailboxes.keys(box.id)) == 1 for box in boxes), "old mailbox keys are destroyed"
    assert world.objects() == used


def sweep(contoso: TenantWorld, before: str, act: Callable[[Process, MailboxWorld], None], after: str, first: int, stride: int) -> int:
    """Kill `act` at its steps; each time content is readable at once, and the next process ends where it should."""
    boxes: list[MailboxWorld] = []

    def prepare() -> Callable[[Fuse], None]:
        box = filled(contoso, before)
        boxes.append(box)

        def killed(fuse: Fuse) -> None:
            process = small_slices(contoso, fuse)
            act(process, box)
            run_due(process.services)

        return killed

    def check(fuse: Fuse) -> None:
        box = boxes[-1]
        assert box.read_all() == CONTENT, fuse.steps
        if len(boxes) % 8 == 1:
            assert contoso.world.files_holding(b"Persimmon") == []
        if "committed" not in fuse.steps:  # the request never came about: nothing has changed
            assert box.statistics().policy_name == (before or None)
            act(contoso.world.first, box)
        finish(contoso)
        found = box.statistics()
        assert (found.policy_name or "", found.move_state, found.is_encrypted) == (after, "done", bool(after)), fuse.steps
        assert (found.item_count, found.progress_percent) == (4, 100.0)
        assert box.read_all() == CONTENT

    steps = die_at_every_step(prepare, check, first=first, stride=stride)
    nothing_left(contoso)
    assert all(box.read_all() == CONTENT for box in boxes)
    return steps


def assign(contoso: TenantWorld, policy: str) -> Callable[[Process, MailboxWorld], None]:
    def act(process: Process, box: MailboxWorld) -> None:
        process.client(OPERATOR, contoso.id).call("mailbox.assign", m.AssignPolicy(policy=policy, upns=[box.upn]))

    return act


def unassign(contoso: TenantWorld) -> Callable[[Process, MailboxWorld], None]:
    def act(process: Process, box: MailboxWorld) -> None:
        process.client(OPERATOR, contoso.id).call("mailbox.unassign", m.UnassignPolicy(upn=box.upn))

    return act


@pytest.mark.parametrize("first", [0, 1])
def test_an_assignment_killed_at_any_step_is_finished_by_the_next_process(contoso: TenantWorld, first: int) -> None:
    """R-088, R-097. Every step: the even ones and the odd ones, side by side."""
    assert sweep(contoso, "", assign(contoso, "First"), "First", first, 2) > 20


def test_a_change_of_policy_killed_at_many_steps_is_finished_by_the_next_process(contoso: TenantWorld) -> None:
    """R-089, R-098."""
    assert sweep(contoso, "First", assign(contoso, "Second"), "Second", 0, 4) > 20


def test_an_unassignment_killed_at_many_steps_is_finished_by_the_next_process(contoso: TenantWorld) -> None:
    """R-099, R-101."""
    assert sweep(contoso, "Second", unassign(contoso), "", 2, 4) > 20


def test_a_deletion_killed_at_any_step_is_finished_by_the_next_process(contoso: TenantWorld) -> None:
    boxes: list[MailboxWorld] = []

    def prepare() -> Callable[[Fuse], None]:
        box = filled(contoso)
        boxes.append(box)

        def killed(fuse: Fuse) -> None:
            process = small_slices(contoso, fuse)
            process.client(OPERATOR, contoso.id).call("mailbox.delete", m.NameMailbox(upn=box.upn))
            run_due(process.services)

        return killed

    def check(fuse: Fuse) -> None:
        box = boxes[-1]
        if "committed" in fuse.steps:
            with pytest.raises(NotFound):
                box.items()
        else:
            assert box.read_all() == CONTENT
            contoso.admin.call("mailbox.delete", m.NameMailbox(upn=box.upn))
        finish(contoso)

    assert die_at_every_step(prepare, check) > 5
    nothing_left(contoso)


def test_cleaning_killed_at_any_step_is_finished_by_the_next_process(contoso: TenantWorld) -> None:
    keep = filled(contoso, "First")

    def prepare() -> Callable[[Fuse], None]:
        box = filled(contoso)
        contoso.assign("First", box)
        contoso.world.clock.advance(2 * HOUR)
        return lambda fuse: run_due(small_slices(contoso, fuse).services)

    def check(fuse: Fuse) -> None:
        assert keep.read_all() == CONTENT
        finish(contoso)

    assert die_at_every_step(prepare, check) > 5
    nothing_left(contoso)
    assert keep.read_all() == CONTENT


def test_a_mailbox_deleted_in_the_middle_of_a_killed_move_leaves_nothing(contoso: TenantWorld) -> None:
    for at in range(4, 45, 6):
        box = filled(contoso)
        fuse = Fuse(at)
        process = small_slices(contoso, fuse)
        try:
            assign(contoso, "First")(process, box)
            run_due(process.services)
        except BaseException as killed:  # noqa: BLE001 - Killed is not an Exception on purpose
            assert type(killed).__name__ == "Killed"  # noqa: PT017 - the loop needs to go on without an error, too
        contoso.admin.call("mailbox.delete", m.NameMailbox(upn=box.upn))
        finish(contoso)
    nothing_left(contoso)
