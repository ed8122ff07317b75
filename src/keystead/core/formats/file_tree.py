"""The tree over the files and folders of a site: how one that was put back or taken away is noticed (docs/spec/files.md section 5).

Names, manifests and chunks are bound to their file each by itself, so somebody who can write to the database cannot make one up, but could
put an older one back. The tree says what there is now. It is small, sealed, and stored anew with every change.

- Nodes fall into buckets by the first bits of their random ids. Each bucket has a digest over all its nodes, an empty one too.
- Whoever changes nodes does it in one transaction that reads and opens the tree, checks the buckets it touches against the rows as they
  are, changes the rows, and stores the tree with those buckets replaced. A bucket that was not checked before it is replaced would make
  good whatever was done to it.
- Whoever opens a file for its content checks its bucket. Listings do not.
"""

from __future__ import annotations

import hmac
import struct
from typing import TYPE_CHECKING, NamedTuple

from keystead.core.errors import IntegrityFailure
from keystead.core.keys.hierarchy import keyed_hash
from keystead.core.stores.files import NodeKind

if TYPE_CHECKING:
    from collections.abc import Iterable

    from keystead.core.keys.hierarchy import SiteKeys
    from keystead.core.stores.files import Node

VERSION = 1
PLACE_BITS = 16
PLACE_DIGITS = PLACE_BITS // 4
MAX_BITS = 16
"""65,536 buckets: a tree of 1 MiB."""
BUCKET_NODES = 64
"""A tree grows when its buckets hold more than this many nodes on average."""
DIGEST_BYTES = 16
BY_BUCKET = "file-tree"
"""Purpose of the keyed hash over a bucket."""

_HEADER = struct.Struct(">BB")
_BUCKET = struct.Struct(">BHI")
_LEAF = struct.Struct(">36s36sB32sI32s")
_ID_CHARACTERS = 36
_NO_MANIFEST = bytes(32)
_KINDS = {NodeKind.FILE: 1, NodeKind.FOLDER: 2}


class Leaf(NamedTuple):
    """What the tree binds of a node: where it lies, under which name, and what it holds.

    Attributes:
        node_id, parent_id: UUIDs in lower case, 36 characters.
        name_hash: 32 bytes.
        version: number of the current version, 0 for none.
        manifest_digest: SHA-256 of that version's sealed manifest, 32 bytes; empty for version 0.
    """

    node_id: str
    parent_id: str
    kind: NodeKind
    name_hash: bytes
    version: int
    manifest_digest: bytes


def leaf_of(node: Node) -> Leaf:
    """The leaf of a row."""
    return Leaf(node.id, node.parent_id, node.kind, node.name_hash, node.version, node.manifest_digest)


def place_of(node_id: str) -> int:
    """Where a node lies in the tree: the first 16 bits of its id, which is random from the first bit on (`ids.new_id`).

    -1 for what is no id: no bucket holds that.
    """
    try:
        return int(node_id[:PLACE_DIGITS], 16)
    except ValueError:
        return -1


def bits_for(count: int) -> int:
    """The bits of the smallest tree that need not grow for that many nodes."""
    bits = 0
    while bits < MAX_BITS and count > BUCKET_NODES << bits:
        bits += 1
    return bits


