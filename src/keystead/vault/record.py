"""Every call of the vault, allowed or refused, leaves one durable log record (R-067, R-068).

The record is written in the same transaction as the change it tells of; if it cannot be written, the change does not happen and no
answer is given. A refused call's transaction is rolled back, and its record is written with those of others (`journal.py`), as are those of
calls that change nothing: a crash before that loses the record of a call that had no effect and got no answer.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from keystead.api.types.vaults import KeyView
from keystead.core.errors import (
    Conflict,
    Forbidden,
    IntegrityFailure,
    InvalidRequest,
    KeysteadError,
    NotFound,
    PreconditionFailed,
    Throttled,
    Unauthenticated,
    Unavailable,
)
from keystead.core.ids import VAULT_NAME
from keystead.core.vaults.uri import KeyUri
from keystead.ports.vault_store import LogRecord
from keystead.ports.vaults import WrappedValue
from keystead.vault.views import KeyShown

if TYPE_CHECKING:
    from collections.abc import Callable

    from keystead.ports.vault_store import VaultReader, VaultWriter
    from keystead.vault.services import Identity, VaultServices

_T = TypeVar("_T")
_P = TypeVar("_P")

CATEGORY = "AuditEvent"
MAX_TEXT = 2_048
"""Characters of a text field that a caller chooses."""

MAX_VAULT_NAME = 24
"""Characters of a name that `VAULT_NAME` takes."""

MAX_CLIENT_INFO = 256
"""The same of the caller's name for itself."""

_STATUS: tuple[tuple[type[KeysteadError], int], ...] = (
    (InvalidRequest, 400),
    (IntegrityFailure, 400),
    (Unauthenticated, 401),
    (Forbidden, 403),
    (PreconditionFailed, 403),
    (NotFound, 404),
    (Conflict, 409),
    (Throttled, 429),
    (Unavailable, 503),
)
"""HTTP status of a refusal as a key vault answers it: a disabled or expired key is 403."""


class Act(NamedTuple):
    """What a call is about.

    Attributes:
        operation: ObjectVerb, such as KeyWrap or VaultRecover.
        vault: name of the vault; empty where the call is about none.
        key: name of the key; empty where the call is about none.
        version: version of the key, where the call names one.
        note: what else a reader of the log needs to know of an allowed call.
    """

    operation: str
    vault: str = ""
    key: str = ""
    version: str | None = None
    note: str = ""


def recorded(services: VaultServices, identity: Identity, act: Act, change: Callable[[VaultWriter], _T]) -> _T:
    """Run a change and its record in one transaction.

    Raises:
        KeysteadError: what `change` raised, after the refusal was recorded.
        Unavailable: the record could not be written; nothing happened.
    """
    return prepared_and_recorded(services, identity, act, lambda: None, lambda tx, _: change(tx))


def prepared_and_recorded(
    services: VaultServices, identity: Identity, act: Act, prepare: Callable[[], _P], change: Callable[[VaultWriter, _P], _T]
) -> _T:
    """The same with a first part outside the transaction, for work that must not hold the write lock: RSA takes its time."""
    started = services.clock.now()
    try:
        prepared = prepare()
        with services.store.writing() as tx:
            result = change(tx, prepared)
            tx.add_log(_record(services, identity, act, started, object_id=_object_id(result)))
    except KeysteadError as error:
        refused(services, identity, act, error, started)
        raise
    except Exception:
        refused(services, identity, act, _defect(), started)
        raise
    return result


def journaled(services: VaultServices, identity: Identity, act: Act, call: Callable[[], tuple[_T, str]]) -> _T:
    """Run a call that changes nothing, and let its answer go when its record is durable: records of many calls are committed together.

    Args:
        services: of the vault.
        identity: who calls.
        act: what the call is about.
        call: gives the answer, and the full identifier of what it is about.

    Raises:
        KeysteadError: what `call` raised, after the refusal was recorded.
        Unavailable: the record could not be written; no answer is given.
    """
    started = services.clock.now()
    try:
        with services.journal.call():
            result, object_id = call()
    except KeysteadError as error:
        refused(services, identity, act, error, started)
        raise
    except Exception:
        refused(services, identity, act, _defect(), started)
        raise
    services.journal.keep(_record(services, identity, act, started, object_id=object_id))
    return result


