"""Opening a vault database with its seal, and rotating the seal (docs/spec/vault-seal.md).

A rotation makes a new vault key and seals every private key, token key and release key again under it, in one transaction with the new seal
record. So a crash at any moment leaves a database that the old seal opens, or one that the new seal opens, never both and never neither; the
error that the other one meets names generation and kind of the seal that does. No key is shown on the way, or is ever on the disk in the
clear.

Processes that opened the database before keep the old vault key in memory. They go on with keys they have loaded, and are refused with
`vault_seal_rotated` where they would open or store a sealed key: nothing they do can be lost, and they are to be restarted.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from keystead.core.errors import Conflict, IntegrityFailure, NotFound, PreconditionFailed
from keystead.core.secret import KEY_BYTES, SecretKey
from keystead.core.vaults.seal import (
    MOST_GENERATIONS,
    VaultSeal,
    private_key_context,
    release_key_context,
    token_key_context,
)
from keystead.core.vaults.seal_record import open_vault_key, read_seal_record, seal_vault_key, seal_wrong
from keystead.ports.vault_store import StoredSeal

if TYPE_CHECKING:
    from collections.abc import Callable

    from keystead.core.ids import RandomBytes
    from keystead.core.vaults.seal_record import Seal
    from keystead.ports.clock import Clock
    from keystead.ports.vault_store import VaultReader, VaultStore, VaultWriter

    Checkpoint = Callable[[str], None]
    """Told each step a rotation has taken; for tests that stop there."""

BATCH = 1_000
"""Private keys in memory at a time while they are sealed again."""
DATABASE_ID_BYTES = 16


@dataclass(frozen=True, slots=True)
class SealShown:
    """What may be known of a seal.

    Attributes:
        generation: of the vault key; 0 in a database from before generations, whose key file is the vault key itself.
        kind: key file or passphrase.
        made: when it was last rotated, milliseconds; None for generation 0.
        memory_kib, passes, lanes: what stretching the passphrase costs (argon2id); 0 for a key file.
        private_keys: sealed under it; token_keys and release_keys likewise.
        former_generations: whose key backups still open.
    """

    generation: int
    kind: str
    made: int | None
    memory_kib: int
    passes: int
    lanes: int
    private_keys: int
    token_keys: int
    release_keys: int
    former_generations: tuple[int, ...]


def open_seal(store: VaultStore, seal: Seal, clock: Clock, random: RandomBytes) -> VaultSeal:
    """What a database closes and opens things with. A new database is bound to the seal it is first opened with.

    Raises:
        IntegrityFailure: `vault_seal_wrong`: it has another seal; `vault_seal_damaged`.
        Unavailable: `seal_memory_short`.
    """
    with store.reading() as tx:
        stored, former = tx.seal(), tx.former_backup_keys()
    if stored is None:
        vault_key = SecretKey(random(KEY_BYTES))
        record = seal_vault_key(vault_key, seal, random(DATABASE_ID_BYTES), 1, clock.now(), random)
        made = StoredSeal(VaultSeal(vault_key, record.generation).check_value, record.generation, record.data)
        # Two processes may open a new store at once: inside the writing transaction the second one finds what the first one wrote.
        with store.writing() as tx:
            stored = tx.seal()
            if stored is None:
                tx.set_seal(made)
                stored = made
    return _opened(stored, seal, former)


def show_seal(store: VaultStore) -> SealShown:
    """What may be known of a database's seal without opening it.

    Raises:
        NotFound: `vault_seal_not_found`: nobody opened the database yet.
        IntegrityFailure: `vault_seal_damaged`.
    """
    with store.reading() as tx:
        stored = tx.seal()
        if stored is None:
            raise _unbound()
        return _shown(tx, stored)


def rotate(
    store: VaultStore,
    old: Seal,
    new: Seal,
    clock: Clock,
    random: RandomBytes,
    checkpoint: Checkpoint = lambda _step: None,
) -> SealShown:
    """A new vault key under another seal, or the same; everything sealed again under it, all or nothing.

    Backups of keys made before stay restorable: their keys lie, by generation, under the new vault key. An older copy of the database
    still opens with the old seal: whoever rotates because a seal came into wrong hands destroys those copies too.

    Raises:
        NotFound: `vault_seal_not_found`: nobody opened the database yet.
        IntegrityFailure: `vault_seal_wrong`: the old seal is not this database's; or a key in it does not open, and nothing was changed.
        Conflict: `vault_seal_changed`: it was rotated by another process meanwhile.
    """
    with store.reading() as tx:
        stored, former = tx.seal(), tx.former_backup_keys()
    if stored is None:
        raise _unbound()
    present = _opened(stored, old, former)
    if present.generation >= MOST_GENERATIONS:
        raise PreconditionFailed("vault_seal_worn_out", "the seal cannot be rotated again", "bring the keys into a new vault database")
    # Stretching a passphrase takes its time, so both are done before the write lock is taken.
    vault_key = SecretKey(random(KEY_BYTES))
    database_id = read_seal_record(stored.record).database_id if stored.record else random(DATABASE_ID_BYTES)
    record = seal_vault_key(vault_key, new, database_id, present.generation + 1, clock.now(), random)
    fresh = VaultSeal(vault_key, record.generation)
    with store.writing() as tx:
        if tx.seal() != stored:
            raise Conflict("vault_seal_changed", "another process rotated the seal meanwhile", "look at keystead vault seal show")
        _seal_again(tx, present, fresh, random)
        checkpoint("keys sealed anew")
        tx.set_former_backup_keys(fresh.keep_backups_of(present, random))
        tx.set_seal(StoredSeal(fresh.check_value, record.generation, record.data))
        shown = _shown(tx, StoredSeal(fresh.check_value, record.generation, record.data))
        checkpoint("new seal written")
    # A crash from here on leaves the new seal in force. What the log still holds of the old rows opens with the old seal until the log
    # is emptied, here or by the database itself in its time; the main file's old rows were overwritten.
    checkpoint("committed")
    store.forget_past()
    checkpoint("log emptied")
    return shown


def _opened(stored: StoredSeal, seal: Seal, former: dict[int, bytes]) -> VaultSeal:
    if not stored.record:
        if not isinstance(seal, SecretKey):
            raise seal_wrong(None, "")
        opened = VaultSeal(seal)
        if not opened.matches(stored.check_value):
            raise seal_wrong(None, "")
        return opened
    record = read_seal_record(stored.record)
    vault_key = open_vault_key(record, seal)
    opened = VaultSeal(vault_key, record.generation, former)
    if record.generation != stored.generation or not opened.matches(stored.check_value):
        raise IntegrityFailure(
            "vault_seal_damaged",
            "the seal record of the vault database belongs to another state of it",
            "restore the database from a backup",
        )
    return opened


def _seal_again(tx: VaultWriter, old: VaultSeal, new: VaultSeal, random: RandomBytes) -> None:
    """Every sealed key of the database, from one seal to another. A key that does not open ends it all: nothing is left behind unseen."""
    place = ("", 0)
    while batch := tx.sealed_keys(place, BATCH):
        again = []
        for key in batch:
            context = private_key_context(key.tenant_id, key.vault, key.name, key.version)
            again.append(replace(key, sealed=new.close_private(old.open_private(key.sealed, context), context, random)))
        tx.put_sealed_keys(again)
        place = (batch[-1].key_id, batch[-1].ordinal)
    for token_key in tx.token_keys():
        context = token_key_context(token_key.id)
        tx.put_token_key(token_key.id, new.close_token_key(old.open_token_key(token_key.sealed, context), context, random))
    for release_key in tx.release_keys():
        context = release_key_context(release_key.id)
        tx.put_release_key(release_key.id, new.close_release_key(old.open_release_key(release_key.sealed, context), context, random))


def _shown(tx: VaultReader, stored: StoredSeal) -> SealShown:
    record = read_seal_record(stored.record) if stored.record else None
    cost = record.cost if record is not None else None
    return SealShown(
        generation=stored.generation,
        kind="key file" if record is None else record.kind.text,
        made=None if record is None else record.made,
        memory_kib=0 if cost is None else cost.memory,
        passes=0 if cost is None else cost.passes,
        lanes=0 if cost is None else cost.lanes,
        private_keys=tx.count_key_versions(),
        token_keys=len(tx.token_keys()),
        release_keys=len(tx.release_keys()),
        former_generations=tuple(sorted(tx.former_backup_keys())),
    )


def _unbound() -> NotFound:
    return NotFound("vault_seal_not_found", "the vault database has no seal yet", "keystead init makes it with one")
