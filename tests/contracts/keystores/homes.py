"""Homes for tests of the key store: keys.db and the seals folder, and the processes that share them."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from keystead.adapters.keystores.sql import SqlKeyStore, open_keystore
from keystead.core.secret import SecretKey
from support.databases import PostgresStores, make_stores
from support.disk import bytes_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from sqlalchemy import Engine

    from support.databases import Stores

MASTER = bytes(range(32))
NOW = 1_760_000_000_000


class FixedClock:
    """Stands still."""

    def now(self) -> int:
        return NOW

    def sleep(self, milliseconds: int) -> None:
        raise AssertionError("the key store never waits")


@dataclass
class Recorder:
    """The operating system's generator, remembering every key-sized draw."""

    keys: list[bytes] = field(default_factory=list, repr=False)

    def __call__(self, size: int) -> bytes:
        drawn = os.urandom(size)
        if size == 32:
            self.keys.append(drawn)
        return drawn


@dataclass
class Home:
    """The keys' database and the seals folder in a folder of the test; each `process` has an engine and a cache of its own."""

    folder: Path
    random: Recorder = field(default_factory=Recorder)
    engines: list[Engine] = field(default_factory=list)
    kind: str = ""
    stores: Stores = field(init=False)

    def __post_init__(self) -> None:
        self.stores = make_stores(self.folder, self.kind)

    @property
    def on_server(self) -> bool:
        """Whether the database is PostgreSQL's."""
        return isinstance(self.stores, PostgresStores)

    @property
    def seals(self) -> Path:
        return self.folder / "seals"

    def process(
        self,
        *,
        master: bytes = MASTER,
        checkpoint: Callable[[str], None] = lambda _step: None,
        random: Callable[[int], bytes] | None = None,
    ) -> SqlKeyStore:
        engine = self.stores.engine("keys")
        self.engines.append(engine)
        return open_keystore(engine, self.seals, SecretKey(master), FixedClock(), random or self.random, checkpoint=checkpoint)

    def running(self) -> SqlKeyStore:
        """A process that opened the store earlier: it does not tidy up now."""
        engine = self.stores.engine("keys")
        self.engines.append(engine)
        return SqlKeyStore(engine, self.seals, SecretKey(MASTER), FixedClock(), self.random)

    def close(self) -> None:
        """End all processes: SQLite then moves its log into the database."""
        for engine in self.engines:
            engine.dispose()
        self.engines.clear()

    def epoch_files(self) -> list[str]:
        return sorted(path.name for path in self.seals.iterdir())

    def sealed(self) -> dict[str, bytes]:
        """The sealed keys, by id."""
        return {str(key_id): bytes(box) for key_id, box in self.stores.sql("keys", "SELECT key_id, sealed FROM entries")}

    def all_bytes(self) -> bytes:
        """Everything there is, end to end."""
        return self.stores.dump("keys") + bytes_of(path for path in sorted(self.folder.rglob("*")) if path.is_file())
