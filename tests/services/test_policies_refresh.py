"""Rolling keys: refresh re-wraps with the current versions, both or none; what old versions are still needed for (requirements 7)."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from keystead.adapters.sql.rows_work import SqlAuditRows
from keystead.api.types import policies as p
from keystead.api.types import vaults as v
from keystead.core.errors import ChecksFailed, Conflict, IntegrityFailure, KeyDenied, KeysteadError, NotFound, Unavailable
from keystead.services import tenants
from support.world import SECOND, MailboxWorld, World, message

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from support.world import TenantWorld

V1, V2 = "contosov1", "contosov2"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, database: str) -> Iterator[TenantWorld]:
    world = World(tmp_path_factory.mktemp("made"))
    contoso = world.tenant("contoso.example")
    alice = contoso.mailbox("alice", messages=2)
    contoso.assign(contoso.policy("Mail"), alice)
    yield contoso
    world.close()


@pytest.fixture
def contoso(made: TenantWorld, tmp_path: Path) -> Iterator[TenantWorld]:
    world = World(tmp_path, like=made.world)
    yield made.within(world)
    world.close()


def alice(contoso: TenantWorld) -> MailboxWorld:
    return MailboxWorld(contoso, "alice@contoso.example")


def rotate(contoso: TenantWorld, *vaults: str) -> list[str]:
    """Full identifiers of the new versions."""
    views: list[v.KeyView] = [contoso.admin.call("key.rotate", v.KeyNamed(vault=vault, name="root")) for vault in vaults]
    return [view.id for view in views]


def refresh(contoso: TenantWorld) -> p.PolicyView:
    view: p.PolicyView = contoso.admin.call("policy.refresh", p.NamePolicy(policy="Mail"))
    return view


def show(contoso: TenantWorld) -> p.PolicyView:
    view: p.PolicyView = contoso.admin.call("policy.show", p.NamePolicy(policy="Mail"))
    return view


def stored(contoso: TenantWorld) -> list[list[tuple[Any, ...]]]:
    """All that is stored about policies, and what lies below them."""
    queries = ("policies", "policy_versions", "policy_copies", "mailbox_keys", "items", "objects")
    return [contoso.world.sql(f"SELECT * FROM {table} ORDER BY 1, 2") for table in queries]  # noqa: S608 - our own words


def uses(contoso: TenantWorld, key: str) -> list[str]:
    found: p.KeyUses = contoso.admin.call("policy.key-uses", p.NameKey(key=key))
    return found.uses


def test_a_refresh_wraps_with_the_current_version_of_both_keys(contoso: TenantWorld) -> None:
    """R-155, R-156, R-262: the id stays, the version id that mailboxes report changes, and content stays readable."""
    before = show(contoso)
    new = rotate(contoso, V1, V2)
    assert [copy.key_uri for copy in show(contoso).keys] == [copy.key_uri for copy in before.keys]
    after = refresh(contoso)
    assert (after.id, after.version) == (before.id, 2)
    assert after.version_id != before.version_id
    assert [copy.key_uri for copy in after.keys[:2]] == new
    assert alice(contoso).statistics().data_encryption_policy_id == after.version_id
    assert alice(contoso).statistics().is_encrypted
    assert alice(contoso).read_all() == [message(0), message(1)]
    contoso.world.forget()
    assert alice(contoso).read_all() == [message(0), message(1)]
    assert show(contoso).keys == after.keys
    told = contoso.audit("Set-DataEncryptionPolicy")[0]
    assert {one.name: one.value for one in told.parameters} == {
        "Identity": "Mail",
        "Refresh": "True",
        "Version": after.version_id,
        "PrimaryKeyUri": new[0],
        "SecondaryKeyUri": new[1],
    }


def test_the_policy_key_and_everything_below_stay_as_they_are(contoso: TenantWorld) -> None:
    """R-155: two wraps and one commit, however much lies below; mailbox keys, items and objects are not touched."""
    before = stored(contoso)
    rotate(contoso, V1, V2)
    asked = len(contoso.world.vaults.asked)
    refresh(contoso)
    assert stored(contoso)[3:] == before[3:]
    assert contoso.world.sql("SELECT count(DISTINCT check_value) FROM policies WHERE workload = 'mail'") == [(1,)]
    assert [verb for verb, _vault in contoso.world.vaults.asked[asked:]].count("wrap") == 2


def test_the_availability_key_stays(contoso: TenantWorld) -> None:
    """R-154: same key, new envelope; and it still opens the policy."""
    before, copy = show(contoso), contoso.world.sql("SELECT availability_key_id FROM policies WHERE workload = 'mail'")
    rotate(contoso, V1, V2)
    after = refresh(contoso)
    assert contoso.world.sql("SELECT availability_key_id FROM policies WHERE workload = 'mail'") == copy
    assert after.keys[2] == before.keys[2]
    contoso.world.forget()
    for vault in (V1, V2):
        contoso.world.vaults.fail(vault, "system-error")
    assert alice(contoso).read_all() == [message(0), message(1)]
    (use,) = contoso.fallbacks()
    assert ("Scope Key Version Id", after.version_id) in [(one.name, one.value) for one in use.parameters]


def test_refreshing_without_a_new_version_is_a_new_version_of_the_policy_all_the_same(contoso: TenantWorld) -> None:
    """R-156."""
    before = show(contoso)
    after = refresh(contoso)
    assert [copy.key_uri for copy in after.keys] == [copy.key_uri for copy in before.keys]
    assert (after.version, after.version_id != before.version_id) == (2, True)


FAILURES = {
    "first vault away": (V1, "system-error", ChecksFailed),
    "second vault away": (V2, "system-error", ChecksFailed),
    "first vault refuses": (V1, "denied", ChecksFailed),
    "second vault refuses": (V2, "denied", ChecksFailed),
}


@pytest.mark.parametrize("case", FAILURES)
def test_both_vaults_are_needed_and_nothing_changes_when_one_fails(contoso: TenantWorld, case: str) -> None:
    """R-155, design section 6."""
    vault, kind, error = FAILURES[case]
    rotate(contoso, V1, V2)
    before = stored(contoso)
    contoso.world.vaults.fail(vault, kind)
    with pytest.raises(error) as refused:
        refresh(contoso)
    assert isinstance(refused.value, ChecksFailed)
    assert [check.subject for check in refused.value.failed] == [contoso.keys[(V1, V2).index(vault)]]
    assert stored(contoso) == before
    contoso.world.vaults.fail(vault, "success")
    assert refresh(contoso).version == 2


@pytest.mark.parametrize(("kind", "error"), [("system-error", Unavailable), ("denied", KeyDenied), ("integrity", IntegrityFailure)])
@pytest.mark.parametrize("vault", [V1, V2])
def test_a_vault_that_fails_at_the_wrap_itself_changes_nothing(
    contoso: TenantWorld, vault: str, kind: str, error: type[KeysteadError]
) -> None:
    """R-155: after all checks passed; the first copy that was wrapped already is worth nothing."""
    rotate(contoso, V1, V2)
    before = stored(contoso)

    def at_the_wrap(verb: str, named: str) -> None:
        if (verb, named) == ("wrap", vault):
            contoso.world.vaults.fail(vault, kind)

    contoso.world.vaults.before = at_the_wrap
    with pytest.raises(error):
        refresh(contoso)
    assert stored(contoso) == before
    contoso.world.vaults.before = lambda _verb, _vault: None
    contoso.world.vaults.fail(vault, "success")
    assert refresh(contoso).version == 2


NEW_VERSIONS: dict[str, tuple[dict[str, Any], list[str]]] = {
    "expiry": ({"expires": datetime(2030, 1, 1, tzinfo=UTC)}, ["key-expiry"]),
    "activation": ({"not_before": datetime(2030, 1, 1, tzinfo=UTC)}, ["key-activation"]),
    "disabled": ({"enabled": False}, ["key-enabled"]),
    "operations": ({"ops": ["wrapKey"]}, ["key-operations"]),
    "type": ({"kty": "EC", "ops": ["sign"]}, ["key-type", "key-operations"]),
}


@pytest.mark.parametrize("case", NEW_VERSIONS)
def test_a_new_version_that_fails_the_creation_checks_is_refused(contoso: TenantWorld, case: str) -> None:
    """R-163: named as at creation; the policy goes on with the versions it has."""
    attributes, checks = NEW_VERSIONS[case]
    contoso.make_key(V2, "root", **attributes)
    before = stored(contoso)
    with pytest.raises(ChecksFailed) as refused:
        refresh(contoso)
    assert [check.check for check in refused.value.failed] == checks
    assert {check.subject for check in refused.value.failed} == {contoso.keys[1]}
    assert stored(contoso) == before
    contoso.world.forget()
    assert alice(contoso).read_all() == [message(0), message(1)]
    assert contoso.health() == "healthy"


def test_without_its_record_a_refresh_does_not_happen(contoso: TenantWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    """Design section 2."""
    before = stored(contoso)

    def full(_rows: SqlAuditRows, _record: object) -> None:
        raise Unavailable("database_full", "the database takes no more", "make room")

    with monkeypatch.context() as patched:
        patched.setattr(SqlAuditRows, "append", full)
        with pytest.raises(Unavailable):
            refresh(contoso)
    assert stored(contoso) == before


def test_of_two_refreshes_at_the_same_time_one_is_told_to_look(contoso: TenantWorld) -> None:
    """R-155: the loser's copies are worth nothing, and it changes nothing."""
    turns: list[int] = []

    def meanwhile(verb: str, vault: str) -> None:
        if (verb, vault) == ("wrap", V2) and not turns:
            turns.append(1)
            refresh(contoso)

    contoso.world.vaults.before = meanwhile
    with pytest.raises(Conflict):
        refresh(contoso)
    assert show(contoso).version == 2
    contoso.world.forget()
    assert alice(contoso).read_all() == [message(0), message(1)]


