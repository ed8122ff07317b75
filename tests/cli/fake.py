"""A service that answers what a test says, and writes down what it was asked."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from keystead.api.types.mailboxes import AssignmentView
from keystead.api.types.policies import PolicySummary
from keystead.api.types.tenants import TenantView
from keystead.api.types.vaults import KeyView
from keystead.api.types.watching import JobView
from keystead.cli.main import run
from keystead.client.client import Client
from keystead.client.http import HttpTransport

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pytest

    from keystead.api.call import Upload
    from keystead.api.routes import Route
    from keystead.cli.options import GlobalOptions

WHEN = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
KEY = KeyView(
    id="https://vault-a.vault.localhost/keys/root/0123456789abcdef0123456789abcdef",
    base_id="https://vault-a.vault.localhost/keys/root",
    vault="vault-a",
    name="root",
    version="0123456789abcdef0123456789abcdef",
    kty="RSA",
    size=2048,
    curve=None,
    key_ops=["unwrapKey", "wrapKey"],
    enabled=True,
    not_before=None,
    expires=None,
    created=WHEN,
    updated=WHEN,
    recovery_level="Recoverable+ProtectedSubscription",
    recoverable_days=90,
    hardware=False,
    tags={},
    public_key="-----BEGIN PUBLIC KEY-----\n",
    deleted=None,
    scheduled_purge=None,
)
TENANT = TenantView(id="7b0f32c1-6a90-4f0e-8a5c-3b58e2a4f001", name="contoso", domain="contoso.example", geos=["EUR"], created=WHEN)
ASSIGNMENT = AssignmentView(policy_id="p", policy_name="mail", mailboxes=1, job_id="job-1")
POLICY = PolicySummary(
    id="p", name="mail", description="", workload="mail", enabled=True, state="Active", created=WHEN, version=1, version_id="v", health=None
)


def job(state: str = "done", error: str = "", *, stuck: bool = False) -> JobView:
    """A job as it is shown."""
    percent = 100.0 if state == "done" else 40.0
    return JobView(
        id="job-1",
        kind="change-hierarchy",
        subject_id="p",
        state=state,
        progress_percent=percent,
        done=1,
        total=1,
        created=WHEN,
        started=WHEN,
        finished=None,
        error=error,
        stuck=stuck,
    )


@dataclass
class Asked:
    """One call."""

    route: str
    request: Any
    tenant: str
    upload: bytes | None = None


@dataclass
class FakeService:
    """A transport, and the connection to it.

    Attributes:
        answers: by route: an answer, a list of answers one after another, an exception, or a function of the request.
    """

    answers: dict[str, Any] = field(default_factory=dict)
    asked: list[Asked] = field(default_factory=list)
    options: GlobalOptions | None = None
    closed: int = 0
    pushed: list[str] = field(default_factory=list)
    batch_bytes: int = HttpTransport.batch_bytes

    def connect(self, options: GlobalOptions) -> FakeService:
        self.options = options
        return self

    def client(self, tenant: str) -> Client:
        return Client(self, tenant)

    def run(self, route: Route, request: Any, *, tenant: str, upload: Upload | None) -> Any:
        data = b"".join(_read_all(upload)) if upload is not None else None
        self.asked.append(Asked(route.name, request, tenant, data))
        answer = self.answers[route.name]
        if isinstance(answer, _InTurn):
            answer = answer.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer(request) if callable(answer) else answer

    def push(self, job_id: str) -> bool:
        self.pushed.append(job_id)
        return False

    def close(self) -> None:
        self.closed += 1

    @property
    def routes(self) -> list[str]:
        return [asked.route for asked in self.asked]


@dataclass
class _InTurn:
    answers: list[Any]


def in_turn(*answers: Any) -> _InTurn:
    """One answer after another."""
    return _InTurn(list(answers))


def _read_all(upload: Upload) -> Iterator[bytes]:
    while piece := upload.read(65536):
        yield piece


@dataclass
class Result:
    """What a command line gave."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        """The one JSON document on stdout."""
        return json.loads(self.out)


@dataclass
class Cli:
    """Runs lines against a fake service."""

    service: FakeService
    capture: pytest.CaptureFixture[str]

    def __call__(self, *line: str, interactive: bool = False, **environment: str) -> Result:
        code = run(line, environment=environment, connect=self.service.connect, interactive=interactive)
        captured = self.capture.readouterr()
        return Result(code, captured.out, captured.err)
