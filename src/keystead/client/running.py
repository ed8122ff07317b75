"""Which server runs on a home: what it leaves in the home's run folder for commands on the same machine.

    run/server.lock     locked by the server as long as it lives; the system unlocks it when the process dies
    run/server.json     address and process of whoever holds the lock
    run/server.secret   in dev homes: what proves that a caller may read this folder, mode 0600

A server.json beside an unlocked file was left behind by a server that was killed, and is passed over.
"""

from __future__ import annotations

import fcntl
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from pathlib import Path

LOCK, FILE, SECRET = "server.lock", "server.json", "server.secret"


class ServerFile(msgspec.Struct, frozen=True):
    """server.json.

    Attributes:
        url: the server's address on this machine: http, https or unix.
        pid: its process.
        started: milliseconds since the epoch.
        certificate: with https, the PEM file that the server's certificate is in.
        webdav: the address of WebDAV on this machine, where it is served.
    """

    url: str
    pid: int
    started: int
    certificate: str = ""
    webdav: str = ""


def running_server(home: Path) -> tuple[ServerFile, str] | None:
    """The server that runs on a home, and its secret (empty outside dev homes); None where there is none, or it is only starting."""
    run = home / "run"
    if not _locked(run / LOCK):
        return None
    try:
        found = msgspec.json.decode((run / FILE).read_bytes(), type=ServerFile)
    except (OSError, msgspec.DecodeError):
        return None
    try:
        return found, (run / SECRET).read_text()
    except OSError:
        return found, ""


def _locked(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False
