"""What callers may ask of any key store, and how it says no."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from keystead.adapters.keystores.entries import RSA_COMPARTMENTS, RSA_VALUE_BYTES
from keystead.core.errors import IntegrityFailure, InvalidRequest, NotFound

if TYPE_CHECKING:
    from keystead.ports.keystore import Compartment

MAX_VALUE_BYTES = 4_096
MAX_CONTEXT_BYTES = 8_192
KEY_ID = re.compile(r"[\x21-\x7e]{1,255}")
"""Printable ASCII without spaces: ids, not names."""


def check_key_id(key_id: str) -> None:
    """Refuse an id that is none.

    Raises:
        InvalidRequest: it is empty, too long, or holds other than printable ASCII characters.
    """
    if not KEY_ID.fullmatch(key_id):
        raise InvalidRequest("keystore_key_id_invalid", f"{key_id!r} is not a key id", "use 1 to 255 printable ASCII characters, no spaces")


def check_context(context: bytes) -> None:
    """Refuse to seal or open without saying what for: a box without context could be put in another's place.

    Raises:
        InvalidRequest: the context is empty or too long.
    """
    if not 0 < len(context) <= MAX_CONTEXT_BYTES:
        raise InvalidRequest(
            "keystore_context_invalid",
            f"the context is {len(context)} bytes long",
            f"give 1 to {MAX_CONTEXT_BYTES} bytes that say what the value belongs to",
        )


def check_value(compartment: Compartment, value: bytes) -> None:
    """Refuse what is no key: the store wraps keys, it does not encrypt data.

    Raises:
        InvalidRequest: the value is too long, or for an RSA key not exactly one key.
    """
    if compartment in RSA_COMPARTMENTS and len(value) != RSA_VALUE_BYTES:
        raise InvalidRequest(
            "keystore_value_not_a_key",
            f"the value is {len(value)} bytes long",
            f"a key of compartment {compartment} wraps exactly {RSA_VALUE_BYTES} bytes",
        )
    if len(value) > MAX_VALUE_BYTES:
        raise InvalidRequest(
            "keystore_value_too_long",
            f"the value is {len(value)} bytes long",
            f"seal at most {MAX_VALUE_BYTES} bytes: a key, not data",
        )


def no_such_key(compartment: Compartment, key_id: str) -> NotFound:
    """The error for a key that was destroyed or never made; nobody can tell which."""
    return NotFound(
        "keystore_key_not_found",
        f"the key store has no key {key_id} in compartment {compartment}",
        "it was destroyed or never made; what was sealed under it cannot be opened",
    )


def box_does_not_open(compartment: Compartment, key_id: str) -> IntegrityFailure:
    """The error for a sealed value that another key or context made, or that was changed."""
    return IntegrityFailure(
        "keystore_box_damaged",
        f"a value sealed under key {key_id} in compartment {compartment} does not open",
        "it was changed, or belongs to something else; restore the record that holds it from a backup",
    )
