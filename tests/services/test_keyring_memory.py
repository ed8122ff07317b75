"""What a keyring holds in memory is bounded by the process, however many mailboxes and policies it opens."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from keystead.core.ids import new_id
from keystead.core.keys.decide import Operation
from keystead.services import keyring

if TYPE_CHECKING:
    from keystead.services.keyring import OpenPolicy
    from support.world import TenantWorld, World

MOST, LEAST = 24, 5


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keyring, "MAX_CHILDREN", MOST)
    monkeypatch.setattr(keyring, "LEAST_CHILDREN", LEAST)


@pytest.fixture
def contoso(world: World) -> TenantWorld:
    return world.tenant("contoso.example")


def _opened(contoso: TenantWorld, policy_id: str) -> OpenPolicy:
    return contoso.world.services.keyring.open(policy_id, Operation.SYSTEM, request_id=new_id(os.urandom))


def _fill(opened: OpenPolicy, count: int) -> None:
    """Open the keys of so many mailboxes, each twice."""
    for _ in range(count):
        mailbox = new_id(os.urandom)
        wrapped = opened.new_mailbox_key(mailbox, 1, os.urandom)
        assert opened.mailbox_keys(mailbox, 1, wrapped) is opened.mailbox_keys(mailbox, 1, wrapped), "the latest one is kept"


def _kept(opened: OpenPolicy) -> int:
    return len(opened._children)  # what is looked at is memory


def test_mailbox_keys_of_one_policy_are_kept_up_to_the_bound(contoso: TenantWorld) -> None:
    opened = _opened(contoso, contoso.policy("Only").id)
    _fill(opened, 3 * MOST)
    shares = len(contoso.world.services.keyring._open)
    assert _kept(opened) == MOST // shares


def test_policies_share_the_bound_and_each_keeps_a_few(contoso: TenantWorld) -> None:
    first = _opened(contoso, contoso.policy("P0").id)
    _fill(first, MOST)
    alone = _kept(first)
    others = [_opened(contoso, contoso.policy(f"P{number}").id) for number in range(1, 9)]
    for opened in (first, *others):
        _fill(opened, MOST)
    assert {_kept(opened) for opened in (first, *others)} == {LEAST}
    assert alone > LEAST
