"""The loops that bring mail in and write it out."""

from __future__ import annotations

import stat
import tracemalloc
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from cli.fake import WHEN, FakeService
from keystead.api.call import Content
from keystead.api.types.mailboxes import ImportBatch, ImportLarge, ImportResult, ItemView, MailboxStatistics, MalformedItem
from keystead.client.exporting import PAGE, export_items
from keystead.client.importing import BATCH_BYTES, BATCH_ITEMS, import_source
from keystead.client.sources import open_source
from keystead.core.errors import Conflict, IntegrityFailure, InvalidRequest, KeyDenied, Unavailable
from keystead.core.formats.mailbox_items import SMALL_ITEM

if TYPE_CHECKING:
    from pathlib import Path

UPN = "alex@contoso.example"
MIB = 1024 * 1024


class Mailbox:
    """What a mailbox would hold: bytes and ordinals, each once."""

    def __init__(self, service: FakeService) -> None:
        self.held: set[tuple[bytes, int]] = set()
        self.batches: list[ImportBatch] = []
        service.answers |= {"mailbox.import": self.batch, "mailbox.import-item": self.large}
        self._service = service

    def batch(self, request: ImportBatch) -> ImportResult:
        self.batches.append(request)
        fresh = [item for item in request.items if (item.data, item.ordinal) not in self.held]
        self.held |= {(item.data, item.ordinal) for item in request.items}
        malformed = [
            MalformedItem(position=item.position, reason=item.malformed, item_id=f"id-{item.position}") for item in fresh if item.malformed
        ]
        return ImportResult(imported=len(fresh), already_present=len(request.items) - len(fresh), malformed=malformed)

    def large(self, request: ImportLarge) -> ImportResult:
        data = self._service.asked[-1].upload
        assert data is not None
        fresh = (data, request.ordinal) not in self.held
        self.held.add((data, request.ordinal))
        return ImportResult(imported=int(fresh), already_present=int(not fresh), malformed=[])


@pytest.fixture
def mailbox(service: FakeService) -> Mailbox:
    return Mailbox(service)


def _mbox(path: Path, bodies: list[bytes]) -> Path:
    path.write_bytes(b"".join(b"From x Mon Jan  5 10:00:00 2026\nSubject: s\n\n" + body + b"\n\n" for body in bodies))
    return path


def test_equal_messages_in_one_source_are_several_items_and_importing_again_adds_nothing(
    service: FakeService, mailbox: Mailbox, tmp_path: Path
) -> None:
    source = open_source(_mbox(tmp_path / "m.mbox", [b"same", b"other", b"same", b"same"]))
    first = import_source(service.client(""), UPN, source)
    assert (first.imported, first.already_present) == (4, 0)
    assert Counter(ordinal for _data, ordinal in mailbox.held) == {1: 2, 2: 1, 3: 1}
    again = import_source(service.client(""), UPN, source)
    assert (again.imported, again.already_present) == (0, 4)


def test_items_go_in_batches_of_bounded_size_and_count(service: FakeService, mailbox: Mailbox, tmp_path: Path) -> None:
    bodies = [b"%d" % number for number in range(BATCH_ITEMS + 1)] + [b"%d" % number + b"x" * (900 * 1024) for number in range(20)]
    done: list[float] = []
    source = open_source(_mbox(tmp_path / "m.mbox", bodies))
    result = import_source(service.client(""), UPN, source, done.append)
    assert result.imported == len(bodies)
    assert all(len(batch.items) <= BATCH_ITEMS and sum(len(item.data) for item in batch.items) <= BATCH_BYTES for batch in mailbox.batches)
    assert [item.position for batch in mailbox.batches for item in batch.items] == list(range(1, len(bodies) + 1))
    assert done == sorted(done)
    assert done[-1] == sum(len(data) for data, _ordinal in mailbox.held)


def test_what_the_reader_of_the_source_found_wrong_is_said(service: FakeService, mailbox: Mailbox, tmp_path: Path) -> None:
    (tmp_path / "m.mbox").write_bytes(b"lost beginning\n\nFrom x Mon Jan  5 10:00:00 2026\nSubject: s\n\nbody\n")
    result = import_source(service.client(""), UPN, open_source(tmp_path / "m.mbox"))
    assert result.imported == 2
    assert [(one.position, one.reason) for one in result.malformed] == [(1, "before-first-separator")]


def test_a_large_item_travels_by_itself(service: FakeService, mailbox: Mailbox, tmp_path: Path) -> None:
    data = b"Subject: large\n\n" + b"x" * (2 * SMALL_ITEM)
    (tmp_path / "large.eml").write_bytes(data)
    result = import_source(service.client(""), UPN, open_source(tmp_path / "large.eml"))
    assert result.imported == 1
    assert [(asked.route, asked.upload) for asked in service.asked] == [("mailbox.import-item", data)]


