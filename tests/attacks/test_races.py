"""Two workers, imports, deletions and moves on one mailbox at once; a mailbox that is deleted and made again in the middle of work on the old one."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from keystead.api.call import Call
from keystead.api.types import mailboxes as m
from keystead.api.types import tenants as t
from keystead.core.errors import Forbidden, IntegrityFailure, KeysteadError, NotFound
from keystead.services import items, tenants
from keystead.services.jobs.runner import run_due, run_one
from support.world import message

if TYPE_CHECKING:
    from collections.abc import Callable

    from attacks.conftest import Scene
    from keystead.services.context import Services

BOB = "bob@contoso.example"
HOLDS = """SELECT (SELECT count(*) FROM items WHERE mailbox_id = m.id), (SELECT sum(size) FROM items WHERE mailbox_id = m.id),
    (SELECT count(*) FROM mailbox_keys WHERE mailbox_id = m.id), (SELECT count(*) FROM items WHERE mailbox_id = m.id AND key_version <> m.key_version)
    FROM mailboxes m WHERE upn = ?"""


def together(*acts: Callable[[], object]) -> list[BaseException]:
    """Run acts in threads at once; what they raised."""
    raised: list[BaseException] = []

    def guarded(act: Callable[[], object]) -> None:
        try:
            act()
        except BaseException as error:  # noqa: BLE001 - handed to the test
            raised.append(error)

    threads = [threading.Thread(target=guarded, args=(act,)) for act in acts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert not any(thread.is_alive() for thread in threads)
    return raised


def once(services: Services, at: str, act: Callable[[], object]) -> Services:
    """The service, with an act between two steps, the first time they are passed."""
    done: list[str] = []

    def checkpoint(name: str) -> None:
        if name == at and not done:
            done.append(name)
            act()

    return replace(services, checkpoint=checkpoint)


def test_two_workers_and_two_imports_on_one_mailbox_lose_and_double_nothing_R_097(scene: Scene) -> None:
    """R-095, R-097: whatever comes between whatever, each message is there once, under the one key that is left."""
    box = scene.box(BOB)
    second = scene.contoso.policy("Second", keys=scene.contoso.own_keys("second"))
    one, other = scene.world.process("one"), scene.world.process("other")
    batches = [[message(number, body=f"race {number}") for number in range(start, start + 25)] for start in range(100, 400, 25)]

    def imports(chosen: list[list[bytes]], name: str) -> Callable[[], None]:
        process = scene.world.process(name)

        def run() -> None:
            for batch in chosen:
                box.add(*batch, client=scene.owner(BOB, process))

        return run

    def assigns() -> None:
        for name in (second.name, scene.mail.name, second.name):
            scene.contoso.assign(name, box, wait=False)

    raised = together(
        imports(batches[:8], "i1"),
        imports(batches[4:], "i2"),
        assigns,
        lambda: run_due(one.services),
        lambda: run_due(other.services),
        lambda: run_due(one.services),
    )
    assert [error for error in raised if not isinstance(error, KeysteadError)] == []
    for batch in batches:  # what was told busy is sent again, as a person would
        box.add(*batch)
    run_due(scene.world.services)
    expected = sorted(
        [body for batch in batches for body in batch]
        + [message(index, subject=f"{BOB} {index}", body=f"body 1 {index}") for index in range(3)]
    )
    assert box.read_all() == expected
    count, size, keys, elsewhere = scene.world.sql(HOLDS, BOB)[0]
    statistics = box.statistics()
    assert (statistics.item_count, statistics.size_bytes) == (count, size)
    assert (keys, elsewhere) == (1, 0)
    assert statistics.is_encrypted
    assert statistics.policy_name == "Second"


def test_a_runner_that_lost_its_job_changes_nothing_R_097(scene: Scene) -> None:
    """R-097: a worker that slept through its lease comes back after another one finished; what it then does is dropped."""
    box = scene.box(BOB)
    second = scene.contoso.policy("Second", keys=scene.contoso.own_keys("second"))
    before = box.read_all()
    other = scene.world.process("other")

    def lose() -> None:
        scene.world.clock.advance(scene.world.settings.job_lease + 1)
        run_due(other.services)
        assert box.statistics().is_encrypted

    scene.contoso.assign(second, box, wait=False)
    slow = once(scene.world.services, "move: new objects stored", lose)
    while run_one(slow) is not None:
        pass
    assert box.read_all() == before
    assert scene.world.sql(HOLDS, BOB)[0][2:] == (1, 0)


def again(scene: Scene) -> None:
    """Delete the mailbox and make it again."""
    scene.contoso.admin.call("mailbox.delete", m.NameMailbox(upn=BOB))
    scene.contoso.admin.call("mailbox.create", m.CreateMailbox(upn=BOB))


def test_a_mailbox_made_again_has_nothing_of_the_old_one_R_095(scene: Scene) -> None:
    """R-095: no items, folders, keys, delegates, policy; and ids of old items find nothing."""
    box = scene.box(BOB)
    box.owner.call("mailbox.delegate", m.DelegateRequest(upn=BOB, delegate="carol@contoso.example"))
    old = [item.id for item in box.items()]
    box.read(old[0])
    old_id = scene.id_of(BOB)
    again(scene)
    assert box.items() == []
    for item in old:
        with pytest.raises(NotFound):
            box.read(item)
    with pytest.raises(Forbidden):
        box.items(scene.owner("carol@contoso.example", scene.world.first))
    assert box.statistics().policy_name is None
    for table in ("mailbox_keys", "items", "folders", "mailbox_delegates"):
        assert scene.world.sql(f"SELECT count(*) FROM {table} WHERE mailbox_id = ?", old_id) == [(0,)]  # noqa: S608 - ours
    box.add(message(1))
    assert box.read_all() == [message(1)]


def test_an_import_under_way_when_the_mailbox_is_made_again_goes_nowhere_R_097(scene: Scene) -> None:
    """R-097: sealed for the old mailbox, refused by the commit; its objects go at once or are collected."""
    objects = scene.world.objects()
    services = once(scene.world.services, "import: objects stored", lambda: again(scene))
    call = _call(scene)
    request = m.ImportBatch(upn=BOB, items=[m.ImportItem(position=1, ordinal=1, folder="", data=message(1))])
    with pytest.raises(NotFound):
        items.import_batch(services, call, request)
    assert scene.world.objects() == objects
    assert scene.box(BOB).items() == []


def test_a_move_under_way_when_the_mailbox_is_made_again_leaves_the_new_one_alone_R_097(scene: Scene) -> None:
    """R-097: the job of the old mailbox ends; the new mailbox keeps its key and its content."""
    second = scene.contoso.policy("Second", keys=scene.contoso.own_keys("second"))
    box = scene.box(BOB)
    scene.contoso.assign(second, box, wait=False)

    def replaced() -> None:
        again(scene)
        box.add(message(5))

    slow = once(scene.world.services, "move: new objects stored", replaced)
    while run_one(slow) is not None:
        pass
    assert box.read_all() == [message(5)]
    assert box.statistics().policy_name is None
    assert scene.world.sql(
        "SELECT count(*) FROM jobs WHERE state NOT IN ('done', 'cancelled', 'failed') AND not_before <= ?", scene.world.clock.now()
    ) == [(0,)]


def test_an_item_deleted_in_the_middle_of_a_move_stays_deleted_R_097(scene: Scene) -> None:
    """R-097: a move brings nothing back, and the counts are right."""
    second = scene.contoso.policy("Second", keys=scene.contoso.own_keys("second"))
    box = scene.box(BOB)
    gone = box.items()[0].id
    scene.contoso.assign(second, box, wait=False)
    slow = once(
        scene.world.services, "move: new objects stored", lambda: box.owner.call("mailbox.delete-item", m.NameItem(upn=BOB, item=gone))
    )
    while run_one(slow) is not None:
        pass
    assert gone not in {item.id for item in box.items()}
    assert box.statistics().item_count == len(box.items()) == 2


def test_a_person_removed_and_added_again_is_another_person_R_010(scene: Scene) -> None:
    """R-010: tokens and access to other people's mailboxes go with the person, though the name comes back."""
    box = scene.box(BOB)
    box.owner.call("mailbox.delegate", m.DelegateRequest(upn=BOB, delegate="carol@contoso.example"))
    assert len(box.items(scene.owner("carol@contoso.example", scene.world.first))) == 3
    scene.contoso.admin.call("user.remove", t.RemoveUser(upn="carol@contoso.example"))
    scene.contoso.admin.call("user.add", t.AddUser(upn="carol@contoso.example", roles=[]))
    with pytest.raises(Forbidden):
        box.items(scene.owner("carol@contoso.example", scene.world.first))


def test_readers_beside_a_move_see_every_item_whole_R_097(scene: Scene) -> None:
    """R-097: reads race with moves there and back; each gives the item's bytes, never an error, never others."""
    second = scene.contoso.policy("Second", keys=scene.contoso.own_keys("second"))
    box = scene.box(BOB)
    expected = {item.id: box.read(item.id) for item in box.items()}
    reader = scene.world.process("reader")
    stopped = threading.Event()
    wrong: list[str] = []

    def read() -> None:
        client = scene.owner(BOB, reader)
        while not stopped.is_set():
            for item, data in expected.items():
                if box.read(item, client) != data:
                    wrong.append(item)

    def move() -> None:
        try:
            for name in (second.name, scene.mail.name) * 3:
                scene.contoso.assign(name, box)
        finally:
            stopped.set()

    assert [error for error in together(read, move) if isinstance(error, IntegrityFailure | NotFound)] == []
    assert wrong == []


def _call(scene: Scene) -> Call:

    return Call(tenants.impersonate(scene.world.services, BOB), scene.contoso.id, "mailbox.import", "11111111-1111-4111-8111-111111111111")
