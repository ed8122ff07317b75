"""The keyring for files, end to end: both keys with an offset, the table's own column, and never the availability key (R-116 to R-120, R-148)."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, replace
from itertools import product
from typing import TYPE_CHECKING

import pytest

from keystead.api.types import watching as w
from keystead.core.errors import IntegrityFailure, KeyDenied, KeysteadError, Unavailable
from keystead.core.keys.decide import Operation
from keystead.core.policies.policy import CopyRole
from keystead.ports.clock import HOUR, MINUTE
from keystead.services.alerting import watch
from support.file_world import FilesWorld, files_world
from support.world import SECOND, World

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from keystead.services.keyring import Keyring, OpenPolicy

V1, V2 = "contosov1", "contosov2"
GOOD, FAULT, DENIED, ROTTEN = "success", "system-error", "denied", "integrity"
CUSTOMER, CACHED, NO, BROKEN, AWAY = "customer", "cached", "refused", "damaged", "unavailable"
INTERVAL = 60 * SECOND
MAX_AGE = 24 * HOUR
OFFSET = 150

# outcomes in either order: what any operation gets from a cold keyring, a warm one, and one whose last success is too old.
TABLE: dict[tuple[str, str], tuple[str, str, str]] = {
    (GOOD, GOOD): (CUSTOMER, CUSTOMER, CUSTOMER),
    (GOOD, FAULT): (CUSTOMER, CUSTOMER, CUSTOMER),
    (GOOD, DENIED): (CUSTOMER, CUSTOMER, CUSTOMER),
    (GOOD, ROTTEN): (CUSTOMER, CUSTOMER, CUSTOMER),
    (ROTTEN, ROTTEN): (BROKEN, BROKEN, BROKEN),
    (ROTTEN, FAULT): (BROKEN, BROKEN, BROKEN),
    (ROTTEN, DENIED): (BROKEN, BROKEN, BROKEN),
    (DENIED, DENIED): (NO, NO, NO),
    (DENIED, FAULT): (NO, CACHED, NO),
    (FAULT, FAULT): (AWAY, CACHED, AWAY),
}
PAIRS = sorted({pair for named in TABLE for pair in (named, named[::-1])})
ERRORS: dict[str, type[KeysteadError]] = {NO: KeyDenied, BROKEN: IntegrityFailure, AWAY: Unavailable}


@dataclass
class Scene:
    """A registered geo with one site and a file in it."""

    files: FilesWorld
    url: str
    policy_id: str

    @property
    def world(self) -> World:
        return self.files.world

    @property
    def keyring(self) -> Keyring:
        return self.world.services.keyring

    def vaults(self, first: str, second: str) -> None:
        """From now on every call about the two vaults ends like this; integrity: the vault answers with wrong bytes."""
        for vault, kind in ((V1, first), (V2, second)):
            self.world.vaults.fail(vault, GOOD if kind == ROTTEN else kind)
            self.world.vaults.wrong_bytes.discard(vault)
            if kind == ROTTEN:
                self.world.vaults.wrong_bytes.add(vault)

    def standing(self, how: str) -> None:
        """Cold, warm (a probe is due), or warm with a last success that is too old to ride anything out."""
        self.vaults(GOOD, GOOD)
        assert self.files.health() == "healthy"
        self.world.forget()
        if how != "cold":
            self.read()
            self.world.clock.advance(INTERVAL + 1 if how == "warm" else MAX_AGE + INTERVAL + 1)

    def read(self) -> bytes:
        return self.files.get(self.url, "a.txt")

    def open(self, operation: Operation = Operation.USER) -> OpenPolicy:
        return self.keyring.open(self.policy_id, operation, request_id="11111111-1111-4111-8111-111111111111")

    def unwraps(self) -> list[str]:
        """Which vaults were asked to unwrap, in order."""
        return [vault for verb, vault in self.world.vaults.asked if verb == "unwrap"]

    def lasting(self) -> dict[str, str]:
        """Kinds of the alerts that last, and what they are about."""
        found: list[w.AlertView] = self.files.admin.call("alerts.list", w.ListAlerts(lasting_only=True))
        return {alert.kind: alert.detail for alert in found}

    def nobody_used_the_availability_key(self) -> None:
        assert self.files.tenant.fallbacks() == []
        assert self.files.tenant.audit("Restore-SPODataEncryptionPolicy") == []


def make(path: Path, like: Scene | None = None) -> Scene:
    if like is not None:
        world = World(path, like=like.world)
        return Scene(FilesWorld(like.files.tenant.within(world), like.files.primary, like.files.secondary), like.url, like.policy_id)
    files = files_world(World(path))
    url = files.site("one", {"a.txt": b"apples"})
    policy_id = files.register().policy_id
    assert policy_id is not None
    return Scene(files, url, policy_id)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, database: str) -> Iterator[Scene]:
    scene = make(tmp_path_factory.mktemp("made"))
    yield scene
    scene.world.close()


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory, made: Scene) -> Iterator[Scene]:
    """One installation for the whole table: what a row leaves behind, the next one clears away."""
    scene = make(tmp_path_factory.mktemp("table"), made)
    yield scene
    scene.world.close()


@pytest.fixture
def scene(tmp_path: Path, made: Scene) -> Iterator[Scene]:
    copy = make(tmp_path, made)
    yield copy
    copy.world.close()


# -- the table --------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("operation", list(Operation))
@pytest.mark.parametrize("pair", PAIRS, ids="+".join)
def test_what_an_operation_gets(table: Scene, pair: tuple[str, str], operation: Operation) -> None:
    """R-120, R-148: files know one class of operations; no pair of outcomes touches the availability key."""
    row = TABLE.get(pair) or TABLE[pair[::-1]]
    for standing, result in zip(("cold", "warm", "stale"), row, strict=True):
        table.standing(standing)
        table.vaults(*pair)
        if result in ERRORS:
            with pytest.raises(ERRORS[result]):
                table.open(operation)
        else:
            assert table.open(operation).opened_by in {CopyRole.PRIMARY, CopyRole.SECONDARY}
        table.nobody_used_the_availability_key()


def test_every_pair_is_in_the_table() -> None:
    assert sorted(product((GOOD, FAULT, DENIED, ROTTEN), repeat=2)) == PAIRS


def test_reading_a_file_ends_like_the_table(scene: Scene) -> None:
    """R-120: what a person gets who reads."""
    assert scene.read() == b"apples"
    scene.vaults(DENIED, DENIED)
    scene.world.clock.advance(INTERVAL + 1)
    with pytest.raises(KeyDenied):
        scene.read()
    scene.vaults(GOOD, GOOD)
    assert scene.read() == b"apples"


# -- two requests with an offset ----------------------------------------------------------------------------------------------------------


@dataclass
class Stuck:
    """A vault that does not answer before somebody else has."""

    scene: Scene
    which: int
    """0 for the first vault that is asked, 1 for the second."""

    def __post_init__(self) -> None:
        self.order: list[str] = []
        self.times: dict[str, float] = {}
        self.go_on = threading.Event()
        self.ended = threading.Event()

    def __call__(self, verb: str, vault: str) -> None:
        if verb != "unwrap":
            return
        self.order.append(vault)
        self.times[vault] = time.monotonic()
        if len(self.order) == self.which + 1:
            assert self.go_on.wait(30), "the other one was never listened to"
            self.ended.set()


def test_a_stuck_first_vault_delays_nobody_beyond_the_offset(scene: Scene) -> None:
    """R-116: the second is asked after the offset, its answer counts, and the first is not waited for."""
    scene.world.forget()
    stuck = Stuck(scene, 0)
    scene.world.vaults.before = stuck
    opened = scene.open()
    assert not stuck.ended.is_set(), "nobody waited for the first"
    first, second = stuck.order
    assert {first, second} == {V1, V2}
    assert stuck.times[second] - stuck.times[first] >= OFFSET / 1_000 * 0.9
    assert opened.opened_by is (CopyRole.PRIMARY if second == V1 else CopyRole.SECONDARY)
    stuck.go_on.set()
    assert stuck.ended.wait(30)
    assert scene.open() is opened, "the loser's answer changes nothing"


def test_the_loser_may_say_what_it_likes(scene: Scene) -> None:
    """R-116: a denial that comes after a success is not listened to; the next probe asks both again."""
    scene.world.forget()
    stuck = Stuck(scene, 0)
    scene.world.vaults.before = stuck
    opened = scene.open()
    scene.world.vaults.fail(stuck.order[0], DENIED)
    stuck.go_on.set()
    assert stuck.ended.wait(30)
    assert scene.open() is opened
    assert scene.lasting() == {}
    scene.world.vaults.before = lambda _verb, _vault: None
    scene.world.clock.advance(INTERVAL + 1)
    scene.open()
    assert set(scene.lasting()) == {"key-degraded"}


def test_the_second_is_not_asked_when_the_first_answers_in_time(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """R-116: here it has all the time it may need on a slow machine."""
    monkeypatch.setattr(scene.keyring, "_settings", replace(scene.world.settings, file_ask_offset=60_000))
    scene.world.forget()
    scene.world.vaults.asked.clear()
    scene.open()
    assert len(scene.unwraps()) == 1


@pytest.mark.parametrize("kind", [FAULT, DENIED, ROTTEN])
def test_a_failure_never_wins_and_the_second_is_asked_at_once(scene: Scene, kind: str) -> None:
    """R-116: whichever of the two comes first, the other one's success counts."""
    seen: set[tuple[str, ...]] = set()
    for _try in range(60):  # the order is random: it is the same each time once in so many runs that nobody will see one
        scene.vaults(GOOD, GOOD)
        assert scene.files.health() == "healthy"
        scene.world.forget()
        scene.vaults(kind, GOOD)
        scene.world.vaults.asked.clear()
        assert scene.open().opened_by is CopyRole.SECONDARY
        seen.add(tuple(scene.unwraps()[:2]))
        if {first for first, *_second in seen} == {V1, V2}:
            break
    assert (V1, V2) in seen


