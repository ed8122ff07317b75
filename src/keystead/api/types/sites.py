"""Sites and files.

A site is named by its URL or id. A path is names joined by `/`, from the top of the site; a leading `/` changes nothing.
"""

from datetime import datetime
from typing import Annotated, Literal

import msgspec

from keystead.api.types.base import Request, Response

Limit = Annotated[int, msgspec.Meta(ge=1, le=1000)]
Bytes = Annotated[int, msgspec.Meta(ge=0, le=2**53)]
Number = Annotated[int, msgspec.Meta(ge=0, le=4_294_967_295)]
SiteKindName = Literal["site", "onedrive", "team"]


class CreateSite(Request, frozen=True):
    """`geo`: where it lies; the tenant's only one where none is named. `owner`: a person of the tenant; whoever makes it where none is named.

    A `private` site is for its owner and members; a personal drive (`onedrive`) is so in any case.
    """

    url: str
    geo: str = ""
    kind: SiteKindName = "site"
    owner: str = ""
    private: bool = False


class SiteView(Response, frozen=True):
    """One site. Counts and sizes are of current versions; `stored_bytes` is ciphertext of all versions."""

    id: str
    url: str
    kind: str
    geo: str
    owner: str
    shared: bool
    created: datetime
    files: int
    size_bytes: int
    stored_bytes: int
    quota_bytes: int


class ListSites(Request, frozen=True):
    """`after`: a URL."""

    geo: str = ""
    after: str = ""
    limit: Limit = 100


class NameSite(Request, frozen=True):
    site: str


class SiteStatus(Response, frozen=True):
    """How the files of one site are encrypted (R-121).

    `geo_state`: where the geo stands; `is_encrypted`: whether everything in the site is under the geo's policy in force; `key_version`: of
    the site key; `progress_percent`: of the bytes that a move has still to re-encrypt.
    """

    id: str
    url: str
    kind: str
    geo: str
    geo_state: str
    is_encrypted: bool
    policy_id: str
    key_version: int
    move_state: str
    progress_percent: float
    moved: datetime | None
    owner: str
    shared: bool
    files: int
    size_bytes: int
    stored_bytes: int
    quota_bytes: int


class SetSite(Request, frozen=True):
    """What is not given stays as it is."""

    site: str
    owner: str | None = None
    shared: bool | None = None
    quota_bytes: Bytes | None = None


class SiteMember(Request, frozen=True):
    site: str
    member: str


class MembersView(Response, frozen=True):
    url: str
    owner: str
    shared: bool
    members: list[str]


class UnlockedView(Response, frozen=True):
    """How many locks were ended."""

    url: str
    locks: int


class ListFiles(Request, frozen=True):
    """What lies in a folder, by id; `after`: the id of an entry. Of a file, the file."""

    site: str
    path: str = ""
    after: str = ""
    limit: Limit = 1000


class FileView(Response, frozen=True):
    """A file or folder. `version` is 0 for a folder; `unchanged`: whether writing it found just these bytes there."""

    name: str
    path: str
    kind: str
    size_bytes: int
    modified: datetime
    version: int
    id: str
    unchanged: bool = False


class UploadFile(Request, frozen=True):
    """The fields beside the bytes of one file.

    `offset`: where in the present file the bytes go; without it they are the whole file. `if_version`: the version that the file must have
    now, 0 for none. `parents`: make the folders above it too. `modified`: what is kept as the file's time.
    """

    site: str
    path: str
    offset: Bytes | None = None
    if_version: Number | None = None
    parents: bool = False
    modified: datetime | None = None
    media_type: Annotated[str, msgspec.Meta(max_length=255)] = ""


class BatchFile(Request, frozen=True):
    """One file of at most 16 MiB."""

    path: str
    data: bytes
    modified: datetime | None = None
    media_type: Annotated[str, msgspec.Meta(max_length=255)] = ""


class UploadBatch(Request, frozen=True):
    """Files and folders that come about all together or not at all; the folders above them are made too."""

    site: str
    files: list[BatchFile]
    folders: list[str] = []


class BatchResult(Response, frozen=True):
    """`uploaded` files have a new version; `unchanged` ones had just these bytes."""

    uploaded: int
    unchanged: int
    size_bytes: int


class DownloadFile(Request, frozen=True):
    """Some bytes of a version, by default all of the current one. `offset` may be the size at most; `length` may go beyond the end."""

    site: str
    path: str
    version: Number | None = None
    offset: Bytes = 0
    length: Bytes | None = None


MAX_GET_FILES = 5_000
"""In one answer."""


class GetBatch(Request, frozen=True):
    """Files of at most 16 MiB each, by the ids that a listing gave. The answer is in frames (`api/frames.py`), in no order."""

    site: str
    files: Annotated[list[str], msgspec.Meta(min_length=1, max_length=MAX_GET_FILES)]


class MakeFolder(Request, frozen=True):
    """`parents`: make the folders above it too, and take one that is there for made."""

    site: str
    path: str
    parents: bool = False


class MoveFile(Request, frozen=True):
    """A file or folder to another path of the site. `replace`: in place of a file that is there."""

    site: str
    path: str
    to: str
    replace: bool = False


class RemoveFile(Request, frozen=True):
    """`recursive`: a folder with what is in it."""

    site: str
    path: str
    recursive: bool = False


class RemovedView(Response, frozen=True):
    id: str
    files: int
    folders: int


class NameFile(Request, frozen=True):
    site: str
    path: str


class VersionView(Response, frozen=True):
    """One version of a file; `current` for the one that is read."""

    number: int
    size_bytes: int
    created: datetime
    created_by: str
    current: bool


class RestoreVersion(Request, frozen=True):
    """Makes a new version with the content of an old one."""

    site: str
    path: str
    version: Annotated[int, msgspec.Meta(ge=1, le=4_294_967_295)]
