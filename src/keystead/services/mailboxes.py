"""Mailboxes: making them, who may open them, and which policy they lie under (R-004, R-005, R-086 to R-102)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from keystead.api.types.base import utc, utc_or_none
from keystead.api.types.mailboxes import AssignmentView, DelegateView, MailboxStatistics, MailboxView, MoveStatus
from keystead.api.types.tenants import Done
from keystead.core.access.principal import Role
from keystead.core.errors import Forbidden, InvalidRequest, NotFound, PreconditionFailed
from keystead.core.ids import new_id, user_principal_name
from keystead.core.keys.decide import Operation
from keystead.core.policies.policy import Policy, Workload
from keystead.core.stores.mailbox import MOVE_AT_REST, NEEDS_LICENCE, Mailbox, MailboxKey, MailboxType, MoveState
from keystead.services.auditing import record
from keystead.services.jobs.rows import new_job
from keystead.services.policies import find_policy
from keystead.services.tenants import ensure_person

if TYPE_CHECKING:
    from collections.abc import Sequence

    from keystead.api.call import Call
    from keystead.api.types import mailboxes as t
    from keystead.ports.tx import Tx
    from keystead.services.context import Services

CHANGE_HIERARCHY = "change-hierarchy"
CAPABILITY = "BPOS_S_EquivioAnalytics"
"""The licence capability of R-004."""

ADMINS = frozenset({Role.GLOBAL_ADMIN, Role.EXCHANGE_ADMIN, Role.OPERATOR})


def create_mailbox(services: Services, call: Call, request: t.CreateMailbox) -> MailboxView:
    """Make a mailbox with a key of its own under the provider's default policy (R-095, R-251), and its person where there is none."""
    upn = user_principal_name(request.upn)
    kind = MailboxType(request.type)
    with services.db.read() as tx:
        provider = tx.policies.provider(call.tenant_id)
    opened = services.keyring.open(provider.id, Operation.SYSTEM, request_id=call.request_id)
    mailbox = Mailbox(
        id=new_id(services.random),
        tenant_id=call.tenant_id,
        upn=upn,
        type=kind,
        licensed=request.licensed,
        created=services.clock.now(),
        policy_id=provider.id,
        pending_policy_id=None,
        key_version=1,
        move_state=MoveState.NONE,
        assigned_at=None,
        moved_at=None,
        moved_items=0,
        item_count=0,
        size_bytes=0,
    )
    wrapped = opened.new_mailbox_key(mailbox.id, 1, services.random)
    with services.db.write() as tx:
        claim = ensure_person(services, tx, call, upn)
        tx.mailboxes.insert(mailbox, MailboxKey(mailbox.id, 1, wrapped))
        record(services, tx, call, mailbox.id, (("Name", upn), ("Type", kind.value), ("Licensed", str(request.licensed))))
    return _view(mailbox, None, claim)


def list_mailboxes(services: Services, call: Call, request: t.ListMailboxes) -> list[MailboxView]:
    """Mailboxes of the tenant by UPN."""
    with services.db.read() as tx:
        names = _policy_names(tx, call.tenant_id)
        page = tx.mailboxes.page(call.tenant_id, after=request.after.lower(), limit=request.limit)
    return [_view(mailbox, names.get(mailbox.policy_id)) for mailbox in page]


def statistics(services: Services, call: Call, request: t.NameMailbox) -> MailboxStatistics:
    """What lies under which policy, and whether it is done (R-091 to R-093)."""
    with services.db.read() as tx:
        mailbox = find_mailbox(tx, call, request.upn)
        require_owner_or(call, mailbox, ADMINS | {Role.COMPLIANCE_ADMIN, Role.AUDIT_READER}, tx)
        policy = tx.policies.by_id(mailbox.policy_id)
        percent, _items, _bytes = _progress(tx, mailbox)
    customer = policy if policy is not None and policy.workload is not Workload.PROVIDER else None
    return MailboxStatistics(
        id=mailbox.id,
        upn=mailbox.upn,
        type=mailbox.type.value,
        licensed=mailbox.licensed,
        data_encryption_policy_id=customer.version_id if customer else None,
        policy_name=customer.name if customer else None,
        is_encrypted=_is_encrypted(mailbox, policy),
        move_state=mailbox.move_state.value,
        progress_percent=percent,
        item_count=mailbox.item_count,
        size_bytes=mailbox.size_bytes,
        assigned=utc_or_none(mailbox.assigned_at),
        advice=_advice(services, mailbox),
    )


