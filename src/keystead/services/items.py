"""Items: taking them in, listing, reading, searching, deleting.

Order of writes when items come in: objects first, durable, then one transaction with rows, counts and the record. A crash in between
leaves an object no row names, which `collect-orphans` removes. Taking in is a system operation, since no content goes to a person;
listing, reading are user operations; a search returns ids only, so it is a system operation too (design section 5).
"""

from __future__ import annotations

import hashlib
import re
import threading
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, NoReturn

from zstandard import ZstdCompressor, ZstdDecompressor

from keystead.api.call import Content
from keystead.api.types.base import utc
from keystead.api.types.mailboxes import Hit, ImportResult, ItemView, MalformedItem
from keystead.api.types.tenants import Done
from keystead.core.access.principal import Role
from keystead.core.errors import Conflict, Forbidden, IntegrityFailure, InvalidRequest, NotFound
from keystead.core.formats.mailbox_items import (
    PART_BYTES,
    SMALL_ITEM,
    ItemSummary,
    content_hash,
    decode_folder_name,
    decode_summary,
    encode_summary,
    folder_context,
    folder_hash,
    item_context,
    pack_id,
    part_box,
    part_bytes,
    part_count,
    stands_alone,
    summary_context,
)
from keystead.core.formats.pack import MAX_PACK_BYTES, PackWriter
from keystead.core.formats.sealed_object import OVERHEAD_BYTES, new_compressor, open_object, seal, seal_into
from keystead.core.ids import new_id, ordered_id
from keystead.core.keys.decide import Operation
from keystead.core.stores.mailbox import MEDIA_TYPES, Folder, Item, Mailbox, MailboxKey
from keystead.core.stores.message import summarise
from keystead.core.stores.objects import StoredObject
from keystead.core.stores.searchtext import matches
from keystead.services.auditing import record
from keystead.services.mailboxes import ADMINS, find_mailbox, require_owner_or

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from keystead.api.call import Call, Upload
    from keystead.api.types import mailboxes as t
    from keystead.core.keys.hierarchy import MailboxKeys
    from keystead.core.stores.message import Summary
    from keystead.ports.tx import ItemPlace, Tx
    from keystead.services.context import Services
    from keystead.services.keyring import OpenPolicy

HEADER_BYTES = 256 * 1024
"""How much of an item is looked at for its summary."""
MAX_FOLDER = 512
_SURROGATE = re.compile("[\ud800-\udfff]")
"""No encoder takes half a pair."""
DEFAULT_FOLDER = "Inbox"
"""Where items go whose source names no folder."""
MAX_BATCH = 5_000
MAX_ORDINAL = 2**32 - 1
ATTEMPTS = 5

PAGE = 1_000
"""Items whose rows whoever goes through a whole mailbox holds at a time."""

SEARCHERS = frozenset({Role.GLOBAL_ADMIN, Role.COMPLIANCE_ADMIN})


class _Moved(Exception):
    """The mailbox changed between reading and committing; start again from its present state."""


class _Tools(threading.local):
    """One of each for every thread that needs it: a compressor is not for sharing, and an 8 MiB buffer is worth keeping."""

    @cached_property
    def compressor(self) -> ZstdCompressor:
        return new_compressor()

    @cached_property
    def decompressor(self) -> ZstdDecompressor:
        return ZstdDecompressor()

    @cached_property
    def pack(self) -> bytearray:
        """What a pack is filled in. A thread that only reads does without."""
        return bytearray(MAX_PACK_BYTES)


_tools = _Tools()


@dataclass(frozen=True, slots=True)
class _Target:
    """A mailbox opened for taking items in.

    Attributes:
        keys: of the version new items are sealed under.
        live: look-up keys of all versions: during a move, items and folders may lie under either.
    """

    mailbox: Mailbox
    keys: MailboxKeys
    live: tuple[MailboxKeys, ...]
    folders: dict[bytes, Folder]


# -- taking in ----------------------------------------------------------------------------------------------------------------------


