"""The signed POST of docs/spec/hooks.md, against a real receiver."""

from __future__ import annotations

import dataclasses
import itertools
import json
import ssl
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import trustme

from keystead.adapters.notify import http as http_hook
from keystead.adapters.notify.document import body_of
from keystead.adapters.notify.open import open_hooks
from keystead.adapters.notify.secrets import sign
from keystead.core.alerts import AlertKind
from keystead.core.configuration import Configuration, HookConfig, HookKind
from keystead.core.errors import InvalidRequest
from keystead.ports.notify import Message, NotDelivered
from support.hooks import SECRET, Receiver, raw, receiver, secret_file, status, verify

if TYPE_CHECKING:
    from collections.abc import Iterator
    from http.server import BaseHTTPRequestHandler

    from keystead.ports.notify import Hook

VECTORS = json.loads((Path(__file__).parents[2] / "vectors" / "hooks.json").read_text())
NOW = 1_780_000_000_000
MESSAGE = Message(**VECTORS["message"])


@pytest.fixture
def phone() -> Iterator[Receiver]:
    with receiver() as made:
        yield made


def hook(folder: Path, url: str, *secrets: str, **more: Any) -> Hook:
    file = secret_file(folder, *secrets)
    config = HookConfig(name="phone", kind=HookKind.HTTP, url=url, secret_file=file.name, **more)
    return open_hooks(Configuration(hooks=(config,)), folder)[0]


@pytest.mark.parametrize("case", VECTORS["signatures"], ids=lambda case: case["name"])
def test_signatures_are_those_of_the_vectors(case: dict[str, Any]) -> None:
    body = case["body"].encode()
    assert sign([secret.encode() for secret in case["secrets"]], case["t"], body) == case["header"]
    assert all(verify(secret.encode(), case["header"], body, case["t"]) for secret in case["secrets"])
    assert not verify(b"another secret of 32 characters.", case["header"], body, case["t"])
    assert not verify(case["secrets"][0].encode(), case["header"], body + b" ", case["t"])
    assert not verify(case["secrets"][0].encode(), case["header"], body, case["t"] + 300_001), "an old one, played again"


def test_the_body_is_that_of_the_vectors() -> None:
    assert body_of(MESSAGE).decode() == VECTORS["body"]
    assert len(body_of(MESSAGE)) < 4096


def test_a_post_arrives_as_specified(tmp_path: Path, phone: Receiver) -> None:
    assert hook(tmp_path, phone.url + "?to=on-call").send(MESSAGE, NOW) == "the receiver answered 204"
    [told] = phone.told
    assert told.path == "/told?to=on-call"
    assert told.body.decode() == VECTORS["body"]
    assert told.headers["content-type"] == "application/json"
    assert told.headers["keystead-event"] == MESSAGE.id
    assert told.headers["user-agent"].startswith("keystead/")
    assert verify(SECRET.encode(), told.headers["keystead-signature"], told.body, NOW)


def test_a_secret_is_rotated_by_replacing_the_file(tmp_path: Path, phone: Receiver) -> None:
    new = "fedcba9876543210fedcba9876543210"
    told_by = hook(tmp_path, phone.url)
    for secrets in ((SECRET,), (SECRET, new), (new,)):
        secret_file(tmp_path, *secrets)
        told_by.send(MESSAGE, NOW)
    good = [
        [verify(secret.encode(), told.headers["keystead-signature"], told.body, NOW) for secret in (SECRET, new)] for told in phone.told
    ]
    assert good == [[True, False], [True, True], [False, True]]


@pytest.mark.parametrize(
    "secrets", [[], ["short"], [SECRET] * 5, ["with space 0123456789abcdef0123456789"]], ids=["none", "short", "five", "space"]
)
def test_without_a_good_secret_nothing_is_sent_and_none_is_told(tmp_path: Path, phone: Receiver, secrets: list[str]) -> None:
    told_by = hook(tmp_path, phone.url)
    (tmp_path / "hook.secret").write_text("\n".join(secrets))
    with pytest.raises(NotDelivered, match=r"hook\.secret") as caught:
        told_by.send(MESSAGE, NOW)
    assert phone.told == []
    assert all(secret not in str(caught.value) + repr(told_by) for secret in secrets)


