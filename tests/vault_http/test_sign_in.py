"""`keystead vault serve` from outside: a process on a dev home, the unmodified SDKs, and plain HTTPS for what no SDK sends."""

from __future__ import annotations

import base64
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import httpx
import pytest
import trustme
from azure.core.exceptions import ClientAuthenticationError
from azure.identity import ClientSecretCredential
from azure.keyvault.keys import KeyClient
from azure.keyvault.keys.crypto import CryptographyClient, KeyWrapAlgorithm
from joserfc.jwk import RSAKey
from joserfc.jws import JWSRegistry, deserialize_compact

from keystead.api.types import vault_clients as c
from keystead.api.types import vaults as v
from support.ports import free_port
from support.vaults import call_as_admin, make_tenant, make_vault, make_vault_home, start_vaults, vaults_served

if TYPE_CHECKING:
    from pathlib import Path

    from support.vaults import Entry, ServedVaults

pytestmark = pytest.mark.xdist_group("vault-serve")

UNKNOWN = "6b9e2f0c-1d3a-4c5b-8e7f-9a0b1c2d3e4f"
SDK = """
import asyncio, json, sys
entry = json.loads(sys.argv[1])
places = dict(authority=entry["authority"], disable_instance_discovery=True)
who = (entry["tenant_id"], entry["client_id"], entry["client_secret"])
if sys.argv[2] == "sync":
    from azure.identity import ClientSecretCredential
    from azure.keyvault.keys import KeyClient
    keys = KeyClient(entry["url"], ClientSecretCredential(*who, **places), verify_challenge_resource=False)
    print(keys.create_rsa_key("from-sync", size=2048).id)
else:
    from azure.identity.aio import ClientSecretCredential
    from azure.keyvault.keys.aio import KeyClient
    async def main():
        async with ClientSecretCredential(*who, **places) as credential:
            async with KeyClient(entry["url"], credential, verify_challenge_resource=False) as keys:
                print((await keys.create_ec_key("from-async")).id)
    asyncio.run(main())
"""


def https(entry: Entry) -> httpx.Client:
    return httpx.Client(verify=ssl.create_default_context(cafile=entry.ca_file), timeout=30)


def credential(entry: Entry, client_id: str = "", secret: str = "") -> ClientSecretCredential:
    return ClientSecretCredential(
        entry.tenant_id,
        client_id or entry.client_id,
        secret or entry.client_secret,
        authority=entry.authority,
        disable_instance_discovery=True,
        connection_verify=entry.ca_file,
    )


def keys(entry: Entry, who: ClientSecretCredential) -> KeyClient:
    return KeyClient(entry.url, who, verify_challenge_resource=False, connection_verify=entry.ca_file, retry_total=0)


def form(entry: Entry, **changed: str) -> dict[str, str]:
    fields = {
        "grant_type": "client_credentials",
        "client_id": entry.client_id,
        "client_secret": entry.client_secret,
        "scope": f"{entry.url}/.default",
        **changed,
    }
    return {name: value for name, value in fields.items() if value}


def ask(entry: Entry, fields: dict[str, str] | str, *, path: str = "/oauth2/v2.0/token", tenant: str = "", **more: Any) -> httpx.Response:
    with https(entry) as http:
        content = fields if isinstance(fields, str) else str(httpx.QueryParams(fields))
        headers = {"content-type": "application/x-www-form-urlencoded", **more.pop("headers", {})}
        return http.post(f"{entry.authority}/{tenant or entry.tenant_id}{path}", content=content, headers=headers, **more)


# -- the SDKs ----------------------------------------------------------------------------------------------------------------------------


def test_an_sdk_signs_in_makes_a_key_wraps_and_unwraps(served_vaults: ServedVaults) -> None:
    entry = served_vaults.entries[0]
    who = credential(entry)
    with keys(entry, who) as client:
        key = client.create_rsa_key("root", size=2048)
        assert key.id is not None
        assert key.id.startswith(f"{entry.url}/keys/root/")
        crypto = CryptographyClient(key, who, verify_challenge_resource=False, connection_verify=entry.ca_file)
        wrapped = crypto.wrap_key(KeyWrapAlgorithm.rsa_oaep_256, bytes(range(32)))
        assert crypto.unwrap_key(KeyWrapAlgorithm.rsa_oaep_256, wrapped.encrypted_key).key == bytes(range(32))