def import_batch(services: Services, call: Call, request: t.ImportBatch) -> ImportResult:
    """Take in small items, durable when this returns; items the mailbox has already are counted, not added (R-097)."""
    if len(request.items) > MAX_BATCH:
        raise InvalidRequest(
            "batch_too_long", f"{len(request.items)} items in one batch; at most {MAX_BATCH} are taken", "send smaller batches"
        )
    for item in request.items:
        if len(item.data) > SMALL_ITEM:
            raise InvalidRequest(
                "item_too_large", f"item {item.position} has {len(item.data)} bytes, too many for a batch", "send it by itself"
            )
        if not 0 <= item.ordinal <= MAX_ORDINAL:
            raise InvalidRequest(
                "ordinal_invalid", f"item {item.position} has the ordinal {item.ordinal}", "count equal items of the source from 1"
            )
        _check_folder(item.folder)
    for _attempt in range(ATTEMPTS):
        try:
            return _import_once(services, call, request)
        except (_Moved, Conflict):
            continue
    raise Conflict("mailbox_busy", f"the mailbox {request.upn} changed {ATTEMPTS} times while items came in", "try again")


def import_large(services: Services, call: Call, request: t.ImportLarge, upload: Upload) -> ImportResult:
    """Take in one item of any size up to the limit, with flat memory."""
    if upload.size > services.settings.max_item_bytes:
        limit = services.settings.max_item_bytes
        raise InvalidRequest(
            "item_too_large",
            f"item {request.position} has {upload.size} bytes; at most {limit} are taken",
            "the setting max_item_bytes decides",
        )
    _check_folder(request.folder)
    target = _open_target(services, call, request.upn)
    stored = _store_large(services, target, request, upload)
    try:
        with services.db.write() as tx:
            result = _commit(services, tx, call, target, [stored], [])
    except (_Moved, Conflict) as error:
        services.objects.delete(stored.item.object_ref)
        raise Conflict("mailbox_busy", f"the mailbox {request.upn} changed while the item came in", "send it again") from error
    if not result.imported:
        services.objects.delete(stored.item.object_ref)
    return result


@dataclass(frozen=True, slots=True)
class _Stored:
    """An item as it will be committed, and the hashes it may be known by."""

    item: Item
    hashes: tuple[bytes, ...]
    folder: str
    position: int
    malformed: str | None
    object: StoredObject | None


def _open_target(services: Services, call: Call, upn: str) -> _Target:
    with services.db.read() as tx:
        mailbox = find_mailbox(tx, call, upn)
        require_owner_or(call, mailbox, ADMINS, tx)
        wrapped = tx.mailboxes.keys(mailbox.id)
        folders = {folder.name_hash: folder for folder in tx.mailboxes.folders(mailbox.id)}
    opened = services.keyring.open(mailbox.policy_id, Operation.SYSTEM, request_id=call.request_id)
    keys = {key.version: opened.mailbox_keys(mailbox.id, key.version, key.wrapped) for key in wrapped}
    current = key_of(keys, mailbox.key_version, f"mailbox {mailbox.upn}")
    return _Target(mailbox, current, tuple(keys[version] for version in sorted(keys, reverse=True)), folders)


def _import_once(services: Services, call: Call, request: t.ImportBatch) -> ImportResult:
    target = _open_target(services, call, request.upn)
    digests = [hashlib.sha256(item.data).digest() for item in request.items]
    hashes = [
        tuple(content_hash(keys, digest, item.ordinal) for keys in target.live) for item, digest in zip(request.items, digests, strict=True)
    ]
    with services.db.read() as tx:
        known = tx.mailboxes.known_hashes(target.mailbox.id, [value for values in hashes for value in values])
    stored: list[_Stored] = []
    objects: list[StoredObject] = []
    packing = _Packing(services, target.mailbox, target.keys)
    for item, digest, values in zip(request.items, digests, hashes, strict=True):
        if known.isdisjoint(values):
            known.update(values)
            summary = summarise(item.data[:HEADER_BYTES], ics=item.ics)
            stored.append(packing.add(item, digest, values, summary, objects))
    packing.finish(objects)
    services.checkpoint("import: objects stored")
    try:
        with services.db.write() as tx:
            result = _commit(services, tx, call, target, stored, objects)
    except (_Moved, Conflict, NotFound):
        # Raised before the commit, so no row names these objects. After anything else (the database gone, the process interrupted) the
        # commit may have been stored all the same: the objects stay, and `collect-orphans` finds out.
        for written in objects:
            services.objects.delete(written.ref)
        raise
    present = len(request.items) - len(stored)
    return ImportResult(imported=result.imported, already_present=present + result.already_present, malformed=result.malformed)


