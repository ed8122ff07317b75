"""What every hook checks of its configuration, and the deadline of a delivery."""

from __future__ import annotations

import ipaddress
import re
import socket
import ssl
import threading
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from keystead.core.errors import InvalidRequest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

STEP_SECONDS = 5.0
"""For connecting, and for each answer."""
AGAIN_SECONDS = 0.2
"""Between one try to end a conversation and the next: a socket may just have been replaced."""
NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,31}")
_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,252}[A-Za-z0-9])?")


def unfit(name: str, what: str) -> InvalidRequest:
    """The configuration of a hook cannot be used."""
    return InvalidRequest("hook_invalid", f"the hook {name} of keystead.toml cannot be used: {what}", "docs/howto/alerts.md shows how")


def is_loopback(host: str) -> bool:
    """Whether a host is this machine, by its name alone."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def is_host(host: str) -> bool:
    """Whether it can be a host: a name, or an address."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return _HOST.fullmatch(host) is not None
    return True


def tls_context(name: str, ca_file: Path | None) -> ssl.SSLContext:
    """A context that checks certificates and names, with the system's authorities or those of a file.

    Raises:
        InvalidRequest: the file holds none.
    """
    context = ssl.create_default_context()
    if ca_file is None:
        return context
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        context.load_verify_locations(cafile=ca_file)
    except (OSError, ssl.SSLError) as error:
        raise unfit(name, f"its ca_file {ca_file.name} cannot be read as PEM") from error
    return context


@contextmanager
def deadline(seconds: float, connection: Callable[[], socket.socket | None]) -> Iterator[None]:
    """End a conversation after so long, however slowly the other side drips: time-outs of sockets count from byte to byte.

    Args:
        seconds: for the block.
        connection: the socket in use, if there is one by now. It is shut down from another thread, which wakes whoever waits on it.
    """
    over = threading.Event()

    def shut() -> None:
        wait = seconds
        while not over.wait(wait):
            used = connection()
            if used is not None:
                with suppress(OSError):  # it is closed already, or a handshake is about to take its place
                    # The plain socket below TLS: closing TLS in good order would wait for the other side.
                    socket.socket.shutdown(used, socket.SHUT_RDWR)
            wait = AGAIN_SECONDS

    watchdog = threading.Thread(target=shut, name="deadline", daemon=True)
    watchdog.start()
    try:
        yield
    finally:
        over.set()
        watchdog.join()
