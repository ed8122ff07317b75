"""Jobs, the audit log and alerts, as people see them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from keystead.api.types.base import millis, utc, utc_or_none
from keystead.api.types.watching import AlertView, AuditRecordView, JobView, Parameter
from keystead.core.errors import InvalidRequest, NotFound, PreconditionFailed
from keystead.core.jobs import FINISHED, Job, JobState
from keystead.ports.clock import DAY, HOUR
from keystead.ports.tx import AuditQuery
from keystead.services.auditing import record

if TYPE_CHECKING:
    from keystead.api.call import Call
    from keystead.api.types import watching as t
    from keystead.core.audit.record import AuditRecord
    from keystead.ports.tx import Tx
    from keystead.services.context import Services

DEFAULT_WINDOW = 7 * DAY
LONGEST_WINDOW = 90 * DAY
"""R-208."""
STUCK_AFTER = 3
SERVER = "keystead"


def search_audit(services: Services, call: Call, request: t.SearchAudit) -> list[AuditRecordView]:
    """Records of the tenant, newest first; empty fields do not restrict (R-206, R-208)."""
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
    """Conditions of the tenant, newest first, and moves that are overdue."""
    return _alerts(services, call.tenant_id, request.limit)


def all_alerts(services: Services, call: Call, request: t.ListAlerts) -> list[AlertView]:
    """Conditions of all tenants and of the installation itself: for the provider, who sees ids only."""
    return _alerts(services, None, request.limit)


def _alerts(services: Services, tenant_id: str | None, limit: int) -> list[AlertView]:
    now = services.clock.now()
    with services.db.read() as tx:
        alerts = tx.alerts.page(tenant_id, limit=limit)
        overdue = tx.mailboxes.overdue_moves(tenant_id, now - services.settings.move_warning)
    views = [
        AlertView(
            kind="move-escalated" if now - (mailbox.assigned_at or now) > services.settings.move_escalation else "move-overdue",
            subject_id=mailbox.id,
            raised=utc((mailbox.assigned_at or now) + services.settings.move_warning),
            resolved=None,
            detail=f"the change of hierarchy of {mailbox.upn} is not done; contact the provider's support",
        )
        for mailbox in overdue
    ]
    views += [
        AlertView(
            kind=alert.kind.value,
            subject_id=alert.subject_id,
            raised=utc(alert.raised),
            resolved=utc_or_none(alert.resolved),
            detail=alert.detail,
        )
        for alert in alerts
    ]
    return views[:limit]


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
        now = services.clock.now()
        if not tx.jobs.cancel(job.id, now):
            raise PreconditionFailed("job_finished", f"the job {job.id} is finished: {job.state}", "nothing needs to be done")
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
