"""What a site holds: our code makes, opens and refuses exactly the bytes of docs/spec/files.md."""

from __future__ import annotations

import copy
import hashlib
import json
from pathlib import Path
from typing import Any, cast

import pytest

from keystead.adapters.keystores.boxes import Kind, unseal, value_fields
from keystead.adapters.keystores.entries import entry_of
from keystead.core.errors import IntegrityFailure
from keystead.core.formats import envelope, files, sealed_object
from keystead.core.formats.aead import Aes
from keystead.core.formats.context import envelope_context, keystore_context
from keystead.core.formats.file_tree import Leaf, Tree, place_of, rolled_back
from keystead.core.formats.wrapped_key import unwrap, wrap
from keystead.core.keys.hierarchy import SiteKeys, check_matches, expand_policy_key, expand_site_key
from keystead.core.secret import SecretKey
from keystead.core.stores.files import CHUNK_BYTES, NodeKind
from keystead.ports.keystore import Compartment

VECTORS: Any = json.loads((Path(__file__).parent / "files.json").read_text())
POLICY_KEY = expand_policy_key(SecretKey(bytes.fromhex(VECTORS["policy_key"])))
SITE = VECTORS["rows"]["sites"][0]
TENANT = SITE["tenant_id"]
LARGE = VECTORS["large"]


def raw(text: str) -> bytes:
    return bytes.fromhex(text)


def row(rows: Any, table: str, **where: Any) -> Any:
    for one in rows[table]:
        if where.items() <= one.items():
            return one
    raise files.damaged(f"{table} {where}")


def site_keys(version: int) -> SiteKeys:
    return expand_site_key(SecretKey(raw(VECTORS["site_keys"][str(version)])))


def leaf(node: Any) -> Leaf:
    kind, digest = NodeKind(node["kind"]), raw(node["manifest_digest"])
    return Leaf(node["id"], node["parent_id"], kind, raw(node["name_hash"]), node["version"], digest)


def large_plaintext() -> bytes:
    return hashlib.shake_256(LARGE["plaintext"]["shake_256"].encode()).digest(LARGE["plaintext"]["size"])


def large_boxes() -> dict[str, bytes]:
    """The boxes of the large file, which are too large for a vector, by chunk."""
    boxes = {}
    for index, chunk in enumerate(LARGE["chunks"]):
        part = large_plaintext()[index * CHUNK_BYTES :][:CHUNK_BYTES]
        key, bound = Aes(SecretKey(raw(VECTORS["chunk_keys"][chunk["id"]]))), files.chunk_context(TENANT, SITE["id"], chunk["id"])
        boxes[chunk["id"]] = sealed_object.seal(
            key, part, key_id=chunk["id"], key_version=0, context=bound, nonce=raw(chunk["header"])[32:44]
        )
    return boxes


OBJECTS = {ref: raw(data) for ref, data in VECTORS["objects"].items()} | {
    row(VECTORS["rows"], "file_chunks", id=chunk_id)["object_ref"]: box for chunk_id, box in large_boxes().items()
}


def open_key(rows: Any, site: Any, version: int) -> SiteKeys:
    policy = row(rows, "policies", id=site["policy_id"])
    check_matches(raw(policy["check_value"]), POLICY_KEY, policy_name="the policy")
    stored = row(rows, "site_keys", site_id=site["id"], version=version)
    key = unwrap(
        POLICY_KEY.wrap,
        raw(stored["wrapped"]),
        parent_id=policy["id"],
        parent_version=1,
        context=files.site_key_context(site["tenant_id"], site["id"], version, policy["id"], 1),
        object_name="the site key",
    )
    return expand_site_key(key)


def open_under(keys: SiteKeys, site: Any, version: int, box: str, bound: Any) -> bytes:
    return sealed_object.open_object(keys.seal, raw(box), key_id=site["id"], key_version=version, context=bound, object_name="the box")


