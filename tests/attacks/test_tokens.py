"""Forged, stolen, stretched and mangled tokens: each is refused with a code of its own, and none ever becomes anybody else."""

from __future__ import annotations

import hashlib
import hmac
import json
from dataclasses import fields
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from keystead.api.types import mailboxes as m
from keystead.api.types import tenants as t
from keystead.api.types import tokens as k
from keystead.core.access.principal import Principal, Role
from keystead.core.access.tokens import MAX_TOKEN_BYTES, read_jwt
from keystead.core.errors import Forbidden, KeysteadError, Unauthenticated
from keystead.core.ids import new_id
from keystead.ports.clock import MINUTE
from keystead.services.sign_in import sign_in
from support.sign_in import ADMIN, ALICE, HERE, LOGIN, OPERATOR, Scene
from support.tokens import Issuer, decoded, encoded, jwt, parts, public_jwk, signer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from support.tokens import Signer


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """One installation for all attacks: they change nothing, and that is the point."""
    scene = Scene(tmp_path_factory.mktemp("made"))
    scene.provider()
    yield scene
    scene.world.close()


@pytest.fixture
def scene(made: Scene) -> Scene:
    made.home.services.sign_in.__init__()  # type: ignore[misc]  # nobody has failed yet
    return made


class Own:
    """Our own access token, and the key it was signed with, for attacks that start from it."""

    def __init__(self, scene: Scene, *scopes: str, token: str = "") -> None:
        self.scene = scene
        self.token = scene.exchange(token or scene.alice_token, *scopes)
        self.header, self.claims, self.signature = parts(self.token)
        services = scene.home.services
        assert services.sign_in.signer is not None
        self.key: Ed25519PrivateKey = services.sign_in.signer[1]

    def signed(self, header: dict[str, Any] | None = None, **claims: Any) -> str:
        """The same with other claims, rightly signed, as a thief of the signing key could: what else is checked?"""
        changed = {name: value for name, value in (self.claims | claims).items() if value is not None}
        return jwt(self.header | (header or {}), changed, self.key.sign)


# -- our own access tokens ------------------------------------------------------------------------------------------------------------


def test_the_key_in_the_tests_hands_is_the_real_one(scene: Scene) -> None:
    assert sign_in(scene.home.services, Own(scene).signed(jti="another"), HERE).upn == ALICE


ALGORITHMS = ("none", "None", "NONE", "nOnE", "", "HS256", "HS384", "HS512", "RS256", "ES256", "EdDSA", "Ed448", "ed25519", "dir", "A128KW")


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_no_other_algorithm_is_taken(scene: Scene, algorithm: str) -> None:
    own = Own(scene)
    raw = own.key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    pem = own.key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    secrets = (raw, pem, encoded(raw).encode(), json.dumps(public_jwk(own.key)).encode(), b"")
    forged = [jwt(own.header | {"alg": algorithm}, own.claims, _hmac(secret)) for secret in secrets]
    forged += [jwt(own.header | {"alg": algorithm}, own.claims, b""), own.signed({"alg": algorithm})]
    assert {scene.refused(token) for token in forged} == {"token_algorithm_refused"}


def _hmac(secret: bytes) -> Signer:
    return lambda message: hmac.digest(secret, message, hashlib.sha256)


def test_hmac_with_the_public_key_under_the_right_algorithms_name_is_no_signature(scene: Scene) -> None:
    own = Own(scene)
    raw = own.key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    for signature in (_hmac(raw), b"", b"\0" * 64, own.signature[:63], own.signature + b"\0", own.signature[::-1]):
        assert scene.refused(jwt(own.header, own.claims, signature)) == "token_signature_invalid"


