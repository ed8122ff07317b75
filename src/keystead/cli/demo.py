"""`keystead demo`: the main job on real mail, from the first key to the last, every claim checked on the way.

The demo is an ordinary client of a dev home: it calls the same routes as the command line. What differs from a real home is said where it
matters: a short probe interval, so that nobody waits a minute for a revocation, and a clock and faults that can be set.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import threading
import time
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from keystead.api.types import mailboxes as m
from keystead.api.types import policies as p
from keystead.api.types import tenants as t
from keystead.api.types import vaults as v
from keystead.api.types import watching as w
from keystead.api.types.base import utc
from keystead.cli.demo_mail import write_demo_mail
from keystead.cli.plaintext import look_for
from keystead.client.importing import import_source
from keystead.client.sources import open_source
from keystead.core.audit.record import FALLBACK
from keystead.core.errors import ChecksFailed, Conflict, KeyDenied, KeysteadError
from keystead.wiring import Home, create_home, open_home

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from datetime import datetime

    from keystead.cli.separate_vaults import SeparateVault
    from keystead.client.client import Client

TENANT, DOMAIN = "Contoso", "contoso.example"
ADMIN = f"admin@{DOMAIN}"
VAULTS = ("Contoso-CK-EX-EU-A1", "Contoso-CK-EX-US-A2")
SUBSCRIPTIONS = ("Contoso-CK-1", "Contoso-CK-2")
REGIONS = ("westeurope", "eastus")
ALLOWED = ["get", "wrapKey", "unwrapKey"]
ADMIN_RIGHTS = ["create", "import", "list", "get", "backup", "restore", "update", "rotate", "delete", "recover", "purge"]
PROBE_MS = 3_000
"""The demo's probe interval; the default is 60 seconds."""
CONFIRM_MS = 2_000
SLOW_S = 1.0
"""How long a vault stands still in the demo; within the service's time limits."""
SEED = 20260528
FOLDER = Path("demo-home")
HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
SAMPLE = 400
"""How many texts of somebody's own mail are looked for in the home."""


class NotShownError(Exception):
    """A claim did not hold."""


@dataclass
class Step:
    """One line of the table at the end."""

    name: str
    shows: str
    seconds: float = 0.0
    held: bool = False
    detail: str = ""


@dataclass
class Demo:
    """The demo under way."""

    home: Home
    say: Callable[[str], None]
    steps: list[Step] = field(default_factory=list)
    owners: list[str] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    digests: dict[str, Counter[bytes]] = field(default_factory=dict)
    phrases: list[bytes] = field(default_factory=list)
    searched: str = ""
    separate: Sequence[SeparateVault] = ()
    """Vaults in homes and processes of their own; none: those of the demo's home."""

    def apart(self, vault: str) -> SeparateVault | None:
        """The vault of that name where it is one of its own."""
        return next((one for one in self.separate if one.name == vault), None)

    def owner_of(self, vault: str) -> Client:
        """Calls as whoever owns a vault."""
        apart = self.apart(vault)
        return self.admin if apart is None else apart.admin

    @property
    def admin(self) -> Client:
        """Calls as the tenant's administrator."""
        return self.home.client(self.home.as_person(ADMIN))

    @property
    def operator(self) -> Client:
        """Calls as the provider's operator, about the tenant."""
        return self.home.client(self.home.as_operator(), TENANT)

    def owner(self, upn: str) -> Client:
        """Calls as the owner of a mailbox."""
        return self.home.client(self.home.as_person(upn))

    def time_after(self, days: int) -> datetime:
        """The dev clock's present time, some days later or earlier, and an hour on."""
        return utc(self.home.services.clock.now() + days * DAY_MS + HOUR_MS)

    @contextmanager
    def step(self, name: str, shows: str) -> Iterator[Step]:
        """Time one step, and keep what it showed; a claim that does not hold ends the demo."""
        one = Step(name, shows)
        self.steps.append(one)
        self.say(f"{len(self.steps):2}. {name}: {shows}")
        began = time.perf_counter()
        try:
            yield one
            one.held = True
        except KeysteadError as error:
            one.detail = str(error)
            raise NotShownError(f"{name}: {error}") from error
        except NotShownError as error:
            one.detail = str(error)
            raise
        finally:
            one.seconds = time.perf_counter() - began
            if one.detail:
                self.say(f"    {one.detail}")


