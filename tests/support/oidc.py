"""A real OpenID Connect provider for tests: the npm package oidc-provider, run by node on a free port of loopback (tests/node)."""

from __future__ import annotations

import json
import subprocess
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx

if TYPE_CHECKING:
    from collections.abc import Iterator

NODE = Path(__file__).resolve().parents[1] / "node"
ALGORITHMS = ("RS256", "PS256", "ES256", "EdDSA")
SECRET = "a secret of the program's own"


@dataclass
class Provider:
    """A running provider.

    Attributes:
        issuer: its address, which is its name.
    """

    issuer: str
    process: subprocess.Popen[str]

    def token(self, client: str, algorithm: str = "ES256") -> str:
        """An access token for a program, signed as asked."""
        asked = {"grant_type": "client_credentials", "resource": f"urn:keystead:{algorithm}", "scope": "mail"}
        answer = httpx.post(f"{self.issuer}/token", data=asked, auth=(client, SECRET), trust_env=False, timeout=60)
        assert answer.status_code == 200, answer.text
        token: str = answer.json()["access_token"]
        return token

    def tell(self, command: str) -> None:
        """One of the commands of oidc-provider.mjs; returns when it is done."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(command + "\n")
        self.process.stdin.flush()
        assert self.process.stdout.readline() == "done\n"

    def stop(self) -> None:
        """End it."""
        self.process.kill()
        self.process.communicate()


@contextmanager
def provider(clients: dict[str, dict[str, Any]]) -> Iterator[Provider]:
    """A provider for the length of a block.

    Args:
        clients: by id: `audience`, `claims` and, where it matters, `lifetime` in seconds of the tokens a program gets.
    """
    given = json.dumps([{"id": name, "secret": SECRET, **client} for name, client in clients.items()])
    process = subprocess.Popen(
        ["node", "oidc-provider.mjs", given], cwd=NODE, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert process.stdout is not None
    made = Provider(process.stdout.readline().strip(), process)
    try:
        assert made.issuer, "the provider did not start; scripts/setup-tools installs what it needs"
        yield made
    finally:
        made.stop()
