"""What the process does that `tests/crash/test_kill.py` kills, and the mail it imports."""

from __future__ import annotations

import sys
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
    """Say that it has begun, then import the whole source or run every job."""
    home = open_home(path)
    admin = home.client(home.as_person(ADMIN))
    sys.stdout.write("begun\n")
    sys.stdout.flush()
    if what == "import":
        for number in range(BATCHES):
            admin.call("mailbox.import", batch(number))
    else:
        run_due(home.services)
    home.close()


if __name__ == "__main__":
    act(Path(sys.argv[1]), sys.argv[2])
