"""The real program on real homes. Few, because each command opens a home."""

from __future__ import annotations

import json
import re
import shlex
import stat
import subprocess
import sys
from contextlib import chdir
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from keystead.cli.main import run

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[2]
MBOX = b"".join(
    b"From x Mon Jan  5 10:00:00 2026\nFrom: sam@fabrikam.example\nSubject: number %d\nDate: Mon, 5 Jan 2026 10:00:00 +0000\n\nbody %d\n\n"
    % (n, n)
    for n in range(20)
)


def keystead(*line: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
    """One process, with nothing to type and nothing of ours in its environment."""
    command = [sys.executable, "-c", "from keystead.cli.main import main; main()", *line]
    return subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, check=False, timeout=60)


def test_every_command_of_the_first_home_works(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """R-001, R-003, R-070, R-081, R-091, R-092, R-145: docs/howto/first-home.md, from its first command to its last."""
    (tmp_path / "mail.mbox").write_bytes(MBOX)
    outputs: dict[str, str] = {}
    with chdir(tmp_path):
        for line, expected in _commands((ROOT / "docs/howto/first-home.md").read_text()):
            code = run([*shlex.split(line)[1:]], environment={"KEYSTEAD_HOME": str(tmp_path / "home")}, interactive=False)
            captured = capsys.readouterr()
            outputs[line] = captured.out
            assert captured.err.startswith(expected) if expected else code == 0, f"{line}\n{captured.err}"
    statistics = next(out for line, out in outputs.items() if "mailbox statistics" in line)
    assert re.search(r"is_encrypted +yes", statistics)
    exported = list((tmp_path / "exported").iterdir())
    assert len(exported) == 20
    assert all(file.read_bytes() in MBOX for file in exported)


def _commands(page: str) -> Iterator[tuple[str, str]]:
    """Every command of a page's consoles, and the error it is said to end with."""
    for block in re.findall(r"```console\n(.*?)```", page, re.DOTALL):
        lines = block.splitlines()
        for index, line in enumerate(lines):
            if line.startswith("$ "):
                following = lines[index + 1] if index + 1 < len(lines) else ""
                yield line[2:], "" if following.startswith("$ ") else following


def test_outside_dev_homes_a_claim_token_makes_the_first_administrator(tmp_path: Path) -> None:
    """Nobody is signed in without a token; the operator's file, then the claim, then the claimed token open the doors in turn."""
    home, claim, token = str(tmp_path / "home"), str(tmp_path / "claim"), str(tmp_path / "token")
    made = json.loads(keystead("init", "--home", home, "--json").stdout)
    assert (made["dev"], made["operator"]["upn"]) == (False, "operator@provider.example")
    operator = made["operator"]["token_file"]
    assert stat.S_IMODE(Path(operator).stat().st_mode) == 0o600

    create = ("tenant", "create", "contoso", "--domain", "contoso.example", "--geo", "EUR", "--claim-file", claim, "--json")
    nobody = keystead(*create, "--home", home)
    assert (nobody.returncode, json.loads(nobody.stdout)["code"]) == (3, "not_signed_in")
    assert keystead(*create, "--home", home, "--token-file", operator).returncode == 0

    claimed = keystead("user", "claim", "--upn", "admin@contoso.example", "--claim-token-file", claim, "--output", token, "--home", home)
    assert claimed.returncode == 0
    assert Path(token).read_bytes().strip() not in claimed.stdout + claimed.stderr
    users = keystead("user", "list", "--json", KEYSTEAD_HOME=home, KEYSTEAD_TOKEN=Path(token).read_text())
    assert [(user["upn"], user["roles"]) for user in json.loads(users.stdout)] == [("admin@contoso.example", ["global-admin"])]

    again = keystead("user", "claim", "--upn", "admin@contoso.example", "--claim-token-file", claim, "--home", home)
    assert again.returncode == 3
    assert keystead("user", "list", "--home", home, "--as", "admin@contoso.example").returncode == 2


def test_where_there_is_no_home_the_error_says_what_to_do(tmp_path: Path) -> None:
    result = keystead("tenant", "list", "--home", str(tmp_path / "none"), "--json")
    assert result.returncode == 4
    assert json.loads(result.stdout)["code"] == "home_not_found"
    assert b"keystead init" in result.stderr


def test_what_if_makes_no_home(tmp_path: Path) -> None:
    """R-083."""
    assert keystead("init", "--dev", "--what-if", "--home", str(tmp_path / "home")).returncode == 0
    assert list(tmp_path.iterdir()) == []


def test_a_reader_that_goes_away_is_no_error(tmp_path: Path) -> None:
    """What `keystead settings get | head -0` does."""
    home = str(tmp_path / "home")
    assert keystead("init", "--dev", "--home", home).returncode == 0
    command = [sys.executable, "-c", "from keystead.cli.main import main; main()", "settings", "get", "--home", home]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(60) == 141


def test_help_imports_neither_the_database_library_nor_rich() -> None:
    """`keystead --help` answers at once, because it imports only what it shows."""
    program = "import sys; from keystead.cli.main import run; run(['--help']); print(','.join(sys.modules))"
    output = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True, timeout=60).stdout.decode()
    loaded = set(output.splitlines()[-1].split(","))
    assert loaded.isdisjoint({"sqlalchemy", "msgspec", "rich", "pydantic", "keystead.wiring", "keystead.cli.mailbox", "cryptography"})


def test_a_worker_ends_cleanly_when_it_is_told_to(tmp_path: Path) -> None:
    home = str(tmp_path / "home")
    assert keystead("init", "--dev", "--home", home).returncode == 0
    command = [sys.executable, "-c", "from keystead.cli.main import main; main()", "worker", "--home", home]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stderr is not None
        assert b"working in" in process.stderr.readline()
        process.terminate()
        assert process.wait(60) == 0
        said = process.stderr.read().splitlines()
        assert [line for line in said if b" info " not in line] == [], "it may have run a job meanwhile, and nothing else"


@pytest.mark.parametrize("page", ["cli.md"])
def test_the_page_of_the_commands_is_what_the_program_says(page: str) -> None:
    result = subprocess.run([sys.executable, str(ROOT / "scripts/make-cli-docs"), "--check"], capture_output=True, check=False, timeout=60)
    assert result.returncode == 0, f"docs/{page}: {result.stderr.decode()}"
