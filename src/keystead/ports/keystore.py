"""The key store: shred keys, availability keys and provider root keys (design section 1).

Nothing ever comes out of it but what a caller sealed before: there is no method that returns a key (R-138). Each compartment has an
epoch key of its own; destroying an entry rewrites the compartment under a new epoch key and destroys the old one, so that an older
backup of the store no longer opens.

Implementations: SQL (`adapters/keystores/sql.py`), and memory for tests. When a method returns, its effect is durable.
Nobody retries below the service; `create` and `destroy` may be called again after a lost answer.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence


class Compartment(StrEnum):
    """Parts of the store that share nothing but the file: own epoch key, own rewrites (R-139)."""

    SHRED = "shred"
    AVAILABILITY_MAIL = "availability-mail"
    AVAILABILITY_FILES = "availability-files"
    PROVIDER = "provider"
    SIGNING = "signing"


@dataclass(frozen=True, slots=True)
class KeyEntry:
    """That a key exists; never the key."""

    key_id: str
    created: int


class KeyStore(Protocol):
    """Keys that seal and open small values: AES-256 and at most 4,096 bytes, but RSA-2048 and exactly 32 for availability-files (R-140).

    Raises, every method: `Unavailable` when the store cannot be read or written, `IntegrityFailure` when it opens wrong.
    """

    def create(self, compartment: Compartment, key_id: str) -> None:
        """Make a fresh key. Creating an id that exists changes nothing: a lost answer may be asked again."""
        ...

    def seal(self, compartment: Compartment, key_id: str, value: bytes, context: bytes) -> bytes:
        """Seal a value under a key with AES-256-GCM; `context` is the associated data and never empty.

        In availability-files: with RSA-OAEP-256, the context as its label.

        Raises:
            NotFound: no such key (any more).
        """
        ...

    def open(self, compartment: Compartment, key_id: str, box: bytes, context: bytes) -> bytes:
        """Open what `seal` returned.

        Raises:
            NotFound: no such key (any more).
            IntegrityFailure: another key, another context, or changed bytes.
        """
        ...

    def destroy(self, compartment: Compartment, key_ids: Sequence[str]) -> None:
        """Destroy keys for good. Ids that do not exist are passed over: the call is idempotent."""
        ...

    def entries(self, compartment: Compartment) -> list[KeyEntry]:
        """Ids and ages of all keys of a compartment, for collecting what a crash left unreferenced."""
        ...

    def rotate(self, compartment: Compartment) -> int:
        """Rewrite the compartment under a new epoch key; returns the new epoch's number. Keys themselves do not change."""
        ...
