"""Settings: layers in order, times with units, and nothing that breaks a promise."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keystead.core.errors import InvalidRequest
from keystead.core.settings import LIMITS, Settings
from keystead.settings import Written, parse_setting, read_settings, read_written, shown

if TYPE_CHECKING:
    from pathlib import Path


class Folder:
    """A folder that holds one file of settings, or none, without a disk: what `read_settings` asks of a path."""

    def __init__(self, content: bytes | None) -> None:
        self._content = content

    def __truediv__(self, name: str) -> Folder:
        assert name == "keystead.toml"
        return self

    def exists(self) -> bool:
        return self._content is not None

    def read_bytes(self) -> bytes:
        assert self._content is not None
        return self._content


def written(content: bytes | None, environment: dict[str, str] | None = None) -> Written:
    return read_written(cast("Path", Folder(content)), environment or {})


def test_nothing_given_means_defaults() -> None:
    assert read_settings(written(None), {}) == (Settings(), {})


def test_the_last_layer_wins_and_is_named() -> None:
    file = b'[settings]\nprobe_interval = "10s"\nmail_max_age = 3600000\nrecord_owner_reads = true\nslice_items = 7'
    environment = {"KEYSTEAD_PROBE_INTERVAL": "20s", "KEYSTEAD_MAIL_MAX_AGE": "2h", "KEYSTEAD_HOME": "somewhere", "PROBE_INTERVAL": "1s"}
    settings, sources = read_settings(written(file, environment), {"probe_interval": "30s"})
    assert (settings.probe_interval, settings.mail_max_age, settings.record_owner_reads, settings.slice_items) == (
        30_000,
        7_200_000,
        True,
        7,
    )
    assert sources == {
        "probe_interval": "settings set",
        "mail_max_age": "environment",
        "record_owner_reads": "keystead.toml",
        "slice_items": "keystead.toml",
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
        lambda: read_settings(written(None), {name: "1"}),
        lambda: read_settings(written(b'[settings]\n"%s" = 1' % name.encode()), {}),
    ):
        with pytest.raises(InvalidRequest) as caught:
            attempt()
        assert caught.value.code == "setting_unknown"


@pytest.mark.parametrize(
    "content",
    [
        b"settings = 1",
        b"[settings",
        b"\xff",
        b"[settings]\nprobe_interval = 1.5",
        b"[settings.probe_interval]\na = 1",
        b"[[settings]]",
        b"surprise = 1",
        b"server = 1",
        b"[server]\nlisten = 1",
        b"[server]\nthreads = true",
        b"[server]\nthreads = -1",
        b"[server]\nsurprise = 1",
        b"[server]\ntrusted_proxies = 'all'",
        b"[log]\nformat = 'xml'",
        b"[[objects.containers]]\nname = 'c0'",
        b"[[objects.containers]]\nname = 'c0'\nkind = 'tape'",
        b"[hooks]\nname = 'one'",
    ],
)
def test_a_file_that_cannot_be_meant_is_refused(content: bytes) -> None:
    with pytest.raises(InvalidRequest) as caught:
        written(content)
    assert caught.value.code == "configuration_invalid"


def test_where_things_are_comes_from_the_file_and_the_environment() -> None:
    file = b"""
[database]
url = "postgresql://keystead@/keystead"
pool = 3
[[objects.containers]]
name = "c0"
kind = "s3"
bucket = "first"
[[hooks]]
name = "desk"
kind = "mail"
recipients = ["desk@provider.example"]
"""
    found = written(file, {"KEYSTEAD_DATABASE_POOL": "5", "KEYSTEAD_SERVER_LISTEN": "127.0.0.1:0", "KEYSTEAD_INSTALLATION_DEV": "true"})
    configuration = found.configuration
    assert (configuration.database.url, configuration.database.pool, configuration.fleet) == ("postgresql://keystead@/keystead", 5, True)
    assert (configuration.server.listen, configuration.installation.dev) == ("127.0.0.1:0", True)
    assert (configuration.objects.containers[0].bucket, configuration.hooks[0].recipients) == ("first", ("desk@provider.example",))
    assert found.sources == {
        "database.url": "keystead.toml",
        "database.pool": "environment",
        "objects.containers": "keystead.toml",
        "hooks": "keystead.toml",
        "server.listen": "environment",
        "installation.dev": "environment",
    }
    values = dict(shown(configuration))
    assert (values["objects.containers.0.kind"], values["hooks.0.recipients"]) == ("s3", "desk@provider.example")
    assert (values["database.pool"], values["installation.dev"], values["server.threads"]) == ("5", "true", "16")


@pytest.mark.parametrize(
    "variable", [("KEYSTEAD_DATABASE_POOL", "many"), ("KEYSTEAD_DATABASE_POOL", "\u0663"), ("KEYSTEAD_INSTALLATION_DEV", "1")]
)
def test_the_environment_is_checked_like_the_file(variable: tuple[str, str]) -> None:
    with pytest.raises(InvalidRequest) as caught:
        written(None, dict([variable]))
    assert variable[0] in caught.value.detail


def test_an_installation_without_a_file_is_a_home() -> None:
    assert not written(None).configuration.fleet


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
