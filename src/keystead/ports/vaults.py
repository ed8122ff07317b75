"""The customer's key vaults, as the service sees them.

Implementations: the key vault embedded in a home, key vaults elsewhere over their REST API, what chooses between them, and whatever
stands in front (fault injection in dev homes, a scripted vault in tests). Who retries: nobody below the keyring; an implementation asks within the time limits of its settings, again only
while a vault says that it is busy.
Implementations only ever talk to hosts on their allow-list and never follow redirects.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from keystead.core.keys.outcome import Outcome


class VaultFailure(Exception):
    """A vault call that did not succeed; `outcome` is never SUCCESS. The keyring turns it into an error for people."""

    def __init__(self, outcome: Outcome) -> None:
        super().__init__(str(outcome))
        self.outcome = outcome


UNKNOWN = "unknown"
"""Where a fact is a text and nobody tells it."""


@dataclass(frozen=True, slots=True)
class SubscriptionFacts:
    """What the vault side says about a subscription.

    `kind`: paid, trial, free, sponsored, msdn, legacy or unknown. `tenant_id` is empty where nobody says whose it is.
    """

    id: str
    name: str
    tenant_id: str
    kind: str
    protection: str
    """Mandatory retention: `NotRegistered`, `Pending`, `Registered` (R-055) or unknown."""
    state: str
    """`Enabled` or `Cancelled`."""


@dataclass(frozen=True, slots=True)
class KeyFacts:
    """What is known about one key version and the vault it lies in. None is *unknown*: a foreign vault may not say."""

    key_uri: str
    """Full identifier with version: the current one where the question named none."""
    vault: str
    kty: str
    size: int
    """Bits of the RSA modulus; 0 for keys of other types."""
    enabled: bool
    key_ops: frozenset[str]
    not_before: int | None
    """Milliseconds since the epoch; None: not set."""
    expires: int | None
    recovery_level: str | None
    region: str | None
    subscription: SubscriptionFacts | None
    tenant_id: str | None
    permissions: frozenset[str] | None
    """Key permissions the asking application holds on the vault."""


@dataclass(frozen=True, slots=True)
class WrappedValue:
    """The answer of wrapKey: which key version wrapped, and the RSA-OAEP-256 ciphertext."""

    key_uri: str
    value: bytes


class Vaults(Protocol):
    """Calls are made as one of the service's applications (R-014), on behalf of one tenant.

    Every method raises `VaultFailure`; an implementation classifies its own errors, nobody above it parses messages.
    """

    def key_facts(self, tenant_id: str, application: str, key_uri: str) -> KeyFacts:
        """Facts of a key, current version where the URI names none. Needs `get`, and answers without it where the vault side can."""
        ...

    def subscription_facts(self, tenant_id: str, name: str) -> SubscriptionFacts:
        """Facts of a subscription by name or id."""
        ...

    def wrap(self, tenant_id: str, application: str, key_uri: str, value: bytes) -> WrappedValue:
        """Wrap (wrapKey) with RSA-OAEP-256, always by the vault itself, so that a missing permission shows (R-074)."""
        ...

    def unwrap(self, tenant_id: str, application: str, key_uri: str, value: bytes) -> bytes:
        """Unwrap (unwrapKey) with RSA-OAEP-256; the URI must name the version that wrapped."""
        ...
