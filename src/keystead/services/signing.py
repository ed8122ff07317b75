"""The keys that access tokens are signed with: made, used, replaced, published.

The private half lies sealed in the database under a key of its own in the key store (compartment `signing`); destroying that one makes it
worthless. One key signs at a time. The ones before it verify until the last token they signed has ended.
"""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from keystead.api.types.base import utc, utc_or_none
from keystead.api.types.tokens import JwksView, JwkView, SigningKeyView
from keystead.core.access.tokens import SigningKey
from keystead.core.errors import Unauthenticated
from keystead.core.formats.context import key_context
from keystead.core.ids import new_id
from keystead.core.keys.signing import private_key
from keystead.core.secret import KEY_BYTES, SecretKey
from keystead.core.settings import LIMITS
from keystead.ports.keystore import Compartment
from keystead.services.auditing import record, record_system

if TYPE_CHECKING:
    from keystead.api.call import Call
    from keystead.core.access.tokens import Token
    from keystead.core.tenancy import Person
    from keystead.ports.tx import Tx
    from keystead.services.context import Services

VERIFIES_AFTER = LIMITS["access_token_lifetime"][1] + LIMITS["clock_leeway"][1]
"""How long a key that signs no more still verifies, in milliseconds: other processes may be at the highest settings there are."""
OPERATION = "Update-SigningKey"


def sign_access_token(services: Services, token: Token, person: Person, scopes: frozenset[str] | None, now: int, expires: int) -> str:
    """An access token made from a stored one (RFC 9068 section 2.2; docs/spec/tokens.md)."""
    from keystead.services.jws import sign  # noqa: PLC0415 - the library behind it is loaded by those who need it

    key = _current(services)
    claims: dict[str, str | int] = {
        "iss": services.home.issuer,
        "aud": services.home.issuer,
        "sub": person.id,
        "client_id": token.id,
        "jti": new_id(services.random),
        "sid": token.id,
        "tenant": person.tenant_id or "",
        "iat": now // 1_000,
        "exp": expires // 1_000,
    }
    if scopes is not None:
        claims["scope"] = " ".join(sorted(scopes))
    return sign(claims, key.id, _opened(services, key))


def check_signature(services: Services, token: str, key_id: str) -> None:
    """Check the signature of a token that names us as its issuer.

    Raises:
        Unauthenticated: no such key, or not a good signature.
    """
    from keystead.services.jws import verify_own  # noqa: PLC0415 - as above

    known = services.sign_in.verifying
    if key_id not in known:
        with services.db.read() as tx:
            keys = tx.sign_in.signing_keys()
        # Replaced as a whole, so that threads see the one or the other. A key that is discarded meanwhile is found out by the caller.
        known = services.sign_in.verifying = {key.id: Ed25519PublicKey.from_public_bytes(key.public_key) for key in keys}
    if key_id not in known:
        raise Unauthenticated("token_key_unknown", "the token was signed with a key that is not, or no longer, ours", "sign in again")
    verify_own(token, known[key_id])


def rotate(services: Services, call: Call, *, discard: bool) -> SigningKeyView:
    """Sign with a fresh key from now on.

    Args:
        services: the service.
        call: who asks.
        discard: make everything signed before worthless at once.
    """
    key = _made(services)
    with services.db.write() as tx:
        before = tx.sign_in.signing_keys()
        _put(services, tx, key, before, discard=discard)
        record(services, tx, call, key.id, (("Discard", str(discard).lower()), ("Replaced", ",".join(one.id for one in before))))
    services.checkpoint("signing: new key committed")
    # What is left of a crash before this: private halves that nobody uses, destroyed when their rows end, or collected as orphans.
    services.keystore.destroy(Compartment.SIGNING, [one.id for one in before])
    return _view(key)


def views(services: Services) -> list[SigningKeyView]:
    """The keys in use, newest first."""
    with services.db.read() as tx:
        return [_view(key) for key in tx.sign_in.signing_keys()]


