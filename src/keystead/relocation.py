"""Moving an installation: out of a home into an archive, and from there into an empty installation of either kind, and back.

Works on the stores themselves, below the service: it moves rows and objects as they lie, and opens none. docs/spec/home-archive.md has
the format. Every step can be run again: what is there already is compared instead of written.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import msgspec
from sqlalchemy import select

from keystead import __version__
from keystead.adapters.archives.folder import FORMAT as ARCHIVE_FORMAT
from keystead.adapters.archives.folder import Archive, FamilyPart, ListedObject, Manifest, ObjectsPart, TablePart
from keystead.adapters.archives.frames import (
    FAMILIES,
    ROWS_PER_FRAME,
    columns_of,
    count_on,
    digest,
    frames_of,
    insert_frame,
    is_empty,
    tables_of,
)
from keystead.adapters.files import remove_durably, write_durably
from keystead.adapters.sql import keystead_schema
from keystead.adapters.sql.engine import reading, writing
from keystead.adapters.sql.migrate import HEADS, present_revision, upgrade
from keystead.core.errors import Conflict, IntegrityFailure, NotFound, PreconditionFailed, Unavailable
from keystead.wiring import FORMAT, HomeFile, open_home, open_stores

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from sqlalchemy import Connection, Engine

    from keystead.ports.objects import ObjectStore
    from keystead.wiring import Stores

    Progress = Callable[[int, int], None]
    """Told how many objects are done, and how many there are."""

PIECE = 8 * 1024 * 1024
"""How much of an object is held at a time."""
WRITTEN_IN = ("vault", "keys", "keystead")
"""The order databases are written in: a row never names a key that is not there yet."""


class Moved(msgspec.Struct, frozen=True):
    """What an export or import did.

    Attributes:
        already_there: objects that an earlier run had brought.
    """

    archive: str
    rows: int
    objects: int
    bytes: int
    already_there: int


def export_home(path: Path, output: Path, environment: Mapping[str, str] | None = None, on_progress: Progress | None = None) -> Moved:
    """Write everything an installation holds to an archive.

    Takes one snapshot of each database, so it may run beside servers and workers. Objects that the snapshot names are kept by them for
    `object_grace`: an export that takes longer finds one missing, says so, and can be run again, when it copies only what is new.

    Raises:
        Conflict: the folder holds a finished archive, or something else.
        Unavailable: a store does not answer, or an object went while the export ran.
        IntegrityFailure: an object is not what its row says.
    """
    archive = Archive(output)
    if archive.finished:
        raise Conflict("archive_exists", f"{output} holds a finished archive", "choose another folder")
    if output.exists() and any(output.iterdir()) and not (output / "frames").is_dir():
        raise Conflict("folder_not_empty", f"{output} is not empty", "choose an empty folder")
    output.mkdir(mode=0o700, parents=True, exist_ok=True)
    (output / "frames").mkdir(mode=0o700, exist_ok=True)
    with open_stores(path, environment) as stores:
        families: dict[str, FamilyPart] = {}
        with reading(stores.engines["keystead"]) as connection:
            families["keystead"] = _exported(connection, archive, "keystead", stores)
            wanted = [
                (ref, size) for ref, size in connection.execute(select(keystead_schema.objects.c.ref, keystead_schema.objects.c.size))
            ]
        objects, there = _objects_out(stores.objects, archive, wanted, on_progress)
        with reading(stores.engines["vault"]) as connection:
            families["vault"] = _exported(connection, archive, "vault", stores)
        families["keys"], seals = _key_store_out(archive, stores)
        manifest = Manifest(
            format=ARCHIVE_FORMAT,
            made=stores.clock.now(),
            keystead=__version__,
            dev=stores.file.dev,
            operator=stores.file.operator,
            rows_per_frame=ROWS_PER_FRAME,
            families=families,
            objects=ObjectsPart(len(objects), sum(one.size for one in objects), archive.write_list(objects)),
            seals=seals,
        )
    archive.write_manifest(manifest)
    return _moved(output, manifest, there)


def import_home(path: Path, source: Path, environment: Mapping[str, str] | None = None, on_progress: Progress | None = None) -> Moved:
    """Bring an archive into an empty installation, and read everything back.

    The directory needs the master and the vault's seal of the installation that was exported, where its keystead.toml names them. No
    other process may use it meanwhile: outside a fleet there is no home.json before the end.

    Raises:
        Conflict: a database there holds something else.
        PreconditionFailed: the archive is of another version.
        IntegrityFailure: the archive is damaged, or what was written reads back otherwise.
    """
    archive = Archive(source)
    manifest = archive.manifest()
    for family, part in manifest.families.items():
        if part.revision != HEADS.get(family):
            raise PreconditionFailed(
                "archive_version",
                f"the archive has the {family} database at revision {part.revision}; this version of Keystead works with {HEADS.get(family)}",
                "bring it in with the version that wrote it, then upgrade",
            )
    if set(manifest.families) != set(FAMILIES):
        raise IntegrityFailure("archive_damaged", "the archive does not have the three databases", "export again")
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    with open_stores(path, environment, new=HomeFile(FORMAT, manifest.dev, manifest.operator)) as stores:
        there = _objects_in(stores.objects, archive, manifest, on_progress)
        for family in WRITTEN_IN:
            if family == "keys":
                _seals_in(archive, manifest, stores.seals)
            _family_in(archive, manifest, family, stores.engines[family])
        if not stores.configuration.fleet:
            write_durably(path / "home.json", msgspec.json.encode(stores.file))
    try:
        open_home(path, environment).close()  # the master and the vault's seal fit, or this says so
    except BaseException:
        if not stores.configuration.fleet:
            remove_durably(path / "home.json")  # what does not open is no home: with the right seals the import can be run again
        raise
    return _moved(source, manifest, there)


# -- out ------------------------------------------------------------------------------------------------------------------------------


def _exported(connection: Connection, archive: Archive, family: str, stores: Stores) -> FamilyPart:
    parts = []
    for table in tables_of(family):
        rows, frames = 0, []
        for number, (count, data) in enumerate(frames_of(connection, table), start=1):
            archive.write_frame(family, table.name, number, data)
            rows += count
            frames.append(digest(data))
        parts.append(TablePart(f"{table.name}", columns_of(table), rows, frames))
    revision = present_revision(stores.engines[family], family)
    if revision != HEADS[family]:
        raise PreconditionFailed(
            "schema_behind", f"the {family} database is at revision {revision}", "upgrade it first: keystead db upgrade"
        )
    return FamilyPart(revision, parts)


def _key_store_out(archive: Archive, stores: Stores) -> tuple[FamilyPart, dict[str, str]]:
    """The key store's rows with the epoch keys of the same moment: a rewrite in between changes both, and then both are read again."""
    for _attempt in range(10):
        before = archive.write_seals(stores.seals)
        with reading(stores.engines["keys"]) as connection:
            part = _exported(connection, archive, "keys", stores)
        if archive.write_seals(stores.seals) == before:
            return part, before
    raise Conflict(
        "keystore_busy", "the key store was rewritten again and again while it was read", "export when no key is being destroyed"
    )


