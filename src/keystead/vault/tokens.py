"""Signing in with a client's secret, and the access tokens that come of it (docs/spec/vault-tokens.md; R-038).

What costs a signature check is remembered by the token's hash. Whether the client is still there is looked up on every call, or nothing has
changed since it was (`seen.py`): a client that was deleted is gone at its next call, in every process.

A token is signed with a key that lies sealed in the vault's database. One key signs at a time; those before it verify until the last token
they signed has ended. A crash while a key is replaced leaves the old one, or the new one beside the ended old one.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_der_public_key
from joserfc.errors import JoseError
from joserfc.jwk import RSAKey
from joserfc.jws import JWSRegistry, deserialize_compact, serialize_compact

from keystead.core.access.throttle import group_of
from keystead.core.access.tokens import MAX_TOKEN_BYTES
from keystead.core.errors import IntegrityFailure, Throttled, Unauthenticated
from keystead.core.ids import new_id
from keystead.core.settings import LIMITS
from keystead.core.vaults.access import client
from keystead.core.vaults.seal import token_key_context
from keystead.core.vaults.tokens import (
    ALGORITHM,
    KEY_BITS,
    TYPE,
    bad_signature,
    check_claims,
    check_standing,
    issuer_of,
    no_such_client,
    read_token,
    token_claims,
)
from keystead.core.vaults.usage import key_kind
from keystead.ports.vault_store import TokenKey
from keystead.vault.material import generate, load, private_bytes, public_bytes
from keystead.vault.record import Act, journaled
from keystead.vault.services import Identity

if TYPE_CHECKING:
    from collections.abc import Sequence

    from keystead.core.vaults.tokens import ClientClaims
    from keystead.ports.vault_store import ClientSecret, VaultClient, VaultReader
    from keystead.vault.services import VaultServices

VERIFIES_AFTER = LIMITS["vault_client_token_lifetime"][1] + LIMITS["clock_leeway"][1]
"""How long a key that signs no more still verifies, in milliseconds: other processes may be at the highest settings there are."""
AUTHENTICATION = "Authentication"
"""Operation of the log (requirements 2.12)."""


class _Registry(JWSRegistry):
    """Takes one algorithm, and headers and claims of our own size."""

    max_header_length = MAX_TOKEN_BYTES
    max_payload_length = MAX_TOKEN_BYTES

    def __init__(self) -> None:
        super().__init__(algorithms=[ALGORITHM])


# -- signing in -----------------------------------------------------------------------------------------------------------------------------


def authenticate(services: VaultServices, identity: Identity, secret: str, vault: str = "") -> VaultClient:
    """The client that a secret belongs to.

    Who fails too often waits: per address, and per client; meanwhile failures are not recorded one by one. A secret that is right is taken in
    any case: it has 256 random bits, so waiting does not make it safer, and an id is no secret, so whoever knows it could else lock its
    client out for as long as they like. Failures of clients that are there, and every success, are in the log before the answer.

    Args:
        services: the vault.
        identity: the client as it calls itself, the tenant it names, and where the call comes from.
        secret: what it shows.
        vault: name of the vault it wants to use; empty where it does not say. For the log.

    Raises:
        Unauthenticated: `client_unknown`: no such client in this tenant, or not any more; `client_secret_wrong`; `client_secret_expired`.
        Throttled: `client_throttled`: the secret is not right either, and was not recorded.
    """
    state, pace, now = services.tokens, services.settings.pace, services.clock.now()
    client_id, shown = identity.principal.name, digest_of(secret)
    names = (f"client {client_id[:64]}", *((f"address {group_of(identity.client_ip)}",) if identity.client_ip else ()))
    with services.store.reading() as tx:
        found = tx.client(identity.tenant_id, client_id)
        known = found is not None and found.id == client_id
        secrets = tx.client_secrets(identity.tenant_id, client_id) if known else []
    if found is None or not known:
        # Told apart from a wrong secret, and never made to wait: whoever deletes a client takes its access away, and a service that rides
        # out faults must hear that as the no it is. There is no secret here to be guessed, and an id cannot be: it has 122 random bits.
        raise _unknown()
    if (left := state.attempts.waiting(names, now, pace)) and not _right(secrets, shown, now):
        raise Throttled(
            "client_throttled", "too many sign-ins failed from this address, or of this client", "wait, then try again", retry_after=left
        )

    def call() -> tuple[None, str]:
        _check(secrets, shown, now)
        return None, ""

    try:
        journaled(services, identity, Act(AUTHENTICATION, vault, note="access token"), call)
    except Unauthenticated:
        state.attempts.failed(names, now, pace)
        raise
    return found


def issue(services: VaultServices, found: VaultClient, resource: str, tenant_id: str, authority: str = "https://login.invalid") -> str:
    """An access token of a client for one resource.

    Args:
        services: the vault.
        found: the client, which was authenticated.
        resource: an origin, as `core.vaults.tokens.resource_name` writes it.
        tenant_id: of the client.
        authority: address of the token endpoint without the tenant; the issuer's first part.
    """
    key = _current(services)
    now, lifetime = services.clock.now(), services.settings.client_token_lifetime
    claims = token_claims(issuer_of(authority, tenant_id), found.id, tenant_id, resource, new_id(services.random), now, lifetime)
    header = {"alg": ALGORITHM, "typ": TYPE, "kid": key.id}
    payload = json.dumps(claims, separators=(",", ":")).encode()
    return serialize_compact(header, payload, RSAKey.import_key(_opened(services, key)), registry=_Registry())


# -- taking tokens --------------------------------------------------------------------------------------------------------------------------


def verify(services: VaultServices, token: str, resource: str, came: float | None = None) -> Identity:
    """Who a token names, for calls to a resource. The caller adds where the call comes from.

    Args:
        services: of the vault.
        token: as it came.
        resource: what it must be for.
        came: when the call did: see `Stamps.current`.

    Raises:
        Unauthenticated: `token_missing`, `token_invalid`, `token_expired`, `token_audience_wrong` (R-038).
    """
    digest = digest_of(token)
    claims = services.tokens.known.get(digest) if token else None
    if claims is None:
        claims = _proven(services, token)
        services.tokens.known.put(digest, claims)
    check_standing(claims, resource, services.clock.now(), services.settings.clock_leeway)
    stamp = services.stamps.current(came)
    identity = services.clients.get(stamp, claims.client_id)
    if identity is None:
        with services.store.reading() as tx:
            found, stamp = tx.client_of_anyone(claims.client_id), tx.stamp()
        if found is not None:
            identity = Identity(client(found.id), found.tenant_id, stamp=stamp)
            services.clients.put(stamp, claims.client_id, identity)
    if identity is None or identity.tenant_id != claims.tenant_id:
        services.tokens.known.drop(digest)
        raise no_such_client()
    return identity


def _proven(services: VaultServices, token: str) -> ClientClaims:
    """What a token says, once its signature was checked, with a key that is good now: one that has ended, or was removed, proves nothing.

    Keys are read each time and not remembered: in a process that runs for months a key that was replaced would still be good.
    """
    unproven, now = read_token(token), services.clock.now()
    with services.store.reading() as tx:
        keys = tx.token_keys()
    key = next((one for one in keys if one.id == unproven.key_id and (one.ends is None or one.ends > now)), None)
    if key is None:
        raise bad_signature()
    check_signature(token, _public(key))
    return check_claims(unproven.claims)


def check_signature(token: str, key: RSAPublicKey) -> None:
    """Check the signature of a token, with RS256 and nothing else.

    Raises:
        Unauthenticated: `token_invalid`.
    """
    try:
        deserialize_compact(token, RSAKey.import_key(key), registry=_Registry())
    except (JoseError, ValueError, TypeError):
        raise bad_signature() from None


# -- the keys -------------------------------------------------------------------------------------------------------------------------------


def key_set(services: VaultServices) -> list[dict[str, str]]:
    """The public keys that tokens may be signed with, as JSON Web Keys (RFC 7517, RFC 7518 section 6.3.1); one is made where there is none."""
    _current(services)
    now = services.clock.now()
    with services.store.reading() as tx:
        keys = [key for key in tx.token_keys() if key.ends is None or key.ends > now]
    return [_jwk(key) for key in keys]


def keep_up(services: VaultServices) -> None:
    """Replace a key that has signed long enough, and drop those whose last token has ended. Doing it twice is harmless."""
    now = services.clock.now()
    with services.store.reading() as tx:
        keys = tx.token_keys()
    if any(_old(services, key, now) for key in keys):
        _replace(services, keys)
    if any(key.ends is not None and key.ends <= now for key in keys):
        with services.store.writing() as tx:
            tx.remove_token_keys(now)


def _current(services: VaultServices) -> TokenKey:
    """The key that signs; made where there is none, and replaced where it is old."""
    now = services.clock.now()
    with services.store.reading() as tx:
        keys = tx.token_keys()
    signing = next((key for key in keys if key.ends is None and not _old(services, key, now)), None)
    return signing or _replace(services, keys)


def _replace(services: VaultServices, seen: Sequence[TokenKey]) -> TokenKey:
    """A fresh key in place of the one that was seen to sign, unless another process was faster: then that one's."""
    private = generate(key_kind("RSA", KEY_BITS, None))
    key_id, now = new_id(services.random), services.clock.now()
    sealed = services.seal.close_token_key(private_bytes(private), token_key_context(key_id), services.random)
    made = TokenKey(key_id, public_bytes(private), sealed, now, None)
    replaced = {key.id for key in seen}
    with services.store.writing() as tx:
        signing = _signing(tx)
        if signing is not None and signing.id not in replaced:
            return signing
        if signing is not None:
            tx.end_token_key(signing.id, now + VERIFIES_AFTER)
        tx.add_token_key(made)
    return made


