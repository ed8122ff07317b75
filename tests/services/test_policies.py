"""Making policies: every creation check with its name and mend, and what is stored of a policy (requirements 3.3; R-001, R-008, R-070 to R-085)."""

from __future__ import annotations

import base64
import os
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from keystead.adapters.sql.rows_work import SqlAuditRows
from keystead.api.types import policies as p
from keystead.api.types import tenants as t
from keystead.api.types import vaults as v
from keystead.core.errors import ChecksFailed, Conflict, FailedCheck, Forbidden, InvalidRequest, NotFound, Unavailable
from keystead.core.policies.checks import CHECKS
from keystead.ports.keystore import Compartment
from support.world import OPERATOR, World

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from support.world import TenantWorld

V1, V2 = "contosov1", "contosov2"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, database: str) -> Iterator[TenantWorld]:
    """A tenant with two good keys, and next to them everything a policy must not be made of."""
    world = World(tmp_path_factory.mktemp("made"))
    contoso = world.tenant("contoso.example")
    admin = contoso.admin
    contoso.make_vault("samesub", "contoso-s1", "northeurope")
    contoso.make_vault("sameregion", "contoso-s2", "westeurope")
    contoso.make_vault("paired", "contoso-s2", "northeurope")
    contoso.make_vault("otherplace", "contoso-s3", "uksouth")
    contoso.make_vault("shortlived", "contoso-s2", "eastus", retention_days=30)
    admin.call("subscription.create", v.SubscriptionCreate(name="contoso-trial", kind="trial"))
    admin.call("subscription.protect", v.SubscriptionNamed(name="contoso-trial"))
    contoso.make_vault("trialvault", "contoso-trial", "uksouth")
    admin.call("subscription.create", v.SubscriptionCreate(name="contoso-open"))
    admin.call("vault.create", v.VaultCreate(name="openvault", subscription="contoso-open", region="uksouth"))
    contoso.allow("openvault")
    for vault in ("samesub", "sameregion", "paired", "otherplace", "shortlived", "trialvault", "openvault"):
        contoso.make_key(vault, "root")
    contoso.make_key(V1, "second")
    contoso.make_key(V2, "off", enabled=False)
    contoso.make_key(V2, "curve", kty="EC", ops=["sign", "verify"])
    contoso.make_key(V2, "wraponly", ops=["wrapKey"])
    contoso.make_key(V2, "ends", expires=datetime(2030, 1, 1, tzinfo=UTC))
    contoso.make_key(V2, "endless", expires=datetime(9999, 12, 31, tzinfo=UTC))
    contoso.make_key(V2, "later", not_before=datetime(2030, 1, 1, tzinfo=UTC))
    contoso.make_key(V2, "gone")
    admin.call("key.delete", v.KeyNamed(vault=V2, name="gone"))
    world.tenant("fabrikam.example")
    yield contoso
    world.close()


@pytest.fixture
def contoso(made: TenantWorld, tmp_path: Path) -> Iterator[TenantWorld]:
    world = World(tmp_path, like=made.world)
    yield made.within(world)
    world.close()


def uri(vault: str, name: str = "root") -> str:
    return f"https://{vault}.vault.localhost/keys/{name}"


def failed(contoso: TenantWorld, *keys: str, name: str = "New") -> tuple[FailedCheck, ...]:
    """The checks that refuse a creation, which leaves nothing behind; `policy validate` says the same without refusing."""
    before = contoso.world.sql("SELECT count(*) FROM policies"), entries(contoso)
    with pytest.raises(ChecksFailed) as refused:
        contoso.policy(name, keys=list(keys))
    assert (contoso.world.sql("SELECT count(*) FROM policies"), entries(contoso)) == before
    view: p.ValidationView = contoso.admin.call("policy.validate", p.CreatePolicy(name=name, keys=list(keys)))
    assert not view.valid
    shown = [FailedCheck(check.check, check.detail, check.mend, check.subject) for check in view.failed_checks]
    assert tuple(shown) == refused.value.failed
    assert all(check.check in CHECKS and check.mend for check in shown)
    last = contoso.audit("New-DataEncryptionPolicy")[0]
    assert last.result_status == "Failed"
    return refused.value.failed


def entries(contoso: TenantWorld) -> list[int]:
    return [len(contoso.world.services.keystore.entries(compartment)) for compartment in Compartment]


