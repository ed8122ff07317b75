"""A customer took both keys away; somebody who still has the process, the clock, the network or the database tries to go on reading."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest

from keystead.api.types import mailboxes as m
from keystead.core.errors import IntegrityFailure, KeyDenied, KeysteadError
from keystead.ports.clock import HOUR, MINUTE

if TYPE_CHECKING:
    from collections.abc import Callable

    from attacks.conftest import Scene
    from keystead.ports.vaults import KeyFacts, SubscriptionFacts, Vaults, WrappedValue
    from support.world import Process

ALICE = "alice@contoso.example"
SECOND = 1_000
INTERVAL = 60 * SECOND


class After:
    """Vaults in front of others: calls `after` once an unwrapKey has been answered, before the service hears of it."""

    def __init__(self, inner: Vaults, after: Callable[[], None]) -> None:
        self.inner, self.after = inner, after

    def key_facts(self, tenant_id: str, application: str, key_uri: str) -> KeyFacts:
        return self.inner.key_facts(tenant_id, application, key_uri)

    def subscription_facts(self, tenant_id: str, name: str) -> SubscriptionFacts:
        return self.inner.subscription_facts(tenant_id, name)

    def wrap(self, tenant_id: str, application: str, key_uri: str, value: bytes) -> WrappedValue:
        return self.inner.wrap(tenant_id, application, key_uri, value)

    def unwrap(self, tenant_id: str, application: str, key_uri: str, value: bytes) -> bytes:
        opened = self.inner.unwrap(tenant_id, application, key_uri, value)
        self.after()
        return opened


def revoke(scene: Scene) -> None:
    for vault in ("contosov1", "contosov2"):
        scene.contoso.deny(vault)


def refused(scene: Scene, process: Process | None = None) -> bool:
    """Whether the owner is shown nothing."""
    try:
        scene.alice.items(scene.owner(ALICE, process or scene.world.first))
    except KeyDenied:
        return True
    return False


@pytest.mark.parametrize("back", [SECOND, MINUTE, 10 * HOUR, 400 * 24 * HOUR])
@pytest.mark.parametrize("probed", [False, True])
def test_a_clock_that_is_set_back_gives_a_revoked_key_no_more_time_R_141(scene: Scene, back: int, *, probed: bool) -> None:
    """R-141, R-146: an answer from the future proves nothing; the keys are asked again."""
    assert len(scene.alice.items()) == 4
    if probed:
        scene.world.clock.advance(61 * SECOND)
        assert len(scene.alice.items()) == 4
    revoke(scene)
    scene.world.clock.time -= back
    assert refused(scene)


def test_a_clock_that_was_set_back_does_not_make_every_read_ask(scene: Scene) -> None:
    """R-141: after one probe at the new time the keys are good for a probe interval again."""
    scene.alice.items()
    scene.world.clock.time -= 10 * HOUR
    scene.alice.items()
    asked = len(scene.world.vaults.asked)
    for _ in range(3):
        scene.alice.items()
    assert len(scene.world.vaults.asked) == asked


@pytest.mark.parametrize("held_up", [0, 3 * SECOND, 6 * HOUR])
def test_an_opening_begun_before_the_denial_and_ended_after_it_does_not_undo_it_R_141(scene: Scene, held_up: int) -> None:
    """R-141, R-146: a process that was held up between the vault's answer and its own writing neither keeps the key nor calls it healthy."""
    first, second = scene.world.first, scene.world.process("second")
    before: list[bool] = []

    def meanwhile() -> None:
        if not before:
            before.append(True)
            revoke(scene)
            assert refused(scene, second)
            scene.world.clock.advance(held_up)

    scene.world.forget()
    scene.fail("system-error", vaults=("contosov1",))  # so that the first process asks both and writes a pair
    first.vaults.inner = After(first.vaults.inner, meanwhile)
    scene.alice.items()  # asked while it still might: this one is answered
    assert before
    scene.fail("success", vaults=("contosov1",))
    assert refused(scene)
    assert refused(scene, second)
    state = scene.world.sql("SELECT primary_outcome, secondary_outcome FROM policy_states WHERE policy_id = ?", scene.mail.id)
    assert state == [("denied", "denied")]


def test_a_probe_begun_before_the_denial_does_not_undo_it_R_141(scene: Scene) -> None:
    """R-141: the same for a process that holds the key already and only asked whether it still may."""
    first, second = scene.world.first, scene.world.process("second")
    scene.alice.items()
    scene.world.clock.advance(61 * SECOND)
    answered = threading.Semaphore(0)
    done: list[bool] = []
    lock = threading.Lock()

    def meanwhile() -> None:
        answered.release()
        with lock:
            if not done:
                answered.acquire(timeout=30)
                answered.acquire(timeout=30)  # both keys have said yes
                done.append(True)
                revoke(scene)
                assert refused(scene, second)

    first.vaults.inner = After(first.vaults.inner, meanwhile)
    assert refused(scene)
    assert refused(scene, second)


def test_a_pair_counts_from_when_it_was_asked_for(scene: Scene) -> None:
    """R-141: slow vaults do not lengthen the revocation delay."""
    scene.alice.items()
    scene.world.clock.advance(61 * SECOND)
    started = scene.world.clock.now()
    scene.world.vaults.before = lambda _verb, _vault: scene.world.clock.sleep(2 * SECOND)
    scene.alice.items()
    scene.world.vaults.before = lambda _verb, _vault: None
    revoke(scene)
    scene.world.clock.time = started + INTERVAL + 1
    assert refused(scene)


