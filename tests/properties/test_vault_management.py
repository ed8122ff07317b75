"""Network rules, rate limits and rotation policies, whatever they are given."""

from __future__ import annotations

import random
from datetime import UTC, datetime
from ipaddress import IPv4Network, IPv6Network, ip_address

from hypothesis import given, settings
from hypothesis import strategies as st

from keystead.core.errors import Forbidden, IntegrityFailure, InvalidRequest
from keystead.core.vaults import limits, network, rotation
from keystead.core.vaults.network import Bypass, DefaultAction, NetworkRules
from keystead.core.vaults.rotation import ActionKind, Duration, LifetimeAction

MANY = settings(max_examples=300, deadline=None)
TIMES = st.integers(0, rotation.LATEST)
DAY = 86_400_000

ranges = st.one_of(
    st.builds(lambda address, prefix: IPv4Network((address, prefix), strict=False), st.integers(0, 2**32 - 1), st.integers(0, 32)),
    st.builds(
        lambda address, prefix: IPv6Network((address, prefix), strict=False), st.integers(2**64, 2**128 - 1), st.integers(0, 128)
    ).filter(lambda one: one.network_address.ipv4_mapped is None),
)


@st.composite
def rules(draw: st.DrawFn) -> NetworkRules:
    """Any rules that can come about."""
    made = NetworkRules(draw(st.sampled_from(DefaultAction)), draw(st.sampled_from(Bypass)))
    for one in draw(st.lists(ranges, max_size=8)):
        made = network.with_range(made, network.address_range(str(one)))
    return made


durations = st.builds(Duration, st.integers(0, 20), st.integers(0, 60), st.integers(0, 800)).filter(lambda one: one != Duration())


@st.composite
def policies(draw: st.DrawFn) -> rotation.RotationPolicy | None:
    """Any policy that keeps the rules; None where what was drawn does not."""
    rotate = draw(
        st.none()
        | st.builds(lambda span: LifetimeAction(ActionKind.ROTATE, after_create=span), durations)
        | st.builds(lambda span: LifetimeAction(ActionKind.ROTATE, before_expiry=span), durations)
    )
    notify = draw(st.none() | st.builds(lambda span: LifetimeAction(ActionKind.NOTIFY, before_expiry=span), durations))
    actions = [one for one in (rotate, notify) if one is not None]
    if draw(st.booleans()):
        actions.reverse()
    try:
        return rotation.policy(actions, draw(st.none() | durations), created=draw(TIMES), updated=draw(TIMES))
    except InvalidRequest:
        return None


@MANY
@given(rules())
def test_network_rules_are_read_as_they_were_written(made: NetworkRules) -> None:
    """R-043: one encoding."""
    assert network.read(network.write(made)) == made


@MANY
@given(rules(), st.integers(0, 2**32 - 1) | st.integers(2**32, 2**128 - 1))
def test_an_address_is_let_in_exactly_when_a_range_holds_it(made: NetworkRules, number: int) -> None:
    """R-043: also where it arrives as an IPv4-mapped one."""
    address = ip_address(number)
    held = made.default is DefaultAction.ALLOW or any(address in one for one in made.ranges if one.version == address.version)
    spellings = [str(address)] if address.version == 6 else [str(address), f"::ffff:{address}"]
    for text in spellings if address.version == 4 or address.ipv4_mapped is None else []:
        try:
            network.admit(made, text, inside=False, vault="v")
            let_in = True
        except Forbidden:
            let_in = False
        assert let_in == held


@MANY
@given(st.text(max_size=60) | st.from_regex(r"1 (Allow|Deny) (None|AzureServices)( [0-9a-f:./]{0,20}){0,3}", fullmatch=True))
def test_any_text_is_rules_with_that_very_text_or_damaged(text: str) -> None:
    """R-043: a parser of what lies in a database somebody may have changed."""
    try:
        found = network.read(text)
    except IntegrityFailure:
        return
    assert network.write(found) == text


