"""Reading keystead.toml, the environment, and what `settings set` stored. The last one wins.

keystead.toml has one table for each part of `keystead.core.configuration.Configuration`, and `[settings]` for the numbers of
`keystead.core.settings`. The environment names a value as KEYSTEAD_TABLE_NAME (KEYSTEAD_DATABASE_URL), a setting as KEYSTEAD_NAME
(KEYSTEAD_PROBE_INTERVAL). Lists (containers, hooks) are in the file alone. Times of settings may have a unit: 500ms, 90s, 5m, 4h, 7d.
"""

from __future__ import annotations

import re
import tomllib
import types
from dataclasses import MISSING, dataclass, fields, is_dataclass, replace
from enum import StrEnum
from functools import cache
from typing import TYPE_CHECKING, Any, get_args, get_origin, get_type_hints

from keystead.core.configuration import Configuration
from keystead.core.errors import InvalidRequest
from keystead.core.settings import LIMITS, Settings

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

FILE = "keystead.toml"
ENVIRONMENT = "KEYSTEAD_"
SETTINGS = "settings"
_UNITS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_DURATION = re.compile(r"([0-9]{1,15})(ms|s|m|h|d)?")


@dataclass(frozen=True, slots=True)
class Written:
    """What file and environment say.

    Attributes:
        configuration: where things are.
        settings: layers of settings as text, by the name of where they come from.
        sources: where each value of the configuration that is not a default comes from, by TABLE.NAME.
    """

    configuration: Configuration
    settings: tuple[tuple[str, Mapping[str, str]], ...]
    sources: Mapping[str, str]


def read_written(folder: Path, environment: Mapping[str, str]) -> Written:
    """Read keystead.toml, where there is one, and the environment.

    Raises:
        InvalidRequest: the file is no TOML, or holds a name or a value that does not fit.
    """
    file = folder / FILE
    tables: dict[str, Any] = {}
    if file.exists():
        try:
            tables = tomllib.loads(file.read_bytes().decode())
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise _unfit(f"it is not TOML: {error}") from error
    numbers = tables.pop(SETTINGS, {})
    if not isinstance(numbers, dict) or not all(type(value) in {bool, int, str} for value in numbers.values()):
        raise _unfit("[settings] holds names with a number, true, false or a text such as 4h each")
    sources = dict.fromkeys(_leaves(tables), FILE)
    for table, kind in _tables().items():
        for name, hint in get_type_hints(kind).items():
            variable = f"{ENVIRONMENT}{table}_{name}".upper()
            if variable in environment and get_origin(hint) is not tuple:
                tables.setdefault(table, {})[name] = _from_text(variable, environment[variable], hint)
                sources[f"{table}.{name}"] = "environment"
    names = {field.name for field in fields(Settings)}
    from_environment = {name: environment[ENVIRONMENT + name.upper()] for name in names if ENVIRONMENT + name.upper() in environment}
    layers = ((FILE, {name: str(value) for name, value in numbers.items()}), ("environment", from_environment))
    return Written(_built(Configuration, tables, ""), layers, sources)


def read_settings(written: Written, stored: Mapping[str, str]) -> tuple[Settings, dict[str, str]]:
    """The effective settings, and where each that is not a default comes from.

    Args:
        written: what file and environment say.
        stored: what `settings set` stored.

    Raises:
        InvalidRequest: an unknown name or a value that does not fit.
    """
    values: dict[str, bool | int] = {}
    sources: dict[str, str] = {}
    for source, layer in (*written.settings, ("settings set", stored)):
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


def shown(configuration: Configuration) -> Iterator[tuple[str, str]]:
    """Every value of a configuration as text, by its name: TABLE.NAME, or TABLE.LIST.NUMBER.NAME."""
    return _shown(configuration, "")


# -- tables and types -----------------------------------------------------------------------------------------------------------------


@cache
def _tables() -> Mapping[str, type]:
    """The tables that are not lists."""
    return types.MappingProxyType(
        {name: hint for name, hint in get_type_hints(Configuration).items() if isinstance(hint, type) and is_dataclass(hint)}
    )


def _leaves(tables: Mapping[str, Any]) -> Iterator[str]:
    """The names of what a file says, lists whole."""
    for table, values in tables.items():
        if isinstance(values, dict):
            yield from (f"{table}.{name}" for name in values)
        else:
            yield table


def _shown(part: Any, prefix: str) -> Iterator[tuple[str, str]]:  # noqa: ANN401 - any part of a configuration
    for field in fields(part):
        value, name = getattr(part, field.name), f"{prefix}{field.name}"
        if is_dataclass(value):
            yield from _shown(value, f"{name}.")
        elif isinstance(value, tuple) and any(is_dataclass(one) for one in value):
            for number, one in enumerate(value):
                yield from _shown(one, f"{name}.{number}.")
        elif isinstance(value, tuple):
            yield name, ",".join(value)
        else:
            yield name, str(value).lower() if isinstance(value, bool) else str(value)


def _built(kind: type, values: Any, where: str) -> Any:  # noqa: ANN401 - values come from outside, results have the kind
    """A dataclass from a table, checked name by name."""
    if not isinstance(values, dict):
        raise _unfit(f"{where or 'the file'} is a table")
    hints = get_type_hints(kind)
    for name in values:
        if name not in hints:
            raise _unfit(f"{where}{'.' if where else ''}{name} is not a name Keystead knows")
    required = [field.name for field in fields(kind) if field.default is MISSING and field.default_factory is MISSING]
    for name in required:
        if name not in values:
            raise _unfit(f"{where} lacks {name}")
    return kind(**{name: _value(value, hints[name], f"{where}{'.' if where else ''}{name}") for name, value in values.items()})


def _value(value: Any, hint: Any, where: str) -> Any:  # noqa: ANN401 - see _built
    if is_dataclass(hint):
        assert isinstance(hint, type)
        return _built(hint, value, where)
    if get_origin(hint) is tuple:
        if not isinstance(value, list):
            raise _unfit(f"{where} is a list")
        return tuple(_value(one, get_args(hint)[0], f"{where}.{number}") for number, one in enumerate(value))
    if issubclass(hint, StrEnum):
        if value not in list(hint):
            raise _unfit(f"{where} is one of {', '.join(hint)}, not {value!r}")
        return hint(value)
    if type(value) is not hint or (hint is int and value < 0):
        kinds = {str: "a text", int: "a number, not less than 0", bool: "true or false"}
        raise _unfit(f"{where} is {kinds[hint]}, not {value!r}")
    return value


def _from_text(variable: str, text: str, hint: type) -> str | int | bool:
    if hint is bool:
        if text.lower() not in {"true", "false"}:
            raise InvalidRequest(
                "configuration_invalid", f"the environment's {variable} is true or false, not {text!r}", "mend or unset it"
            )
        return text.lower() == "true"
    if hint is int:
        if not (text.isascii() and text.isdecimal()):
            raise InvalidRequest("configuration_invalid", f"the environment's {variable} is a number, not {text!r}", "mend or unset it")
        return int(text)
    return text


def _unfit(what: str) -> InvalidRequest:
    return InvalidRequest("configuration_invalid", f"{FILE} cannot be used: {what}", "docs/settings.md lists every table and name")