@pytest.mark.parametrize(("kind", "variable"), [("sync", "REQUESTS_CA_BUNDLE"), ("async", "SSL_CERT_FILE")])
def test_one_environment_variable_makes_a_program_trust_the_vaults(served_vaults: ServedVaults, kind: str, variable: str) -> None:
    """The one that `vault serve` prints; without it the same program refuses to talk."""
    entry = served_vaults.entries[0]
    told = json.dumps({name: getattr(entry, name) for name in ("url", "authority", "tenant_id", "client_id", "client_secret")})
    clean = {name: value for name, value in os.environ.items() if name not in {"REQUESTS_CA_BUNDLE", "SSL_CERT_FILE", "CURL_CA_BUNDLE"}}

    def run(more: dict[str, str]) -> subprocess.CompletedProcess[str]:
        return subprocess.run([sys.executable, "-c", SDK, told, kind], env=clean | more, capture_output=True, text=True, check=False)

    trusting = run({variable: entry.ca_file})
    assert (trusting.returncode, trusting.stdout.startswith(entry.url)) == (0, True), trusting.stderr
    assert f"{variable}={entry.ca_file}" in served_vaults.log.read_text()
    assert "CERTIFICATE_VERIFY_FAILED" in run({}).stderr


def test_R_038_a_token_for_one_vault_is_refused_by_another(served_vaults: ServedVaults) -> None:
    one, two = served_vaults.entries
    token = ask(one, form(one)).json()["access_token"]
    with https(one) as http:
        statuses = [
            http.get(f"{entry.url}/keys?api-version=7.4", headers={"authorization": f"Bearer {token}"}).status_code for entry in (one, two)
        ]
    assert statuses == [200, 401]


def test_R_038_a_client_that_was_deleted_is_refused_at_its_next_call(served_vaults: ServedVaults) -> None:
    entry = served_vaults.entries[0]
    made = call_as_admin(served_vaults.home, "vault.client.create", c.ClientCreate(name="short-lived"))
    assert isinstance(made, c.ClientSecretShown)
    grant = v.AccessGrant(vault=entry.name, principal="short-lived", permissions=["list"])
    call_as_admin(served_vaults.home, "vault.access.grant", grant)
    with keys(entry, credential(entry, made.id, made.client_secret)) as client:
        names = [one.name for one in client.list_properties_of_keys()]
        call_as_admin(served_vaults.home, "vault.client.delete", c.ClientNamed(client=made.id))
        with pytest.raises(ClientAuthenticationError):
            list(client.list_properties_of_keys())
    assert isinstance(names, list)


def test_a_wrong_secret_is_told_in_words_people_see(served_vaults: ServedVaults) -> None:
    entry = served_vaults.entries[0]
    with pytest.raises(ClientAuthenticationError) as raised:
        credential(entry, secret="ksc_wrong").get_token(f"{entry.url}/.default")
    assert "client_secret_wrong" in str(raised.value)
    assert "ksc_wrong" not in str(raised.value)
    assert "ksc_wrong" not in served_vaults.log.read_text()


# -- the token endpoint -------------------------------------------------------------------------------------------------------------------


def test_a_token_can_be_checked_with_what_is_published(served_vaults: ServedVaults) -> None:
    entry = served_vaults.entries[0]
    answer = ask(entry, form(entry))
    assert (answer.status_code, answer.headers["cache-control"], answer.headers["pragma"]) == (200, "no-store", "no-cache")
    body = answer.json()
    assert (body["token_type"], body["expires_in"]) == ("Bearer", 3_600)
    with https(entry) as http:
        metadata = http.get(f"{entry.authority}/{entry.tenant_id}/v2.0/.well-known/openid-configuration").json()
        published = http.get(metadata["jwks_uri"]).json()["keys"]
    assert metadata["token_endpoint"] == f"{entry.authority}/{entry.tenant_id}/oauth2/v2.0/token"
    verified = deserialize_compact(body["access_token"], RSAKey.import_key(published[0]), registry=JWSRegistry(algorithms=["RS256"]))
    claims = json.loads(verified.payload or b"")
    assert (claims["iss"], claims["aud"], claims["tid"], claims["appid"]) == (
        metadata["issuer"],
        entry.url,
        entry.tenant_id,
        entry.client_id,
    )
    assert claims["exp"] - claims["iat"] == 3_600


def test_the_secret_may_come_in_the_header_and_the_older_endpoint_answers(served_vaults: ServedVaults) -> None:
    entry = served_vaults.entries[0]
    basic = base64.b64encode(f"{entry.client_id}:{entry.client_secret}".encode()).decode()
    without = form(entry, client_id="", client_secret="")
    assert ask(entry, without, headers={"authorization": f"Basic {basic}"}).status_code == 200
    old = ask(entry, form(entry, scope="", resource=entry.url), path="/oauth2/token")
    assert (old.status_code, old.json()["resource"], old.json()["expires_in"]) == (200, entry.url, "3600")


