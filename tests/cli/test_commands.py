"""Every rule of the command line that does not need a home: shapes, exit codes, questions, what-if, tenants."""

from __future__ import annotations

import base64
import io
import json
import stat
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from cli.fake import ASSIGNMENT, KEY, POLICY, TENANT, WHEN, in_turn, job
from keystead.api.call import Content
from keystead.api.routes import BY_NAME
from keystead.api.types import mailboxes, policies, tenants, vaults, watching
from keystead.cli.main import run
from keystead.core import errors

if TYPE_CHECKING:
    from pathlib import Path

    from cli.fake import Cli, FakeService

MAILBOX = mailboxes.MailboxView(id="m", upn="alex@contoso.example", type="user", licensed=True, created=WHEN, policy_name=None)
DONE = tenants.Done(id="x")

# -- answers ---------------------------------------------------------------------------------------------------------------------------


def test_json_is_exactly_one_document(cli: Cli, service: FakeService) -> None:
    service.answers["mailbox.create"] = MAILBOX
    result = cli("mailbox", "create", "alex@contoso.example", "--json")
    assert (result.code, result.err) == (0, "")
    assert result.out.count("\n") == 1
    assert result.document == {
        "id": "m",
        "upn": "alex@contoso.example",
        "type": "user",
        "licensed": True,
        "created": "2026-03-01T12:00:00Z",
        "policy_name": None,
        "claim_token": None,
    }
    assert service.closed == 1


def test_lists_are_arrays(cli: Cli, service: FakeService) -> None:
    service.answers["policy.list"] = [POLICY]
    assert [policy["name"] for policy in cli("--json", "policy", "list").document] == ["mail"]
    service.answers["policy.list"] = []
    assert cli("policy", "list", "--json").document == []


def test_a_key_prints_id_and_base_id(cli: Cli, service: FakeService) -> None:
    service.answers["key.create"] = KEY
    line = ("key", "create", "vault-a", "root", "--ops", "wrapKey,unwrapKey", "--tag", "owner=finance")
    document = cli(*line, "--json").document
    assert (document["id"], document["base_id"]) == (KEY.id, KEY.base_id)
    request: vaults.KeyCreate = service.asked[-1].request
    assert (request.ops, request.tags, request.kty, request.enabled) == (["wrapKey", "unwrapKey"], {"owner": "finance"}, "RSA", True)
    assert f"base_id           {KEY.base_id}" in cli(*line).out


def test_warnings_of_an_answer_go_to_stderr(cli: Cli, service: FakeService) -> None:
    service.answers["mailbox.delete-item"] = tenants.Done(id="x", warnings=["look\nhere"])
    result = cli("mailbox", "delete-item", "alex@contoso.example", "x", "--yes")
    assert result.err == "warning: look here\n"
    assert "look" not in result.out


def test_key_update_leaves_alone_what_is_not_named(cli: Cli, service: FakeService) -> None:
    service.answers["key.update"] = KEY
    cli("key", "update", "vault-a", "root", "--ops", "wrapKey")
    request: vaults.KeyUpdate = service.asked[-1].request
    assert json.loads(msgspec.json.encode(request)) == {
        "vault": "vault-a",
        "name": "root",
        "version": None,
        "ops": ["wrapKey"],
        "tags": None,
    }


def test_a_vaults_log_is_searched_by_what_is_named(cli: Cli, service: FakeService) -> None:
    """R-067."""
    service.answers["vault.log"] = []
    assert cli("vault", "log", "vault-a", "--operation", "KeyUnwrap", "--result", "failure", "--start", "2026-03-01T12:00:00Z").code == 0
    request: vaults.VaultLogQuery = service.asked[-1].request
    assert request == vaults.VaultLogQuery(vault="vault-a", operation="KeyUnwrap", result="failure", start=WHEN)