# -- old versions -----------------------------------------------------------------------------------------------------------------------


def test_old_versions_are_needed_until_nothing_is_wrapped_by_them(contoso: TenantWorld) -> None:
    """R-157: before the refresh taking them away locks out, after it nothing happens."""
    old = [copy.key_uri.rpartition("/")[2] for copy in show(contoso).keys[:2]]
    rotate(contoso, V1, V2)

    def switch(verb: str) -> None:
        for vault, version in zip((V1, V2), old, strict=True):
            contoso.admin.call(f"key.{verb}", v.KeyVersionNamed(vault=vault, name="root", version=version))
        contoso.world.clock.advance(61 * SECOND)

    switch("disable")
    with pytest.raises(KeyDenied):
        alice(contoso).items()
    switch("enable")
    assert alice(contoso).read_all() == [message(0), message(1)]
    refresh(contoso)
    switch("disable")
    assert alice(contoso).read_all() == [message(0), message(1)]
    assert contoso.health() == "healthy"


def test_a_refresh_works_with_one_old_version_left(contoso: TenantWorld) -> None:
    """R-157: the policy key comes from whichever old copy still opens; the other key only wraps."""
    old = show(contoso).keys[0].key_uri.rpartition("/")[2]
    rotate(contoso, V1, V2)
    contoso.admin.call("key.disable", v.KeyVersionNamed(vault=V1, name="root", version=old))
    assert refresh(contoso).version == 2
    assert contoso.health() == "healthy"


