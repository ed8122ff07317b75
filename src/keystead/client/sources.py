"""Mail on the person's own disk, as a sequence of items to import (docs/spec/mail-items.md, "Sources").

    source = open_source(path)
    for item in source:
        data = item.read(0, item.length)

Items come lazily and in the same order every time; memory holds the names of one folder and a few chunks, whatever the size. Nothing is
written, nothing outside the given tree is opened, and names from the disk are shown only to the person who runs the import.
"""

from __future__ import annotations

import base64
import binascii
import errno
import io
import os
import re
import stat
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from keystead.core.errors import InvalidRequest, NotFound
from keystead.core.stores.mbox import split

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CHUNK = 1024 * 1024
"""Bytes of an mbox file read at a time."""
BEFORE_FIRST_SEPARATOR = "before-first-separator"
"""The malformed reason of bytes that an mbox file has before its first separator; the others are core/stores/message.py's."""

_NO_MAIL_MEND = "give an mbox file, a Maildir, an .eml or .ics file, or a folder of these"


class SourceKind(StrEnum):
    """What lies at the path."""

    MBOX = "mbox"
    MAILDIR = "maildir"
    EML = "eml"
    ICS = "ics"
    FOLDER = "folder"


@dataclass(frozen=True, slots=True)
class SourceItem:
    """One item of a source.

    Attributes:
        position: 1 for the first item of the source.
        name: the file it is in, relative to the source.
        folder: folder it belongs to, levels separated by "/"; "" for the source itself (the importer's default folder).
        length: in bytes.
        ics: it comes from an .ics file.
        malformed: `BEFORE_FIRST_SEPARATOR`, or None where only the item's own bytes can tell.
    """

    position: int
    name: str
    folder: str
    length: int
    ics: bool
    malformed: str | None
    _path: Path
    _start: int

    def read(self, offset: int, n: int) -> bytes:
        """At most n bytes of the item from the offset; fewer only at its end.

        The file is opened for each call, so items may be kept and read in any order without holding files open.

        Raises:
            InvalidRequest: `source_changed`: the file is gone, or shorter than when the item was found.
        """
        wanted = max(min(n, self.length - offset), 0)
        data = bytearray()
        with _opened(self._path) as file:
            while len(data) < wanted:
                piece = os.pread(file.fileno(), wanted - len(data), self._start + offset + len(data))
                if not piece:
                    raise _changed(self._path)
                data += piece
        return bytes(data)


@dataclass(frozen=True, slots=True)
class Source:
    """What is to be imported; iterate it, as often as needed, for its items.

    Attributes:
        path: as given.
        kind: what was found there.
        total_bytes: of all files that hold items, for progress: items together are that, less mbox separators.
        skipped: entries of the tree that are not imported: files of other kinds, dot files and dot folders,
            links that leave the tree, linked folders, devices.
    """

    path: Path
    kind: SourceKind
    total_bytes: int
    skipped: int

    def __iter__(self) -> Iterator[SourceItem]:
        """The items in order.

        Raises:
            InvalidRequest: `source_unreadable` or `source_changed`, naming the file.
        """
        position = 0
        for found in _files(self.path, self.kind):
            if isinstance(found, _Skipped):
                continue
            for start, length, leading in _spans(found):
                position += 1
                yield SourceItem(
                    position=position,
                    name=found.name,
                    folder=found.folder,
                    length=length,
                    ics=found.kind is SourceKind.ICS,
                    malformed=BEFORE_FIRST_SEPARATOR if leading else None,
                    _path=found.path,
                    _start=start,
                )


@dataclass(frozen=True, slots=True)
class _File:
    """One file that holds items; `kind` is MBOX, EML or ICS."""

    path: Path
    name: str
    folder: str
    kind: SourceKind
    size: int


@dataclass(frozen=True, slots=True)
class _Skipped:
    """One entry that is not imported."""

    path: Path


def open_source(path: Path) -> Source:
    """Look at what lies there, without reading messages.

    Raises:
        NotFound: `source_not_found`.
        InvalidRequest: `source_unreadable`, or `source_not_mail` for what is no mail, a folder without any, or a device.
    """
    kind = _detect(path)
    total = skipped = files = 0
    for found in _files(path, kind):
        if isinstance(found, _Skipped):
            skipped += 1
        else:
            files += 1
            total += found.size
    if kind is SourceKind.FOLDER and not files:
        raise InvalidRequest("source_not_mail", f"there is no mail in the folder {str(path)!r}", _NO_MAIL_MEND)
    return Source(path=path, kind=kind, total_bytes=total, skipped=skipped)


# --- telling kinds apart ------------------------------------------------------------------------------------------------------------

