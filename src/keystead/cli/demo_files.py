"""`keystead demo --files DIR`: files under a customer's keys, on a real folder, every claim checked on the way.

As the demo of mail: an ordinary client of a dev home with a short probe interval.
"""

from __future__ import annotations

import hashlib
import os
import random
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from keystead.api.call import Upload
from keystead.api.types import file_policies as f
from keystead.api.types import sites as s
from keystead.api.types import tenants as t
from keystead.api.types import vaults as v
from keystead.api.types import watching as w
from keystead.cli.demo import (
    ADMIN,
    ADMIN_RIGHTS,
    ALLOWED,
    CONFIRM_MS,
    DAY_MS,
    DOMAIN,
    HOUR_MS,
    PROBE_MS,
    REGIONS,
    SUBSCRIPTIONS,
    TENANT,
    VAULTS,
    Demo,
    NotShownError,
    advance,
    no_plaintext,
    require,
)
from keystead.client.site_files import get_tree, put_tree
from keystead.core.audit.record import FALLBACK
from keystead.core.errors import ChecksFailed, Conflict, KeyDenied, KeysteadError, PreconditionFailed, Unavailable
from keystead.core.stores.files import CHUNK_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from keystead.client.client import Client

GEO = "EUR"
OWNER = f"alex@{DOMAIN}"
SITE = f"https://{DOMAIN}/sites/plans"
TREE, LARGE = "Copied", "Large.bin"
"""What the folder is called in the site, and a file of several chunks that the demo makes."""
LARGE_BYTES = 3 * CHUNK_BYTES + 1000
SMALL: dict[str, s.SiteKindName] = {f"https://{DOMAIN}/personal/alex": "onedrive", f"https://{DOMAIN}/teams/plans": "team"}
"""Other sites, and what they are for: each holds a note."""
NOTE = "Note.txt"
LONG_LINE = 24
"""Shorter lines may well stand anywhere, and prove nothing."""
SAMPLE = 60
"""How many texts of the files are looked for in the home."""


def parts(folder: Path, *, after_mail: bool) -> list[Callable[[Demo], None]]:
    """The steps, in order.

    Args:
        folder: what is copied in.
        after_mail: the demo of mail ran in this home, and made tenant and vaults.
    """
    shown = _Files(folder.absolute())
    return [
        lambda demo: shown.set_up(demo, after_mail=after_mail),
        shown.put,
        shown.register,
        shown.prove,
        shown.change,
        shown.roll,
        shown.one_key_away,
        shown.both_away,
        shown.give_back,
        shown.cut_off,
        shown.lose,
        shown.back,
        shown.log,
    ]


