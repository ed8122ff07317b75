"""Clients of others against a real server process: litmus, rclone, cadaver; and the same files by the command line."""

from __future__ import annotations

import filecmp
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest

from support.http import PROGRAM
from support.webdav import PLANS
from webdav.served import ALEX, make_home, webdav_served

if TYPE_CHECKING:
    from collections.abc import Iterator

    from webdav.served import Served

pytestmark = pytest.mark.xdist_group("servers")

SUITES = {"basic": 16, "copymove": 13, "props": 30, "locks": 41, "http": 4}
"""Of litmus 0.13, and how many tests each has."""
_SUMMARY = re.compile(r"<- summary for `(\w+)': of (\d+) tests run: (\d+) passed, (\d+) failed")
NAMES = ("plain.txt", "empty", "with space", "a;b?c#d%20e&f", "ä€😀", "[bracket]", "deep/er/and/deeper", "large.bin")


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    home = tmp_path_factory.mktemp("clients") / "home"
    make_home(home)
    with webdav_served(home, new=True) as running:
        yield running


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Files of many names and sizes."""
    root = tmp_path / "tree"
    for index, name in enumerate(NAMES):
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"" if name == "empty" else os.urandom(9_000_000 if name == "large.bin" else 1_000 * index + 1))
    return root


def keystead(served: Served, *line: str) -> bytes:
    """A command, as alex."""
    done = subprocess.run(
        [*PROGRAM, *line, "--as", ALEX, "--json"], env={"KEYSTEAD_HOME": str(served.server.home)}, stdin=subprocess.DEVNULL, capture_output=True, check=False, timeout=60
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def rclone(served: Served, *line: str) -> subprocess.CompletedProcess[str]:
    """rclone with a remote `site:`; credentials in its environment."""
    program = str(Path(sys.executable).parent / "rclone")
    obscured = subprocess.run([program, "obscure", "-"], input=served.password, capture_output=True, text=True, check=True).stdout.strip()
    environment = {
        "RCLONE_CONFIG": "/dev/null",
        "RCLONE_CONFIG_SITE_TYPE": "webdav",
        "RCLONE_CONFIG_SITE_URL": served.url,
        "RCLONE_CONFIG_SITE_VENDOR": "other",
        "RCLONE_CONFIG_SITE_USER": ALEX,
        "RCLONE_CONFIG_SITE_PASS": obscured,
    }
    done = subprocess.run([program, *line], env=environment, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    return done


def same(one: Path, other: Path) -> bool:
    """Whether two trees hold the same files with the same bytes."""
    files = {path.relative_to(one) for path in one.rglob("*") if path.is_file()}
    if files != {path.relative_to(other) for path in other.rglob("*") if path.is_file()}:
        return False
    return all(filecmp.cmp(one / path, other / path, shallow=False) for path in files)


def test_litmus_passes_every_suite(served: Served, tmp_path: Path) -> None:
    """RFC 4918, as Debian's litmus tests it: nothing failed, nothing skipped, no warnings."""
    program = shutil.which("litmus")
    assert program, "the tests need litmus: run scripts/setup-tools"
    done = subprocess.run(
        [program, "-k", f"{served.url}/", ALEX, served.password], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=240
    )
    output = done.stdout.replace("\r", "\n")
    found = {suite: (int(run), int(passed), int(failed)) for suite, run, passed, failed in _SUMMARY.findall(output)}
    assert found == {suite: (count, count, 0) for suite, count in SUITES.items()}, output
    assert [line for line in output.splitlines() if re.search("FAIL|WARNING|SKIP", line)] == []
    assert done.returncode == 0


def test_rclone_copies_a_tree_both_ways(served: Served, tree: Path, tmp_path: Path) -> None:
    rclone(served, "copy", str(tree), "site:rclone")
    rclone(served, "check", "--download", str(tree), "site:rclone")
    rclone(served, "copy", "site:rclone", str(tmp_path / "back"))
    assert same(tree, tmp_path / "back")
    (tree / "plain.txt").write_bytes(b"another version")
    (tree / "with space").unlink()
    rclone(served, "sync", "--checksum", "--ignore-times", str(tree), "site:rclone")
    rclone(served, "moveto", "site:rclone/deep", "site:rclone/moved")
    rclone(served, "copy", "site:rclone", str(tmp_path / "again"))
    (tree / "deep").rename(tree / "moved")
    assert same(tree, tmp_path / "again")
    rclone(served, "purge", "site:rclone")


