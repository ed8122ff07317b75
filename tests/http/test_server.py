"""`keystead serve` as people run it: real processes on real homes, with the command line beside them."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import socket
import ssl
import stat
import subprocess
import sys
import threading
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import httpx
import pytest
import trustme

from keystead.api.call import Upload
from keystead.api.types import mailboxes as m
from keystead.api.types.watching import SearchAudit
from keystead.client.client import Client
from keystead.client.http import HttpTransport
from keystead.client.running import running_server
from keystead.core.errors import KeysteadError, Unauthenticated, Unavailable
from keystead.wiring import create_home
from support.filled import ADMIN, OWNER, filled
from support.http import PROGRAM, Server, served, start
from support.waiting import until

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.xdist_group("servers")

MIB = 1024 * 1024
SECONDS = 30.0
OPERATOR = "operator@provider.example"


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dev home with a tenant, a policy and a mailbox; served once, and closed."""
    home = tmp_path_factory.mktemp("prepared") / "home"
    create_home(home, dev=True, operator=OPERATOR)
    with served(home) as server, filled(server):
        pass
    return home


@pytest.fixture
def home(prepared: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    shutil.copytree(prepared, tmp_path / "home")
    return tmp_path / "home"


@pytest.fixture(scope="module")
def serving(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server on another copy, for tests that leave it as it is."""
    home = tmp_path_factory.mktemp("serving") / "home"
    shutil.copytree(prepared, home)
    with served(home) as server:
        yield server


def keystead(home: Path, *line: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
    """A command in a process of its own."""
    return subprocess.run(
        [*PROGRAM, *line], env={"KEYSTEAD_HOME": str(home), **environment}, stdin=subprocess.DEVNULL, capture_output=True, check=False, timeout=60
    )  # fmt: skip


def refuses(url: str) -> bool:
    """Whether nobody takes connections there any more."""
    parts = urlsplit(url)
    try:
        socket.create_connection((parts.hostname, parts.port), timeout=SECONDS).close()
    except ConnectionRefusedError:
        return True
    return False


def alive(process: int) -> bool:
    """Whether a process runs; one that nobody has waited for yet does not."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def peak(process: int) -> int:
    """The most memory a process has held, in bytes."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


def children(process: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{process}/task/{process}/children").read_text().split()]


class Source:
    """Bytes of an upload: never more than a mebibyte of them at once. `after` is waited for when half of them are gone."""

    def __init__(self, size: int, after: threading.Event | None = None) -> None:
        self.size, self.left = size, size
        self.after = after
        self.digest = hashlib.sha256()
        self.halfway = threading.Event()
        self._block = os.urandom(MIB)

    def read(self, n: int) -> bytes:
        if self.left <= self.size // 2 and not self.halfway.is_set():
            self.halfway.set()
            if self.after is not None:
                self.after.wait(SECONDS)
        piece = self._block[: min(n, self.left, MIB)]
        self.left -= len(piece)
        self.digest.update(piece)
        return piece

    def upload(self) -> Upload:
        return Upload(self.size, self.read)


def large(position: int = 1) -> m.ImportLarge:
    return m.ImportLarge(upn=OWNER, position=position, ordinal=1, folder="Large")


def items(client: Client) -> list[m.ItemView]:
    found: list[m.ItemView] = client.call("mailbox.items", m.ListItems(upn=OWNER))
    return found


# -- large items -------------------------------------------------------------------------------------------------------------------------


def test_a_hundred_mebibytes_pass_through_both_ways_with_flat_memory(home: Path) -> None:
    with served(home) as server, closing(server.client(ADMIN)) as admin, closing(server.client(OWNER)) as owner:
        small = Source(2 * MIB)
        admin.call("mailbox.import-item", large(1), upload=small.upload())
        before = peak(server.process.pid)
        source = Source(100 * MIB)
        assert admin.call("mailbox.import-item", large(2), upload=source.upload()).imported == 1
        item = max(items(owner), key=lambda one: one.size_bytes)
        digest = hashlib.sha256()
        content = owner.call("mailbox.read", m.NameItem(upn=OWNER, item=item.id))
        for piece in content.chunks:
            digest.update(piece)
        assert digest.digest() == source.digest.digest()
        assert peak(server.process.pid) - before < 30 * MIB


# -- stopping ----------------------------------------------------------------------------------------------------------------------------


class Sending:
    """An upload under way in a thread, standing still in the middle."""

    def __init__(self, server: Server) -> None:
        self.go = threading.Event()
        self.result: Any = None
        self._client = server.client(ADMIN)
        source = Source(8 * MIB, self.go)
        self.thread = threading.Thread(target=self._send, args=(source,))
        self.thread.start()
        assert source.halfway.wait(SECONDS)

    def _send(self, source: Source) -> None:
        try:
            self.result = self._client.call("mailbox.import-item", large(), upload=source.upload())
        except KeysteadError as error:
            self.result = error
        finally:
            self._client.close()

    def finish(self) -> Any:
        self.go.set()
        self.thread.join(SECONDS)
        assert not self.thread.is_alive()
        return self.result


def test_a_call_under_way_is_finished_before_the_server_ends(home: Path) -> None:
    server = start(home)
    sending = Sending(server)
    server.process.send_signal(signal.SIGTERM)
    until(lambda: refuses(server.url))
    assert server.process.poll() is None
    assert sending.finish().imported == 1
    assert server.stop() == 0
    with served(home) as again, closing(again.client(OWNER)) as owner:
        assert max(item.size_bytes for item in items(owner)) == 8 * MIB


def test_an_upload_that_takes_too_long_is_cut_and_leaves_nothing(home: Path) -> None:
    before = sorted(path for path in (home / "objects").rglob("*") if path.is_file())
    server = start(home, environment={"KEYSTEAD_SERVER_STOP_TIMEOUT": "500"})
    sending = Sending(server)
    assert server.stop() == 0
    assert isinstance(sending.finish(), Unavailable)
    assert sorted(path for path in (home / "objects").rglob("*") if path.is_file()) == before
    assert "Traceback" not in server.log.read_text()


def test_the_second_signal_stops_at_once(home: Path) -> None:
    server = start(home, environment={"KEYSTEAD_SERVER_STOP_TIMEOUT": "600000", "KEYSTEAD_SERVER_BODY_TIMEOUT": "600000"})
    sending = Sending(server)
    server.process.send_signal(signal.SIGTERM)
    until(lambda: refuses(server.url))
    assert server.stop(signal.SIGINT) == 0
    assert isinstance(sending.finish(), Unavailable)


def test_jobs_run_beside_the_calls_and_are_given_back(home: Path) -> None:
    """A job that was begun by one server is gone on with by the next, at once."""
    messages = [
        m.ImportItem(position=n, ordinal=1, folder="Inbox", data=b"Subject: %d\r\n\r\n" % n + os.urandom(2_000)) for n in range(1, 401)
    ]
    with served(home, environment={"KEYSTEAD_SERVER_JOBS": "0"}) as server, closing(server.client(ADMIN)) as admin:
        admin.call("mailbox.import", m.ImportBatch(upn=OWNER, items=messages))
        job = admin.call("mailbox.unassign", m.UnassignPolicy(upn=OWNER)).job_id
    slow = {"KEYSTEAD_SLICE_ITEMS": "1", "KEYSTEAD_SERVER_JOBS": "2"}
    with served(home, environment=slow) as server, closing(server.client(ADMIN)) as admin:
        until(lambda: admin.call("mailbox.move-status", m.NameMailbox(upn=OWNER)).items_left < 400)
    with served(home) as server, closing(server.client(ADMIN)) as admin:
        assert admin.wait(job).state == "done"
    with served(home) as server, closing(server.client(OWNER)) as owner:
        assert len({item.id for item in owner.call("mailbox.items", m.ListItems(upn=OWNER, limit=1000))}) == 401


# -- the home's server and the command line ----------------------------------------------------------------------------------------------


def test_commands_use_the_server_that_runs_on_their_home(home: Path) -> None:
    with served(home) as server:
        asked = keystead(home, "mailbox", "list", "--as", ADMIN, "--json")
        assert [box["upn"] for box in json.loads(asked.stdout)] == [OWNER]
        assert asked.stderr == b""
        read = keystead(home, "tenant", "list", "--json", "--url", server.url)
        assert [one["name"] for one in json.loads(read.stdout)] == ["Contoso"], "the operator, by the home's secret"
        (home / "home.json").rename(home / "away.json")  # nothing of the home is opened by a command now
        assert keystead(home, "policy", "list", "--as", ADMIN).returncode == 0
        failed = keystead(home, "policy", "show", "none", "--as", ADMIN, "--json")
        assert (failed.returncode, json.loads(failed.stdout)["code"]) == (4, "policy_not_found")
        (home / "away.json").rename(home / "home.json")
    assert not (home / "run" / "server.json").exists()
    assert not (home / "run" / "server.secret").exists()
    assert keystead(home, "policy", "list", "--as", ADMIN).returncode == 0, "without a server the home itself is opened"


def test_a_read_over_http_loads_no_database_library(serving: Server) -> None:
    home = serving.home
    program = "import sys; from keystead.cli.main import run; code = run(sys.argv[1:]); print(); print(code, *sys.modules)"
    item = json.loads(keystead(home, "mailbox", "items", OWNER, "--as", OWNER, "--json").stdout)[0]["id"]
    line = [sys.executable, "-c", program, "mailbox", "read", OWNER, item, "--as", OWNER]
    output = subprocess.run(line, env={"KEYSTEAD_HOME": str(home)}, capture_output=True, check=True, timeout=60).stdout.decode()
    code, *modules = output.splitlines()[-1].split()
    assert code == "0"
    assert set(modules).isdisjoint({"sqlalchemy", "keystead.wiring", "uvicorn", "starlette"})


def test_the_secret_of_a_dev_home_is_for_whoever_may_read_the_home(serving: Server) -> None:
    """R-253."""
    secret = serving.home / "run" / "server.secret"
    assert stat.S_IMODE(secret.stat().st_mode) == 0o600
    for wrong in ("0" * 64, secret.read_text()[:-1], ""):
        transport = HttpTransport(serving.url, home_secret=wrong, as_upn=ADMIN)
        with closing(transport), pytest.raises(Unauthenticated):
            Client(transport, "contoso.example").call("mailbox.list", m.ListMailboxes())
    headers = {"Keystead-Home-Secret": secret.read_text(), "Keystead-As": "nobody@contoso.example"}
    answer = httpx.get(f"{serving.url}/v1/tenants/-/mailboxes", headers=headers)
    assert answer.json()["code"] == "user_not_found"
    assert httpx.get(f"{serving.url}/v1/tenants/-/mailboxes", headers={"Keystead-As": ADMIN}).status_code == 401


def test_outside_dev_homes_there_is_no_secret_and_a_token_is_needed(tmp_path: Path) -> None:
    made = create_home(tmp_path / "home", dev=False, operator=OPERATOR)
    token = str(made["operator"]["token_file"])  # type: ignore[index]  # create_home's own document
    with served(tmp_path / "home") as server:
        assert not (tmp_path / "home/run/server.secret").exists()
        nobody = keystead(tmp_path / "home", "tenant", "list", "--json")
        assert (nobody.returncode, json.loads(nobody.stdout)["code"]) == (3, "not_signed_in")
        assert keystead(tmp_path / "home", "tenant", "list", "--as", ADMIN).returncode == 2
        made_one = keystead(tmp_path / "home", "tenant", "create", "n", "--domain", "n.example", "--geo", "EUR", "--token-file", token)
        assert made_one.returncode == 0, made_one.stderr
        url = keystead(tmp_path / "none", "tenant", "list", KEYSTEAD_URL=server.url, KEYSTEAD_TOKEN=Path(token).read_text())
        assert url.returncode == 0, url.stderr


def test_the_file_of_a_killed_server_is_passed_over_and_replaced(home: Path) -> None:
    server = start(home)
    secret = (home / "run/server.secret").read_text()
    assert server.stop(signal.SIGKILL) == -signal.SIGKILL
    assert (home / "run/server.json").exists()
    assert running_server(home) is None
    assert keystead(home, "policy", "list", "--as", ADMIN).returncode == 0
    with served(home) as again:
        found = running_server(home)
        assert found is not None
        assert (found[0].url, found[0].pid) == (again.url, again.process.pid)
        assert found[1] != secret
        with served(home) as second:
            assert httpx.get(second.url + "/readyz").status_code == 200
            assert running_server(home) == found, "commands go on with the first"
        assert running_server(home) == found


def test_what_if_serves_nothing(home: Path) -> None:
    """R-083."""
    assert keystead(home, "serve", "--what-if").returncode == 0
    assert not (home / "run/server.json").exists()


# -- addresses ---------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("listen", "code", "leave"),
    [
        ("0.0.0.0:0", "tls_needed", 2),
        ("[::]:0", "tls_needed", 2),
        ("127.0.0.1", "configuration_invalid", 2),
        ("127.0.0.1:99999", "configuration_invalid", 2),
        ("192.0.2.1:0", "tls_needed", 2),
    ],
)
def test_addresses_that_are_not_listened_on(home: Path, listen: str, code: str, leave: int) -> None:
    found = keystead(home, "serve", "--listen", listen, "--json")
    assert (found.returncode, json.loads(found.stdout)["code"]) == (leave, code)


def test_an_address_is_listened_on_once(serving: Server, home: Path) -> None:
    found = keystead(home, "serve", "--listen", serving.url.removeprefix("http://"), "--json")
    assert (found.returncode, json.loads(found.stdout)["code"]) == (3, "address_in_use")


def test_a_unix_socket_is_for_its_owner_alone(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with served(home, listen="unix:run/s") as server:
        path = Path(server.url.removeprefix("unix:"))
        assert path == home / "run/s"
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert keystead(home, "policy", "list", "--as", ADMIN).returncode == 0
        assert keystead(tmp_path / "none", "tenant", "list", "--url", server.url, "--json").returncode == 3
    assert not path.exists()
    server = start(home, listen="unix:run/s")
    server.stop(signal.SIGKILL)
    assert path.exists()
    with served(home, listen="unix:run/s"):
        assert keystead(home, "policy", "list", "--as", ADMIN).returncode == 0


def test_tls_is_modern_and_the_homes_own_commands_trust_its_certificate(home: Path, tmp_path: Path) -> None:
    authority = trustme.CA()
    certificate = authority.issue_cert("keystead.contoso.example", "127.0.0.1")
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    certificate.private_key_pem.write_to_path(home / "key.pem")
    (home / "cert.pem").write_bytes(b"".join(one.bytes() for one in certificate.cert_chain_pems))
    environment = {"KEYSTEAD_SERVER_TLS_CERTIFICATE_FILE": "cert.pem", "KEYSTEAD_SERVER_TLS_KEY_FILE": "key.pem"}
    with served(home, environment=environment, listen="0.0.0.0:0") as server:
        assert server.url.startswith("https://127.0.0.1:")
        assert keystead(home, "policy", "list", "--as", ADMIN).returncode == 0
        trusting = ssl.create_default_context(cafile=str(tmp_path / "ca.pem"))
        assert httpx.get(server.url + "/healthz", verify=trusting).status_code == 200
        with pytest.raises(Unavailable) as caught, closing(HttpTransport(server.url)) as transport:
            Client(transport).call("tenant.list")
        assert caught.value.code == "server_unreachable"
        old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        old.check_hostname = False
        old.verify_mode = ssl.CERT_NONE
        old.set_ciphers("ALL:@SECLEVEL=0")
        with pytest.warns(DeprecationWarning, match="TLSVersion"):
            old.minimum_version = ssl.TLSVersion.TLSv1
        with pytest.warns(DeprecationWarning, match="TLSVersion"):
            old.maximum_version = ssl.TLSVersion.TLSv1_1
        parts = urlsplit(server.url)
        with (
            socket.create_connection((parts.hostname, parts.port), timeout=SECONDS) as plain,
            pytest.raises((ssl.SSLError, ConnectionError)),
        ):
            old.wrap_socket(plain)
        with socket.create_connection((parts.hostname, parts.port), timeout=SECONDS) as plain:  # no TLS at all
            plain.sendall(b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n")
            assert b"HTTP/1.1 200" not in plain.recv(1000)
    broken = keystead(home, "serve", "--json", KEYSTEAD_SERVER_TLS_CERTIFICATE_FILE="cert.pem", KEYSTEAD_SERVER_TLS_KEY_FILE="none.pem")
    assert (broken.returncode, json.loads(broken.stdout)["code"]) == (2, "configuration_invalid")
    half = keystead(home, "serve", "--json", KEYSTEAD_SERVER_TLS_CERTIFICATE_FILE="cert.pem")
    assert (half.returncode, json.loads(half.stdout)["code"]) == (2, "configuration_invalid")


# -- several processes -------------------------------------------------------------------------------------------------------------------


def test_processes_share_an_address_and_one_that_dies_is_replaced(home: Path) -> None:
    with served(home, "--processes", "2") as server:
        first = children(server.process.pid)
        assert len(first) == 2
        assert keystead(home, "policy", "list", "--as", ADMIN).returncode == 0
        os.kill(first[0], signal.SIGKILL)
        until(lambda: len(children(server.process.pid)) == 2 and first[0] not in children(server.process.pid))
        for _ in range(20):
            assert httpx.get(server.url + "/readyz").status_code == 200
        left = children(server.process.pid)
    assert not any(alive(child) for child in left)


def test_without_their_supervisor_processes_stop(home: Path) -> None:
    server = start(home, "--processes", "2")
    below = children(server.process.pid)
    server.stop(signal.SIGKILL)
    until(lambda: not any(alive(child) for child in below))
    assert refuses(server.url)
    assert keystead(home, "policy", "list", "--as", ADMIN).returncode == 0


# -- what is recorded --------------------------------------------------------------------------------------------------------------------


def test_the_request_id_of_an_answer_is_in_the_log_of_the_tenant(serving: Server) -> None:
    """Who did what, from where, and the id that the caller can name."""
    headers = {"Keystead-Home-Secret": (serving.home / "run/server.secret").read_text(), "Keystead-As": ADMIN}
    answer = httpx.post(f"{serving.url}/v1/tenants/-/mailboxes", headers=headers, json={"upn": "sam@contoso.example"})
    assert answer.status_code == 200, answer.text
    with closing(serving.client(ADMIN)) as admin:
        records = admin.call("audit.search", SearchAudit())
    found = [record for record in records if record.request_id == answer.headers["Keystead-Request-Id"]]
    assert [(record.operation, record.client_ip, record.user_id) for record in found] == [("New-Mailbox", "127.0.0.1", ADMIN)]
