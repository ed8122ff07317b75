"""The policies of files, end to end: registering a geo, rolling, recovering and reverting it (R-103 to R-126, R-159 to R-161)."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from keystead.api.types import file_policies as t
from keystead.api.types import tenants as n
from keystead.api.types import vaults as v
from keystead.core.errors import ChecksFailed, Conflict, Forbidden, InvalidRequest, KeyDenied, NotFound, PreconditionFailed
from keystead.ports.keystore import Compartment
from keystead.services.jobs.runner import run_due, run_one
from support.file_world import FilesWorld, files_world
from support.world import World

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

LARGE = os.urandom(5 * 1024 * 1024)
"""Two chunks."""
FILES = {"a.txt": b"apples", "folder/b.txt": b"bread" * 1000, "folder/deep/large.bin": LARGE, "empty": b""}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, database: str) -> Iterator[FilesWorld]:
    world = World(tmp_path_factory.mktemp("made"))
    ready = files_world(world, geos=("EUR", "NAM"))
    ready.site("given", FILES)
    yield ready
    world.close()


@pytest.fixture
def files(made: FilesWorld, tmp_path: Path) -> Iterator[FilesWorld]:
    """The same in a copy of its own."""
    world = World(tmp_path, like=made.world)
    yield FilesWorld(made.tenant.within(world), made.primary, made.secondary, list(made.sites))
    world.close()


def all_there(files: FilesWorld, url: str) -> None:
    for path, data in FILES.items():
        assert files.get(url, path) == data, path


def test_a_geo_is_registered_and_everything_in_it_is_under_the_new_keys(files: FilesWorld) -> None:
    """R-106 to R-111."""
    (url,) = files.sites
    assert files.status().state == "Unregistered"
    started = files.register(wait=False)
    assert (started.state, started.percent_sites, started.sites, started.health) == ("Registering", 0.0, 1, "healthy")
    assert (started.primary_key_uri, started.secondary_key_uri) == (files.primary, files.secondary)
    all_there(files, url)
    ended = files.finish(started)
    assert (ended.state, ended.percent_sites, ended.sites_done, ended.sites) == ("Registered", 100.0, 1, 1)
    assert files.job(ended).state == "done"
    site = files.show(url)
    assert (site.is_encrypted, site.key_version, site.policy_id) == (True, 2, ended.policy_id)
    assert len(files.world.sql("SELECT version FROM site_keys")) == 1
    assert {row[0] for row in files.world.sql("SELECT key_version FROM file_chunks")} == {2}
    all_there(files, url)
    files.switch(files.primary, on=False)
    files.switch(files.secondary, on=False)
    with pytest.raises(KeyDenied):
        files.get(url, "a.txt")


def test_what_is_under_way_is_seen_by_the_percent_and_nothing_else_may_be_asked_for(files: FilesWorld) -> None:
    """R-107, R-109, R-160, R-161."""
    for _ in range(3):
        files.site(files={"one": b"1"})
    files.register(wait=False)
    while files.status().state == "Registering":
        seen = files.status()
        assert seen.percent_sites is not None
        assert seen.percent_sites < 100
        asked: list[Callable[[], object]] = [files.register, files.revert, lambda: files.roll("primary", files.secondary)]
        for ask in asked:
            with pytest.raises(Conflict) as refused:
                ask()
            assert refused.value.code == "files_change_under_way"
        assert run_one(files.world.services) is not None
    assert files.status().percent_sites == 100


def test_a_geo_has_one_policy_and_a_tenant_only_its_own_geos(files: FilesWorld) -> None:
    """R-103, R-104."""
    files.register()
    with pytest.raises(Conflict) as refused:
        files.register()
    assert refused.value.code == "files_registered"
    other = files.pair("of-nam")
    assert files.register("NAM", primary=other[0], secondary=other[1]).state == "Registered"
    assert files.status("EUR").primary_key_uri == files.primary
    assert files.status("NAM").primary_key_uri == other[0]
    with pytest.raises(PreconditionFailed) as unknown:
        files.register("APC")
    assert unknown.value.code == "geo_unknown"
    with pytest.raises(InvalidRequest) as which:
        files.status("")
    assert which.value.code == "geo_missing"


def test_keys_are_named_with_their_version_and_pass_every_check(files: FilesWorld) -> None:
    """R-105, R-070 to R-078."""
    base = files.primary.rpartition("/")[0]
    with pytest.raises(InvalidRequest) as missing:
        files.register(primary=base)
    assert missing.value.code == "key_version_missing"
    for primary, secondary, check in (
        ("", files.key(files.vaults[0], "other"), "different-vaults"),
        (f"{base}/{'0' * 32}", "", "key-exists"),
        ("https://fabrikamv1.vault.localhost/keys/files/" + "0" * 32, "", "key-registered"),
    ):
        with pytest.raises(ChecksFailed) as failed:
            files.register(primary=primary, secondary=secondary)
        assert check in {one.check for one in failed.value.failed}, check
    files.admin.call("vault.access.revoke", v.AccessRevoke(vault=files.vaults[1], principal="files"))
    with pytest.raises(ChecksFailed) as failed:
        files.register()
    assert {one.check for one in failed.value.failed} == {"permission-get", "permission-wrapKey", "permission-unwrapKey"}
    assert files.status().state == "Unregistered"
    assert not files.policies()


def test_a_version_that_is_disabled_is_refused_though_a_newer_one_is_not(files: FilesWorld) -> None:
    """R-105: the very version that is named wraps."""
    files.key(files.vaults[0], "files")
    files.switch(files.primary, on=False)
    with pytest.raises(ChecksFailed) as failed:
        files.register()
    assert {one.check for one in failed.value.failed} == {"key-enabled"}


def test_who_has_not_been_onboarded_for_files_registers_nothing(files: FilesWorld) -> None:
    """R-001."""
    files.world.sql("DELETE FROM onboardings WHERE workload = 'files'")
    with pytest.raises(ChecksFailed) as failed:
        files.register()
    assert [one.check for one in failed.value.failed] == ["onboarded"]


def test_a_roll_makes_a_fresh_tik_and_re_encrypts_nothing(files: FilesWorld) -> None:
    """R-123, R-159."""
    (url,) = files.sites
    first = files.register()
    before = files.world.sql("SELECT id, key_version, wrapped FROM file_chunks ORDER BY id")
    keys = files.world.sql("SELECT version, wrapped FROM site_keys")
    newer = files.key(files.vaults[1], "files")
    started = files.roll("secondary", newer, wait=False)
    assert (started.state, started.percent_sites) == ("Rolling", 0.0)
    all_there(files, url)
    ended = files.finish(started)
    assert (ended.state, ended.percent_sites) == ("Registered", 100.0)
    assert (ended.primary_key_uri, ended.secondary_key_uri) == (files.primary, newer)
    assert ended.policy_id != first.policy_id
    assert files.policies() == {ended.policy_id}
    assert files.world.sql("SELECT id, key_version, wrapped FROM file_chunks ORDER BY id") == before
    after = files.world.sql("SELECT version, wrapped FROM site_keys")
    assert [row[0] for row in after] == [row[0] for row in keys]
    assert after != keys
    all_there(files, url)
    files.world.forget()
    files.switch(files.secondary, on=False)
    files.switch(files.primary, on=False)
    all_there(files, url)
    files.switch(newer, on=False)
    with pytest.raises(KeyDenied):
        files.get(url, "a.txt")


def test_a_key_in_another_vault_may_take_the_place_of_one(files: FilesWorld) -> None:
    """R-159."""
    files.tenant.make_vault("contosov3", "contosov3-s", "northeurope")
    files.admin.call("vault.access.grant", v.AccessGrant(vault="contosov3", principal="files", permissions=["get", "wrapKey", "unwrapKey"]))
    files.register()
    elsewhere = files.key("contosov3", "files")
    with pytest.raises(ChecksFailed) as failed:
        files.roll("primary", elsewhere)
    assert {one.check for one in failed.value.failed} == {"subscription-onboarded"}
    files.admin.call("tenant.onboard", n.OnboardTenant(workload="files", subscriptions=["contosov2-s", "contosov3-s"]))
    ended = files.roll("primary", elsewhere)
    assert (ended.state, ended.primary_key_uri, ended.secondary_key_uri) == ("Registered", elsewhere, files.secondary)


def test_the_same_key_or_the_other_one_is_no_roll(files: FilesWorld) -> None:
    files.register()
    for key in (files.primary, files.primary.upper().replace("HTTPS", "https"), files.secondary):
        with pytest.raises((PreconditionFailed, NotFound, ChecksFailed)):
            files.roll("primary", key)
    with pytest.raises(PreconditionFailed) as refused:
        files.roll("secondary", files.secondary)
    assert refused.value.code == "key_in_use"
    assert files.status().state == "Registered"


@pytest.mark.parametrize("act", ["roll", "recover", "revert", "health"])
def test_what_is_not_registered_can_only_be_registered(files: FilesWorld, act: str) -> None:
    acts: dict[str, Callable[[], object]] = {
        "roll": lambda: files.roll("primary", files.primary),
        "recover": lambda: files.recover(files.primary, files.secondary),
        "revert": files.revert,
        "health": files.health,
    }
    with pytest.raises(NotFound) as refused:
        acts[act]()
    assert refused.value.code == "files_not_registered"
    assert files.status() == t.FilesStatus(
        geo="EUR",
        state="Unregistered",
        primary_key_uri=None,
        secondary_key_uri=None,
        percent_sites=None,
        sites=1,
        sites_done=None,
        policy_id=None,
        job_id=None,
        started=None,
        health=None,
    )


def test_recovery_is_refused_while_a_customer_key_opens(files: FilesWorld) -> None:
    """R-125."""
    files.register()
    fresh = files.pair("fresh")
    files.switch(files.primary, on=False)
    with pytest.raises(PreconditionFailed) as refused:
        files.recover(*fresh)
    assert refused.value.code == "not_in_recovery"
    assert files.status().state == "Registered"
    assert not files.tenant.fallbacks()


def test_recovery_uses_the_availability_key_once_on_record_and_ends_under_a_fresh_tik(files: FilesWorld) -> None:
    """R-120, R-123 to R-126."""
    (url,) = files.sites
    first = files.register()
    fresh = files.pair("fresh")
    for uri in (files.primary, files.secondary):
        files.switch(uri, on=False)
    with pytest.raises(KeyDenied):
        files.get(url, "a.txt")
    assert files.health() == "denied"
    started = files.recover(*fresh, wait=False)
    assert started.state == "Recovering"
    all_there(files, url)
    (told, asked) = files.tenant.audit("Restore-SPODataEncryptionPolicy")
    assert ("AvailabilityKey", "True") in [(one.name, one.value) for one in asked.parameters]
    assert asked.user_id == f"admin@{files.tenant.domain}"
    assert told.creation_time >= asked.creation_time
    ended = files.finish(started)
    assert (ended.state, ended.primary_key_uri, ended.secondary_key_uri) == ("Registered", *fresh)
    assert files.policies() == {ended.policy_id}
    assert ended.policy_id != first.policy_id
    assert files.health() == "healthy"
    all_there(files, url)


def test_keys_lost_in_the_middle_of_a_roll_are_recovered_and_the_roll_goes_on(files: FilesWorld) -> None:
    """R-124: whichever TIK a site lies under, none is out of reach."""
    (url,) = files.sites
    other = files.site(files={"b": b"bread"})
    files.register()
    newer = files.key(files.vaults[0], "files")
    fresh = files.pair("fresh")
    slow = files.world.process("slow", settings=replace(files.world.settings, rewrap_batch=1))
    files.roll("primary", newer, wait=False)
    run_one(slow.services, stopping=lambda: True)
    assert len({files.show(one).policy_id for one in (url, other)}) == 2
    with pytest.raises(PreconditionFailed) as refused:
        files.recover(*fresh)
    assert refused.value.code == "not_in_recovery"
    for uri in (files.primary, files.secondary, newer):
        files.switch(uri, on=False)
    run_due(files.world.services)
    assert files.status().state == "Rolling"
    for one in (url, other):
        with pytest.raises(KeyDenied):
            files.get(one, "a.txt")
    assert files.recover(*fresh, wait=False).state == "Rolling"
    all_there(files, url)
    assert files.get(other, "b") == b"bread"
    files.world.clock.advance(10 * 60_000)
    run_due(files.world.services)
    ended = files.status()
    assert (ended.state, ended.primary_key_uri, ended.secondary_key_uri) == ("Registered", *fresh)
    all_there(files, url)


def test_a_return_puts_everything_back_under_the_providers_keys(files: FilesWorld) -> None:
    """Conflict C2: per geo, re-encrypted, the customer's keys open until it is done."""
    (url,) = files.sites
    elsewhere = files.site("nam", {"a.txt": b"apples"}, geo="NAM")
    files.register()
    other = files.pair("of-nam")
    files.register("NAM", primary=other[0], secondary=other[1])
    started = files.revert(wait=False)
    assert started.state == "Reverting"
    all_there(files, url)
    ended = files.finish(started)
    assert ended.state == "Unregistered"
    assert files.world.sql("SELECT DISTINCT key_version FROM file_chunks WHERE site_id = (SELECT id FROM sites WHERE url = ?)", url) == [
        (3,)
    ]
    for uri in (files.primary, files.secondary):
        files.switch(uri, on=False)
    files.world.forget()
    all_there(files, url)
    assert files.status("NAM").state == "Registered"
    assert files.show(elsewhere).is_encrypted
    files.switch(files.primary, on=True)
    files.switch(files.secondary, on=True)
    again = files.register()
    assert again.state == "Registered"
    all_there(files, url)


