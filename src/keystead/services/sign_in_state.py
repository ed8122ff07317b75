"""What a process remembers of those who sign in: failures, tokens that were good, keys. Nothing here is stored, and no token is kept."""

from __future__ import annotations

from collections import Counter, OrderedDict
from dataclasses import dataclass, field
from threading import Lock
from typing import TYPE_CHECKING

from keystead.core.access.throttle import Pace
from keystead.recent import Attempts, Recent

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

    from keystead.core.access.tokens import AccessClaims, ProvidedClaims, SignInProvider
    from keystead.core.settings import Settings
    from keystead.ports.issuers import IssuerKey

MOST_ADDRESSES = 20_000
MOST_TOKENS = 20_000
MOST_REPORTED = 200
"""Addresses with a record of their own in one minute; those beyond share one, so that many addresses do not flood the log."""
MANY = "many addresses"
MINUTE = 60_000


def pace_of(settings: Settings) -> Pace:
    """How long who fails again and again waits, as it is set."""
    return Pace(settings.sign_in_free_attempts, settings.sign_in_delay, settings.sign_in_delay_max, settings.sign_in_forget)


@dataclass(frozen=True, slots=True)
class Report:
    """Failures of one address that go into one record; `codes` says how often each."""

    address: str
    codes: tuple[tuple[str, int], ...]


class FailureLog:
    """Gathers failures so that an address gets at most one record a minute: the first at once, then one for what came since."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._written: OrderedDict[str, int] = OrderedDict()
        self._gathered: dict[str, Counter[str]] = {}
        self._minute = 0
        self._reported = 0

    def note(self, address: str, code: str, now: int) -> list[Report]:
        """Count a failure; returns what is to be recorded now."""
        with self._lock:
            if address not in self._written and self._room(now):
                self._written[address] = now
                while len(self._written) > MOST_ADDRESSES:
                    self._written.popitem(last=False)
                return [*self._due(now), Report(address, ((code, 1),))]
            self._gathered.setdefault(address if address in self._written else MANY, Counter())[code] += 1
            return self._due(now)

    def due(self, now: int, *, all_of_it: bool = False) -> list[Report]:
        """What was gathered long enough ago to be recorded; or everything, when the process ends."""
        if not self._gathered:  # nearly always: without a lock, because an answer a moment late costs nothing
            return []
        with self._lock:
            return self._due(now, all_of_it=all_of_it)

    def _due(self, now: int, *, all_of_it: bool = False) -> list[Report]:
        ready = [one for one in self._gathered if all_of_it or now - self._written.get(one, self._minute) >= MINUTE]
        found = [Report(one, tuple(sorted(self._gathered.pop(one).items()))) for one in ready]
        for one in ready:
            self._written[one] = now
        for one in [one for one, at in self._written.items() if now - at >= MINUTE and one not in self._gathered]:
            del self._written[one]
        return found

    def _room(self, now: int) -> bool:
        if now - self._minute >= MINUTE:
            self._minute, self._reported = now, 0
        self._reported += 1
        return self._reported <= MOST_REPORTED


@dataclass(frozen=True, slots=True)
class KnownOwn:
    """One of our access tokens whose signature was checked, and the key that made it."""

    claims: AccessClaims
    key_id: str


@dataclass(frozen=True, slots=True)
class KnownProvided:
    """A provider's token whose signature and claims were checked: against which registration, with which key of the issuer."""

    claims: ProvidedClaims
    provider: SignInProvider
    key: IssuerKey


@dataclass(slots=True)
class SignInState:
    """Of one process.

    Attributes:
        attempts: who failed how often.
        failures: what is still to be recorded.
        good: digests of tokens that were good here lately: their bearers are not made to wait for the failures of others.
        own, provided: tokens whose signatures were checked, by their digests.
        verifying: our public keys, by id; signer: the key that signs now, and its id.
    """

    attempts: Attempts = field(default_factory=lambda: Attempts(MOST_ADDRESSES))
    failures: FailureLog = field(default_factory=FailureLog)
    good: Recent[bool] = field(default_factory=lambda: Recent(MOST_TOKENS))
    own: Recent[KnownOwn] = field(default_factory=lambda: Recent(MOST_TOKENS))
    provided: Recent[KnownProvided] = field(default_factory=lambda: Recent(MOST_TOKENS))
    verifying: dict[str, Ed25519PublicKey] = field(default_factory=dict, repr=False)
    signer: tuple[str, Ed25519PrivateKey] | None = field(default=None, repr=False)
