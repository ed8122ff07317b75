"""The typed client: one call per route, over whichever transport."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Protocol

from keystead.api.routes import BY_NAME, Scope
from keystead.api.types.base import Empty
from keystead.api.types.watching import JobView, NameJob

if TYPE_CHECKING:
    from collections.abc import Callable

    from keystead.api.call import Upload
    from keystead.api.routes import Route

WAITING = frozenset({"queued", "running"})


class Transport(Protocol):
    """Carries calls to where the service is.

    Attributes:
        batch_bytes: how many bytes of files, names and all, are put in one call at most.
    """

    batch_bytes: int

    def run(self, route: Route, request: Any, *, tenant: str, upload: Upload | None) -> Any:
        """Run one row. Raises what the service raised."""
        ...

    def push(self, job_id: str) -> bool:
        """Get on with a job for a moment: run a slice of it here, or wait a little while a server runs it.

        Returns:
            Whether it got on here, so that pushing again may be worth while before asking how it stands.
        """
        ...

    def close(self) -> None:
        """Let go of what it holds."""
        ...


class Client:
    """Calls routes by name.

    Args:
        transport: how.
        tenant: the tenant named on the command line; empty to take it from a UPN in the request, else the caller's own.

    Attributes:
        batch_bytes: as the transport has it.
    """

    def __init__(self, transport: Transport, tenant: str = "") -> None:
        self._transport = transport
        self._tenant = tenant
        self.batch_bytes = transport.batch_bytes

    def call(self, name: str, request: Any = None, *, upload: Upload | None = None) -> Any:
        """Call a route; the answer is an instance of the row's response type, or `Content`.

        Raises:
            KeysteadError: what the service answered.
        """
        route = BY_NAME[name]
        asked = Empty() if request is None else request
        tenant = self._tenant_for(asked) if route.scope is Scope.TENANT else ""
        return self._transport.run(route, asked, tenant=tenant, upload=upload)

    def wait(self, job_id: str, on_progress: Callable[[JobView], None] | None = None) -> JobView:
        """Get on with a job until it, and what it started, is finished, or until it has failed three times in a row at the same place.

        A job that was stuck before is tried once all the same: what held it up may have been mended.

        Returns:
            The job as it is then: `state` tells.
        """
        tried = False
        while True:
            asked = time.monotonic()
            view: JobView = self.call("job.show", NameJob(job=job_id))
            # Showing counts all the jobs it started, perhaps a million: it is not asked again before ten times as long has gone into them.
            until = time.monotonic() + 10 * (time.monotonic() - asked)
            if on_progress is not None:
                on_progress(view)
            if view.state not in WAITING or (view.stuck and tried):
                return view
            while self._transport.push(job_id) and time.monotonic() < until:
                pass
            tried = True

    def close(self) -> None:
        """Let the transport go."""
        self._transport.close()

    def _tenant_for(self, request: Any) -> str:
        if self._tenant:
            return self._tenant
        upn: str = getattr(request, "upn", "") or ""
        return upn.partition("@")[2]
