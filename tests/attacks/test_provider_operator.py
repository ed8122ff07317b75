"""Somebody of the provider, outside a dev home: every command, every setting, everything that could show a key."""

from __future__ import annotations

import copy
import io
import pickle
import traceback
from dataclasses import fields
from typing import TYPE_CHECKING

import pytest

from attacks.test_another_tenant import filled
from keystead.api.call import Upload
from keystead.api.routes import ROUTES, Body, Scope
from keystead.api.types import policies as p
from keystead.api.types import tenants as t
from keystead.api.types import vaults as v
from keystead.api.types import watching as w
from keystead.core.access.principal import NOBODY, PROVIDER_ROLES, Principal, Role
from keystead.core.door import key_bytes
from keystead.core.errors import Forbidden, InvalidRequest, KeysteadError, Unauthenticated
from keystead.core.keys.decide import Operation
from keystead.core.secret import SecretKey
from keystead.core.settings import LIMITS, Settings
from keystead.settings import parse_setting
from support.world import signed_in

if TYPE_CHECKING:
    from attacks.conftest import Scene
    from keystead.client.client import Client

REQUEST_ID = "11111111-1111-4111-8111-111111111111"


def operator(scene: Scene, *roles: Role) -> Client:
    process = scene.world.process("no dev home", dev=False)
    return process.client(Principal("operator@provider.example", None, frozenset(roles or {Role.OPERATOR})), scene.contoso.id)


@pytest.mark.parametrize("role", sorted(PROVIDER_ROLES))
def test_the_providers_people_call_nothing_of_a_tenant_R_193(scene: Scene, role: Role) -> None:
    """R-193, R-138: of all routes about a tenant only rolls of availability keys are the operator's, and they show an id."""
    client = operator(scene, role)
    for route in ROUTES:
        if route.scope is not Scope.TENANT or (route.name in {"keystore.roll", "keystore.roll-files"} and role is Role.OPERATOR):
            continue
        upload = Upload(1, lambda _n: b"x") if route.body is Body.UPLOAD else None
        with pytest.raises(Forbidden):
            client.call(route.name, filled(route.request, scene), upload=upload)


def test_rolling_an_availability_key_is_on_the_tenants_log_and_opens_nothing_R_152(scene: Scene) -> None:
    """R-152, R-138: the one act on a tenant's keys; the tenant sees it, and the answer is an id."""
    answer = operator(scene).call("keystore.roll", p.NamePolicy(policy="Mail"))
    rolled = [one for one in scene.contoso.audit() if one.object_id == scene.mail.id and one.user_id == "operator@provider.example"]
    assert len(rolled) == 1
    assert rolled[0].external_access
    assert len(answer.id) == 36


def test_dev_tools_are_not_there_outside_dev_homes_R_193(scene: Scene) -> None:
    """R-193: no clock, no faults, no people by name; and a claim token is not shown to a dev principal by mistake."""
    client = operator(scene)
    for name, request in (
        ("dev.clock.advance", w.AdvanceClock(milliseconds=1)),
        ("dev.fault", w.SetFault(vault="contosov1", fault="none")),
    ):
        with pytest.raises(Forbidden) as caught:
            client.call(name, request)
        assert caught.value.code == "dev_homes_only"


def test_the_operator_redeems_no_claim_of_a_person_silently_R_010(scene: Scene) -> None:
    """R-010: the operator has a new tenant's first token, hands it over, and whoever redeems it is named on the tenant's log."""
    made = operator(scene).call("tenant.create", t.CreateTenant(name="New", domain="new.example", geo=["EUR"]))
    process = scene.world.process("claims", dev=False)
    token = process.client(NOBODY).call("user.claim", t.ClaimToken(claim_token=made.claim_token, upn="first@new.example")).token
    admin = process.client(signed_in(process.services, token))
    log = admin.call("audit.search", w.SearchAudit())
    assert "first@new.example" in {one.object_id for one in log}
    with pytest.raises(Unauthenticated):
        process.client(NOBODY).call("user.claim", t.ClaimToken(claim_token=made.claim_token, upn="operator@new.example"))


@pytest.mark.parametrize("setting", sorted(LIMITS))
def test_no_setting_takes_a_promise_away_R_141(scene: Scene, setting: str) -> None:
    """R-141: every number has a lowest and a highest value; beyond them a revocation would be obeyed next year, or never."""
    client = operator(scene)
    low, high = LIMITS[setting]
    for value in (str(high + 1), "99999999999999d", *([str(low - 1)] if low else [])):
        with pytest.raises(InvalidRequest) as caught:
            client.call("settings.set", w.SetSetting(name=setting, value=value))
        assert caught.value.code == "setting_out_of_range"
    for number in (low, high, getattr(Settings(), setting)):
        assert parse_setting(setting, str(number)) == number


