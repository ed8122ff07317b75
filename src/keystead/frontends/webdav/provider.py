"""Sites as the library sees them: collections and resources over `services.files`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias, cast
from xml.etree import ElementTree as ET

import msgspec
from wsgidav.dav_error import (
    HTTP_FORBIDDEN,
    HTTP_NOT_FOUND,
    DAVError,
    PRECONDITION_CODE_ProtectedProperty,
)
from wsgidav.dav_provider import DAVCollection, DAVNonCollection, DAVProvider
from wsgidav.util import guess_mime_type
from wsgidav.xml_tools import string_to_xml

from keystead.core.errors import Forbidden, IntegrityFailure, InvalidRequest, NotFound, PreconditionFailed
from keystead.core.formats.files import MAX_MEDIA_TYPE
from keystead.core.stores.files import CHUNK_BYTES, NodeKind
from keystead.core.stores.paths import join_path
from keystead.frontends.webdav.conditions import CONDITIONS, take_conditions
from keystead.frontends.webdav.errors import answered
from keystead.frontends.webdav.locks import release_below, require_unlocked
from keystead.frontends.webdav.paths import joined, lock_path, read_segment, read_target, site_segment
from keystead.frontends.webdav.visit import VISIT
from keystead.ports.clock import SECOND
from keystead.services import files, sites
from keystead.services.file_nodes import root_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from wsgiref.types import StartResponse

    from keystead.core.stores.files import Node, Site
    from keystead.frontends.webdav.conditions import Conditions
    from keystead.frontends.webdav.visit import Visit
    from keystead.services.sites import OpenSite

Environ = dict[str, Any]

Thing: TypeAlias = "File | Folder"

MAX_SITES = 1_000
"""How many sites the list of sites shows."""
MAX_MEMBERS = 20_000
"""What a folder may hold that is listed: the whole answer is made before it goes out."""
MAX_PROPERTIES = 64 * 1024
"""Bytes of what clients may set on one file or folder."""
PAGE = 1_000

_decode_properties = msgspec.msgpack.Decoder(dict[str, bytes]).decode
_encode_properties = msgspec.msgpack.Encoder(order="deterministic").encode


class SitesProvider(DAVProvider):
    """All sites of the caller's tenant that the caller may use."""

    def __init__(self) -> None:
        super().__init__()
        self.verbose = 0  # else the library prints errors, with what is in them

    @answered
    def get_resource_inst(self, path: str | None, environ: Environ) -> Thing | SiteList | None:
        """What lies at a path; None where nothing does."""
        if path is None:  # what is above the list of sites
            return None
        visit: Visit = environ[VISIT]
        name = path.rstrip("/")
        if name not in visit.known:
            visit.known[name] = self._found(path, environ, visit)
        return cast("Thing | SiteList | None", visit.known[name])

    def ref_url_to_path(self, ref_url: str) -> str:
        """They are the same: neither is decoded by anybody but a resource."""
        return ref_url

    @answered
    def custom_request_handler(
        self, environ: Environ, start_response: StartResponse, default_handler: Callable[[Environ, StartResponse], Iterable[bytes]]
    ) -> Iterable[bytes]:
        """Around every method: the conditions, before anything is done."""
        conditions = environ[CONDITIONS] = take_conditions(environ)
        thing = self.get_resource_inst(environ["PATH_INFO"], environ)
        file = thing if isinstance(thing, File) else None
        conditions.check(
            environ["REQUEST_METHOD"],
            there=thing is not None,
            tag=None if file is None else file.get_etag(),
            modified=None if file is None else file.get_last_modified(),
        )
        return default_handler(environ, start_response)

    @staticmethod
    def _found(path: str, environ: Environ, visit: Visit) -> Thing | SiteList | None:
        target = read_target(path)
        if not target.site:
            return SiteList(environ)
        opened = visit.site(target.site)
        if opened is None:
            return None
        try:
            node = files.find(visit.services, opened, join_path(target.names))
        except NotFound:
            return None
        return _thing(joined((site_segment(target.site), *target.names), collection=False), environ, opened.site, target.names, node)


