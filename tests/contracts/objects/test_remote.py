"""Remote stores that lose answers, refuse, delay and lie: on S3 (moto) and Azure Blob storage (Azurite), through a proxy that does it."""

from __future__ import annotations

import os
import threading
import tracemalloc
from typing import TYPE_CHECKING

import pytest

from contracts.objects.remotes import REMOTE
from keystead.adapters.objects import remote as adapter
from keystead.core.errors import Conflict, IntegrityFailure, KeysteadError, NotFound, Unavailable
from support.objects import (
    ACCESS_KEY,
    BUCKET,
    Exchange,
    cut_body,
    flip_bytes,
    lengthen,
    lose_answer,
    lose_request,
    other_range,
    says,
    shorten,
    whole_object,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from contracts.objects.remotes import Remote
    from keystead.ports.objects import ObjectStore

pytestmark = REMOTE
MIB = 1024 * 1024
DATA = bytes(range(256)) * 1_000
LARGE = 17 * MIB
SECRETS = ("hunter2", "Signature", ACCESS_KEY["secret_access_key"], "127.0.0.1", BUCKET)


@pytest.fixture(autouse=True)
def _no_long_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adapter, "FIRST_WAIT", 0.001)


@pytest.fixture(params=["s3", "azure"])
def remote(request: pytest.FixtureRequest) -> Remote:
    found: Remote = request.getfixturevalue(request.param)
    return found


