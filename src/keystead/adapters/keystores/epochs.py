"""Epoch keys: one small file each in the seals folder, wrapped under a key derived from the master (docs/spec/keystore.md section 3).

Destroying such a file is what destroys everything ever sealed under it, in every copy of the database. So a file is only removed by
those who hold the database's write lock and have just opened the one in force.

A process of a home holds that lock until it lets go or dies. One of a fleet may lose it and not know: its machine was paused, or cut off,
and the server gave the lock to somebody else. Where files are *shared* so, nobody writes over a file or removes one of a later epoch:
each claims a number that was never used, and what is older than an epoch that came into force is never asked for again.
"""

from __future__ import annotations

import os
import re
from contextlib import suppress
from typing import TYPE_CHECKING

from keystead.adapters.files import remove_durably, translated, write_durably
from keystead.adapters.keystores import boxes
from keystead.core.errors import IntegrityFailure
from keystead.core.formats.aead import Aes
from keystead.core.formats.kdf import derive
from keystead.core.secret import KEY_BYTES, SecretKey
from keystead.ports.keystore import Compartment

if TYPE_CHECKING:
    from pathlib import Path

    from keystead.core.ids import RandomBytes

PURPOSE = "keystead/keystore/epoch/"
"""Before the compartment's name, the purpose of the wrapping key derived from the master."""


class EpochFiles:
    """The files `keystore-COMPARTMENT.EPOCH`. The master itself is not kept, only the wrapping keys derived from it."""

    def __init__(self, folder: Path, master: SecretKey, random: RandomBytes, *, shared: bool) -> None:
        self._folder = folder
        self._random = random
        self._shared = shared
        self._wrapping = {each: Aes(derive(master, PURPOSE + each)) for each in Compartment}

    def make(self, compartment: Compartment, above: int) -> tuple[int, Aes]:
        """Make a fresh epoch key and write its file durably; returns its number too.

        The number is the next one, over a file that a crash left under it; of shared files, the next that nobody has used.

        Args:
            compartment: whose key it is.
            above: the epoch in force.

        Raises:
            Unavailable: the folder does not take it.
        """
        epoch = self._claimed(compartment, above) if self._shared else above + 1
        material = self._random(KEY_BYTES)
        fields = boxes.epoch_fields(compartment, epoch)
        box = boxes.seal(self._wrapping[compartment], boxes.Kind.EPOCH_KEY, material, fields, self._random)
        write_durably(self._path(compartment, epoch), box)
        return epoch, Aes(SecretKey(material))

    def load(self, compartment: Compartment, epoch: int) -> Aes | None:
        """An epoch key; None when there is no such file.

        Raises:
            IntegrityFailure: the file does not open under this master.
            Unavailable: the folder cannot be read.
        """
        path = self._path(compartment, epoch)
        with translated(path.name):
            try:
                box = path.read_bytes()
            except FileNotFoundError:
                return None
        try:
            fields = boxes.epoch_fields(compartment, epoch)
            return Aes(SecretKey(boxes.unseal(self._wrapping[compartment], boxes.Kind.EPOCH_KEY, box, fields)))
        except boxes.WrongBox:
            raise IntegrityFailure(
                "keystore_seal_refused",
                f"seals/{path.name} does not open: this is another master key, or the file was changed",
                "start with the master key this home was made with, or restore keys.db and the seals folder together",
            ) from None

    def epochs(self, compartment: Compartment) -> list[int]:
        """Numbers of the epoch files there are, in order; without those that were only claimed."""
        return sorted(
            number for path, number in self._files(compartment) if number is not None and (not self._shared or path.stat().st_size)
        )

    def leftovers(self, compartment: Compartment, live: int) -> list[Path]:
        """Files of a compartment that a crash or a failed rewrite left: of other epochs, and half written ones.

        A shared file of a later epoch may be somebody's who came after us: it stays until its number is passed.
        """
        found = [(path, number) for path, number in self._files(compartment) if number != live]
        return [path for path, number in found if number is None or number < live or not self._shared]

    def remove(self, paths: list[Path]) -> None:
        """Overwrite and remove files, for good.

        Raises:
            Unavailable: the folder does not take it; some may be gone.
        """
        for path in paths:
            remove_durably(path)

    def _claimed(self, compartment: Compartment, above: int) -> int:
        """A number nobody else has or gets: its file is made, empty. A crash leaves it so, and the number is passed over."""
        epoch = max([above, *(number for _, number in self._files(compartment) if number is not None)])
        while True:
            epoch += 1
            path = self._path(compartment, epoch)
            with translated(path.name), suppress(FileExistsError):
                os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
                return epoch

    def _path(self, compartment: Compartment, epoch: int) -> Path:
        return self._folder / f"keystore-{compartment}.{epoch}"

    def _files(self, compartment: Compartment) -> list[tuple[Path, int | None]]:
        """Every file of a compartment with its epoch; None for what `write_durably` had not given its name yet."""
        name = re.compile(rf"(\.?)keystore-{compartment}\.([1-9][0-9]{{0,18}})(\.[^.]+\.tmp)?")
        with translated(f"keystore-{compartment}"):
            found = [(path, name.fullmatch(path.name)) for path in self._folder.iterdir()]
        return [(path, None if match[1] else int(match[2])) for path, match in found if match and bool(match[1]) == bool(match[3])]
