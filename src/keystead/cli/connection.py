"""Where calls go: to the server that was named, else to the one that runs on the home, else to the home itself, opened in this process."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from keystead.cli.values import read_text
from keystead.client.client import Client
from keystead.client.running import running_server
from keystead.core.errors import InvalidRequest

if TYPE_CHECKING:
    from collections.abc import Callable

    from keystead.cli.app import Connection
    from keystead.cli.options import GlobalOptions
    from keystead.core.access.principal import Principal
    from keystead.wiring import Home


def open_connection(options: GlobalOptions) -> Connection:
    """The way to the service, as whoever calls: a token wins; in dev homes a name does, or the operator; elsewhere it is nobody.

    A named server is given the secret of a dev home only when it is the one that runs on that home.

    Raises:
        NotFound: there is no home.
        InvalidRequest: the token file cannot be read, the address cannot be used, or a name was given outside dev homes.
    """
    url = options.server_url
    found = running_server(options.home_path)
    if not url and found is None:
        return HomeConnection(options)
    if found is not None and url in {"", found[0].url}:
        server, secret = found
        return ServerConnection(server.url, options, secret, server.certificate)
    return ServerConnection(url, options)


class ServerConnection:
    """A server, asked over HTTP; nothing of the home is opened here.

    Args:
        url: its address.
        options: who calls.
        secret: of a dev home's server on this machine.
        certificate: the one it shows, where it is the home's own.
    """

    def __init__(self, url: str, options: GlobalOptions, secret: str = "", certificate: str = "") -> None:
        from keystead.client.http import HttpTransport

        token = _token(options)
        if options.as_upn and not token and not secret:
            raise _no_dev_home()
        self._transport = HttpTransport(url, token=token, home_secret=secret, as_upn=options.as_upn, certificate=certificate)

    def client(self, tenant: str) -> Client:
        """A client that calls the server."""
        return Client(self._transport, tenant)

    def close(self) -> None:
        """Close the connections."""
        self._transport.close()


class HomeConnection:
    """A home opened in this process.

    Args:
        options: which home, and who calls.
    """

    def __init__(self, options: GlobalOptions) -> None:
        from keystead.wiring import open_home  # a command that asks a server must not load the database library

        self._home = open_home(options.home_path)
        try:
            self._principal = _principal(self._home, options)
        except BaseException:
            self._home.close()
            raise

    def client(self, tenant: str) -> Client:
        """A client that calls the home."""
        return self._home.client(self._principal, tenant)

    def close(self) -> None:
        """Close the home."""
        self._home.close()


def _principal(home: Home, options: GlobalOptions) -> Callable[[], Principal]:
    token = _token(options)
    if token:
        return home.as_token(token)
    if options.as_upn:
        return home.as_person(options.as_upn)
    return home.as_operator()


def _token(options: GlobalOptions) -> str:
    return read_text(Path(options.token_file)) if options.token_file else options.token


def _no_dev_home() -> InvalidRequest:
    return InvalidRequest("as_needs_dev_home", "--as works in dev homes only", "sign in with --token-file")
