"""The keys of OpenID Connect providers: discovery and JSON Web Key Sets over HTTP (implements ports.issuers.Issuers).

Only issuers of the operator's list are asked, at the address the issuer itself is, over TLS; redirects are not followed, answers are short,
and what an answer names is asked only at the issuer's own host or one the operator lists. A token can make us ask an issuer, never more
often than once a minute, and never anybody else.
"""

from __future__ import annotations

import json
import ssl
import time
from base64 import b64decode
from dataclasses import dataclass, field
from http import HTTPStatus
from ipaddress import ip_address
from threading import Lock
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import httpcore
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from joserfc.jwk import RSAKey

from keystead.core.errors import InvalidRequest, Unavailable
from keystead.ports.issuers import IssuerKey

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from keystead.core.configuration import SignInConfig
    from keystead.core.settings import Settings
    from keystead.ports.clock import Clock

MOST_BYTES = 256 * 1024
"""Of a discovery document, or a key set."""
MOST_KEYS = 100
ASK_AGAIN = 60_000
"""Milliseconds between two looks at an issuer because of an unknown key, or after one that failed."""
RSA_BITS = (2048, 8192)
"""Modulus: below it can be broken (SP 800-131A), above it only costs time."""
_PUBLIC = {"RSA": ("kty", "n", "e"), "EC": ("kty", "crv", "x", "y"), "OKP": ("kty", "crv", "x")}
_CURVES = {"EC": "P-256", "OKP": "Ed25519"}


_HEADERS: Mapping[bytes | str, bytes | str] = {"Accept": "application/json", "Accept-Encoding": "identity", "User-Agent": "keystead"}
_FAILURES = (httpcore.NetworkError, httpcore.TimeoutException, httpcore.ProtocolError, httpcore.UnsupportedProtocol, OSError)


class _Unfit(Exception):
    """An answer that cannot be used; the text says why and holds nothing of it but names."""


@dataclass(slots=True)
class _Known:
    """What is known of one issuer. `keys` is replaced as a whole; times are milliseconds, `tried` of the last look that was begun."""

    lock: Lock = field(default_factory=Lock)
    keys: Mapping[str, IssuerKey] = field(default_factory=dict)
    fetched: int | None = None
    tried: int | None = None
    failure: str = ""


