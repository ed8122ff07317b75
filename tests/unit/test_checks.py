"""The creation checks of a policy: facts in, named checks out (requirements 3.3, R-071 to R-077, R-081, R-163)."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from keystead.core.policies.checks import CHECKS, DAY, NO_EXPIRY, REFUSED_SUBSCRIPTIONS, CheckedKey, CheckReport, check_keys, check_pair
from keystead.core.vaults.regions import paired_region

TENANT, OTHER = "11111111-1111-4111-8111-111111111111", "22222222-2222-4222-8222-222222222222"
NOW = 1_780_000_000_000


def key(vault: str = "contosov1", **changes: Any) -> CheckedKey:
    """A key that passes every check."""
    good = CheckedKey(
        uri=f"https://{vault}.vault.localhost/keys/root",
        vault=vault,
        name="root",
        kty="RSA",
        size=2_048,
        enabled=True,
        key_ops=frozenset({"wrapKey", "unwrapKey"}),
        not_before=None,
        expires=None,
        recovery_level="Recoverable+ProtectedSubscription",
        region="westeurope",
        tenant_id=TENANT,
        subscription_id="s1",
        subscription_name="mail-keys-1",
        subscription_kind="paid",
        permissions=frozenset({"get", "wrapKey", "unwrapKey"}),
    )
    return replace(good, **changes)


def second(**changes: Any) -> CheckedKey:
    """Another that passes, in another vault, subscription and region."""
    return key(**({"vault": "contosov2", "region": "eastus", "subscription_id": "s2", "subscription_name": "mail-keys-2"} | changes))


def report(*keys: CheckedKey, unknown_refuses: bool = False) -> CheckReport:
    return check_keys(keys, tenant_id=TENANT, application="mail", now=NOW, paired_region=paired_region, unknown_refuses=unknown_refuses)


def names(found: CheckReport) -> list[str]:
    return [failure.check for failure in found.failed]


def test_two_good_keys_pass_without_a_word() -> None:
    """R-071."""
    assert report(key(), second()) == CheckReport((), ())


ONE_KEY = [
    ({"tenant_id": OTHER}, "own-directory", "subscription of the tenant's own directory"),
    ({"permissions": frozenset({"wrapKey", "unwrapKey"})}, "permission-get", "keystead vault access grant contosov1 --principal mail"),
    ({"permissions": frozenset({"get", "unwrapKey"})}, "permission-wrapKey", "keystead vault access grant contosov1 --principal mail"),
    ({"permissions": frozenset({"get", "wrapKey"})}, "permission-unwrapKey", "keystead vault access grant contosov1 --principal mail"),
    ({"recovery_level": "Recoverable"}, "recovery-level", "keystead subscription protect mail-keys-1"),
    ({"recovery_level": "Recoverable+Purgeable"}, "recovery-level", "keystead subscription protect mail-keys-1"),
    ({"recovery_level": "Purgeable"}, "recovery-level", "keystead subscription protect mail-keys-1"),
    ({"recovery_level": "CustomizedRecoverable+ProtectedSubscription"}, "recovery-level", "retention at 90 days"),
    ({"kty": "EC", "size": 0}, "key-type", "keystead key create contosov1 NAME --kty RSA"),
    ({"size": 1_024}, "key-type", "keystead key create contosov1 NAME --kty RSA"),
    ({"enabled": False}, "key-enabled", "keystead key enable contosov1 root"),
    ({"key_ops": frozenset({"wrapKey"})}, "key-operations", "--ops wrapKey,unwrapKey"),
    ({"key_ops": frozenset({"unwrapKey", "sign"})}, "key-operations", "--ops wrapKey,unwrapKey"),
    ({"key_ops": frozenset()}, "key-operations", "--ops wrapKey,unwrapKey"),
    ({"expires": NOW - 1}, "key-expiry", "--expires 9999-12-31"),
    ({"expires": NOW}, "key-expiry", "--expires 9999-12-31"),
    ({"expires": NOW + DAY}, "key-expiry", "--expires 9999-12-31"),
    ({"expires": NO_EXPIRY - 1}, "key-expiry", "--expires 9999-12-31"),
    ({"expires": NO_EXPIRY + DAY}, "key-expiry", "--expires 9999-12-31"),
    ({"not_before": NOW + 1}, "key-activation", "without an activation date"),
    *(({"subscription_kind": kind}, "subscription-kind", "--kind paid") for kind in sorted(REFUSED_SUBSCRIPTIONS)),
]


@pytest.mark.parametrize("position", [0, 1], ids=["first", "second"])
@pytest.mark.parametrize(("changes", "check", "mend"), ONE_KEY, ids=[f"{check}-{index}" for index, (_, check, _) in enumerate(ONE_KEY)])
def test_one_wrong_fact_fails_one_named_check_with_its_mend(changes: dict[str, Any], check: str, mend: str, position: int) -> None:
    """R-074, R-075, R-076, R-077."""
    keys = [key(), second()]
    keys[position] = replace(keys[position], **changes)
    found = report(*keys)
    assert names(found) == [check]
    failure = found.failed[0]
    assert failure.subject == keys[position].uri
    assert keys[position].vault in failure.detail
    assert mend.replace("contosov1", keys[position].vault).replace("mail-keys-1", str(keys[position].subscription_name)) in failure.mend
    assert found.warnings == ()


@pytest.mark.parametrize(
    "changes",
    [
        {"expires": NO_EXPIRY},
        {"expires": NO_EXPIRY + DAY - 1},
        {"not_before": NOW},
        {"not_before": NOW - DAY},
        {"kty": "RSA-HSM", "size": 4_096},
        {"permissions": frozenset({"get", "wrapKey", "unwrapKey", "list"})},
        {"key_ops": frozenset({"wrapKey", "unwrapKey", "sign"})},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_what_is_good_enough_passes(changes: dict[str, Any]) -> None:
    """R-076, R-077."""
    assert report(replace(key(), **changes), second()) == CheckReport((), ())


def test_the_one_expiry_that_passes_is_the_last_day_of_9999() -> None:
    """R-076."""
    assert datetime(9999, 12, 31, tzinfo=UTC).timestamp() * 1_000 == NO_EXPIRY


@pytest.mark.parametrize("vault", ["contosov1", "CONTOSOV1"])
def test_two_keys_of_one_vault_are_refused_whatever_the_case(vault: str) -> None:
    """R-071."""
    found = report(key(), key(vault=vault, name="other"))
    assert names(found) == ["different-vaults"]
    assert "keystead vault create" in found.failed[0].mend


def test_two_vaults_of_one_subscription_are_refused() -> None:
    """R-072."""
    found = report(key(), second(subscription_id="s1"))
    assert names(found) == ["different-subscriptions"]
    assert "keystead subscription create" in found.failed[0].mend


def test_two_vaults_in_one_region_are_refused() -> None:
    """R-073."""
    found = report(key(), second(region="westeurope"))
    assert names(found) == ["different-regions"]
    assert "--region" in found.failed[0].mend


@pytest.mark.parametrize(("here", "there"), [("westeurope", "northeurope"), ("northeurope", "westeurope"), ("eastus", "westus")])
def test_regions_that_fail_together_are_a_warning(here: str, there: str) -> None:
    """R-073."""
    found = report(key(region=here), second(region=there))
    assert found.failed == ()
    assert [warning.check for warning in found.warnings] == ["paired-regions"]


def test_everything_wrong_is_told_at_once() -> None:
    """R-081."""
    poor: dict[str, Any] = {
        "tenant_id": OTHER,
        "subscription_kind": "trial",
        "permissions": frozenset(),
        "recovery_level": "Recoverable+Purgeable",
        "kty": "EC",
        "size": 0,
        "enabled": False,
        "key_ops": frozenset({"sign"}),
        "expires": NOW - 1,
        "not_before": NOW + 1,
    }
    each = [
        *("own-directory", "subscription-kind", "permission-get", "permission-wrapKey", "permission-unwrapKey"),
        *("recovery-level", "key-type", "key-enabled", "key-operations", "key-expiry", "key-activation"),
    ]
    found = report(key(**poor), second(**poor, subscription_id="s1", region="westeurope"))
    assert names(found) == [*each, *each, "different-subscriptions", "different-regions"]


UNKNOWN = {"region": "different-regions", "subscription_id": "different-subscriptions", "subscription_kind": "subscription-kind"}
UNKNOWN |= {"tenant_id": "own-directory", "recovery_level": "recovery-level"}


@pytest.mark.parametrize(("fact", "check"), UNKNOWN.items())
def test_a_fact_that_a_vault_does_not_tell_is_a_warning_and_by_setting_a_refusal(fact: str, check: str) -> None:
    """R-073, R-075."""
    told = (key(), second(**{fact: None}))
    assert report(*told).failed == ()
    assert [warning.check for warning in report(*told).warnings] == [check]
    assert names(report(*told, unknown_refuses=True)) == [check]
    assert report(*told, unknown_refuses=True).warnings == ()


def test_two_vaults_that_tell_nothing_are_not_taken_for_the_same() -> None:
    """R-072, R-073."""
    failed, warnings = check_pair(key(region=None, subscription_id=None), second(region=None, subscription_id=None), paired_region)
    assert (failed, warnings) == ([], [])


def test_permissions_that_a_vault_does_not_tell_are_left_to_the_round_trip() -> None:
    """R-074."""
    assert report(key(permissions=None), second()) == CheckReport((), ())


def test_every_check_made_here_is_in_the_published_list() -> None:
    made = {check for _changes, check, _mend in ONE_KEY} | {
        "different-vaults",
        "different-subscriptions",
        "different-regions",
        "paired-regions",
    }
    assert made <= set(CHECKS)
    assert all(CHECKS.values())