def run(home: Path | None, mail: Path | None, json_output: bool, separate: bool = False, files: Path | None = None) -> int:
    """Run the demo; 0 only when every claim held.

    Args:
        home: where the demo's home goes; ./demo-home where none is named. One left there by an earlier demo is removed first.
        mail: an mbox, a Maildir or a folder of messages; without it the demo writes its own.
        json_output: print one JSON document at the end instead of text.
        separate: the customer's two vaults run in homes and processes of their own, under `vaults` in the demo's home.
        files: a folder, for the demo of files. Without `mail` that is shown alone.
    """
    place = _fresh_folder(home or FOLDER)
    say: Callable[[str], None] = (lambda line: print(line, file=sys.stderr)) if json_output else print  # noqa: T201 - the demo talks
    vaults = _separate_vaults(place) if separate else []
    failed = ""
    try:
        create_home(place, dev=True, operator="operator@provider.example")
        entries = "".join(f"\n{one.entry(DOMAIN)}" for one in vaults)
        (place / "keystead.toml").write_text(f'[settings]\nprobe_interval = "{PROBE_MS}ms"\n{entries}')
        opened = open_home(place)
        demo = Demo(opened, say, separate=vaults)
        say(f"Keystead demo in {place} (probe interval {PROBE_MS // 1000} s here; 60 s by default)")
        try:
            for part in _parts(mail, files, separate=separate):
                part(demo)
        except NotShownError as error:
            failed = str(error)
        finally:
            opened.close()
    finally:
        for one in vaults:
            one.close()
    _report(demo, place, failed, "site list" if files else "policy list", json_output=json_output)
    return 1 if failed else 0


def _parts(mail: Path | None, files: Path | None, *, separate: bool) -> list[Callable[[Demo], None]]:
    """The steps, in order: of mail, of files where a folder is given, of both where mail is given as well."""
    if files is None:
        return _mail_parts(mail, separate=separate)
    from keystead.cli.demo_files import parts  # it stands on this module

    return [*(_mail_parts(mail, separate=False) if mail else ()), *parts(files, after_mail=mail is not None)]


def _mail_parts(mail: Path | None, *, separate: bool) -> list[Callable[[Demo], None]]:
    """The steps of mail. With vaults of their own, faults are real: their processes stop, or stand still."""
    faults = [_one_stopped, _answers_slowly, _both_stopped] if separate else [_cut_off]
    return [
        _set_up_separate if separate else _set_up,
        _policy,
        lambda demo: _import(demo, mail),
        _assign,
        _prove,
        _roll,
        _one_key_away,
        _both_away,
        _give_back,
        *faults,
        _lose,
        _back,
        _log,
    ]


def _separate_vaults(place: Path) -> list[SeparateVault]:
    from keystead.cli.separate_vaults import make_vault, start_all

    made: list[SeparateVault] = []
    try:
        for number, (vault, subscription, region) in enumerate(zip(VAULTS, SUBSCRIPTIONS, REGIONS, strict=True), 1):
            home = place / "vaults" / str(number)
            made.append(make_vault(home, vault, tenant=TENANT, domain=DOMAIN, subscription=subscription, region=region))
        start_all(made)
    except BaseException:
        for one in made:
            one.close()
        raise
    return made


# -- the steps ------------------------------------------------------------------------------------------------------------------------


def _set_up(demo: Demo) -> None:
    with demo.step("set up", "a provider, a tenant, two subscriptions, two key vaults in two regions, a key in each, onboarding") as step:
        operator = demo.home.client(demo.home.as_operator())
        operator.call("tenant.create", t.CreateTenant(name=TENANT, domain=DOMAIN, geo=["EUR"]))
        demo.operator.call("user.add", t.AddUser(upn=ADMIN, roles=["global-admin"]))
        for vault, subscription, region in zip(VAULTS, SUBSCRIPTIONS, REGIONS, strict=True):
            demo.admin.call("subscription.create", v.SubscriptionCreate(name=subscription))
            demo.admin.call("subscription.protect", v.SubscriptionNamed(name=subscription))
            demo.admin.call("vault.create", v.VaultCreate(name=vault, subscription=subscription, region=region, sku="premium"))
            demo.admin.call("vault.access.grant", v.AccessGrant(vault=vault, principal="mail", permissions=ALLOWED))
            demo.admin.call("vault.access.grant", v.AccessGrant(vault=vault, upn=ADMIN, permissions=ADMIN_RIGHTS))
            demo.keys.append(_make_key(demo, vault, "root-1"))
        demo.admin.call(
            "tenant.onboard",
            t.OnboardTenant(workload="mail", subscriptions=list(SUBSCRIPTIONS), officers=[t.OfficerInput(name="Head of legal")]),
        )
        step.detail = f"{demo.keys[0]} and {demo.keys[1]}"


