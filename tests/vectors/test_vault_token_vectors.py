"""Access tokens of vaults' clients, byte for byte (docs/spec/vault-tokens.md); checked by somebody else's RSA too."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from Crypto.Hash import SHA256
from Crypto.PublicKey import RSA
from Crypto.Signature import pkcs1_15
from joserfc.jwk import RSAKey

from keystead.core.errors import Unauthenticated
from keystead.core.vaults.tokens import check_claims, check_standing, read_token
from keystead.vault.tokens import check_signature

VECTORS = json.loads((Path(__file__).parent / "vault_tokens.json").read_text())


def number(text: str) -> int:
    return int.from_bytes(base64.urlsafe_b64decode(text + "=="), "big")


def accepted(token: str) -> dict[str, Any]:
    """What is done with a token, in the order in which it is done, as far as it needs no look at anything."""
    unproven = read_token(token)
    assert unproven.key_id == VECTORS["key"]["kid"]
    key = RSAKey.import_key(VECTORS["key"]).public_key
    check_signature(token, key)
    check_standing(check_claims(unproven.claims), VECTORS["resource"], VECTORS["now"], VECTORS["leeway"])
    return dict(unproven.claims)


@pytest.mark.parametrize("case", VECTORS["valid"], ids=lambda case: case["name"])
def test_R_038_this_token_says_this(case: Any) -> None:
    assert accepted(case["token"]) == case["claims"]


@pytest.mark.parametrize("case", VECTORS["valid"], ids=lambda case: case["name"])
def test_another_library_verifies_it(case: Any) -> None:
    message, _dot, signature = case["token"].rpartition(".")
    key = RSA.construct((number(VECTORS["key"]["n"]), number(VECTORS["key"]["e"])))
    pkcs1_15.new(key).verify(SHA256.new(message.encode()), base64.urlsafe_b64decode(signature + "=="))


@pytest.mark.parametrize("case", VECTORS["invalid"], ids=lambda case: case["name"])
def test_R_038_these_tokens_are_refused_for_this_reason(case: Any) -> None:
    with pytest.raises(Unauthenticated) as caught:
        accepted(case["token"])
    assert caught.value.code == case["code"]
