"""Two processes of a home that is no dev home, and whoever signs in there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from keystead.api.types import mailboxes as m
from keystead.api.types import tenants as t
from keystead.api.types import tokens as k
from keystead.core.access.principal import Principal, Role
from keystead.core.errors import KeysteadError, Throttled, Unauthenticated
from keystead.ports.tx import AuditQuery
from keystead.services.sign_in import sign_in
from support.tokens import Issuer, PretendedIssuers
from support.world import World

if TYPE_CHECKING:
    from pathlib import Path

    from keystead.client.client import Client
    from keystead.core.audit.record import AuditRecord
    from support.world import Process

OPERATOR = Principal("operator@provider.example", None, frozenset({Role.OPERATOR}))
ADMIN, ALICE = "admin@contoso.example", "alice@contoso.example"
LOGIN = "https://login.contoso.example"
HERE = "198.51.100.7"


class Scene:
    """Two processes of a home that is no dev home; `contoso` with an administrator and alice, who has a mailbox."""

    tenant: str
    admin_token: str
    alice_token: str

    def __init__(self, path: Path, like: Scene | None = None) -> None:
        self.world: World = World(path, like=None if like is None else like.world)
        self.issuers = PretendedIssuers()
        self.home = self.world.process("one", dev=False, issuers=self.issuers)
        self.other = self.world.process("two", dev=False, issuers=self.issuers)
        self.clock = self.world.clock
        if like is not None:
            self.tenant, self.admin_token, self.alice_token = like.tenant, like.admin_token, like.alice_token
            return
        made = self.home.client(OPERATOR).call("tenant.create", t.CreateTenant(name="Contoso", domain="contoso.example", geo=["EUR"]))
        self.tenant = made.id
        self.admin_token = self.claim(made.claim_token, ADMIN)
        person = self.admin.call("user.add", t.AddUser(upn=ALICE, roles=["user"]))
        self.alice_token = self.claim(person.claim_token, ALICE)
        self.admin.call("mailbox.create", m.CreateMailbox(upn=ALICE))

    def claim(self, token: str, upn: str) -> str:
        answer: t.TokenView = self.home.client().call("user.claim", t.ClaimToken(claim_token=token, upn=upn))
        return answer.token

    def by(self, token: str, process: Process | None = None, tenant: str = "") -> Client:
        """Whoever a token is by now, in a process."""
        at = process or self.home
        return at.client(sign_in(at.services, token, HERE), tenant)

    @property
    def admin(self) -> Client:
        return self.by(self.admin_token)

    def service(self, *scopes: str, by: str = "", **more: Any) -> str:
        view: t.TokenView = self.by(by or self.admin_token).call(
            "token.create", k.CreateToken(name="Importer", scopes=list(scopes), **more)
        )
        return view.token

    def exchange(self, token: str, *scopes: str, process: Process | None = None) -> str:
        view: k.AccessTokenView = (process or self.home).client().call("token.exchange", k.ExchangeToken(token=token, scopes=list(scopes)))
        return view.access_token

    def refused(self, token: str, process: Process | None = None, ip: str = "") -> str:
        """The code of the refusal."""
        with pytest.raises((Unauthenticated, Throttled)) as caught:
            sign_in((process or self.home).services, token, ip)
        return caught.value.code

    def id_of(self, token: str) -> str:
        return sign_in(self.home.services, token, "").token_id

    def log(self, operation: str, tenant: str | None = None) -> list[AuditRecord]:
        with self.home.services.db.read() as tx:
            return tx.audit.search(AuditQuery(tenant_id=self.tenant if tenant is None else tenant, operations=(operation,), limit=1000))

    # -- a provider of the tenant --------------------------------------------------------------------------------------------------

    def provider(self, name: str = LOGIN, **issuer: Any) -> Issuer:
        made = self.issuers.issuers.get(name) or self.issuers.add(Issuer(name, **issuer))
        self.admin.call("sign-in-provider.set", k.SetSignInProvider(issuer=name, audience="keystead"))
        return made

    def claims(self, **changes: Any) -> dict[str, Any]:
        now = self.clock.now() // 1_000
        usual = {"iss": LOGIN, "aud": "keystead", "sub": "1", "preferred_username": ALICE, "iat": now, "exp": now + 600}
        return {name: value for name, value in (usual | changes).items() if value is not None}


def code_of(client: Client, name: str, request: Any = None) -> str:
    with pytest.raises(KeysteadError) as caught:
        client.call(name, request)
    return caught.value.code
