"""A file of 1 GiB put and got back beside `cp`, a tree of 5,000 files beside gocryptfs and rclone's crypt, and memory with 10 GiB.

Whatever is compared ends on the disk: a put is durable when it returns, and every copy is followed by `sync`. What is read is in memory
before, for all sides alike.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks import home as homes
from benchmarks.encrypted_folders import Gocryptfs, Rclone
from benchmarks.timing import (
    MB,
    MIB,
    Figure,
    Plan,
    child,
    copied,
    in_memory,
    interleaved,
    main,
    peak_megabytes,
    seconds,
    settled,
    share,
    spread,
)
from benchmarks.trees import FEW, FILES, same, write_tree

from keystead.api.call import Upload
from keystead.api.types import sites as s
from keystead.client.site_files import get_file, get_tree, put_tree

if TYPE_CHECKING:
    from collections.abc import Iterator

    from keystead.client.client import Client

SHARE_OF_COPY, PEAK_MEGABYTES = 0.6, 300
LARGE = 1024 * MIB
HUGE_TIMES = 10
BLOCK = 16 * MIB
"""Of a put and of a get, as the issue asks."""


def measure(place: Path, plan: Plan) -> list[Figure]:
    trees = _trees(_with_home(place / "trees"), plan)
    shutil.rmtree(place / "trees")
    place = _with_home(place / "large")
    size = LARGE // 16 if plan.quick else LARGE
    large = place / "large.bin"
    _write_random(large, size)
    return [*_large(place, large, plan), *_memory(place, size * HUGE_TIMES), *trees]


def _with_home(place: Path) -> Path:
    place.mkdir()
    with homes.files_home(place / "home"):
        pass
    return place


# -- one large file -------------------------------------------------------------------------------------------------------------------


def _large(place: Path, large: Path, plan: Plan) -> list[Figure]:
    size = large.stat().st_size / MB
    number = 0

    def put() -> float:
        nonlocal number
        number += 1
        settled(place)
        return size / _child(place, "put", str(large), f"large-{number}.bin")["seconds"]

    def get() -> float:
        settled(place)
        taken = _child(place, "get", f"large-{number}.bin", str(place / "back.bin"))["seconds"]
        if _digest(place / "back.bin") != _digest(large):
            raise RuntimeError("what came back is not what was put")
        (place / "back.bin").unlink()
        return size / taken

    def copy() -> float:
        settled(place)
        taken = seconds(lambda: copied(large, place / "copy.bin"))
        (place / "copy.bin").unlink()
        return size / taken

    found = interleaved({"copy": copy, "put": put, "copy again": copy, "get": get}, plan.runs)
    mib = round(size * MB / MIB)
    return [
        _beside_copy(f"put of {mib:,} MiB in writes of 16 MiB, durable when acknowledged", found["put"], found["copy"]),
        _beside_copy(f"get of {mib:,} MiB into a file, on the disk when it ends", found["get"], found["copy again"]),
    ]


def _beside_copy(what: str, ours: list[float], copies: list[float]) -> Figure:
    value, copy = spread("keystead", ours), spread("cp and sync", copies)
    part = share(value, copy)
    return Figure(what, "MB/s", value, f"at least {SHARE_OF_COPY:g} of cp and sync", part >= SHARE_OF_COPY, [copy], f"{part:.2f} of it")


def _memory(place: Path, size: int) -> list[Figure]:
    done = _child(place, "huge", str(size))
    peak = spread("keystead", [done["peak"]])
    what = f"peak memory of putting and getting {round(size / MIB):,} MiB, streamed"
    return [
        Figure(what, "MB", peak, f"under {PEAK_MEGABYTES} MB", peak.high < PEAK_MEGABYTES),
        Figure(f"put of {round(size / MIB):,} MiB, streamed", "MB/s", spread("keystead", [size / MB / done["put"]])),
        Figure(f"get of {round(size / MIB):,} MiB, streamed, kept nowhere", "MB/s", spread("keystead", [size / MB / done["get"]])),
    ]


# -- a tree ---------------------------------------------------------------------------------------------------------------------------


def _trees(place: Path, plan: Plan) -> list[Figure]:
    """Keystead beside the others in the same run. Nothing is removed before all runs are over: for a while after files were removed from
    a disk of ext4, whoever makes files there searches among their places, and would pay for what another removed.
    """
    tree, files = place / "tree", FEW if plan.quick else FILES
    total = write_tree(tree, files)
    puts: dict[str, list[float]] = {}
    gets: dict[str, list[float]] = {}
    unsynced = "rclone, not synced"

    def note(name: str, put: float, get: float) -> None:
        puts.setdefault(name, []).append(total / MB / put)
        gets.setdefault(name, []).append(total / MB / get)

    for number in range(plan.runs):
        in_memory(tree)
        settled(place)
        done = _child(place, "put-tree", str(tree), str(number))
        back = place / f"back-{number}"
        back.mkdir()
        in_memory(place / "home")
        got = _child(place, "get-tree", str(number), str(back / "keystead"))
        _require_same(tree, back / "keystead")
        note("keystead", done["seconds"], got["seconds"])
        if not Gocryptfs.missing():
            folder = Gocryptfs(place / f"gocryptfs-{number}")
            put = folder.put(tree)
            note(Gocryptfs.version(), put, folder.get(back / "gocryptfs"))
            _require_same(tree, back / "gocryptfs")
        if not Rclone.missing():
            remote = Rclone(place / f"rclone-{number}")
            put_alone, put_synced = remote.put(tree)
            get_alone, get_synced = remote.get(back / "rclone")
            _require_same(tree, back / "rclone")
            note(f"{Rclone.version()} crypt", put_synced, get_synced)
            note(unsynced, put_alone, get_alone)
        taken = seconds(partial(copied, tree, back / "copy"))
        note("cp -r and sync, nothing encrypted", taken, taken)
    what = f"a tree of {files:,} files, {total / MB:,.0f} MB"
    missing = "; ".join(filter(None, (Gocryptfs.missing(), Rclone.missing())))
    return [_beside(f"put of {what}, durable", puts, missing), _beside(f"get of {what}, on the disk when it ends", gets, missing)]


def _beside(what: str, found: dict[str, list[float]], missing: str) -> Figure:
    ours = spread("keystead", found["keystead"])
    others = [spread(name, values) for name, values in found.items() if name != "keystead"]
    encrypted = [other for other in others if not other.name.startswith(("cp", "rclone, not"))]
    shares = {other.name: share(ours, other) for other in encrypted}
    note = ", ".join(f"{part:.2f} of {name}" for name, part in shares.items()) + (f" ({missing})" if missing else "")
    reached = all(part > 1 for part in shares.values()) if shares and not missing else None
    return Figure(what, "MB/s", ours, "ahead of gocryptfs and rclone crypt", reached, others, note)


def _require_same(left: Path, right: Path) -> None:
    if not same(left, right):
        raise RuntimeError("the tree that came back is not the one that was put")


# -- in a process of its own ----------------------------------------------------------------------------------------------------------


def _child(place: Path, *arguments: str) -> dict[str, float]:
    answer: dict[str, float] = child("benchmarks.files", "--child", str(place / "home"), *arguments)
    return answer


def _run(path: Path, act: str, arguments: list[str]) -> dict[str, float]:
    with homes.opened(path) as home:
        client = homes.owner(home, homes.SITE_OWNER)
        client.call("site.ls", s.ListFiles(site=homes.SITE))  # the keyring is warm, as a server's is
        if act == "put":
            taken = seconds(lambda: _put(client, Path(arguments[0]), arguments[1]))
        elif act == "get":
            taken = _get(client, arguments[0], Path(arguments[1]))
        elif act == "put-tree":  # into a fresh site, as the others' folders are fresh
            site = f"{homes.SITE}-{arguments[1]}"
            homes.admin(home).call("site.create", s.CreateSite(url=site, geo=homes.GEO, owner=homes.SITE_OWNER))
            taken = seconds(lambda: put_tree(client, site, Path(arguments[0]), "tree"))
        elif act == "get-tree":
            site, target = f"{homes.SITE}-{arguments[0]}", Path(arguments[1])
            settled(target.parent)
            taken = seconds(lambda: get_tree(client, site, "tree", target)) + seconds(lambda: settled(target))
        else:
            return _huge(client, int(arguments[0]))
    return {"seconds": taken}


def _put(client: Client, source: Path, name: str) -> None:
    with source.open("rb", buffering=0) as file:
        upload = Upload(source.stat().st_size, file.read)
        client.call("site.put", s.UploadFile(site=homes.SITE, path=name), upload=upload)


def _get(client: Client, name: str, target: Path) -> float:
    """As the command line does, after one to nowhere, so that the objects are in memory as the copy's source is."""
    for _chunk in _chunks(client, name):
        pass

    def act() -> None:
        get_file(client, homes.SITE, name, target)
        settled(target)

    return seconds(act)


