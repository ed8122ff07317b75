"""What every use case is given: the ports, the settings, the keyring. Built in `keystead.wiring`, passed as the first argument."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from keystead.core.ids import RandomBytes
    from keystead.core.settings import Settings
    from keystead.ports.clock import Clock
    from keystead.ports.keystore import KeyStore
    from keystead.ports.objects import ObjectStore
    from keystead.ports.tx import Database
    from keystead.ports.vaults import Vaults
    from keystead.services.keyring import Keyring


def _no_checkpoint(_name: str) -> None:
    """In production nothing happens between two steps."""


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
        configuration: every value of keystead.toml as text, by its name; no secret is among them.
    """

    where: str
    dev: bool
    version: str
    sources: Mapping[str, str]
    parse_setting: Callable[[str, str], bool | int]
    configuration: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Services:
    """The service.

    Attributes:
        owner: names this process in leases; alive: whether the process of such a name still runs, as far as can be told.
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
    checkpoint: Callable[[str], None] = field(default=_no_checkpoint)
