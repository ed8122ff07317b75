"""What each row does: shapes in, one use case, shapes out. Runs in a thread."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import msgspec

from keystead.api.types.base import millis
from keystead.api.types.vaults import KeyNamed, RotationAction, RotationPolicySet
from keystead.core.errors import InvalidRequest
from keystead.core.ids import KEY_NAME, KEY_VERSION
from keystead.core.vaults import jwk
from keystead.core.vaults.limits import bringing
from keystead.core.vaults.recovery import scheduled_purge
from keystead.core.vaults.release import read_policy
from keystead.core.vaults.rotation import DEFAULT_ACTIONS
from keystead.core.vaults.usage import KeyKind, KeyOperation, KeyType, key_kind
from keystead.frontends.vault_http import shapes as s
from keystead.frontends.vault_http.shapes import SECOND, MemberInvalidError, milliseconds, octets, policy_text
from keystead.vault import backup as backups
from keystead.vault import keys, operations, release, rotation
from keystead.vault.lookup import level

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from keystead.api.types.vaults import RotationPolicyView
    from keystead.frontends.vault_http.parts import Served
    from keystead.vault.services import Identity, VaultServices
    from keystead.vault.views import KeyShown

MOST_RESULTS = 25
"""Lines of a page: the most, and what is given where nothing is asked for."""
_CURVE_BITS = {"P-256": 256, "P-256K": 256, "P-384": 384, "P-521": 521}


class Asked(NamedTuple):
    """One call: who asks, at which address, in which version of the interface, about which key."""

    services: VaultServices
    identity: Identity
    served: Served
    api: int
    name: str
    version: str | None
    query: Mapping[str, str]

    @property
    def place(self) -> operations.Place:
        """The key the path names."""
        return operations.Place(self.served.vault, self.name, self.version)


# -- keys ------------------------------------------------------------------------------------------------------------------------------


def create(asked: Asked, body: s.CreateIn) -> s.KeyOut:
    """Create a key, or a new current version of one that exists (R-020, R-023)."""
    wanted = _wanted(body.attributes, body.key_ops, body.tags, body.release_policy)
    return key_out(asked, keys.created(asked.services, asked.identity, asked.served.vault, asked.name, lambda: _kind(body), wanted))


def import_(asked: Asked, body: s.ImportIn) -> s.KeyOut:
    """Import a private key as a new key or a new current version (R-023)."""
    given = body.key
    wanted = _wanted(body.attributes, given.key_ops, body.tags, body.release_policy)

    def bring() -> tuple[jwk.PrivateKey, KeyKind]:
        _known_type(given.kty)
        if given.key_hsm is not None or given.k is not None:
            raise InvalidRequest("import_invalid", "transfer blobs and symmetric keys are not imported here", "import an RSA or EC key")
        members = {name: getattr(given, name) or "" for name in (*jwk.PUBLIC_MEMBERS, *jwk.PRIVATE_MEMBERS)}
        return jwk.private_key(given.kty, members, hsm=bool(body.hsm))

    cost = bringing(given.kty, hsm=bool(body.hsm), bits=6 * len(given.n or ""))
    return key_out(asked, keys.imported(asked.services, asked.identity, asked.served.vault, asked.name, bring, wanted, cost))


def get(asked: Asked, _body: None) -> s.KeyOut:
    """A version of a key, the current one where none is named: its public half and attributes."""
    return key_out(asked, keys.got(asked.services, asked.identity, asked.served.vault, asked.name, asked.version))


def update(asked: Asked, body: s.UpdateIn) -> s.KeyOut:
    """Change attributes of a version, the current one where none is named; what is absent stays."""
    attributes = body.attributes or s.AttributesIn()
    change = keys.Change(
        ops=body.key_ops,
        enabled=attributes.enabled,
        not_before=milliseconds(attributes.not_before, "nbf"),
        expires=milliseconds(attributes.expires, "exp"),
        tags=body.tags,
        release_policy=policy_text(body.release_policy),
    )
    return key_out(asked, keys.changed(asked.services, asked.identity, asked.served.vault, asked.name, asked.version, change))


def delete(asked: Asked, _body: None) -> s.DeletedKeyOut:
    """Delete a key softly with all versions (R-048)."""
    return deleted_out(asked, keys.deleted(asked.services, asked.identity, asked.served.vault, asked.name))


def get_deleted(asked: Asked, _body: None) -> s.DeletedKeyOut:
    """A deleted key that can be recovered."""
    return deleted_out(asked, keys.got_deleted(asked.services, asked.identity, asked.served.vault, asked.name))


def recover(asked: Asked, _body: None) -> s.KeyOut:
    """Bring a deleted key back with all versions (R-047)."""
    return key_out(asked, keys.recovered(asked.services, asked.identity, asked.served.vault, asked.name))


def purge(asked: Asked, _body: None) -> None:
    """Destroy a deleted key for good (R-051)."""
    keys.purge(asked.services, asked.identity, KeyNamed(vault=asked.served.vault, name=asked.name))


def backup(asked: Asked, _body: None) -> s.ValueOut:
    """A sealed blob that holds a key with all versions and metadata (R-058)."""
    made = backups.backup(asked.services, asked.identity, KeyNamed(vault=asked.served.vault, name=asked.name))
    return s.ValueOut(jwk.encode(made.blob))


def restore(asked: Asked, body: s.RestoreIn) -> s.KeyOut:
    """Bring a key back from a backup (R-061)."""
    return key_out(asked, backups.restored(asked.services, asked.identity, asked.served.vault, octets(body.value, "value")))


def rotate(asked: Asked, _body: None) -> s.KeyOut:
    """Make a new current version of the same type and size (R-034)."""
    return key_out(asked, keys.rotated(asked.services, asked.identity, asked.served.vault, asked.name))


# -- listings --------------------------------------------------------------------------------------------------------------------------


def list_keys(asked: Asked, _body: None) -> s.KeyPage:
    """The keys of a vault that are not deleted, by name."""
    count, after = _page(asked, "k", KEY_NAME.fullmatch)
    found = keys.listed(asked.services, asked.identity, asked.served.vault, after, count + 1)
    lines = [_item(asked, shown, base=True) for shown in found[:count]]
    return s.KeyPage(lines, _next(asked, "k", count, [shown.version.key.name.lower() for shown in found]))


def list_versions(asked: Asked, _body: None) -> s.KeyPage:
    """All versions of a key by their identifiers, which says nothing of their age; none of a key that is not there."""
    count, after = _page(asked, "v", KEY_VERSION.fullmatch)
    found = keys.listed_versions(asked.services, asked.identity, asked.served.vault, asked.name, missing_ok=True)
    rest = sorted((shown for shown in found if shown.version.version > after), key=lambda shown: shown.version.version)
    page = rest[: count + 1]
    lines = [_item(asked, shown, base=False) for shown in page[:count]]
    return s.KeyPage(lines, _next(asked, "v", count, [shown.version.version for shown in page]))


def list_deleted(asked: Asked, _body: None) -> s.DeletedKeyPage:
    """The deleted keys of a vault that can be recovered, by name."""
    count, after = _page(asked, "d", KEY_NAME.fullmatch)
    found = keys.listed_deleted(asked.services, asked.identity, asked.served.vault)
    found = [shown for shown in found if shown.version.key.name.lower() > after]
    lines = []
    for shown in found[:count]:
        line, (recovery, deleted, purged) = _item(asked, shown, base=True), _deletion(asked, shown)
        lines.append(s.DeletedKeyItemOut(line.kid, recovery, deleted, purged, line.attributes, line.tags))
    return s.DeletedKeyPage(lines, _next(asked, "d", count, [shown.version.key.name.lower() for shown in found]))


def _page(asked: Asked, kind: str, valid: Callable[[str], object]) -> tuple[int, str]:
    """How many lines, and after which.

    Raises:
        MemberInvalidError: `page_size_invalid`, `page_token_invalid`.
    """
    text = asked.query.get("maxresults", str(MOST_RESULTS))
    if not (text.isascii() and text.isdecimal() and len(text) <= 4 and 1 <= int(text) <= MOST_RESULTS):
        raise MemberInvalidError(
            InvalidRequest("page_size_invalid", f"maxresults is not 1 to {MOST_RESULTS}", f"ask for 1 to {MOST_RESULTS}")
        )
    token = asked.query.get("$skiptoken")
    if token is None:
        return int(text), ""
    # It names a place in a listing that its bearer must be allowed to see on every page: it opens nothing, so it needs no seal, only a shape.
    refused = MemberInvalidError(
        InvalidRequest("page_token_invalid", "$skiptoken is not one that this listing gave", "follow nextLink as it is")
    )
    try:
        after = jwk.decode(token[:512]).decode("ascii")
    except ValueError:
        raise refused from None
    if after[:1] != kind or not valid(after[1:]) or after != after.lower():
        raise refused
    return int(text), after[1:]


def _next(asked: Asked, kind: str, count: int, places: list[str]) -> str | None:
    """Where the next page is; None behind the last one. `places`: of the lines found, one more than fit where there are more."""
    if len(places) <= count:
        return None
    token = jwk.encode(f"{kind}{places[count - 1]}".encode())
    path = {"k": "/keys", "v": f"/keys/{asked.name}/versions", "d": "/deletedkeys"}[kind]
    return f"{asked.served.base_url}{path}?api-version={asked.query['api-version']}&$skiptoken={token}&maxresults={count}"


# -- using keys ------------------------------------------------------------------------------------------------------------------------


def encrypt(asked: Asked, body: s.OperateIn) -> s.ResultOut:
    """Encrypt a small value with an RSA key."""
    return _done(asked, operations.encrypt(asked.services, asked.identity, asked.place, body.alg, _operand(body)))


def decrypt(asked: Asked, body: s.OperateIn) -> s.ResultOut:
    """Decrypt what encrypt gave (R-030)."""
    return _done(asked, operations.decrypt(asked.services, asked.identity, asked.place, body.alg, _operand(body)))


def wrap_key(asked: Asked, body: s.OperateIn) -> s.ResultOut:
    """Wrap a key with an RSA key (R-026)."""
    return _done(asked, operations.wrap_key(asked.services, asked.identity, asked.place, body.alg, _operand(body)))


def unwrap_key(asked: Asked, body: s.OperateIn) -> s.ResultOut:
    """Unwrap a key with the version that wrapped it (R-027)."""
    return _done(asked, operations.unwrap_key(asked.services, asked.identity, asked.place, body.alg, _operand(body)))


def sign(asked: Asked, body: s.SignIn) -> s.ResultOut:
    """Sign a digest."""
    return _done(asked, operations.sign(asked.services, asked.identity, asked.place, body.alg, octets(body.value, "value")))


def verify(asked: Asked, body: s.VerifyIn) -> s.VerifiedOut:
    """Whether a signature over a digest is good."""
    digest, signature = octets(body.digest, "digest"), octets(body.value, "value")
    return s.VerifiedOut(operations.verify(asked.services, asked.identity, asked.place, body.alg, digest, signature))


def _operand(body: s.OperateIn) -> bytes:
    if body.iv is not None or body.aad is not None or body.tag is not None:
        raise MemberInvalidError(
            InvalidRequest("value_invalid", "iv, aad and tag belong to symmetric keys, which a vault does not hold", "leave them out")
        )
    return octets(body.value, "value")


def _done(asked: Asked, done: operations.Done) -> s.ResultOut:
    return s.ResultOut(_kid(asked, done.version.key.name, done.version.version), jwk.encode(done.value))


def release_key(asked: Asked, body: s.ReleaseIn) -> s.ValueOut:
    """Release an exportable key to the environment that an attestation token describes."""
    target, nonce, enc = body.target, body.nonce, body.enc
    return s.ValueOut(release.release(asked.services, asked.identity, asked.place, target, nonce, enc, asked.served.base_url))


def attest(asked: Asked, _body: None) -> s.KeyOut:
    """A key as get shows it; an attestation is not there, for the key lies in software."""
    return key_out(asked, release.attested(asked.services, asked.identity, asked.place))


def random_bytes(asked: Asked, body: s.RandomIn) -> s.ValueOut:
    """Bytes from the operating system's generator."""
    return s.ValueOut(jwk.encode(release.random_bytes(asked.services, asked.identity, asked.served.vault, body.count)))


