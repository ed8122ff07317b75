"""A person of one tenant, and nobody at all, against another tenant: by names, ids, spellings, and by what errors tell."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from keystead.api.call import Upload
from keystead.api.routes import ROUTES, Body, Scope
from keystead.api.types import mailboxes as m
from keystead.api.types import policies as p
from keystead.api.types import tenants as t
from keystead.api.types import vaults as v
from keystead.api.types import watching as w
from keystead.api.types.sites import UploadBatch
from keystead.core.access.principal import NOBODY
from keystead.core.errors import ChecksFailed, Conflict, Forbidden, InvalidRequest, KeysteadError, Refused, Unauthenticated
from keystead.services import tenants
from support.world import signed_in

if TYPE_CHECKING:
    from attacks.conftest import Scene
    from keystead.client.client import Client

DAVE = "dave@fabrikam.example"
THEIR_SITE = "https://fabrikam.example/sites/plans"
SECRETS = (b"body 3", b"Folder 3", b"dave@fabrikam.example 0")


def said(client: Client, name: str, request: Any) -> tuple[str, str]:
    """What an error tells, less what the caller gave."""
    with pytest.raises(KeysteadError) as caught:
        client.call(name, request)
    return type(caught.value).__name__, caught.value.code


def filled(kind: type[Any], scene: Scene) -> Any:
    """A request whose every text is another tenant's UPN, which is a name for most things and wrong for the rest."""
    known = {
        "upn": DAVE,
        "delegate": DAVE,
        "item": str(scene.world.sql("SELECT id FROM items WHERE mailbox_id = ?", scene.id_of(DAVE))[0][0]),
        "policy": scene.other.id,
        "vault": "fabrikamv1",
        "name": "root",
        "job": str(scene.world.sql("SELECT id FROM jobs WHERE tenant_id = ? LIMIT 1", scene.fabrikam.id)[0][0]),
        "key": scene.fabrikam.keys[0],
        "keys": scene.fabrikam.keys,
        "subscriptions": ["fabrikam-s1", "fabrikam-s2"],
        "subscription": "fabrikam-s1",
        "region": "westeurope",
        "workload": "mail",
        "roles": [],
        "items": [],
        "upns": [DAVE],
        "permissions": ["get"],
        "text": "body",
        "folder": "",
        "position": 1,
        "ordinal": 1,
        "pem": "",
        "blob": "",
        "scopes": ["mailbox.*"],
        "id": str(scene.world.sql("SELECT id FROM tokens WHERE upn = ?", DAVE)[0][0]),
        "issuer": "https://login.example",
        "audience": "keystead",
        "client": scene.client.id,
        "secret": scene.client.secret_id,
        "range": "203.0.113.0/24",
        "action": "Deny",
        "read_only": True,
        "site": THEIR_SITE,
        "url": THEIR_SITE,
        "path": "their plans.txt",
        "to": "ours.txt",
        "files": [] if kind is UploadBatch else ["11111111-1111-4111-8111-111111111111"],
        "member": DAVE,
        "version": 1,
        "primary": scene.fabrikam.keys[0],
        "secondary": scene.fabrikam.keys[1],
        "which": "primary",
    }
    needed = {field.name: known[field.name] for field in msgspec.structs.fields(kind) if field.required}
    named = {
        field.name: known[field.name] for field in msgspec.structs.fields(kind) if field.name in {"upn", "vault"} and field.name in known
    }
    return kind(**(named | needed))


