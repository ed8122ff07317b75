"""Dovecot with mail_crypt in a folder of its own: what one gets today from a mail server's packages. Needs Debian's dovecot-core."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

_CONFIG = """\
base_dir = {base}/run
state_dir = {base}/run
log_path = {base}/log
ssl = no
mail_uid = {uid}
mail_gid = {gid}
first_valid_uid = 1
first_valid_gid = 1
mail_home = {base}/mail
mail_location = mdbox:{base}/mail
mail_attribute_dict = file:{base}/mail/attributes
mail_plugins = mail_crypt
plugin {{
  mail_crypt_save_version = 2
  mail_crypt_global_private_key = <{base}/private.pem
  mail_crypt_global_public_key = <{base}/public.pem
}}
namespace inbox {{
  inbox = yes
}}
"""
_ENCRYPTED = b"CRYPTED\x03\x07"
"""What every message that mail_crypt stored begins with."""


@dataclass(frozen=True)
class Dovecot:
    """One mailbox, and the configuration beside it."""

    folder: Path

    def import_source(self) -> None:
        self._run("import", f"maildir:{self.folder / 'source'}", "", "all")

    def read_back(self) -> None:
        """Fetch every message whole, to a file."""
        self._run("fetch", "text", "all")

    def stored(self) -> tuple[int, int]:
        """How many encrypted messages lie in the mailbox, and bytes of its files."""
        files = list((self.folder / "mail" / "storage").glob("m.*"))
        return sum(file.read_bytes().count(_ENCRYPTED) for file in files), sum(file.stat().st_size for file in files)

    def _run(self, *arguments: str) -> None:
        # Without -u it works on the mail location itself, as the user who calls it: no server has to run.
        with (self.folder / "output").open("wb") as out:
            subprocess.run(
                ["doveadm", "-c", str(self.folder / "dovecot.conf"), *arguments],
                check=True,
                stdout=out,
                env=os.environ | {"USER": "bench", "HOME": str(self.folder)},
                user=_uid(),
                group=_uid(),
                extra_groups=[] if os.getuid() == 0 else None,
            )


def available() -> bool:
    return shutil.which("doveadm") is not None and shutil.which("openssl") is not None


def version() -> str:
    return subprocess.run(["dovecot", "--version"], check=True, capture_output=True, text=True).stdout.strip()


def make(folder: Path, maildir: Path) -> Dovecot:
    """An empty mailbox with fresh keys on the curve secp521r1, as mail_crypt's documentation makes them.

    The Maildir is copied: Dovecot writes its indexes into the one it imports.
    """
    shutil.copytree(maildir, folder / "source")
    for name in ("run", "mail"):
        (folder / name).mkdir(parents=True)
    private = _openssl(b"", "genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:secp521r1")
    (folder / "private.pem").write_bytes(private)
    (folder / "public.pem").write_bytes(_openssl(private, "pkey", "-pubout"))
    (folder / "dovecot.conf").write_text(_CONFIG.format(base=folder, uid=_uid(), gid=_uid()), encoding="utf-8")
    for path in (folder, *folder.rglob("*")):
        os.chown(path, _uid(), _uid())
    return Dovecot(folder)


def _uid() -> int:
    """Whose mail it is: Dovecot takes none of root's, so root has it done as Debian's user mail."""
    return os.getuid() or pwd.getpwnam("mail").pw_uid


def _openssl(data: bytes, *arguments: str) -> bytes:
    return subprocess.run(["openssl", *arguments], input=data, check=True, capture_output=True).stdout
