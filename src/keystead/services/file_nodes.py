"""Files and folders as rows: their names, finding them by path, and changing them under the tree of their site.

Names are content: they are sealed, and found by keyed hashes. The tree (core/formats/file_tree.py) says which nodes a site has; whoever
changes nodes has it checked and stored anew in the transaction that changes the rows.
"""

from __future__ import annotations

import hmac
import unicodedata
from typing import TYPE_CHECKING

from keystead.core.errors import Conflict, IntegrityFailure, InvalidRequest, NotFound
from keystead.core.formats.file_tree import Tree, bits_for, leaf_of, place_of, rolled_back
from keystead.core.formats.files import damaged, decode_name, name_context, name_hash, properties_context, tree_context
from keystead.core.ids import new_id
from keystead.core.stores.files import Node, NodeKind, SiteTree
from keystead.core.stores.paths import MAX_NAMES, split_path
from keystead.services.sites import seal_box

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from keystead.core.formats.context import Context
    from keystead.core.keys.hierarchy import SiteKeys
    from keystead.core.stores.files import Site
    from keystead.ports.tx import Tx
    from keystead.services.context import Services
    from keystead.services.sites import OpenSite

LAST_PLACE = 65_535
MAX_FOLDERS = 10_000
"""Made in one transaction."""
MANY = 4
"""From how many names of one folder on they are looked for at once."""


# -- the tree -----------------------------------------------------------------------------------------------------------------------