def large() -> Iterator[bytes]:
    for part in range(LARGE // MIB):
        yield bytes([part]) * MIB


def assert_only(objects: ObjectStore, ref: str, size: int) -> None:
    """One copy, whole, and nothing else."""
    assert [(info.ref, info.size) for info in objects.all_objects()] == [(ref, size)]


def assert_tells_nothing(error: KeysteadError) -> None:
    """An error names the container and says what to do, and nothing that the store said or that opens it."""
    assert "container c0" in error.detail
    assert error.mend
    shown = f"{error} {error!r} {error.__cause__!r}"
    assert not [secret for secret in SECRETS if secret in shown]
    assert error.__cause__ is None or isinstance(error.__cause__, OSError | ValueError)


@pytest.mark.parametrize(
    "fault",
    [lose_request, lose_answer, says(500), says(500, after=True), says(503, "SlowDown"), says(429), says(408, after=True)],
    ids=["request-lost", "answer-lost", "500", "500-but-stored", "slow-down", "too-many", "timed-out-but-stored"],
)
def test_a_put_without_an_answer_is_asked_again_and_stores_one_copy(
    remote: Remote, tmp_path: Path, fault: Callable[[Exchange], None]
) -> None:
    objects = remote.open(tmp_path)
    ref = objects.new_ref(os.urandom)
    remote.proxy.next(fault, method="PUT", times=2)
    assert objects.put(ref, [DATA]) == len(DATA)
    assert remote.proxy.left == 0
    assert remote.proxy.count("PUT") == 3
    assert objects.get(ref, 0, len(DATA)) == DATA
    assert_only(objects, ref, len(DATA))


@pytest.mark.parametrize("theirs", [b"x" * len(DATA), b"shorter", b""], ids=["as-long", "shorter", "empty"])
def test_what_another_stored_meanwhile_is_not_taken_for_ours(remote: Remote, tmp_path: Path, theirs: bytes) -> None:
    objects = remote.open(tmp_path)
    ref = objects.new_ref(os.urandom)

    def overtaken(exchange: Exchange) -> None:
        remote.proxy.next(Exchange.forward, method="PUT")
        objects.put(ref, [theirs])
        exchange.answered = False

    remote.proxy.next(overtaken, method="PUT")
    with pytest.raises(Conflict) as caught:
        objects.put(ref, [DATA])
    assert caught.value.code == "object_exists"
    assert objects.get(ref, 0, len(theirs)) == theirs


def test_a_store_that_stays_away_is_unavailable_after_a_few_tries(remote: Remote, tmp_path: Path) -> None:
    objects = remote.open(tmp_path, retries=3)
    ref = objects.new_ref(os.urandom)
    for call, method in (
        (lambda: objects.put(ref, [DATA]), "PUT"),
        (lambda: objects.get(ref, 0, 5), "GET"),
        (lambda: list(objects.all_objects()), "GET"),
    ):
        for fault, said in ((says(500), "status 500"), (lose_request, "did not answer")):
            remote.proxy.seen.clear()
            remote.proxy.next(fault, method=method, times=4)
            with pytest.raises(Unavailable) as caught:
                call()
            assert caught.value.code == "object_store_unavailable"
            assert said in caught.value.detail
            assert remote.proxy.count(method) == 4
            assert_tells_nothing(caught.value)
    remote.proxy.next(says(500), method="HEAD")
    with pytest.raises(NotFound):
        objects.get(ref, 0, 0)


def test_what_trying_again_cannot_mend_is_not_tried_again(remote: Remote, tmp_path: Path) -> None:
    objects = remote.open(tmp_path)
    ref = objects.new_ref(os.urandom)
    remote.proxy.next(says(400, "InvalidRequest"), method="PUT")
    with pytest.raises(Unavailable) as caught:
        objects.put(ref, [DATA])
    assert remote.proxy.count("PUT") == 1
    assert "status 400" in caught.value.detail
    assert_tells_nothing(caught.value)


def test_what_is_no_object_store_or_another_regions_is_unavailable_at_once(remote: Remote, tmp_path: Path) -> None:
    """S3 says with a redirect to nowhere that a bucket is in another region: no object is damaged by that."""
    objects = remote.open(tmp_path)
    ref = objects.new_ref(os.urandom)
    answers: list[Callable[[Exchange], None]] = [lambda exchange: exchange.answer(301), lambda exchange: exchange.answer(200, b"<html>")]
    for answer in answers:
        remote.proxy.always = answer
        calls: list[Callable[[], object]] = [lambda: list(objects.all_objects())]
        if answer is answers[0]:
            calls += [lambda: objects.put(ref, [DATA]), lambda: objects.get(ref, 0, 5), lambda: objects.delete(ref)]
        for call in calls:
            remote.proxy.seen.clear()
            with pytest.raises(Unavailable) as caught:
                call()
            assert "as no object store does" in caught.value.detail
            assert "region" in caught.value.mend
            assert_tells_nothing(caught.value)
            assert len([path for _, path, _ in remote.proxy.seen if path != "/"]) == 1
        assert objects.check() == ["c0"]


def test_a_refusal_names_the_file_of_the_credentials_and_nothing_in_it(remote: Remote, tmp_path: Path) -> None:
    objects = remote.open(tmp_path)
    ref = objects.new_ref(os.urandom)
    calls: list[Callable[[], object]] = [
        lambda: objects.put(ref, [DATA]),
        lambda: objects.put(ref, large()),
        lambda: objects.get(ref, 0, 5),
        lambda: objects.get(ref, 0, 0),
        lambda: objects.delete(ref),
        lambda: list(objects.all_objects()),
    ]
    for call in calls:
        for status in (401, 403):
            remote.proxy.always = says(status, "AccessDenied")
            with pytest.raises(Unavailable) as caught:
                call()
            assert caught.value.code == "object_store_refused"
            assert "c0.json" in caught.value.detail
            assert_tells_nothing(caught.value)
    assert objects.check() == ["c0"]


def test_a_bucket_that_is_not_there_is_not_a_missing_object(remote: Remote, tmp_path: Path) -> None:
    objects = remote.open(tmp_path, bucket="nobody-made-it")
    ref = objects.new_ref(os.urandom)
    calls: list[Callable[[], object]] = [
        lambda: objects.put(ref, [DATA]),
        lambda: objects.put(ref, large()),
        lambda: objects.get(ref, 0, 5),
        lambda: objects.get(ref, 0, 0),
        lambda: objects.delete(ref),
        lambda: list(objects.all_objects()),
    ]
    for call in calls:
        with pytest.raises(Unavailable) as caught:
            call()
        assert caught.value.code == "object_store_unavailable"
        assert "bucket of container c0" in caught.value.detail
    assert objects.check() == ["c0"]


def test_a_read_that_breaks_off_is_asked_again(remote: Remote, tmp_path: Path) -> None:
    objects = remote.open(tmp_path)
    ref = objects.new_ref(os.urandom)
    objects.put(ref, [DATA])
    for fault in (cut_body, lose_answer, lose_request, says(500), says(503, "SlowDown")):
        remote.proxy.next(fault, method="GET", times=2)
        assert objects.get(ref, 1_000, 100_000) == DATA[1_000:101_000]
        assert remote.proxy.left == 0


@pytest.mark.parametrize(
    ("lie", "code"),
    [
        (shorten, "object_truncated"),
        (lengthen, "object_truncated"),
        (other_range, "object_answer_wrong"),
        (whole_object, "object_answer_wrong"),
    ],
    ids=["fewer-bytes", "more-bytes", "another-range", "no-range"],
)
def test_an_answer_of_another_length_or_place_is_an_integrity_failure(
    remote: Remote, tmp_path: Path, lie: Callable[[Exchange], None], code: str
) -> None:
    objects = remote.open(tmp_path)
    ref = objects.new_ref(os.urandom)
    objects.put(ref, [DATA])
    remote.proxy.next(lie, method="GET")
    with pytest.raises(IntegrityFailure) as caught:
        objects.get(ref, 1_000, 20_000)
    assert caught.value.code == code
    assert ref in caught.value.detail
    assert objects.get(ref, 1_000, 20_000) == DATA[1_000:21_000]


def test_a_length_from_a_damaged_record_reserves_no_memory(remote: Remote, tmp_path: Path) -> None:
    objects = remote.open(tmp_path)
    ref = objects.new_ref(os.urandom)
    objects.put(ref, [DATA])
    with pytest.raises(IntegrityFailure):
        objects.get(ref, 100, 1 << 60)


def test_a_large_object_survives_lost_answers_in_every_step(remote: Remote, tmp_path: Path) -> None:
    objects = remote.open(tmp_path)
    for method in ("PUT", "POST", "HEAD"):
        for fault in (lose_answer, says(503, "SlowDown")):
            ref = objects.new_ref(os.urandom)
            remote.proxy.next(fault, method=method, path="c0/")
            assert objects.put(ref, large()) == LARGE
            assert objects.get(ref, 3 * MIB - 1, 2) == bytes([2, 3])
            assert_only(objects, ref, LARGE)
            objects.delete(ref)
            remote.proxy._faults.clear()


def test_a_large_object_that_cannot_be_finished_is_unavailable_and_not_there(remote: Remote, tmp_path: Path) -> None:
    objects = remote.open(tmp_path, retries=1)
    ref = objects.new_ref(os.urandom)

    def never_done(exchange: Exchange) -> None:
        if (exchange.method == "POST" and "uploadId" in exchange.path) or "comp=blocklist" in exchange.path:
            exchange.answered = False
        else:
            exchange.forward()

    remote.proxy.always = never_done
    with pytest.raises(Unavailable) as caught:
        objects.put(ref, large())
    assert caught.value.code == "object_store_unavailable"
    assert_tells_nothing(caught.value)
    remote.proxy.always = None
    assert remote.proxy.count("POST", "uploadId") + remote.proxy.count("PUT", "comp=blocklist") == 2
    assert list(objects.all_objects()) == []


def test_the_last_answer_about_a_large_object_may_be_lost_for_good(remote: Remote, tmp_path: Path) -> None:
    """The object is there, so it was stored: it is compared with what was sent."""
    objects = remote.open(tmp_path, retries=1)
    ref = objects.new_ref(os.urandom)

    def done_but_silent(exchange: Exchange) -> None:
        exchange.forward()
        if (exchange.method == "POST" and "uploadId" in exchange.path) or "comp=blocklist" in exchange.path:
            exchange.answered = False

    remote.proxy.always = done_but_silent
    assert objects.put(ref, large()) == LARGE
    remote.proxy.always = None
    assert_only(objects, ref, LARGE)


def test_memory_stays_flat_however_large_an_object_is(s3: Remote, tmp_path: Path) -> None:
    """Python's own memory is traced, and the library holds `PARTS_AT_ONCE` parts and the one being filled."""
    objects = s3.open(tmp_path)
    s3.proxy.always = _swallow
    peaks = []
    for size in (40 * MIB, 160 * MIB):
        tracemalloc.start()
        before = resident()
        highest = before

        def source(size: int = size) -> Iterator[memoryview]:
            nonlocal highest
            buffer = bytearray(MIB)
            for _ in range(size // MIB):
                yield memoryview(buffer)
                highest = max(highest, resident())

        objects.put(objects.new_ref(os.urandom), source())
        peaks.append((tracemalloc.get_traced_memory()[1], highest - before))
        tracemalloc.stop()
    (small, _), (large_, held) = peaks
    assert large_ < small + 8 * MIB
    assert held < 120 * MIB


def resident() -> int:
    """Bytes of memory this process holds."""
    with open("/proc/self/statm", encoding="ascii") as file:  # noqa: PTH123 - a file of the kernel
        return int(file.read().split()[1]) * os.sysconf("SC_PAGESIZE")


def _swallow(exchange: Exchange) -> None:
    """An S3 that keeps nothing, so that its memory is not counted for ours."""
    if exchange.method == "POST" and "uploads" in exchange.path:
        exchange.answer(200, b"<InitiateMultipartUploadResult><UploadId>u</UploadId></InitiateMultipartUploadResult>")
    elif exchange.method == "POST":
        exchange.answer(200, b"<CompleteMultipartUploadResult><ETag>e</ETag></CompleteMultipartUploadResult>")
    elif exchange.method == "PUT":
        exchange.answer(200, ETag='"e"')
    else:
        exchange.forward()


def test_deleting_again_after_a_lost_answer_is_fine(remote: Remote, tmp_path: Path) -> None:
    objects = remote.open(tmp_path)
    for fault in (lose_answer, lose_request, says(500, after=True)):
        ref = objects.new_ref(os.urandom)
        objects.put(ref, [DATA])
        remote.proxy.next(fault, path="c0|comp=batch", method="DELETE" if remote.store.kind == "s3" else "POST")
        objects.delete(ref)
        assert remote.proxy.left == 0
    assert list(objects.all_objects()) == []


def test_a_listing_goes_on_where_it_broke_off(s3: Remote, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The proxy makes the store answer seven at a time; a page is lost again and again, and no object is listed twice or left out."""
    monkeypatch.setattr(adapter, "PAGE", 7)
    objects = s3.open(tmp_path)
    refs = {objects.new_ref(os.urandom) for _ in range(40)}
    for ref in refs:
        objects.put(ref, [b"value"])

    def seven(exchange: Exchange) -> None:
        if exchange.method == "GET" and "list-type=2" in exchange.path:
            exchange.path += "&max-keys=7"
        exchange.forward()

    s3.proxy.always = seven
    listed = [info.ref for info in objects.all_objects()]
    assert sorted(listed) == sorted(refs)
    pages = s3.proxy.count("GET", "list-type=2")
    assert pages == 6
    for number in range(pages):
        s3.proxy.seen.clear()
        for _ in range(number):
            s3.proxy.next(seven, path="list-type=2")
        s3.proxy.next(says(503, "SlowDown") if number % 2 else lose_answer, path="list-type=2", times=2)
        assert sorted(info.ref for info in objects.all_objects()) == sorted(refs)


def test_a_listing_is_taken_page_by_page(s3: Remote, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adapter, "PAGE", 5)
    objects = s3.open(tmp_path)
    for _ in range(20):
        objects.put(objects.new_ref(os.urandom), [b"value"])

    def five(exchange: Exchange) -> None:
        exchange.path += "&max-keys=5" if "list-type=2" in exchange.path else ""
        exchange.forward()

    s3.proxy.always = five
    listing = iter(objects.all_objects())
    next(listing)
    assert s3.proxy.count("GET", "list-type=2") <= 2, "what is not asked for is not fetched"
    assert len(list(listing)) == 19


def test_what_is_not_ours_in_a_bucket_is_not_listed(s3: Remote, tmp_path: Path) -> None:
    objects = s3.open(tmp_path, 2)
    ref = objects.new_ref(os.urandom)
    objects.put(ref, [b"value"])
    put = next(path for method, path, _ in s3.proxy.seen if method == "PUT")
    from support.objects import boto3  # noqa: PLC0415 - only here

    client, base = boto3(s3.store), put.removeprefix(f"/{BUCKET}/").removesuffix(f"/{ref}")
    for name in ("c0/readme.txt", "c0/AB" + "0" * 30, "c0/" + "0" * 31, "c0/deeper/" + "0" * 32, "c7/" + "0" * 32, "0" * 32):
        client.put_object(Bucket=BUCKET, Key=f"{base}/{name}", Body=b"somebody else's")
    assert [info.ref for info in objects.all_objects()] == [ref]


def test_ages_are_told_by_the_stores_clock(remote: Remote, tmp_path: Path) -> None:
    objects = remote.open(tmp_path)
    objects.put(objects.new_ref(os.urandom), [DATA])

    def two_hours_ahead(exchange: Exchange) -> None:
        exchange.forward()
        if exchange.method == "HEAD" and exchange.path == "/":
            exchange.headers["Date"] = "Thu, 01 Jan 2099 00:00:00 GMT"

    remote.proxy.always = two_hours_ahead
    (info,) = objects.all_objects()
    assert info.age_seconds > 365 * 86_400
    remote.proxy.always = lambda exchange: exchange.answer(400, Date="")
    with pytest.raises(Unavailable, match="what time it is"):
        list(objects.all_objects())


def test_a_store_that_does_not_hurry_is_waited_for_no_longer_than_the_timeout(remote: Remote, tmp_path: Path) -> None:
    objects = remote.open(tmp_path, retries=1, timeout=300)
    ref = objects.new_ref(os.urandom)
    released = threading.Event()

    def stuck(exchange: Exchange) -> None:
        released.wait(30)
        exchange.answered = False

    remote.proxy.always = stuck
    try:
        for call in (lambda: objects.put(ref, [DATA]), lambda: objects.get(ref, 0, 5), lambda: objects.delete(ref)):
            with pytest.raises(Unavailable) as caught:
                call()
            assert "did not answer" in caught.value.detail
        assert objects.check() == ["c0"]
    finally:
        released.set()


def test_wrong_bytes_of_the_right_length_are_for_the_cipher_to_find(remote: Remote, tmp_path: Path) -> None:
    """The store keeps ciphertext and cannot tell; what opens it can: see test_service.py."""
    objects = remote.open(tmp_path)
    ref = objects.new_ref(os.urandom)
    objects.put(ref, [DATA])
    remote.proxy.next(flip_bytes, method="GET")
    assert objects.get(ref, 0, 100) == bytes(byte ^ 1 for byte in DATA[:100])
