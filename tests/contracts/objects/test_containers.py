"""Several containers, each with a store and credentials of its own; credentials are exchanged while everything runs (R-113, R-114)."""

from __future__ import annotations

import json
import os
import threading
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from contracts.objects.remotes import REMOTE
from keystead.adapters.objects import remote as adapter
from keystead.adapters.objects.credentials import AzureCredentials, CredentialsFile, S3Credentials
from keystead.adapters.objects.open import open_objects
from keystead.adapters.objects.reaching import reach_of
from keystead.core.configuration import ContainerConfig, ContainerKind, ObjectsConfig
from keystead.core.errors import IntegrityFailure, InvalidRequest, Unavailable
from support.objects import GuardedStore, guarded, says

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from contracts.objects.remotes import Remote

MIB = 1024 * 1024
S3 = ContainerConfig("c0", ContainerKind.S3, bucket="mail", region="eu-central-1", credentials_file="c0.json")
AZURE = ContainerConfig("c0", ContainerKind.AZURE, bucket="mail", account="contoso", credentials_file="c0.json")


@pytest.fixture(scope="module")
def guard() -> Iterator[GuardedStore]:
    with guarded() as made:
        yield made


@pytest.fixture(autouse=True)
def _no_long_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adapter, "FIRST_WAIT", 0.001)


class Bucket:
    """A bucket of the guarded store as a container, and its credentials file."""

    def __init__(self, guard: GuardedStore, folder: Path, name: str) -> None:
        self._guard, self._folder, self._user = guard, folder, f"{name}-{os.urandom(4).hex()}"
        self._file = folder / f"{name}.json"
        self.credentials = guard.make_bucket(self._user)
        self.write(self.credentials)
        self.config = guard.store.container(name, folder, bucket=self._user)

    def write(self, credentials: dict[str, str]) -> None:
        """Replace the file at once, as a secrets agent does."""
        fresh = self._folder / "fresh"
        fresh.write_text(json.dumps(credentials), encoding="ascii")
        fresh.replace(self._file)

    def rotate(self) -> None:
        """New credentials, then the file, then the old ones are taken away."""
        old, self.credentials = self.credentials, self._guard.make_key(self._user)
        self.write(self.credentials)
        self._guard.revoke(self._user, old)


@REMOTE
def test_credentials_of_two_containers_are_rotated_while_everything_runs_and_no_call_is_lost_R_114(
    guard: GuardedStore, tmp_path: Path
) -> None:
    buckets = [Bucket(guard, tmp_path, name) for name in ("c0", "c1")]
    objects = open_objects(ObjectsConfig(tuple(bucket.config for bucket in buckets), 10_000, 0), tmp_path)
    stop, turns, failures = threading.Event(), threading.Semaphore(0), []

    def work() -> None:
        try:
            while not stop.is_set():
                ref, data = objects.new_ref(os.urandom), os.urandom(5_000)
                objects.put(ref, [data])
                assert objects.get(ref, 1_000, 3_000) == data[1_000:4_000]
                objects.delete(ref)
                turns.release()
        except BaseException as error:  # noqa: BLE001 - whatever it is fails the test
            failures.append(error)
            turns.release(1_000)

    workers = [threading.Thread(target=work) for _ in range(3)]
    for worker in workers:
        worker.start()
    for round_ in range(6):
        for _ in range(8):
            turns.acquire()
        buckets[round_ % 2].rotate()
    for _ in range(8):
        turns.acquire()
    stop.set()
    for worker in workers:
        worker.join()
    assert failures == []
    assert list(objects.all_objects()) == []
    for bucket in buckets:
        bucket.rotate()
        assert objects.check() == []


