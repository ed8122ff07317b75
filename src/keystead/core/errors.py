"""Every error Keystead raises on purpose.

    KeysteadError                       code, detail, what to do next
    ├── InvalidRequest                  the request itself is wrong: a name, a size, a missing field
    ├── Unauthenticated                 nobody, or a token that is not (or no longer) good
    ├── Refused                         understood, and the answer is no
    │   ├── Forbidden                   this caller may not do this here (role, owner, another tenant)
    │   ├── Conflict                    something of that name or state is in the way
    │   ├── PreconditionFailed          a rule is not met: licence, state, limit
    │   │   └── ChecksFailed            several named checks, all reported at once
    │   └── KeyDenied                   the customer's own keys said no
    ├── NotFound                        no such tenant, vault, key, policy, mailbox, item
    ├── Unavailable                     a store or vault did not answer; the same call may work later
    │   └── Throttled                   too many calls or attempts from there; later is soon enough
    └── IntegrityFailure                bytes are not what was written; never other data instead

The text of an error is for the person who reads it: what happened, to what, and what to do. It holds ids and names
from the directory, never content and never key bytes. `keystead.api.errors` maps classes to HTTP and exit codes, in one place.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class FailedCheck:
    """One precondition that did not hold.

    `check` is its name in the documentation, `detail` what was found, `mend` the command or act that mends it.
    `subject` names what was checked (a key URI, a subscription), empty where the request as a whole was.
    """

    check: str
    detail: str
    mend: str
    subject: str = ""


class KeysteadError(Exception):
    """Base of all; raised itself only as `unexpected`, by a client whose server met a defect.

    Args:
        code: stable snake_case name of the cause, documented in docs/errors.md.
        detail: what happened, and to what.
        mend: what the reader can do next; may be empty where nothing can be done.
        inner_code: a second, narrower code where a protocol has one (Azure's innererror).
    """

    title = "Error"

    def __init__(self, code: str, detail: str, mend: str = "", *, inner_code: str = "") -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail
        self.mend = mend
        self.inner_code = inner_code

    def __str__(self) -> str:
        return f"{self.code}: {self.detail}" + (f"; {self.mend}" if self.mend else "")


class InvalidRequest(KeysteadError):
    """The request cannot be understood or breaks a stated limit; sending it again unchanged cannot help."""

    title = "Invalid request"


class Unauthenticated(KeysteadError):
    """No identity was shown, or the one shown is not good."""

    title = "Not signed in"


class Refused(KeysteadError):
    """Understood and refused."""

    title = "Refused"


class Forbidden(Refused):
    """The caller's roles, ownership or tenant do not allow this act."""

    title = "Not allowed"


class Conflict(Refused):
    """Something of that name, or the present state, stands in the way."""

    title = "Conflict"


class PreconditionFailed(Refused):
    """A rule of the product is not met."""

    title = "Precondition not met"


class ChecksFailed(PreconditionFailed):
    """Several named checks, reported all at once (R-081)."""

    title = "Checks failed"

    def __init__(self, code: str, detail: str, failed: tuple[FailedCheck, ...]) -> None:
        super().__init__(code, detail, "mend each failed check and try again")
        self.failed = failed


class KeyDenied(Refused):
    """The customer's key vaults refused the service. Nobody at the provider can change that."""

    title = "Denied by the customer's keys"


class NotFound(KeysteadError):
    """Nothing of that name in this tenant."""

    title = "Not found"


class Unavailable(KeysteadError):
    """A vault or store did not answer in time; the same call may succeed later."""

    title = "Unavailable"


class Throttled(Unavailable):
    """Too much from one caller in too short a time.

    Args:
        retry_after: milliseconds until it is worth trying again.
    """

    title = "Too many attempts"

    def __init__(self, code: str, detail: str, mend: str = "", *, retry_after: int) -> None:
        super().__init__(code, detail, mend)
        self.retry_after = retry_after


class IntegrityFailure(KeysteadError):
    """Stored bytes do not open under the key and context they belong to. No other data is returned in their place."""

    title = "Integrity failure"
