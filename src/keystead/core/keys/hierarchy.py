"""What is derived from the keys of the hierarchies of mail and files (docs/spec/keys.md).

A policy key, mailbox key or site key is input of HKDF and nothing else; it never encrypts. Each output has one use.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives import constant_time

from keystead.core.door import key_bytes
from keystead.core.errors import IntegrityFailure
from keystead.core.formats.aead import Aes
from keystead.core.formats.kdf import derive

if TYPE_CHECKING:
    from keystead.core.secret import SecretKey

POLICY_WRAP = "keystead/1/policy-key/wrap"
POLICY_CHECK = "keystead/1/policy-key/check"
POLICY_LOOKUP = "keystead/1/policy-key/lookup"
MAILBOX_SEAL = "keystead/1/mailbox-key/seal"
MAILBOX_LOOKUP = "keystead/1/mailbox-key/lookup"
SITE_WRAP = "keystead/1/site-key/wrap"
SITE_SEAL = "keystead/1/site-key/seal"
SITE_LOOKUP = "keystead/1/site-key/lookup"
SITE_DIGEST = "keystead/1/site-key/digest"
MAX_PURPOSE_BYTES = 64


@dataclass(frozen=True, slots=True)
class PolicyKeys:
    """Outputs of a policy key.

    Attributes:
        wrap: wraps mailbox keys and site keys.
        check: 32 bytes, stored beside the policy version and compared after every unwrap; tells nothing about the others.
        lookup: for `keyed_hash`.
    """

    wrap: Aes
    check: bytes = field(repr=False)
    lookup: SecretKey


@dataclass(frozen=True, slots=True)
class MailboxKeys:
    """Outputs of a mailbox key.

    Attributes:
        seal: seals items, packs, summaries and names.
        lookup: for `keyed_hash`.
    """

    seal: Aes
    lookup: SecretKey


@dataclass(frozen=True, slots=True)
class SiteKeys:
    """Outputs of a site key.

    Attributes:
        wrap: wraps chunk keys.
        seal: seals manifests, names, properties, trees and locks.
        lookup: for `keyed_hash`.
        digest: 32 bytes for keyed BLAKE3 over the plaintext of chunks.
    """

    wrap: Aes
    seal: Aes
    lookup: SecretKey
    digest: SecretKey


def expand_policy_key(key: SecretKey) -> PolicyKeys:
    """Derive the outputs of a policy key. Nothing else may be done with it before `check_matches` has returned."""
    return PolicyKeys(Aes(derive(key, POLICY_WRAP)), key_bytes(derive(key, POLICY_CHECK)), derive(key, POLICY_LOOKUP))


def expand_mailbox_key(key: SecretKey) -> MailboxKeys:
    """Derive the outputs of a mailbox key."""
    return MailboxKeys(Aes(derive(key, MAILBOX_SEAL)), derive(key, MAILBOX_LOOKUP))


def expand_site_key(key: SecretKey) -> SiteKeys:
    """Derive the outputs of a site key."""
    return SiteKeys(
        wrap=Aes(derive(key, SITE_WRAP)),
        seal=Aes(derive(key, SITE_SEAL)),
        lookup=derive(key, SITE_LOOKUP),
        digest=derive(key, SITE_DIGEST),
    )


def check_matches(stored: bytes, keys: PolicyKeys, *, policy_name: str) -> None:
    """Compare the stored check value with the one of a key that was just unwrapped, in constant time.

    Args:
        stored: 32 bytes from the policy version.
        keys: of the unwrapped key.
        policy_name: how an error names the policy; its name or id.

    Raises:
        IntegrityFailure: `check_value_mismatch`: the copy opened to another key. Neither a denial nor a fault: the key is not used.
    """
    if not constant_time.bytes_eq(stored, keys.check):
        raise IntegrityFailure(
            "check_value_mismatch",
            f"a copy of the key of policy {policy_name} opened to another key than the policy's",
            "look at `policy health` and refresh the policy once its other copy opens",
        )


def keyed_hash(lookup: SecretKey, purpose: str, data: bytes) -> bytes:
    """HMAC-SHA-256 (RFC 2104) for equality look-ups of whole values: a folder's path, a message id. Never over words or people.

    Args:
        lookup: a look-up key.
        purpose: what is looked up, 1 to 64 ASCII characters; the same data has another hash for another purpose.
        data: the value.

    Returns:
        32 bytes.

    Raises:
        ValueError: an empty, over-long or non-ASCII purpose.
    """
    name = purpose.encode("ascii")
    if not 0 < len(name) <= MAX_PURPOSE_BYTES:
        raise ValueError(f"the purpose of a keyed hash has {len(name)} bytes, not 1 to {MAX_PURPOSE_BYTES}")
    return hmac.digest(key_bytes(lookup), bytes([len(name)]) + name + data, "sha256")
