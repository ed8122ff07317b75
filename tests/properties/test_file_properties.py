"""What holds for every manifest, tree and path."""

from __future__ import annotations

import unicodedata
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keystead.core.errors import InvalidRequest
from keystead.core.formats import files
from keystead.core.formats.file_tree import Leaf, Tree, bits_for, place_of
from keystead.core.keys.hierarchy import expand_site_key
from keystead.core.secret import SecretKey
from keystead.core.stores.files import CHUNK_BYTES, NodeKind
from keystead.core.stores.paths import check_name, check_site_url, join_path, split_path

if TYPE_CHECKING:
    from collections.abc import Callable

KEYS = expand_site_key(SecretKey(b"k" * 32))
ids = st.uuids(version=4).map(str)
digests = st.binary(min_size=32, max_size=32)

# Manifests


@st.composite
def manifests(draw: st.DrawFn) -> files.Manifest:
    chunk_ids = draw(st.lists(st.uuids().map(str), max_size=12, unique=True))
    last = draw(st.integers(1, CHUNK_BYTES)) if chunk_ids else 0
    sizes = [CHUNK_BYTES] * (len(chunk_ids) - 1) + [last]
    entries = tuple(files.ManifestEntry(chunk, size, draw(digests)) for chunk, size in zip(chunk_ids, sizes, strict=False))
    media_type = draw(st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=255)).strip(" ")
    return files.Manifest(sum(entry.size for entry in entries), entries, media_type)


@given(manifests())
def test_a_manifest_reads_back(manifest: files.Manifest) -> None:
    """R-111."""
    assert files.decode_manifest(files.encode_manifest(manifest), object_name="f") == manifest


@given(manifests(), manifests())
def test_two_manifests_have_the_same_bytes_only_if_they_are_the_same(one: files.Manifest, two: files.Manifest) -> None:
    assert (files.encode_manifest(one) == files.encode_manifest(two)) == (one == two)


# The tree

kinds = st.sampled_from(NodeKind)
versions = st.integers(1, 2**32 - 1)


@st.composite
def leaf_sets(draw: st.DrawFn) -> list[Leaf]:
    """Nodes of a site, some of them in one bucket whatever its size."""
    shared = draw(st.sampled_from(["0000", "7fff", "8000", "ffff", "1234"]))
    made = []
    for node_id in draw(st.lists(ids, min_size=1, max_size=20, unique_by=lambda node: node[4:])):
        own = draw(st.booleans())
        version = draw(st.one_of(st.just(0), versions))
        name = node_id if own else shared + node_id[4:]
        made.append(Leaf(name, draw(ids), draw(kinds), draw(digests), version, draw(digests) if version else b""))
    return made


def without(leaves: list[Leaf], index: int) -> list[Leaf]:
    return leaves[:index] + leaves[index + 1 :]


CHANGES: list[Callable[[Leaf, bytes, str, int], Leaf]] = [
    lambda leaf, _data, node, _number: leaf._replace(node_id=leaf.node_id[:4] + node[4:]),
    lambda leaf, _data, node, _number: leaf._replace(parent_id=node),
    lambda leaf, _data, _node, _number: leaf._replace(kind=NodeKind.FOLDER if leaf.kind is NodeKind.FILE else NodeKind.FILE),
    lambda leaf, data, _node, _number: leaf._replace(name_hash=data),
    lambda leaf, data, _node, number: leaf._replace(version=number, manifest_digest=leaf.manifest_digest or data),
    lambda leaf, data, _node, _number: leaf._replace(manifest_digest=data, version=leaf.version or 1),
    lambda leaf, _data, _node, _number: leaf._replace(version=0, manifest_digest=b""),
]


@given(leaf_sets(), st.integers(0, 4), st.data())
def test_any_single_change_of_the_nodes_is_noticed(leaves: list[Leaf], bits: int, data: st.DataObject) -> None:
    """R-111: one node changed in one thing, taken away, or put in: its bucket does not match, all others do."""
    tree = Tree.empty(KEYS).rebuilt(leaves, bits)
    index = data.draw(st.integers(0, len(leaves) - 1))
    old = leaves[index]
    change = data.draw(st.sampled_from([*CHANGES, None]))
    changed = without(leaves, index)
    if change is not None:
        new = change(old, data.draw(digests), data.draw(ids), data.draw(versions))
        changed = [*changed, new] if new != old else leaves
    touched = tree.bucket_of(place_of(old.node_id))
    for bucket in range(1 << bits):
        held = [leaf for leaf in changed if tree.bucket_of(place_of(leaf.node_id)) == bucket]
        assert tree.matches(bucket, held) == (bucket != touched or changed is leaves)
    assert tree.matches_all(changed) == (changed is leaves)


