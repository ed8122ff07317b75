from __future__ import annotations

from uuid import UUID

import pytest

from keystead.core.formats.context import envelope_context, key_context, keystore_context, object_context
from keystead.core.formats.key_ref import key_ref, raw_id, read_key_ref

TENANT = "8f14e45f-ceea-467f-a0e6-1c1f2d3b4a55"


@pytest.mark.parametrize("value", ["", "x" * 1025, "ü" * 513, "\ud800"])
def test_empty_over_long_or_unencodable_values_are_refused(value: str) -> None:
    with pytest.raises(ValueError, match=r"context|surrogates"):
        object_context(TENANT, "item", value, 0, last=True)
    with pytest.raises(ValueError, match=r"context|surrogates"):
        object_context(value, "item", TENANT, 0, last=True)
    with pytest.raises(ValueError, match=r"context|surrogates"):
        key_context(TENANT, "mailbox-key", TENANT, value, 1)
    with pytest.raises(ValueError, match=r"context|surrogates"):
        envelope_context(TENANT, TENANT, TENANT, "primary", value, "RSA-OAEP-256")
    with pytest.raises(ValueError, match=r"context|surrogates"):
        keystore_context(TENANT, TENANT, value, "availability")


@pytest.mark.parametrize("kind", ["", "Item", "item-", "-item", "item--x", "item/x", "item 1", "x" * 33, "item\n"])
def test_malformed_kinds_are_refused(kind: str) -> None:
    with pytest.raises(ValueError, match="is not a kind"):
        object_context(TENANT, kind, TENANT, 0, last=True)
    with pytest.raises(ValueError, match="is not a kind"):
        key_context(TENANT, kind, TENANT, TENANT, 1)


@pytest.mark.parametrize("number", [-1, 2**32])
def test_numbers_are_u32(number: int) -> None:
    with pytest.raises(ValueError, match="is not between 0 and 4294967295"):
        object_context(TENANT, "item", TENANT, number, last=True)
    with pytest.raises(ValueError, match="is not between 0 and 4294967295"):
        key_context(TENANT, "mailbox-key", TENANT, TENANT, number)
    with pytest.raises(ValueError, match="key version"):
        key_ref(TENANT, number)


def test_the_four_functions_never_give_each_others_bytes() -> None:
    """A key context of kind K and an object context of kind K differ by their kind alone."""
    assert key_context(TENANT, "item", "x", "x", 0) != object_context(TENANT, "item", "x", 0, last=False)
    assert (
        object_context(TENANT, "envelope", "x", 0, last=True).encode()[5:13]
        != envelope_context("a", "b", "c", "d", "e", "f").encode()[5:13]
    )


def test_a_key_reference_is_id_and_version_and_reads_back() -> None:
    assert key_ref(TENANT, 258) == UUID(TENANT).bytes + b"\0\0\1\2"
    assert read_key_ref(key_ref(TENANT, 258)) == (TENANT, 258)


@pytest.mark.parametrize("text", [TENANT.upper(), TENANT.replace("-", ""), "{" + TENANT + "}", "urn:uuid:" + TENANT, "no-id", ""])
def test_an_id_has_one_spelling(text: str) -> None:
    with pytest.raises(ValueError, match=r"lower case|badly formed"):
        raw_id(text)
