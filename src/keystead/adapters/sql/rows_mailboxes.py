"""Mailboxes, their keys, folders, items and objects."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import BigInteger, and_, bindparam, case, delete, func, insert, literal, null, or_, select, text, update

from keystead.adapters.sql.keystead_schema import UNMOVED, folders, items, mailbox_delegates, mailbox_keys, mailboxes, objects
from keystead.adapters.sql.rows import Lookup, Many, chunks, conflict
from keystead.core.stores.mailbox import Folder, Item, Mailbox, MailboxKey, MailboxType, MoveState
from keystead.ports.tx import ItemPlace

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sqlalchemy import ColumnElement, Connection

    from keystead.ports.tx import MovedItem

PART = 10_000
"""Mailboxes that one statement changes."""

_MAILBOX_COLUMNS = [mailboxes.c[name] for name in Mailbox.__dataclass_fields__]
_ITEM_COLUMNS = [items.c[name] for name in Item.__dataclass_fields__]

_PLACE = Lookup(
    select(*(column.label(f"m_{column.name}") for column in _MAILBOX_COLUMNS), *_ITEM_COLUMNS, mailbox_keys.c.wrapped)
    .select_from(mailboxes)
    .join(items, items.c.mailbox_id == mailboxes.c.id)
    .join(
        mailbox_keys,
        and_(mailbox_keys.c.mailbox_id == items.c.mailbox_id, mailbox_keys.c.version == items.c.key_version),
        isouter=True,  # an item whose key is gone is damaged, not absent
    )
    .where(
        mailboxes.c.tenant_id == bindparam("tenant"),
        mailboxes.c.upn == bindparam("upn"),
        items.c.id == bindparam("item"),
    )
)
_FIND = Lookup(select(*_MAILBOX_COLUMNS).where(mailboxes.c.tenant_id == bindparam("tenant"), mailboxes.c.upn == bindparam("upn")))
_BY_ID = Lookup(select(*_MAILBOX_COLUMNS).where(mailboxes.c.tenant_id == bindparam("tenant"), mailboxes.c.id == bindparam("mailbox")))
_KEYS = Lookup(select(mailbox_keys).where(mailbox_keys.c.mailbox_id == bindparam("mailbox")).order_by(mailbox_keys.c.version))
_FOLDERS = Lookup(select(folders).where(folders.c.mailbox_id == bindparam("mailbox")))


_REWRAPPED = Many(
    update(mailboxes)
    .where(
        mailboxes.c.id == bindparam("b_id"),
        mailboxes.c.tenant_id == bindparam("b_tenant"),
        mailboxes.c.pending_policy_id == bindparam("b_policy"),
    )
    .values(
        policy_id=bindparam("b_policy"),
        pending_policy_id=null(),
        key_version=bindparam("b_version"),
        move_state=bindparam("b_state"),
        moved_at=bindparam("b_moved"),
    )
)
_NEW_KEY = Many(
    insert(mailbox_keys).values(mailbox_id=bindparam("b_mailbox"), version=bindparam("b_version"), wrapped=bindparam("b_wrapped"))
)
_SAME_KEY = Many(
    update(mailbox_keys)
    .where(mailbox_keys.c.mailbox_id == bindparam("b_mailbox"), mailbox_keys.c.version == bindparam("b_version"))
    .values(wrapped=bindparam("b_wrapped"))
)
_NEW_ITEM = Many(insert(items))
_ADDED = Many(
    update(mailboxes)
    .where(mailboxes.c.id == bindparam("b_id"))
    .values(item_count=mailboxes.c.item_count + bindparam("b_count"), size_bytes=mailboxes.c.size_bytes + bindparam("b_size"))
)
_MOVED_ITEM = Many(
    update(items)
    .where(items.c.id == bindparam("b_id"), items.c.mailbox_id == bindparam("b_mailbox"), items.c.key_version < bindparam("b_below"))
    .values(
        key_version=bindparam("b_version"),
        content_hash=bindparam("b_hash"),
        summary=bindparam("b_summary"),
        object_ref=bindparam("b_ref"),
        offset=bindparam("b_offset"),
        length=bindparam("b_length"),
    )
)


def _key_values(key: MailboxKey) -> dict[str, object]:
    return {"b_mailbox": key.mailbox_id, "b_version": key.version, "b_wrapped": key.wrapped}


_TYPES = {kind.value: kind for kind in MailboxType}
_STATES = {state.value: state for state in MoveState}
"""Looking a member up here takes a fifth of what calling the class does, and a re-wrap does it for every mailbox."""


def _mailbox(values: Sequence[Any]) -> Mailbox:
    fields = list(values)
    fields[3] = _TYPES.get(fields[3]) or MailboxType(fields[3])
    fields[4] = bool(fields[4])
    fields[9] = _STATES.get(fields[9]) or MoveState(fields[9])
    return Mailbox(*fields)


def _item(values: Sequence[Any]) -> Item:
    return Item(*values)


def _folder(row: Any) -> Folder:  # noqa: ANN401 - a row of `_FOLDERS`
    return Folder(
        id=row.id,
        mailbox_id=row.mailbox_id,
        key_version=row.key_version,
        name_hash=row.name_hash,
        sealed_name=row.sealed_name,
    )


def _item_values(item: Item) -> dict[str, object]:
    return {name: getattr(item, name) for name in Item.__dataclass_fields__}


class SqlMailboxRows:
    """Implements ports.tx.MailboxRows."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def insert(self, mailbox: Mailbox, key: MailboxKey) -> None:
        values = {name: getattr(mailbox, name) for name in Mailbox.__dataclass_fields__} | {
            "type": mailbox.type.value,
            "move_state": mailbox.move_state.value,
        }
        with conflict("mailbox_exists", f"{mailbox.upn} has a mailbox already", "keystead mailbox statistics shows it"):
            self._connection.execute(insert(mailboxes).values(**values))
        self.insert_key(key)

    def find(self, tenant_id: str, upn: str) -> Mailbox | None:
        row = _FIND.first(self._connection, tenant=tenant_id, upn=upn)
        return _mailbox(row) if row else None

    def by_id(self, tenant_id: str, mailbox_id: str) -> Mailbox | None:
        row = _BY_ID.first(self._connection, tenant=tenant_id, mailbox=mailbox_id)
        return _mailbox(row) if row else None

    def page(self, tenant_id: str, *, after: str, limit: int) -> list[Mailbox]:
        query = (
            select(*_MAILBOX_COLUMNS)
            .where(mailboxes.c.tenant_id == tenant_id, mailboxes.c.upn > after)
            .order_by(mailboxes.c.upn)
            .limit(limit)
        )
        return [_mailbox(row) for row in self._connection.execute(query)]

    def licensed_users(self, tenant_id: str) -> tuple[int, int]:
        licensed = func.coalesce(func.sum(case((mailboxes.c.licensed, 1), else_=0)), 0)
        query = select(func.count(), licensed).where(
            mailboxes.c.tenant_id == tenant_id,
            mailboxes.c.type.in_([MailboxType.USER.value, MailboxType.MAIL_USER.value]),
        )
        row = self._connection.execute(query).one()
        return int(row[0]), int(row[1])

    def keys(self, mailbox_id: str) -> list[MailboxKey]:
        found = _KEYS.all(self._connection, mailbox=mailbox_id)
        return [MailboxKey(mailbox_id=row.mailbox_id, version=row.version, wrapped=row.wrapped) for row in found]

    def ask_hierarchy(self, tenant_id: str, mailbox_ids: Sequence[str] | None, policy_id: str, now: int) -> int:
        change = (
            update(mailboxes)
            .where(mailboxes.c.tenant_id == tenant_id)
            .values(pending_policy_id=policy_id, assigned_at=now, move_state=MoveState.QUEUED.value)
        )
        if mailbox_ids is None:
            # All that lie under another policy now or are on their way to another one.
            elsewhere = or_(
                and_(mailboxes.c.pending_policy_id.is_(None), mailboxes.c.policy_id != policy_id),
                and_(mailboxes.c.pending_policy_id.is_not(None), mailboxes.c.pending_policy_id != policy_id),
            )
            return sum(self._connection.execute(change.where(elsewhere, part)).rowcount for part in self._parts(tenant_id))
        return sum(self._connection.execute(change.where(mailboxes.c.id.in_(part))).rowcount for part in chunks(mailbox_ids))

    def _parts(self, tenant_id: str) -> Iterator[ColumnElement[bool]]:
        """Conditions that split the mailboxes of a tenant: SQLite keeps in memory what one statement changes, in case it fails half way."""
        after = ""
        while True:
            beyond = select(mailboxes.c.upn).where(mailboxes.c.tenant_id == tenant_id, mailboxes.c.upn > after)
            last = self._connection.execute(beyond.order_by(mailboxes.c.upn).offset(PART - 1).limit(1)).scalar()
            if last is None:
                yield mailboxes.c.upn > after
                return
            yield and_(mailboxes.c.upn > after, mailboxes.c.upn <= last)
            after = last

    def awaiting(self, tenant_id: str, policy_id: str, limit: int) -> list[tuple[Mailbox, list[MailboxKey]]]:
        query = select(*_MAILBOX_COLUMNS).where(mailboxes.c.pending_policy_id == policy_id, mailboxes.c.tenant_id == tenant_id).limit(limit)
        found = [_mailbox(row) for row in self._connection.execute(query).all()]
        keys: dict[str, list[MailboxKey]] = {mailbox.id: [] for mailbox in found}
        for part in chunks(list(keys)):
            wrapped = select(mailbox_keys.c.mailbox_id, mailbox_keys.c.version, mailbox_keys.c.wrapped).where(
                mailbox_keys.c.mailbox_id.in_(part)
            )
            rows = self._connection.execute(wrapped.order_by(mailbox_keys.c.mailbox_id, mailbox_keys.c.version)).all()
            for mailbox_id, version, blob in rows:
                keys[mailbox_id].append(MailboxKey(mailbox_id, version, blob))
        return [(mailbox, keys[mailbox.id]) for mailbox in found]

    def rewrapped(self, tenant_id: str, policy_id: str, changed: Sequence[Mailbox], keys: Sequence[MailboxKey]) -> None:
        # A mailbox that is done had nothing to move: its fresh key takes the place of those it had. The others keep theirs, wrapped anew.
        fresh = {mailbox.id: mailbox for mailbox in changed if mailbox.move_state is MoveState.DONE}
        # Through a function, so that rows are found by id: by the indexes on tenant or policy, each part would look at all that wait.
        own = func.coalesce(mailboxes.c.tenant_id, "") == tenant_id
        moving = update(mailboxes).where(own, func.coalesce(mailboxes.c.pending_policy_id, "") == policy_id)
        moving = moving.values(policy_id=policy_id, pending_policy_id=None, move_state=MoveState.QUEUED.value, moved_at=None)
        for part in chunks([mailbox.id for mailbox in changed if mailbox.id not in fresh]):
            self._connection.execute(moving.where(mailboxes.c.id.in_(part)))
        _REWRAPPED.run(
            self._connection,
            [
                {
                    "b_id": mailbox.id,
                    "b_tenant": tenant_id,
                    "b_policy": policy_id,
                    "b_version": mailbox.key_version,
                    "b_state": mailbox.move_state.value,
                    "b_moved": mailbox.moved_at,
                }
                for mailbox in fresh.values()
            ],
        )
        for part in chunks(list(fresh)):
            self._connection.execute(delete(mailbox_keys).where(mailbox_keys.c.mailbox_id.in_(part)))
        _NEW_KEY.run(self._connection, [_key_values(key) for key in keys if key.mailbox_id in fresh])
        _SAME_KEY.run(self._connection, [_key_values(key) for key in keys if key.mailbox_id not in fresh])

    def insert_key(self, key: MailboxKey) -> None:
        self._connection.execute(insert(mailbox_keys).values(mailbox_id=key.mailbox_id, version=key.version, wrapped=key.wrapped))

    def remove_keys_below(self, mailbox_id: str, version: int) -> int:
        return self._connection.execute(
            delete(mailbox_keys).where(mailbox_keys.c.mailbox_id == mailbox_id, mailbox_keys.c.version < version)
        ).rowcount

    def set_move(self, mailbox: Mailbox) -> None:
        self._connection.execute(
            update(mailboxes)
            .where(mailboxes.c.id == mailbox.id, mailboxes.c.tenant_id == mailbox.tenant_id)
            .values(
                key_version=mailbox.key_version,
                move_state=mailbox.move_state.value,
                moved_at=mailbox.moved_at,
                moved_items=mailbox.moved_items,
            )
        )

    def delete(self, tenant_id: str, mailbox_id: str) -> None:
        if self._connection.execute(delete(mailboxes).where(mailboxes.c.id == mailbox_id, mailboxes.c.tenant_id == tenant_id)).rowcount:
            self._connection.execute(update(objects).where(objects.c.owner_id == mailbox_id).values(due=0))

    def delegates(self, mailbox_id: str) -> list[str]:
        query = select(mailbox_delegates.c.upn).where(mailbox_delegates.c.mailbox_id == mailbox_id).order_by(mailbox_delegates.c.upn)
        return list(self._connection.execute(query).scalars())

    def add_delegate(self, mailbox_id: str, upn: str) -> None:
        with conflict("delegate_exists", f"{upn} has access to the mailbox already", "nothing needs to be done"):
            self._connection.execute(insert(mailbox_delegates).values(mailbox_id=mailbox_id, upn=upn))

    def remove_delegate(self, mailbox_id: str, upn: str) -> bool:
        return bool(
            self._connection.execute(
                delete(mailbox_delegates).where(mailbox_delegates.c.mailbox_id == mailbox_id, mailbox_delegates.c.upn == upn)
            ).rowcount
        )

    def folders(self, mailbox_id: str) -> list[Folder]:
        return [_folder(row) for row in _FOLDERS.all(self._connection, mailbox=mailbox_id)]

    def insert_folder(self, folder: Folder) -> None:
        with conflict("folder_exists", "another import made the same folder at the same time", "try again"):
            self._connection.execute(
                insert(folders).values(
                    id=folder.id,
                    mailbox_id=folder.mailbox_id,
                    key_version=folder.key_version,
                    name_hash=folder.name_hash,
                    sealed_name=folder.sealed_name,
                )
            )

    def update_folder(self, folder: Folder) -> None:
        self._connection.execute(
            update(folders)
            .where(folders.c.id == folder.id, folders.c.mailbox_id == folder.mailbox_id)
            .values(key_version=folder.key_version, name_hash=folder.name_hash, sealed_name=folder.sealed_name)
        )

    def drop_folders(self, mailbox_ids: Sequence[str]) -> None:
        for part in chunks(mailbox_ids):
            self._connection.execute(delete(folders).where(folders.c.mailbox_id.in_(part)))

    def known_hashes(self, mailbox_id: str, hashes: Sequence[bytes]) -> set[bytes]:
        known: set[bytes] = set()
        for part in chunks(hashes):
            query = select(items.c.content_hash).where(items.c.mailbox_id == mailbox_id, items.c.content_hash.in_(part))
            known.update(self._connection.execute(query).scalars())
        return known

    def insert_items(self, new: Sequence[Item]) -> None:
        with conflict("item_exists", "another import added the same item at the same time", "try again"):
            _NEW_ITEM.run(self._connection, [_item_values(item) for item in new])

    def add_counts(self, mailbox_id: str, count: int, size: int) -> None:
        _ADDED.run(self._connection, [{"b_id": mailbox_id, "b_count": count, "b_size": size}])

    def place(self, tenant_id: str, upn: str, item_id: str) -> ItemPlace | None:
        row = _PLACE.first(self._connection, tenant=tenant_id, upn=upn, item=item_id)
        if row is None:
            return None
        split = len(_MAILBOX_COLUMNS)
        return ItemPlace(_mailbox(row[:split]), _item(row[split:-1]), row[-1])

    def items(self, mailbox_id: str, *, after: str, limit: int) -> list[Item]:
        if not after:
            return self.older_items(mailbox_id, None, limit)
        last = self._connection.execute(select(items.c.received).where(items.c.mailbox_id == mailbox_id, items.c.id == after)).scalar()
        return [] if last is None else self.older_items(mailbox_id, (last, after), limit)

    def older_items(self, mailbox_id: str, than: tuple[int, str] | None, limit: int) -> list[Item]:
        query = select(*_ITEM_COLUMNS).where(items.c.mailbox_id == mailbox_id)
        if than is not None:
            received, item_id = than
            query = query.where(items.c.received <= received, or_(items.c.received < received, items.c.id < item_id))
        query = query.order_by(items.c.received.desc(), items.c.id.desc()).limit(limit)
        return [_item(row) for row in self._connection.execute(query)]

    def items_below(self, mailbox_id: str, version: int, limit: int) -> list[Item]:
        # Object by object, so that a slice costs what it takes, however many items the mailbox has. Their mailbox goes through a function:
        # they are found by their object, not by an index of all that the mailbox holds.
        by_object = (
            select(*_ITEM_COLUMNS)
            .join_from(objects, items, and_(items.c.object_ref == objects.c.ref, func.coalesce(items.c.mailbox_id, "") == mailbox_id))
            .where(
                objects.c.owner_id == mailbox_id,
                text("objects.items > 0"),
                objects.c.key_version < version,
                items.c.key_version < version,
            )
            .order_by(objects.c.key_version, objects.c.ref, items.c.offset)
            .limit(limit)
        )
        found = self._connection.execute(by_object).all()
        if not found:  # the last look; and an item whose object's row is gone is still found
            every = select(*_ITEM_COLUMNS).where(items.c.mailbox_id == mailbox_id, items.c.key_version < version)
            found = self._connection.execute(every.order_by(items.c.object_ref, items.c.offset).limit(limit)).all()
        return [_item(row) for row in found]

    def count_below(self, mailbox_id: str, version: int) -> tuple[int, int]:
        query = select(func.count(), func.coalesce(func.sum(items.c.size), 0)).where(
            items.c.mailbox_id == mailbox_id, items.c.key_version < literal(version, BigInteger)
        )
        row = self._connection.execute(query).one()
        return int(row[0]), int(row[1])

    def move_items(self, mailbox_id: str, moved: Sequence[MovedItem], *, below: int) -> int:
        return _MOVED_ITEM.run(
            self._connection,
            [
                {
                    "b_id": item.id,
                    "b_mailbox": mailbox_id,
                    "b_below": below,
                    "b_version": item.key_version,
                    "b_hash": item.content_hash,
                    "b_summary": item.summary,
                    "b_ref": item.object_ref,
                    "b_offset": item.offset,
                    "b_length": item.length,
                }
                for item in moved
            ],
        )

    def delete_item(self, mailbox_id: str, item_id: str) -> Item | None:
        row = self._connection.execute(select(*_ITEM_COLUMNS).where(items.c.mailbox_id == mailbox_id, items.c.id == item_id)).first()
        if row is None:
            return None
        self._connection.execute(delete(items).where(items.c.mailbox_id == mailbox_id, items.c.id == item_id))
        return _item(row)

    def retire_objects_below(self, mailbox_id: str, version: int, due: int) -> int:
        return self._connection.execute(
            update(objects)
            .where(objects.c.owner_id == mailbox_id, objects.c.key_version < version, objects.c.due.is_(None))
            .values(due=due)
        ).rowcount

    def retire_object_if_empty(self, ref: str, due: int) -> None:
        used = select(items.c.id).where(items.c.object_ref == ref).limit(1)
        if self._connection.execute(used).first() is None:
            self._connection.execute(update(objects).where(objects.c.ref == ref, objects.c.due.is_(None)).values(due=due))

    def mark_emptied(self, refs: Sequence[str]) -> None:
        used = select(items.c.id).where(items.c.object_ref == objects.c.ref).exists()
        for part in chunks(refs):
            self._connection.execute(update(objects).where(objects.c.ref.in_(part), ~used).values(items=0))

    def overdue_moves(self, tenant_id: str | None, assigned_before: int, limit: int | None = None) -> list[Mailbox]:
        query = select(*_MAILBOX_COLUMNS).where(mailboxes.c.assigned_at < assigned_before, UNMOVED)
        if tenant_id is not None:
            query = query.where(mailboxes.c.tenant_id == tenant_id)
        return [_mailbox(row) for row in self._connection.execute(query.order_by(mailboxes.c.assigned_at).limit(limit))]