def _objects_out(
    store: ObjectStore, archive: Archive, wanted: list[tuple[str, int]], on_progress: Progress | None
) -> tuple[list[ListedObject], int]:
    listed, there = [], 0
    for done, (ref, size) in enumerate(wanted, start=1):
        found = _digest_of(archive.objects, ref, size)
        if found is None:
            try:
                found = _copied(store, archive.objects, ref, size)
            except NotFound as error:
                raise Unavailable(
                    "object_went",
                    f"object {ref} is gone: it was replaced while the export ran, or is lost",
                    "run the export again; raise the setting object_grace if it takes longer than that",
                ) from error
        else:
            there += 1
        listed.append(ListedObject(ref, size, found))
        if on_progress is not None:
            on_progress(done, len(wanted))
    return listed, there


def _copied(source: ObjectStore, target: ObjectStore, ref: str, size: int) -> str:
    """Copy an object; returns its digest."""
    running = hashlib.sha256()

    def pieces() -> Iterator[bytes]:
        for piece in _pieces(source, ref, size):
            running.update(piece)
            yield piece

    target.put(ref, pieces())
    return running.hexdigest()


def _digest_of(store: ObjectStore, ref: str, size: int) -> str | None:
    """Digest of an object that may be there; None when it is not."""
    running = hashlib.sha256()
    try:
        for piece in _pieces(store, ref, size):
            running.update(piece)
    except NotFound:
        return None
    return running.hexdigest()


def _pieces(store: ObjectStore, ref: str, size: int) -> Iterator[bytes]:
    for offset in range(0, size, PIECE):
        yield store.get(ref, offset, min(PIECE, size - offset))


# -- in -------------------------------------------------------------------------------------------------------------------------------


def _objects_in(store: ObjectStore, archive: Archive, manifest: Manifest, on_progress: Progress | None) -> int:
    """Store every object that is not there, and read every one back; returns how many were there."""
    there = 0
    for done, one in enumerate(archive.listed(manifest.objects.digest), start=1):
        found = _digest_of(store, one.ref, one.size)
        if found is None:
            if _copied(archive.objects, store, one.ref, one.size) != one.digest:
                store.delete(one.ref)
                raise IntegrityFailure("archive_damaged", f"the archive's object {one.ref} is not what was written", "use another copy")
            found = _digest_of(store, one.ref, one.size)
        else:
            there += 1
        if found != one.digest:
            raise IntegrityFailure(
                "object_differs", f"object {one.ref} reads back as something else", "check the object store, then import again"
            )
        if on_progress is not None:
            on_progress(done, manifest.objects.count)
    return there


def _seals_in(archive: Archive, manifest: Manifest, seals: Path) -> None:
    seals.mkdir(mode=0o700, parents=True, exist_ok=True)
    for name, data in archive.seals(manifest.seals):
        file = seals / name
        if not file.exists():
            write_durably(file, data)
        elif file.read_bytes() != data:
            raise Conflict("seals_not_empty", f"{file.name} is there already, and another", "import into a folder without epoch keys")


def _family_in(archive: Archive, manifest: Manifest, family: str, engine: Engine) -> None:
    """Write one database in one transaction, unless it is there already; then compare it frame by frame."""
    upgrade(engine, family)
    parts = {part.name: part for part in manifest.families[family].tables}
    tables = tables_of(family)
    for table in tables:
        if table.name not in parts or parts[table.name].columns != columns_of(table):
            raise IntegrityFailure("archive_damaged", f"the archive's table {table.name} is missing or has other columns", "export again")
    with writing(engine) as connection:
        if all(is_empty(connection, table) for table in tables):
            for table in tables:
                for number, wanted in enumerate(parts[table.name].frames, start=1):
                    insert_frame(connection, table, archive.frame(family, table.name, number, wanted))
                count_on(connection, table)
    with reading(engine) as connection:
        for table in tables:
            if [digest(data) for _, data in frames_of(connection, table, manifest.rows_per_frame)] != parts[table.name].frames:
                raise Conflict(
                    "target_not_empty",
                    f"the table {table.name} of the {family} database holds something else",
                    "import into empty databases",
                )


def _moved(archive: Path, manifest: Manifest, there: int) -> Moved:
    rows = sum(table.rows for family in manifest.families.values() for table in family.tables)
    return Moved(str(archive), rows, manifest.objects.count, manifest.objects.bytes, there)