class Tree:
    """The digests of a site's buckets, under one version of its key. It does not change: a change is another tree.

    Attributes:
        bits: there are 2 to the power of this many buckets, 0 to 16 bits.
    """

    __slots__ = ("_digests", "_keys", "bits")

    def __init__(self, keys: SiteKeys, bits: int, digests: bytes) -> None:
        """For this class's own use: from `empty`, `decode` and `rebuilt`."""
        self.bits = bits
        self._keys = keys
        self._digests = digests

    @classmethod
    def empty(cls, keys: SiteKeys) -> Tree:
        """The tree of a site without nodes."""
        return cls._made(keys, (), 0)

    @classmethod
    def decode(cls, keys: SiteKeys, data: bytes, *, object_name: str) -> Tree:
        """The tree that `encode` turns into exactly these bytes.

        Args:
            keys: of the version of the site key that the box was sealed under.
            data: the opened box.
            object_name: how an error names it, such as the site's id.

        Raises:
            IntegrityFailure: `object_damaged`: sealed by a holder of the key, but no tree.
        """
        if len(data) >= _HEADER.size:
            version, bits = _HEADER.unpack_from(data)
            if version == VERSION and bits <= MAX_BITS and len(data) == _HEADER.size + (DIGEST_BYTES << bits):
                return cls(keys, bits, data[_HEADER.size :])
        raise IntegrityFailure(
            "object_damaged",
            f"the tree of the site {object_name} does not open under the key and place it belongs to",
            "no other data was returned in its place; restore it from a backup",
        )

    def encode(self) -> bytes:
        """2 bytes and 16 for each bucket."""
        return _HEADER.pack(VERSION, self.bits) + self._digests

    def bucket_of(self, place: int) -> int:
        """The bucket of a place."""
        return place >> (PLACE_BITS - self.bits)

    def span(self, bucket: int) -> tuple[int, int]:
        """The first and the last place of a bucket."""
        return bucket << (PLACE_BITS - self.bits), ((bucket + 1) << (PLACE_BITS - self.bits)) - 1

    def matches(self, bucket: int, leaves: Iterable[Leaf]) -> bool:
        """Whether these are the nodes of a bucket: all of them, no others, each as it was stored last. Compared in constant time.

        Args:
            bucket: its number; of a place that no node has there is none, and nothing matches.
            leaves: of all rows whose place lies in its span, in any order. They may hold anything.
        """
        if not 0 <= bucket < 1 << self.bits:
            return False
        try:
            found = _digest(self._keys, self.bits, bucket, list(leaves))
        except ValueError:  # a row that no node ever had
            return False
        return hmac.compare_digest(found, self._digests[bucket * DIGEST_BYTES : (bucket + 1) * DIGEST_BYTES])

    def matches_all(self, leaves: Iterable[Leaf]) -> bool:
        """Whether these are the nodes of the site: before a tree is rebuilt from them."""
        try:
            found = self._made(self._keys, leaves, self.bits)
        except ValueError:
            return False
        return hmac.compare_digest(found.encode(), self.encode())

    def replaced(self, bucket: int, leaves: Iterable[Leaf]) -> Tree:
        """The tree with other nodes in one bucket, after `matches` has said that those before were what they should be.

        Raises:
            ValueError: a leaf that belongs into another bucket, twice the same, or one of wrong sizes.
        """
        start = bucket * DIGEST_BYTES
        digest = self._checked(self._keys, self.bits, bucket, list(leaves))
        return Tree(self._keys, self.bits, self._digests[:start] + digest + self._digests[start + DIGEST_BYTES :])

    def should_grow(self, count: int) -> bool:
        """Whether a site of that many nodes wants more buckets."""
        return self.bits < bits_for(count)

    def rebuilt(self, leaves: Iterable[Leaf], bits: int, *, keys: SiteKeys | None = None) -> Tree:
        """A tree of another size over all nodes of the site, after `matches_all` has said that they are what they should be.

        Args:
            leaves: of all nodes.
            bits: 0 to 16.
            keys: of the newer version of the site key, for the tree that a move starts with.

        Raises:
            ValueError: as for `replaced`, or a number of bits that no tree has.
        """
        return self._made(keys or self._keys, leaves, bits)

    @classmethod
    def _made(cls, keys: SiteKeys, leaves: Iterable[Leaf], bits: int) -> Tree:
        if not 0 <= bits <= MAX_BITS:
            raise ValueError(f"a tree has 0 to {MAX_BITS} bits, not {bits}")
        buckets: list[list[Leaf]] = [[] for _ in range(1 << bits)]
        for leaf in leaves:
            buckets[place_of(leaf.node_id) >> (PLACE_BITS - bits)].append(leaf)
        return cls(keys, bits, b"".join(cls._checked(keys, bits, bucket, held) for bucket, held in enumerate(buckets)))

    @staticmethod
    def _checked(keys: SiteKeys, bits: int, bucket: int, leaves: list[Leaf]) -> bytes:
        """The digest of a bucket that such nodes may lie in."""
        ids = {leaf.node_id for leaf in leaves}
        if (
            not 0 <= bucket < 1 << bits
            or len(ids) != len(leaves)
            or any(place_of(node_id) >> (PLACE_BITS - bits) != bucket for node_id in ids)
        ):
            raise ValueError(f"a node lies in the bucket of its id, once; bucket {bucket} of {1 << bits} was given others")
        return _digest(keys, bits, bucket, leaves)


def rolled_back(site_id: str, object_name: str) -> IntegrityFailure:
    """What is raised when the bucket of a file does not match: which of its nodes is another than it was cannot be told.

    Args:
        site_id: the site.
        object_name: the file or folder that was asked for, by its id.
    """
    return IntegrityFailure(
        "file_rolled_back",
        f"rows of the site {site_id} beside or of the file {object_name} were put back, changed or taken away outside Keystead",
        "nothing was returned in its place; restore the rows of the site from a backup",
    )


def _digest(keys: SiteKeys, bits: int, bucket: int, leaves: list[Leaf]) -> bytes:
    """The first 16 bytes of the keyed hash over a bucket.

    Raises:
        ValueError: a leaf of wrong sizes. Sizes are fixed, so that no two buckets have the same bytes.
    """
    body = b"".join([_packed(leaf) for leaf in sorted(leaves)])
    return keyed_hash(keys.lookup, BY_BUCKET, _BUCKET.pack(bits, bucket, len(leaves)) + body)[:DIGEST_BYTES]


def _packed(leaf: Leaf) -> bytes:
    node_id, parent_id, kind, name_hash, version, manifest_digest = leaf
    raw_id, raw_parent, digest = node_id.encode("ascii"), parent_id.encode("ascii"), manifest_digest if version else _NO_MANIFEST
    if (len(raw_id), len(raw_parent), len(name_hash), len(digest)) != _SIZES or (manifest_digest and not version):
        raise ValueError(f"the node {node_id} has no such sizes")
    try:
        return _LEAF.pack(raw_id, raw_parent, _KINDS[kind], name_hash, version, digest)
    except (struct.error, KeyError):
        raise ValueError(f"the node {node_id} has no such version or kind") from None


_SIZES = (_ID_CHARACTERS, _ID_CHARACTERS, 32, len(_NO_MANIFEST))