@MANY
@given(st.text(max_size=60) | st.from_regex(r"[0-9a-fA-F:.]{1,20}/[0-9]{1,3}", fullmatch=True))
def test_any_text_is_a_range_or_refused(text: str) -> None:
    """R-043: what callers type."""
    try:
        found = network.address_range(text)
    except InvalidRequest:
        return
    assert network.address_range(str(found)) == found


@MANY
@given(st.integers(0, 2**32), st.sampled_from([5, 10, 125]), st.integers(10, 4_000))
def test_no_ten_seconds_hold_more_than_the_budget(seed: int, limit: int, pace: int) -> None:
    """R-066: whatever the pace; and whoever waits as long as told is let through then and not before."""
    chance = random.Random(seed)
    spent, now, taken = limits.Spent(), chance.randrange(10**6), []
    for _ in range(120):
        now += chance.randrange(pace)
        weight = chance.choice([1, 1, 4, 8]) if limit >= 125 else 1
        after, wait = limits.spend(spent, weight, limit, now)
        if wait:
            assert sum(after.slots) <= sum(spent.slots)
            assert 0 < wait <= 11_000
            assert limits.spend(spent, weight, limit, now + wait)[1] == 0
            assert limits.spend(spent, weight, limit, now + wait - 1)[1] == 1
        else:
            taken.append((now, weight))
        spent = after
    for start, _ in taken:
        assert sum(weight for time, weight in taken if start <= time < start + 10_000) <= limit


@MANY
@given(policies())
def test_policies_are_read_as_they_were_written(made: rotation.RotationPolicy | None) -> None:
    """R-035: one encoding."""
    if made is not None:
        assert rotation.read(rotation.write(made)) == made


@MANY
@given(policies(), TIMES.filter(lambda time: time < rotation.LATEST - 70_000 * DAY))
def test_a_rotation_lies_seven_days_from_both_ends(made: rotation.RotationPolicy | None, created: int) -> None:
    """R-035: of every version that the policy itself makes, wherever in the calendar."""
    if made is None:
        return
    expires = rotation.expiry_of_new(made, created)
    due = rotation.next_due(made, created, expires)
    if expires is not None:
        assert expires - created >= 28 * DAY
    if due is not None:
        assert due - created >= 7 * DAY
        assert expires is None or expires - due >= 7 * DAY


@MANY
@given(
    st.text(max_size=60)
    | st.from_regex(r"1 [0-9]{1,3} [0-9]{1,3} (-|P[0-9YMD]{1,6})( (Rotate|Notify):(after|before):P[0-9YMD]{1,6}){0,2}", fullmatch=True)
)
def test_any_text_is_a_policy_with_that_very_text_or_damaged(text: str) -> None:
    """R-035."""
    try:
        found = rotation.read(text)
    except IntegrityFailure:
        return
    assert text == ("" if found is None else rotation.write(found))


@MANY
@given(st.text(max_size=12) | st.from_regex(r"P([0-9]{1,5}[YMDW]){0,4}", fullmatch=True))
def test_any_text_is_a_duration_with_that_very_text_or_refused(text: str) -> None:
    """R-035."""
    try:
        found = rotation.duration(text)
    except InvalidRequest:
        return
    assert str(found) == text
    assert 0 < found.least_days <= found.most_days <= rotation.MAX_DAYS


@MANY
@given(TIMES, durations)
def test_a_span_is_as_long_as_its_bounds_say(time: int, span: Duration) -> None:
    """R-035: in the calendar, without ever leaving it."""
    after, before = rotation.later(time, span), rotation.earlier(time, span)
    assert 0 <= before < time or time == 0
    assert time < after <= rotation.LATEST or time == rotation.LATEST
    if after < rotation.LATEST:
        assert span.least_days * DAY <= after - time + 3 * DAY  # the end of a month is cut: 31 January and a month are 28 days
        assert after - time <= span.most_days * DAY
        datetime.fromtimestamp(after / 1_000, UTC)