def test_every_bit_of_claims_and_header_is_signed(scene: Scene) -> None:
    own = Own(scene, "mailbox.read")
    header, _claims, signature = own.token.split(".")
    with scene.home.services.db.read() as tx:
        admin = tx.tenants.person(ADMIN)
    assert admin is not None
    wider: list[dict[str, Any]] = [
        {"scope": "mailbox.*"},
        {"scope": "mailbox.read user.add"},
        {"sub": admin.id},
        {"sid": scene.id_of(scene.admin_token)},
        {"tenant": ""},
        {"exp": own.claims["exp"] + 86_400},
    ]
    forged = [f"{header}.{encoded(json.dumps(own.claims | change).encode())}.{signature}" for change in wider]
    without = {name: value for name, value in own.claims.items() if name != "scope"}
    forged.append(f"{header}.{encoded(json.dumps(without).encode())}.{signature}")
    assert {scene.refused(token) for token in forged} == {"token_signature_invalid"}
    other = Ed25519PrivateKey.generate()
    assert scene.refused(jwt(own.header, own.claims, other.sign)) == "token_signature_invalid"


def test_a_token_of_another_installation_with_the_same_name_is_unknown(scene: Scene) -> None:
    own, other = Own(scene), Ed25519PrivateKey.generate()
    assert scene.refused(jwt(own.header | {"kid": new_id(scene.world.services.random)}, own.claims, other.sign)) == "token_key_unknown"


KIDS: tuple[Any, ...] = (
    "../../../../etc/passwd",
    "/dev/null",
    "https://evil.example/jwks.json",
    "' OR '1'='1",
    "%",
    "a" * 256,
    "k" * 1_000,
    "",
    "\u0000",
    "..",
    7,
    None,
    ["a"],
    {"a": 1},
    True,
)


@pytest.mark.parametrize("kid", KIDS, ids=lambda kid: repr(kid)[:20])
def test_a_key_id_is_looked_up_and_never_followed(scene: Scene, kid: object) -> None:
    own = Own(scene)
    assert scene.refused(own.signed({"kid": kid})) == "token_malformed"
    login = scene.issuers.issuers[LOGIN]
    asked = len(scene.issuers.asked)
    code = scene.refused(jwt({"alg": "ES256", "kid": kid}, scene.claims(), signer(login.keys["one"], "ES256")))
    assert code == ("token_key_unknown" if isinstance(kid, str) and 0 < len(kid) <= 256 else "token_malformed")
    assert all(issuer == LOGIN for issuer, _kid in scene.issuers.asked[asked:]), "nobody else is ever asked"


def test_keys_that_a_token_brings_along_are_not_looked_at(scene: Scene) -> None:
    own, mine = Own(scene), Ed25519PrivateKey.generate()
    brought: dict[str, Any] = {
        "jwk": public_jwk(mine),
        "jku": "https://evil.example/jwks.json",
        "x5u": "https://evil.example/cert.pem",
        "x5c": ["MIIB"],
    }
    for name, value in brought.items():
        assert scene.refused(jwt(own.header | {name: value}, own.claims, mine.sign)) == "token_malformed"
    elliptic = ec.generate_private_key(ec.SECP256R1())
    header = {"alg": "ES256", "kid": "one"} | brought | {"jwk": public_jwk(elliptic)}
    assert scene.refused(jwt(header, scene.claims(), signer(elliptic, "ES256"))) == "token_signature_invalid"
    right = scene.issuers.issuers[LOGIN].token(scene.claims(), **brought)
    assert sign_in(scene.home.services, right, HERE).upn == ALICE, "the issuer's own key is what counts"


@pytest.mark.parametrize(
    ("claims", "code"),
    [
        ({"aud": "somebody-else"}, "token_audience_wrong"),
        ({"aud": ["urn:keystead"]}, "token_audience_wrong"),
        ({"aud": None}, "token_audience_wrong"),
        ({"iss": "urn:keystead:other"}, "token_issuer_unknown"),
        ({"iss": "URN:KEYSTEAD"}, "token_issuer_unknown"),
        ({"iss": None}, "token_malformed"),
        ({"iss": 7}, "token_malformed"),
        ({"exp": None}, "token_malformed"),
        ({"iat": None}, "token_malformed"),
        ({"exp": "9999999999"}, "token_malformed"),
        ({"exp": True}, "token_malformed"),
        ({"exp": 1e300}, "token_malformed"),
        ({"exp": -1}, "token_malformed"),
        ({"sid": "x"}, "token_malformed"),
        ({"sub": 7}, "token_malformed"),
        ({"scope": ["mailbox.read"]}, "token_malformed"),
        ({"admin": True}, "token_malformed"),
        ({"roles": ["operator"]}, "token_malformed"),
        ({"sid": "11111111-1111-4111-8111-111111111111"}, "token_revoked"),
        ({"sub": "11111111-1111-4111-8111-111111111111"}, "token_revoked"),
        ({"tenant": "11111111-1111-4111-8111-111111111111"}, "token_revoked"),
        ({"tenant": ""}, "token_revoked"),
    ],
    ids=repr,
)
def test_even_rightly_signed_only_what_we_make_is_taken(scene: Scene, claims: dict[str, Any], code: str) -> None:
    assert scene.refused(Own(scene).signed(**claims)) == code


