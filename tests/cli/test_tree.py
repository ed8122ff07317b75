"""Rules that hold for every command, however many there are."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from typer.core import TyperCommand, TyperGroup

from keystead.api.routes import BY_NAME, ROUTES
from keystead.cli.main import COMMANDS, load
from keystead.cli.options import FLAGS, VALUE_OPTIONS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from typer._click import Command

ROOT = Path(__file__).resolve().parents[2]
CLI = ROOT / "src/keystead/cli"


def leaves(path: str, command: Command) -> Iterator[tuple[str, TyperCommand]]:
    if isinstance(command, TyperGroup):
        for name, child in command.commands.items():
            yield from leaves(f"{path} {name}", child)
    elif isinstance(command, TyperCommand):
        yield path, command


EVERY = dict(pair for name in COMMANDS for pair in leaves(name, load(name)))


@pytest.mark.parametrize("path", EVERY)
def test_no_command_has_an_option_that_is_taken_out_before_it_sees_it(path: str) -> None:
    names = {name for parameter in EVERY[path].params for name in parameter.opts}
    assert names.isdisjoint(FLAGS)
    assert names.isdisjoint(VALUE_OPTIONS)


@pytest.mark.parametrize("path", EVERY)
def test_every_command_says_what_it_does(path: str) -> None:
    assert (EVERY[path].help or "").strip().endswith((".", ".)"))


def test_every_route_that_people_need_has_a_command() -> None:
    """Each row of ROUTES is called by some module of the command line; the installation's own view is for the admin centre."""
    source = "".join(file.read_text() for file in [*CLI.glob("*.py"), *(ROOT / "src/keystead/client").glob("*.py")])
    called = set(re.findall(r'"([a-z-]+(?:\.[a-z-]+)+)"', source)) | {f"key.{verb}" for verb in ("enable", "disable")}
    assert {route.name for route in ROUTES} - called == {"home.show"}


def test_commands_that_are_one_route_bear_its_name() -> None:
    """So that roles.md, the audit log and the command line speak of the same thing by the same name."""
    no_route = {
        "init",
        "demo",
        "serve",
        "worker",
        "db check",
        "db upgrade",
        "home export",
        "home import",
        "home verify",
        "mailbox export",
        "job wait",
        "vault serve",
        "vault seal show",
        "vault seal rotate",
    }
    assert {path for path in EVERY if path.replace(" ", ".") not in BY_NAME} == no_route


NOT_COMMANDS = {
    "src/keystead/core/vaults/seal.py",
    "src/keystead/core/vaults/seal_record.py",
    "docs/spec/vault-store.md",
    "docs/spec/vault-seal.md",
}
"""Labels of derived keys begin with the same words."""


def _pages() -> list[Path]:
    code = [path for path in (ROOT / "src").rglob("*.py") if CLI not in path.parents]
    return [
        path
        for path in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md"), *code]
        if path.relative_to(ROOT).as_posix() not in NOT_COMMANDS
    ]


def test_the_commands_and_options_that_pages_and_errors_name_exist() -> None:
    """What a page or the `mend` of an error tells people to type can be typed."""
    wrong = []
    for page in _pages():
        # What is announced for later stands in brackets after that word.
        for line in re.findall(r"keystead ([^\n`\"]*)", re.sub(r"later \([^)]*\)", "", page.read_text())):
            words = [word.rstrip(",;:.") for word in line.split()]
            if not words or words[0] not in COMMANDS:
                continue
            path = next((" ".join(words[:length]) for length in (4, 3, 2, 1) if " ".join(words[:length]) in EVERY), "")
            known = {name for parameter in EVERY[path].params for name in (*parameter.opts, *parameter.secondary_opts)} if path else set()
            unknown = set(re.findall(r"--[a-z][a-z-]*", line)) - known - set(FLAGS) - set(VALUE_OPTIONS)
            if not path or unknown:
                wrong.append(f"{page.relative_to(ROOT)}: keystead {line} {sorted(unknown)}")
    assert wrong == []
