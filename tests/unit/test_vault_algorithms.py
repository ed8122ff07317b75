"""Which algorithm fits which key, and what it takes; the results against the library called directly."""

from __future__ import annotations

import hashlib
from itertools import product

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA1, SHA256, SHA384, SHA512, HashAlgorithm

from keystead.core.errors import IntegrityFailure, InvalidRequest
from keystead.core.vaults import algorithms
from keystead.core.vaults.algorithms import Encryption, Signature
from keystead.core.vaults.usage import KeyKind, KeyType
from keystead.vault import material

MESSAGE = b"what is signed is its digest"
RSA = KeyKind(KeyType.RSA, 2_048, "")
P256 = KeyKind(KeyType.EC, 0, "P-256")
EC_KINDS = {
    Signature.ES256: P256,
    Signature.ES256K: KeyKind(KeyType.EC_HSM, 0, "P-256K"),
    Signature.ES384: KeyKind(KeyType.EC, 0, "P-384"),
    Signature.ES512: KeyKind(KeyType.EC_HSM, 0, "P-521"),
}
RSA_SIGNATURES = [algorithm for algorithm in Signature if algorithm not in EC_KINDS]
HASHES: dict[str, HashAlgorithm] = {"256": SHA256(), "384": SHA384(), "512": SHA512()}
OAEP: dict[Encryption, HashAlgorithm] = {Encryption.RSA_OAEP: SHA1(), Encryption.RSA_OAEP_256: SHA256()}  # noqa: S303 - the algorithm's own


@pytest.fixture(scope="module")
def rsa_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65_537, 2_048)


def digest_of(algorithm: Signature) -> bytes:
    return hashlib.new(f"sha{algorithm.fit.digest_bytes * 8}", MESSAGE).digest()


def hash_of(algorithm: Signature) -> HashAlgorithm:
    return HASHES[algorithm.removesuffix("K")[2:]]


def code_of(name: str, kind: KeyKind, *, signs: bool) -> str:
    try:
        _ = algorithms.signature(name, kind) if signs else algorithms.encryption(name, kind)
    except InvalidRequest as refused:
        return refused.code
    return ""


def test_each_algorithm_fits_its_own_keys_and_no_others() -> None:
    """R-024, R-026: RSA closes and signs; EC signs, each curve with one algorithm."""
    kinds = [RSA, KeyKind(KeyType.RSA_HSM, 4_096, ""), *EC_KINDS.values()]
    for algorithm, kind in product(Signature, kinds):
        fits = EC_KINDS[algorithm] == kind if algorithm in EC_KINDS else kind.kty.is_rsa
        assert code_of(algorithm, kind, signs=True) == ("" if fits else "algorithm_key_mismatch")
    for encryption, kind in product(Encryption, kinds):
        assert code_of(encryption, kind, signs=False) == ("" if kind.kty.is_rsa else "algorithm_key_mismatch")


@pytest.mark.parametrize("name", ["", "rs256", "RS1", "HS256", "none", "RSA-OAEP-512", "A256KW", "ES256 ", "RS256\x00", "x" * 5_000])
def test_other_names_are_no_algorithms(name: str) -> None:
    assert (code_of(name, RSA, signs=True), code_of(name, RSA, signs=False)) == ("algorithm_not_supported",) * 2
    with pytest.raises(InvalidRequest) as refused:
        algorithms.signature(name, P256)
    assert len(str(refused.value)) < 400


@pytest.mark.parametrize(("algorithm", "size"), list(product(Encryption, (2_048, 3_072, 4_096))))
def test_a_value_is_as_long_as_the_padding_leaves_room_for(algorithm: Encryption, size: int) -> None:
    """RFC 8017 sections 7.1.1 and 7.2.1."""
    kind = KeyKind(KeyType.RSA, size, "")
    most = size // 8 - {"RSA1_5": 11, "RSA-OAEP": 42, "RSA-OAEP-256": 66}[algorithm]
    for length in (1, most):
        algorithms.check_plain(algorithm, kind, bytes(length))
    for length in (0, most + 1):
        with pytest.raises(InvalidRequest, match="value_invalid"):
            algorithms.check_plain(algorithm, kind, bytes(length))


@pytest.mark.parametrize("algorithm", Signature)
def test_a_digest_is_as_long_as_its_hash(algorithm: Signature) -> None:
    length = 64 if "512" in algorithm else 48 if "384" in algorithm else 32
    algorithms.check_digest(algorithm, bytes(length))
    for wrong in (0, length - 1, length + 1, 20):
        with pytest.raises(InvalidRequest, match="digest_invalid"):
            algorithms.check_digest(algorithm, bytes(wrong))


def test_a_signature_is_there_and_bounded() -> None:
    for length in (0, algorithms.MAX_VALUE_BYTES + 1):
        with pytest.raises(InvalidRequest, match="signature_invalid"):
            algorithms.check_signature(bytes(length))


@pytest.mark.parametrize("algorithm", Encryption)
def test_what_we_close_the_library_opens_and_the_other_way_round(rsa_key: rsa.RSAPrivateKey, algorithm: Encryption) -> None:
    """R-026."""
    plain = padding.PKCS1v15()
    theirs = plain if algorithm not in OAEP else padding.OAEP(padding.MGF1(OAEP[algorithm]), OAEP[algorithm], None)
    longest = bytes(range(256))[: 256 - algorithm.overhead]
    for value in (b"k", bytes(32), longest):
        assert rsa_key.decrypt(material.encrypt(rsa_key, algorithm, value), theirs) == value
        assert material.decrypt(rsa_key, algorithm, rsa_key.public_key().encrypt(value, theirs)) == value


