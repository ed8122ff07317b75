"""Jobs, audit records, alerts, settings."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING

from sqlalchemy import and_, case, delete, func, insert, or_, select, update

from keystead.adapters.sql.keystead_schema import TROUBLED, alert_events, alerts, audit_records, hook_states, jobs, settings, worker_beats
from keystead.adapters.sql.rows import Many
from keystead.core.alerts import Alert, AlertKind, Event, EventState, HookState, Severity
from keystead.core.audit.record import AuditRecord, RecordType, UserType
from keystead.core.jobs import FINISHED, Job, JobState

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import ColumnElement, Connection, Row

    from keystead.ports.tx import AuditQuery

_NEW_JOB = Many(insert(jobs))
_NEW_RECORD = Many(insert(audit_records))
_UNFINISHED = [state.value for state in JobState if state not in FINISHED]


def _job(row: Row[tuple[object, ...]]) -> Job:
    return Job(
        id=row.id,
        tenant_id=row.tenant_id,
        parent_id=row.parent_id,
        kind=row.kind,
        subject_id=row.subject_id,
        parameters=json.loads(row.parameters),
        state=JobState(row.state),
        priority=row.priority,
        done=row.done,
        total=row.total,
        lease_owner=row.lease_owner,
        lease_epoch=row.lease_epoch,
        attempts=row.attempts,
        not_before=row.not_before,
        created=row.created,
        started=row.started,
        finished=row.finished,
        error=row.error,
    )


class SqlJobRows:
    """Implements ports.tx.JobRows."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def insert(self, new: Sequence[Job]) -> None:
        if not new:
            return
        first = (self._connection.execute(select(func.max(jobs.c.sequence))).scalar() or 0) + 1
        texts = {id(job.parameters): json.dumps(job.parameters) for job in {id(job.parameters): job for job in new}.values()}
        _NEW_JOB.run(
            self._connection,
            [
                {
                    "id": job.id,
                    "sequence": first + index,
                    "tenant_id": job.tenant_id,
                    "parent_id": job.parent_id,
                    "kind": job.kind,
                    "subject_id": job.subject_id,
                    "parameters": texts[id(job.parameters)],
                    "state": job.state.value,
                    "priority": job.priority,
                    "done": job.done,
                    "total": job.total,
                    "lease_owner": job.lease_owner,
                    "lease_epoch": job.lease_epoch,
                    "lease_until": 0,
                    "attempts": job.attempts,
                    "not_before": job.not_before,
                    "created": job.created,
                    "started": job.started,
                    "finished": job.finished,
                    "error": job.error,
                }
                for index, job in enumerate(new)
            ],
        )

    def get(self, job_id: str) -> Job | None:
        row = self._connection.execute(select(jobs).where(jobs.c.id == job_id)).first()
        return _job(row) if row else None

    def page(self, tenant_id: str | None, *, states: Sequence[JobState], after: str, limit: int) -> list[Job]:
        query = select(jobs).order_by(jobs.c.sequence.desc()).limit(limit)
        if tenant_id is not None:
            query = query.where(jobs.c.tenant_id == tenant_id)
        if states:
            query = query.where(jobs.c.state.in_([state.value for state in states]))
        if after:
            query = query.where(jobs.c.sequence < select(jobs.c.sequence).where(jobs.c.id == after).scalar_subquery())
        return [_job(row) for row in self._connection.execute(query)]

    def claim(self, owner: str, now: int, until: int, *, only: str = "", alone: bool = False, kind: str = "") -> Job | None:
        claimed = self._claim_one(only, owner, now, until) if only else None
        if claimed is not None or (only and alone):
            return claimed
        wanted = ([jobs.c.parent_id == only] if only else []) + ([jobs.c.kind == kind] if kind else [])
        row = self._most_urgent(now, *wanted)
        return self._claim_one(row.id, owner, now, until) if row is not None else None

    def _claim_one(self, job_id: str, owner: str, now: int, until: int) -> Job | None:
        """Take this job, if it may be run now."""
        ready = and_(jobs.c.state == JobState.QUEUED.value, jobs.c.not_before <= now)
        abandoned = and_(jobs.c.state == JobState.RUNNING.value, jobs.c.lease_until <= now)
        row = self._connection.execute(
            update(jobs)
            .where(jobs.c.id == job_id, or_(ready, abandoned))
            .values(
                state=JobState.RUNNING.value,
                lease_owner=owner,
                lease_epoch=jobs.c.lease_epoch + 1,
                lease_until=until,
                attempts=jobs.c.attempts + 1,
                started=func.coalesce(jobs.c.started, now),
            )
            .returning(*jobs.c)
        ).first()
        return _job(row) if row is not None else None

    def _most_urgent(self, now: int, *wanted: ColumnElement[bool]) -> Row[tuple[object, ...]] | None:
        """The job that is to run next: by priority; then those whose runner is gone, those never put off, those put off, each by age.

        A step in an index for each priority in use, however many jobs wait, and none that is not due yet is looked at. One query for all
        of it would sort everything that waits, for every job that is claimed.
        """
        due = jobs.c.not_before, jobs.c.sequence
        abandoned = select(jobs).where(jobs.c.state == JobState.RUNNING.value, jobs.c.lease_until <= now, *wanted)
        found = self._connection.execute(abandoned.order_by(jobs.c.priority, *due).limit(1)).first()
        waiting = jobs.c.state == JobState.QUEUED.value
        priorities = select(func.min(jobs.c.priority)).where(waiting, *wanted)
        priority = self._connection.execute(priorities).scalar()
        while priority is not None and (found is None or priority < found.priority):
            ready = select(jobs).where(waiting, jobs.c.priority == priority, jobs.c.not_before <= now, *wanted)
            row = self._connection.execute(ready.order_by(*due).limit(1)).first()
            if row is not None:
                return row
            priority = self._connection.execute(priorities.where(jobs.c.priority > priority)).scalar()
        return found

    def save(self, job: Job) -> bool:
        return bool(
            self._connection.execute(
                update(jobs)
                .where(jobs.c.id == job.id, jobs.c.lease_epoch == job.lease_epoch, jobs.c.state == JobState.RUNNING.value)
                .values(
                    state=job.state.value,
                    parameters=json.dumps(job.parameters),
                    done=job.done,
                    total=job.total,
                    attempts=job.attempts,
                    not_before=job.not_before,
                    finished=job.finished,
                    error=job.error,
                )
            ).rowcount
        )

    def extend(self, job: Job, until: int) -> bool:
        return bool(
            self._connection.execute(
                update(jobs)
                .where(jobs.c.id == job.id, jobs.c.lease_epoch == job.lease_epoch, jobs.c.state == JobState.RUNNING.value)
                .values(lease_until=until)
            ).rowcount
        )

    def cancel(self, job_id: str, now: int) -> bool:
        stop = update(jobs).values(state=JobState.CANCELLED.value, lease_epoch=jobs.c.lease_epoch + 1, finished=now)
        started = self._connection.execute(stop.where(jobs.c.parent_id == job_id, jobs.c.state.in_(_UNFINISHED))).rowcount
        stoppable = [*_UNFINISHED, JobState.DONE.value] if started else _UNFINISHED
        return bool(self._connection.execute(stop.where(jobs.c.id == job_id, jobs.c.state.in_(stoppable))).rowcount) or bool(started)

    def pending_of(self, parent_id: str) -> tuple[int, int, int]:
        unfinished = func.coalesce(func.sum(case((jobs.c.state.in_(_UNFINISHED), 1), else_=0)), 0)
        row = self._connection.execute(
            select(unfinished, func.coalesce(func.sum(jobs.c.done), 0), func.coalesce(func.sum(jobs.c.total), 0)).where(
                jobs.c.parent_id == parent_id
            )
        ).one()
        return int(row[0]), int(row[1]), int(row[2])

    def troubled(self, parent_id: str) -> Job | None:
        query = select(jobs).where(jobs.c.parent_id == parent_id, TROUBLED).order_by(jobs.c.state == JobState.QUEUED.value).limit(1)
        row = self._connection.execute(query).first()
        return _job(row) if row else None

    def running_owners(self) -> list[str]:
        query = select(jobs.c.lease_owner).where(jobs.c.state == JobState.RUNNING.value, jobs.c.lease_until > 0).distinct()
        return list(self._connection.execute(query).scalars())

    def release(self, owner: str) -> None:
        self._connection.execute(
            update(jobs).where(jobs.c.lease_owner == owner, jobs.c.state == JobState.RUNNING.value).values(lease_until=0)
        )

    def waiting_since(self, before: int) -> Job | None:
        query = select(jobs).where(jobs.c.state == JobState.QUEUED.value, jobs.c.not_before <= before, jobs.c.created <= before).limit(1)
        row = self._connection.execute(query).first()
        return _job(row) if row else None

    def exists(self, kind: str, subject_id: str) -> bool:
        query = select(jobs.c.id).where(jobs.c.subject_id == subject_id, jobs.c.kind == kind, jobs.c.state.in_(_UNFINISHED)).limit(1)
        return self._connection.execute(query).first() is not None


