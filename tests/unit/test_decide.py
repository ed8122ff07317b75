"""The published decision table, row by row, over every combination of its inputs (design section 5; R-141, R-143 to R-146, R-148)."""

from __future__ import annotations

from itertools import product

import pytest

from keystead.core.keys.decide import CachedKey, Decision, Family, Health, Limits, Operation, Verdict, decide, health
from keystead.core.keys.outcome import OutcomeClass

GOOD, FAULT, DENIED, ROTTEN = OutcomeClass.SUCCESS, OutcomeClass.SYSTEM_ERROR, OutcomeClass.DENIED, OutcomeClass.INTEGRITY
USE, CACHED, AVAILABILITY = Verdict.USE_CUSTOMER_KEY, Verdict.USE_CACHED, Verdict.USE_AVAILABILITY_KEY
NO, HALF_NO, BROKEN, AWAY = Verdict.REFUSE_DENIED, Verdict.REFUSE_MIXED, Verdict.REFUSE_INTEGRITY, Verdict.UNAVAILABLE

LIMITS = Limits(max_age=1_000, mixed_grace=100)

# How the cached key stands, so that a cell of the table can name it: within both limits (the limit itself included), within `max_age`
# alone, or not there at all (none, or too old).
YOUNG: list[CachedKey | None] = [CachedKey(age, mixed_for) for age in (0, 1, 999, 1_000) for mixed_for in (0, 1, 99, 100)]
LONG_MIXED: list[CachedKey | None] = [CachedKey(age, mixed_for) for age in (0, 1, 999, 1_000) for mixed_for in (101, 10_000)]
NOTHING: list[CachedKey | None] = [None, *(CachedKey(age, mixed_for) for age in (1_001, 10_000) for mixed_for in (0, 100, 101))]

COLUMNS = ((Family.MAIL, Operation.USER), (Family.MAIL, Operation.SYSTEM), (Family.FILES, Operation.USER), (Family.FILES, Operation.SYSTEM))

# outcomes of the two keys in either order: for each column (young, long mixed, nothing cached), and whether everything cached goes.
TABLE: dict[tuple[OutcomeClass, OutcomeClass], tuple[tuple[tuple[Verdict, Verdict, Verdict], ...], bool]] = {
    (GOOD, GOOD): (((USE, USE, USE),) * 4, False),
    (GOOD, FAULT): (((USE, USE, USE),) * 4, False),
    (GOOD, DENIED): (((USE, USE, USE),) * 4, False),
    (GOOD, ROTTEN): (((USE, USE, USE),) * 4, False),
    (ROTTEN, ROTTEN): (((BROKEN, BROKEN, BROKEN),) * 4, True),
    (ROTTEN, FAULT): (((BROKEN, BROKEN, BROKEN),) * 4, True),
    (ROTTEN, DENIED): (((BROKEN, BROKEN, BROKEN),) * 4, True),
    (DENIED, DENIED): (((NO,) * 3, (AVAILABILITY,) * 3, (NO,) * 3, (NO,) * 3), True),
    (DENIED, FAULT): (
        ((CACHED, HALF_NO, HALF_NO), (AVAILABILITY,) * 3, (CACHED, HALF_NO, HALF_NO), (CACHED, HALF_NO, HALF_NO)),
        False,
    ),
    (FAULT, FAULT): (
        ((CACHED, CACHED, AVAILABILITY), (CACHED, CACHED, AVAILABILITY), (CACHED, CACHED, AWAY), (CACHED, CACHED, AWAY)),
        False,
    ),
}


def test_the_table_names_every_pair_of_outcomes_once() -> None:
    named = [frozenset(pair) for pair in TABLE]
    assert len(set(named)) == len(named)
    assert set(named) == {frozenset(pair) for pair in product(OutcomeClass, repeat=2)}


@pytest.mark.parametrize("pair", TABLE, ids=lambda pair: f"{pair[0]}+{pair[1]}")
def test_every_cell_of_the_table(pair: tuple[OutcomeClass, OutcomeClass]) -> None:
    """R-144, R-145, R-146."""
    cells, evict = TABLE[pair]
    seen = 0
    for (family, operation), verdicts in zip(COLUMNS, cells, strict=True):
        for standing, verdict in zip((YOUNG, LONG_MIXED, NOTHING), verdicts, strict=True):
            for cached, outcomes in product(standing, (pair, pair[::-1])):
                assert decide(family, operation, outcomes, cached, LIMITS) == Decision(verdict, evict), (
                    family,
                    operation,
                    outcomes,
                    cached,
                )
                seen += 1
    assert seen == len(COLUMNS) * (len(YOUNG) + len(LONG_MIXED) + len(NOTHING)) * 2


EVERYTHING = list(product(COLUMNS, product(OutcomeClass, repeat=2), [*YOUNG, *LONG_MIXED, *NOTHING]))


def test_the_availability_key_comes_only_after_both_customer_keys_failed() -> None:
    """R-141, R-143."""
    for (family, operation), outcomes, cached in EVERYTHING:
        if decide(family, operation, outcomes, cached, LIMITS).verdict is AVAILABILITY:
            assert set(outcomes) <= {FAULT, DENIED}


def test_files_never_use_the_availability_key() -> None:
    """R-148."""
    verdicts = {
        decide(family, operation, outcomes, cached, LIMITS).verdict
        for (family, operation), outcomes, cached in EVERYTHING
        if family is Family.FILES
    }
    assert verdicts == set(Verdict) - {AVAILABILITY}


def test_no_user_operation_of_mail_uses_the_availability_key_after_a_denial() -> None:
    """R-145."""
    for (family, operation), outcomes, cached in EVERYTHING:
        if (family, operation) == (Family.MAIL, Operation.USER) and DENIED in outcomes:
            assert decide(family, operation, outcomes, cached, LIMITS).verdict is not AVAILABILITY


def test_nothing_cached_survives_an_integrity_failure_or_two_denials() -> None:
    """R-145."""
    for (family, operation), outcomes, cached in EVERYTHING:
        decision = decide(family, operation, outcomes, cached, LIMITS)
        gone = GOOD not in outcomes and (ROTTEN in outcomes or set(outcomes) == {DENIED})
        assert decision.evict is gone
        if gone:
            assert decision.verdict is not CACHED


HEALTH = {
    (GOOD, GOOD): Health.HEALTHY,
    (GOOD, FAULT): Health.DEGRADED,
    (GOOD, DENIED): Health.DEGRADED,
    (GOOD, ROTTEN): Health.DEGRADED,
    (FAULT, FAULT): Health.UNREACHABLE,
    (FAULT, DENIED): Health.DENIED,
    (DENIED, DENIED): Health.DENIED,
    (ROTTEN, ROTTEN): Health.DENIED,
    (ROTTEN, FAULT): Health.DENIED,
    (ROTTEN, DENIED): Health.DENIED,
}


@pytest.mark.parametrize(("pair", "state"), HEALTH.items(), ids=lambda value: "+".join(value) if isinstance(value, tuple) else str(value))
def test_health_of_a_pair_in_either_order(pair: tuple[OutcomeClass, OutcomeClass], state: Health) -> None:
    """R-147, R-256."""
    assert health(pair) is health(pair[::-1]) is state
