"""Rotation policies: shown, set, and acting (R-034, R-035)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from keystead.api.types import vaults as t
from keystead.api.types.base import utc
from keystead.core.errors import Forbidden, InvalidRequest, NotFound
from keystead.ports.clock import DAY
from keystead.vault import keys, management, operations, rotation, subscriptions, vaults
from keystead.vault.material import generate
from vault import walk
from vault.world import KIM

if TYPE_CHECKING:
    from keystead.core.vaults.usage import KeyKind
    from keystead.vault.material import PrivateKey
    from vault.world import World

ROTATE = t.RotationAction(action="Rotate", time_after_create="P90D")
NEAR, EXPIRED = "KeyNearExpiryEventGridNotification", "KeyExpiredEventGridNotification"


def set_policy(world: World, *actions: t.RotationAction, expiry_time: str | None = None, name: str = "root") -> t.RotationPolicyView:
    request = t.RotationPolicySet(vault=walk.VAULT, name=name, lifetime_actions=list(actions), expiry_time=expiry_time)
    return rotation.set_policy(world.vault, walk.alex(), request)


def versions(world: World, name: str = "root") -> list[t.KeyView]:
    return keys.list_versions(world.vault, walk.alex(), t.KeyNamed(vault=walk.VAULT, name=name))


def told(world: World, operation: str) -> list[str]:
    """What the log says of an operation: the identifiers it was about."""
    return [one.properties.id for one in world.log() if one.operation_name == operation]


def expiring(world: World, days: float, name: str = "root") -> t.KeyView:
    """A key whose current version ends in so many days."""
    return keys.update(world.vault, walk.alex(), t.KeyUpdate(vault=walk.VAULT, name=name, expires=utc(world.clock.now() + int(days * DAY))))


def test_a_key_without_a_policy_shows_the_default(world: World) -> None:
    """R-035: nothing rotates, and the end is told of 30 days before."""
    walk.prepare(world)
    view = rotation.get_policy(world.vault, walk.alex(), walk.KEY)
    assert view.lifetime_actions == [t.RotationAction(action="Notify", time_before_expiry="P30D")]
    assert (view.expiry_time, view.next_rotation) == (None, None)
    world.clock.days(3_650)
    assert rotation.due(world.vault) == 0
    assert len(versions(world)) == 1


def test_a_policy_is_shown_as_it_was_set(world: World) -> None:
    """R-035."""
    walk.prepare(world)
    notify = t.RotationAction(action="Notify", time_before_expiry="P2M")
    first = set_policy(world, ROTATE, notify, expiry_time="P1Y6M")
    assert (first.lifetime_actions, first.expiry_time) == ([ROTATE, notify], "P1Y6M")
    assert rotation.get_policy(world.vault, walk.alex(), walk.KEY) == first
    world.clock.days(1)
    second = set_policy(world, notify)
    assert (second.created, second.updated > first.updated, second.lifetime_actions) == (first.created, True, [notify])
    assert [one.operation_name for one in world.log()[-3:]] == ["KeyRotationPolicySet", "KeyRotationPolicyGet", "KeyRotationPolicySet"]


def test_the_permissions_have_names_of_their_own(world: World) -> None:
    """R-036, R-037: rotate, getrotationpolicy and setrotationpolicy give one thing each."""
    walk.prepare(world)
    world.grant("rotate,getrotationpolicy", upn=KIM)
    kim = world.call(KIM)
    assert rotation.get_policy(world.vault, kim, walk.KEY).name == "root"
    with pytest.raises(Forbidden) as refused:
        rotation.set_policy(world.vault, kim, t.RotationPolicySet(vault=walk.VAULT, name="root"))
    assert "setrotationpolicy" in refused.value.detail
    with pytest.raises(Forbidden):
        rotation.get_policy(world.vault, world.call("sam@contoso.example"), walk.KEY)
    with pytest.raises(Forbidden):  # before it is told whether there is such a key
        rotation.get_policy(world.vault, world.call("sam@contoso.example"), t.KeyNamed(vault=walk.VAULT, name="no-such"))
    for name in ("no-such", "gone"):
        with pytest.raises(NotFound):
            set_policy(world, ROTATE, name=name)


def test_a_policy_that_breaks_a_rule_changes_nothing(world: World) -> None:
    """R-035."""
    walk.prepare(world)
    before = set_policy(world, ROTATE)
    for action, expiry in (
        (t.RotationAction(action="Rotate", time_after_create="P6D"), None),
        (t.RotationAction(action="Rotate", time_before_expiry="P30D"), None),
        (t.RotationAction(action="Rotate"), None),
        (t.RotationAction(action="Explode", time_after_create="P90D"), None),
        (ROTATE, "P27D"),
        (ROTATE, "P96D"),
        (ROTATE, "90 days"),
    ):
        with pytest.raises(InvalidRequest) as refused:
            set_policy(world, action, expiry_time=expiry)
        assert refused.value.code in {"rotation_policy_invalid", "duration_invalid"}
    assert rotation.get_policy(world.vault, walk.alex(), walk.KEY) == before


def test_a_key_is_rotated_when_its_time_has_come_and_once(world: World) -> None:
    """R-035, R-034: by the vault itself, with the same type and size, an expiry by the policy, and a record."""
    walk.prepare(world)
    (first,) = versions(world)
    view = set_policy(world, ROTATE, expiry_time="P1Y")
    assert view.next_rotation is not None
    world.clock.days(89)
    assert rotation.due(world.vault) == 0
    world.clock.days(1)
    assert rotation.due(world.vault) == 1
    assert rotation.due(world.vault) == 0
    old, new = versions(world)
    assert (old.version, old.expires) == (first.version, None)
    assert (new.kty, new.size, new.key_ops, new.enabled, new.tags) == (old.kty, old.size, old.key_ops, True, old.tags)
    assert new.public_key != old.public_key
    assert new.expires is not None
    assert (new.expires - new.created).days == 365
    record = [one for one in world.log() if one.operation_name == "KeyRotate"][-1]
    assert (record.identity.kind, record.identity.application, record.result_type) == ("service", "rotation", "Success")
    assert record.properties.id == new.id
    world.clock.days(90)
    assert rotation.due(world.vault) == 1
    assert len(versions(world)) == 3


def test_rotating_by_hand_gives_the_expiry_of_the_policy_and_starts_anew(world: World) -> None:
    """R-034, R-035."""
    walk.prepare(world)
    set_policy(world, t.RotationAction(action="Rotate", time_before_expiry="P30D"), expiry_time="P60D")
    made = keys.rotate(world.vault, walk.alex(), walk.KEY)
    assert made.expires is not None
    assert (made.expires - made.created).days == 60
    world.clock.days(29)
    assert rotation.due(world.vault) == 0
    world.clock.days(1)
    assert rotation.due(world.vault) >= 1
    assert len(versions(world)) == 3


def test_what_cannot_be_changed_is_not_rotated_until_it_can(world: World) -> None:
    """R-035, R-069, R-048, R-029."""
    walk.prepare(world)
    set_policy(world, ROTATE)
    world.clock.days(91)
    management.fail_over(world.vault, world.call(), t.FailOver(vault=walk.VAULT, read_only=True))
    assert rotation.due(world.vault) == 0
    management.fail_over(world.vault, world.call(), t.FailOver(vault=walk.VAULT, read_only=False))
    keys.disable(world.vault, walk.alex(), walk.VERSION)
    assert rotation.due(world.vault) == 0
    keys.enable(world.vault, walk.alex(), walk.VERSION)
    keys.delete(world.vault, walk.alex(), walk.KEY)
    assert rotation.due(world.vault) == 0
    keys.recover(world.vault, walk.alex(), walk.KEY)
    vaults.delete(world.vault, world.call(), walk.NAMED)
    assert rotation.due(world.vault) == 0
    vaults.recover(world.vault, world.call(), walk.NAMED)
    assert rotation.due(world.vault) == 1
    world.clock.days(91)
    subscriptions.cancel(world.vault, world.call(), t.SubscriptionNamed(name="Contoso EA 1"))
    assert rotation.due(world.vault) == 0
    assert len(versions(world)) == 2


def test_another_process_that_was_faster_leaves_nothing_to_do(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """R-035: two that run the upkeep at once make one version: the slower one looks again inside its transaction."""
    walk.prepare(world)
    set_policy(world, ROTATE)
    world.clock.days(90)
    entered: list[KeyKind] = []

    def slow(kind: KeyKind) -> PrivateKey:
        if not entered:
            entered.append(kind)
            assert rotation.due(world.vault) == 1  # the other process, while this one makes its key
        return generate(kind)

    monkeypatch.setattr("keystead.vault.rotation.generate", slow)
    assert rotation.due(world.vault) == 0
    assert len(versions(world)) == 2
    assert len(told(world, "KeyRotate")) == 1


def test_an_end_that_is_near_is_told_of_once_and_so_is_the_end(world: World) -> None:
    """R-035: of the current version, also without a policy; again when the end was moved."""
    walk.prepare(world)
    view = expiring(world, 31)
    assert rotation.due(world.vault) == 0
    world.clock.days(1)
    assert (rotation.due(world.vault), rotation.due(world.vault)) == (1, 0)
    assert told(world, NEAR) == [view.id]
    world.clock.days(30)
    assert (rotation.due(world.vault), rotation.due(world.vault)) == (1, 0)
    assert told(world, EXPIRED) == [view.id]
    expiring(world, 20)
    assert (rotation.due(world.vault), rotation.due(world.vault)) == (1, 0)
    assert told(world, NEAR) == [view.id] * 2
    record = next(one for one in world.log() if one.operation_name == NEAR)
    assert (record.identity.application, record.result_type) == ("rotation", "Success")
    assert record.result_description.startswith("expires at 2026-02-01")


def test_the_end_of_a_version_that_is_not_current_is_nobodys_concern(world: World) -> None:
    """R-035."""
    walk.prepare(world)
    expiring(world, 20)
    keys.rotate(world.vault, walk.alex(), walk.KEY)
    assert rotation.due(world.vault) == 0
    world.clock.days(40)
    assert rotation.due(world.vault) == 0
    assert told(world, NEAR) + told(world, EXPIRED) == []


def test_the_policy_says_when_the_end_is_near(world: World) -> None:
    """R-035: earlier than by default, or not at all."""
    walk.prepare(world)
    world.new_key("quiet", kty="EC")
    set_policy(world, t.RotationAction(action="Notify", time_before_expiry="P60D"))
    set_policy(world, name="quiet")
    expiring(world, 59)
    expiring(world, 20, "quiet")
    assert rotation.due(world.vault) == 1
    assert len(told(world, NEAR)) == 1
    world.clock.days(21)
    assert rotation.due(world.vault) == 1
    assert told(world, EXPIRED)[0].split("/")[-2] == "quiet"


def test_a_round_rotates_those_that_wait_longest_and_leaves_the_rest(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """R-035: the upkeep comes back; no round takes for ever."""
    walk.prepare(world)
    monkeypatch.setattr(rotation, "MAX_ROTATIONS", 1)
    for days, name in ((10, "late"), (8, "early")):
        world.new_key(name, kty="EC")
        set_policy(world, t.RotationAction(action="Rotate", time_after_create=f"P{days}D"), name=name)
    world.clock.days(11)
    assert rotation.due(world.vault) == 1
    assert (len(versions(world, "early")), len(versions(world, "late"))) == (2, 1)
    assert (rotation.due(world.vault), rotation.due(world.vault)) == (1, 0)
    assert len(versions(world, "late")) == 2


def test_a_round_ends_when_its_time_is_over(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """R-035: what is left comes with the next one."""
    walk.prepare(world)
    for name in ("one", "two", "three"):
        world.new_key(name, kty="EC")
        set_policy(world, ROTATE, name=name)
    world.clock.days(90)

    def slow(kind: KeyKind) -> PrivateKey:
        world.clock.sleep(rotation.MAX_ROUND // 2)
        return generate(kind)

    monkeypatch.setattr("keystead.vault.rotation.generate", slow)
    assert (rotation.due(world.vault), rotation.due(world.vault), rotation.due(world.vault)) == (2, 1, 0)


def test_a_policy_that_cannot_be_read_stops_its_own_key_only(world: World) -> None:
    """R-035."""
    walk.prepare(world)
    world.new_key("broken", kty="EC")
    for name in ("root", "broken"):
        set_policy(world, ROTATE, name=name)
    world.stores.sql("vault", "UPDATE vault_key SET rotation_policy = 'Rotate' WHERE name = 'broken'")
    world.clock.days(90)
    assert rotation.due(world.vault) == 1
    assert (len(versions(world)), len(versions(world, "broken"))) == (2, 1)
    set_policy(world, ROTATE, name="broken")
    assert rotation.due(world.vault) == 1


def test_the_upkeep_also_removes_what_is_past_its_retention(world: World) -> None:
    """R-050, R-035."""
    walk.prepare(world)
    set_policy(world, ROTATE)
    world.clock.days(90)
    assert management.upkeep(world.vault) == 2
    assert [one.operation_name for one in world.log()][-2:] == ["KeyPurge", "KeyRotate"]


def test_a_rotated_key_still_opens_what_an_older_version_closed(world: World) -> None:
    """R-027, R-035."""
    walk.prepare(world)
    place = operations.Place(walk.VAULT, "root", None)
    wrapped = operations.wrap_key(world.vault, walk.alex(), place, "RSA-OAEP-256", bytes(range(32)))
    set_policy(world, ROTATE)
    world.clock.days(90)
    assert rotation.due(world.vault) == 1
    old = operations.Place(walk.VAULT, "root", wrapped.version.version)
    assert operations.unwrap_key(world.vault, walk.alex(), old, "RSA-OAEP-256", wrapped.value).value == bytes(range(32))
