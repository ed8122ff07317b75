"""Callers who want more than their part of a vault server: keys in the making, large bodies, large backups. Others must not notice."""

from __future__ import annotations

import os
import ssl
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from keystead.core.vaults.access import Permission
from keystead.core.vaults.backup import MAX_BLOB
from keystead.frontends.vault_http.routes import LARGE, SMALL
from keystead.vault.keys import seal_private
from keystead.vault.loaded import open_private
from keystead.vault.material import generate
from support.tokens import number
from vault.world import OTHER_TENANT, TENANT
from vault_http.face import VAULT, Face, faced

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

    from keystead.adapters.sql.vault_store import SqlVaultStore
    from keystead.core.vaults.usage import KeyKind
    from keystead.ports.vault_store import VaultWriter
    from keystead.vault.material import PrivateKey

pytestmark = pytest.mark.xdist_group("vault-attacks-resources")


@pytest.fixture(scope="module")
def face(tmp_path_factory: pytest.TempPathFactory, database: str) -> Iterator[Face]:
    with faced(tmp_path_factory.mktemp("resources")) as made:
        made.new_key("there", kty="EC")
        yield made


def copies(face: Face, name: str, count: int) -> None:
    """More versions of a key, as rotating it for years would make them; with the same private key, which takes less time."""
    vault = face.world.vault
    with vault.store.writing() as tx:
        found = tx.vault(TENANT, VAULT)
        assert found is not None
        current = tx.key_version(TENANT, found.id, name, None)
        assert current is not None
        private = open_private(vault, tx, found, current)
        for ordinal in range(2, count + 2):
            made = replace(current, version=os.urandom(16).hex(), ordinal=ordinal)
            tx.add_key_version(made, seal_private(vault, found, name, made.version, private))


def test_a_storm_of_keys_in_the_making_holds_up_nobody_who_uses_theirs(face: Face, monkeypatch: pytest.MonkeyPatch) -> None:
    """More keys are asked for at once than the server has threads; while all of them are being made, other calls are answered."""
    begun, let_go = threading.Semaphore(0), threading.Event()

    def slow(kind: KeyKind) -> PrivateKey:
        begun.release()
        assert let_go.wait(240)
        return generate(kind)

    monkeypatch.setattr("keystead.vault.keys.generate", slow)
    with ThreadPoolExecutor(8) as callers:
        storm = [callers.submit(face.ask, "POST", f"/keys/storm-{number}/create", {"kty": "EC"}) for number in range(8)]
        try:
            assert begun.acquire(timeout=60)
            answers = [
                face.http.get(f"{face.url}/keys/there", params={"api-version": "7.6"}, headers=_bearer(face), timeout=60) for _ in range(3)
            ]
            assert [one.status_code for one in answers] == [200] * 3
        finally:
            let_go.set()
        assert [one.result().status for one in storm] == [200] * 8


def _bearer(face: Face) -> dict[str, str]:
    return {"authorization": f"Bearer {face.token(face.admin)}"}


def test_R_058_R_061_R_063_what_can_be_backed_up_can_be_restored(face: Face) -> None:
    """A key with 500 past versions of the largest kind, with tags: its backup goes back in by the same way."""
    face.ask("POST", "/keys/old/create", {"kty": "RSA", "key_size": 4096, "tags": {f"tag-{number}": "x" * 100 for number in range(15)}})
    copies(face, "old", 500)
    backup = face.ask("POST", "/keys/old/backup")
    assert backup.status == 200
    assert 2_000_000 < len(backup.raw) < LARGE
    assert [face.ask("DELETE", "/keys/old").status, face.ask("DELETE", "/deletedkeys/old").status] == [200, 204]
    assert face.ask("POST", "/keys/restore", backup.body).status == 200
    found = face.world.store
    with found.reading() as tx:
        vault = tx.vault(TENANT, VAULT)
        assert vault is not None
        assert len(tx.key_versions(TENANT, vault.id, "old")) == 501


def test_R_058_a_backup_that_could_not_be_restored_is_not_made(face: Face) -> None:
    tags = {f"{number:02}{'t' * 200}": "\x01" * 256 for number in range(15)}
    face.ask("POST", "/keys/wide/create", {"kty": "EC", "tags": tags})
    copies(face, "wide", 500)
    refused = face.ask("POST", "/keys/wide/backup")
    assert (refused.status, refused.code) == (403, "Forbidden")
    assert str(MAX_BLOB) in refused.body["error"]["message"]
    assert face.world.log()[-1].result_signature == "backup_too_large"


