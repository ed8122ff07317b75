"""Conditions that somebody should know of before a customer does: what they are, how bad, and what to do.

An alert is one condition of one subject, from when it was first seen until it ended by itself. Hooks are told of *events*: an alert was
raised, escalated or resolved (docs/spec/hooks.md).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


class AlertKind(StrEnum):
    """Each is raised for a subject, kept while it lasts, and resolved by itself. `ABOUT` has the words."""

    KEY_DEGRADED = "key-degraded"
    KEY_DENIED = "key-denied"
    KEY_UNREACHABLE = "key-unreachable"
    KEY_INTEGRITY = "key-integrity"
    CACHE_NEAR_EXPIRY = "cache-near-expiry"
    JOB_FAILING = "job-failing"
    MOVE_OVERDUE = "move-overdue"
    FILES_OVERDUE = "files-overdue"
    FILE_DAMAGED = "file-damaged"
    WORKER_SILENT = "worker-silent"
    ORPHANS = "orphans-marked"
    KEY_STORE = "key-store-access"
    KEY_STORE_UNREADABLE = "key-store-unreadable"
    AUDIT_UNWRITABLE = "audit-unwritable"
    HOOK_FAILING = "hook-failing"


MOVE_ESCALATED = "move-escalated"
"""What an overdue move is called once it is escalated (conflict C3)."""

KEY_KINDS = (
    AlertKind.KEY_DEGRADED,
    AlertKind.KEY_DENIED,
    AlertKind.KEY_UNREACHABLE,
    AlertKind.KEY_INTEGRITY,
    AlertKind.CACHE_NEAR_EXPIRY,
)
"""Those that follow from a pair of answers of a policy's keys."""
INCIDENTS = (AlertKind.KEY_STORE, AlertKind.AUDIT_UNWRITABLE)
"""Things that happened rather than last: they end when none has happened for a while (`alert_incident`)."""


class Severity(StrEnum):
    """How bad."""

    WARNING = "warning"
    CRITICAL = "critical"


class EventState(StrEnum):
    """What became of an alert."""

    RAISED = "raised"
    ESCALATED = "escalated"
    RESOLVED = "resolved"
    TEST = "test"


@dataclass(frozen=True, slots=True)
class About:
    """The words of a kind. They are the same for every alert of it, so that what leaves the installation holds no names.

    Attributes:
        severity: until it is escalated, which makes it critical.
        text: what is the case.
        mend: what to do.
    """

    severity: Severity
    text: str
    mend: str


ABOUT: Mapping[AlertKind, About] = {
    AlertKind.KEY_DEGRADED: About(
        Severity.WARNING,
        "one of the two customer keys of a policy does not answer; the other one carries on alone",
        "keystead files health --geo GEO, or of mail keystead policy health POLICY, names the key; the customer mends access, key or vault",
    ),
    AlertKind.KEY_DENIED: About(
        Severity.CRITICAL,
        "the customer's keys of a policy refuse the service, and people cannot reach their content",
        "if it was not meant: keystead vault access grant, key enable, key recover or vault recover",
    ),
    AlertKind.KEY_UNREACHABLE: About(
        Severity.CRITICAL,
        "no customer key of a policy opens, and at least one vault cannot be reached; cached keys ride it out for a while",
        "keystead files health --geo GEO, or of mail keystead policy health POLICY, tells which; mend the vault or the way to it",
    ),
    AlertKind.KEY_INTEGRITY: About(
        Severity.CRITICAL,
        "what a vault answers or the database holds for a policy's key is not what was written",
        "keystead files health --geo GEO, or of mail keystead policy health POLICY, tells which; then keystead policy refresh POLICY, or restore the policy's rows from a backup",
    ),
    AlertKind.CACHE_NEAR_EXPIRY: About(
        Severity.CRITICAL,
        "a policy's cached key ends soon, and the vaults have not answered for long",
        "bring a vault back before mail_max_age or files_max_age is over: afterwards mail needs the availability key, and files stay closed",
    ),
    AlertKind.JOB_FAILING: About(
        Severity.WARNING,
        "a job fails; it is escalated when it failed three times in a row or gave up",
        "keystead job show JOB tells why; mend that, and it goes on by itself, or ask for the act again if it gave up",
    ),
    AlertKind.MOVE_OVERDUE: About(
        Severity.WARNING,
        "a mailbox's change of hierarchy is not done 72 hours after it was asked for; it is escalated after 7 days",
        "keystead mailbox move-status UPN tells how far it is; the tenant contacts the provider's support",
    ),
    AlertKind.FILES_OVERDUE: About(
        Severity.WARNING,
        "a registration, roll, recovery or return of a geo's files is not done 4 hours after it was asked for",
        "keystead files status --geo GEO tells how far it is; keystead job show JOB what holds it up",
    ),
    AlertKind.FILE_DAMAGED: About(
        Severity.CRITICAL,
        "something of a file does not open while its site is re-encrypted; the site stays unfinished, others go on",
        "restore the object or rows from a backup, or delete the file; the job goes on by itself",
    ),
    AlertKind.WORKER_SILENT: About(
        Severity.CRITICAL,
        "jobs are due and no worker has shown itself for a while",
        "start keystead worker, or look in the log of one that hangs",
    ),
    AlertKind.ORPHANS: About(
        Severity.WARNING,
        "keys or objects that no row names will be removed: right after a crash, wrong after an older database was restored",
        "if the database was restored from a backup, keystead job cancel JOB before it removes them",
    ),
    AlertKind.KEY_STORE: About(
        Severity.CRITICAL,
        "something opened the key store, or a value in it, other than the service does",
        "find out who changed keys.db, the seals or the policy's rows; restore them from a backup of one time",
    ),
    AlertKind.KEY_STORE_UNREADABLE: About(
        Severity.CRITICAL,
        "the key store cannot be read; what is not cached cannot be opened",
        "check that its database and the seals folder are there; restore both from one backup if they are lost",
    ),
    AlertKind.AUDIT_UNWRITABLE: About(
        Severity.CRITICAL,
        "acts were refused because their audit record could not be written",
        "check that the database has room and takes writes; whoever was refused tries again",
    ),
    AlertKind.HOOK_FAILING: About(
        Severity.WARNING,
        "a notification hook does not get through; it is escalated when an event was given up",
        "keystead alerts test HOOK tells why; mend the receiver or the hook in keystead.toml",
    ),
}


