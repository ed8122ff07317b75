"""No answer of the keys face leaves before the log record of its call is durable, and no thread waits for that (R-067)."""

from __future__ import annotations

import asyncio
import json
import threading
from base64 import urlsafe_b64encode
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from keystead.core.errors import Unavailable
from keystead.frontends.asgi.threads import Later, Threads
from keystead.frontends.vault_http.app import Served, VaultApp, VaultParts
from keystead.vault import operations
from keystead.vault.journal import Journal
from keystead.vault.operations import Place
from keystead.vault.seen import Stamps
from vault.world import TENANT, World

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

SECRET = bytes(range(32))
WAIT = 30
"""Seconds until a test that hangs fails."""


class Gated:
    """The vault's store; a commit waits for `gate`, and fails where `fails` says with what."""

    def __init__(self, inner: Any) -> None:
        self.reading, self.stamp = inner.reading, inner.stamp
        self._inner = inner
        self.entered = threading.Event()
        self.gate = threading.Event()
        self.fails: Exception | None = None

    @contextmanager
    def appending(self) -> Iterator[Any]:
        with self._inner.appending() as tx:
            yield tx
            self.entered.set()
            assert self.gate.wait(WAIT)
            if self.fails is not None:
                raise self.fails


class Unwrap:
    """One unwrapKey over ASGI; what was sent of its answer so far."""

    def __init__(self, world: World) -> None:
        self.world = world
        store: Any = Gated(world.store)
        self.store = store
        self.services = replace(world.vault, store=store, journal=Journal(store), stamps=Stamps(store))
        self.sent: list[dict[str, Any]] = []
        wrapped = operations.wrap_key(world.vault, world.identity(), Place("ContosoVault1", "root", None), "RSA-OAEP-256", SECRET)
        self._body = json.dumps({"alg": "RSA-OAEP-256", "value": _base64url(wrapped.value)}).encode()
        self._path = f"/keys/root/{wrapped.version.version}/unwrapkey"

    async def run(self, meanwhile: Callable[[], None]) -> int:
        """Ask; once the commit is under way and nothing was sent, do something, and wait for the answer. Its status."""
        origin = "https://contosovault1.vault.example"
        served = Served("ContosoVault1", origin, f"https://login.vault.example/{TENANT}", "https://vault.example")
        app = VaultApp(VaultParts(self.services, lambda _scope: served, lambda _token, _resource, _came: self.world.identity()))
        headers = [(b"host", b"contosovault1.vault.example"), (b"authorization", b"Bearer t"), (b"content-length", b"%d" % len(self._body))]
        scope = {
            "type": "http", "method": "POST", "path": self._path, "raw_path": self._path.encode(), "query_string": b"api-version=7.4",
            "headers": headers, "client": ("127.0.0.1", 5_000), "http_version": "1.1",
        }  # fmt: skip

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": self._body, "more_body": False}

        async def send(message: dict[str, Any]) -> None:
            self.sent.append(message)

        call = asyncio.create_task(app(scope, receive, send))
        entered = await asyncio.to_thread(self.store.entered.wait, WAIT)
        assert entered
        assert self.sent == []
        meanwhile()
        self.store.gate.set()
        await call
        app.close()
        self.services.journal.close()
        status: int = self.sent[0]["status"]
        return status

    @property
    def body(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self.sent)


@pytest.fixture
def unwrap(tmp_path: Path, database: str) -> Iterator[Unwrap]:
    world = World(tmp_path)
    world.ready()
    yield Unwrap(world)
    world.close()


def test_an_answer_waits_for_its_record(unwrap: Unwrap) -> None:
    """R-067."""
    before = len(unwrap.world.log())
    recorded: list[int] = []
    status = asyncio.run(unwrap.run(lambda: recorded.append(len(unwrap.world.log()))))
    assert (status, json.loads(unwrap.body)["value"]) == (200, _base64url(SECRET))
    assert recorded == [before]
    assert len(unwrap.world.log()) == before + 1


def test_an_answer_whose_record_is_lost_is_none(unwrap: Unwrap) -> None:
    """R-067: the caller is told to try again, and nothing of the key leaves."""

    def fail() -> None:
        unwrap.store.fails = Unavailable("database_unavailable", "the disk is full")

    before = len(unwrap.world.log())
    assert asyncio.run(unwrap.run(fail)) == 503
    assert _base64url(SECRET).encode() not in unwrap.body
    assert len(unwrap.world.log()) == before


def test_a_later_result_comes_when_it_is_told_and_its_thread_is_free_meanwhile() -> None:
    async def run() -> tuple[object, object]:
        threads = Threads(asyncio.get_running_loop(), 1, "test")
        told: list[Callable[[BaseException | None], None]] = []
        first = threads.submit(lambda: Later("first", told.append))
        second = await threads.submit(lambda: "second")  # by the one thread there is
        assert not first.done()
        told[0](None)
        found = (await first, second)
        assert threads.busy == 0
        threads.close()
        return found

    assert asyncio.run(run()) == ("first", "second")


def test_a_later_result_that_does_not_come_is_an_error() -> None:
    async def run() -> None:
        threads = Threads(asyncio.get_running_loop(), 1, "test")
        try:
            await threads.submit(lambda: Later("never seen", lambda then: then(Unavailable("log_not_written", "no"))))
        finally:
            threads.close()

    with pytest.raises(Unavailable, match="log_not_written"):
        asyncio.run(run())


def _base64url(data: bytes) -> str:
    return urlsafe_b64encode(data).decode().rstrip("=")
