"""Which vault side a key lies with: the home's own vault, or one of the vaults elsewhere that keystead.toml lists.

A key's host decides, and nothing else: the home's own suffix first, then the entries of `[[vaults]]`, an exact name before a suffix. No
host outside that list is ever called, whatever a key identifier says, and an entry serves only the tenants it names.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from threading import Lock
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from keystead.core.errors import InvalidRequest
from keystead.core.ids import is_id
from keystead.core.keys.key_uri import split_key_uri
from keystead.core.keys.outcome import Outcome, OutcomeClass
from keystead.core.vaults.regions import region_name
from keystead.ports.vaults import VaultFailure

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from keystead.adapters.vaults.azure import AzureVaults
    from keystead.core.configuration import ForeignVaultConfig
    from keystead.core.settings import Settings
    from keystead.ports.clock import Clock
    from keystead.ports.vaults import KeyFacts, SubscriptionFacts, Vaults, WrappedValue

KINDS = frozenset({"", "paid", "trial", "free", "sponsored", "msdn", "legacy"})
_LABEL = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_HOST = re.compile(rf"(?P<any>\*\.)?(?P<name>{_LABEL}(?:\.{_LABEL})*)(?::(?P<port>[0-9]{{1,5}}))?")
_ONE_LABEL = re.compile(_LABEL)
_LOOPBACK = re.compile(r"127(?:\.[0-9]{1,3}){3}:[0-9]{1,5}")


@dataclass(frozen=True, slots=True)
class Hosts:
    """The hosts of one entry: exact names, and suffixes with their leading dot. Lower case, with the port where one is named."""

    exact: frozenset[str]
    suffixes: frozenset[str]

    def names(self, host: str) -> bool:
        """Whether HOST or HOST:PORT, in lower case, is one of these."""
        return host in self.exact or self.covers(host)

    def covers(self, host: str) -> bool:
        """Whether a suffix covers it: one label, then exactly the suffix, port and all."""
        label, dot, rest = host.partition(".")
        return _ONE_LABEL.fullmatch(label) is not None and dot + rest in self.suffixes


class RoutedVaults:
    """See `ports/vaults.py`: passes every call to the side the key lies with."""

    def __init__(self, own: Vaults, own_suffix: str, entries: Sequence[Entry], tenant_of: Callable[[str], str | None]) -> None:
        """No call is made yet.

        Args:
            own: the vault of the home; also answers for hosts that nobody listed, which it refuses as no key identifiers.
            own_suffix: what follows a vault's name in the hosts of the home.
            entries: of the configuration, checked.
            tenant_of: id of the tenant of a domain; None for none.
        """
        self._own = own
        self._own_suffix = own_suffix.lower()
        self._entries = tuple(entries)
        self._tenant_of = tenant_of

    def key_facts(self, tenant_id: str, application: str, key_uri: str) -> KeyFacts:
        """See the port."""
        return self._side(tenant_id, key_uri).key_facts(tenant_id, application, key_uri)

    def subscription_facts(self, tenant_id: str, name: str) -> SubscriptionFacts:
        """See the port: of the home's own vault, else what the operator states of an entry that the tenant may use."""
        try:
            return self._own.subscription_facts(tenant_id, name)
        except VaultFailure as failure:
            for entry in self._entries:
                stated = entry.config.subscription
                if stated and stated.lower() == name.lower() and self._may_use(entry, tenant_id):
                    return entry.vaults().subscription_facts(tenant_id, name)
            raise failure from None

    def wrap(self, tenant_id: str, application: str, key_uri: str, value: bytes) -> WrappedValue:
        """See the port."""
        return self._side(tenant_id, key_uri).wrap(tenant_id, application, key_uri, value)

    def unwrap(self, tenant_id: str, application: str, key_uri: str, value: bytes) -> bytes:
        """See the port."""
        return self._side(tenant_id, key_uri).unwrap(tenant_id, application, key_uri, value)

    def close(self) -> None:
        """Close what was opened to vaults elsewhere."""
        for entry in self._entries:
            entry.close()

    def _side(self, tenant_id: str, key_uri: str) -> Vaults:
        try:
            host = split_key_uri(key_uri).host
        except InvalidRequest:
            return self._own
        if host.endswith(self._own_suffix):
            return self._own
        found = next((one for one in self._entries if host in one.hosts.exact), None)
        found = found or next((one for one in self._entries if one.hosts.covers(host)), None)
        if found is None:
            return self._own
        if not self._may_use(found, tenant_id):
            raise VaultFailure(Outcome(OutcomeClass.DENIED, "vault-another-tenant"))
        return found.vaults()

    def _may_use(self, entry: Entry, tenant_id: str) -> bool:
        """Domains are looked up at each call: whose a domain is decides, not whose it was."""
        named = entry.config.tenants
        return tenant_id in named or any(self._tenant_of(one) == tenant_id for one in named if not is_id(one))


