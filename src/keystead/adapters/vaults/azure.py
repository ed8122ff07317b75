"""Key vaults that speak the keys REST API of Azure Key Vault, through the SDK: Azure's own, or another `keystead vault serve`.

What differs from ordinary use of the SDK, and why:

- wrapKey and unwrapKey are always asked of the vault, with `KeyClient.send_request`. The SDK's CryptographyClient wraps by itself once it
  has the public key, and a permission that was taken away would not show (R-074).
- The transport is ours (`adapters.vaults.bounded`): listed hosts alone, one limit for the whole call, no redirects.
- The SDK's retries are off: they sleep through a Retry-After of any length. Busy vaults are asked again here, inside the limit.
- A token is only asked for a resource that the vault's own host belongs to, and only of the directory of the configuration: what a
  vault's challenge says decides neither who gets our secret nor what our token opens.

Everything a vault or authority can answer comes out as one of the classes of design section 5; `_BY_STATUS` and `_sign_in_refused` are
the table. Nothing is classified by its message.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import http.client
import logging
import re
import socket
import ssl
import threading
import time
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TYPE_CHECKING, NoReturn, TypeVar
from urllib.parse import urlsplit

import msgspec
import requests
from azure.core.credentials import AccessToken, AccessTokenInfo
from azure.core.exceptions import ClientAuthenticationError, HttpResponseError
from azure.core.pipeline.transport import RequestsTransport
from azure.core.rest import HttpRequest
from azure.identity import ClientSecretCredential
from azure.keyvault.keys import KeyClient
from azure.keyvault.keys._shared import http_challenge_cache

from keystead.adapters.vaults.bounded import AddressRefused, TooMuch, bounded_session, last_sign_in, seconds_left, trust, within
from keystead.core.errors import InvalidRequest
from keystead.core.keys.key_uri import KeyUri, split_key_uri
from keystead.core.keys.outcome import Outcome, OutcomeClass
from keystead.ports.vaults import UNKNOWN, KeyFacts, SubscriptionFacts, VaultFailure, WrappedValue

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from azure.core.credentials import TokenRequestOptions
    from azure.core.rest import HttpResponse

    from keystead.adapters.vaults.bounded import SignInAnswer
    from keystead.core.configuration import ForeignVaultConfig
    from keystead.core.settings import Settings
    from keystead.ports.clock import Clock

API_VERSION = "7.4"
"""Of the REST API: all that is used here is in it, and every vault of the last years knows it."""
ALGORITHM = "RSA-OAEP-256"
TRIES = 3
"""How often a busy vault is asked in one call at most."""
FIRST_WAIT_S = 0.2
"""Before a busy vault that names no time is asked again; doubles."""
GONE_PROBES = 3
"""Probes in a row that find no such name, before a vault that answered before counts as taken away (design section 5)."""
WRAPPED_BYTES = frozenset({256, 384, 512})
"""Of an RSA ciphertext: 2048, 3072 and 4096 bits."""
MOST_PLAIN = 512

T = TypeVar("T")
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
_BASE64URL = re.compile(r"[A-Za-z0-9_-]{1,1400}")
_CODE = re.compile(r"[A-Za-z]{1,60}")
_REGION = re.compile(r"[a-z0-9]{2,40}")

_CHALLENGE_RESOURCE = "challenge-resource"
_DENIED, _SYSTEM, _INTEGRITY = OutcomeClass.DENIED, OutcomeClass.SYSTEM_ERROR, OutcomeClass.INTEGRITY

_BY_STATUS: dict[int, OutcomeClass] = {
    # 401 after a fresh token: our own registration is at fault, the customer said nothing.
    HTTPStatus.UNAUTHORIZED: _SYSTEM,
    # Missing permission, disabled key, firewall: one status, told apart by the inner code.
    HTTPStatus.FORBIDDEN: _DENIED,
    # No such key, version or vault: purged, deleted, or never there.
    HTTPStatus.NOT_FOUND: _DENIED,
    HTTPStatus.CONFLICT: _DENIED,
    HTTPStatus.GONE: _DENIED,
    HTTPStatus.REQUEST_TIMEOUT: _SYSTEM,
    HTTPStatus.TOO_MANY_REQUESTS: _SYSTEM,
}
"""Beyond these: 5xx and redirects are system errors, every other 4xx means that what was sent is not what the vault can work with."""

DENIED_SIGN_IN = frozenset({"unauthorized_client", "access_denied", "consent_required", "interaction_required"})
"""OAuth 2 errors by which a directory says that our application may not (any more): disabled, removed, consent withdrawn."""
DENIED_NUMBERS = frozenset({65001, 50105, 53003, 700016, 7000112, 7000229})
"""The same, by the authority's numbers: no consent, not assigned, barred by a condition, no such application, disabled, no principal."""

