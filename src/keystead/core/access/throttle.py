"""How long somebody who fails to sign in again and again has to wait."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Failures:
    """Failures in a row from one address, or at one token: how many, and when the last was (milliseconds)."""

    count: int = 0
    last: int = 0


@dataclass(frozen=True, slots=True)
class Pace:
    """The settings: `free` failures cost nothing; then `delay`, doubling up to `most`; after `forget` all is forgotten. Milliseconds."""

    free: int
    delay: int
    most: int
    forget: int


def more(failures: Failures, now: int, pace: Pace) -> Failures:
    """One more failure."""
    return Failures(1 if now - failures.last >= pace.forget else failures.count + 1, now)


def wait(failures: Failures, now: int, pace: Pace) -> int:
    """Milliseconds until the next attempt is looked at; 0 for at once."""
    if failures.count < pace.free or now - failures.last >= pace.forget:
        return 0
    doublings = min(failures.count - pace.free, 32)  # far beyond `most`; the power stays small
    return max(0, failures.last + min(pace.delay << doublings, pace.most) - now)


def group_of(address: str) -> str:
    """Whom an address stands for: an IPv4 address for itself, an IPv6 address for its /64, which one subscriber has whole."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address[:64]
    if isinstance(parsed, ipaddress.IPv6Address):
        return str(parsed.ipv4_mapped or ipaddress.ip_network((parsed, 64), strict=False))
    return str(parsed)
