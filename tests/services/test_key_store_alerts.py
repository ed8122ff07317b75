"""R-153: attempts to open the key store other than through the service raise an alert."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from keystead.api.types import watching as w
from keystead.core.errors import IntegrityFailure
from keystead.ports.clock import HOUR
from keystead.wiring import create_home, open_home
from support.world import OPERATOR

if TYPE_CHECKING:
    from pathlib import Path

    from support.world import World


def test_a_home_opened_with_another_master_raises_an_alert_R_153(tmp_path: Path) -> None:
    home = tmp_path / "home"
    create_home(home, dev=True, operator="operator@provider.example")
    master = home / "seals" / "keystore.master"
    right = master.read_bytes()
    master.write_bytes(os.urandom(32))
    with pytest.raises(IntegrityFailure):
        open_home(home)
    master.write_bytes(right)
    opened = open_home(home)
    alerts: list[w.AlertView] = opened.client(opened.as_operator()).call("alerts.everywhere", w.ListAlerts())
    opened.close()
    assert [(alert.kind, alert.detail) for alert in alerts] == [("key-store-access", "keystore_seal_refused")]


def test_a_changed_availability_copy_raises_an_alert_and_opens_nothing_R_153(world: World) -> None:
    contoso = world.tenant()
    alice = contoso.mailbox("alice", messages=1)
    policy = contoso.policy("Mail")
    contoso.assign(policy, alice)
    [(key_id,)] = world.sql("SELECT availability_key_id FROM policies WHERE id = ?", policy.id)
    other = contoso.policy("Other")
    [(other_key,)] = world.sql("SELECT availability_key_id FROM policies WHERE id = ?", other.id)
    assert key_id != other_key
    world.sql("UPDATE policies SET availability_key_id = ? WHERE id = ?", other_key, policy.id)
    world.forget()
    world.clock.advance(5 * HOUR)
    for vault in ("contosov1", "contosov2"):
        world.vaults.fail(vault, "system-error")
    with pytest.raises(IntegrityFailure):
        alice.items()
    alerts: list[w.AlertView] = world.client(OPERATOR).call("alerts.everywhere", w.ListAlerts())
    assert ("key-store-access", policy.id) in {(alert.kind, alert.subject_id) for alert in alerts}