class _Packing:
    """Fills packs with items and stores each when it is full."""

    def __init__(self, services: Services, mailbox: Mailbox, keys: MailboxKeys) -> None:
        self._services = services
        self._now = services.clock.now()
        self._mailbox = mailbox
        self._keys = keys
        self._writer: PackWriter | None = None
        self._ref = ""
        self._count = 0

    def add(self, item: t.ImportItem, digest: bytes, hashes: tuple[bytes, ...], summary: Summary, objects: list[StoredObject]) -> _Stored:
        """Seal one item into the pack under way."""
        if self._writer is not None and not self._writer.fits(len(item.data)):
            self._store(objects)
        if self._writer is None:
            mailbox = self._mailbox
            self._ref = self._services.objects.new_ref(self._services.random)
            self._writer = PackWriter(
                _tools.pack,
                self._keys.seal,
                tenant_id=mailbox.tenant_id,
                key_id=mailbox.id,
                key_version=mailbox.key_version,
                random=self._services.random,
            )
        item_id = ordered_id(self._services.random, self._now)
        context = item_context(self._mailbox.tenant_id, item_id)
        entry = self._writer.add(item_id, item.data, context=context, compressor=_tools.compressor)
        self._count += 1
        row = _row(
            self._services,
            self._mailbox,
            self._keys,
            item_id,
            summary,
            digest,
            item.ordinal,
            len(item.data),
            hashes[0],
            (self._ref, entry.offset, entry.length, 1),
        )
        return _Stored(row, hashes, item.folder, item.position, item.malformed or summary.malformed, None)

    def finish(self, objects: list[StoredObject]) -> None:
        """Store the last pack."""
        if self._writer is not None:
            self._store(objects)

    def _store(self, objects: list[StoredObject]) -> None:
        assert self._writer is not None
        pack = self._writer.finish(pack_id(self._ref))
        size = self._services.objects.put(self._ref, [pack])
        objects.append(StoredObject(self._ref, self._mailbox.id, self._mailbox.key_version, size, self._count, large=False))
        self._writer, self._count = None, 0


def _store_large(services: Services, target: _Target, request: t.ImportLarge, upload: Upload) -> _Stored:
    """Seal an item part by part into an object of its own."""
    mailbox, ref = target.mailbox, services.objects.new_ref(services.random)
    item_id = ordered_id(services.random, services.clock.now())
    parts = part_count(upload.size)
    digest = hashlib.sha256()
    first = b""
    buffer = memoryview(bytearray(PART_BYTES + OVERHEAD_BYTES))

    def sealed() -> Iterator[memoryview]:
        nonlocal first
        for index in range(parts):
            data = _read_exactly(upload, part_bytes(upload.size, index), request.position)
            digest.update(data)
            if not index:
                first = data[:HEADER_BYTES]
            size = seal_into(
                buffer,
                target.keys.seal,
                data,
                key_id=mailbox.id,
                key_version=mailbox.key_version,
                context=item_context(mailbox.tenant_id, item_id, index, parts),
                nonce=services.random(12),
            )
            yield buffer[:size]

    size = services.objects.put(ref, sealed())
    summary = summarise(first, ics=request.ics)
    hashes = tuple(content_hash(keys, digest.digest(), request.ordinal) for keys in target.live)
    row = _row(
        services, mailbox, target.keys, item_id, summary, digest.digest(), request.ordinal, upload.size, hashes[0], (ref, 0, size, parts)
    )
    return _Stored(
        row,
        hashes,
        request.folder,
        request.position,
        request.malformed or summary.malformed,
        StoredObject(ref, mailbox.id, mailbox.key_version, size, 1, large=True),
    )


