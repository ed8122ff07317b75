"""Keys through their use cases: life cycle, attributes, wrapping, backup."""

from __future__ import annotations

from base64 import b64encode
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from keystead.api.types import vaults as t
from keystead.api.types.base import utc
from keystead.core.errors import Conflict, Forbidden, IntegrityFailure, InvalidRequest, KeysteadError, NotFound, PreconditionFailed
from keystead.core.vaults.seal import private_key_context
from keystead.vault import access, backup, keys, vaults
from keystead.vault.crypto import key_facts, unwrap_key, wrap_key
from vault.world import ALEX, KIM, OTHER_TENANT, STRANGER, SUFFIX, TENANT, World

if TYPE_CHECKING:
    from collections.abc import Callable

V = "ContosoVault1"
ROOT = t.KeyNamed(vault=V, name="root")
CURRENT = t.KeyVersionNamed(vault=V, name="root")
OAEP = "RSA-OAEP-256"
PLAIN = bytes(range(32))


def code_of(attempt: Callable[[], object]) -> str:
    try:
        attempt()
    except KeysteadError as refused:
        return refused.code
    return ""


def wrap(world: World, uri: str, algorithm: str = OAEP) -> tuple[str, bytes]:
    wrapped = wrap_key(world.vault, world.identity(), uri, algorithm, PLAIN)
    return wrapped.key_uri, wrapped.value


def unwrap(world: World, wrapped: tuple[str, bytes], algorithm: str = OAEP) -> bytes:
    return unwrap_key(world.vault, world.identity(), wrapped[0], algorithm, wrapped[1])


def pem_of(key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey) -> str:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


@pytest.mark.parametrize("algorithm", ["RSA-OAEP-256", "RSA-OAEP", "RSA1_5"])
def test_wraps_and_unwraps(world: World, algorithm: str) -> None:
    """R-026."""
    key = world.ready()
    wrapped = wrap(world, key.base_id.upper().replace("HTTPS", "https"), algorithm)
    assert wrapped[0] == key.id
    assert len(wrapped[1]) == 256
    assert unwrap(world, wrapped, algorithm) == PLAIN


def test_other_algorithms_and_impossible_values_are_refused(world: World) -> None:
    """R-026."""
    key = world.ready()
    assert code_of(lambda: wrap_key(world.vault, world.identity(), key.id, "A256KW", PLAIN)) == "algorithm_not_supported"
    for value in (b"", bytes(191)):
        assert code_of(lambda value=value: wrap_key(world.vault, world.identity(), key.id, OAEP, value)) == "value_invalid"  # type: ignore[misc]
    assert len(wrap_key(world.vault, world.identity(), key.id, OAEP, bytes(190)).value) == 256


def test_an_unwrap_that_fails_says_always_the_same(world: World) -> None:
    key = world.ready()
    uri, value = wrap(world, key.id)
    texts = set()
    for wrong in (b"", value[:-1], value + b"\x00", bytes(256), b"\xff" * 256, bytes([value[0] ^ 1]) + value[1:]):
        with pytest.raises(IntegrityFailure) as refused:
            unwrap_key(world.vault, world.identity(), uri, OAEP, wrong)
        texts.add(str(refused.value))
    assert len(texts) == 1
    assert code_of(lambda: unwrap_key(world.vault, world.identity(), key.base_id, OAEP, value)) == "key_version_missing"


def test_a_new_version_becomes_current_and_old_ones_unwrap(world: World) -> None:
    """R-020, R-021, R-022, R-027."""
    first = world.ready()
    wrapped = wrap(world, first.base_id)
    second = world.new_key("ROOT")
    assert first.base_id == second.base_id
    assert first.version != second.version
    assert all(len(view.version) == 32 and int(view.version, 16) >= 0 for view in (first, second))
    assert wrap(world, first.base_id)[0] == second.id
    assert wrap(world, first.id)[0] == first.id
    assert unwrap(world, wrapped) == PLAIN
    assert [view.version for view in keys.list_versions(world.vault, world.call(), ROOT)] == [first.version, second.version]
    assert keys.show(world.vault, world.call(), CURRENT) == second
    assert keys.show(world.vault, world.call(), t.KeyVersionNamed(vault=V, name="root", version=first.version.upper())) == first


