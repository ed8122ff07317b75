"""`keystead`: the command line. Nothing below is imported before it is needed: `--help` must not load the database library."""

from __future__ import annotations

import contextlib
import gc
import importlib
import os
import sys
from typing import TYPE_CHECKING, TextIO

import typer
from typer.core import TyperGroup

from keystead.cli.app import App, Connection, Planned
from keystead.cli.options import FLAGS, VALUE_OPTIONS, GlobalOptions, extract, usage
from keystead.core.errors import ChecksFailed, KeysteadError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from typer._click import Command, Context, HelpFormatter

PROGRAM = "keystead"
EXIT_UNEXPECTED = 1
EXIT_INTERRUPTED = 130
EXIT_BROKEN_PIPE = 141
GC_THRESHOLD = 100_000

COMMANDS: Mapping[str, tuple[str, str]] = {
    "init": ("init", "Make a home."),
    "db": ("db", "The databases: their state, and upgrades."),
    "home": ("home", "Move an installation: from a home into a fleet, and back."),
    "demo": ("try_it", "Run the whole main job in a home of its own, and prove it."),
    "serve": ("serve", "Answer calls over HTTP until interrupted."),
    "worker": ("worker", "Run jobs and upkeep until interrupted."),
    "settings": ("settings", "The numbers that can be changed."),
    "tenant": ("tenant", "Tenants and their onboarding."),
    "user": ("user", "People and their roles."),
    "token": ("token", "Tokens of people and programs."),
    "sign-in-provider": ("sign_in_provider", "The tenant's own OpenID Connect provider."),
    "signing-key": ("signing_key", "The keys that access tokens are signed with."),
    "subscription": ("subscription", "Subscriptions that hold key vaults."),
    "vault": ("vault", "Key vaults and who may use their keys."),
    "key": ("key", "Root keys."),
    "policy": ("policy", "Data encryption policies."),
    "mailbox": ("mailbox", "Mailboxes, what is in them, and the policy they are under."),
    "files": ("files", "Customer keys for the files of a geo."),
    "site": ("site", "Sites and the files in them."),
    "audit": ("audit", "The audit log."),
    "alerts": ("alerts", "What needs attention."),
    "job": ("job", "Long work."),
    "keystore": ("keystore", "The provider's key store."),
    "dev": ("dev", "Clock and faults of dev homes."),
}
"""Command: its module below `keystead.cli`, and its line in the help."""


class LazyGroup(TyperGroup):
    """Imports the module of a command when that command is used."""

    def list_commands(self, ctx: Context) -> list[str]:  # noqa: ARG002 - the base class gives it
        """Every command, in the order of a person's first day."""
        return list(COMMANDS)

    def get_command(self, ctx: Context, cmd_name: str) -> Command | None:  # noqa: ARG002 - the base class gives it
        """The command of a name."""
        return load(cmd_name) if cmd_name in COMMANDS else None

    def format_commands(self, ctx: Context, formatter: HelpFormatter) -> None:  # noqa: ARG002 - the base class gives it
        """The help's list of commands, from the table alone."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_module, text) in COMMANDS.items()])
        with formatter.section("Options that may stand anywhere on the line"):
            formatter.write_dl(global_help())


def global_help() -> list[tuple[str, str]]:
    """The global options and what they do."""
    values = [(f"{name} {metavar}", text) for name, (_field, metavar, text) in VALUE_OPTIONS.items()]
    return values + [(name, text) for name, (_field, text) in FLAGS.items()]


def load(name: str) -> Command:
    """The command of a name, with what is below it."""
    module = importlib.import_module(f"keystead.cli.{COMMANDS[name][0]}")
    command = typer.main.get_command(module.app)
    command.name = name
    return command


def root() -> Command:
    """The whole program."""
    app = typer.Typer(name=PROGRAM, cls=LazyGroup, rich_markup_mode=None, add_completion=False)

    @app.callback(invoke_without_command=True)
    def keystead(context: typer.Context, *, version: bool = typer.Option(False, "--version", help="Show the version.")) -> None:
        """Customer-controlled encryption for services that hold other people's data."""
        if version:
            from keystead import __version__

            sys.stdout.write(f"{PROGRAM} {__version__}\n")
        elif context.invoked_subcommand is None:
            sys.stdout.write(context.get_help() + "\n")

    return typer.main.get_command(app)


def open_connection(options: GlobalOptions) -> Connection:
    """The server or the home the options name."""
    from keystead.cli import connection

    return connection.open_connection(options)


