"""Paths in a site, and URLs of sites: what is allowed, said once (docs/spec/files.md).

A name is content: no error repeats it. Case matters; two names whose Unicode form NFC is equal are the same name, and a name is stored and
given back as it came.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from keystead.core.errors import InvalidRequest
from keystead.core.ids import DOMAIN

if TYPE_CHECKING:
    from collections.abc import Sequence

MAX_NAME_CHARACTERS = 255
"""At most 1,020 bytes of UTF-8."""
MAX_NAMES = 64
"""Folders inside folders, and the file."""
MAX_PATH_CHARACTERS = 4096
MAX_URL_CHARACTERS = 400

_REFUSED = re.compile(r"[/\x00-\x1f\x7f-\x9f\ud800-\udfff]")
"""The separator, control characters C0, DEL and C1, lone surrogates."""
_SEGMENT = re.compile(r"(?!\.{1,2}\Z)[a-z0-9._~-]+")
_MAX_SEGMENTS = 3
_NAME_RULE = "a name has 1 to 255 characters, no '/' and no control characters, and is not '.' or '..'"


def split_path(text: str) -> tuple[str, ...]:
    """The names of a path, from the top of the site; none for the site itself.

    One `/` may stand in front and one behind. `.` and `..` are refused, not followed.

    Raises:
        InvalidRequest: `path_too_long`: over 4,096 characters or 64 names; `path_invalid`: a name that is none.
    """
    if len(text) > MAX_PATH_CHARACTERS:
        raise InvalidRequest(
            "path_too_long",
            f"the path has {len(text)} characters",
            f"a path has at most {MAX_PATH_CHARACTERS} characters; use shorter names",
        )
    if text in ("", "/"):
        return ()
    names = tuple(text.removeprefix("/").removesuffix("/").split("/"))
    if len(names) > MAX_NAMES:
        raise InvalidRequest("path_too_long", f"the path has {len(names)} names", f"folders lie at most {MAX_NAMES} deep")
    for name in names:
        check_name(name)
    return names


def join_path(names: Sequence[str]) -> str:
    """The path of these names: `/` in front of each; `/` alone for the site itself."""
    return "/" + "/".join(names)


def check_name(name: str) -> None:
    """Refuse what is not the name of a file or folder.

    Raises:
        InvalidRequest: `path_too_long`: over 255 characters; `path_invalid`: anything else.
    """
    if len(name) > MAX_NAME_CHARACTERS:
        raise InvalidRequest("path_too_long", f"a name in the path has {len(name)} characters", _NAME_RULE)
    if not name:
        raise InvalidRequest("path_invalid", "a name in the path is empty", _NAME_RULE)
    if name in (".", ".."):
        raise InvalidRequest("path_invalid", "a name in the path is '.' or '..'", "give the path from the top of the site")
    if _REFUSED.search(name):
        raise InvalidRequest("path_invalid", "a name in the path contains a character that no name may", _NAME_RULE)


def check_site_url(text: str) -> str:
    """The URL of a site in its one spelling: https, a host, up to three segments; lower case, without `/` at the end.

    Raises:
        InvalidRequest: `site_url_invalid`.
    """
    scheme, separator, rest = text.partition("://")
    host, *segments = rest.removesuffix("/").lower().split("/")
    if (
        len(text) > MAX_URL_CHARACTERS
        or not text.isascii()  # before lower case makes ASCII of what is not
        or scheme.lower() != "https"
        or not separator
        or not DOMAIN.fullmatch(host)
        or len(segments) > _MAX_SEGMENTS
        or not all(_SEGMENT.fullmatch(segment) for segment in segments)
    ):
        raise InvalidRequest(
            "site_url_invalid",
            "that is not the URL of a site",
            "give https, a host and up to three names of letters, digits, '.', '_', '~' or '-', such as https://contoso.example/sites/plans",
        )
    return "/".join(("https:/", host, *segments))
