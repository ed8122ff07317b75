"""A running store with a proxy before it, as the tests of this folder use it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from keystead.adapters.objects.open import open_objects
from keystead.core.configuration import ObjectsConfig

if TYPE_CHECKING:
    from pathlib import Path

    from keystead.ports.objects import ObjectStore
    from support.objects import Proxy, Store

REMOTE = pytest.mark.xdist_group("object-stores")


@dataclass
class Remote:
    """A store, and a proxy before it."""

    store: Store
    proxy: Proxy

    def open(self, folder: Path, containers: int = 1, *, retries: int = 4, timeout: int = 20_000, **changes: Any) -> ObjectStore:
        """So many empty containers, through the proxy; `folder` is for their credentials."""
        prefix = f"tests/{os.urandom(8).hex()}"
        made = [self.store.container(f"c{number}", folder, port=self.proxy.port, prefix=prefix, **changes) for number in range(containers)]
        return open_objects(ObjectsConfig(tuple(made), timeout, retries), folder)
