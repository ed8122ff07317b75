"""Signing in: stored tokens, access tokens made from them, tokens of a tenant's own provider; what is taken away is gone at the next call."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from keystead.api.routes import ROUTES, Scope
from keystead.api.types import mailboxes as m
from keystead.api.types import tenants as t
from keystead.api.types import tokens as k
from keystead.core.access.principal import NOBODY, Principal, Role
from keystead.core.access.roles import ALLOWED, ANYBODY, allow
from keystead.core.access.tokens import NEVER_SCOPED, TokenKind, covers
from keystead.core.errors import (
    Conflict,
    Forbidden,
    InvalidRequest,
    KeysteadError,
    NotFound,
    PreconditionFailed,
    Throttled,
    Unauthenticated,
)
from keystead.core.tenancy import Person
from keystead.ports.clock import DAY, HOUR, MINUTE
from keystead.ports.keystore import Compartment
from keystead.services.jobs.runner import run_due
from keystead.services.jobs.upkeep import schedule_upkeep
from keystead.services.sign_in import for_the_log, sign_in
from keystead.services.signing import VERIFIES_AFTER, keep_up
from keystead.services.tokens import issue
from support.sign_in import ADMIN, ALICE, HERE, LOGIN, OPERATOR, Scene, code_of
from support.tokens import Issuer, parts
from support.world import SECOND, World, signed_in

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, database: str) -> Iterator[Scene]:
    scene = Scene(tmp_path_factory.mktemp("made"))
    yield scene
    scene.world.close()


@pytest.fixture
def scene(made: Scene, tmp_path: Path) -> Iterator[Scene]:
    copy = Scene(tmp_path, like=made)
    yield copy
    copy.world.close()


# -- stored tokens --------------------------------------------------------------------------------------------------------------------


def test_tokens_are_listed_without_secrets_and_with_their_last_day(scene: Scene) -> None:
    scene.clock.advance(2 * DAY)
    (mine,) = scene.by(scene.alice_token).call("token.list", k.ListTokens())
    today = scene.clock.now() - scene.clock.now() % DAY
    assert (mine.kind, mine.upn, mine.scopes, int(mine.last_used.timestamp() * 1_000)) == ("sign-in", ALICE, None, today)
    everybody = scene.admin.call("token.list", k.ListTokens())
    assert {one.upn for one in everybody} == {ADMIN, ALICE}
    assert [one.upn for one in scene.admin.call("token.list", k.ListTokens(upn=ALICE))] == [ALICE]
    assert scene.alice_token not in repr(everybody)
    assert code_of(scene.by(scene.alice_token), "token.list", k.ListTokens(upn=ADMIN)) == "tokens_of_others"


def test_a_revoked_token_is_gone_at_the_next_call_in_every_process(scene: Scene) -> None:
    access = scene.exchange(scene.alice_token)
    for process in (scene.home, scene.other):
        assert sign_in(process.services, scene.alice_token, HERE).upn == ALICE
        assert sign_in(process.services, access, HERE).upn == ALICE
    scene.admin.call("token.revoke", k.NameToken(id=scene.id_of(scene.alice_token)))
    for process in (scene.home, scene.other):
        assert scene.refused(scene.alice_token, process) == "token_unknown"
        assert scene.refused(access, process) == "token_revoked"
    (told,) = scene.log("Remove-Token")
    assert dict(told.parameters) == {"Upn": ALICE, "Kind": "sign-in", "Name": ""}


def test_people_revoke_their_own_tokens_and_not_those_of_others(scene: Scene) -> None:
    admins, alices = scene.id_of(scene.admin_token), scene.id_of(scene.alice_token)
    alice = scene.by(scene.alice_token)
    assert code_of(alice, "token.revoke", k.NameToken(id=admins)) == "token_not_found"
    assert code_of(alice, "token.revoke", k.NameToken(id="../x")) == "token_not_found"
    alice.call("token.revoke", k.NameToken(id=alices.upper()))
    assert scene.refused(scene.alice_token) == "token_unknown"
    assert code_of(scene.home.client(OPERATOR), "provider-token.revoke", k.NameToken(id=admins)) == "token_not_found"


def test_a_sign_in_token_is_renewed_and_the_old_one_ends_within_the_hour(scene: Scene) -> None:
    scene.clock.advance(80 * DAY)
    fresh = scene.home.client().call("token.renew", k.RenewToken(token=scene.alice_token))
    assert sign_in(scene.home.services, fresh.token, "").upn == ALICE
    assert sign_in(scene.home.services, scene.alice_token, "").upn == ALICE, "an answer that was lost locks nobody out"
    scene.clock.advance(1 * HOUR)
    assert scene.refused(scene.alice_token) == "token_expired"
    scene.clock.advance(20 * DAY)
    assert sign_in(scene.home.services, fresh.token, "").token_id == fresh.id
    (told,) = scene.log("Update-SignInToken")
    assert told.user_id == ALICE


def test_neither_programs_nor_access_tokens_are_renewed(scene: Scene) -> None:
    nobody = scene.home.client()
    assert code_of(nobody, "token.renew", k.RenewToken(token=scene.service("job.list"))) == "token_not_renewable"
    assert code_of(nobody, "token.renew", k.RenewToken(token=scene.exchange(scene.admin_token))) == "token_unknown"
    assert code_of(nobody, "token.exchange", k.ExchangeToken(token=scene.exchange(scene.admin_token))) == "token_unknown"


# -- claims that ran out --------------------------------------------------------------------------------------------------------------


def test_a_tenant_nobody_has_claimed_gets_a_fresh_claim(scene: Scene) -> None:
    operator = scene.home.client(OPERATOR)
    late = operator.call("tenant.create", t.CreateTenant(name="Late", domain="late.example", geo=["EUR"]))
    scene.clock.advance(7 * DAY)
    claim = t.ClaimToken(claim_token=late.claim_token, upn="admin@late.example")
    assert code_of(scene.home.client(), "user.claim", claim) == "claim_token_invalid"
    again = operator.call("tenant.reissue-claim", t.ReissueTenantClaim(tenant="late.example"))
    newest = operator.call("tenant.reissue-claim", t.ReissueTenantClaim(tenant=late.id))
    assert code_of(scene.home.client(), "user.claim", replace_claim(claim, again.claim_token)) == "claim_token_invalid", "void by now"
    scene.claim(newest.claim_token, "admin@late.example")
    with pytest.raises(PreconditionFailed) as caught:
        operator.call("tenant.reissue-claim", t.ReissueTenantClaim(tenant="Late"))
    assert caught.value.code == "tenant_claimed"
    assert code_of(operator, "tenant.reissue-claim", t.ReissueTenantClaim(tenant="nowhere")) == "tenant_not_found"
    assert [one.user_id for one in scene.log("New-ClaimToken", late.id)] == [OPERATOR.upn] * 2


def replace_claim(request: t.ClaimToken, token: str) -> t.ClaimToken:
    return t.ClaimToken(claim_token=token, upn=request.upn)


def test_a_person_gets_a_fresh_claim_only_without_a_token_that_is_good(scene: Scene) -> None:
    with pytest.raises(PreconditionFailed) as caught:
        scene.admin.call("user.reissue-claim", t.ReissueClaim(upn=ALICE))
    assert caught.value.code == "user_has_claimed"
    scene.by(scene.alice_token).call("token.revoke", k.NameToken(id=scene.id_of(scene.alice_token)))
    view = scene.admin.call("user.reissue-claim", t.ReissueClaim(upn=ALICE))
    assert sign_in(scene.home.services, scene.claim(view.claim_token, ALICE), "").upn == ALICE
    assert code_of(scene.admin, "user.reissue-claim", t.ReissueClaim(upn="nobody@contoso.example")) == "user_not_found"


# -- access tokens --------------------------------------------------------------------------------------------------------------------


def test_an_access_token_says_what_the_specification_says(scene: Scene) -> None:
    """RFC 9068 section 2."""
    now = scene.clock.now() // 1_000
    header, claims, signature = parts(scene.exchange(scene.alice_token, "mailbox.read"))
    with scene.home.services.db.read() as tx:
        person = tx.tenants.person(ALICE)
        (key,) = tx.sign_in.signing_keys()
    assert person is not None
    assert header == {"alg": "Ed25519", "typ": "at+jwt", "kid": key.id}
    token = scene.id_of(scene.alice_token)
    known = {name: claims[name] for name in claims if name != "jti"}
    assert known == {
        "iss": "urn:keystead",
        "aud": "urn:keystead",
        "sub": person.id,
        "client_id": token,
        "sid": token,
        "tenant": scene.tenant,
        "iat": now,
        "exp": now + 900,
        "scope": "mailbox.read",
    }
    assert len(signature) == 64
    assert parts(scene.exchange(scene.alice_token))[1]["jti"] != claims["jti"]


def test_an_access_token_lives_minutes_and_never_longer_than_what_it_was_made_from(scene: Scene) -> None:
    access = scene.exchange(scene.alice_token)
    scene.clock.advance(15 * MINUTE + 60 * SECOND - 1)
    assert sign_in(scene.other.services, access, HERE).upn == ALICE, "clocks may be a minute apart"
    scene.clock.advance(1)
    assert scene.refused(access, scene.other) == "token_expired"
    short = scene.service("job.list", lifetime=2 * MINUTE)
    soon = scene.exchange(short)
    scene.clock.advance(2 * MINUTE)
    assert scene.refused(soon) == "token_expired", "at once, though the signed time has a leeway"


def test_a_verified_token_costs_no_second_signature_check_and_is_looked_up_on_each_call(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    access = scene.exchange(scene.admin_token)
    principal = sign_in(scene.other.services, access, HERE)
    monkeypatch.setattr("keystead.services.jws._verify", lambda *_: pytest.fail("the signature was checked again"))
    assert sign_in(scene.other.services, access, HERE) == principal
    scene.admin.call("user.add", t.AddUser(upn="deputy@contoso.example", roles=["global-admin"]))
    scene.admin.call("user.add", t.AddUser(upn=ADMIN, roles=["audit-reader"]))
    assert sign_in(scene.other.services, access, HERE).roles == {Role.AUDIT_READER}
    scene.world.as_person("deputy@contoso.example").call("user.remove", t.RemoveUser(upn=ADMIN))
    assert scene.refused(access, scene.other) == "token_revoked"
    assert scene.refused(scene.admin_token, scene.other) == "token_unknown"


def test_a_name_given_again_is_somebody_else(scene: Scene) -> None:
    access = scene.exchange(scene.alice_token)
    scene.admin.call("user.remove", t.RemoveUser(upn=ALICE))
    scene.admin.call("user.add", t.AddUser(upn=ALICE, roles=["user"]))
    assert {scene.refused(access), scene.refused(access, scene.other)} == {"token_revoked"}


# -- signing keys ---------------------------------------------------------------------------------------------------------------------


def test_after_a_rotation_old_tokens_live_on_until_they_end(scene: Scene) -> None:
    before = scene.exchange(scene.alice_token)
    operator = scene.home.client(OPERATOR)
    fresh = operator.call("signing-key.rotate", k.RotateSigningKey())
    after = scene.exchange(scene.alice_token, process=scene.other)
    assert parts(after)[0]["kid"] == fresh.id != parts(before)[0]["kid"]
    for token in (before, after):
        for process in (scene.home, scene.other):
            assert sign_in(process.services, token, HERE).upn == ALICE
    shown = operator.call("signing-key.list")
    assert [(one.id, one.signs) for one in shown] == [(fresh.id, True), (parts(before)[0]["kid"], False)]
    assert {entry.key_id for entry in scene.home.services.keystore.entries(Compartment.SIGNING)} == {fresh.id}, "the old one signs no more"
    published = scene.home.client().call("signing-key.publish")
    assert {one.kid for one in published.keys} == {one.id for one in shown}


def test_discarding_ends_everything_signed_before_at_once_in_every_process(scene: Scene) -> None:
    access, unseen = scene.exchange(scene.alice_token), scene.exchange(scene.alice_token)
    for process in (scene.home, scene.other):
        assert sign_in(process.services, access, HERE).upn == ALICE
    scene.home.client(OPERATOR).call("signing-key.rotate", k.RotateSigningKey(discard=True))
    for process in (scene.home, scene.other):
        assert scene.refused(access, process) == "token_revoked"
        assert scene.refused(unseen, process) == "token_revoked", "the key is still in memory, and does not count"
    assert scene.refused(unseen, scene.world.process("new", dev=False)) == "token_key_unknown"
    assert sign_in(scene.other.services, scene.exchange(scene.alice_token), HERE).upn == ALICE


def test_upkeep_replaces_a_key_after_its_time_and_forgets_it_when_its_tokens_have_ended(scene: Scene) -> None:
    first = parts(scene.exchange(scene.alice_token))[0]["kid"]
    services = scene.home.services
    scene.clock.advance(30 * DAY - 1)
    schedule_upkeep(services)
    run_due(services)
    assert parts(scene.exchange(scene.alice_token))[0]["kid"] == first
    scene.clock.advance(1)
    schedule_upkeep(services)
    run_due(services)
    second = parts(scene.exchange(scene.alice_token))[0]["kid"]
    assert second != first
    scene.clock.advance(VERIFIES_AFTER)
    schedule_upkeep(services)
    run_due(services)
    assert [one.id for one in scene.home.client(OPERATOR).call("signing-key.list")] == [second]
    assert [entry.key_id for entry in services.keystore.entries(Compartment.SIGNING)] == [second]
    assert [one.object_id for one in scene.log("Update-SigningKey", "")] == [second, first]


@pytest.mark.parametrize("step", ["signing: key store written", "signing: new key committed"])
@pytest.mark.parametrize("by", ["command", "first use"])
def test_a_crash_while_a_key_is_made_leaves_one_that_signs_and_nothing_for_ever(scene: Scene, step: str, by: str) -> None:
    before = parts(scene.exchange(scene.alice_token))[0]["kid"] if by == "command" else ""

    def crash(name: str) -> None:
        if name == step:
            raise RuntimeError(name)

    process = scene.world.process("crashing", dev=False, checkpoint=crash)
    request: Any = k.RotateSigningKey() if by == "command" else k.ExchangeToken(token=scene.alice_token)
    with pytest.raises(RuntimeError):
        process.client(OPERATOR).call("signing-key.rotate" if by == "command" else "token.exchange", request)
    access = scene.exchange(scene.alice_token)
    assert sign_in(scene.other.services, access, HERE).upn == ALICE
    assert (parts(access)[0]["kid"] == before) is (by == "command" and step == "signing: key store written")
    services = scene.home.services
    for _ in range(3):  # the first look only marks
        schedule_upkeep(services)
        scene.clock.advance(DAY)
        run_due(services)
    held = {entry.key_id for entry in services.keystore.entries(Compartment.SIGNING)}
    assert held == {one.id for one in scene.home.client(OPERATOR).call("signing-key.list")} == {parts(access)[0]["kid"]}


def test_of_two_processes_that_replace_a_key_at_once_one_does(scene: Scene) -> None:
    scene.exchange(scene.alice_token)
    scene.clock.advance(30 * DAY)
    met: list[str] = []

    def meanwhile(name: str) -> None:
        if name == "signing: key store written" and not met:
            met.append(name)
            keep_up(scene.other.services)

    keep_up(scene.world.process("slower", dev=False, checkpoint=meanwhile).services)
    keys = scene.home.client(OPERATOR).call("signing-key.list")
    assert [one.signs for one in keys] == [True, False]
    assert [entry.key_id for entry in scene.home.services.keystore.entries(Compartment.SIGNING)] == [keys[0].id]


def test_the_private_half_is_nowhere_in_the_clear(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[bytes] = []

    def random(size: int) -> bytes:
        drawn.append(b"%032d" % len(drawn) if size == 32 else scene.world.services.random(size))
        return drawn[-1]

    process = scene.world.process("three", dev=False, random=random)
    access = scene.exchange(scene.alice_token, process=process)
    (seed,) = [one for one in drawn if len(one) == 32]
    assert scene.world.files_holding(seed, access.rpartition(".")[2].encode()) == []


# -- programs -------------------------------------------------------------------------------------------------------------------------


def test_a_program_may_what_its_maker_may_as_far_as_its_scopes_go(scene: Scene) -> None:
    token = scene.service("mailbox.*", "user.list")
    for bearer in (token, scene.exchange(token)):
        program = scene.by(bearer)
        program.call("mailbox.list", m.ListMailboxes())
        program.call("user.list", t.ListUsers())
        assert code_of(program, "tenant.show", t.ShowTenant()) == "scope_missing"
    narrow = scene.by(scene.exchange(token, "mailbox.list"))
    narrow.call("mailbox.list", m.ListMailboxes())
    assert code_of(narrow, "user.list", t.ListUsers()) == "scope_missing"
    scene.admin.call("user.add", t.AddUser(upn="deputy@contoso.example", roles=["global-admin"]))
    scene.admin.call("user.add", t.AddUser(upn=ADMIN, roles=["user"]))
    assert code_of(scene.by(token), "mailbox.list", m.ListMailboxes()) == "role_missing", "its maker may not any more"


def test_a_program_reads_only_what_its_maker_may_read(scene: Scene) -> None:
    """R-193: an administrator's program reads no mail of others."""
    program = scene.by(scene.service("mailbox.*"))
    items = m.ListItems(upn=ALICE)
    with pytest.raises((Forbidden, NotFound)):
        program.call("mailbox.items", items)
    operator = scene.home.services
    with operator.db.write() as tx:
        tx.tenants.insert_person(person_of_the_provider())
        secret = issue(operator, tx, TokenKind.SERVICE, OPERATOR.upn, None, name="x", scopes=frozenset({"mailbox.*", "tenant.*"})).secret
    theirs = scene.by(secret, tenant="contoso.example")
    assert code_of(theirs, "mailbox.items", items) == "provider_never_reads"
    assert [one.name for one in scene.by(secret).call("tenant.list")] == ["Contoso"]


