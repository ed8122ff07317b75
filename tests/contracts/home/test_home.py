"""A home on disk: made, opened, used end to end by token, and refused when a part of it is missing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from keystead.api.types import mailboxes as m
from keystead.api.types import policies as p
from keystead.api.types import tenants as t
from keystead.api.types import vaults as v
from keystead.api.types import watching as w
from keystead.core.errors import Conflict, Forbidden, IntegrityFailure, InvalidRequest, KeyDenied, NotFound, Unauthenticated
from keystead.wiring import Presence, create_home, open_home

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from keystead.client.client import Client
    from keystead.wiring import Home

OPERATOR = "operator@provider.example"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "home"


@pytest.fixture
def home(path: Path) -> Iterator[Home]:
    """A home that is not a dev home."""
    create_home(path, dev=False, operator=OPERATOR)
    opened = open_home(path, {"KEYSTEAD_PROBE_INTERVAL": "100ms", "KEYSTEAD_DENIAL_CONFIRM": "0"})
    yield opened
    opened.close()


def operator(home: Home) -> Client:
    return home.client(home.as_token((home.path / "operator.token").read_text()))


def claimed(home: Home, claim: str, upn: str) -> Client:
    token = home.client(home.as_operator()).call("user.claim", t.ClaimToken(claim_token=claim, upn=upn)).token
    return home.client(home.as_token(token))


def test_a_home_that_is_no_dev_home_works_from_init_to_revocation_by_token_alone(home: Home) -> None:
    """R-145; design section 6: the operator hands over one claim token, and from then on the tenant's people decide."""
    with pytest.raises(Unauthenticated):
        home.client(home.as_operator()).call("tenant.list")
    with pytest.raises(InvalidRequest):
        home.as_person("admin@contoso.example")
    made = operator(home).call("tenant.create", t.CreateTenant(name="Contoso", domain="contoso.example", geo=["EUR"]))
    admin = claimed(home, made.claim_token, "admin@contoso.example")
    keys = []
    for number, region in ((1, "westeurope"), (2, "eastus")):
        admin.call("subscription.create", v.SubscriptionCreate(name=f"s{number}"))
        admin.call("subscription.protect", v.SubscriptionNamed(name=f"s{number}"))
        admin.call("vault.create", v.VaultCreate(name=f"vault{number}", subscription=f"s{number}", region=region))
        admin.call(
            "vault.access.grant", v.AccessGrant(vault=f"vault{number}", principal="mail", permissions=["get", "wrapKey", "unwrapKey"])
        )
        keys.append(admin.call("key.create", v.KeyCreate(vault=f"vault{number}", name="root", ops=["wrapKey", "unwrapKey"])).base_id)
    admin.call("tenant.onboard", t.OnboardTenant(workload="mail", subscriptions=["s1", "s2"]))
    admin.call("policy.create", p.CreatePolicy(name="Mail", keys=keys))
    added = admin.call("user.add", t.AddUser(upn="alex@contoso.example", roles=["user"]))
    alex = claimed(home, added.claim_token, "alex@contoso.example")
    admin.call("mailbox.create", m.CreateMailbox(upn="alex@contoso.example"))
    admin.call(
        "mailbox.import",
        m.ImportBatch(upn="alex@contoso.example", items=[m.ImportItem(position=1, ordinal=1, folder="Inbox", data=b"Subject: a\r\n\r\nb")]),
    )
    asked = admin.call("mailbox.assign", m.AssignPolicy(policy="Mail", upns=["alex@contoso.example"]))
    assert admin.wait(asked.job_id).state == "done"
    (item,) = alex.call("mailbox.items", m.ListItems(upn="alex@contoso.example"))
    with pytest.raises(Forbidden):
        operator(home).call("mailbox.items", m.ListItems(upn="alex@contoso.example"))
    with pytest.raises(Forbidden):
        operator(home).call("dev.clock.advance", w.AdvanceClock(milliseconds=1))
    for number in (1, 2):
        admin.call("vault.access.revoke", v.AccessRevoke(vault=f"vault{number}", principal="mail"))
    home.services.clock.sleep(150)
    with pytest.raises(KeyDenied):
        alex.call("mailbox.read", m.NameItem(upn="alex@contoso.example", item=item.id))
    admin.call("user.remove", t.RemoveUser(upn="alex@contoso.example"))
    with pytest.raises(Unauthenticated):
        alex.call("mailbox.items", m.ListItems(upn="alex@contoso.example"))


