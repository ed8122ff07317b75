"""Policies, versions, copies, probe states."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import bindparam, delete, func, insert, or_, select, update

from keystead.adapters.sql.keystead_schema import (
    file_geos,
    mailboxes,
    policies,
    policy_copies,
    policy_states,
    policy_versions,
    signing_keys,
)
from keystead.adapters.sql.rows import Lookup, chunks, conflict
from keystead.core.errors import IntegrityFailure
from keystead.core.keys.outcome import OutcomeClass
from keystead.core.policies.policy import CopyRole, Policy, PolicyCopy, PolicyState, PolicyVersion, Workload

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from sqlalchemy import Connection, Row


_OUTCOMES = frozenset({"", *(kind.value for kind in OutcomeClass)})
"""What the state row may hold; empty before the first answer."""
_STATE = Lookup(select(policy_states).where(policy_states.c.policy_id == bindparam("policy")))
_BY_ID = Lookup(select(policies).where(policies.c.id == bindparam("policy")))


def _policy(row: Any) -> Policy:  # noqa: ANN401 - a row of SQLAlchemy's, or of `_BY_ID`
    return Policy(
        id=row.id,
        tenant_id=row.tenant_id,
        workload=Workload(row.workload),
        name=row.name,
        description=row.description,
        enabled=bool(row.enabled),
        created=row.created,
        version_id=row.version_id,
        version=row.version,
        check_value=row.check_value,
        shred_key_id=row.shred_key_id,
        availability_key_id=row.availability_key_id,
    )


def _version(row: Row[tuple[object, ...]]) -> PolicyVersion:
    return PolicyVersion(id=row.id, policy_id=row.policy_id, number=row.number, created=row.created, reason=row.reason)


class SqlPolicyRows:
    """Implements ports.tx.PolicyRows."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def insert(self, policy: Policy, version: PolicyVersion, copies: Sequence[PolicyCopy]) -> None:
        with conflict("policy_exists", f"there is a policy named {policy.name} already", "choose another name"):
            self._connection.execute(
                insert(policies).values(
                    id=policy.id,
                    tenant_id=policy.tenant_id,
                    workload=policy.workload.value,
                    name=policy.name,
                    description=policy.description,
                    enabled=policy.enabled,
                    created=policy.created,
                    version_id=policy.version_id,
                    version=policy.version,
                    check_value=policy.check_value,
                    shred_key_id=policy.shred_key_id,
                    availability_key_id=policy.availability_key_id,
                )
            )
        self._insert_version(version, copies)
        self._connection.execute(
            insert(policy_states).values(
                policy_id=policy.id,
                generation=0,
                probed_at=0,
                succeeded_at=0,
                mixed_since=0,
                primary_outcome="",
                primary_reason="",
                secondary_outcome="",
                secondary_reason="",
                lease_owner="",
                lease_until=0,
            )
        )

    def _insert_version(self, version: PolicyVersion, copies: Sequence[PolicyCopy]) -> None:
        self._connection.execute(
            insert(policy_versions).values(
                id=version.id,
                policy_id=version.policy_id,
                number=version.number,
                created=version.created,
                reason=version.reason,
            )
        )
        self._connection.execute(
            insert(policy_copies),
            [
                {
                    "version_id": copy.version_id,
                    "role": copy.role.value,
                    "key_uri": copy.key_uri,
                    "algorithm": copy.algorithm,
                    "envelope": copy.envelope,
                }
                for copy in copies
            ],
        )

    def find(self, tenant_id: str, reference: str) -> Policy | None:
        of_version = select(policy_versions.c.policy_id).where(policy_versions.c.id == reference.lower()).scalar_subquery()
        row = self._connection.execute(
            select(policies)
            .where(
                policies.c.tenant_id == tenant_id,
                policies.c.workload == Workload.MAIL.value,
                or_(policies.c.name == reference, policies.c.id == reference.lower(), policies.c.id == of_version),
            )
            .limit(1)
        ).first()
        return _policy(row) if row else None

    def by_id(self, policy_id: str) -> Policy | None:
        row = _BY_ID.first(self._connection, policy=policy_id)
        return _policy(row) if row else None

    def all(self, tenant_id: str) -> list[Policy]:
        query = (
            select(policies).where(policies.c.tenant_id == tenant_id, policies.c.workload == Workload.MAIL.value).order_by(policies.c.name)
        )
        return [_policy(row) for row in self._connection.execute(query)]

    def any_provider(self) -> str | None:
        found: str | None = self._connection.execute(
            select(policies.c.id).where(policies.c.workload == Workload.PROVIDER.value).limit(1)
        ).scalar()
        return found

    def count(self, tenant_id: str, workload: Workload) -> int:
        query = select(func.count()).select_from(policies).where(policies.c.tenant_id == tenant_id, policies.c.workload == workload.value)
        return self._connection.execute(query).scalar_one()

    def provider(self, tenant_id: str) -> Policy:
        query = select(policies).where(policies.c.tenant_id == tenant_id, policies.c.workload == Workload.PROVIDER.value)
        return _policy(self._connection.execute(query).one())

    def copies(self, version_id: str) -> list[PolicyCopy]:
        return [
            PolicyCopy(
                version_id=row.version_id,
                role=CopyRole(row.role),
                key_uri=row.key_uri,
                algorithm=row.algorithm,
                envelope=row.envelope,
            )
            for row in self._connection.execute(select(policy_copies).where(policy_copies.c.version_id == version_id))
        ]

    def add_version(self, policy_id: str, replaces: str, version: PolicyVersion, copies: Sequence[PolicyCopy]) -> bool:
        changed = self._connection.execute(
            update(policies)
            .where(policies.c.id == policy_id, policies.c.version_id == replaces)
            .values(version_id=version.id, version=version.number)
        ).rowcount
        if not changed:
            return False
        self._insert_version(version, copies)
        self._connection.execute(delete(policy_copies).where(policy_copies.c.version_id == replaces))
        return True

    def versions(self, policy_id: str) -> list[PolicyVersion]:
        query = select(policy_versions).where(policy_versions.c.policy_id == policy_id).order_by(policy_versions.c.number)
        return [_version(row) for row in self._connection.execute(query)]

    def replace_copy(self, copy: PolicyCopy, *, expected_uri: str) -> bool:
        return bool(
            self._connection.execute(
                update(policy_copies)
                .where(
                    policy_copies.c.version_id == copy.version_id,
                    policy_copies.c.role == copy.role.value,
                    policy_copies.c.key_uri == expected_uri,
                )
                .values(key_uri=copy.key_uri, algorithm=copy.algorithm, envelope=copy.envelope)
            ).rowcount
        )

    def set_availability_key(self, policy_id: str, key_id: str) -> None:
        self._connection.execute(update(policies).where(policies.c.id == policy_id).values(availability_key_id=key_id))

    def remove(self, policy_id: str) -> None:
        versions = select(policy_versions.c.id).where(policy_versions.c.policy_id == policy_id)
        self._connection.execute(delete(policy_copies).where(policy_copies.c.version_id.in_(versions)))
        self._connection.execute(delete(policy_versions).where(policy_versions.c.policy_id == policy_id))
        self._connection.execute(delete(policy_states).where(policy_states.c.policy_id == policy_id))
        self._connection.execute(delete(policies).where(policies.c.id == policy_id))

    def update(self, policy_id: str, *, name: str, description: str, enabled: bool) -> None:
        with conflict("policy_exists", f"there is a policy named {name} already", "choose another name"):
            self._connection.execute(
                update(policies).where(policies.c.id == policy_id).values(name=name, description=description, enabled=enabled)
            )

    def wrapped_by(self, tenant_id: str, key_uri: str) -> list[tuple[Policy, CopyRole]]:
        wanted = key_uri.lower()
        query = (
            select(policies, policy_copies.c.role)
            .join(policy_copies, policy_copies.c.version_id == policies.c.version_id)
            .where(
                policies.c.tenant_id == tenant_id,
                or_(
                    func.lower(policy_copies.c.key_uri) == wanted,
                    func.lower(policy_copies.c.key_uri).startswith(wanted.rstrip("/") + "/", autoescape=True),
                ),
            )
        )
        return [(_policy(row), CopyRole(row.role)) for row in self._connection.execute(query)]

    def mailboxes(self, policy_id: str) -> int:
        # Two counts, each over its own index: an OR over both columns would read the whole table.
        under = select(func.count()).select_from(mailboxes).where(mailboxes.c.policy_id == policy_id)
        waiting = (
            select(func.count())
            .select_from(mailboxes)
            .where(mailboxes.c.pending_policy_id == policy_id, mailboxes.c.policy_id != policy_id)
        )
        return self._connection.execute(under).scalar_one() + self._connection.execute(waiting).scalar_one()

    def state(self, policy_id: str) -> PolicyState:
        row = _STATE.first(self._connection, policy=policy_id)
        if row is None or row.primary_outcome not in _OUTCOMES or row.secondary_outcome not in _OUTCOMES:
            raise IntegrityFailure(
                "policy_state_damaged", f"the state of the policy {policy_id} is missing or none", "restore the policy's rows from a backup"
            )
        return PolicyState(
            policy_id=row.policy_id,
            generation=row.generation,
            probed_at=row.probed_at,
            succeeded_at=row.succeeded_at,
            mixed_since=row.mixed_since,
            primary=row.primary_outcome,
            primary_reason=row.primary_reason,
            secondary=row.secondary_outcome,
            secondary_reason=row.secondary_reason,
        )

    def save_state(self, state: PolicyState) -> None:
        self._connection.execute(
            update(policy_states)
            .where(policy_states.c.policy_id == state.policy_id)
            .values(
                generation=state.generation,
                probed_at=state.probed_at,
                succeeded_at=state.succeeded_at,
                mixed_since=state.mixed_since,
                primary_outcome=state.primary,
                primary_reason=state.primary_reason[:200],
                secondary_outcome=state.secondary,
                secondary_reason=state.secondary_reason[:200],
            )
        )

    def ageing(self, workload: Workload, *, after: int, until: int, probed_until: int, limit: int) -> list[str]:
        states = policy_states.c
        query = (
            select(states.policy_id)
            .join(policies, policies.c.id == states.policy_id)
            .where(
                policies.c.workload == workload.value,
                states.succeeded_at > after,
                states.succeeded_at <= until,
                states.probed_at <= probed_until,
            )
        )
        return list(self._connection.execute(query.order_by(states.succeeded_at).limit(limit)).scalars())

    def take_probe_lease(self, policy_id: str, owner: str, now: int, until: int) -> bool:
        return bool(
            self._connection.execute(
                update(policy_states)
                .where(
                    policy_states.c.policy_id == policy_id,
                    or_(policy_states.c.lease_until <= now, policy_states.c.lease_until > now + 2 * (until - now)),
                )
                .values(lease_owner=owner, lease_until=until)
            ).rowcount
        )

    def release_probe_lease(self, policy_id: str, owner: str) -> None:
        self._connection.execute(
            update(policy_states)
            .where(policy_states.c.policy_id == policy_id, policy_states.c.lease_owner == owner)
            .values(lease_owner="", lease_until=0)
        )

    def drop_missing_keys(self, known: Iterable[str]) -> list[str]:
        candidates = list(known)
        named: set[str] = set()
        for part in chunks(candidates):
            for column in (
                policies.c.shred_key_id,
                policies.c.availability_key_id,
                policies.c.id,
                file_geos.c.availability_key_id,
                signing_keys.c.id,
            ):
                named.update(self._connection.execute(select(column).where(column.in_(part))).scalars())
        return [key_id for key_id in candidates if key_id not in named]
