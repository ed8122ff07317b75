"""Mail that the demo writes itself: one mbox per owner, made of every shape that real mailboxes hold.

The same seed and owners give the same bytes. Everything in it is invented; addresses lie under the reserved example domains.
"""

from __future__ import annotations

import base64
import binascii
import io
import random
import struct
import zipfile
import zlib
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

MESSAGES, CALENDAR, CHATS = 360, 48, 72
"""Items of each kind in all mailboxes together; the messages without the malformed one."""


@dataclass(frozen=True, slots=True)
class DemoMail:
    """What was written.

    Attributes:
        messages: sound messages; `malformed` comes on top.
        calendar: calendar entries (top-level text/calendar).
        chats: chat items (`X-Keystead-Kind: chat`).
        malformed: items without headers.
        files: the mbox file of each owner.
        phrases: bytes that somebody who could read the mail would find in it, each at least eight long: subjects, names, sentences of bodies,
            text of attachments, file names, addresses of people who are not owners. None is part of an owner's address.
    """

    messages: int
    calendar: int
    chats: int
    malformed: int
    files: dict[str, Path]
    phrases: list[bytes]


def write_demo_mail(folder: Path, owners: list[str], seed: int) -> DemoMail:
    """Write one mbox file per owner into the folder, which exists; files of the same names are replaced.

    Args:
        folder: where `OWNER.mbox` goes.
        owners: UPNs, at least one; items are dealt out to them in turn.
        seed: chooses texts, dates and attachments.
    """
    writer = _Writer(seed, owners)
    makers: list[Callable[[str], bytes]] = [
        *(writer.message for _ in range(MESSAGES)),
        *(writer.invitation for _ in range(CALENDAR)),
        *(writer.chat for _ in range(CHATS)),
    ]
    writer.choice.shuffle(makers)
    boxes: dict[str, list[bytes]] = {owner: [] for owner in owners}
    for number, make in enumerate(makers):
        owner = owners[number % len(owners)]
        boxes[owner].append(make(owner))
    first = boxes[owners[0]]
    first.insert(len(first) // 2, _MALFORMED)
    files = {owner: folder / f"{owner}.mbox" for owner in owners}
    for owner, items in boxes.items():
        files[owner].write_bytes(b"".join(_SEPARATOR + item + b"\n" for item in items))
    return DemoMail(MESSAGES, CALENDAR, CHATS, 1, files, writer.phrases())


_SEPARATOR = b"From demo@northwind.example Mon Jan  8 08:00:00 2024\n"
_MALFORMED_TEXT = "the scanner on the second floor sent this without any headers"
_MALFORMED = b"\x00\x07 " + _MALFORMED_TEXT.encode() + b"\n\x80\xff and stopped in the mid\n"
_MAIL_HOST = "harbour-mail.northwind.example"
_START = datetime(2024, 1, 8, 8, 0, tzinfo=UTC)


class _Person(NamedTuple):
    """Somebody the owners write with; never an owner."""

    name: str
    address: str


_PEOPLE = (
    _Person("Fabrikam Orders", "orders-desk@fabrikam.example"),
    _Person("Fabrikam Warranty Team", "warranty-team@fabrikam.example"),
    _Person("Northwind Harbour Office", "harbour-office@northwind.example"),
    _Person("Northwind Customs Clearance", "customs-clearance@northwind.example"),
    _Person("Reception, third floor", "third-floor-reception@northwind.example"),
    _Person("Qualitätsprüfung Süd", "quality-south@fabrikam.example"),
    _Person("Travel Expenses", "travel-expenses@fabrikam.example"),
    _Person("Canteen Planning", "canteen-planning@northwind.example"),
)
_TOPICS = (
    "Pallet count for the autumn delivery",
    "Draft of the warehouse lease",
    "Leaking roof above loading bay four",
    "Minutes of the safety walk",
    "Salary bands for the coming year",
    "Angebot für die Kühlanlage",
    "Réservation de la salle bleue",
    "Offer for refurbished forklifts",
    "Complaint about the glazed tiles",
    "Replacement of the franking machine",
    "契約書の確認のお願い",
    "Results of the hearing test days",
    "Closing the branch on Quayside Road",
    "Bonus for the night shift",
)
_SENTENCES = (
    "The second truck left the yard before the seals were checked.",
    "Please keep the purchase price to yourself until the board has met.",
    "Our margin on the copper fittings has fallen below four percent.",
    "The doctor's note for the crane driver arrived this morning.",
    "I moved the spare keys to the green cabinet behind the printer.",
    "We cannot name the buyer before the contract is signed.",
    "The pump in the cellar has to be serviced before the frost.",
    "Nobody told the night shift that the gate code had changed.",
    "The auditors want to see the petty cash book for both quarters.",
    "Two of the eleven crates were short by a dozen valves each.",
    "The landlord agrees to share the cost of the new windows.",
    "Let us settle the matter of the damaged piano without lawyers.",
    "Für die Kühlanlage fehlen noch die Maße der Türöffnung.",
    "Merci de confirmer le nombre de repas sans gluten avant jeudi.",
)
_CHAT_LINES = (
    "are you still on the forklift training?",
    "the cake for the retirement party is in the big fridge",
    "can you cover the front desk from three to half past four",
    "they offered nine thousand for the old lathe, take it?",
    "lift is stuck again, somebody from accounts is inside",
)
_MEETINGS = (
    ("Handover of the harbour keys", "Pier 7, blue container"),
    ("Confidential talk about the merger", "Room Lighthouse"),
    ("Fire drill rehearsal", "Car park behind hall B"),
    ("Tasting for the summer party", "Canteen, kitchen side"),
)
_FORECAST = "line;planned;expected\r\ncopper fittings forecast;18400;15975\r\nglazed tiles forecast;7300;7120\r\n"
_MEMO = "Memo to file: the surveyor found three cracks in the east wall.\nThe repair is not insured.\n"
_ZIPPED = "stocktake of the basement shelves: 412 valves, 90 gaskets\n"
_ATTACHED = ("copper fittings forecast", "the surveyor found three cracks in the east wall")
_FILE_NAMES = ("autumn-forecast.csv", "east-wall-memo.txt", "loading-bay-photo.png", "warehouse-lease-draft.pdf", "basement-stocktake.zip")


class _Writer:
    """Makes items one after another; each draws from the same generator, so their order matters."""

    def __init__(self, seed: int, owners: list[str]) -> None:
        # Not for secrets: the demo's mail has to be the same for the same seed.
        self.choice = random.Random(seed)  # noqa: S311
        self._owners = owners
        self._number = 0
        self._threads: dict[str, list[tuple[str, str]]] = {owner: [] for owner in owners}

    def message(self, owner: str) -> bytes:
        """One message to or from the owner; every third answers an earlier one."""
        subject, references = self._thread(owner)
        shape = self.choice.choice((_plain, _plain, _quoted_printable, _alternative, _with_attachments, _plain_with_from_lines))
        content = shape(self.choice, self._text(), f"part-{self._number}")
        head = [*self._head(owner, subject), *references]
        return _lines(*head) + content

    def invitation(self, owner: str) -> bytes:
        """A calendar entry as a mail server keeps it: headers, then text/calendar."""
        title, place = self.choice.choice(_MEETINGS)
        head = self._head(owner, title)
        person = self.choice.choice(_PEOPLE)
        start = self._now() + timedelta(days=self.choice.randrange(2, 40))
        calendar = [
            "BEGIN:VCALENDAR",
            "VERSION:2.0",
            "PRODID:-//Keystead//Demo//EN",
            "METHOD:REQUEST",
            "BEGIN:VEVENT",
            f"UID:event-{self._number}@fabrikam.example",
            f"DTSTAMP:{self._now():%Y%m%dT%H%M%SZ}",
            f"DTSTART:{start:%Y%m%dT%H%M%SZ}",
            f"DTEND:{start + timedelta(hours=1):%Y%m%dT%H%M%SZ}",
            f"SUMMARY:{title}",
            f"LOCATION:{place.replace(',', chr(92) + ',')}",
            f'ORGANIZER;CN="{person.name}":mailto:{person.address}',
            f"ATTENDEE:mailto:{owner}",
            f"DESCRIPTION:{self.choice.choice(_SENTENCES[:12])}",
            "END:VEVENT",
            "END:VCALENDAR",
        ]
        folded = [line[:60] + "\n " + line[60:] if len(line) > 60 else line for line in calendar]
        return _lines(*head, "Content-Type: text/calendar; charset=utf-8; method=REQUEST", "Content-Transfer-Encoding: 8bit", "", *folded)

    def chat(self, owner: str) -> bytes:
        """One chat line, kept as an item of its own."""
        head = self._head(owner, "Conversation")
        return _lines(*head, "X-Keystead-Kind: chat", "Content-Type: text/plain; charset=utf-8", "", self.choice.choice(_CHAT_LINES))

    def phrases(self) -> list[bytes]:
        """Everything distinctive that items are made of, as UTF-8. Each is far too long to turn up in ciphertext by chance."""
        words = [*_TOPICS, *_SENTENCES, *_CHAT_LINES, *_ATTACHED, *_FILE_NAMES, _MALFORMED_TEXT, f"@{_MAIL_HOST}"]
        words += [part for meeting in _MEETINGS for part in meeting]
        words += [part for person in _PEOPLE for part in person]
        own = " ".join(self._owners).casefold()
        return [word.encode() for word in words if word.casefold() not in own]

    def _text(self) -> list[str]:
        return self.choice.sample(_SENTENCES, k=self.choice.randrange(3, 9))

    def _now(self) -> datetime:
        return _START + timedelta(minutes=37 * self._number)

    def _thread(self, owner: str) -> tuple[str, list[str]]:
        """A subject, and the headers that tie the message to an earlier one of this owner."""
        thread = self._threads[owner]
        if thread and self.choice.random() < 1 / 3:
            subject, first = self.choice.choice(thread)
            return f"Re: {subject}", [f"In-Reply-To: {first}", f"References: {first}"]
        subject = self.choice.choice(_TOPICS)
        thread.append((subject, self._message_id(self._number + 1)))
        return subject, []

    def _message_id(self, number: int) -> str:
        return f"<item-{number}@{_MAIL_HOST}>"

    def _head(self, owner: str, subject: str) -> list[str]:
        """The headers that every item has. Advances the number, and with it the time."""
        self._number += 1
        person = self.choice.choice(_PEOPLE)
        theirs = f"{_encoded(person.name)} <{person.address}>"
        sender, to = (theirs, owner) if self.choice.random() < 3 / 4 else (owner, theirs)
        date = format_datetime(self._now())
        return [
            f"Received: from {_MAIL_HOST} by mail.contoso.example with ESMTP id {self._number:06d};",
            f"\t{date}",
            f"From: {sender}",
            f"To: {to}",
            f"Subject: {_encoded(subject)}",
            f"Date: {date}",
            f"Message-ID: {self._message_id(self._number)}",
            "MIME-Version: 1.0",
        ]


def _lines(*lines: str) -> bytes:
    return "".join(line + "\n" for line in lines).encode()


def _encoded(text: str) -> str:
    """RFC 2047 where it is needed: base64 for text far from ASCII, quoted-printable otherwise."""
    if text.isascii():
        return f'"{text}"' if "," in text else text
    raw = text.encode()
    if sum(byte > 127 for byte in raw) * 2 > len(raw):
        return f"=?utf-8?B?{base64.b64encode(raw).decode()}?="
    return f"=?utf-8?Q?{binascii.b2a_qp(raw, quotetabs=True, header=True).decode().replace('=' + chr(10), '')}?="


# --- shapes of messages: everything behind the common headers -----------------------------------------------------------------------


def _plain(_: random.Random, text: list[str], __: str) -> bytes:
    return _lines("Content-Type: text/plain; charset=utf-8", "Content-Transfer-Encoding: 8bit", "", *text)


def _plain_with_from_lines(_: random.Random, text: list[str], __: str) -> bytes:
    """Lines that an mbox reader must not take for separators: one inside a paragraph, one quoted behind an empty line."""
    quoted = ["", ">From the harbour the crane is out of order until noon."]
    return _lines(
        "Content-Type: text/plain; charset=utf-8",
        "Content-Transfer-Encoding: 8bit",
        "",
        *text[:2],
        "From here on it is only gossip.",
        *text[2:],
        *quoted,
    )


def _quoted_printable(_: random.Random, text: list[str], __: str) -> bytes:
    body = binascii.b2a_qp(" ".join(text).encode()).decode()
    return _lines("Content-Type: text/plain; charset=utf-8", "Content-Transfer-Encoding: quoted-printable", "", body)


def _alternative(choice: random.Random, text: list[str], boundary: str) -> bytes:
    paragraphs = "".join(f"<p>{sentence.replace('ü', '&uuml;')}</p>" for sentence in text)
    page = f"<html><head><style>p {{ color: #333 }}</style></head><body>{paragraphs}<b>No. {choice.randrange(10**6)}</b></body></html>"
    return _multipart("alternative", boundary, _plain(choice, text, boundary), _part("text/html; charset=utf-8", "", page.encode()))


def _with_attachments(choice: random.Random, text: list[str], boundary: str) -> bytes:
    attachments = (
        ("text/csv; charset=utf-8", _FILE_NAMES[0], _FORECAST.encode()),
        ("text/plain; charset=utf-8", _FILE_NAMES[1], _MEMO.encode()),
        ("image/png", _FILE_NAMES[2], _png(choice)),
        ("application/pdf", _FILE_NAMES[3], _pdf(choice.choice(_SENTENCES[:12]))),
        ("application/zip", _FILE_NAMES[4], _zip(_ZIPPED)),
    )
    chosen = choice.sample(attachments, k=choice.randrange(1, 4))
    return _multipart("mixed", boundary, _plain(choice, text, boundary), *(_part(*attachment) for attachment in chosen))


def _multipart(subtype: str, boundary: str, *parts: bytes) -> bytes:
    body = b"".join(_lines(f"--{boundary}") + part for part in parts)
    return _lines(f'Content-Type: multipart/{subtype}; boundary="{boundary}"', "") + body + _lines(f"--{boundary}--")


def _part(media_type: str, name: str, content: bytes) -> bytes:
    disposition = [f'Content-Disposition: attachment; filename="{name}"'] if name else []
    encoded = base64.encodebytes(content).decode().removesuffix("\n")
    return _lines(f"Content-Type: {media_type}", "Content-Transfer-Encoding: base64", *disposition, "", encoded)


# --- files ---------------------------------------------------------------------------------------------------------------------------


def _png(choice: random.Random) -> bytes:
    """A grey picture of 64 by 48 pixels that hardly compresses (PNG, second edition, sections 5 and 11)."""
    width, height = 64, 48
    rows = b"".join(b"\0" + choice.randbytes(width) for _ in range(height))
    chunks = (
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)),
        (b"IDAT", zlib.compress(rows)),
        (b"IEND", b""),
    )
    framed = (struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks)
    return b"\x89PNG\r\n\x1a\n" + b"".join(framed)


def _pdf(sentence: str) -> bytes:
    """One page with one line of text (ISO 32000-1 section 7.5)."""
    stream = f"BT /F1 12 Tf 72 720 Td ({sentence}) Tj ET".encode("latin-1")
    objects = (
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 595 842] /Contents 4 0 R /Resources << /Font << /F1 5 0 R >> >> >>",
        b"<< /Length %d >>\nstream\n%s\nendstream" % (len(stream), stream),
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
    )
    document = bytearray(b"%PDF-1.4\n")
    offsets: list[int] = []
    for number, content in enumerate(objects, start=1):
        offsets.append(len(document))
        document += b"%d 0 obj\n%s\nendobj\n" % (number, content)
    table = len(document)
    document += b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1)
    document += b"".join(b"%010d 00000 n \n" % offset for offset in offsets)
    document += b"trailer\n<< /Size %d /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF\n" % (len(objects) + 1, table)
    return bytes(document)


def _zip(text: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        # A fixed date: the archive must not depend on when it was made.
        archive.writestr(zipfile.ZipInfo("basement-shelves.txt", date_time=(2024, 1, 8, 8, 0, 0)), text)
    return buffer.getvalue()
