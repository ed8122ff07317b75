"""Files with the real program on a real home: docs/howto/files.md, from its first command to its last."""

from __future__ import annotations

import json
import re
import shlex
from contextlib import chdir
from pathlib import Path
from typing import TYPE_CHECKING

from keystead.cli.main import run

if TYPE_CHECKING:
    import pytest

PAGE = Path(__file__).resolve().parents[2] / "docs/howto/files.md"
BEFORE = """
init --dev
tenant create contoso --domain contoso.example --geo EUR
user add admin@contoso.example --role global-admin
user add alex@contoso.example --role user
user add sam@contoso.example --role user
subscription create ck-1 --as admin@contoso.example
subscription create ck-2 --as admin@contoso.example
subscription protect ck-1 --as admin@contoso.example
subscription protect ck-2 --as admin@contoso.example
vault create contoso-eu --subscription ck-1 --region westeurope --as admin@contoso.example
vault create contoso-us --subscription ck-2 --region eastus --as admin@contoso.example
"""
MADE = ("EU", "US", "EU2", "EU3", "US3")
"""What the page calls the keys it makes, in order."""


def test_every_command_of_the_page_works(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """R-103, R-106, R-107, R-121, R-124, R-159."""
    (tmp_path / "report.txt").write_text("the first report\n")
    (tmp_path / "changed.txt").write_text("the second report\n")
    (tmp_path / "folder" / "inner").mkdir(parents=True)
    (tmp_path / "folder" / "inner" / "plan.txt").write_text("a plan\n")
    answers: list[tuple[str, str]] = []
    keys: dict[str, str] = {}

    def keystead(line: str) -> None:
        command, _, comment = line.partition("#")
        command = re.sub(r"\$([A-Z0-9]+)", lambda found: keys[found[1]], command)
        make = command.startswith("key create ")
        code = run(
            [*shlex.split(command), *(["--json"] if make else [])],
            environment={"KEYSTEAD_HOME": str(tmp_path / "home")},
            interactive=False,
        )
        captured = capsys.readouterr()
        answers.append((line, captured.out))
        expected = comment.strip()
        assert captured.err.startswith(expected) if expected else code == 0, f"{line}\n{captured.err}"
        if make:
            keys[MADE[len(keys)]] = json.loads(captured.out)["id"]

    blocks = re.findall(r"```\n(.*?)```", PAGE.read_text(), re.DOTALL)
    lines = [line.strip().removeprefix("keystead ") for block in blocks for line in block.splitlines() if line.strip()]
    with chdir(tmp_path):
        for line in [*BEFORE.strip().splitlines(), *lines]:
            keystead(line)
    assert tuple(keys) == MADE
    assert (tmp_path / "copy.txt").read_text() == "the first report\n"
    assert (tmp_path / "back" / "inner" / "plan.txt").read_text() == "a plan\n"
    states = [re.search(r"^state +(\S+)", out, re.MULTILINE) for line, out in answers if line.startswith("files status ")]
    assert [found and found[1] for found in states] == ["Registered", "Registered", "Registered", "Unregistered"]
    assert [keys["EU"] in out for line, out in answers if line.startswith("files status ")] == [True, False, False, False]
    health = [re.search(r"^state +(\S+)", out, re.MULTILINE) for line, out in answers if line.startswith("files health ")]
    assert [found and found[1] for found in health] == ["denied", "healthy"]
    assert re.search(r"^is_encrypted +yes", next(out for line, out in answers if line.startswith("site status ")), re.MULTILINE)
