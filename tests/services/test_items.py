"""Items: taken in once, whole and durable; given only to those who may; never other data in place of damaged data."""

from __future__ import annotations

import io
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from keystead.api.call import Upload
from keystead.api.types import mailboxes as m
from keystead.core.errors import Forbidden, IntegrityFailure, InvalidRequest, KeysteadError, NotFound, Unavailable
from keystead.ports.clock import HOUR
from keystead.services import tenants
from keystead.services.jobs.runner import run_due
from keystead.services.jobs.upkeep import schedule_upkeep
from support.world import OPERATOR, MailboxWorld, World, message

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from keystead.api.types import watching as w
    from keystead.client.client import Client
    from keystead.ports.objects import ObjectStore
    from support.world import TenantWorld

MIB = 1024 * 1024
SMALL_ITEM, PART_BYTES = MIB, 4 * MIB
"""Items up to the first lie in packs; larger ones stand alone, in parts of the second (design section 4)."""


@pytest.fixture(scope="module")
def contoso(tmp_path_factory: pytest.TempPathFactory, database: str) -> Iterator[TenantWorld]:
    """One tenant for the module; each test makes its own mailboxes."""
    world = World(tmp_path_factory.mktemp("world"))
    tenant = world.tenant("contoso.example")
    tenant.policy("Mail")
    yield tenant
    world.close()


def sql(world: World, statement: str, *values: object) -> list[tuple[object, ...]]:
    """Change rows behind the service's back, as a thief or a bad disk would."""
    return world.sql(statement, *values)


def object_of(world: World, item: str) -> tuple[str, int, int]:
    """Path of the object that holds an item, and where in it."""
    ((ref, offset, length),) = sql(world, 'SELECT object_ref, "offset", length FROM items WHERE id = ?', item)
    container, _, name = str(ref).partition("/")
    assert isinstance(offset, int)
    assert isinstance(length, int)
    return str(world.path / "objects" / container / name[:2] / name), offset, length


def by_subject(box: MailboxWorld) -> dict[str, str]:
    return {item.subject: item.id for item in box.items()}


# -- taking in ----------------------------------------------------------------------------------------------------------------------


def test_importing_again_adds_nothing_and_equal_messages_of_one_source_stay_two(contoso: TenantWorld) -> None:
    box = contoso.mailbox("again")
    source = [message(1), message(2), message(1)]
    first = box.add(*source)
    assert (first.imported, first.already_present) == (3, 0)
    second = box.add(*source)
    assert (second.imported, second.already_present) == (0, 3)
    assert box.read_all() == sorted(source)
    contoso.assign("Mail", box)
    third = box.add(*source, message(3))
    assert (third.imported, third.already_present) == (1, 3), "a move keeps what items are known by"
    assert box.statistics().item_count == 4


def test_two_imports_at_once_leave_no_object_that_holds_nothing(contoso: TenantWorld) -> None:
    box = contoso.mailbox("race")
    others = contoso.world.objects()
    slow = contoso.world.process("slow", checkpoint=lambda _step: box.add(message(1), message(2)))
    result = box.add(message(1), message(2), client=slow.client(OPERATOR, contoso.id))
    assert (result.imported, result.already_present) == (0, 2)
    schedule_upkeep(contoso.world.services)
    run_due(contoso.world.services)
    assert len(contoso.world.objects() - others) == 1
    assert box.read_all() == [message(1), message(2)]


def test_one_batch_may_name_an_item_twice_with_the_same_ordinal(contoso: TenantWorld) -> None:
    box = contoso.mailbox("same-ordinal")
    item = m.ImportItem(position=1, ordinal=1, folder="Inbox", data=message(1))
    result: m.ImportResult = contoso.admin.call("mailbox.import", m.ImportBatch(upn=box.upn, items=[item, item]))
    assert (result.imported, result.already_present) == (1, 1)
    assert box.read_all() == [message(1)]


