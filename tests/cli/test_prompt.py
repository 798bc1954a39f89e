"""`minigen prompt` as it is typed: whole transcripts on tiny files, with a model only where it takes one."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import minigen.evaluation.fewshot.run
from minigen.evaluation.fewshot import PromptFile
from minigen.evaluation.fewshot.result import FileResult, ItemResult, RunResult

Run = Callable[..., tuple[int, str, str]]
Tiny = Callable[[str], Path]

GPT3 = """\
format = 1
description = "Translate English to French:"
template = "{input} =>"
[[examples]]
input = "sea otter"
output = "loutre de mer"
[[examples]]
input = "peppermint"
output = "menthe poivrée"
[[examples]]
input = "plush girafe"
output = "girafe peluche"
[[items]]
input = "cheese"
output = "fromage"
[[items]]
input = "bread"
output = "pain"
[generate]
max_tokens = 4
stop = ["\\n"]
[shots]
n = [0, 1, 3]
"""
ANIMALS = """\
format = 1
template = "{input}:"
choices = ["cat", "dog"]
[[examples]]
input = "miaow"
output = "cat"
[[examples]]
input = "woof"
output = "dog"
[[items]]
input = "purr"
output = "cat"
[[items]]
input = "bark"
output = "dog"
[[items]]
input = "howl"
output = "dog"
[shots]
n = [0, 2]
pick = "random"
seeds = [0, 1]
"""
OPEN = 'format = 1\ntemplate = "{input}?"\n[[items]]\ninput = "a\\nb"\n[[items]]\ninput = "c"\n'


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with some prompt files: messages then name them shortly."""
    monkeypatch.chdir(tmp_path)
    for name, text in (("french", GPT3), ("animals", ANIMALS), ("open", OPEN)):
        (tmp_path / f"{name}.prompt.toml").write_text(text)
    return tmp_path


class Oracle:
    """Stands for `run_file`: right for even numbers of shots + seed + item, tied where all three are zero."""

    def __init__(self) -> None:
        self.ran: list[tuple[int, int, int]] = []
        self.stop_after: int | None = None

    def __call__(
        self,
        model: Any,
        file: PromptFile,
        *,
        done: Any,
        on_item: Any,
        on_start: Any,
        prompt_logprobs: bool,
    ) -> Any:
        assert not prompt_logprobs
        settings = minigen.evaluation.fewshot.run.settings(file)
        on_start(len(settings) * len(file.items) - len(done))
        runs = []
        for n, seed in settings:
            items = []
            for index in range(len(file.items)):
                result = done.get((n, seed, index))
                if result is None:
                    if len(self.ran) == self.stop_after:
                        raise KeyboardInterrupt
                    self.ran.append((n, seed, index))
                    result = self.answer(file, index, n + seed + index)
                    on_item(n, seed, result)
                items.append(result)
            runs.append(RunResult(n, seed, tuple(items)))
        return FileResult(file.path, "not shown", tuple(runs), 1000, 3000, 0.25)

    def answer(self, file: PromptFile, index: int, number: int) -> ItemResult:
        item = file.items[index]
        right = number % 2 == 0
        output = (item.answer if right else None) or "é\x1b!"
        correct = None if item.answer is None else float(right)
        if not item.choices:
            return ItemResult(index, item.fields["input"], output, item.answer, correct)
        if number == 0:
            correct = 0.5
        scores = (-1.5, -1.5) if number == 0 else (-1.0, -2.0)
        tied = 2 if number == 0 else 1
        output = item.answer if right else next(c for c in item.choices if c != item.answer)
        return ItemResult(
            index,
            item.fields["input"],
            output or "",
            item.answer,
            correct,
            item.choices,
            scores,
            (1, 2),
            scores,
            tied,
        )


@pytest.fixture
def oracle(monkeypatch: pytest.MonkeyPatch) -> Oracle:
    found = Oracle()
    monkeypatch.setattr("minigen.evaluation.fewshot.run.run_file", found)
    return found


@pytest.fixture
def model(folder: Path, make_model: Callable[..., Path]) -> str:
    """A small model over bytes, as a path from the current folder."""
    make_model("llama", max_position_embeddings=512).rename(folder / "tiny")
    return "tiny"


