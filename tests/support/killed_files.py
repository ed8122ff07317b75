"""What the process does that `tests/crash/test_kill_files.py` kills: it puts files over and over, and says which are durable."""

from __future__ import annotations

import hashlib
import io
import sys
from itertools import count
from pathlib import Path

from keystead.api.call import Upload
from keystead.api.types import sites as s
from keystead.core.stores.files import CHUNK_BYTES
from keystead.wiring import open_home

ADMIN = "admin@contoso.example"
SITE = "https://contoso.example/sites/killed"
NAMES = 7
LARGE = 3
"""Number of the name that holds several chunks."""
BATCH = 5
"""Number of the one that comes in a batch, with another beside it that is the same."""


def content(name: int, turn: int) -> bytes:
    """What a file holds after that turn."""
    label = f"{name} {turn}".encode()
    if name != LARGE:
        return hashlib.shake_256(label).digest(1_000 + 10_000 * name)
    kept, fresh = hashlib.shake_256(b"kept"), hashlib.shake_256(label)  # its first chunk stays what it is
    return kept.digest(CHUNK_BYTES) + fresh.digest(CHUNK_BYTES + 1_000)


def act(path: Path, first: int) -> None:
    """Put every file in turn, from a turn on, until the end comes."""
    home = open_home(path)
    client = home.client(home.as_person(ADMIN))
    said = sys.stdout
    said.write("begun\n")
    said.flush()
    for turn in count(first):
        for name in range(NAMES):
            data = content(name, turn)
            if name == BATCH:
                files = [s.BatchFile(path=f"/{twin}/{name}", data=data) for twin in ("one", "two")]
                client.call("site.put-batch", s.UploadBatch(site=SITE, files=files))
            else:
                client.call("site.put", s.UploadFile(site=SITE, path=f"/{name}"), upload=Upload(len(data), io.BytesIO(data).read))
            said.write(f"{turn} {name}\n")
            said.flush()


if __name__ == "__main__":
    act(Path(sys.argv[1]), int(sys.argv[2]))
