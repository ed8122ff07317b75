"""Local files and folders that content is written to: each file whole or not at all, all of it for its owner alone."""

from __future__ import annotations

import os
import secrets
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from keystead import direct_io
from keystead.core.errors import Conflict, IntegrityFailure, InvalidRequest

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from datetime import datetime

    from keystead.core.formats.aead import Readable

OWNER_ONLY, OWNER_FOLDER = 0o600, 0o700
_buffers = direct_io.Buffers(4 * 1024 * 1024, 4)


def prepare(folder: Path, *, overwrite: bool) -> None:
    """Make a folder for what is about to be written, with those above it.

    Raises:
        Conflict: `folder_not_empty`, unless it may hold something.
        InvalidRequest: `file_unwritable`.
    """
    try:
        folder.mkdir(mode=OWNER_FOLDER, parents=True, exist_ok=True)
        empty = next(folder.iterdir(), None) is None
    except OSError as error:
        raise _unwritable(folder, error) from None
    if not empty and not overwrite:
        raise Conflict("folder_not_empty", f"the folder {str(folder)!r} is not empty", "choose an empty one, or add --yes")


def make_folder(folder: Path) -> None:
    """Make a folder within one that was prepared.

    Raises:
        IntegrityFailure: `file_name_invalid`: a link is there, which may lead elsewhere.
        InvalidRequest: `file_unwritable`.
    """
    try:
        folder.mkdir(mode=OWNER_FOLDER, exist_ok=True)
        link = folder.is_symlink()
    except OSError as error:
        raise _unwritable(folder, error) from None
    if link:
        raise IntegrityFailure(
            "file_name_invalid", f"{str(folder)!r} is a link, which may lead elsewhere", "remove it, or choose another folder"
        )


def write_file(path: Path, chunks: Iterable[Readable], modified: datetime | None = None) -> None:
    """Write a file whole or not at all, readable by its owner alone: under another name first, so a crash leaves at most that.

    Args:
        path: a link there is replaced, never followed.
        chunks: pieces of any sizes. Many bytes go to the disk past the page cache.
        modified: what becomes its time; that of writing by default.

    Raises:
        InvalidRequest: `file_unwritable`.
        KeysteadError: what comes instead of the next chunk; then there is no file.
    """
    with _created(str(path.parent), path.name, modified) as descriptor:
        buffer = _buffers.take()
        try:
            _fill(descriptor, chunks, buffer)
        finally:
            _buffers.give(buffer)


def write_small_file(folder: str, name: str, parts: Iterable[memoryview], modified: datetime) -> None:
    """The same for a small file, through no buffer; text in place of paths, for this is done thousands of times."""
    with _created(folder, name, modified) as descriptor:
        for part in parts:
            direct_io.write(descriptor, part)


def _fill(descriptor: int, chunks: Iterable[Readable], buffer: memoryview) -> None:
    used = 0
    for chunk in chunks:
        rest = memoryview(chunk).cast("B")
        while rest:
            taken = min(len(buffer) - used, len(rest))
            buffer[used : used + taken] = rest[:taken]
            rest, used = rest[taken:], used + taken
            if used == len(buffer):
                direct_io.write(descriptor, buffer)
                used = 0
    direct_io.write(descriptor, buffer[:used])


@contextmanager
def _created(folder: str, name: str, modified: datetime | None) -> Iterator[int]:
    """A descriptor of a file that takes its name when the block ends, and is removed when the block raises."""
    temporary = f"{folder}/.keystead-{secrets.token_hex(8)}.tmp"
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, OWNER_ONLY)
    except OSError as error:
        raise _unwritable(Path(folder, name), error) from None
    try:
        try:
            yield descriptor
            if modified is not None:
                nanoseconds = round(modified.timestamp() * 1_000) * 1_000_000
                os.utime(descriptor, ns=(nanoseconds, nanoseconds))
        finally:
            os.close(descriptor)
        os.replace(temporary, f"{folder}/{name}")  # noqa: PTH105 - text paths, see `write_small_file`
    except BaseException as error:
        with suppress(OSError):
            os.unlink(temporary)  # noqa: PTH108 - as above
        if isinstance(error, OSError):
            raise _unwritable(Path(folder, name), error) from None
        raise


def _unwritable(path: Path, error: OSError) -> InvalidRequest:
    return InvalidRequest(
        "file_unwritable", f"{str(path)!r} cannot be written: {error.strerror}", "check the path, its permissions and the room on the disk"
    )