class Entry:
    """One entry of `[[vaults]]`, checked. The SDK behind it is loaded when a key of it is first used: most commands never do."""

    def __init__(self, config: ForeignVaultConfig, folder: Path, settings: Settings, clock: Clock) -> None:
        """Check an entry.

        Raises:
            InvalidRequest: `configuration_invalid`.
        """
        self.config = config
        self.hosts = _hosts(config)
        _check(config, self.hosts)
        self._folder = folder
        self._settings = settings
        self._clock = clock
        self._opened: AzureVaults | None = None
        self._lock = Lock()

    def vaults(self) -> Vaults:
        """What speaks to its hosts."""
        with self._lock:
            if self._opened is None:
                from keystead.adapters.vaults.azure import AzureVaults  # noqa: PLC0415 - the SDK takes most of a second to load

                self._opened = AzureVaults(self.config, self._folder, self._settings, self._clock, self.hosts.names)
            return self._opened

    def close(self) -> None:
        """Close its connections, where there are any."""
        if self._opened is not None:
            self._opened.close()


def open_entries(configs: Sequence[ForeignVaultConfig], folder: Path, settings: Settings, clock: Clock) -> list[Entry]:
    """The entries of `[[vaults]]`.

    Args:
        configs: as read.
        folder: where relative paths count from.
        settings: for time limits.
        clock: time.

    Raises:
        InvalidRequest: `configuration_invalid`: one does not fit, or two have one name or one host.
    """
    entries = [Entry(config, folder, settings, clock) for config in configs]
    names: set[str] = set()
    for entry in entries:
        for name in (f"the name {entry.config.name}", *(f"the host {host}" for host in entry.config.hosts)):
            if name.lower() in names:
                raise _unfit(entry.config, f"{name} is there twice")
            names.add(name.lower())
    return entries


def _hosts(config: ForeignVaultConfig) -> Hosts:
    exact, suffixes = set(), set()
    for host in config.hosts:
        match = _HOST.fullmatch(host.lower())
        if match is None or int(match["port"] or 443) not in range(1, 65_536):
            raise _unfit(config, f"{host!r} is not HOST, HOST:PORT or *.SUFFIX")
        if not match["any"]:
            exact.add(host.lower())
        elif "." in match["name"]:
            suffixes.add(host.lower()[1:])
        else:
            raise _unfit(config, f"{host!r} is too wide: name two labels after *. at least")
    return Hosts(frozenset(exact), frozenset(suffixes))


def _check(config: ForeignVaultConfig, hosts: Hosts) -> None:
    for field in ("name", "hosts", "directory", "client_id", "client_secret_file"):
        if not getattr(config, field):
            raise _unfit(config, f"{field} is missing")
    authority = urlsplit(config.authority)
    if authority.scheme != "https" or not authority.netloc or "@" in authority.netloc or authority.query or authority.fragment:
        raise _unfit(config, f"authority is an https address, not {config.authority!r}")
    if authority.path not in {"", "/"}:
        raise _unfit(config, "authority is an address without a path; the directory has a name of its own")
    if not config.verify_challenge and (hosts.suffixes or not all(_LOOPBACK.fullmatch(host) for host in hosts.exact)):
        raise _unfit(config, "verify_challenge is false for bare loopback addresses (127.0.0.1:PORT) alone")
    if config.subscription_kind not in KINDS:
        raise _unfit(config, f"subscription_kind is one of {', '.join(sorted(KINDS - {''}))}, not {config.subscription_kind!r}")
    if config.region:
        try:
            same = region_name(config.region) == config.region
        except InvalidRequest:
            same = False
        if not same:
            raise _unfit(config, f"region is one the creation checks know, in lower case, not {config.region!r}")


def _unfit(config: ForeignVaultConfig, what: str) -> InvalidRequest:
    return InvalidRequest(
        "configuration_invalid", f"[[vaults]] {config.name or 'without a name'} cannot be used: {what}", "docs/settings.md lists every name"
    )