class SqlAuditRows:
    """Implements ports.tx.AuditRows."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def append(self, record: AuditRecord) -> None:
        _NEW_RECORD.run(
            self._connection,
            [
                {
                    "id": record.id,
                    "creation_time": record.creation_time,
                    "record_type": int(record.record_type),
                    "operation": record.operation,
                    "organization_id": record.organization_id,
                    "user_type": int(record.user_type),
                    "user_key": record.user_key,
                    "user_id": record.user_id,
                    "workload": record.workload,
                    "result_status": record.result_status,
                    "object_id": record.object_id,
                    "client_ip": record.client_ip,
                    "external_access": record.external_access,
                    "request_id": record.request_id,
                    "parameters": json.dumps(record.parameters),
                }
            ],
        )

    def search(self, query: AuditQuery) -> list[AuditRecord]:
        columns = audit_records.c
        statement = (
            select(audit_records)
            .where(columns.creation_time >= query.start, columns.creation_time < query.end)
            .order_by(columns.creation_time.desc(), columns.sequence.desc())  # as the indexes have them: nothing is sorted
            .limit(query.limit)
        )
        if query.tenant_id is not None:
            statement = statement.where(columns.organization_id == query.tenant_id)
        if query.operations:
            statement = statement.where(columns.operation.in_(query.operations))
        if query.users:
            statement = statement.where(columns.user_id.in_(query.users))
        if query.item:
            statement = statement.where(columns.object_id == query.item)
        if query.after:
            last = self._connection.execute(select(columns.creation_time, columns.sequence).where(columns.id == query.after)).first()
            if last is None:
                return []
            time, sequence = last
            statement = statement.where(columns.creation_time <= time, or_(columns.creation_time < time, columns.sequence < sequence))
        return [
            AuditRecord(
                id=row.id,
                creation_time=row.creation_time,
                record_type=RecordType(row.record_type),
                operation=row.operation,
                organization_id=row.organization_id,
                user_type=UserType(row.user_type),
                user_key=row.user_key,
                user_id=row.user_id,
                workload=row.workload,
                result_status=row.result_status,
                object_id=row.object_id,
                client_ip=row.client_ip,
                external_access=row.external_access,
                request_id=row.request_id,
                parameters=tuple((name, value) for name, value in json.loads(row.parameters)),
            )
            for row in self._connection.execute(statement)
        ]


def _alert(row: Row[tuple[object, ...]]) -> Alert:
    return Alert(
        id=row.id,
        tenant_id=row.tenant_id,
        kind=AlertKind(row.kind),
        subject_id=row.subject_id,
        detail=row.detail,
        raised=row.raised,
        last_seen=row.last_seen,
        times=row.times,
        escalated=row.escalated,
        resolved=row.resolved,
        told=row.told,
    )


class SqlAlertRows:
    """Implements ports.tx.AlertRows."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def lasting(self, tenant_id: str, subject_id: str, kinds: Sequence[AlertKind]) -> list[Alert]:
        query = select(alerts).where(
            alerts.c.tenant_id == tenant_id,
            alerts.c.subject_id == subject_id,
            alerts.c.kind.in_([kind.value for kind in kinds]),
            alerts.c.resolved.is_(None),
        )
        return [_alert(row) for row in self._connection.execute(query)]

    # By time and not by number: so SQLite goes through the index of those that last, and not through the table.

    def lasting_of(self, kinds: Sequence[AlertKind], limit: int) -> list[Alert]:
        query = select(alerts).where(alerts.c.resolved.is_(None), alerts.c.kind.in_([kind.value for kind in kinds]))
        return [_alert(row) for row in self._connection.execute(query.order_by(alerts.c.raised).limit(limit))]

    def untold(self, limit: int) -> list[Alert]:
        query = select(alerts).where(alerts.c.resolved.is_(None), alerts.c.told.is_(None)).order_by(alerts.c.raised).limit(limit)
        return [_alert(row) for row in self._connection.execute(query)]

    def last_told(self, tenant_id: str, subject_id: str, kind: AlertKind) -> int:
        query = select(func.max(alerts.c.told)).where(
            alerts.c.tenant_id == tenant_id, alerts.c.subject_id == subject_id, alerts.c.kind == kind.value
        )
        return self._connection.execute(query).scalar() or 0

    def insert(self, alert: Alert) -> None:
        self._connection.execute(insert(alerts).values(id=alert.id, **_fields(alert)))

    def save(self, alert: Alert) -> None:
        self._connection.execute(update(alerts).where(alerts.c.id == alert.id).values(**_fields(alert)))

    def page(self, tenant_id: str | None, *, limit: int, kinds: Sequence[AlertKind] = (), lasting_only: bool = False) -> list[Alert]:
        query = select(alerts).order_by(alerts.c.sequence.desc()).limit(limit)
        if tenant_id is not None:
            query = query.where(alerts.c.tenant_id == tenant_id)
        if kinds:
            query = query.where(alerts.c.kind.in_([kind.value for kind in kinds]))
        if lasting_only:
            query = query.where(alerts.c.resolved.is_(None))
        return [_alert(row) for row in self._connection.execute(query)]

    def forget(self, before: int) -> int:
        return self._connection.execute(delete(alerts).where(alerts.c.resolved < before)).rowcount