def _signing(tx: VaultReader) -> TokenKey | None:
    return next((key for key in tx.token_keys() if key.ends is None), None)


def _old(services: VaultServices, key: TokenKey, now: int) -> bool:
    return key.ends is None and now - key.created >= services.settings.token_key_lifetime


def _opened(services: VaultServices, key: TokenKey) -> RSAPrivateKey:
    """The private half; that of the key that signs stays in memory, as those of the vault's keys do."""
    held = services.tokens.signer
    if held is None or held[0] != key.id:
        private = load(services.seal.open_token_key(key.sealed, token_key_context(key.id)))
        assert isinstance(private, RSAPrivateKey), "the context names a token key, and those are RSA"
        held = services.tokens.signer = (key.id, private)
    return held[1]


def _public(key: TokenKey) -> RSAPublicKey:
    found = load_der_public_key(key.public_key)
    if not isinstance(found, RSAPublicKey):
        raise IntegrityFailure("token_key_damaged", f"the token key {key.id} is no RSA key", "restore the vault database from a backup")
    return found


def _jwk(key: TokenKey) -> dict[str, str]:
    numbers = _public(key).public_numbers()
    return {"kty": "RSA", "use": "sig", "alg": ALGORITHM, "kid": key.id, "n": _base64url(numbers.n), "e": _base64url(numbers.e)}