def test_threads_that_import_the_same_mail_add_it_once(contoso: TenantWorld) -> None:
    box = contoso.mailbox("threads")
    shared = [message(index) for index in range(20)]
    own = [[message(100 + 10 * worker + index) for index in range(5)] for worker in range(4)]

    def work(worker: int) -> m.ImportResult:
        return box.add(*shared, *own[worker])

    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(work, range(4)))
    assert sum(result.imported for result in results) == 20 + 4 * 5
    assert sum(result.already_present for result in results) == 3 * 20
    assert box.read_all() == sorted([*shared, *(data for each in own for data in each)])
    assert box.statistics().item_count == 40


def test_mail_comes_in_and_is_read_in_the_middle_of_a_move(contoso: TenantWorld) -> None:
    """R-097."""
    box = contoso.mailbox("during", messages=6)
    seen: list[str] = []

    def at(step: str) -> None:
        if step != "move: new objects stored":
            return
        number = len(seen)
        before = box.read_all()
        result = box.add(message(0), message(200 + number), folder=f"Folder {number}")
        assert (result.imported, result.already_present) == (1, 1)
        assert box.read_all() == sorted([*before, message(200 + number)])
        seen.append(step)

    mover = contoso.world.process("mover", checkpoint=at, settings=replace(contoso.world.settings, slice_items=2))
    contoso.assign("Mail", box, wait=False)
    run_due(mover.services)
    assert len(seen) == 3, "three slices of two items"
    assert box.statistics().is_encrypted
    assert box.read_all() == sorted([*(message(index) for index in range(6)), *(message(200 + index) for index in range(3))])
    assert {item.folder for item in box.items()} == {"Inbox", "Folder 0", "Folder 1", "Folder 2"}
    assert box.statistics().item_count == 9


def test_a_malformed_item_is_kept_byte_for_byte_and_reported(contoso: TenantWorld) -> None:
    box = contoso.mailbox("malformed")
    odd = [
        b"\x00\xff\xfe no header at all \r\n\n\r",
        b"",
        b"Subject: =?utf-8?B?////?=\nX\n\n\x80\x81",
        b"From \r\r\r\n" + bytes(range(256)),
    ]
    items = [m.ImportItem(position=5, ordinal=1, folder="Inbox", data=message(1), malformed="cut off")]
    items += [m.ImportItem(position=10 + index, ordinal=1, folder="Inbox", data=data) for index, data in enumerate(odd)]
    result: m.ImportResult = contoso.admin.call("mailbox.import", m.ImportBatch(upn=box.upn, items=items))
    assert result.imported == 5
    reported = {one.position: one for one in result.malformed}
    assert reported[5].reason == "cut off"
    assert {10, 11} <= set(reported)
    contoso.assign("Mail", box)
    assert box.read_all() == sorted([*odd, message(1)])
    for position, one in reported.items():
        assert box.read(one.item_id) == (message(1) if position == 5 else odd[position - 10])


@pytest.mark.parametrize(
    "size", [0, 1, SMALL_ITEM, SMALL_ITEM + 1, PART_BYTES - 1, PART_BYTES, PART_BYTES + 1, 2 * PART_BYTES, 9 * MIB + 7]
)
def test_items_of_every_size_come_back_as_they_came_before_and_after_a_move(contoso: TenantWorld, size: int) -> None:
    box = contoso.mailbox(f"size-{size}")
    data = os.urandom(size)
    assert box.add_large(data).imported == 1
    assert box.add_large(data).already_present == 1
    (item,) = box.items()
    assert item.size_bytes == size
    assert box.read(item.id) == data
    contoso.assign("Mail", box)
    assert box.read(item.id) == data
    assert box.add_large(data).already_present == 1
    assert (box.statistics().item_count, box.statistics().size_bytes) == (1, size)
    run_due(contoso.world.services)


def test_a_batch_takes_items_of_one_mebibyte_and_an_empty_one(contoso: TenantWorld) -> None:
    box = contoso.mailbox("edge")
    items = [os.urandom(SMALL_ITEM), b"", *(os.urandom(700_000) for _ in range(14))]
    assert box.add(*items).imported == 16
    assert box.read_all() == sorted(items)
    contoso.assign("Mail", box)
    assert box.read_all() == sorted(items)


