"""Making audit records. No audit record, no act: a record is appended in the transaction of the change it tells of."""

from __future__ import annotations

from typing import TYPE_CHECKING

from keystead.core.access.principal import Role
from keystead.core.audit.record import OPERATIONS, SYSTEM_ACCOUNT, AuditRecord, RecordType, UserType
from keystead.core.ids import new_id

if TYPE_CHECKING:
    from keystead.api.call import Call
    from keystead.core.access.principal import Principal
    from keystead.core.errors import KeysteadError
    from keystead.ports.tx import Tx
    from keystead.services.context import Services

_ADMIN_ROLES = frozenset(Role) - {Role.USER, Role.LOCKBOX_APPROVER}
_ITEM_ROUTES = frozenset({"mailbox.read", "mailbox.items", "mailbox.delete-item"})


def record(
    services: Services,
    tx: Tx,
    call: Call,
    object_id: str,
    parameters: tuple[tuple[str, str], ...] = (),
    *,
    operation: str = "",
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
        result: `Succeeded` or `Failed`.
    """
    principal = call.principal
    tx.audit.append(
        AuditRecord(
            id=new_id(services.random),
            creation_time=services.clock.now(),
            record_type=RecordType.EXCHANGE_ITEM if call.route in _ITEM_ROUTES else RecordType.EXCHANGE_ADMIN,
            operation=operation or OPERATIONS.get(call.route, call.route),
            organization_id=call.tenant_id,
            user_type=_user_type(principal),
            user_key=principal.upn,
            user_id=principal.upn,
            workload="Exchange",
            result_status=result,
            object_id=object_id,
            client_ip=call.client_ip,
            external_access=principal.is_provider,
            request_id=call.request_id,
            parameters=parameters,
        )
    )


def record_system(
    services: Services,
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
    tx.audit.append(
        AuditRecord(
            id=new_id(services.random),
            creation_time=services.clock.now(),
            record_type=record_type,
            operation=operation,
            organization_id=tenant_id,
            user_type=UserType.SYSTEM,
            user_key=SYSTEM_ACCOUNT,
            user_id=SYSTEM_ACCOUNT,
            workload="Exchange",
            result_status=result,
            object_id=object_id,
            client_ip="",
            external_access=False,
            request_id=request_id,
            parameters=parameters,
        )
    )


class LogAndDirectory:
    """What the dispatcher asks before and after a use case: implements `api.dispatch.Directory`."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._known: dict[str, str] = {}

    def tenant_id(self, reference: str) -> str | None:
        """The tenant of a name, domain or id. None of these ever changes, so what was found once is remembered."""
        known = self._known.get(reference)
        if known is None:
            with self._services.db.read() as tx:
                tenant = tx.tenants.find(reference)
            if tenant is None:
                return None
            known = self._known[reference] = tenant.id
        return known

    def refused(self, call: Call, error: KeysteadError) -> None:
        """Record a refusal or an integrity failure, in the log of the tenant the call was about."""
        with self._services.db.write() as tx:
            record(
                self._services,
                tx,
                call,
                call.tenant_id,
                (("Route", call.route), ("Code", error.code), ("Detail", error.detail)),
                result="Failed",
            )


def _user_type(principal: Principal) -> UserType:
    if principal.is_provider:
        return UserType.DATA_CENTER
    return UserType.REGULAR if principal.roles.isdisjoint(_ADMIN_ROLES) else UserType.ADMIN