def assign(services: Services, call: Call, request: t.AssignPolicy) -> AssignmentView:
    """Put mailboxes under a policy: intent, record and job in one transaction; the job re-wraps and moves (R-086 to R-089, R-098)."""
    if bool(request.upns) == request.all:
        raise InvalidRequest("assign_what", "either name mailboxes or say all of them", "give UPNs, or --all")
    with services.db.write() as tx:
        policy = find_policy(tx, call, request.policy)
        if not policy.enabled:
            raise PreconditionFailed(
                "policy_disabled", f"the policy {policy.name} is disabled and cannot be assigned", f"keystead policy enable {policy.name}"
            )
        if request.all:
            changed, skipped = _ask_all(services, tx, call, policy)
            return _asked(services, tx, call, policy, changed, ["*"], skipped)
        chosen = [_require_licence(tx, call, find_mailbox(tx, call, upn)) for upn in request.upns]
        changed = tx.mailboxes.ask_hierarchy(call.tenant_id, [mailbox.id for mailbox in chosen], policy.id, services.clock.now())
        return _asked(services, tx, call, policy, changed, request.upns, [])


def unassign(services: Services, call: Call, request: t.UnassignPolicy) -> AssignmentView:
    """Put a mailbox back under the provider's keys (R-099 to R-102).

    The customer's old keys must stay usable until the re-wrap is done; while they are not, the job says so and waits.
    """
    with services.db.write() as tx:
        mailbox = find_mailbox(tx, call, request.upn)
        provider = tx.policies.provider(call.tenant_id)
        if provider.id in {mailbox.policy_id, mailbox.pending_policy_id} and mailbox.pending_policy_id in {None, provider.id}:
            raise PreconditionFailed(
                "provider_policy_stays",
                f"{mailbox.upn} lies under the provider's default policy, which cannot be unassigned",
                "assign another policy with keystead mailbox assign",
            )
        changed = tx.mailboxes.ask_hierarchy(call.tenant_id, [mailbox.id], provider.id, services.clock.now())
        return _asked(services, tx, call, provider, changed, [mailbox.upn], [])


def move_status(services: Services, call: Call, request: t.NameMailbox) -> MoveStatus:
    """Where a mailbox's change of hierarchy stands; flagged after 72 hours, escalated after 7 days (R-093, conflict C3)."""
    with services.db.read() as tx:
        mailbox = find_mailbox(tx, call, request.upn)
        require_owner_or(call, mailbox, ADMINS | {Role.COMPLIANCE_ADMIN, Role.AUDIT_READER}, tx)
        percent, items_left, bytes_left = _progress(tx, mailbox)
    age = _move_age(services, mailbox)
    return MoveStatus(
        upn=mailbox.upn,
        state=mailbox.move_state.value,
        assigned=utc_or_none(mailbox.assigned_at),
        completed=utc_or_none(mailbox.moved_at),
        progress_percent=percent,
        items_left=items_left,
        bytes_left=bytes_left,
        overdue=age > services.settings.move_warning,
        escalated=age > services.settings.move_escalation,
        advice=_advice(services, mailbox),
    )


def delete_mailbox(services: Services, call: Call, request: t.NameMailbox) -> Done:
    """Delete a mailbox: its keys and rows go in this transaction, which makes its objects worthless; a job removes them."""
    with services.db.write() as tx:
        mailbox = find_mailbox(tx, call, request.upn)
        tx.mailboxes.delete(call.tenant_id, mailbox.id)
        tx.jobs.insert([new_job(services, call.tenant_id, "clean", mailbox.id, priority=8)])
        record(services, tx, call, mailbox.id, (("Identity", mailbox.upn), ("Items", str(mailbox.item_count))))
    return Done(id=mailbox.id)


