"""Every row of ROUTES over both transports: the same answer, or an error of the same class and code with the same text."""

from __future__ import annotations

import io
import os
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from keystead.api.call import Content, Upload
from keystead.api.routes import BY_NAME, ROUTES, Body, Route
from keystead.api.types import mailboxes as m
from keystead.api.types import vaults as v
from keystead.api.types.sites import BatchFile, CreateSite, ListFiles, SiteMember, UploadBatch
from keystead.api.types.tokens import CreateToken
from keystead.api.types.vault_clients import ClientCreate
from keystead.client.client import Client
from keystead.client.http import HttpTransport
from keystead.core.access.principal import NOBODY, Principal
from keystead.core.access.tokens import TokenKind
from keystead.core.errors import ChecksFailed, KeysteadError
from keystead.frontends.http.app import Parts
from keystead.services import tenants
from keystead.services.tokens import issue
from support.http import running
from support.world import OPERATOR, World

if TYPE_CHECKING:
    from collections.abc import Iterator

    from keystead.frontends.http.credentials import Credentials

pytestmark = pytest.mark.xdist_group("http-transports")

LARGE = os.urandom(3 * 1024 * 1024)
CALLERS = ("", "operator@provider.example", "admin@contoso.example", "alice@contoso.example", "sam@fabrikam.example")
TENANTS = ("contoso.example", "", "no such / tenant")
LAST = (
    "mailbox.unassign", "mailbox.delete-item", "mailbox.delete", "site.rm", "site.delete", "job.cancel", "user.remove", "key.delete", "key.recover", "key.purge",
    "vault.delete", "vault.recover", "vault.purge", "subscription.cancel",
)  # fmt: skip
"""Rows that take something away from those before; in this order."""
ORDER = sorted(ROUTES, key=lambda route: LAST.index(route.name) if route.name in LAST else -1)


@dataclass(frozen=True)
class Named:
    """Stands for something that the fixture made."""

    name: str


@dataclass
class Both:
    """Two copies of one installation: the first is called locally, the second over HTTP."""

    near: World
    far: World
    url: str
    names: dict[str, Any]
    transports: dict[str, HttpTransport] = field(default_factory=dict)

    def principal(self, world: World, upn: str) -> Principal:
        if not upn:
            return NOBODY
        return OPERATOR if upn == OPERATOR.upn else tenants.impersonate(world.services, upn)

    def local(self, upn: str, tenant: str) -> Client:
        return self.near.client(self.principal(self.near, upn), tenant)

    def remote(self, upn: str, tenant: str) -> Client:
        if upn not in self.transports:
            self.transports[upn] = HttpTransport(self.url, token=upn)
        return Client(self.transports[upn], tenant)

    def request(self, route: Route) -> Any:
        if route.name == "mailbox.import":
            data = b"From: sam@fabrikam.example\r\nSubject: over the wire\r\n\r\n\x00\xff"
            return m.ImportBatch(upn=self.names["upn"], items=[m.ImportItem(position=1, ordinal=1, folder="In/box é", data=data)])
        special = SPECIAL.get(route.name, {})
        values = self.names | special | {name: self.names[value.name] for name, value in special.items() if isinstance(value, Named)}
        fields = msgspec.structs.fields(route.request)
        return msgspec.convert({one.name: values[one.name] for one in fields if one.required or one.name in special}, route.request)