@pytest.mark.parametrize("spelling", ["Fabrikam", "fabrikam.example", "FABRIKAM.example", "id", "ID"])
@pytest.mark.parametrize("who", ["admin@contoso.example", "alice@contoso.example", ""])
def test_no_route_answers_for_another_tenant_however_it_is_spelled_R_194(scene: Scene, who: str, spelling: str) -> None:
    """R-194: every row of ROUTES, by administrator, person and nobody, is refused before it looks at anything."""
    reference = {"id": scene.fabrikam.id, "ID": scene.fabrikam.id.upper()}.get(spelling, spelling)
    principal = tenants.impersonate(scene.world.services, who) if who else NOBODY
    client = scene.world.client(principal, reference)
    before = scene.world.sql(
        "SELECT count(*) FROM audit_records WHERE organization_id = ? AND result_status = 'Failed'", scene.fabrikam.id
    )[0][0]
    rows = [route for route in ROUTES if route.scope is Scope.TENANT]
    for route in rows:
        upload = Upload(1, lambda _n: b"x") if route.body is Body.UPLOAD else None
        with pytest.raises((Forbidden, Unauthenticated)) as caught:
            client.call(route.name, filled(route.request, scene), upload=upload)
        assert caught.value.code == ("another_tenant" if who else "not_signed_in"), route.name
    after = scene.world.sql("SELECT count(*) FROM audit_records WHERE organization_id = ? AND result_status = 'Failed'", scene.fabrikam.id)[
        0
    ][0]
    assert after - before == len(rows)


def test_in_ones_own_tenant_the_names_of_another_find_nothing_R_194(scene: Scene) -> None:
    """R-194: every row, asked about the caller's own tenant with the other's UPNs, ids, vaults, keys and jobs."""
    client = scene.world.client(tenants.impersonate(scene.world.services, "admin@contoso.example"), "contoso.example")
    before = {name: scene.world.sql(f"SELECT * FROM {name} ORDER BY 1, 2") for name in ("mailboxes", "items", "policies", "mailbox_keys")}  # noqa: S608
    for route in ROUTES:
        if route.scope is not Scope.TENANT:
            continue
        upload = Upload(1, lambda _n: b"x") if route.body is Body.UPLOAD else None
        try:
            answer = client.call(route.name, filled(route.request, scene), upload=upload)
        except KeysteadError:
            continue
        text = repr(answer).encode()
        assert not any(secret in text for secret in (*SECRETS, scene.fabrikam.id.encode(), b"admin@fabrikam.example")), route.name
    for name, rows in before.items():
        assert scene.world.sql(f"SELECT * FROM {name} ORDER BY 1, 2") == rows  # noqa: S608


def test_whether_something_of_another_tenant_exists_is_not_told_R_194(scene: Scene) -> None:
    """R-194: the errors for what another tenant has and for what nobody has are the same."""
    admin = scene.world.client(tenants.impersonate(scene.world.services, "admin@contoso.example"), "contoso.example")
    nothing = "11111111-1111-4111-8111-111111111111"
    job = str(scene.world.sql("SELECT id FROM jobs WHERE tenant_id = ? LIMIT 1", scene.fabrikam.id)[0][0])
    pairs: list[tuple[str, Any, Any]] = [
        ("mailbox.create", m.CreateMailbox(upn=DAVE), m.CreateMailbox(upn="nobody@fabrikam.example")),
        ("user.add", t.AddUser(upn=DAVE, roles=[]), t.AddUser(upn="nobody@fabrikam.example", roles=[])),
        ("user.remove", t.RemoveUser(upn=DAVE), t.RemoveUser(upn="nobody@fabrikam.example")),
        ("mailbox.statistics", m.NameMailbox(upn=DAVE), m.NameMailbox(upn="nobody@fabrikam.example")),
        (
            "mailbox.delegate",
            m.DelegateRequest(upn="carol@contoso.example", delegate=DAVE),
            m.DelegateRequest(upn="carol@contoso.example", delegate="x@fabrikam.example"),
        ),
        ("policy.show", p.NamePolicy(policy=scene.other.id), p.NamePolicy(policy=nothing)),
        ("policy.show", p.NamePolicy(policy=scene.other.version_id), p.NamePolicy(policy=nothing)),
        ("job.show", w.NameJob(job=job), w.NameJob(job=nothing)),
        ("job.cancel", w.NameJob(job=job), w.NameJob(job=nothing)),
        ("vault.show", v.VaultNamed(vault="fabrikamv1"), v.VaultNamed(vault="fabrikamv9")),
        ("vault.delete", v.VaultNamed(vault="fabrikamv1"), v.VaultNamed(vault="fabrikamv9")),
        ("key.show", v.KeyVersionNamed(vault="fabrikamv1", name="root"), v.KeyVersionNamed(vault="fabrikamv9", name="root")),
        ("key.deleted", v.VaultNamed(vault="fabrikamv1"), v.VaultNamed(vault="fabrikamv9")),
        ("subscription.protect", v.SubscriptionNamed(name="fabrikam-s1"), v.SubscriptionNamed(name="fabrikam-s9")),
    ]
    for name, theirs, nobodys in pairs:
        assert said(admin, name, theirs) == said(admin, name, nobodys), name
    alien = [f"https://{vault}.vault.localhost/keys/root" for vault in ("fabrikamv1", "fabrikamv9")]
    views = [admin.call("policy.validate", p.CreatePolicy(name="X", keys=[uri, scene.contoso.keys[0]])) for uri in alien]
    checks = [
        [(check.check, check.detail.replace(uri, "")) for check in view.failed_checks] for view, uri in zip(views, alien, strict=True)
    ]
    assert checks[0] == checks[1]
    assert admin.call("policy.key-uses", p.NameKey(key=scene.fabrikam.keys[0])).uses == []


