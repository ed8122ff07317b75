"""Giving an exportable key to an environment that an authority vouches for (docs/spec/key-release.md), and random bytes.

The one way for private material out of a vault: a key that was made exportable, to an environment its policy describes, wrapped so that
only that environment can open it. Every other key stays (R-025). Steps are numbered as in the specification.
"""

from __future__ import annotations

import json
from base64 import b64encode
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID
from joserfc.jwk import RSAKey
from joserfc.jws import JWSRegistry, serialize_compact

from keystead.api.types.base import utc
from keystead.core.errors import Forbidden, IntegrityFailure, InvalidRequest, PreconditionFailed
from keystead.core.ids import new_id
from keystead.core.vaults import jwk
from keystead.core.vaults import release as rules
from keystead.core.vaults.access import Permission
from keystead.core.vaults.limits import LOOK, using
from keystead.core.vaults.seal import release_key_context
from keystead.core.vaults.uri import KeyUri
from keystead.core.vaults.usage import key_kind
from keystead.ports.clock import DAY, HOUR
from keystead.ports.vault_store import ReleaseKey
from keystead.vault.attestation import read_attestation, verified_claims
from keystead.vault.guard import admitted
from keystead.vault.loaded import open_private
from keystead.vault.lookup import find_key, find_vault, level, need, need_working_subscription
from keystead.vault.material import generate, load, private_bytes
from keystead.vault.record import Act, journaled
from keystead.vault.views import KeyShown, key_uri

if TYPE_CHECKING:
    from keystead.ports.vault_store import KeyVersion, Vault, VaultReader
    from keystead.vault.operations import Place
    from keystead.vault.services import Identity, VaultServices

ALGORITHM = "RS256"
SIGNING_BITS = 2_048
CERTIFICATE_LIFE = 5 * 365 * DAY
RENEWED_BEFORE = 90 * DAY
"""A key whose certificate ends sooner than that signs no more: who checks an answer later than today finds it still good."""
MAX_RANDOM_BYTES = 128


# -- release --------------------------------------------------------------------------------------------------------------------------


def release(
    services: VaultServices,
    identity: Identity,
    place: Place,
    target: str,
    nonce: str | None = None,
    enc: str | None = None,
    base_url: str = "",
) -> str:
    """Release a key to the environment that an attestation token describes.

    Args:
        services: the vault.
        identity: who calls.
        place: which key.
        target: the attestation token.
        nonce: comes back in the signed answer.
        enc: how the key is wrapped; see `core.vaults.release.Wrapping`.
        base_url: address of the vault as it was called, for the identifiers in the answer; the service's own where it is empty.

    Returns:
        A compact JWS (RFC 7515) over request and response, signed by a key of the vault whose certificates it carries.

    Raises:
        InvalidRequest: `attestation_invalid`, `algorithm_not_supported`, `nonce_invalid`.
        NotFound: no such vault, key or version, or it is deleted.
        Forbidden: the caller does not hold release; `key_not_exportable`; the token is not good (`attestation_refused`), is of an authority
            that is not listed (`release_authority_not_allowed`), or does not meet the policy (`release_policy_not_met`,
            `release_key_unattested`).
        PreconditionFailed: `key_disabled`, `key_not_yet_valid`, `key_expired`; `subscription_cancelled`.
        Unavailable: `release_authority_unavailable`; the store does not answer, or the log record could not be written.
    """

    def call() -> tuple[str, str]:
        # (1) The caller, then the key, before anything of the token is looked at.
        with services.store.reading() as tx:
            found, version, policy = _releasable(services, identity, place, tx)
            admitted(services, identity, found, using(version.kty, version.size))
        # (2) What is asked for can be understood.
        way, echoed = rules.wrapping(enc), rules.checked_nonce(nonce)
        unverified = read_attestation(target)
        # (3) The key's owner named the authority in the policy, the operator named it in the settings, and it has signed the token.
        if not policy.names(unverified.issuer):
            rules.check_release(policy, unverified.issuer, {})  # raises, without asking anybody anything
        claims = verified_claims(services.authorities, target, unverified, services.clock.now(), services.settings.clock_leeway)
        # (4) The environment is one the key may be given to, and has a key of its own.
        recipient = rules.environment_key(claims)
        signing = _signing_key(services)
        # (5) The authority took its time to answer: permission, key and policy are looked at again, as they are now, with the private key.
        with services.store.reading() as tx:
            found, version, policy = _releasable(services, identity, place, tx)
            rules.check_release(policy, unverified.issuer, claims)
            pkcs8 = open_private(services, tx, found, version)
        # (6) Wrapped for that environment alone, and signed, so that it can tell that it came from here for its own question.
        wrapped = rules.wrap_released(pkcs8, recipient, way, services.random)
        answer = _answer(services, identity, found, version, policy, wrapped, way, echoed, base_url, named=place.version is not None)
        return _signed(services, signing, answer), key_uri(found, version, services.settings.uri_suffix)

    # (7) Nothing leaves before its record is durable.
    return journaled(services, identity, Act("KeyRelease", place.vault, place.name, place.version), call)


