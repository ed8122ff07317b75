"""A process that dies between two steps of making or re-keying a policy: nothing half made is seen, leftovers are destroyed, doing it again works.

Order of writes (design section 2): key store first, database last; the destruction of what became worthless comes after the commit. The
job `collect-orphans` is what brings the key store back to what the database names.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from keystead.api.types import policies as p
from keystead.api.types import tenants as t
from keystead.api.types import vaults as v
from keystead.api.types import watching as w
from keystead.core.errors import NotFound
from keystead.ports.clock import HOUR
from keystead.ports.keystore import Compartment
from keystead.services import tenants
from keystead.services.jobs.runner import run_due
from keystead.services.jobs.upkeep import schedule_upkeep
from support.world import OPERATOR, SECOND, MailboxWorld, World, message, run_jobs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from keystead.client.client import Client
    from support.world import TenantWorld

V1, V2 = "contosov1", "contosov2"
GRACE = 24 * HOUR


class Died(BaseException):
    """The process is gone: nothing in it may clean up, least of all an `except Exception`."""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TenantWorld]:
    world = World(tmp_path_factory.mktemp("made"))
    contoso = world.tenant("contoso.example")
    alice = contoso.mailbox("alice", messages=2)
    contoso.assign(contoso.policy("Mail"), alice)
    yield contoso
    world.close()


@pytest.fixture
def contoso(made: TenantWorld, tmp_path: Path) -> Iterator[TenantWorld]:
    """A copy in which the first process is the one that lives; another one dies."""
    world = World(tmp_path, like=made.world)
    yield made.within(world)
    world.close()


def dying(world: World, step: str) -> Callable[[str], Client]:
    """Clients of a process that dies right after that step; the operator for an empty name."""

    def checkpoint(name: str) -> None:
        if name == step:
            raise Died(name)

    process = world.process("dying", checkpoint=checkpoint)
    return lambda upn: process.client(tenants.impersonate(process.services, upn) if upn else OPERATOR)


def keys_held(world: World) -> dict[Compartment, set[str]]:
    return {compartment: {entry.key_id for entry in world.services.keystore.entries(compartment)} for compartment in Compartment}


def keys_named(world: World) -> dict[Compartment, set[str]]:
    """What the key store should hold, going by the database."""
    rows = world.sql("SELECT id, workload, shred_key_id, availability_key_id FROM policies")
    return {
        Compartment.SHRED: {shred for _id, _workload, shred, _availability in rows},
        Compartment.AVAILABILITY_MAIL: {availability for _id, workload, _shred, availability in rows if workload == "mail"},
        Compartment.AVAILABILITY_FILES: {str(key) for (key,) in world.sql("SELECT availability_key_id FROM file_geos")},
        Compartment.PROVIDER: {policy for policy, workload, *_rest in rows if workload == "provider"},
        Compartment.SIGNING: {str(key) for (key,) in world.sql("SELECT id FROM signing_keys")},
    }


def database(world: World) -> list[object]:
    tables = ("tenants", "policies", "policy_versions", "policy_copies", "policy_states", "audit_records", "mailbox_keys")
    return [world.sql(f"SELECT * FROM {table} ORDER BY 1, 2") for table in tables]  # noqa: S608 - our own words


def collect(world: World) -> None:
    """What a worker does in the two days after: mark at the first look, remove at the second."""
    schedule_upkeep(world.services)
    for _look in range(2):
        world.clock.advance(GRACE + SECOND)
        run_jobs(world)


def still_reads(contoso: TenantWorld) -> None:
    """Every path to the mail of before: by the customer's keys from a cold keyring, and by the availability key."""
    alice = MailboxWorld(contoso, "alice@contoso.example")
    for kind in ("success", "system-error", "success"):
        for vault in (V1, V2):
            contoso.world.vaults.fail(vault, kind)
        contoso.world.forget()
        assert alice.read_all() == [message(0), message(1)]


