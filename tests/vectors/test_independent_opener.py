"""No lock-in: every format opens with a few lines over somebody else's AES, sharing no code with Keystead (design section 4).

Written from docs/spec alone. It imports nothing of `keystead`, and its AES, HKDF and elliptic curves are PyCryptodome's, which Keystead does
not use. Only the decompressor, which sees no key, is the same library; and BLAKE3, which checks digests that no reader needs.
"""

from __future__ import annotations

import base64
import copy
import hashlib
import hmac
import json
import struct
import unicodedata
import uuid
from pathlib import Path
from typing import Any

import pytest
import zstandard
from blake3 import blake3
from Crypto.Cipher import AES, PKCS1_OAEP
from Crypto.Hash import SHA256
from Crypto.Protocol.KDF import HKDF
from Crypto.PublicKey import ECC, RSA


def load(name: str) -> Any:
    return json.loads((Path(__file__).parent / f"{name}.json").read_text())


# The opener: twenty lines.


def context(kind: str, *fields: tuple[str, str]) -> bytes:
    parts = [struct.pack(">B", len(n)) + n.encode() + struct.pack(">H", len(v.encode())) + v.encode() for n, v in fields]
    return b"KSC1" + struct.pack(">B", len(kind)) + kind.encode() + struct.pack(">B", len(parts)) + b"".join(parts)


def aes_gcm(key: bytes, nonce: bytes, aad: bytes, box: bytes) -> bytes:
    cipher = AES.new(key, AES.MODE_GCM, nonce=nonce)
    return cipher.update(aad).decrypt_and_verify(box[:-16], box[-16:])


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
    return HKDF(key, 32, b"", SHA256, context=info)


# From a policy key, rows of the database and an object file to an item: twenty lines more.


def open_mail_item(policy_key: bytes, rows: Any, objects: Any, item_id: str) -> tuple[bytes, bytes, str]:
    """Content, summary and folder name of an item of one part."""

    def row(table: str, **where: Any) -> Any:
        return next(one for one in rows[table] if where.items() <= one.items())

    item = row("items", id=item_id)
    folder, mailbox = row("folders", id=item["folder_id"]), row("mailboxes", id=item["mailbox_id"])
    tenant, policy = mailbox["tenant_id"], row("policies", id=mailbox["policy_id"])
    if hkdf(policy_key, b"keystead/1/policy-key/check").hex() != policy["check_value"]:
        raise ValueError

    def seal_key(version: int) -> bytes:
        wrapped = bytes.fromhex(row("mailbox_keys", mailbox_id=mailbox["id"], version=version)["wrapped"])
        fields = {"tenant_id": tenant, "parent_id": policy["id"], "parent_version": 1, "key_id": f"{mailbox['id']}/{version}"}
        key = unwrap(hkdf(policy_key, b"keystead/1/policy-key/wrap"), wrapped, context("key/mailbox-key", *key_fields(fields)))
        return hkdf(key, b"keystead/1/mailbox-key/seal")

    key, box = seal_key(item["key_version"]), bytes.fromhex(objects[item["object_ref"]])[item["offset"] :][: item["length"]]
    content = open_object(key, box, context("object/item", *object_fields(tenant, item_id, last=item["parts"] == 1)))
    summary = open_object(key, bytes.fromhex(item["summary"]), context("object/item-summary", *object_fields(tenant, item_id)))
    name_bound = context("object/folder-name", *object_fields(tenant, folder["id"]))
    name = open_object(seal_key(folder["key_version"]), bytes.fromhex(folder["sealed_name"]), name_bound)
    return content, summary, name.decode()


# From a TIK, rows of the database and objects to a file: the tree first, then manifest and chunks.


def check(holds: bool) -> None:  # noqa: FBT001 - what must hold
    if not holds:
        raise ValueError