SPECIAL: dict[str, dict[str, Any]] = {
    "settings.set": {"name": "slice_items", "value": "1000"},
    "dev.fault": {"fault": "none"},
    "tenant.create": {"name": "Fabrikam two", "domain": "fabrikam-two.example", "geo": ["EUR", "NAM"]},
    "subscription.create": {"name": "another-s", "kind": "trial"},
    "subscription.protect": {"name": "contoso-s1"},
    "subscription.cancel": {"name": "leaving-s"},
    "vault.create": {"name": "anothervault"},
    "vault.log": {"limit": 3, "after": 1, "operation": "VaultGet", "result": "success", "start": "2026-05-01T00:00:00Z"},
    "vault.client.create": {"name": "another-job", "lifetime": 86_400_000},
    "vault.client.delete": {"client": "leaving-job"},
    "vault.fail-over": {"read_only": False},
    "vault.network.allow": {"range": "2001:db8::/32"},
    "vault.network.remove": {"range": "2001:db8::/32"},
    "vault.network.default": {"action": "allow", "bypass": "None"},
    "key.rotation-policy.set": {"lifetime_actions": [{"action": "Rotate", "time_after_create": "P90D"}], "expiry_time": "P1Y"},
    "vault.access.grant": {"upn": "alice@contoso.example", "permissions": ["get", "list"]},
    "vault.access.revoke": {"upn": "alice@contoso.example", "permissions": ["list"]},
    "vault.delete": {"vault": "contosov2"},
    "vault.recover": {"vault": "contosov4"},
    "vault.purge": {"vault": "contosogone"},
    "key.create": {"name": "another", "ops": ["wrapKey", "unwrapKey"], "expires": "2027-01-01T00:00:00.5Z", "tags": {"für": "wen/alle"}},
    "key.import": {"name": "imported", "tags": {"a": "b"}},
    "key.list": {"limit": 2},
    "key.update": {"tags": {"changed": "yes"}, "expires": "2027-06-01T00:00:00Z"},
    "key.restore": {"vault": "contosov3"},
    "key.purge": {"vault": "contosofree", "name": "gone"},
    "key.delete": {"vault": "contosofree", "name": "leaving"},
    "key.recover": {"vault": "contosofree", "name": "back"},
    "policy.create": {"name": "Another", "description": "zwei / drei & vier = sieben"},
    "policy.validate": {"name": "Another"},
    "policy.set": {"description": "changed"},
    "policy.disable": {"policy": "Spare"},
    "policy.enable": {"policy": "Spare"},
    "mailbox.create": {"upn": "another+%40'x@contoso.example", "type": "shared"},
    "mailbox.list": {"after": "a", "limit": 2},
    "mailbox.assign": {"upns": ["bob@contoso.example"]},
    "mailbox.items": {"limit": 1},
    "mailbox.import-item": {"folder": "Große/Sachen & mehr?#", "ics": False, "malformed": "because of & = ?"},
    "mailbox.delete": {"upn": "bob@contoso.example"},
    "site.create": {"url": "https://Contoso.example/sites/another", "kind": "team", "private": True},
    "site.list": {"limit": 2, "geo": "EUR"},
    "site.set": {"quota_bytes": 12_345_678_901, "shared": False},
    "site.delete": {"site": "https://contoso.example/sites/leaving"},
    "site.member.add": {"member": "carol@contoso.example"},
    "site.ls": {"path": "Große & Kleine", "limit": 3},
    "site.put": {"path": "über/50% & mehr?#=+.bin", "parents": True, "modified": "2026-03-01T12:00:00.5Z", "media_type": "text/plain; charset=utf-8"},
    "site.put-batch": {"files": [{"path": "b/\u00e4 1.txt", "data": b"\x00\xff", "modified": "2026-03-01T12:00:00.5Z"}], "folders": ["leer"]},
    "site.get": {"offset": 1, "length": 5, "version": 1},
    "site.mkdir": {"path": "neu/er ordner", "parents": True},
    "site.mv": {"path": "moving.txt", "to": "moved & done.txt", "replace": True},
    "site.rm": {"path": "leaving", "recursive": True},
    "user.add": {"upn": "new@contoso.example", "roles": ["audit-reader", "user"]},
    "user.remove": {"upn": "leaving@contoso.example"},
    "audit.search": {"operations": ["MailItemsAccessed", "New-Mailbox"], "start": "2026-05-27T00:00:00Z", "users": ["admin@contoso.example"], "limit": 7},
    "job.cancel": {"job": Named("waiting")},
    "provider-token.revoke": {"id": Named("provider-id")},
    "audit.installation": {"limit": 5000},
    "job.list": {"states": ["queued", "done"], "limit": 5},
}  # fmt: skip
"""Fields that mean another thing on these rows, or are not required."""