for _name in ("azure", "msal", "urllib3"):
    # They tell of every request at the level info; what matters of it is in our own log, by policy and without addresses.
    logging.getLogger(_name).setLevel(logging.ERROR)


class _Jwk(msgspec.Struct):
    kid: str
    kty: str
    n: str = ""
    key_ops: list[str] = msgspec.field(default_factory=list)


class _Attributes(msgspec.Struct, rename="camel"):
    enabled: bool
    nbf: int | None = None
    exp: int | None = None
    recovery_level: str | None = None


class _KeyBundle(msgspec.Struct):
    """What GET /keys/NAME/VERSION answers, as far as it is used."""

    key: _Jwk
    attributes: _Attributes


class _Result(msgspec.Struct):
    """What wrapkey and unwrapkey answer."""

    kid: str
    value: str


class _Inner(msgspec.Struct):
    code: str = ""


class _Error(msgspec.Struct):
    code: str = ""
    innererror: _Inner | None = None


class _ErrorBody(msgspec.Struct):
    error: _Error


@dataclass(slots=True)
class _Known:
    """What this process remembers of one host. `gone`: probes in a row that found no such name; `counted`: when the last one was."""

    answered: bool = False
    gone: int = 0
    counted: int = 0


@dataclass(slots=True)
class _Connected:
    """A signed-in state: one secret, one credential, a client for each host. Thrown away whole when the vaults do not take its tokens."""

    secret_digest: bytes = field(repr=False)
    credential: ClientSecretCredential
    clients: dict[str, KeyClient] = field(default_factory=dict)
    met: dict[str, threading.Lock | None] = field(default_factory=dict)


