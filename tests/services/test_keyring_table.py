"""The decision table again, end to end: real mail, real keyring, real embedded vault (design section 5; R-141 to R-146)."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING

import pytest

from keystead.adapters.vaults.faults import FaultyVaults, set_fault
from keystead.api.types import mailboxes as m
from keystead.api.types import policies as p
from keystead.core.errors import IntegrityFailure, KeyDenied, KeysteadError
from keystead.ports.clock import HOUR
from support.world import SECOND, World, message

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from support.world import MailboxWorld, TenantWorld

V1, V2 = "contosov1", "contosov2"
GOOD, FAULT, DENIED, ROTTEN = "success", "system-error", "denied", "integrity"
CUSTOMER, CACHED, AVAILABILITY = "customer", "cached", "availability"
NO, BROKEN = "refused", "damaged"

# outcomes in either order: what a user operation and a system operation get, each from a cold keyring, a warm one, and a warm one whose
# last success is older than the outage tolerance.
TABLE: dict[tuple[str, str], tuple[tuple[str, str, str], tuple[str, str, str]]] = {
    (GOOD, GOOD): ((CUSTOMER, CUSTOMER, CUSTOMER), (CUSTOMER, CUSTOMER, CUSTOMER)),
    (GOOD, FAULT): ((CUSTOMER, CUSTOMER, CUSTOMER), (CUSTOMER, CUSTOMER, CUSTOMER)),
    (GOOD, DENIED): ((CUSTOMER, CUSTOMER, CUSTOMER), (CUSTOMER, CUSTOMER, CUSTOMER)),
    (GOOD, ROTTEN): ((CUSTOMER, CUSTOMER, CUSTOMER), (CUSTOMER, CUSTOMER, CUSTOMER)),
    (ROTTEN, ROTTEN): ((BROKEN, BROKEN, BROKEN), (BROKEN, BROKEN, BROKEN)),
    (ROTTEN, FAULT): ((BROKEN, BROKEN, BROKEN), (BROKEN, BROKEN, BROKEN)),
    (ROTTEN, DENIED): ((BROKEN, BROKEN, BROKEN), (BROKEN, BROKEN, BROKEN)),
    (DENIED, DENIED): ((NO, NO, NO), (AVAILABILITY, AVAILABILITY, AVAILABILITY)),
    (DENIED, FAULT): ((NO, CACHED, NO), (AVAILABILITY, AVAILABILITY, AVAILABILITY)),
    (FAULT, FAULT): ((AVAILABILITY, CACHED, AVAILABILITY), (AVAILABILITY, CACHED, AVAILABILITY)),
}
PAIRS = sorted({pair for named in TABLE for pair in (named, named[::-1])})
ERRORS: dict[str, type[KeysteadError]] = {NO: KeyDenied, BROKEN: IntegrityFailure}
HEALTH = {(GOOD, GOOD): "healthy", (FAULT, FAULT): "unreachable"}


@dataclass
class Scene:
    """One mailbox with one message under a policy, and what happened to it so far."""

    world: World
    contoso: TenantWorld
    alice: MailboxWorld
    item: str

    def vaults(self, first: str, second: str) -> None:
        """From now on every call about the two vaults ends like this; integrity: the vault answers with wrong bytes."""
        for vault, kind in ((V1, first), (V2, second)):
            self.world.vaults.fail(vault, GOOD if kind == ROTTEN else kind)
            self.world.vaults.wrong_bytes.discard(vault)
            if kind == ROTTEN:
                self.world.vaults.wrong_bytes.add(vault)

    def keyring(self, standing: str) -> None:
        """Cold, warm (a probe is due), or warm with a last success that is too old to ride anything out."""
        self.vaults(GOOD, GOOD)
        assert self.contoso.health() == "healthy"
        self.world.forget()
        if standing != "cold":
            self.alice.read(self.item)
            self.world.clock.advance(61 * SECOND if standing == "warm" else 4 * HOUR + 61 * SECOND)

    def user(self) -> bytes:
        """Give the message to its owner."""
        return self.alice.read(self.item)

    def system(self) -> list[str]:
        """Look into the message without giving it to anybody."""
        hits = self.contoso.admin.call("mailbox.search", m.Search(text="body of message", upn=self.alice.upn))
        return [hit.item_id for hit in hits]


def make(path: Path) -> Scene:
    world = World(path)
    contoso = world.tenant("contoso.example")
    alice = contoso.mailbox("alice", messages=1)
    contoso.assign(contoso.policy("Mail"), alice)
    return Scene(world, contoso, alice, alice.items()[0].id)


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory, database: str) -> Iterator[Scene]:
    made = make(tmp_path_factory.mktemp("table"))
    yield made
    made.world.close()


@pytest.mark.parametrize("operation", ["user", "system"])
@pytest.mark.parametrize("pair", PAIRS, ids="+".join)
def test_what_an_operation_gets(scene: Scene, pair: tuple[str, str], operation: str) -> None:
    """R-141, R-144, R-145, R-146: the class of both answers gives the error class, or the content and nothing else; each is on the log."""
    row = TABLE.get(pair) or TABLE[pair[::-1]]
    for standing, result in zip(("cold", "warm", "stale"), row[operation == "system"], strict=True):
        scene.keyring(standing)
        scene.vaults(*pair)
        before = len(scene.contoso.fallbacks())
        call, good = (scene.user, message(0)) if operation == "user" else (scene.system, [scene.item])
        if result in ERRORS:
            with pytest.raises(ERRORS[result]) as refused:
                call()
            told = scene.contoso.audit("MailItemsAccessed" if operation == "user" else "New-MailboxSearch")[0]
            assert told.result_status == "Failed"
            assert ("Code", refused.value.code) in [(parameter.name, parameter.value) for parameter in told.parameters]
        else:
            assert call() == good
        assert len(scene.contoso.fallbacks()) - before == (result == AVAILABILITY), (standing, pair)


def test_every_pair_is_in_the_table() -> None:
    assert sorted(product((GOOD, FAULT, DENIED, ROTTEN), repeat=2)) == PAIRS


FAULTS = {
    "timeout": FAULT,
    "connection-refused": FAULT,
    "dns": FAULT,
    "tls": FAULT,
    "http-500": FAULT,
    "http-429": FAULT,
    "http-401": FAULT,
    "http-403": DENIED,
    "firewall": DENIED,
    "wrong-bytes": ROTTEN,
    "slow": GOOD,
    "none": GOOD,
}


@pytest.fixture(scope="module")
def faulty(tmp_path_factory: pytest.TempPathFactory, database: str) -> Iterator[Scene]:
    made = make(tmp_path_factory.mktemp("faults"))
    made.world.vaults.inner = FaultyVaults(made.world.vaults.inner, made.world.path / "faults", made.world.clock)
    yield made
    made.world.close()


@pytest.mark.parametrize(("fault", "kind"), FAULTS.items())
def test_every_fault_of_both_vaults_has_its_class(faulty: Scene, fault: str, kind: str) -> None:
    """R-043, R-144, R-145, R-147: from a cold keyring, by an operation of a user."""
    folder = faulty.world.path / "faults"
    faulty.world.forget()
    for vault in (V1, V2):
        set_fault(folder, vault, fault)
    before = len(faulty.contoso.fallbacks())
    result = TABLE[kind, kind][0][0]
    if result in ERRORS:
        with pytest.raises(ERRORS[result]):
            faulty.user()
    else:
        assert faulty.user() == message(0)
    assert len(faulty.contoso.fallbacks()) - before == (result == AVAILABILITY)
    answer: p.PolicyHealth = faulty.contoso.admin.call("policy.health", p.NamePolicy(policy="Mail"))
    assert answer.state == HEALTH.get((kind, kind), "denied")
    assert [key.outcome for key in answer.keys] == [kind, kind]
    assert all(bool(key.reason) is (kind != GOOD) for key in answer.keys)
    for vault in (V1, V2):
        set_fault(folder, vault, "none")


@pytest.mark.parametrize("fault", [fault for fault, kind in FAULTS.items() if kind != GOOD])
def test_a_fault_of_one_vault_is_bridged_by_the_other(faulty: Scene, fault: str) -> None:
    """R-143: whichever was asked first; without the availability key, and shown as degraded."""
    folder = faulty.world.path / "faults"
    for vault in (V1, V2):
        faulty.world.forget()
        set_fault(folder, vault, fault)
        before = len(faulty.contoso.fallbacks())
        assert faulty.user() == message(0)
        assert len(faulty.contoso.fallbacks()) == before
        assert faulty.contoso.health() == "degraded"
        set_fault(folder, vault, "none")
