"""Raising, watching and telling alerts (docs/howto/alerts.md, docs/spec/hooks.md).

- *Raising*: whoever finds a condition calls `raise_alert`, whoever finds that it ended `resolve_alerts`, in a transaction of theirs. The
  event that hooks are told of is a row of the same transaction: a crash leaves both or neither.
- *Watching*: conditions that nobody comes across are looked for once a minute by `watch`: in any number of processes, since raising what is
  raised already changes nothing that matters.
- *Telling*: `deliver` sends a hook its next event outside any transaction. A lease on the hook's row lets one process at a time do it, and
  the position moves on only after the answer: a crash in between sends an event twice, with the same id.

All but the raising happens in threads of their own (`standing_watch`): a slow vault, store or receiver never holds up a job or a call.
"""

from __future__ import annotations

import logging
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from keystead.core.alerts import (
    ABOUT,
    INCIDENTS,
    KEY_KINDS,
    Alert,
    AlertKind,
    Condition,
    Event,
    EventState,
    HookState,
    Severity,
    wait_after,
)
from keystead.core.errors import IntegrityFailure, KeysteadError, NotFound, Unavailable
from keystead.core.ids import new_id
from keystead.core.jobs import JobState
from keystead.core.policies.policy import Workload
from keystead.ports.clock import DAY, MINUTE, SECOND
from keystead.ports.keystore import Compartment
from keystead.ports.notify import Message, NotDelivered

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from keystead.core.policies.policy import PolicyState
    from keystead.ports.notify import Hook
    from keystead.ports.tx import Tx
    from keystead.services.context import Means, Services

INSTALLATION = ""
"""The tenant of alerts about the installation itself."""
KEY_STORE = "keystore"
AUDIT = "audit"
WORKER = "worker"
"""Subjects that are parts of the installation."""
WATCH_EVERY = 1 * MINUTE
LOOK_EVERY = 2 * SECOND
"""How often a hook with nothing to tell looks for something."""
HOOK_LEASE = 2 * MINUTE
"""Longer than any delivery takes: so a hook is another process's only when this one is dead or cut off."""
FAILURES_TO_ALERT = 3
BATCH = 500
MOST_ASKED = 200
LONGEST_ROUND = 20 * SECOND
"""Policies that are asked again in one round, and how long the last of them is begun; the next round goes on."""
STOP_SECONDS = 6.0
"""How long a process that stops waits for a delivery under way: as long as a POST may take."""
EVENTS_KEPT = 30 * DAY
ALERTS_KEPT = 400 * DAY

_log = logging.getLogger("keystead.alerts")


# -- raising --------------------------------------------------------------------------------------------------------------------------


def raise_alert(means: Means, tx: Tx, condition: Condition) -> bool:
    """Say that something is the case; whether that is news.

    What is known already is counted, and escalated when it has become worse. Hooks are told of a subject's kind of alert at most once in
    `alert_quiet`: of one that comes back sooner they are told when that time is over, if it still lasts.
    """
    now = means.clock.now()
    known = tx.alerts.lasting(condition.tenant_id, condition.subject_id, [condition.kind])
    if known:
        again = replace(known[0], last_seen=max(now, known[0].last_seen), times=known[0].times + 1, detail=condition.detail)
        if condition.escalated and again.escalated is None:
            again = replace(again, escalated=now, told=now)
            _add_event(means, tx, again, EventState.ESCALATED)
        tx.alerts.save(again)
        return False
    last = tx.alerts.last_told(condition.tenant_id, condition.subject_id, condition.kind)
    quiet = bool(last) and 0 <= now - last < means.settings.alert_quiet
    alert = Alert(
        id=new_id(means.random),
        tenant_id=condition.tenant_id,
        kind=condition.kind,
        subject_id=condition.subject_id,
        detail=condition.detail,
        raised=now,
        last_seen=now,
        times=1,
        escalated=now if condition.escalated else None,
        resolved=None,
        told=None if quiet else now,
    )
    tx.alerts.insert(alert)
    if not quiet:
        _add_event(means, tx, alert, EventState.RAISED)
    return True


def resolve_alerts(means: Means, tx: Tx, tenant_id: str, subject_id: str, kinds: Sequence[AlertKind]) -> None:
    """Say that these conditions of a subject are over; what was not the case changes nothing."""
    for alert in tx.alerts.lasting(tenant_id, subject_id, kinds):
        end_alert(means, tx, alert)


