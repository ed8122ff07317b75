"""What files, folders and sites may be called."""

from __future__ import annotations

import pytest

from keystead.core.errors import InvalidRequest
from keystead.core.stores.paths import check_name, check_site_url, join_path, split_path


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("", ()),
        ("/", ()),
        ("a", ("a",)),
        ("/a", ("a",)),
        ("a/", ("a",)),
        ("/a/", ("a",)),
        ("/a/b c/d.txt", ("a", "b c", "d.txt")),
        ("...", ("...",)),
        (".hidden/..x", (".hidden", "..x")),
        ("a\\b", ("a\\b",)),
        ("%2e%2e/x", ("%2e%2e", "x")),
        ("\u00fc/u\u0308", ("\u00fc", "u\u0308")),
        ("CON/aux. ", ("CON", "aux. ")),
        ("\U0001f511" * 255, ("\U0001f511" * 255,)),
        ("/".join(["a"] * 64), ("a",) * 64),
    ],
)
def test_paths_are_names_with_slashes_between(text: str, names: tuple[str, ...]) -> None:
    assert split_path(text) == names
    assert split_path(join_path(names)) == names


@pytest.mark.parametrize(
    "text",
    ["//", "//a", "a//", "a//b", "///", ".", "..", "/..", "a/..", "../a", "a/../b", "a/./b", "./a", "/.", "a/.."]
    + [f"a/x{character}y" for character in "\0\x01\n\r\t\x1f\x7f\x80\x85\x9f\ud800\udc00\udfff"],
)
def test_paths_that_lead_elsewhere_or_cannot_be_written_are_refused(text: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        split_path(text)
    assert refused.value.code == "path_invalid"


@pytest.mark.parametrize(
    "text", ["a" * 256, "a/" + "b" * 300, "a/" * 2048 + "a", "/".join(["a"] * 65), "x" * 5000, "/" * 4097, "\u00fc" * 256]
)
def test_paths_that_are_too_long_are_refused(text: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        split_path(text)
    assert refused.value.code == "path_too_long"


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "/", "a\0", "\ud83d", "secret\n"])
def test_no_error_repeats_a_name(name: str) -> None:
    """Names are content: an error text ends up in logs."""
    with pytest.raises(InvalidRequest) as refused:
        check_name(name)
    assert refused.value.code == "path_invalid"
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("https://contoso.example", "https://contoso.example"),
        ("https://contoso.example/", "https://contoso.example"),
        ("HTTPS://Contoso.Example/Sites/Plans", "https://contoso.example/sites/plans"),
        ("https://contoso.example/sites/plans/", "https://contoso.example/sites/plans"),
        ("https://my.contoso.example/personal/alex_contoso_example", "https://my.contoso.example/personal/alex_contoso_example"),
        ("https://a.b/1/2/3", "https://a.b/1/2/3"),
        ("https://a.b/~x/.y/z-1", "https://a.b/~x/.y/z-1"),
    ],
)
def test_a_site_has_one_spelling(text: str, url: str) -> None:
    assert check_site_url(text) == url
    assert check_site_url(url) == url


@pytest.mark.parametrize(
    "text",
    [
        "",
        "https://",
        "https:///sites",
        "contoso.example/sites",
        "http://contoso.example/sites",
        "https:/contoso.example/sites",
        "ftp://contoso.example",
        "https://contoso/sites",
        "https://-a.example",
        "https://contoso.example:443/sites",
        "https://user@contoso.example/sites",
        "https://user:word@contoso.example/sites",
        "https://contoso.example/sites?x=1",
        "https://contoso.example/sites#x",
        "https://contoso.example//sites",
        "https://contoso.example/sites//",
        "https://contoso.example/a/b/c/d",
        "https://contoso.example/.",
        "https://contoso.example/a/../b",
        "https://contoso.example/a b",
        "https://contoso.example/%2e%2e",
        "https://contoso.example/a\n",
        "https://contoso.example\n",
        " https://contoso.example",
        "https://contoso.example/\u00fc",
        "https://\u212aontoso.example/sites",
        "https://contoso.example/" + "a" * 400,
        "https://contoso.example/sites\0",
        "https://[::1]/sites",
        "https://127.0.0.1:80/",
    ],
)
def test_what_is_no_url_of_a_site(text: str) -> None:
    """The letter K has a look-alike (U+212A) that lower case turns into it: it is refused before."""
    with pytest.raises(InvalidRequest) as refused:
        check_site_url(text)
    assert refused.value.code == "site_url_invalid"
