"""Object stores that run while these tests do. Those that need them run in one process, so that each store is started once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from contracts.objects.remotes import Remote
from support.objects import Proxy, Store, azurite, moto, rclone

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="session")
def moto_store() -> Iterator[Store]:
    with moto() as store:
        yield store


@pytest.fixture(scope="session")
def azure_store() -> Iterator[Store]:
    with azurite() as store:
        yield store


@pytest.fixture(scope="session")
def rclone_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    with rclone(tmp_path_factory.mktemp("rclone")) as store:
        yield store


@pytest.fixture
def s3(moto_store: Store) -> Iterator[Remote]:
    with Proxy(moto_store.port) as proxy:
        yield Remote(moto_store, proxy)


@pytest.fixture
def azure(azure_store: Store) -> Iterator[Remote]:
    with Proxy(azure_store.port) as proxy:
        yield Remote(azure_store, proxy)


@pytest.fixture(name="rclone")
def rclone_remote(rclone_store: Store) -> Iterator[Remote]:
    with Proxy(rclone_store.port) as proxy:
        yield Remote(rclone_store, proxy)
