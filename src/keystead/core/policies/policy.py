"""Data encryption policies: what is stored about one, and its states.

A policy's id never changes. Each refresh makes a new *version* with an id of its own, holding three copies of the same policy key:
one wrapped by each customer key, one by the availability key (R-080). Nothing below a policy names a version, so a refresh re-seals
nothing below (design section 4).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

MAX_PER_TENANT = 50
"""Mailbox policies of one tenant that are not purged (R-078)."""

POLICY_KEY_VERSION = 1
"""Version of the policy key itself. A refresh re-wraps the same key, so this number names the parent in the tiers below."""


class Workload(StrEnum):
    """Whose data a policy protects. PROVIDER is the provider's own default policy, the floor under everything (R-252).

    A FILES policy is made by registering a geo, and is known by that geo, never by name; its key is the tenant intermediate key (TIK).
    """

    MAIL = "mail"
    FILES = "files"
    PROVIDER = "provider"


class CopyRole(StrEnum):
    """The three copies of a policy key, and the provider's only one."""

    PRIMARY = "primary"
    SECONDARY = "secondary"
    AVAILABILITY = "availability"
    PROVIDER = "provider"


CUSTOMER_ROLES = (CopyRole.PRIMARY, CopyRole.SECONDARY)


@dataclass(frozen=True, slots=True)
class Policy:
    """One policy.

    Attributes:
        check_value: one-way check of the policy key, compared after every unwrap (docs/spec/keys.md).
        shred_key_id: the key store key whose destruction makes all envelopes of the policy worthless.
        availability_key_id: the key store key that wraps the availability copy; empty for provider policies.
    """

    id: str
    tenant_id: str
    workload: Workload
    name: str
    description: str
    enabled: bool
    created: int
    version_id: str
    version: int
    check_value: bytes
    shred_key_id: str
    availability_key_id: str

    @property
    def state(self) -> str:
        """`Active` or `Disabled`."""
        return "Active" if self.enabled else "Disabled"


@dataclass(frozen=True, slots=True)
class PolicyVersion:
    """One version: made by `created` or `refreshed`."""

    id: str
    policy_id: str
    number: int
    created: int
    reason: str


@dataclass(frozen=True, slots=True)
class PolicyCopy:
    """One wrapped copy of a policy key, in its envelope.

    Attributes:
        key_uri: full URI of the key version that wrapped it; `availability:ID` or `provider:ID` for keys of the key store.
        algorithm: RSA-OAEP-256 for customer keys, AVAILABILITY for keys of the key store.
        envelope: AES-256-GCM box under the policy's shred key (docs/spec/envelope.md).
    """

    version_id: str
    role: CopyRole
    key_uri: str
    algorithm: str
    envelope: bytes


@dataclass(frozen=True, slots=True)
class PolicyState:
    """What the latest probe of a policy's keys said, shared by all processes.

    Attributes:
        generation: counts evictions; a cached key of an older generation is not used.
        probed_at: when the latest pair of outcomes was written, 0 for never.
        succeeded_at: when a pair last had a checked success, 0 for never.
        mixed_since: since when pairs have been one denial and one system error; 0 when they are not.
        outcomes: class and reason per role, in the order primary, secondary.
    """

    policy_id: str
    generation: int
    probed_at: int
    succeeded_at: int
    mixed_since: int
    primary: str
    primary_reason: str
    secondary: str
    secondary_reason: str