def test_network_rules_and_fail_over(cli: Cli, service: FakeService) -> None:
    """R-043, R-069."""
    view = vaults.NetworkView(vault="vault-a", default_action="Deny", bypass="None", ranges=["203.0.113.0/24"])
    service.answers |= {f"vault.network.{verb}": view for verb in ("show", "allow", "remove", "default")}
    service.answers |= {"vault.fail-over": tenants.Done(id="x"), "vault.protect": tenants.Done(id="x")}
    asked = {
        ("network", "show", "vault-a"): vaults.VaultNamed(vault="vault-a"),
        ("network", "allow", "vault-a", "203.0.113.0/24"): vaults.NetworkRange(vault="vault-a", range="203.0.113.0/24"),
        ("network", "remove", "vault-a", "203.0.113.0/24"): vaults.NetworkRange(vault="vault-a", range="203.0.113.0/24"),
        ("network", "default", "vault-a", "deny"): vaults.NetworkDefault(vault="vault-a", action="deny"),
        ("network", "default", "vault-a", "deny", "--bypass", "None"): vaults.NetworkDefault(vault="vault-a", action="deny", bypass="None"),
        ("fail-over", "vault-a", "on"): vaults.FailOver(vault="vault-a", read_only=True),
        ("fail-over", "vault-a", "off"): vaults.FailOver(vault="vault-a", read_only=False),
        ("protect", "vault-a"): vaults.VaultNamed(vault="vault-a"),
    }
    for line, request in asked.items():
        assert cli("vault", *line).code == 0, line
        assert service.asked[-1].request == request
    assert "203.0.113.0/24" in cli("vault", "network", "show", "vault-a").out
    assert cli("vault", "fail-over", "vault-a", "perhaps").code == 2


def test_a_rotation_policy_is_made_of_what_is_named(cli: Cli, service: FakeService) -> None:
    """R-035."""
    service.answers["key.rotation-policy.set"] = tenants.Done(id="x")
    line = ("key", "rotation-policy", "set", "vault-a", "root")
    assert cli(*line, "--rotate-after", "P90D", "--notify-before-expiry", "P30D", "--expiry-time", "P1Y").code == 0
    assert service.asked[-1].request == vaults.RotationPolicySet(
        vault="vault-a",
        name="root",
        lifetime_actions=[
            vaults.RotationAction(action="Rotate", time_after_create="P90D"),
            vaults.RotationAction(action="Notify", time_before_expiry="P30D"),
        ],
        expiry_time="P1Y",
    )
    assert cli(*line).code == 0
    assert service.asked[-1].request == vaults.RotationPolicySet(vault="vault-a", name="root")


def test_audit_search_takes_lists_and_iso_times(cli: Cli, service: FakeService) -> None:
    """R-206."""
    service.answers["audit.search"] = []
    cli("audit", "search", "--operations", "a,b", "--users", "alex@contoso.example", "--start", "2026-03-01T12:00:00Z", "--item", "i")
    request: watching.SearchAudit = service.asked[-1].request
    assert (request.operations, request.users, request.start, request.end, request.item) == (
        ["a", "b"],
        ["alex@contoso.example"],
        WHEN,
        None,
        "i",
    )


def test_reading_gives_the_bytes_or_a_file_or_base64(
    service: FakeService, capsysbinary: pytest.CaptureFixture[bytes], tmp_path: Path
) -> None:
    data = b"Subject: \xff\r\n\r\nbody\x00"
    service.answers["mailbox.read"] = lambda _request: Content(len(data), "message/rfc822", iter((data[:5], data[5:])))
    line = ("mailbox", "read", "alex@contoso.example", "item")
    assert run(line, environment={}, connect=service.connect) == 0
    assert capsysbinary.readouterr().out == data

    target = tmp_path / "item.eml"
    assert run((*line, "--output", str(target)), environment={}, connect=service.connect) == 0
    assert target.read_bytes() == data
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    assert run((*line, "--output", str(target)), environment={}, connect=service.connect) == 3

    capsysbinary.readouterr()
    assert run((*line, "--json"), environment={}, connect=service.connect) == 0
    document = json.loads(capsysbinary.readouterr().out)
    assert document == {"item": "item", "size_bytes": len(data), "data": base64.b64encode(data).decode()}


