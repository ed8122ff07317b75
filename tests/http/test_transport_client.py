"""The HTTP transport by itself: where secrets may go, what becomes of a server that is gone, another program, or a redirect."""

from __future__ import annotations

import threading
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import pytest

from keystead.api.routes import ROUTES, Body
from keystead.api.types import mailboxes as m
from keystead.api.types.tenants import Done
from keystead.api.types.watching import NameJob
from keystead.api.wire import in_body, in_path, in_query
from keystead.cli.options import GlobalOptions, extract
from keystead.client.client import Client
from keystead.client.http import HttpTransport
from keystead.core.errors import InvalidRequest, KeysteadError, Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

Answer = tuple[int, dict[str, str], bytes]


@contextmanager
def answering(answer: Callable[[BaseHTTPRequestHandler], Answer | None]) -> Iterator[tuple[str, list[BaseHTTPRequestHandler]]]:
    """Some other program that speaks HTTP; None closes the connection."""
    asked: list[BaseHTTPRequestHandler] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_any(self) -> None:
            asked.append(self)
            self.rfile.read(int(self.headers.get("Content-Length", "0")))
            found = answer(self)
            if found is None:
                self.close_connection = True
                return
            status, headers, body = found
            self.send_response(status)
            for name, value in {"Content-Length": str(len(body)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_arguments: Any) -> None:
            """Quiet."""

    for method in ("GET", "POST", "PUT", "DELETE"):
        setattr(Handler, f"do_{method}", Handler.handle_any)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextmanager
def client(url: str, **named: str) -> Iterator[Client]:
    with closing(HttpTransport(url, **named)) as transport:
        yield Client(transport, "contoso.example")


LIST = m.ListMailboxes()


@pytest.mark.parametrize(
    "url", ["http://keystead.contoso.example", "http://10.0.0.1:8420", "http://127.0.0.1.contoso.example", "http://[2001:db8::1]"]
)
def test_no_secret_goes_over_an_open_line(url: str) -> None:
    for named in ({"token": "t"}, {"home_secret": "s"}):
        with pytest.raises(InvalidRequest) as caught:
            HttpTransport(url, **named)
        assert caught.value.code == "url_not_safe"
        assert "https" in caught.value.mend
    HttpTransport(url).close()


@pytest.mark.parametrize(
    "url", ["https://keystead.contoso.example", "http://127.0.0.1:1", "http://[::1]:1", "http://localhost:1", "unix:/run/s"]
)
def test_it_goes_over_tls_and_within_the_machine(url: str) -> None:
    HttpTransport(url, token="t").close()


@pytest.mark.parametrize(
    "url",
    ["", "keystead.contoso.example", "ftp://a", "https://", "https://u:p@a", "https://a?b", "https://a#b", "https://a:b", "https://[a"],
)
def test_what_is_no_address_is_said_so(url: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        HttpTransport(url)
    assert caught.value.code == "url_invalid"


def test_a_server_that_is_not_there_is_unavailable() -> None:
    with answering(lambda _asked: None) as (url, _asked):
        pass
    with client(url) as one, pytest.raises(Unavailable) as caught:
        one.call("mailbox.list", LIST)
    assert caught.value.code == "server_unreachable"


def test_redirects_are_not_followed_and_other_programs_are_not_believed() -> None:
    json, problem = {"Content-Type": "application/json"}, {"Content-Type": "application/problem+json"}
    answers: list[Answer] = [
        (302, {"Location": "http://127.0.0.1:1/"}, b""),
        (307, {"Location": "/elsewhere"}, b""),
        (502, {"Content-Type": "text/html"}, b"<h1>Bad gateway</h1>"),
        (400, json, b'{"code": "mailbox_not_found"}'),
        (400, problem, b"[]"),
        (400, problem, b"{"),
        (200, json, b"<html>"),
        (200, json, b'{"upn": 5}'),
    ]
    for answer in answers:
        with answering(lambda _asked, answer=answer: answer) as (url, asked), client(url, token="t") as one:  # type: ignore[misc]  # bound by default
            with pytest.raises(Unavailable) as caught:
                one.call("mailbox.list", LIST)
            assert caught.value.code == "answer_invalid", answer
            assert len(asked) == 1


def test_problems_of_classes_this_version_does_not_know_are_still_errors() -> None:
    body = b'{"title": "Something new", "code": "new", "detail": "d", "mend": "m", "status": 418}'
    with answering(lambda _asked: (418, {"Content-Type": "application/problem+json"}, body)) as (url, _asked), client(url) as one:
        with pytest.raises(KeysteadError) as caught:
            one.call("mailbox.list", LIST)
        assert (type(caught.value), caught.value.code, caught.value.mend) == (KeysteadError, "new", "m")


def test_a_lost_answer_is_asked_for_again_only_where_nothing_changes() -> None:
    """Whether it was done is not known: so the caller decides."""
    lost: list[int] = []

    def once(_asked: BaseHTTPRequestHandler) -> Answer | None:
        lost.append(1)
        return None if len(lost) == 1 else (200, {"Content-Type": "application/json"}, b"[]")

    with answering(once) as (url, _asked), client(url) as one:
        assert one.call("mailbox.list", LIST) == []
        lost.clear()
        with pytest.raises(Unavailable) as caught:
            one.call("mailbox.delete", m.NameMailbox(upn="a@contoso.example"))
        assert caught.value.code == "answer_lost"
        assert len(lost) == 1


def test_the_token_travels_in_its_header_and_the_secret_only_without_one() -> None:
    with answering(lambda _asked: (200, {"Content-Type": "application/json"}, b"[]")) as (url, asked):
        with client(url, token="t", home_secret="s", as_upn="a@b.example") as one:
            one.call("mailbox.list", LIST)
        with client(url, home_secret="s", as_upn="a@b.example") as one:
            one.call("mailbox.list", LIST)
        with client(url) as one:
            one.call("mailbox.list", LIST)
    names = ("Authorization", "Keystead-Home-Secret", "Keystead-As")
    assert [[one.headers.get(name) for name in names] for one in asked] == [
        ["Bearer t", None, None],
        [None, "s", "a@b.example"],
        [None, None, None],
    ]


def test_names_that_cannot_stand_in_a_path_are_refused_here() -> None:
    with client("http://127.0.0.1:1") as one:
        for upn in ("", ".", "..", "a/b"):
            with pytest.raises(InvalidRequest) as caught:
                one.call("mailbox.delete", m.NameMailbox(upn=upn))
            assert caught.value.code == "path_invalid"
        with pytest.raises(InvalidRequest) as caught:
            one.call("mailbox.list", NameJob(job="j"))
        assert caught.value.code == "request_type"


def test_waiting_for_a_job_asks_less_and_less_often(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr("keystead.client.http.time.sleep", slept.append)
    with answering(lambda _asked: (200, {"Content-Type": "application/json"}, b'{"id": "x"}')) as (url, _asked):
        transport = HttpTransport(url)
        with closing(transport):
            for _ in range(8):
                transport.push("j")
            assert slept == [0.05, 0.1, 0.2, 0.4, 0.8, 1.0, 1.0, 1.0]
            assert Client(transport, "c").call("mailbox.delete", m.NameMailbox(upn="a@b.example")) == Done(id="x")
            transport.push("j")
            assert slept[-1] == 0.05


def test_every_field_of_every_row_travels_in_one_place() -> None:
    for route in ROUTES:
        places = [*in_path(route), *in_query(route), *in_body(route)]
        assert len(places) == len(set(places))
        assert set(places) - {"tenant"} == set(route.request.__struct_fields__) - {"tenant"}, route.name
        if route.body in {Body.BATCH, Body.UPLOAD}:
            assert route.method in {"POST", "PUT"}


def test_no_two_rows_share_a_method_and_path() -> None:
    found = [(route.method, [part if part[:1] != "{" else "{}" for part in route.path.split("/")]) for route in ROUTES]
    assert all(found.count(one) == 1 for one in found)


@pytest.mark.parametrize(
    ("line", "environment", "url"),
    [
        ([], {}, ""),
        (["--url", "https://a"], {}, "https://a"),
        ([], {"KEYSTEAD_URL": " https://e\n"}, "https://e"),
        (["--url=https://a"], {"KEYSTEAD_URL": "https://e"}, "https://a"),
        (["--home", "h"], {"KEYSTEAD_URL": "https://e"}, ""),
        (["--home", "h", "--url", "https://a"], {}, "https://a"),
        ([], {"KEYSTEAD_URL": "https://e", "KEYSTEAD_HOME": "h"}, "https://e"),
    ],
)
def test_a_server_on_the_line_wins_then_a_home_on_the_line_then_the_environment(
    line: list[str], environment: dict[str, str], url: str
) -> None:
    options, rest = extract(line, environment)
    assert isinstance(options, GlobalOptions)
    assert (options.server_url, rest) == (url, [])
