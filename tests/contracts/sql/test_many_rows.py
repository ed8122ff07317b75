"""What is asked all the time costs the same however many rows there are: counted in steps of SQLite's machine, not in seconds."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import delete, insert, select

from keystead.adapters.sql import rows_mailboxes
from keystead.adapters.sql.keystead_schema import audit_records, items, jobs, mailboxes, objects, policies, tenants
from keystead.adapters.sql.sqlite import sqlite_engine
from keystead.adapters.sql.store import SqlDatabase
from keystead.core.ids import new_id
from keystead.ports.tx import AuditQuery, MovedItem

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from sqlalchemy import Engine

    from keystead.core.audit.record import AuditRecord
    from keystead.core.jobs import Job
    from keystead.ports.tx import Tx

FEW, MANY = 50, 3_000
STEP = 10
"""Steps after which the machine calls back: what counts is counted in these."""
MORE = 3.0
"""By how much sixty times the rows may cost more: trees get a level deeper, and pages come in."""


class Counted:
    """A database of one tenant, and the steps an act takes in it."""

    def __init__(self, path: Path) -> None:
        self.engine: Engine = sqlite_engine(path)
        self.db = SqlDatabase(self.engine)
        self.tenant, self.policy = new_id(os.urandom), new_id(os.urandom)
        with self.engine.begin() as connection:
            connection.execute(insert(tenants).values(id=self.tenant, name="contoso", domain="contoso.example", geos="", created=1))
            fixed = dict.fromkeys(("description", "version_id", "shred_key_id", "availability_key_id"), "")
            connection.execute(
                insert(policies).values(
                    id=self.policy,
                    tenant_id=self.tenant,
                    workload="mail",
                    name="Mail",
                    enabled=True,
                    created=1,
                    version=1,
                    check_value=b"",
                    **fixed,
                )
            )

    def steps(self, act: Callable[[Tx], object]) -> int:
        """Of the second time: the first one also prepares statements."""
        counted = 0

        def count() -> int:
            nonlocal counted
            counted += 1
            return 0

        with self.db.read() as tx:
            raw: Any = tx.jobs._connection.connection.driver_connection  # type: ignore[attr-defined]
            act(tx)
            raw.set_progress_handler(count, STEP)
            act(tx)
            raw.set_progress_handler(None, 0)
        return counted

    def add_jobs(self, count: int, **changes: object) -> None:
        """Jobs of one parent that wait."""
        with self.engine.begin() as connection:
            start = len(connection.execute(jobs.select()).all())
            numbers = range(start, start + count)
            connection.execute(insert(jobs), [{**_job(self.tenant, n), **changes} for n in numbers])


def _job(tenant_id: str, number: int) -> dict[str, object]:
    texts = dict.fromkeys(("lease_owner", "error"), "")
    numbers = dict.fromkeys(("done", "total", "lease_epoch", "lease_until", "attempts", "not_before"), 0)
    return {
        "id": new_id(os.urandom),
        "sequence": number + 1,
        "tenant_id": tenant_id,
        "parent_id": "parent",
        "kind": "move-mailbox",
        "subject_id": "s",
        "parameters": "{}",
        "state": "queued",
        "priority": 5,
        "created": 1,
        **texts,
        **numbers,
    }


@pytest.fixture
def counted(tmp_path: Path) -> Iterator[Counted]:
    made = Counted(tmp_path / "keystead.db")
    yield made
    made.db.close()


def _next(tx: Tx, *, only: str = "", kind: str = "") -> Job | None:
    """The look of a claim, without its change."""
    wanted = ([jobs.c.parent_id == only] if only else []) + ([jobs.c.kind == kind] if kind else [])
    found: Job | None = tx.jobs._most_urgent(10_000, *wanted)  # type: ignore[attr-defined]
    return found


@pytest.mark.parametrize("wanted", [{}, {"only": "parent"}, {"kind": "move-mailbox"}], ids=["any", "children", "kind"])
def test_finding_the_next_job_does_not_look_at_all_that_wait(counted: Counted, wanted: dict[str, str]) -> None:
    counted.add_jobs(FEW)
    few = counted.steps(lambda tx: _next(tx, **wanted))
    counted.add_jobs(MANY)
    assert counted.steps(lambda tx: _next(tx, **wanted)) < MORE * few


def test_jobs_that_are_not_due_are_not_looked_at(counted: Counted) -> None:
    counted.add_jobs(FEW, not_before=20_000)
    few = counted.steps(_next)
    counted.add_jobs(MANY, not_before=20_000)
    with counted.db.read() as tx:
        assert _next(tx) is None
    assert counted.steps(_next) < MORE * few
    counted.add_jobs(1, not_before=9_000, priority=7)
    with counted.db.read() as tx:
        found = _next(tx)
    assert found is not None
    assert found.priority == 7, "the only one that is due, behind many that are not"


def test_a_job_that_failed_lately_is_found_among_many_that_did_not(counted: Counted) -> None:
    counted.add_jobs(FEW)
    few = counted.steps(lambda tx: tx.jobs.troubled("parent"))
    counted.add_jobs(MANY)
    counted.add_jobs(1, error="vault_unavailable: gone")
    with counted.db.read() as tx:
        found = tx.jobs.troubled("parent")
    assert found is not None
    assert counted.steps(lambda tx: tx.jobs.troubled("parent")) < MORE * few + 10


def test_jobs_of_a_tenant_are_listed_without_those_of_others(counted: Counted) -> None:
    counted.add_jobs(FEW)
    few = counted.steps(lambda tx: tx.jobs.page(counted.tenant, states=[], after="", limit=20))
    counted.add_jobs(MANY, tenant_id="another")
    assert counted.steps(lambda tx: tx.jobs.page(counted.tenant, states=[], after="", limit=20)) < MORE * few


@pytest.mark.parametrize(
    "query",
    [{}, {"operations": ("Rare",)}, {"start": 20_000, "end": 20_050}, {"operations": ("Rare",), "end": 30_000}],
    ids=["all", "operation", "time", "both"],
)
def test_a_page_of_the_log_does_not_read_the_log(counted: Counted, query: dict[str, Any]) -> None:
    """R-206: searches by time and operation."""
    asked = AuditQuery(tenant_id=counted.tenant, limit=20, **query)
    _add_records(counted, FEW)
    few = max(counted.steps(lambda tx: tx.audit.search(asked)), 20 * 5)
    _add_records(counted, MANY)
    assert counted.steps(lambda tx: tx.audit.search(asked)) < MORE * few


def test_pages_of_the_log_follow_one_another_by_time_even_where_records_came_late(counted: Counted) -> None:
    _add_records(counted, FEW)
    _add_records(counted, FEW)  # of the same times as the first: written later
    with counted.db.read() as tx:
        everything = tx.audit.search(AuditQuery(tenant_id=counted.tenant, limit=1_000))
        paged: list[AuditRecord] = []
        while page := tx.audit.search(AuditQuery(tenant_id=counted.tenant, limit=7, after=paged[-1].id if paged else "")):
            paged += page
        assert tx.audit.search(AuditQuery(tenant_id=counted.tenant, after=new_id(os.urandom))) == []
    assert paged == everything
    assert len(paged) == 2 * FEW
    assert [one.creation_time for one in paged] == sorted((one.creation_time for one in paged), reverse=True)


def _add_records(counted: Counted, count: int) -> None:
    texts = dict.fromkeys(("user_key", "user_id", "workload", "result_status", "object_id", "client_ip", "request_id"), "")
    rows = [
        {
            "id": new_id(os.urandom),
            "creation_time": 10_000 + 10 * number,
            "record_type": 1,
            "operation": "Rare" if number % 25 == 0 else "Usual",
            "organization_id": counted.tenant,
            "user_type": 0,
            "external_access": False,
            "parameters": "[]",
            **texts,
        }
        for number in range(count)
    ]
    with counted.engine.begin() as connection:
        connection.execute(insert(audit_records), rows)


def test_a_page_of_overdue_moves_does_not_look_at_all_mailboxes(counted: Counted) -> None:
    """R-093."""
    _add_mailboxes(counted, FEW)
    few = counted.steps(lambda tx: tx.mailboxes.overdue_moves(counted.tenant, 10**9, 20))
    _add_mailboxes(counted, MANY)
    assert counted.steps(lambda tx: tx.mailboxes.overdue_moves(counted.tenant, 10**9, 20)) < MORE * few
    with counted.db.read() as tx:
        found = tx.mailboxes.overdue_moves(counted.tenant, 10**9, 20)
        assert [one.assigned_at for one in found] == sorted(one.assigned_at or 0 for one in found)
        assert len(tx.mailboxes.overdue_moves(counted.tenant, 10**9)) == (FEW + MANY) // 2


def _add_mailboxes(counted: Counted, count: int) -> None:
    fixed = dict.fromkeys(("moved_items", "item_count", "size_bytes"), 0)
    rows = [
        {
            "id": new_id(os.urandom),
            "tenant_id": counted.tenant,
            "upn": f"{new_id(os.urandom)}@contoso.example",
            "type": "user",
            "licensed": True,
            "created": 1,
            "policy_id": counted.policy,
            "key_version": 1,
            "move_state": "queued" if number % 2 else "done",
            "assigned_at": 1_000_000 - number,
            **fixed,
        }
        for number in range(count)
    ]
    with counted.engine.begin() as connection:
        connection.execute(insert(mailboxes), rows)


def test_a_slice_of_a_move_does_not_look_at_the_whole_mailbox(counted: Counted) -> None:
    """R-088: the next items of a move, at its beginning and after most objects were emptied."""
    box = _box_with_objects(counted, FEW)
    beginning = counted.steps(lambda tx: tx.mailboxes.items_below(box, 2, 20))
    large = _box_with_objects(counted, MANY)
    assert counted.steps(lambda tx: tx.mailboxes.items_below(large, 2, 20)) < MORE * beginning
    with counted.db.write() as tx:
        for start in range(0, MANY - 40, 20):
            moved = tx.mailboxes.items_below(large, 2, 20)
            assert len(moved) == 20, start
            places = [MovedItem(one.id, 2, os.urandom(32), b"", f"new/{one.id}", 0, 1) for one in moved]
            assert tx.mailboxes.move_items(large, places, below=2) == 20
            tx.mailboxes.mark_emptied([one.object_ref for one in moved])
    assert counted.steps(lambda tx: tx.mailboxes.items_below(large, 2, 20)) < MORE * beginning
    with counted.db.write() as tx:
        assert len(tx.mailboxes.items_below(large, 2, 100)) == 40
        assert tx.mailboxes.retire_objects_below(large, 2, 500) == MANY


def test_an_item_whose_object_is_not_listed_is_still_moved(counted: Counted) -> None:
    box = _box_with_objects(counted, 3)
    with counted.engine.begin() as connection:
        connection.execute(delete(objects))
    with counted.db.read() as tx:
        assert len(tx.mailboxes.items_below(box, 2, 10)) == 3


def _box_with_objects(counted: Counted, count: int) -> str:
    """A mailbox whose items have an object each."""
    _add_mailboxes(counted, 1)
    with counted.engine.begin() as connection:
        box: str = (
            connection.execute(select(mailboxes.c.id).order_by(mailboxes.c.id).where(~mailboxes.c.id.in_(select(objects.c.owner_id))))
            .scalars()
            .first()
            or ""
        )
        refs = [f"c0/{new_id(os.urandom)}" for _ in range(count)]
        connection.execute(
            insert(objects),
            [{"ref": ref, "owner_id": box, "key_version": 1, "size": 1, "items": 1, "large": False, "due": None} for ref in refs],
        )
        row = {
            "mailbox_id": box,
            "folder_id": "",
            "kind": "message",
            "size": 1,
            "key_version": 1,
            "summary": b"",
            "offset": 0,
            "length": 1,
            "parts": 1,
        }
        connection.execute(
            insert(items),
            [
                {**row, "id": new_id(os.urandom), "received": n, "content_hash": os.urandom(32), "object_ref": ref}
                for n, ref in enumerate(refs)
            ],
        )
    return box


def test_all_mailboxes_of_a_tenant_are_asked_for_in_parts_each_once(counted: Counted, monkeypatch: pytest.MonkeyPatch) -> None:
    """R-086: what one statement changes is kept in memory until it ends."""
    monkeypatch.setattr(rows_mailboxes, "PART", 7)
    _add_mailboxes(counted, FEW)
    with counted.engine.begin() as connection:
        other = dict(connection.execute(select(policies)).mappings().one()) | {"id": new_id(os.urandom), "name": "Other"}
        connection.execute(insert(policies).values(**other))
    for wanted, changed in ((other["id"], FEW), (other["id"], 0), (counted.policy, FEW)):
        with counted.db.write() as tx:
            assert tx.mailboxes.ask_hierarchy(counted.tenant, None, wanted, 7) == changed
            assert len(tx.mailboxes.awaiting(counted.tenant, wanted, FEW + 1)) == FEW
    with counted.db.write() as tx:
        assert tx.mailboxes.ask_hierarchy(new_id(os.urandom), None, counted.policy, 7) == 0