def _base64url(number: int) -> str:
    """Base64urlUInt (RFC 7518 section 2)."""
    return base64.urlsafe_b64encode(number.to_bytes((number.bit_length() + 7) // 8, "big")).decode().rstrip("=")


# -- secrets --------------------------------------------------------------------------------------------------------------------------------


def digest_of(secret: str) -> bytes:
    """SHA-256 of a secret of 256 random bits, or of a signed token: nobody finds either from its hash, so no slower function is needed."""
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).digest()


def _right(secrets: Sequence[ClientSecret], shown: bytes, now: int) -> bool:
    """Whether `_check` lets it through."""
    try:
        _check(secrets, shown, now)
    except Unauthenticated:
        return False
    return True


def _check(secrets: Sequence[ClientSecret], shown: bytes, now: int) -> None:
    """Whether one of a client's secrets was shown. All are compared, each in constant time."""
    matching = [secret for secret in secrets if hmac.compare_digest(secret.digest, shown)]
    if not matching:
        raise _wrong()
    if all(secret.expires <= now for secret in matching):
        raise Unauthenticated("client_secret_expired", "this secret of the client has ended", "add one: keystead vault client secret add")


def _unknown() -> Unauthenticated:
    return Unauthenticated(
        "client_unknown",
        "there is no such client in this tenant",
        "keystead vault client create NAME makes one; one that was deleted stays gone",
    )


def _wrong() -> Unauthenticated:
    return Unauthenticated("client_secret_wrong", "the secret is none of this client", "see keystead vault client show")