def test_a_missing_secret_file_is_named(tmp_path: Path, phone: Receiver) -> None:
    told_by = hook(tmp_path, phone.url)
    (tmp_path / "hook.secret").unlink()
    with pytest.raises(NotDelivered, match=r"hook\.secret cannot be read"):
        told_by.send(MESSAGE, NOW)


@pytest.mark.parametrize("code", [199 + 101, 301, 302, 307, 308, 400, 404, 410, 429, 500, 503])
def test_every_answer_but_success_is_a_failure_and_redirects_lead_nowhere(tmp_path: Path, phone: Receiver, code: int) -> None:
    with receiver() as elsewhere:
        phone.answer = status(code, Location=elsewhere.url)
        with pytest.raises(NotDelivered, match=str(code)):
            hook(tmp_path, phone.url).send(MESSAGE, NOW)
        assert elsewhere.told == []
    assert len(phone.told) == 1


GARBAGE = {
    "nothing": raw(),
    "no HTTP": raw(b"220 mail.test ESMTP\r\n"),
    "half a status line": raw(b"HTTP/1.1 20"),
    "a status that is none": raw(b"HTTP/1.1 abc OK\r\n\r\n"),
    "bytes": raw(bytes(range(256)) * 64),
    "a line without end": raw(b"HTTP/1.1 200 OK\r\nX: ", *itertools.repeat(b"x" * 1024, 512)),
    "headers without end": raw(b"HTTP/1.1 200 OK\r\n", *itertools.repeat(b"X: " + b"x" * 1000 + b"\r\n", 90)),
}


@pytest.mark.parametrize("answer", GARBAGE.values(), ids=GARBAGE)
def test_garbage_is_a_failure(tmp_path: Path, phone: Receiver, answer: Any) -> None:
    phone.answer = answer
    with pytest.raises(NotDelivered) as caught:
        hook(tmp_path, phone.url).send(MESSAGE, NOW)
    assert str(caught.value).isprintable()
    assert "mail.test" not in str(caught.value), "what the other side says is not passed on"