def test_every_number_has_limits_and_every_change_is_recorded_R_141(scene: Scene) -> None:
    """R-141: what the operator changes is on the installation's log with its value."""
    numbers = {field.name for field in fields(Settings) if not isinstance(getattr(Settings(), field.name), bool)}
    assert set(LIMITS) == numbers
    operator(scene).call("settings.set", w.SetSetting(name="probe_interval", value="1h"))
    rows = scene.world.sql("SELECT parameters, user_id FROM audit_records WHERE operation = 'Set-KeysteadSetting'")
    assert [("probe_interval" in row[0], "3600000" in row[0], row[1]) for row in rows] == [(True, True, "operator@provider.example")]


def opened_things(scene: Scene) -> list[object]:
    """Everything that has a key inside or behind it."""
    services = scene.world.services
    scene.alice.items()
    opened = services.keyring.open(scene.mail.id, Operation.USER, request_id=REQUEST_ID)
    wrapped = scene.world.sql("SELECT version, wrapped FROM mailbox_keys WHERE mailbox_id = ?", scene.id_of(scene.alice.upn))
    children = [opened.mailbox_keys(scene.id_of(scene.alice.upn), version, bytes(blob)) for version, blob in wrapped]
    return [
        opened,
        opened.keys,
        *children,
        services,
        services.keyring,
        services.keystore,
        scene.world.vault,
        scene.world.vault.seal,
        scene.world.vault.loaded,
        scene.world.dispatcher,
        scene.world.master,
    ]


def test_nothing_shows_key_bytes_R_138(scene: Scene) -> None:
    """R-138: neither repr nor str, in any usual encoding, of anything that holds a key; nor a pickle or copy of it."""
    things = opened_things(scene)
    text = "".join(f"{thing!r} {thing} {vars(thing) if hasattr(thing, '__dict__') else ''}" for thing in things)
    lookups = [getattr(thing, name) for thing in things for name in ("lookup", "wrap", "seal") if hasattr(thing, name)]
    keys = [scene.world.master, scene.world.seal, *(key for key in lookups if isinstance(key, SecretKey))]
    assert len(keys) > 2
    for key in keys:
        material = key_bytes(key)
        for shown in (material.hex(), repr(material)[2:-1], str(list(material))):
            assert shown not in text
    for thing in things[:3]:
        for act in (pickle.dumps, copy.deepcopy):
            with pytest.raises(TypeError):
                act(thing)


def test_traces_of_failures_show_no_key_bytes_and_no_content_R_138(scene: Scene) -> None:
    """R-138: what --debug prints when things go wrong inside the key handling: no key, no subject, no body."""
    scene.alice.items()
    scene.world.sql("UPDATE items SET summary = zeroblob(200), object_ref = 'x'")
    scene.world.sql("UPDATE policy_copies SET envelope = zeroblob(100) WHERE role = 'primary'")
    shown = io.StringIO()
    for act in (
        scene.alice.items,
        lambda: scene.alice.read(str(scene.world.sql("SELECT id FROM items LIMIT 1")[0][0])),
        lambda: scene.contoso.admin.call("mailbox.search", scene_search()),
        lambda: scene.contoso.admin.call("policy.create", p.CreatePolicy(name="a b", keys=["x", "y"])),
        lambda: scene.contoso.admin.call(
            "key.import", v.KeyImport(vault="contosov1", name="x", pem="-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n")
        ),
    ):
        try:
            act()
        except KeysteadError as error:
            traceback.print_exception(error, file=shown)
    text = shown.getvalue()
    assert text
    for secret in ("body 0", "alice@contoso.example 1", scene.world.master._expose().hex(), "c2VjcmV0"):
        assert secret not in text


def scene_search() -> object:
    from keystead.api.types import mailboxes as m  # noqa: PLC0415 - beside its one use

    return m.Search(text="body 0")


def test_the_log_the_alerts_and_the_jobs_hold_no_content_R_206(scene: Scene) -> None:
    """R-206: whatever was imported, searched, refused and moved: ids and directory names only."""
    scene.contoso.admin.call("mailbox.search", scene_search())
    second = scene.contoso.policy("Second", keys=scene.contoso.own_keys("second"))
    scene.contoso.assign(second, scene.alice)
    for table in ("audit_records", "alerts", "jobs", "policies", "policy_states", "mailboxes", "objects", "settings"):
        text = repr(scene.world.sql(f"SELECT * FROM {table}"))  # noqa: S608 - ours
        assert not any(secret in text for secret in ("body 0", "alice@contoso.example 1", "Folder 0", "Large")), table