class Trunk:
    """The tree of a site within one transaction.

    Args:
        tx: the transaction.
        opened: the site.

    Raises:
        IntegrityFailure: the tree is not what was written.
    """

    def __init__(self, tx: Tx, opened: OpenSite) -> None:
        self._tx = tx
        self._opened = opened
        self._site = opened.site
        row = tx.sites.tree(opened.site.id)
        self._version = row.key_version if row is not None else opened.site.key_version
        self._keys = opened.keys_of(self._version, _tree_of(opened.site))
        self._checked: dict[int, dict[str, Node]] = {}
        self._vouched: set[str] = set()
        """Nodes that `check` has passed, with all above them."""
        self._tree = Tree.empty(self._keys) if row is None else open_tree(opened, row)

    def check(self, *node_ids: str) -> None:
        """Whether nodes and the folders they lie in are what they were when they were stored last, and those beside them in their buckets.

        Without the folders, two of them could be exchanged with all that is in them.

        Raises:
            IntegrityFailure: `file_rolled_back`.
        """
        for node_id in node_ids:
            self._check(node_id)

    def find(self, node_id: str) -> Node | None:
        """A node of the site by its id, checked as `check` does; None where there is none.

        Raises:
            IntegrityFailure: `file_rolled_back`.
        """
        found = self._bucket(place_of(node_id), node_id).get(node_id)
        if found is not None:
            self._check(node_id)
        return found

    def _check(self, node_id: str) -> None:
        above = node_id
        passed: list[str] = []
        for _name in range(MAX_NAMES + 1):
            if above == self._site.id or above in self._vouched:
                self._vouched.update(passed)
                return
            passed.append(above)
            found = self._bucket(place_of(above), node_id).get(above)
            if found is None:  # a row that claims another place than its id's: no bucket holds it
                break
            above = found.parent_id
        raise rolled_back(self._site.id, node_id)

    def bucket_from(self, place: int) -> tuple[int, list[Node], IntegrityFailure | None]:
        """The bucket a place lies in, for who goes over all of a site: the place after it, its nodes, and what is wrong with them."""
        number = self._tree.bucket_of(place)
        first, last = self._tree.span(number)
        nodes = self._tx.files.placed(self._site.id, first, last)
        whole = self._tree.matches(number, map(leaf_of, nodes))
        return last + 1, nodes, None if whole else rolled_back(self._site.id, nodes[0].id if nodes else self._site.id)

    def change(
        self, services: Services, *, added: Sequence[Node] = (), changed: Sequence[Node] = (), removed: Collection[str] = ()
    ) -> None:
        """Note what is about to be done to the rows, which are still as they were: check all buckets it touches, and store the tree anew.

        Raises:
            IntegrityFailure: `file_rolled_back`.
        """
        self._vouched.clear()
        buckets = self._applied(added, changed, removed)
        if added and any(self._tree.should_grow(len(held) << self._tree.bits) for held in buckets.values()):
            count = self._tx.files.count(self._site.id) + len(added) - len(removed)
            if self._tree.should_grow(count):
                self._grow(count, buckets)
                self._store(services)
                return
        for number, held in buckets.items():
            self._tree = self._tree.replaced(number, map(leaf_of, held.values()))
        self._checked = buckets
        self._store(services)

    def _applied(self, added: Sequence[Node], changed: Sequence[Node], removed: Collection[str]) -> dict[int, dict[str, Node]]:
        """The buckets that are touched, by number, as they are to be."""
        buckets: dict[int, dict[str, Node]] = {}

        def held(node_id: str) -> dict[str, Node]:
            place = place_of(node_id)
            number = self._tree.bucket_of(place)
            if number not in buckets:
                buckets[number] = dict(self._bucket(place, node_id))
            return buckets[number]

        for node in added:
            held(node.id)[node.id] = node
        for node in changed:
            if node.id not in held(node.id):
                raise rolled_back(self._site.id, node.id)
            held(node.id)[node.id] = node
        for node_id in removed:
            if held(node_id).pop(node_id, None) is None:
                raise rolled_back(self._site.id, node_id)
        return buckets

    def _bucket(self, place: int, node_id: str) -> dict[str, Node]:
        """The nodes of a bucket, checked."""
        number = self._tree.bucket_of(place)
        found = self._checked.get(number)
        if found is None:
            found = {node.id: node for node in self._tx.files.placed(self._site.id, *self._tree.span(number))}
            if not self._tree.matches(number, map(leaf_of, found.values())):
                raise rolled_back(self._site.id, node_id)
            self._checked[number] = found
        return found

    def _grow(self, count: int, buckets: dict[int, dict[str, Node]]) -> None:
        """A larger tree, over all nodes, with room for as many again: reading all is not to be done soon again.

        All are checked, or what was done to the others would be made good.
        """
        nodes = self._tx.files.placed(self._site.id, 0, LAST_PLACE)
        if not self._tree.matches_all(map(leaf_of, nodes)):
            raise rolled_back(self._site.id, nodes[0].id if nodes else self._site.id)
        others = [leaf_of(node) for node in nodes if self._tree.bucket_of(node.place) not in buckets]
        touched = [leaf_of(node) for held in buckets.values() for node in held.values()]
        self._tree = self._tree.rebuilt([*others, *touched], bits_for(2 * count))
        self._checked = {}

    def _store(self, services: Services) -> None:
        self._tx.sites.put_tree(seal_tree(services, self._site, self._keys, self._version, self._tree))


def open_tree(opened: OpenSite, row: SiteTree) -> Tree:
    """The tree of a site.

    Raises:
        IntegrityFailure: it is not what was written.
    """
    site, name = opened.site, _tree_of(opened.site)
    data = opened.unsealed(row.sealed, row.key_version, tree_context(site.tenant_id, site.id), name)
    return Tree.decode(opened.keys_of(row.key_version, name), data, object_name=site.id)


def seal_tree(services: Services, site: Site, keys: SiteKeys, version: int, tree: Tree) -> SiteTree:
    """A tree as it is stored, under some version of the site key."""
    return SiteTree(site.id, version, seal_box(services, site, keys, version, tree_context(site.tenant_id, site.id), tree.encode()))


def _tree_of(site: Site) -> str:
    """How errors name it."""
    return f"tree of site {site.id}"


# -- names and properties -----------------------------------------------------------------------------------------------------------


