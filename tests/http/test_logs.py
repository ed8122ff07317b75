"""The log of a server: a line for each thing that matters, and not one byte of content, of a token, or of a key in it."""

from __future__ import annotations

import base64
import gc
import io
import json
import logging
import re
import sys
import threading
import warnings
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from keystead.api.types import mailboxes as m
from keystead.api.types import vaults as v
from keystead.api.types import watching as w
from keystead.core.configuration import LogConfig, LogFormat
from keystead.core.errors import KeyDenied, KeysteadError, NotFound
from keystead.frontends.http.app import Seen
from keystead.frontends.logs import Log, start_log
from keystead.wiring import create_home
from support.filled import ADMIN, OWNER, filled
from support.http import served

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MARKS = {
    "subject": "quetzal-subject",
    "sender": "quetzal-sender",
    "body": "quetzal-body",
    "folder": "quetzal-folder",
    "search": "quetzal-search",
    "query": "quetzal-query",
    "field": "quetzal-field",
    "path": "quetzal-path",
    "token": "quetzal-token",
    "header": "quetzal-header",
    "media": "quetzal-media",
}
MESSAGE = (
    f"From: {MARKS['sender']}@fabrikam.example\r\nSubject: {MARKS['subject']}\r\nDate: Mon, 1 Jun 2026 10:00:00 +0000\r\n\r\n{MARKS['body']}\r\n"
).encode()
MINUTE = 61_000


@pytest.fixture
def restored() -> Iterator[None]:
    """The log of this test's process as it was."""
    root = logging.getLogger()
    before, level, ours = list(root.handlers), root.level, logging.getLogger("keystead").level
    hooks = threading.excepthook, sys.unraisablehook
    yield
    threading.excepthook, sys.unraisablehook = hooks
    root.handlers[:] = before
    root.setLevel(level)
    logging.getLogger("keystead").setLevel(ours)
    logging.captureWarnings(capture=False)


def lines(log: bytes) -> list[dict[str, Any]]:
    return [json.loads(line) for line in log.splitlines() if line.startswith(b"{")]


def refused(client: Any, name: str, request: Any) -> None:
    with pytest.raises(KeysteadError):
        client.call(name, request)


@pytest.mark.parametrize("form", ["json", "text"])
def test_a_whole_day_leaves_no_content_token_or_key_in_the_log(tmp_path: Path, form: str) -> None:
    """R-193 and design section 4: audit records, job parameters, logs and errors hold ids, never content."""
    home = tmp_path / "home"
    create_home(home, dev=True, operator="operator@provider.example")
    secrets = {
        "operator's token": (home / "operator.token").read_bytes(),
        **{path.name: path.read_bytes() for path in (home / "seals").iterdir()},
    }
    with served(home, environment={"KEYSTEAD_LOG_FORMAT": form, "KEYSTEAD_LOG_LEVEL": "debug"}) as server, filled(server, MESSAGE) as made:
        secrets["home secret"] = (home / "run" / "server.secret").read_bytes()
        admin, owner = made.admin, made.owner
        _go_through_content(admin, owner, made.client(ADMIN, MARKS["path"]), made.items[0])
        secrets["private key"] = _import_key(admin)
        _send_rubbish(server.url, (home / "operator.token").read_text())
        advance = w.AdvanceClock(milliseconds=MINUTE)
        for vault in ("contosov1", "contosov2"):
            admin.call("vault.access.revoke", v.AccessRevoke(vault=vault, principal="mail"))
            made.client().call("dev.clock.advance", advance)
            if vault == "contosov1":
                owner.call("mailbox.items", m.ListItems(upn=OWNER))
        with pytest.raises(KeyDenied):
            owner.call("mailbox.read", m.NameItem(upn=OWNER, item=made.items[0]))
        again = [m.ImportItem(position=2, ordinal=1, folder=MARKS["folder"], data=MESSAGE + b"again")]
        admin.call("mailbox.import", m.ImportBatch(upn=OWNER, items=again))
        for vault in ("contosov1", "contosov2"):
            admin.call("vault.access.grant", v.AccessGrant(vault=vault, principal="mail", permissions=["get", "wrapKey", "unwrapKey"]))
        made.client().call("dev.clock.advance", advance)
        assert b"".join(owner.call("mailbox.read", m.NameItem(upn=OWNER, item=made.items[0])).chunks) == MESSAGE
        log = server.log
    written = log.read_bytes()
    _check_nothing_marked(written, secrets)
    for what in (
        b"keys of a policy are degraded",
        b"keys of a policy are denied",
        b"keys of a policy have recovered",
        b"availability key is used",
    ):
        assert what in written, what
    if form == "json":
        _check_lines(lines(written), made.job)


