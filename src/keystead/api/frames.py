"""Many files in one answer: for each a head of 20 bytes, its id and its size, and then its bytes (docs/spec/http.md).

A file that is not there any more, or has become too large, has the size `GONE` and no bytes.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from keystead.core.errors import Unavailable
from keystead.core.formats.key_ref import id_of, raw_id

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from keystead.core.formats.aead import Readable

HEAD = struct.Struct(">16sI")
GONE = 0xFFFF_FFFF


def head(file_id: str, size: int) -> bytes:
    """What stands in front of a file's bytes."""
    return HEAD.pack(raw_id(file_id), size)


def split(chunks: Iterable[Readable], *, largest: int) -> Iterator[tuple[str, Iterable[memoryview] | None]]:
    """The files of an answer, nothing of them copied: id and bytes, in as many parts as they come in; None for one that is gone.

    Parts are good until the next one is asked for, and those of a file until the next file is.

    Args:
        chunks: the answer, in pieces of any size; each may be used again when the next is asked for.
        largest: no file has more bytes.

    Raises:
        Unavailable: `answer_invalid`: these are no frames, or the last is not whole. Also while a file's parts are taken.
    """
    stream = _Stream(chunks)
    while len(head := stream.exactly(HEAD.size)):
        raw, size = HEAD.unpack(head)
        if size == GONE:
            yield id_of(raw), None
            continue
        if size > largest:
            raise _invalid()
        parts = stream.parts(size)
        yield id_of(raw), parts
        for _left in parts:  # whoever did not want them
            pass


class _Stream:
    """Takes bytes from pieces of any sizes."""

    def __init__(self, chunks: Iterable[Readable]) -> None:
        self._chunks = iter(chunks)
        self._rest = memoryview(b"")

    def exactly(self, size: int) -> bytes | memoryview:
        """So many bytes; none at the end."""
        if len(self._rest) >= size:
            taken, self._rest = self._rest[:size], self._rest[size:]
            return taken
        held = b""
        while len(held) < size and self._more():
            taken, self._rest = self._rest[: size - len(held)], self._rest[size - len(held) :]
            held += taken
        if held and len(held) < size:
            raise _invalid()
        return held

    def parts(self, size: int) -> Iterator[memoryview]:
        """So many bytes as they come."""
        while size:
            if not self._more():
                raise _invalid()
            taken, self._rest = self._rest[:size], self._rest[size:]
            size -= len(taken)
            yield taken

    def _more(self) -> bool:
        """Whether there is anything left."""
        while not self._rest:
            chunk = next(self._chunks, None)
            if chunk is None:
                return False
            self._rest = memoryview(chunk)
        return True


def _invalid() -> Unavailable:
    return Unavailable("answer_invalid", "the answer with the files is not what this version knows, or not whole", "try again")
