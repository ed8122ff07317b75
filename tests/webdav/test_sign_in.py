"""Who may do what over WebDAV: tokens, tenants, members, roles, and what is recorded of it (R-008 to R-010, R-193)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from keystead.api.types import sites as s
from keystead.api.types import tenants as t
from keystead.api.types import tokens as k
from keystead.ports.clock import DAY
from keystead.services import tenants
from support.webdav import PLANS, ROOT, make_plans, running
from support.world import World

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.webdav import Face

ALEX, BLAKE, ADMIN = (f"{local}@contoso.example" for local in ("alex", "blake", "admin"))
PRIVATE = "/contoso.example,sites,private"


def make_sites(world: World) -> None:
    make_plans(world)
    world.as_person(ADMIN).call("site.create", s.CreateSite(url="https://contoso.example/sites/private", owner=ALEX, private=True))


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, database: str) -> Iterator[World]:
    made = World(tmp_path_factory.mktemp("world"))
    make_sites(made)
    yield made
    made.close()


@pytest.fixture(scope="module")
def face(world: World) -> Iterator[Face]:
    with running(world) as running_face:
        yield running_face


def test_nobody_sees_anything(face: Face) -> None:
    for method in ("OPTIONS", "PROPFIND", "GET", "HEAD", "PUT", "DELETE", "LOCK"):
        answer = face.nobody().ask(method, f"{ROOT}/file", b"" if method == "PUT" else None, Depth="0")
        assert (answer.status, answer.headers["WWW-Authenticate"][:6]) == (401, "Bearer"), method


def test_a_token_signs_in_as_password_and_as_bearer(face: Face) -> None:
    token = face.token(ALEX)
    assert face.basic(ALEX, token).put(f"{ROOT}/file", b"1").status == 201
    assert face.basic(ALEX.upper(), token).get(f"{ROOT}/file").status == 200
    assert face.nobody(f"Bearer {token}").get(f"{ROOT}/file").body == b"1"


@pytest.mark.parametrize(
    "authorization",
    [
        "Basic",
        "Basic !",
        "Basic bm9jb2xvbg==",
        "Basic OnBhc3N3b3Jk",
        "Basic YWxleEBjb250b3NvLmV4YW1wbGU6",
        "Basic gYGBgQ==",
        "Bearer",
        "Bearer ",
        "Digest username=alex",
        "Basic " + "A" * 20_000,
        "Negotiate x",
    ],
)
def test_headers_that_sign_nobody_in(face: Face, authorization: str) -> None:
    answer = face.nobody(authorization).get(f"{ROOT}/file")
    assert (answer.status, "authorization_invalid" in answer.text) == (401, True)


def test_a_wrong_password_is_refused_and_soon_not_even_looked_at(world: World) -> None:
    with running(world.process("throttling")) as face:
        wrong, token = face.basic(ALEX, f"ks_{'wrong' * 8}"), face.token(ALEX)
        statuses = [wrong.get(f"{ROOT}/file").status for _ in range(world.settings.sign_in_free_attempts + 1)]
        assert (statuses[0], statuses[-1]) == (401, 429)
        assert int(wrong.get(f"{ROOT}/file").headers["Retry-After"]) > 0
        world.clock.advance(DAY)
        assert face.basic(ALEX, token).ask("PROPFIND", f"{ROOT}/", Depth="0").status == 207


def test_another_persons_token_is_no_password(face: Face) -> None:
    answer = face.basic(BLAKE, face.token(ALEX)).get(f"{ROOT}/file")
    assert (answer.status, "upn_wrong" in answer.text) == (401, True)


def test_a_person_who_is_removed_is_refused_at_the_next_request(face: Face, world: World) -> None:
    """R-008"""
    admin = world.as_person(ADMIN)
    admin.call("user.add", t.AddUser(upn="casey@contoso.example", roles=["user"]))
    casey = face.person("casey@contoso.example")
    assert casey.put(f"{ROOT}/caseys", b"1").status == 201
    admin.call("user.remove", t.RemoveUser(upn="casey@contoso.example"))
    assert casey.get(f"{ROOT}/caseys").status == 401


def test_people_of_another_tenant_find_nothing(face: Face, world: World) -> None:
    """R-010: another tenant's site is not there, whether it is or not."""
    other = world.tenant("fabrikam.example", ready=False)
    other.person("eve", "user", "global-admin")
    face.person(ALEX).put(f"{ROOT}/file", b"1")
    eve = face.person("eve@fabrikam.example")
    ((site_id,),) = world.sql("SELECT id FROM sites WHERE url = ?", PLANS)
    for path in (f"{ROOT}/file", f"/{site_id}/file"):
        assert (eve.get(path).status, eve.put(path, b"2").status) == (404, 409)
    assert eve.get(f"{ROOT}/file").text == eve.get("/contoso.example,sites,nothing/file").text
    assert eve.names("/") == {"/"}
    assert face.person(ALEX).get(f"{ROOT}/file").body == b"1"