def _read_exactly(upload: Upload, length: int, position: int) -> bytes:
    pieces: list[bytes] = []
    left = length
    while left:
        piece = upload.read(left)
        if not piece:
            raise InvalidRequest("upload_cut_off", f"item {position} ended before its stated size", "send it again")
        pieces.append(piece)
        left -= len(piece)
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def _row(
    services: Services,
    mailbox: Mailbox,
    keys: MailboxKeys,
    item_id: str,
    summary: Summary,
    digest: bytes,
    ordinal: int,
    size: int,
    known_by: bytes,
    place: tuple[str, int, int, int],
) -> Item:
    sealed = seal_summary(
        services, mailbox, keys, mailbox.key_version, item_id, ItemSummary(summary.subject, summary.sender, digest.hex(), ordinal)
    )
    received = summary.received if summary.received is not None else services.clock.now()
    return Item(item_id, mailbox.id, "", str(summary.kind), received, size, mailbox.key_version, known_by, sealed, *place)


def _commit(
    services: Services, tx: Tx, call: Call, target: _Target, stored: Sequence[_Stored], objects: Sequence[StoredObject]
) -> ImportResult:
    """The one transaction of an import. Another import or a move may have come between: then nothing is written."""
    mailbox = tx.mailboxes.by_id(call.tenant_id, target.mailbox.id)
    if mailbox is None:
        raise NotFound("mailbox_not_found", f"the mailbox {target.mailbox.upn} was deleted meanwhile", "")
    if (mailbox.key_version, mailbox.policy_id) != (target.mailbox.key_version, target.mailbox.policy_id):
        raise _Moved
    known = tx.mailboxes.known_hashes(mailbox.id, [value for one in stored for value in one.hashes])
    new = [one for one in stored if known.isdisjoint(one.hashes)]
    folder_ids = {name: _folder_id(services, tx, target, name or DEFAULT_FOLDER) for name in dict.fromkeys(one.folder for one in new)}
    tx.objects.insert([*objects, *(one.object for one in new if one.object is not None)])
    tx.mailboxes.insert_items([replace(one.item, folder_id=folder_ids[one.folder]) for one in new])
    if len(new) < len(stored):
        for written in objects:  # another import was first with everything in it
            tx.mailboxes.retire_object_if_empty(written.ref, services.clock.now())
    tx.mailboxes.add_counts(mailbox.id, len(new), sum(one.item.size for one in new))
    record(
        services,
        tx,
        call,
        mailbox.id,
        (
            ("Mailbox", mailbox.upn),
            ("Imported", str(len(new))),
            ("AlreadyPresent", str(len(stored) - len(new))),
            ("Bytes", str(sum(one.item.size for one in new))),
        ),
    )
    malformed = [MalformedItem(position=one.position, reason=one.malformed, item_id=one.item.id) for one in new if one.malformed]
    return ImportResult(imported=len(new), already_present=len(stored) - len(new), malformed=malformed)


def _folder_id(services: Services, tx: Tx, target: _Target, name: str) -> str:
    """The folder of a name; made where the mailbox has none."""
    hashes = [folder_hash(keys, name) for keys in target.live]
    present = {folder.name_hash: folder for folder in tx.mailboxes.folders(target.mailbox.id)}
    for value in hashes:
        if value in present:
            return present[value].id
    folder = sealed_folder(services, target.mailbox, target.keys, target.mailbox.key_version, new_id(services.random), name)
    tx.mailboxes.insert_folder(folder)
    return folder.id


def _check_folder(name: str) -> None:
    if len(name) > MAX_FOLDER or "\0" in name or _SURROGATE.search(name):
        raise InvalidRequest(
            "folder_name_invalid",
            f"a folder name has more than {MAX_FOLDER} characters, a NUL or half a surrogate pair",
            "use a shorter name of whole characters",
        )


# -- sealing what lies beside items, also for moves -----------------------------------------------------------------------------------


def seal_summary(services: Services, mailbox: Mailbox, keys: MailboxKeys, version: int, item_id: str, summary: ItemSummary) -> bytes:
    """Seal what is listed of an item."""
    context = summary_context(mailbox.tenant_id, item_id)
    return seal(keys.seal, encode_summary(summary), key_id=mailbox.id, key_version=version, context=context, nonce=services.random(12))


def open_summary(tenant_id: str, keys: MailboxKeys, item: Item) -> ItemSummary:
    """Open what is listed of an item.

    Raises:
        IntegrityFailure: it is not what was written.
    """
    name = f"summary of item {item.id}"
    data = open_object(
        keys.seal,
        item.summary,
        key_id=item.mailbox_id,
        key_version=item.key_version,
        context=summary_context(tenant_id, item.id),
        object_name=name,
    )
    return decode_summary(data, object_name=name)


