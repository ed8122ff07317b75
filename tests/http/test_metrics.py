"""/metrics: every figure shows what happened, no label names anybody, and only those who may see the page do."""

from __future__ import annotations

import os
import platform
import re
import signal
import sqlite3
import time
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from keystead.api.routes import ROUTES
from keystead.core.access.principal import NOBODY, Principal
from keystead.core.alerts import AlertKind
from keystead.core.errors import KeyDenied, Unauthenticated, Unavailable
from keystead.frontends.http import metrics as module
from keystead.frontends.http.app import Parts
from keystead.frontends.http.credentials import Credentials
from keystead.frontends.http.metrics import Metrics
from keystead.ports.clock import HOUR, SECOND
from keystead.services import tenants
from keystead.services.figures import figures
from keystead.wiring import create_home
from support.file_world import files_world
from support.http import running, served
from support.waiting import until
from support.world import OPERATOR, World, run_jobs

if TYPE_CHECKING:
    from collections.abc import Iterator

    from keystead.ports.figures import Figures
    from keystead.services.context import Services

Shown = dict[tuple[str, tuple[tuple[str, str], ...]], float]
LABELS = {"route", "status", "le", "code", "outcome", "cause", "kind", "state", "health", "opened_by", "version", "python"}


def parsed(text: str) -> Shown:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


