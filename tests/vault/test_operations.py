"""The six cryptographic calls: who may, when, with which key, and what the log says of it."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from keystead.api.types import vaults as t
from keystead.api.types.base import utc
from keystead.core.errors import IntegrityFailure, KeysteadError, Throttled
from keystead.core.vaults.access import PrincipalKind
from keystead.core.vaults.algorithms import Encryption, Signature
from keystead.core.vaults.usage import KeyOperation
from keystead.vault import access, keys, operations, vaults
from keystead.vault.operations import Place
from keystead.vault.services import VaultSettings
from vault.world import ALEX, OTHER_TENANT, STRANGER, World

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

V = "ContosoVault1"
ROOT = Place(V, "root", None)
SECRET = bytes(range(32))
DIGEST = hashlib.sha256(b"message").digest()
ALL = ",".join(KeyOperation)


@pytest.fixture
def ready(world: World) -> World:
    """A world whose mail application may do everything with the key `root`, and with `curve`."""
    world.ready()
    world.grant(ALL, principal="mail")
    world.new_key("curve", kty="EC", curve="P-256")
    return world


def code_of(attempt: Callable[[], object]) -> str:
    try:
        attempt()
    except KeysteadError as refused:
        return refused.code
    return ""


def calls(world: World, place: Place = ROOT) -> dict[KeyOperation, Callable[[], object]]:
    """One good call of each operation with an RSA key, by the mail application."""
    vault, mail = world.vault, world.identity()
    closed = operations.encrypt(vault, mail, place, Encryption.RSA_OAEP_256, SECRET).value
    signature = operations.sign(vault, mail, place, Signature.PS256, DIGEST).value
    return {
        KeyOperation.ENCRYPT: lambda: operations.encrypt(vault, mail, place, "RSA-OAEP", SECRET).version.version,
        KeyOperation.DECRYPT: lambda: operations.decrypt(vault, mail, place, "RSA-OAEP-256", closed).value,
        KeyOperation.WRAP_KEY: lambda: operations.wrap_key(vault, mail, place, "RSA1_5", SECRET).version.version,
        KeyOperation.UNWRAP_KEY: lambda: operations.unwrap_key(vault, mail, place, "RSA-OAEP-256", closed).value,
        KeyOperation.SIGN: lambda: operations.sign(vault, mail, place, "RS256", DIGEST).version.version,
        KeyOperation.VERIFY: lambda: operations.verify(vault, mail, place, "PS256", DIGEST, signature),
    }


def test_every_operation_answers(ready: World) -> None:
    """R-026: what was closed opens, what was signed is valid, and the answer names the version that was used."""
    version = keys.show(ready.vault, ready.call(), t.KeyVersionNamed(vault=V, name="root")).version
    answers = {operation: call() for operation, call in calls(ready).items()}
    assert answers == {
        KeyOperation.ENCRYPT: version,
        KeyOperation.DECRYPT: SECRET,
        KeyOperation.WRAP_KEY: version,
        KeyOperation.UNWRAP_KEY: SECRET,
        KeyOperation.SIGN: version,
        KeyOperation.VERIFY: True,
    }


def test_an_ec_key_signs_and_does_nothing_else(ready: World) -> None:
    """R-024."""
    vault, mail, curve = ready.vault, ready.identity(), Place(V, "CURVE", None)
    done = operations.sign(vault, mail, curve, "ES256", DIGEST)
    assert len(done.value) == 64
    assert operations.verify(vault, mail, curve, "ES256", DIGEST, done.value)
    assert not operations.verify(vault, mail, curve, "ES256", hashlib.sha256(b"another").digest(), done.value)
    assert not operations.verify(vault, mail, curve, "ES256", DIGEST, done.value[:-1])
    assert code_of(lambda: operations.sign(vault, mail, curve, "RS256", DIGEST)) == "algorithm_key_mismatch"
    assert code_of(lambda: operations.wrap_key(vault, mail, curve, "RSA-OAEP", SECRET)) == "key_type_cannot_wrap"
    assert code_of(lambda: operations.encrypt(vault, mail, curve, "RSA-OAEP", SECRET)) == "key_operation_not_allowed"


def test_what_does_not_fit_is_refused(ready: World) -> None:
    vault, mail = ready.vault, ready.identity()
    for attempt, code in (
        (lambda: operations.sign(vault, mail, ROOT, "ES256", DIGEST), "algorithm_key_mismatch"),
        (lambda: operations.sign(vault, mail, ROOT, "RS256", DIGEST + b"x"), "digest_invalid"),
        (lambda: operations.sign(vault, mail, ROOT, "RS384", DIGEST), "digest_invalid"),
        (lambda: operations.verify(vault, mail, ROOT, "RS256", b"", b"x"), "digest_invalid"),
        (lambda: operations.verify(vault, mail, ROOT, "RS256", DIGEST, b""), "signature_invalid"),
        (lambda: operations.verify(vault, mail, ROOT, "RS256", DIGEST, bytes(5_000)), "signature_invalid"),
        (lambda: operations.sign(vault, mail, ROOT, "HS256", DIGEST), "algorithm_not_supported"),
        (lambda: operations.encrypt(vault, mail, ROOT, "RSA-OAEP-256", b""), "value_invalid"),
        (lambda: operations.encrypt(vault, mail, ROOT, "RSA-OAEP-256", bytes(191)), "value_invalid"),
        (lambda: operations.decrypt(vault, mail, ROOT, "A128GCM", SECRET), "algorithm_not_supported"),
        (lambda: operations.decrypt(vault, mail, ROOT, "RSA-OAEP", SECRET), "unwrap_failed"),
        (lambda: operations.encrypt(vault, mail, Place(V, "nothing", None), "RSA-OAEP", SECRET), "key_not_found"),
        (lambda: operations.encrypt(vault, mail, Place(V, "root", "0" * 32), "RSA-OAEP", SECRET), "key_not_found"),
        (lambda: operations.encrypt(vault, mail, Place("nowhere", "root", None), "RSA-OAEP", SECRET), "vault_not_found"),
    ):
        assert code_of(attempt) == code


def test_each_operation_needs_its_own_permission_on_the_next_call(ready: World) -> None:
    """R-037, R-042."""
    good = calls(ready)
    for operation, call in good.items():
        access.revoke(ready.vault, ready.call(), t.AccessRevoke(vault=V, principal="mail", permissions=[operation]))
        assert code_of(call) == "vault_access_denied"
        assert {code_of(other) for name, other in good.items() if name is not operation} == {""}
        ready.grant(operation, principal="mail")
        assert code_of(call) == ""


def test_without_the_permission_nothing_is_told_of_keys(ready: World) -> None:
    """R-037: a key that is there, one that is not and one that is deleted get the same answer."""
    keys.delete(ready.vault, ready.call(), t.KeyNamed(vault=V, name="curve"))
    files = ready.identity("files")
    texts = set()
    for name in ("root", "curve", "nothing"):
        with pytest.raises(KeysteadError) as refused:
            operations.sign(ready.vault, files, Place(V, name, None), "no algorithm", b"")
        texts.add(str(refused.value))
    assert len(texts) == 1


def test_attributes_decide_over_every_operation(ready: World) -> None:
    """R-028, R-029, R-030."""
    good = calls(ready)
    closing = {KeyOperation.ENCRYPT, KeyOperation.WRAP_KEY, KeyOperation.SIGN}
    now = utc(ready.clock.now())
    keys.update(ready.vault, ready.call(), t.KeyUpdate(vault=V, name="root", expires=now))
    assert {name: code_of(call) for name, call in good.items()} == {name: "key_expired" if name in closing else "" for name in good}
    later = t.KeyUpdate(vault=V, name="root", not_before=now + timedelta(days=1), expires=now + timedelta(days=2))
    keys.update(ready.vault, ready.call(), later)
    assert {name: code_of(call) for name, call in good.items()} == {name: "key_not_yet_valid" if name in closing else "" for name in good}
    ready.clock.days(1)
    for operation in KeyOperation:
        keys.update(ready.vault, ready.call(), t.KeyUpdate(vault=V, name="root", ops=[operation]))
        assert {name: code_of(call) for name, call in good.items()} == {
            name: "" if name is operation else "key_operation_not_allowed" for name in good
        }
    keys.disable(ready.vault, ready.call(), t.KeyVersionNamed(vault=V, name="root"))
    assert {code_of(call) for call in good.values()} == {"key_disabled"}


def test_deleted_keys_and_vaults_do_nothing(ready: World) -> None:
    """R-048: on the next call, though the key is still loaded."""
    good = calls(ready)
    keys.delete(ready.vault, ready.call(), t.KeyNamed(vault=V, name="root"))
    assert {code_of(call) for call in good.values()} == {"key_deleted"}
    ready.grant("purge", upn=ALEX)
    keys.purge(ready.vault, ready.call(), t.KeyNamed(vault=V, name="root"))
    assert {code_of(call) for call in good.values()} == {"key_not_found"}
    vaults.delete(ready.vault, ready.call(), t.VaultNamed(vault=V))
    assert {code_of(call) for call in good.values()} == {"vault_deleted"}
    ready.clock.days(90)
    assert {code_of(call) for call in good.values()} == {"vault_not_found"}


def test_older_versions_open_and_the_current_one_closes(ready: World) -> None:
    """R-020, R-022, R-027."""
    vault, mail = ready.vault, ready.identity()
    first = operations.wrap_key(vault, mail, ROOT, "RSA-OAEP-256", SECRET)
    second = keys.rotate(vault, ready.call(), t.KeyNamed(vault=V, name="root"))
    assert operations.wrap_key(vault, mail, ROOT, "RSA-OAEP-256", SECRET).version.version == second.version
    older = Place(V.upper(), "Root", first.version.version.upper())
    assert operations.unwrap_key(vault, mail, older, "RSA-OAEP-256", first.value).value == SECRET
    with pytest.raises(IntegrityFailure):
        operations.unwrap_key(vault, mail, ROOT, "RSA-OAEP-256", first.value)


def test_every_call_is_on_the_log_under_its_name(ready: World) -> None:
    """R-067, R-068."""
    before = len(ready.log())
    calls(ready)
    good = calls(ready, Place(V, "root", None))
    for call in good.values():
        call()
    access.revoke(ready.vault, ready.call(), t.AccessRevoke(vault=V, principal="mail"))
    for call in good.values():
        assert code_of(call) == "vault_access_denied"
    found = [entry for entry in ready.log()[before:] if not entry.operation_name.startswith("Vault")]
    names = ["KeyEncrypt", "KeyDecrypt", "KeyWrap", "KeyUnwrap", "KeySign", "KeyVerify"]
    assert [entry.operation_name for entry in found] == ["KeyEncrypt", "KeySign"] * 2 + names * 2
    assert [entry.result_type for entry in found] == ["Success"] * 10 + ["Failure"] * 6
    assert {entry.properties.http_status_code for entry in found[10:]} == {403}
    version = keys.show(ready.vault, ready.call(), t.KeyVersionNamed(vault=V, name="root")).version
    assert {entry.properties.id.rpartition("/")[2] for entry in found[:10]} == {version}


def test_a_refusal_in_another_tenants_vault_is_on_its_owners_log(ready: World) -> None:
    strange = ready.identity("mail", OTHER_TENANT)
    before = len(ready.log())
    assert code_of(lambda: operations.sign(ready.vault, strange, ROOT, "RS256", DIGEST)) == "vault_another_tenant"
    (entry,) = ready.log()[before:]
    assert (entry.operation_name, entry.result_signature) == ("KeySign", "vault_another_tenant")


def test_a_person_of_another_tenant_finds_no_vault(ready: World) -> None:
    stranger = replace(ready.identity().principal, kind=PrincipalKind.PERSON, name=STRANGER)
    other = ready.identity("mail", OTHER_TENANT)._replace(principal=stranger)
    assert code_of(lambda: operations.sign(ready.vault, other, ROOT, "RS256", DIGEST)) == "vault_not_found"


def test_in_a_vault_of_roles_the_role_decides(world: World) -> None:
    """R-044."""
    world.new_vault(rbac=True)
    access.grant(world.vault, world.call(), t.AccessGrant(vault=V, upn=ALEX, roles=["crypto-officer"]))
    world.new_key()
    access.grant(world.vault, world.call(), t.AccessGrant(vault=V, principal="mail", roles=["crypto-service-encryption-user"]))
    wrapped = operations.wrap_key(world.vault, world.identity(), ROOT, "RSA-OAEP", SECRET).value
    assert operations.unwrap_key(world.vault, world.identity(), ROOT, "RSA-OAEP", wrapped).value == SECRET
    assert code_of(lambda: operations.sign(world.vault, world.identity(), ROOT, "RS256", DIGEST)) == "vault_access_denied"


def test_calls_over_the_network_are_counted_and_those_inside_are_not(tmp_path: Path) -> None:
    """R-066: one in a hundred of the published 2,000 calls in ten seconds."""
    world = World(tmp_path, VaultSettings(rate_percent=1))
    try:
        world.ready()
        world.grant(ALL, principal="mail")
        inside = world.identity()
        outside = inside._replace(client_ip="192.0.2.7", request_uri="https://contosovault1.vault.example/keys/root/sign")
        for _ in range(20):
            operations.sign(world.vault, outside, ROOT, "RS256", DIGEST)
        with pytest.raises(Throttled) as refused:
            operations.sign(world.vault, outside, ROOT, "RS256", DIGEST)
        assert 0 < refused.value.retry_after <= 11_000
        assert world.log()[-1].properties.http_status_code == 429
        assert operations.sign(world.vault, inside, ROOT, "RS256", DIGEST).value
        world.clock.sleep(11_000)
        assert operations.sign(world.vault, outside, ROOT, "RS256", DIGEST).value
    finally:
        world.close()


def test_results_are_in_no_text(ready: World) -> None:
    done = operations.decrypt(
        ready.vault, ready.identity(), ROOT, "RSA-OAEP", operations.encrypt(ready.vault, ready.identity(), ROOT, "RSA-OAEP", SECRET).value
    )
    assert done.value == SECRET
    assert repr(SECRET) not in repr(done)
    assert not [content for content in ready.files() if SECRET in content]
