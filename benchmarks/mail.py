"""Mail to measure with: as large and as compressible as real mail, the same for the same seed.

Bodies have 2 to 60 KB, small ones being more frequent, 13 KB on average. Text is words by Zipf's law, which level 3 of zstd
halves or better, as it does real text; every fourth message carries an attachment in base64, which is most of it.
"""

from __future__ import annotations

import base64
import random
from itertools import islice
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SMALLEST, LARGEST = 2_000, 60_000
SHAPE = 1.65
"""Exponent that brings the average to 13 KB."""
_POOL_BYTES = 4_000_000
_WORDS = 3_000
_LETTERS = "etaoinshrdlcumwfgypbvk"


class MailMaker:
    """Makes messages.

    Args:
        seed: equal seeds make equal mail.
        scale: factor for all sizes.
    """

    def __init__(self, seed: int, scale: float = 1.0) -> None:
        self._random = random.Random(seed)
        self._scale = scale
        self._number = 0
        words = [
            "".join(self._random.choices(_LETTERS, range(len(_LETTERS), 0, -1), k=self._random.randrange(2, 11))) for _ in range(_WORDS)
        ]
        chosen = self._random.choices(words, [1 / rank for rank in range(1, _WORDS + 1)], k=_POOL_BYTES // 5)
        lines = [" ".join(chosen[start : start + 12]) for start in range(0, len(chosen), 12)]
        self._text = "\n".join(lines).encode()
        self._attachment = base64.encodebytes(self._random.randbytes(_POOL_BYTES))

    def message(self) -> bytes:
        self._number += 1
        size = int(SMALLEST * (LARGEST / SMALLEST) ** (self._random.random() ** SHAPE) * self._scale)
        head = (
            f"Received: from mail.fabrikam.example by mail.contoso.example with ESMTP id {self._number:08d};\n"
            f"\tMon, 1 Jun 2026 {self._number // 3600 % 24:02}:{self._number // 60 % 60:02}:{self._number % 60:02} +0000\n"
            f"From: sender{self._random.randrange(200)}@fabrikam.example\nTo: alex@contoso.example\n"
            f"Subject: {self._cut(self._text, 40).decode().strip()!r} {self._number}\n"
            f"Date: Mon, 1 Jun 2026 {self._number // 3600 % 24:02}:{self._number // 60 % 60:02}:{self._number % 60:02} +0000\n"
            f"Message-ID: <bench-{self._number}@fabrikam.example>\nMIME-Version: 1.0\n"
        ).encode()
        if self._number % 4:
            return head + b"Content-Type: text/plain; charset=utf-8\n\n" + self._cut(self._text, size) + b"\n"
        text = b"--part\nContent-Type: text/plain\n\n" + self._cut(self._text, size // 5) + b"\n"
        attached = b"--part\nContent-Type: application/octet-stream\nContent-Transfer-Encoding: base64\n\n" + self._cut(
            self._attachment, size
        )
        return head + b'Content-Type: multipart/mixed; boundary="part"\n\n' + text + attached + b"\n--part--\n"

    def _cut(self, pool: bytes, size: int) -> bytes:
        start = self._random.randrange(len(pool) - size)
        # A line that begins with "From " would be a separator in an mbox only after an empty line, and the pools have none.
        return pool[start : start + size].replace(b"\n\n", b"\n ")

    def __iter__(self) -> Iterator[bytes]:
        while True:
            yield self.message()


def write_maildir(folder: Path, count: int, seed: int = 1) -> int:
    """A Maildir of that many messages; bytes of all of them."""
    for name in ("cur", "new", "tmp"):
        (folder / name).mkdir(parents=True)
    size = 0
    for number, message in enumerate(islice(MailMaker(seed), count)):
        size += (folder / "cur" / f"{1_780_000_000 + number}.{number}.bench:2,S").write_bytes(message)
    return size


def write_mbox(file: Path, total: int, seed: int = 1, scale: float = 1.0) -> int:
    """An mbox file with messages of that many bytes together, or a little more; how many messages."""
    written = count = 0
    with file.open("wb") as out:
        for message in MailMaker(seed, scale):
            out.write(b"From sender@fabrikam.example Mon Jun  1 00:00:00 2026\n" + message + b"\n")
            written += len(message)
            count += 1
            if written >= total:
                return count
    raise AssertionError
