"""What a vault elsewhere, its authority, or what lies between can answer, and what each comes to (design section 5)."""

from __future__ import annotations

import re
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
from azure.keyvault.keys._shared import http_challenge_cache

from keystead.adapters.vaults.azure import network_reason
from keystead.ports.vaults import VaultFailure
from support.azure_double import (
    SECRET,
    TENANT,
    VERSION,
    Double,
    azure_double,
    bundle,
    encoded,
    one_after_another,
    refusal,
    status,
)
from support.ports import free_port
from vault.world import HandClock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from http.server import BaseHTTPRequestHandler
    from pathlib import Path

    from keystead.adapters.vaults.azure import AzureVaults
    from support.azure_double import Answer

VALUE = bytes(range(32))
MINUTE = 60_000


@pytest.fixture
def double(tmp_path: Path) -> Iterator[Double]:
    http_challenge_cache.clear()  # the SDK's own, for the whole process: another test's server may have had this port
    with azure_double(tmp_path) as made:
        yield made


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
def adapter(clock: HandClock) -> Iterator[Callable[..., AzureVaults]]:
    """Makes clients of a double, and closes them at the end."""
    made: list[AzureVaults] = []

    def make(double: Double, **changes: Any) -> AzureVaults:
        made.append(double.adapter(clock, **changes))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.fixture
def service(double: Double, adapter: Callable[..., AzureVaults]) -> AzureVaults:
    return adapter(double)


def outcome(call: Callable[[], object]) -> str:
    with pytest.raises(VaultFailure) as failed:
        call()
    return str(failed.value.outcome)


def unwrap(service: AzureVaults, double: Double) -> Callable[[], bytes]:
    return lambda: service.unwrap(TENANT, "mail", double.key, bytes(256))


def test_wraps_and_unwraps_by_the_vault_itself(double: Double, service: AzureVaults) -> None:
    """R-074: every call is asked of the vault, in one sign-in, however well its public key is known."""
    assert service.key_facts(TENANT, "mail", double.base).key_uri == double.key
    wrapped = [service.wrap(TENANT, "mail", double.base, VALUE) for _ in range(2)]
    assert [service.unwrap(TENANT, "mail", one.key_uri, one.value) for one in wrapped] == [VALUE, VALUE]
    assert [one.key_uri for one in wrapped] == [double.key, double.key]
    wrap, unwrapped = ("POST", "/keys/root//wrapkey"), ("POST", f"/keys/root/{VERSION}/unwrapkey")
    assert double.asked == [("GET", "/keys/root/"), wrap, wrap, unwrapped, unwrapped]
    assert double.sign_ins == [SECRET]
    assert {body["alg"] for body in double.bodies[1:]} == {"RSA-OAEP-256"}


REFUSALS = [
    (403, "Forbidden", "AccessDenied", "denied (http-403 AccessDenied)"),
    (403, "Forbidden", "ForbiddenByPolicy", "denied (http-403 ForbiddenByPolicy)"),
    (403, "Forbidden", "ForbiddenByFirewall", "denied (http-403 ForbiddenByFirewall)"),
    (403, "Forbidden", "KeyDisabled", "denied (http-403 KeyDisabled)"),
    (404, "KeyNotFound", "", "denied (http-404 KeyNotFound)"),
    (404, "VaultNotFound", "", "denied (http-404 VaultNotFound)"),
    (409, "Conflict", "ObjectIsDeletedButRecoverable", "denied (http-409 ObjectIsDeletedButRecoverable)"),
    (410, "Gone", "", "denied (http-410 Gone)"),
    (400, "BadParameter", "", "integrity (http-400 BadParameter)"),
    (405, "MethodNotAllowed", "", "integrity (http-405 MethodNotAllowed)"),
    (408, "RequestTimeout", "", "system-error (http-408 RequestTimeout)"),
    (500, "InternalError", "", "system-error (http-500 InternalError)"),
    (503, "", "", "system-error (http-503)"),
    (429, "Throttled", "", "system-error (http-429 Throttled)"),
    (403, "<script>", "", "denied (http-403)"),
]


