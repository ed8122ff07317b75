"""Locks of WebDAV, as the library asks for them, kept by `services.file_locks`.

The library reasons about locks by address, and asks its storage for those at an address, above or below it. Here they are those of one site,
looked up once for each request. Taking one is decided again in the transaction that stores it, for another process may have been faster.
"""

from __future__ import annotations

import time
import uuid
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from wsgidav.dav_error import (
    HTTP_LOCKED,
    DAVError,
    DAVErrorCondition,
    PRECONDITION_CODE_LockConflict,
    PRECONDITION_CODE_MissingLockToken,
)

from keystead.core.errors import Conflict, Forbidden, InvalidRequest, NotFound
from keystead.frontends.webdav.errors import answered
from keystead.frontends.webdav.paths import site_named
from keystead.frontends.webdav.visit import present
from keystead.ports.clock import SECOND
from keystead.services import file_locks
from keystead.services.file_locks import Lock

if TYPE_CHECKING:
    from keystead.frontends.webdav.visit import Visit
    from keystead.services.sites import OpenSite

LONGEST = 3_600
"""Seconds a lock lasts at most without being refreshed: whoever asks for more, or for no end, gets so many."""
OWNER_BYTES = 4096
"""What a client may say of who holds a lock."""
PREFIX = "opaquelocktoken:"

LockDict = dict[str, Any]


class LockStorage:
    """What the library's lock manager keeps its locks in."""

    def open(self) -> None:
        """The database is open already."""

    def close(self) -> None:
        """It is closed elsewhere."""

    @answered
    def get(self, token: str) -> LockDict | None:
        """A lock by its token; None where there is no such, or it is over."""
        found = next((lock for _opened, lock in self._all() if lock.token == token), None)
        return None if found is None else self._shown(found)

    @answered
    def create(self, path: str, lock: LockDict) -> LockDict:
        """Keep a lock; what it is given in full is put into the dictionary too."""
        visit, opened = _visit_of(path)
        if len(lock["owner"]) > OWNER_BYTES:
            raise InvalidRequest("request_too_large", f"the owner of a lock has more than {OWNER_BYTES} bytes", "say less of who it is")
        seconds = _seconds(lock["timeout"])
        made = Lock(
            token=f"{PREFIX}{uuid.UUID(bytes=visit.services.random(16), version=4)}",
            path=path,
            exclusive=lock["scope"] == "exclusive",
            deep=lock["depth"] == "infinity",
            owner=lock["owner"],
            principal=lock["principal"],
            timeout=seconds,
            expires=visit.services.clock.now() + seconds * SECOND,
        )
        try:
            file_locks.take(visit.services, opened, made)
        except Conflict as error:
            raise locked([path], PRECONDITION_CODE_LockConflict) from error
        finally:
            visit.locks(opened, fresh=True)
        lock.update(self._shown(made))
        return lock

    @answered
    def refresh(self, token: str, *, timeout: float) -> LockDict:
        """Let a lock last on. Its own person alone may."""
        visit = _visit()
        seconds = _seconds(timeout)
        for opened, lock in self._all():
            if lock.token == token:
                if lock.principal != visit.principal.upn:
                    raise Forbidden("lock_of_another", "the lock was taken by somebody else", "who took it may refresh it")
                longer = replace(lock, timeout=seconds, expires=visit.services.clock.now() + seconds * SECOND)
                file_locks.refresh(visit.services, opened, longer)
                visit.locks(opened, fresh=True)
                return self._shown(longer)
        raise NotFound("lock_not_found", "there is no such lock any more", "take it again")

    @answered
    def delete(self, token: str) -> bool:
        """End a lock."""
        visit = _visit()
        for opened, lock in self._all():
            if lock.token == token:
                file_locks.release(visit.services, opened, [token])
                visit.locks(opened, fresh=True)
                return True
        return False

    @answered
    def get_lock_list(self, path: str, *, include_root: bool, include_children: bool, token_only: bool) -> list[LockDict] | list[str]:
        """The locks that are on a path, which may end in a slash, or on something below it."""
        path = "/" + path.strip("/")
        below = path + "/"
        found = [
            lock
            for _opened, lock in self._all()
            if (include_root and lock.path == path) or (include_children and lock.path.startswith(below))
        ]
        return [lock.token for lock in found] if token_only else [self._shown(lock) for lock in found]

    def _all(self) -> list[tuple[OpenSite, Lock]]:
        visit = _visit()
        opened = visit.site(visit.target.site) if visit.target.site else None
        return [] if opened is None else [(opened, lock) for lock in visit.locks(opened)]

    def _shown(self, lock: Lock) -> LockDict:
        left = (lock.expires - _visit().services.clock.now()) / SECOND
        return {
            "token": lock.token,
            "root": lock.path,
            "type": "write",
            "scope": "exclusive" if lock.exclusive else "shared",
            "depth": "infinity" if lock.deep else "0",
            "owner": lock.owner,
            "principal": lock.principal,
            "timeout": lock.timeout,
            "expire": time.time() + left,  # the library counts from the machine's clock
        }


def require_unlocked(visit: Visit, opened: OpenSite, path: str, tokens: list[str], *, below: bool) -> None:
    """Refuse a change of what others have locked, by the locks there are now.

    Args:
        visit: the request.
        opened: the site.
        path: of what is changed, as locks are kept by.
        tokens: that the client has shown.
        below: whether everything below it changes too.

    Raises:
        DAVError: 423, naming what is locked.
    """
    held = [
        lock.path
        for lock in visit.locks(opened, fresh=True)
        if (lock.covers(path) or (below and lock.path.startswith(path + "/")))
        and not (lock.token in tokens and lock.principal == visit.principal.upn)
    ]
    if held:
        raise locked(held, PRECONDITION_CODE_MissingLockToken)


def release_below(visit: Visit, opened: OpenSite, path: str) -> None:
    """End the locks on something that is gone, and on what was below it."""
    tokens = [lock.token for lock in visit.locks(opened, fresh=True) if lock.path == path or lock.path.startswith(path + "/")]
    if tokens:
        file_locks.release(visit.services, opened, tokens)
        visit.locks(opened, fresh=True)


def locked(paths: list[str], condition: str) -> DAVError:
    """423, naming what is locked."""
    detail = DAVErrorCondition(condition)
    for path in paths:
        detail.add_href(path)
    return DAVError(HTTP_LOCKED, err_condition=detail)


def _seconds(timeout: float) -> int:
    return LONGEST if timeout < 0 or timeout > LONGEST else max(1, int(timeout))


def _visit() -> Visit:
    assert present.visit is not None, "the library is called by the application alone"
    return present.visit


def _visit_of(path: str) -> tuple[Visit, OpenSite]:
    """The request, and the site in which a path lies."""
    visit = _visit()
    opened = visit.site(site_named(path.strip("/").partition("/")[0]))
    assert opened is not None, "what is locked was found in it"
    return visit, opened
