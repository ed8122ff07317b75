"""A mailbox through any sequence of acts, denials, half-done jobs and killed processes: it holds exactly what was put in, or says no."""

from __future__ import annotations

from collections import Counter
from contextlib import suppress
from dataclasses import replace
from itertools import count
from typing import TYPE_CHECKING, ClassVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from keystead.api.types import mailboxes as m
from keystead.core.errors import KeyDenied, PreconditionFailed
from keystead.ports.clock import HOUR
from keystead.services.jobs.runner import run_due, run_one
from support.crash import Fuse, Killed, dying_process
from support.world import SECOND, World, message

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.world import Process, TenantWorld

VAULTS = ("contosov1", "contosov2")
_numbers = count()


@pytest.fixture(scope="module")
def contoso(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TenantWorld]:
    world = World(tmp_path_factory.mktemp("world"), slice_items=2, slice_bytes=1)
    tenant = world.tenant("contoso.example")
    tenant.policy("First")
    tenant.policy("Second")
    yield tenant
    world.close()


class MailboxMachine(RuleBasedStateMachine):
    """The model: what the mailbox holds, which policy was asked for last, and whether the keys say no."""

    contoso: ClassVar[TenantWorld]

    def __init__(self) -> None:
        super().__init__()
        self.world = self.contoso.world
        self.box = self.contoso.mailbox(f"machine-{next(_numbers)}")
        self.held: Counter[bytes] = Counter()
        self.asked = ""
        self.denied = False

    @rule(numbers=st.lists(st.integers(0, 8), min_size=1, max_size=5, unique=True))
    def put_in(self, numbers: list[int]) -> None:
        """What is there already is counted, not added."""
        new = [number for number in numbers if not self.held[message(number)]]
        result = self.box.add(*(message(number) for number in numbers), folder=f"Folder {numbers[0]}")
        assert (result.imported, result.already_present) == (len(new), len(numbers) - len(new))
        self.held.update(message(number) for number in new)

    @precondition(lambda self: self.held and not self.denied)
    @rule(data=st.data())
    def delete_one(self, data: st.DataObject) -> None:
        """By its owner."""
        item = data.draw(st.sampled_from(sorted(self.box.items(), key=lambda one: one.subject)))
        self.held[self.box.read(item.id)] -= 1
        self.box.owner.call("mailbox.delete-item", m.NameItem(upn=self.box.upn, item=item.id))
        self.held = +self.held

    @rule(policy=st.sampled_from(["First", "Second"]))
    def assign(self, policy: str) -> None:
        """Asked for; run later."""
        self.contoso.assign(policy, self.box, wait=False)
        self.asked = policy

    @rule()
    def unassign(self) -> None:
        """Back to the provider's keys, unless that is where it is."""
        with suppress(PreconditionFailed):
            self.contoso.admin.call("mailbox.unassign", m.UnassignPolicy(upn=self.box.upn))
            self.asked = ""

    @rule()
    def run_a_job(self) -> None:
        """Whatever is due."""
        run_one(self.world.services)

    @rule(step=st.integers(0, 12))
    def be_killed(self, step: int) -> None:
        """A process dies at some step of whatever is due; the others find out."""
        process = dying_process(self.world, Fuse(step), settings=replace(self.world.settings, slice_items=1))
        process.vaults.failing = self.world.vaults.failing
        with suppress(Killed):
            run_one(process.services)
        run_one(self.finder().services)

    def finder(self) -> Process:
        """A process that takes every other one for dead."""
        owner = f"finder-{next(_numbers)}"
        process = self.world.process(owner, alive=lambda name: name == owner)
        process.vaults.failing = self.world.vaults.failing
        return process

    @rule()
    def take_the_keys_away(self) -> None:
        """Both; heard of within a probe interval."""
        for vault in VAULTS:
            self.world.vaults.fail(vault, "denied")
        self.denied = True
        self.world.clock.advance(61 * SECOND)

    @rule()
    def give_them_back(self) -> None:
        """Both."""
        for vault in VAULTS:
            self.world.vaults.fail(vault, "success")
        self.denied = False
        self.world.clock.advance(61 * SECOND)

    @invariant()
    def it_holds_what_was_put_in_or_says_no(self) -> None:
        """Whatever stands half done."""
        found = self.box.statistics()
        assert found.item_count == self.held.total()
        assert found.size_bytes == sum(len(data) * number for data, number in self.held.items())
        if self.denied and found.policy_name is not None:
            with pytest.raises(KeyDenied):
                self.box.items()
        else:
            assert Counter(self.box.read_all()) == self.held
        if found.is_encrypted:
            assert found.policy_name is not None

    def teardown(self) -> None:
        """At the end, with the keys there, it is where it was last asked to be."""
        self.give_them_back()
        self.world.clock.advance(HOUR)
        run_due(self.finder().services)
        found = self.box.statistics()
        assert (found.policy_name or "") == self.asked
        assert found.is_encrypted == bool(self.asked)
        assert Counter(self.box.read_all()) == self.held
        with self.world.services.db.read() as tx:
            assert len(tx.mailboxes.keys(found.id)) == 1


def test_a_mailbox_holds_what_was_put_in_through_any_sequence(contoso: TenantWorld) -> None:
    """R-087, R-092, R-097, R-099, R-145."""

    class Machine(MailboxMachine):
        pass

    Machine.contoso = contoso
    run_state_machine_as_test(
        Machine,
        settings=settings(
            max_examples=15, stateful_step_count=18, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True
        ),
    )
