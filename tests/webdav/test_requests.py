"""What WebDAV answers: content, ranges, conditions, copying and moving, properties (docs/spec/webdav.md)."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from wsgidav.xml_tools import string_to_xml

from keystead.core.stores.files import CHUNK_BYTES
from keystead.frontends.webdav import provider
from keystead.frontends.webdav.paths import encoded
from support.webdav import PLANS, ROOT

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

    from support.webdav import Answer, Person
    from support.world import World

DAV = "{DAV:}"


@pytest.fixture(scope="module")
def letters(alex: Person) -> bytes:
    """A file of a chunk and a half, at `/letters`."""
    data = os.urandom(CHUNK_BYTES + CHUNK_BYTES // 2)
    assert alex.put(f"{ROOT}/letters", data).status == 201
    return data


def properties(answer: Answer) -> dict[str, Element]:
    """The properties that were found, of the first resource of a 207."""
    assert answer.status == 207, answer
    found: dict[str, Element] = {}
    for part in string_to_xml(answer.body)[0].iter(f"{DAV}propstat"):
        if "200" in (part.findtext(f"{DAV}status") or ""):
            found |= {one.tag: one for one in part.iterfind(f"{DAV}prop/*")}
    return found


def patch(value: str, *, name: str = "colour") -> bytes:
    inner = f'<x:{name} xmlns:x="https://contoso.example/ns">{value}</x:{name}>'
    return f'<D:propertyupdate xmlns:D="DAV:"><D:set><D:prop>{inner}</D:prop></D:set></D:propertyupdate>'.encode()


# -- content --------------------------------------------------------------------------------------------------------------------------


def test_a_file_comes_back_as_it_was_put_and_is_known_by_a_tag(alex: Person, letters: bytes) -> None:
    answer = alex.get(f"{ROOT}/letters")
    assert (answer.status, answer.body == letters) == (200, True)
    assert answer.headers["Content-Length"] == str(len(letters))
    assert answer.headers["Accept-Ranges"] == "bytes"
    assert answer.headers["ETag"].endswith('-1"')
    assert answer.headers["Keystead-Request-Id"]
    assert answer.headers["Content-Disposition"] == "attachment"
    assert answer.headers["Cache-Control"] == "no-store"


def test_HEAD_says_the_same_without_content(alex: Person, letters: bytes) -> None:
    answer = alex.ask("HEAD", f"{ROOT}/letters")
    assert (answer.status, answer.body) == (200, b"")
    assert answer.headers["Content-Length"] == str(len(letters))


def test_another_version_has_another_tag_and_the_same_bytes_have_not(alex: Person) -> None:
    first = alex.put(f"{ROOT}/versions", b"one")
    same = alex.put(f"{ROOT}/versions", b"one")
    second = alex.put(f"{ROOT}/versions", b"two")
    assert (first.status, same.status, second.status) == (201, 204, 204)
    assert first.headers["ETag"] == same.headers["ETag"] != second.headers["ETag"]
    assert alex.get(f"{ROOT}/versions").body == b"two"


def test_an_empty_file(alex: Person) -> None:
    assert alex.put(f"{ROOT}/empty", b"").status == 201
    answer = alex.get(f"{ROOT}/empty")
    assert (answer.status, answer.body) == (200, b"")


def test_a_body_in_chunks(alex: Person) -> None:
    pieces = [os.urandom(100_000) for _ in range(50)]
    assert alex.ask("PUT", f"{ROOT}/in-chunks", iter(pieces)).status == 201
    assert alex.get(f"{ROOT}/in-chunks").body == b"".join(pieces)


@pytest.mark.parametrize(
    ("wanted", "start", "stop"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=5-9", 5, 10),
        (f"bytes={CHUNK_BYTES - 3}-{CHUNK_BYTES + 2}", CHUNK_BYTES - 3, CHUNK_BYTES + 3),
        (f"bytes={CHUNK_BYTES}-", CHUNK_BYTES, None),
        ("bytes=-7", -7, None),
        ("bytes=10-999999999999", 10, None),
    ],
)
def test_ranges(alex: Person, letters: bytes, wanted: str, start: int, stop: int | None) -> None:
    answer = alex.get(f"{ROOT}/letters", Range=wanted)
    assert (answer.status, answer.body == letters[start:stop]) == (206, True)
    first = start if start >= 0 else len(letters) + start
    assert answer.headers["Content-Range"] == f"bytes {first}-{first + len(answer.body) - 1}/{len(letters)}"


def test_a_range_beyond_the_end(alex: Person, letters: bytes) -> None:
    answer = alex.get(f"{ROOT}/letters", Range=f"bytes={len(letters)}-")
    assert (answer.status, answer.headers["Keystead-Request-Id"] != "") == (416, True)


def test_a_range_of_another_version_gives_all_of_this_one(alex: Person, letters: bytes) -> None:
    answer = alex.get(f"{ROOT}/letters", Range="bytes=0-3", If_Range='"another"')
    assert (answer.status, len(answer.body)) == (200, len(letters))


def test_folders_have_no_content(alex: Person) -> None:
    assert alex.get(f"{ROOT}/").status == 403
    assert alex.put(f"{ROOT}/", b"x").status == 405


def test_what_is_not_there(alex: Person) -> None:
    assert alex.get(f"{ROOT}/nothing").status == 404
    assert alex.get("/contoso.example,sites,nothing/a").status == 404
    assert alex.put(f"{ROOT}/no-folder/file", b"x").status == 409
    assert alex.ask("MKCOL", f"{ROOT}/no-folder/folder").status == 409


def test_a_file_keeps_the_time_its_client_says(alex: Person) -> None:
    answer = alex.put(f"{ROOT}/old", b"1", X_OC_Mtime="1000000000")
    assert (answer.status, answer.headers["X-OC-Mtime"]) == (201, "accepted")
    assert alex.get(f"{ROOT}/old").headers["Last-Modified"] == "Sun, 09 Sep 2001 01:46:40 GMT"
    for stated in ("yesterday", "-1", "9" * 12, ""):
        assert alex.put(f"{ROOT}/old", b"2", X_OC_Mtime=stated).status == 400
    assert alex.get(f"{ROOT}/old").body == b"1"


# -- conditions -----------------------------------------------------------------------------------------------------------------------


def test_conditions_by_tag(alex: Person) -> None:
    tag = alex.put(f"{ROOT}/conditions", b"1").headers["ETag"]
    assert alex.get(f"{ROOT}/conditions", If_None_Match=tag).status == 304
    assert alex.get(f"{ROOT}/conditions", If_Match='"another"').status == 412
    assert alex.put(f"{ROOT}/conditions", b"2", If_Match='"another"').status == 412
    assert alex.put(f"{ROOT}/conditions", b"2", If_None_Match="*").status == 412
    assert alex.put(f"{ROOT}/conditions", b"2", If_Match=tag).status == 204
    assert alex.put(f"{ROOT}/conditions", b"3", If_Match=tag).status == 412
    assert alex.get(f"{ROOT}/conditions").body == b"2"


def test_what_is_not_there_matches_no_tag(alex: Person) -> None:
    assert alex.put(f"{ROOT}/not-there-yet", b"1", If_Match="*").status == 412
    assert alex.get(f"{ROOT}/not-there-yet").status == 404
    assert alex.put(f"{ROOT}/not-there-yet", b"1", If_None_Match="*").status == 201


def test_conditions_by_time(alex: Person) -> None:
    alex.put(f"{ROOT}/times", b"1")
    written = alex.get(f"{ROOT}/times").headers["Last-Modified"]
    assert alex.get(f"{ROOT}/times", If_Modified_Since=written).status == 304
    assert alex.get(f"{ROOT}/times", If_Unmodified_Since="Thu, 01 Jan 1970 00:00:00 GMT").status == 412


def test_of_two_writers_with_the_same_condition_one_is_told(plans: World, alex: Person) -> None:
    """The condition is looked at again when the version is committed: here the file changes while the body comes in."""
    tag = alex.put(f"{ROOT}/two-writers", b"1").headers["ETag"]

    def body() -> object:
        yield b"mine"
        assert alex.put(f"{ROOT}/two-writers", b"theirs").status == 204
        yield b"mine"

    assert alex.ask("PUT", f"{ROOT}/two-writers", body(), If_Match=tag).status == 412  # type: ignore[arg-type]  # pieces
    assert alex.get(f"{ROOT}/two-writers").body == b"theirs"


# -- copying, moving, deleting --------------------------------------------------------------------------------------------------------


def test_copying_and_moving_a_file(alex: Person) -> None:
    alex.put(f"{ROOT}/from", b"content")
    assert alex.ask("COPY", f"{ROOT}/from", Destination=f"{ROOT}/copy").status == 201
    assert alex.ask("COPY", f"{ROOT}/from", Destination=f"{ROOT}/copy").status == 204
    assert alex.ask("COPY", f"{ROOT}/from", Destination=f"{ROOT}/copy", Overwrite="F").status == 412
    assert alex.ask("MOVE", f"{ROOT}/from", Destination=f"{ROOT}/moved").status == 201
    assert alex.get(f"{ROOT}/from").status == 404
    assert {alex.get(f"{ROOT}/{name}").body for name in ("copy", "moved")} == {b"content"}
    assert alex.ask("MOVE", f"{ROOT}/moved", Destination=f"{ROOT}/copy").status == 204
    assert alex.get(f"{ROOT}/moved").status == 404


def test_a_folder_goes_with_what_is_in_it(alex: Person) -> None:
    for path in ("tree", "tree/inner"):
        assert alex.ask("MKCOL", f"{ROOT}/{path}").status == 201
    alex.put(f"{ROOT}/tree/inner/file", b"deep")
    assert alex.ask("COPY", f"{ROOT}/tree/", Destination=f"{ROOT}/copied/").status == 201
    assert alex.ask("COPY", f"{ROOT}/tree/", Destination=f"{ROOT}/shallow/", Depth="0").status == 201
    assert alex.ask("MOVE", f"{ROOT}/tree/", Destination=f"{ROOT}/carried/").status == 201
    assert alex.get(f"{ROOT}/copied/inner/file").body == alex.get(f"{ROOT}/carried/inner/file").body == b"deep"
    assert alex.names(f"{ROOT}/shallow/") == {f"{ROOT}/shallow/"}
    assert alex.get(f"{ROOT}/tree/inner/file").status == 404
    assert alex.ask("COPY", f"{ROOT}/carried/", Destination=f"{ROOT}/carried/inside/").status == 403
    assert alex.ask("MOVE", f"{ROOT}/carried/", Destination=f"{ROOT}/carried/inside/").status == 403
    assert alex.ask("DELETE", f"{ROOT}/carried/").status == 204
    assert alex.get(f"{ROOT}/carried/inner/file").status == 404


@pytest.mark.parametrize("name", ["a;b", "a?b", "a#b", "a%b", "a%20b", "a b", "a&b", "a+b", "ä€😀", "[a]", "a:b", "a,b", '"a"', "a\\b"])
def test_any_name_is_moved_to_the_name_that_was_said(alex: Person, name: str) -> None:
    """The library alone would move `a;b` to `a`."""
    there = f"{ROOT}/{encoded(name)}"
    alex.put(f"{ROOT}/a", b"in the way")
    alex.put(f"{ROOT}/named", name.encode())
    assert alex.ask("MOVE", f"{ROOT}/named", Destination=f"http://localhost{there}", Host="localhost").status == 201
    assert alex.get(there).body == name.encode()
    assert alex.get(f"{ROOT}/a").body == b"in the way"
    assert there in alex.names(f"{ROOT}/")
    assert alex.ask("DELETE", there).status == 204


def test_destinations_elsewhere_are_refused(alex: Person) -> None:
    alex.put(f"{ROOT}/stays", b"1")
    for destination in ("https://fabrikam.example/contoso.example,sites,plans/x", "/contoso.example,sites,other/x", "/", ROOT):
        answer = alex.ask("MOVE", f"{ROOT}/stays", Destination=destination)
        assert answer.status in (403, 409, 502), (destination, answer)
    assert alex.ask("MOVE", f"{ROOT}/stays", Destination=f"{ROOT}/%2e%2e/x").status == 400
    assert alex.ask("MOVE", f"{ROOT}/stays").status == 400
    assert alex.get(f"{ROOT}/stays").body == b"1"


def test_sites_themselves_are_not_changed_from_here(alex: Person) -> None:
    for method in ("DELETE", "PROPPATCH"):
        assert alex.ask(method, f"{ROOT}/", patch("red") if method == "PROPPATCH" else None).status in (207, 403)
    assert alex.ask("MKCOL", "/contoso.example,sites,new").status == 403
    assert alex.put("/file", b"x").status == 403
    assert alex.ask("DELETE", "/").status == 403
    assert alex.names("/") == {"/", f"{ROOT}/"}


# -- properties -----------------------------------------------------------------------------------------------------------------------


def test_live_properties(plans: World, alex: Person, letters: bytes) -> None:
    of_file = properties(alex.ask("PROPFIND", f"{ROOT}/letters", Depth="0"))
    tag = alex.ask("HEAD", f"{ROOT}/letters").headers["ETag"]
    assert of_file[f"{DAV}getetag"].text == tag
    assert of_file[f"{DAV}getcontentlength"].text == str(len(letters))
    assert of_file[f"{DAV}displayname"].text == "letters"
    assert {f"{DAV}creationdate", f"{DAV}getlastmodified", f"{DAV}supportedlock"} <= set(of_file)
    quota = b'<D:propfind xmlns:D="DAV:"><D:prop><D:quota-used-bytes/><D:quota-available-bytes/></D:prop></D:propfind>'
    of_site = properties(alex.ask("PROPFIND", f"{ROOT}/", quota, Depth="0"))
    ((used, allowed),) = plans.sql("SELECT size_bytes, quota_bytes FROM sites WHERE url = ?", PLANS)
    assert int(of_site[f"{DAV}quota-used-bytes"].text or "") == used
    assert int(of_site[f"{DAV}quota-available-bytes"].text or "") == allowed - used


def test_the_names_of_properties_alone(alex: Person, letters: bytes) -> None:
    body = b'<D:propfind xmlns:D="DAV:"><D:propname/></D:propfind>'
    found = properties(alex.ask("PROPFIND", f"{ROOT}/letters", body, Depth="0"))
    assert f"{DAV}getetag" in found
    assert not any(one.text for one in found.values())


def test_all_at_once_is_refused(alex: Person) -> None:
    for headers in ({"Depth": "infinity"}, {}):
        answer = alex.ask("PROPFIND", f"{ROOT}/", **headers)
        assert (answer.status, b"propfind-finite-depth" in answer.body) == (403, True)


def test_what_clients_set_is_kept_moved_and_copied_and_lies_sealed(plans: World, alex: Person) -> None:
    alex.put(f"{ROOT}/painted", b"1")
    assert alex.ask("PROPPATCH", f"{ROOT}/painted", patch("unmistakably-red")).status == 207
    alex.put(f"{ROOT}/painted", b"2")
    alex.ask("MOVE", f"{ROOT}/painted", Destination=f"{ROOT}/hung")
    alex.ask("COPY", f"{ROOT}/hung", Destination=f"{ROOT}/print")
    for name in ("hung", "print"):
        found = properties(alex.ask("PROPFIND", f"{ROOT}/{name}", Depth="0"))
        assert found["{https://contoso.example/ns}colour"].text == "unmistakably-red"
    assert plans.files_holding(b"unmistakably-red") == []


def test_properties_are_changed_all_or_none(alex: Person) -> None:
    alex.put(f"{ROOT}/atomic", b"1")
    body = (
        b'<D:propertyupdate xmlns:D="DAV:"><D:set><D:prop><x xmlns="urn:a">1</x></D:prop></D:set>'
        b"<D:set><D:prop><D:getetag>mine</D:getetag></D:prop></D:set></D:propertyupdate>"
    )
    answer = alex.ask("PROPPATCH", f"{ROOT}/atomic", body)
    assert (answer.status, b"424" in answer.body, b"403" in answer.body) == (207, True, True)
    assert "{urn:a}x" not in properties(alex.ask("PROPFIND", f"{ROOT}/atomic", Depth="0"))


def test_too_many_properties(alex: Person) -> None:
    alex.put(f"{ROOT}/crowded", b"1")
    for index in range(3):
        answer = alex.ask("PROPPATCH", f"{ROOT}/crowded", patch("x" * 30_000, name=f"p{index}"))
    assert (answer.status, b"507" in answer.body) == (207, True)
    found = properties(alex.ask("PROPFIND", f"{ROOT}/crowded", Depth="0"))
    assert [name for name in sorted(found) if "ns}p" in name] == ["{https://contoso.example/ns}p0", "{https://contoso.example/ns}p1"]


@pytest.mark.parametrize(
    "body",
    [
        b"no xml",
        b'<D:propfind xmlns:D="DAV:"><D:prop>',
        b'<!DOCTYPE a [<!ENTITY x "y">]><D:propfind xmlns:D="DAV:"><D:prop>&x;</D:prop></D:propfind>',
        b"<a/>",
        b"<a>" * 20_000 + b"</a>" * 20_000,
        b'<D:propfind xmlns:D="DAV:"><D:prop>' + b"".join(b"<a%d/>" % index for index in range(200)) + b"</D:prop></D:propfind>",
        b"\xff\xfe<\x00",
    ],
)
def test_bodies_that_are_not_taken(alex: Person, body: bytes) -> None:
    answer = alex.ask("PROPFIND", f"{ROOT}/", body, Depth="0")
    assert answer.status == 400
    assert "request_invalid" in answer.text or answer.text == "400 Bad Request\n"


def test_a_large_body_of_anything_but_a_file(alex: Person) -> None:
    assert alex.ask("PROPFIND", f"{ROOT}/", b"x" * 300_000, Depth="0").status == 413


@pytest.mark.parametrize("method", ["PROPPATCH", "LOCK"])
def test_elements_inside_elements_without_end(alex: Person, method: str) -> None:
    alex.put(f"{ROOT}/nested", b"1")
    answer = alex.ask(method, f"{ROOT}/nested", patch("<a>" * 20_000 + "</a>" * 20_000))
    assert (answer.status, "request_invalid" in answer.text) == (400, True)


def test_a_folder_that_is_too_large_is_not_listed(alex: Person, monkeypatch: pytest.MonkeyPatch) -> None:
    alex.ask("MKCOL", f"{ROOT}/wide")
    for index in range(4):
        alex.put(f"{ROOT}/wide/{index}", b"1")
    monkeypatch.setattr(provider, "MAX_MEMBERS", 3)
    monkeypatch.setattr(provider, "PAGE", 2)
    answer = alex.ask("PROPFIND", f"{ROOT}/wide/", Depth="1")
    assert (answer.status, "folder_too_large" in answer.text) == (507, True)
    assert alex.ask("PROPFIND", f"{ROOT}/wide/", Depth="0").status == 207
    assert alex.ask("DELETE", f"{ROOT}/wide/").status == 204


def test_a_folder_is_listed_page_by_page(alex: Person, monkeypatch: pytest.MonkeyPatch) -> None:
    alex.ask("MKCOL", f"{ROOT}/paged")
    for index in range(6):
        alex.put(f"{ROOT}/paged/{index}", b"1")
    monkeypatch.setattr(provider, "PAGE", 2)
    assert len(alex.names(f"{ROOT}/paged/")) == 7


def test_OPTIONS_says_what_is_there(alex: Person) -> None:
    answer = alex.ask("OPTIONS", f"{ROOT}/")
    assert (answer.status, answer.body, answer.headers["DAV"]) == (200, b"", "1,2")
    assert "PROPFIND" in answer.headers["Allow"]


@pytest.mark.parametrize(
    ("method", "name", "value"),
    [
        ("GET", "Range", "bytes=0-" + "9" * 5_000),
        ("LOCK", "Timeout", "Second-" + "9" * 5_000),
        ("PUT", "X-Expected-Entity-Length", "9" * 5_000),
        ("MOVE", "Destination", "http://[not-an-address/x"),
        ("COPY", "Destination", "http://localhost]/x"),
    ],
)
def test_headers_that_no_client_sends(alex: Person, method: str, name: str, value: str) -> None:
    alex.put(f"{ROOT}/strange", b"1")
    answer = alex.ask(method, f"{ROOT}/strange", b"1" if method == "PUT" else None, **{name: value})
    assert (answer.status, "header_invalid" in answer.text or "path_invalid" in answer.text) == (400, True)


def test_methods_that_are_not_served(alex: Person) -> None:
    for method in ("POST", "PATCH", "TRACE", "REPORT"):
        assert alex.ask(method, f"{ROOT}/letters").status == 405
