"""The keyring: opens policy keys, holds them in memory only, and is the only user of root keys (design section 5).

Two numbers, two purposes:

- *outage tolerance* (`mail_max_age`, `files_max_age`): how long a cached policy key rides out vaults that cannot be reached;
- *revocation delay* (`probe_interval`): a cached key whose last answer is older is asked for again before it is used.

How a key is opened:

1. A cached key is used while its generation is the one in the database, and the latest pair of outcomes is young and allows it
   (`core.keys.decide`). The pair and the generation are shared by all processes through the policy's state row.
2. When the pair is too old, both customer keys are asked with a real unwrapKey: by one process for all, under a lease.
3. Without a cached key, the two customer keys are asked in random order (R-142), the second only when the first fails (R-143). For files the
   second is asked `file_ask_offset` after the first at the latest; the first checked success wins, a failure never does (R-116).
4. A first denial of both is confirmed once after `denial_confirm`, then written with a new generation: every process drops what it holds.
5. What the availability key opened is used by users only while both keys are system errors, and dies at the next probe. What it opened
   for a system operation after a denial serves that operation alone. Each use is on the log before it happens (R-149). Files never get
   there (R-120, R-148): theirs is used by `recover_by_instruction` alone.

Everything opened below a policy key lives in its `OpenPolicy` and dies with it.
"""

from __future__ import annotations

import logging
import threading
from collections import Counter, OrderedDict
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NoReturn

from keystead.core.alerts import KEY_KINDS, AlertKind, Condition
from keystead.core.audit.record import FALLBACK, RecordType
from keystead.core.door import key_bytes
from keystead.core.errors import IntegrityFailure, KeyDenied, NotFound, Unavailable
from keystead.core.formats.aead import NONCE_BYTES
from keystead.core.formats.context import envelope_context, keystore_context
from keystead.core.formats.envelope import Envelope, WrapAlgorithm, decode, encode
from keystead.core.formats.files import site_key_context
from keystead.core.formats.mailbox_items import mailbox_key_context
from keystead.core.formats.wrapped_key import unwrap, wrap
from keystead.core.keys.decide import CachedKey, Decision, Family, Health, Limits, Operation, Verdict, decide, health
from keystead.core.keys.hierarchy import (
    MailboxKeys,
    PolicyKeys,
    SiteKeys,
    check_matches,
    expand_mailbox_key,
    expand_policy_key,
    expand_site_key,
)
from keystead.core.keys.outcome import SUCCESS, Outcome, OutcomeClass
from keystead.core.policies.policy import CUSTOMER_ROLES, POLICY_KEY_VERSION, CopyRole, Policy, PolicyCopy, PolicyState, Workload
from keystead.core.secret import KEY_BYTES, SecretKey
from keystead.core.tenancy import APPLICATIONS
from keystead.ports.keystore import Compartment
from keystead.ports.vaults import VaultFailure
from keystead.services.alerting import raise_alert, resolve_alerts
from keystead.services.auditing import record_system
from keystead.services.context import Basics
from keystead.services.tally import Counted, Tally

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from keystead.core.formats.context import Context
    from keystead.core.ids import RandomBytes
    from keystead.core.settings import Settings
    from keystead.ports.clock import Clock
    from keystead.ports.keystore import KeyStore
    from keystead.ports.tx import Database, Tx
    from keystead.ports.vaults import Vaults

_log = logging.getLogger("keystead.keyring")

MAX_CHILDREN, LEAST_CHILDREN = 20_000, 10
"""Mailbox and site keys a process keeps, 2.7 to 6 KB each: shared out evenly among the policies it has open, each of which keeps a few in any case. The
least recently used go first."""

ASKING_THREADS = 32
"""Vaults asked at the same time. One that does not answer holds a thread for `vault_timeout`; policies in other vaults must not wait for it."""
AVAILABILITY = "availability:"
PROVIDER = "provider:"
"""Where a copy's key URI would be, for keys of the key store: prefix and id."""


@dataclass(frozen=True, slots=True)
class _ChildKind:
    """A kind of key below a policy key: how errors name it, what its box is bound to, and what is derived from it."""

    name: str
    context: Callable[[str, str, int, str, int], Context]
    expand: Callable[[SecretKey], MailboxKeys | SiteKeys]


_MAILBOX_KEY = _ChildKind("mailbox key", mailbox_key_context, expand_mailbox_key)
_SITE_KEY = _ChildKind("site key", site_key_context, expand_site_key)


