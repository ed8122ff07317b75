"""The seal of a vault database, from where the operator keeps it: a key file, or a passphrase in a file or the environment.

Never from a command line, which every user of the machine may read. A file that others may read is refused: it would be a seal for show.
"""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from keystead.adapters.files import write_durably
from keystead.core.errors import IntegrityFailure, InvalidRequest, PreconditionFailed
from keystead.core.secret import KEY_BYTES, SecretKey
from keystead.core.vaults.seal_record import MAX_PASSPHRASE, Passphrase

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from keystead.core.configuration import VaultConfig
    from keystead.core.ids import RandomBytes
    from keystead.core.vaults.seal_record import Seal

PASSPHRASE_VARIABLE = "KEYSTEAD_VAULT_SEAL_PASSPHRASE"  # noqa: S105 - the name of a variable
"""Where there is no file, the environment may hold the passphrase. No setting: settings are shown."""
_MOST_BYTES = 4 * MAX_PASSPHRASE + 2
"""Of the first line of a passphrase file: UTF-8 has at most four bytes a character."""
_OTHERS = stat.S_IRWXG | stat.S_IRWXO


def open_seal(config: VaultConfig, folder: Path, environment: Mapping[str, str]) -> Seal:
    """The seal the configuration names.

    Args:
        config: `[vault]` of keystead.toml.
        folder: what relative paths count from.
        environment: of the process.

    Raises:
        InvalidRequest: `configuration_invalid`: a passphrase in a file and another in the environment; `seal_passphrase_unfit`.
        IntegrityFailure: `seal_missing`, `seal_damaged`.
        PreconditionFailed: `seal_exposed`: others may read the file.
    """
    text = environment.get(PASSPHRASE_VARIABLE, "")
    if text and config.seal_passphrase_file:
        raise InvalidRequest(
            "configuration_invalid",
            f"the passphrase of the vault's seal is given twice: as seal_passphrase_file of [vault] and as {PASSPHRASE_VARIABLE}",
            "leave one of them out",
        )
    if text:
        return Passphrase(text)
    if config.seal_passphrase_file:
        return read_passphrase(folder / config.seal_passphrase_file)
    return read_key_file(folder / config.seal_file)


def key_file(config: VaultConfig, folder: Path, environment: Mapping[str, str]) -> Path | None:
    """The key file the configuration names; None where a passphrase takes its place."""
    if config.seal_passphrase_file or environment.get(PASSPHRASE_VARIABLE):
        return None
    return folder / config.seal_file


def read_key_file(path: Path) -> SecretKey:
    """The 32 bytes of a key file.

    Raises:
        IntegrityFailure: `seal_missing`, `seal_damaged`.
        PreconditionFailed: `seal_exposed`.
    """
    material = _read(path, KEY_BYTES + 1)
    if len(material) != KEY_BYTES:
        raise IntegrityFailure(
            "seal_damaged",
            f"the seal {path.name} has {'more' if len(material) > KEY_BYTES else len(material)} bytes, not {KEY_BYTES}",
            "restore the seals folder from a backup",
        )
    return SecretKey(material)


def read_passphrase(path: Path) -> Passphrase:
    """The passphrase in the first line of a file, in UTF-8.

    Raises:
        IntegrityFailure: `seal_missing`.
        PreconditionFailed: `seal_exposed`.
        InvalidRequest: `seal_passphrase_unfit`.
    """
    line = _read(path, _MOST_BYTES).split(b"\n", 1)[0].removesuffix(b"\r")
    try:
        return Passphrase(line.decode())
    except UnicodeDecodeError:
        raise InvalidRequest(
            "seal_passphrase_unfit", f"the first line of {path.name} is not text in UTF-8", "write the passphrase into it"
        ) from None


def provided_key_file(path: Path, random: RandomBytes) -> SecretKey:
    """A key file, made with fresh bytes where there is none; one that is there is never replaced.

    Raises:
        IntegrityFailure: `seal_damaged`.
        PreconditionFailed: `seal_exposed`.
        Unavailable: the disk did not take it.
    """
    if not path.exists():
        write_durably(path, random(KEY_BYTES))
    return read_key_file(path)


def _read(path: Path, most: int) -> bytes:
    """At most so many bytes of a file that its owner alone may read. Looked at after it was opened: nobody exchanges it in between."""
    try:
        with path.open("rb") as file:
            if stat.S_IMODE(os.fstat(file.fileno()).st_mode) & _OTHERS:
                raise PreconditionFailed(
                    "seal_exposed",
                    f"the seal {path.name} can be read or changed by others than its owner",
                    f"chmod 600 {path.name}; if others could read it until now, rotate the seal: keystead vault seal rotate",
                )
            return file.read(most)
    except OSError as error:
        raise IntegrityFailure(
            "seal_missing", f"the seal {path.name} cannot be read: {error.strerror}", "restore the seals folder from a backup"
        ) from error
