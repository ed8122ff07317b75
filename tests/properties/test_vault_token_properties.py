"""What holds for every access token, token request and address that comes from outside: an answer, never a defect, and never what was not earned."""

from __future__ import annotations

import base64
import json
from typing import Any
from urllib.parse import urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keystead.core.errors import NotFound, Unauthenticated
from keystead.core.vaults.tokens import ClientClaims, check_claims, check_standing, issuer_of, read_token, resource_name, token_claims
from keystead.frontends.vault_http.addresses import AddressBook, Domain
from keystead.frontends.vault_http.authority import OAuthError, TokenRequest, token_request

ids = st.uuids().map(str)
hosts = st.from_regex(r"[a-z][a-z0-9]{0,10}(\.[a-z][a-z0-9]{0,10}){0,2}", fullmatch=True)
resources = st.one_of(
    hosts.map(lambda host: f"https://{host}"), st.tuples(hosts, st.integers(1, 65_535)).map(lambda at: f"https://{at[0]}:{at[1]}")
)
times = st.integers(0, 2**41)
values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text(max_size=20), ids),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
HEADER = {"alg": "RS256", "typ": "JWT", "kid": "2ef5f3a1-8533-4b89-aa1d-123de76f4ddf"}


def encoded(document: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(document).encode()).decode().rstrip("=")


def claims_or_code(document: dict[str, Any]) -> ClientClaims | str:
    try:
        return check_claims(document)
    except Unauthenticated as error:
        return error.code


def request_or_status(body: bytes, authorization: bytes, *, v1: bool) -> TokenRequest | int:
    try:
        return token_request(body, authorization, v1=v1)
    except OAuthError as error:
        return error.status


@st.composite
def claims(draw: st.DrawFn) -> dict[str, str | int]:
    tenant = draw(ids)
    issuer = issuer_of(draw(resources), tenant)
    return token_claims(issuer, draw(ids), tenant, draw(resources), draw(ids), draw(times), draw(st.integers(1_000, 10**8)))


@given(claims())
def test_R_038_what_is_issued_reads_back_as_it_was_meant(made: dict[str, str | int]) -> None:
    token = f"{encoded(HEADER)}.{encoded(made)}.{encoded('signature')}"
    found = check_claims(read_token(token).claims)
    assert (found.client_id, found.tenant_id, found.audience) == (made["azp"], made["tid"], made["aud"])
    check_standing(found, found.audience, found.begins, 0)
    for now, code in ((found.expires, "token_expired"), (found.begins - 1, "token_invalid")):
        with pytest.raises(Unauthenticated) as raised:
            check_standing(found, found.audience, now, 0)
        assert raised.value.code == code
    with pytest.raises(Unauthenticated) as wrong:
        check_standing(found, found.audience + "0", found.begins, 0)
    assert wrong.value.code == "token_audience_wrong"


@given(claims(), st.data())
def test_R_038_claims_with_anything_changed_added_or_left_out_are_refused_or_mean_what_they_say(
    made: dict[str, str | int], data: st.DataObject
) -> None:
    name = data.draw(st.sampled_from([*sorted(made), "roles", "scp"]))
    changed: dict[str, Any] = (
        {**made, name: data.draw(values)} if data.draw(st.booleans()) else {key: made[key] for key in made if key != name}
    )
    found = claims_or_code(changed)
    if isinstance(found, ClientClaims):
        assert changed.keys() == made.keys()
        assert {changed["sub"], changed["oid"], changed["azp"], changed["appid"]} == {found.client_id}
    else:
        assert found == "token_invalid"


@given(
    st.one_of(
        st.text(), st.binary().map(lambda data: data.decode("latin-1")), st.from_regex(r"[A-Za-z0-9_-]*\.[A-Za-z0-9_-]*\.[A-Za-z0-9_-]*")
    )
)
def test_R_038_no_text_is_taken_for_a_token(text: str) -> None:
    with pytest.raises(Unauthenticated) as raised:
        read_token(text)
    assert raised.value.code == ("token_invalid" if text else "token_missing")


@given(st.dictionaries(st.sampled_from(["alg", "typ", "kid", "jwk", "jku", "x5c", "crit"]), values), claims())
def test_R_038_only_one_header_is_taken(header: dict[str, Any], made: dict[str, str | int]) -> None:
    with pytest.raises(Unauthenticated):
        read_token(f"{encoded(header)}.{encoded(made)}.{encoded('s')}")


@given(resources)
def test_a_resource_has_one_spelling(resource: str) -> None:
    assert resource_name(resource) == resource == resource_name(resource.upper()) == resource_name(f"{resource}/")


@given(st.text())
def test_what_is_no_origin_is_no_resource(text: str) -> None:
    found = resource_name(text)
    assert found is None or (found.startswith("https://") and "/" not in found[8:] and found == found.lower())


@given(
    st.one_of(
        st.binary(max_size=400), st.dictionaries(st.text(max_size=12), st.text(max_size=40)).map(lambda form: urlencode(form).encode())
    ),
    st.binary(max_size=60),
    st.booleans(),
)
def test_no_body_and_no_header_is_more_than_a_request_or_a_refusal(body: bytes, authorization: bytes, v1: bool) -> None:  # noqa: FBT001 - drawn
    found = request_or_status(body, authorization, v1=v1)
    assert isinstance(found, TokenRequest) or found in {400, 401}


@given(st.text(st.characters(codec="ascii", categories=["L", "N", "P", "S"]), min_size=1, max_size=60), resources, st.booleans())
def test_a_client_is_who_its_form_or_its_header_says(secret: str, resource: str, v1: bool) -> None:  # noqa: FBT001 - drawn
    form = {"grant_type": "client_credentials", **({"resource": resource} if v1 else {"scope": f"{resource}/.default"})}
    in_form = token_request(urlencode({**form, "client_id": "Job", "client_secret": secret}).encode(), b"", v1=v1)
    basic = b"Basic " + base64.b64encode(urlencode({"Job": secret}).replace("=", ":", 1).encode())
    assert in_form == token_request(urlencode(form).encode(), basic, v1=v1) == TokenRequest("job", secret, resource)
    assert repr(in_form) == f"TokenRequest(client_id='job', client_secret=..., resource={resource!r})"


@given(st.binary(max_size=300))
def test_no_host_header_reaches_a_vault_that_is_not_there(host: bytes) -> None:
    book = AddressBook(Domain("vault.contoso.example", 443))
    scope = {"headers": [(b"host", host)], "server": ("127.0.0.1", 443)}
    with pytest.raises(NotFound):
        book.resolve(scope)
    assert book.is_authority(scope) == (host.lower().rstrip(b".").partition(b":")[0].rstrip(b".") == b"login.vault.contoso.example")