def test_rotation_makes_a_version_of_the_same_type_and_size(world: World) -> None:
    """R-034."""
    world.ready()
    far = utc(world.clock.now()) + timedelta(days=400)
    first = world.new_key("other", size=3_072, ops=["wrapKey", "unwrapKey"], expires=far, tags={"team": "mail"})
    second = keys.rotate(world.vault, world.call(), t.KeyNamed(vault=V, name="other"))
    assert second.version != first.version
    assert (second.kty, second.size, second.key_ops, second.tags) == (first.kty, 3_072, ["unwrapKey", "wrapKey"], {"team": "mail"})
    assert (second.enabled, second.expires) == (True, None)


def test_types_sizes_and_skus(world: World) -> None:
    """R-023, R-024, R-018."""
    world.new_vault()
    elliptic = world.new_key("curve", kty="EC", curve="P-384")
    assert (elliptic.kty, elliptic.size, elliptic.curve, elliptic.key_ops) == ("EC", 0, "P-384", ["sign", "verify"])
    world.grant("wrapKey,unwrapKey", principal="mail")
    assert code_of(lambda: wrap(world, elliptic.id)) == "key_type_cannot_wrap"
    assert code_of(lambda: unwrap(world, (elliptic.id, bytes(256)))) == "key_type_cannot_wrap"
    assert code_of(lambda: world.new_key("hsm", kty="RSA-HSM")) == "sku_not_supported"
    world.new_vault("ContosoPremium", sku="premium")
    hardware = world.new_key("hsm", vault="ContosoPremium", kty="RSA-HSM")
    assert (hardware.kty, hardware.hardware) == ("RSA-HSM", False)


def test_keys_are_imported(world: World) -> None:
    """R-023."""
    world.ready()
    brought = rsa.generate_private_key(65_537, 2_048)
    view = keys.import_(world.vault, world.call(), t.KeyImport(vault=V, name="brought", pem=pem_of(brought), ops=["wrapKey", "unwrapKey"]))
    assert (view.kty, view.size) == ("RSA", 2_048)
    assert view.public_key == brought.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
    assert unwrap(world, wrap(world, view.id)) == PLAIN
    curve = keys.import_(world.vault, world.call(), t.KeyImport(vault=V, name="curve", pem=pem_of(ec.generate_private_key(ec.SECP521R1()))))
    assert (curve.kty, curve.curve) == ("EC", "P-521")
    for wrong in (
        "",
        "not a key",
        pem_of(ec.generate_private_key(ec.BrainpoolP256R1())),
        view.public_key,
        pem_of(rsa.generate_private_key(3, 2_048)),
    ):
        with pytest.raises(InvalidRequest) as refused:
            keys.import_(world.vault, world.call(), t.KeyImport(vault=V, name="wrong", pem=wrong))
        assert "BEGIN" not in str(refused.value)


def test_private_material_is_in_no_response_record_or_file(world: World) -> None:
    """R-025."""
    brought = rsa.generate_private_key(65_537, 2_048)
    der = brought.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    prime = brought.private_numbers().p.to_bytes(128, "big")
    world.ready()
    responses: list[object] = [keys.import_(world.vault, world.call(), t.KeyImport(vault=V, name="root", pem=pem_of(brought)))]
    responses += [keys.show(world.vault, world.call(), CURRENT), keys.list_versions(world.vault, world.call(), ROOT)]
    saved = backup.backup(world.vault, world.call(), ROOT)
    responses += [wrap(world, saved.id), unwrap(world, wrap(world, saved.id)), saved, keys.rotate(world.vault, world.call(), ROOT)]
    responses += [keys.disable(world.vault, world.call(), CURRENT), keys.delete(world.vault, world.call(), ROOT), world.log()]
    responses += [vaults.log(world.vault, world.call(), t.VaultLogQuery(vault=V))]
    shown = [msgspec.msgpack.encode(response) for response in responses] + [repr(response).encode() for response in responses]
    shown += [repr(world.vault).encode(), *world.files()]
    world.close()
    shown += world.files()
    for secret in (der, der[-64:], prime, b64encode(prime)[:-4], prime.hex().encode()):
        assert not [content for content in shown if secret in content]


