"""What an item says about itself: kind, subject, sender, time, and whether it is malformed (docs/spec/mail-items.md).

Items come from anywhere, so nothing here trusts them:

- no bytes make these functions raise, and none make them work longer than in proportion to `HEADER_LIMIT`;
- text that comes out has no control characters and no lone surrogates, so it can be shown on a terminal and encoded as UTF-8;
- *malformed* is only a remark for the person who imports. A malformed item is stored and given back byte for byte like any other.

Only the header block is parsed, and every import waits for it: the standard library's `BytesHeaderParser` takes three times as long and
serves the tests as the reference (tests/properties).
"""

from __future__ import annotations

import binascii
import codecs
import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_tz
from enum import StrEnum
from functools import lru_cache
from typing import NamedTuple

HEADER_LIMIT = 256 * 1024
"""Bytes from the start of an item in which its headers, or a calendar's properties, are looked for."""
TEXT_LIMIT = 998
"""Characters of a subject, sender or message id: the longest line of RFC 5322 section 2.1.1."""
DATE_LIMIT = 256
"""Characters of a date that are parsed; the standard library's date parser is not linear."""

EMPTY = "empty"
NO_HEADERS = "no-headers"
BROKEN_HEADER_LINE = "broken-header-line"
HEADERS_TOO_LONG = "headers-too-long"
NOT_A_CALENDAR = "not-a-calendar"
MALFORMED_REASONS = (EMPTY, NO_HEADERS, BROKEN_HEADER_LINE, HEADERS_TOO_LONG, NOT_A_CALENDAR)
"""Every value of `Summary.malformed` but None."""


class ItemKind(StrEnum):
    """The kinds of design section 8."""

    MESSAGE = "message"
    CALENDAR = "calendar"
    CHAT = "chat"


@dataclass(frozen=True, slots=True)
class Summary:
    """What lists show of an item. All of it is content: it is sealed wherever it is kept.

    Attributes:
        subject: decoded, at most `TEXT_LIMIT` characters; "" where there is none.
        sender: the From header (or Sender; a calendar's organizer), decoded, at most `TEXT_LIMIT` characters; "" where there is none.
        received: milliseconds since the epoch; None where the item does not tell, or tells a time before 1970.
        malformed: one of `MALFORMED_REASONS`; None for a sound item.
        message_id: as written, with its angle brackets (a calendar's UID); "" where there is none.
    """

    kind: ItemKind
    subject: str
    sender: str
    received: int | None
    malformed: str | None
    message_id: str


class HeaderFields(NamedTuple):
    """The header block of a message or of one part of it.

    Attributes:
        first: value of the first field of each name (names in lower case), folds undone, not decoded. Bytes above 127 are surrogates.
        every: all fields in order.
        broken: whether a line was neither a field nor the continuation of one; such lines are left out.
    """

    first: dict[str, str]
    every: list[tuple[str, str]]
    broken: bool


def summarise(data: bytes, *, ics: bool = False) -> Summary:
    """What the item says about itself.

    Args:
        data: the item, or at least its first `HEADER_LIMIT` bytes.
        ics: it comes from an .ics file, so it is a calendar whatever it holds.
    """
    head = data[:HEADER_LIMIT]
    if ics or is_calendar(head):
        return _summarise_calendar(head)
    end, _ = header_end(head)
    fields = header_fields(head[:end])
    first = fields.first
    return Summary(
        kind=_kind(first),
        subject=decode_words(first.get("subject", ""))[:TEXT_LIMIT],
        sender=decode_words(first.get("from") or first.get("sender", ""))[:TEXT_LIMIT],
        received=_received(fields),
        malformed=_malformed(head, fields, end),
        message_id=decode_words(first.get("message-id", ""))[:TEXT_LIMIT],
    )


def _kind(first: dict[str, str]) -> ItemKind:
    if first.get("content-type", "").lstrip()[:13].lower() == "text/calendar":
        return ItemKind.CALENDAR
    if first.get("x-keystead-kind", "").strip().lower() == "chat":
        return ItemKind.CHAT
    return ItemKind.MESSAGE


