"""Stop strings over pieces of text, against a definition that sees the whole text."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minigen.errors import UsageError
from minigen.generation.stopping import StopStrings


def run(stops: list[str], pieces: list[str]) -> tuple[str, bool]:
    stopping = StopStrings(stops)
    text = ""
    for piece in pieces:
        safe, found = stopping.push(piece)
        text += safe
        if found:
            break
    return text + stopping.finish(), stopping.found


def first(text: str, stops: list[str]) -> int:
    return min((i for i in range(len(text)) if text.startswith(tuple(stops), i)), default=len(text))


def undecided(text: str, stops: list[str]) -> int:
    """Where the earliest stop string starts that a longer text may have and this text has only in part."""
    return min(
        (
            i
            for i in range(len(text))
            if any(s != text[i:] and s.startswith(text[i:]) for s in stops)
        ),
        default=len(text),
    )


@pytest.mark.parametrize(
    ("stops", "pieces", "text", "found"),
    [
        ([], ["any ", "thing"], "any thing", False),
        (["\n"], ["one\ntwo"], "one", True),
        (["User:"], ["Hi.", "\nUs", "er", ": what"], "Hi.\n", True),
        (["User:"], ["Hi.", "\nUs", "age"], "Hi.\nUsage", False),
        (["User:"], ["the end is Use"], "the end is Use", False),
        (["aab"], ["aa", "aab"], "aa", True),
        (["b", "abc"], ["xab", "d"], "xa", True),
        (["b", "abc"], ["xab", "c"], "x", True),
        (["b", "abc"], ["xab"], "xa", True),
        (["ab", "abc"], ["xabc"], "x", True),
        (["é"], ["caf", "é"], "caf", True),
        (["stop"], ["", "st", "", "op"], "", True),
        (["x"], [], "", False),
    ],
)
def test_examples(stops: list[str], pieces: list[str], text: str, found: bool) -> None:
    assert run(stops, pieces) == (text, found)


def test_a_shorter_stop_waits_for_the_longer_one_around_it() -> None:
    stopping = StopStrings(["b", "abc"])
    assert stopping.push("xab") == ("x", False)
    assert stopping.push("d") == ("a", True)


def test_nothing_comes_after_a_stop() -> None:
    stopping = StopStrings(["."])
    assert stopping.push("One. Two. ") == ("One", True)
    assert stopping.push("Three") == ("", True)
    assert stopping.finish() == ""
    assert stopping.found


def test_what_is_held_back_comes_once() -> None:
    stopping = StopStrings(["###"])
    assert stopping.push("a##") == ("a", False)
    assert stopping.finish() == "##"
    assert stopping.finish() == ""
    assert not stopping.found


letters = st.text(alphabet="ab", max_size=12)


@settings(deadline=None, derandomize=True, max_examples=400)
@given(
    st.lists(letters.filter(bool).map(lambda s: s[:5]), max_size=3), st.lists(letters, max_size=6)
)
def test_any_cut_gives_the_text_before_the_first_stop(stops: list[str], pieces: list[str]) -> None:
    stopping = StopStrings(stops)
    come, shown = "", ""
    for piece in pieces:
        come += piece
        safe, found = stopping.push(piece)
        shown += safe
        # Neither a character too many nor one too few, after every piece.
        assert shown == come[: min(first(come, stops), undecided(come, stops))]
        assert found == (
            first(come, stops) < len(come) and first(come, stops) <= undecided(come, stops)
        )
        if found:
            break
    shown += stopping.finish()
    whole = "".join(pieces)
    assert shown == whole[: first(whole, stops)]
    assert stopping.found == (first(whole, stops) < len(whole))


@pytest.mark.parametrize("stops", [[""], ["a", ""], [None], [1], [b"a"]])
def test_a_stop_that_is_no_string_with_a_character_is_refused(stops: Any) -> None:
    with pytest.raises(
        UsageError, match=r"^stop has the entry .*: it must be a string of at least one character$"
    ):
        StopStrings(stops)


def test_one_string_is_no_list() -> None:
    with pytest.raises(UsageError, match=r"^stop is 'END': it must be a list of strings$"):
        StopStrings("END")