def test_a_denial_whose_confirmation_cannot_be_had_is_a_denial_R_141(scene: Scene) -> None:
    """R-141: who cuts the network right after the customer's no does not turn it into a fault, for which the availability key would serve."""
    scene.alice.items()
    scene.fail("denied")
    sleep = scene.world.clock.sleep

    def cut(milliseconds: int) -> None:
        sleep(milliseconds)
        if milliseconds == scene.world.settings.denial_confirm:
            scene.fail("system-error")

    scene.world.clock.sleep = cut  # type: ignore[method-assign]
    scene.world.clock.advance(61 * SECOND)
    assert refused(scene)


def test_whoever_can_write_the_state_row_keeps_a_revoked_key_for_some_hours_at_most_R_141(scene: Scene) -> None:
    """R-141: a forged "healthy" is believed like another process's word, and no longer than two times `mail_max_age`."""
    scene.alice.items()
    revoke(scene)
    for _ in range(9):
        scene.world.clock.advance(HOUR)
        now = scene.world.clock.now()
        scene.world.sql(
            "UPDATE policy_states SET primary_outcome = 'success', secondary_outcome = 'success', probed_at = ?, succeeded_at = ?", now, now
        )
        stopped = refused(scene)
    assert stopped


def test_a_forged_state_row_opens_nothing_for_a_process_that_does_not_have_the_key_R_141(scene: Scene) -> None:
    """R-141: outcomes in the database never stand for an answer of a vault."""
    revoke(scene)
    second = scene.world.process("second")
    for outcome in ("success", "system-error"):
        now = scene.world.clock.now()
        scene.world.sql("UPDATE policy_states SET primary_outcome = ?, secondary_outcome = ?, probed_at = ?", outcome, outcome, now)
        assert refused(scene, second)


def test_what_a_fault_let_in_ends_with_half_a_denial_R_144(scene: Scene) -> None:
    """R-144: an entry of the availability key is for two faults; one denial beside a fault ends it, whichever process finds out."""
    second = scene.world.process("second")
    scene.world.forget()
    scene.fail("system-error")
    assert len(scene.alice.items()) == 4  # by the availability key
    scene.fail("system-error", second, ("contosov1",))
    scene.fail("denied", second, ("contosov2",))
    assert refused(scene, second)
    scene.fail("denied", vaults=("contosov2",))
    assert refused(scene)


def test_no_path_leads_to_content_after_both_keys_were_denied_R_141(scene: Scene) -> None:
    """R-141, R-145: listing, reading, a stream under way, a delegate, other processes, an entry a system operation opened."""
    large = next(item for item in scene.alice.items() if item.subject == "Large")
    small = next(item for item in scene.alice.items() if item.subject != "Large")
    scene.alice.owner.call("mailbox.delegate", m.DelegateRequest(upn=ALICE, delegate="bob@contoso.example"))
    stream = scene.alice.owner.call("mailbox.read", m.NameItem(upn=ALICE, item=large.id)).chunks
    next(stream)
    second = scene.world.process("second")
    scene.alice.items(scene.owner(ALICE, second))
    revoke(scene)
    scene.world.clock.advance(61 * SECOND)
    for process in (scene.world.first, second):
        hits = scene.contoso.admin.call("mailbox.search", m.Search(text="body 0", upn=ALICE))  # a system operation: ids, no content
        assert {hit.item_id for hit in hits} >= {small.id}
        for person in (ALICE, "bob@contoso.example"):
            client = scene.owner(person, process)
            with pytest.raises(KeyDenied):
                scene.alice.items(client)
            for item in (large, small):
                with pytest.raises(KeyDenied):
                    scene.alice.read(item.id, client)
    with pytest.raises(KeyDenied):
        next(stream)
    assert scene.alice.add(b"Subject: x\r\n\r\ny\r\n", client=scene.contoso.admin).imported == 1
    with pytest.raises(KeyDenied):
        scene.alice.items()


def test_threads_that_race_with_the_eviction_read_nothing_after_it_R_141(scene: Scene) -> None:
    """R-141: many readers, one denial; once one of them was refused, no read that begins later succeeds."""
    scene.alice.items()
    small = next(item for item in scene.alice.items() if item.subject != "Large")
    revoke(scene)
    scene.world.clock.advance(61 * SECOND)
    denied = threading.Event()
    broken: list[str] = []

    def read() -> None:
        for _ in range(10):
            late = denied.is_set()
            try:
                scene.alice.read(small.id)
            except KeyDenied:
                denied.set()
            except KeysteadError as error:
                broken.append(str(error))
            else:
                broken.append(f"read, late: {late}")

    threads = [threading.Thread(target=read) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert denied.is_set()
    assert broken == []


def test_a_copy_that_is_missing_is_an_integrity_failure_R_080(scene: Scene) -> None:
    """R-080: a deleted row of a wrapped copy is told as damage, not as a crash, and by every command."""
    for role in ("primary", "availability"):
        scene.world.sql("DELETE FROM policy_copies WHERE role = ?", role)
        with pytest.raises(IntegrityFailure) as caught:
            scene.alice.items()
        assert caught.value.code == "policy_copy_missing"
