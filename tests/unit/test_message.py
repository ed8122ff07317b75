"""What items say about themselves, as docs/spec/mail-items.md lays down."""

from __future__ import annotations

import pytest

from keystead.core.stores.message import (
    HEADER_LIMIT,
    MALFORMED_REASONS,
    TEXT_LIMIT,
    ItemKind,
    Summary,
    decode_base64,
    decode_text,
    decode_words,
    header_end,
    header_fields,
    summarise,
)

PLAIN = b"""Received: from a.contoso.example
\tby b.contoso.example; Mon, 8 Jan 2024 09:00:05 +0000
Received: from c.contoso.example by a.contoso.example; Mon, 8 Jan 2024 09:00:01 +0000
From: Alex <alex@contoso.example>
To: sam@contoso.example
Subject: Budget
 for spring
Date: Mon, 8 Jan 2024 10:00:00 +0100
Message-ID: <1@contoso.example>

body
"""
RECEIVED = 1_704_704_405_000  # 2024-01-08 09:00:05 UTC


@pytest.mark.parametrize("data", [PLAIN, PLAIN.replace(b"\n", b"\r\n")], ids=["LF", "CRLF"])
def test_an_ordinary_message(data: bytes) -> None:
    assert summarise(data) == Summary(
        kind=ItemKind.MESSAGE,
        subject="Budget for spring",
        sender="Alex <alex@contoso.example>",
        received=RECEIVED,
        malformed=None,
        message_id="<1@contoso.example>",
    )


KINDS = {
    b"Content-Type: text/calendar; method=REQUEST\n\n": ItemKind.CALENDAR,
    b"Content-Type: TEXT/Calendar\n\n": ItemKind.CALENDAR,
    b"Content-Type: multipart/mixed; boundary=x\n\n--x\nContent-Type: text/calendar\n\n--x--\n": ItemKind.MESSAGE,
    b"X-Keystead-Kind: chat\n\n": ItemKind.CHAT,
    b"x-keystead-kind:  Chat \r\n\r\n": ItemKind.CHAT,
    b"X-Keystead-Kind: other\n\n": ItemKind.MESSAGE,
    b"Subject: x\n\nX-Keystead-Kind: chat\n\n": ItemKind.MESSAGE,
    b"BEGIN:VCALENDAR\r\nEND:VCALENDAR\r\n": ItemKind.CALENDAR,
    b"\xef\xbb\xbfbegin:vcalendar\nEND:VCALENDAR\n": ItemKind.CALENDAR,
    b"": ItemKind.MESSAGE,
}


@pytest.mark.parametrize("data", KINDS)
def test_kinds_R_096(data: bytes) -> None:
    assert summarise(data).kind is KINDS[data]


