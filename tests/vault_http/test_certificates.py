"""The private certificate authority of `keystead vault serve`."""

from __future__ import annotations

import datetime as dt
import ssl
from typing import TYPE_CHECKING

import pytest
from cryptography import x509

from keystead.adapters.certificates import server_certificate
from keystead.core.errors import IntegrityFailure

if TYPE_CHECKING:
    from pathlib import Path

NOW = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
NAMES = ["127.0.0.1", "::1", "localhost"]


def read(file: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate(file.read_bytes())


def test_an_authority_is_made_once_and_signs_for_the_names(tmp_path: Path) -> None:
    made = server_certificate(tmp_path / "tls", [*NAMES, "*.vault.contoso.example"], NOW)
    authority, server = read(made.ca_file), read(made.certificate_file)
    server.verify_directly_issued_by(authority)
    names = server.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["localhost", "*.vault.contoso.example"]
    assert [str(one) for one in names.get_values_for_type(x509.IPAddress)] == ["127.0.0.1", "::1"]
    assert not server.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert authority.extensions.get_extension_for_class(x509.BasicConstraints).value.path_length == 0
    assert (authority.not_valid_after_utc - NOW, server.not_valid_after_utc - NOW) == (dt.timedelta(days=3_650), dt.timedelta(days=365))
    ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(made.certificate_file, made.key_file)
    for key in (made.key_file, tmp_path / "tls" / "ca.key", tmp_path / "tls"):
        assert key.stat().st_mode & 0o077 == 0


def test_a_certificate_is_renewed_near_its_end_or_for_other_names_and_the_authority_stays(tmp_path: Path) -> None:
    folder = tmp_path / "tls"
    made = server_certificate(folder, NAMES, NOW)
    authority, first = made.ca_file.read_bytes(), made.certificate_file.read_bytes()
    server_certificate(folder, NAMES, NOW + dt.timedelta(days=334))
    assert made.certificate_file.read_bytes() == first
    server_certificate(folder, NAMES, NOW + dt.timedelta(days=336))
    second = made.certificate_file.read_bytes()
    assert second != first
    server_certificate(folder, [*NAMES, "*.vault.contoso.example"], NOW + dt.timedelta(days=336))
    assert made.certificate_file.read_bytes() != second
    assert made.ca_file.read_bytes() == authority


def test_what_a_crash_between_key_and_certificate_leaves_is_made_anew(tmp_path: Path) -> None:
    folder = tmp_path / "tls"
    made = server_certificate(folder, NAMES, NOW)
    other = server_certificate(tmp_path / "other", NAMES, NOW)
    made.key_file.write_bytes(other.key_file.read_bytes())
    server_certificate(folder, NAMES, NOW)
    ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(made.certificate_file, made.key_file)


@pytest.mark.parametrize("damage", ["missing", "other", "ended"])
def test_a_damaged_authority_is_not_replaced_behind_its_clients_backs(tmp_path: Path, damage: str) -> None:
    folder = tmp_path / "tls"
    server_certificate(folder, NAMES, NOW)
    server_certificate(tmp_path / "other", NAMES, NOW)
    if damage == "missing":
        (folder / "ca.key").unlink()
    elif damage == "other":
        (folder / "ca.key").write_bytes((tmp_path / "other" / "ca.key").read_bytes())
    with pytest.raises(IntegrityFailure) as raised:
        server_certificate(folder, NAMES, NOW + dt.timedelta(days=3_650 if damage == "ended" else 1))
    assert raised.value.code == "tls_ca_damaged"
