"""Properties of mail handling that hold for any bytes: nothing lost, nothing raised."""

from __future__ import annotations

import base64
import quopri
import re
from email.parser import BytesHeaderParser

from hypothesis import example, given
from hypothesis import strategies as st

from keystead.core.stores.mbox import split
from keystead.core.stores.message import MALFORMED_REASONS, TEXT_LIMIT, header_fields, summarise
from keystead.core.stores.searchtext import _cannot_match, _fold, _texts, matches

SEPARATOR_INSIDE = re.compile(rb"(?:\A|\n)\r?\nFrom ")

pieces = st.sampled_from(
    [b"From ", b">From ", b"From", b"\n", b"\r\n", b"\r", b"\n\n", b"Subject: x", b" ", b"\x00\xff", b"body"]
) | st.binary(max_size=4)
texts = st.lists(pieces, max_size=12).map(b"".join)
line_ends = st.sampled_from([b"\n", b"\r\n"])


@st.composite
def mbox_items(draw: st.DrawFn) -> tuple[bytes, bytes]:
    """An item that mbox can hold, and its framing's line end."""
    ending = draw(line_ends)
    text = draw(texts)
    # A CR before the line end would make the line end another one.
    item = text.rstrip(b"\r") + ending if text.rstrip(b"\r") else b""
    # Only separators break an item in two; the documentation tells writers to quote them.
    while SEPARATOR_INSIDE.search(b"\n" + item if item.startswith((b"\n", b"\r")) else item):
        item = item.replace(b"From ", b"from ")
    return item, ending


def chunks(data: bytes, sizes: list[int]) -> list[bytes]:
    cut = [data[sum(sizes[:number]) :][:size] for number, size in enumerate(sizes)]
    return [*cut, data[sum(sizes) :]]


@given(st.lists(mbox_items(), max_size=5), st.lists(st.integers(0, 20), max_size=10))
def test_what_is_written_the_documented_way_is_split_into_the_same_items(items: list[tuple[bytes, bytes]], sizes: list[int]) -> None:
    data = b"".join(b"From alex@contoso.example" + ending + item + ending for item, ending in items)
    spans = split(chunks(data, sizes))
    assert [data[start : start + length] for start, length, _ in spans] == [item for item, _ in items]


@given(texts, st.lists(st.integers(0, 9), max_size=12))
def test_where_chunks_end_changes_nothing_and_no_byte_is_lost(data: bytes, sizes: list[int]) -> None:
    spans = list(split([data]))
    assert list(split(chunks(data, sizes))) == spans
    place = 0
    for start, length, _ in spans:
        # Between items lie one empty line at most and a separator line.
        assert re.fullmatch(rb"(?:\r?\n)?(?:From [^\n]*\n?)?", data[place:start])
        place = start + length
    assert re.fullmatch(rb"(?:\r?\n)?", data[place:])


header_lines = st.sampled_from(
    [
        b"Subject: =?utf-8?Q?a=C3=BC?=",
        b"Subject: =?",
        b"From: \xff <x@contoso.example>",
        b"Date: Mon, 8 Jan 2024 10:00:00 +0100",
        b"Date: 99 Foo -1 99:99:99 +99999999",
        b"Received: ; ;",
        b"Content-Type: multipart/mixed; boundary=x",
        b'Content-Type: text/html; charset="utf-7"',
        b"Content-Type: message/rfc822",
        b"Content-Type: text/plain; charset=hz; name*0*=x''%ff",
        b"Content-Transfer-Encoding: base64",
        b"Content-Transfer-Encoding: quoted-printable",
        b"BEGIN:VCALENDAR",
        b'ORGANIZER;CN="a":mailto:x',
        b"DTSTAMP:99999999T999999Z",
        b"--x",
        b"--x--",
        b"<p>text &#65; <!-- <script>",
        b"aGVsbG8",
        b"",
    ],
) | st.binary(max_size=30)
anything = st.binary(max_size=300) | st.tuples(st.lists(header_lines, max_size=12), line_ends).map(lambda drawn: drawn[1].join(drawn[0]))


@given(anything, st.booleans())
@example(b"Date: " + b"9" * 5000 + b"\n\n", False)  # noqa: FBT003
def test_summarising_never_raises_and_gives_text_that_can_be_shown(data: bytes, ics: bool) -> None:  # noqa: FBT001
    summary = summarise(data, ics=ics)
    for text in (summary.subject, summary.sender, summary.message_id):
        assert len(text) <= TEXT_LIMIT
        assert not re.search(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e]", text)
        assert text.encode().decode() == text
    assert summary.received is None or summary.received >= 0
    assert summary.malformed is None or summary.malformed in MALFORMED_REASONS


@given(anything, st.text(max_size=6))
def test_searching_never_raises(data: bytes, needle: str) -> None:
    assert matches(data, needle) in {True, False}


@given(anything, st.text(max_size=3) | st.sampled_from(["hello", "text", "a", "k", "x", "ss"]))
def test_the_quick_answer_is_the_full_answer(data: bytes, needle: str) -> None:
    folded = _fold(needle)
    if folded and _cannot_match(data, folded):
        assert not any(folded in _fold(text) for text in _texts(data))


@given(st.text(alphabet=st.characters(codec="utf-8", exclude_categories=["C"]), min_size=1, max_size=40))
def test_a_word_written_in_a_body_is_found_in_any_encoding(word: str) -> None:
    raw = word.encode()
    head = b"Content-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: "
    visible = bool(word.split())
    assert matches(head + b"8bit\n\n" + raw, word) is visible
    assert matches(head + b"base64\n\n" + base64.encodebytes(raw), word) is visible
    assert matches(head + b"quoted-printable\n\n" + quopri.encodestring(raw), word) is visible


field_names = st.text(st.characters(min_codepoint=33, max_codepoint=126, exclude_characters=":"), min_size=1, max_size=12)
line_texts = st.binary(max_size=12).map(lambda data: data.replace(b"\r", b"").replace(b"\n", b""))


@st.composite
def sound_fields(draw: st.DrawFn) -> bytes:
    """One field with its continuations, none of which is empty: an empty line would end the header block."""
    first = draw(field_names).encode() + b":" + draw(line_texts)
    folds = draw(st.lists(st.tuples(st.sampled_from([b" ", b"\t"]), line_texts).map(b"".join), max_size=3))
    ending = draw(line_ends)
    return b"".join(line + ending for line in (first, *folds))


@given(st.lists(sound_fields(), max_size=6).map(b"".join))
def test_fields_are_those_the_standard_library_finds(block: bytes) -> None:
    """The library is the reference for sound header blocks; ours is there because every import waits for it."""
    reference = [
        (name.lower(), re.sub(r"\r?\n[ \t]*", " ", str(value))) for name, value in BytesHeaderParser().parsebytes(block + b"\n").raw_items()
    ]
    assert header_fields(block).every == reference
