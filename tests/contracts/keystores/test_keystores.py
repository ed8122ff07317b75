"""What every key store does (ports/keystore.py). Another one joins with one more case of the fixture."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from contracts.keystores.homes import NOW, FixedClock, Home
from keystead.adapters.keystores.memory import MemoryKeyStore
from keystead.core.errors import IntegrityFailure, InvalidRequest, NotFound
from keystead.ports.keystore import Compartment, KeyEntry, KeyStore

if TYPE_CHECKING:
    from collections.abc import Callable

SHRED, MAIL, FILES = Compartment.SHRED, Compartment.AVAILABILITY_MAIL, Compartment.AVAILABILITY_FILES
CONTEXT = b"tenant/policy/1"


@pytest.fixture(params=["memory", "sql"])
def store(request: pytest.FixtureRequest, home: Home) -> KeyStore:
    return MemoryKeyStore(FixedClock(), os.urandom) if request.param == "memory" else home.process()


@pytest.mark.parametrize("value", [b"", b"v", bytes(range(256)) * 16])
def test_opens_what_it_sealed(store: KeyStore, value: bytes) -> None:
    store.create(SHRED, "k1")
    box = store.seal(SHRED, "k1", value, CONTEXT)
    assert store.open(SHRED, "k1", box, CONTEXT) == value
    assert len(box) == len(value) + 34
    assert not value or len(value) < 4 or value not in box


def test_creating_twice_changes_nothing(store: KeyStore) -> None:
    store.create(SHRED, "k1")
    box = store.seal(SHRED, "k1", b"value", CONTEXT)
    store.create(SHRED, "k1")
    assert store.open(SHRED, "k1", box, CONTEXT) == b"value"
    assert store.entries(SHRED) == [KeyEntry("k1", NOW)]


def test_lists_keys_of_one_compartment_by_id(store: KeyStore) -> None:
    for key_id in ("b", "a", "c"):
        store.create(SHRED, key_id)
    store.create(MAIL, "m")
    assert [entry.key_id for entry in store.entries(SHRED)] == ["a", "b", "c"]
    assert store.entries(Compartment.PROVIDER) == []


def test_a_compartment_does_not_open_what_another_sealed(store: KeyStore) -> None:
    """R-139."""
    for compartment in (SHRED, MAIL):
        store.create(compartment, "k1")
    box = store.seal(SHRED, "k1", b"value", CONTEXT)
    with pytest.raises(IntegrityFailure) as caught:
        store.open(MAIL, "k1", box, CONTEXT)
    assert caught.value.code == "keystore_box_damaged"


def test_another_key_or_context_does_not_open(store: KeyStore) -> None:
    store.create(SHRED, "k1")
    store.create(SHRED, "k2")
    box = store.seal(SHRED, "k1", b"value", CONTEXT)
    for key_id, context in (("k2", CONTEXT), ("k1", b"tenant/policy/2"), ("k1", CONTEXT + b"\0")):
        with pytest.raises(IntegrityFailure):
            store.open(SHRED, key_id, box, context)


def test_a_change_of_any_byte_is_found(store: KeyStore) -> None:
    store.create(SHRED, "k1")
    box = store.seal(SHRED, "k1", b"value", CONTEXT)
    changed = [box[:at] + bytes([box[at] ^ 1]) + box[at + 1 :] for at in range(len(box))]
    for wrong in [*changed, b"", box[:-1], box[:20], box + b"\0"]:
        with pytest.raises(IntegrityFailure):
            store.open(SHRED, "k1", wrong, CONTEXT)


def test_destroyed_keys_are_gone_and_the_others_stay(store: KeyStore) -> None:
    boxes = {}
    for key_id in ("k1", "k2", "k3"):
        store.create(SHRED, key_id)
        boxes[key_id] = store.seal(SHRED, key_id, key_id.encode(), CONTEXT)
    store.destroy(SHRED, ["k1", "never-made", "k3"])
    store.destroy(SHRED, ["k1"])
    store.destroy(SHRED, [])
    for key_id in ("k1", "k3"):
        with pytest.raises(NotFound) as caught:
            store.open(SHRED, key_id, boxes[key_id], CONTEXT)
        assert caught.value.code == "keystore_key_not_found"
        with pytest.raises(NotFound):
            store.seal(SHRED, key_id, b"value", CONTEXT)
    assert store.open(SHRED, "k2", boxes["k2"], CONTEXT) == b"k2"
    assert store.entries(SHRED) == [KeyEntry("k2", NOW)]


def test_rotation_keeps_every_sealed_value(store: KeyStore) -> None:
    """R-152."""
    store.create(MAIL, "k1")
    box = store.seal(MAIL, "k1", b"value", CONTEXT)
    assert [store.rotate(MAIL), store.rotate(MAIL)] == [2, 3]
    assert store.open(MAIL, "k1", box, CONTEXT) == b"value"
    assert store.rotate(SHRED) == 2


@pytest.mark.parametrize(
    ("call", "code"),
    [
        (lambda store: store.seal(SHRED, "k1", bytes(4_097), CONTEXT), "keystore_value_too_long"),
        (lambda store: store.seal(SHRED, "k1", b"value", b""), "keystore_context_invalid"),
        (lambda store: store.seal(SHRED, "k1", b"value", bytes(8_193)), "keystore_context_invalid"),
        (lambda store: store.open(SHRED, "k1", b"box", b""), "keystore_context_invalid"),
        (lambda store: store.create(SHRED, ""), "keystore_key_id_invalid"),
        (lambda store: store.create(SHRED, "a b"), "keystore_key_id_invalid"),
        (lambda store: store.create(SHRED, "a" * 256), "keystore_key_id_invalid"),
        (lambda store: store.seal(SHRED, "é", b"value", CONTEXT), "keystore_key_id_invalid"),
    ],
)
def test_limits_are_refused(store: KeyStore, call: Callable[[KeyStore], object], code: str) -> None:
    store.create(SHRED, "k1")
    with pytest.raises(InvalidRequest) as caught:
        call(store)
    assert caught.value.code == code
    assert caught.value.mend


# -- availability keys of files: RSA-2048 -----------------------------------------------------------------------------------------------


KEY = bytes(range(32))


def test_an_rsa_key_opens_what_it_sealed_and_no_two_boxes_are_alike(store: KeyStore) -> None:
    """R-110, R-140."""
    store.create(FILES, "k1")
    boxes = [store.seal(FILES, "k1", KEY, CONTEXT) for _ in range(2)]
    assert [store.open(FILES, "k1", box, CONTEXT) for box in boxes] == [KEY, KEY]
    assert boxes[0] != boxes[1]
    assert {len(box) for box in boxes} == {256}
    store.create(FILES, "k1")
    assert store.open(FILES, "k1", boxes[0], CONTEXT) == KEY, "creating twice changes nothing"


def test_another_rsa_key_context_or_compartment_does_not_open(store: KeyStore) -> None:
    """R-139, R-140."""
    for compartment, key_id in ((FILES, "k1"), (FILES, "k2"), (MAIL, "k1")):
        store.create(compartment, key_id)
    box = store.seal(FILES, "k1", KEY, CONTEXT)
    sealed_elsewhere = store.seal(MAIL, "k1", KEY, CONTEXT)
    for compartment, key_id, wrong, context in (
        (FILES, "k2", box, CONTEXT),
        (FILES, "k1", box, b"tenant/policy/2"),
        (FILES, "k1", box, CONTEXT + b"\0"),
        (MAIL, "k1", box, CONTEXT),
        (FILES, "k1", sealed_elsewhere, CONTEXT),
    ):
        with pytest.raises(IntegrityFailure) as caught:
            store.open(compartment, key_id, wrong, context)
        assert caught.value.code == "keystore_box_damaged"


def test_a_change_of_any_byte_of_an_rsa_box_is_found(store: KeyStore) -> None:
    """R-140."""
    store.create(FILES, "k1")
    box = store.seal(FILES, "k1", KEY, CONTEXT)
    changed = [box[:at] + bytes([box[at] ^ 1]) + box[at + 1 :] for at in range(len(box))]
    for wrong in [*changed, b"", box[:-1], box + b"\0", b"\xff" * 256]:
        with pytest.raises(IntegrityFailure):
            store.open(FILES, "k1", wrong, CONTEXT)


@pytest.mark.parametrize("size", [0, 31, 33, 190])
def test_an_rsa_key_wraps_one_key_and_nothing_else(store: KeyStore, size: int) -> None:
    store.create(FILES, "k1")
    with pytest.raises(InvalidRequest) as caught:
        store.seal(FILES, "k1", bytes(size), CONTEXT)
    assert caught.value.code == "keystore_value_not_a_key"


def test_an_rsa_key_survives_a_rotation_and_dies_when_destroyed(store: KeyStore) -> None:
    """R-151, R-152: the compartment is rewritten as any other."""
    store.create(FILES, "k1")
    store.create(FILES, "k2")
    boxes = {key_id: store.seal(FILES, key_id, KEY, CONTEXT) for key_id in ("k1", "k2")}
    assert store.rotate(FILES) == 2
    store.destroy(FILES, ["k1"])
    assert store.open(FILES, "k2", boxes["k2"], CONTEXT) == KEY
    with pytest.raises(NotFound):
        store.open(FILES, "k1", boxes["k1"], CONTEXT)
    assert [entry.key_id for entry in store.entries(FILES)] == ["k2"]


def test_the_memory_store_never_lets_a_destroyed_id_come_back() -> None:
    store = MemoryKeyStore(FixedClock(), os.urandom)
    store.create(SHRED, "k1")
    store.destroy(SHRED, ["k1"])
    with pytest.raises(AssertionError, match="destroyed"):
        store.create(SHRED, "k1")
