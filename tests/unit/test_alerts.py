"""The kinds of alerts: each has words, and a row in the document that people look it up in."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from keystead.core.alerts import ABOUT, INCIDENTS, KEY_KINDS, MOVE_ESCALATED, Alert, AlertKind, Severity

PAGE = (Path(__file__).parents[2] / "docs" / "howto" / "alerts.md").read_text()


@pytest.mark.parametrize("kind", AlertKind)
def test_every_kind_has_words_and_a_row(kind: AlertKind) -> None:
    about = ABOUT[kind]
    [row] = [line for line in PAGE.splitlines() if re.match(rf"\| `{kind}`", line)]
    assert f"| {about.severity}" in row
    for text in (about.text, about.mend):
        assert 20 < len(text) < 200
        assert text.isascii()
        assert text.isprintable()
    assert len(kind) <= 32


def test_the_page_names_no_other_kind() -> None:
    named = set(re.findall(r"^\| `([a-z-]+)`", PAGE, re.MULTILINE))
    assert named == set(AlertKind)
    assert MOVE_ESCALATED in PAGE
    assert set(KEY_KINDS).isdisjoint(INCIDENTS)


def test_what_is_escalated_is_critical_and_an_overdue_move_changes_its_name() -> None:
    def alert(kind: AlertKind, escalated: int | None) -> Alert:
        return Alert("i", "t", kind, "s", "d", 1, 1, 1, escalated, None, None)

    assert alert(AlertKind.JOB_FAILING, None).severity is Severity.WARNING
    assert alert(AlertKind.JOB_FAILING, 5).severity is Severity.CRITICAL
    assert [alert(AlertKind.MOVE_OVERDUE, at).shown_kind for at in (None, 5)] == ["move-overdue", "move-escalated"]
    assert alert(AlertKind.JOB_FAILING, 5).shown_kind == "job-failing"