@pytest.mark.parametrize("whose", ["nobody", "reader", "stranger"])
def test_a_large_body_is_not_read_from_whoever_may_not_restore(face: Face, whose: str) -> None:
    """Megabytes for each of a thousand connections: only from those whom the vault's owner has let restore keys."""
    held = frozenset(Permission) - {Permission.RESTORE} if whose == "reader" else frozenset()
    who = face.client_of(f"large-{whose}", held, tenant=OTHER_TENANT if whose == "stranger" else TENANT)
    body = (bytes(SMALL) for _ in range(LARGE // SMALL - 1))
    before = len(face.world.log())
    headers = {"authorization": f"Bearer {face.token(who)}", "content-type": "application/json"}
    with httpx.Client(verify=ssl.create_default_context(cafile=face.ca_file)) as http:
        answer = http.post(f"{face.url}/keys/restore?api-version=7.6", content=body, headers=headers)
    assert answer.status_code == (401 if whose == "stranger" else 403)
    assert answer.headers["connection"] == "close"
    added = face.world.log()[before:]
    signature = "token_tenant_wrong" if whose == "stranger" else "vault_access_denied"
    assert [(one.operation_name, one.result_signature) for one in added] == [("KeyRestore", signature)]


def test_callers_who_are_refused_do_not_hold_the_database(face: Face, monkeypatch: pytest.MonkeyPatch) -> None:
    """Everybody who writes waits for one lock. A caller without any permission takes it for the record alone, with others' records."""
    nobody = face.token(face.client_of("refused-often", frozenset()))
    store = type(face.world.store)
    begin, taken = store.writing, []

    def counted(self: SqlVaultStore) -> AbstractContextManager[VaultWriter]:
        taken.append(1)
        return begin(self)

    before = len(face.world.log())
    monkeypatch.setattr(store, "writing", counted)
    calls = [
        ("GET", "/keys"),
        ("GET", "/keys/there"),
        ("DELETE", "/keys/there"),
        ("POST", "/keys/x/create"),
        ("POST", "/keys/there/backup"),
    ] * 10
    with ThreadPoolExecutor(8) as callers:
        answers = [callers.submit(face.ask, method, path, {"kty": "RSA"}, token=nobody) for method, path in calls]
        assert {one.result().status for one in answers} == {403}
    changes = sum(method == "DELETE" for method, _path in calls)  # looked at inside their transaction, which is then rolled back
    assert len(taken) <= len(calls) + changes
    assert len(face.world.log()) == before + len(calls)


def brought(bits: int) -> dict[str, str]:
    """A JSON Web Key of RSA."""
    numbers = rsa.generate_private_key(65_537, bits).private_numbers()
    public = numbers.public_numbers
    members = {
        "n": public.n,
        "e": public.e,
        "d": numbers.d,
        "p": numbers.p,
        "q": numbers.q,
        "dp": numbers.dmp1,
        "dq": numbers.dmq1,
        "qi": numbers.iqmp,
    }
    return {"kty": "RSA", **{name: number(value) for name, value in members.items()}}


def test_R_066_keys_that_are_none_count_before_anybody_looks_at_them(tmp_path: Path) -> None:
    """Testing primes stops the whole process; whoever sends what only looks like a key must not do that for nothing."""
    key = brought(2_048)
    with faced(tmp_path, rate_percent=100) as face:
        replies = [face.ask("PUT", "/keys/none", {"key": {**key, "qi": key["dp"]}}) for _ in range(12)]
        assert [reply.status for reply in replies] == [400] * 10 + [429] * 2
        assert face.ask("PUT", "/keys/none", {"key": key, "Hsm": True}).status == 200


def test_R_066_keys_from_outside_take_a_part_of_the_time_of_all_whosoever_they_are(tmp_path: Path) -> None:
    """Vaults have budgets of their own, and anybody may make more vaults: what stops the process is counted over all of them."""
    key = brought(4_096)
    with faced(tmp_path, rate_percent=100) as face:
        replies = [face.ask("PUT", "/keys/large", {"key": key}) for _ in range(8)]
        assert [reply.status for reply in replies] == [200] * 6 + [429] * 2
        assert int(replies[-1].headers["retry-after"]) >= 1
        face.world.clock.sleep(11_000)
        assert face.ask("PUT", "/keys/large", {"key": key}).status == 200
