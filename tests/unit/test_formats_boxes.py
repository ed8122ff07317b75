"""Wrapped keys, sealed objects, packs, envelopes and the hierarchy, beyond what the vectors say."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import pytest
from zstandard import ZstdCompressor

from keystead.core.errors import IntegrityFailure
from keystead.core.formats import envelope, pack, sealed_object, wrapped_key
from keystead.core.formats.aead import Aes
from keystead.core.formats.context import Context, key_context, object_context
from keystead.core.keys import hierarchy
from keystead.core.secret import SecretKey

if TYPE_CHECKING:
    from keystead.core.ids import RandomBytes

TENANT, OLD, NEW, ITEM, PACK = (f"00000000-0000-4000-8000-00000000000{digit}" for digit in range(5))
OLD_KEY, NEW_KEY = Aes(SecretKey(b"o" * 32)), Aes(SecretKey(b"n" * 32))
NONCE = b"nonce-nonce!"


def counting() -> RandomBytes:
    state = iter(range(1_000_000))
    return lambda size: next(state).to_bytes(size, "big")


def item(number: int) -> str:
    return f"10000000-0000-4000-8000-{number:012x}"


def of(item_id: str) -> Context:
    return object_context(TENANT, "item", item_id, 0, last=True)


def noise(size: int) -> bytes:
    return hashlib.shake_256(b"noise").digest(size)


# Wrapped keys


def test_rewrapping_moves_the_same_key_to_the_new_parent() -> None:
    """R-095."""
    keys = {item(number): SecretKey(bytes([number]) * 32) for number in range(1, 20)}
    wrapped = [
        (
            key_id,
            wrapped_key.wrap(
                OLD_KEY, key, parent_id=OLD, parent_version=1, context=key_context(TENANT, "mailbox-key", key_id, OLD, 1), nonce=NONCE
            ),
        )
        for key_id, key in keys.items()
    ]
    moved = dict(
        wrapped_key.rewrap_all(
            wrapped,
            tenant_id=TENANT,
            kind="mailbox-key",
            old=OLD_KEY,
            old_id=OLD,
            old_version=1,
            new=NEW_KEY,
            new_id=NEW,
            new_version=2,
            random=counting(),
        )
    )
    assert list(moved) == list(keys)
    for key_id, blob in moved.items():
        bound = key_context(TENANT, "mailbox-key", key_id, NEW, 2)
        assert wrapped_key.unwrap(NEW_KEY, blob, parent_id=NEW, parent_version=2, context=bound, object_name=key_id) == keys[key_id]


def test_rewrapping_stops_at_a_key_that_was_swapped() -> None:
    bound = key_context(TENANT, "mailbox-key", item(1), OLD, 1)
    blob = wrapped_key.wrap(OLD_KEY, SecretKey(b"k" * 32), parent_id=OLD, parent_version=1, context=bound, nonce=NONCE)
    moving = wrapped_key.rewrap_all(
        [(item(1), blob), (item(2), blob)],
        tenant_id=TENANT,
        kind="mailbox-key",
        old=OLD_KEY,
        old_id=OLD,
        old_version=1,
        new=NEW_KEY,
        new_id=NEW,
        new_version=1,
        random=counting(),
    )
    assert next(moving)[0] == item(1)
    with pytest.raises(IntegrityFailure, match=item(2)):
        next(moving)


@pytest.mark.parametrize("blob", [b"", b"KSWK\1\1", bytes(86)])
def test_the_parent_of_something_else_is_refused(blob: bytes) -> None:
    with pytest.raises(IntegrityFailure, match="wrapped_key_damaged"):
        wrapped_key.parent_of(blob, object_name="x")


# Sealed objects


def sealed(plaintext: bytes, compressor: ZstdCompressor | None = None) -> bytes:
    return sealed_object.seal(OLD_KEY, plaintext, key_id=OLD, key_version=1, context=of(ITEM), nonce=NONCE, compressor=compressor)


@pytest.mark.parametrize("plaintext", [b"", b"one", b"line\r\n" * 5000, noise(100_000)], ids=["empty", "short", "lines", "noise"])
@pytest.mark.parametrize("compress", [False, True])
def test_sealing_into_a_buffer_gives_the_same_box(plaintext: bytes, *, compress: bool) -> None:
    compressor = sealed_object.new_compressor() if compress else None
    expected = sealed(plaintext, compressor)
    buffer = memoryview(bytearray(7 + len(expected) + 3))
    size = sealed_object.seal_into(
        buffer, OLD_KEY, plaintext, key_id=OLD, key_version=1, context=of(ITEM), nonce=NONCE, offset=7, compressor=compressor
    )
    assert buffer[7 : 7 + size] == expected
    assert bytes(buffer[:7]) + bytes(buffer[7 + size :]) == bytes(10)
    out = memoryview(bytearray(5 + len(plaintext)))
    length = sealed_object.open_into(out, OLD_KEY, expected, key_id=OLD, key_version=1, context=of(ITEM), object_name=ITEM, offset=5)
    assert out[5 : 5 + length] == plaintext
    header = sealed_object.parse_header(expected, object_name=ITEM)
    assert (header.key_id, header.key_version, header.length, header.nonce) == (OLD, 1, len(plaintext), NONCE)
    assert header.compressed == (compress and plaintext.startswith(b"line"))


def test_a_box_that_does_not_open_into_a_buffer_leaves_zeros() -> None:
    box = bytearray(sealed(noise(1000)))
    box[-1] ^= 1
    out = memoryview(bytearray(b"\xff" * 1000))
    with pytest.raises(IntegrityFailure, match="object_damaged"):
        sealed_object.open_into(out, OLD_KEY, box, key_id=OLD, key_version=1, context=of(ITEM), object_name=ITEM)
    assert out == bytes(1000)


def test_buffers_that_are_too_small_are_refused() -> None:
    box = sealed(b"content")
    for offset in (-1, 1):
        with pytest.raises(ValueError, match="too small"):
            sealed_object.seal_into(
                memoryview(bytearray(67)), OLD_KEY, b"content", key_id=OLD, key_version=1, context=of(ITEM), nonce=NONCE, offset=offset
            )
        with pytest.raises(ValueError, match="too small"):
            sealed_object.open_into(
                memoryview(bytearray(7)), OLD_KEY, box, key_id=OLD, key_version=1, context=of(ITEM), object_name=ITEM, offset=offset
            )
    for size, scratch in ((66, 7), (67, 6)):
        with pytest.raises(ValueError, match="too small"):
            resealed(box, memoryview(bytearray(size)), memoryview(bytearray(scratch)))


def test_the_largest_object_is_16_mib() -> None:
    limit = sealed_object.MAX_PLAINTEXT_BYTES
    assert limit == 16 * 1024 * 1024
    with pytest.raises(ValueError, match="at most 16777216 bytes"):
        sealed(bytes(limit + 1))
    with pytest.raises(ValueError, match="at most 16777216 bytes"):
        sealed_object.seal_into(
            memoryview(bytearray(1)), OLD_KEY, bytes(limit + 1), key_id=OLD, key_version=1, context=of(ITEM), nonce=NONCE
        )


def test_a_compressor_that_hides_sizes_is_refused_when_sealing_not_when_opening() -> None:
    with pytest.raises(ValueError, match="does not state content sizes"):
        sealed(bytes(1000), ZstdCompressor(write_content_size=False))


def resealed(box: bytes, buffer: memoryview, scratch: memoryview) -> int:
    return sealed_object.reseal_into(
        buffer,
        scratch,
        box,
        old=OLD_KEY,
        old_id=OLD,
        old_version=1,
        old_context=of(ITEM),
        new=NEW_KEY,
        new_id=NEW,
        new_version=2,
        new_context=of(ITEM),
        nonce=b"another-one!",
        object_name=ITEM,
    )


@pytest.mark.parametrize("compress", [False, True])
def test_resealing_keeps_content_and_compression(*, compress: bool) -> None:
    """R-097."""
    plaintext = b"line\r\n" * 5000
    box = sealed(plaintext, sealed_object.new_compressor() if compress else None)
    buffer = memoryview(bytearray(len(box)))
    assert resealed(box, buffer, memoryview(bytearray(len(box)))) == len(box)
    assert sealed_object.parse_header(buffer, object_name=ITEM).compressed == compress
    opened = sealed_object.open_object(NEW_KEY, buffer, key_id=NEW, key_version=2, context=of(ITEM), object_name=ITEM)
    assert opened == plaintext
    with pytest.raises(IntegrityFailure):
        sealed_object.open_object(OLD_KEY, buffer, key_id=OLD, key_version=1, context=of(ITEM), object_name=ITEM)


def test_resealing_a_damaged_box_seals_nothing() -> None:
    box = bytearray(sealed(b"content"))
    box[50] ^= 1
    buffer, scratch = memoryview(bytearray(67)), memoryview(bytearray(7))
    with pytest.raises(IntegrityFailure, match=ITEM):
        resealed(bytes(box), buffer, scratch)
    assert (bytes(buffer), bytes(scratch)) == (bytes(67), bytes(7))


# Packs


def writer(size: int = 4096, key: Aes = NEW_KEY) -> pack.PackWriter:
    return pack.PackWriter(bytearray(size), key, tenant_id=TENANT, key_id=NEW, key_version=2, random=counting())


def index_of(data: memoryview) -> list[pack.PackEntry]:
    return pack.read_index(NEW_KEY, data, tenant_id=TENANT, pack_id=PACK, key_id=NEW, key_version=2)


def test_items_are_found_by_the_index_and_open_alone() -> None:
    packing = writer()
    packing.add(item(1), b"straight in", context=of(item(1)))
    packing.add(item(2), b"line\r\n" * 50, context=of(item(2)), compressor=sealed_object.new_compressor())
    ready = sealed_object.seal(NEW_KEY, b"ready made", key_id=NEW, key_version=2, context=of(item(3)), nonce=NONCE)
    packing.add_sealed(item(3), ready)
    packing.add_resealed(
        ITEM,
        sealed(b"moved"),
        scratch=memoryview(bytearray(100)),
        old=OLD_KEY,
        old_id=OLD,
        old_version=1,
        old_context=of(ITEM),
        new_context=of(ITEM),
    )
    entries = packing.entries
    whole = packing.finish(PACK)
    assert index_of(whole) == entries
    opened = [
        sealed_object.open_object(
            NEW_KEY,
            whole[entry.offset : entry.offset + entry.length],
            key_id=NEW,
            key_version=2,
            context=of(entry.item_id),
            object_name=entry.item_id,
        )
        for entry in entries
    ]
    assert opened == [b"straight in", b"line\r\n" * 50, b"ready made", b"moved"]


def test_the_index_is_found_from_the_end_alone() -> None:
    packing = writer()
    packing.add(item(1), b"content", context=of(item(1)))
    whole = packing.finish(PACK)
    offset, length = pack.index_range(whole[-8:], len(whole), pack_id=PACK)
    box = whole[offset : offset + length]
    entries = pack.open_index(NEW_KEY, box, offset, tenant_id=TENANT, pack_id=PACK, key_id=NEW, key_version=2)
    assert entries == [pack.PackEntry(item(1), 8, 67)]


def test_a_pack_takes_items_up_to_its_size_and_no_more() -> None:
    packing = writer(size=300)
    exactly = 300 - 8 - 60 - 24 - 8 - 60
    assert packing.fits(exactly)
    assert not packing.fits(exactly + 1)
    with pytest.raises(ValueError, match="does not fit"):
        packing.add(item(1), bytes(exactly + 1), context=of(item(1)))
    packing.add(item(1), bytes(exactly), context=of(item(1)))
    assert not packing.fits(0)
    assert len(packing.finish(PACK)) == 300


def test_a_pack_is_never_larger_than_8_mib_whatever_the_buffer() -> None:
    packing = writer(size=9 * 1024 * 1024)
    assert packing.fits(8 * 1024 * 1024 - 160)
    assert not packing.fits(8 * 1024 * 1024 - 159)


def test_a_failed_add_leaves_the_pack_as_it_was() -> None:
    packing = writer()
    packing.add(item(1), b"content", context=of(item(1)))
    before = packing.entries
    with pytest.raises(ValueError, match="in the pack already"):
        packing.add(item(1), b"again", context=of(item(1)))
    with pytest.raises(ValueError, match="sealed by another key"):
        packing.add_sealed(item(2), sealed(b"old key"))
    with pytest.raises(IntegrityFailure, match="object_damaged"):
        packing.add_sealed(item(2), bytes(100))
    assert packing.entries == before
    assert index_of(packing.finish(PACK)) == before


def test_a_pack_is_finished_once_and_is_not_empty() -> None:
    packing = writer()
    with pytest.raises(ValueError, match="at least one item"):
        packing.finish(PACK)
    packing.add(item(1), b"content", context=of(item(1)))
    packing.finish(PACK)
    with pytest.raises(ValueError, match="finished once"):
        packing.finish(PACK)
    with pytest.raises(ValueError, match="is finished"):
        packing.add(item(2), b"content", context=of(item(2)))


@pytest.mark.parametrize("size", [0, 159, 8 * 1024 * 1024 + 1])
def test_no_index_lies_in_a_file_that_is_no_pack(size: int) -> None:
    with pytest.raises(IntegrityFailure, match="pack_damaged"):
        pack.index_range((84).to_bytes(4, "big") + b"KPSK", size, pack_id=PACK)


# Envelopes


@pytest.mark.parametrize(
    ("algorithm", "uri", "size"),
    [("RSA-OAEP-256", "k", 255), ("RSA-OAEP-256", "k", 0), ("AVAILABILITY", "k", 0), ("AVAILABILITY", "k", 513), ("AVAILABILITY", "", 1)]
    + [("AVAILABILITY", uri, 1) for uri in ("a b", "ü", "k\n", "x" * 1025)],
)
def test_envelopes_outside_the_limits_cannot_be_made(algorithm: str, uri: str, size: int) -> None:
    with pytest.raises(ValueError, match=r"key URI|not a value wrapped"):
        envelope.Envelope(envelope.WrapAlgorithm(algorithm), uri, bytes(size))


def test_the_largest_envelope_is_within_the_limit() -> None:
    largest = envelope.encode(envelope.Envelope(envelope.WrapAlgorithm.RSA_OAEP_256, "x" * 1024, bytes(512)))
    assert len(largest) <= envelope.MAX_ENVELOPE_BYTES


# The hierarchy


def test_a_check_value_tells_one_policy_key_from_another() -> None:
    """R-079."""
    right, wrong = hierarchy.expand_policy_key(SecretKey(b"p" * 32)), hierarchy.expand_policy_key(SecretKey(b"q" * 32))
    hierarchy.check_matches(right.check, right, policy_name="mail")
    for stored in (wrong.check, b"", right.check[:16]):
        with pytest.raises(IntegrityFailure, match="check_value_mismatch: a copy of the key of policy mail "):
            hierarchy.check_matches(stored, right, policy_name="mail")


def test_expanded_keys_show_nothing() -> None:
    keys = hierarchy.expand_policy_key(SecretKey(b"p" * 32))
    assert repr(keys) == "PolicyKeys(wrap=Aes(...), lookup=SecretKey(...))"
    assert repr(hierarchy.expand_mailbox_key(SecretKey(b"p" * 32))) == "MailboxKeys(seal=Aes(...), lookup=SecretKey(...))"


@pytest.mark.parametrize("purpose", ["", "x" * 65, "ü"])
def test_a_keyed_hash_has_a_purpose(purpose: str) -> None:
    with pytest.raises(ValueError, match=r"purpose|ascii"):
        hierarchy.keyed_hash(SecretKey(b"l" * 32), purpose, b"data")


def test_the_same_value_hashes_differently_for_each_purpose_and_key() -> None:
    one, two = SecretKey(b"1" * 32), SecretKey(b"2" * 32)
    hashes = {
        hierarchy.keyed_hash(key, purpose, data) for key in (one, two) for purpose, data in [("a", b"bc"), ("ab", b"c"), ("b", b"bc")]
    }
    assert len(hashes) == 6