def test_nobody_is_not_told_which_tenants_there_are_R_194(scene: Scene) -> None:
    """R-194: without a token the answer is the same for tenants that are there and that are not."""
    answers = {
        said(scene.world.client(NOBODY, name), "tenant.show", t.ShowTenant())
        for name in ("fabrikam.example", "nobody.example", scene.fabrikam.id)
    }
    assert answers == {("Unauthenticated", "not_signed_in")}


@pytest.mark.parametrize(
    "upn",
    [
        "ALICE@CONTOSO.EXAMPLE",
        "alice@contoso.example.",
        "alice@contoso.example ",
        " alice@contoso.example",
        "alice@contoso.example\n",
        "\u0430lice@contoso.example",  # Cyrillic
        "alice@\u0441ontoso.example",
        "alice@contoso.example\u200b",
        "al\u0131ce@contoso.example",  # dotless i
        "alice\u0040\u0040contoso.example",
        "alice@fabrikam.example@contoso.example",
        "\uff41lice@contoso.example",  # full width
    ],
)
def test_a_name_that_looks_like_another_is_that_one_or_none_R_194(scene: Scene, upn: str) -> None:
    """R-194: case does not matter, anything else makes it another name; no second person or mailbox can look like the first."""
    admin = scene.world.client(tenants.impersonate(scene.world.services, "admin@contoso.example"), "contoso.example")
    with pytest.raises((InvalidRequest, Conflict)) as caught:
        admin.call("mailbox.create", m.CreateMailbox(upn=upn))
    same = upn.lower() == "alice@contoso.example"
    assert caught.value.code == ("mailbox_exists" if same else "upn_invalid")
    if not same:
        with pytest.raises(InvalidRequest):
            admin.call("user.add", t.AddUser(upn=upn, roles=["global-admin"]))


def test_a_sign_that_folds_to_an_ascii_letter_names_the_ascii_one_R_194(scene: Scene) -> None:
    """R-194: the Kelvin sign becomes a k; what is stored and compared is the ASCII name, so nobody is two."""
    kelvin = "dave@fabri\u212aam.example"
    admin = scene.world.client(tenants.impersonate(scene.world.services, "admin@fabrikam.example"), "fabrikam.example")
    with pytest.raises((Conflict, InvalidRequest)):
        admin.call("mailbox.create", m.CreateMailbox(upn=kelvin))
    stranger = scene.world.client(tenants.impersonate(scene.world.services, "admin@contoso.example"), "contoso.example")
    with pytest.raises(InvalidRequest):
        stranger.call("mailbox.create", m.CreateMailbox(upn=kelvin))


