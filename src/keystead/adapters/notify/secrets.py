"""Files with secrets of hooks: read at every delivery, so that replacing the file is all that a rotation takes."""

from __future__ import annotations

import hashlib
import hmac
import re
from typing import TYPE_CHECKING

from keystead.ports.notify import NotDelivered

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

MOST_SECRETS = 4
_SECRET = re.compile(rb"[\x21-\x7e]{32,256}")


def read_secrets(path: Path) -> list[bytes]:
    """The secrets of a file, in its order.

    Raises:
        NotDelivered: it cannot be read, or what it holds is not as docs/spec/hooks.md says; nothing of it is in the text.
    """
    lines = [line.strip() for line in _read(path).splitlines()]
    secrets = [line for line in lines if line and not line.startswith(b"#")]
    if not 1 <= len(secrets) <= MOST_SECRETS:
        raise NotDelivered(f"the file {path.name} has {len(secrets)} secrets, not 1 to {MOST_SECRETS}")
    if not all(_SECRET.fullmatch(secret) for secret in secrets):
        raise NotDelivered(f"a secret of the file {path.name} is not 32 to 256 printable ASCII characters")
    return secrets


def read_password(path: Path) -> str:
    """The first line of a file.

    Raises:
        NotDelivered: it cannot be read, or is empty.
    """
    lines = _read(path).splitlines()
    password = lines[0].decode("utf-8", "replace").strip() if lines else ""
    if not password:
        raise NotDelivered(f"the file {path.name} holds no password")
    return password


def sign(secrets: Sequence[bytes], now: int, body: bytes) -> str:
    """The value of Keystead-Signature.

    Args:
        secrets: one signature is made with each.
        now: time of sending, milliseconds.
        body: as it is sent.
    """
    signed = b"%d.%b" % (now, body)
    return ",".join([f"t={now}", *(f"v1={hmac.new(secret, signed, hashlib.sha256).hexdigest()}" for secret in secrets)])


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise NotDelivered(f"the file {path.name} cannot be read: {error.strerror}") from None
