"""One container of objects in an S3 bucket or an Azure Blob container.

- **Nothing is overwritten.** An object of up to `WHOLE_BYTES` is stored by one request that the store refuses if the name is taken. A
  larger one goes up in parts, whose last request the libraries cannot make conditional: the name is looked up first, and is 128 bits
  drawn for this one object, so that nobody else stores under it in between (docs/adr/0022-objects-on-remote-stores.md).
- **Lost answers are asked again without a second copy.** After one, the store may say that the name is taken: then what lies there is
  compared with what was sent. The same bytes: the first request had arrived. Other bytes: a conflict.
- **Only the configured address is called**, with the container's own credentials and nothing of the environment (see `opened`).
- **What a store says goes no further.** Its messages may quote signatures and signed addresses; errors hold its status code alone.

A crash before the last request of an upload leaves no object. Parts of a large one may stay hidden in the store until its life-cycle
rule removes them (docs/howto/object-stores.md).
"""

from __future__ import annotations

import hashlib
import re
import time
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum, auto
from random import SystemRandom
from threading import Lock
from typing import TYPE_CHECKING, TypeVar

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError, PermissionDeniedError, UnauthenticatedError

from keystead.adapters.objects import references
from keystead.adapters.objects.store_clock import store_time
from keystead.core.errors import IntegrityFailure, KeysteadError, NotFound, Unavailable
from keystead.ports.objects import ObjectInfo

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from obstore import ObjectMeta
    from obstore.store import ObjectStore as Opened

    from keystead.adapters.objects.credentials import AzureCredentials, CredentialsFile, S3Credentials
    from keystead.adapters.objects.reaching import Reach

WHOLE_BYTES = 16 * 1024 * 1024
"""Objects of at most this size are stored by one request; every pack is."""
PART_BYTES = 8 * 1024 * 1024
"""Of larger ones, sent `PARTS_AT_ONCE` at a time: so memory stays flat. S3 takes 10,000 parts: 80 GB, far beyond any item."""
PARTS_AT_ONCE = 2
PAGE = 1_000
"""Objects held at a time while listing: as many as one answer of S3 has."""
FIRST_WAIT, LONGEST_WAIT = 0.1, 5.0
"""Seconds before a lost answer is asked for again: doubling, and a random part of that, so that many callers do not come back at once."""
CHECK_TIMEOUT = 5_000
"""Milliseconds that `check` waits for a container at most."""
_random = SystemRandom()
_STATUS = re.compile(r"non-2xx status code: ([0-9]{3})")
_RETRIED = frozenset({408, 425, 429, *range(500, 600)})

_Answer = TypeVar("_Answer")


class _Said(Enum):
    """What an error of the library means."""

    MISSING = auto()
    REFUSED = auto()
    BEYOND = auto()
    """The range lies beyond the object's end."""
    LOST = auto()
    """No answer, or one that says to try again: the request may have been carried out, or not."""
    FAULT = auto()
    """The store will not, or is none, for a reason that trying again cannot mend."""
    WRONG_RANGE = auto()
    """It answered with other bytes of the object than were asked for."""


@dataclass(frozen=True, slots=True)
class _Sent:
    """What was sent for an object."""

    size: int
    sha256: bytes


class _Parts:
    """Chunks of an object, counted and hashed as they go by; copied, since the source fills the same buffer again for the next.

    Attributes:
        failure: what the source raised: it must come out of `put` as it is, not be taken for an answer of the store.
        finished: all chunks went by.
    """

    def __init__(self, chunks: Iterable[bytes | memoryview]) -> None:
        self._chunks = iter(chunks)
        self._digest = hashlib.sha256()
        self._size = 0
        self.failure: BaseException | None = None
        self.finished = False

    def __iter__(self) -> Iterator[bytes]:
        try:
            for chunk in self._chunks:
                data = bytes(chunk)
                self._digest.update(data)
                self._size += len(data)
                yield data
        except GeneratorExit:
            raise
        except BaseException as error:
            self.failure = error
            raise
        self.finished = True

    def sent(self) -> _Sent:
        """What went by so far."""
        return _Sent(self._size, self._digest.digest())


