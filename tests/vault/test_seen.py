"""What a process remembers of the vault's database counts only while nothing in it has changed (R-042, ADR 26)."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest

from keystead.adapters.sql.vault_store import SqlVaultStore
from keystead.api.types import vaults as t
from keystead.api.types.vault_clients import ClientCreate, ClientNamed
from keystead.core.errors import Forbidden, KeysteadError, NotFound, PreconditionFailed, Unauthenticated
from keystead.core.secret import SecretKey
from keystead.core.vaults.access import client
from keystead.ports.clock import DAY
from keystead.vault import access, clients, keys, management, operations, subscriptions, tokens, vaults
from keystead.vault.operations import Place
from keystead.vault.seen import Seen, Stamps
from keystead.vault.services import Identity, open_vault
from vault.world import ALEX, SEAL, TENANT, World

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from keystead.vault.services import VaultServices

VAULT, RESOURCE = "ContosoVault1", "https://vault.example"


@pytest.fixture
def world(tmp_path: Path, database: str) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.close()


@pytest.fixture
def other(world: World) -> Iterator[VaultServices]:
    """Another process on the same database."""
    store = SqlVaultStore(world.stores.engine("vault"))
    made = open_vault(store, SecretKey(SEAL), world.clock, os.urandom)
    yield made
    made.journal.close()
    store.close()


class Unwrapping:
    """A call that succeeded, and was remembered."""

    def __init__(self, world: World) -> None:
        self.world = world
        view = world.ready()
        self.place = Place(VAULT, view.name, view.version)
        self.wrapped = operations.wrap_key(world.vault, world.identity(), self.place, "RSA-OAEP-256", bytes(32)).value
        assert self.again() == bytes(32)
        assert "1 of" in repr(world.vault.usables)

    def again(self) -> bytes:
        return operations.unwrap_key(self.world.vault, self.world.identity(), self.place, "RSA-OAEP-256", self.wrapped).value


def _revoked(other: VaultServices, world: World) -> None:
    access.revoke(other, world.call(), t.AccessRevoke(vault=VAULT, principal="mail", permissions=["unwrapKey"]))


def _disabled(other: VaultServices, world: World) -> None:
    keys.disable(other, world.call(), t.KeyVersionNamed(vault=VAULT, name="root"))


def _forbidden(other: VaultServices, world: World) -> None:
    keys.update(other, world.call(), t.KeyUpdate(vault=VAULT, name="root", ops=["wrapKey"]))


def _deleted(other: VaultServices, world: World) -> None:
    keys.delete(other, world.call(), t.KeyNamed(vault=VAULT, name="root"))


def _vault_deleted(other: VaultServices, world: World) -> None:
    vaults.delete(other, world.call(), t.VaultNamed(vault=VAULT))


def _cancelled(other: VaultServices, world: World) -> None:
    subscriptions.cancel(other, world.call(), t.SubscriptionNamed(name="Contoso EA 1"))


@pytest.mark.parametrize(
    ("change", "refusal"),
    [
        (_revoked, Forbidden),
        (_disabled, PreconditionFailed),
        (_forbidden, PreconditionFailed),
        (_deleted, NotFound),
        (_vault_deleted, NotFound),
        (_cancelled, PreconditionFailed),
    ],
)
def test_R_042_what_another_process_takes_away_is_gone_at_the_next_call(
    world: World, other: VaultServices, change: Callable[[VaultServices, World], None], refusal: type[KeysteadError]
) -> None:
    call = Unwrapping(world)
    change(other, world)
    with pytest.raises(refusal):
        call.again()


def test_R_038_a_client_that_another_process_deletes_is_refused_at_its_next_call(world: World, other: VaultServices) -> None:
    world.ready()
    made = clients.create(world.vault, world.call(), ClientCreate(name="reader"))
    found = tokens.authenticate(world.vault, Identity(client(made.id), TENANT), made.client_secret)
    token = tokens.issue(world.vault, found, RESOURCE, TENANT)
    assert tokens.verify(world.vault, token, RESOURCE) == tokens.verify(world.vault, token, RESOURCE)
    assert "1 of" in repr(world.vault.clients)
    clients.delete(other, world.call(), ClientNamed(client="reader"))
    with pytest.raises(Unauthenticated):
        tokens.verify(world.vault, token, RESOURCE)


def test_what_depends_on_the_time_is_decided_at_each_call(world: World) -> None:
    """R-029: nothing changes in the database when a key's time is up."""
    world.ready()
    place = Place(VAULT, "root", None)
    keys.update(world.vault, world.call(), t.KeyUpdate(vault=VAULT, name="root", expires=_in(world, 1)))
    operations.wrap_key(world.vault, world.identity(), place, "RSA-OAEP-256", bytes(32))
    before = world.store.stamp()
    world.clock.days(1)
    with pytest.raises(PreconditionFailed):
        operations.wrap_key(world.vault, world.identity(), place, "RSA-OAEP-256", bytes(32))
    assert world.store.stamp() == before