def test_everything_is_there_again_when_a_home_is_opened_again(path: Path) -> None:
    answer = create_home(path, dev=True, operator="Operator@Provider.example")
    assert answer == {"home": str(path), "dev": True, "operator": {"upn": OPERATOR, "token_file": str(path / "operator.token")}}
    home = open_home(path)
    client = home.client(home.as_operator())
    client.call("tenant.create", t.CreateTenant(name="Contoso", domain="contoso.example", geo=["EUR"]))
    client.call("user.add", t.AddUser(upn="alex@contoso.example", roles=["global-admin"]))
    alex = home.client(home.as_person("alex@contoso.example"))
    alex.call("mailbox.create", m.CreateMailbox(upn="alex@contoso.example"))
    batch = m.ImportBatch(upn="alex@contoso.example", items=[m.ImportItem(position=1, ordinal=1, folder="", data=b"a")])
    alex.call("mailbox.import", batch)
    client.call("dev.clock.advance", w.AdvanceClock(milliseconds=86_400_000))
    before = home.services.clock.now()
    home.close()
    again = open_home(path)
    alex = again.client(again.as_person("alex@contoso.example"))
    (item,) = alex.call("mailbox.items", m.ListItems(upn="alex@contoso.example"))
    assert b"".join(alex.call("mailbox.read", m.NameItem(upn="alex@contoso.example", item=item.id)).chunks) == b"a"
    assert again.services.clock.now() >= before, "a dev home's clock stays where it was moved to"
    shown = again.client(again.as_operator()).call("home.show")
    assert (shown.home, shown.dev) == (str(path), True)
    again.close()


def test_a_home_is_for_its_owner_alone(path: Path) -> None:
    """R-253."""
    before = os.umask(0)
    try:
        create_home(path, dev=True, operator=OPERATOR)
        home = open_home(path)
        home.client(home.as_operator()).call("tenant.create", t.CreateTenant(name="Contoso", domain="contoso.example", geo=["EUR"]))
        open_to_others = [str(one) for one in [path, *path.rglob("*")] if one.stat().st_mode & 0o077]
        home.close()
    finally:
        os.umask(before)
    assert open_to_others == []


def test_a_home_is_made_once_and_only_in_an_empty_place(path: Path) -> None:
    create_home(path, dev=True, operator=OPERATOR)
    with pytest.raises(Conflict) as caught:
        create_home(path, dev=True, operator=OPERATOR)
    assert caught.value.code == "home_exists"
    busy = path.parent / "busy"
    busy.mkdir()
    (busy / "letters.txt").write_text("mine")
    with pytest.raises(Conflict) as caught:
        create_home(busy, dev=True, operator=OPERATOR)
    assert caught.value.code == "folder_not_empty"
    assert [one.name for one in busy.iterdir()] == ["letters.txt"]


def test_an_init_that_was_killed_is_run_again(path: Path) -> None:
    """home.json comes last: until then it is no home."""
    create_home(path, dev=True, operator=OPERATOR)
    (path / "home.json").unlink()
    (path / "operator.token").unlink()
    with pytest.raises(NotFound):
        open_home(path)
    create_home(path, dev=True, operator=OPERATOR)
    home = open_home(path)
    token = (path / "operator.token").read_text()
    assert home.as_token(token)().upn == OPERATOR
    home.close()


@pytest.mark.parametrize("part", ["keystead.db", "keys.db", "vault.db", "seals/keystore.master", "seals/vault.seal", "home.json"])
@pytest.mark.parametrize("how", ["gone", "empty", "short"])
def test_a_home_with_a_part_missing_says_which_and_makes_no_new_one(path: Path, part: str, how: str) -> None:
    create_home(path, dev=True, operator=OPERATOR)
    if how == "gone":
        (path / part).unlink()
    else:
        os.truncate(path / part, 0 if how == "empty" else 10)
    with pytest.raises((IntegrityFailure, NotFound)) as caught:
        open_home(path)
    assert isinstance(caught.value, NotFound) == (part == "home.json" and how == "gone")
    if part != "home.json":
        assert part.rpartition("/")[2] in caught.value.detail or "database" in caught.value.detail
    assert (path / part).exists() == (how != "gone")


def test_a_home_of_a_later_version_is_left_alone(path: Path) -> None:
    create_home(path, dev=True, operator=OPERATOR)
    described = json.loads((path / "home.json").read_text())
    (path / "home.json").write_text(json.dumps(described | {"version": 2}))
    with pytest.raises(InvalidRequest) as caught:
        open_home(path)
    assert caught.value.code == "home_version"


