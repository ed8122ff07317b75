"""What is known about an object in the object store."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class StoredObject:
    """One object that holds items of one mailbox, or chunks of one site, under one version of its key.

    Attributes:
        owner_id: the mailbox or site.
        items: how many items or chunks lie in it.
        large: whether it was made for one thing alone.
    """

    ref: str
    owner_id: str
    key_version: int
    size: int
    items: int
    large: bool
