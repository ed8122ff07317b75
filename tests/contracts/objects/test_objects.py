"""What every object store does (ports/objects.py). Another one joins with one more case of the fixture.

S3 is played by moto, Azure Blob storage by Azurite. `rclone` is a second S3 of another make, which knows no conditional puts: it takes
part in everything but what they are for.
"""

from __future__ import annotations

import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from contracts.objects.remotes import REMOTE
from keystead.adapters.objects.folder import FolderObjects
from keystead.adapters.objects.memory import MemoryObjects
from keystead.adapters.objects.open import open_objects
from keystead.core.configuration import ContainerConfig, ContainerKind, ObjectsConfig
from keystead.core.errors import Conflict, IntegrityFailure, NotFound, Unavailable

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from contracts.objects.remotes import Remote
    from keystead.ports.objects import ObjectStore

MIB = 1024 * 1024
CONDITIONAL = ["memory", "folder", "folders", *(pytest.param(name, marks=REMOTE) for name in ("s3", "azure"))]
ALL = [*CONDITIONAL, pytest.param("rclone", marks=REMOTE)]


@pytest.fixture(params=ALL)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ObjectStore:
    """Four containers, empty."""
    return opened(request, str(request.param), tmp_path)


@pytest.fixture(params=CONDITIONAL)
def conditional(request: pytest.FixtureRequest, tmp_path: Path) -> ObjectStore:
    """As `store`; only those that can store under a condition."""
    return opened(request, str(request.param), tmp_path)


def opened(request: pytest.FixtureRequest, name: str, folder: Path) -> ObjectStore:
    match name:
        case "memory":
            return MemoryObjects()
        case "folder":
            return FolderObjects(folder / "objects")
        case "folders":
            places = [ContainerConfig(f"c{number}", ContainerKind.FOLDER, path=f"objects{number % 2}") for number in range(4)]
            return open_objects(ObjectsConfig(tuple(places)), folder)
        case _:
            remote: Remote = request.getfixturevalue(name)
            return remote.open(folder, 4)


def test_gives_back_any_range_of_what_was_stored(store: ObjectStore) -> None:
    ref = store.new_ref(os.urandom)
    data = os.urandom(300_000)
    chunks: list[bytes | memoryview] = [data[:1], memoryview(data)[1:200_000], b"", data[200_000:]]
    assert store.put(ref, iter(chunks)) == 300_000
    for offset, length in [(0, 300_000), (0, 0), (299_999, 1), (300_000, 0), (4_095, 70_000)]:
        assert store.get(ref, offset, length) == data[offset : offset + length]


def test_an_empty_object_is_an_object(store: ObjectStore) -> None:
    ref = store.new_ref(os.urandom)
    assert store.put(ref, []) == 0
    assert store.get(ref, 0, 0) == b""
    assert [(info.ref, info.size) for info in store.all_objects()] == [(ref, 0)]


def test_chunks_of_wider_items_count_in_bytes(store: ObjectStore) -> None:
    ref = store.new_ref(os.urandom)
    assert store.put(ref, [memoryview(bytes(range(16))).cast("I")]) == 16
    assert store.get(ref, 0, 16) == bytes(range(16))


def test_a_range_beyond_the_end_is_never_shortened(store: ObjectStore) -> None:
    ref = store.new_ref(os.urandom)
    store.put(ref, [b"0123456789"])
    for offset, length in [(0, 11), (10, 1), (500, 1), (-1, 1), (0, -1)]:
        with pytest.raises(IntegrityFailure) as caught:
            store.get(ref, offset, length)
        assert caught.value.code == "object_truncated"


@pytest.mark.parametrize("again", [b"other", b"first"])
def test_objects_are_never_overwritten(conditional: ObjectStore, again: bytes) -> None:
    ref = conditional.new_ref(os.urandom)
    conditional.put(ref, [b"first"])
    with pytest.raises(Conflict) as caught:
        conditional.put(ref, [again])
    assert caught.value.code == "object_exists"
    assert conditional.get(ref, 0, 5) == b"first"


def test_of_many_that_store_under_one_name_one_does(conditional: ObjectStore) -> None:
    ref = conditional.new_ref(os.urandom)

    def put(number: int) -> bool:
        try:
            return conditional.put(ref, [bytes([number]) * 70_000]) == 70_000
        except Conflict:
            return False

    with ThreadPoolExecutor(8) as pool:
        stored = list(pool.map(put, range(8)))
    assert stored.count(True) == 1
    assert conditional.get(ref, 0, 70_000) == bytes([stored.index(True)]) * 70_000


def test_threads_share_a_store(store: ObjectStore) -> None:
    def round_trip(_: int) -> bool:
        ref, data = store.new_ref(os.urandom), os.urandom(30_000)
        store.put(ref, [data])
        return store.get(ref, 100, 20_000) == data[100:20_100]

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(round_trip, range(40)))
    assert len(list(store.all_objects())) == 40