def check_tree(rows: Any, site: Any, node: Any) -> None:
    """Steps 2 and 3 of section 2: the buckets of the node and of the folders it lies in."""
    stored = row(rows, "site_trees", site_id=site["id"])
    keys = open_key(rows, site, stored["key_version"])
    opened = open_under(keys, site, stored["key_version"], stored["sealed"], files.tree_context(site["tenant_id"], site["id"]))
    tree = Tree.decode(keys, opened, object_name=site["id"])
    while True:
        bucket = tree.bucket_of(node["place"])
        first, last = tree.span(bucket)
        if not tree.matches(bucket, [leaf(one) for one in rows["file_nodes"] if first <= one["place"] <= last]):
            raise rolled_back(site["id"], node["id"])
        if node["parent_id"] == site["id"]:
            return
        node = row(rows, "file_nodes", id=node["parent_id"])


def open_file(rows: Any, node_id: str, number: int) -> tuple[bytes, str]:
    """Content and media type of a version."""
    node = row(rows, "file_nodes", id=node_id)
    site = row(rows, "sites", id=node["site_id"])
    check_tree(rows, site, node)
    version = row(rows, "file_versions", node_id=node_id, number=number)
    if number == node["version"]:
        intact = hashlib.sha256(raw(version["manifest"])).digest() == raw(node["manifest_digest"])
        if not intact or node["size"] != version["size"]:
            raise files.damaged(node_id)
    keys = open_key(rows, site, version["key_version"])
    bound = files.manifest_context(site["tenant_id"], site["id"], node_id, number)
    manifest = files.decode_manifest(open_under(keys, site, version["key_version"], version["manifest"], bound), object_name=node_id)
    if manifest.size != version["size"]:
        raise files.damaged(node_id)
    content = []
    for entry in manifest.entries:
        chunk = row(rows, "file_chunks", id=entry.chunk_id)
        wrapping = chunk["key_version"]
        key = unwrap(
            open_key(rows, site, wrapping).wrap,
            raw(chunk["wrapped"]),
            parent_id=site["id"],
            parent_version=wrapping,
            context=files.chunk_key_context(site["tenant_id"], entry.chunk_id, site["id"], wrapping),
            object_name="the chunk key",
        )
        content.append(
            sealed_object.open_object(
                Aes(key),
                OBJECTS[chunk["object_ref"]][chunk["offset"] : chunk["offset"] + chunk["length"]],
                key_id=entry.chunk_id,
                key_version=0,
                context=files.chunk_context(site["tenant_id"], site["id"], entry.chunk_id),
                object_name=entry.chunk_id,
            )
        )
        assert len(content[-1]) == entry.size
        assert files.chunk_digest(keys, content[-1]) == entry.digest
    return b"".join(content), manifest.media_type


@pytest.mark.parametrize("case", VECTORS["files"], ids=lambda case: f"{case['id'][:4]} version {case['number']}")
def test_files_open_from_policy_key_rows_and_objects(case: Any) -> None:
    """R-110, R-111: TIK, site key, chunk key, chunk; nothing else is needed."""
    content, media_type = open_file(VECTORS["rows"], case["id"], case["number"])
    assert (hashlib.sha256(content).hexdigest(), media_type) == (case["sha256"], case["media_type"])


@pytest.mark.parametrize("case", VECTORS["invalid"], ids=lambda case: case["name"])
def test_changed_rows_are_refused(case: Any) -> None:
    """R-111: a person with the database can break a file, never have another one, or an older one, given out in its place."""
    rows = copy.deepcopy(VECTORS["rows"])
    for change in case["changes"]:
        rows[change["table"]][change["row"]][change["column"]] = change["value"]
    for gone in case["removed"]:
        del rows[gone["table"]][gone["row"]]
    with pytest.raises(IntegrityFailure):
        open_file(rows, case["file"], case["number"])