def check_bucket(lookup: bytes, tree: bytes, nodes: Any, place: int) -> None:
    bits, digests = tree[1], tree[2:]
    bucket = place >> (16 - bits)
    held = sorted((node for node in nodes if node["place"] >> (16 - bits) == bucket), key=lambda node: node["id"])
    message = b"\x09file-tree" + struct.pack(">BHI", bits, bucket, len(held))
    for node in held:
        kind, digest = ["", "file", "folder"].index(node["kind"]), bytes.fromhex(node["manifest_digest"]) or bytes(32)
        message += node["id"].encode() + node["parent_id"].encode() + bytes([kind]) + bytes.fromhex(node["name_hash"])
        message += struct.pack(">I", node["version"]) + digest
    check(hmac.digest(lookup, message, "sha256")[:16] == digests[bucket * 16 :][:16])


def open_file(policy_key: bytes, rows: Any, objects: Any, node_id: str, number: int) -> tuple[bytes, str, str]:
    """Content, media type and path of a version."""

    def row(table: str, **where: Any) -> Any:
        for one in rows[table]:
            if where.items() <= one.items():
                return one
        raise ValueError

    def site_key(version: int, use: bytes) -> bytes:
        wrapped = bytes.fromhex(row("site_keys", site_id=site["id"], version=version)["wrapped"])
        fields = {"tenant_id": tenant, "parent_id": policy["id"], "parent_version": 1, "key_id": f"{site['id']}/{version}"}
        key = unwrap(hkdf(policy_key, b"keystead/1/policy-key/wrap"), wrapped, context("key/site-key", *key_fields(fields)))
        return hkdf(key, b"keystead/1/site-key/" + use)

    def opened(kind: str, version: int, box: str, name: str) -> bytes:
        return open_object(site_key(version, b"seal"), bytes.fromhex(box), context(f"object/{kind}", *object_fields(tenant, name)))

    node = row("file_nodes", id=node_id)
    site = row("sites", id=node["site_id"])
    tenant, policy, stored = site["tenant_id"], row("policies", id=site["policy_id"]), row("site_trees", site_id=site["id"])
    check(hkdf(policy_key, b"keystead/1/policy-key/check").hex() == policy["check_value"])
    tree = opened("file-tree", stored["key_version"], stored["sealed"], site["id"])
    path, above = "", node
    while above["id"] != site["id"]:
        check_bucket(site_key(stored["key_version"], b"lookup"), tree, rows["file_nodes"], above["place"])
        name = opened("file-name", above["key_version"], above["sealed_name"], f"{site['id']}/{above['id']}").decode()
        path = f"/{name}{path}"
        above = site if above["parent_id"] == site["id"] else row("file_nodes", id=above["parent_id"])
    version = row("file_versions", node_id=node_id, number=number)
    if number == node["version"]:
        check(hashlib.sha256(bytes.fromhex(version["manifest"])).hexdigest() == node["manifest_digest"] and node["size"] == version["size"])
    manifest = opened("file-manifest", version["key_version"], version["manifest"], f"{site['id']}/{node_id}/{number}")
    typed, size = struct.unpack(">HQ", manifest[6:16])
    check(size == version["size"])
    content = b""
    for raw_id, _digest in struct.iter_unpack(">16s32s", manifest[16 + typed :]):
        chunk = row("file_chunks", id=str(uuid.UUID(bytes=raw_id)))
        above_key = {"tenant_id": tenant, "parent_id": site["id"], "parent_version": chunk["key_version"], "key_id": chunk["id"]}
        bound = context("key/chunk-key", *key_fields(above_key))
        key = unwrap(site_key(chunk["key_version"], b"wrap"), bytes.fromhex(chunk["wrapped"]), bound)
        box = bytes.fromhex(objects[chunk["object_ref"]])[chunk["offset"] :][: chunk["length"]]
        content += open_object(key, box, context("object/chunk", *object_fields(tenant, f"{site['id']}/{chunk['id']}")))
    check(len(content) == size)
    return content, manifest[16 : 16 + typed].decode(), path


