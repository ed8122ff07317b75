"""What a process remembers of the clients that sign in: tokens whose signatures were checked, failures, keys. No secret and no token is kept."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from keystead.recent import Attempts, Recent

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

    from keystead.core.vaults.tokens import ClientClaims

MOST_TOKENS = 20_000
MOST_NAMES = 20_000


@dataclass(slots=True)
class TokenState:
    """Of one process.

    Attributes:
        known: what tokens say whose signatures were checked, by their digests.
        attempts: who failed how often.
        signer: the key that signs now, with its id.
    """

    known: Recent[ClientClaims] = field(default_factory=lambda: Recent(MOST_TOKENS))
    attempts: Attempts = field(default_factory=lambda: Attempts(MOST_NAMES))
    signer: tuple[str, RSAPrivateKey] | None = field(default=None, repr=False)
