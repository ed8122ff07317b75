"""Homes for tests of the key store: keys.db and the seals folder, and the processes that share them."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from keystead.adapters.keystores.sql import SqlKeyStore, open_keystore
from keystead.adapters.sql.sqlite import sqlite_engine
from keystead.core.secret import SecretKey
from support.disk import bytes_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from sqlalchemy import Engine

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
    """keys.db and the seals folder in a folder of the test; each `process` has an engine and a cache of its own."""

    folder: Path
    random: Recorder = field(default_factory=Recorder)
    engines: list[Engine] = field(default_factory=list)

    @property
    def database(self) -> Path:
        return self.folder / "keys.db"

    @property
    def seals(self) -> Path:
        return self.folder / "seals"

    def process(self, *, master: bytes = MASTER, checkpoint: Callable[[str], None] = lambda _step: None) -> SqlKeyStore:
        engine = sqlite_engine(self.database)
        self.engines.append(engine)
        return open_keystore(engine, self.seals, SecretKey(master), FixedClock(), self.random, checkpoint=checkpoint)

    def running(self) -> SqlKeyStore:
        """A process that opened the store earlier: it does not tidy up now."""
        engine = sqlite_engine(self.database)
        self.engines.append(engine)
        return SqlKeyStore(engine, self.seals, SecretKey(MASTER), FixedClock(), self.random)

    def close(self) -> None:
        """End all processes: SQLite then moves its log into the database."""
        for engine in self.engines:
            engine.dispose()
        self.engines.clear()

    def epoch_files(self) -> list[str]:
        return sorted(path.name for path in self.seals.iterdir())

    def all_bytes(self) -> bytes:
        """Everything on the disk, end to end."""
        return bytes_of(path for path in sorted(self.folder.rglob("*")) if path.is_file())
