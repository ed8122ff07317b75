"""The associated data of every box: what it is, whose it is, where it belongs (docs/spec/context.md).

- A context is built by one of the four functions below, never by hand.
- It is never stored and never parsed: both sides build it from what they know.
- Every part is preceded by its length, so two different contexts never have the same bytes.
"""

from __future__ import annotations

import re
from functools import lru_cache

from keystead.core.formats.key_ref import MAX_U32

MAX_VALUE_BYTES = 1024
NAME = re.compile(r"(?=.{1,32}\Z)[a-z]+(?:-[a-z]+)*")


def _named(name: str) -> bytes:
    return bytes([len(name)]) + name.encode("ascii")


_TENANT = _named("tenant")
_POLICY = _named("policy")
_VERSION = _named("version")
_ROLE = _named("role")
_KEY_URI = _named("key-uri")
_ALGORITHM = _named("algorithm")
_KEY = _named("key")
_OBJECT = _named("object")
_PARENT = _named("parent")
_PARENT_VERSION = _named("parent-version")
_PART = _named("part")
_LAST = _named("last")


class Context(bytes):
    """Encoded associated data: immutable bytes of a type of their own, so that nothing else is taken for a context. It holds ids only."""

    __slots__ = ()

    def encode(self) -> bytes:
        """The canonical bytes, never empty."""
        return self


def envelope_context(tenant_id: str, policy_id: str, version_id: str, role: str, key_uri: str, algorithm: str) -> Context:
    """For the envelope of one copy of a policy key, under the policy's shred key (design section 4).

    Args:
        tenant_id: whose policy.
        policy_id: the policy, whose id never changes.
        version_id: the policy version the copy belongs to.
        role: `primary`, `secondary` or `availability`.
        key_uri: full URI of the key version that wrapped.
        algorithm: as in the envelope.

    Raises:
        ValueError: an empty or over-long value.
    """
    return Context(
        _head("envelope", 6)
        + _field(_TENANT, tenant_id)
        + _field(_POLICY, policy_id)
        + _field(_VERSION, version_id)
        + _field(_ROLE, role)
        + _field(_KEY_URI, key_uri)
        + _field(_ALGORITHM, algorithm)
    )


def keystore_context(tenant_id: str, policy_id: str, version_id: str, role: str) -> Context:
    """For the copy of a policy key that the key store seals under its availability key.

    Raises:
        ValueError: an empty or over-long value.
    """
    return Context(
        _head("keystore", 4) + _field(_TENANT, tenant_id) + _field(_POLICY, policy_id) + _field(_VERSION, version_id) + _field(_ROLE, role)
    )


def key_context(tenant_id: str, kind: str, key_id: str, parent_id: str, parent_version: int) -> Context:
    """For a wrapped key.

    Args:
        tenant_id: whose key.
        kind: `mailbox-key`, `site-key`, `chunk-key`, `workload-key` or `provider-key`.
        key_id: the wrapped key.
        parent_id: the key it is wrapped by.
        parent_version: version of that key, never of the policy, so that a refresh re-seals nothing below.

    Raises:
        ValueError: an empty or over-long value, a malformed kind, a version that is not a u32.
    """
    return Context(_under_parent(tenant_id, kind, parent_id, parent_version) + _value(key_id))


def object_context(tenant_id: str, kind: str, object_id: str, part: int, last: bool) -> Context:  # noqa: FBT001 - the last part of a stream is a fact, not a mode
    """For a sealed object.

    Args:
        tenant_id: whose object.
        kind: `item`, `item-summary`, `folder-name`, `pack-index` and so on.
        object_id: the object, unique within tenant and kind.
        part: index of this part where order matters, else 0.
        last: this is the last or only part.

    Raises:
        ValueError: an empty or over-long value, a malformed kind, a part that is not a u32.
    """
    return Context(_of_object(tenant_id, kind, part, last) + _value(object_id))


# What is the same for many boxes in a row is kept encoded: an import builds thousands of contexts a second. Only ids are kept.


@lru_cache(maxsize=1024)
def _of_object(tenant_id: str, kind: str, part: int, last: bool) -> bytes:  # noqa: FBT001 - as above
    return (
        _head("object/" + _name(kind), 4)
        + _field(_TENANT, tenant_id)
        + _field(_PART, _decimal(part))
        + _field(_LAST, "1" if last else "0")
        + _OBJECT
    )


@lru_cache(maxsize=1024)
def _under_parent(tenant_id: str, kind: str, parent_id: str, parent_version: int) -> bytes:
    return (
        _head("key/" + _name(kind), 4)
        + _field(_TENANT, tenant_id)
        + _field(_PARENT, parent_id)
        + _field(_PARENT_VERSION, _decimal(parent_version))
        + _KEY
    )


def _head(kind: str, fields: int) -> bytes:
    return b"KSC1%c%b%c" % (len(kind), kind.encode("ascii"), fields)


def _field(name: bytes, value: str) -> bytes:
    """One field; the name comes with its length in front."""
    return name + _value(value)


def _value(value: str) -> bytes:
    data = value.encode()
    size = len(data)
    if not 0 < size <= MAX_VALUE_BYTES:
        raise ValueError(f"a value in a context has {size} bytes, not 1 to {MAX_VALUE_BYTES}")
    return size.to_bytes(2, "big") + data


def _name(kind: str) -> str:
    if not NAME.fullmatch(kind):
        raise ValueError(f"{kind!r} is not a kind: 1 to 32 lower case letters in groups joined by '-'")
    return kind


def _decimal(number: int) -> str:
    if not 0 <= number <= MAX_U32:
        raise ValueError(f"{number} is not between 0 and {MAX_U32}")
    return str(int(number))