def test_a_return_needs_the_customers_keys(files: FilesWorld) -> None:
    files.register()
    for uri in (files.primary, files.secondary):
        files.switch(uri, on=False)
    with pytest.raises(KeyDenied):
        files.revert()
    with pytest.raises(KeyDenied):
        files.roll("primary", files.key(files.vaults[0], "files"))
    assert files.status().state == "Registered"


def test_a_site_that_is_made_while_something_is_under_way_goes_under_the_target(files: FilesWorld) -> None:
    """R-106."""
    started = files.register(wait=False)
    url = files.site(files={"early": b"bird"})
    assert files.show(url).policy_id == started.policy_id
    ended = files.finish(started)
    assert (ended.sites, ended.sites_done) == (2, 2)
    assert files.show(url).key_version == 1
    assert files.get(url, "early") == b"bird"


def test_sites_of_other_geos_are_left_alone(files: FilesWorld) -> None:
    """R-103."""
    url = files.site("nam", {"a": b"a"}, geo="NAM")
    before = files.world.sql("SELECT * FROM sites WHERE url = ?", url)
    files.register()
    files.roll("primary", files.key(files.vaults[0], "files"))
    assert files.world.sql("SELECT * FROM sites WHERE url = ?", url) == before


def test_the_old_tik_and_its_shred_key_are_destroyed_when_a_roll_is_done(files: FilesWorld) -> None:
    """R-123."""
    files.register()
    ((shred, available),) = files.world.sql("SELECT shred_key_id, availability_key_id FROM policies WHERE workload = 'files'")
    keystore = files.world.services.keystore
    ended = files.roll("primary", files.key(files.vaults[0], "files"))
    assert shred not in {entry.key_id for entry in keystore.entries(Compartment.SHRED)}
    assert [entry.key_id for entry in keystore.entries(Compartment.AVAILABILITY_FILES)] == [available]
    assert files.job(ended).state == "done"
    assert files.tenant.audit("Remove-ShredKey")[0].object_id == shred