# -- --print --
def test_the_prompts_are_laid_out_as_gpt3s(run_cli: Run, folder: Path) -> None:
    assert run_cli("prompt", "french.prompt.toml", "--print") == (
        0,
        "==> 0 shots, item 1 <==\n"
        "Translate English to French:\n"
        "cheese =>\n"
        "\n"
        "==> 1 shot, item 1 <==\n"
        "Translate English to French:\n"
        "sea otter => loutre de mer\n"
        "cheese =>\n"
        "\n"
        "==> 3 shots, item 1 <==\n"
        "Translate English to French:\n"
        "sea otter => loutre de mer\n"
        "peppermint => menthe poivrée\n"
        "plush girafe => girafe peluche\n"
        "cheese =>\n",
        "",
    )


def test_one_prompt_alone_has_no_heading(run_cli: Run, folder: Path) -> None:
    text = "Translate English to French:\nsea otter => loutre de mer\nbread =>\n"
    assert run_cli("prompt", "french.prompt.toml", "--print", "--shots", "1", "--item", "2") == (
        0,
        text,
        "",
    )


def test_headings_say_what_differs(run_cli: Run, folder: Path) -> None:
    words = (
        "prompt",
        "animals.prompt.toml",
        "open.prompt.toml",
        "--print",
        "--item",
        "all",
        "--limit",
        "1",
    )
    code, out, err = run_cli(*words)
    assert (code, err) == (0, "")
    assert re.findall("==> (.*) <==", out) == [
        "animals, 0 shots, seed 0, item 1",
        "animals, 2 shots, seed 0, item 1",
        "animals, 2 shots, seed 1, item 1",
        "open, 0 shots, item 1",
    ]
    message = "minigen: --item is 3, but open.prompt.toml has only 2 items\n"
    assert run_cli("prompt", "open.prompt.toml", "--print", "--item", "3") == (2, "", message)


# -- --check --
def test_check(run_cli: Run, folder: Path) -> None:
    (folder / "bad.prompt.toml").write_text(
        ANIMALS.replace('output = "dog"\n[shots]', 'output = "cow"\n[shots]')
    )
    (folder / "worse.prompt.toml").write_text("format = 2\n")
    code, out, err = run_cli(
        "prompt", "bad.prompt.toml", "worse.prompt.toml", "open.prompt.toml", "--check"
    )
    assert code == 1
    assert err == "minigen: worse.prompt.toml:1: format: is 2; it must be 1\n"
    assert out == (
        "bad.prompt.toml:16: error: the answer 'cow' is not among the choices; correct it, or add it to them\n"
        "bad.prompt.toml: 2 examples, 3 items: 1 error, 0 warnings\n"
        "open.prompt.toml:3: warning: no answer is given, so the item is not scored; give output, answer or gold "
        "(1 more like this)\n"
        "open.prompt.toml: warning: metric = exact without generate.stop: "
        "the output continues after the answer; set stop\n"
        "open.prompt.toml: 0 examples, 2 items: 0 errors, 2 warnings\n"
    )
    summary = "animals.prompt.toml: 2 examples, 3 items: 0 errors, 0 warnings\n"
    assert run_cli("prompt", "animals.prompt.toml", "--check") == (0, summary, "")
    code, out, err = run_cli("prompt", "animals.prompt.toml", "--check", "--shots", "0,9")
    assert (code, err) == (1, "")
    assert out.startswith(
        "animals.prompt.toml: error: shots.n has 9, but the number of examples is 2; "
    )


def test_check_with_a_model_reads_no_weights(run_cli: Run, folder: Path, model: str) -> None:
    (folder / model / "model.safetensors").unlink()
    config = folder / model / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"max_position_embeddings": 24}))
    code, out, err = run_cli("prompt", "animals.prompt.toml", "--check", "-m", model)
    assert (code, err) == (1, "")
    assert re.search(
        r": error: item 1 with 2 shots \(seed 0\) has \d+ tokens, and the context is 24; use fewer ",
        out,
    )


