"""Rotation policies of keys: when a new version is made by itself, when its end is told of, how long it lives (R-035, requirements 2.10).

A policy has up to two actions. `Rotate` comes a time after the current version was made, or a time before it expires; `Notify` a time before
it expires. `expiry_time` is how long each new version lives; it never touches a version that is there. At least seven days lie between the
making of a version and its rotation, and between its rotation and its expiry; a version lives 28 days at least.

Times are durations of ISO 8601 in years, months and days (`P1Y6M`, `P90D`), counted in the calendar of UTC: a month after 31 January is
28 or 29 February. As text, version 1, fields apart by one space, times in milliseconds since the epoch:

    1 CREATED UPDATED EXPIRY|- [ACTION:TRIGGER:DURATION ...]     1 1767225600000 1767225600000 P90D Rotate:after:P60D Notify:before:P15D

The empty text is no policy: nothing rotates, and the end of a version is told of 30 days before.
"""

from __future__ import annotations

import re
from calendar import monthrange
from dataclasses import dataclass
from datetime import MAXYEAR, UTC, datetime, timedelta
from enum import StrEnum
from functools import lru_cache
from typing import TYPE_CHECKING

from keystead.core.errors import IntegrityFailure, InvalidRequest

if TYPE_CHECKING:
    from collections.abc import Iterable

MIN_ROTATION_DAYS = 7
"""Days from the making of a version to its rotation, and from its rotation to its expiry."""

MIN_EXPIRY_DAYS = 28
MAX_DAYS = 36_600
"""Of any duration: a hundred years."""

