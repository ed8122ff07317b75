"""Parsers under changed and invented bytes: the one value, or `IntegrityFailure`, and nothing else (docs/spec/README.md)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keystead.core.errors import IntegrityFailure
from keystead.core.formats import context, envelope, pack, sealed_object, wrapped_key
from keystead.core.formats.aead import Aes
from keystead.core.secret import SecretKey

VECTORS = Path(__file__).parent.parent / "vectors"
INVENTED = settings(max_examples=300, deadline=None)


def load(name: str) -> Any:
    return json.loads((VECTORS / f"{name}.json").read_text())


def boxes(name: str) -> list[bytes]:
    return [bytes.fromhex(case["bytes"]) for case in load(name)["valid"]]


@st.composite
def changed(draw: st.DrawFn, originals: list[bytes], magic: bytes) -> bytes:
    """Valid bytes with a few bytes overwritten, cut out, put in or cut off; or any bytes behind the right first ones."""
    if draw(st.booleans()):
        return magic + draw(st.binary(max_size=400))
    data = bytearray(draw(st.sampled_from(originals)))
    for _ in range(draw(st.integers(1, 3))):
        start = draw(st.integers(0, len(data)))
        end = min(len(data), start + draw(st.integers(0, 8)))
        data[start:end] = draw(st.binary(max_size=8))
    return bytes(data[: draw(st.integers(0, len(data)))]) if draw(st.booleans()) else bytes(data)


WRAPPED = load("wrapped_key")["valid"][0]


@INVENTED
@given(changed(boxes("wrapped_key"), b"KSWK\1\1"))
def test_wrapped_key(data: bytes) -> None:
    given_context = WRAPPED["context"]
    parent, bound = Aes(SecretKey(bytes.fromhex(WRAPPED["parent_key"]))), context.key_context(**given_context)
    try:
        wrapped_key.unwrap(parent, data, parent_id=given_context["parent_id"], parent_version=1, context=bound, object_name="k")
    except IntegrityFailure as failure:
        assert failure.code == "wrapped_key_damaged"  # noqa: PT017 - both outcomes are right, each for its own bytes
        assert data.hex() != WRAPPED["bytes"]
    else:
        assert data.hex() == WRAPPED["bytes"]


@INVENTED
@given(changed(boxes("envelope"), b"KSEV\1\1"))
def test_envelope_is_the_identity_or_refused(data: bytes) -> None:
    try:
        value = envelope.decode(data, object_name="e")
    except IntegrityFailure as failure:
        assert failure.code == "envelope_damaged"  # noqa: PT017 - as above
    else:
        assert envelope.encode(value) == data


OBJECTS = load("sealed_object")


@INVENTED
@given(changed(boxes("sealed_object"), b"KSOB\1\1"))
def test_sealed_object(data: bytes) -> None:
    key, bound = Aes(SecretKey(bytes.fromhex(OBJECTS["key"]))), context.object_context(**OBJECTS["context"])
    original = {case["bytes"]: case["plaintext"] for case in OBJECTS["valid"]}
    try:
        opened = sealed_object.open_object(key, data, key_id=OBJECTS["key_id"], key_version=7, context=bound, object_name="o")
    except IntegrityFailure as failure:
        assert failure.code == "object_damaged"  # noqa: PT017 - as above
        assert data.hex() not in original
    else:
        assert opened.hex() == original[data.hex()]


@INVENTED
@given(st.sampled_from([0, 1, 2, 3, 255]), st.integers(0, 2000), st.binary(max_size=300))
def test_what_a_holder_of_the_key_could_forge_is_bounded(flags: int, length: int, body: bytes) -> None:
    """A body that opens but is no frame, or another length than stated, never comes out."""
    key, bound = Aes(SecretKey(bytes.fromhex(OBJECTS["key"]))), context.object_context(**OBJECTS["context"])
    reference = bytes.fromhex(OBJECTS["key_id"].replace("-", "")) + (7).to_bytes(4, "big")
    header = b"KSOB\1\1" + bytes([flags, 0]) + reference + length.to_bytes(4, "big") + bytes(12)
    box = header + key.seal(bytes(12), body, header + bound)
    try:
        opened = sealed_object.open_object(key, box, key_id=OBJECTS["key_id"], key_version=7, context=bound, object_name="o")
    except IntegrityFailure as failure:
        assert failure.code == "object_damaged"  # noqa: PT017 - as above
    else:
        assert len(opened) == length
        assert flags == 1 or opened == body


PACKS = load("pack")


@INVENTED
@given(changed(boxes("pack"), b"KSPK\1\0\0\0"))
def test_pack_lists_the_same_items_or_is_refused(data: bytes) -> None:
    """Items themselves are authenticated when they are opened: the index alone says what and where they are."""
    key = Aes(SecretKey(bytes.fromhex(PACKS["key"])))
    try:
        entries = pack.read_index(key, data, tenant_id=PACKS["tenant_id"], pack_id=PACKS["pack_id"], key_id=PACKS["key_id"], key_version=7)
    except IntegrityFailure as failure:
        assert failure.code == "pack_damaged"  # noqa: PT017 - as above
    else:
        assert [entry.item_id for entry in entries] == [item["item_id"] for item in PACKS["valid"][0]["items"]]


@INVENTED
@given(st.binary(max_size=100))
def test_headers_of_anything(data: bytes) -> None:
    for parse in (
        lambda: sealed_object.parse_header(data, object_name="o"),
        lambda: wrapped_key.parent_of(data, object_name="k"),
        lambda: pack.index_range(data, 1000, pack_id="p"),
    ):
        with pytest.raises(IntegrityFailure):
            parse()
