"""Parsers of files under changed and invented bytes: the one value, or `IntegrityFailure`, and nothing else (docs/spec/README.md)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fuzz.test_fuzz_formats import changed
from keystead.core.errors import IntegrityFailure
from keystead.core.formats import files
from keystead.core.formats.file_tree import Leaf, Tree
from keystead.core.keys.hierarchy import expand_site_key
from keystead.core.secret import SecretKey
from keystead.core.stores.files import CHUNK_BYTES, NodeKind

VECTORS: Any = json.loads((Path(__file__).parent.parent / "vectors" / "files.json").read_text())
KEYS = expand_site_key(SecretKey(bytes.fromhex(VECTORS["site_keys"]["2"])))
INVENTED = settings(max_examples=300, deadline=None)


def boxes(name: str) -> list[bytes]:
    return [bytes.fromhex(case["bytes"]) for case in VECTORS[name]["valid"]]


@INVENTED
@given(changed(boxes("manifests"), b"KSMF\1\0"))
def test_a_manifest_is_the_identity_or_refused(data: bytes) -> None:
    try:
        manifest = files.decode_manifest(data, object_name="f")
    except IntegrityFailure as failure:
        assert failure.code == "file_damaged"  # noqa: PT017 - both outcomes are right, each for its own bytes
    else:
        assert files.encode_manifest(manifest) == data
        assert sum(entry.size for entry in manifest.entries) == manifest.size
        assert all(entry.size == CHUNK_BYTES for entry in manifest.entries[:-1])


@INVENTED
@given(st.integers(0, 2**16 - 1), st.integers(0, 2**64 - 1) | st.integers(0, 4 * CHUNK_BYTES), st.binary(max_size=300))
def test_a_manifest_never_promises_more_than_it_has(typed: int, size: int, body: bytes) -> None:
    """A size of 2^64 - 1 costs nothing before it is refused."""
    data = b"KSMF\1\0" + typed.to_bytes(2, "big") + size.to_bytes(8, "big") + body
    try:
        manifest = files.decode_manifest(data, object_name="f")
    except IntegrityFailure as failure:
        assert failure.code == "file_damaged"  # noqa: PT017 - as above
    else:
        assert (manifest.size, len(manifest.entries)) == (size, files.chunk_count(size))
        assert files.encode_manifest(manifest) == data


@INVENTED
@given(changed(boxes("trees"), b"\1"))
def test_a_tree_is_the_identity_or_refused(data: bytes) -> None:
    try:
        tree = Tree.decode(KEYS, data, object_name="s")
    except IntegrityFailure as failure:
        assert failure.code == "object_damaged"  # noqa: PT017 - as above
    else:
        assert tree.encode() == data
        assert len(data) == 2 + (16 << tree.bits)


anything = st.builds(
    Leaf,
    st.text(max_size=40),
    st.text(max_size=40),
    st.sampled_from(NodeKind),
    st.binary(max_size=40),
    st.integers(-1, 2**33),
    st.binary(max_size=40),
)


@INVENTED
@given(st.lists(anything, max_size=4), st.integers(-2, 20))
def test_rows_of_anything_match_no_bucket_that_holds_something(leaves: list[Leaf], bucket: int) -> None:
    """What a database gives may hold anything; the check answers, and never breaks."""
    site = "5d6f1f0e-0000-4000-8000-00000000000a"
    tree = Tree.empty(KEYS).replaced(0, [Leaf(site, site, NodeKind.FILE, bytes(32), 1, bytes(32))])
    assert not tree.matches(bucket, leaves)
    assert not tree.matches_all(leaves)


@INVENTED
@given(st.binary(max_size=60))
def test_a_name_is_text_or_refused(data: bytes) -> None:
    try:
        name = files.decode_name(data, object_name="f")
    except IntegrityFailure as failure:
        assert failure.code == "file_damaged"  # noqa: PT017 - as above
        with pytest.raises(UnicodeDecodeError):
            data.decode()
    else:
        assert name.encode() == data