# -- rotation policies -----------------------------------------------------------------------------------------------------------------


def get_rotation_policy(asked: Asked, _body: None) -> s.RotationPolicyOut:
    """The rotation policy of a key; the default one where none was set."""
    return _rotation_policy(asked, rotation.get_policy(asked.services, asked.identity, KeyNamed(vault=asked.served.vault, name=asked.name)))


def set_rotation_policy(asked: Asked, body: s.RotationPolicyIn) -> s.RotationPolicyOut:
    """Replace the rotation policy of a key (R-035); one that says nothing of notices has the default one."""
    actions = []
    for one in body.lifetime_actions or []:
        trigger = one.trigger or s.TriggerShape()
        actions.append(RotationAction(one.action.type, trigger.time_after_create, trigger.time_before_expiry))
    if not any(one.action.lower() == "notify" for one in actions):
        actions += [RotationAction(one.kind, None, str(one.before_expiry)) for one in DEFAULT_ACTIONS]
    expiry = None if body.attributes is None else body.attributes.expiry_time
    request = RotationPolicySet(vault=asked.served.vault, name=asked.name, lifetime_actions=actions, expiry_time=expiry)
    return _rotation_policy(asked, rotation.set_policy(asked.services, asked.identity, request))


def _rotation_policy(asked: Asked, view: RotationPolicyView) -> s.RotationPolicyOut:
    actions = [
        s.LifetimeActionShape(s.ActionShape(one.action), s.TriggerShape(one.time_after_create, one.time_before_expiry))
        for one in view.lifetime_actions
    ]
    attributes = s.PolicyAttributesOut(view.expiry_time, millis(view.created) // SECOND, millis(view.updated) // SECOND)
    return s.RotationPolicyOut(f"{_kid(asked, view.name, None)}/rotationpolicy", actions, attributes)


# -- shapes ----------------------------------------------------------------------------------------------------------------------------


def _kind(body: s.CreateIn) -> KeyKind:
    """The kind of key that is asked for.

    Raises:
        InvalidRequest: `key_type_invalid`, `key_size_invalid`, `public_exponent_invalid`.
    """
    _known_type(body.kty)
    if body.public_exponent not in {None, jwk.PUBLIC_EXPONENT}:
        raise InvalidRequest(
            "public_exponent_invalid", f"{body.public_exponent} is not a public exponent of a vault's keys", f"use {jwk.PUBLIC_EXPONENT}"
        )
    size = body.key_size
    if body.kty.upper().startswith("EC") and size == _CURVE_BITS.get(body.crv or "P-256"):
        size = None  # some clients say both; they agree
    return key_kind(body.kty, size, body.crv)


def _known_type(kty: str) -> None:
    if kty.upper() not in list(KeyType):
        # Symmetric ones (oct, oct-HSM) too: those are for managed HSMs.
        raise InvalidRequest("key_type_invalid", f"Invalid kty value: {kty[:32]}", f"use one of {', '.join(KeyType)}")


def _wanted(
    attributes: s.AttributesIn | None, ops: list[str] | None, tags: dict[str, str] | None, policy: s.ReleasePolicyIn | None
) -> keys.Wanted:
    given = attributes or s.AttributesIn()
    return keys.Wanted(
        ops=ops,
        enabled=True if given.enabled is None else given.enabled,
        not_before=milliseconds(given.not_before, "nbf"),
        expires=milliseconds(given.expires, "exp"),
        tags=tags or {},
        exportable=bool(given.exportable),
        release_policy=policy_text(policy) or "",
    )


def key_out(asked: Asked, shown: KeyShown) -> s.KeyOut:
    """A key version as it travels."""
    return s.KeyOut(_jwk(asked, shown), _attributes(asked, shown), shown.version.tags or None, _policy(shown))


def deleted_out(asked: Asked, shown: KeyShown) -> s.DeletedKeyOut:
    """A deleted key as it travels."""
    recovery, deleted, purged = _deletion(asked, shown)
    return s.DeletedKeyOut(
        recovery, deleted, purged, _jwk(asked, shown), _attributes(asked, shown), shown.version.tags or None, _policy(shown)
    )


def _jwk(asked: Asked, shown: KeyShown) -> s.JwkOut:
    version = shown.version
    ops: list[str] = [operation for operation in KeyOperation if operation in version.key_ops]
    return s.JwkOut(_kid(asked, version.key.name, version.version), version.kty, ops, **jwk.public_members(version.public_key))


def _item(asked: Asked, shown: KeyShown, *, base: bool) -> s.KeyItemOut:
    version = shown.version
    kid = _kid(asked, version.key.name, None if base else version.version)
    return s.KeyItemOut(kid, _attributes(asked, shown), version.tags or None)


def _attributes(asked: Asked, shown: KeyShown) -> s.AttributesOut:
    """`hsmPlatform` 0 says that the key lies in software, whatever its type: see docs/limitations.md."""
    version = shown.version
    return s.AttributesOut(
        enabled=version.enabled,
        created=version.created // SECOND,
        updated=version.updated // SECOND,
        recovery_level=level(shown.vault, shown.now),
        not_before=None if version.not_before is None else version.not_before // SECOND,
        expires=None if version.expires is None else version.expires // SECOND,
        recoverable_days=shown.vault.retention_days if asked.api >= 1 else None,
        exportable=version.exportable if asked.api >= 3 else None,
        hsm_platform="0" if asked.api >= 5 else None,
    )


def _policy(shown: KeyShown) -> s.ReleasePolicyOut | None:
    policy = read_policy(shown.version.release_policy)
    return None if policy is None else msgspec.convert(policy.shown, s.ReleasePolicyOut)


def _deletion(asked: Asked, shown: KeyShown) -> tuple[str, int, int]:
    deleted = shown.version.key.deleted
    assert deleted is not None, "it was found among the deleted ones"
    purged = scheduled_purge(deleted, shown.vault.retention_days)
    return f"{asked.served.base_url}/deletedkeys/{shown.version.key.name}", deleted // SECOND, purged // SECOND


def _kid(asked: Asked, name: str, version: str | None) -> str:
    base = f"{asked.served.base_url}/keys/{name}"
    return base if version is None else f"{base}/{version}"
