"""Forged, stolen and outlived access tokens of a vault's clients (R-038): each is refused, and none becomes anybody else."""

from __future__ import annotations

import hashlib
import hmac
import json
import os
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from keystead.api.types import vault_clients as c
from keystead.core.errors import KeysteadError, Unauthenticated
from keystead.core.secret import SecretKey
from keystead.core.vaults.access import client
from keystead.ports.clock import MINUTE
from keystead.vault import clients, tokens
from keystead.vault.services import Identity, open_vault
from support.tokens import jwt, parts, public_jwk, signer
from vault.world import OTHER_TENANT, SEAL, STRANGER, TENANT, World

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from keystead.api.types.vault_clients import ClientSecretShown
    from keystead.vault.services import VaultServices

RESOURCE = "https://127.0.0.1:4711"


class Scene:
    """A client of one tenant and one of another, a token of the first, and the key it was signed with, as its thief would have it."""

    def __init__(self, folder: Path) -> None:
        self.world = World(folder)
        self.mine = clients.create(self.world.vault, self.world.call(), c.ClientCreate(name="mine"))
        self.theirs = clients.create(self.world.vault, self.world.call(STRANGER, OTHER_TENANT), c.ClientCreate(name="theirs"))
        self.token = self.signed_in(self.mine)
        self.header, self.claims, self.signature = parts(self.token)
        held = self.world.vault.tokens.signer
        assert held is not None
        self.key: rsa.RSAPrivateKey = held[1]

    def signed_in(self, made: ClientSecretShown) -> str:
        who = Identity(client(made.id), made.tenant_id, "192.0.2.9", request_uri="https://127.0.0.1:1/oauth2/v2.0/token")
        found = tokens.authenticate(self.world.vault, who, made.client_secret)
        return tokens.issue(self.world.vault, found, RESOURCE, made.tenant_id)

    def code(self, token: str, vault: VaultServices | None = None) -> str:
        try:
            tokens.verify(vault or self.world.vault, token, RESOURCE)
        except Unauthenticated as error:
            return error.code
        return ""

    def stolen(self, header: dict[str, Any] | None = None, **changed: Any) -> str:
        """Rightly signed, with other claims; None takes one away."""
        claims = {name: value for name, value in (self.claims | changed).items() if value is not None}
        return jwt(self.header | (header or {}), claims, signer(self.key, "RS256"))


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    made = Scene(tmp_path)
    yield made
    made.world.close()


def test_the_key_in_the_thiefs_hands_is_the_real_one(scene: Scene) -> None:
    assert scene.code(scene.token) == ""
    assert scene.code(scene.stolen(jti=scene.theirs.id)) == ""


@pytest.mark.parametrize(
    "algorithm", ["none", "None", "", "HS256", "HS512", "RS384", "RS512", "PS256", "ES256", "EdDSA", "rs256", "RSA-OAEP"]
)
def test_no_other_algorithm_is_taken(scene: Scene, algorithm: str) -> None:
    header = scene.header | {"alg": algorithm}
    public = scene.key.public_key()
    secrets = [public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo), json.dumps(public_jwk(scene.key)).encode(), b""]
    forged = [jwt(header, scene.claims, partial(_mac, secret)) for secret in secrets]
    forged += [
        jwt(header, scene.claims, b""),
        jwt(header, scene.claims, scene.signature),
        jwt(header, scene.claims, signer(scene.key, algorithm)),
    ]
    assert {scene.code(token) for token in forged} == {"token_invalid"}


def _mac(secret: bytes, message: bytes) -> bytes:
    return hmac.digest(secret, message, hashlib.sha256)


def test_a_key_in_the_token_is_not_looked_at(scene: Scene) -> None:
    own = rsa.generate_private_key(65_537, 2_048)
    for more in (
        {"jwk": public_jwk(own)},
        {"jku": "https://attacker.example/keys"},
        {"x5u": "https://attacker.example/cert"},
        {"x5c": ["AAAA"]},
        {"crit": ["exp"]},
        {"b64": False},
        {"kid": "../../etc/passwd"},
        {"kid": "' OR 1=1 --"},
        {"kid": scene.header["kid"].upper()},
        {"kid": scene.theirs.id},
        {"kid": None},
        {"kid": [scene.header["kid"]]},
        {"typ": "at+jwt"},
        {"cty": "JWT"},
    ):
        assert scene.code(jwt(scene.header | more, scene.claims, signer(own, "RS256"))) == "token_invalid", more
        assert scene.code(jwt(scene.header | more, scene.claims, signer(scene.key, "RS256"))) == "token_invalid", more


