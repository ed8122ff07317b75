"""Faults on demand, for dev homes: `keystead dev fault VAULT KIND` (design section 8).

A fault is a small file named after the vault, so it holds in every process of the home until it is taken back. It hits only the
provider's principals, because it stands in front of the port that only the service uses: the customer's own commands go past it.
"""

from __future__ import annotations

import os
from enum import StrEnum
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from keystead.core.errors import InvalidRequest
from keystead.core.ids import VAULT_NAME
from keystead.core.keys.outcome import Outcome, OutcomeClass
from keystead.core.vaults.uri import vault_name
from keystead.ports.vaults import VaultFailure

if TYPE_CHECKING:
    from pathlib import Path

    from keystead.ports.clock import Clock
    from keystead.ports.vaults import KeyFacts, SubscriptionFacts, Vaults, WrappedValue

TIMEOUT_MS = 5_000
"""The service's own time limit for one vault call."""
SLOW_MS = 1_000


class Fault(StrEnum):
    """What can go wrong between the service and a vault."""

    TIMEOUT = "timeout"
    SLOW = "slow"
    CONNECTION_REFUSED = "connection-refused"
    DNS = "dns"
    TLS = "tls"
    HTTP_500 = "http-500"
    HTTP_429 = "http-429"
    HTTP_401 = "http-401"
    HTTP_403 = "http-403"
    FIREWALL = "firewall"
    WRONG_BYTES = "wrong-bytes"
    NONE = "none"


_FAILURES = {
    Fault.TIMEOUT: Outcome(OutcomeClass.SYSTEM_ERROR, "timeout"),
    Fault.CONNECTION_REFUSED: Outcome(OutcomeClass.SYSTEM_ERROR, "connection-refused"),
    Fault.DNS: Outcome(OutcomeClass.SYSTEM_ERROR, "dns"),
    Fault.TLS: Outcome(OutcomeClass.SYSTEM_ERROR, "tls"),
    Fault.HTTP_500: Outcome(OutcomeClass.SYSTEM_ERROR, "http-500"),
    Fault.HTTP_429: Outcome(OutcomeClass.SYSTEM_ERROR, "http-429"),
    # 401 means our own secret expired: the customer said nothing.
    Fault.HTTP_401: Outcome(OutcomeClass.SYSTEM_ERROR, "http-401"),
    Fault.HTTP_403: Outcome(OutcomeClass.DENIED, "http-403 AccessDenied"),
    Fault.FIREWALL: Outcome(OutcomeClass.DENIED, "http-403 ForbiddenByFirewall"),
}
"""How each is classified (design section 5); a policy refusal and a firewall refusal are told apart by their reasons (R-043)."""


class FaultyVaults:
    """See `ports/vaults.py`: passes every call on, unless the vault it names has a fault."""

    def __init__(self, inner: Vaults, folder: Path, clock: Clock, timeout_ms: int = TIMEOUT_MS) -> None:
        self._inner = inner
        self._folder = folder
        self._clock = clock
        self._timeout_ms = timeout_ms

    def key_facts(self, tenant_id: str, application: str, key_uri: str) -> KeyFacts:
        """See the port."""
        self._meet(key_uri)
        return self._inner.key_facts(tenant_id, application, key_uri)

    def subscription_facts(self, tenant_id: str, name: str) -> SubscriptionFacts:
        """See the port; a subscription is not behind a vault, so no fault hits it."""
        return self._inner.subscription_facts(tenant_id, name)

    def wrap(self, tenant_id: str, application: str, key_uri: str, value: bytes) -> WrappedValue:
        """See the port."""
        self._meet(key_uri)
        return self._inner.wrap(tenant_id, application, key_uri, value)

    def unwrap(self, tenant_id: str, application: str, key_uri: str, value: bytes) -> bytes:
        """See the port; with `wrong-bytes` every bit of the answer is wrong."""
        fault = self._meet(key_uri)
        answer = self._inner.unwrap(tenant_id, application, key_uri, value)
        return bytes(byte ^ 0xFF for byte in answer) if fault is Fault.WRONG_BYTES else answer

    def _meet(self, key_uri: str) -> Fault:
        """Fail or wait as the vault's fault says."""
        vault = _vault_of(key_uri)
        fault = Fault.NONE if vault is None else present_fault(self._folder, vault)
        if fault is Fault.SLOW:
            self._clock.sleep(SLOW_MS)
        if fault is Fault.TIMEOUT:
            self._clock.sleep(self._timeout_ms)
        if fault in _FAILURES:
            raise VaultFailure(_FAILURES[fault])
        return fault


def set_fault(folder: Path, vault: str, kind: str) -> Fault:
    """Give a vault a fault, or take it back with `none`. Processes see the old fault or the new one, never half a file.

    Raises:
        InvalidRequest: `fault_unknown`, or not a vault name.
    """
    try:
        fault = Fault(kind.lower())
    except ValueError:
        raise InvalidRequest("fault_unknown", f"{kind!r} is not a fault", f"use one of {', '.join(Fault)}") from None
    place = folder / vault_name(vault).lower()
    if fault is Fault.NONE:
        place.unlink(missing_ok=True)
        return fault
    folder.mkdir(parents=True, exist_ok=True)
    # A name that no vault can have; it is left behind by a crash before the rename, and then means nothing.
    fresh = folder / f".{place.name}.{os.getpid()}"
    fresh.write_text(fault)
    fresh.replace(place)
    return fault


def present_fault(folder: Path, vault: str) -> Fault:
    """The fault of a vault; NONE where there is none."""
    try:
        return Fault((folder / vault.lower()).read_text())
    except FileNotFoundError:
        return Fault.NONE


def _vault_of(key_uri: str) -> str | None:
    """The vault in a key identifier: the first label of its host. None for what is not one; the vault itself refuses that."""
    try:
        label = (urlsplit(key_uri).hostname or "").partition(".")[0]
    except ValueError:
        return None
    return label if VAULT_NAME.fullmatch(label) else None
