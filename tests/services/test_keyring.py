"""The keyring: how soon a no is obeyed, how long a fault is ridden out, and that one process asks for all (design section 5)."""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import pytest

from keystead.api.types import mailboxes as m
from keystead.api.types import policies as p
from keystead.api.types import watching as w
from keystead.core.errors import KeyDenied
from keystead.core.keys.decide import Operation
from keystead.core.policies.policy import CopyRole
from keystead.ports.clock import HOUR, MINUTE
from keystead.services import tenants
from support.world import SECOND, MailboxWorld, World, message

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from keystead.services.keyring import Keyring, OpenPolicy
    from support.world import Process, TenantWorld

V1, V2 = "contosov1", "contosov2"
INTERVAL = 60 * SECOND
MAX_AGE = 4 * HOUR
LARGE = message(9, size=9 * 1024 * 1024)
"""Three parts of at most 4 MiB."""


@dataclass
class Scene:
    """A mailbox with two small messages and a large one, under a policy whose key is in nobody's memory."""

    world: World
    contoso: TenantWorld
    alice: MailboxWorld
    policy: p.PolicyView

    @property
    def keyring(self) -> Keyring:
        return self.world.services.keyring

    def fail(self, kind: str, *vaults: str) -> None:
        for vault in vaults or (V1, V2):
            self.world.vaults.fail(vault, kind)

    def open(self, operation: Operation = Operation.USER, process: Process | None = None) -> OpenPolicy:
        keyring = process.services.keyring if process else self.keyring
        return keyring.open(self.policy.id, operation, request_id="11111111-1111-4111-8111-111111111111")

    def unwraps(self, process: Process | None = None) -> list[str]:
        """Which vaults were asked to unwrap, in order."""
        return [vault for verb, vault in (process or self.world.first).vaults.asked if verb == "unwrap"]

    def search(self) -> int:
        """A system operation."""
        return len(self.contoso.admin.call("mailbox.search", m.Search(text="body of message", upn=self.alice.upn)))

    def alerts(self) -> dict[str, bool]:
        """Every alert there ever was, and whether it lasts."""
        found: list[w.AlertView] = self.contoso.admin.call("alerts.list", w.ListAlerts())
        return {alert.kind: alert.resolved is None for alert in reversed(found)}

    def reads(self, process: Process) -> list[str]:
        """Which items the owner is shown through another process."""
        client = process.client(tenants.impersonate(process.services, self.alice.upn))
        return [item.id for item in self.alice.items(client)]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, database: str) -> Iterator[Scene]:
    world = World(tmp_path_factory.mktemp("made"))
    contoso = world.tenant("contoso.example")
    policy = contoso.policy("Mail")
    alice = contoso.mailbox("alice", messages=2)
    alice.add_large(LARGE)
    contoso.assign(policy, alice)
    yield Scene(world, contoso, alice, policy)
    world.close()


@pytest.fixture
def scene(made: Scene, tmp_path: Path) -> Iterator[Scene]:
    world = World(tmp_path, like=made.world)
    contoso = made.contoso.within(world)
    yield Scene(world, contoso, MailboxWorld(contoso, made.alice.upn), made.policy)
    world.close()


# -- revocation: obeyed within one probe interval, on every path ------------------------------------------------------------------------


def test_a_warm_cache_is_asked_again_after_one_probe_interval_and_not_before(scene: Scene) -> None:
    """R-042, R-145: the revocation delay is the probe interval."""
    assert len(scene.alice.items()) == 3
    scene.fail("denied")
    scene.world.clock.advance(INTERVAL)
    assert len(scene.alice.items()) == 3
    scene.world.clock.advance(1)
    with pytest.raises(KeyDenied):
        scene.alice.items()
    assert scene.contoso.fallbacks() == []


def test_constant_use_does_not_put_off_the_question(scene: Scene) -> None:
    """R-145: reading every second keeps no key alive."""
    scene.alice.items()
    scene.fail("denied")
    served = 0
    try:
        while served <= INTERVAL // SECOND:
            scene.world.clock.advance(SECOND)
            scene.alice.items()
            served += 1
    except KeyDenied:
        pass
    assert served == INTERVAL // SECOND


def test_what_a_system_operation_opened_before_the_denial_does_not_serve_users_after_it(scene: Scene) -> None:
    """R-145."""
    assert scene.search() == 3
    scene.fail("denied")
    scene.world.clock.advance(INTERVAL + 1)
    with pytest.raises(KeyDenied):
        scene.alice.items()