@pytest.mark.parametrize(
    "changed",
    [
        {"tid": OTHER_TENANT},
        {"tid": OTHER_TENANT, "iss": f"https://login.invalid/{OTHER_TENANT}/v2.0"},
        {"iss": f"https://login.invalid/{OTHER_TENANT}/v2.0"},
        {"iss": f"http://login.invalid/{TENANT}/v2.0"},
        {"aud": [RESOURCE]},
        {"aud": RESOURCE.upper()},
        {"aud": RESOURCE + "/"},
        {"aud": ""},
        {"aud": None},
        {"sub": None},
        {"sub": "theirs"},
        {"oid": "theirs"},
        {"azp": "theirs"},
        {"appid": "theirs"},
        {"azp": ["theirs"]},
        {"exp": None},
        {"exp": 2**60},
        {"exp": True},
        {"exp": "9999999999"},
        {"exp": 1e300},
        {"nbf": None},
        {"nbf": -1},
        {"ver": "1.0"},
        {"roles": ["admin"]},
        {"scp": "*"},
        {"jti": None},
    ],
)
def test_even_with_the_signing_key_a_token_names_one_client_in_its_own_tenant(scene: Scene, changed: dict[str, Any]) -> None:
    theirs = {"theirs": scene.theirs.id, "['theirs']": [scene.theirs.id]}
    filled: dict[str, Any] = {name: theirs.get(str(value), value) for name, value in changed.items()}
    assert scene.code(scene.stolen(None, **filled)) == "token_invalid"


def test_parts_that_are_cut_doubled_or_spelled_otherwise(scene: Scene) -> None:
    header, claims, signature = scene.token.split(".")
    for token in (
        f"{header}.{claims}",
        f"{header}.{claims}.",
        f"{header}.{claims}.{signature}.",
        f"{header}.{claims}.{signature}=",
        f"{header}.{claims}.{signature}A",
        f"{header}..{signature}",
        f".{claims}.{signature}",
        f"{header}.{claims}.{signature[:-1]}",
        f"{header}\n.{claims}.{signature}",
        f"{header}.{claims}. {signature}",
        jwt(
            b'{"alg":"none","alg":"RS256","typ":"JWT","kid":"%s"}' % scene.header["kid"].encode(), scene.claims, signer(scene.key, "RS256")
        ),
        jwt(scene.header, b'{"a":' * 5_000, signer(scene.key, "RS256")),
        "A" * 8_193,
    ):
        assert scene.code(token) == "token_invalid", token[:64]


def test_a_signing_key_that_ended_or_was_taken_away_proves_nothing_in_any_process(scene: Scene) -> None:
    """Who stole a key that was replaced since is not believed for as long as some process happens to run."""
    world = scene.world
    beside = open_vault(world.store, SecretKey(SEAL), world.clock, os.urandom)
    try:
        assert scene.code(scene.token, beside) == ""
        world.clock.time += world.vault.settings.token_key_lifetime
        assert parts(scene.signed_in(scene.mine))[0]["kid"] != scene.header["kid"]
        world.clock.time += tokens.VERIFIES_AFTER + MINUTE
        now = world.clock.now() // 1_000
        forged = [scene.stolen(iat=now, nbf=now, exp=now + 3_600, jti=one) for one in (scene.mine.id, scene.theirs.id)]
        assert scene.code(forged[0], beside) == "token_invalid"
        tokens.keep_up(world.vault)
        assert [scene.code(token, vault) for token in forged for vault in (beside, world.vault)] == ["token_invalid"] * 4
    finally:
        beside.journal.close()


def test_a_token_outlives_neither_its_client_nor_its_end(scene: Scene) -> None:
    world = scene.world
    beside = open_vault(world.store, SecretKey(SEAL), world.clock, os.urandom)
    try:
        other = scene.signed_in(scene.theirs)
        assert scene.code(scene.token, beside) == scene.code(other, beside) == ""
        clients.delete(world.vault, world.call(), c.ClientNamed(client=scene.mine.id))
        clients.create(world.vault, world.call(), c.ClientCreate(name="mine"))
        assert scene.code(scene.token, beside) == scene.code(scene.token) == "token_invalid"
        world.clock.time += world.vault.settings.client_token_lifetime - 1
        assert scene.code(other, beside) == ""
        world.clock.time += 1
        assert scene.code(other, beside) == scene.code(other) == "token_expired"
    finally:
        beside.journal.close()


def test_published_keys_have_no_private_member(scene: Scene) -> None:
    published = tokens.key_set(scene.world.vault)
    assert [set(one) for one in published] == [{"kty", "use", "alg", "kid", "n", "e"}]
    assert published[0]["n"] == public_jwk(scene.key)["n"]


def test_whoever_knows_a_clients_id_does_not_lock_it_out(scene: Scene) -> None:
    """Not from the client's own address either, as behind one translator of addresses, nor right after the process started."""
    world = scene.world
    beside = open_vault(world.store, SecretKey(SEAL), world.clock, os.urandom)

    def sign_in(secret: str, address: str) -> str:
        who = Identity(client(scene.mine.id), TENANT, address, request_uri="https://127.0.0.1:1/oauth2/v2.0/token")
        try:
            return tokens.authenticate(beside, who, secret).id
        except KeysteadError as error:
            return error.code

    try:
        told = [sign_in("ksc_guess", address) for _ in range(50) for address in ("192.0.2.9", "198.51.100.1")]
        assert set(told) == {"client_secret_wrong", "client_throttled"}
        assert told[-1] == "client_throttled"
        assert [sign_in(scene.mine.client_secret, address) for address in ("192.0.2.9", "198.51.100.1")] == [scene.mine.id] * 2
        assert sign_in(scene.theirs.client_secret, "192.0.2.9") == "client_throttled"
        assert sign_in("", "192.0.2.9") == "client_throttled"
    finally:
        beside.journal.close()
