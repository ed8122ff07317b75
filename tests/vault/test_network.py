"""From where a vault may be called (R-043)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from keystead.adapters.vaults.embedded import EmbeddedVaults
from keystead.api.types import vaults as t
from keystead.core.errors import Forbidden, InvalidRequest, KeysteadError, NotFound
from keystead.core.keys.outcome import OutcomeClass
from keystead.ports.vaults import VaultFailure
from keystead.vault import keys, management, vaults
from vault import walk
from vault.world import KIM, TENANT

if TYPE_CHECKING:
    from collections.abc import Callable

    from vault.world import World

OFFICE = "198.51.100.7"
ELSEWHERE = "203.0.113.99"
URI = "https://contosovault1.vault.localhost/keys/root"


def close_to(world: World, *ranges: str, bypass: str | None = None) -> t.NetworkView:
    """Only these may call."""
    for one in ranges:
        management.allow_range(world.vault, world.call(), t.NetworkRange(vault=walk.VAULT, range=one))
    return management.set_default(world.vault, world.call(), t.NetworkDefault(vault=walk.VAULT, action="deny", bypass=bypass))


def look(world: World, address: str, uri: str = "") -> t.KeyView:
    return keys.get_key(world.vault, walk.alex(address, uri), walk.VAULT, "root", None)


def test_a_new_vault_may_be_called_from_everywhere(world: World) -> None:
    """R-043."""
    world.ready()
    assert management.show_network(world.vault, world.call(), walk.NAMED) == t.NetworkView(
        vault=walk.VAULT, default_action="Allow", bypass="AzureServices", ranges=[]
    )
    assert look(world, ELSEWHERE).name == "root"


def test_only_the_ranges_get_in_and_the_refusal_is_another_than_the_policys(world: World) -> None:
    """R-043: code, log record and address tell a firewall refusal from one of the access policy."""
    world.ready()
    view = close_to(world, "198.51.100.0/24", "2001:db8::/32")
    assert (view.default_action, view.ranges) == ("Deny", ["198.51.100.0/24", "2001:db8::/32"])
    for address in (OFFICE, "2001:db8::1", f"::ffff:{OFFICE}"):
        assert look(world, address, URI).name == "root"
    for address in (ELSEWHERE, "2001:db9::1", f"::ffff:{ELSEWHERE}", "not-an-address"):
        with pytest.raises(Forbidden) as refused:
            look(world, address, URI)
        assert refused.value.code == "vault_firewall"
        assert address in refused.value.detail
        last = world.log()[-1]
        assert (last.operation_name, last.result_signature, last.properties.http_status_code) == ("KeyGet", "vault_firewall", 403)
        assert last.caller_ip_address == address
    with pytest.raises(Forbidden) as policy:
        keys.show(world.vault, world.call(KIM), walk.VERSION)
    assert policy.value.code == "vault_firewall"  # world.call comes from 192.0.2.7: who stands outside learns nothing of the policy
    management.allow_range(world.vault, world.call(), t.NetworkRange(vault=walk.VAULT, range="192.0.2.7"))
    with pytest.raises(Forbidden) as policy:
        keys.show(world.vault, world.call(KIM), walk.VERSION)
    assert policy.value.code == "vault_access_denied"


def test_a_range_that_is_taken_back_counts_from_the_next_call_on(world: World) -> None:
    """R-043."""
    world.ready()
    close_to(world, "198.51.100.0/24")
    assert look(world, OFFICE).name == "root"
    gone = t.NetworkRange(vault=walk.VAULT, range="198.51.100.0/24")
    assert management.remove_range(world.vault, world.call(), gone).ranges == []
    with pytest.raises(Forbidden):
        look(world, OFFICE)
    with pytest.raises(NotFound) as missing:
        management.remove_range(world.vault, world.call(), gone)
    assert missing.value.code == "network_range_not_found"
    management.set_default(world.vault, world.call(), t.NetworkDefault(vault=walk.VAULT, action="allow"))
    assert look(world, OFFICE).name == "root"


def test_the_services_own_applications_pass_unless_the_bypass_is_none(world: World) -> None:
    """R-043, D2: what the firewall refuses to the service is a denial, and says why."""
    view = world.ready()
    embedded = EmbeddedVaults(world.vault)
    close_to(world)
    wrapped = embedded.wrap(TENANT, "mail", view.id, bytes(32))
    assert embedded.unwrap(TENANT, "mail", wrapped.key_uri, wrapped.value) == bytes(32)
    close_to(world, bypass="None")
    calls: list[Callable[[], object]] = [
        lambda: embedded.unwrap(TENANT, "mail", wrapped.key_uri, wrapped.value),
        lambda: embedded.wrap(TENANT, "mail", view.id, bytes(32)),
        lambda: embedded.key_facts(TENANT, "mail", view.id),
    ]
    for call in calls:
        with pytest.raises(VaultFailure) as denied:
            call()
        assert (denied.value.outcome.kind, denied.value.outcome.reason) == (OutcomeClass.DENIED, "vault-firewall")


def test_a_call_over_the_network_from_no_known_address_is_not_inside(world: World) -> None:
    """R-043: a listener that does not know its caller's address must not make it a trusted one."""
    world.ready()
    close_to(world)
    assert look(world, "").name == "root"
    with pytest.raises(Forbidden) as refused:
        look(world, "", URI)
    assert refused.value.code == "vault_firewall"


