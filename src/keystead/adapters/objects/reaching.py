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
import ssl
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, cast

from obstore.exceptions import BaseError
from obstore.store import AzureStore, S3Store

from keystead.adapters.objects.credentials import AzureCredentials, CredentialsFile, S3Credentials, azure_provider, s3_provider
from keystead.core.configuration import ContainerKind
from keystead.core.errors import InvalidRequest

if TYPE_CHECKING:
    from obstore.store import ClientConfig, ObjectStore, RetryConfig

CONNECT_TIMEOUT = 5_000
"""Milliseconds to connect, at most."""
NOWHERE = "http://127.0.0.1:0"
"""Nothing can listen on port 0."""
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
        self, credentials: CredentialsFile[S3Credentials] | CredentialsFile[AzureCredentials], timeout: int, retries: int
    ) -> ObjectStore:
        """A client for it.

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
            return self._client(credentials, options, patience)
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
                credential_provider=partial(s3_provider, cast("CredentialsFile[S3Credentials]", credentials)),
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
            credential_provider=partial(azure_provider, cast("CredentialsFile[AzureCredentials]", credentials)),
        )