class OpenPolicy:
    """An opened policy key, ready to open what lies under it. No key in it can be read out.

    Attributes:
        policy: the policy as it was when its key was opened.
        opened_by: the role of the copy that was opened.
        opened_at: when a customer key (or the availability key) last answered for it.
        asked_at: when this very process last had a success from a customer key for it; no other process can vouch for it for ever.
        generation: the policy's generation then.
        single: opened for one system operation after a denial; never cached, never for a user.
    """

    __slots__ = ("_children", "_keys", "_lock", "_room", "asked_at", "generation", "opened_at", "opened_by", "policy", "single")

    def __init__(
        self,
        policy: Policy,
        keys: PolicyKeys,
        opened_by: CopyRole,
        opened_at: int,
        generation: int,
        room: Callable[[], int],
        *,
        single: bool,
    ) -> None:
        """`room`: how many opened mailbox keys, or site keys, may be kept at this moment."""
        self.policy = policy
        self.opened_by = opened_by
        self.opened_at = opened_at
        self.asked_at = opened_at
        self.generation = generation
        self.single = single
        self._keys = keys
        self._children: OrderedDict[tuple[str, int, bytes], MailboxKeys | SiteKeys] = OrderedDict()
        self._lock = threading.Lock()
        self._room = room

    @property
    def keys(self) -> PolicyKeys:
        """The wrap and look-up keys of the policy, for services that re-wrap many keys at once."""
        return self._keys

    def mailbox_keys(self, mailbox_id: str, version: int, wrapped: bytes) -> MailboxKeys:
        """Open a mailbox key, or take it from the children of this policy.

        Raises:
            IntegrityFailure: it was not wrapped by this policy's key for this mailbox and version.
        """
        opened = self._child(_MAILBOX_KEY, mailbox_id, version, wrapped)
        assert isinstance(opened, MailboxKeys), "a mailbox has an id of its own"
        return opened

    def new_mailbox_key(self, mailbox_id: str, version: int, random: RandomBytes) -> bytes:
        """A fresh mailbox key, wrapped; it is opened like any other when first used."""
        return self._new_child(_MAILBOX_KEY, mailbox_id, version, random)

    def site_keys(self, site_id: str, version: int, wrapped: bytes) -> SiteKeys:
        """Open a site key, or take it from the children of this policy.

        Raises:
            IntegrityFailure: it was not wrapped by this policy's key for this site and version.
        """
        opened = self._child(_SITE_KEY, site_id, version, wrapped)
        assert isinstance(opened, SiteKeys), "a site has an id of its own"
        return opened

    def new_site_key(self, site_id: str, version: int, random: RandomBytes) -> bytes:
        """A fresh site key, wrapped; it is opened like any other when first used."""
        return self._new_child(_SITE_KEY, site_id, version, random)

    def _child(self, kind: _ChildKind, holder_id: str, version: int, wrapped: bytes) -> MailboxKeys | SiteKeys:
        """A key below this policy.

        It is known by its wrapped bytes too: a key that was made here and whose commit was lost must never be taken for the one that was
        then stored under the same version, by this process or another. What was sealed under it would open for nobody.
        """
        name = (holder_id, version, wrapped)
        with self._lock:
            found = self._children.get(name)
            if found is not None:
                self._children.move_to_end(name)
                return found
        key = unwrap(
            self._keys.wrap,
            wrapped,
            parent_id=self.policy.id,
            parent_version=POLICY_KEY_VERSION,
            context=kind.context(self.policy.tenant_id, holder_id, version, self.policy.id, POLICY_KEY_VERSION),
            object_name=f"{kind.name} {holder_id} version {version}",
        )
        opened = kind.expand(key)
        with self._lock:
            self._children[name] = opened
            while len(self._children) > self._room():
                self._children.popitem(last=False)
        return opened

    def _new_child(self, kind: _ChildKind, holder_id: str, version: int, random: RandomBytes) -> bytes:
        return wrap(
            self._keys.wrap,
            SecretKey(random(KEY_BYTES)),
            parent_id=self.policy.id,
            parent_version=POLICY_KEY_VERSION,
            context=kind.context(self.policy.tenant_id, holder_id, version, self.policy.id, POLICY_KEY_VERSION),
            nonce=random(NONCE_BYTES),
        )


@dataclass(frozen=True, slots=True)
class Answer:
    """What one customer key answered. `key` only for a checked success, and only within the call that asked."""

    role: CopyRole
    key_uri: str
    outcome: Outcome
    key: SecretKey | None = None


@dataclass(frozen=True, slots=True)
class KeyHealth:
    """Live health of one copy."""

    role: CopyRole
    key_uri: str
    outcome: Outcome


