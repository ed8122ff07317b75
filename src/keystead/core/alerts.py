"""Conditions that somebody should know of before a customer does."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class AlertKind(StrEnum):
    """Each is raised for a subject, kept while it lasts, and resolved by itself."""

    KEY_DEGRADED = "key-degraded"
    KEY_DENIED = "key-denied"
    KEY_UNREACHABLE = "key-unreachable"
    KEY_INTEGRITY = "key-integrity"
    CACHE_NEAR_EXPIRY = "cache-near-expiry"
    JOB_FAILING = "job-failing"
    ORPHANS = "orphans-marked"
    """Keys or objects that no row names will be removed: after a crash that is right, after restoring an older database it is not."""
    KEY_STORE = "key-store-access"
    """Something tried to open the key store, or a key in it, other than the service does (R-153)."""


@dataclass(frozen=True, slots=True)
class Alert:
    """One condition. `tenant_id` is empty for the installation's own; `resolved` is None while it lasts; `detail` holds ids and key URIs only."""

    tenant_id: str
    kind: AlertKind
    subject_id: str
    raised: int
    resolved: int | None
    detail: str
