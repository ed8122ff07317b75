"""What the vault's use cases work with, and who calls them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from keystead.core.access.throttle import Pace
from keystead.core.vaults.access import PrincipalKind, VaultPrincipal, application, person
from keystead.ports.clock import DAY, HOUR, MINUTE
from keystead.ports.issuers import NoIssuers
from keystead.recent import FailureLog
from keystead.vault.guard import RateLimits
from keystead.vault.journal import Journal
from keystead.vault.loaded import LoadedKeys
from keystead.vault.sealing import open_seal
from keystead.vault.seen import Seen, Stamps
from keystead.vault.token_state import TokenState

if TYPE_CHECKING:
    from keystead.api.call import Call
    from keystead.core.ids import RandomBytes
    from keystead.core.vaults.seal import VaultSeal
    from keystead.core.vaults.seal_record import Seal
    from keystead.ports.clock import Clock
    from keystead.ports.issuers import Issuers
    from keystead.ports.vault_store import VaultStore
    from keystead.vault.operations import Looked
    from keystead.vault.strangers import Stranger

    Caller: TypeAlias = "Call | Identity"


MOST_SEEN = 10_000
"""Rows of each kind that are remembered; a few KB each."""
SIGN_IN_PACE = Pace(free=10, delay=1_000, most=MINUTE, forget=15 * MINUTE)
"""As for people and their tokens."""


@dataclass(frozen=True, slots=True)
class VaultSettings:
    """Settings of the key vault.

    Attributes:
        uri_suffix: what follows a vault's name in the host of key identifiers.
        protection_delay_ms: how long registering a subscription for mandatory retention takes, in milliseconds (R-055).
        loaded_keys: private keys kept in memory as loaded objects; one of RSA-2048 takes some 10 KB.
        page: most entries of one page of a listing.
        rate_percent: how much of the published rate limits a vault has (R-066); 0: no limits.
        client_secret_lifetime: longest, and usual, life of a client's secret, in milliseconds like the next three.
        client_token_lifetime: of access tokens; token_key_lifetime: after how long they are signed with a fresh key.
        clock_leeway: how far the clocks of two processes of one installation may be apart.
        pace: how long clients wait that fail to sign in again and again.
    """

    uri_suffix: str = ".vault.localhost"
    protection_delay_ms: int = 0
    loaded_keys: int = 10_000
    page: int = 1_000
    rate_percent: int = 100
    client_secret_lifetime: int = 730 * DAY
    client_token_lifetime: int = HOUR
    token_key_lifetime: int = 30 * DAY
    clock_leeway: int = MINUTE
    pace: Pace = SIGN_IN_PACE


@dataclass(frozen=True, slots=True)
class VaultServices:
    """Everything a use case of the vault needs. Made by `open_vault`; who is done with it closes the journal before the store."""

    store: VaultStore
    seal: VaultSeal
    clock: Clock
    random: RandomBytes
    settings: VaultSettings
    loaded: LoadedKeys
    limits: RateLimits
    journal: Journal
    stamps: Stamps
    tokens: TokenState = field(default_factory=TokenState)
    authorities: Issuers = field(default_factory=NoIssuers)
    """On whose word keys are released."""
    usables: Seen[Looked] = field(default_factory=lambda: Seen(MOST_SEEN))
    """By tenant, vault, principal, key and version, as a call names them."""
    clients: Seen[Identity] = field(default_factory=lambda: Seen(MOST_SEEN))
    """Clients that are there, as callers, by id."""
    strangers: FailureLog[Stranger] = field(default_factory=FailureLog)
    """Calls without a good token that are still to be recorded."""


class Identity(NamedTuple):
    """Who makes a call, for which tenant, from where. A tuple: each call makes one.

    Attributes:
        principal: a person, or one of the service's applications.
        tenant_id: the tenant the call is about. An application acts for one tenant per call.
        client_ip: empty inside one process.
        correlation_id: id of the call that led to this one.
        roles: a person's roles in the tenant.
        client_info: what program calls, as it says itself; for the log.
        request_uri: the address it called; empty inside one process.
        api_version: of the face it called.
        stamp: the store's, under which the caller was found to be there; what is asked for with it, is asked of the same moment. None: no
            moment is meant.
    """

    principal: VaultPrincipal
    tenant_id: str
    client_ip: str = ""
    correlation_id: str = ""
    roles: frozenset[str] = frozenset()
    client_info: str = "keystead"
    request_uri: str = ""
    api_version: str = "v1"
    stamp: int | None = None

    @property
    def is_person(self) -> bool:
        """People see only their tenant's vaults; an application may be asked to act for a wrong one."""
        return self.principal.kind is PrincipalKind.PERSON


def open_vault(
    store: VaultStore,
    seal: Seal,
    clock: Clock,
    random: RandomBytes,
    settings: VaultSettings | None = None,
    authorities: Issuers | None = None,
) -> VaultServices:
    """The vault on its store, under its seal. A new store is bound to the seal it is first opened under.

    Args:
        store: what it keeps its keys in.
        seal: what opens that.
        clock: time.
        random: the operating system's generator.
        settings: None for the defaults.
        authorities: attestation services on whose word keys may be released; None: no key is released.

    Raises:
        IntegrityFailure: `vault_seal_wrong`: the store has another seal.
    """
    chosen = settings or VaultSettings()
    opened = open_seal(store, seal, clock, random)
    return VaultServices(
        store,
        opened,
        clock,
        random,
        chosen,
        LoadedKeys(chosen.loaded_keys),
        RateLimits(chosen.rate_percent),
        Journal(store),
        Stamps(store),
        authorities=authorities or NoIssuers(),
    )


def identity_of(caller: Caller) -> Identity:
    """Who calls a use case: the person behind a call of a route, or whom a front end of the vault's own has signed in."""
    if isinstance(caller, Identity):
        return caller
    return Identity(person(caller.principal.upn), caller.tenant_id, caller.client_ip, caller.request_id, frozenset(caller.principal.roles))


def application_of(name: str, tenant_id: str) -> Identity:
    """One of the service's applications, by name or id, acting for a tenant.

    Raises:
        InvalidRequest: `principal_unknown`.
    """
    return Identity(application(name), tenant_id)
