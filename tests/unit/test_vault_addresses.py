"""Which vault an address is, and what its callers are told."""

from __future__ import annotations

from typing import Any

import pytest

from keystead.core.errors import NotFound
from keystead.frontends.vault_http.addresses import AddressBook, Domain
from keystead.ports.vault_store import Subscription, Vault

OURS, THEIRS = "0d7f4c1e-5a8e-4f43-9d0a-1c2d3e4f5a6b", "6b9e2f0c-1d3a-4c5b-8e7f-9a0b1c2d3e4f"


def vault(name: str, tenant: str = OURS) -> Vault:
    subscription = Subscription("s", tenant, "s1", "paid", cancelled=False, protected_from=None, created=0, created_by="a")
    return Vault(
        f"id-{name}",
        tenant,
        name,
        subscription,
        "s1",
        "westeurope",
        "standard",
        rbac=False,
        purge_protection=False,
        retention_days=90,
        created=0,
        deleted=None,
    )


def scope(port: int, host: str = "") -> dict[str, Any]:
    return {"server": ("127.0.0.1", port), "headers": [(b"host", host.encode())] if host else []}


@pytest.fixture
def loopback() -> AddressBook:
    book = AddressBook(None)
    vaults: dict[int | str, Vault] = {4711: vault("ContosoV1"), 4712: vault("FabrikamV1", THEIRS)}
    book.put(vaults, frozenset({"id-ContosoV1"}), 4700)
    return book


@pytest.fixture
def domain() -> AddressBook:
    book = AddressBook(Domain("vault.contoso.example", 8443))
    book.put({"contosov1": vault("ContosoV1")}, frozenset({"id-ContosoV1"}), 0)
    return book


def test_on_loopback_the_port_alone_tells_the_vault(loopback: AddressBook) -> None:
    for host in ("", "127.0.0.1:4711", "127.0.0.1:4712", "attacker.example", "localhost:4712"):
        served = loopback.resolve(scope(4711, host))
        assert (served.vault, served.base_url, served.resource) == ("ContosoV1", "https://127.0.0.1:4711", "https://127.0.0.1:4711"), host
        assert (served.authority_url, served.tenant_id) == (f"https://127.0.0.1:4700/{OURS}", OURS)
    assert loopback.resolve(scope(4711, "localhost:4711")).base_url == "https://localhost:4711"
    assert loopback.is_authority(scope(4700, "127.0.0.1:4711"))
    assert not loopback.is_authority(scope(4711, "127.0.0.1:4700"))
    with pytest.raises(NotFound):
        loopback.resolve(scope(4713, "127.0.0.1:4711"))


def test_R_038_on_loopback_a_resource_is_one_vault_of_the_tenant(loopback: AddressBook) -> None:
    assert loopback.resource(OURS, "https://127.0.0.1:4711") == "contosov1"
    for tenant, resource in ((OURS, "https://127.0.0.1:4712"), (OURS, "https://127.0.0.1"), (THEIRS, "https://127.0.0.1:4711")):
        assert loopback.resource(tenant, resource) is None
    assert [place.name for place in loopback.places] == ["ContosoV1"], "one that was deleted is told of nowhere"


def test_under_a_domain_the_host_tells_the_vault_and_its_port_is_that_of_the_caller(domain: AddressBook) -> None:
    served = domain.resolve(scope(8443, "ContosoV1.Vault.Contoso.Example:8443"))
    assert served.vault == "ContosoV1"
    assert served.base_url == "https://contosov1.vault.contoso.example:8443"
    assert served.resource == "https://vault.contoso.example:8443"
    assert served.authority_url == f"https://login.vault.contoso.example:8443/{OURS}"
    forwarded = domain.resolve(scope(8443, "contosov1.vault.contoso.example"))
    assert (forwarded.base_url, forwarded.resource) == ("https://contosov1.vault.contoso.example", "https://vault.contoso.example")
    for host in (
        "",
        "vault.contoso.example",
        "contosov1",
        "contosov1.attacker.example",
        "x.contosov1.vault.contoso.example",
        "127.0.0.1:8443",
    ):
        with pytest.raises(NotFound):
            domain.resolve(scope(8443, host))
    assert domain.is_authority(scope(8443, "LOGIN.vault.contoso.example:8443"))


def test_R_038_under_a_domain_one_resource_stands_for_all_vaults(domain: AddressBook) -> None:
    for resource in ("https://vault.contoso.example", "https://vault.contoso.example:8443"):
        assert domain.resource(OURS, resource) == ""
    for resource in ("https://contosov1.vault.contoso.example", "https://contoso.example", "https://127.0.0.1:8443"):
        assert domain.resource(OURS, resource) is None
