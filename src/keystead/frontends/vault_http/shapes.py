"""What travels over the keys face, as its clients write and read it (docs/spec/vault-http.md).

Bytes are base64url without padding; times are whole seconds since the epoch. Members of a request that mean nothing here are passed over, as
the services do it, and null means absent. Nothing that comes in is ever shown: a request may carry a private key.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from keystead.core.errors import InvalidRequest
from keystead.core.vaults.algorithms import Encryption, Signature
from keystead.core.vaults.jwk import decode
from keystead.core.vaults.release import release_policy
from keystead.core.vaults.usage import CURVES, KeyOperation, KeyType

MAX_TIME = 253_402_300_799
"""9999-12-31 23:59:59 UTC."""
SECOND = 1_000


Octets = Annotated[str, msgspec.Meta(extra_json_schema={"pattern": "^[A-Za-z0-9_-]*$", "contentEncoding": "base64url"})]
"""Checked when it is read, so that what is wrong with it has the face's own error."""
KeyTypeName = Annotated[str, msgspec.Meta(extra_json_schema={"enum": [str(kind) for kind in KeyType]})]
CurveName = Annotated[str, msgspec.Meta(extra_json_schema={"enum": list(CURVES)})]
OperationName = Annotated[str, msgspec.Meta(extra_json_schema={"enum": [str(operation) for operation in KeyOperation]})]
EncryptionName = Annotated[str, msgspec.Meta(extra_json_schema={"enum": [str(algorithm) for algorithm in Encryption]})]
SignatureName = Annotated[str, msgspec.Meta(extra_json_schema={"enum": [str(algorithm) for algorithm in Signature]})]


class MemberInvalidError(Exception):
    """A member of a request that cannot be read: no use case has seen the call yet, so nothing has recorded it."""

    def __init__(self, error: InvalidRequest) -> None:
        super().__init__(error.detail)
        self.error = error


