"""Somebody can write to keystead.db: reorders, cuts short, swaps and puts back what belongs to files. A file is what it is now, or an error.

What such a person *can* do unnoticed is listed in docs/spec/files.md section 5; tests at the end show those too.
"""

from __future__ import annotations

import hashlib
import io
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any

import pytest

from keystead.api import frames
from keystead.api.call import Call, Upload
from keystead.api.types import sites as s
from keystead.core.errors import IntegrityFailure, KeysteadError, NotFound
from keystead.core.formats.file_tree import bits_for, place_of
from keystead.core.stores.files import MAX_BATCH_FILE
from keystead.services import files as service
from keystead.services import tenants
from keystead.services.sites import open_site
from support.world import World

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from keystead.api.call import Content
    from keystead.client.client import Client
    from keystead.core.formats.files import Manifest

MIB = 1024 * 1024
PLANS, BOOKS, ABROAD = "https://contoso.example/sites/plans", "https://contoso.example/sites/books", "https://fabrikam.example/sites/plans"
SITES = (PLANS, BOOKS, ABROAD)
X, BEE, LARGE, LARGER, ONE, TWO, EMPTY = "/A/x.txt", "/B/x.txt", "/large", "/larger", "/one", "/two", "/empty"
GONE = "/gone"
FILLERS = [f"/fill/{number:03}" for number in range(150)]
"""Enough for a tree of four buckets."""
SAMPLE = FILLERS[::15]
TABLES = ("sites", "site_keys", "site_trees", "file_nodes", "file_versions", "file_chunks", "objects")
REFUSED = {"file_damaged", "file_rolled_back", "wrapped_key_damaged", "object_damaged", "site_key_missing", "check_value_mismatch"}

Row = dict[str, Any]
Rows = dict[str, list[Row]]


def noise(label: str, size: int) -> bytes:
    return hashlib.shake_256(label.encode()).digest(size)


@cache
def content(url: str) -> dict[str, bytes]:
    """What lies in a site in the end. The same paths and sizes in each, so that nothing but the bytes tells them apart."""
    here = SITES.index(url)
    held = {X: b"the third x %d" % here, BEE: b"the x in B, %d" % here, EMPTY: b""}
    held |= {path: noise(f"{path}{here}", 1000) for path in (ONE, TWO)}
    held[LARGE] = noise(f"large {here}", 4 * MIB + 5)
    if url == PLANS:
        held[LARGER] = noise("larger", 8 * MIB)
        held |= {path: path.encode() for path in FILLERS}
    return held


@dataclass
class Scene:
    """Three sites, two of them of one tenant; `past` is what all rows were before the latest changes, `eldest` before that."""

    world: World
    past: Rows
    eldest: Rows
    ids: dict[tuple[str, str], str]
    manifests: dict[tuple[str, str], Manifest] = field(default_factory=dict)

    def client(self, url: str = PLANS) -> Client:
        return self.world.as_person("dave@fabrikam.example" if url == ABROAD else "alice@contoso.example")

    @property
    def deleted(self) -> str:
        """The file that was deleted since."""
        now = {row[0] for row in self.world.sql("SELECT id FROM kept_file_nodes")}
        (node,) = [row["id"] for row in self.past["file_nodes"] if row["id"] not in now]
        return str(node)

    def site(self, url: str = PLANS) -> str:
        return str(self.world.sql("SELECT id FROM sites WHERE url = ?", url)[0][0])

    def rows(self) -> Rows:
        return {table: rows_of(self.world, table) for table in TABLES}

    def read(self, path: str, url: str = PLANS, version: int | None = None) -> bytes:
        found: Content = self.client(url).call("site.get", s.DownloadFile(site=url, path=path, version=version))
        return b"".join(bytes(piece) for piece in found.chunks)

    def put(self, path: str, data: bytes, url: str = PLANS) -> s.FileView:
        request = s.UploadFile(site=url, path=path, parents=True)
        made: s.FileView = self.client(url).call("site.put", request, upload=Upload(len(data), io.BytesIO(data).read))
        return made

    def names(self, path: str, url: str = PLANS) -> set[str]:
        return {entry.name for entry in self.client(url).call("site.ls", s.ListFiles(site=url, path=path))}

    def chunk(self, path: str, index: int = 0, url: str = PLANS) -> str:
        return self.manifests[url, path].entries[index].chunk_id

    def put_back(self, table: str, rows: Rows | None = None, **where: Any) -> None:
        """Rows as they were, over whatever is in their way."""
        chosen = [row for row in (rows or self.past)[table] if where.items() <= row.items()]
        assert chosen
        insert(self.world, table, chosen)

    def take(self, table: str, of: Row, columns: str, to: Row) -> None:
        """Give one row columns of another."""
        names = columns.split(", ")
        found = self.world.sql(f"SELECT {columns} FROM {table} WHERE {' AND '.join(f'{name} = ?' for name in of)}", *of.values())  # noqa: S608
        assert len(found) == 1
        self.set(table, dict(zip(names, found[0], strict=True)), to)

    def set(self, table: str, values: Row, where: Row) -> None:
        before = rows_of(self.world, table)
        assigned, chosen = ", ".join(f'"{name}" = ?' for name in values), " AND ".join(f'"{name}" = ?' for name in where)
        self.world.sql(f"UPDATE {table} SET {assigned} WHERE {chosen}", *values.values(), *where.values())  # noqa: S608 - ours
        assert rows_of(self.world, table) != before

    def swap(self, table: str, columns: str, one: Row, two: Row) -> None:
        names = columns.split(", ")
        found = [
            self.world.sql(f"SELECT rowid, {columns} FROM {table} WHERE {' AND '.join(f'{name} = ?' for name in row)}", *row.values())  # noqa: S608
            for row in (one, two)
        ]
        (first,), (second,) = found
        placeholders = [f"-{n}{'-' * 30}" for n in range(len(names))]  # unique columns pass each other
        for rowid, values in ((first[0], placeholders), (second[0], first[1:]), (first[0], second[1:])):
            self.set(table, dict(zip(names, values, strict=True)), {"rowid": rowid})

    def node(self, path: str, url: str = PLANS) -> Row:
        return {"id": self.ids[url, path]}

    def way(self, path: str, url: str = PLANS) -> list[str]:
        """A file and the folders on its path."""
        return [self.ids[url, path[:end]] for end in range(1, len(path) + 1) if path[end : end + 1] in ("/", "")]

    def version(self, path: str, number: int = 0, url: str = PLANS) -> Row:
        node = self.ids[url, path]
        current = self.world.sql("SELECT version FROM file_nodes WHERE id = ?", node)[0][0]
        return {"node_id": node, "number": number or current}

    def chunk_row(self, path: str, index: int = 0, url: str = PLANS) -> Row:
        return {"id": self.chunk(path, index, url)}

    def keep(self) -> None:
        """Copies of all rows, inside the database: attacks are undone in no time."""
        for table in TABLES:
            self.world.sql(f"CREATE TABLE kept_{table} AS SELECT * FROM {table}")  # noqa: S608 - ours

    def undo(self) -> None:
        for table in TABLES:
            self.world.sql(f"DELETE FROM {table}")  # noqa: S608 - ours
            self.world.sql(f"INSERT INTO {table} SELECT * FROM kept_{table}")  # noqa: S608 - ours


