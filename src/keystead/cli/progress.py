"""Progress bars, on a terminal only. `rich` is imported when one is shown."""

from __future__ import annotations

import contextlib
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rich.progress import ProgressColumn


@contextlib.contextmanager
def percent_bar(what: str) -> Iterator[Callable[[float], None]]:
    """A bar from 0 to 100 percent. Gives the function that moves it."""
    if not sys.stderr.isatty():
        yield _nothing
        return
    from rich.progress import TaskProgressColumn

    with _bar(what, 100, [TaskProgressColumn()]) as update:
        yield update


@contextlib.contextmanager
def bytes_bar(what: str, total: int) -> Iterator[Callable[[float], None]]:
    """A bar over a number of bytes, with the rate. Gives the function that is told how many are done."""
    if not sys.stderr.isatty():
        yield _nothing
        return
    from rich.progress import DownloadColumn, TransferSpeedColumn

    with _bar(what, total, [DownloadColumn(), TransferSpeedColumn()]) as update:
        yield update


def _nothing(_done: float) -> None:
    """Nobody is watching."""


@contextlib.contextmanager
def _bar(what: str, total: float, columns: list[ProgressColumn]) -> Iterator[Callable[[float], None]]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    with Progress(
        TextColumn("{task.description}"), BarColumn(), *columns, TimeRemainingColumn(), console=Console(stderr=True), transient=True
    ) as progress:
        task = progress.add_task(what, total=total)
        yield lambda done: progress.update(task, completed=done)