def person_of_the_provider() -> Person:
    return Person("22222222-2222-4222-8222-222222222222", None, OPERATOR.upn, OPERATOR.roles, 1)


@pytest.mark.parametrize("route", [route for route in ROUTES if ALLOWED[route.name] is not ANYBODY], ids=lambda route: route.name)
def test_without_its_scope_every_route_is_closed_and_some_stay_closed_with_it(route: Any) -> None:
    tenant = "11111111-1111-4111-8111-111111111111"
    of = {Role.OPERATOR: None}
    for role in sorted(ALLOWED[route.name]):
        for dev in (False, True):
            here = tenant if route.scope is Scope.TENANT else ""
            person = Principal(
                "alex@contoso.example",
                of.get(role, tenant if role not in {Role.SUPPORT_ENGINEER, Role.SUPPORT_MANAGER} else None),
                frozenset({role}),
                dev=dev,
            )
            with pytest.raises(Forbidden) as caught:
                allow(replace(person, scopes=frozenset()), route.name, here)
            assert caught.value.code == "scope_missing"
            prefix = route.name.rpartition(".")[0] + ".*"
            for scopes in (frozenset({route.name}), frozenset({prefix})):
                if route.name in NEVER_SCOPED:
                    with pytest.raises(Forbidden):
                        allow(replace(person, scopes=scopes), route.name, here)
                else:
                    allow(replace(person, scopes=scopes), route.name, here)


