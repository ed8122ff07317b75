"""Where clients of vaults sign in: an OAuth 2 token endpoint for each tenant, with OpenID metadata and keys (docs/spec/vault-tokens.md).

    POST /TENANT/oauth2/v2.0/token      client credentials (RFC 6749 section 4.4), scope RESOURCE/.default
    POST /TENANT/oauth2/token           the same, resource RESOURCE
    GET  /TENANT/v2.0/.well-known/openid-configuration, /TENANT/.well-known/openid-configuration
    GET  /TENANT/discovery/v2.0/keys, /TENANT/discovery/keys
    GET  /common/discovery/instance     for libraries that ask whether an authority is one

TENANT is the tenant's id. Whether there is such a tenant is told to nobody: its metadata are the same for every id, and so is the refusal
of a client that is not in it. Errors are those of RFC 6749 section 5.2; a client that is not there (any more) is `unauthorized_client`, so
that a service can tell it from its own expired secret. No secret and no token is in an error or a log.
"""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import re
from dataclasses import dataclass
from time import perf_counter
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, unquote_plus

from keystead.core.errors import InvalidRequest, KeysteadError, Throttled, Unauthenticated, Unavailable
from keystead.core.ids import new_id
from keystead.core.vaults.access import client
from keystead.core.vaults.tokens import ALGORITHM, issuer_of, resource_name
from keystead.frontends.asgi.small import SmallExchange
from keystead.frontends.asgi.threads import Threads
from keystead.vault import tokens
from keystead.vault.services import Identity

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from keystead.core.configuration import ServerConfig
    from keystead.frontends.asgi.small import Header, Receive, Send
    from keystead.vault.services import VaultServices

    Scope = Mapping[str, Any]

log = logging.getLogger("keystead.vault.authority")

MAX_BODY = 16 * 1024
"""Bytes of a token request."""
REQUEST_SECONDS = 30.0
"""For one request, its body included: who sends a byte now and then does not keep a connection."""
MAX_FIELDS = 32
MAX_VALUE = 2_048
"""Characters of one field of it."""
MAX_AGENT = 256
THREADS = 4
DEFAULT_SCOPE = "/.default"
FORM = "application/x-www-form-urlencoded"
API_VERSION = "2.0"

_ID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_PATH = re.compile(r"/([0-9A-Fa-f-]{36})(/[a-z0-9./-]{1,64})")
_ASKED = re.compile(rf"[?&]authorization_endpoint=https://[^/&]+/({_ID.pattern})/")
_TOKEN_V1, _TOKEN_V2 = "/oauth2/token", "/oauth2/v2.0/token"
_METADATA = {"/v2.0/.well-known/openid-configuration", "/.well-known/openid-configuration"}
_KEYS = {"/discovery/v2.0/keys", "/discovery/keys"}
_INSTANCE = "/common/discovery/instance"


class OAuthError(Exception):
    """A request that is answered with an error (RFC 6749 section 5.2)."""

    def __init__(self, status: int, error: str, description: str, headers: tuple[tuple[bytes, bytes], ...] = ()) -> None:
        super().__init__(description)
        self.status = status
        self.error = error
        self.description = description
        self.headers = headers


