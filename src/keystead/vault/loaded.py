"""Private keys: opened from the store, and kept as loaded objects, so that an unwrap costs one RSA operation and no parsing."""

from __future__ import annotations

from collections import OrderedDict
from threading import Lock
from typing import TYPE_CHECKING

from keystead.core.errors import IntegrityFailure
from keystead.core.vaults.seal import private_key_context

if TYPE_CHECKING:
    from collections.abc import Callable

    from keystead.ports.vault_store import KeyVersion, Vault, VaultReader
    from keystead.vault.material import PrivateKey
    from keystead.vault.services import VaultServices


class LoadedKeys:
    """The most recently used keys, by vault id and version. Safe to use from several threads.

    Whether a key may be used is never decided here: every call reads the key's state from the store first.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._keys: OrderedDict[tuple[str, str], PrivateKey] = OrderedDict()
        self._lock = Lock()

    def __repr__(self) -> str:
        return f"LoadedKeys({len(self._keys)} of {self._limit})"

    def get(self, vault_id: str, version: str, load: Callable[[], PrivateKey]) -> PrivateKey:
        """The key; `load` opens it when it is not here. Two threads may load the same key at once, which only costs time."""
        key = self.find(vault_id, version)
        if key is not None:
            return key
        place, key = (vault_id, version), load()
        with self._lock:
            self._keys[place] = key
            while len(self._keys) > self._limit:
                self._keys.popitem(last=False)
        return key

    def find(self, vault_id: str, version: str) -> PrivateKey | None:
        """The key, where it is here."""
        place = (vault_id, version)
        with self._lock:
            key = self._keys.get(place)
            if key is not None:
                self._keys.move_to_end(place)
        return key

    def forget(self, vault_id: str) -> None:
        """Drop the keys of a vault, after one of them was purged."""
        with self._lock:
            for place in [place for place in self._keys if place[0] == vault_id]:
                del self._keys[place]


def open_private(services: VaultServices, tx: VaultReader, vault: Vault, version: KeyVersion) -> bytes:
    """The private key of a version, PKCS #8 DER; for use inside the vault ring only.

    Raises:
        IntegrityFailure: `private_key_damaged`.
    """
    sealed = tx.sealed_private(vault.tenant_id, vault.id, version.version)
    if sealed is None:
        raise IntegrityFailure(
            "private_key_damaged",
            f"the private key of {version.key.name} in the vault {vault.name} is missing",
            "restore the vault database from a backup",
        )
    return services.seal.open_private(sealed, private_key_context(vault.tenant_id, vault.name, version.key.name, version.version))