def test_wrapped_site_keys_and_chunk_keys_have_these_bytes() -> None:
    """R-110: site keys under the TIK, and a key for each chunk under the site key."""
    for stored in VECTORS["rows"]["site_keys"]:
        version = stored["version"]
        made = wrap(
            POLICY_KEY.wrap,
            SecretKey(raw(VECTORS["site_keys"][str(version)])),
            parent_id=SITE["policy_id"],
            parent_version=1,
            context=files.site_key_context(TENANT, SITE["id"], version, SITE["policy_id"], 1),
            nonce=raw(stored["wrapped"])[26:38],
        )
        assert made.hex() == stored["wrapped"]
    for stored in VECTORS["rows"]["file_chunks"]:
        version = stored["key_version"]
        made = wrap(
            site_keys(version).wrap,
            SecretKey(raw(VECTORS["chunk_keys"][stored["id"]])),
            parent_id=SITE["id"],
            parent_version=version,
            context=files.chunk_key_context(TENANT, stored["id"], SITE["id"], version),
            nonce=raw(stored["wrapped"])[26:38],
        )
        assert made.hex() == stored["wrapped"]
    assert len(set(VECTORS["chunk_keys"].values())) == len(VECTORS["rows"]["file_chunks"])


def test_chunks_of_a_large_file_have_these_bytes() -> None:
    for chunk, box in zip(LARGE["chunks"], large_boxes().values(), strict=True):
        assert (box[:44].hex(), box[-16:].hex(), hashlib.sha256(box).hexdigest()) == (chunk["header"], chunk["tag"], chunk["sha256"])


def test_a_chunk_does_not_open_as_another() -> None:
    """R-111: not in another place of the file, in another site, or for another tenant, even with its own key."""
    chunk_id, box = next(iter(large_boxes().items()))
    key, other = Aes(SecretKey(raw(VECTORS["chunk_keys"][chunk_id]))), LARGE["chunks"][1]["id"]
    for tenant, site, chunk in [(TENANT, SITE["id"], other), (TENANT, other, chunk_id), (other, SITE["id"], chunk_id)]:
        for key_id in (chunk, chunk_id):
            with pytest.raises(IntegrityFailure):
                sealed_object.open_object(
                    key, box, key_id=key_id, key_version=0, context=files.chunk_context(tenant, site, chunk), object_name="chunk"
                )


def test_sealed_manifests_names_and_tree_have_these_bytes() -> None:
    """R-110: names are sealed; what is found by a name is found by a keyed hash."""
    rows = VECTORS["rows"]

    def resealed(version: int, box: str, data: bytes, bound: Any) -> str:
        keys = site_keys(version)
        return sealed_object.seal(keys.seal, data, key_id=SITE["id"], key_version=version, context=bound, nonce=raw(box)[32:44]).hex()

    for case in VECTORS["names"]:
        node = row(rows, "file_nodes", id=case["id"])
        bound = files.name_context(TENANT, SITE["id"], case["id"])
        assert resealed(node["key_version"], node["sealed_name"], case["name"].encode(), bound) == node["sealed_name"]
        assert files.name_hash(site_keys(node["key_version"]), case["parent_id"], case["name"]).hex() == node["name_hash"]
        assert place_of(node["id"]) == node["place"]
        opened = open_under(site_keys(node["key_version"]), SITE, node["key_version"], node["sealed_name"], bound)
        assert files.decode_name(opened, object_name="the name") == case["name"]
    for case in VECTORS["files"]:
        version = row(rows, "file_versions", node_id=case["id"], number=case["number"])
        entries = tuple(files.ManifestEntry(chunk["id"], chunk["size"], raw(chunk["digest"])) for chunk in case["chunks"])
        data = files.encode_manifest(files.Manifest(sum(entry.size for entry in entries), entries, case["media_type"]))
        bound = files.manifest_context(TENANT, SITE["id"], case["id"], case["number"])
        assert resealed(version["key_version"], version["manifest"], data, bound) == version["manifest"]
    stored = rows["site_trees"][0]
    tree = Tree.empty(site_keys(2)).rebuilt([leaf(node) for node in rows["file_nodes"]], 1)
    assert resealed(2, stored["sealed"], tree.encode(), files.tree_context(TENANT, SITE["id"])) == stored["sealed"]