def test_a_large_object_comes_back_whole_and_is_no_more_overwritten_than_a_small_one(store: ObjectStore) -> None:
    """The source fills one buffer again and again, as sealing does."""
    ref, block = store.new_ref(os.urandom), os.urandom(MIB)
    buffer, digest = bytearray(MIB), hashlib.sha256()

    def sealed(parts: int) -> Iterator[memoryview]:
        for part in range(parts):
            buffer[:] = block
            buffer[:4] = part.to_bytes(4)
            digest.update(buffer)
            yield memoryview(buffer)
        buffer[:] = bytes(MIB)

    size = 37 * MIB
    assert store.put(ref, sealed(37)) == size
    read = hashlib.sha256()
    for offset in range(0, size, 10 * MIB):
        read.update(store.get(ref, offset, min(10 * MIB, size - offset)))
    assert read.digest() == digest.digest()
    with pytest.raises(Conflict):
        store.put(ref, sealed(20))
    with pytest.raises(IntegrityFailure):
        store.get(ref, size - 10, 11)
    assert [(info.ref, info.size) for info in store.all_objects()] == [(ref, size)]


def test_a_large_source_that_fails_leaves_no_object(store: ObjectStore) -> None:
    def failing() -> Iterator[bytes]:
        for _ in range(20):
            yield bytes(MIB)
        raise NotFound("object_not_found", "the source's own object is gone")

    ref = store.new_ref(os.urandom)
    with pytest.raises(NotFound, match="the source's own object"):
        store.put(ref, failing())
    assert list(store.all_objects()) == []
    with pytest.raises(NotFound, match=ref):
        store.get(ref, 0, 1)


def test_everything_answers(store: ObjectStore) -> None:
    assert store.check() == []
    store.put(store.new_ref(os.urandom), [b"value"])
    assert store.check() == []


def test_deleted_objects_are_gone_and_deleting_again_is_fine(store: ObjectStore) -> None:
    ref, other = store.new_ref(os.urandom), store.new_ref(os.urandom)
    store.put(ref, [b"value"])
    store.put(other, [b"stays"])
    store.delete(ref)
    store.delete(ref)
    with pytest.raises(NotFound) as caught:
        store.get(ref, 0, 5)
    assert caught.value.code == "object_not_found"
    assert [info.ref for info in store.all_objects()] == [other]


def test_lists_every_object_with_size_and_age(store: ObjectStore) -> None:
    sizes = {store.new_ref(os.urandom): size for size in range(1, 21)}
    assert list(store.all_objects()) == []
    for ref, size in sizes.items():
        store.put(ref, [bytes(size)])
    listed = list(store.all_objects())
    assert {info.ref: info.size for info in listed} == sizes
    assert len(listed) == 20
    assert all(0 <= info.age_seconds < 300 for info in listed)


def test_references_are_random_and_spread_over_the_containers(store: ObjectStore) -> None:
    refs = [store.new_ref(os.urandom) for _ in range(400)]
    assert len(set(refs)) == 400
    assert {ref.split("/")[0] for ref in refs} == {"c0", "c1", "c2", "c3"}
    assert all(len(ref) <= 80 and ref.isascii() for ref in refs)


@pytest.mark.parametrize(
    "ref",
    [
        "",
        "c0",
        "c0/",
        "c0/../../etc/passwd",
        "../c0/" + "a" * 32,
        "/c0/" + "a" * 32,
        "c0/" + "A" * 32,
        "c0/" + "a" * 31,
        "c0/" + "a" * 33,
        "c0/" + "a" * 32 + "\n",
        "c0/" + "a" * 32 + "\0",
        "c1٣/" + "a" * 32,
        "c100/" + "a" * 32,
    ],
)
def test_what_is_no_reference_reaches_no_path(store: ObjectStore, ref: str) -> None:
    for call in (lambda: store.get(ref, 0, 1), lambda: store.put(ref, [b"value"]), lambda: store.delete(ref)):
        with pytest.raises(IntegrityFailure) as caught:
            call()
        assert caught.value.code == "object_reference_invalid"


def test_a_source_that_fails_leaves_no_object(store: ObjectStore) -> None:
    def failing() -> object:
        yield b"first"
        raise OSError("the source broke")

    ref = store.new_ref(os.urandom)
    with pytest.raises(OSError, match="the source broke"):
        store.put(ref, failing())  # type: ignore[arg-type]
    with pytest.raises(NotFound):
        store.get(ref, 0, 0)
    assert store.put(ref, [b"whole"]) == 5


def test_memory_fails_on_request_before_and_after_storing() -> None:
    store = MemoryObjects()
    ref, lost = store.new_ref(os.urandom), store.new_ref(os.urandom)
    store.fail_before_store = Unavailable("storage_unavailable", "the store is away")
    with pytest.raises(Unavailable):
        store.put(ref, [b"value"])
    assert list(store.all_objects()) == []
    assert store.put(ref, [b"value"]) == 5
    store.fail_after_store = Unavailable("storage_unavailable", "the answer was lost")
    with pytest.raises(Unavailable):
        store.put(lost, [b"value"])
    assert store.get(lost, 0, 5) == b"value"


def test_memory_never_lets_a_deleted_object_return() -> None:
    store = MemoryObjects()
    ref = store.new_ref(os.urandom)
    store.put(ref, [b"value"])
    store.delete(ref)
    with pytest.raises(AssertionError, match="deleted"):
        store.put(ref, [b"value"])
