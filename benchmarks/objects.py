"""Packs of 8 MiB stored and read, and ranges of 16 KiB read: S3 as rclone serves it from a folder, and a folder of our own.

Keystead's adapter stands beside the library it is built on and beside boto3. All three read through a process that mends rclone's
answers to ranges (`benchmarks/ranges.py`); they store without it.
"""

from __future__ import annotations

import json
import os
import random
import re
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import obstore
from benchmarks.timing import MB, MIB, ROOT, Figure, Plan, interleaved, main, seconds, settled, share, spread
from obstore.store import S3Store

from keystead.adapters.objects.open import open_objects
from keystead.core.configuration import ContainerConfig, ContainerKind, ObjectsConfig

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PACK = 8 * MIB
RANGE = 16 * 1024
KEY, SECRET, BUCKET, REGION = "keysteadbench", "a-secret-of-the-benchmark", "bench", "eu-central-1"
OURS, LIBRARY = "keystead", "obstore"
AT_LEAST = 0.8
"""Of the bare library's rate: what never overwriting, checking lengths and reading the credentials file may cost."""


@dataclass(frozen=True)
class Way:
    """One client: stores a pack under a name, reads a range of it."""

    put: Callable[[str, bytes], object]
    get: Callable[[str, int, int], bytes]


@contextmanager
def _running(command: list[str], listens: str) -> Iterator[int]:
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout is not None
        try:
            found = next(match for line in process.stdout if (match := re.search(listens, line)))
            yield int(found[1])
        finally:
            process.terminate()


@contextmanager
def servers(place: Path) -> Iterator[tuple[int, int]]:
    """Ports: of rclone, and of what mends its ranges."""
    (place / "s3" / BUCKET).mkdir(parents=True)
    rclone = [str(Path(sys.executable).with_name("rclone")), "serve", "s3", str(place / "s3"), "--addr", "127.0.0.1:0"]
    with (
        _running([*rclone, "--auth-key", f"{KEY},{SECRET}", "--config", "", "--vfs-read-wait", "0"], r"http://127\.0\.0\.1:(\d+)") as port,
        _running([sys.executable, "-m", "benchmarks.ranges", str(port)], r"^(\d+)$") as mended,
    ):
        yield port, mended


def keystead(place: Path, port: int, mended: int) -> Way:
    (place / "key.json").write_text(json.dumps({"access_key_id": KEY, "secret_access_key": SECRET}), encoding="ascii")

    def opened(at: int) -> Any:  # noqa: ANN401 - an object store
        endpoint = f"http://127.0.0.1:{at}"
        container = ContainerConfig(
            "c0", ContainerKind.S3, bucket=BUCKET, endpoint=endpoint, region=REGION, credentials_file="key.json", allow_http=True
        )
        return open_objects(ObjectsConfig((container,)), place)

    storing, reading = opened(port), opened(mended)
    return Way(lambda name, data: storing.put(f"c0/{name}", [data]), lambda name, offset, length: reading.get(f"c0/{name}", offset, length))


def bare_obstore(port: int, mended: int) -> Way:
    def opened(at: int) -> S3Store:
        return S3Store(
            BUCKET,
            endpoint=f"http://127.0.0.1:{at}",
            region=REGION,
            access_key_id=KEY,
            secret_access_key=SECRET,
            client_options={"allow_http": True},
        )

    storing, reading = opened(port), opened(mended)
    return Way(
        lambda name, data: obstore.put(storing, f"c0/{name}", data, use_multipart=False),
        lambda name, offset, length: obstore.get_range(reading, f"c0/{name}", start=offset, length=length).to_bytes(),
    )