@pytest.mark.parametrize("case", VECTORS["same_names"], ids=lambda case: case["name_hash"][:8])
def test_names_that_are_the_same(case: Any) -> None:
    for name in case["names"]:
        assert files.name_hash(site_keys(case["key_version"]), case["parent_id"], name).hex() == case["name_hash"]


def test_names_that_are_not_the_same() -> None:
    hashes = [case["name_hash"] for case in VECTORS["same_names"]]
    assert len(set(hashes)) == len(hashes)


# -- manifests and trees --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", VECTORS["manifests"]["valid"], ids=lambda case: case["name"])
def test_manifests_have_one_encoding(case: Any) -> None:
    entries = tuple(files.ManifestEntry(entry["chunk_id"], entry["size"], raw(entry["digest"])) for entry in case["entries"])
    manifest = files.Manifest(case["size"], entries, case["media_type"])
    assert files.encode_manifest(manifest) == raw(case["bytes"])
    assert files.decode_manifest(raw(case["bytes"]), object_name="the file") == manifest


@pytest.mark.parametrize("case", VECTORS["manifests"]["invalid"], ids=lambda case: case["name"])
def test_manifests_that_are_refused(case: Any) -> None:
    with pytest.raises(IntegrityFailure, match="file_damaged: the file F version 3 is not what was written"):
        files.decode_manifest(raw(case["bytes"]), object_name="F version 3")


@pytest.mark.parametrize("case", VECTORS["trees"]["valid"], ids=lambda case: case["name"])
def test_trees_have_these_bytes(case: Any) -> None:
    keys = site_keys(case["key_version"])
    leaves = [leaf(row(VECTORS["rows"], "file_nodes", id=node)) for node in case["nodes"]]
    assert Tree.empty(keys).rebuilt(reversed(leaves), case["bits"]).encode() == raw(case["bytes"])
    tree = Tree.decode(keys, raw(case["bytes"]), object_name="the site")
    assert tree.bits == case["bits"]
    assert tree.matches_all(leaves)


@pytest.mark.parametrize("case", VECTORS["trees"]["invalid"], ids=lambda case: case["name"])
def test_trees_that_are_refused(case: Any) -> None:
    with pytest.raises(IntegrityFailure, match="object_damaged: the tree of the site S does not open"):
        Tree.decode(site_keys(2), raw(case["bytes"]), object_name="S")


# -- the copy of the TIK that the key store made --------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", VECTORS["copies"], ids=lambda case: case["name"])
def test_the_availability_copy_opens(case: Any) -> None:
    """R-140: RSA-2048; made here by a library that Keystead does not use."""
    stored = case["row"]
    place = (case["tenant_id"], case["policy_id"], stored["version_id"], stored["role"])
    around = envelope_context(*place, stored["key_uri"], stored["algorithm"])
    shred = Aes(SecretKey(raw(case["shred_key"])))
    inner = unseal(shred, Kind.VALUE, raw(stored["envelope"]), value_fields("shred", case["shred_key_id"], around.encode()))
    copy_of = envelope.decode(inner, object_name="the copy")
    assert (copy_of.algorithm, copy_of.key_uri) == (stored["algorithm"], stored["key_uri"])
    entry = entry_of(Compartment(case["compartment"]), raw(case["private_key"]), cast("Any", None))
    fields = value_fields(case["compartment"], case["key_id"], keystore_context(*place).encode())
    assert entry.open(copy_of.wrapped, fields).hex() == VECTORS["policy_key"]
