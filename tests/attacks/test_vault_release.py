"""Getting at an exportable key with a policy that is read too kindly: authorities that look alike, numbers that nearly fit, documents that explode."""

from __future__ import annotations

import json
from typing import Any

import pytest

from keystead.core.errors import Forbidden, InvalidRequest
from keystead.core.vaults.release import ReleasePolicy, check_release, release_policy

ATTEST = "https://attest.contoso.example"
LARGE = 2**53
"""From here on, two neighbours are one number to who counts in floating point: times in nanoseconds are beyond it."""


def policy(*conditions: dict[str, Any], authority: str = ATTEST) -> ReleasePolicy:
    return release_policy(json.dumps({"version": "1.0.0", "anyOf": [{"authority": authority, "allOf": list(conditions)}]}).encode())


def met(made: ReleasePolicy, claims: dict[str, Any], issuer: str = ATTEST) -> bool:
    try:
        check_release(made, issuer, claims)
    except Forbidden:
        return False
    return True


@pytest.mark.parametrize(
    ("operator", "wanted", "nearly", "enough"),
    [
        ("greaterOrEquals", LARGE + 1, LARGE, LARGE + 1),
        ("greater", LARGE, LARGE, LARGE + 1),
        ("lessOrEquals", LARGE, LARGE + 1, LARGE),
        ("less", LARGE + 1, LARGE + 1, LARGE),
        ("equals", LARGE + 1, LARGE, LARGE + 1),
        ("equals", LARGE + 1, float(LARGE), LARGE + 1),
        ("notEquals", LARGE + 1, LARGE + 1, LARGE),
        ("greaterOrEquals", 10**18 + 1, float(10**18), 10**18 + 1),
    ],
)
def test_a_number_that_nearly_fits_does_not(operator: str, wanted: int, nearly: float, enough: int) -> None:
    made = policy({"claim": "svn", operator: wanted})
    assert met(made, {"svn": enough})
    assert not met(made, {"svn": nearly})


@pytest.mark.parametrize("operator", ["greaterOrEquals", "lessOrEquals", "equals", "notEquals"])
@pytest.mark.parametrize("claim", [True, False, "3", "", None, [3], {"": 3}])
def test_what_is_no_number_is_never_compared_with_one(operator: str, claim: Any) -> None:
    assert not any(met(policy({"claim": "svn", operator: wanted}), {"svn": claim}) for wanted in (0, 1, 3))


@pytest.mark.parametrize(
    "issuer",
    [
        "https://attest.contoso.example.attacker.example",
        "https://attest.contoso.example:443",
        "https://attest.contoso.example:8443",
        "https://attest.contoso.example@attacker.example",
        "https://attest.contoso.example/other",
        "https://attest.contoso.example.",
        "https://attest.contoso.example%2f",
        "https://attest.contoso.example?",
        "https://attest.contoso.example#",
        "https://attest.contoso.example\\",
        "https://attest.contoso.exampl\u0435",
        "https://xn--attest.contoso.example",
        "http://attest.contoso.example",
        "attest.contoso.example",
        " https://attest.contoso.example",
        "https:///attest.contoso.example",
        "https://",
        "",
    ],
)
def test_an_authority_that_looks_like_the_named_one_is_another(issuer: str) -> None:
    made = policy({"claim": "a", "exists": False})
    assert met(made, {})
    assert not made.names(issuer)
    assert not met(made, {}, issuer)


def test_a_path_has_case_and_a_host_has_none() -> None:
    """One attestation service may serve many customers, each below a path of its own."""
    made = policy({"claim": "a", "exists": False}, authority="https://Attest.contoso.example/TenantA")
    assert met(made, {}, "https://attest.CONTOSO.example/TenantA/")
    assert not met(made, {}, "https://attest.contoso.example/tenanta")
    assert not met(made, {}, "https://attest.contoso.example")


@pytest.mark.parametrize(
    "claims",
    [
        {"a.b": True},
        {"a": "b"},
        {"a": ["b"]},
        {"a": {"b": "true"}},
        {"a": {"b": 1}},
        {"a": {"b": [True]}},
        {"a": {"b": {"b": True}}},
        {"A": {"B": True}},
        {"a": {"b ": True}},
        {"b": True},
        {"": {"a": {"b": True}}},
    ],
)
def test_a_claim_elsewhere_is_not_the_claim(claims: dict[str, Any]) -> None:
    made = policy({"claim": "a.b", "equals": True})
    assert met(made, {"a": {"b": True}})
    assert not met(made, claims)


def nested(depth: int) -> dict[str, Any]:
    found: dict[str, Any] = {"claim": "a", "equals": 1}
    for _ in range(depth):
        found = {"allOf": [found]}
    return found


@pytest.mark.parametrize(
    "document",
    [
        b"[" * 10_000,
        b'{"a":' * 2_000,
        b'{"version":"1.0.0","anyOf":[' + b"1" * 9_000 + b"]}",
        b'{"version":"1.0.0","anyOf":[1e999]}',
        b'{"version":"1.0.0","version":"1.0.0","anyOf":[]}',
        b'{"version":"1.0.0","anyOf":[NaN]}',
        b"\xff\xfe{}",
        b"\xef\xbb\xbf{}",
        b"{}" + b" " * 11_000,
        json.dumps({"version": "1.0.0", "anyOf": [{"authority": ATTEST, "allOf": [nested(8)]}]}).encode(),
        json.dumps({"version": "1.0.0", "anyOf": [{"authority": ATTEST, "allOf": []}]}).encode(),
        json.dumps({"version": "1.0.0", "anyOf": []}).encode(),
        json.dumps({"version": "1.0.0", "anyOf": [{"authority": ATTEST, "allOf": [{"anyOf": []}]}]}).encode(),
        json.dumps({"version": "1.0.0", "anyOf": [{"authority": ATTEST, "allOf": [{"claim": "a", "equals": 1, "exists": True}]}]}).encode(),
        json.dumps({"version": "1.0.0", "anyOf": [{"authority": ATTEST, "allOf": [{"claim": "a", "equals": None}]}]}).encode(),
        json.dumps({"version": "1.0.0", "anyOf": [{"authority": ATTEST, "allOf": [{"claim": "..", "equals": 1}]}]}).encode(),
        json.dumps({"version": "1.0.0", "anyOf": [{"authority": "http://attest.contoso.example", "allOf": [nested(0)]}]}).encode(),
        json.dumps({"version": "1.0.0", "anyOf": [{"authority": f"{ATTEST}?x", "allOf": [nested(0)]}]}).encode(),
    ],
    ids=range(18),
)
def test_a_policy_that_is_not_fully_understood_is_none(document: bytes) -> None:
    with pytest.raises(InvalidRequest) as raised:
        release_policy(document)
    assert raised.value.code == "release_policy_invalid"