BAD_SECOND_KEYS = {
    "not-a-vault-of-ours": (uri("nosuchvault"), "key-registered", "keystead vault list"),
    "vault-of-another-tenant": (uri("fabrikamv2"), "key-registered", "keystead vault list"),
    "host-of-somebody-else": ("https://contosov2.vault.example/keys/root", "key-registered", "keystead vault list"),
    "no-such-key": (uri(V2, "nosuchkey"), "key-exists", "keystead key list"),
    "deleted-key": (uri(V2, "gone"), "key-exists", "keystead key list"),
    "same-vault": (uri(V1, "second"), "different-vaults", "keystead vault create"),
    "same-key": (uri(V1), "different-vaults", "keystead vault create"),
    "same-subscription": (uri("samesub"), "different-subscriptions", "keystead subscription create"),
    "same-region": (uri("sameregion"), "different-regions", "--region"),
    "unprotected": (uri("openvault"), "recovery-level", "keystead subscription protect contoso-open"),
    "short-retention": (uri("shortlived"), "recovery-level", "90 days"),
    "disabled": (uri(V2, "off"), "key-enabled", "keystead key enable contosov2 off"),
    "not-rsa": (uri(V2, "curve"), "key-type", "--kty RSA"),
    "operations": (uri(V2, "wraponly"), "key-operations", "--ops wrapKey,unwrapKey"),
    "expiry": (uri(V2, "ends"), "key-expiry", "9999-12-31"),
    "activation": (uri(V2, "later"), "key-activation", "without an activation date"),
    "not-onboarded": (uri("otherplace"), "subscription-onboarded", "keystead tenant onboard"),
    "trial": (uri("trialvault"), "subscription-kind", "--kind paid"),
}


@pytest.mark.parametrize("case", BAD_SECOND_KEYS)
def test_a_bad_key_fails_the_check_of_that_name_and_says_how_to_mend_it(contoso: TenantWorld, case: str) -> None:
    """R-001, R-003, R-015, R-071, R-072, R-073, R-075, R-076, R-077."""
    key, check, mend = BAD_SECOND_KEYS[case]
    found = failed(contoso, contoso.keys[0], key)
    named = {one.check: one for one in found}
    assert mend in named[check].mend
    assert named[check].subject == key
    consequences = {"trial": {"subscription-onboarded"}, "unprotected": {"subscription-onboarded"}, "not-rsa": {"key-operations"}}
    assert set(named) - {check} == consequences.get(case, set())


@pytest.mark.parametrize("position", [0, 1])
@pytest.mark.parametrize("permission", ["get", "wrapKey", "unwrapKey"])
def test_each_permission_is_asked_for_on_each_vault_by_name(contoso: TenantWorld, permission: str, position: int) -> None:
    """R-074."""
    vault = (V1, V2)[position]
    contoso.admin.call("vault.access.revoke", v.AccessRevoke(vault=vault, principal="mail", permissions=[permission]))
    (check,) = failed(contoso, *contoso.keys)
    assert (check.check, check.subject) == (f"permission-{permission}", contoso.keys[position])
    assert check.mend == f"keystead vault access grant {vault} --principal mail --permissions get,wrapKey,unwrapKey"
    contoso.allow(vault)
    assert contoso.policy("New").enabled


@pytest.mark.parametrize("count", [0, 1, 3])
def test_exactly_two_keys_are_needed(contoso: TenantWorld, count: int) -> None:
    """R-070, R-071."""
    keys = [*contoso.keys, uri("otherplace")][:count]
    assert "two-keys" in {check.check for check in failed(contoso, *keys)}


def test_a_vault_that_does_not_answer_or_answers_wrong_is_named(contoso: TenantWorld) -> None:
    """R-074: the trial wrap and unwrap with each key."""
    contoso.world.vaults.fail(V2, "system-error")
    (check,) = failed(contoso, *contoso.keys)
    assert (check.check, check.subject) == ("vault-answers", contoso.keys[1])
    contoso.world.vaults.fail(V2, "success")
    contoso.world.vaults.wrong_bytes.add(V1)
    (check,) = failed(contoso, *contoso.keys)
    assert (check.check, check.subject) == ("round-trip", contoso.keys[0])


def test_everything_wrong_is_told_at_once(contoso: TenantWorld) -> None:
    """R-081: both keys, the name and the pair, in one answer."""
    contoso.policy("Taken")
    contoso.admin.call("vault.access.revoke", v.AccessRevoke(vault=V2, principal="mail"))
    found = failed(contoso, uri("sameregion"), uri(V2, "ends"), name="Taken")
    assert [(one.check, one.subject) for one in found] == [
        ("policy-name", ""),
        *((f"permission-{permission}", uri(V2, "ends")) for permission in ("get", "wrapKey", "unwrapKey")),
        ("key-expiry", uri(V2, "ends")),
        ("different-subscriptions", uri(V2, "ends")),
    ]