def test_a_program_makes_no_tokens_and_gives_no_roles(scene: Scene) -> None:
    for scope in (
        "token.create",
        "user.reissue-claim",
        "sign-in-provider.set",
        "settings.set",
        "*",
        ".*",
        "nothing.*",
        "mailbox",
        "mailbox.rea",
    ):
        assert code_of(scene.admin, "token.create", k.CreateToken(name="x", scopes=[scope])) == "scope_unknown"
    assert code_of(scene.admin, "token.create", k.CreateToken(name="x", scopes=[])) == "scopes_count"
    token = scene.service("token.*", "user.*", "mailbox.*", "sign-in-provider.*")
    program = scene.by(token)
    assert code_of(program, "token.create", k.CreateToken(name="x", scopes=["mailbox.*"])) == "scope_missing"
    assert code_of(program, "user.add", t.AddUser(upn="mallory@contoso.example", roles=["global-admin"])) == "program_cannot_give_roles"
    assert code_of(program, "user.add", t.AddUser(upn=ADMIN, roles=["global-admin", "audit-reader"])) == "program_cannot_give_roles"
    assert code_of(program, "user.add", t.AddUser(upn=ALICE, roles=["user"])) == "program_cannot_give_roles"
    made = program.call("user.add", t.AddUser(upn="bob@contoso.example", roles=["user"]))
    box = program.call("mailbox.create", m.CreateMailbox(upn="carol@contoso.example"))
    assert (made.claim_token, box.claim_token) == (None, None), "a claim token can do more than the program"
    assert scene.admin.call("user.reissue-claim", t.ReissueClaim(upn="bob@contoso.example")).claim_token
    (record,) = [one for one in scene.log("New-User") if one.object_id == "bob@contoso.example"]
    assert (record.user_id, record.user_key) == (ADMIN, scene.id_of(token)), "a program's acts name its token"


