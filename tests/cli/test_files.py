"""`keystead files`: what is asked for, what is waited for, and how it ends (R-103 to R-109, R-124, R-159)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from cli.fake import WHEN, job
from keystead.api.types import file_policies as t
from keystead.api.types.tenants import Done

if TYPE_CHECKING:
    from cli.fake import Cli, FakeService

FIRST, SECOND = ("https://vault-a.vault.localhost/keys/k/01", "https://vault-b.vault.localhost/keys/k/02")
STATUS = t.FilesStatus(
    geo="EUR",
    state="Registering",
    primary_key_uri=FIRST,
    secondary_key_uri=SECOND,
    percent_sites=0.0,
    sites=3,
    sites_done=0,
    policy_id="p",
    job_id="job-1",
    started=WHEN,
    health=None,
)
DONE = t.FilesStatus(
    geo="EUR",
    state="Registered",
    primary_key_uri=FIRST,
    secondary_key_uri=SECOND,
    percent_sites=100.0,
    sites=3,
    sites_done=3,
    policy_id="p",
    job_id="job-1",
    started=None,
    health="healthy",
)
KEYS = ("--geo", "EUR", "--primary", FIRST, "--secondary", SECOND)


@pytest.mark.parametrize(
    ("line", "route", "request_"),
    [
        (("register", *KEYS), "files.register", t.RegisterFiles(geo="EUR", primary=FIRST, secondary=SECOND)),
        (("recover", *KEYS), "files.recover", t.RecoverFiles(geo="EUR", primary=FIRST, secondary=SECOND)),
        (
            ("roll", "--geo", "EUR", "--which", "secondary", "--key", SECOND),
            "files.roll",
            t.RollFiles(geo="EUR", which="secondary", key=SECOND),
        ),
        (("revert", "--geo", "EUR"), "files.revert", t.NameGeo(geo="EUR")),
    ],
)
def test_a_change_is_waited_for_and_shown_as_it_is_then(
    cli: Cli, service: FakeService, line: tuple[str, ...], route: str, request_: object
) -> None:
    service.answers |= {route: STATUS, "files.status": DONE, "job.show": job()}
    result = cli("files", *line, "--json")
    assert result.code == 0
    assert (result.document["state"], result.document["percent_sites"], result.document["job_state"]) == ("Registered", 100.0, "done")
    assert service.routes[0] == route
    assert service.asked[0].request == request_


def test_a_change_may_go_on_by_itself(cli: Cli, service: FakeService) -> None:
    service.answers["files.register"] = STATUS
    document = cli("files", "register", *KEYS, "--no-wait", "--json").document
    assert (document["state"], document["job_id"]) == ("Registering", "job-1")
    assert service.routes == ["files.register"]


def test_what_holds_a_change_up_ends_the_command(cli: Cli, service: FakeService) -> None:
    held = job("running", "denied_by_customer_key: the customer's keys refuse the service", stuck=True)
    service.answers |= {"files.roll": STATUS, "files.status": STATUS, "job.show": held}
    result = cli("files", "roll", "--which", "primary", "--key", FIRST)
    assert result.code == 3
    assert "denied_by_customer_key" in result.err


def test_what_would_be_done_is_only_said(cli: Cli, service: FakeService) -> None:
    result = cli("files", "register", *KEYS, "--what-if")
    assert result.code == 0
    assert "files.register" in result.out
    assert FIRST in result.out
    assert service.routes == []


def test_status_and_health_ask_for_a_geo_or_for_the_only_one(cli: Cli, service: FakeService) -> None:
    health = t.FilesHealth(geo="EUR", state="healthy", keys=[], checked=WHEN)
    service.answers |= {"files.status": DONE, "files.health": health}
    assert cli("files", "status", "--geo", "EUR", "--json").document["primary_key_uri"] == FIRST
    assert cli("files", "health", "--json").document["state"] == "healthy"
    assert [asked.request for asked in service.asked] == [t.NameGeo(geo="EUR"), t.NameGeo(geo="")]


def test_the_availability_key_of_a_geo_is_rolled_by_the_geos_name(cli: Cli, service: FakeService) -> None:
    service.answers |= {"keystore.roll-files": Done(id="fresh")}
    assert cli("keystore", "roll", "--geo", "EUR", "--json").document["id"] == "fresh"
    assert [asked.request for asked in service.asked] == [t.NameGeo(geo="EUR")]


@pytest.mark.parametrize(
    "line",
    [
        ("files", "register", "--geo", "EUR", "--primary", FIRST),
        ("files", "roll", "--which", "third", "--key", FIRST),
        ("files", "roll", "--which", "primary"),
        ("keystore", "roll"),
        ("keystore", "roll", "policy", "--geo", "EUR"),
    ],
)
def test_a_line_with_something_missing_asks_nothing(cli: Cli, service: FakeService, line: tuple[str, ...]) -> None:
    assert cli(*line).code == 2
    assert service.routes == []
