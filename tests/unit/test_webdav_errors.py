from __future__ import annotations

from pathlib import Path

import pytest
from wsgidav.dav_error import DAVError

from keystead.api.routes import BY_NAME
from keystead.core.errors import (
    Conflict,
    Forbidden,
    IntegrityFailure,
    InvalidRequest,
    KeyDenied,
    KeysteadError,
    NotFound,
    PreconditionFailed,
    Throttled,
    Unauthenticated,
    Unavailable,
)
from keystead.frontends.webdav.conditions import Conditions
from keystead.frontends.webdav.errors import STATUS_BY_CODE, Answered, answered, headers, page, phrase, status
from keystead.frontends.webdav.visit import CHANGING, READING

ERRORS = (Path(__file__).parents[2] / "docs" / "errors.md").read_text()


@pytest.mark.parametrize(
    ("error", "number"),
    [
        (KeyDenied("key_denied", "no"), 403),
        (Forbidden("not_a_member", "no"), 403),
        (Unauthenticated("token_unknown", "no"), 401),
        (NotFound("file_not_found", "no"), 404),
        (InvalidRequest("path_invalid", "no"), 400),
        (Unavailable("vault_unavailable", "no"), 503),
        (IntegrityFailure("file_damaged", "no"), 500),
        (PreconditionFailed("quota_exceeded", "no"), 507),
        (PreconditionFailed("file_changed", "no"), 412),
        (Conflict("file_locked", "no"), 423),
        (Conflict("site_busy", "no"), 503),
        (Throttled("sign_in_throttled", "no", retry_after=1_500), 429),
        (KeysteadError("unexpected", "no"), 500),
    ],
)
def test_every_kind_of_error_has_its_status(error: KeysteadError, number: int) -> None:
    assert status(error) == number
    assert Answered(error).value == number


def test_what_may_be_tried_again_says_when() -> None:
    assert headers(Throttled("sign_in_throttled", "no", retry_after=1_500)) == (("Retry-After", "2"),)
    assert dict(headers(Unavailable("vault_unavailable", "no")))["Retry-After"]
    assert dict(headers(Conflict("file_busy", "no")))["Retry-After"]
    assert headers(NotFound("file_not_found", "no")) == ()


def test_who_is_not_signed_in_is_told_how() -> None:
    assert [value.split()[0] for name, value in headers(Unauthenticated("not_signed_in", "no")) if name == "WWW-Authenticate"] == [
        "Basic",
        "Bearer",
    ]


@pytest.mark.parametrize("code", sorted(STATUS_BY_CODE))
def test_every_code_with_a_status_of_its_own_is_one_that_is_raised(code: str) -> None:
    assert f"`{code}`" in ERRORS


def test_every_method_is_admitted_by_rows_that_are_there() -> None:
    assert {*READING.values(), *(name for names in CHANGING.values() for name in names), "site.list"} <= set(BY_NAME)


def test_the_text_says_what_to_do_next() -> None:
    assert page(Forbidden("not_a_member", "alex is no member", "ask")) == (
        "text/plain; charset=utf-8",
        b"not_a_member: alex is no member; ask\n",
    )


def test_statuses_are_written_in_words() -> None:
    assert (phrase(507), phrase(299)) == ("507 Insufficient Storage", "299 Status")


def test_a_defect_is_an_answer_that_tells_nothing_of_it(caplog: pytest.LogCaptureFixture) -> None:
    @answered
    def broken() -> None:
        raise ZeroDivisionError("unmistakable")

    with pytest.raises(Answered) as told:
        broken()
    assert told.value.error.code == "unexpected"
    assert "unmistakable" not in told.value.get_user_info()
    assert "unmistakable" not in caplog.messages[0]


# -- conditions -------------------------------------------------------------------------------------------------------------------------

HOUR_TEN, HOUR_NINE = "Sun, 06 Nov 1994 10:00:00 GMT", "Sun, 06 Nov 1994 09:00:00 GMT"
AT_TEN = 784_116_000.5


@pytest.mark.parametrize(
    ("method", "there", "match", "none_match", "unmodified", "modified", "outcome"),
    [
        ("PUT", True, "", "", "", "", 0),
        ("PUT", True, '"a"', "", "", "", 0),
        ("PUT", True, '"b", "a"', "", "", "", 0),
        ("PUT", True, 'W/"a"', "", "", "", 412),  # weak tags match nothing here
        ("PUT", True, '"b"', "", "", "", 412),
        ("PUT", True, "*", "", "", "", 0),
        ("PUT", False, "*", "", "", "", 412),
        ("PUT", False, '"a"', "", "", "", 412),
        ("PUT", True, "", "*", "", "", 412),
        ("PUT", False, "", "*", "", "", 0),
        ("PUT", True, "", '"a"', "", "", 412),
        ("GET", True, "", '"a"', "", "", 304),
        ("HEAD", True, "", 'W/"a"', "", "", 304),
        ("GET", True, "", '"b"', "", HOUR_TEN, 0),  # a tag that differs counts more than a time
        ("GET", True, "", "", "", HOUR_TEN, 304),
        ("GET", True, "", "", "", HOUR_NINE, 0),
        ("PUT", True, "", "", "", HOUR_TEN, 0),  # a condition for reading alone
        ("PUT", True, "", "", HOUR_TEN, "", 0),
        ("PUT", True, "", "", HOUR_NINE, "", 412),
        ("PUT", True, '"a"', "", HOUR_NINE, "", 0),  # as above
        ("PUT", True, "", "", "no date", "", 0),
        ("GET", True, "", "", "", "no date", 0),
        ("GET", True, '"b"', '"a"', "", "", 412),
    ],
)
def test_conditions_of_RFC_9110(
    *,
    method: str,
    there: bool,
    match: str,
    none_match: str,
    unmodified: str,
    modified: str,
    outcome: int,
) -> None:
    conditions = Conditions(match, none_match, unmodified, modified)
    try:
        conditions.check(method, there=there, tag="a" if there else None, modified=AT_TEN if there else None)
        met = 0
    except DAVError as error:
        met = error.value
    assert met == outcome
