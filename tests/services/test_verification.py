"""`home verify`: everything that is there and opens is counted, and nothing that is not goes unnoticed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from keystead.adapters.objects.folder import FolderObjects
from keystead.core.formats.mailbox_items import SMALL_ITEM
from keystead.ports.clock import SECOND
from keystead.ports.keystore import Compartment
from keystead.services.verification import verify
from support.world import World, message

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from support.world import MailboxWorld, TenantWorld

LARGE = message(0, subject="large") + b"0123456789" * (SMALL_ITEM // 4)


@pytest.fixture
def contoso(tmp_path: Path) -> Iterator[TenantWorld]:
    world = World(tmp_path)
    tenant = world.tenant("contoso.example")
    tenant.policy("Mail")
    yield tenant
    world.close()


@pytest.fixture
def box(contoso: TenantWorld) -> MailboxWorld:
    """A mailbox under the customer's keys, with small items and a large one."""
    box = contoso.mailbox("alice", messages=5)
    box.add_large(LARGE)
    contoso.assign("Mail", box)
    return box


def _object_of(box: MailboxWorld, *, large: bool) -> str:
    """The object of some item, by its row."""
    rows = box.tenant.world.sql(
        "SELECT object_ref FROM items WHERE size > 100000" if large else "SELECT object_ref FROM items WHERE size < 100000"
    )
    return str(rows[0][0])


def _file(box: MailboxWorld, ref: str) -> Path:
    container, name = ref.split("/")
    return box.tenant.world.path / "objects" / container / name[:2] / name


def test_what_is_whole_is_counted(box: MailboxWorld) -> None:
    steps: list[tuple[int, int]] = []
    result = verify(box.tenant.world.services, lambda done, total: steps.append((done, total)))
    assert (result.problems, result.unopened) == ([], [])
    assert (result.policies, result.mailboxes, result.items) == (2, 1, 6)
    assert result.bytes == sum(len(data) for data in box.read_all())
    assert steps == [(1, 1)]


@pytest.mark.parametrize("large", [False, True])
def test_a_changed_object_is_named_and_the_rest_is_read(box: MailboxWorld, large: bool) -> None:  # noqa: FBT001 - two cases
    file = _file(box, _object_of(box, large=large))
    data = bytearray(file.read_bytes())
    data[len(data) // 2 if large else 100] ^= 1
    file.write_bytes(data)
    result = verify(box.tenant.world.services)
    assert result.problems
    assert len(result.problems) + result.items == 6
    assert all("of mailbox" in problem for problem in result.problems)


def test_a_missing_object_is_named_for_every_item_in_it(box: MailboxWorld) -> None:
    box.tenant.world.services.objects.delete(_object_of(box, large=False))
    result = verify(box.tenant.world.services)
    assert [problem.split(": ")[1] for problem in result.problems] == ["object_not_found"] * 5
    assert result.items == 1


def test_items_that_changed_places_are_not_taken_for_one_another(box: MailboxWorld) -> None:
    first, second = box.tenant.world.sql("SELECT id, summary FROM items WHERE size < 100000 ORDER BY id LIMIT 2")
    box.tenant.world.sql("UPDATE items SET summary = ? WHERE id = ?", first[1], second[0])
    result = verify(box.tenant.world.services)
    assert len(result.problems) == 1
    assert str(second[0]) in result.problems[0]


def test_a_key_that_the_key_store_lost_is_named(contoso: TenantWorld, box: MailboxWorld) -> None:
    """R-139: a database restored with an older key store lacks the keys of newer policies."""
    policy = contoso.policy("Newer", keys=contoso.own_keys("newer"))
    rows = contoso.world.sql("SELECT shred_key_id FROM policies WHERE id = ?", policy.id)
    contoso.world.services.keystore.destroy(Compartment.SHRED, [str(rows[0][0])])
    result = verify(contoso.world.services)
    assert [problem.split(": ")[:2] for problem in result.problems] == [[f"policy {policy.id}", "keystore_key_missing"]]


def test_keys_that_were_denied_do_not_hide_damage_and_their_use_is_on_the_log(contoso: TenantWorld, box: MailboxWorld) -> None:
    """R-144, R-149: a system operation goes on with the availability key, and each use is recorded."""
    contoso.deny("contosov1")
    contoso.deny("contosov2")
    contoso.world.clock.advance(61 * SECOND)
    contoso.world.services.objects.delete(_object_of(box, large=True))
    result = verify(contoso.world.services)
    assert [problem.split(": ")[1] for problem in result.problems] == ["object_not_found"]
    assert result.items == 5
    assert contoso.fallbacks()


def test_a_move_meanwhile_is_no_problem(contoso: TenantWorld, box: MailboxWorld) -> None:
    """Rows read before a move name objects that it removes."""
    world = contoso.world

    class Moving(FolderObjects):
        moved = False

        def get(self, ref: str, offset: int, length: int) -> bytes:
            if not self.moved:
                self.moved = True
                contoso.policy("Other", keys=contoso.own_keys("other"))
                contoso.assign("Other", box)
                for old in world.sql("SELECT ref FROM objects WHERE due IS NOT NULL"):
                    world.services.objects.delete(str(old[0]))
            return super().get(ref, offset, length)

    process = world.process("verifying", objects=Moving(world.path / "objects"))
    result = verify(process.services)
    assert result.problems == []
    assert result.items < 6, "what moved away under the reader is not counted as read"


def test_an_item_that_is_deleted_meanwhile_does_not_hide_those_behind_it(
    contoso: TenantWorld, box: MailboxWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next page begins behind a place, whether or not an item is still there."""
    monkeypatch.setattr("keystead.services.items.PAGE", 2)
    second = box.items()[1].id

    class Deleting(FolderObjects):
        reads = 0

        def get(self, ref: str, offset: int, length: int) -> bytes:
            self.reads += 1
            if self.reads == 2:
                contoso.world.sql("DELETE FROM items WHERE id = ?", second)
            return super().get(ref, offset, length)

    process = contoso.world.process("verifying", objects=Deleting(contoso.world.path / "objects"))
    result = verify(process.services)
    assert (result.problems, result.items) == ([], 6)
