"""What a search finds in items, as docs/spec/mail-items.md lays down (R-259: search works on stored mail)."""

from __future__ import annotations

import base64
import unicodedata
from email.message import EmailMessage

import pytest

from keystead.core.stores.searchtext import TEXT_BYTES_LIMIT, matches


def built() -> EmailMessage:
    message = EmailMessage()
    message["Subject"] = "Angebot für die Kühlanlage"
    message["From"] = "Qualitätsprüfung Süd <quality-south@fabrikam.example>"
    message["To"] = "alex@contoso.example"
    message["Cc"] = "sam@contoso.example"
    message["X-Internal"] = "hidden-token"
    message.set_content("The second truck left\nthe yard. Straße.\n")
    page = "<html><head><style>css-word</style></head><body><p>Mar<b>gin</b> fell</p><p>below&nbsp;4&#37;</p><!-- secret note --></body></html>"
    message.add_alternative(page, subtype="html")
    message.add_attachment("forecast;18400\n", subtype="csv", filename="Prognose für Mai.csv")
    message.add_attachment(b"\x89PNG pixelword", maintype="image", subtype="png", filename="photo.png")
    message.add_attachment(b"logged line", maintype="application", subtype="octet-stream", filename="server.log")
    inner = EmailMessage()
    inner["Subject"] = "Forwarded lease"
    inner.set_content("landlord agrees — mostly\n", cte="base64")
    message.add_attachment(inner)
    return message


FOUND = [
    "Angebot für",
    "ANGEBOT FÜR DIE KÜHLANLAGE",
    unicodedata.normalize("NFD", "kühlanlage"),
    "quality-south@fabrikam",
    "qualitätsprüfung",
    "sam@contoso.example",
    "left the yard",
    "STRASSE",
    "margin fell below 4%",
    "forecast;18400",
    "prognose für mai",
    "photo.png",
    "logged  LINE",
    "forwarded lease",
    "agrees — mostly",
]
NOT_FOUND = ["hidden-token", "css-word", "secret note", "pixelword", "<p>", "nbsp", "no such words", "alex sam", "", " \n\t", "boundary"]


@pytest.mark.parametrize("needle", FOUND)
@pytest.mark.parametrize("line_end", [b"\n", b"\r\n"], ids=["LF", "CRLF"])
def test_found_R_259(needle: str, line_end: bytes) -> None:
    assert matches(built().as_bytes().replace(b"\n", line_end), needle)


@pytest.mark.parametrize("needle", NOT_FOUND)
def test_not_found(needle: str) -> None:
    assert not matches(built().as_bytes(), needle)


@pytest.mark.parametrize(
    ("data", "needle"),
    [
        (b"Subject: =?utf-8?B?w4RyZ2Vy?=\n\n", "ärger"),
        (b"Subject: Spring\n budget\n\n", "spring budget"),
        (b"Subject: x\n\nplain WORDS here\n", "words"),
        (b"Subject: x\n\nplain\n  words\n", "plain words"),
        (b"no headers, only words\n\nand more\n", "only words"),
        (b"Subject: x\ntext without an empty line\n", "without an empty"),
        (b"Content-Transfer-Encoding: quoted-printable\n\nspl=\nit =C3=A9t=C3=A9\n", "split été"),
        (b"Content-Type: text/plain; charset=koi8-r\n\n\xf0\xf2\xe9", "при"),
        (
            b"Content-Type: text/plain; charset=utf-16le\nContent-Transfer-Encoding: base64\n\n"
            + base64.b64encode("wide".encode("utf-16le")),
            "wide",
        ),
        (b"Content-Type: text/plain\nContent-Transfer-Encoding: base64\n\n" + base64.b64encode("wide".encode("utf-16")), "wide"),
        (b"Content-Type: multipart/mixed\n\nno boundary named\n", "boundary named"),
        (b"Content-Type: multipart/mixed; boundary=x\n\nnever used\n", "never used"),
        (b"Content-Type: multipart/mixed; boundary=x\n\n--x\n\nunclosed part", "unclosed part"),
        (b"Content-Type: multipart/digest; boundary=x\n\n--x\n\nSubject: digested\n\n--x--\n", "digested"),
        (b'Content-Type: application/pdf; name*0="long "; name*1="name.pdf"\n\n', "long name.pdf"),
        (b"Content-Disposition: attachment; filename*=utf-8''na%C3%AFve.bin\nContent-Type: application/x\n\n", "naïve.bin"),
        (b"Content-Disposition: attachment; filename*0*=iso-8859-1'de'K%FChl; filename*1=anlage.bin\n\n", "kühlanlage"),
        (b'Content-Disposition: attachment; filename="=?utf-8?Q?K=C3=BChl?=.bin"\n\n', "kühl.bin"),
        (b'Content-Disposition: attachment; filename="re\\port.bin"\n\n', "report"),
        (b"BEGIN:VCALENDAR\nSUMMARY:Confiden\n tial\\, talk\nEND:VCALENDAR\n", "confidential, talk"),
        (b"Content-Type: text/calendar\n\nBEGIN:VCALENDAR\r\nDESCRIPTION:fol\r\n ded\r\n", "folded"),
        (b"Content-Type: text/html\n\n<a href='x'>li</a>nk 1 < 2 <unclosed", "link 1 < 2"),
        (b"Content-Type: text/html\n\n<script>if (a<b) {}</script>after &#" + b"9" * 5000 + b"; end", "after end"),
        (b"Content-Type: message/rfc822\nContent-Transfer-Encoding: base64\n\n" + base64.b64encode(b"Subject: wrapped\n\n"), "wrapped"),
    ],
    ids=range(24),
)
def test_found_in_unusual_items(data: bytes, needle: str) -> None:
    assert matches(data, needle)


@pytest.mark.parametrize(
    "data",
    [
        b"Content-Type: text/html\n\n<script>needle</script>",
        b"Content-Type: text/html\n\n<div title='needle'>",
        b"Content-Type: application/octet-stream; name=x.bin\n\nneedle",
        b"Content-Type: multipart/mixed; boundary=x\n\nneedle\n--x\n\nbody\n--x--\nneedle",
        b"X-Other: needle\n\nbody",
        b"",
    ],
    ids=range(6),
)
def test_text_that_nobody_sees_is_not_found(data: bytes) -> None:
    assert not matches(data, "needle")


def test_text_beyond_the_limit_is_not_found() -> None:
    filler = b"x" * TEXT_BYTES_LIMIT
    assert matches(b"Subject: x\n\nneedle" + filler, "needle")
    assert not matches(b"Subject: x\n\n" + filler + b"needle", "needle")


def test_deep_nesting_ends() -> None:
    deep = b"Content-Type: message/rfc822\n\n" * 5000 + b"Subject: bottom\n\n"
    assert not matches(deep, "nowhere")
    assert matches(deep, "bottom"), "what is not entered is searched as plain text"


def test_many_parts_end() -> None:
    assert not matches(b"Content-Type: multipart/mixed; boundary=x\n\n" + b"--x\n\n" * 100_000 + b"needle", "needle")


def test_an_encoded_message_inside_hides_no_more_than_its_limit() -> None:
    """A long attachment in a forwarded message does not use up what may be searched."""
    attachment = b"--x\nContent-Type: image/png\nContent-Transfer-Encoding: base64\n\n" + b"QUJD" * (TEXT_BYTES_LIMIT // 3) + b"\n"
    inner = b"Content-Type: multipart/mixed; boundary=x\n\n" + attachment + b"--x\n\nneedle\n--x--\n"
    assert matches(b"Content-Type: message/rfc822\n\n" + inner, "needle")
