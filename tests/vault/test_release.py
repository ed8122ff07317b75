"""Key release: to the right environment, on an authority's word, and to nobody else (docs/spec/key-release.md)."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import load_der_private_key, load_der_public_key

from keystead.api.types import vaults as t
from keystead.core.errors import Forbidden, InvalidRequest, KeysteadError, NotFound, PreconditionFailed, Unavailable
from keystead.core.vaults.access import Permission
from keystead.core.vaults.release import release_policy
from keystead.core.vaults.usage import key_kind
from keystead.ports.clock import HOUR
from keystead.vault import backup, keys, release
from keystead.vault.operations import Place
from keystead.vault.services import identity_of
from support.enclave import AUTHORITY, NOW, Enclave, answer_of, authority, policy_document
from support.tokens import Issuer, PretendedIssuers, decoded, jwt, number, parts, signer
from vault.world import ALEX, KIM

if TYPE_CHECKING:
    from collections.abc import Callable

    from keystead.vault.services import VaultServices
    from keystead.vault.views import KeyShown
    from vault.world import World

V = "ContosoVault1"
ENCLAVE = Enclave()
SERVICE = authority()
SHORT = number(2**1_023 + 1)
"""A modulus of 1,024 bits."""
OTHER = authority("https://other.contoso.example")


class Scene:
    """A premium vault with an exportable key, and an authority the operator lists."""

    def __init__(self, world: World, policy: bytes | None = None, kty: str = "EC-HSM") -> None:
        self.world = world
        self.authorities = PretendedIssuers({SERVICE.name: SERVICE})
        self.vault: VaultServices = replace(world.vault, authorities=self.authorities)
        world.new_vault(sku="premium")
        world.grant("update,delete,rotate", upn=ALEX)
        world.grant("get,release", upn=ALEX)
        self.policy = release_policy(policy or policy_document())
        self.key = self.made("exported", kty)

    def made(self, name: str, kty: str = "EC-HSM", **more: Any) -> KeyShown:
        wanted = keys.Wanted(exportable=True, release_policy=self.policy.text, **more)
        return keys.created(self.vault, identity_of(self.world.call()), V, name, lambda: key_kind(kty, None, None), wanted)

    def release(
        self, target: str | None = None, *, upn: str = ALEX, name: str = "exported", version: str | None = None, **more: Any
    ) -> str:
        token = SERVICE.token(ENCLAVE.claims()) if target is None else target
        return release.release(self.vault, identity_of(self.world.call(upn)), Place(V, name, version), token, **more)

    def refused(self, target: str | None = None, **more: Any) -> KeysteadError:
        with pytest.raises(KeysteadError) as caught:
            self.release(target, **more)
        return caught.value


@pytest.fixture
def scene(world: World) -> Scene:
    return Scene(world)


@pytest.mark.parametrize("enc", ["CKM_RSA_AES_KEY_WRAP", "RSA_AES_KEY_WRAP_256", "RSA_AES_KEY_WRAP_384"])
def test_the_environment_opens_the_key_it_was_given(world: World, enc: str) -> None:
    scene = Scene(world, kty="RSA-HSM")
    answer = scene.release(enc=enc, nonce="n-1")
    private = load_der_private_key(ENCLAVE.opened(answer), None)
    assert isinstance(private, rsa.RSAPrivateKey)
    public = load_der_public_key(scene.key.version.public_key)
    assert private.public_key() == public
    told = answer_of(answer)
    assert told["request"] == {"api-version": "v1", "enc": enc, "kid": scene.key.view.base_id, "nonce": "n-1"}
    shown = told["response"]["key"]
    assert (shown["key"]["kid"], shown["key"]["kty"]) == (scene.key.id, "RSA-HSM")
    assert shown["attributes"]["exportable"] is True
    assert decoded(shown["release_policy"]["data"]) == scene.policy.data
    assert scene.world.log()[-1].operation_name == "KeyRelease"


def test_a_key_on_a_curve_is_released_too(scene: Scene) -> None:
    private = load_der_private_key(ENCLAVE.opened(scene.release()), None)
    assert isinstance(private, ec.EllipticCurvePrivateKey)


def test_the_answer_names_the_address_that_was_called_and_the_version_that_was_asked_for(scene: Scene) -> None:
    version = scene.key.version.version
    told = answer_of(scene.release(version=version, base_url="https://contoso.vault.example:8443/"))
    kid = f"https://contoso.vault.example:8443/keys/exported/{version}"
    assert (told["request"]["kid"], told["response"]["key"]["key"]["kid"]) == (kid, kid)
    assert told["request"]["enc"] == "CKM_RSA_AES_KEY_WRAP", "what is used where nothing is asked for"


def test_an_older_version_is_released_by_its_name(scene: Scene) -> None:
    keys.rotate(scene.vault, scene.world.call(), t.KeyNamed(vault=V, name="exported"))
    old = ENCLAVE.opened(scene.release(version=scene.key.version.version))
    assert old != ENCLAVE.opened(scene.release()), "a rotated key stays exportable, under its policy"


def test_R_025_no_other_key_is_ever_released(scene: Scene) -> None:
    """R-025: what was not made exportable has no way out, whoever asks."""
    scene.world.new_key("kept", kty="EC-HSM")
    assert scene.refused(name="kept").code == "key_not_exportable"
    assert scene.world.log()[-1].result_signature == "key_not_exportable"
    change = keys.Change(release_policy=scene.policy.text)
    with pytest.raises(InvalidRequest, match="release_policy_unexpected"):
        keys.changed(scene.vault, identity_of(scene.world.call()), V, "kept", None, change)


def test_R_025_nothing_of_the_key_is_in_the_answer_but_wrapped(world: World) -> None:
    scene = Scene(world, kty="RSA-HSM")
    answer = scene.release()
    pkcs8 = ENCLAVE.opened(answer)
    private = load_der_private_key(pkcs8, None)
    assert isinstance(private, rsa.RSAPrivateKey)
    numbers = private.private_numbers()
    _header, payload, _signature = parts(answer)
    plain = json.dumps(payload).encode() + decoded(answer.split(".")[1])
    for secret in (numbers.d, numbers.p, numbers.q):
        assert secret.to_bytes((secret.bit_length() + 7) // 8, "big") not in plain
    assert pkcs8 not in b"".join(scene.world.files())


@pytest.mark.parametrize(
    ("exportable", "kty", "policy", "code"),
    [
        (True, "RSA-HSM", False, "release_policy_missing"),
        (False, "RSA-HSM", True, "release_policy_unexpected"),
        (True, "RSA", True, "key_not_exportable"),
        (True, "EC", True, "key_not_exportable"),
    ],
)
def test_what_keys_cannot_be_made_exportable(scene: Scene, *, exportable: bool, kty: str, policy: bool, code: str) -> None:
    wanted = keys.Wanted(exportable=exportable, release_policy=scene.policy.text if policy else "")
    with pytest.raises(InvalidRequest, match=code):
        keys.created(scene.vault, identity_of(scene.world.call()), V, "x", lambda: key_kind(kty, None, None), wanted)


def test_R_018_exportable_keys_are_for_premium_vaults(scene: Scene) -> None:
    scene.world.new_vault("ContosoVault2")
    wanted = keys.Wanted(exportable=True, release_policy=scene.policy.text)
    with pytest.raises(PreconditionFailed, match="sku_not_supported"):
        keys.created(scene.vault, identity_of(scene.world.call()), "ContosoVault2", "x", lambda: key_kind("RSA-HSM", None, None), wanted)


def test_an_immutable_policy_stays(world: World) -> None:
    scene = Scene(world)
    fixed = release_policy(policy_document(), immutable=True)
    identity = identity_of(world.call())
    keys.changed(scene.vault, identity, V, "exported", None, keys.Change(release_policy=fixed.text))
    looser = release_policy(policy_document({"claim": "iss", "exists": True}))
    with pytest.raises(PreconditionFailed, match="release_policy_immutable"):
        keys.changed(scene.vault, identity, V, "exported", None, keys.Change(release_policy=looser.text))
    assert ENCLAVE.opened(scene.release())


def test_R_037_release_takes_a_permission_of_its_own(scene: Scene) -> None:
    everything_else = ",".join(str(one) for one in Permission if one is not Permission.RELEASE)
    scene.world.grant(everything_else, upn=KIM)
    assert scene.refused(upn=KIM).code == "vault_access_denied"
    assert scene.refused("not a token", upn=KIM).code == "vault_access_denied", "nothing of the token is looked at before"
    assert scene.authorities.asked == []


FORGED: dict[str, tuple[Callable[[], str], str]] = {
    "no token": (lambda: "", "attestation_invalid"),
    "no JWT": (lambda: "a.b", "attestation_invalid"),
    "too long": (lambda: "a" * 40_000, "attestation_invalid"),
    "not ASCII": (lambda: "é.b.c", "attestation_invalid"),
    "not signed": (lambda: jwt({"alg": "none", "kid": "one"}, ENCLAVE.claims(), b""), "attestation_invalid"),
    "signed with a shared secret": (lambda: jwt({"alg": "HS256", "kid": "one"}, ENCLAVE.claims()), "attestation_invalid"),
    "no time of ending": (
        lambda: SERVICE.token({name: value for name, value in ENCLAVE.claims().items() if name != "exp"}),
        "attestation_invalid",
    ),
    "an end that is true": (lambda: SERVICE.token(ENCLAVE.claims(exp=True)), "attestation_invalid"),
    "ended": (lambda: SERVICE.token(ENCLAVE.claims(exp=NOW)), "attestation_refused"),
    "not yet good": (lambda: SERVICE.token(ENCLAVE.claims(nbf=NOW + 3_600, exp=NOW + 7_200)), "attestation_refused"),
    "signed by somebody else": (lambda: OTHER.token(ENCLAVE.claims()), "attestation_refused"),
    "an unknown key": (
        lambda: jwt({"alg": "RS256", "kid": "two"}, ENCLAVE.claims(), signer(SERVICE.keys["one"], "RS256")),
        "attestation_refused",
    ),
    "another algorithm than the key's": (
        lambda: jwt({"alg": "PS256", "kid": "one"}, ENCLAVE.claims(), signer(SERVICE.keys["one"], "PS256")),
        "attestation_refused",
    ),
    "an authority the policy does not name": (lambda: OTHER.token(ENCLAVE.claims(iss=OTHER.name)), "release_policy_not_met"),
    "claims that do not meet the policy": (
        lambda: SERVICE.token(ENCLAVE.claims(**{"x-ms-isolation-tee": {"x-ms-attestation-type": "none"}})),
        "release_policy_not_met",
    ),
    "a claim with its dots in its name": (
        lambda: SERVICE.token(
            {
                **{name: value for name, value in ENCLAVE.claims().items() if name != "x-ms-isolation-tee"},
                "x-ms-isolation-tee.x-ms-attestation-type": "sevsnpvm",
            }
        ),
        "release_policy_not_met",
    ),
    "no key of the environment": (lambda: SERVICE.token(ENCLAVE.claims(**{"x-ms-runtime": {"keys": []}})), "release_key_unattested"),
    "no list of keys": (lambda: SERVICE.token(ENCLAVE.claims(**{"x-ms-runtime": []})), "release_key_unattested"),
    "two keys of that name": (
        lambda: SERVICE.token(ENCLAVE.claims(**{"x-ms-runtime": {"keys": [ENCLAVE.key(), Enclave().key()]}})),
        "release_key_unattested",
    ),
    "a key for signatures": (
        lambda: SERVICE.token(ENCLAVE.claims(**{"x-ms-runtime": {"keys": [ENCLAVE.key(key_ops=["verify"])]}})),
        "release_key_unattested",
    ),
    "a short key": (
        lambda: SERVICE.token(ENCLAVE.claims(**{"x-ms-runtime": {"keys": [ENCLAVE.key(n=SHORT)]}})),
        "release_key_unattested",
    ),
    "a key with an exponent of 1": (
        lambda: SERVICE.token(ENCLAVE.claims(**{"x-ms-runtime": {"keys": [ENCLAVE.key(e="AQ")]}})),
        "release_key_unattested",
    ),
}


@pytest.mark.parametrize("what", FORGED)
def test_what_nothing_is_released_for(scene: Scene, what: str) -> None:
    make, code = FORGED[what]
    assert scene.refused(make()).code == code
    last = scene.world.log()[-1]
    assert (last.operation_name, last.result_type, last.result_signature) == ("KeyRelease", "Failure", code)


def test_a_changed_token_is_refused(scene: Scene) -> None:
    token = SERVICE.token(ENCLAVE.claims())
    header, claims, signature = token.split(".")
    other = SERVICE.token(Enclave().claims()).split(".")[1]
    assert scene.refused(f"{header}.{other}.{signature}").code == "attestation_refused"
    assert scene.refused(f"{header}.{claims}.{signature[:-8]}AAAAAAAA").code in {"attestation_refused", "attestation_invalid"}


def test_without_listed_authorities_nothing_is_released(scene: Scene) -> None:
    scene.vault = scene.world.vault
    assert scene.refused().code == "release_authority_not_allowed"


def test_an_authority_is_asked_only_when_policy_and_operator_both_name_it(scene: Scene) -> None:
    scene.refused(OTHER.token(ENCLAVE.claims(iss=OTHER.name)))
    scene.authorities.issuers = {}
    scene.refused()
    assert scene.authorities.asked == []


def test_an_authority_that_is_away_is_a_fault_and_no_answer_about_the_token(scene: Scene) -> None:
    scene.authorities.away = True
    error = scene.refused()
    assert isinstance(error, Unavailable)
    assert error.code == "release_authority_unavailable"


def test_an_authority_whose_key_is_of_another_kind_is_not_believed(scene: Scene) -> None:
    token = SERVICE.token(ENCLAVE.claims())
    scene.authorities.issuers = {SERVICE.name: Issuer(SERVICE.name)}
    assert scene.refused(token).code == "attestation_refused"


def test_authorities_that_spell_themselves_with_a_slash(world: World) -> None:
    scene = Scene(world, policy_document(name=f"{AUTHORITY}/"))
    assert ENCLAVE.opened(scene.release(SERVICE.token(ENCLAVE.claims(iss=AUTHORITY))))


def test_what_changes_while_the_authority_is_asked_counts(scene: Scene) -> None:
    """The answer of an authority may take seconds: a key that is disabled meanwhile stays."""

    class Slow(PretendedIssuers):
        def key(self, issuer: str, key_id: str) -> Any:
            keys.disable(scene.world.vault, scene.world.call(), t.KeyVersionNamed(vault=V, name="exported"))
            return super().key(issuer, key_id)

    scene.vault = replace(scene.vault, authorities=Slow({SERVICE.name: SERVICE}))
    assert scene.refused().code == "key_disabled"


@pytest.mark.parametrize(
    ("more", "code"),
    [
        ({"not_before": (NOW + 60) * 1_000}, "key_not_yet_valid"),
        ({"expires": NOW * 1_000}, "key_expired"),
        ({"enabled": False}, "key_disabled"),
    ],
)
def test_R_029_R_030_a_key_that_may_not_be_used_is_not_released(scene: Scene, more: dict[str, Any], code: str) -> None:
    scene.made("other", **more)
    assert scene.refused(name="other").code == code


def test_what_else_is_refused(scene: Scene) -> None:
    assert scene.refused(enc="RSA1_5").code == "algorithm_not_supported"
    assert scene.refused(nonce="\x00").code == "nonce_invalid"
    assert scene.refused(nonce="n" * 1_025).code == "nonce_invalid"
    assert isinstance(scene.refused(name="nobody"), NotFound)
    keys.delete(scene.vault, scene.world.call(), t.KeyNamed(vault=V, name="exported"))
    assert scene.refused().code == "key_deleted"


def test_answers_are_signed_with_one_key_until_it_grows_old(scene: Scene) -> None:
    def signed_by() -> str:
        claims = ENCLAVE.claims(nbf=scene.world.clock.time // 1_000, exp=scene.world.clock.time // 1_000 + 60)
        answer = scene.release(SERVICE.token(claims))
        assert answer_of(answer)
        return str(parts(answer)[0]["kid"])

    first = signed_by()
    assert signed_by() == first
    scene.world.clock.time += release.CERTIFICATE_LIFE - release.RENEWED_BEFORE - HOUR
    assert signed_by() == first
    scene.world.clock.time += 2 * HOUR
    assert signed_by() != first


def test_R_061_a_restored_key_is_as_exportable_as_it_was(scene: Scene) -> None:
    scene.world.grant("recover,purge", upn=ALEX)
    scene.world.new_key("kept", kty="EC-HSM")
    released = ENCLAVE.opened(scene.release())
    for name in ("exported", "kept"):
        blob = backup.backup(scene.vault, scene.world.call(), t.KeyNamed(vault=V, name=name)).blob
        keys.delete(scene.vault, scene.world.call(), t.KeyNamed(vault=V, name=name))
        keys.purge(scene.vault, scene.world.call(), t.KeyNamed(vault=V, name=name))
        backup.restore(scene.vault, scene.world.call(), t.KeyRestore(vault=V, blob=blob))
    assert ENCLAVE.opened(scene.release()) == released
    assert scene.refused(name="kept").code == "key_not_exportable"


# -- random bytes and attestation -----------------------------------------------------------------------------------------------------


def test_random_bytes_for_who_may_see_keys(scene: Scene) -> None:
    identity = identity_of(scene.world.call())
    found = {release.random_bytes(scene.vault, identity, V, 128) for _ in range(4)}
    assert {len(one) for one in found} == {128}
    assert len(found) == 4
    assert len(release.random_bytes(scene.vault, identity, V, 1)) == 1
    assert scene.world.log()[-1].operation_name == "RandomBytesGet"
    for count in (0, 129, -1):
        with pytest.raises(InvalidRequest, match="count_invalid"):
            release.random_bytes(scene.vault, identity, V, count)
    with pytest.raises(Forbidden, match="vault_access_denied"):
        release.random_bytes(scene.vault, identity_of(scene.world.call(KIM)), V, 16)


def test_asking_for_an_attestation_shows_the_key_without_one(scene: Scene) -> None:
    """Nothing but software vouches for these keys: there is nothing to show, and nothing is made up."""
    identity = identity_of(scene.world.call())
    assert release.attested(scene.vault, identity, Place(V, "exported", None)).version == scene.key.version
    with pytest.raises(Forbidden, match="vault_access_denied"):
        release.attested(scene.vault, identity_of(scene.world.call(KIM)), Place(V, "exported", None))
    with pytest.raises(NotFound, match="key_not_found"):
        release.attested(scene.vault, identity, Place(V, "nobody", None))