class _Files:
    """What the steps hand on to one another.

    Attributes:
        keys: by version, primary and secondary.
        digests: what every file of the folder holds, by its path in the site.
        phrases: texts of the files, and their names, that the home must not hold.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._large = random.Random(folder.name).randbytes(LARGE_BYTES)  # noqa: S311 - the same every time
        self.keys: list[str] = []
        self.digests: dict[str, bytes] = {}
        self.phrases: list[bytes] = []

    # -- the steps ------------------------------------------------------------------------------------------------------------------

    def set_up(self, demo: Demo, *, after_mail: bool) -> None:
        """Who there is, and their keys."""
        with demo.step(
            "set up for files", "a tenant, two key vaults in two regions, a key in each; the application `files` may use them"
        ) as step:
            if not after_mail:
                demo.home.client(demo.home.as_operator()).call("tenant.create", t.CreateTenant(name=TENANT, domain=DOMAIN, geo=[GEO]))
                demo.operator.call("user.add", t.AddUser(upn=ADMIN, roles=["global-admin"]))
                for vault, subscription, region in zip(VAULTS, SUBSCRIPTIONS, REGIONS, strict=True):
                    demo.admin.call("subscription.create", v.SubscriptionCreate(name=subscription))
                    demo.admin.call("subscription.protect", v.SubscriptionNamed(name=subscription))
                    demo.admin.call("vault.create", v.VaultCreate(name=vault, subscription=subscription, region=region, sku="premium"))
                    demo.admin.call("vault.access.grant", v.AccessGrant(vault=vault, upn=ADMIN, permissions=ADMIN_RIGHTS))
            with suppress(KeysteadError):  # there since the demo of mail
                demo.admin.call("user.add", t.AddUser(upn=OWNER, roles=["user"]))
            _grant(demo, VAULTS)
            self.keys = [_new_key(demo, vault, "files-1") for vault in VAULTS]
            demo.admin.call("tenant.onboard", t.OnboardTenant(workload="files", subscriptions=list(SUBSCRIPTIONS)))
            step.detail = f"{self.keys[0]} and {self.keys[1]}"

    def put(self, demo: Demo) -> None:
        """A folder goes in, before there is any policy."""
        with demo.step(
            "copy in", f"the folder {self._folder} goes into a site, under the provider's keys; every byte reads back equal"
        ) as step:
            demo.admin.call("site.create", s.CreateSite(url=SITE, geo=GEO, owner=OWNER))
            for url, kind in SMALL.items():
                demo.admin.call("site.create", s.CreateSite(url=url, geo=GEO, kind=kind, owner=OWNER))
                _upload(_owner(demo), NOTE, _note_of(url), site=url)
            self.digests = dict(_digests_of(self._folder, TREE))
            self.phrases = _phrases_of(self._folder)
            done = put_tree(_owner(demo), SITE, self._folder, TREE)
            require(done.files == len(self.digests), f"{done.files} of {len(self.digests)} files went in")
            again = put_tree(_owner(demo), SITE, self._folder, TREE)
            require(again.uploaded == 0, f"putting the folder again wrote {again.uploaded} files")
            self._put_large(demo)
            read = self._everything(demo)
            size = sum(path.stat().st_size for path in _files_below(self._folder))
            step.detail = (
                f"{read} files equal, {size / 1e6:.1f} MB and one of {LARGE_BYTES / 1e6:.0f} MB; putting the folder again wrote nothing"
            )

    def register(self, demo: Demo) -> None:
        """The geo goes under the customer's keys."""
        with demo.step(
            "register", "checks refuse two keys of one vault by name; two good keys make the geo Registered, everything re-encrypted"
        ) as step:
            try:
                demo.admin.call("files.register", f.RegisterFiles(geo=GEO, primary=self.keys[0], secondary=self.keys[0]))
            except ChecksFailed as refused:
                names = ", ".join(check.check for check in refused.failed)
            else:
                raise NotShownError("a geo was registered with two keys of one vault")
            asked: f.FilesStatus = demo.admin.call("files.register", f.RegisterFiles(geo=GEO, primary=self.keys[0], secondary=self.keys[1]))
            require(asked.state == "Registering", f"the geo is {asked.state}")
            seen = _wait(demo, asked)
            status = _status(demo)
            require((status.state, status.percent_sites) == ("Registered", 100), f"the geo is {status.state}, {status.percent_sites} %")
            require([status.primary_key_uri, status.secondary_key_uri] == self.keys, "the status names other keys")
            step.detail = f"refused: {names}; then {status.state}; percent of sites {seen}"

    def prove(self, demo: Demo) -> None:
        """It is so."""
        with demo.step(
            "prove", "the site is encrypted, every file reads back byte for byte, and no content or name is findable in the home"
        ) as step:
            site: s.SiteStatus = demo.admin.call("site.status", s.NameSite(site=SITE))
            require(site.is_encrypted, "the site is not encrypted under the geo's keys")
            read = self._everything(demo)
            files, size = no_plaintext(demo, self.phrases)
            step.detail = f"{read} files equal; {len(self.phrases)} texts looked for in {files} files, {size / 1e6:.0f} MB: none found"

    def change(self, demo: Demo) -> None:
        """A part of a file, and its earlier version."""
        with demo.step(
            "change a part", "a few bytes in the middle of a file write one chunk anew; the version before reads as it was"
        ) as step:
            before: s.SiteStatus = demo.admin.call("site.status", s.NameSite(site=SITE))
            old = self._large
            at = CHUNK_BYTES + 77
            piece = b"changed in the middle"
            self._large = old[:at] + piece + old[at + len(piece) :]
            entry: s.FileView = _upload(_owner(demo), LARGE, piece, offset=at)
            after: s.SiteStatus = demo.admin.call("site.status", s.NameSite(site=SITE))
            grown = after.stored_bytes - before.stored_bytes
            require(CHUNK_BYTES <= grown < CHUNK_BYTES + 4096, f"it stored {grown} bytes")
            require(_read(demo, LARGE) == self._large, "the changed file is not what was written")
            require(_read(demo, LARGE, version=entry.version - 1) == old, "the version before is not what it was")
            step.detail = (
                f"version {entry.version}; {grown / 1e6:.1f} MB stored for {len(piece)} bytes changed, of {LARGE_BYTES / 1e6:.0f} MB"
            )

    def roll(self, demo: Demo) -> None:
        """A new version of one key."""
        with demo.step(
            "roll", "a new version of the primary key: a fresh TIK, site keys wrapped anew, a second roll refused meanwhile"
        ) as step:
            fresh = [_new_key(demo, vault, "files-1") for vault in VAULTS]
            asked: f.FilesStatus = demo.admin.call("files.roll", f.RollFiles(geo=GEO, which="primary", key=fresh[0]))
            require(asked.state == "Rolling", f"the geo is {asked.state}")
            try:
                demo.admin.call("files.roll", f.RollFiles(geo=GEO, which="secondary", key=fresh[1]))
            except Conflict as refused:
                code = refused.code
            else:
                raise NotShownError("a second roll began while one was under way")
            require(_read(demo, LARGE) == self._large, "the file does not read during the roll")
            seen = _wait(demo, asked)
            status = _status(demo)
            self.keys[0] = fresh[0]
            require(status.state == "Registered", f"the geo is {status.state}")
            require([status.primary_key_uri, status.secondary_key_uri] == self.keys, "the status names other keys")
            step.detail = f"refused: {code}; percent of sites {seen}; {self._everything(demo)} files equal"

    def one_key_away(self, demo: Demo) -> None:
        """The other serves."""
        with demo.step("one key away", "the first vault refuses the service: the second key serves") as step:
            _revoke(demo, VAULTS[:1])
            time.sleep(PROBE_MS / 1_000)
            read = self._everything(demo)
            step.detail = f"{read} files read; health: {_health(demo)}"

    def both_away(self, demo: Demo) -> None:
        """The customer says no."""
        with demo.step(
            "both keys away",
            "everybody is refused within one probe interval, in other processes too; nothing goes in; no third key is used",
        ) as step:
            before = _fallbacks(demo)
            _revoke(demo, VAULTS[1:])
            began = time.perf_counter()
            while not _refused(demo):
                require(time.perf_counter() - began < 60, "reading still works a minute after both keys were taken away")
                time.sleep(0.05)
            delay = time.perf_counter() - began
            limit = (PROBE_MS + CONFIRM_MS) / 1_000 + 5
            require(delay < limit, f"it took {delay:.1f} s")
            code = _read_in_another_process(demo)
            require(code == 3, f"another process was not refused but exited {code}")
            try:
                _upload(demo.admin, "Late.txt", b"too late")
            except KeyDenied:
                pass
            else:
                raise NotShownError("a file went in while both keys were taken away")
            require(_fallbacks(demo) == before, "the availability key was used")
            step.detail = f"revocation delay {delay:.1f} s in this process; another process refused with exit 3; health: {_health(demo)}"

    def give_back(self, demo: Demo) -> None:
        """And yes again."""
        with demo.step("given back", "with access to the vaults restored everything reads again, at once") as step:
            _grant(demo, VAULTS)
            state = _health(demo)
            require(state == "healthy", f"health is {state}")
            step.detail = f"{self._everything(demo)} files equal; health: {state}"

    def cut_off(self, demo: Demo) -> None:
        """A fault is not a denial, and not a reason to use the third key."""
        with demo.step(
            "vaults cut off", "the cached TIK rides it out for a day; then files are unavailable, and the availability key is not touched"
        ) as step:
            before = _fallbacks(demo)
            for vault in VAULTS:
                demo.operator.call("dev.fault", w.SetFault(vault=vault, fault="connection-refused"))
            advance(demo, PROBE_MS + 1)
            require(_read(demo, LARGE) == self._large, "the file does not read")
            advance(demo, 25 * HOUR_MS)
            try:
                _read(demo, LARGE)
            except Unavailable as refused:
                code = refused.code
            else:
                raise NotShownError("the file reads though neither key was reachable for more than a day")
            require(_fallbacks(demo) == before, "the availability key was used")
            for vault in VAULTS:
                demo.operator.call("dev.fault", w.SetFault(vault=vault, fault="none"))
            advance(demo, PROBE_MS + 1)
            step.detail = f"after 25 hours: {code}; with the vaults back {self._everything(demo)} files equal"

    def lose(self, demo: Demo) -> None:
        """Both keys gone for good."""
        with demo.step(
            "keys lost for good",
            "recovery is refused while a key opens; with both deleted and past retention it brings all back under two new keys",
        ) as step:
            fresh = [_new_key(demo, vault, "files-2") for vault in VAULTS]
            recover = f.RecoverFiles(geo=GEO, primary=fresh[0], secondary=fresh[1])
            try:
                demo.admin.call("files.recover", recover)
            except PreconditionFailed as refused:
                code = refused.code
            else:
                raise NotShownError("a recovery began though the customer keys open")
            for vault in VAULTS:
                demo.admin.call("key.delete", v.KeyNamed(vault=vault, name="files-1"))
            advance(demo, 91 * DAY_MS)
            require(_refused(demo), "somebody could read though both keys are gone")
            asked: f.FilesStatus = demo.admin.call("files.recover", recover)
            _wait(demo, asked)
            status = _status(demo)
            self.keys = fresh
            require(status.state == "Registered", f"the geo is {status.state}")
            require([status.primary_key_uri, status.secondary_key_uri] == self.keys, "the status names other keys")
            step.detail = f"refused: {code}; after the loss {self._everything(demo)} files equal under {fresh[0].rsplit('/', 2)[1]}"

    def back(self, demo: Demo) -> None:
        """The customer leaves."""
        with demo.step(
            "back to provider keys", "the customer leaves customer keys: content is re-encrypted under the provider's, and survives"
        ) as step:
            asked: f.FilesStatus = demo.admin.call("files.revert", f.NameGeo(geo=GEO))
            _wait(demo, asked)
            status = _status(demo)
            require((status.state, status.primary_key_uri) == ("Unregistered", None), f"the geo is {status.state}")
            read = self._everything(demo)
            files, _size = no_plaintext(demo, self.phrases)
            step.detail = f"{read} files equal; no content or name findable in {files} files"

    def log(self, demo: Demo) -> None:
        """What of it is on record."""
        with demo.step("the log of files", "every act and every refusal above is on the tenant's audit log") as step:
            records = _records(demo)
            counts = {one.operation for one in records}
            wanted = {
                "Register-SPODataEncryptionPolicy",
                "Update-SPODataEncryptionPolicy",
                "Restore-SPODataEncryptionPolicy",
                "Unregister-SPODataEncryptionPolicy",
                "FileUploaded",
                "SiteCreated",
            }
            require(wanted <= counts, f"missing on the log: {', '.join(sorted(wanted - counts))}")
            refusals = sum(one.result_status == "Failed" for one in records)
            require(refusals > 0, "no refusal is on the log")
            step.detail = f"{len(records)} records, {refusals} of them refusals"

    # -- helpers --------------------------------------------------------------------------------------------------------------------

    def _put_large(self, demo: Demo) -> None:
        _upload(_owner(demo), LARGE, self._large)

    def _everything(self, demo: Demo) -> int:
        """Read every file as the owner of the site, and compare all of them with what was copied in."""
        require(_read(demo, LARGE) == self._large, f"{LARGE} is not what was written")
        for url in SMALL:
            require(_read(demo, NOTE, site=url) == _note_of(url), f"the note in {url} is not what was written")
        with tempfile.TemporaryDirectory(prefix="keystead-demo-") as place:
            get_tree(_owner(demo), SITE, TREE, Path(place) / TREE)
            found = dict(_digests_of(Path(place) / TREE, TREE))
        require(found == self.digests, "the files that came back are not those that were copied in")
        return len(found) + 1 + len(SMALL)


