"""The pure decisions of managing a vault: network rules, rate limits, rotation policies."""

from __future__ import annotations

from datetime import UTC, datetime
from ipaddress import ip_network

import pytest

from keystead.core.errors import Forbidden, IntegrityFailure, InvalidRequest, NotFound
from keystead.core.vaults import limits, network, rotation
from keystead.core.vaults.access import READING_PERMISSIONS, Permission
from keystead.core.vaults.limits import Budget, Spent, spend
from keystead.core.vaults.network import Bypass, DefaultAction, NetworkRules
from keystead.core.vaults.rotation import ActionKind, Duration, LifetimeAction
from keystead.core.vaults.usage import KeyKind, KeyType

CLOSED = NetworkRules(DefaultAction.DENY, Bypass.NONE, (ip_network("203.0.113.0/24"), ip_network("2001:db8::/32")))


def millis(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1_000)


# -- network rules (R-043) ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("address", "inside", "let_in"),
    [
        ("203.0.113.7", False, True),
        ("::ffff:203.0.113.7", False, True),
        ("2001:db8:1::1", False, True),
        ("203.0.114.7", False, False),
        ("::ffff:203.0.114.7", False, False),
        ("::203.0.113.7", False, False),  # IPv4-compatible (RFC 4291 section 2.5.5.1): another address, and no mapped one
        ("2001:db9::1", False, False),
        ("2001:db8::1%eth0", False, True),  # the zone says through which door the same address came
        ("", False, False),
        ("localhost", False, False),
        ("203.0.113.7/24", False, False),
        ("0xcb007107", False, False),
        ("203.0.113.007", False, False),
        ("", True, False),
    ],
)
def test_who_is_let_in_by_address(address: str, *, inside: bool, let_in: bool) -> None:
    """R-043."""
    if let_in:
        network.admit(CLOSED, address, inside=inside, vault="v")
        return
    with pytest.raises(Forbidden) as refused:
        network.admit(CLOSED, address, inside=inside, vault="v")
    assert refused.value.code == "vault_firewall"


def test_open_rules_let_everybody_in_and_the_bypass_concerns_this_process_only() -> None:
    """R-043."""
    network.admit(network.OPEN, "", inside=False, vault="v")
    trusting = NetworkRules(DefaultAction.DENY, Bypass.AZURE_SERVICES)
    network.admit(trusting, "", inside=True, vault="v")
    with pytest.raises(Forbidden):
        network.admit(trusting, "127.0.0.1", inside=False, vault="v")


def test_a_vault_has_at_most_a_thousand_ranges_each_once() -> None:
    """R-043."""
    rules = network.OPEN
    for number in range(network.MAX_RANGES):
        rules = network.with_range(rules, network.address_range(f"10.{number // 256}.{number % 256}.0/24"))
    assert network.with_range(rules, network.address_range("10.0.0.0/24")) == rules
    with pytest.raises(InvalidRequest) as refused:
        network.with_range(rules, network.address_range("192.0.2.0/24"))
    assert refused.value.code == "network_ranges_too_many"
    assert network.read(network.write(rules)) == rules
    with pytest.raises(NotFound):
        network.without_range(rules, network.address_range("192.0.2.0/24"))


def test_the_text_of_the_specification() -> None:
    """Format 1, as the module says it."""
    assert network.write(CLOSED) == "1 Deny None 203.0.113.0/24 2001:db8::/32"
    assert network.write(network.OPEN) == ""
    assert network.read("") == network.OPEN


@pytest.mark.parametrize(
    "text",
    [
        "1 Allow AzureServices",  # has another text: the empty one
        "2 Deny None",
        "1 Deny",
        "1 Deny None ",
        "1 deny None",
        "1 Deny Some",
        "1 Deny None 203.0.113.7/24",
        "1 Deny None 203.0.113.7",
        "1 Deny None 203.0.113.0/24 203.0.113.0/24",
        "1 Deny None 2001:db8::/32 203.0.113.0/24",
        "1 Deny None 2001:DB8::/32",
        " ",
    ],
)
def test_rules_that_were_not_written_here_are_damaged(text: str) -> None:
    """R-043: one encoding, and nobody is let in by another."""
    with pytest.raises(IntegrityFailure) as damaged:
        network.read(text)
    assert damaged.value.code == "network_rules_damaged"


# -- rate limits (R-066) -----------------------------------------------------------------------------------------------------------------


