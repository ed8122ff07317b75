"""What an installation is made of: where its stores are, where it listens, whom it tells (docs/settings.md).

Numbers that change how Keystead behaves are in `keystead.core.settings`; this is where things are. Read by `keystead.settings` from the
home's keystead.toml and the environment. Nothing here is a secret: passwords and keys are named by the file they lie in. A relative
path counts from the home's folder. An empty value means the embedded default: a file or folder of the home.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum


@dataclass(frozen=True, slots=True)
class InstallationConfig:
    """What a fleet is; a home says it in home.json instead.

    Attributes:
        dev: whoever can run keystead here may act as anybody; clock and faults can be set.
        operator: UPN of the provider's first person.
    """

    dev: bool = False
    operator: str = "operator@provider.example"


@dataclass(frozen=True, slots=True)
class DatabaseConfig:
    """One SQL database.

    Attributes:
        url: `postgresql://USER@HOST/NAME`, without a password; a private socket is named as `?host=FOLDER`. Empty: a SQLite file of the home.
        password_file: file whose first line is the password; empty where none is needed.
        pool: how many connections a process keeps at most.
    """

    url: str = ""
    password_file: str = ""
    pool: int = 16


@dataclass(frozen=True, slots=True)
class KeystoreConfig:
    """The key store: a database of its own, with a user of its own, and what opens it.

    Attributes:
        url: of its own PostgreSQL database, as the service's. Empty: a SQLite file of the home.
        password_file: as of the database.
        pool: as of the database.
        seals: folder of the epoch keys. Processes of one installation share it; it is never in the same backup as the database.
        master_file: the 32 bytes that open the epoch keys.
    """

    url: str = ""
    password_file: str = ""
    pool: int = 4
    seals: str = "seals"
    master_file: str = "seals/keystore.master"

    @property
    def database(self) -> DatabaseConfig:
        """Where its rows are."""
        return DatabaseConfig(self.url, self.password_file, self.pool)


@dataclass(frozen=True, slots=True)
class VaultConfig:
    """The embedded key vault.

    Attributes:
        url: of its own PostgreSQL database, as the service's. Empty: a SQLite file of the home.
        password_file: as of the database.
        pool: as of the database.
        seal_file: the 32 bytes that open the vault's database; its owner alone may read it.
        seal_passphrase_file: file whose first line is a passphrase that opens it instead. KEYSTEAD_VAULT_SEAL_PASSPHRASE may hold one too.
        release_authorities: attestation services whose word a key may be released on, as exact addresses: the vault calls no other. None:
            no key is released.
        release_key_hosts: hosts at which they may publish their keys, beside their own.
        release_ca_file: PEM of certificate authorities for them, in place of the system's.
        tls_certificate_file, tls_key_file: PEM, both or none, for `keystead vault serve`. None: of a private authority in the folder `tls`.
    """

    url: str = ""
    password_file: str = ""
    pool: int = 8
    seal_file: str = "seals/vault.seal"
    seal_passphrase_file: str = ""
    release_authorities: tuple[str, ...] = ()
    release_key_hosts: tuple[str, ...] = ()
    release_ca_file: str = ""
    tls_certificate_file: str = ""
    tls_key_file: str = ""

    @property
    def database(self) -> DatabaseConfig:
        """Where its rows are."""
        return DatabaseConfig(self.url, self.password_file, self.pool)


class ForeignVaultKind(StrEnum):
    """What protocol a key vault elsewhere speaks."""

    AZURE = "azure"


@dataclass(frozen=True, slots=True)
class ForeignVaultConfig:
    """Key vaults elsewhere that policies may hold their keys in: Azure Key Vault, or another `keystead vault serve`.

    Where several name a host, the one that names it exactly wins over a `*.` suffix. What a vault does not tell about itself is unknown,
    which policy checks warn of, unless the operator states it here.

    Attributes:
        name: of this entry, in messages.
        kind: `azure`: the keys REST API of Azure Key Vault, with OAuth 2 client credentials.
        hosts: HOST or HOST:PORT, exactly, or `*.SUFFIX` for one label before it: the service calls no other.
        tenants: domains or ids of the tenants whose policies may name keys there. None: nobody's.
        authority: https address where tokens are issued, without the directory.
        directory: id of the directory (there called tenant) the vaults belong to.
        client_id: the service's application in that directory.
        client_secret_file: file whose first line is its secret. Read again when it changes: so a secret is rotated by replacing the file.
        ca_file: PEM of certificate authorities for vaults and authority, in place of the system's.
        verify_challenge: whether a vault's host must lie under the resource it asks a token for. False for bare loopback addresses alone,
            where the resource is the vault's own address.
        region: where the vaults are, as the creation checks know regions; a vault's own word counts where this is empty.
        subscription: name or id of their subscription; empty: unknown.
        subscription_kind: paid, trial, free, sponsored, msdn or legacy; empty: unknown.
    """

    name: str
    kind: ForeignVaultKind = ForeignVaultKind.AZURE
    hosts: tuple[str, ...] = ()
    tenants: tuple[str, ...] = ()
    authority: str = "https://login.microsoftonline.com"
    directory: str = ""
    client_id: str = ""
    client_secret_file: str = ""
    ca_file: str = ""
    verify_challenge: bool = True
    region: str = ""
    subscription: str = ""
    subscription_kind: str = ""


class ContainerKind(StrEnum):
    """What keeps the objects of a container."""

    FOLDER = "folder"
    S3 = "s3"
    AZURE = "azure"


@dataclass(frozen=True, slots=True)
class ContainerConfig:
    """One container of objects, with credentials of its own.

    Attributes:
        name: `c0` to `c99`: the first part of every reference to an object in it. Never give a used name to another container.
        kind: what keeps it.
        path: of a folder.
        bucket: name of the S3 bucket or Azure container.
        prefix: put before every object's name in it.
        endpoint: address of the service; empty for the public one of `region`.
        region: of an S3 bucket.
        account: Azure storage account.
        credentials_file: JSON with `access_key_id` and `secret_access_key` (S3), or `account_key` (Azure). Read again when it changes and
            when the store refuses: so credentials are rotated by replacing the file (R-114).
        ca_file: PEM of certificate authorities for the endpoint, beside the system's.
        accepts_new: whether new objects go there; a container that is being emptied stays readable without.
        allow_http: take an endpoint without TLS; for tests on loopback.
    """

    name: str
    kind: ContainerKind
    path: str = ""
    bucket: str = ""
    prefix: str = ""
    endpoint: str = ""
    region: str = ""
    account: str = ""
    credentials_file: str = ""
    ca_file: str = ""
    accepts_new: bool = True
    allow_http: bool = False


@dataclass(frozen=True, slots=True)
class ObjectsConfig:
    """Where ciphertext lies.

    Attributes:
        containers: none: four folders in the home's `objects`.
        timeout: for one request to a store.
        retries: how often a lost answer is asked again.
    """

    containers: tuple[ContainerConfig, ...] = ()
    timeout: int = 30_000
    retries: int = 4


@dataclass(frozen=True, slots=True)
class ServerConfig:
    """`keystead serve`.

    Attributes:
        listen: HOST:PORT, or `unix:PATH`; port 0 takes a free one.
        tls_certificate_file, tls_key_file: PEM, both or none. Without them only loopback addresses are listened on.
        threads: how many calls run at once in a process.
        max_connections: how many connections are kept at once.
        header_timeout: how long a client may take for its headers.
        body_timeout: how long a client may go without sending a byte of its body.
        stop_timeout: what calls under way are given when it stops.
        jobs: how many jobs a server process runs beside its calls; 0 leaves all to workers.
        trusted_proxies: addresses whose X-Forwarded-For is believed.
    """

    listen: str = "127.0.0.1:8420"
    tls_certificate_file: str = ""
    tls_key_file: str = ""
    threads: int = 16
    max_connections: int = 1_000
    header_timeout: int = 10_000
    body_timeout: int = 20_000
    stop_timeout: int = 20_000
    jobs: int = 1
    trusted_proxies: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class WebdavConfig:
    """WebDAV beside the API, in the same processes and with the same certificate (docs/howto/webdav.md).

    Attributes:
        listen: HOST:PORT; port 0 takes a free one. Empty: no WebDAV.
        threads: how many requests run at once in a process; half of them at most for one person.
        max_connections: how many connections a process keeps at once.
        header_timeout: how long a client may take for its headers, and for agreeing on TLS.
        body_timeout: how long a client may go without sending or taking a byte, and how long an idle connection is kept.
        stop_timeout: what requests under way are given when it stops.
    """

    listen: str = ""
    threads: int = 32
    max_connections: int = 1_000
    header_timeout: int = 10_000
    body_timeout: int = 20_000
    stop_timeout: int = 20_000


class Runner(StrEnum):
    """Who hands jobs to workers."""

    INLINE = "inline"
    PROCRASTINATE = "procrastinate"


@dataclass(frozen=True, slots=True)
class WorkerConfig:
    """`keystead worker`.

    Attributes:
        runner: `inline` looks for jobs in the database; `procrastinate` is told by PostgreSQL.
        concurrency: jobs at once in a worker process.
        stop_timeout: milliseconds the jobs under way are given when it stops; they give up at the end of a slice.
    """

    runner: Runner = Runner.INLINE
    concurrency: int = 2
    stop_timeout: int = 20_000


class LogFormat(StrEnum):
    """How lines of the log are written."""

    TEXT = "text"
    JSON = "json"


@dataclass(frozen=True, slots=True)
class LogConfig:
    """The log of `serve` and `worker`, on standard error. It holds ids and names of the directory, never content.

    Attributes:
        format: of a line.
        level: debug, info, warning or error.
    """

    format: LogFormat = LogFormat.TEXT
    level: str = "info"


@dataclass(frozen=True, slots=True)
class SignInConfig:
    """Signing in with tokens of others.

    Attributes:
        issuer: what this installation calls itself in the access tokens it signs; its address, where others check them too.
        issuers: OpenID Connect issuers that tenants may name, as exact addresses: the service calls no other.
        key_hosts: hosts at which issuers may publish their keys, beside their own.
        allow_http: take issuers without TLS; for tests on loopback.
        ca_file: PEM of certificate authorities for issuers, in place of the system's.
    """

    issuer: str = "urn:keystead"
    issuers: tuple[str, ...] = ()
    key_hosts: tuple[str, ...] = ()
    allow_http: bool = False
    ca_file: str = ""


class HookKind(StrEnum):
    """How a hook tells."""

    HTTP = "http"
    MAIL = "mail"


@dataclass(frozen=True, slots=True)
class HookConfig:
    """Somebody to tell when an alert is raised or resolved.

    Attributes:
        name: of the hook, in the log and in its records.
        kind: a signed POST, or a mail.
        url: where to POST; https, or loopback.
        secret_file: what the POST is signed with (HMAC-SHA-256).
        ca_file: PEM of certificate authorities for the receiver or the SMTP server, in place of the system's.
        server: HOST:PORT of the SMTP server.
        user: name to sign in to the SMTP server with. Empty: not at all.
        password_file: file whose first line is the password for that.
        sender: address the mail comes from.
        recipients: addresses it goes to.
        alerts: kinds of alerts to tell. None: all.
        tenant: only alerts of this tenant, and not the installation's. Empty: all.
    """

    name: str
    kind: HookKind
    url: str = ""
    secret_file: str = ""
    ca_file: str = ""
    server: str = ""
    user: str = ""
    password_file: str = ""
    sender: str = ""
    recipients: tuple[str, ...] = ()
    alerts: tuple[str, ...] = ()
    tenant: str = ""


@dataclass(frozen=True, slots=True)
class Configuration:
    """All of keystead.toml but its `[settings]`."""

    installation: InstallationConfig = field(default_factory=InstallationConfig)
    database: DatabaseConfig = field(default_factory=DatabaseConfig)
    keystore: KeystoreConfig = field(default_factory=KeystoreConfig)
    vault: VaultConfig = field(default_factory=VaultConfig)
    vaults: tuple[ForeignVaultConfig, ...] = ()
    objects: ObjectsConfig = field(default_factory=ObjectsConfig)
    server: ServerConfig = field(default_factory=ServerConfig)
    webdav: WebdavConfig = field(default_factory=WebdavConfig)
    worker: WorkerConfig = field(default_factory=WorkerConfig)
    log: LogConfig = field(default_factory=LogConfig)
    sign_in: SignInConfig = field(default_factory=SignInConfig)
    hooks: tuple[HookConfig, ...] = ()

    @property
    def databases(self) -> dict[str, DatabaseConfig]:
        """The three databases, by family."""
        return {"keystead": self.database, "keys": self.keystore.database, "vault": self.vault.database}

    @property
    def fleet(self) -> bool:
        """Whether several machines may share it: its database is a server."""
        return bool(self.database.url)