class AzureVaults:
    """See `ports/vaults.py`. One per entry of the configuration; threads may share it.

    The caller has checked that the key's host is one of the entry's and that the tenant may use it (`adapters.vaults.routed`).
    """

    def __init__(self, config: ForeignVaultConfig, folder: Path, settings: Settings, clock: Clock, allows: Callable[[str], bool]) -> None:
        """Nothing is read or asked yet.

        Args:
            config: the entry.
            folder: where relative paths count from.
            settings: for the time limit of a call and the interval of probes.
            clock: time.
            allows: whether the entry names a HOST or HOST:PORT.
        """
        self._config = config
        self._secret_file = folder / config.client_secret_file
        self._ca_file = folder / config.ca_file if config.ca_file else None
        self._limit_s = settings.vault_timeout / 1_000
        self._probe_interval = settings.probe_interval
        self._clock = clock
        self._allows = allows
        self._authority = urlsplit(config.authority).netloc.lower()
        self._session: requests.Session | None = None
        self._connected: _Connected | None = None
        self._known: dict[str, _Known] = {}
        self._guard = threading.Lock()

    def key_facts(self, tenant_id: str, application: str, key_uri: str) -> KeyFacts:  # noqa: ARG002 - an entry has one application
        """See the port. Needs `get`; what the application may do beside is unknown, the round trip shows it."""
        uri = _split(key_uri)
        answer = self._ask(uri, "GET", f"/keys/{uri.name}/{uri.version}")
        bundle = _decoded(answer, _KeyBundle)
        named = _named(bundle.key.kid, uri)
        modulus = _bytes(bundle.key.n) if bundle.key.n else b""
        region = self._config.region or answer.headers.get("x-ms-keyvault-region", "").lower()
        return KeyFacts(
            key_uri=f"{named.base}/{named.version}",
            vault=uri.host,
            kty=bundle.key.kty,
            size=int.from_bytes(modulus).bit_length(),
            enabled=bundle.attributes.enabled,
            key_ops=frozenset(bundle.key.key_ops),
            not_before=_milliseconds(bundle.attributes.nbf),
            expires=_milliseconds(bundle.attributes.exp),
            recovery_level=bundle.attributes.recovery_level,
            region=region if _REGION.fullmatch(region) else None,
            subscription=self._subscription(tenant_id),
            tenant_id=self._owner(tenant_id),
            permissions=None,
        )

    def subscription_facts(self, tenant_id: str, name: str) -> SubscriptionFacts:
        """See the port; only what the operator states of the entry's own subscription."""
        found = self._subscription(tenant_id)
        if found is None or name.lower() != found.name.lower():
            raise VaultFailure(Outcome(_DENIED, "subscription-not-found"))
        return found

    def wrap(self, tenant_id: str, application: str, key_uri: str, value: bytes) -> WrappedValue:  # noqa: ARG002 - as above
        """See the port."""
        uri = _split(key_uri)
        result = self._operation(uri, "wrapkey", value)
        named = _named(result.kid, uri)
        wrapped = _bytes(result.value)
        if len(wrapped) not in WRAPPED_BYTES:
            _refuse("wrong-length")
        return WrappedValue(f"{named.base}/{named.version}", wrapped)

    def unwrap(self, tenant_id: str, application: str, key_uri: str, value: bytes) -> bytes:  # noqa: ARG002 - as above
        """See the port."""
        uri = _split(key_uri)
        if not uri.version:
            _refuse("key-version-missing")
        result = self._operation(uri, "unwrapkey", value)
        _named(result.kid, uri)
        plain = _bytes(result.value)
        if len(plain) > MOST_PLAIN:
            _refuse("wrong-length")
        return plain

    def close(self) -> None:
        """Close the connections and forget the tokens."""
        with self._guard:
            self._connected = None
            if self._session is not None:
                self._session.close()

    # -- asking -------------------------------------------------------------------------------------------------------------------

    def _operation(self, uri: KeyUri, name: str, value: bytes) -> _Result:
        body = {"alg": ALGORITHM, "value": base64.urlsafe_b64encode(value).rstrip(b"=").decode()}
        # Without a version there are two slashes: so the SDK asks for the current one.
        return _decoded(self._ask(uri, "POST", f"/keys/{uri.name}/{uri.version}/{name}", body), _Result)

    def _ask(self, uri: KeyUri, method: str, path: str, body: dict[str, str] | None = None) -> HttpResponse:
        """The answer of a call that succeeded.

        Raises:
            VaultFailure: every other end it can have.
        """
        with within(self._limit_s):
            tries, renewed = 1, False
            while True:
                connected = self._connect()
                try:
                    answer = self._sent(connected, uri.host, HttpRequest(method, path, json=body))
                except VaultFailure as failure:
                    # No token. The SDK would give the refusal again for a minute without asking, when the authority may think otherwise.
                    self._forget(connected)
                    if failure.outcome.reason != _CHALLENGE_RESOURCE or renewed:
                        raise
                    renewed = True  # it may be what another vault said at this address: a new client asks the one that is there now
                    continue
                except Exception as error:  # noqa: BLE001 - whatever an answer from outside does to the SDK is an outcome, not our defect
                    renewed = self._made_fresh(connected, self._outcome(uri.host, error), error, tries, renewed=renewed)
                    tries += 1
                    continue
                if answer.status_code == HTTPStatus.OK:
                    return answer
                if answer.status_code == HTTPStatus.UNAUTHORIZED and not renewed:
                    # The token is kept by the SDK for as long as it was made for. Sign in afresh: the authority's word is the newer one.
                    renewed = True
                    self._forget(connected)
                elif _busy(answer.status_code) and tries < TRIES and _waited(answer, tries):
                    tries += 1
                else:
                    raise VaultFailure(_refusal(answer))

    def _made_fresh(self, connected: _Connected, outcome: Outcome, error: Exception, tries: int, *, renewed: bool) -> bool:
        """Get ready for another try: after a kept connection that the vault closed meanwhile; or the SDK's own state, which threads can spoil.

        Returns:
            Whether the signed-in state is a fresh one now, or was before.

        Raises:
            VaultFailure: another try is not worth it.
        """
        if outcome.reason == "connection-lost" and tries < TRIES:
            if self._session is not None:
                self._session.close()  # of those that are not in use: the next try is on a fresh one, whatever the others are worth
            return renewed
        if outcome.reason != "malformed" or renewed:
            raise VaultFailure(outcome) from error
        self._forget(connected)
        return True

    def _sent(self, connected: _Connected, host: str, request: HttpRequest) -> HttpResponse:
        """One question, one answer. The first of a client is asked alone: from it the SDK learns how to sign in, and threads would race."""
        with self._guard:
            client = connected.clients.get(host) or self._client(connected, host)
            alone = connected.met[host]
        if alone is None:
            answer = client.send_request(request)
        else:
            if not alone.acquire(timeout=seconds_left()):
                raise VaultFailure(Outcome(_SYSTEM, "timeout"))
            try:
                answer = client.send_request(request)
                if answer.status_code != HTTPStatus.UNAUTHORIZED:
                    connected.met[host] = None
            finally:
                alone.release()
        with self._guard:
            self._known[host] = _Known(answered=True)
        return answer

    def _connect(self) -> _Connected:
        """Signed in with the secret that the file holds now."""
        try:
            lines = self._secret_file.read_text().splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise VaultFailure(Outcome(_SYSTEM, "client-secret-unreadable")) from error
        secret = lines[0].strip() if lines else ""
        if not secret:
            raise VaultFailure(Outcome(_SYSTEM, "client-secret-unreadable"))
        digest = hashlib.sha256(secret.encode()).digest()
        with self._guard:
            if self._connected is None or self._connected.secret_digest != digest:
                credential = ClientSecretCredential(
                    self._config.directory,
                    self._config.client_id,
                    secret,
                    authority=self._config.authority,
                    # It would ask a host of Azure's whether ours is known; ours is in the configuration.
                    disable_instance_discovery=True,
                    transport=self._transport(),
                    retry_total=0,
                )
                self._connected = _Connected(digest, credential)
            return self._connected

    def _forget(self, connected: _Connected) -> None:
        """Sign in again next time, unless another thread already did."""
        with self._guard:
            if self._connected is connected:
                self._connected = None

    def _client(self, connected: _Connected, host: str) -> KeyClient:
        # The SDK remembers challenges by address, for all clients of the process, as long as it runs; another vault may have this one now.
        http_challenge_cache.remove_challenge_for_url(f"https://{host}")
        client = KeyClient(
            f"https://{host}",
            _VaultCredential(connected.credential, host, self._config.directory),
            api_version=API_VERSION,
            verify_challenge_resource=self._config.verify_challenge,
            transport=self._transport(),
            retry_total=0,
            permit_redirects=False,
        )
        connected.clients[host], connected.met[host] = client, threading.Lock()
        return client

    def _transport(self) -> RequestsTransport:
        if self._session is None:
            try:
                context = trust(self._ca_file)
            except OSError as error:
                raise VaultFailure(Outcome(_SYSTEM, "ca-file-unreadable")) from error
            self._session = bounded_session(context, self._allows, self._authority)
        return RequestsTransport(session=self._session, session_owner=False, use_env_settings=False)

    # -- what it came to ----------------------------------------------------------------------------------------------------------

    def _outcome(self, host: str, error: Exception) -> Outcome:
        reason = network_reason(error)
        if reason == "name-unknown":
            return self._not_there(host)
        if reason is not None:
            return Outcome(_SYSTEM, reason)
        if any(isinstance(one, TooMuch) for one in _chain(error)):
            return Outcome(_INTEGRITY, "answer-too-large")
        status = error.status_code if isinstance(error, HttpResponseError) else None
        if status is not None and status != HTTPStatus.OK:  # an answer whose body the SDK could not read
            return Outcome(_class_of(status), f"http-{status}")
        # A challenge that does not fit the host, a body that is not JSON, a kind of answer nobody expects.
        return Outcome(_INTEGRITY, "malformed")

    def _not_there(self, host: str) -> Outcome:
        """The name is said not to exist: a fault, until a vault that once answered has been gone for some probes."""
        now = self._clock.now()
        with self._guard:
            known = self._known.setdefault(host, _Known())
            # Calls of one probe come together and count once.
            if known.gone == 0 or not 0 <= now - known.counted < self._probe_interval // 2:
                known.gone, known.counted = known.gone + 1, now
            gone = known.answered and known.gone >= GONE_PROBES
        return Outcome(_DENIED, "vault-gone") if gone else Outcome(_SYSTEM, "name-unknown")

    # -- what the operator states -------------------------------------------------------------------------------------------------

    def _owner(self, tenant_id: str) -> str | None:
        """The directory is the tenant's own where no other tenant uses the entry; otherwise nobody said whose it is."""
        return tenant_id if len(self._config.tenants) == 1 else None

    def _subscription(self, tenant_id: str) -> SubscriptionFacts | None:
        name = self._config.subscription
        if not name:
            return None
        kind = self._config.subscription_kind or UNKNOWN
        return SubscriptionFacts(name.lower(), name, self._owner(tenant_id) or "", kind, UNKNOWN, "Enabled")


