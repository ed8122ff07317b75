"""Jobs, the audit log, alerts and hooks, as people see them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from keystead.api.types.base import millis, utc, utc_or_none
from keystead.api.types.watching import AlertView, AuditRecordView, HookTried, HookView, JobView, Parameter
from keystead.core.alerts import ABOUT, KEY_KINDS, MOVE_ESCALATED, Alert, AlertKind, HookState
from keystead.core.errors import InvalidRequest, NotFound, PreconditionFailed, Unavailable
from keystead.core.jobs import FINISHED, STUCK_AFTER, Job, JobState
from keystead.ports.clock import DAY, HOUR
from keystead.ports.notify import NotDelivered
from keystead.ports.tx import AuditQuery
from keystead.services.alerting import resolve_alerts, test_message
from keystead.services.auditing import record
from keystead.services.file_policies import CHANGES
from keystead.services.jobs.files import DESTROY, MOVE

if TYPE_CHECKING:
    from keystead.api.call import Call
    from keystead.api.types import watching as t
    from keystead.api.types.base import Empty
    from keystead.core.audit.record import AuditRecord
    from keystead.core.stores.mailbox import Mailbox
    from keystead.ports.tx import Tx
    from keystead.services.context import Services

DEFAULT_WINDOW = 7 * DAY
LONGEST_WINDOW = 90 * DAY
"""R-208."""
SERVER = "keystead"
NEEDED = CHANGES | {MOVE, DESTROY}
"""Kinds of jobs that cannot be cancelled: half of a geo would stay under keys that its policy does not name."""


def search_audit(services: Services, call: Call, request: t.SearchAudit) -> list[AuditRecordView]:
    """Records of the tenant, or of the installation itself, newest first; empty fields do not restrict (R-206, R-208)."""
    now = services.clock.now()
    end = millis(request.end) if request.end is not None else now + HOUR
    start = millis(request.start) if request.start is not None else end - DEFAULT_WINDOW
    if start > end:
        raise InvalidRequest("audit_range_empty", "the start lies after the end", "give --start before --end")
    if end - start > LONGEST_WINDOW + HOUR:
        raise InvalidRequest("audit_range_too_long", "the range is longer than 90 days", "search 90 days at a time")
    query = AuditQuery(
        tenant_id=call.tenant_id,
        operations=tuple(request.operations),
        users=tuple(request.users),
        item=request.item,
        start=start,
        end=end,
        limit=request.limit,
        after=request.after,
    )
    with services.db.read() as tx:
        tenant = tx.tenants.find(call.tenant_id)
        found = tx.audit.search(query)
    return [_record_view(one, tenant.name if tenant else "") for one in found]


def list_alerts(services: Services, call: Call, request: t.ListAlerts) -> list[AlertView]:
    """Conditions of the tenant, newest first, with the names of what they are about."""
    if request.of_tenant:
        raise InvalidRequest("alerts_of_tenant", "this is about one tenant already", "leave of_tenant out")
    return _alerts(services, call.tenant_id, request, named=True)


def all_alerts(services: Services, call: Call, request: t.ListAlerts) -> list[AlertView]:
    """Conditions of all tenants and of the installation itself: for the provider, who sees ids only."""
    tenant_id = None
    if request.of_tenant:
        with services.db.read() as tx:
            tenant = tx.tenants.find(request.of_tenant)
        if tenant is None:
            raise NotFound("tenant_not_found", f"there is no tenant {request.of_tenant}", "keystead tenant list shows them to the operator")
        tenant_id = tenant.id
    return _alerts(services, tenant_id, request, named=False)


def _alerts(services: Services, tenant_id: str | None, request: t.ListAlerts, *, named: bool) -> list[AlertView]:
    """Stored alerts; moves as they are at this moment, whether or not upkeep has looked since (design section 6: deadlines when read)."""
    kinds = {_kind(text) for text in request.kinds}
    now = services.clock.now()
    with services.db.read() as tx:
        stored = tx.alerts.page(tenant_id, limit=request.limit, kinds=sorted(kinds), lasting_only=request.lasting_only)
        moves: dict[str, Alert] = {}
        if not kinds or AlertKind.MOVE_OVERDUE in kinds:
            known = {one.subject_id: one for one in stored if one.kind is AlertKind.MOVE_OVERDUE and one.resolved is None}
            overdue = tx.mailboxes.overdue_moves(tenant_id, now - services.settings.move_warning, request.limit)
            moves = {mailbox.id: _overdue(services, mailbox, known.get(mailbox.id), now) for mailbox in overdue}
        others = [one for one in stored if one.kind is not AlertKind.MOVE_OVERDUE or one.resolved is not None]
        found = [*moves.values(), *others][: request.limit]
        if len(request.kinds) == 1 and request.kinds[0] == MOVE_ESCALATED:
            found = [one for one in found if one.escalated is not None]
        return [_alert_view(one, _subject_name(tx, one) if named else "") for one in found]


def _kind(text: str) -> AlertKind:
    try:
        return AlertKind.MOVE_OVERDUE if text == MOVE_ESCALATED else AlertKind(text)
    except ValueError:
        raise InvalidRequest("alert_kind_unknown", f"there is no kind of alert {text!r}", f"kinds are: {', '.join(AlertKind)}") from None


def _overdue(services: Services, mailbox: Mailbox, known: Alert | None, now: int) -> Alert:
    """The alert about an overdue move; one that upkeep has not stored yet has no id."""
    asked, settings = mailbox.assigned_at or now, services.settings
    late = now - asked > settings.move_escalation
    if known is not None:
        return replace(known, last_seen=now, escalated=known.escalated or (now if late else None))
    return Alert(
        id="",
        tenant_id=mailbox.tenant_id,
        kind=AlertKind.MOVE_OVERDUE,
        subject_id=mailbox.id,
        detail=f"{mailbox.move_state}, asked for at {utc(asked):%Y-%m-%d %H:%M:%SZ}",
        raised=asked + settings.move_warning,
        last_seen=now,
        times=1,
        escalated=asked + settings.move_escalation if late else None,
        resolved=None,
        told=None,
    )


def _subject_name(tx: Tx, alert: Alert) -> str:
    """The directory's name of what an alert of a tenant is about; empty for what has none, or is gone."""
    if alert.kind in KEY_KINDS or alert.kind is AlertKind.KEY_STORE:
        policy = tx.policies.by_id(alert.subject_id)
        return policy.name if policy is not None and policy.tenant_id == alert.tenant_id else ""
    if alert.kind is AlertKind.MOVE_OVERDUE:
        mailbox = tx.mailboxes.by_id(alert.tenant_id, alert.subject_id)
        return mailbox.upn if mailbox else ""
    if alert.kind is AlertKind.FILE_DAMAGED:
        site = tx.sites.find(alert.tenant_id, alert.subject_id)
        return site.url if site else ""
    if alert.kind is AlertKind.FILES_OVERDUE:
        return next((geo.geo for geo in tx.sites.geos(alert.tenant_id) if geo.job_id == alert.subject_id), "")
    return ""