def _malformed(head: bytes, fields: HeaderFields, end: int) -> str | None:
    """The gravest fault. A missing Date, From or Message-ID is none: old mail and drafts lack them."""
    if not head.strip():
        return EMPTY
    if not fields.every:
        return NO_HEADERS
    if end >= HEADER_LIMIT:
        return HEADERS_TOO_LONG
    return BROKEN_HEADER_LINE if fields.broken else None


# --- header block -------------------------------------------------------------------------------------------------------------------

_USUAL = re.compile(rb"(?:(?:[!-9;-~]++:|[ \t])[^\n]*+(?:\n|\Z))*+")
"""Lines that are a field (RFC 5322 section 2.2) or a continuation, as far as they go."""
_FIELD = re.compile(rb"([!-9;-~]+)[ \t]*(:.*)", re.DOTALL)
"""White space before the colon is obsolete but legal (RFC 5322 section 4.5)."""
_ENVELOPE = re.compile(rb">?From ")
"""A separator line that some program left in front of, or quoted into, the headers; it says nothing and breaks nothing."""
_SPLIT = re.compile(r"^([!-9;-~]+):[ \t]*([^\n]*(?:\n[ \t][^\n]*)*)", re.MULTILINE)
"""One field with its continuations, in a block of nothing else."""
_FOLD = re.compile(r"\r?\n[ \t]*")


def header_end(data: bytes, start: int = 0, stop: int | None = None) -> tuple[int, int]:
    """Where the header block ends and where the body begins: on both sides of the first empty line.

    Args:
        data: holds the message or part.
        start: where it begins.
        stop: where it ends; the end of the data by default. Both results are at most that.
    """
    limit = len(data) if stop is None else stop
    for empty in (b"\n", b"\r\n"):
        if data.startswith(empty, start, limit):
            return start, start + len(empty)
    lf = data.find(b"\n\n", start, limit)
    crlf = data.find(b"\n\r\n", start, limit if lf < 0 else lf)
    if crlf >= 0:
        return crlf + 1, crlf + 3
    return (limit, limit) if lf < 0 else (lf + 1, lf + 2)


def header_fields(block: bytes) -> HeaderFields:
    """The fields of a header block, given without its empty line; a byte order mark before the first field is passed over."""
    block = block.removeprefix(codecs.BOM_UTF8)
    broken = False
    usual = _USUAL.match(block)
    # A bare CR ends no line, and would stay in the value: it becomes a space.
    if usual is None or usual.end() < len(block) or (b"\r" in block and block.count(b"\r") > block.count(b"\r\n")):
        block, broken = _without_broken_lines(block)
    text = block.decode("ascii", "surrogateescape")
    every = [(name.lower(), _unfolded(value)) for name, value in _SPLIT.findall(text)]
    return HeaderFields(first=dict(reversed(every)), every=every, broken=broken)


def _unfolded(value: str) -> str:
    value = value.rstrip("\r\n")
    return _FOLD.sub(" ", value) if "\n" in value else value


def _without_broken_lines(block: bytes) -> tuple[bytes, bool]:
    """The block without the lines that are neither fields nor continuations, and whether there were any."""
    kept: list[bytes] = []
    broken = False
    for line in block.replace(b"\r\n", b"\n").replace(b"\r", b" ").split(b"\n"):
        field = _FIELD.fullmatch(line)
        if field:
            kept.append(field[1] + field[2])
        elif line[:1] in {b" ", b"\t"} and kept:
            kept.append(line)
        elif line and not _ENVELOPE.match(line):
            broken = True
    return b"\n".join(kept), broken


# --- text ---------------------------------------------------------------------------------------------------------------------------