def test_scopes_are_never_widened(scene: Scene) -> None:
    token = scene.service("mailbox.read", "vault.access.*")
    nobody = scene.home.client()
    for wider in ("mailbox.*", "mailbox.items", "vault.*", "user.list"):
        assert code_of(nobody, "token.exchange", k.ExchangeToken(token=token, scopes=[wider])) == "scope_widened"
    assert code_of(nobody, "token.exchange", k.ExchangeToken(token=token, scopes=["mailbox.rea"])) == "scope_unknown"
    assert parts(scene.exchange(token))[1]["scope"] == "mailbox.read vault.access.*"
    assert parts(scene.exchange(token, "vault.access.list"))[1]["scope"] == "vault.access.list"


def test_programs_have_a_lifetime_within_the_limit(scene: Scene) -> None:
    for lifetime in (0, MINUTE - 1, 365 * DAY + 1, -5):
        assert code_of(scene.admin, "token.create", k.CreateToken(name="x", scopes=["job.list"], lifetime=lifetime)) == "token_lifetime"
    token = scene.service("job.list", lifetime=MINUTE)
    scene.clock.advance(MINUTE)
    assert scene.refused(token) == "token_expired"


def test_the_operator_makes_tokens_for_the_providers_own_programs(scene: Scene) -> None:
    services = scene.home.services
    with services.db.write() as tx:
        tx.tenants.insert_person(person_of_the_provider())
    operator = scene.home.client(OPERATOR)
    made = operator.call("provider-token.create", k.CreateToken(name="Provisioning", scopes=["tenant.create", "tenant.list"]))
    program = scene.by(made.token)
    tenant = program.call("tenant.create", t.CreateTenant(name="Fabrikam", domain="fabrikam.example", geo=["EUR"]))
    assert tenant.claim_token is None
    assert operator.call("tenant.reissue-claim", t.ReissueTenantClaim(tenant=tenant.id)).claim_token
    assert code_of(program, "home.show") == "scope_missing"
    assert [one.name for one in operator.call("provider-token.list", k.ListTokens())] == ["Provisioning"]
    operator.call("provider-token.revoke", k.NameToken(id=made.id))
    assert scene.refused(made.token) == "token_unknown"
    assert code_of(scene.admin, "provider-token.list", k.ListTokens()) == "role_missing"