def test_attributes_decide_what_a_key_does(world: World) -> None:
    """R-028, R-029, R-030."""
    key = world.ready()
    wrapped = wrap(world, key.id)
    now = utc(world.clock.now())
    keys.update(world.vault, world.call(), t.KeyUpdate(vault=V, name="root", expires=now))
    assert (code_of(lambda: wrap(world, key.id)), unwrap(world, wrapped)) == ("key_expired", PLAIN)
    keys.update(
        world.vault, world.call(), t.KeyUpdate(vault=V, name="root", expires=now + timedelta(days=2), not_before=now + timedelta(days=1))
    )
    assert (code_of(lambda: wrap(world, key.id)), unwrap(world, wrapped)) == ("key_not_yet_valid", PLAIN)
    world.clock.days(1)
    assert unwrap(world, wrap(world, key.id)) == PLAIN
    keys.update(world.vault, world.call(), t.KeyUpdate(vault=V, name="root", ops=["wrapKey"]))
    assert code_of(lambda: unwrap(world, wrapped)) == "key_operation_not_allowed"
    keys.update(world.vault, world.call(), t.KeyUpdate(vault=V, name="root", ops=["wrapKey", "unwrapKey"]))
    keys.disable(world.vault, world.call(), CURRENT)
    assert {code_of(lambda: wrap(world, key.id)), code_of(lambda: unwrap(world, wrapped))} == {"key_disabled"}
    keys.enable(world.vault, world.call(), CURRENT)
    assert unwrap(world, wrapped) == PLAIN


def test_disabling_a_key_means_every_version_and_one_version_can_be_named(world: World) -> None:
    """R-029."""
    first = world.ready()
    wrapped = wrap(world, first.id)
    second = keys.rotate(world.vault, world.call(), ROOT)
    keys.disable(world.vault, world.call(), CURRENT)
    assert (code_of(lambda: unwrap(world, wrapped)), code_of(lambda: wrap(world, second.id))) == ("key_disabled", "key_disabled")
    keys.enable(world.vault, world.call(), t.KeyVersionNamed(vault=V, name="root", version=first.version))
    assert (unwrap(world, wrapped), code_of(lambda: wrap(world, second.id))) == (PLAIN, "key_disabled")


def test_an_expiry_date_can_be_changed_but_not_removed(world: World) -> None:
    """R-031."""
    world.ready()
    unset = t.KeyUpdate(vault=V, name="root", expires=None)
    assert keys.update(world.vault, world.call(), unset).expires is None
    last = datetime(9999, 12, 31, tzinfo=UTC)
    for date in (utc(world.clock.now()) + timedelta(days=1), last):
        assert keys.update(world.vault, world.call(), t.KeyUpdate(vault=V, name="root", expires=date)).expires == date
    with pytest.raises(PreconditionFailed) as refused:
        keys.update(world.vault, world.call(), unset)
    assert refused.value.code == "expiry_cannot_be_removed"
    assert keys.show(world.vault, world.call(), CURRENT).expires == last
    keys.update(world.vault, world.call(), t.KeyUpdate(vault=V, name="root", not_before=utc(world.clock.now())))
    assert keys.update(world.vault, world.call(), t.KeyUpdate(vault=V, name="root", not_before=None)).not_before is None
    assert code_of(lambda: world.new_key("dates", not_before=last, expires=last)) == "dates_invalid"


def test_tags_and_read_only_attributes(world: World) -> None:
    """R-032, R-033."""
    made = world.ready(retention_days=30)
    world.clock.days(1)
    changed = keys.update(world.vault, world.call(), t.KeyUpdate(vault=V, name="root", tags={"owner": "records"}))
    assert (changed.tags, changed.created, changed.updated - made.updated) == ({"owner": "records"}, made.created, timedelta(days=1))
    assert (changed.recovery_level, changed.recoverable_days) == ("CustomizedRecoverable+Purgeable", 30)
    assert (
        code_of(lambda: keys.update(world.vault, world.call(), t.KeyUpdate(vault=V, name="root", tags={"n": "v" * 257}))) == "tags_invalid"
    )