def _thing(path: str, environ: Environ, site: Site, names: tuple[str, ...], node: Node) -> Thing:
    kind = File if node.kind is NodeKind.FILE else Folder
    return kind(path, environ, site, names, node)


class SiteList(DAVCollection):
    """What lies at `/`: the sites the caller may use. Nothing in it can be changed from here."""

    def __init__(self, environ: Environ) -> None:
        super().__init__("/", environ)
        self.visit: Visit = environ[VISIT]

    def get_display_name(self) -> str:
        """The name of the whole."""
        return "Sites"

    def get_ref_url(self) -> str:
        """What nothing is locked by."""
        return "/"

    def get_href(self) -> str:
        """Its address."""
        return "/"

    def prevent_locking(self) -> bool:
        """It is everybody's."""
        return True

    def get_member_names(self) -> list[str]:
        """The segments that stand for the sites."""
        return [member.path.strip("/") for member in self.get_member_list()]

    @answered
    def get_member_list(self) -> list[Folder]:
        """The sites, without opening any."""
        visit = self.visit
        found = sites.usable_sites(visit.services, visit.call("site.list"), limit=MAX_SITES)
        return [Folder("/" + site_segment(site.url), self.environ, site, (), root_of(site)) for site in found]

    @answered
    def set_property_value(self, _name: str, _value: ET.Element | None, *, dry_run: bool = False) -> None:  # noqa: ARG002 - the library's
        """Never."""
        raise _made_elsewhere()

    @answered
    def create_empty_resource(self, _name: str) -> Thing:
        """Never."""
        raise _made_elsewhere()

    @answered
    def create_collection(self, _name: str) -> None:
        """Never."""
        raise _made_elsewhere()

    @answered
    def handle_delete(self) -> bool:
        """Never."""
        raise _made_elsewhere()

    @answered
    def handle_move(self, _dest_path: str) -> bool:
        """Never."""
        raise _made_elsewhere()

    @answered
    def handle_copy(self, _dest_path: str, *, depth_infinity: bool) -> bool:  # noqa: ARG002 - the library's
        """Never."""
        raise _made_elsewhere()


