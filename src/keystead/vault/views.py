"""What the vault shows of what it stores."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

from keystead.api.types.base import utc, utc_or_none
from keystead.api.types.vaults import AccessView, KeyView, SubscriptionView, VaultLogEntry, VaultLogIdentity, VaultLogProperties, VaultView
from keystead.core.vaults.access import PrincipalKind
from keystead.core.vaults.recovery import scheduled_purge
from keystead.core.vaults.regions import GEOGRAPHY
from keystead.core.vaults.uri import KeyUri
from keystead.vault.lookup import level, protection, vault_state
from keystead.vault.material import public_pem

if TYPE_CHECKING:
    from collections.abc import Mapping

    from keystead.ports.vault_store import AccessEntry, KeyVersion, LogRecord, Subscription, Vault


@dataclass(frozen=True, slots=True)
class KeyShown:
    """What a use case found or made: a key version, its vault, and the time at which that was so. Each face shows it in its own shape."""

    vault: Vault
    version: KeyVersion
    now: int
    suffix: str

    @property
    def id(self) -> str:
        """Its full identifier inside this service; the log names it."""
        return key_uri(self.vault, self.version, self.suffix)

    @property
    def view(self) -> KeyView:
        """As the service's own interface shows it."""
        return key_view(self.vault, self.version, self.suffix, self.now)


def subscription_state(subscription: Subscription) -> str:
    """`Enabled` or `Cancelled`."""
    return "Cancelled" if subscription.cancelled else "Enabled"


def subscription_view(subscription: Subscription, now: int) -> SubscriptionView:
    """A subscription as it is now."""
    return SubscriptionView(
        id=subscription.id,
        name=subscription.name,
        kind=subscription.kind,
        state=subscription_state(subscription),
        protection=protection(subscription, now),
        created=utc(subscription.created),
        created_by=subscription.created_by,
    )


def vault_view(vault: Vault, suffix: str, now: int) -> VaultView:
    """A vault as it is now."""
    return VaultView(
        id=vault.id,
        name=vault.name,
        uri=f"https://{vault.name.lower()}{suffix}",
        subscription=vault.subscription.name,
        subscription_id=vault.subscription.id,
        resource_group=vault.resource_group,
        region=vault.region,
        geography=GEOGRAPHY[vault.region],
        sku=vault.sku,
        rbac=vault.rbac,
        soft_delete=True,
        purge_protection=vault.purge_protection,
        retention_days=vault.retention_days,
        recovery_level=level(vault, now),
        state=vault_state(vault, now),
        created=utc(vault.created),
        deleted=utc_or_none(vault.deleted),
        scheduled_purge=None if vault.deleted is None else utc(scheduled_purge(vault.deleted, vault.retention_days)),
        read_only=vault.read_only,
    )


def access_view(vault: Vault, entry: AccessEntry, client_name: str = "") -> AccessView:
    """One line of an access policy; a client is shown by the name it has, beside its id."""
    return AccessView(
        vault=vault.name,
        kind=entry.principal.kind,
        principal=client_name or entry.principal.name,
        application_id=entry.principal.application_id or None,
        permissions=sorted(entry.held.effective),
        roles=sorted(entry.held.roles),
        contributor=entry.held.contributor,
    )


def key_uri(vault: Vault, version: KeyVersion, suffix: str) -> str:
    """The full identifier of a key version."""
    return KeyUri(vault.name, version.key.name, version.version).text(suffix)


def key_view(vault: Vault, version: KeyVersion, suffix: str, now: int) -> KeyView:
    """A key version as it is now. `hardware` is false for every key of this vault: its private keys are sealed in software."""
    deleted = version.key.deleted
    return KeyView(
        id=key_uri(vault, version, suffix),
        base_id=KeyUri(vault.name, version.key.name).text(suffix),
        vault=vault.name,
        name=version.key.name,
        version=version.version,
        kty=version.kty,
        size=version.size,
        curve=version.curve or None,
        key_ops=sorted(version.key_ops),
        enabled=version.enabled,
        not_before=utc_or_none(version.not_before),
        expires=utc_or_none(version.expires),
        created=utc(version.created),
        updated=utc(version.updated),
        recovery_level=level(vault, now),
        recoverable_days=vault.retention_days,
        hardware=False,
        tags=version.tags,
        public_key=public_pem(version.public_key),
        deleted=utc_or_none(deleted),
        scheduled_purge=None if deleted is None else utc(scheduled_purge(deleted, vault.retention_days)),
    )


def log_entry(number: int, record: LogRecord, clients: Mapping[str, str] = MappingProxyType({})) -> VaultLogEntry:
    """One record of the log; `clients`: the names of clients by id, as far as they are still there."""
    person = record.identity_kind == PrincipalKind.PERSON
    return VaultLogEntry(
        number=number,
        time=utc(record.time),
        resource_id=record.resource_id,
        operation_name=record.operation_name,
        operation_version=record.operation_version,
        category=record.category,
        result_type=record.result_type,
        result_signature=record.result_signature,
        result_description=record.result_description,
        duration_ms=record.duration_ms,
        caller_ip_address=record.caller_ip_address,
        correlation_id=record.correlation_id,
        identity=VaultLogIdentity(
            kind=record.identity_kind,
            upn=record.identity_name if person else None,
            application=None if person else clients.get(record.identity_name, record.identity_name),
            application_id=record.identity_application_id or None,
        ),
        properties=VaultLogProperties(
            client_info=record.client_info, request_uri=record.request_uri, id=record.object_id, http_status_code=record.http_status_code
        ),
    )
