"""The server of the service over HTTP: what its connections are refused with."""

from __future__ import annotations

from typing import TYPE_CHECKING

from keystead.api.wire import REQUEST_ID
from keystead.frontends.asgi.protocol import Refusals
from keystead.frontends.asgi.server import Server, run_server, server_of, tls_context
from keystead.frontends.http.answers import error_answer
from keystead.frontends.http.app import HttpApp, Parts, Seen

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Sequence

    from keystead.core.errors import KeysteadError
    from keystead.frontends.asgi.protocol import Plain, Refused


def make_server(parts: Parts) -> Server:
    """The server of an application, not yet running.

    Raises:
        InvalidRequest: certificate or key cannot be used.
    """
    return server_of(HttpApp(parts), refusals(parts), tls_context(parts.config))


def refusals(parts: Parts) -> Refusals:
    """What connections of this face are refused with: problem documents; observers see these calls too, without a route."""

    def answer(error: KeysteadError, request_id: str) -> Plain:
        made = error_answer(error, (REQUEST_ID.lower().encode(), request_id.encode()))
        return made.status, made.headers, made.body

    def tell(refused: Refused) -> None:
        for observer in parts.observers:
            observer.began()
            observer.ended(Seen(refused.request_id, "", "", "", "", refused.status, refused.code, 0.0, 0, refused.size, refused.peer))

    return Refusals(parts.config, parts.random, answer, tell)


def serve(
    parts: Parts,
    sockets: Sequence[socket.socket],
    *,
    on_start: Callable[[], None],
    on_stop: Callable[[], None],
    orphaned: Callable[[Callable[[], None]], None] | None = None,
) -> None:
    """Answer calls until SIGTERM or SIGINT; returns when calls have finished, or their time is up.

    Args:
        parts: what the application is made of.
        sockets: bound, as `bind` gives them.
        on_start: called when connections are accepted.
        on_stop: called at the first signal, in the event loop; must not block.
        orphaned: given the function that stops the server, for another reason than a signal.

    Raises:
        InvalidRequest: certificate or key cannot be used.
    """
    run_server(make_server(parts), sockets, on_start=on_start, on_stop=on_stop, orphaned=orphaned)