class HttpIssuers:
    """Asks, and remembers in memory.

    Args:
        config: which issuers, and how.
        settings: for how long answers serve, and how long one look may take.
        clock: time.

    Raises:
        InvalidRequest: an address in the configuration is not one to ask.
    """

    def __init__(self, config: SignInConfig, settings: Settings, clock: Clock) -> None:
        for issuer in config.issuers:
            _checked_address(issuer, allow_http=config.allow_http)
        self._config = config
        self._settings = settings
        self._clock = clock
        self._known = {issuer: _Known() for issuer in config.issuers}
        self._trust: ssl.SSLContext | None = None

    def allows(self, issuer: str) -> bool:
        return issuer in self._known

    def key(self, issuer: str, key_id: str) -> IssuerKey | None:
        known, now = self._known[issuer], self._clock.now()
        if self._fresh(known, now) and key_id in known.keys:
            return known.keys[key_id]
        self._look(issuer, known, key_id)
        if known.fetched is None or self._clock.now() - known.fetched > self._settings.issuer_keys_max_age:
            raise _unavailable(issuer, known.failure)
        found = known.keys.get(key_id)
        if found is None and known.failure:  # it may have a key we could not hear of: that is no answer about the token
            raise _unavailable(issuer, known.failure)
        return found

    def _fresh(self, known: _Known, now: int) -> bool:
        return known.fetched is not None and 0 <= now - known.fetched < min(
            self._settings.issuer_keys_refresh, self._settings.issuer_keys_max_age
        )

    def _look(self, issuer: str, known: _Known, key_id: str) -> None:
        """Ask, unless that was tried a moment ago. One thread asks; others use what is known, and wait only where that is nothing."""
        usable = key_id in known.keys and known.fetched is not None
        if not known.lock.acquire(blocking=not usable):
            return
        try:
            now = self._clock.now()
            if known.tried is not None and 0 <= now - known.tried < ASK_AGAIN:
                return
            known.tried = now
            try:
                keys = self._fetched(issuer)
            except (_Unfit, *_FAILURES) as error:
                known.failure = str(error) if isinstance(error, _Unfit) else type(error).__name__
                return
            # The order matters to threads that look without the lock: keys are never newer than the time they are said to be of.
            known.keys, known.fetched, known.failure = keys, now, ""
        finally:
            known.lock.release()

    def _fetched(self, issuer: str) -> Mapping[str, IssuerKey]:
        """Discovery (OpenID Connect Discovery section 4, RFC 8414 section 3), then the key set (RFC 7517)."""
        until = time.monotonic() + self._settings.issuer_timeout / 1_000
        if self._trust is None:
            self._trust = ssl.create_default_context(cafile=self._config.ca_file or None)
        with httpcore.ConnectionPool(ssl_context=self._trust, network_backend=_Until(until)) as client:
            document = self._document(client, issuer)
            if document.get("issuer") != issuer:
                raise _Unfit("its discovery document names another issuer")
            return _usable_keys(self._get(client, self._key_address(issuer, document.get("jwks_uri"))))

    def _document(self, client: httpcore.ConnectionPool, issuer: str) -> Mapping[str, Any]:
        parts = urlsplit(issuer)
        path = parts.path.rstrip("/")
        first = f"{parts.scheme}://{parts.netloc}{path}/.well-known/openid-configuration"
        second = f"{parts.scheme}://{parts.netloc}/.well-known/oauth-authorization-server{path}"
        try:
            return self._get(client, first)
        except _Missing:
            return self._get(client, second)

    def _key_address(self, issuer: str, address: object) -> str:
        if not isinstance(address, str):
            raise _Unfit("its discovery document names no key set")
        try:
            _checked_address(address, allow_http=self._config.allow_http)
        except InvalidRequest as error:
            raise _Unfit("its key set is at an address that is not asked") from error
        same = urlsplit(address)[:2] == urlsplit(issuer)[:2]
        if not same and urlsplit(address).hostname not in self._config.key_hosts:
            raise _Unfit("its key set is at another host, which the operator does not list")
        return address

    def _get(self, client: httpcore.ConnectionPool, address: str) -> Mapping[str, Any]:
        with client.stream("GET", address, headers=_HEADERS) as answer:
            if answer.status == HTTPStatus.NOT_FOUND:
                raise _Missing("it has no discovery document")
            if answer.status != HTTPStatus.OK:  # redirects among them: whom to ask is the operator's to say
                raise _Unfit(f"it answered with status {answer.status}")
            data = bytearray()
            for chunk in answer.iter_stream():
                data += chunk
                if len(data) > MOST_BYTES:
                    raise _Unfit(f"its answer has more than {MOST_BYTES} bytes")
        try:
            found = json.loads(bytes(data))
        except (ValueError, RecursionError):
            raise _Unfit("its answer is not JSON") from None
        if not isinstance(found, dict):
            raise _Unfit("its answer is no JSON object")
        return found


class _Until(httpcore.NetworkBackend):
    """Connections that end at a time. The usual time limits begin anew with each byte, so that a slow sender could hold us for ever."""

    def __init__(self, until: float) -> None:
        self._until = until
        self._inner = httpcore.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ARG002 - there is one limit, for all of it
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.NetworkStream:
        left = _left(self._until)
        return _StreamUntil(self._inner.connect_tcp(host, port, left, local_address, socket_options), self._until)


class _StreamUntil(httpcore.NetworkStream):
    """The same for a connection that was made."""

    def __init__(self, inner: httpcore.NetworkStream, until: float) -> None:
        self._inner = inner
        self._until = until

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ARG002 - as above
        return self._inner.read(max_bytes, _left(self._until))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ARG002 - as above
        self._inner.write(buffer, _left(self._until))

    def close(self) -> None:
        self._inner.close()

    def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,  # noqa: ARG002 - as above
    ) -> httpcore.NetworkStream:
        return _StreamUntil(self._inner.start_tls(ssl_context, server_hostname, _left(self._until)), self._until)

    def get_extra_info(self, info: str) -> object:
        return self._inner.get_extra_info(info)


