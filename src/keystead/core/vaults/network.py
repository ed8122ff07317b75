"""From where a vault may be called: its network rules, as key vaults have them (R-043, requirements 2.11).

The rules are a default (allow or deny), at most 1,000 address ranges that are let in, and whether trusted services pass. Trusted are the
service's own applications inside one process: they come from no address. Rules govern calls about keys; changing a vault, its access policy
and these rules is never stopped by them, so that nobody locks themselves out for good.

As text, version 1, fields apart by one space, ranges in ascending order, IPv4 first; the empty text is a vault open to everybody:

    1 DEFAULT BYPASS [RANGE ...]        1 Deny AzureServices 203.0.113.0/24 2001:db8::/32

A later version gets another number at the start; a field is never given another meaning.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import TYPE_CHECKING, TypeAlias

from keystead.core.errors import Forbidden, IntegrityFailure, InvalidRequest, NotFound

if TYPE_CHECKING:
    from collections.abc import Mapping

Address: TypeAlias = "IPv4Address | IPv6Address"
Range: TypeAlias = "IPv4Network | IPv6Network"

MAX_RANGES = 1_000
"""Of one vault, as published for key vaults."""

MAX_RANGE_CHARACTERS = 43
"""The longest IPv6 address, a slash, and three digits."""

_VERSION = "1"
_FIELDS = 3
"""Before the ranges."""


class DefaultAction(StrEnum):
    """What holds for an address in no range."""

    ALLOW = "Allow"
    DENY = "Deny"


class Bypass(StrEnum):
    """Who passes whatever the ranges say."""

    AZURE_SERVICES = "AzureServices"
    NONE = "None"


def _spans(ranges: tuple[Range, ...], version: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """First and last addresses. Ranges overlap only by lying in one another, so the wider one, which comes first, stands for both."""
    firsts: list[int] = []
    lasts: list[int] = []
    for one in _ordered(ranges):
        if one.version == version and (not lasts or int(one.network_address) > lasts[-1]):
            firsts.append(int(one.network_address))
            lasts.append(int(one.broadcast_address))
    return tuple(firsts), tuple(lasts)


def _ordered(ranges: tuple[Range, ...]) -> tuple[Range, ...]:
    return tuple(sorted(set(ranges), key=lambda one: (one.version, int(one.network_address), one.prefixlen)))


@dataclass(frozen=True, slots=True)
class NetworkRules:
    """The rules of one vault. `ranges` are in order and without repeats."""

    default: DefaultAction = DefaultAction.ALLOW
    bypass: Bypass = Bypass.AZURE_SERVICES
    ranges: tuple[Range, ...] = ()
    spans: Mapping[int, tuple[tuple[int, ...], tuple[int, ...]]] = field(init=False, repr=False, compare=False)
    """By version of the protocol: first and last addresses of what the ranges hold together, in order, so that a look takes microseconds."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "spans", {version: _spans(self.ranges, version) for version in (4, 6)})

    def holds(self, address: Address) -> bool:
        """Whether a range has the address."""
        firsts, lasts = self.spans[address.version]
        place = bisect_right(firsts, int(address))
        return place > 0 and int(address) <= lasts[place - 1]


OPEN = NetworkRules()
"""What a new vault has."""


def default_action(text: str) -> DefaultAction:
    """Allow or deny, whatever the case.

    Raises:
        InvalidRequest: `network_default_invalid`.
    """
    try:
        return DefaultAction(text.capitalize())
    except ValueError:
        raise InvalidRequest("network_default_invalid", f"{text!r} is not a default of network rules", "use allow or deny") from None


def bypass(text: str) -> Bypass:
    """Whom the rules do not concern, whatever the case.

    Raises:
        InvalidRequest: `network_bypass_invalid`.
    """
    found = next((choice for choice in Bypass if choice.lower() == text.lower()), None)
    if found is None:
        raise InvalidRequest("network_bypass_invalid", f"{text!r} names nobody that network rules know", f"use one of {', '.join(Bypass)}")
    return found