def test_a_stream_that_breaks_leaves_no_file(cli: Cli, service: FakeService, tmp_path: Path) -> None:
    def broken() -> Any:
        yield b"the first part"
        raise errors.IntegrityFailure("object_damaged", "part 1 of item x does not open", "restore it")

    service.answers["mailbox.read"] = Content(100, "message/rfc822", broken())
    assert cli("mailbox", "read", "alex@contoso.example", "x", "--output", str(tmp_path / "x.eml")).code == 6
    assert list(tmp_path.iterdir()) == []


# -- errors ----------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.InvalidRequest, 2),
        (errors.Unauthenticated, 3),
        (errors.Forbidden, 3),
        (errors.Conflict, 3),
        (errors.PreconditionFailed, 3),
        (errors.KeyDenied, 3),
        (errors.NotFound, 4),
        (errors.Unavailable, 5),
        (errors.IntegrityFailure, 6),
    ],
)
def test_an_error_is_one_line_and_an_exit_code(cli: Cli, service: FakeService, error: type[errors.KeysteadError], code: int) -> None:
    service.answers["tenant.list"] = error("some_code", "what\nhappened \x1b[31m", "what to do")
    result = cli("tenant", "list")
    assert result.code == code
    assert result.err == "error: some_code: what happened �[31m; what to do\n"
    assert result.out == ""


def test_with_json_an_error_is_a_problem_document(cli: Cli, service: FakeService) -> None:
    service.answers["policy.show"] = errors.NotFound("policy_not_found", "there is no policy p", "keystead policy list shows them")
    result = cli("policy", "show", "p", "--json")
    assert result.code == 4
    assert result.document == {
        "type": "urn:keystead:error:policy_not_found",
        "title": "Not found",
        "status": 404,
        "code": "policy_not_found",
        "detail": "there is no policy p",
        "mend": "keystead policy list shows them",
    }


def test_every_failed_check_is_reported(cli: Cli, service: FakeService) -> None:
    """R-081: all failed checks at once, with what mends each."""
    failed = (
        errors.FailedCheck("different-vaults", "both in vault-a", "make another", "key"),
        errors.FailedCheck("two-keys", "one", "add one"),
    )
    service.answers["policy.create"] = errors.ChecksFailed("policy_checks_failed", "2 checks failed", failed)
    result = cli("policy", "create", "mail", "--key", "a", "--key", "b", "--json")
    assert result.code == 3
    assert [check["check"] for check in result.document["failed_checks"]] == ["different-vaults", "two-keys"]
    assert result.err.splitlines()[1:] == [
        "failed check: different-vaults: key: both in vault-a; make another",
        "failed check: two-keys: one; add one",
    ]


def test_what_nobody_expected_is_one_line_without_its_text(cli: Cli, service: FakeService) -> None:
    """Libraries put values into the texts of their exceptions; none of that is shown unless it is asked for."""
    service.answers["tenant.list"] = RuntimeError("a secret value")
    result = cli("tenant", "list")
    assert result.code == 1
    assert result.err == "error: unexpected: RuntimeError; run it again with --debug and report what it shows\n"
    assert "a secret value" in cli("tenant", "list", "--debug").err
    assert cli("tenant", "list", "--json").document["code"] == "unexpected"


@pytest.mark.parametrize(
    "line",
    [
        ("nonsense",),
        ("mailbox",),
        ("mailbox", "nonsense"),
        ("mailbox", "read", "alex@contoso.example"),
        ("mailbox", "read", "alex@contoso.example", "item", "--bogus"),
        ("mailbox", "create", "alex@contoso.example", "--type", "robot"),
        ("mailbox", "items", "alex@contoso.example", "--limit", "0"),
        ("mailbox", "assign", "--policy", "p"),
        ("mailbox", "assign", "alex@contoso.example", "--all", "--policy", "p"),
        ("mailbox", "search", "alex@contoso.example"),
        ("vault", "access", "grant", "vault-a", "--permissions", "get"),
        ("vault", "access", "grant", "vault-a", "--upn", "alex@contoso.example", "--principal", "mail"),
        ("policy", "set", "p"),
        ("dev", "fault", "vault-a", "earthquake"),
        ("dev", "clock", "advance", "soon"),
        ("tenant", "list", "--home"),
        ("audit", "search", "--start", "yesterday"),
    ],
)
def test_a_line_that_cannot_be_understood_exits_2_and_opens_nothing(cli: Cli, service: FakeService, line: tuple[str, ...]) -> None:
    result = cli(*line)
    assert result.code == 2
    assert result.err.startswith("error: usage: ")
    assert result.err.count("\n") == 1
    assert service.options is None
    assert cli(*line, "--json").document["code"] == "usage" if "--home" not in line else True


