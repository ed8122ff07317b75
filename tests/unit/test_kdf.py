"""HKDF-SHA-256 against RFC 5869, worked out a second time from HMAC alone."""

from __future__ import annotations

import hashlib
import hmac
from typing import TYPE_CHECKING

import pytest

from keystead.core.door import key_bytes
from keystead.core.formats.kdf import derive
from keystead.core.secret import SecretKey

if TYPE_CHECKING:
    from collections.abc import Callable

KEY = SecretKey(bytes(range(32)))


def hkdf(material: bytes, salt: bytes, info: bytes, length: int) -> bytes:
    """RFC 5869 sections 2.2 and 2.3."""
    extracted = hmac.digest(salt or bytes(32), material, hashlib.sha256)
    output = block = b""
    for counter in range(1, 256):
        if len(output) >= length:
            break
        block = hmac.digest(extracted, block + info + bytes([counter]), hashlib.sha256)
        output += block
    return output[:length]


def test_the_second_implementation_agrees_with_rfc_5869_appendix_a() -> None:
    first = hkdf(b"\x0b" * 22, bytes(range(13)), bytes(range(0xF0, 0xFA)), 42)
    third = hkdf(b"\x0b" * 22, b"", b"", 42)
    assert first.hex() == "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865"
    assert third.hex() == "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d9d201395faa4b61a96c8"


@pytest.mark.parametrize("purpose", ["wrap", "keystead/lookup", "für alles", "x" * 300])
def test_a_derived_key_is_hkdf_of_key_and_purpose(purpose: str) -> None:
    assert key_bytes(derive(KEY, purpose)) == hkdf(bytes(range(32)), b"", purpose.encode(), 32)


def test_purposes_and_keys_tell_derived_keys_apart() -> None:
    other = SecretKey(b"\x01" * 32)
    assert derive(KEY, "wrap") == derive(KEY, "wrap")
    assert len({key_bytes(derive(key, purpose)) for key in (KEY, other) for purpose in ("wrap", "check", "Wrap")}) == 6


def test_an_empty_purpose_is_refused() -> None:
    with pytest.raises(ValueError, match="purpose"):
        derive(KEY, "")


@pytest.mark.parametrize("show", [repr, str])
def test_nothing_shows_a_derived_key(show: Callable[[object], str]) -> None:
    derived = derive(KEY, "wrap")
    assert show(derived) == "SecretKey(...)"
