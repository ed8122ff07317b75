"""Prints the figures of one benchmark's JSON. usage: python -m benchmarks.show FILE"""

from __future__ import annotations

import sys
from pathlib import Path

import msgspec
from benchmarks.timing import Figure, text_of


class _Result(msgspec.Struct):
    benchmark: str
    quick: bool
    figures: list[Figure]


if __name__ == "__main__":
    for figure in msgspec.json.decode(Path(sys.argv[1]).read_bytes(), type=_Result).figures:
        print(text_of(figure))