def test_an_interrupt_exits_130(cli: Cli, service: FakeService) -> None:
    def interrupted(_request: object) -> None:
        raise KeyboardInterrupt

    service.answers["tenant.list"] = interrupted
    assert cli("tenant", "list").code == 130
    assert service.closed == 1


def test_help_and_version(cli: Cli, service: FakeService) -> None:
    assert "--what-if" in cli("--help").out
    assert cli().out == cli("--help").out
    assert "Write every item" in cli("mailbox", "export", "--help").out
    assert cli("--version").out.startswith("keystead 0.")
    assert service.options is None


# -- questions -------------------------------------------------------------------------------------------------------------------------

ASKED = [
    (("vault", "delete", "vault-a"), "vault.delete"),
    (("vault", "purge", "vault-a"), "vault.purge"),
    (("key", "delete", "vault-a", "root"), "key.delete"),
    (("key", "purge", "vault-a", "root"), "key.purge"),
    (("mailbox", "delete", "alex@contoso.example"), "mailbox.delete"),
    (("mailbox", "delete-item", "alex@contoso.example", "item"), "mailbox.delete-item"),
    (("mailbox", "unassign", "alex@contoso.example", "--no-wait"), "mailbox.unassign"),
]


def _answer_all(service: FakeService) -> None:
    gone = vaults.Purged(id="x", name="x")
    service.answers |= {"vault.delete": gone, "vault.purge": gone, "key.delete": KEY, "key.purge": gone, "key.show": KEY}
    service.answers |= {"mailbox.delete": DONE, "mailbox.delete-item": DONE, "mailbox.unassign": ASSIGNMENT}
    service.answers["policy.key-uses"] = policies.KeyUses(uses=[])


@pytest.mark.parametrize(("line", "route"), ASKED)
def test_purge_delete_and_unassign_need_a_yes(
    cli: Cli, service: FakeService, monkeypatch: pytest.MonkeyPatch, line: tuple[str, ...], route: str
) -> None:
    """R-083: without a terminal and without --yes they exit 2 and do nothing."""
    _answer_all(service)
    refused = cli(*line)
    assert (refused.code, route in service.routes) == (2, False)
    assert refused.err.startswith("error: confirmation_needed: ")

    monkeypatch.setattr("sys.stdin", io.StringIO("n\n"))
    assert (cli(*line, interactive=True).code, route in service.routes) == (2, False)

    monkeypatch.setattr("sys.stdin", io.StringIO("y\n"))
    assert (cli(*line, interactive=True).code, service.routes.count(route)) == (0, 1)

    assert (cli(*line, "--yes").code, service.routes.count(route)) == (0, 2)


def test_nothing_else_asks(cli: Cli, service: FakeService) -> None:
    service.answers |= {
        "vault.access.revoke": DONE,
        "policy.disable": DONE,
        "user.remove": DONE,
        "subscription.cancel": DONE,
        "key.disable": KEY,
    }
    service.answers |= {"key.show": KEY, "policy.key-uses": policies.KeyUses(uses=[])}
    for line in (
        ("vault", "access", "revoke", "vault-a", "--principal", "mail"),
        ("policy", "disable", "p"),
        ("user", "remove", "alex@contoso.example"),
        ("subscription", "cancel", "sub"),
        ("key", "disable", "vault-a", "root"),
    ):
        assert cli(*line).code == 0, line


