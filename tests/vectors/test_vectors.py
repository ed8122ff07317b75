"""Every implementation must produce, open or refuse exactly these bytes (docs/spec)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from keystead.core.door import key_bytes
from keystead.core.errors import IntegrityFailure
from keystead.core.formats import context, envelope, kdf, pack, sealed_object, wrapped_key
from keystead.core.formats.aead import Aes
from keystead.core.keys import hierarchy
from keystead.core.secret import SecretKey


def load(name: str) -> Any:
    return json.loads((Path(__file__).parent / f"{name}.json").read_text())


def cases(name: str, group: str) -> list[Any]:
    return [pytest.param(case, id=case["name"]) for case in load(name)[group]]


def raw(text: str) -> bytes:
    return bytes.fromhex(text)


@pytest.mark.parametrize("case", cases("context", "valid"))
def test_contexts_have_these_bytes(case: Any) -> None:
    assert getattr(context, case["function"])(**case["arguments"]).encode() == raw(case["bytes"])


WRAPPED = load("wrapped_key")["valid"][0]


def unwrap(blob: bytes) -> SecretKey:
    bound = context.key_context(**WRAPPED["context"])
    parent = WRAPPED["context"]["parent_id"]
    return wrapped_key.unwrap(
        Aes(SecretKey(raw(WRAPPED["parent_key"]))), blob, parent_id=parent, parent_version=1, context=bound, object_name="the key"
    )


def test_wrapped_keys_have_these_bytes_and_open() -> None:
    """R-095: each mailbox key is an AES-256 key wrapped by the policy key."""
    parent, key = Aes(SecretKey(raw(WRAPPED["parent_key"]))), SecretKey(raw(WRAPPED["key"]))
    arguments = WRAPPED["context"]
    blob = wrapped_key.wrap(
        parent,
        key,
        parent_id=arguments["parent_id"],
        parent_version=arguments["parent_version"],
        context=context.key_context(**arguments),
        nonce=raw(WRAPPED["nonce"]),
    )
    assert blob == raw(WRAPPED["bytes"])
    assert unwrap(blob) == key
    assert wrapped_key.parent_of(blob, object_name="the key") == (arguments["parent_id"], arguments["parent_version"])


@pytest.mark.parametrize("case", cases("wrapped_key", "invalid"))
def test_wrapped_keys_that_are_refused(case: Any) -> None:
    with pytest.raises(IntegrityFailure, match="wrapped_key_damaged: the wrapped key the key "):
        unwrap(raw(case["bytes"]))


@pytest.mark.parametrize("case", cases("envelope", "valid"))
def test_envelopes_have_these_bytes(case: Any) -> None:
    """R-079: the copies of a policy key, each with what is needed to ask for its unwrapping."""
    value = envelope.Envelope(envelope.WrapAlgorithm(case["algorithm"]), case["key_uri"], raw(case["wrapped"]))
    assert envelope.encode(value) == raw(case["bytes"])
    assert envelope.decode(raw(case["bytes"]), object_name="the copy") == value


@pytest.mark.parametrize("case", cases("envelope", "invalid"))
def test_envelopes_that_are_refused(case: Any) -> None:
    with pytest.raises(IntegrityFailure, match="envelope_damaged: the envelope the copy "):
        envelope.decode(raw(case["bytes"]), object_name="the copy")


OBJECTS = load("sealed_object")


def open_object(box: bytes) -> bytes:
    return sealed_object.open_object(
        Aes(SecretKey(raw(OBJECTS["key"]))),
        box,
        key_id=OBJECTS["key_id"],
        key_version=OBJECTS["key_version"],
        context=context.object_context(**OBJECTS["context"]),
        object_name="the object",
    )


@pytest.mark.parametrize("case", cases("sealed_object", "valid"))
def test_sealed_objects_open(case: Any) -> None:
    assert open_object(raw(case["bytes"])) == raw(case["plaintext"])


@pytest.mark.parametrize("case", [case for case in OBJECTS["valid"] if not raw(case["bytes"])[6]], ids=lambda case: case["name"])
def test_uncompressed_sealed_objects_have_these_bytes(case: Any) -> None:
    box = sealed_object.seal(
        Aes(SecretKey(raw(OBJECTS["key"]))),
        raw(case["plaintext"]),
        key_id=OBJECTS["key_id"],
        key_version=OBJECTS["key_version"],
        context=context.object_context(**OBJECTS["context"]),
        nonce=raw(case["nonce"]),
    )
    assert box == raw(case["bytes"])


@pytest.mark.parametrize("case", cases("sealed_object", "invalid"))
def test_sealed_objects_that_are_refused(case: Any) -> None:
    with pytest.raises(IntegrityFailure, match="object_damaged: the object the object does not open"):
        open_object(raw(case["bytes"]))


PACKS = load("pack")


def read_index(data: bytes) -> list[pack.PackEntry]:
    key = Aes(SecretKey(raw(PACKS["key"])))
    return pack.read_index(
        key, data, tenant_id=PACKS["tenant_id"], pack_id=PACKS["pack_id"], key_id=PACKS["key_id"], key_version=PACKS["key_version"]
    )


def test_packs_have_these_bytes_and_list_their_items() -> None:
    case = PACKS["valid"][0]
    key, nonces = Aes(SecretKey(raw(PACKS["key"]))), iter(case["nonces"])
    writer = pack.PackWriter(
        bytearray(4096),
        key,
        tenant_id=PACKS["tenant_id"],
        key_id=PACKS["key_id"],
        key_version=PACKS["key_version"],
        random=lambda size: raw(next(nonces))[:size],
    )
    for item in case["items"]:
        bound = context.object_context(PACKS["tenant_id"], PACKS["kind"], item["item_id"], 0, last=True)
        writer.add(item["item_id"], raw(item["plaintext"]), context=bound)
    entries = writer.entries
    assert writer.finish(PACKS["pack_id"]) == raw(case["bytes"])
    assert read_index(raw(case["bytes"])) == entries
    assert [entry.item_id for entry in entries] == [item["item_id"] for item in case["items"]]


@pytest.mark.parametrize("case", cases("pack", "invalid"))
def test_packs_that_are_refused(case: Any) -> None:
    with pytest.raises(IntegrityFailure, match=f"pack_damaged: the pack {PACKS['pack_id']} is not"):
        read_index(raw(case["bytes"]))


KEYS = load("keys")


@pytest.mark.parametrize("case", KEYS["derivation"], ids=lambda case: case["info"])
def test_derived_keys(case: Any) -> None:
    assert kdf.derive(SecretKey(raw(case["key"])), case["info"]) == SecretKey(raw(case["derived"]))


def test_the_hierarchy_uses_each_derived_key_for_its_purpose() -> None:
    by_info = {case["info"]: case for case in KEYS["derivation"]}
    policy = hierarchy.expand_policy_key(SecretKey(raw(by_info["keystead/1/policy-key/wrap"]["key"])))
    mailbox = hierarchy.expand_mailbox_key(SecretKey(raw(by_info["keystead/1/mailbox-key/seal"]["key"])))

    def derived(info: str) -> SecretKey:
        return SecretKey(raw(by_info[info]["derived"]))

    box = Aes(derived("keystead/1/policy-key/wrap")).seal(bytes(12), b"data", b"bound")
    assert policy.wrap.open(bytes(12), box, b"bound") == b"data"
    assert policy.check == key_bytes(derived("keystead/1/policy-key/check"))
    assert policy.lookup == derived("keystead/1/policy-key/lookup")
    box = Aes(derived("keystead/1/mailbox-key/seal")).seal(bytes(12), b"data", b"bound")
    assert mailbox.seal.open(bytes(12), box, b"bound") == b"data"
    assert mailbox.lookup == derived("keystead/1/mailbox-key/lookup")


@pytest.mark.parametrize("case", KEYS["keyed_hash"], ids=lambda case: case["purpose"])
def test_keyed_hashes(case: Any) -> None:
    assert hierarchy.keyed_hash(SecretKey(raw(case["lookup"])), case["purpose"], raw(case["data"])) == raw(case["hash"])