def _chunks(client: Client, name: str) -> Iterator[bytes]:
    chunks: Iterator[bytes] = client.call("site.get", s.DownloadFile(site=homes.SITE, path=name)).chunks
    return chunks


def _huge(client: Client, size: int) -> dict[str, float]:
    """A file that exists nowhere: the same block again and again, so that no other program's memory is counted, nor a source read."""
    block = memoryview(os.urandom(BLOCK))
    given = 0

    def read(n: int) -> bytes:
        nonlocal given
        start = given % BLOCK
        piece = block[start : start + min(n, BLOCK - start, size - given)]
        given += len(piece)
        return bytes(piece)

    put = seconds(lambda: client.call("site.put", s.UploadFile(site=homes.SITE, path="huge.bin"), upload=Upload(size, read)))
    got = 0

    def get() -> None:
        nonlocal got
        for chunk in _chunks(client, "huge.bin"):
            got += len(chunk)

    taken = seconds(get)
    if got != size:
        raise RuntimeError(f"{got} bytes of {size} came back")
    client.call("site.rm", s.RemoveFile(site=homes.SITE, path="huge.bin"))
    return {"put": put, "get": taken, "peak": peak_megabytes()}


def _write_random(target: Path, size: int) -> None:
    with target.open("wb") as file:
        for _ in range(0, size, MIB):
            file.write(os.urandom(MIB))


def _digest(file: Path) -> bytes:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").digest()


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        print(json.dumps(_run(Path(sys.argv[2]), sys.argv[3], sys.argv[4:])))
    else:
        raise SystemExit(main("files", measure, runs=5))