class RemoteObjects:
    """Implements what `Containers` needs of a container. Threads may share it.

    Args:
        name: of the container: the first part of its references, and of its objects' names in the store.
        reach: how the store is reached.
        credentials: with what.
    """

    def __init__(self, name: str, reach: Reach, credentials: CredentialsFile[S3Credentials] | CredentialsFile[AzureCredentials]) -> None:
        self._name = name
        self._reach = reach
        self._credentials = credentials
        self._lock = Lock()
        self._opened: dict[tuple[int, int, bool], tuple[int | None, Opened]] = {}

    def put(self, ref: str, chunks: Iterable[bytes | memoryview]) -> int:
        """Store the chunks as one object."""
        references.parts(ref)
        if isinstance(chunks, (list, tuple)) and len(chunks) == 1:  # a pack: it stays as it is until we return, and is not copied
            only = memoryview(chunks[0]).cast("B")
            if only.nbytes <= WHOLE_BYTES:
                return self._put_whole(ref, only)
        source = iter(chunks)
        first: list[bytes] = []
        size = 0
        for chunk in source:
            first.append(bytes(chunk))
            size += len(first[-1])
            if size > WHOLE_BYTES:
                return self._put_parts(ref, _Parts(_chained(first, source)))
        return self._put_whole(ref, memoryview(b"".join(first)))

    def get(self, ref: str, offset: int, length: int) -> bytes:
        """Exactly `length` bytes from `offset`."""
        references.parts(ref)
        references.check_range(ref, offset, length)
        if not length:
            if self._asked(ref, lambda: obstore.head(self._store(), ref))["size"] < offset:
                raise references.truncated(ref, offset, length)
            return b""

        return self._asked(ref, lambda: _read(self._store(), ref, offset, length))

    def delete(self, ref: str) -> None:
        """Remove an object."""
        references.stored_parts(ref)
        with suppress(NotFound):
            self._asked(ref, lambda: obstore.delete(self._store(), ref))

    def all_objects(self) -> Iterator[ObjectInfo]:
        """Every object, a page at a time. Those stored or deleted meanwhile may be listed or not; what else lies there is passed over."""
        now = self._asked(self._name, lambda: store_time(self._reach, self._name))
        listing = _Listing(lambda after: obstore.list(self._store(), self._name, offset=after or None, chunk_size=PAGE))
        while page := self._asked(self._name, listing.page):
            for found in page:
                if references.is_object(found["path"]):
                    yield ObjectInfo(found["path"], found["size"], max(0.0, now - found["last_modified"].timestamp()))

    def check(self) -> list[str]:
        """This container's name, if it does not answer."""
        try:
            patience = min(CHECK_TIMEOUT, self._reach.timeout)
            self._asked(self._name, lambda: self._list_nothing(self._store(timeout=patience)), retries=0)
        except Unavailable:
            return [self._name]
        return []

    # -- storing ------------------------------------------------------------------------------------------------------------------

    def _put_whole(self, ref: str, data: memoryview) -> int:
        """Store by one request, which the store refuses if the name is taken."""
        tries = 0

        def stored() -> bool:
            nonlocal tries
            tries += 1
            try:
                obstore.put(self._store(), ref, data, mode="create", use_multipart=False)
            except AlreadyExistsError:
                return False
            except FileNotFoundError:
                raise self._bucket_missing() from None
            return True

        # What is there at the first try is another's; later it may be what an earlier try stored before its answer was lost.
        if not self._asked(ref, stored) and (tries == 1 or not self._holds(ref, _Sent(data.nbytes, hashlib.sha256(data).digest()))):
            raise references.exists(ref)
        return data.nbytes

    def _put_parts(self, ref: str, parts: _Parts) -> int:
        """Store in parts, each of which the library sends again when its answer is lost.

        The look before is what keeps an object from being overwritten here. It is enough: see the module's text.
        """
        if self._size(ref) is not None:
            raise references.exists(ref)
        try:
            obstore.put(self._patient_store(), ref, iter(parts), use_multipart=True, chunk_size=PART_BYTES, max_concurrency=PARTS_AT_ONCE)
        except (BaseError, OSError, ValueError) as error:
            if parts.failure is not None:
                raise parts.failure from None
            # The answer to the last request may be the one that was lost; then the object is there, whole.
            if not parts.finished or not self._holds(ref, parts.sent()):
                raise self._translated(ref, error) from None
        return parts.sent().size

    def _holds(self, ref: str, sent: _Sent) -> bool:
        """Whether the object is what was sent, byte for byte."""
        if self._size(ref) != sent.size:
            return False
        digest = hashlib.sha256()
        for offset in range(0, sent.size, PART_BYTES):
            digest.update(self.get(ref, offset, min(PART_BYTES, sent.size - offset)))
        return digest.digest() == sent.sha256

    # -- asking -------------------------------------------------------------------------------------------------------------------

    def _asked(self, ref: str, act: Callable[[], _Answer], *, retries: int | None = None) -> _Answer:
        """Do something that may be done again: after a lost answer, later and later; after a refusal, if there are new credentials.

        Raises:
            KeysteadError: what `act` raises as such, and what the store's last answer means.
        """
        version = self._credentials.refresh()
        left = self._reach.retries if retries is None else retries
        wait = FIRST_WAIT
        while True:
            try:
                return act()
            except (BaseError, OSError, ValueError) as error:
                said = _said(error)
                failure = self._translated(ref, error)
            if said is _Said.REFUSED and (newer := self._credentials.refresh(after_refusal=True)) != version:
                version = newer
                continue
            if said is _Said.MISSING:
                self._asked(ref, lambda: self._list_nothing(self._store()))  # it would look the same if its whole bucket were gone
            if said is not _Said.LOST or not left:
                raise failure
            left -= 1
            time.sleep(_random.uniform(wait / 2, wait))
            wait = min(LONGEST_WAIT, 2 * wait)

    def _size(self, ref: str) -> int | None:
        """Of an object; None when there is none."""
        try:
            return self._asked(ref, lambda: obstore.head(self._store(), ref))["size"]
        except NotFound:
            return None

    def _list_nothing(self, store: Opened) -> None:
        """The cheapest question that fails when the bucket is not there: for names that there are none of."""
        for _page in obstore.list(store, f"{self._name}/check", chunk_size=1):
            return

    def _store(self, *, timeout: int = 0) -> Opened:
        """The store as the library opens it, with the credentials in force; left to the first call, since many commands make none."""
        return self._opened_for(timeout or self._reach.timeout, 0, self._credentials.version)

    def _patient_store(self) -> Opened:
        """For uploads in parts: it sends a part again by itself, and asks for the credentials before each."""
        return self._opened_for(self._reach.timeout, self._reach.retries, None)

    def _opened_for(self, timeout: int, retries: int, version: int | None) -> Opened:
        with self._lock:
            of, found = self._opened.get((timeout, retries, version is None), (None, None))
            if found is None or of != version:
                found = self._reach.opened(self._credentials, timeout, retries, each_request=version is None)
                self._opened[timeout, retries, version is None] = version, found
            return found

    # -- errors -------------------------------------------------------------------------------------------------------------------

    def _translated(self, ref: str, error: Exception) -> KeysteadError:
        """What an error of the library means to the caller. Its text stays here."""
        said, container = _said(error), self._name
        if said is _Said.MISSING:
            return references.missing(ref)
        if said is _Said.BEYOND:
            return IntegrityFailure("object_truncated", f"object {ref} ends before the bytes asked for", "restore the object from a backup")
        if said is _Said.REFUSED:
            file = self._credentials.file_name
            return Unavailable(
                "object_store_refused",
                f"container {container} refused the credentials in {file}",
                "put credentials there that may read, write, list and delete; the file is read again at the next call",
            )
        if said is _Said.WRONG_RANGE:
            return IntegrityFailure(
                "object_answer_wrong",
                f"container {container} answered something else than was asked about object {ref}",
                "see what stands between Keystead and the store; nothing of the answer was used",
            )
        status = _status(error)
        if status == 404:
            return self._bucket_missing()
        what = f"answered with status {status}" if status else "did not answer"
        if not status and said is _Said.FAULT:
            what = "answered as no object store does"  # a redirect to nowhere is how S3 says that a bucket is in another region
        return Unavailable(
            "object_store_unavailable", f"container {container} {what}", "check its endpoint and region, and that it is up, then try again"
        )

    def _bucket_missing(self) -> Unavailable:
        container = self._name
        return Unavailable(
            "object_store_unavailable",
            f"the bucket of container {container} is not there",
            f"check bucket and endpoint of container {container} in keystead.toml, then try again",
        )


