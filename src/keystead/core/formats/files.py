"""What a file is made of, byte for byte: contexts, keyed hashes and the manifest (docs/spec/files.md).

The boxes themselves are sealed objects under the site key, and under a key of its own for each chunk; this module says what is in them and
what they are bound to.

- A manifest says how long a version of a file is and which chunks it is made of, in which order, each with its digest.
- Every chunk but the last holds exactly `CHUNK_BYTES`. So the size of the file says how many chunks there are and how long each is, and
  nothing of that is written twice.
"""

from __future__ import annotations

import re
import struct
import unicodedata
from itertools import starmap
from typing import TYPE_CHECKING, NamedTuple

from blake3 import blake3

from keystead.core.door import key_bytes
from keystead.core.errors import IntegrityFailure
from keystead.core.formats.context import Context, key_context, object_context
from keystead.core.formats.key_ref import id_of, raw_id
from keystead.core.keys.hierarchy import keyed_hash
from keystead.core.stores.files import CHUNK_BYTES

if TYPE_CHECKING:
    from keystead.core.formats.aead import Readable
    from keystead.core.keys.hierarchy import SiteKeys

MAGIC = b"KSMF"
VERSION = 1
MAX_CHUNKS = 65536
"""Of one version of a file."""
MAX_FILE_BYTES = MAX_CHUNKS * CHUNK_BYTES
"""256 GiB."""
MAX_MEDIA_TYPE = 255
DIGEST_BYTES = 32

SITE_KEY = "site-key"
CHUNK_KEY = "chunk-key"
CHUNK = "chunk"
MANIFEST = "file-manifest"
NAME = "file-name"
PROPERTIES = "file-properties"
TREE = "file-tree"
LOCK = "file-lock"
"""Kinds of contexts."""
BY_NAME = "file-name"
"""Purpose of the keyed hash a node is found by."""

_PREFIX = MAGIC + bytes([VERSION, 0])
_HEADER = struct.Struct(f">{len(_PREFIX)}sHQ")
_ENTRY = struct.Struct(f"16s{DIGEST_BYTES}s")
MAX_MANIFEST_BYTES = _HEADER.size + MAX_MEDIA_TYPE + MAX_CHUNKS * _ENTRY.size
_MEDIA_TYPE = re.compile(rf"(?:[!-~](?:[ -~]{{0,{MAX_MEDIA_TYPE - 2}}}[!-~])?)?")


class ManifestEntry(NamedTuple):
    """One chunk of a version.

    Attributes:
        chunk_id: the chunk.
        size: bytes of its plaintext.
        digest: `chunk_digest` of them, under the version of the site key that seals the manifest: 32 bytes.
    """

    chunk_id: str
    size: int
    digest: bytes


class Manifest(NamedTuple):
    """What one version of a file is made of.

    Attributes:
        size: bytes of the file, at most `MAX_FILE_BYTES`.
        entries: its chunks in order; none for an empty file.
        media_type: as its writer gave it, at most 255 printable characters of ASCII without spaces at the ends; empty for none.
    """

    size: int
    entries: tuple[ManifestEntry, ...]
    media_type: str = ""


# -- contexts -----------------------------------------------------------------------------------------------------------------------


def site_key_context(tenant_id: str, site_id: str, version: int, policy_id: str, policy_key_version: int) -> Context:
    """For one version of a site key, wrapped by a policy key."""
    return key_context(tenant_id, SITE_KEY, site_key_name(site_id, version), policy_id, policy_key_version)


def site_key_name(site_id: str, version: int) -> str:
    """How contexts name one version of a site key."""
    return f"{site_id}/{version}"


def chunk_key_context(tenant_id: str, chunk_id: str, site_id: str, site_key_version: int) -> Context:
    """For a chunk's key, wrapped by a site key."""
    return key_context(tenant_id, CHUNK_KEY, chunk_id, site_id, site_key_version)


def chunk_context(tenant_id: str, site_id: str, chunk_id: str) -> Context:
    """For a chunk, under the key of its own."""
    return object_context(tenant_id, CHUNK, f"{site_id}/{chunk_id}", 0, last=True)


def manifest_context(tenant_id: str, site_id: str, node_id: str, number: int) -> Context:
    """For the manifest of one version of a file."""
    return object_context(tenant_id, MANIFEST, f"{site_id}/{node_id}/{number}", 0, last=True)


def name_context(tenant_id: str, site_id: str, node_id: str) -> Context:
    """For the name of a file or folder."""
    return object_context(tenant_id, NAME, f"{site_id}/{node_id}", 0, last=True)


def properties_context(tenant_id: str, site_id: str, node_id: str) -> Context:
    """For what clients have set on a file or folder."""
    return object_context(tenant_id, PROPERTIES, f"{site_id}/{node_id}", 0, last=True)


def tree_context(tenant_id: str, site_id: str) -> Context:
    """For the tree over a site's nodes (`file_tree.py`)."""
    return object_context(tenant_id, TREE, site_id, 0, last=True)


def lock_context(tenant_id: str, site_id: str, token_hash: str) -> Context:
    """For a lock; the hash of its token as hexadecimal digits."""
    return object_context(tenant_id, LOCK, f"{site_id}/{token_hash}", 0, last=True)


