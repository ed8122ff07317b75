"""Ids are UUIDs that other programs recognise, and ordered ones sort by the time they were made."""

from __future__ import annotations

import os
import uuid

from hypothesis import given
from hypothesis import strategies as st

from keystead.core.ids import is_id, new_id, ordered_id


@given(st.binary(min_size=16, max_size=16))
def test_a_new_id_is_a_version_4_uuid_of_the_given_bytes(data: bytes) -> None:
    made = new_id(lambda _count: data)
    assert uuid.UUID(made) == uuid.UUID(bytes=data, version=4)
    assert made == str(uuid.UUID(made))
    assert is_id(made)


@given(st.integers(min_value=0, max_value=2**48 - 1), st.binary(min_size=10, max_size=10))
def test_an_ordered_id_is_a_version_7_uuid_that_starts_with_the_time(now: int, data: bytes) -> None:
    made = uuid.UUID(ordered_id(lambda _count: data, now))
    assert (made.version, made.variant) == (7, uuid.RFC_4122)
    assert made.int >> 80 == now


def test_ordered_ids_sort_by_time() -> None:
    made = [ordered_id(os.urandom, 1_780_000_000_000 + step) for step in range(100)]
    assert made == sorted(made)