def rows_of(world: World, table: str) -> list[Row]:
    columns = [name for _at, name, *_ in world.sql(f"PRAGMA table_info({table})")]
    return [dict(zip(columns, row, strict=True)) for row in world.sql(f"SELECT * FROM {table}")]  # noqa: S608 - ours


def insert(world: World, table: str, rows: list[Row]) -> None:
    for row in rows:
        names, marks = ", ".join(f'"{name}"' for name in row), ", ".join("?" * len(row))
        world.sql(f"INSERT OR REPLACE INTO {table} ({names}) VALUES ({marks})", *row.values())  # noqa: S608 - ours


# -- what is attacked -----------------------------------------------------------------------------------------------------------------


def _filled(scene: Scene, url: str) -> None:
    held = content(url)
    batch = [s.BatchFile(path=path, data=data) for path, data in held.items() if len(data) < MIB]
    scene.client(url).call("site.put-batch", s.UploadBatch(site=url, files=batch))
    for path, data in held.items():
        if len(data) >= MIB:
            scene.put(path, data, url)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, database: str) -> Iterator[Scene]:
    world = World(tmp_path_factory.mktemp("files"))
    contoso, fabrikam = world.tenant("contoso.example", ready=False), world.tenant("fabrikam.example", ready=False)
    contoso.person("alice")
    fabrikam.person("dave")
    scene = Scene(world, {}, {}, {})
    for url, tenant, owner in [(PLANS, contoso, "alice"), (BOOKS, contoso, "alice"), (ABROAD, fabrikam, "dave")]:
        tenant.admin.call("site.create", s.CreateSite(url=url, owner=f"{owner}@{tenant.domain}", private=True))
    # What was: another folder A with an x in it; the second x; a file that is gone since; other bytes of the same size in one and large.
    scene.put(X, b"the x of a folder that has another name now")
    scene.eldest = scene.rows()
    scene.client().call("site.mv", s.MoveFile(site=PLANS, path="/A", to="/was A"))
    scene.put(GONE, b"gone")
    _filled(scene, PLANS)
    scene.put(X, b"the second x 0")
    scene.put(ONE, noise("one before", 1000))
    scene.put(LARGE, noise("large before", 4 * MIB + 5))
    scene.past = scene.rows()
    # What is.
    scene.client().call("site.mv", s.MoveFile(site=PLANS, path=TWO, to="/two, moved"))
    scene.client().call("site.mv", s.MoveFile(site=PLANS, path="/two, moved", to=TWO))
    for path in (X, ONE, LARGE):
        scene.put(path, content(PLANS)[path])
    scene.client().call("site.rm", s.RemoveFile(site=PLANS, path=GONE))
    for url in (BOOKS, ABROAD):
        _filled(scene, url)
    for url in SITES:
        call = call_of(scene, url)
        opened = open_site(world.services, call, url)
        for path in content(url):
            names = [path[:end] for end in range(1, len(path) + 1) if path[end : end + 1] in ("/", "")]
            for name in names:
                scene.ids[url, name] = service.find(world.services, opened, name).id
            node = service.find(world.services, opened, path)
            scene.manifests[url, path] = service.open_file(world.services, call, opened, node).manifest
    scene.keep()
    yield scene
    world.close()


def call_of(scene: Scene, url: str) -> Call:
    person = tenants.impersonate(scene.world.services, "dave@fabrikam.example" if url == ABROAD else "alice@contoso.example")
    return Call(person, str(person.tenant_id), "site.get", "attack")


@pytest.fixture
def scene(made: Scene) -> Iterator[Scene]:
    """The rows are put back after each attack, and nothing else was changed by it."""
    made.world.forget()
    yield made
    made.undo()


PLACE = "object_ref, offset, length"
IN_FOLDER = "parent_id, name_hash"
NAMED = "parent_id, name_hash, sealed_name"
CONTENT = "version, manifest_digest, size"


