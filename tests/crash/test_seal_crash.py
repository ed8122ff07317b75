"""`kill -9` after every step of rotating a vault's seal: the database opens with exactly one of the two seals, and no key is lost."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import pytest

from keystead.adapters.seals import provided_key_file
from keystead.adapters.sql.vault_store import SqlVaultStore
from keystead.core.errors import IntegrityFailure
from keystead.core.secret import SecretKey
from keystead.core.vaults.seal import private_key_context
from keystead.core.vaults.seal_record import Passphrase
from keystead.vault import sealing
from vault.world import SEAL, TENANT, World

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from keystead.core.vaults.seal_record import Seal
    from keystead.ports.vault_store import SealedKey

STEPS = ["keys sealed anew", "new seal written", "committed", "log emptied"]
COMMITTED = {"committed", "log emptied"}
OLD, NEW = SecretKey(SEAL), Passphrase("correct horse battery staple")


@pytest.fixture
def world(tmp_path: Path, database: str) -> Iterator[World]:
    made = World(tmp_path)
    made.ready()
    yield made
    made.close()


def killed(world: World, act: Callable[[SqlVaultStore, Callable[[str], None]], object], step: str | int) -> None:
    """Run an act in a process of its own and kill that after the named step, or before its n-th fsync of a file."""
    world.vault.journal.close()  # no thread and no connection of ours may be carried into a fork
    world.store.close()
    child = os.fork()
    if child == 0:
        try:
            sync, calls = os.fsync, iter(range(1_000))

            def die() -> None:
                os.kill(os.getpid(), signal.SIGKILL)

            def fsync(descriptor: int) -> None:
                if next(calls) == step:
                    die()
                sync(descriptor)

            os.fsync = fsync  # type: ignore[assignment]  # in this process alone, which ends here
            act(SqlVaultStore(world.stores.engine("vault")), lambda name: die() if name == step else None)
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status), f"the process ended without reaching {step!r}"


def opens(world: World, seal: Seal) -> bool:
    """Whether a seal opens the database, and all keys in it with that."""
    store = SqlVaultStore(world.stores.engine("vault"))
    try:
        opened = sealing.open_seal(store, seal, world.clock, os.urandom)
        with store.reading() as tx:
            return all(opened.open_private(key.sealed, context_of(key)) for key in tx.sealed_keys(("", 0), 100))
    except IntegrityFailure as error:
        if error.code != "vault_seal_wrong":  # all of it opens, or nothing
            raise
        return False
    finally:
        store.close()


def context_of(key: SealedKey) -> bytes:
    return private_key_context(TENANT, key.vault, key.name, key.version)


def test_the_steps_are_those_listed_here(world: World) -> None:
    steps: list[str] = []
    sealing.rotate(world.store, OLD, NEW, world.clock, os.urandom, steps.append)
    assert steps == STEPS


@pytest.mark.parametrize("step", STEPS)
def test_a_rotation_that_was_killed_leaves_the_one_seal_or_the_other(world: World, step: str) -> None:
    killed(world, lambda store, checkpoint: sealing.rotate(store, OLD, NEW, world.clock, os.urandom, checkpoint), step)
    done = step in COMMITTED
    assert (opens(world, OLD), opens(world, NEW)) == (not done, done)
    with pytest.raises(IntegrityFailure) as refused:
        sealing.open_seal(world.store, OLD if done else NEW, world.clock, os.urandom)
    in_force = "generation 2, sealed with a passphrase" if done else "generation 1, sealed with a key file"
    assert in_force in refused.value.detail, "whoever has both seals is told which one it is"
    shown = sealing.show_seal(world.store)
    assert (shown.generation, shown.private_keys) == (2 if done else 1, 1)
    sealing.rotate(world.store, NEW if done else OLD, OLD, world.clock, os.urandom)
    assert opens(world, OLD), "and it can be rotated again"


@pytest.mark.parametrize("sync", [0, 1])
def test_a_new_key_file_that_was_being_made_changes_nothing(world: World, tmp_path: Path, sync: int) -> None:
    """The file comes before the database: a crash in between leaves a file that opens nothing, and that the next rotation uses."""
    path = tmp_path / "new.seal"

    def act(store: SqlVaultStore, checkpoint: Callable[[str], None]) -> None:
        sealing.rotate(store, OLD, provided_key_file(path, os.urandom), world.clock, os.urandom, checkpoint)

    killed(world, act, sync)
    assert opens(world, OLD)
    new = provided_key_file(path, os.urandom)
    assert not opens(world, new)
    sealing.rotate(world.store, OLD, new, world.clock, os.urandom)
    assert (opens(world, OLD), opens(world, provided_key_file(path, os.urandom))) == (False, True)
