"""Access policies of key vaults: which principal holds which key permission (requirements 2.5, R-036 to R-042).

Two things are kept apart: the *key permissions* below, and the right to change a vault's access policy, its contributor role, which
gives no key operation by itself (R-013). `purge` is in no default (R-041).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

from keystead.core.errors import Forbidden, InvalidRequest
from keystead.core.ids import user_principal_name

if TYPE_CHECKING:
    from collections.abc import Iterable


class Permission(StrEnum):
    """Key permissions: management, cryptographic, privileged, rotation."""

    GET = "get"
    LIST = "list"
    UPDATE = "update"
    CREATE = "create"
    IMPORT = "import"
    DELETE = "delete"
    RECOVER = "recover"
    BACKUP = "backup"
    RESTORE = "restore"
    RELEASE = "release"
    DECRYPT = "decrypt"
    ENCRYPT = "encrypt"
    UNWRAP_KEY = "unwrapKey"
    WRAP_KEY = "wrapKey"
    VERIFY = "verify"
    SIGN = "sign"
    PURGE = "purge"
    ROTATE = "rotate"
    GET_ROTATION_POLICY = "getrotationpolicy"
    SET_ROTATION_POLICY = "setrotationpolicy"


ADMINISTRATOR_PERMISSIONS = frozenset(
    {Permission.CREATE, Permission.IMPORT, Permission.LIST, Permission.GET, Permission.BACKUP, Permission.RESTORE}
)
"""What a key vault administrator holds by default: no delete, no purge (R-011, R-012)."""

READING_PERMISSIONS = frozenset(
    {
        Permission.GET,
        Permission.LIST,
        Permission.BACKUP,
        Permission.RELEASE,
        Permission.DECRYPT,
        Permission.ENCRYPT,
        Permission.UNWRAP_KEY,
        Permission.WRAP_KEY,
        Permission.VERIFY,
        Permission.SIGN,
        Permission.GET_ROTATION_POLICY,
    }
)
"""What may be done while a vault is failed over (R-069); whatever is not here changes something."""


class KeyRole(StrEnum):
    """Roles of the role-based model, the alternative to permission lists (R-044, requirements 2.5)."""

    CRYPTO_OFFICER = "crypto-officer"
    CRYPTO_USER = "crypto-user"
    CRYPTO_SERVICE_ENCRYPTION_USER = "crypto-service-encryption-user"


_SERVICE_PERMISSIONS = frozenset({Permission.GET, Permission.WRAP_KEY, Permission.UNWRAP_KEY})
_USER_PERMISSIONS = _SERVICE_PERMISSIONS | {
    Permission.LIST,
    Permission.UPDATE,
    Permission.BACKUP,
    Permission.ENCRYPT,
    Permission.DECRYPT,
    Permission.SIGN,
    Permission.VERIFY,
}
ROLE_PERMISSIONS = {
    KeyRole.CRYPTO_OFFICER: frozenset(Permission),
    KeyRole.CRYPTO_USER: _USER_PERMISSIONS,
    KeyRole.CRYPTO_SERVICE_ENCRYPTION_USER: _SERVICE_PERMISSIONS,
}
"""What each role holds; like every permission, a role is held only by whom it was given to."""

APPLICATION_IDS = {
    "mail": "00000002-0000-0ff1-ce00-000000000000",
    "files": "00000003-0000-0ff1-ce00-000000000000",
    "tenant": "c066d759-24ae-40e7-a56f-027002b5d3e4",
}
"""The service's applications, one per workload (R-014, requirements 1.2)."""

_APPLICATIONS = {**{name: name for name in APPLICATION_IDS}, **{identifier: name for name, identifier in APPLICATION_IDS.items()}}
_PERMISSIONS = {permission.lower(): permission for permission in Permission}


class PrincipalKind(StrEnum):
    """Who calls a vault.

    People sign in; applications are the service's own; clients are programs that sign in over the network with a secret; SERVICE is the
    vault itself, which holds no permissions and appears in the log only.
    """

    PERSON = "person"
    APPLICATION = "application"
    CLIENT = "client"
    SERVICE = "service"


