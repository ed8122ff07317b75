"""Signing in over HTTP, end to end: two real servers on one home, and a real OpenID Connect provider."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from joserfc.jwk import KeySet
from joserfc.jwt import decode

from keystead.wiring import create_home
from support.http import served
from support.oidc import ALGORITHMS, provider
from support.tokens import encoded, parts

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.http import Server
    from support.oidc import Provider

pytestmark = pytest.mark.xdist_group("http-tokens")

ADMIN, ALICE = "admin@contoso.example", "alice@contoso.example"
PROGRAMS: dict[str, dict[str, Any]] = {
    "alice": {"audience": "keystead", "claims": {"preferred_username": ALICE}},
    "elsewhere": {"audience": "another-service", "claims": {"preferred_username": ALICE}},
    "stranger": {"audience": "keystead", "claims": {"preferred_username": "alice@fabrikam.example"}},
    "newcomer": {"audience": "keystead", "claims": {"preferred_username": "new@contoso.example"}},
}


@dataclass
class Answer:
    """What a server said."""

    status: int
    body: Any
    headers: httpx.Headers

    @property
    def code(self) -> str:
        """The code of an error; empty for none."""
        return self.body.get("code", "") if isinstance(self.body, dict) else ""


@dataclass
class Site:
    """Two servers, the provider, and the tokens of people."""

    servers: tuple[Server, Server]
    login: Provider
    http: httpx.Client
    operator: str
    tenant: str = ""
    admin: str = ""
    alice: str = ""

    def ask(self, method: str, path: str, token: str = "", body: Any = None, *, server: int = 0, where: str = "") -> Answer:
        """One call; `where` pretends to come from there, which the servers believe of this machine."""
        headers = ({"Authorization": f"Bearer {token}"} if token else {}) | ({"X-Forwarded-For": where} if where else {})
        answer = self.http.request(method, self.servers[server].url + path, headers=headers, json=body)
        return Answer(answer.status_code, answer.json() if answer.content else None, answer.headers)

    def mine(self, token: str, *, server: int = 0, where: str = "") -> Answer:
        """A call that every person of the tenant may make."""
        return self.ask("GET", f"/v1/tenants/{self.tenant}", token, server=server, where=where)

    def claim(self, token: str, upn: str) -> str:
        answer = self.ask("POST", "/v1/claim", body={"claim_token": token, "upn": upn})
        assert answer.status == 200, answer
        secret: str = answer.body["token"]
        return secret

    def person(self, local: str, *roles: str) -> str:
        body = {"upn": f"{local}@contoso.example", "roles": list(roles)}
        made = self.ask("POST", f"/v1/tenants/{self.tenant}/users", self.admin, body)
        return self.claim(made.body["claim_token"], body["upn"])  # type: ignore[arg-type]  # a text

    def exchange(self, token: str, *scopes: str, server: int = 0) -> str:
        answer = self.ask("POST", "/v1/access-tokens", body={"token": token, "scopes": list(scopes)}, server=server)
        assert answer.status == 200, answer
        access: str = answer.body["access_token"]
        return access


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    home = tmp_path_factory.mktemp("site") / "home"
    create_home(home, dev=False, operator="operator@provider.example")
    with provider(PROGRAMS) as login:
        (home / "keystead.toml").write_text(
            f'[sign_in]\nissuers = ["{login.issuer}"]\nallow_http = true\n[server]\ntrusted_proxies = ["127.0.0.1"]\n'
        )
        with served(home) as one, served(home, listen="127.0.0.1:0") as two, httpx.Client(trust_env=False, timeout=30) as http:
            site = Site((one, two), login, http, (home / "operator.token").read_text())
            made = site.ask("POST", "/v1/tenants", site.operator, {"name": "Contoso", "domain": "contoso.example", "geo": ["EUR"]})
            site.tenant = made.body["id"]
            site.admin = site.claim(made.body["claim_token"], ADMIN)
            site.alice = site.person("alice", "user")
            named = {"issuer": login.issuer, "audience": "keystead"}
            assert site.ask("PUT", f"/v1/tenants/{site.tenant}/sign-in-provider", site.admin, named).status == 200
            yield site


def test_stored_and_signed_tokens_are_taken_alike_by_every_server(site: Site) -> None:
    access = site.exchange(site.alice, server=1)
    for token in (site.alice, access):
        for server in (0, 1):
            answer = site.mine(token, server=server)
            assert (answer.status, answer.body["domain"]) == (200, "contoso.example")
    assert site.ask("GET", "/v1/tenants", access).code == "role_missing"


def test_anybody_can_check_an_access_token_with_the_published_keys(site: Site) -> None:
    access = site.exchange(site.alice, "mailbox.read")
    published = site.ask("GET", "/.well-known/jwks.json", server=1)
    assert published.status == 200
    token = decode(access, KeySet.import_key_set(published.body), algorithms=["Ed25519"])
    assert (token.header["typ"], token.claims["iss"], token.claims["scope"]) == ("at+jwt", "urn:keystead", "mailbox.read")
    assert all("d" not in key for key in published.body["keys"])


def test_a_revoked_token_is_refused_by_the_other_server_at_once(site: Site) -> None:
    """The other server has just verified it, and holds it as verified."""
    bob = site.person("bob", "user")
    access = site.exchange(bob)
    for token in (bob, access):
        assert site.mine(token, server=1).status == 200
    (mine,) = site.ask("GET", f"/v1/tenants/{site.tenant}/tokens", bob).body
    assert site.ask("DELETE", f"/v1/tenants/{site.tenant}/tokens/{mine['id']}", bob).status == 200
    assert site.mine(bob, server=1).code == "token_unknown"
    answer = site.mine(access, server=1)
    assert (answer.status, answer.code, answer.headers["www-authenticate"]) == (401, "token_revoked", "Bearer")


def test_a_removed_person_and_a_lost_role_count_at_the_next_call_on_the_other_server(site: Site) -> None:
    carol = site.person("carol", "exchange-admin")
    access = site.exchange(carol)
    boxes = f"/v1/tenants/{site.tenant}/mailboxes"
    assert site.ask("GET", boxes, access, server=1).status == 200
    users = f"/v1/tenants/{site.tenant}/users"
    site.ask("POST", users, site.admin, {"upn": "carol@contoso.example", "roles": ["user"]})
    assert site.ask("GET", boxes, access, server=1).code == "role_missing"
    assert site.ask("DELETE", f"{users}/carol@contoso.example", site.admin).status == 200
    assert site.ask("GET", boxes, access, server=1).code == "token_revoked"


def test_a_program_calls_what_its_scopes_name_and_nothing_else(site: Site) -> None:
    body = {"name": "Importer", "scopes": ["mailbox.list"]}
    made = site.ask("POST", f"/v1/tenants/{site.tenant}/tokens", site.admin, body)
    assert site.ask("GET", f"/v1/tenants/{site.tenant}/mailboxes", made.body["token"], server=1).status == 200
    for token in (made.body["token"], site.exchange(made.body["token"])):
        answer = site.mine(token, server=1)
        assert (answer.status, answer.code) == (403, "scope_missing")
        assert site.ask("POST", f"/v1/tenants/{site.tenant}/tokens", token, body).code == "scope_missing"


def test_a_signing_key_that_is_discarded_counts_for_nothing_on_the_other_server(site: Site) -> None:
    access = site.exchange(site.alice)
    assert site.mine(access, server=1).status == 200
    assert site.ask("POST", "/v1/signing-keys", site.operator, {}).status == 200
    assert site.mine(access, server=1).status == 200, "a rotation lets tokens end in their own time"
    assert site.ask("POST", "/v1/signing-keys", site.operator, {"discard": True}).status == 200
    assert site.mine(access, server=1).code == "token_revoked"
    assert site.mine(site.exchange(site.alice, server=1)).status == 200


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_people_sign_in_with_tokens_of_a_real_provider(site: Site, algorithm: str) -> None:
    token = site.login.token("alice", algorithm)
    assert parts(token)[0]["alg"] == algorithm
    for server in (0, 1):
        answer = site.mine(token, server=server)
        assert (answer.status, answer.body.get("domain")) == (200, "contoso.example"), answer
    body, _dot, signature = token.rpartition(".")
    assert site.mine(f"{body}.{encoded(bytes(len(signature) * 3 // 4))}", server=1).code == "token_signature_invalid"


@pytest.mark.parametrize(
    ("program", "code"),
    [("elsewhere", "token_audience_wrong"), ("stranger", "token_names_nobody"), ("newcomer", "token_person_unknown")],
)
def test_tokens_of_a_real_provider_for_others_are_refused(site: Site, program: str, code: str) -> None:
    answer = site.mine(site.login.token(program))
    assert (answer.status, answer.code) == (401, code)


def test_what_only_a_forger_sends(site: Site) -> None:
    access = site.exchange(site.alice)
    header, claims, _signature = access.split(".")
    none = encoded(b'{"alg":"none","typ":"at+jwt","kid":"x"}')
    sent = {
        f"{none}.{claims}.": "token_algorithm_refused",
        f"{header}.{claims}.{encoded(bytes(64))}": "token_signature_invalid",
        f"{header}.{claims}": "token_malformed",
        "ks_" + "A" * 43: "token_unknown",
        "x" * 9_000: "token_too_long",
    }
    for token, code in sent.items():
        answer = site.mine(token, where="198.51.100.77")
        assert (answer.status, answer.code) == (401, code), token[:20]


def test_whoever_guesses_waits_and_whoever_signed_in_before_does_not(site: Site) -> None:
    here = "198.51.100.9"
    assert site.mine(site.alice, where=here).status == 200
    codes = [site.mine(f"ks_{number:043}", where=here).code for number in range(12)]
    assert codes[:10] == ["token_unknown"] * 10
    assert codes[11] == "sign_in_throttled"
    answer = site.mine("ks_" + "B" * 43, where=here)
    assert answer.status == 429
    assert 1 <= int(answer.headers["retry-after"]) <= 60
    assert site.mine(site.alice, where=here).status == 200
    assert site.ask("POST", "/v1/claim", body={"claim_token": "ks_x", "upn": ADMIN}, where=here).status == 429


def test_the_provider_rotates_and_then_goes_away(site: Site) -> None:
    """The last of the tests that need it: who knows the keys serves on; who does not says so, and accepts nothing."""
    old = site.login.token("alice")
    assert site.mine(old).status == 200
    site.login.tell("rotate")
    fresh = site.login.token("alice", "RS256")
    with served(site.servers[0].home) as third, served(site.servers[0].home) as fourth:
        later = replace(site, servers=(third, fourth))
        for token in (old, fresh):
            assert later.mine(token).status == 200, "the old keys are still published beside the new"
        site.login.stop()
        for token in (old, fresh):
            assert later.mine(token).status == 200
            answer = later.mine(token, server=1)
            assert (answer.status, answer.code) == (503, "sign_in_provider_unavailable")
        assert later.mine(site.alice, server=1).status == 200
