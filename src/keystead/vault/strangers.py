"""Calls that nobody vouches for, without a token or with one that is not good: the vault's log tells of them too (R-067), but counted.

Anybody can make such calls, and clients begin with one to learn where to sign in: a record of each would fill a log that nobody may shorten. So
an address gets one a minute for each vault: the first call at once, then one for what came since. They hold no part of what was shown, neither a
token nor a name in it, which could be anybody's. Other processes count for themselves.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from keystead.core.access.throttle import group_of
from keystead.core.errors import Unauthenticated
from keystead.core.ids import new_id
from keystead.core.vaults.access import PrincipalKind, VaultPrincipal
from keystead.vault.record import Act, refused
from keystead.vault.services import Identity
from keystead.vault.tokens import AUTHENTICATION

if TYPE_CHECKING:
    from collections.abc import Sequence

    from keystead.recent import Report
    from keystead.vault.services import VaultServices

MANY = "many addresses"
"""What stands for those that have no record of their own."""
_NOBODY = VaultPrincipal(PrincipalKind.SERVICE, "nobody")


class Stranger(NamedTuple):
    """Whoever calls a vault from an address, or behind it, and is nobody. `tenant_id`: whose vault it is."""

    tenant_id: str
    vault: str
    address: str


def note(services: VaultServices, tenant_id: str, vault: str, client_ip: str, code: str) -> list[Report[Stranger]]:
    """Count a call; what is to be recorded now. Waits for nothing.

    Args:
        services: of the vault.
        tenant_id: whose vault it is.
        vault: its name.
        client_ip: where the call came from.
        code: of the error it was answered with.
    """
    one = Stranger(tenant_id, vault, group_of(client_ip))
    return services.strangers.note(one, one._replace(address=MANY), code, services.clock.now())


def record(services: VaultServices, reports: Sequence[Report[Stranger]]) -> None:
    """Write what `note` or `due` gave.

    Raises:
        Unavailable: a record could not be written.
    """
    for report in reports:
        count = sum(times for _code, times in report.codes)
        codes = ", ".join(f"{code} {times}" for code, times in report.codes)
        error = Unauthenticated(report.codes[0][0], f"{count} {'call' if count == 1 else 'calls'} without a good token: {codes}", "")
        tenant_id, vault, address = report.source
        nobody = Identity(_NOBODY, tenant_id, address, new_id(services.random), client_info="", api_version="")
        refused(services, nobody, Act(AUTHENTICATION, vault), error)


def write_due(services: VaultServices, *, all_of_it: bool = False) -> None:
    """Write what was counted long enough ago; all of it when the process ends. Raises: as `record`."""
    record(services, services.strangers.due(services.clock.now(), all_of_it=all_of_it))
