"""What a mailbox holds: our code makes, opens and refuses exactly the bytes of docs/spec/mailbox.md."""

from __future__ import annotations

import copy
import hashlib
import json
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from keystead.adapters.keystores.memory import MemoryKeyStore
from keystead.core.errors import IntegrityFailure
from keystead.core.formats import mailbox_items
from keystead.core.formats.pack import read_index
from keystead.core.formats.sealed_object import open_object, seal
from keystead.core.formats.wrapped_key import unwrap, wrap
from keystead.core.keys.hierarchy import MailboxKeys, check_matches, expand_mailbox_key, expand_policy_key
from keystead.core.policies.policy import CopyRole, Policy, Workload
from keystead.core.secret import SecretKey
from keystead.core.settings import Settings
from keystead.ports.keystore import Compartment
from keystead.services.keyring import Keyring

VECTORS: Any = json.loads((Path(__file__).parent / "mailbox.json").read_text())
POLICY_KEY = expand_policy_key(SecretKey(bytes.fromhex(VECTORS["policy_key"])))
TENANT = VECTORS["rows"]["mailboxes"][0]["tenant_id"]
LARGE = VECTORS["large"]


def raw(text: str) -> bytes:
    return bytes.fromhex(text)


def row(rows: Any, table: str, **where: Any) -> Any:
    return next(one for one in rows[table] if where.items() <= one.items())


def open_key(rows: Any, mailbox: Any, version: int) -> MailboxKeys:
    policy = row(rows, "policies", id=mailbox["policy_id"])
    check_matches(raw(policy["check_value"]), POLICY_KEY, policy_name="the policy")
    stored = row(rows, "mailbox_keys", mailbox_id=mailbox["id"], version=version)
    bound = mailbox_items.mailbox_key_context(mailbox["tenant_id"], mailbox["id"], version, policy["id"], VECTORS["policy_key_version"])
    return expand_mailbox_key(
        unwrap(
            POLICY_KEY.wrap,
            raw(stored["wrapped"]),
            parent_id=policy["id"],
            parent_version=VECTORS["policy_key_version"],
            context=bound,
            object_name="the mailbox key",
        )
    )


def open_everything(rows: Any, item_id: str) -> tuple[bytes, mailbox_items.ItemSummary, str]:
    """Content, summary and folder name of an item of one part."""
    item = row(rows, "items", id=item_id)
    mailbox = row(rows, "mailboxes", id=item["mailbox_id"])
    folder = row(rows, "folders", id=item["folder_id"])
    tenant = mailbox["tenant_id"]
    keys = open_key(rows, mailbox, item["key_version"])
    folder_keys = open_key(rows, mailbox, folder["key_version"])
    stored = raw(VECTORS["objects"][item["object_ref"]])[item["offset"] : item["offset"] + item["length"]]

    def opened(using: MailboxKeys, version: int, box: bytes, bound: Any) -> bytes:
        return open_object(using.seal, box, key_id=mailbox["id"], key_version=version, context=bound, object_name="the box")

    content = opened(keys, item["key_version"], stored, mailbox_items.item_context(tenant, item_id, 0, item["parts"]))
    summary = opened(keys, item["key_version"], raw(item["summary"]), mailbox_items.summary_context(tenant, item_id))
    name = opened(folder_keys, folder["key_version"], raw(folder["sealed_name"]), mailbox_items.folder_context(tenant, folder["id"]))
    return (
        content,
        mailbox_items.decode_summary(summary, object_name="the summary"),
        mailbox_items.decode_folder_name(name, object_name="the name"),
    )


@pytest.mark.parametrize("case", VECTORS["items"], ids=lambda case: case["subject"])
def test_items_open_from_policy_key_rows_and_objects(case: Any) -> None:
    """R-095: policy key, mailbox key, item; nothing else is needed."""
    content, summary, folder = open_everything(VECTORS["rows"], case["id"])
    assert content == raw(case["plaintext"])
    assert summary == mailbox_items.ItemSummary(case["subject"], case["sender"], case["sha256"], case["ordinal"])
    assert summary.sha256 == hashlib.sha256(content).hexdigest()
    assert folder == case["folder"]


