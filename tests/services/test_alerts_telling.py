"""Hooks are told of every alert, in order, at least once, and no receiver holds anything up (docs/spec/hooks.md)."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import pytest

from keystead.adapters.notify.open import open_hooks
from keystead.api.types import watching as w
from keystead.cli import main
from keystead.core.alerts import AlertKind, Condition, wait_after
from keystead.core.configuration import Configuration, HookConfig, HookKind
from keystead.core.errors import NotFound, Unavailable
from keystead.ports.clock import DAY, HOUR, MINUTE
from keystead.ports.notify import NotDelivered
from keystead.services.alerting import EVENTS_KEPT, HOOK_LEASE, deliver, raise_alert, resolve_alerts, standing_watch, watch
from keystead.wiring import create_home
from support.crash import Fuse, Killed, dying_process
from support.hooks import SECRET, Receiver, receiver, secret_file, status, verify
from support.world import OPERATOR, SECOND, World, message

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from keystead.ports.notify import Hook, Message
    from keystead.services.context import Services

TENANT = "11111111-2222-4333-8444-555555555555"


@dataclass
class Pager:
    """A hook for tests of order and time alone: keeps what it is told, or fails."""

    name: str = "pager"
    kinds: frozenset[AlertKind] = frozenset()
    tenant: str = ""
    told: list[Message] = field(default_factory=list)
    failing: bool = False

    def send(self, message: Message, now: int) -> str:
        if self.failing:
            raise NotDelivered("scripted")
        self.told.append(message)
        return "taken"

    def states(self) -> list[tuple[str, str]]:
        return [(message.subject_id, message.state) for message in self.told]


@pytest.fixture
def pager() -> Pager:
    return Pager()


@pytest.fixture
def phone() -> Iterator[Receiver]:
    with receiver() as made:
        yield made


def services_of(world: World, *hooks: Hook) -> Services:
    """The service with these hooks, each of which has been seen once."""
    services = replace(world.services, hooks=hooks)
    tell(services)
    return services


def tell(services: Services) -> None:
    """Deliver all that can be delivered now."""
    for hook in services.hooks:
        while deliver(services, hook):
            pass


def begin(services: Services, subject: str = "a", kind: AlertKind = AlertKind.KEY_DENIED, **more: Any) -> None:
    with services.db.write() as tx:
        raise_alert(services, tx, Condition(**({"tenant_id": TENANT, "kind": kind, "subject_id": subject, "detail": "x"} | more)))


def end(services: Services, subject: str = "a", kind: AlertKind = AlertKind.KEY_DENIED) -> None:
    with services.db.write() as tx:
        resolve_alerts(services, tx, TENANT, subject, [kind])


def alerts(world: World) -> dict[str, w.AlertView]:
    found: list[w.AlertView] = world.operator.call("alerts.everywhere", w.ListAlerts(lasting_only=True))
    return {alert.kind: alert for alert in found}


# -- what is told, and when ---------------------------------------------------------------------------------------------------------------


def test_raised_escalated_and_resolved_are_told_in_order(world: World, pager: Pager) -> None:
    services = services_of(world, pager)
    begin(services)
    begin(services, "b")
    begin(services)
    begin(services, escalated=True)
    begin(services, escalated=True)
    end(services, "b")
    end(services)
    tell(services)
    assert pager.states() == [("a", "raised"), ("b", "raised"), ("a", "escalated"), ("b", "resolved"), ("a", "resolved")]
    assert len({message.id for message in pager.told}) == 5
    first, second = ({message.alert_id for message in pager.told if message.subject_id == subject} for subject in "ab")
    assert (len(first), len(second)) == (1, 1)
    assert {message.severity for message in pager.told} == {"critical"}
    tell(services)
    assert len(pager.told) == 5


def test_a_change_that_is_rolled_back_is_not_told(world: World, pager: Pager) -> None:
    services = services_of(world, pager)

    def act() -> None:
        with services.db.write() as tx:
            raise_alert(services, tx, Condition(TENANT, AlertKind.KEY_DENIED, "a", "x"))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        act()
    tell(services)
    assert pager.told == []
    assert alerts(world) == {}


def test_what_comes_and_goes_is_told_once_an_hour(world: World, pager: Pager) -> None:
    services = services_of(world, pager)
    for _minute in range(20):
        begin(services)
        end(services)
        world.clock.advance(MINUTE)
        tell(services)
    assert pager.states() == [("a", "raised"), ("a", "resolved")]
    begin(services)
    watch(services)
    tell(services)
    assert len(pager.told) == 2, "it lasts, but the hour is not over"
    world.clock.advance(41 * MINUTE)
    watch(services)
    tell(services)
    assert pager.states()[2:] == [("a", "raised")], "it lasts still"
    end(services)
    tell(services)
    assert pager.states()[3:] == [("a", "resolved")]


def test_a_lasting_alert_is_told_once_however_often_it_is_found(world: World, pager: Pager) -> None:
    services = services_of(world, pager)
    for _hour in range(30):
        begin(services)
        world.clock.advance(HOUR)
        tell(services)
    assert pager.states() == [("a", "raised")]
    assert alerts(world)["key-denied"].times == 30


def test_quiet_is_for_one_kind_of_one_subject(world: World, pager: Pager) -> None:
    services = services_of(world, pager)
    begin(services)
    end(services)
    begin(services, "b")
    begin(services, kind=AlertKind.KEY_DEGRADED)
    begin(services, tenant_id="another")
    tell(services)
    assert len(pager.told) == 5


def test_a_hook_is_told_of_the_kinds_and_the_tenant_it_wants(world: World) -> None:
    contoso = world.tenant(ready=False)
    denied, theirs, named = (
        Pager("denied", frozenset({AlertKind.KEY_DENIED})),
        Pager("theirs", tenant=contoso.id),
        Pager("named", tenant="contoso.example"),
    )
    nobody = Pager("nobody", tenant="nobody.example")
    services = services_of(world, denied, theirs, named, nobody)
    begin(services, "other-tenant")
    begin(services, "degraded", kind=AlertKind.KEY_DEGRADED, tenant_id=contoso.id)
    begin(services, "installation", tenant_id="", kind=AlertKind.KEY_STORE)
    begin(services, "denied", tenant_id=contoso.id)
    tell(services)
    assert [hook.states() for hook in (denied, theirs, named, nobody)] == [
        [("other-tenant", "raised"), ("denied", "raised")],
        [("degraded", "raised"), ("denied", "raised")],
        [("degraded", "raised"), ("denied", "raised")],
        [],
    ]


def test_a_new_hook_is_told_of_what_lasts_and_not_of_what_is_over(world: World, pager: Pager) -> None:
    begin(world.services, "over")
    end(world.services, "over")
    begin(world.services, "lasts")
    world.clock.advance(MINUTE)
    services = services_of(world, pager)
    assert pager.states() == [("lasts", "raised")]
    end(services, "lasts")
    begin(services, "later")
    end(services, "later")
    tell(services)
    assert pager.states()[1:] == [("lasts", "resolved"), ("later", "raised"), ("later", "resolved")]


def test_old_events_are_forgotten(world: World, pager: Pager) -> None:
    begin(world.services)
    world.clock.advance(EVENTS_KEPT + 1)
    watch(world.services)
    assert world.sql("SELECT * FROM alert_events") == []
    services_of(world, pager)
    assert pager.told == []


# -- when it does not get through -----------------------------------------------------------------------------------------------------------


def test_waits_grow_to_an_hour() -> None:
    waits = [wait_after(attempts, 10 * SECOND, HOUR) for attempts in range(1, 12)]
    assert waits[:4] == [10 * SECOND, 20 * SECOND, 40 * SECOND, 80 * SECOND]
    assert waits[-1] == HOUR
    assert wait_after(10**9, 10 * SECOND, HOUR) == HOUR


def test_a_failed_event_is_tried_again_later_and_what_follows_waits(world: World, pager: Pager) -> None:
    services = services_of(world, pager)
    pager.failing = True
    begin(services)
    begin(services, "b")
    assert deliver(services, pager)
    assert not deliver(services, pager), "not before ten seconds are over"
    world.clock.advance(10 * SECOND)
    assert deliver(services, pager)
    world.clock.advance(19 * SECOND)
    assert not deliver(services, pager)
    pager.failing = False
    world.clock.advance(SECOND)
    tell(services)
    assert pager.states() == [("a", "raised"), ("b", "raised")]
    assert "hook-failing" not in alerts(world), "twice may happen"


def test_a_hook_that_fails_has_an_alert_that_others_are_told_of(world: World, pager: Pager) -> None:
    other = Pager("other")
    services = services_of(world, pager, other)
    pager.failing = True
    begin(services)
    for _try in range(3):
        tell(services)
        world.clock.advance(HOUR)
    alert = alerts(world)["hook-failing"]
    assert (alert.subject_id, alert.severity, alert.tenant_id) == ("pager", "warning", "")
    assert other.states() == [("a", "raised"), ("pager", "raised")]
    pager.failing = False
    tell(services)
    tell(services)
    assert "hook-failing" not in alerts(world)
    assert other.states() == [("a", "raised"), ("pager", "raised"), ("pager", "resolved")]
    assert pager.states() == [("a", "raised")], "never of itself"


def test_an_event_that_failed_for_a_day_is_given_up_and_the_next_is_tried(world: World, pager: Pager) -> None:
    services = services_of(world, pager)
    pager.failing = True
    begin(services)
    tries = 0
    began = world.clock.now()
    while world.clock.now() - began < DAY:
        tries += deliver(services, pager)
        world.clock.advance(10 * MINUTE)
    begin(services, "b")
    assert 20 < tries < 40
    assert alerts(world)["hook-failing"].severity == "warning"
    world.clock.advance(HOUR)
    assert deliver(services, pager)
    alert = alerts(world)["hook-failing"]
    assert alert.severity == "critical"
    assert "given up" in alert.detail
    pager.failing = False
    world.clock.advance(HOUR)
    tell(services)
    assert pager.states() == [("b", "raised")]
    assert "hook-failing" not in alerts(world)


def test_a_worker_that_was_away_for_days_gives_nothing_up_unseen(world: World, pager: Pager) -> None:
    services = services_of(world, pager)
    begin(services)
    world.clock.advance(3 * DAY)
    pager.failing = True
    assert deliver(services, pager)
    pager.failing = False
    world.clock.advance(10 * SECOND)
    tell(services)
    assert pager.states() == [("a", "raised")]


def test_a_hook_that_is_configured_no_more_fails_no_more(world: World, pager: Pager) -> None:
    services = services_of(world, pager)
    pager.failing = True
    begin(services)
    for _try in range(3):
        tell(services)
        world.clock.advance(HOUR)
    assert "hook-failing" in alerts(world)
    watch(services)
    assert "hook-failing" in alerts(world)
    watch(world.services)
    assert "hook-failing" not in alerts(world)


def test_a_defect_in_a_hook_counts_as_a_failure(world: World, pager: Pager, caplog: pytest.LogCaptureFixture) -> None:
    services = services_of(world, pager)
    pager.told = None  # type: ignore[assignment]  # the defect
    begin(services)
    for _try in range(3):
        assert deliver(services, pager)
        world.clock.advance(HOUR)
    assert "hook-failing" in alerts(world)
    assert "met a defect" in caplog.text


# -- crashes and several processes ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("step", "told"), [("hook: leased", 1), ("hook: sent", 2)])
def test_a_crash_while_it_is_told_sends_it_again_with_the_same_id(world: World, pager: Pager, step: str, told: int) -> None:
    services = services_of(world, pager)
    begin(services)
    begin(services, "b")

    class AtStep(Fuse):
        def step(self, name: str) -> None:
            if name == step:
                raise Killed(name)

    dying = dying_process(world, AtStep(99))
    with pytest.raises(Killed):
        deliver(dying.services, pager)
    assert not deliver(services, pager), "the dead process's lease lasts"
    world.clock.advance(HOOK_LEASE + 1)
    tell(services)
    assert pager.states() == [("a", "raised")] * told + [("b", "raised")]
    assert len({message.id for message in pager.told}) == 2


def test_a_crash_after_the_act_leaves_alert_and_event(world: World, pager: Pager) -> None:
    services = services_of(world, pager)
    fuse = Fuse(2)  # the transaction began, was about to commit, was committed
    with pytest.raises(Killed):
        begin(dying_process(world, fuse).services)
    assert fuse.steps[-1] == "committed"
    tell(services)
    assert pager.states() == [("a", "raised")]


def test_many_processes_tell_once(world: World, pager: Pager) -> None:
    services = services_of(world, pager)
    for number in range(10):
        begin(services, f"s{number}")
    processes = [world.process(f"p{number}").services for number in range(4)]
    together = threading.Barrier(4)

    def work(one: Services) -> None:
        together.wait()
        for _try in range(200):
            deliver(one, pager)
            if len(pager.told) >= 10:
                return

    threads = [threading.Thread(target=work, args=(one,)) for one in processes]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    tell(services)
    assert pager.states() == [(f"s{number}", "raised") for number in range(10)]


def test_a_process_that_was_held_up_does_not_turn_back_what_another_did(world: World) -> None:
    other = world.process("other").services
    quick = Pager("pager")

    class Slow(Pager):
        def send(self, message: Message, now: int) -> str:
            world.clock.advance(HOOK_LEASE + 1)
            tell(replace(other, hooks=(quick,)))
            return super().send(message, now)

    slow = Slow("pager")
    services = services_of(world, slow)
    begin(services)
    begin(services, "b")
    assert deliver(services, slow)
    assert quick.states() == [("a", "raised"), ("b", "raised")]
    assert not deliver(services, slow), "both are told already"


def test_a_clock_that_was_set_back_does_not_silence_a_hook_for_long(world: World, pager: Pager) -> None:
    services = services_of(world, pager)
    begin(services)
    world.sql("UPDATE hook_states SET lease_until = ?", world.clock.now() + 30 * DAY)
    tell(services)
    assert pager.states() == [("a", "raised")]


# -- a real receiver ----------------------------------------------------------------------------------------------------------------------


def phone_hook(folder: Path, phone: Receiver, **more: Any) -> Hook:
    config = HookConfig(name="phone", kind=HookKind.HTTP, url=phone.url, secret_file=secret_file(folder).name, **more)
    return open_hooks(Configuration(hooks=(config,)), folder)[0]


def test_a_customer_s_denial_reaches_the_receiver_signed_and_without_content(world: World, tmp_path: Path, phone: Receiver) -> None:
    contoso = world.tenant()
    policy = contoso.policy("Marked-policy")
    alice = contoso.mailbox("marked-person")
    alice.add(message(1, subject="MARKED-SUBJECT", body="MARKED-BODY"))
    contoso.assign(policy, alice)
    services = services_of(world, phone_hook(tmp_path, phone))
    for kind in ("denied", "success"):
        for vault in ("contosov1", "contosov2"):
            world.vaults.fail(vault, kind)
        contoso.health("Marked-policy")
    tell(services)
    assert phone.states() == [("key-denied", "raised"), ("key-denied", "resolved")]
    for told in phone.told:
        assert verify(SECRET.encode(), told.headers["keystead-signature"], told.body, world.clock.now())
        assert (told.event["tenant_id"], told.event["subject_id"]) == (contoso.id, policy.id)
        for word in (b"arked", b"MARKED", b"contoso", b"vault.localhost", b"example"):
            assert word not in told.body, word


def test_a_receiver_that_answers_500_gets_the_same_event_until_it_takes_it(world: World, tmp_path: Path, phone: Receiver) -> None:
    services = services_of(world, phone_hook(tmp_path, phone))
    phone.answer = status(500)
    begin(services)
    for _try in range(3):
        tell(services)
        world.clock.advance(HOUR)
    phone.answer = status(200)
    tell(services)
    assert len(phone.told) == 4
    assert len({told.event["id"] for told in phone.told}) == 1
    assert len({told.headers["keystead-signature"] for told in phone.told}) == 4, "each is signed at its own time"


def test_a_receiver_that_hangs_holds_up_nobody(world: World, tmp_path: Path, phone: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    """Calls, jobs and the other hook go on while one delivery hangs."""
    monkeypatch.setattr("keystead.adapters.notify.http.STEP_SECONDS", 100.0)
    contoso = world.tenant()
    contoso.policy("Mail")
    alice = contoso.mailbox("alice", messages=2)
    reached = threading.Event()

    def hang(_handler: Any) -> None:
        reached.set()
        phone.gone.wait(120)

    phone.answer = hang
    told = threading.Event()

    class Bell(Pager):
        def send(self, message: Message, now: int) -> str:
            told.set()
            return super().send(message, now)

    services = replace(world.services, hooks=(phone_hook(tmp_path, phone), Bell("bell")))
    with standing_watch(services):
        begin(services)
        assert reached.wait(60)
        assert told.wait(60)
        began = time.monotonic()
        contoso.assign("Mail", alice)
        assert len(alice.read_all()) == 2
        begin(services, "b")
        assert time.monotonic() - began < 90, "a delivery hangs for a hundred seconds here; a call or a job never waits for it"
        phone.gone.set()
    assert [thread.name for thread in threading.enumerate() if thread.name.startswith(("hook-", "alerts"))] == []


def test_threads_of_the_watch_outlive_a_database_that_is_gone_for_a_while(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("keystead.services.alerting.LOOK_EVERY", 20)
    told = threading.Event()

    class Bell(Pager):
        def send(self, message: Message, now: int) -> str:
            told.set()
            return super().send(message, now)

    failed = threading.Event()
    bell = Bell("bell")

    class Gone:
        def read(self) -> Any:
            failed.set()
            raise Unavailable("database_unavailable", "gone", "")

        write = read

    database: list[Any] = [Gone()]

    class Switch:
        def read(self) -> Any:
            return database[0].read()

        def write(self) -> Any:
            return database[0].write()

    services = replace(world.services, hooks=(bell,), db=Switch())
    with standing_watch(services):
        assert failed.wait(60)
        database[0] = world.services.db  # it is back
        begin(world.services)
        assert told.wait(60)


# -- trying a hook out ----------------------------------------------------------------------------------------------------------------------


def test_a_hook_is_tried_out_and_listed(world: World, tmp_path: Path, phone: Receiver) -> None:
    process = world.process("serve", hooks=(phone_hook(tmp_path, phone, alerts=("key-denied",)),))
    operator = process.client(OPERATOR)
    tried: w.HookTried = operator.call("alerts.test", w.TryHook(hook="phone"))
    assert (tried.hook, tried.answer) == ("phone", "the receiver answered 204")
    assert [(told.event["id"], told.event["kind"], told.event["state"]) for told in phone.told] == [(tried.event_id, "test", "test")]
    assert world.sql("SELECT object_id FROM audit_records WHERE operation = 'Test-AlertHook'") == [("phone",)]
    begin(process.services)
    phone.answer = status(302)
    tell(process.services)
    hooks: list[w.HookView] = operator.call("alerts.hooks")
    [hook] = hooks
    assert (hook.name, hook.kinds, hook.failures, hook.last_error) == (
        "phone",
        ["key-denied"],
        1,
        "the receiver answered 302; redirects are not followed",
    )
    with pytest.raises(Unavailable) as caught:
        operator.call("alerts.test", w.TryHook(hook="phone"))
    assert caught.value.code == "hook_not_delivered"
    assert "302" in caught.value.detail
    with pytest.raises(NotFound):
        operator.call("alerts.test", w.TryHook(hook="pager"))


def test_a_home_tells_through_the_hooks_of_its_file(tmp_path: Path, phone: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "home"
    create_home(home, dev=True, operator="operator@provider.example")
    secret_file(home)
    (home / "keystead.toml").write_text(
        f'[[hooks]]\nname = "phone"\nkind = "http"\nurl = "{phone.url}"\nsecret_file = "hook.secret"\nalerts = ["key-store-access"]\n'
    )
    monkeypatch.setenv("KEYSTEAD_HOME", str(home))
    assert main.run(["alerts", "test", "phone", "--json"]) == 0
    assert main.run(["alerts", "hooks"]) == 0
    phone.answer = status(503)
    assert main.run(["alerts", "test", "phone"]) == 5
    assert main.run(["alerts", "test", "pager"]) == 4
    assert main.run(["alerts", "list", "--everywhere", "--kind", "key-denied", "--all"]) == 0
    assert [told.event["state"] for told in phone.told] == ["test", "test"]