class _VaultCredential:
    """Gives the client of one host tokens, and only such as belong to it: a vault could ask for a token that opens another one.

    Whatever goes wrong at the authority is told apart here, so that it is never taken for the vault's own answer.
    """

    def __init__(self, inner: ClientSecretCredential, host: str, directory: str) -> None:
        self._inner = inner
        self._host = host
        self._directory = directory

    def get_token_info(self, *scopes: str, options: TokenRequestOptions | None = None) -> AccessTokenInfo:
        """A token for the one scope the vault named."""
        for scope in scopes:
            resource = urlsplit(scope).netloc.lower()
            if urlsplit(scope).scheme != "https" or not (self._host == resource or self._host.endswith(f".{resource}")):
                _refuse(_CHALLENGE_RESOURCE)
        asked = (options or {}).get("tenant_id") or self._directory
        if asked.lower() != self._directory.lower() and _UUID.fullmatch(asked) and _UUID.fullmatch(self._directory):
            # The vault now belongs to another directory: its owner moved it away from where our application was let in (requirements 2.1).
            raise VaultFailure(Outcome(_DENIED, "another-directory"))
        chosen: TokenRequestOptions = {"enable_cae": bool((options or {}).get("enable_cae", False))}
        claims = (options or {}).get("claims")
        if claims:
            chosen["claims"] = claims
        try:
            return self._inner.get_token_info(*scopes, options=chosen)
        except Exception as error:
            raise VaultFailure(_sign_in_outcome(error)) from error

    def get_token(
        self, *scopes: str, claims: str | None = None, tenant_id: str | None = None, enable_cae: bool = False, **_more: object
    ) -> AccessToken:
        """The older way of asking for the same."""
        options: TokenRequestOptions = {"enable_cae": enable_cae}
        if claims:
            options["claims"] = claims
        if tenant_id:
            options["tenant_id"] = tenant_id
        found = self.get_token_info(*scopes, options=options)
        return AccessToken(found.token, found.expires_on)