def test_what_a_key_wraps_is_told_before_it_is_taken_away(contoso: TenantWorld) -> None:
    """R-158: by version and by key, in any case, for the versions in force only."""
    old = [copy.key_uri for copy in show(contoso).keys[:2]]
    assert uses(contoso, old[0]) == ["the primary copy of the policy Mail"]
    assert uses(contoso, contoso.keys[0].upper()) == ["the primary copy of the policy Mail"]
    assert uses(contoso, contoso.keys[1]) == ["the secondary copy of the policy Mail"]
    contoso.policy("Other", keys=contoso.keys[::-1])
    assert sorted(uses(contoso, contoso.keys[0])) == ["the primary copy of the policy Mail", "the secondary copy of the policy Other"]
    (new,) = rotate(contoso, V1)
    refresh(contoso)
    assert uses(contoso, old[0]) == ["the secondary copy of the policy Other"]
    assert uses(contoso, new) == ["the primary copy of the policy Mail"]
    assert len(uses(contoso, contoso.keys[0])) == 2
    assert uses(contoso, contoso.keys[0] + "2") == []


def test_key_uses_of_another_tenant_are_not_told(contoso: TenantWorld) -> None:
    """R-158: the same URI in another tenant's mouth is about that tenant's policies."""
    fabrikam = contoso.world.tenant("fabrikam.example", ready=False)
    assert uses(fabrikam, contoso.keys[0]) == []


# -- beside work ------------------------------------------------------------------------------------------------------------------------


def test_a_refresh_beside_reads_and_imports_disturbs_neither(contoso: TenantWorld) -> None:
    """R-155: content stays readable throughout, from the moment before the wraps to the moment after the commit."""
    box = alice(contoso)
    seen: list[int] = []

    def meanwhile(verb: str, vault: str) -> None:
        if verb == "wrap":
            box.add(message(20 + len(seen)))
            seen.append(len(box.read_all()))

    contoso.world.vaults.before = meanwhile
    rotate(contoso, V1, V2)
    refresh(contoso)
    assert seen == [3, 4]
    assert len(box.read_all()) == 4


def test_a_second_process_reads_on_with_the_key_it_holds(contoso: TenantWorld) -> None:
    """R-155: a refresh evicts nothing, for the policy key is the same; the next cold open uses the new copies."""
    second = contoso.world.process("second")
    owner = second.client(tenants.impersonate(second.services, "alice@contoso.example"))
    items = alice(contoso).items(owner)
    rotate(contoso, V1, V2)
    refresh(contoso)
    asked = len(second.vaults.asked)
    assert alice(contoso).items(owner) == items
    assert len(second.vaults.asked) == asked
    second.services.keyring._open.clear()
    assert alice(contoso).items(owner) == items


def test_a_policy_that_is_not_there_cannot_be_refreshed(contoso: TenantWorld) -> None:
    """R-155: named in the answer."""
    with pytest.raises(NotFound, match="Nothing"):
        contoso.admin.call("policy.refresh", p.NamePolicy(policy="Nothing"))


def test_a_disabled_policy_is_refreshed_like_any_other(contoso: TenantWorld) -> None:
    """R-094, R-155: disabled means no further assignments; its mailboxes go on."""
    contoso.admin.call("policy.disable", p.NamePolicy(policy="Mail"))
    rotate(contoso, V1, V2)
    assert refresh(contoso).state == "Disabled"
    assert len(alice(contoso).items()) == 2
