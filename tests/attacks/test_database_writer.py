"""Somebody can write to keystead.db: swaps, copies, rolls back, forges. What comes out is what was put in, or an error; never other data.

What such a person *can* do is said in docs/threat-model.md: names and who may open which mailbox are rows like any other.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from attacks.conftest import LARGE
from keystead.api.types import mailboxes as m
from keystead.api.types import policies as p
from keystead.core.errors import IntegrityFailure, KeyDenied, KeysteadError, NotFound
from keystead.services.jobs.runner import run_due
from support.world import message

if TYPE_CHECKING:
    from collections.abc import Callable

    from attacks.conftest import Scene
    from support.world import Process

ALICE, BOB, CAROL, DAVE = "alice@contoso.example", "bob@contoso.example", "carol@contoso.example", "dave@fabrikam.example"


@dataclass
class Shown:
    """What the people of all mailboxes are shown: subject, folder and bytes by item id."""

    items: dict[tuple[str, str], tuple[str, str, bytes]]
    refused: list[KeysteadError]


def look(scene: Scene, process: Process) -> Shown:
    """Everybody lists and reads everything of their own."""
    shown = Shown({}, [])
    for box in scene.boxes:
        try:
            client = scene.owner(box.upn, process)
            listed = {item.id: item for item in box.items(client)}
        except KeysteadError as error:
            shown.refused.append(error)
            listed = {}
        for (item_id,) in scene.world.sql("SELECT id FROM items"):
            try:
                data = box.read(item_id, client)
            except KeysteadError as error:
                shown.refused.append(error)
            else:
                view = listed.get(item_id)
                shown.items[box.upn, item_id] = (view.subject, view.folder, data) if view else ("", "", data)
    return shown


def swap(table: str, columns: str, one: str, other: str) -> Callable[[Scene], None]:
    """Swap columns between two rows that conditions name. A foreign or unique key is no hindrance to who writes to the file."""

    def attack(scene: Scene) -> None:
        names = columns.split(", ")
        first = scene.world.sql(f"SELECT rowid, {columns} FROM {table} WHERE {one} ORDER BY rowid LIMIT 1")[0]  # noqa: S608 - ours
        second = scene.world.sql(f"SELECT rowid, {columns} FROM {table} WHERE {other} ORDER BY rowid DESC LIMIT 1")[0]  # noqa: S608
        assert first[0] != second[0]
        for values, row in ((["-" * 30 + str(n) for n in range(len(names))], first[0]), (first[1:], second[0]), (second[1:], first[0])):
            assignments = ", ".join(f'"{name}" = ?' for name in names)
            scene.world.sql(f"UPDATE {table} SET {assignments} WHERE rowid = ?", *values, row)  # noqa: S608

    return attack


def run(*statements: str) -> Callable[[Scene], None]:
    """Statements; {alice} and so on are ids of mailboxes, {Mail} and {Other} ids of policies."""

    def attack(scene: Scene) -> None:
        ids = {name.partition("@")[0]: scene.id_of(name) for name in (ALICE, BOB, CAROL, DAVE)}
        provider = scene.world.sql("SELECT id FROM policies WHERE workload = 'provider' AND tenant_id = ?", scene.contoso.id)[0][0]
        names = {
            "mail": scene.mail.id,
            "other": scene.other.id,
            "provider": provider,
            "contoso": scene.contoso.id,
            "fabrikam": scene.fabrikam.id,
        }
        for statement in statements:
            scene.world.sql(statement.format(**ids, **names))

    return attack


def of(upn: str) -> str:
    """The rows of a mailbox."""
    return f"mailbox_id = (SELECT id FROM mailboxes WHERE upn = '{upn}')"  # noqa: S608 - ours


def of_policy(tenant: str, role: str) -> str:
    """One copy of the policy key of a tenant."""
    return (
        "version_id = (SELECT version_id FROM policies JOIN tenants ON tenants.id = policies.tenant_id"  # noqa: S608 - ours
        f" WHERE domain = '{tenant}' AND workload = 'mail') AND role = '{role}'"
    )


ATTACKS: dict[str, Callable[[Scene], None]] = {
    "places of two items of one mailbox": swap("items", "object_ref, offset, length", of(ALICE), of(ALICE) + " AND size < 1000"),
    "places across mailboxes": swap("items", "object_ref, offset, length, size, parts", of(ALICE), of(BOB)),
    "places across tenants": swap("items", "object_ref, offset, length, size, parts", of(ALICE), of(DAVE)),
    "ids in one mailbox": swap("items", "id", of(BOB), of(BOB)),
    "ids across tenants": swap("items", "id", of(BOB), of(DAVE)),
    "items into another mailbox": run("UPDATE items SET mailbox_id = '{bob}' WHERE mailbox_id = '{alice}'"),
    "items into another tenant": run("UPDATE items SET mailbox_id = '{dave}' WHERE mailbox_id = '{alice}'"),
    "items and folders into a mailbox under provider keys": run(
        "UPDATE items SET mailbox_id = '{carol}', key_version = 1 WHERE mailbox_id = '{alice}'"
    ),
    "summaries in one mailbox": swap("items", "summary", of(BOB), of(BOB)),
    "summaries across tenants": swap("items", "summary", of(BOB), of(DAVE)),
    "folder names across mailboxes": swap("folders", "sealed_name", of(ALICE), of(BOB)),
    "folders of another mailbox": swap("items", "folder_id", of(ALICE), of(DAVE)),
    "mailbox keys in one tenant": swap("mailbox_keys", "wrapped", of(ALICE), of(BOB)),
    "mailbox keys across tenants": swap("mailbox_keys", "wrapped", of(ALICE), of(DAVE)),
    "mailbox key rows across tenants": swap("mailbox_keys", "mailbox_id", of(ALICE), of(DAVE)),
    "a mailbox under another tenant's policy": run("UPDATE mailboxes SET policy_id = '{other}' WHERE id = '{alice}'"),
    "a mailbox under provider keys": run("UPDATE mailboxes SET policy_id = '{provider}', key_version = 1 WHERE id = '{alice}'"),
    "a mailbox in another tenant": run(
        "UPDATE mailboxes SET tenant_id = '{fabrikam}', upn = 'alice@fabrikam.example' WHERE id = '{alice}'"
    ),
    "a mailbox in place of another tenant's": run(
        "UPDATE mailboxes SET upn = 'x@fabrikam.example' WHERE id = '{dave}'",
        "UPDATE mailboxes SET tenant_id = '{fabrikam}', upn = 'dave@fabrikam.example' WHERE id = '{alice}'",
    ),
    "copies of two roles": swap(
        "policy_copies", "envelope, key_uri", of_policy("contoso.example", "primary"), of_policy("contoso.example", "secondary")
    ),
    "copies of two tenants": swap(
        "policy_copies", "envelope, key_uri", of_policy("contoso.example", "primary"), of_policy("fabrikam.example", "primary")
    ),
    "policies' versions": swap(
        "policies",
        "version_id",
        "id = (SELECT policy_id FROM mailboxes WHERE upn = 'alice@contoso.example')",
        "id = (SELECT policy_id FROM mailboxes WHERE upn = 'dave@fabrikam.example')",
    ),
    "check values": swap(
        "policies",
        "check_value",
        "id = (SELECT policy_id FROM mailboxes WHERE upn = 'alice@contoso.example')",
        "id = (SELECT policy_id FROM mailboxes WHERE upn = 'dave@fabrikam.example')",
    ),
    "shred keys": swap(
        "policies",
        "shred_key_id, availability_key_id",
        "id = (SELECT policy_id FROM mailboxes WHERE upn = 'alice@contoso.example')",
        "id = (SELECT policy_id FROM mailboxes WHERE upn = 'dave@fabrikam.example')",
    ),
    "owners of policies": swap(
        "policies",
        "tenant_id",
        "id = (SELECT policy_id FROM mailboxes WHERE upn = 'alice@contoso.example')",
        "id = (SELECT policy_id FROM mailboxes WHERE upn = 'dave@fabrikam.example')",
    ),
    "a policy called the provider's": run("UPDATE policies SET workload = 'provider', name = 'x' WHERE id = '{mail}'"),
    "no state row": run("DELETE FROM policy_states WHERE policy_id = '{mail}'"),
    "a state that is none": run("UPDATE policy_states SET primary_outcome = 'fine', secondary_outcome = 'fine' WHERE policy_id = '{mail}'"),
    "no mailbox key": run("DELETE FROM mailbox_keys WHERE mailbox_id = '{alice}'"),
    "a wrapped key cut short": run("UPDATE mailbox_keys SET wrapped = substr(wrapped, 1, 40) WHERE mailbox_id = '{alice}'"),
    "text for bytes": run("UPDATE mailbox_keys SET wrapped = 'wrapped' WHERE mailbox_id = '{alice}'"),
    "a huge item": run("UPDATE items SET size = 1 << 60, parts = 1 << 38 WHERE mailbox_id = '{alice}'"),
    "a huge place": run("UPDATE items SET length = 1 << 50 WHERE mailbox_id = '{alice}'"),
    "a place before its object": run("UPDATE items SET offset = -5 WHERE mailbox_id = '{alice}'"),
    "a place that is a path": run("UPDATE items SET object_ref = '../../seals/keystore.master' WHERE mailbox_id = '{alice}'"),
    "a key version that never was": run("UPDATE items SET key_version = 77 WHERE mailbox_id = '{alice}'"),
    "large taken for small": run("UPDATE items SET parts = 1, size = 10 WHERE mailbox_id = '{alice}'"),
    "fewer parts": run("UPDATE items SET parts = 1, size = 4194304 WHERE mailbox_id = '{alice}' AND parts = 2"),
    "small taken for large": run("UPDATE items SET parts = 2, size = 5000000 WHERE mailbox_id = '{alice}'"),
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_what_comes_out_is_what_was_put_in_or_an_error_R_252(scene: Scene, attack: str) -> None:
    """R-080, R-252: whatever is changed in the database, nobody is shown bytes, a subject or a folder that are not that item's."""
    put_in = look(scene, scene.world.first)
    assert len(put_in.items) == 13
    assert {data for _subject, _folder, data in put_in.items.values()} >= {LARGE}
    subjects = {subject: (folder, data) for subject, folder, data in put_in.items.values()}
    owners = {data: upn for (upn, _id), (_subject, _folder, data) in put_in.items.items()}
    ATTACKS[attack](scene)
    come_out = look(scene, scene.world.process("cold"))
    for (upn, _item), (subject, folder, data) in come_out.items.items():
        assert owners[data] == upn
        if subject:
            assert folder in {"", subjects[subject][0]}
            assert data == subjects[subject][1]
    assert all(isinstance(error, IntegrityFailure | NotFound | KeyDenied) for error in come_out.refused if error.code != "not_the_owner")