class _Node:
    """What files and folders have in common.

    Args:
        path: canonical, without a slash at its end.
        environ: of the request.
        site: where it lies.
        names: from the top of the site; none for the top.
        node: what it is.
    """

    path: str
    environ: Environ
    is_collection: bool

    def __init__(self, path: str, environ: Environ, site: Site, names: tuple[str, ...], node: Node) -> None:
        super().__init__(path, environ)  # type: ignore[call-arg]  # of the library's class that comes next
        self.visit: Visit = environ[VISIT]
        self.site = site
        self.names = names
        self.node = node
        self._pending: list[tuple[str, bytes | None]] = []
        self._dead: dict[str, bytes] | None = None
        self._ref_url = ""

    @property
    def opened(self) -> OpenSite:
        """The site, with its keys."""
        opened = self.visit.site(self.site.url)
        if opened is None:
            raise NotFound("site_not_found", "the site is not there any more", "keystead site list shows the tenant's sites")
        return opened

    @property
    def file_path(self) -> str:
        """As the service knows it."""
        return join_path(self.names)

    # -- where it is -----------------------------------------------------------------------------------------------------------------

    def get_display_name(self) -> str:
        """Its name; of a site, its URL."""
        return self.names[-1] if self.names else self.site.url.removeprefix("https://")

    def get_ref_url(self) -> str:
        """What locks are kept by; the library asks for it with every property."""
        if not self._ref_url:
            self._ref_url = lock_path(self.site.url, self.names)
        return self._ref_url

    def get_href(self) -> str:
        """Its address."""
        return self.path + "/" if self.is_collection else self.path

    def get_preferred_path(self) -> str:
        """The same."""
        return self.get_href()

    # -- properties ------------------------------------------------------------------------------------------------------------------

    def get_creation_date(self) -> float:
        """Seconds since the epoch."""
        return self.node.created / SECOND

    def get_last_modified(self) -> float:
        """Seconds since the epoch."""
        return self.node.modified / SECOND

    def get_properties(self, mode: str, *, name_list: list[str] | None = None) -> list[tuple[str, Any]]:
        """As the library does it; but a request for `propname` comes here as one for no properties at all."""
        if mode == "named" and not name_list:
            mode, name_list = "name", None
        return cast("list[tuple[str, Any]]", super().get_properties(mode, name_list=name_list))  # type: ignore[misc]  # of the next class

    @answered
    def get_property_names(self, *, is_allprop: bool) -> list[str]:
        """Those that every resource has, and what clients have set."""
        live: list[str] = super().get_property_names(is_allprop=is_allprop)  # type: ignore[misc]  # of the next class
        return [*live, *self._set_by_clients()]

    @answered
    def get_property_value(self, name: str) -> Any:  # noqa: ANN401 - text or an element
        """One property."""
        if name == "{DAV:}getetag" and not self.is_collection:
            return f'"{etag_of(self.node)}"'  # the library leaves out the quotes that belong to it (RFC 4918 section 15.6)
        if not name.startswith("{DAV:}"):
            found = self._set_by_clients().get(name)
            if found is None:
                raise DAVError(HTTP_NOT_FOUND)
            return string_to_xml(found)
        return super().get_property_value(name)  # type: ignore[misc]  # of the next class

    @answered
    def set_property_value(self, name: str, value: ET.Element | None, *, dry_run: bool = False) -> None:
        """The library tries all changes of a request first, then makes them one by one. Here the first that is made makes all of them."""
        if dry_run:
            if name.startswith("{DAV:}"):
                raise DAVError(HTTP_FORBIDDEN, err_condition=PRECONDITION_CODE_ProtectedProperty)
            if not self.names:
                raise _made_elsewhere()
            self._pending.append((name, None if value is None else ET.tostring(value)))
            return
        if not self._pending:
            return
        present = dict(self._set_by_clients())
        for changed, text in self._pending:
            present.pop(changed, None)
            if text is not None:
                present[changed] = text
        self._pending = []
        self.write_properties(present)

    def write_properties(self, present: dict[str, bytes]) -> None:
        """Store what clients have set."""
        data = _encode_properties(present) if present else b""
        if len(data) > MAX_PROPERTIES:
            raise PreconditionFailed(
                "properties_too_large",
                f"its properties would have {len(data)} bytes",
                f"at most {MAX_PROPERTIES} are kept for each file or folder",
            )
        files.set_properties(self.visit.services, self.visit.call(), self.opened, self.file_path, data)
        self.visit.changed()
        self._dead = present

    def _set_by_clients(self) -> dict[str, bytes]:
        if self._dead is None:
            data = files.properties(self.opened, self.node) if self.node.properties else b""
            try:
                self._dead = _decode_properties(data) if data else {}
            except msgspec.DecodeError as error:
                raise IntegrityFailure(
                    "properties_damaged", f"the properties of {self.node.id} are not what was written", "restore the database from a backup"
                ) from error
        return self._dead

    # -- changes ---------------------------------------------------------------------------------------------------------------------

    @answered
    def handle_delete(self) -> bool:
        """It, and all that is below it."""
        if not self.names:
            raise _made_elsewhere()
        self._require_unlocked(self.names)
        files.delete(self.visit.services, self.visit.call(), self.opened, self.file_path, recursive=True)
        release_below(self.visit, self.opened, self.get_ref_url())
        self.visit.changed()
        return True

    @answered
    def handle_move(self, dest_path: str) -> bool:
        """To another path of the same site, in place of what is there: one act."""
        names = self._destination(dest_path)
        self._require_unlocked(self.names)
        self._require_unlocked(names)
        there = self._at(names)
        if there is not None and there.node.id != self.node.id:
            if there.is_collection or self.is_collection:
                self._make_way(there)
            else:
                release_below(self.visit, self.opened, there.get_ref_url())
        files.move(self.visit.services, self.visit.call(), self.opened, self.file_path, join_path(names), replace=True)
        release_below(self.visit, self.opened, self.get_ref_url())
        self.visit.changed()
        self.environ[CREATED] = there is None
        return True

    @answered
    def handle_copy(self, dest_path: str, *, depth_infinity: bool) -> bool | list[tuple[str, DAVError]]:
        """To another path of the same site: a tree file by file, each of which is copied or not."""
        names = self._destination(dest_path)
        self._require_unlocked(names)
        there = self._at(names)
        if there is not None and (there.is_collection or self.is_collection):
            self._make_way(there)
        self.environ[CREATED] = there is None
        failed: list[tuple[str, DAVError]] = []
        self.copy_to(names, failed, deep=depth_infinity)
        self.visit.changed()
        return failed or True

    def copy_to(self, names: tuple[str, ...], failed: list[tuple[str, DAVError]], *, deep: bool) -> None:
        """Copy to names; what could not be copied is told."""
        raise NotImplementedError

    def copy_properties_to(self, names: tuple[str, ...]) -> None:
        """What clients have set is copied too."""
        present = self._set_by_clients()
        copied = self._at(names)
        if copied is not None and (present or copied.node.properties):
            copied.write_properties(present)

    def _destination(self, dest_path: str) -> tuple[str, ...]:
        target = read_target(dest_path)
        other = self.visit.site(target.site) if target.site else None
        if other is None or other.site.id != self.site.id:
            raise InvalidRequest(
                "another_server", "between sites nothing is moved or copied by the server", "get it from the one and put it into the other"
            )
        if not self.names or not target.names:
            raise _made_elsewhere()
        here, there = self.get_ref_url(), lock_path(self.site.url, target.names)
        if there.startswith(here + "/") or (there == here and self.visit.method == "COPY"):
            raise Forbidden("into_itself", "nothing can be moved or copied into itself", "choose another destination")
        return target.names

    def _at(self, names: tuple[str, ...]) -> Thing | None:
        path = joined((self.path.split("/")[1], *names), collection=False)
        self.visit.changed()
        return cast("Thing | None", self.environ["wsgidav.provider"].get_resource_inst(path, self.environ))

    def _make_way(self, there: Thing) -> None:
        """Delete what lies at the destination, with all that is below it: for that a program's token needs the scope that deletes."""
        self.visit.admit_to("site.rm")
        there.handle_delete()

    def _require_unlocked(self, names: tuple[str, ...]) -> None:
        tokens: list[str] = self.environ.get("wsgidav.ifLockTokenList", [])
        require_unlocked(self.visit, self.opened, lock_path(self.site.url, names), tokens, below=True)