def published(services: Services) -> JwksView:
    """The public halves of the keys in use."""
    with services.db.read() as tx:
        keys = tx.sign_in.signing_keys()
    return JwksView(keys=[JwkView(kid=key.id, x=base64.urlsafe_b64encode(key.public_key).decode().rstrip("=")) for key in keys])


def due(services: Services, tx: Tx) -> bool:
    """Whether `keep_up` has anything to do."""
    now = services.clock.now()
    return any(_ended(key, now) or _old(services, key, now) for key in tx.sign_in.signing_keys())


def keep_up(services: Services) -> None:
    """Replace a key that signed long enough, and drop those whose last token has ended. Doing it twice is harmless."""
    now = services.clock.now()
    with services.db.read() as tx:
        keys = tx.sign_in.signing_keys()
    if any(_old(services, key, now) for key in keys):
        _replace(services, keys)
    ended = [key.id for key in keys if _ended(key, now)]
    if ended:
        services.keystore.destroy(Compartment.SIGNING, ended)
        services.checkpoint("signing: ended keys destroyed")
        with services.db.write() as tx:
            tx.sign_in.remove_signing_keys(ended)


def _current(services: Services) -> SigningKey:
    """The key that signs; made when there is none."""
    with services.db.read() as tx:
        keys = tx.sign_in.signing_keys()
    return next((key for key in keys if key.ends is None), None) or _replace(services, keys)


def _replace(services: Services, seen: list[SigningKey]) -> SigningKey:
    """A fresh key in place of the one that was seen to sign, unless another process was faster: then that one's."""
    key = _made(services)
    with services.db.write() as tx:
        before = tx.sign_in.signing_keys()
        signing = next((one for one in before if one.ends is None), None)
        if signing is None or signing.id in {one.id for one in seen}:
            _put(services, tx, key, before, discard=False)
            record_system(services, tx, "", OPERATION, key.id, (("Replaced", signing.id if signing else ""),))
            unused, signing = signing, key
        else:
            unused = key
    services.checkpoint("signing: new key committed")
    if unused is not None:
        services.keystore.destroy(Compartment.SIGNING, [unused.id])
    return signing


def _made(services: Services) -> SigningKey:
    """A fresh key; the key store is written first: a crash before the commit leaves a key that no row names, which is collected."""
    key_id, material = new_id(services.random), services.random(KEY_BYTES)
    public = private_key(SecretKey(material)).public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    services.keystore.create(Compartment.SIGNING, key_id)
    services.checkpoint("signing: key store written")
    sealed = services.keystore.seal(Compartment.SIGNING, key_id, material, _context(key_id))
    return SigningKey(key_id, public, sealed, services.clock.now())


def _put(services: Services, tx: Tx, key: SigningKey, before: list[SigningKey], *, discard: bool) -> None:
    if discard:
        tx.sign_in.remove_signing_keys([one.id for one in before])
    else:
        for one in before:
            if one.ends is None:
                tx.sign_in.retire_signing_key(one.id, services.clock.now() + VERIFIES_AFTER)
    tx.sign_in.insert_signing_key(key)


def _opened(services: Services, key: SigningKey) -> Ed25519PrivateKey:
    """The private half; the one that signs stays in memory."""
    held = services.sign_in.signer
    if held is None or held[0] != key.id:
        secret = SecretKey(services.keystore.open(Compartment.SIGNING, key.id, key.sealed, _context(key.id)))
        held = services.sign_in.signer = (key.id, private_key(secret))
    return held[1]


def _context(key_id: str) -> bytes:
    return key_context("provider", "signing-key", key_id, "keystore", 1).encode()


def _ended(key: SigningKey, now: int) -> bool:
    return key.ends is not None and key.ends <= now


def _old(services: Services, key: SigningKey, now: int) -> bool:
    return key.ends is None and now - key.created >= services.settings.signing_key_lifetime


def _view(key: SigningKey) -> SigningKeyView:
    return SigningKeyView(id=key.id, signs=key.ends is None, created=utc(key.created), ends=utc_or_none(key.ends))