def test_every_operation_needs_its_permission(world: World) -> None:
    """R-037."""
    key = world.ready()
    wrapped = wrap(world, key.id)
    kim = world.call(KIM)
    blob = backup.backup(world.vault, world.call(), ROOT).blob
    pem = pem_of(ec.generate_private_key(ec.SECP256R1()))
    operations: list[tuple[str, Callable[[], object]]] = [
        ("get", lambda: keys.show(world.vault, kim, CURRENT)),
        ("list", lambda: keys.list_all(world.vault, kim, t.KeyList(vault=V))),
        ("list", lambda: keys.list_versions(world.vault, kim, ROOT)),
        ("create", lambda: keys.create(world.vault, kim, t.KeyCreate(vault=V, name="new", kty="EC"))),
        ("import", lambda: keys.import_(world.vault, kim, t.KeyImport(vault=V, name="brought", pem=pem))),
        ("update", lambda: keys.disable(world.vault, kim, CURRENT)),
        ("update", lambda: keys.enable(world.vault, kim, CURRENT)),
        ("update", lambda: keys.update(world.vault, kim, t.KeyUpdate(vault=V, name="root", tags={}))),
        ("rotate", lambda: keys.rotate(world.vault, kim, t.KeyNamed(vault=V, name="new"))),
        ("backup", lambda: backup.backup(world.vault, kim, ROOT)),
        ("delete", lambda: keys.delete(world.vault, kim, ROOT)),
        ("list", lambda: keys.list_deleted(world.vault, kim, t.VaultNamed(vault=V))),
        ("recover", lambda: keys.recover(world.vault, kim, ROOT)),
        ("delete", lambda: keys.delete(world.vault, kim, ROOT)),
        ("purge", lambda: keys.purge(world.vault, kim, ROOT)),
        ("restore", lambda: backup.restore(world.vault, kim, t.KeyRestore(vault=V, blob=blob))),
    ]
    for permission, operation in operations:
        with pytest.raises(Forbidden) as refused:
            operation()
        assert f"permission {permission} " in refused.value.detail
        world.grant(permission, upn=KIM)
        operation()
        access.revoke(world.vault, world.call(), t.AccessRevoke(vault=V, upn=KIM))
    assert unwrap(world, wrapped) == PLAIN


def test_taking_a_permission_from_the_service_takes_effect_on_its_next_call(world: World) -> None:
    """R-042."""
    wrapped = wrap(world, world.ready().id)
    assert unwrap(world, wrapped) == PLAIN
    access.revoke(world.vault, world.call(), t.AccessRevoke(vault=V, principal="mail", permissions=["unwrapKey"]))
    assert code_of(lambda: unwrap(world, wrapped)) == "vault_access_denied"
    world.grant("unwrapKey", principal="mail")
    assert unwrap(world, wrapped) == PLAIN
    assert code_of(lambda: unwrap_key(world.vault, world.identity("files"), wrapped[0], OAEP, wrapped[1])) == "vault_access_denied"


def test_an_application_that_acts_for_another_tenant_is_refused_in_the_owners_log(world: World) -> None:
    wrapped = wrap(world, world.ready().id)
    strange = world.identity("mail", OTHER_TENANT)
    for attempt in (
        lambda: unwrap_key(world.vault, strange, wrapped[0], OAEP, wrapped[1]),
        lambda: wrap_key(world.vault, strange, wrapped[0], OAEP, PLAIN),
        lambda: key_facts(world.vault, strange, wrapped[0]),
    ):
        with pytest.raises(Forbidden) as refused:
            attempt()
        assert refused.value.code == "vault_another_tenant"
        assert world.log()[-1].result_signature == "vault_another_tenant"
        assert OTHER_TENANT in world.log()[-1].resource_id


