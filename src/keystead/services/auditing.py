"""Making audit records. No audit record, no act: a record is appended in the transaction of the change it tells of."""

from __future__ import annotations

from typing import TYPE_CHECKING

from keystead.core.access.principal import Role
from keystead.core.access.throttle import group_of
from keystead.core.audit.record import (
    CALLS_REFUSED,
    EXCHANGE,
    OPERATIONS,
    SHAREPOINT,
    SIGN_IN_FAILED,
    SYSTEM_ACCOUNT,
    AuditRecord,
    RecordType,
    UserType,
)
from keystead.core.errors import KeysteadError, Unauthenticated, Unavailable
from keystead.core.ids import new_id
from keystead.services.refusals import Counted
from keystead.services.sign_in_state import MANY

if TYPE_CHECKING:
    from collections.abc import Sequence

    from keystead.api.call import Call
    from keystead.core.access.principal import Principal
    from keystead.ports.tx import Tx
    from keystead.recent import Report
    from keystead.services.context import Means, Services

MOST_DETAIL = 1_000
"""Characters of an error's text in a record: some repeat a name that was asked for, which may be as long as a request."""
_ADMIN_ROLES = frozenset(Role) - {Role.USER, Role.LOCKBOX_APPROVER}
_ITEM_ROUTES = frozenset({"mailbox.read", "mailbox.items", "mailbox.delete-item"})
_OF_FILES = frozenset({RecordType.SHAREPOINT, RecordType.SHAREPOINT_FILE})


def record(
    services: Services,
    tx: Tx,
    call: Call,
    object_id: str,
    parameters: tuple[tuple[str, str], ...] = (),
    *,
    operation: str = "",
    record_type: RecordType | None = None,
    result: str = "Succeeded",
) -> None:
    """Append the record of an act a caller asked for.

    Args:
        services: the service.
        tx: the transaction of the change.
        call: who asked, and for what.
        object_id: id or directory name of what was acted on.
        parameters: every parameter of the act; ids and directory names only.
        operation: name of the operation where it differs from the route's.
        record_type: of the record, where it differs from the route's.
        result: `Succeeded` or `Failed`.
    """
    principal = call.principal
    kind = record_type or (RecordType.EXCHANGE_ITEM if call.route in _ITEM_ROUTES else RecordType.EXCHANGE_ADMIN)
    _append(
        tx,
        AuditRecord(
            id=new_id(services.random),
            creation_time=services.clock.now(),
            record_type=kind,
            operation=operation or OPERATIONS.get(call.route, call.route),
            organization_id=call.tenant_id,
            user_type=_user_type(principal),
            user_key=principal.upn if principal.scopes is None else principal.token_id,  # a program's acts name its token too
            user_id=principal.upn,
            workload=SHAREPOINT if kind in _OF_FILES else EXCHANGE,
            result_status=result,
            object_id=object_id,
            client_ip=call.client_ip,
            external_access=principal.is_provider,
            request_id=call.request_id,
            parameters=parameters,
        ),
    )


def record_system(
    means: Means,
    tx: Tx,
    tenant_id: str,
    operation: str,
    object_id: str,
    parameters: tuple[tuple[str, str], ...] = (),
    *,
    record_type: RecordType = RecordType.EXCHANGE_ADMIN,
    request_id: str = "",
    result: str = "Succeeded",
) -> None:
    """Append the record of an act the service does by itself; the user shown is the system account (requirements 6.9)."""
    _append(
        tx,
        AuditRecord(
            id=new_id(means.random),
            creation_time=means.clock.now(),
            record_type=record_type,
            operation=operation,
            organization_id=tenant_id,
            user_type=UserType.SYSTEM,
            user_key=SYSTEM_ACCOUNT,
            user_id=SYSTEM_ACCOUNT,
            workload=EXCHANGE,
            result_status=result,
            object_id=object_id,
            client_ip="",
            external_access=False,
            request_id=request_id,
            parameters=parameters,
        ),
    )


