"""Counting what happens, for whoever draws figures of it: one place that use cases tell, and that a front end listens to."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


class Counted(StrEnum):
    """What is counted; the labels it is counted with are fixed words, never names of people, tenants or things."""

    CUSTOMER_KEY_ANSWER = "customer-key-answer"
    """A customer key was asked: the class of its answer."""
    AVAILABILITY_KEY_USE = "availability-key-use"
    """A policy key was opened by the availability key (R-149): in an `outage` for everybody, or after a `denial` for one system operation."""
    AUDIT_UNWRITTEN = "audit-unwritten"
    """An act was refused because the database did not take its record: no label."""
    TURN = "turn"
    """A job had its turn, of one slice or some: kind of the job, and what became of it."""


class Tally:
    """Tells one listener; without one nothing is kept.

    Telling must neither block nor raise: it happens in the middle of use cases.
    """

    def __init__(self) -> None:
        self._listener: Callable[[Counted, tuple[str, ...]], None] | None = None

    def listen(self, listener: Callable[[Counted, tuple[str, ...]], None]) -> None:
        """From now on tell this one."""
        self._listener = listener

    def count(self, what: Counted, *labels: str) -> None:
        """It happened once."""
        if self._listener is not None:
            self._listener(what, labels)
