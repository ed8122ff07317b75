"""A folder of files to measure with, the same for the same seed: most small, some large, in folders as people make them."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from benchmarks.timing import MIB

if TYPE_CHECKING:
    from pathlib import Path

FILES, FEW = 5_000, 400
KIB = 1024
SMALLEST, LARGEST = KIB, 64 * KIB
"""Of the small files; small ones are more frequent: equally many in each doubling of the size."""
LARGE_EVERY = 125
LARGE_SMALLEST, LARGE_LARGEST = MIB, 10 * MIB
FILES_A_FOLDER, FOLDERS_A_FOLDER = 25, 5
_POOL_BYTES = 16 * MIB


def write_tree(folder: Path, files: int, seed: int = 1) -> int:
    """Make a folder with so many files; their bytes in all. 5,000 files have some 310 MB."""
    source = random.Random(seed)
    pool = source.randbytes(_POOL_BYTES)
    folders = [folder]
    total = 0
    for number in range(files):
        if number % FILES_A_FOLDER == 0:
            parent = folders[(len(folders) - 1) // FOLDERS_A_FOLDER]
            folders.append(parent / f"Folder {len(folders):03}")
            folders[-1].mkdir(parents=True, exist_ok=True)
        size = _size(source, large=number % LARGE_EVERY == LARGE_EVERY - 1)
        start = source.randrange(_POOL_BYTES - size)
        (folders[-1] / f"Document {number:05}.bin").write_bytes(pool[start : start + size])
        total += size
    return total


def _size(source: random.Random, *, large: bool) -> int:
    if large:
        return source.randrange(LARGE_SMALLEST, LARGE_LARGEST)
    return int(SMALLEST * (LARGEST / SMALLEST) ** source.random())


def same(left: Path, right: Path) -> bool:
    """Whether two folders hold the same files with the same bytes."""
    names = [sorted(found.relative_to(side) for found in side.rglob("*") if found.is_file()) for side in (left, right)]
    return names[0] == names[1] and all((left / name).read_bytes() == (right / name).read_bytes() for name in names[0])
