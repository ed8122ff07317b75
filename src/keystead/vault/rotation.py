"""Rotation policies of keys, and the upkeep that does what they say (R-035).

The upkeep may run in several processes at once and be stopped anywhere: what is to be done follows from the versions themselves, is looked
at again inside the transaction that does it, and lies in that transaction together with its log record.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from keystead.api.types.base import utc, utc_or_none
from keystead.api.types.vaults import RotationAction, RotationPolicyView
from keystead.core.errors import IntegrityFailure
from keystead.core.vaults import rotation
from keystead.core.vaults.access import Permission, PrincipalKind, VaultPrincipal
from keystead.core.vaults.limits import CHANGE, LOOK
from keystead.core.vaults.recovery import DAY, Existence
from keystead.core.vaults.usage import KeyKind
from keystead.vault.guard import admitted
from keystead.vault.keys import add_rotated
from keystead.vault.lookup import find_key, find_vault, key_state, need, vault_state
from keystead.vault.material import generate
from keystead.vault.record import Act, add_record, recorded
from keystead.vault.services import Identity, identity_of

if TYPE_CHECKING:
    from keystead.api.types.vaults import KeyNamed, RotationPolicySet
    from keystead.ports.vault_store import KeyVersion, Vault, VaultReader, VaultWriter, WatchedVersion
    from keystead.vault.services import Caller, VaultServices

MAX_ROTATIONS = 100
MAX_ROUND = 10_000
"""Milliseconds after which no further rotation is begun. Both bound one round of the upkeep, which has those first that wait for longest:
making keys takes time, and the round is one of many things to do."""

_ROTATION = VaultPrincipal(PrincipalKind.SERVICE, "rotation")
"""Who the log names for what no caller asked for."""


def get_policy(vault: VaultServices, caller: Caller, request: KeyNamed) -> RotationPolicyView:
    """The rotation policy of a key. One without a policy shows the default: nothing rotates, and the end is told of 30 days before.

    Raises:
        NotFound: no such vault or key.
        Forbidden: the caller does not hold getrotationpolicy.
    """
    identity = identity_of(caller)
    now = vault.clock.now()

    def change(tx: VaultWriter) -> RotationPolicyView:
        found = find_vault(tx, identity, request.vault, now)
        need(tx, identity, found, Permission.GET_ROTATION_POLICY)
        admitted(vault, identity, found, LOOK)
        return _view(found, find_key(tx, found, request.name, None, now))

    return recorded(vault, identity, Act("KeyRotationPolicyGet", request.vault, request.name), change)


def set_policy(vault: VaultServices, caller: Caller, request: RotationPolicySet) -> RotationPolicyView:
    """Replace the rotation policy of a key. Versions that are there keep their dates; a rotation that is due by it comes with the next upkeep.

    Raises:
        InvalidRequest: `rotation_policy_invalid`, `duration_invalid`.
        NotFound: no such vault or key.
        Forbidden: the caller does not hold setrotationpolicy.
    """
    identity = identity_of(caller)
    now = vault.clock.now()

    def change(tx: VaultWriter) -> RotationPolicyView:
        found = find_vault(tx, identity, request.vault, now)
        need(tx, identity, found, Permission.SET_ROTATION_POLICY)
        admitted(vault, identity, found, CHANGE)
        current = find_key(tx, found, request.name, None, now)
        made = rotation.policy(
            [rotation.action(one.action, one.time_after_create, one.time_before_expiry) for one in request.lifetime_actions],
            None if request.expiry_time is None else rotation.duration(request.expiry_time),
            created=_first_set(current, now),
            updated=now,
        )
        text = rotation.write(made)
        tx.set_rotation_policy(current.key, text)
        return _view(found, replace(current, key=replace(current.key, rotation_policy=text)))

    return recorded(vault, identity, Act("KeyRotationPolicySet", request.vault, request.name), change)


def due(vault: VaultServices) -> int:
    """Tell of versions whose end is near or has come, and rotate the keys whose time has come; how many were told of or rotated.

    Left alone until that changes: keys in a deleted or failed-over vault or in a cancelled subscription, and keys whose current version
    is disabled. A policy that cannot be read stops nothing but its own key.
    """
    now = vault.clock.now()
    with vault.store.reading() as tx:
        watched = tx.watched(_horizon(now))
        if not watched:
            return 0
        vaults = {found.id: found for found in tx.all_vaults()}
    told = 0
    if any(_settled(one, now) != one for one in watched):
        told = _tell(vault, now)
    waiting = sorted(
        ((time, one) for one in watched if (time := _rotation_time(one, vaults.get(one.vault_id), now)) is not None),
        key=lambda pair: (pair[0], pair[1].vault_id, pair[1].key_name),
    )
    rotated = 0
    for _, one in waiting[:MAX_ROTATIONS]:
        if vault.clock.now() - now >= MAX_ROUND:
            break
        rotated += _rotate(vault, vaults[one.vault_id], one)
    return told + rotated


def _horizon(now: int) -> int:
    """Versions of keys without a policy are looked at from here on."""
    return now + rotation.NOTICE_DAYS * DAY + 1


def _tell(vault: VaultServices, now: int) -> int:
    """Record every end that is near or has come and is not told of yet. Looked at again in here: another process may have been faster."""
    told = 0
    with vault.store.writing() as tx:
        vaults = {found.id: found for found in tx.all_vaults()}
        for one in tx.watched(_horizon(now)):
            settled = _settled(one, now)
            if settled == one:
                continue
            tx.put_told(settled)
            found = vaults[one.vault_id]
            if not one.current or vault_state(found, now) is not Existence.ACTIVE:
                continue
            note = f"expires at {utc(one.expires or 0).isoformat()}"
            acts = []
            if settled.near_told != one.near_told:
                acts.append(Act("KeyNearExpiryEventGridNotification", found.name, one.key_name, one.version, note))
            if settled.expired_told != one.expired_told:
                acts.append(Act("KeyExpiredEventGridNotification", found.name, one.key_name, one.version, note))
            for act in acts:
                add_record(vault, tx, Identity(_ROTATION, one.tenant_id), act)
            told += len(acts)
    return told


def _settled(one: WatchedVersion, now: int) -> WatchedVersion:
    """A version with all marked as told that is to be told now. The end of a version that is not current any more concerns nobody."""
    if one.expires is None:
        return one
    if not one.current:
        return replace(one, near_told=one.expires, expired_told=one.expires)
    policy = _policy(one.rotation_policy)
    near = rotation.near_expiry(policy, one.expires)
    if now >= one.expires:
        return replace(one, expired_told=one.expires)
    return replace(one, near_told=one.expires) if near is not None and now >= near else one


def _rotation_time(one: WatchedVersion, found: Vault | None, now: int) -> int | None:
    """Since when a version waits for its rotation; None where it does not."""
    if found is None or not one.current or not one.enabled or found.read_only or found.subscription.cancelled:
        return None
    if vault_state(found, now) is not Existence.ACTIVE:
        return None
    time = rotation.next_due(_policy(one.rotation_policy), one.created, one.expires)
    return time if time is not None and now >= time else None


def _rotate(vault: VaultServices, found: Vault, one: WatchedVersion) -> bool:
    """Rotate one key, unless another process did. The new key is made outside the transaction; a crash before the commit leaves nothing."""
    with vault.store.reading() as tx:
        current = _still_due(vault, tx, found, one)
    if current is None:
        return False
    private = generate(KeyKind(current.kty, current.size, current.curve))
    with vault.store.writing() as tx:
        current = _still_due(vault, tx, found, one)
        if current is None:
            return False
        made = add_rotated(vault, tx, found, current, private)
        identity = Identity(_ROTATION, found.tenant_id)
        add_record(vault, tx, identity, Act("KeyRotate", found.name, current.key.name, made.version, "rotation policy"))
    return True


def _still_due(vault: VaultServices, tx: VaultReader, found: Vault, one: WatchedVersion) -> KeyVersion | None:
    """The version that waits for its rotation, while it still does."""
    now = vault.clock.now()
    present = tx.vault(found.tenant_id, found.name)
    current = tx.key_version(found.tenant_id, found.id, one.key_name, None)
    if present is None or present.id != found.id or current is None or current.version != one.version:
        return None
    if key_state(current, present, now) is not Existence.ACTIVE:
        return None
    again = replace(one, enabled=current.enabled, expires=current.expires, rotation_policy=current.key.rotation_policy)
    return None if _rotation_time(again, present, now) is None else current


def _policy(text: str) -> rotation.RotationPolicy | None:
    """The policy of a text; none where it is damaged, which everybody is told who looks at it."""
    try:
        return rotation.read(text)
    except IntegrityFailure:
        return None


def _first_set(current: KeyVersion, now: int) -> int:
    """When a key first had a policy; a damaged one is replaced by setting another."""
    present = _policy(current.key.rotation_policy)
    return now if present is None else present.created


def _view(found: Vault, current: KeyVersion) -> RotationPolicyView:
    policy = rotation.read(current.key.rotation_policy)
    actions = rotation.DEFAULT_ACTIONS if policy is None else policy.actions
    return RotationPolicyView(
        vault=found.name,
        name=current.key.name,
        lifetime_actions=[
            RotationAction(action=one.kind, time_after_create=_text(one.after_create), time_before_expiry=_text(one.before_expiry))
            for one in actions
        ],
        expiry_time=None if policy is None else _text(policy.expiry_time),
        created=utc(current.key.created if policy is None else policy.created),
        updated=utc(current.key.created if policy is None else policy.updated),
        next_rotation=utc_or_none(rotation.next_due(policy, current.created, current.expires)),
    )


def _text(span: rotation.Duration | None) -> str | None:
    return None if span is None else str(span)
