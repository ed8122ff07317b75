"""Whether an item contains a text, as the person who wrote or reads it would see it (docs/spec/mail-items.md, "Search").

Searched: subject, correspondents and their names, text and HTML parts (transfer encoding and charset undone, tags and entities taken out),
text attachments, names of attachments, messages inside messages, calendars. Not searched: pictures, PDF, archives and office files.

Letter case does not count (Unicode case folding), nor does how white space and line ends are spread between words.

Nothing is kept: the text of an item exists while it is searched. No bytes make it raise, and work is bounded by the limits below; what lies
beyond them is not found.
"""

from __future__ import annotations

import binascii
import codecs
import html
import re
import unicodedata
from dataclasses import dataclass
from typing import TYPE_CHECKING

from keystead.core.stores.message import (
    HEADER_LIMIT,
    HeaderFields,
    calendar_text,
    decode_base64,
    decode_text,
    decode_words,
    header_end,
    header_fields,
    is_calendar,
    unescape_calendar,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

TEXT_BYTES_LIMIT = 16 * 1024 * 1024
"""Encoded bytes of text parts that are searched in one item; the rest of a larger text is not."""
PARTS_LIMIT = 1_000
"""Parts of one item that are looked at."""
DEPTH_LIMIT = 16
"""Multiparts and messages inside one another that are entered; deeper ones are searched as plain text."""
NAME_LIMIT = 4_096
"""Characters of a Content-Type or Content-Disposition field that are parsed."""


def matches(data: bytes, needle: str) -> bool:
    """Whether the item contains the text.

    Args:
        data: the whole item, byte for byte as it came.
        needle: what to look for. Text without a visible character is found nowhere.
    """
    wanted = _needles(needle)
    if not wanted or _cannot_match(data, wanted[0]):
        return False
    return any(any(text in searchable for text in wanted) for searchable in map(_fold, _texts(data)))


def _fold(text: str) -> str:
    """The form in which texts are compared: case folded, every run of white space one space."""
    return " ".join(text.casefold().split())


def _needles(needle: str) -> tuple[str, ...]:
    """The needle, as given and with accents composed and decomposed.

    The needle is normalised rather than the item: normalising takes time beyond proportion for long runs of combining marks.
    """
    spellings = (needle, unicodedata.normalize("NFC", needle), unicodedata.normalize("NFD", needle))
    return tuple(dict.fromkeys(folded for folded in map(_fold, spellings) if folded))


# --- quick answer -------------------------------------------------------------------------------------------------------------------

_QUICK_LIMIT = 1024 * 1024
"""Bytes of an item up to which trying for a quick answer costs little; larger ones nearly always hold encoded parts."""
_CODED = (b"=?", b"*=", b"name*", b"\\", b"base64", b"quoted-printable", b"text/html", b"calendar", b"/ics", b".htm", b".ics")
"""What shows, in lower case, that some text of the item is written otherwise than it reads."""
_PLAIN_CHARSET = re.compile(rb'charset="?(?:us-ascii|utf-8|iso-8859-[0-9]{1,2}|windows-125[0-9])\b')


def _cannot_match(data: bytes, folded: str) -> bool:
    """Whether the raw bytes already show that the text is not there; False where only the full search can tell.

    Safe because for an item of ASCII bytes without any encoding, markup or folded words, each word of every searched text stands in the raw
    bytes as it is, except for its case. Words outside ASCII cannot stand there; those with a space could be spread over lines.
    """
    if len(data) > _QUICK_LIMIT or not data.isascii() or not folded.isascii() or " " in folded or is_calendar(data):
        return False
    lower = data.lower()
    if any(mark in lower for mark in _CODED) or lower.count(b"charset") != len(_PLAIN_CHARSET.findall(lower)):
        return False
    return folded.encode("ascii") not in lower


# --- walking the parts --------------------------------------------------------------------------------------------------------------

_HEADER = re.compile(r"subject|(?:resent-)?(?:from|sender|to|cc|bcc)|reply-to|comments|keywords|thread-topic")
_TEXT_SUFFIX = re.compile(r"\.(txt|text|csv|tsv|md|log|json|xml|yaml|yml|vcf|html?|ics|eml)\Z", re.IGNORECASE)
_TEXT_TYPES = frozenset({"application/json", "application/xml", "application/ics", "application/x-yaml", "application/rtf"})
_CALENDAR_TYPES = frozenset({"text/calendar", "application/ics"})
_TYPE_OF_SUFFIX = {"htm": "text/html", "html": "text/html", "ics": "text/calendar", "eml": "message/rfc822"}


@dataclass(slots=True)
class _Budget:
    """What may still be looked at; shared by all parts of one item."""

    parts: int = PARTS_LIMIT
    text_bytes: int = TEXT_BYTES_LIMIT

    def take(self, length: int) -> int:
        granted = min(length, self.text_bytes)
        self.text_bytes -= granted
        return granted


@dataclass(frozen=True, slots=True)
class _Region:
    """Bytes of the item (or of what an encoded part of it decoded to), named by place instead of copied."""

    data: bytes
    start: int
    stop: int
    depth: int


def _texts(data: bytes) -> Iterator[str]:
    """Every searched text of the item, decoded."""
    budget = _Budget()
    if is_calendar(data):
        yield unescape_calendar(calendar_text(data[: budget.take(len(data))]))
        return
    yield from _message(_Region(data, 0, len(data), 0), budget)


def _message(region: _Region, budget: _Budget) -> Iterator[str]:
    """A whole message: its own headers, then its body."""
    fields, body = _headers(region)
    yield from (decode_words(value) for name, value in fields.every if _HEADER.fullmatch(name))
    if fields.broken:
        # Perhaps the empty line after the headers is missing, and the broken lines are the text.
        yield decode_text(region.data[region.start : min(body.start, region.start + HEADER_LIMIT)])
    yield from _entity(fields, body, budget, "text/plain")


def _headers(region: _Region) -> tuple[HeaderFields, _Region]:
    end, body = header_end(region.data, region.start, region.stop)
    fields = header_fields(region.data[region.start : min(end, region.start + HEADER_LIMIT)])
    if not fields.every:
        # No header at all: the text in front of the first empty line is body too.
        body = region.start
    return fields, _Region(region.data, body, region.stop, region.depth)


def _entity(fields: HeaderFields, body: _Region, budget: _Budget, default_type: str) -> Iterator[str]:
    """A message's or a part's body, whatever its type."""
    if budget.parts <= 0:
        return
    budget.parts -= 1
    media_type, parameters = _parameters(fields.first.get("content-type", ""))
    _, disposition = _parameters(fields.first.get("content-disposition", ""))
    name = disposition.get("filename") or parameters.get("name") or ""
    yield name
    media_type = _effective_type(media_type or default_type, name)
    if body.depth < DEPTH_LIMIT:
        deeper = _Region(body.data, body.start, body.stop, body.depth + 1)
        boundary = parameters.get("boundary", "")
        if media_type.startswith("multipart/") and boundary:
            yield from _multipart(deeper, boundary, budget, "message/rfc822" if media_type == "multipart/digest" else "text/plain")
            return
        if media_type in {"message/rfc822", "message/global", "message/news"}:
            yield from _message(_decoded(deeper, fields, budget) if _encoding(fields) else deeper, budget)
            return
    if media_type.startswith(("text/", "message/", "multipart/")) or media_type in _TEXT_TYPES:
        yield _text(_decoded(body, fields, budget), media_type, parameters.get("charset", ""))


def _effective_type(media_type: str, name: str) -> str:
    """The type that a name shows for an attachment that was sent as plain bytes."""
    suffix = _TEXT_SUFFIX.search(name)
    if suffix is None or media_type != "application/octet-stream":
        return media_type
    return _TYPE_OF_SUFFIX.get(suffix[1].lower(), "text/plain")


def _multipart(region: _Region, boundary: str, budget: _Budget, default_type: str) -> Iterator[str]:
    """RFC 2046 section 5.1. A multipart in which its boundary never occurs is searched as plain text."""
    spans = list(_parts(region, b"--" + boundary.encode("utf-8", "surrogateescape"), budget.parts))
    if not spans:
        stop = region.start + budget.take(region.stop - region.start)
        yield decode_text(region.data[region.start : stop])
    for start, stop in spans:
        fields, body = _headers(_Region(region.data, start, stop, region.depth))
        yield from _entity(fields, body, budget, default_type)


def _parts(region: _Region, delimiter: bytes, most: int) -> Iterator[tuple[int, int]]:
    """Places of the parts between delimiter lines; the last part may lack its end."""
    data = region.data
    part: int | None = None
    at = _delimiter(data, delimiter, region.start, region)
    for _ in range(most + 1):
        if part is not None:
            yield part, region.stop if at < 0 else at
        if at < 0 or data.startswith(b"--", at + len(delimiter)):
            return
        line_end = data.find(b"\n", at, region.stop)
        part = region.stop if line_end < 0 else line_end + 1
        at = _delimiter(data, delimiter, part, region)


def _delimiter(data: bytes, delimiter: bytes, start: int, region: _Region) -> int:
    """The next line that starts with the delimiter; -1 for none."""
    if data.startswith(delimiter, start, region.stop):
        return start
    found = data.find(b"\n" + delimiter, start, region.stop)
    return found + 1 if found >= 0 else -1


# --- decoding one part --------------------------------------------------------------------------------------------------------------


def _encoding(fields: HeaderFields) -> str:
    """The transfer encoding that must be undone (RFC 2045 section 6.1); "" for none."""
    encoding = fields.first.get("content-transfer-encoding", "").strip().lower()
    return encoding if encoding in {"base64", "quoted-printable"} else ""


def _decoded(region: _Region, fields: HeaderFields, budget: _Budget) -> _Region:
    """As much of the part as may be looked at, with its transfer encoding undone; never longer than the part."""
    stop = region.start + budget.take(region.stop - region.start)
    encoding = _encoding(fields)
    if not encoding:
        return _Region(region.data, region.start, stop, region.depth)
    raw = region.data[region.start : stop]
    plain = decode_base64(raw) if encoding == "base64" else binascii.a2b_qp(raw)
    return _Region(plain, 0, len(plain), region.depth)


def _text(part: _Region, media_type: str, charset: str) -> str:
    raw = part.data[part.start : part.stop]
    if media_type in _CALENDAR_TYPES:
        return unescape_calendar(calendar_text(raw, charset))
    if raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        charset = "utf-16"
    text = decode_text(raw, charset)
    return _visible(text) if media_type == "text/html" else text


_TOKEN = re.compile(r';\s*([^\s=;"*]{1,64})(?:\*(\d{1,3}))?(\*)?\s*=\s*(?:"((?:[^"\\]|\\.)*+)"?|([^;\s]*))', re.DOTALL)
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)


