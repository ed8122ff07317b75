"""What the keys face of vaults is made of, and what is known of the address a request came to."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from keystead.core.configuration import ServerConfig

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from keystead.vault.services import Identity, VaultServices


@dataclass(frozen=True, slots=True)
class Served:
    """One vault at the address a request came to.

    Attributes:
        vault: its name.
        base_url: scheme, host and port as the caller wrote them, without a slash at the end; key identifiers are rendered on it.
        authority_url: where its callers sign in, with the tenant's id as its last part.
        resource: what a token must be for, and what the challenge names.
        region: of the vault, for a header; empty where it is not known.
        rbac: permissions are given by role in it (R-044), and that is how a missing one is told.
        tenant_id: whose vault it is, as the authority's address says, in lower case.
    """

    vault: str
    base_url: str
    authority_url: str
    resource: str
    region: str = ""
    rbac: bool = False
    tenant_id: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "tenant_id", self.authority_url.rpartition("/")[2].lower())


@dataclass(frozen=True, slots=True)
class VaultParts:
    """What the application is made of.

    Attributes:
        services: the vault's.
        resolve: which vault a request is for, by its ASGI scope; called in the event loop, must not block. Raises `NotFound` with code
            `vault_not_found` where there is none at that address.
        verify: who a bearer token is from, given the token, the resource it must be for, and when the call came by `time.monotonic`; called in
            a thread. Raises `Unauthenticated`.
        config: limits of connections, bodies and threads.
        version: of the service, for a header.
    """

    services: VaultServices
    resolve: Callable[[Mapping[str, Any]], Served]
    verify: Callable[[str, str, float], Identity]
    config: ServerConfig = field(default_factory=ServerConfig)
    version: str = "0"
