"""The key store: sealed keys in a database, epoch keys as files in the seals folder (docs/spec/keystore.md).

Rules this module keeps:

- A key leaves neither the store nor, unsealed, the call it is used in. Only ciphers of the epochs in force stay in memory.
- The database says which epoch is in force, and each call asks it: what another process destroyed is gone for this one at once.
- Epoch files are written and removed only under the database's write lock, and none is removed before the one in force has opened.
  In a fleet that lock can be lost unnoticed; then the transaction cannot commit, and what `EpochFiles` did harms nobody.

A rewrite has three steps (`_rewrite`, `_settle`), and the next call or start finishes what a crash left of them:

1. the new epoch key becomes a file. A crash after it leaves a file of an epoch that never came into force: it is removed;
2. one transaction seals the remaining entries anew, drops the destroyed ones and moves the epoch on. A crash after it
   leaves the old file: it is removed. Until it is, an old copy of the database still opens, and `destroy` has not returned;
3. the old file is overwritten and removed, then SQLite's write-ahead log is emptied. A crash between leaves pages in the log
   that nothing opens any more; a server's log keeps such pages in any case.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import bindparam, delete, insert, select, update

from keystead.adapters.files import translated as translated_file_errors
from keystead.adapters.keystores import boxes
from keystead.adapters.keystores.entries import entry_of, fresh_material
from keystead.adapters.keystores.epochs import EpochFiles
from keystead.adapters.keystores.limits import box_does_not_open, check_context, check_key_id, check_value, no_such_key
from keystead.adapters.sql.engine import is_server, reading, writing
from keystead.adapters.sql.keys_schema import COMPARTMENTS, ENTRIES
from keystead.adapters.sql.migrate import ensure_current
from keystead.adapters.sql.sqlite import empty_log
from keystead.core.errors import IntegrityFailure, Unavailable
from keystead.ports.keystore import Compartment, KeyEntry

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from sqlalchemy import Connection, Engine

    from keystead.adapters.keystores.entries import Entry
    from keystead.core.formats.aead import Aes
    from keystead.core.ids import RandomBytes
    from keystead.core.secret import SecretKey
    from keystead.ports.clock import Clock

    Checkpoint = Callable[[str], None]
    """Called with the name of each step that is done; crash tests stop there."""

_ONE_ENTRY = (
    select(COMPARTMENTS.c.epoch, ENTRIES.c.sealed)
    .join_from(ENTRIES, COMPARTMENTS, ENTRIES.c.compartment == COMPARTMENTS.c.name)
    .where(ENTRIES.c.compartment == bindparam("compartment"), ENTRIES.c.key_id == bindparam("key_id"))
)
"""The epoch in force and one sealed key, of the same moment. Made once: putting it together costs as much as running it."""


def open_keystore(
    engine: Engine,
    seals: Path,
    master: SecretKey,
    clock: Clock,
    random: RandomBytes,
    *,
    checkpoint: Checkpoint = lambda _step: None,
) -> SqlKeyStore:
    """Open the key store of a home, or make it; finish what a crash left half done.

    Args:
        engine: keys.db, or a fleet's database for keys.
        seals: the seals folder, one for all processes; made when it is missing.
        master: wraps the epoch keys. Only keys derived from it are kept.
        clock: gives entries their age.
        random: keys and nonces.
        checkpoint: see `Checkpoint`.

    Raises:
        IntegrityFailure: the epoch key in force is missing or does not open under this master. Nothing was changed.
        PreconditionFailed: a newer version of Keystead wrote the database.
        Unavailable: database or folder do not answer.
    """
    ensure_current(engine, "keys")
    with translated_file_errors(seals.name):
        seals.mkdir(mode=0o700, exist_ok=True)
    store = SqlKeyStore(engine, seals, master, clock, random, checkpoint=checkpoint)
    for compartment in Compartment:
        store.prepare(compartment)
    return store


class SqlKeyStore:
    """Implements `KeyStore`; made by `open_keystore`. Threads and processes may share one store."""

    def __init__(
        self,
        engine: Engine,
        seals: Path,
        master: SecretKey,
        clock: Clock,
        random: RandomBytes,
        *,
        checkpoint: Checkpoint = lambda _step: None,
    ) -> None:
        self._engine = engine
        self._files = EpochFiles(seals, master, random, shared=is_server(engine))
        self._clock = clock
        self._random = random
        self._checkpoint = checkpoint
        self._in_force: dict[Compartment, tuple[int, Aes]] = {}

    def __repr__(self) -> str:
        return "SqlKeyStore(...)"

    def prepare(self, compartment: Compartment) -> None:
        """Check that a compartment opens and tidy up after a crash; a new one gets its first epoch.

        Raises:
            IntegrityFailure: its epoch key is missing or does not open under this master.
        """
        with reading(self._engine) as connection:
            epoch = _epoch(connection, compartment)
        if epoch is None:
            self._begin(compartment)
        elif self._cipher(compartment, epoch) is None or self._files.leftovers(compartment, epoch):
            self._settle(compartment)

    def create(self, compartment: Compartment, key_id: str) -> None:
        """Make a fresh key, unless it exists."""
        check_key_id(key_id)
        material = fresh_material(compartment, self._random)
        with writing(self._engine) as connection:
            epoch, cipher = self._locked(connection, compartment)
            if connection.execute(_ONE_ENTRY, {"compartment": compartment, "key_id": key_id}).first() is not None:
                return
            sealed = self._sealed(cipher, compartment, key_id, epoch, material)
            row = {"compartment": compartment, "key_id": key_id, "created": self._clock.now(), "sealed": sealed}
            connection.execute(insert(ENTRIES), row)

    def seal(self, compartment: Compartment, key_id: str, value: bytes, context: bytes) -> bytes:
        """Seal a value under a key."""
        check_context(context)
        check_value(compartment, value)
        return self._entry(compartment, key_id).seal(value, boxes.value_fields(compartment, key_id, context))

    def open(self, compartment: Compartment, key_id: str, box: bytes, context: bytes) -> bytes:
        """Open what `seal` returned."""
        check_context(context)
        try:
            return self._entry(compartment, key_id).open(box, boxes.value_fields(compartment, key_id, context))
        except boxes.WrongBox:
            raise box_does_not_open(compartment, key_id) from None

    def destroy(self, compartment: Compartment, key_ids: Sequence[str]) -> None:
        """Destroy keys for good: after it, no older copy of the database opens in this compartment.

        Raises:
            Unavailable: not finished, call again; the keys may be gone already.
            IntegrityFailure: another key of the compartment does not open and could not be kept. Nothing was changed.
        """
        self._rewrite(compartment, frozenset(key_ids), always=False)
        self._settle(compartment)

    def entries(self, compartment: Compartment) -> list[KeyEntry]:
        """Ids and ages, ordered by id."""
        wanted = select(ENTRIES.c.key_id, ENTRIES.c.created).where(ENTRIES.c.compartment == compartment)
        with reading(self._engine) as connection:
            return [KeyEntry(*row) for row in connection.execute(wanted.order_by(ENTRIES.c.key_id))]

    def rotate(self, compartment: Compartment) -> int:
        """Rewrite the compartment under a new epoch key.

        Raises:
            Unavailable: not finished; the next call or start finishes it.
            IntegrityFailure: a key of the compartment does not open. Nothing was changed.
        """
        epoch = self._rewrite(compartment, frozenset(), always=True)
        self._settle(compartment)
        return epoch

    def _begin(self, compartment: Compartment) -> None:
        """Give a new compartment its first epoch."""
        with writing(self._engine) as connection:
            if _epoch(connection, compartment) is not None:
                return  # another process was faster
            found = self._files.epochs(compartment)
            if found not in ([], [1]):
                raise IntegrityFailure(
                    "keystore_database_lost",
                    f"there are epoch keys of compartment {compartment}, but keys.db knows nothing of them",
                    "restore keys.db; if it is lost for good, move the seals/keystore-* files away to start anew",
                )
            # A crash before the commit leaves this file. It is adopted then, never replaced: should it stem from a keys.db
            # that was lost before it ever rotated, a copy of that database still opens.
            epoch = found[0] if found else self._files.make(compartment, 0)[0]
            self._checkpoint("first epoch file written")
            self._required(compartment, epoch)
            connection.execute(insert(COMPARTMENTS), {"name": compartment, "epoch": epoch})
        self._checkpoint("first epoch committed")

    def _rewrite(self, compartment: Compartment, dropped: frozenset[str], *, always: bool) -> int:
        """Steps 1 and 2; returns the epoch in force. Without `always`, nothing happens when there is nothing to drop."""
        with writing(self._engine) as connection:
            epoch, old = self._locked(connection, compartment)
            wanted = select(ENTRIES.c.key_id, ENTRIES.c.sealed).where(ENTRIES.c.compartment == compartment)
            rows = [(str(key_id), bytes(sealed)) for key_id, sealed in connection.execute(wanted)]
            gone = [key_id for key_id, _ in rows if key_id in dropped]
            if not gone and not always:
                return epoch
            kept = [(key_id, self._unsealed(old, compartment, key_id, epoch, sealed)) for key_id, sealed in rows if key_id not in dropped]
            after, new = self._files.make(compartment, epoch)
            self._checkpoint("new epoch file written")
            _drop(connection, compartment, gone)
            _replace(
                connection,
                compartment,
                [(key_id, self._sealed(new, compartment, key_id, after, key)) for key_id, key in kept],
            )
            connection.execute(update(COMPARTMENTS).where(COMPARTMENTS.c.name == compartment).values(epoch=after))
            self._checkpoint("entries sealed anew")
        self._checkpoint("new epoch committed")
        self._in_force[compartment] = (after, new)
        return after

    def _settle(self, compartment: Compartment) -> None:
        """Step 3: remove every epoch key but the one in force, and the old pages."""
        with writing(self._engine) as connection:
            # Under the lock of a home nobody else is between steps 1 and 2, so a newer file is a leftover too; in a fleet it stays
            # (`EpochFiles`). And `_locked` has opened the one in force, so that a database restored without its seals costs nobody
            # the keys of the present one.
            epoch, _ = self._locked(connection, compartment)
            self._files.remove(self._files.leftovers(compartment, epoch))
        self._checkpoint("other epoch files removed")
        # A server's old pages and log stay until it reuses them: what they hold, no key that is left opens.
        if not is_server(self._engine) and not empty_log(self._engine):
            raise Unavailable(
                "keystore_busy",
                f"the keys of compartment {compartment} are destroyed, but their sealed copies are still in the database's log",
                "another process holds keys.db open in a long read; try again when it is done",
            )
        self._checkpoint("log emptied")

    def _entry(self, compartment: Compartment, key_id: str) -> Entry:
        """One key, for one call.

        Raises:
            NotFound: no such key.
            IntegrityFailure: the key or its epoch key does not open.
        """
        check_key_id(key_id)
        with reading(self._engine) as connection:
            epoch, sealed = _found(connection, compartment, key_id)
        cipher = self._cipher(compartment, epoch)
        if cipher is None:
            # Another process moved on to a new epoch after we read the row and removed the file of this one. Under the write
            # lock nobody can: there, a missing file is missing.
            with writing(self._engine) as connection:
                epoch, sealed = _found(connection, compartment, key_id)
                cipher = self._required(compartment, epoch)
        return entry_of(compartment, self._unsealed(cipher, compartment, key_id, epoch, sealed), self._random)

    def _locked(self, connection: Connection, compartment: Compartment) -> tuple[int, Aes]:
        """The epoch in force and its cipher, for a holder of the write lock."""
        epoch = _epoch(connection, compartment)
        assert epoch is not None, "open_keystore has prepared every compartment"
        return epoch, self._required(compartment, epoch)

    def _required(self, compartment: Compartment, epoch: int) -> Aes:
        cipher = self._cipher(compartment, epoch)
        if cipher is None:
            raise IntegrityFailure(
                "keystore_epoch_missing",
                f"seals/keystore-{compartment}.{epoch} is missing: keys.db and the seals folder are not of the same time",
                "restore both from the same backup; a keys.db from before a key was destroyed never opens again",
            )
        return cipher

    def _cipher(self, compartment: Compartment, epoch: int) -> Aes | None:
        """The cipher of an epoch; None when its file is missing. Only one per compartment is kept."""
        known = self._in_force.get(compartment)
        if known is not None and known[0] == epoch:
            return known[1]
        cipher = self._files.load(compartment, epoch)
        if cipher is not None:
            self._in_force[compartment] = (epoch, cipher)
        return cipher

    def _sealed(self, cipher: Aes, compartment: Compartment, key_id: str, epoch: int, key: bytes) -> bytes:
        fields = boxes.entry_fields(compartment, key_id, epoch)
        return boxes.seal(cipher, boxes.Kind.ENTRY_KEY, key, fields, self._random)

    def _unsealed(self, cipher: Aes, compartment: Compartment, key_id: str, epoch: int, sealed: bytes) -> bytes:
        try:
            return boxes.unseal(cipher, boxes.Kind.ENTRY_KEY, sealed, boxes.entry_fields(compartment, key_id, epoch))
        except boxes.WrongBox:
            raise IntegrityFailure(
                "keystore_entry_damaged",
                f"key {key_id} in compartment {compartment} does not open under the present epoch",
                "restore keys.db and the seals folder together, or destroy that key",
            ) from None


def _epoch(connection: Connection, compartment: Compartment) -> int | None:
    return connection.execute(select(COMPARTMENTS.c.epoch).where(COMPARTMENTS.c.name == compartment)).scalar()


def _found(connection: Connection, compartment: Compartment, key_id: str) -> tuple[int, bytes]:
    row = connection.execute(_ONE_ENTRY, {"compartment": compartment, "key_id": key_id}).first()
    if row is None:
        raise no_such_key(compartment, key_id)
    epoch, sealed = row
    return epoch, sealed


def _drop(connection: Connection, compartment: Compartment, key_ids: list[str]) -> None:
    if key_ids:
        one = delete(ENTRIES).where(ENTRIES.c.compartment == compartment, ENTRIES.c.key_id == bindparam("gone"))
        connection.execute(one, [{"gone": key_id} for key_id in key_ids])


def _replace(connection: Connection, compartment: Compartment, entries: list[tuple[str, bytes]]) -> None:
    if entries:
        one = update(ENTRIES).where(ENTRIES.c.compartment == compartment, ENTRIES.c.key_id == bindparam("kept"))
        rows = [{"kept": key_id, "sealed": sealed} for key_id, sealed in entries]
        connection.execute(one.values(sealed=bindparam("sealed")), rows)
