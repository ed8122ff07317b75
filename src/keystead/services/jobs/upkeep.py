"""Upkeep: removing what is due, and collecting what a crash left unreferenced."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING

from keystead.ports.keystore import Compartment
from keystead.services.auditing import record_system
from keystead.services.jobs.rows import new_job
from keystead.services.jobs.slices import done, save

if TYPE_CHECKING:
    from keystead.core.jobs import Job
    from keystead.services.context import Services

BATCH = 500
EVERYWHERE = ""
"""The tenant of upkeep jobs: none."""


def clean(services: Services, job: Job) -> Job:
    """Delete objects whose time has come. The row is the intent: it is forgotten after the object is gone, and deleting twice is harmless."""
    with services.db.read() as tx:
        due = tx.mailboxes.objects_due(services.clock.now(), BATCH)
    for ref in due:
        services.objects.delete(ref)
    services.checkpoint("clean: objects deleted")
    with services.db.write() as tx:
        tx.mailboxes.forget_objects(due)
        return save(services, tx, job, done=job.done + len(due)) if len(due) == BATCH else done(services, tx, job, done=job.done + len(due))


def collect_orphans(services: Services, job: Job) -> Job:
    """Remove objects that no row names, and destroy key store keys that no policy names, once they are older than the grace period.

    Both come only from a crash between an outside write and the commit that would have named it. The grace period protects writes under way.
    """
    with services.db.read() as tx:
        policies_done = job.parameters.get("keys") == "done"
    if not policies_done:
        return _collect_keys(services, job)
    removed = 0
    grace = services.settings.orphan_grace / 1_000
    old = (found.ref for found in services.objects.all_objects() if found.age_seconds >= grace)
    while batch := list(islice(old, BATCH)):
        with services.db.read() as tx:
            orphans = tx.mailboxes.unknown_objects(batch)
        for ref in orphans:
            services.objects.delete(ref)
        removed += len(orphans)
    with services.db.write() as tx:
        if removed:
            record_system(services, tx, EVERYWHERE, "Remove-OrphanedObjects", job.id, (("Objects", str(removed)),), request_id=job.id)
        return done(services, tx, job, done=removed)


def _collect_keys(services: Services, job: Job) -> Job:
    """Intent and record first, then the destruction, which is idempotent; the job's own parameters say how far it is."""
    horizon = services.clock.now() - services.settings.orphan_grace
    for compartment in Compartment:
        old = [entry.key_id for entry in services.keystore.entries(compartment) if entry.created <= horizon]
        with services.db.read() as tx:
            orphans = tx.policies.drop_missing_keys(old)
        if not orphans:
            continue
        with services.db.write() as tx:
            record_system(
                services,
                tx,
                EVERYWHERE,
                "Remove-OrphanedKeys",
                job.id,
                (("Compartment", compartment.value), ("Keys", ",".join(orphans[:50]))),
                request_id=job.id,
            )
        services.checkpoint("collect: destruction recorded")
        services.keystore.destroy(compartment, orphans)
        services.checkpoint("collect: keys destroyed")
    with services.db.write() as tx:
        return save(services, tx, job, parameters=job.parameters | {"keys": "done"})


def schedule_upkeep(services: Services) -> None:
    """Make the upkeep jobs that are wanted and not there yet."""
    with services.db.write() as tx:
        if tx.mailboxes.objects_due(services.clock.now(), 1) and not tx.jobs.exists("clean", EVERYWHERE):
            tx.jobs.insert([new_job(services, EVERYWHERE, "clean", EVERYWHERE, priority=8)])
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