def test_a_token_acts_as_who_makes_it_so_nobody_makes_one_in_a_tenant_that_is_not_theirs(tmp_path: Path) -> None:
    world = World(tmp_path)
    contoso = world.tenant(ready=False)
    in_dev = world.client(replace(OPERATOR, dev=True), contoso.id)
    assert code_of(in_dev, "token.create", k.CreateToken(name="x", scopes=["mailbox.*"])) == "token_of_another_tenant"
    world.close()


# -- who guesses ----------------------------------------------------------------------------------------------------------------------


def wrong(number: int) -> str:
    return f"ks_{number:08}" + "A" * 35


def test_whoever_fails_too_often_waits_longer_each_time(scene: Scene) -> None:
    codes = [scene.refused(wrong(number), ip=HERE) for number in range(11)]
    assert codes == ["token_unknown"] * 10 + ["sign_in_throttled"]
    waits = []
    for number in range(100, 108):
        with pytest.raises(Throttled) as caught:
            sign_in(scene.home.services, wrong(number), HERE)
        waits.append(caught.value.retry_after)
        scene.clock.advance(caught.value.retry_after)
        assert scene.refused(wrong(number), ip=HERE) == "token_unknown"
    assert waits == [1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 60_000, 60_000]
    assert scene.refused(wrong(200), ip="198.51.100.8") == "token_unknown", "another address is another matter"
    scene.clock.advance(15 * MINUTE)
    assert scene.refused(wrong(300), ip=HERE) == "token_unknown"