def test_another_homes_seal_opens_nothing(path: Path) -> None:
    create_home(path, dev=True, operator=OPERATOR)
    other = path.parent / "other"
    create_home(other, dev=True, operator=OPERATOR)
    for seal in ("keystore.master", "vault.seal"):
        own = (path / "seals" / seal).read_bytes()
        (path / "seals" / seal).write_bytes((other / "seals" / seal).read_bytes())
        with pytest.raises(IntegrityFailure):
            open_home(path)
        (path / "seals" / seal).write_bytes(own)
    open_home(path).close()


def test_settings_come_from_file_environment_and_database_in_this_order(path: Path) -> None:
    create_home(path, dev=True, operator=OPERATOR)
    (path / "keystead.toml").write_text('[settings]\nprobe_interval = "10s"\nslice_items = 5\nrewrap_batch = 7\n[server]\nthreads = 3')
    environment = {"KEYSTEAD_PROBE_INTERVAL": "20s", "KEYSTEAD_SLICE_ITEMS": "6"}
    home = open_home(path, environment)
    client = home.client(home.as_operator())
    client.call("settings.set", w.SetSetting(name="probe_interval", value="30s"))
    with pytest.raises(InvalidRequest):
        client.call("settings.set", w.SetSetting(name="probe_interval", value="soon"))
    assert home.services.settings.probe_interval == 20_000, "a process keeps what it started with"
    home.close()
    home = open_home(path, environment)
    shown = {one.name: (one.value, one.source) for one in home.client(home.as_operator()).call("settings.get")}
    assert shown["probe_interval"] == ("30000", "settings set")
    assert shown["slice_items"] == ("6", "environment")
    assert shown["rewrap_batch"] == ("7", "keystead.toml")
    assert shown["server.threads"] == ("3", "keystead.toml")
    assert shown["server.listen"] == ("127.0.0.1:8420", "default")
    assert shown["record_owner_reads"] == ("false", "default")
    home.close()


def test_dev_clock_and_faults_reach_every_process_of_the_home(path: Path) -> None:
    create_home(path, dev=True, operator=OPERATOR)
    first, second = open_home(path), open_home(path)
    before = second.services.clock.now()
    first.client(first.as_operator()).call("dev.clock.advance", w.AdvanceClock(milliseconds=3_600_000))
    assert second.services.clock.now() - before >= 3_600_000
    first.client(first.as_operator()).call("dev.fault", w.SetFault(vault="somevault", fault="timeout"))
    assert (path / "run" / "faults" / "somevault").exists()
    second.client(second.as_operator()).call("dev.fault", w.SetFault(vault="somevault", fault="none"))
    assert not (path / "run" / "faults" / "somevault").exists()
    first.close()
    second.close()


def test_a_process_that_was_killed_is_known_to_be_dead_and_a_living_one_is_not(path: Path) -> None:
    path.mkdir()
    here = Presence(path)
    here.announce()
    other = Presence(path)
    assert other.alive(here.owner)
    assert other.alive(other.owner)
    place = here.owner.partition("@")[2]
    assert not other.alive(f"00000000-0000-4000-8000-000000000000@{place}")
    assert other.alive("00000000-0000-4000-8000-000000000000@fedcba987654")  # of another machine nothing is known: its lease decides
    script = "import sys; from pathlib import Path; from keystead.wiring import Presence; p = Presence(Path(sys.argv[1])); p.announce(); print(p.owner, flush=True); sys.stdin.read()"
    child = subprocess.Popen([sys.executable, "-c", script, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert child.stdout is not None
    owner = child.stdout.readline().decode().strip()
    assert here.alive(owner)
    child.kill()
    child.communicate()
    assert not here.alive(owner)
    here.close()
    assert not other.alive(here.owner)
    other.close()
    assert list(path.iterdir()) == []


def test_a_machine_that_shares_no_run_folder_is_another_place(path: Path) -> None:
    """A member of a fleet says nothing of the processes of another, and takes nothing from them before their leases end."""
    (path / "one").mkdir(parents=True)
    (path / "two").mkdir()
    one, two, same = Presence(path / "one"), Presence(path / "two"), Presence(path / "one")
    one.announce()
    assert one.owner.partition("@")[2] == same.owner.partition("@")[2] != two.owner.partition("@")[2]
    one.close()
    assert two.alive(one.owner)
    assert not same.alive(one.owner)
    two.close()
    same.close()