def _left(until: float) -> float:
    """Seconds left.

    Raises:
        httpcore.ReadTimeout: none.
    """
    left = until - time.monotonic()
    if left <= 0:
        raise httpcore.ReadTimeout
    return left


class _Missing(_Unfit):
    """Status 404."""


def _checked_address(address: str, *, allow_http: bool) -> None:
    """Refuse an address that is not https, or http on loopback where that is allowed, or that has parts an issuer has not.

    Raises:
        InvalidRequest: it is refused.
    """
    try:
        parts = urlsplit(address)
        host, _port = parts.hostname or "", parts.port
    except ValueError:
        parts, host = urlsplit(""), ""
    plain = allow_http and parts.scheme == "http" and _loopback(host)
    if not host or not address.isascii() or parts.query or parts.fragment or parts.username or not (parts.scheme == "https" or plain):
        raise InvalidRequest(
            "sign_in_issuer_invalid",
            f"{address!r} is not the address of an issuer",
            "it begins with https:// and has no query; http is for tests on loopback, with allow_http",
        )


def _loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def _usable_keys(document: Mapping[str, Any]) -> Mapping[str, IssuerKey]:
    """The public keys of a set that signatures can be checked with; others are passed over. Of two with one id neither is taken."""
    listed = document.get("keys")
    if not isinstance(listed, list) or len(listed) > MOST_KEYS:
        raise _Unfit(f"its key set is no list of at most {MOST_KEYS} keys")
    found: dict[str, IssuerKey] = {}
    twice: set[str] = set()
    for one in listed:
        key = _usable_key(one) if isinstance(one, dict) else None
        if key is not None and key.id in found:
            twice.add(key.id)
        elif key is not None:
            found[key.id] = key
    return {key_id: key for key_id, key in found.items() if key_id not in twice}


def _usable_key(jwk: Mapping[str, Any]) -> IssuerKey | None:
    jwk = _with_numbers(jwk)
    kind, key_id, algorithm = jwk.get("kty"), jwk.get("kid"), jwk.get("alg", "")
    members = _PUBLIC.get(kind) if isinstance(kind, str) else None
    if members is None or not isinstance(key_id, str) or not key_id or not isinstance(algorithm, str):
        return None  # a shared secret ("oct") among them: with one, whoever can check could sign
    if jwk.get("use", "sig") != "sig" or "verify" not in jwk.get("key_ops", ["verify"]):
        return None
    if not all(isinstance(jwk.get(member), str) for member in members) or jwk.get("crv") != _CURVES.get(str(kind)):
        return None
    if kind == "RSA" and not RSA_BITS[0] <= len(jwk["n"]) * 6 <= RSA_BITS[1] + 16:
        return None
    return IssuerKey(key_id, algorithm, json.dumps({member: jwk[member] for member in members}, sort_keys=True))


def _with_numbers(jwk: Mapping[str, Any]) -> Mapping[str, Any]:
    """A key with its numbers: attestation services give an RSA key as its certificate alone (`x5c`, RFC 7517 section 4.7).

    Only the public key is taken from the certificate. It is trusted because the issuer gave it over TLS, as numbers would be.
    """
    chain = jwk.get("x5c")
    if jwk.get("kty") != "RSA" or "n" in jwk or not isinstance(chain, list) or not chain or not isinstance(chain[0], str):
        return jwk
    try:
        key = x509.load_der_x509_certificate(b64decode(chain[0], validate=True)).public_key()
    except (ValueError, UnsupportedAlgorithm):
        return jwk
    return {**jwk, **RSAKey.import_key(key).as_dict(private=False)} if isinstance(key, RSAPublicKey) else jwk


def _unavailable(issuer: str, why: str) -> Unavailable:
    return Unavailable(
        "sign_in_provider_unavailable",
        f"the keys of the issuer {issuer} cannot be had: {why or 'nobody asked yet'}",
        "try again; keys that are known serve for a time of their own while an issuer is away",
    )