def test_another_paddings_value_does_not_open(rsa_key: rsa.RSAPrivateKey) -> None:
    closed = {algorithm: material.encrypt(rsa_key, algorithm, b"value") for algorithm in Encryption}
    texts = set()
    for opening, closing in product((Encryption.RSA_OAEP, Encryption.RSA_OAEP_256), Encryption):
        if opening is not closing:
            with pytest.raises(IntegrityFailure) as refused:
                material.decrypt(rsa_key, opening, closed[closing])
            texts.add(str(refused.value))
    assert len(texts) == 1
    assert material.decrypt(rsa_key, Encryption.RSA1_5, closed[Encryption.RSA_OAEP]) != b"value"


@pytest.mark.parametrize("algorithm", RSA_SIGNATURES)
def test_rsa_signatures_are_the_librarys(rsa_key: rsa.RSAPrivateKey, algorithm: Signature) -> None:
    digest, chosen = digest_of(algorithm), hash_of(algorithm)
    pss = padding.PSS(padding.MGF1(chosen), chosen.digest_size)
    scheme = pss if algorithm.startswith("PS") else padding.PKCS1v15()
    ours = material.sign(rsa_key, algorithm, digest)
    rsa_key.public_key().verify(ours, MESSAGE, scheme, chosen)
    theirs = rsa_key.sign(MESSAGE, scheme, chosen)
    assert material.verify(rsa_key, algorithm, digest, theirs)
    other = rsa.generate_private_key(65_537, 2_048)
    for wrong in (b"", ours[:-1], ours + b"\x00", bytes(256), bytes([ours[0] ^ 1]) + ours[1:]):
        assert not material.verify(rsa_key, algorithm, digest, wrong)
    assert not material.verify(other, algorithm, digest, ours)
    assert not material.verify(rsa_key, algorithm, bytes(len(digest)), ours)


def test_pkcs1_signatures_are_the_same_every_time(rsa_key: rsa.RSAPrivateKey) -> None:
    digest = digest_of(Signature.RS256)
    assert material.sign(rsa_key, Signature.RS256, digest) == rsa_key.sign(MESSAGE, padding.PKCS1v15(), SHA256())


@pytest.mark.parametrize("algorithm", EC_KINDS)
def test_ec_signatures_are_r_and_s(algorithm: Signature) -> None:
    """RFC 7518 section 3.4: both in full length, one after the other."""
    key = material.generate(EC_KINDS[algorithm])
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    digest, half = digest_of(algorithm), algorithm.fit.half
    assert half == (key.key_size + 7) // 8
    ours = material.sign(key, algorithm, digest)
    assert len(ours) == 2 * half
    der = encode_dss_signature(int.from_bytes(ours[:half], "big"), int.from_bytes(ours[half:], "big"))
    key.public_key().verify(der, MESSAGE, ec.ECDSA(hash_of(algorithm)))
    r, s = decode_dss_signature(key.sign(MESSAGE, ec.ECDSA(hash_of(algorithm))))
    assert material.verify(key, algorithm, digest, r.to_bytes(half, "big") + s.to_bytes(half, "big"))
    for wrong in (b"", ours[:-1], ours + b"\x00", der, bytes(2 * half), b"\xff" * (2 * half), ours[half:] + ours[:half]):
        assert not material.verify(key, algorithm, digest, wrong)


def test_the_vector_of_rfc_7515() -> None:
    """Appendix A.3: an ES256 signature made elsewhere, R and S as they travel."""
    x = int.from_bytes(bytes([127, 205, 206, 39, 112, 246, 196, 93, 65, 131, 203, 238, 111, 219, 75, 123, 88, 7, 51, 53, 123, 233, 239, 19, 186, 207, 110, 60, 123, 209, 84, 69]), "big")  # fmt: skip
    y = int.from_bytes(bytes([199, 241, 68, 205, 27, 189, 155, 126, 135, 44, 223, 237, 185, 238, 185, 244, 179, 105, 93, 110, 169, 11, 36, 173, 138, 70, 35, 40, 133, 136, 229, 173]), "big")  # fmt: skip
    r = bytes([14, 209, 33, 83, 121, 99, 108, 72, 60, 47, 127, 21, 88, 7, 212, 2, 163, 178, 40, 3, 58, 249, 124, 126, 23, 129, 154, 195, 22, 158, 166, 101])  # fmt: skip
    s = bytes([197, 10, 7, 211, 140, 60, 112, 229, 216, 241, 45, 175, 8, 74, 84, 128, 166, 101, 144, 197, 242, 147, 80, 154, 143, 63, 127, 138, 131, 163, 84, 213])  # fmt: skip
    signed = b"eyJhbGciOiJFUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ"
    der = algorithms.der_signature(r + s, Signature.ES256.fit.half)
    assert der is not None
    public = ec.EllipticCurvePublicNumbers(x, y, ec.SECP256R1()).public_key()
    public.verify(der, signed, ec.ECDSA(SHA256()))
    assert algorithms.raw_signature(der, 32) == r + s
    with pytest.raises(InvalidSignature):
        public.verify(der, signed + b"x", ec.ECDSA(SHA256()))
