"""One process, one domain, two tenants: whatever a client of one writes into a request, it never gets at the other's vault (R-037, R-038)."""

from __future__ import annotations

import json
import socket
import ssl
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from keystead.api.types import vaults as v
from keystead.core.vaults.jwk import encode
from keystead.wiring import open_home
from support.ports import free_port
from support.vaults import Entry, make_tenant, make_vault_home, vaults_served

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.xdist_group("vault-attacks-isolation")

DOMAIN = "vault.contoso.example"


@dataclass
class Scene:
    """A running process; `ours` and `theirs` are vaults of two tenants, `beside` is another one of ours. Requests go to its one address."""

    home: Path
    port: int
    ours: Entry
    beside: Entry
    theirs: Entry
    http: httpx.Client
    tokens: dict[str, str]

    @property
    def resource(self) -> str:
        return f"https://{DOMAIN}:{self.port}"

    def host(self, entry: Entry) -> str:
        return entry.url.removeprefix("https://")

    def ask(self, whose: Entry, host: str, method: str, path: str, body: object = None, **headers: str) -> httpx.Response:
        """A call with the token of one tenant's client, and a Host header as it is given."""
        more = {name.replace("_", "-"): value for name, value in headers.items()}
        separator = "&" if "?" in path else "?"
        return self.http.request(
            method,
            f"https://127.0.0.1:{self.port}{path}{separator}api-version=7.6",
            json=body,
            headers={"authorization": f"Bearer {self.tokens[whose.tenant_id]}", "host": host, **more},
        )

    def sign_in(self, whose: Entry, *, tenant: str = "", **changed: str) -> httpx.Response:
        form = {
            "grant_type": "client_credentials",
            "client_id": whose.client_id,
            "client_secret": whose.client_secret,
            "scope": f"{self.resource}/.default",
            **changed,
        }
        url = f"https://127.0.0.1:{self.port}/{tenant or whose.tenant_id}/oauth2/v2.0/token"
        return self.http.post(url, data=form, headers={"host": f"login.{DOMAIN}:{self.port}"})

    def log_of(self, whose: Entry) -> list[v.VaultLogEntry]:
        home = open_home(self.home, {})
        try:
            domain = "contoso.example" if whose is not self.theirs else "fabrikam.example"
            admin = home.client(home.as_person(f"admin@{domain}"))
            return admin.call("vault.log", v.VaultLogQuery(vault=whose.name, limit=100))  # type: ignore[no-any-return]  # the route's type
        finally:
            home.close()


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    home = tmp_path_factory.mktemp("isolation") / "home"
    make_vault_home(home, "contoso-v1", "contoso-v2")
    make_tenant(home, "fabrikam.example", "fabrikam-v1")
    port = free_port()
    with vaults_served(home, "--domain", DOMAIN, "--listen", f"127.0.0.1:{port}") as running:
        found = {entry.name: entry for entry in running.entries}
        ours = found["contoso-v1"]
        with httpx.Client(verify=ssl.create_default_context(cafile=ours.ca_file), timeout=60) as http:
            made = Scene(home, port, ours, found["contoso-v2"], found["fabrikam-v1"], http, {})
            for entry in (made.ours, made.theirs):
                made.tokens[entry.tenant_id] = made.sign_in(entry).json()["access_token"]
                created = made.ask(entry, made.host(entry), "POST", f"/keys/of-{entry.name}/create", {"kty": "RSA"})
                assert created.status_code == 200
            yield made


ROWS = (
    ("GET", "/keys", None),
    ("GET", "/keys/of-fabrikam-v1", None),
    ("GET", "/deletedkeys", None),
    ("POST", "/keys/mine/create", {"kty": "EC"}),
    ("DELETE", "/keys/of-fabrikam-v1", None),
    ("POST", "/keys/of-fabrikam-v1/backup", None),
    ("POST", "/keys/of-fabrikam-v1//unwrapkey", {"alg": "RSA-OAEP-256", "value": encode(bytes(256))}),
    ("POST", "/keys/of-fabrikam-v1//encrypt", {"alg": "RSA-OAEP-256", "value": "AAAA"}),
    ("POST", "/rng", {"count": 8}),
)


