"""One request: who asks, from where, and the sites it has opened. What the library is called for finds it in the request's environment."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from keystead.api.call import Call
from keystead.api.routes import BY_NAME
from keystead.core.errors import InvalidRequest, NotFound
from keystead.services import file_locks, sites

if TYPE_CHECKING:
    from keystead.api.dispatch import Dispatcher
    from keystead.core.access.principal import Principal
    from keystead.frontends.webdav.paths import Target
    from keystead.services.context import Services
    from keystead.services.file_locks import Lock
    from keystead.services.sites import OpenSite

VISIT = "keystead.visit"
"""Where the environment of a request holds its visit."""

READING = {"OPTIONS": "site.ls", "PROPFIND": "site.ls", "GET": "site.get", "HEAD": "site.get"}
CHANGING = {
    "PUT": ("site.put",),
    "MKCOL": ("site.mkdir",),
    "DELETE": ("site.rm",),
    "MOVE": ("site.mv",),
    "COPY": ("site.put", "site.get"),
    "PROPPATCH": ("site.put",),
    "LOCK": ("site.put",),
    "UNLOCK": ("site.put",),
}
"""By method, the rows of the API that somebody must be allowed to call; the first one names the operation."""


@dataclass(slots=True)
class Visit:
    """What is known of a request while it is answered.

    Attributes:
        target: what it is about.
        method: of HTTP.
        known: resources that were found already, by path.
    """

    services: Services
    dispatcher: Dispatcher
    principal: Principal
    request_id: str
    client_ip: str
    method: str
    target: Target
    known: dict[str, Any] = field(default_factory=dict)
    _sites: dict[str, OpenSite] = field(default_factory=dict)
    _locks: dict[str, list[Lock]] = field(default_factory=dict)

    @property
    def route(self) -> str:
        """The row that names what is done."""
        if self.method in CHANGING:
            return CHANGING[self.method][0]
        return READING[self.method] if self.target.site else "site.list"

    @property
    def changes(self) -> bool:
        """Whether anything is changed."""
        return self.method in CHANGING

    def admit(self) -> None:
        """Whether whoever asks may do such a thing at all; refusals are recorded.

        Raises:
            Forbidden, Unauthenticated, InvalidRequest: as the dispatcher.
        """
        for name in CHANGING.get(self.method, (self.route,)):
            self.admit_to(name)

    def admit_to(self, route: str) -> None:
        """The same for one row of the API: what a method does besides what it always does."""
        self.dispatcher.admit(BY_NAME[route], principal=self.principal, client_ip=self.client_ip, request_id=self.request_id)

    def call(self, route: str = "") -> Call:
        """For a use case."""
        return Call(self.principal, self.principal.tenant_id or "", route or self.route, self.request_id, self.client_ip)

    def site(self, reference: str) -> OpenSite | None:
        """A site, opened once; None where the tenant has none of that name.

        Raises:
            Forbidden, KeyDenied, Unavailable, IntegrityFailure: as opening one does.
        """
        found = self._sites.get(reference)
        if found is None:
            try:
                found = sites.open_site(self.services, self.call(), reference, change=self.changes)
            except NotFound:
                return None
            except InvalidRequest as error:
                if error.code == "site_url_invalid":  # systems look for files of their own everywhere, here too
                    return None
                raise
            self._sites[reference] = self._sites[found.site.url] = found
        return found

    def locks(self, opened: OpenSite, *, fresh: bool = False) -> list[Lock]:
        """The locks of a site, looked up once, unless `fresh` ones are asked for."""
        found = None if fresh else self._locks.get(opened.site.id)
        if found is None:
            found = self._locks[opened.site.id] = file_locks.listed(self.services, opened)
        return found

    def changed(self) -> None:
        """Forget what was found: it may not be so any more."""
        self.known.clear()


class _Present(threading.local):
    """The visit of the request that this thread answers: the library's locks are asked without its environment."""

    visit: Visit | None = None


present = _Present()
