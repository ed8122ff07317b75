"""The folder through which the processes of one server share their counters; nothing here loads the library that fills it."""

from __future__ import annotations

import os
import shutil
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SHARED = "PROMETHEUS_MULTIPROC_DIR"
"""The library looks there, once, when it is first loaded: so this is set before."""
_PREFIX = "metrics-"


@contextmanager
def shared_figures(run: Path) -> Iterator[Path]:
    """A folder below `run` for the processes that are started inside the block; folders of servers that were killed go.

    Yields:
        The folder.
    """
    for left in run.glob(f"{_PREFIX}*"):
        if not _lives(left.name.removeprefix(_PREFIX)):
            shutil.rmtree(left, ignore_errors=True)
    folder = run / f"{_PREFIX}{os.getpid()}"
    folder.mkdir(mode=0o700)
    os.environ[SHARED] = str(folder)
    try:
        yield folder
    finally:
        del os.environ[SHARED]
        shutil.rmtree(folder, ignore_errors=True)


def forget_process(folder: Path, process: int) -> None:
    """A process has ended: what it counted stays, what it was doing does not."""
    for file in folder.glob(f"gauge_live*_{process}.db"):
        file.unlink(missing_ok=True)


def _lives(process: str) -> bool:
    try:
        os.kill(int(process), 0)
    except (ProcessLookupError, ValueError, OverflowError):
        return False
    except PermissionError:
        return True
    return True