def end_alert(means: Means, tx: Tx, alert: Alert) -> None:
    """End one alert that lasts. Whoever was told that it began is told that it is over."""
    tx.alerts.save(replace(alert, resolved=means.clock.now()))
    if alert.told is not None:
        _add_event(means, tx, alert, EventState.RESOLVED)


def _add_event(means: Means, tx: Tx, alert: Alert, state: EventState) -> None:
    tx.hooks.add_event(
        Event(
            sequence=0,
            id=new_id(means.random),
            alert_id=alert.id,
            tenant_id=alert.tenant_id,
            kind=alert.kind,
            subject_id=alert.subject_id,
            severity=alert.severity,
            state=state,
            at=means.clock.now(),
        )
    )


# -- watching -------------------------------------------------------------------------------------------------------------------------


def watch(services: Services) -> None:
    """Look once for every condition that nobody may come across by themselves, and for those that are over.

    One look that fails does not stop the others: the database may be what is broken, and the next minute looks again.
    """
    for look in (_unwritten, _key_store, _moves, _geos, _jobs, _workers, _incidents, _deferred, _hooks, _old, _keys):
        try:
            look(services)
        except KeysteadError as error:
            _log.warning("watching (%s) failed: %s", look.__name__.strip("_"), error)
        except Exception:  # noqa: BLE001 - a defect of ours in one look must not end the others, nor the thread
            _log.exception("watching (%s) met a defect", look.__name__.strip("_"))


def beat(services: Services) -> None:
    """A worker shows that it gets on: called from the loop that runs jobs, so that one that hangs falls silent."""
    with services.db.write() as tx:
        tx.hooks.beat(services.owner, services.clock.now())


def _unwritten(services: Services) -> None:
    """What was counted beside the database becomes an alert now that the database takes it; a crash here counts it twice."""
    with services.unwritten.taking() as counted:
        if counted is None:
            return
        detail = f"{counted.count} refused; the last with {counted.code}"
        with services.db.write() as tx:
            raise_alert(services, tx, Condition(INSTALLATION, AlertKind.AUDIT_UNWRITABLE, AUDIT, detail))


def _key_store(services: Services) -> None:
    """Seal a byte with a key of the store: that needs its database, its epoch key and its master."""
    with services.db.read() as tx:
        key_id = tx.policies.any_provider()
    failure = key_store_failure(services, key_id)
    with services.db.read() as tx:
        known = tx.alerts.lasting(INSTALLATION, KEY_STORE, [AlertKind.KEY_STORE_UNREADABLE])
    if failure is None and not known:
        return
    with services.db.write() as tx:
        if failure is None:
            resolve_alerts(services, tx, INSTALLATION, KEY_STORE, [AlertKind.KEY_STORE_UNREADABLE])
        else:
            raise_alert(services, tx, Condition(INSTALLATION, AlertKind.KEY_STORE_UNREADABLE, KEY_STORE, failure))


def key_store_failure(services: Services, key_id: str | None) -> str | None:
    """The code of what keeps the key store from being read; None for nothing."""
    try:
        services.keystore.seal(Compartment.PROVIDER, key_id or new_id(services.random), b"\0", b"keystead: is the key store there?")
    except NotFound:
        return None if key_id is None else "provider_key_missing"
    except (Unavailable, IntegrityFailure) as error:
        return error.code
    return None


def _moves(services: Services) -> None:
    """R-093, conflict C3: moves that are not done in time; those that failed are among them."""
    now, settings = services.clock.now(), services.settings
    with services.db.read() as tx:
        overdue = {mailbox.id: mailbox for mailbox in tx.mailboxes.overdue_moves(None, now - settings.move_warning)}
        known = {alert.subject_id: alert for alert in tx.alerts.lasting_of([AlertKind.MOVE_OVERDUE], len(overdue) + BATCH)}
    conditions = []
    for mailbox in overdue.values():
        escalated = now - (mailbox.assigned_at or now) > settings.move_escalation
        alert = known.get(mailbox.id)
        if alert is None or (escalated and alert.escalated is None):
            detail = f"asked for at {mailbox.assigned_at}, {mailbox.move_state}"
            conditions.append(Condition(mailbox.tenant_id, AlertKind.MOVE_OVERDUE, mailbox.id, detail, escalated=escalated))
    over = [alert for alert in known.values() if alert.subject_id not in overdue]
    for start in range(0, max(len(conditions), len(over)), BATCH):
        with services.db.write() as tx:
            for condition in conditions[start : start + BATCH]:
                raise_alert(services, tx, condition)
            for alert in over[start : start + BATCH]:
                resolve_alerts(services, tx, alert.tenant_id, alert.subject_id, [AlertKind.MOVE_OVERDUE])