def _go_through_content(admin: Any, owner: Any, elsewhere: Any, item: str) -> None:
    owner.call("mailbox.items", m.ListItems(upn=OWNER))
    b"".join(owner.call("mailbox.read", m.NameItem(upn=OWNER, item=item)).chunks)
    owner.call("mailbox.search", m.Search(text=MARKS["search"], upn=OWNER))
    many = [m.ImportItem(position=1, ordinal=1, folder=MARKS["folder"], data=MESSAGE + b"more")]
    admin.call("mailbox.import", m.ImportBatch(upn=OWNER, items=many))
    refused(admin, "mailbox.read", m.NameItem(upn=OWNER, item=item))
    refused(
        admin,
        "mailbox.import",
        m.ImportBatch(upn=OWNER, items=[m.ImportItem(position=1, ordinal=1, folder=MARKS["folder"] * 100, data=MESSAGE)]),
    )
    refused(owner, "mailbox.read", m.NameItem(upn=OWNER, item=MARKS["path"]))
    refused(elsewhere, "mailbox.list", m.ListMailboxes())
    with pytest.raises(NotFound):
        admin.call("policy.show", _policy(MARKS["path"]))


def _policy(name: str) -> Any:
    from keystead.api.types.policies import NamePolicy  # noqa: PLC0415 - beside its one use

    return NamePolicy(policy=name)


def _import_key(admin: Any) -> bytes:
    from cryptography.hazmat.primitives.asymmetric import rsa  # noqa: PLC0415 - as above
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat  # noqa: PLC0415 - as above

    key = rsa.generate_private_key(65_537, 2_048)
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    admin.call("key.import", v.KeyImport(vault="contosov1", name="imported", pem=pem.decode()))
    refused(admin, "key.import", v.KeyImport(vault="contosov1", name="broken", pem=pem.decode()[:-200]))
    admin.call("key.backup", v.KeyNamed(vault="contosov1", name="imported"))
    return pem.splitlines()[3]


def _send_rubbish(url: str, token: str) -> None:
    """What callers may put where nobody looks for it."""
    for bearer in (token, token[:-1] + "x", MARKS["token"], f"ks1.{MARKS['token']}", "eyJhbGciOiJub25lIn0.e30."):
        httpx.get(f"{url}/v1/home", headers={"authorization": f"Bearer {bearer}"})
    signed = {"authorization": f"Bearer {token}"}
    for path in (
        f"/v1/{MARKS['path']}", f"/{MARKS['path']}?x={MARKS['query']}", f"/v1/tenants?{MARKS['query']}=1", f"/v1/tenants/{MARKS['path']}/mailboxes",
        f"/healthz?{MARKS['query']}", f"/metrics?{MARKS['query']}", f"/v1/tenants/-/mailboxes/{MARKS['path']}%0ainjected/statistics",
    ):  # fmt: skip
        httpx.get(url + path, headers=signed | {"x-note": MARKS["header"], "user-agent": MARKS["header"], "referer": MARKS["header"]})
    body = json.dumps({"name": MARKS["field"], MARKS["field"]: MARKS["body"]}).encode()
    httpx.post(f"{url}/v1/tenants", headers=signed | {"content-type": "application/json"}, content=body)
    httpx.post(f"{url}/v1/tenants", headers=signed | {"content-type": MARKS["media"]}, content=body)
    httpx.post(f"{url}/v1/tenants/{MARKS['path']}/users", headers=signed | {"content-type": "application/json"}, content=b"{")
    httpx.get(f"{url}/v1/tenants/{MARKS['path']}/jobs?{MARKS['query']}=1", headers=signed)
    httpx.post(f"{url}/v1/claim", json={"claim_token": MARKS["token"], "upn": f"{MARKS['field']}@contoso.example"})
    httpx.request(MARKS["header"].upper().replace("-", ""), f"{url}/v1/tenants")