@dataclass(frozen=True, slots=True)
class TokenRequest:
    """A well-formed request for a token.

    Attributes:
        client_id: in lower case; perhaps nobody's.
        resource: in its one spelling.
    """

    client_id: str
    client_secret: str
    resource: str

    def __repr__(self) -> str:
        return f"TokenRequest(client_id={self.client_id!r}, client_secret=..., resource={self.resource!r})"


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer: a JSON document."""

    status: int
    document: Mapping[str, Any]
    headers: tuple[tuple[bytes, bytes], ...] = ()
    client_id: str = ""


@dataclass(frozen=True, slots=True)
class AuthorityParts:
    """What the application is made of.

    Attributes:
        services: the vault's.
        base_url: address of the authority without a slash behind, as the caller of a request (its scope) reached it.
        resource: the name of the vault that a resource stands for in a tenant, empty where it stands for all; None where it is none.
            Called in a thread.
        config: limits of bodies.
    """

    services: VaultServices
    base_url: Callable[[Scope], str]
    resource: Callable[[str, str], str | None]
    config: ServerConfig


class AuthorityApp:
    """The ASGI application; belongs to the event loop it first runs in."""

    def __init__(self, parts: AuthorityParts) -> None:
        self.parts = parts
        self._threads: Threads | None = None

    async def __call__(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        """Answer one request."""
        started, request_id = perf_counter(), new_id(self.parts.services.random)
        http = SmallExchange(scope, receive, send, pause=self.parts.config.body_timeout / 1_000, seconds=REQUEST_SECONDS)
        try:
            answer = await self._answer(http, request_id)
        except OAuthError as error:
            answer = _refusal(error, request_id)
        except KeysteadError as error:
            answer = _refusal(_translated(error), request_id)
        except asyncio.CancelledError:
            raise
        except Exception:
            log.exception("the request %s met a defect", request_id)
            answer = _refusal(OAuthError(500, "server_error", "the request met a defect; see the server's log"), request_id)
        body = json.dumps(answer.document, separators=(",", ":")).encode()
        await http.answer(answer.status, _headers(answer, body, request_id), body)
        write = log.info if scope["method"] == "POST" else log.debug
        write(
            "sign-in",
            extra={
                "request_id": request_id,
                "method": scope["method"] if scope["method"] in {"GET", "POST"} else "",
                "status": answer.status,
                "error": answer.document.get("error", ""),
                "client": answer.client_id,
                "client_ip": _peer(scope),
                "ms": round((perf_counter() - started) * 1_000, 1),
            },
        )

    def stop(self) -> None:
        """Requests that come are still answered."""

    def close(self) -> None:
        """Let the threads go."""
        if self._threads is not None:
            self._threads.close()

    async def _answer(self, http: SmallExchange, request_id: str) -> Answer:
        http.check_headers()
        scope = http.scope
        base, path, method = self.parts.base_url(scope), scope["path"], scope["method"]
        if path == _INSTANCE:
            _need_method(method, "GET")
            return Answer(200, _instance(base, scope["query_string"]))
        found = _PATH.fullmatch(path)
        tenant_id, rest = (found[1].lower(), found[2]) if found else ("", "")
        if not _ID.fullmatch(tenant_id):
            raise OAuthError(404, "invalid_request", "there is nothing at this address; it begins with the id of a tenant")
        if rest in _METADATA:
            _need_method(method, "GET")
            return Answer(200, metadata(base, tenant_id))
        if rest in _KEYS:
            _need_method(method, "GET")
            return Answer(200, {"keys": await self._in_thread(http, tokens.key_set, self.parts.services)})
        if rest not in {_TOKEN_V1, _TOKEN_V2}:
            raise OAuthError(404, "invalid_request", "there is nothing at this address")
        _need_method(method, "POST")
        headers = http.headers
        if headers.get(b"content-type", b"").partition(b";")[0].strip().lower() != FORM.encode():
            raise OAuthError(415, "invalid_request", f"a token request is sent as {FORM}")
        body = await http.body(MAX_BODY)
        request = token_request(body, headers.get(b"authorization", b""), v1=rest == _TOKEN_V1)
        identity = Identity(
            client(request.client_id),
            tenant_id,
            _peer(scope),
            request_id,
            client_info=headers.get(b"user-agent", b"").decode("ascii", "replace")[:MAX_AGENT],
            request_uri=base + path,
            api_version=API_VERSION,
        )
        answer: Answer = await self._in_thread(http, self._issue, identity, request, base, rest == _TOKEN_V1)
        return answer

    def _issue(self, identity: Identity, request: TokenRequest, base: str, v1: bool) -> Answer:  # noqa: FBT001 - called through a thread
        """In a thread: who the client is first, what it may name as a resource then: that is nobody else's business."""
        services = self.parts.services
        vault = self.parts.resource(identity.tenant_id, request.resource)
        found = tokens.authenticate(services, identity, request.client_secret, vault or "")
        if vault is None:
            raise OAuthError(
                400,
                "invalid_target" if v1 else "invalid_scope",
                f"{request.resource} is no vault of this tenant, and not the address of its vaults",
            )
        token = tokens.issue(services, found, request.resource, identity.tenant_id, base)
        seconds = services.settings.client_token_lifetime // 1_000
        document: dict[str, Any] = {"token_type": "Bearer", "expires_in": seconds, "ext_expires_in": seconds, "access_token": token}
        if v1:
            now = services.clock.now() // 1_000
            document |= {
                "expires_in": str(seconds),
                "ext_expires_in": str(seconds),
                "expires_on": str(now + seconds),
                "not_before": str(now),
                "resource": request.resource,
            }
        return Answer(200, document, client_id=found.id)

    async def _in_thread(self, http: SmallExchange, function: Callable[..., Any], *arguments: Any) -> Any:  # noqa: ANN401 - carries any call
        if self._threads is None:
            self._threads = Threads(asyncio.get_running_loop(), THREADS, "sign-in")
        return await http.within(self._threads.submit(function, *arguments))