@pytest.mark.parametrize("case", VECTORS["invalid"], ids=lambda case: case["name"])
def test_changed_rows_are_refused(case: Any) -> None:
    """A person with the database alone can break an item, never have another one given out in its place."""
    rows = copy.deepcopy(VECTORS["rows"])
    for change in case["changes"]:
        rows[change["table"]][change["row"]][change["column"]] = change["value"]
    with pytest.raises(IntegrityFailure):
        open_everything(rows, case["item"])


def test_wrapped_mailbox_keys_have_these_bytes() -> None:
    """R-095."""
    mailbox = VECTORS["rows"]["mailboxes"][0]
    for stored in VECTORS["rows"]["mailbox_keys"]:
        made = wrap(
            POLICY_KEY.wrap,
            SecretKey(raw(VECTORS["mailbox_keys"][str(stored["version"])])),
            parent_id=mailbox["policy_id"],
            parent_version=1,
            context=mailbox_items.mailbox_key_context(TENANT, mailbox["id"], stored["version"], mailbox["policy_id"], 1),
            nonce=raw(stored["wrapped"])[26:38],
        )
        assert made.hex() == stored["wrapped"]


def resealed(keys: MailboxKeys, version: int, box: bytes, data: bytes, bound: Any) -> bytes:
    mailbox_id = VECTORS["rows"]["mailboxes"][0]["id"]
    return seal(keys.seal, data, key_id=mailbox_id, key_version=version, context=bound, nonce=box[32:44])


def test_summaries_and_hashes_have_these_bytes() -> None:
    """R-097: what is listed of an item is sealed, and the item is recognised by a keyed hash alone."""
    mailbox = VECTORS["rows"]["mailboxes"][0]
    for expected in VECTORS["items"]:
        item = row(VECTORS["rows"], "items", id=expected["id"])
        keys = open_key(VECTORS["rows"], mailbox, item["key_version"])
        data = mailbox_items.encode_summary(
            mailbox_items.ItemSummary(expected["subject"], expected["sender"], expected["sha256"], expected["ordinal"])
        )
        box, bound = raw(item["summary"]), mailbox_items.summary_context(TENANT, item["id"])
        assert resealed(keys, item["key_version"], box, data, bound) == box
        digest = hashlib.sha256(raw(expected["plaintext"])).digest()
        assert mailbox_items.content_hash(keys, digest, expected["ordinal"]).hex() == item["content_hash"]


def test_folder_names_and_hashes_have_these_bytes() -> None:
    mailbox = VECTORS["rows"]["mailboxes"][0]
    names = {row(VECTORS["rows"], "items", id=case["id"])["folder_id"]: case["folder"] for case in VECTORS["items"]}
    for folder in VECTORS["rows"]["folders"]:
        keys, name, box = open_key(VECTORS["rows"], mailbox, folder["key_version"]), names[folder["id"]], raw(folder["sealed_name"])
        bound = mailbox_items.folder_context(TENANT, folder["id"])
        assert resealed(keys, folder["key_version"], box, name.encode(), bound) == box
        assert mailbox_items.folder_hash(keys, name).hex() == folder["name_hash"]


def test_a_pack_is_named_by_its_object_and_lists_its_items() -> None:
    mailbox = VECTORS["rows"]["mailboxes"][0]
    for ref, pack_id in VECTORS["pack_ids"].items():
        assert mailbox_items.pack_id(ref) == pack_id
        items = [item for item in VECTORS["rows"]["items"] if item["object_ref"] == ref]
        keys = open_key(VECTORS["rows"], mailbox, items[0]["key_version"])
        listed = read_index(
            keys.seal,
            raw(VECTORS["objects"][ref]),
            tenant_id=TENANT,
            pack_id=pack_id,
            key_id=mailbox["id"],
            key_version=items[0]["key_version"],
        )
        assert listed == [(item["id"], item["offset"], item["length"]) for item in items]


