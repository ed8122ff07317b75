"""Jobs, audit records, alerts, settings, the home."""

from datetime import datetime
from typing import Annotated, Literal

import msgspec

from keystead.api.types.base import Request, Response

Limit = Annotated[int, msgspec.Meta(ge=1, le=5000)]


class NameJob(Request, frozen=True):
    job: str


class ListJobs(Request, frozen=True):
    """`after`: a job id. Newest first."""

    states: list[Literal["queued", "running", "done", "failed", "cancelled"]] = []
    after: str = ""
    limit: Limit = 100


class JobView(Response, frozen=True):
    """`progress_percent` counts the work of the jobs this one started, too; `finished` only when they are done.

    `stuck`: the last three tries failed with `error`; it goes on trying, less and less often.
    """

    id: str
    kind: str
    subject_id: str
    state: str
    progress_percent: float
    done: int
    total: int
    created: datetime
    started: datetime | None
    finished: datetime | None
    error: str
    stuck: bool = False


class SearchAudit(Request, frozen=True):
    """Empty fields do not restrict; the default window is the last 7 days, the largest 90 days. `after`: a record id."""

    operations: list[str] = []
    start: datetime | None = None
    end: datetime | None = None
    users: list[str] = []
    item: str = ""
    after: str = ""
    limit: Limit = 100


class Parameter(Response, frozen=True):
    name: str
    value: str


class AuditRecordView(Response, frozen=True):
    """Requirements 10.2, in snake_case."""

    id: str
    record_type: int
    creation_time: datetime
    operation: str
    organization_id: str
    organization_name: str
    user_type: int
    user_key: str
    user_id: str
    workload: str
    result_status: str
    object_id: str
    client_ip: str
    external_access: bool
    originating_server: str
    parameters: list[Parameter]
    request_id: str
    version: int = 1


class ListAlerts(Request, frozen=True):
    """Newest first. No `kinds`: all. `of_tenant`: on the provider's route, that tenant's alone, by name, domain or id."""

    kinds: list[str] = []
    lasting_only: bool = False
    of_tenant: str = ""
    limit: Limit = 100


class AlertView(Response, frozen=True):
    """One condition, from when it was first seen (`raised`) until it ended.

    `tenant_id` is empty for the installation's own. `subject_name` is that of the policy, mailbox or hook, shown to the tenant's people; the
    provider's see ids. `escalated`: since when it is critical whatever its kind. `mend`: what to do.
    """

    id: str
    tenant_id: str
    kind: str
    severity: str
    subject_id: str
    subject_name: str
    raised: datetime
    last_seen: datetime
    times: int
    escalated: datetime | None
    resolved: datetime | None
    text: str
    mend: str
    detail: str


class TryHook(Request, frozen=True):
    """`hook`: its name in keystead.toml."""

    hook: str


class HookTried(Response, frozen=True):
    """A test message got through; `answer` is what the other side said."""

    hook: str
    event_id: str
    answer: str


class HookView(Response, frozen=True):
    """One hook of keystead.toml. `failures`: in a row; `last_error` is what the last of them was; `next_try` is empty for at once."""

    name: str
    kinds: list[str]
    tenant: str
    failures: int
    failing_since: datetime | None
    next_try: datetime | None
    last_error: str


class SettingView(Response, frozen=True):
    name: str
    value: str
    source: str


class SetSetting(Request, frozen=True):
    name: str
    value: str


class RotateKeyStore(Request, frozen=True):
    pass


class EpochView(Response, frozen=True):
    compartment: str
    epoch: int


class RollAvailabilityKey(Request, frozen=True):
    policy: str


class AdvanceClock(Request, frozen=True):
    """Milliseconds, forward only."""

    milliseconds: Annotated[int, msgspec.Meta(ge=0)]


class ClockView(Response, frozen=True):
    now: datetime


class SetFault(Request, frozen=True):
    vault: str
    fault: Literal[
        "timeout",
        "slow",
        "connection-refused",
        "dns",
        "tls",
        "http-500",
        "http-429",
        "http-401",
        "http-403",
        "firewall",
        "wrong-bytes",
        "none",
    ]


class FaultView(Response, frozen=True):
    vault: str
    fault: str


class HomeView(Response, frozen=True):
    """The installation, for its operator."""

    home: str
    dev: bool
    version: str