def test_types_of_tokens_are_not_mixed_up(scene: Scene) -> None:
    own = Own(scene)
    for kind in ("JWT", "AT+JWT", "application/at+jwt", "logout+jwt", "", None, 7):
        assert scene.refused(own.signed({"typ": kind})) == "token_type_wrong"
    login = scene.issuers.issuers[LOGIN]
    for kind in ("logout+jwt", "dpop+jwt", "secevent+jwt", "JOSE", 7, None):
        assert scene.refused(login.token(scene.claims(), typ=kind)) == "token_type_wrong"
    for kind in ("JWT", "jwt", "at+jwt", "application/at+jwt"):
        assert sign_in(scene.home.services, login.token(scene.claims(), typ=kind), HERE).upn == ALICE


@pytest.mark.parametrize("who", ["own", "provider"])
def test_clocks_may_be_a_minute_apart_and_not_five(scene: Scene, who: str) -> None:
    now = scene.clock.now() // 1_000
    make: Callable[..., str] = (
        Own(scene).signed if who == "own" else (lambda **claims: scene.issuers.issuers[LOGIN].token(scene.claims(**claims)))
    )
    assert sign_in(scene.home.services, make(iat=now + 60, exp=now + 900), HERE).upn == ALICE
    assert scene.refused(make(iat=now + 61, exp=now + 900)) == "token_clock_ahead"
    assert scene.refused(make(iat=now + 300, exp=now + 1_200)) == "token_clock_ahead"
    with pytest.raises(Unauthenticated, match="300 seconds from now; clocks may be 60 seconds apart"):
        sign_in(scene.home.services, make(iat=now + 300, exp=now + 1_200), "")
    assert sign_in(scene.home.services, make(iat=now - 900, exp=now - 59), HERE).upn == ALICE
    assert scene.refused(make(iat=now - 900, exp=now - 60)) == "token_expired"
    assert scene.refused(make(iat=now - 1_200, exp=now - 300)) == "token_expired"


def test_a_providers_token_begins_when_it_says(scene: Scene) -> None:
    login, now = scene.issuers.issuers[LOGIN], scene.clock.now() // 1_000
    assert sign_in(scene.home.services, login.token(scene.claims(nbf=now + 60)), HERE).upn == ALICE
    assert sign_in(scene.home.services, login.token(scene.claims(nbf=now + 0.5, exp=now + 9.5)), HERE).upn == ALICE, (
        "times may be fractions"
    )
    assert scene.refused(login.token(scene.claims(nbf=now + 61))) == "token_not_yet_valid"


# -- tokens of providers --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("algorithm", [*ALGORITHMS, "RS384", "PS512", "ES384", "ES256K", "RSA1_5"])
def test_providers_sign_with_the_algorithms_of_the_list_and_their_keys(scene: Scene, algorithm: str) -> None:
    login = scene.issuers.issuers[LOGIN]
    public = json.dumps(public_jwk(login.keys["one"])).encode()
    numbers = public_jwk(login.keys["one"])
    point = b"\x04" + decoded(numbers["x"]) + decoded(numbers["y"])
    header = {"alg": algorithm, "kid": "one"}
    forged = [jwt(header, scene.claims(), sign) for sign in (_hmac(public), _hmac(point), b"", b"\0" * 64)]
    codes = {scene.refused(token) for token in forged}
    assert codes == {"token_signature_invalid" if algorithm == "ES256" else "token_algorithm_refused"}


