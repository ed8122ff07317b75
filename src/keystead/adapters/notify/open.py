"""The hooks of keystead.toml, checked and ready."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from keystead.adapters.notify.http import HttpHook, check_url
from keystead.adapters.notify.limits import NAME, is_host, is_loopback, tls_context, unfit
from keystead.adapters.notify.mail import MailHook, check_address
from keystead.core.alerts import AlertKind
from keystead.core.configuration import HookKind

if TYPE_CHECKING:
    from pathlib import Path

    from keystead.core.configuration import Configuration, HookConfig
    from keystead.ports.notify import Hook

MOST_HOOKS = 20
MOST_RECIPIENTS = 20
SMTP_PORT = 25


def open_hooks(configuration: Configuration, folder: Path) -> tuple[Hook, ...]:
    """The hooks of a configuration. Nothing is called yet, and secrets are read when they are used.

    Args:
        configuration: what keystead.toml says.
        folder: of the installation; relative names of files count from it.

    Raises:
        InvalidRequest: a hook that cannot be used.
    """
    names = [config.name for config in configuration.hooks]
    for name in names:
        if not NAME.fullmatch(name):
            raise unfit(repr(name), "its name is not 1 to 32 lower-case letters, digits and hyphens")
        if names.count(name) > 1:
            raise unfit(name, "another hook has the same name")
    if len(names) > MOST_HOOKS:
        raise unfit(names[-1], f"there are more than {MOST_HOOKS}")
    return tuple(_opened(config, folder) for config in configuration.hooks)


def _opened(config: HookConfig, folder: Path) -> Hook:
    kinds = frozenset(_kind(config.name, text) for text in config.alerts)
    ca_file = folder / config.ca_file if config.ca_file else None
    if config.kind is HookKind.HTTP:
        _unused(config, "server", "sender", "recipients", "user", "password_file")
        url = check_url(config.name, config.url)
        if not config.secret_file:
            raise unfit(config.name, "it lacks secret_file")
        return HttpHook(config.name, kinds, config.tenant, url, folder / config.secret_file, tls_context(config.name, ca_file))
    _unused(config, "url", "secret_file")
    server = _server(config.name, config.server)
    if not 1 <= len(config.recipients) <= MOST_RECIPIENTS:
        raise unfit(config.name, f"it has {len(config.recipients)} recipients, not 1 to {MOST_RECIPIENTS}")
    if bool(config.user) != bool(config.password_file):
        raise unfit(config.name, "user and password_file come together")
    tls = tls_context(config.name, ca_file)
    if ca_file is None and is_loopback(server[0]):
        # A mail server of this machine rarely has a certificate for its loopback name. Whoever could pose as it here could read along anyway.
        tls.check_hostname = False
        tls.verify_mode = ssl.CERT_NONE
    return MailHook(
        config.name,
        kinds,
        config.tenant,
        server,
        check_address(config.name, config.sender),
        tuple(check_address(config.name, address) for address in config.recipients),
        tls,
        (config.user, folder / config.password_file) if config.user else None,
    )


def _kind(name: str, text: str) -> AlertKind:
    try:
        return AlertKind(text)
    except ValueError:
        raise unfit(name, f"there is no kind of alert {text!r}") from None


def _server(name: str, text: str) -> tuple[str, int]:
    try:
        parts = urlsplit(f"smtp://{text}")
        host, port = parts.hostname or "", parts.port or SMTP_PORT
    except ValueError:
        raise unfit(name, "its server is not HOST:PORT") from None
    if parts.netloc != text or "@" in text or not is_host(host):
        raise unfit(name, "its server is not HOST:PORT")
    return host, port


def _unused(config: HookConfig, *names: str) -> None:
    """What belongs to the other kind of hook must not seem to be heeded."""
    for name in names:
        if getattr(config, name):
            raise unfit(config.name, f"a hook of kind {config.kind} has no {name}")
