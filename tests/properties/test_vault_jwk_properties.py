"""JSON Web Keys of vaults: what goes out comes back the same, one encoding each, and nothing but a whole key goes in (R-023, R-025)."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given, settings
from hypothesis import strategies as st

from keystead.core.errors import InvalidRequest
from keystead.core.vaults import jwk

CURVES: dict[str, ec.EllipticCurve] = {"P-256": ec.SECP256R1(), "P-256K": ec.SECP256K1(), "P-384": ec.SECP384R1(), "P-521": ec.SECP521R1()}
ORDERS = {"P-256": 2**255, "P-256K": 2**255, "P-384": 2**383, "P-521": 2**520}
"""Below the order of each curve: any private key up to here is one."""


def number(value: int, size: int = 0) -> str:
    return jwk.encode(value.to_bytes(size or (value.bit_length() + 7) // 8, "big"))


@cache
def rsa_members(bits: int = 2_048, exponent: int = 65_537) -> dict[str, str]:
    numbers = rsa.generate_private_key(exponent, bits).private_numbers()
    named = {"d": numbers.d, "p": numbers.p, "q": numbers.q, "dp": numbers.dmp1, "dq": numbers.dmq1, "qi": numbers.iqmp}
    return {name: number(value) for name, value in {"n": numbers.public_numbers.n, "e": exponent, **named}.items()}


def ec_members(curve: str, private: int) -> dict[str, str]:
    point = ec.derive_private_key(private, CURVES[curve]).public_key().public_numbers()
    size = (CURVES[curve].key_size + 7) // 8
    return {"crv": curve, "x": number(point.x, size), "y": number(point.y, size), "d": number(private, size)}


def public_of(private: Any) -> dict[str, str]:
    return jwk.public_members(private.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))


def refused(kty: str, members: dict[str, str]) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as raised:
        jwk.private_key(kty, members, hsm=False)
    return raised.value


@given(st.binary(max_size=100))
def test_bytes_have_one_encoding(value: bytes) -> None:
    assert jwk.decode(jwk.encode(value)) == value


@given(st.text(max_size=20) | st.text(alphabet="AB-_=+/ \n\tz09", max_size=12))
def test_what_is_decoded_is_encoded_the_same(text: str) -> None:
    try:
        value = jwk.decode(text)
    except ValueError:
        return
    assert jwk.encode(value) == text


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(sorted(CURVES)), st.data())
def test_ec_keys_come_in_and_their_public_half_goes_out(curve: str, data: st.DataObject) -> None:
    members = ec_members(curve, data.draw(st.integers(1, ORDERS[curve] - 1)))
    private, kind = jwk.private_key("EC", members, hsm=False)
    assert (kind.kty, kind.curve) == ("EC", curve)
    assert public_of(private) == {name: members[name] for name in ("crv", "x", "y")}


@pytest.mark.parametrize("bits", [2_048, 3_072])
def test_rsa_keys_come_in_and_their_public_half_goes_out(bits: int) -> None:
    members = rsa_members(bits)
    private, kind = jwk.private_key("RSA", {**members, "crv": "", "x": ""}, hsm=True)
    assert (kind.kty, kind.size) == ("RSA-HSM", bits)
    assert public_of(private) == {name: members[name] for name in ("n", "e")}


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(["n", "d", "p", "q", "dp", "dq", "qi"]), st.integers(0, 2_047))
def test_no_rsa_key_with_one_bit_changed_is_taken(member: str, bit: int) -> None:
    members = dict(rsa_members())
    value = int.from_bytes(jwk.decode(members[member]), "big") ^ (1 << bit)
    members[member] = number(value) if value else ""
    assert refused("RSA", members).code in {"import_invalid", "key_size_invalid"}


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(sorted(CURVES)), st.sampled_from(["x", "y", "d"]), st.integers(0, 255))
def test_no_ec_key_with_one_bit_changed_is_taken(curve: str, member: str, bit: int) -> None:
    members = ec_members(curve, 12_345)
    raw = bytearray(jwk.decode(members[member]))
    raw[-1 - bit // 8] ^= 1 << (bit % 8)
    members[member] = jwk.encode(bytes(raw))
    assert refused("EC", members).code == "import_invalid"


@pytest.mark.parametrize("member", ["n", "e", "d", "p", "q", "dp", "dq", "qi"])
def test_a_member_that_is_missing_padded_or_huge(member: str) -> None:
    members = rsa_members()
    for wrong in ("", members[member] + "=", " " + members[member], "A" * 10_000, "\x00", "ä"):
        assert refused("RSA", {**members, member: wrong}).code == "import_invalid"


def test_sizes_and_exponents_that_are_not_made_are_not_imported() -> None:
    assert refused("RSA", rsa_members(1_024)).code == "key_size_invalid"
    assert refused("RSA", rsa_members(2_048, 3)).code == "import_invalid"
    assert refused("EC", {**ec_members("P-256", 5), "crv": "P-224"}).code == "key_size_invalid"
    assert refused("EC", {**ec_members("P-256", 5), "crv": "P-256K"}).code == "import_invalid"


def test_no_error_repeats_what_was_given_R_025() -> None:
    members = dict(rsa_members())
    members["d"] = members["p"]
    error = refused("RSA", members)
    told = f"{error} {error!r} {error.__cause__} {error.__context__}"
    assert not any(secret in told for name, secret in members.items() if name != "e")


@settings(max_examples=200, deadline=None)
@given(
    st.sampled_from(["RSA", "EC", "RSA-HSM", "ec-hsm", "oct", ""]) | st.text(max_size=8),
    st.dictionaries(
        st.sampled_from([*jwk.PUBLIC_MEMBERS, *jwk.PRIVATE_MEMBERS]),
        st.sampled_from(["P-256", "P-521", "AQAB", "AA", ""]) | st.text(max_size=60) | st.binary(max_size=70).map(jwk.encode),
    ),
)
def test_invented_keys_are_refused_and_nothing_else_happens(kty: str, members: dict[str, str]) -> None:
    assert refused(kty, members).code in {"import_invalid", "key_size_invalid", "key_type_invalid"}
