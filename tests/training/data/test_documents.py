"""Where documents end, and where a long one may be cut."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import tiktoken
from hypothesis import given, settings
from hypothesis import strategies as st

from minigen.tokenizer.bytelevel import CL100K_PATTERN, GPT2_PATTERN, O200K_PATTERN, QWEN_PATTERN
from minigen.training.data import DataError
from minigen.training.data import cutting as module
from minigen.training.data.cutting import END, cut_text, last_cut, split_text
from minigen.training.data.documents import Chat, Text, cut_at, lone_text, parse_row, read_files

quick = settings(deadline=None, derandomize=True, max_examples=300)
WORDS = [
    "a",
    "Z9",
    "don't",
    " ",
    "  ",
    "\n",
    "\r\n",
    "\n\n",
    "é",
    "東京",
    "/",
    ".",
    "!\n",
    "'s",
    "\t",
    "\x1f",
    "1",
    "🙂",
]
PARTS = st.lists(
    st.sampled_from([*WORDS, END, f"\n{END}\n", f"{END} ", f"\r\n{END}\r\n", "<|end", "#"]),
    max_size=30,
)


def plain(text: str, separator: str | None) -> list[str]:
    """The documents by the definition, with all of the text at hand."""
    if separator is None:
        lines = text.split("\n")
        found, held = list[str](), list[str]()
        for line in lines:
            if line in (END, END + "\r"):
                found.append("\n".join(held) + "\n" * bool(held))
                held = []
            else:
                held.append(line)
        found.append("\n".join(held))
    else:
        found = text.split(separator)
    if len(found) == 1:
        return [text] if text.strip() else []
    whole = [found[0].rstrip(), *(part.strip() for part in found[1:-1]), found[-1].lstrip()]
    return [part for part in whole if part.strip()]


def joined(pieces: list[tuple[str, bool]]) -> list[str]:
    documents = [""]
    for text, last in pieces:
        documents[-1] += text
        documents += [""] * last
    assert documents.pop() == ""
    return documents


@quick
@given(
    parts=PARTS,
    chunk=st.integers(1, 40),
    piece=st.integers(2, 30),
    separator=st.sampled_from([None, END, "#", "a"]),
)
def test_documents_whatever_the_chunks(
    parts: list[str], chunk: int, piece: int, separator: str | None
) -> None:
    text = "".join(parts)
    chunks = [text[i : i + chunk] for i in range(0, len(text), chunk)]
    expected = plain(text, separator)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "PIECE", piece)
        assert joined(list(split_text(chunks, separator))) == expected
        assert [text for text, _ in split_text(chunks, separator, whole=True)] == expected
        if text:
            assert joined(list(cut_text(text))) == [text]


@quick
@given(
    text=st.lists(st.sampled_from([*WORDS, "!\n/"]) | st.text(max_size=3), max_size=12).map(
        "".join
    ),
    pattern=st.sampled_from([GPT2_PATTERN, CL100K_PATTERN, QWEN_PATTERN, O200K_PATTERN]),
)
def test_a_cut_changes_no_token(text: str, pattern: str) -> None:
    ranks = {bytes([i]): i for i in range(256)}
    for i, pair in enumerate(
        [b"\n\n", b"  ", b" a", b"\r\n", b".\n", b"\n/", b"\na", b"!\n", b" Z", b"/\n", b"\n "]
    ):
        ranks[pair] = 256 + i
    encode = tiktoken.Encoding(
        "x", pat_str=pattern, mergeable_ranks=ranks, special_tokens={}
    ).encode_ordinary
    high = len(text)
    while cut := last_cut(text, 1, high):
        assert encode(text[:cut]) + encode(text[cut:]) == encode(text)
        high = cut


def test_a_long_text_is_cut_into_pieces() -> None:
    text = "some words and\nlines of it, 12 " * 100_000
    pieces = list(split_text([text[:10], text[10:]]))
    assert len(pieces) >= 6
    assert max(len(piece) for piece, _ in pieces) <= 2 * module.PIECE
    assert [last for _, last in pieces] == [False] * (len(pieces) - 1) + [True]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "not valid JSON: Expecting property name"),
        ("[1]", r"the row is \[1\]: it must be an object"),
        ('{"input": 1}', "the row has 'input': it must be an object with either"),
        ('{"text": "a", "messages": []}', "the row has 'text', 'messages'"),
        ('{"text": " "}', "text is ' ': give some text"),
        ('{"text": 5}', "text is 5"),
        ('{"text": "a\\ud800"}', r"lone surrogate U\+D800 at position 1"),
        ('{"messages": []}', r"messages is \[\]"),
        ('{"messages": ["a"]}', "message 1 has the role None"),
        (
            '{"messages": [{"role": "tool", "content": "x"}]}',
            "role 'tool': it must be one of system, user, assistant",
        ),
        ('{"messages": [{"role": "user", "content": ["x"]}]}', "message 1 has the content"),
        ('{"messages": [{"role": "user", "content": "x"}]}', "no message is the assistant's"),
        (
            '{"messages": [{"role": "assistant", "content": ""}]}',
            "message 1 of the assistant is empty",
        ),
    ],
)
def test_broken_rows(line: str, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        parse_row(line, "f.jsonl:3")
    assert str(caught.value).startswith("f.jsonl:3: ")
    assert "\n" not in str(caught.value)


def test_rows(write: Callable[..., Path]) -> None:
    talk = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "yo"}]
    path = write("r.jsonl", [{"text": f"one\n{END}\none"}, {"messages": talk, "id": 5}])
    path.write_text(path.read_text() + "\n")
    one, two = read_files([path])
    assert one == Text(
        f"one\n{END}\none", True, f"{path}:1"
    )  # a row is one document, whatever it holds
    assert two == Chat(talk, f"{path}:2")
    assert lone_text([path]) is None


@quick
@given(
    text=st.text("ab \n", min_size=2, max_size=60).filter(str.strip),
    place=st.integers(1, 59),
    piece=st.integers(2, 9),
)
def test_a_lone_text_is_cut_in_two(text: str, place: int, piece: int) -> None:
    place = min(place, len(text) - 1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "PIECE", piece)
        parts = list(cut_at((Text(t, last, "f") for t, last in cut_text(text)), place))
    assert joined([(part.text, part.last) for part in parts]) == [text[:place], text[place:]]
    assert [part.cut for part in parts if part.last] == [True, False]
    lengths = [len(part.text) for part in parts]
    assert [part.resumed for part in parts] == [
        sum(lengths[:i]) >= place for i in range(len(parts))
    ]
