"""Changing the hierarchy a mailbox lies under: re-wrap, then move (R-088, R-089, R-095 to R-102, R-150).

`change_hierarchy` re-wraps the mailbox keys of all mailboxes that wait for a policy, some thousands a slice; from then on the new policy's
keys decide who may read. It starts a `move_mailbox` for each mailbox that holds anything, which makes a fresh mailbox key, re-encrypts all
content under it, and at its end destroys the old key. Content is sealed at every moment (R-097).

The state of the mailboxes is the cursor: a slice takes those that still wait. New objects are written before the commit, old ones are
deleted after a grace period, for readers that hold their place.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from keystead.core.errors import IntegrityFailure, NotFound, PreconditionFailed
from keystead.core.formats.mailbox_items import (
    MAILBOX_KEY,
    PART_BYTES,
    content_hash,
    item_context,
    key_name,
    part_box,
    stands_alone,
)
from keystead.core.formats.sealed_object import OVERHEAD_BYTES, reseal_into
from keystead.core.formats.wrapped_key import rewrap_all
from keystead.core.keys.decide import Operation
from keystead.core.policies.policy import POLICY_KEY_VERSION, CopyRole, Workload
from keystead.core.stores.mailbox import Item, Mailbox, MailboxKey, MoveState
from keystead.core.stores.objects import StoredObject
from keystead.ports.tx import MovedItem
from keystead.services.auditing import record_system
from keystead.services.items import key_of, open_folder, open_summary, seal_summary, sealed_folder, stored_box
from keystead.services.jobs.packing import packs_for
from keystead.services.jobs.rows import new_job
from keystead.services.jobs.slices import done, save

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from keystead.core.jobs import Job
    from keystead.core.keys.hierarchy import MailboxKeys
    from keystead.ports.tx import Tx
    from keystead.services.context import Services
    from keystead.services.keyring import OpenPolicy

# -- the first half: re-wrap ----------------------------------------------------------------------------------------------------------


SAMPLE = 200
"""How many waiting mailboxes are looked at for the policies they come from; those of others wait for the next slice."""


def change_hierarchy(services: Services, job: Job) -> Job:
    """One slice of re-wrapping."""
    policy_id = job.parameters["policy_id"]
    with services.db.read() as tx:
        waiting = tx.mailboxes.awaiting(job.tenant_id, policy_id, SAMPLE)
    if not waiting:
        with services.db.write() as tx:
            record_system(services, tx, job.tenant_id, "Complete-PolicyAssignment", policy_id, (("Job", job.id),), request_id=job.id)
            return done(services, tx, job)
    new = services.keyring.open(policy_id, Operation.SYSTEM, request_id=job.id)
    if new.policy.tenant_id != job.tenant_id:  # nobody can ask for that: rows were forged, and what is wrapped so would never open again
        raise IntegrityFailure(
            "policy_another_tenant", f"the job {job.id} names a policy of another tenant", "restore the job's row from a backup"
        )
    if new.opened_by is CopyRole.AVAILABILITY:
        raise PreconditionFailed(
            "target_keys_unusable",
            f"neither customer key of the policy {new.policy.name} opens; nothing is moved under it",
            "mend its keys",
        )
    old = {source: _old_policy(services, job, source, new) for source in {mailbox.policy_id for mailbox, _keys in waiting}}
    services.checkpoint("re-wrap: policies opened")
    with services.db.write() as tx:
        # Read inside: mailboxes of a policy that came between are left for the next slice.
        batch = [
            (mailbox, keys)
            for mailbox, keys in tx.mailboxes.awaiting(job.tenant_id, policy_id, services.settings.rewrap_batch)
            if mailbox.policy_id in old
        ]
        changed, keys, jobs = _rewrapped(services, job, batch, old, new)
        tx.mailboxes.rewrapped(job.tenant_id, policy_id, changed, keys)
        tx.mailboxes.drop_folders([mailbox.id for mailbox in changed if not mailbox.item_count])
        tx.jobs.insert(jobs)
        return save(services, tx, job, done=job.done + len(batch), total=max(job.total, job.done + len(batch)))


def _old_policy(services: Services, job: Job, policy_id: str, new: OpenPolicy) -> OpenPolicy:
    """Open the policy mailboxes come from. Its availability key may recover them onto another customer policy, never to provider keys."""
    old = services.keyring.open(policy_id, Operation.SYSTEM, request_id=job.id)
    if new.policy.workload is Workload.PROVIDER and old.opened_by is CopyRole.AVAILABILITY:
        raise PreconditionFailed(
            "old_keys_needed",
            f"the customer keys of the policy {old.policy.name} must open until its mailboxes are back under provider keys (R-102)",
            "give the service access again, or assign another customer policy",
        )
    return old


def _rewrapped(
    services: Services, job: Job, batch: Sequence[tuple[Mailbox, list[MailboxKey]]], old: dict[str, OpenPolicy], new: OpenPolicy
) -> tuple[list[Mailbox], list[MailboxKey], list[Job]]:
    """The mailboxes, keys and jobs after re-wrapping.

    An empty mailbox needs no move: it gets its fresh key here and is done. Folders that deleted items left in it lie under the old key, so
    they go with it.
    """
    now = services.clock.now()
    changed: list[Mailbox] = []
    keys: list[MailboxKey] = []
    jobs: list[Job] = []
    parameters = {"policy_id": new.policy.id}
    for policy_id, source in old.items():
        group = [(mailbox, wrapped) for mailbox, wrapped in batch if mailbox.policy_id == policy_id]
        with_content = [(mailbox, wrapped) for mailbox, wrapped in group if mailbox.item_count]
        keys += _rewrapped_keys(services, job.tenant_id, [key for _mailbox, wrapped in with_content for key in wrapped], source, new)
        for mailbox, _wrapped in group:
            if mailbox.item_count:
                changed.append(mailbox)
                jobs.append(
                    new_job(
                        services,
                        job.tenant_id,
                        "move-mailbox",
                        mailbox.id,
                        parameters=parameters,
                        parent_id=job.id,
                        total=mailbox.size_bytes,
                        now=now,
                    )
                )
            else:
                version = mailbox.key_version + 1
                keys.append(MailboxKey(mailbox.id, version, new.new_mailbox_key(mailbox.id, version, services.random)))
                changed.append(replace(mailbox, key_version=version, move_state=MoveState.DONE, moved_at=now))
    return changed, keys, jobs


def _rewrapped_keys(
    services: Services, tenant_id: str, keys: Sequence[MailboxKey], old: OpenPolicy, new: OpenPolicy
) -> Iterator[MailboxKey]:
    pairs = rewrap_all(
        ((key_name(key.mailbox_id, key.version), key.wrapped) for key in keys),
        tenant_id=tenant_id,
        kind=MAILBOX_KEY,
        old=old.keys.wrap,
        old_id=old.policy.id,
        old_version=POLICY_KEY_VERSION,
        new=new.keys.wrap,
        new_id=new.policy.id,
        new_version=POLICY_KEY_VERSION,
        random=services.random,
    )
    for key, (_name, wrapped) in zip(keys, pairs, strict=True):
        yield MailboxKey(key.mailbox_id, key.version, wrapped)


# -- the second half: move ------------------------------------------------------------------------------------------------------------


class _Buffers(threading.local):
    """One set for every thread that moves mailboxes."""

    def __init__(self) -> None:
        self.scratch = memoryview(bytearray(PART_BYTES + OVERHEAD_BYTES))
        self.part = memoryview(bytearray(PART_BYTES + OVERHEAD_BYTES))


_buffers = _Buffers()


@dataclass(frozen=True, slots=True)
class _Move:
    """A move under way: the mailbox, its opened keys by version, and the version everything goes to."""

    mailbox: Mailbox
    keys: dict[int, MailboxKeys]
    version: int

    @property
    def new(self) -> MailboxKeys:
        """The key everything goes to."""
        return key_of(self.keys, self.version, f"mailbox {self.mailbox.upn}")

    def old(self, item: Item) -> MailboxKeys:
        """The key an item still lies under."""
        return key_of(self.keys, item.key_version, f"item {item.id}")


def move_mailbox(services: Services, job: Job) -> Job:
    """One slice of re-encrypting a mailbox under a fresh key."""
    with services.db.read() as tx:
        mailbox = tx.mailboxes.by_id(job.tenant_id, job.subject_id)
        wrapped = tx.mailboxes.keys(job.subject_id)
    if mailbox is None or mailbox.policy_id != job.parameters["policy_id"] or mailbox.pending_policy_id is not None:
        with services.db.write() as tx:  # deleted, or another policy was assigned meanwhile, which has a job of its own
            return done(services, tx, job)
    opened = services.keyring.open(mailbox.policy_id, Operation.SYSTEM, request_id=job.id)
    keys = {key.version: opened.mailbox_keys(mailbox.id, key.version, key.wrapped) for key in wrapped}
    if "version" not in job.parameters:
        return _start(services, job, mailbox, opened, keys)
    move = _Move(mailbox, keys, int(job.parameters["version"]))
    with services.db.read() as tx:
        items = _slice(services, tx.mailboxes.items_below(mailbox.id, move.version, services.settings.slice_items))
    if not items:
        return _finish(services, job, move)
    try:
        moved, objects = _reencrypted(services, move, items)
    except IntegrityFailure as error:
        _mark_failed(services, job, move, error)
        raise
    services.checkpoint("move: new objects stored")
    with services.db.write() as tx:
        if _superseded(tx, job, move):
            return done(services, tx, job)
        for stored in objects:
            tx.objects.insert([stored])
        count = tx.mailboxes.move_items(mailbox.id, moved, below=move.version)
        if count < len(moved):
            for stored in objects:  # all that lies in it was deleted meanwhile
                tx.mailboxes.retire_object_if_empty(stored.ref, services.clock.now())
        tx.mailboxes.mark_emptied(sorted({item.object_ref for item in items}))
        tx.mailboxes.set_move(replace(mailbox, moved_items=mailbox.moved_items + count, move_state=MoveState.MOVING))
        return save(services, tx, job, done=job.done + sum(item.size for item in items), total=max(job.total, job.done))


def _start(services: Services, job: Job, mailbox: Mailbox, opened: OpenPolicy, keys: dict[int, MailboxKeys]) -> Job:
    """The first slice: a fresh mailbox key, and the folders, which are few, under it."""
    version = max(keys) + 1
    wrapped = opened.new_mailbox_key(mailbox.id, version, services.random)
    fresh = opened.mailbox_keys(mailbox.id, version, wrapped)
    with services.db.write() as tx:
        now = tx.mailboxes.by_id(job.tenant_id, mailbox.id)
        if now is None or (now.policy_id, now.pending_policy_id, now.key_version) != (mailbox.policy_id, None, mailbox.key_version):
            return done(services, tx, job)
        tx.mailboxes.insert_key(MailboxKey(mailbox.id, version, wrapped))
        for folder in tx.mailboxes.folders(mailbox.id):
            name = open_folder(mailbox.tenant_id, key_of(keys, folder.key_version, f"folder {folder.id}"), folder)
            tx.mailboxes.update_folder(sealed_folder(services, mailbox, fresh, version, folder.id, name))
        tx.mailboxes.set_move(replace(mailbox, key_version=version, move_state=MoveState.MOVING, moved_items=0))
        return save(services, tx, job, parameters=job.parameters | {"version": str(version)}, total=mailbox.size_bytes)


def _finish(services: Services, job: Job, move: _Move) -> Job:
    """The last slice: nothing lies under older keys any more, so they are destroyed, and their objects become due."""
    now = services.clock.now()
    mailbox = move.mailbox
    with services.db.write() as tx:
        if _superseded(tx, job, move):
            return done(services, tx, job)
        if tx.mailboxes.count_below(mailbox.id, move.version)[0]:
            return save(services, tx, job)
        due = now + services.settings.object_grace
        tx.mailboxes.remove_keys_below(mailbox.id, move.version)
        tx.mailboxes.retire_objects_below(mailbox.id, move.version, due)
        tx.mailboxes.set_move(replace(mailbox, move_state=MoveState.DONE, moved_at=now))
        tx.jobs.insert([new_job(services, job.tenant_id, "clean", mailbox.id, not_before=due, priority=8)])
        record_system(
            services,
            tx,
            job.tenant_id,
            "Complete-MailboxMove",
            mailbox.id,
            (("DataEncryptionPolicy", mailbox.policy_id), ("Items", str(mailbox.item_count)), ("Job", job.id)),
            request_id=job.id,
        )
        return done(services, tx, job, done=job.total)


def _superseded(tx: Tx, job: Job, move: _Move) -> bool:
    """A fresh look inside the transaction: was the mailbox deleted or given another policy since?"""
    now = tx.mailboxes.by_id(job.tenant_id, move.mailbox.id)
    return now is None or (now.policy_id, now.pending_policy_id, now.key_version) != (move.mailbox.policy_id, None, move.version)


def _mark_failed(services: Services, job: Job, move: _Move, error: IntegrityFailure) -> None:
    """Say that the move does not get on. A runner that lost the job meanwhile says nothing: what it failed at may be long done."""
    mailbox = move.mailbox
    with services.db.write() as tx:
        if _superseded(tx, job, move) or not tx.jobs.extend(job, services.clock.now() + services.settings.job_lease):
            return
        tx.mailboxes.set_move(replace(mailbox, move_state=MoveState.FAILED))
        record_system(
            services,
            tx,
            job.tenant_id,
            "Complete-MailboxMove",
            mailbox.id,
            (("Code", error.code), ("Detail", error.detail), ("Job", job.id)),
            request_id=job.id,
            result="Failed",
        )


def _slice(services: Services, items: Iterable[Item]) -> list[Item]:
    """As many of the items as one slice takes, by bytes; at least one."""
    chosen: list[Item] = []
    size = 0
    for item in items:
        size += item.length
        if chosen and size > services.settings.slice_bytes:
            break
        chosen.append(item)
    return chosen


def _reencrypted(services: Services, move: _Move, items: Sequence[Item]) -> tuple[list[MovedItem], list[StoredObject]]:
    """Write the items into new objects under the new key."""
    moved: list[MovedItem] = []
    objects: list[StoredObject] = []
    tenant_id, mailbox_id = move.mailbox.tenant_id, move.mailbox.id
    with packs_for(services, move.new, tenant_id=tenant_id, mailbox_id=mailbox_id, key_version=move.version) as packs:
        for item, box in _boxes(services, items):
            if box is None:
                large, stored = _reencrypted_large(services, move, item)
                moved.append(large)
                objects.append(stored)
                continue
            ref, writer = packs.writer(len(box) - OVERHEAD_BYTES)
            context = item_context(tenant_id, item.id)
            entry = writer.add_resealed(
                item.id,
                box,
                scratch=_buffers.scratch,
                old=move.old(item).seal,
                old_id=mailbox_id,
                old_version=item.key_version,
                old_context=context,
                new_context=context,
            )
            moved.append(_moved(services, move, item, ref, entry.offset, entry.length))
        return moved, objects + packs.finish()


def _boxes(services: Services, items: Sequence[Item]) -> Iterator[tuple[Item, memoryview | None]]:
    """Each item with its sealed bytes, reading neighbours in one piece; None for items that stand alone."""
    start = 0
    while start < len(items):
        first = items[start]
        if _stands_alone(first):
            yield first, None
            start += 1
            continue
        end = start + 1
        while end < len(items) and items[end].object_ref == first.object_ref and not _stands_alone(items[end]):
            end += 1
        last = items[end - 1]
        try:
            data = memoryview(_stored(services, first, first.offset, last.offset + last.length - first.offset))
        except IntegrityFailure:
            for item in items[start:end]:  # find the one, so that the error names it
                _stored(services, item, item.offset, item.length)
            raise
        for item in items[start:end]:
            yield item, data[item.offset - first.offset : item.offset - first.offset + item.length]
        start = end


def _stored(services: Services, item: Item, offset: int, length: int) -> bytes:
    try:
        return stored_box(services, item, offset, length, f"item {item.id}")
    except NotFound as error:
        raise IntegrityFailure(
            "object_missing", f"the object of item {item.id} is missing", "restore the object store from a backup"
        ) from error


def _stands_alone(item: Item) -> bool:
    return stands_alone(item.size, item.parts)


def _reencrypted_large(services: Services, move: _Move, item: Item) -> tuple[MovedItem, StoredObject]:
    ref = services.objects.new_ref(services.random)

    def parts() -> Iterator[memoryview]:
        for index in range(item.parts):
            offset, length = part_box(item.size, index)
            context = item_context(move.mailbox.tenant_id, item.id, index, item.parts)
            size = reseal_into(
                _buffers.part,
                _buffers.scratch,
                _stored(services, item, offset, length),
                old=move.old(item).seal,
                old_id=move.mailbox.id,
                old_version=item.key_version,
                old_context=context,
                new=move.new.seal,
                new_id=move.mailbox.id,
                new_version=move.version,
                new_context=context,
                nonce=services.random(12),
                object_name=f"part {index} of item {item.id}",
            )
            yield _buffers.part[:size]

    size = services.objects.put(ref, parts())
    return _moved(services, move, item, ref, 0, size), StoredObject(ref, move.mailbox.id, move.version, size, 1, large=True)


def _moved(services: Services, move: _Move, item: Item, ref: str, offset: int, length: int) -> MovedItem:
    summary = open_summary(move.mailbox.tenant_id, move.old(item), item)
    return MovedItem(
        id=item.id,
        key_version=move.version,
        content_hash=content_hash(move.new, bytes.fromhex(summary.sha256), summary.ordinal),
        summary=seal_summary(services, move.mailbox, move.new, move.version, item.id, summary),
        object_ref=ref,
        offset=offset,
        length=length,
    )
