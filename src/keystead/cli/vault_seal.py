"""`keystead vault seal`."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from keystead.cli.app import refuse_usage, this

if TYPE_CHECKING:
    from collections.abc import Iterator

    from keystead.adapters.sql.vault_store import SqlVaultStore
    from keystead.core.configuration import VaultConfig
    from keystead.vault.sealing import SealShown

app = typer.Typer(rich_markup_mode=None, add_completion=False)


@app.callback()
def vault_seal() -> None:
    """What opens the vault's database. These commands work on the home itself; no command shows a key."""


@app.command()
def show(context: typer.Context) -> None:
    """Show what kind of seal the vault's database has, since when, and whether the one in the settings opens it."""
    app = this(context)
    with _vault_database(app.options.home_path) as (store, config):
        import os

        from keystead.adapters.clock import SystemClock
        from keystead.adapters.seals import open_seal
        from keystead.core.errors import KeysteadError
        from keystead.vault import sealing

        shown = sealing.show_seal(store)
        try:
            sealing.open_seal(store, open_seal(config, app.options.home_path, os.environ), SystemClock(), os.urandom)
            opens, why = True, ""
        except KeysteadError as error:
            opens, why = False, str(error)
    app.show(_document(shown) | {"opens": opens, "why_not": why})


@app.command()
def rotate(
    context: typer.Context,
    new_seal_file: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="A key file of 32 bytes; made where there is none. By default the seal stays the same."),
    ] = None,
    new_passphrase_file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A file whose first line is a passphrase, in place of a key file.")
    ] = None,
) -> None:
    """Seal every private key again, under a fresh vault key and another seal or the same one; all or nothing.

    Then name the new seal in keystead.toml and restart what runs: until then servers go on with the keys they have loaded, and store none.
    """
    app = this(context)
    if new_seal_file is not None and new_passphrase_file is not None:
        refuse_usage("a database has one seal", "give --new-seal-file or --new-passphrase-file")
    home = app.options.home_path
    app.plan("vault.seal.rotate", {"new_seal_file": str(new_seal_file or ""), "new_passphrase_file": str(new_passphrase_file or "")})
    with _vault_database(home) as (store, config):
        import os

        from keystead.adapters.clock import SystemClock
        from keystead.adapters.seals import key_file, open_seal, provided_key_file, read_passphrase
        from keystead.vault import sealing

        old = open_seal(config, home, os.environ)
        new, setting = old, ""
        if new_passphrase_file is not None:
            new, setting = read_passphrase(new_passphrase_file), f"seal_passphrase_file = {str(new_passphrase_file.absolute())!r}"
        elif new_seal_file is not None:
            # Made before the database is touched: a crash in between leaves a file that opens nothing yet, and is used the next time.
            new = provided_key_file(new_seal_file, os.urandom)
            if new_seal_file.absolute() != (key_file(config, home, os.environ) or Path()).absolute():
                setting = f"seal_file = {str(new_seal_file.absolute())!r}"
        shown = sealing.rotate(store, old, new, SystemClock(), os.urandom)
    app.show(_document(shown))
    if setting:
        app.warn(f"the old seal opens this database no more: write {setting} into [vault] of keystead.toml")
    app.warn("copies of the database made before still open with the old seal: destroy them where the seal was in wrong hands")


@contextmanager
def _vault_database(home: Path) -> Iterator[tuple[SqlVaultStore, VaultConfig]]:
    """The vault's database of a home, or of a fleet that this folder is a member of; not opened with a seal."""
    import os

    from keystead.adapters.sql.engine import open_engine
    from keystead.adapters.sql.vault_store import SqlVaultStore
    from keystead.core.errors import IntegrityFailure
    from keystead.wiring import describe_home

    _, written = describe_home(home, os.environ)
    config, file = written.configuration.vault, home / "vault.db"
    if not config.url and not (file.is_file() and file.stat().st_size):  # opening would make an empty one
        raise IntegrityFailure("home_part_missing", "vault.db of the home is missing", "restore it from a backup")
    store = SqlVaultStore(open_engine(config.database, file, home))
    try:
        yield store, config
    finally:
        store.close()


def _document(shown: SealShown) -> dict[str, object]:
    from dataclasses import asdict

    from keystead.api.types.base import utc

    return asdict(shown) | {"made": None if shown.made is None else utc(shown.made), "former_generations": list(shown.former_generations)}
