"""`kill -9` after every step of the key store: the next open works, nothing is lost, the destroyed stay destroyed."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import pytest

from contracts.keystores.homes import Home
from keystead.core.errors import IntegrityFailure, NotFound
from keystead.ports.keystore import Compartment

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from keystead.adapters.keystores.sql import SqlKeyStore

MAIL = Compartment.AVAILABILITY_MAIL
CONTEXT = b"tenant/policy/1"
KEPT = ["k2", "k3"]
FIRST_STEPS = ["first epoch file written", "first epoch committed"]
REWRITE_STEPS = ["new epoch file written", "entries sealed anew", "new epoch committed", "other epoch files removed", "log emptied"]
IN_FORCE_FROM = REWRITE_STEPS.index("new epoch committed")
BEFORE_COMMIT = {*REWRITE_STEPS[:IN_FORCE_FROM], 0, 1}


@pytest.fixture
def home(tmp_path: Path, database: str) -> Iterator[Home]:
    made = Home(tmp_path)
    yield made
    made.close()
    made.stores.close()


def killed(home: Home, act: Callable[[Callable[[str], None]], object], step: str | int) -> None:
    """Run an act in a process of its own and kill that after the named step, or before its n-th fsync of a file."""
    home.close()  # SQLite connections must not be carried into a fork
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

            os.fsync = fsync  # type: ignore[assignment]
            act(lambda name: die() if name == step else None)
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status), f"the process ended without reaching {step!r}"


def filled(home: Home) -> dict[str, bytes]:
    """Three keys, and a value sealed under each."""
    store = home.process()
    for key_id in ["k1", *KEPT]:
        store.create(MAIL, key_id)
    return {key_id: store.seal(MAIL, key_id, key_id.encode(), CONTEXT) for key_id in ["k1", *KEPT]}


def assert_nothing_lost(store: SqlKeyStore, boxes: dict[str, bytes], keys: list[str]) -> None:
    assert {key_id: store.open(MAIL, key_id, boxes[key_id], CONTEXT) for key_id in keys} == {key_id: key_id.encode() for key_id in keys}


def live_files(home: Home) -> list[str]:
    return [name for name in home.epoch_files() if "availability-mail" in name]


def test_the_steps_are_those_listed_here(home: Home) -> None:
    steps: list[str] = []
    store = home.process(checkpoint=steps.append)
    assert steps == FIRST_STEPS * len(Compartment)
    steps.clear()
    store.create(MAIL, "k1")
    store.rotate(MAIL)
    assert steps == REWRITE_STEPS
    steps.clear()
    store.destroy(MAIL, ["k1"])
    assert steps == REWRITE_STEPS


@pytest.mark.parametrize("step", [*FIRST_STEPS, 0, 1])
def test_a_first_start_that_was_killed_is_finished_by_the_next(home: Home, step: str | int) -> None:
    killed(home, lambda checkpoint: home.process(checkpoint=checkpoint), step)
    boxes = filled(home)
    home.close()
    assert_nothing_lost(home.process(), boxes, ["k1", *KEPT])
    home.process().rotate(MAIL)
    assert live_files(home) == ["keystore-availability-mail.2"]


@pytest.mark.parametrize("step", [*REWRITE_STEPS, 0, 1, 2, 3])
def test_a_rotation_that_was_killed_loses_nothing(home: Home, step: str | int) -> None:
    boxes = filled(home)
    killed(home, lambda checkpoint: home.process(checkpoint=checkpoint).rotate(MAIL), step)
    store = home.process()
    assert_nothing_lost(store, boxes, ["k1", *KEPT])
    assert len(live_files(home)) == (2 if home.on_server and step in BEFORE_COMMIT else 1), "a fleet keeps a file of a later epoch"
    epoch = store.rotate(MAIL)
    assert_nothing_lost(store, boxes, ["k1", *KEPT])
    assert live_files(home) == [f"keystore-availability-mail.{epoch}"]


@pytest.mark.parametrize("step", [*REWRITE_STEPS, 0, 1, 2, 3])
def test_a_destruction_that_was_killed_is_finished_by_the_next_start_or_call(home: Home, step: str | int) -> None:
    """R-151: from the commit on the key is gone; once `destroy` has returned no older copy of the database opens."""
    boxes = filled(home)
    home.close()
    backup = home.stores.backup("keys")
    killed(home, lambda checkpoint: home.process(checkpoint=checkpoint).destroy(MAIL, ["k1"]), step)

    store = home.process()
    assert_nothing_lost(store, boxes, KEPT)
    gone = "k1" not in {entry.key_id for entry in store.entries(MAIL)}
    assert gone == (step in {*REWRITE_STEPS[IN_FORCE_FROM:], 2, 3}), "the commit decides, nothing else"
    kept = [2] if gone else [1, 2] if home.on_server else [1]
    assert live_files(home) == [f"keystore-availability-mail.{epoch}" for epoch in kept], "a start leaves the epoch in force alone"
    store.destroy(MAIL, ["k1"])
    home.close()

    store = home.process()
    with pytest.raises(NotFound):
        store.open(MAIL, "k1", boxes["k1"], CONTEXT)
    assert_nothing_lost(store, boxes, KEPT)
    home.close()
    home.stores.restore("keys", backup)
    with pytest.raises(IntegrityFailure, match=r"keystore-availability-mail\.1 is missing"):
        home.process()


@pytest.mark.parametrize("step", REWRITE_STEPS)
def test_a_process_that_kept_running_finishes_what_another_left(home: Home, step: str) -> None:
    boxes = filled(home)
    killed(home, lambda checkpoint: home.process(checkpoint=checkpoint).destroy(MAIL, ["k1"]), step)
    store = home.running()
    store.destroy(MAIL, ["k1"])
    assert len(live_files(home)) == 1
    assert home.on_server or (home.folder / "keys.db-wal").stat().st_size == 0
    assert_nothing_lost(store, boxes, KEPT)
