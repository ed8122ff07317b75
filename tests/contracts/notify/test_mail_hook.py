"""The mail of docs/spec/hooks.md, against a real SMTP server."""

from __future__ import annotations

import dataclasses
import json
import socket
import ssl
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import trustme

from keystead.adapters.notify import mail as mail_hook
from keystead.adapters.notify.limits import is_loopback
from keystead.adapters.notify.open import open_hooks
from keystead.core.configuration import Configuration, HookConfig, HookKind
from keystead.core.errors import InvalidRequest
from keystead.ports.notify import Message, NotDelivered
from support.hooks import Receiver, raw, receiver
from support.smtp import mail_server

if TYPE_CHECKING:
    from keystead.ports.notify import Hook

MESSAGE = Message(**json.loads((Path(__file__).parents[2] / "vectors" / "hooks.json").read_text())["message"])
GOOD = HookConfig(
    name="post", kind=HookKind.MAIL, server="127.0.0.1:25", sender="keystead@provider.example", recipients=("on-call@provider.example",)
)


def hook(folder: Path, port: int, **more: Any) -> Hook:
    config = dataclasses.replace(GOOD, **({"server": f"127.0.0.1:{port}"} | more))
    return open_hooks(Configuration(hooks=(config,)), folder)[0]


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


def tls_server(authority: trustme.CA, *names: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(*names).configure_cert(context)
    return context


def test_a_mail_arrives_as_specified(tmp_path: Path) -> None:
    with mail_server() as server:
        recipients = ("on-call@provider.example", "second@provider.example")
        assert hook(tmp_path, server.port, recipients=recipients).send(MESSAGE, 0) == "the mail server took it"
    [mail] = server.mails
    assert (mail.sender, tuple(mail.recipients)) == ("keystead@provider.example", recipients)
    assert mail.data.isascii()
    message = mail.message
    assert message["Subject"] == "[Keystead] critical: key-denied raised"
    assert message["Message-ID"] == f"<{MESSAGE.id}@provider.example>"
    assert message["Auto-Submitted"] == "auto-generated"
    assert message["From"] == "keystead@provider.example"
    assert message["To"] == ", ".join(recipients)
    assert message["Date"].datetime.timestamp() * 1000 == MESSAGE.when
    assert message.get_content_type() == "text/plain"
    assert [line.partition(": ")[0] for line in message.get_content().splitlines()] == [
        *("version", "id", "alert_id", "kind", "severity", "state", "tenant_id", "subject_id", "when", "text", "mend"),
    ]


def test_the_same_event_has_the_same_message_id(tmp_path: Path) -> None:
    with mail_server() as server:
        told_by = hook(tmp_path, server.port)
        for _again in range(2):
            told_by.send(MESSAGE, 0)
    assert len({mail.message["Message-ID"] for mail in server.mails}) == 1


def test_nothing_of_a_message_ends_a_header(tmp_path: Path) -> None:
    evil = "x\r\nBcc: all@provider.example"
    with mail_server() as server:
        for name in ("kind", "severity", "state", "id"):
            changed: dict[str, Any] = {name: evil}
            with pytest.raises(NotDelivered):
                hook(tmp_path, server.port).send(dataclasses.replace(MESSAGE, **changed), 0)
    assert server.mails == []


def test_starttls_is_used_when_it_is_offered(tmp_path: Path, authority: trustme.CA) -> None:
    with mail_server(tls_server(authority, "127.0.0.1")) as server:
        hook(tmp_path, server.port).send(MESSAGE, 0)
        authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
        hook(tmp_path, server.port, ca_file="ca.pem").send(MESSAGE, 0)
        trustme.CA().cert_pem.write_to_path(str(tmp_path / "ca.pem"))
        with pytest.raises(NotDelivered, match="certificate"):
            hook(tmp_path, server.port, ca_file="ca.pem").send(MESSAGE, 0)
    assert [mail.encrypted for mail in server.mails] == [True, True]


def test_beyond_loopback_nothing_goes_without_tls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not any(is_loopback(host) for host in ("mail.example", "10.0.0.1", "0.0.0.0", "localhost.example", "128.0.0.1"))  # noqa: S104
    with mail_server() as server:
        told_by = hook(tmp_path, server.port)
        monkeypatch.setattr(mail_hook, "is_loopback", lambda _host: False)
        with pytest.raises(NotDelivered, match="STARTTLS"):
            told_by.send(MESSAGE, 0)
    assert server.mails == []


def test_it_signs_in_where_it_is_told_to(tmp_path: Path, authority: trustme.CA) -> None:
    (tmp_path / "password").write_text("the right one\n")
    with mail_server(tls_server(authority, "127.0.0.1"), login=("keystead", "the right one")) as server:
        told_by = hook(tmp_path, server.port, user="keystead", password_file="password")
        told_by.send(MESSAGE, 0)
        (tmp_path / "password").write_text("a wrong one\n")
        with pytest.raises(NotDelivered, match="535") as caught:
            told_by.send(MESSAGE, 0)
        assert "wrong one" not in str(caught.value)
        with pytest.raises(NotDelivered, match="530"):
            hook(tmp_path, server.port).send(MESSAGE, 0)
    assert [mail.user for mail in server.mails] == ["keystead"]


def test_one_refused_recipient_of_two_is_named_and_both_refused_is_a_failure(tmp_path: Path) -> None:
    recipients = ("on-call@provider.example", "gone@provider.example")
    with mail_server() as server:
        server.refused = {"gone@provider.example"}
        told_by = hook(tmp_path, server.port, recipients=recipients)
        assert told_by.send(MESSAGE, 0) == "the mail server took it, but not for gone@provider.example"
        server.refused = set(recipients)
        with pytest.raises(NotDelivered, match="none of the recipients"):
            told_by.send(MESSAGE, 0)
    assert len(server.mails) == 1


@pytest.mark.parametrize("answer", ["451 later", "554 never"])
def test_a_server_that_does_not_take_it(tmp_path: Path, answer: str) -> None:
    with mail_server() as server:
        server.data_answer = answer
        with pytest.raises(NotDelivered, match=answer[:3]):
            hook(tmp_path, server.port).send(MESSAGE, 0)


def test_a_server_that_is_none_or_silent_or_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def port(server: Receiver) -> int:
        return int(server.url.rpartition(":")[2].partition("/")[0])

    monkeypatch.setattr(mail_hook, "STEP_SECONDS", 0.5)
    monkeypatch.setattr(mail_hook, "WHOLE_SECONDS", 1.0)
    with receiver() as silent:  # waits for a request line, as an HTTP server does
        silent.answer = raw(b"no SMTP\r\n")
        began = time.monotonic()
        with pytest.raises(NotDelivered):
            hook(tmp_path, port(silent)).send(MESSAGE, 0)
        assert time.monotonic() - began < 20
    with pytest.raises(NotDelivered, match="cannot be reached"):
        hook(tmp_path, port(silent)).send(MESSAGE, 0)


def test_a_server_that_greets_without_end_is_left_in_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mail_hook, "WHOLE_SECONDS", 0.5)
    gone = threading.Event()

    def greet() -> None:
        connection, _address = listening.accept()
        with connection:
            while not gone.wait(0.02):
                try:
                    connection.sendall(b"220-welcome\r\n")
                except OSError:
                    return

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=greet)
        thread.start()
        began = time.monotonic()
        with pytest.raises(NotDelivered):
            hook(tmp_path, listening.getsockname()[1]).send(MESSAGE, 0)
        assert time.monotonic() - began < 20, "it greets for ever"
        gone.set()
        thread.join()


BAD: dict[str, dict[str, Any]] = {
    "no recipients": {"recipients": ()},
    "too many": {"recipients": ("a@b.example",) * 21},
    "two in one": {"recipients": ("a@b.example,c@b.example",)},
    "a line end": {"recipients": ("a@b.example\r\nBcc: c@d.example",)},
    "a display name": {"sender": "Keystead <a@b.example>"},
    "no sender": {"sender": ""},
    "no server": {"server": ""},
    "a server with a path": {"server": "mail.example:25/x"},
    "a server with a user": {"server": "a@mail.example"},
    "a port that is none": {"server": "mail.example:x"},
    "a user alone": {"user": "a"},
    "a password alone": {"password_file": "p"},
    "what belongs to a post": {"url": "https://hooks.example"},
}


@pytest.mark.parametrize("change", BAD.values(), ids=BAD)
def test_a_hook_that_cannot_be_used_is_refused_at_the_start(tmp_path: Path, change: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest) as caught:
        open_hooks(Configuration(hooks=(dataclasses.replace(GOOD, **change),)), tmp_path)
    assert caught.value.code == "hook_invalid"
