"""Manifests, digests and the tree, beyond what the vectors say."""

from __future__ import annotations

import hashlib
from itertools import pairwise

import pytest

from keystead.core.errors import IntegrityFailure
from keystead.core.formats import files, sealed_object
from keystead.core.formats.file_tree import BUCKET_NODES, MAX_BITS, Leaf, Tree, bits_for, leaf_of, place_of, rolled_back
from keystead.core.formats.key_ref import id_of
from keystead.core.formats.sealed_object import MAX_PLAINTEXT_BYTES
from keystead.core.keys.hierarchy import expand_site_key
from keystead.core.secret import SecretKey
from keystead.core.stores.files import CHUNK_BYTES, Node, NodeKind

KEYS, OTHER_KEYS = (expand_site_key(SecretKey(bytes([number]) * 32)) for number in (1, 2))
SITE = "5d6f1f0e-0000-4000-8000-00000000000a"


def an_id(label: str) -> str:
    return id_of(hashlib.shake_256(label.encode()).digest(16))


def leaf(label: str, version: int = 1) -> Leaf:
    digest = hashlib.sha256(label.encode()).digest()
    return Leaf(an_id(label), SITE, NodeKind.FILE, digest, version, digest if version else b"")


def manifest(chunks: int, last: int = CHUNK_BYTES, *, media_type: str = "") -> files.Manifest:
    sizes = [CHUNK_BYTES] * (chunks - 1) + [last]
    entries = (files.ManifestEntry(an_id(f"chunk {i}"), size, hashlib.sha256(b"%d" % i).digest()) for i, size in enumerate(sizes))
    return files.Manifest(sum(sizes), tuple(entries), media_type)


# Manifests


def test_a_manifest_of_the_largest_file_fits_into_one_sealed_object() -> None:
    """R-111: one box holds the order of all chunks; 10 GiB are 2,560 of them."""
    largest = manifest(files.MAX_CHUNKS, media_type="x" * files.MAX_MEDIA_TYPE)
    data = files.encode_manifest(largest)
    assert len(data) == files.MAX_MANIFEST_BYTES <= MAX_PLAINTEXT_BYTES
    assert files.decode_manifest(data, object_name="f") == largest
    assert len(files.encode_manifest(manifest(2560))) < 128 * 1024


@pytest.mark.parametrize(
    "wrong",
    [
        files.Manifest(-1, ()),
        files.Manifest(files.MAX_FILE_BYTES + 1, ()),
        files.Manifest(1, ()),
        files.Manifest(0, manifest(1).entries),
        files.Manifest(CHUNK_BYTES, manifest(1, 5).entries),
        files.Manifest(5 + CHUNK_BYTES, tuple(reversed(manifest(2, 5).entries))),
        files.Manifest(2 * CHUNK_BYTES, manifest(1).entries * 2),
        files.Manifest(5, (files.ManifestEntry(an_id("x"), 5, b"short"),)),
        files.Manifest(5, (files.ManifestEntry(an_id("x").upper(), 5, bytes(32)),)),
        files.Manifest(0, (), "text/plain "),
        files.Manifest(0, (), "text/pl\u00e4in"),
        files.Manifest(0, (), "a\r\nb"),
        files.Manifest(0, (), "x" * 256),
    ],
)
def test_what_is_no_manifest_is_not_written(wrong: files.Manifest) -> None:
    with pytest.raises(ValueError, match=r"file|chunk|digest|media|id"):
        files.encode_manifest(wrong)


@pytest.mark.parametrize(("size", "count"), [(0, 0), (1, 1), (CHUNK_BYTES, 1), (CHUNK_BYTES + 1, 2), (10 * 2**30, 2560), (2**38, 65536)])
def test_the_size_says_how_many_chunks_there_are(size: int, count: int) -> None:
    assert files.chunk_count(size) == count


def test_the_digest_of_a_chunk_says_nothing_without_the_site_key() -> None:
    """Nobody can test a guess about a file with the database alone, and equal files of two sites do not look equal."""
    assert files.chunk_digest(KEYS, b"guess") == files.chunk_digest(KEYS, memoryview(bytearray(b"guess")))
    assert len({files.chunk_digest(KEYS, b"guess"), files.chunk_digest(OTHER_KEYS, b"guess"), files.chunk_digest(KEYS, b"guesses")}) == 3


