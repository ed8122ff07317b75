"""The creation checks of a policy's customer keys, of mail and of files alike: asking for facts, and trying the keys (R-070 to R-078)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from keystead.api.types.policies import CheckView, KeyHealthView
from keystead.core.errors import FailedCheck
from keystead.core.keys.key_uri import split_key_uri
from keystead.core.keys.outcome import OutcomeClass
from keystead.core.policies.checks import NEEDED_PERMISSIONS, CheckedKey, check_keys
from keystead.core.policies.policy import CUSTOMER_ROLES, CopyRole
from keystead.core.tenancy import APPLICATIONS
from keystead.core.vaults.regions import paired_region
from keystead.ports.vaults import UNKNOWN, VaultFailure
from keystead.services.keyring import raise_for

if TYPE_CHECKING:
    from collections.abc import Sequence

    from keystead.core.keys.outcome import Outcome
    from keystead.core.policies.policy import Policy, PolicyCopy, Workload
    from keystead.core.secret import SecretKey
    from keystead.services.context import Services
    from keystead.services.keyring import KeyHealth


@dataclass(frozen=True, slots=True)
class KeyReport:
    """What the checks said: failures refuse, warnings do not."""

    failed: tuple[FailedCheck, ...]
    warnings: tuple[FailedCheck, ...]


def check_known(services: Services, tenant_id: str, workload: Workload, uris: Sequence[str]) -> tuple[KeyReport, list[CheckedKey]]:
    """The checks that need only the facts of the keys, of each and of the two together.

    Args:
        services: the service.
        tenant_id: whose keys.
        workload: for which they are to be used: it decides as which application the service asks.
        uris: identifiers as they will be used: of mail without a version, of files with one (R-105).

    Returns:
        The report, and the facts of the keys that could be had.
    """
    facts, missing = key_facts(services, tenant_id, workload, uris)
    report = check_keys(
        facts,
        tenant_id=tenant_id,
        application=workload.value,
        now=services.clock.now(),
        paired_region=paired_region,
        unknown_refuses=services.settings.unknown_facts_refuse,
    )
    return KeyReport((*missing, *report.failed), report.warnings), facts


def check_new(services: Services, tenant_id: str, workload: Workload, uris: Sequence[str]) -> KeyReport:
    """Every check of two keys that a policy is to be made with: onboarding, facts, and one wrap and unwrap with each (R-074, R-081)."""
    failed: list[FailedCheck] = []
    with services.db.read() as tx:
        onboarding = tx.tenants.onboarding(tenant_id, workload.value)
    if onboarding is None:
        failed.append(
            FailedCheck(
                "onboarded",
                f"the tenant has not completed onboarding for {workload}",
                f"keystead tenant onboard --workload {workload} --subscription S --subscription S",
            )
        )
    if len(uris) != len(CUSTOMER_ROLES):
        failed.append(FailedCheck("two-keys", f"{len(uris)} keys are named; exactly two are needed", "name two with --key, in two vaults"))
    report, facts = check_known(services, tenant_id, workload, uris)
    failed += report.failed
    failed += [
        FailedCheck(
            "subscription-onboarded",
            f"the subscription {fact.subscription_name} of the vault {fact.vault} was not named at onboarding",
            f"keystead tenant onboard --workload {workload} with both subscriptions",
            fact.uri,
        )
        for fact in facts
        if onboarding is not None and fact.subscription_id is not None and fact.subscription_id not in onboarding.subscription_ids
    ]
    troubled = {check.subject for check in failed}
    for fact in facts:
        if fact.uri not in troubled:
            outcome = services.keyring.round_trip(tenant_id, fact.uri, workload)
            if outcome.kind is not OutcomeClass.SUCCESS:
                failed.append(_round_trip_check(fact, outcome))
    return KeyReport(tuple(failed), report.warnings)


def three_copies(services: Services, policy: Policy, version_id: str, uris: Sequence[str], key: SecretKey) -> list[PolicyCopy]:
    """A policy's key wrapped by both customer keys and by the availability key (R-080, R-110).

    Args:
        services: the service.
        policy: whose key.
        version_id: of the policy version they are for.
        uris: of the customer keys; the version that is named wraps, the current one where none is.
        key: the policy key.

    Raises:
        KeyDenied, Unavailable, IntegrityFailure: a vault did not.
    """
    copies = []
    for role, uri in zip(CUSTOMER_ROLES, uris, strict=True):
        try:
            copies.append(services.keyring.wrap_customer(policy, version_id, role, uri, key))
        except VaultFailure as failure:
            raise_for(failure.outcome, f"the {role} key {uri}")
    return [*copies, services.keyring.wrap_stored(policy, version_id, CopyRole.AVAILABILITY, policy.availability_key_id, key)]


def key_facts(services: Services, tenant_id: str, workload: Workload, uris: Sequence[str]) -> tuple[list[CheckedKey], list[FailedCheck]]:
    """Facts of the keys that can be had, and a failed check for each that cannot."""
    facts: list[CheckedKey] = []
    failed: list[FailedCheck] = []
    for uri in uris:
        try:
            found = services.vaults.key_facts(tenant_id, APPLICATIONS[workload.value], uri)
        except VaultFailure as failure:
            if failure.outcome.kind is OutcomeClass.SYSTEM_ERROR:
                failed.append(
                    FailedCheck(
                        "vault-answers",
                        f"the vault of {uri} does not answer: {failure.outcome.reason}",
                        "try again when it can be reached",
                        uri,
                    )
                )
            elif failure.outcome.reason in _NOT_REGISTERED:
                failed.append(
                    FailedCheck(
                        "key-registered",
                        f"{uri} does not lie in a vault of the tenant",
                        "keystead vault list shows the tenant's vaults",
                        uri,
                    )
                )
            elif failure.outcome.reason in _NO_PERMISSION:
                failed.append(
                    FailedCheck(
                        "permission-get",
                        f"the service may not get {uri}: {failure.outcome.reason}",
                        f"give its application {', '.join(NEEDED_PERMISSIONS)} on the vault",
                        uri,
                    )
                )
            else:
                failed.append(
                    FailedCheck(
                        "key-exists",
                        f"{uri} cannot be had: {failure.outcome.reason}",
                        "keystead key list VAULT shows the vault's keys",
                        uri,
                    )
                )
            continue
        subscription = found.subscription
        facts.append(
            CheckedKey(
                uri=uri,
                vault=found.vault,
                name=split_key_uri(uri).name,
                kty=found.kty,
                size=found.size,
                enabled=found.enabled,
                key_ops=found.key_ops,
                not_before=found.not_before,
                expires=found.expires,
                recovery_level=found.recovery_level,
                region=found.region,
                tenant_id=found.tenant_id,
                subscription_id=subscription.id if subscription else None,
                subscription_name=subscription.name if subscription else None,
                subscription_kind=subscription.kind if subscription and subscription.kind != UNKNOWN else None,
                permissions=found.permissions,
            )
        )
    return facts, failed


def check_views(checks: Sequence[FailedCheck]) -> list[CheckView]:
    """Checks as they are shown."""
    return [CheckView(check=check.check, subject=check.subject, detail=check.detail, mend=check.mend) for check in checks]


def health_views(keys: Sequence[KeyHealth]) -> list[KeyHealthView]:
    """What keys said just now, as it is shown (R-256)."""
    return [KeyHealthView(role=key.role.value, uri=key.key_uri, outcome=key.outcome.kind.value, reason=key.outcome.reason) for key in keys]


_NOT_REGISTERED = frozenset({"vault-another-tenant", "vault-not-found", "key-uri-invalid"})
"""Reasons of a vault side that knows no such vault of this tenant."""
_NO_PERMISSION = frozenset({"http-403 AccessDenied", "http-403 ForbiddenByPolicy", "http-403 ForbiddenByRbac"})
"""Reasons of a vault elsewhere that misses a permission: it tells nobody beforehand which ones they hold."""


def _round_trip_check(fact: CheckedKey, outcome: Outcome) -> FailedCheck:
    step, _, reason = outcome.reason.partition(": ")
    if outcome.kind is OutcomeClass.DENIED and reason in _NO_PERMISSION:
        return FailedCheck(
            f"permission-{step}",
            f"the service may not {step} with {fact.name} in {fact.vault}: {reason}",
            f"give its application {', '.join(NEEDED_PERMISSIONS)} on the vault",
            fact.uri,
        )
    return FailedCheck(
        "vault-answers" if outcome.kind is OutcomeClass.SYSTEM_ERROR else "round-trip",
        f"wrapping and unwrapping with {fact.name} in {fact.vault} failed: {outcome.reason}",
        "keystead vault log VAULT shows why",
        fact.uri,
    )
