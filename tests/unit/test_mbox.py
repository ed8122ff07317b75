"""Splitting mbox files as docs/spec/mail-items.md lays down (R-096: what is stored is what came)."""

from __future__ import annotations

import pytest

from keystead.core.stores.mbox import MboxSplitter, Span, split


def items(data: bytes, size: int = 1 << 20) -> list[bytes]:
    chunks = (data[at : at + size] for at in range(0, len(data), size))
    return [data[span.start : span.start + span.length] for span in split(chunks)]


CASES = {
    "an empty file holds nothing": (b"", []),
    "one item, with the empty line at the end": (b"From a\nSubject: x\n\nbody\n\n", [b"Subject: x\n\nbody\n"]),
    "one item, without it": (b"From a\nSubject: x\n\nbody\n", [b"Subject: x\n\nbody\n"]),
    "one item, cut in its last line": (b"From a\nSubject: x\n\nbod", [b"Subject: x\n\nbod"]),
    "only one empty line is taken off": (b"From a\nS: x\n\n\n\nFrom b\nS: y\n\n\n", [b"S: x\n\n\n", b"S: y\n\n"]),
    "CR LF": (b"From a\r\nS: x\r\n\r\nbody\r\n\r\nFrom b\r\nS: y\r\n\r\n", [b"S: x\r\n\r\nbody\r\n", b"S: y\r\n"]),
    "mixed line ends": (b"From a\r\nS: x\n\r\nFrom b\nS: y\r\n\nFrom c\nS: z\n", [b"S: x\n", b"S: y\r\n", b"S: z\n"]),
    "From inside a paragraph": (b"From a\nS: x\n\nline\nFrom here on\nmore\n\n", [b"S: x\n\nline\nFrom here on\nmore\n"]),
    "quoted From stays quoted": (b"From a\nS: x\n\n>From b\n>>From c\n\n", [b"S: x\n\n>From b\n>>From c\n"]),
    "From without a space": (b"From a\nS: x\n\nFrom: b\n\nFromage\n", [b"S: x\n\nFrom: b\n\nFromage\n"]),
    "a line of spaces is not empty": (b"From a\nS: x\n \nFrom b\n", [b"S: x\n \nFrom b\n"]),
    "a bare CR is not an empty line": (b"From a\nS: x\n\rFrom b\n", [b"S: x\n\rFrom b\n"]),
    "an empty item between separators": (b"From a\n\nFrom b\n\nFrom c\n", [b"", b"", b""]),
    "an empty item of a CR LF file": (b"From a\r\n\r\nFrom b\r\n\r\n", [b"", b""]),
    "two separator lines at once are one and its item": (b"From a\nFrom b\n", [b"From b\n"]),
    "a separator that nothing ends": (b"From a\nS: x\n\nFrom b", [b"S: x\n", b""]),
    "an unfinished separator is text": (b"From a\nS: x\n\nFrom", [b"S: x\n\nFrom"]),
    "no separator at all": (b"S: x\n\nbody\n\n", [b"S: x\n\nbody\n\n"]),
    "empty lines before the first separator": (b"\nFrom a\nS: x\n", [b"S: x\n"]),
    "a CR LF line before the first separator": (b"\r\nFrom a\nS: x\n", [b"S: x\n"]),
    "text before the first separator": (b"lost\n\nFrom a\nS: x\n", [b"lost\n", b"S: x\n"]),
    "any bytes": (b"From a\n\x00\xff\n\xfe\r\n\r\nFrom b\n\x80", [b"\x00\xff\n\xfe\r\n", b"\x80"]),
}


@pytest.mark.parametrize("size", [1, 2, 3, 5, 8, 1 << 20])
@pytest.mark.parametrize("name", CASES)
def test_the_items_of_a_file_wherever_chunks_end(name: str, size: int) -> None:
    data, expected = CASES[name]
    assert items(data, size) == expected


def test_only_bytes_before_a_first_separator_are_leading() -> None:
    assert list(split([b"lost\n\nFrom a\nS: x\n"])) == [Span(0, 5, leading=True), Span(13, 5)]
    assert list(split([b"S: x\n\nwhole file\n"])) == [Span(0, 17)]


def test_an_item_is_told_as_soon_as_its_end_is_known() -> None:
    splitter = MboxSplitter()
    assert splitter.feed(b"From a\nS: x\n") == []
    assert splitter.feed(b"\nFrom ") == [Span(7, 5)]
    assert splitter.feed(b"b\nS: y\n") == []
    assert splitter.finish() == [Span(20, 5)]


def test_what_is_kept_between_chunks_does_not_grow() -> None:
    splitter = MboxSplitter()
    for chunk in (b"From a\n", b"x" * 1000, b"\n" * 1000, b"From " * 1000):
        splitter.feed(chunk)
        assert len(splitter._tail) <= 7