@pytest.mark.parametrize(("code", "name", "inner", "wanted"), REFUSALS)
def test_each_refusal_comes_to_its_class(double: Double, service: AzureVaults, code: int, name: str, inner: str, wanted: str) -> None:
    """R-043: a firewall refusal and a missing permission are told apart by the reason."""
    double.vault = refusal(code, name, inner)
    for call in (
        unwrap(service, double),
        lambda: service.wrap(TENANT, "mail", double.base, VALUE),
        lambda: service.key_facts(TENANT, "mail", double.base),
    ):
        assert outcome(call) == wanted


@pytest.mark.parametrize("code", [403, 404, 500, 502])
def test_a_refusal_that_is_no_json_counts_by_its_status(double: Double, service: AzureVaults, code: int) -> None:
    double.vault = status(code, b"<html>\xff</html>")
    wanted = "denied" if code < 500 else "system-error"
    assert outcome(unwrap(service, double)) == f"{wanted} (http-{code})"


def test_a_busy_vault_is_asked_again_as_it_says(double: Double, service: AzureVaults) -> None:
    """R-066."""
    wrapped = service.wrap(TENANT, "mail", double.base, VALUE)
    double.asked.clear()
    double.vault = one_after_another(refusal(503, "Busy"), refusal(429, "Throttled", Retry_After="1"), _well(double, VALUE))
    began = time.monotonic()
    assert service.unwrap(TENANT, "mail", wrapped.key_uri, wrapped.value) == VALUE
    assert time.monotonic() - began >= 1
    assert len(double.asked) == 3


@pytest.mark.parametrize("after", ["11", "3600", "999999"])
def test_a_busy_vault_is_not_waited_for_beyond_the_calls_time(double: Double, service: AzureVaults, after: str) -> None:
    double.vault = refusal(429, "Throttled", Retry_After=after)
    began = time.monotonic()
    assert outcome(unwrap(service, double)) == "system-error (http-429 Throttled)"
    assert time.monotonic() - began < 9, "a call has ten seconds, and there is nothing it could do in them"
    assert len(double.asked) == 1


@pytest.mark.parametrize("code", [301, 302, 307, 308])
def test_redirects_are_not_followed(double: Double, service: AzureVaults, code: int) -> None:
    double.vault = status(code, Location=f"https://{double.host}/keys/other/{VERSION}/unwrapkey")
    assert outcome(unwrap(service, double)) == "system-error (redirect-refused)"
    assert double.asked == [("POST", f"/keys/root/{VERSION}/unwrapkey")]


LIES: list[tuple[Callable[[Double], Answer], str]] = [
    (lambda d: status(200, {"kid": f"https://{d.host}/keys/other/{VERSION}", "value": "AAAA"}), "wrong-kid"),
    (lambda d: status(200, {"kid": f"https://elsewhere.example/keys/root/{VERSION}", "value": "AAAA"}), "wrong-kid"),
    (lambda d: status(200, {"kid": d.key[:-1] + "e", "value": "AAAA"}), "wrong-kid"),
    (lambda d: status(200, {"kid": d.base, "value": "AAAA"}), "wrong-kid"),
    (lambda d: status(200, {"kid": "", "value": "AAAA"}), "wrong-kid"),
    (lambda d: status(200, {"kid": d.key, "value": encoded(bytes(600))}), "wrong-length"),
    (lambda d: status(200, {"kid": d.key, "value": ""}), "malformed"),
    (lambda d: status(200, {"kid": d.key, "value": "AA=="}), "malformed"),
    (lambda d: status(200, {"kid": d.key, "value": "AB"}), "malformed"),
    (lambda d: status(200, {"kid": d.key, "value": "A"}), "malformed"),
    (lambda d: status(200, {"kid": d.key, "value": "A+/A"}), "malformed"),
    (lambda d: status(200, {"kid": d.key, "value": "A" * 3_000}), "malformed"),
    (lambda d: status(200, {"kid": d.key, "value": 7}), "malformed"),
    (lambda d: status(200, {"kid": d.key}), "malformed"),
    (lambda _: status(200, [1, 2]), "malformed"),
    (lambda _: status(200, None), "malformed"),
    (lambda _: status(200, b"{"), "malformed"),
    (lambda _: status(200, b"\xff\xfe\x00"), "malformed"),
    (lambda _: status(200, b"[" * 100_000), "malformed"),
    (lambda _: status(201, {}), "http-201"),
    (lambda _: status(200, b" " * 400_000), "answer-too-large"),
]