def address_range(text: str) -> Range:
    """A range of addresses in CIDR notation (RFC 4632, RFC 4291 section 2.3), or one address.

    Raises:
        InvalidRequest: `network_range_invalid`, also for a range whose address has bits beyond its prefix, and for a zone.
    """
    try:
        if len(text) > MAX_RANGE_CHARACTERS or not text.isascii() or "%" in text:
            raise ValueError  # noqa: TRY301 - one text for all that is no range
        loose = ip_network(text, strict=False)
        address, _, prefix = text.partition("/")
        if prefix and not prefix.isdecimal():  # 203.0.113.0/255.255.255.0 is another notation of the same; one is enough
            raise ValueError  # noqa: TRY301 - as above
    except ValueError:
        raise InvalidRequest(
            "network_range_invalid", f"{text!r} is not a range of addresses", "write it as 203.0.113.0/24, 2001:db8::/32 or 203.0.113.7"
        ) from None
    if ip_address(address) != loose.network_address:
        raise InvalidRequest("network_range_invalid", f"{text} names an address inside its range", f"write {loose}")
    if isinstance(loose, IPv6Network) and loose.network_address.ipv4_mapped is not None:
        raise InvalidRequest("network_range_invalid", f"{text} is an IPv4 range written as IPv6", "write it as 203.0.113.0/24")
    return loose


def with_range(rules: NetworkRules, added: Range) -> NetworkRules:
    """The rules with one range more; the same where it is there already.

    Raises:
        InvalidRequest: `network_ranges_too_many`.
    """
    ranges = _ordered((*rules.ranges, added))
    if len(ranges) > MAX_RANGES:
        raise InvalidRequest(
            "network_ranges_too_many", f"the vault has {MAX_RANGES} ranges of addresses already", "put several into a wider one"
        )
    return replace(rules, ranges=ranges)


def without_range(rules: NetworkRules, removed: Range) -> NetworkRules:
    """The rules without a range.

    Raises:
        NotFound: `network_range_not_found`.
    """
    if removed not in rules.ranges:
        raise NotFound("network_range_not_found", f"the range {removed} is not among the vault's", "see keystead vault network show")
    return replace(rules, ranges=tuple(one for one in rules.ranges if one != removed))


def write(rules: NetworkRules) -> str:
    """The rules as text."""
    return "" if rules == OPEN else " ".join((_VERSION, rules.default, rules.bypass, *(str(one) for one in rules.ranges)))


@lru_cache(maxsize=1_024)
def read(text: str) -> NetworkRules:
    """The rules of a text; of `write`, and of nothing else. Kept, because every call about a key asks.

    Raises:
        IntegrityFailure: `network_rules_damaged`: nobody is let in by rules that cannot be read.
    """
    if not text:
        return OPEN
    try:
        version, action, passing, *ranges = text.split(" ")
        rules = NetworkRules(DefaultAction(action), Bypass(passing), tuple(ip_network(one) for one in ranges))
    except ValueError:
        raise _damaged() from None
    ordered = len(rules.ranges) <= MAX_RANGES and _ordered(rules.ranges) == rules.ranges
    if version != _VERSION or not ordered or write(rules) != text:
        raise _damaged()
    return rules


def _damaged() -> IntegrityFailure:
    return IntegrityFailure(
        "network_rules_damaged", "the network rules of a vault cannot be read", "restore the vault database from a backup"
    )


def admit(rules: NetworkRules, address: str, *, inside: bool, vault: str) -> None:
    """Let a call through that comes from where the vault may be called.

    Args:
        rules: of the vault.
        address: of the caller, as the listener saw it.
        inside: the call comes from this very process, and so from no address.
        vault: its name, for the text.

    Raises:
        Forbidden: `vault_firewall`, naming the address: another code than the refusal of the access policy (R-043).
    """
    if rules.default is DefaultAction.ALLOW or (inside and rules.bypass is Bypass.AZURE_SERVICES):
        return
    seen = None if inside else _address(address)
    if seen is not None and rules.holds(seen):
        return
    where = "inside this process" if inside else address or "nowhere that is known"
    mend = (
        f"keystead vault network default {vault} deny --bypass AzureServices" if inside else f"keystead vault network allow {vault} ADDRESS"
    )
    raise Forbidden(
        "vault_firewall",
        f"the network rules of the vault {vault} do not let calls from {where} in, and the caller is not a trusted service",
        f"somebody who may change the vault can let it in: {mend}",
    )


def _address(text: str) -> Address | None:
    """An address as the ranges name it: a listener for both families sees an IPv4 caller as ::ffff:a.b.c.d (RFC 4291 section 2.5.5.2)."""
    try:
        address = ip_address(text)
    except ValueError:
        return None
    return (address.ipv4_mapped or address) if isinstance(address, IPv6Address) else address
