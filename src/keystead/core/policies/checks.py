"""The creation checks of a mailbox policy (requirements 3.3, R-070 to R-078, R-163): facts in, failed checks out.

Every check that can be made is made, so that a person sees all that is wrong at once (R-081). A fact may be *unknown*, where a foreign
vault does not tell: that is a named warning, which a setting can make a refusal.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from keystead.core.errors import FailedCheck

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

NO_EXPIRY = int(datetime(9999, 12, 31, tzinfo=UTC).timestamp()) * 1_000
"""The one expiry a customer key may carry, 9999-12-31, to the day (requirements 2.4)."""
DAY = 86_400_000

NEEDED_PERMISSIONS = ("get", "wrapKey", "unwrapKey")
NEEDED_OPERATIONS = ("wrapKey", "unwrapKey")
REFUSED_SUBSCRIPTIONS = frozenset({"trial", "free", "sponsored", "msdn", "legacy"})
NEEDED_RECOVERY_LEVEL = "Recoverable+ProtectedSubscription"

CHECKS: dict[str, str] = {
    "two-keys": "Exactly two keys are named.",
    "key-registered": "Each key lies in a vault of the tenant that the service may call.",
    "key-exists": "Each key is found in its vault, not deleted.",
    "vault-answers": "Each vault answers.",
    "different-vaults": "The keys lie in two different vaults.",
    "different-subscriptions": "The vaults lie in two different subscriptions.",
    "different-regions": "The vaults lie in two different regions.",
    "paired-regions": "The regions are not a pair that fails together (warning).",
    "own-directory": "Both subscriptions belong to the tenant's own directory.",
    "subscription-kind": "Neither subscription is of a kind that can vanish.",
    "subscription-onboarded": "Both subscriptions were named when the tenant was onboarded.",
    "permission-get": "The service may get the key.",
    "permission-wrapKey": "The service may wrap with the key.",
    "permission-unwrapKey": "The service may unwrap with the key.",
    "recovery-level": "The key's recovery level is Recoverable+ProtectedSubscription.",
    "key-type": "The key is RSA with at least 2048 bits.",
    "key-enabled": "The key is enabled.",
    "key-operations": "The key allows wrapKey and unwrapKey.",
    "key-expiry": "The key has no expiry, or 9999-12-31.",
    "key-activation": "The key's activation date is not in the future.",
    "round-trip": "What the key wraps it unwraps to the same bytes.",
    "policy-limit": "The tenant has fewer than 50 mailbox policies.",
    "policy-name": "No other policy of the tenant has the name.",
    "onboarded": "The tenant completed onboarding for the workload.",
}
"""Name and meaning of every check; docs/checks.md is made from it."""


@dataclass(frozen=True, slots=True)
class CheckedKey:
    """One key as the checks see it; None is unknown. Times in milliseconds."""

    uri: str
    vault: str
    name: str
    kty: str
    size: int
    enabled: bool
    key_ops: frozenset[str]
    not_before: int | None
    expires: int | None
    recovery_level: str | None
    region: str | None
    tenant_id: str | None
    subscription_id: str | None
    subscription_name: str | None
    subscription_kind: str | None
    permissions: frozenset[str] | None


@dataclass(frozen=True, slots=True)
class CheckReport:
    """Failed checks refuse; warnings do not."""

    failed: tuple[FailedCheck, ...]
    warnings: tuple[FailedCheck, ...]


def check_key(key: CheckedKey, tenant_id: str, application: str, now: int) -> list[FailedCheck]:  # noqa: C901 - a list of checks, each two lines
    """The checks that concern one key alone."""
    failed: list[FailedCheck] = []

    def fail(check: str, detail: str, mend: str) -> None:
        failed.append(FailedCheck(check, detail, mend, key.uri))

    if key.tenant_id is not None and key.tenant_id != tenant_id:
        fail(
            "own-directory",
            f"the vault {key.vault} belongs to another directory",
            "use a vault in a subscription of the tenant's own directory",
        )
    if key.subscription_kind in REFUSED_SUBSCRIPTIONS:
        fail(
            "subscription-kind",
            f"the subscription {key.subscription_name} of the vault {key.vault} is {key.subscription_kind}; keys in it can vanish with it",
            "move to a paid subscription: keystead subscription create NAME --kind paid",
        )
    for permission in NEEDED_PERMISSIONS:
        if key.permissions is not None and permission not in key.permissions:
            fail(
                f"permission-{permission}",
                f"the service principal {application} lacks {permission} on the vault {key.vault}",
                f"keystead vault access grant {key.vault} --principal {application} --permissions {','.join(NEEDED_PERMISSIONS)}",
            )
    if key.recovery_level is not None and key.recovery_level != NEEDED_RECOVERY_LEVEL:
        fail(
            "recovery-level",
            f"the recovery level of {key.name} in {key.vault} is {key.recovery_level}, not {NEEDED_RECOVERY_LEVEL}",
            f"keystead subscription protect {key.subscription_name or 'SUBSCRIPTION'} (and keep the vault's retention at 90 days)",
        )
    if not key.kty.startswith("RSA") or key.size < 2_048:
        fail(
            "key-type",
            f"{key.name} in {key.vault} is {key.kty} of {key.size} bits; only RSA keys of at least 2048 bits wrap",
            f"keystead key create {key.vault} NAME --kty RSA --size 2048",
        )
    if not key.enabled:
        fail("key-enabled", f"{key.name} in {key.vault} is disabled", f"keystead key enable {key.vault} {key.name}")
    missing = [operation for operation in NEEDED_OPERATIONS if operation not in key.key_ops]
    if missing:
        fail(
            "key-operations",
            f"{key.name} in {key.vault} does not allow {' and '.join(missing)}",
            f"keystead key create {key.vault} NAME --ops wrapKey,unwrapKey",
        )
    if key.expires is not None and not NO_EXPIRY <= key.expires < NO_EXPIRY + DAY:
        state = "has expired" if key.expires <= now else "has an expiry date"
        fail(
            "key-expiry",
            f"{key.name} in {key.vault} {state}; an expiry once set cannot be removed, and an expired key takes the service down",
            f"keystead key update {key.vault} {key.name} --expires 9999-12-31, or create a key without expiry",
        )
    if key.not_before is not None and key.not_before > now:
        fail(
            "key-activation",
            f"{key.name} in {key.vault} is not yet active",
            f"keystead key create {key.vault} NAME without an activation date",
        )
    return failed


def check_pair(
    first: CheckedKey, second: CheckedKey, paired_region: Callable[[str], str | None]
) -> tuple[list[FailedCheck], list[FailedCheck]]:
    """The checks that concern the two keys together: failures, and warnings."""
    failed: list[FailedCheck] = []
    warnings: list[FailedCheck] = []
    if first.vault.lower() == second.vault.lower():
        failed.append(
            FailedCheck(
                "different-vaults",
                f"both keys lie in the vault {first.vault}",
                "keystead vault create NAME in another subscription and region",
                second.uri,
            )
        )
        return failed, warnings
    if first.subscription_id is not None and first.subscription_id == second.subscription_id:
        failed.append(
            FailedCheck(
                "different-subscriptions",
                f"the vaults {first.vault} and {second.vault} lie in the same subscription, {first.subscription_name}",
                "keystead subscription create NAME, and create one of the vaults there",
                second.uri,
            )
        )
    if first.region is not None and second.region is not None:
        if first.region == second.region:
            failed.append(
                FailedCheck(
                    "different-regions",
                    f"the vaults {first.vault} and {second.vault} lie in the same region, {first.region}",
                    "keystead vault create NAME --region with another region",
                    second.uri,
                )
            )
        elif paired_region(first.region) == second.region:
            warnings.append(
                FailedCheck(
                    "paired-regions",
                    f"{first.region} and {second.region} are a pair that fails over to each other",
                    "choose two regions that are not paired",
                    second.uri,
                )
            )
    return failed, warnings


def unknown_facts(keys: Iterable[CheckedKey]) -> list[FailedCheck]:
    """Facts a vault did not tell, each a warning under the name of the check it leaves open."""
    facts = (
        ("region", "different-regions"),
        ("subscription_id", "different-subscriptions"),
        ("subscription_kind", "subscription-kind"),
        ("tenant_id", "own-directory"),
        ("recovery_level", "recovery-level"),
    )
    return [
        FailedCheck(
            check,
            f"the vault {key.vault} does not tell its {fact.replace('_', ' ')}",
            "verify it with the vault's owner",
            key.uri,
        )
        for key in keys
        for fact, check in facts
        if getattr(key, fact) is None
    ]


def check_keys(
    keys: Sequence[CheckedKey],
    *,
    tenant_id: str,
    application: str,
    now: int,
    paired_region: Callable[[str], str | None],
    unknown_refuses: bool = False,
) -> CheckReport:
    """All checks that need only the facts of the keys; those of each key, then those of the pair."""
    failed = [failure for key in keys for failure in check_key(key, tenant_id, application, now)]
    warnings: list[FailedCheck] = []
    if len(keys) == 2:
        pair_failed, warnings = check_pair(keys[0], keys[1], paired_region)
        failed += pair_failed
    unknown = unknown_facts(keys)
    return CheckReport(tuple(failed + (unknown if unknown_refuses else [])), tuple(warnings + ([] if unknown_refuses else unknown)))