def _releasable(
    services: VaultServices, identity: Identity, place: Place, tx: VaultReader
) -> tuple[Vault, KeyVersion, rules.ReleasePolicy]:
    """A key version that may be released to somebody now, and to whom."""
    now = services.clock.now()
    found = find_vault(tx, identity, place.vault, now)
    need(tx, identity, found, Permission.RELEASE)
    need_working_subscription(found.subscription)
    version = find_key(tx, found, place.name, place.version, now)
    name = key_uri(found, version, services.settings.uri_suffix)
    policy = rules.read_policy(version.release_policy)
    if not version.exportable or policy is None:
        raise Forbidden(
            "key_not_exportable", f"the key {name} was not made exportable: it never leaves the vault", "use the key where it is"
        )
    if not version.enabled:
        raise PreconditionFailed("key_disabled", f"the key {name} is disabled", "enable it: keystead key enable VAULT NAME")
    if version.not_before is not None and now < version.not_before:
        raise PreconditionFailed("key_not_yet_valid", f"the key {name} is not yet active", "wait for its activation date or change it")
    if version.expires is not None and now >= version.expires:
        raise PreconditionFailed("key_expired", f"the key {name} has expired", "give it a later expiry date")
    return found, version, policy


def _answer(
    services: VaultServices,
    identity: Identity,
    found: Vault,
    version: KeyVersion,
    policy: rules.ReleasePolicy,
    wrapped: bytes,
    way: rules.Wrapping,
    nonce: str | None,
    base_url: str,
    *,
    named: bool,
) -> dict[str, Any]:
    """Request and response, with the names and shapes that programs in such environments read."""
    suffix = services.settings.uri_suffix
    base = KeyUri(found.name, version.key.name).text(suffix) if not base_url else f"{base_url.rstrip('/')}/keys/{version.key.name}"
    kid = f"{base}/{version.version}"
    token = {
        "schema_version": "1.0",
        "header": {"kid": rules.KEY_ID, "alg": "dir", "enc": str(way)},
        "ciphertext": jwk.encode(wrapped),
    }
    key = {
        "kid": kid,
        "kty": str(version.kty),
        "key_ops": sorted(version.key_ops),
        **jwk.public_members(version.public_key),
        "key_hsm": jwk.encode(json.dumps(token, separators=(",", ":")).encode()),
    }
    attributes: dict[str, Any] = {
        "enabled": version.enabled,
        **({} if version.not_before is None else {"nbf": version.not_before // 1_000}),
        **({} if version.expires is None else {"exp": version.expires // 1_000}),
        "created": version.created // 1_000,
        "updated": version.updated // 1_000,
        "recoveryLevel": str(level(found, services.clock.now())),
        "recoverableDays": found.retention_days,
        "exportable": True,
    }
    return {
        "request": {
            "api-version": identity.api_version,
            "enc": str(way),
            "kid": kid if named else base,
            **({} if nonce is None else {"nonce": nonce}),
        },
        "response": {"key": {"key": key, "attributes": attributes, "tags": version.tags, "release_policy": policy.shown}},
    }


# -- what answers are signed with -----------------------------------------------------------------------------------------------------


class _Registry(JWSRegistry):
    """Takes one algorithm, with headers that carry certificates."""

    max_header_length = 64 * 1_024
    max_payload_length = 256 * 1_024

    def __init__(self) -> None:
        super().__init__(algorithms=[ALGORITHM])


def _signed(services: VaultServices, signing: ReleaseKey, answer: dict[str, Any]) -> str:
    private = load(services.seal.open_release_key(signing.sealed, release_key_context(signing.id)))
    certificates = [certificate.public_bytes(Encoding.DER) for certificate in _certificates(signing)]
    header = {"alg": ALGORITHM, "typ": "JWT", "kid": signing.id, "x5c": [_base64(certificate) for certificate in certificates]}
    payload = json.dumps(answer, separators=(",", ":"), ensure_ascii=False).encode()
    assert isinstance(private, rsa.RSAPrivateKey), "the context names a release key, and those are RSA"
    return serialize_compact(header, payload, RSAKey.import_key(private), registry=_Registry())


def _signing_key(services: VaultServices) -> ReleaseKey:
    """The key answers are signed with; made where there is none, or where its certificate ends soon."""
    with services.store.reading() as tx:
        present = _present(services, tx.release_keys())
    if present is not None:
        return present
    private, (leaf, root) = _chain(services)
    key_id, now = new_id(services.random), services.clock.now()
    sealed = services.seal.close_release_key(private_bytes(private), release_key_context(key_id), services.random)
    made = ReleaseKey(key_id, leaf.public_bytes(Encoding.DER) + root.public_bytes(Encoding.DER), sealed, now, now + CERTIFICATE_LIFE)
    with services.store.writing() as tx:
        present = _present(services, tx.release_keys())  # another process may have been faster: then its key is used
        if present is None:
            tx.add_release_key(made)
    return present or made


def _present(services: VaultServices, keys: list[ReleaseKey]) -> ReleaseKey | None:
    soon = services.clock.now() + RENEWED_BEFORE
    return next((key for key in keys if key.ends > soon), None)


def _chain(services: VaultServices) -> tuple[rsa.RSAPrivateKey, tuple[x509.Certificate, x509.Certificate]]:
    """A signing key, its certificate, and the root's, which signed that.

    The root's private key is forgotten at once: it never signs anything else, so who knows the root's certificate knows all that it ever
    vouched for.
    """
    begins, ends = utc(services.clock.now() - HOUR), utc(services.clock.now() + CERTIFICATE_LIFE)
    root_key, leaf_key = _rsa(), _rsa()
    root_name, leaf_name = _name("Keystead vault release root"), _name("Keystead vault release")

    def builder(subject: x509.Name, key: rsa.RSAPrivateKey) -> x509.CertificateBuilder:
        # RFC 5280 section 4.1.2.2: positive, at most 20 octets.
        serial = int.from_bytes(b"\x01" + services.random(15), "big")
        return (
            x509.CertificateBuilder(serial_number=serial)
            .subject_name(subject)
            .issuer_name(root_name)
            .public_key(key.public_key())
            .not_valid_before(begins.replace(microsecond=0))
            .not_valid_after(ends.replace(microsecond=0) + timedelta(seconds=1))
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(root_key.public_key()), critical=False)
        )

    root = (
        builder(root_name, root_key)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
    )
    leaf = (
        builder(leaf_name, leaf_key)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
    )
    return leaf_key, (leaf.sign(root_key, SHA256()), root.sign(root_key, SHA256()))


def _rsa() -> rsa.RSAPrivateKey:
    made = generate(key_kind("RSA", SIGNING_BITS, None))
    assert isinstance(made, rsa.RSAPrivateKey), "asked for RSA"
    return made


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _certificates(signing: ReleaseKey) -> list[x509.Certificate]:
    """DER certificates that lie one after the other: each says how long it is (X.690 section 8.1.3)."""
    found, data = [], signing.certificates
    try:
        while data:
            octets = data[1] & 0x7F if data[1] & 0x80 else 0
            end = 2 + octets + (int.from_bytes(data[2 : 2 + octets], "big") if octets else data[1])
            found.append(x509.load_der_x509_certificate(data[:end]))
            data = data[end:]
    except (IndexError, ValueError):
        raise IntegrityFailure(
            "release_key_damaged", "the certificates of a key for releases cannot be read", "restore the vault database from a backup"
        ) from None
    return found


def _base64(data: bytes) -> str:
    """RFC 7515 section 4.1.6: `x5c` is base64 with padding, not base64url."""
    return b64encode(data).decode()


# -- random bytes and attestation of keys ---------------------------------------------------------------------------------------------


def random_bytes(services: VaultServices, identity: Identity, vault_name: str, count: int) -> bytes:
    """Bytes straight from the operating system's generator. Takes the permission get: whoever may see the keys' public halves.

    Raises:
        InvalidRequest: `count_invalid`: not 1 to 128.
        NotFound: no such vault.
        Forbidden: the caller does not hold get.
    """

    def call() -> tuple[bytes, str]:
        with services.store.reading() as tx:
            found = find_vault(tx, identity, vault_name, services.clock.now())
            need(tx, identity, found, Permission.GET)
            admitted(services, identity, found, LOOK)
        if not 1 <= count <= MAX_RANDOM_BYTES:
            raise InvalidRequest("count_invalid", f"{count} bytes were asked for", f"ask for 1 to {MAX_RANDOM_BYTES}")
        return services.random(count), ""

    return journaled(services, identity, Act("RandomBytesGet", vault_name), call)


def attested(services: VaultServices, identity: Identity, place: Place) -> KeyShown:
    """A key as `get` shows it, for who asks for its attestation too. There is none: nothing but software vouches for these keys.

    Raises:
        NotFound: no such vault, key or version.
        Forbidden: the caller does not hold get.
    """

    def call() -> tuple[KeyShown, str]:
        now = services.clock.now()
        with services.store.reading() as tx:
            found = find_vault(tx, identity, place.vault, now)
            need(tx, identity, found, Permission.GET)
            admitted(services, identity, found, LOOK)
            shown = KeyShown(found, find_key(tx, found, place.name, place.version, now), now, services.settings.uri_suffix)
        return shown, shown.id

    return journaled(services, identity, Act("KeyGetAttestation", place.vault, place.name, place.version), call)
