"""A vault that dies around the commit of its log: what answered is on the log, and what did not get there has not answered (R-067)."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from keystead.core.errors import Forbidden
from keystead.vault import operations
from keystead.vault.journal import Journal
from keystead.vault.operations import Place
from support.crash import Fuse, die_at_every_step
from vault.world import World

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

PLACE = Place("ContosoVault1", "root", None)
SECRET = bytes(range(32))


class DyingStore:
    """The vault's store; transactions begin and end with a step."""

    def __init__(self, inner: Any, fuse: Fuse) -> None:
        self._inner, self._fuse = inner, fuse

    def reading(self) -> Any:
        self._fuse.step("reading")
        return self._inner.reading()

    @contextmanager
    def appending(self) -> Iterator[Any]:
        self._fuse.step("transaction")
        with self._inner.appending() as tx:
            yield tx
            self._fuse.step("before commit")
        self._fuse.step("committed")


def test_a_vault_that_dies_has_answered_nothing_that_its_log_lacks(tmp_path: Path, database: str) -> None:
    """R-067: killed at every step of two calls, one allowed and one refused."""
    scene: dict[str, Any] = {}
    runs = iter(range(100))

    def prepare() -> Callable[[Fuse], None]:
        folder = tmp_path / str(next(runs))
        folder.mkdir()
        world = World(folder)
        world.ready()
        scene.update(world=world, answers=[], before=len(world.log()))

        def act(fuse: Fuse) -> None:
            store: Any = DyingStore(world.store, fuse)
            dying = replace(world.vault, store=store, journal=Journal(store))
            try:
                scene["answers"].append(operations.wrap_key(dying, world.identity(), PLACE, "RSA-OAEP-256", SECRET).value)
                with pytest.raises(Forbidden) as refused:
                    operations.wrap_key(dying, world.identity("files"), PLACE, "RSA-OAEP-256", SECRET)
                scene["answers"].append(refused.value)
            finally:
                dying.journal.close()

        return act

    def check(fuse: Fuse) -> None:
        world = scene["world"]
        recorded = len(world.log()) - scene["before"]
        assert len(scene["answers"]) <= recorded == fuse.steps.count("committed")
        world.close()

    assert die_at_every_step(prepare, check) == 9