def _alert_view(alert: Alert, name: str) -> AlertView:
    about = ABOUT[alert.kind]
    return AlertView(
        id=alert.id,
        tenant_id=alert.tenant_id,
        kind=alert.shown_kind,
        severity=alert.severity.value,
        subject_id=alert.subject_id,
        subject_name=name,
        raised=utc(alert.raised),
        last_seen=utc(alert.last_seen),
        times=alert.times,
        escalated=utc_or_none(alert.escalated),
        resolved=utc_or_none(alert.resolved),
        text=about.text,
        mend=about.mend,
        detail=alert.detail,
    )


def list_hooks(services: Services, call: Call, request: Empty) -> list[HookView]:
    """The hooks of this process's keystead.toml, and how each gets on."""
    now = services.clock.now()
    with services.db.read() as tx:
        states = [(hook, tx.hooks.state(hook.name) or HookState(hook.name, since=now)) for hook in services.hooks]
    return [
        HookView(
            name=hook.name,
            kinds=sorted(hook.kinds),
            tenant=hook.tenant,
            failures=state.attempts,
            failing_since=utc(state.failing_since) if state.failing_since else None,
            next_try=utc(state.not_before) if state.not_before > now else None,
            last_error=state.last_error,
        )
        for hook, state in states
    ]


