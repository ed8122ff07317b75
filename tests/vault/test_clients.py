"""Clients of a tenant's vaults: registering them, their secrets, signing in, and what their tokens are good for (R-036, R-038)."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from keystead.api.types import vault_clients as c
from keystead.api.types import vaults as t
from keystead.api.types.base import Empty
from keystead.core.access.principal import Role
from keystead.core.errors import Conflict, Forbidden, InvalidRequest, KeysteadError, NotFound, Throttled, Unauthenticated
from keystead.core.vaults.access import client
from keystead.ports.clock import DAY, HOUR, MINUTE
from keystead.vault import access, clients, tokens
from keystead.vault.services import Identity
from vault.world import ALEX, KIM, OTHER_TENANT, STRANGER, TENANT, World

if TYPE_CHECKING:
    from pathlib import Path

RESOURCE = "https://127.0.0.1:4711"
ADDRESS = "192.0.2.9"


def registered(world: World, name: str = "backup-job", **more: int) -> c.ClientSecretShown:
    return clients.create(world.vault, world.call(), c.ClientCreate(name=name, **more))


def identity(client_id: str, tenant: str = TENANT, address: str = ADDRESS) -> Identity:
    return Identity(client(client_id), tenant, address, request_uri="https://127.0.0.1:1/oauth2/v2.0/token")


def sign_in(world: World, made: c.ClientSecretShown, secret: str = "", **more: str) -> str:
    found = tokens.authenticate(world.vault, identity(made.id, **more), secret or made.client_secret)
    return tokens.issue(world.vault, found, RESOURCE, TENANT)


def refused(world: World, made: c.ClientSecretShown, secret: str, **more: str) -> KeysteadError:
    with pytest.raises((Unauthenticated, Throttled)) as raised:
        sign_in(world, made, secret, **more)
    return raised.value


def authentications(world: World) -> list[tuple[str, str]]:
    with world.store.reading() as tx:
        return [
            (one.identity_name, one.result_signature)
            for _number, one in tx.log(TENANT, "", None, 100)
            if one.operation_name == "Authentication"
        ]


# -- registering ------------------------------------------------------------------------------------------------------------------------


def test_a_client_has_an_id_a_name_and_a_secret_that_is_shown_once(world: World) -> None:
    made = registered(world)
    assert made.tenant_id == TENANT
    assert len(base64.urlsafe_b64decode(made.client_secret.removeprefix("ksc_") + "=")) == 32
    assert made.expires.timestamp() * 1_000 == world.clock.now() + 730 * DAY
    assert made.client_secret not in repr(made)
    shown = clients.show(world.vault, world.call(), c.ClientNamed(client="BACKUP-job"))
    assert (shown.id, shown.created_by, [one.id for one in shown.secrets]) == (made.id, ALEX, [made.secret_id])
    assert clients.list_all(world.vault, world.call(), Empty()) == [shown]
    assert not any(made.client_secret.encode() in part for part in world.files())


@pytest.mark.parametrize("name", ["mail", "FILES", "kim@contoso.example", "6b9e2f0c-1d3a-4c5b-8e7f-9a0b1c2d3e4f", "", "line\nbreak"])
def test_a_name_that_could_be_taken_for_somebody_else_is_refused(world: World, name: str) -> None:
    with pytest.raises(InvalidRequest):
        registered(world, name)


def test_names_are_unique_in_a_tenant_and_of_no_matter_to_another(world: World) -> None:
    registered(world)
    with pytest.raises(Conflict) as raised:
        registered(world, "Backup-Job")
    assert raised.value.code == "client_exists"
    theirs = clients.create(world.vault, world.call(STRANGER, OTHER_TENANT), c.ClientCreate(name="backup-job"))
    assert clients.show(world.vault, world.call(), c.ClientNamed(client="backup-job")).id != theirs.id
    with pytest.raises(NotFound) as missing:
        clients.show(world.vault, world.call(), c.ClientNamed(client=theirs.id))
    assert missing.value.code == "client_not_found"


def test_only_who_made_a_client_and_global_administrators_touch_its_secrets(world: World) -> None:
    made = registered(world)
    kim = world.call(KIM, role=Role.KEY_VAULT_ADMINISTRATOR)
    for attempt in (
        lambda: clients.add_secret(world.vault, kim, c.ClientSecretAdd(client=made.id)),
        lambda: clients.remove_secret(world.vault, kim, c.ClientSecretNamed(client=made.id, secret=made.secret_id)),
        lambda: clients.delete(world.vault, kim, c.ClientNamed(client=made.id)),
    ):
        with pytest.raises(Forbidden) as raised:
            attempt()
        assert raised.value.code == "client_of_another"
    sign_in(world, made)
    assert clients.add_secret(world.vault, world.call(KIM, role=Role.GLOBAL_ADMIN), c.ClientSecretAdd(client=made.id)).id == made.id


def test_two_secrets_are_good_at_once_and_one_can_be_taken(world: World) -> None:
    made = registered(world)
    second = clients.add_secret(world.vault, world.call(), c.ClientSecretAdd(client="backup-job", lifetime=DAY))
    sign_in(world, made)
    sign_in(world, made, second.client_secret)
    clients.remove_secret(world.vault, world.call(), c.ClientSecretNamed(client=made.id, secret=made.secret_id))
    sign_in(world, made, second.client_secret)
    assert refused(world, made, made.client_secret).code == "client_secret_wrong"
    with pytest.raises(NotFound):
        clients.remove_secret(world.vault, world.call(), c.ClientSecretNamed(client=made.id, secret=made.secret_id))


def test_secrets_end_and_make_room(world: World) -> None:
    made = registered(world, lifetime=HOUR)
    for _ in range(clients.MOST_SECRETS - 1):
        clients.add_secret(world.vault, world.call(), c.ClientSecretAdd(client=made.id, lifetime=HOUR))
    with pytest.raises(Conflict) as full:
        clients.add_secret(world.vault, world.call(), c.ClientSecretAdd(client=made.id))
    assert full.value.code == "client_secrets_full"
    world.clock.time += HOUR
    assert refused(world, made, made.client_secret).code == "client_secret_expired"
    fresh = clients.add_secret(world.vault, world.call(), c.ClientSecretAdd(client=made.id))
    assert [one.id for one in clients.show(world.vault, world.call(), c.ClientNamed(client=made.id)).secrets] == [fresh.secret_id]


@pytest.mark.parametrize("lifetime", [0, MINUTE - 1, 730 * DAY + 1])
def test_a_secret_lives_a_minute_to_two_years(world: World, lifetime: int) -> None:
    with pytest.raises(InvalidRequest) as raised:
        registered(world, lifetime=lifetime)
    assert raised.value.code == "secret_lifetime"
    assert clients.list_all(world.vault, world.call(), Empty()) == []


# -- access policies ---------------------------------------------------------------------------------------------------------------------


def test_R_036_R_039_an_access_policy_names_a_client_by_name_or_id_and_shows_its_name(world: World) -> None:
    world.new_vault()
    made = registered(world)
    by_name = world.grant("get", principal="backup-job")
    by_id = world.grant("list", principal=made.id)
    assert (by_name.kind, by_name.principal, by_name.application_id) == ("client", "backup-job", made.id)
    assert by_id.permissions == ["get", "list"]
    listed = access.list_all(world.vault, world.call(), t.VaultNamed(vault="ContosoVault1"))
    assert by_id in listed
    with pytest.raises(InvalidRequest) as unknown:
        world.grant("get", principal="nobody-knows-it")
    assert unknown.value.code == "principal_unknown"


def test_a_client_of_another_tenant_cannot_be_named(world: World) -> None:
    world.new_vault()
    theirs = clients.create(world.vault, world.call(STRANGER, OTHER_TENANT), c.ClientCreate(name="theirs"))
    for named in ("theirs", theirs.id):
        with pytest.raises(InvalidRequest):
            world.grant("get", principal=named)


def test_a_name_used_again_inherits_nothing(world: World) -> None:
    world.new_vault()
    first = registered(world)
    world.grant("get", principal="backup-job")
    clients.delete(world.vault, world.call(), c.ClientNamed(client="backup-job"))
    second = registered(world)
    assert second.id != first.id
    listed = access.list_all(world.vault, world.call(), t.VaultNamed(vault="ContosoVault1"))
    assert not [one for one in listed if one.kind == "client"]


# -- signing in --------------------------------------------------------------------------------------------------------------------------


def test_signing_in_is_in_the_log_whether_it_works_or_not(world: World) -> None:
    """Requirements 2.12: Authentication. The log never has the secret."""
    made = registered(world)
    sign_in(world, made)
    refused(world, made, "ksc_guess-that-is-wrong")
    assert authentications(world) == [(made.id, "OK"), (made.id, "client_secret_wrong")]
    assert not any(b"guess-that-is-wrong" in part for part in world.files())


def test_a_client_does_not_exist_in_another_tenant(world: World) -> None:
    made = registered(world)
    assert refused(world, made, made.client_secret, tenant=OTHER_TENANT).code == "client_unknown"
    with world.store.reading() as tx:
        assert tx.log(OTHER_TENANT, "", None, 10) == []


def test_who_guesses_waits_by_client_and_by_address(world: World) -> None:
    made, other = registered(world), registered(world, "other-job")
    for _ in range(world.vault.settings.pace.free):
        assert refused(world, made, "ksc_guess").code == "client_secret_wrong"
    waiting = refused(world, made, "ksc_guess", address="198.51.100.1")
    assert isinstance(waiting, Throttled)
    assert (waiting.code, waiting.retry_after) == ("client_throttled", 1_000)
    assert refused(world, other, "ksc_guess").code == "client_throttled"
    assert len(authentications(world)) == world.vault.settings.pace.free
    world.clock.time += 1_000
    assert refused(world, made, "ksc_guess").code == "client_secret_wrong"


# -- tokens ------------------------------------------------------------------------------------------------------------------------------


def code_of(world: World, token: str, resource: str = RESOURCE) -> str:
    with pytest.raises(Unauthenticated) as raised:
        tokens.verify(world.vault, token, resource)
    assert not token or token not in str(raised.value)
    return raised.value.code


def test_R_038_a_token_is_good_for_its_client_and_its_resource_until_it_ends(world: World) -> None:
    made = registered(world)
    token = sign_in(world, made)
    who = tokens.verify(world.vault, token, RESOURCE)
    assert (who.principal, who.tenant_id, who.is_person) == (client(made.id), TENANT, False)
    assert code_of(world, "") == "token_missing"
    assert code_of(world, token, "https://127.0.0.1:4712") == "token_audience_wrong"
    world.clock.time += HOUR - 1_000
    assert tokens.verify(world.vault, token, RESOURCE) == who
    world.clock.time += 1_000
    assert code_of(world, token) == "token_expired"


def test_R_038_a_token_of_a_deleted_client_is_refused_at_once(world: World) -> None:
    made = registered(world)
    token = sign_in(world, made)
    tokens.verify(world.vault, token, RESOURCE)
    clients.delete(world.vault, world.call(), c.ClientNamed(client=made.id))
    assert code_of(world, token) == "token_invalid"
    assert refused(world, made, made.client_secret).code == "client_unknown"


def test_R_038_a_token_that_was_changed_or_made_by_others_is_refused(world: World, tmp_path: Path) -> None:
    made = registered(world)
    header, claims, signature = sign_in(world, made).split(".")

    def encoded(document: object) -> str:
        return base64.urlsafe_b64encode(json.dumps(document).encode()).decode().rstrip("=")

    def decoded(part: str) -> dict[str, object]:
        found: dict[str, object] = json.loads(base64.urlsafe_b64decode(part + "=="))
        return found

    forged = encoded(decoded(claims) | {"aud": "https://127.0.0.1:4712"})
    unsigned = encoded(decoded(header) | {"alg": "none"})
    own_key = encoded(decoded(header) | {"jwk": tokens.key_set(world.vault)[0]})
    symmetric = encoded(decoded(header) | {"alg": "HS256"})
    for token in (
        f"{header}.{forged}.{signature}",
        f"{unsigned}.{claims}.",
        f"{own_key}.{claims}.{signature}",
        f"{symmetric}.{claims}.{signature}",
    ):
        assert code_of(world, token) == "token_invalid"
    (tmp_path / "elsewhere").mkdir()
    elsewhere = World(tmp_path / "elsewhere")
    try:
        theirs = registered(elsewhere)
        assert code_of(world, sign_in(elsewhere, theirs)) == "token_invalid"
    finally:
        elsewhere.close()


def test_the_key_of_tokens_is_replaced_with_overlap_and_published(world: World) -> None:
    made = registered(world)
    before = sign_in(world, made)
    assert len(tokens.key_set(world.vault)) == 1
    world.clock.time += world.vault.settings.token_key_lifetime - 30 * MINUTE
    before = sign_in(world, made)
    world.clock.time += 30 * MINUTE
    after = sign_in(world, made)
    assert tokens.verify(world.vault, before, RESOURCE) == tokens.verify(world.vault, after, RESOURCE)
    published = tokens.key_set(world.vault)
    assert [one["alg"] for one in published] == ["RS256", "RS256"]
    assert all("d" not in one for one in published)
    assert kid(before) != kid(after)
    world.clock.time += tokens.VERIFIES_AFTER
    tokens.keep_up(world.vault)
    assert [one["kid"] for one in tokens.key_set(world.vault)] == [kid(after)]
    tokens.keep_up(world.vault)


def kid(token: str) -> str:
    name: str = json.loads(base64.urlsafe_b64decode(token.split(".", maxsplit=1)[0] + "=="))["kid"]
    return name


def test_two_processes_sign_with_one_key_and_take_each_others_tokens(world: World) -> None:
    made = registered(world)
    other = replace(world.vault, tokens=type(world.vault.tokens)())
    first = sign_in(world, made)
    found = tokens.authenticate(other, identity(made.id), made.client_secret)
    second = tokens.issue(other, found, RESOURCE, TENANT)
    assert kid(first) == kid(second)
    assert tokens.verify(world.vault, second, RESOURCE) == tokens.verify(other, first, RESOURCE)


def test_the_private_half_is_nowhere_in_the_database(world: World) -> None:
    """R-025."""
    sign_in(world, registered(world))
    signer = world.vault.tokens.signer
    assert signer is not None
    prime = signer[1].private_numbers().p.to_bytes(128, "big")
    assert not any(prime in part for part in world.files())
    assert "RSAPrivateKey" not in repr(world.vault.tokens)


# -- dev homes ---------------------------------------------------------------------------------------------------------------------------


def test_the_development_client_holds_everything_on_every_vault(world: World) -> None:
    world.new_vault()
    world.new_vault("ContosoVault2", rbac=True)
    held = clients.development(world.vault, TENANT, None)
    assert clients.development(world.vault, TENANT, held) == held
    for vault in ("ContosoVault1", "ContosoVault2"):
        mine = [
            one for one in access.list_all(world.vault, world.call(), t.VaultNamed(vault=vault)) if one.application_id == held.client_id
        ]
        assert len(mine) == 1
        assert {"purge", "release", "unwrapKey"} <= set(mine[0].permissions)
    lost = clients.development(world.vault, TENANT, None)
    assert (lost.client_id, lost.client_secret == held.client_secret) == (held.client_id, False)
    assert held.client_secret not in repr(held)
