"""Key bytes, held so that they cannot be shown by accident.

A `SecretKey` has no repr of its bytes, compares in constant time, refuses pickling and copying, and gives its bytes only to
`keystead.core.door.key_bytes`: one function that can be searched for, and that import contracts keep to a short list of modules.

Python cannot wipe memory: see docs/limitations.md.
"""

from __future__ import annotations

from typing import NoReturn

from cryptography.hazmat.primitives import constant_time

KEY_BYTES = 32
"""Length of every symmetric key in the hierarchy: AES-256 (design section 4)."""


class SecretKey:
    """32 bytes of key material.

    Raises:
        ValueError: the material is not exactly 32 bytes long.
    """

    __slots__ = ("__material",)

    def __init__(self, material: bytes) -> None:
        if len(material) != KEY_BYTES:
            raise ValueError(f"a secret key is {KEY_BYTES} bytes, not {len(material)}")
        self.__material = bytes(material)

    def __repr__(self) -> str:
        return "SecretKey(...)"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, SecretKey):
            return NotImplemented
        return constant_time.bytes_eq(self.__material, other.__material)

    __hash__ = None  # type: ignore[assignment]  # a key is never a dictionary key: hashing would leave traces of it

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError("key material is never pickled or copied")

    def _expose(self) -> bytes:
        """For `keystead.core.door` alone."""
        return self.__material