def delegate(services: Services, call: Call, request: t.DelegateRequest) -> DelegateView:
    """Give or take a person's access to a mailbox: by its owner, or for the shared kinds by an administrator."""
    name = user_principal_name(request.delegate)
    with services.db.write() as tx:
        mailbox = find_mailbox(tx, call, request.upn)
        roles = ADMINS if mailbox.type not in NEEDS_LICENCE else frozenset()
        require_owner_or(call, mailbox, roles, None)
        person = tx.tenants.person(name)
        if person is None or person.tenant_id != call.tenant_id:
            raise NotFound("user_not_found", f"the tenant has no person {name}", "keystead user list shows them")
        if request.remove:
            if not tx.mailboxes.remove_delegate(mailbox.id, name):
                raise NotFound("delegate_not_found", f"{name} has no access to {mailbox.upn}", "nothing needs to be done")
        else:
            tx.mailboxes.add_delegate(mailbox.id, name)
        record(
            services,
            tx,
            call,
            mailbox.id,
            (("Identity", mailbox.upn), ("User", name), ("AccessRights", "None" if request.remove else "FullAccess")),
            operation="Remove-MailboxPermission" if request.remove else "",
        )
        return DelegateView(upn=mailbox.upn, delegates=tx.mailboxes.delegates(mailbox.id))


# -- for other services -------------------------------------------------------------------------------------------------------------


def find_mailbox(tx: Tx, call: Call, upn: str) -> Mailbox:
    """A mailbox of the tenant.

    Raises:
        NotFound: none of that UPN.
    """
    mailbox = tx.mailboxes.find(call.tenant_id, upn.lower())
    if mailbox is None:
        raise NotFound("mailbox_not_found", f"the tenant has no mailbox {upn}", "keystead mailbox list shows its mailboxes")
    return mailbox


def require_owner_or(call: Call, mailbox: Mailbox, roles: frozenset[Role], tx: Tx | None) -> bool:
    """Let the owner pass, a delegate when `tx` is given to look them up, and holders of the roles. Returns whether it is the owner.

    Raises:
        Forbidden: anybody else.
    """
    if call.principal.upn == mailbox.upn:
        return True
    if not call.principal.roles.isdisjoint(roles):
        return False
    if tx is not None and call.principal.upn in tx.mailboxes.delegates(mailbox.id):
        return False
    raise Forbidden(
        "not_the_owner", f"{call.principal.upn} is not the owner of {mailbox.upn}", "the owner may give access: keystead mailbox delegate"
    )


def _require_licence(tx: Tx, call: Call, mailbox: Mailbox) -> Mailbox:
    """R-004 and R-005.

    Raises:
        PreconditionFailed: the mailbox, or for the shared kinds the tenant, lacks the licence.
    """
    if mailbox.type in NEEDS_LICENCE:
        if not mailbox.licensed:
            raise PreconditionFailed(
                "mailbox_unlicensed", f"{mailbox.upn} lacks the licence capability {CAPABILITY}", "license its user, then assign again"
            )
        return mailbox
    if not _shared_may(tx, call):
        raise PreconditionFailed(
            "tenant_unlicensed",
            f"{mailbox.upn} is a {mailbox.type} mailbox, and no user of the tenant is licensed",
            "license the tenant's users",
        )
    return mailbox


def _shared_may(tx: Tx, call: Call) -> bool:
    """The tenant meets the licence rule when it has licensed users, or no users at all."""
    users, licensed = tx.mailboxes.licensed_users(call.tenant_id)
    return licensed > 0 or users == 0


