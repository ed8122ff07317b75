"""What only a vault in another process can show: its firewall, its clients and their secrets, and permissions one by one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from keystead.api.types import vault_clients as c
from keystead.api.types import vaults as t
from keystead.ports.vaults import VaultFailure
from keystead.vault import access, clients, management
from support.vault_sides import VAULT, Served
from vault.world import TENANT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

VALUE = bytes(range(32))


@pytest.fixture(scope="module")
def side(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    made = Served(tmp_path_factory.mktemp("served"))
    made.key = made.ready()
    yield made
    made.close()


def outcome(call: Callable[[], object]) -> str:
    with pytest.raises(VaultFailure) as failed:
        call()
    return str(failed.value.outcome)


def test_a_missing_permission_to_wrap_shows_though_get_is_held(side: Served) -> None:
    """R-074: the SDK could wrap by itself with the public key it may get; the service never does."""
    wrapped = side.service.wrap(TENANT, "mail", side.key.base_id, VALUE)
    access.revoke(side.world.vault, side.world.call(), t.AccessRevoke(vault=VAULT, principal=side.principal, permissions=["wrapKey"]))
    assert side.service.key_facts(TENANT, "mail", side.key.base_id).key_uri == side.key.id
    assert outcome(lambda: side.service.wrap(TENANT, "mail", side.key.base_id, VALUE)) == "denied (http-403 AccessDenied)"
    assert side.service.unwrap(TENANT, "mail", wrapped.key_uri, wrapped.value) == VALUE
    side.world.grant("wrapKey", principal=side.principal)
    assert side.service.wrap(TENANT, "mail", side.key.base_id, VALUE).key_uri == side.key.id


def test_a_firewall_refusal_is_denied_and_told_apart(side: Served) -> None:
    """R-043, D2."""
    wrapped = side.service.wrap(TENANT, "mail", side.key.base_id, VALUE)
    world = side.world
    management.set_default(world.vault, world.call(), t.NetworkDefault(vault=VAULT, action="Deny"))
    for call in (
        lambda: side.service.unwrap(TENANT, "mail", wrapped.key_uri, wrapped.value),
        lambda: side.service.key_facts(TENANT, "mail", side.key.base_id),
    ):
        assert outcome(call) == "denied (http-403 ForbiddenByFirewall)"
    management.allow_range(world.vault, world.call(), t.NetworkRange(vault=VAULT, range="127.0.0.0/8"))
    assert side.service.unwrap(TENANT, "mail", wrapped.key_uri, wrapped.value) == VALUE


def test_a_vault_that_failed_over_still_wraps_and_unwraps(side: Served) -> None:
    """R-069."""
    world = side.world
    management.fail_over(world.vault, world.call(), t.FailOver(vault=VAULT, read_only=True))
    wrapped = side.service.wrap(TENANT, "mail", side.key.base_id, VALUE)
    assert side.service.unwrap(TENANT, "mail", wrapped.key_uri, wrapped.value) == VALUE
    management.fail_over(world.vault, world.call(), t.FailOver(vault=VAULT, read_only=False))


def test_a_secret_is_replaced_without_a_pause(side: Served) -> None:
    """Two are good at once: the new one goes into the file, then the old one is taken away."""
    world, file = side.world, side.secret_file
    wrapped = side.service.wrap(TENANT, "mail", side.key.base_id, VALUE)
    (old,) = clients.show(world.vault, world.call(), c.ClientNamed(client=side.principal)).secrets
    fresh = clients.add_secret(world.vault, world.call(), c.ClientSecretAdd(client=side.principal))
    file.write_text(fresh.client_secret + "\n")
    assert side.service.unwrap(TENANT, "mail", wrapped.key_uri, wrapped.value) == VALUE
    clients.remove_secret(world.vault, world.call(), c.ClientSecretNamed(client=side.principal, secret=old.id))
    assert side.service.unwrap(TENANT, "mail", wrapped.key_uri, wrapped.value) == VALUE
    file.write_text("a-secret-that-was-never-given\n")
    assert outcome(lambda: side.service.unwrap(TENANT, "mail", wrapped.key_uri, wrapped.value)) == "system-error (sign-in invalid-client)"
    file.write_text(fresh.client_secret)
    assert side.service.unwrap(TENANT, "mail", wrapped.key_uri, wrapped.value) == VALUE


def test_a_process_that_stops_is_a_fault_and_one_that_is_back_answers(side: Served) -> None:
    """It is back at the same address; what the service kept of the old one does not get in the way."""
    wrapped = side.service.wrap(TENANT, "mail", side.key.base_id, VALUE)
    side.home.process.stop()

    def unwrap() -> bytes:
        return side.service.unwrap(TENANT, "mail", wrapped.key_uri, wrapped.value)

    assert outcome(unwrap) == "system-error (connection-refused)"
    side.home.process.begin()
    side.home.process.wait(VAULT)
    assert unwrap() == VALUE