def metadata(base: str, tenant_id: str) -> dict[str, Any]:
    """OpenID Connect Discovery 1.0 section 3, as far as there is something to discover."""
    root = f"{base}/{tenant_id}"
    return {
        "issuer": issuer_of(base, tenant_id),
        "token_endpoint": f"{root}{_TOKEN_V2}",
        "authorization_endpoint": f"{root}/oauth2/v2.0/authorize",
        "jwks_uri": f"{root}/discovery/v2.0/keys",
        "token_endpoint_auth_methods_supported": ["client_secret_post", "client_secret_basic"],
        "grant_types_supported": ["client_credentials"],
        "response_types_supported": ["token"],
        "response_modes_supported": ["query"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": [ALGORITHM],
        "scopes_supported": [],
    }


def token_request(body: bytes, authorization: bytes, *, v1: bool) -> TokenRequest:
    """A request for a token, read strictly: nothing may be there twice (RFC 6749 section 3.2).

    Args:
        body: a form.
        authorization: the header; a client may show its secret there instead (section 2.3.1), but not in both places.
        v1: whether the resource is named as `resource`, else as `scope`.

    Raises:
        OAuthError: what is wrong with it.
    """
    form = _form(body)
    grant = form.get("grant_type", "")
    if not grant:
        raise OAuthError(400, "invalid_request", "grant_type is missing")
    if grant != "client_credentials":
        raise OAuthError(400, "unsupported_grant_type", "clients of vaults sign in with client_credentials alone")
    if "client_assertion" in form:
        raise OAuthError(400, "invalid_request", "clients of vaults sign in with a secret; assertions are not taken")
    client_id, secret = _basic(authorization) if authorization else (form.get("client_id", ""), form.get("client_secret", ""))
    if authorization and ("client_secret" in form or form.get("client_id", client_id) != client_id):
        raise OAuthError(400, "invalid_request", "the client names itself in the header and, otherwise, in the form")
    if not client_id or not secret:
        raise OAuthError(401, "invalid_client", "client_id or client_secret is missing")
    wanted = form.get("resource" if v1 else "scope", "")
    if not v1 and not wanted.endswith(DEFAULT_SCOPE):
        raise OAuthError(400, "invalid_scope", "the scope is that of one resource: RESOURCE/.default, as the vault's challenge names it")
    resource = resource_name(wanted if v1 else wanted.removesuffix(DEFAULT_SCOPE))
    if resource is None:
        raise OAuthError(
            400, "invalid_target" if v1 else "invalid_scope", "the resource is an address such as https://vault.contoso.example"
        )
    return TokenRequest(client_id.lower(), secret, resource)


def _form(body: bytes) -> dict[str, str]:
    malformed = OAuthError(400, "invalid_request", f"the body is no form, or names something twice; at most {MAX_FIELDS} fields are taken")
    try:
        pairs = parse_qsl(
            body.decode("ascii"), keep_blank_values=True, strict_parsing=bool(body), errors="strict", max_num_fields=MAX_FIELDS
        )
    except ValueError:
        raise malformed from None
    form = dict(pairs)
    if len(form) != len(pairs) or any(len(value) > MAX_VALUE or not value.isprintable() for value in form.values()):
        raise malformed
    return form


def _basic(authorization: bytes) -> tuple[str, str]:
    """Id and secret from the header (RFC 7617), each encoded as in a form before (RFC 6749 section 2.3.1)."""
    scheme, _, encoded = authorization.partition(b" ")
    try:
        if scheme.lower() != b"basic" or len(encoded) > MAX_VALUE:
            raise ValueError  # noqa: TRY301 - refused like what cannot be decoded
        name, colon, secret = base64.b64decode(encoded.strip(), validate=True).decode("ascii").partition(":")
        client_id, client_secret = unquote_plus(name, errors="strict"), unquote_plus(secret, errors="strict")
    except ValueError:
        raise OAuthError(401, "invalid_client", "the Authorization header is not that of a client", _BASIC) from None
    if not colon or not client_id.isprintable() or not client_secret.isprintable():
        raise OAuthError(401, "invalid_client", "the Authorization header is not that of a client", _BASIC)
    return client_id, client_secret


_BASIC = ((b"www-authenticate", b'Basic realm="keystead"'),)


def _translated(error: KeysteadError) -> OAuthError:
    text = f"{error.code}: {error.detail}" + (f"; {error.mend}" if error.mend else "")
    if error.code == "client_unknown":  # as other authorities of this kind say it: no such application in the directory
        return OAuthError(400, "unauthorized_client", text)
    if isinstance(error, Unauthenticated):
        return OAuthError(401, "invalid_client", text, _BASIC)
    if isinstance(error, Throttled):
        return OAuthError(429, "temporarily_unavailable", text, ((b"retry-after", b"%d" % -(-error.retry_after // 1_000)),))
    if isinstance(error, Unavailable):
        return OAuthError(503, "temporarily_unavailable", text, ((b"retry-after", b"1"),))
    if isinstance(error, InvalidRequest):
        return OAuthError(_STATUSES.get(error.code, 400), "invalid_request", text)
    return OAuthError(500, "server_error", f"{error.code}: the request cannot be answered now; see the server's log")


_STATUSES = {"body_timed_out": 408, "request_too_large": 413, "media_type_wrong": 415}


def _refusal(error: OAuthError, request_id: str) -> Answer:
    document = {"error": error.error, "error_description": error.description, "trace_id": request_id, "correlation_id": request_id}
    return Answer(error.status, document, error.headers)


def _instance(base: str, query: bytes) -> dict[str, Any]:
    """The authority knows itself, and where the metadata of the asked tenant are."""
    host = base.removeprefix("https://")
    asked = _ASKED.search("&" + unquote_plus(query.decode("ascii", "replace")).lower())
    return {
        "tenant_discovery_endpoint": f"{base}/{asked[1] if asked else 'common'}/v2.0/.well-known/openid-configuration",
        "api-version": "1.1",
        "metadata": [{"preferred_network": host, "preferred_cache": host, "aliases": [host]}],
    }


def _need_method(method: str, wanted: str) -> None:
    if method != wanted and not (wanted == "GET" and method == "HEAD"):
        raise OAuthError(405, "invalid_request", f"this address takes {wanted}", ((b"allow", wanted.encode()),))


def _peer(scope: Scope) -> str:
    peer = scope.get("client")
    return peer[0] if peer else ""


def _headers(answer: Answer, body: bytes, request_id: str) -> list[Header]:
    return [
        (b"content-type", b"application/json; charset=utf-8"),
        (b"content-length", b"%d" % len(body)),
        (b"cache-control", b"no-store"),
        (b"pragma", b"no-cache"),
        (b"x-content-type-options", b"nosniff"),
        (b"x-ms-request-id", request_id.encode()),
        *answer.headers,
    ]
