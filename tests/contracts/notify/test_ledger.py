"""Both ledgers count what the database did not take, and lose nothing of it to an error."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from keystead.adapters.notify.ledger import LARGEST, FileLedger
from keystead.ports.notify import Unwritten
from keystead.services.unwritten import MemoryLedger

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from keystead.ports.notify import Ledger

    Open = Callable[[], Ledger]


@pytest.fixture(params=["file", "memory"])
def ledger(request: pytest.FixtureRequest, tmp_path: Path) -> Ledger:
    return FileLedger(tmp_path / "unwritten") if request.param == "file" else MemoryLedger()


def taken(ledger: Ledger) -> Unwritten | None:
    with ledger.taking() as found:
        return found


def test_counts_until_it_is_taken(ledger: Ledger) -> None:
    assert taken(ledger) is None
    for now, code in ((5, "database_unavailable"), (3, "storage_full"), (9, "database_lost")):
        ledger.note(now, code)
    assert taken(ledger) == Unwritten(3, 3, 9, "database_lost")
    assert taken(ledger) is None


def test_an_error_while_it_is_taken_keeps_it_and_what_came_meanwhile(ledger: Ledger) -> None:
    ledger.note(1, "database_unavailable")

    def fail() -> None:
        with ledger.taking():
            ledger.note(2, "storage_full")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    counted = 0
    while (found := taken(ledger)) is not None:
        counted += found.count
    assert counted == 2


def test_what_one_process_counted_another_takes_once(tmp_path: Path) -> None:
    one, other = FileLedger(tmp_path / "unwritten"), FileLedger(tmp_path / "unwritten")
    one.note(1, "storage_full")
    with other.taking() as found:
        assert found == Unwritten(1, 1, 1, "storage_full")
        assert taken(one) is None, "another process is at it"
    assert taken(one) is None


def test_a_crash_while_it_is_taken_leaves_it(tmp_path: Path) -> None:
    FileLedger(tmp_path / "unwritten").note(1, "storage_full")
    (tmp_path / "unwritten").rename(tmp_path / "unwritten.taken")
    FileLedger(tmp_path / "unwritten").note(2, "storage_full")
    after = FileLedger(tmp_path / "unwritten")
    assert [taken(after), taken(after), taken(after)] == [Unwritten(1, 1, 1, "storage_full"), Unwritten(1, 2, 2, "storage_full"), None]


def test_a_folder_that_is_gone_leaves_the_count_in_memory(tmp_path: Path) -> None:
    ledger = FileLedger(tmp_path / "run" / "unwritten")
    ledger.note(1, "storage_full")
    (tmp_path / "run").mkdir()
    assert taken(ledger) == Unwritten(1, 1, 1, "storage_full")


def test_the_file_stays_small_and_rubbish_in_it_counts_for_nothing(tmp_path: Path) -> None:
    path = tmp_path / "unwritten"
    path.write_bytes(b"\xff\xfe rubbish\n12x storage_full\n\n 5 y\n" + b"7 storage_full\n" * (LARGEST // 10))
    size = path.stat().st_size
    ledger = FileLedger(path)
    ledger.note(8, "storage_full")
    assert path.stat().st_size == size
    found = taken(ledger)
    assert found is not None
    assert (found.count, found.first, found.last) == (LARGEST // 10, 7, 7)
