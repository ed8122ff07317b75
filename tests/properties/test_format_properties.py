"""What holds for every input of the formats."""

from __future__ import annotations

import operator
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from keystead.core.errors import IntegrityFailure
from keystead.core.formats import context, envelope, pack, sealed_object, wrapped_key
from keystead.core.formats.aead import Aes
from keystead.core.secret import SecretKey

if TYPE_CHECKING:
    from zstandard import ZstdCompressor

Arguments = tuple[str, tuple[object, ...]]

ids = st.uuids().map(str)
keys = st.binary(min_size=32, max_size=32).map(SecretKey)
nonces = st.binary(min_size=12, max_size=12)
u32 = st.integers(0, 2**32 - 1)
texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40)
kinds = st.sampled_from(["item", "item-summary", "folder-name", "pack-index"])
key_kinds = st.sampled_from(["mailbox-key", "site-key", "chunk-key", "workload-key", "provider-key"])

contexts = st.one_of(
    st.tuples(st.just("envelope_context"), st.tuples(texts, texts, texts, texts, texts, texts)),
    st.tuples(st.just("keystore_context"), st.tuples(texts, texts, texts, texts)),
    st.tuples(st.just("key_context"), st.tuples(texts, key_kinds, texts, texts, u32)),
    st.tuples(st.just("object_context"), st.tuples(texts, kinds, texts, u32, st.booleans())),
)


def build(arguments: Arguments) -> context.Context:
    built = getattr(context, arguments[0])(*arguments[1])
    assert isinstance(built, context.Context)
    return built


@given(contexts, contexts)
def test_two_contexts_are_equal_only_if_everything_in_them_is(one: Arguments, two: Arguments) -> None:
    assert (build(one) == build(two)) == (one == two)


class Parent(NamedTuple):
    """A key that seals, and what its next box needs."""

    key: Aes
    key_id: str
    version: int
    nonce: bytes


parents = st.builds(Parent, keys.map(Aes), ids, u32, nonces)


@given(parents, keys, contexts, contexts)
def test_a_wrapped_key_opens_under_its_own_parent_and_context_alone(
    parent: Parent, key: SecretKey, own: Arguments, other: Arguments
) -> None:
    """R-095."""
    blob = wrapped_key.wrap(parent.key, key, parent_id=parent.key_id, parent_version=parent.version, context=build(own), nonce=parent.nonce)

    def unwrapped(arguments: Arguments) -> SecretKey:
        return wrapped_key.unwrap(
            parent.key, blob, parent_id=parent.key_id, parent_version=parent.version, context=build(arguments), object_name="k"
        )

    assert len(blob) == wrapped_key.WRAPPED_BYTES
    assert unwrapped(own) == key
    assume(own != other)
    with pytest.raises(IntegrityFailure):
        unwrapped(other)


plaintexts = st.builds(operator.mul, st.binary(max_size=3000), st.integers(1, 20))
compressors = st.sampled_from([None, sealed_object.new_compressor()])


@given(parents, plaintexts, compressors, contexts, contexts)
def test_a_sealed_object_opens_under_its_own_key_and_context_alone(
    parent: Parent, plaintext: bytes, compressor: ZstdCompressor | None, own: Arguments, other: Arguments
) -> None:
    """R-097."""
    box = sealed_object.seal(
        parent.key,
        plaintext,
        key_id=parent.key_id,
        key_version=parent.version,
        context=build(own),
        nonce=parent.nonce,
        compressor=compressor,
    )

    def opened(arguments: Arguments) -> bytes:
        return sealed_object.open_object(
            parent.key, box, key_id=parent.key_id, key_version=parent.version, context=build(arguments), object_name="o"
        )

    assert len(box) <= len(plaintext) + sealed_object.OVERHEAD_BYTES
    assert opened(own) == plaintext
    assume(own != other)
    with pytest.raises(IntegrityFailure):
        opened(other)


uris = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=1024)
envelopes = st.one_of(
    st.builds(
        envelope.Envelope,
        st.just(envelope.WrapAlgorithm.RSA_OAEP_256),
        uris,
        st.sampled_from([256, 384, 512]).flatmap(lambda size: st.binary(min_size=size, max_size=size)),
    ),
    st.builds(envelope.Envelope, st.just(envelope.WrapAlgorithm.AVAILABILITY), uris, st.binary(min_size=1, max_size=512)),
)


@given(envelopes)
def test_an_envelope_reads_back(value: envelope.Envelope) -> None:
    assert envelope.decode(envelope.encode(value), object_name="e") == value


@given(keys, st.lists(st.tuples(ids, st.binary(max_size=200)), min_size=1, max_size=20, unique_by=lambda item: item[0]), ids, ids)
def test_a_pack_lists_exactly_its_items_without_gaps(key: SecretKey, items: list[tuple[str, bytes]], key_id: str, pack_id: str) -> None:
    counter = iter(range(1000))
    aes = Aes(key)
    writer = pack.PackWriter(
        bytearray(16_384), aes, tenant_id="t", key_id=key_id, key_version=1, random=lambda size: next(counter).to_bytes(size, "big")
    )
    for item_id, plaintext in items:
        writer.add(item_id, plaintext, context=context.object_context("t", "item", item_id, 0, last=True))
    entries = writer.entries
    whole = writer.finish(pack_id)
    assert pack.read_index(aes, whole, tenant_id="t", pack_id=pack_id, key_id=key_id, key_version=1) == entries
    assert [(entry.item_id, entry.length) for entry in entries] == [(i, len(p) + sealed_object.OVERHEAD_BYTES) for i, p in items]
    assert all(before.offset + before.length == after.offset for before, after in pairwise(entries))