class Shape(msgspec.Struct, frozen=True, omit_defaults=True, rename={"not_before": "nbf", "expires": "exp"}):
    """Something that travels; absent members are left out."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}(...)"


# -- requests --------------------------------------------------------------------------------------------------------------------------


class AttributesIn(Shape, frozen=True):
    """What a caller chooses about a key version."""

    enabled: bool | None = None
    not_before: int | None = None
    expires: int | None = None
    exportable: bool | None = None


class ReleasePolicyIn(Shape, frozen=True, rename={"content_type": "contentType"}):
    """A release policy; `data` is base64url of its document."""

    data: Octets | None = None
    content_type: str | None = None
    immutable: bool | None = None


class CreateIn(Shape, frozen=True):
    """POST /keys/{name}/create."""

    kty: KeyTypeName
    key_size: int | None = None
    public_exponent: int | None = None
    key_ops: list[OperationName] | None = None
    attributes: AttributesIn | None = None
    tags: dict[str, str] | None = None
    crv: CurveName | None = None
    release_policy: ReleasePolicyIn | None = None


class JwkIn(Shape, frozen=True):
    """A private key that somebody brings (RFC 7517)."""

    kty: KeyTypeName
    key_ops: list[OperationName] | None = None
    n: Octets | None = None
    e: Octets | None = None
    d: Octets | None = None
    p: Octets | None = None
    q: Octets | None = None
    dp: Octets | None = None
    dq: Octets | None = None
    qi: Octets | None = None
    crv: CurveName | None = None
    x: Octets | None = None
    y: Octets | None = None
    k: Octets | None = None
    key_hsm: Octets | None = None


class ImportIn(Shape, frozen=True, rename={"hsm": "Hsm"}):
    """PUT /keys/{name}."""

    key: JwkIn
    hsm: bool | None = None
    attributes: AttributesIn | None = None
    tags: dict[str, str] | None = None
    release_policy: ReleasePolicyIn | None = None


class UpdateIn(Shape, frozen=True):
    """PATCH /keys/{name}/{version}."""

    key_ops: list[OperationName] | None = None
    attributes: AttributesIn | None = None
    tags: dict[str, str] | None = None
    release_policy: ReleasePolicyIn | None = None


class RestoreIn(Shape, frozen=True):
    """POST /keys/restore."""

    value: Octets


class OperateIn(Shape, frozen=True):
    """encrypt, decrypt, wrapkey, unwrapkey. `iv`, `aad` and `tag` belong to keys that a vault does not hold."""

    alg: EncryptionName
    value: Octets
    iv: Octets | None = None
    aad: Octets | None = None
    tag: Octets | None = None


class SignIn(Shape, frozen=True):
    """sign: `value` is a digest."""

    alg: SignatureName
    value: Octets


class VerifyIn(Shape, frozen=True):
    """verify: `value` is the signature."""

    alg: SignatureName
    digest: Octets
    value: Octets


class RandomIn(Shape, frozen=True):
    """POST /rng."""

    count: int


class ReleaseIn(Shape, frozen=True):
    """release: `target` is the attestation token of the environment."""

    target: str
    nonce: str | None = None
    enc: str | None = None


class TriggerShape(Shape, frozen=True, rename={"time_after_create": "timeAfterCreate", "time_before_expiry": "timeBeforeExpiry"}):
    """When an action of a rotation policy is due: ISO 8601 durations, one of the two."""

    time_after_create: str | None = None
    time_before_expiry: str | None = None


class ActionShape(Shape, frozen=True):
    """Rotate or Notify, whatever the case."""

    type: str


class LifetimeActionShape(Shape, frozen=True):
    """One action of a rotation policy."""

    action: ActionShape
    trigger: TriggerShape | None = None


class PolicyAttributesIn(Shape, frozen=True, rename={"expiry_time": "expiryTime"}):
    """How long new versions live: an ISO 8601 duration."""

    expiry_time: str | None = None


class RotationPolicyIn(Shape, frozen=True, rename={"lifetime_actions": "lifetimeActions"}):
    """PUT /keys/{name}/rotationpolicy."""

    lifetime_actions: list[LifetimeActionShape] | None = None
    attributes: PolicyAttributesIn | None = None


# -- answers ---------------------------------------------------------------------------------------------------------------------------


class JwkOut(Shape, frozen=True):
    """The public half of a key."""

    kid: str
    kty: KeyTypeName
    key_ops: list[OperationName]
    n: Octets | None = None
    e: Octets | None = None
    crv: CurveName | None = None
    x: Octets | None = None
    y: Octets | None = None


class AttestationOut(Shape, frozen=True):
    """A statement about where a key lies; each member is base64url."""

    certificatePemFile: str | None = None  # noqa: N815 - the wire's name
    privateKeyAttestation: str | None = None  # noqa: N815
    publicKeyAttestation: str | None = None  # noqa: N815
    version: str | None = None


class AttributesOut(
    Shape,
    frozen=True,
    rename={
        "not_before": "nbf",
        "expires": "exp",
        "recovery_level": "recoveryLevel",
        "recoverable_days": "recoverableDays",
        "hsm_platform": "hsmPlatform",
    },
):
    """Attributes of a key version. `exportable` since 7.3, `hsmPlatform` since 7.5, `recoverableDays` since 7.1."""

    enabled: bool
    created: int
    updated: int
    recovery_level: str
    not_before: int | None = None
    expires: int | None = None
    recoverable_days: int | None = None
    exportable: bool | None = None
    hsm_platform: str | None = None
    attestation: AttestationOut | None = None


class ReleasePolicyOut(Shape, frozen=True, rename={"content_type": "contentType"}):
    """A release policy as it was given."""

    content_type: str
    data: Octets
    immutable: bool


class KeyOut(Shape, frozen=True):
    """A key version."""

    key: JwkOut
    attributes: AttributesOut
    tags: dict[str, str] | None = None
    release_policy: ReleasePolicyOut | None = None


_DELETED = {"recovery_id": "recoveryId", "deleted_date": "deletedDate", "scheduled_purge_date": "scheduledPurgeDate"}


class DeletedKeyOut(Shape, frozen=True, rename=_DELETED):
    """A deleted key: its current version, and how long it can be brought back."""

    recovery_id: str
    deleted_date: int
    scheduled_purge_date: int
    key: JwkOut
    attributes: AttributesOut
    tags: dict[str, str] | None = None
    release_policy: ReleasePolicyOut | None = None


class KeyItemOut(Shape, frozen=True):
    """A line of a listing."""

    kid: str
    attributes: AttributesOut
    tags: dict[str, str] | None = None


class DeletedKeyItemOut(Shape, frozen=True, rename=_DELETED):
    """A line of the listing of deleted keys."""

    kid: str
    recovery_id: str
    deleted_date: int
    scheduled_purge_date: int
    attributes: AttributesOut
    tags: dict[str, str] | None = None


class KeyPage(msgspec.Struct, frozen=True, rename={"next_link": "nextLink"}):
    """A page of a listing; `nextLink` is null on the last one."""

    value: list[KeyItemOut]
    next_link: str | None


class DeletedKeyPage(msgspec.Struct, frozen=True, rename={"next_link": "nextLink"}):
    """A page of the listing of deleted keys."""

    value: list[DeletedKeyItemOut]
    next_link: str | None


class ResultOut(Shape, frozen=True):
    """The key version that was used, and what came out."""

    kid: str
    value: Octets


class VerifiedOut(msgspec.Struct, frozen=True):
    """Whether the signature is good."""

    value: bool


class ValueOut(Shape, frozen=True):
    """A backup, random bytes, or a released key (a compact JWS, the only one with dots)."""

    value: str


class PolicyAttributesOut(Shape, frozen=True, rename={"expiry_time": "expiryTime"}):
    """Attributes of a rotation policy."""

    expiry_time: str | None = None
    created: int | None = None
    updated: int | None = None


class RotationPolicyOut(msgspec.Struct, frozen=True, rename={"lifetime_actions": "lifetimeActions"}):
    """A rotation policy."""

    id: str
    lifetime_actions: list[LifetimeActionShape]
    attributes: PolicyAttributesOut


class ErrorDetail(Shape, frozen=True):
    """What went wrong; the code is for programs."""

    code: str
    message: str | None = None
    innererror: ErrorDetail | None = None


class ErrorOut(Shape, frozen=True):
    """Every answer that is not a success."""

    error: ErrorDetail


# -- reading members -------------------------------------------------------------------------------------------------------------------


def octets(text: str, member: str) -> bytes:
    """The bytes of a member.

    Raises:
        MemberInvalidError: `value_invalid`: not base64url without padding. The text does not repeat it.
    """
    try:
        return decode(text)
    except ValueError:
        raise MemberInvalidError(
            InvalidRequest("value_invalid", f"the property {member!r} is not base64url without padding", "encode it by RFC 4648 section 5")
        ) from None


def milliseconds(seconds: int | None, member: str) -> int | None:
    """A time, in milliseconds.

    Raises:
        MemberInvalidError: `time_invalid`: before the epoch, or after the year 9999.
    """
    if seconds is not None and not 0 <= seconds <= MAX_TIME:
        raise MemberInvalidError(
            InvalidRequest("time_invalid", f"the property {member!r} is not a time", f"give seconds since the epoch, 0 to {MAX_TIME}")
        )
    return None if seconds is None else seconds * SECOND


def policy_text(given: ReleasePolicyIn | None) -> str | None:
    """A release policy as it is kept; None where none is given.

    Raises:
        MemberInvalidError: `release_policy_invalid`.
    """
    if given is None:
        return None
    data = octets(given.data or "", "release_policy.data")
    try:
        return release_policy(data, immutable=bool(given.immutable), content_type=given.content_type).text
    except InvalidRequest as error:
        raise MemberInvalidError(error) from None
