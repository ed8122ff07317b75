"""Upkeep: removing what is due, and collecting what a crash left unreferenced."""

from __future__ import annotations

import json
from itertools import islice
from typing import TYPE_CHECKING, TypeVar

from keystead.core.alerts import AlertKind, Condition
from keystead.core.jobs import JobState
from keystead.ports.clock import DAY, MINUTE
from keystead.ports.keystore import Compartment
from keystead.services import signing
from keystead.services.alerting import raise_alert, resolve_alerts
from keystead.services.auditing import record_system
from keystead.services.jobs.rows import new_job
from keystead.services.jobs.slices import done, kept, save

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from keystead.core.jobs import Job
    from keystead.services.context import Services

BATCH = 500
MOST_ORPHANS = 10_000
"""Objects marked at a time; the next run finds the rest."""
ENDED_TOKENS_KEPT = 30 * DAY
"""How long a token that ended is still known as that, and not as one that never was."""
_Thing = TypeVar("_Thing")
EVERYWHERE = ""
"""The tenant of upkeep jobs: none."""


def clean(services: Services, job: Job) -> Job:
    """Delete objects whose time has come. The row is the intent: it is forgotten after the object is gone, and deleting twice is harmless."""
    with services.db.read() as tx:
        due = tx.objects.due(services.clock.now(), BATCH)
    for ref in _kept(services, job, due):
        services.objects.delete(ref)
    services.checkpoint("clean: objects deleted")
    with services.db.write() as tx:
        tx.objects.forget(due)
        return save(services, tx, job, done=job.done + len(due)) if len(due) == BATCH else done(services, tx, job, done=job.done + len(due))


def collect_orphans(services: Services, job: Job) -> Job:
    """Remove objects that no row names, and destroy key store keys that no policy names: what a crash left behind.

    In two looks, `orphan_grace` apart, each at things that are at least as old: the first only marks, with an alert; the second removes what
    was marked and is still named by nobody. So an import under way is safe, and so is a database that was restored from a backup and does
    not know what came after it: there is time to notice.
    """
    if _MARKED not in job.parameters:
        return _mark(services, job)
    marked: dict[str, list[str]] = json.loads(job.parameters[_MARKED])
    removed = 0
    for compartment in Compartment:
        with services.db.read() as tx:
            orphans = tx.policies.drop_missing_keys(marked.get(compartment.value, []))
        if orphans:
            # Intent and record first, then the destruction, which is idempotent.
            _record_orphans(services, job, "Remove-OrphanedKeys", compartment.value, orphans)
            services.checkpoint("collect: destruction recorded")
            services.keystore.destroy(compartment, orphans)
            services.checkpoint("collect: keys destroyed")
        removed += len(orphans)
    with services.db.read() as tx:
        lost = tx.objects.unknown(marked.get(_OBJECTS, []))
    if lost:
        _record_orphans(services, job, "Remove-OrphanedObjects", _OBJECTS, lost)
        for ref in _kept(services, job, lost):
            services.objects.delete(ref)
    with services.db.write() as tx:
        resolve_alerts(services, tx, EVERYWHERE, job.id, [AlertKind.ORPHANS])
        return done(services, tx, job, done=removed + len(lost))


_MARKED, _OBJECTS = "marked", "objects"


def _mark(services: Services, job: Job) -> Job:
    """The first look."""
    now, grace = services.clock.now(), services.settings.orphan_grace
    marked: dict[str, list[str]] = {}
    for compartment in Compartment:
        old = [entry.key_id for entry in services.keystore.entries(compartment) if entry.created <= now - grace]
        with services.db.read() as tx:
            marked[compartment.value] = tx.policies.drop_missing_keys(old)
    marked[_OBJECTS] = []
    listed = _kept(services, job, services.objects.all_objects())
    aged = (found.ref for found in listed if found.age_seconds >= grace / 1_000)
    while (batch := list(islice(aged, BATCH))) and len(marked[_OBJECTS]) < MOST_ORPHANS:
        with services.db.read() as tx:
            marked[_OBJECTS] += tx.objects.unknown(batch)
    found = {where: len(names) for where, names in marked.items() if names}
    with services.db.write() as tx:
        if not found:
            return done(services, tx, job)
        told = ", ".join(f"{count} in {where}" for where, count in found.items())
        raise_alert(services, tx, Condition(EVERYWHERE, AlertKind.ORPHANS, job.id, f"named by no row: {told}; removed at the second look"))
        return save(
            services, tx, job, state=JobState.QUEUED, not_before=now + grace, parameters=job.parameters | {_MARKED: json.dumps(marked)}
        )


def _kept(services: Services, job: Job, things: Iterable[_Thing]) -> Iterator[_Thing]:
    """The things one by one, while the job stays ours: going through a large or distant store takes longer than a lease.

    Raises:
        LostLeaseError: another took the job meanwhile, or somebody cancelled it. Nothing is lost: it starts over.
    """
    since = services.clock.now()
    for thing in things:
        since = kept(services, job, since)
        yield thing


def _record_orphans(services: Services, job: Job, operation: str, where: str, names: list[str]) -> None:
    parameters = (("Where", where), ("Count", str(len(names))), ("Names", ",".join(names[:50])))
    with services.db.write() as tx:
        record_system(services, tx, EVERYWHERE, operation, job.id, parameters, request_id=job.id)


def keep_signing_keys(services: Services, job: Job) -> Job:
    """Replace the signing key when its time has come, and forget keys and tokens that ended."""
    signing.keep_up(services)
    with services.db.write() as tx:
        tx.sign_in.remove_expired(services.clock.now() - ENDED_TOKENS_KEPT)
        return done(services, tx, job)


UPKEEP = "upkeep"


def ensure_upkeep(services: Services) -> None:
    """Make the job that keeps the installation up, where there is none yet; it never ends."""
    with services.db.read() as tx:
        if tx.jobs.exists(UPKEEP, EVERYWHERE):
            return
    with services.db.write() as tx:
        if not tx.jobs.exists(UPKEEP, EVERYWHERE):
            tx.jobs.insert([new_job(services, EVERYWHERE, UPKEEP, EVERYWHERE, priority=1)])


def keep_up(services: Services, job: Job) -> Job:
    """Once a minute, by one process of all: the one that holds this job's lease."""
    schedule_upkeep(services)
    services.upkeep()
    with services.db.write() as tx:
        return save(services, tx, job, state=JobState.QUEUED, not_before=services.clock.now() + MINUTE)


def schedule_upkeep(services: Services) -> None:
    """Make the upkeep jobs that are wanted and not there yet."""
    with services.db.write() as tx:
        if signing.due(services, tx) and not tx.jobs.exists("signing-keys", EVERYWHERE):
            tx.jobs.insert([new_job(services, EVERYWHERE, "signing-keys", EVERYWHERE, priority=8)])
        if tx.objects.due(services.clock.now(), 1) and not tx.jobs.exists("clean", EVERYWHERE):
            tx.jobs.insert([new_job(services, EVERYWHERE, "clean", EVERYWHERE, priority=8)])
        tx.sites.remove_expired_locks(services.clock.now())
        if not tx.jobs.exists("collect-orphans", EVERYWHERE):
            tx.jobs.insert(
                [
                    new_job(
                        services,
                        EVERYWHERE,
                        "collect-orphans",
                        EVERYWHERE,
                        priority=9,
                        not_before=services.clock.now() + services.settings.orphan_grace,
                    )
                ]
            )
