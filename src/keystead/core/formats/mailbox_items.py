"""What a mailbox holds, byte for byte: contexts, keyed hashes, summaries, and where the parts of a large item lie (docs/spec/mailbox.md).

The boxes themselves are sealed objects and packs under the mailbox key; this module says what is in them and what they are bound to.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from json import JSONEncoder, loads
from typing import TYPE_CHECKING, NoReturn

from keystead.core.errors import IntegrityFailure
from keystead.core.formats.context import Context, key_context, object_context
from keystead.core.formats.key_ref import MAX_U32
from keystead.core.formats.sealed_object import OVERHEAD_BYTES
from keystead.core.keys.hierarchy import keyed_hash

if TYPE_CHECKING:
    from keystead.core.keys.hierarchy import MailboxKeys

SMALL_ITEM = 1024 * 1024
"""Items up to 1 MiB lie in packs, larger ones stand alone (design section 4)."""
PART_BYTES = 4 * 1024 * 1024
"""Plaintext of one part of an item that stands alone; parts are not compressed, so that each lies at a known place."""

MAILBOX_KEY = "mailbox-key"
ITEM = "item"
SUMMARY = "item-summary"
FOLDER_NAME = "folder-name"
"""Kinds of contexts."""
BY_CONTENT = "item-content"
BY_FOLDER = "folder-name"
"""Purposes of keyed hashes."""

_DIGEST = re.compile(r"[0-9a-f]{64}")
_text = JSONEncoder(ensure_ascii=False).encode


@dataclass(frozen=True, slots=True)
class ItemSummary:
    """What is sealed beside an item: for listings, and so that a move can hash again without reading the item.

    Attributes:
        subject: as listed, at most 998 characters.
        sender: as listed, at most 998 characters.
        sha256: of the item's bytes, 64 hexadecimal digits in lower case.
        ordinal: which of several equal items this is, a u32.
    """

    subject: str
    sender: str
    sha256: str
    ordinal: int


# -- contexts -----------------------------------------------------------------------------------------------------------------------


def key_name(mailbox_id: str, version: int) -> str:
    """How contexts name one version of a mailbox key."""
    return f"{mailbox_id}/{version}"


def mailbox_key_context(tenant_id: str, mailbox_id: str, version: int, policy_id: str, policy_key_version: int) -> Context:
    """For one version of a mailbox key, wrapped by a policy key."""
    return key_context(tenant_id, MAILBOX_KEY, key_name(mailbox_id, version), policy_id, policy_key_version)


def item_context(tenant_id: str, item_id: str, part: int = 0, parts: int = 1) -> Context:
    """For an item, or one of the parts of an item that stands alone."""
    return object_context(tenant_id, ITEM, item_id, part, last=part == parts - 1)


def summary_context(tenant_id: str, item_id: str) -> Context:
    """For what is listed of an item."""
    return object_context(tenant_id, SUMMARY, item_id, 0, last=True)


def folder_context(tenant_id: str, folder_id: str) -> Context:
    """For a folder's name."""
    return object_context(tenant_id, FOLDER_NAME, folder_id, 0, last=True)


# -- what things are found by ---------------------------------------------------------------------------------------------------------


def content_hash(keys: MailboxKeys, digest: bytes, ordinal: int) -> bytes:
    """What an item is recognised by when it comes again: a keyed hash, worth nothing without the mailbox key.

    Args:
        keys: of the version the item is sealed under.
        digest: SHA-256 of the item's bytes.
        ordinal: which of several equal items this is, a u32.

    Returns:
        32 bytes.
    """
    return keyed_hash(keys.lookup, BY_CONTENT, digest + ordinal.to_bytes(4, "big"))


def folder_hash(keys: MailboxKeys, name: str) -> bytes:
    """What a folder is found by: 32 bytes."""
    return keyed_hash(keys.lookup, BY_FOLDER, name.encode())


def pack_id(ref: str) -> str:
    """The id a pack's index is bound to: the random name of its object, 32 hexadecimal digits, written as a UUID."""
    name = ref.rpartition("/")[2]
    return f"{name[:8]}-{name[8:12]}-{name[12:16]}-{name[16:20]}-{name[20:]}"


# -- items that stand alone -----------------------------------------------------------------------------------------------------------


def stands_alone(size: int, parts: int) -> bool:
    """Whether an item of that many bytes and parts has an object of its own, rather than a place in a pack."""
    return parts > 1 or size > SMALL_ITEM


def part_count(size: int) -> int:
    """Of how many parts an item of that many bytes is made when it stands alone: one even if it is empty."""
    return max(1, -(-size // PART_BYTES))


def part_bytes(size: int, index: int) -> int:
    """Plaintext bytes of one part of an item."""
    return min(PART_BYTES, size - index * PART_BYTES)


def part_box(size: int, index: int) -> tuple[int, int]:
    """Where a part of an item lies in its object: offset and length in bytes."""
    return index * (PART_BYTES + OVERHEAD_BYTES), part_bytes(size, index) + OVERHEAD_BYTES


# -- what the boxes hold --------------------------------------------------------------------------------------------------------------


def encode_summary(summary: ItemSummary) -> bytes:
    """The one encoding of a summary: a JSON object (RFC 8259) in UTF-8 without spaces, fields in this order.

    Put together by hand, since it is made for every item of an import; the texts are escaped by the JSON library.
    """
    return (
        f'{{"subject":{_text(summary.subject)},"sender":{_text(summary.sender)},"sha256":"{summary.sha256}","ordinal":{summary.ordinal:d}}}'
    ).encode()


def decode_summary(data: bytes, *, object_name: str) -> ItemSummary:
    """The summary that `encode_summary` turns into exactly these bytes.

    Args:
        data: an opened box.
        object_name: how an error names it.

    Raises:
        IntegrityFailure: `object_damaged`: sealed by a holder of the key, but no summary.
    """
    try:
        fields = loads(data)
        if not isinstance(fields, dict) or [type(value) for value in fields.values()] != [str, str, str, int]:
            _refuse(object_name)
        summary = ItemSummary(**fields)
        exact = encode_summary(summary) == data
    except (ValueError, TypeError, RecursionError):  # no JSON, other fields, nested without end, half a surrogate pair
        _refuse(object_name)
    if not exact or not _DIGEST.fullmatch(summary.sha256) or not 0 <= summary.ordinal <= MAX_U32:
        _refuse(object_name)
    return summary


def decode_folder_name(data: bytes, *, object_name: str) -> str:
    """A folder's name: UTF-8, not normalised.

    Raises:
        IntegrityFailure: `object_damaged`: sealed by a holder of the key, but no text.
    """
    try:
        return data.decode()
    except UnicodeDecodeError:
        _refuse(object_name)


def _refuse(object_name: str) -> NoReturn:
    raise IntegrityFailure(
        "object_damaged",
        f"the object {object_name} does not open under the key and place it belongs to",
        "no other data was returned in its place; restore it from a backup",
    ) from None
