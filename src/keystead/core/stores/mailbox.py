"""Mailboxes and their items: what is stored about them, and the states of a move.

A mailbox lies under exactly one policy at any time: a customer's, or the provider's default (R-087, R-252). Its items are sealed under
*mailbox keys*, one at rest and two during a move, each wrapped by the key of the policy. A change of hierarchy has two halves:

1. re-wrap: every mailbox key is wrapped by the new policy's key; content is not touched (R-089). From then on the new policy's keys decide.
2. move: a fresh mailbox key is made, content is re-encrypted under it, the old key is destroyed (R-088). Then the mailbox is encrypted.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class MailboxType(StrEnum):
    """The five kinds of requirements 3.1."""

    USER = "user"
    SHARED = "shared"
    PUBLIC_FOLDER = "public-folder"
    GROUP = "group"
    MAIL_USER = "mail-user"


NEEDS_LICENCE = frozenset({MailboxType.USER, MailboxType.MAIL_USER})
"""R-004; the others need only that the tenant has licensed users (R-005)."""


class MoveState(StrEnum):
    """Where a change of hierarchy stands."""

    NONE = "none"
    QUEUED = "queued"
    MOVING = "moving"
    DONE = "done"
    FAILED = "failed"
    """Something in the mailbox does not open; an alert and the job name it."""


MOVE_AT_REST = frozenset({MoveState.NONE, MoveState.DONE})
"""No content is on its way to another key."""
MEDIA_TYPES = {"calendar": "text/calendar", "message": "message/rfc822", "chat": "message/rfc822"}
"""What an item is as bytes, by its kind."""


@dataclass(frozen=True, slots=True)
class Mailbox:
    """One mailbox.

    Attributes:
        policy_id: the policy whose key wraps the mailbox keys now.
        pending_policy_id: the policy asked for, until the keys are re-wrapped; None otherwise.
        key_version: version of the mailbox key that new items are sealed under.
        assigned_at: when the latest change of hierarchy was asked for; None for never.
        moved_at: when content was last fully under the hierarchy asked for.
        moved_items: items re-encrypted by the move under way.
    """

    id: str
    tenant_id: str
    upn: str
    type: MailboxType
    licensed: bool
    created: int
    policy_id: str
    pending_policy_id: str | None
    key_version: int
    move_state: MoveState
    assigned_at: int | None
    moved_at: int | None
    moved_items: int
    item_count: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class MailboxKey:
    """One wrapped mailbox key (docs/spec/wrapped-key.md)."""

    mailbox_id: str
    version: int
    wrapped: bytes


@dataclass(frozen=True, slots=True)
class Folder:
    """A folder: its name is content, so it is sealed, and found again by a keyed hash."""

    id: str
    mailbox_id: str
    key_version: int
    name_hash: bytes
    sealed_name: bytes


@dataclass(frozen=True, slots=True)
class Item:
    """One item: message, calendar entry or chat.

    Attributes:
        received: milliseconds since the epoch; the import's time where the item does not tell.
        size: bytes of the item as it came.
        key_version: version of the mailbox key it is sealed under.
        content_hash: keyed hash of the content and its ordinal among equals, so that importing again adds nothing.
        summary: sealed subject, sender and content digest.
        object_ref: the pack, or the item's own object, that holds it.
        offset: where in that object; length: bytes of the sealed item there.
        parts: how many sealed parts a large item has; 1 for an item in a pack.
    """

    id: str
    mailbox_id: str
    folder_id: str
    kind: str
    received: int
    size: int
    key_version: int
    content_hash: bytes
    summary: bytes
    object_ref: str
    offset: int
    length: int
    parts: int
