"""A policy whose two keys lie in two `keystead vault serve` processes of two other homes, from its making to its end (design sections 5, 8)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from keystead.api.types import mailboxes as m
from keystead.api.types import policies as p
from keystead.api.types import tenants as t
from keystead.api.types import vault_clients as c
from keystead.api.types import vaults as v
from keystead.api.types import watching as w
from keystead.cli.separate_vaults import SERVICE, SeparateVault, make_vault, start_all
from keystead.core.audit.record import FALLBACK
from keystead.core.errors import ChecksFailed, KeyDenied
from keystead.ports.clock import HOUR, MINUTE
from keystead.wiring import Home, create_home, open_home
from support.world import message

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from keystead.client.client import Client

pytestmark = pytest.mark.xdist_group("foreign-policy")

DOMAIN = "contoso.example"
ADMIN, ALICE = f"admin@{DOMAIN}", f"alice@{DOMAIN}"
OTHER_DOMAIN = "fabrikam.example"


class Installation:
    """A provider's home, and two vaults of its customer elsewhere."""

    def __init__(self, folder: Path) -> None:
        self.vaults: list[SeparateVault] = []
        self.home: Home | None = None
        for number, region in enumerate(("westeurope", "eastus"), 1):
            made = make_vault(
                folder / f"vault-{number}",
                f"contoso-vault-{number}",
                tenant="Contoso",
                domain=DOMAIN,
                subscription=f"Contoso EA {number}",
                region=region,
            )
            made.admin.call("key.create", v.KeyCreate(vault=made.name, name="root", kty="RSA-HSM", ops=["wrapKey", "unwrapKey"]))
            self.vaults.append(made)
        start_all(self.vaults)
        place = folder / "home"
        create_home(place, dev=True, operator="operator@provider.example")
        entries = "\n".join(one.entry(DOMAIN) for one in self.vaults)
        (place / "keystead.toml").write_text(f"[settings]\ndenial_confirm = 0\n\n{entries}")
        self.home = open_home(place)
        for name, domain in (("Contoso", DOMAIN), ("Fabrikam", OTHER_DOMAIN)):
            self.operator().call("tenant.create", t.CreateTenant(name=name, domain=domain, geo=["EUR"]))
            self.operator(name).call("user.add", t.AddUser(upn=f"admin@{domain}", roles=["global-admin"]))
        subscriptions = [one.subscription for one in self.vaults]
        self.as_person(ADMIN).call("tenant.onboard", t.OnboardTenant(workload="mail", subscriptions=subscriptions))

    @property
    def keys(self) -> list[str]:
        return [one.key_uri("root") for one in self.vaults]

    def operator(self, tenant: str = "") -> Client:
        assert self.home is not None
        return self.home.client(self.home.as_operator(), tenant)

    def as_person(self, upn: str) -> Client:
        assert self.home is not None
        return self.home.client(self.home.as_person(upn))

    @property
    def admin(self) -> Client:
        return self.as_person(ADMIN)

    def advance(self, milliseconds: int) -> None:
        self.operator("Contoso").call("dev.clock.advance", w.AdvanceClock(milliseconds=milliseconds))

    def read(self, item: str) -> bytes:
        return b"".join(self.as_person(ALICE).call("mailbox.read", m.NameItem(upn=ALICE, item=item)).chunks)

    def health(self) -> tuple[str, list[str]]:
        found: p.PolicyHealth = self.admin.call("policy.health", p.NamePolicy(policy="Mail"))
        return found.state, [f"{key.outcome} {key.reason}".strip() for key in found.keys]

    def fallbacks(self) -> int:
        return len(self.admin.call("audit.search", w.SearchAudit(operations=[FALLBACK], limit=100)))

    def failed(self, *keys: str, who: str = ADMIN) -> list[tuple[str, str]]:
        with pytest.raises(ChecksFailed) as refused:
            self.as_person(who).call("policy.create", p.CreatePolicy(name="Refused", keys=list(keys)))
        return [(check.check, check.subject) for check in refused.value.failed]

    def close(self) -> None:
        for one in self.vaults:
            one.close()
        if self.home is not None:
            self.home.close()