def test_vault_names_are_global_and_nothing_else_of_a_vault_is_R_017(scene: Scene) -> None:
    """R-017: a name another tenant took is taken, whether that vault is there or deleted, and that is all there is to learn."""
    admin = scene.contoso.admin
    answers = set()
    for deleted in (False, True):
        if deleted:
            scene.fabrikam.admin.call("vault.delete", v.VaultNamed(vault="fabrikamv1"))
        with pytest.raises(Conflict) as caught:
            admin.call("vault.create", v.VaultCreate(name="FabrikamV1", subscription="contoso-s1", region="westeurope"))
        answers.add((caught.value.code, caught.value.inner_code, caught.value.detail))
    assert len(answers) == 1


def test_a_policy_never_gets_keys_of_another_tenants_vault_R_071(scene: Scene) -> None:
    """R-071: not even when that vault lets the service in, as the service is the same for all tenants."""
    with pytest.raises(ChecksFailed) as caught:
        scene.contoso.policy("Stolen", keys=[scene.fabrikam.keys[0], scene.contoso.keys[1]])
    assert {check.check for check in caught.value.failed} == {"key-registered"}


def test_cursors_of_another_tenant_show_nothing_of_it_R_206(scene: Scene) -> None:
    """R-206: `after` with the other tenant's ids."""
    theirs = {
        table: str(scene.world.sql(f"SELECT id FROM {table} WHERE {column} = ? ORDER BY sequence DESC LIMIT 1", scene.fabrikam.id)[0][0])  # noqa: S608 - ours
        for table, column in (("jobs", "tenant_id"), ("audit_records", "organization_id"))
    }
    admin = scene.contoso.admin
    assert all(
        record.organization_id == scene.contoso.id for record in admin.call("audit.search", w.SearchAudit(after=theirs["audit_records"]))
    )
    mine = {row[0] for row in scene.world.sql("SELECT id FROM jobs WHERE tenant_id = ?", scene.contoso.id)}
    assert {job.id for job in admin.call("job.list", w.ListJobs(after=theirs["jobs"]))} <= mine


def test_the_first_claim_of_a_tenant_makes_nobody_the_operator_R_010(scene: Scene) -> None:
    """R-010: where a tenant has the domain of the provider's own people, its claim token is not good for their names."""
    services = scene.world.services
    person, _token = tenants.make_operator(services, "operator@provider.example")
    process = scene.world.process("no dev home", dev=False)
    operator = process.client(signed_in(process.services, _token))
    made = operator.call("tenant.create", t.CreateTenant(name="Provider", domain="provider.example", geo=["EUR"]))
    assert made.claim_token is not None
    claimant = process.client(NOBODY)
    with pytest.raises(Refused):
        claimant.call("user.claim", t.ClaimToken(claim_token=made.claim_token, upn=person.upn))
    token = claimant.call("user.claim", t.ClaimToken(claim_token=made.claim_token, upn="first@provider.example")).token
    assert not signed_in(process.services, token).is_provider


def test_a_claim_token_is_good_once_and_for_its_holder_alone_R_010(scene: Scene) -> None:
    """R-010: used, for another name, of another domain, or in place of a real token: not good; nor is a removed person's token."""
    process = scene.world.process("no dev home", dev=False)
    admin = process.client(tenants.impersonate(process.services, "admin@contoso.example"))
    claim = admin.call("user.add", t.AddUser(upn="new@contoso.example", roles=[])).claim_token
    nobody = process.client(NOBODY)
    for upn in ("alice@contoso.example", DAVE, "operator@provider.example"):
        with pytest.raises((Unauthenticated, InvalidRequest)):
            nobody.call("user.claim", t.ClaimToken(claim_token=claim, upn=upn))
    assert signed_in(process.services, claim) is NOBODY
    token = nobody.call("user.claim", t.ClaimToken(claim_token=claim, upn="NEW@contoso.example")).token
    with pytest.raises(Unauthenticated):
        nobody.call("user.claim", t.ClaimToken(claim_token=claim, upn="new@contoso.example"))
    assert signed_in(process.services, token).upn == "new@contoso.example"
    admin.call("user.remove", t.RemoveUser(upn="new@contoso.example"))
    assert signed_in(process.services, token) is NOBODY