def test_the_body_of_an_answer_is_not_waited_for(tmp_path: Path, phone: Receiver) -> None:
    def endless(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", str(10**12))
        handler.end_headers()
        handler.wfile.flush()
        phone.gone.wait(30)

    phone.answer = endless
    assert hook(tmp_path, phone.url).send(MESSAGE, NOW) == "the receiver answered 200"


def _hang(phone: Receiver) -> None:
    def hang(_handler: BaseHTTPRequestHandler) -> None:
        phone.gone.wait(30)

    phone.answer = hang


def _drip(phone: Receiver) -> None:
    def drip(handler: BaseHTTPRequestHandler) -> None:
        for byte in itertools.chain(b"HTTP/1.1 200 OK\r\n", itertools.cycle(b"X: y\r\n")):
            handler.wfile.write(bytes([byte]))
            if phone.gone.wait(0.05):
                return

    phone.answer = drip


@pytest.mark.parametrize("behave", [_hang, _drip])
def test_a_receiver_that_hangs_or_drips_is_left_in_time(
    tmp_path: Path, phone: Receiver, monkeypatch: pytest.MonkeyPatch, behave: Any
) -> None:
    monkeypatch.setattr(http_hook, "STEP_SECONDS", 0.5)
    behave(phone)
    began = time.monotonic()
    with pytest.raises(NotDelivered):
        hook(tmp_path, phone.url).send(MESSAGE, NOW)
    assert time.monotonic() - began < 20, "the receiver goes on for thirty"


def test_a_port_nobody_listens_on(tmp_path: Path) -> None:
    with receiver() as gone:
        url = gone.url
    with pytest.raises(NotDelivered, match="cannot be reached"):
        hook(tmp_path, url).send(MESSAGE, NOW)


def test_no_proxy_is_asked(tmp_path: Path, phone: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    with receiver() as proxy:
        for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.url)
        hook(tmp_path, phone.url).send(MESSAGE, NOW)
        assert proxy.told == []
    assert len(phone.told) == 1


# -- TLS --------------------------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


def tls_server(authority: trustme.CA, *names: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(*names).configure_cert(context)
    return context


def test_the_certificate_is_checked_against_the_configured_authority(tmp_path: Path, authority: trustme.CA) -> None:
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    trustme.CA().cert_pem.write_to_path(str(tmp_path / "other.pem"))
    with receiver(tls_server(authority, "localhost")) as phone:
        assert hook(tmp_path, phone.url, ca_file="ca.pem").send(MESSAGE, NOW).endswith("204")
        for more in ({}, {"ca_file": "other.pem"}):
            with pytest.raises(NotDelivered, match="certificate"):
                hook(tmp_path, phone.url, **more).send(MESSAGE, NOW)
        assert len(phone.told) == 1
    with receiver(tls_server(authority, "elsewhere.example")) as phone:
        with pytest.raises(NotDelivered, match="certificate"):
            hook(tmp_path, phone.url, ca_file="ca.pem").send(MESSAGE, NOW)
        assert phone.told == []


def test_a_handshake_that_hangs_is_left_in_time(tmp_path: Path, phone: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    """The receiver speaks no TLS and waits for more: for a request that never comes."""
    monkeypatch.setattr(http_hook, "STEP_SECONDS", 0.5)
    began = time.monotonic()
    with pytest.raises(NotDelivered):
        hook(tmp_path, phone.url.replace("http:", "https:")).send(MESSAGE, NOW)
    assert time.monotonic() - began < 20, "the receiver goes on for thirty"


# -- configuration ------------------------------------------------------------------------------------------------------------------------

GOOD = HookConfig(name="phone", kind=HookKind.HTTP, url="https://hooks.example/x", secret_file="hook.secret")
BAD = {
    "http beyond loopback": {"url": "http://hooks.example/x"},
    "http to a name like loopback": {"url": "http://localhost.example/x"},
    "no url": {"url": ""},
    "no scheme": {"url": "hooks.example/x"},
    "file": {"url": "file:///etc/passwd"},
    "user": {"url": "https://user:pass@hooks.example/x"},
    "fragment": {"url": "https://hooks.example/x#y"},
    "line end": {"url": "https://hooks.example/x\r\nX: y"},
    "space": {"url": "https://hooks.example/x y"},
    "no host": {"url": "https:///x"},
    "a port that is none": {"url": "https://hooks.example:99999/x"},
    "port 0": {"url": "https://hooks.example:0/x"},
    "no secret": {"secret_file": ""},
    "a kind that is none": {"alerts": ("key-lost",)},
    "a name with a line end": {"name": "a\nb"},
    "an empty name": {"name": ""},
    "a long name": {"name": "a" * 33},
    "what belongs to a mail": {"server": "mail.example:25"},
    "no such authority": {"ca_file": "missing.pem"},
}


@pytest.mark.parametrize("change", BAD.values(), ids=BAD)
def test_a_hook_that_cannot_be_used_is_refused_at_the_start(tmp_path: Path, change: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest) as caught:
        open_hooks(Configuration(hooks=(dataclasses.replace(GOOD, **change),)), tmp_path)
    assert caught.value.code == "hook_invalid"


def test_names_are_unique_and_hooks_few(tmp_path: Path) -> None:
    hooks = open_hooks(
        Configuration(hooks=(GOOD, dataclasses.replace(GOOD, name="other", alerts=("key-denied",), tenant="contoso"))), tmp_path
    )
    assert [(one.name, one.kinds, one.tenant) for one in hooks] == [
        ("phone", frozenset(), ""),
        ("other", frozenset({AlertKind.KEY_DENIED}), "contoso"),
    ]
    with pytest.raises(InvalidRequest, match="same name"):
        open_hooks(Configuration(hooks=(GOOD, GOOD)), tmp_path)
    with pytest.raises(InvalidRequest, match="more than 20"):
        open_hooks(Configuration(hooks=tuple(dataclasses.replace(GOOD, name=f"h{number}") for number in range(21))), tmp_path)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "[::1]", "localhost", "LOCALHOST"])
def test_http_is_taken_on_loopback(tmp_path: Path, host: str) -> None:
    assert open_hooks(Configuration(hooks=(dataclasses.replace(GOOD, url=f"http://{host}:8080/x"),)), tmp_path)


def test_no_watchdog_is_left_behind(tmp_path: Path, phone: Receiver) -> None:
    hook(tmp_path, phone.url).send(MESSAGE, NOW)
    assert [thread.name for thread in threading.enumerate() if thread.name == "deadline"] == []
