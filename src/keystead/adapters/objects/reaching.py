"""How the store of a container is reached: its address, its bucket, and a client that calls nothing else.

obstore takes a store's configuration from the environment too (AWS_ENDPOINT_URL_S3, AZURE_STORAGE_USE_EMULATOR, HTTP_PROXY), follows
redirects, and asks a machine's metadata service for credentials when it is given none. None of this may decide where ciphertext goes:

- every value that the environment could set is given; the two that cannot be switched off by a value are refused;
- credentials are always given;
- every host but the store's own is reached through a proxy that does not exist. So redirects to elsewhere, and proxies that the
  environment names, come to nothing.
"""

from __future__ import annotations

import os
import re
import ssl
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from ipaddress import ip_address
from typing import TYPE_CHECKING, cast
from urllib.parse import urlsplit

from obstore.exceptions import BaseError
from obstore.store import AzureStore, S3Store

from keystead.adapters.objects import references
from keystead.adapters.objects.credentials import AzureCredentials, CredentialsFile, S3Credentials, azure_provider, s3_provider
from keystead.core.configuration import ContainerKind
from keystead.core.errors import InvalidRequest

if TYPE_CHECKING:
    from pathlib import Path

    from obstore.store import ClientConfig, ObjectStore, RetryConfig

    from keystead.core.configuration import ContainerConfig, ObjectsConfig

CONNECT_TIMEOUT = 5_000
"""Milliseconds to connect, at most."""
NOWHERE = "http://127.0.0.1:0"
"""Nothing can listen on port 0."""
_PREFIX = re.compile(r"[A-Za-z0-9_.-]+(/[A-Za-z0-9_.-]+)*")
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,62}")
_WORD = re.compile(r"[a-z0-9-]{1,63}")
"""Regions and accounts: they become part of a host name."""
_NOT_TO_BE_SET = frozenset({"AWS_CHECKSUM_ALGORITHM", "AWS_SERVER_SIDE_ENCRYPTION"})
"""What obstore takes from the environment and no given value undoes."""