def _files_below(folder: Path) -> Iterator[Path]:
    """Regular files; what links elsewhere is not followed, as the program does not."""
    for place, _folders, names in os.walk(folder):
        for name in sorted(names):
            path = Path(place, name)
            if path.is_file() and not path.is_symlink():
                yield path


def _digests_of(folder: Path, top: str) -> Iterator[tuple[str, bytes]]:
    for path in _files_below(folder):
        yield f"{top}/{path.relative_to(folder).as_posix()}", hashlib.sha256(path.read_bytes()).digest()


def _phrases_of(folder: Path) -> list[bytes]:
    """Long names, and of each file the longest line; some of them, from all over the folder."""
    found: dict[bytes, None] = {}
    for path in _files_below(folder):
        longest = max(path.read_bytes().splitlines(), key=len, default=b"")
        found |= dict.fromkeys(text for text in (path.name.encode(), longest[:200]) if len(text) >= LONG_LINE)
    require(bool(found), f"{folder} holds no text to look for")
    every = max(1, len(found) // SAMPLE)
    return list(found)[::every]


def _note_of(url: str) -> bytes:
    return f"what is written down in {url} is nobody else's".encode()


def _owner(demo: Demo) -> Client:
    return demo.owner(OWNER)


def _upload(client: Client, path: str, data: bytes, *, offset: int | None = None, site: str = SITE) -> s.FileView:
    rest = memoryview(data)

    def read(n: int) -> bytes:
        nonlocal rest
        piece, rest = rest[:n], rest[n:]
        return bytes(piece)

    entry: s.FileView = client.call("site.put", s.UploadFile(site=site, path=path, offset=offset), upload=Upload(len(data), read))
    return entry


def _read(demo: Demo, path: str, *, version: int | None = None, site: str = SITE) -> bytes:
    return b"".join(_owner(demo).call("site.get", s.DownloadFile(site=site, path=path, version=version)).chunks)


def _refused(demo: Demo) -> bool:
    try:
        _read(demo, LARGE)
    except KeyDenied:
        return True
    return False


def _read_in_another_process(demo: Demo) -> int:
    command = [sys.executable, "-m", "keystead", "--home", str(demo.home.path), "--as", OWNER, "site", "ls", SITE]
    return subprocess.run(command, capture_output=True, check=False).returncode  # noqa: S603 - our own program


def _new_key(demo: Demo, vault: str, name: str) -> str:
    """A new key, or a new version of the one of that name; its identifier with version."""
    made: v.KeyView = demo.admin.call(
        "key.create", v.KeyCreate(vault=vault, name=name, kty="RSA-HSM", size=2048, ops=["wrapKey", "unwrapKey"])
    )
    return made.id


def _grant(demo: Demo, vaults: tuple[str, ...]) -> None:
    for vault in vaults:
        demo.admin.call("vault.access.grant", v.AccessGrant(vault=vault, principal="files", permissions=ALLOWED))


def _revoke(demo: Demo, vaults: tuple[str, ...]) -> None:
    for vault in vaults:
        demo.admin.call("vault.access.revoke", v.AccessRevoke(vault=vault, principal="files"))


def _status(demo: Demo) -> f.FilesStatus:
    found: f.FilesStatus = demo.admin.call("files.status", f.NameGeo(geo=GEO))
    return found


def _health(demo: Demo) -> str:
    found: f.FilesHealth = demo.admin.call("files.health", f.NameGeo(geo=GEO))
    return found.state


def _wait(demo: Demo, asked: f.FilesStatus) -> str:
    """Get on with what was asked to its end; the percentages of sites on the way."""
    require(asked.job_id is not None, f"nothing was begun: the geo is {asked.state}")
    seen: dict[str, None] = {}

    def note(_view: w.JobView) -> None:
        percent = _status(demo).percent_sites
        if percent is not None:  # a geo that has come to rest under the provider's keys has none
            seen[f"{percent:.0f}%"] = None

    view = demo.admin.wait(asked.job_id or "", note)
    require(view.state == "done", f"the job ended as {view.state}: {view.error}")
    return " ".join(seen)


def _records(demo: Demo) -> list[w.AuditRecordView]:
    found: list[w.AuditRecordView] = []
    for back in (0, 90):
        end, start = demo.time_after(-back), demo.time_after(-back - 90)
        found += demo.admin.call("audit.search", w.SearchAudit(start=start, end=end, limit=5000))
    return found


def _fallbacks(demo: Demo) -> int:
    return sum(one.operation == FALLBACK for one in _records(demo))
