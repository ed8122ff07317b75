"""What the operator does: settings, the key store, and in dev homes the clock and faults."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING

from keystead.api.types.base import utc
from keystead.api.types.tenants import Done
from keystead.api.types.watching import ClockView, EpochView, FaultView, HomeView, SettingView
from keystead.core.errors import Forbidden, InvalidRequest
from keystead.core.settings import Settings
from keystead.ports.keystore import Compartment
from keystead.services.auditing import record
from keystead.services.file_policies import roll_availability_key as roll_files_availability_key
from keystead.services.policies import find_policy, roll_availability_key

if TYPE_CHECKING:
    from collections.abc import Mapping

    from keystead.api.call import Call
    from keystead.api.types import file_policies as f
    from keystead.api.types import policies as p
    from keystead.api.types import watching as t
    from keystead.api.types.base import Empty
    from keystead.services.context import DevHome, Services

LATEST = 7_258_118_400_000
"""2200-01-01: times that are computed from a dev home's clock stay far from what calendars and databases can hold."""


def show_home(services: Services, call: Call, request: Empty) -> HomeView:
    """Where this is, and what."""
    return HomeView(home=services.home.where, dev=services.home.dev, version=services.home.version)


def get_settings(services: Services, call: Call, request: Empty) -> list[SettingView]:
    """The effective settings and configuration, and where each value comes from."""
    settings = [(field.name, _text(getattr(services.settings, field.name))) for field in fields(Settings)]
    return [
        SettingView(name=name, value=value, source=_source(services.home.sources, name))
        for name, value in (*settings, *services.home.configuration)
    ]


def _source(sources: Mapping[str, str], name: str) -> str:
    """Where a value comes from; what is in a list comes from where the list does."""
    return next((source for known, source in sources.items() if f"{name}.".startswith(f"{known}.")), "default")


def set_setting(services: Services, call: Call, request: t.SetSetting) -> SettingView:
    """Store a setting; processes read it when they start."""
    value = services.home.parse_setting(request.name, request.value)
    with services.db.write() as tx:
        tx.settings.put(request.name, request.value)
        record(services, tx, call, request.name, (("Name", request.name), ("Value", _text(value))))
    return SettingView(name=request.name, value=_text(value), source="settings set")


def rotate_keystore(services: Services, call: Call, request: Empty) -> list[EpochView]:
    """Rewrite every compartment of the key store under a new epoch key: older copies of it do not open any more."""
    with services.db.write() as tx:
        record(services, tx, call, "keystore", (("Compartments", ",".join(compartment.value for compartment in Compartment)),))
    return [EpochView(compartment=compartment.value, epoch=services.keystore.rotate(compartment)) for compartment in Compartment]


def roll_key(services: Services, call: Call, request: p.NamePolicy) -> Done:
    """Replace a policy's availability key (R-152). The id of the new one is shown; no key ever is (R-138)."""
    with services.db.read() as tx:
        policy = find_policy(tx, call, request.policy)
    return Done(id=roll_availability_key(services, call, policy))


def roll_files_key(services: Services, call: Call, request: f.NameGeo) -> Done:
    """Replace the availability key of a geo's files (R-152)."""
    return Done(id=roll_files_availability_key(services, call, request.geo))


def advance_clock(services: Services, call: Call, request: t.AdvanceClock) -> ClockView:
    """Move a dev home's clock forward, in all its processes. The record comes first: a crash leaves one of an act that did not come about."""
    dev = _dev(services)
    if services.clock.now() + request.milliseconds > LATEST:
        raise InvalidRequest("clock_too_far", "the clock of a dev home ends with the year 2199", "advance it by less, or make another home")
    with services.db.write() as tx:
        record(services, tx, call, "clock", (("Milliseconds", str(request.milliseconds)),))
    return ClockView(now=utc(dev.advance(request.milliseconds)))


def set_fault(services: Services, call: Call, request: t.SetFault) -> FaultView:
    """Make a vault of a dev home fail for the service's applications, in all processes, until `none`; recorded first, as above."""
    dev = _dev(services)
    with services.db.write() as tx:
        record(services, tx, call, request.vault, (("Fault", request.fault),))
    dev.set_fault(request.vault, request.fault)
    return FaultView(vault=request.vault, fault=request.fault)


def _dev(services: Services) -> DevHome:
    if services.dev is None:
        raise Forbidden("dev_homes_only", "this home was not made with init --dev", "make one with keystead init --dev")
    return services.dev


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