def test_a_key_is_used_for_the_algorithm_its_issuer_says(scene: Scene) -> None:
    key = rsa.generate_private_key(65537, 2048)
    strict = scene.issuers.add(Issuer("https://strict.example", "RS256", {"one": key}, key_algorithm="PS256"))
    scene.admin.call("sign-in-provider.set", k.SetSignInProvider(issuer=strict.name, audience="keystead"))
    try:
        claims = scene.claims(iss=strict.name)
        assert scene.refused(strict.token(claims)) == "token_algorithm_refused"
        strict.algorithm = "PS256"
        assert sign_in(scene.home.services, strict.token(claims), HERE).upn == ALICE
    finally:
        scene.provider()


@pytest.mark.parametrize(
    ("claims", "code"),
    [
        ({"aud": "another"}, "token_audience_wrong"),
        ({"aud": ["another", "third"]}, "token_audience_wrong"),
        ({"aud": ["keystead", "another"]}, "token_audience_wrong"),
        ({"aud": ["keystead", "another"], "azp": "another"}, "token_audience_wrong"),
        ({"aud": "Keystead"}, "token_audience_wrong"),
        ({"aud": None}, "token_malformed"),
        ({"aud": []}, "token_malformed"),
        ({"aud": [7]}, "token_malformed"),
        ({"aud": ["keystead"] * 17}, "token_malformed"),
        ({"iss": "https://evil.example"}, "token_issuer_unknown"),
        ({"iss": LOGIN + "/"}, "token_issuer_unknown"),
        ({"iss": "urn:keystead"}, "token_algorithm_refused"),
        ({"iat": None}, "token_malformed"),
        ({"exp": None}, "token_malformed"),
        ({"nbf": "soon"}, "token_malformed"),
        ({"preferred_username": None}, "token_names_nobody"),
        ({"preferred_username": 7}, "token_names_nobody"),
        ({"preferred_username": [ALICE]}, "token_names_nobody"),
        ({"preferred_username": "alice"}, "token_names_nobody"),
        ({"preferred_username": "alice@fabrikam.example"}, "token_names_nobody"),
        ({"preferred_username": "alice@contoso.example@fabrikam.example"}, "token_names_nobody"),
        ({"preferred_username": "alice@fabrikam.example@contoso.example"}, "token_names_nobody"),
        ({"preferred_username": "alice@sub.contoso.example"}, "token_names_nobody"),
        ({"preferred_username": "operator@provider.example"}, "token_names_nobody"),
        ({"preferred_username": "\u0430lice@contoso.example"}, "token_names_nobody"),
        ({"preferred_username": "alice@conto\u017fo.example"}, "token_names_nobody"),
        ({"preferred_username": "alice\u0000@contoso.example"}, "token_names_nobody"),
        ({"preferred_username": " alice@contoso.example"}, "token_names_nobody"),
        ({"preferred_username": None, "email": ALICE, "upn": ALICE}, "token_names_nobody"),
    ],
    ids=repr,
)
def test_a_providers_token_is_for_us_and_names_a_person_of_its_tenant(scene: Scene, claims: dict[str, Any], code: str) -> None:
    assert scene.refused(scene.issuers.issuers[LOGIN].token(scene.claims(**claims))) == code


def test_several_audiences_need_to_say_that_we_are_meant(scene: Scene) -> None:
    token = scene.issuers.issuers[LOGIN].token(scene.claims(aud=["another", "keystead"], azp="keystead"))
    assert sign_in(scene.home.services, token, HERE).upn == ALICE


