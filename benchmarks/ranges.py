"""Stands before rclone's S3 server and mends one word of it: ranges are answered with 206, not 200, or obstore takes them for nonsense.

Runs as a process of its own: `python -m benchmarks.ranges PORT` prints the port it listens on. Everything else passes as it is, so what
is compared through it pays the same for it.
"""

from __future__ import annotations

import asyncio
import sys
from typing import cast

import uvloop

WRONG, RIGHT = b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 206 Partial Content\r\n"


class _Upstream(asyncio.Protocol):
    """Answers come in whole heads at a time from a server on this machine: a head begins a piece, and ends within it."""

    def __init__(self, client: asyncio.Transport) -> None:
        self._client = client

    def data_received(self, data: bytes) -> None:
        if data.startswith(WRONG) and b"\r\nContent-Range:" in data[:2_048]:
            self._client.write(RIGHT)
            data = data[len(WRONG) :]
        self._client.write(data)

    def connection_lost(self, _error: Exception | None) -> None:
        self._client.close()


class _Client(asyncio.Protocol):
    def __init__(self, upstream: int) -> None:
        self._port = upstream
        self._waiting = bytearray()
        self._server: asyncio.Transport | None = None
        self._connecting: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._connecting = asyncio.get_running_loop().create_task(self._connect(cast("asyncio.Transport", transport)))

    async def _connect(self, client: asyncio.Transport) -> None:
        made, _ = await asyncio.get_running_loop().create_connection(lambda: _Upstream(client), "127.0.0.1", self._port)
        self._server = made
        made.write(bytes(self._waiting))

    def data_received(self, data: bytes) -> None:
        if self._server is None:
            self._waiting += data
        else:
            self._server.write(data)

    def connection_lost(self, _error: Exception | None) -> None:
        if self._server is not None:
            self._server.close()


async def _serve(upstream: int) -> None:
    server = await asyncio.get_running_loop().create_server(lambda: _Client(upstream), "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(_serve(int(sys.argv[1])))
