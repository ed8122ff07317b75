"""What holds for every name, value and signature that is handed to a vault."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st

from keystead.core.errors import InvalidRequest
from keystead.core.vaults import algorithms
from keystead.core.vaults.algorithms import Encryption, Signature
from keystead.core.vaults.usage import CURVES, RSA_SIZES, KeyKind, KeyType
from keystead.vault import material

if TYPE_CHECKING:
    from collections.abc import Callable

kinds = st.one_of(
    st.builds(KeyKind, st.sampled_from([KeyType.RSA, KeyType.RSA_HSM]), st.sampled_from(RSA_SIZES), st.just("")),
    st.builds(KeyKind, st.sampled_from([KeyType.EC, KeyType.EC_HSM]), st.just(0), st.sampled_from(CURVES)),
)
names = st.one_of(st.sampled_from([*Encryption, *Signature]).map(str), st.text(max_size=80))
halves = st.sampled_from([32, 48, 66])


@cache
def curve_key(algorithm: Signature) -> material.PrivateKey:
    return material.generate(KeyKind(KeyType.EC, 0, algorithm.fit.curve))


def code_of(attempt: Callable[[], object]) -> str:
    try:
        attempt()
    except InvalidRequest as refused:
        return refused.code
    return ""


@given(names, kinds)
def test_a_name_gives_its_algorithm_or_a_refusal(name: str, kind: KeyKind) -> None:
    closes = "algorithm_not_supported" if name not in set(Encryption) else "" if kind.kty.is_rsa else "algorithm_key_mismatch"
    assert code_of(lambda: algorithms.encryption(name, kind)) == closes
    signs = "algorithm_not_supported"
    if name in set(Signature):
        signs = "" if Signature(name).fit.curve == kind.curve else "algorithm_key_mismatch"
    assert code_of(lambda: algorithms.signature(name, kind)) == signs


@given(st.data(), halves)
def test_a_raw_signature_has_one_encoding(data: st.DataObject, half: int) -> None:
    raw = data.draw(st.binary(min_size=2 * half, max_size=2 * half))
    der = algorithms.der_signature(raw, half)
    assert der is not None
    assert algorithms.raw_signature(der, half) == raw


@given(st.binary(max_size=200), halves)
def test_a_signature_of_another_length_is_none(raw: bytes, half: int) -> None:
    assert (algorithms.der_signature(raw, half) is None) == (len(raw) != 2 * half)


@given(st.sampled_from([Signature.ES256, Signature.ES256K, Signature.ES384, Signature.ES512]), st.binary(min_size=1, max_size=140))
def test_made_up_signatures_are_not_valid_and_break_nothing(algorithm: Signature, signature: bytes) -> None:
    assert not material.verify(curve_key(algorithm), algorithm, bytes(algorithm.fit.digest_bytes), signature)


@given(st.sampled_from(Encryption), kinds, st.integers(0, 600))
def test_a_value_fits_when_it_and_its_padding_fill_at_most_the_modulus(algorithm: Encryption, kind: KeyKind, length: int) -> None:
    fits = 0 < length <= kind.size // 8 - algorithm.overhead
    assert code_of(lambda: algorithms.check_plain(algorithm, kind, bytes(length))) == ("" if fits else "value_invalid")
