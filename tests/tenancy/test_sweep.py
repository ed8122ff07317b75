"""Every row of ROUTES, called by everybody who may not: refused, recorded, and nothing has changed (R-008 to R-010, R-193)."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from keystead.adapters.sql import keystead_schema, vault_schema
from keystead.api.call import Upload
from keystead.api.routes import BY_NAME, ROUTES, Body, Route, Scope
from keystead.api.types import mailboxes as m
from keystead.api.types.sites import CreateSite, FileView, UploadFile
from keystead.api.types.vault_clients import ClientCreate
from keystead.core.access.principal import NOBODY, PROVIDER_ROLES, TENANT_ROLES, Principal, Role
from keystead.core.access.roles import ALLOWED, ANYBODY, CONTENT
from keystead.core.access.tokens import TokenKind
from keystead.core.errors import Forbidden, KeysteadError, NotFound, PreconditionFailed, Unauthenticated
from keystead.ports.tx import AuditQuery
from keystead.services.tokens import issue
from support.world import OPERATOR, World

if TYPE_CHECKING:
    from collections.abc import Iterator

    from keystead.core.audit.record import AuditRecord
    from support.world import TenantWorld

TENANT_ROUTES = [route for route in ROUTES if route.scope is Scope.TENANT]
PROVIDER_ROUTES = [route for route in ROUTES if route.scope is Scope.PROVIDER]
OPEN_TO_ALL_PEOPLE = {"tenant.show", "vault.list", "vault.show", "vault.deleted", "token.list", "site.list"}
"""What any person of a tenant may see of it: that it is there, which key vaults it has, the person's own tokens and sites."""


@dataclass(frozen=True)
class Scene:
    """Two tenants; the first has something of everything."""

    world: World
    contoso: TenantWorld
    fabrikam: TenantWorld
    names: dict[str, Any]

    def request(self, route: Route) -> Any:
        """A request that would be granted to the right person: every field that is named here, as the row's type wants it."""
        if route.name == "mailbox.import":
            item = m.ImportItem(position=1, ordinal=1, folder="Inbox", data=b"Subject: smuggled\r\n\r\n")
            return m.ImportBatch(upn=self.names["upn"], items=[item])
        values = self.names | SPECIAL.get(route.name, {})
        fields = msgspec.structs.fields(route.request)
        chosen = {field.name: values[field.name] for field in fields if field.required or field.name in SPECIAL.get(route.name, {})}
        return msgspec.convert(chosen, route.request)

    def call(self, route: Route, principal: Principal, tenant: str) -> Any:
        """Run the row; the first chunk of what is streamed, too."""
        upload = Upload(3, io.BytesIO(b"abc").read) if route.body is Body.UPLOAD else None
        answer = self.world.dispatcher.run(route, self.request(route), principal=principal, tenant=tenant, upload=upload)
        return b"".join(answer.chunks) if route.body is Body.DOWNLOAD else answer

    def recorded(self, tenant_id: str, upn: str) -> list[AuditRecord]:
        with self.world.services.db.read() as tx:
            return tx.audit.search(AuditQuery(tenant_id=tenant_id, users=(upn,), limit=5000))

    def refused(self, route: Route, principal: Principal, tenant: str, *kinds: type[KeysteadError]) -> KeysteadError:
        """The call is refused with one of these, the log of the tenant says so, and no table has changed."""
        before, records = self.tables(), len(self.recorded(self.contoso.id, principal.upn))
        with pytest.raises(kinds) as caught:
            self.call(route, principal, tenant)
        if not isinstance(caught.value, NotFound):
            written = self.recorded(self.contoso.id, principal.upn)
            assert len(written) == records + 1, (route.name, principal)
            assert written[0].result_status == "Failed"
            assert dict(written[0].parameters)["Route"] == route.name
            assert dict(written[0].parameters)["Code"] == caught.value.code
        assert self.tables() == before, (route.name, principal)
        return caught.value

    def tables(self) -> dict[str, int]:
        """A fingerprint of every table but the logs."""
        found = {}
        for name, schema in (("keystead", keystead_schema), ("vault", vault_schema)):
            for table in schema.METADATA.tables.keys() - {"audit_records", "vault_log"}:
                rows = self.world.stores.sql(name, f"SELECT * FROM {table}")  # noqa: S608 - the schema's own names
                found[f"{name}.{table}"] = hash(tuple(sorted(map(repr, rows))))
        return found