@pytest.mark.parametrize(
    ("step", "left"),
    [
        ("policy: shred key made", {Compartment.SHRED: 1}),
        ("policy: availability key made", {Compartment.SHRED: 1, Compartment.AVAILABILITY_MAIL: 1}),
        ("policy: copies wrapped", {Compartment.SHRED: 1, Compartment.AVAILABILITY_MAIL: 1}),
    ],
)
def test_a_crash_while_a_policy_is_made(contoso: TenantWorld, step: str, left: dict[Compartment, int]) -> None:
    """R-079, R-137: there is no policy and no record; the keys that nobody names are destroyed after the grace period, not before."""
    world, before = contoso.world, database(contoso.world)
    client = dying(world, step)("admin@contoso.example")
    with pytest.raises(Died, match=step):
        client.call("policy.create", p.CreatePolicy(name="New", keys=contoso.keys))
    assert database(world) == before
    with pytest.raises(NotFound):
        contoso.admin.call("policy.show", p.NamePolicy(policy="New"))
    orphans = {part: keys_held(world)[part] - keys_named(world)[part] for part in Compartment}
    assert {part: len(keys) for part, keys in orphans.items() if keys} == left
    made = contoso.policy("New")
    bob = contoso.mailbox("bob", messages=1)
    contoso.assign(made, bob)
    schedule_upkeep(world.services)
    run_jobs(world)
    assert {part: keys_held(world)[part] - keys_named(world)[part] for part in Compartment} == orphans
    collect(world)
    assert keys_held(world) == keys_named(world)
    assert bob.read_all() == [message(0)]
    still_reads(contoso)


def test_a_crash_while_a_policy_is_refreshed(contoso: TenantWorld) -> None:
    """R-155: the old version stays in force; the copies that were wrapped are worth nothing; refreshing again works."""
    world, before = contoso.world, database(contoso.world)
    rotated: list[v.KeyView] = [contoso.admin.call("key.rotate", v.KeyNamed(vault=vault, name="root")) for vault in (V1, V2)]
    with pytest.raises(Died):
        dying(world, "refresh: copies wrapped")("admin@contoso.example").call("policy.refresh", p.NamePolicy(policy="Mail"))
    assert database(world) == before
    still_reads(contoso)
    view: p.PolicyView = contoso.admin.call("policy.refresh", p.NamePolicy(policy="Mail"))
    assert (view.version, [copy.key_uri for copy in view.keys[:2]]) == (2, [key.id for key in rotated])
    collect(world)
    assert keys_held(world) == keys_named(world)
    still_reads(contoso)


@pytest.mark.parametrize(("step", "committed"), [("roll: new availability key made", False), ("roll: copy replaced", True)])
def test_a_crash_while_the_availability_key_is_rolled(contoso: TenantWorld, step: str, committed: bool) -> None:  # noqa: FBT001 - a column
    """R-152: before the commit the old key serves, after it the new one; the other one is destroyed by the job; rolling again works."""
    world = contoso.world
    (old,) = keys_named(world)[Compartment.AVAILABILITY_MAIL]
    before = database(world)
    client = dying(world, step)("")
    client._tenant = contoso.id
    with pytest.raises(Died):
        client.call("keystore.roll", p.NamePolicy(policy="Mail"))
    (named,) = keys_named(world)[Compartment.AVAILABILITY_MAIL]
    assert (named != old) is committed
    assert (database(world) == before) is not committed
    assert len(keys_held(world)[Compartment.AVAILABILITY_MAIL]) == 2
    assert len(contoso.audit("Update-AvailabilityKey")) == committed
    still_reads(contoso)
    collect(world)
    assert keys_held(world) == keys_named(world)
    still_reads(contoso)
    world.client(OPERATOR, contoso.id).call("keystore.roll", p.NamePolicy(policy="Mail"))
    assert keys_held(world) == keys_named(world)
    still_reads(contoso)