def try_hook(services: Services, call: Call, request: t.TryHook) -> HookTried:
    """Send a test message now, past the queue; recorded first, as what goes out is."""
    hook = next((hook for hook in services.hooks if hook.name == request.hook), None)
    if hook is None:
        names = ", ".join(hook.name for hook in services.hooks) or "none"
        raise NotFound("hook_not_found", f"keystead.toml has no hook {request.hook}", f"it has: {names}")
    message = test_message(services, hook)
    with services.db.write() as tx:
        record(services, tx, call, hook.name, (("Hook", hook.name), ("Event", message.id)))
    try:
        answer = hook.send(message, services.clock.now())
    except NotDelivered as error:
        raise Unavailable(
            "hook_not_delivered", f"the hook {hook.name} did not get through: {error}", "mend the receiver, or the hook in keystead.toml"
        ) from error
    return HookTried(hook=hook.name, event_id=message.id, answer=answer)


def list_jobs(services: Services, call: Call, request: t.ListJobs) -> list[JobView]:
    """Jobs of the tenant, newest first."""
    with services.db.read() as tx:
        page = tx.jobs.page(call.tenant_id, states=[JobState(state) for state in request.states], after=request.after, limit=request.limit)
        return [_view(tx, job) for job in page]


def show_job(services: Services, call: Call, request: t.NameJob) -> JobView:
    """One job with its progress."""
    with services.db.read() as tx:
        return _view(tx, _find(tx, call, request.job))


def cancel_job(services: Services, call: Call, request: t.NameJob) -> JobView:
    """Stop a job and those it started; what they did stays done, and what they did not do is left as it is."""
    with services.db.write() as tx:
        job = _find(tx, call, request.job)
        if job.kind in NEEDED and job.state not in FINISHED:
            raise PreconditionFailed(
                "job_needed",
                f"the job {job.id} brings files from one set of keys to another, and stays until that is done",
                "keystead files status tells how far it is; mend what holds it up",
            )
        now = services.clock.now()
        if not tx.jobs.cancel(job.id, now):
            raise PreconditionFailed("job_finished", f"the job {job.id} is finished: {job.state}", "nothing needs to be done")
        resolve_alerts(services, tx, job.tenant_id, job.id, [AlertKind.JOB_FAILING, AlertKind.ORPHANS])
        record(services, tx, call, job.id, (("Kind", job.kind), ("Subject", job.subject_id)))
        return _view(tx, replace(job, state=JobState.CANCELLED, finished=now))


def _find(tx: Tx, call: Call, job_id: str) -> Job:
    job = tx.jobs.get(job_id)
    if job is None or job.tenant_id != call.tenant_id:
        raise NotFound("job_not_found", f"the tenant has no job {job_id}", "keystead job list shows its jobs")
    return job


def _view(tx: Tx, job: Job) -> JobView:
    """A job and what it started, as one: done when all is done."""
    unfinished, children_done, children_total = tx.jobs.pending_of(job.id)
    state = job.state.value
    finished = job.finished
    if job.state is JobState.DONE and unfinished:
        state, finished = JobState.RUNNING.value, None
    done, total = (children_done, children_total) if children_total else (job.done, job.total)
    progress = min(99.9, 100.0 * done / total) if total else 0.0
    percent = 100.0 if state == JobState.DONE.value else progress
    troubled = job if job.error else (tx.jobs.troubled(job.id) or job)
    return JobView(
        id=job.id,
        kind=job.kind,
        subject_id=job.subject_id,
        state=state if troubled.state is not JobState.FAILED else JobState.FAILED.value,
        progress_percent=round(percent, 1),
        done=done,
        total=total,
        created=utc(job.created),
        started=utc_or_none(job.started),
        finished=utc_or_none(finished),
        error=troubled.error,
        stuck=troubled.state not in FINISHED and troubled.attempts >= STUCK_AFTER and bool(troubled.error),
    )


def _record_view(one: AuditRecord, organization: str) -> AuditRecordView:
    return AuditRecordView(
        id=one.id,
        record_type=int(one.record_type),
        creation_time=utc(one.creation_time),
        operation=one.operation,
        organization_id=one.organization_id,
        organization_name=organization,
        user_type=int(one.user_type),
        user_key=one.user_key,
        user_id=one.user_id,
        workload=one.workload,
        result_status=one.result_status,
        object_id=one.object_id,
        client_ip=one.client_ip,
        external_access=one.external_access,
        originating_server=SERVER,
        parameters=[Parameter(name=name, value=value) for name, value in one.parameters],
        request_id=one.request_id,
    )