def test_an_ipv6_subscriber_is_one_whatever_address_it_takes(scene: Scene) -> None:
    codes = {scene.refused(wrong(number), ip=f"2001:db8:1:2::{number:x}") for number in range(30)}
    assert codes == {"token_unknown", "sign_in_throttled"}
    assert scene.refused(wrong(31), ip="2001:db8:1:3::1") == "token_unknown"


def test_guesses_at_one_token_are_counted_wherever_they_come_from(scene: Scene) -> None:
    start = "ks_guessed0"
    codes = [scene.refused(start + f"{number:035}", ip=f"203.0.113.{number}") for number in range(12)]
    assert codes == ["token_unknown"] * 10 + ["sign_in_throttled"] * 2
    access = scene.exchange(scene.alice_token)
    body = access.rpartition(".")[0]
    codes = [scene.refused(f"{body}.{'A' * 84}{number:02}", ip=f"203.0.113.{100 + number}") for number in range(12)]
    assert codes[-1] == "sign_in_throttled"
    assert sign_in(scene.home.services, scene.exchange(scene.alice_token), HERE).upn == ALICE, "nobody else's tokens are the matter"


def test_a_token_that_was_good_here_is_not_locked_out_by_others_behind_its_address(scene: Scene) -> None:
    for token, upn in ((scene.alice_token, ALICE), (scene.admin_token, ADMIN)):
        assert sign_in(scene.home.services, token, HERE).upn == upn
    for number in range(20):
        scene.refused(wrong(number), ip=HERE)
    assert sign_in(scene.home.services, scene.alice_token, HERE).upn == ALICE
    scene.admin.call("token.revoke", k.NameToken(id=scene.id_of(scene.alice_token)))
    assert scene.refused(scene.alice_token, ip=HERE) == "token_unknown"
    assert scene.refused(scene.alice_token, ip=HERE) == "sign_in_throttled", "it is not good any more"


def test_claims_exchanges_and_renewals_are_counted_too(scene: Scene) -> None:
    nobody, route = scene.home.dispatcher, {route.name: route for route in ROUTES}
    good = scene.admin.call("user.add", t.AddUser(upn="bob@contoso.example", roles=["user"])).claim_token
    asked: list[tuple[str, Any]] = [
        ("user.claim", t.ClaimToken(claim_token=wrong(1), upn=ALICE)),
        ("token.exchange", k.ExchangeToken(token=wrong(2))),
        ("token.renew", k.RenewToken(token=wrong(3))),
    ]
    codes = []
    for number in range(12):
        name, request = asked[number % 3]
        with pytest.raises((Unauthenticated, Throttled)) as caught:
            nobody.run(route[name], request, principal=NOBODY, client_ip=HERE)
        codes.append(caught.value.code)
    assert set(codes[:10]) == {"claim_token_invalid", "token_unknown"}
    assert codes[10:] == ["sign_in_throttled"] * 2
    with pytest.raises(Throttled):
        nobody.run(route["user.claim"], t.ClaimToken(claim_token=good, upn="bob@contoso.example"), principal=NOBODY, client_ip=HERE)
    scene.clock.advance(1_000)
    nobody.run(route["user.claim"], t.ClaimToken(claim_token=good, upn="bob@contoso.example"), principal=NOBODY, client_ip=HERE)