def test_a_large_item_that_is_there_already_leaves_nothing_behind(contoso: TenantWorld) -> None:
    box = contoso.mailbox("nothing-behind")
    data = os.urandom(SMALL_ITEM + 5)
    box.add_large(data)
    stored = contoso.world.objects()
    assert box.add_large(data).already_present == 1
    assert contoso.world.objects() == stored


def test_too_much_at_once_is_refused_with_the_position(contoso: TenantWorld) -> None:
    box = contoso.mailbox("limits")
    small = contoso.world.process("small", settings=replace(contoso.world.settings, max_item_bytes=2 * MIB))
    client = small.client(OPERATOR, contoso.id)

    def refused(call: Callable[[], object], code: str, text: str) -> None:
        with pytest.raises(InvalidRequest) as caught:
            call()
        assert caught.value.code == code
        assert text in caught.value.detail

    too_large = m.ImportBatch(upn=box.upn, items=[m.ImportItem(position=7, ordinal=1, folder="", data=bytes(SMALL_ITEM + 1))])
    refused(lambda: client.call("mailbox.import", too_large), "item_too_large", "item 7")
    large = m.ImportLarge(upn=box.upn, position=8, ordinal=1, folder="")
    over = Upload(2 * MIB + 1, io.BytesIO().read)
    refused(lambda: client.call("mailbox.import-item", large, upload=over), "item_too_large", "item 8")
    stored = contoso.world.objects()
    cut = Upload(2 * MIB, io.BytesIO(bytes(MIB)).read)
    refused(lambda: client.call("mailbox.import-item", large, upload=cut), "upload_cut_off", "item 8")
    assert contoso.world.objects() == stored, "half an item is not kept"
    folder = m.ImportBatch(upn=box.upn, items=[m.ImportItem(position=1, ordinal=1, folder="x" * 600, data=b"a")])
    refused(lambda: client.call("mailbox.import", folder), "folder_name_invalid", "512")
    many = m.ImportBatch(upn=box.upn, items=[m.ImportItem(position=1, ordinal=1, folder="", data=b"")] * 5_001)
    refused(lambda: client.call("mailbox.import", many), "batch_too_long", "5000")
    assert box.statistics().item_count == 0


def test_a_commit_that_was_stored_but_not_confirmed_loses_nothing(contoso: TenantWorld) -> None:
    """The answer to a commit may be lost: what it stored must be readable, and coming again adds nothing."""
    box = contoso.mailbox("unconfirmed")
    services = contoso.world.services

    class Unconfirmed:
        """Commits, and then says it does not know."""

        def write(self) -> object:
            return _Unconfirmed(services.db.write())

        def read(self) -> object:
            return services.db.read()

    class _Unconfirmed:
        def __init__(self, inner: object) -> None:
            self._inner: object = inner

        def __enter__(self) -> object:
            return self._inner.__enter__()  # type: ignore[attr-defined]

        def __exit__(self, *error: object) -> None:
            self._inner.__exit__(*error)  # type: ignore[attr-defined]
            raise Unavailable("database_unavailable", "the answer was lost", "try again")

    shaky = contoso.world.process("shaky", db=Unconfirmed())
    batch = m.ImportBatch(upn=box.upn, items=[m.ImportItem(position=1, ordinal=1, folder="Inbox", data=message(1))])
    large = bytes(2 * MIB)
    with pytest.raises(Unavailable):
        shaky.client(OPERATOR, contoso.id).call("mailbox.import", batch)
    with pytest.raises(Unavailable):
        shaky.client(OPERATOR, contoso.id).call(
            "mailbox.import-item",
            m.ImportLarge(upn=box.upn, position=2, ordinal=1, folder="Inbox"),
            upload=Upload(len(large), io.BytesIO(large).read),
        )
    assert box.add(message(1)).already_present == 1
    assert box.read_all() == sorted([message(1), large])