@pytest.mark.parametrize(
    ("changed", "status", "error"),
    [
        ({"grant_type": ""}, 400, "invalid_request"),
        ({"grant_type": "password"}, 400, "unsupported_grant_type"),
        ({"client_secret": ""}, 401, "invalid_client"),
        ({"client_id": UNKNOWN}, 400, "unauthorized_client"),
        ({"client_id": "not-an-id"}, 400, "unauthorized_client"),
        ({"scope": ""}, 400, "invalid_scope"),
        ({"scope": "https://vault.contoso.example/.default"}, 400, "invalid_scope"),
        ({"scope": "https://a.example/.default https://b.example/.default"}, 400, "invalid_scope"),
        ({"client_assertion": "x"}, 400, "invalid_request"),
        ({"client_secret": "x" * 3_000}, 400, "invalid_request"),
        ({"client_secret": "x" * 20_000}, 413, "invalid_request"),
    ],
)
def test_refusals_are_those_of_rfc_6749(served_vaults: ServedVaults, changed: dict[str, str], status: int, error: str) -> None:
    entry = served_vaults.entries[0]
    answer = ask(entry, form(entry, **changed))
    assert (answer.status_code, answer.json()["error"]) == (status, error)
    assert {"error_description", "trace_id", "correlation_id"} <= answer.json().keys()
    assert entry.client_secret not in answer.text


def test_what_is_no_token_request_is_refused(served_vaults: ServedVaults) -> None:
    entry = served_vaults.entries[0]
    assert ask(entry, "grant_type=a&grant_type=b").status_code == 400
    assert ask(entry, "%ff%fe").status_code == 400
    assert ask(entry, form(entry), headers={"content-type": "application/json"}).status_code == 415
    assert ask(entry, form(entry), headers={"authorization": "Basic %%%"}).status_code == 401
    assert ask(entry, form(entry), headers={"authorization": "Basic " + base64.b64encode(b"a:b").decode()}).status_code == 400
    assert ask(entry, form(entry), tenant=UNKNOWN).json()["error"] == "unauthorized_client"
    assert ask(entry, form(entry), path="/oauth2/v2.0/elsewhere").status_code == 404
    with https(entry) as http:
        assert http.get(f"{entry.authority}/{entry.tenant_id}/oauth2/v2.0/token").status_code == 405
        assert http.get(f"{entry.authority}/").status_code == 404


def test_whoever_asks_whether_the_authority_is_one_is_told(served_vaults: ServedVaults) -> None:
    entry = served_vaults.entries[0]
    with https(entry) as http:
        asked = f"{entry.authority}/{entry.tenant_id}/oauth2/v2.0/authorize"
        answer = http.get(
            f"{entry.authority}/common/discovery/instance", params={"api-version": "1.1", "authorization_endpoint": asked}
        ).json()
        assert http.get(answer["tenant_discovery_endpoint"]).json()["issuer"] == f"{entry.authority}/{entry.tenant_id}/v2.0"


def test_who_guesses_is_told_how_long_to_wait(tmp_path: Path) -> None:
    home = tmp_path / "home"
    make_vault_home(home, "contoso-v1")
    with vaults_served(home, environment={"KEYSTEAD_SIGN_IN_DELAY": "1m"}) as running:
        entry = running.entries[0]
        assert ask(entry, form(entry)).status_code == 200
        made = call_as_admin(home, "vault.client.create", c.ClientCreate(name="guessed-at"))
        assert isinstance(made, c.ClientSecretShown)
        for _ in range(10):
            assert ask(entry, form(entry, client_id=made.id, client_secret="ksc_guess")).status_code == 401
        told = ask(entry, form(entry, client_id=made.id, client_secret="ksc_guess"))
        assert (told.status_code, told.json()["error"]) == (429, "temporarily_unavailable")
        assert 1 <= int(told.headers["retry-after"]) <= 60
        assert ask(entry, form(entry, client_id=made.id, client_secret=made.client_secret)).status_code == 200, (
            "a right secret does not wait"
        )


def test_a_client_gets_no_token_for_a_vault_of_another_tenant(tmp_path: Path) -> None:
    home = tmp_path / "home"
    make_vault_home(home, "contoso-v1")
    make_tenant(home, "fabrikam.example", "fabrikam-v1")
    with vaults_served(home) as running:
        ours, theirs = (running.entry(name) for name in ("contoso-v1", "fabrikam-v1"))
        assert ours is not None
        assert theirs is not None
        assert ours.tenant_id != theirs.tenant_id
        assert ours.client_id != theirs.client_id
        assert ask(theirs, form(theirs)).status_code == 200
        crossed = ask(ours, form(ours, scope=f"{theirs.url}/.default"))
        assert (crossed.status_code, crossed.json()["error"]) == (400, "invalid_scope")
        posing = ask(ours, form(ours), tenant=theirs.tenant_id)
        assert (posing.status_code, posing.json()["error"]) == (400, "unauthorized_client")


