"""How deletion behaves: recovery levels (requirements 2.8, R-054) and the states of a deleted thing (R-048, R-050).

Everything is computed when read: a thing whose retention ended is gone at that moment, whether or not a job has removed it yet.
"""

from __future__ import annotations

from enum import StrEnum

from keystead.core.errors import InvalidRequest

DAY = 86_400_000
"""Milliseconds."""

MIN_RETENTION_DAYS = 7
MAX_RETENTION_DAYS = 90
"""Calendar days (R-046); the longest is the default."""


class RecoveryLevel(StrEnum):
    """The seven values."""

    PURGEABLE = "Purgeable"
    RECOVERABLE_PURGEABLE = "Recoverable+Purgeable"
    RECOVERABLE = "Recoverable"
    RECOVERABLE_PROTECTED = "Recoverable+ProtectedSubscription"
    CUSTOMIZED_PURGEABLE = "CustomizedRecoverable+Purgeable"
    CUSTOMIZED = "CustomizedRecoverable"
    CUSTOMIZED_PROTECTED = "CustomizedRecoverable+ProtectedSubscription"

    @property
    def allows_purge(self) -> bool:
        """Whether a person may destroy the thing before its retention ended (R-052, R-056)."""
        return self.value.endswith("Purgeable")


class Existence(StrEnum):
    """States of a vault or key."""

    ACTIVE = "active"
    DELETED = "deleted"
    GONE = "gone"


def recovery_level(*, soft_delete: bool, purge_protection: bool, subscription_protected: bool, retention_days: int) -> RecoveryLevel:
    """The level of everything in a vault (R-054). A protected subscription alone forbids a purge, whatever the vault says (R-056)."""
    if not soft_delete:
        return RecoveryLevel.PURGEABLE
    customized = retention_days < MAX_RETENTION_DAYS
    if subscription_protected:
        return RecoveryLevel.CUSTOMIZED_PROTECTED if customized else RecoveryLevel.RECOVERABLE_PROTECTED
    if purge_protection:
        return RecoveryLevel.CUSTOMIZED if customized else RecoveryLevel.RECOVERABLE
    return RecoveryLevel.CUSTOMIZED_PURGEABLE if customized else RecoveryLevel.RECOVERABLE_PURGEABLE


def retention(days: int) -> int:
    """A valid retention in days.

    Raises:
        InvalidRequest: `retention_invalid`.
    """
    if not MIN_RETENTION_DAYS <= days <= MAX_RETENTION_DAYS:
        raise InvalidRequest(
            "retention_invalid",
            f"{days} days is not a retention",
            f"use {MIN_RETENTION_DAYS} to {MAX_RETENTION_DAYS} days; it cannot be changed later",
        )
    return days


def scheduled_purge(deleted: int, retention_days: int) -> int:
    """When a thing deleted then is gone for good; milliseconds since the epoch, as all times here."""
    return deleted + retention_days * DAY


def existence(deleted: int | None, retention_days: int, now: int) -> Existence:
    """Whether a thing is there, can be brought back, or is gone."""
    if deleted is None:
        return Existence.ACTIVE
    return Existence.DELETED if now < scheduled_purge(deleted, retention_days) else Existence.GONE