# -- items of several parts -----------------------------------------------------------------------------------------------------------


def large_plaintext() -> bytes:
    return hashlib.shake_256(LARGE["plaintext"]["shake_256"].encode()).digest(LARGE["plaintext"]["size"])


def part_of(data: bytes, index: int) -> bytes:
    start = index * mailbox_items.PART_BYTES
    return data[start : start + mailbox_items.part_bytes(len(data), index)]


def test_parts_of_a_large_item_have_these_places_and_bytes() -> None:
    item, data = LARGE["row"], large_plaintext()
    keys = open_key(VECTORS["rows"], VECTORS["rows"]["mailboxes"][0], item["key_version"])
    assert mailbox_items.stands_alone(item["size"], item["parts"])
    assert mailbox_items.part_count(item["size"]) == item["parts"] == len(LARGE["parts"])
    for index, part in enumerate(LARGE["parts"]):
        bound = mailbox_items.item_context(TENANT, item["id"], index, item["parts"])
        box = resealed(keys, item["key_version"], raw(part["header"]), part_of(data, index), bound)
        assert (box[:44].hex(), box[-16:].hex(), hashlib.sha256(box).hexdigest()) == (part["header"], part["tag"], part["sha256"])
        assert mailbox_items.part_box(item["size"], index) == (part["offset"], len(box)) == (part["offset"], part["length"])
    assert LARGE["parts"][-1]["offset"] + LARGE["parts"][-1]["length"] == item["length"]


def test_a_part_opens_only_in_its_place_and_never_as_the_whole() -> None:
    item = LARGE["row"]
    keys = open_key(VECTORS["rows"], VECTORS["rows"]["mailboxes"][0], item["key_version"])
    last = len(LARGE["parts"]) - 1
    bound = mailbox_items.item_context(TENANT, item["id"], last, item["parts"])
    box = resealed(keys, item["key_version"], raw(LARGE["parts"][last]["header"]), part_of(large_plaintext(), last), bound)

    def opened(index: int, parts: int) -> bytes:
        return open_object(
            keys.seal,
            box,
            key_id=item["mailbox_id"],
            key_version=item["key_version"],
            context=mailbox_items.item_context(TENANT, item["id"], index, parts),
            object_name="the part",
        )

    assert opened(last, item["parts"]) == part_of(large_plaintext(), last)
    for index, parts in [(0, 1), (0, 2), (last, item["parts"] + 1), (last + 1, item["parts"] + 1)]:
        with pytest.raises(IntegrityFailure):
            opened(index, parts)


@pytest.mark.parametrize(
    ("size", "parts", "alone"),
    [
        (0, 1, False),
        (1, 1, False),
        (1_048_576, 1, False),
        (1_048_577, 1, True),
        (4_194_304, 1, True),
        (4_194_305, 2, True),
        (8_388_608, 2, True),
        (8_388_609, 3, True),
    ],
)
def test_how_many_parts_and_where(size: int, parts: int, alone: bool) -> None:  # noqa: FBT001 - a column of the table
    assert mailbox_items.part_count(size) == parts
    assert mailbox_items.stands_alone(size, parts) is alone
    places = [mailbox_items.part_box(size, index) for index in range(parts)]
    assert [offset for offset, _length in places] == [sum(length for _offset, length in places[:index]) for index in range(parts)]
    assert sum(length - 60 for _offset, length in places) == size


# -- summaries ------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", VECTORS["summaries"]["valid"], ids=lambda case: case["name"])
def test_summaries_have_one_encoding(case: Any) -> None:
    summary = mailbox_items.ItemSummary(case["subject"], case["sender"], case["sha256"], case["ordinal"])
    assert mailbox_items.encode_summary(summary) == raw(case["bytes"])
    assert mailbox_items.decode_summary(raw(case["bytes"]), object_name="the summary") == summary


