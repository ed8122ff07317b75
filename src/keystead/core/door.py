"""The one door to raw key bytes. Who may import it is a contract in pyproject.toml (`make lint`)."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from keystead.core.secret import SecretKey


def key_bytes(key: SecretKey) -> bytes:
    """The 32 raw bytes of a key. Do not keep them, log them, or put them into an exception."""
    return key._expose()  # noqa: SLF001 - this function is the reason the method exists