MALFORMED = {
    b"": "empty",
    b"\r\n \n": "empty",
    b"\nbody\n": "no-headers",
    b"just text\nand more\n": "no-headers",
    b"\x00\x01\x02": "no-headers",
    b" continuation of nothing\n\nbody": "no-headers",
    b"Subject: x\nno header\nFrom: y\n\nbody": "broken-header-line",
    b"Subject: x\nbody without an empty line\n": "broken-header-line",
    b"a: b\n" * (HEADER_LIMIT // 5 + 1): "headers-too-long",
    b"Subject: no date, no sender\n\nold mail": None,
    b"Subject : obsolete white space\n\n": None,
    b"Subject: x\r\rstill x\n\n": None,
    b">From alex Mon Jan  8\nSubject: x\n\n": None,
    b"From alex@contoso.example Mon Jan  8\nSubject: x\n\n": None,
    b"\xef\xbb\xbfSubject: x\n\n": None,
    b"Subject: x": None,
    b"Subject:\n\n": None,
}


@pytest.mark.parametrize("data", MALFORMED, ids=range(len(MALFORMED)))
def test_malformed_reasons(data: bytes) -> None:
    assert summarise(data).malformed == MALFORMED[data]
    assert MALFORMED[data] is None or MALFORMED[data] in MALFORMED_REASONS


def test_fields_behind_a_broken_line_are_read() -> None:
    summary = summarise(b"Subject: kept\nbroken line\nFrom : alex@contoso.example\nDate: Thu, 1 Jan 1970 00:00:01 +0000\n\n")
    assert (summary.subject, summary.sender, summary.received) == ("kept", "alex@contoso.example", 1000)


def test_the_first_of_repeated_fields_counts() -> None:
    assert summarise(b"Subject: one\nsubject: two\n\n").subject == "one"


def test_the_sender_field_stands_in_for_from() -> None:
    assert summarise(b"Sender: desk@contoso.example\n\n").sender == "desk@contoso.example"


DATES = {
    b"Date: Mon, 8 Jan 2024 10:00:05 +0100": RECEIVED,
    b"Date: 8 Jan 2024 09:00:05": RECEIVED,
    b"Date: 8 Jan 24 04:00:05 EST": RECEIVED,
    b"Date: Mon, 8 Jan 2024 09:00:05 -0000 (UTC)": RECEIVED,
    b"Received: by x; nonsense\nDate: 8 Jan 2024 09:00:05 +0000": RECEIVED,
    b"Received: no semicolon\nDate: 8 Jan 2024 09:00:05 +0000": RECEIVED,
    b"Received: from a (b; c) by x; 8 Jan 2024 09:00:05 +0000": RECEIVED,
    b"Date: 31 Dec 2016 23:59:60 +0000": 1_483_228_799_000,
    b"Date: 31 Dec 1969 23:59:59 +0000": None,
    b"Date: 30 Feb 2024 00:00:00 +0000": None,
    b"Date: 1 Jan 2024 25:00:00 +0000": None,
    b"Date: 1 Jan 2024 00:00:00 +9999999": None,
    b"Date: 31 Dec 9999 23:59:59 -2300": None,
    b"Date: ": None,
    b"Date: " + b"1" * 5000: None,
    b"Subject: none": None,
}


@pytest.mark.parametrize("header", DATES, ids=range(len(DATES)))
def test_when_it_was_received(header: bytes) -> None:
    assert summarise(header + b"\n\n").received == DATES[header]


WORDS = {
    "plain": "plain",
    "=?utf-8?Q?Gr=C3=BC=C3=9Fe?=": "Grüße",
    "=?UTF-8?b?R3LDvMOfZQ==?=": "Grüße",
    "=?utf-8?B?R3LDvMOfZQ?=": "Grüße",
    "=?iso-8859-1*de?Q?Gr=FC=DFe_aus?= Ulm": "Grüße aus Ulm",
    "=?utf-8?Q?one_?= =?utf-8?Q?two?=": "one two",
    '"=?utf-8?Q?M=C3=BCller?=" <a@contoso.example>': '"Müller" <a@contoso.example>',
    "=?no-such-charset?Q?x=C3=BC?=": "xü",
    "=?unicode_escape?Q?=5Cud800?=": "\\ud800",
    "=?utf-7?Q?+2AA-?=": "?",
    "=?utf-8?Q?broken": "=?utf-8?Q?broken",
    "=?utf-8?X?unknown?=": "=?utf-8?X?unknown?=",
    "Gr\udcc3\udcbc\udcdfe": "GrÃ¼ße",
    "Gr\udcc3\udcbc": "Grü",
    "bell\x07 and \x1b[31m": "bell  and  [31m",
    "=?utf-8?Q?a=0D=0AB:_c?=": "a  B: c",
    "turn\u202eed": "turn ed",
}


@pytest.mark.parametrize("value", WORDS, ids=range(len(WORDS)))
def test_header_text_is_decoded_leniently(value: str) -> None:
    assert decode_words(value) == WORDS[value]


def test_long_text_is_cut() -> None:
    summary = summarise(b"Subject: " + b"x" * 5000 + b"\nFrom: " + b"y" * 5000 + b"\nMessage-ID: " + b"z" * 5000 + b"\n\n")
    assert {len(summary.subject), len(summary.sender), len(summary.message_id)} == {TEXT_LIMIT}


TEXTS = [
    (b"Gr\xfc\xdfe", "", "Grüße"),
    ("Grüße".encode(), "us-ascii", "Grüße"),
    (b"\x80 5", "iso-8859-1", "€ 5"),
    ("契約".encode("iso2022_jp"), "iso-2022-jp", "契約"),
    ("契約".encode("cp932"), "Shift_JIS", "契約"),
    ("€".encode("gb18030"), "gb2312", "€"),
    (b"\xff", "koi8-r", "Ъ"),
    (b"plain", "idna", "plain"),
    (b"plain", "zlib", "plain"),
    (b"plain", "no\x00such", "plain"),
]


@pytest.mark.parametrize(("raw", "charset", "text"), TEXTS)
def test_charsets(raw: bytes, charset: str, text: str) -> None:
    assert decode_text(raw, charset) == text


@pytest.mark.parametrize("raw", [b"aGVsbG8=", b"aGVsbG8", b"aG Vs\nbG8=", b"!aGVsbG8", b"aGVsbG8A"[:7]])
def test_base64_is_decoded_as_far_as_it_goes(raw: bytes) -> None:
    assert decode_base64(raw) == b"hello"


def test_one_base64_digit_too_many_is_left_out() -> None:
    assert decode_base64(b"aGVsbG8hA") == b"hello!"


@pytest.mark.parametrize(
    ("data", "ends"),
    [
        (b"a: b\n\nbody", (5, 6)),
        (b"a: b\r\n\r\nbody", (6, 8)),
        (b"a: b\r\n\r\nbody\n\n", (6, 8)),
        (b"a: b\n\nbody\r\n\r\n", (5, 6)),
        (b"\nbody", (0, 1)),
        (b"\r\nbody", (0, 2)),
        (b"a: b\n", (5, 5)),
        (b"", (0, 0)),
    ],
)
def test_where_headers_end(data: bytes, ends: tuple[int, int]) -> None:
    assert header_end(data) == ends


def test_all_fields_come_in_order() -> None:
    fields = header_fields(b"B: 1\nA: 2\n 3\nb: 4")
    assert fields.every == [("b", "1"), ("a", "2 3"), ("b", "4")]
    assert fields.first == {"b": "1", "a": "2 3"}
    assert not fields.broken


CALENDAR = (
    b"BEGIN:VCALENDAR\r\nVERSION:2.0\r\nBEGIN:VEVENT\r\nUID:7@contoso.example\r\nDTSTAMP:20240108T090005Z\r\n"
    b"SUMMARY;LANGUAGE=de:Gespr\xc3\r\n \xa4ch\\, kurz\\nund gut\r\n"
    b'ORGANIZER;CN="Desk: front";SENT-BY="mailto:x@contoso.example":MAILTO:desk@contoso.example\r\nEND:VEVENT\r\nEND:VCALENDAR\r\n'
)


def test_a_bare_calendar_R_096() -> None:
    assert summarise(CALENDAR) == summarise(CALENDAR, ics=True)
    assert summarise(CALENDAR) == Summary(
        kind=ItemKind.CALENDAR,
        subject="Gespräch, kurz und gut",
        sender="Desk: front <desk@contoso.example>",
        received=RECEIVED,
        malformed=None,
        message_id="7@contoso.example",
    )


@pytest.mark.parametrize(
    ("data", "reason"), [(b"", "empty"), (b"Subject: mail\n\n", "not-a-calendar"), (b"BEGIN:VCALENDAR\nEND:VCALENDAR\n", None)]
)
def test_an_ics_file_is_a_calendar_whatever_it_holds(data: bytes, reason: str | None) -> None:
    summary = summarise(data, ics=True)
    assert (summary.kind, summary.malformed, summary.received) == (ItemKind.CALENDAR, reason, None)


@pytest.mark.parametrize(
    ("line", "sender"),
    [
        (b"ORGANIZER:mailto:desk@contoso.example", "desk@contoso.example"),
        (b"ORGANIZER;CN=Front desk:mailto:desk@contoso.example", "Front desk <desk@contoso.example>"),
        (b'ORGANIZER;CN="open:mailto:desk@contoso.example', ""),
    ],
)
def test_organizers(line: bytes, sender: str) -> None:
    assert summarise(b"BEGIN:VCALENDAR\n" + line + b"\n").sender == sender


@pytest.mark.parametrize(("stamp", "received"), [(b"20240108", 1_704_672_000_000), (b"20241308T000000Z", None), (b"soon", None)])
def test_calendar_times(stamp: bytes, received: int | None) -> None:
    assert summarise(b"BEGIN:VCALENDAR\nDTSTAMP:" + stamp + b"\n").received == received