@pytest.mark.parametrize(("method", "path", "body"), ROWS)
def test_a_token_of_one_tenant_is_nothing_at_anothers_vault(scene: Scene, method: str, path: str, body: Any) -> None:
    refused = scene.ask(scene.ours, scene.host(scene.theirs), method, path, body)
    assert (refused.status_code, refused.json()["error"]["code"]) == (401, "Unauthorized")
    assert scene.theirs.tenant_id in refused.headers["www-authenticate"]
    last = scene.log_of(scene.theirs)[-1]
    assert (last.result_signature, last.identity.application_id) == ("token_tenant_wrong", scene.ours.client_id)


@pytest.mark.parametrize(
    "host",
    [
        "fabrikam-v1.{domain}",
        "fabrikam-v1.{domain}:1",
        "FABRIKAM-V1.{domain}:{port}",
        "fabrikam-v1.{domain}.:{port}",
        "fabrikam-v1.{domain}:0{port}",
        "contoso-v1.fabrikam-v1.{domain}:{port}",
        "fabrikam-v1.contoso-v1.{domain}:{port}",
        "contoso-v1.{domain}@fabrikam-v1.{domain}:{port}",
        "contoso-v1.{domain},fabrikam-v1.{domain}:{port}",
        "fabrikam-v1.{domain}:{port}#contoso-v1.{domain}",
        "fabrikam-v1.{domain}:{port}/../contoso-v1.{domain}",
        "login.fabrikam-v1.{domain}:{port}",
        "{domain}:{port}",
        ".{domain}:{port}",
        "127.0.0.1:{port}",
        "[::1]:{port}",
        "",
    ],
)
def test_no_host_header_leads_to_anothers_keys(scene: Scene, host: str) -> None:
    written = host.format(domain=DOMAIN, port=scene.port)
    answer = scene.ask(scene.ours, written, "GET", "/keys/of-fabrikam-v1")
    assert answer.status_code in {400, 401, 404}
    assert '"n":' not in answer.text


@pytest.mark.parametrize(
    "header", ["x-forwarded-host", "x-original-host", "x-host", "forwarded", "x-http-host-override", "x-rewrite-url", "x-original-url"]
)
def test_other_headers_that_name_a_host_mean_nothing(scene: Scene, header: str) -> None:
    value = f"host={scene.host(scene.theirs)}" if header == "forwarded" else scene.host(scene.theirs)
    own = scene.ask(scene.ours, scene.host(scene.ours), "GET", "/keys", **{header: value})
    assert own.status_code == 200
    assert {one["kid"] for one in own.json()["value"]} == {f"{scene.ours.url}/keys/of-contoso-v1"}


def raw(scene: Scene, request: str) -> bytes:
    context = ssl.create_default_context(cafile=scene.ours.ca_file)
    with (
        socket.create_connection(("127.0.0.1", scene.port), timeout=30) as plain,
        context.wrap_socket(plain, server_hostname="127.0.0.1") as tls,
    ):
        tls.sendall(request.replace("\n", "\r\n").encode())
        got = b""
        while part := tls.recv(65_536):
            got += part
        return got


def test_a_request_that_names_two_hosts_is_served_by_one_of_them_or_none(scene: Scene) -> None:
    token = scene.tokens[scene.ours.tenant_id]
    rest = f"authorization: Bearer {token}\nconnection: close\n\n"
    target = f"https://{scene.host(scene.theirs)}/keys?api-version=7.6"
    absolute = raw(scene, f"GET {target} HTTP/1.1\nhost: {scene.host(scene.ours)}\n{rest}")
    assert b"of-fabrikam-v1" not in absolute
    twice = raw(scene, f"GET /keys?api-version=7.6 HTTP/1.1\nhost: {scene.host(scene.ours)}\nhost: {scene.host(scene.theirs)}\n{rest}")
    assert twice.startswith(b"HTTP/1.1 400")
    none = raw(scene, f"GET /keys?api-version=7.6 HTTP/1.1\n{rest}")
    assert none.startswith(b"HTTP/1.1 400")


