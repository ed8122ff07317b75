"""Every use case about an existing vault or its keys, with a request that the right person is granted; for tests that walk them all."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from keystead.api.routes import VAULT_ROUTES
from keystead.api.types import vaults as t
from keystead.core.vaults.access import person
from keystead.vault import backup, keys, operations
from keystead.vault.operations import Place
from keystead.vault.services import Identity
from vault.world import ALEX, TENANT

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from keystead.vault.services import VaultServices
    from vault.world import World

    UseCase = Callable[[VaultServices, Identity], object]

VAULT = "ContosoVault1"
NAMED = t.VaultNamed(vault=VAULT)
KEY = t.KeyNamed(vault=VAULT, name="root")
GONE = t.KeyNamed(vault=VAULT, name="gone")
RANGE = t.NetworkRange(vault=VAULT, range="203.0.113.0/24")
VERSION = t.KeyVersionNamed(vault=VAULT, name="root")
DIGEST = bytes(32)

REQUESTS: Mapping[str, Any] = {
    "vault.show": NAMED,
    "vault.delete": NAMED,
    "vault.protect": NAMED,
    "vault.fail-over": t.FailOver(vault=VAULT, read_only=False),
    "vault.network.show": NAMED,
    "vault.network.allow": RANGE,
    "vault.network.remove": RANGE,
    "vault.network.default": t.NetworkDefault(vault=VAULT, action="deny"),
    "vault.log": t.VaultLogQuery(vault=VAULT),
    "vault.access.list": NAMED,
    "vault.access.grant": t.AccessGrant(vault=VAULT, principal="files", permissions=["get"]),
    "vault.access.revoke": t.AccessRevoke(vault=VAULT, principal="files"),
    "key.create": t.KeyCreate(vault=VAULT, name="another", kty="EC"),
    "key.list": t.KeyList(vault=VAULT),
    "key.show": VERSION,
    "key.versions": KEY,
    "key.enable": VERSION,
    "key.disable": VERSION,
    "key.update": t.KeyUpdate(vault=VAULT, name="root", tags={"a": "b"}),
    "key.rotate": KEY,
    "key.rotation-policy.show": KEY,
    "key.rotation-policy.set": t.RotationPolicySet(vault=VAULT, name="root"),
    "key.backup": KEY,
    "key.delete": KEY,
    "key.deleted": NAMED,
    "key.recover": GONE,
    "key.purge": GONE,
}
"""By the name of the row. `key.import` and `key.restore` need bytes that the world makes; see `use_cases`."""

ELSEWHERE = {"vault.create", "vault.list", "vault.deleted", "vault.recover", "vault.purge"}
"""Rows that are about no vault that is there. A deleted vault can be neither failed over nor called about its keys."""

EVERYTHING = "get,list,update,create,import,delete,recover,backup,restore,decrypt,encrypt,unwrapKey,wrapKey,verify,sign,purge,rotate"


def alex(client_ip: str = "", request_uri: str = "") -> Identity:
    """The vault's creator, from somewhere."""
    return Identity(person(ALEX), TENANT, client_ip=client_ip, request_uri=request_uri)


def prepare(world: World) -> None:
    """A vault whose creator holds every permission, with an RSA key, an RSA-HSM key, and a deleted key."""
    world.new_vault(sku="premium")
    world.grant(f"{EVERYTHING},getrotationpolicy,setrotationpolicy,release", upn=ALEX)
    world.new_key()
    world.new_key("gone", kty="EC")
    keys.delete(world.vault, world.call(), GONE)


def use_cases(world: World) -> dict[str, tuple[UseCase, bool]]:
    """Every use case by name, and whether it changes something."""
    blob = backup.backup(world.vault, world.call(), KEY).blob
    own = ec.generate_private_key(ec.SECP256R1()).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    requests = {
        **REQUESTS,
        "key.import": t.KeyImport(vault=VAULT, name="brought", pem=own.decode()),
        "key.restore": t.KeyRestore(vault=VAULT, blob=blob),
    }
    found: dict[str, tuple[UseCase, bool]] = {}
    for route in VAULT_ROUTES:
        if route.name in requests:
            module, function = route.handler.split(":")
            handler = getattr(import_module(module), function)
            found[route.name] = (_asking(handler, requests[route.name]), route.changes)
    place = Place(VAULT, "root", None)
    for verb in ("encrypt", "wrap_key"):
        found[f"operation {verb}"] = (_calling(getattr(operations, verb), place, "RSA-OAEP-256", DIGEST), False)
    closed = operations.encrypt(world.vault, alex(), place, "RSA-OAEP-256", DIGEST).value
    for verb in ("decrypt", "unwrap_key"):
        found[f"operation {verb}"] = (_calling(getattr(operations, verb), place, "RSA-OAEP-256", closed), False)
    found["operation sign"] = (_calling(operations.sign, place, "RS256", DIGEST), False)
    found["operation verify"] = (_calling(operations.verify, place, "RS256", DIGEST, bytes(256)), False)
    return found


def _asking(handler: Callable[..., object], request: object) -> UseCase:
    return lambda vault, identity: handler(vault, identity, request)


def _calling(operation: Callable[..., object], *arguments: object) -> UseCase:
    return lambda vault, identity: operation(vault, identity, *arguments)