SPECIAL: dict[str, dict[str, Any]] = {
    "subscription.create": {"name": "smuggled-s"},
    "subscription.protect": {"name": "contoso-s1"},
    "subscription.cancel": {"name": "contoso-s1"},
    "vault.create": {"name": "smuggledvault"},
    "vault.access.grant": {"upn": "outsider@fabrikam.example", "permissions": ["get"]},
    "vault.access.revoke": {"principal": "mail", "permissions": ["get"]},
    "vault.client.create": {"name": "smuggled"},
    "vault.fail-over": {"read_only": False},
    "vault.network.allow": {"range": "203.0.113.0/24"},
    "vault.network.remove": {"range": "203.0.113.0/24"},
    "vault.network.default": {"action": "allow"},
    "key.rotation-policy.set": {"lifetime_actions": [{"action": "Rotate", "time_after_create": "P90D"}]},
    "key.create": {"name": "smuggled"},
    "key.import": {"name": "smuggled"},
    "key.restore": {"blob": "AAAA"},
    "site.put-batch": {"files": [{"path": "smuggled.txt", "data": b"abc"}]},
    "site.set": {"shared": True},
    "policy.create": {"name": "Smuggled"},
    "policy.validate": {"name": "Smuggled"},
    "policy.set": {"description": "changed"},
    "mailbox.create": {"upn": "smuggled@contoso.example"},
    "mailbox.assign": {"upns": ["alice@contoso.example"]},
    "user.add": {"upn": "smuggled@contoso.example", "roles": ["global-admin"]},
}
"""Fields that mean another thing on these rows, or are not required."""


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory, database: str) -> Iterator[Scene]:
    world = World(tmp_path_factory.mktemp("world"))
    contoso = world.tenant("contoso.example")
    fabrikam = world.tenant("fabrikam.example", ready=False)
    policy = contoso.policy("Mail")
    alice = contoso.mailbox("alice", messages=1)
    contoso.mailbox("bob", messages=1)
    job = contoso.assign(policy, alice, wait=False)
    with world.services.db.write() as tx:
        token = issue(world.services, tx, TokenKind.SIGN_IN, alice.upn, contoso.id)
    client = contoso.admin.call("vault.client.create", ClientCreate(name="backup-job"))
    site = "https://contoso.example/sites/plans"
    contoso.admin.call("site.create", CreateSite(url=site, owner=alice.upn, private=True))
    put: FileView = alice.owner.call("site.put", UploadFile(site=site, path="plan.txt"), upload=Upload(3, io.BytesIO(b"abc").read))
    names = {
        "site": site,
        "url": "https://contoso.example/sites/smuggled",
        "path": "plan.txt",
        "to": "moved.txt",
        "files": [put.id],
        "member": "bob@contoso.example",
        "version": 1,
        "primary": contoso.keys[0],
        "secondary": contoso.keys[1],
        "which": "primary",
        "client": client.name,
        "secret": client.secret_id,
        "upn": alice.upn,
        "item": alice.items()[0].id,
        "policy": "Mail",
        "job": job.id,
        "vault": "contosov1",
        "name": "root",
        "key": contoso.keys[0],
        "keys": contoso.keys,
        "subscription": "contoso-s1",
        "subscriptions": ["contoso-s1", "contoso-s2"],
        "region": "westeurope",
        "workload": "mail",
        "delegate": "outsider@fabrikam.example",
        "text": "body",
        "pem": rsa.generate_private_key(65537, 2048).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode(),
        "hook": "phone",
        "position": 1,
        "ordinal": 1,
        "folder": "Inbox",
        "scopes": ["mailbox.*"],
        "id": token.token.id,
        "issuer": "https://login.example",
        "audience": "keystead",
        "tenant": contoso.id,
    }
    yield Scene(world, contoso, fabrikam, names)
    world.close()


def named(route: Route) -> str:
    return route.name


@pytest.mark.parametrize("route", TENANT_ROUTES, ids=named)
def test_nobody_gets_through(scene: Scene, route: Route) -> None:
    error = scene.refused(route, NOBODY, scene.contoso.domain, Unauthenticated)
    assert error.code == "not_signed_in"


@pytest.mark.parametrize("route", TENANT_ROUTES, ids=named)
def test_people_of_another_tenant_get_through_with_no_role(scene: Scene, route: Route) -> None:
    for role in sorted(TENANT_ROLES):
        outsider = Principal(f"{role}@fabrikam.example", scene.fabrikam.id, frozenset({role}), dev=True)
        assert scene.refused(route, outsider, scene.contoso.id, Forbidden).code == "another_tenant"
    everything = Principal("everything@fabrikam.example", scene.fabrikam.id, TENANT_ROLES, dev=True)
    for reference in (scene.contoso.id, scene.contoso.id.upper(), scene.contoso.domain, scene.contoso.domain.upper(), "Contoso"):
        assert scene.refused(route, everything, reference, Forbidden).code == "another_tenant"


@pytest.mark.parametrize("route", TENANT_ROUTES, ids=named)
def test_the_wrong_roles_of_the_own_tenant_do_not_get_through(scene: Scene, route: Route) -> None:
    for role in sorted(TENANT_ROLES - ALLOWED[route.name]):
        insider = Principal(f"{role}@contoso.example", scene.contoso.id, frozenset({role}), dev=True)
        assert scene.refused(route, insider, "", Forbidden).code == "role_missing"


