"""A key released on the word of a real attestation service: its metadata and keys over TLS, as such services publish them."""

from __future__ import annotations

import base64
import datetime as dt
import ssl
import threading
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, load_der_private_key
from cryptography.x509.oid import NameOID

from contracts.issuers.test_oidc import Fake, serving
from keystead.core.configuration import VaultConfig
from keystead.core.errors import KeysteadError
from keystead.core.settings import Settings
from keystead.core.vaults.release import release_policy
from keystead.core.vaults.usage import key_kind
from keystead.vault import keys, release
from keystead.vault.operations import Place
from keystead.vault.services import identity_of
from keystead.wiring import _authorities
from support.enclave import Enclave, answer_of, policy_document
from support.tokens import Issuer
from vault.world import ALEX, World

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

V = "ContosoVault1"
SIGNING = rsa.generate_private_key(65_537, 2_048)


def certificate() -> str:
    """The service's key as it gives it: in a certificate, base64 of DER."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "attest.contoso.example")])
    begins = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(SIGNING.public_key())
        .serial_number(1)
        .not_valid_before(begins)
        .not_valid_after(begins + dt.timedelta(days=365))
        .sign(SIGNING, SHA256())
    )
    return base64.b64encode(made.public_bytes(Encoding.DER)).decode()


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Fake]:
    """An attestation service on loopback; its certificate authority is in `ca.pem`."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    fake = Fake()
    server = serving(fake, context)
    fake.issuer = f"https://127.0.0.1:{server.server_address[1]}"
    fake.answers["/.well-known/openid-configuration"] = {"issuer": fake.issuer, "jwks_uri": f"{fake.issuer}/certs"}
    fake.answers["/certs"] = {"keys": [{"kty": "RSA", "kid": "one", "use": "sig", "x5c": [certificate()]}]}
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield fake
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def world(tmp_path: Path, service: Fake) -> Iterator[World]:
    made = World(tmp_path)
    config = VaultConfig(release_authorities=(service.issuer,), release_ca_file="ca.pem")
    made.vault = replace(made.vault, authorities=_authorities(config, tmp_path, replace(Settings(), issuer_timeout=20_000), made.clock))
    made.new_vault(sku="premium")
    made.grant("get,release", upn=ALEX)
    policy = release_policy(policy_document(name=service.issuer))
    wanted = keys.Wanted(exportable=True, release_policy=policy.text)
    keys.created(made.vault, identity_of(made.call()), V, "exported", lambda: key_kind("EC-HSM", None, None), wanted)
    yield made
    made.close()


def released(world: World, service: Fake, enclave: Enclave) -> str:
    token = Issuer(service.issuer, "RS256", {"one": SIGNING}).token(enclave.claims(iss=service.issuer))
    return release.release(world.vault, identity_of(world.call()), Place(V, "exported", None), token)


def test_a_key_is_released_on_the_word_of_a_service_that_publishes_its_key_in_a_certificate(world: World, service: Fake) -> None:
    enclave = Enclave()
    answer = released(world, service, enclave)
    assert answer_of(answer)["response"]["key"]["key"]["kty"] == "EC-HSM"
    private = load_der_private_key(enclave.opened(answer), None)
    assert isinstance(private, ec.EllipticCurvePrivateKey)
    assert service.asked == ["/.well-known/openid-configuration", "/certs"]


@pytest.mark.parametrize(
    ("path", "given", "code"),
    [
        ("/certs", {"keys": [{"kty": "RSA", "kid": "one", "x5c": ["AAAA"]}]}, "attestation_refused"),
        ("/certs", {"keys": [{"kty": "RSA", "kid": "two", "x5c": [certificate()]}]}, "attestation_refused"),
        ("/certs", {"keys": [{"kty": "RSA", "kid": "one", "x5c": []}]}, "attestation_refused"),
        ("/certs", (302, b""), "release_authority_unavailable"),
        ("/certs", (200, b" " * 300_000), "release_authority_unavailable"),
        ("/.well-known/openid-configuration", {"issuer": "https://other.contoso.example"}, "release_authority_unavailable"),
    ],
    ids=["no certificate", "another key", "an empty chain", "a redirect", "too long", "another issuer"],
)
def test_what_a_service_may_answer_that_releases_nothing(world: World, service: Fake, path: str, given: object, code: str) -> None:
    service.answers[path] = given
    with pytest.raises(KeysteadError) as refused:
        released(world, service, Enclave())
    assert refused.value.code == code


def test_a_service_whose_certificate_nobody_vouches_for_is_not_believed(world: World, service: Fake, tmp_path: Path) -> None:
    trustme.CA().cert_pem.write_to_path(tmp_path / "ca.pem")
    with pytest.raises(KeysteadError) as refused:
        released(world, service, Enclave())
    assert refused.value.code == "release_authority_unavailable"
    assert service.asked == []
