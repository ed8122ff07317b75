"""`keystead demo --files`: the whole of it on a small folder, in real processes."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

from keystead.cli.main import run

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

STEPS = [
    "set up for files",
    "copy in",
    "register",
    "prove",
    "change a part",
    "roll",
    "one key away",
    "both keys away",
    "given back",
    "vaults cut off",
    "keys lost for good",
    "back to provider keys",
    "the log of files",
]


def folder_of_files(place: Path) -> Path:
    """What people have: folders in folders, names of any script, an empty file, one of several chunks, and a link that is not followed."""
    folder = place / "mine"
    (folder / "Straße" / "契約書").mkdir(parents=True)
    (folder / "empty folder").mkdir()
    (folder / "empty.txt").touch()
    (folder / "a letter to the landlord about windows.txt").write_text("the landlord agrees to share the cost of the new windows\n")
    (folder / "Straße" / "契約書" / "契約書の確認のお願い.txt").write_text("we cannot name the buyer before the contract is signed\n" * 400)
    (folder / "Straße" / "large.bin").write_bytes(os.urandom(5 * 1024 * 1024))
    (folder / "outside").symlink_to(place)
    return folder


def test_the_demo_of_files_holds_on_any_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """R-103, R-106, R-108, R-112, R-116, R-117, R-120, R-124, R-159, R-160."""
    line = ["demo", "--home", str(tmp_path / "home"), "--files", str(folder_of_files(tmp_path)), "--json"]
    code = run(line, environment={}, interactive=False)
    told = json.loads(capsys.readouterr().out)
    assert [(step["name"], step["held"]) for step in told["steps"]] == [(name, True) for name in STEPS], told["steps"][-1]
    assert (code, told["ok"]) == (0, True)
    assert all(step["detail"] for step in told["steps"])


def test_a_claim_that_does_not_hold_ends_the_demo(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A folder with nothing to look for proves nothing, and is not passed off as proof."""
    (tmp_path / "empty").mkdir()
    line = ["demo", "--home", str(tmp_path / "home"), "--files", str(tmp_path / "empty"), "--json"]
    assert run(line, environment={}, interactive=False) == 1
    told = json.loads(capsys.readouterr().out)
    assert told["ok"] is False
    assert [(step["name"], step["held"]) for step in told["steps"]] == [("set up for files", True), ("copy in", False)]


def test_vaults_of_their_own_belong_to_the_demo_of_mail(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["demo", "--files", str(tmp_path), "--separate-vaults"], environment={}, interactive=False) == 2
    assert "--separate-vaults" in capsys.readouterr().err
