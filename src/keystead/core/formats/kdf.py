"""Keys from keys: HKDF-SHA-256 (RFC 5869).

A key that others are derived from is never used to encrypt by itself: each use has a key of its own, told apart by its
purpose.
"""

from __future__ import annotations

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from keystead.core.door import key_bytes
from keystead.core.secret import KEY_BYTES, SecretKey


def derive(key: SecretKey, purpose: str) -> SecretKey:
    """The key of one purpose: HKDF-SHA-256 over the key, with the purpose as `info` (RFC 5869 sections 2.2 and 2.3).

    There is no salt: the input is a uniformly random key already, for which RFC 5869 section 3.1 makes it optional.

    Args:
        key: 32 random bytes. Never a passphrase: HKDF does not slow down guessing.
        purpose: what the derived key is for, UTF-8. Two uses share a key exactly when their purposes are equal.

    Raises:
        ValueError: the purpose is empty; such a key would belong to nothing.
    """
    if not purpose:
        raise ValueError("a derived key has a purpose")
    return SecretKey(HKDF(algorithm=SHA256(), length=KEY_BYTES, salt=None, info=purpose.encode()).derive(key_bytes(key)))
