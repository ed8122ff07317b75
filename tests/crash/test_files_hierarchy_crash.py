"""Register, roll, recover and revert, killed at every step: files stay readable, the next process finishes, nothing is left (R-106 to R-126)."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass, replace
from itertools import count
from typing import TYPE_CHECKING

import pytest

from keystead.api.types import file_policies as t
from keystead.ports.clock import DAY, HOUR
from keystead.ports.keystore import Compartment
from keystead.services.jobs.runner import run_due
from keystead.services.jobs.upkeep import schedule_upkeep
from support.crash import Fuse, die_at_every_step, dying_process
from support.file_world import FilesWorld, files_world
from support.world import OPERATOR, World

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from support.world import Process

FILES = {"a.txt": b"Persimmon", "folder/b.txt": b"bread" * 1000, "large": os.urandom(4 * 1024 * 1024 + 5)}
_numbers = count()


@dataclass(frozen=True)
class Act:
    """What is asked for, what it needs, and where the geo stands at the end.

    Attributes:
        before: what was done before, by name.
        ask: the call, with the keys that were made for it.
        job: kind of the job that does it.
        state: of the geo when all is done; `lost`: whether the keys are lost before.
    """

    before: str
    ask: Callable[[FilesWorld], tuple[str, object]]
    job: str
    state: str
    lost: bool = False


def _register(files: FilesWorld) -> tuple[str, object]:
    return "files.register", t.RegisterFiles(geo="EUR", primary=files.primary, secondary=files.secondary)


def _roll(files: FilesWorld) -> tuple[str, object]:
    return "files.roll", t.RollFiles(geo="EUR", which="primary", key=files.spare[0])


def _recover(files: FilesWorld) -> tuple[str, object]:
    return "files.recover", t.RecoverFiles(geo="EUR", primary=files.spare[0], secondary=files.spare[1])


def _revert(_files: FilesWorld) -> tuple[str, object]:
    return "files.revert", t.NameGeo(geo="EUR")


ACTS = {
    "register": Act("", _register, "register-files", "Registered"),
    "roll": Act("register", _roll, "roll-files", "Registered"),
    "recover": Act("register", _recover, "recover-files", "Registered", lost=True),
    "revert": Act("register", _revert, "revert-files", "Unregistered"),
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, FilesWorld]]:
    """A tenant with two sites with files, before and after registration; each with spare keys."""
    worlds = {}
    for before in ("", "register"):
        files = files_world(World(tmp_path_factory.mktemp("made")))
        files.site("one", FILES)
        files.site("two", {"a.txt": b"Persimmon"})
        files.site("empty")
        files.spare = files.pair("spare")
        if before:
            files.register()
        worlds[before] = files
    yield worlds
    for files in worlds.values():
        files.world.close()


def copied(like: FilesWorld, path: Path) -> FilesWorld:
    world = World(path / f"copy-{next(_numbers)}", like=like.world)
    return FilesWorld(like.tenant.within(world), like.primary, like.secondary, list(like.sites), like.spare)


def small_slices(files: FilesWorld, fuse: Fuse) -> Process:
    return dying_process(files.world, fuse, settings=replace(files.world.settings, slice_items=2, slice_bytes=1, rewrap_batch=2))


def finish(files: FilesWorld) -> None:
    """Another process finds the dead one's leases and goes on."""
    owner = f"after-{next(_numbers)}"
    run_due(files.world.process(owner, alive=lambda name: name == owner).services)


def all_there(files: FilesWorld, fuse: Fuse) -> None:
    for path, data in FILES.items():
        assert files.get(files.sites[0], path) == data, fuse.steps
    assert files.get(files.sites[1], "a.txt") == b"Persimmon", fuse.steps