def test_the_published_limits() -> None:
    """R-066, requirements 2.11: calls in ten seconds by what they do and with which key."""
    hardware = {2_048: 1_000, 3_072: 250, 4_096: 125}
    software = {2_048: 2_000, 3_072: 500, 4_096: 250}
    for published, kty in ((hardware, KeyType.RSA_HSM), (software, KeyType.RSA)):
        for size, calls in published.items():
            kind = limits.using(kty, size)
            assert limits.PER_WINDOW[kind.budget] // kind.weight == calls
            assert not kind.changes
    for kty, calls in ((KeyType.RSA_HSM, 5), (KeyType.EC_HSM, 5), (KeyType.RSA, 10), (KeyType.EC, 10)):
        kind = limits.making(KeyKind(kty, 4_096, ""))
        assert (limits.PER_WINDOW[kind.budget], kind.weight, kind.changes) == (calls, 1, True)
    assert (limits.using(KeyType.EC, 0), limits.LOOK.budget) == (limits.CallKind(), Budget.SOFTWARE_OTHER)


def test_a_budget_comes_back_when_its_window_has_passed() -> None:
    """R-066."""
    spent, now = Spent(), 1_000_000_500
    for _ in range(5):
        spent, wait = spend(spent, 1, 5, now)
        assert wait == 0
    same, wait = spend(spent, 1, 5, now)
    assert (same, wait) == (spent, 10_500)
    assert spend(spent, 1, 5, now + wait - 1)[1] == 1
    assert spend(spent, 1, 5, now + wait)[1] == 0


def test_a_clock_that_is_set_back_neither_gives_nor_takes() -> None:
    """R-066."""
    spent, _ = spend(Spent(), 5, 5, 1_000_000)
    again, wait = spend(spent, 1, 5, 400_000)
    assert (again, wait > 0) == (spent, True)


def test_a_call_larger_than_its_budget_is_let_through_alone() -> None:
    """R-066: a scaled-down limit must not refuse for ever."""
    spent, wait = spend(Spent(), 8, 2, 50_000)
    assert wait == 0
    assert spend(spent, 8, 2, 50_000)[1] > 0
    assert spend(spent, 8, 2, 61_000)[1] == 0


def test_what_a_failed_over_vault_lets_through() -> None:
    """R-069, requirements 2.1: list, get and cryptography; backup; whatever is new changes something until said otherwise."""
    assert set(Permission) - READING_PERMISSIONS == {
        Permission.UPDATE,
        Permission.CREATE,
        Permission.IMPORT,
        Permission.DELETE,
        Permission.RECOVER,
        Permission.RESTORE,
        Permission.PURGE,
        Permission.ROTATE,
        Permission.SET_ROTATION_POLICY,
    }


# -- rotation (R-035) --------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [("P90D", Duration(days=90)), ("P1Y", Duration(years=1)), ("P18M", Duration(months=18)), ("P1Y2M3D", Duration(1, 2, 3))],
)
def test_durations(text: str, expected: Duration) -> None:
    """R-035."""
    assert rotation.duration(text) == expected
    assert str(expected) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "P",
        "90D",
        "P90",
        "p90d",
        "P0D",
        "P090D",
        "P1W",
        "PT24H",
        "P1DT1H",
        "P1D2M",
        "P-1D",
        "P+1D",
        "P1.5M",
        "P90D ",
        "P٣D",
        "P101Y",
        "P99999D",
        "P1Y0M",
    ],
)
def test_what_is_no_duration(text: str) -> None:
    """R-035: one way to write each."""
    with pytest.raises(InvalidRequest) as refused:
        rotation.duration(text)
    assert refused.value.code == "duration_invalid"


@pytest.mark.parametrize(
    ("start", "span", "end"),
    [
        ("2026-01-31T10:00:00", "P1M", "2026-02-28T10:00:00"),
        ("2028-01-31T10:00:00", "P1M", "2028-02-29T10:00:00"),
        ("2028-02-29T00:00:00", "P1Y", "2029-02-28T00:00:00"),
        ("2026-12-15T00:00:00", "P1M", "2027-01-15T00:00:00"),
        ("2026-01-31T00:00:00", "P1M1D", "2026-03-01T00:00:00"),
        ("2026-01-01T00:00:00.123", "P90D", "2026-04-01T00:00:00.123"),
    ],
)
def test_time_is_counted_in_the_calendar(start: str, span: str, end: str) -> None:
    """R-035."""
    assert rotation.later(millis(start), rotation.duration(span)) == millis(end)


def test_time_ends_where_calendars_do() -> None:
    """R-035."""
    century = rotation.duration("P100Y")
    assert rotation.later(rotation.LATEST, century) == rotation.LATEST
    assert rotation.later(rotation.LATEST, rotation.duration("P1D")) == rotation.LATEST
    assert rotation.later(10**18, rotation.duration("P1D")) == rotation.LATEST
    assert rotation.earlier(0, rotation.duration("P1D")) == 0
    assert rotation.earlier(1, century) == 0