# -- what-if ---------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "line",
    [
        *(line for line, _route in ASKED),
        ("tenant", "create", "contoso", "--domain", "contoso.example", "--geo", "EUR"),
        ("user", "add", "alex@contoso.example", "--role", "user"),
        ("settings", "set", "probe_interval", "30s"),
        ("policy", "refresh", "p"),
        ("mailbox", "assign", "--all", "--policy", "p"),
        ("job", "wait", "job-1"),
        ("keystore", "rotate"),
        ("dev", "clock", "advance", "13h"),
    ],
)
def test_what_if_changes_nothing(cli: Cli, service: FakeService, line: tuple[str, ...]) -> None:
    """R-083."""
    service.answers |= {"key.show": KEY, "policy.key-uses": policies.KeyUses(uses=[])}
    result = cli(*line, "--what-if")
    assert result.code == 0
    assert result.out.startswith("what if: ")
    assert not [route for route in service.routes if BY_NAME[route].changes]
    document = cli(*line, "--what-if", "--json").document
    assert document["what_if"] is True
    assert isinstance(document["request"], dict)


def test_what_if_reads_as_usual(cli: Cli, service: FakeService) -> None:
    """R-083."""
    service.answers["policy.list"] = [POLICY]
    assert "mail" in cli("policy", "list", "--what-if").out


def test_what_if_shows_no_secret(cli: Cli, tmp_path: Path) -> None:
    """R-083, R-025."""
    secret = tmp_path / "secret"
    secret.write_text("-----BEGIN PRIVATE KEY-----\nMIIE\n")
    result = cli("key", "import", "vault-a", "root", "--pem-file", str(secret), "--what-if", "--json")
    assert result.document["request"]["pem"] == "(not shown)"
    assert "MIIE" not in result.out + result.err
    assert "MIIE" not in cli("user", "claim", "--upn", "alex@contoso.example", "--claim-token-file", str(secret), "--what-if").out


def test_creating_a_policy_with_what_if_runs_the_checks(cli: Cli, service: FakeService) -> None:
    """R-081, R-083."""
    failed = policies.CheckView(check="two-keys", subject="", detail="one", mend="add one")
    service.answers["policy.validate"] = policies.ValidationView(name="mail", valid=False, failed_checks=[failed], warnings=[])
    result = cli("policy", "create", "mail", "--key", "a", "--what-if", "--json")
    assert (result.code, service.routes) == (0, ["policy.validate"])
    assert result.document["failed_checks"][0]["mend"] == "add one"


def test_validating_says_by_its_exit_code_whether_a_check_failed(cli: Cli, service: FakeService) -> None:
    """R-081."""
    service.answers["policy.validate"] = in_turn(
        policies.ValidationView(name="mail", valid=True, failed_checks=[], warnings=[]),
        policies.ValidationView(name="mail", valid=False, failed_checks=[], warnings=[]),
    )
    line = ("policy", "validate", "mail", "--key", "a", "--key", "b")
    assert [cli(*line).code, cli(*line).code] == [0, 3]


# -- keys that are still needed --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", ["delete", "disable"])
def test_taking_a_key_away_that_copies_are_wrapped_by_warns_for_each(cli: Cli, service: FakeService, verb: str) -> None:
    """R-158."""
    uses = ["the primary copy of the policy mail", "the secondary copy of the policy other"]
    service.answers |= {"key.show": KEY, "policy.key-uses": policies.KeyUses(uses=uses), f"key.{verb}": KEY}
    result = cli("key", verb, "vault-a", "root", "--yes", "--json")
    assert result.code == 0
    assert service.asked[1].request.key == KEY.base_id
    assert result.err.count("warning: ") == 2
    assert [warning.partition(" is wrapped")[0] for warning in result.document["warnings"]] == uses
    assert result.document["id"] == KEY.id


def test_a_version_is_looked_up_by_its_version(cli: Cli, service: FakeService) -> None:
    """R-158."""
    service.answers |= {"key.show": KEY, "policy.key-uses": policies.KeyUses(uses=[]), "key.disable": KEY}
    assert cli("key", "disable", "vault-a", "root", "--version", KEY.version, "--json").document["warnings"] == []
    assert service.asked[1].request.key == KEY.id