@pytest.mark.parametrize(
    ("step", "left"),
    [("tenant: shred key made", {Compartment.SHRED: 1}), ("tenant: provider key made", {Compartment.SHRED: 1, Compartment.PROVIDER: 1})],
)
def test_a_crash_while_a_tenant_is_made(contoso: TenantWorld, step: str, left: dict[Compartment, int]) -> None:
    """R-251, R-252: there is no tenant; its name is free; its keys go."""
    world, before = contoso.world, database(contoso.world)
    request = t.CreateTenant(name="Fabrikam", domain="fabrikam.example", geo=["EUR"])
    with pytest.raises(Died):
        dying(world, step)("").call("tenant.create", request)
    assert database(world) == before
    assert [tenant.domain for tenant in world.operator.call("tenant.list")] == ["contoso.example"]
    orphans = {part: keys_held(world)[part] - keys_named(world)[part] for part in Compartment}
    assert {part: len(keys) for part, keys in orphans.items() if keys} == left
    fabrikam = world.tenant("fabrikam.example", ready=False)
    carol = fabrikam.mailbox("carol", messages=1)
    collect(world)
    assert keys_held(world) == keys_named(world)
    world.forget()
    assert carol.read_all() == [message(0)]
    still_reads(contoso)


@pytest.mark.parametrize("step", ["collect: destruction recorded", "collect: keys destroyed"])
def test_a_crash_while_orphans_are_collected(contoso: TenantWorld, step: str) -> None:
    """R-151: intent is on the log before the destruction, which may be done again; what is named is never touched."""
    world = contoso.world
    with pytest.raises(Died):
        dying(world, "policy: copies wrapped")("admin@contoso.example").call("policy.create", p.CreatePolicy(name="New", keys=contoso.keys))
    schedule_upkeep(world.services)
    world.clock.advance(GRACE + SECOND)
    run_jobs(world)
    world.clock.advance(GRACE + SECOND)

    def checkpoint(name: str) -> None:
        if name == step:
            raise Died(name)

    with pytest.raises(Died):
        run_due(world.process("dying", checkpoint=checkpoint).services)
    ((recorded,),) = world.sql("SELECT count(*) FROM audit_records WHERE operation = 'Remove-OrphanedKeys'")
    assert recorded == 1
    assert keys_held(world) != keys_named(world)
    still_reads(contoso)
    world.clock.advance(31 * SECOND)
    run_jobs(world)
    assert keys_held(world) == keys_named(world)
    still_reads(contoso)


def test_keys_of_a_creation_under_way_are_left_alone(contoso: TenantWorld) -> None:
    """Design section 2: the grace period protects what is not committed yet."""
    world = contoso.world
    schedule_upkeep(world.services)
    world.clock.advance(GRACE - HOUR)
    found: list[int] = []

    def checkpoint(name: str) -> None:
        if name == "policy: copies wrapped":
            world.clock.advance(HOUR + SECOND)
            run_jobs(world)
            found.append(len(keys_held(world)[Compartment.AVAILABILITY_MAIL]))

    process = world.process("slow", checkpoint=checkpoint)
    client = process.client(tenants.impersonate(process.services, "admin@contoso.example"))
    view: p.PolicyView = client.call("policy.create", p.CreatePolicy(name="Slow", keys=contoso.keys))
    assert found == [2]
    assert world.sql("SELECT state FROM jobs WHERE kind = 'collect-orphans' AND state = 'done'") == [("done",)]
    assert contoso.health(view.name) == "healthy"
    assert keys_held(world) == keys_named(world)


def test_a_restored_older_database_loses_no_key_at_the_first_look(contoso: TenantWorld) -> None:
    """Keys that only the newer database named are marked, with an alert, and destroyed a day later at the earliest."""
    world = contoso.world
    policy = contoso.policy("Newer")
    world.sql("DELETE FROM policy_states WHERE policy_id = ?", policy.id)
    world.sql("DELETE FROM policy_copies WHERE version_id = ?", policy.version_id)
    world.sql("DELETE FROM policy_versions WHERE policy_id = ?", policy.id)
    world.sql("DELETE FROM policies WHERE id = ?", policy.id)
    before = keys_held(world)
    world.clock.advance(30 * GRACE)
    schedule_upkeep(world.services)
    world.clock.advance(GRACE + SECOND)
    run_jobs(world)
    assert keys_held(world) == before, "marked, not destroyed"
    alerts: list[w.AlertView] = world.client(OPERATOR).call("alerts.everywhere", w.ListAlerts())
    assert [alert.kind for alert in alerts if alert.resolved is None] == ["orphans-marked"]
    world.clock.advance(GRACE + SECOND)
    run_jobs(world)
    assert keys_held(world) == keys_named(world)
    still_reads(contoso)