def _append(tx: Tx, one: AuditRecord) -> None:
    """Append, and whatever keeps the database from taking it becomes an error that says what that means: the act did not happen.

    Raises:
        Unavailable: the record could not be written; raised inside the transaction, which rolls back.
    """
    try:
        tx.audit.append(one)
    except KeysteadError:
        raise
    except Exception as error:
        raise Unavailable(
            "audit_unwritable",
            f"the record of {one.operation} could not be written, so it was not done",
            "check that the database takes writes and has room, then try again",
        ) from error


def record_failures(services: Services, reports: Sequence[Report[str]]) -> None:
    """Append records of sign-ins that failed: one for each address, with how many there were, in the installation's log.

    They hold no part of what was shown: neither a token nor a name in it, which could be anybody's.
    """
    if not reports:
        return
    with services.db.write() as tx:
        for report in reports:
            _append_count(
                services,
                tx,
                RecordType.SIGN_IN,
                SIGN_IN_FAILED,
                "SignIn",
                Counted(report.source, upn="", external=False, tenant_id="", kinds=report.codes),
                "Codes",
            )


def record_counted(services: Services, reports: Sequence[Counted]) -> None:
    """Append records of calls that were refused too often to have one each: one for each caller and log, with how many there were."""
    if not reports:
        return
    with services.db.write() as tx:
        for report in reports:
            _append_count(services, tx, RecordType.EXCHANGE_ADMIN, CALLS_REFUSED, EXCHANGE, report, "Calls")


def _append_count(
    services: Services, tx: Tx, record_type: RecordType, operation: str, workload: str, report: Counted, kinds_name: str
) -> None:
    """One record for many failures of one caller: how many, and how often each kind, under the parameter `kinds_name`."""
    count = sum(number for _kind, number in report.kinds)
    kinds = ",".join(f"{kind}={number}" for kind, number in report.kinds)
    _append(
        tx,
        AuditRecord(
            id=new_id(services.random),
            creation_time=services.clock.now(),
            record_type=record_type,
            operation=operation,
            organization_id=report.tenant_id,
            user_type=UserType.DATA_CENTER if report.external else UserType.REGULAR,
            user_key=report.upn,
            user_id=report.upn,
            workload=workload,
            result_status="Failed",
            object_id=report.tenant_id,
            client_ip=report.address,
            external_access=report.external,
            request_id="",
            parameters=(("Count", str(count)), (kinds_name, kinds)),
        ),
    )


class LogAndDirectory:
    """What the dispatcher asks before and after a use case: implements `api.dispatch.Directory`."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._known: dict[str, str] = {}

    def tenant_id(self, reference: str) -> str | None:
        """The tenant of a name, domain or id.

        None of these ever changes, so what was found once is remembered; in one spelling, for a domain has more than there is memory.
        """
        known = self._known.get(reference)
        if known is None:
            with self._services.db.read() as tx:
                tenant = tx.tenants.find(reference)
            if tenant is None:
                return None
            known = tenant.id
            if reference in {tenant.id, tenant.name, tenant.domain}:
                self._known[reference] = known
        return known

    def refused(self, call: Call, error: KeysteadError) -> None:
        """Record a refusal or an integrity failure, in the log of the tenant the call was about.

        Who comes over the network and is nobody is counted instead, and so is who is refused again and again: anybody could fill the log
        otherwise.
        """
        refusals, now = self._services.refusals, self._services.clock.now()
        address = group_of(call.client_ip)
        if isinstance(error, Unauthenticated) and call.client_ip:
            record_failures(self._services, self._services.sign_in.failures.note(address, MANY, error.code, now))
            return
        record_counted(self._services, refusals.due(now))
        who = call.principal
        if not refusals.note((address, who.upn, who.is_provider), call.tenant_id, f"{call.route}:{error.code}", now):
            return
        with self._services.db.write() as tx:
            record(
                self._services,
                tx,
                call,
                call.tenant_id,
                (("Route", call.route), ("Code", error.code), ("Detail", error.detail[:MOST_DETAIL])),
                result="Failed",
            )


def _user_type(principal: Principal) -> UserType:
    if principal.is_provider:
        return UserType.DATA_CENTER
    return UserType.REGULAR if principal.roles.isdisjoint(_ADMIN_ROLES) else UserType.ADMIN
