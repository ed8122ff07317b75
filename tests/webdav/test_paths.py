"""Addresses over WebDAV: which are taken, and that none leads out of its site (docs/spec/webdav.md section 2)."""

from __future__ import annotations

import unicodedata
from typing import TYPE_CHECKING
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keystead.core.errors import InvalidRequest
from keystead.core.stores.paths import check_name
from keystead.frontends.webdav.paths import Target, lock_path, read_target, site_named, site_segment
from support.webdav import PLANS, ROOT

if TYPE_CHECKING:
    from support.webdav import Person
    from support.world import World


def is_name(text: str) -> bool:
    try:
        check_name(text)
    except InvalidRequest:
        return False
    return True


NAMES = st.text(min_size=1, max_size=20).filter(is_name)


@given(st.lists(NAMES, max_size=5), st.booleans())
def test_every_path_comes_back_from_its_address(names: list[str], collection: bool) -> None:  # noqa: FBT001 - invented
    target = Target(PLANS, tuple(names), collection=collection)
    assert read_target(target.path) == target
    assert read_target(quote(f"{ROOT}/" + "/".join(names)) if names else ROOT).names == tuple(names)


@given(st.text(max_size=60))
def test_whatever_is_taken_is_a_path_of_names(text: str) -> None:
    try:
        target = read_target("/" + text)
    except InvalidRequest:
        return
    assert all(is_name(name) for name in target.names)
    assert read_target(target.path) == target


@given(NAMES, NAMES)
def test_locks_know_two_names_as_the_same_exactly_when_files_do(one: str, other: str) -> None:
    same = unicodedata.normalize("NFC", one) == unicodedata.normalize("NFC", other)
    assert (lock_path(PLANS, (one,)) == lock_path(PLANS, (other,))) == same


@pytest.mark.parametrize("url", [PLANS, "https://contoso.example", "https://contoso.example/a/b/c", "https://a-b.contoso.example/x.y~z_-"])
def test_a_site_is_one_segment(url: str) -> None:
    segment = site_segment(url)
    assert "/" not in segment
    assert site_named(segment) == url


@pytest.mark.parametrize(
    "path",
    [
        "/..", "/.", f"{ROOT}/..", f"{ROOT}/../x", f"{ROOT}/./x", f"{ROOT}/%2e%2e/x", f"{ROOT}/%2E%2E", f"{ROOT}/%2e/x", f"{ROOT}/a%2Fb",
        f"{ROOT}/a%2fb", f"{ROOT}//a", f"/{ROOT}/a", f"{ROOT}/a//", f"{ROOT}/a%00b", f"{ROOT}/%00", f"{ROOT}/a%0Ab", f"{ROOT}/a%7F", f"{ROOT}/%C2%85",
        f"{ROOT}/%FF", f"{ROOT}/%C3", f"{ROOT}/%ED%A0%80", f"{ROOT}/%C0%AE%C0%AE/x", f"{ROOT}/" + "a" * 256, f"{ROOT}/" + "a" * 5_000,
        f"{ROOT}/" + "a/" * 65, f"{ROOT}/" + "%F0%9F%98%80" * 256, f"{ROOT},%2e%2e/x", f"{ROOT}/..%2f..%2fx", f"{ROOT}/..%5c..%5cx%2f",
    ],
)  # fmt: skip
def test_tricks_are_refused_by_every_method(alex: Person, path: str) -> None:
    for method in ("GET", "PUT", "MKCOL", "PROPFIND", "LOCK", "DELETE"):
        answer = alex.raw(
            alex.head(method, path, "Depth: 0", *(["Content-Length: 1"] if method == "PUT" else [])) + b"x" * (method == "PUT")
        )
        status = answer.split(b" ", 2)[1]
        assert status in (b"400", b"403", b"404", b"405", b"409"), (method, answer)
        assert b"passwd" not in answer
    assert alex.ask("MOVE", f"{ROOT}/nothing", Destination=path).status in (400, 404, 502)


@pytest.mark.parametrize(
    "path", ["/..", f"{ROOT}/%2e%2e/x", f"{ROOT}/a%2Fb", f"{ROOT}/a%00b", f"{ROOT}/%FF", f"{ROOT}//a", f"{ROOT}/" + "a" * 5_000]
)
def test_the_answer_says_what_is_wrong_and_repeats_nothing(alex: Person, path: str) -> None:
    answer = alex.raw(alex.head("GET", path))
    assert answer.startswith(b"HTTP/1.1 400 "), answer
    assert b"path_invalid" in answer or b"path_too_long" in answer
    assert b"aaaa" not in answer


def test_case_matters(alex: Person) -> None:
    alex.put(f"{ROOT}/Case", b"upper")
    alex.put(f"{ROOT}/case", b"lower")
    assert (alex.get(f"{ROOT}/Case").body, alex.get(f"{ROOT}/case").body) == (b"upper", b"lower")


def test_two_spellings_of_a_name_are_one_file_stored_as_it_came(alex: Person) -> None:
    composed, decomposed = f"{ROOT}/caf%C3%A9", f"{ROOT}/cafe%CC%81"
    assert alex.put(decomposed, b"1").status == 201
    assert alex.put(composed, b"2").status == 204
    assert alex.get(decomposed).body == b"2"
    listed = alex.names(f"{ROOT}/")
    assert decomposed in listed
    assert composed not in listed
    assert alex.ask("MOVE", decomposed, Destination=composed).status in (201, 204)
    assert composed in alex.names(f"{ROOT}/")
    assert alex.ask("COPY", composed, Destination=decomposed).status == 403
    assert alex.get(composed).body == b"2"


def test_the_longest_names_and_the_deepest_folders(alex: Person) -> None:
    longest = quote("ä" * 255)
    assert alex.put(f"{ROOT}/{longest}", b"1").status == 201
    assert alex.get(f"{ROOT}/{longest}").body == b"1"
    path = ROOT
    for _depth in range(63):
        path += "/d"
        assert alex.ask("MKCOL", path).status == 201
    assert alex.put(f"{path}/f", b"1").status == 201
    assert alex.ask("MKCOL", f"{path}/d").status == 201
    assert alex.put(f"{path}/d/f", b"1").status == 400


def test_a_site_by_its_id(plans: World, alex: Person) -> None:
    ((site_id,),) = plans.sql("SELECT id FROM sites WHERE url = ?", PLANS)
    alex.put(f"{ROOT}/by-id", b"1")
    assert alex.get(f"/{site_id}/by-id").body == b"1"
    assert f"/{site_id}/by-id" in alex.names(f"/{site_id}/")
    assert alex.lock(f"/{site_id}/by-id")[0].status == 200
    assert alex.put(f"{ROOT}/by-id", b"2").status == 423


def test_no_path_reaches_another_site(plans: World, alex: Person) -> None:
    alex.put(f"{ROOT}/secret", b"1")
    for path in (
        f"{ROOT},secret",
        f"{ROOT}%2Fsecret",
        f"{ROOT}%2Csecret",
        "/contoso.example,sites/plans/secret",
        "/contoso.example/sites/plans/secret",
    ):
        assert alex.get(path).status in (400, 404), path