class Folder(_Node, DAVCollection):
    """A folder, or the top of a site."""

    node: Node

    def get_used_bytes(self) -> int:
        """Of the whole site (RFC 4331)."""
        return self.site.size_bytes

    def get_available_bytes(self) -> int:
        """What the site's quota leaves."""
        return max(0, self.site.quota_bytes - self.site.size_bytes)

    def get_member_names(self) -> list[str]:
        """Segments."""
        return [member.path.rpartition("/")[2] for member in self.get_member_list()]

    @answered
    def get_member_list(self) -> list[Thing]:
        """What lies in it."""
        found: list[Thing] = []
        after = ""
        opened = self.opened
        while True:
            if len(found) > MAX_MEMBERS:
                raise PreconditionFailed(
                    "folder_too_large",
                    f"the folder has more than {MAX_MEMBERS} files and folders",
                    "keystead site ls lists it page by page",
                )
            page = files.listing(self.visit.services, opened, self.file_path, after=after, limit=PAGE)
            for entry in page:
                names = (*self.names, entry.name)
                path = joined((self.path.split("/")[1], *names), collection=False)
                found.append(_thing(path, self.environ, self.site, names, entry.node))
            if len(page) < PAGE:
                return found
            after = page[-1].node.id

    def get_member(self, name: str) -> Thing | None:
        """What has a segment."""
        path = f"{self.path}/{name}"
        return cast("Thing | None", self.environ["wsgidav.provider"].get_resource_inst(path, self.environ))

    @answered
    def create_empty_resource(self, name: str) -> File:
        """A file for PUT to write, of which nothing is kept before all of it is there; for LOCK an empty file."""
        names = (*self.names, read_segment(name))
        path = joined((self.path.split("/")[1], *names), collection=False)
        if self.visit.method == "PUT":
            return File(path, self.environ, self.site, names, None)
        entry = files.put(self.visit.services, self.visit.call(), self.opened, join_path(names), (), size=0, if_version=0)
        self.visit.changed()
        return File(path, self.environ, self.site, names, entry.node)

    @answered
    def create_collection(self, name: str) -> None:
        """A folder."""
        names = (*self.names, read_segment(name))
        files.make_folder(self.visit.services, self.visit.call(), self.opened, join_path(names))
        self.visit.changed()

    def copy_to(self, names: tuple[str, ...], failed: list[tuple[str, DAVError]], *, deep: bool) -> None:
        """The folder, then what is in it."""
        files.make_folder(self.visit.services, self.visit.call(), self.opened, join_path(names))
        self.copy_properties_to(names)
        for member in self.get_member_list() if deep else ():
            try:
                member.copy_to((*names, member.names[-1]), failed, deep=True)
            except DAVError as error:
                failed.append((member.get_href(), error))