def test_validating_makes_nothing_and_leaves_no_record(contoso: TenantWorld) -> None:
    """R-081: also when all is well."""
    before, policies = entries(contoso), contoso.world.sql("SELECT * FROM policies")
    records = len(contoso.audit())
    view: p.ValidationView = contoso.admin.call("policy.validate", p.CreatePolicy(name="New", keys=contoso.keys))
    assert (view.valid, view.failed_checks, view.warnings) == (True, [], [])
    assert (entries(contoso), contoso.world.sql("SELECT * FROM policies")) == (before, policies)
    assert len(contoso.audit()) == records


def test_paired_regions_and_no_expiry_until_the_end_of_9999_pass(contoso: TenantWorld) -> None:
    """R-073, R-076: the one is a warning, the other is as good as none."""
    view = contoso.policy("Paired", keys=[contoso.keys[0], uri("paired")])
    assert [warning.check for warning in view.warnings] == ["paired-regions"]
    assert contoso.policy("Endless", keys=[contoso.keys[0], uri(V2, "endless")]).warnings == []


def test_a_tenant_that_was_not_onboarded_makes_no_policy(world: World) -> None:
    """R-001: and is told so together with all the rest."""
    tenant = world.tenant("tailspin.example", ready=False)
    for vault, subscription, region in (("tailspinv1", "s1", "westeurope"), ("tailspinv2", "s2", "eastus")):
        tenant.make_vault(vault, subscription, region)
        tenant.keys.append(tenant.make_key(vault, "root"))
    (check,) = failed(tenant, *tenant.keys)
    assert (check.check, check.subject) == ("onboarded", "")
    assert check.mend.startswith("keystead tenant onboard --workload mail")
    tenant.admin.call("tenant.onboard", t.OnboardTenant(workload="mail", subscriptions=["s1", "s2"]))
    assert tenant.policy("Mail").state == "Active"


# -- names and limits -------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("route", ["policy.create", "policy.validate"])
@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("Mail policy", "policy_name_has_spaces"),
        ("Mail\tpolicy", "policy_name_has_spaces"),
        ("", "policy_name_invalid"),
        ("a/b", "policy_name_invalid"),
        ("x" * 65, "policy_name_invalid"),
    ],
)
def test_a_name_with_spaces_is_refused_with_a_text_of_its_own(contoso: TenantWorld, route: str, name: str, code: str) -> None:
    """R-082, decision D4."""
    with pytest.raises(InvalidRequest) as refused:
        contoso.admin.call(route, p.CreatePolicy(name=name, keys=contoso.keys))
    assert refused.value.code == code
    assert refused.value.mend


def test_a_name_serves_one_policy_of_a_tenant_and_may_serve_another_tenants(contoso: TenantWorld) -> None:
    """R-070: unique in the tenant; the description is free text and optional."""
    view = contoso.policy("Mail.1-a_b", description="Keys of the board")
    assert (view.name, view.description) == ("Mail.1-a_b", "Keys of the board")
    (check,) = failed(contoso, *contoso.keys, name="Mail.1-a_b")
    assert check.check == "policy-name"
    other = contoso.policy("Other")
    with pytest.raises(Conflict):
        contoso.admin.call("policy.set", p.SetPolicy(policy=other.id, name="Mail.1-a_b"))


def test_the_fifty_first_policy_is_refused(contoso: TenantWorld) -> None:
    """R-078: purging aside, a tenant has at most fifty mailbox policies; another tenant's do not count."""
    first = contoso.policy("P-00")
    columns = "tenant_id, workload, description, enabled, created, version_id, version, check_value, shred_key_id, availability_key_id"
    for number in range(1, 49):
        contoso.world.sql(
            f"INSERT INTO policies (id, name, {columns}) SELECT ?, ?, {columns} FROM policies WHERE id = ?",  # noqa: S608 - our own words
            f"{number:08}-0000-4000-8000-000000000000",
            f"P-{number:02}",
            first.id,
        )
    assert contoso.policy("P-49").version == 1
    (check,) = failed(contoso, *contoso.keys)
    assert check.check == "policy-limit"
    contoso.world.sql("DELETE FROM policies WHERE name = 'P-01'")
    assert contoso.policy("P-50").version == 1


