"""`keystead site`: copying in and out, shapes of answers, and servers that are not to be trusted."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import pytest

from cli.fake import WHEN, Cli, FakeService, in_turn
from keystead import direct_io
from keystead.api import frames
from keystead.api.call import Content
from keystead.api.routes import BY_NAME
from keystead.api.types import sites as t
from keystead.client import site_files
from keystead.client.http import HttpTransport
from keystead.client.site_files import get_tree, list_tree, put_tree
from keystead.core.errors import Conflict, IntegrityFailure, InvalidRequest, NotFound, Unavailable
from keystead.core.stores.files import MAX_BATCH_FILE
from support.world import World

if TYPE_CHECKING:
    from collections.abc import Iterator

    from keystead.cli.options import GlobalOptions
    from keystead.client.client import Client

URL = "https://contoso.example/sites/plans"
MIB = 1024 * 1024
ADMIN = "admin@contoso.example"


class Real(FakeService):
    """A real installation in place of answers, called as its administrator."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self.world = world

    def connect(self, options: GlobalOptions) -> Real:
        self.options = options
        return self

    def client(self, tenant: str) -> Client:
        return self.world.as_person(ADMIN)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    (tmp_path / "world").mkdir()
    world = World(tmp_path / "world")
    world.tenant(ready=False)
    world.as_person(ADMIN).call("site.create", t.CreateSite(url=URL))
    yield world
    world.close()


@pytest.fixture
def site(world: World, capsys: pytest.CaptureFixture[str]) -> Cli:
    return Cli(Real(world), capsys)