def test_who_may_not_see_the_uses_may_still_take_a_key_away(cli: Cli, service: FakeService) -> None:
    """R-158 warns; it does not stop a customer from revoking."""
    service.answers |= {"key.show": errors.Forbidden("vault_access_denied", "no", ""), "key.delete": KEY}
    assert cli("key", "delete", "vault-a", "root", "--yes").code == 0


# -- long work -------------------------------------------------------------------------------------------------------------------------


def test_assigning_waits_and_shows_how_it_ended(cli: Cli, service: FakeService) -> None:
    service.answers |= {"mailbox.assign": ASSIGNMENT, "job.show": in_turn(job("queued"), job("running"), job())}
    document = cli("mailbox", "assign", "alex@contoso.example", "--policy", "mail", "--json").document
    assert (document["state"], document["progress_percent"], document["job"]["id"]) == ("done", 100.0, "job-1")
    assert service.pushed == ["job-1", "job-1"]


def test_no_wait_gives_the_job(cli: Cli, service: FakeService) -> None:
    service.answers["mailbox.assign"] = ASSIGNMENT
    document = cli("mailbox", "assign", "--all", "--policy", "mail", "--no-wait", "--json").document
    assert document["job_id"] == "job-1"
    assert service.routes == ["mailbox.assign"]


@pytest.mark.parametrize(
    ("ended", "code"),
    [
        (job("failed", "object_damaged: part 1 does not open; restore it"), 6),
        (job("queued", "denied_by_customer_key: refused; grant access", stuck=True), 3),
        (job("queued", "vault_unavailable: no answer; try again", stuck=True), 5),
        (job("failed", "something_else: happened"), 5),
        (job("cancelled"), 3),
    ],
)
def test_a_job_that_failed_exits_like_its_cause(cli: Cli, service: FakeService, ended: watching.JobView, code: int) -> None:
    service.answers["job.show"] = ended
    result = cli("job", "wait", "job-1", "--json")
    assert result.code == code
    assert result.err.startswith("error: ")
    assert result.document["state"] == ended.state


# -- tenants ---------------------------------------------------------------------------------------------------------------------------

MISSING = errors.InvalidRequest("tenant_missing", "none is named", "add --tenant NAME")


def _needs_tenant(service: FakeService, answer: object) -> Any:
    def answered(_request: object) -> object:
        if not service.asked[-1].tenant:
            raise MISSING
        return answer

    return answered


def test_the_tenant_comes_from_the_line_then_from_the_upn(cli: Cli, service: FakeService) -> None:
    service.answers["mailbox.create"] = MAILBOX
    cli("mailbox", "create", "alex@contoso.example")
    cli("mailbox", "create", "alex@contoso.example", "--tenant", "other")
    assert [asked.tenant for asked in service.asked] == ["contoso.example", "other"]


def test_the_operators_only_tenant_is_meant(cli: Cli, service: FakeService) -> None:
    service.answers |= {"policy.list": _needs_tenant(service, [POLICY]), "tenant.list": [TENANT]}
    assert cli("policy", "list").code == 0
    assert service.asked[-1].tenant == TENANT.id


def test_of_several_tenants_one_must_be_named(cli: Cli, service: FakeService) -> None:
    service.answers |= {"policy.list": _needs_tenant(service, [POLICY]), "tenant.list": [TENANT, TENANT]}
    assert cli("policy", "list").err == "error: tenant_missing: none is named; add --tenant NAME\n"


def test_who_may_not_list_tenants_hears_the_first_error(cli: Cli, service: FakeService) -> None:
    service.answers |= {"policy.list": MISSING, "tenant.list": errors.Forbidden("role_missing", "no", "")}
    assert "tenant_missing" in cli("policy", "list").err


