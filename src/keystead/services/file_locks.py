"""Locks that clients hold on paths of a site (RFC 4918 section 6): kept in the database, so that they hold for all processes and restarts.

A lock is on a path, whether or not anything lies there, and so says what a client calls a thing: it is sealed like a name. What it is found
by is the hash of its token. A lock that lies under a site key that is gone protected something before a re-encryption ended; it is over.

Locks speak to clients that ask for them. A file is not made unchangeable: the API and commands do not look at locks. Nobody can keep the others
of a site from working for long: one person holds a tenth of its locks at most, and who looks after the site ends them all (`site.unlock`).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import msgspec

from keystead.core.errors import Conflict, IntegrityFailure, NotFound, PreconditionFailed
from keystead.core.formats.files import lock_context
from keystead.core.stores.files import FileLock
from keystead.services.file_reading import looked
from keystead.services.sites import seal_box

if TYPE_CHECKING:
    from collections.abc import Sequence

    from keystead.core.formats.context import Context
    from keystead.core.keys.hierarchy import SiteKeys
    from keystead.ports.tx import Tx
    from keystead.services.context import Services
    from keystead.services.sites import OpenSite

MAX_LOCKS = 1_000
"""Of one site at a time."""
MAX_OF_ONE = 100
"""Of one person, of those."""


@dataclass(frozen=True, slots=True)
class Lock:
    """One lock.

    Attributes:
        token: by which its holder names it; told to everybody who asks what is locked, so no secret.
        path: what it is on, in the one spelling that the front end uses for it: names joined by `/`, without one at the end.
        exclusive: else shared with other shared ones.
        deep: whether it holds for everything below too.
        owner: what the client says about who holds it, XML.
        principal: UPN of who took it.
        timeout: seconds it was granted for; expires: when it ends, milliseconds since the epoch.
    """

    token: str
    path: str
    exclusive: bool
    deep: bool
    owner: bytes
    principal: str
    timeout: int
    expires: int

    def covers(self, path: str) -> bool:
        """Whether it protects what lies at a path."""
        return path == self.path or (self.deep and path.startswith(self.path + "/"))

    def conflicts(self, other: Lock) -> bool:
        """Whether both cannot be held at once."""
        if not (self.exclusive or other.exclusive):
            return False
        return self.covers(other.path) or other.covers(self.path)


class _Kept(msgspec.Struct, frozen=True, array_like=True):
    """What is sealed of a lock."""

    token: str
    path: str
    exclusive: bool
    deep: bool
    owner: bytes
    principal: str
    timeout: int


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_Kept).decode


def listed(services: Services, opened: OpenSite) -> list[Lock]:
    """The locks of a site that last.

    Raises:
        IntegrityFailure: `lock_damaged`: one of them is not what was written.
    """
    return looked(services, opened, lambda tx, now: _listed(services, tx, now))


def take(services: Services, opened: OpenSite, lock: Lock) -> None:
    """Keep a new lock, if none stands in its way now, whatever the caller has seen before.

    Raises:
        Conflict: `file_locked`.
        PreconditionFailed: `too_many_locks`, `too_many_locks_of_one`.
    """
    with services.db.write() as tx:
        tx.sites.add_counts(opened.site.id, 0, 0, 0)  # whoever takes a lock on the site at the same time waits here
        _require_same_key(tx, opened)
        held = _listed(services, tx, opened)
        if any(lock.conflicts(other) for other in held):
            raise Conflict("file_locked", "somebody else has locked it, or something in it", "try again when that lock is released or over")
        if len(held) >= MAX_LOCKS:
            raise PreconditionFailed("too_many_locks", f"the site has {len(held)} locks", "try again when some are released or over")
        if sum(other.principal == lock.principal for other in held) >= MAX_OF_ONE:
            raise PreconditionFailed(
                "too_many_locks_of_one",
                f"{lock.principal} holds {MAX_OF_ONE} locks of the site",
                "release some, or wait until they are over",
            )
        tx.sites.put_lock(_sealed(services, opened, lock))


def refresh(services: Services, opened: OpenSite, lock: Lock) -> None:
    """Let a lock last longer: `timeout` and `expires` as given.

    Raises:
        NotFound: `lock_not_found`: it was released, or is over.
    """
    with services.db.write() as tx:
        tx.sites.add_counts(opened.site.id, 0, 0, 0)
        _require_same_key(tx, opened)
        if all(other.token != lock.token for other in _listed(services, tx, opened)):
            raise NotFound("lock_not_found", "there is no such lock any more", "take it again")
        tx.sites.put_lock(_sealed(services, opened, lock))


def release(services: Services, opened: OpenSite, tokens: Sequence[str]) -> None:
    """End locks; those that are over already are no error."""
    if tokens:
        with services.db.write() as tx:
            for token in tokens:
                tx.sites.remove_lock(opened.site.id, _hash(token))


def _listed(services: Services, tx: Tx, opened: OpenSite) -> list[Lock]:
    rows = tx.sites.locks(opened.site.id, services.clock.now())
    if any(row.key_version > opened.site.key_version for row in rows):  # a move began since: what is locked must not look free
        now = tx.sites.find(opened.site.tenant_id, opened.site.id)
        if now is not None:
            opened.keys_of(now.key_version, f"locks of the site {opened.site.id}")
    return [_unsealed(opened, row) for row in rows if row.key_version in opened.all_keys]


def _require_same_key(tx: Tx, opened: OpenSite) -> None:
    """A lock under a key that is about to go would end with it, untold.

    Raises:
        Conflict: `site_busy`: a move of the site began just now, or it was deleted.
    """
    now = tx.sites.find(opened.site.tenant_id, opened.site.id)
    if now is None or now.key_version != opened.site.key_version:
        raise Conflict("site_busy", f"the key of the site {opened.site.url} changed just now", "try again")


def sealed_anew(services: Services, opened: OpenSite, row: FileLock, version: int, keys: SiteKeys) -> FileLock:
    """A lock under another version of the site key: what it says stays.

    Raises:
        IntegrityFailure: it is not what was written.
    """
    sealed = seal_box(services, opened.site, keys, version, _context(opened, row.token_hash), _box(opened, row))
    return replace(row, key_version=version, sealed=sealed)


def _sealed(services: Services, opened: OpenSite, lock: Lock) -> FileLock:
    site, token_hash = opened.site, _hash(lock.token)
    kept = _Kept(lock.token, lock.path, lock.exclusive, lock.deep, lock.owner, lock.principal, lock.timeout)
    box = opened.sealed(services, _context(opened, token_hash), _encode(kept))
    return FileLock(token_hash, site.id, site.key_version, box, lock.expires)


def _box(opened: OpenSite, row: FileLock) -> bytes:
    return opened.unsealed(row.sealed, row.key_version, _context(opened, row.token_hash), _named(opened))


def _context(opened: OpenSite, token_hash: bytes) -> Context:
    return lock_context(opened.site.tenant_id, opened.site.id, token_hash.hex())


def _named(opened: OpenSite) -> str:
    """How errors name a lock."""
    return f"a lock of the site {opened.site.id}"


def _unsealed(opened: OpenSite, row: FileLock) -> Lock:
    box = _box(opened, row)
    try:
        kept = _decode(box)
    except msgspec.DecodeError as error:
        raise IntegrityFailure("lock_damaged", f"{_named(opened)} is not what was written", "it is over at its time") from error
    return Lock(kept.token, kept.path, kept.exclusive, kept.deep, kept.owner, kept.principal, kept.timeout, row.expires)


def _hash(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()
