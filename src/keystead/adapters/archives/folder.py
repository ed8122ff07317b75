"""The folder of a home archive (docs/spec/home-archive.md)."""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING, Annotated

import msgspec

from keystead.adapters.files import translated, write_durably
from keystead.adapters.objects import references
from keystead.adapters.objects.folder import FolderObjects
from keystead.core.errors import IntegrityFailure, NotFound, PreconditionFailed

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

FORMAT = 1
MAX_MANIFEST = 64 * 1024 * 1024
MAX_FRAME = 256 * 1024 * 1024
MAX_SEAL = 64 * 1024
MAX_LINE = 256
"""Bytes; a sealed epoch key and a line of objects.list are far shorter."""
SEAL = re.compile(r"keystore-[a-z-]{1,40}\.[1-9][0-9]{0,18}")
_LINE = re.compile(r"(\S{1,80}) ([0-9]{1,15}) ([0-9a-f]{64})")


class TablePart(msgspec.Struct, frozen=True):
    """One table: `frames` are the SHA-256 of each, in order."""

    name: str
    columns: list[str]
    rows: int
    frames: list[str]


class FamilyPart(msgspec.Struct, frozen=True):
    """One database."""

    revision: str
    tables: list[TablePart]


class ObjectsPart(msgspec.Struct, frozen=True):
    """All objects; `digest` is that of objects.list."""

    count: int
    bytes: int
    digest: str


class Manifest(msgspec.Struct, frozen=True):
    """manifest.json."""

    format: int
    made: int
    keystead: str
    dev: bool
    operator: str
    rows_per_frame: Annotated[int, msgspec.Meta(ge=1, le=1_000_000)]
    families: dict[str, FamilyPart]
    objects: ObjectsPart
    seals: dict[str, str]


class ListedObject(msgspec.Struct, frozen=True):
    """One line of objects.list."""

    ref: str
    size: int
    digest: str


class Archive:
    """An archive being written or read."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.objects = FolderObjects(path / "objects")

    @property
    def finished(self) -> bool:
        """Whether the manifest is there."""
        return (self.path / "manifest.json").exists()

    def write_manifest(self, manifest: Manifest) -> None:
        """Finish the archive."""
        write_durably(self.path / "manifest.json", msgspec.json.format(msgspec.json.encode(manifest), indent=1))

    def manifest(self) -> Manifest:
        """The manifest.

        Raises:
            NotFound: there is no finished archive.
            IntegrityFailure: it cannot be read.
            PreconditionFailed: another version of Keystead wrote it.
        """
        file = self.path / "manifest.json"
        if not file.is_file():
            raise NotFound(
                "archive_not_found", f"{self.path} holds no finished archive", "run the export to its end, or name another folder"
            )
        if file.stat().st_size > MAX_MANIFEST:
            raise _not_as_written("manifest.json")
        try:
            found = msgspec.json.decode(file.read_bytes(), type=Manifest)
        except msgspec.DecodeError as error:
            raise _not_as_written("manifest.json") from error
        if found.format != FORMAT:
            raise PreconditionFailed(
                "archive_version",
                f"the archive has format {found.format}; this version of Keystead reads {FORMAT}",
                "use the version that wrote it",
            )
        return found

    def write_frame(self, family: str, table: str, number: int, data: bytes) -> None:
        """Write one frame, or replace the one that an export that was stopped had written."""
        folder = self.path / "frames" / family / table
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_durably(folder / f"{number:06}", data)

    def frame(self, family: str, table: str, number: int, wanted: str) -> bytes:
        """A frame whose digest is the wanted one.

        Raises:
            IntegrityFailure: it is missing or another.
        """
        file = self.path / "frames" / family / table / f"{number:06}"
        if not file.is_file() or file.stat().st_size > MAX_FRAME:
            raise _not_as_written(f"{family}/{table}/{number:06}")
        with translated(file.name):
            data = file.read_bytes()
        if hashlib.sha256(data).hexdigest() != wanted:
            raise _not_as_written(f"{family}/{table}/{number:06}")
        return data

    def write_list(self, objects: list[ListedObject]) -> str:
        """Write objects.list; returns its digest."""
        data = "".join(f"{one.ref} {one.size} {one.digest}\n" for one in sorted(objects, key=lambda one: one.ref)).encode()
        write_durably(self.path / "objects.list", data)
        return hashlib.sha256(data).hexdigest()

    def listed(self, wanted: str) -> Iterator[ListedObject]:
        """The lines of objects.list, whose digest must be the wanted one.

        Raises:
            IntegrityFailure: it is missing, another, or holds what is no line.
        """
        file = self.path / "objects.list"
        if not file.is_file():
            raise _not_as_written("objects.list")
        with file.open("rb") as lines:
            if hashlib.file_digest(lines, "sha256").hexdigest() != wanted:
                raise _not_as_written("objects.list")
            lines.seek(0)
            while line := lines.readline(MAX_LINE):
                match = _LINE.fullmatch(line.decode("ascii", "replace").rstrip("\n"))
                if match is None:
                    raise _not_as_written("objects.list")
                references.parts(match[1])
                yield ListedObject(match[1], int(match[2]), match[3])

    def write_seals(self, seals: Path) -> dict[str, str]:
        """Copy the sealed epoch keys; returns their digests. Files of an earlier, stopped export go."""
        folder = self.path / "seals"
        folder.mkdir(mode=0o700, exist_ok=True)
        present = {file.name: file.read_bytes() for file in seals.iterdir() if SEAL.fullmatch(file.name)}
        for stale in {file.name for file in folder.iterdir()} - set(present):
            (folder / stale).unlink()
        for name, data in present.items():
            write_durably(folder / name, data)
        return {name: hashlib.sha256(data).hexdigest() for name, data in sorted(present.items())}

    def seals(self, wanted: dict[str, str]) -> Iterator[tuple[str, bytes]]:
        """The epoch keys that the manifest names.

        Raises:
            IntegrityFailure: one is missing or another, or has a name that is none.
        """
        for name, digest in wanted.items():
            file = self.path / "seals" / name
            if not SEAL.fullmatch(name) or not file.is_file() or file.stat().st_size > MAX_SEAL:
                raise _not_as_written(f"seals/{name}")
            data = file.read_bytes()
            if hashlib.sha256(data).hexdigest() != digest:
                raise _not_as_written(f"seals/{name}")
            yield name, data


def _not_as_written(what: str) -> IntegrityFailure:
    return IntegrityFailure("archive_damaged", f"{what} of the archive is not what was written", "export again, or use another copy")
