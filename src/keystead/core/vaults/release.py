"""Key release: the policy that says to whom an exportable key may be given, and how it is wrapped for them (docs/spec/key-release.md).

A *release policy* names authorities that attest environments, and for each what their tokens must claim:

    policy      {"version": "1.0.0", "anyOf": [authority, ...]}
    authority   {"authority": "https://...", "anyOf" or "allOf": [condition, ...]}
    condition   {"claim": name, operator: value} or {"anyOf" or "allOf": [condition, ...]}
    operator    equals, notEquals, less, lessOrEquals, greater, greaterOrEquals, exists

A claim's name leads into nested objects by dots. A claim that is not there meets no condition but `"exists": false`. Values are compared
with values of their own kind alone: true is not 1, and "1" is not 1. Whatever is not in this grammar makes the whole policy invalid: a
policy that is half understood could release a key.

A key is exportable or not from its making on. An exportable key has a policy and is of a hardware type, as the services do it; a key that is
not exportable is never released, and no call reads its private half (R-025).
"""

from __future__ import annotations

import json
import math
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, NoReturn

from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.hashes import SHA1, SHA256, SHA384
from cryptography.hazmat.primitives.keywrap import aes_key_unwrap_with_padding, aes_key_wrap_with_padding

from keystead.core.errors import Forbidden, IntegrityFailure, InvalidRequest, PreconditionFailed

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from keystead.core.ids import RandomBytes
    from keystead.core.vaults.usage import KeyType

CONTENT_TYPE = "application/json; charset=utf-8"
"""The only one of a policy."""
MAX_POLICY_BYTES = 10 * 1024
"""Of a policy's document."""
MAX_AUTHORITIES = 20
MAX_CONDITIONS = 200
"""In a whole policy."""
MAX_DEPTH = 8
"""Conditions within one another."""
MAX_CLAIM, MAX_CLAIM_PARTS, MAX_VALUE, MAX_NONCE = 256, 8, 1_024, 1_024
"""Characters; parts between dots; characters of a text to compare with; characters of a caller's nonce."""
MAX_ENVIRONMENT_KEYS = 16

VERSION = "1.0.0"
RUNTIME, KEYS, KEY_ID = "x-ms-runtime", "keys", "TpmEphemeralEncryptionKey"
"""Where an attestation token carries the environment's own encryption key, and what it calls that key."""
MODULUS_BITS = (2_048, 4_096)
"""Of the environment's key: below, it can be broken (SP 800-131A); above, nothing attests one."""
KEK_BYTES = 32

_AUTHORITY = re.compile(
    r"https://(?:\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9](?:[A-Za-z0-9.-]{0,251}[A-Za-z0-9])?)(?::[1-9][0-9]{0,4})?(?:/[A-Za-z0-9._~/-]{0,200})?"
)
_CHARSET = re.compile(r'application/json\s*;\s*charset\s*=\s*"?utf-8"?', re.IGNORECASE)
_PRINTABLE = re.compile(r"[\x20-\x7e]*")
_BASE64URL = re.compile(r"[A-Za-z0-9_-]+")


class Wrapping(StrEnum):
    """How a released key is wrapped: RSA-OAEP of an AES-256 key under the environment's key, AES-KWP (RFC 5649) of the key under that."""

    CKM_RSA_AES_KEY_WRAP = "CKM_RSA_AES_KEY_WRAP"
    """OAEP with SHA-1 (PKCS #11)."""
    RSA_AES_KEY_WRAP_256 = "RSA_AES_KEY_WRAP_256"
    RSA_AES_KEY_WRAP_384 = "RSA_AES_KEY_WRAP_384"


_HASHES: Mapping[Wrapping, type[SHA1 | SHA256 | SHA384]] = {
    Wrapping.CKM_RSA_AES_KEY_WRAP: SHA1,
    Wrapping.RSA_AES_KEY_WRAP_256: SHA256,
    Wrapping.RSA_AES_KEY_WRAP_384: SHA384,
}

Value = str | bool | int | float