def _geos(services: Services) -> None:
    """R-122: changes of the hierarchy of a geo's files that are not done in time. Whoever finishes one ends its alert."""
    now, settings = services.clock.now(), services.settings
    with services.db.read() as tx:
        overdue = tx.sites.changing(now - settings.registration_warning)
        told = {alert.subject_id for alert in tx.alerts.lasting_of([AlertKind.FILES_OVERDUE], len(overdue) + BATCH)}
    for geo in overdue:
        if geo.job_id not in told:
            with services.db.write() as tx:
                detail = f"geo {geo.geo}: {geo.state}, asked for at {geo.changed}"
                raise_alert(services, tx, Condition(geo.tenant_id, AlertKind.FILES_OVERDUE, geo.job_id, detail))


def _jobs(services: Services) -> None:
    """Alerts about jobs that were cancelled, or are done: nobody else comes by them. Of what gave up, one is told for `alert_incident`."""
    kinds = (AlertKind.JOB_FAILING, AlertKind.ORPHANS)
    with services.db.read() as tx:
        over = []
        for alert in tx.alerts.lasting_of(kinds, BATCH):
            job = tx.jobs.get(alert.subject_id)
            gave_up = job is not None and job.state is JobState.FAILED
            finished = job is None or job.state in {JobState.DONE, JobState.CANCELLED}
            if finished or (gave_up and services.clock.now() - alert.last_seen >= services.settings.alert_incident):
                over.append(alert)
    _end_all(services, over)


def _workers(services: Services) -> None:
    """Jobs are due and no worker has shown itself: nothing long gets done, moves and clean-ups among it."""
    before = services.clock.now() - services.settings.worker_silence
    with services.db.read() as tx:
        waiting = tx.jobs.waiting_since(before) if tx.hooks.last_beat() <= before else None
        known = tx.alerts.lasting(INSTALLATION, WORKER, [AlertKind.WORKER_SILENT])
    if waiting is None:
        _end_all(services, known)
    else:
        with services.db.write() as tx:
            raise_alert(services, tx, Condition(INSTALLATION, AlertKind.WORKER_SILENT, WORKER, f"the job {waiting.id} waits"))


def _incidents(services: Services) -> None:
    """What happened and did not happen again."""
    with services.db.read() as tx:
        known = tx.alerts.lasting_of(INCIDENTS, BATCH)
    now = services.clock.now()
    _end_all(services, [alert for alert in known if now - alert.last_seen >= services.settings.alert_incident])


def _deferred(services: Services) -> None:
    """Alerts that hooks were not told of, because they had been told of the same shortly before, and that last."""
    now = services.clock.now()
    with services.db.read() as tx:
        due = [
            alert
            for alert in tx.alerts.untold(BATCH)
            if not 0 <= now - tx.alerts.last_told(alert.tenant_id, alert.subject_id, alert.kind) < services.settings.alert_quiet
        ]
    for alert in due:
        with services.db.write() as tx:
            for still in tx.alerts.lasting(alert.tenant_id, alert.subject_id, [alert.kind]):
                if still.told is None:
                    tx.alerts.save(replace(still, told=now))
                    _add_event(services, tx, still, EventState.RAISED)


def _old(services: Services) -> None:
    now = services.clock.now()
    with services.db.write() as tx:
        tx.hooks.forget_events(now - EVENTS_KEPT)
        tx.alerts.forget(now - ALERTS_KEPT)