@pytest.mark.parametrize(("lie", "reason"), LIES)
def test_what_is_malformed_or_of_another_key_is_an_integrity_failure(
    double: Double, service: AzureVaults, lie: Callable[[Double], Answer], reason: str
) -> None:
    double.vault = lie(double)
    assert outcome(unwrap(service, double)) == f"integrity ({reason})"


def test_a_wrapped_value_has_the_length_of_a_modulus(double: Double, service: AzureVaults) -> None:
    for length in (1, 255, 257, 511):
        double.vault = status(200, {"kid": double.key, "value": encoded(bytes(length))})
        assert outcome(lambda: service.wrap(TENANT, "mail", double.base, VALUE)) == "integrity (wrong-length)"


def test_facts_that_are_not_told_are_unknown(double: Double, adapter: Callable[..., AzureVaults]) -> None:
    service = adapter(double, tenants=(TENANT, "fabrikam.example"))
    facts = service.key_facts(TENANT, "mail", double.base)
    assert (facts.vault, facts.kty, facts.size, facts.enabled) == (double.host, "RSA", 2_048, True)
    assert (facts.region, facts.subscription, facts.tenant_id, facts.permissions) == (None, None, None, None)
    double.vault = status(200, bundle(double, exp=253_402_214_400, nbf=5, recoveryLevel=None), x_ms_keyvault_region="westeurope")
    facts = service.key_facts(TENANT, "mail", double.base)
    assert (facts.region, facts.recovery_level) == ("westeurope", None)
    assert (facts.not_before, facts.expires) == (5_000, 253_402_214_400_000)


def test_the_operator_may_state_what_the_vault_does_not(double: Double, adapter: Callable[..., AzureVaults]) -> None:
    service = adapter(double, region="eastus", subscription="Contoso EA 9", subscription_kind="paid")
    double.vault = status(200, bundle(double), x_ms_keyvault_region="westeurope")
    facts = service.key_facts(TENANT, "mail", double.base)
    assert (facts.region, facts.tenant_id) == ("eastus", TENANT)
    assert facts.subscription is not None
    assert (facts.subscription.name, facts.subscription.kind) == ("Contoso EA 9", "paid")
    assert service.subscription_facts(TENANT, "contoso ea 9") == facts.subscription
    assert outcome(lambda: service.subscription_facts(TENANT, "other")) == "denied (subscription-not-found)"


# -- signing in -----------------------------------------------------------------------------------------------------------------------

SIGN_INS = [
    (401, "invalid_client", [7000215], "system-error (sign-in invalid-client)"),
    (401, "invalid_client", [7000222], "system-error (sign-in invalid-client)"),
    (400, "unauthorized_client", [700016], "denied (sign-in unauthorized-client)"),
    (400, "unauthorized_client", [], "denied (sign-in unauthorized-client)"),
    (401, "invalid_client", [7000112], "denied (sign-in invalid-client)"),
    (400, "access_denied", [], "denied (sign-in access-denied)"),
    (400, "invalid_request", [90002], "system-error (sign-in invalid-request)"),
    (500, "server_error", [], "system-error (sign-in http-500)"),
    (503, "temporarily_unavailable", [], "system-error (sign-in http-503)"),
    (400, "<b>", [], "system-error (sign-in http-400)"),
]


@pytest.mark.parametrize(("code", "error", "numbers", "wanted"), SIGN_INS)
def test_each_refused_sign_in_comes_to_its_class(
    double: Double, service: AzureVaults, code: int, error: str, numbers: list[int], wanted: str
) -> None:
    """Our own expired or wrong secret is a fault; that our application is disabled, or its consent withdrawn, is a denial."""
    double.authority = status(code, {"error": error, "error_description": "no", "error_codes": numbers})
    assert [outcome(unwrap(service, double)) for _ in range(2)] == [wanted, wanted]
    double.authority = None
    assert service.wrap(TENANT, "mail", double.base, VALUE).key_uri == double.key


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"7", b"\xff", b'{"token_type":"Bearer"}', b'{"access_token":7,"expires_in":"x"}'])
def test_an_authority_that_talks_nonsense_is_a_fault(double: Double, service: AzureVaults, body: bytes) -> None:
    double.authority = status(200, body)
    assert re.fullmatch(r"system-error \(sign-in-(refused|malformed)\)", outcome(unwrap(service, double)))
    double.metadata = status(200, body)
    service._connected = None  # it was looked up once
    assert re.fullmatch(r"system-error \(sign-in-(refused|malformed)\)", outcome(unwrap(service, double)))