def _sign_in_outcome(error: Exception) -> Outcome:
    """What a failed sign-in means. Our own expired or wrong secret is our fault; that our application may not any more is a denial."""
    reason = network_reason(error)
    if reason is not None:
        return Outcome(_SYSTEM, f"sign-in {reason}")
    said = last_sign_in()
    if said is not None and said.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return Outcome(_SYSTEM, f"sign-in http-{said.status}")
    if said is not None:
        return _sign_in_refused(said)
    return Outcome(_SYSTEM, "sign-in-refused" if isinstance(error, ClientAuthenticationError) else "sign-in-malformed")


def _sign_in_refused(said: SignInAnswer) -> Outcome:
    name = said.error.replace("_", "-") if re.fullmatch(r"[a-z_]{1,60}", said.error) else f"http-{said.status}"
    denied = said.error in DENIED_SIGN_IN or bool(said.numbers & DENIED_NUMBERS)
    return Outcome(_DENIED if denied else _SYSTEM, f"sign-in {name}")


_NETWORK: tuple[tuple[type[BaseException], str], ...] = (
    (AddressRefused, "address-not-allowed"),
    (ssl.SSLCertVerificationError, "tls"),
    (TimeoutError, "timeout"),
    (requests.Timeout, "timeout"),
    (ssl.SSLError, "tls"),
    (ConnectionRefusedError, "connection-refused"),
    (ConnectionError, "connection-lost"),
    (http.client.IncompleteRead, "connection-lost"),
    (OSError, "network"),
)
"""By the first that is among an error's causes."""


