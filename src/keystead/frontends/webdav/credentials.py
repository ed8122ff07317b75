"""What a request shows to say who it is from: HTTP Basic with a UPN and a token for password, or a bearer token (docs/spec/webdav.md section 3)."""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from typing import TYPE_CHECKING

from keystead.core.errors import Unauthenticated
from keystead.services.sign_in import attempted, sign_in

if TYPE_CHECKING:
    from keystead.core.access.principal import Principal
    from keystead.services.context import Services

LONGEST = 16_384
CHALLENGES = (("WWW-Authenticate", 'Basic realm="Keystead", charset="UTF-8"'), ("WWW-Authenticate", 'Bearer realm="Keystead"'))
_HOW = "sign in with your UPN and, in place of a password, a token: keystead token create, or the token you sign in with"


@dataclass(frozen=True, slots=True)
class Shown:
    """What was shown.

    Attributes:
        token: the token, by whichever scheme.
        upn: who it is said to be of; empty with a bearer token.
    """

    token: str
    upn: str = ""

    def __repr__(self) -> str:
        return f"Shown(upn={self.upn!r})"


def read_credentials(header: str) -> Shown:
    """Take them from the header Authorization.

    Raises:
        Unauthenticated: `not_signed_in`: there is none; `authorization_invalid`: neither of the two schemes, or not well formed.
    """
    if not header:
        raise Unauthenticated("not_signed_in", "nobody is signed in", _HOW)
    scheme, _space, value = header.strip().partition(" ")
    if len(header) > LONGEST or scheme.lower() not in ("basic", "bearer"):
        raise _malformed()
    if scheme.lower() == "bearer":
        if not value.strip():
            raise _malformed()
        return Shown(value.strip())
    try:
        upn, colon, token = base64.b64decode(value.strip(), validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        raise _malformed() from None
    if not colon or not upn or not token:
        raise _malformed()
    return Shown(token, upn.lower())


def signed_in(services: Services, shown: Shown, client_ip: str) -> Principal:
    """Who it is.

    Raises:
        Unauthenticated: the token is not good, or `upn_wrong`: it is another person's.
        Throttled: too many failures from there, or at this token.
    """
    principal = sign_in(services, shown.token, client_ip)
    if not shown.upn or shown.upn == principal.upn:
        return principal
    with attempted(services, client_ip, shown.token):
        raise Unauthenticated("upn_wrong", "the token is not that person's", _HOW)


def _malformed() -> Unauthenticated:
    return Unauthenticated("authorization_invalid", "the header Authorization holds neither a name and token nor a bearer token", _HOW)
