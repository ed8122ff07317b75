"""A real process of a real home that puts files, killed with SIGKILL at moments of chance: what it acknowledged is there and whole."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from keystead.api.types import sites as s
from keystead.api.types import tenants as t
from keystead.services.verification import verify
from keystead.wiring import create_home, open_home
from support.killed_files import ADMIN, BATCH, NAMES, SITE, content

if TYPE_CHECKING:
    from keystead.client.client import Client
    from keystead.wiring import Home

ROUNDS = 6


def _killed_after(path: Path, first: int, puts: int, seconds: float) -> list[tuple[int, int]]:
    """Start a process that puts files, and kill it so long after so many of them; the turns and names it acknowledged."""
    command = [sys.executable, "-m", "support.killed_files", str(path), str(first)]
    child = subprocess.Popen(command, cwd=Path(__file__).parents[1], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        assert child.stdout is not None
        assert child.stdout.readline() == b"begun\n", child.stderr and child.stderr.read()
        said = b"".join(child.stdout.readline() for _put in range(puts))
        kill = threading.Timer(seconds, child.send_signal, [signal.SIGKILL])
        kill.start()
        lines = (said + child.stdout.read()).split(b"\n")[:-1]  # to the end; what comes last may have been cut off
        assert child.wait(60) == -signal.SIGKILL
        kill.cancel()
        return [(int(turn), int(name)) for turn, name in map(bytes.split, lines)]
    finally:
        child.kill()
        child.communicate()


def _read(client: Client, path: str) -> bytes:
    return b"".join(bytes(piece) for piece in client.call("site.get", s.DownloadFile(site=SITE, path=path)).chunks)


def _home(path: Path) -> Home:
    create_home(path, dev=True, operator="operator@provider.example")
    home = open_home(path)
    operator = home.client(home.as_operator())
    operator.call("tenant.create", t.CreateTenant(name="Contoso", domain="contoso.example", geo=["EUR"]))
    operator.call("user.add", t.AddUser(upn=ADMIN, roles=["global-admin"]))
    admin = home.client(home.as_person(ADMIN))
    admin.call("site.create", s.CreateSite(url=SITE))
    for folder in ("/one", "/two"):
        admin.call("site.mkdir", s.MakeFolder(site=SITE, path=folder))
    return home


def test_R_112_files_that_a_killed_process_acknowledged_are_whole_and_no_half_file_is_seen(tmp_path: Path) -> None:
    """R-114."""
    chance = random.Random(20260901)
    _home(tmp_path / "home").close()
    turn = 0
    last: dict[int, int] = {}
    for number in range(ROUNDS):
        puts = chance.randrange(2 * NAMES) if number else NAMES  # one of each at least, however slow the machine is
        said = _killed_after(tmp_path / "home", turn, puts, chance.uniform(0, 0.2))
        last |= {name: done for done, name in said}
        highest = max([done for done, _name in said], default=turn)
        home = open_home(tmp_path / "home")
        client = home.client(home.as_person(ADMIN))
        listed = {entry.name for entry in client.call("site.ls", s.ListFiles(site=SITE))} - {"one", "two"}
        assert listed <= {str(name) for name in range(NAMES)}
        assert listed >= {str(name) for name in last if name != BATCH}
        for name in map(int, listed):
            turns = range(last.get(name, 0), highest + 2)
            assert _read(client, f"/{name}") in [content(name, one) for one in turns], name
        twins = [_read(client, f"/{folder}/{BATCH}") for folder in ("one", "two")] if BATCH in last else []
        assert all(twin == twins[0] and twin in [content(BATCH, one) for one in range(last[BATCH], highest + 2)] for twin in twins)
        result = verify(home.services)
        assert (result.problems, result.unopened) == ([], [])
        home.close()
        turn = highest + 2
    assert len(last) == NAMES, "every kind of file was acknowledged at least once"
