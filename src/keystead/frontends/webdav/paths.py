"""Addresses: which site and which file a request is about (docs/spec/webdav.md section 2).

    /                                            the sites the caller may use
    /contoso.example,sites,marketing/Plans/a     the file /Plans/a of the site https://contoso.example/sites/marketing
    /0190f5fe-.../Plans/a                        the same by the site's id

A site is one segment: its host and path with commas for slashes, which neither may hold. So no site lies in another, whatever their names.

The library joins, splits and unquotes paths as text in several places, and loses what stands behind a `?` or a `;` of a name that way. So
it is given paths whose segments are percent-encoded in one canonical form, from beginning to end, and only resources decode their names.
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from urllib.parse import quote, unquote_to_bytes

from keystead.core.errors import InvalidRequest
from keystead.core.stores.paths import check_name

SAFE = "!*'(),$-_.~"
"""Beside letters and digits, what stands for itself: some clients take a quoted parenthesis for another one."""
LONGEST = 32_768
"""Bytes of a path as it comes: the longest path of a file, with every byte percent-encoded."""
MOST_NAMES = 66
_SCHEME = "https://"


@dataclass(frozen=True, slots=True)
class Target:
    """What a path names.

    Attributes:
        site: URL or id of a site; empty for the list of sites.
        names: folders and file below it; none for the site itself.
        collection: whether the path ended with a slash.
    """

    site: str
    names: tuple[str, ...]
    collection: bool

    @property
    def path(self) -> str:
        """Canonical, for the library."""
        return joined((site_segment(self.site), *self.names) if self.site else (), collection=self.collection)


def read_target(raw: str) -> Target:
    """What the path of a request, or of a header Destination, names.

    Args:
        raw: percent-encoded, from the first slash on, as it came.

    Raises:
        InvalidRequest: `path_invalid`, `path_too_long`.
    """
    path = raw.partition("?")[0]
    if not path.startswith("/") or not path.isascii():
        raise _invalid("an address begins with a slash, and whatever is not ASCII is percent-encoded")
    if len(path) > LONGEST:
        raise InvalidRequest("path_too_long", f"the address has {len(path)} characters", f"at most {LONGEST} are taken")
    collection = path.endswith("/")
    segments = path.strip("/").split("/") if path.strip("/") else []
    if path != "/" + "/".join(segments) + ("/" if collection and segments else ""):
        raise _invalid("a segment of the address is empty")
    if len(segments) > MOST_NAMES:
        raise InvalidRequest("path_too_long", f"the address has {len(segments)} segments", f"at most {MOST_NAMES} are taken")
    names = [read_segment(segment) for segment in segments]
    if not names:
        return Target("", (), collection=True)
    return Target(site_named(names[0]), tuple(names[1:]), collection)


def read_segment(segment: str) -> str:
    """A name, from its percent-encoded form.

    Raises:
        InvalidRequest: `path_invalid`, `path_too_long`: no name of a file, such as `..`, or one with a slash or a NUL in it.
    """
    try:
        name = unquote_to_bytes(segment).decode()
    except UnicodeDecodeError:
        raise _invalid("a segment of the address is not UTF-8") from None
    check_name(name)
    return name


def site_named(segment: str) -> str:
    """URL or id of the site that a segment stands for."""
    host, comma, rest = segment.partition(",")
    return _SCHEME + host + "/" + rest.replace(",", "/") if comma else (_SCHEME + host if "." in host else host)


def site_segment(reference: str) -> str:
    """The segment that stands for a site, given by URL or id."""
    return reference.removeprefix(_SCHEME).replace("/", ",")


def encoded(name: str) -> str:
    """A name as a segment."""
    return quote(name, safe=SAFE)


def joined(names: tuple[str, ...], *, collection: bool) -> str:
    """A path of names, canonical."""
    path = "/" + "/".join(encoded(name) for name in names)
    return path + "/" if collection and names else path


def lock_path(url: str, names: tuple[str, ...]) -> str:
    """What locks are kept by: the same for all spellings of a path in the site of that URL."""
    return joined((site_segment(url), *(unicodedata.normalize("NFC", name) for name in names)), collection=False)


def _invalid(what: str) -> InvalidRequest:
    return InvalidRequest("path_invalid", f"the path is not valid: {what}", "see docs/spec/webdav.md for what a path may hold")
