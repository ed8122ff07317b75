"""The keys face on a real database behind real HTTPS on loopback, and clients of it: the SDK's, and a plain one for what no SDK sends."""

from __future__ import annotations

import asyncio
import json
import ssl
import threading
import uuid
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Self

import httpx
import trustme
import uvloop
from azure.core.credentials import AccessToken
from azure.keyvault.keys import KeyClient
from azure.keyvault.keys.aio import KeyClient as AsyncKeyClient

from keystead.core.configuration import ServerConfig
from keystead.core.vaults.access import Held, Permission, client
from keystead.core.vaults.uri import KeyUri
from keystead.frontends.asgi.server import bind, server_of
from keystead.frontends.vault_http.app import Served, VaultApp, VaultParts, refusals
from keystead.ports.vault_store import AccessEntry, VaultClient
from keystead.vault import tokens
from keystead.vault.services import VaultSettings
from vault.world import ALEX, TENANT, World

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from azure.keyvault.keys.crypto import CryptographyClient

    from keystead.api.types import vaults as t

VAULT = "ContosoVault1"
RESOURCE = "https://vault.localhost"
AUTHORITY = "https://login.vault.localhost"
STOP_SECONDS = 60
EVERYTHING = frozenset(Permission)


class Token:
    """A credential of the SDK that has what `tokens.issue` gives, for the resource it is asked for."""

    def __init__(self, face: Face, who: VaultClient) -> None:
        self.face, self.who = face, who
        self.asked: list[tuple[str, str | None]] = []

    def get_token(self, *scopes: str, tenant_id: str | None = None, **_more: object) -> AccessToken:
        self.asked.append((scopes[0], tenant_id))
        return AccessToken(self.face.token(self.who), 2**31)


class AsyncToken:
    """The same for the asynchronous clients."""

    def __init__(self, inner: Token) -> None:
        self.inner = inner

    async def get_token(self, *scopes: str, tenant_id: str | None = None, **more: object) -> AccessToken:
        return self.inner.get_token(*scopes, tenant_id=tenant_id, **more)

    async def close(self) -> None:
        """Nothing is held."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_raised: object) -> None:
        await self.close()


@dataclass
class Reply:
    """One answer to a plain client."""

    status: int
    headers: httpx.Headers
    raw: bytes

    @property
    def body(self) -> Any:
        return json.loads(self.raw)

    @property
    def code(self) -> str:
        code: str = self.body["error"]["code"]
        return code

    @property
    def inner(self) -> str:
        inner: str = self.body["error"]["innererror"]["code"]
        return inner


class Face:
    """A vault with its clients, served."""

    def __init__(self, world: World, url: str, ca_file: str) -> None:
        self.world, self.url, self.ca_file = world, url, ca_file
        self.http = httpx.Client(verify=ssl.create_default_context(cafile=ca_file), timeout=30)
        self.open: list[KeyClient | CryptographyClient] = []
        self.admin = self.client_of("admin", EVERYTHING)

    def close(self) -> None:
        """Let go of every connection: the server waits for those that are open."""
        self.http.close()
        for one in self.open:
            one.close()

    def client_of(self, name: str, permissions: frozenset[Permission], *, tenant: str = TENANT, vault: str = VAULT) -> VaultClient:
        """A client with permissions on a vault."""
        made = VaultClient(str(uuid.uuid4()), tenant, name, self.world.clock.now(), ALEX)
        with self.world.store.writing() as tx:
            tx.add_client(made)
            found = tx.vault(tenant, vault)
            if found is not None:
                tx.put_access(tenant, found.id, AccessEntry(client(made.id), Held(permissions)))
        return made

    def token(self, who: VaultClient, resource: str = RESOURCE) -> str:
        return tokens.issue(self.world.vault, who, resource, who.tenant_id, AUTHORITY)

    def keys(self, who: VaultClient | None = None, **more: Any) -> KeyClient:
        """The SDK's client."""
        made = KeyClient(
            self.url,
            Token(self, who or self.admin),
            verify_challenge_resource=False,
            connection_verify=self.ca_file,
            **{"retry_total": 0, **more},
        )
        self.open.append(made)
        return made

    def async_keys(self, who: VaultClient | None = None) -> AsyncKeyClient:
        """The same, asynchronous."""
        return AsyncKeyClient(
            self.url,
            AsyncToken(Token(self, who or self.admin)),
            verify_challenge_resource=False,
            connection_verify=self.ca_file,
            retry_total=0,
        )

    def ask(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        who: VaultClient | None = None,
        token: str | None = None,
        version: str | None = "7.6",
        content: bytes | None = None,
        headers: dict[str, str] | None = None,
    ) -> Reply:
        """A plain call; `token` "" sends none, `version` None no api-version, `content` bytes as they are."""
        given = self.token(who or self.admin) if token is None else token
        sent = {"authorization": f"Bearer {given}"} if given else {}
        if body is not None:
            content, sent["content-type"] = json.dumps(body).encode(), "application/json"
        elif content is not None:
            sent["content-type"] = "application/json"
        address = f"{self.url}{path}"
        if version is not None:
            address += ("&" if "?" in path else "?") + f"api-version={version}"
        answer = self.http.request(method, address, content=content, headers={**sent, **(headers or {})})
        return Reply(answer.status_code, answer.headers, answer.content)

    def new_key(self, name: str = "root", **more: object) -> t.KeyView:
        return self.world.new_key(name, VAULT, **more)

    def path_of(self, view: t.KeyView) -> str:
        return f"/keys/{view.name}/{view.version}"

    def uri(self, name: str, version: str | None = None) -> str:
        return self.url + KeyUri(VAULT, name, version).text("").removeprefix(f"https://{VAULT.lower()}")


@contextmanager
def faced(folder: Path, *, settings: ServerConfig | None = None, rate_percent: int = 0) -> Iterator[Face]:
    """A vault of ALEX, served for the length of a block."""
    world = World(folder, VaultSettings(rate_percent=rate_percent))
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1", "localhost")
    ca_file = folder / "ca.pem"
    authority.cert_pem.write_to_path(str(ca_file))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(context)
    config = replace(settings or ServerConfig(), listen="127.0.0.1:0", threads=4, stop_timeout=1_000)
    listening, address = bind(config)
    url = address.replace("http://", "https://")
    try:
        world.new_vault(VAULT, sku="premium")
        world.grant("create,import,get,list,update,delete,recover,purge,rotate", upn=ALEX)
        served = Served(VAULT, url, f"{AUTHORITY}/{TENANT}", RESOURCE, "westeurope")
        parts = VaultParts(world.vault, lambda _scope: served, partial(tokens.verify, world.vault), config, "1.0")
        app = VaultApp(parts)
        with _serving(server_of(app, refusals(parts, app.take), context), listening):
            face = Face(world, url, str(ca_file))
            yield face
            face.close()
    finally:
        world.close()


@contextmanager
def _serving(server: Any, listening: Any) -> Iterator[None]:
    loops: list[asyncio.AbstractEventLoop] = []
    started = threading.Event()

    async def run() -> None:
        loops.append(asyncio.get_running_loop())
        started.set()
        await server.serve([listening])

    def work() -> None:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(run())

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield  # the socket listens already: whoever connects before the loop runs waits in its queue
    finally:
        started.wait(STOP_SECONDS)
        loops[0].call_soon_threadsafe(server.stop)
        thread.join(STOP_SECONDS)
        server.app.close()
        assert not thread.is_alive()
