"""The main job, end to end, on one page."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from keystead.core.errors import KeyDenied
from support.world import SECOND, message

if TYPE_CHECKING:
    from support.world import World


def test_mail_goes_under_a_customer_policy_and_stops_opening_when_both_keys_are_taken_R_145(world: World) -> None:
    contoso = world.tenant("contoso.example")
    alice = contoso.mailbox("alice", messages=3)
    policy = contoso.policy("Mail")
    job = contoso.assign(policy, alice)
    assert job.state == "done"
    assert alice.statistics().is_encrypted
    assert alice.statistics().data_encryption_policy_id == policy.version_id
    assert alice.read_all() == sorted(message(index) for index in range(3))
    for vault in ("contosov1", "contosov2"):
        contoso.deny(vault)
    world.clock.advance(61 * SECOND)
    with pytest.raises(KeyDenied):
        alice.items()
    for vault in ("contosov1", "contosov2"):
        contoso.allow(vault)
    assert alice.read_all() == sorted(message(index) for index in range(3))