def test_waiting_goes_on_in_the_tenant_of_the_upns(cli: Cli, service: FakeService) -> None:
    service.answers |= {"mailbox.assign": _needs_tenant(service, ASSIGNMENT), "job.show": _needs_tenant(service, job())}
    assert cli("mailbox", "assign", "alex@contoso.example", "--policy", "mail").code == 0
    assert {asked.tenant for asked in service.asked if asked.route == "job.show"} == {"", "contoso.example"}


# -- secrets ---------------------------------------------------------------------------------------------------------------------------


def test_a_claim_token_goes_to_a_file_or_is_shown_once(cli: Cli, service: FakeService, tmp_path: Path) -> None:
    made = tenants.TenantView(id="t", name="contoso", domain="contoso.example", geos=["EUR"], created=WHEN, claim_token="ks_claim")
    service.answers["tenant.create"] = made
    line = ("tenant", "create", "contoso", "--domain", "contoso.example", "--geo", "EUR", "--json")
    assert cli(*line).document["claim_token"] == "ks_claim"
    file = tmp_path / "claim"
    result = cli(*line, "--claim-file", str(file))
    assert (result.document["claim_token"], result.document["claim_file"]) == (None, str(file))
    assert "ks_claim" not in result.out + result.err
    assert file.read_text() == "ks_claim\n"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_claiming_takes_the_token_from_a_file_and_writes_the_new_one_to_a_file(cli: Cli, service: FakeService, tmp_path: Path) -> None:
    (tmp_path / "claim").write_text("ks_claim\n")
    service.answers["user.claim"] = tenants.TokenView(id="t", upn="alex@contoso.example", token="ks_token", expires=WHEN)
    line = ("user", "claim", "--upn", "alex@contoso.example", "--claim-token-file", str(tmp_path / "claim"))
    result = cli(*line, "--output", str(tmp_path / "token"), "--json")
    assert service.asked[-1].request.claim_token == "ks_claim"
    assert result.document == {"upn": "alex@contoso.example", "expires": "2026-03-01T12:00:00Z", "token_file": str(tmp_path / "token")}
    assert stat.S_IMODE((tmp_path / "token").stat().st_mode) == 0o600
    assert "ks_token" in cli(*line).out


def test_officers_and_their_certificates_come_in_pairs(cli: Cli, service: FakeService, tmp_path: Path) -> None:
    """R-002."""
    (tmp_path / "a.pem").write_text("certificate a")
    service.answers["tenant.onboard"] = DONE
    line = (
        "tenant",
        "onboard",
        "--subscription",
        "a",
        "--subscription",
        "b",
        "--officer",
        "Security officer",
        "--officer-cert",
        str(tmp_path / "a.pem"),
    )
    assert cli(*line).code == 0
    assert [(officer.name, officer.certificate) for officer in service.asked[-1].request.officers] == [
        ("Security officer", "certificate a")
    ]
    assert cli(*line, "--officer", "Deputy").code == 2


def test_a_key_backup_is_a_file_for_its_owner_and_never_written_over(cli: Cli, service: FakeService, tmp_path: Path) -> None:
    view = vaults.KeyBackupView(id=KEY.id, vault="vault-a", name="root", suggested_name="../../vault-a-root.backup", blob=b"sealed")
    service.answers["key.backup"] = view
    line = ("key", "backup", "vault-a", "root", "--output")
    assert cli(*line, str(tmp_path)).code == 0
    file = tmp_path / "vault-a-root.backup"
    assert (file.read_bytes(), stat.S_IMODE(file.stat().st_mode)) == (b"sealed", 0o600)
    assert cli(*line, str(file)).code == 3
    assert cli(*line, str(file), "--yes").code == 0
    service.answers["key.restore"] = KEY
    assert cli("key", "restore", "vault-b", "--input", str(file)).code == 0
    assert service.asked[-1].request.blob == b"sealed"


def test_one_setting_is_shown_and_an_unknown_one_is_not_found(cli: Cli, service: FakeService) -> None:
    service.answers["settings.get"] = [watching.SettingView(name="probe_interval", value="60000", source="default")]
    assert cli("settings", "get", "probe_interval", "--json").document["value"] == "60000"
    assert cli("settings", "get", "nonsense").code == 4
