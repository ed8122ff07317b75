"""The client over the local transport: which tenant a call is about, whose it is, and how long it waits for a job."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from keystead.api.types.mailboxes import ListMailboxes, NameMailbox
from keystead.api.types.tenants import CreateTenant
from keystead.api.types.watching import JobView, NameJob
from keystead.client.client import Client
from keystead.client.local import LocalTransport
from keystead.core.access.principal import NOBODY, Principal, Role
from keystead.core.errors import KeyDenied

if TYPE_CHECKING:
    from keystead.api.call import Upload
    from keystead.api.routes import Route

ALEX = Principal("alex@contoso.example", "t", frozenset({Role.USER}))
NOW = datetime(2026, 6, 1, tzinfo=UTC)


def view(state: str, *, stuck: bool = False) -> JobView:
    return JobView(
        id="j", kind="k", subject_id="s", state=state, progress_percent=0.0, done=0, total=0, created=NOW, started=None, finished=None, error="", stuck=stuck
    )  # fmt: skip


@dataclass
class Dispatcher:
    """Notes what it is asked and answers in turn."""

    answers: list[Any] = field(default_factory=list)
    asked: list[tuple[str, Any, Principal, str]] = field(default_factory=list)

    def run(self, route: Route, request: Any, *, principal: Principal, tenant: str = "", upload: Upload | None = None) -> Any:
        self.asked.append((route.name, request, principal, tenant))
        answer = self.answers.pop(0) if self.answers else None
        if isinstance(answer, Exception):
            raise answer
        return answer


@dataclass
class Scene:
    """A client and what stands behind it."""

    dispatcher: Dispatcher = field(default_factory=Dispatcher)
    principals: list[Principal] = field(default_factory=lambda: [ALEX])
    pushed: list[str] = field(default_factory=list)
    closed: list[bool] = field(default_factory=list)

    def client(self, tenant: str = "") -> Client:
        transport = LocalTransport(self.dispatcher, lambda: self.principals[0], self.pushed.append, lambda: self.closed.append(True))  # type: ignore[arg-type]  # a stand-in
        return Client(transport, tenant)


def test_the_tenant_is_the_named_one_else_that_of_the_upn_else_the_callers_own() -> None:
    scene = Scene()
    for client, route, request in (
        (scene.client("fabrikam"), "mailbox.statistics", NameMailbox(upn="alex@contoso.example")),
        (scene.client(), "mailbox.statistics", NameMailbox(upn="alex@contoso.example")),
        (scene.client(), "mailbox.list", ListMailboxes()),
        (scene.client("fabrikam"), "tenant.create", CreateTenant(name="n", domain="d", geo=[])),
        (scene.client("fabrikam"), "tenant.list", None),
    ):
        client.call(route, request)
    assert [tenant for _route, _request, _principal, tenant in scene.dispatcher.asked] == ["fabrikam", "contoso.example", "", "", ""]
    assert scene.dispatcher.asked[-1][1] is not None, "no request means an empty one"


def test_who_calls_is_asked_for_every_call() -> None:
    scene = Scene()
    client = scene.client()
    client.call("mailbox.list", ListMailboxes())
    scene.principals[0] = NOBODY
    client.call("mailbox.list", ListMailboxes())
    assert [principal for _route, _request, principal, _tenant in scene.dispatcher.asked] == [ALEX, NOBODY]


def test_what_the_service_raises_reaches_the_caller_as_it_is() -> None:
    error = KeyDenied("denied_by_customer_key", "no")
    with pytest.raises(KeyDenied) as caught:
        Scene(Dispatcher([error])).client().call("mailbox.list", ListMailboxes())
    assert caught.value is error


def test_unknown_rows_are_a_mistake_of_the_program() -> None:
    with pytest.raises(KeyError):
        Scene().client().call("mailbox.no-such")


@pytest.mark.parametrize("end", ["done", "failed", "cancelled"])
def test_waiting_pushes_until_the_job_has_ended(end: str) -> None:
    scene = Scene(Dispatcher([view("queued"), view("running"), view("running"), view(end)]))
    seen: list[str] = []
    assert scene.client().wait("j", lambda at: seen.append(at.state)).state == end
    assert seen == ["queued", "running", "running", end]
    assert scene.pushed == ["j"] * 3
    assert {request for _route, request, _principal, _tenant in scene.dispatcher.asked} == {NameJob(job="j")}


def test_a_stuck_job_is_tried_once_and_then_left() -> None:
    scene = Scene(Dispatcher([view("queued", stuck=True), view("queued", stuck=True)]))
    assert scene.client().wait("j").stuck
    assert scene.pushed == ["j"]
    mended = Scene(Dispatcher([view("queued", stuck=True), view("running"), view("done")]))
    assert mended.client().wait("j").state == "done"


def test_a_job_that_has_ended_is_not_pushed() -> None:
    scene = Scene(Dispatcher([view("done")]))
    assert scene.client().wait("j").state == "done"
    assert scene.pushed == []


def test_closing_closes_the_stores() -> None:
    scene = Scene()
    scene.client().close()
    assert scene.closed == [True]
