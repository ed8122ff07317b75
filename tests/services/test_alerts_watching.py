"""Every condition of the service is an alert while it lasts, found by upkeep even when nobody comes across it."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import pytest

from keystead.api.types import mailboxes as m
from keystead.api.types import watching as w
from keystead.core.errors import IntegrityFailure, InvalidRequest, NotFound, Unavailable
from keystead.ports.clock import DAY, HOUR, MINUTE
from keystead.services.alerting import beat, watch
from keystead.services.jobs.runner import run_due, run_one
from keystead.wiring import create_home, open_home
from support.world import SECOND, World, message

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from keystead.services.context import Services
    from support.world import MailboxWorld, TenantWorld

V1, V2 = "contosov1", "contosov2"


@dataclass
class Scene:
    """A tenant with a policy and a mailbox under it."""

    world: World
    contoso: TenantWorld
    alice: MailboxWorld

    def watch(self, after: int = 0) -> None:
        """A round of upkeep, that much later; a worker is there."""
        self.world.clock.advance(after)
        beat(self.world.services)
        watch(self.world.services)

    def alerts(self, *, lasting_only: bool = True, **more: Any) -> dict[str, w.AlertView]:
        """Those of the installation and of all tenants, by kind."""
        found: list[w.AlertView] = self.world.operator.call("alerts.everywhere", w.ListAlerts(lasting_only=lasting_only, **more))
        return {alert.kind: alert for alert in found}

    def both(self, kind: str) -> None:
        for vault in (V1, V2):
            self.world.vaults.fail(vault, kind)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, database: str) -> Iterator[Scene]:
    world = World(tmp_path_factory.mktemp("made"))
    contoso = world.tenant()
    contoso.policy("Mail")
    alice = contoso.mailbox("alice", messages=3)
    contoso.assign("Mail", alice)
    run_due(world.services)
    yield Scene(world, contoso, alice)
    world.close()


@pytest.fixture
def scene(made: Scene, tmp_path: Path) -> Iterator[Scene]:
    world = World(tmp_path, like=made.world)
    contoso = made.contoso.within(world)
    yield Scene(world, contoso, replace(made.alice, tenant=contoso))
    world.close()


def test_a_healthy_installation_has_no_alerts(scene: Scene) -> None:
    for _minute in range(3):
        scene.watch(MINUTE)
    assert scene.alerts(lasting_only=False) == {}


# -- keys -------------------------------------------------------------------------------------------------------------------------------


def test_a_cache_near_its_end_is_found_though_nobody_reads_R_118_R_119(scene: Scene) -> None:
    scene.alice.items()
    scene.both("system-error")
    scene.watch(HOUR)
    assert scene.alerts() == {}, "asking would be for nothing: half the tolerance is left"
    scene.watch(HOUR + MINUTE)
    assert set(scene.alerts()) == {"key-unreachable", "cache-near-expiry"}
    scene.both("success")
    scene.watch(2 * MINUTE)
    assert scene.alerts() == {}


def test_a_cache_is_renewed_before_its_end_though_nobody_reads_R_118(scene: Scene) -> None:
    scene.alice.items()
    for _quarter in range(8 * 4):
        scene.watch(15 * MINUTE)
    scene.both("system-error")
    scene.world.clock.advance(90 * MINUTE)
    assert len(scene.alice.items()) == 3, "the last answer is less than four hours old"
    assert scene.contoso.fallbacks() == []


def test_what_another_process_has_cached_is_asked_about_too(scene: Scene) -> None:
    scene.alice.items()
    scene.world.clock.advance(61 * SECOND)
    scene.alice.items()  # leaves a pair for all processes
    other = scene.world.process("other")
    for vault in (V1, V2):
        other.vaults.fail(vault, "denied")
    scene.world.clock.advance(2 * HOUR + MINUTE)
    beat(other.services)
    watch(other.services)
    assert set(scene.alerts()) == {"key-denied"}


@pytest.mark.parametrize(("failing", "kind"), [(("denied",), "key-degraded"), (("denied", "denied"), "key-denied")])
def test_a_key_alert_is_resolved_though_nobody_reads(scene: Scene, failing: tuple[str, ...], kind: str) -> None:
    for vault, outcome in zip((V1, V2), failing, strict=False):
        scene.world.vaults.fail(vault, outcome)
    scene.contoso.health()
    assert set(scene.alerts()) == {kind}
    scene.watch(16 * MINUTE)
    alert = scene.alerts()[kind]
    assert alert.times == 2
    assert alert.last_seen > alert.raised
    scene.both("success")
    scene.watch(14 * MINUTE)
    assert set(scene.alerts()) == {kind}, "not asked all the time: the customer's vaults keep a log"
    scene.watch(2 * MINUTE)
    assert scene.alerts() == {}
    assert scene.alerts(lasting_only=False)[kind].resolved is not None


def test_one_policy_whose_rows_are_damaged_does_not_keep_others_from_being_asked(scene: Scene) -> None:
    second = scene.contoso.policy("Second")
    for policy in ("Mail", "Second"):
        scene.both("denied")
        scene.contoso.health(policy)
    scene.world.sql("UPDATE policy_states SET primary_outcome = 'broken' WHERE policy_id <> ?", second.id)
    scene.both("success")
    scene.watch(16 * MINUTE)
    lasting = {alert.subject_id for alert in scene.world.operator.call("alerts.everywhere", w.ListAlerts(lasting_only=True))}
    assert second.id not in lasting
    assert len(lasting) == 1


# -- jobs and moves -----------------------------------------------------------------------------------------------------------------------


def fail_moves(scene: Scene) -> tuple[Services, list[bool]]:
    """A process whose objects cannot be written, while the list says so."""
    failing = [True]

    class Full:
        def __getattr__(self, name: str) -> Any:
            return getattr(scene.world.services.objects, name)

        def put(self, *arguments: Any, **named: Any) -> Any:
            if failing[0]:
                raise Unavailable("storage_full", "the disk is full", "")
            return scene.world.services.objects.put(*arguments, **named)

    return scene.world.process("mover", objects=Full()).services, failing


def damage_objects(scene: Scene) -> None:
    """A move that meets such an object gives up."""
    for path in (scene.world.path / "objects").rglob("*"):
        if path.is_file():
            path.write_bytes(bytes(path.stat().st_size))


def start_move(scene: Scene) -> str:
    scene.contoso.policy("Second")
    return scene.contoso.assign("Second", scene.alice, wait=False).id


def test_a_failing_job_is_escalated_when_it_is_stuck_and_resolved_when_it_gets_on(scene: Scene) -> None:
    services, failing = fail_moves(scene)
    start_move(scene)
    seen = []
    for _try in range(4):
        run_due(services)
        alert = scene.alerts()["job-failing"]
        seen.append((alert.severity, alert.times))
        scene.world.clock.advance(MINUTE)
    assert seen == [("warning", 1), ("warning", 2), ("critical", 3), ("critical", 4)]
    assert alert.escalated is not None
    assert alert.detail == "move-mailbox: storage_full"
    assert alert.tenant_id == scene.contoso.id
    failing[0] = False
    run_due(services)
    assert scene.alerts() == {}


def test_the_alert_of_a_cancelled_job_and_of_what_it_started_is_resolved(scene: Scene) -> None:
    services, _failing = fail_moves(scene)
    job = start_move(scene)
    run_due(services)
    assert set(scene.alerts()) == {"job-failing"}
    scene.contoso.admin.call("job.cancel", w.NameJob(job=job))
    scene.watch(SECOND)
    assert scene.alerts() == {}


def test_a_job_that_gave_up_is_critical_and_told_of_for_a_day(scene: Scene) -> None:
    start_move(scene)
    damage_objects(scene)
    run_due(scene.world.services)
    alert = scene.alerts()["job-failing"]
    assert (alert.severity, alert.times) == ("critical", 1)
    scene.watch(23 * HOUR)
    assert "job-failing" in scene.alerts()
    scene.watch(HOUR)
    assert "job-failing" not in scene.alerts()


def test_a_move_is_flagged_escalated_and_resolved_R_093(scene: Scene) -> None:
    job = start_move(scene)
    scene.watch(72 * HOUR)
    assert "move-overdue" not in scene.alerts()
    scene.watch(SECOND)
    alert = scene.alerts()["move-overdue"]
    assert (alert.severity, alert.times, alert.subject_name) == ("warning", 1, ""), "the provider is shown ids"
    [mine] = scene.contoso.admin.call("alerts.list", w.ListAlerts(kinds=["move-overdue"]))
    assert (mine.id, mine.subject_name) == (alert.id, "alice@contoso.example")
    scene.watch(4 * DAY)
    alert = scene.alerts()["move-escalated"]
    assert (alert.severity, alert.id) == ("critical", mine.id)
    assert set(scene.alerts(kinds=["move-escalated"])) == {"move-escalated"}
    scene.contoso.admin.wait(job)
    assert "move-escalated" not in scene.alerts()
    scene.watch(SECOND)
    assert scene.alerts() == {}
    assert scene.alerts(lasting_only=False)["move-escalated"].resolved is not None


def test_a_move_that_failed_is_overdue_all_the_same_R_093(scene: Scene) -> None:
    start_move(scene)
    damage_objects(scene)
    run_due(scene.world.services)
    assert scene.alice.statistics().move_state == "failed"
    scene.watch(72 * HOUR + SECOND)
    assert "move-overdue" in scene.alerts()


def test_due_jobs_without_a_worker_raise_an_alert(scene: Scene) -> None:
    start_move(scene)
    beat(scene.world.services)
    scene.world.clock.advance(9 * MINUTE)
    watch(scene.world.services)
    assert scene.alerts() == {}
    scene.world.clock.advance(MINUTE)
    watch(scene.world.services)
    alert = scene.alerts()["worker-silent"]
    assert (alert.severity, alert.tenant_id, alert.subject_id) == ("critical", "", "worker")
    beat(scene.world.services)  # a worker is back; it has the job still before it
    watch(scene.world.services)
    assert scene.alerts() == {}


def test_a_long_backlog_with_a_worker_at_it_is_no_alert(scene: Scene) -> None:
    start_move(scene)
    for _minute in range(15):
        scene.watch(MINUTE)
    assert scene.alerts() == {}


def test_orphans_of_a_cancelled_collection_are_told_of_no_more(scene: Scene) -> None:
    scene.world.sql("DELETE FROM jobs WHERE kind = 'collect-orphans'")
    from keystead.services.jobs.rows import new_job  # noqa: PLC0415 - for this test alone

    with scene.world.services.db.write() as tx:
        tx.jobs.insert([new_job(scene.world.services, "", "collect-orphans", "")])
    scene.world.sql("DELETE FROM objects")
    scene.world.sql("UPDATE items SET object_ref = 'c0/gone'")
    scene.world.age_objects(2 * 24 * 3600)
    run_one(scene.world.services, kind="collect-orphans")
    alert = scene.alerts()["orphans-marked"]
    scene.world.sql("UPDATE jobs SET state = 'cancelled' WHERE id = ?", alert.subject_id)
    scene.watch(SECOND)
    assert scene.alerts() == {}


# -- the key store ------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "error",
    [Unavailable("database_unavailable", "gone", ""), IntegrityFailure("keystore_epoch_missing", "gone", "")],
    ids=["gone", "damaged"],
)
def test_a_key_store_that_cannot_be_read_is_found_though_nobody_reads(scene: Scene, error: Exception) -> None:
    class Gone:
        def seal(self, *arguments: Any) -> bytes:
            raise error

    broken = replace(scene.world.services, keystore=Gone())  # type: ignore[arg-type]  # all that is asked of it
    watch(broken)
    watch(broken)
    alert = scene.alerts()["key-store-unreadable"]
    assert (alert.times, alert.detail) == (2, error.code)  # type: ignore[attr-defined]  # errors of ours have one
    scene.watch()
    assert scene.alerts() == {}


def test_an_epoch_key_that_is_lost_is_found_by_a_process_that_starts(scene: Scene) -> None:
    """The store itself: its database is there, what opens it is not."""
    [seal] = (scene.world.path / "seals").glob("*provider*")
    moved = seal.rename(seal.with_suffix(".away"))
    scene.world.services.keystore._in_force.clear()  # type: ignore[attr-defined]  # as in a process that has just started
    scene.watch()
    assert scene.alerts()["key-store-unreadable"].detail == "keystore_epoch_missing"
    moved.rename(seal)
    scene.watch(MINUTE)
    assert scene.alerts() == {}


def test_a_home_whose_key_store_does_not_open_says_so_and_takes_it_back(tmp_path: Path) -> None:
    home = tmp_path / "home"
    create_home(home, dev=True, operator="operator@provider.example")
    master = home / "seals" / "keystore.master"
    right = master.read_bytes()
    master.unlink()
    with pytest.raises(IntegrityFailure):
        open_home(home)
    master.write_bytes(right)
    opened = open_home(home)
    try:
        client = opened.client(opened.as_operator())
        [alert] = client.call("alerts.everywhere", w.ListAlerts())
        assert (alert.kind, alert.detail, alert.resolved) == ("key-store-unreadable", "seal_missing", None)
        watch(opened.services)
        [alert] = client.call("alerts.everywhere", w.ListAlerts())
        assert alert.resolved is not None
    finally:
        opened.close()


def test_an_attempt_on_the_key_store_is_told_of_for_a_day_R_153(scene: Scene) -> None:
    [(policy_id,)] = scene.world.sql("SELECT id FROM policies WHERE name = 'Mail'")
    other = scene.contoso.policy("Other")
    [(key_id,)] = scene.world.sql("SELECT availability_key_id FROM policies WHERE id = ?", other.id)
    [(right,)] = scene.world.sql("SELECT availability_key_id FROM policies WHERE id = ?", policy_id)
    scene.world.sql("UPDATE policies SET availability_key_id = ? WHERE id = ?", key_id, policy_id)
    scene.world.forget()
    scene.both("system-error")
    with pytest.raises(IntegrityFailure):
        scene.alice.items()
    scene.world.sql("UPDATE policies SET availability_key_id = ? WHERE id = ?", right, policy_id)
    scene.both("success")
    scene.watch(23 * HOUR)
    assert set(scene.alerts()) == {"key-store-access"}
    [mine] = scene.contoso.admin.call("alerts.list", w.ListAlerts(kinds=["key-store-access"]))
    assert mine.subject_name == "Mail"
    scene.watch(HOUR)
    assert scene.alerts() == {}


# -- what could not be written ------------------------------------------------------------------------------------------------------------


@contextmanager
def no_records(world: World) -> Iterator[None]:
    """The database takes everything but audit records, as where the service's user may not write that table."""
    world.stores.refuse("keystead", "audit_records")
    try:
        yield
    finally:
        world.stores.refuse("keystead", "audit_records", allow=True)


