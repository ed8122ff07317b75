"""The OpenID Connect providers of tenants, as far as Keystead needs them: their public keys."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class IssuerKey:
    """One public key of an issuer.

    Attributes:
        id: its `kid`.
        algorithm: its `alg`; empty where the issuer does not say.
        jwk: the key as JSON (RFC 7517), with public members only.
    """

    id: str
    algorithm: str
    jwk: str


class Issuers(Protocol):
    """Asks issuers for their keys, and remembers them. Nobody retries above it.

    Implementations: discovery over HTTP (`adapters/oidc.py`); none, where the operator allows no issuer.
    """

    def allows(self, issuer: str) -> bool:
        """Whether the operator allows an issuer, as an exact address."""
        ...

    def key(self, issuer: str, key_id: str) -> IssuerKey | None:
        """The key of an id, as the issuer publishes it now, as far as is known; None when it publishes none.

        An unknown id makes it ask again, at most once a minute; what is known is asked for again from time to time.

        Raises:
            Unavailable: the issuer cannot be asked, and what is known is too old, or does not hold the key.
        """
        ...


class NoIssuers:
    """No issuer is allowed."""

    def allows(self, issuer: str) -> bool:  # noqa: ARG002 - the port gives it
        """Never."""
        return False

    def key(self, issuer: str, key_id: str) -> IssuerKey | None:  # noqa: ARG002 - as above
        """None."""
        return None
