"""Prompt files on models: against transformers, against a second implementation of the metrics, on both backends."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import minigen
from minigen.errors import ContextError, TokenizerError
from minigen.evaluation.fewshot import load_prompt_file
from minigen.evaluation.fewshot.result import FileResult, ItemResult
from minigen.evaluation.fewshot.run import run_file, settings
from minigen.model import Model

WITH_KERNELS = True  # see conftest.py

TASKS = {  # sets of the shared folder, as a person would write them
    "sst2": """
format = 1
description = "Is the review positive or negative?"
template = "Review: {text}\\nAnswer:"
block_sep = "\\n\\n"
examples_file = "EVAL/sst2/stsa.binary.dev"
examples_limit = 20
items_file = "EVAL/sst2/stsa.binary.test"
items_limit = 6
choices = ["negative", "positive"]
labels = { 0 = "negative", 1 = "positive" }
[shots]
n = [0, 4]
pick = "balanced"
seeds = [0, 1]
""",
    "arc": """
format = 1
template = "{query}\\nAnswer:"
block_sep = "\\n\\n"
items_file = "EVAL/arc_easy.jsonl"
items_limit = 6
[score]
normalize = "byte"
""",
    "winogrande": """
format = 1
template = "{context}"
items_file = "EVAL/winogrande.jsonl"
items_limit = 6
""",
    "piqa": """
