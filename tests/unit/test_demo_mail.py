"""The demo's own mail: enough of everything, the same for the same seed, and every phrase really in it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from keystead.cli.demo_mail import DemoMail, write_demo_mail
from keystead.core.stores.mbox import split
from keystead.core.stores.message import ItemKind, summarise
from keystead.core.stores.searchtext import matches

if TYPE_CHECKING:
    from pathlib import Path

OWNERS = ["alex@contoso.example", "sam@contoso.example", "front-desk@contoso.example"]


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> DemoMail:
    return write_demo_mail(tmp_path_factory.mktemp("mail"), OWNERS, 7)


def items(path: Path) -> list[bytes]:
    data = path.read_bytes()
    return [data[start : start + length] for start, length, _ in split([data])]


def test_the_counts_are_what_is_in_the_files(demo: DemoMail) -> None:
    found = [summarise(item) for owner in OWNERS for item in items(demo.files[owner])]
    sound = [summary.kind for summary in found if summary.malformed is None]
    assert [sound.count(kind) for kind in ItemKind] == [demo.messages, demo.calendar, demo.chats]
    assert len(found) - len(sound) == demo.malformed == 1
    assert demo.messages >= 300
    assert all(summary.received and summary.subject and summary.sender for summary in found if summary.malformed is None)


def test_every_shape_is_there(demo: DemoMail) -> None:
    everything = b"".join(demo.files[owner].read_bytes() for owner in OWNERS)
    for mark in (
        b"multipart/alternative",
        b"image/png",
        b"application/pdf",
        b"application/zip",
        b"In-Reply-To:",
        b"=?utf-8?Q?",
        b"=?utf-8?B?",
    ):
        assert mark in everything
    assert re.search(rb"[^\n]\nFrom here on", everything)
    assert b"\n\n>From the harbour" in everything


def test_every_phrase_can_be_found_by_a_search_of_the_mail(demo: DemoMail) -> None:
    everything = [item for owner in OWNERS for item in items(demo.files[owner])]
    raw = b"\n".join(everything)
    missing = [phrase for phrase in demo.phrases if phrase not in raw and not any(matches(item, phrase.decode()) for item in everything)]
    assert missing == []


def test_phrases_cannot_turn_up_by_chance_or_as_an_owner(demo: DemoMail) -> None:
    assert len(demo.phrases) == len(set(demo.phrases)) > 40
    assert min(map(len, demo.phrases)) >= 8
    assert not any(phrase.decode() in owner for phrase in demo.phrases for owner in OWNERS)


def test_all_addresses_are_under_example_domains(demo: DemoMail) -> None:
    everything = b"".join(demo.files[owner].read_bytes() for owner in OWNERS)
    unfolded = everything.replace(b"\n ", b"")
    domains = set(re.findall(rb"[\w-]@([\w.-]+)", unfolded))
    assert all(re.search(rb"(?:\A|\.)(?:contoso|fabrikam|northwind)\.example\Z", domain) for domain in domains), domains


def test_the_same_seed_gives_the_same_bytes(tmp_path: Path, demo: DemoMail) -> None:
    (tmp_path / "again").mkdir()
    again = write_demo_mail(tmp_path / "again", OWNERS, 7)
    other = write_demo_mail(tmp_path, OWNERS, 8)
    assert all(again.files[owner].read_bytes() == demo.files[owner].read_bytes() for owner in OWNERS)
    assert other.files[OWNERS[0]].read_bytes() != demo.files[OWNERS[0]].read_bytes()


def test_an_owner_who_is_a_correspondent_is_no_phrase(tmp_path: Path) -> None:
    demo = write_demo_mail(tmp_path, ["Orders-Desk@fabrikam.example"], 7)
    assert b"orders-desk@fabrikam.example" not in demo.phrases
