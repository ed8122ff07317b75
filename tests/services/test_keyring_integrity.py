"""Copies that are not what was written: refused or healed, never taken for something else (design sections 4 and 5)."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import pytest

from keystead.api.types import mailboxes as m
from keystead.api.types import policies as p
from keystead.api.types import vaults as v
from keystead.core.errors import IntegrityFailure
from support.world import SECOND, World, message

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from keystead.ports.vaults import KeyFacts, SubscriptionFacts, Vaults, WrappedValue
    from support.world import MailboxWorld, TenantWorld

V1, V2 = "contosov1", "contosov2"
REPAIR = "Repair-DataEncryptionPolicyCopy"


@dataclass
class Scene:
    """A mailbox under the policy Mail, with keys, and a second policy with keys of its own."""

    world: World
    contoso: TenantWorld
    alice: MailboxWorld
    mail: p.PolicyView
    other: p.PolicyView

    def copy(self, role: str, policy: p.PolicyView | None = None) -> tuple[str, bytes]:
        """A copy as it lies in the database: key URI and envelope."""
        (row,) = self.world.sql(
            "SELECT key_uri, envelope FROM policy_copies WHERE version_id = ? AND role = ?", (policy or self.mail).version_id, role
        )
        return row[0], row[1]

    def put(self, role: str, copy: tuple[str, bytes], policy: p.PolicyView | None = None) -> None:
        """Put something in the place of a copy."""
        self.world.sql(
            "UPDATE policy_copies SET key_uri = ?, envelope = ? WHERE version_id = ? AND role = ?",
            *copy,
            (policy or self.mail).version_id,
            role,
        )

    def damage(self, role: str, position: int = -1) -> None:
        """Flip one bit of an envelope."""
        uri, envelope = self.copy(role)
        broken = bytearray(envelope)
        broken[position] ^= 1
        self.put(role, (uri, bytes(broken)))

    def ask_first(self, role: str) -> None:
        """Let the dice fall so that a cold keyring asks this key first."""
        chosen = b"\0" if role == "primary" else b"\1"
        self.world.services.keyring._random = lambda size: chosen if size == 1 else os.urandom(size)

    def refused(self) -> str:
        """Both a user and a system operation are refused from a cold and from a warm keyring; the code that they were refused with."""
        codes = set()
        for call in (self.alice.items, self.search):
            with pytest.raises(IntegrityFailure) as failure:
                call()
            codes.add(failure.value.code)
            last = self.contoso.audit()[0]
            assert last.result_status == "Failed"
            assert ("Code", failure.value.code) in [(one.name, one.value) for one in last.parameters]
        assert self.contoso.fallbacks() == []
        (code,) = codes
        return code

    def search(self) -> object:
        """A system operation."""
        return self.contoso.admin.call("mailbox.search", m.Search(text="body", upn=self.alice.upn))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, database: str) -> Iterator[Scene]:
    world = World(tmp_path_factory.mktemp("made"))
    contoso = world.tenant("contoso.example")
    mail = contoso.policy("Mail")
    alice = contoso.mailbox("alice", messages=2)
    contoso.assign(mail, alice)
    yield Scene(world, contoso, alice, mail, contoso.policy("Other", keys=contoso.own_keys("other")))
    world.close()


@pytest.fixture
def scene(made: Scene, tmp_path: Path) -> Iterator[Scene]:
    """A copy for each test, with the policy in memory."""
    world = World(tmp_path, like=made.world)
    contoso = made.contoso.within(world)
    scene = replace(made, world=world, contoso=contoso, alice=replace(made.alice, tenant=contoso))
    scene.alice.items()
    yield scene
    world.close()


def both_damaged(scene: Scene) -> None:
    scene.damage("primary")
    scene.damage("secondary", 5)


def swapped_between_policies(scene: Scene) -> None:
    for role in ("primary", "secondary"):
        mine, others = scene.copy(role), scene.copy(role, scene.other)
        scene.put(role, others)
        scene.put(role, mine, scene.other)


def primary_and_secondary_swapped(scene: Scene) -> None:
    first, second = scene.copy("primary"), scene.copy("secondary")
    scene.put("primary", second)
    scene.put("secondary", first)


def named_another_key(scene: Scene) -> None:
    for role in ("primary", "secondary"):
        scene.put(role, (scene.copy(role, scene.other)[0], scene.copy(role)[1]))


def named_another_algorithm(scene: Scene) -> None:
    scene.world.sql("UPDATE policy_copies SET algorithm = 'RSA1_5' WHERE version_id = ?", scene.mail.version_id)


def check_value_of_another_policy(scene: Scene) -> None:
    scene.world.sql(
        "UPDATE policies SET check_value = (SELECT check_value FROM policies WHERE id = ?) WHERE id = ?", scene.other.id, scene.mail.id
    )


def shred_key_of_another_policy(scene: Scene) -> None:
    scene.world.sql(
        "UPDATE policies SET shred_key_id = (SELECT shred_key_id FROM policies WHERE id = ?) WHERE id = ?", scene.other.id, scene.mail.id
    )


def emptied(scene: Scene) -> None:
    for role in ("primary", "secondary"):
        scene.put(role, (scene.copy(role)[0], b""))


HARM: dict[str, Callable[[Scene], None]] = {
    "both damaged": both_damaged,
    "swapped between policies": swapped_between_policies,
    "primary and secondary swapped": primary_and_secondary_swapped,
    "named another key": named_another_key,
    "named another algorithm": named_another_algorithm,
    "check value of another policy": check_value_of_another_policy,
    "shred key of another policy": shred_key_of_another_policy,
    "emptied": emptied,
}


@pytest.mark.parametrize("standing", ["cold", "warm"])
@pytest.mark.parametrize("harm", HARM)
def test_a_policy_with_no_sound_copy_is_refused(scene: Scene, harm: str, standing: str) -> None:
    """Integrity is neither a denial nor a fault: no availability key, an alert, a record; also when the key was in memory before."""
    HARM[harm](scene)
    if standing == "cold":
        scene.world.forget()
    else:
        scene.world.clock.advance(61 * SECOND)
    assert scene.refused() == "policy_key_damaged"
    assert scene.contoso.alerts() == {"key-integrity"}
    assert scene.contoso.health() == "denied"


@pytest.mark.parametrize("role", ["primary", "secondary"])
def test_an_older_versions_copy_put_back_after_a_refresh_does_not_open(scene: Scene, role: str) -> None:
    """R-155: envelopes are bound to their policy version, so a copy cannot be rolled back."""
    old = {one: scene.copy(one) for one in ("primary", "secondary")}
    for vault in (V1, V2):
        scene.contoso.admin.call("key.rotate", v.KeyNamed(vault=vault, name="root"))
    scene.mail = scene.contoso.admin.call("policy.refresh", p.NamePolicy(policy="Mail"))
    new = {one: scene.copy(one) for one in ("primary", "secondary")}
    scene.world.forget()
    scene.put(role, old[role])
    found: p.PolicyHealth = scene.contoso.admin.call("policy.health", p.NamePolicy(policy="Mail"))
    assert {key.role: key.reason for key in found.keys}[role] == "envelope-mismatch"
    for one, copy in old.items():
        scene.put(one, copy)
    scene.world.forget()
    assert scene.refused() == "policy_key_damaged"
    for one, copy in new.items():
        scene.put(one, copy)
    assert scene.alice.read_all() == [message(0), message(1)]


def test_wrong_bytes_from_both_vaults_are_refused(scene: Scene) -> None:
    """The check value tells: what a vault answers is compared before it is used."""
    scene.world.forget()
    scene.world.vaults.wrong_bytes |= {V1, V2}
    assert scene.refused() == "policy_key_damaged"
    scene.world.vaults.wrong_bytes.clear()
    assert scene.alice.read_all() == [message(0), message(1)]


@dataclass
class ShortAnswers:
    """A vault that gives back only part of what it unwrapped."""

    inner: Vaults

    def key_facts(self, tenant_id: str, application: str, key_uri: str) -> KeyFacts:
        return self.inner.key_facts(tenant_id, application, key_uri)

    def subscription_facts(self, tenant_id: str, name: str) -> SubscriptionFacts:
        return self.inner.subscription_facts(tenant_id, name)

    def wrap(self, tenant_id: str, application: str, key_uri: str, value: bytes) -> WrappedValue:
        return self.inner.wrap(tenant_id, application, key_uri, value)

    def unwrap(self, tenant_id: str, application: str, key_uri: str, value: bytes) -> bytes:
        return self.inner.unwrap(tenant_id, application, key_uri, value)[:31]


def test_answers_of_the_wrong_length_are_refused(scene: Scene) -> None:
    """The same for length."""
    scene.world.forget()
    scene.world.vaults.inner = ShortAnswers(scene.world.vaults.inner)
    assert scene.refused() == "policy_key_damaged"
    found: p.PolicyHealth = scene.contoso.admin.call("policy.health", p.NamePolicy(policy="Mail"))
    assert [key.reason for key in found.keys] == ["wrong-length", "wrong-length"]


@pytest.mark.parametrize("path", ["cold", "warm", "health"])
@pytest.mark.parametrize("role", ["primary", "secondary"])
def test_one_good_copy_heals_a_rotten_one_and_the_alert_goes(scene: Scene, role: str, path: str) -> None:
    """Decision table, first row: used, re-wrapped with the key it names, on the log; healthy from the next time it is asked."""
    uri, sound = scene.copy(role)
    scene.damage(role)
    rotten = scene.copy(role)[1]
    if path == "cold":
        scene.world.forget()
        scene.ask_first(role)
    scene.world.clock.advance(61 * SECOND)
    if path == "health":
        assert scene.contoso.health() == "degraded"
    assert scene.alice.read_all() == [message(0), message(1)]
    assert scene.contoso.alerts() == {"key-integrity", "key-degraded"}
    healed = scene.copy(role)
    assert healed[0] == uri
    assert healed[1] not in {sound, rotten}
    (repair,) = scene.contoso.audit(REPAIR)
    assert [(one.name, one.value) for one in repair.parameters] == [("Role", role), ("KeyUri", uri), ("Outcome", "envelope-mismatch")]
    assert scene.contoso.health() == "healthy"
    assert scene.contoso.alerts() == set()
    scene.world.forget()
    scene.world.vaults.fail(V1 if role == "secondary" else V2, "system-error")
    assert scene.alice.read_all() == [message(0), message(1)]
    assert scene.contoso.fallbacks() == []


def test_a_rotten_copy_is_not_healed_while_its_vault_refuses_to_wrap(scene: Scene) -> None:
    """The alert stays until it can be."""
    scene.damage("primary")
    rotten = scene.copy("primary")
    scene.world.vaults.fail(V1, "system-error")
    assert scene.contoso.health() == "degraded"
    assert scene.copy("primary") == rotten
    assert scene.contoso.audit(REPAIR) == []
    assert scene.contoso.alerts() == {"key-integrity", "key-degraded"}
    scene.world.vaults.fail(V1, "success")
    assert scene.contoso.health() == "degraded"
    assert scene.contoso.health() == "healthy"


def test_a_copy_that_names_the_other_copys_vault_is_not_wrapped_there(scene: Scene) -> None:
    """R-071: the name of a damaged copy proves nothing; healing must not put both copies into one vault."""
    planted = scene.copy("secondary")
    scene.put("primary", planted)
    assert scene.contoso.health() == "degraded"
    assert scene.copy("primary") == planted
    assert scene.contoso.audit(REPAIR) == []
    assert scene.alice.read_all() == [message(0), message(1)]


def test_a_damaged_availability_copy_opens_to_nothing(scene: Scene) -> None:
    """The last copy is checked like the others."""
    scene.damage("availability")
    scene.world.forget()
    for vault in (V1, V2):
        scene.world.vaults.fail(vault, "system-error")
    with pytest.raises(IntegrityFailure):
        scene.alice.items()


def test_availability_copies_swapped_between_policies_do_not_open(scene: Scene) -> None:
    """R-080: nor with the id of the other policy's availability key beside them."""
    mine, others = scene.copy("availability"), scene.copy("availability", scene.other)
    scene.put("availability", others)
    scene.put("availability", mine, scene.other)
    scene.world.sql(
        "UPDATE policies SET availability_key_id = (SELECT availability_key_id FROM policies WHERE id = ?) WHERE id = ?",
        scene.other.id,
        scene.mail.id,
    )
    scene.world.forget()
    for vault in (V1, V2):
        scene.world.vaults.fail(vault, "system-error")
    with pytest.raises(IntegrityFailure):
        scene.alice.items()


def test_a_mailbox_key_put_under_another_mailbox_does_not_open(scene: Scene) -> None:
    """R-095: the tier below is bound to its mailbox too."""
    bob = scene.contoso.mailbox("bob", messages=1)
    scene.contoso.assign("Mail", bob)
    rows = scene.world.sql("SELECT k.mailbox_id, k.wrapped FROM mailbox_keys k JOIN mailboxes b ON b.id = k.mailbox_id ORDER BY b.upn")
    assert len(rows) == 2
    for (mailbox, _own), (_other, wrapped) in zip(rows, reversed(rows), strict=True):
        scene.world.sql("UPDATE mailbox_keys SET wrapped = ? WHERE mailbox_id = ?", wrapped, mailbox)
    scene.world.forget()
    for box in (scene.alice, bob):
        with pytest.raises(IntegrityFailure):
            box.items()