def _ask_all(services: Services, tx: Tx, call: Call, policy: Policy) -> tuple[int, list[str]]:
    """Put all mailboxes of the tenant that may have a policy under it; how many that were, and the UPNs of those that may not."""
    users, licensed = tx.mailboxes.licensed_users(call.tenant_id)
    now = services.clock.now()
    if users == licensed:
        return tx.mailboxes.ask_hierarchy(call.tenant_id, None, policy.id, now), []
    shared = _shared_may(tx, call)
    changed = 0
    skipped: list[str] = []
    after = ""
    while page := tx.mailboxes.page(call.tenant_id, after=after, limit=1_000):  # nothing of a page is kept: there may be a thousand of them
        after = page[-1].upn
        chosen: list[str] = []
        for mailbox in page:
            may = mailbox.licensed if mailbox.type in NEEDS_LICENCE else shared
            if not may:
                skipped.append(mailbox.upn)
            elif policy.id != (mailbox.pending_policy_id or mailbox.policy_id):
                chosen.append(mailbox.id)
        changed += tx.mailboxes.ask_hierarchy(call.tenant_id, chosen, policy.id, now)
    return changed, skipped


def _asked(
    services: Services, tx: Tx, call: Call, policy: Policy, changed: int, names: Sequence[str], skipped: list[str]
) -> AssignmentView:
    """The job and the record of a change of hierarchy that was just asked for."""
    job = new_job(services, call.tenant_id, CHANGE_HIERARCHY, policy.id, parameters={"policy_id": policy.id}, total=changed)
    tx.jobs.insert([job])
    target = "" if policy.workload is Workload.PROVIDER else policy.id
    record(services, tx, call, ",".join(names[:10]), (("DataEncryptionPolicy", target), ("Mailboxes", str(changed)), ("Job", job.id)))
    return AssignmentView(policy_id=policy.id, policy_name=policy.name, mailboxes=changed, job_id=job.id, skipped=skipped)


def _policy_names(tx: Tx, tenant_id: str) -> dict[str, str]:
    return {policy.id: policy.name for policy in tx.policies.all(tenant_id)}


def _view(mailbox: Mailbox, policy: str | None, claim: str | None = None) -> MailboxView:
    return MailboxView(
        id=mailbox.id,
        upn=mailbox.upn,
        type=mailbox.type.value,
        licensed=mailbox.licensed,
        created=utc(mailbox.created),
        policy_name=policy,
        claim_token=claim,
    )


def _is_encrypted(mailbox: Mailbox, policy: Policy | None) -> bool:
    """True only when all content is under the assigned customer policy (R-092)."""
    settled = mailbox.pending_policy_id is None and mailbox.move_state is MoveState.DONE
    return settled and policy is not None and policy.workload is not Workload.PROVIDER


def _progress(tx: Tx, mailbox: Mailbox) -> tuple[float, int, int]:
    """Percent of content under the hierarchy asked for, items and bytes left."""
    if mailbox.move_state in MOVE_AT_REST:
        return 100.0, 0, 0
    if mailbox.move_state is MoveState.QUEUED or mailbox.pending_policy_id is not None:
        return (100.0 if mailbox.item_count == 0 and mailbox.pending_policy_id is None else 0.0), mailbox.item_count, mailbox.size_bytes
    items, size = tx.mailboxes.count_below(mailbox.id, mailbox.key_version)
    percent = 100.0 if mailbox.size_bytes == 0 else 100.0 * (mailbox.size_bytes - size) / mailbox.size_bytes
    return round(min(99.9, max(0.0, percent)), 1), items, size


def _move_age(services: Services, mailbox: Mailbox) -> int:
    """How long an unfinished change has been asked for; 0 for none."""
    unfinished = mailbox.move_state in {MoveState.QUEUED, MoveState.MOVING, MoveState.FAILED}
    return services.clock.now() - mailbox.assigned_at if unfinished and mailbox.assigned_at is not None else 0


def _advice(services: Services, mailbox: Mailbox) -> str | None:
    age = _move_age(services, mailbox)
    if age > services.settings.move_escalation:
        return "not finished 7 days after assignment: escalate to the provider's support"
    if age > services.settings.move_warning:
        return "not finished 72 hours after assignment: contact the provider's support"
    return None