class File(_Node, DAVNonCollection):
    """A file; or one that a PUT is about to make."""

    def __init__(self, path: str, environ: Environ, site: Site, names: tuple[str, ...], node: Node | None) -> None:
        super().__init__(path, environ, site, names, node if node is not None else root_of(site))
        self.new = node is None

    def get_content_length(self) -> int:
        """Bytes."""
        return self.node.size

    def get_content_type(self) -> str:
        """Guessed by the name."""
        return guess_mime_type(self.names[-1])

    def support_ranges(self) -> bool:
        """Always."""
        return True

    def support_etag(self) -> bool:
        """Always."""
        return True

    def get_etag(self) -> str:
        """Changes with the content, and with nothing else."""
        return etag_of(self.node)

    def get_content(self) -> _Reading:
        """Opened when the first bytes are asked for."""
        return _Reading(self)

    def begin_write(self, *, content_type: str | None = None) -> _Writing:
        """Takes the body."""
        return _Writing(self, content_type or "")

    def end_write(self, *, with_errors: bool) -> None:
        """Nothing is left to do: either the new version is there, or nothing has changed."""

    @answered
    def copy_to(self, names: tuple[str, ...], _failed: list[tuple[str, DAVError]], *, deep: bool) -> None:  # noqa: ARG002 - of folders
        """The bytes of the current version, and the properties."""
        services, opened, node = self.visit.services, self.opened, self.node
        body = files.read(services, self.visit.call("site.get"), opened, node, version=node.version or None)
        files.put(services, self.visit.call(), opened, join_path(names), body, size=node.size)
        self.copy_properties_to(names)


class _Reading:
    """Content as a stream."""

    def __init__(self, file: File) -> None:
        self._file = file
        self._offset = 0
        self._chunks: Iterator[bytes | memoryview] | None = None

    def seek(self, offset: int) -> None:
        """Where to begin; asked for once, before the first bytes."""
        self._offset = offset

    @answered
    def read(self, size: int) -> bytes:
        """The next bytes, at most so many, which is the length of a chunk or of all that is wanted."""
        if self._chunks is None:
            file = self._file
            self._chunks = files.read(
                file.visit.services,
                file.visit.call(),
                file.opened,
                file.node,
                version=file.node.version or None,  # the one whose size and tag the answer begins with, though there be a newer one by now
                offset=self._offset,
                length=None if size >= CHUNK_BYTES else size,
            )
        return bytes(next(self._chunks, b""))

    def close(self) -> None:
        """Nothing more is opened."""
        close = getattr(self._chunks, "close", None)
        if close is not None:
            close()


