"""What a process remembers of those who sign in: failures, tokens that were good, keys. Nothing here is stored, and no token is kept."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from keystead.core.access.throttle import Pace
from keystead.recent import Attempts, FailureLog, Recent

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

    from keystead.core.access.tokens import AccessClaims, ProvidedClaims, SignInProvider
    from keystead.core.settings import Settings
    from keystead.ports.issuers import IssuerKey

MOST_ADDRESSES = 20_000
MOST_TOKENS = 20_000
MANY = "many addresses"
"""What stands for those that have no record of their own."""


def pace_of(settings: Settings) -> Pace:
    """How long who fails again and again waits, as it is set."""
    return Pace(settings.sign_in_free_attempts, settings.sign_in_delay, settings.sign_in_delay_max, settings.sign_in_forget)


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
    failures: FailureLog[str] = field(default_factory=FailureLog)
    good: Recent[bool] = field(default_factory=lambda: Recent(MOST_TOKENS))
    own: Recent[KnownOwn] = field(default_factory=lambda: Recent(MOST_TOKENS))
    provided: Recent[KnownProvided] = field(default_factory=lambda: Recent(MOST_TOKENS))
    verifying: dict[str, Ed25519PublicKey] = field(default_factory=dict, repr=False)
    signer: tuple[str, Ed25519PrivateKey] | None = field(default=None, repr=False)