def new_node(
    services: Services,
    opened: OpenSite,
    kind: NodeKind,
    parent_id: str,
    name: str,
    *,
    node_id: str = "",
    version: int = 0,
    manifest_digest: bytes = b"",
    size: int = 0,
    modified: int | None = None,
) -> Node:
    """A node under the newest version of the site key; by default it holds nothing yet, and has an id and a time of its own."""
    identifier = node_id or new_id(services.random)  # random from its first bit on: that spreads nodes over the tree
    now = services.clock.now()
    return Node(
        id=identifier,
        site_id=opened.site.id,
        parent_id=parent_id,
        kind=kind,
        key_version=opened.site.key_version,
        name_hash=name_hash(opened.keys, parent_id, name),
        sealed_name=seal_name(services, opened, identifier, name),
        properties=b"",
        version=version,
        manifest_digest=manifest_digest,
        size=size,
        place=place_of(identifier),
        created=now,
        modified=now if modified is None else modified,
        changed=1,
    )


def renamed(services: Services, opened: OpenSite, node: Node, parent_id: str, name: str) -> Node:
    """A node in another place, or under another name; what is sealed of it is sealed under the newest version of the site key."""
    return under_newest(services, opened, node, parent_id, name)._replace(changed=node.changed + 1)


def under_newest(services: Services, opened: OpenSite, node: Node, parent_id: str, name: str) -> Node:
    """A node under that name with what is sealed of it under the newest version of the site key."""
    return node._replace(
        parent_id=parent_id,
        key_version=opened.site.key_version,
        name_hash=name_hash(opened.keys, parent_id, name),
        sealed_name=seal_name(services, opened, node.id, name),
        properties=seal_properties(services, opened, node.id, open_properties(opened, node)),
    )


def seal_name(services: Services, opened: OpenSite, node_id: str, name: str) -> bytes:
    """A node's name, sealed."""
    return opened.sealed(services, name_context(opened.site.tenant_id, opened.site.id, node_id), name.encode())


def open_name(opened: OpenSite, node: Node) -> str:
    """A node's name.

    Raises:
        IntegrityFailure: `file_damaged`: it is not what was written, or that of another time.
    """
    what = f"{node.id} (its name)"
    context = name_context(opened.site.tenant_id, opened.site.id, node.id)
    data = open_of_file(opened, node.sealed_name, node.key_version, context, what)
    name = decode_name(data, object_name=what)
    if not hmac.compare_digest(name_hash(opened.keys_of(node.key_version, what), node.parent_id, name), node.name_hash):
        raise damaged(what)
    return name


def seal_properties(services: Services, opened: OpenSite, node_id: str, data: bytes) -> bytes:
    """What clients have set on a node, sealed; nothing stays nothing."""
    return opened.sealed(services, properties_context(opened.site.tenant_id, opened.site.id, node_id), data) if data else b""


def open_properties(opened: OpenSite, node: Node) -> bytes:
    """What clients have set on a node.

    Raises:
        IntegrityFailure: `file_damaged`: it is not what was written.
    """
    context = properties_context(opened.site.tenant_id, opened.site.id, node.id)
    return open_of_file(opened, node.properties, node.key_version, context, f"{node.id} (its properties)") if node.properties else b""


def open_of_file(opened: OpenSite, box: bytes, version: int, context: Context, what: str) -> bytes:
    """What is in a box of a file: its name, its properties, a manifest.

    Raises:
        IntegrityFailure: `file_damaged`, `site_key_missing`.
    """
    try:
        return opened.unsealed(box, version, context, f"file {what}")
    except IntegrityFailure as error:
        if error.code != "object_damaged":
            raise
        raise damaged(what) from error


# -- finding ------------------------------------------------------------------------------------------------------------------------


def root_of(site: Site) -> Node:
    """The top of a site, which has no row."""
    return Node(
        id=site.id,
        site_id=site.id,
        parent_id="",
        kind=NodeKind.FOLDER,
        key_version=site.key_version,
        name_hash=b"",
        sealed_name=b"",
        properties=b"",
        version=0,
        manifest_digest=b"",
        size=0,
        place=0,
        created=site.created,
        modified=site.created,
        changed=0,
    )