def test_items_change_folders_at_most_R_251(scene: Scene) -> None:
    """R-251: a folder of the same mailbox is the one thing a row can say of an item; the name itself is sealed."""
    scene.box(BOB).add(message(7, body="elsewhere"), folder="Other")
    scene.world.sql("UPDATE items SET folder_id = (SELECT max(id) FROM folders WHERE mailbox_id = items.mailbox_id)")
    assert {item.folder for item in scene.box(BOB).items()} <= {"Folder 1", "Other"}


def test_a_move_of_forged_rows_moves_nothing_of_others_R_096(scene: Scene) -> None:
    """R-096: the job that re-encrypts opens each item as what it is; another tenant's box or key stops it."""
    second = scene.contoso.policy("Second", keys=scene.contoso.own_keys("second"))
    ATTACKS["places across tenants"](scene)
    scene.contoso.assign(second, scene.alice, wait=False)
    run_due(scene.world.services)
    status = scene.contoso.admin.call("mailbox.move-status", m.NameMailbox(upn=ALICE))
    assert status.state == "failed"
    shown = look(scene, scene.world.process("cold"))
    assert not any("body 3" in data.decode(errors="replace") for (upn, _id), (_s, _f, data) in shown.items.items() if upn == ALICE)


def test_a_job_for_another_tenants_policy_gives_that_tenant_nothing_R_090(scene: Scene) -> None:
    """R-090: forged job and mailbox rows that send a mailbox under another tenant's policy are refused before a key is re-wrapped."""
    wrapped = scene.world.sql("SELECT wrapped FROM mailbox_keys WHERE mailbox_id = ?", scene.id_of(ALICE))
    scene.contoso.assign("Mail", scene.alice, wait=False)
    scene.world.sql("UPDATE mailboxes SET pending_policy_id = ? WHERE upn = ?", scene.other.id, ALICE)
    scene.world.sql(
        "UPDATE jobs SET parameters = ?, subject_id = ? WHERE state = 'queued'", f'{{"policy_id": "{scene.other.id}"}}', scene.other.id
    )
    run_due(scene.world.services)
    assert scene.world.sql("SELECT wrapped FROM mailbox_keys WHERE mailbox_id = ?", scene.id_of(ALICE)) == wrapped
    assert len(scene.alice.items()) == 4


def test_an_old_policy_version_in_place_of_the_new_is_the_same_key_at_most_R_155(scene: Scene) -> None:
    """R-155: rolled-back copies open with the older key versions as long as the customer lets these open; closing the key closes them too."""
    names = "version_id, role, key_uri, algorithm, envelope"
    old = scene.world.sql(f"SELECT {names} FROM policy_copies WHERE version_id = ?", scene.mail.version_id)  # noqa: S608 - ours
    scene.contoso.admin.call("policy.refresh", p.NamePolicy(policy="Mail"))
    for row in old:
        scene.world.sql(f"INSERT INTO policy_copies ({names}) VALUES (?, ?, ?, ?, ?)", *row)  # noqa: S608
    scene.world.sql("UPDATE policies SET version_id = ? WHERE id = ?", scene.mail.version_id, scene.mail.id)
    assert len(scene.alice.items()) == 4
    for vault in ("contosov1", "contosov2"):
        scene.contoso.deny(vault)
    scene.world.clock.advance(61_000)
    with pytest.raises(KeyDenied):
        scene.alice.items()