@pytest.mark.parametrize(("code", "wanted"), [(500, "sign-in http-500"), (404, "sign-in http-404"), (302, "sign-in-refused")])
def test_an_authority_that_cannot_be_looked_up_is_a_fault(double: Double, service: AzureVaults, code: int, wanted: str) -> None:
    double.metadata = status(code, b"", Location="https://elsewhere.example/")
    assert outcome(unwrap(service, double)) == f"system-error ({wanted})"
    assert double.sign_ins == []


def test_the_secret_goes_nowhere_the_authority_sends_us(double: Double, service: AzureVaults) -> None:
    """Its metadata names where to sign in; another host is not called."""
    double.metadata = status(
        200, {"token_endpoint": "https://localhost:1/token", "authorization_endpoint": "https://localhost:1/", "issuer": "x"}
    )
    assert outcome(unwrap(service, double)).startswith("system-error (sign-in")
    assert double.sign_ins == []


def test_a_secret_that_was_replaced_is_used_from_then_on(double: Double, service: AzureVaults) -> None:
    wrapped = service.wrap(TENANT, "mail", double.base, VALUE)
    double.secrets = {"the-second-secret"}
    double.tokens.clear()  # as when the first secret was removed
    assert outcome(unwrap(service, double)) == "system-error (sign-in invalid-client)"
    (double.folder / "client.secret").write_text("the-second-secret\n")
    assert service.unwrap(TENANT, "mail", wrapped.key_uri, wrapped.value) == VALUE
    assert double.sign_ins[-1] == "the-second-secret"


def test_a_token_that_is_not_taken_any_more_is_replaced_once(double: Double, service: AzureVaults) -> None:
    wrapped = service.wrap(TENANT, "mail", double.base, VALUE)
    double.tokens.clear()
    assert service.unwrap(TENANT, "mail", wrapped.key_uri, wrapped.value) == VALUE
    assert double.sign_ins == [SECRET, SECRET]
    double.tokens.clear()
    double.authority = status(400, {"error": "unauthorized_client"})
    assert outcome(unwrap(service, double)) == "denied (sign-in unauthorized-client)"


def test_a_vault_that_takes_no_token_at_all_is_a_fault(double: Double, service: AzureVaults) -> None:
    double.vault = refusal(401, "Unauthorized")
    assert outcome(unwrap(service, double)) == "system-error (http-401 Unauthorized)"
    assert len(double.sign_ins) == 2


def test_a_token_is_asked_only_for_the_vaults_own_resource(double: Double, service: AzureVaults) -> None:
    """A vault could otherwise have us bring it a token that opens another one."""
    for resource in ("https://vault.azure.net", "https://127.0.0.1:1", f"http://{double.host}", "nothing", "https://0.1:1"):
        double.resource = resource
        assert outcome(unwrap(service, double)).startswith("integrity (")
    assert double.sign_ins == []


def test_a_vault_that_takes_anothers_address_is_not_refused_for_what_that_one_said(double: Double, service: AzureVaults) -> None:
    """The SDK remembers challenges by address, for the whole process and for every client in it."""
    double.resource = "https://127.0.0.1:1"
    assert outcome(unwrap(service, double)) == "integrity (challenge-resource)"
    assert double.sign_ins == []
    double.resource = ""
    double.vault = _well(double, VALUE)
    assert unwrap(service, double)() == VALUE
    assert len(double.sign_ins) == 1


