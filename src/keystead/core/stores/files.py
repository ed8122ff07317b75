"""Sites and their files: what is stored about them (design section 4, R-103 to R-115).

A site lies under exactly one policy at any time: the files policy of its geo, whose key is the tenant intermediate key (TIK), or the
provider's default policy (R-252). Its contents are sealed under *site keys*, one at rest and two during a move, each wrapped by the key of
the policy. Below a site key each chunk of a file has a key of its own.

- A *node* is a file or a folder; what lies at the top of a site has the site as its parent.
- A file has *versions*. A version never changes, but for a move, which seals it again under the site's newer key. Its sealed manifest says
  of which chunks it is made.
- A *chunk* is written once, by one version, and shared by later versions that did not change that part.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from keystead.core.stores.mailbox import MoveState

CHUNK_BYTES = 4 * 1024 * 1024
"""Plaintext of every chunk of a file but the last (docs/spec/files.md)."""
MAX_BATCH_FILE = 4 * CHUNK_BYTES
"""A file of more bytes goes in and out by itself, never in a batch."""


class SiteKind(StrEnum):
    """What a site is for: a team site, somebody's personal drive, the folders of a team's channels."""

    SITE = "site"
    ONEDRIVE = "onedrive"
    TEAM = "team"


class NodeKind(StrEnum):
    """What a node is."""

    FILE = "file"
    FOLDER = "folder"


class GeoState(StrEnum):
    """Where the files of a geo stand (R-108). The last two are ours: a recovery and a return to provider keys that are under way."""

    UNREGISTERED = "Unregistered"
    REGISTERING = "Registering"
    REGISTERED = "Registered"
    ROLLING = "Rolling"
    RECOVERING = "Recovering"
    REVERTING = "Reverting"


@dataclass(frozen=True, slots=True)
class Geo:
    """The files policy of a tenant in one geo.

    Attributes:
        policy_id: the policy in force, whose key is the TIK; None before the first registration and after a return to provider keys.
        target_policy_id: the policy that sites go to while something is under way; None at rest.
        job_id: of what is under way, or was last; empty for never.
        availability_key_id: the RSA-2048 key of this tenant and geo in the key store; it outlives TIKs (requirements 4.2).
        changed: when the state last changed.
    """

    tenant_id: str
    geo: str
    state: GeoState
    policy_id: str | None
    target_policy_id: str | None
    job_id: str
    availability_key_id: str
    changed: int


@dataclass(frozen=True, slots=True)
class Site:
    """One site.

    Attributes:
        url: its name, unique in the tenant: https, a host and a path, in lower case.
        owner: whoever may do anything with it: the person of a personal drive, else who made it.
        shared: whether all of the tenant's people may use it; never a personal drive.
        policy_id: the policy whose key wraps the site keys now.
        key_version: version of the site key that new content is sealed under.
        move_state: QUEUED or MOVING while content lies under an older key or hierarchy; DONE or NONE at rest.
        moved_at: when content was last fully under the present hierarchy.
        moved: bytes re-encrypted by the move under way.
        quota_bytes: how much its current versions may hold.
        file_count, size_bytes: of current versions; stored_bytes: of all versions, shared chunks counted once.
    """

    id: str
    tenant_id: str
    url: str
    kind: SiteKind
    geo: str
    owner: str
    shared: bool
    created: int
    policy_id: str
    key_version: int
    move_state: MoveState
    moved_at: int | None
    moved: int
    quota_bytes: int
    file_count: int
    size_bytes: int
    stored_bytes: int


@dataclass(frozen=True, slots=True)
class SiteKey:
    """One wrapped site key (docs/spec/wrapped-key.md)."""

    site_id: str
    version: int
    wrapped: bytes


@dataclass(frozen=True, slots=True)
class SiteTree:
    """The sealed tree over the nodes of a site, by which a node that was put back or taken away is noticed (docs/spec/files.md section 5)."""

    site_id: str
    key_version: int
    sealed: bytes


class Node(NamedTuple):
    """A file or folder.

    Attributes:
        parent_id: the folder it lies in; the site's id at the top.
        key_version: version of the site key for name, hash and properties.
        name_hash: keyed hash of parent and name, by which it is found.
        sealed_name: its name; properties: what clients have set, sealed, or empty.
        version: number of a file's current version; 0 for a folder, and for a file that was made without content.
        manifest_digest: SHA-256 of the current version's sealed manifest; empty for version 0.
        size: bytes of the current version.
        place: the first 16 bits of the id: where it lies in the site's tree.
        modified: when content or name last changed; changed: counts every change, for conditional requests.
    """

    id: str
    site_id: str
    parent_id: str
    kind: NodeKind
    key_version: int
    name_hash: bytes
    sealed_name: bytes
    properties: bytes
    version: int
    manifest_digest: bytes
    size: int
    place: int
    created: int
    modified: int
    changed: int


class FileVersion(NamedTuple):
    """One version of a file.

    Attributes:
        number: 1 for the first.
        key_version: version of the site key its manifest is sealed under.
        manifest: sealed (docs/spec/files.md section 3).
        chunks: how many it is made of.
        created_by: UPN of who wrote it.
    """

    node_id: str
    site_id: str
    number: int
    key_version: int
    manifest: bytes
    size: int
    chunks: int
    created: int
    created_by: str


class Chunk(NamedTuple):
    """One chunk of a file.

    Attributes:
        key_version: version of the site key that wraps its key.
        wrapped: the chunk key (docs/spec/wrapped-key.md).
        object_ref: the object it lies in, alone or with other small ones; offset and length: where, in bytes.
        size: bytes of plaintext.
        last_version: number of the last version that uses it; None while the current one does.
        successor: the chunk that holds the same bytes under the site's newer key, while a move is under way; empty for none.
    """

    id: str
    site_id: str
    node_id: str
    key_version: int
    wrapped: bytes
    object_ref: str
    offset: int
    length: int
    size: int
    last_version: int | None
    successor: str


@dataclass(frozen=True, slots=True)
class FileLock:
    """A lock that a client holds on a path (RFC 4918 section 6). Path, owner and scope are content, and sealed."""

    token_hash: bytes
    site_id: str
    key_version: int
    sealed: bytes
    expires: int