def open_stored(key: bytes, box: bytes, *fields: str | bytes) -> bytes:
    """A value that the key store sealed (keystore.md section 2)."""
    encoded = [field.encode() if isinstance(field, str) else field for field in fields]
    return aes_gcm(key, box[6:18], box[:6] + b"".join(struct.pack(">I", len(field)) + field for field in encoded), box[18:])


def prefixed(*fields: str) -> bytes:
    return b"".join(struct.pack(">H", len(field.encode())) + field.encode() for field in fields)


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


MAIL = load("mailbox")


@pytest.mark.parametrize("case", MAIL["items"], ids=lambda case: case["subject"])
def test_mail_item(case: Any) -> None:
    content, summary, folder = open_mail_item(bytes.fromhex(MAIL["policy_key"]), MAIL["rows"], MAIL["objects"], case["id"])
    assert content.hex() == case["plaintext"]
    assert json.loads(summary) == {name: case[name] for name in ("subject", "sender", "sha256", "ordinal")}
    assert hashlib.sha256(content).hexdigest() == case["sha256"]
    assert folder == case["folder"]


@pytest.mark.parametrize("case", MAIL["invalid"], ids=lambda case: case["name"])
def test_changed_rows_open_nothing(case: Any) -> None:
    rows = copy.deepcopy(MAIL["rows"])
    for change in case["changes"]:
        rows[change["table"]][change["row"]][change["column"]] = change["value"]
    with pytest.raises(ValueError, match=r"^(MAC check failed|)$"):
        open_mail_item(bytes.fromhex(MAIL["policy_key"]), rows, MAIL["objects"], case["item"])


def test_what_mail_is_found_by() -> None:
    keys = {int(version): hkdf(bytes.fromhex(key), b"keystead/1/mailbox-key/lookup") for version, key in MAIL["mailbox_keys"].items()}

    def keyed_hash(version: int, purpose: bytes, data: bytes) -> str:
        return hmac.digest(keys[version], bytes([len(purpose)]) + purpose + data, "sha256").hex()

    rows = {item["id"]: item for item in MAIL["rows"]["items"]}
    folders = {folder["id"]: folder for folder in MAIL["rows"]["folders"]}
    for case in MAIL["items"]:
        item = rows[case["id"]]
        folder = folders[item["folder_id"]]
        data = bytes.fromhex(case["sha256"]) + struct.pack(">I", case["ordinal"])
        assert keyed_hash(item["key_version"], b"item-content", data) == item["content_hash"]
        assert keyed_hash(folder["key_version"], b"folder-name", case["folder"].encode()) == folder["name_hash"]


def test_pack_of_mail() -> None:
    for ref, pack_id in MAIL["pack_ids"].items():
        assert uuid.UUID(hex=ref.partition("/")[2]) == uuid.UUID(pack_id)
        items = [item for item in MAIL["rows"]["items"] if item["object_ref"] == ref]
        key = hkdf(bytes.fromhex(MAIL["mailbox_keys"][str(items[0]["key_version"])]), b"keystead/1/mailbox-key/seal")
        tenant = MAIL["rows"]["mailboxes"][0]["tenant_id"]
        entries = pack_items(key, bytes.fromhex(MAIL["objects"][ref]), context("object/pack-index", *object_fields(tenant, pack_id)))
        assert entries == [(item["id"], item["offset"], item["length"]) for item in items]


def test_item_of_several_parts() -> None:
    """The object is too large for a vector: it is made here from its plaintext, and must have the digests of the vector."""
    large = MAIL["large"]
    item, tenant = large["row"], MAIL["rows"]["mailboxes"][0]["tenant_id"]
    plaintext = hashlib.shake_256(large["plaintext"]["shake_256"].encode()).digest(large["plaintext"]["size"])
    key = hkdf(bytes.fromhex(MAIL["mailbox_keys"][str(item["key_version"])]), b"keystead/1/mailbox-key/seal")
    whole = b""
    for index, part in enumerate(large["parts"]):
        header = bytes.fromhex(part["header"])
        bound = context("object/item", *object_fields(tenant, item["id"], index, last=index == item["parts"] - 1))
        cipher = AES.new(key, AES.MODE_GCM, nonce=header[32:44]).update(header + bound)
        body, tag = cipher.encrypt_and_digest(plaintext[index * 4_194_304 :][:4_194_304])
        box = header + body + tag
        assert part["offset"] == index * (4_194_304 + 60)
        assert (len(box), tag.hex(), hashlib.sha256(box).hexdigest()) == (part["length"], part["tag"], part["sha256"])
        whole += open_object(key, box, bound)
    assert whole == plaintext
    assert large["parts"][-1]["offset"] + large["parts"][-1]["length"] == item["length"]


