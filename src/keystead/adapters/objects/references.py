"""References of objects: CONTAINER/NAME, the same in every store (docs: ports/objects.py)."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from keystead.core.errors import Conflict, IntegrityFailure, InvalidRequest, NotFound

if TYPE_CHECKING:
    from collections.abc import Sequence

    from keystead.core.ids import RandomBytes

NAME_BYTES = 16
"""128 random bits: no two objects ever share a name, and nobody guesses one."""
MAX_CONTAINERS = 100
_CONTAINER = re.compile(r"c[0-9]{1,2}")
_OBJECT = re.compile(r"(c[0-9]{1,2})/([0-9a-f]{32})")
_STORED = re.compile(r"(c[0-9]{1,2})/([0-9a-f]{32}(?:\.[0-9a-f]{16}\.tmp)?)")


def names(containers: int) -> tuple[str, ...]:
    """The names of the first so many containers."""
    return tuple(f"c{number}" for number in range(containers))


def new_ref(random: RandomBytes, containers: Sequence[str]) -> str:
    """A fresh reference in one of these containers."""
    drawn = random(1 + NAME_BYTES)
    return f"{containers[drawn[0] % len(containers)]}/{drawn[1:].hex()}"


def is_container(name: str) -> bool:
    """Whether a container may have that name."""
    return _CONTAINER.fullmatch(name) is not None


def is_object(ref: str) -> bool:
    """Whether that is a reference to an object: something else may lie beside them."""
    return _OBJECT.fullmatch(ref) is not None


def parts(ref: str) -> tuple[str, str]:
    """Container and name of an object.

    Raises:
        IntegrityFailure: it is no reference. Nobody types references: the record that holds it was damaged or forged.
    """
    return _matched(_OBJECT, ref)


def stored_parts(ref: str) -> tuple[str, str]:
    """Container and name of whatever `all_objects` lists, which may be half an object that a crash left.

    Raises:
        IntegrityFailure: as `parts`.
    """
    return _matched(_STORED, ref)


def check_range(ref: str, offset: int, length: int) -> None:
    """Refuse a range that lies before the object.

    Raises:
        IntegrityFailure: offset or length is negative; the record that holds them was damaged or forged.
    """
    if offset < 0 or length < 0:
        raise truncated(ref, offset, length)


def exists(ref: str) -> Conflict:
    """The error for storing under a name that is taken."""
    return Conflict("object_exists", f"object {ref} exists; objects are never overwritten", "store it under a new reference")


def missing(ref: str) -> NotFound:
    """The error for an object that is not there."""
    return NotFound("object_not_found", f"there is no object {ref}", "restore it from a backup of the object store")


def truncated(ref: str, offset: int, length: int) -> IntegrityFailure:
    """The error for an object that ends too early."""
    return IntegrityFailure(
        "object_truncated",
        f"object {ref} does not have {length} bytes from offset {offset}",
        "restore the object from a backup",
    )


def unfit(name: str, why: str) -> InvalidRequest:
    """The error for a container whose configuration cannot be meant."""
    return InvalidRequest(
        "configuration_invalid", f"container {name} of keystead.toml cannot be used: {why}", "docs/howto/object-stores.md has examples"
    )


def _matched(pattern: re.Pattern[str], ref: str) -> tuple[str, str]:
    match = pattern.fullmatch(ref)
    if match is None:
        raise IntegrityFailure(
            "object_reference_invalid",
            f"{ref[:80]!r} is not a reference to an object",
            "restore the record that holds it from a backup",
        )
    return match[1], match[2]
