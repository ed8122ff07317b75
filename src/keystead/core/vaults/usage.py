"""What a key may be used for (R-024, R-028 to R-032): key kinds, operations, tags, and the decision over one operation."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from keystead.core.errors import InvalidRequest, PreconditionFailed
from keystead.core.ids import KEY_NAME

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


class KeyType(StrEnum):
    """Key types. `-HSM` asks for hardware, which only a premium vault offers (R-018)."""

    RSA = "RSA"
    RSA_HSM = "RSA-HSM"
    EC = "EC"
    EC_HSM = "EC-HSM"

    @property
    def is_rsa(self) -> bool:
        """Only RSA keys wrap."""
        return self in _RSA_TYPES

    @property
    def is_hsm(self) -> bool:
        """Whether the kind asks for hardware."""
        return self in {KeyType.RSA_HSM, KeyType.EC_HSM}


_RSA_TYPES = frozenset({KeyType.RSA, KeyType.RSA_HSM})


class KeyOperation(StrEnum):
    """Cryptographic operations, as `key_ops` names them."""

    ENCRYPT = "encrypt"
    DECRYPT = "decrypt"
    SIGN = "sign"
    VERIFY = "verify"
    WRAP_KEY = "wrapKey"
    UNWRAP_KEY = "unwrapKey"


RSA_SIZES = (2_048, 3_072, 4_096)
"""Bits of the modulus (R-023)."""
CURVES = ("P-256", "P-256K", "P-384", "P-521")
MAX_TAGS = 15
MAX_TAG_CHARACTERS = 256
"""Of a name, and of a value (R-032)."""

_RSA_OPERATIONS = frozenset(KeyOperation)
_EC_OPERATIONS = frozenset({KeyOperation.SIGN, KeyOperation.VERIFY})
_WRAPPING = frozenset({KeyOperation.WRAP_KEY, KeyOperation.UNWRAP_KEY})
_OUTSIDE_WINDOW = frozenset({KeyOperation.UNWRAP_KEY, KeyOperation.DECRYPT, KeyOperation.VERIFY})
_OPERATIONS = {operation.lower(): operation for operation in KeyOperation}


@dataclass(frozen=True, slots=True)
class KeyKind:
    """Type and size: bits of the modulus for RSA (else 0), the curve for EC (else empty)."""

    kty: KeyType
    size: int
    curve: str


@dataclass(frozen=True, slots=True)
class KeyUse:
    """The attributes of a key version that the decision looks at. Times in milliseconds since the epoch; None: not set."""

    kty: KeyType
    key_ops: frozenset[KeyOperation]
    enabled: bool
    not_before: int | None
    expires: int | None


def key_kind(kty: str, size: int | None, curve: str | None) -> KeyKind:
    """A kind of key that can be made: RSA of 2048 (default), 3072 or 4096 bits, or EC on one of four curves.

    Raises:
        InvalidRequest: `key_type_invalid` or `key_size_invalid`.
    """
    try:
        kind = KeyType(kty.upper())
    except ValueError:
        raise InvalidRequest("key_type_invalid", f"{kty!r} is not a key type", f"use one of {', '.join(KeyType)}") from None
    if kind.is_rsa:
        bits = RSA_SIZES[0] if size is None else size
        if bits not in RSA_SIZES or curve is not None:
            raise InvalidRequest(
                "key_size_invalid", f"{curve or bits} is not a size of an RSA key", f"use one of {', '.join(map(str, RSA_SIZES))}"
            )
        return KeyKind(kind, bits, "")
    chosen = curve or CURVES[0]
    if chosen not in CURVES or size is not None:
        raise InvalidRequest("key_size_invalid", f"{size or chosen} is not a curve", f"use one of {', '.join(CURVES)}")
    return KeyKind(kind, 0, chosen)


def key_name(text: str) -> str:
    """A valid key name (R-019).

    Raises:
        InvalidRequest: `key_name_invalid`.
    """
    if not KEY_NAME.fullmatch(text):
        raise InvalidRequest("key_name_invalid", f"{text!r} is not a key name", "use 1 to 127 letters, digits or '-'")
    return text


def key_operations(names: Iterable[str] | None, kty: KeyType) -> frozenset[KeyOperation]:
    """The named operations, whatever their case; all that the key type can do where none are named.

    Raises:
        InvalidRequest: `key_operation_invalid`: unknown, none, or not one that the type can do.
    """
    possible = _RSA_OPERATIONS if kty.is_rsa else _EC_OPERATIONS
    if names is None:
        return possible
    chosen = set()
    for name in names:
        operation = _OPERATIONS.get(name.strip().lower())
        if operation not in possible:
            raise InvalidRequest(
                "key_operation_invalid",
                f"{name!r} is not an operation of a key of type {kty}",
                f"use some of {', '.join(sorted(possible))}",
            )
        chosen.add(operation)
    if not chosen:
        raise InvalidRequest("key_operation_invalid", "a key needs at least one operation", f"use some of {', '.join(sorted(possible))}")
    return frozenset(chosen)


def key_tags(tags: Mapping[str, str]) -> dict[str, str]:
    """Valid tags.

    Raises:
        InvalidRequest: `tags_invalid` (R-032).
    """
    if len(tags) > MAX_TAGS or any(
        not name or len(name) > MAX_TAG_CHARACTERS or len(value) > MAX_TAG_CHARACTERS for name, value in tags.items()
    ):
        raise InvalidRequest(
            "tags_invalid",
            "the tags break a limit",
            f"use at most {MAX_TAGS} tags with names and values of at most {MAX_TAG_CHARACTERS} characters",
        )
    return dict(tags)


def check_use(operation: KeyOperation, use: KeyUse, now: int, name: str) -> None:
    """Let an operation through, or raise `PreconditionFailed`.

    Outside its activation and expiry dates an enabled key still opens what it closed (R-030); the dates are inclusive at the start
    and exclusive at the end, without leeway.

    Args:
        operation: what is asked for.
        use: the key version's attributes.
        now: milliseconds since the epoch.
        name: the key version's identifier, for the text.

    Raises:
        PreconditionFailed: `key_disabled`, `key_type_cannot_wrap`, `key_operation_not_allowed`, `key_not_yet_valid`, `key_expired`.
    """
    if not use.enabled:
        raise PreconditionFailed("key_disabled", f"the key {name} is disabled", "enable it: keystead key enable VAULT NAME")
    if operation in _WRAPPING and not use.kty.is_rsa:
        raise PreconditionFailed("key_type_cannot_wrap", f"the key {name} is of type {use.kty}, which cannot wrap", "use an RSA key")
    if operation not in use.key_ops:
        raise PreconditionFailed(
            "key_operation_not_allowed",
            f"the key {name} does not allow {operation}",
            f"keystead key update VAULT NAME --ops with {operation}",
        )
    if operation in _OUTSIDE_WINDOW:
        return
    if use.not_before is not None and now < use.not_before:
        raise PreconditionFailed("key_not_yet_valid", f"the key {name} is not yet active", "wait for its activation date or change it")
    if use.expires is not None and now >= use.expires:
        raise PreconditionFailed(
            "key_expired", f"the key {name} has expired", "give it a later expiry date: keystead key update VAULT NAME --expires 9999-12-31"
        )