class _Listing:
    """Pages of a listing. After an error it goes on behind the last page that came whole."""

    def __init__(self, start: Callable[[str], Iterator[Sequence[ObjectMeta]]]) -> None:
        self._start = start
        self._after = ""
        self._pages: Iterator[Sequence[ObjectMeta]] | None = None

    def page(self) -> Sequence[ObjectMeta]:
        """The next page; empty after the last."""
        pages, self._pages = self._pages or self._start(self._after), None
        page = next(pages, ())
        if page:
            self._after, self._pages = page[-1]["path"], pages
        return page


def _read(store: Opened, ref: str, offset: int, length: int) -> bytes:
    """A range, of exactly that length. No more than the range is kept, however much is sent.

    Raises:
        IntegrityFailure: more or fewer bytes came.
    """
    found = obstore.get(store, ref, options={"range": (offset, offset + length)})
    pieces, size = [], 0
    if found.range == (offset, offset + length):
        for piece in found.stream(min_chunk_size=length):
            pieces.append(piece)
            size += len(piece)
            if size > length:
                break
    if size != length:
        raise references.truncated(ref, offset, length)
    return b"".join(pieces)


def _chained(first: list[bytes], rest: Iterator[bytes | memoryview]) -> Iterator[bytes | memoryview]:
    """What was looked at already, then the rest."""
    first.reverse()
    while first:
        yield first.pop()
    yield from rest


_WORDS = (
    ("HTTP error: ", _Said.LOST),
    ("Wanted range starting at", _Said.BEYOND),  # a store gave an empty range instead of refusing one that begins at the object's end
    ("Received non-partial response", _Said.WRONG_RANGE),
    ("Content-Range", _Said.WRONG_RANGE),
    ("Requested ", _Said.WRONG_RANGE),
)
"""What the library says where the store gave no status, or one that means success; anything else is a fault."""


def _said(error: Exception) -> _Said:
    if isinstance(error, FileNotFoundError):
        return _Said.MISSING
    if isinstance(error, OSError):
        return _Said.LOST
    status = _status(error)
    if isinstance(error, PermissionDeniedError | UnauthenticatedError) or status in {401, 403}:
        return _Said.REFUSED
    if status:
        return _Said.BEYOND if status == 416 else _Said.LOST if status in _RETRIED else _Said.FAULT
    text = str(error)
    return next((said for words, said in _WORDS if words in text), _Said.FAULT)


def _status(error: Exception) -> int:
    """The store's status code; 0 where there was no answer. The library has it in its text alone, before anything the store said."""
    match = _STATUS.search(str(error))
    return int(match[1]) if match else 0
