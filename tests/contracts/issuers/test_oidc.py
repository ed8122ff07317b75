"""Asking issuers for their keys: a real provider, one that lies, one that is slow, one that is gone."""

from __future__ import annotations

import json
import ssl
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import pytest
import trustme
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from keystead.adapters.oidc import ASK_AGAIN, MOST_BYTES, MOST_KEYS, HttpIssuers
from keystead.core.configuration import SignInConfig
from keystead.core.errors import InvalidRequest, Unauthenticated, Unavailable
from keystead.core.settings import Settings
from keystead.ports.clock import HOUR, MINUTE
from keystead.services.jws import verify_provided
from support.oidc import ALGORITHMS, provider
from support.tokens import parts, public_jwk
from support.world import ManualClock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from support.oidc import Provider

pytestmark = pytest.mark.xdist_group("oidc")

SETTINGS = replace(Settings(), issuer_timeout=20_000)


@pytest.fixture(scope="module")
def real() -> Iterator[Provider]:
    with provider({"alice": {"audience": "keystead", "claims": {"preferred_username": "alice@contoso.example"}}}) as running:
        yield running


def issuers_for(*names: str, clock: ManualClock | None = None, settings: Settings = SETTINGS, **config: Any) -> HttpIssuers:
    return HttpIssuers(SignInConfig(issuers=names, **({"allow_http": True} | config)), settings, clock or ManualClock())


# -- a real provider ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_real_providers_tokens_verify_with_the_keys_it_publishes(real: Provider, algorithm: str) -> None:
    token = real.token("alice", algorithm)
    header, claims, _signature = parts(token)
    key = issuers_for(real.issuer).key(real.issuer, header["kid"])
    assert key is not None
    assert (header["alg"], claims["iss"], key.algorithm) == (algorithm, real.issuer, algorithm)
    verify_provided(token, algorithm, key)
    body, _dot, signature = token.rpartition(".")
    for forged in (f"{body}.{signature[::-1]}", f"{body[:-2]}.{signature}"):
        with pytest.raises(Unauthenticated) as caught:
            verify_provided(forged, algorithm, key)
        assert caught.value.code == "token_signature_invalid"


def test_a_real_providers_rotation_is_followed_within_a_minute(real: Provider) -> None:
    clock = ManualClock()
    issuers = issuers_for(real.issuer, clock=clock)
    old = parts(real.token("alice"))[0]["kid"]
    assert issuers.key(real.issuer, old) is not None
    real.tell("rotate")
    fresh = parts(real.token("alice"))[0]["kid"]
    assert fresh != old
    assert issuers.key(real.issuer, fresh) is None, "asked less than a minute ago"
    clock.advance(ASK_AGAIN)
    assert issuers.key(real.issuer, fresh) is not None
    assert issuers.key(real.issuer, old) is not None, "still published"
    real.tell("withdraw")
    clock.advance(HOUR)
    assert issuers.key(real.issuer, old) is None
    assert issuers.key(real.issuer, fresh) is not None


# -- one that does what a test says ------------------------------------------------------------------------------------------------------


@dataclass
class Fake:
    """A server of a test: by path, a document, bytes with a status, or a function that answers."""

    answers: dict[str, Any] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    issuer: str = ""

    def publish(self, *keys: dict[str, Any]) -> None:
        self.answers["/jwks"] = {"keys": list(keys)}


