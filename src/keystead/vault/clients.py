"""Clients: programs that use a tenant's vaults over the network, each with an id, a name and secrets of its own.

A client holds nothing until a vault's access policy names it (R-036), and it is named there by its id: a name that is used again inherits
nothing. A secret is 256 random bits and shown once; what is stored is its SHA-256. Several may be good at once, so that a program gets its
next one before its last one ends. Whoever holds a secret can do what the client may: so only who made a client, and global
administrators, give it secrets, take them, or delete it.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import TYPE_CHECKING

from keystead.api.types.base import utc
from keystead.api.types.tenants import Done
from keystead.api.types.vault_clients import ClientSecretShown, ClientSecretView, ClientView
from keystead.core.access.principal import Role
from keystead.core.errors import Conflict, Forbidden, InvalidRequest, NotFound
from keystead.core.ids import display_name, is_id, new_id
from keystead.core.vaults.access import APPLICATION_IDS, Held, KeyRole, Permission, PrincipalKind, VaultPrincipal, client
from keystead.ports.clock import HOUR, MINUTE
from keystead.ports.vault_store import AccessEntry, ClientSecret, VaultClient
from keystead.vault.record import Act, add_record, recorded
from keystead.vault.services import Identity, identity_of
from keystead.vault.tokens import digest_of

if TYPE_CHECKING:
    from keystead.api.types.base import Empty
    from keystead.api.types.vault_clients import ClientCreate, ClientNamed, ClientSecretAdd, ClientSecretNamed
    from keystead.ports.vault_store import VaultReader, VaultWriter
    from keystead.vault.services import Caller, VaultServices

SECRET_PREFIX = "ksc_"  # noqa: S105 - a prefix that secret scanners can look for, not a secret
SECRET_BYTES = 32
MOST_SECRETS = 5
"""Of one client, good at once: one in use, one to follow, and room for what was forgotten."""
MANAGERS = frozenset({Role.GLOBAL_ADMIN, Role.OPERATOR})
"""Who manages clients that others made; the operator gets here in dev homes only."""
DEVELOPMENT = "development"
"""Name of the client that `vault serve` makes in dev homes."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """What a client signs in with."""

    client_id: str
    client_secret: str

    def __repr__(self) -> str:
        return f"Credentials(client_id={self.client_id!r}, client_secret=...)"


def create(vault: VaultServices, caller: Caller, request: ClientCreate) -> ClientSecretShown:
    """Register a client, with a first secret. It may do nothing until an access policy names it.

    Raises:
        InvalidRequest: `client_name_invalid`, `secret_lifetime`.
        Conflict: `client_exists`.
    """
    identity = identity_of(caller)

    def change(tx: VaultWriter) -> ClientSecretShown:
        name = _name(request.name)
        if tx.client(identity.tenant_id, name) is not None:
            raise Conflict("client_exists", f"there is a client {name!r} already", "choose another name, or add a secret to that one")
        made = VaultClient(new_id(vault.random), identity.tenant_id, name, vault.clock.now(), identity.principal.name)
        tx.add_client(made)
        return _new_secret(vault, tx, made, request.lifetime)

    return recorded(vault, identity, Act("ClientCreate", note=f"client {request.name[:128]}"), change)


def list_all(vault: VaultServices, caller: Caller, _request: Empty) -> list[ClientView]:
    """The clients of the tenant, by name, with their secrets' ids and ends."""
    identity = identity_of(caller)
    return recorded(vault, identity, Act("ClientList"), lambda tx: [_view(tx, found) for found in tx.clients(identity.tenant_id)])


def show(vault: VaultServices, caller: Caller, request: ClientNamed) -> ClientView:
    """One client.

    Raises:
        NotFound: `client_not_found`, also for one of another tenant.
    """
    identity = identity_of(caller)
    return recorded(
        vault, identity, Act("ClientGet", note=_note(request.client)), lambda tx: _view(tx, find_client(tx, identity, request.client))
    )


def delete(vault: VaultServices, caller: Caller, request: ClientNamed) -> Done:
    """Remove a client with its secrets, and from every access policy. Its tokens are worth nothing from the next call on.

    Raises:
        NotFound: `client_not_found`.
        Forbidden: `client_of_another`.
    """
    identity = identity_of(caller)

    def change(tx: VaultWriter) -> Done:
        found = _managed(tx, identity, request.client)
        tx.remove_client(found)
        return Done(id=found.id)

    return recorded(vault, identity, Act("ClientDelete", note=_note(request.client)), change)


def add_secret(vault: VaultServices, caller: Caller, request: ClientSecretAdd) -> ClientSecretShown:
    """Give a client one more secret. What has ended is forgotten on the way.

    Raises:
        NotFound: `client_not_found`.
        Forbidden: `client_of_another`.
        InvalidRequest: `secret_lifetime`.
        Conflict: `client_secrets_full`.
    """
    identity = identity_of(caller)

    def change(tx: VaultWriter) -> ClientSecretShown:
        found = _managed(tx, identity, request.client)
        present, now = tx.client_secrets(found.tenant_id, found.id), vault.clock.now()
        for ended in (secret for secret in present if secret.expires <= now):
            tx.remove_client_secret(ended)
        if sum(secret.expires > now for secret in present) >= MOST_SECRETS:
            raise Conflict(
                "client_secrets_full",
                f"the client {found.name} has {MOST_SECRETS} secrets",
                "remove one: keystead vault client secret remove",
            )
        return _new_secret(vault, tx, found, request.lifetime)

    return recorded(vault, identity, Act("ClientSecretAdd", note=_note(request.client)), change)


