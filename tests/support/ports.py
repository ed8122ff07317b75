"""Ports for those tests that must know one before the server that takes it."""

from __future__ import annotations

import secrets
import socket

FIRST, LAST = 20_000, 32_000
"""Below the ports that Linux gives to whoever asks for any (32768 and on): no test that runs beside this one is given it meanwhile."""


def free_port() -> int:
    """A port of loopback on which nobody listens."""
    while True:
        port = FIRST + secrets.randbelow(LAST - FIRST)
        with socket.socket() as tried:
            try:
                tried.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port
