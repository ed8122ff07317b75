"""A private certificate authority for `keystead vault serve`: made at first start, kept in a folder of the home.

    ca.pem, ca.key               the authority: 10 years; ca.pem is what clients are given
    server.pem, server.key       the server's certificate: 1 year, renewed at a start within its last 30 days, or for other names

Keys are ECDSA P-256 and readable by their owner alone. A key is written before the certificate that names it: a crash between the two
leaves a pair that does not fit, which is noticed at the next start and made anew. The authority's key signs nothing but the certificates
here; its certificate forbids authorities below it (RFC 5280 section 4.2.1.9).
"""

from __future__ import annotations

import datetime as dt
import ipaddress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat, load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from keystead.adapters.files import write_durably
from keystead.core.errors import IntegrityFailure

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

CA_DAYS = 3_650
SERVER_DAYS = 365
RENEW_DAYS = 30
_BACKDATED = dt.timedelta(minutes=5)
"""Clocks of clients may be behind ours."""


@dataclass(frozen=True, slots=True)
class ServerCertificate:
    """Files in PEM: what the server shows, its key, and the authority its clients are to trust."""

    certificate_file: Path
    key_file: Path
    ca_file: Path


def server_certificate(folder: Path, names: Sequence[str], now: dt.datetime) -> ServerCertificate:
    """The certificate for a server's names and addresses, made or renewed where that is due.

    Args:
        folder: made where it is not there.
        names: DNS names, of which the first part may be `*`, and IP addresses.
        now: with a time zone.

    Raises:
        IntegrityFailure: `tls_ca_damaged`: the authority cannot be read, or has ended: its clients must be told of another.
        Unavailable: the disk did not take a file.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder.chmod(0o700)
    files = ServerCertificate(folder / "server.pem", folder / "server.key", folder / "ca.pem")
    if not files.ca_file.exists():
        _make_authority(files.ca_file, folder / "ca.key", now)
    authority, authority_key = _authority(files.ca_file, folder / "ca.key", now)
    if not _still_good(files, names, authority, now):
        _make_certificate(files, names, authority, authority_key, now)
    return files


def _make_authority(file: Path, key_file: Path, now: dt.datetime) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    # The serial number in the name: a client that trusts authorities of several homes can tell them apart.
    serial = x509.random_serial_number()
    name = x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Keystead"),
            x509.NameAttribute(NameOID.COMMON_NAME, f"Keystead vaults {serial % 2**64:016x}"),
        ]
    )
    made = (
        _builder(name, name, key.public_key(), serial, now, CA_DAYS)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(authority=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, SHA256())
    )
    write_durably(key_file, _pem(key))
    write_durably(file, made.public_bytes(Encoding.PEM), 0o644)


def _make_certificate(
    files: ServerCertificate,
    names: Sequence[str],
    authority: x509.Certificate,
    authority_key: ec.EllipticCurvePrivateKey,
    now: dt.datetime,
) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Keystead vaults")])
    made = (
        _builder(subject, authority.subject, key.public_key(), x509.random_serial_number(), now, SERVER_DAYS)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(authority=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName(_general_names(names)), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key()), critical=False)
        .sign(authority_key, SHA256())
    )
    write_durably(files.key_file, _pem(key))
    write_durably(files.certificate_file, made.public_bytes(Encoding.PEM), 0o644)


def _authority(file: Path, key_file: Path, now: dt.datetime) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    damaged = IntegrityFailure(
        "tls_ca_damaged",
        f"the private certificate authority in {file.parent.name} cannot be used",
        f"restore {file.parent.name} from a backup, or remove it: a new one is made, and clients must be given its ca.pem",
    )
    try:
        certificate = x509.load_pem_x509_certificate(file.read_bytes())
        key = load_pem_private_key(key_file.read_bytes(), None)
    except (OSError, ValueError):
        raise damaged from None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not _fits(certificate, key) or certificate.not_valid_after_utc <= now:
        raise damaged
    return certificate, key


def _still_good(files: ServerCertificate, names: Sequence[str], authority: x509.Certificate, now: dt.datetime) -> bool:
    """Whether the certificate that is there can be shown: it is ours, fits its key, has the names, and does not end soon."""
    try:
        certificate = x509.load_pem_x509_certificate(files.certificate_file.read_bytes())
        key = load_pem_private_key(files.key_file.read_bytes(), None)
        certificate.verify_directly_issued_by(authority)
        present = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except Exception:  # noqa: BLE001 - whatever is wrong with it, a fresh one is made
        return False
    lasts = certificate.not_valid_after_utc - now > dt.timedelta(days=RENEW_DAYS)
    return lasts and certificate.not_valid_before_utc <= now and _fits(certificate, key) and set(present) == set(_general_names(names))


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, serial: int, now: dt.datetime, days: int
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(serial)
        .not_valid_before(now - _BACKDATED)
        .not_valid_after(now + dt.timedelta(days=days))
    )


def _general_names(names: Sequence[str]) -> list[x509.GeneralName]:
    found: list[x509.GeneralName] = []
    for name in names:
        try:
            found.append(x509.IPAddress(ipaddress.ip_address(name)))
        except ValueError:
            found.append(x509.DNSName(name))
    return found


def _key_usage(*, authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=authority,
        crl_sign=authority,
        encipher_only=False,
        decipher_only=False,
    )


def _fits(certificate: x509.Certificate, key: object) -> bool:
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        return False
    form = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return certificate.public_key().public_bytes(*form) == key.public_key().public_bytes(*form)


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
