"""What only whoever is on this machine, or signed in, may do: not somebody a proxy speaks for, and not whoever finds the port."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from keystead.core.errors import Unauthenticated
from keystead.frontends.http.credentials import UNIX, Proxies, credentials
from keystead.serving import authenticate, server_parts
from keystead.wiring import create_home, open_home
from support.http import running
from support.installed import OPERATOR

if TYPE_CHECKING:
    from collections.abc import Iterator

    from keystead.wiring import Home

SECRET = os.urandom(32).hex()


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    path = tmp_path_factory.mktemp("local") / "home"
    create_home(path, dev=True, operator=OPERATOR)
    opened = open_home(path, {})
    yield opened
    opened.close()


def shown(trusted: tuple[str, ...], peer: str, **headers: str) -> Any:
    named = {name.lower().replace("_", "-").encode(): value.encode() for name, value in headers.items()}
    return credentials(named, Proxies(trusted).caller(peer, named.get(b"x-forwarded-for", b"")))


def test_the_secret_of_a_dev_home_does_not_pass_a_proxy_R_253(home: Home) -> None:
    """R-253: calling as anybody is for this machine alone; a proxy on it, believed or not, brings callers from elsewhere."""
    secret = {"Keystead_Home_Secret": SECRET}
    assert authenticate(home, SECRET, shown((), "127.0.0.1", **secret)).upn == OPERATOR
    assert authenticate(home, SECRET, shown((), "", **secret)).upn == OPERATOR
    for trusted, peer, headers in (
        ((), "198.51.100.7", {}),
        ((), "127.0.0.1", {"X_Forwarded_For": "198.51.100.7"}),
        ((), "127.0.0.1", {"X_Forwarded_For": "127.0.0.1"}),
        ((), "127.0.0.1", {"Forwarded": "for=127.0.0.1"}),
        ((), "127.0.0.1", {"Via": "1.1 proxy"}),
        ((), "", {"X_Real_IP": "127.0.0.1"}),
        (("127.0.0.1",), "127.0.0.1", {"X_Forwarded_For": "127.0.0.1, 198.51.100.7"}),
        (("127.0.0.0/8",), "127.0.0.1", {"X_Forwarded_For": "127.0.0.1"}),
        ((UNIX,), "", {"X_Forwarded_For": "127.0.0.1"}),
        ((UNIX,), "", {"X_Forwarded_For": "nonsense"}),
    ):
        with pytest.raises(Unauthenticated) as caught:
            authenticate(home, SECRET, shown(trusted, peer, **secret, **headers))
        assert caught.value.code == "home_secret_wrong", (trusted, peer, headers)


def test_what_a_caller_says_of_its_address_is_not_believed() -> None:
    """The address that failures and records go by is that of whoever a believed proxy saw, whatever stands before it."""
    proxies = Proxies(("10.0.0.0/8", UNIX))
    assert proxies.caller("198.51.100.7", b"127.0.0.1") == "198.51.100.7"
    assert proxies.caller("10.0.0.1", b"127.0.0.1, 203.0.113.9") == "203.0.113.9"
    assert proxies.caller("10.0.0.1", b"127.0.0.1, 10.9.9.9, 203.0.113.9, 10.0.0.2") == "203.0.113.9"
    assert proxies.caller("", b"10.0.0.3, 203.0.113.9") == "203.0.113.9"
    assert proxies.caller("10.0.0.1", b"1" * 16_000) == "10.0.0.1"


def test_nobody_moves_the_clock_or_breaks_vaults_over_http(home: Home) -> None:
    """Whoever finds the port of a dev home could end every token, and what may still be recovered."""
    with running(server_parts(home, home.configuration.server, SECRET)) as url, httpx.Client(trust_env=False) as client:
        now = home.services.clock.now()
        moved = client.post(f"{url}/v1/dev/clock", json={"milliseconds": 10**12})
        fault = client.put(f"{url}/v1/dev/faults/contoso-ck-1", json={"fault": "timeout"})
        assert [(one.status_code, one.json()["code"]) for one in (moved, fault)] == [(401, "not_signed_in")] * 2
        assert home.services.clock.now() - now < 10**9
        signed = {"Keystead-Home-Secret": SECRET}
        assert client.post(f"{url}/v1/dev/clock", json={"milliseconds": 1000}, headers=signed).status_code == 200