@dataclass(frozen=True, slots=True)
class Condition:
    """What is the case.

    Attributes:
        tenant_id: empty for the installation's own.
        subject_id: id of a policy, mailbox or job, or the name of a part of the installation; at most 36 characters.
        detail: ids, key URIs and codes only.
        escalated: whether it is so bad or so old by now that it counts as critical.
    """

    tenant_id: str
    kind: AlertKind
    subject_id: str
    detail: str
    escalated: bool = False


@dataclass(frozen=True, slots=True)
class Alert:
    """One condition over time. Times in milliseconds.

    Attributes:
        raised: first seen; last_seen: last; times: how often it was seen.
        escalated: since when it is critical whatever its kind; None for not.
        resolved: None while it lasts.
        told: when the last event of it was written; None while none was, because the same thing was told of shortly before.
    """

    id: str
    tenant_id: str
    kind: AlertKind
    subject_id: str
    detail: str
    raised: int
    last_seen: int
    times: int
    escalated: int | None
    resolved: int | None
    told: int | None

    @property
    def severity(self) -> Severity:
        """How bad it is by now."""
        return Severity.CRITICAL if self.escalated is not None else ABOUT[self.kind].severity

    @property
    def shown_kind(self) -> str:
        """The kind as people are shown it."""
        return MOVE_ESCALATED if self.kind is AlertKind.MOVE_OVERDUE and self.escalated is not None else self.kind.value


@dataclass(frozen=True, slots=True)
class Event:
    """Something to tell: made and stored with the alert, told by every hook that wants it.

    Attributes:
        sequence: order of events; 0 until it is stored.
        id: by which a receiver knows it again.
    """

    sequence: int
    id: str
    alert_id: str
    tenant_id: str
    kind: AlertKind
    subject_id: str
    severity: Severity
    state: EventState
    at: int


@dataclass(frozen=True, slots=True)
class HookState:
    """How far a hook is.

    Attributes:
        name: of the hook.
        since: when it was first seen; of what was before, it is told only what lasted then.
        position: sequence of the last event that was delivered, given up or passed over.
        attempts: failures in a row; failing_since: when the first of them was, 0 for none.
        not_before: earliest next try.
        last_error: what the last failure was; empty after a delivery.
        lease_owner, lease_until: who delivers now, and until when nobody else does.
    """

    name: str
    since: int
    position: int = 0
    attempts: int = 0
    failing_since: int = 0
    not_before: int = 0
    last_error: str = ""
    lease_owner: str = ""
    lease_until: int = 0


def wait_after(attempts: int, first: int, longest: int) -> int:
    """Milliseconds to the next try after so many failures in a row."""
    return min(longest, first << min(attempts - 1, 30))