def test_what_a_system_operation_opened_after_the_denial_serves_that_operation_alone(scene: Scene) -> None:
    """R-145, R-146: each operation asks for itself, each use is recorded, and no user rides along."""
    scene.fail("denied")
    for uses in (1, 2, 3):
        assert scene.search() == 3
        assert len(scene.contoso.fallbacks()) == uses
        with pytest.raises(KeyDenied):
            scene.alice.items()
    assert scene.open(Operation.SYSTEM).single


def test_an_operation_that_may_go_on_for_long_asks_again_after_a_probe_interval(scene: Scene) -> None:
    """R-146, R-149: the single use of an operation is good for one probe interval; then it is a new use."""
    scene.fail("denied")
    opened = scene.open(Operation.SYSTEM)
    scene.world.clock.advance(INTERVAL)
    assert scene.keyring.recheck(opened, Operation.SYSTEM, request_id="r") is opened
    scene.world.clock.advance(1)
    assert scene.keyring.recheck(opened, Operation.SYSTEM, request_id="r") is not opened
    assert len(scene.contoso.fallbacks()) == 2


def test_an_open_stream_ends_at_the_first_part_after_the_denial(scene: Scene) -> None:
    """R-145: a large item is checked part by part; what comes after the no is not sent, and the refusal is on the log."""
    (large,) = [item for item in scene.alice.items() if item.size_bytes == len(LARGE)]
    content = scene.alice.owner.call("mailbox.read", m.NameItem(upn=scene.alice.upn, item=large.id))
    first = next(content.chunks)
    assert first == LARGE[: len(first)]
    scene.fail("denied")
    scene.world.clock.advance(INTERVAL + 1)
    with pytest.raises(KeyDenied):
        next(content.chunks)
    assert 0 < len(first) < len(LARGE)
    last = scene.contoso.audit("MailItemsAccessed")[0]
    assert (last.result_status, last.user_id) == ("Failed", scene.alice.upn)