def policy(*actions: LifetimeAction, expiry: str | None = None) -> rotation.RotationPolicy:
    return rotation.policy(actions, None if expiry is None else rotation.duration(expiry), created=1, updated=2)


def rotate(after: str | None = None, before: str | None = None) -> LifetimeAction:
    return rotation.action("rotate", after, before)


def notify(before: str) -> LifetimeAction:
    return rotation.action("NOTIFY", None, before)


@pytest.mark.parametrize(
    ("actions", "expiry"),
    [
        ((), None),
        ((rotate("P7D"),), None),
        ((rotate("P21D"),), "P28D"),
        ((rotate(before="P7D"),), "P28D"),
        ((rotate("P83D"), notify("P1D")), "P90D"),
        ((notify("P30D"), rotate("P1M")), "P2M"),
        ((notify("P30D"),), "P28D"),
    ],
)
def test_policies_that_keep_the_rules(actions: tuple[LifetimeAction, ...], expiry: str | None) -> None:
    """R-035: at least 7 days from creation and before expiry, at least 28 days to live."""
    made = policy(*actions, expiry=expiry)
    assert made.actions == actions
    assert rotation.read(rotation.write(made)) == made


@pytest.mark.parametrize(
    ("actions", "expiry"),
    [
        ((rotate("P6D"),), None),
        ((rotate("P22D"),), "P28D"),
        ((rotate(before="P22D"),), "P28D"),
        ((rotate(before="P6D"),), "P28D"),
        ((rotate(before="P30D"),), None),
        ((rotate("P1Y"),), "P1Y"),
        ((rotate("P2M"),), "P66D"),
        ((rotate("P1Y"),), "P366D"),
        ((), "P27D"),
        ((rotate("P90D", "P30D"),), "P1Y"),
        ((rotate(),), None),
        ((rotate("P90D"), rotate("P91D")), None),
        ((notify("P30D"), notify("P31D")), None),
        ((rotation.action("Notify", "P30D", None),), None),
    ],
)
def test_policies_that_break_a_rule(actions: tuple[LifetimeAction, ...], expiry: str | None) -> None:
    """R-035."""
    with pytest.raises(InvalidRequest) as refused:
        policy(*actions, expiry=expiry)
    assert refused.value.code == "rotation_policy_invalid"


def test_when_something_is_due() -> None:
    """R-035."""
    made, day = millis("2026-01-01T00:00:00"), 86_400_000
    assert rotation.next_due(None, made, made + day) is None
    assert rotation.next_due(policy(notify("P30D")), made, made + day) is None
    assert rotation.next_due(policy(rotate("P90D")), made, None) == made + 90 * day
    before = policy(rotate(before="P10D"), expiry="P60D")
    assert rotation.next_due(before, made, made + 60 * day) == made + 50 * day
    assert rotation.next_due(before, made, None) is None
    assert rotation.near_expiry(None, made + 60 * day) == made + 30 * day
    assert rotation.near_expiry(None, None) is None
    assert rotation.near_expiry(before, made + 60 * day) is None
    assert rotation.expiry_of_new(before, made) == made + 60 * day
    assert rotation.expiry_of_new(None, made) is None


def test_the_text_of_a_policy() -> None:
    """Format 1, as the module says it."""
    made = policy(rotate("P60D"), notify("P15D"), expiry="P90D")
    assert rotation.write(made) == "1 1 2 P90D Rotate:after:P60D Notify:before:P15D"
    assert rotation.write(policy()) == "1 1 2 -"
    assert made.action(ActionKind.ROTATE) == rotate("P60D")


@pytest.mark.parametrize(
    "text",
    ["1", "1 1 2", "2 1 2 -", "1 01 2 -", "1 1 2 P6D", "1 1 2 - ", "1 1 2 - Rotate", "1 1 2 - Rotate:after:P6D", "1 1 2 - Rotate:when:P90D",
     "1 1 2 - rotate:after:P90D", "1 1 2 - Rotate:after:P90D Rotate:after:P90D", "1 -1 2 x", "1 \u0661 2 -"],
)  # fmt: skip
def test_policies_that_were_not_written_here_are_damaged(text: str) -> None:
    """R-035: one encoding."""
    with pytest.raises(IntegrityFailure) as damaged:
        rotation.read(text)
    assert damaged.value.code == "rotation_policy_damaged"
