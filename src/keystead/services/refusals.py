"""How much of the log refused calls may take: the first of a caller are written as they come, the rest are counted.

Whoever is refused could otherwise fill the log, which nobody may shorten, and the one of another tenant at that. A caller is a person at an
address; callers without an address are commands on this machine, and have all of theirs written. What is counted is written after a minute: for
each log one record of a caller, with how often which call was refused and why.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from threading import Lock

MINUTE = 60_000
MOST_WRITTEN = 20
"""Records of one caller in a minute; those beyond are counted."""
MOST_CALLERS = 200
"""Callers with records of their own in a minute; those beyond share one."""
MOST_KINDS = 50
"""Different calls and reasons that are told apart in one count."""
OTHERS = "other"


@dataclass(frozen=True, slots=True)
class Counted:
    """Refused calls that go into one record; `kinds` says how often each, as ROUTE:CODE; `external`: by one of the provider's people."""

    address: str
    upn: str
    external: bool
    tenant_id: str
    kinds: tuple[tuple[str, int], ...]


@dataclass(slots=True)
class _Caller:
    since: int
    written: int = 0
    counted: dict[str, Counter[str]] = field(default_factory=dict)


class Refusals:
    """Of one process; for threads."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._callers: dict[tuple[str, str, bool], _Caller] = {}
        self._next = 0

    def note(self, caller: tuple[str, str, bool], tenant_id: str, kind: str, now: int) -> bool:
        """Whether a refused call is written as it is; otherwise it was counted.

        Args:
            caller: address of the network, or empty for a command on this machine; UPN; whether the provider's.
            tenant_id: whose log it goes to.
            kind: ROUTE:CODE.
            now: milliseconds.
        """
        if not caller[0]:
            return True
        with self._lock:
            key = caller
            if key not in self._callers and len(self._callers) >= MOST_CALLERS:
                key = (OTHERS, "", False)
            if not self._callers:
                self._next = now + MINUTE
            known = self._callers.setdefault(key, _Caller(now))
            if known.written < MOST_WRITTEN:
                known.written += 1
                return True
            kinds = known.counted.setdefault(tenant_id, Counter())
            kinds[kind if kind in kinds or len(kinds) < MOST_KINDS else OTHERS] += 1
            return False

    def due(self, now: int, *, all_of_it: bool = False) -> list[Counted]:
        """What was counted long enough ago to be written; or everything, when the process ends. Those callers begin anew."""
        if not self._callers or (now < self._next and not all_of_it):  # nearly always; without a lock: a moment late costs nothing
            return []
        with self._lock:
            over = [key for key, caller in self._callers.items() if all_of_it or now - caller.since >= MINUTE]
            gone = [(key, self._callers.pop(key)) for key in over]
            self._next = min((caller.since for caller in self._callers.values()), default=0) + MINUTE
        return [
            Counted(address, upn, external, tenant_id, tuple(sorted(kinds.items())))
            for (address, upn, external), caller in gone
            for tenant_id, kinds in caller.counted.items()
        ]
