"""What a process remembers of the clients that sign in: tokens whose signatures were checked, failures, keys. No secret and no token is kept."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from threading import Lock
from typing import TYPE_CHECKING, Generic, TypeVar

from keystead.core.access.throttle import Failures, more, wait

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

    from keystead.core.access.throttle import Pace
    from keystead.core.vaults.tokens import ClientClaims

T = TypeVar("T")

MOST_TOKENS = 20_000
MOST_NAMES = 20_000


class Latest(Generic[T]):
    """The latest few things by the SHA-256 of a token; for threads."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._lock = Lock()
        self._kept: OrderedDict[bytes, T] = OrderedDict()

    def __repr__(self) -> str:
        return f"Latest({len(self._kept)} of {self._most})"

    def get(self, digest: bytes) -> T | None:
        """What was put there; it counts as fresh again."""
        with self._lock:
            found = self._kept.get(digest)
            if found is not None:
                self._kept.move_to_end(digest)
            return found

    def put(self, digest: bytes, value: T) -> None:
        """Keep it, and drop the oldest if there are too many."""
        with self._lock:
            self._kept[digest] = value
            self._kept.move_to_end(digest)
            if len(self._kept) > self._most:
                self._kept.popitem(last=False)

    def drop(self, digest: bytes) -> None:
        """Forget it."""
        with self._lock:
            self._kept.pop(digest, None)


class Attempts:
    """Failures by address and by client, in memory: each process counts for itself."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._failures: OrderedDict[str, Failures] = OrderedDict()

    def waiting(self, names: tuple[str, ...], now: int, pace: Pace) -> int:
        """Milliseconds until any of these may try again; 0 for now."""
        with self._lock:
            return max((wait(self._failures.get(name, Failures()), now, pace) for name in names), default=0)

    def failed(self, names: tuple[str, ...], now: int, pace: Pace) -> None:
        """Count a failure for each."""
        with self._lock:
            for name in names:
                self._failures[name] = more(self._failures.get(name, Failures()), now, pace)
                self._failures.move_to_end(name)
            while len(self._failures) > MOST_NAMES:
                self._failures.popitem(last=False)


@dataclass(slots=True)
class TokenState:
    """Of one process.

    Attributes:
        known: what tokens say whose signatures were checked, by their digests.
        attempts: who failed how often.
        signer: the key that signs now, with its id.
    """

    known: Latest[ClientClaims] = field(default_factory=lambda: Latest(MOST_TOKENS))
    attempts: Attempts = field(default_factory=Attempts)
    signer: tuple[str, RSAPrivateKey] | None = field(default=None, repr=False)
