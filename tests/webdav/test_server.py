"""The server under WebDAV: TLS, and clients that are slow, silent, too many or strange."""

from __future__ import annotations

import socket
import ssl
import threading
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest
import trustme

from keystead.core.configuration import ServerConfig, WebdavConfig
from keystead.core.errors import InvalidRequest
from keystead.frontends.asgi.server import tls_context
from keystead.serving import run_servers
from support.waiting import until
from support.webdav import ROOT, SECONDS, running
from webdav.served import make_home, webdav_served

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from support.webdav import Face
    from support.world import World


@pytest.fixture(scope="module")
def strict(plans: World) -> Iterator[Face]:
    """Two threads, few connections, little patience."""
    with running(plans, config=WebdavConfig(threads=2, max_connections=20, header_timeout=1_500, body_timeout=3_000)) as face:
        yield face


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str, str]:
    """PEM files: certificate, key, authority."""
    folder = tmp_path_factory.mktemp("tls")
    authority = trustme.CA()
    issued = authority.issue_cert("localhost")
    names = tuple(str(folder / name) for name in ("certificate.pem", "key.pem", "ca.pem"))
    issued.cert_chain_pems[0].write_to_path(names[0])
    issued.private_key_pem.write_to_path(names[1])
    authority.cert_pem.write_to_path(names[2])
    return names[0], names[1], names[2]


@pytest.fixture(scope="module")
def secure(plans: World, certificate: tuple[str, str, str]) -> Iterator[Face]:
    config = WebdavConfig(threads=2, header_timeout=3_000, body_timeout=3_000)
    context = tls_context(ServerConfig(tls_certificate_file=certificate[0], tls_key_file=certificate[1]))
    with running(plans, config=config, context=context, tls=ssl.create_default_context(cafile=certificate[2])) as face:
        yield face


def ended(sock: socket.socket) -> bytes:
    """All that comes until the other side closes."""
    pieces = []
    try:
        while piece := sock.recv(65_536):
            pieces.append(piece)
    except ConnectionResetError:
        pass
    return b"".join(pieces)


def refuses(face: Face) -> bool:
    """Whether nobody takes connections there any more."""
    try:
        socket.create_connection(face.address, timeout=SECONDS).close()
    except ConnectionRefusedError:
        return True
    return False


def found_nothing(face: Face) -> bool:
    """Whether there is room for a connection, and its request is answered."""
    try:
        return face.person("alex@contoso.example").get(f"{ROOT}/nothing").status == 404
    except OSError:
        return False


def connected(face: Face, stack: ExitStack) -> socket.socket:
    return stack.enter_context(socket.create_connection(face.address, timeout=SECONDS))


# -- TLS ------------------------------------------------------------------------------------------------------------------------------


def test_files_over_tls(secure: Face) -> None:
    alex = secure.person("alex@contoso.example")
    data = b"x" * 5_000_000
    assert alex.put(f"{ROOT}/over-tls", data).status == 201
    assert alex.get(f"{ROOT}/over-tls").body == data


def test_clients_that_never_agree_on_tls_keep_nobody_waiting(secure: Face) -> None:
    alex = secure.person("alex@contoso.example")
    with ExitStack() as stack:
        silent = [connected(secure, stack) for _ in range(10)]
        for sock in silent[:2]:
            sock.sendall(b"\x16\x03\x01\x02\x00")  # the beginning of a greeting, and no more
        assert alex.get(f"{ROOT}/nothing").status == 404
        assert [ended(sock) for sock in silent[:2]] == [b"", b""]