def _check_nothing_marked(written: bytes, secrets: dict[str, bytes]) -> None:
    low = written.lower()
    assert b"quetzal" not in low, re.findall(rb"[^\n]*quetzal[^\n]*", low)[:3]
    for name, secret in secrets.items():
        raw = secret.strip()
        for shape in (raw, raw.hex().encode(), base64.b64encode(raw)[:-3], base64.urlsafe_b64encode(raw)[:-3], repr(raw)[2:-1].encode()):
            assert shape not in written, name
    assert b"PRIVATE KEY" not in written
    assert b"Bearer" not in written
    assert b"injected" not in written


def _check_lines(found: list[dict[str, Any]], job: str) -> None:
    requests = [line for line in found if line["event"] == "request"]
    assert len(requests) > 40
    for line in requests:
        assert list(line) == [
            "time", "level", "event", "logger", "request_id", "route", "method", "tenant", "upn", "status", "code", "ms", "received", "sent", "client_ip",
        ]  # fmt: skip
        assert re.fullmatch(r"[0-9a-f-]{36}", line["request_id"])
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", line["time"])
        assert 200 <= line["status"] < 500
        assert (line["code"] == "") == (line["status"] < 300)
        assert line["ms"] >= 0
    read = next(line for line in requests if line["route"] == "mailbox.read" and line["status"] == 200)
    assert (read["upn"], read["method"], read["sent"], read["client_ip"]) == (OWNER, "GET", len(MESSAGE), "127.0.0.1")
    assert {line["upn"] for line in requests} == {"", OWNER, ADMIN, "operator@provider.example"}
    assert {line["level"] for line in requests if line["route"] in {"/healthz", "/metrics"}} == {"debug"}
    turns = [line for line in found if line["event"] == "job"]
    assert {"job_id", "kind", "tenant_id", "outcome", "done", "total", "ms"} <= set(turns[0])
    assert [line["outcome"] for line in turns if line["job_id"] == job][-1] == "done"
    assert not [line for line in found if "defect" in line]


def test_a_defect_shows_where_it_was_and_not_what_it_was_about(restored: None) -> None:
    """The texts of errors may quote what was worked on; their types and places do not."""
    to = io.BytesIO()
    start_log(LogConfig(LogFormat.JSON, "info"), to)

    def work() -> None:
        try:
            int(MARKS["body"])
        except ValueError as error:
            raise KeyError(MARKS["subject"]) from error

    try:
        work()
    except KeyError:
        logging.getLogger("keystead.http").exception("the call %s met a defect", "8c7f")
    (line,) = lines(to.getvalue())
    assert b"quetzal" not in to.getvalue()
    assert (line["level"], line["event"], line["logger"], line["defect"]) == (
        "error",
        "the call 8c7f met a defect",
        "keystead.http",
        "KeyError",
    )
    assert [place.rpartition("/")[2].partition(":")[0] for place in line["places"] if ":" in place].count("test_logs.py") == 3
    assert [place for place in line["places"] if ":" not in place] == ["ValueError", "KeyError"]