def test_an_empty_site_gets_its_fresh_key_at_once(files: FilesWorld) -> None:
    url = files.site()
    files.register()
    shown = files.show(url)
    assert (shown.key_version, shown.is_encrypted, shown.move_state) == (2, True, "done")
    files.put(url, {"a": b"b"})
    assert files.get(url, "a") == b"b"


@pytest.mark.parametrize("role", ["exchange-admin", "compliance-admin", "audit-reader", "user"])
def test_only_global_administrators_change_the_keys_of_files(files: FilesWorld, role: str) -> None:
    person = files.tenant.person(f"somebody-{role}", role)  # type: ignore[arg-type]  # one of the roles
    request = t.RegisterFiles(geo="EUR", primary=files.primary, secondary=files.secondary)
    for name, asked in (
        ("files.register", request),
        ("files.roll", t.RollFiles(geo="EUR", which="primary", key=files.primary)),
        ("files.recover", t.RecoverFiles(geo="EUR", primary=files.primary, secondary=files.secondary)),
        ("files.revert", t.NameGeo(geo="EUR")),
    ):
        with pytest.raises(Forbidden):
            person.call(name, asked)
    if role == "user":
        with pytest.raises(Forbidden):
            person.call("files.status", t.NameGeo(geo="EUR"))
    else:
        assert person.call("files.status", t.NameGeo(geo="EUR")).state == "Unregistered"


def test_another_tenant_sees_and_changes_nothing(files: FilesWorld) -> None:
    """R-194."""
    other = files_world(files.world, "fabrikam.example")
    files.register()
    assert other.status().state == "Unregistered"
    assert other.status().sites == 0
    with pytest.raises(ChecksFailed) as refused:
        other.register(primary=files.primary, secondary=files.secondary)
    assert {one.check for one in refused.value.failed} >= {"key-registered"}
    with pytest.raises(NotFound):
        other.revert()
    run_due(files.world.services)
    assert files.status().state == "Registered"