def test_plain_http_where_tls_is_spoken(secure: Face) -> None:
    plain = secure.nobody()
    answer = plain.raw(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert b"200 OK" not in answer
    assert secure.person("alex@contoso.example").get(f"{ROOT}/nothing").status == 404


def test_without_tls_only_this_machine_is_listened_on(tmp_path: Path) -> None:
    make_home(tmp_path / "home")
    with pytest.raises(InvalidRequest) as refused:
        run_servers(
            tmp_path / "home", listen="127.0.0.1:0", webdav="0.0.0.0:0", processes=1, ready_file=None, announced=lambda *_urls: None
        )
    assert refused.value.code == "tls_needed"
    with pytest.raises(InvalidRequest) as unix:
        run_servers(tmp_path / "home", listen="127.0.0.1:0", webdav="unix:dav", processes=1, ready_file=None, announced=lambda *_urls: None)
    assert unix.value.code == "configuration_invalid"


# -- slow, silent, too many -------------------------------------------------------------------------------------------------------------


def test_silent_connections_take_no_thread(plans: World) -> None:
    """They may be silent for longer than anybody waits for an answer."""
    with running(plans, config=WebdavConfig(threads=2, header_timeout=10 * SECONDS * 1_000)) as face, ExitStack() as stack:
        for _ in range(10):
            connected(face, stack)
        assert face.person("alex@contoso.example").get(f"{ROOT}/nothing").status == 404


def test_a_head_must_have_come_in_time(strict: Face) -> None:
    """However many bytes of it trickle in."""
    with ExitStack() as stack:
        sock = connected(strict, stack)
        stopped = threading.Event()

        def trickle() -> None:
            try:
                for byte in b"GET / HTTP/1.1\r\n" + b"X-Slow: " + b"a" * 1_000:
                    sock.sendall(bytes([byte]))
                    if stopped.wait(0.05):
                        return
            except OSError:
                return

        thread = threading.Thread(target=trickle)
        thread.start()
        answer = ended(sock)
        stopped.set()
        thread.join()
    assert answer.startswith(b"HTTP/1.1 408 ")


def test_a_body_that_trickles_in_is_given_up(strict: Face) -> None:
    alex = strict.person("alex@contoso.example")
    with ExitStack() as stack:
        sock = connected(strict, stack)
        sock.sendall(alex.head("PUT", f"{ROOT}/trickle", "Content-Length: 100000"))
        stopped = threading.Event()

        def trickle() -> None:
            try:
                while not stopped.wait(0.2):
                    sock.sendall(b"x")
            except OSError:
                return

        thread = threading.Thread(target=trickle)
        thread.start()
        answer = ended(sock)
        stopped.set()
        thread.join()
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert alex.get(f"{ROOT}/trickle").status == 404


def test_one_person_does_not_hold_all_threads(plans: World) -> None:
    with running(plans, threads=4, config=WebdavConfig(threads=8)) as face, ExitStack() as stack:
        alex, blake = (face.person(f"{local}@contoso.example") for local in ("alex", "blake"))
        for index in range(2):  # half of four
            sock = connected(face, stack)
            sock.sendall(alex.head("PUT", f"{ROOT}/held-{index}", "Content-Length: 10", "Expect: 100-continue"))
            assert sock.recv(100).startswith(b"HTTP/1.1 100 ")
        answer = alex.get(f"{ROOT}/nothing")
        assert (answer.status, "too_many_requests" in answer.text) == (503, True)
        assert blake.get(f"{ROOT}/nothing").status == 404
        sock = connected(face, stack)
        sock.sendall(blake.head("PUT", f"{ROOT}/held", "Content-Length: 10", "Expect: 100-continue"))
        assert sock.recv(100).startswith(b"HTTP/1.1 100 ")
        assert blake.get(f"{ROOT}/nothing").status == 503, "three of four for a tenant"
        stack.close()
        until(lambda: alex.get(f"{ROOT}/nothing").status == 404)


def test_more_connections_than_are_taken_are_closed(strict: Face) -> None:
    with ExitStack() as stack:
        opened = [connected(strict, stack) for _ in range(30)]
        closed = sum(sock.recv(1) == b"" for sock in opened[20:])
        assert closed == 10
    until(lambda: found_nothing(strict))


def test_a_client_that_takes_nothing_is_let_go(strict: Face) -> None:
    alex = strict.person("alex@contoso.example")
    alex.put(f"{ROOT}/large", b"x" * 50_000_000)
    with ExitStack() as stack:
        for _ in range(2):  # one for each thread
            connected(strict, stack).sendall(alex.head("GET", f"{ROOT}/large"))
        assert alex.get(f"{ROOT}/nothing").status == 404
        until(lambda: [seen.code for seen in strict.seen if seen.sent > 1_000_000 and seen.code] == ["cut_off", "cut_off"])


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"a" * 70_000 + b"\r\n\r\n", b"413"),
        (b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n", b"414"),
        (b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\nAuthorization: Basic a\r\nAuthorization: Basic b\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\nno header\r\n\r\n", b"400"),
        (b"GET / HTTP/2.0\r\n\r\n", b"505"),
        (b"get / HTTP/1.1\r\n\r\n", b"400"),
        (b"\x00\x01\x02\r\n\r\n", b"400"),
        (b"CONNECT example:80 HTTP/1.1\r\n\r\n", b"405"),
    ],
)
def test_heads_that_are_not_taken(strict: Face, data: bytes, status: bytes) -> None:
    assert strict.nobody().raw(data).startswith(b"HTTP/1.1 " + status)


def test_one_connection_takes_many_requests(strict: Face) -> None:
    alex = strict.person("alex@contoso.example")
    request = alex.head("GET", f"{ROOT}/nothing").replace(b"Connection: close\r\n", b"")
    with ExitStack() as stack:
        sock = connected(strict, stack)
        sock.sendall(request * 3 + alex.head("GET", f"{ROOT}/nothing"))
        assert ended(sock).count(b"HTTP/1.1 404 Not Found") == 4


# -- stopping ---------------------------------------------------------------------------------------------------------------------------


def test_a_request_under_way_is_finished_when_the_server_stops(plans: World) -> None:
    with ExitStack() as stack:
        server = stack.enter_context(ExitStack())
        face = server.enter_context(running(plans))
        alex = face.person("alex@contoso.example")
        sock = connected(face, stack)
        sock.sendall(alex.head("PUT", f"{ROOT}/while-stopping", "Content-Length: 11", "Expect: 100-continue"))
        assert sock.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n", "from here on it is under way"
        sock.sendall(b"first")
        answers: list[bytes] = []

        def finish() -> None:
            until(lambda: refuses(face))
            sock.sendall(b"second")
            answers.append(sock.recv(100))

        uploading = threading.Thread(target=finish)
        uploading.start()
        server.close()  # ends when the upload has, which ends when the server no longer takes connections
        uploading.join()
    assert answers[0].startswith(b"HTTP/1.1 201 ")
    with running(plans) as again:
        assert again.person("alex@contoso.example").get(f"{ROOT}/while-stopping").body == b"firstsecond"


def test_a_configured_address_is_served_without_an_option(tmp_path: Path) -> None:
    home = tmp_path / "home"
    make_home(home)
    (home / "keystead.toml").write_text('[webdav]\nlisten = "127.0.0.1:0"\nthreads = 2\n')
    with webdav_served(home, new=True) as served:
        assert served.url.startswith("http://127.0.0.1:")