class _Writing:
    """Takes the body of a PUT, and makes it a version when all of it has come."""

    def __init__(self, file: File, media_type: str) -> None:
        self._file = file
        self._media_type = media_type if len(media_type) <= MAX_MEDIA_TYPE else ""

    @answered
    def writelines(self, pieces: Iterable[bytes]) -> None:
        """The body."""
        file, environ = self._file, self._file.environ
        entry = files.put(
            file.visit.services,
            file.visit.call(),
            file.opened,
            file.file_path,
            self._whole(pieces),
            size=_stated(environ),
            if_version=self._expected(environ),
            media_type=self._media_type,
            modified=_stated_time(environ),
        )
        file.visit.changed()
        file.node, file.new = entry.node, False

    def close(self) -> None:
        """All was done before."""

    def _expected(self, environ: Environ) -> int | None:
        """The version that must be there still when the new one comes about, where the client has made conditions."""
        conditions: Conditions = environ[CONDITIONS]
        if self._file.new:
            return 0 if conditions.new else None
        return self._file.node.version if conditions.pinned or "[" in environ.get("HTTP_IF", "") else None

    def _whole(self, pieces: Iterable[bytes]) -> Iterator[bytes]:
        """The pieces; what was cut off raises, so that nothing of it is kept, and so does a lock that was taken meanwhile."""
        stated, got = _stated(self._file.environ), 0
        try:
            for piece in pieces:
                got += len(piece)
                yield piece
        except TimeoutError:
            raise InvalidRequest("body_timed_out", "the body did not arrive in time", "send it again, without a pause") from None
        except (OSError, ValueError):
            raise _cut_off() from None
        if stated is not None and got != stated:
            raise _cut_off()
        file = self._file
        tokens: list[str] = file.environ.get("wsgidav.ifLockTokenList", [])
        require_unlocked(file.visit, file.opened, file.get_ref_url(), tokens, below=False)


MTIME = "HTTP_X_OC_MTIME"
_MTIME_DIGITS = 11
CREATED = "keystead.created"
"""Set where a copy or a move came to a place where nothing was: the library answers 204 for both."""


def etag_of(node: Node) -> str:
    """Of a file's content: its id and the number of its version."""
    return f"{node.id}-{node.version}"


def _stated(environ: Environ) -> int | None:
    """How long the body is said to be: by its length, or, in chunks, by what macOS says of it."""
    stated = environ.get("CONTENT_LENGTH") or environ.get("HTTP_X_EXPECTED_ENTITY_LENGTH", "")
    return int(stated) if stated.isascii() and stated.isdecimal() else None


def _stated_time(environ: Environ) -> int | None:
    """The file's time as the client says it, in milliseconds: a header that OwnCloud began with, and sync programs send.

    Raises:
        InvalidRequest: `header_invalid`: no number of seconds.
    """
    stated: str | None = environ.get(MTIME)
    if stated is None:
        return None
    if not (stated.isascii() and stated.isdecimal() and len(stated) <= _MTIME_DIGITS):
        raise InvalidRequest("header_invalid", "X-OC-Mtime is no time", "give whole seconds since 1970")
    return int(stated) * SECOND


def _cut_off() -> InvalidRequest:
    return InvalidRequest("upload_cut_off", "the request ended before its stated size", "send it again")


def _made_elsewhere() -> Forbidden:
    return Forbidden(
        "sites_elsewhere", "sites themselves are not made, changed or deleted over WebDAV", "keystead site create, set and delete do it"
    )