def sealed_folder(services: Services, mailbox: Mailbox, keys: MailboxKeys, version: int, folder_id: str, name: str) -> Folder:
    """A folder row under one version of the mailbox key."""
    context = folder_context(mailbox.tenant_id, folder_id)
    sealed = seal(keys.seal, name.encode(), key_id=mailbox.id, key_version=version, context=context, nonce=services.random(12))
    return Folder(folder_id, mailbox.id, version, folder_hash(keys, name), sealed)


def open_folder(tenant_id: str, keys: MailboxKeys, folder: Folder) -> str:
    """A folder's name.

    Raises:
        IntegrityFailure: it is not what was written.
    """
    name = f"name of folder {folder.id}"
    data = open_object(
        keys.seal,
        folder.sealed_name,
        key_id=folder.mailbox_id,
        key_version=folder.key_version,
        context=folder_context(tenant_id, folder.id),
        object_name=name,
    )
    return decode_folder_name(data, object_name=name)


def stored_box(services: Services, item: Item, offset: int, length: int, what: str) -> bytes:
    """Sealed bytes of an item as the object store has them; `what` names the item or its part in errors.

    Raises:
        IntegrityFailure: the object ends before.
        NotFound: the object is not there.
    """
    try:
        return services.objects.get(item.object_ref, offset, length)
    except IntegrityFailure as error:
        raise IntegrityFailure(error.code, f"{what} is not whole: {error.detail}", error.mend) from error


def open_item(services: Services, tenant_id: str, keys: MailboxKeys, item: Item) -> bytes:
    """The bytes of an item that lies in a pack.

    Raises:
        IntegrityFailure: not what was written; never other data.
        NotFound: the object is not there.
    """
    box = stored_box(services, item, item.offset, item.length, f"item {item.id}")
    return open_object(
        keys.seal,
        box,
        key_id=item.mailbox_id,
        key_version=item.key_version,
        context=item_context(tenant_id, item.id),
        object_name=f"item {item.id}",
        decompressor=_tools.decompressor,
    )


def open_part(services: Services, tenant_id: str, keys: MailboxKeys, item: Item, index: int) -> bytes:
    """One part of a large item. Raises: as `open_item`."""
    offset, length = part_box(item.size, index)
    return open_object(
        keys.seal,
        stored_box(services, item, offset, length, f"part {index} of item {item.id}"),
        key_id=item.mailbox_id,
        key_version=item.key_version,
        context=item_context(tenant_id, item.id, index, item.parts),
        object_name=f"part {index} of item {item.id}",
    )


# -- giving out ---------------------------------------------------------------------------------------------------------------------


def read_item(services: Services, call: Call, request: t.NameItem) -> Content:
    """The bytes of an item as they came, for its owner and those the owner let in (R-141 to R-145)."""
    for _attempt in range(ATTEMPTS):
        with services.db.read() as tx:
            place = tx.mailboxes.place(call.tenant_id, request.upn.lower(), request.item)
            if place is None:
                _nothing_there(tx, call, request)
            state = tx.policies.state(place.mailbox.policy_id)
            owner = require_owner_or(call, place.mailbox, frozenset(), tx)
        opened = services.keyring.open(place.mailbox.policy_id, Operation.USER, request_id=call.request_id, state=state)
        keys = _keys_of(opened, place)
        if not owner or services.settings.record_owner_reads:
            _record_access(services, call, place.mailbox, place.item.id)
        media_type = MEDIA_TYPES[place.item.kind]
        if stands_alone(place.item.size, place.item.parts):
            return Content(place.item.size, media_type, _parts(services, call, opened, place, keys))
        try:
            data = open_item(services, call.tenant_id, keys, place.item)
        except NotFound:
            continue  # a move put the item elsewhere between the query and the read: look again
        return Content(len(data), media_type, iter((data,)))
    raise IntegrityFailure("object_missing", f"the object of item {request.item} is missing", "restore the object store from a backup")