class Page:
    """The page as it was, asked for by name and labels."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.figures = parsed(text)

    def __call__(self, name: str, **labels: str) -> float:
        return self.figures.get((f"keystead_{name}", tuple(sorted(labels.items()))), 0.0)


@contextmanager
def watched(world: World) -> Iterator[str]:
    """A world over HTTP, with figures; a bearer token is the caller's UPN."""

    def who(shown: Credentials) -> Principal:
        if shown.bearer == "wrong":
            raise Unauthenticated("token_invalid", "the token is not good")
        if shown.bearer == OPERATOR.upn:
            return OPERATOR
        return tenants.impersonate(world.services, shown.bearer) if shown.bearer else NOBODY

    metrics = Metrics(world.services, who)
    with running(Parts(world.dispatcher, who, os.urandom, pages={"/metrics": metrics.page}, observers=(metrics,))) as url:
        yield url


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was read from the database is read again each time."""
    monkeypatch.setattr(module, "KEPT", 0.0)
    monkeypatch.setattr(module, "SHARE", 0)


def page(url: str, **headers: str) -> Page:
    answer = httpx.get(f"{url}/metrics", headers=headers)
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    return Page(answer.text)


def test_calls_are_counted_by_route_and_status(world: World, at_once: None) -> None:
    contoso = world.tenant(ready=False)
    mailbox = contoso.mailbox("alex", messages=1)
    item = mailbox.items()[0].id
    with watched(world) as url:
        before = page(url)
        assert before("http_requests_total", route="tenant.list", status="200") == 0

        def ask(path: str, bearer: str = "", method: str = "GET", **more: Any) -> httpx.Response:
            headers = {"authorization": f"Bearer {bearer}"} if bearer else {}
            return httpx.request(method, url + path, headers=headers, **more)

        read = ask(f"/v1/tenants/-/mailboxes/{mailbox.upn}/items/{item}", mailbox.upn)
        assert ask("/v1/tenants/-/users", "admin@contoso.example", "POST", content=b"{}").status_code == 415
        for bearer, status in ((OPERATOR.upn, 200), (OPERATOR.upn, 200), (mailbox.upn, 403), ("", 401), ("wrong", 401)):
            assert ask("/v1/tenants", bearer).status_code == status
        assert ask("/no/such/path").status_code == 404
        assert ask("/healthz", "x" * 40_000).status_code == 431
        after = page(url)
    assert after("http_requests_total", route="tenant.list", status="200") == 2
    assert after("http_requests_total", route="tenant.list", status="403") == 1
    assert after("http_requests_total", route="tenant.list", status="401") == 2
    assert after("http_requests_total", route="none", status="404") == 1
    assert after("http_requests_total", route="none", status="431") == 1, "refused before anybody knows what it asks for"
    assert after("http_requests_total", route="mailbox.read", status="200") == 1
    assert after("http_sent_bytes_total", route="mailbox.read") == len(read.content)
    assert after("http_request_duration_seconds_count", route="tenant.list") == 5
    assert after("http_request_duration_seconds_bucket", route="tenant.list", le="600.0") == 5
    assert 0 < after("http_request_duration_seconds_sum", route="tenant.list") < 60
    assert after("http_refused_total", code="role_missing") == 1
    assert after("http_refused_total", code="route_not_found") == 1
    assert after("authentication_failures_total", code="token_invalid") == 1
    assert after("authentication_failures_total", code="not_signed_in") == 1
    assert after("http_requests_in_flight") == 1, "the page itself"
    assert after("build_info", version="0.1.0", python=platform.python_version()) == 1


def test_received_bytes_are_those_of_bodies(world: World) -> None:
    world.tenant(ready=False)
    body = b'{"upn": "kim@contoso.example", "roles": ["user"]}'
    with watched(world) as url:
        headers = {"authorization": "Bearer admin@contoso.example", "content-type": "application/json"}
        assert httpx.post(f"{url}/v1/tenants/-/users", headers=headers, content=body).status_code == 200
        assert page(url)("http_received_bytes_total", route="user.add") == len(body)


def test_the_keys_of_policies_are_watched(world: World, at_once: None) -> None:
    """R-149, R-256: answers of customer keys, uses of the availability key, and how the policies are."""
    contoso = world.tenant()
    policy = contoso.policy()
    mailbox = contoso.mailbox("alex", messages=1)
    contoso.assign(policy, mailbox)
    with watched(world) as url:
        assert page(url)("policies", health="healthy") + page(url)("policies", health="unknown") == 1
        assert page(url)("cached_policy_keys", opened_by="primary") + page(url)("cached_policy_keys", opened_by="secondary") == 1
        world.vaults.fail("contosov1", "denied")
        world.clock.advance(61 * SECOND)
        mailbox.read_all()
        found = page(url)
        assert found("policies", health="degraded") == 1
        assert found("alerts", kind="key-degraded") == 1
        assert found("customer_key_answers_total", outcome="denied") >= 1
        assert found("customer_key_answers_total", outcome="success") >= 1
        world.vaults.fail("contosov2", "denied")
        world.clock.advance(61 * SECOND)
        with pytest.raises(KeyDenied):
            mailbox.read_all()
        found = page(url)
        assert found("policies", health="denied") == 1
        assert found("alerts", kind="key-denied") == 1
        assert found("cached_policy_keys", opened_by="primary") + found("cached_policy_keys", opened_by="secondary") == 0
        assert found("availability_key_uses_total", cause="denial") == 0
        mailbox.add(b"Subject: while denied\r\n\r\n")
        assert page(url)("availability_key_uses_total", cause="denial") == 1
        world.vaults.fail("contosov1", "system-error")
        world.vaults.fail("contosov2", "system-error")
        world.clock.advance(61 * SECOND)
        world.forget()
        mailbox.read_all()
        found = page(url)
        assert found("policies", health="unreachable") == 1
        assert found("availability_key_uses_total", cause="outage") == 1
        assert found("cached_policy_keys", opened_by="availability") == 1


def test_jobs_and_moves_are_counted(world: World, at_once: None) -> None:
    """R-093: and how long the first in line waits."""
    contoso = world.tenant()
    contoso.assign(contoso.policy(), contoso.mailbox("alex", messages=1), wait=False)
    with watched(world) as url:
        found = page(url)
        assert found("jobs", kind="change-hierarchy", state="queued") == 1
        assert found("job_oldest_due_seconds") == 0
        assert found("moves_overdue") == 0
        world.clock.advance(90 * SECOND)
        assert page(url)("job_oldest_due_seconds") == 90
        world.sql("UPDATE mailboxes SET move_state = 'queued', assigned_at = ?", world.clock.now() - 73 * HOUR)
        assert page(url)("moves_overdue") == 1
        run_jobs(world)
        found = page(url)
        assert found("jobs", kind="change-hierarchy", state="queued") == 0
        assert found("job_turns_total", kind="change-hierarchy", outcome="done") == 1
        assert found("job_turns_total", kind="move-mailbox", outcome="done") == 1


def test_a_geo_whose_registration_lasts_too_long_is_counted(world: World, at_once: None) -> None:
    """R-122."""
    files = files_world(world)
    files.site("plans", {"/plan": b"the plan"})
    files.register(wait=False)
    with watched(world) as url:
        assert page(url)("geos_overdue") == 0
        world.clock.advance(5 * HOUR)
        assert page(url)("geos_overdue") == 1
        run_jobs(world)
        assert page(url)("geos_overdue") == 0


def test_an_act_that_could_not_be_recorded_is_counted(world: World) -> None:
    world.tenant(ready=False)
    with watched(world) as url:
        assert page(url)("audit_write_failures_total") == 0
        world.sql("CREATE TRIGGER full BEFORE INSERT ON audit_records BEGIN SELECT RAISE(ABORT, 'not allowed'); END")
        headers = {"authorization": "Bearer admin@contoso.example", "content-type": "application/json"}
        body = b'{"upn": "kim@contoso.example", "roles": ["user"]}'
        assert httpx.post(f"{url}/v1/tenants/-/users", headers=headers, content=body).json()["code"] == "audit_unwritable"
        assert page(url)("audit_write_failures_total") == 1


def test_no_label_names_anybody_and_there_are_always_as_many_series(world: World, at_once: None) -> None:
    """Privacy, and a bounded number: figures neither tell who the customers are nor grow with them."""
    with watched(world) as url:
        shapes = []
        for domain in ("contoso.example", "fabrikam.example"):
            tenant = world.tenant(domain)
            mailbox = tenant.mailbox("alex", messages=1)
            tenant.assign(tenant.policy(), mailbox)
            for path in (
                f"/v1/tenants/-/mailboxes/{mailbox.upn}/items",
                f"/v1/tenants/{domain}/mailboxes/{mailbox.upn}/move",
                f"/v1/tenants/{domain}",
            ):
                assert httpx.get(url + path, headers={"authorization": f"Bearer {mailbox.upn}"}).status_code == 200
            page(url)
            shapes.append({name for name in page(url).figures if not name[0].startswith("process_")})
        text = "\n".join(line for line in page(url).text.splitlines() if not line.startswith("#"))
    assert shapes[0] == shapes[1]
    for word in ("contoso", "fabrikam", "alex", "admin@", "Mail", "@", tenant.id):
        assert word not in text, word
    names = {label for _name, labels in parsed(text) for label, _value in labels}
    assert names <= LABELS
    routes = {dict(labels)["route"] for _name, labels in parsed(text) if "route" in dict(labels)}
    assert routes <= {"none", "/metrics", "/healthz", "/readyz", *(route.name for route in ROUTES)}
    kinds = {dict(labels)["kind"] for name, labels in parsed(text) if name == "keystead_alerts"}
    assert kinds == set(AlertKind), "an alert rule sees a nought, and not nothing"


def test_who_may_see_the_figures(world: World) -> None:
    """Deny by default: this machine itself may, and the provider's operators; a proxy on this machine is not taken for its callers."""
    contoso = world.tenant(ready=False)
    contoso.person("alex", "user")
    with watched(world) as url:
        assert httpx.get(f"{url}/metrics").status_code == 200
        for field in ("x-forwarded-for", "forwarded", "x-real-ip", "via"):
            cases = (("", 401), ("wrong", 401), ("alex@contoso.example", 403), ("admin@contoso.example", 403), (OPERATOR.upn, 200))
            for bearer, status in cases:
                headers = {field: "203.0.113.9"} | ({"authorization": f"Bearer {bearer}"} if bearer else {})
                answer = httpx.get(f"{url}/metrics", headers=headers)
                assert answer.status_code == status, (field, bearer)
                assert ("keystead_" in answer.text) == (status == 200)