_HEADER_START = re.compile(rb"(?:\xef\xbb\xbf)?[!-9;-~]+[ \t]*:")
_CALENDAR_START = re.compile(rb"(?:\xef\xbb\xbf)?\s*BEGIN:VCALENDAR", re.IGNORECASE)
_KIND_OF_SUFFIX = {".eml": SourceKind.EML, ".ics": SourceKind.ICS, ".mbox": SourceKind.MBOX, ".mbx": SourceKind.MBOX}
_PEEK = 4096


def _detect(path: Path) -> SourceKind:
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        raise NotFound("source_not_found", f"there is no file or folder {str(path)!r}", "check the path") from None
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from None
    if stat.S_ISDIR(mode):
        return SourceKind.MAILDIR if _is_maildir(path) else SourceKind.FOLDER
    if not stat.S_ISREG(mode):
        raise InvalidRequest("source_not_mail", f"{str(path)!r} is a device or pipe, not a file", _NO_MAIL_MEND)
    # Read before the suffix is asked, so that a file nobody may read is refused here and not in the middle of the import.
    head = _peek(path.resolve())
    return _KIND_OF_SUFFIX.get(path.suffix.lower()) or _kind_by_content(path, head)


def _kind_by_content(path: Path, head: bytes) -> SourceKind:
    """For a single file whose name does not tell."""
    if head.startswith(b"From "):
        return SourceKind.MBOX
    if _CALENDAR_START.match(head):
        return SourceKind.ICS
    if _HEADER_START.match(head):
        return SourceKind.EML
    if b"\0" in head:
        raise InvalidRequest("source_not_mail", f"{str(path)!r} is not a mail file", _NO_MAIL_MEND)
    # Text: an mbox that lost its beginning. The splitter drops nothing, and reports what it cannot tell.
    return SourceKind.MBOX


def _peek(path: Path) -> bytes:
    with _opened(path) as file:
        return os.pread(file.fileno(), _PEEK, 0)


def _is_maildir(folder: Path) -> bool:
    """It has `cur`, and `new` or `tmp`: archives often lose empty folders. Links do not count, they may lead out of the tree."""
    return _is_own_folder(folder / "cur") and any(_is_own_folder(folder / other) for other in ("new", "tmp"))


def _is_own_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()


# --- walking ------------------------------------------------------------------------------------------------------------------------


def _files(root: Path, kind: SourceKind) -> Iterator[_File | _Skipped]:
    """Every file of the source that holds items, in a stable order, and what is passed over."""
    if kind not in {SourceKind.FOLDER, SourceKind.MAILDIR}:
        yield _File(root.resolve(), _text(root.name), "", kind, _size(root))
        return
    tree = _Tree(root, root.resolve())
    waiting = [(root, "")]
    while waiting:
        folder, label = waiting.pop()
        yield from _files_of(tree, folder, label)
        # The first by name is taken next, with all below it.
        waiting += reversed(_below(folder, label))


@dataclass(frozen=True, slots=True)
class _Tree:
    """The root as given, and where it really is."""

    root: Path
    real: Path

    def name(self, path: Path) -> str:
        return _text(path.relative_to(self.root).as_posix())

    def file(self, path: Path) -> Path | None:
        """The regular file at the path, a link resolved; None where it leaves the tree, dangles or is no file.

        Linked folders are never entered, so only the last step of a path can be a link.

        Raises:
            InvalidRequest: `source_changed`: it was there a moment ago.
        """
        if not path.is_symlink():
            return path if stat.S_ISREG(_stat(path).st_mode) else None
        try:
            real = path.resolve(strict=True)
        except (OSError, RuntimeError):
            # A link to nothing, or to itself.
            return None
        return real if real.is_relative_to(self.real) and stat.S_ISREG(_stat(real).st_mode) else None


def _files_of(tree: _Tree, folder: Path, label: str) -> Iterator[_File | _Skipped]:
    """The files of one folder: a Maildir's messages, or else files by suffix."""
    if _is_maildir(folder):
        yield from _maildir_messages(tree, folder, label)
        return
    for entry in _entries(folder):
        path = folder / entry.name
        if not entry.is_dir(follow_symlinks=False):
            yield _plain_file(tree, path, label)
        elif _is_hidden(path):
            yield _Skipped(path)


def _below(folder: Path, label: str) -> list[tuple[Path, str]]:
    """The folders in one folder that are entered, and their labels."""
    maildir = _is_maildir(folder)
    found: list[tuple[Path, str]] = []
    for entry in _entries(folder):
        path = folder / entry.name
        if not entry.is_dir(follow_symlinks=False) or _is_hidden(path) or (maildir and entry.name in {"cur", "new", "tmp"}):
            continue
        found.append((path, _join(label, *_levels(entry.name, dotted=maildir))))
    return found


def _is_hidden(folder: Path) -> bool:
    """A dot folder: programs keep indexes and histories there, unless it is a Maildir."""
    return folder.name.startswith(".") and not _is_maildir(folder)