@dataclass(frozen=True, slots=True)
class Claim:
    """One comparison of a claim."""

    path: tuple[str, ...]
    operator: str
    value: Value


@dataclass(frozen=True, slots=True)
class AnyOf:
    """One of several conditions."""

    conditions: tuple[Condition, ...]


@dataclass(frozen=True, slots=True)
class AllOf:
    """All of several conditions."""

    conditions: tuple[Condition, ...]


Condition = Claim | AnyOf | AllOf


@dataclass(frozen=True, slots=True)
class ReleasePolicy:
    """A policy that has been understood.

    Attributes:
        data: the document as it was given.
        immutable: nobody changes it any more.
        authorities: what each must claim, by address, one after the other; an address may stand there twice.
    """

    data: bytes
    immutable: bool
    authorities: tuple[tuple[str, Condition], ...]

    @property
    def text(self) -> str:
        """As a key version keeps it."""
        return json.dumps({"data": urlsafe_b64encode(self.data).decode().rstrip("="), "immutable": self.immutable}, sort_keys=True)

    @property
    def shown(self) -> dict[str, str | bool]:
        """As a key's bundle shows it."""
        return {
            "contentType": CONTENT_TYPE,
            "data": urlsafe_b64encode(self.data).decode().rstrip("="),
            "immutable": self.immutable,
        }

    def names(self, authority: str) -> bool:
        """Whether it says anything about an authority."""
        return any(known == _origin(authority) for known, _ in self.authorities)


# -- reading a policy -----------------------------------------------------------------------------------------------------------------


def release_policy(data: bytes, *, immutable: bool = False, content_type: str | None = None) -> ReleasePolicy:
    """A policy somebody gives.

    Args:
        data: the document.
        immutable: nobody may change it later.
        content_type: as it was given; None for the only one there is.

    Raises:
        InvalidRequest: `release_policy_invalid`: not in the grammar above, or beyond a limit.
    """
    if content_type is not None and not _CHARSET.fullmatch(content_type.strip()):
        raise _invalid(f"its content type is not {CONTENT_TYPE}")
    if not data or len(data) > MAX_POLICY_BYTES:
        raise _invalid(f"it has {len(data)} bytes, not 1 to {MAX_POLICY_BYTES}")
    try:
        document = json.loads(data.decode(), object_pairs_hook=_members, parse_constant=_no_number, parse_float=_float, parse_int=_int)
    except (ValueError, RecursionError):  # UnicodeDecodeError is one; the text of the library's error repeats what was given
        raise _invalid("it is not JSON, or names a member twice") from None
    document = _object(document, {"version", "anyOf"})
    if document["version"] != VERSION:
        raise _invalid(f"its version is not {VERSION}")
    listed = document["anyOf"]
    if not isinstance(listed, list) or not 1 <= len(listed) <= MAX_AUTHORITIES:
        raise _invalid(f"it does not name 1 to {MAX_AUTHORITIES} authorities")
    room = _Room()
    return ReleasePolicy(data, immutable, tuple(_authority(one, room) for one in listed))


def read_policy(text: str) -> ReleasePolicy | None:
    """What `ReleasePolicy.text` wrote; None for an empty one.

    Raises:
        IntegrityFailure: `release_policy_damaged`: it is not that.
    """
    if not text:
        return None
    try:
        kept = json.loads(text)
        data = kept["data"]
        return release_policy(urlsafe_b64decode(data + "=" * (-len(data) % 4)), immutable=kept["immutable"] is True)
    except (ValueError, TypeError, KeyError, InvalidRequest):
        raise IntegrityFailure(
            "release_policy_damaged", "the release policy of a key in the vault database cannot be read", "restore it from a backup"
        ) from None