def test_an_address_gets_one_record_a_minute_with_a_count_and_no_token(scene: Scene) -> None:
    for number in range(60):
        scene.refused(wrong(number), ip=HERE)
        scene.clock.advance(500)
    assert [dict(one.parameters) for one in scene.log("UserLoginFailed", "")] == [{"Count": "1", "Codes": "token_unknown=1"}]
    scene.clock.advance(31 * SECOND)
    for_the_log(scene.home.services)
    newest, _first = scene.log("UserLoginFailed", "")
    assert (newest.client_ip, newest.user_id, newest.result_status) == (HERE, "", "Failed")
    assert dict(newest.parameters)["Count"] == "59"
    assert "sign_in_throttled=" in dict(newest.parameters)["Codes"]
    assert scene.world.files_holding(b"ks_0000") == []
    for_the_log(scene.home.services, all_of_it=True)
    assert len(scene.log("UserLoginFailed", "")) == 2, "nothing is told twice"


def test_many_addresses_share_records(scene: Scene) -> None:
    for number in range(260):
        scene.refused(wrong(number), ip=f"203.0.{number // 250}.{number % 250}")
    for_the_log(scene.home.services, all_of_it=True)
    records = scene.log("UserLoginFailed", "")
    assert len(records) == 201
    assert sum(int(dict(one.parameters)["Count"]) for one in records) == 260
    assert "many addresses" in {one.client_ip for one in records}


def test_nobody_over_the_network_is_counted_and_not_recorded_each_time(scene: Scene) -> None:
    route = {route.name: route for route in ROUTES}["mailbox.list"]
    for _ in range(30):
        with pytest.raises(Unauthenticated):
            scene.home.dispatcher.run(route, m.ListMailboxes(), principal=NOBODY, tenant="contoso.example", client_ip=HERE)
    for_the_log(scene.home.services, all_of_it=True)
    assert [dict(one.parameters)["Codes"] for one in scene.log("UserLoginFailed", "")] == ["not_signed_in=29", "not_signed_in=1"]


# -- a tenant's own provider ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("algorithm", ["RS256", "PS256", "ES256", "EdDSA", "Ed25519"])
def test_people_sign_in_with_tokens_of_their_own_provider(scene: Scene, algorithm: str) -> None:
    key = {
        "ES256": lambda: ec.generate_private_key(ec.SECP256R1()),
        "EdDSA": Ed25519PrivateKey.generate,
        "Ed25519": Ed25519PrivateKey.generate,
    }
    made = key.get(algorithm, lambda: rsa.generate_private_key(65537, 2048))()
    login = scene.provider(algorithm=algorithm, keys={"one": made})
    token = login.token(scene.claims(preferred_username="Alice@Contoso.example"))
    for _ in range(2):
        principal = sign_in(scene.home.services, token, HERE)
        assert (principal.upn, principal.tenant_id, set(principal.roles)) == (ALICE, scene.tenant, {Role.USER})
        assert (principal.dev, principal.scopes) == (False, None)
    scene.home.client(principal).call("mailbox.items", m.ListItems(upn=ALICE))


def test_signing_in_with_a_provider_makes_nobody(scene: Scene) -> None:
    login = scene.provider()
    assert scene.refused(login.token(scene.claims(preferred_username="new@contoso.example"))) == "token_person_unknown"
    with scene.home.services.db.read() as tx:
        assert tx.tenants.person("new@contoso.example") is None


def test_what_is_taken_away_from_a_provider_is_gone_at_the_next_call(scene: Scene) -> None:
    login = scene.provider()
    token = login.token(scene.claims())
    for process in (scene.home, scene.other):
        assert sign_in(process.services, token, HERE).upn == ALICE
    scene.admin.call("sign-in-provider.set", k.SetSignInProvider(issuer=LOGIN, audience="another"))
    assert {scene.refused(token), scene.refused(token, scene.other)} == {"token_audience_wrong"}
    scene.provider()
    assert sign_in(scene.other.services, token, HERE).upn == ALICE, "what is set again is taken again"
    scene.admin.call("sign-in-provider.remove")
    assert {scene.refused(token), scene.refused(token, scene.other)} == {"token_audience_wrong"}
    scene.provider()
    del scene.issuers.issuers[LOGIN]
    assert scene.refused(token) == "token_issuer_unknown"