def tree(folder: Path) -> dict[str, bytes]:
    """What is in a folder: bytes of files, by their names below it."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def local(tmp_path: Path) -> Path:
    """Small files, middle ones, a large one, an empty one, folders with and without anything, links, a time in the past."""
    folder = tmp_path / "local"
    (folder / "a" / "b").mkdir(parents=True)
    (folder / "empty folder").mkdir()
    for number in range(30):
        (folder / "a" / f"{number} é.txt").write_bytes(os.urandom(number * 100))
    (folder / "a" / "b" / "large.bin").write_bytes(os.urandom(5 * 1024 * 1024 + 3))
    (folder / "a" / "b" / "middle.bin").write_bytes(os.urandom(site_files.SMALL_FILE))
    (folder / "a" / "b" / "larger.bin").write_bytes(os.urandom(site_files.BATCHED_FILE + 1))
    (folder / "a" / "link").symlink_to(folder / "a" / "1 é.txt")
    (folder / "a" / "outside").symlink_to("/etc")
    os.mkfifo(folder / "pipe")
    os.utime(folder / "a" / "b" / "large.bin", ns=(1_600_000_000_123_000_000, 1_600_000_000_123_000_000))
    return folder


# -- in and out -------------------------------------------------------------------------------------------------------------------------


def test_a_tree_goes_in_and_comes_out_the_same_with_its_times(site: Cli, local: Path, tmp_path: Path) -> None:
    put = site("site", "put", URL, str(local), "copy/of", "--recursive", "--json")
    files = {name: path for name, path in tree(local).items() if "link" not in name}
    size = sum(map(len, files.values()))
    assert put.document == {"uploaded": 33, "unchanged": 0, "files": 33, "bytes": size, "skipped": 3, "refused": []}
    again = site("site", "put", URL, str(local), "copy/of", "--recursive", "--json")
    assert (again.document["uploaded"], again.document["unchanged"]) == (0, 33)
    out = tmp_path / "out"
    got = site("site", "get", URL, "copy", "--output", str(out), "--recursive", "--json")
    assert got.document == {"output": str(out), "files": 33, "folders": 4, "bytes": size}
    assert tree(out / "of") == files
    assert (out / "of" / "empty folder").is_dir()
    assert (out / "of" / "a" / "b" / "large.bin").stat().st_mtime_ns == 1_600_000_000_123_000_000
    assert {stat.S_IMODE(path.stat().st_mode) for path in out.rglob("*")} == {0o600, 0o700}
    assert not [name for name in tree(out) if name.endswith(".tmp")]


def test_one_file_goes_in_and_comes_out(site: Cli, tmp_path: Path) -> None:
    source, target = tmp_path / "plan.txt", tmp_path / "out.txt"
    source.write_bytes(b"first")
    assert site("site", "put", URL, str(source), "--json").document["path"] == "/plan.txt"
    assert site("site", "put", URL, str(source), "drafts/", "--json").document["path"] == "/drafts/plan.txt"
    entry = site("site", "put", URL, str(source), "drafts/other.txt", "--json").document
    assert (entry["name"], entry["version"], entry["size_bytes"], entry["kind"], entry["unchanged"]) == ("other.txt", 1, 5, "file", False)
    source.write_bytes(b"second")
    site("site", "put", URL, str(source))
    got = site("site", "get", URL, "plan.txt", "--output", str(target), "--json")
    assert (got.document["output"], target.read_bytes()) == (str(target), b"second")
    assert site("site", "get", URL, "plan.txt", "--output", str(target)).err.startswith("error: file_exists")
    site("site", "get", URL, "plan.txt", "--output", str(target), "--version", "1", "--yes")
    assert target.read_bytes() == b"first"
    (tmp_path / "folder").mkdir()
    site("site", "get", URL, "drafts/other.txt", "--output", str(tmp_path / "folder"))
    assert (tmp_path / "folder" / "other.txt").read_bytes() == b"first"


def test_lists_are_arrays_of_entries(site: Cli, local: Path) -> None:
    site("site", "put", URL, str(local), "--recursive")
    found = site("site", "ls", URL, "--json").document
    assert [(one["name"], one["path"], one["kind"]) for one in found] == [
        ("a", "/a", "folder"),
        ("empty folder", "/empty folder", "folder"),
    ]
    assert found[0].keys() == {"name", "path", "kind", "size_bytes", "modified", "version", "id", "unchanged"}
    everything = site("site", "ls", URL, "--recursive", "--json").document
    assert [one["path"] for one in everything][:2] == ["/a", "/a/0 é.txt"]
    assert len(everything) == 36
    large = site("site", "ls", URL, "a/b/large.bin", "--json").document
    assert [(one["path"], one["modified"]) for one in large] == [("/a/b/large.bin", "2020-09-13T12:26:40.123000Z")]
    assert "/a/b/large.bin" in site("site", "ls", URL, "a/b").out


def test_files_and_folders_are_moved_deleted_and_brought_back(site: Cli, tmp_path: Path) -> None:
    source = tmp_path / "f"
    for text in (b"one", b"two"):
        source.write_bytes(text)
        site("site", "put", URL, str(source), "d/f")
    assert [one["number"] for one in site("site", "versions", URL, "d/f", "--json").document] == [2, 1]
    assert site("site", "restore-version", URL, "d/f", "--version", "1", "--json").document["version"] == 3
    assert site("site", "mkdir", URL, "e", "--json").document["kind"] == "folder"
    assert site("site", "mv", URL, "d/f", "e/g", "--json").document["path"] == "/e/g"
    assert site("site", "rm", URL, "e").err.startswith("error: confirmation_needed")
    assert site("site", "rm", URL, "e", "--yes").err.startswith("error: folder_not_empty")
    assert site("site", "rm", URL, "e", "--recursive", "--yes", "--json").document["files"] == 1
    assert [one["path"] for one in site("site", "ls", URL, "--json").document] == ["/d"]


def test_sites_and_members_are_shown_and_changed(site: Cli) -> None:
    made = site("site", "create", "https://contoso.example/personal/admin", "--kind", "onedrive", "--geo", "EUR", "--json").document
    assert (made["kind"], made["shared"], made["owner"]) == ("onedrive", False, ADMIN)
    assert len(site("site", "list", "--json").document) == 2
    assert site("site", "set", URL, "--private", "--quota", "5", "--json").document["quota_bytes"] == 5
    assert site("site", "set", URL).err.startswith("error: usage")
    assert site("site", "member", "add", URL, ADMIN, "--json").document["members"] == [ADMIN]
    assert site("site", "member", "list", URL, "--json").document["shared"] is False
    assert site("site", "member", "remove", URL, ADMIN, "--json").document["members"] == []
    assert site("site", "unlock", URL, "--json").document == {"url": URL, "locks": 0}
    assert site("site", "status", URL).err.startswith("error: customer_key_not_set_up")
    assert site("site", "delete", URL).err.startswith("error: confirmation_needed")
    assert site("site", "delete", URL, "--yes").code == 0


def test_what_if_changes_nothing(site: Cli, local: Path) -> None:
    said = site("site", "put", URL, str(local), "--recursive", "--what-if", "--json")
    assert said.code == 0
    assert site("site", "ls", URL, "--json").document == []


def test_local_names_that_no_file_of_a_site_has_are_left_out_and_told(site: Cli, tmp_path: Path) -> None:
    folder = tmp_path / "odd"
    folder.mkdir()
    (folder / "good").write_bytes(b"x")
    (folder / "line\nfeed").write_bytes(b"x")
    (folder / os.fsdecode(b"not-utf8-\xff")).write_bytes(b"x")
    result = site("site", "put", URL, str(folder), "--recursive", "--json")
    assert result.code == 3
    assert sorted(one["reason"] for one in result.document["refused"]) == ["path_invalid", "path_invalid"]
    assert [one["path"] for one in site("site", "ls", URL, "--json").document] == ["/good"]


def test_a_link_is_followed_only_where_it_was_named_itself(site: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also when it takes a file's place after the folder was read."""
    (tmp_path / "secret").write_bytes(b"secret")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "link").symlink_to(tmp_path / "secret")
    assert site("site", "put", URL, str(tmp_path / "folder" / "link"), "named", "--json").document["size_bytes"] == 6
    monkeypatch.setattr(site_files, "_walk", lambda _local, _skipped: iter([(("link",), str(tmp_path / "folder" / "link"), 6)]))
    assert site("site", "put", URL, str(tmp_path / "folder"), "--recursive").err.startswith("error: file_unreadable")
    assert [one["path"] for one in site("site", "ls", URL, "--json").document] == ["/named"]