def check_new(kty: KeyType, text: str, *, exportable: bool) -> None:
    """Whether a key may be made so.

    Raises:
        InvalidRequest: `release_policy_missing`: exportable without a policy; `release_policy_unexpected`: a policy and not exportable;
            `key_not_exportable`: a type that never is.
    """
    if exportable and not text:
        raise InvalidRequest("release_policy_missing", "an exportable key needs a release policy", "give one, or leave exportable out")
    if text and not exportable:
        raise InvalidRequest(
            "release_policy_unexpected", "the key is not exportable, so a release policy means nothing", "make the key with exportable"
        )
    if exportable and not kty.is_hsm:
        raise InvalidRequest("key_not_exportable", f"a key of type {kty} cannot be exportable", "use RSA-HSM or EC-HSM, in a premium vault")


def check_change(old: str, new: str, *, exportable: bool) -> None:
    """Whether a version's policy may be replaced; `old` and `new` as `ReleasePolicy.text`.

    Raises:
        InvalidRequest: `release_policy_unexpected`: the key is not exportable; `release_policy_missing`: none would be left.
        PreconditionFailed: `release_policy_immutable`.
    """
    if old == new:
        return
    if not exportable:
        raise InvalidRequest(
            "release_policy_unexpected", "the key is not exportable, so a release policy means nothing", "make the key with exportable"
        )
    if not new:
        raise InvalidRequest("release_policy_missing", "an exportable key needs a release policy", "give another one")
    kept = read_policy(old)
    if kept is not None and kept.immutable:
        raise PreconditionFailed("release_policy_immutable", "the release policy of the key is immutable", "make a new key")


class _Room:
    """How many conditions a policy may still have."""

    def __init__(self) -> None:
        self.left = MAX_CONDITIONS

    def take(self) -> None:
        self.left -= 1
        if self.left < 0:
            raise _invalid(f"it has more than {MAX_CONDITIONS} conditions")


def _authority(found: object, room: _Room) -> tuple[str, Condition]:
    if not isinstance(found, dict):
        raise _invalid("an authority is not an object")
    joined = [name for name in ("anyOf", "allOf") if name in found]
    if len(joined) != 1:
        raise _invalid("an authority has either anyOf or allOf")
    members = _object(found, {"authority", joined[0]})
    address = members["authority"]
    if not isinstance(address, str) or not _AUTHORITY.fullmatch(address):
        raise _invalid("an authority is not an https address")
    return _origin(address), _joined(joined[0], members[joined[0]], room, 1)


def _condition(found: object, room: _Room, depth: int) -> Condition:
    room.take()
    if not isinstance(found, dict):
        raise _invalid("a condition is not an object")
    for name in ("anyOf", "allOf"):
        if name in found:
            if depth >= MAX_DEPTH:
                raise _invalid(f"its conditions are more than {MAX_DEPTH} deep")
            return _joined(name, _object(found, {name})[name], room, depth + 1)
    operators = [name for name in _OPERATORS if name in found]
    if len(operators) != 1:
        raise _invalid("a condition has one claim and one operator")
    members = _object(found, {"claim", operators[0]})
    return Claim(_path(members["claim"]), operators[0], _value(operators[0], members[operators[0]]))


def _joined(name: str, found: object, room: _Room, depth: int) -> Condition:
    if not isinstance(found, list) or not found:
        raise _invalid(f"{name} is not a list of conditions")
    conditions = tuple(_condition(one, room, depth) for one in found)
    return AnyOf(conditions) if name == "anyOf" else AllOf(conditions)


def _path(found: object) -> tuple[str, ...]:
    parts = tuple(found.split(".")) if isinstance(found, str) else ()
    if not parts or not all(parts) or len(parts) > MAX_CLAIM_PARTS or sum(map(len, parts)) > MAX_CLAIM:
        raise _invalid(f"a claim's name is 1 to {MAX_CLAIM} characters in at most {MAX_CLAIM_PARTS} parts")
    return parts


def _value(operator: str, found: object) -> Value:
    if not isinstance(found, str | bool | int | float) or (isinstance(found, str) and len(found) > MAX_VALUE):
        raise _invalid(f"a value is a text of at most {MAX_VALUE} characters, a number, true or false")
    if operator == "exists" and not isinstance(found, bool):
        raise _invalid("exists is true or false")
    if operator in _ORDERS and not _is_number(found):
        raise _invalid(f"{operator} takes a number")
    return found