def test_what_cannot_be_scored_is_said_before_a_model_is_loaded(
    run_cli: Run, folder: Path, model: str
) -> None:
    (folder / model / "model.safetensors").unlink()
    (folder / "animals.prompt.toml").write_text(
        ANIMALS + "[score]\nnormalize = 'uncond'\nuncond_context = ''\n"
    )
    code, out, err = run_cli("prompt", "animals.prompt.toml", "--check", "-m", model)
    assert (code, err) == (1, "")
    assert out.startswith(
        "animals.prompt.toml:10: error: no token precedes the choices, after '', and this model's "
    )
    config = folder / model / "config.json"  # any tokenizer with an end of text will do
    config.write_text(
        json.dumps(json.loads(config.read_text()) | {"tokenizer": None, "eos_token_id": 0})
    )
    names = ["<eos>", *"catdogmiwfpurbkhl: \n"]
    vocab = {name: i for i, name in enumerate(dict.fromkeys(names))}
    split = {
        "type": "Split",
        "pattern": {"Regex": "[\\s\\S]"},
        "behavior": "Isolated",
        "invert": False,
    }
    tokenizer = {
        "model": {"type": "WordLevel", "vocab": vocab, "unk_token": "<eos>"},
        "pre_tokenizer": split,
    }
    (folder / model / "tokenizer.json").write_text(
        json.dumps({"version": "1.0", "added_tokens": []} | tokenizer)
    )
    summary = "animals.prompt.toml: 2 examples, 3 items: 0 errors, 0 warnings\n"
    assert run_cli("prompt", "animals.prompt.toml", "--check", "-m", model) == (0, summary, "")
    code, out, err = run_cli("prompt", "animals.prompt.toml", "--check")
    assert (code, out.count("no text before the choices"), err) == (0, 1, "")


# -- the table --
def test_one_file(run_cli: Run, folder: Path, model: str, oracle: Oracle) -> None:
    assert run_cli("prompt", "animals.prompt.toml", "-m", model) == (
        0,
        "shots  items       accuracy  chance   worst - best  seeds  ties\n"
        "    0      3  0.500 ± 0.289   0.500                           1\n"
        "    2      3  0.500 ± 0.000   0.500  0.333 - 0.667      2     0\n"
        "\n"
        "tiny: 1,000 tokens read, 3,000 saved (75.0 %), 0.2 s\n",
        "",
    )


def test_a_suite_is_one_table(run_cli: Run, folder: Path, model: str, oracle: Oracle) -> None:
    code, out, err = run_cli(
        "prompt", "french.prompt.toml", "animals.prompt.toml", "open.prompt.toml", "-m", model
    )
    assert code == 0
    assert out == (
        "file     shots  metric    items          score  chance   worst - best  seeds  ties  unscored\n"
        "french       0  exact         2  0.500 ± 0.500       -                           0         0\n"
        "             1  exact         2  0.500 ± 0.500       -                           0         0\n"
        "             3  exact         2  0.500 ± 0.500       -                           0         0\n"
        "animals      0  accuracy      3  0.500 ± 0.289   0.500                           1         0\n"
        "             2  accuracy      3  0.500 ± 0.000   0.500  0.333 - 0.667      2     0         0\n"
        "open         0  exact         0              -       -                           0         2\n"
        "\n"
        "tiny: 3,000 tokens read, 9,000 saved (75.0 %), 0.8 s\n"
    )
    assert err.splitlines()[0] == (
        "minigen: warning: open.prompt.toml:3: no answer is given, so the item is not scored; "
        "give output, answer or gold (1 more like this)"
    )