class Walk:
    """Finds nodes by path within one transaction, and makes folders where that is asked for.

    Attributes:
        made: folders that are to be inserted, in order.
        passed: ids of what was found on the way, for the tree to check before anything is done there.
    """

    def __init__(self, services: Services, tx: Tx, opened: OpenSite) -> None:
        self._services = services
        self._tx = tx
        self._opened = opened
        self._known: dict[tuple[str, str], Node | None] = {}
        self._folders: dict[tuple[str, ...], Node] = {(): root_of(opened.site)}
        self._new: set[str] = set()
        self.made: list[Node] = []
        self.passed: set[str] = set()

    def child(self, parent: Node, name: str) -> Node | None:
        """What lies in a folder under a name."""
        key = (parent.id, unicodedata.normalize("NFC", name))
        if key not in self._known:
            nothing = parent.id in self._new
            self._known[key] = (
                None if nothing else self._tx.files.child(self._opened.site.id, parent.id, self._opened.hashes(parent.id, name))
            )
        found = self._known[key]
        if found is not None and found.id not in self._new:
            self.passed.add(found.id)
        return found

    def expect(self, paths: Iterable[tuple[str, ...]]) -> None:
        """Look for what lies at many paths at once, folder by folder: they are going to be asked for."""
        folders: dict[tuple[str, ...], list[str]] = {}
        for path in paths:
            folders.setdefault(path[:-1], []).append(unicodedata.normalize("NFC", path[-1]))
        for above, names in folders.items():
            folder = self.find(above) if len(names) >= MANY else None
            if folder is None or folder.kind is not NodeKind.FOLDER or folder.id in self._new:
                continue
            hashes = {value: name for name in names for value in self._opened.hashes(folder.id, name)}
            for name in names:
                self._known.setdefault((folder.id, name), None)  # what is made in this transaction stays known
            for node in self._tx.files.named(self._opened.site.id, folder.id, list(hashes)):
                self._known[folder.id, hashes[node.name_hash]] = node

    def find(self, names: tuple[str, ...]) -> Node | None:
        """The node of a path; None where there is none."""
        if names in self._folders:
            return self._folders[names]
        above = self.find(names[:-1])
        if above is None or above.kind is not NodeKind.FOLDER:
            return None
        self._folders[names[:-1]] = above
        return self.child(above, names[-1])

    def folder(self, names: tuple[str, ...], *, make: bool = False) -> Node:
        """The folder of a path.

        Raises:
            NotFound: `folder_not_found`, unless it is to be made.
            Conflict: `not_a_folder`: a file is in the way.
        """
        if names in self._folders:
            return self._folders[names]
        above, name = self.folder(names[:-1], make=make), names[-1]
        found = self.child(above, name)
        if found is None and make:
            if len(self.made) == MAX_FOLDERS:  # everybody who writes waits for the transaction they are made in
                raise InvalidRequest(
                    "batch_too_long", f"more than {MAX_FOLDERS} folders would be made at once", "make them in smaller batches"
                )
            found = self.add(new_node(self._services, self._opened, NodeKind.FOLDER, above.id, name), name)
            self.made.append(found)
        if found is None:
            raise NotFound("folder_not_found", "a folder above it is not there", "make the folder first, or with --parents all of them")
        if found.kind is not NodeKind.FOLDER:
            raise not_a_folder(found)
        self._folders[names] = found
        return found

    def add(self, node: Node, name: str) -> Node:
        """Note a node that is made in this transaction."""
        self._known[node.parent_id, unicodedata.normalize("NFC", name)] = node
        self._new.add(node.id)
        return node


def names_of(path: str) -> tuple[str, ...]:
    """The names of a path that is not the top of the site.

    Raises:
        InvalidRequest: `path_invalid`, `path_too_long`.
    """
    names = split_path(path)
    if not names:
        raise InvalidRequest("path_invalid", "the path names the site itself", "give the path of a file or folder in it")
    return names


def not_found(what: str = "there is no file or folder of that path") -> NotFound:
    """What is raised for a path that leads nowhere; it does not repeat the path, which is content."""
    return NotFound("file_not_found", what, "keystead site ls lists what there is")


def not_a_folder(node: Node) -> Conflict:
    """A file where a folder should be."""
    return Conflict("not_a_folder", f"{node.id} is a file, not a folder", "give another path")


def not_a_file(node: Node) -> Conflict:
    """A folder where a file should be."""
    return Conflict(
        "not_a_file", f"{node.id} is a folder, not a file", "give the path of a file, or --recursive for all that is in a folder"
    )