@given(leaf_sets(), st.integers(0, 4))
def test_two_nodes_never_exchange_what_they_have(leaves: list[Leaf], bits: int) -> None:
    tree = Tree.empty(KEYS).rebuilt(leaves, bits)
    one, two = leaves[0], leaves[-1]
    for fields in (("parent_id", "name_hash"), ("version", "manifest_digest"), ("kind",)):
        swapped = [
            one._replace(**{name: getattr(two, name) for name in fields}),
            *leaves[1:-1],
            two._replace(**{name: getattr(one, name) for name in fields}),
        ]
        if len(leaves) > 1:
            assert tree.matches_all(swapped) == (swapped == leaves)


@given(leaf_sets(), st.integers(0, 3), st.randoms(use_true_random=False))
def test_growth_keeps_what_the_tree_says(leaves: list[Leaf], bits: int, random: object) -> None:
    """A larger tree matches exactly the nodes the smaller one did, in whatever order rows come."""
    tree = Tree.empty(KEYS).rebuilt(leaves, bits)
    larger = tree.rebuilt(reversed(leaves), bits + 1)
    assert larger.matches_all(leaves)
    assert not larger.matches_all(leaves[1:])
    assert larger.rebuilt(leaves, bits).encode() == tree.encode()
    assert Tree.decode(KEYS, larger.encode(), object_name="s").matches_all(leaves)


@given(leaf_sets(), st.integers(0, 4))
def test_a_tree_made_node_by_node_is_the_one_made_at_once(leaves: list[Leaf], bits: int) -> None:
    tree = Tree.empty(KEYS).rebuilt([], bits)
    held: dict[int, list[Leaf]] = {}
    for leaf in leaves:
        bucket = tree.bucket_of(place_of(leaf.node_id))
        assert tree.matches(bucket, held.get(bucket, []))
        held[bucket] = [*held.get(bucket, []), leaf]
        tree = tree.replaced(bucket, held[bucket])
    assert tree.encode() == Tree.empty(KEYS).rebuilt(leaves, bits).encode()


@given(st.integers(0, 10_000_000))
def test_no_tree_wants_to_grow_that_has_the_bits_for_its_nodes(count: int) -> None:
    bits = bits_for(count)
    assert bits == 16 or count <= 64 << bits
    assert bits == 0 or count > 64 << (bits - 1)


# Paths

names = st.text(st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="/"), min_size=1, max_size=30).filter(
    lambda name: name not in (".", "..")
)


@given(st.lists(names, max_size=20), st.booleans(), st.booleans())
def test_a_path_is_its_names(parts: list[str], front: bool, behind: bool) -> None:  # noqa: FBT001 - whether a slash stands there
    text = "/" * front + "/".join(parts) + "/" * (behind and bool(parts))
    assert split_path(text) == tuple(parts)
    assert split_path(join_path(parts)) == tuple(parts)


@given(st.text(max_size=60) | st.text(alphabet="/.a\0\ud800\x7f", max_size=20))
def test_any_text_is_a_path_of_good_names_or_refused(text: str) -> None:
    """Path tricks: what comes out has no empty name, no dots that lead elsewhere, nothing that cannot be written."""
    try:
        parts = split_path(text)
    except InvalidRequest as refused:
        assert refused.code in {"path_invalid", "path_too_long"}  # noqa: PT017 - both outcomes are right, each for its own text
    else:
        for name in parts:
            check_name(name)
            assert name.encode().decode() == name
            assert not set(name) & set("/\0")
            assert name not in {"", ".", ".."}
        assert text.strip("/") == "/".join(parts)


@given(names, names)
def test_names_are_the_same_exactly_when_their_nfc_is(one: str, two: str) -> None:
    site = "5d6f1f0e-0000-4000-8000-00000000000a"

    def found_by(name: str) -> bytes:
        return files.name_hash(KEYS, site, name)

    assert found_by(one) == found_by(unicodedata.normalize("NFD", one))
    assert (found_by(one) == found_by(two)) == (unicodedata.normalize("NFC", one) == unicodedata.normalize("NFC", two))


@given(st.text(max_size=60).map(lambda text: "https://contoso.example/" + text) | st.text(max_size=40))
def test_the_url_of_a_site_has_one_spelling_or_is_refused(text: str) -> None:
    try:
        url = check_site_url(text)
    except InvalidRequest as refused:
        assert refused.code == "site_url_invalid"  # noqa: PT017 - as above
    else:
        assert check_site_url(url) == url == text.lower().removesuffix("/")
        assert url.isascii()


def test_a_site_url_is_never_taken_for_its_neighbour() -> None:
    with pytest.raises(InvalidRequest):
        check_site_url("https://contoso.example/sites/../secret")
