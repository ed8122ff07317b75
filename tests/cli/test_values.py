from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import TYPE_CHECKING

import pytest

from keystead.cli.values import duration, read_small, read_text, tags, time, words, words_or_none
from keystead.core.errors import InvalidRequest

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("text", "milliseconds"), [("13h", 46_800_000), ("91d", 7_862_400_000), ("1d12h", 129_600_000), ("250ms", 250), ("5m", 300_000)]
)
def test_durations(text: str, milliseconds: int) -> None:
    assert duration(text) == milliseconds


@pytest.mark.parametrize("text", ["", "13", "h", "13 h", "-1h", "1.5h", "1h!", "9999999999h"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequest, match="is not a duration"):
        duration(text)


def test_times_are_iso_8601_and_utc_where_no_zone_is_given() -> None:
    assert time("2026-03-31") == datetime(2026, 3, 31, tzinfo=UTC)
    assert time("2026-03-31T12:00:00Z") == datetime(2026, 3, 31, 12, tzinfo=UTC)
    assert time("2026-03-31T12:00:00+02:00") == datetime(2026, 3, 31, 12, tzinfo=timezone(timedelta(hours=2)))
    assert time(None) is None
    with pytest.raises(InvalidRequest, match="is not a time"):
        time("yesterday")


def test_lists_are_repeated_or_separated_by_commas() -> None:
    assert words(["get,wrapKey", " unwrapKey ", ","]) == ["get", "wrapKey", "unwrapKey"]
    assert words_or_none(None) is None


def test_tags() -> None:
    assert tags(["owner=finance", "note=a=b"]) == {"owner": "finance", "note": "a=b"}
    with pytest.raises(InvalidRequest, match="is not a tag"):
        tags(["owner"])


def test_small_files_are_read_and_nothing_else(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(" ks_token \n")
    assert read_text(file) == "ks_token"
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(InvalidRequest, match="not a text file"):
        read_text(file)
    with pytest.raises(InvalidRequest, match="No such file"):
        read_small(tmp_path / "other")
    with file.open("wb") as large:
        large.truncate(9 * 1024 * 1024)
    with pytest.raises(InvalidRequest, match="more than"):
        read_small(file)
