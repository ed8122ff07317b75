"""Folders that other programs encrypt: gocryptfs, mounted, and rclone's crypt over a local folder. Both from Debian's packages."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from benchmarks.timing import copied, in_memory, seconds, settled

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PASSWORD = "a-password-of-the-benchmark"  # noqa: S105 - of a folder that is removed again
MOUNT_SECONDS = 10


class Gocryptfs:
    """A folder under gocryptfs. It needs FUSE, and the right to mount: the benchmark runs as root, or fusermount is there."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self._cipher, self._mount, self._password = folder / "cipher", folder / "mount", folder / "password"
        self._cipher.mkdir()
        self._mount.mkdir()
        self._password.write_text(PASSWORD, encoding="ascii")
        subprocess.run(["gocryptfs", "-q", "-init", "-nosyslog", "-passfile", self._password, self._cipher], check=True)

    @staticmethod
    def missing() -> str:
        """Why it cannot be run here; empty when it can."""
        if shutil.which("gocryptfs") is None:
            return "gocryptfs is not installed"
        try:
            os.close(os.open("/dev/fuse", os.O_RDWR))
        except OSError as error:
            return f"gocryptfs cannot mount here: /dev/fuse: {error.strerror}"
        return ""

    @staticmethod
    def version() -> str:
        return subprocess.run(["gocryptfs", "-version"], check=True, capture_output=True, text=True).stdout.split(";")[0].strip()

    def put(self, source: Path) -> float:
        """Seconds of copying a folder in, until the ciphertext is on the disk."""
        with self._mounted():
            settled(self._cipher)
            return seconds(lambda: copied(source, self._mount / "tree")) + seconds(lambda: settled(self._cipher))

    def get(self, target: Path) -> float:
        """Seconds of copying it back, until that is on the disk. Mounted anew: the kernel remembers no plaintext."""
        with self._mounted():
            in_memory(self._cipher)
            settled(target.parent)
            return seconds(lambda: copied(self._mount / "tree", target))

    @contextmanager
    def _mounted(self) -> Iterator[None]:
        command: list[str | Path] = ["gocryptfs", "-q", "-fg", "-nosyslog", "-passfile", self._password, self._cipher, self._mount]
        with subprocess.Popen(command) as process:
            try:
                _until_mounted(self._mount, process)
                yield
            finally:
                subprocess.run(["umount", self._mount] if os.getuid() == 0 else ["fusermount3", "-u", self._mount], check=True)


class Rclone:
    """A folder under rclone's crypt, on a local folder: whole commands, less what a command takes that finds nothing to do."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self._cipher = folder / "cipher"
        self._cipher.mkdir()
        obscured = subprocess.run(["rclone", "obscure", PASSWORD], check=True, capture_output=True, text=True).stdout.strip()
        self._remote = f':crypt,remote="{self._cipher}",password="{obscured}":'
        self._environment = {**os.environ, "RCLONE_CONFIG": ""}

    @staticmethod
    def missing() -> str:
        return "" if shutil.which("rclone") else "rclone is not installed"

    @staticmethod
    def version() -> str:
        return subprocess.run(["rclone", "version"], check=True, capture_output=True, text=True).stdout.splitlines()[0].strip()

    def put(self, source: Path) -> tuple[float, float]:
        """Seconds of copying a folder in: until the command ends, and until the ciphertext is on the disk as well."""
        return self._copy(str(source), f"{self._remote}tree", self._cipher)

    def get(self, target: Path) -> tuple[float, float]:
        """The same of copying it back."""
        in_memory(self._cipher)
        return self._copy(f"{self._remote}tree", str(target), target.parent)

    def _copy(self, source: str, target: str, place: Path) -> tuple[float, float]:
        starting = seconds(lambda: self._run("lsf", f"{self._remote}none", check=False))
        settled(place)
        copied = seconds(lambda: self._run("copy", source, target)) - starting
        return copied, copied + seconds(lambda: settled(place))

    def _run(self, *arguments: str, check: bool = True) -> None:
        subprocess.run(["rclone", *arguments], check=check, env=self._environment, stderr=None if check else subprocess.DEVNULL)


def _until_mounted(folder: Path, process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + MOUNT_SECONDS
    while not folder.is_mount():
        if process.poll() is not None or time.monotonic() > end:
            raise RuntimeError(f"gocryptfs did not mount {folder}")
        time.sleep(0.01)
