"""What every command works with: one call, one answer, questions and warnings."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NoReturn, Protocol, TypeVar

from keystead.cli.options import usage
from keystead.core.errors import InvalidRequest, KeysteadError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    import typer

    from keystead.api.types.mailboxes import MailboxView
    from keystead.api.types.tenants import TenantView, UserView
    from keystead.api.types.watching import JobView
    from keystead.cli.options import GlobalOptions
    from keystead.client.client import Client

T = TypeVar("T")

SECRET_FIELDS = frozenset({"pem", "claim_token", "token"})
"""Fields of requests that are never printed, not even by --what-if."""

EXIT_OF_CODE: Mapping[str, int] = {
    **dict.fromkeys(("denied_by_customer_key", "availability_key_destroyed", "old_keys_needed", "target_keys_unusable"), 3),
    **dict.fromkeys(("vault_unavailable", "database_unavailable", "storage_full", "storage_unavailable"), 5),
    **dict.fromkeys(("vault_answer_wrong", "envelope_damaged", "check_value_mismatch", "policy_key_damaged", "shred_key_destroyed"), 6),
    **dict.fromkeys(("wrapped_key_damaged", "mailbox_key_missing", "object_missing", "object_truncated", "object_damaged"), 6),
    **dict.fromkeys(("site_key_missing", "file_damaged", "file_rolled_back"), 6),
}
"""Exit code by the code in a failed job's error; others are "unavailable, try again", because a job's owner can try again."""
EXIT_JOB_CANCELLED = 3
EXIT_JOB_FAILED = 5


class Connection(Protocol):
    """Where calls go. Made when a command makes its first call, so that a line with a mistake in it opens nothing."""

    def client(self, tenant: str) -> Client:
        """A client for one tenant; empty to let the request or the caller tell."""
        ...

    def close(self) -> None:
        """Let it go."""
        ...


class Planned(Exception):
    """`--what-if` met a change."""

    def __init__(self, act: str, tenant: str, request: Mapping[str, Any]) -> None:
        super().__init__(act)
        self.act = act
        self.tenant = tenant
        self.request = request


@dataclass
class App:
    """One command line.

    Attributes:
        options: the global options.
        connect: opens the home, or the way to a server.
        interactive: whether somebody sits there who can be asked.
        tenant: the tenant of the calls, once it is known.
    """

    options: GlobalOptions
    connect: Callable[[GlobalOptions], Connection]
    interactive: bool = False
    tenant: str = ""
    _connection: Connection | None = field(default=None, repr=False)
    _warned: set[str] = field(default_factory=set, repr=False)

    # -- calling -------------------------------------------------------------------------------------------------------------------

    def call(self, name: str, request: object = None) -> Any:  # noqa: ANN401 - the row of ROUTES says what comes
        """Call a route.

        Raises:
            Planned: with --what-if, where the route changes anything.
            KeysteadError: what the service answered.
        """
        from keystead.api.routes import BY_NAME

        self._remember_tenant(request)
        if BY_NAME[name].changes:
            self.plan(name, request)
        return self.using(lambda client: client.call(name, request))

    def using(self, do: Callable[[Client], T]) -> T:
        """Do something with a client; where the tenant is missing and can only be one, once more with that one.

        The provider's people belong to no tenant: for them it comes from a UPN seen before, or is the only one there is.
        """
        try:
            return do(self._client(self.options.tenant))
        except InvalidRequest as error:
            tenant = self._only_tenant() if error.code == "tenant_missing" else ""
            if not tenant:
                raise
        return do(self._client(tenant))

    def wait(self, job_id: str) -> JobView:
        """Get on with a job until it is finished, with a progress bar on a terminal."""
        from keystead.cli.progress import percent_bar

        with percent_bar("job") as update:
            return self.using(lambda client: client.wait(job_id, lambda view: update(view.progress_percent)))

    def plan(self, act: str, request: object) -> None:
        """With --what-if, stop here and say what would be done.

        Raises:
            Planned: with --what-if.
        """
        if self.options.what_if:
            raise Planned(act, self.options.tenant, _shown(request))

    def close(self) -> None:
        """Let the connection go."""
        if self._connection is not None:
            self._connection.close()

    def _client(self, tenant: str) -> Client:
        if self._connection is None:
            self._connection = self.connect(self.options)
        return self._connection.client(tenant)

    def _remember_tenant(self, request: object) -> None:
        upns = [getattr(request, "upn", None), *getattr(request, "upns", ())]
        self.tenant = next((upn.partition("@")[2] for upn in upns if upn), self.tenant)

    def _only_tenant(self) -> str:
        if self.tenant:
            return self.tenant
        try:
            tenants = self._client("").call("tenant.list")
        except KeysteadError:
            return ""  # whoever may not list tenants gets the first answer: name one
        self.tenant = tenants[0].id if len(tenants) == 1 else ""
        return self.tenant

    # -- answering -----------------------------------------------------------------------------------------------------------------

    def show(self, value: object, columns: Sequence[str] = ()) -> None:
        """Print the answer of a command; its warnings go to stderr.

        Args:
            value: a response, a list of responses, or a dictionary.
            columns: the fields of a list shown as text.
        """
        from keystead.cli.output import as_json, as_text, emit, fields_of, warning_text

        warnings = [] if isinstance(value, list) else fields_of(value).get("warnings") or []
        for warning in warnings:
            self.warn(warning_text(warning))
        emit((as_json(value) if self.options.json else as_text(value, columns)) + "\n")

    def warn(self, text: str) -> None:
        """One line on stderr; a warning that was given before is not given again."""
        from keystead.cli.output import clean

        line = clean(" ".join(text.split()))
        if line not in self._warned:
            self._warned.add(line)
            sys.stderr.write(f"warning: {line}\n")

    def say(self, text: str) -> None:
        """A remark for people, on stderr; programs that read JSON get none."""
        if not self.options.json:
            sys.stderr.write(text + "\n")

    def confirm(self, question: str) -> None:
        """Ask before something that cannot be undone at will.

        Raises:
            InvalidRequest: nobody is there to be asked, or the answer was no.
        """
        if self.options.yes or self.options.what_if:
            return
        if not self.interactive:
            raise InvalidRequest("confirmation_needed", f"this needs a yes: {question}", "add --yes")
        sys.stderr.write(f"{question} [y/N] ")
        sys.stderr.flush()
        answer = sys.stdin.readline()
        if answer.strip().lower() not in {"y", "yes"}:
            raise InvalidRequest("not_confirmed", "nothing was done", "answer y, or add --yes")

    def finish_job(self, view: JobView) -> None:
        """End the command the way its job ended.

        Raises:
            typer.Exit: the job failed, is stuck, or was cancelled.
        """
        if view.state == "done":
            return
        import typer

        code = view.error.partition(":")[0]
        text = f"the job {view.id} is {view.state}" + (" and does not get on" if view.stuck else "")
        cause = view.error or "job_cancelled: somebody stopped it"
        sys.stderr.write(f"error: {' '.join(cause.split())}; {text}\n")
        raise typer.Exit(EXIT_JOB_CANCELLED if view.state == "cancelled" else EXIT_OF_CODE.get(code, EXIT_JOB_FAILED))

    def keep_secret(self, path: Path | None, secret: str) -> bool:
        """Write a secret to a file that only its owner reads; False where no file was named, so that it is shown once instead."""
        if path is None:
            return False
        from keystead.client.local_files import write_file

        write_file(path, [secret.encode() + b"\n"])
        return True


def this(context: typer.Context) -> App:
    """The App of a running command."""
    app = context.obj
    assert isinstance(app, App)
    return app


def show_claim(app: App, view: TenantView | UserView | MailboxView, claim_file: Path | None) -> None:
    """Show something that came with a claim token; the token goes to a file where one was named, and is shown this once otherwise."""
    from keystead.cli.output import document

    shown = document(view)
    if view.claim_token and app.keep_secret(claim_file, view.claim_token):
        shown |= {"claim_token": None, "claim_file": str(claim_file)}
    elif view.claim_token:
        app.say("the claim token is shown this once; hand it to whom it is for over a safe way")
    app.show(shown)


def refuse_usage(detail: str, mend: str) -> NoReturn:
    """End a command whose options do not fit together.

    Raises:
        InvalidRequest: always.
    """
    raise usage(detail, mend)


def _shown(request: object) -> Mapping[str, Any]:
    """A request as --what-if shows it: without secrets, and with sizes instead of bytes."""
    import msgspec

    from keystead.cli.output import fields_of

    if request is None:
        return {}
    fields = fields_of(request)
    shown: dict[str, Any] = {}
    for name, value in fields.items():
        if name in SECRET_FIELDS:
            shown[name] = "(not shown)"
        elif isinstance(value, bytes):
            shown[name] = f"({len(value)} bytes)"
        elif value is not msgspec.UNSET:
            shown[name] = value
    return shown