def _set_up_separate(demo: Demo) -> None:
    with demo.step(
        "set up", "a provider, a tenant, and two key vaults of the tenant in homes and processes of their own, over HTTPS; a key in each"
    ) as step:
        operator = demo.home.client(demo.home.as_operator())
        operator.call("tenant.create", t.CreateTenant(name=TENANT, domain=DOMAIN, geo=["EUR"]))
        demo.operator.call("user.add", t.AddUser(upn=ADMIN, roles=["global-admin"]))
        for vault in VAULTS:
            demo.keys.append(_make_key(demo, vault, "root-1"))
        demo.admin.call(
            "tenant.onboard",
            t.OnboardTenant(workload="mail", subscriptions=list(SUBSCRIPTIONS), officers=[t.OfficerInput(name="Head of legal")]),
        )
        step.detail = f"{demo.keys[0]} and {demo.keys[1]}"


def _policy(demo: Demo) -> None:
    with demo.step(
        "policy", "creation checks refuse two keys of one vault by name; two good keys make a policy with three wrapped copies"
    ) as step:
        try:
            demo.admin.call("policy.create", p.CreatePolicy(name="Mail-1", keys=[demo.keys[0], demo.keys[0]]))
        except ChecksFailed as refused:
            names = ", ".join(check.check for check in refused.failed)
            require("different-vaults" in names, f"the failed checks were {names}")
        else:
            raise NotShownError("a policy with two keys of one vault was made")
        made: p.PolicyView = demo.admin.call("policy.create", p.CreatePolicy(name="Mail-1", keys=demo.keys))
        require([copy.role for copy in made.keys] == ["primary", "secondary", "availability"], "the policy has not three copies")
        step.detail = f"refused: {names}; then made {made.name}, {made.id}"


def _import(demo: Demo, mail: Path | None) -> None:
    folder = demo.home.path / "demo-mail"
    with demo.step(
        "import", "real mail comes in under the provider's keys: messages with attachments, calendar entries, chat; nothing is dropped"
    ) as step:
        if mail is None:
            folder.mkdir()
            owners = [f"alex@{DOMAIN}", f"sam@{DOMAIN}", f"sales@{DOMAIN}"]
            written = write_demo_mail(folder, owners, SEED)
            sources = written.files
            demo.phrases = written.phrases
        else:
            owners = [f"alex@{DOMAIN}"]
            sources = {owners[0]: mail}
        demo.owners = owners
        imported = malformed = size = 0
        for upn in owners:
            kind: m.MailboxTypeName = "shared" if upn.startswith("sales") else "user"
            demo.admin.call("mailbox.create", m.CreateMailbox(upn=upn, type=kind))
            source = open_source(sources[upn])
            result = import_source(demo.admin, upn, source)
            again = import_source(demo.admin, upn, source)
            require(again.imported == 0 and again.already_present == result.imported, "importing again added something")
            demo.digests[upn] = Counter(_digest_of(one.read(0, one.length)) for one in source)
            imported, malformed, size = imported + result.imported, malformed + len(result.malformed), size + source.total_bytes
            if mail is not None:
                demo.phrases = _phrases_of(demo, upn)
        demo.searched = next(text for item in _items(demo, owners[0]) for text in (item.subject, item.sender) if text.strip())
        if mail is None:
            shutil.rmtree(folder)  # the originals must not be what the search for plaintext finds
        step.detail = (
            f"{imported} items, {size / 1e6:.1f} MB; importing again added nothing; {malformed} malformed kept byte for byte and reported"
        )


def _assign(demo: Demo) -> None:
    with demo.step(
        "assign", "all mailboxes go under the customer's policy: keys re-wrapped at once, content re-encrypted by a move"
    ) as step:
        asked: m.AssignmentView = demo.admin.call("mailbox.assign", m.AssignPolicy(policy="Mail-1", all=True))
        seen: list[float] = []
        view = demo.admin.wait(asked.job_id, lambda job: seen.append(job.progress_percent))
        require(view.state == "done", f"the job ended as {view.state}: {view.error}")
        step.detail = f"{asked.mailboxes} mailboxes; progress " + " ".join(f"{one:.0f}%" for one in dict.fromkeys(seen))