@REMOTE
def test_credentials_rotated_in_the_middle_of_a_large_upload_lose_nothing_R_114(guard: GuardedStore, tmp_path: Path) -> None:
    bucket = Bucket(guard, tmp_path, "c0")
    objects = open_objects(ObjectsConfig((bucket.config,), 10_000, 0), tmp_path)
    ref = objects.new_ref(os.urandom)

    def source() -> Iterator[bytes]:
        for part in range(48):
            if part == 20:
                bucket.write(guard.make_key(bucket._user))
            if part == 40:
                guard.revoke(bucket._user, bucket.credentials)
            yield bytes([part]) * MIB

    assert objects.put(ref, source()) == 48 * MIB
    assert objects.get(ref, 47 * MIB - 1, 2) == bytes([46, 47])


@REMOTE
def test_a_containers_credentials_open_no_other_R_114(guard: GuardedStore, tmp_path: Path) -> None:
    one, other = Bucket(guard, tmp_path, "c0"), Bucket(guard, tmp_path, "c1")
    mixed = replace(one.config, credentials_file=other.config.credentials_file)
    objects = open_objects(ObjectsConfig((mixed, other.config), 10_000, 0), tmp_path)
    for call in (
        lambda: objects.put("c0/" + "ab" * 16, [b"value"]),
        lambda: objects.get("c0/" + "ab" * 16, 0, 1),
        lambda: objects.delete("c0/" + "ab" * 16),
    ):
        with pytest.raises(Unavailable) as caught:
            call()
        assert caught.value.code == "object_store_refused"
    assert objects.check() == ["c0"]
    assert objects.put("c1/" + "ab" * 16, [b"value"]) == 5


@REMOTE
def test_refused_credentials_are_read_again_once_even_if_the_file_looks_the_same(s3: Remote, tmp_path: Path) -> None:
    """A copy that keeps its times, on a file system that keeps its inode: only the refusal tells."""
    objects = s3.open(tmp_path, retries=0)
    ref = objects.new_ref(os.urandom)
    file = tmp_path / "c0.json"
    objects.put(ref, [b"value"])
    looks = file.stat()
    text = file.read_text(encoding="ascii")
    file.write_text(text.replace("keysteadtest", "keysteadtes2"), encoding="ascii")
    os.utime(file, ns=(looks.st_atime_ns, looks.st_mtime_ns))
    s3.proxy.next(says(403, "InvalidAccessKeyId"), method="GET")
    assert objects.get(ref, 0, 5) == b"value"
    s3.proxy.next(says(403, "InvalidAccessKeyId"), method="GET", times=2)
    with pytest.raises(Unavailable, match="refused"):
        objects.get(ref, 0, 5)
    assert s3.proxy.left == 1, "the same credentials are not tried again"


@REMOTE
def test_a_credentials_file_that_is_half_written_or_gone_leaves_the_earlier_ones_in_force(s3: Remote, tmp_path: Path) -> None:
    objects = s3.open(tmp_path)
    ref = objects.new_ref(os.urandom)
    objects.put(ref, [b"value"])
    file = tmp_path / "c0.json"
    for text in ('{"access_key_id": "keyst', "", "[]", '{"access_key_id": 7}'):
        file.write_text(text, encoding="ascii")
        assert objects.get(ref, 0, 5) == b"value"
    file.unlink()
    assert objects.get(ref, 0, 5) == b"value"


@pytest.mark.parametrize(
    "text", [None, "", "{}", '{"access_key_id": "hunter2"}', '{"access_key_id": "a", "secret_access_key": 17}', "hunter2"]
)
def test_credentials_that_cannot_be_read_are_named_by_file_and_never_quoted(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "c0.json").write_text(text, encoding="ascii")
    objects = open_objects(ObjectsConfig((S3,), 1_000, 0), tmp_path)
    with pytest.raises(Unavailable) as caught:
        objects.get("c0/" + "ab" * 16, 0, 1)
    assert caught.value.code == "object_credentials_unreadable"
    assert "c0.json" in caught.value.detail
    assert "access_key_id and secret_access_key" in caught.value.mend
    assert "hunter2" not in f"{caught.value} {caught.value.__cause__}"
    assert str(tmp_path) not in str(caught.value)
    assert objects.check() == ["c0"]


