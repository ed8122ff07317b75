"""Taking a source of mail into a mailbox: the loop that the command line, the demo and the benchmarks share.

Importing the same source again adds nothing, and two equal messages in one source are two items: each item is sent with its *ordinal*,
which of several equal items of the source it is. So the loop must count equal items, over sources of any size in flat memory: the counts
lie in a private temporary SQLite database, which is in memory until it outgrows a small cache, has no name on the disk, and vanishes
with the process. It holds hashes salted for this one import, never content.
"""

from __future__ import annotations

import hashlib
import os
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

from keystead.api.call import Upload
from keystead.api.types.mailboxes import ImportBatch, ImportItem, ImportLarge, ImportResult, RefusedItem
from keystead.core.errors import InvalidRequest
from keystead.core.formats.mailbox_items import SMALL_ITEM

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from keystead.api.types.mailboxes import MalformedItem
    from keystead.client.client import Client
    from keystead.client.sources import Source, SourceItem

BATCH_BYTES = 7 * 1024 * 1024
BATCH_ITEMS = 2_000
PIECE = 1024 * 1024
"""How much of a large item is read at a time."""
DIGEST_BYTES = 16
SALT_BYTES = 32
CACHE_KIB = 16 * 1024
TOO_LARGE = "item_too_large"
"""What the service says of an item over its limit: no reason to leave out the others."""


def import_source(client: Client, upn: str, source: Source, on_progress: Callable[[float], None] | None = None) -> ImportResult:
    """Import every item of a source. Items are durable when they are counted; after an error the import can simply be run again.

    Args:
        client: calls as somebody who may import into the mailbox.
        upn: the mailbox.
        source: what `open_source` found.
        on_progress: told how many bytes are taken in, after each batch.

    Returns:
        How many were imported, how many were there already, and by position: the malformed ones, which are kept byte for byte like any
        other, and those refused because they are larger than the service takes.

    Raises:
        InvalidRequest: the source changed or cannot be read.
        KeysteadError: what the service answered.
    """
    with closing(_Ordinals()) as ordinals:
        run = _Run(client, upn, on_progress)
        for item in source:
            if item.length > SMALL_ITEM:
                run.send_large(item, ordinals.next_of(_pieces(item)))
            else:
                data = item.read(0, item.length)
                run.add(item, data, ordinals.next_of((data,)))
        run.flush()
    return ImportResult(
        imported=run.imported,
        already_present=run.already_present,
        malformed=sorted(run.malformed, key=lambda one: one.position),
        refused=run.refused,
    )


class _Ordinals:
    """Counts equal items; flat in memory."""

    def __init__(self) -> None:
        self._salt = os.urandom(SALT_BYTES)
        # The empty name makes a private database of SQLite's own, removed when it is closed or its process dies.
        self._counts = sqlite3.connect("", isolation_level=None)
        for statement in (
            "PRAGMA journal_mode = OFF",
            "PRAGMA synchronous = OFF",
            f"PRAGMA cache_size = -{CACHE_KIB}",
            "CREATE TABLE seen (digest BLOB PRIMARY KEY, times INTEGER NOT NULL) WITHOUT ROWID",
            "BEGIN",
        ):
            self._counts.execute(statement)

    def next_of(self, pieces: Iterator[bytes] | tuple[bytes, ...]) -> int:
        """1 for the first item of its bytes, 2 for the next that is equal, and so on."""
        digest = hashlib.sha256(self._salt)
        for piece in pieces:
            digest.update(piece)
        row: tuple[int] = self._counts.execute(
            "INSERT INTO seen VALUES (?, 1) ON CONFLICT (digest) DO UPDATE SET times = times + 1 RETURNING times",
            (digest.digest()[:DIGEST_BYTES],),
        ).fetchone()
        return row[0]

    def close(self) -> None:
        self._counts.close()


class _Run:
    """One import under way."""

    def __init__(self, client: Client, upn: str, on_progress: Callable[[float], None] | None) -> None:
        self.imported = 0
        self.already_present = 0
        self.malformed: list[MalformedItem] = []
        self.refused: list[RefusedItem] = []
        self._client = client
        self._upn = upn
        self._on_progress = on_progress
        self._batch: list[ImportItem] = []
        self._batch_bytes = 0
        self._done_bytes = 0

    def add(self, item: SourceItem, data: bytes, ordinal: int) -> None:
        """Put a small item into the batch, which is sent when it is full."""
        if self._batch_bytes + len(data) > BATCH_BYTES or len(self._batch) == BATCH_ITEMS:
            self.flush()
        self._batch.append(
            ImportItem(position=item.position, ordinal=ordinal, folder=item.folder, data=data, ics=item.ics, malformed=item.malformed or "")
        )
        self._batch_bytes += len(data)

    def flush(self) -> None:
        """Send what is in the batch."""
        if self._batch:
            result: ImportResult = self._client.call("mailbox.import", ImportBatch(upn=self._upn, items=self._batch))
            size, self._batch, self._batch_bytes = self._batch_bytes, [], 0
            self._count(result, size)

    def send_large(self, item: SourceItem, ordinal: int) -> None:
        """Send one item by itself, a piece at a time."""
        request = ImportLarge(
            upn=self._upn, position=item.position, ordinal=ordinal, folder=item.folder, ics=item.ics, malformed=item.malformed or ""
        )
        try:
            result: ImportResult = self._client.call("mailbox.import-item", request, upload=Upload(item.length, _reader(item)))
        except InvalidRequest as error:
            if error.code != TOO_LARGE:
                raise
            self.refused.append(RefusedItem(position=item.position, reason=error.code))
            return
        self._count(result, item.length)

    def _count(self, result: ImportResult, size: int) -> None:
        self.imported += result.imported
        self.already_present += result.already_present
        self.malformed += result.malformed
        self._done_bytes += size
        if self._on_progress is not None:
            self._on_progress(self._done_bytes)


def _pieces(item: SourceItem) -> Iterator[bytes]:
    for offset in range(0, item.length, PIECE):
        yield item.read(offset, PIECE)


def _reader(item: SourceItem) -> Callable[[int], bytes]:
    """Reads an item from its beginning to its end."""
    position = 0

    def read(n: int) -> bytes:
        nonlocal position
        data = item.read(position, n)
        position += len(data)
        return data

    return read
