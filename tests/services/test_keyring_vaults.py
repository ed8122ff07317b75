"""What customers do with their keys and vaults, and what the service makes of it (design section 5; R-029, R-045 to R-050, R-145)."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from keystead.api.types import mailboxes as m
from keystead.api.types import policies as p
from keystead.api.types import vaults as v
from keystead.core.errors import ChecksFailed, KeyDenied
from keystead.ports.clock import DAY
from keystead.vault.retention import purge_expired
from support.world import SECOND, MailboxWorld, World, message

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from support.world import TenantWorld

VAULTS = ("contosov1", "contosov2")


@pytest.fixture(scope="module")
def contoso(tmp_path_factory: pytest.TempPathFactory, database: str) -> Iterator[TenantWorld]:
    world = World(tmp_path_factory.mktemp("vaults"))
    made = world.tenant("contoso.example")
    alice = made.mailbox("alice", messages=1)
    made.assign(made.policy("Mail"), alice)
    yield made
    world.close()


def box(contoso: TenantWorld) -> MailboxWorld:
    return MailboxWorld(contoso, "alice@contoso.example")


def ask(contoso: TenantWorld, name: str, request: object) -> None:
    contoso.admin.call(name, request)


def key_named(vault: str) -> v.KeyNamed:
    return v.KeyNamed(vault=vault, name="root")


def revoke(permission: str) -> Callable[[TenantWorld, str], None]:
    def act(contoso: TenantWorld, vault: str) -> None:
        ask(contoso, "vault.access.revoke", v.AccessRevoke(vault=vault, principal="mail", permissions=[permission]))

    return act


def operations(*ops: str) -> Callable[[TenantWorld, str], None]:
    def act(contoso: TenantWorld, vault: str) -> None:
        ask(contoso, "key.update", v.KeyUpdate(vault=vault, name="root", ops=list(ops)))

    return act


def allow(contoso: TenantWorld, vault: str) -> None:
    contoso.allow(vault)


ACTS: dict[str, tuple[Callable[[TenantWorld, str], None], Callable[[TenantWorld, str], None], str]] = {
    "everything revoked": (lambda contoso, vault: contoso.deny(vault), allow, "vault-access-denied"),
    "unwrapKey revoked": (revoke("unwrapKey"), allow, "vault-access-denied"),
    "key disabled": (
        lambda contoso, vault: ask(contoso, "key.disable", v.KeyVersionNamed(vault=vault, name="root")),
        lambda contoso, vault: ask(contoso, "key.enable", v.KeyVersionNamed(vault=vault, name="root")),
        "key-disabled",
    ),
    "operation taken from the key": (operations("wrapKey"), operations("wrapKey", "unwrapKey"), "key-operation-not-allowed"),
    "key deleted": (
        lambda contoso, vault: ask(contoso, "key.delete", key_named(vault)),
        lambda contoso, vault: ask(contoso, "key.recover", key_named(vault)),
        "key-deleted",
    ),
    "vault deleted": (
        lambda contoso, vault: ask(contoso, "vault.delete", v.VaultNamed(vault=vault)),
        lambda contoso, vault: ask(contoso, "vault.recover", v.VaultNamed(vault=vault)),
        "vault-deleted",
    ),
}


def searched(contoso: TenantWorld) -> int:
    return len(contoso.admin.call("mailbox.search", m.Search(text="body of message", upn=box(contoso).upn)))


@pytest.mark.parametrize("act", ACTS)
def test_what_a_customer_takes_away_is_a_denial_and_comes_back_when_given_back(contoso: TenantWorld, act: str) -> None:
    """R-145, R-146, R-147: one vault is not enough; both refuse the owner, while the service's own work goes on and is recorded."""
    take, give, reason = ACTS[act]
    alice, clock = box(contoso), contoso.world.clock
    assert alice.read_all() == [message(0)]
    before = len(contoso.fallbacks())
    for count, vault in enumerate(VAULTS, 1):
        take(contoso, vault)
        clock.advance(61 * SECOND)
        found: p.PolicyHealth = contoso.admin.call("policy.health", p.NamePolicy(policy="Mail"))
        assert [key.reason for key in found.keys] == [reason if position < count else "" for position in range(2)]
        if count == 1:
            assert (found.state, alice.read_all()) == ("degraded", [message(0)])
    assert found.state == "denied"
    with pytest.raises(KeyDenied, match=reason):
        alice.items()
    assert len(contoso.fallbacks()) == before
    assert searched(contoso) == 1
    assert len(contoso.fallbacks()) == before + 1
    for vault in VAULTS:
        give(contoso, vault)
    assert alice.read_all() == [message(0)]
    assert contoso.health() == "healthy"


@pytest.mark.parametrize("permission", ["get", "wrapKey"])
def test_reading_needs_only_the_permission_to_unwrap_and_a_refresh_needs_all(contoso: TenantWorld, permission: str) -> None:
    """R-074, R-163."""
    alice = box(contoso)
    for vault in VAULTS:
        revoke(permission)(contoso, vault)
    contoso.world.clock.advance(61 * SECOND)
    assert alice.read_all() == [message(0)]
    assert contoso.health() == "healthy"
    with pytest.raises(ChecksFailed) as refused:
        contoso.admin.call("policy.refresh", p.NamePolicy(policy="Mail"))
    assert [check.check for check in refused.value.failed] == [f"permission-{permission}"] * 2
    for vault in VAULTS:
        contoso.allow(vault)


def test_an_expired_key_still_opens_and_wraps_nothing_new(contoso: TenantWorld) -> None:
    """R-030, R-076, R-163."""
    keys = contoso.own_keys("ends")
    policy, bob = contoso.policy("Ends", keys=keys), contoso.mailbox("bob", messages=1)
    contoso.assign(policy, bob)
    soon = datetime.fromtimestamp(contoso.world.clock.now() / 1_000 + 60, UTC)
    for vault in VAULTS:
        ask(contoso, "key.update", v.KeyUpdate(vault=vault, name="ends", expires=soon))
    contoso.world.clock.advance(120 * SECOND)
    assert bob.read_all() == [message(0)]
    assert contoso.health("Ends") == "healthy"
    with pytest.raises(ChecksFailed) as refused:
        contoso.admin.call("policy.refresh", p.NamePolicy(policy="Ends"))
    assert [check.check for check in refused.value.failed] == ["key-expiry"] * 2


@pytest.mark.parametrize("rows", ["still there", "removed"])
@pytest.mark.parametrize("what", ["key", "vault"])
def test_what_is_past_its_retention_is_denied_for_good(world: World, what: str, rows: str) -> None:
    """R-050, R-145: soft deletion ends by itself after 90 days, whether or not the rows are gone yet."""
    fabrikam = world.tenant("fabrikam.example")
    carol = fabrikam.mailbox("carol", messages=1)
    fabrikam.assign(fabrikam.policy("Mail"), carol)
    for vault in ("fabrikamv1", "fabrikamv2"):
        fabrikam.admin.call(f"{what}.delete", v.KeyNamed(vault=vault, name="root") if what == "key" else v.VaultNamed(vault=vault))
    world.clock.advance(90 * DAY)
    if rows == "removed":
        assert purge_expired(world.vault) == 2
    with pytest.raises(KeyDenied, match=f"{what}-not-found"):
        carol.items()
    assert fabrikam.health() == "denied"
    assert fabrikam.fallbacks() == []