def _keys(services: Services) -> None:
    """Ask the keys of policies that nobody uses: those whose cached key nears its end (R-118), and those with an alert that may be over."""
    now, settings = services.clock.now(), services.settings
    probed_until = now - settings.probe_interval

    def renew_at(workload: Workload) -> int:
        return now - (services.keyring.max_age(workload) - settings.renew_before)

    wanted: list[str] = []
    with services.db.read() as tx:
        for workload in (Workload.MAIL, Workload.FILES):
            after = now - services.keyring.max_age(workload)
            wanted += tx.policies.ageing(workload, after=after, until=renew_at(workload), probed_until=probed_until, limit=MOST_ASKED)
        for opened in services.keyring.opened():
            policy = opened.policy
            if (state := _state(tx, policy.id)) and max(opened.opened_at, state.succeeded_at) <= renew_at(policy.workload):
                wanted += [policy.id] if state.probed_at <= probed_until else []
        for alert in tx.alerts.lasting_of(KEY_KINDS, BATCH):
            if (state := _state(tx, alert.subject_id)) and state.probed_at <= now - settings.alert_recheck:
                wanted.append(alert.subject_id)
    for policy_id in dict.fromkeys(wanted):
        if services.clock.now() - now > LONGEST_ROUND:
            return  # vaults that are slow to fail: the next round goes on
        try:
            services.keyring.renew(policy_id)
        except KeysteadError as error:
            _log.warning("asking the keys of the policy %s failed: %s", policy_id, error)


def _state(tx: Tx, policy_id: str) -> PolicyState | None:
    try:
        return tx.policies.state(policy_id)
    except IntegrityFailure:
        return None  # whoever uses the policy is told; here it must not stand in the way of others


def _hooks(services: Services) -> None:
    """Hooks that are not configured any more have nothing to fail at."""
    names = {hook.name for hook in services.hooks}
    with services.db.read() as tx:
        known = tx.alerts.lasting_of([AlertKind.HOOK_FAILING], BATCH)
    _end_all(services, [alert for alert in known if alert.subject_id not in names])


def _end_all(services: Services, over: Sequence[Alert]) -> None:
    if not over:
        return
    with services.db.write() as tx:
        for alert in over:
            resolve_alerts(services, tx, alert.tenant_id, alert.subject_id, [alert.kind])


# -- telling --------------------------------------------------------------------------------------------------------------------------


def message_of(event: Event) -> Message:
    """What a hook sends of an event: ids and the words of its kind."""
    about = ABOUT[event.kind]
    return Message(
        id=event.id,
        alert_id=event.alert_id,
        kind=event.kind.value,
        severity=event.severity.value,
        state=event.state.value,
        tenant_id=event.tenant_id,
        subject_id=event.subject_id,
        when=event.at,
        text=about.text,
        mend=about.mend,
    )


def test_message(services: Services, hook: Hook) -> Message:
    """What a hook sends when it is tried out."""
    return Message(
        id=new_id(services.random),
        alert_id=new_id(services.random),
        kind=EventState.TEST.value,
        severity=Severity.WARNING.value,
        state=EventState.TEST.value,
        tenant_id=INSTALLATION,
        subject_id=hook.name,
        when=services.clock.now(),
        text="somebody tries out this hook",
        mend="nothing needs to be done",
    )


@dataclass(frozen=True, slots=True)
class _Taken:
    """A hook under lease, and the event it is to be told of."""

    state: HookState
    event: Event


def deliver(services: Services, hook: Hook) -> bool:
    """Tell a hook its next event, if it has one and it is time; whether it was tried.

    One process at a time, under a lease. A crash after the sending and before the position moved on sends the event again.
    """
    taken = _take(services, hook)
    if taken is None:
        return False
    services.checkpoint("hook: leased")
    try:
        hook.send(message_of(taken.event), services.clock.now())
        failure = ""
    except NotDelivered as error:
        failure = str(error)
    except Exception as error:  # noqa: BLE001 - a defect of ours must not let the hook fall silent: it counts as a failure
        _log.exception("the hook %s met a defect", hook.name)
        failure = f"defect: {type(error).__name__}"
    services.checkpoint("hook: sent")
    with services.db.write() as tx:
        held = tx.hooks.state(hook.name)
        if held is None or (held.lease_owner, held.lease_until) != (taken.state.lease_owner, taken.state.lease_until):
            return True  # it took so long that another process went on: what it stored is the later word
        _store(services, tx, taken, failure)
    if failure:
        _log.warning("the hook %s did not get through: %s", hook.name, failure)
    return True