def _prove(demo: Demo) -> None:
    with demo.step(
        "prove", "is_encrypted is true, every item reads back byte for byte, and no content is findable in any file of the home"
    ) as step:
        policy: p.PolicyView = demo.admin.call("policy.show", p.NamePolicy(policy="Mail-1"))
        for upn in demo.owners:
            statistics: m.MailboxStatistics = demo.admin.call("mailbox.statistics", m.NameMailbox(upn=upn))
            require(
                statistics.is_encrypted and statistics.data_encryption_policy_id == policy.version_id,
                f"{upn} is not encrypted under the policy",
            )
        read = _read_everything(demo)
        files, size = no_plaintext(demo, demo.phrases)
        step.detail = f"{read} items equal; {len(demo.phrases)} texts looked for in {files} files, {size / 1e6:.0f} MB: none found"


def _roll(demo: Demo) -> None:
    with demo.step("roll", "new versions of both root keys and one refresh: the policy key is re-wrapped, content is not touched") as step:
        before: p.PolicyView = demo.admin.call("policy.show", p.NamePolicy(policy="Mail-1"))
        for vault in VAULTS:
            demo.owner_of(vault).call("key.rotate", v.KeyNamed(vault=vault, name="root-1"))
        after: p.PolicyView = demo.admin.call("policy.refresh", p.NamePolicy(policy="Mail-1"))
        uris = [[copy.key_uri for copy in one.keys] for one in (before, after)]
        require(after.id == before.id and after.version_id != before.version_id, "the refresh made no new version")
        require(all(old != new for old, new in zip(uris[0][:2], uris[1][:2], strict=True)), "a copy still names the old key version")
        require(uris[0][2] == uris[1][2], "the availability key changed")
        statistics: m.MailboxStatistics = demo.admin.call("mailbox.statistics", m.NameMailbox(upn=demo.owners[0]))
        require(statistics.data_encryption_policy_id == after.version_id, "the mailbox does not report the new version")
        step.detail = f"version {before.version} to {after.version}; {_read_everything(demo)} items equal"


def _one_key_away(demo: Demo) -> None:
    with demo.step(
        "one key away", "the first vault refuses the service: the second key serves, and the policy is shown as degraded"
    ) as step:
        _revoke(demo, VAULTS[:1])
        time.sleep(PROBE_MS / 1_000)
        read = _read_everything(demo)
        state = _health(demo)
        require(state == "degraded", f"health is {state}")
        step.detail = f"{read} items read; health: {state}"


def _both_away(demo: Demo) -> None:
    with demo.step(
        "both keys away", "the user is refused within one probe interval; indexing goes on with the availability key, on the log"
    ) as step:
        upn = demo.owners[0]
        item = _first_item(demo, upn)
        _revoke(demo, VAULTS[1:])
        began = time.perf_counter()
        delay = _until_refused(demo, upn, item)
        limit = (PROBE_MS + CONFIRM_MS) / 1_000 + 5
        require(delay < limit, f"it took {delay:.1f} s")
        code = _read_in_another_process(demo, upn, item)
        require(code == 3, f"another process was not refused but exited {code}")
        hits: list[m.Hit] = demo.admin.call("mailbox.search", m.Search(text=demo.searched[:100], upn=upn, limit=5))
        require(bool(hits) and bool(_fallbacks(demo)), "the search did not run, or is not on the log")
        step.detail = (
            f"revocation delay {delay:.1f} s in this process (confirmation of the denial included); another process refused with exit 3; "
            f"health: {_health(demo)}; {time.perf_counter() - began:.1f} s in all"
        )


def _give_back(demo: Demo) -> None:
    with demo.step("given back", "with access to the vaults restored everything reads again, at once") as step:
        for vault in VAULTS:
            apart = demo.apart(vault)
            if apart is None:
                demo.admin.call("vault.access.grant", v.AccessGrant(vault=vault, principal="mail", permissions=ALLOWED))
            else:
                apart.grant()
        read = _read_everything(demo)
        state = _health(demo)
        require(state == "healthy", f"health is {state}")
        step.detail = f"{read} items equal; health: {state}"