NEVER_GRANTED = {
    "user.claim", "user.reissue-claim", "tenant.reissue-claim",  # in dev homes there is nothing to claim
    "sign-in-provider.set", "sign-in-provider.show", "sign-in-provider.remove",  # this installation names no issuers
    "alerts.test",  # nor any hook
    "keystore.roll-files", "files.register", "files.roll", "files.recover", "files.revert", "files.health", "site.status",  # nor customer keys for files
}  # fmt: skip
"""Rows that are compared by their refusals alone."""


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Both]:
    near = World(tmp_path_factory.mktemp("near"))
    contoso = near.tenant("contoso.example")
    fabrikam = near.tenant("fabrikam.example", ready=False)
    fabrikam.person("sam", "global-admin")
    policy = contoso.policy("Mail")
    contoso.policy("Spare", keys=contoso.own_keys("spare"))
    alice = contoso.mailbox("alice", messages=2)
    contoso.mailbox("bob")
    alice.add_large(LARGE)
    job = contoso.assign(policy, alice)
    waiting = contoso.assign(policy, contoso.mailbox("carol", messages=1), wait=False)
    contoso.admin.call("subscription.create", v.SubscriptionCreate(name="loose"))
    for vault, subscription in (
        ("contosov3", "contoso-s1"),
        ("contosov4", "contoso-s1"),
        ("contosofree", "loose"),
        ("contosogone", "loose"),
    ):
        contoso.make_vault(vault, subscription, "westeurope")
    for key in ("gone", "back", "leaving"):
        contoso.make_key("contosofree", key)
    for key in ("gone", "back"):
        contoso.admin.call("key.delete", v.KeyNamed(vault="contosofree", name=key))
    contoso.admin.call("subscription.create", v.SubscriptionCreate(name="leaving-s"))
    contoso.person("leaving", "user")
    for vault in ("contosov4", "contosogone"):
        contoso.admin.call("vault.delete", v.VaultNamed(vault=vault))
    client = contoso.admin.call("vault.client.create", ClientCreate(name="backup-job"))
    contoso.admin.call("vault.client.create", ClientCreate(name="leaving-job"))
    program = contoso.admin.call("token.create", CreateToken(name="program", scopes=["mailbox.*"]))
    provider = near.operator.call("provider-token.create", CreateToken(name="program", scopes=["tenant.*"]))
    with near.services.db.write() as tx:
        token = issue(near.services, tx, TokenKind.SIGN_IN, alice.upn, contoso.id).secret
    items = sorted(alice.items(), key=lambda item: item.size_bytes)
    backup = contoso.admin.call("key.backup", BY_NAME["key.backup"].request(vault="contosov1", name="root"))
    pem = rsa.generate_private_key(65537, 2048).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    site = "https://contoso.example/sites/plans"
    for url in (site, "https://contoso.example/sites/leaving"):
        contoso.admin.call("site.create", CreateSite(url=url, owner=alice.upn, private=True))
    contoso.admin.call("site.member.add", SiteMember(site=site, member="bob@contoso.example"))
    small = [BatchFile(path=path, data=path.encode()) for path in ("plan é.txt", "moving.txt", "leaving/it.txt", "Große & Kleine/x.txt")]
    alice.owner.call("site.put-batch", UploadBatch(site=site, files=small))
    listed = alice.owner.call("site.ls", ListFiles(site=site, path="plan é.txt"))
    names = {
        "site": site,
        "path": "plan é.txt",
        "files": [listed[0].id],
        "member": "bob@contoso.example",
        "version": 1,
        "primary": contoso.keys[0],
        "secondary": contoso.keys[1],
        "which": "primary",
        "upn": alice.upn,
        "item": items[-1].id,
        "policy": "Mail",
        "job": job.id,
        "vault": "contosov1",
        "name": "root",
        "key": contoso.keys[0],
        "keys": contoso.own_keys("for-another"),
        "subscription": "contoso-s1",
        "subscriptions": ["contoso-s1", "contoso-s2"],
        "region": "westeurope",
        "workload": "mail",
        "delegate": "bob@contoso.example",
        "text": "body",
        "pem": pem,
        "position": 1,
        "ordinal": 1,
        "folder": "Inbox",
        "claim_token": "ks_no-such",
        "milliseconds": 1,
        "tenant": "contoso.example",
        "token": token,
        "scopes": ["mailbox.*"],
        "id": program.id,
        "provider-id": provider.id,
        "waiting": waiting.id,
        "issuer": "https://login.contoso.example",
        "audience": "keystead",
        "hook": "pager",
        "client": client.name,
        "secret": client.secret_id,
        "blob": backup.blob,
    }
    near.close()
    far = World(tmp_path_factory.mktemp("far"), like=near)
    near = World(tmp_path_factory.mktemp("near-again"), like=near)

    def authenticate(shown: Credentials) -> Principal:
        return found.principal(far, shown.bearer)

    with running(Parts(far.dispatcher, authenticate, os.urandom)) as url:
        found = Both(near, far, url, names)
        yield found
        for transport in found.transports.values():
            transport.close()
    near.close()
    far.close()


