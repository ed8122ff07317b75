"""Reading everything an installation holds, to see that it is all there and opens: after a restore, or now and then.

No content goes to a person, so it is a system operation: customer keys open what their owners allow, the availability key mail that they
deny (each use is on the log, as always), and never files. Nothing is changed.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import msgspec

from keystead.core.errors import IntegrityFailure, KeyDenied, KeysteadError, NotFound, Unavailable
from keystead.core.formats.mailbox_items import stands_alone
from keystead.core.ids import new_id
from keystead.core.keys.decide import Operation
from keystead.core.policies.policy import CopyRole, Workload
from keystead.ports.keystore import Compartment
from keystead.services.items import key_of, open_item, open_part, open_summary, pages
from keystead.services.keyring import PROVIDER, availability_compartment, copies_of
from keystead.services.site_verification import verify_site

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from keystead.core.keys.hierarchy import MailboxKeys
    from keystead.core.policies.policy import Policy
    from keystead.core.stores.files import Site
    from keystead.core.stores.mailbox import Item, Mailbox
    from keystead.core.tenancy import Tenant
    from keystead.services.context import Services

    Progress = Callable[[int, int], None]
    """Told how many mailboxes and sites are done, and how many there are."""

PAGE = 500
MOST_PROBLEMS = 100


class Verified(msgspec.Struct):
    """What was read.

    Attributes:
        bytes: of the items, as their owners know them; file_bytes: of the current versions of files.
        problems: what is missing, or does not open, or is something else: at most 100, each with the code of its error.
        unopened: mailboxes and sites whose keys could not be asked for now; nothing is wrong with them as far as anybody knows.
    """

    policies: int = 0
    mailboxes: int = 0
    items: int = 0
    bytes: int = 0
    sites: int = 0
    folders: int = 0
    files: int = 0
    file_versions: int = 0
    file_bytes: int = 0
    problems: list[str] = []
    unopened: list[str] = []

    def found(self, what: str, error: KeysteadError) -> None:
        """Note a problem."""
        if len(self.problems) < MOST_PROBLEMS:
            self.problems.append(f"{what}: {error.code}: {error.detail}")


def verify(services: Services, on_progress: Progress | None = None) -> Verified:
    """Check every policy's keys, and read every item of every mailbox and every version of every file.

    Args:
        services: the service.
        on_progress: told after each mailbox and site.

    Raises:
        Unavailable: the database or the key store does not answer.
    """
    result = Verified()
    request_id = new_id(services.random)
    with services.db.read() as tx:
        tenants = tx.tenants.all()
    boxes = [(tenant, box.id) for tenant in tenants for box in _mailboxes(services, tenant)]
    sites = [(tenant, site.id) for tenant in tenants for site in _sites(services, tenant)]
    known = {compartment: {entry.key_id for entry in services.keystore.entries(compartment)} for compartment in Compartment}
    for tenant in tenants:
        with services.db.read() as tx:
            named = [of for geo in tx.sites.geos(tenant.id) for of in (geo.policy_id, geo.target_policy_id) if of is not None]
            files = [policy for policy in map(tx.policies.by_id, named) if policy is not None]
            policies = [tx.policies.provider(tenant.id), *tx.policies.all(tenant.id), *files]
        for policy in policies:
            _policy(services, policy, known, result)
    for done, (tenant, mailbox_id) in enumerate(boxes, start=1):
        _mailbox(services, tenant, mailbox_id, request_id, result)
        if on_progress is not None:
            on_progress(done, len(boxes) + len(sites))
    for done, (tenant, site_id) in enumerate(sites, start=len(boxes) + 1):
        verify_site(services, tenant.id, site_id, request_id, result)
        if on_progress is not None:
            on_progress(done, len(boxes) + len(sites))
    return result


def _sites(services: Services, tenant: Tenant) -> Iterator[Site]:
    after = ""
    while True:
        with services.db.read() as tx:
            page = tx.sites.page(tenant.id, after=after, limit=PAGE)
        yield from page
        if len(page) < PAGE:
            return
        after = page[-1].url


def _mailboxes(services: Services, tenant: Tenant) -> Iterator[Mailbox]:
    after = ""
    while True:
        with services.db.read() as tx:
            page = tx.mailboxes.page(tenant.id, after=after, limit=PAGE)
        yield from page
        if len(page) < PAGE:
            return
        after = page[-1].upn


def _policy(services: Services, policy: Policy, known: dict[Compartment, set[str]], result: Verified) -> None:
    """The copies of a policy's key are all there, and so are the keys of the key store that open them."""
    result.policies += 1
    try:
        with services.db.read() as tx:
            copies = copies_of(tx, policy)
        if policy.workload is Workload.PROVIDER:
            stored = (Compartment.PROVIDER, copies[CopyRole.PROVIDER].key_uri.removeprefix(PROVIDER))
        else:
            stored = (availability_compartment(policy.workload), policy.availability_key_id)
        for compartment, key_id in ((Compartment.SHRED, policy.shred_key_id), stored):
            if key_id not in known[compartment]:
                raise IntegrityFailure("keystore_key_missing", f"the key store has no key {key_id} in compartment {compartment}", "")
    except KeysteadError as error:
        result.found(f"policy {policy.id}", error)


