"""The audit record (requirements 10.2, R-209) and the vocabulary of operations.

A record holds ids and directory names, never content. Administrative acts carry the name of the command administrators of the field
know; every parameter of the act is listed as a name and a value.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

EXCHANGE, SHAREPOINT = "Exchange", "SharePoint"
"""Workloads of records."""
FALLBACK = "Fallback to Availability Key"
SIGN_IN_FAILED = "UserLoginFailed"
CALLS_REFUSED = "CallsRefused"

OPERATIONS: Mapping[str, str] = {
    "tenant.create": "New-Tenant",
    "tenant.onboard": "New-CustomerKeyOnboardingRequest",
    "user.add": "New-User",
    "user.remove": "Remove-User",
    "user.claim": "Redeem-ClaimToken",
    "user.reissue-claim": "New-ClaimToken",
    "tenant.reissue-claim": "New-ClaimToken",
    "token.create": "New-ServiceToken",
    "token.revoke": "Remove-Token",
    "token.renew": "Update-SignInToken",
    "provider-token.create": "New-ServiceToken",
    "provider-token.revoke": "Remove-Token",
    "sign-in-provider.set": "Set-SignInProvider",
    "sign-in-provider.remove": "Remove-SignInProvider",
    "signing-key.rotate": "Update-SigningKey",
    "policy.create": "New-DataEncryptionPolicy",
    "policy.refresh": "Set-DataEncryptionPolicy",
    "policy.set": "Set-DataEncryptionPolicy",
    "policy.enable": "Set-DataEncryptionPolicy",
    "policy.disable": "Set-DataEncryptionPolicy",
    "mailbox.create": "New-Mailbox",
    "mailbox.assign": "Set-Mailbox",
    "mailbox.unassign": "Set-Mailbox",
    "mailbox.delete": "Remove-Mailbox",
    "mailbox.delegate": "Add-MailboxPermission",
    "mailbox.import": "New-MailboxImportRequest",
    "mailbox.import-item": "New-MailboxImportRequest",
    "mailbox.read": "MailItemsAccessed",
    "mailbox.items": "MailItemsAccessed",
    "mailbox.delete-item": "HardDelete",
    "mailbox.search": "New-MailboxSearch",
    "files.register": "Register-SPODataEncryptionPolicy",
    "files.roll": "Update-SPODataEncryptionPolicy",
    "files.recover": "Restore-SPODataEncryptionPolicy",
    "files.revert": "Unregister-SPODataEncryptionPolicy",
    "site.create": "SiteCreated",
    "site.set": "SiteChanged",
    "site.delete": "SiteDeleted",
    "site.member.add": "SiteMemberAdded",
    "site.member.remove": "SiteMemberRemoved",
    "site.unlock": "SiteUnlocked",
    "job.cancel": "Remove-MoveRequest",
    "keystore.rotate": "Update-KeyStoreEpoch",
    "keystore.roll": "Update-AvailabilityKey",
    "keystore.roll-files": "Update-AvailabilityKey",
    "settings.set": "Set-KeysteadSetting",
    "alerts.test": "Test-AlertHook",
    "dev.clock.advance": "Set-DevClock",
    "dev.fault": "Set-DevFault",
}
"""Route to operation name. A route that changes something and is not here is recorded under its own name."""


class RecordType(IntEnum):
    """The record types of requirements 10.2 in use so far."""

    EXCHANGE_ADMIN = 1
    EXCHANGE_ITEM = 2
    SHAREPOINT = 4
    SHAREPOINT_FILE = 6
    DATA_CENTER = 10
    SIGN_IN = 15
    COMPLIANCE = 18
    CUSTOMER_KEY = 69


class UserType(IntEnum):
    """Who acted."""

    REGULAR = 0
    ADMIN = 2
    DATA_CENTER = 3
    SYSTEM = 4


SYSTEM_ACCOUNT = "NT AUTHORITY\\SYSTEM (keystead)"
"""Shown as the user of acts the service does by itself."""


@dataclass(frozen=True, slots=True)
class AuditRecord:
    """One act. `result_status` is `Succeeded` or `Failed`; `parameters` are names and values in order."""

    id: str
    creation_time: int
    record_type: RecordType
    operation: str
    organization_id: str
    user_type: UserType
    user_key: str
    user_id: str
    workload: str
    result_status: str
    object_id: str
    client_ip: str
    external_access: bool
    request_id: str
    parameters: tuple[tuple[str, str], ...] = ()