def test_what_is_no_file_or_folder_is_said(site: Cli, tmp_path: Path) -> None:
    assert site("site", "put", URL, str(tmp_path / "none")).err.startswith("error: file_unreadable")
    assert site("site", "put", URL, str(tmp_path / "none"), "--recursive").err.startswith("error: file_unreadable")
    assert site("site", "put", URL, str(tmp_path)).err.startswith("error: file_unreadable")
    assert site("site", "put", URL, "/dev/null", "x").err.startswith("error: file_unreadable")
    assert site("site", "get", URL, "none", "--output", str(tmp_path / "x")).err.startswith("error: file_not_found")
    assert not (tmp_path / "x").exists()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").touch()
    assert site("site", "get", URL, "", "--output", str(tmp_path / "full"), "--recursive").err.startswith("error: folder_not_empty")


# -- batches ------------------------------------------------------------------------------------------------------------------------------


def test_small_files_travel_in_bounded_batches(service: FakeService, tmp_path: Path) -> None:
    for number in range(25):
        (tmp_path / f"{number}").write_bytes(bytes(900 * 1024))
    service.answers["site.put-batch"] = lambda request: t.BatchResult(
        uploaded=len(request.files), unchanged=0, size_bytes=sum(len(one.data) for one in request.files)
    )
    done: list[float] = []
    result = put_tree(service.client(""), URL, tmp_path, "in", done.append)
    assert (result.files, result.bytes, done[-1]) == (25, 25 * 900 * 1024, 25 * 900 * 1024)
    assert all(sum(len(one.data) for one in asked.request.files) <= service.batch_bytes for asked in service.asked)
    assert len(service.asked) == 2


@pytest.mark.parametrize(
    ("route", "size"),
    [("site.put-batch", HttpTransport.batch_bytes), ("site.get-batch", site_files.GET_BYTES + site_files.BATCHED_FILE)],
)
def test_batches_go_over_a_slow_line_in_the_time_their_calls_have(route: str, size: int) -> None:
    """Of 500 kbit/s, which all batches under way share: the time of a call counts from its head to the last byte of its body or answer."""
    assert size * 8 / 500_000 < BY_NAME[route].timeout


# -- servers that are not to be trusted -----------------------------------------------------------------------------------------------------


def view(name: str, kind: str = "file", size: int = 1, path: str = "") -> t.FileView:
    return t.FileView(
        name=name, path=path or f"/{name}", kind=kind, size_bytes=size, modified=WHEN, version=1, id="11111111-1111-4111-8111-111111111111"
    )


@pytest.mark.parametrize("name", ["../up", "..", ".", "/etc/passwd", "a/b", "nul\0", "", "line\nfeed", "\x1b[2J"])
def test_names_of_a_server_never_lead_out_of_the_folder(service: FakeService, tmp_path: Path, name: str) -> None:
    service.answers |= {"site.ls": [view(name)], "site.get": Content(1, "x", iter([b"x"]))}
    with pytest.raises(IntegrityFailure) as caught:
        get_tree(service.client(""), URL, "", tmp_path / "out")
    assert caught.value.code == "file_name_invalid"
    with pytest.raises(IntegrityFailure):
        list(list_tree(service.client(""), URL, ""))
    assert tree(tmp_path) == {}