def _maildir_messages(tree: _Tree, folder: Path, label: str) -> Iterator[_File | _Skipped]:
    """`cur` and `new` together, by name, which begins with the time of delivery. `tmp` holds only deliveries that never ended."""
    places = {place: (folder / place, tree.name(folder / place)) for place in ("cur", "new")}
    found = sorted(((entry.name, place, entry) for place, (at, _) in places.items() for entry in _entries(at)), key=lambda one: one[:2])
    for name, place, entry in found:
        at, shown = places[place]
        path = at / name
        if entry.is_file(follow_symlinks=False) and not name.startswith("."):
            yield _File(path, f"{shown}/{_text(name)}", label, SourceKind.EML, _size_of(entry, path))  # what nearly all are: one look each
            continue
        real = None if name.startswith(".") else tree.file(path)
        yield _Skipped(path) if real is None else _File(real, tree.name(path), label, SourceKind.EML, _size(real))


def _size_of(entry: os.DirEntry[str], path: Path) -> int:
    try:
        return entry.stat(follow_symlinks=False).st_size
    except OSError:
        raise _changed(path) from None


def _plain_file(tree: _Tree, path: Path, label: str) -> _File | _Skipped:
    real = tree.file(path)
    if real is None or path.name.startswith("."):
        return _Skipped(path)
    kind = _KIND_OF_SUFFIX.get(path.suffix.lower())
    if kind is None and not path.suffix and _peek(real).startswith(b"From "):
        kind = SourceKind.MBOX
    if kind is None:
        return _Skipped(path)
    # Mail programs keep each folder in an mbox file of its name.
    folder = _join(label, _text(path.stem)) if kind is SourceKind.MBOX else label
    return _File(real, tree.name(path), folder, kind, _size(real))


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as found:
            return sorted(found, key=lambda entry: entry.name)
    except FileNotFoundError:
        # `new` of a Maildir that an archive lost; a whole folder cannot be missing, its parent has just named it.
        return []
    except OSError as error:
        raise _unreadable(folder, error) from None


def _join(label: str, *names: str) -> str:
    return "/".join(part for part in (label, *names) if part)


_MUTF7 = re.compile(r"&([A-Za-z0-9+,]*)-")


def _levels(name: str, *, dotted: bool) -> list[str]:
    """Folder names that a directory's name stands for: `.Projects.North` is two levels in Maildir++, `Archive.sbd` is Thunderbird's `Archive`."""
    if dotted and name.startswith("."):
        return [_modified_utf7(level) for level in _text(name).split(".") if level]
    return [_text(name.removesuffix(".sbd"))]


def _modified_utf7(name: str) -> str:
    """A folder name as IMAP servers write it on disk (RFC 3501 section 5.1.3); unchanged where it is not written so."""
    try:
        return _MUTF7.sub(_mutf7_run, name)
    except (binascii.Error, UnicodeDecodeError):
        return name


def _mutf7_run(match: re.Match[str]) -> str:
    digits = match[1].replace(",", "/")
    return base64.b64decode(digits + "=" * (-len(digits) % 4)).decode("utf-16-be") if digits else "&"


def _text(name: str) -> str:
    """A file name as text that can be encoded: on Linux it may be any bytes."""
    return os.fsencode(name).decode("utf-8", "replace")


# --- reading ------------------------------------------------------------------------------------------------------------------------


def _spans(file: _File) -> Iterator[tuple[int, int, bool]]:
    """Start, length and whether it is leading bytes, of each item in the file."""
    if file.kind is not SourceKind.MBOX:
        yield 0, file.size, False
        return
    with _opened(file.path) as opened:
        yield from split(iter(lambda: opened.read(CHUNK), b""))


def _opened(path: Path) -> io.FileIO:
    """A regular file, by a path whose links were resolved when it was found.

    Whoever may write to the tree may have put a link or a pipe in its place since: the link is not followed, the pipe not waited for.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        raise _changed(path) from None
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise _changed(path) from None
        raise _unreadable(path, error) from None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise _changed(path)
    return io.FileIO(descriptor)


def _size(path: Path) -> int:
    return _stat(path).st_size


def _stat(path: Path) -> os.stat_result:
    try:
        return path.stat()
    except OSError:
        raise _changed(path) from None


def _unreadable(path: Path, error: OSError | ValueError) -> InvalidRequest:
    reason = (error.strerror if isinstance(error, OSError) else None) or "not a path"
    return InvalidRequest("source_unreadable", f"{str(path)!r} cannot be read: {reason}", "check the path and its permissions")


def _changed(path: Path) -> InvalidRequest:
    return InvalidRequest(
        "source_changed",
        f"{str(path)!r} was moved, removed, replaced or shortened while it was read",
        "close the mail program and import again: what is there already is not added twice",
    )
