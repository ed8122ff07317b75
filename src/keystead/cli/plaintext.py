"""Looks for texts in every file of a folder: `python -m keystead.cli.plaintext FOLDER`, the texts as JSON on standard input.

It is a process of its own on purpose. A process that has a SQLite database open must never open and close the file by itself: closing it
drops the locks the process holds (POSIX fcntl locks; sqlite.org, "How To Corrupt An SQLite Database File", section 2.2).
"""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Found:
    """What was looked through, and what was found: file name and text, for each text the first file that holds it."""

    files: int
    size: int
    hits: list[tuple[str, bytes]]


def look_for(folder: Path, texts: list[bytes]) -> Found:
    """Look for the texts, in a process of its own."""
    given = json.dumps([base64.b64encode(text).decode() for text in texts])
    done = subprocess.run(  # noqa: S603 - our own program
        [sys.executable, "-m", "keystead.cli.plaintext", str(folder)], input=given, capture_output=True, text=True, check=True
    )
    told = json.loads(done.stdout)
    return Found(told["files"], told["size"], [(name, base64.b64decode(text)) for name, text in told["hits"]])


def _main() -> None:
    texts = [base64.b64decode(text) for text in json.load(sys.stdin)]
    files = size = 0
    hits: dict[bytes, str] = {}
    for path in sorted(Path(sys.argv[1]).rglob("*")):
        if not path.is_file():
            continue
        data = path.read_bytes()
        files, size = files + 1, size + len(data)
        for text in texts:
            if text not in hits and text in data:
                hits[text] = path.name
    told = {"files": files, "size": size, "hits": [[name, base64.b64encode(text).decode()] for text, name in hits.items()]}
    sys.stdout.write(json.dumps(told))


if __name__ == "__main__":
    _main()
