"""Mailboxes: kinds, licences, which policy they lie under, and what is said about that (R-004, R-005, R-086 to R-102, R-251, R-252, R-259)."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from keystead.api.types import mailboxes as m
from keystead.api.types import policies as p
from keystead.api.types import tenants as t
from keystead.api.types import vaults as v
from keystead.api.types import watching as w
from keystead.core.errors import Conflict, Forbidden, InvalidRequest, KeyDenied, NotFound, PreconditionFailed
from keystead.core.policies.policy import CopyRole
from keystead.ports.clock import DAY, HOUR
from keystead.ports.keystore import Compartment
from keystead.services.jobs.runner import run_due, run_one
from support.world import OPERATOR, SECOND, World, message

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.world import MailboxWorld, TenantWorld

KINDS: tuple[m.MailboxTypeName, ...] = ("user", "shared", "public-folder", "group", "mail-user")


@pytest.fixture(scope="module")
def contoso(tmp_path_factory: pytest.TempPathFactory, database: str) -> Iterator[TenantWorld]:
    """One tenant for the module; each test makes its own mailboxes, and its own policy where it breaks keys."""
    world = World(tmp_path_factory.mktemp("world"))
    tenant = world.tenant("contoso.example")
    tenant.policy("Mail")
    yield tenant
    world.close()


def rewrapped_only(tenant: TenantWorld, policy: str, box: MailboxWorld) -> None:
    """Run the first half of an assignment, not the move."""
    asked = tenant.assign(policy, box, wait=False)
    job = run_one(tenant.world.services, only=asked.id)
    assert job is not None
    assert job.id == asked.id


def keys_of(box: MailboxWorld) -> dict[int, bytes]:
    """The wrapped keys of a mailbox, by version."""
    services = box.tenant.world.services
    with services.db.read() as tx:
        mailbox = tx.mailboxes.find(box.tenant.id, box.upn)
        assert mailbox is not None
        return {key.version: key.wrapped for key in tx.mailboxes.keys(mailbox.id)}


def finish(tenant: TenantWorld) -> None:
    run_due(tenant.world.services)


# -- kinds and licences ---------------------------------------------------------------------------------------------------------------


def test_every_kind_of_mailbox_takes_a_policy(contoso: TenantWorld) -> None:
    """R-086, R-087, R-095."""
    boxes = [contoso.mailbox(f"kind-{kind}", messages=2, type=kind) for kind in KINDS]
    job = contoso.assign("Mail", *boxes)
    assert job.state == "done"
    shown: p.PolicyView = contoso.admin.call("policy.show", p.NamePolicy(policy="Mail"))
    assert shown.mailboxes is not None
    assert shown.mailboxes >= len(boxes)
    for box in boxes:
        found = box.statistics()
        assert (found.data_encryption_policy_id, found.policy_name, found.is_encrypted) == (shown.version_id, "Mail", True)
        assert box.read_all() == sorted([message(0), message(1)])
    wrapped = [key for box in boxes for key in keys_of(box).values()]
    assert len(wrapped) == len(boxes), "after the move each has exactly one key"
    assert len(set(wrapped)) == len(boxes)


@pytest.mark.parametrize("kind", ["user", "mail-user"])
def test_a_user_without_licence_takes_no_policy(contoso: TenantWorld, kind: m.MailboxTypeName) -> None:
    """R-004."""
    box = contoso.mailbox(f"unlicensed-{kind}", messages=1, type=kind, licensed=False)
    licensed = contoso.mailbox(f"beside-{kind}")
    with pytest.raises(PreconditionFailed) as caught:
        contoso.assign("Mail", licensed, box)
    assert caught.value.code == "mailbox_unlicensed"
    assert box.upn in caught.value.detail
    assert box.statistics().assigned is None
    assert licensed.statistics().assigned is None, "all or none"


@pytest.mark.parametrize("kind", ["shared", "public-folder", "group"])
def test_other_kinds_need_no_licence_of_their_own(contoso: TenantWorld, kind: m.MailboxTypeName) -> None:
    """R-005."""
    contoso.mailbox(f"licensed-for-{kind}")
    box = contoso.mailbox(f"free-{kind}", messages=1, type=kind, licensed=False)
    assert contoso.assign("Mail", box).state == "done"
    assert box.statistics().is_encrypted


def test_a_tenant_without_licensed_users_gets_no_policy_on_shared_mailboxes(contoso: TenantWorld) -> None:
    """R-005."""
    fabrikam = contoso.world.tenant("fabrikam.example")
    fabrikam.policy("Mail")
    user = fabrikam.mailbox("user", licensed=False)
    shared = fabrikam.mailbox("info", type="shared", licensed=False)
    with pytest.raises(PreconditionFailed) as caught:
        fabrikam.assign("Mail", shared)
    assert caught.value.code == "tenant_unlicensed"
    everybody: m.AssignmentView = fabrikam.admin.call("mailbox.assign", m.AssignPolicy(policy="Mail", all=True))
    assert (everybody.mailboxes, sorted(everybody.skipped)) == (0, sorted([user.upn, shared.upn]))
    licensed = fabrikam.mailbox("licensed")
    everybody = fabrikam.admin.call("mailbox.assign", m.AssignPolicy(policy="Mail", all=True))
    assert (everybody.mailboxes, everybody.skipped) == (2, [user.upn])
    assert fabrikam.admin.wait(everybody.job_id).state == "done"
    assert shared.statistics().is_encrypted
    assert licensed.statistics().is_encrypted
    assert not user.statistics().is_encrypted


def test_all_mailboxes_at_once_leave_out_those_that_are_there(contoso: TenantWorld) -> None:
    """R-087."""
    tailspin = contoso.world.tenant("tailspin.example")
    tailspin.policy("Mail")
    boxes = [tailspin.mailbox(f"box{index}", messages=1) for index in range(3)]
    tailspin.assign("Mail", boxes[0])
    first: m.AssignmentView = tailspin.admin.call("mailbox.assign", m.AssignPolicy(policy="Mail", all=True))
    assert first.mailboxes == 2
    assert tailspin.admin.wait(first.job_id).state == "done"
    again: m.AssignmentView = tailspin.admin.call("mailbox.assign", m.AssignPolicy(policy="Mail", all=True))
    assert again.mailboxes == 0
    assert all(box.statistics().is_encrypted for box in boxes)


def test_assign_wants_names_or_all_and_not_both(contoso: TenantWorld) -> None:
    for request in (m.AssignPolicy(policy="Mail"), m.AssignPolicy(policy="Mail", upns=["a@contoso.example"], all=True)):
        with pytest.raises(InvalidRequest) as caught:
            contoso.admin.call("mailbox.assign", request)
        assert caught.value.code == "assign_what"


# -- the two halves -------------------------------------------------------------------------------------------------------------------


def test_statistics_tell_the_policy_and_encrypted_only_at_the_end(contoso: TenantWorld) -> None:
    """R-088, R-091, R-092."""
    box = contoso.mailbox("halves", messages=3)
    before = box.statistics()
    assert (before.data_encryption_policy_id, before.policy_name, before.is_encrypted, before.move_state) == (None, None, False, "none")
    assert (before.item_count, before.size_bytes) == (3, sum(len(message(index)) for index in range(3)))
    asked = contoso.assign("Mail", box, wait=False)
    queued = box.statistics()
    assert (queued.data_encryption_policy_id, queued.is_encrypted, queued.move_state, queued.progress_percent) == (
        None,
        False,
        "queued",
        0.0,
    )
    run_one(contoso.world.services, only=asked.id)
    between = box.statistics()
    version: p.PolicyView = contoso.admin.call("policy.show", p.NamePolicy(policy="Mail"))
    assert (between.data_encryption_policy_id, between.is_encrypted, between.move_state) == (version.version_id, False, "queued")
    assert contoso.admin.wait(asked.id).state == "done"
    after = box.statistics()
    assert (after.is_encrypted, after.move_state, after.progress_percent) == (True, "done", 100.0)
    assert (after.item_count, after.size_bytes) == (before.item_count, before.size_bytes)


def test_the_new_keys_decide_from_the_rewrap_on_and_content_is_not_touched_by_it(contoso: TenantWorld) -> None:
    """R-089."""
    contoso.policy("Old-089", keys=contoso.own_keys("old-089"))
    contoso.policy("New-089", keys=contoso.own_keys("new-089"))
    box = contoso.mailbox("rewrap", messages=4)
    contoso.assign("Old-089", box)
    finish(contoso)
    stored = contoso.world.objects()
    rewrapped_only(contoso, "New-089", box)
    assert contoso.world.objects() == stored, "a re-wrap writes no content"
    assert not box.statistics().is_encrypted
    contoso.close_keys("old-089")
    assert box.read_all() == sorted(message(index) for index in range(4)), "the old policy's keys do not matter any more"
    contoso.close_keys("new-089")
    with pytest.raises(KeyDenied):
        box.items()
    assert not box.statistics().is_encrypted
    contoso.open_keys("new-089")
    finish(contoso)
    assert box.statistics().is_encrypted
    assert box.read_all() == sorted(message(index) for index in range(4))


def test_another_policy_later_takes_the_content_along(contoso: TenantWorld) -> None:
    """R-098."""
    contoso.policy("First-098", keys=contoso.own_keys("first-098"))
    contoso.policy("Second-098", keys=contoso.own_keys("second-098"))
    box = contoso.mailbox("twice", messages=3)
    contoso.assign("First-098", box)
    first_keys = keys_of(box)
    contoso.assign("Second-098", box)
    assert box.statistics().policy_name == "Second-098"
    assert box.statistics().is_encrypted
    assert set(keys_of(box)).isdisjoint(first_keys), "content lies under a fresh key"
    contoso.close_keys("first-098")
    assert box.read_all() == sorted(message(index) for index in range(3))
    contoso.close_keys("second-098")
    with pytest.raises(KeyDenied):
        box.items()


def test_mail_for_a_user_who_is_still_elsewhere_is_encrypted_on_arrival(contoso: TenantWorld) -> None:
    """R-090."""
    contoso.policy("Arrival", keys=contoso.own_keys("arrival"))
    box = contoso.mailbox("arriving", type="mail-user")
    contoso.assign("Arrival", box)
    assert box.statistics().is_encrypted
    box.add(message(1), message(2))
    found = box.statistics()
    assert (found.is_encrypted, found.move_state, found.item_count) == (True, "done", 2), "nothing has to be moved"
    contoso.close_keys("arrival")
    with pytest.raises(KeyDenied):
        box.items()


def test_a_mailbox_emptied_before_the_change_keeps_working_after_it(contoso: TenantWorld) -> None:
    """R-089."""
    box = contoso.mailbox("emptied", messages=1)
    box.owner.call("mailbox.delete-item", m.NameItem(upn=box.upn, item=box.items()[0].id))
    assert contoso.assign("Mail", box).state == "done"
    box.add(message(7), folder="Inbox")
    assert [item.folder for item in box.items()] == ["Inbox"]
    contoso.policy("Then", keys=contoso.keys)
    assert contoso.assign("Then", box).state == "done"
    assert box.read_all() == [message(7)]
    assert [item.folder for item in box.items()] == ["Inbox"]


def test_a_disabled_policy_is_not_assigned(contoso: TenantWorld) -> None:
    """R-094."""
    contoso.policy("Disabled", enabled=False)
    box = contoso.mailbox("wants-disabled")
    with pytest.raises(PreconditionFailed) as caught:
        contoso.assign("Disabled", box)
    assert caught.value.code == "policy_disabled"
    assert "Disabled" in caught.value.detail
    contoso.admin.call("policy.enable", p.NamePolicy(policy="Disabled"))
    assert contoso.assign("Disabled", box).state == "done"


def test_a_policy_whose_own_keys_do_not_open_takes_no_mailboxes(contoso: TenantWorld) -> None:
    contoso.policy("Dead-target", keys=contoso.own_keys("dead-target"))
    box = contoso.mailbox("not-there", messages=1)
    contoso.close_keys("dead-target")
    job = contoso.assign("Dead-target", box)
    assert job.stuck
    assert "target_keys_unusable" in job.error
    assert box.read_all() == [message(0)]
    contoso.open_keys("dead-target")
    contoso.world.clock.advance(HOUR)
    finish(contoso)
    assert box.statistics().is_encrypted


# -- back to the provider's keys ------------------------------------------------------------------------------------------------------


def test_unassigning_brings_a_mailbox_back_under_the_providers_keys(contoso: TenantWorld) -> None:
    """R-099, R-101, R-252."""
    contoso.policy("Leaving", keys=contoso.own_keys("leaving"))
    box = contoso.mailbox("leaving", messages=3)
    contoso.assign("Leaving", box)
    asked: m.AssignmentView = contoso.admin.call("mailbox.unassign", m.UnassignPolicy(upn=box.upn))
    assert contoso.admin.wait(asked.job_id).state == "done"
    found = box.statistics()
    assert (found.data_encryption_policy_id, found.policy_name, found.is_encrypted, found.move_state) == (None, None, False, "done")
    contoso.close_keys("leaving")
    assert box.read_all() == sorted(message(index) for index in range(3)), "offboarding destroys nothing"
    assert contoso.world.files_holding(b"This is the body of message") == [], "the provider's keys are the floor"


def test_the_providers_default_policy_cannot_be_unassigned(contoso: TenantWorld) -> None:
    """R-100."""
    box = contoso.mailbox("default", messages=1)
    for _again in range(2):
        with pytest.raises(PreconditionFailed) as caught:
            contoso.admin.call("mailbox.unassign", m.UnassignPolicy(upn=box.upn))
        assert caught.value.code == "provider_policy_stays"
    contoso.assign("Mail", box, wait=False)
    cancelled: m.AssignmentView = contoso.admin.call("mailbox.unassign", m.UnassignPolicy(upn=box.upn))
    assert contoso.admin.wait(cancelled.job_id).state == "done", "what only waits for a policy may be called back"
    finish(contoso)
    assert box.statistics().policy_name is None
    assert box.read_all() == [message(0)]


def test_unassigning_with_the_keys_denied_waits_and_says_so(contoso: TenantWorld) -> None:
    """R-102."""
    contoso.policy("Denied-102", keys=contoso.own_keys("denied-102"))
    box = contoso.mailbox("denied", messages=2)
    contoso.assign("Denied-102", box)
    before = keys_of(box)
    contoso.close_keys("denied-102")
    asked: m.AssignmentView = contoso.admin.call("mailbox.unassign", m.UnassignPolicy(upn=box.upn))
    job = contoso.admin.wait(asked.job_id)
    assert (job.state, job.stuck) == ("queued", True)
    assert "old_keys_needed" in job.error
    assert "Denied-102" in job.error
    assert keys_of(box) == before, "the availability key never brings content to the provider's keys"
    assert box.statistics().policy_name == "Denied-102"
    alerts: list[w.AlertView] = contoso.admin.call("alerts.list", w.ListAlerts())
    assert any(alert.kind == "job-failing" and alert.subject_id == asked.job_id and alert.resolved is None for alert in alerts)
    with pytest.raises(KeyDenied):
        box.items()
    contoso.open_keys("denied-102")
    contoso.world.clock.advance(HOUR)
    assert contoso.admin.wait(asked.job_id).state == "done"
    assert box.statistics().policy_name is None
    assert box.read_all() == sorted([message(0), message(1)])
    alerts = contoso.admin.call("alerts.list", w.ListAlerts())
    assert all(alert.resolved is not None for alert in alerts if alert.subject_id == asked.job_id)


def test_lost_keys_are_recovered_onto_another_customer_policy(contoso: TenantWorld) -> None:
    """R-150."""
    contoso.policy("Lost", keys=contoso.own_keys("lost"))
    contoso.policy("Rescue", keys=contoso.own_keys("rescue"))
    box = contoso.mailbox("lost", messages=2)
    contoso.assign("Lost", box)
    contoso.close_keys("lost")
    assert contoso.assign("Rescue", box).state == "done"
    assert box.read_all() == sorted([message(0), message(1)])
    assert any(one.object_id for one in contoso.audit("Fallback to Availability Key"))


def test_after_the_availability_key_is_destroyed_nothing_moves_or_reads(contoso: TenantWorld) -> None:
    """R-151."""
    services = contoso.world.services
    policy = contoso.policy("Shredded", keys=contoso.own_keys("shredded"))
    contoso.policy("Too-late", keys=contoso.own_keys("too-late"))
    box = contoso.mailbox("shredded", messages=1)
    contoso.assign("Shredded", box)
    with services.db.read() as tx:
        found = tx.policies.by_id(policy.id)
        copies = {copy.role: copy for copy in tx.policies.copies(policy.version_id)}
    assert found is not None
    assert CopyRole.AVAILABILITY in copies
    services.keystore.destroy(Compartment.AVAILABILITY_MAIL, [found.availability_key_id])
    contoso.close_keys("shredded")
    job = contoso.assign("Too-late", box)
    assert "availability_key_destroyed" in job.error
    with pytest.raises(KeyDenied):
        box.items()
    assert box.statistics().policy_name == "Shredded"


# -- how long it takes ----------------------------------------------------------------------------------------------------------------


def test_a_change_that_is_not_done_after_72_hours_is_flagged_and_after_7_days_escalated(contoso: TenantWorld) -> None:
    """R-093."""
    box = contoso.mailbox("slow", messages=1)
    asked = contoso.assign("Mail", box, wait=False)

    def seen() -> tuple[bool, bool, str | None, str | None, set[str]]:
        status: m.MoveStatus = contoso.admin.call("mailbox.move-status", m.NameMailbox(upn=box.upn))
        alerts: list[w.AlertView] = contoso.admin.call("alerts.list", w.ListAlerts())
        kinds = {alert.kind for alert in alerts if alert.subject_id == box.statistics().id}
        return status.overdue, status.escalated, status.advice, box.statistics().advice, kinds

    contoso.world.clock.advance(72 * HOUR)
    assert seen() == (False, False, None, None, set())
    contoso.world.clock.advance(SECOND)
    overdue, escalated, advice, statistics_advice, kinds = seen()
    assert (overdue, escalated, kinds) == (True, False, {"move-overdue"})
    assert advice == statistics_advice
    assert advice is not None
    assert "contact" in advice
    assert "support" in advice
    contoso.world.clock.advance(4 * DAY)
    overdue, escalated, advice, _same, kinds = seen()
    assert (overdue, escalated, kinds) == (True, True, {"move-escalated"})
    assert advice is not None
    assert "escalate" in advice
    contoso.admin.wait(asked.id)
    assert seen() == (False, False, None, None, set())


def test_both_times_are_settings(contoso: TenantWorld) -> None:
    """R-093."""
    strict = contoso.world.process("strict", settings=replace(contoso.world.settings, move_warning=SECOND, move_escalation=5 * SECOND))
    box = contoso.mailbox("strict", messages=1)
    contoso.assign("Mail", box, wait=False)
    client = strict.client(OPERATOR, contoso.id)
    contoso.world.clock.advance(2 * SECOND)
    status: m.MoveStatus = client.call("mailbox.move-status", m.NameMailbox(upn=box.upn))
    assert (status.overdue, status.escalated) == (True, False)
    contoso.world.clock.advance(4 * SECOND)
    status = client.call("mailbox.move-status", m.NameMailbox(upn=box.upn))
    assert (status.overdue, status.escalated) == (True, True)
    finish(contoso)


# -- nothing in clear -----------------------------------------------------------------------------------------------------------------

CALENDAR = (
    b"BEGIN:VCALENDAR\r\nVERSION:2.0\r\nBEGIN:VEVENT\r\nUID:1@contoso.example\r\nDTSTART:20260601T100000Z\r\n"
    b"SUMMARY:Zanzibar-summit\r\nEND:VEVENT\r\nEND:VCALENDAR\r\n"
)
ATTACHED = (
    b"From: Wolfgang-correspondent <quill@fabrikam.example>\r\nTo: someone@contoso.example\r\nSubject: Xylophone-subject\r\n"
    b"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\nContent-Type: text/plain\r\n\r\nMarmalade-body\r\n--b\r\n"
    b"Content-Type: text/plain; name=Periwinkle-name.txt\r\nContent-Disposition: attachment\r\n\r\nKumquat-attachment\r\n--b--\r\n"
)
SECRETS = (
    b"Zanzibar-summit",
    b"Wolfgang-correspondent",
    b"quill@fabrikam.example",
    b"Xylophone-subject",
    b"Marmalade-body",
    b"Periwinkle-name",
    b"Kumquat-attachment",
    b"Nightingale-folder",
    b"Obsidian-large",
)


def test_no_file_of_the_home_ever_holds_content(contoso: TenantWorld) -> None:
    """R-096, R-097, R-251."""
    world = contoso.world
    steps: list[str] = []

    def look(step: str) -> None:
        steps.append(step)
        assert world.files_holding(*SECRETS) == [], step

    watched = world.process("watched", checkpoint=look)
    admin = watched.client(OPERATOR, contoso.id)
    contoso.policy("Grep-1", keys=contoso.own_keys("grep-1"))
    contoso.policy("Grep-2", keys=contoso.own_keys("grep-2"))
    box = contoso.mailbox("grep")
    items = [
        m.ImportItem(position=1, ordinal=1, folder="Nightingale-folder", data=CALENDAR, ics=True),
        m.ImportItem(position=2, ordinal=1, folder="Nightingale-folder", data=ATTACHED),
    ]
    admin.call("mailbox.import", m.ImportBatch(upn=box.upn, items=items))
    look("imported")
    box.add_large(message(9, body="Obsidian-large ", size=1024 * 1024), folder="Nightingale-folder")
    look("large imported")
    hits: list[m.Hit] = contoso.admin.call("mailbox.search", m.Search(upn=box.upn, text="Zanzibar-summit"))
    assert len(hits) == 1
    look("searched")
    before = box.read_all()
    for request in ("Grep-1", "Grep-2", None):
        if request is None:
            asked: m.AssignmentView = admin.call("mailbox.unassign", m.UnassignPolicy(upn=box.upn))
        else:
            asked = admin.call("mailbox.assign", m.AssignPolicy(policy=request, upns=[box.upn]))
        look(f"{request}: asked")
        while (job := run_one(watched.services, only=asked.job_id)) is not None:
            look(f"{request}: {job.kind} {job.state}")
        assert box.read_all() == before
        look(f"{request}: done and read")
    world.clock.advance(2 * HOUR)
    run_due(watched.services)
    look("cleaned")
    assert {"import: objects stored", "re-wrap: policies opened", "move: new objects stored", "clean: objects deleted"} <= set(steps)
    kinds = sorted(item.kind for item in box.items())
    assert kinds == ["calendar", "message", "message"]


# -- search -------------------------------------------------------------------------------------------------------------------------


def test_a_search_goes_on_while_the_keys_are_denied_and_gives_ids_only(contoso: TenantWorld) -> None:
    """R-146, R-259."""
    contoso.policy("Search", keys=contoso.own_keys("search"))
    box = contoso.mailbox("searched")
    box.add(message(1, body="the word is Heliotrope"), message(2, body="no such word"))
    contoso.assign("Search", box)
    wanted = next(item.id for item in box.items() if item.subject == "Message 1")
    contoso.close_keys("search")
    fallbacks = len(contoso.audit("Fallback to Availability Key"))
    hits: list[m.Hit] = contoso.admin.call("mailbox.search", m.Search(upn=box.upn, text="heliotrope"))
    assert [hit.item_id for hit in hits] == [wanted]
    assert {"subject", "sender", "folder"}.isdisjoint(m.Hit.__struct_fields__)
    assert len(contoso.audit("Fallback to Availability Key")) == fallbacks + 1
    with pytest.raises(KeyDenied):
        box.read(wanted)
    assert contoso.world.files_holding(b"eliotrope") == [], "the text searched for is stored nowhere"


# -- names that are not there -----------------------------------------------------------------------------------------------------------


def test_what_does_not_exist_is_named(contoso: TenantWorld) -> None:
    contoso.mailbox("exists", messages=1)
    missing = "nobody@contoso.example"
    here = "exists@contoso.example"
    cases: list[tuple[str, object, str]] = [
        ("mailbox.statistics", m.NameMailbox(upn=missing), missing),
        ("mailbox.move-status", m.NameMailbox(upn=missing), missing),
        ("mailbox.delete", m.NameMailbox(upn=missing), missing),
        ("mailbox.unassign", m.UnassignPolicy(upn=missing), missing),
        ("mailbox.items", m.ListItems(upn=missing), missing),
        ("mailbox.import", m.ImportBatch(upn=missing, items=[]), missing),
        ("mailbox.search", m.Search(upn=missing, text="x"), missing),
        ("mailbox.read", m.NameItem(upn=missing, item="no-item"), missing),
        ("mailbox.assign", m.AssignPolicy(policy="Mail", upns=[missing]), missing),
        ("mailbox.assign", m.AssignPolicy(policy="No-Policy", upns=[here]), "No-Policy"),
        ("mailbox.delegate", m.DelegateRequest(upn=missing, delegate=here), missing),
        ("policy.show", p.NamePolicy(policy="No-Policy"), "No-Policy"),
        ("user.remove", t.RemoveUser(upn=missing), missing),
        ("vault.show", v.VaultNamed(vault="no-vault"), "no-vault"),
        ("key.show", v.KeyVersionNamed(vault="contosov1", name="no-key"), "no-key"),
        ("job.show", w.NameJob(job="no-job"), "no-job"),
        ("job.cancel", w.NameJob(job="no-job"), "no-job"),
    ]
    for route, request, name in cases:
        with pytest.raises(NotFound) as caught:
            contoso.admin.call(route, request)
        assert name in caught.value.detail, route
    owner = contoso.world.as_person(here)
    for route in ("mailbox.read", "mailbox.delete-item"):
        with pytest.raises(NotFound) as caught:
            owner.call(route, m.NameItem(upn=here, item="no-item"))
        assert "no-item" in caught.value.detail
    with pytest.raises(NotFound) as caught:
        contoso.world.client(OPERATOR, "nowhere.example").call("mailbox.list", m.ListMailboxes())
    assert "nowhere.example" in caught.value.detail
    with pytest.raises(NotFound) as caught:
        contoso.world.as_person(missing)
    assert missing in caught.value.detail


# -- making and listing ---------------------------------------------------------------------------------------------------------------


def test_a_mailbox_is_made_once_in_its_own_domain_by_those_who_may(contoso: TenantWorld) -> None:
    contoso.mailbox("once")
    with pytest.raises(Conflict) as caught:
        contoso.mailbox("ONCE")
    assert caught.value.code == "mailbox_exists"
    with pytest.raises(InvalidRequest) as wrong:
        contoso.world.client(OPERATOR, contoso.id).call("mailbox.create", m.CreateMailbox(upn="alex@elsewhere.example"))
    assert wrong.value.code == "upn_of_another_domain"
    with pytest.raises(Forbidden):
        contoso.person("plain", "user").call("mailbox.create", m.CreateMailbox(upn="plain2@contoso.example"))
    exchange = contoso.person("exchange", "exchange-admin")
    made: m.MailboxView = exchange.call("mailbox.create", m.CreateMailbox(upn="byexchange@contoso.example", type="shared"))
    assert (made.type, made.policy_name) == ("shared", None)


def test_listing_pages_by_name(contoso: TenantWorld) -> None:
    for index in range(5):
        contoso.mailbox(f"zz-page-{index}")
    seen: list[str] = []
    after = "zz-page-"
    while page := contoso.admin.call("mailbox.list", m.ListMailboxes(after=after, limit=2)):
        assert len(page) <= 2
        seen += [one.upn for one in page]
        after = page[-1].upn
    assert seen == [f"zz-page-{index}@contoso.example" for index in range(5)]


def test_deleting_a_mailbox_takes_its_keys_at_once_and_its_objects_soon(contoso: TenantWorld) -> None:
    world = contoso.world
    others = world.objects()
    box = contoso.mailbox("deleted", messages=3)
    its_own = world.objects() - others
    assert len(its_own) == 1
    with world.services.db.read() as tx:
        mailbox = tx.mailboxes.find(contoso.id, box.upn)
    assert mailbox is not None
    contoso.admin.call("mailbox.delete", m.NameMailbox(upn=box.upn))
    with world.services.db.read() as tx:
        assert tx.mailboxes.keys(mailbox.id) == []
        assert tx.mailboxes.items(mailbox.id, after="", limit=10) == []
    with pytest.raises(NotFound):
        box.items()
    finish(contoso)
    assert its_own.isdisjoint(world.objects())
    assert any(one.object_id == mailbox.id for one in contoso.audit("Remove-Mailbox"))
    again = contoso.mailbox("deleted")
    assert again.items() == [], "a new mailbox of that name starts empty"
