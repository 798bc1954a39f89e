"""Every data set beside the repository through a prompt file of a few lines, its texts as they are in the data."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from minigen.evaluation.fewshot import PromptFile, check, load_prompt_file, render, render_text

Make = Callable[[str], PromptFile]


@pytest.fixture
def make(shared: Path, tmp_path: Path) -> Make:
    """make(text): the prompt file, with @ in it standing for the folder of data sets."""

    def write(text: str) -> PromptFile:
        path = tmp_path / "t.prompt.toml"
        path.write_text(
            "format = 1\n" + text.replace("@", (shared / "eval").as_posix()), encoding="utf-8"
        )
        return load_prompt_file(path)

    return write


def lines(path: Path) -> list[Any]:
    data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    return [json.loads(line) for line in data.decode().split("\n") if line]


def errors(file: PromptFile) -> list[str]:
    return [str(f) for f in check(file) if f.level == "error"]


def test_gpt3_tasks(make: Make, shared: Path) -> None:
    paths = sorted((shared / "eval" / "gpt3_synthetic").iterdir())
    assert len(paths) == 18
    for path in paths:
        source = f'block_sep = ""\nitems_file = "@/gpt3_synthetic/{path.name}"\n'
        file = make(
            source
            + source.split("\n")[1].replace("items", "examples")
            + '\n[generate]\nstop = ["\\n"]\n'
        )
        whole = ["".join((row["context"], row["completion"])) for row in lines(path)]
        assert len(file.items) == len(whole)
        for item, text in zip(file.items, whole, strict=True):
            (prompt,) = render(file, [], item)
            assert prompt.text + prompt.answers[0] == text
        assert render_text(file, 3, 0, 3, with_answer=True) == "".join(whole[:4])
        assert errors(file) == []


def test_word_tasks(make: Make, shared: Path) -> None:
    paths = sorted((shared / "eval" / "word_tasks").iterdir())
    assert len(paths) == 8
    for path in paths:
        file = make(
            f'template = "{{input}} ->"\nitems_file = "@/word_tasks/{path.name}"\n[generate]\nstop = ["\\n"]\n'
        )
        rows = json.loads(path.read_text("utf-8"))
        assert [(item.fields["input"], item.answer) for item in file.items] == [
            (r["input"], r["output"]) for r in rows
        ]
        assert errors(file) == []
        text = path.read_text("utf-8").split("\n")
        for item in file.items[:20]:
            assert "{" in text[int(item.where.rpartition(":")[2]) - 1]


@pytest.mark.parametrize("name", ["stsa.binary.train", "stsa.binary.dev", "stsa.binary.test"])
def test_sst2(make: Make, shared: Path, name: str) -> None:
    file = make(
        f'choices = ["negative", "positive"]\nlabels = {{ 0 = "negative", 1 = "positive" }}\n'
        f'items_file = "@/sst2/{name}"\n'
    )
    rows = (shared / "eval" / "sst2" / name).read_text("utf-8").removesuffix("\n").split("\n")
    assert [f"{item.gold} {item.fields['input']}" for item in file.items] == rows
    assert errors(file) == []


@pytest.mark.parametrize("name", ["train", "test"])
def test_trec(make: Make, shared: Path, name: str) -> None:
    labels = ("ABBR", "DESC", "ENTY", "HUM", "LOC", "NUM")
    table = "".join(f'{label} = "{label.lower()}"\n' for label in labels)
    file = make(
        f'items_file = "@/trec/{name}.txt"\nchoices = {[label.lower() for label in labels]}\n[labels]\n{table}'
    )
    rows = (
        (shared / "eval" / "trec" / f"{name}.txt").read_text("utf-8").removesuffix("\n").split("\n")
    )
    for item, row in zip(file.items, rows, strict=True):
        assert row.startswith(str(item.answer).upper() + ":")
        assert row.endswith(" " + item.fields["input"])
        assert item.gold == labels.index(row.partition(":")[0])
    assert errors(file) == []


@pytest.mark.parametrize("name", ["arc_easy", "piqa"])
def test_multiple_choice(make: Make, shared: Path, name: str) -> None:
    file = make(f'template = "{{query}}\\nAnswer:"\nitems_file = "@/{name}.jsonl"\n')
    rows = lines(shared / "eval" / f"{name}.jsonl")
    assert file.score.metric == "accuracy"
    for item, row in zip(file.items, rows, strict=True):
        (prompt,) = render(file, [], item)
        assert prompt.text == row["query"] + "\nAnswer:"
        assert prompt.answers == tuple(" " + choice for choice in row["choices"])
        assert (item.gold, item.answer) == (row["gold"], row["choices"][row["gold"]])
    assert errors(file) == []


def test_winogrande(make: Make, shared: Path) -> None:
    file = make('items_file = "@/winogrande.jsonl"\n')
    for item, row in zip(file.items, lines(shared / "eval" / "winogrande.jsonl"), strict=True):
        assert [p.text for p in render(file, [], item)] == row["context_options"]
        assert {p.answers for p in render(file, [], item)} == {(" " + row["continuation"],)}
        assert item.gold == row["gold"]
    assert errors(file) == []


def test_lambada(make: Make, shared: Path) -> None:
    file = make('items_file = "@/lambada_test.jsonl"\n[generate]\nstop = ["\\n"]\n')
    rows = lines(shared / "eval" / "lambada_test.jsonl")
    same = 0
    for item, row in zip(file.items, rows, strict=True):
        (prompt,) = render(file, [], item)
        assert (prompt.text + prompt.answers[0]).split() == row["text"].split()
        same += prompt.text + prompt.answers[0] == row["text"]
    assert len(rows) - same == 7  # a line break, not a space, stands before the last word
    assert errors(file) == []