def test_a_provider_reaches_its_own_tenant_alone_even_with_the_same_issuer_and_audience(scene: Scene) -> None:
    """R-194: two tenants with one issuer: by audience, and where that is the same too, by the domain the token names."""
    made = scene.home.client(OPERATOR).call("tenant.create", t.CreateTenant(name="Fabrikam", domain="fabrikam.example", geo=["EUR"]))
    theirs = scene.by(scene.claim(made.claim_token, "admin@fabrikam.example"))
    login = scene.issuers.issuers[LOGIN]
    ours, their_admin = scene.claims(), scene.claims(preferred_username="admin@fabrikam.example")
    assert scene.refused(login.token(their_admin)) == "token_names_nobody", "their tenant takes no such tokens"
    theirs.call("sign-in-provider.set", k.SetSignInProvider(issuer=LOGIN, audience="fabrikam-app"))
    assert scene.refused(login.token(their_admin)) == "token_names_nobody", "for our audience"
    assert scene.refused(login.token(ours | {"aud": "fabrikam-app"})) == "token_names_nobody", "our person, for their audience"
    assert sign_in(scene.home.services, login.token(their_admin | {"aud": "fabrikam-app"}), HERE).tenant_id == made.id
    theirs.call("sign-in-provider.set", k.SetSignInProvider(issuer=LOGIN, audience="keystead"))
    for claims, tenant in ((ours, scene.tenant), (their_admin, made.id)):
        principal = sign_in(scene.home.services, login.token(claims), HERE)
        assert principal.tenant_id == tenant
    own_issuer = scene.issuers.add(Issuer("https://login.fabrikam.example"))
    theirs.call("sign-in-provider.set", k.SetSignInProvider(issuer=own_issuer.name, audience="keystead"))
    assert scene.refused(own_issuer.token(ours | {"iss": own_issuer.name})) == "token_names_nobody"
    assert scene.refused(own_issuer.token(ours)) == "token_signature_invalid", "signed by theirs, said to be of ours"


# -- mangled --------------------------------------------------------------------------------------------------------------------------


def test_names_that_occur_twice_are_refused_rightly_signed_or_not(scene: Scene) -> None:
    own, login = Own(scene), scene.issuers.issuers[LOGIN]
    text = json.dumps(own.claims)
    for twice in (text[:-1] + ', "tenant": ""}', text[:-1] + ', "sub": "x"}', '{"exp": 1, ' + text[1:]):
        assert scene.refused(jwt(own.header, twice.encode(), own.key.sign)) == "token_malformed"
    header = json.dumps(own.header)
    assert scene.refused(jwt((header[:-1] + ', "alg": "none"}').encode(), own.claims, own.key.sign)) == "token_malformed"
    claims = json.dumps(scene.claims())[:-1] + ', "preferred_username": "admin@contoso.example"}'
    assert scene.refused(jwt({"alg": "ES256", "kid": "one"}, claims.encode(), signer(login.keys["one"], "ES256"))) == "token_malformed"


MANGLED: tuple[str, ...] = (
    "x",
    ".",
    "..",
    "...",
    "a.b",
    "a.b.c.d.e",
    "a.b.c.",
    ".b.c",
    "e30.e30.",
    "e30.e30.AA",
    "ks_" + "A" * 43 + ".",
    "bm90IGpzb24.bm90IGpzb24.AA",
    "W10.W10.AA",
    "bnVsbA.bnVsbA.AA",
    "eyJhbGciOiJFZERTQSJ9.e30.AA",
)


@pytest.mark.parametrize("token", MANGLED)
def test_what_is_no_token_is_malformed_or_unknown(scene: Scene, token: str) -> None:
    assert scene.refused(token) == ("token_malformed" if "." in token else "token_unknown")


def test_truncated_stretched_huge_and_strange_tokens(scene: Scene) -> None:
    token = Own(scene).token
    for cut in (1, 2, 10, 60, 90, len(token) // 2, len(token) - 5):
        assert scene.refused(token[:-cut]) in {"token_malformed", "token_signature_invalid", "token_unknown"}
    for strange in (
        token + "=",
        token + " ",
        " " + token,
        token + "\n",
        token + "\x00",
        token.replace(".", "\uff0e"),
        token + "\u00e9",
        "\ud800",
    ):
        assert scene.refused(strange) == "token_malformed"
    assert scene.refused(token + ".") == "token_malformed"
    assert scene.refused(token + "A" * MAX_TOKEN_BYTES) == "token_too_long"
    assert scene.refused("ks_" + "A" * 10_000_000) == "token_too_long"
    deep = encoded(b"[" * 6_000)
    assert scene.refused(f"{deep}.{encoded(b'{}')}.AA") == "token_malformed"
    strange_headers: list[dict[str, Any]] = [{"crit": ["exp"]}, {"crit": []}, {"b64": False}, {"zip": "DEF"}]
    for critical in strange_headers:
        assert scene.refused(Own(scene).signed(critical)) == "token_malformed"
        assert scene.refused(scene.issuers.issuers[LOGIN].token(scene.claims(), **critical)) == "token_malformed"
    last = token[-1]
    for other in "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_":
        if other != last:
            scene.home.services.sign_in.__init__()  # type: ignore[misc]  # guesses at one token are slowed
            assert scene.refused(token[:-1] + other) in {"token_signature_invalid", "token_malformed"}, "one spelling of a signature"


def reading(token: str) -> str:
    """The code of the refusal; empty when it can be read."""
    try:
        read_jwt(token)
    except Unauthenticated as error:
        return error.code
    return ""


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.one_of(st.text(max_size=300), st.text('ab.{}":eyJ0_-=', max_size=300), st.binary(max_size=200).map(lambda b: jwt(b, b, b))))
def test_no_text_makes_reading_fail_otherwise(text: str) -> None:
    assert reading(text) in {"token_malformed", ""}


