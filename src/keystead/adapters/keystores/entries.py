"""What a key of the store is and does, by compartment: AES-256, or RSA-2048 for the availability keys of files (docs/spec/keystore.md)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_der_private_key

from keystead.adapters.keystores import boxes
from keystead.adapters.keystores.boxes import WrongBox
from keystead.core.formats.aead import Aes
from keystead.core.secret import KEY_BYTES, SecretKey
from keystead.ports.keystore import Compartment

if TYPE_CHECKING:
    from keystead.core.ids import RandomBytes

RSA_BITS = 2_048
RSA_EXPONENT = 65_537
RSA_COMPARTMENTS = frozenset({Compartment.AVAILABILITY_FILES})
RSA_VALUE_BYTES = KEY_BYTES
"""What an RSA key wraps: exactly one key. (OAEP with SHA-256 would take up to 190 bytes.)"""


class Entry(Protocol):
    """One key of the store, ready for one call."""

    def seal(self, value: bytes, fields: tuple[bytes, ...]) -> bytes:
        """The value in a box that belongs to the fields (compartment, key id, the caller's context)."""
        ...

    def open(self, box: bytes, fields: tuple[bytes, ...]) -> bytes:
        """Raises WrongBox: another key, other fields, or changed bytes."""
        ...


def fresh_material(compartment: Compartment, random: RandomBytes) -> bytes:
    """A fresh key as it is stored: 32 random bytes, or an RSA-2048 private key in PKCS #8 (RFC 5958), DER.

    An RSA key takes a tenth of a second or more, so make it outside the database's write lock.
    """
    if compartment in RSA_COMPARTMENTS:
        key = rsa.generate_private_key(RSA_EXPONENT, RSA_BITS)
        return key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    return random(KEY_BYTES)


def entry_of(compartment: Compartment, material: bytes, random: RandomBytes) -> Entry:
    """The key that `fresh_material` made; `random` gives nonces.

    Raises:
        ValueError: the material is none of this compartment.
    """
    return RsaEntry(material) if compartment in RSA_COMPARTMENTS else AesEntry(material, random)


class AesEntry:
    """AES-256-GCM, fields as associated data."""

    __slots__ = ("_cipher", "_random")

    def __init__(self, material: bytes, random: RandomBytes) -> None:
        self._cipher = Aes(SecretKey(material))
        self._random = random

    def __repr__(self) -> str:
        return "AesEntry(...)"

    def seal(self, value: bytes, fields: tuple[bytes, ...]) -> bytes:
        """Seal a value."""
        return boxes.seal(self._cipher, boxes.Kind.VALUE, value, fields, self._random)

    def open(self, box: bytes, fields: tuple[bytes, ...]) -> bytes:
        """Open what `seal` returned."""
        return boxes.unseal(self._cipher, boxes.Kind.VALUE, box, fields)


class RsaEntry:
    """RSA-OAEP with SHA-256 (RFC 8017 section 7.1), the caller's context as the label.

    Anybody with the public key could make such a box; it never leaves the store. What vouches for a value is the envelope it comes in
    (docs/spec/envelope.md) and the check value of the key inside.
    """

    __slots__ = ("_key",)

    def __init__(self, material: bytes) -> None:
        # Primality was tested when the key was made, and the material is authenticated: testing again costs 50 ms a call.
        key = load_der_private_key(material, None, unsafe_skip_rsa_key_validation=True)
        if not isinstance(key, rsa.RSAPrivateKey) or key.key_size != RSA_BITS:
            raise ValueError("not an RSA-2048 private key")
        self._key = key

    def __repr__(self) -> str:
        return "RsaEntry(...)"

    def seal(self, value: bytes, fields: tuple[bytes, ...]) -> bytes:
        """Seal a value of 32 bytes; the library draws OAEP's seed from the operating system's generator itself."""
        return self._key.public_key().encrypt(value, _oaep(fields))

    def open(self, box: bytes, fields: tuple[bytes, ...]) -> bytes:
        """Open what `seal` returned; one answer for every way of not opening."""
        if len(box) != boxes.RSA_BOX_BYTES:
            raise WrongBox
        try:
            value = self._key.decrypt(box, _oaep(fields))
        except ValueError:
            raise WrongBox from None
        if len(value) != RSA_VALUE_BYTES:
            raise WrongBox
        return value


def _oaep(fields: tuple[bytes, ...]) -> padding.OAEP:
    *_where, context = fields
    return padding.OAEP(mgf=padding.MGF1(SHA256()), algorithm=SHA256(), label=context)
