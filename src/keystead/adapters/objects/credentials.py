"""Credentials of one container, in a file that may be replaced while Keystead runs (R-114).

The file is looked at before every call and read again when it is another one (its time, size or inode changed), and once more after the
store refused. So credentials are rotated without a stop: make the new ones, replace the file, then revoke the old ones.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from datetime import UTC, datetime
from threading import Lock
from typing import TYPE_CHECKING, Generic, TypeVar

import msgspec

from keystead.core.errors import Unavailable

if TYPE_CHECKING:
    from pathlib import Path

    from obstore.store import AzureAccessKey, S3Credential

MOST_BYTES = 64 * 1024
"""No credentials file is larger; a wrong path to something huge is not read whole."""
_ASK_AGAIN = datetime.fromtimestamp(0, UTC)
"""Long past: so obstore asks for the credentials before every request, and a long upload goes on with new ones."""


class S3Credentials(msgspec.Struct, frozen=True):
    """What an S3 container's file holds. Never shown: neither field is in the repr."""

    access_key_id: str
    secret_access_key: str

    def __repr__(self) -> str:
        return "S3Credentials(…)"


class AzureCredentials(msgspec.Struct, frozen=True):
    """What an Azure container's file holds. Never shown."""

    account_key: str

    def __repr__(self) -> str:
        return "AzureCredentials(…)"


_Kind = TypeVar("_Kind", S3Credentials, AzureCredentials)


@dataclass(frozen=True, slots=True)
class _Read(Generic[_Kind]):
    """The file as it was read: `stamp` tells it from another of that name, `version` counts the different ones."""

    stamp: tuple[int, int, int]
    version: int
    credentials: _Kind = field(repr=False)


class CredentialsFile(Generic[_Kind]):
    """A file of credentials, kept up to date. Threads may share it.

    Args:
        path: of the file.
        kind: what is in it.
        container: whose they are, for the text of errors.
    """

    def __init__(self, path: Path, kind: type[_Kind], container: str) -> None:
        self._path = path
        self._kind: type[_Kind] = kind
        self._container = container
        self._lock = Lock()
        self._read: _Read[_Kind] | None = None

    @property
    def file_name(self) -> str:
        """The file's own name, for texts; where it lies is nobody's business."""
        return self._path.name

    @property
    def version(self) -> int:
        """Of the credentials in force; -1 before the first `refresh`."""
        return -1 if self._read is None else self._read.version

    def refresh(self, *, after_refusal: bool = False) -> int:
        """Look at the file, read it if it is another one, and return which version of the credentials is in force.

        A file that cannot be read just now (it is being replaced) leaves the earlier credentials in force.

        Args:
            after_refusal: read it even if it looks the same: a clock too coarse, or a copy that kept its times, may hide a change.

        Raises:
            Unavailable: it cannot be read, and never could.
        """
        with self._lock:
            try:
                found = os.stat(self._path)  # noqa: PTH116 - before every call; half the time of Path.stat
                stamp = (found.st_mtime_ns, found.st_ino, found.st_size)
                if self._read is None or after_refusal or stamp != self._read.stamp:
                    self._take(stamp)
            except (OSError, msgspec.DecodeError) as error:
                if self._read is None:
                    raise self._unreadable(error) from None  # the decoder's text may quote what is in the file
            assert self._read is not None
            return self._read.version

    def current(self) -> _Kind:
        """The credentials in force, after a look at the file: this is asked between the parts of a long upload too.

        Raises:
            Unavailable: as `refresh`.
        """
        self.refresh()
        assert self._read is not None
        return self._read.credentials

    def _take(self, stamp: tuple[int, int, int]) -> None:
        with self._path.open("rb") as file:
            credentials = msgspec.json.decode(file.read(MOST_BYTES), type=self._kind)
        version = 0 if self._read is None else self._read.version + (credentials != self._read.credentials)
        self._read = _Read(stamp, version, credentials)

    def _unreadable(self, error: OSError | msgspec.DecodeError) -> Unavailable:
        why = error.strerror if isinstance(error, OSError) else "it is not the JSON it should be"
        names, file, container = " and ".join(self._kind.__struct_fields__), self.file_name, self._container
        return Unavailable(
            "object_credentials_unreadable",
            f"the credentials file {file} of container {container} cannot be used: {why}",
            f"put a JSON object with {names} there, readable by the user Keystead runs as",
        )


def s3_provider(file: CredentialsFile[S3Credentials], *, each_request: bool) -> S3Credential:
    """What obstore signs requests to S3 with."""
    found = file.current()
    return {
        "access_key_id": found.access_key_id,
        "secret_access_key": found.secret_access_key,
        "token": None,
        "expires_at": _ASK_AGAIN if each_request else None,
    }


def azure_provider(file: CredentialsFile[AzureCredentials], *, each_request: bool) -> AzureAccessKey:
    """What obstore signs requests to Azure with."""
    return {"access_key": file.current().account_key, "expires_at": _ASK_AGAIN if each_request else None}