@dataclass(frozen=True, slots=True)
class VaultPrincipal:
    """Whom an access policy names: a person by UPN, an application by its short name, a client by its id."""

    kind: PrincipalKind
    name: str

    @property
    def application_id(self) -> str:
        """The id of an application or client; empty for a person."""
        if self.kind is PrincipalKind.CLIENT:
            return self.name
        return APPLICATION_IDS[self.name] if self.kind is PrincipalKind.APPLICATION else ""


@dataclass(frozen=True, slots=True)
class Held:
    """What one principal holds on one vault: key permissions, or roles in a vault of the role-based model, and the contributor right."""

    permissions: frozenset[Permission] = frozenset()
    contributor: bool = False
    roles: frozenset[KeyRole] = frozenset()
    effective: frozenset[Permission] = field(init=False, repr=False, compare=False)
    """All key permissions held, by name or by role: put together once, for rows are remembered and asked at every call."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "effective", self.permissions.union(*(ROLE_PERMISSIONS[role] for role in self.roles)))


def person(upn: str) -> VaultPrincipal:
    """A person.

    Raises:
        InvalidRequest: not a UPN.
    """
    return VaultPrincipal(PrincipalKind.PERSON, user_principal_name(upn))


def application(text: str) -> VaultPrincipal:
    """One of the service's applications, by name or fixed id.

    Raises:
        InvalidRequest: `principal_unknown`.
    """
    name = _APPLICATIONS.get(text.lower())
    if name is None:
        raise InvalidRequest(
            "principal_unknown", f"{text!r} is not an application", f"use one of {', '.join(APPLICATION_IDS)}, or --upn for a person"
        )
    return VaultPrincipal(PrincipalKind.APPLICATION, name)


def client(client_id: str) -> VaultPrincipal:
    """A client, by its id."""
    return VaultPrincipal(PrincipalKind.CLIENT, client_id)


def permissions(names: Iterable[str]) -> frozenset[Permission]:
    """The named key permissions, whatever their case.

    Raises:
        InvalidRequest: `permission_unknown`.
    """
    found = set()
    for name in names:
        permission = _PERMISSIONS.get(name.strip().lower())
        if permission is None:
            raise InvalidRequest("permission_unknown", f"{name!r} is not a key permission", f"use some of {', '.join(Permission)}")
        found.add(permission)
    return frozenset(found)


def key_roles(names: Iterable[str]) -> frozenset[KeyRole]:
    """The named roles, whatever their case.

    Raises:
        InvalidRequest: `key_role_unknown`.
    """
    try:
        return frozenset(KeyRole(name.strip().lower()) for name in names)
    except ValueError:
        raise InvalidRequest(
            "key_role_unknown", f"{', '.join(names)} names no role of a vault", f"use some of {', '.join(KeyRole)}"
        ) from None


def allow(held: Held, permission: Permission, principal: VaultPrincipal, vault: str) -> None:
    """Let a principal through that holds a key permission.

    Raises:
        Forbidden: `vault_access_denied`, naming vault, principal and permission (R-037).
    """
    if permission not in held.effective:
        option = "--upn" if principal.kind is PrincipalKind.PERSON else "--principal"
        raise Forbidden(
            "vault_access_denied",
            f"{principal.name} does not hold the permission {permission} on the vault {vault}",
            f"keystead vault access grant {vault} {option} {principal.name} --permissions {permission}",
        )


def allow_contributor(held: Held, principal: VaultPrincipal, vault: str) -> None:
    """Let a principal through that may change the vault and its access policy (R-013).

    Raises:
        Forbidden: `vault_access_denied`.
    """
    if not held.contributor:
        raise Forbidden(
            "vault_access_denied",
            f"{principal.name} does not hold the permission contributor on the vault {vault}: it takes the right to change the vault",
            "ask the vault's creator or the creator of its subscription",
        )