def _parameters(value: str) -> tuple[str, dict[str, str]]:
    """A Content-Type or Content-Disposition field: its first word in lower case, and its parameters (RFC 2045 section 5.1, RFC 2231)."""
    value = value[:NAME_LIMIT]
    collected: dict[str, list[tuple[int, bool, str]]] = {}
    for match in _TOKEN.finditer(value):
        name, section, extended, quoted, bare = match.groups()
        text = _ESCAPED.sub(r"\1", quoted) if quoted is not None else bare
        collected.setdefault(name.lower(), []).append((int(section or 0), extended is not None, text))
    return value.partition(";")[0].strip().lower(), {name: _joined(pieces) for name, pieces in collected.items()}


_PERCENT = re.compile(rb"%([0-9A-Fa-f]{2})")


def _joined(pieces: list[tuple[int, bool, str]]) -> str:
    """One parameter from its continuations (RFC 2231 section 3), percent-encoded or not (section 4), or with encoded words."""
    pieces = sorted(pieces, key=lambda piece: piece[0])
    charset = ""
    _, extended, text = pieces[0]
    if extended and text.count("'") >= 2:
        charset, _, text = text.split("'", 2)
    elif not pieces[-1][0] and not extended:
        # Named once, or several times over against the rules: the first counts.
        return decode_words(text)
    raw = b"".join(_percent_decoded(piece, encoded=encoded) for encoded, piece in [(extended, text), *(piece[1:] for piece in pieces[1:])])
    return decode_words(decode_text(raw, charset))


