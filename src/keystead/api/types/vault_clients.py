"""Clients: programs that sign in to the tenant's key vaults over the network with a secret of their own."""

from datetime import datetime

from keystead.api.types.base import Request, Response


class ClientCreate(Request, frozen=True):
    """Register a program. `lifetime` of its first secret in milliseconds; none for the usual one."""

    name: str
    lifetime: int | None = None


class ClientNamed(Request, frozen=True):
    """A request about one client, by name or id."""

    client: str


class ClientSecretAdd(Request, frozen=True):
    """Give a client one more secret, which is good beside those it has. `lifetime` as of `ClientCreate`."""

    client: str
    lifetime: int | None = None


class ClientSecretNamed(Request, frozen=True):
    """A request about one secret of a client, by the secret's id."""

    client: str
    secret: str


class ClientSecretView(Response, frozen=True):
    """A secret, of which only its hash is stored."""

    id: str
    created: datetime
    expires: datetime


class ClientView(Response, frozen=True):
    """A client. `id` is what it calls itself (client_id), and what access policies hold."""

    id: str
    name: str
    tenant_id: str
    created: datetime
    created_by: str
    secrets: list[ClientSecretView]


class ClientSecretShown(Response, frozen=True):
    """A fresh secret of a client, shown this once. `secret_id` is for removing it."""

    id: str
    name: str
    tenant_id: str
    client_secret: str
    secret_id: str
    expires: datetime

    def __repr__(self) -> str:
        return f"ClientSecretShown(id={self.id!r}, name={self.name!r}, client_secret=...)"