def remove_secret(vault: VaultServices, caller: Caller, request: ClientSecretNamed) -> Done:
    """Take a secret from a client: nobody signs in with it any more. Tokens that came of it are good until they end.

    Raises:
        NotFound: `client_not_found`, `client_secret_not_found`.
        Forbidden: `client_of_another`.
    """
    identity = identity_of(caller)

    def change(tx: VaultWriter) -> Done:
        found = _managed(tx, identity, request.client)
        wanted = request.secret.lower()
        secret = next((one for one in tx.client_secrets(found.tenant_id, found.id) if one.id == wanted), None)
        if secret is None:
            raise NotFound(
                "client_secret_not_found",
                f"the client {found.name} has no secret {request.secret[:64]!r}",
                "see keystead vault client show",
            )
        tx.remove_client_secret(secret)
        return Done(id=secret.id)

    return recorded(vault, identity, Act("ClientSecretRemove", note=_note(request.client)), change)


def find_client(tx: VaultReader, identity: Identity, name_or_id: str) -> VaultClient:
    """A client of the tenant, by name or id.

    Raises:
        NotFound: `client_not_found`.
    """
    found = tx.client(identity.tenant_id, name_or_id)
    if found is None:
        raise NotFound("client_not_found", f"there is no client {name_or_id[:128]!r}", "see keystead vault client list")
    return found


def development(vault: VaultServices, tenant_id: str, held: Credentials | None) -> Credentials:
    """The client of dev homes, made where it is not there, with every key permission on every vault of a tenant.

    Args:
        vault: of a dev home.
        tenant_id: whose vaults.
        held: what is known from before; given back where it is still good.
    """
    nobody = Identity(VaultPrincipal(PrincipalKind.SERVICE, "vault"), tenant_id)
    now = vault.clock.now()
    with vault.store.writing() as tx:
        found = tx.client(tenant_id, DEVELOPMENT)
        if found is None:
            found = VaultClient(new_id(vault.random), tenant_id, DEVELOPMENT, now, "vault serve")
            tx.add_client(found)
            add_record(vault, tx, nobody, Act("ClientCreate", note=_note(found.id)))
        good = held is not None and held.client_id == found.id and _still_good(tx, found, held.client_secret, now + HOUR)
        if held is None or not good:
            for secret in tx.client_secrets(tenant_id, found.id):
                tx.remove_client_secret(secret)
            held = Credentials(found.id, _new_secret(vault, tx, found, None).client_secret)
            add_record(vault, tx, nobody, Act("ClientSecretAdd", note=_note(found.id)))
        for one in (one for one in tx.vaults(tenant_id) if one.deleted is None):
            everything = Held(roles=frozenset({KeyRole.CRYPTO_OFFICER})) if one.rbac else Held(frozenset(Permission))
            if tx.held(tenant_id, one.id, client(found.id)) != everything:
                tx.put_access(tenant_id, one.id, AccessEntry(client(found.id), everything))
                add_record(vault, tx, nobody, Act("VaultPatch", one.name, note=f"access policy: granted everything, {found.id}"))
    return held


def _still_good(tx: VaultReader, found: VaultClient, secret: str, until: int) -> bool:
    return any(one.digest == digest_of(secret) and one.expires > until for one in tx.client_secrets(found.tenant_id, found.id))


def _managed(tx: VaultReader, identity: Identity, name_or_id: str) -> VaultClient:
    """A client that the caller may give secrets, take them from, and delete."""
    found = find_client(tx, identity, name_or_id)
    if identity.principal.name != found.created_by and identity.roles.isdisjoint(MANAGERS):
        raise Forbidden(
            "client_of_another",
            f"the client {found.name} was made by {found.created_by}",
            f"ask {found.created_by}, or a global administrator",
        )
    return found


def _new_secret(vault: VaultServices, tx: VaultWriter, found: VaultClient, lifetime: int | None) -> ClientSecretShown:
    longest, now = vault.settings.client_secret_lifetime, vault.clock.now()
    chosen = longest if lifetime is None else lifetime
    if not MINUTE <= chosen <= longest:
        raise InvalidRequest(
            "secret_lifetime", f"a client's secret lives from a minute to {longest // HOUR} hours, not {chosen} ms", "give --lifetime 180d"
        )
    text = SECRET_PREFIX + base64.urlsafe_b64encode(vault.random(SECRET_BYTES)).decode().rstrip("=")
    secret = ClientSecret(new_id(vault.random), found.id, found.tenant_id, digest_of(text), now, now + chosen)
    tx.add_client_secret(secret)
    return ClientSecretShown(
        id=found.id,
        name=found.name,
        tenant_id=found.tenant_id,
        client_secret=text,
        secret_id=secret.id,
        expires=utc(secret.expires),
    )


def _view(tx: VaultReader, found: VaultClient) -> ClientView:
    return ClientView(
        id=found.id,
        name=found.name,
        tenant_id=found.tenant_id,
        created=utc(found.created),
        created_by=found.created_by,
        secrets=[
            ClientSecretView(id=secret.id, created=utc(secret.created), expires=utc(secret.expires))
            for secret in tx.client_secrets(found.tenant_id, found.id)
        ],
    )


def _name(text: str) -> str:
    """A name that no access policy could take for somebody else: not an application's, not a person's, not an id."""
    name = display_name(text, "client")
    if "@" in name or is_id(name) or name.lower() in APPLICATION_IDS:
        raise InvalidRequest(
            "client_name_invalid",
            f"{name!r} could be taken for a person, an application or an id",
            "choose another name, such as backup-job",
        )
    return name


def _note(name_or_id: str) -> str:
    return f"client {name_or_id[:128]}"
