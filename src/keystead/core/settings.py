"""Every number that somebody may want to change, with its unit, its default and where the default comes from.

Times are milliseconds. Values are read by `keystead.settings` from the home's settings file, the environment and the database.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

_SECOND = 1_000
_MINUTE = 60 * _SECOND
_HOUR = 60 * _MINUTE
_DAY = 24 * _HOUR


@dataclass(frozen=True, slots=True)
class Settings:
    """The effective settings.

    Attributes:
        mail_max_age: outage tolerance: how long a cached policy key rides out vaults that cannot be reached (design section 5).
        files_max_age: the same for the policy keys of files, after which nothing opens them but a customer key (R-117, R-120).
        file_ask_offset: how long after the first customer key of files the second is asked, unless the first has answered (R-116).
        renew_before: how long before the end of `mail_max_age` or `files_max_age` a key nobody uses is renewed, and an alert is raised while
            that fails (R-118, R-119).
        probe_interval: revocation delay: a cached key whose last answer is older is asked for again before use.
        denial_confirm: after how long a first denial of both keys is confirmed.
        mixed_grace_intervals: how many probe intervals a cached key serves after one key was denied and the other faulted.
        vault_timeout: for one vault call, all in all.
        probe_lease: how long one process may take to probe for the whole fleet.
        move_warning: when an unfinished change of hierarchy is flagged (R-093); move_escalation: when it is escalated (conflict C3).
        registration_warning: when an unfinished registration, roll, recovery or return of a geo's files is flagged (R-122).
        object_grace: how long replaced objects are kept for readers that still hold their place.
        orphan_grace: how old an object or key without a row must be to be collected.
        job_lease: how long a runner may be silent before another takes its job; slice_time: how long one slice may take.
        slice_items: items, and slice_bytes: bytes, that one slice of a move handles at most.
        rewrap_batch: mailboxes re-wrapped in one slice.
        max_item_bytes: largest item taken in (150 MiB, as large as mail systems of the field go).
        import_batch_bytes: how many bytes of small items, or of small files, one call carries.
        file_versions_kept: how many versions of a file are kept, the current one among them.
        max_file_bytes: largest file taken in (250 GiB, as large as the field's file services go).
        site_quota_bytes: how much the current versions of a new site's files may hold.
        claim_token_lifetime, token_lifetime: of tokens for new people, and for calls.
        service_token_lifetime: longest life of a program's token.
        access_token_lifetime: of the signed tokens that stored ones are exchanged for.
        clock_leeway: how far the clocks of whoever issues a token and ours may be apart.
        signing_key_lifetime: after how long access tokens are signed with a fresh key.
        issuer_keys_refresh: after how long the keys of a tenant's own sign-in provider are asked for again; issuer_keys_max_age: how long
            they serve while the provider cannot be reached; issuer_timeout: for one look at a provider, all in all.
        sign_in_free_attempts: failed sign-ins from an address, or at one token, before the next is made to wait.
        sign_in_delay: how long the first waits, doubling with each failure; sign_in_delay_max: how long one waits at most.
        sign_in_forget: after how long without a failure all is forgotten.
        alert_quiet: within what time hooks are told at most once of the same alert of the same subject.
        alert_recheck: how often a policy with a key alert is asked again though nobody uses it.
        alert_incident: how long an alert about something that happened stays open after the last time it did.
        worker_silence: how long jobs may be due, and workers silent, before an alert.
        hook_retry, hook_longest_wait: first and longest wait after a failed delivery to a hook; hook_give_up: after what time of failing an
            event is given up.
        vault_client_secret_lifetime: usual and longest life of a secret that a program signs in to key vaults with.
        vault_client_token_lifetime: of the access tokens it gets; vault_token_key_lifetime: after how long they are signed with a fresh key.
        vault_rate_percent: how many percent of the rate limits published for key vaults a vault has for calls over the network (R-066); 200
            is what newer publications give, 0 switches the limits off.
        record_owner_reads: record each item an owner reads in their own mailbox too.
        exchange_admin_manages_policies: whether Exchange administrators may run policy commands beside global administrators (R-008).
        unknown_facts_refuse: make a fact that a foreign vault does not tell a failed check instead of a warning (design section 6).
    """

    mail_max_age: int = 4 * _HOUR
    files_max_age: int = 24 * _HOUR
    file_ask_offset: int = 150
    renew_before: int = 2 * _HOUR
    probe_interval: int = 60 * _SECOND
    denial_confirm: int = 2 * _SECOND
    mixed_grace_intervals: int = 5
    vault_timeout: int = 5 * _SECOND
    probe_lease: int = 20 * _SECOND
    move_warning: int = 72 * _HOUR
    move_escalation: int = 7 * _DAY
    registration_warning: int = 4 * _HOUR
    object_grace: int = 1 * _HOUR
    orphan_grace: int = 24 * _HOUR
    job_lease: int = 30 * _SECOND
    slice_time: int = 2 * _SECOND
    slice_items: int = 2_000
    slice_bytes: int = 32 * 1024 * 1024
    rewrap_batch: int = 5_000
    max_item_bytes: int = 150 * 1024 * 1024
    import_batch_bytes: int = 7 * 1024 * 1024
    file_versions_kept: int = 100
    max_file_bytes: int = 250 * 1024**3
    site_quota_bytes: int = 1024**4
    claim_token_lifetime: int = 7 * _DAY
    token_lifetime: int = 90 * _DAY
    service_token_lifetime: int = 365 * _DAY
    access_token_lifetime: int = 15 * _MINUTE
    clock_leeway: int = 60 * _SECOND
    signing_key_lifetime: int = 30 * _DAY
    issuer_keys_refresh: int = 1 * _HOUR
    issuer_keys_max_age: int = 24 * _HOUR
    issuer_timeout: int = 5 * _SECOND
    sign_in_free_attempts: int = 10
    sign_in_delay: int = 1 * _SECOND
    sign_in_delay_max: int = 1 * _MINUTE
    sign_in_forget: int = 15 * _MINUTE
    alert_quiet: int = 1 * _HOUR
    alert_recheck: int = 15 * _MINUTE
    alert_incident: int = 1 * _DAY
    worker_silence: int = 10 * _MINUTE
    hook_retry: int = 10 * _SECOND
    hook_longest_wait: int = 1 * _HOUR
    hook_give_up: int = 1 * _DAY
    vault_client_secret_lifetime: int = 730 * _DAY
    vault_client_token_lifetime: int = 1 * _HOUR
    vault_token_key_lifetime: int = 30 * _DAY
    vault_rate_percent: int = 100
    record_owner_reads: bool = False
    exchange_admin_manages_policies: bool = True
    unknown_facts_refuse: bool = False


LIMITS: Mapping[str, tuple[int, int]] = {
    "mail_max_age": (0, 3 * _DAY),
    "files_max_age": (0, 3 * _DAY),
    "file_ask_offset": (0, 5 * _SECOND),
    "renew_before": (0, 3 * _DAY),
    "probe_interval": (100, 1 * _HOUR),
    "denial_confirm": (0, 1 * _MINUTE),
    "mixed_grace_intervals": (0, 60),
    "vault_timeout": (100, 1 * _MINUTE),
    "probe_lease": (1 * _SECOND, 5 * _MINUTE),
    "move_warning": (0, 365 * _DAY),
    "move_escalation": (0, 365 * _DAY),
    "registration_warning": (0, 365 * _DAY),
    "object_grace": (0, 30 * _DAY),
    "orphan_grace": (1 * _HOUR, 365 * _DAY),
    "job_lease": (5 * _SECOND, 1 * _HOUR),
    "slice_time": (10, 1 * _MINUTE),
    "slice_items": (1, 100_000),
    "slice_bytes": (1, 1024 * 1024 * 1024),
    "rewrap_batch": (1, 100_000),
    "max_item_bytes": (1024, 2 * 1024 * 1024 * 1024),
    "import_batch_bytes": (1024, 8 * 1024 * 1024),
    "file_versions_kept": (1, 10_000),
    "max_file_bytes": (1024, 256 * 1024**3),
    "site_quota_bytes": (0, 512 * 1024**4),
    "claim_token_lifetime": (1 * _MINUTE, 30 * _DAY),
    "token_lifetime": (1 * _MINUTE, 2 * 365 * _DAY),
    "service_token_lifetime": (1 * _MINUTE, 2 * 365 * _DAY),
    "access_token_lifetime": (10 * _SECOND, 1 * _HOUR),
    "clock_leeway": (0, 4 * _MINUTE),
    "signing_key_lifetime": (1 * _HOUR, 365 * _DAY),
    "issuer_keys_refresh": (1 * _MINUTE, 1 * _DAY),
    "issuer_keys_max_age": (1 * _MINUTE, 7 * _DAY),
    "issuer_timeout": (100, 30 * _SECOND),
    "sign_in_free_attempts": (1, 1_000),
    "sign_in_delay": (100, 1 * _MINUTE),
    "sign_in_delay_max": (1 * _SECOND, 1 * _HOUR),
    "sign_in_forget": (1 * _MINUTE, 1 * _DAY),
    "alert_quiet": (0, 30 * _DAY),
    "alert_recheck": (1 * _MINUTE, 1 * _DAY),
    "alert_incident": (1 * _MINUTE, 365 * _DAY),
    "worker_silence": (1 * _MINUTE, 30 * _DAY),
    "hook_retry": (1 * _SECOND, 1 * _HOUR),
    "hook_longest_wait": (1 * _SECOND, 1 * _DAY),
    "hook_give_up": (1 * _MINUTE, 30 * _DAY),
    "vault_client_secret_lifetime": (1 * _MINUTE, 3_650 * _DAY),
    "vault_client_token_lifetime": (1 * _MINUTE, 1 * _DAY),
    "vault_token_key_lifetime": (1 * _HOUR, 365 * _DAY),
    "vault_rate_percent": (0, 100_000),
}
"""Lowest and highest value of each number. Not a matter of taste: beyond them a promise ends (a revocation obeyed after a year), work stands
still (slices of nothing), or data is lost (an orphan collected while its import is under way)."""
