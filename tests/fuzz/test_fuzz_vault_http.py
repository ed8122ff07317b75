"""Paths, queries, bodies and page tokens of the keys face, invented and changed: a call, or an error in the face's shape, and nothing else."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from keystead.core.errors import KeysteadError
from keystead.core.ids import KEY_NAME, KEY_VERSION
from keystead.core.vaults import jwk
from keystead.frontends.vault_http import app, handlers, routes, shapes
from keystead.frontends.vault_http.errors import told
from keystead.frontends.vault_http.parts import Served

INVENTED = settings(max_examples=300, deadline=None)
PARTS = st.sampled_from(["keys", "KEYS", "deletedkeys", "restore", "create", "versions", "a", "0" * 32, "", "%", "%2f", "%00", "%ff", ".."])
PATHS = st.lists(PARTS | st.text(max_size=5), max_size=7).map(lambda parts: "/" + "/".join(parts)) | st.text(max_size=40).map(
    lambda text: "/" + text
)
METHODS = st.sampled_from(["GET", "PUT", "POST", "PATCH", "DELETE", "HEAD", "OPTIONS", "get", "BREW"])


def raw(path: str) -> bytes:
    return path.encode("utf-8", "surrogatepass")


@INVENTED
@given(METHODS, PATHS)
def test_paths_and_methods(method: str, path: str) -> None:
    try:
        row, named = routes.find(method, raw(path))
        name, version = routes.place(named)
    except KeysteadError as error:
        assert told(error).status in {400, 404, 405}  # noqa: PT017 - both outcomes are right, each for its own path
        return
    assert row.method == method
    assert name == "" or name.replace("-", "a").isalnum()
    assert version is None or len(version) == 32
    assert ("{name}" in row.path) == bool(name)


@INVENTED
@given(st.binary(max_size=200) | st.text(alphabet="a=&+%;$-17.6", max_size=40).map(str.encode))
def test_queries(query: bytes) -> None:
    pairs, once = app._pairs(query)
    given = [part for part in query.split(b"&") if part]
    assert len(pairs) <= len(given)
    assert once == (len(pairs) == len(given)), "a parameter that is there twice is one that could be understood in two ways"


@INVENTED
@given(st.text(max_size=60) | st.text(alphabet="kvd", max_size=2).map(lambda text: jwk.encode(text.encode())), st.sampled_from("kvd"))
def test_page_tokens(token: str, kind: str) -> None:
    valid = {"k": KEY_NAME, "v": KEY_VERSION, "d": KEY_NAME}[kind].fullmatch
    served = Served("v", "https://v.localhost", "https://login.localhost/t", "https://localhost")
    asked: Any = handlers.Asked(None, None, served, 6, "", None, {"$skiptoken": token})  # type: ignore[arg-type]  # a page needs neither
    try:
        count, after = handlers._page(asked, kind, valid)
    except shapes.MemberInvalidError as unread:
        assert unread.error.code == "page_token_invalid"  # noqa: PT017 - both outcomes are right, each for its own token
        return
    assert count == handlers.MOST_RESULTS
    assert jwk.encode(f"{kind}{after}".encode()) == token


@INVENTED
@given(st.integers(), st.text(max_size=30))
def test_members(seconds: int, text: str) -> None:
    try:
        assert shapes.milliseconds(seconds, "exp") == seconds * 1_000
    except shapes.MemberInvalidError:
        assert not 0 <= seconds <= shapes.MAX_TIME
    try:
        assert jwk.encode(shapes.octets(f"PRIVATE{text}", "value")) == f"PRIVATE{text}"
    except shapes.MemberInvalidError as unread:
        assert "PRIVATE" not in f"{unread} {unread.error} {unread.__cause__}"  # noqa: PT017 - nothing that came is repeated
