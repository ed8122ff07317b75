"""Locks over WebDAV: they are rows of the database, so they hold in every process and after a restart (RFC 4918 section 6)."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest

from keystead.api.call import Call
from keystead.api.types import sites as s
from keystead.api.types import watching as w
from keystead.core.errors import Conflict, Forbidden, PreconditionFailed
from keystead.ports.clock import SECOND
from keystead.services import file_locks, sites, tenants
from keystead.services.file_locks import Lock
from support.webdav import PLANS, ROOT, running

if TYPE_CHECKING:
    from support.webdav import Face, Person
    from support.world import World


def test_what_is_locked_is_changed_by_its_holder_alone(alex: Person, blake: Person) -> None:
    alex.put(f"{ROOT}/held", b"1")
    answer, token = alex.lock(f"{ROOT}/held")
    assert (answer.status, token[:16]) == (200, "opaquelocktoken:")
    refused = blake.put(f"{ROOT}/held", b"2")
    assert (refused.status, f"{ROOT}/held" in refused.text) == (423, True)
    assert blake.put(f"{ROOT}/held", b"2", If=f"(<{token}>)").status == 412, "somebody else's token opens nothing"
    assert alex.put(f"{ROOT}/held", b"2").status == 423, "nor does the holder without the token"
    for method in ("DELETE", "PROPPATCH"):
        assert blake.ask(method, f"{ROOT}/held").status == 423
    assert blake.ask("MOVE", f"{ROOT}/held", Destination=f"{ROOT}/taken").status == 423
    assert blake.get(f"{ROOT}/held").body == b"1"
    assert alex.put(f"{ROOT}/held", b"2", If=f"(<{token}>)").status == 204
    assert blake.ask("UNLOCK", f"{ROOT}/held", Lock_Token=f"<{token}>").status == 403
    assert alex.ask("UNLOCK", f"{ROOT}/held", Lock_Token=f"<{token}>").status == 204
    assert blake.put(f"{ROOT}/held", b"3").status == 204


def test_a_name_can_be_locked_before_anything_lies_there(alex: Person, blake: Person) -> None:
    answer, token = alex.lock(f"{ROOT}/reserved")
    assert answer.status == 201
    assert blake.put(f"{ROOT}/reserved", b"1").status == 423
    assert alex.put(f"{ROOT}/reserved", b"2", If=f"(<{token}>)").status == 204


def test_a_locked_folder_holds_what_is_below_it(alex: Person, blake: Person) -> None:
    alex.ask("MKCOL", f"{ROOT}/room")
    alex.put(f"{ROOT}/room/file", b"1")
    _answer, token = alex.lock(f"{ROOT}/room/")
    assert blake.put(f"{ROOT}/room/file", b"2").status == 423
    assert blake.put(f"{ROOT}/room/other", b"2").status == 423
    assert blake.lock(f"{ROOT}/room/file")[0].status == 423
    assert blake.ask("DELETE", f"{ROOT}/room/").status == 423
    assert alex.ask("DELETE", f"{ROOT}/room/", If=f"<http://{alex.address[0]}:{alex.address[1]}{ROOT}/room/> (<{token}>)").status == 204
    assert blake.ask("MKCOL", f"{ROOT}/room").status == 201, "what is gone is locked no more"


def test_a_folder_with_something_locked_in_it_stays(alex: Person, blake: Person) -> None:
    alex.ask("MKCOL", f"{ROOT}/shelf")
    alex.put(f"{ROOT}/shelf/book", b"1")
    alex.lock(f"{ROOT}/shelf/book")
    assert blake.ask("DELETE", f"{ROOT}/shelf/").status == 423
    assert blake.ask("MOVE", f"{ROOT}/shelf/", Destination=f"{ROOT}/stolen/").status == 423
    blake.ask("MKCOL", f"{ROOT}/own")
    assert blake.ask("COPY", f"{ROOT}/own/", Destination=f"{ROOT}/shelf/").status == 423
    assert alex.get(f"{ROOT}/shelf/book").body == b"1"


def test_a_lock_holds_for_every_spelling_of_a_name(alex: Person, blake: Person) -> None:
    alex.put(f"{ROOT}/%C3%A9", b"1")
    assert alex.lock(f"{ROOT}/e%CC%81")[0].status == 200
    assert blake.put(f"{ROOT}/%C3%A9", b"2").status == 423
    assert blake.put(f"{ROOT}/e%CC%81", b"2").status == 423


def test_shared_locks_are_held_together_and_exclusive_ones_are_not(alex: Person, blake: Person) -> None:
    alex.put(f"{ROOT}/shared", b"1")
    assert [person.lock(f"{ROOT}/shared", scope="shared")[0].status for person in (alex, blake)] == [200, 200]
    assert blake.lock(f"{ROOT}/shared")[0].status == 423


def test_a_lock_ends_at_its_time_and_lasts_when_it_is_refreshed(plans: World, alex: Person, blake: Person) -> None:
    alex.put(f"{ROOT}/timed", b"1")
    answer, token = alex.lock(f"{ROOT}/timed", Timeout="Second-600")
    assert b"Second-600" in answer.body or b"Second-599" in answer.body
    plans.clock.advance(500 * SECOND)
    refreshed = alex.ask("LOCK", f"{ROOT}/timed", If=f"(<{token}>)", Timeout="Second-600")
    assert refreshed.status == 200
    assert blake.ask("LOCK", f"{ROOT}/timed", If=f"(<{token}>)").status in (403, 412)
    plans.clock.advance(500 * SECOND)
    assert blake.put(f"{ROOT}/timed", b"2").status == 423
    plans.clock.advance(101 * SECOND)
    assert blake.put(f"{ROOT}/timed", b"2").status == 204


@pytest.mark.parametrize("asked", ["Infinite", "Second-4100000000", "Second-4000"])
def test_nobody_locks_for_longer_than_an_hour(plans: World, alex: Person, blake: Person, asked: str) -> None:
    path = f"{ROOT}/long-{asked}"
    alex.put(path, b"1")
    answer, _token = alex.lock(path, Timeout=asked)
    assert b"Second-3600" in answer.body or b"Second-3599" in answer.body
    plans.clock.advance(3_601 * SECOND)
    assert blake.put(path, b"2").status == 204


def test_locks_hold_in_another_process_and_after_a_restart(plans: World, alex: Person) -> None:
    alex.put(f"{ROOT}/everywhere", b"1")
    _answer, token = alex.lock(f"{ROOT}/everywhere")
    with running(plans.process("second")) as other:
        assert other.person("blake@contoso.example").put(f"{ROOT}/everywhere", b"2").status == 423
        assert other.person("blake@contoso.example").lock(f"{ROOT}/everywhere")[0].status == 423
    with running(plans.process("restarted")) as again:
        blake = again.person("blake@contoso.example")
        assert blake.put(f"{ROOT}/everywhere", b"2").status == 423
        assert again.person("alex@contoso.example").ask("UNLOCK", f"{ROOT}/everywhere", Lock_Token=f"<{token}>").status == 204
        assert blake.put(f"{ROOT}/everywhere", b"2").status == 204


def test_of_two_processes_that_lock_at_once_one_succeeds(plans: World, face: Face) -> None:
    face.person("alex@contoso.example").put(f"{ROOT}/race", b"1")
    with running(plans.process("rival")) as rival:
        people = [face.person("alex@contoso.example"), rival.person("blake@contoso.example")] * 4
        barrier = threading.Barrier(len(people))
        statuses: list[int] = []

        def take(person: Person) -> None:
            barrier.wait()
            statuses.append(person.lock(f"{ROOT}/race")[0].status)

        threads = [threading.Thread(target=take, args=(person,)) for person in people]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sorted(statuses) == [200, *[423] * (len(people) - 1)]


def test_a_lock_taken_while_a_body_comes_in_stands(alex: Person, blake: Person, plans: World) -> None:
    alex.put(f"{ROOT}/slow", b"1")
    with running(plans.process("faster")) as other:
        locker = other.person("blake@contoso.example")

        def body() -> object:
            yield b"half"
            assert locker.lock(f"{ROOT}/slow")[0].status == 200
            yield b"half"

        assert alex.ask("PUT", f"{ROOT}/slow", body()).status == 423  # type: ignore[arg-type]  # pieces
    assert alex.get(f"{ROOT}/slow").body == b"1"


def test_what_a_client_says_of_the_holder_is_bounded(alex: Person) -> None:
    alex.put(f"{ROOT}/owned", b"1")
    body = '<D:lockinfo xmlns:D="DAV:"><D:lockscope><D:exclusive/></D:lockscope><D:locktype><D:write/></D:locktype><D:owner>%s</D:owner></D:lockinfo>'
    assert alex.ask("LOCK", f"{ROOT}/owned", (body % ("x" * 5_000)).encode()).status == 413
    answer = alex.ask("LOCK", f"{ROOT}/owned", (body % "<x>alex</x>").encode())
    assert (answer.status, b"alex" in answer.body) == (200, True)


def test_nothing_of_a_lock_can_be_read_in_the_database(plans: World, alex: Person) -> None:
    """R-115: a locked path is a name, and names are content."""
    alex.lock(f"{ROOT}/unmistakable-name")
    ((rows,),) = plans.sql("SELECT count(*) FROM file_locks")
    assert rows
    assert plans.files_holding(b"unmistakable-name", b"opaquelocktoken") == []


def test_a_lock_moved_to_another_row_is_not_taken_for_one(plans: World, alex: Person) -> None:
    plans.sql("DELETE FROM file_locks")
    _answer, token = alex.lock(f"{ROOT}/forged")
    plans.sql("UPDATE file_locks SET token_hash = ? WHERE sealed = (SELECT sealed FROM file_locks LIMIT 1)", b"x" * 32)
    answer = alex.put(f"{ROOT}/forged", b"1", If=f"(<{token}>)")
    assert answer.status == 500
    plans.sql("DELETE FROM file_locks")


def test_a_site_takes_so_many_locks(plans: World, face: Face, monkeypatch: pytest.MonkeyPatch) -> None:
    plans.sql("DELETE FROM file_locks")
    monkeypatch.setattr(file_locks, "MAX_LOCKS", 5)
    principal = tenants.impersonate(plans.services, "alex@contoso.example")
    call = Call(principal, principal.tenant_id or "", "site.put", "request")
    opened = sites.open_site(plans.services, call, PLANS, change=True)
    until = plans.clock.now() + 60 * SECOND
    for index in range(5):
        file_locks.take(
            plans.services,
            opened,
            Lock(f"t{index}", f"/x/{index}", exclusive=True, deep=False, owner=b"", principal=principal.upn, timeout=60, expires=until),
        )
    with pytest.raises(Conflict) as taken:
        file_locks.take(
            plans.services,
            opened,
            Lock("again", "/x/1", exclusive=True, deep=False, owner=b"", principal=principal.upn, timeout=60, expires=until),
        )
    assert taken.value.code == "file_locked"
    with pytest.raises(PreconditionFailed) as full:
        file_locks.take(
            plans.services,
            opened,
            Lock("more", "/y", exclusive=True, deep=False, owner=b"", principal=principal.upn, timeout=60, expires=until),
        )
    assert full.value.code == "too_many_locks"
    assert face.person("alex@contoso.example").lock(f"{ROOT}/one-more")[0].status == 507
    plans.sql("DELETE FROM file_locks")


def test_one_person_does_not_hold_all_locks_of_a_site(plans: World, alex: Person, blake: Person, monkeypatch: pytest.MonkeyPatch) -> None:
    """R-112: or one person could keep all others from writing."""
    plans.sql("DELETE FROM file_locks")
    monkeypatch.setattr(file_locks, "MAX_OF_ONE", 3)
    statuses = [alex.lock(f"{ROOT}/held-{number}")[0].status for number in range(5)]
    assert statuses == [201, 201, 201, 507, 507]
    assert blake.lock(f"{ROOT}/of-blake")[0].status == 201
    plans.sql("DELETE FROM file_locks")


def test_who_looks_after_a_site_ends_its_locks(plans: World, alex: Person, blake: Person) -> None:
    """R-112: else who refreshes a lock for ever has the site for ever; R-160: it is on the log."""
    plans.sql("DELETE FROM file_locks")
    blake.put(f"{ROOT}/wanted", b"1")
    _answer, token = alex.lock(f"{ROOT}/wanted")
    alex.lock(f"{ROOT}/other")
    with pytest.raises(Forbidden, match="not_the_owner"):
        plans.as_person("blake@contoso.example").call("site.unlock", s.NameSite(site=PLANS))
    assert blake.put(f"{ROOT}/wanted", b"2").status == 423
    admin = plans.as_person("admin@contoso.example")
    assert admin.call("site.unlock", s.NameSite(site=PLANS)).locks == 2
    assert blake.put(f"{ROOT}/wanted", b"2").status == 204
    assert alex.ask("LOCK", f"{ROOT}/wanted", None, If=f"(<{token}>)").status == 412, "nothing is left to refresh"
    found: list[w.AuditRecordView] = admin.call("audit.search", w.SearchAudit(operations=["SiteUnlocked"]))
    assert w.Parameter(name="Locks", value="2") in found[0].parameters


def test_the_owner_of_a_drive_ends_its_locks_and_no_administrator(plans: World, face: Face) -> None:
    """R-193: a personal drive is its person's alone."""
    drive = "https://contoso.example/personal/alex"
    owner = plans.as_person("alex@contoso.example")
    owner.call("site.create", s.CreateSite(url=drive, kind="onedrive"))
    assert face.person("alex@contoso.example").lock("/contoso.example,personal,alex/mine")[0].status == 201
    with pytest.raises(Forbidden, match="not_the_owner"):
        plans.as_person("admin@contoso.example").call("site.unlock", s.NameSite(site=drive))
    assert owner.call("site.unlock", s.NameSite(site=drive)).locks == 1
