"""The unmodified SDK's KeyClient against the face: every method, what it gives, and the errors it raises."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from azure.core.exceptions import ClientAuthenticationError, HttpResponseError, ResourceExistsError, ResourceNotFoundError
from azure.keyvault.keys import (
    ApiVersion,
    JsonWebKey,
    KeyReleasePolicy,
    KeyRotationLifetimeAction,
    KeyRotationPolicy,
    KeyRotationPolicyAction,
    KeyType,
)
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from keystead.core.vaults.access import Permission
from vault.world import OTHER_TENANT

if TYPE_CHECKING:
    from azure.keyvault.keys import KeyClient, KeyVaultKey

    from vault_http.face import Face

pytestmark = pytest.mark.xdist_group("vault-face-sdk")

FAR = datetime(9999, 12, 31, tzinfo=UTC)
SOON = datetime(2027, 6, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def keys(face: Face) -> KeyClient:
    return face.keys()


def rsa_jwk(bits: int = 2_048) -> JsonWebKey:
    numbers = rsa.generate_private_key(65_537, bits).private_numbers()
    public = numbers.public_numbers

    def raw(number: int) -> bytes:
        return number.to_bytes((number.bit_length() + 7) // 8, "big")

    named = {"d": numbers.d, "p": numbers.p, "q": numbers.q, "dp": numbers.dmp1, "dq": numbers.dmq1, "qi": numbers.iqmp}
    return JsonWebKey(
        kty="RSA",
        key_ops=["decrypt", "unwrapKey", "sign"],
        n=raw(public.n),
        e=raw(public.e),
        **{name: raw(number) for name, number in named.items()},
    )


def jwk(key: KeyVaultKey) -> Any:
    """The SDK sets the members of its JSON Web Keys when it has them, so no type knows them."""
    return key.key


def test_the_challenge_names_authority_tenant_and_resource_R_038(face: Face) -> None:
    client = face.keys()
    list(client.list_properties_of_keys())
    credential = client._client._config.authentication_policy._credential
    assert credential.asked == [("https://vault.localhost/.default", "0d7f4c1e-5a8e-4f43-9d0a-1c2d3e4f5a6b")]


def test_create_rsa_R_023_R_033(face: Face, keys: KeyClient) -> None:
    made = keys.create_rsa_key("created", size=2_048, tags={"use": "mail"}, expires_on=FAR, not_before=datetime(2025, 1, 1, tzinfo=UTC))
    assert made.id == f"{face.url}/keys/created/{made.properties.version}"
    assert made.key_type == KeyType.rsa
    assert made.key_operations == ["encrypt", "decrypt", "sign", "verify", "wrapKey", "unwrapKey"]
    assert len(jwk(made).n) == 256
    assert jwk(made).e == b"\x01\x00\x01"
    properties = made.properties
    assert (properties.expires_on, properties.not_before) == (FAR, datetime(2025, 1, 1, tzinfo=UTC))
    assert properties.tags == {"use": "mail"}
    assert (properties.enabled, properties.exportable, properties.managed) == (True, False, None)
    assert (properties.recoverable_days, properties.recovery_level) == (90, "Recoverable+Purgeable")
    assert properties.created_on == properties.updated_on == datetime.fromtimestamp(face.world.clock.now() / 1000, UTC)
    assert properties.vault_url == face.url


@pytest.mark.parametrize(("curve", "size"), [("P-256", 32), ("P-384", 48), ("P-521", 66), ("P-256K", 32)])
def test_create_ec_R_024(keys: KeyClient, curve: str, size: int) -> None:
    made = keys.create_ec_key(f"curve-{curve}", curve=curve)
    assert (made.key_type, jwk(made).crv) == (KeyType.ec, curve)
    assert (len(jwk(made).x), len(jwk(made).y)) == (size, size)
    assert made.key_operations == ["sign", "verify"]


def test_hsm_types_in_a_premium_vault_R_018(keys: KeyClient) -> None:
    assert keys.create_rsa_key("hsm-rsa", hardware_protected=True).key_type == KeyType.rsa_hsm
    assert keys.create_ec_key("hsm-ec", hardware_protected=True).key_type == KeyType.ec_hsm


def test_symmetric_keys_are_for_managed_hsms(keys: KeyClient) -> None:
    with pytest.raises(HttpResponseError) as raised:
        keys.create_oct_key("symmetric", size=256, hardware_protected=True)
    assert raised.value.status_code == 400
    assert raised.value.error is not None
    assert raised.value.error.code == "BadParameter"


def test_a_second_create_makes_a_new_current_version_R_020_R_022(keys: KeyClient) -> None:
    first, second = keys.create_ec_key("twice"), keys.create_ec_key("twice")
    assert first.properties.version != second.properties.version
    assert keys.get_key("twice").id == second.id
    assert keys.get_key("twice", first.properties.version).id == first.id
    assert keys.get_key("TWICE", str(first.properties.version).upper()).id == first.id
    versions = {one.version for one in keys.list_properties_of_key_versions("twice")}
    assert versions == {first.properties.version, second.properties.version}


def test_import_rsa_and_ec_R_023(keys: KeyClient) -> None:
    given = rsa_jwk()
    made = keys.import_key("brought", given, tags={"from": "elsewhere"}, enabled=False)
    assert jwk(made).n == vars(given)["n"]
    assert (made.properties.enabled, made.properties.tags) == (False, {"from": "elsewhere"})
    assert set(made.key_operations) == {"decrypt", "unwrapKey", "sign"}
    numbers = ec.generate_private_key(ec.SECP384R1()).private_numbers()
    x, y, d = (number.to_bytes(48, "big") for number in (numbers.public_numbers.x, numbers.public_numbers.y, numbers.private_value))
    brought = keys.import_key("brought-ec", JsonWebKey(kty="EC", crv="P-384", x=x, y=y, d=d), hardware_protected=True)
    assert (brought.key_type, jwk(brought).x, jwk(brought).y) == (KeyType.ec_hsm, x, y)
    assert jwk(brought).d is None


def test_a_key_whose_halves_do_not_fit_is_not_imported(keys: KeyClient) -> None:
    wrong = rsa_jwk()
    vars(wrong)["d"] = vars(rsa_jwk())["d"]
    with pytest.raises(HttpResponseError) as raised:
        keys.import_key("forged", wrong)
    assert raised.value.status_code == 400
    with pytest.raises(ResourceNotFoundError):
        keys.get_key("forged")


def test_update_R_028_R_029_R_031(keys: KeyClient) -> None:
    made = keys.create_rsa_key("changed", tags={"a": "1"})
    changed = keys.update_key_properties(
        "changed", made.properties.version, enabled=False, expires_on=SOON, key_operations=["wrapKey", "verify"]
    )
    assert (changed.properties.enabled, changed.properties.expires_on, changed.properties.tags) == (False, SOON, {"a": "1"})
    assert changed.key_operations == ["verify", "wrapKey"]
    later = keys.update_key_properties("changed", expires_on=FAR, tags={})
    assert (later.properties.expires_on, later.properties.tags, later.properties.enabled) == (FAR, None, False)


def test_lists_are_paged(keys: KeyClient) -> None:
    names = [f"paged-{number}" for number in range(5)]
    for name in names:
        keys.create_ec_key(name)
    pages = list(keys.list_properties_of_keys(max_page_size=2).by_page())
    sizes = [len(list(page)) for page in pages]
    assert max(sizes) <= 2
    listed = [one.name for one in keys.list_properties_of_keys(max_page_size=2)]
    assert listed == sorted(listed, key=str.lower)
    assert set(names) <= set(listed)
    assert len(listed) == len(set(listed))
    first = next(iter(keys.list_properties_of_keys(max_page_size=1)))
    assert first.version is None
    for _ in range(3):
        keys.create_ec_key("paged-0")
    assert len(list(keys.list_properties_of_key_versions("paged-0", max_page_size=3))) == 4


def test_delete_recover_and_purge_R_047_to_R_051(face: Face, keys: KeyClient) -> None:
    made = keys.create_ec_key("gone")
    deleted = keys.begin_delete_key("gone").result()
    assert deleted.id == made.id
    assert deleted.recovery_id == f"{face.url}/deletedkeys/gone"
    assert deleted.scheduled_purge_date is not None
    assert deleted.deleted_date is not None
    assert deleted.scheduled_purge_date - deleted.deleted_date == timedelta(days=90)
    with pytest.raises(ResourceNotFoundError):
        keys.get_key("gone")
    assert keys.get_deleted_key("gone").recovery_id == deleted.recovery_id
    assert "gone" in [one.name for one in keys.list_deleted_keys(max_page_size=1)]
    with pytest.raises(ResourceExistsError) as raised:
        keys.create_ec_key("gone")
    assert raised.value.error is not None
    assert raised.value.error.innererror == {"code": "ObjectIsDeletedButRecoverable"}
    poller = keys.begin_recover_deleted_key("gone")
    poller.wait()
    assert poller.result().id == made.id
    assert keys.get_key("gone").id == made.id
    keys.begin_delete_key("gone").wait()
    keys.purge_deleted_key("gone")
    with pytest.raises(ResourceNotFoundError):
        keys.get_deleted_key("gone")
    assert keys.create_ec_key("gone").id != made.id


def test_backup_and_restore_R_058_to_R_061(keys: KeyClient) -> None:
    made = keys.create_rsa_key("saved", tags={"a": "b"})
    blob = keys.backup_key("saved")
    with pytest.raises(ResourceExistsError):
        keys.restore_key_backup(blob)
    keys.begin_delete_key("saved").wait()
    keys.purge_deleted_key("saved")
    restored = keys.restore_key_backup(blob)
    assert (restored.id, restored.properties.tags, jwk(restored).n) == (made.id, {"a": "b"}, jwk(made).n)


def test_a_changed_backup_is_refused_R_059(keys: KeyClient) -> None:
    keys.create_ec_key("tampered")
    blob = bytearray(keys.backup_key("tampered"))
    keys.begin_delete_key("tampered").wait()
    keys.purge_deleted_key("tampered")
    blob[-1] ^= 1
    with pytest.raises(HttpResponseError) as raised:
        keys.restore_key_backup(bytes(blob))
    assert raised.value.status_code == 400


def test_rotate_R_034(keys: KeyClient) -> None:
    made = keys.create_rsa_key("turned", tags={"a": "b"})
    turned = keys.rotate_key("turned")
    assert (turned.key_type, len(jwk(turned).n), turned.properties.tags) == (made.key_type, 256, {"a": "b"})
    assert keys.get_key("turned").id == turned.id != made.id


def test_rotation_policy_R_035(face: Face, keys: KeyClient) -> None:
    keys.create_rsa_key("planned")
    assert keys.get_key_rotation_policy("planned").id == f"{face.url}/keys/planned/rotationpolicy"
    actions = [KeyRotationLifetimeAction(KeyRotationPolicyAction.rotate, time_after_create="P90D")]
    stored = keys.update_key_rotation_policy("planned", KeyRotationPolicy(lifetime_actions=actions, expires_in="P120D"))
    assert stored.expires_in == "P120D"
    read = keys.get_key_rotation_policy("planned")
    rotating = [one for one in read.lifetime_actions if one.action == KeyRotationPolicyAction.rotate]
    assert [(one.time_after_create, one.time_before_expiry) for one in rotating] == [("P90D", None)]
    assert read.expires_in == "P120D"
    with pytest.raises(HttpResponseError) as raised:
        keys.update_key_rotation_policy(
            "planned", KeyRotationPolicy(lifetime_actions=[KeyRotationLifetimeAction("Rotate", time_after_create="P6D")])
        )
    assert raised.value.status_code == 400


@pytest.mark.parametrize("version", [one for one in ApiVersion if one not in {ApiVersion.V2016_10_01, ApiVersion.V7_0}])
def test_every_version_the_sdk_speaks(face: Face, version: ApiVersion) -> None:
    client = face.keys(api_version=version)
    name = "spoken-" + version.value.replace(".", "-")
    assert client.create_ec_key(name).properties.recoverable_days == 90
    assert client.get_key(name).properties.exportable is (None if version in {ApiVersion.V7_1, ApiVersion.V7_2} else False)


def test_without_permission_existence_is_not_told_R_037(face: Face) -> None:
    face.new_key("hidden", kty="EC")
    nobody = face.keys(face.client_of("nobody", frozenset()))
    for name in ("hidden", "never-there"):
        with pytest.raises(HttpResponseError) as raised:
            nobody.get_key(name)
        assert raised.value.status_code == 403
        assert raised.value.error is not None
        assert raised.value.error.code == "Forbidden"
        assert raised.value.error.innererror == {"code": "AccessDenied"}
        assert name not in str(raised.value.error.message)


def test_a_client_of_another_tenant_R_038(face: Face) -> None:
    stranger = face.client_of("stranger", frozenset(Permission), tenant=OTHER_TENANT)
    with pytest.raises(ClientAuthenticationError) as raised:
        face.keys(stranger).create_rsa_key("theirs")
    assert "AKV10032" in str(raised.value.message)
    refused = [entry for entry in face.world.log() if entry.result_signature == "token_tenant_wrong"]
    # The SDK signs in again after the first refusal, and takes the second one for an answer.
    assert [(entry.operation_name, entry.properties.http_status_code) for entry in refused] == [("KeyCreate", 401)] * 2


def test_what_the_log_tells_of_a_call_R_067(face: Face, keys: KeyClient) -> None:
    keys.create_ec_key("logged")
    last = next(entry for entry in reversed(face.world.log()) if entry.operation_name == "KeyCreate")
    assert last.caller_ip_address == "127.0.0.1"
    assert last.identity.application_id == face.admin.id
    assert last.properties.request_uri == f"{face.url}/keys/logged/create?api-version=2025-07-01"
    assert "azsdk-python-keyvault-keys" in last.properties.client_info
    assert (last.operation_version, last.properties.http_status_code) == ("2025-07-01", 200)
    assert len(last.correlation_id) == 36


def test_random_bytes(keys: KeyClient) -> None:
    assert [len(keys.get_random_bytes(count)) for count in (1, 128)] == [1, 128]
    assert keys.get_random_bytes(32) != keys.get_random_bytes(32)
    with pytest.raises(HttpResponseError) as raised:
        keys.get_random_bytes(129)
    assert raised.value.status_code == 400


def test_attestation_shows_the_key_and_claims_nothing(keys: KeyClient) -> None:
    made = keys.create_ec_key("attested", hardware_protected=True)
    shown = keys.get_key_attestation("attested")
    assert (shown.id, shown.properties.attestation, shown.properties.hsm_platform) == (made.id, None, "0")


def test_an_exportable_key_and_its_release_policy_R_025(keys: KeyClient) -> None:
    document = json.dumps(
        {"version": "1.0.0", "anyOf": [{"authority": "https://attest.contoso.example", "allOf": [{"claim": "sdk", "equals": "true"}]}]}
    ).encode()
    made = keys.create_rsa_key("leaving", hardware_protected=True, exportable=True, release_policy=KeyReleasePolicy(document))
    assert made.properties.exportable is True
    assert made.properties.release_policy is not None
    assert made.properties.release_policy.encoded_policy == document
    with pytest.raises(HttpResponseError) as raised:
        keys.release_key("leaving", "no attestation")
    assert raised.value.status_code == 400
    keys.create_rsa_key("staying")
    with pytest.raises(HttpResponseError) as refused:
        keys.release_key("staying", "no attestation")
    assert refused.value.status_code in {400, 403}
