"""Faults on demand, and what a lost vault database looks like to the service."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from keystead.adapters.vaults.embedded import EmbeddedVaults
from keystead.adapters.vaults.faults import Fault, FaultyVaults, present_fault, set_fault
from keystead.core.errors import InvalidRequest, Unavailable
from keystead.core.keys.outcome import OutcomeClass
from keystead.ports.vaults import VaultFailure
from keystead.vault.journal import Journal
from vault.world import TENANT, World

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

    from keystead.ports.vault_store import VaultReader, VaultWriter

VALUE = bytes(range(32))


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.close()


@pytest.mark.parametrize(
    ("kind", "outcome", "waited_ms"),
    [
        ("timeout", "system-error (timeout)", 700),
        ("connection-refused", "system-error (connection-refused)", 0),
        ("dns", "system-error (dns)", 0),
        ("tls", "system-error (tls)", 0),
        ("http-500", "system-error (http-500)", 0),
        ("http-429", "system-error (http-429)", 0),
        ("http-401", "system-error (http-401)", 0),
        ("http-403", "denied (http-403 AccessDenied)", 0),
        ("firewall", "denied (http-403 ForbiddenByFirewall)", 0),
    ],
)
def test_each_fault_fails_as_its_class(world: World, tmp_path: Path, kind: str, outcome: str, waited_ms: int) -> None:
    """R-043: a firewall refusal and a policy refusal have different reasons."""
    key = world.ready()
    folder = tmp_path / "faults"
    service = FaultyVaults(EmbeddedVaults(world.vault), folder, world.clock, timeout_ms=700)
    wrapped = service.wrap(TENANT, "mail", key.id, VALUE)
    set_fault(folder, "CONTOSOVAULT1", kind)
    other_process = FaultyVaults(EmbeddedVaults(world.vault), folder, world.clock, timeout_ms=700)
    for call in (
        lambda: service.unwrap(TENANT, "mail", wrapped.key_uri, wrapped.value),
        lambda: service.wrap(TENANT, "mail", key.id.replace("contosovault1", "ContosoVault1"), VALUE),
        lambda: other_process.key_facts(TENANT, "mail", key.id),
    ):
        before = world.clock.now()
        with pytest.raises(VaultFailure) as failed:
            call()
        assert (str(failed.value.outcome), world.clock.now() - before) == (outcome, waited_ms)
    assert service.subscription_facts(TENANT, "Contoso EA 1").state == "Enabled"
    set_fault(folder, "ContosoVault1", "none")
    assert service.unwrap(TENANT, "mail", wrapped.key_uri, wrapped.value) == VALUE


def test_slow_answers_late_and_wrong_bytes_answers_wrong(world: World, tmp_path: Path) -> None:
    key = world.ready()
    service = FaultyVaults(EmbeddedVaults(world.vault), tmp_path, world.clock)
    wrapped = service.wrap(TENANT, "mail", key.id, VALUE)
    set_fault(tmp_path, "ContosoVault1", "slow")
    before = world.clock.now()
    assert service.unwrap(TENANT, "mail", wrapped.key_uri, wrapped.value) == VALUE
    assert world.clock.now() - before == 1_000
    set_fault(tmp_path, "ContosoVault1", "wrong-bytes")
    wrong = service.unwrap(TENANT, "mail", wrapped.key_uri, wrapped.value)
    assert len(wrong) == len(VALUE)
    assert wrong != VALUE


def test_a_fault_hits_its_vault_only(world: World, tmp_path: Path) -> None:
    key = world.ready()
    service = FaultyVaults(EmbeddedVaults(world.vault), tmp_path, world.clock)
    set_fault(tmp_path, "ContosoVault2", "dns")
    assert service.key_facts(TENANT, "mail", key.id).key_uri == key.id
    assert present_fault(tmp_path, "CONTOSOVAULT2") is Fault.DNS
    set_fault(tmp_path, "contosovault2", "none")
    set_fault(tmp_path, "contosovault2", "none")
    assert present_fault(tmp_path, "contosovault2") is Fault.NONE


@pytest.mark.parametrize(("vault", "kind"), [("ContosoVault1", "earthquake"), ("../outside", "dns"), ("", "dns"), ("a/b", "none")])
def test_only_known_faults_of_vault_names_are_set(tmp_path: Path, vault: str, kind: str) -> None:
    with pytest.raises(InvalidRequest):
        set_fault(tmp_path / "faults", vault, kind)
    assert list(tmp_path.iterdir()) == []


class LostStore:
    """A store whose database is gone."""

    def reading(self) -> AbstractContextManager[VaultReader]:
        raise Unavailable("database_unavailable", "the disk is gone")

    def writing(self) -> AbstractContextManager[VaultWriter]:
        raise Unavailable("database_unavailable", "the disk is gone")


class Unwritable(LostStore):
    """A store that reads but takes no record: a full disk."""

    def __init__(self, world: World) -> None:
        self._store = world.store

    def reading(self) -> AbstractContextManager[VaultReader]:
        return self._store.reading()


def test_without_its_database_or_its_log_the_vault_answers_nothing(world: World) -> None:
    """R-067: no answer leaves without its record; the service sees a system error, not a denial."""
    key = world.ready()
    wrapped = EmbeddedVaults(world.vault).wrap(TENANT, "mail", key.id, VALUE)
    stores: list[Any] = [LostStore(), Unwritable(world)]
    for store in stores:
        service = EmbeddedVaults(replace(world.vault, store=store, journal=Journal(store)))
        with pytest.raises(VaultFailure) as failed:
            service.unwrap(TENANT, "mail", wrapped.key_uri, wrapped.value)
        assert failed.value.outcome.kind is OutcomeClass.SYSTEM_ERROR