def _fields(alert: Alert) -> dict[str, object]:
    """All columns of an alert but its id."""
    return {
        "tenant_id": alert.tenant_id,
        "kind": alert.kind.value,
        "subject_id": alert.subject_id,
        "detail": alert.detail,
        "raised": alert.raised,
        "last_seen": alert.last_seen,
        "times": alert.times,
        "escalated": alert.escalated,
        "resolved": alert.resolved,
        "told": alert.told,
    }


class SqlHookRows:
    """Implements ports.tx.HookRows."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def add_event(self, event: Event) -> None:
        self._connection.execute(
            insert(alert_events).values(
                id=event.id,
                alert_id=event.alert_id,
                tenant_id=event.tenant_id,
                kind=event.kind.value,
                subject_id=event.subject_id,
                severity=event.severity.value,
                state=event.state.value,
                at=event.at,
            )
        )

    def events_after(self, position: int, limit: int) -> list[Event]:
        query = select(alert_events).where(alert_events.c.sequence > position).order_by(alert_events.c.sequence).limit(limit)
        return [
            Event(
                sequence=row.sequence,
                id=row.id,
                alert_id=row.alert_id,
                tenant_id=row.tenant_id,
                kind=AlertKind(row.kind),
                subject_id=row.subject_id,
                severity=Severity(row.severity),
                state=EventState(row.state),
                at=row.at,
            )
            for row in self._connection.execute(query)
        ]

    def ended(self, alert_ids: Sequence[str]) -> set[str]:
        wanted = select(alerts.c.id).where(alerts.c.id.in_(list(alert_ids)), alerts.c.resolved.is_(None))
        return set(alert_ids) - set(self._connection.execute(wanted).scalars())

    def forget_events(self, before: int) -> int:
        return self._connection.execute(delete(alert_events).where(alert_events.c.at < before)).rowcount

    def state(self, name: str) -> HookState | None:
        row = self._connection.execute(select(hook_states).where(hook_states.c.name == name)).first()
        return HookState(**row._mapping) if row else None  # noqa: SLF001 - SQLAlchemy's public name for a row as a mapping

    def save_state(self, state: HookState) -> None:
        self._connection.execute(delete(hook_states).where(hook_states.c.name == state.name))
        self._connection.execute(insert(hook_states).values(**asdict(state)))

    def beat(self, owner: str, now: int) -> None:
        self._connection.execute(delete(worker_beats).where(or_(worker_beats.c.owner == owner, worker_beats.c.at < now - _BEATS_KEPT)))
        self._connection.execute(insert(worker_beats).values(owner=owner, at=now))

    def last_beat(self) -> int:
        return self._connection.execute(select(func.max(worker_beats.c.at))).scalar() or 0


_BEATS_KEPT = 7 * 24 * 60 * 60 * 1_000
"""Milliseconds a worker that shows itself no more is remembered."""


class SqlSettingRows:
    """Implements ports.tx.SettingRows."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def all(self) -> dict[str, str]:
        return {row.name: row.value for row in self._connection.execute(select(settings))}

    def put(self, name: str, value: str) -> None:
        self._connection.execute(delete(settings).where(settings.c.name == name))
        self._connection.execute(insert(settings).values(name=name, value=value))