def _percent_decoded(text: str, *, encoded: bool) -> bytes:
    raw = text.encode("utf-8", "surrogateescape")
    return _PERCENT.sub(lambda match: bytes.fromhex(match[1].decode()), raw) if encoded else raw


# --- HTML ---------------------------------------------------------------------------------------------------------------------------

_MARKUP = re.compile(r"<(?:(!--)|[!?]|(/?)([a-z][a-z0-9]{0,15}))")
_INLINE = re.compile(r"a|abbr|b|bd[io]|cite|code|del|dfn|em|font|i|ins|kbd|mark|o|q|s|samp|small|span|strike|strong|su[bp]|tt|u|var|wbr")
"""Elements that do not end a word; any other stands for a space."""
_HIDDEN = frozenset({"script", "style"})
_HUGE_NUMBER = re.compile(r"&#x?[0-9a-f]{9,}+;?")


def _visible(source: str) -> str:
    """What a reader of the HTML sees: no tags, comments, scripts or styles; entities replaced.

    One pass that never looks at a character twice: a closing mark that was not found once is not looked for again.
    """
    folded = source.casefold()
    shown: list[str] = []
    absent: set[str] = set()
    at = 0
    while markup := _MARKUP.search(folded, at):
        shown.append(folded[at : markup.start()])
        at, text = _after_markup(folded, markup, absent)
        shown.append(text)
    shown.append(folded[at:])
    # Python refuses to read decimal numbers of thousands of digits, and no character has a number of nine.
    return html.unescape(_HUGE_NUMBER.sub(" ", "".join(shown)))


def _after_markup(folded: str, markup: re.Match[str], absent: set[str]) -> tuple[int, str]:
    """Where text goes on behind the markup, and what stands in its place. Markup that nothing ends loses only its first characters."""
    comment, slash, name = markup.groups()
    end = _after(folded, "-->" if comment else ">", markup.end(), absent)
    if end is None or name is None:
        return end or markup.end(), ""
    if name in _HIDDEN and not slash:
        close = f"</{name}"
        return (_after(folded, close, end, absent) or end + len(close)) - len(close), " "
    return end, "" if _INLINE.fullmatch(name) else " "


def _after(folded: str, mark: str, start: int, absent: set[str]) -> int | None:
    """The place behind the next such mark; None where there is no more of them."""
    found = -1 if mark in absent else folded.find(mark, start)
    if found < 0:
        absent.add(mark)
        return None
    return found + len(mark)