def test_a_name_has_another_hash_in_another_folder_and_another_site() -> None:
    hashes = {
        files.name_hash(KEYS, SITE, "plan"),
        files.name_hash(KEYS, an_id("folder"), "plan"),
        files.name_hash(OTHER_KEYS, SITE, "plan"),
        files.name_hash(KEYS, SITE, "Plan"),
        files.name_hash(KEYS, SITE, "plan "),
    }
    assert len(hashes) == 5


@pytest.mark.parametrize("data", [b"\xff", b"\xc0\x80", b"\xed\xa0\x80", b"plan\xc3"])
def test_a_name_is_utf8(data: bytes) -> None:
    with pytest.raises(IntegrityFailure, match="file_damaged: the file F is not what was written"):
        files.decode_name(data, object_name="F")


def test_no_two_kinds_of_box_of_a_site_have_one_context() -> None:
    """A name is never taken for properties, a tree for a lock, version 1 of a file for version 11 or file 1 of another site."""
    tenant, node, digest = an_id("tenant"), an_id("node"), "ab" * 32
    contexts = [
        files.site_key_context(tenant, SITE, 1, node, 1),
        files.site_key_context(tenant, SITE, 11, node, 1),
        files.chunk_key_context(tenant, node, SITE, 1),
        files.chunk_context(tenant, SITE, node),
        files.chunk_context(tenant, node, SITE),
        files.manifest_context(tenant, SITE, node, 1),
        files.manifest_context(tenant, SITE, node, 11),
        files.name_context(tenant, SITE, node),
        files.properties_context(tenant, SITE, node),
        files.tree_context(tenant, SITE),
        files.lock_context(tenant, SITE, digest),
    ]
    assert len(set(contexts)) == len(contexts)
    assert not set(contexts) & {files.tree_context(SITE, tenant), files.name_context(SITE, tenant, node)}


# The tree


def test_a_site_without_nodes_has_a_tree_that_matches_nothing_else() -> None:
    """R-111: deleting the tree with some of the rows does not make the rest look right."""
    tree = Tree.empty(KEYS)
    assert tree.matches(0, [])
    assert not tree.matches(0, [leaf("a")])


def test_a_node_lies_where_its_id_says() -> None:
    node = Node(
        id="ab12ffff-0000-4000-8000-000000000000",
        site_id=SITE,
        parent_id=SITE,
        kind=NodeKind.FILE,
        key_version=1,
        name_hash=bytes(32),
        sealed_name=b"",
        properties=b"",
        version=3,
        manifest_digest=bytes(range(32)),
        size=5,
        place=0xAB12,
        created=0,
        modified=0,
        changed=0,
    )
    assert place_of(node.id) == node.place
    assert leaf_of(node) == Leaf(node.id, SITE, NodeKind.FILE, bytes(32), 3, bytes(range(32)))


@pytest.mark.parametrize("bits", [0, 1, 7, 16])
def test_every_place_lies_in_the_span_of_its_bucket(bits: int) -> None:
    tree = Tree.empty(KEYS).rebuilt([], bits)
    spans = [tree.span(bucket) for bucket in range(1 << bits)]
    assert spans[0][0] == 0
    assert spans[-1][1] == 0xFFFF
    assert all(before[1] + 1 == after[0] for before, after in pairwise(spans))
    for place in (0, 1, 0x7FFF, 0x8000, 0xFFFF):
        first, last = tree.span(tree.bucket_of(place))
        assert first <= place <= last


def test_a_tree_grows_when_its_buckets_are_full_and_never_beyond_its_limit() -> None:
    tree = Tree.empty(KEYS)
    assert not tree.should_grow(BUCKET_NODES)
    assert tree.should_grow(BUCKET_NODES + 1)
    assert [bits_for(count) for count in (0, 64, 65, 128, 129, 1_000_000, 10**9)] == [0, 0, 1, 1, 2, 14, MAX_BITS]
    largest = tree.rebuilt([], MAX_BITS)
    assert not largest.should_grow(10**9)
    assert len(largest.encode()) == 2 + 16 * 65536


