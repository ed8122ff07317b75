"""Subscriptions: what vaults are created in, and what mandatory retention is registered for."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from keystead.core.errors import Conflict, InvalidRequest, PreconditionFailed
from keystead.core.ids import display_name, is_id, new_id
from keystead.ports.vault_store import Subscription
from keystead.ports.vaults import SubscriptionFacts
from keystead.vault.lookup import REGISTERED, find_subscription, need_working_subscription, protection
from keystead.vault.record import Act, recorded
from keystead.vault.services import identity_of
from keystead.vault.views import subscription_state, subscription_view

if TYPE_CHECKING:
    from keystead.api.types.base import Empty
    from keystead.api.types.vaults import SubscriptionCreate, SubscriptionNamed, SubscriptionView
    from keystead.ports.vault_store import VaultWriter
    from keystead.vault.services import Caller, Identity, VaultServices

KINDS = ("paid", "trial", "free", "sponsored", "msdn", "legacy")


def create(vault: VaultServices, caller: Caller, request: SubscriptionCreate) -> SubscriptionView:
    """Create a subscription in the caller's directory (R-015).

    Raises:
        InvalidRequest: the name or kind.
        Conflict: `subscription_exists`.
    """
    identity = identity_of(caller)
    now = vault.clock.now()

    def change(tx: VaultWriter) -> SubscriptionView:
        name, kind = display_name(request.name, "subscription"), request.kind.lower()
        if is_id(name):
            raise InvalidRequest(
                "name_invalid", f"{name!r} looks like an id, which is not a name for a subscription", "choose a name for people"
            )
        if kind not in KINDS:
            raise InvalidRequest(
                "subscription_kind_invalid", f"{request.kind!r} is not a kind of subscription", f"use one of {', '.join(KINDS)}"
            )
        if tx.subscription(identity.tenant_id, name) is not None:
            raise Conflict("subscription_exists", f"there already is a subscription {name!r}", "choose another name")
        made = Subscription(
            new_id(vault.random),
            identity.tenant_id,
            name,
            kind,
            cancelled=False,
            protected_from=None,
            created=now,
            created_by=identity.principal.name,
        )
        tx.add_subscription(made)
        return subscription_view(made, now)

    return recorded(vault, identity, Act("SubscriptionPut", note=request.name), change)


def protect(vault: VaultServices, caller: Caller, request: SubscriptionNamed) -> SubscriptionView:
    """Register a subscription for mandatory retention: Pending for the time of the setting, then Registered (R-055). Asking again changes nothing.

    Raises:
        NotFound: no such subscription.
        PreconditionFailed: `subscription_cancelled`.
    """
    identity = identity_of(caller)
    now = vault.clock.now()

    def change(tx: VaultWriter) -> SubscriptionView:
        found = find_subscription(tx, identity.tenant_id, request.name)
        need_working_subscription(found)
        if found.protected_from is None:
            found = replace(found, protected_from=now + vault.settings.protection_delay_ms)
            tx.put_subscription(found)
        return subscription_view(found, now)

    return recorded(vault, identity, Act("SubscriptionRegister", note=request.name), change)


def cancel(vault: VaultServices, caller: Caller, request: SubscriptionNamed) -> SubscriptionView:
    """Cancel a subscription at once and for good: the keys of its vaults can no longer be used.

    Raises:
        NotFound: no such subscription.
        PreconditionFailed: `subscription_protected`: it is registered for mandatory retention (R-056).
    """
    identity = identity_of(caller)
    now = vault.clock.now()

    def change(tx: VaultWriter) -> SubscriptionView:
        found = find_subscription(tx, identity.tenant_id, request.name)
        if protection(found, now) == REGISTERED:
            raise PreconditionFailed(
                "subscription_protected",
                f"the subscription {found.name} is registered for mandatory retention and cannot be cancelled at once",
                "delete its vaults and let their retention end",
            )
        cancelled = replace(found, cancelled=True)
        tx.put_subscription(cancelled)
        return subscription_view(cancelled, now)

    return recorded(vault, identity, Act("SubscriptionCancel", note=request.name), change)


def list_all(vault: VaultServices, caller: Caller, _request: Empty) -> list[SubscriptionView]:
    """All subscriptions of the tenant, by name."""
    identity = identity_of(caller)
    now = vault.clock.now()
    return recorded(
        vault,
        identity,
        Act("SubscriptionList"),
        lambda tx: [subscription_view(found, now) for found in tx.subscriptions(identity.tenant_id)],
    )


def facts(vault: VaultServices, identity: Identity, name: str) -> SubscriptionFacts:
    """What the service is told about a subscription, by name or id.

    Raises:
        NotFound: `subscription_not_found`.
    """
    now = vault.clock.now()
    return recorded(
        vault,
        identity,
        Act("SubscriptionGet", note=name),
        lambda tx: subscription_facts(find_subscription(tx, identity.tenant_id, name), now),
    )


def subscription_facts(subscription: Subscription, now: int) -> SubscriptionFacts:
    """The facts of a subscription."""
    return SubscriptionFacts(
        id=subscription.id,
        name=subscription.name,
        tenant_id=subscription.tenant_id,
        kind=subscription.kind,
        protection=protection(subscription, now),
        state=subscription_state(subscription),
    )