def test_acts_refused_for_want_of_their_record_are_counted_and_told_of(scene: Scene) -> None:
    """No audit record, no act: and somebody hears of it."""
    with no_records(scene.world):
        for local in ("bob", "carol"):
            with pytest.raises(Unavailable) as caught:
                scene.contoso.mailbox(local)
            assert caught.value.code == "audit_unwritable"
    assert scene.alerts() == {}, "nobody has looked yet"
    scene.watch(MINUTE)
    alert = scene.alerts()["audit-unwritable"]
    assert (alert.severity, alert.tenant_id) == ("critical", "")
    assert alert.detail == "2 refused; the last with audit_unwritable"
    listed: list[m.MailboxView] = scene.contoso.admin.call("mailbox.list", m.ListMailboxes())
    assert [box.upn for box in listed] == ["alice@contoso.example"]
    scene.watch(23 * HOUR)
    assert "audit-unwritable" in scene.alerts()
    scene.watch(HOUR)
    assert scene.alerts() == {}


def test_a_refusal_that_cannot_be_recorded_is_told_of_too(scene: Scene) -> None:
    with no_records(scene.world), pytest.raises(Unavailable):
        scene.alice.read("no-such-item", scene.contoso.admin)
    scene.watch(MINUTE)
    assert set(scene.alerts()) == {"audit-unwritable"}


