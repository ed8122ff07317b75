"""Telling somebody outside: hooks, and the count of what could not be written down.

Implementations of `Hook`: a signed POST and a mail (`adapters/notify`). A hook does not retry and keeps nothing: `services.alerting` does.
Of `Ledger`: a file in the run folder, and memory.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from keystead.core.alerts import AlertKind


class NotDelivered(Exception):
    """The hook did not get through. The text says why, for the operator: no secret and nothing of a tenant is in it."""


@dataclass(frozen=True, slots=True)
class Message:
    """What a hook sends (docs/spec/hooks.md): ids and fixed texts.

    Attributes:
        id: of the event; when: of the event, milliseconds.
    """

    id: str
    alert_id: str
    kind: str
    severity: str
    state: str
    tenant_id: str
    subject_id: str
    when: int
    text: str
    mend: str


class Hook(Protocol):
    """One way to tell somebody.

    `kinds` it wants, none for all; `tenant` whose alerts it wants, by id, name or domain, empty for all and the installation's own.
    """

    @property
    def name(self) -> str: ...
    @property
    def kinds(self) -> frozenset[AlertKind]: ...
    @property
    def tenant(self) -> str: ...

    def send(self, message: Message, now: int) -> str:
        """Tell; returns what the other side said. Ends within 25 seconds, and talks to the configured address alone.

        Args:
            message: what to tell.
            now: time of sending, milliseconds.

        Raises:
            NotDelivered: nobody can be sure that it got through. Sending it again is harmless: the receiver knows its id.
        """
        ...


@dataclass(frozen=True, slots=True)
class Unwritten:
    """Acts that were refused because their record could not be written: how many, when first and last, and the last code."""

    count: int
    first: int
    last: int
    code: str

    def plus(self, other: Unwritten | None) -> Unwritten:
        """Two counts as one."""
        if other is None:
            return self
        later = max(self, other, key=lambda counted: counted.last)
        return Unwritten(self.count + other.count, min(self.first, other.first), later.last, later.code)


class Ledger(Protocol):
    """Counts what the database did not take, away from the database."""

    def note(self, now: int, code: str) -> None:
        """One more. Never raises: it is called when things are bad already."""
        ...

    def taking(self) -> AbstractContextManager[Unwritten | None]:
        """What was counted; forgotten when the block ends, kept when it raises. None for nothing, or when another process takes it."""
        ...