def network_reason(error: BaseException) -> str | None:
    """Why no answer came, by the causes of an error; None where one did come."""
    causes = list(_chain(error))
    if any(isinstance(one, TooMuch) for one in causes):
        return None
    for one in causes:
        if isinstance(one, socket.gaierror):
            return "name-unknown" if one.errno == socket.EAI_NONAME else "dns"
    for kind, reason in _NETWORK:
        # requests' own errors are OSErrors, whatever their cause: only what lies beneath them counts as one of the system's.
        if any(isinstance(one, kind) and (kind is not OSError or not isinstance(one, requests.RequestException)) for one in causes):
            return reason
    return None


def _chain(error: BaseException) -> Iterator[BaseException]:
    """An error and what led to it. The libraries between keep causes in all these places."""
    waiting, seen = [error], set[int]()
    while waiting and len(seen) < 50:
        one = waiting.pop(0)
        if id(one) in seen:
            continue
        seen.add(id(one))
        yield one
        beneath = (one.__cause__, one.__context__, getattr(one, "reason", None), getattr(one, "inner_exception", None), *one.args)
        waiting += [cause for cause in beneath if isinstance(cause, BaseException)]


def _busy(status: int) -> bool:
    return status == HTTPStatus.TOO_MANY_REQUESTS or status >= HTTPStatus.INTERNAL_SERVER_ERROR


def _waited(answer: HttpResponse, tries: int) -> bool:
    """Wait as long as a busy vault asks for; False where the call's time would be over before."""
    said = answer.headers.get("Retry-After", "")
    wait = float(said) if said.isascii() and said.isdecimal() and len(said) <= 6 else FIRST_WAIT_S * 2 ** (tries - 1)
    if wait >= seconds_left():
        return False
    time.sleep(wait)
    return True


def _class_of(status: int) -> OutcomeClass:
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR or HTTPStatus.MULTIPLE_CHOICES <= status < HTTPStatus.BAD_REQUEST:
        return _SYSTEM
    return _BY_STATUS.get(status, _INTEGRITY)


def _refusal(answer: HttpResponse) -> Outcome:
    """The outcome of an answer other than 200. Of its body only a code is taken, the inner one where there is one."""
    status = answer.status_code
    if HTTPStatus.MULTIPLE_CHOICES <= status < HTTPStatus.BAD_REQUEST:
        return Outcome(_SYSTEM, "redirect-refused")
    try:
        error = msgspec.json.decode(answer.content, type=_ErrorBody).error
        code = error.innererror.code if error.innererror is not None and error.innererror.code else error.code
    except (msgspec.DecodeError, UnicodeDecodeError):
        code = ""
    return Outcome(_class_of(status), f"http-{status} {code}" if _CODE.fullmatch(code) else f"http-{status}")


def _decoded(answer: HttpResponse, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(answer.content, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError):
        _refuse("malformed")


def _split(key_uri: str) -> KeyUri:
    try:
        return split_key_uri(key_uri)
    except InvalidRequest:
        _refuse("key-uri-invalid")


def _named(kid: str, asked: KeyUri) -> KeyUri:
    """The key version an answer names: of the key that was asked for, and the version, where one was."""
    try:
        named = split_key_uri(kid)
    except InvalidRequest:
        _refuse("wrong-kid")
    same = (named.host, named.name.lower()) == (asked.host, asked.name.lower())
    if not same or not named.version or (asked.version and named.version.lower() != asked.version.lower()):
        _refuse("wrong-kid")
    return named


def _bytes(text: str) -> bytes:
    """Base64url without padding, in its one form (RFC 7515 section 2)."""
    try:
        value = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)) if _BASE64URL.fullmatch(text) else b""
    except binascii.Error:
        value = b""
    if not value or base64.urlsafe_b64encode(value).rstrip(b"=").decode() != text:
        _refuse("malformed")
    return value


def _milliseconds(seconds: int | None) -> int | None:
    return None if seconds is None else seconds * 1_000


def _refuse(reason: str) -> NoReturn:
    raise VaultFailure(Outcome(_INTEGRITY, reason))
