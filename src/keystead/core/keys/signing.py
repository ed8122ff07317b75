"""The private key that access tokens are signed with."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from keystead.core.door import key_bytes

if TYPE_CHECKING:
    from keystead.core.secret import SecretKey


def private_key(secret: SecretKey) -> Ed25519PrivateKey:
    """The Ed25519 key of 32 secret bytes (RFC 8032 section 5.1.5)."""
    return Ed25519PrivateKey.from_private_bytes(key_bytes(secret))
