"""Mailboxes and items."""

from datetime import datetime
from typing import Annotated, Literal

import msgspec

from keystead.api.types.base import Request, Response

Limit = Annotated[int, msgspec.Meta(ge=1, le=1000)]
MailboxTypeName = Literal["user", "shared", "public-folder", "group", "mail-user"]


class CreateMailbox(Request, frozen=True):
    """Creating a mailbox makes its person too, where there is none of that UPN yet."""

    upn: str
    type: MailboxTypeName = "user"
    licensed: bool = True


class MailboxView(Response, frozen=True):
    """One mailbox. `claim_token` is shown once, when making the mailbox made its person too, outside dev homes."""

    id: str
    upn: str
    type: str
    licensed: bool
    created: datetime
    policy_name: str | None
    claim_token: str | None = None


class ListMailboxes(Request, frozen=True):
    """`after`: a UPN."""

    after: str = ""
    limit: Limit = 100


class NameMailbox(Request, frozen=True):
    upn: str


class MailboxStatistics(Response, frozen=True):
    """`data_encryption_policy_id`: id of the policy version in force, null under provider keys (R-091)."""

    id: str
    upn: str
    type: str
    licensed: bool
    data_encryption_policy_id: str | None
    policy_name: str | None
    is_encrypted: bool
    move_state: str
    progress_percent: float
    item_count: int
    size_bytes: int
    assigned: datetime | None
    advice: str | None = None


class AssignPolicy(Request, frozen=True):
    """Either UPNs or all mailboxes of the tenant that may have a policy."""

    policy: str
    upns: list[str] = []
    all: bool = False


class AssignmentView(Response, frozen=True):
    """`job_id` runs the change; `mailboxes` is how many change."""

    policy_id: str
    policy_name: str
    mailboxes: int
    job_id: str
    skipped: list[str] = []


class UnassignPolicy(Request, frozen=True):
    upn: str


class MoveStatus(Response, frozen=True):
    upn: str
    state: str
    assigned: datetime | None
    completed: datetime | None
    progress_percent: float
    items_left: int
    bytes_left: int
    overdue: bool
    escalated: bool
    advice: str | None = None


class DelegateRequest(Request, frozen=True):
    """Who else may open a mailbox: given and taken by its owner; for shared kinds by an administrator."""

    upn: str
    delegate: str
    remove: bool = False


class DelegateView(Response, frozen=True):
    upn: str
    delegates: list[str]


class ImportItem(Request, frozen=True):
    """One item.

    `position`: where it stood in the source, from 1. `ordinal`: which of several equal items of the source this is, from 1, so that
    importing again adds nothing and two equal messages stay two. `malformed`: what the reader of the source found wrong with it, if anything.
    """

    position: int
    ordinal: Annotated[int, msgspec.Meta(ge=0, le=4_294_967_295)]
    folder: str
    data: bytes
    ics: bool = False
    malformed: Annotated[str, msgspec.Meta(max_length=64)] = ""


class ImportBatch(Request, frozen=True):
    """Small items, together at most what one pack holds."""

    upn: str
    items: list[ImportItem]


class ImportLarge(Request, frozen=True):
    """The fields beside the bytes of one large item."""

    upn: str
    position: int
    ordinal: Annotated[int, msgspec.Meta(ge=0, le=4_294_967_295)]
    folder: str
    ics: bool = False
    malformed: Annotated[str, msgspec.Meta(max_length=64)] = ""


class MalformedItem(Response, frozen=True):
    """Kept byte for byte, and reported."""

    position: int
    reason: str
    item_id: str


class RefusedItem(Response, frozen=True):
    """An item of a source that was not taken in; `reason` is the code of the error."""

    position: int
    reason: str


class ImportResult(Response, frozen=True):
    """`refused`: of an import of many items, those that the service will not have whatever is done; the others are in."""

    imported: int
    already_present: int
    malformed: list[MalformedItem]
    refused: list[RefusedItem] = []


class ListItems(Request, frozen=True):
    """`after`: an item id. Newest first."""

    upn: str
    after: str = ""
    limit: Limit = 100


class ItemView(Response, frozen=True):
    id: str
    kind: str
    folder: str
    subject: str
    sender: str
    received: datetime
    size_bytes: int


class NameItem(Request, frozen=True):
    upn: str
    item: str


class Search(Request, frozen=True):
    """The text is used once and stored nowhere. Without `upn`: all mailboxes of the tenant, a page of `scan` mailboxes at a time."""

    text: Annotated[str, msgspec.Meta(min_length=1, max_length=200)]
    upn: str = ""
    after: str = ""
    limit: Limit = 1000


class Hit(Response, frozen=True):
    mailbox: str
    item_id: str
    kind: str
    folder_id: str
    size_bytes: int
    received: datetime