def test_both_stuck_and_then_failing_is_a_fault(scene: Scene) -> None:
    scene.world.forget()
    stuck = Stuck(scene, 0)
    scene.world.vaults.before = stuck
    scene.vaults(FAULT, FAULT)
    threading.Timer(0.3, stuck.go_on.set).start()
    with pytest.raises(Unavailable) as refused:
        scene.open()
    assert refused.value.code == "vault_unavailable"
    assert len(stuck.order) == 2


# -- the cache ----------------------------------------------------------------------------------------------------------------------------


def test_an_outage_is_ridden_out_for_a_day_and_then_files_stay_closed(scene: Scene) -> None:
    """R-117, R-120."""
    scene.read()
    scene.vaults(FAULT, FAULT)
    scene.world.clock.advance(MAX_AGE)
    assert scene.read() == b"apples"
    scene.world.clock.advance(INTERVAL + 1)
    with pytest.raises(Unavailable) as refused:
        scene.read()
    assert refused.value.code == "vault_unavailable"
    scene.nobody_used_the_availability_key()
    scene.vaults(GOOD, FAULT)
    scene.world.clock.advance(INTERVAL + 1)
    assert scene.read() == b"apples"


def test_a_key_nobody_uses_is_renewed_two_hours_before_its_end(scene: Scene) -> None:
    """R-118."""
    scene.read()
    scene.world.clock.advance(MAX_AGE - 2 * HOUR - MINUTE)
    scene.world.vaults.asked.clear()
    watch(scene.world.services)
    assert scene.unwraps() == []
    scene.world.clock.advance(2 * MINUTE)
    watch(scene.world.services)
    assert sorted(scene.unwraps()) == [V1, V2]
    scene.vaults(FAULT, FAULT)
    scene.world.clock.advance(MAX_AGE - 5 * MINUTE)
    assert scene.read() == b"apples", "the renewal began another day"


