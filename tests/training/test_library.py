"""Training, converting, scoring and prompting as functions."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, get_type_hints

import pytest

import minigen
from minigen.errors import UsageError
from minigen.training.config import SETTINGS
from minigen.training.settings import TrainSettings

TINY: dict[str, Any] = {
    "layers": 1, "heads": 2, "width": 16, "context": 16, "tokenizer": "bytes", "steps": 4, "batch": 2,
    "eval_every": 2, "warmup": 1, "sample_tokens": 0,
}  # fmt: skip


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text("".join(f"The cat number {i} sat on the mat. " for i in range(200)))
    return path


def test_settings_are_those_of_the_table() -> None:
    names = {"from" if name == "from_model" else name for name in get_type_hints(TrainSettings)}
    assert names == SETTINGS.keys() - {"data"}


def test_a_model_of_ones_own(text: Path, tmp_path: Path, any_backend: str) -> None:
    steps: list[int] = []
    trained = minigen.train(
        text,
        tmp_path / "run",
        backend=any_backend,
        on_step=lambda report: steps.append(report.step),
        **TINY,
    )
    assert (trained.step, trained.stopped) == (4, False)
    assert len(steps) == 4
    assert trained.validation_loss is not None
    model = minigen.load(trained.folder, any_backend)
    assert len(model.generate("The cat", max_tokens=5, ignore_eos=True, seed=1)) > 0
    assert model.config["model_type"] == "llama"
    assert model.architecture.context == 16
    longer = minigen.train(
        [text],
        tmp_path / "more",
        from_model=str(trained.folder),
        backend=any_backend,
        steps=2,
        batch=2,
        warmup=1,
    )
    assert longer.step == 2


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "no training data"),
        ({"data": "x.txt"}, "out is missing"),
        ({"data": "x.txt", "out": "run", "resume_from": "run"}, "drop out and preset"),
        ({"data": "x.txt", "out": "run", "heads": 0}, "heads is 0"),
    ],
)
def test_what_is_refused(settings: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=message):
        minigen.train(**settings)


@pytest.mark.parametrize("quant", [4, "4"])
def test_convert(
    make_model: Callable[..., Path], tmp_path: Path, any_backend: str, quant: Any
) -> None:
    folder = make_model("llama", hidden_size=64, intermediate_size=64)
    minigen.convert(folder, tmp_path / "out", quant=quant, backend=any_backend)
    assert minigen.load(tmp_path / "out", any_backend).quant == "q4"
    assert minigen.load(folder, any_backend, quant=quant).quant == "q4"


def test_score(make_model: Callable[..., Path], any_backend: str) -> None:
    model = minigen.load(make_model("llama"), any_backend)
    score = minigen.score(model, "The cat sat on the mat.")
    assert score.tokens == 22
    assert score.bits_per_byte > 0


def test_prompts(make_model: Callable[..., Path], tmp_path: Path, any_backend: str) -> None:
    path = tmp_path / "capitals.prompt.toml"
    path.write_text(
        'format = 1\ndescription = "Capitals."\n'
        "[shots]\nn = [0, 1]\n"
        '[score]\nmetric = "exact"\n'
        '[[examples]]\ninput = "France"\noutput = "Paris"\n'
        '[[items]]\ninput = "Spain"\noutput = "Madrid"\n'
        '[[items]]\ninput = "Italy"\noutput = "Rome"\n'
    )
    model = minigen.load(make_model("llama", max_position_embeddings=512), any_backend)
    (found,) = minigen.run_prompts(model, path, limit=1)
    assert [summary.shots for summary in found.summary] == [0, 1]
    assert [len(run.items) for run in found.result.runs] == [1, 1]