@pytest.mark.parametrize("route", [route for route in TENANT_ROUTES if route.name not in OPEN_TO_ALL_PEOPLE], ids=named)
def test_a_colleague_without_roles_owns_nothing_and_gets_nothing(scene: Scene, route: Route) -> None:
    colleague = Principal("bob@contoso.example", scene.contoso.id, frozenset({Role.USER}), dev=True)
    scene.refused(route, colleague, "", Forbidden, NotFound)


@pytest.mark.parametrize("route", TENANT_ROUTES, ids=named)
def test_the_providers_people_get_through_to_a_tenant_in_dev_homes_only_and_never_to_content(scene: Scene, route: Route) -> None:
    """R-193."""
    for role in sorted(PROVIDER_ROLES):
        for dev in (False, True):
            if role is Role.OPERATOR and (route.name in {"keystore.roll", "keystore.roll-files"} or (dev and route.name not in CONTENT)):
                continue
            person = Principal(f"{role}-{dev}@provider.example", None, frozenset({role}), dev=dev)
            scene.refused(route, person, scene.contoso.id, Forbidden)


@pytest.mark.parametrize("route", PROVIDER_ROUTES, ids=named)
def test_the_installation_is_not_for_tenants_people(scene: Scene, route: Route) -> None:
    values = {"name": "probe_interval", "value": "1s", "domain": "smuggled.example", "geo": ["EUR"], "milliseconds": 1, "fault": "timeout"}
    request = msgspec.convert(
        {f.name: (scene.names | values)[f.name] for f in msgspec.structs.fields(route.request) if f.required}, route.request
    )
    callers = [NOBODY, *(Principal(f"{role}@contoso.example", scene.contoso.id, frozenset({role})) for role in sorted(TENANT_ROLES))]
    dev = route.name.startswith("dev.")  # in a dev home anybody may be the operator anyway, once they are somebody
    for caller in callers[:1] if dev else callers:
        before = scene.tables()
        with pytest.raises((Forbidden, Unauthenticated)) as caught:
            scene.world.dispatcher.run(route, request, principal=caller)
        assert scene.tables() == before
        (newest, *_others) = scene.recorded("", caller.upn)
        assert dict(newest.parameters)["Route"] == route.name
        assert dict(newest.parameters)["Code"] == caught.value.code


@pytest.mark.parametrize("name", ["dev.clock.advance", "dev.fault"])
def test_what_dev_homes_have_other_homes_refuse_to_everybody(scene: Scene, name: str) -> None:
    home = scene.world.process("not-dev", dev=False)
    values = {"milliseconds": 1_000, "vault": "contosov1", "fault": "timeout"}
    fields = msgspec.structs.fields(BY_NAME[name].request)
    request = msgspec.convert({field.name: values[field.name] for field in fields}, BY_NAME[name].request)
    operator = Principal("operator@provider.example", None, frozenset({Role.OPERATOR}))
    now = scene.world.clock.now()
    for caller, code in ((NOBODY, "not_signed_in"), (operator, "dev_homes_only")):
        with pytest.raises((Forbidden, Unauthenticated)) as caught:
            home.dispatcher.run(BY_NAME[name], request, principal=caller)
        assert caught.value.code == code
    assert scene.world.clock.now() == now
    assert scene.world.faults == {}


def test_every_row_has_its_roles_and_every_entry_its_row() -> None:
    rows = {route.name for route in ROUTES}
    assert set(ALLOWED) == rows
    assert len(ROUTES) == len(rows)
    assert rows >= CONTENT
    assert all(ALLOWED[route.name] for route in ROUTES), "a row that nobody may call is no row"


def test_only_public_rows_are_open_to_anybody() -> None:
    anybody = {route.name for route in ROUTES if ALLOWED[route.name] is ANYBODY}
    assert anybody == {"user.claim", "token.exchange", "token.renew", "signing-key.publish"}
    assert all(BY_NAME[name].scope is not Scope.TENANT for name in anybody)


def test_the_requests_of_the_sweep_are_plausible(scene: Scene) -> None:
    """The same requests by the right person are granted, or fail for what they say and not for who asks."""
    admin = Principal(f"admin@{scene.contoso.domain}", scene.contoso.id, frozenset({Role.GLOBAL_ADMIN}), dev=True)
    owner = Principal(scene.names["upn"], scene.contoso.id, frozenset({Role.USER}), dev=True)
    order = sorted(TENANT_ROUTES, key=lambda route: (route.changes, "delete" in route.name or "purge" in route.name, route.name))
    granted = set()
    for route in order:
        for person in (admin, owner, OPERATOR):
            try:
                scene.call(route, person, scene.contoso.id)
            except (Forbidden, Unauthenticated):
                continue
            except (KeysteadError, PreconditionFailed):
                granted.add(route.name)
                continue
            granted.add(route.name)
    assert granted == {route.name for route in TENANT_ROUTES}