@pytest.mark.parametrize("width", [60, 120])
def test_a_table_fits_its_terminal(
    folder: Path, oracle: Oracle, width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    from minigen.cli.prompt.report import Report
    from minigen.cli.prompt.table import table
    from minigen.evaluation.fewshot import load_prompt_file

    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    reports = []
    for name in ("animals", "animals-with-a-long-name"):
        file = load_prompt_file("animals.prompt.toml")
        result = oracle(
            None,
            file,
            done={},
            on_item=lambda *_: None,
            on_start=lambda _: None,
            prompt_logprobs=False,
        )
        reports.append(Report(result, name, "accuracy"))
    styled = table(reports, width, terminal=True)
    plain = table(reports, width)
    assert styled != plain == re.sub("\x1b\\[[0-9;]*m", "", styled)
    assert max(map(len, plain.splitlines())) <= width
    assert "…" not in plain
    if width == 120:
        numbers = "0      3  0.500 ± 0.289   0.500                           1"
        assert f"\nanimals-with-a-long-name      {numbers}\n" in plain
    else:
        assert plain.startswith("animals\nshots items ")
        head = "shots items      accuracy chance  worst - best seeds ties"
        numbers = "    0     3 0.500 ± 0.289  0.500                        1"
        assert f"\n\nanimals-with-a-long-name\n{head}\n{numbers}\n" in plain
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b[3" not in table(reports, width, terminal=True)  # bold may stay; colours may not


def test_a_narrow_terminal_gets_fewer_columns(folder: Path, oracle: Oracle) -> None:
    from minigen.cli.prompt.report import Report
    from minigen.cli.prompt.table import table
    from minigen.evaluation.fewshot import load_prompt_file

    reports = []
    for name in ("animals", "open"):
        file = load_prompt_file(f"{name}.prompt.toml")
        result = oracle(
            None,
            file,
            done={},
            on_item=lambda *_: None,
            on_start=lambda _: None,
            prompt_logprobs=False,
        )
        reports.append(Report(result, name, file.score.metric))
    assert table(reports, 60) == (
        "animals (accuracy)\n"
        "shots items         score chance  worst - best ties unscored\n"
        "    0     3 0.500 ± 0.289  0.500                  1        0\n"
        "    2     3 0.500 ± 0.000  0.500 0.333 - 0.667    0        0\n"
        "\n"
        "open (exact)\n"
        "shots items         score chance  worst - best ties unscored\n"
        "    0     0             -      -                  0        2\n"
    )
    assert len(table(reports, 30).splitlines()[1]) > 30  # it runs over, whole


def test_answers_are_cut_to_the_terminal(folder: Path) -> None:
    from minigen.cli.display.tables import render

    rows = [["1", "no", "x" * 40, "y" * 30], ["2", "a longer one", "x", "y"]]
    assert render(
        ["item", "answer", "output", "input"], rows, 50, False, ("answer", "output", "input")
    ) == (
        "item  answer        output          input\n"
        "   1  no            xxxxxxxxxxxxx…  yyyyyyyyyyyyy…\n"
        "   2  a longer one  x               y\n"
    )


def test_answers(run_cli: Run, folder: Path, model: str, oracle: Oracle) -> None:
    code, out, err = run_cli(
        "prompt", "french.prompt.toml", "-m", model, "--answers", "--shots", "0,1"
    )
    assert (code, err) == (0, "")
    assert out == (
        "==> 0 shots <==\n"
        "item  correct  answer   output   input\n"
        "   1        1  fromage  fromage  cheese\n"
        "   2        0  pain     é\ufffd!      bread\n"
        "\n"
        "==> 1 shot <==\n"
        "item  correct  answer   output  input\n"
        "   1        0  fromage  é\ufffd!     cheese\n"
        "   2        1  pain     pain    bread\n"
        "\n"
        "shots  items          exact\n"
        "    0      2  0.500 ± 0.500\n"
        "    1      2  0.500 ± 0.500\n"
        "\n"
        "tiny: 1,000 tokens read, 3,000 saved (75.0 %), 0.2 s\n"
    )


def test_answers_are_shown_where_nothing_is_scored(
    run_cli: Run, folder: Path, model: str, oracle: Oracle
) -> None:
    code, out, _ = run_cli("prompt", "open.prompt.toml", "-m", model)
    assert code == 0
    assert out == (
        "item  output  input\n"
        "   1  é\ufffd!     a b\n"
        "   2  é\ufffd!     c\n"
        "\n"
        "tiny: 1,000 tokens read, 3,000 saved (75.0 %), 0.2 s\n"
    )


# -- for programs --
def test_json(run_cli: Run, folder: Path, model: str, oracle: Oracle) -> None:
    code, out, _ = run_cli(
        "prompt", "animals.prompt.toml", "open.prompt.toml", "-m", model, "--json"
    )
    assert (code, out.count("\n")) == (0, 2)
    animals, unscored = map(json.loads, out.splitlines())
    first = ["file", "model", "results", "tokens_read", "tokens_saved", "seconds", "by_shots"]
    assert list(animals) == list(unscored) == first
    assert (animals["file"], animals["model"], animals["tokens_saved"]) == (
        "animals.prompt.toml",
        "tiny",
        3000,
    )
    assert [(r["shots"], r["seed"], r["n"], r["ties"]) for r in animals["results"]] == [
        (0, 0, 3, 1),
        (2, 0, 3, 0),
        (2, 1, 3, 0),
    ]
    result = animals["results"][0]
    assert list(result) == ["shots", "seed", "accuracy", "stderr", "n", "items", "ties", "unscored"]
    assert (result["accuracy"], result["stderr"]) == (0.5, pytest.approx(1 / 12**0.5))
    assert result["items"][0] == {
        "input": "purr",
        "output": "cat",
        "answer": "cat",
        "choice_logprobs": [-1.5, -1.5],
        "choice_tokens": [1, 2],
        "index": 0,
        "correct": 0.5,
        "choices": ["cat", "dog"],
        "scores": [-1.5, -1.5],
        "tied": 2,
    }
    few = animals["by_shots"][1]
    assert (few["lowest"], few["highest"], few["seeds"]) == (
        pytest.approx(1 / 3),
        pytest.approx(2 / 3),
        2,
    )
    assert (unscored["results"][0]["accuracy"], unscored["results"][0]["unscored"]) == (None, 2)


def test_csv(run_cli: Run, folder: Path, model: str, oracle: Oracle) -> None:
    words = (
        "prompt",
        "animals.prompt.toml",
        "french.prompt.toml",
        "-m",
        model,
        "--csv",
        "--shots",
        "0,2",
    )
    code, out, err = run_cli(*words)
    assert (code, re.sub(r"(\.\d{12})\d+", r"\1", out), err) == (
        0,
        "file,model,metric,shots,seed,n,accuracy,stderr,ties,unscored\n"
        "animals.prompt.toml,tiny,accuracy,0,0,3,0.5,0.288675134594,1,0\n"
        "animals.prompt.toml,tiny,accuracy,2,0,3,0.666666666666,0.333333333333,0,0\n"
        "animals.prompt.toml,tiny,accuracy,2,1,3,0.333333333333,0.333333333333,0,0\n"
        "french.prompt.toml,tiny,exact,0,0,2,0.5,0.5,0,0\n"
        "french.prompt.toml,tiny,exact,2,0,2,0.5,0.5,0,0\n",
        "",
    )


# -- --jsonl: written, read again --
def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_finished_items_are_not_run_again(
    run_cli: Run, folder: Path, model: str, oracle: Oracle
) -> None:
    words = (
        "prompt",
        "animals.prompt.toml",
        "french.prompt.toml",
        "-m",
        model,
        "--jsonl",
        "run.jsonl",
    )
    code, whole, err = run_cli(*words)
    assert (code, err) == (0, "")
    lines = lines_of(folder / "run.jsonl")
    assert len(lines) == len(oracle.ran) == 9 + 6
    assert list(lines[0])[:9] == [
        "file",
        "file_hash",
        "model",
        "fingerprint",
        "dtype",
        "shots",
        "seed",
        "index",
        "input",
    ]
    assert (lines[0]["file"], lines[0]["model"], lines[0]["dtype"]) == (
        "animals.prompt.toml",
        "tiny",
        "float32",
    )
    oracle.ran.clear()
    assert run_cli(*words) == (0, whole, "minigen: run.jsonl has 15 finished items\n")
    assert oracle.ran == []
    # Another number of shots is the same file; so is a comment, or the same files at another place.
    (folder / "animals.prompt.toml").write_text(
        "# a comment\n" + ANIMALS.replace("[0, 2]", "[0, 1, 2]")
    )
    assert run_cli(*words)[0] == 0
    assert oracle.ran == [(1, seed, index) for seed in (0, 1) for index in (0, 1, 2)]


def test_a_torn_last_line_is_dropped(
    run_cli: Run, folder: Path, model: str, oracle: Oracle
) -> None:
    words = ("prompt", "animals.prompt.toml", "-m", model, "--jsonl", "run.jsonl")
    code, whole, _ = run_cli(*words)
    assert code == 0
    data = (folder / "run.jsonl").read_bytes()
    kept = data[: data.index(b"\n", data.index(b"\n") + 1) + 1]
    for cut in (len(kept) + 5, len(kept) + 80, len(data) - 1):
        oracle.ran.clear()
        (folder / "run.jsonl").write_bytes(data[:cut])
        code, out, err = run_cli(*words)
        line = 3 if cut < len(data) - 1 else 9
        assert err == (
            f"minigen: warning: run.jsonl:{line}: is incomplete and dropped; its item runs again\n"
            f"minigen: run.jsonl has {line - 1} finished items\n"
        )
        assert (code, out, len(oracle.ran)) == (0, whole, 10 - line)
        assert (folder / "run.jsonl").read_bytes() == data


def test_ctrl_c_says_how_to_go_on(run_cli: Run, folder: Path, model: str, oracle: Oracle) -> None:
    words = ("prompt", "french.prompt.toml", "-m", model)
    oracle.stop_after = 4
    advice = "with --jsonl FILE a run can be continued after it is interrupted"
    assert run_cli(*words) == (130, "", f"minigen: interrupted; {advice}\n")
    oracle.ran.clear()
    advice = "4 finished items are in run.jsonl: the same command continues from there"
    assert run_cli(*words, "--jsonl", "run.jsonl") == (130, "", f"minigen: interrupted; {advice}\n")
    oracle.stop_after = None
    assert run_cli(*words, "--jsonl", "run.jsonl")[0] == 0
    assert len(oracle.ran) == len(set(oracle.ran)) == 6


REFUSED: dict[str, tuple[Callable[[Path], object], str]] = {
    "changed": (
        lambda f: (f / "animals.prompt.toml").write_text(ANIMALS.replace("howl", "howls")),
        "run.jsonl:1: is of animals.prompt.toml before it, its data or the scoring of choices changed; ",
    ),
    "another file": (
        lambda f: (f / "animals.prompt.toml").unlink(),
        "run.jsonl:1: is of animals.prompt.toml, which is not among the files; ",
    ),
    "weights changed": (
        lambda f: (f / "tiny" / "config.json").write_text(
            (f / "tiny" / "config.json").read_text() + " "
        ),
        "run.jsonl:1: was made by an earlier version of tiny; ",
    ),
    "another dtype": (
        lambda f: (f / "run.jsonl").write_text(
            (f / "run.jsonl").read_text().replace("float32", "float16")
        ),
        "run.jsonl:1: was made by tiny in float16, and this is tiny in float32; ",
    ),
    "no JSON": (
        lambda f: (f / "run.jsonl").write_text((f / "run.jsonl").read_text() + "{\n"),
        "run.jsonl:10: is not a finished item; ",
    ),
    "other JSON": (
        lambda f: (f / "run.jsonl").write_text('{"file": "a"}\n'),
        "run.jsonl:1: is not a finished item; ",
    ),
    "another's last line": (
        lambda f: (f / "run.jsonl").write_text("precious"),
        "run.jsonl:1: is not a finished item; ",
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_a_jsonl_of_something_else_is_refused(
    run_cli: Run, folder: Path, model: str, oracle: Oracle, what: str
) -> None:
    words = ("-m", model, "--jsonl", "run.jsonl")
    assert run_cli("prompt", "animals.prompt.toml", *words)[0] == 0
    spoil, message = REFUSED[what]
    spoil(folder)
    before = (folder / "run.jsonl").read_bytes()
    oracle.ran.clear()
    name = (
        "animals.prompt.toml" if (folder / "animals.prompt.toml").exists() else "french.prompt.toml"
    )
    wanted = f"minigen: {message}give another --jsonl file, or remove this one\n"
    assert run_cli("prompt", name, *words) == (1, "", wanted)
    assert (oracle.ran, (folder / "run.jsonl").read_bytes()) == ([], before)


@pytest.mark.usefixtures("oracle")
def test_choices_scored_by_another_rule_are_not_mixed_in(
    run_cli: Run, folder: Path, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("-m", model, "--jsonl")
    with monkeypatch.context() as before:
        before.setattr("minigen.cli.prompt.journal.SCORED", "each from its own start")
        assert run_cli("prompt", "animals.prompt.toml", *words, "run.jsonl")[0] == 0
        assert run_cli("prompt", "french.prompt.toml", *words, "other.jsonl")[0] == 0
    code, out, err = run_cli("prompt", "animals.prompt.toml", *words, "run.jsonl")
    assert (code, out) == (1, "")
    assert err.startswith(
        "minigen: run.jsonl:1: is of animals.prompt.toml before it, its data or the scoring of choices"
    )
    assert (
        run_cli("prompt", "french.prompt.toml", *words, "other.jsonl")[0] == 0
    )  # what is generated is the same


@pytest.mark.usefixtures("oracle")
def test_a_jsonl_of_another_precision(
    run_cli: Run, folder: Path, make_model: Callable[..., Path]
) -> None:
    shape = {"hidden_size": 64, "intermediate_size": 128, "max_position_embeddings": 512}
    make_model("llama", **shape).rename(folder / "wide")
    words = (
        "prompt",
        "animals.prompt.toml",
        "-m",
        "wide",
        "--device",
        "cpu",
        "--jsonl",
        "run.jsonl",
    )
    assert run_cli(*words)[0] == 0
    message = "run.jsonl:1: was made by wide in float32, and this is wide in float32 q8; "
    wanted = f"minigen: {message}give another --jsonl file, or remove this one\n"
    assert run_cli(*words, "--quant", "8") == (1, "", wanted)


def test_a_jsonl_that_cannot_be_used(
    run_cli: Run, folder: Path, model: str, oracle: Oracle
) -> None:
    import fcntl

    def says(path: str) -> tuple[int, str, str]:
        return run_cli("prompt", "animals.prompt.toml", "-m", model, "--jsonl", path)

    assert says(".") == (1, "", "minigen: cannot use .: Is a directory; give a file for --jsonl\n")
    missing = "minigen: cannot use no/x: No such file or directory; give a file for --jsonl\n"
    assert says("no/x") == (1, "", missing)
    (folder / "link.jsonl").symlink_to("run.jsonl")
    with (folder / "run.jsonl.lock").open("wb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        advice = "wait for it, or give another --jsonl file, or remove this one"
        for name in ("run.jsonl", "link.jsonl"):
            assert says(name) == (
                1,
                "",
                f"minigen: {name} is being written by another run; {advice}\n",
            )
    assert oracle.ran == []
    assert says("run.jsonl")[0] == 0
    assert not (folder / "run.jsonl.lock").exists()


# -- the real thing --
def test_a_run_that_was_cut_off_gives_what_a_whole_one_gives(
    run_cli: Run, folder: Path, model: str, backend: str
) -> None:
    words = (
        "prompt",
        "animals.prompt.toml",
        "french.prompt.toml",
        "-m",
        model,
        "--backend",
        backend,
        "--json",
    )
    code, out, err = run_cli(*words, "--jsonl", "run.jsonl")
    assert (code, err) == (0, "")
    whole = [json.loads(line) for line in out.splitlines()]
    data = (folder / "run.jsonl").read_bytes().splitlines(keepends=True)
    (folder / "run.jsonl").write_bytes(b"".join(data[:5]) + data[5][:40])
    code, out, err = run_cli(*words, "--jsonl", "run.jsonl")
    assert (code, err.count("\n")) == (0, 2)
    resumed = [json.loads(line) for line in out.splitlines()]
    for one, other in zip(whole, resumed, strict=True):
        assert one["file"] == other["file"]
        for a, b in zip(one["results"], other["results"], strict=True):
            assert [item["output"] for item in a["items"]] == [
                item["output"] for item in b["items"]
            ]
            assert a["accuracy"] == b["accuracy"]
    assert resumed[0]["tokens_read"] < whole[0]["tokens_read"]
    assert len(lines_of(folder / "run.jsonl")) == len(data) == 9 + 6


def test_items_without_what_is_asked_for_run_again(
    run_cli: Run, folder: Path, model: str, backend: str
) -> None:
    words = (
        "prompt",
        "animals.prompt.toml",
        "-m",
        model,
        "--backend",
        backend,
        "--json",
        "--jsonl",
        "run.jsonl",
    )
    assert run_cli(*words)[0] == 0
    code, out, _ = run_cli(*words, "--prompt-logprobs")
    first = json.loads(out)["results"][0]["items"][0]["prompt_logprobs"]
    assert (code, "".join(token for token, _ in first), first[0][1]) == (0, "purr:", None)
    code, out, _ = run_cli(*words, "--prompt-logprobs")
    again = json.loads(out)
    assert (code, again["tokens_read"]) == (0, 0)
    assert again["results"][0]["items"][0]["prompt_logprobs"] == first


def test_verbose(run_cli: Run, folder: Path, model: str, backend: str) -> None:
    words = (
        "prompt",
        "animals.prompt.toml",
        "-m",
        model,
        "--backend",
        backend,
        "--limit",
        "1",
        "-v",
    )
    code, out, err = run_cli(*words)
    assert (code, out.splitlines()[1].split()[:2]) == (0, ["0", "1"])
    assert re.fullmatch(
        rf"minigen: tiny on {backend} \(cpu, float32\), loaded in [\d.]+ s\nminigen: peak memory [\d.]+ MiB\n",
        err,
    )


def test_plot(run_cli: Run, folder: Path, model: str, oracle: Oracle) -> None:
    pytest.importorskip("matplotlib")
    words = ("prompt", "animals.prompt.toml", "-m", model, "--plot")
    assert run_cli(*words, "p.png")[0] == 0
    assert (folder / "p.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert run_cli(*words, "p.pdf") == (2, "", "minigen: --plot is p.pdf: it must end in .png\n")
    assert run_cli(*words, "no/p.png") == (
        1,
        "",
        "minigen: cannot write no/p.png: there is no folder no\n",
    )


# -- what is refused --
def test_errors_of_the_check_end_a_run_before_it_begins(
    run_cli: Run, folder: Path, model: str, oracle: Oracle, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(args: object) -> None:
        raise AssertionError("a model was loaded")

    message = "minigen: french.prompt.toml: shots.n has 7, but the number of examples is 3; add some, or lower it\n"
    code, out, err = run_cli("prompt", "french.prompt.toml", "-m", model, "--shots", "700")
    assert (code, out) == (1, "")
    with monkeypatch.context() as patch:
        patch.setattr("minigen.cli.prompt.run.load_model", never)
        assert run_cli("prompt", "french.prompt.toml", "-m", model, "--shots", "7") == (
            1,
            "",
            message,
        )
    config = folder / model / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"max_position_embeddings": 60}))
    code, out, err = run_cli("prompt", "french.prompt.toml", "animals.prompt.toml", "-m", model)
    assert (code, out, err.count("\n"), oracle.ran) == (1, "", 1, [])
    assert re.search(
        r"and the context is 60; use fewer shots, .*\(\d more like this\).* \(1 more error: see --check\)",
        err,
    )


BAD_USAGE = {
    "no file": ([], "the following arguments are required: FILE (see minigen prompt --help)"),
    "shots": (
        ["x", "--shots", "1,1"],
        "argument --shots: '1,1' is not a list of different whole numbers such as 0,1,4 ",
    ),
    "seeds": (
        ["x", "--seeds", "-1"],
        "argument --seeds: '-1' is not a list of different whole numbers such as 0,1,4 ",
    ),
    "limit": (["x", "--limit", "0"], "argument --limit: '0' is not a whole number >= 1 "),
    "two outputs": (["x", "--json", "--csv"], "argument --csv: not allowed with argument --json "),
}


@pytest.mark.parametrize("what", BAD_USAGE)
def test_bad_usage(run_cli: Run, what: str) -> None:
    words, message = BAD_USAGE[what]
    code, out, err = run_cli("prompt", *words)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert re.sub("^minigen prompt: ", "minigen: ", err).startswith(f"minigen: {message}")


def test_a_file_given_twice(run_cli: Run, folder: Path) -> None:
    message = "minigen: open.prompt.toml is given twice: name each file once\n"
    assert run_cli("prompt", "open.prompt.toml", "open.prompt.toml") == (2, "", message)


# -- a real terminal --
def test_the_help_imports_nothing_heavy() -> None:
    run = "try: m.main(['prompt', '--help'])\nexcept SystemExit: print(sorted(sys.modules))"
    code = f"import sys, minigen.cli.main as m\n{run}"
    out = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout
    assert "--jsonl FILE" in out
    for heavy in ("numpy", "torch", "mlx", "rich", "matplotlib"):
        assert f"'{heavy}'" not in out
