"""Which side a key lies with is decided by its host alone, and only by what the operator wrote."""

from __future__ import annotations

from dataclasses import replace
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keystead.adapters.vaults.routed import Entry, RoutedVaults, open_entries
from keystead.core.configuration import ForeignVaultConfig
from keystead.core.errors import InvalidRequest
from keystead.core.keys.outcome import Outcome, OutcomeClass
from keystead.core.settings import Settings
from keystead.ports.vaults import SubscriptionFacts, VaultFailure, WrappedValue

if TYPE_CHECKING:
    from pathlib import Path

    from keystead.ports.clock import Clock
    from keystead.ports.vaults import KeyFacts, Vaults

TENANT, OTHER = "11111111-1111-4111-8111-111111111111", "22222222-2222-4222-8222-222222222222"
GOOD = ForeignVaultConfig(
    name="azure", hosts=("*.vault.azure.net",), tenants=("contoso.example",), directory="d", client_id="c", client_secret_file="f"
)


class Named:
    """A side that answers with its own name."""

    def __init__(self, name: str) -> None:
        self.name = name

    def wrap(self, tenant_id: str, application: str, key_uri: str, value: bytes) -> WrappedValue:
        return WrappedValue(self.name, value)

    def unwrap(self, tenant_id: str, application: str, key_uri: str, value: bytes) -> bytes:
        return self.name.encode()

    def key_facts(self, tenant_id: str, application: str, key_uri: str) -> KeyFacts:
        raise VaultFailure(Outcome(OutcomeClass.DENIED, self.name))

    def subscription_facts(self, tenant_id: str, name: str) -> SubscriptionFacts:
        if self.name == "own":
            raise VaultFailure(Outcome(OutcomeClass.DENIED, "subscription-not-found"))
        return SubscriptionFacts(name, name, tenant_id, "paid", "unknown", "Enabled")


def entry(**changes: Any) -> Entry:
    return Entry(replace(GOOD, **changes), cast("Path", PurePosixPath("/")), Settings(), cast("Clock", None))


def routed(*entries: Entry) -> RoutedVaults:
    for one in entries:
        one._opened = cast("Any", Named(one.config.name))
    domains = {"contoso.example": TENANT, "fabrikam.example": OTHER}
    return RoutedVaults(cast("Vaults", Named("own")), ".vault.localhost", entries, domains.get)


def side(found: RoutedVaults, host: str, tenant: str = TENANT) -> str:
    return found.unwrap(tenant, "mail", f"https://{host}/keys/root/1", b"").decode()


def test_a_host_is_of_the_home_of_an_entry_or_of_nobody() -> None:
    """Design section 6: the service calls no address because a key identifier names it."""
    exact = entry(name="exact", hosts=("one.vault.azure.net", "127.0.0.1:8443"))
    found = routed(entry(), exact)
    assert side(found, "Contoso.vault.localhost") == "own"
    assert side(found, "two.VAULT.azure.net") == "azure"
    assert (side(found, "one.vault.azure.net"), side(found, "127.0.0.1:8443")) == ("exact", "exact")
    for nobody in (
        "vault.azure.net",
        "a.b.vault.azure.net",
        "two.vault.azure.net:444",
        "two.vault.azure.net.evil.example",
        "evilvault.azure.net",
        "-.vault.azure.net",
        ".vault.azure.net",
        "127.0.0.1",
        "127.0.0.1:8444",
        "169.254.169.254",
    ):
        assert side(found, nobody) == "own", nobody


@given(host=st.text("abcAZ09.-:", min_size=1, max_size=40))
def test_whatever_the_host_only_what_is_listed_is_called(host: str) -> None:
    found = routed(entry())
    label = host.lower().removesuffix(".vault.azure.net")
    listed = host.lower().endswith(".vault.azure.net") and label != "" and not set(label) & set(".:") and label.strip("-") == label
    assert side(found, host) == ("azure" if listed else "own")


def test_an_entry_serves_the_tenants_it_names() -> None:
    by_id = entry(name="by-id", hosts=("one.example",), tenants=(OTHER,))
    found = routed(entry(), by_id, entry(name="nobodys", hosts=("two.example",), tenants=()))
    assert side(found, "a.vault.azure.net", TENANT) == "azure"
    assert side(found, "one.example", OTHER) == "by-id"
    for host, tenant in (("a.vault.azure.net", OTHER), ("one.example", TENANT), ("two.example", TENANT), ("two.example", "two.example")):
        with pytest.raises(VaultFailure) as refused:
            side(found, host, tenant)
        assert str(refused.value.outcome) == "denied (vault-another-tenant)"


def test_a_subscription_that_the_operator_states_is_found_by_its_tenant() -> None:
    found = routed(entry(subscription="Contoso EA 9"))
    assert found.subscription_facts(TENANT, "contoso ea 9").kind == "paid"
    for tenant, name in ((OTHER, "Contoso EA 9"), (TENANT, "Contoso EA 8"), (TENANT, "")):
        with pytest.raises(VaultFailure, match="subscription-not-found"):
            found.subscription_facts(tenant, name)


UNFIT = [
    ({"name": ""}, "name is missing"),
    ({"hosts": ()}, "hosts is missing"),
    ({"directory": ""}, "directory is missing"),
    ({"client_id": ""}, "client_id is missing"),
    ({"client_secret_file": ""}, "client_secret_file is missing"),
    ({"hosts": ("*",)}, "is not HOST"),
    ({"hosts": ("*.net",)}, "too wide"),
    ({"hosts": ("*.*.azure.net",)}, "is not HOST"),
    ({"hosts": ("https://a.example",)}, "is not HOST"),
    ({"hosts": ("a.example/keys",)}, "is not HOST"),
    ({"hosts": ("user@a.example",)}, "is not HOST"),
    ({"hosts": ("a.example:0",)}, "is not HOST"),
    ({"hosts": ("a.example:65536",)}, "is not HOST"),
    ({"authority": "http://login.example"}, "authority is an https address"),
    ({"authority": "https://user@login.example"}, "authority is an https address"),
    ({"authority": "https://login.example/directory"}, "without a path"),
    ({"verify_challenge": False}, "bare loopback"),
    ({"verify_challenge": False, "hosts": ("vault.example:8443",)}, "bare loopback"),
    ({"subscription_kind": "gratis"}, "subscription_kind is one of"),
    ({"region": "West Europe"}, "region is one"),
    ({"region": "atlantis"}, "region is one"),
]


@pytest.mark.parametrize(("changes", "said"), UNFIT)
def test_an_entry_that_cannot_be_used_is_refused_at_the_start(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidRequest, match=said) as refused:
        entry(**changes)
    assert refused.value.code == "configuration_invalid"


def test_no_two_entries_have_one_name_or_one_host() -> None:
    for second in (replace(GOOD, hosts=("other.example",)), replace(GOOD, name="second")):
        with pytest.raises(InvalidRequest, match="is there twice"):
            open_entries([GOOD, second], cast("Path", PurePosixPath("/")), Settings(), cast("Clock", None))