def _take(services: Services, hook: Hook) -> _Taken | None:
    """The next event a hook wants, under a lease; None when there is none, it is too early, or another process is at it."""
    now = services.clock.now()
    with services.db.read() as tx:  # nothing to do is found without a writing transaction
        state = tx.hooks.state(hook.name)
        if state is not None and (not _due(state, now) or not tx.hooks.events_after(state.position, 1)):
            return None
    with services.db.write() as tx:
        state = tx.hooks.state(hook.name) or HookState(hook.name, since=now)
        if not _due(state, now):
            return None
        state, event = _next(tx, hook, state)
        if event is not None:
            state = replace(state, lease_owner=services.owner, lease_until=now + HOOK_LEASE)
        tx.hooks.save_state(state)
        return None if event is None else _Taken(state, event)


def _due(state: HookState, now: int) -> bool:
    """Whether the wait after a failure is over and nobody else is at it; a lease far in the future is a clock's that was set back."""
    return state.not_before <= now and not now < state.lease_until <= now + HOOK_LEASE


def _next(tx: Tx, hook: Hook, state: HookState) -> tuple[HookState, Event | None]:
    """The first event after the hook's position that it wants, with the position moved past those it does not."""
    tenant = tx.tenants.find(hook.tenant) if hook.tenant else None
    while events := tx.hooks.events_after(state.position, BATCH):
        ended = tx.hooks.ended([event.alert_id for event in events if event.at < state.since])
        for event in events:
            if _wanted(hook, event, tenant.id if tenant else hook.tenant) and (event.at >= state.since or event.alert_id not in ended):
                return state, event
            state = replace(state, position=event.sequence)
    return state, None


def _wanted(hook: Hook, event: Event, tenant_id: str) -> bool:
    """Its kind, its tenant, and never a hook's own failure: it would hear of it only when it is over, and fail once more at it."""
    own = event.kind is AlertKind.HOOK_FAILING and event.subject_id == hook.name
    return not own and (not hook.kinds or event.kind in hook.kinds) and (not hook.tenant or event.tenant_id == tenant_id)


def _store(services: Services, tx: Tx, taken: _Taken, failure: str) -> None:
    """Move on after a delivery, or wait after a failure; give an event up that has failed for long enough."""
    now, settings, state = services.clock.now(), services.settings, taken.state
    passed = replace(state, position=taken.event.sequence, not_before=0, lease_owner="", lease_until=0)
    if not failure:
        tx.hooks.save_state(replace(passed, attempts=0, failing_since=0, last_error=""))
        resolve_alerts(services, tx, INSTALLATION, state.name, [AlertKind.HOOK_FAILING])
        return
    failing_since, attempts = state.failing_since or now, state.attempts + 1
    given_up = now - max(failing_since, taken.event.at) >= settings.hook_give_up
    wait = wait_after(attempts, settings.hook_retry, settings.hook_longest_wait)
    failed = replace(
        passed if given_up else replace(state, lease_owner="", lease_until=0),
        attempts=attempts,
        failing_since=failing_since,
        not_before=now + wait,
        last_error=failure[:200],
    )
    tx.hooks.save_state(failed)
    if attempts >= FAILURES_TO_ALERT:
        detail = f"failed {attempts} times in a row" + (f"; the event {taken.event.id} was given up" if given_up else "")
        raise_alert(services, tx, Condition(INSTALLATION, AlertKind.HOOK_FAILING, state.name, detail, escalated=given_up))


# -- in the background ----------------------------------------------------------------------------------------------------------------


@contextmanager
def standing_watch(services: Services) -> Iterator[None]:
    """While the block runs, watch every minute and tell every hook, each in a thread of its own; what `serve` and `worker` do."""
    stopped = threading.Event()

    def every(wait: int, act: Callable[[], bool]) -> None:
        while not stopped.is_set():
            try:
                busy = act()
            except Exception as error:  # noqa: BLE001 - the database may be gone for a while; the thread must outlive that
                _log.warning("alerts: %s", error)
                busy = False
            if not busy:
                stopped.wait(wait / 1_000)

    def watching() -> bool:
        watch(services)
        return False

    threads = [threading.Thread(target=every, args=(WATCH_EVERY, watching), name="alerts", daemon=True)]
    threads += [
        threading.Thread(target=every, args=(LOOK_EVERY, lambda hook=hook: deliver(services, hook)), name=f"hook-{hook.name}", daemon=True)
        for hook in services.hooks
    ]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stopped.set()
        until = time.monotonic() + STOP_SECONDS
        for thread in threads:  # what is cut off is sent, or looked at, again by the next process
            thread.join(max(0.0, until - time.monotonic()))