@dataclass(frozen=True, slots=True)
class Reach:
    """Where a container is.

    Attributes:
        kind: S3 or Azure.
        scheme, host, port, path: of its endpoint.
        bucket, prefix: within it; region: of S3; account: of Azure.
        certificates: PEM of further certificate authorities; empty for the usual ones.
        timeout: milliseconds for one request; retries: how often a lost answer is asked again.
    """

    kind: ContainerKind
    scheme: str
    host: str
    port: int
    path: str
    bucket: str
    prefix: str
    region: str
    account: str
    certificates: str
    timeout: int
    retries: int

    @property
    def endpoint(self) -> str:
        """Its address."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        port = "" if (self.scheme, self.port) in {("https", 443), ("http", 80)} else f":{self.port}"
        return f"{self.scheme}://{host}{port}{self.path}"

    def context(self) -> ssl.SSLContext:
        """What its certificate is checked with."""
        context = ssl.create_default_context()
        if self.certificates:
            context.load_verify_locations(cadata=self.certificates)
        return context

    def opened(
        self,
        credentials: CredentialsFile[S3Credentials] | CredentialsFile[AzureCredentials],
        timeout: int,
        retries: int,
        *,
        each_request: bool,
    ) -> ObjectStore:
        """A client for it.

        Args:
            credentials: with what.
            timeout: milliseconds for one request.
            retries: how often the client repeats one by itself.
            each_request: ask for the credentials before each request; otherwise once, for as long as the client is used.

        Raises:
            InvalidRequest: the environment would change what it does, or a value cannot be meant.
        """
        for variable in sorted(os.environ):
            if variable.upper() in _NOT_TO_BE_SET:
                raise InvalidRequest(
                    "configuration_invalid",
                    f"the environment's {variable} would change how objects are stored",
                    f"start Keystead without {variable}",
                )
        options: ClientConfig = {
            "allow_http": self.scheme == "http",
            "connect_timeout": timedelta(milliseconds=min(CONNECT_TIMEOUT, timeout)),
            "timeout": timedelta(milliseconds=timeout),
            "proxy_url": NOWHERE,
            "proxy_excludes": self.host,
        }
        if self.certificates:
            options["root_certificate"] = self.certificates
        patience: RetryConfig = {
            "max_retries": retries,
            "retry_timeout": timedelta(milliseconds=timeout * (retries + 1)),
            "backoff": {"init_backoff": timedelta(milliseconds=100), "max_backoff": timedelta(seconds=5), "base": 2},
        }
        try:
            return self._client(credentials, options, patience, each_request=each_request)
        except (BaseError, ValueError, TypeError):
            raise InvalidRequest(
                "configuration_invalid",
                f"the store at {self.host} cannot be called as it is configured",
                "check ca_file, endpoint and bucket of its container in keystead.toml",
            ) from None

    def _client(
        self,
        credentials: CredentialsFile[S3Credentials] | CredentialsFile[AzureCredentials],
        options: ClientConfig,
        patience: RetryConfig,
        *,
        each_request: bool,
    ) -> ObjectStore:
        if self.kind is ContainerKind.S3:
            return S3Store(
                self.bucket,
                prefix=self.prefix or None,
                config={
                    "endpoint": self.endpoint,
                    "aws_endpoint_url_s3": self.endpoint,
                    "region": self.region,
                    "virtual_hosted_style_request": False,
                    "skip_signature": False,
                    "unsigned_payload": False,
                    "s3_express": False,
                    "request_payer": False,
                    "disable_tagging": False,
                    "disable_bulk_delete": True,  # each key by a request of its own: every store knows that one
                    "conditional_put": "etag",
                    "copy_if_not_exists": "multipart",
                },
                client_options=options,
                retry_config=patience,
                credential_provider=partial(s3_provider, cast("CredentialsFile[S3Credentials]", credentials), each_request=each_request),
            )
        return AzureStore(
            self.bucket,
            prefix=self.prefix or None,
            config={
                "account_name": self.account,
                "endpoint": self.endpoint,
                "skip_signature": False,
                "use_emulator": False,
                "use_fabric_endpoint": False,
                "use_azure_cli": False,
                "disable_tagging": False,
            },
            client_options=options,
            retry_config=patience,
            credential_provider=partial(azure_provider, cast("CredentialsFile[AzureCredentials]", credentials), each_request=each_request),
        )


def reach_of(container: ContainerConfig, config: ObjectsConfig, home: Path) -> Reach:
    """Where a container is, from its configuration.

    Args:
        container: kept by S3 or Azure.
        config: what it is part of.
        home: folder that relative paths count from.

    Raises:
        InvalidRequest: it cannot be meant.
    """
    name = container.name
    if not _BUCKET.fullmatch(container.bucket):
        raise references.unfit(name, "bucket is 2 to 63 lower-case letters, digits, dots and hyphens")
    if container.prefix and (not _PREFIX.fullmatch(container.prefix) or {".", ".."} & set(container.prefix.split("/"))):
        raise references.unfit(name, "prefix is made of letters, digits, _, . and -, in parts with single slashes between them")
    for what, value, needed in (
        ("region", container.region, container.kind is ContainerKind.S3),
        ("account", container.account, container.kind is ContainerKind.AZURE),
    ):
        if (value or needed) and not _WORD.fullmatch(value):
            raise references.unfit(name, f"{what} is made of lower-case letters, digits and hyphens")
    if config.timeout < 1:
        raise references.unfit(name, "timeout is at least a millisecond")
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
        raise references.unfit(name, "endpoint is no address") from None
    host = parts.hostname or ""
    if parts.username is not None or parts.query or parts.fragment or not re.fullmatch(r"[a-z0-9.:-]+", host):
        raise references.unfit(name, "endpoint is an address like https://storage.example:9000")
    if parts.scheme != "https" and not (parts.scheme == "http" and allow_http and _loopback(host)):
        raise references.unfit(name, "endpoint begins with https://; http:// is for loopback addresses, with allow_http = true")
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
        raise references.unfit(name, f"its ca_file {file.name} cannot be read as PEM") from None
