"""Onboarding: which tenant may make policies, with which subscriptions, and who may sign for destruction (requirements 14.1)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from keystead.api.types import policies as p
from keystead.api.types import tenants as t
from keystead.api.types import vaults as v
from keystead.core.errors import ChecksFailed, Forbidden, Unavailable
from keystead.core.keys.outcome import Outcome, OutcomeClass
from keystead.ports.vaults import SubscriptionFacts, VaultFailure
from support.world import World

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from keystead.client.client import Client
    from support.world import TenantWorld

KINDS = ("trial", "free", "sponsored", "msdn", "legacy")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, database: str) -> Iterator[TenantWorld]:
    """A tenant that is not onboarded, with three good subscriptions and one of each kind that is not; and another tenant with one."""
    world = World(tmp_path_factory.mktemp("made"))
    contoso = world.tenant("contoso.example", ready=False)
    for name in ("s1", "s2", "s3"):
        contoso.admin.call("subscription.create", v.SubscriptionCreate(name=name))
    for kind in KINDS:
        contoso.admin.call("subscription.create", v.SubscriptionCreate(name=f"s-{kind}", kind=kind))
    fabrikam = world.tenant("fabrikam.example", ready=False)
    fabrikam.admin.call("subscription.create", v.SubscriptionCreate(name="theirs"))
    yield contoso
    world.close()


@pytest.fixture
def contoso(made: TenantWorld, tmp_path: Path) -> Iterator[TenantWorld]:
    world = World(tmp_path, like=made.world)
    yield made.within(world)
    world.close()


def onboard(client: Client, *subscriptions: str, officers: tuple[str, ...] = ()) -> t.OnboardingView:
    named = [t.OfficerInput(name=name) for name in officers]
    view: t.OnboardingView = client.call(
        "tenant.onboard", t.OnboardTenant(workload="mail", subscriptions=list(subscriptions), officers=named)
    )
    return view


def subscription_id(contoso: TenantWorld, name: str) -> str:
    found: list[v.SubscriptionView] = contoso.admin.call("subscription.list")
    return next(one.id for one in found if one.name == name)


def refused(contoso: TenantWorld, *subscriptions: str) -> list[tuple[str, str]]:
    """The checks that refuse; nothing is recorded of the tenant but the refusal."""
    with pytest.raises(ChecksFailed) as failure:
        onboard(contoso.admin, *subscriptions)
    shown: t.TenantView = contoso.admin.call("tenant.show", t.ShowTenant())
    assert shown.onboarded == []
    assert contoso.audit("New-CustomerKeyOnboardingRequest")[0].result_status == "Failed"
    assert all(check.mend for check in failure.value.failed)
    return [(check.check, check.subject) for check in failure.value.failed]


def test_onboarding_records_subscriptions_and_the_officers_who_may_sign(contoso: TenantWorld) -> None:
    """R-001, R-002."""
    view = onboard(contoso.admin, "s1", "s2", officers=("Head of security", "Data protection officer"))
    ids = [subscription_id(contoso, "s1"), subscription_id(contoso, "s2")]
    assert (view.subscription_ids, view.officers, view.warnings) == (ids, ["Head of security", "Data protection officer"], [])
    shown: t.TenantView = contoso.admin.call("tenant.show", t.ShowTenant())
    assert shown.onboarded == ["mail"]
    told = contoso.audit("New-CustomerKeyOnboardingRequest")[0]
    assert {one.name: one.value for one in told.parameters} == {
        "Scenario": "mail",
        "Subscriptions": ",".join(ids),
        "Officers": "Head of security,Data protection officer",
    }


def test_mail_and_files_are_onboarded_each_by_itself_R_001(contoso: TenantWorld) -> None:
    onboard(contoso.admin, "s1", "s2")
    request = t.OnboardTenant(workload="files", subscriptions=["s1", "s3"])
    view: t.OnboardingView = contoso.admin.call("tenant.onboard", request)
    assert (view.workload, view.subscription_ids) == ("files", [subscription_id(contoso, "s1"), subscription_id(contoso, "s3")])
    shown: t.TenantView = contoso.admin.call("tenant.show", t.ShowTenant())
    assert shown.onboarded == ["mail", "files"]
    with contoso.world.services.db.read() as tx:
        mail, files = (tx.tenants.onboarding(view.tenant_id, workload) for workload in ("mail", "files"))
    assert mail is not None
    assert files is not None
    assert mail.subscription_ids != files.subscription_ids


def test_without_a_named_officer_the_caller_is_recorded_and_told_so(contoso: TenantWorld) -> None:
    """R-002: there is always at least one who may approve destruction."""
    view = onboard(contoso.admin, "s1", "s2")
    assert view.officers == ["admin@contoso.example"]
    assert "admin@contoso.example" in view.warnings[0]


@pytest.mark.parametrize("kind", KINDS)
def test_a_subscription_of_a_kind_that_can_vanish_is_refused(contoso: TenantWorld, kind: str) -> None:
    """R-003: whichever of the two it is."""
    for pair in (("s1", f"s-{kind}"), (f"s-{kind}", "s1")):
        assert refused(contoso, *pair) == [("subscription-kind", f"s-{kind}")]


def test_a_subscription_of_another_directory_is_refused(contoso: TenantWorld) -> None:
    """R-015: by its name or by its id, as one that the tenant does not have."""
    ((theirs,),) = [(one.id,) for one in contoso.world.as_person("admin@fabrikam.example").call("subscription.list")]
    for name in ("theirs", theirs):
        assert refused(contoso, "s1", name) == [("subscription-exists", name)]


@pytest.mark.parametrize("subscriptions", [(), ("s1",), ("s1", "s1"), ("s1", "s2", "s3")], ids=len)
def test_exactly_two_different_subscriptions_are_needed(contoso: TenantWorld, subscriptions: tuple[str, ...]) -> None:
    """R-001: one for each key vault."""
    assert refused(contoso, *subscriptions) == [("two-subscriptions", "")]


def test_a_subscription_named_once_by_name_and_once_by_id_is_one(contoso: TenantWorld) -> None:
    """R-001."""
    assert refused(contoso, "s1", subscription_id(contoso, "s1")) == [("two-subscriptions", "")]


def test_everything_wrong_is_told_at_once(contoso: TenantWorld) -> None:
    """R-081: as for policies."""
    assert refused(contoso, "s-trial", "nothing", "s1") == [
        ("subscription-kind", "s-trial"),
        ("subscription-exists", "nothing"),
        ("two-subscriptions", ""),
    ]


@pytest.mark.parametrize(
    "role", ["exchange-admin", "compliance-admin", "key-vault-administrator", "audit-reader", "lockbox-approver", "user"]
)
def test_only_a_global_administrator_onboards(contoso: TenantWorld, role: t.RoleName) -> None:
    """R-008: it names who may sign for destruction."""
    with pytest.raises(Forbidden):
        onboard(contoso.person("alex", role), "s1", "s2")


def test_a_vault_side_that_does_not_answer_is_no_refusal(contoso: TenantWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    """R-001: try again later, with nothing recorded."""

    def away(_tenant: str, _name: str) -> SubscriptionFacts:
        raise VaultFailure(Outcome(OutcomeClass.SYSTEM_ERROR, "timeout"))

    monkeypatch.setattr(contoso.world.vaults, "subscription_facts", away)
    with pytest.raises(Unavailable):
        onboard(contoso.admin, "s1", "s2")
    assert contoso.world.sql("SELECT * FROM onboardings") == []


def test_onboarding_again_replaces_what_was_recorded(contoso: TenantWorld) -> None:
    """R-001, R-002: a policy needs the subscriptions named last."""
    contoso.make_vault("contosov1", "s1", "westeurope")
    contoso.make_vault("contosov3", "s3", "eastus")
    keys = [contoso.make_key(vault, "root") for vault in ("contosov1", "contosov3")]
    for name in ("s1", "s3"):
        contoso.admin.call("subscription.protect", v.SubscriptionNamed(name=name))
    onboard(contoso.admin, "s1", "s2")
    view: p.ValidationView = contoso.admin.call("policy.validate", p.CreatePolicy(name="Mail", keys=keys))
    assert [(check.check, check.subject) for check in view.failed_checks] == [("subscription-onboarded", keys[1])]
    assert onboard(contoso.admin, "s1", "s3", officers=("Board",)).officers == ["Board"]
    assert contoso.policy("Mail", keys=keys).state == "Active"
    assert contoso.world.sql("SELECT count(*) FROM onboardings") == [(1,)]
