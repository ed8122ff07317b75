"""The vectors of docs/spec/keystore.md: our code makes and opens exactly these bytes, and so does twenty lines of somebody else's AES."""

from __future__ import annotations

import hashlib
import hmac
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from keystead.adapters.keystores import boxes
from keystead.core.errors import IntegrityFailure
from keystead.core.formats.aead import Aes
from keystead.core.secret import SecretKey
from keystead.ports.keystore import Compartment

if TYPE_CHECKING:
    from contracts.keystores.homes import Home

VECTORS: dict[str, Any] = json.loads((Path(__file__).parents[2] / "vectors" / "keystore.json").read_text())
COMPARTMENT = Compartment(VECTORS["compartment"])
EPOCH, KEY_ID, CONTEXT = VECTORS["epoch"], VECTORS["key_id"], bytes.fromhex(VECTORS["context"])
FIELDS = {
    "epoch_file": (boxes.Kind.EPOCH_KEY, boxes.epoch_fields(COMPARTMENT, EPOCH)),
    "entry": (boxes.Kind.ENTRY_KEY, boxes.entry_fields(COMPARTMENT, KEY_ID, EPOCH)),
    "value": (boxes.Kind.VALUE, boxes.value_fields(COMPARTMENT, KEY_ID, CONTEXT)),
}
KEYS = {"epoch_file": VECTORS["wrapping_key"], "entry": VECTORS["epoch_file"]["plaintext"], "value": VECTORS["entry"]["plaintext"]}


def opened_by_others(master: bytes, epoch_file: bytes, entry: bytes, value: bytes) -> bytes:
    """The independent opener: from the master to the value, with an HMAC and a plain GCM."""

    def unbox(key: bytes, magic: bytes, box: bytes, *fields: bytes) -> bytes:
        assert box[:6] == magic + b"\x01\x01"
        gcm = Cipher(algorithms.AES(key), modes.GCM(box[6:18], box[-16:])).decryptor()
        gcm.authenticate_additional_data(box[:6] + b"".join(len(field).to_bytes(4, "big") + field for field in fields))
        return gcm.update(box[18:-16]) + gcm.finalize()

    compartment, epoch, key_id = COMPARTMENT.encode(), EPOCH.to_bytes(8, "big"), KEY_ID.encode()
    extracted = hmac.digest(bytes(32), master, hashlib.sha256)
    wrapping = hmac.digest(extracted, b"keystead/keystore/epoch/" + compartment + b"\x01", hashlib.sha256)
    epoch_key = unbox(wrapping, b"KSKE", epoch_file, compartment, epoch)
    key = unbox(epoch_key, b"KSKN", entry, compartment, key_id, epoch)
    return unbox(key, b"KSKB", value, compartment, key_id, CONTEXT)


def test_somebody_elses_aes_opens_the_vectors() -> None:
    master, *sealed = (bytes.fromhex(text) for text in (VECTORS["master"], *(VECTORS[name]["box"] for name in FIELDS)))
    assert opened_by_others(master, *sealed).hex() == VECTORS["value"]["plaintext"]


@pytest.mark.parametrize("name", FIELDS)
def test_our_boxes_are_those_of_the_vectors(name: str) -> None:
    vector, (kind, fields) = VECTORS[name], FIELDS[name]
    cipher = Aes(SecretKey(bytes.fromhex(KEYS[name])))
    box = boxes.seal(cipher, kind, bytes.fromhex(vector["plaintext"]), fields, lambda _size: bytes.fromhex(vector["nonce"]))
    assert box.hex() == vector["box"]
    assert (box[:6] + boxes.encoded(fields)).hex() == vector["associated_data"]
    assert boxes.unseal(cipher, kind, box, fields).hex() == vector["plaintext"]


@pytest.mark.parametrize("name", FIELDS)
def test_a_box_opens_only_as_what_it_is(name: str) -> None:
    cipher = Aes(SecretKey(bytes.fromhex(KEYS[name])))
    for other, (kind, fields) in FIELDS.items():
        if other != name:
            with pytest.raises(boxes.WrongBox):
                boxes.unseal(cipher, kind, bytes.fromhex(VECTORS[name]["box"]), fields)


@pytest.mark.parametrize("case", VECTORS["refused"], ids=lambda case: case["why"])
def test_what_must_be_refused_is(case: dict[str, str]) -> None:
    kind, fields = FIELDS["value"]
    with pytest.raises(boxes.WrongBox):
        boxes.unseal(Aes(SecretKey(bytes.fromhex(KEYS["value"]))), kind, bytes.fromhex(case["box"]), fields)


def test_the_store_works_on_the_files_and_rows_of_the_vectors(home: Home) -> None:
    master = bytes.fromhex(VECTORS["master"])
    home.process(master=master)
    (home.seals / VECTORS["epoch_file"]["file"]).write_bytes(bytes.fromhex(VECTORS["epoch_file"]["box"]))
    home.stores.sql("keys", "UPDATE compartments SET epoch = ? WHERE name = ?", EPOCH, COMPARTMENT.value)
    row = (COMPARTMENT.value, KEY_ID, 0, bytes.fromhex(VECTORS["entry"]["box"]))
    home.stores.sql("keys", "INSERT INTO entries VALUES (?, ?, ?, ?)", *row)
    store = home.process(master=master)
    value = bytes.fromhex(VECTORS["value"]["box"])
    assert store.open(COMPARTMENT, KEY_ID, value, CONTEXT).hex() == VECTORS["value"]["plaintext"]
    for case in VECTORS["refused"]:
        with pytest.raises(IntegrityFailure):
            store.open(COMPARTMENT, KEY_ID, bytes.fromhex(case["box"]), CONTEXT)
    sealed = store.seal(COMPARTMENT, KEY_ID, b"new", CONTEXT)
    parts = (bytes.fromhex(VECTORS["epoch_file"]["box"]), bytes.fromhex(VECTORS["entry"]["box"]), sealed)
    assert opened_by_others(master, *parts) == b"new"