def test_rclone_keeps_the_times_of_files(served: Served, tree: Path, tmp_path: Path) -> None:
    os.utime(tree / "plain.txt", (1_000_000_000, 1_000_000_000))
    rclone(served, "copy", "--webdav-vendor", "owncloud", str(tree), "site:times")
    rclone(served, "copy", "--webdav-vendor", "owncloud", "site:times", str(tmp_path / "back"))
    assert (tmp_path / "back" / "plain.txt").stat().st_mtime == 1_000_000_000
    again = rclone(served, "copy", "-v", "--webdav-vendor", "owncloud", str(tree), "site:times")
    assert "There was nothing to transfer" in again.stderr


def test_rclone_reads_a_part_and_lists_sizes(served: Served, tree: Path) -> None:
    (tree / "plain.txt").write_text("0123456789")
    rclone(served, "copy", str(tree), "site:parts")
    assert rclone(served, "cat", "--offset", "3", "--count", "4", "site:parts/plain.txt").stdout == "3456"
    listed = json.loads(rclone(served, "lsjson", "-R", "--files-only", "site:parts").stdout)
    assert {one["Path"]: one["Size"] for one in listed} == {
        str(path.relative_to(tree)): path.stat().st_size for path in tree.rglob("*") if path.is_file()
    }


def test_files_are_the_same_by_the_command_line_and_over_webdav(served: Served, tree: Path, tmp_path: Path) -> None:
    rclone(served, "copy", str(tree), "site:from-webdav")
    listed = json.loads(keystead(served, "site", "ls", PLANS, "/from-webdav", "--recursive"))
    sizes = {one["path"].removeprefix("/from-webdav/"): one["size_bytes"] for one in listed if one["kind"] == "file"}
    assert sizes == {str(path.relative_to(tree)): path.stat().st_size for path in tree.rglob("*") if path.is_file()}
    keystead(served, "site", "get", PLANS, "/from-webdav", "--output", str(tmp_path / "by-command"), "--recursive")
    assert same(tree, tmp_path / "by-command") or same(tree, tmp_path / "by-command" / "from-webdav")
    keystead(served, "site", "put", PLANS, str(tree), "/from-command", "--recursive")
    rclone(served, "copy", "site:from-command", str(tmp_path / "by-webdav"))
    assert same(tree, tmp_path / "by-webdav") or same(tree, tmp_path / "by-webdav" / tree.name)


def test_cadaver_puts_locks_moves_and_gets(served: Served, tree: Path, tmp_path: Path) -> None:
    """A client made with neon, as davfs2 is."""
    program = shutil.which("cadaver")
    assert program, "the tests need cadaver: run scripts/setup-tools"
    parts = urlsplit(served.url)
    (tmp_path / ".netrc").write_text(f"machine {parts.hostname} login {ALEX} password {served.password}\n")
    (tmp_path / ".netrc").chmod(0o600)
    script = (
        f"mkcol cadaver\ncd cadaver\nlcd {tree}\nput plain.txt\nlock plain.txt\nput plain.txt\nunlock plain.txt\n"
        f"propset plain.txt colour red\npropget plain.txt colour\nmove plain.txt moved.txt\ncopy moved.txt copied.txt\nls\n"
        f"lcd {tmp_path}\nget copied.txt\nrmcol nothing\nquit\n"
    )
    done = subprocess.run(
        [program, f"{served.url}/"], input=script, env={"HOME": str(tmp_path)}, capture_output=True, text=True, check=False, timeout=60
    )
    assert (tmp_path / "copied.txt").read_bytes() == (tree / "plain.txt").read_bytes(), done.stdout + done.stderr
    assert "red" in done.stdout
    assert "moved.txt" in done.stdout
    assert "Locking `plain.txt': succeeded" in done.stdout


def test_a_home_served_by_several_processes_stops_cleanly_and_locks_in_all(served: Served, tmp_path: Path) -> None:
    """The address is shared; which process answers is the system's choice."""
    home = tmp_path / "home"
    make_home(home)
    with webdav_served(home, "--processes", "3", new=True) as several:
        tree = tmp_path / "files"
        tree.mkdir()
        for index in range(40):
            (tree / str(index)).write_bytes(os.urandom(10_000))
        rclone(several, "copy", "--transfers", "8", str(tree), "site:many")
        rclone(several, "check", "--download", "--checkers", "8", str(tree), "site:many")


def test_the_log_holds_no_names_no_paths_and_no_tokens(served: Served, tmp_path: Path) -> None:
    (tmp_path / "unmistakable-name").write_bytes(b"1")
    rclone(served, "copy", str(tmp_path / "unmistakable-name"), "site:unmistakable-folder")
    rclone(served, "lsf", "site:unmistakable-folder")
    assert "route=webdav.put" in served.log
    assert "unmistakable" not in served.log
    assert served.password not in served.log
    assert "logger=keystead.webdav" not in served.log, "a defect"