def refused(services: VaultServices, identity: Identity, act: Act, error: KeysteadError, started: int | None = None) -> None:
    """Record a refusal before it is told: of a call that changes nothing, or that came to nothing before it looked at anything.

    Args:
        services: of the vault.
        identity: who calls.
        act: what the call is about.
        error: why it is refused.
        started: when it came, in milliseconds; None: now.

    Raises:
        Unavailable: the record could not be written.
    """
    with services.store.reading() as tx:
        owner = _owner(tx, identity, act)
    came = services.clock.now() if started is None else started
    services.journal.keep(_record(services, identity, act, came, error=error, owner=owner))


def add_record(services: VaultServices, tx: VaultWriter, identity: Identity, act: Act) -> None:
    """Record something that happens inside another call's transaction."""
    tx.add_log(_record(services, identity, act, services.clock.now()))


def _owner(tx: VaultReader, identity: Identity, act: Act) -> str:
    """Whose log a refusal belongs in: an application that acts for the wrong tenant is told to the vault's owner."""
    if identity.is_person or not VAULT_NAME.fullmatch(act.vault):
        return identity.tenant_id
    vault = tx.vault_of_anyone(act.vault)
    return identity.tenant_id if vault is None else vault.tenant_id


def _object_id(result: object) -> str:
    """The full identifier a call answered about, where its answer names one."""
    if isinstance(result, KeyView | KeyShown):
        return result.id
    return result.key_uri if isinstance(result, WrappedValue) else ""


def _record(
    services: VaultServices,
    identity: Identity,
    act: Act,
    started: int,
    *,
    error: KeysteadError | None = None,
    object_id: str = "",
    owner: str = "",
) -> LogRecord:
    vault, resource = _resource(identity.tenant_id, act.vault[: MAX_VAULT_NAME + 1])  # what is longer is no name, and is not kept whole
    needed = vault and act.key and not (object_id and identity.request_uri)
    uri = KeyUri(vault, act.key, act.version).text(services.settings.uri_suffix) if needed else ""
    text = act.note if error is None else error.detail
    principal = identity.principal
    return LogRecord(
        owner or identity.tenant_id,
        vault,
        started,
        resource,
        act.operation,
        identity.api_version,
        CATEGORY,
        "Success" if error is None else "Failure",
        "OK" if error is None else error.code,
        printable(text, MAX_TEXT) if text else "",
        max(0, services.clock.now() - started),
        identity.client_ip,
        identity.correlation_id,
        principal.kind.value,
        principal.name,
        principal.application_id,
        printable(identity.client_info, MAX_CLIENT_INFO),
        printable(identity.request_uri or uri, MAX_TEXT),
        printable(object_id or uri, MAX_TEXT),
        200 if error is None else _status(error),
    )


@lru_cache(maxsize=1_024)
def _resource(tenant_id: str, name: str) -> tuple[str, str]:
    """A vault in lower case, and the path of what a call is about; of a name that can be none, the tenant's. The same few come all the time."""
    if not VAULT_NAME.fullmatch(name):
        return "", f"/tenants/{tenant_id}"
    return name.lower(), f"/tenants/{tenant_id}/vaults/{name.lower()}"


def _defect() -> KeysteadError:
    """What the log tells of a call that met a defect of ours: it is there like any other, so that nobody uses keys unseen by way of one."""
    return KeysteadError("unexpected", "the call met a defect of the service")


def printable(text: str, most: int) -> str:
    """At most so many characters of a text for the log, each control character as its escape.

    Callers write parts of these texts. What a database does not take (PostgreSQL: NUL) must not keep a refusal out of the log, and nothing
    of them may drive the terminal of whoever reads it.
    """
    cut = text[:most]
    return cut if cut.isprintable() else "".join(one if one.isprintable() else f"\\u{ord(one):04x}" for one in cut)[:most]


def _status(error: KeysteadError) -> int:
    return next((status for kind, status in _STATUS if isinstance(error, kind)), 500)
