from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from support.webdav import make_plans, running
from support.world import World

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.webdav import Face, Person


@pytest.fixture(scope="module")
def plans(tmp_path_factory: pytest.TempPathFactory, database: str) -> Iterator[World]:
    """Contoso with a site for all of its people."""
    made = World(tmp_path_factory.mktemp("plans"))
    make_plans(made)
    yield made
    made.close()


@pytest.fixture(scope="module")
def face(plans: World) -> Iterator[Face]:
    """It, served."""
    with running(plans) as running_face:
        yield running_face


@pytest.fixture(scope="module")
def alex(face: Face) -> Person:
    return face.person("alex@contoso.example")


@pytest.fixture(scope="module")
def blake(face: Face) -> Person:
    return face.person("blake@contoso.example")
