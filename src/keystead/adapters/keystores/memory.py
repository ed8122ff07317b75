"""A key store in memory, for tests of what is built on key stores. It asserts what callers must never do.

- A destroyed id never comes back: ids are random, so a second `create` after `destroy` is a caller that mixes keys up.
- A context is never empty, and neither is an id.
"""

from __future__ import annotations

from threading import Lock
from typing import TYPE_CHECKING

from keystead.adapters.keystores import boxes
from keystead.adapters.keystores.entries import entry_of, fresh_material
from keystead.adapters.keystores.limits import box_does_not_open, check_context, check_key_id, check_value, no_such_key
from keystead.ports.keystore import Compartment, KeyEntry

if TYPE_CHECKING:
    from collections.abc import Sequence

    from keystead.adapters.keystores.entries import Entry
    from keystead.core.ids import RandomBytes
    from keystead.ports.clock import Clock


class MemoryKeyStore:
    """Implements `KeyStore`; boxes are those of the SQL store, so either opens what the other sealed under the same key."""

    def __init__(self, clock: Clock, random: RandomBytes) -> None:
        self._clock = clock
        self._random = random
        self._lock = Lock()
        self._keys: dict[tuple[Compartment, str], tuple[KeyEntry, Entry]] = {}
        self._destroyed: set[tuple[Compartment, str]] = set()
        self._epochs = dict.fromkeys(Compartment, 1)

    def __repr__(self) -> str:
        return f"MemoryKeyStore({len(self._keys)} keys)"

    def create(self, compartment: Compartment, key_id: str) -> None:
        """Make a fresh key, unless it exists."""
        check_key_id(key_id)
        with self._lock:
            assert (compartment, key_id) not in self._destroyed, f"{key_id} was destroyed and must not come back"
            if (compartment, key_id) not in self._keys:
                entry = KeyEntry(key_id, self._clock.now())
                self._keys[compartment, key_id] = (entry, entry_of(compartment, fresh_material(compartment, self._random), self._random))

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
        """Destroy keys for good."""
        with self._lock:
            gone = {(compartment, key_id) for key_id in key_ids} & self._keys.keys()
            for key in gone:
                del self._keys[key]
            self._destroyed |= gone
            self._epochs[compartment] += bool(gone)

    def entries(self, compartment: Compartment) -> list[KeyEntry]:
        """Ids and ages, ordered by id."""
        with self._lock:
            found = [entry for (where, _), (entry, _) in self._keys.items() if where == compartment]
        return sorted(found, key=lambda entry: entry.key_id)

    def rotate(self, compartment: Compartment) -> int:
        """Count one epoch on; there is nothing to rewrite."""
        with self._lock:
            self._epochs[compartment] += 1
            return self._epochs[compartment]

    def _entry(self, compartment: Compartment, key_id: str) -> Entry:
        check_key_id(key_id)
        with self._lock:
            found = self._keys.get((compartment, key_id))
        if found is None:
            raise no_such_key(compartment, key_id)
        return found[1]
