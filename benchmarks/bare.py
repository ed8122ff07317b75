"""The bare server loop: uvicorn as Keystead runs it, and an application that answers 16 KB from memory. usage: python -m benchmarks.bare READY_FILE"""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import uvicorn
import uvloop

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

BODY_BYTES = 16_000


async def answer(scope: dict[str, Any], receive: Callable[[], Awaitable[Any]], send: Callable[[dict[str, Any]], Awaitable[None]]) -> None:  # noqa: ARG001 - ASGI's three
    await send(_START)
    await send(_BODY)


_DATA = os.urandom(BODY_BYTES)
_START = {
    "type": "http.response.start",
    "status": 200,
    "headers": [(b"content-type", b"message/rfc822"), (b"content-length", b"%d" % BODY_BYTES)],
}
_BODY = {"type": "http.response.body", "body": _DATA}


def main(ready: Path) -> None:
    listening = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(
        answer,
        http="httptools",
        lifespan="off",
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
    )
    ready.write_text(f"http://127.0.0.1:{listening.getsockname()[1]}\n", encoding="ascii")
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(uvicorn.Server(config).serve([listening]))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
