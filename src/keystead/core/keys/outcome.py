"""What asking a customer's key vault can come to (design section 5).

The class decides everything: a *system error* is a fault that the service may ride out, a *denial* is an act of the customer that
the service must obey, and an *integrity* failure is neither.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class OutcomeClass(StrEnum):
    """The four classes of the decision table."""

    SUCCESS = "success"
    SYSTEM_ERROR = "system-error"
    DENIED = "denied"
    INTEGRITY = "integrity"


@dataclass(frozen=True, slots=True)
class Outcome:
    """The class and, for people and logs, the reason: `timeout`, `http-403 AccessDenied`, `key-disabled`, `check-value-mismatch`."""

    kind: OutcomeClass
    reason: str = ""

    def __str__(self) -> str:
        return f"{self.kind} ({self.reason})" if self.reason else str(self.kind)


SUCCESS = Outcome(OutcomeClass.SUCCESS)
