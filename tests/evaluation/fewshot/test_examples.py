"""The prompt files that ship, and the page that describes the format."""

from __future__ import annotations

import re
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path

import pytest

from minigen.cli.display.pages import page_text
from minigen.evaluation.fewshot import PromptFile, check, load_prompt_file, render_text
from minigen.evaluation.fewshot.load import GENERATE, SCORE, SHOTS, TOP
from minigen.evaluation.fewshot.rows import NAMES

Load = Callable[..., PromptFile]

PACKAGE = Path(str(files("minigen.evaluation.fewshot")))
EXAMPLES = sorted((PACKAGE / "examples").glob("*.prompt.toml"))
FORMAT = page_text("prompts")


def list_bytes(text: str) -> list[int]:
    return list(text.encode())


def test_there_is_one_for_each_shape() -> None:
    assert len(EXAMPLES) == 8
    used = {path.name for path in (PACKAGE / "examples" / "data").iterdir()}
    assert used == {
        name
        for path in EXAMPLES
        for name in re.findall(r'data/([\w.-]+)"', path.read_text("utf-8"))
    }


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_example_is_sound(path: Path) -> None:
    file = load_prompt_file(path)
    assert 5 <= len(file.items) <= 30
    assert all(item.answer for item in file.items)
    findings = check(file, list_bytes, 2048)
    assert [str(f) for f in findings if "begin alike" not in f.message] == []


def test_seed_example_prints_as_gpt3_had_it() -> None:
    file = load_prompt_file(PACKAGE / "examples" / "translate-en-fr.prompt.toml")
    assert file.shots.n == (0, 1, 3)
    assert [render_text(file, n, 0, 0) for n in file.shots.n] == [
        "Translate English to French:\ncheese =>",
        "Translate English to French:\nsea otter => loutre de mer\ncheese =>",
        "Translate English to French:\nsea otter => loutre de mer\npeppermint => menthe poivrée\n"
        "plush girafe => girafe peluche\ncheese =>",
    ]


def test_sums_are_right() -> None:
    file = load_prompt_file(PACKAGE / "examples" / "two-digit-addition.prompt.toml")
    for entry in (*file.examples, *file.items):
        match = re.fullmatch(r"\n\nQ: What is (\d+) plus (\d+)\?\n\nA:", entry.fields["context"])
        assert match is not None
        assert entry.answer == str(int(match[1]) + int(match[2]))


def test_page_begins_with_an_example_that_works(load: Load) -> None:
    match = re.search(r"```toml.*?\n(.*?)```.*?```text\n(.*?)\n```", FORMAT, re.DOTALL)
    assert match is not None
    file = load(match[1])
    assert render_text(file, 2, 0, 0) == match[2]
    assert [f for f in check(file, list_bytes, 512) if f.level == "error"] == []


@pytest.mark.parametrize("name", [*TOP, *SHOTS, *SCORE, *NAMES, "max_tokens", "stop", "temp"])
def test_page_names_every_key(name: str) -> None:
    assert re.search(rf"`\[*{name}\]*`|`\[\[?{name}\]?\]`|`{name}`", FORMAT), name


def test_page_names_no_key_that_is_not_there() -> None:
    table = re.search(r"\| key \|.*?\n\n", FORMAT, re.DOTALL)
    assert table is not None
    named = [
        name
        for line in table[0].strip().splitlines()[2:]
        for name in re.findall(r"`\[*(\w+)\]*`", line.split("|")[1])
    ]
    assert sorted(named) == sorted(TOP)
    assert {"max_tokens", "temp", "seed", "stop", "temperature"} <= set(GENERATE)
