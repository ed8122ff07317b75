"""How often a vault may be called (R-066)."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from keystead.api.types import vaults as t
from keystead.core.errors import Forbidden, Throttled
from keystead.core.vaults.access import person
from keystead.core.vaults.limits import Budget, CallKind
from keystead.vault import keys, operations
from keystead.vault.guard import RateLimits
from keystead.vault.operations import Place
from keystead.vault.services import VaultSettings
from vault import walk
from vault.world import KIM, TENANT, World

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from keystead.ports.vault_store import Vault

URI = "https://contosovault1.vault.localhost/keys/root"
SECOND = 1_000
WINDOW = 10 * SECOND


def vault_of(world: World) -> Vault:
    with world.store.reading() as tx:
        found = tx.vault(TENANT, walk.VAULT)
    assert found is not None
    return found


def spend_all(world: World, budget: Budget) -> None:
    """Leave nothing of a budget."""
    found = vault_of(world)
    while not world.vault.limits.take(found, CallKind(budget), world.clock.now()):
        pass


@pytest.fixture
def scaled(tmp_path: Path, database: str) -> Iterator[World]:
    made = World(tmp_path, VaultSettings(rate_percent=0))
    yield made
    made.close()


def test_creates_above_the_limit_are_refused_and_come_through_later(world: World) -> None:
    """R-066: ten software keys in ten seconds, five in hardware, each with its own budget; the answer says when to come back."""
    world.new_vault(sku="premium")
    caller = walk.alex("192.0.2.7", URI)

    def create(name: str, kty: str) -> t.KeyView:
        return keys.create(world.vault, caller, t.KeyCreate(vault=walk.VAULT, name=name, kty=kty))

    for kty, limit in (("EC", 10), ("EC-HSM", 5)):
        for number in range(limit):
            create(f"{kty}{number}", kty)
        with pytest.raises(Throttled) as refused:
            create("one-more", kty)
        assert refused.value.code == "vault_throttled"
        assert 0 < refused.value.retry_after <= WINDOW + SECOND
        last = world.log()[-1]
        assert (last.operation_name, last.result_signature, last.properties.http_status_code) == ("KeyCreate", "vault_throttled", 429)
    world.clock.sleep(refused.value.retry_after)
    assert create("one-more", "EC").name == "one-more"


def test_every_use_case_about_keys_is_counted_over_the_network(world: World) -> None:
    """R-066: none of them forgets to count, and the vault's own management is not stopped."""
    walk.prepare(world)
    found = walk.use_cases(world)
    for budget in Budget:
        spend_all(world, budget)
    for name, (use_case, _changes) in found.items():
        if name.startswith("vault."):
            continue
        with pytest.raises(Throttled) as refused:
            use_case(world.vault, walk.alex("192.0.2.7", URI))
        assert refused.value.code == "vault_throttled", name
    for name in ("vault.show", "vault.access.list", "vault.network.show"):
        found[name][0](world.vault, walk.alex("192.0.2.7", URI))
    for name in ("key.show", "operation unwrap_key", "key.update"):  # inside the process nobody counts
        found[name][0](world.vault, walk.alex())


def test_a_heavy_key_costs_more(world: World) -> None:
    """R-066: 2,000 operations with RSA-2048 are 250 with RSA-4096."""
    walk.prepare(world)
    world.new_key("heavy", size=4_096)
    caller = walk.alex("192.0.2.7", URI)
    closed = operations.encrypt(world.vault, walk.alex(), Place(walk.VAULT, "root", None), "RSA-OAEP-256", bytes(32)).value
    found = vault_of(world)
    for _ in range(249):
        assert not world.vault.limits.take(found, CallKind(Budget.SOFTWARE_OTHER, 8), world.clock.now())
    operations.sign(world.vault, caller, Place(walk.VAULT, "heavy", None), "RS256", bytes(32))
    with pytest.raises(Throttled):
        operations.decrypt(world.vault, caller, Place(walk.VAULT, "root", None), "RSA-OAEP-256", closed)


def test_a_caller_without_permission_spends_nothing(world: World) -> None:
    """R-066: strangers must not be able to use up a vault's budget."""
    walk.prepare(world)
    kim = walk.alex("192.0.2.7", URI)._replace(principal=person(KIM))
    for _ in range(20):
        with pytest.raises(Forbidden):
            keys.create(world.vault, kim, t.KeyCreate(vault=walk.VAULT, name="smuggled", kty="EC"))
    assert keys.create(world.vault, walk.alex("192.0.2.7", URI), t.KeyCreate(vault=walk.VAULT, name="mine", kty="EC")).name == "mine"


def test_a_subscription_has_five_times_what_a_vault_has(world: World) -> None:
    """R-066."""
    world.new_vault()
    for number in range(2, 8):
        world.new_vault(f"ContosoVault{number}")
    with world.store.reading() as tx:
        found = tx.vaults(TENANT)
    taken = [not world.vault.limits.take(vault, CallKind(Budget.SOFTWARE_CREATE, 10), world.clock.now()) for vault in found]
    assert taken == [True] * 5 + [False] * 2


def test_the_limits_can_be_scaled_and_switched_off(scaled: World) -> None:
    """R-066: 0 percent is no limit; 200 is twice the published one."""
    scaled.new_vault()
    found = vault_of(scaled)
    assert not any(scaled.vault.limits.take(found, CallKind(Budget.HSM_CREATE), scaled.clock.now()) for _ in range(100))
    double = RateLimits(200)
    taken = [not double.take(found, CallKind(Budget.HSM_CREATE), scaled.clock.now()) for _ in range(11)]
    assert taken == [True] * 10 + [False]


def test_budgets_nobody_draws_on_are_dropped(world: World) -> None:
    """Memory is bounded by what is called, not by what was ever called."""
    world.new_vault()
    found, limits = vault_of(world), RateLimits(100)
    for number in range(10_050):
        limits.take(replace(found, id=f"v{number}", subscription=replace(found.subscription, id=f"s{number}")), CallKind(), number * 10)
    assert len(limits._spent) <= 10_000
