"""What a call shows to say who it is from."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from keystead.api.wire import CALL_AS, HOME_SECRET
from keystead.core.errors import InvalidRequest, Unauthenticated

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    Address = ipaddress.IPv4Address | ipaddress.IPv6Address

UNIX = "unix"
"""Stands among the trusted proxies for whoever connects to a Unix socket."""
_SECRET_HEADER = HOME_SECRET.lower().encode()
_AS_HEADER = CALL_AS.lower().encode()
_FORWARDED = frozenset({b"forwarded", b"via", b"x-forwarded-for", b"x-forwarded-host", b"x-forwarded-proto", b"x-real-ip"})
_BEARER = b"bearer "
_LONGEST = 16_384


@dataclass(frozen=True, slots=True)
class Credentials:
    """All that was shown; each empty where it was not.

    Attributes:
        bearer: a token.
        home_secret: what proves, in a dev home, that the caller may read the home's folder.
        as_upn: who to call as, with a home secret.
        client_ip: the caller's address; empty on a Unix socket.
        forwarded: whether somebody passed the call on, whose word may or may not have been taken for `client_ip`.
    """

    bearer: str = ""
    home_secret: str = ""
    as_upn: str = ""
    client_ip: str = ""
    forwarded: bool = False

    @property
    def local(self) -> bool:
        """Whether the caller is certainly on this machine: not behind a proxy on it that may speak for anybody."""
        return is_loopback(self.client_ip) and not self.forwarded

    def __repr__(self) -> str:
        return f"Credentials(as_upn={self.as_upn!r}, client_ip={self.client_ip!r})"


def credentials(headers: Mapping[bytes, bytes], client_ip: str) -> Credentials:
    """Take them from the headers.

    Raises:
        Unauthenticated: `authorization_invalid`: not a bearer token, or one that cannot be a token.
    """
    given = headers.get(b"authorization", b"")
    if given and (given[:7].lower() != _BEARER or len(given) > _LONGEST):
        raise Unauthenticated(
            "authorization_invalid", "the header Authorization holds no bearer token", "write: Authorization: Bearer TOKEN"
        )
    return Credentials(
        given[7:].strip().decode("latin-1"),
        headers.get(_SECRET_HEADER, b"").decode("latin-1"),
        headers.get(_AS_HEADER, b"").decode("latin-1"),
        client_ip,
        not _FORWARDED.isdisjoint(headers),
    )


class Proxies:
    """Whose word is taken on where a call came from.

    Args:
        trusted: addresses, networks, or `unix`.

    Raises:
        InvalidRequest: `configuration_invalid`.
    """

    def __init__(self, trusted: Iterable[str]) -> None:
        names = set(trusted)
        self._unix = UNIX in names
        try:
            self._networks = [ipaddress.ip_network(name) for name in names - {UNIX}]
        except ValueError as error:
            raise InvalidRequest("configuration_invalid", f"server.trusted_proxies holds {error}", "list addresses and networks") from error

    def caller(self, peer: str, forwarded: bytes) -> str:
        """The caller's address.

        Args:
            peer: who is connected; empty for a Unix socket.
            forwarded: X-Forwarded-For, each proxy's addition at its end. Read from there while it was a trusted proxy that added it: what
                stands further left may be anybody's invention.
        """
        if not forwarded or not self._trusted(peer):
            return peer
        for name in reversed(forwarded.decode("latin-1").split(",")):
            address = name.strip()
            if not _is_address(address):
                return peer
            if not self._trusted(address):
                return address
            peer = address
        return peer

    def _trusted(self, name: str) -> bool:
        if not name:
            return self._unix
        return any(ipaddress.ip_address(name) in network for network in self._networks)


def is_loopback(client_ip: str) -> bool:
    """Whether a caller is on this machine; a Unix socket is."""
    return not client_ip or (_is_address(client_ip) and ipaddress.ip_address(client_ip).is_loopback)


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