def _cut_off(demo: Demo) -> None:
    with demo.step(
        "vaults cut off", "a fault is not a denial: the cached key rides it out for 4 hours, then the availability key serves, on the log"
    ) as step:
        upn = demo.owners[0]
        item = _first_item(demo, upn)
        for vault in VAULTS:
            demo.operator.call("dev.fault", w.SetFault(vault=vault, fault="connection-refused"))
        detail = _ride_out(demo, upn, item)
        for vault in VAULTS:
            demo.operator.call("dev.fault", w.SetFault(vault=vault, fault="none"))
        step.detail = detail


def _one_stopped(demo: Demo) -> None:
    with demo.step(
        "one vault stopped", "the process of the first vault ends: the second key serves, and the policy is shown as degraded"
    ) as step:
        demo.separate[0].process.stop()
        time.sleep(PROBE_MS / 1_000)
        read = _read_everything(demo)
        state = _health(demo)
        require(state == "degraded", f"health is {state}")
        step.detail = f"{read} items read; health: {state} ({_outcomes(demo)})"


def _answers_slowly(demo: Demo) -> None:
    with demo.step(
        "a slow vault", "the other vault stands still for a moment: a read waits for its answer, and is neither refused nor lost"
    ) as step:
        upn, held = demo.owners[0], demo.separate[1].process
        item = _first_item(demo, upn)
        time.sleep(PROBE_MS / 1_000 + 0.1)  # the next read asks the vaults again
        before = len(_fallbacks(demo))
        held.hold()
        waking = threading.Timer(SLOW_S, held.go_on)
        waking.start()
        began = time.perf_counter()
        try:
            _read(demo, upn, item)
        finally:
            waking.join()
        took = time.perf_counter() - began
        require(took >= SLOW_S, f"the read took {took:.1f} s, and did not ask the vault")
        require(len(_fallbacks(demo)) == before, "the availability key was used though the vault answered")
        step.detail = f"a read took {took:.1f} s; health: {_health(demo)}"


def _both_stopped(demo: Demo) -> None:
    with demo.step(
        "both vaults stopped",
        "a fault is not a denial: the cached key rides it out for 4 hours, then the availability key serves, on the log",
    ) as step:
        upn = demo.owners[0]
        item = _first_item(demo, upn)
        demo.separate[1].process.stop()
        detail = _ride_out(demo, upn, item)
        require("connection-refused" in _outcomes(demo), f"the vaults said {_outcomes(demo)}")
        for one in demo.separate:
            one.process.begin()
        for one in demo.separate:
            one.ready = one.process.wait(one.name)
        state = _health(demo)
        require(state == "healthy", f"with both vaults back, health is {state}: {_outcomes(demo)}")
        step.detail = f"{detail}; started again: {state}"


def _lose(demo: Demo) -> None:
    with demo.step(
        "keys lost for good",
        "both keys deleted and past retention: users refused; a new policy with new keys recovers all by the availability key",
    ) as step:
        upn = demo.owners[0]
        for vault in VAULTS:
            demo.owner_of(vault).call("key.delete", v.KeyNamed(vault=vault, name="root-1"))
        advance(demo, 91 * DAY_MS)
        item = _row_of_first_item(demo, upn)
        require(_refused(demo, upn, item), "a user could read though both keys are gone")
        fresh = [_make_key(demo, vault, "root-2") for vault in VAULTS]
        demo.admin.call("policy.create", p.CreatePolicy(name="Mail-2", keys=fresh))
        asked: m.AssignmentView = demo.admin.call("mailbox.assign", m.AssignPolicy(policy="Mail-2", all=True))
        view = demo.admin.wait(asked.job_id)
        require(view.state == "done", f"the recovery ended as {view.state}: {view.error}")
        statistics: m.MailboxStatistics = demo.admin.call("mailbox.statistics", m.NameMailbox(upn=upn))
        require(statistics.is_encrypted and statistics.policy_name == "Mail-2", "the mailbox is not under the new policy")
        step.detail = f"{asked.mailboxes} mailboxes recovered; {_read_everything(demo)} items equal"


def _back(demo: Demo) -> None:
    with demo.step(
        "back to provider keys", "the customer leaves customer keys: content is re-encrypted under the provider's, and survives"
    ) as step:
        for upn in demo.owners:
            asked: m.AssignmentView = demo.admin.call("mailbox.unassign", m.UnassignPolicy(upn=upn))
            view = demo.admin.wait(asked.job_id)
            require(view.state == "done", f"it ended as {view.state}: {view.error}")
        statistics: m.MailboxStatistics = demo.admin.call("mailbox.statistics", m.NameMailbox(upn=demo.owners[0]))
        require(statistics.data_encryption_policy_id is None and not statistics.is_encrypted, "the mailbox still reports a policy")
        read = _read_everything(demo)
        files, _size = no_plaintext(demo, demo.phrases)
        step.detail = f"{read} items equal; no content findable in {files} files"