def test_the_alert_before_a_key_runs_out_names_the_geo_and_ends_with_the_first_success(scene: Scene) -> None:
    """R-119."""
    scene.read()
    scene.vaults(FAULT, FAULT)
    scene.world.clock.advance(MAX_AGE - 2 * HOUR - MINUTE)
    assert scene.read() == b"apples"
    assert set(scene.lasting()) == {"key-unreachable"}
    scene.world.clock.advance(2 * MINUTE)
    watch(scene.world.services)
    assert set(scene.lasting()) == {"key-unreachable", "cache-near-expiry"}
    assert all(detail.startswith("geo EUR: ") for detail in scene.lasting().values())
    scene.vaults(FAULT, GOOD)
    scene.world.clock.advance(20 * MINUTE)
    watch(scene.world.services)
    assert set(scene.lasting()) == {"key-degraded"}


def test_site_keys_die_with_the_policys_entry(scene: Scene) -> None:
    """R-117: after a denial nothing that was opened below is used again."""
    scene.read()
    before = scene.open()
    assert len(before._children) > 0
    scene.vaults(DENIED, DENIED)
    scene.world.clock.advance(INTERVAL + 1)
    with pytest.raises(KeyDenied):
        scene.keyring.recheck(before, Operation.USER, request_id="r")
    scene.vaults(GOOD, GOOD)
    after = scene.open()
    assert after is not before
    assert len(after._children) == 0


def test_the_files_application_asks_and_not_the_one_of_mail(scene: Scene) -> None:
    """R-014: what mail may do in the same vaults opens no file."""
    scene.files.tenant.allow(V1)
    scene.files.tenant.allow(V2)
    scene.world.forget()
    for vault in (V1, V2):
        scene.files.forbid(vault)
    with pytest.raises(KeyDenied):
        scene.read()