@dataclass(frozen=True)
class Attack:
    """What is done, and the paths of the first site that must be refused for it, or be gone."""

    do: Callable[[Scene], object]
    hit: tuple[str, ...] = ()
    gone: tuple[str, ...] = ()
    where: str = PLANS


def both(*acts: Callable[[Scene], object]) -> Callable[[Scene], None]:
    def do(scene: Scene) -> None:
        for act in acts:
            act(scene)

    return do


def older(path: str) -> Callable[[Scene], None]:
    """The node and everything it needs, as they were."""

    def do(scene: Scene) -> None:
        scene.put_back("file_nodes", id=scene.ids[PLANS, path])
        scene.put_back("file_versions", node_id=scene.ids[PLANS, path])
        scene.put_back("file_chunks", node_id=scene.ids[PLANS, path])
        with suppress(AssertionError):
            scene.put_back("objects", owner_id=scene.site())

    return do


def gone_again(scene: Scene) -> None:
    """A deleted file, back with all its rows."""
    scene.put_back("file_nodes", id=scene.deleted)
    scene.put_back("file_versions", node_id=scene.deleted)
    scene.put_back("file_chunks", node_id=scene.deleted)


def older_folder(scene: Scene) -> None:
    """The folder that was called A, back under that name, in place of the one that is."""
    (folder,) = [row for row in scene.eldest["file_nodes"] if row["kind"] == "folder"]
    insert(scene.world, "file_nodes", [folder])


def each(table: str, column: str, value: object) -> Callable[[Scene], None]:
    return lambda scene: scene.set(table, {column: value}, {"site_id": scene.site()})


def row_of(scene: Scene, table: str, path: str, url: str = PLANS) -> Row:
    if table == "file_nodes":
        return scene.node(path, url)
    return scene.chunk_row(path, url=url) if table == "file_chunks" else scene.version(path, url=url)


def of(table: str, path: str, column: str, value: object) -> Callable[[Scene], None]:
    """One column of the row of a file."""
    return lambda scene: scene.set(table, {column: value}, row_of(scene, table, path))


def swap(table: str, columns: str, one: str, two: str, url: str = PLANS) -> Callable[[Scene], None]:
    """Columns of the rows of two files, of this site or one here and one there."""
    return lambda scene: scene.swap(table, columns, row_of(scene, table, one), row_of(scene, table, two, url))


def swap_all(tables: tuple[str, ...], url: str) -> Callable[[Scene], None]:
    """All rows of two sites."""

    def do(scene: Scene) -> None:
        one, two = scene.site(), scene.site(url)
        for table in tables:
            for old, new in ((one, "-" * 36), (two, one), ("-" * 36, two)):
                scene.world.sql(f"UPDATE {table} SET site_id = ? WHERE site_id = ?", new, old)  # noqa: S608 - ours
            if table == "file_nodes":
                for old, new in ((one, "-" * 36), (two, one), ("-" * 36, two)):
                    scene.world.sql("UPDATE file_nodes SET parent_id = ? WHERE parent_id = ?", new, old)

    return do


def remove(table: str, path: str) -> Callable[[Scene], object]:
    def do(scene: Scene) -> None:
        (column, value), *rest = row_of(scene, table, path).items()
        scene.world.sql(f"DELETE FROM {table} WHERE {column} = ?", value)  # noqa: S608 - ours
        assert not rest or table == "file_versions"

    return do


def manifest_of(path: str, number: int) -> Callable[[Scene], None]:
    """The manifest of an older version in the current one's row."""
    return lambda scene: scene.take("file_versions", scene.version(path, number), "manifest, size, chunks", scene.version(path))


def digest_of(path: str, of: str = "") -> Callable[[Scene], None]:
    """The node says of the manifest in its current version's row that it is right."""

    def do(scene: Scene) -> None:
        version = scene.version(of or path)
        ((manifest, size),) = scene.world.sql(
            "SELECT manifest, size FROM file_versions WHERE node_id = ? AND number = ?", *version.values()
        )
        scene.set("file_nodes", {"manifest_digest": hashlib.sha256(manifest).digest(), "size": size}, scene.node(path))

    return do


def current_again(path: str, number: int) -> Callable[[Scene], None]:
    def do(scene: Scene) -> None:
        row = scene.version(path, number)
        ((manifest, size),) = scene.world.sql("SELECT manifest, size FROM file_versions WHERE node_id = ? AND number = ?", *row.values())
        values = {"version": number, "manifest_digest": hashlib.sha256(manifest).digest(), "size": size}
        scene.set("file_nodes", values, scene.node(path))

    return do


def twice(scene: Scene) -> None:
    """A copy of a file under another id, beside it."""
    (row,) = [row for row in rows_of(scene.world, "file_nodes") if row["id"] == scene.ids[PLANS, ONE]]
    insert(scene.world, "file_nodes", [{**row, "id": row["id"][:-4] + "0000", "name_hash": bytes(32)}])


def older_chunk(scene: Scene) -> None:
    """The bytes and the key of a chunk of an earlier version, in the row of the one in its place."""
    node, current = scene.ids[PLANS, LARGE], scene.chunk_row(LARGE)
    found = scene.world.sql("SELECT id FROM file_chunks WHERE node_id = ? AND last_version = 2 AND size = ?", node, 4 * MIB)
    scene.take("file_chunks", {"id": found[0][0]}, PLACE + ", wrapped", current)