def test_without_the_database_the_rest_is_shown(world: World, at_once: None) -> None:
    broken = replace(world.services, db=_Gone())  # type: ignore[arg-type]  # a database that answers nothing
    found = Metrics(broken, lambda _shown: NOBODY).page(_local())
    figures = parsed(found.body.decode())
    assert figures["keystead_database_up", ()] == 0
    assert ("keystead_moves_overdue", ()) not in figures
    assert ("keystead_http_requests_in_flight", ()) in figures


class _Gone:
    def read(self) -> Any:
        raise Unavailable("database_unavailable", "the database does not answer")


def _local() -> Credentials:
    return Credentials(client_ip="127.0.0.1")


def test_the_database_is_asked_once_in_a_while(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[int] = []

    def look(services: Services) -> Figures:
        looked.append(1)
        return figures(services)

    monkeypatch.setattr(module, "figures", look)
    metrics = Metrics(world.services, lambda _shown: NOBODY)
    for _ in range(20):
        metrics.page(_local())
    assert looked == [1]
    monkeypatch.setattr(module, "KEPT", 0.0)
    monkeypatch.setattr(module, "monotonic", lambda: time.monotonic() + 60)
    metrics.page(_local())
    assert looked == [1, 1]


def test_the_figures_of_several_processes_are_one(tmp_path: Path) -> None:
    """Whichever process answers; and what a killed one counted stays, while what it was doing does not."""
    home = tmp_path / "home"
    create_home(home, dev=True, operator="operator@provider.example")
    with served(home, "--processes", "2") as server:
        for _ in range(40):
            assert httpx.get(f"{server.url}/openapi.json").status_code == 200
        until(lambda: page(server.url)("http_requests_total", route="/openapi.json", status="200") == 40)  # counted once it has been sent
        seen = {page(server.url)("http_requests_total", route="/openapi.json", status="200") for _ in range(8)}
        assert seen == {40.0}
        assert page(server.url)("http_requests_in_flight") == 1
        folder = next((home / "run").glob("metrics-*"))
        assert folder.stat().st_mode & 0o777 == 0o700
        children = {int(path.stem.rpartition("_")[2]) for path in folder.glob("counter_*.db")}
        assert len(children) == 2
        os.kill(min(children), signal.SIGKILL)
        until(lambda: {int(path.stem.rpartition("_")[2]) for path in folder.glob("gauge_livesum_*.db")} != children)
        assert page(server.url)("http_requests_total", route="/openapi.json", status="200") == 40
        assert page(server.url)("http_requests_in_flight") == 1
    assert list((home / "run").glob("metrics-*")) == []


def test_looking_takes_a_few_steps_in_an_index(world: World) -> None:
    """What is over and done is not looked at."""
    with closing(sqlite3.connect(world.path / "keystead.db")) as connection:
        plans = []
        for statement in (
            "SELECT kind, state, count(*) FROM jobs WHERE state IN ('queued', 'running', 'failed') GROUP BY kind, state",
            "SELECT count(*) FROM mailboxes WHERE assigned_at < 1 AND move_state IN ('queued', 'moving', 'failed')",
            "SELECT kind, count(*) FROM alerts WHERE resolved IS NULL GROUP BY kind",
        ):
            plans += [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {statement}")]
    assert not [plan for plan in plans if plan.startswith("SCAN") and "INDEX" not in plan], plans


def test_the_guide_names_every_figure_and_label(world: World) -> None:
    guide = (Path(__file__).resolve().parents[2] / "docs" / "howto" / "watch.md").read_text()
    found = Metrics(world.services, lambda _shown: NOBODY).page(_local()).body.decode()
    families = [line.split(" ")[2] for line in found.splitlines() if line.startswith("# TYPE keystead_")]
    assert len(families) > 15
    rows = [line for line in guide.splitlines() if line.startswith("| `keystead_")]
    assert sorted(row.split("`")[1] for row in rows) == sorted(families)
    named = {label for row in rows for label in re.findall("`([a-z_]+)`", row.split("|")[3])}
    assert named == LABELS - {"le"}
    for name in re.findall(r"keystead_[a-z_]+", guide):
        assert name.removesuffix("_bucket") in families, f"{name} is no figure"
