"""The key vault embedded in a home, as the service sees it: calls its use cases as one of the service's applications."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from keystead.core.errors import IntegrityFailure, InvalidRequest, KeysteadError, Unavailable
from keystead.core.keys.outcome import Outcome, OutcomeClass
from keystead.core.vaults.algorithms import Encryption
from keystead.ports.vaults import VaultFailure
from keystead.vault.crypto import key_facts, unwrap_key, wrap_key
from keystead.vault.services import Identity, VaultServices, application_of
from keystead.vault.subscriptions import facts

if TYPE_CHECKING:
    from collections.abc import Iterator

    from keystead.ports.vaults import KeyFacts, SubscriptionFacts, WrappedValue

SUBSCRIPTION_READER = "mail"
"""Subscription facts are asked for during onboarding, which is not one workload's; the log names this application."""


class EmbeddedVaults:
    """See `ports/vaults.py`. There is no network between: the only system error is a vault database that cannot be used."""

    def __init__(self, vault: VaultServices) -> None:
        self._vault = vault

    def key_facts(self, tenant_id: str, application: str, key_uri: str) -> KeyFacts:
        """See the port; answers without `get` too, since its facts name the permissions held."""
        with _classified():
            return key_facts(self._vault, self._identity(tenant_id, application), key_uri)

    def subscription_facts(self, tenant_id: str, name: str) -> SubscriptionFacts:
        """See the port."""
        with _classified():
            return facts(self._vault, self._identity(tenant_id, SUBSCRIPTION_READER), name)

    def wrap(self, tenant_id: str, application: str, key_uri: str, value: bytes) -> WrappedValue:
        """See the port."""
        with _classified():
            return wrap_key(self._vault, self._identity(tenant_id, application), key_uri, Encryption.RSA_OAEP_256, value)

    def unwrap(self, tenant_id: str, application: str, key_uri: str, value: bytes) -> bytes:
        """See the port."""
        with _classified():
            return unwrap_key(self._vault, self._identity(tenant_id, application), key_uri, Encryption.RSA_OAEP_256, value)

    def _identity(self, tenant_id: str, application: str) -> Identity:
        return application_of(application, tenant_id)


@contextmanager
def _classified() -> Iterator[None]:
    """The vault's errors as outcomes (design section 5).

    Everything the vault refuses or does not find is the customer's word, so it is a denial: missing permission, disabled, expired for
    wrapping, soft-deleted, purged, vault or key not there.
    """
    try:
        yield
    except KeysteadError as error:
        raise VaultFailure(Outcome(_kind(error), error.code.replace("_", "-"))) from error


def _kind(error: KeysteadError) -> OutcomeClass:
    if isinstance(error, Unavailable):
        return OutcomeClass.SYSTEM_ERROR
    if isinstance(error, IntegrityFailure | InvalidRequest):
        return OutcomeClass.INTEGRITY
    return OutcomeClass.DENIED