def test_a_full_disk_stops_an_import_clearly_and_it_can_be_run_again(contoso: TenantWorld) -> None:
    box = contoso.mailbox("full-disk")
    inner = contoso.world.services.objects

    class Full:
        """A disk with room for one more object."""

        left = 1

        def put(self, ref: str, chunks: Iterator[bytes]) -> int:
            if not self.left:
                raise Unavailable("storage_full", f"the disk is full: {ref} was not written", "free some room, then try again")
            self.left -= 1
            return inner.put(ref, chunks)

        def __getattr__(self, name: str) -> object:
            return getattr(inner, name)

    source = [os.urandom(SMALL_ITEM) for _ in range(12)]  # two packs
    full = contoso.world.process("full", objects=Full())
    with pytest.raises(Unavailable) as caught:
        box.add(*source, client=full.client(OPERATOR, contoso.id))
    assert caught.value.code == "storage_full"
    assert box.statistics().item_count == 0, "a batch is all or nothing"
    again = box.add(*source)
    assert (again.imported, again.already_present) == (12, 0)
    assert box.read_all() == sorted(source)


# -- listing, reading, deleting -----------------------------------------------------------------------------------------------------


def test_items_are_listed_newest_first_page_by_page_with_folder_kind_and_summary(contoso: TenantWorld) -> None:
    box = contoso.mailbox("pages")
    box.add(*(message(index) for index in range(7)), folder="Projekte/Été")
    seen: list[m.ItemView] = []
    after = ""
    while page := box.owner.call("mailbox.items", m.ListItems(upn=box.upn, after=after, limit=3)):
        assert len(page) <= 3
        seen += page
        after = page[-1].id
    assert [item.subject for item in seen] == [f"Message {index}" for index in reversed(range(7))]
    assert {(item.folder, item.kind, item.sender) for item in seen} == {("Projekte/Été", "message", "sam@fabrikam.example")}
    assert box.owner.call("mailbox.items", m.ListItems(upn=box.upn, after="no-such-item")) == []


def test_a_deleted_item_is_gone_and_its_object_goes_when_nothing_else_lies_in_it(contoso: TenantWorld) -> None:
    world = contoso.world
    others = world.objects()
    box = contoso.mailbox("deleting", messages=2)
    its_own = world.objects() - others
    first, second = (item.id for item in box.items())
    box.owner.call("mailbox.delete-item", m.NameItem(upn=box.upn, item=first))
    with pytest.raises(NotFound):
        box.read(first)
    with pytest.raises(NotFound):
        box.owner.call("mailbox.delete-item", m.NameItem(upn=box.upn, item=first))
    assert (box.statistics().item_count, [item.id for item in box.items()]) == (1, [second])
    box.owner.call("mailbox.delete-item", m.NameItem(upn=box.upn, item=second))
    assert (box.statistics().item_count, box.statistics().size_bytes) == (0, 0)
    assert {one.object_id for one in contoso.audit("HardDelete")} >= {first, second}
    world.clock.advance(2 * HOUR)
    schedule_upkeep(world.services)
    run_due(world.services)
    assert its_own.isdisjoint(world.objects())
    assert box.add(message(0)).imported == 1, "what was deleted may come again"


def test_a_read_that_starts_before_a_move_ends_after_it(contoso: TenantWorld) -> None:
    box = contoso.mailbox("long-read")
    data = os.urandom(3 * PART_BYTES)
    box.add_large(data)
    content = box.owner.call("mailbox.read", m.NameItem(upn=box.upn, item=box.items()[0].id))
    pieces = [next(content.chunks)]
    contoso.assign("Mail", box)
    run_due(contoso.world.services)
    pieces += list(content.chunks)
    assert b"".join(pieces) == data


# -- who may ----------------------------------------------------------------------------------------------------------------------------


def content_calls(client: Client, upn: str, item: str) -> list[Callable[[], object]]:
    return [
        lambda: client.call("mailbox.items", m.ListItems(upn=upn)),
        lambda: client.call("mailbox.read", m.NameItem(upn=upn, item=item)),
        lambda: client.call("mailbox.delete-item", m.NameItem(upn=upn, item=item)),
    ]