def in_place_of_another(scene: Scene) -> None:
    """The other tenant's site under this one's URL, tenant, owner and policy."""
    (mine,) = [row for row in rows_of(scene.world, "sites") if row["url"] == PLANS]
    scene.set("sites", {"url": "https://nowhere.example"}, {"id": mine["id"]})
    scene.set("sites", {name: mine[name] for name in ("tenant_id", "url", "policy_id", "owner")}, {"url": ABROAD})


ALL = (X, BEE, LARGE, LARGER, ONE, TWO)
"""Every file with content."""

ATTACKS: dict[str, Attack] = {
    # chunks
    "two chunks of a file in each other's place": Attack(
        lambda scene: scene.swap("file_chunks", PLACE, scene.chunk_row(LARGER, 0), scene.chunk_row(LARGER, 1)), (LARGER,)
    ),
    "two chunks of a file with their keys": Attack(
        lambda scene: scene.swap("file_chunks", PLACE + ", wrapped", scene.chunk_row(LARGER, 0), scene.chunk_row(LARGER, 1)), (LARGER,)
    ),
    "two chunks of a file under each other's id": Attack(
        lambda scene: scene.swap("file_chunks", "id", scene.chunk_row(LARGER, 0), scene.chunk_row(LARGER, 1)), (LARGER,)
    ),
    "the last chunk left out": Attack(
        lambda scene: scene.world.sql("DELETE FROM file_chunks WHERE id = ?", scene.chunk(LARGE, 1)), (LARGE,)
    ),
    "the last chunk left out, and the sizes with it": Attack(
        both(
            lambda scene: scene.world.sql("DELETE FROM file_chunks WHERE id = ?", scene.chunk(LARGE, 1)),
            of("file_versions", LARGE, "size", 4 * MIB),
            of("file_versions", LARGE, "chunks", 1),
            of("file_nodes", LARGE, "size", 4 * MIB),
        ),
        (LARGE,),
    ),
    "an older chunk of the same size": Attack(older_chunk, (LARGE,)),
    "chunks of two files": Attack(swap("file_chunks", PLACE, ONE, TWO), (ONE, TWO)),
    "chunks of two files with their keys": Attack(swap("file_chunks", PLACE + ", wrapped", ONE, TWO), (ONE, TWO)),
    "keys of two chunks": Attack(swap("file_chunks", "wrapped", ONE, TWO), (ONE, TWO)),
    "ids of two files' chunks": Attack(swap("file_chunks", "id", ONE, TWO), (ONE, TWO)),
    "chunks said to be of each other's file": Attack(swap("file_chunks", "node_id", ONE, TWO)),
    "chunks of another site": Attack(swap("file_chunks", PLACE + ", wrapped", ONE, ONE, BOOKS), (ONE,)),
    "chunks of another tenant": Attack(swap("file_chunks", PLACE + ", wrapped", ONE, ONE, ABROAD), (ONE,)),
    "chunk ids of another site": Attack(swap("file_chunks", "id, site_id, node_id", ONE, ONE, BOOKS), (ONE,)),
    "a chunk under a key version that never was": Attack(of("file_chunks", ONE, "key_version", 77), (ONE,)),
    "a chunk one byte later": Attack(of("file_chunks", ONE, "offset", 1), (ONE,)),
    "a chunk before its object": Attack(of("file_chunks", ONE, "offset", -5), (ONE,)),
    "a chunk one byte shorter": Attack(of("file_chunks", ONE, "length", 1059), (ONE,)),
    "a huge chunk": Attack(both(of("file_chunks", ONE, "length", 1 << 50), of("file_chunks", ONE, "size", 1 << 50)), (ONE,)),
    "a chunk whose place is a path": Attack(of("file_chunks", ONE, "object_ref", "../../seals/keystore.master"), (ONE,)),
    "a chunk without an object": Attack(of("file_chunks", ONE, "object_ref", "c0/" + "0" * 32), (ONE,)),
    "a chunk key cut short": Attack(of("file_chunks", ONE, "wrapped", b"KSWK"), (ONE,)),
    "sizes of chunks": Attack(each("file_chunks", "size", 7)),
    "all chunks ended": Attack(each("file_chunks", "last_version", 1)),
    "all chunks succeeded by one": Attack(
        lambda scene: scene.set("file_chunks", {"successor": scene.chunk(TWO)}, {"site_id": scene.site()})
    ),
    # manifests and versions
    "the manifest of an older version": Attack(manifest_of(X, 2), (X,)),
    "the manifest of an older version, its digest in the node": Attack(both(manifest_of(X, 2), digest_of(X)), (X,)),
    "versions with their numbers exchanged": Attack(
        lambda scene: scene.swap("file_versions", "number", scene.version(X, 2), scene.version(X)), (X,)
    ),
    "an older version with the manifest of the current one, and the reverse": Attack(
        lambda scene: scene.swap("file_versions", "manifest, size", scene.version(X, 2), scene.version(X)), (X,)
    ),
    "manifests of two files": Attack(swap("file_versions", "manifest", TWO, BEE), (TWO, BEE)),
    "manifests of two files of one size, their digests in the nodes": Attack(
        both(swap("file_versions", "manifest", FILLERS[0], FILLERS[1]), digest_of(FILLERS[0]), digest_of(FILLERS[1])),
        (FILLERS[0], FILLERS[1]),
    ),
    "versions of two files": Attack(swap("file_versions", "node_id", FILLERS[0], FILLERS[1]), (FILLERS[0], FILLERS[1])),
    "versions and chunks of two files": Attack(
        both(
            swap("file_versions", "node_id", FILLERS[0], FILLERS[1]),
            swap("file_chunks", "node_id", FILLERS[0], FILLERS[1]),
            digest_of(FILLERS[0]),
            digest_of(FILLERS[1]),
        ),
        (FILLERS[0], FILLERS[1]),
    ),
    "the manifest of another site": Attack(both(swap("file_versions", "manifest", TWO, TWO, BOOKS), digest_of(TWO)), (TWO,)),
    "the manifest of another tenant": Attack(both(swap("file_versions", "manifest", TWO, TWO, ABROAD), digest_of(TWO)), (TWO,)),
    "no current version": Attack(remove("file_versions", TWO), (TWO,)),
    "a manifest under a key version that never was": Attack(of("file_versions", TWO, "key_version", 77), (TWO,)),
    "a manifest cut short": Attack(of("file_versions", TWO, "manifest", b"KSOB"), (TWO,)),
    "counts of versions": Attack(each("file_versions", "chunks", 1 << 40)),
    "who wrote, and when": Attack(both(each("file_versions", "created", 0), each("file_versions", "created_by", "eve@contoso.example"))),
    # rolling back
    "the older version current again": Attack(current_again(X, 2), (X,)),
    "the node as it was": Attack(lambda scene: scene.put_back("file_nodes", id=scene.ids[PLANS, X]), (X,)),
    "the node, its versions and chunks as they were": Attack(older(ONE), (ONE,)),
    "a large file as it was": Attack(older(LARGE), (LARGE,)),
    "the tree as it was": Attack(lambda scene: scene.put_back("site_trees", site_id=scene.site()), (X, ONE, LARGE)),
    "a deleted file back": Attack(gone_again, (GONE,)),
    "a deleted file back, in a place beside its own": Attack(
        both(
            gone_again, lambda scene: scene.world.sql("UPDATE file_nodes SET place = (place + 32768) % 65536 WHERE id = ?", scene.deleted)
        ),
        (GONE,),
    ),
    "a file under an id that is none": Attack(lambda scene: scene.set("file_nodes", {"id": "zz" * 18}, scene.node(ONE)), (ONE,)),
    "an older folder in place of the one of its name": Attack(older_folder, (X,)),
    # nodes
    "a file taken away": Attack(remove("file_nodes", ONE), gone=(ONE,)),
    "a folder taken away": Attack(remove("file_nodes", "/A"), gone=(X,)),
    "a file without its version": Attack(of("file_nodes", ONE, "version", 0), (ONE,)),
    "a file emptied": Attack(
        both(of("file_nodes", ONE, "version", 0), of("file_nodes", ONE, "size", 0), of("file_nodes", ONE, "manifest_digest", b"")), (ONE,)
    ),
    "a file twice": Attack(twice, (ONE,)),
    "a file in another folder": Attack(
        lambda scene: scene.set("file_nodes", {"parent_id": scene.ids[PLANS, "/B"]}, scene.node(ONE)), gone=(ONE,)
    ),
    "two files of equal name in each other's folder": Attack(swap("file_nodes", IN_FOLDER, X, BEE), (X, BEE)),
    "the same, with their sealed names": Attack(swap("file_nodes", NAMED, X, BEE), (X, BEE)),
    "two files with their names exchanged": Attack(swap("file_nodes", NAMED, ONE, TWO), (ONE, TWO)),
    "two files with their hashes exchanged": Attack(swap("file_nodes", "name_hash", ONE, TWO), (ONE, TWO)),
    "two files with their content exchanged": Attack(swap("file_nodes", CONTENT, FILLERS[0], FILLERS[1]), (FILLERS[0], FILLERS[1])),
    "two files with their ids exchanged": Attack(swap("file_nodes", "id", ONE, TWO), (ONE, TWO)),
    "two files with their ids and places exchanged": Attack(swap("file_nodes", "id, place", ONE, TWO), (ONE, TWO)),
    "two folders with their hashes exchanged": Attack(swap("file_nodes", "name_hash", "/A", "/B"), (X, BEE)),
    "two folders with their names exchanged": Attack(swap("file_nodes", NAMED, "/A", "/B"), (X, BEE)),
    "a folder called a file": Attack(of("file_nodes", "/A", "kind", "file"), gone=(X,)),
    "a file called a folder": Attack(of("file_nodes", ONE, "kind", "folder"), gone=(ONE,)),
    "a node of another site": Attack(swap("file_nodes", "id, place", ONE, ONE, BOOKS), (ONE,)),
    "content of another site": Attack(swap("file_nodes", CONTENT, ONE, ONE, BOOKS), (ONE,)),
    "places of no bucket": Attack(each("file_nodes", "place", 70_000), ALL),
    "places before the first": Attack(each("file_nodes", "place", -1), ALL),
    "all in one place": Attack(each("file_nodes", "place", 0), ALL),
    "sizes of files": Attack(of("file_nodes", ONE, "size", 10), (ONE,)),
    "huge sizes": Attack(both(of("file_nodes", ONE, "size", 1 << 60), of("file_versions", ONE, "size", 1 << 60)), (ONE,)),
    "text for bytes": Attack(of("file_nodes", ONE, "name_hash", "text"), gone=(ONE,)),
    "a node under a key version that never was": Attack(of("file_nodes", ONE, "key_version", 77)),
    "times and counts": Attack(both(each("file_nodes", "modified", 1), each("file_nodes", "created", 1), each("file_nodes", "changed", 1))),
    "no properties any more": Attack(each("file_nodes", "properties", b"properties")),
    # sites
    "no tree": Attack(lambda scene: scene.world.sql("DELETE FROM site_trees"), ALL),
    "the tree of another site": Attack(
        lambda scene: scene.take("site_trees", {"site_id": scene.site(BOOKS)}, "sealed", {"site_id": scene.site()}), ALL
    ),
    "a tree under a key version that never was": Attack(each("site_trees", "key_version", 2), ALL),
    "a tree cut short": Attack(each("site_trees", "sealed", b"KSOB"), ALL),
    "keys of two sites": Attack(
        lambda scene: scene.swap("site_keys", "wrapped", {"site_id": scene.site()}, {"site_id": scene.site(BOOKS)}), ALL
    ),
    "keys of two tenants": Attack(
        lambda scene: scene.swap("site_keys", "wrapped", {"site_id": scene.site()}, {"site_id": scene.site(ABROAD)}), ALL
    ),
    "no key": Attack(lambda scene: scene.world.sql("DELETE FROM site_keys WHERE site_id = ?", scene.site()), ALL),
    "another version of the key": Attack(
        both(each("site_keys", "version", 2), lambda scene: scene.set("sites", {"key_version": 2}, {"id": scene.site()})), ALL
    ),
    "all rows of two sites but their keys": Attack(swap_all(("site_trees", "file_nodes", "file_versions", "file_chunks"), BOOKS), gone=ALL),
    "all rows of two sites with their keys": Attack(
        swap_all(("site_keys", "site_trees", "file_nodes", "file_versions", "file_chunks"), BOOKS), ALL
    ),
    "all rows of two tenants' sites": Attack(
        swap_all(("site_keys", "site_trees", "file_nodes", "file_versions", "file_chunks"), ABROAD), ALL
    ),
    "a site in place of another tenant's": Attack(in_place_of_another, ALL),
}


