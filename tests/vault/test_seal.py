"""The seal of a vault database: what opens it, and rotating it (docs/spec/vault-seal.md)."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from keystead.api.types import vaults as t
from keystead.core.errors import Conflict, IntegrityFailure, KeysteadError, NotFound, Unavailable
from keystead.core.secret import SecretKey
from keystead.core.vaults.seal import (
    VaultSeal,
    length_prefixed,
    private_key_context,
    release_key_context,
    token_key_context,
)
from keystead.core.vaults.seal_record import Passphrase
from keystead.ports.vault_store import ReleaseKey, StoredSeal, TokenKey
from keystead.vault import backup, crypto, keys, sealing
from keystead.vault.services import open_vault
from vault.world import SEAL, TENANT

if TYPE_CHECKING:
    from keystead.core.vaults.seal_record import Seal
    from keystead.vault.services import VaultServices
    from vault.world import World

FIRST, SECOND = SecretKey(SEAL), SecretKey(bytes(32))
PASSPHRASE = "correct horse battery staple"
V = "ContosoVault1"


def reopened(world: World, seal: Seal) -> VaultServices:
    """Another process, with a seal."""
    return open_vault(world.store, seal, world.clock, os.urandom)


def rotated(world: World, old: Seal, new: Seal) -> sealing.SealShown:
    return sealing.rotate(world.store, old, new, world.clock, os.urandom)


def code_of(world: World, seal: Seal) -> str:
    with pytest.raises(KeysteadError) as refused:
        reopened(world, seal)
    return refused.value.code


def wrapped(world: World, name: str = "root") -> tuple[str, bytes]:
    """Something wrapped by a key before a rotation."""
    done = crypto.wrap_key(world.vault, world.identity(), f"https://{V}.vault.localhost/keys/{name}", "RSA-OAEP-256", b"k" * 32)
    return done.key_uri, done.value


@pytest.mark.parametrize(
    ("old", "new"),
    [
        pytest.param(FIRST, SECOND, id="key file to key file"),
        pytest.param(FIRST, FIRST, id="the same key file, another vault key"),
        pytest.param(FIRST, Passphrase(PASSPHRASE), id="key file to passphrase"),
    ],
)
def test_a_rotation_leaves_every_key_usable_with_the_new_seal_alone(world: World, old: Seal, new: Seal) -> None:
    world.ready()
    uri, value = wrapped(world)
    shown = rotated(world, old, new)
    assert (shown.generation, shown.private_keys, shown.former_generations) == (2, 1, (1,))
    assert crypto.unwrap_key(reopened(world, new), world.identity(), uri, "RSA-OAEP-256", value) == b"k" * 32
    if new is not old:
        assert code_of(world, old) == "vault_seal_wrong"


def test_a_passphrase_gives_way_to_a_key_file_again(world: World) -> None:
    world.ready()
    uri, value = wrapped(world)
    rotated(world, FIRST, Passphrase(PASSPHRASE))
    assert code_of(world, Passphrase(PASSPHRASE + "!")) == "vault_seal_wrong"
    assert rotated(world, Passphrase(PASSPHRASE), SECOND).kind == "key file"
    assert code_of(world, Passphrase(PASSPHRASE)) == "vault_seal_wrong"
    assert crypto.unwrap_key(reopened(world, SECOND), world.identity(), uri, "RSA-OAEP-256", value) == b"k" * 32


def test_the_wrong_seal_is_told_which_one_the_database_has(world: World) -> None:
    with pytest.raises(IntegrityFailure, match="vault_seal_wrong: the vault database is of generation 1, sealed with a key file, but not"):
        reopened(world, SECOND)
    with pytest.raises(IntegrityFailure, match="sealed with a key file, and was given a passphrase"):
        reopened(world, Passphrase(PASSPHRASE))
    with pytest.raises(IntegrityFailure, match="vault_seal_wrong"):
        rotated(world, SECOND, FIRST)
    assert sealing.show_seal(world.store).generation == 1, "nothing was rotated"


def test_backups_of_every_earlier_generation_are_restored(world: World) -> None:
    """R-058, R-061: a rotation costs nobody their backups."""
    world.ready()
    blobs = []
    seals: list[Seal] = [FIRST, SECOND, Passphrase(PASSPHRASE)]
    vault = world.vault
    for number, (old, new) in enumerate(zip(seals, [*seals[1:], FIRST], strict=True)):
        name = f"key{number}"
        keys.create(vault, world.call(), t.KeyCreate(vault=V, name=name))
        blobs.append(backup.backup(vault, world.call(), t.KeyNamed(vault=V, name=name)).blob)
        keys.delete(vault, world.call(), t.KeyNamed(vault=V, name=name))
        keys.purge(vault, world.call(), t.KeyNamed(vault=V, name=name))
        rotated(world, old, new)
        vault = reopened(world, new)
    assert sealing.show_seal(world.store).former_generations == (1, 2, 3)
    for number, blob in enumerate(blobs):
        restored = backup.restore(vault, world.call(), t.KeyRestore(vault=V, blob=blob))
        assert restored.name == f"key{number}"
        assert crypto.wrap_key(vault, world.identity(), restored.id, "RSA-OAEP-256", b"k" * 32).key_uri == restored.id


def test_a_backup_of_a_generation_that_never_was_is_refused(world: World) -> None:
    """R-059."""
    world.ready()
    blob = backup.backup(world.vault, world.call(), t.KeyNamed(vault=V, name="root")).blob
    forged = blob[:7] + (9).to_bytes(4, "big") + blob[11:]
    with pytest.raises(IntegrityFailure, match="backup_damaged"):
        backup.restore(world.vault, world.call(), t.KeyRestore(vault=V, blob=forged))


def test_who_opened_the_database_before_a_rotation_stores_nothing_after_it(world: World) -> None:
    world.ready()
    uri, value = wrapped(world)
    rotated(world, FIRST, SECOND)
    with pytest.raises(Unavailable, match="vault_seal_rotated"):
        world.new_key("late")
    old = world.vault.seal
    token_key = TokenKey("t", b"public", old.close_token_key(b"private", token_key_context("t"), os.urandom), 1, None)
    with pytest.raises(Unavailable, match="vault_seal_rotated"), world.store.writing() as tx:
        tx.add_token_key(token_key)
    release_key = ReleaseKey("r", b"", old.close_release_key(b"private", release_key_context("r"), os.urandom), 1, 2)
    with pytest.raises(Unavailable, match="vault_seal_rotated"), world.store.writing() as tx:
        tx.add_release_key(release_key)
    assert crypto.unwrap_key(world.vault, world.identity(), uri, "RSA-OAEP-256", value) == b"k" * 32, "a loaded key goes on"
    with world.store.reading() as tx:
        (vault,) = tx.all_vaults()
    world.vault.loaded.forget(vault.id)
    with pytest.raises(Unavailable, match="vault_seal_rotated"):
        crypto.unwrap_key(world.vault, world.identity(), uri, "RSA-OAEP-256", value)
    listed = keys.list_all(reopened(world, SECOND), world.call(), t.KeyList(vault=V))
    assert [key.name for key in listed] == ["root"]


def test_token_keys_and_release_keys_are_sealed_again_too(world: World) -> None:
    old = world.vault.seal
    with world.store.writing() as tx:
        tx.add_token_key(TokenKey("t", b"public", old.close_token_key(b"for tokens", token_key_context("t"), os.urandom), 1, None))
        tx.add_release_key(ReleaseKey("r", b"", old.close_release_key(b"for releases", release_key_context("r"), os.urandom), 1, 2))
    shown = rotated(world, FIRST, SECOND)
    assert (shown.token_keys, shown.release_keys) == (1, 1)
    new = reopened(world, SECOND).seal
    with world.store.reading() as tx:
        assert new.open_token_key(tx.token_keys()[0].sealed, token_key_context("t")) == b"for tokens"
        assert new.open_release_key(tx.release_keys()[0].sealed, release_key_context("r")) == b"for releases"


def test_neither_the_old_seal_nor_the_old_record_opens_what_was_sealed_again(world: World) -> None:
    view = world.ready()
    with world.store.reading() as tx:
        old = tx.seal()
        assert old is not None
    before = world.sealed(view)
    rotated(world, FIRST, SECOND)
    after = world.sealed(view)
    assert before != after
    with world.store.writing() as tx:
        tx.set_seal(old)
    assert code_of(world, FIRST) == "vault_seal_damaged", "the record of an earlier generation was put back"
    assert code_of(world, SECOND) == "vault_seal_wrong"
    with world.store.writing() as tx:
        tx.set_former_backup_keys({})
    opened = reopened(world, FIRST)
    with pytest.raises(KeysteadError) as refused:
        opened.seal.open_private(after, private_key_context(TENANT, V, view.name, view.version))
    assert refused.value.code == "vault_seal_rotated"
    forged = after[:1] + (1).to_bytes(4, "big") + after[5:]
    with pytest.raises(IntegrityFailure, match="private_key_damaged"):
        opened.seal.open_private(forged, private_key_context(TENANT, V, view.name, view.version))


def test_nothing_of_the_old_seal_is_left_in_the_database(world: World) -> None:
    """R-025: no key is in the clear on the way, and what the old vault key sealed is overwritten."""
    view = world.ready()
    before, context = world.sealed(view), private_key_context(TENANT, V, view.name, view.version)
    pkcs8 = world.vault.seal.open_private(before, context)
    with world.store.reading() as tx:
        old = tx.seal()
        assert old is not None
    rotated(world, FIRST, SECOND)
    for data in world.files():
        assert pkcs8 not in data
        assert before not in data
        assert old.record[73:] not in data
        assert SEAL not in data


def test_a_key_that_does_not_open_stops_a_rotation_and_nothing_changes(world: World) -> None:
    view = world.ready()
    sealed = world.sealed(view)
    with world.store.writing() as tx:
        (key,) = tx.sealed_keys(("", 0), 10)
        tx.put_sealed_keys([type(key)(key.key_id, 1, key.tenant_id, key.vault, key.name, key.version, sealed[:-1] + b"\x00")])
    with pytest.raises(IntegrityFailure, match="private_key_damaged"):
        rotated(world, FIRST, SECOND)
    assert sealing.show_seal(world.store).generation == 1
    assert reopened(world, FIRST).seal.generation == 1


def test_of_two_rotations_at_once_one_is_done(world: World) -> None:
    seen: list[str] = []

    class Late:
        """A clock that is asked once, after the seal was read and before it is replaced."""

        def now(self) -> int:
            if not seen:
                seen.append("")
                rotated(world, FIRST, SECOND)
            return world.clock.now()

        def sleep(self, milliseconds: int) -> None:
            raise AssertionError

    with pytest.raises(Conflict, match="vault_seal_changed"):
        sealing.rotate(world.store, FIRST, Passphrase(PASSPHRASE), Late(), os.urandom)
    assert reopened(world, SECOND).seal.generation == 2


def test_all_of_many_keys_are_sealed_again_batch_by_batch(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sealing, "BATCH", 2)
    world.ready()
    views = [world.new_key(f"key{number % 3}", kty="EC") for number in range(7)]
    keys.delete(world.vault, world.call(), t.KeyNamed(vault=V, name="key1"))
    assert rotated(world, FIRST, SECOND).private_keys == 8, "a deleted key's too: it can be recovered"
    opened = reopened(world, SECOND).seal
    for view in views:
        assert opened.open_private(world.sealed(view), private_key_context(TENANT, V, view.name, view.version))


def test_a_database_from_before_generations_opens_and_is_rotated(world: World) -> None:
    """Its seal file was the vault key itself, and its boxes have no generation."""
    world.ready()
    old = VaultSeal(SECOND)
    with world.store.writing() as tx:
        (key,) = tx.sealed_keys(("", 0), 10)
        context = private_key_context(key.tenant_id, key.vault, key.name, key.version)
        pkcs8 = world.vault.seal.open_private(key.sealed, context)
        nonce = os.urandom(12)
        box = b"\x01" + nonce + old._old_private.encrypt(nonce, pkcs8, context)
        tx.put_sealed_keys([type(key)(key.key_id, 1, key.tenant_id, key.vault, key.name, key.version, box)])
        tx.set_seal(StoredSeal(old.check_value, 0, b""))
    assert code_of(world, FIRST) == "vault_seal_wrong"
    assert code_of(world, Passphrase(PASSPHRASE)) == "vault_seal_wrong"
    early = reopened(world, SECOND)
    uri = f"https://{V}.vault.localhost/keys/root"
    assert crypto.wrap_key(early, world.identity(), uri, "RSA-OAEP-256", b"k" * 32).value
    blob = backup.backup(early, world.call(), t.KeyNamed(vault=V, name="root")).blob
    assert sealing.show_seal(world.store).generation == 0

    rotated(world, SECOND, FIRST)
    late = reopened(world, FIRST)
    assert late.seal.generation == 1
    keys.delete(late, world.call(), t.KeyNamed(vault=V, name="root"))
    keys.purge(late, world.call(), t.KeyNamed(vault=V, name="root"))
    assert backup.restore(late, world.call(), t.KeyRestore(vault=V, blob=blob)).name == "root"
    with pytest.raises(IntegrityFailure, match="private_key_damaged"):
        late.seal.open_private(box, context)


def test_a_new_database_is_bound_to_the_seal_it_is_first_opened_with(world: World) -> None:
    with world.store.writing() as tx:
        tx._connection.exec_driver_sql("DELETE FROM vault_seal")  # type: ignore[attr-defined]  # past the port: there is no unbinding
    with pytest.raises(NotFound, match="vault_seal_not_found"):
        sealing.show_seal(world.store)
    with pytest.raises(NotFound, match="vault_seal_not_found"):
        rotated(world, FIRST, SECOND)
    assert reopened(world, Passphrase(PASSPHRASE)).seal.generation == 1
    shown = sealing.show_seal(world.store)
    assert (shown.kind, shown.memory_kib, shown.passes, shown.lanes) == ("passphrase", 64 * 1_024, 3, 4)
    assert code_of(world, FIRST) == "vault_seal_wrong"


def test_contexts_of_different_things_differ() -> None:
    assert len({token_key_context("x"), release_key_context("x"), length_prefixed("former backup key", "x")}) == 3
