"""Commands about tokens: what they ask, what they show, and what they never print."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from cli.fake import TENANT, WHEN
from keystead.api.types import tenants as t
from keystead.api.types import tokens as k

if TYPE_CHECKING:
    from pathlib import Path

    from cli.fake import Cli, FakeService

MADE = t.TokenView(id="token-1", upn="alex@contoso.example", token="ks_secret", expires=WHEN)
ACCESS = k.AccessTokenView(access_token="a.b.c", expires_in=900, expires=WHEN, scopes=["mailbox.read"])
STORED = k.StoredTokenView(
    id="token-1",
    kind="service",
    upn="alex@contoso.example",
    name="Importer",
    scopes=["job.list"],
    created=WHEN,
    expires=WHEN,
    last_used=None,
)
PROVIDER = k.SignInProviderView(
    id="t", issuer="https://login.example", audience="keystead", upn_claim="upn", required_claim="", required_value="", created=WHEN
)
PERSON = t.UserView(id="p", upn="alex@contoso.example", roles=["user"], created=WHEN, claim_token="ks_claim")


def test_a_programs_token_is_written_to_a_file_for_its_owner_alone(service: FakeService, cli: Cli, tmp_path: Path) -> None:
    service.answers["token.create"] = MADE
    file = tmp_path / "importer.token"
    line = ("token", "create", "Importer", "--scope", "mailbox.import,job.list", "--scope", "mailbox.items", "--lifetime", "30d")
    result = cli(*line, "--output", str(file), "--json")
    assert result.code == 0, result.err
    assert (result.document["token"], result.document["token_file"], result.document["id"]) == (None, str(file), "token-1")
    assert file.read_text() == "ks_secret\n"
    assert file.stat().st_mode & 0o077 == 0
    (asked,) = service.asked
    scopes = ["mailbox.import", "job.list", "mailbox.items"]
    assert asked.request == k.CreateToken(name="Importer", scopes=scopes, lifetime=30 * 86_400_000)


def test_without_a_file_it_is_shown_once(service: FakeService, cli: Cli) -> None:
    service.answers["provider-token.create"] = MADE
    result = cli("token", "create", "Importer", "--scope", "tenant.list", "--provider")
    assert "ks_secret" in result.out
    assert "shown this once" in result.err
    assert service.routes == ["provider-token.create"]


@pytest.mark.parametrize(("flag", "route"), [((), "token"), (("--provider",), "provider-token")])
def test_listing_and_revoking(service: FakeService, cli: Cli, flag: tuple[str, ...], route: str) -> None:
    service.answers |= {f"{route}.list": [STORED], f"{route}.revoke": t.Done(id="token-1")}
    shown = cli("token", "list", "--upn", "alex@contoso.example", "--expired", *flag)
    assert "Importer" in shown.out
    assert service.asked[-1].request == k.ListTokens(upn="alex@contoso.example", expired=True)
    assert cli("token", "revoke", "token-1", *flag).code == 0
    assert service.asked[-1].request == k.NameToken(id="token-1")
    assert service.routes == [f"{route}.list", f"{route}.revoke"]


def test_the_token_of_the_call_is_exchanged_and_renewed(service: FakeService, cli: Cli, tmp_path: Path) -> None:
    service.answers |= {"token.exchange": ACCESS, "token.renew": MADE}
    held, short = tmp_path / "held", tmp_path / "short"
    held.write_text("ks_held\n")
    result = cli("token", "exchange", "--token-file", str(held), "--scope", "mailbox.read", "--output", str(short), "--json")
    assert (result.document["access_token"], short.read_text()) == (None, "a.b.c\n")
    assert service.asked[-1].request == k.ExchangeToken(token="ks_held", scopes=["mailbox.read"])
    assert "a.b.c" in cli("token", "exchange", KEYSTEAD_TOKEN="ks_environment").out
    assert service.asked[-1].request == k.ExchangeToken(token="ks_environment")
    assert "ks_secret" in cli("token", "renew", KEYSTEAD_TOKEN="ks_environment").out
    assert service.asked[-1].request == k.RenewToken(token="ks_environment")
    none = cli("token", "exchange")
    assert (none.code, "no token was given" in none.err) == (2, True)


def test_what_if_shows_no_token(service: FakeService, cli: Cli) -> None:
    result = cli("token", "renew", "--what-if", KEYSTEAD_TOKEN="ks_environment")
    assert (result.code, service.asked) == (0, [])
    assert "ks_environment" not in result.out + result.err


def test_claims_are_given_again(service: FakeService, cli: Cli, tmp_path: Path) -> None:
    service.answers |= {"user.reissue-claim": PERSON, "tenant.reissue-claim": TENANT}
    file = tmp_path / "claim"
    assert cli("user", "reissue-claim", "alex@contoso.example", "--claim-file", str(file)).code == 0
    assert file.read_text() == "ks_claim\n"
    assert cli("tenant", "reissue-claim", "contoso.example").code == 0
    assert service.asked[-1].request == t.ReissueTenantClaim(tenant="contoso.example")


def test_the_sign_in_provider_and_the_signing_keys(service: FakeService, cli: Cli) -> None:
    key = k.SigningKeyView(id="key-1", signs=True, created=WHEN, ends=None)
    service.answers |= {
        "sign-in-provider.set": PROVIDER,
        "sign-in-provider.show": PROVIDER,
        "sign-in-provider.remove": t.Done(id="t"),
        "signing-key.list": [key],
        "signing-key.rotate": key,
        "signing-key.publish": k.JwksView(keys=[k.JwkView(kid="key-1", x="AAAA")]),
    }
    line = ("sign-in-provider", "set", "--issuer", "https://login.example", "--audience", "keystead", "--upn-claim", "upn")
    assert cli(*line, "--required-claim", "tid", "--required-value", "7").code == 0
    expected = k.SetSignInProvider(
        issuer="https://login.example", audience="keystead", upn_claim="upn", required_claim="tid", required_value="7"
    )
    assert service.asked[-1].request == expected
    for rest in (("sign-in-provider", "show"), ("sign-in-provider", "remove"), ("signing-key", "list")):
        assert cli(*rest).code == 0
    assert cli("signing-key", "rotate", "--discard").code == 0
    assert service.asked[-1].request == k.RotateSigningKey(discard=True)
    assert cli("signing-key", "publish", "--json").document["keys"][0]["crv"] == "Ed25519"