_ENCODED_WORD = re.compile(r"=\?([^?*\s]{1,40})(?:\*[^?\s]*)?\?([bBqQ])\?([^?]*)\?=")
_BETWEEN_WORDS = re.compile(r"(\?=)[ \t]+(?==\?[^?\s]{1,80}\?[bBqQ]\?)")
_CONTROLS = dict.fromkeys((*range(0x20), *range(0x7F, 0xA0), 0x2028, 0x2029, *range(0x202A, 0x202F), *range(0x2066, 0x206A)), " ")
"""What could forge lines or turn the direction of writing on a terminal: control characters, line separators, bidirectional overrides."""
_CHARSET = re.compile(r"(?:utf|us-?ascii|ascii|iso|windows|cp|koi8|gb|big5|shift|sjis|x-sjis|euc|ks_c|hz|mac|latin|tis)[a-z0-9._-]{0,30}")
"""Names that are looked up. Others could be codecs that are slow or not for text (idna, punycode, unicode_escape, zlib)."""
_WIDER = {
    "ascii": "utf-8",
    "iso8859-1": "cp1252",
    "gb2312": "gb18030",
    "gbk": "gb18030",
    "shift_jis": "cp932",
    "euc_kr": "cp949",
}
"""Mail that declares the left name is written in the right one, which contains it (as the WHATWG encoding standard has it)."""


@lru_cache(maxsize=256)
def _codec(charset: str) -> str:
    """The codec for a declared charset; "utf-8" for none and for those unknown."""
    name = charset.strip().lower()
    if not _CHARSET.fullmatch(name):
        return "utf-8"
    try:
        found = codecs.lookup(name).name
    except LookupError:
        return "utf-8"
    return _WIDER.get(found, found)


def decode_text(raw: bytes, charset: str = "") -> str:
    """The bytes as text, whatever they are: wrong bytes become replacement characters, an unknown charset is taken for UTF-8.

    Without a charset, or with UTF-8 declared by name only, bytes that are not UTF-8 are taken for Windows-1252.
    """
    codec = _codec(charset)
    if codec == "utf-8":
        try:
            return raw.decode()
        except UnicodeDecodeError:
            return raw.decode("cp1252", "replace")
    try:
        text = raw.decode(codec, "replace")
    except (UnicodeError, LookupError):
        return raw.decode("utf-8", "replace")
    # UTF-7 can spell half a surrogate pair, which no encoder would take.
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


def decode_words(value: str) -> str:
    """A header value as text: raw 8-bit bytes and RFC 2047 encoded words decoded, control characters and line ends as spaces, stripped.

    More lenient than RFC 2047: words count inside quotes and inside other words, and may hold spaces, wrong base64 or half a character.
    """
    if not value.isascii():
        value = decode_text(value.encode("utf-8", "surrogateescape"))
    if "=?" in value:
        value = _ENCODED_WORD.sub(_decode_word, _BETWEEN_WORDS.sub(r"\1", value))
    return (value if value.isprintable() else value.translate(_CONTROLS)).strip()


def _decode_word(match: re.Match[str]) -> str:
    charset, encoding, payload = match.groups()
    raw = payload.encode("utf-8", "replace")
    return decode_text(decode_base64(raw) if encoding in "bB" else binascii.a2b_qp(raw, header=True), charset)


_NOT_BASE64 = re.compile(rb"[^A-Za-z0-9+/]+")


def decode_base64(raw: bytes) -> bytes:
    """Base64 (RFC 2045 section 6.8) decoded as far as it goes: foreign characters are skipped, missing padding is added."""
    try:
        return binascii.a2b_base64(raw)
    except binascii.Error:
        digits = _NOT_BASE64.sub(b"", raw)
        # One digit alone holds six bits, not a byte.
        digits = digits[: len(digits) - (len(digits) % 4 == 1)]
        return binascii.a2b_base64(digits + b"=" * (-len(digits) % 4))


# --- time ---------------------------------------------------------------------------------------------------------------------------

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_DAY_SECONDS = 86_400


def _received(fields: HeaderFields) -> int | None:
    """When it arrived: the topmost Received field that tells (RFC 5322 section 3.6.7: after the last semicolon), else Date."""
    stamp = fields.first.get("received", "").rpartition(";")[2]
    arrived = _date(stamp) if stamp else None
    return _date(fields.first.get("date", "")) if arrived is None else arrived


def _date(text: str) -> int | None:
    """Milliseconds since the epoch of an RFC 5322 date; None for what is none, or lies before 1970. No zone means UTC."""
    try:
        parts = parsedate_tz(text.strip()[:DATE_LIMIT])
    except (ValueError, TypeError, IndexError, OverflowError, AttributeError):
        # The standard library raises several of these for dates that are no dates; which ones differs between its versions.
        return None
    if parts is None:
        return None
    year, month, day, hour, minute, second, *_, zone = parts
    return _milliseconds((year, month, day, hour, minute, second), zone or 0)


