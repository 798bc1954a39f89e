"""What each shape of row means, and what is left as it was written."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from minigen.evaluation.fewshot import Example, Item, PromptFile, Score, Shots, render_text

Load = Callable[..., PromptFile]


def load_row(load: Load, row: dict[str, Any], top: str = "") -> Item:
    """The row as an item; as an example it must mean the same."""
    data = json.dumps(row) + "\n"
    file = load(
        f'format = 1\nitems_file = "d.jsonl"\nexamples_file = "d.jsonl"\n{top}', **{"d.jsonl": data}
    )
    item, example = file.items[0], file.examples[0]
    fields = item.fields if not item.contexts else item.contexts[item.gold or 0]
    assert example == Example(fields, item.answer or "", "d.jsonl:1")
    return item


WHERE = "d.jsonl:1"


@pytest.mark.parametrize(
    ("row", "top", "item"),
    [
        ({"input": "a", "output": "b"}, "", Item({"input": "a"}, "b", (), (), WHERE)),
        ({"input": "2 + 2", "answer": 4}, "", Item({"input": "2 + 2"}, "4", (), (), WHERE)),
        (
            {"context": "Q\n\nA:", "completion": " b"},
            "",
            Item({"context": "Q\n\nA:", "input": "Q\n\nA:"}, "b", (), (), WHERE),
        ),
        (
            {"prompt": "a", "completion": "b"},
            "",
            Item({"prompt": "a", "input": "a"}, "b", (), (), WHERE),
        ),
        (
            {"prompt": "a", "completion": "  b"},
            "",
            Item({"prompt": "a", "input": "a"}, " b", (), (), WHERE),
        ),
        (
            {"prompt": "a", "completion": " b"},
            'answer_sep = ""\n',
            Item({"prompt": "a", "input": "a"}, " b", (), (), WHERE),
        ),
        ({"input": "a", "output": " b "}, "", Item({"input": "a"}, " b ", (), (), WHERE)),
        (
            {"query": "q", "choices": ["a", "b"], "gold": 1},
            "",
            Item({"query": "q", "input": "q"}, "b", ("a", "b"), (), WHERE, 1),
        ),
        (
            {"input": "q", "choices": ["a", "b"], "output": "a"},
            "",
            Item({"input": "q"}, "a", ("a", "b"), (), WHERE, 0),
        ),
        (
            {"input": "q", "output": "c"},
            'choices = ["a", "b"]\n',
            Item({"input": "q"}, "c", ("a", "b"), (), WHERE),
        ),
        (
            {"input": "q", "gold": 0},
            'choices = ["a", "b"]\n',
            Item({"input": "q"}, "a", ("a", "b"), (), WHERE, 0),
        ),
        (
            {"context_options": ["x", "y"], "continuation": " z.", "gold": 1},
            "",
            Item(
                {},
                "z.",
                (),
                ({"input": "x", "context": "x"}, {"input": "y", "context": "y"}),
                WHERE,
                1,
            ),
        ),
        ({"text": "one two\n\nthree"}, "", Item({"input": "one two"}, "three", (), (), WHERE)),
        (
            {"text": "one two", "label": 1},
            'labels = { 0 = "bad", 1 = "good" }\n',
            Item({"text": "one two", "input": "one two"}, "good", (), (), WHERE),
        ),
        (
            {"a": "x", "b": "y", "output": "z", "meta": {"n": 1}, "score": 0.5, "id": 7},
            'template = "{b} and {a}"\n',
            Item({"a": "x", "b": "y", "id": "7"}, "z", (), (), WHERE),
        ),
        # what the template uses is a field, whatever its name
        (
            {"question": "q", "answer": "x", "output": "yes"},
            'template = "{question}: is it {answer}?"\n',
            Item({"question": "q", "answer": "x"}, "yes", (), (), WHERE),
        ),
        (
            {"text": "one two", "output": "x"},
            'template = "{text}"\n',
            Item({"text": "one two", "input": "one two"}, "x", (), (), WHERE),
        ),
        # two names that `input` could stand for: it stands for neither
        (
            {"context": "c", "query": "q", "output": "x"},
            'template = "{context} {query}"\n',
            Item({"context": "c", "query": "q"}, "x", (), (), WHERE),
        ),
    ],
)
def test_shapes(load: Load, row: dict[str, Any], top: str, item: Item) -> None:
    assert load_row(load, row, top) == item


def test_labels_match_the_longest_prefix_up_to_a_colon(load: Load) -> None:
    top = 'format = 1\nitems_file = "d.txt"\nlabels = { NUM = "number", "NUM:dist" = "distance" }\n'
    data = "NUM a b\nNUM:dist a b\nNUM:count a b\nNUM:dist:far a b\n"
    answers = [item.answer for item in load(top, **{"d.txt": data}).items]
    assert answers == ["number", "distance", "number", "distance"]


def test_context_and_completion_come_out_as_they_are(load: Load) -> None:
    rows = [{"context": f"\n\nQ: {i}?\n\nA:", "completion": f" {i}"} for i in range(3)]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    top = 'format = 1\nblock_sep = ""\nitems_file = "d.jsonl"\nexamples_file = "d.jsonl"\n'
    file = load(top, **{"d.jsonl": text})
    whole = "".join(row["context"] + row["completion"] for row in rows)
    assert render_text(file, 2, 0, 2, with_answer=True) == whole


def test_rows_in_the_file_itself(load: Load) -> None:
    file = load("""\
format = 1
choices = ["yes", "no"]
items = [
  { input = "a", gold = 0 },
  { input = "b" },
]
[[examples]]
input = "c"
output = "no"
""")
    assert file.items == (
        Item({"input": "a"}, "yes", ("yes", "no"), (), "t.prompt.toml:4", 0),
        Item({"input": "b"}, None, ("yes", "no"), (), "t.prompt.toml:5"),
    )
    assert file.examples == (Example({"input": "c"}, "no", "t.prompt.toml:7"),)
    assert file.score.metric == "accuracy"


def test_settings(load: Load) -> None:
    items = '[[items]]\ninput = "a"\nchoices = ["b", "c"]\n'
    file = load(f"""\
format = 1
description = " d "
template = "{{input}}{{{{}}}}"
answer_sep = ""
block_sep = " | "
{items}
[generate]
temp = 0.5
stop = ["\\n"]
logit_bias = {{ 3 = -1.5 }}
[shots]
n = 4
pick = "random"
seeds = [3, 1]
[score]
metric = "accuracy"
normalize = "uncond"
uncond_context = "A:"
calibrate = ["", "N/A"]
""")
    assert (file.description, file.template, file.answer_sep, file.block_sep) == (
        " d ",
        "{input}{{}}",
        "",
        " | ",
    )
    assert file.generate == {"temperature": 0.5, "stop": ["\n"], "logit_bias": {3: -1.5}}
    assert file.shots == Shots((4,), "random", (3, 1))
    assert file.score == Score("uncond", "accuracy", ("", "N/A"), "A:")

    plain = load("format = 1\n" + items)
    assert (plain.description, plain.template, plain.answer_sep, plain.block_sep) == (
        "",
        "{input}",
        " ",
        "\n",
    )
    assert (plain.generate, plain.shots, plain.choices) == (
        {"temperature": 0},
        Shots((0,), "first", (0,)),
        (),
    )
    assert plain.score == Score("none", "accuracy", (), "Answer:")
    assert load(f"format = 1\n{items}[generate]\nbeams = 2\nseed = 1\n").generate == {
        "beams": 2,
        "seed": 1,
    }