def test_signing_in_gives_a_token_of_ones_own_tenant_alone(scene: Scene) -> None:
    assert scene.sign_in(scene.ours, tenant=scene.theirs.tenant_id).json()["error"] == "unauthorized_client"
    assert scene.sign_in(scene.ours, client_id=scene.theirs.client_id).json()["error"] == "unauthorized_client"
    assert scene.sign_in(scene.ours, client_id="development").json()["error"] == "unauthorized_client"
    crossed = scene.sign_in(scene.ours, client_secret=scene.theirs.client_secret)
    assert (crossed.status_code, crossed.json()["error"]) == (401, "invalid_client")
    for resource in (scene.theirs.url, scene.ours.url, f"{scene.resource}:443", "https://vault.contoso.example.attacker.example"):
        assert scene.sign_in(scene.ours, scope=f"{resource}/.default").json()["error"] == "invalid_scope", resource


def test_a_token_for_another_port_of_the_domain_is_for_that_alone(scene: Scene) -> None:
    """The port belongs to the resource: a forwarded one has a resource of its own, and no token is good for two."""
    other = scene.sign_in(scene.ours, scope=f"https://{DOMAIN}:1/.default").json()["access_token"]
    headers = {"authorization": f"Bearer {other}", "host": scene.host(scene.ours)}
    answer = scene.http.get(f"https://127.0.0.1:{scene.port}/keys?api-version=7.6", headers=headers)
    assert (answer.status_code, "audience" in answer.text) == (401, True)


def test_a_backup_opens_in_its_own_tenant_alone_R_062(scene: Scene) -> None:
    blob = scene.ask(scene.ours, scene.host(scene.ours), "POST", "/keys/of-contoso-v1/backup").json()
    stolen = scene.ask(scene.theirs, scene.host(scene.theirs), "POST", "/keys/restore", blob)
    assert (stolen.status_code, stolen.json()["error"]["code"]) == (403, "Forbidden")
    assert scene.ask(scene.theirs, scene.host(scene.theirs), "GET", "/keys/of-contoso-v1").status_code == 404
    assert scene.ask(scene.ours, scene.host(scene.beside), "POST", "/keys/restore", blob).status_code == 200
    assert scene.ask(scene.ours, scene.host(scene.beside), "DELETE", "/keys/of-contoso-v1").status_code == 200


def test_a_place_in_one_listing_shows_nothing_of_another(scene: Scene) -> None:
    """$skiptoken is a name and no capability: at another vault it names a place in that vault's own listing."""
    for name in ("aaa", "zzz"):
        assert scene.ask(scene.ours, scene.host(scene.ours), "POST", f"/keys/{name}/create", {"kty": "EC"}).status_code == 200
    first = scene.ask(scene.ours, scene.host(scene.ours), "GET", "/keys?maxresults=1").json()
    following = first["nextLink"].partition("?")[2].replace("api-version=7.6&", "")
    theirs = scene.ask(scene.theirs, scene.host(scene.theirs), "GET", f"/keys?{following}")
    assert theirs.status_code == 200
    assert all(one["kid"].startswith(scene.theirs.url) for one in theirs.json()["value"])
    assert scene.ask(scene.ours, scene.host(scene.theirs), "GET", f"/keys?{following}").status_code == 401
    for made_up in ("k../../x", "k%", "kof-fabrikam-v1\0", "kx' OR '1'='1", "v" + "0" * 32, "d", ""):
        assert scene.ask(scene.ours, scene.host(scene.ours), "GET", f"/keys?$skiptoken={encode(made_up.encode())}").status_code == 400


def test_nobody_learns_of_tenants_at_the_place_to_sign_in(scene: Scene) -> None:
    """Metadata and refusals are the same for tenants that are there and for those that are not, but for the id itself."""
    nobody = "6b9e2f0c-1d3a-4c5b-8e7f-9a0b1c2d3e4f"

    def told(tenant: str) -> list[tuple[int, str]]:
        base, headers = f"https://127.0.0.1:{scene.port}/{tenant}", {"host": f"login.{DOMAIN}:{scene.port}"}
        answers = [
            scene.http.get(f"{base}{path}", headers=headers) for path in ("/v2.0/.well-known/openid-configuration", "/discovery/v2.0/keys")
        ]
        unknown = scene.sign_in(scene.ours, tenant=tenant, client_id=nobody)
        document = unknown.json()
        answers_told = [(one.status_code, one.text.replace(tenant, "TENANT")) for one in answers]
        return [*answers_told, (unknown.status_code, json.dumps([document["error"], document["error_description"]]))]

    assert told(scene.theirs.tenant_id) == told(nobody)