# -- what is made -----------------------------------------------------------------------------------------------------------------------


def test_a_policy_is_three_wrapped_copies_of_a_key_that_is_nowhere_in_clear(contoso: TenantWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    """R-079, R-080: the key, caught where it is made, is in no file of the home, in no usual spelling; nor are its derivatives."""
    drawn: list[bytes] = []

    def random(size: int) -> bytes:
        drawn.append(os.urandom(size))
        return drawn[-1]

    monkeypatch.setattr(contoso.world.services.keyring, "_random", random)
    view = contoso.policy("Secret")
    box = contoso.mailbox("alice", messages=2)
    contoso.assign(view, box)
    box.read_all()
    keys = [value for value in drawn if len(value) == 32]
    assert len(keys) >= 1
    needles = [
        shape for key in keys for shape in (key, key.hex().encode(), base64.b64encode(key), base64.urlsafe_b64encode(key).rstrip(b"="))
    ]
    assert contoso.world.files_holding(*needles) == []
    copies = contoso.world.sql("SELECT role, key_uri, algorithm FROM policy_copies WHERE version_id = ? ORDER BY role", view.version_id)
    ((availability,),) = contoso.world.sql("SELECT availability_key_id FROM policies WHERE id = ?", view.id)
    assert [role for role, _uri, _algorithm in copies] == ["availability", "primary", "secondary"]
    assert copies[0][1] == f"availability:{availability}"
    assert [algorithm for _role, _uri, algorithm in copies[1:]] == ["RSA-OAEP-256", "RSA-OAEP-256"]


def test_each_policy_has_keys_of_its_own(contoso: TenantWorld) -> None:
    """R-079: a fresh policy key, availability key and shred key, though the customer's keys are the same."""
    contoso.policy("One")
    contoso.policy("Two")
    rows = contoso.world.sql("SELECT check_value, availability_key_id, shred_key_id, version_id FROM policies WHERE workload = 'mail'")
    assert len(rows) == 2
    for column in zip(*rows, strict=True):
        assert len(set(column)) == 2


def test_the_version_named_with_a_key_is_not_pinned(contoso: TenantWorld) -> None:
    """R-070, R-262: the current version wraps, and the policy says which that is."""
    old: v.KeyView = contoso.admin.call("key.show", v.KeyVersionNamed(vault=V1, name="root"))
    new: v.KeyView = contoso.admin.call("key.rotate", v.KeyNamed(vault=V1, name="root"))
    view = contoso.policy("Mail", keys=[old.id, contoso.keys[1]])
    assert new.id != old.id
    assert [(copy.role, copy.algorithm) for copy in view.keys] == [
        ("primary", "RSA-OAEP-256"),
        ("secondary", "RSA-OAEP-256"),
        ("availability", "AVAILABILITY"),
    ]
    assert view.keys[0].key_uri == new.id
    assert view.keys[1].key_uri.startswith(contoso.keys[1] + "/")


def test_creation_is_on_the_log_with_its_parameters(contoso: TenantWorld) -> None:
    """R-070: by whom, which keys, which versions."""
    view = contoso.policy("Mail", enabled=False)
    made = contoso.audit("New-DataEncryptionPolicy")[0]
    assert (made.object_id, made.user_id, made.result_status) == (view.id, "admin@contoso.example", "Succeeded")
    assert {one.name: one.value for one in made.parameters} == {
        "Name": "Mail",
        "AzureKeyIDs": ",".join(copy.key_uri for copy in view.keys[:2]),
        "Enabled": "False",
    }
    assert (view.state, view.enabled) == ("Disabled", False)


def test_without_its_record_a_policy_is_not_made(contoso: TenantWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    """Design section 2: no record, no act."""

    def full(_rows: SqlAuditRows, _record: object) -> None:
        raise Unavailable("database_full", "the database takes no more", "make room")

    with monkeypatch.context() as patched:
        patched.setattr(SqlAuditRows, "append", full)
        with pytest.raises(Unavailable):
            contoso.policy("Mail")
    assert contoso.admin.call("policy.list", p.ListPolicies()) == []
    assert contoso.policy("Mail").version == 1


# -- looking up, changing, who may --------------------------------------------------------------------------------------------------------


def test_policies_are_listed_and_found_by_name_id_and_version(contoso: TenantWorld) -> None:
    """R-084, R-085, R-262: in any case of an id; the provider's default policy is not among them."""
    views = [contoso.policy(name) for name in ("Zebra", "Apple")]
    listed: list[p.PolicySummary] = contoso.admin.call("policy.list", p.ListPolicies())
    assert [(one.name, one.id) for one in listed] == [("Apple", views[1].id), ("Zebra", views[0].id)]
    for view in views:
        for reference in (view.name, view.id, view.id.upper(), view.version_id):
            shown: p.PolicyView = contoso.admin.call("policy.show", p.NamePolicy(policy=reference))
            assert (shown.id, shown.name, shown.keys) == (view.id, view.name, view.keys)


def test_another_tenants_policy_is_not_found(contoso: TenantWorld) -> None:
    """R-084: not by its name, its id or its version."""
    view = contoso.policy("Mail")
    stranger = contoso.world.as_person("admin@fabrikam.example")
    assert stranger.call("policy.list", p.ListPolicies()) == []
    for reference in (view.name, view.id, view.version_id, "provider"):
        for route in ("policy.show", "policy.refresh", "policy.disable", "policy.health"):
            with pytest.raises(NotFound) as missing:
                stranger.call(route, p.NamePolicy(policy=reference))
            assert reference in missing.value.detail


def test_a_policy_is_renamed_described_disabled_and_enabled(contoso: TenantWorld) -> None:
    """R-085: id and version stay."""
    view = contoso.policy("Mail")
    changed: p.PolicyView = contoso.admin.call("policy.set", p.SetPolicy(policy="Mail", name="Post", description="All of it"))
    assert (changed.name, changed.description, changed.id, changed.version_id) == ("Post", "All of it", view.id, view.version_id)
    off: p.PolicyView = contoso.admin.call("policy.disable", p.NamePolicy(policy="Post"))
    assert (off.state, off.enabled) == ("Disabled", False)
    on: p.PolicyView = contoso.admin.call("policy.enable", p.NamePolicy(policy="Post"))
    assert (on.state, on.enabled) == ("Active", True)
    assert len([one for one in contoso.audit("Set-DataEncryptionPolicy") if one.object_id == view.id]) == 3


CHANGES: dict[str, Any] = {
    "policy.validate": lambda contoso: p.CreatePolicy(name="New", keys=contoso.keys),
    "policy.create": lambda contoso: p.CreatePolicy(name="New", keys=contoso.keys),
    "policy.refresh": lambda _contoso: p.NamePolicy(policy="Mail"),
    "policy.set": lambda _contoso: p.SetPolicy(policy="Mail", description="changed"),
    "policy.enable": lambda _contoso: p.NamePolicy(policy="Mail"),
    "policy.disable": lambda _contoso: p.NamePolicy(policy="Mail"),
}


@pytest.mark.parametrize("route", CHANGES)
def test_exchange_administrators_manage_policies_unless_the_setting_says_otherwise(made: TenantWorld, tmp_path: Path, route: str) -> None:
    """R-008."""
    for allowed in (True, False):
        world = World(tmp_path / str(allowed), like=made.world, exchange_admin_manages_policies=allowed)
        contoso = made.within(world)
        contoso.policy("Mail")
        exchange = contoso.person("alex", "exchange-admin")
        if allowed:
            assert exchange.call(route, CHANGES[route](contoso)).name in {"New", "Mail"}
        else:
            with pytest.raises(Forbidden):
                exchange.call(route, CHANGES[route](contoso))
            assert contoso.admin.call(route, CHANGES[route](contoso)).name in {"New", "Mail"}
            both = contoso.person("kim", "exchange-admin", "global-admin")
            assert both.call("policy.set", p.SetPolicy(policy="Mail", description="by both")).description == "by both"
        world.close()


@pytest.mark.parametrize("role", ["compliance-admin", "key-vault-administrator", "audit-reader", "lockbox-approver", "user"])
@pytest.mark.parametrize("route", CHANGES)
def test_nobody_else_of_the_tenant_manages_policies(made: TenantWorld, route: str, role: t.RoleName) -> None:
    """R-008: refused, and on the log."""
    with pytest.raises(Forbidden):
        made.person(f"has-{role}", role).call(route, CHANGES[route](made))
    refused = made.audit()[0]
    assert (refused.result_status, refused.user_id) == ("Failed", f"has-{role}@contoso.example")


def test_the_operator_of_a_dev_home_may_make_one(contoso: TenantWorld) -> None:
    """R-008, design section 8."""
    view = contoso.world.client(OPERATOR, contoso.id).call("policy.create", p.CreatePolicy(name="New", keys=contoso.keys))
    assert view.name == "New"
