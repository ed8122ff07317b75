"""A process that dies: stops at the n-th step that anything outside its memory could notice, and does nothing ever after.

Steps are: a transaction begins, a transaction was committed, an object is about to be stored, was stored, is about to be deleted, was
deleted, a key is about to be destroyed, was destroyed, and every `Services.checkpoint`. The dead process's objects are not used again;
the world is opened by another process, as after `kill -9`.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from support.world import Process, World


class Killed(BaseException):
    """The process is dead. Not an Exception: nothing in the service may catch it and carry on."""


class Fuse:
    """Counts steps; burns through at one of them and stays burnt.

    Attributes:
        steps: names of the steps so far; what a name says has happened.
    """

    def __init__(self, at: int) -> None:
        self.at = at
        self.steps: list[str] = []

    def step(self, name: str) -> None:
        """One step; the last one in `steps` is where the process died."""
        if len(self.steps) > self.at:
            raise Killed("a dead process does nothing")
        self.steps.append(name)
        if len(self.steps) > self.at:
            raise Killed(name)


class DyingDatabase:
    """Transactions begin and end with a step."""

    def __init__(self, inner: Any, fuse: Fuse) -> None:
        self._inner, self._fuse = inner, fuse

    @contextmanager
    def write(self) -> Iterator[Any]:
        self._fuse.step("transaction")
        with self._inner.write() as tx:
            yield tx
            self._fuse.step("before commit")
        self._fuse.step("committed")

    @contextmanager
    def read(self) -> Iterator[Any]:
        with self._inner.read() as tx:
            yield tx


class DyingStore:
    """Named methods are steps, before and after; everything else passes."""

    def __init__(self, inner: Any, fuse: Fuse, *names: str) -> None:
        self._inner, self._fuse, self._names = inner, fuse, names

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._inner, name)
        if name not in self._names:
            return method

        def stepped(*args: Any, **kwargs: Any) -> Any:
            self._fuse.step(f"before {name}")
            answer = method(*args, **kwargs)
            self._fuse.step(f"after {name}")
            return answer

        return stepped


def dying_process(world: World, fuse: Fuse, **changes: Any) -> Process:
    """A process of the world that dies when the fuse says so."""
    plain = world.services
    return world.process(
        "dying",
        db=DyingDatabase(plain.db, fuse),
        objects=DyingStore(plain.objects, fuse, "put", "delete"),
        keystore=DyingStore(plain.keystore, fuse, "create", "destroy"),
        checkpoint=fuse.step,
        **changes,
    )


def die_at_every_step(
    prepare: Callable[[], Callable[[Fuse], None]], check: Callable[[Fuse], None], *, first: int = 0, stride: int = 1
) -> int:
    """Run an act again and again, killed later each time, until it gets through; returns how many steps it has.

    Args:
        prepare: sets a fresh scene and returns the act to be killed.
        check: what must hold after each run, killed or not.
        first: the step to start at.
        stride: 1 for every step; more to look at every second, third, ...
    """
    for at in range(first, 500, stride):
        act = prepare()
        fuse = Fuse(at)
        try:
            act(fuse)
        except Killed:
            check(fuse)
            continue
        check(fuse)
        return len(fuse.steps)
    raise AssertionError("the act has more than 500 steps")