@pytest.fixture(scope="module")
def there(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    made = Installation(tmp_path_factory.mktemp("foreign"))
    yield made
    made.close()


@pytest.fixture(scope="module")
def item(there: Installation) -> str:
    """A message of Alice's under a policy with both keys."""
    made: p.PolicyView = there.admin.call("policy.create", p.CreatePolicy(name="Mail", keys=there.keys))
    assert [copy.key_uri.rpartition("/")[0] for copy in made.keys][:2] == there.keys
    assert made.warnings == []
    there.admin.call("mailbox.create", m.CreateMailbox(upn=ALICE))
    batch = m.ImportBatch(upn=ALICE, items=[m.ImportItem(position=1, ordinal=1, folder="Inbox", data=message(1))])
    there.admin.call("mailbox.import", batch)
    asked: m.AssignmentView = there.admin.call("mailbox.assign", m.AssignPolicy(policy="Mail", upns=[ALICE]))
    assert there.admin.wait(asked.job_id).state == "done"
    found: list[m.ItemView] = there.as_person(ALICE).call("mailbox.items", m.ListItems(upn=ALICE, limit=10))
    return found[0].id


def test_creation_checks_reach_the_vaults_themselves(there: Installation, item: str) -> None:
    """R-074, R-081: what is missing is named; a permission to wrap is not made up for by a public key that may be had."""
    first, second = there.vaults
    for missing, check in (("wrapKey", "permission-wrapKey"), ("unwrapKey", "permission-unwrapKey"), ("get", "permission-get")):
        first.admin.call("vault.access.revoke", v.AccessRevoke(vault=first.name, principal=SERVICE, permissions=[missing]))
        assert there.failed(*there.keys) == [(check, there.keys[0])]
        first.grant()
    first.admin.call("key.disable", v.KeyVersionNamed(vault=first.name, name="root"))
    assert ("key-enabled", there.keys[0]) in there.failed(*there.keys)
    first.admin.call("key.enable", v.KeyVersionNamed(vault=first.name, name="root"))
    assert there.failed(there.keys[0], second.key_uri("none")) == [("key-exists", second.key_uri("none"))]
    assert there.failed(there.keys[0], there.keys[0])[0][0] == "different-vaults"
    assert there.read(item) == message(1)


def test_a_vault_nobody_listed_for_the_tenant_is_not_registered(there: Installation, item: str) -> None:
    """The service calls no address because a key identifier names it, and one tenant's vaults serve no other."""
    for key in ("https://127.0.0.1:1/keys/root", "https://elsewhere.example/keys/root"):
        assert ("key-registered", key) in there.failed(there.keys[0], key)
    found = there.failed(*there.keys, who=f"admin@{OTHER_DOMAIN}")
    assert [one for one in found if one[0] == "key-registered"] == [("key-registered", key) for key in there.keys]
    assert there.read(item) == message(1)


def test_a_refresh_takes_the_current_versions(there: Installation, item: str) -> None:
    """R-155."""
    for one in there.vaults:
        one.admin.call("key.rotate", v.KeyNamed(vault=one.name, name="root"))
    before: p.PolicyView = there.admin.call("policy.show", p.NamePolicy(policy="Mail"))
    after: p.PolicyView = there.admin.call("policy.refresh", p.NamePolicy(policy="Mail"))
    pairs = zip([copy.key_uri for copy in before.keys[:2]], [copy.key_uri for copy in after.keys[:2]], strict=True)
    assert all(old != new and old.startswith("https://127.0.0.1:") for old, new in pairs)
    assert there.read(item) == message(1)


def test_a_revocation_is_obeyed_within_one_probe_interval(there: Installation, item: str) -> None:
    """R-037, R-042: access taken away, and the service's client deleted: the customer's no in two forms."""
    first, second = there.vaults
    assert there.read(item) == message(1)
    first.revoke()
    there.advance(MINUTE + 1)
    assert there.read(item) == message(1)
    assert there.health() == ("degraded", ["denied http-403 AccessDenied", "success"])
    second.revoke()
    there.advance(MINUTE + 1)
    with pytest.raises(KeyDenied):
        there.read(item)
    first.grant()
    second.grant()
    assert there.health() == ("healthy", ["success", "success"])
    assert there.read(item) == message(1)


def test_what_stops_is_ridden_out_and_what_is_denied_is_not(there: Installation, item: str) -> None:
    """The decision table with real processes: one gone, both gone for less and for more than the cached key's time, and back."""
    first, second = there.vaults
    assert there.read(item) == message(1)
    first.process.stop()
    there.advance(MINUTE + 1)
    assert there.read(item) == message(1)
    assert there.health() == ("degraded", ["system-error connection-refused", "success"])
    second.process.stop()
    there.advance(MINUTE + 1)
    assert there.read(item) == message(1)
    assert (there.health()[0], there.fallbacks()) == ("unreachable", 0)
    there.advance(5 * HOUR)
    assert there.read(item) == message(1)
    assert there.fallbacks() == 1
    start_all(there.vaults)
    assert there.health() == ("healthy", ["success", "success"])


def test_a_client_that_was_deleted_is_a_denial(there: Installation, item: str) -> None:
    """Deleting the service's client withdraws its access: no fault to be ridden out. It is the last test: it cannot be given back."""
    assert there.read(item) == message(1)
    for one in there.vaults:
        one.admin.call("vault.client.delete", c.ClientNamed(client=SERVICE))
    there.advance(MINUTE + 1)
    with pytest.raises(KeyDenied):
        there.read(item)
    assert there.health() == ("denied", ["denied sign-in unauthorized-client"] * 2)