def test_a_path_that_is_not_where_it_was_asked_for_is_not_written(service: FakeService, tmp_path: Path) -> None:
    service.answers |= {"site.ls": [view("good", path="/../../bad")]}
    with pytest.raises((IntegrityFailure, InvalidRequest)):
        get_tree(service.client(""), URL, "", tmp_path / "out")
    assert tree(tmp_path) == {}


def test_a_link_in_the_output_is_not_followed(site: Cli, tmp_path: Path) -> None:
    outside, out = tmp_path / "outside", tmp_path / "out"
    outside.mkdir()
    out.mkdir()
    (tmp_path / "src").write_bytes(b"new")
    site("site", "put", URL, str(tmp_path / "src"), "d/f")
    site("site", "put", URL, str(tmp_path / "src"), "top")
    (outside / "kept").write_bytes(b"old")
    (out / "top").symlink_to(outside / "kept")
    (out / "d").symlink_to(outside)
    result = site("site", "get", URL, "", "--output", str(out), "--recursive", "--yes")
    assert result.err.startswith("error: file_name_invalid")
    assert tree(outside) == {"kept": b"old"}
    (out / "d").unlink()
    assert site("site", "get", URL, "", "--output", str(out), "--recursive", "--yes").code == 0
    assert (tree(outside), (out / "top").read_bytes(), (out / "top").is_symlink()) == ({"kept": b"old"}, b"new", False)


@pytest.fixture(params=[False, True], ids=["here", "beside"])
def beside(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether another process writes even the first file."""
    if request.param:
        monkeypatch.setattr(site_files, "BESIDE_FILES", 0)
        monkeypatch.setattr(os, "sched_getaffinity", lambda _process: {0, 1})


@pytest.mark.usefixtures("beside")
def test_what_breaks_off_leaves_no_file(service: FakeService, tmp_path: Path) -> None:
    def broken() -> Iterator[bytes]:
        yield b"first"
        raise Unavailable("answer_lost", "gone", "")

    service.answers |= {
        "site.ls": in_turn([view("large", size=site_files.BATCHED_FILE + 1)]),
        "site.get": lambda _request: Content(site_files.BATCHED_FILE + 1, "x", broken()),
    }
    with pytest.raises(Unavailable):
        get_tree(service.client(""), URL, "", tmp_path / "out")
    assert tree(tmp_path) == {}


@pytest.mark.usefixtures("beside")
@pytest.mark.parametrize(
    "answer",
    [
        b"short",
        frames.head("22222222-2222-4222-8222-222222222222", 1) + b"x",
        frames.head("11111111-1111-4111-8111-111111111111", 10) + b"short",
        frames.head("11111111-1111-4111-8111-111111111111", MAX_BATCH_FILE + 1),
    ],
)
def test_frames_that_were_not_asked_for_or_are_not_whole_are_refused(service: FakeService, tmp_path: Path, answer: bytes) -> None:
    service.answers |= {"site.ls": in_turn([view("f")]), "site.get-batch": Content(len(answer), "x", iter([answer]))}
    with pytest.raises((IntegrityFailure, Unavailable)):
        get_tree(service.client(""), URL, "", tmp_path / "out")
    assert tree(tmp_path) == {}


@pytest.mark.usefixtures("beside")
def test_an_answer_that_breaks_off_leaves_whole_files_alone(service: FakeService, tmp_path: Path) -> None:
    """Those that were whole are there; of the one it broke off in there is nothing."""
    ids = [f"{number:08x}-1111-4111-8111-111111111111" for number in range(3)]
    views = [msgspec.structs.replace(view(f"f{number}", size=3 * MIB), id=name) for number, name in enumerate(ids)]

    def broken() -> Iterator[bytes]:
        for number, name in enumerate(ids[:2]):
            yield frames.head(name, 3 * MIB) + bytes([number]) * (3 * MIB)
        yield frames.head(ids[2], 3 * MIB) + b"begun"
        raise Unavailable("answer_lost", "gone", "")

    service.answers |= {"site.ls": in_turn(views), "site.get-batch": Content(9 * MIB + 60, "x", broken())}
    with pytest.raises(Unavailable):
        get_tree(service.client(""), URL, "", tmp_path / "out")
    assert tree(tmp_path / "out") == {"f0": bytes(3 * MIB), "f1": b"\1" * (3 * MIB)}


def test_a_disk_that_is_full_is_said_whatever_the_size_of_the_file(
    service: FakeService, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_descriptor: int, _data: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(direct_io, "write", full)
    for size in (1, 3 * MIB):
        answer = frames.head("11111111-1111-4111-8111-111111111111", size) + bytes(size)
        service.answers |= {"site.ls": in_turn([view("f", size=size)]), "site.get-batch": Content(len(answer), "x", iter([answer]))}
        with pytest.raises(InvalidRequest) as caught:
            get_tree(service.client(""), URL, "", tmp_path / f"{size}")
        assert caught.value.code == "file_unwritable"
        assert tree(tmp_path / f"{size}") == {}


@pytest.mark.usefixtures("beside")
def test_a_file_that_grew_or_went_since_it_was_listed_is_fetched_by_itself_or_passed_over(service: FakeService, tmp_path: Path) -> None:
    gone = frames.head("11111111-1111-4111-8111-111111111111", frames.GONE)
    service.answers |= {
        "site.ls": in_turn([view("f")]),
        "site.get-batch": Content(len(gone), "x", iter([gone])),
        "site.get": Content(3, "x", iter([b"new"])),
    }
    told: list[float] = []
    result = get_tree(service.client(""), URL, "", tmp_path / "out", on_progress=told.append)
    assert (result.files, result.bytes, tree(tmp_path / "out")) == (1, 3, {"f": b"new"})
    assert told == [view("f").size_bytes], "what was told of with its batch is not told of again"


def test_where_another_process_cannot_be_started_files_are_written_all_the_same(
    service: FakeService, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A limit on the size of files, for one, is one on the memory that both would share."""

    def limited(_descriptor: int, _size: int) -> None:
        raise OSError(errno.EFBIG, "File too large")

    monkeypatch.setattr(site_files, "BESIDE_FILES", 0)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _process: {0, 1})
    monkeypatch.setattr(os, "ftruncate", limited)
    one = frames.head("11111111-1111-4111-8111-111111111111", 1) + b"x"
    service.answers |= {"site.ls": in_turn([view("f")]), "site.get-batch": Content(len(one), "x", iter([one]))}
    descriptors = Path("/proc/self/fd")
    open_before = len(list(descriptors.iterdir()))
    assert get_tree(service.client(""), URL, "", tmp_path / "out").files == 1
    assert (tree(tmp_path / "out"), len(list(descriptors.iterdir()))) == ({"f": b"x"}, open_before)


