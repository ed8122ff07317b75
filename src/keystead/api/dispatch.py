"""Running one row of ROUTES: the only way to a use case, whatever the transport.

Steps, in this order, for every call:

1. who asks: a token, or in dev homes a name; nobody is a principal too;
2. about which tenant: named by the caller, else the caller's own;
3. may they: `core.access.roles.allow`, deny by default;
4. is the request what the row says: types and body size;
5. the handler;
6. refusals and integrity failures are recorded before the caller hears of them.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from keystead.api.call import Call, Content
from keystead.api.routes import Body, Route, Scope, Side
from keystead.core.access.roles import allow
from keystead.core.errors import IntegrityFailure, InvalidRequest, KeysteadError, NotFound, Refused, Unauthenticated
from keystead.core.ids import new_id

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from keystead.api.call import Upload
    from keystead.core.access.principal import Principal
    from keystead.core.ids import RandomBytes


NOWHERE = "nowhere"
"""In place of the id of a tenant that is not there; no id looks like it."""


class Directory(Protocol):
    """What the dispatcher asks of the service before a handler runs."""

    def tenant_id(self, reference: str) -> str | None:
        """The tenant of a name, domain or id."""
        ...

    def refused(self, call: Call, error: KeysteadError) -> None:
        """Record that a call was refused, or met damaged data."""
        ...


class Dispatcher:
    """Runs rows for one process.

    Args:
        sides: what handlers of each half of the house get as their first argument.
        directory: tenants and the log.
        random: for request ids.
    """

    def __init__(self, sides: Mapping[Side, object], directory: Directory, random: RandomBytes) -> None:
        self._sides = sides
        self._directory = directory
        self._random = random
        self._handlers: dict[str, Callable[..., Any]] = {}

    def run(
        self,
        route: Route,
        request: Any,
        *,
        principal: Principal,
        tenant: str = "",
        client_ip: str = "",
        request_id: str = "",
        upload: Upload | None = None,
    ) -> Any:
        """Run a row.

        Args:
            route: the row.
            request: an instance of `route.request`.
            principal: who asks, authenticated.
            tenant: the tenant named by the caller: name, domain or id; empty for the caller's own.
            client_ip: the caller's address.
            request_id: id of this call, in records and logs; a fresh one by default.
            upload: the body of an upload.

        Returns:
            An instance of `route.response`, or `Content` for a download.

        Raises:
            KeysteadError: everything that can go wrong on purpose.
        """
        call = self._admitted(route, principal, tenant, client_ip, request_id)
        try:
            checked = _checked(route, request)
            handler = self._handler(route)
            side = self._sides[route.side]
            answer = handler(side, call, checked) if upload is None else handler(side, call, checked, upload)
        except (Refused, Unauthenticated, IntegrityFailure) as error:
            self._directory.refused(call, error)
            raise
        return Content(answer.size, answer.media_type, self._watched(call, answer.chunks)) if isinstance(answer, Content) else answer

    def admit(self, route: Route, *, principal: Principal, tenant: str = "", client_ip: str = "", request_id: str = "") -> None:
        """Steps 1 to 3 alone: for a transport that would rather not take in a large request that is refused anyway.

        Raises:
            KeysteadError: as `run` would; refusals are recorded.
        """
        self._admitted(route, principal, tenant, client_ip, request_id)

    def _admitted(self, route: Route, principal: Principal, reference: str, client_ip: str, request_id: str) -> Call:
        """The call, by somebody who may make it.

        To all but the provider's people a tenant that is not there answers like one that is: refused, and recorded, which takes as long;
        in the installation's log, for their own would tell them.
        """
        tenant_id = self._tenant_of(route, principal, reference)
        nowhere = tenant_id == NOWHERE
        call = Call(principal, "" if nowhere else tenant_id, route.name, request_id or new_id(self._random), client_ip)
        if not (nowhere and principal.is_provider):
            try:
                allow(principal, route.name, tenant_id)
            except (Refused, Unauthenticated) as error:
                self._directory.refused(call, error)
                raise
        if nowhere:
            raise NotFound("tenant_not_found", f"there is no tenant {reference}", "keystead tenant list shows them to the operator")
        return call

    def _tenant_of(self, route: Route, principal: Principal, reference: str) -> str:
        if route.scope is not Scope.TENANT:
            return ""
        if not reference:
            if principal.tenant_id is None:
                raise InvalidRequest("tenant_missing", f"{route.name} is about one tenant, and none is named", "add --tenant NAME")
            return principal.tenant_id
        return self._directory.tenant_id(reference) or NOWHERE

    def _handler(self, route: Route) -> Callable[..., Any]:
        found = self._handlers.get(route.name)
        if found is None:
            module, _, function = route.handler.partition(":")
            found = self._handlers[route.name] = getattr(importlib.import_module(module), function)
        return found

    def _watched(self, call: Call, chunks: Iterator[bytes]) -> Iterator[bytes]:
        """The chunks of a stream; what goes wrong while it is sent is recorded like what goes wrong before."""
        try:
            yield from chunks
        except (Refused, IntegrityFailure) as error:
            self._directory.refused(call, error)
            raise


def _checked(route: Route, request: Any) -> Any:
    """The request as the other side of a wire would see it: encoded and decoded, so that limits and types hold on both transports.

    A batch of message bytes is passed on as it is: its fields are checked by the use case, and copying it twice would serve nobody.
    """
    if not isinstance(request, route.request):
        raise InvalidRequest("request_type", f"{route.name} takes {route.request.__name__}", "")
    if route.body is Body.BATCH:
        return request
    data = msgspec.json.encode(request)
    if len(data) > route.max_body:
        raise InvalidRequest(
            "request_too_large",
            f"the request of {route.name} has {len(data)} bytes; at most {route.max_body} are taken",
            "send less at a time",
        )
    try:
        return msgspec.json.decode(data, type=route.request)
    except msgspec.ValidationError as error:
        raise InvalidRequest("request_invalid", f"the request of {route.name} is not valid: {error}", "see the command's --help") from error
