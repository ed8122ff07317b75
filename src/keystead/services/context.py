"""What every use case is given: the ports, the settings, the keyring. Built in `keystead.wiring`, passed as the first argument."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from keystead.ports.issuers import Issuers, NoIssuers
from keystead.services.refusals import Refusals
from keystead.services.sign_in_state import SignInState
from keystead.services.tally import Tally
from keystead.services.unwritten import MemoryLedger

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from keystead.core.ids import RandomBytes
    from keystead.core.settings import Settings
    from keystead.ports.clock import Clock
    from keystead.ports.keystore import KeyStore
    from keystead.ports.notify import Hook, Ledger
    from keystead.ports.objects import ObjectStore
    from keystead.ports.tx import Database
    from keystead.ports.vaults import Vaults
    from keystead.services.keyring import Keyring


def _no_checkpoint(_name: str) -> None:
    """In production nothing happens between two steps."""


def _no_upkeep() -> None:
    """Where only the service itself is kept up."""


class Means(Protocol):
    """What making a record or raising an alert takes: `Services` has it, and so has `Basics`."""

    @property
    def clock(self) -> Clock:
        """Now."""
        ...

    @property
    def random(self) -> RandomBytes:
        """For ids."""
        ...

    @property
    def settings(self) -> Settings:
        """The effective settings."""
        ...


@dataclass(frozen=True, slots=True)
class Basics:
    """The same for what is part of `Services` itself, or comes before it."""

    clock: Clock
    random: RandomBytes
    settings: Settings


@dataclass(frozen=True, slots=True)
class DevHome:
    """What only homes made with `init --dev` have. Both reach all processes of the home."""

    advance: Callable[[int], int]
    """Move the clock forward by that many milliseconds; returns the new time."""
    set_fault: Callable[[str, str], object]
    """Make a vault fail for the service's applications: vault name, kind of fault."""


@dataclass(frozen=True, slots=True)
class HomeFacts:
    """What the installation tells its operator.

    Attributes:
        where: the home's folder, or the database's name.
        sources: where each setting that is not a default comes from.
        parse_setting: checks a name and a value, and gives the value its type.
        issuer: the installation's name in the access tokens it signs.
        configuration: every value of keystead.toml as text, by its name; no secret is among them.
    """

    where: str
    dev: bool
    version: str
    sources: Mapping[str, str]
    parse_setting: Callable[[str, str], bool | int]
    configuration: tuple[tuple[str, str], ...] = ()
    issuer: str = "urn:keystead"


@dataclass(frozen=True, slots=True)
class Services:
    """The service.

    Attributes:
        owner: names this process in leases; alive: whether the process of such a name still runs, as far as can be told.
        hooks: who is told of alerts; unwritten: acts that were refused because the database did not take their record.
        tally: is told what happens, for figures.
        issuers: the sign-in providers of tenants; sign_in: what this process remembers of who signed in; refusals: of who was refused.
        upkeep: once a minute, by one process of all: what lies beside the service, as the embedded key vault.
        checkpoint: called with a name between two steps of an act that writes to more than one store; crash tests stop there.
    """

    db: Database
    keystore: KeyStore
    objects: ObjectStore
    vaults: Vaults
    clock: Clock
    random: RandomBytes
    settings: Settings
    keyring: Keyring
    owner: str
    alive: Callable[[str], bool]
    home: HomeFacts
    dev: DevHome | None = None
    hooks: tuple[Hook, ...] = ()
    unwritten: Ledger = field(default_factory=MemoryLedger)
    tally: Tally = field(default_factory=Tally)
    issuers: Issuers = field(default_factory=NoIssuers)
    sign_in: SignInState = field(default_factory=SignInState)
    refusals: Refusals = field(default_factory=Refusals)
    upkeep: Callable[[], object] = field(default=_no_upkeep)
    checkpoint: Callable[[str], None] = field(default=_no_checkpoint)