def run(
    arguments: Sequence[str],
    *,
    environment: Mapping[str, str] | None = None,
    connect: Callable[[GlobalOptions], Connection] = open_connection,
    interactive: bool | None = None,
) -> int:
    """Run one line.

    Args:
        arguments: the line without the program's name.
        environment: in place of the process's own.
        connect: in place of opening the home.
        interactive: whether somebody can be asked; by default whether stdin is a terminal.

    Returns:
        The exit code (design section 8).
    """
    options = GlobalOptions(json="--json" in arguments, debug="--debug" in arguments)
    try:
        options, rest = extract(arguments, os.environ if environment is None else environment)
        there = sys.stdin.isatty() if interactive is None else interactive
        with contextlib.closing(App(options, connect, interactive=there, tenant="")) as app:
            return _invoke(app, rest)
    except KeysteadError as error:
        return report(error, options)
    except KeyboardInterrupt:
        _complain("interrupted")
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # Whoever read the output has gone. Python would complain when it flushes stdout at the end: give it nothing to flush into.
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_BROKEN_PIPE
    except Exception as error:  # noqa: BLE001 - the last line of defence: one line for people, the trace on request
        return _unexpected(error, options)


def _invoke(app: App, rest: list[str]) -> int:
    command = root()
    try:
        with command.make_context(PROGRAM, rest, obj=app) as context:
            command.invoke(context)
    except typer.Exit as end:
        return end.exit_code
    except typer.TyperException as error:
        path = getattr(getattr(error, "ctx", None), "command_path", PROGRAM)
        raise usage(" ".join(error.format_message().split()).rstrip("."), f"see {path} --help") from None
    except Planned as plan:
        _tell(app, plan)
    return 0


def _tell(app: App, plan: Planned) -> None:
    """What a command would do."""
    from keystead.cli.output import as_json, emit

    if app.options.json:
        emit(as_json({"what_if": True, "act": plan.act, "tenant": plan.tenant or app.tenant or None, "request": plan.request}) + "\n")
    else:
        where = plan.tenant or app.tenant
        emit(f"what if: {plan.act}{f' in {where}' if where else ''} {as_json(plan.request)}\n")


def report(error: KeysteadError, options: GlobalOptions) -> int:
    """Say what went wrong: one line on stderr and one for each failed check; with --json a problem document on stdout too.

    Returns:
        The exit code.
    """
    from keystead.api.errors import problem, status_of
    from keystead.cli.output import as_json, clean

    if options.debug:
        _trace(error)
    _complain(f"error: {clean(' '.join(str(error).split()))}")
    if isinstance(error, ChecksFailed):
        for check in error.failed:
            subject = f"{check.subject}: " if check.subject else ""
            _complain(f"failed check: {check.check}: {clean(' '.join(f'{subject}{check.detail}; {check.mend}'.split()))}")
    if options.json:
        _last_word(sys.stdout, as_json(problem(error)))
    return status_of(error)[1]


def _unexpected(error: Exception, options: GlobalOptions) -> int:
    """One line; what the exception says is left out, because libraries put values into their texts."""
    kind = type(error).__name__
    _complain(f"error: unexpected: {kind}; run it again with --debug and report what it shows")
    if options.debug:
        _trace(error)
    if options.json:
        from keystead.cli.output import as_json

        problem = {
            "type": "urn:keystead:error:unexpected",
            "title": "Unexpected",
            "status": 500,
            "code": "unexpected",
            "detail": kind,
            "mend": "",
        }
        _last_word(sys.stdout, as_json(problem))
    return EXIT_UNEXPECTED


def _complain(line: str) -> None:
    _last_word(sys.stderr, line)


def _last_word(stream: TextIO, line: str) -> None:
    """What is said about a failure must not fail in turn: the exit code still tells."""
    with contextlib.suppress(OSError):
        stream.write(line.rstrip("\n") + "\n")
        stream.flush()


def _trace(error: Exception) -> None:
    import traceback

    traceback.print_exception(error)


def main() -> None:
    """The program's entry point."""
    # A command lives for half a second: collecting garbage among freshly imported modules, and taking the interpreter down piece by
    # piece, would cost a fifth of that. Everything that must be closed is closed by `run`.
    gc.set_threshold(GC_THRESHOLD)
    for stream in (sys.stdout, sys.stderr):
        # A terminal that does not know a character of somebody's subject line is no reason to fail.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    code = run(sys.argv[1:])
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)
