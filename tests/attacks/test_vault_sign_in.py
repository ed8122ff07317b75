"""Whoever keeps the place where clients of vaults sign in busy: slow, endless and ambiguous requests, from callers nobody knows."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import pytest

from keystead.core.configuration import ServerConfig
from keystead.frontends.vault_http import authority
from keystead.frontends.vault_http.authority import AuthorityApp, AuthorityParts
from vault.world import TENANT, World

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

FORM = (b"content-type", b"application/x-www-form-urlencoded")
HOST = (b"host", b"127.0.0.1")


@pytest.fixture
def app(tmp_path: Path) -> Iterator[AuthorityApp]:
    world = World(tmp_path)
    made = AuthorityApp(AuthorityParts(world.vault, lambda _scope: "https://127.0.0.1:1", lambda _tenant, _resource: "", ServerConfig()))
    yield made
    made.close()
    world.close()


class Drip:
    """A client that sends bytes one after the other, with a pause before each, for as long as anybody reads."""

    def __init__(self, pause: float, piece: bytes = b"a") -> None:
        self.pause, self.piece = pause, piece
        self.sent = 0
        self.answered: list[dict[str, Any]] = []

    async def receive(self) -> dict[str, Any]:
        await asyncio.sleep(self.pause)
        self.sent += len(self.piece)
        return {"type": "http.request", "body": self.piece, "more_body": True}

    async def send(self, message: dict[str, Any]) -> None:
        self.answered.append(message)

    def ask(self, app: AuthorityApp, path: str, *headers: tuple[bytes, bytes], method: str = "POST") -> tuple[int, dict[str, Any]]:
        """Status and document of the answer; the request must be over, one way or the other, within a minute."""
        scope = {
            "type": "http",
            "method": method,
            "path": path,
            "http_version": "1.1",
            "query_string": b"",
            "client": ("192.0.2.1", 1),
            "headers": [HOST, (b"transfer-encoding", b"chunked"), *headers],
        }

        async def run() -> None:
            async with asyncio.timeout(60):
                await app(scope, self.receive, self.send)

        asyncio.run(run())
        body = b"".join(message["body"] for message in self.answered if message["type"] == "http.response.body")
        return self.answered[0]["status"], json.loads(body)


TOKEN = f"/{TENANT}/oauth2/v2.0/token"


def test_a_body_that_comes_byte_by_byte_does_not_keep_a_connection(app: AuthorityApp, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(authority, "REQUEST_SECONDS", 0.2)
    status, document = Drip(0.01).ask(app, TOKEN, FORM)
    assert (status, document["error"]) == (408, "invalid_request")


@pytest.mark.parametrize("path", [TOKEN, "/", "/nothing", f"/{TENANT}/discovery/v2.0/keys"])
def test_what_comes_behind_an_answer_is_not_read_for_ever(app: AuthorityApp, path: str) -> None:
    """The answer is sent whole, the connection ends with it, and of what still comes no more is read than a bounded amount."""
    client = Drip(0, bytes(64 * 1024))
    status, _document = client.ask(app, path, method="POST")
    assert status in {404, 405, 415}
    assert (b"connection", b"close") in client.answered[0]["headers"]
    assert client.sent <= 5 * 1024 * 1024


@pytest.mark.parametrize(
    ("header", "status"),
    [
        ((b"content-type", b"application/json"), 400),
        ((b"host", b"other.example"), 400),
        ((b"content-encoding", b"gzip"), 415),
        ((b"transfer-encoding", b"gzip, chunked"), 400),
    ],
)
def test_what_could_be_read_in_two_ways_is_refused(app: AuthorityApp, header: tuple[bytes, bytes], status: int) -> None:
    found, document = Drip(0).ask(app, TOKEN, FORM, header)
    assert (found, document["error"]) == (status, "invalid_request")