@pytest.mark.parametrize("case", VECTORS["summaries"]["invalid"], ids=lambda case: case["name"])
def test_summaries_that_are_refused(case: Any) -> None:
    with pytest.raises(IntegrityFailure, match="object_damaged: the object the summary does not open"):
        mailbox_items.decode_summary(raw(case["bytes"]), object_name="the summary")


def test_a_summary_nested_without_end_is_refused() -> None:
    with pytest.raises(IntegrityFailure, match="object_damaged"):
        mailbox_items.decode_summary(b"[" * 100_000, object_name="the summary")


@given(st.text(), st.text(), st.binary(min_size=32, max_size=32), st.integers(0, 2**32 - 1))
def test_a_summary_is_plain_json_and_comes_back(subject: str, sender: str, digest: bytes, ordinal: int) -> None:
    summary = mailbox_items.ItemSummary(subject, sender, digest.hex(), ordinal)
    data = mailbox_items.encode_summary(summary)
    fields = {"subject": subject, "sender": sender, "sha256": digest.hex(), "ordinal": ordinal}
    assert data == msgspec.json.encode(fields)  # another library writes the same
    assert mailbox_items.decode_summary(data, object_name="the summary") == summary


@given(st.binary(max_size=60) | st.text(alphabet='{}[]":,\\usbjectnd0159', max_size=60).map(str.encode))
def test_any_other_bytes_are_no_summary(data: bytes) -> None:
    with pytest.raises(IntegrityFailure, match="object_damaged"):
        mailbox_items.decode_summary(data, object_name="the summary")


@pytest.mark.parametrize("data", [b"\xff", b"\xc0\x80", b"\xed\xa0\x80", b"Inbo\xc3"])
def test_a_folder_name_is_utf8(data: bytes) -> None:
    with pytest.raises(IntegrityFailure, match="object_damaged: the object the name does not open"):
        mailbox_items.decode_folder_name(data, object_name="the name")


# -- copies of the policy key made by the key store -----------------------------------------------------------------------------------


@pytest.mark.parametrize("case", VECTORS["copies"], ids=lambda case: case["name"])
def test_stored_copies_have_these_bytes(case: Any) -> None:
    """R-080, R-252: what the keyring has the key store wrap, in its envelope."""
    stored = case["row"]
    role = CopyRole(stored["role"])
    outer = raw(stored["envelope"])
    supply = iter([raw(case["shred_key"]), raw(case["key"]), raw(case["value_nonce"]), outer[6:18]])
    keystore = MemoryKeyStore(cast("Any", _FixedClock()), lambda _size: next(supply))
    keystore.create(Compartment.SHRED, case["shred_key_id"])
    keystore.create(Compartment(case["compartment"]), case["key_id"])
    policy = Policy(
        id=case["policy_id"],
        tenant_id=case["tenant_id"],
        workload=Workload.MAIL,
        name="mail",
        description="",
        enabled=True,
        created=0,
        version_id=stored["version_id"],
        version=1,
        check_value=POLICY_KEY.check,
        shred_key_id=case["shred_key_id"],
        availability_key_id="",
    )
    keyring = Keyring(
        cast("Any", None), keystore, cast("Any", None), cast("Any", _FixedClock()), lambda _size: next(supply), Settings(), "vectors"
    )
    made = keyring.wrap_stored(policy, stored["version_id"], role, case["key_id"], SecretKey(raw(VECTORS["policy_key"])))
    keyring.close()
    assert (made.role, made.key_uri, made.algorithm) == (role, stored["key_uri"], stored["algorithm"])
    assert made.envelope == outer


class _FixedClock:
    """A key store notes when a key was made; nothing here depends on it."""

    def now(self) -> int:
        return 0