def _in(world: World, days: int) -> Any:
    from keystead.api.types.base import utc  # noqa: PLC0415 - only here

    return utc(world.clock.now() + days * DAY)


def test_every_writing_transaction_sets_another_stamp_and_the_log_does_not(world: World) -> None:
    """Whatever it writes, and if it is nothing: there is one gate, so that no use case can forget it."""
    world.ready()
    seen = set()
    for _ in range(3):
        with world.store.writing():
            pass
        with world.store.reading() as tx:
            assert tx.stamp() == world.store.stamp()
        seen.add(world.store.stamp())
    assert len(seen) == 3
    with world.store.reading() as tx:
        records = [record for _number, record in tx.log(TENANT, VAULT, None, 5)]
    before, logged = world.store.stamp(), len(world.log())
    with world.store.appending() as log:
        log.add_logs(records)
    assert world.store.stamp() == before
    assert len(world.log()) == logged + len(records)


def test_a_transaction_that_fails_leaves_the_stamp(world: World) -> None:
    world.ready()
    before = world.store.stamp()

    def write() -> None:
        with world.store.writing():
            raise NotFound("key_not_found", "it came to nothing")

    with pytest.raises(NotFound):
        write()
    assert world.store.stamp() == before


def test_a_new_database_has_no_stamp_and_nothing_is_remembered() -> None:
    seen: Seen[str] = Seen(2)
    seen.put(None, "a", "of no stamp")
    assert seen.get(None, "a") is None


def test_rows_of_another_stamp_are_forgotten_and_those_that_are_too_many() -> None:
    seen: Seen[str] = Seen(2)
    seen.put(1, "a", "old")
    assert seen.get(1, "a") == "old"
    assert seen.get(2, "a") is None
    seen.put(2, "b", "new")
    assert seen.get(1, "a") is None
    seen.put(2, "c", "newer")
    seen.put(2, "d", "newest")
    assert [seen.get(2, key) for key in "abcd"] == [None, None, None, "newest"]


class Counted:
    """A store whose stamp is the number of times it was asked."""

    def __init__(self) -> None:
        self.asked = 0

    def stamp(self) -> int:
        self.asked += 1
        return self.asked


def test_one_look_does_for_calls_that_had_come_before_it_and_for_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """R-042: a call that comes after a look may come after a change that the look did not see."""
    store: Any = Counted()
    now = [10.0]
    monkeypatch.setattr("keystead.vault.seen.monotonic", lambda: now[0])
    stamps = Stamps(store)
    assert stamps.current(9.0) == 1
    assert stamps.current(9.9) == 1
    now[0] = 11.0
    assert stamps.current(10.0) == 2  # it came at the very time of the first look: nobody knows which was first
    assert stamps.current(10.5) == 2
    assert stamps.current() == 3
    assert stamps.current(12.0) == 4


def test_a_call_made_with_a_token_is_decided_by_the_moment_the_token_was_looked_at(world: World, other: VaultServices) -> None:
    """One moment for the caller and the caller's rights; the next call has another one."""
    call = Unwrapping(world)
    moment = world.identity()._replace(stamp=world.store.stamp())
    _revoked(other, world)
    with pytest.raises(Forbidden):
        operations.unwrap_key(world.vault, moment._replace(stamp=world.store.stamp()), call.place, "RSA-OAEP-256", call.wrapped)


def test_upkeep_that_finds_nothing_leaves_calls_as_they_are(world: World) -> None:
    call = Unwrapping(world)
    management.upkeep(world.vault)
    assert call.again() == bytes(32)
    assert ALEX not in repr(world.vault.usables)