def test_a_person_of_another_tenant_finds_nothing(world: World) -> None:
    world.ready()
    stranger = world.call(STRANGER, OTHER_TENANT)
    for attempt in (
        lambda: keys.show(world.vault, stranger, CURRENT),
        lambda: keys.list_all(world.vault, stranger, t.KeyList(vault=V)),
        lambda: keys.delete(world.vault, stranger, ROOT),
        lambda: backup.backup(world.vault, stranger, ROOT),
        lambda: keys.create(world.vault, stranger, t.KeyCreate(vault=V, name="new")),
    ):
        assert code_of(attempt) == "vault_not_found"


def test_a_deleted_key_is_recovered_with_all_versions(world: World) -> None:
    """R-047, R-048, R-158."""
    first = world.ready()
    wrapped = wrap(world, first.id)
    second = keys.rotate(world.vault, world.call(), ROOT)
    deleted = keys.delete(world.vault, world.call(), ROOT)
    assert deleted.deleted is not None
    assert deleted.scheduled_purge == deleted.deleted + timedelta(days=90)
    attempts: list[Callable[[], object]] = [
        lambda: unwrap(world, wrapped),
        lambda: wrap(world, second.id),
        lambda: keys.show(world.vault, world.call(), CURRENT),
        lambda: keys.list_versions(world.vault, world.call(), ROOT),
        lambda: keys.enable(world.vault, world.call(), CURRENT),
        lambda: keys.rotate(world.vault, world.call(), ROOT),
        lambda: backup.backup(world.vault, world.call(), ROOT),
        lambda: keys.delete(world.vault, world.call(), ROOT),
        lambda: key_facts(world.vault, world.identity(), first.id),
    ]
    assert {code_of(attempt) for attempt in attempts} == {"key_deleted"}
    assert keys.list_all(world.vault, world.call(), t.KeyList(vault=V)) == []
    assert [view.id for view in keys.list_deleted(world.vault, world.call(), t.VaultNamed(vault=V))] == [second.id]
    assert keys.recover(world.vault, world.call(), ROOT).deleted is None
    assert unwrap(world, wrapped) == PLAIN
    assert len(keys.list_versions(world.vault, world.call(), ROOT)) == 2


def test_a_deleted_keys_name_is_taken(world: World) -> None:
    """R-049."""
    world.ready()
    blob = backup.backup(world.vault, world.call(), ROOT).blob
    keys.delete(world.vault, world.call(), ROOT)
    pem = pem_of(ec.generate_private_key(ec.SECP256R1()))
    attempts: list[Callable[[], object]] = [
        lambda: world.new_key("Root"),
        lambda: keys.import_(world.vault, world.call(), t.KeyImport(vault=V, name="root", pem=pem)),
        lambda: backup.restore(world.vault, world.call(), t.KeyRestore(vault=V, blob=blob)),
    ]
    for attempt in attempts:
        with pytest.raises(Conflict) as refused:
            attempt()
        assert refused.value.inner_code == "ObjectIsDeletedButRecoverable"


def test_keys_are_purged_by_hand_or_by_time(world: World) -> None:
    """R-050, R-051, R-052."""
    key = world.ready(retention_days=7)
    assert code_of(lambda: keys.purge(world.vault, world.call(), ROOT)) == "deleted_key_not_found"
    keys.delete(world.vault, world.call(), ROOT)
    assert keys.purge(world.vault, world.call(), ROOT).name == "root"
    assert code_of(lambda: wrap(world, key.id)) == "key_not_found"
    again = world.new_key()
    keys.delete(world.vault, world.call(), ROOT)
    world.clock.days(7)
    assert code_of(lambda: keys.recover(world.vault, world.call(), ROOT)) == "deleted_key_not_found"
    assert keys.list_deleted(world.vault, world.call(), t.VaultNamed(vault=V)) == []
    assert code_of(lambda: wrap(world, again.id)) == "key_not_found"
    world.new_key()
    assert len(keys.list_versions(world.vault, world.call(), ROOT)) == 1
    world.new_vault("ContosoVault2", purge_protection=True)
    world.grant("delete,purge", upn=ALEX, vault="ContosoVault2")
    world.new_key(vault="ContosoVault2", kty="EC")
    kept = t.KeyNamed(vault="ContosoVault2", name="root")
    keys.delete(world.vault, world.call(), kept)
    assert code_of(lambda: keys.purge(world.vault, world.call(), kept)) == "purge_protected"


