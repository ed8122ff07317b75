"""Reading settings: defaults, then the home's settings.json, then the environment, then what `settings set` stored. The last one wins.

Environment names are KEYSTEAD_ and the setting in capitals. Times may be written with a unit: 500ms, 90s, 5m, 4h, 7d.
"""

from __future__ import annotations

import re
from dataclasses import fields, replace
from typing import TYPE_CHECKING

import msgspec

from keystead.core.errors import InvalidRequest
from keystead.core.settings import LIMITS, Settings

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

FILE = "settings.json"
ENVIRONMENT = "KEYSTEAD_"
_UNITS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_DURATION = re.compile(r"([0-9]{1,15})(ms|s|m|h|d)?")


def read_settings(folder: Path, environment: Mapping[str, str], stored: Mapping[str, str]) -> tuple[Settings, dict[str, str]]:
    """The effective settings, and where each that is not a default comes from.

    Raises:
        InvalidRequest: an unknown name or a value that does not fit.
    """
    values: dict[str, bool | int] = {}
    sources: dict[str, str] = {}
    file = folder / FILE
    layers: list[tuple[str, Mapping[str, str]]] = []
    if file.exists():
        try:
            layers.append(
                (
                    FILE,
                    {name: str(value) for name, value in msgspec.json.decode(file.read_bytes(), type=dict[str, bool | int | str]).items()},
                )
            )
        except msgspec.DecodeError as error:
            raise InvalidRequest(
                "settings_file_invalid", f"{FILE} of the home is not a JSON object of settings: {error}", "mend or remove it"
            ) from error
    names = {field.name for field in fields(Settings)}
    layers.append(
        ("environment", {name: environment[ENVIRONMENT + name.upper()] for name in names if ENVIRONMENT + name.upper() in environment})
    )
    layers.append(("settings set", stored))
    for source, layer in layers:
        for name, text in layer.items():
            values[name] = parse_setting(name, text)
            sources[name] = source
    return replace(Settings(), **values), sources  # type: ignore[arg-type]  # parse_setting gave each value its field's type


def parse_setting(name: str, text: str) -> bool | int:
    """One value in the type its setting has.

    Raises:
        InvalidRequest: no such setting, or a value that does not fit.
    """
    default = getattr(Settings(), name, None) if name in {field.name for field in fields(Settings)} else None
    if isinstance(default, bool):
        if text.lower() in {"true", "false"}:
            return text.lower() == "true"
        raise InvalidRequest("setting_invalid", f"{name} is true or false, not {text!r}", "")
    if isinstance(default, int):
        match = _DURATION.fullmatch(text)
        if match:
            value, (low, high) = int(match[1]) * _UNITS[match[2] or "ms"], LIMITS[name]
            if low <= value <= high:
                return value
            raise InvalidRequest(
                "setting_out_of_range", f"{name} is {low} to {high}, not {value}", "keystead settings get shows the value in force"
            )
        raise InvalidRequest("setting_invalid", f"{name} is a whole number, with a unit for times (4h), not {text!r}", "")
    raise InvalidRequest("setting_unknown", f"there is no setting {name}", "keystead settings get lists them all")