@settings(max_examples=200, deadline=None)
@given(
    st.dictionaries(
        st.sampled_from(["alg", "kid", "typ", "iss", "aud", "exp", "iat", "nbf", "sub", "sid", "tenant", "scope", "crit"]),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10), lambda inner: st.lists(inner, max_size=3)
        ),
    )
)
def test_no_members_make_reading_fail_otherwise(members: dict[str, Any]) -> None:
    assert reading(jwt(members, members)) in {"token_malformed", ""}


# -- what a principal of a token is ------------------------------------------------------------------------------------------------------


def test_no_token_gives_dev_powers_outside_dev_homes(scene: Scene) -> None:
    login = scene.issuers.issuers[LOGIN]
    service = scene.service("mailbox.*")
    tokens = (scene.alice_token, scene.admin_token, service, Own(scene).token, Own(scene, token=service).token, login.token(scene.claims()))
    for token in tokens:
        assert sign_in(scene.home.services, token, HERE).dev is False
    assert [field.name for field in fields(Principal)] == ["upn", "tenant_id", "roles", "dev", "scopes", "token_id"], (
        "each is looked at here"
    )


def test_a_claim_token_calls_nothing_and_is_not_used_up_by_trying(scene: Scene) -> None:
    claim = scene.admin.call("user.add", t.AddUser(upn="zoe@contoso.example", roles=["user"])).claim_token
    assert scene.refused(claim) == "token_is_claim"
    with pytest.raises(Unauthenticated):
        scene.exchange(claim)
    assert sign_in(scene.home.services, scene.claim(claim, "zoe@contoso.example"), HERE).roles == {Role.USER}


def test_errors_and_the_log_hold_no_part_of_a_token(scene: Scene) -> None:
    own = Own(scene)
    secret = "ks_" + "S3cret" * 7 + "x"
    for token in (secret, jwt(own.header, own.claims, b"S3cretS3cretS3cret"), own.signed(aud="S3cretAudience")):
        with pytest.raises(KeysteadError) as caught:
            sign_in(scene.home.services, token, HERE)
        assert "S3cret" not in str(caught.value)
        assert token.rpartition(".")[2] not in repr(caught.value.__dict__)
    scene.clock.advance(2 * MINUTE)
    scene.refused("ks_other", ip=HERE)
    assert scene.world.files_holding(b"S3cret", encoded(b"S3cretS3cretS3cret").encode()) == []
    assert own.token not in repr(scene.home.services.sign_in)


def test_a_program_with_every_scope_there_is_opens_no_mail_of_others(scene: Scene) -> None:
    program = scene.by(scene.service("mailbox.*"))
    for name, request in (
        ("mailbox.items", m.ListItems(upn=ALICE)),
        ("mailbox.read", m.NameItem(upn=ALICE, item="11111111-1111-4111-8111-111111111111")),
        ("mailbox.delete-item", m.NameItem(upn=ALICE, item="11111111-1111-4111-8111-111111111111")),
    ):
        with pytest.raises(Forbidden) as caught:
            program.call(name, request)
        assert caught.value.code == "not_the_owner"
