"""Searching the log of a vault (R-067, R-068)."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from keystead.api.types import vaults as t
from keystead.api.types.base import utc
from keystead.core.errors import Forbidden, InvalidRequest, KeysteadError
from keystead.core.vaults.access import client, person
from keystead.ports.vault_store import LogSearch, VaultClient
from keystead.vault import keys, operations, vaults
from keystead.vault.operations import Place
from vault import walk
from vault.world import ALEX, KIM, START, TENANT

if TYPE_CHECKING:
    from keystead.ports.vault_store import LogRecord
    from vault.world import World

HOUR = 3_600_000
PROGRAM = "5d3c1f1e-9a0b-4c2d-8e7f-1a2b3c4d5e6f"


def search(world: World, **wanted: object) -> list[t.VaultLogEntry]:
    return vaults.log(world.vault, world.call(), t.VaultLogQuery(vault=walk.VAULT, **wanted))  # type: ignore[arg-type]


def names(found: list[t.VaultLogEntry]) -> list[str]:
    return [one.operation_name for one in found]


@pytest.fixture
def busy(world: World) -> World:
    """One hour between the acts: a key is made, two wrap, one of them in vain."""
    world.ready()
    world.clock.sleep(HOUR)
    place = Place(walk.VAULT, "root", None)
    operations.wrap_key(world.vault, world.identity(), place, "RSA-OAEP-256", bytes(32))
    world.clock.sleep(HOUR)
    with pytest.raises(KeysteadError):
        operations.wrap_key(world.vault, world.identity()._replace(principal=person(KIM)), place, "RSA-OAEP-256", bytes(32))
    with world.store.writing() as tx:
        tx.add_client(VaultClient(PROGRAM, TENANT, "Backup", START, ALEX))
    with pytest.raises(KeysteadError):
        keys.get_key(world.vault, world.identity()._replace(principal=client(PROGRAM)), walk.VAULT, "root", None)
    return world


def test_by_operation_result_and_principal(busy: World) -> None:
    """R-067: who did what, and who was refused."""
    assert names(search(busy, operation="KeyWrap")) == ["KeyWrap", "KeyWrap"]
    assert [one.identity.upn for one in search(busy, operation="KeyWrap", result="failure")] == [KIM]
    assert [one.identity.application for one in search(busy, operation="KeyWrap", result="Success")] == ["mail"]
    assert names(search(busy, result="vault_access_denied")) == ["KeyWrap", "KeyGet"]
    assert names(search(busy, principal=KIM.upper())) == ["KeyWrap"]
    assert names(search(busy, principal="mail")) == ["KeyWrap"]
    assert names(search(busy, principal="00000002-0000-0ff1-ce00-000000000000")) == ["KeyWrap"]
    for named in ("backup", PROGRAM):
        (found,) = search(busy, principal=named)
        assert (found.operation_name, found.identity.application, found.identity.application_id) == ("KeyGet", "Backup", PROGRAM)
    assert names(search(busy, operation="KeyCreate", principal=ALEX)) == ["KeyCreate"]
    assert search(busy, operation="KeyPurge") == []
    assert search(busy, principal="nobody@contoso.example") == []


def test_by_time_the_end_is_not_included(busy: World) -> None:
    """R-067."""
    first, second = utc(START + HOUR), utc(START + 2 * HOUR)
    assert names(search(busy, start=first, end=second)) == ["KeyWrap"]
    assert names(search(busy, end=first))[-1] == "KeyCreate"
    assert names(search(busy, start=second, operation="KeyWrap")) == ["KeyWrap"]


def test_pages_of_a_search_go_on_where_the_last_one_ended(busy: World) -> None:
    """R-067: the last records by default; after a number, the next ones."""
    for _ in range(5):
        keys.show(busy.vault, busy.call(), walk.VERSION)
    everything = search(busy, operation="KeyGet")
    assert len(everything) == 6
    assert search(busy, operation="KeyGet", limit=2) == everything[-2:]
    assert search(busy, operation="KeyGet", limit=2, after=everything[0].number) == everything[1:3]
    assert search(busy, operation="KeyGet", after=everything[-1].number) == []


def test_a_search_that_cannot_be_is_refused_and_recorded(busy: World) -> None:
    """R-067."""
    for wanted in ({"start": utc(START), "end": utc(START)}, {"operation": "K" * 321}, {"principal": "p" * 321}, {"result": "r" * 321}):
        with pytest.raises(InvalidRequest) as refused:
            search(busy, **wanted)
        assert refused.value.code == "log_search_invalid"
        assert busy.log()[-1].result_signature == "log_search_invalid"
    assert search(busy, operation="x' OR '1'='1") == []


def test_the_log_is_searched_by_who_may_see_the_vault(busy: World) -> None:
    """R-037."""
    with pytest.raises(Forbidden):
        vaults.log(busy.vault, busy.call(KIM), t.VaultLogQuery(vault=walk.VAULT, operation="KeyWrap"))


def test_every_search_finds_what_a_look_at_all_records_finds(busy: World) -> None:
    """R-067: the conditions that have an index of their own, and those that have none."""
    busy.log()

    def of(record: LogRecord, wanted: LogSearch) -> bool:
        return (
            wanted.operation in {"", record.operation_name}
            and wanted.result in {"", record.result_type, record.result_signature}
            and wanted.principal in {"", record.identity_name, record.identity_application_id}
            and (wanted.start is None or record.time >= wanted.start)
            and (wanted.end is None or record.time < wanted.end)
        )

    with busy.store.reading() as tx:
        records = tx.log(TENANT, walk.VAULT, None, 1_000)
        for operation in ("", "KeyWrap", "KeyCreate", "VaultPut", "NoSuch"):
            for result in ("", "Success", "Failure", "OK", "vault_access_denied"):
                for principal in ("", ALEX, "mail", PROGRAM):
                    for start, end in ((None, None), (START + 1, None), (None, START + HOUR)):
                        wanted = LogSearch(operation, result, principal, start, end)
                        expected = [(number, record) for number, record in records if of(record, wanted)]
                        assert tx.log(TENANT, walk.VAULT, None, 1_000, wanted) == expected, wanted
                        assert tx.log(TENANT, walk.VAULT, 0, 1_000, wanted) == expected, wanted


def test_what_is_rare_is_found_among_much_without_looking_at_all_of_it(world: World) -> None:
    """R-067: a purge or a refusal among 200,000 unwraps, by an index."""
    world.ready()
    with world.store.reading() as tx:
        (_, record) = tx.log(TENANT, walk.VAULT, None, 1)[0]
    routine = record._replace(operation_name="KeyUnwrap")
    with world.store.writing() as tx:
        tx.add_log(record._replace(operation_name="KeyPurge"))
        tx.add_log(routine._replace(result_type="Failure", result_signature="key_disabled"))
        for _ in range(200):
            tx.add_logs([routine] * 1_000)
    indexed, scanned = [], []
    with world.store.reading() as tx:
        for _ in range(10):
            began = time.perf_counter()
            (purge,) = tx.log(TENANT, walk.VAULT, None, 10, LogSearch(operation="KeyPurge"))
            (refused,) = tx.log(TENANT, walk.VAULT, None, 10, LogSearch(operation="KeyUnwrap", result="Failure"))
            indexed.append(time.perf_counter() - began)
            began = time.perf_counter()
            assert tx.log(TENANT, walk.VAULT, None, 10, LogSearch(principal="nobody@contoso.example")) == []
            scanned.append(time.perf_counter() - began)
    assert (purge[1].operation_name, refused[1].result_signature) == ("KeyPurge", "key_disabled")
    assert min(indexed) < min(scanned) / 4, (indexed, scanned)