def test_keys_are_listed_in_pages(world: World) -> None:
    world.new_vault()
    for name in ("b", "A", "c"):
        world.new_key(name, kty="EC")
    whole = [view.name for view in keys.list_all(world.vault, world.call(), t.KeyList(vault=V))]
    first = [view.name for view in keys.list_all(world.vault, world.call(), t.KeyList(vault=V, limit=2))]
    rest = [view.name for view in keys.list_all(world.vault, world.call(), t.KeyList(vault=V, after="B"))]
    assert (whole, first, rest) == (["A", "b", "c"], ["A", "b"], ["c"])


def test_a_restored_key_has_every_version(world: World) -> None:
    """R-058, R-061, R-064, R-065."""
    first = world.ready()
    wrapped = wrap(world, first.id)
    keys.rotate(world.vault, world.call(), ROOT)
    keys.update(world.vault, world.call(), t.KeyUpdate(vault=V, name="root", tags={"team": "mail"}))
    before = keys.list_versions(world.vault, world.call(), ROOT)
    saved = backup.backup(world.vault, world.call(), ROOT)
    assert saved.suggested_name == "ContosoVault1-root-Backup-20260101.backup"
    keys.delete(world.vault, world.call(), ROOT)
    keys.purge(world.vault, world.call(), ROOT)
    world.clock.days(1)
    backup.restore(world.vault, world.call(), t.KeyRestore(vault=V, blob=saved.blob))
    assert keys.list_versions(world.vault, world.call(), ROOT) == before
    assert unwrap(world, wrapped) == PLAIN
    world.new_vault("ContosoVault2", region="northeurope")
    elsewhere = backup.restore(world.vault, world.call(), t.KeyRestore(vault="ContosoVault2", blob=saved.blob))
    assert elsewhere.base_id == f"https://contosovault2{SUFFIX}/keys/root"


def test_a_backup_goes_back_only_where_it_belongs(world: World) -> None:
    """R-059, R-060, R-062."""
    world.ready()
    blob = backup.backup(world.vault, world.call(), ROOT).blob

    def restored(vault: str, content: bytes = blob) -> str:
        return code_of(lambda: backup.restore(world.vault, world.call(), t.KeyRestore(vault=vault, blob=content)))

    assert restored(V) == "key_already_exists"
    world.new_vault("OtherSubscription", subscription="Contoso EA 2")
    world.new_vault("OtherGeography", region="eastus")
    assert restored("OtherSubscription") == "backup_another_subscription"
    assert restored("OtherGeography") == "backup_another_geography"
    world.new_vault("ContosoVault2")
    assert restored("ContosoVault2", blob[:-1] + bytes([blob[-1] ^ 1])) == "backup_damaged"
    assert restored("ContosoVault2", b"anything") == "backup_invalid"
    assert restored("ContosoVault2") == ""


def test_a_private_key_moved_to_another_row_does_not_open(world: World) -> None:
    first = world.ready()
    second = world.new_key("other")
    with pytest.raises(IntegrityFailure):
        world.vault.seal.open_private(world.sealed(first), private_key_context(TENANT, V, "other", second.version))
    assert world.vault.seal.open_private(world.sealed(second), private_key_context(TENANT, V, "other", second.version))


def test_a_key_that_is_not_there_is_named(world: World) -> None:
    world.ready()
    with pytest.raises(NotFound) as refused:
        keys.show(world.vault, world.call(), t.KeyVersionNamed(vault=V, name="nothing"))
    assert all(word in refused.value.detail for word in ("nothing", V))
    assert (
        code_of(lambda: keys.show(world.vault, world.call(), t.KeyVersionNamed(vault=V, name="root", version="0" * 32))) == "key_not_found"
    )
