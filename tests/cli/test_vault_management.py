"""Managing a vault with the real program on a real home: docs/howto/vault-management.md, from its first command to its last."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from keystead.cli.main import run

if TYPE_CHECKING:
    import pytest

PAGE = Path(__file__).resolve().parents[2] / "docs/howto/vault-management.md"
BEFORE = """
init --dev
tenant create contoso --domain contoso.example --geo EUR
user add admin@contoso.example --role global-admin
subscription create contoso-1 --as admin@contoso.example
vault create contoso-eu --subscription contoso-1 --region westeurope --as admin@contoso.example
key create contoso-eu signing --as admin@contoso.example
"""


def test_every_command_of_the_page_works(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """R-035, R-043, R-044, R-053, R-066, R-067, R-069."""
    answers: dict[str, str] = {}

    def keystead(line: str) -> None:
        code = run(shlex.split(line), environment={"KEYSTEAD_HOME": str(tmp_path / "home")}, interactive=False)
        captured = capsys.readouterr()
        answers[line.partition(" --as ")[0]] = captured.out
        assert code == 0, f"{line}\n{captured.err}"

    blocks = re.findall(r"```\n(.*?)```", PAGE.read_text(), re.DOTALL)
    lines = [line.strip().removeprefix("keystead ") for block in blocks for line in block.splitlines() if line.strip()]
    for line in [*BEFORE.strip().splitlines(), *lines]:
        keystead(line)
    assert re.search(r"ranges +198.51.100.0/24, 2001:db8::/32", answers["vault network show contoso-eu"])
    assert re.search(r"read_only +yes", answers["vault fail-over contoso-eu on"])
    assert re.search(r"purge_protection +yes", answers["vault protect contoso-eu"])
    assert re.search(r"Rotate +P90D", answers[next(line for line in answers if "rotation-policy set" in line)])
    assert re.search(r"client +backup .* crypto-user", answers["vault access list contoso-roles"])
    keystead("vault log contoso-eu --operation VaultPatch --json --as admin@contoso.example")
    patched = [one["result_description"] for one in json.loads(answers["vault log contoso-eu --operation VaultPatch --json"])]
    assert patched == [
        "network range 198.51.100.0/24 let in",
        "network range 2001:db8::/32 let in",
        "network default deny",
        "network default deny, bypass None",
        "network range 2001:db8::/32 removed",
        "network default allow, bypass AzureServices",
        "failed over, read-only",
        "back from fail-over",
        "purge protection on",
        "access policy: granted getrotationpolicy,setrotationpolicy, admin@contoso.example",
    ]
