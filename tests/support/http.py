"""A server for tests: the real `keystead serve` in a process of its own, on loopback and a port the system chooses.

    with served(home_path) as server:
        httpx.get(server.url + "/healthz")
        server.client("alex@contoso.example").call("mailbox.list")     # dev homes: as anybody; "" is the operator
    # stopped by SIGTERM, and it must have ended cleanly

`start` and `Server.stop` do the two halves apart, for tests that kill. `running(parts)` serves in a thread of the test's own process, for
tests that bring their own dispatcher (a World's) or look inside.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import uvloop

from keystead.client.client import Client
from keystead.client.http import HttpTransport
from keystead.client.running import SECRET
from keystead.frontends.asgi.server import bind
from keystead.frontends.http.server import make_server

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from keystead.frontends.http.app import Parts

START_SECONDS = 60
STOP_SECONDS = 60
PROGRAM = (sys.executable, "-c", "from keystead.cli.main import main; main()")


@dataclass
class Server:
    """A running server.

    Attributes:
        home: the home, or the member of a fleet, that it serves.
        url: where it answers.
        process: the one that was started; with several processes the supervisor.
        log: what it writes to stderr.
    """

    home: Path
    url: str
    process: subprocess.Popen[bytes]
    log: Path

    def client(self, as_upn: str = "", tenant: str = "", *, token: str = "") -> Client:
        """A client over HTTP: with a token, or in dev homes as a person, or as the operator."""
        secret = "" if token else (self.home / "run" / SECRET).read_text()
        return Client(HttpTransport(self.url, token=token, home_secret=secret, as_upn=as_upn), tenant)

    def stop(self, number: int = signal.SIGTERM) -> int:
        """End it; the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(STOP_SECONDS)


def start(home: Path, *options: str, environment: Mapping[str, str] | None = None, listen: str = "127.0.0.1:0") -> Server:
    """Start a server and wait until it takes calls.

    Args:
        home: made before, by `keystead init` or `wiring.create_home`.
        options: more options of `keystead serve`.
        environment: added to a copy of this process's: KEYSTEAD_SERVER_STOP_TIMEOUT, KEYSTEAD_DATABASE_URL and the like.
        listen: where.
    """
    number = time.monotonic_ns()
    ready, log = home / "run" / f"ready-{number}", home / "run" / f"log-{number}"
    command = [*PROGRAM, "serve", "--home", str(home), "--listen", listen, "--ready-file", str(ready), *options]
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, env={**os.environ, **(environment or {})}, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT
        )
    until = time.monotonic() + START_SECONDS
    while not ready.exists():
        if process.poll() is not None or time.monotonic() > until:
            process.kill()
            raise AssertionError(f"the server did not start: {log.read_text()}")
        time.sleep(0.02)  # polling for another process: nothing else tells
    return Server(home, ready.read_text().strip(), process, log)


@contextmanager
def running(parts: Parts) -> Iterator[str]:
    """The HTTP application in a thread of this process, on a free port of loopback; gives its address."""
    server = make_server(parts)
    listening, url = bind(replace(parts.config, listen="127.0.0.1:0"))
    loops: list[asyncio.AbstractEventLoop] = []

    async def run() -> None:
        loops.append(asyncio.get_running_loop())
        await server.serve([listening])

    def work() -> None:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(run())

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield url  # the socket listens already: whoever connects before the loop runs waits in its queue
    finally:
        while not server.started:
            time.sleep(0.005)  # polling another thread: a server is only stopped once it has started
        loops[0].call_soon_threadsafe(server.stop)
        thread.join(STOP_SECONDS)
        server.app.close()
        assert not thread.is_alive()


@contextmanager
def served(
    home: Path, *options: str, environment: Mapping[str, str] | None = None, listen: str = "127.0.0.1:0", clean: bool = True
) -> Iterator[Server]:
    """A server for the length of a block.

    Args:
        home: as of `start`, like the next three.
        options: as of `start`.
        environment: as of `start`.
        listen: as of `start`.
        clean: whether it must end by itself with exit code 0 when told to.
    """
    server = start(home, *options, environment=environment, listen=listen)
    try:
        yield server
        code = server.stop()
        assert not clean or code == 0, f"exit code {code}: {server.log.read_text()}"
    finally:
        if server.process.poll() is None:
            server.process.kill()
            server.process.wait()