def _log(demo: Demo) -> None:
    with demo.step("the log", "every act and every refusal above is on the tenant's audit log") as step:
        records: list[w.AuditRecordView] = []
        for back in (0, 90):
            end, start = demo.time_after(-back), demo.time_after(-back - 90)
            records += demo.admin.call("audit.search", w.SearchAudit(start=start, end=end, limit=5000))
        counts = Counter(one.operation for one in records)
        wanted = {
            "New-DataEncryptionPolicy",
            "Set-Mailbox",
            "Set-DataEncryptionPolicy",
            "Complete-MailboxMove",
            "New-MailboxImportRequest",
            FALLBACK,
        }
        require(wanted <= set(counts), f"missing on the log: {', '.join(sorted(wanted - set(counts)))}")
        refusals = sum(one.result_status == "Failed" for one in records)
        require(refusals > 0, "no refusal is on the log")
        step.detail = f"{len(records)} records, {refusals} of them refusals; {counts[FALLBACK]} uses of the availability key"


# -- helpers --------------------------------------------------------------------------------------------------------------------------


def require(held: bool, otherwise: str) -> None:
    """End the demo where something did not hold."""
    if not held:
        raise NotShownError(otherwise)


def _make_key(demo: Demo, vault: str, name: str) -> str:
    """The key's identifier without version, as the service names it."""
    made: v.KeyView = demo.owner_of(vault).call(
        "key.create", v.KeyCreate(vault=vault, name=name, kty="RSA-HSM", size=2048, ops=["wrapKey", "unwrapKey"])
    )
    apart = demo.apart(vault)
    return made.base_id if apart is None else apart.key_uri(name)


def _revoke(demo: Demo, vaults: Sequence[str]) -> None:
    for vault in vaults:
        apart = demo.apart(vault)
        if apart is None:
            demo.admin.call("vault.access.revoke", v.AccessRevoke(vault=vault, principal="mail"))
        else:
            apart.revoke()


def _ride_out(demo: Demo, upn: str, item: str) -> str:
    """With both vaults out of reach: what the cached key and, after its time, the availability key do."""
    before = len(_fallbacks(demo))
    advance(demo, PROBE_MS + 1)
    _read(demo, upn, item)
    require(len(_fallbacks(demo)) == before, "the availability key was used while the cached key could serve")
    advance(demo, 5 * HOUR_MS)
    _read(demo, upn, item)
    records = _fallbacks(demo)
    require(len(records) > before, "the use of the availability key is not on the log")
    names = ", ".join(parameter.name for parameter in records[0].parameters)
    return f"record type {records[0].record_type} with {names}; health: {_health(demo)}"


def _outcomes(demo: Demo) -> str:
    """What each key last said."""
    found: p.PolicyHealth = demo.admin.call("policy.health", p.NamePolicy(policy="Mail-1"))
    return ", ".join(f"{key.role} {key.outcome} {key.reason}".rstrip() for key in found.keys)


def _health(demo: Demo) -> str:
    found: p.PolicyHealth = demo.admin.call("policy.health", p.NamePolicy(policy="Mail-1"))
    return found.state


def advance(demo: Demo, milliseconds: int) -> None:
    """Move the clock of the home, and of vaults with homes of their own."""
    demo.operator.call("dev.clock.advance", w.AdvanceClock(milliseconds=milliseconds))
    for one in demo.separate:
        one.advance(milliseconds)


def _fallbacks(demo: Demo) -> list[w.AuditRecordView]:
    found: list[w.AuditRecordView] = demo.admin.call("audit.search", w.SearchAudit(operations=[FALLBACK], limit=5000))
    return found


