"""Epoch keys: one small file each in the seals folder, wrapped under a key derived from the master (docs/spec/keystore.md section 3).

Destroying such a file is what destroys everything ever sealed under it, in every copy of the database. So a file is only removed by
those who hold the database's write lock and have just opened the one in force.
"""

from __future__ import annotations

import re
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

    def __init__(self, folder: Path, master: SecretKey, random: RandomBytes) -> None:
        self._folder = folder
        self._random = random
        self._wrapping = {each: Aes(derive(master, PURPOSE + each)) for each in Compartment}

    def make(self, compartment: Compartment, epoch: int) -> Aes:
        """Make a fresh epoch key and write its file durably, over one that a crash left under that number.

        Raises:
            Unavailable: the folder does not take it.
        """
        material = self._random(KEY_BYTES)
        fields = boxes.epoch_fields(compartment, epoch)
        box = boxes.seal(self._wrapping[compartment], boxes.Kind.EPOCH_KEY, material, fields, self._random)
        write_durably(self._path(compartment, epoch), box)
        return Aes(SecretKey(material))

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
        """Numbers of the epoch files there are, in order."""
        return sorted(number for _, number in self._files(compartment) if number is not None)

    def leftovers(self, compartment: Compartment, live: int) -> list[Path]:
        """Files of a compartment that a crash or a failed rewrite left: of other epochs, and half written ones."""
        return [path for path, number in self._files(compartment) if number != live]

    def remove(self, paths: list[Path]) -> None:
        """Overwrite and remove files, for good.

        Raises:
            Unavailable: the folder does not take it; some may be gone.
        """
        for path in paths:
            remove_durably(path)

    def _path(self, compartment: Compartment, epoch: int) -> Path:
        return self._folder / f"keystore-{compartment}.{epoch}"

    def _files(self, compartment: Compartment) -> list[tuple[Path, int | None]]:
        """Every file of a compartment with its epoch; None for what `write_durably` had not given its name yet."""
        name = re.compile(rf"(\.?)keystore-{compartment}\.([1-9][0-9]{{0,18}})(\.[^.]+\.tmp)?")
        with translated(f"keystore-{compartment}"):
            found = [(path, name.fullmatch(path.name)) for path in self._folder.iterdir()]
        return [(path, None if match[1] else int(match[2])) for path, match in found if match and bool(match[1]) == bool(match[3])]