def _milliseconds(date: tuple[int, int, int, int, int, int], zone_seconds: int) -> int | None:
    if abs(zone_seconds) >= _DAY_SECONDS:
        return None
    year, month, day, hour, minute, second = date
    try:
        # A leap second (60) counts as the second before it.
        moment = datetime(year, month, day, hour, minute, min(second, 59), tzinfo=UTC) - timedelta(seconds=zone_seconds)
    except (ValueError, OverflowError):
        return None
    since = (moment - _EPOCH) // timedelta(milliseconds=1)
    return since if since >= 0 else None


# --- calendars ----------------------------------------------------------------------------------------------------------------------

_CALENDAR_START = re.compile(rb"(?:\xef\xbb\xbf)?\s{0,16}BEGIN:VCALENDAR\s", re.IGNORECASE)
_ICS_FOLD = re.compile(rb"\r?\n[ \t]")
_ICS_PROPERTY = re.compile(
    r'^(SUMMARY|ORGANIZER|DTSTAMP|UID)((?:;[^":\r\n;]*+(?:"[^"\r\n]*+"[^":\r\n;]*+)*+)*+):([^\r\n]*+)',
    re.IGNORECASE | re.MULTILINE,
)
_ICS_ESCAPE = re.compile(r"\\([\\;,nN])")
_ICS_TIME = re.compile(r"(\d{4})(\d\d)(\d\d)(?:T(\d\d)(\d\d)(\d\d)Z?)?")
_ICS_NAME = re.compile(r';CN=(?:"([^"]*)"|([^;]*))', re.IGNORECASE)


def is_calendar(data: bytes) -> bool:
    """Whether the item is a bare calendar (RFC 5545 section 3.4), without mail headers around it."""
    return _CALENDAR_START.match(data) is not None


def calendar_text(raw: bytes, charset: str = "") -> str:
    """A calendar's text with its lines unfolded (RFC 5545 section 3.1: folds may cut characters, so before decoding)."""
    return decode_text(_ICS_FOLD.sub(b"", raw), charset)


def unescape_calendar(text: str) -> str:
    """A calendar's TEXT value without its backslashes (RFC 5545 section 3.3.11)."""
    return _ICS_ESCAPE.sub(lambda match: "\n" if match[1] in "nN" else match[1], text) if "\\" in text else text


def _summarise_calendar(head: bytes) -> Summary:
    """From the first SUMMARY, ORGANIZER, DTSTAMP and UID."""
    found: dict[str, tuple[str, str]] = {}
    for match in _ICS_PROPERTY.finditer(calendar_text(head)):
        found.setdefault(match[1].upper(), (match[2], match[3]))
    malformed = EMPTY if not head.strip() else None if is_calendar(head) else NOT_A_CALENDAR
    return Summary(
        kind=ItemKind.CALENDAR,
        subject=_shown(unescape_calendar(found.get("SUMMARY", ("", ""))[1])),
        sender=_organizer(*found.get("ORGANIZER", ("", ""))),
        received=_ics_time(found.get("DTSTAMP", ("", ""))[1]),
        malformed=malformed,
        message_id=_shown(found.get("UID", ("", ""))[1]),
    )


def _shown(text: str) -> str:
    return text.translate(_CONTROLS).strip()[:TEXT_LIMIT]


def _organizer(parameters: str, value: str) -> str:
    """`NAME <ADDRESS>`, as a From header has it."""
    address = value.strip()
    if address[:7].lower() == "mailto:":
        address = address[7:]
    name = _ICS_NAME.search(parameters)
    return _shown(f"{name[1] or name[2] or ''} <{address}>" if name else address)


def _ics_time(value: str) -> int | None:
    """Milliseconds of a DATE-TIME or DATE (RFC 5545 sections 3.3.4 and 3.3.5); DTSTAMP is always in UTC."""
    match = _ICS_TIME.match(value.strip())
    if match is None:
        return None
    year, month, day, hour, minute, second = (int(part or 0) for part in match.groups())
    return _milliseconds((year, month, day, hour, minute, second), 0)
