"""How often a vault may be called: the limits published for key vaults (R-066, requirements 2.11).

Each vault has four budgets for any ten seconds; making keys and everything else are counted apart, and so are keys in hardware. A call
with a heavy key costs more of the same budget: 250 operations with RSA-3072 are 1,000 with RSA-2048. A subscription has five times what
one vault has.

What was spent is kept by whole seconds, and the second that is only partly past counts whole: a caller never gets more than the budget
in any ten seconds, and waits at most one second longer than it would have to.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from keystead.core.vaults.usage import KeyKind, KeyType

WINDOW_SECONDS = 10
SUBSCRIPTION_SHARE = 5
"""A subscription's budgets, in those of one vault."""

_SECOND = 1_000
_SLOTS = WINDOW_SECONDS + 1
"""Ten whole seconds and the one that is under way."""


class Budget(StrEnum):
    """What is counted together."""

    HSM_CREATE = "hsm-create"
    HSM_OTHER = "hsm-other"
    SOFTWARE_CREATE = "software-create"
    SOFTWARE_OTHER = "software-other"


PER_WINDOW = {Budget.HSM_CREATE: 5, Budget.HSM_OTHER: 1_000, Budget.SOFTWARE_CREATE: 10, Budget.SOFTWARE_OTHER: 2_000}
"""Of one vault, in calls of weight 1 within ten seconds."""

IMPORTS_PER_WINDOW = 50
"""RSA keys brought from outside that one process tests within ten seconds, over all vaults, by weight. Testing the primes of RSA-2048 takes
some 40 ms, in which Python runs nothing else: a fifth of the time at most, whoever brings how many keys."""

_WEIGHTS = {3_072: 4, 4_096: 8}
"""By bits of an RSA key: 1,000 / 250 and 1,000 / 125, the same for software keys. RSA-2048 and every curve weigh 1."""


@dataclass(frozen=True, slots=True)
class CallKind:
    """What a call costs, and whether it changes anything in the vault (R-069).

    Attributes:
        budget: what it is counted against.
        weight: how much of it.
        changes: whether it is refused while the vault is failed over.
    """

    budget: Budget = Budget.SOFTWARE_OTHER
    weight: int = 1
    changes: bool = False


LOOK = CallKind()
"""Get, list, backup: whatever leaves things as they are."""

CHANGE = CallKind(changes=True)
"""Update, delete, recover, purge, restore, a rotation policy."""


def making(kind: KeyKind) -> CallKind:
    """Create, import or rotate a key."""
    return CallKind(Budget.HSM_CREATE if kind.kty.is_hsm else Budget.SOFTWARE_CREATE, changes=True)


def bringing(kty: str, *, hsm: bool, bits: int) -> tuple[CallKind, int]:
    """Import a key that nobody has looked at yet, so as its sender describes it.

    Args:
        kty: its type, as it is called.
        hsm: a hardware type is asked for.
        bits: of the modulus, at least as many as it has; 0 for a key on a curve.

    Returns:
        What it costs the vault, and what it takes of `IMPORTS_PER_WINDOW`.
    """
    hardware = hsm or kty.upper().endswith("-HSM")
    weight = max((weight for size, weight in _WEIGHTS.items() if bits >= size), default=1) if bits else 0
    return CallKind(Budget.HSM_CREATE if hardware else Budget.SOFTWARE_CREATE, changes=True), weight


def using(kty: KeyType, size: int) -> CallKind:
    """A cryptographic operation with a key; `size` in bits of an RSA key."""
    return CallKind(Budget.HSM_OTHER if kty.is_hsm else Budget.SOFTWARE_OTHER, _WEIGHTS.get(size, 1))


@dataclass(frozen=True, slots=True)
class Spent:
    """What was spent of a budget: `slots` by second, the newest first; `second` is the number of the newest."""

    second: int = 0
    slots: tuple[int, ...] = (0,) * _SLOTS


def spend(spent: Spent, weight: int, limit: int, now: int) -> tuple[Spent, int]:
    """Take from a budget.

    Args:
        spent: what was spent so far.
        weight: what this call costs.
        limit: the budget; one that is smaller than the call holds just that one call.
        now: milliseconds. A clock that was set back counts as standing still.

    Returns:
        What is spent now, and in how many milliseconds it is worth trying again: 0 where the call is within the budget. Refused calls
        cost nothing.
    """
    second = max(spent.second, now // _SECOND)
    slots = ((0,) * min(second - spent.second, _SLOTS) + spent.slots)[:_SLOTS]
    room = max(limit, weight) - weight
    total = sum(slots)
    if total <= room:
        return Spent(second, (slots[0] + weight, *slots[1:])), 0
    age = _SLOTS - 1
    total -= slots[age]
    while total > room:
        age -= 1
        total -= slots[age]
    return Spent(second, slots), max(1, (second - age + _SLOTS) * _SECOND - now)
