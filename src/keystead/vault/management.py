"""What is changed about a vault after it was made: network rules, fail-over, purge protection (R-043, R-053, R-069); and its upkeep.

From where these calls come does not matter: who may change a vault can always mend its network rules.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from keystead.api.types.vaults import NetworkView
from keystead.core.vaults import network
from keystead.core.vaults.access import allow_contributor
from keystead.vault import rotation
from keystead.vault.lookup import find_vault, held, need_contributor
from keystead.vault.record import Act, recorded
from keystead.vault.retention import purge_expired
from keystead.vault.services import identity_of
from keystead.vault.vaults import need_sight
from keystead.vault.views import vault_view

if TYPE_CHECKING:
    from collections.abc import Callable

    from keystead.api.types.vaults import FailOver, NetworkDefault, NetworkRange, VaultNamed, VaultView
    from keystead.ports.vault_store import Vault, VaultWriter
    from keystead.vault.services import Caller, VaultServices


def show_network(vault: VaultServices, caller: Caller, request: VaultNamed) -> NetworkView:
    """From where a vault may be called.

    Raises:
        NotFound: no such vault.
        Forbidden: the caller may not see it.
    """
    identity = identity_of(caller)
    now = vault.clock.now()

    def change(tx: VaultWriter) -> NetworkView:
        found = find_vault(tx, identity, request.vault, now)
        need_sight(tx, identity, found, request.vault)
        return _network_view(found)

    return recorded(vault, identity, Act("VaultGet", request.vault, note="network rules"), change)


def allow_range(vault: VaultServices, caller: Caller, request: NetworkRange) -> NetworkView:
    """Let one more range of addresses in. It matters once the default is deny.

    Raises:
        InvalidRequest: `network_range_invalid`, `network_ranges_too_many`.
        NotFound: no such vault.
        Forbidden: the caller may not change the vault.
        PreconditionFailed: `vault_read_only`.
    """
    return _change_rules(
        vault,
        caller,
        request.vault,
        f"network range {request.range} let in",
        lambda rules: network.with_range(rules, network.address_range(request.range)),
    )


def remove_range(vault: VaultServices, caller: Caller, request: NetworkRange) -> NetworkView:
    """Take a range of addresses from those let in; it counts from the next call on.

    Raises:
        InvalidRequest: `network_range_invalid`.
        NotFound: no such vault; `network_range_not_found`.
        Forbidden: the caller may not change the vault.
        PreconditionFailed: `vault_read_only`.
    """
    return _change_rules(
        vault,
        caller,
        request.vault,
        f"network range {request.range} removed",
        lambda rules: network.without_range(rules, network.address_range(request.range)),
    )


def set_default(vault: VaultServices, caller: Caller, request: NetworkDefault) -> NetworkView:
    """Say what holds for callers in no range, and whether the service's own applications in this process pass.

    Raises:
        InvalidRequest: `network_default_invalid`, `network_bypass_invalid`.
        NotFound: no such vault.
        Forbidden: the caller may not change the vault.
        PreconditionFailed: `vault_read_only`.
    """

    def changed(rules: network.NetworkRules) -> network.NetworkRules:
        passing = rules.bypass if request.bypass is None else network.bypass(request.bypass)
        return replace(rules, default=network.default_action(request.action), bypass=passing)

    note = f"network default {request.action}" + ("" if request.bypass is None else f", bypass {request.bypass}")
    return _change_rules(vault, caller, request.vault, note, changed)


def protect(vault: VaultServices, caller: Caller, request: VaultNamed) -> VaultView:
    """Turn purge protection on. Nobody can turn it off again, and turning it on twice changes nothing (R-053).

    Raises:
        NotFound: no such vault.
        Forbidden: the caller may not change the vault.
        PreconditionFailed: `vault_read_only`.
    """
    identity = identity_of(caller)
    now = vault.clock.now()

    def change(tx: VaultWriter) -> VaultView:
        found = find_vault(tx, identity, request.vault, now)
        need_contributor(tx, identity, found)
        protected = replace(found, purge_protection=True)
        tx.put_vault(protected)
        return vault_view(protected, vault.settings.uri_suffix, now)

    return recorded(vault, identity, Act("VaultPatch", request.vault, note="purge protection on"), change)


def fail_over(vault: VaultServices, caller: Caller, request: FailOver) -> VaultView:
    """Put a vault into the read-only mode it has while its second region serves, or back (R-069). This is the one change the mode lets through.

    Raises:
        NotFound: no such vault.
        Forbidden: the caller may not change the vault.
    """
    identity = identity_of(caller)
    now = vault.clock.now()

    def change(tx: VaultWriter) -> VaultView:
        found = find_vault(tx, identity, request.vault, now)
        allow_contributor(held(tx, identity, found), identity.principal, found.name)
        set_over = replace(found, read_only=request.read_only)
        tx.put_vault(set_over)
        return vault_view(set_over, vault.settings.uri_suffix, now)

    note = "failed over, read-only" if request.read_only else "back from fail-over"
    return recorded(vault, identity, Act("VaultPatch", request.vault, note=note), change)


def upkeep(vault: VaultServices) -> int:
    """What is due by itself, for whoever runs once a minute: remove what is past its retention, tell of expiry, rotate. How much was done."""
    return purge_expired(vault) + rotation.due(vault)


def _change_rules(
    vault: VaultServices, caller: Caller, name: str, note: str, changed: Callable[[network.NetworkRules], network.NetworkRules]
) -> NetworkView:
    identity = identity_of(caller)
    now = vault.clock.now()

    def change(tx: VaultWriter) -> NetworkView:
        found = find_vault(tx, identity, name, now)
        need_contributor(tx, identity, found)
        ruled = replace(found, network_rules=network.write(changed(network.read(found.network_rules))))
        tx.put_vault(ruled)
        return _network_view(ruled)

    return recorded(vault, identity, Act("VaultPatch", name, note=note), change)


def _network_view(found: Vault) -> NetworkView:
    rules = network.read(found.network_rules)
    return NetworkView(vault=found.name, default_action=rules.default, bypass=rules.bypass, ranges=[str(one) for one in rules.ranges])
