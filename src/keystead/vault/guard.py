"""What every call about a vault passes beside its access policy: network rules (R-043), rate limits (R-066), read-only mode (R-069).

`lookup.need` and `lookup.need_contributor` ask for the first and the last, so that no use case can forget them; what a call costs only
the use case knows, and it says so with `admitted`.
"""

from __future__ import annotations

from threading import Lock
from typing import TYPE_CHECKING

from keystead.core.errors import PreconditionFailed, Throttled
from keystead.core.vaults import network
from keystead.core.vaults.limits import IMPORTS_PER_WINDOW, PER_WINDOW, SUBSCRIPTION_SHARE, WINDOW_SECONDS, Spent, spend

if TYPE_CHECKING:
    from keystead.core.vaults.limits import Budget, CallKind
    from keystead.ports.vault_store import Vault
    from keystead.vault.services import Identity, VaultServices

_KEPT = 10_000
"""Budgets kept before those that are whole again are dropped."""


class RateLimits:
    """What was spent of the budgets of vaults and subscriptions, in this process. Safe to use from several threads.

    Several processes that serve one vault count apart. A restart forgets: the budget of ten seconds is not worth a write per call.
    """

    def __init__(self, percent: int) -> None:
        self._percent = percent
        self._spent: dict[tuple[str, Budget], Spent] = {}
        self._imports = Spent()
        self._kept = _KEPT
        self._lock = Lock()

    def __repr__(self) -> str:
        return f"RateLimits({self._percent} %)"

    def take(self, found: Vault, kind: CallKind, now: int) -> int:
        """Count a call; in how many milliseconds it is worth trying again, 0 where it is within the budgets."""
        if not self._percent:
            return 0
        limit = PER_WINDOW[kind.budget] * self._percent // 100
        mine, ours = (found.id, kind.budget), (found.subscription.id, kind.budget)
        with self._lock:
            if len(self._spent) >= self._kept:
                self._drop_whole(now)
            vault, wait = spend(self._spent.get(mine, Spent()), kind.weight, limit, now)
            if wait:
                return wait
            subscription, wait = spend(self._spent.get(ours, Spent()), kind.weight, limit * SUBSCRIPTION_SHARE, now)
            if not wait:
                self._spent[mine], self._spent[ours] = vault, subscription
        return wait

    def take_import(self, weight: int, now: int) -> int:
        """Count a key from outside that is going to be tested, whosoever it is; in how many milliseconds it is worth trying again, or 0."""
        if not self._percent:
            return 0
        with self._lock:
            self._imports, wait = spend(self._imports, weight, IMPORTS_PER_WINDOW * self._percent // 100, now)
        return wait

    def _drop_whole(self, now: int) -> None:
        """Keep those of which something was spent lately. Where that is most of them, look again only when there are twice as many."""
        oldest = now // 1_000 - WINDOW_SECONDS
        self._spent = {place: spent for place, spent in self._spent.items() if spent.second >= oldest}
        self._kept = max(_KEPT, 2 * len(self._spent))


def admitted(services: VaultServices, identity: Identity, found: Vault, kind: CallKind) -> None:
    """Let a call about the keys of a vault through, and count it where it came over the network.

    Raises:
        Forbidden: `vault_firewall`: the vault may not be called from there (R-043).
        PreconditionFailed: `vault_read_only`: the call changes something, and the vault is failed over (R-069).
        Throttled: `vault_throttled`, with `retry_after` (R-066).
    """
    need_address(identity, found)
    if kind.changes:
        need_writable(found)
    counted(services, identity, found, kind, services.clock.now())


def counted(services: VaultServices, identity: Identity, found: Vault, kind: CallKind, now: int) -> None:
    """The last part of `admitted`, for who has asked for the others: count a call that came over the network.

    Raises:
        Throttled: `vault_throttled`, with `retry_after` (R-066).
    """
    wait = services.limits.take(found, kind, now) if identity.request_uri else 0
    if wait:
        raise Throttled(
            "vault_throttled",
            f"the vault {found.name} is called more often than its limit for {kind.budget} operations allows",
            f"try again in {-(-wait // 1_000)} seconds, and wait twice as long after each refusal",
            retry_after=wait,
        )


def admitted_import(services: VaultServices, identity: Identity, found: Vault, kind: CallKind, weight: int) -> None:
    """The same for a key from outside, before anybody looks at it: also what turns out to be no key takes the time of everybody.

    Raises:
        KeysteadError: as `admitted`; `vault_throttled` too where the process tests as many keys as it may.
    """
    admitted(services, identity, found, kind)
    wait = services.limits.take_import(weight, services.clock.now()) if identity.request_uri and weight else 0
    if wait:
        raise Throttled(
            "vault_throttled",
            "more keys are brought to this server than it tests at a time",
            f"try again in {-(-wait // 1_000)} seconds, and wait twice as long after each refusal",
            retry_after=wait,
        )


def need_address(identity: Identity, found: Vault) -> None:
    """Let a call through that comes from where the vault may be called.

    Raises:
        Forbidden: `vault_firewall`.
    """
    inside = not identity.client_ip and not identity.request_uri
    network.admit(network.read(found.network_rules), identity.client_ip, inside=inside, vault=found.name)


def need_writable(found: Vault) -> None:
    """Let a change through, unless the vault is failed over.

    Raises:
        PreconditionFailed: `vault_read_only`.
    """
    if found.read_only:
        raise PreconditionFailed(
            "vault_read_only",
            f"the vault {found.name} is failed over to its second region: its keys can be used, and nothing can be changed",
            f"wait until it is back, or bring it back: keystead vault fail-over {found.name} off",
        )
