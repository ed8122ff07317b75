"""The connection to an embedded home, as whoever calls."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from keystead.cli.values import read_text
from keystead.wiring import open_home

if TYPE_CHECKING:
    from collections.abc import Callable

    from keystead.cli.options import GlobalOptions
    from keystead.client.client import Client
    from keystead.core.access.principal import Principal
    from keystead.wiring import Home


class HomeConnection:
    """A home opened in this process.

    Args:
        options: which home, and who calls: a token wins; in dev homes a name does, or the operator; elsewhere it is nobody.

    Raises:
        NotFound: there is no home.
        InvalidRequest: the token file cannot be read, or a name was given outside dev homes.
    """

    def __init__(self, options: GlobalOptions) -> None:
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
    if options.token_file:
        return home.as_token(read_text(Path(options.token_file)))
    if options.token:
        return home.as_token(options.token)
    if options.as_upn:
        return home.as_person(options.as_upn)
    return home.as_operator()