def _object(found: object, names: set[str]) -> dict[str, Any]:
    """An object with exactly these members."""
    if not isinstance(found, dict) or set(found) != names:
        raise _invalid(f"an object has not exactly the members {', '.join(sorted(names))}")
    return found


def _members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object; two members of one name would be read differently by different readers."""
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError
    return members


def _no_number(_text: str) -> NoReturn:
    """NaN and the infinities are not JSON."""
    raise ValueError


def _float(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError
    return number


def _int(text: str) -> int:
    if len(text) > 20:
        raise ValueError
    return int(text)


def _origin(address: str) -> str:
    """An authority in one spelling: services write it with a slash at its end or without. A host has no case; a path may name another tenant."""
    scheme, mark, rest = address.rstrip("/").partition("://")
    host, slash, path = rest.partition("/")
    return f"{scheme.lower()}{mark}{host.lower()}{slash}{path}"


def _invalid(why: str) -> InvalidRequest:
    return InvalidRequest("release_policy_invalid", f"the release policy is not one: {why}", "docs/spec/key-release.md has the grammar")


# -- meeting a policy -----------------------------------------------------------------------------------------------------------------

_ORDERS: Mapping[str, Callable[[float, float], bool]] = {
    "less": lambda claim, value: claim < value,
    "lessOrEquals": lambda claim, value: claim <= value,
    "greater": lambda claim, value: claim > value,
    "greaterOrEquals": lambda claim, value: claim >= value,
}
_OPERATORS = ("equals", "notEquals", "exists", *_ORDERS)


def check_release(policy: ReleasePolicy, issuer: str, claims: Mapping[str, Any]) -> None:
    """Let an environment through whose claims, which an authority has signed, meet the policy.

    Args:
        policy: of the key.
        issuer: the authority whose signature was checked.
        claims: what it says.

    Raises:
        Forbidden: `release_policy_not_met`: the policy does not name the authority, or wants other claims.
    """
    known = [condition for authority, condition in policy.authorities if authority == _origin(issuer)]
    if not known:
        raise Forbidden(
            "release_policy_not_met",
            "the release policy of the key does not name the authority that attests the environment",
            "attest the environment with an authority that the policy names",
        )
    if not any(_met(condition, claims) for condition in known):
        raise Forbidden(
            "release_policy_not_met",
            "what the authority says of the environment does not meet the release policy of the key",
            "compare the claims of the attestation token with the policy",
        )


def _met(condition: Condition, claims: Mapping[str, Any]) -> bool:
    if isinstance(condition, AnyOf):
        return any(_met(one, claims) for one in condition.conditions)
    if isinstance(condition, AllOf):
        return all(_met(one, claims) for one in condition.conditions)
    found: Any = claims
    for part in condition.path:
        if not isinstance(found, dict) or part not in found:
            return condition.operator == "exists" and condition.value is False
        found = found[part]
    return _compared(condition, found)


def _compared(condition: Claim, found: object) -> bool:
    """A claim that is there with the value it is compared with."""
    if condition.operator == "exists":
        return condition.value is True
    if condition.operator in _ORDERS:
        # Numbers as they are: as floats, two neighbours beyond 2^53 would be one.
        found_number, wanted = _number_or_none(found), _number_or_none(condition.value)
        return found_number is not None and wanted is not None and _ORDERS[condition.operator](found_number, wanted)
    return _comparable(found, condition.value) and (found == condition.value) is (condition.operator == "equals")


def _comparable(found: object, value: Value) -> bool:
    """Of one kind. For Python true is a number; here it is not."""
    if isinstance(value, str):
        return isinstance(found, str)
    if isinstance(value, bool):
        return isinstance(found, bool)
    return _is_number(found)


def _is_number(found: object) -> bool:
    return _number_or_none(found) is not None


def _number_or_none(found: object) -> int | float | None:
    return found if isinstance(found, int | float) and not isinstance(found, bool) else None


# -- wrapping -------------------------------------------------------------------------------------------------------------------------


def wrapping(name: str | None) -> Wrapping:
    """The named way to wrap; the oldest where none is named.

    Raises:
        InvalidRequest: `algorithm_not_supported`.
    """
    try:
        return Wrapping(name or Wrapping.CKM_RSA_AES_KEY_WRAP)
    except ValueError:
        raise InvalidRequest(
            "algorithm_not_supported", "this is not a way to wrap a released key", f"use one of {', '.join(Wrapping)}"
        ) from None


def checked_nonce(nonce: str | None) -> str | None:
    """A caller's nonce, which comes back in the signed answer.

    Raises:
        InvalidRequest: `nonce_invalid`.
    """
    if nonce is not None and (len(nonce) > MAX_NONCE or not _PRINTABLE.fullmatch(nonce)):
        raise InvalidRequest("nonce_invalid", f"a nonce is at most {MAX_NONCE} printable characters", "give another one")
    return nonce


def environment_key(claims: Mapping[str, Any]) -> rsa.RSAPublicKey:
    """The public key that the attested environment alone has the private half of.

    Raises:
        Forbidden: `release_key_unattested`: the token carries none, several, or one that must not be encrypted to.
    """
    runtime = claims.get(RUNTIME)
    keys = runtime.get(KEYS) if isinstance(runtime, dict) else None
    if not isinstance(keys, list) or len(keys) > MAX_ENVIRONMENT_KEYS:
        raise _unattested()
    named = [one for one in keys if isinstance(one, dict) and one.get("kid") == KEY_ID]
    if len(named) != 1:
        raise _unattested()
    key = named[0]
    operations = key.get("key_ops")
    if key.get("kty") != "RSA" or not isinstance(operations, list) or "encrypt" not in operations:
        raise _unattested()
    modulus, exponent = _number(key.get("n")), _number(key.get("e"))
    if not MODULUS_BITS[0] <= modulus.bit_length() <= MODULUS_BITS[1] or not 3 <= exponent < 2**32:
        raise _unattested()
    try:
        return rsa.RSAPublicNumbers(exponent, modulus).public_key()
    except ValueError:
        raise _unattested() from None


def wrap_released(pkcs8: bytes, key: rsa.RSAPublicKey, way: Wrapping, random: RandomBytes) -> bytes:
    """A private key (PKCS #8 DER) for an environment: RSA-OAEP of a fresh AES-256 key, then AES-KWP of the private key under that.

    PKCS #11 section 6.1 lays both parts one after the other; the first is as long as the modulus.
    """
    kek = random(KEK_BYTES)
    return key.encrypt(kek, _oaep(way)) + aes_key_wrap_with_padding(kek, pkcs8)


def unwrap_released(wrapped: bytes, key: rsa.RSAPrivateKey, way: Wrapping) -> bytes:
    """What an environment does with `wrap_released`'s answer.

    Raises:
        ValueError: it was wrapped otherwise, or changed.
    """
    size = (key.key_size + 7) // 8
    kek = key.decrypt(wrapped[:size], _oaep(way))
    return aes_key_unwrap_with_padding(kek, wrapped[size:])


def _oaep(way: Wrapping) -> padding.OAEP:
    digest = _HASHES[way]
    return padding.OAEP(mgf=padding.MGF1(digest()), algorithm=digest(), label=None)


def _number(found: object) -> int:
    """A member of a public JWK (RFC 7518 section 6.3.1)."""
    if not isinstance(found, str) or len(found) > 1_024 or not _BASE64URL.fullmatch(found):
        raise _unattested()
    try:
        return int.from_bytes(urlsafe_b64decode(found + "=" * (-len(found) % 4)), "big")
    except ValueError:
        raise _unattested() from None


def _unattested() -> Forbidden:
    return Forbidden(
        "release_key_unattested",
        f"the attestation token carries no key {KEY_ID} that a key could be released to",
        f"attest an environment whose {RUNTIME}.{KEYS} has one: RSA of {MODULUS_BITS[0]} to {MODULUS_BITS[1]} bits, for encrypt",
    )
