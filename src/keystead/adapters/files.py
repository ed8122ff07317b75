"""Small files that survive a power cut, and a clear word when the disk does not take them.

A file is written whole under another name, reaches the disk, and only then takes its own name; the folder reaches the
disk last. So a crash leaves the old file or the new one, and at worst a leftover `.NAME.*.tmp` beside it, never half a
file.
"""

from __future__ import annotations

import errno
import os
import tempfile
from contextlib import contextmanager
from typing import TYPE_CHECKING

from keystead.core.errors import Unavailable

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


def write_durably(path: Path, data: bytes, mode: int = 0o600) -> None:
    """Write a small file, or replace it, at once and for good.

    Args:
        path: its folder must exist.
        data: the whole content.
        mode: permissions; by default nobody but the owner reads it.

    Raises:
        Unavailable: the disk is full or does not answer; the file is what it was.
    """
    with translated(path.name):
        descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
        try:
            with os.fdopen(descriptor, "wb") as file:
                os.fchmod(file.fileno(), mode)
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.rename(temporary, path)  # noqa: PTH104 - mkstemp gives text, and both lie in one folder
        except BaseException:
            os.unlink(temporary)  # noqa: PTH108 - as above
            raise
        sync_folder(path.parent)


def remove_durably(path: Path) -> None:
    """Overwrite a small file, remove it, and make both last; a file that is not there is passed over.

    The overwritten bytes reach the disk before the name goes: should a power cut bring the name back, it comes back with
    zeros. A disk may keep an older copy of the bytes all the same (wear levelling, snapshots): docs/spec/keystore.md says
    what that means.

    Raises:
        Unavailable: the disk does not answer; the call may be made again.
    """
    with translated(path.name):
        try:
            with path.open("r+b") as file:
                file.write(bytes(os.fstat(file.fileno()).st_size))
                file.flush()
                os.fsync(file.fileno())
        except FileNotFoundError:
            return
        path.unlink(missing_ok=True)
        sync_folder(path.parent)


def sync_folder(path: Path | str) -> None:
    """Make the names in a folder last.

    Raises:
        OSError: the disk did not take it.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def translated(name: str) -> Iterator[None]:
    """Errors of the file system become *unavailable*, with a text that tells a full disk from a lost one.

    Args:
        name: what was being read or written: a file's own name, never the path of a machine.
    """
    try:
        yield
    except OSError as error:
        if error.errno in FULL:
            raise Unavailable(
                "storage_full",
                f"the disk is full: {name} was not written",
                "free some room, then try again; nothing half written was kept",
            ) from error
        raise Unavailable(
            "storage_unavailable",
            f"the disk did not take the call for {name}: {error.strerror or type(error).__name__}",
            "check that it is there and writable, then try again",
        ) from error
