"""The local transport: looks up the same row of ROUTES and runs it here, without a socket."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from keystead.api.routes import Scope
from keystead.core.access.principal import NOBODY

if TYPE_CHECKING:
    from collections.abc import Callable

    from keystead.api.call import Upload
    from keystead.api.dispatch import Dispatcher
    from keystead.api.routes import Route
    from keystead.core.access.principal import Principal


class LocalTransport:
    """Runs rows in this process.

    Args:
        dispatcher: runs a row.
        principal: who this process calls as; asked for every call, so that a removed token stops working at once.
        push: runs a slice of a job.
        close: closes the stores.
    """

    batch_bytes = 60 * 1024 * 1024
    """Held once, and for a moment: one commit for four times what a server is sent."""

    def __init__(
        self, dispatcher: Dispatcher, principal: Callable[[], Principal], push: Callable[[str], bool], close: Callable[[], None]
    ) -> None:
        self._dispatcher = dispatcher
        self._principal = principal
        self._push = push
        self._close = close

    def run(self, route: Route, request: Any, *, tenant: str, upload: Upload | None) -> Any:
        """Run one row as the principal of this process; what is open to everybody as nobody, so that no token is in the way of a claim."""
        principal = NOBODY if route.scope is Scope.PUBLIC else self._principal()
        return self._dispatcher.run(route, request, principal=principal, tenant=tenant, upload=upload)

    def push(self, job_id: str) -> bool:
        """Run a slice of a job."""
        return self._push(job_id)

    def close(self) -> None:
        """Close the stores."""
        self._close()
