"""What every implementation of ports/vaults.py does: one set of cases, run against each (support/vault_sides.py).

`served` is another `keystead vault serve`, a process of its own, through Azure's SDK over HTTPS. What only its REST API tells is less than
what the home's own vault does; where the cases differ, they say so.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from keystead.api.types import vaults as t
from keystead.core.keys.outcome import OutcomeClass
from keystead.ports.vaults import VaultFailure
from keystead.vault import access, keys, subscriptions, vaults
from support.vault_sides import SIDES
from vault.world import OTHER_TENANT, SUFFIX, TENANT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from keystead.ports.vaults import Vaults
    from support.vault_sides import Side
    from vault.world import World

VALUE = bytes(range(32))
DENIED, INTEGRITY = OutcomeClass.DENIED, OutcomeClass.INTEGRITY
V = "ContosoVault1"
ROOT = t.KeyNamed(vault=V, name="root")
CURRENT = t.KeyVersionNamed(vault=V, name="root")


@pytest.fixture(params=SIDES)
def side(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Side]:
    made = SIDES[request.param](tmp_path)
    yield made
    made.close()


@pytest.fixture
def world(side: Side) -> World:
    return side.world


@pytest.fixture
def service(side: Side) -> Vaults:
    return side.service


def outcome(call: Callable[[], object]) -> tuple[OutcomeClass, str]:
    with pytest.raises(VaultFailure) as failed:
        call()
    return failed.value.outcome.kind, failed.value.outcome.reason


def test_wraps_by_the_current_version_and_unwraps_by_the_one_that_wrapped(side: Side, world: World, service: Vaults) -> None:
    """R-026, R-027."""
    first = side.ready()
    old = service.wrap(TENANT, "mail", first.base_id, VALUE)
    second = keys.rotate(world.vault, world.call(), ROOT)
    new = service.wrap(TENANT, "mail", first.base_id, VALUE)
    assert (old.key_uri, new.key_uri) == (first.id, second.id)
    assert [service.unwrap(TENANT, "mail", wrapped.key_uri, wrapped.value) for wrapped in (old, new)] == [VALUE, VALUE]
    assert outcome(lambda: service.unwrap(TENANT, "mail", new.key_uri, old.value)) == (INTEGRITY, side.reason("unwrap-failed"))


def test_tells_the_facts_of_a_key(side: Side, world: World, service: Vaults) -> None:
    """R-033, R-054."""
    key = side.ready()
    subscriptions.protect(world.vault, world.call(), t.SubscriptionNamed(name="Contoso EA 1"))
    facts = service.key_facts(TENANT, "mail", key.base_id.upper().replace("HTTPS", "https"))
    assert (facts.key_uri, facts.kty, facts.size, facts.enabled) == (key.id, "RSA", 2_048, True)
    assert facts.key_ops >= {"wrapKey", "unwrapKey"}
    assert (facts.not_before, facts.expires, facts.region, facts.tenant_id) == (None, None, "westeurope", TENANT)
    assert facts.recovery_level == "Recoverable+ProtectedSubscription"
    assert facts.subscription is not None
    assert (facts.subscription.kind, facts.subscription.state) == ("paid", "Enabled")
    if side.remote:  # a vault elsewhere is known by its address, and tells nobody what they may do
        assert facts.vault.startswith("127.0.0.1:")
        assert (facts.permissions, facts.subscription.protection) == (None, "unknown")
    else:
        assert (facts.vault, facts.subscription.protection) == (V, "Registered")
        assert facts.permissions == frozenset({"get", "wrapKey", "unwrapKey"})
    assert service.subscription_facts(TENANT, "contoso ea 1") == facts.subscription
    assert service.subscription_facts(TENANT, facts.subscription.id) == facts.subscription


def test_facts_show_what_is_missing_and_fail_for_what_is_not_there(side: Side, world: World, service: Vaults) -> None:
    key = side.ready()
    not_there = (DENIED, side.reason("key-not-found"))
    assert outcome(lambda: service.key_facts(TENANT, "mail", f"https://contosovault1{SUFFIX}/keys/none")) == not_there
    access.revoke(world.vault, world.call(), t.AccessRevoke(vault=V, principal=side.principal, permissions=["get", "wrapKey"]))
    if side.remote:
        assert outcome(lambda: service.key_facts(TENANT, "mail", key.id)) == (DENIED, "http-403 AccessDenied")
    else:
        assert service.key_facts(TENANT, "mail", key.id).permissions == frozenset({"unwrapKey"})
        assert service.key_facts(TENANT, "files", key.id).permissions == frozenset()
    assert outcome(lambda: service.key_facts(TENANT, "mail", f"https://contosovault9{SUFFIX}/keys/root")) == (DENIED, "vault-not-found")
    assert outcome(lambda: service.subscription_facts(TENANT, "none")) == (DENIED, "subscription-not-found")


def test_every_no_of_the_customer_is_a_denial(side: Side, world: World, service: Vaults) -> None:
    """R-029, R-037, R-042, R-048."""
    key = side.ready()
    wrapped = service.wrap(TENANT, "mail", key.id, VALUE)
    acts: list[tuple[str, Callable[[], object], Callable[[], object]]] = [
        (
            "key-disabled",
            lambda: keys.disable(world.vault, world.call(), CURRENT),
            lambda: keys.enable(world.vault, world.call(), CURRENT),
        ),
        (
            "vault-access-denied",
            lambda: access.revoke(world.vault, world.call(), t.AccessRevoke(vault=V, principal=side.principal)),
            lambda: world.grant("wrapKey,unwrapKey", principal=side.principal),
        ),
        (
            "vault-deleted",
            lambda: vaults.delete(world.vault, world.call(), t.VaultNamed(vault=V)),
            lambda: vaults.recover(world.vault, world.call(), t.VaultNamed(vault=V)),
        ),
        (
            "key-deleted",
            lambda: keys.delete(world.vault, world.call(), ROOT),
            lambda: keys.recover(world.vault, world.call(), ROOT),
        ),
    ]
    for reason, take, give_back in acts:
        take()
        assert outcome(lambda: service.unwrap(TENANT, "mail", wrapped.key_uri, wrapped.value)) == (DENIED, side.reason(reason))
        assert outcome(lambda: service.wrap(TENANT, "mail", key.base_id, VALUE)) == (DENIED, side.reason(reason))
        give_back()
        assert side.eventually(lambda: service.unwrap(TENANT, "mail", wrapped.key_uri, wrapped.value)) == VALUE
    keys.delete(world.vault, world.call(), ROOT)
    keys.purge(world.vault, world.call(), ROOT)
    assert outcome(lambda: service.unwrap(TENANT, "mail", wrapped.key_uri, wrapped.value)) == (DENIED, side.reason("key-not-found"))


def test_an_expired_key_is_denied_for_wrapping_only(side: Side, world: World, service: Vaults) -> None:
    """R-030."""
    key = side.ready()
    wrapped = service.wrap(TENANT, "mail", key.id, VALUE)
    expired = t.KeyUpdate(vault=V, name="root", expires=key.created)
    keys.update(world.vault, world.call(), expired)
    assert outcome(lambda: service.wrap(TENANT, "mail", key.id, VALUE)) == (DENIED, side.reason("key-expired"))
    assert service.unwrap(TENANT, "mail", wrapped.key_uri, wrapped.value) == VALUE


def test_another_tenant_is_denied(side: Side, world: World, service: Vaults) -> None:
    key = side.ready()
    wrapped = service.wrap(TENANT, "mail", key.id, VALUE)
    for call in (
        lambda: service.unwrap(OTHER_TENANT, "mail", wrapped.key_uri, wrapped.value),
        lambda: service.wrap(OTHER_TENANT, "mail", key.id, VALUE),
        lambda: service.key_facts(OTHER_TENANT, "mail", key.id),
    ):
        assert outcome(call) == (DENIED, "vault-another-tenant")
    assert outcome(lambda: service.subscription_facts(OTHER_TENANT, "Contoso EA 1")) == (DENIED, "subscription-not-found")


@pytest.mark.parametrize("uri", ["", "nothing", "https://[/", "https://elsewhere.example/keys/root", f"https://a..{SUFFIX}/keys/\x00"])
def test_what_is_malformed_is_an_integrity_failure(side: Side, world: World, service: Vaults, uri: str) -> None:
    for call in (
        lambda: service.unwrap(TENANT, "mail", uri, bytes(256)),
        lambda: service.wrap(TENANT, "mail", uri, VALUE),
        lambda: service.key_facts(TENANT, "mail", uri),
    ):
        assert outcome(call) == (INTEGRITY, "key-uri-invalid")


def test_changed_bytes_never_unwrap_to_a_value(side: Side, world: World, service: Vaults) -> None:
    wrapped = service.wrap(TENANT, "mail", side.ready().id, VALUE)

    def unwrapping(value: bytes) -> Callable[[], bytes]:
        return lambda: service.unwrap(TENANT, "mail", wrapped.key_uri, value)

    for value in (b"", wrapped.value[:-1], wrapped.value[:-1] + bytes([wrapped.value[-1] ^ 1]), bytes(256)):
        assert outcome(unwrapping(value)) == (INTEGRITY, side.reason("unwrap-failed"))


def test_every_call_of_the_service_is_on_the_vaults_log(side: Side, world: World, service: Vaults) -> None:
    """R-067, R-068."""
    key = side.ready()
    before = len(world.log())
    wrapped = service.wrap(TENANT, "mail", key.id, VALUE)
    service.unwrap(TENANT, "mail", wrapped.key_uri, wrapped.value)
    service.key_facts(TENANT, "mail", key.id)
    access.revoke(world.vault, world.call(), t.AccessRevoke(vault=V, principal=side.principal, permissions=["unwrapKey"]))
    outcome(lambda: service.unwrap(TENANT, "mail", wrapped.key_uri, wrapped.value))
    records = [
        (record.operation_name, record.result_type, record.identity.application)
        for record in world.log()[before:]
        if record.operation_name.startswith("Key")
    ]
    assert records == [
        ("KeyWrap", "Success", side.identity),
        ("KeyUnwrap", "Success", side.identity),
        ("KeyGet", "Success", side.identity),
        ("KeyUnwrap", "Failure", side.identity),
    ]