def _parts(services: Services, call: Call, opened: OpenPolicy, place: ItemPlace, keys: MailboxKeys) -> Iterator[bytes]:
    """The parts of a large item; before each, whether the key may still be used (design section 5)."""
    current = opened
    for index in range(place.item.parts):
        checked = services.keyring.recheck(current, Operation.USER, request_id=call.request_id)
        if checked is not current:
            current, keys = checked, _keys_of(checked, place)
        try:
            yield open_part(services, call.tenant_id, keys, place.item, index)
        except NotFound as error:
            raise IntegrityFailure(
                "object_missing", f"part {index} of item {place.item.id} is missing", "restore the object store from a backup"
            ) from error


def list_items(services: Services, call: Call, request: t.ListItems) -> list[ItemView]:
    """Items of a mailbox, newest first. Subjects, senders and folder names are content: they are opened here, for the owner."""
    with services.db.read() as tx:
        mailbox = find_mailbox(tx, call, request.upn)
        owner = require_owner_or(call, mailbox, frozenset(), tx)
        page = tx.mailboxes.items(mailbox.id, after=request.after, limit=request.limit)
        folders = {folder.id: folder for folder in tx.mailboxes.folders(mailbox.id)}
        wrapped = tx.mailboxes.keys(mailbox.id)
    opened = services.keyring.open(mailbox.policy_id, Operation.USER, request_id=call.request_id)
    keys = _all_keys(opened, mailbox, wrapped)
    if not owner:
        _record_access(services, call, mailbox, mailbox.id)
    names: dict[str, str] = {}
    views = []
    for item in page:
        if item.folder_id not in names:
            folder = folders.get(item.folder_id)
            names[item.folder_id] = (
                open_folder(call.tenant_id, key_of(keys, folder.key_version, f"folder {folder.id}"), folder) if folder else ""
            )
        summary = open_summary(call.tenant_id, key_of(keys, item.key_version, f"item {item.id}"), item)
        views.append(
            ItemView(
                id=item.id,
                kind=item.kind,
                folder=names[item.folder_id],
                subject=summary.subject,
                sender=summary.sender,
                received=utc(item.received),
                size_bytes=item.size,
            )
        )
    return views


def search(services: Services, call: Call, request: t.Search) -> list[Hit]:
    """Which items contain a text, case ignored: ids, never content (R-259).

    A system operation: it goes on while the service has its permissions, or the availability key. The text is stored nowhere.
    `after` names the last mailbox a previous call was done with.
    """
    hits: list[Hit] = []
    for mailbox in _searched(services, call, request):
        with services.db.write() as tx:
            record(services, tx, call, mailbox.id, (("SourceMailbox", mailbox.upn), ("SearchQuery", "(not stored)")))
        hits += _search_mailbox(services, call, mailbox, request.text, request.limit - len(hits))
        if len(hits) >= request.limit:
            break
    return hits


def _searched(services: Services, call: Call, request: t.Search) -> Iterator[Mailbox]:
    if request.upn:
        with services.db.read() as tx:
            mailbox = find_mailbox(tx, call, request.upn)
            require_owner_or(call, mailbox, SEARCHERS, tx)
        yield mailbox
        return
    _require_searcher(call)
    after = request.after.lower()
    while True:
        with services.db.read() as tx:
            page = tx.mailboxes.page(call.tenant_id, after=after, limit=200)
        if not page:
            return
        yield from page
        after = page[-1].upn


def _require_searcher(call: Call) -> None:
    """Searching other people's mailboxes takes a role.

    Raises:
        Forbidden: the caller has none of them.
    """
    if call.principal.roles.isdisjoint(SEARCHERS):
        raise Forbidden(
            "role_missing", f"{call.principal.upn} may search their own mailbox only", "name it, or ask a compliance administrator"
        )


def _search_mailbox(services: Services, call: Call, mailbox: Mailbox, text: str, limit: int) -> list[Hit]:
    """The newest hits of one mailbox, which is read a page at a time."""
    hits: list[Hit] = []
    for page, wrapped in pages(services, mailbox.id):
        hits += _search_page(services, call, mailbox, page, wrapped, text, limit - len(hits))
        if len(hits) >= limit:
            break
    return hits


def pages(services: Services, mailbox_id: str) -> Iterator[tuple[list[Item], list[MailboxKey]]]:
    """All items of a mailbox, newest first, a page at a time, each with the wrapped keys of its moment.

    The mailbox may hold a million items, and items may be deleted or moved meanwhile: the next page begins behind a place, not an item.
    """
    than: tuple[int, str] | None = None
    while True:
        with services.db.read() as tx:
            wrapped = tx.mailboxes.keys(mailbox_id)
            page = tx.mailboxes.older_items(mailbox_id, than, PAGE)
        if not page:
            return
        yield page, wrapped
        than = page[-1].received, page[-1].id


