"""No lock-in: every format opens with a few lines over a general AES interface, sharing no code with Keystead (design section 4).

Written from docs/spec alone. It imports nothing of `keystead`.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import struct
import uuid
from pathlib import Path
from typing import Any

import pytest
import zstandard
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import GCM


def load(name: str) -> Any:
    return json.loads((Path(__file__).parent / f"{name}.json").read_text())


# The opener: twenty lines.


def context(kind: str, *fields: tuple[str, str]) -> bytes:
    parts = [struct.pack(">B", len(n)) + n.encode() + struct.pack(">H", len(v.encode())) + v.encode() for n, v in fields]
    return b"KSC1" + struct.pack(">B", len(kind)) + kind.encode() + struct.pack(">B", len(parts)) + b"".join(parts)


def aes_gcm(key: bytes, nonce: bytes, aad: bytes, box: bytes) -> bytes:
    cipher = Cipher(AES(key), GCM(nonce, box[-16:])).decryptor()
    cipher.authenticate_additional_data(aad)
    return cipher.update(box[:-16]) + cipher.finalize()


def unwrap(key: bytes, blob: bytes, bound: bytes) -> bytes:
    return aes_gcm(key, blob[26:38], blob[:38] + bound, blob[38:])


def open_object(key: bytes, box: bytes, bound: bytes) -> bytes:
    body = aes_gcm(key, box[32:44], box[:44] + bound, box[44:])
    return zstandard.ZstdDecompressor().decompress(body) if box[6] else body


def pack_items(key: bytes, pack: bytes, bound: bytes) -> list[tuple[str, int, int]]:
    start = len(pack) - 8 - int.from_bytes(pack[-8:-4], "big")
    return [(str(uuid.UUID(bytes=i)), o, n) for i, o, n in struct.iter_unpack(">16sII", open_object(key, pack[start:-8], bound))]


def open_envelope(data: bytes) -> list[bytes]:
    fields: list[bytes] = []
    rest = data[6:]
    for width in (1, 2, 2):
        end = width + int.from_bytes(rest[:width], "big")
        fields, rest = [*fields, rest[width:end]], rest[end:]
    return fields


def hkdf(key: bytes, info: bytes) -> bytes:
    return hmac.digest(hmac.digest(bytes(32), key, "sha256"), info + b"\x01", hashlib.sha256)


# What it opens.


def object_fields(tenant: str, object_id: str, part: int = 0, *, last: bool = True) -> list[tuple[str, str]]:
    return [("tenant", tenant), ("part", str(part)), ("last", str(int(last))), ("object", object_id)]


FIELDS = {
    "tenant_id": "tenant",
    "policy_id": "policy",
    "version_id": "version",
    "role": "role",
    "key_uri": "key-uri",
    "algorithm": "algorithm",
}


@pytest.mark.parametrize("case", load("context")["valid"], ids=lambda case: case["name"])
def test_contexts(case: Any) -> None:
    given = case["arguments"]
    if case["function"] == "object_context":
        built = context(
            f"object/{given['kind']}", *object_fields(given["tenant_id"], given["object_id"], given["part"], last=given["last"])
        )
    elif case["function"] == "key_context":
        built = context(f"key/{given['kind']}", *key_fields(given))
    else:
        built = context(case["function"].removesuffix("_context"), *((FIELDS[name], value) for name, value in given.items()))
    assert built.hex() == case["bytes"]


def key_fields(given: Any) -> list[tuple[str, str]]:
    return [
        ("tenant", given["tenant_id"]),
        ("parent", given["parent_id"]),
        ("parent-version", str(given["parent_version"])),
        ("key", given["key_id"]),
    ]


def test_wrapped_key() -> None:
    case = load("wrapped_key")["valid"][0]
    bound = context("key/mailbox-key", *key_fields(case["context"]))
    assert unwrap(bytes.fromhex(case["parent_key"]), bytes.fromhex(case["bytes"]), bound).hex() == case["key"]


@pytest.mark.parametrize("case", load("envelope")["valid"], ids=lambda case: case["name"])
def test_envelope(case: Any) -> None:
    expected = [case["algorithm"].encode(), case["key_uri"].encode(), bytes.fromhex(case["wrapped"])]
    assert open_envelope(bytes.fromhex(case["bytes"])) == expected


@pytest.mark.parametrize("case", load("sealed_object")["valid"], ids=lambda case: case["name"])
def test_sealed_object(case: Any) -> None:
    document = load("sealed_object")
    bound = context("object/item", *object_fields(document["context"]["tenant_id"], document["context"]["object_id"]))
    assert open_object(bytes.fromhex(document["key"]), bytes.fromhex(case["bytes"]), bound).hex() == case["plaintext"]


def test_pack() -> None:
    document = load("pack")
    key, case, tenant = bytes.fromhex(document["key"]), document["valid"][0], document["tenant_id"]
    pack = bytes.fromhex(case["bytes"])
    entries = pack_items(key, pack, context("object/pack-index", *object_fields(tenant, document["pack_id"])))
    opened = [
        {
            "item_id": item,
            "plaintext": open_object(key, pack[offset : offset + length], context("object/item", *object_fields(tenant, item))).hex(),
        }
        for item, offset, length in entries
    ]
    assert opened == case["items"]


def test_keys() -> None:
    document = load("keys")
    for case in document["derivation"]:
        assert hkdf(bytes.fromhex(case["key"]), case["info"].encode()).hex() == case["derived"]
    for case in document["keyed_hash"]:
        purpose = case["purpose"].encode()
        message = bytes([len(purpose)]) + purpose + bytes.fromhex(case["data"])
        assert hmac.digest(bytes.fromhex(case["lookup"]), message, "sha256").hex() == case["hash"]
