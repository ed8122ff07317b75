"""The reference pages say what the code says."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def reference() -> Any:
    """The script as a module."""
    loader = importlib.machinery.SourceFileLoader("make_reference", str(ROOT / "scripts" / "make-reference"))
    spec = importlib.util.spec_from_loader(loader.name, loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.dont_write_bytecode", True)
        patch.setitem(__import__("sys").modules, loader.name, module)
        loader.exec_module(module)
        yield module


def test_every_reference_page_is_what_the_code_says(reference: Any) -> None:
    assert reference.main(["--check"]) == 0


def test_a_page_that_was_changed_by_hand_is_found_and_mended(reference: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for page, _make in reference.TABLES.values():
        shutil.copy(ROOT / "docs" / page, tmp_path / page)
    changed = tmp_path / "settings.md"
    before = changed.read_text()
    changed.write_text(before.replace("`probe_interval` | `1m`", "`probe_interval` | `2m`"))
    assert reference.main(["--check", str(tmp_path)]) == 1
    assert "settings.md" in capsys.readouterr().out
    assert reference.main([str(tmp_path)]) == 0
    assert changed.read_text() == before


def test_a_page_without_room_for_a_table_is_an_error(reference: Any) -> None:
    with pytest.raises(ValueError, match="no place for configuration, settings"):
        reference.made("settings.md", "# Settings\n")


def test_every_code_has_a_text(reference: Any) -> None:
    """R-081: and every failed check of a policy says how to mend it."""
    found = reference.known_errors(reference.calls())
    assert [error.code for error in found if not error.detail or " " in error.code or not error.code.islower()] == []
    assert {"policy_checks_failed", "denied_by_customer_key", "delegate_exists", "private_key_damaged", "usage"} <= {
        error.code for error in found
    }
    rows = reference.checks_table().splitlines()[2:]
    assert [row for row in rows if row.endswith("|  |")] == []


def test_every_function_the_documents_name_exists() -> None:
    missing = []
    for page in sorted((ROOT / "docs").rglob("*.md")):
        for file, name in re.findall(r"([a-z_/]+\.py):(\w+)", page.read_text()):
            source = ROOT / "src" / "keystead" / file
            if not source.is_file() or not re.search(rf"^\s*(def|class) {name}\b", source.read_text(), re.MULTILINE):
                missing.append(f"{page.name}: {file}:{name}")
    assert missing == []


def test_every_link_between_the_documents_leads_somewhere() -> None:
    links = [
        (page, target)
        for page in [*ROOT.glob("*.md"), *sorted((ROOT / "docs").rglob("*.md"))]
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text())
    ]
    assert len(links) > 50
    written_later = "performance.md"  # `make bench` writes it
    assert [f"{page.name}: {target}" for page, target in links if not (page.parent / target).exists() and target != written_later] == []
