"""What every implementation of ports/vaults.py does: one set of cases, run against each.

Another implementation joins with one more case of the fixture: it needs a customer's side to create keys with and take them away.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from keystead.adapters.vaults.embedded import EmbeddedVaults
from keystead.adapters.vaults.faults import FaultyVaults
from keystead.api.types import vaults as t
from keystead.core.keys.outcome import OutcomeClass
from keystead.ports.vaults import VaultFailure, Vaults
from keystead.vault import access, keys, subscriptions, vaults
from vault.world import OTHER_TENANT, SUFFIX, TENANT, World

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

VALUE = bytes(range(32))
DENIED, INTEGRITY = OutcomeClass.DENIED, OutcomeClass.INTEGRITY
V = "ContosoVault1"
ROOT = t.KeyNamed(vault=V, name="root")
CURRENT = t.KeyVersionNamed(vault=V, name="root")


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.close()


@pytest.fixture(params=["embedded", "faulty-without-fault"])
def service(request: pytest.FixtureRequest, world: World, tmp_path: Path) -> Vaults:
    embedded = EmbeddedVaults(world.vault)
    return embedded if request.param == "embedded" else FaultyVaults(embedded, tmp_path / "faults", world.clock)


def outcome(call: Callable[[], object]) -> tuple[OutcomeClass, str]:
    with pytest.raises(VaultFailure) as failed:
        call()
    return failed.value.outcome.kind, failed.value.outcome.reason


def test_wraps_by_the_current_version_and_unwraps_by_the_one_that_wrapped(world: World, service: Vaults) -> None:
    """R-026, R-027."""
    first = world.ready()
    old = service.wrap(TENANT, "mail", first.base_id, VALUE)
    second = keys.rotate(world.vault, world.call(), ROOT)
    new = service.wrap(TENANT, "mail", first.base_id, VALUE)
    assert (old.key_uri, new.key_uri) == (first.id, second.id)
    assert [service.unwrap(TENANT, "mail", wrapped.key_uri, wrapped.value) for wrapped in (old, new)] == [VALUE, VALUE]
    assert outcome(lambda: service.unwrap(TENANT, "mail", new.key_uri, old.value)) == (INTEGRITY, "unwrap-failed")


def test_tells_the_facts_of_a_key(world: World, service: Vaults) -> None:
    """R-033, R-054."""
    key = world.ready()
    subscriptions.protect(world.vault, world.call(), t.SubscriptionNamed(name="Contoso EA 1"))
    facts = service.key_facts(TENANT, "mail", key.base_id.upper().replace("HTTPS", "https"))
    assert (facts.key_uri, facts.vault, facts.kty, facts.size, facts.enabled) == (key.id, V, "RSA", 2_048, True)
    assert facts.key_ops >= {"wrapKey", "unwrapKey"}
    assert (facts.not_before, facts.expires, facts.region, facts.tenant_id) == (None, None, "westeurope", TENANT)
    assert facts.recovery_level == "Recoverable+ProtectedSubscription"
    assert facts.permissions == frozenset({"get", "wrapKey", "unwrapKey"})
    assert facts.subscription is not None
    assert (facts.subscription.kind, facts.subscription.protection, facts.subscription.state) == ("paid", "Registered", "Enabled")
    assert service.subscription_facts(TENANT, "contoso ea 1") == facts.subscription
    assert service.subscription_facts(TENANT, facts.subscription.id) == facts.subscription


def test_facts_show_what_is_missing_and_fail_for_what_is_not_there(world: World, service: Vaults) -> None:
    key = world.ready()
    access.revoke(world.vault, world.call(), t.AccessRevoke(vault=V, principal="mail", permissions=["get", "wrapKey"]))
    assert service.key_facts(TENANT, "mail", key.id).permissions == frozenset({"unwrapKey"})
    assert service.key_facts(TENANT, "files", key.id).permissions == frozenset()
    assert outcome(lambda: service.key_facts(TENANT, "mail", f"https://contosovault1{SUFFIX}/keys/none")) == (DENIED, "key-not-found")
    assert outcome(lambda: service.key_facts(TENANT, "mail", f"https://contosovault9{SUFFIX}/keys/root")) == (DENIED, "vault-not-found")
    assert outcome(lambda: service.subscription_facts(TENANT, "none")) == (DENIED, "subscription-not-found")


def test_every_no_of_the_customer_is_a_denial(world: World, service: Vaults) -> None:
    """R-029, R-037, R-042, R-048."""
    key = world.ready()
    wrapped = service.wrap(TENANT, "mail", key.id, VALUE)
    acts: list[tuple[str, Callable[[], object], Callable[[], object]]] = [
        (
            "key-disabled",
            lambda: keys.disable(world.vault, world.call(), CURRENT),
            lambda: keys.enable(world.vault, world.call(), CURRENT),
        ),
        (
            "vault-access-denied",
            lambda: access.revoke(world.vault, world.call(), t.AccessRevoke(vault=V, principal="mail")),
            lambda: world.grant("wrapKey,unwrapKey", principal="mail"),
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
        assert outcome(lambda: service.unwrap(TENANT, "mail", wrapped.key_uri, wrapped.value)) == (DENIED, reason)
        assert outcome(lambda: service.wrap(TENANT, "mail", key.base_id, VALUE)) == (DENIED, reason)
        give_back()
        assert service.unwrap(TENANT, "mail", wrapped.key_uri, wrapped.value) == VALUE
    keys.delete(world.vault, world.call(), ROOT)
    keys.purge(world.vault, world.call(), ROOT)
    assert outcome(lambda: service.unwrap(TENANT, "mail", wrapped.key_uri, wrapped.value)) == (DENIED, "key-not-found")


def test_an_expired_key_is_denied_for_wrapping_only(world: World, service: Vaults) -> None:
    """R-030."""
    key = world.ready()
    wrapped = service.wrap(TENANT, "mail", key.id, VALUE)
    expired = t.KeyUpdate(vault=V, name="root", expires=key.created)
    keys.update(world.vault, world.call(), expired)
    assert outcome(lambda: service.wrap(TENANT, "mail", key.id, VALUE)) == (DENIED, "key-expired")
    assert service.unwrap(TENANT, "mail", wrapped.key_uri, wrapped.value) == VALUE


def test_another_tenant_is_denied(world: World, service: Vaults) -> None:
    key = world.ready()
    wrapped = service.wrap(TENANT, "mail", key.id, VALUE)
    for call in (
        lambda: service.unwrap(OTHER_TENANT, "mail", wrapped.key_uri, wrapped.value),
        lambda: service.wrap(OTHER_TENANT, "mail", key.id, VALUE),
        lambda: service.key_facts(OTHER_TENANT, "mail", key.id),
    ):
        assert outcome(call) == (DENIED, "vault-another-tenant")
    assert outcome(lambda: service.subscription_facts(OTHER_TENANT, "Contoso EA 1")) == (DENIED, "subscription-not-found")


@pytest.mark.parametrize("uri", ["", "nothing", "https://[/", "https://elsewhere.example/keys/root", f"https://a..{SUFFIX}/keys/\x00"])
def test_what_is_malformed_is_an_integrity_failure(world: World, service: Vaults, uri: str) -> None:
    for call in (
        lambda: service.unwrap(TENANT, "mail", uri, bytes(256)),
        lambda: service.wrap(TENANT, "mail", uri, VALUE),
        lambda: service.key_facts(TENANT, "mail", uri),
    ):
        assert outcome(call) == (INTEGRITY, "key-uri-invalid")


def test_changed_bytes_never_unwrap_to_a_value(world: World, service: Vaults) -> None:
    wrapped = service.wrap(TENANT, "mail", world.ready().id, VALUE)
    for value in (b"", wrapped.value[:-1], wrapped.value[:-1] + bytes([wrapped.value[-1] ^ 1]), bytes(256)):
        assert outcome(lambda value=value: service.unwrap(TENANT, "mail", wrapped.key_uri, value)) == (INTEGRITY, "unwrap-failed")  # type: ignore[misc]


def test_every_call_of_the_service_is_on_the_vaults_log(world: World, service: Vaults) -> None:
    """R-067, R-068."""
    key = world.ready()
    before = len(world.log())
    wrapped = service.wrap(TENANT, "mail", key.id, VALUE)
    service.unwrap(TENANT, "mail", wrapped.key_uri, wrapped.value)
    service.key_facts(TENANT, "mail", key.id)
    outcome(lambda: service.unwrap(TENANT, "files", wrapped.key_uri, wrapped.value))
    records = [(record.operation_name, record.result_type, record.identity.application) for record in world.log()[before:]]
    assert records == [
        ("KeyWrap", "Success", "mail"),
        ("KeyUnwrap", "Success", "mail"),
        ("KeyGet", "Success", "mail"),
        ("KeyUnwrap", "Failure", "files"),
    ]
