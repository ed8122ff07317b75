from __future__ import annotations

from cli.fake import KEY, POLICY, TENANT, WHEN
from keystead.api.types.mailboxes import ItemView
from keystead.cli.output import as_json, as_text, cell, clean


def test_a_response_is_aligned_lines_without_what_nobody_reads() -> None:
    text = as_text(KEY)
    assert "base_id           https://vault-a.vault.localhost/keys/root" in text
    assert "PUBLIC KEY" not in text
    assert "enabled           yes" in text


def test_a_list_is_a_table_of_the_columns_asked_for() -> None:
    assert as_text([TENANT], ("name", "domain", "geos")).splitlines() == ["NAME     DOMAIN           GEOS", "contoso  contoso.example  EUR"]
    assert as_text([POLICY]).splitlines()[0].startswith("ID")
    assert as_text([]) == "none"


def test_subjects_cannot_drive_the_terminal() -> None:
    """A subject line with escape sequences, line ends or direction marks is shown on one line, harmless."""
    item = ItemView(
        id="i", kind="message", folder="Inbox", subject="\x1b]0;owned\x07\r\nrow \u202etxt", sender="a", received=WHEN, size_bytes=1
    )
    text = as_text([item])
    assert len(text.splitlines()) == 2
    assert text.replace("\n", "").isprintable()
    assert clean("Grüße, 你好") == "Grüße, 你好"


def test_values_as_people_read_them() -> None:
    assert [cell(value) for value in (None, "", True, False, WHEN, ["a", "b"], {"a": 1}, 12.5)] == [
        "-",
        "-",
        "yes",
        "no",
        "2026-03-01 12:00:00Z",
        "a, b",
        "a=1",
        "12.5",
    ]


def test_json_is_snake_case_and_utc() -> None:
    assert '"created":"2026-03-01T12:00:00Z"' in as_json(TENANT)
    assert as_json([]) == "[]"