def boto3(port: int, mended: int) -> Way:
    library = import_module("boto3")
    # Its own checksums are switched off: rclone answers a range with the checksum of the whole object, and the others make none either.
    config = import_module("botocore.config").Config(
        s3={"addressing_style": "path"}, request_checksum_calculation="when_required", response_checksum_validation="when_required"
    )

    def opened(at: int) -> Any:  # noqa: ANN401 - untyped
        return library.client(
            "s3",
            endpoint_url=f"http://127.0.0.1:{at}",
            region_name=REGION,
            aws_access_key_id=KEY,
            aws_secret_access_key=SECRET,
            config=config,
        )

    storing, reading = opened(port), opened(mended)

    def get(name: str, offset: int, length: int) -> bytes:
        answer = reading.get_object(Bucket=BUCKET, Key=f"c0/{name}", Range=f"bytes={offset}-{offset + length - 1}")
        data: bytes = answer["Body"].read()
        return data

    return Way(lambda name, data: storing.put_object(Bucket=BUCKET, Key=f"c0/{name}", Body=data), get)


def folder(place: Path) -> Way:
    objects = open_objects(ObjectsConfig(), place)
    return Way(lambda name, data: objects.put(f"c0/{name}", [data]), lambda name, offset, length: objects.get(f"c0/{name}", offset, length))


def measure(place: Path, plan: Plan) -> list[Figure]:
    packs, ranges = (3, 50) if plan.quick else (12, 400)
    data = os.urandom(PACK)
    with servers(place) as (port, mended):
        ways = {OURS: keystead(place, port, mended), LIBRARY: bare_obstore(port, mended), "boto3": boto3(port, mended)}
        figures = figures_of("S3 (rclone)", ways, data, packs, ranges, plan, place)
    return [*figures, *figures_of("a folder", {OURS: folder(place)}, data, packs, ranges, plan, place)]


def figures_of(where: str, ways: dict[str, Way], data: bytes, packs: int, ranges: int, plan: Plan, place: Path) -> list[Figure]:
    stored: dict[str, list[str]] = {name: [] for name in ways}

    def storing(name: str) -> float:
        settled(place)
        fresh = [os.urandom(16).hex() for _ in range(packs)]
        stored[name] = fresh
        taken = seconds(lambda: [ways[name].put(one, data) for one in fresh])
        return packs * PACK / MB / taken

    def reading(name: str) -> float:
        found = [b""]

        def act() -> None:
            for one in stored[name]:
                found[0] = ways[name].get(one, 0, PACK)

        taken = seconds(act)
        if found[0] != data:
            raise RuntimeError(f"{name} read something else than was stored")
        return packs * PACK / MB / taken

    def picking(name: str) -> float:
        source = random.Random(7)
        places = [(source.choice(stored[name]), source.randrange(PACK - RANGE)) for _ in range(ranges)]
        found: list[bytes] = []
        taken = seconds(lambda: found.extend(ways[name].get(one, offset, RANGE) for one, offset in places))
        if any(piece != data[offset : offset + RANGE] for piece, (_, offset) in zip(found, places, strict=True)):
            raise RuntimeError(f"{name} read something else than was stored")
        return ranges / taken

    acts: list[tuple[str, str, Callable[[str], float]]] = [
        (f"store packs of 8 MiB in {where}", "MB/s", storing),
        (f"read packs of 8 MiB from {where}", "MB/s", reading),
        (f"read ranges of 16 KiB from {where}", "ranges/s", picking),
    ]
    return [_figure(what, unit, interleaved({name: _way(act, name) for name in ways}, plan.runs)) for what, unit, act in acts]


def _way(act: Callable[[str], float], name: str) -> Callable[[], float]:
    return lambda: act(name)


def _figure(what: str, unit: str, found: dict[str, list[float]]) -> Figure:
    ours, *others = (spread(name, values) for name, values in found.items())
    if not others:
        return Figure(what, unit, ours)
    part = share(ours, others[0])
    return Figure(what, unit, ours, f"at least {AT_LEAST:g} of obstore alone", part >= AT_LEAST, others, f"{part:.2f} of it")


if __name__ == "__main__":
    raise SystemExit(main("objects", measure, runs=7))