def test_only_the_owner_and_those_the_owner_let_in_see_content(contoso: TenantWorld) -> None:
    box = contoso.mailbox("private", messages=2)
    item = box.items()[0].id
    colleague = contoso.person("colleague", "user")
    for client in (contoso.admin, contoso.person("compliance", "compliance-admin"), contoso.person("exch", "exchange-admin"), colleague):
        for call in content_calls(client, box.upn, item):
            with pytest.raises(Forbidden) as caught:
                call()
            assert caught.value.code == "not_the_owner"
    for call in content_calls(contoso.world.client(OPERATOR, contoso.id), box.upn, item):
        with pytest.raises(Forbidden) as caught:
            call()
        assert caught.value.code == "provider_never_reads"
    with pytest.raises(Forbidden):
        contoso.admin.call("mailbox.delegate", m.DelegateRequest(upn=box.upn, delegate="admin@contoso.example"))
    box.owner.call("mailbox.delegate", m.DelegateRequest(upn=box.upn, delegate="colleague@contoso.example"))
    assert box.read(item, colleague) == box.read(item)
    assert len(box.items(colleague)) == 2
    with pytest.raises(Forbidden):
        colleague.call("mailbox.delegate", m.DelegateRequest(upn=box.upn, delegate="exch@contoso.example"))
    box.owner.call("mailbox.delegate", m.DelegateRequest(upn=box.upn, delegate="colleague@contoso.example", remove=True))
    with pytest.raises(Forbidden):
        box.read(item, colleague)
    with pytest.raises(NotFound):
        box.owner.call("mailbox.delegate", m.DelegateRequest(upn=box.upn, delegate="colleague@contoso.example", remove=True))
    with pytest.raises(NotFound):
        box.owner.call("mailbox.delegate", m.DelegateRequest(upn=box.upn, delegate="stranger@contoso.example"))


def test_a_shared_mailbox_is_given_out_by_an_administrator(contoso: TenantWorld) -> None:
    box = contoso.mailbox("shared-info", messages=1, type="shared")
    clerk = contoso.person("clerk", "user")
    item = box.items()[0].id
    contoso.admin.call("mailbox.delegate", m.DelegateRequest(upn=box.upn, delegate="clerk@contoso.example"))
    assert box.read(item, clerk) == message(0)
    with pytest.raises(Forbidden):
        box.read(item, contoso.admin)


def test_a_delegates_reads_are_recorded_and_an_owners_only_when_a_setting_says_so(contoso: TenantWorld) -> None:
    box = contoso.mailbox("watched", messages=1)
    delegate = contoso.person("deputy", "user")
    box.owner.call("mailbox.delegate", m.DelegateRequest(upn=box.upn, delegate="deputy@contoso.example"))
    item = box.items()[0].id

    def reads(upn: str) -> int:
        return len([one for one in contoso.audit("MailItemsAccessed") if one.user_id == upn and one.object_id == item])

    box.read(item)
    assert reads(box.upn) == 0
    box.read(item, delegate)
    assert reads("deputy@contoso.example") == 1
    strict = contoso.world.process("recording", settings=replace(contoso.world.settings, record_owner_reads=True))
    box.read(item, strict.client(tenants.impersonate(strict.services, box.upn)))
    assert reads(box.upn) == 1


# -- search -------------------------------------------------------------------------------------------------------------------------


def test_search_finds_what_people_see_in_all_parts_and_tells_ids_only(contoso: TenantWorld) -> None:
    box = contoso.mailbox("finder")
    encoded = b"From: a@fabrikam.example\r\nSubject: =?utf-8?Q?Gr=C3=BC=C3=9Fe?=\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: base64\r\n\r\nVmVydHJhZyDDnGJlcnNpY2h0\r\n"
    box.add(message(1, body="The Tangerine   contract"), message(2, body="nothing"), encoded)
    box.add_large(message(3, body="tangerine again ", size=MIB))
    ids = by_subject(box)
    for text, subjects in (
        ("TANGERINE", {"Message 1", "Message 3"}),
        ("tangerine contract", {"Message 1"}),
        ("grüsse", {"Grüße"}),
        ("vertrag ÜBERSICHT", {"Grüße"}),
        ("mandarin", set()),
    ):
        hits = box.owner.call("mailbox.search", m.Search(upn=box.upn, text=text))
        assert {hit.item_id for hit in hits} == {ids[subject] for subject in subjects}, text
    assert len(box.owner.call("mailbox.search", m.Search(upn=box.upn, text="tangerine", limit=1))) == 1
    with pytest.raises(InvalidRequest):
        box.owner.call("mailbox.search", m.Search(upn=box.upn, text=""))


