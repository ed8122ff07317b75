"""Names and ids of another tenant, used inside one's own: not found, and nothing of theirs is shown, named or changed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from keystead.api.types import mailboxes as m
from keystead.api.types import policies as p
from keystead.api.types import tenants as t
from keystead.api.types import vaults as v
from keystead.api.types import watching as w
from keystead.core.errors import ChecksFailed, Conflict, Forbidden, IntegrityFailure, InvalidRequest, KeysteadError, NotFound
from keystead.services import tenants
from keystead.services.jobs.runner import run_due
from support.world import World, message

if TYPE_CHECKING:
    from collections.abc import Iterator

    from keystead.client.client import Client
    from support.world import MailboxWorld, TenantWorld


@dataclass(frozen=True)
class Pair:
    """Two tenants with the same kinds of things."""

    world: World
    ours: TenantWorld
    theirs: TenantWorld
    our_box: MailboxWorld
    their_box: MailboxWorld
    their_policy: p.PolicyView
    their_item: str
    their_job: str


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory, database: str) -> Iterator[Pair]:
    world = World(tmp_path_factory.mktemp("world"))
    ours, theirs = world.tenant("contoso.example"), world.tenant("fabrikam.example")
    ours.policy("Ours")
    their_policy = theirs.policy("Theirs")
    our_box, their_box = ours.mailbox("alice", messages=2), theirs.mailbox("sam", messages=2)
    their_job = theirs.assign(their_policy, their_box, wait=False).id
    yield Pair(world, ours, theirs, our_box, their_box, their_policy, their_box.items()[0].id, their_job)
    world.close()


def as_our_admin(pair: Pair) -> Client:
    """Our administrator, about our tenant, whatever the request names."""
    return pair.world.client(tenants.impersonate(pair.world.services, "admin@contoso.example"), pair.ours.id)


def test_ids_of_another_tenant_are_not_found(pair: Pair) -> None:
    ours, theirs = pair.our_box.upn, pair.their_box.upn
    policies = ("Theirs", pair.their_policy.id, pair.their_policy.version_id)
    cases: list[tuple[str, Any]] = [
        *(
            (f"policy.{verb}", p.NamePolicy(policy=policy))
            for verb in ("show", "refresh", "enable", "disable", "health")
            for policy in policies
        ),
        *(("policy.set", p.SetPolicy(policy=policy, name="Stolen")) for policy in policies),
        *(("mailbox.assign", m.AssignPolicy(policy=policy, upns=[ours])) for policy in policies),
        ("mailbox.assign", m.AssignPolicy(policy="Ours", upns=[theirs])),
        ("mailbox.assign", m.AssignPolicy(policy="Ours", upns=[ours, theirs])),
        *((f"mailbox.{verb}", m.NameMailbox(upn=theirs)) for verb in ("statistics", "move-status", "delete")),
        ("mailbox.unassign", m.UnassignPolicy(upn=theirs)),
        ("mailbox.items", m.ListItems(upn=theirs)),
        ("mailbox.search", m.Search(upn=theirs, text="body")),
        ("mailbox.import", m.ImportBatch(upn=theirs, items=[m.ImportItem(position=1, ordinal=1, folder="", data=b"x")])),
        ("mailbox.delegate", m.DelegateRequest(upn=theirs, delegate=ours)),
        ("mailbox.read", m.NameItem(upn=theirs, item=pair.their_item)),
        ("mailbox.delete-item", m.NameItem(upn=theirs, item=pair.their_item)),
        ("job.show", w.NameJob(job=pair.their_job)),
        ("job.cancel", w.NameJob(job=pair.their_job)),
        ("user.remove", t.RemoveUser(upn="admin@fabrikam.example")),
        ("subscription.protect", v.SubscriptionNamed(name="fabrikam-s1")),
        ("subscription.cancel", v.SubscriptionNamed(name="fabrikam-s1")),
        ("vault.create", v.VaultCreate(name="newvault", subscription="fabrikam-s1", region="westeurope")),
        *(
            (f"vault.{verb}", v.VaultNamed(vault="fabrikamv1"))
            for verb in ("show", "delete", "recover", "purge", "access.list", "protect", "network.show")
        ),
        ("vault.fail-over", v.FailOver(vault="fabrikamv1", read_only=True)),
        *((f"vault.network.{verb}", v.NetworkRange(vault="fabrikamv1", range="203.0.113.0/24")) for verb in ("allow", "remove")),
        ("vault.network.default", v.NetworkDefault(vault="fabrikamv1", action="Deny")),
        ("key.rotation-policy.show", v.KeyNamed(vault="fabrikamv1", name="root")),
        ("key.rotation-policy.set", v.RotationPolicySet(vault="fabrikamv1", name="root")),
        ("vault.access.grant", v.AccessGrant(vault="fabrikamv1", upn="admin@contoso.example", permissions=["get"])),
        ("vault.access.revoke", v.AccessRevoke(vault="fabrikamv1", principal="mail")),
        ("key.create", v.KeyCreate(vault="fabrikamv1", name="stolen")),
        *((f"key.{verb}", v.KeyVersionNamed(vault="fabrikamv1", name="root")) for verb in ("show", "enable", "disable")),
        *(
            (f"key.{verb}", v.KeyNamed(vault="fabrikamv1", name="root"))
            for verb in ("versions", "rotate", "backup", "delete", "recover", "purge")
        ),
        ("key.list", v.KeyList(vault="fabrikamv1")),
    ]
    client = as_our_admin(pair)
    for route, request in cases:
        with pytest.raises((NotFound, Forbidden)) as caught:
            client.call(route, request)
        assert isinstance(caught.value, NotFound) or route.startswith(("vault.", "key.")), (route, caught.value)
    owner = pair.our_box.owner
    for route in ("mailbox.read", "mailbox.delete-item"):
        with pytest.raises(NotFound):
            owner.call(route, m.NameItem(upn=ours, item=pair.their_item))
    with pytest.raises(NotFound):
        owner.call("mailbox.delegate", m.DelegateRequest(upn=ours, delegate=theirs))
    assert pair.their_box.read_all() == sorted([message(0), message(1)])


def test_lists_hold_the_own_tenants_things_only(pair: Pair) -> None:
    for ours, domain, other in ((pair.ours, "contoso", "fabrikam"), (pair.theirs, "fabrikam", "contoso")):
        admin = ours.admin
        shown = [
            admin.call("mailbox.list", m.ListMailboxes()),
            admin.call("user.list", t.ListUsers()),
            admin.call("policy.list", p.ListPolicies()),
            admin.call("job.list", w.ListJobs()),
            admin.call("vault.list"),
            admin.call("subscription.list"),
            admin.call("alerts.list", w.ListAlerts()),
            admin.call("audit.search", w.SearchAudit(limit=5000)),
            admin.call("tenant.show", t.ShowTenant()),
        ]
        own = [one for one in shown[7] if "ailed" not in one.result_status]
        text = repr([*shown[:7], own, shown[8]])
        assert domain in text
        assert f"@{other}.example" not in text
        assert f"{other}v1" not in text
        assert {one.organization_id for one in shown[7]} == {ours.id}
    hits = pair.ours.admin.call("mailbox.search", m.Search(text="body"))
    assert {hit.mailbox for hit in hits} == {pair.our_box.upn}


def test_cursors_and_filters_of_another_tenant_show_nothing_of_theirs(pair: Pair) -> None:
    their_record = pair.theirs.audit()[0]
    admin = pair.ours.admin
    assert {one.organization_id for one in admin.call("audit.search", w.SearchAudit(after=their_record.id, limit=5000))} <= {pair.ours.id}
    assert admin.call("audit.search", w.SearchAudit(item=their_record.object_id)) == []
    their_jobs = {one.id for one in pair.theirs.admin.call("job.list", w.ListJobs())}
    assert their_jobs.isdisjoint(one.id for one in admin.call("job.list", w.ListJobs(after=pair.their_job)))
    assert pair.our_box.owner.call("mailbox.items", m.ListItems(upn=pair.our_box.upn, after=pair.their_item)) == []
    log = admin.call("vault.log", v.VaultLogQuery(vault="fabrikamv1"))
    assert {entry.identity.upn for entry in log} <= {"admin@contoso.example"}, "what our people tried there, not what theirs did"


def test_another_tenants_keys_subscriptions_and_names_cannot_be_built_upon(pair: Pair) -> None:
    admin = pair.ours.admin
    with pytest.raises(ChecksFailed):
        admin.call("policy.create", p.CreatePolicy(name="Stolen", keys=pair.theirs.keys))
    with pytest.raises(ChecksFailed):
        admin.call("policy.create", p.CreatePolicy(name="Stolen", keys=[pair.ours.keys[0], pair.theirs.keys[1]]))
    with pytest.raises(ChecksFailed):
        admin.call("tenant.onboard", t.OnboardTenant(workload="mail", subscriptions=["contoso-s1", "fabrikam-s1"]))
    assert admin.call("policy.key-uses", p.NameKey(key=pair.theirs.keys[0])).uses == []
    with pytest.raises(Conflict):
        admin.call("vault.create", v.VaultCreate(name="fabrikamv1", subscription="contoso-s1", region="westeurope"))
    client = as_our_admin(pair)
    for route, request in (
        ("user.add", t.AddUser(upn="spy@fabrikam.example", roles=["global-admin"])),
        ("mailbox.create", m.CreateMailbox(upn="spy@fabrikam.example")),
    ):
        with pytest.raises(InvalidRequest) as caught:
            client.call(route, request)
        assert caught.value.code == "upn_of_another_domain"
    backup = pair.theirs.admin.call("key.backup", v.KeyNamed(vault="fabrikamv1", name="root"))
    with pytest.raises(KeysteadError) as refused:
        admin.call("key.restore", v.KeyRestore(vault="contosov1", blob=backup.blob))
    assert isinstance(refused.value, (Forbidden, InvalidRequest, NotFound)), refused.value


def test_rows_moved_to_another_tenant_open_nothing(pair: Pair) -> None:
    """The tenant is part of every AAD: who can write to the database cannot carry content over."""
    run_due(pair.world.services)
    stolen = pair.theirs.mailbox("victim", messages=1)
    mailbox = stolen.statistics().id
    item = stolen.items()[0].id
    pair.ours.person("thief", "user")
    ((provider,),) = pair.world.sql("SELECT id FROM policies WHERE tenant_id = ? AND workload = 'provider'", pair.ours.id)
    pair.world.sql(
        "UPDATE mailboxes SET tenant_id = ?, upn = 'thief@contoso.example', policy_id = ? WHERE id = ?", pair.ours.id, provider, mailbox
    )
    thief = pair.world.as_person("thief@contoso.example")
    requests: list[tuple[str, Any]] = [
        ("mailbox.read", m.NameItem(upn="thief@contoso.example", item=item)),
        ("mailbox.items", m.ListItems(upn="thief@contoso.example")),
    ]
    for route, request in requests:
        with pytest.raises(IntegrityFailure):
            thief.call(route, request)
    ((old,),) = pair.world.sql("SELECT policy_id FROM mailboxes WHERE upn = ?", pair.their_box.upn)
    pair.world.sql("UPDATE mailboxes SET policy_id = ? WHERE id = ?", old, mailbox)
    fresh = pair.world.process("fresh")
    client = fresh.client(tenants.impersonate(fresh.services, "thief@contoso.example"))
    with pytest.raises(IntegrityFailure):
        client.call("mailbox.items", m.ListItems(upn="thief@contoso.example"))
