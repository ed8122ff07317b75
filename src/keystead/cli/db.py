"""`keystead db`."""

import os
from dataclasses import asdict

import typer

from keystead.cli.app import this

app = typer.Typer(rich_markup_mode=None, add_completion=False)


@app.callback()
def db() -> None:
    """The databases: what state they are in, and upgrades. These commands work when nothing else does."""


@app.command()
def check(context: typer.Context) -> None:
    """Look at the three databases; exit code 3 when something must be done, with what to do.

    Reachable, at the present schema, ordering text as Keystead needs it, durable, on time, and closed to the users of the other stores.
    """
    app = this(context)
    from keystead.adapters.clock import SystemClock
    from keystead.adapters.sql.care import check_databases
    from keystead.api.errors import EXIT_REFUSED
    from keystead.cli.output import as_json, emit
    from keystead.settings import read_written

    path = app.options.home_path
    found = check_databases(path, read_written(path, os.environ).configuration, SystemClock().now)
    problems = [problem for state in found for problem in state.problems]
    if app.options.json:
        emit(as_json({"databases": [asdict(state) for state in found]}) + "\n")
    else:
        columns = ("database", "place", "state", "revision", "works_with", "server", "clock_difference_ms")
        app.show([{name: getattr(state, name) for name in columns} for state in found], columns)
        for problem in problems:
            app.warn(f"{problem.database}: {problem.code}: {problem.detail}; {problem.mend}")
    if problems:
        raise typer.Exit(EXIT_REFUSED)


@app.command()
def upgrade(context: typer.Context) -> None:
    """Bring the databases to the schema of this version. Stop every process of an older version first; there is no way back but a backup.

    A home's own files are upgraded when they are opened; PostgreSQL's databases by this command alone, new ones too.
    """
    app = this(context)
    path = app.options.home_path
    app.plan("db.upgrade", {"home": str(path)})
    from keystead.adapters.sql.care import upgrade_databases
    from keystead.settings import read_written

    done = upgrade_databases(path, read_written(path, os.environ).configuration)
    app.show([{"database": family, "was": before, "is": after} for family, before, after in done], ("database", "was", "is"))
