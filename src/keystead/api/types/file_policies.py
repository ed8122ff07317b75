"""The policies that the files of a geo lie under."""

from datetime import datetime
from typing import Literal

from keystead.api.types.base import Request, Response
from keystead.api.types.policies import CheckView, KeyHealthView


class RegisterFiles(Request, frozen=True):
    """`primary` and `secondary`: key identifiers with version, in two vaults. `geo` may be left out where the tenant has one."""

    primary: str
    secondary: str
    geo: str = ""


class RollFiles(Request, frozen=True):
    """`key`: the identifier, with version, of what takes the place of one of the two keys."""

    which: Literal["primary", "secondary"]
    key: str
    geo: str = ""


class RecoverFiles(Request, frozen=True):
    """`primary` and `secondary`: two keys in place of those that are lost, with version."""

    primary: str
    secondary: str
    geo: str = ""


class NameGeo(Request, frozen=True):
    """`geo` may be left out where the tenant has one."""

    geo: str = ""


class FilesStatus(Response, frozen=True):
    """How the files of a geo are encrypted. All but `geo`, `state` and `sites` is null for a geo that is not registered.

    While something is under way the keys are those it leads to; `percent_sites` is how many of the sites are done, all in all. `health` is
    what the keys said last.
    """

    geo: str
    state: Literal["Unregistered", "Registering", "Registered", "Rolling", "Recovering", "Reverting"]
    primary_key_uri: str | None
    secondary_key_uri: str | None
    percent_sites: float | None
    sites: int
    sites_done: int | None
    policy_id: str | None
    job_id: str | None
    started: datetime | None
    health: str | None
    overdue: bool = False
    warnings: list[CheckView] = []


class FilesHealth(Response, frozen=True):
    """Live: both keys of the policy in force were asked just now."""

    geo: str
    state: Literal["healthy", "degraded", "unreachable", "denied"]
    keys: list[KeyHealthView]
    checked: datetime