def test_all_mailboxes_are_searched_by_those_who_may_and_each_is_recorded(contoso: TenantWorld) -> None:
    fabrikam = contoso.world.tenant("fabrikam.example", ready=False)  # of its own: the other tests' mailboxes are large
    boxes = [fabrikam.mailbox(f"discovery-{index}") for index in range(3)]
    for box in boxes:
        box.add(message(1, body="Quixotic clause"))
    compliance = fabrikam.person("discoverer", "compliance-admin")
    hits = compliance.call("mailbox.search", m.Search(text="quixotic"))
    assert sorted(hit.mailbox for hit in hits) == [box.upn for box in boxes]
    searched = {one.object_id for one in fabrikam.audit("New-MailboxSearch") if one.user_id == "discoverer@fabrikam.example"}
    assert searched >= {box.statistics().id for box in boxes}
    assert all("uixotic" not in parameter.value for one in fabrikam.audit("New-MailboxSearch") for parameter in one.parameters)
    rest = compliance.call("mailbox.search", m.Search(text="quixotic", after=boxes[0].upn))
    assert sorted(hit.mailbox for hit in rest) == [box.upn for box in boxes[1:]]
    for client in (boxes[0].owner, fabrikam.person("exch2", "exchange-admin")):
        with pytest.raises(Forbidden):
            client.call("mailbox.search", m.Search(text="quixotic"))
    with pytest.raises(Forbidden):
        boxes[0].owner.call("mailbox.search", m.Search(upn=boxes[1].upn, text="quixotic"))
    with pytest.raises(Forbidden):
        contoso.world.client(OPERATOR, fabrikam.id).call("mailbox.search", m.Search(text="quixotic"))


# -- damage -------------------------------------------------------------------------------------------------------------------------


def damaged_read(contoso: TenantWorld, box: MailboxWorld, item: str) -> None:
    """The item does not open, the error names it, the log says so, the others open."""
    before = len(failures(contoso))
    with pytest.raises(IntegrityFailure) as caught:
        box.read(item)
    assert item in caught.value.detail
    after = failures(contoso)
    assert len(after) == before + 1
    assert any(item in parameter.value for parameter in after[0].parameters)
    for other in box.items():
        if other.id != item:
            assert box.read(other.id) in {message(index) for index in range(10)}


def failures(contoso: TenantWorld) -> list[w.AuditRecordView]:
    return [one for one in contoso.audit("MailItemsAccessed") if one.result_status == "Failed"]


def flip(path: str, place: int) -> None:
    with open(path, "r+b") as file:  # noqa: PTH123 - one byte of one file
        file.seek(place)
        byte = file.read(1)
        file.seek(place)
        file.write(bytes([byte[0] ^ 1]))