def test_credentials_are_in_no_repr(tmp_path: Path) -> None:
    file = tmp_path / "c0.json"
    file.write_text('{"access_key_id": "hunter1", "secret_access_key": "hunter2", "account_key": "hunter3"}', encoding="ascii")
    for kind in (S3Credentials, AzureCredentials):
        read: CredentialsFile[Any] = CredentialsFile(file, kind, "c0")
        assert "hunter" not in f"{read!r} {read.current()!r} {read.current()} {read.__dict__!r}"


def folders(*names: str, closed: str = "") -> ObjectsConfig:
    return ObjectsConfig(tuple(ContainerConfig(name, ContainerKind.FOLDER, path="place", accepts_new=name != closed) for name in names))


def test_without_containers_a_home_has_four_folders_as_ever(tmp_path: Path) -> None:
    objects = open_objects(ObjectsConfig(), tmp_path)
    ref = objects.new_ref(os.urandom)
    objects.put(ref, [b"value"])
    container, name = ref.split("/")
    assert (tmp_path / "objects" / container / name[:2] / name).read_bytes() == b"value"


def test_a_homes_folders_stay_readable_when_containers_are_added(tmp_path: Path) -> None:
    """How a home that began with folders goes on with others: references never change."""
    before = open_objects(ObjectsConfig(), tmp_path)
    refs = [before.new_ref(os.urandom) for _ in range(20)]
    for ref in refs:
        before.put(ref, [ref.encode()])
    old = [ContainerConfig(f"c{number}", ContainerKind.FOLDER, path="objects", accepts_new=False) for number in range(4)]
    new = ContainerConfig("c4", ContainerKind.FOLDER, path="elsewhere")
    after = open_objects(ObjectsConfig((*old, new)), tmp_path)
    assert [after.get(ref, 0, len(ref)) for ref in refs] == [ref.encode() for ref in refs]
    assert sorted(info.ref for info in after.all_objects()) == sorted(refs)
    assert {after.new_ref(os.urandom)[:3] for _ in range(30)} == {"c4/"}


def test_new_objects_go_where_new_ones_are_accepted_and_the_rest_stays_readable_R_114(tmp_path: Path) -> None:
    before = open_objects(folders("c2", "c17"), tmp_path)
    refs = [before.new_ref(os.urandom) for _ in range(40)]
    for ref in refs:
        before.put(ref, [b"value"])
    assert {ref.split("/")[0] for ref in refs} == {"c2", "c17"}
    after = open_objects(folders("c2", "c17", closed="c2"), tmp_path)
    assert {after.new_ref(os.urandom).split("/")[0] for _ in range(40)} == {"c17"}
    assert [after.get(ref, 0, 5) for ref in refs] == [b"value"] * 40
    after.delete(next(ref for ref in refs if ref.startswith("c2/")))
    assert len(list(after.all_objects())) == 39, "two containers in one folder are each listed once"


def test_a_reference_into_an_unknown_container_says_which_and_what_to_do(tmp_path: Path) -> None:
    objects = open_objects(folders("c1"), tmp_path)
    for call in (
        lambda: objects.put("c5/" + "ab" * 16, [b"value"]),
        lambda: objects.get("c5/" + "ab" * 16, 0, 1),
        lambda: objects.delete("c5/" + "ab" * 16),
    ):
        with pytest.raises(Unavailable) as caught:
            call()
        assert caught.value.code == "object_container_unknown"
        assert "container c5" in caught.value.detail
        assert "accepts_new = false" in caught.value.mend
    with pytest.raises(IntegrityFailure):
        objects.get("c500/" + "ab" * 16, 0, 1)


def test_check_names_the_containers_that_do_not_answer(tmp_path: Path) -> None:
    gone = ContainerConfig("c9", ContainerKind.FOLDER, path="not/there")
    objects = open_objects(ObjectsConfig((*folders("c1").containers, gone)), tmp_path)
    assert objects.check() == ["c9"]
    (tmp_path / "not" / "there").mkdir(parents=True)
    assert objects.check() == []
    (tmp_path / "place").write_bytes(b"a file where a folder should be")
    assert objects.check() == ["c1"]