def nothing_left(files: FilesWorld) -> None:
    """After the grace periods: just the keys and objects that rows name, and one key a site."""
    world = files.world
    for _look in range(3):
        world.clock.advance(2 * DAY)
        world.age_objects(2 * 24 * 3600)
        schedule_upkeep(world.services)
        finish(files)
    assert world.objects() == {str(row[0]) for row in world.sql("SELECT object_ref FROM file_chunks")}
    held = {part: {entry.key_id for entry in world.services.keystore.entries(part)} for part in Compartment}
    assert held[Compartment.SHRED] == {str(row[0]) for row in world.sql("SELECT shred_key_id FROM policies")}
    assert held[Compartment.AVAILABILITY_FILES] == {str(row[0]) for row in world.sql("SELECT availability_key_id FROM file_geos")}
    assert world.sql("SELECT site_id FROM site_keys GROUP BY site_id HAVING COUNT(*) > 1") == []
    assert world.sql("SELECT id FROM file_chunks WHERE successor <> ''") == []


def sweep(like: FilesWorld, act: Act, path: Path, first: int, stride: int) -> int:
    """Kill the act at its steps; each time files are readable at once, and the next process ends where it should."""
    scenes: list[FilesWorld] = []

    def prepare() -> Callable[[Fuse], None]:
        files = copied(like, path)
        scenes.append(files)
        if act.lost:
            for uri in (files.primary, files.secondary):
                files.switch(uri, on=False)

        def killed(fuse: Fuse) -> None:
            process = small_slices(files, fuse)
            process.client(OPERATOR, files.tenant.id).call(*act.ask(files))
            run_due(process.services)

        return killed

    def check(fuse: Fuse) -> None:
        files = scenes.pop()
        begun = bool(files.world.sql("SELECT id FROM jobs WHERE kind = ?", act.job))
        if begun or not act.lost:
            all_there(files, fuse)
        if not begun:
            files.admin.call(*act.ask(files))
        finish(files)
        assert files.status().state == act.state, fuse.steps
        all_there(files, fuse)
        if fuse.at % 3 == 0:
            nothing_left(files)
            all_there(files, fuse)
        files.world.close()
        shutil.rmtree(files.world.path)

    return die_at_every_step(prepare, check, first=first, stride=stride)


@pytest.mark.parametrize("first", range(4))
def test_a_registration_killed_at_any_step_is_finished_by_the_next_process(made: dict[str, FilesWorld], tmp_path: Path, first: int) -> None:
    """R-106, R-109: every step, in four parts side by side."""
    assert sweep(made[""], ACTS["register"], tmp_path, first, 4) > 30


@pytest.mark.parametrize("name", ["roll", "recover", "revert"])
@pytest.mark.parametrize("first", range(2))
def test_a_change_killed_at_any_step_is_finished_by_the_next_process(
    made: dict[str, FilesWorld], tmp_path: Path, name: str, first: int
) -> None:
    """R-123 to R-126, R-159."""
    assert sweep(made["register"], ACTS[name], tmp_path, first, 2) > 15


def test_a_crash_between_the_instruction_and_the_recovery_leaves_the_record_of_a_use_that_came_to_nothing(
    made: dict[str, FilesWorld], tmp_path: Path
) -> None:
    """R-126: the explicit instruction is on the log before the availability key is touched."""
    files = copied(made["register"], tmp_path)
    for uri in (files.primary, files.secondary):
        files.switch(uri, on=False)
    opened: list[str] = []

    def at(step: str) -> None:
        if step == "recover: instruction recorded":
            opened.extend(record.operation for record in files.tenant.audit("Restore-SPODataEncryptionPolicy"))
            raise KeyboardInterrupt

    process = files.world.process("interrupted", checkpoint=at)
    with pytest.raises(KeyboardInterrupt):
        process.client(OPERATOR, files.tenant.id).call(*_recover(files))
    assert opened == ["Restore-SPODataEncryptionPolicy"]
    assert files.status().state == "Registered"
    files.world.clock.advance(HOUR)
    assert files.recover(*files.spare).state == "Registered"
    files.world.close()