def _search_page(
    services: Services, call: Call, mailbox: Mailbox, page: Sequence[Item], wrapped: Sequence[MailboxKey], text: str, limit: int
) -> list[Hit]:
    hits: list[Hit] = []
    opened = services.keyring.open(mailbox.policy_id, Operation.SYSTEM, request_id=call.request_id)
    keys = _all_keys(opened, mailbox, wrapped)
    for item in page:
        checked = services.keyring.recheck(opened, Operation.SYSTEM, request_id=call.request_id)
        if checked is not opened:  # a search takes long: what was opened at its start may have to be asked for again (design section 5)
            opened, keys = checked, _all_keys(checked, mailbox, wrapped)
        try:
            data = _whole(services, call.tenant_id, key_of(keys, item.key_version, f"item {item.id}"), item)
        except NotFound:
            continue  # moved or deleted since the list was read; a search tells what it could see
        if matches(data, text):
            hits.append(
                Hit(
                    mailbox=mailbox.upn,
                    item_id=item.id,
                    kind=item.kind,
                    folder_id=item.folder_id,
                    size_bytes=item.size,
                    received=utc(item.received),
                )
            )
            if len(hits) >= limit:
                break
    return hits


def _whole(services: Services, tenant_id: str, keys: MailboxKeys, item: Item) -> bytes:
    if stands_alone(item.size, item.parts):
        return b"".join(open_part(services, tenant_id, keys, item, index) for index in range(item.parts))
    return open_item(services, tenant_id, keys, item)


def delete_item(services: Services, call: Call, request: t.NameItem) -> Done:
    """Delete an item; its object goes when nothing else lies in it."""
    with services.db.write() as tx:
        mailbox = find_mailbox(tx, call, request.upn)
        require_owner_or(call, mailbox, frozenset(), tx)
        item = tx.mailboxes.delete_item(mailbox.id, request.item)
        if item is None:
            _nothing_there(tx, call, request)
        tx.mailboxes.add_counts(mailbox.id, -1, -item.size)
        tx.mailboxes.retire_object_if_empty(item.object_ref, services.clock.now() + services.settings.object_grace)
        record(services, tx, call, item.id, (("Mailbox", mailbox.upn),))
    return Done(id=request.item)


# -- helpers ------------------------------------------------------------------------------------------------------------------------


def _keys_of(opened: OpenPolicy, place: ItemPlace) -> MailboxKeys:
    if place.wrapped_key is None:
        return key_of({}, place.item.key_version, f"item {place.item.id}")
    return opened.mailbox_keys(place.mailbox.id, place.item.key_version, place.wrapped_key)


def key_of(keys: dict[int, MailboxKeys], version: int, what: str) -> MailboxKeys:
    """The opened key of a version that a row names.

    Raises:
        IntegrityFailure: the key's row is gone, or there never was such a version; `what` names the thing that lies under it.
    """
    found = keys.get(version)
    if found is None:
        raise IntegrityFailure(
            "mailbox_key_missing", f"the mailbox key of {what} is missing (version {version})", "restore the database from a backup"
        )
    return found


def _all_keys(opened: OpenPolicy, mailbox: Mailbox, wrapped: Sequence[MailboxKey]) -> dict[int, MailboxKeys]:
    return {key.version: opened.mailbox_keys(mailbox.id, key.version, key.wrapped) for key in wrapped}


def _nothing_there(tx: Tx, call: Call, request: t.NameItem) -> NoReturn:
    """Say which of the two is missing; who may not open the mailbox learns nothing about its items."""
    mailbox = find_mailbox(tx, call, request.upn)
    require_owner_or(call, mailbox, frozenset(), tx)
    raise NotFound("item_not_found", f"the mailbox {mailbox.upn} has no item {request.item}", "keystead mailbox items lists them")


def _record_access(services: Services, call: Call, mailbox: Mailbox, object_id: str) -> None:
    with services.db.write() as tx:
        record(services, tx, call, object_id, (("Mailbox", mailbox.upn),))