@REMOTE
def test_check_is_cheap_and_asks_all_at_once(s3: Remote, tmp_path: Path) -> None:
    objects = s3.open(tmp_path, 6)
    barrier = threading.Barrier(6)

    def together(exchange: Any) -> None:
        barrier.wait(60)
        exchange.forward()

    s3.proxy.always = together
    assert objects.check() == []
    assert len(s3.proxy.seen) == 6


UNFIT: list[tuple[ContainerConfig, str]] = [
    (replace(S3, name="mail"), "c0 to c99"),
    (replace(S3, name="c100"), "c0 to c99"),
    (replace(S3, accepts_new=False), "accepts_new"),
    (replace(S3, bucket=""), "bucket"),
    (replace(S3, bucket="Mail"), "bucket"),
    (replace(S3, bucket="mail/../other"), "bucket"),
    (replace(S3, prefix="/abc"), "prefix"),
    (replace(S3, prefix="a/../b"), "prefix"),
    (replace(S3, prefix="a//b"), "prefix"),
    (replace(S3, region=""), "region"),
    (replace(S3, region="evil.example/"), "region"),
    (replace(AZURE, account=""), "account"),
    (replace(AZURE, account="evil.example#"), "account"),
    (replace(S3, credentials_file=""), "credentials_file"),
    (replace(S3, ca_file="none.pem"), "ca_file"),
    (replace(S3, endpoint="http://storage.example:9000"), "https://"),
    (replace(S3, endpoint="http://storage.example:9000", allow_http=True), "loopback"),
    (replace(S3, endpoint="http://127.0.0.1:9000"), "https://"),
    (replace(S3, endpoint="http://127.0.0.1.evil.example", allow_http=True), "loopback"),
    (replace(S3, endpoint="ftp://127.0.0.1", allow_http=True), "https://"),
    (replace(S3, endpoint="https://user@storage.example"), "endpoint"),
    (replace(S3, endpoint="https://storage.example?x=1"), "endpoint"),
    (replace(S3, endpoint="https://storage.example:seven"), "endpoint"),
    (replace(S3, endpoint="https://"), "endpoint"),
    (ContainerConfig("c0", ContainerKind.FOLDER), "path"),
]


@pytest.mark.parametrize(("container", "why"), UNFIT, ids=[f"{number}-{why}" for number, (_, why) in enumerate(UNFIT)])
def test_a_container_that_cannot_be_meant_is_refused(tmp_path: Path, container: ContainerConfig, why: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        open_objects(ObjectsConfig((container,)), tmp_path)
    assert caught.value.code == "configuration_invalid"
    assert f"container {container.name}" in caught.value.detail
    assert why in caught.value.detail
    assert caught.value.mend


def test_a_name_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="each name once"):
        open_objects(ObjectsConfig((S3, S3)), tmp_path)


@pytest.mark.parametrize(
    ("container", "endpoint"),
    [
        (S3, "https://s3.eu-central-1.amazonaws.com"),
        (AZURE, "https://contoso.blob.core.windows.net"),
        (replace(S3, endpoint="https://storage.example:9000/"), "https://storage.example:9000"),
        (replace(S3, endpoint="http://[::1]:9000", allow_http=True), "http://[::1]:9000"),
        (replace(S3, endpoint="http://localhost", allow_http=True), "http://localhost"),
        (replace(AZURE, endpoint="http://127.0.0.1:10000/contoso", allow_http=True), "http://127.0.0.1:10000/contoso"),
    ],
)
def test_where_a_container_is_called(tmp_path: Path, container: ContainerConfig, endpoint: str) -> None:
    assert reach_of(container, ObjectsConfig((container,)), tmp_path).endpoint == endpoint
