"""A server that means ill, towards `keystead site get --recursive`: nothing is written outside the folder, and nothing goes on for ever."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, cast

import pytest

from keystead.api import frames
from keystead.api.call import Content
from keystead.api.types.sites import FileView, ListFiles
from keystead.client.site_files import BATCHED_FILE, PAGE, get_tree
from keystead.core.errors import Conflict, IntegrityFailure

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from keystead.client.client import Client

EVIL = b"evil"
URL = "https://contoso.example/sites/plans"


def view(path: str, number: int = 1, *, kind: str = "file", size: int = len(EVIL)) -> FileView:
    return FileView(
        name=path.rpartition("/")[2],
        path=path,
        kind=kind,
        size_bytes=size,
        modified=datetime(2026, 1, 1, tzinfo=UTC),
        version=1,
        id=f"{number:08x}-0000-4000-8000-000000000000",
    )


@dataclass
class Evil:
    """Answers what a test says; `asked` counts."""

    answers: Callable[[ListFiles], list[FileView]]
    asked: int = 0

    def call(self, route: str, request: Any, **_more: object) -> Any:
        self.asked += 1
        assert self.asked < 50, "it goes on and on"
        if route == "site.ls":
            return self.answers(request)
        if route == "site.get":
            return Content(len(EVIL), "application/octet-stream", iter([EVIL]))
        return Content(0, "", iter([frames.head(name, len(EVIL)) + EVIL for name in request.files]))


def get(evil: Evil, folder: Path) -> None:
    get_tree(cast("Client", evil), URL, "/top", folder, overwrite=True)


@pytest.mark.parametrize("size", [len(EVIL), BATCHED_FILE + 1], ids=["small", "large"])
def test_a_path_does_not_lead_through_a_link_that_was_there(tmp_path: Path, size: int) -> None:
    """R-190: the server says the path; that no folder of that name was listed before must be noticed."""
    outside = tmp_path / "outside"
    outside.mkdir()
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "link").symlink_to(outside)
    with pytest.raises(IntegrityFailure, match="file_name_invalid"):
        get(Evil(lambda _asked: [view("/top/link/file", size=size)]), folder)
    assert list(outside.iterdir()) == []


@pytest.mark.parametrize("path", ["/", "/other/file", "/top/a/b"])
def test_a_path_that_is_not_in_the_folder_that_was_listed_is_refused(tmp_path: Path, path: str) -> None:
    """R-190."""
    with pytest.raises(IntegrityFailure, match="file_name_invalid"):
        get(Evil(lambda _asked: [view(path)]), tmp_path / "folder")


def test_a_file_is_not_taken_for_the_folder_it_is_to_be_written_to(tmp_path: Path) -> None:
    """R-112: of a file a server lists the file itself."""
    with pytest.raises(Conflict, match="not_a_folder"):
        get(Evil(lambda _asked: [view("/top")]), tmp_path / "folder")
    assert [one.name for one in tmp_path.iterdir()] == ["folder"]


def test_a_listing_that_never_ends_ends(tmp_path: Path) -> None:
    """R-190: pages go on behind the id that was named."""
    page = [view(f"/top/{number}", number) for number in range(PAGE)]
    with pytest.raises(IntegrityFailure, match="file_name_invalid"):
        get(Evil(lambda _asked: page), tmp_path / "folder")
