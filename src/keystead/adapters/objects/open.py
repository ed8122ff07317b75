"""The object store that a configuration asks for."""

from __future__ import annotations

import re
from ipaddress import ip_address
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from keystead.adapters.objects import references
from keystead.adapters.objects.folder import FolderObjects
from keystead.core.configuration import ContainerConfig, ContainerKind, ObjectsConfig
from keystead.core.errors import InvalidRequest

if TYPE_CHECKING:
    from pathlib import Path

    from keystead.adapters.objects.containers import Container
    from keystead.adapters.objects.reaching import Reach
    from keystead.ports.objects import ObjectStore

_PREFIX = re.compile(r"[A-Za-z0-9_.-]+(/[A-Za-z0-9_.-]+)*")
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,62}")
_WORD = re.compile(r"[a-z0-9-]{1,63}")
"""Regions and accounts: they become part of a host name."""


def open_objects(config: ObjectsConfig, home: Path) -> ObjectStore:
    """The folders of the home, or the containers that are configured. Nothing is called or read yet but certificates.

    Args:
        config: `[objects]` of keystead.toml.
        home: folder that relative paths count from.

    Raises:
        InvalidRequest: the configuration cannot be meant.
    """
    if not config.containers:
        return FolderObjects(home / "objects")
    from keystead.adapters.objects.containers import Containers  # noqa: PLC0415 - most homes have none

    names = [container.name for container in config.containers]
    for name in names:
        if not references.is_container(name) or names.count(name) > 1:
            raise _unfit(name, "containers are named c0 to c99, each name once")
    accepting = [container.name for container in config.containers if container.accepts_new]
    if not accepting:
        raise _unfit(names[0], "at least one container must have accepts_new = true, or nothing can be stored")
    return Containers({container.name: _container(container, config, home) for container in config.containers}, accepting)


def _container(container: ContainerConfig, config: ObjectsConfig, home: Path) -> Container:
    if container.kind is ContainerKind.FOLDER:
        if not container.path:
            raise _unfit(container.name, "a folder needs a path")
        return FolderObjects(home / container.path, only=container.name)
    # obstore takes 20 ms to load: only for whom it is.
    from keystead.adapters.objects.credentials import AzureCredentials, CredentialsFile, S3Credentials  # noqa: PLC0415 - as said
    from keystead.adapters.objects.remote import RemoteObjects  # noqa: PLC0415 - as said

    if not container.credentials_file:
        raise _unfit(container.name, "a remote container needs a credentials_file")
    reach, file = _reach(container, config, home), home / container.credentials_file
    if container.kind is ContainerKind.S3:
        return RemoteObjects(container.name, reach, CredentialsFile(file, S3Credentials, container.name))
    return RemoteObjects(container.name, reach, CredentialsFile(file, AzureCredentials, container.name))


def _reach(container: ContainerConfig, config: ObjectsConfig, home: Path) -> Reach:
    from keystead.adapters.objects.reaching import Reach  # noqa: PLC0415 - as in _container

    name = container.name
    if not _BUCKET.fullmatch(container.bucket):
        raise _unfit(name, "bucket is 2 to 63 lower-case letters, digits, dots and hyphens")
    if container.prefix and (not _PREFIX.fullmatch(container.prefix) or {".", ".."} & set(container.prefix.split("/"))):
        raise _unfit(name, "prefix is made of letters, digits, _, . and -, in parts with single slashes between them")
    for what, value, needed in (
        ("region", container.region, container.kind is ContainerKind.S3),
        ("account", container.account, container.kind is ContainerKind.AZURE),
    ):
        if (value or needed) and not _WORD.fullmatch(value):
            raise _unfit(name, f"{what} is made of lower-case letters, digits and hyphens")
    if config.timeout < 1:
        raise _unfit(name, "timeout is at least a millisecond")
    public = (
        f"https://s3.{container.region}.amazonaws.com"
        if container.kind is ContainerKind.S3
        else f"https://{container.account}.blob.core.windows.net"
    )
    scheme, host, port, path = _address(name, container.endpoint or public, allow_http=container.allow_http)
    return Reach(
        kind=container.kind,
        scheme=scheme,
        host=host,
        port=port,
        path=path,
        bucket=container.bucket,
        prefix=container.prefix,
        region=container.region,
        account=container.account,
        certificates=_certificates(name, home / container.ca_file) if container.ca_file else "",
        timeout=config.timeout,
        retries=config.retries,
    )


def _address(name: str, endpoint: str, *, allow_http: bool) -> tuple[str, str, int, str]:
    """Scheme, host, port and path of an endpoint: https, or http to this machine where that is allowed."""
    try:
        parts = urlsplit(endpoint)
        port = parts.port
    except ValueError:
        raise _unfit(name, "endpoint is no address") from None
    host = parts.hostname or ""
    if parts.username is not None or parts.query or parts.fragment or not re.fullmatch(r"[a-z0-9.:-]+", host):
        raise _unfit(name, "endpoint is an address like https://storage.example:9000")
    if parts.scheme != "https" and not (parts.scheme == "http" and allow_http and _loopback(host)):
        raise _unfit(name, "endpoint begins with https://; http:// is for loopback addresses, with allow_http = true")
    return parts.scheme, host, port or (443 if parts.scheme == "https" else 80), parts.path.rstrip("/")


def _loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _certificates(name: str, file: Path) -> str:
    try:
        return file.read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError):
        raise _unfit(name, f"its ca_file {file.name} cannot be read as PEM") from None


def _unfit(name: str, why: str) -> InvalidRequest:
    return InvalidRequest(
        "configuration_invalid", f"container {name} of keystead.toml cannot be used: {why}", "docs/howto/object-stores.md has examples"
    )