def _digest_of(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def _items(demo: Demo, upn: str) -> Iterator[m.ItemView]:
    after = ""
    while page := demo.owner(upn).call("mailbox.items", m.ListItems(upn=upn, after=after, limit=1000)):
        yield from page
        after = page[-1].id


def _read(demo: Demo, upn: str, item: str) -> bytes:
    return b"".join(demo.owner(upn).call("mailbox.read", m.NameItem(upn=upn, item=item)).chunks)


def _first_item(demo: Demo, upn: str) -> str:
    return next(_items(demo, upn)).id


def _row_of_first_item(demo: Demo, upn: str) -> str:
    """An item's id as a search gives it, for when listing is refused."""
    hits: list[m.Hit] = demo.admin.call("mailbox.search", m.Search(text=demo.searched[:100], upn=upn, limit=1))
    return hits[0].item_id


def _read_everything(demo: Demo) -> int:
    """Read every item as its owner and compare all of them with what came in."""
    count = 0
    for upn in demo.owners:
        found = Counter(_digest_of(_read(demo, upn, item.id)) for item in _items(demo, upn))
        require(found == demo.digests[upn], f"the items of {upn} are not what was imported")
        count += found.total()
    return count


def _refused(demo: Demo, upn: str, item: str) -> bool:
    try:
        _read(demo, upn, item)
    except KeyDenied:
        return True
    return False


def _until_refused(demo: Demo, upn: str, item: str) -> float:
    """Read again and again with a warm keyring until the answer is no; the seconds that took."""
    began = time.perf_counter()
    while not _refused(demo, upn, item):
        if time.perf_counter() - began > 60:
            raise NotShownError("reading still works a minute after both keys were taken away")
        time.sleep(0.05)
    return time.perf_counter() - began


def _read_in_another_process(demo: Demo, upn: str, item: str) -> int:
    command = [sys.executable, "-m", "keystead", "--home", str(demo.home.path), "--as", upn, "mailbox", "read", upn, item]
    return subprocess.run(command, capture_output=True, check=False).returncode  # noqa: S603 - our own program


def no_plaintext(demo: Demo, phrases: list[bytes]) -> tuple[int, int]:
    """Look for every phrase in every file of the home; how many files, and bytes, were looked at."""
    found = look_for(demo.home.path, phrases)
    require(not found.hits, f"found in {found.hits[0][0]}: {found.hits[0][1]!r}" if found.hits else "")
    return found.files, found.size


def _phrases_of(demo: Demo, upn: str) -> list[bytes]:
    """Texts of somebody's own mail that the home must not hold: subjects, senders, lines of bodies."""
    phrases: dict[bytes, None] = {}
    for item in _items(demo, upn):
        for text in (item.subject, item.sender):
            if len(text) >= 12:
                phrases[text.encode()] = None
        lines = [line.strip() for line in _read(demo, upn, item.id).splitlines()]
        longest = max(lines, key=len, default=b"")
        if len(longest) >= 16:
            phrases[longest] = None
        if len(phrases) >= SAMPLE:
            break
    require(bool(phrases), "the mail holds no text to look for")
    return list(phrases)


def _fresh_folder(folder: Path) -> Path:
    place = folder.absolute()
    if place.exists() and any(place.iterdir()):
        if not (place / ".demo").is_file():
            raise Conflict("folder_not_empty", f"{place} is not empty and was not made by a demo", "name another with --home")
        shutil.rmtree(place)
    place.mkdir(parents=True, exist_ok=True)
    (place / "seals").mkdir(exist_ok=True)
    (place / ".demo").write_text("made by keystead demo; the next demo here removes it\n")
    return place


def _report(demo: Demo, place: Path, failed: str, look: str, *, json_output: bool) -> None:
    if json_output:
        document = {
            "ok": not failed,
            "home": str(place),
            "steps": [
                {"name": one.name, "shows": one.shows, "held": one.held, "seconds": round(one.seconds, 3), "detail": one.detail}
                for one in demo.steps
            ],
        }
        print(msgspec.json.encode(document).decode())  # noqa: T201 - the one document on stdout
        return
    print()  # noqa: T201
    print(f"{'':2}  {'step':24}{'seconds':>8}  what was proved")  # noqa: T201
    for one in demo.steps:
        print(f"{'ok' if one.held else 'NO':2}  {one.name:24}{one.seconds:8.2f}  {one.shows}")  # noqa: T201
    total = sum(one.seconds for one in demo.steps)
    print()  # noqa: T201
    if failed:
        print(f"NOT SHOWN: {failed}")  # noqa: T201
    else:
        print(f"All {len(demo.steps)} steps held, in {total:.1f} s. Look around: keystead --home {place} --as {ADMIN} {look}")  # noqa: T201
