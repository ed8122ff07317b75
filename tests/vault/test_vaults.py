"""Subscriptions, vaults and access policies through their use cases."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from keystead.api.types import vaults as t
from keystead.api.types.base import Empty
from keystead.core.access.principal import Role
from keystead.core.errors import Conflict, Forbidden, IntegrityFailure, InvalidRequest, NotFound, PreconditionFailed
from keystead.core.secret import SecretKey
from keystead.ports.clock import HOUR
from keystead.vault import access, keys, subscriptions, vaults
from keystead.vault.crypto import key_facts, unwrap_key, wrap_key
from keystead.vault.retention import purge_expired
from keystead.vault.services import VaultSettings, open_vault
from vault.world import ALEX, KIM, OTHER_TENANT, STRANGER, SUFFIX, World

if TYPE_CHECKING:
    from pathlib import Path

V = t.VaultNamed(vault="ContosoVault1")
ALGORITHM = "RSA-OAEP-256"


def names(world: World) -> list[str]:
    return [found.name for found in vaults.list_all(world.vault, world.call(), Empty())]


def deleted_names(world: World) -> list[str]:
    return [found.name for found in vaults.list_deleted(world.vault, world.call(), Empty())]


def test_a_vault_has_one_subscription_group_region_and_tenant(world: World) -> None:
    """R-017."""
    made = world.new_vault(region="West Europe")
    assert (made.subscription, made.resource_group, made.region, made.geography) == ("Contoso EA 1", "Contoso EA 1", "westeurope", "Europe")
    assert made.uri == "https://contosovault1.vault.localhost"
    assert vaults.show(world.vault, world.call(), t.VaultNamed(vault="CONTOSOVAULT1")) == made
    with pytest.raises(NotFound) as refused:
        vaults.show(world.vault, world.call(STRANGER, OTHER_TENANT), V)
    assert refused.value.code == "vault_not_found"


def test_names_are_unique_over_all_tenants(world: World) -> None:
    """R-016."""
    world.new_vault()
    subscriptions.create(world.vault, world.call(STRANGER, OTHER_TENANT), t.SubscriptionCreate(name="Fabrikam"))
    for when in ("active", "deleted"):
        with pytest.raises(Conflict) as refused:
            vaults.create(
                world.vault,
                world.call(STRANGER, OTHER_TENANT),
                t.VaultCreate(name="contosovault1", subscription="Fabrikam", region="eastus"),
            )
        assert (refused.value.code, refused.value.inner_code) == ("vault_already_exists", ""), when
        if when == "active":
            vaults.delete(world.vault, world.call(), V)


def test_a_subscription_of_another_directory_cannot_be_used(world: World) -> None:
    """R-015."""
    world.subscription()
    with pytest.raises(NotFound) as refused:
        vaults.create(
            world.vault, world.call(STRANGER, OTHER_TENANT), t.VaultCreate(name="other-vault", subscription="Contoso EA 1", region="eastus")
        )
    assert refused.value.code == "subscription_not_found"


def test_sku_and_retention_are_checked(world: World) -> None:
    """R-018, R-046."""
    assert world.new_vault("first-vault", sku="premium", retention_days=7).sku == "premium"
    for wrong in ({"sku": "gold"}, {"retention_days": 6}, {"retention_days": 91}, {"region": "mars"}):
        with pytest.raises(InvalidRequest):
            world.new_vault("second-vault", **wrong)
    assert names(world) == ["first-vault"]


def test_registration_is_pending_then_registered(tmp_path: Path) -> None:
    """R-055."""
    world = World(tmp_path, VaultSettings(protection_delay_ms=48 * HOUR))
    world.new_vault()
    named = t.SubscriptionNamed(name="contoso ea 1")
    assert subscriptions.list_all(world.vault, world.call(), Empty())[0].protection == "NotRegistered"
    assert subscriptions.protect(world.vault, world.call(), named).protection == "Pending"
    assert vaults.show(world.vault, world.call(), V).recovery_level == "Recoverable+Purgeable"
    world.clock.days(1)
    assert subscriptions.protect(world.vault, world.call(), named).protection == "Pending"
    world.clock.days(1)
    assert subscriptions.list_all(world.vault, world.call(), Empty())[0].protection == "Registered"
    assert vaults.show(world.vault, world.call(), V).recovery_level == "Recoverable+ProtectedSubscription"
    world.close()


def test_a_protected_subscription_is_not_cancelled_and_its_vaults_not_purged(world: World) -> None:
    """R-056."""
    world.ready()
    named = t.SubscriptionNamed(name="Contoso EA 1")
    subscriptions.protect(world.vault, world.call(), named)
    with pytest.raises(PreconditionFailed) as refused:
        subscriptions.cancel(world.vault, world.call(), named)
    assert refused.value.code == "subscription_protected"
    vaults.delete(world.vault, world.call(), V)
    with pytest.raises(PreconditionFailed) as refused:
        vaults.purge(world.vault, world.call(), V)
    assert refused.value.code == "purge_protected"


def test_cancelling_an_unprotected_subscription_takes_its_keys_with_it(world: World) -> None:
    """R-056."""
    key = world.ready()
    wrapped = wrap_key(world.vault, world.identity(), key.id, ALGORITHM, bytes(32))
    subscriptions.cancel(world.vault, world.call(), t.SubscriptionNamed(name="Contoso EA 1"))
    with pytest.raises(PreconditionFailed) as refused:
        unwrap_key(world.vault, world.identity(), wrapped.key_uri, ALGORITHM, wrapped.value)
    assert refused.value.code == "subscription_cancelled"
    with pytest.raises(PreconditionFailed):
        world.new_key("another")


def test_subscriptions_are_named_once_and_of_a_known_kind(world: World) -> None:
    made = world.subscription(kind="TRIAL")
    assert (made.kind, made.state, made.created_by) == ("trial", "Enabled", ALEX)
    with pytest.raises(Conflict):
        world.subscription("CONTOSO EA 1")
    for wrong in (t.SubscriptionCreate(name="x", kind="credit card"), t.SubscriptionCreate(name=made.id), t.SubscriptionCreate(name="")):
        with pytest.raises(InvalidRequest):
            subscriptions.create(world.vault, world.call(), wrong)
    assert subscriptions.facts(world.vault, world.identity(), made.id).kind == "trial"


def test_a_deleted_vault_can_only_be_listed_recovered_and_purged(world: World) -> None:
    """R-045, R-048."""
    key = world.ready()
    wrapped = wrap_key(world.vault, world.identity(), key.id, ALGORITHM, bytes(32))
    deleted = vaults.delete(world.vault, world.call(), V)
    assert (deleted.soft_delete, deleted.state, names(world), deleted_names(world)) == (True, "deleted", [], ["ContosoVault1"])
    attempts = (
        lambda: vaults.show(world.vault, world.call(), V),
        lambda: vaults.delete(world.vault, world.call(), V),
        lambda: access.list_all(world.vault, world.call(), V),
        lambda: world.grant("get", upn=KIM),
        lambda: world.new_key("another"),
        lambda: keys.show(world.vault, world.call(), t.KeyVersionNamed(vault="ContosoVault1", name="root")),
        lambda: wrap_key(world.vault, world.identity(), key.id, ALGORITHM, bytes(32)),
        lambda: unwrap_key(world.vault, world.identity(), wrapped.key_uri, ALGORITHM, wrapped.value),
        lambda: key_facts(world.vault, world.identity(), key.id),
    )
    for attempt in attempts:
        with pytest.raises(NotFound) as refused:
            attempt()
        assert refused.value.code == "vault_deleted"
    with pytest.raises(Conflict) as taken:
        world.new_vault()
    assert taken.value.inner_code == "ObjectIsDeletedButRecoverable"


def test_a_recovered_vault_has_its_keys_but_not_its_role_assignments(world: World) -> None:
    """R-057."""
    key = world.ready()
    wrapped = wrap_key(world.vault, world.identity(), key.id, ALGORITHM, b"k" * 32)
    access.grant(world.vault, world.call(), t.AccessGrant(vault="ContosoVault1", upn=KIM, permissions=["get"], contributor=True))
    vaults.delete(world.vault, world.call(), V)
    assert vaults.recover(world.vault, world.call(), V).state == "active"
    assert unwrap_key(world.vault, world.identity(), wrapped.key_uri, ALGORITHM, wrapped.value) == b"k" * 32
    held = {entry.principal: entry for entry in access.list_all(world.vault, world.call(), V)}
    assert (held[KIM].contributor, held[KIM].permissions) == (False, ["get"])
    assert held[ALEX].contributor
    with pytest.raises(NotFound):
        vaults.recover(world.vault, world.call(), V)


def test_a_vault_is_gone_when_its_retention_ends(world: World) -> None:
    """R-050."""
    world.ready(retention_days=7)
    vaults.delete(world.vault, world.call(), V)
    world.clock.days(7)
    assert (names(world), deleted_names(world)) == ([], [])
    with pytest.raises(NotFound):
        vaults.recover(world.vault, world.call(), V)
    world.new_vault()
    assert keys.list_all(world.vault, world.call(), t.KeyList(vault="ContosoVault1")) == []


def test_the_job_removes_what_is_past_its_retention(world: World) -> None:
    """R-050."""
    key = world.ready()
    sealed = world.sealed(key)
    world.new_vault("ContosoVault2", retention_days=8)
    vaults.delete(world.vault, world.call(), t.VaultNamed(vault="ContosoVault2"))
    keys.delete(world.vault, world.call(), t.KeyNamed(vault="ContosoVault1", name="root"))
    world.clock.days(8)
    assert (purge_expired(world.vault), purge_expired(world.vault)) == (1, 0)
    world.clock.days(82)
    assert (purge_expired(world.vault), purge_expired(world.vault)) == (1, 0)
    assert world.log()[-1].operation_name == "KeyPurge"
    assert world.log("ContosoVault2")[-1].operation_name == "VaultPurge"
    with world.store.writing() as tx:  # a checkpoint follows a write; then no copy of the sealed key is left in the file
        assert tx.subscriptions("nobody") == []
    world.close()
    assert all(sealed not in content for content in world.files())


def test_purging_a_vault_takes_a_delete_and_the_purge_permission(world: World) -> None:
    """R-051, R-041."""
    world.new_vault()
    with pytest.raises(NotFound):
        vaults.purge(world.vault, world.call(), V)
    vaults.delete(world.vault, world.call(), V)
    with pytest.raises(Forbidden) as refused:
        vaults.purge(world.vault, world.call(), V)
    assert "purge" in refused.value.detail
    vaults.recover(world.vault, world.call(), V)
    world.grant("purge", upn=ALEX)
    vaults.delete(world.vault, world.call(), V)
    assert vaults.purge(world.vault, world.call(), V).name == "ContosoVault1"
    assert deleted_names(world) == []


def test_purge_protection_refuses_until_retention_ends(world: World) -> None:
    """R-052, R-053."""
    world.ready(purge_protection=True, retention_days=10)
    vaults.delete(world.vault, world.call(), V)
    for day in range(10):
        with pytest.raises(PreconditionFailed) as refused:
            vaults.purge(world.vault, world.call(), V)
        assert refused.value.code == "purge_protected", day
        world.clock.days(1)
    with pytest.raises(NotFound):
        vaults.purge(world.vault, world.call(), V)


def test_the_creator_may_change_access_and_holds_six_permissions(world: World) -> None:
    """R-011, R-013."""
    world.new_vault()
    (entry,) = access.list_all(world.vault, world.call(), V)
    assert (entry.principal, entry.contributor, entry.permissions) == (ALEX, True, ["backup", "create", "get", "import", "list", "restore"])
    access.grant(world.vault, world.call(), t.AccessGrant(vault="ContosoVault1", upn=KIM, contributor=True))
    kim = world.call(KIM)
    with pytest.raises(Forbidden):
        keys.list_all(world.vault, kim, t.KeyList(vault="ContosoVault1"))
    with pytest.raises(Forbidden):
        keys.create(world.vault, kim, t.KeyCreate(vault="ContosoVault1", name="root"))
    assert access.grant(world.vault, kim, t.AccessGrant(vault="ContosoVault1", principal="files", permissions=["get"])).principal == "files"


def test_the_creator_of_the_subscription_may_change_every_vault_in_it(world: World) -> None:
    """R-013."""
    world.subscription()
    vaults.create(world.vault, world.call(KIM), t.VaultCreate(name="ContosoVault1", subscription="Contoso EA 1", region="westeurope"))
    assert world.grant("get", principal="mail").permissions == ["get"]


def test_permissions_are_granted_listed_and_taken_back(world: World) -> None:
    """R-036, R-039, R-040."""
    world.new_vault()
    assert world.grant("get,wrapKey", upn=KIM).permissions == ["get", "wrapKey"]
    assert world.grant("unwrapkey", upn=KIM).permissions == ["get", "unwrapKey", "wrapKey"]
    less = access.revoke(world.vault, world.call(), t.AccessRevoke(vault="ContosoVault1", upn="KIM@contoso.example", permissions=["get"]))
    assert less.permissions == ["unwrapKey", "wrapKey"]
    mail = world.grant("get", principal="00000002-0000-0ff1-ce00-000000000000")
    assert (mail.kind, mail.principal, mail.application_id) == ("application", "mail", "00000002-0000-0ff1-ce00-000000000000")
    access.revoke(world.vault, world.call(), t.AccessRevoke(vault="ContosoVault1", upn=KIM))
    assert [entry.principal for entry in access.list_all(world.vault, world.call(), V)] == ["mail", ALEX]
    for wrong in (
        t.AccessGrant(vault="ContosoVault1", permissions=["get"]),
        t.AccessGrant(vault="ContosoVault1", upn=KIM, principal="mail", permissions=["get"]),
        t.AccessGrant(vault="ContosoVault1", upn=KIM, permissions=["all"]),
        t.AccessGrant(vault="ContosoVault1", upn=KIM),
        t.AccessGrant(vault="ContosoVault1", principal="robot", permissions=["get"]),
    ):
        with pytest.raises(InvalidRequest):
            access.grant(world.vault, world.call(), wrong)


def test_roles_are_an_alternative_to_permission_lists(world: World) -> None:
    """R-044, R-057."""
    made = world.new_vault(rbac=True)
    assert made.rbac
    (creator,) = access.list_all(world.vault, world.call(), V)
    assert (creator.permissions, creator.roles, creator.contributor) == ([], [], True)
    with pytest.raises(Forbidden):
        world.new_key()

    def assign(role: str, upn: str | None = None, principal: str | None = None) -> t.AccessView:
        return access.grant(world.vault, world.call(), t.AccessGrant(vault="ContosoVault1", upn=upn, principal=principal, roles=[role]))

    assert "purge" in assign("Crypto-Officer", upn=ALEX).permissions
    assert assign("crypto-service-encryption-user", principal="mail").permissions == ["get", "unwrapKey", "wrapKey"]
    assert "create" not in assign("crypto-user", upn=KIM).permissions
    key = world.new_key()
    wrapped = wrap_key(world.vault, world.identity(), key.id, ALGORITHM, bytes(32))
    assert key_facts(world.vault, world.identity(), key.id).permissions == frozenset({"get", "wrapKey", "unwrapKey"})
    with pytest.raises(Forbidden):
        keys.rotate(world.vault, world.call(KIM), t.KeyNamed(vault="ContosoVault1", name="root"))
    access.revoke(world.vault, world.call(), t.AccessRevoke(vault="ContosoVault1", upn=KIM, roles=["crypto-user"]))
    vaults.delete(world.vault, world.call(), V)
    vaults.recover(world.vault, world.call(), V)
    with pytest.raises(Forbidden):
        unwrap_key(world.vault, world.identity(), wrapped.key_uri, ALGORITHM, wrapped.value)
    assign("crypto-service-encryption-user", principal="mail")
    assert unwrap_key(world.vault, world.identity(), wrapped.key_uri, ALGORITHM, wrapped.value) == bytes(32)


def test_a_vault_knows_lists_or_roles_never_both(world: World) -> None:
    """R-044."""
    world.new_vault()
    world.new_vault("ContosoRoles", rbac=True)
    for wrong in (
        t.AccessGrant(vault="ContosoVault1", upn=KIM, roles=["crypto-user"]),
        t.AccessGrant(vault="ContosoRoles", upn=KIM, permissions=["get"]),
    ):
        with pytest.raises(PreconditionFailed) as refused:
            access.grant(world.vault, world.call(), wrong)
        assert refused.value.code == "vault_access_model"
    with pytest.raises(InvalidRequest):
        access.grant(world.vault, world.call(), t.AccessGrant(vault="ContosoRoles", upn=KIM, roles=["emperor"]))


def test_only_a_contributor_changes_a_vault(world: World) -> None:
    """R-037."""
    world.new_vault()
    kim = world.call(KIM)
    for attempt in (
        lambda: access.grant(world.vault, kim, t.AccessGrant(vault="ContosoVault1", upn=KIM, permissions=["purge"])),
        lambda: access.revoke(world.vault, kim, t.AccessRevoke(vault="ContosoVault1", upn=ALEX)),
        lambda: vaults.delete(world.vault, kim, V),
        lambda: access.list_all(world.vault, kim, V),
        lambda: vaults.log(world.vault, kim, t.VaultLogQuery(vault="ContosoVault1")),
    ):
        with pytest.raises(Forbidden) as refused:
            attempt()
        assert refused.value.code == "vault_access_denied"
    watching = world.call(KIM, role=Role.AUDIT_READER)
    assert access.list_all(world.vault, watching, V)


def test_every_call_leaves_one_record_with_all_fields(world: World) -> None:
    """R-067, R-068."""
    key = world.ready()
    before = len(world.log())
    call = world.call(KIM)
    with pytest.raises(Forbidden):
        keys.delete(world.vault, call, t.KeyNamed(vault="contosovault1", name="root"))
    wrapped = wrap_key(world.vault, world.identity(), key.base_id, ALGORITHM, bytes(32))
    with pytest.raises(IntegrityFailure):
        unwrap_key(world.vault, world.identity(), wrapped.key_uri, ALGORITHM, bytes(256))
    refused, allowed, failed = world.log()[before:]
    assert (refused.operation_name, refused.result_type, refused.result_signature) == ("KeyDelete", "Failure", "vault_access_denied")
    assert (refused.identity.upn, refused.caller_ip_address, refused.correlation_id) == (KIM, "192.0.2.7", call.request_id)
    assert refused.properties.http_status_code == 403
    assert (refused.category, refused.operation_version, refused.duration_ms) == ("AuditEvent", "v1", 0)
    assert refused.properties.id == f"https://contosovault1{SUFFIX}/keys/root"
    assert (allowed.operation_name, allowed.result_type, allowed.properties.http_status_code) == ("KeyWrap", "Success", 200)
    assert (allowed.identity.application, allowed.identity.application_id) == ("mail", "00000002-0000-0ff1-ce00-000000000000")
    assert (allowed.properties.id, allowed.properties.request_uri) == (wrapped.key_uri, key.base_id)
    assert (failed.operation_name, failed.result_signature, failed.properties.http_status_code) == ("KeyUnwrap", "unwrap_failed", 400)


def test_the_log_is_paged_and_outlives_its_vault(world: World) -> None:
    """R-067."""
    world.ready()
    reader = world.call(KIM, role=Role.AUDIT_READER)
    last = vaults.log(world.vault, reader, t.VaultLogQuery(vault="ContosoVault1", limit=2))
    assert [entry.operation_name for entry in last] == ["VaultPatch", "KeyCreate"]
    following = vaults.log(world.vault, reader, t.VaultLogQuery(vault="ContosoVault1", after=last[-1].number))
    assert [entry.operation_name for entry in following] == ["VaultLogList"]
    vaults.delete(world.vault, world.call(), V)
    vaults.purge(world.vault, world.call(), V)
    whole = vaults.log(world.vault, reader, t.VaultLogQuery(vault="contosovault1"))
    assert [entry.operation_name for entry in whole][-2:] == ["VaultDelete", "VaultPurge"]
    assert vaults.log(world.vault, world.call(STRANGER, OTHER_TENANT, Role.AUDIT_READER), t.VaultLogQuery(vault="ContosoVault1")) == []
    with pytest.raises(InvalidRequest):
        vaults.log(world.vault, reader, t.VaultLogQuery(vault="ContosoVault1", limit=0))


def test_a_refused_call_changes_nothing_but_the_log(world: World) -> None:
    """R-067."""
    world.new_vault()
    before = vaults.list_all(world.vault, world.call(), Empty())
    for name in ("no such vault", "ContosoVault9", "../../etc", "x" * 5_000):
        with pytest.raises(NotFound):
            vaults.delete(world.vault, world.call(), t.VaultNamed(vault=name))
    assert vaults.list_all(world.vault, world.call(), Empty()) == before
    assert [entry.result_signature for entry in world.log("ContosoVault9")] == ["vault_not_found"]
    assert [entry.result_signature for entry in world.log("")].count("vault_not_found") == 3


def test_a_wrong_seal_is_told_at_opening(world: World) -> None:
    with pytest.raises(IntegrityFailure) as refused:
        open_vault(world.store, SecretKey(bytes(32)), world.clock, os.urandom)
    assert refused.value.code == "vault_seal_wrong"
