"""Tenants and people: claim tokens good once, tokens for calls, roles that change what a person may do at once."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from keystead.api.types import mailboxes as m
from keystead.api.types import tenants as t
from keystead.core.access.principal import NOBODY, Principal, Role
from keystead.core.errors import Conflict, Forbidden, InvalidRequest, KeysteadError, NotFound, PreconditionFailed, Unauthenticated
from keystead.ports.clock import DAY
from keystead.services import tenants
from support.world import SECOND, World, signed_in

if TYPE_CHECKING:
    from collections.abc import Iterator

    from keystead.client.client import Client
    from support.world import Process

OPERATOR = Principal("operator@provider.example", None, frozenset({Role.OPERATOR}))


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, database: str) -> Iterator[Process]:
    """A process of a home that is not a dev home: people come in by token."""
    world = World(tmp_path_factory.mktemp("world"))
    yield world.process("production", dev=False)
    world.close()


@pytest.fixture(scope="module")
def admin(home: Process) -> Client:
    """The first administrator of a tenant."""
    return by_token(home, claim(home, new_tenant(home, "contoso.example"), "admin@contoso.example"))


def new_tenant(home: Process, domain: str) -> str:
    """The claim token of a new tenant."""
    made = home.client(OPERATOR).call("tenant.create", t.CreateTenant(name=domain.partition(".")[0], domain=domain, geo=["EUR"]))
    assert made.claim_token is not None
    token: str = made.claim_token
    return token


def claim(home: Process, token: str, upn: str) -> str:
    """Redeem a claim token for a token to call with."""
    answer = home.client(NOBODY).call("user.claim", t.ClaimToken(claim_token=token, upn=upn))
    found: str = answer.token
    return found


def by_token(home: Process, token: str) -> Client:
    return home.client(signed_in(home.services, token))


def refused(home: Process, token: str, upn: str) -> str:
    with pytest.raises((Unauthenticated, InvalidRequest)) as caught:
        claim(home, token, upn)
    return caught.value.code


def test_the_first_administrator_comes_in_by_claim_token_and_brings_in_the_others(home: Process, admin: Client) -> None:
    shown = admin.call("tenant.show", t.ShowTenant())
    assert (shown.domain, shown.claim_token) == ("contoso.example", None)
    made = admin.call("user.add", t.AddUser(upn="Bob@contoso.example", roles=["audit-reader"]))
    assert made.upn == "bob@contoso.example"
    bob = by_token(home, claim(home, made.claim_token, "bob@contoso.example"))
    assert {one.upn for one in bob.call("user.list", t.ListUsers())} >= {"admin@contoso.example", "bob@contoso.example"}
    with pytest.raises(Forbidden):
        bob.call("user.add", t.AddUser(upn="carol@contoso.example", roles=["user"]))
    assert all(one.claim_token is None for one in bob.call("user.list", t.ListUsers()))


def test_a_claim_token_is_good_once_for_its_own_person_and_domain(home: Process, admin: Client) -> None:
    made = admin.call("user.add", t.AddUser(upn="dora@contoso.example", roles=["user"]))
    assert refused(home, made.claim_token, "eve@contoso.example") == "claim_token_invalid"
    assert refused(home, "ks_" + "A" * 43, "dora@contoso.example") == "claim_token_invalid"
    assert refused(home, "", "dora@contoso.example") == "claim_token_invalid"
    token = claim(home, made.claim_token, "DORA@contoso.example")
    assert signed_in(home.services, token).upn == "dora@contoso.example"
    assert refused(home, made.claim_token, "dora@contoso.example") == "claim_token_invalid"
    assert refused(home, token, "dora@contoso.example") == "claim_token_invalid", "a token for calls claims nothing"
    assert signed_in(home.services, made.claim_token) is NOBODY, "a claim token calls nothing"
    fabrikam = new_tenant(home, "fabrikam.example")
    assert refused(home, fabrikam, "spy@contoso.example") == "upn_of_another_domain"
    claim(home, fabrikam, "first@fabrikam.example")
    assert refused(home, fabrikam, "second@fabrikam.example") == "claim_token_invalid"


def test_of_many_who_redeem_the_same_token_one_gets_in(home: Process) -> None:
    token = new_tenant(home, "tailspin.example")

    def attempt(number: int) -> bool:
        try:
            claim(home, token, f"person{number}@tailspin.example")
        except Unauthenticated:
            return False
        return True

    with ThreadPoolExecutor(6) as pool:
        assert sorted(pool.map(attempt, range(6))) == [False] * 5 + [True]
    with home.services.db.read() as tx:
        tenant = tx.tenants.find("tailspin.example")
        assert tenant is not None
        assert len(tx.tenants.people(tenant.id)) == 1


def test_claim_tokens_and_tokens_expire(tmp_path_factory: pytest.TempPathFactory, database: str) -> None:
    world = World(tmp_path_factory.mktemp("world"))
    home = world.process("production", dev=False)
    late = new_tenant(home, "late.example")
    world.clock.advance(7 * DAY - 1)
    early = new_tenant(home, "early.example")
    world.clock.advance(1)
    assert refused(home, late, "admin@late.example") == "claim_token_invalid"
    token = claim(home, early, "admin@early.example")
    world.clock.advance(90 * DAY - 1)
    assert signed_in(home.services, token).upn == "admin@early.example"
    world.clock.advance(1)
    assert signed_in(home.services, token) is NOBODY
    short = world.process("short", dev=False, settings=replace(world.settings, claim_token_lifetime=SECOND))
    quick = new_tenant(short, "quick.example")
    world.clock.advance(SECOND)
    assert refused(short, quick, "admin@quick.example") == "claim_token_invalid"
    world.close()


def test_a_removed_person_is_nobody_at_once_and_their_claim_is_void(home: Process, admin: Client) -> None:
    first = admin.call("user.add", t.AddUser(upn="gone@contoso.example", roles=["global-admin"]))
    token = claim(home, first.claim_token, "gone@contoso.example")
    second = admin.call("user.add", t.AddUser(upn="never@contoso.example", roles=["user"]))
    for upn in ("gone@contoso.example", "never@contoso.example"):
        admin.call("user.remove", t.RemoveUser(upn=upn))
    assert signed_in(home.services, token) is NOBODY
    assert refused(home, second.claim_token, "never@contoso.example") == "claim_token_invalid"
    with pytest.raises(NotFound):
        admin.call("user.remove", t.RemoveUser(upn="gone@contoso.example"))
    again = admin.call("user.add", t.AddUser(upn="gone@contoso.example", roles=["user"]))
    assert signed_in(home.services, token) is NOBODY, "an old token does not come back with the name"
    assert again.claim_token is not None


def test_roles_given_again_count_from_the_next_call(home: Process, admin: Client) -> None:
    """R-008."""
    made = admin.call("user.add", t.AddUser(upn="frank@contoso.example", roles=["exchange-admin"]))
    token = claim(home, made.claim_token, "frank@contoso.example")
    by_token(home, token).call("mailbox.create", m.CreateMailbox(upn="box1@contoso.example"))
    changed = admin.call("user.add", t.AddUser(upn="frank@contoso.example", roles=["user"]))
    assert (changed.id, changed.roles, changed.claim_token) == (made.id, ["user"], None)
    with pytest.raises(Forbidden):
        by_token(home, token).call("mailbox.create", m.CreateMailbox(upn="box2@contoso.example"))


def test_the_person_a_mailbox_makes_gets_a_claim_token_too(home: Process, admin: Client) -> None:
    made = admin.call("mailbox.create", m.CreateMailbox(upn="grace@contoso.example"))
    assert made.claim_token is not None
    grace = by_token(home, claim(home, made.claim_token, "grace@contoso.example"))
    assert grace.call("mailbox.items", m.ListItems(upn="grace@contoso.example")) == []
    admin.call("user.add", t.AddUser(upn="heidi@contoso.example", roles=["user"]))
    assert admin.call("mailbox.create", m.CreateMailbox(upn="heidi@contoso.example")).claim_token is None
    assert all(one.claim_token is None for one in admin.call("mailbox.list", m.ListMailboxes()))


def test_only_hashes_of_tokens_are_stored(home: Process, admin: Client) -> None:
    made = admin.call("user.add", t.AddUser(upn="ivan@contoso.example", roles=["user"]))
    token = claim(home, made.claim_token, "ivan@contoso.example")
    assert token.startswith("ks_")
    assert made.claim_token.startswith("ks_")
    found = [
        path.name
        for path in Path(home.services.home.where).rglob("*")
        if path.is_file() and any(secret.encode() in path.read_bytes() for secret in (token, made.claim_token))
    ]
    assert found == []


def test_the_operator_outside_dev_homes_makes_tenants_and_nothing_in_them(home: Process, admin: Client) -> None:
    operator = home.client(OPERATOR, "contoso.example")
    for route, request in (
        ("user.add", t.AddUser(upn="x@contoso.example", roles=["user"])),
        ("mailbox.create", m.CreateMailbox(upn="x@contoso.example")),
        ("user.list", t.ListUsers()),
    ):
        with pytest.raises(Forbidden):
            operator.call(route, request)
    assert {one.domain for one in home.client(OPERATOR).call("tenant.list")} >= {"contoso.example"}
    with pytest.raises(Forbidden):
        admin.call("tenant.list")


def test_tenants_have_names_domains_and_geos_of_their_own(home: Process) -> None:
    operator = home.client(OPERATOR)
    operator.call("tenant.create", t.CreateTenant(name="Wingtip", domain="WingTip.example", geo=["eur", "NAM", "EUR"]))
    (made,) = [one for one in operator.call("tenant.list") if one.name == "Wingtip"]
    assert (made.domain, made.geos) == ("wingtip.example", ["EUR", "NAM"])
    bad: list[tuple[t.CreateTenant, type[KeysteadError], str]] = [
        (t.CreateTenant(name="Wingtip", domain="other.example", geo=["EUR"]), Conflict, "tenant_exists"),
        (t.CreateTenant(name="Other", domain="wingtip.example", geo=["EUR"]), Conflict, "tenant_exists"),
        (t.CreateTenant(name="Other", domain="no domain", geo=["EUR"]), InvalidRequest, "domain_invalid"),
        (t.CreateTenant(name="Other", domain="other.example", geo=["Europe"]), InvalidRequest, "geo_invalid"),
        (t.CreateTenant(name="Other", domain="other.example", geo=[]), InvalidRequest, "geo_missing"),
        (t.CreateTenant(name="\n", domain="other.example", geo=["EUR"]), InvalidRequest, "name_invalid"),
    ]
    for request, kind, code in bad:
        with pytest.raises(kind) as caught:
            operator.call("tenant.create", request)
        assert caught.value.code == code


def test_names_of_people_are_checked(home: Process, admin: Client) -> None:
    client = home.client(tenants.impersonate(home.services, "admin@contoso.example"), "contoso.example")
    for upn, code in (
        ("no-at-sign", "upn_invalid"),
        ("a b@contoso.example", "upn_invalid"),
        ("alex@sub.contoso.example", "upn_of_another_domain"),
        ("alex@contoso.example.evil.example", "upn_of_another_domain"),
    ):
        with pytest.raises(InvalidRequest) as caught:
            client.call("user.add", t.AddUser(upn=upn, roles=["user"]))
        assert caught.value.code == code
    with pytest.raises(InvalidRequest):
        admin.call("user.add", t.AddUser(upn="z@contoso.example", roles=["operator"]))  # type: ignore[list-item]  # on purpose


def test_the_last_global_administrator_stays(world: World) -> None:
    """Nobody else could ever make another one (design section 6)."""
    contoso = world.tenant(ready=False)
    for name, request in (
        ("user.remove", t.RemoveUser(upn="admin@contoso.example")),
        ("user.add", t.AddUser(upn="admin@contoso.example", roles=["user"])),
    ):
        with pytest.raises(PreconditionFailed) as caught:
            contoso.admin.call(name, request)
        assert caught.value.code == "last_global_admin"
    contoso.person("deputy", "global-admin")
    contoso.admin.call("user.remove", t.RemoveUser(upn="admin@contoso.example"))
    people: list[t.UserView] = world.as_person("deputy@contoso.example").call("user.list", t.ListUsers())
    assert [person.upn for person in people] == ["deputy@contoso.example"]
