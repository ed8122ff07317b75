"""The vault's pure decisions: recovery levels, use of keys, access, identifiers, regions."""

from __future__ import annotations

import itertools

import pytest

from keystead.core.errors import Forbidden, InvalidRequest, PreconditionFailed
from keystead.core.vaults import access, recovery, regions, usage
from keystead.core.vaults.access import Held, Permission
from keystead.core.vaults.recovery import DAY, Existence
from keystead.core.vaults.uri import KeyUri, parse_key_uri, vault_name
from keystead.core.vaults.usage import KeyOperation, KeyType, KeyUse

SUFFIX = ".vault.localhost"
VERSION = "0123456789abcdef0123456789abcdef"


@pytest.mark.parametrize(
    ("soft_delete", "purge_protection", "protected", "days", "level"),
    [
        (False, False, False, 90, "Purgeable"),
        (True, False, False, 90, "Recoverable+Purgeable"),
        (True, True, False, 90, "Recoverable"),
        (True, False, True, 90, "Recoverable+ProtectedSubscription"),
        (True, True, True, 90, "Recoverable+ProtectedSubscription"),
        (True, False, False, 89, "CustomizedRecoverable+Purgeable"),
        (True, True, False, 7, "CustomizedRecoverable"),
        (True, False, True, 30, "CustomizedRecoverable+ProtectedSubscription"),
        (True, True, True, 30, "CustomizedRecoverable+ProtectedSubscription"),
    ],
)
def test_recovery_level(*, soft_delete: bool, purge_protection: bool, protected: bool, days: int, level: str) -> None:
    """R-054."""
    found = recovery.recovery_level(
        soft_delete=soft_delete, purge_protection=purge_protection, subscription_protected=protected, retention_days=days
    )
    assert found == level
    assert found.allows_purge == (not purge_protection and not protected)


def test_retention_is_7_to_90_days() -> None:
    """R-046."""
    assert [recovery.retention(days) for days in (7, 90)] == [7, 90]
    for days in (-1, 0, 6, 91):
        with pytest.raises(InvalidRequest) as refused:
            recovery.retention(days)
        assert refused.value.code == "retention_invalid"


def test_a_deleted_thing_is_gone_at_the_end_of_its_retention() -> None:
    """R-050."""
    assert recovery.existence(None, 90, 10**15) is Existence.ACTIVE
    assert recovery.existence(1_000, 7, 1_000 + 7 * DAY - 1) is Existence.DELETED
    assert recovery.existence(1_000, 7, 1_000 + 7 * DAY) is Existence.GONE


def use(**changes: object) -> KeyUse:
    fields: dict[str, object] = {
        "kty": KeyType.RSA,
        "key_ops": frozenset(KeyOperation),
        "enabled": True,
        "not_before": None,
        "expires": None,
    }
    return KeyUse(**(fields | changes))  # type: ignore[arg-type]


def refusal(operation: KeyOperation, key: KeyUse, now: int = 50) -> str:
    try:
        usage.check_use(operation, key, now, "key")
    except PreconditionFailed as refused:
        return refused.code
    return ""


def test_outside_its_dates_a_key_still_opens_what_it_closed() -> None:
    """R-030."""
    opens = {KeyOperation.UNWRAP_KEY, KeyOperation.DECRYPT, KeyOperation.VERIFY}
    for operation in KeyOperation:
        early, late = ("", "") if operation in opens else ("key_not_yet_valid", "key_expired")
        assert refusal(operation, use(not_before=51)) == early
        assert refusal(operation, use(expires=50)) == late
        assert refusal(operation, use(not_before=50, expires=51)) == ""


def test_a_disabled_key_does_nothing() -> None:
    """R-029."""
    assert {refusal(operation, use(enabled=False)) for operation in KeyOperation} == {"key_disabled"}


def test_key_ops_restricts_every_operation() -> None:
    """R-028."""
    for allowed, asked in itertools.product(KeyOperation, KeyOperation):
        assert refusal(asked, use(key_ops=frozenset({allowed}))) == ("" if asked is allowed else "key_operation_not_allowed")


def test_ec_keys_cannot_wrap() -> None:
    """R-024."""
    for kty in (KeyType.EC, KeyType.EC_HSM):
        assert refusal(KeyOperation.WRAP_KEY, use(kty=kty)) == "key_type_cannot_wrap"
        assert refusal(KeyOperation.UNWRAP_KEY, use(kty=kty)) == "key_type_cannot_wrap"
        assert refusal(KeyOperation.SIGN, use(kty=kty)) == ""


def test_types_and_sizes() -> None:
    """R-023."""
    assert [usage.key_kind("rsa", size, None).size for size in (None, 2_048, 3_072, 4_096)] == [2_048, 2_048, 3_072, 4_096]
    assert usage.key_kind("EC", None, None).curve == "P-256"
    for kty, size, curve in (("RSA", 1_024, None), ("RSA", None, "P-256"), ("EC", 2_048, None), ("EC", None, "P-999"), ("oct", None, None)):
        with pytest.raises(InvalidRequest):
            usage.key_kind(kty, size, curve)


