"""Data files: each format, and each mistake in one, with the whole line that it gives."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minigen.evaluation.fewshot import PromptError, PromptFile
from minigen.evaluation.fewshot.data import read_rows

Load = Callable[..., PromptFile]

ROW = '{"input": "a", "output": "b"}\n'

# name -> (data file, its content, the whole message)
MISTAKES: dict[str, tuple[str, str | bytes, str]] = {
    "broken line": (
        "d.jsonl",
        ROW + '{"input": "a", "output"}\n',
        "d.jsonl:2: JSON: Expecting ':' delimiter at column 24; correct the JSON",
    ),
    "two objects in a line": (
        "d.jsonl",
        ROW.strip() + ROW,
        "d.jsonl:1: JSON: Extra data at column 30; correct the JSON",
    ),
    "broken list": (
        "d.json",
        '[\n{"input": "a"},\n{"input" "b"}]',
        "d.json:3: JSON: Expecting ':' delimiter at column 10; correct the JSON",
    ),
    "line no object": (
        "d.jsonl",
        ROW + '\n["a", "b"]\n',
        "d.jsonl:3: row: is ['a', 'b']; it must be an object such as {\"input\": ...}",
    ),
    "list of texts": (
        "d.json",
        '["a",\n"b"]',
        "d.json:1: row: is 'a'; it must be an object such as {\"input\": ...}",
    ),
    "no list": (
        "d.json",
        "3",
        "d.json:1: JSON: is 3; it must be a list, or an object with one list",
    ),
    "two lists": (
        "d.json",
        '{"a": [], "b": []}',
        "d.json:1: JSON: has 2 lists; it must be a list, or an object with one list",
    ),
    "name twice": (
        "d.jsonl",
        ROW + '{"input": "a", "input": "b"}\n',
        "d.jsonl:2: input: stands twice in one object; keep one of them",
    ),
    "not UTF-8": (
        "d.jsonl",
        ROW.encode() + b'{"input": "\xff"}\n',
        "d.jsonl:2: encoding: byte 0xFF is not UTF-8; save the file as UTF-8",
    ),
    "half a character": (
        "d.jsonl",
        ROW + '{"input": "a \\ud83d", "output": "b"}\n',
        "d.jsonl:2: input: has half a character, U+D83D; write the whole \\u pair",
    ),
    "not gzip": (
        "d.jsonl.gz",
        ROW,
        "d.jsonl.gz:1: gzip: Not a gzipped file (b'{\"'); pack the file again",
    ),
    "gzip cut short": (
        "d.jsonl.gz",
        gzip.compress(ROW.encode())[:-9],
        "d.jsonl.gz:1: gzip: Compressed file ended before the end-of-stream marker was reached; pack the file again",
    ),
    "label alone": (
        "d.txt",
        "1 good\n0\n",
        "d.txt:2: row: is '0'; a label line is LABEL, a space, and the text",
    ),
    "field missing": (
        "d.jsonl",
        ROW + '{"question": "a", "output": "b"}\n',
        "d.jsonl:2: input: is missing; the template needs {input}, and the row has only question, output",
    ),
    "field null": (
        "d.jsonl",
        ROW + '{"input": null}\n',
        "d.jsonl:2: input: is None; it must be a text",
    ),
    "answers": (
        "d.jsonl",
        '{"input": "a", "output": ["b", "c"]}\n',
        "d.jsonl:1: output: is ['b', 'c']; it must be a text",
    ),
    "empty": (
        "d.jsonl",
        "",
        "t.prompt.toml:2: items_file: d.jsonl has no rows; give one with at least one",
    ),
    "empty list": (
        "d.json",
        " [ ]\n",
        "t.prompt.toml:2: items_file: d.json has no rows; give one with at least one",
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistake(load: Load, name: str) -> None:
    file, content, message = MISTAKES[name]
    with pytest.raises(PromptError) as caught:
        load(f'format = 1\nitems_file = "{file}"\n', **{file: content})
    assert str(caught.value) == message


def test_skipping_past_the_end(load: Load) -> None:
    with pytest.raises(PromptError) as caught:
        load('format = 1\nitems_file = "d.jsonl"\nitems_skip = 1\n', **{"d.jsonl": ROW})
    assert (
        str(caught.value)
        == "t.prompt.toml:2: items_file: d.jsonl has no rows after 1; give one with at least one"
    )


@pytest.mark.parametrize(
    "text", ["[" * 100_000, '{"input": ' + "9" * 5000 + "}"], ids=["deep", "digits"]
)
def test_what_json_cannot_hold(load: Load, text: str) -> None:
    with pytest.raises(PromptError, match=r"^d\.jsonl:1: JSON: [^\n]+; correct the JSON$"):
        load('format = 1\nitems_file = "d.jsonl"\n', **{"d.jsonl": text})


def test_nul_in_a_path(load: Load) -> None:
    with pytest.raises(
        PromptError, match=r"^t\.prompt\.toml:2: items_file: cannot read [^\n]+; the path starts"
    ):
        load('format = 1\nitems_file = "a\\u0000b"\n')


def test_rows_after_the_limit_are_not_read(load: Load) -> None:
    text = 'format = 1\nitems_file = "d.jsonl"\nitems_skip = 1\nitems_limit = 2\n'
    rows = "".join(f'{{"input": "{name}", "output": "b"}}\n' for name in "abc")
    items = load(text, **{"d.jsonl": rows + "broken"}).items
    assert [(item.fields["input"], item.where) for item in items] == [
        ("b", "d.jsonl:2"),
        ("c", "d.jsonl:3"),
    ]


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=6)
ROWS = st.lists(
    st.dictionaries(TEXTS, TEXTS | st.lists(TEXTS, max_size=2), max_size=3), min_size=1, max_size=5
)


@given(ROWS, st.sampled_from([None, 0, 2]), st.booleans(), st.booleans())
def test_json_comes_back_with_its_lines(
    tmp_path_factory: pytest.TempPathFactory,
    rows: list[dict[str, Any]],
    indent: int | None,
    inside: bool,
    packed: bool,
) -> None:
    folder = tmp_path_factory.mktemp("json")
    whole: Any = {"about [": "x", "n": {"items": 3}, "rows": rows} if inside else rows
    list_text = json.dumps(whole, indent=indent, ensure_ascii=indent is None)
    lines_text = "".join(json.dumps(row, ensure_ascii=False) + "\n\n" for row in rows)
    for name, text in (("d.json", list_text), ("d.jsonl", lines_text)):
        path = folder / (name + ".gz" if packed else name)
        path.write_bytes(gzip.compress(text.encode()) if packed else text.encode())
        read = list(read_rows(path))
        assert [row.values for row in read] == rows
        lines = [int(row.where.removeprefix(f"{path}:")) for row in read]
        if name == "d.jsonl":
            assert lines == [2 * i + 1 for i in range(len(rows))]
        else:
            assert lines == sorted(lines)
            for line in lines:
                assert "{" in text.split("\n")[line - 1]


def test_label_lines_keep_their_text(tmp_path: Path) -> None:
    path = tmp_path / "d.test"
    path.write_bytes("1 it 's  fine \u2028 .\r\n\nNUM:dist\tHow far ?\n".encode())
    rows = [(row.values, row.where) for row in read_rows(path)]
    assert rows == [
        ({"label": "1", "text": "it 's  fine \u2028 ."}, f"{path}:1"),
        ({"label": "NUM:dist", "text": "How far ?"}, f"{path}:3"),
    ]