@pytest.mark.parametrize("where", ["first", "middle", "last"])
def test_one_flipped_bit_of_a_pack_costs_one_item(contoso: TenantWorld, where: str) -> None:
    box = contoso.mailbox(f"flipped-{where}", messages=3)
    item = by_subject(box)["Message 1"]
    path, offset, length = object_of(contoso.world, item)
    flip(path, {"first": offset, "middle": offset + length // 2, "last": offset + length - 1}[where])
    damaged_read(contoso, box, item)


def test_a_truncated_pack_costs_what_was_cut_off(contoso: TenantWorld) -> None:
    box = contoso.mailbox("truncated", messages=3)
    ids = [item.id for item in box.items()]
    last = max(ids, key=lambda item: object_of(contoso.world, item)[1])
    path, offset, _length = object_of(contoso.world, last)
    os.truncate(path, offset + 5)
    damaged_read(contoso, box, last)


def test_a_missing_object_is_named_by_its_items(contoso: TenantWorld) -> None:
    box = contoso.mailbox("missing-object", messages=1)
    item = box.items()[0].id
    os.unlink(object_of(contoso.world, item)[0])  # noqa: PTH108 - text path
    damaged_read(contoso, box, item)


def test_a_large_item_cut_at_a_part_or_with_parts_swapped_does_not_open(contoso: TenantWorld) -> None:
    for how in ("cut", "swap", "short", "gone"):
        box = contoso.mailbox(f"large-{how}")
        box.add_large(os.urandom(3 * PART_BYTES))
        item = box.items()[0].id
        path, _offset, length = object_of(contoso.world, item)
        if how == "cut":  # by somebody who has the database too: one part less, in the row as on the disk
            os.truncate(path, length // 3 * 2)
            sql(contoso.world, "UPDATE items SET parts = 2, size = ?, length = ? WHERE id = ?", 2 * PART_BYTES, length // 3 * 2, item)
        elif how == "swap":
            part = length // 3
            with open(path, "r+b") as file:  # noqa: PTH123 - as above
                first, second, third = file.read(part), file.read(part), file.read(part)
                file.seek(0)
                file.write(second + first + third)
        elif how == "short":
            os.truncate(path, length - 100)
        else:
            os.unlink(path)  # noqa: PTH108 - text path
        content = box.owner.call("mailbox.read", m.NameItem(upn=box.upn, item=item))
        before = len(failures(contoso))
        with pytest.raises(IntegrityFailure) as caught:
            list(content.chunks)
        assert item in caught.value.detail, how
        assert len(failures(contoso)) == before + 1


def test_places_swapped_between_two_items_open_neither(contoso: TenantWorld) -> None:
    box = contoso.mailbox("swapped-places", messages=3)
    ids = by_subject(box)
    first, second = ids["Message 0"], ids["Message 1"]
    places = {
        item: sql(contoso.world, 'SELECT object_ref, "offset", length, size FROM items WHERE id = ?', item)[0] for item in (first, second)
    }
    for item, place in ((first, places[second]), (second, places[first])):
        sql(contoso.world, 'UPDATE items SET object_ref = ?, "offset" = ?, length = ?, size = ? WHERE id = ?', *place, item)
    for item in (first, second):
        with pytest.raises(IntegrityFailure) as caught:
            box.read(item)
        assert item in caught.value.detail
    assert box.read(ids["Message 2"]) == message(2)


def test_a_summary_or_folder_name_from_another_row_does_not_open(contoso: TenantWorld) -> None:
    box = contoso.mailbox("swapped-summary", messages=2)
    first, second = (item.id for item in box.items())
    ((summary,),) = sql(contoso.world, "SELECT summary FROM items WHERE id = ?", first)
    sql(contoso.world, "UPDATE items SET summary = ? WHERE id = ?", summary, second)
    before = len(failures(contoso))
    with pytest.raises(IntegrityFailure) as caught:
        box.items()
    assert second in caught.value.detail
    assert len(failures(contoso)) == before + 1
    assert box.read(second) in {message(0), message(1)}, "the item itself is whole"
    other = contoso.mailbox("swapped-folder")
    other.add(message(1), folder="One")
    other.add(message(2), folder="Two")
    rows = sql(contoso.world, "SELECT id, sealed_name FROM folders WHERE mailbox_id = ?", other.statistics().id)
    for (folder, _own), (_other, sealed) in zip(rows, reversed(rows), strict=True):
        sql(contoso.world, "UPDATE folders SET sealed_name = ? WHERE id = ?", sealed, folder)
    with pytest.raises(IntegrityFailure) as caught:
        other.items()
    assert any(str(folder) in caught.value.detail for folder, _sealed in rows)


def test_a_wrapped_key_swapped_or_rolled_back_or_lost_opens_nothing(contoso: TenantWorld) -> None:
    world = contoso.world
    boxes = [contoso.mailbox(f"key-{index}", messages=1) for index in range(2)]
    ids = [box.statistics().id for box in boxes]
    old = [sql(world, "SELECT wrapped FROM mailbox_keys WHERE mailbox_id = ?", mailbox)[0][0] for mailbox in ids]

    def fresh() -> Client:
        """Another process, which has no key in its memory."""
        process = world.process("fresh")
        return process.client(tenants.impersonate(process.services, boxes[0].upn))

    sql(world, "UPDATE mailbox_keys SET wrapped = ? WHERE mailbox_id = ?", old[1], ids[0])
    with pytest.raises(IntegrityFailure) as caught:
        boxes[0].items(fresh())
    assert ids[0] in caught.value.detail
    sql(world, "UPDATE mailbox_keys SET wrapped = ? WHERE mailbox_id = ?", old[0], ids[0])
    contoso.assign("Mail", boxes[0])
    new = sql(world, "SELECT wrapped FROM mailbox_keys WHERE mailbox_id = ?", ids[0])[0][0]
    sql(world, "UPDATE mailbox_keys SET wrapped = ? WHERE mailbox_id = ?", old[0], ids[0])
    with pytest.raises(IntegrityFailure) as caught:
        boxes[0].items(fresh())
    assert ids[0] in caught.value.detail
    sql(world, "UPDATE mailbox_keys SET wrapped = ? WHERE mailbox_id = ?", new, ids[0])
    assert boxes[0].read_all() == [message(0)]
    item = boxes[0].items()[0].id
    sql(world, "DELETE FROM mailbox_keys WHERE mailbox_id = ?", ids[0])
    with pytest.raises(IntegrityFailure) as caught:
        boxes[0].read(item)
    assert item in caught.value.detail
    with pytest.raises(IntegrityFailure, match="mailbox key"):
        boxes[0].items()


def test_a_move_over_a_damaged_item_stops_names_it_and_loses_nothing(contoso: TenantWorld) -> None:
    for how in ("flipped", "truncated", "missing"):
        box = contoso.mailbox(f"move-{how}", messages=3)
        ids = [item.id for item in box.items()]
        last = max(ids, key=lambda item: object_of(contoso.world, item)[1])
        path, offset, _length = object_of(contoso.world, last)
        if how == "flipped":
            flip(path, offset + 40)
        elif how == "truncated":
            os.truncate(path, offset + 5)
        else:
            os.unlink(path)  # noqa: PTH108 - text path
        job = contoso.assign("Mail", box)
        assert job.state == "failed", how
        assert any(item in job.error for item in (ids if how == "missing" else [last])), (how, job.error)
        assert box.statistics().move_state == "failed"
        assert not box.statistics().is_encrypted
        if how != "missing":
            for item in ids:
                if item != last:
                    assert box.read(item) in {message(index) for index in range(3)}
        (record,) = [one for one in contoso.audit("Complete-MailboxMove") if one.object_id == box.statistics().id]
        assert record.result_status == "Failed"
        box.owner.call("mailbox.delete-item", m.NameItem(upn=box.upn, item=last))
        if how != "missing":
            assert contoso.assign("Mail", box).state == "done", "once the damaged item is gone, the rest goes on"
            assert len(box.read_all()) == 2


def test_a_damaged_item_does_not_hide_the_others_from_a_search(contoso: TenantWorld) -> None:
    box = contoso.mailbox("damaged-search", messages=3)
    item = by_subject(box)["Message 1"]
    path, offset, _length = object_of(contoso.world, item)
    flip(path, offset + 40)
    with pytest.raises(KeysteadError) as caught:
        contoso.admin.call("mailbox.search", m.Search(upn=box.upn, text="body"))
    assert item in str(caught.value), "a search that cannot look everywhere says so"


def test_the_store_is_asked_for_no_more_than_the_item(contoso: TenantWorld) -> None:
    """A pack holds several items; reading one gets its own range only (design section 4)."""
    box = contoso.mailbox("ranges", messages=3)
    asked: list[tuple[str, int, int]] = []
    inner = contoso.world.services.objects

    class Counting:
        def get(self, ref: str, offset: int, length: int) -> bytes:
            asked.append((ref, offset, length))
            return inner.get(ref, offset, length)

        def __getattr__(self, name: str) -> object:
            return getattr(inner, name)

    counting: ObjectStore = Counting()  # type: ignore[assignment]
    process = contoso.world.process("counting", objects=counting)
    item = by_subject(box)["Message 1"]
    box.read(item, process.client(tenants.impersonate(process.services, box.upn)))
    _path, offset, length = object_of(contoso.world, item)
    assert [(one[1], one[2]) for one in asked] == [(offset, length)]