def test_a_database_that_takes_nothing_is_told_of_when_it_does_again(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """What stands in for a full disk: no writing transaction commits."""
    database = scene.world.services.db._inner  # type: ignore[attr-defined]  # of the counting one
    write = type(database).write

    @contextmanager
    def full(this: Any) -> Iterator[Any]:
        with write(this) as tx:
            yield tx
            raise Unavailable("database_unavailable", "the database did not take the call: disk is full", "")

    monkeypatch.setattr(type(database), "write", full)
    with pytest.raises(Unavailable):
        scene.contoso.mailbox("bob")
    watch(scene.world.services)  # nothing can be stored now, and nothing is forgotten
    monkeypatch.setattr(type(database), "write", write)
    assert scene.alerts(lasting_only=False) == {}
    scene.watch(MINUTE)
    assert set(scene.alerts()) == {"audit-unwritable"}


def test_what_a_single_command_could_not_write_the_next_process_tells(tmp_path: Path) -> None:
    import sqlite3  # noqa: PLC0415 - for this test alone

    from keystead.api.types import tenants as t  # noqa: PLC0415 - as above

    home = tmp_path / "home"
    create_home(home, dev=True, operator="operator@provider.example")

    def sql(statement: str) -> None:
        connection = sqlite3.connect(home / "keystead.db")
        with connection:
            connection.execute(statement)
        connection.close()

    sql("CREATE TRIGGER no_records BEFORE INSERT ON audit_records BEGIN SELECT RAISE(ABORT, 'not allowed'); END")
    command = open_home(home)
    with pytest.raises(Unavailable):
        command.client(command.as_operator()).call("tenant.create", t.CreateTenant(name="C", domain="c.example", geo=["EUR"]))
    command.close()
    sql("DROP TRIGGER no_records")
    worker = open_home(home)
    try:
        watch(worker.services)
        [alert] = worker.client(worker.as_operator()).call("alerts.everywhere", w.ListAlerts())
        assert (alert.kind, alert.times) == ("audit-unwritable", 1)
    finally:
        worker.close()


# -- as people see them -------------------------------------------------------------------------------------------------------------------


def test_alerts_are_chosen_by_kind_and_tenant_and_say_what_to_do(scene: Scene) -> None:
    fabrikam = scene.world.tenant("fabrikam.example", ready=False)
    scene.both("denied")
    scene.contoso.health()
    scene.watch()
    mine: list[w.AlertView] = scene.contoso.admin.call("alerts.list", w.ListAlerts())
    assert [(one.kind, one.subject_name, one.tenant_id) for one in mine] == [("key-denied", "Mail", scene.contoso.id)]
    assert "access grant" in mine[0].mend
    assert fabrikam.admin.call("alerts.list", w.ListAlerts()) == []
    assert scene.alerts(kinds=["key-degraded"]) == {}
    assert set(scene.alerts(kinds=["key-degraded", "key-denied"], of_tenant="contoso.example")) == {"key-denied"}
    assert scene.alerts(of_tenant="fabrikam.example") == {}
    with pytest.raises(NotFound):
        scene.alerts(of_tenant="nobody")
    with pytest.raises(InvalidRequest):
        scene.alerts(kinds=["key-lost"])
    with pytest.raises(InvalidRequest):
        fabrikam.admin.call("alerts.list", w.ListAlerts(of_tenant=scene.contoso.id))


def test_one_look_that_fails_does_not_stop_the_others(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("keystead.services.alerting._key_store", lambda _services: 1 / 0)
    with no_records(scene.world), pytest.raises(Unavailable):
        scene.contoso.mailbox("bob")
    scene.watch(MINUTE)
    assert "audit-unwritable" in scene.alerts()
    assert "key_store" in caplog.text or "<lambda>" in caplog.text


def test_alerts_hold_no_content(scene: Scene) -> None:
    marked = message(1, subject="MARKED-SUBJECT", body="MARKED-BODY")
    scene.alice.add(marked)
    services, _failing = fail_moves(scene)
    start_move(scene)
    run_due(services)
    scene.watch(8 * DAY)
    rows = repr(scene.world.sql("SELECT * FROM alerts")) + repr(scene.world.sql("SELECT * FROM alert_events"))
    assert len(rows) > 100
    assert "MARKED" not in rows
    assert "alice" not in rows
