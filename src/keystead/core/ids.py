"""Identifiers and names: what is allowed, said once.

Ids are random version 4 UUIDs (RFC 9562 section 5.4) in lower case; randomness is passed in. Names from the directory are in the
clear and may appear in logs; they are validated here so that no other part needs to quote or escape them.
"""

from __future__ import annotations

import re
import uuid
from typing import TYPE_CHECKING

from keystead.core.errors import InvalidRequest

if TYPE_CHECKING:
    from collections.abc import Callable

    RandomBytes = Callable[[int], bytes]
    """Gives that many bytes straight from the operating system's generator."""

POLICY_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
VAULT_NAME = re.compile(r"[A-Za-z](?:[A-Za-z0-9]|-(?!-)){1,22}[A-Za-z0-9]")
KEY_NAME = re.compile(r"[0-9A-Za-z-]{1,127}")
KEY_VERSION = re.compile(r"[0-9a-f]{32}")
DOMAIN = re.compile(r"(?=.{1,253}\Z)(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
UPN_LOCAL = re.compile(r"[A-Za-z0-9._%+'-]{1,64}")
DISPLAY_NAME = re.compile(r"[^\x00-\x1f\x7f]{1,128}")
GEO = re.compile(r"[A-Z]{3}")


def new_id(random: RandomBytes) -> str:
    """A fresh random id."""
    return _uuid(random(16).hex(), "4")


def ordered_id(random: RandomBytes, now: int) -> str:
    """A fresh id that sorts by time: a version 7 UUID (RFC 9562 section 5.7), for rows made by the thousand.

    Random ids would each land on another page of the table's index; these land on the last ones. The time in it, milliseconds since the
    epoch, is in the clear in the row anyway.
    """
    return _uuid(((now & (2**48 - 1)).to_bytes(6, "big") + random(10)).hex(), "7")


def _uuid(digits: str, version: str) -> str:
    """32 hexadecimal digits as a UUID of a version, variant 10 (RFC 9562 section 4); a tenth of what the library's class costs."""
    variant = "89ab"[int(digits[16], 16) & 3]
    return f"{digits[:8]}-{digits[8:12]}-{version}{digits[13:16]}-{variant}{digits[17:20]}-{digits[20:]}"


def is_id(text: str) -> bool:
    """Whether the text is a UUID in any usual spelling."""
    try:
        uuid.UUID(text)
    except ValueError:
        return False
    return True


def policy_name(text: str) -> str:
    """A valid policy name (decision D4, R-082).

    Raises:
        InvalidRequest: with a text of its own for spaces, the likeliest mistake.
    """
    if any(character.isspace() for character in text):
        raise InvalidRequest(
            "policy_name_has_spaces",
            f"the policy name {text!r} contains spaces",
            "use letters, digits, '-', '_' or '.', for example " + repr("-".join(text.split())),
        )
    if not POLICY_NAME.fullmatch(text):
        raise InvalidRequest("policy_name_invalid", f"{text!r} is not a policy name", "use 1 to 64 letters, digits, '-', '_' or '.'")
    return text


def domain_name(text: str) -> str:
    """A DNS domain name in lower case.

    Raises:
        InvalidRequest: it is not one.
    """
    lowered = text.lower()
    if not DOMAIN.fullmatch(lowered):
        raise InvalidRequest("domain_invalid", f"{text!r} is not a domain name", "give a name such as contoso.example")
    return lowered


def user_principal_name(text: str) -> str:
    """A UPN: LOCAL@DOMAIN; the domain in lower case. UPNs compare without regard to case.

    Raises:
        InvalidRequest: it is not one.
    """
    local, at, domain = text.partition("@")
    if not at or not UPN_LOCAL.fullmatch(local) or not DOMAIN.fullmatch(domain.lower()):
        raise InvalidRequest("upn_invalid", f"{text!r} is not a user principal name", "give a name such as alex@contoso.example")
    return f"{local.lower()}@{domain.lower()}"


def display_name(text: str, what: str) -> str:
    """A name for people: 1 to 128 characters, no control characters.

    Raises:
        InvalidRequest: it is not one; `what` says which name was meant.
    """
    stripped = text.strip()
    if not DISPLAY_NAME.fullmatch(stripped):
        raise InvalidRequest("name_invalid", f"{text!r} is not a name for a {what}", "use 1 to 128 printable characters")
    return stripped


def geo_code(text: str) -> str:
    """A geo: three capital letters, such as EUR, NAM, APC.

    Raises:
        InvalidRequest: it is not one.
    """
    upper = text.upper()
    if not GEO.fullmatch(upper):
        raise InvalidRequest("geo_invalid", f"{text!r} is not a geo", "use three letters, such as EUR, NAM or APC")
    return upper