def outcome(client: Client, route: Route, request: Any) -> Any:
    """What a call gives: the answer, or the error, as values that can be compared."""
    upload = Upload(len(LARGE), io.BytesIO(LARGE).read) if route.body is Body.UPLOAD else None
    try:
        answer = client.call(route.name, request, upload=upload)
        if isinstance(answer, Content):
            return ("content", answer.size, answer.media_type, b"".join(answer.chunks))
    except KeysteadError as error:
        failed = error.failed if isinstance(error, ChecksFailed) else ()
        return ("error", type(error), error.code, plain(error.detail), error.mend, failed)
    if route.name in {"audit.installation", "audit.search"}:
        # refusals from the network are bounded (test_service_refusals.py); calls in this process are not
        answer = [one for one in answer if one.result_status == "Succeeded"]
    lines = [plain(msgspec.json.encode(one).decode()) for one in (answer if isinstance(answer, list) else [answer])]
    return ("answer", sorted(lines))  # what was written in the same millisecond has no order


UNLIKE = (
    (re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"), "ID"),
    (re.compile(r"/[0-9a-f]{32}"), "/VERSION"),
    (re.compile(r'"version":"[0-9a-f]{32}"'), "VERSION"),
    (re.compile(r"-----BEGIN PUBLIC KEY-----[^-]+"), "PUBLIC KEY"),
    (re.compile(r'"(blob|token|claim_token|access_token|client_secret)":"[^"]+"'), "SECRET"),
    (re.compile(r'"client_ip":"127.0.0.1"'), '"client_ip":""'),
    (re.compile(r'"caller_ip_address":"127.0.0.1"'), '"caller_ip_address":""'),
    (re.compile(r'"x":"[^"]+"'), "X"),
    (re.compile(r'"home":"[^"]+"'), "HOME"),
    (re.compile(r"MailAvailability[^\"]*"), "KEY"),
)


def plain(text: str) -> str:
    """A text without what two installations make up by chance."""
    for pattern, name in UNLIKE:
        text = pattern.sub(name, text)
    return text


@pytest.mark.parametrize("route", ORDER, ids=lambda route: route.name)
def test_both_transports_answer_the_same(both: Both, route: Route) -> None:
    request = both.request(route)
    granted = False
    for upn in CALLERS:
        for tenant in TENANTS if upn in {"", OPERATOR.upn} else TENANTS[:1]:
            for world in (both.near, both.far):
                world.clock.advance(1)
            near = outcome(both.local(upn, tenant), route, request)
            far = outcome(both.remote(upn, tenant), route, request)
            assert far == near, (upn, tenant)
            granted = granted or near[0] != "error"
    assert granted == (route.name not in NEVER_GRANTED)