def serving(fake: Fake, tls: ssl.SSLContext | None = None) -> ThreadingHTTPServer:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            fake.asked.append(self.path)
            answer = fake.answers.get(self.path, (404, b""))
            if callable(answer):
                answer(self)
                return
            status, data = answer if isinstance(answer, tuple) else (200, json.dumps(answer).encode())
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            if 300 <= status < 400:
                self.send_header("Location", fake.issuer + "/elsewhere")
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *arguments: object) -> None:
            """Quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    return server


@pytest.fixture
def fake() -> Iterator[Fake]:
    made = Fake()
    server = serving(made)
    made.issuer = f"http://127.0.0.1:{server.server_port}"
    made.answers["/.well-known/openid-configuration"] = {"issuer": made.issuer, "jwks_uri": made.issuer + "/jwks"}
    made.publish(KEY)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield made
    server.shutdown()
    server.server_close()
    thread.join()


PRIVATE = ec.generate_private_key(ec.SECP256R1())
KEY: dict[str, Any] = {**public_jwk(PRIVATE), "kid": "one", "use": "sig", "alg": "ES256"}


def why(issuers: HttpIssuers, issuer: str, key_id: str = "one") -> str:
    with pytest.raises(Unavailable) as caught:
        issuers.key(issuer, key_id)
    assert caught.value.code == "sign_in_provider_unavailable"
    return caught.value.detail


def test_answers_are_kept_and_asked_for_again_after_a_time(fake: Fake) -> None:
    clock = ManualClock()
    issuers = issuers_for(fake.issuer, clock=clock)
    for _ in range(50):
        assert issuers.key(fake.issuer, "one") is not None
    assert fake.asked == ["/.well-known/openid-configuration", "/jwks"]
    clock.advance(HOUR)
    assert issuers.key(fake.issuer, "one") is not None
    assert len(fake.asked) == 4


def test_unknown_keys_make_us_ask_at_most_once_a_minute(fake: Fake) -> None:
    clock = ManualClock()
    issuers = issuers_for(fake.issuer, clock=clock)
    for number in range(100):
        assert issuers.key(fake.issuer, f"invented {number}") is None
    assert fake.asked.count("/jwks") == 1
    clock.advance(ASK_AGAIN)
    for number in range(100):
        assert issuers.key(fake.issuer, f"invented {number}") is None
    assert fake.asked.count("/jwks") == 2


def test_many_threads_ask_once(fake: Fake) -> None:
    issuers = issuers_for(fake.issuer)
    with ThreadPoolExecutor(16) as pool:
        found = set(pool.map(lambda _: issuers.key(fake.issuer, "one"), range(64)))
    assert len(found) == 1
    assert None not in found
    assert fake.asked.count("/jwks") == 1


def test_while_an_issuer_is_away_its_keys_serve_until_their_end_and_then_nothing_does(fake: Fake) -> None:
    clock = ManualClock()
    issuers = issuers_for(fake.issuer, clock=clock)
    assert issuers.key(fake.issuer, "one") is not None
    fake.answers["/jwks"] = (500, b"")
    clock.advance(HOUR)
    assert issuers.key(fake.issuer, "one") is not None
    assert "status 500" in why(issuers, fake.issuer, "two"), "it may have that key, and cannot say so"
    clock.advance(23 * HOUR)
    assert issuers.key(fake.issuer, "one") is not None
    clock.advance(1)
    assert "status 500" in why(issuers, fake.issuer)
    fake.publish(KEY)
    assert "status 500" in why(issuers, fake.issuer), "asked a moment ago"
    clock.advance(ASK_AGAIN)
    assert issuers.key(fake.issuer, "one") is not None


def test_an_issuer_that_was_never_heard_of_is_unavailable() -> None:
    gone = "http://127.0.0.1:9"  # the port of nothing: discard, closed everywhere
    assert "ConnectError" in why(issuers_for(gone), gone)


def test_the_older_address_of_the_document_is_tried_where_the_first_is_missing(fake: Fake) -> None:
    """RFC 8414 section 3.1: the name goes between host and path."""
    issuer = fake.issuer + "/tenants/contoso"
    fake.answers["/.well-known/oauth-authorization-server/tenants/contoso"] = {"issuer": issuer, "jwks_uri": fake.issuer + "/jwks"}
    assert issuers_for(issuer).key(issuer, "one") is not None
    assert fake.asked[:2] == [
        "/tenants/contoso/.well-known/openid-configuration",
        "/.well-known/oauth-authorization-server/tenants/contoso",
    ]


def drip(handler: BaseHTTPRequestHandler, stop: threading.Event) -> None:
    """One byte at a time, for ever: never silent for long enough to be given up for that."""
    handler.send_response(200)
    handler.end_headers()
    try:
        while not stop.wait(0.02):
            handler.wfile.write(b" ")
            handler.wfile.flush()
    except OSError:
        return  # given up, as it must be


def test_a_slow_issuer_is_given_up(fake: Fake) -> None:
    stop = threading.Event()
    patience = replace(SETTINGS, issuer_timeout=1_500)
    fake.answers["/jwks"] = lambda handler: drip(handler, stop)
    assert "ReadTimeout" in why(issuers_for(fake.issuer, settings=patience), fake.issuer)
    fake.answers["/jwks"] = lambda handler: drip_header(handler, stop)
    assert "ReadTimeout" in why(issuers_for(fake.issuer, settings=patience), fake.issuer)
    stop.set()


def drip_header(handler: BaseHTTPRequestHandler, stop: threading.Event) -> None:
    """The same before the headers end."""
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nX-Slow: ")
    try:
        while not stop.wait(0.02):
            handler.wfile.write(b"x")
            handler.wfile.flush()
    except OSError:
        return  # given up, as it must be


LIES: dict[str, tuple[Callable[[Fake], dict[str, Any]], str]] = {
    "another issuer": (
        lambda fake: {"/.well-known/openid-configuration": {"issuer": fake.issuer + "/", "jwks_uri": fake.issuer + "/jwks"}},
        "another issuer",
    ),
    "no issuer": (lambda fake: {"/.well-known/openid-configuration": {"jwks_uri": fake.issuer + "/jwks"}}, "another issuer"),
    "no key set": (lambda fake: {"/.well-known/openid-configuration": {"issuer": fake.issuer}}, "names no key set"),
    "key set elsewhere": (
        lambda fake: {"/.well-known/openid-configuration": {"issuer": fake.issuer, "jwks_uri": "http://127.0.0.2:1/jwks"}},
        "another host",
    ),
    "key set on another port": (
        lambda fake: {"/.well-known/openid-configuration": {"issuer": fake.issuer, "jwks_uri": "http://127.0.0.1:1/jwks"}},
        "another host",
    ),
    "key set inside": (
        lambda fake: {"/.well-known/openid-configuration": {"issuer": fake.issuer, "jwks_uri": "http://169.254.169.254/latest/meta-data"}},
        "not asked",
    ),
    "key set in a file": (
        lambda fake: {"/.well-known/openid-configuration": {"issuer": fake.issuer, "jwks_uri": "file:///etc/passwd"}},
        "not asked",
    ),
    "key set with a name and password": (
        lambda fake: {
            "/.well-known/openid-configuration": {"issuer": fake.issuer, "jwks_uri": fake.issuer.replace("//", "//a:b@") + "/jwks"}
        },
        "not asked",
    ),
    "redirected document": (lambda _fake: {"/.well-known/openid-configuration": (302, b"")}, "status 302"),
    "redirected keys": (lambda _fake: {"/jwks": (307, b"")}, "status 307"),
    "no document": (lambda _fake: {"/.well-known/openid-configuration": (404, b"")}, "no discovery document"),
    "too long": (lambda _fake: {"/jwks": (200, b" " * (MOST_BYTES + 1))}, "more than"),
    "no JSON": (lambda _fake: {"/jwks": (200, b"<html>")}, "not JSON"),
    "deep JSON": (lambda _fake: {"/jwks": (200, b"[" * 100_000)}, "not JSON"),
    "no object": (lambda _fake: {"/jwks": (200, b"[]")}, "no JSON object"),
    "no list": (lambda _fake: {"/jwks": {"keys": {"one": KEY}}}, "no list"),
    "too many keys": (lambda _fake: {"/jwks": {"keys": [KEY] * (MOST_KEYS + 1)}}, "no list of at most"),
    "nothing": (lambda _fake: {"/jwks": (204, b"")}, "status 204"),
}


@pytest.mark.parametrize("lie", LIES)
def test_an_issuer_that_lies_gives_no_keys(fake: Fake, lie: str) -> None:
    answers, text = LIES[lie]
    fake.answers |= answers(fake)
    assert text in why(issuers_for(fake.issuer), fake.issuer)
    assert "/elsewhere" not in fake.asked


def without(name: str) -> dict[str, Any]:
    return {member: value for member, value in KEY.items() if member != name}


SMALL = rsa.generate_private_key(65537, 1024)  # noqa: S505 - on purpose
UNUSABLE: dict[str, dict[str, Any]] = {
    "a shared secret": {"kty": "oct", "k": "c2VjcmV0", "kid": "one", "alg": "HS256"},
    "for encryption": KEY | {"use": "enc"},
    "for signing alone": KEY | {"key_ops": ["sign"]},
    "a curve not on the list": KEY | {"crv": "secp256k1"},
    "another curve": {"kty": "OKP", "crv": "X25519", "x": "AAAA", "kid": "one"},
    "a small modulus": {**public_jwk(SMALL), "kid": "one"},
    "a huge modulus": {"kty": "RSA", "n": "A" * 3_000, "e": "AQAB", "kid": "one"},
    "no id": without("kid"),
    "an id that is no text": KEY | {"kid": 7},
    "a half": without("y"),
    "a half that is no text": KEY | {"y": 7},
    "no kind": without("kty"),
    "a kind that is no text": KEY | {"kty": ["EC"]},
    "an algorithm that is no text": KEY | {"alg": 7},
}


@pytest.mark.parametrize("kind", UNUSABLE)
def test_keys_that_are_of_no_use_are_passed_over(fake: Fake, kind: str) -> None:
    fake.publish(UNUSABLE[kind], KEY | {"kid": "good"}, "no key")  # type: ignore[arg-type]  # on purpose
    issuers = issuers_for(fake.issuer)
    assert issuers.key(fake.issuer, "one") is None
    assert issuers.key(fake.issuer, "good") is not None


def test_of_two_keys_with_one_id_neither_is_taken(fake: Fake) -> None:
    fake.publish(KEY, {**public_jwk(Ed25519PrivateKey.generate()), "kid": "one"}, KEY | {"kid": "two"})
    issuers = issuers_for(fake.issuer)
    assert issuers.key(fake.issuer, "one") is None
    assert issuers.key(fake.issuer, "two") is not None


def test_private_members_that_an_issuer_publishes_by_mistake_go_no_further(fake: Fake) -> None:
    fake.publish(KEY | {"d": "c2VjcmV0"})
    key = issuers_for(fake.issuer).key(fake.issuer, "one")
    assert key is not None
    assert set(json.loads(key.jwk)) == {"kty", "crv", "x", "y"}


def test_a_key_that_cannot_be_read_verifies_nothing(fake: Fake) -> None:
    fake.publish(KEY | {"x": "!!"}, {"kty": "RSA", "n": "A" * 342, "e": "!", "kid": "two"})
    issuers = issuers_for(fake.issuer)
    for key_id, algorithm in (("one", "ES256"), ("two", "RS256")):
        key = issuers.key(fake.issuer, key_id)
        assert key is not None
        with pytest.raises(Unauthenticated):
            verify_provided("e30.e30.AAAA", algorithm, key)


def test_hosts_of_keys_that_the_operator_lists_are_asked(fake: Fake) -> None:
    other = Fake()
    server = serving(other)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        other.publish(KEY)
        fake.answers["/.well-known/openid-configuration"]["jwks_uri"] = f"http://localhost:{server.server_port}/jwks"
        assert "another host" in why(issuers_for(fake.issuer), fake.issuer)
        assert issuers_for(fake.issuer, key_hosts=("localhost",)).key(fake.issuer, "one") is not None
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.mark.parametrize(
    ("address", "allow_http"),
    [
        ("http://login.example", True),
        ("http://127.0.0.1:1", False),
        ("http://10.0.0.1", True),
        ("http://localhost.evil.example", True),
        ("ftp://login.example", True),
        ("login.example", True),
        ("https://", True),
        ("https://login.example?x=1", True),
        ("https://login.example#x", True),
        ("https://user@login.example", True),
        ("https://login.example:x", True),
        ("https://login.\u0435xample", True),
        ("", True),
    ],
)
def test_only_addresses_with_tls_are_issuers_but_for_tests_on_loopback(address: str, *, allow_http: bool) -> None:
    with pytest.raises(InvalidRequest) as caught:
        issuers_for(address, allow_http=allow_http)
    assert caught.value.code == "sign_in_issuer_invalid"


def test_an_issuer_is_exactly_what_the_operator_wrote() -> None:
    issuers = issuers_for("https://login.example/a")
    assert issuers.allows("https://login.example/a")
    for other in ("https://login.example/a/", "https://login.example", "https://LOGIN.example/a", "https://login.example/A", ""):
        assert not issuers.allows(other)


def test_tls_is_checked_against_the_authorities_the_operator_names(tmp_path: Path) -> None:
    authority, stranger = trustme.CA(), trustme.CA()
    for name, one in (("ours.pem", authority), ("theirs.pem", stranger)):
        one.cert_pem.write_to_path(tmp_path / name)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    fake = Fake()
    server = serving(fake, context)
    fake.issuer = f"https://127.0.0.1:{server.server_port}"
    fake.answers["/.well-known/openid-configuration"] = {"issuer": fake.issuer, "jwks_uri": fake.issuer + "/jwks"}
    fake.publish(KEY)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        asked: dict[str, Any] = {"allow_http": False, "settings": replace(SETTINGS, issuer_timeout=10_000)}
        assert issuers_for(fake.issuer, ca_file=str(tmp_path / "ours.pem"), **asked).key(fake.issuer, "one") is not None
        for file in (str(tmp_path / "theirs.pem"), ""):
            assert "ConnectError" in why(issuers_for(fake.issuer, ca_file=file, **asked), fake.issuer)
        wrong_name = fake.issuer.replace("127.0.0.1", "localhost")
        assert "ConnectError" in why(issuers_for(wrong_name, ca_file=str(tmp_path / "ours.pem"), **asked), wrong_name)
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_a_clock_that_jumps_back_asks_again_rather_than_trusting_the_future(fake: Fake) -> None:
    clock = ManualClock()
    issuers = issuers_for(fake.issuer, clock=clock)
    assert issuers.key(fake.issuer, "one") is not None
    clock.advance(-5 * MINUTE)
    fake.publish(KEY | {"kid": "two"})
    assert issuers.key(fake.issuer, "one") is None