@pytest.mark.parametrize("case", MAIL["summaries"]["valid"], ids=lambda case: case["name"])
def test_summaries(case: Any) -> None:
    assert json.loads(bytes.fromhex(case["bytes"])) == {name: case[name] for name in ("subject", "sender", "sha256", "ordinal")}


@pytest.mark.parametrize("case", MAIL["copies"], ids=lambda case: case["name"])
def test_policy_key_from_a_copy_of_the_key_store(case: Any) -> None:
    stored = case["row"]
    fields = [("tenant", case["tenant_id"]), ("policy", case["policy_id"]), ("version", stored["version_id"]), ("role", stored["role"])]
    around = context("envelope", *fields, ("key-uri", stored["key_uri"]), ("algorithm", stored["algorithm"]))
    inner = open_stored(bytes.fromhex(case["shred_key"]), bytes.fromhex(stored["envelope"]), "shred", case["shred_key_id"], around)
    algorithm, uri, wrapped = open_envelope(inner)
    assert (algorithm.decode(), uri.decode()) == (stored["algorithm"], stored["key_uri"])
    key = open_stored(bytes.fromhex(case["key"]), wrapped, case["compartment"], case["key_id"], context("keystore", *fields))
    assert key.hex() == MAIL["policy_key"]


FILES = load("files")
LARGE_FILE = FILES["large"]


def large_chunks() -> dict[str, str]:
    """The objects of the large file: made here from its plaintext, they must have the digests of the vector."""
    plaintext = hashlib.shake_256(LARGE_FILE["plaintext"]["shake_256"].encode()).digest(LARGE_FILE["plaintext"]["size"])
    rows = {row["id"]: row for row in FILES["rows"]["file_chunks"]}
    tenant, objects = FILES["rows"]["sites"][0]["tenant_id"], {}
    for index, chunk in enumerate(LARGE_FILE["chunks"]):
        header, stored = bytes.fromhex(chunk["header"]), rows[chunk["id"]]
        bound = context("object/chunk", *object_fields(tenant, f"{stored['site_id']}/{chunk['id']}"))
        cipher = AES.new(bytes.fromhex(FILES["chunk_keys"][chunk["id"]]), AES.MODE_GCM, nonce=header[32:44]).update(header + bound)
        body, tag = cipher.encrypt_and_digest(plaintext[index * 4_194_304 :][:4_194_304])
        assert (tag.hex(), hashlib.sha256(header + body + tag).hexdigest()) == (chunk["tag"], chunk["sha256"])
        objects[stored["object_ref"]] = (header + body + tag).hex()
    return objects


@pytest.mark.parametrize("case", FILES["files"], ids=lambda case: f"{case['id'][:4]} version {case['number']}")
def test_file(case: Any) -> None:
    objects = FILES["objects"] | (large_chunks() if case["id"] == LARGE_FILE["id"] else {})
    content, media_type, path = open_file(bytes.fromhex(FILES["policy_key"]), FILES["rows"], objects, case["id"], case["number"])
    names = {name["id"]: name for name in FILES["names"]}
    expected, above = "", case["id"]
    while above in names:
        expected, above = f"/{names[above]['name']}{expected}", names[above]["parent_id"]
    assert (hashlib.sha256(content).hexdigest(), media_type, path) == (case["sha256"], case["media_type"], expected)
    version = next(row for row in FILES["rows"]["file_versions"] if (row["node_id"], row["number"]) == (case["id"], case["number"]))
    digest_key = hkdf(bytes.fromhex(FILES["site_keys"][str(version["key_version"])]), b"keystead/1/site-key/digest")
    for index, chunk in enumerate(case["chunks"]):
        part = content[index * 4_194_304 :][:4_194_304]
        assert (len(part), blake3(part, key=digest_key).hexdigest()) == (chunk["size"], chunk["digest"])


