"""Rows by the hundred thousand, straight into the database: mailboxes with real wrapped keys, and audit records."""

from __future__ import annotations

import json
import os
from itertools import islice
from typing import TYPE_CHECKING, Any

from benchmarks import home as homes
from sqlalchemy import delete, insert, select, update

from keystead.adapters.sql.keystead_schema import METADATA, audit_records, jobs, mailbox_keys, mailboxes
from keystead.api.types import policies as p
from keystead.core.access.tokens import TokenKind
from keystead.core.ids import new_id
from keystead.core.keys.decide import Operation
from keystead.ports.clock import DAY
from keystead.services.tokens import issue

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from keystead.core.policies.policy import Policy
    from keystead.ports.tx import Tx
    from keystead.wiring import Home

BATCH = 5_000
ITEM_BYTES = 16_000
RARE = "Set-DataEncryptionPolicy"
RARE_EVERY = 1_000
"""One audit record in so many is of the rare operation."""
AUDIT_DAYS = 80


def policy_of(home: Home, name: str) -> Policy:
    view: p.PolicyView = homes.admin(home).call("policy.show", p.NamePolicy(policy=name))
    with home.services.db.read() as tx:
        found = tx.policies.by_id(view.id)
    assert found is not None
    return found


def connection_of(tx: Tx) -> Connection:
    """The connection of a transaction, for statements that only a benchmark needs."""
    connection: Connection = tx.mailboxes._connection  # type: ignore[attr-defined]  # noqa: SLF001
    return connection


def upn_of(number: int) -> str:
    return f"box{number:07d}@{homes.DOMAIN}"


def add_mailboxes(home: Home, policy: Policy, first: int, last: int) -> None:
    """Mailboxes number `first` to `last - 1` under a policy; the one item that each counts is not there."""
    services = home.services
    opened = services.keyring.open(policy.id, Operation.SYSTEM, request_id=new_id(services.random))
    now = services.clock.now()
    for start in range(first, last, BATCH):
        names = [(new_id(os.urandom), upn_of(number)) for number in range(start, min(start + BATCH, last))]
        rows = [
            {
                "id": mailbox_id,
                "tenant_id": policy.tenant_id,
                "upn": upn,
                "type": "user",
                "licensed": True,
                "created": now,
                "policy_id": policy.id,
                "pending_policy_id": None,
                "key_version": 1,
                "move_state": "done",
                "assigned_at": now,
                "moved_at": now,
                "moved_items": 0,
                "item_count": 1,
                "size_bytes": ITEM_BYTES,
            }
            for mailbox_id, upn in names
        ]
        keys = [
            {"mailbox_id": mailbox_id, "version": 1, "wrapped": opened.new_mailbox_key(mailbox_id, 1, os.urandom)}
            for mailbox_id, _upn in names
        ]
        with services.db.write() as tx:
            connection_of(tx).execute(insert(mailboxes), rows)
            connection_of(tx).execute(insert(mailbox_keys), keys)


def add_audit_records(home: Home, tenant_id: str, count: int) -> None:
    """So many records, evenly over the last `AUDIT_DAYS` days; one in `RARE_EVERY`, the first after 100, is of the rare operation."""
    begin = home.services.clock.now() - AUDIT_DAYS * DAY
    step = AUDIT_DAYS * DAY / count
    rows = (_record(tenant_id, number, int(begin + number * step)) for number in range(count))
    while batch := list(islice(rows, BATCH)):
        with home.services.db.write() as tx:
            connection_of(tx).execute(insert(audit_records), batch)


def _record(tenant_id: str, number: int, when: int) -> dict[str, Any]:
    rare = number % RARE_EVERY == 100
    upn = upn_of(number % 1_000)
    parameters = (("Mailbox", upn), ("Imported", "512"), ("AlreadyPresent", "0"), ("Bytes", "8192000"))
    return {
        "id": new_id(os.urandom),
        "creation_time": when,
        "record_type": 1,
        "operation": RARE if rare else "New-MailboxImportRequest",
        "organization_id": tenant_id,
        "user_type": 0,
        "user_key": upn,
        "user_id": upn,
        "workload": "Exchange",
        "result_status": "Succeeded",
        "object_id": new_id(os.urandom),
        "client_ip": "192.0.2.7",
        "external_access": False,
        "request_id": new_id(os.urandom),
        "parameters": json.dumps(parameters),
    }


def clear(home: Home, table: str) -> None:
    """Remove all rows of a table."""
    with home.services.db.write() as tx:
        connection_of(tx).execute(delete(METADATA.tables[table]))


def jobs_of_kind(home: Home, kind: str) -> list[str]:
    """Ids of all jobs of a kind."""
    with home.services.db.read() as tx:
        return list(connection_of(tx).execute(select(jobs.c.id).where(jobs.c.kind == kind)).scalars())


def backdate_moves(home: Home) -> None:
    """Let every move have been asked for a month ago, so that all that are not done are overdue."""
    with home.services.db.write() as tx:
        connection_of(tx).execute(update(mailboxes).values(assigned_at=home.services.clock.now() - 30 * DAY))


def token_of(home: Home, upn: str) -> str:
    """A sign-in token of a person of the tenant."""
    with home.services.db.write() as tx:
        person = tx.tenants.person(upn)
        assert person is not None
        return issue(home.services, tx, TokenKind.SIGN_IN, upn, person.tenant_id).secret
