"""Access tokens, byte for byte (docs/spec/tokens.md); checked by somebody else's Ed25519 too."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from Crypto.Signature import eddsa

from keystead.core.access.tokens import check_own_claims, check_own_header, check_size, read_jwt
from keystead.core.errors import Unauthenticated
from keystead.core.keys.signing import private_key
from keystead.core.secret import SecretKey
from keystead.services.jws import sign, verify_own
from keystead.services.sign_in import digest_of
from support.tokens import decoded

VECTORS = json.loads((Path(__file__).parent / "tokens.json").read_text())
KEY = private_key(SecretKey(bytes.fromhex(VECTORS["seed"])))


def named(group: str) -> list[Any]:
    return [pytest.param(case, id=case["name"]) for case in VECTORS[group]]


def accepted(token: str) -> dict[str, Any]:
    """What is done with a token, in the order in which it is done, as far as it needs no look at anything."""
    check_size(token)
    unverified = read_jwt(token)
    if unverified.issuer == VECTORS["issuer"]:
        check_own_header(unverified)
    verify_own(token, KEY.public_key())
    check_own_claims(unverified.claims, issuer=VECTORS["issuer"], now=VECTORS["now"], leeway=VECTORS["leeway"])
    return dict(unverified.claims)


@pytest.mark.parametrize("case", named("valid"))
def test_these_claims_give_this_token(case: Any) -> None:
    assert sign(case["claims"], VECTORS["kid"], KEY) == case["token"]
    assert accepted(case["token"]) == case["claims"]


@pytest.mark.parametrize("case", named("valid"))
def test_another_library_verifies_it(case: Any) -> None:
    message, _dot, signature = case["token"].rpartition(".")
    key = eddsa.import_public_key(bytes.fromhex(VECTORS["public_key"]))
    eddsa.new(key, "rfc8032").verify(message.encode(), decoded(signature))


@pytest.mark.parametrize("case", named("invalid"))
def test_these_tokens_are_refused_for_this_reason(case: Any) -> None:
    with pytest.raises(Unauthenticated) as caught:
        accepted(case["token"])
    assert caught.value.code == case["code"]


def test_a_stored_token_is_known_by_its_hash() -> None:
    stored = VECTORS["stored"]
    assert digest_of(stored["token"]).hex() == stored["sha256"] == hashlib.sha256(stored["token"].encode()).hexdigest()