def test_a_vault_of_another_directory_is_denied(double: Double, service: AzureVaults) -> None:
    """Requirements 2.1: a vault that was moved to another directory lets nobody in any more."""
    double.directory = "6b9e2f0c-1d3a-4c5b-8e7f-9a0b1c2d3e4f"
    assert outcome(unwrap(service, double)) == "denied (another-directory)"
    assert double.sign_ins == []


def test_without_its_secret_nothing_is_asked(double: Double, service: AzureVaults) -> None:
    for content in ("", "\n", None):
        (double.folder / "client.secret").unlink()
        if content is not None:
            (double.folder / "client.secret").write_text(content)
        else:
            (double.folder / "client.secret").mkdir()
        assert outcome(unwrap(service, double)) == "system-error (client-secret-unreadable)"
    assert double.asked == []


def test_the_secret_is_in_no_text(double: Double, service: AzureVaults, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    double.secrets = {"other"}
    with pytest.raises(VaultFailure) as failed:
        unwrap(service, double)()
    shown = [repr(service._connect()), repr(failed.value), str(failed.value), caplog.text]
    assert not [one for one in shown if SECRET in one]


# -- the network ----------------------------------------------------------------------------------------------------------------------


def test_nobody_listens(double: Double, adapter: Callable[..., AzureVaults]) -> None:
    port = free_port()
    service = adapter(double, hosts=(f"127.0.0.1:{port}",))
    call = lambda: service.wrap(TENANT, "mail", f"https://127.0.0.1:{port}/keys/root", VALUE)  # noqa: E731 - as in the table
    assert outcome(call) == "system-error (connection-refused)"


def test_a_host_that_is_not_listed_is_never_called(double: Double, adapter: Callable[..., AzureVaults]) -> None:
    service = adapter(double, hosts=("vault.contoso.example",), authority="https://login.contoso.example")
    assert outcome(unwrap(service, double)) == "system-error (address-not-allowed)"
    assert double.asked == []


def test_an_expired_certificate(tmp_path: Path, adapter: Callable[..., AzureVaults]) -> None:
    with azure_double(tmp_path, expired=True) as double:
        service = adapter(double)
        assert outcome(unwrap(service, double)) == "system-error (tls)"
        assert double.asked == []


def test_a_certificate_of_nobody_we_know(double: Double, adapter: Callable[..., AzureVaults]) -> None:
    service = adapter(double, ca_file="")
    assert outcome(unwrap(service, double)) == "system-error (tls)"
    assert double.sign_ins == []


def test_a_vault_that_does_not_answer(double: Double, adapter: Callable[..., AzureVaults]) -> None:
    """The whole call is over in its time: also where a byte comes now and then, which ordinary time limits count from."""
    service = adapter(double, timeout_ms=2_000)
    service.key_facts(TENANT, "mail", double.base)
    over = threading.Event()

    def silent(_handler: BaseHTTPRequestHandler) -> None:
        over.wait(60)

    def dribbling(handler: BaseHTTPRequestHandler) -> None:
        handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\nX-Long: ")
        while not over.wait(0.05):
            handler.wfile.write(b"x")
            handler.wfile.flush()

    try:
        for answer in (silent, dribbling):
            double.vault = answer
            began = time.monotonic()
            assert outcome(unwrap(service, double)) == "system-error (timeout)"
            assert 1.9 < time.monotonic() - began < 15, "the vault goes on for longer"
    finally:
        over.set()


def test_each_call_has_its_own_time(double: Double, adapter: Callable[..., AzureVaults]) -> None:
    """The keyring asks both keys at once: one that is answered must not end the time of the other."""
    service = adapter(double)
    service.key_facts(TENANT, "mail", double.base)
    waits, go_on = threading.Event(), threading.Event()

    def waiting(handler: BaseHTTPRequestHandler) -> None:
        waits.set()
        go_on.wait(60)
        refusal(503, "Busy")(handler)  # so that it has to look at what time it has left

    double.vault = one_after_another(waiting, status(200, bundle(double)), _well(double, VALUE))
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(unwrap(service, double))
        assert waits.wait(60)
        assert service.key_facts(TENANT, "mail", double.base).key_uri == double.key
        go_on.set()
        assert first.result() == VALUE


def test_a_slow_authority_takes_from_the_same_time(double: Double, adapter: Callable[..., AzureVaults]) -> None:
    service = adapter(double, timeout_ms=2_000)
    over = threading.Event()

    def silent(_handler: BaseHTTPRequestHandler) -> None:
        over.wait(60)

    double.authority = silent
    began = time.monotonic()
    try:
        assert outcome(unwrap(service, double)) == "system-error (sign-in timeout)"
    finally:
        over.set()
    assert time.monotonic() - began < 15, "the authority goes on for longer"


def test_a_connection_that_breaks_is_tried_again(double: Double, service: AzureVaults) -> None:
    """Vaults close connections that were idle; the next call must not be a fault for that."""

    def hang_up(handler: BaseHTTPRequestHandler) -> None:
        handler.close_connection = True
        handler.connection.close()

    double.vault = one_after_another(hang_up, _well(double, VALUE))
    assert service.unwrap(TENANT, "mail", double.key, bytes(256)) == VALUE
    double.vault = hang_up
    assert outcome(unwrap(service, double)) == "system-error (connection-lost)"


def test_half_an_answer_is_a_fault(double: Double, service: AzureVaults) -> None:
    def half(handler: BaseHTTPRequestHandler) -> None:
        handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n{")
        handler.close_connection = True

    double.vault = half
    assert outcome(unwrap(service, double)) == "system-error (connection-lost)"


def test_what_is_no_http_is_an_integrity_failure(double: Double, service: AzureVaults) -> None:
    def noise(handler: BaseHTTPRequestHandler) -> None:
        handler.wfile.write(b"\x00\x01\x02 noise\r\n\r\n")
        handler.close_connection = True

    double.vault = noise
    assert outcome(unwrap(service, double)) == "integrity (malformed)"


@pytest.mark.parametrize(("errno", "reason"), [(socket.EAI_NONAME, "name-unknown"), (socket.EAI_AGAIN, "dns"), (socket.EAI_FAIL, "dns")])
def test_a_name_that_is_not_there_is_told_from_a_look_up_that_failed(errno: int, reason: str) -> None:
    error = OSError("outer")
    error.__cause__ = ConnectionError(socket.gaierror(errno, "look-up"))
    assert network_reason(error) == reason


def test_a_vault_that_was_there_and_is_gone_for_three_probes_is_denied(
    double: Double, adapter: Callable[..., AzureVaults], clock: HandClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name nobody has heard of is a typing mistake; one that answered and then is taken down is the customer's no."""
    port = double.host.partition(":")[2]
    host, other = f"localhost:{port}", f"nobody.contoso.example:{port}"
    service = adapter(double, hosts=(host, other))
    gone = False
    real = socket.getaddrinfo

    def look_up(name: str | bytes | None, *rest: object, **more: object) -> object:
        if gone or name == "nobody.contoso.example":
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return real("127.0.0.1", *rest, **more)  # type: ignore[arg-type]  # passed on as it came

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    calls = {name: (lambda name=name: service.wrap(TENANT, "mail", f"https://{name}/keys/root", VALUE)) for name in (host, other)}
    double.resource = f"https://{host}"
    double.vault = status(200, {"kid": double.key, "value": encoded(bytes(256))}, Connection="close")
    assert outcome(calls[host]) == "integrity (wrong-kid)"  # it answered, by the address it knows itself by
    gone = True
    said: dict[str, list[str]] = {name: [] for name in calls}
    for _probe in range(4):
        for name, call in calls.items():
            said[name] += [outcome(call), outcome(call)]  # both calls of one probe count once
        clock.time += MINUTE
    fault, denial = "system-error (name-unknown)", "denied (vault-gone)"
    assert said == {host: [fault] * 4 + [denial] * 4, other: [fault] * 8}


def _well(double: Double, value: bytes) -> Answer:
    """Unwrap to this."""
    return status(200, {"kid": double.key, "value": encoded(value)})


def test_the_reasons_hold_nothing_from_outside() -> None:
    """A vault's own words never get into an error or a log: reasons are ours, with at most a code of letters."""
    for _code, _name, _inner, wanted in REFUSALS:
        assert re.fullmatch(r"[a-z-]+ \([a-z0-9-]+( [A-Za-z]+)?\)", wanted)
