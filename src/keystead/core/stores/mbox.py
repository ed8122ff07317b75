"""Splitting an mbox file into items, byte for byte (docs/spec/mail-items.md).

- An *empty line* is `LF` or `CR LF` with nothing before it on its line.
- A *separator* is a line that starts with `From ` (five bytes) and is the first line of the file or comes right after an empty line.
- An item is the bytes after its separator line up to the next separator or the end of the file, less one empty line right before that.
- Bytes before the first separator are an item too (`Span.leading`); a file without any separator is one item, whole.
- Nothing is unquoted, no line end is changed, nothing is dropped but separator lines and the one empty line before each.

The splitter gives *spans* (offset and length in the file), not bytes, so memory stays flat however large the file or its items are:

    for span in split(chunks):
        data = os.pread(descriptor, span.length, span.start)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_NEEDLE = b"\nFrom "
_LOOK_BACK = 2
"""Bytes before the needle that tell whether the line it ends is empty: `LF`, or `LF CR`."""
_KEEP = _LOOK_BACK + len(_NEEDLE) - 1
"""Bytes of one chunk that may belong to a separator completed by the next one."""


class Span(NamedTuple):
    """One item of an mbox file.

    Attributes:
        start: offset of its first byte in the file.
        length: in bytes; 0 for a separator with nothing behind it.
        leading: these are the bytes before the first separator of a file that has one, so nothing says that they are an item.
    """

    start: int
    length: int
    leading: bool = False


class MboxSplitter:
    """Finds the items of one mbox file, fed in chunks of any size and in order.

    The state is a few integers and the last seven bytes, so the result does not depend on where chunks end.
    """

    def __init__(self) -> None:
        # Two line ends before the first byte make "the start of the file" a case of "after an empty line".
        self._tail = b"\n\n"
        self._base = -len(self._tail)
        self._scan = self._base
        self._start: int | None = None
        self._in_separator = False

    def feed(self, chunk: bytes) -> list[Span]:
        """The items whose end this chunk shows, in order.

        Args:
            chunk: the next bytes of the file; may be empty.
        """
        buffer = self._tail + chunk
        spans: list[Span] = []
        while self._advance(buffer, spans):
            pass
        # Every line feed with five bytes behind it has been looked at; the rest waits for the next chunk.
        self._scan = max(self._scan, self._base + len(buffer) - len(_NEEDLE) + 1)
        keep = min(_KEEP, len(buffer))
        self._base += len(buffer) - keep
        self._tail = buffer[len(buffer) - keep :]
        return spans

    def finish(self) -> list[Span]:
        """The last item, if any; the file ends here."""
        end = self._base + len(self._tail)
        if self._in_separator:
            return [Span(end, 0)]
        if self._start is None:
            return [Span(0, end)] if end else []
        return [Span(self._start, end - _trailing_empty_line(self._tail) - self._start)]

    def _advance(self, buffer: bytes, spans: list[Span]) -> bool:
        """Take one step: to the end of a separator line, or to the next candidate; False when the buffer holds no more."""
        if self._in_separator:
            found = buffer.find(b"\n", max(self._scan - self._base, 0))
            if found < 0:
                self._scan = self._base + len(buffer)
                return False
            self._in_separator = False
            self._scan = self._start = self._base + found + 1
            return True
        found = buffer.find(_NEEDLE, max(self._scan - self._base, 0))
        if found < 0:
            return False
        self._scan = self._base + found + 1
        empty_line = _trailing_empty_line(buffer[max(found - _LOOK_BACK, 0) : found + 1])
        if empty_line:
            self._close_item(self._scan - empty_line, spans)
            self._in_separator = True
        return True

    def _close_item(self, end: int, spans: list[Span]) -> None:
        if self._start is not None:
            spans.append(Span(self._start, end - self._start))
        elif end > 0:
            spans.append(Span(0, end, leading=True))


def split(chunks: Iterable[bytes]) -> Iterator[Span]:
    """The items of an mbox file given as consecutive chunks, in order."""
    splitter = MboxSplitter()
    for chunk in chunks:
        yield from splitter.feed(chunk)
    yield from splitter.finish()


def _trailing_empty_line(data: bytes) -> int:
    """Length of the empty line that the data ends with: 1, 2 (with CR) or 0."""
    if data.endswith(b"\n\n"):
        return 1
    return 2 if data.endswith(b"\n\r\n") else 0