format = 1
template = "{query}\\nAnswer:"
items_file = "EVAL/piqa.jsonl"
items_limit = 6
[score]
normalize = "uncond"
""",
}
SMALL = """
format = 1
template = "{input}:"
choices = ["aa", "ab", "abc", "c"]
[[examples]]
input = "x"
output = "aa"
[[examples]]
input = "y"
output = "c"
[[items]]
input = "p"
output = "ab"
[[items]]
input = "qqq"
output = "c"
[[items]]
input = "p"
output = "aa"
[shots]
n = [0, 2]
"""


@pytest.fixture(params=["llama", "lstm", "lfm2"])
def model(
    request: pytest.FixtureRequest, tiny: Callable[[str], Path], backend: str, device: str
) -> Model:
    return minigen.load(tiny(request.param), backend=backend, device=device, dtype="float32")


def write(folder: Path, text: str, name: str = "t.prompt.toml") -> Path:
    (folder / name).write_text(text)
    return folder / name


def logprob(model: Model, prompt: str, answer: str) -> float:
    """One by one, the whole text each time."""
    tokenizer = model.needed_tokenizer
    start, ids = len(tokenizer.encode(prompt)), tokenizer.encode(prompt + answer)
    logits = model.logits([ids])[0].astype(np.float64)
    logprobs = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
    return float(sum(logprobs[i - 1, ids[i]] for i in range(start, len(ids))))


def flat(result: FileResult) -> list[ItemResult]:
    return [item for run in result.runs for item in run.items]


def test_choices_are_scored_as_one_by_one(model: Model, tmp_path: Path) -> None:
    result = run_file(model, load_prompt_file(write(tmp_path, SMALL)))
    assert [(run.shots, run.seed) for run in result.runs] == [(0, 0), (2, 0)]
    for run, before in zip(result.runs, ("", "x: aa\ny: c\n"), strict=True):
        for item, (question, answer) in zip(
            run.items, (("p:", "ab"), ("qqq:", "c"), ("p:", "aa")), strict=True
        ):
            wanted = [
                logprob(model, before + question, " " + choice)
                for choice in ("aa", "ab", "abc", "c")
            ]
            assert np.abs(np.subtract(item.choice_logprobs, wanted)).max() < 1e-4
            assert item.choice_tokens == (3, 3, 4, 2)
            assert item.output == item.choices[int(np.argmax(wanted))]
            assert item.correct == float(item.output == answer)
            assert item.input == question
    assert result.tokens_read + result.tokens_saved > 2 * result.tokens_read


@pytest.mark.parametrize("how", ["none", "token", "byte", "uncond"])
def test_normalisation_and_calibration(model: Model, tmp_path: Path, how: str) -> None:
    text = SMALL + f'[score]\nnormalize = "{how}"\ncalibrate = ["N/A", ""]\n'
    for item in flat(run_file(model, load_prompt_file(write(tmp_path, text)), shots=[0])):

        def score(question: str) -> Any:
            answers = [" " + choice for choice in item.choices]  # noqa: B023
            found = np.array([logprob(model, question, answer) for answer in answers])
            if how == "uncond":
                return found - [logprob(model, "Answer:", answer) for answer in answers]
            return (
                found
                / {"none": 1, "token": np.array([3, 3, 4, 2]), "byte": np.array([3, 3, 4, 2])}[how]
            )

        def softmax(x: Any) -> Any:
            return np.exp(x) / np.exp(x).sum()

        neutral = np.mean([softmax(score(f"{free}:")) for free in ("N/A", "")], axis=0)
        wanted = softmax(score(item.input)) / neutral
        assert item.choices[int(np.argmax(wanted))] == item.output
        assert np.exp(item.scores) / np.exp(item.scores).sum() == pytest.approx(
            wanted / wanted.sum(), rel=1e-3
        )


def test_generated_answers_are_those_of_generate(model: Model, tmp_path: Path) -> None:
    text = SMALL.replace('choices = ["aa", "ab", "abc", "c"]', "") + "[generate]\nmax_tokens = 6\n"
    result = run_file(model, load_prompt_file(write(tmp_path, text)))
    for run, before in zip(result.runs, ("", "x: aa\ny: c\n"), strict=True):
        for item in run.items:
            wanted = model.generate(before + item.input, max_tokens=6, temperature=0)
            assert item.output == wanted.removeprefix(" ")
            assert item.correct == float(item.output.strip() == item.answer)


def test_what_is_done_is_not_run_again(model: Model, tmp_path: Path) -> None:
    file = load_prompt_file(write(tmp_path, SMALL))
    whole = run_file(model, file)
    done = {(0, 0, 1): whole.runs[0].items[1], (2, 0, 0): whole.runs[1].items[0]}
    told: list[tuple[int, int]] = []
    totals: list[int] = []
    again = run_file(
        model,
        file,
        done=done,
        on_item=lambda n, seed, r: told.append((n, r.index)),
        on_start=totals.append,
    )
    assert [item.output for item in flat(again)] == [item.output for item in flat(whole)]
    assert sorted(told) == [(0, 0), (0, 2), (2, 1), (2, 2)]
    assert totals == [4]


def test_settings_are_run_once_each(tmp_path: Path) -> None:
    text = SMALL.replace("n = [0, 2]", 'n = [0, 1, 2]\npick = "random"\nseeds = [3, 4]')
    file = load_prompt_file(write(tmp_path, text))
    assert settings(file) == [(0, 3), (1, 3), (1, 4), (2, 3), (2, 4)]
    assert settings(file, [2]) == [(2, 3), (2, 4)]


def test_what_does_not_fit_is_an_error(
    tiny: Callable[[str], Path], make_model: Callable[..., Path], tmp_path: Path, backend: str
) -> None:
    long = load_prompt_file(write(tmp_path, SMALL.replace("qqq", "q" * 90)))
    with pytest.raises(
        ContextError, match=r"a text of 9[0-9] tokens exceeds the model's context of 64"
    ):
        run_file(minigen.load(tiny("llama"), backend=backend), long)
    with pytest.raises(TokenizerError, match="has no tokenizer"):
        run_file(minigen.load(make_model("llama", tokenizer=None), backend=backend), long)


# -- the shared sets on a real model --
@pytest.fixture(params=TASKS)
def task(request: pytest.FixtureRequest, shared: Path, tmp_path: Path) -> Path:
    text = TASKS[request.param].replace("EVAL", str(shared / "eval"))
    return write(tmp_path, text, f"{request.param}.prompt.toml")


def test_both_backends_agree(task: Path, shared: Path) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("mlx.core")
    file = load_prompt_file(task)
    results = [
        flat(
            run_file(
                minigen.load(shared / "models" / "stories260K", backend=name, device="cpu"), file
            )
        )
        for name in ("torch", "mlx")
    ]
    for one, other in zip(*results, strict=True):
        assert one.output == other.output
        assert np.abs(np.subtract(one.choice_logprobs, other.choice_logprobs)).max() < 1e-3


def test_transformers_gives_the_same(task: Path, shared: Path) -> None:
    """Likelihoods, choices and accuracy by plain code of another make: each text read whole by transformers."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    folder = shared / "models" / "stories260K"
    peer = transformers.LlamaForCausalLM.from_pretrained(folder, attn_implementation="eager").eval()
    tokenizer = transformers.PreTrainedTokenizerFast.from_pretrained(folder)
    file = load_prompt_file(task)
    found = run_file(minigen.load(folder, backend="torch", device="cpu"), file)

    def likelihood(prompt: str, answer: str) -> tuple[float, int]:
        own, ids = tokenizer(prompt)["input_ids"], tokenizer(prompt + answer)["input_ids"]
        with torch.no_grad():
            logits = peer(torch.tensor([ids])).logits[0].double().log_softmax(-1)
        return float(sum(logits[i - 1, ids[i]] for i in range(len(own), len(ids)))), len(ids) - len(
            own
        )

    from minigen.evaluation.fewshot import choose_examples, render

    for run in found.runs:
        right = []
        for item, row in zip(run.items, file.items, strict=True):
            prompts = render(file, choose_examples(file, run.shots, run.seed), row)
            pairs = [(prompt.text, answer) for prompt in prompts for answer in prompt.answers]
            wanted = [likelihood(*pair)[0] for pair in pairs]
            assert np.abs(np.subtract(item.choice_logprobs, wanted)).max() < 1e-4 * max(
                map(abs, [1, *wanted])
            )
            if file.score.normalize == "byte":
                wanted = [
                    x / len(answer.encode()) for x, (_, answer) in zip(wanted, pairs, strict=True)
                ]
            if file.score.normalize == "uncond":
                wanted = [
                    x - likelihood("Answer:", a)[0] for x, (_, a) in zip(wanted, pairs, strict=True)
                ]
            right.append(float(int(np.argmax(wanted)) == row.gold))
        assert np.mean(right) == np.mean([item.correct for item in run.items])