def test_who_is_not_a_member_neither_reads_nor_lists_nor_writes_and_it_is_recorded(face: Face, world: World) -> None:
    """R-193: administrators are no members either."""
    face.person(ALEX).put(f"{PRIVATE}/file", b"1")
    for upn in (BLAKE, ADMIN):
        person = face.person(upn)
        answers = [
            person.get(f"{PRIVATE}/file"),
            person.ask("PROPFIND", f"{PRIVATE}/", Depth="1"),
            person.put(f"{PRIVATE}/file", b"2"),
            person.ask("DELETE", f"{PRIVATE}/file"),
            person.lock(f"{PRIVATE}/file")[0],
        ]
        assert [(answer.status, "not_a_member" in answer.text) for answer in answers] == [(403, True)] * len(answers)
        assert PRIVATE + "/" not in person.names("/")
    refused = [row for row in world.sql("SELECT user_id, result_status FROM audit_records") if row[1] == "Failed"]
    assert {BLAKE, ADMIN} <= {row[0] for row in refused}
    assert face.person(ALEX).get(f"{PRIVATE}/file").body == b"1"


def test_a_member_is_let_in_and_out(face: Face, world: World) -> None:
    blake, alex = face.person(BLAKE), world.as_person(ALEX)
    alex.call("site.member.add", s.SiteMember(site="https://contoso.example/sites/private", member=BLAKE))
    assert blake.put(f"{PRIVATE}/of-a-member", b"1").status == 201
    assert f"{PRIVATE}/" in blake.names("/")
    alex.call("site.member.remove", s.SiteMember(site="https://contoso.example/sites/private", member=BLAKE))
    assert blake.get(f"{PRIVATE}/file").status == 403


def test_the_providers_people_never_pass(face: Face, world: World) -> None:
    """R-193"""
    _person, token = tenants.make_operator(world.services, "operator@provider.example")
    operator = face.basic("operator@provider.example", token)
    for method, path in (("PROPFIND", "/"), ("GET", f"{ROOT}/file"), ("PROPFIND", f"{ROOT}/")):
        answer = operator.ask(method, path, Depth="0")
        assert (answer.status, "provider_never_reads" in answer.text) == (403, True)


def test_scopes_cut_a_programs_token_down(face: Face, world: World) -> None:
    """R-009"""
    made = world.as_person(ADMIN).call("token.create", k.CreateToken(name="reader", scopes=["site.ls", "site.list", "site.get"]))
    program = face.nobody(f"Bearer {made.token}")
    assert program.ask("PROPFIND", f"{ROOT}/", Depth="1").status == 207
    answer = program.put(f"{ROOT}/file", b"1")
    assert (answer.status, "scope_missing" in answer.text) == (403, True)


def test_acts_are_recorded_with_request_and_address_and_without_names(face: Face, world: World) -> None:
    """R-194: what is done over WebDAV is recorded like what is done by the API."""
    alex = face.person(ALEX)
    answer = alex.put(f"{ROOT}/unmistakable-name", b"1")
    alex.ask("MOVE", f"{ROOT}/unmistakable-name", Destination=f"{ROOT}/another-unmistakable-name")
    alex.ask("DELETE", f"{ROOT}/another-unmistakable-name")
    rows = world.sql("SELECT operation, user_id, client_ip, request_id FROM audit_records ORDER BY sequence DESC LIMIT 3")
    assert [row[0] for row in rows] == ["FileDeleted", "FileRenamed", "FileUploaded"]
    assert {row[1:3] for row in rows} == {(ALEX, "127.0.0.1")}
    assert rows[-1][3] == answer.headers["Keystead-Request-Id"]
    assert world.files_holding(b"unmistakable-name") == []