def test_a_key_the_issuer_withdraws_is_worthless_at_once(scene: Scene) -> None:
    login = scene.provider()
    token = login.token(scene.claims())
    assert sign_in(scene.home.services, token, HERE).upn == ALICE
    login.keys["two"] = ec.generate_private_key(ec.SECP256R1())
    assert sign_in(scene.home.services, login.token(scene.claims(), kid="two"), HERE).upn == ALICE, "a fresh key is found"
    login.keys["one"] = ec.generate_private_key(ec.SECP256R1())
    assert scene.refused(token) == "token_signature_invalid"
    del login.keys["one"]
    assert scene.refused(token) == "token_key_unknown"


def test_a_provider_that_is_away_is_no_reason_to_accept(scene: Scene) -> None:
    login = scene.provider()
    token = login.token(scene.claims())
    assert sign_in(scene.home.services, token, HERE).upn == ALICE
    scene.issuers.away = True
    for _ in range(20):
        with pytest.raises(KeysteadError) as caught:
            sign_in(scene.home.services, token, HERE)
        assert caught.value.code == "sign_in_provider_unavailable", "and nobody is throttled for it"


def test_only_what_the_operator_allows_is_registered(scene: Scene) -> None:
    scene.issuers.add(Issuer(LOGIN))
    for issuer in ("https://evil.example", LOGIN + "/", LOGIN.upper(), "http://login.contoso.example"):
        assert (
            code_of(scene.admin, "sign-in-provider.set", k.SetSignInProvider(issuer=issuer, audience="x")) == "sign_in_issuer_not_allowed"
        )
    good: dict[str, Any] = {"issuer": LOGIN, "audience": "keystead"}
    for bad in (
        {"audience": ""},
        {"audience": "a b"},
        {"audience": "x" * 257},
        {"issuer": ""},
        {"upn_claim": ""},
        {"upn_claim": "a b"},
        {"required_claim": "tid"},
        {"required_value": "x"},
        {"required_claim": "a b", "required_value": "x"},
        {"required_claim": "tid", "required_value": "x" * 257},
    ):
        with pytest.raises(InvalidRequest) as caught:
            scene.admin.call("sign-in-provider.set", k.SetSignInProvider(**(good | bad)))
        assert caught.value.code == "sign_in_provider_invalid"
    assert code_of(scene.admin, "sign-in-provider.show") == "sign_in_provider_not_found"
    assert code_of(scene.admin, "sign-in-provider.remove") == "sign_in_provider_not_found"
    scene.admin.call("sign-in-provider.set", k.SetSignInProvider(**good, upn_claim="upn", required_claim="tid", required_value="7"))
    shown = scene.admin.call("sign-in-provider.show")
    assert (shown.id, shown.upn_claim, shown.required_claim, shown.required_value) == (scene.tenant, "upn", "tid", "7")
    assert scene.issuers.asked == [], "nothing is sent to an issuer by naming it"


def test_a_required_claim_is_required(scene: Scene) -> None:
    login = scene.issuers.add(Issuer(LOGIN))
    request = k.SetSignInProvider(issuer=LOGIN, audience="keystead", required_claim="groups", required_value="mail")
    scene.admin.call("sign-in-provider.set", request)
    for value, good in (
        ("mail", True),
        (["staff", "mail"], True),
        (["staff"], False),
        (None, False),
        ("mailx", False),
        ({"mail": 1}, False),
    ):
        token = login.token(scene.claims(groups=value))
        if good:
            assert sign_in(scene.home.services, token, HERE).upn == ALICE
        else:
            assert scene.refused(token) == "token_claim_missing"


def test_nobody_is_nobody_and_conflicts_stay_conflicts(scene: Scene) -> None:
    assert sign_in(scene.home.services, "", HERE) is NOBODY
    assert signed_in(scene.home.services, "ks_x") is NOBODY
    operator = scene.home.client(OPERATOR)
    with pytest.raises(Conflict):
        operator.call("tenant.create", t.CreateTenant(name="Contoso", domain="contoso.example", geo=["EUR"]))


def test_a_pattern_names_what_begins_alike_and_nothing_else() -> None:
    assert covers(frozenset({"vault.*"}), "vault.access.grant")
    assert covers(frozenset({"vault.access.*"}), "vault.access.grant")
    assert not covers(frozenset({"vault.access.*"}), "vault.accessible")
    assert not covers(frozenset({"vault"}), "vault.list")
    assert not covers(frozenset({"*"}), "vault.list")
    assert not covers(frozenset({"token.*"}), "token.create")
