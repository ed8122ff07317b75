"""A vault that is failed over: keys are used, nothing is changed (R-069)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from keystead.api.routes import VAULT_ROUTES
from keystead.api.types import vaults as t
from keystead.core.errors import Forbidden, PreconditionFailed
from keystead.vault import management, vaults
from vault import walk
from vault.world import KIM

if TYPE_CHECKING:
    from vault.world import World


def fail_over(world: World, *, on: bool) -> t.VaultView:
    return management.fail_over(world.vault, world.call(), t.FailOver(vault=walk.VAULT, read_only=on))


def test_the_walk_knows_every_row() -> None:
    """R-069, R-043, R-066: a use case that is added is walked, or this fails."""
    rows = {
        route.name for route in VAULT_ROUTES if route.name.startswith(("vault.", "key.")) and not route.name.startswith("vault.client.")
    }
    assert rows == walk.REQUESTS.keys() | walk.ELSEWHERE | {"key.import", "key.restore"}


def test_keys_are_used_and_nothing_is_changed(world: World) -> None:
    """R-069."""
    walk.prepare(world)
    found = walk.use_cases(world)
    assert fail_over(world, on=True).read_only
    before = world.stores.sql("vault", "SELECT * FROM vault_key_version"), world.stores.sql("vault", "SELECT * FROM vault_access")
    for name, (use_case, changes) in found.items():
        if not changes or name == "vault.fail-over":
            continue
        with pytest.raises(PreconditionFailed) as refused:
            use_case(world.vault, walk.alex())
        assert refused.value.code == "vault_read_only", name
    assert before == (world.stores.sql("vault", "SELECT * FROM vault_key_version"), world.stores.sql("vault", "SELECT * FROM vault_access"))
    for name, (use_case, changes) in found.items():
        if not changes:
            use_case(world.vault, walk.alex())
            assert [one for one in world.log() if one.result_type == "Failure"][-1].result_signature == "vault_read_only", name


def test_the_mode_can_be_left_and_then_everything_works_again(world: World) -> None:
    """R-069."""
    walk.prepare(world)
    found = walk.use_cases(world)
    fail_over(world, on=True)
    assert not fail_over(world, on=False).read_only
    for name in ("vault.protect", "vault.network.allow", "key.update", "key.rotate", "key.recover", "key.import"):
        found[name][0](world.vault, walk.alex())
    assert vaults.show(world.vault, world.call(), walk.NAMED).purge_protection


def test_only_who_may_change_the_vault_fails_it_over(world: World) -> None:
    """R-069, R-013."""
    walk.prepare(world)
    for on in (True, False):
        with pytest.raises(Forbidden) as refused:
            management.fail_over(world.vault, world.call(KIM), t.FailOver(vault=walk.VAULT, read_only=on))
        assert refused.value.code == "vault_access_denied"
    last = world.log()[-1]
    assert (last.operation_name, last.result_type, last.properties.http_status_code) == ("VaultPatch", "Failure", 403)


def test_purge_protection_is_turned_on_and_never_off(world: World) -> None:
    """R-053: there is no way back, and turning it on again changes nothing."""
    walk.prepare(world)
    found = walk.use_cases(world)
    for _ in range(2):
        view = management.protect(world.vault, world.call(), walk.NAMED)
        assert (view.purge_protection, view.recovery_level) == (True, "Recoverable")
    management.set_default(world.vault, world.call(), t.NetworkDefault(vault=walk.VAULT, action="deny"))
    fail_over(world, on=True)
    fail_over(world, on=False)
    assert vaults.show(world.vault, world.call(), walk.NAMED).purge_protection
    with pytest.raises(PreconditionFailed) as refused:
        found["key.purge"][0](world.vault, walk.alex())
    assert refused.value.code == "purge_protected"
    with pytest.raises(Forbidden):
        management.protect(world.vault, world.call(KIM), walk.NAMED)
