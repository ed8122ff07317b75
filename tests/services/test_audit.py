"""The log: every act of mailboxes and people is on it, in the terms administrators know, with ids and never with content (R-206 to R-214)."""

from __future__ import annotations

from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from keystead.api.types import mailboxes as m
from keystead.api.types import tenants as t
from keystead.api.types import watching as w
from keystead.api.types.base import utc
from keystead.core.errors import Forbidden, InvalidRequest, Unavailable
from keystead.ports.clock import DAY, HOUR
from keystead.services import tenants
from support.world import OPERATOR, World, message

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.world import TenantWorld


@pytest.fixture(scope="module")
def contoso(tmp_path_factory: pytest.TempPathFactory, database: str) -> Iterator[TenantWorld]:
    world = World(tmp_path_factory.mktemp("world"))
    tenant = world.tenant("contoso.example")
    tenant.policy("Mail")
    yield tenant
    world.close()


def parameters(record: w.AuditRecordView) -> dict[str, str]:
    return {parameter.name: parameter.value for parameter in record.parameters}


def test_every_act_has_its_record_with_who_what_and_on_what(contoso: TenantWorld) -> None:
    """R-209."""
    box = contoso.mailbox("recorded", messages=2)
    job = contoso.assign("Mail", box)
    box.owner.call("mailbox.delete-item", m.NameItem(upn=box.upn, item=box.items()[0].id))
    contoso.person("deputy", "user")
    box.owner.call("mailbox.delegate", m.DelegateRequest(upn=box.upn, delegate="deputy@contoso.example"))
    box.owner.call("mailbox.delegate", m.DelegateRequest(upn=box.upn, delegate="deputy@contoso.example", remove=True))
    contoso.admin.call("mailbox.unassign", m.UnassignPolicy(upn=box.upn))
    contoso.admin.call("mailbox.delete", m.NameMailbox(upn=box.upn))
    contoso.admin.call("user.remove", t.RemoveUser(upn="deputy@contoso.example"))
    found = {record.operation: record for record in reversed(contoso.audit())}
    expected = {
        "New-Tenant": OPERATOR.upn,
        "New-CustomerKeyOnboardingRequest": "admin@contoso.example",
        "New-User": "admin@contoso.example",
        "Remove-User": "admin@contoso.example",
        "New-DataEncryptionPolicy": "admin@contoso.example",
        "New-Mailbox": "admin@contoso.example",
        "New-MailboxImportRequest": "admin@contoso.example",
        "Set-Mailbox": "admin@contoso.example",
        "HardDelete": box.upn,
        "Add-MailboxPermission": box.upn,
        "Remove-MailboxPermission": box.upn,
        "Remove-Mailbox": "admin@contoso.example",
    }
    assert {operation: found[operation].user_id for operation in expected} == expected
    assert parameters(found["New-MailboxImportRequest"])["Imported"] == "2"
    assert found["Set-Mailbox"].object_id == box.upn
    system = found["Complete-MailboxMove"]
    assert (system.user_type, parameters(system)["Items"]) == (4, "2")
    assert system.request_id != ""
    assert any(record.request_id == job.id for record in contoso.audit("Complete-PolicyAssignment"))
    for record in contoso.audit():
        assert record.organization_id == contoso.id
        assert record.organization_name == "Contoso"
        assert (record.workload, record.version, record.originating_server) == ("Exchange", 1, "keystead")
        assert record.result_status in {"Succeeded", "Failed"}
        assert record.external_access == (record.user_id == OPERATOR.upn)


def test_records_hold_no_content(contoso: TenantWorld) -> None:
    box = contoso.mailbox("secretive")
    box.add(message(1, subject="Zanzibar", body="Marmalade"), folder="Nightingale")
    box.read_all()
    contoso.admin.call("mailbox.search", m.Search(upn=box.upn, text="Zanzibar"))
    text = repr(contoso.audit())
    assert not [word for word in ("Zanzibar", "Marmalade", "Nightingale", "sam@fabrikam.example") if word in text]


def test_search_restricts_by_operation_user_item_and_time(contoso: TenantWorld) -> None:
    """R-206, R-207."""
    start = utc(contoso.world.clock.now())
    box = contoso.mailbox("found")
    contoso.world.clock.advance(HOUR)
    box.add(message(1))
    mailbox_id = box.statistics().id

    def search(**fields: Any) -> list[str]:
        found: list[w.AuditRecordView] = contoso.admin.call("audit.search", w.SearchAudit(limit=5000, **fields))
        return [one.operation for one in found]

    assert search(item=mailbox_id) == ["New-MailboxImportRequest", "New-Mailbox"]
    assert search(item=mailbox_id, operations=["New-Mailbox", "X"]) == ["New-Mailbox"]
    assert search(item=mailbox_id, users=["nobody@contoso.example"]) == []
    assert search(item=mailbox_id, start=start, end=start + timedelta(minutes=1)) == ["New-Mailbox"]
    assert search(item=mailbox_id, start=start + timedelta(minutes=1)) == ["New-MailboxImportRequest"]
    assert search(item=mailbox_id, start=(start + timedelta(minutes=1)).replace(tzinfo=None)) == ["New-MailboxImportRequest"]
    first: list[w.AuditRecordView] = contoso.admin.call("audit.search", w.SearchAudit(item=mailbox_id, limit=1))
    assert search(item=mailbox_id, after=first[0].id) == ["New-Mailbox"]


