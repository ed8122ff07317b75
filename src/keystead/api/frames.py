"""Many small files in one answer: for each a head of 20 bytes, its id and its size, and then its bytes (docs/spec/http.md).

A file that is not there any more, or has become too large, has the size `GONE` and no bytes.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from keystead.core.errors import Unavailable
from keystead.core.formats.key_ref import id_of, raw_id

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

HEAD = struct.Struct(">16sI")
GONE = 0xFFFF_FFFF


def head(file_id: str, size: int) -> bytes:
    """What stands in front of a file's bytes."""
    return HEAD.pack(raw_id(file_id), size)


def split(chunks: Iterable[bytes], *, largest: int) -> Iterator[tuple[str, bytes | None]]:
    """The files of an answer: id and bytes, None for one that is gone.

    Args:
        chunks: the answer, in pieces of any size.
        largest: no file has more bytes.

    Raises:
        Unavailable: `answer_invalid`: these are no frames, or the last is not whole.
    """
    held: list[bytes] = []
    there, wanted, current = 0, HEAD.size, ""
    for chunk in chunks:
        held.append(chunk)
        there += len(chunk)
        if there < wanted:
            continue
        data = memoryview(held[0] if len(held) == 1 else b"".join(held))
        start = 0
        while there - start >= wanted:
            part = data[start : start + wanted]
            start += wanted
            if current:
                yield current, bytes(part)
                wanted, current = HEAD.size, ""
                continue
            raw, size = HEAD.unpack(part)
            name = id_of(raw)
            if size == GONE:
                yield name, None
            elif size > largest:
                raise _invalid()
            else:
                wanted, current = size, name
        held, there = [bytes(data[start:])], there - start
    if there or current:
        raise _invalid()


def _invalid() -> Unavailable:
    return Unavailable("answer_invalid", "the answer with the files is not what this version knows, or not whole", "try again")