# -- what comes out -------------------------------------------------------------------------------------------------------------------


def look(scene: Scene) -> dict[tuple[str, str], bytes | KeysteadError]:
    """What the owners are shown of their files."""
    shown: dict[tuple[str, str], bytes | KeysteadError] = {}
    for url in SITES:
        for path in [path for path in content(url) if path not in FILLERS or path in SAMPLE or path in FILLERS[:2]] + [GONE]:
            try:
                shown[url, path] = scene.read(path, url)
            except KeysteadError as error:
                shown[url, path] = error
    return shown


def in_batch(scene: Scene, nodes: list[str]) -> dict[str, bytes | None] | KeysteadError:
    """What is shown to who asks for files by their ids; None for what is gone."""
    try:
        found: Content = scene.client(PLANS).call("site.get-batch", s.GetBatch(site=PLANS, files=nodes))
        parts = frames.split(found.chunks, largest=MAX_BATCH_FILE)
        return {node: None if data is None else b"".join(bytes(piece) for piece in data) for node, data in parts}
    except KeysteadError as error:
        return error


def touched(scene: Scene, before: Rows, after: Rows) -> set[tuple[str, str]]:
    """The files of which any row, or any row of their buckets or of their site as a whole, is another than before."""

    def changed(table: str) -> list[Row]:
        was, now = ({tuple(row.items()) for row in rows[table]} for rows in (before, after))
        return [dict(row) for row in was ^ now]

    sites = {row.get("site_id", row.get("id")) for table in ("sites", "site_keys", "site_trees") for row in changed(table)}
    nodes = {row["id"] for row in changed("file_nodes")} | {row["node_id"] for row in changed("file_versions")}
    chunks = {row["id"] for row in changed("file_chunks")}
    bits = {row["site_id"]: ((len(row["sealed"]) - 62) // 16).bit_length() - 1 for row in before["site_trees"]}
    site_of = {row["id"]: row["site_id"] for row in before["file_nodes"]}
    site_of |= {row["id"]: row["site_id"] for row in after["file_nodes"] if row["id"] not in site_of}
    buckets = {
        (site, place >> (16 - bits[site]))
        for row in changed("file_nodes")
        for site in {row["site_id"], site_of[row["id"]]} & bits.keys()
        for place in (place_of(row["id"]), row["place"])
        if isinstance(place, int)
    }
    found = set()
    for (url, path), manifest in scene.manifests.items():
        (site,) = {row["id"] for row in before["sites"] if row["url"] == url}
        way = scene.way(path, url)
        mine = {(site, place_of(node) >> (16 - bits[site])) for node in way}
        if site in sites or nodes & set(way) or mine & buckets or chunks & {entry.chunk_id for entry in manifest.entries}:
            found.add((url, path))
    return found


def shows_only_what_is(scene: Scene, shown: dict[tuple[str, str], bytes | KeysteadError]) -> None:
    for (url, path), outcome in shown.items():
        if isinstance(outcome, bytes):
            assert outcome == content(url).get(path), f"{url} {path}"
        else:
            assert isinstance(outcome, IntegrityFailure | NotFound), f"{url} {path}: {outcome}"
            assert isinstance(outcome, NotFound) or outcome.code in REFUSED, f"{url} {path}: {outcome}"


def test_everything_is_there_before(scene: Scene) -> None:
    """The tree has several buckets, and all of it opens."""
    shown = look(scene)
    assert {key: data for key, data in shown.items() if isinstance(data, bytes)} == {
        (url, path): data for url in SITES for path, data in content(url).items() if (url, path) in shown
    }
    assert {key[1] for key, outcome in shown.items() if isinstance(outcome, NotFound)} == {GONE}
    ((sealed,),) = scene.world.sql("SELECT sealed FROM site_trees WHERE site_id = ?", scene.site())
    assert len(sealed) == 62 + 16 * 8 == 62 + (16 << bits_for(2 * len(content(PLANS))))


@pytest.mark.parametrize("name", ATTACKS)
def test_a_file_is_what_it_is_or_refused_R_111(scene: Scene, name: str) -> None:
    """R-111: whatever is changed in the database, nobody is shown bytes that are not that file's now; what was not touched opens."""
    attack, before = ATTACKS[name], scene.rows()
    attack.do(scene)
    reach = touched(scene, before, scene.rows())
    shown = look(scene)
    shows_only_what_is(scene, shown)
    for path in attack.hit:
        assert isinstance(shown[PLANS, path], IntegrityFailure), f"{path} was not refused"
    for path in attack.gone:
        assert isinstance(shown[PLANS, path], IntegrityFailure | NotFound), f"{path} was not refused"
    for key, outcome in shown.items():
        if key[1] != GONE and (key not in reach or not (attack.hit or attack.gone)):
            assert outcome == content(key[0])[key[1]], f"{key} was not touched: {outcome!r:.80}"


@pytest.mark.parametrize("name", ATTACKS)
def test_a_file_in_a_batch_is_what_it_is_or_refused_R_111(scene: Scene, name: str) -> None:
    """R-111: by the ids of a listing nobody is shown more than by a path, one file at a time or all at once."""
    ATTACKS[name].do(scene)
    paths = {scene.ids[PLANS, path]: path for path in (X, BEE, LARGE, LARGER, ONE, TWO, EMPTY, *FILLERS[:2], *SAMPLE)} | {
        scene.deleted: GONE
    }
    alone = {path: in_batch(scene, [node]) for node, path in paths.items()}
    together = in_batch(scene, list(paths))
    for path in ATTACKS[name].hit:
        outcome = alone[path]
        assert not isinstance(outcome, dict) or set(outcome.values()) == {None}, f"{path} was not refused"
    for outcome in (*alone.values(), together):
        if isinstance(outcome, dict):
            assert all(data in (None, content(PLANS).get(paths[node])) for node, data in outcome.items())
        else:
            assert isinstance(outcome, IntegrityFailure | NotFound)
            assert isinstance(outcome, NotFound) or outcome.code in REFUSED, outcome


# -- what is written afterwards ---------------------------------------------------------------------------------------------------------


WRITES: dict[str, Callable[[Scene], object]] = {
    "the file anew": lambda scene: scene.put(X, b"written anew"),
    "another file beside it": lambda scene: scene.put("/A/beside", b"beside"),
    "a part of it": lambda scene: scene.client().call(
        "site.put", s.UploadFile(site=PLANS, path=X, offset=0), upload=Upload(3, io.BytesIO(b"new").read)
    ),
    "a batch": lambda scene: scene.client().call(
        "site.put-batch",
        s.UploadBatch(site=PLANS, files=[s.BatchFile(path="/A/one of many", data=b"new"), s.BatchFile(path=X, data=b"new")]),
    ),
    "a folder in its folder": lambda scene: scene.client().call("site.mkdir", s.MakeFolder(site=PLANS, path="/A/inside")),
    "its name": lambda scene: scene.client().call("site.mv", s.MoveFile(site=PLANS, path=X, to="/A/y.txt")),
    "its folder's name": lambda scene: scene.client().call("site.mv", s.MoveFile(site=PLANS, path="/A", to="/Y")),
    "another into its place": lambda scene: scene.client().call("site.mv", s.MoveFile(site=PLANS, path=ONE, to=X, replace=True)),
    "nothing any more": lambda scene: scene.client().call("site.rm", s.RemoveFile(site=PLANS, path="/A", recursive=True)),
    "an older version": lambda scene: scene.client().call("site.restore-version", s.RestoreVersion(site=PLANS, path=X, version=1)),
}


BESIDE = {"another file beside it", "a folder in its folder", "its folder's name"}
"""What touches the bucket of its own new node, and its folder's, not that of the file."""


@pytest.mark.parametrize(
    ("name", "write"),
    [("the node as it was", write) for write in WRITES if write not in BESIDE]
    + [("two folders with their names exchanged", write) for write in WRITES],
)
def test_nothing_that_is_written_makes_good_what_was_done_R_111(scene: Scene, name: str, write: str) -> None:
    """R-111: a change of a bucket that does not match, or by a path that leads over one, is refused and changes no row."""
    ATTACKS[name].do(scene)
    before = scene.rows()
    with pytest.raises(IntegrityFailure, match="file_rolled_back"):
        WRITES[write](scene)
    assert {table: rows for table, rows in scene.rows().items() if table != "objects"} == {
        table: rows for table, rows in before.items() if table != "objects"
    }


def test_once_the_rows_are_as_they_were_all_is_well(scene: Scene) -> None:
    """A bucket that does not match is refused until its rows are back: there is nothing else to mend."""
    older(X)(scene)
    with pytest.raises(IntegrityFailure, match=f"file_rolled_back: .*{scene.site()}.*{scene.ids[PLANS, X]}"):
        scene.read(X)
    scene.undo()
    assert scene.read(X) == content(PLANS)[X]
    scene.put(X, b"the fourth x")
    assert scene.read(X) == b"the fourth x"


def test_an_error_names_file_and_chunk_R_112(scene: Scene) -> None:
    """R-112: which part of which version is not what was written; what comes before it may have been given out."""
    scene.take("file_chunks", scene.chunk_row(LARGER, 0), PLACE, scene.chunk_row(LARGER, 1))
    node, chunk = scene.ids[PLANS, LARGER], scene.chunk(LARGER, 1)
    with pytest.raises(IntegrityFailure, match=f"file_damaged: the file {node} version 1, chunk 1 .*{chunk}.* is not what was written"):
        scene.read(LARGER)
    found: Content = scene.client().call("site.get", s.DownloadFile(site=PLANS, path=LARGER, length=4 * MIB))
    assert b"".join(found.chunks) == content(PLANS)[LARGER][: 4 * MIB]


def test_older_versions_are_what_they_were_or_refused(scene: Scene) -> None:
    """A version that is not the current one is bound to its number: no other version's bytes come out under it."""
    versions = {1: b"the third x 0", 2: b"the second x 0", 3: b"the third x 0"}
    assert {number: scene.read(X, version=number) for number in versions} == versions
    scene.swap("file_versions", "manifest, size, chunks", scene.version(X, 1), scene.version(X, 2))
    for number in (1, 2):
        with pytest.raises(IntegrityFailure, match=f"file_damaged: the file {scene.ids[PLANS, X]} version {number} is not"):
            scene.read(X, version=number)
    scene.undo()
    scene.swap("file_versions", "number", scene.version(X, 1), scene.version(X, 2))
    for number in (1, 2):
        with pytest.raises(IntegrityFailure, match="file_damaged"):
            scene.read(X, version=number)
    assert scene.read(X) == versions[3]


def test_a_listing_shows_no_name_that_is_not_the_nodes_R_114(scene: Scene) -> None:
    """R-114: names are sealed, each for its node, and fit the folder and the hash they are found by."""
    top = scene.names("")
    for columns in ("sealed_name", "name_hash, sealed_name", "parent_id, name_hash, sealed_name", "parent_id, name_hash"):
        scene.swap("file_nodes", columns, scene.node(X), scene.node(ONE))
        for path in ("", "/A"):
            with pytest.raises(IntegrityFailure, match=r"file_damaged: the file .* \(its name\) is not what was written"):
                scene.names(path)
        scene.undo()
    scene.set("file_nodes", {"parent_id": scene.ids[PLANS, "/B"]}, scene.node(X))
    with pytest.raises(IntegrityFailure, match="file_damaged"):
        scene.names("/B")
    scene.undo()
    assert scene.names("") == top


# -- what is not noticed ----------------------------------------------------------------------------------------------------------------


def test_a_whole_site_of_an_earlier_day_is_that_site_on_that_day(scene: Scene) -> None:
    """docs/spec/files.md section 5, docs/limitations.md: all rows with their tree. The only way back that opens everything."""
    for table in TABLES:
        scene.world.sql(f"DELETE FROM {table}")  # noqa: S608 - ours
        insert(scene.world, table, scene.past[table])
    assert scene.read(X) == b"the second x 0"
    assert scene.read(ONE) == noise("one before", 1000)
    assert scene.read(GONE) == b"gone"


def bound(node: Row | None) -> list[Any]:
    """What the tree holds of a node."""
    return [node[name] for name in ("parent_id", "kind", "name_hash", "version", "manifest_digest")] if node else []


def test_part_of_a_site_with_its_tree_opens_as_it_was_and_the_rest_does_not(scene: Scene) -> None:
    """The same section: files of the buckets that are put back whole open; those of all others in which anything changed since do not."""
    now = {row["id"]: row for row in rows_of(scene.world, "file_nodes") if row["site_id"] == scene.site()}
    past = {row["id"]: row for row in scene.past["file_nodes"] if row["site_id"] == scene.site()}
    back = place_of(scene.ids[PLANS, X]) >> 13
    others = {place_of(node) >> 13 for node in now.keys() | past.keys() if bound(now.get(node)) != bound(past.get(node))} - {back}
    scene.put_back("site_trees", site_id=scene.site())
    scene.world.sql("DELETE FROM file_nodes WHERE site_id = ? AND place >> 13 = ?", scene.site(), back)
    insert(scene.world, "file_nodes", [row for row in past.values() if row["place"] >> 13 == back])
    before = content(PLANS) | {X: b"the second x 0", ONE: noise("one before", 1000), LARGE: noise("large before", 4 * MIB + 5)}
    for (url, path), outcome in look(scene).items():
        if url == PLANS and path != GONE:
            buckets = {place_of(node) >> 13 for node in scene.way(path)}
            if buckets & others:
                assert isinstance(outcome, IntegrityFailure)
            else:
                assert outcome == (before if place_of(scene.ids[PLANS, path]) >> 13 == back else content(PLANS))[path]


def test_properties_of_a_node_may_be_those_of_another_day_but_not_of_another_node(scene: Scene) -> None:
    """The same section: they are bound to their node, not to the tree."""
    world, call = scene.world, call_of(scene, PLANS)
    opened = open_site(world.services, call, PLANS, change=True)
    for path, data in ((ONE, b"first"), (TWO, b"of two")):
        service.set_properties(world.services, call, opened, path, data)
    ((first,),) = world.sql("SELECT properties FROM file_nodes WHERE id = ?", scene.ids[PLANS, ONE])
    service.set_properties(world.services, call, opened, ONE, b"second")

    def shown() -> bytes:
        return service.properties(opened, service.find(world.services, opened, ONE))

    assert shown() == b"second"
    scene.set("file_nodes", {"properties": first}, scene.node(ONE))
    assert shown() == b"first"
    scene.swap("file_nodes", "properties", scene.node(ONE), scene.node(TWO))
    with pytest.raises(IntegrityFailure, match=r"file_damaged: the file .* \(its properties\) is not"):
        shown()
    assert scene.read(ONE) == content(PLANS)[ONE]
