"""The unwrap decision: what the answers of the two customer keys allow (design section 5, R-141 to R-148).

Rules that hold for every row:

- The availability key is never asked first; this function is only called with the outcomes of both customer keys.
- The first row that matches wins, top down.
- A *user* operation gives content to a person; a *system* operation does not. Files know only one class.
- A cached key opened by the availability key is not "cached" in the sense of this table: it dies at the next probe.

| outcomes of the two keys          | mail, user                        | mail, system     | files                             |
|-----------------------------------|-----------------------------------|------------------|-----------------------------------|
| any checked success               | use it                            | use it           | use it                            |
| any integrity failure             | refuse                            | refuse           | refuse                            |
| denied, denied                    | refuse, evict                     | availability key | refuse, evict                     |
| one denied, one system error      | cached for mixed_grace, else refuse | availability key | cached for mixed_grace, else refuse |
| system error, system error        | cached until max_age, else availability key | same   | cached until max_age, else unavailable |
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from keystead.core.keys.outcome import OutcomeClass

if TYPE_CHECKING:
    from collections.abc import Iterable


class Family(StrEnum):
    """Which column of the table. Tenant policies follow the rules of mail."""

    MAIL = "mail"
    FILES = "files"


class Operation(StrEnum):
    """Who receives the content: a person, or nobody."""

    USER = "user"
    SYSTEM = "system"


class Verdict(StrEnum):
    """What to do."""

    USE_CUSTOMER_KEY = "use-customer-key"
    USE_CACHED = "use-cached"
    USE_AVAILABILITY_KEY = "use-availability-key"
    REFUSE_DENIED = "refuse-denied"
    REFUSE_MIXED = "refuse-mixed"
    REFUSE_INTEGRITY = "refuse-integrity"
    UNAVAILABLE = "unavailable"


@dataclass(frozen=True, slots=True)
class CachedKey:
    """A policy key in memory that a customer key opened.

    Attributes:
        age: milliseconds since a customer key last answered with a checked success.
        mixed_for: milliseconds since the latest pairs have been one denial and one system error; 0 when this is the first.
    """

    age: int
    mixed_for: int = 0


@dataclass(frozen=True, slots=True)
class Limits:
    """Milliseconds. `max_age` is outage tolerance; `mixed_grace` how long a half denial may be ridden out."""

    max_age: int
    mixed_grace: int


@dataclass(frozen=True, slots=True)
class Decision:
    """The verdict, and whether every cached copy of the policy key, in every process, must go now."""

    verdict: Verdict
    evict: bool = False


def decide(family: Family, operation: Operation, outcomes: Iterable[OutcomeClass], cached: CachedKey | None, limits: Limits) -> Decision:  # noqa: PLR0911 - a return for each row
    """The decision table. Pure; tested over every combination."""
    kinds = set(outcomes)
    mail, user = family is Family.MAIL, operation is Operation.USER
    if OutcomeClass.SUCCESS in kinds:
        return Decision(Verdict.USE_CUSTOMER_KEY)
    if OutcomeClass.INTEGRITY in kinds:
        return Decision(Verdict.REFUSE_INTEGRITY, evict=True)
    if kinds == {OutcomeClass.DENIED}:
        # A system operation of mail goes on, but on the availability key alone: what the customer keys opened goes for everybody.
        return Decision(Verdict.USE_AVAILABILITY_KEY if mail and not user else Verdict.REFUSE_DENIED, evict=True)
    fresh = cached is not None and cached.age <= limits.max_age
    if OutcomeClass.DENIED in kinds:
        if mail and not user:
            return Decision(Verdict.USE_AVAILABILITY_KEY)
        if fresh and cached is not None and cached.mixed_for <= limits.mixed_grace:
            return Decision(Verdict.USE_CACHED)
        return Decision(Verdict.REFUSE_MIXED)
    if fresh:
        return Decision(Verdict.USE_CACHED)
    return Decision(Verdict.USE_AVAILABILITY_KEY if mail else Verdict.UNAVAILABLE)


class Health(StrEnum):
    """What a policy's keys look like from the service (R-147, R-256)."""

    HEALTHY = "healthy"
    DEGRADED = "degraded"
    UNREACHABLE = "unreachable"
    DENIED = "denied"


def health(outcomes: Iterable[OutcomeClass]) -> Health:
    """Health of a pair: both good, one good, none good with a denial, none good at all."""
    kinds = set(outcomes)
    if kinds == {OutcomeClass.SUCCESS}:
        return Health.HEALTHY
    if OutcomeClass.SUCCESS in kinds:
        return Health.DEGRADED
    if OutcomeClass.DENIED in kinds or OutcomeClass.INTEGRITY in kinds:
        return Health.DENIED
    return Health.UNREACHABLE