def test_an_item_over_the_limit_is_left_out_and_the_others_come_in(service: FakeService, mailbox: Mailbox, tmp_path: Path) -> None:
    def refuses(_request: Any) -> ImportResult:
        raise InvalidRequest("item_too_large", "item 2 has too many bytes", "")

    service.answers["mailbox.import-item"] = refuses
    source = open_source(_mbox(tmp_path / "m.mbox", [b"first", b"x" * (2 * SMALL_ITEM), b"last"]))
    result = import_source(service.client(""), UPN, source)
    assert result.imported == 2
    assert [(one.position, one.reason) for one in result.refused] == [(2, "item_too_large")]


def test_memory_stays_flat_however_large_an_item_is(service: FakeService, tmp_path: Path) -> None:
    class Sink(FakeService):
        def run(self, route: Any, request: Any, *, tenant: str, upload: Any) -> ImportResult:
            while upload.read(MIB):
                pass
            return ImportResult(imported=1, already_present=0, malformed=[])

    with (tmp_path / "huge.eml").open("wb") as file:
        file.write(b"Subject: huge\n\n")
        file.truncate(48 * MIB)
    client = Sink().client("")
    source = open_source(tmp_path / "huge.eml")
    tracemalloc.start()
    try:
        import_source(client, UPN, source)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 8 * MIB


def test_an_import_that_breaks_can_be_run_again(service: FakeService, mailbox: Mailbox, tmp_path: Path) -> None:
    source = open_source(_mbox(tmp_path / "m.mbox", [b"%d" % number for number in range(BATCH_ITEMS + 5)]))
    whole = mailbox.batch

    def breaks(request: ImportBatch) -> ImportResult:
        if mailbox.batches:
            raise Unavailable("disk_full", "no room", "make some")
        return whole(request)

    service.answers["mailbox.import"] = breaks
    with pytest.raises(Unavailable):
        import_source(service.client(""), UPN, source)
    service.answers["mailbox.import"] = whole
    result = import_source(service.client(""), UPN, source)
    assert (result.imported, result.already_present) == (5, BATCH_ITEMS)


# -- writing out -----------------------------------------------------------------------------------------------------------------------


def _item(number: int, name: str = "") -> ItemView:
    identifier = name or f"00000000-0000-4000-8000-{number:012d}"
    return ItemView(id=identifier, kind="message", folder="Inbox", subject="s", sender="a", received=WHEN, size_bytes=4)


def _holding(service: FakeService, items: list[ItemView]) -> None:
    def page(request: Any) -> list[ItemView]:
        start = next((index + 1 for index, item in enumerate(items) if item.id == request.after), 0)
        return items[start : start + request.limit]

    service.answers["mailbox.statistics"] = MailboxStatistics(
        id="m",
        upn=UPN,
        type="user",
        licensed=True,
        data_encryption_policy_id=None,
        policy_name=None,
        is_encrypted=False,
        move_state="none",
        progress_percent=100.0,
        item_count=len(items),
        size_bytes=4 * len(items),
        assigned=None,
    )
    service.answers["mailbox.items"] = page
    service.answers["mailbox.read"] = lambda request: Content(len(request.item), "message/rfc822", iter((request.item.encode(),)))


def test_every_item_is_a_file_with_its_bytes(service: FakeService, tmp_path: Path) -> None:
    items = [_item(number) for number in range(PAGE + 3)]
    _holding(service, items)
    done: list[float] = []
    result = export_items(service.client(""), UPN, tmp_path / "out", on_progress=done.append)
    assert result.exported == len(items)
    assert {file.name: file.read_text() for file in (tmp_path / "out").iterdir()} == {f"{item.id}.eml": item.id for item in items}
    assert {stat.S_IMODE(file.stat().st_mode) for file in (tmp_path / "out").iterdir()} == {0o600}
    assert done[-1] == 100.0


def test_a_folder_that_is_not_empty_is_refused_unless_it_is_meant(service: FakeService, tmp_path: Path) -> None:
    _holding(service, [_item(1)])
    (tmp_path / "there").write_text("already")
    with pytest.raises(Conflict):
        export_items(service.client(""), UPN, tmp_path)
    assert export_items(service.client(""), UPN, tmp_path, overwrite=True).exported == 1


def test_an_item_id_that_is_none_never_becomes_a_path(service: FakeService, tmp_path: Path) -> None:
    _holding(service, [_item(1, "../../outside")])
    with pytest.raises(IntegrityFailure):
        export_items(service.client(""), UPN, tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


def test_a_refusal_in_the_middle_leaves_whole_files_only(service: FakeService, tmp_path: Path) -> None:
    _holding(service, [_item(1), _item(2)])

    def parts() -> Any:
        yield b"half"
        raise KeyDenied("denied_by_customer_key", "refused", "grant access")

    whole = service.answers["mailbox.read"]
    service.answers["mailbox.read"] = lambda request: (
        whole(request) if request.item.endswith("1") else Content(8, "message/rfc822", parts())
    )
    with pytest.raises(KeyDenied):
        export_items(service.client(""), UPN, tmp_path / "out")
    assert [file.name for file in (tmp_path / "out").iterdir()] == [f"{_item(1).id}.eml"]


def test_a_folder_that_cannot_be_written_is_named(service: FakeService, tmp_path: Path) -> None:
    _holding(service, [_item(1)])
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(InvalidRequest, match="cannot be written"):
        export_items(service.client(""), UPN, tmp_path / "file")