def test_every_use_case_about_keys_asks_and_none_about_the_vault(world: World) -> None:
    """R-043: nobody is locked out of mending the rules, and no use case with a key forgets them."""
    walk.prepare(world)
    found = walk.use_cases(world)
    close_to(world, "198.51.100.0/24")
    for name, (use_case, _changes) in found.items():
        if name.startswith("vault."):
            continue
        with pytest.raises(Forbidden) as refused:
            use_case(world.vault, walk.alex(ELSEWHERE, URI))
        assert refused.value.code == "vault_firewall", name
    for name in ("key.show", "operation unwrap_key"):
        found[name][0](world.vault, walk.alex(OFFICE, URI))
    for name in sorted(found, key=lambda name: name == "vault.delete"):
        if name.startswith("vault."):
            found[name][0](world.vault, walk.alex(ELSEWHERE, URI))
    vaults.recover(world.vault, world.call(), walk.NAMED)


def test_who_may_not_change_the_vault_may_not_change_its_rules(world: World) -> None:
    """R-013, R-043."""
    world.ready()
    kim = world.call(KIM)
    changes: list[Callable[[], object]] = [
        lambda: management.allow_range(world.vault, kim, walk.RANGE),
        lambda: management.remove_range(world.vault, kim, walk.RANGE),
        lambda: management.set_default(world.vault, kim, t.NetworkDefault(vault=walk.VAULT, action="deny")),
        lambda: management.show_network(world.vault, kim, walk.NAMED),
    ]
    for change in changes:
        with pytest.raises(Forbidden) as refused:
            change()
        assert refused.value.code == "vault_access_denied"


@pytest.mark.parametrize(
    "text", ["203.0.113.7/24", "203.0.113.0/33", "fe80::1%eth0", "::ffff:203.0.113.7", "everywhere", "", "1.2.3.0/255.255.255.0"]
)
def test_what_is_no_range_changes_nothing(world: World, text: str) -> None:
    """R-043."""
    world.ready()
    with pytest.raises(InvalidRequest) as refused:
        management.allow_range(world.vault, world.call(), t.NetworkRange(vault=walk.VAULT, range=text))
    assert refused.value.code == "network_range_invalid"
    assert management.show_network(world.vault, world.call(), walk.NAMED).ranges == []


def test_rules_that_cannot_be_read_let_nobody_in(world: World) -> None:
    """R-043: damaged rules are not open ones."""
    world.ready()
    world.stores.sql("vault", "UPDATE vault SET network_rules = '1 Allow'")
    with pytest.raises(KeysteadError) as refused:
        look(world, OFFICE)
    assert refused.value.code == "network_rules_damaged"