def test_a_range_over_90_days_is_refused(contoso: TenantWorld) -> None:
    """R-208."""
    end = utc(contoso.world.clock.now())
    contoso.admin.call("audit.search", w.SearchAudit(start=end - timedelta(days=90), end=end))
    for start, last, code in (
        (end - timedelta(days=91), end, "audit_range_too_long"),
        (datetime(2020, 1, 1, tzinfo=UTC), None, "audit_range_too_long"),
        (end, end - timedelta(seconds=1), "audit_range_empty"),
    ):
        with pytest.raises(InvalidRequest) as caught:
            contoso.admin.call("audit.search", w.SearchAudit(start=start, end=last))
        assert caught.value.code == code


def test_only_audit_roles_search(contoso: TenantWorld) -> None:
    """R-214."""
    for role in ("compliance-admin", "audit-reader"):
        assert contoso.person(f"may-{role}", role).call("audit.search", w.SearchAudit(limit=1))
    for role in ("exchange-admin", "key-vault-administrator", "lockbox-approver", "user"):
        with pytest.raises(Forbidden):
            contoso.person(f"not-{role}", role).call("audit.search", w.SearchAudit(limit=1))  # type: ignore[arg-type]  # as above


def test_without_its_record_an_act_does_not_happen(contoso: TenantWorld) -> None:
    """Design section 2: if the audit record cannot be written, the act does not happen."""
    box = contoso.mailbox("unrecorded", messages=1)
    contoso.person("unrecorded-deputy", "user")
    item = box.items()[0].id
    inner = contoso.world.services.db

    class NoLog:
        """A transaction whose log does not take records."""

        def __init__(self, tx: Any) -> None:
            self._tx = tx

        def __getattr__(self, name: str) -> Any:
            return getattr(self._tx, name)

        @property
        def audit(self) -> NoLog:
            return self

        def append(self, _record: object) -> None:
            raise Unavailable("database_unavailable", "the log is full", "try again")

    class Database:
        @contextmanager
        def write(self) -> Iterator[NoLog]:
            with inner.write() as tx:
                yield NoLog(tx)

        def read(self) -> Any:
            return inner.read()

    broken = contoso.world.process("broken", db=Database())
    before = box.statistics()
    people = len(contoso.admin.call("user.list", t.ListUsers()))
    requests: list[tuple[str, Any]] = [
        ("mailbox.create", m.CreateMailbox(upn="smuggled@contoso.example")),
        ("mailbox.import", m.ImportBatch(upn=box.upn, items=[m.ImportItem(position=1, ordinal=1, folder="", data=b"x")])),
        ("mailbox.assign", m.AssignPolicy(policy="Mail", upns=[box.upn])),
        ("mailbox.delete", m.NameMailbox(upn=box.upn)),
        ("user.add", t.AddUser(upn="smuggled@contoso.example", roles=["global-admin"])),
        ("user.remove", t.RemoveUser(upn="unrecorded-deputy@contoso.example")),
    ]
    for route, request in requests:
        with pytest.raises(Unavailable):
            broken.client(OPERATOR, contoso.id).call(route, request)
    owner = broken.client(tenants.impersonate(contoso.world.services, box.upn))
    with pytest.raises(Unavailable):
        owner.call("mailbox.delete-item", m.NameItem(upn=box.upn, item=item))
    with pytest.raises(Unavailable):
        owner.call("mailbox.delegate", m.DelegateRequest(upn=box.upn, delegate="unrecorded-deputy@contoso.example"))
    box.owner.call("mailbox.delegate", m.DelegateRequest(upn=box.upn, delegate="unrecorded-deputy@contoso.example"))
    with pytest.raises(Unavailable):
        broken.client(tenants.impersonate(contoso.world.services, "unrecorded-deputy@contoso.example")).call(
            "mailbox.read", m.NameItem(upn=box.upn, item=item)
        )
    assert box.statistics() == before
    assert box.read(item) == message(0)
    assert len(contoso.admin.call("user.list", t.ListUsers())) == people
    assert [one.upn for one in contoso.admin.call("mailbox.list", m.ListMailboxes(limit=1000)) if one.upn.startswith("smuggled")] == []


def test_records_are_found_for_as_long_as_they_are_searched_for(contoso: TenantWorld) -> None:
    """R-215: nothing removes them."""
    box = contoso.mailbox("old")
    made = contoso.world.clock.now()
    contoso.world.clock.advance(80 * DAY)
    start, end = utc(made) - timedelta(minutes=1), utc(made) + timedelta(minutes=1)
    found = contoso.admin.call("audit.search", w.SearchAudit(item=box.statistics().id, start=start, end=end))
    assert [one.operation for one in found] == ["New-Mailbox"]


def test_acts_about_no_tenant_are_read_by_the_operator_and_nobody_else(contoso: TenantWorld) -> None:
    """R-206: settings and the key store belong to the installation; its log holds nothing of tenants."""
    contoso.world.operator.call("settings.set", w.SetSetting(name="slice_items", value="1000"))
    found = contoso.world.operator.call("audit.installation", w.SearchAudit(item="slice_items"))
    assert [(one.user_id, parameters(one)["Value"]) for one in found] == [("operator@provider.example", "1000")]
    everything = contoso.world.operator.call("audit.installation", w.SearchAudit(limit=5000))
    assert {one.organization_id for one in everything} == {""}
    with pytest.raises(Forbidden):
        contoso.admin.call("audit.installation", w.SearchAudit())