@pytest.mark.usefixtures("beside")
def test_files_that_go_while_a_copy_is_under_way_are_passed_over(service: FakeService, tmp_path: Path) -> None:
    """Before they are read, or in the middle; the others come, and are counted."""
    ids = [f"{number:08x}-1111-4111-8111-111111111111" for number in range(4)]
    views = [msgspec.structs.replace(view(f"f{number}"), id=name) for number, name in enumerate(ids)]

    def going() -> Iterator[bytes]:
        yield b"half"
        raise NotFound("file_not_found", "gone", "")

    def alone(request: t.DownloadFile) -> Content:
        if request.path == "/f0":
            raise NotFound("file_not_found", "gone", "")
        return Content(8, "x", going()) if request.path == "/f1" else Content(4, "x", iter([b"late"]))

    answer = b"".join(frames.head(name, frames.GONE) for name in ids[:2]) + frames.head(ids[3], 1) + b"3"
    service.answers |= {"site.ls": in_turn(views), "site.get-batch": Content(len(answer), "x", iter([answer])), "site.get": alone}
    result = get_tree(service.client(""), URL, "", tmp_path / "out")
    assert (result.files, result.bytes, tree(tmp_path / "out")) == (2, 5, {"f2": b"late", "f3": b"3"})


@pytest.mark.parametrize("size", [1, 7, 19, 20, 21, 1_000])
def test_frames_are_split_whatever_pieces_they_come_in(size: int) -> None:
    ids = [f"{number:08x}-1111-4111-8111-111111111111" for number in range(4)]
    data = [b"", b"x", bytes(300), b"end"]
    whole = b"".join(frames.head(name, len(one)) + one for name, one in zip(ids, data, strict=True))
    pieces = [whole[at : at + size] for at in range(0, len(whole), size)]
    found = [(name, b"".join(parts or ())) for name, parts in frames.split(pieces, largest=300)]
    assert found == list(zip(ids, data, strict=True))


def test_a_folder_that_cannot_be_written_is_said(service: FakeService, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    service.answers["site.ls"] = []
    with pytest.raises(InvalidRequest) as caught:
        get_tree(service.client(""), URL, "", tmp_path / "file")
    assert caught.value.code == "file_unwritable"
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").touch()
    with pytest.raises(Conflict):
        get_tree(service.client(""), URL, "", tmp_path / "full")