def _mailbox(services: Services, tenant: Tenant, mailbox_id: str, request_id: str, result: Verified) -> None:
    result.mailboxes += 1
    try:
        for item in (item for page, _keys in pages(services, mailbox_id) for item in page):
            try:
                size = _item(services, tenant.id, item, mailbox_id, request_id)
            except (IntegrityFailure, NotFound) as error:
                if _still_there(services, tenant.id, item, mailbox_id):
                    result.found(f"item {item.id} of mailbox {mailbox_id}", error)
                continue
            result.items += 1
            result.bytes += size
    except (KeyDenied, Unavailable) as error:
        result.unopened.append(f"mailbox {mailbox_id}: {error.code}")


def _item(services: Services, tenant_id: str, item: Item, mailbox_id: str, request_id: str) -> int:
    """Read an item and compare it with what its summary says of it; returns its size.

    Raises:
        IntegrityFailure: it is not what came in.
        NotFound: its object is not there.
    """
    with services.db.read() as tx:
        mailbox = tx.mailboxes.by_id(tenant_id, mailbox_id)
        wrapped = tx.mailboxes.keys(mailbox_id)
    if mailbox is None:
        raise NotFound("mailbox_not_found", f"the mailbox {mailbox_id} was deleted meanwhile", "")
    opened = services.keyring.open(mailbox.policy_id, Operation.SYSTEM, request_id=request_id)
    keys = {key.version: opened.mailbox_keys(mailbox_id, key.version, key.wrapped) for key in wrapped}
    own = key_of(keys, item.key_version, f"item {item.id}")
    size, digest = 0, hashlib.sha256()
    for piece in _content(services, tenant_id, own, item):
        size += len(piece)
        digest.update(piece)
    if size != item.size or digest.hexdigest() != open_summary(tenant_id, own, item).sha256:
        raise IntegrityFailure("item_differs", f"item {item.id} opens, and is not what came in", "restore it from a backup")
    return size


def _content(services: Services, tenant_id: str, keys: MailboxKeys, item: Item) -> Iterator[bytes]:
    if not stands_alone(item.size, item.parts):
        yield open_item(services, tenant_id, keys, item)
        return
    for index in range(item.parts):
        yield open_part(services, tenant_id, keys, item, index)


def _still_there(services: Services, tenant_id: str, item: Item, mailbox_id: str) -> bool:
    """Whether the row that was read is still the item's: a move or a deletion meanwhile is no problem."""
    with services.db.read() as tx:
        mailbox = tx.mailboxes.by_id(tenant_id, mailbox_id)
        place = None if mailbox is None else tx.mailboxes.place(tenant_id, mailbox.upn, item.id)
    return place is not None and (place.item.object_ref, place.item.key_version) == (item.object_ref, item.key_version)