@pytest.mark.parametrize("case", FILES["invalid"], ids=lambda case: case["name"])
def test_changed_rows_open_no_file(case: Any) -> None:
    rows = copy.deepcopy(FILES["rows"])
    for change in case["changes"]:
        rows[change["table"]][change["row"]][change["column"]] = change["value"]
    for gone in case["removed"]:
        del rows[gone["table"]][gone["row"]]
    with pytest.raises(ValueError, match=r"^(MAC check failed|)$"):
        open_file(bytes.fromhex(FILES["policy_key"]), rows, FILES["objects"], case["file"], case["number"])


@pytest.mark.parametrize("case", FILES["same_names"], ids=lambda case: case["name_hash"][:8])
def test_what_files_are_found_by(case: Any) -> None:
    lookup = hkdf(bytes.fromhex(FILES["site_keys"][str(case["key_version"])]), b"keystead/1/site-key/lookup")
    for name in case["names"]:
        message = b"\x09file-name" + uuid.UUID(case["parent_id"]).bytes + unicodedata.normalize("NFC", name).encode()
        assert hmac.digest(lookup, message, "sha256").hex() == case["name_hash"]


def test_tik_from_its_availability_copy() -> None:
    case = FILES["copies"][0]
    stored = case["row"]
    fields = [("tenant", case["tenant_id"]), ("policy", case["policy_id"]), ("version", stored["version_id"]), ("role", stored["role"])]
    around = context("envelope", *fields, ("key-uri", stored["key_uri"]), ("algorithm", stored["algorithm"]))
    inner = open_stored(bytes.fromhex(case["shred_key"]), bytes.fromhex(stored["envelope"]), "shred", case["shred_key_id"], around)
    _algorithm, _uri, wrapped = open_envelope(inner)
    private = RSA.import_key(bytes.fromhex(case["private_key"]))
    assert PKCS1_OAEP.new(private, SHA256, label=context("keystore", *fields)).decrypt(wrapped).hex() == FILES["policy_key"]


VAULT = load("vault_store")
SEAL = bytes.fromhex(VAULT["seal"])


def test_private_key_of_a_vault() -> None:
    stored = VAULT["private_key"]
    assert hkdf(SEAL, b"keystead vault seal check 1").hex() == VAULT["check_value"]
    box, place = bytes.fromhex(stored["bytes"]), stored["place"]
    bound = prefixed(place["tenant_id"].lower(), place["vault"].lower(), place["name"].lower(), place["version"])
    pkcs8 = aes_gcm(hkdf(SEAL, b"keystead vault private key 1"), box[1:13], bound, box[13:])
    assert ECC.import_key(pkcs8).d == int(stored["private_scalar"], 16)


def test_backup_of_a_vault_key() -> None:
    stored = VAULT["backup"]
    blob = bytes.fromhex(stored["bytes"])
    end = 9 + int.from_bytes(blob[7:9], "big")
    assert blob[:end] == b"KSTDKB\x01" + blob[7:9] + prefixed(stored["tenant_id"], stored["subscription_id"], stored["geography"])
    payload = aes_gcm(hkdf(SEAL, b"keystead vault key backup 1"), blob[end : end + 12], blob[:end], blob[end + 12 :])
    document = json.loads(payload)
    assert {name: document[name] for name in ("tenant_id", "subscription_id", "geography", "name")} == {
        name: stored[name] for name in ("tenant_id", "subscription_id", "geography", "name")
    }
    scalars = [ECC.import_key(base64.b64decode(version["pkcs8"])).d for version in document["versions"]]
    assert scalars == [int(VAULT["private_key"]["private_scalar"], 16)] * 2