def test_what_never_was_a_node_matches_nothing() -> None:
    """The rows come from a database that others may have written to: nothing in them breaks the check."""
    good = leaf("a")
    tree = Tree.empty(KEYS).replaced(0, [good])
    assert tree.matches(0, [good])
    for wrong in [
        good._replace(node_id=""),
        good._replace(node_id="\u00fc" * 36),
        good._replace(node_id=good.node_id.upper()),
        good._replace(parent_id=SITE + "0"),
        good._replace(parent_id=SITE.replace("-", "_")),
        good._replace(name_hash=b""),
        good._replace(name_hash=good.name_hash + b"\0"),
        good._replace(version=-1),
        good._replace(version=2**32),
        good._replace(version=0),
        good._replace(version=0, manifest_digest=b""),
        good._replace(manifest_digest=b""),
        good._replace(manifest_digest=bytes(33)),
        good._replace(kind=NodeKind.FOLDER),
    ]:
        assert not tree.matches(0, [wrong])
        assert not tree.matches_all([wrong])
        assert not tree.matches(0, [good, wrong])
    assert not tree.matches(1, [good])
    assert not tree.matches(1, [])
    assert not tree.matches(-1, [good])


def test_leaves_that_no_bucket_holds_are_not_stored() -> None:
    tree = Tree.empty(KEYS).rebuilt([], 1)
    low, high = ("0" + leaf("a").node_id[1:], "f" + leaf("a").node_id[1:])
    one = leaf("a")._replace(node_id=low)
    for bucket, leaves in [(1, [one]), (0, [one._replace(node_id=high)]), (0, [one, one]), (2, []), (-1, [])]:
        with pytest.raises(ValueError, match="a node lies in the bucket of its id, once"):
            tree.replaced(bucket, leaves)
    with pytest.raises(ValueError, match="no such sizes"):
        tree.replaced(0, [one._replace(name_hash=b"")])
    with pytest.raises(ValueError, match="no such version or kind"):
        tree.replaced(0, [one._replace(version=2**32)])
    with pytest.raises(ValueError, match="0 to 16 bits"):
        tree.rebuilt([], 17)


def test_two_sites_and_two_versions_of_a_key_have_other_digests_for_the_same_nodes() -> None:
    leaves = [leaf(str(i)) for i in range(100)]
    tree = Tree.empty(KEYS).rebuilt(leaves, 1)
    moved = tree.rebuilt(leaves, 1, keys=OTHER_KEYS)
    assert moved.matches_all(leaves)
    assert moved.encode() != tree.encode()
    assert not Tree.decode(OTHER_KEYS, tree.encode(), object_name=SITE).matches_all(leaves)


def test_no_bucket_passes_for_another() -> None:
    """Two buckets without a node have different digests, and so has one of a larger tree."""
    digests = set()
    for bits in (0, 1, 2):
        data = Tree.empty(KEYS).rebuilt([], bits).encode()[2:]
        digests |= {data[at : at + 16] for at in range(0, len(data), 16)}
    assert len(digests) == 7


def test_what_is_raised_names_site_and_file() -> None:
    failure = rolled_back("SITE-ID", "FILE-ID")
    assert failure.code == "file_rolled_back"
    assert "SITE-ID" in failure.detail
    assert "FILE-ID" in failure.detail
    assert files.damaged("FILE-ID version 2, chunk CHUNK-ID").detail == "the file FILE-ID version 2, chunk CHUNK-ID is not what was written"


def test_a_tree_sealed_for_one_site_does_not_open_for_another() -> None:
    tenant, tree = an_id("tenant"), Tree.empty(KEYS)
    box = sealed_object.seal(
        KEYS.seal, tree.encode(), key_id=SITE, key_version=1, context=files.tree_context(tenant, SITE), nonce=b"nonce-nonce!"
    )
    for who, site in [(an_id("other"), SITE), (tenant, an_id("other site"))]:
        with pytest.raises(IntegrityFailure, match="object_damaged"):
            sealed_object.open_object(KEYS.seal, box, key_id=SITE, key_version=1, context=files.tree_context(who, site), object_name="tree")
