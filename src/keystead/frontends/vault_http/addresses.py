"""At which address each vault of a home is served, by `keystead vault serve`.

On loopback every vault, and the place where clients sign in, has a port of its own, so that nothing has to be written into anybody's name
server. What was chosen once is kept in the home's run/vault-addresses.json, and taken again where it is free. With a domain there is one
address for all, and the Host header tells them apart: VAULT.DOMAIN, and login.DOMAIN.

The book is written in one thread and read in others: what readers see is replaced as a whole.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import msgspec

from keystead.core.errors import NotFound
from keystead.frontends.vault_http.parts import Served

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from keystead.ports.vault_store import Vault

LOOPBACK = "127.0.0.1"
LOGIN = "login"
HTTPS = 443
LONGEST_HOST = 259
"""Bytes of a Host header that `_HOST` can match, and MOST_SERVED how many are remembered."""
MOST_SERVED = 1_024
_HOST = re.compile(r"([a-z0-9.-]{1,253})(?::([1-9][0-9]{0,4}))?")


@dataclass(frozen=True, slots=True)
class Domain:
    """A domain under which all vaults are served, and the port clients reach it by."""

    name: str
    port: int

    @property
    def _port(self) -> str:
        return "" if self.port == HTTPS else f":{self.port}"

    @property
    def resource(self) -> str:
        """What tokens for its vaults are for. With another port than that of https the port belongs to it: clients compare both."""
        return f"https://{self.name}{self._port}"

    def url(self, label: str) -> str:
        """The address of a vault, or of the place to sign in."""
        return f"https://{label}.{self.name}{self._port}"


@dataclass(frozen=True, slots=True)
class Place:
    """A vault and its address."""

    vault_id: str
    name: str
    tenant_id: str
    region: str
    url: str
    active: bool
    rbac: bool


@dataclass(frozen=True, slots=True)
class _Page:
    """What readers see.

    Attributes:
        places: by port, or with a domain by name in lower case.
        authority_port: where clients sign in; 0 with a domain.
        served: what `resolve` made of them, by our port and the Host header. Belongs to the event loop.
    """

    places: Mapping[int | str, Place] = field(default_factory=dict)
    authority_port: int = 0
    served: dict[tuple[int, bytes], Served] = field(default_factory=dict)


class AddressBook:
    """The addresses in force."""

    def __init__(self, domain: Domain | None) -> None:
        self._domain = domain
        self._page = _Page()

    # -- writing -----------------------------------------------------------------------------------------------------------------------

    def put(self, vaults: Mapping[int | str, Vault], active: frozenset[str], authority_port: int) -> None:
        """Replace all.

        Args:
            vaults: by port, or with a domain by name in lower case.
            active: ids of those that are not deleted.
            authority_port: where clients sign in; 0 with a domain.
        """
        places = {
            key: Place(one.id, one.name, one.tenant_id, one.region, self._url(key), one.id in active, one.rbac)
            for key, one in vaults.items()
        }
        self._page = _Page(places, authority_port)

    def _url(self, key: int | str) -> str:
        return f"https://{LOOPBACK}:{key}" if self._domain is None else self._domain.url(str(key))

    # -- reading -----------------------------------------------------------------------------------------------------------------------

    @property
    def places(self) -> list[Place]:
        """Vaults that are not deleted, by name."""
        return sorted((place for place in self._page.places.values() if place.active), key=lambda place: place.name.lower())

    @property
    def authority(self) -> str:
        """Where clients sign in, without a tenant."""
        return f"https://{LOOPBACK}:{self._page.authority_port}" if self._domain is None else self._domain.url(LOGIN)

    def is_authority(self, scope: Mapping[str, Any]) -> bool:
        """Whether a request came to the place where clients sign in."""
        if self._domain is None:
            return _port(scope) == self._page.authority_port
        return _host(scope)[0] == f"{LOGIN}.{self._domain.name}"

    def authority_of(self, scope: Mapping[str, Any]) -> str:
        """The same as the caller of a request there wrote it, as far as that is one of its names."""
        return self._as_written(scope, self.authority)

    def resolve(self, scope: Mapping[str, Any]) -> Served:
        """Which vault a request is for.

        Raises:
            NotFound: `vault_not_found`: there is none at that address.
        """
        page, asked = self._page, (_port(scope), _host_header(scope))
        served = page.served.get(asked)  # clients write the same Host at each call: it is taken apart once
        if served is None:
            served = self._served(page, scope)
            if len(asked[1]) <= LONGEST_HOST:
                if len(page.served) >= MOST_SERVED:
                    page.served.clear()  # whoever writes ever other ones gets no more memory than this
                page.served[asked] = served
        return served

    def _served(self, page: _Page, scope: Mapping[str, Any]) -> Served:
        if self._domain is None:
            place = page.places.get(_port(scope))
        else:
            host = _host(scope)[0]
            label = host.removesuffix(f".{self._domain.name}")
            place = page.places.get(label) if label != host else None
        if place is None:
            raise NotFound("vault_not_found", "there is no vault at this address", "see keystead vault list")
        base = self._as_written(scope, place.url)
        resource = place.url if self._domain is None else self._resource(scope)
        return Served(place.name, base, f"{self._authority_beside(scope)}/{place.tenant_id}", resource, place.region, place.rbac)

    def resource(self, tenant_id: str, resource: str) -> str | None:
        """The vault of a tenant that a resource stands for; empty where it stands for all; None where it stands for none."""
        if self._domain is None:
            for place in self._page.places.values():
                if place.url == resource and place.tenant_id == tenant_id:
                    return place.name.lower()
            return None
        host, _, port = resource.removeprefix("https://").partition(":")
        return "" if host == self._domain.name and port != str(HTTPS) else None

    def _as_written(self, scope: Mapping[str, Any], url: str) -> str:
        """An address with the host and port of the request, where those name the same place: whoever forwards a port sees their own."""
        host, port = _host(scope)
        if self._domain is None:
            canonical = url.rpartition(":")[2]
            return f"https://localhost:{canonical}" if (host, str(port)) == ("localhost", canonical) else url
        if not host.endswith(f".{self._domain.name}"):
            return url
        return f"https://{host}" + ("" if port == HTTPS else f":{port}")

    def _resource(self, scope: Mapping[str, Any]) -> str:
        assert self._domain is not None, "resources of a domain"
        return Domain(self._domain.name, _host(scope)[1]).resource

    def _authority_beside(self, scope: Mapping[str, Any]) -> str:
        """Where to sign in, for somebody who reaches the vault by the host and port of a request."""
        return self.authority if self._domain is None else Domain(self._domain.name, _host(scope)[1]).url(LOGIN)


def _port(scope: Mapping[str, Any]) -> int:
    """The port of ours that a connection came to: nothing a caller writes has a part in it."""
    server = scope.get("server")
    return int(server[1] or 0) if server else 0


def _host(scope: Mapping[str, Any]) -> tuple[str, int]:
    """Host and port of the Host header, in lower case; empty for none, or what is none."""
    found = _HOST.fullmatch(_host_header(scope).decode("latin-1").lower())
    return (found[1].removesuffix("."), int(found[2] or HTTPS)) if found else ("", 0)


def _host_header(scope: Mapping[str, Any]) -> bytes:
    for name, value in scope["headers"]:
        if name == b"host":
            found: bytes = value
            return found
    return b""


# -- what is remembered -----------------------------------------------------------------------------------------------------------------


class Remembered(msgspec.Struct, frozen=True):
    """run/vault-addresses.json: ports by id of the vault, so that a name used again inherits nothing."""

    authority: int = 0
    vaults: dict[str, int] = {}


def remembered(file: Path) -> Remembered:
    """What was chosen before; nothing where the file is not there or cannot be read: it is a convenience."""
    try:
        return msgspec.json.decode(file.read_bytes(), type=Remembered)
    except (OSError, msgspec.DecodeError):
        return Remembered()
