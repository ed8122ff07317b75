"""What the process does that `tests/crash/test_kill.py` kills, and the mail it imports."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

from keystead.api.types import mailboxes as m
from keystead.services.jobs.runner import run_due
from keystead.wiring import open_home

BATCHES, SIZE = 40, 25
UPN = "alex@contoso.example"
ADMIN = "admin@contoso.example"


def mail(number: int) -> list[bytes]:
    """Messages of which some are equal to one another."""
    return [f"Subject: {number}-{index // 2}\r\n\r\n{'Persimmon ' * (index // 2)}\r\n".encode() for index in range(SIZE)]


def batch(number: int) -> m.ImportBatch:
    """One batch of the source; equal messages are told apart by their ordinal."""
    items = [m.ImportItem(position=index, ordinal=index % 2 + 1, folder="Inbox", data=data) for index, data in enumerate(mail(number))]
    return m.ImportBatch(upn=UPN, items=items)


def act(path: Path, what: str) -> None:
    """Import the whole source or run every job; a line when it begins, and one for each batch or step of a job."""
    home = open_home(path)
    admin = home.client(home.as_person(ADMIN))
    _say("begun")
    if what == "import":
        for number in range(BATCHES):
            admin.call("mailbox.import", batch(number))
            _say("imported")
    else:
        run_due(replace(home.services, checkpoint=_say))
    home.close()


def _say(step: str) -> None:
    sys.stdout.write(f"{step}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    act(Path(sys.argv[1]), sys.argv[2])
