from __future__ import annotations

import copy
import pickle

import pytest

from keystead.core.formats.aead import Aes, TagMismatchError
from keystead.core.secret import SecretKey

KEY = Aes(SecretKey(bytes(range(32))))
NONCE = bytes(12)


def test_a_cipher_shows_nothing_and_is_not_copied() -> None:
    assert repr(KEY) == "Aes(...)"
    with pytest.raises(TypeError, match="never pickled"):
        pickle.dumps(KEY)
    with pytest.raises(TypeError, match="never pickled"):
        copy.copy(KEY)


@pytest.mark.parametrize("size", [8, 11, 13, 16])
def test_only_nonces_of_96_bits_are_taken(size: int) -> None:
    for act in (KEY.seal, KEY.open):
        with pytest.raises(ValueError, match="a nonce is 12 bytes"):
            act(bytes(size), bytes(16), b"bound")
    for act_into in (KEY.seal_into, KEY.open_into):
        with pytest.raises(ValueError, match="a nonce is 12 bytes"):
            act_into(bytes(size), bytes(16), b"bound", bytearray(32))


def test_associated_data_is_never_empty() -> None:
    for act in (KEY.seal, KEY.open):
        with pytest.raises(ValueError, match="never empty"):
            act(NONCE, bytes(16), b"")
    for act_into in (KEY.seal_into, KEY.open_into):
        with pytest.raises(ValueError, match="never empty"):
            act_into(NONCE, bytes(16), b"", bytearray(32))


def test_a_box_that_does_not_open_leaves_no_plaintext_in_the_buffer() -> None:
    box = bytearray(KEY.seal(NONCE, b"content" * 100, b"bound"))
    box[-1] ^= 1
    out = bytearray(b"\xff" * 700)
    with pytest.raises(TagMismatchError):
        KEY.open_into(NONCE, box, b"bound", out)
    assert out == bytes(700)


def test_both_ways_of_sealing_agree() -> None:
    out = bytearray(7 + 16)
    KEY.seal_into(NONCE, b"content", b"bound", out)
    assert bytes(out) == KEY.seal(NONCE, b"content", b"bound")
    back = bytearray(7)
    KEY.open_into(NONCE, out, b"bound", back)
    assert back == b"content"