# -- the process --------------------------------------------------------------------------------------------------------------------------


def test_a_vault_made_beside_gets_an_address_and_a_deleted_one_says_so(served_vaults: ServedVaults) -> None:
    make_vault(served_vaults.home, "contoso-v3")
    entry = served_vaults.until_served("contoso-v3")
    assert entry is not None
    who = credential(entry)
    with keys(entry, who) as client:
        assert client.create_ec_key("first").name == "first"
    token = who.get_token(f"{entry.url}/.default").token
    call_as_admin(served_vaults.home, "vault.delete", v.VaultNamed(vault="contoso-v3"))
    served_vaults.until_served("contoso-v3", gone=True)
    with https(entry) as http:
        answer = http.get(f"{entry.url}/keys?api-version=7.4", headers={"authorization": f"Bearer {token}"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "VaultNotFound")


def test_addresses_secrets_and_the_authority_last_over_a_restart(tmp_path: Path) -> None:
    home = tmp_path / "home"
    make_vault_home(home, "contoso-v1")
    with vaults_served(home) as running:
        before = running.entries
        for name in ("vault-development.json", "vault-addresses.json"):
            assert (home / "run" / name).stat().st_mode & 0o077 == 0
        assert (home / "tls" / "ca.key").stat().st_mode & 0o077 == 0
        assert running.ready.stat().st_mode & 0o077 == 0
    port = free_port()
    with vaults_served(home) as running:
        assert running.entries == before
    with vaults_served(home, "--vault", "Contoso-V1", "--port", str(port)) as running:
        assert running.entries[0].url == f"https://127.0.0.1:{port}"
        token = ask(running.entries[0], form(running.entries[0]))
        assert token.status_code == 200


def test_certificates_from_files_are_shown_and_none_is_made(tmp_path: Path) -> None:
    home = tmp_path / "home"
    make_vault_home(home, "contoso-v1")
    authority = trustme.CA()
    issued = authority.issue_cert("127.0.0.1")
    issued.private_key_pem.write_to_path(home / "own.key")
    for blob in issued.cert_chain_pems:
        blob.write_to_path(home / "own.pem", append=True)
    authority.cert_pem.write_to_path(home / "own.pem", append=True)
    (home / "keystead.toml").write_text('[vault]\ntls_certificate_file = "own.pem"\ntls_key_file = "own.key"\n')
    with vaults_served(home) as running:
        entry = running.entries[0]
        assert entry.ca_file == str(home / "own.pem")
        assert ask(entry, form(entry)).status_code == 200
        assert not (home / "tls").exists()
    (home / "keystead.toml").write_text('[vault]\ntls_certificate_file = "own.pem"\n')
    with pytest.raises(AssertionError, match="configuration_invalid"):
        start_vaults(home)


def test_a_port_that_is_taken_is_refused_and_an_interrupt_ends_it(tmp_path: Path) -> None:
    home = tmp_path / "home"
    make_vault_home(home, "contoso-v1")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        with pytest.raises(AssertionError, match="address_in_use"):
            start_vaults(home, "--vault", "contoso-v1", "--port", port)
    with pytest.raises(AssertionError, match="ready_file_invalid"):
        start_vaults(home, "--ready-file", str(tmp_path / "nowhere" / "ready"))
    running = start_vaults(home)
    assert running.stop(signal.SIGINT) == 0


def test_under_a_domain_the_host_tells_vaults_apart_and_the_resource_check_stays_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    make_vault_home(home, "contoso-v1", "contoso-v2")
    port = free_port()
    with vaults_served(home, "--domain", "vault.contoso.example", "--listen", f"127.0.0.1:{port}") as running:
        entry, other = running.entries
        assert entry.url == f"https://contoso-v1.vault.contoso.example:{port}"
        resolve = socket.getaddrinfo

        def here(host: Any, *more: Any, **named: Any) -> Any:
            return resolve("127.0.0.1" if str(host).endswith(".vault.contoso.example") else host, *more, **named)

        monkeypatch.setattr(socket, "getaddrinfo", here)
        who = credential(entry)
        for one in (entry, other):
            with KeyClient(one.url, who, connection_verify=one.ca_file, retry_total=0) as client:
                assert (client.create_ec_key("ec").id or "").startswith(f"{one.url}/keys/ec/")
        with https(entry) as http:
            nobody = http.get(f"https://nobody.vault.contoso.example:{port}/keys?api-version=7.4")
            challenge = http.get(f"{entry.url}/keys?api-version=7.4").headers["www-authenticate"]
        assert nobody.status_code == 404
        assert f'resource="https://vault.contoso.example:{port}"' in challenge
        assert f'authorization="https://login.vault.contoso.example:{port}/{entry.tenant_id}"' in challenge
