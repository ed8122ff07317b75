"""Settings: layers in order, times with units, and nothing that breaks a promise."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keystead.core.errors import InvalidRequest
from keystead.core.settings import LIMITS, Settings
from keystead.settings import parse_setting, read_settings

if TYPE_CHECKING:
    from pathlib import Path


class Folder:
    """A folder that holds one file of settings, or none, without a disk: what `read_settings` asks of a path."""

    def __init__(self, content: bytes | None) -> None:
        self._content = content

    def __truediv__(self, name: str) -> Folder:
        assert name == "settings.json"
        return self

    def exists(self) -> bool:
        return self._content is not None

    def read_bytes(self) -> bytes:
        assert self._content is not None
        return self._content


def folder(content: bytes | None) -> Path:
    return cast("Path", Folder(content))


def test_nothing_given_means_defaults() -> None:
    assert read_settings(folder(None), {}, {}) == (Settings(), {})


def test_the_last_layer_wins_and_is_named() -> None:
    file = folder(b'{"probe_interval": "10s", "mail_max_age": 3600000, "record_owner_reads": true, "slice_items": 7}')
    environment = {"KEYSTEAD_PROBE_INTERVAL": "20s", "KEYSTEAD_MAIL_MAX_AGE": "2h", "KEYSTEAD_HOME": "somewhere", "PROBE_INTERVAL": "1s"}
    settings, sources = read_settings(file, environment, {"probe_interval": "30s"})
    assert (settings.probe_interval, settings.mail_max_age, settings.record_owner_reads, settings.slice_items) == (
        30_000,
        7_200_000,
        True,
        7,
    )
    assert sources == {
        "probe_interval": "settings set",
        "mail_max_age": "environment",
        "record_owner_reads": "settings.json",
        "slice_items": "settings.json",
    }


@pytest.mark.parametrize(
    ("text", "milliseconds"), [("500ms", 500), ("500", 500), ("90s", 90_000), ("5m", 300_000), ("1h", 3_600_000), ("0060s", 60_000)]
)
def test_times_carry_a_unit_or_are_milliseconds(text: str, milliseconds: int) -> None:
    assert parse_setting("probe_interval", text) == milliseconds


@pytest.mark.parametrize("text", ["", "-1", "1.5h", "1 h", "h", "1w", "\u0661", "1e3", "0x10", "9" * 16, "true", " 60s", "60s\n"])
def test_other_texts_are_no_times(text: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse_setting("probe_interval", text)
    assert caught.value.code == "setting_invalid"
    assert "probe_interval" in caught.value.detail


@pytest.mark.parametrize(("text", "value"), [("true", True), ("False", False), ("TRUE", True)])
def test_switches_are_true_or_false(text: str, value: bool) -> None:  # noqa: FBT001 - a table of cases
    assert parse_setting("record_owner_reads", text) is value
    for wrong in ("1", "yes", ""):
        with pytest.raises(InvalidRequest):
            parse_setting("record_owner_reads", wrong)


@pytest.mark.parametrize("name", ["no_such_setting", "", "__class__", "PROBE_INTERVAL"])
def test_unknown_names_are_refused_wherever_they_come_from(name: str) -> None:
    for attempt in (
        lambda: parse_setting(name, "1"),
        lambda: read_settings(folder(None), {}, {name: "1"}),
        lambda: read_settings(folder(b'{"%s": 1}' % name.encode()), {}, {}),
    ):
        with pytest.raises(InvalidRequest) as caught:
            attempt()
        assert caught.value.code == "setting_unknown"


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"{", b'{"probe_interval": null}', b'{"probe_interval": {"a": 1}}', b"\xff", b'{"probe_interval": 1.5}']
)
def test_a_file_that_is_no_object_of_settings_is_refused(content: bytes) -> None:
    with pytest.raises(InvalidRequest) as caught:
        read_settings(folder(content), {}, {})
    assert caught.value.code == "settings_file_invalid"


def test_every_number_has_limits_that_its_default_keeps_and_others_do_not_pass() -> None:
    numbers = {field.name for field in fields(Settings) if not isinstance(field.default, bool)}
    assert set(LIMITS) == numbers
    for name, (low, high) in LIMITS.items():
        assert low <= getattr(Settings(), name) <= high
        assert parse_setting(name, str(low)) == low
        assert parse_setting(name, str(high)) == high
        for outside in (low - 1, high + 1):
            if outside >= 0:
                with pytest.raises(InvalidRequest) as caught:
                    parse_setting(name, str(outside))
                assert caught.value.code == "setting_out_of_range"


@given(name=st.sampled_from([field.name for field in fields(Settings)]), text=st.text(max_size=20))
def test_no_text_does_anything_but_parse_or_be_refused(name: str, text: str) -> None:
    try:
        value = parse_setting(name, text)
    except InvalidRequest:
        return
    assert isinstance(value, type(getattr(Settings(), name)))