def test_a_thread_that_dies_of_a_defect_says_so_in_the_log_alone(restored: None, capfd: pytest.CaptureFixture[str]) -> None:
    to = io.BytesIO()
    start_log(LogConfig(LogFormat.JSON, "info"), to)
    thread = threading.Thread(target=int, args=(MARKS["body"],), name="jobs-0")
    thread.start()
    thread.join()
    (line,) = lines(to.getvalue())
    assert (line["event"], line["defect"], line["thread_name"]) == ("a thread met a defect and ended", "ValueError", "jobs-0")

    class Broken:
        def __del__(self) -> None:
            raise ValueError(MARKS["body"])

    Broken()
    gc.collect()
    assert [line["event"] for line in lines(to.getvalue())][1:] == ["clearing away met a defect"]
    assert "quetzal" not in capfd.readouterr().err
    assert b"quetzal" not in to.getvalue()


def test_what_would_break_a_line_does_not(restored: None) -> None:
    """A line is one line, whatever is in it; nobody writes a second one by way of a name."""
    logging.getLogger().handlers.clear()  # no report of a test can carry half a pair
    sly = 'a\r\n2026-01-01T00:00:00Z error   "forged" \x1b[31m\u2028x'
    for form in LogFormat:
        to = io.BytesIO()
        requests = start_log(LogConfig(form, "info"), to)
        requests.ended(Seen("8c7f", "tenant.list", "GET", sly, sly, 200, "", 0.00123, 5, 7, "127.0.0.1"))
        logging.getLogger("keystead.jobs").warning("about %s", sly, extra={"name_of": sly})
        logging.getLogger("keystead.jobs").warning("half a pair %s", "\ud800")
        written = to.getvalue()
        assert written.count(b"\n") == 3
        assert b"\x1b" not in written
        if form is LogFormat.JSON:
            assert [line["tenant"] for line in lines(written)[:1]] == [sly]
            assert len(lines(written)) == 3
        else:
            assert len(written.decode("ascii").splitlines()) == 3


def test_levels_and_libraries(restored: None) -> None:
    to = io.BytesIO()
    requests = start_log(LogConfig(LogFormat.TEXT, "warning"), to)
    good = Seen("8c7f", "tenant.list", "GET", "", "", 200, "", 0.001, 0, 2, "")
    requests.ended(good)
    logging.getLogger("keystead.jobs").info("quiet")
    logging.getLogger("some.library").info("quiet")
    assert to.getvalue() == b""
    requests.ended(Seen("8c7f", "tenant.list", "GET", "", "", 503, "database_unavailable", 0.001, 0, 2, ""))
    requests.ended(Seen("8c7f", "mailbox.read", "GET", "", "", 200, "cut_off", 0.001, 0, 2, ""))
    logging.getLogger("some.library").warning("loud")
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        logging.captureWarnings(capture=True)
        warnings.warn("mind the step", RuntimeWarning, stacklevel=1)
    written = to.getvalue().decode().splitlines()
    assert ["warning" in line.split(" ")[1] for line in written[:4]] == [True] * 4
    assert "code=database_unavailable" in written[0]
    assert "status=200" in written[1]
    assert "mind the step" in "".join(written[3:])
    again = io.BytesIO()
    start_log(LogConfig(LogFormat.TEXT, "info"), again)
    logging.getLogger("keystead.jobs").info("once")
    assert again.getvalue().count(b"once") == 1
    assert b"once" not in to.getvalue()


def test_a_reader_who_is_gone_does_not_stop_the_server() -> None:
    class Gone(io.RawIOBase):
        tried = 0

        def write(self, _data: Any) -> int:
            self.tried += 1
            raise BrokenPipeError

    to = Gone()
    log = Log(to)  # type: ignore[arg-type]  # all it needs is write and flush
    log.msg(b"one")
    log.msg(b"two")
    assert to.tried == 2
    to.close()
    log.msg(b"three")
    assert to.tried == 2 or to.closed