def test_a_search_asks_again_when_it_takes_long(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """R-146, R-149: what was opened before the no is not used after it; the service's own work goes on with a recorded use."""
    get = scene.world.services.objects.get

    def slow(ref: str, offset: int, length: int) -> bytes:
        scene.fail("denied")
        scene.world.clock.advance(INTERVAL + 1)
        return get(ref, offset, length)

    monkeypatch.setattr(scene.world.services.objects, "get", slow)
    assert scene.search() == 3
    assert [use.request_id for use in scene.contoso.fallbacks()] == [scene.contoso.audit("New-MailboxSearch")[0].request_id] * 2


def test_an_open_stream_rides_out_a_fault(scene: Scene) -> None:
    """R-144: without the availability key, as long as the cached key may serve."""
    (large,) = [item for item in scene.alice.items() if item.size_bytes == len(LARGE)]
    content = scene.alice.owner.call("mailbox.read", m.NameItem(upn=scene.alice.upn, item=large.id))
    parts = []
    for part in content.chunks:
        parts.append(part)
        scene.fail("system-error")
        scene.world.clock.advance(INTERVAL + 1)
    assert b"".join(parts) == LARGE
    assert len(parts) == 3
    assert scene.contoso.fallbacks() == []


def test_an_entry_of_the_availability_key_ends_with_the_fault_that_allowed_it(scene: Scene) -> None:
    """R-145: opened while both vaults were away, it does not serve a user once they have said no."""
    scene.fail("system-error")
    assert len(scene.alice.items()) == 3
    scene.fail("denied")
    scene.world.clock.advance(INTERVAL + 1)
    with pytest.raises(KeyDenied):
        scene.alice.items()
    assert len(scene.contoso.fallbacks()) == 1


@pytest.mark.parametrize("kinds", [("denied", "denied"), ("denied", "system-error"), ("success", "success")])
def test_an_entry_of_the_availability_key_ends_when_another_process_hears_something_else(scene: Scene, kinds: tuple[str, str]) -> None:
    """R-145: at once, for the pair of outcomes is shared."""
    second = scene.world.process("second")
    scene.fail("system-error")
    assert len(scene.alice.items()) == 3
    for vault, kind in zip((V1, V2), kinds, strict=True):
        scene.fail(kind, vault)
        second.vaults.fail(vault, kind)
    scene.world.clock.advance(1)
    client = second.client(tenants.impersonate(second.services, "admin@contoso.example"))
    client.call("policy.health", p.NamePolicy(policy="Mail"))
    if kinds == ("success", "success"):
        assert len(scene.alice.items()) == 3
    else:
        with pytest.raises(KeyDenied):
            scene.alice.items()
    assert len(scene.contoso.fallbacks()) == 1


def test_a_second_process_obeys_a_denial_that_the_first_has_heard_at_once(scene: Scene) -> None:
    """R-145: the generation is checked before every use, so nobody waits for their own probe."""
    second = scene.world.process("second")
    scene.alice.items()
    scene.world.clock.advance(INTERVAL // 2)
    assert len(scene.reads(second)) == 3
    scene.fail("denied")
    for vault in (V1, V2):
        second.vaults.fail(vault, "denied")
    scene.world.clock.advance(INTERVAL // 2 + 1)
    with pytest.raises(KeyDenied):
        scene.alice.items()
    with pytest.raises(KeyDenied):
        scene.reads(second)


def test_a_second_process_alone_obeys_a_denial_within_its_own_probe_interval(scene: Scene) -> None:
    """R-145."""
    second = scene.world.process("second")
    scene.alice.items()
    assert len(scene.reads(second)) == 3
    for vault in (V1, V2):
        second.vaults.fail(vault, "denied")
    scene.world.clock.advance(INTERVAL + 1)
    with pytest.raises(KeyDenied):
        scene.reads(second)


def test_child_keys_die_with_the_entry(scene: Scene) -> None:
    """R-145: after a denial nothing that was opened below is used again, not even when access is back."""
    scene.alice.items()
    before = scene.open()
    assert len(before._children) > 0
    scene.fail("denied")
    scene.world.clock.advance(INTERVAL + 1)
    with pytest.raises(KeyDenied):
        scene.keyring.recheck(before, Operation.USER, request_id="r")
    scene.fail("success")
    after = scene.keyring.recheck(before, Operation.USER, request_id="r")
    assert after is not before
    assert len(after._children) == 0
    assert len(scene.alice.items()) == 3


def test_every_kind_of_reading_is_refused_after_the_denial(scene: Scene) -> None:
    """R-145: listing, reading small and large items; deleting an item opens nothing and is the owner's right."""
    items = scene.alice.items()
    scene.fail("denied")
    scene.world.clock.advance(INTERVAL + 1)
    for item in items:
        with pytest.raises(KeyDenied):
            scene.alice.read(item.id)
    with pytest.raises(KeyDenied):
        scene.alice.items()
    scene.fail("success")
    assert {scene.alice.read(item.id) for item in items} == {message(0), message(1), LARGE}


# -- outages ----------------------------------------------------------------------------------------------------------------------------


def test_an_outage_is_ridden_out_to_the_last_minute_and_then_bridged_by_the_availability_key(scene: Scene) -> None:
    """R-144: outage tolerance and revocation delay are two different numbers."""
    scene.alice.items()
    scene.fail("system-error")
    scene.world.clock.advance(MAX_AGE)
    assert len(scene.alice.items()) == 3
    assert scene.contoso.fallbacks() == []
    scene.world.clock.advance(INTERVAL + 1)
    assert len(scene.alice.items()) == 3
    assert len(scene.contoso.fallbacks()) == 1


def test_each_success_starts_the_tolerance_anew(scene: Scene) -> None:
    """R-144: what counts is when a customer key last answered, not when the policy was opened first."""
    scene.alice.items()
    scene.world.clock.advance(3 * HOUR)
    scene.alice.items()
    scene.fail("system-error")
    scene.world.clock.advance(3 * HOUR)
    assert len(scene.alice.items()) == 3
    assert scene.contoso.fallbacks() == []


def test_half_a_denial_is_ridden_out_for_five_probe_intervals(scene: Scene) -> None:
    """Decision D1: one no and one fault; then the owner is refused, still without the availability key, until one key opens."""
    scene.alice.items()
    scene.fail("denied", V1)
    scene.fail("system-error", V2)
    scene.world.clock.advance(INTERVAL + 1)
    assert len(scene.alice.items()) == 3
    for _probe in range(4):
        scene.world.clock.advance(INTERVAL + 1)
        assert len(scene.alice.items()) == 3
    scene.world.clock.advance(INTERVAL + 1)
    with pytest.raises(KeyDenied):
        scene.alice.items()
    assert scene.contoso.fallbacks() == []
    scene.fail("success", V2)
    scene.world.clock.advance(INTERVAL + 1)
    assert len(scene.alice.items()) == 3


def test_the_grace_starts_anew_only_after_another_answer(scene: Scene) -> None:
    """Decision D1: going back and forth between the two keys does not stretch it."""
    scene.alice.items()
    for turn in range(6):
        scene.fail("denied", (V1, V2)[turn % 2])
        scene.fail("system-error", (V2, V1)[turn % 2])
        scene.world.clock.advance(INTERVAL + 1)
        if turn < 5:
            assert len(scene.alice.items()) == 3
    with pytest.raises(KeyDenied):
        scene.alice.items()


# -- a denial is confirmed --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("standing", ["cold", "warm"])
def test_a_first_denial_is_confirmed_once_after_two_seconds(scene: Scene, standing: str) -> None:
    """Design section 5: four questions, one pause; the next refusal needs no second look."""
    if standing == "warm":
        scene.alice.items()
    scene.fail("denied")
    scene.world.clock.advance(INTERVAL + 1)
    asked, slept = len(scene.unwraps()), len(scene.world.clock.slept)
    with pytest.raises(KeyDenied):
        scene.alice.items()
    assert sorted(scene.unwraps()[asked:]) == [V1, V1, V2, V2]
    assert scene.world.clock.slept[slept:] == [2 * SECOND]
    with pytest.raises(KeyDenied):
        scene.alice.items()
    assert len(scene.unwraps()) == asked + 6
    assert scene.world.clock.slept[slept:] == [2 * SECOND]


@pytest.mark.parametrize("standing", ["cold", "warm"])
def test_a_denial_that_was_a_hiccup_locks_nobody_out(scene: Scene, standing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Design section 5: while permissions change a vault may say no for a moment."""
    if standing == "warm":
        scene.alice.items()
    scene.fail("denied")
    scene.world.clock.advance(INTERVAL + 1)

    def sleep(milliseconds: int) -> None:
        scene.world.clock.time += milliseconds
        scene.fail("success")

    monkeypatch.setattr(scene.world.clock, "sleep", sleep)
    generation = scene.world.sql("SELECT generation FROM policy_states WHERE policy_id = ?", scene.policy.id)
    assert len(scene.alice.items()) == 3
    assert scene.world.sql("SELECT generation FROM policy_states WHERE policy_id = ?", scene.policy.id) == generation
    assert scene.contoso.alerts() == set()


# -- who is asked, in which order -------------------------------------------------------------------------------------------------------


def test_the_first_key_is_chosen_at_random(scene: Scene) -> None:
    """R-142: over forty cold opens each key comes first at least once; all the same would happen once in 2^39."""
    firsts = []
    for _open in range(40):
        scene.world.forget()
        asked = len(scene.unwraps())
        scene.open()
        firsts += scene.unwraps()[asked:]
    assert len(firsts) == 40
    assert set(firsts) == {V1, V2}


@pytest.mark.parametrize(("dice", "order"), [(b"\0", [V1, V2]), (b"\1", [V2, V1])])
@pytest.mark.parametrize("kind", ["system-error", "denied"])
def test_the_second_key_is_tried_before_anything_else(scene: Scene, dice: bytes, order: list[str], kind: str) -> None:
    """R-141, R-143: a first key that fails sends the question to the second, not to the availability key."""
    scene.keyring._random = lambda size: dice if size == 1 else os.urandom(size)
    scene.fail(kind, order[0])
    assert scene.open().opened_by is (CopyRole.PRIMARY if order[1] == V1 else CopyRole.SECONDARY)
    assert scene.unwraps() == order
    assert scene.contoso.fallbacks() == []


def test_a_warm_read_asks_nobody(scene: Scene) -> None:
    """R-141: and within the probe interval the vaults are left alone."""
    scene.alice.items()
    asked = scene.unwraps()
    for _read in range(5):
        assert len(scene.alice.items()) == 3
    assert scene.unwraps() == asked


# -- health and alerts ------------------------------------------------------------------------------------------------------------------


def test_health_is_live(scene: Scene) -> None:
    """R-147, R-256: asked anew each time, whatever is cached and however young; the clock stands still here."""
    states = []
    for first, second in (
        ("success", "success"),
        ("success", "denied"),
        ("system-error", "success"),
        ("system-error", "system-error"),
        ("denied", "system-error"),
        ("denied", "denied"),
        ("success", "success"),
    ):
        scene.fail(first, V1)
        scene.fail(second, V2)
        found: p.PolicyHealth = scene.contoso.admin.call("policy.health", p.NamePolicy(policy="Mail"))
        states.append(found.state)
        assert [(key.role, key.outcome) for key in found.keys] == [("primary", first), ("secondary", second)]
        assert {key.uri for key in found.keys} == {copy.key_uri for copy in scene.policy.keys if copy.role != "availability"}
        shown: p.PolicyView = scene.contoso.admin.call("policy.show", p.NamePolicy(policy="Mail"))
        assert shown.health == found.state
    assert states == ["healthy", "degraded", "degraded", "unreachable", "denied", "denied", "healthy"]


def test_a_denial_found_by_asking_for_health_counts_for_everybody(scene: Scene) -> None:
    """R-145, R-147."""
    scene.alice.items()
    scene.fail("denied")
    assert scene.contoso.health() == "denied"
    with pytest.raises(KeyDenied):
        scene.alice.items()


ALERTS = {
    ("success", "system-error"): {"key-degraded"},
    ("success", "denied"): {"key-degraded"},
    ("denied", "denied"): {"key-denied"},
    ("denied", "system-error"): {"key-denied", "key-unreachable"},
    ("system-error", "system-error"): {"key-unreachable"},
}


@pytest.mark.parametrize("pair", ALERTS, ids="+".join)
def test_an_alert_is_raised_once_and_resolved_by_itself(scene: Scene, pair: tuple[str, str]) -> None:
    """R-147: raised by whoever finds out, here by a read, and gone when both keys open again."""
    scene.alice.items()
    for vault, kind in zip((V1, V2), pair, strict=True):
        scene.fail(kind, vault)
    for _probe in range(3):
        scene.world.clock.advance(INTERVAL + 1)
        if pair == ("denied", "denied"):
            with pytest.raises(KeyDenied):
                scene.alice.items()
        else:
            assert len(scene.alice.items()) == 3
    assert scene.contoso.alerts() == ALERTS[pair]
    assert scene.alerts() == dict.fromkeys(ALERTS[pair], True)
    scene.fail("success")
    scene.world.clock.advance(INTERVAL + 1)
    assert len(scene.alice.items()) == 3
    assert scene.contoso.alerts() == set()
    assert scene.alerts() == dict.fromkeys(ALERTS[pair], False)


@pytest.mark.parametrize("probed", [False, True], ids=["opened only", "probed before"])
def test_an_outage_that_outlasts_half_the_tolerance_raises_an_alert_before_it_ends(scene: Scene, *, probed: bool) -> None:
    """R-118, R-119: two hours before the end of `mail_max_age`, and resolved by the first success."""
    scene.alice.items()
    if probed:
        scene.world.clock.advance(INTERVAL + 1)
        scene.alice.items()
    scene.fail("system-error")
    scene.world.clock.advance(HOUR)
    scene.alice.items()
    assert scene.contoso.alerts() == {"key-unreachable"}
    scene.world.clock.advance(HOUR)
    scene.alice.items()
    assert scene.contoso.alerts() == {"key-unreachable", "cache-near-expiry"}
    assert scene.contoso.fallbacks() == []
    scene.fail("success")
    scene.world.clock.advance(INTERVAL + 1)
    scene.alice.items()
    assert scene.contoso.alerts() == set()


# -- one asks for all -------------------------------------------------------------------------------------------------------------------


def test_one_process_probes_and_the_other_takes_its_word(scene: Scene) -> None:
    """Design section 5: a fresh pair of another process is as good as one's own."""
    second = scene.world.process("second")
    scene.alice.items()
    scene.reads(second)
    scene.world.clock.advance(INTERVAL + 1)
    scene.alice.items()
    asked = len(scene.unwraps(second))
    assert len(scene.reads(second)) == 3
    assert len(scene.unwraps(second)) == asked


def test_a_process_waits_while_another_one_probes_and_then_takes_its_word(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """Design section 5: the lease row lets one ask; the other neither asks nor serves before there is an answer."""
    second = scene.world.process("second")
    scene.alice.items()
    scene.reads(second)
    scene.world.clock.advance(INTERVAL + 1)
    waiting, done = threading.Event(), threading.Event()
    asked = len(scene.unwraps(second))

    def sleep(_milliseconds: int) -> None:
        waiting.set()
        assert done.wait(30)

    def before(_verb: str, _vault: str) -> None:
        assert waiting.wait(30)

    monkeypatch.setattr(scene.world.clock, "sleep", sleep)
    scene.world.vaults.before = before
    found: list[list[str]] = []

    def probe() -> None:
        scene.open()
        done.set()

    first = threading.Thread(target=probe)
    other = threading.Thread(target=lambda: found.append(scene.reads(second)))
    first.start()
    while not scene.world.sql("SELECT 1 FROM policy_states WHERE lease_owner = 'first'"):
        assert first.is_alive()
    other.start()
    for thread in (first, other):
        thread.join(60)
    assert len(found[0]) == 3
    assert len(scene.unwraps(second)) == asked
    assert scene.world.sql("SELECT lease_owner FROM policy_states WHERE policy_id = ?", scene.policy.id) == [("",)]


def test_the_lease_of_a_process_that_died_does_not_hold_others_up_for_ever(scene: Scene) -> None:
    """Design section 5: after `probe_lease` the question is asked all the same."""
    scene.alice.items()
    scene.world.clock.advance(INTERVAL + 1)
    now = scene.world.clock.time
    scene.world.sql("UPDATE policy_states SET lease_owner = 'dead', lease_until = ?", now + 20 * SECOND)
    asked = len(scene.unwraps())
    assert len(scene.alice.items()) == 3
    assert scene.world.clock.time - now <= 21 * SECOND
    assert sorted(scene.unwraps()[asked:]) == [V1, V2]


def test_a_lease_far_in_the_future_is_not_believed(scene: Scene) -> None:
    """Design section 5: a clock that was wrong once must not stop probing."""
    scene.alice.items()
    scene.world.clock.advance(INTERVAL + 1)
    scene.world.sql("UPDATE policy_states SET lease_owner = 'dead', lease_until = ?", scene.world.clock.time + HOUR)
    now, asked = scene.world.clock.time, len(scene.unwraps())
    assert len(scene.alice.items()) == 3
    assert scene.world.clock.time == now
    assert sorted(scene.unwraps()[asked:]) == [V1, V2]


@pytest.mark.parametrize("standing", ["cold", "warm"])
def test_many_threads_ask_once(scene: Scene, standing: str) -> None:
    """Design section 5: opening is single-flight per policy."""
    if standing == "warm":
        scene.alice.items()
        scene.world.clock.advance(INTERVAL + 1)
    asked = len(scene.unwraps())
    barrier = threading.Barrier(12)
    opened: list[OpenPolicy] = []

    def run() -> None:
        barrier.wait(30)
        opened.append(scene.open())

    threads = [threading.Thread(target=run) for _thread in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(opened) == 12
    assert len({id(one) for one in opened}) == 1
    assert len(scene.unwraps()) - asked == (1 if standing == "cold" else 2)


def test_many_threads_use_the_availability_key_once(scene: Scene) -> None:
    """R-149: one unwrap, one record."""
    scene.fail("system-error")
    barrier = threading.Barrier(8)
    opened: list[CopyRole] = []

    def run() -> None:
        barrier.wait(30)
        opened.append(scene.open().opened_by)

    threads = [threading.Thread(target=run) for _thread in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert opened == [CopyRole.AVAILABILITY] * 8
    assert len(scene.contoso.fallbacks()) == 1


# -- settings, and what is not under customer keys ----------------------------------------------------------------------------------------


def test_the_two_numbers_are_settings(made: Scene, tmp_path: Path) -> None:
    """Design section 5: a shorter probe interval is obeyed sooner."""
    world = World(tmp_path, like=made.world, probe_interval=5 * SECOND, mail_max_age=10 * MINUTE)
    contoso = made.contoso.within(world)
    scene = Scene(world, contoso, replace(made.alice, tenant=contoso), made.policy)
    scene.alice.items()
    scene.fail("system-error")
    world.clock.advance(10 * MINUTE + 5 * SECOND + 1)
    assert len(scene.alice.items()) == 3
    assert len(contoso.fallbacks()) == 1
    scene.fail("denied")
    world.clock.advance(5 * SECOND + 1)
    with pytest.raises(KeyDenied):
        scene.alice.items()
    world.close()


def test_mailboxes_under_provider_keys_ask_no_vault(scene: Scene) -> None:
    """R-252."""
    bob = scene.contoso.mailbox("bob", messages=1)
    scene.fail("denied")
    assert bob.read_all() == [message(0)]
    assert scene.unwraps() == []


def test_no_key_is_in_any_text_of_the_keyring(scene: Scene) -> None:
    """R-138: nor can an opened policy be pickled or copied out."""
    opened = scene.open()
    assert "SecretKey(...)" in repr(opened.keys)
    assert opened.keys.check.hex() not in repr(opened.keys)
