"""Writing a mailbox to a folder: one file for each item, with its original bytes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from keystead.api.types.mailboxes import ListItems, MailboxStatistics, NameItem, NameMailbox
from keystead.client.local_files import prepare, write_file
from keystead.core.errors import IntegrityFailure
from keystead.core.ids import is_id

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from keystead.api.call import Content
    from keystead.api.types.mailboxes import ItemView
    from keystead.client.client import Client

PAGE = 500


class ExportResult(msgspec.Struct, frozen=True):
    """What was written."""

    upn: str
    output: str
    exported: int
    size_bytes: int


def export_items(
    client: Client, upn: str, folder: Path, *, overwrite: bool = False, on_progress: Callable[[float], None] | None = None
) -> ExportResult:
    """Write every item of a mailbox to FOLDER/ITEM-ID.eml. Memory stays flat: a page of the list, and one chunk of one item.

    Args:
        client: calls as the owner of the mailbox, or as whom the owner let in.
        upn: the mailbox.
        folder: made where it does not exist; its files are for their owner alone.
        overwrite: whether the folder may hold files already; those of the same items are replaced.
        on_progress: told the percentage done, 0 to 100.

    Raises:
        Conflict: `folder_not_empty`.
        InvalidRequest: `file_unwritable`.
        KeysteadError: what the service answered; items written before stay.
    """
    statistics: MailboxStatistics = client.call("mailbox.statistics", NameMailbox(upn=upn))
    prepare(folder, overwrite=overwrite)
    exported = size = 0
    after = ""
    while True:
        page: list[ItemView] = client.call("mailbox.items", ListItems(upn=upn, after=after, limit=PAGE))
        if not page:
            return ExportResult(upn=upn, output=str(folder), exported=exported, size_bytes=size)
        for item in page:
            if not is_id(item.id):
                # The name becomes a file name: whatever the other side sends, it must not lead out of the folder.
                raise IntegrityFailure(
                    "item_id_invalid", f"the service named an item {item.id!r}, which is no id", "do not trust this server"
                )
            content: Content = client.call("mailbox.read", NameItem(upn=upn, item=item.id))
            write_file(folder / f"{item.id}.eml", content.chunks)
            exported += 1
            size += content.size
            if on_progress is not None:
                on_progress(min(100.0, 100.0 * exported / max(1, statistics.item_count)))
        after = page[-1].id