def test_at_most_15_tags_of_256_characters() -> None:
    """R-032."""
    assert len(usage.key_tags({str(number): "v" * 256 for number in range(15)})) == 15
    for tags in ({str(number): "" for number in range(16)}, {"n" * 257: ""}, {"n": "v" * 257}, {"": "v"}):
        with pytest.raises(InvalidRequest) as refused:
            usage.key_tags(tags)
        assert refused.value.code == "tags_invalid"


def test_key_names() -> None:
    """R-019."""
    assert usage.key_name("a" * 127) == "a" * 127
    for name in ("", "a" * 128, "USA_key_01", "a b", "ä"):
        with pytest.raises(InvalidRequest):
            usage.key_name(name)


def test_vault_names() -> None:
    """R-016."""
    assert [vault_name(name) for name in ("abc", "Contoso-CK-EX-NA-VaultA1")] == ["abc", "Contoso-CK-EX-NA-VaultA1"]
    for name in ("ab", "1abc", "a--b", "ab-", "contoso_EastUSvault01", "a" * 25):
        with pytest.raises(InvalidRequest):
            vault_name(name)


def test_identifiers_compare_without_case() -> None:
    """R-022."""
    parsed = parse_key_uri(f"HTTPS://MyVault.Vault.LOCALHOST/Keys/Root/{VERSION.upper()}", SUFFIX)
    assert parsed == KeyUri("myvault", "Root", VERSION)
    assert parsed.same_as(KeyUri("MYVAULT", "ROOT", VERSION))
    assert not parsed.same_as(parsed.base())
    assert parse_key_uri(parsed.text(SUFFIX), SUFFIX) == parsed
    assert parsed.base().text(SUFFIX) == "https://myvault.vault.localhost/keys/Root"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "myvault",
        "http://myvault.vault.localhost/keys/root",
        "https://myvault.vault.localhost:8443/keys/root",
        "https://user@myvault.vault.localhost/keys/root",
        "https://myvault.vault.localhost.evil.example/keys/root",
        "https://vault.localhost/keys/root",
        "https://myvault.vault.localhost/secrets/root",
        "https://myvault.vault.localhost/keys/",
        "https://myvault.vault.localhost/keys/root/",
        "https://myvault.vault.localhost/keys/root/1234",
        f"https://myvault.vault.localhost/keys/root/{VERSION}/more",
        "https://myvault.vault.localhost/keys/root?x=1",
        "https://[/keys/root",
    ],
)
def test_nothing_else_is_an_identifier(text: str) -> None:
    """R-022."""
    with pytest.raises(InvalidRequest) as refused:
        parse_key_uri(text, SUFFIX)
    assert refused.value.code == "key_uri_invalid"


def test_the_default_is_six_permissions_without_delete_and_purge() -> None:
    """R-011, R-012, R-041."""
    assert sorted(access.ADMINISTRATOR_PERMISSIONS) == ["backup", "create", "get", "import", "list", "restore"]


def test_permissions_are_from_a_named_list() -> None:
    """R-036."""
    assert access.permissions(["GET", "wrapkey", " unwrapKey"]) == {Permission.GET, Permission.WRAP_KEY, Permission.UNWRAP_KEY}
    with pytest.raises(InvalidRequest) as refused:
        access.permissions(["get", "everything"])
    assert "everything" in refused.value.detail


def test_a_refusal_names_vault_principal_and_permission() -> None:
    """R-037."""
    mail = access.application("00000002-0000-0ff1-ce00-000000000000")
    access.allow(Held(frozenset({Permission.WRAP_KEY})), Permission.WRAP_KEY, mail, "V1")
    with pytest.raises(Forbidden) as refused:
        access.allow(Held(frozenset({Permission.GET})), Permission.WRAP_KEY, mail, "V1")
    assert refused.value.code == "vault_access_denied"
    assert all(word in refused.value.detail for word in ("V1", "mail", "wrapKey"))


def test_three_applications_with_fixed_ids() -> None:
    """R-014."""
    assert len({access.application(name).application_id for name in ("mail", "files", "tenant")}) == 3
    with pytest.raises(InvalidRequest):
        access.application("backup-robot")


def test_regions_pair_both_ways_within_one_geography() -> None:
    for region, geography in regions.GEOGRAPHY.items():
        other = regions.paired_region(region)
        assert other is not None
        assert regions.paired_region(other) == region
        assert regions.GEOGRAPHY[other] == geography
    assert regions.region_name("West Europe") == "westeurope"
    assert regions.paired_region("mars") is None
    with pytest.raises(InvalidRequest):
        regions.region_name("mars")