# -- what things are found and recognised by ------------------------------------------------------------------------------------------


def name_hash(keys: SiteKeys, parent_id: str, name: str) -> bytes:
    """What a node is found by: a keyed hash of where it lies and of its name in Unicode's form NFC, worth nothing without the site key.

    Args:
        keys: of the version the node's name is sealed under.
        parent_id: the folder it lies in; the site's id at the top.
        name: checked by `paths.check_name`.

    Returns:
        32 bytes, the same for two names exactly when their NFC is the same.
    """
    return keyed_hash(keys.lookup, BY_NAME, raw_id(parent_id) + unicodedata.normalize("NFC", name).encode())


def chunk_digest(keys: SiteKeys, data: Readable) -> bytes:
    """Keyed BLAKE3 of a chunk's plaintext, by which a chunk that did not change is recognised and one in another's place is refused.

    Args:
        keys: of the version that seals the manifest it goes into.
        data: the chunk.

    Returns:
        32 bytes.
    """
    return blake3(data, key=key_bytes(keys.digest)).digest()


# -- manifest -------------------------------------------------------------------------------------------------------------------------


def chunk_count(size: int) -> int:
    """Of how many chunks a file of that many bytes is made."""
    return -(-size // CHUNK_BYTES)


def is_media_type(text: str) -> bool:
    """Whether a manifest may hold it: at most 255 printable characters of ASCII without spaces at the ends; or nothing."""
    return _MEDIA_TYPE.fullmatch(text) is not None


def encode_manifest(manifest: Manifest) -> bytes:
    """The one encoding of a manifest: 16 bytes, the media type, 48 bytes for each chunk; at most `MAX_MANIFEST_BYTES`.

    Raises:
        ValueError: a size over `MAX_FILE_BYTES`, a media type that is none, chunks that do not make up the size, or one of them twice.
    """
    size, entries, media_type = manifest
    if not 0 <= size <= MAX_FILE_BYTES:
        raise ValueError(f"a file has 0 to {MAX_FILE_BYTES} bytes, not {size}")
    if not is_media_type(media_type):
        raise ValueError(f"a media type is at most {MAX_MEDIA_TYPE} printable characters of ASCII without spaces at the ends")
    if [entry.size for entry in entries] != _sizes(size):
        raise ValueError(f"the chunks of a file of {size} bytes have {CHUNK_BYTES} bytes each, the last one the rest")
    if {len(entry.digest) for entry in entries} - {DIGEST_BYTES}:
        raise ValueError(f"a digest has {DIGEST_BYTES} bytes")
    raw = [raw_id(entry.chunk_id) for entry in entries]
    if len(set(raw)) != len(raw):
        raise ValueError("a chunk lies in a file once")
    body = b"".join(starmap(_ENTRY.pack, zip(raw, (entry.digest for entry in entries), strict=True)))
    return _HEADER.pack(_PREFIX, len(media_type), size) + media_type.encode("ascii") + body


def decode_manifest(data: bytes, *, object_name: str) -> Manifest:
    """The manifest that `encode_manifest` turns into exactly these bytes.

    Args:
        data: an opened box.
        object_name: how an error names the file: its id and the number of the version.

    Raises:
        IntegrityFailure: `file_damaged`: sealed by a holder of the key, but no manifest.
    """
    if len(data) < _HEADER.size:
        raise damaged(object_name)
    prefix, typed, size = _HEADER.unpack_from(data)
    start = _HEADER.size + typed
    if prefix != _PREFIX or size > MAX_FILE_BYTES or len(data) != start + chunk_count(size) * _ENTRY.size:
        raise damaged(object_name)
    media_type = data[_HEADER.size : start].decode("latin-1")
    if not is_media_type(media_type):
        raise damaged(object_name)
    pairs = list(_ENTRY.iter_unpack(memoryview(data)[start:]))
    if len({raw for raw, _ in pairs}) != len(pairs):
        raise damaged(object_name)
    entries = [ManifestEntry(id_of(raw), length, digest) for (raw, digest), length in zip(pairs, _sizes(size), strict=True)]
    return Manifest(size, tuple(entries), media_type)


def _sizes(size: int) -> list[int]:
    """Plaintext bytes of each chunk of a file."""
    whole, rest = divmod(size, CHUNK_BYTES)
    return [CHUNK_BYTES] * whole + ([rest] if rest else [])


# -- what the boxes hold --------------------------------------------------------------------------------------------------------------


def decode_name(data: bytes, *, object_name: str) -> str:
    """A name: UTF-8, as it was given, not normalised.

    Raises:
        IntegrityFailure: `file_damaged`: sealed by a holder of the key, but no text.
    """
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise damaged(object_name) from None


def damaged(object_name: str) -> IntegrityFailure:
    """What is raised when something of a file is not what was written.

    Args:
        object_name: the file's id, and what of it: the number of the version, the chunk.
    """
    return IntegrityFailure(
        "file_damaged",
        f"the file {object_name} is not what was written",
        "nothing was returned in its place; restore an earlier version of it, or the database row or object from a backup",
    )