LATEST = 253_402_300_799_000
"""9999-12-31 23:59:59 UTC, in milliseconds: no later time can be shown."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_DURATION = re.compile(r"P(?=[1-9])(?:([1-9][0-9]{0,4})Y)?(?:([1-9][0-9]{0,4})M)?(?:([1-9][0-9]{0,4})D)?", re.ASCII)
_LEAST = (0, 28, 59, 89, 120, 150, 181, 212, 242, 273, 303, 334)
_MOST = (0, 31, 62, 92, 123, 153, 184, 215, 245, 276, 306, 337)
"""Days that so many months in a row have at least and at most."""

_VERSION = "1"
_NONE = "-"
_AFTER, _BEFORE = "after", "before"


@dataclass(frozen=True, slots=True)
class Duration:
    """Years, months and days of the calendar, one of them at least."""

    years: int = 0
    months: int = 0
    days: int = 0

    def __str__(self) -> str:
        parts = ((self.years, "Y"), (self.months, "M"), (self.days, "D"))
        return "P" + "".join(f"{count}{unit}" for count, unit in parts if count)

    @property
    def least_days(self) -> int:
        """Days it has at least, wherever in the calendar it lies."""
        years, months = divmod(12 * self.years + self.months, 12)
        return 365 * years + _LEAST[months] + self.days

    @property
    def most_days(self) -> int:
        """Days it has at most."""
        years, months = divmod(12 * self.years + self.months, 12)
        return 366 * years + _MOST[months] + self.days


class ActionKind(StrEnum):
    """What happens."""

    ROTATE = "Rotate"
    NOTIFY = "Notify"


@dataclass(frozen=True, slots=True)
class LifetimeAction:
    """One action with its one trigger."""

    kind: ActionKind
    after_create: Duration | None = None
    before_expiry: Duration | None = None


@dataclass(frozen=True, slots=True)
class RotationPolicy:
    """The policy of one key; made by `policy` and `read`. Times in milliseconds."""

    actions: tuple[LifetimeAction, ...]
    expiry_time: Duration | None
    created: int
    updated: int

    def action(self, kind: ActionKind) -> LifetimeAction | None:
        """The action of a kind."""
        return next((one for one in self.actions if one.kind is kind), None)


NOTICE_DAYS = 30
DEFAULT_ACTIONS = (LifetimeAction(ActionKind.NOTIFY, before_expiry=Duration(days=NOTICE_DAYS)),)
"""What holds for a key without a policy."""


def duration(text: str) -> Duration:
    """A duration of years, months and days: upper case, without zeros in front and without parts that are zero.

    Raises:
        InvalidRequest: `duration_invalid`.
    """
    match = _DURATION.fullmatch(text)
    found = None if match is None else Duration(*(int(count or 0) for count in match.groups()))
    if found is None or found.most_days > MAX_DAYS:
        raise InvalidRequest(
            "duration_invalid",
            f"{text!r} is not a duration of at most 100 years",
            "write ISO 8601 in years, months and days, such as P90D or P1Y6M",
        )
    return found


def action(kind: str, after_create: str | None, before_expiry: str | None) -> LifetimeAction:
    """An action as a caller names it; the kind whatever its case.

    Raises:
        InvalidRequest: `rotation_policy_invalid`, `duration_invalid`.
    """
    if kind.capitalize() not in list(ActionKind):
        raise _unfit(f"{kind!r} is not an action", f"use {' or '.join(ActionKind)}")
    return LifetimeAction(
        ActionKind(kind.capitalize()),
        None if after_create is None else duration(after_create),
        None if before_expiry is None else duration(before_expiry),
    )


def policy(actions: Iterable[LifetimeAction], expiry_time: Duration | None, *, created: int, updated: int) -> RotationPolicy:
    """A policy that keeps every rule.

    Args:
        actions: at most one of each kind.
        expiry_time: how long a new version lives; None: for ever.
        created: when the key first had a policy.
        updated: when this one was set.

    Raises:
        InvalidRequest: `rotation_policy_invalid`, saying which rule is broken.
    """
    made = RotationPolicy(tuple(actions), expiry_time, created, updated)
    if len({one.kind for one in made.actions}) != len(made.actions):
        raise _unfit("an action is named twice", "name each of Rotate and Notify once at most")
    if expiry_time is not None and expiry_time.least_days < MIN_EXPIRY_DAYS:
        raise _unfit(f"a version would expire after {expiry_time}", f"let it live {MIN_EXPIRY_DAYS} days at least")
    for one in made.actions:
        _check_action(one, expiry_time)
    return made


def write(made: RotationPolicy) -> str:
    """The policy as text."""
    return " ".join((_VERSION, str(made.created), str(made.updated), str(made.expiry_time or _NONE), *map(_action_text, made.actions)))


@lru_cache(maxsize=1_024)
def read(text: str) -> RotationPolicy | None:
    """The policy of a text that `write` made; None for no policy.

    Raises:
        IntegrityFailure: `rotation_policy_damaged`.
    """
    if not text:
        return None
    try:
        version, created, updated, expiry, *actions = text.split(" ")
        span = None if expiry == _NONE else duration(expiry)
        found = policy(map(_read_action, actions), span, created=int(created), updated=int(updated))
    except (ValueError, InvalidRequest):
        raise _damaged() from None
    if version != _VERSION or write(found) != text:
        raise _damaged()
    return found


def _damaged() -> IntegrityFailure:
    return IntegrityFailure(
        "rotation_policy_damaged",
        "the rotation policy of a key cannot be read",
        "set it again, or restore the vault database from a backup",
    )


def next_due(made: RotationPolicy | None, created: int, expires: int | None) -> int | None:
    """When a current version is to be rotated; None: never.

    Args:
        made: the key's policy.
        created: when the version was made.
        expires: when it ends.
    """
    rotate = None if made is None else made.action(ActionKind.ROTATE)
    if rotate is None:
        return None
    if rotate.after_create is not None:
        return later(created, rotate.after_create)
    return None if rotate.before_expiry is None or expires is None else earlier(expires, rotate.before_expiry)


def near_expiry(made: RotationPolicy | None, expires: int | None) -> int | None:
    """When the end of a current version is to be told of; None: never."""
    actions = DEFAULT_ACTIONS if made is None else made.actions
    notify = next((one for one in actions if one.kind is ActionKind.NOTIFY), None)
    if notify is None or notify.before_expiry is None or expires is None:
        return None
    return earlier(expires, notify.before_expiry)


def expiry_of_new(made: RotationPolicy | None, now: int) -> int | None:
    """When a version made now by a rotation ends; None: never."""
    return None if made is None or made.expiry_time is None else later(now, made.expiry_time)


def later(time: int, span: Duration) -> int:
    """A time after another, `LATEST` at most. Months first, then days, as people count."""
    return _moved(time, 12 * span.years + span.months, span.days)


def earlier(time: int, span: Duration) -> int:
    """A time before another, the epoch at the earliest."""
    return _moved(time, -(12 * span.years + span.months), -span.days)


def _moved(time: int, months: int, days: int) -> int:
    start = _EPOCH + timedelta(milliseconds=min(time, LATEST))
    year, month = divmod(12 * start.year + start.month - 1 + months, 12)
    if year > MAXYEAR:
        return LATEST
    if year < _EPOCH.year:
        return 0
    day = min(start.day, monthrange(year, month + 1)[1])
    try:
        moved = start.replace(year=year, month=month + 1, day=day) + timedelta(days=days)
    except OverflowError:
        return LATEST
    return min(max((moved - _EPOCH) // timedelta(milliseconds=1), 0), LATEST)


def _check_action(one: LifetimeAction, expiry_time: Duration | None) -> None:
    trigger = one.after_create or one.before_expiry
    if trigger is None or (one.after_create is not None and one.before_expiry is not None):
        raise _unfit(f"{one.kind} needs exactly one trigger", "give a time after creation, or a time before expiry")
    if one.kind is ActionKind.NOTIFY:
        if one.after_create is not None:
            raise _unfit("Notify comes before expiry, not after creation", "give it a time before expiry")
        return
    if trigger.least_days < MIN_ROTATION_DAYS:
        raise _unfit(f"a rotation at {trigger} is too near", f"rotate {MIN_ROTATION_DAYS} days after creation and before expiry at least")
    if expiry_time is None:
        if one.before_expiry is not None:
            raise _unfit("new versions would never expire, and so never rotate again", "give an expiry time, or a time after creation")
        return
    if expiry_time.least_days - trigger.most_days < MIN_ROTATION_DAYS:
        raise _unfit(
            f"with an expiry after {expiry_time}, a rotation at {trigger} may leave less than {MIN_ROTATION_DAYS} days",
            "give a shorter time for the rotation, or a longer one for the expiry",
        )


def _action_text(one: LifetimeAction) -> str:
    return f"{one.kind}:{_AFTER}:{one.after_create}" if one.after_create is not None else f"{one.kind}:{_BEFORE}:{one.before_expiry}"


def _read_action(text: str) -> LifetimeAction:
    kind, trigger, span = text.split(":")
    given = duration(span)
    return LifetimeAction(ActionKind(kind), given if trigger == _AFTER else None, given if trigger == _BEFORE else None)


def _unfit(what: str, mend: str) -> InvalidRequest:
    return InvalidRequest("rotation_policy_invalid", f"the rotation policy cannot be: {what}", mend)