class Keyring:
    """One per process. Threads may share it: opening is single-flight per policy."""

    def __init__(
        self,
        db: Database,
        keystore: KeyStore,
        vaults: Vaults,
        clock: Clock,
        random: RandomBytes,
        settings: Settings,
        owner: str,
        tally: Tally | None = None,
    ) -> None:
        self._db = db
        self._means = Basics(clock, random, settings)
        self._keystore = keystore
        self._vaults = vaults
        self._clock = clock
        self._random = random
        self._settings = settings
        self._owner = owner
        self._tally = tally or Tally()
        grace = settings.mixed_grace_intervals * settings.probe_interval
        self._limits = {
            Family.MAIL: Limits(max_age=settings.mail_max_age, mixed_grace=grace),
            Family.FILES: Limits(max_age=settings.files_max_age, mixed_grace=grace),
        }
        self._open: dict[str, OpenPolicy] = {}
        self._locks: dict[str, threading.Lock] = {}
        self._guard = threading.Lock()
        self._pool = ThreadPoolExecutor(max_workers=ASKING_THREADS, thread_name_prefix="unwrap")

    def close(self) -> None:
        """Forget every key and stop asking."""
        self._open.clear()
        self._pool.shutdown(wait=True)

    def _room(self) -> int:
        """How many mailbox keys, or site keys, one policy may keep opened now."""
        return max(LEAST_CHILDREN, MAX_CHILDREN // max(1, len(self._open)))

    def max_age(self, workload: Workload) -> int:
        """Outage tolerance of a workload, in milliseconds."""
        return self._limits[_family(workload)].max_age

    def _decide(self, policy: Policy, operation: Operation, state: PolicyState, cached: CachedKey | None) -> Decision:
        family = _family(policy.workload)
        return decide(family, operation, _pair(state), cached, self._limits[family])

    # -- opening ------------------------------------------------------------------------------------------------------------------

    def open(self, policy_id: str, operation: Operation, *, request_id: str, state: PolicyState | None = None) -> OpenPolicy:
        """Open a policy's key for an operation, or take it from the cache.

        Args:
            policy_id: the policy.
            operation: who receives the content.
            request_id: id of the call or job, for the log.
            state: the policy's state where the caller has just read it.

        Raises:
            KeyDenied: the customer's keys said no.
            IntegrityFailure: a copy is not what was written, and no other opened.
            Unavailable: the key store or database did not answer.
        """
        cached = self._open.get(policy_id)
        if cached is not None and cached.policy.workload is Workload.PROVIDER:
            return cached
        if cached is not None:
            usable = self._usable(cached, operation, state or self._state(policy_id))
            if usable is not None:
                return usable
        with self._lock_of(policy_id):
            return self._open_alone(policy_id, operation, request_id)

    def recheck(self, opened: OpenPolicy, operation: Operation, *, request_id: str) -> OpenPolicy:
        """For long streams and jobs, before each part: the same key, if it may still be used.

        Raises: as `open`.
        """
        if opened.single and self._clock.now() - opened.opened_at <= self._settings.probe_interval:
            return opened
        return self.open(opened.policy.id, operation, request_id=request_id)

    def _usable(self, cached: OpenPolicy, operation: Operation, state: PolicyState) -> OpenPolicy | None:
        """The cached key, if the latest pair allows it; None when somebody must be asked."""
        if cached.generation != state.generation:
            self._open.pop(cached.policy.id, None)
            return None
        now = self._clock.now()
        if not 0 <= now - cached.asked_at <= 2 * self.max_age(cached.policy.workload):
            # Till here others were believed: one maximum age of their successes, one of faults. But the state row may also be the
            # word of somebody who merely can write to the database, so it does not keep a key alive for ever.
            self._open.pop(cached.policy.id, None)
            return None
        if self._too_old(cached, state, now):
            return None
        newer = state.probed_at > cached.opened_at
        if cached.opened_by is CopyRole.AVAILABILITY:
            allowed = not newer and set(_pair(state)) == {OutcomeClass.SYSTEM_ERROR}
            if not allowed:
                self._open.pop(cached.policy.id, None)  # a newer pair has come in: an entry of the availability key ends here
        else:
            allowed = not newer or self._allows_cached(cached, operation, state, now)
        return cached if allowed else None

    def _too_old(self, cached: OpenPolicy, state: PolicyState, now: int) -> bool:
        """Whether the last answer is older than a probe interval, or lies in the future: then the clock was set back, and nothing is known."""
        return not 0 <= now - max(cached.opened_at, state.probed_at) <= self._settings.probe_interval

    def _allows_cached(self, cached: OpenPolicy, operation: Operation, state: PolicyState, now: int) -> bool:
        age = now - max(cached.opened_at, state.succeeded_at)
        mixed_for = now - state.mixed_since if state.mixed_since else 0
        known = CachedKey(age, mixed_for) if age >= 0 and mixed_for >= 0 else None  # a time in the future proves no age
        decision = self._decide(cached.policy, operation, state, known)
        return decision.verdict in {Verdict.USE_CUSTOMER_KEY, Verdict.USE_CACHED}

    def _open_alone(self, policy_id: str, operation: Operation, request_id: str) -> OpenPolicy:
        """Under the policy's lock: what another thread has just opened, or ask."""
        with self._db.read() as tx:
            policy = tx.policies.by_id(policy_id)
            if policy is None:
                raise _no_policy(policy_id)
            copies = copies_of(tx, policy)
            state = tx.policies.state(policy_id)
        if policy.workload is Workload.PROVIDER:
            return self._open_provider(policy, copies)
        cached = self._open.get(policy_id)
        if cached is not None:
            usable = self._usable(cached, operation, state)
            if usable is not None:
                return usable
            cached = self._open.get(policy_id)
        if cached is not None and cached.opened_by is not CopyRole.AVAILABILITY:
            return self._open_after_probe(policy, copies, state, cached, operation, request_id)
        return self._open_cold(policy, copies, state, operation, request_id)

    def _open_after_probe(
        self,
        policy: Policy,
        copies: dict[CopyRole, PolicyCopy],
        state: PolicyState,
        cached: OpenPolicy,
        operation: Operation,
        request_id: str,
    ) -> OpenPolicy:
        """There is a cached key whose last answer is too old, or that the latest pair does not allow."""
        if self._too_old(cached, state, self._clock.now()):
            state = self._probe(policy, copies, state)
        if cached.generation != state.generation:
            self._open.pop(policy.id, None)
        elif OutcomeClass.SUCCESS in _pair(state):
            cached.opened_at = state.succeeded_at
            return cached
        elif self._allows_cached(cached, operation, state, self._clock.now()):
            return cached
        if OutcomeClass.SUCCESS in _pair(state):
            return self._open_cold(policy, copies, state, operation, request_id)
        return self._without_customer_keys(policy, copies, state, operation, request_id)

    def _open_cold(
        self, policy: Policy, copies: dict[CopyRole, PolicyCopy], state: PolicyState, operation: Operation, request_id: str
    ) -> OpenPolicy:
        """Nothing is cached: ask one key at random, then the other."""
        asked_at = self._clock.now()  # what is true at the time of asking may have ended by the time of the answer
        seen = state
        roles = list(CUSTOMER_ROLES)
        if self._random(1)[0] & 1:
            roles.reverse()
        files = policy.workload is Workload.FILES
        answers = self._ask_racing(policy, copies, roles) if files else self._ask_in_turn(policy, copies, roles)
        success = _success(answers)
        if (
            success is not None
            and len(answers) == 1
            and _state_outcome(state, success.role) is not OutcomeClass.SUCCESS
            and state.probed_at
        ):
            other = next(role for role in roles if role is not success.role)
            answers.append(self._ask(policy, copies[other]))  # the last pair on record was worse: find out how things are now
        if success is None:
            answers = self._confirmed(policy, copies, state, answers)
            success = _success(answers)
        if len(answers) == len(CUSTOMER_ROLES):
            state = self._write_pair(policy, answers, seen, asked_at)
        if success is not None and success.key is not None:
            # The generation of before the asking: where a denial was written meanwhile, this entry is evicted before its next use.
            opened = OpenPolicy(policy, expand_policy_key(success.key), success.role, asked_at, seen.generation, self._room, single=False)
            self._open[policy.id] = opened
            self._mend_rotten(policy, copies, answers, success.key)
            return opened
        self._open.pop(policy.id, None)
        return self._without_customer_keys(policy, copies, state, operation, request_id)

    def _without_customer_keys(
        self, policy: Policy, copies: dict[CopyRole, PolicyCopy], state: PolicyState, operation: Operation, request_id: str
    ) -> OpenPolicy:
        """Neither customer key opened and no cached key may serve: the availability key, or no."""
        decision = self._decide(policy, operation, state, None)
        if decision.verdict is Verdict.USE_AVAILABILITY_KEY:
            faults_only = set(_pair(state)) == {OutcomeClass.SYSTEM_ERROR}
            return self._open_availability(policy, copies[CopyRole.AVAILABILITY], state, request_id, single=not faults_only)
        said = f"primary {state.primary} ({state.primary_reason}), secondary {state.secondary} ({state.secondary_reason})"
        if decision.verdict is Verdict.REFUSE_INTEGRITY:
            raise IntegrityFailure(
                "policy_key_damaged",
                f"no copy of the key of the policy {policy.name} opens: {said}",
                "restore the policy's rows from a backup",
            )
        if decision.verdict is Verdict.UNAVAILABLE:
            raise Unavailable(
                "vault_unavailable",
                f"no key vault answers for the policy {policy.name}, and files are never opened with the availability key: {said}",
                "try again when a vault can be reached",
            )
        raise KeyDenied(
            "denied_by_customer_key",
            f"the customer's keys of the policy {policy.name} refuse the service: {said}",
            "the customer can give access back: keystead vault access grant, key enable, or key recover",
        )

    def _open_availability(self, policy: Policy, copy: PolicyCopy, state: PolicyState, request_id: str, *, single: bool) -> OpenPolicy:
        """Use the availability key: the record is durable before the key is touched."""
        with self._db.write() as tx:
            record_system(
                self._means,
                tx,
                policy.tenant_id,
                FALLBACK,
                policy.id,
                (("Policy Id", policy.id), ("Scope Key Version Id", policy.version_id), ("Request Id", request_id)),
                record_type=RecordType.CUSTOMER_KEY,
                request_id=request_id,
            )
        cause = "denial" if single else "outage"
        self._tally.count(Counted.AVAILABILITY_KEY_USE, cause)
        _log.warning(
            "the availability key is used",
            extra={"tenant_id": policy.tenant_id, "policy_id": policy.id, "cause": cause, "request_id": request_id},
        )
        # A crash here leaves a record of a use that did not come about: the safe side.
        key = self._unwrap_availability(policy, copy)
        opened_at = self._clock.now() if single else state.probed_at  # what users may share ends with the pair that allows it
        opened = OpenPolicy(policy, expand_policy_key(key), CopyRole.AVAILABILITY, opened_at, state.generation, self._room, single=single)
        if not single:
            self._open[policy.id] = opened
        return opened

    def _unwrap_availability(self, policy: Policy, copy: PolicyCopy) -> SecretKey:
        try:
            return self._unwrap_stored(policy, copy, availability_compartment(policy.workload), policy.availability_key_id)
        except NotFound as error:
            raise KeyDenied(
                "availability_key_destroyed",
                f"the availability key of the policy {policy.name} was destroyed, and the customer's keys do not open",
                "",
            ) from error

    def _open_provider(self, policy: Policy, copies: dict[CopyRole, PolicyCopy]) -> OpenPolicy:
        """The provider's default policy: its key is wrapped by the provider's root key alone (R-252)."""
        key = self._unwrap_stored(policy, copies[CopyRole.PROVIDER], Compartment.PROVIDER, policy.id)
        opened = OpenPolicy(policy, expand_policy_key(key), CopyRole.PROVIDER, self._clock.now(), 0, self._room, single=False)
        self._open[policy.id] = opened
        return opened

    # -- asking -------------------------------------------------------------------------------------------------------------------

    def _ask(self, policy: Policy, copy: PolicyCopy) -> Answer:
        """Ask one customer key: envelope, unwrapKey, length, check value. Any mismatch is an integrity outcome, never a denial."""

        def answer(outcome: Outcome, key: SecretKey | None = None) -> Answer:
            self._tally.count(Counted.CUSTOMER_KEY_ANSWER, outcome.kind.value)
            return Answer(copy.role, copy.key_uri, outcome, key)

        try:
            envelope = self._open_envelope(policy, copy)
        except IntegrityFailure:
            return answer(Outcome(OutcomeClass.INTEGRITY, "envelope-mismatch"))
        try:
            material = self._vaults.unwrap(policy.tenant_id, _application(policy.workload), copy.key_uri, envelope.wrapped)
        except VaultFailure as failure:
            return answer(failure.outcome)
        if len(material) != KEY_BYTES:
            return answer(Outcome(OutcomeClass.INTEGRITY, "wrong-length"))
        key = SecretKey(material)
        try:
            check_matches(policy.check_value, expand_policy_key(key), policy_name=policy.name)
        except IntegrityFailure:
            return answer(Outcome(OutcomeClass.INTEGRITY, "check-value-mismatch"))
        return answer(SUCCESS, key)

    def _ask_in_turn(self, policy: Policy, copies: dict[CopyRole, PolicyCopy], roles: Sequence[CopyRole]) -> list[Answer]:
        """The second key only when the first fails (R-142, R-143)."""
        answers = [self._ask(policy, copies[roles[0]])]
        if answers[0].key is None:
            answers.append(self._ask(policy, copies[roles[1]]))
        return answers

    def _ask_racing(self, policy: Policy, copies: dict[CopyRole, PolicyCopy], roles: Sequence[CopyRole]) -> list[Answer]:
        """Both keys, the second a little later, or at once when the first has failed (R-116).

        Returns:
            The first checked success alone, or both answers. Whoever answers after a success is not waited for and not listened to: a
            request under way cannot be taken back, and one that has not begun is not sent.
        """
        asked = [self._pool.submit(self._ask, policy, copies[roles[0]])]
        wait(asked, timeout=self._settings.file_ask_offset / 1_000)
        if not asked[0].done() or asked[0].result().key is None:
            asked.append(self._pool.submit(self._ask, policy, copies[roles[1]]))
        pending = set(asked)
        answers: list[Answer] = []
        while pending:
            answered, pending = wait(pending, return_when=FIRST_COMPLETED)
            answers += [future.result() for future in answered]
            success = _success(answers)
            if success is not None and pending:
                for loser in pending:
                    loser.cancel()
                return [success]
        return answers

    def _ask_both(self, policy: Policy, copies: dict[CopyRole, PolicyCopy]) -> list[Answer]:
        return list(self._pool.map(lambda role: self._ask(policy, copies[role]), CUSTOMER_ROLES))

    def _confirmed(self, policy: Policy, copies: dict[CopyRole, PolicyCopy], state: PolicyState, answers: list[Answer]) -> list[Answer]:
        """A first denial of both keys is asked once more: a hiccup while permissions change must not lock a tenant out.

        Only an answer takes a denial back. A vault that cannot be reached a moment later does not turn a no into a fault.
        """
        if any(answer.outcome.kind is not OutcomeClass.DENIED for answer in answers) or set(_pair(state)) == {OutcomeClass.DENIED}:
            return answers
        self._clock.sleep(self._settings.denial_confirm)
        first = {answer.role: answer for answer in answers}
        again = self._ask_both(policy, copies)
        return [first[answer.role] if answer.outcome.kind is OutcomeClass.SYSTEM_ERROR else answer for answer in again]

    def _probe(self, policy: Policy, copies: dict[CopyRole, PolicyCopy], state: PolicyState) -> PolicyState:
        """A new pair: asked by this process, or waited for while another one asks for all."""
        deadline = self._clock.now() + self._settings.probe_lease
        while True:
            now = self._clock.now()
            with self._db.write() as tx:
                leader = tx.policies.take_probe_lease(policy.id, self._owner, now, now + self._settings.probe_lease)
            if leader or now >= deadline:
                break
            self._clock.sleep(50)
            newer = self._state(policy.id)
            if newer.probed_at != state.probed_at:
                return newer
        try:
            return self._ask_and_write(policy, copies, state)[0]
        finally:
            with self._db.write() as tx:
                tx.policies.release_probe_lease(policy.id, self._owner)

    def _ask_and_write(self, policy: Policy, copies: dict[CopyRole, PolicyCopy], seen: PolicyState) -> tuple[PolicyState, list[Answer]]:
        """Ask both keys, share what they said, and mend a copy that has rotted."""
        asked_at = self._clock.now()
        answers = self._confirmed(policy, copies, seen, self._ask_both(policy, copies))
        written = self._write_pair(policy, answers, seen, asked_at)
        success = _success(answers)
        if success is not None and success.key is not None:
            cached = self._open.get(policy.id)
            if cached is not None and cached.opened_by is not CopyRole.AVAILABILITY:
                cached.asked_at = asked_at
            self._mend_rotten(policy, copies, answers, success.key)
        return written, answers

    def _write_pair(self, policy: Policy, answers: Sequence[Answer], seen: PolicyState, asked_at: int) -> PolicyState:
        """Share a pair of outcomes with every process, and raise or resolve the alerts that follow from it.

        Args:
            policy: the policy.
            answers: of both keys.
            seen: the state before they were asked. Where a denial was written since, it is the later word, and this pair is dropped: a
                process that was held up between asking and writing must not undo it.
            asked_at: from then on the pair counts; by the time of the answer it may be old.

        Returns:
            The state that now holds.
        """
        now = self._clock.now()
        by_role = {answer.role: answer for answer in answers}
        primary, secondary = by_role[CopyRole.PRIMARY].outcome, by_role[CopyRole.SECONDARY].outcome
        kinds = (primary.kind, secondary.kind)
        mixed = set(kinds) == {OutcomeClass.DENIED, OutcomeClass.SYSTEM_ERROR}
        family = _family(policy.workload)
        evict = decide(family, Operation.USER, kinds, None, self._limits[family]).evict
        with self._db.write() as tx:
            old = tx.policies.state(policy.id)
            if old.generation != seen.generation and not evict:
                return old
            state = replace(
                old,
                generation=old.generation + (1 if evict else 0),
                probed_at=asked_at,
                succeeded_at=asked_at if OutcomeClass.SUCCESS in kinds else old.succeeded_at,
                mixed_since=(old.mixed_since or now) if mixed else 0,
                primary=primary.kind.value,
                primary_reason=primary.reason,
                secondary=secondary.kind.value,
                secondary_reason=secondary.reason,
            )
            tx.policies.save_state(state)
            last = max(state.succeeded_at, self._opened_at(policy.id))
            near_expiry = last and now - last >= self.max_age(policy.workload) - self._settings.renew_before
            wanted = _alerts_for(kinds, near_expiry=bool(near_expiry))
            gone = [kind for kind in KEY_KINDS if kind not in wanted]
            resolve_alerts(self._means, tx, policy.tenant_id, policy.id, gone)
            geo = tx.sites.geo_of_policy(policy.id) if wanted and policy.workload is Workload.FILES else None
            detail = (f"geo {geo.geo}: " if geo else "") + f"primary {primary}, secondary {secondary}"
            for kind in wanted:
                raise_alert(self._means, tx, Condition(policy.tenant_id, kind, policy.id, detail))
        _log_change(policy, old, state)
        return state

    def _opened_at(self, policy_id: str) -> int:
        """When a customer key last answered for the cached key; 0 without one. One that opened at the first question left no pair behind."""
        cached = self._open.get(policy_id)
        return cached.opened_at if cached is not None and cached.opened_by is not CopyRole.AVAILABILITY else 0

    def _state(self, policy_id: str) -> PolicyState:
        """Raises: `NotFound` for a policy that is gone: a TIK after the roll that replaced it."""
        with self._db.read() as tx:
            try:
                return tx.policies.state(policy_id)
            except IntegrityFailure:
                if tx.policies.by_id(policy_id) is not None:
                    raise
        self._open.pop(policy_id, None)
        raise _no_policy(policy_id)

    def _lock_of(self, policy_id: str) -> threading.Lock:
        with self._guard:
            return self._locks.setdefault(policy_id, threading.Lock())

    # -- health -------------------------------------------------------------------------------------------------------------------

    def probe_now(self, policy: Policy) -> tuple[Health, list[KeyHealth]]:
        """Ask both keys now, whatever is cached; the pair counts for everybody (R-147, R-256)."""
        with self._lock_of(policy.id):
            with self._db.read() as tx:
                copies = copies_of(tx, policy)
                state = tx.policies.state(policy.id)
            _written, answers = self._ask_and_write(policy, copies, state)
        return health(answer.outcome.kind for answer in answers), [
            KeyHealth(answer.role, answer.key_uri, answer.outcome) for answer in answers
        ]

    def held(self) -> Mapping[CopyRole, int]:
        """How many policy keys this process holds, by the role of the copy they came from."""
        return Counter(one.opened_by for one in list(self._open.values()))

    def opened(self) -> list[OpenPolicy]:
        """The policies whose key this process holds from a customer key."""
        return [one for one in list(self._open.values()) if one.opened_by in CUSTOMER_ROLES]

    def renew(self, policy_id: str) -> None:
        """Ask both keys of a policy though nobody uses it, unless somebody has just done so: to renew what is cached, or to raise the alert.

        Raises:
            IntegrityFailure: the policy's rows are not what was written.
            Unavailable: the key store or database did not answer.
        """
        with self._lock_of(policy_id):
            with self._db.read() as tx:
                policy = tx.policies.by_id(policy_id)
                if policy is None:
                    return
                copies = copies_of(tx, policy)
                state = tx.policies.state(policy_id)
            if not 0 <= self._clock.now() - state.probed_at <= self._settings.probe_interval:
                self._probe(policy, copies, state)

    # -- making, re-wrapping, mending ---------------------------------------------------------------------------------------------

    def fresh_policy_key(self) -> SecretKey:
        """32 random bytes from the operating system (R-079)."""
        return SecretKey(self._random(KEY_BYTES))

    def check_value(self, key: SecretKey) -> bytes:
        """The one-way check stored beside a policy."""
        return expand_policy_key(key).check

    def wrap_customer(self, policy: Policy, version_id: str, role: CopyRole, key_uri: str, key: SecretKey) -> PolicyCopy:
        """Have a vault wrap the policy key with the current version of one customer key, and put the copy into its envelope.

        Raises:
            VaultFailure: the vault did not.
        """
        wrapped = self._vaults.wrap(policy.tenant_id, _application(policy.workload), key_uri, key_bytes(key))
        return self._sealed_copy(policy, version_id, role, Envelope(WrapAlgorithm.RSA_OAEP_256, wrapped.key_uri, wrapped.value))

    def wrap_stored(self, policy: Policy, version_id: str, role: CopyRole, key_id: str, key: SecretKey) -> PolicyCopy:
        """Have the key store wrap the policy key: the availability copy, or the provider's."""
        compartment, prefix = (
            (Compartment.PROVIDER, PROVIDER) if role is CopyRole.PROVIDER else (availability_compartment(policy.workload), AVAILABILITY)
        )
        context = keystore_context(policy.tenant_id, policy.id, version_id, role.value)
        box = self._keystore.seal(compartment, key_id, key_bytes(key), context.encode())
        return self._sealed_copy(policy, version_id, role, Envelope(WrapAlgorithm.AVAILABILITY, prefix + key_id, box))

    def recover_policy_key(self, policy: Policy, copies: dict[CopyRole, PolicyCopy]) -> SecretKey:
        """The policy key itself, from the customer's keys alone, for making new copies of it.

        Raises:
            KeyDenied, Unavailable, IntegrityFailure: neither customer key opened.
        """
        answers: list[Answer] = []
        for role in CUSTOMER_ROLES:
            answers.append(self._ask(policy, copies[role]))
            if answers[-1].key is not None:
                break
        key = answers[-1].key
        if key is None:
            raise_for(answers[0].outcome, f"the policy {policy.name}")
        return key

    def recover_by_instruction(self, policy: Policy, copies: dict[CopyRole, PolicyCopy]) -> SecretKey:
        """The TIK, from its availability copy: for a recovery that the customer has asked for and that is on the log already (R-124, R-126).

        Nothing else opens a files policy's availability copy, and nothing of it is kept here.

        Raises:
            KeyDenied: the availability key was destroyed.
            IntegrityFailure: the copy is not what was written.
        """
        assert policy.workload is Workload.FILES, "mail has its own rules for the availability key"
        self._tally.count(Counted.AVAILABILITY_KEY_USE, "recovery")
        _log.warning("the availability key is used", extra={"tenant_id": policy.tenant_id, "policy_id": policy.id, "cause": "recovery"})
        return self._unwrap_availability(policy, copies[CopyRole.AVAILABILITY])

    def round_trip(self, tenant_id: str, key_uri: str, workload: Workload = Workload.MAIL) -> Outcome:
        """Wrap and unwrap 32 random bytes with a key, as the service would; SUCCESS when they come back (R-074). A reason names the step."""
        trial = self._random(KEY_BYTES)
        application = _application(workload)
        step = "wrapKey"
        try:
            wrapped = self._vaults.wrap(tenant_id, application, key_uri, trial)
            step = "unwrapKey"
            back = self._vaults.unwrap(tenant_id, application, wrapped.key_uri, wrapped.value)
        except VaultFailure as failure:
            return Outcome(failure.outcome.kind, f"{step}: {failure.outcome.reason}")
        return (
            SUCCESS
            if SecretKey(trial) == SecretKey(back.ljust(KEY_BYTES, b"\0")[:KEY_BYTES]) and len(back) == KEY_BYTES
            else Outcome(OutcomeClass.INTEGRITY, "wrong-bytes")
        )

    def _mend_rotten(self, policy: Policy, copies: dict[CopyRole, PolicyCopy], answers: Sequence[Answer], key: SecretKey) -> None:
        """Re-wrap a copy that does not open though its vault answers, while the other one does (decision table, first row)."""
        for answer in answers:
            if answer.outcome.kind is not OutcomeClass.INTEGRITY:
                continue
            if len({_vault_of(copies[role].key_uri) for role in CUSTOMER_ROLES}) == 1:
                continue  # nothing vouches for the name on a damaged copy: never let it bring both copies into one vault
            try:
                mended = self.wrap_customer(policy, policy.version_id, answer.role, copies[answer.role].key_uri, key)
            except VaultFailure:
                continue  # the next probe tries again; the alert stays
            with self._db.write() as tx:
                if tx.policies.replace_copy(mended, expected_uri=copies[answer.role].key_uri):
                    record_system(
                        self._means,
                        tx,
                        policy.tenant_id,
                        "Repair-DataEncryptionPolicyCopy",
                        policy.id,
                        (("Role", answer.role.value), ("KeyUri", mended.key_uri), ("Outcome", answer.outcome.reason)),
                    )

    def _sealed_copy(self, policy: Policy, version_id: str, role: CopyRole, envelope: Envelope) -> PolicyCopy:
        context = envelope_context(policy.tenant_id, policy.id, version_id, role.value, envelope.key_uri, envelope.algorithm.value)
        box = self._keystore.seal(Compartment.SHRED, policy.shred_key_id, encode(envelope), context.encode())
        return PolicyCopy(version_id, role, envelope.key_uri, envelope.algorithm.value, box)

    def _open_envelope(self, policy: Policy, copy: PolicyCopy) -> Envelope:
        """Raises IntegrityFailure when the copy was changed, swapped, rolled back, or its shred key was destroyed."""
        context = envelope_context(policy.tenant_id, policy.id, policy.version_id, copy.role.value, copy.key_uri, copy.algorithm)
        name = f"{copy.role} copy of {policy.name}"
        try:
            inner = self._keystore.open(Compartment.SHRED, policy.shred_key_id, copy.envelope, context.encode())
        except NotFound as error:
            raise IntegrityFailure(
                "shred_key_destroyed", f"the {name} was destroyed with its shred key", "nothing opens it any more"
            ) from error
        envelope = decode(inner, object_name=name)
        if envelope.key_uri != copy.key_uri or envelope.algorithm.value != copy.algorithm:
            raise IntegrityFailure("envelope_damaged", f"the {name} is not what was written", "restore the policy's rows from a backup")
        return envelope

    def _alert_key_store(self, policy: Policy, detail: str) -> None:
        """R-153: what the key store refuses was not sealed by the service, or was changed."""
        with self._db.write() as tx:
            raise_alert(self._means, tx, Condition(policy.tenant_id, AlertKind.KEY_STORE, policy.id, detail))

    def _unwrap_stored(self, policy: Policy, copy: PolicyCopy, compartment: Compartment, key_id: str) -> SecretKey:
        envelope = self._open_envelope(policy, copy)
        context = keystore_context(policy.tenant_id, policy.id, policy.version_id, copy.role.value)
        try:
            key = SecretKey(self._keystore.open(compartment, key_id, envelope.wrapped, context.encode()))
        except IntegrityFailure as error:
            self._alert_key_store(policy, f"a value of the compartment {compartment} did not open: {error.code}")
            raise
        check_matches(policy.check_value, expand_policy_key(key), policy_name=policy.name)
        return key


def _no_policy(policy_id: str) -> NotFound:
    return NotFound("policy_not_found", f"there is no policy {policy_id}", "keystead policy list shows the tenant's policies")


def _family(workload: Workload) -> Family:
    return Family.FILES if workload is Workload.FILES else Family.MAIL


def _application(workload: Workload) -> str:
    """As whom the service asks: distinct per workload (R-014)."""
    return APPLICATIONS[_family(workload).value]


def availability_compartment(workload: Workload) -> Compartment:
    """Where the availability keys of a workload lie (R-139, R-140)."""
    return Compartment.AVAILABILITY_FILES if workload is Workload.FILES else Compartment.AVAILABILITY_MAIL


def _alerts_for(kinds: tuple[OutcomeClass, OutcomeClass], *, near_expiry: bool) -> list[AlertKind]:
    """Which conditions a pair of outcomes is."""
    if set(kinds) == {OutcomeClass.SUCCESS}:
        return []
    wanted = [AlertKind.KEY_INTEGRITY] if OutcomeClass.INTEGRITY in kinds else []
    if OutcomeClass.SUCCESS in kinds:
        return [*wanted, AlertKind.KEY_DEGRADED]
    if OutcomeClass.DENIED in kinds:
        wanted.append(AlertKind.KEY_DENIED)
    if OutcomeClass.SYSTEM_ERROR in kinds:
        wanted.append(AlertKind.KEY_UNREACHABLE)
        if near_expiry:
            wanted.append(AlertKind.CACHE_NEAR_EXPIRY)
    return wanted


def copies_of(tx: Tx, policy: Policy) -> dict[CopyRole, PolicyCopy]:
    """The wrapped copies of a policy's key, by role.

    Raises:
        IntegrityFailure: one that every policy of its kind has is missing.
    """
    copies = {copy.role: copy for copy in tx.policies.copies(policy.version_id)}
    wanted = (CopyRole.PROVIDER,) if policy.workload is Workload.PROVIDER else (*CUSTOMER_ROLES, CopyRole.AVAILABILITY)
    for role in wanted:
        if role not in copies:
            raise IntegrityFailure(
                "policy_copy_missing", f"the {role} copy of the policy {policy.name} is missing", "restore the policy's rows from a backup"
            )
    return copies


def _log_change(policy: Policy, before: PolicyState, after: PolicyState) -> None:
    """Say when the health of a policy's keys has changed; that they are well is said when they were not."""
    was = health(_pair(before)) if _pair(before) else Health.HEALTHY
    now = health(_pair(after))
    if was is now:
        return
    _log.log(
        logging.INFO if now is Health.HEALTHY else logging.WARNING,
        "the keys of a policy have recovered" if now is Health.HEALTHY else "the keys of a policy are %s",
        *(() if now is Health.HEALTHY else (now.value,)),
        extra={
            "tenant_id": policy.tenant_id,
            "policy_id": policy.id,
            "was": was.value,
            "primary": f"{after.primary} {after.primary_reason}".strip(),
            "secondary": f"{after.secondary} {after.secondary_reason}".strip(),
        },
    )


def _pair(state: PolicyState) -> tuple[OutcomeClass, ...]:
    """The latest pair; empty when there was none yet."""
    return tuple(OutcomeClass(kind) for kind in (state.primary, state.secondary) if kind)


def _state_outcome(state: PolicyState, role: CopyRole) -> OutcomeClass | None:
    kind = state.primary if role is CopyRole.PRIMARY else state.secondary
    return OutcomeClass(kind) if kind else None


def _vault_of(key_uri: str) -> str:
    """What two keys of one vault have in common; total, since the name on a damaged copy can be anything."""
    return key_uri.lower().partition("/keys/")[0]


def _success(answers: Sequence[Answer]) -> Answer | None:
    return next((answer for answer in answers if answer.key is not None), None)


def raise_for(outcome: Outcome, what: str) -> NoReturn:
    """Turn an outcome that is not a success into the error for people.

    Raises:
        KeyDenied: the customer's side refused.
        Unavailable: the vault could not be reached.
        IntegrityFailure: what came back is wrong.
    """
    if outcome.kind is OutcomeClass.DENIED:
        raise KeyDenied(
            "denied_by_customer_key",
            f"the key vault refused the service for {what}: {outcome.reason}",
            "the customer can grant access: keystead vault access grant",
        )
    if outcome.kind is OutcomeClass.SYSTEM_ERROR:
        raise Unavailable(
            "vault_unavailable", f"the key vault did not answer for {what}: {outcome.reason}", "try again when the vault can be reached"
        )
    raise IntegrityFailure(
        "vault_answer_wrong", f"the key vault's answer for {what} is wrong: {outcome.reason}", "check the vault and the policy's copies"
    )