def test_examples_that_ship_run(tiny: Callable[[str], Path], backend: str) -> None:
    folder = Path(minigen.__file__).parent / "evaluation" / "fewshot" / "examples"
    files = sorted(folder.glob("*.prompt.toml"))
    assert len(files) >= 6
    model = minigen.load(tiny("lstm"), backend=backend)
    for path in files:
        file = load_prompt_file(path)
        result = run_file(model, file, shots=file.shots.n[:1])
        assert all(item.correct is not None for item in flat(result))
        json.dumps([item.scores for item in flat(result)])


def test_prompt_logprobs(model: Model, tmp_path: Path) -> None:
    result = run_file(
        model, load_prompt_file(write(tmp_path, SMALL)), shots=[2], prompt_logprobs=True
    )
    text = "x: aa\ny: c\nqqq:"
    tokens = result.runs[0].items[1].prompt_logprobs
    assert "".join(token for token, _ in tokens) == text
    assert tokens[0][1] is None
    for i, (token, value) in enumerate(tokens[1:], start=1):
        assert value == pytest.approx(logprob(model, text[:i], token), abs=1e-4)


def test_an_empty_prompt_has_no_logprobs(model: Model, tmp_path: Path) -> None:
    text = (
        SMALL.replace('"{input}:"', '"{input}"')
        .replace('input = "qqq"', 'input = ""')
        .replace("n = [0, 2]", "n = 2")
    )
    text = text.replace('block_sep = "', "").replace("format = 1", 'format = 1\nblock_sep = ""')
    result = run_file(model, load_prompt_file(write(tmp_path, text)), prompt_logprobs=True)
    assert len(result.runs[0].items[1].prompt_logprobs) == len("x aay c")
