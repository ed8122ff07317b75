"""Global options anywhere on the line."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keystead.cli.options import FLAGS, VALUE_OPTIONS, GlobalOptions, extract
from keystead.core.errors import InvalidRequest

GLOBAL = [*FLAGS, *VALUE_OPTIONS]
words = st.text(st.characters(codec="ascii", categories=("L", "N")), min_size=1, max_size=8)
locals_ = st.one_of(
    words,
    words.map(lambda word: f"--x{word}"),
    words.map(lambda word: f"-{word}"),
    st.tuples(words, words).map(lambda pair: f"--x{pair[0]}={pair[1]}"),
    st.just("--text=--json"),
)


@st.composite
def global_parts(draw: st.DrawFn) -> tuple[list[str], dict[str, str | bool]]:
    """Global options as they may be written, and what they mean."""
    parts: list[str] = []
    meaning: dict[str, str | bool] = {}
    for name in draw(st.lists(st.sampled_from(GLOBAL), unique=True)):
        if name in FLAGS:
            parts.append(name)
            meaning[FLAGS[name][0]] = True
        else:
            value = draw(words)
            parts.append(f"{name}={value}" if draw(st.booleans()) else f"{name}\0{value}")
            meaning[VALUE_OPTIONS[name][0]] = value
    return parts, meaning


@given(st.lists(locals_), global_parts(), st.lists(st.sampled_from([*GLOBAL, "a", "--b"])), st.data())
def test_options_anywhere_are_found_and_the_rest_keeps_its_order(
    command: list[str], parts: tuple[list[str], dict[str, str | bool]], after: list[str], data: st.DataObject
) -> None:
    written, meaning = parts
    line = list(command)
    for part in written:
        at = data.draw(st.integers(0, len(line)))
        line.insert(at, part)
    flat = [piece for part in line for piece in part.split("\0")] + ["--", *after]

    options, rest = extract(flat, {})

    assert rest == [*command, "--", *after]
    assert options == GlobalOptions(**meaning)  # type: ignore[arg-type]


@given(st.lists(locals_))
def test_a_line_without_global_options_is_left_as_it_is(command: list[str]) -> None:
    assert extract(command, {}) == (GlobalOptions(), command)


@pytest.mark.parametrize("line", [["--home"], ["--home="], ["--tenant", "--json"], ["mailbox", "list", "--as"], ["--json=yes"]])
def test_a_missing_or_superfluous_value_is_a_usage_error(line: list[str]) -> None:
    with pytest.raises(InvalidRequest) as caught:
        extract(line, {})
    assert caught.value.code == "usage"
    assert caught.value.mend.startswith("write --")


def test_of_an_option_given_twice_the_last_counts() -> None:
    assert extract(["--tenant", "a", "x", "--tenant=b"], {})[0].tenant == "b"


def test_the_home_comes_from_the_line_then_the_environment_then_the_persons_folder() -> None:
    environment = {"KEYSTEAD_HOME": "/from/environment"}
    assert extract(["--home", "/from/line"], environment)[0].home_path == Path("/from/line")
    assert extract([], environment)[0].home_path == Path("/from/environment")
    assert extract([], {})[0].home_path == Path.home() / ".keystead"


def test_a_token_is_taken_from_the_environment_and_never_shown() -> None:
    options, _rest = extract([], {"KEYSTEAD_TOKEN": " ks_very-secret\n"})
    assert options.token == "ks_very-secret"
    assert "secret" not in repr(options)
