"""Training measured: the same steps as the trainer makes, their operations, and what recipes say."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from minigen.benchmark import run, training
from minigen.benchmark.plan import Case, model_of
from minigen.benchmark.session import Timed
from minigen.benchmark.training import TrainedSubject, recipe_of
from minigen.errors import UsageError
from minigen.models.costs import training_flops
from minigen.tree import flatten


def test_steps_change_the_weights(
    tiny: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch, backend: str, device: str
) -> None:
    subject = TrainedSubject(**model_of(str(tiny("llama"))), backend=backend, device=device)
    assert not subject.takes(Case("pp", 8))
    session = subject.session()
    session.begin()
    assert session.load() is None
    before = flatten(session.trainer.weights())
    monkeypatch.setattr(training, "SECONDS", 1e-9)
    timed = session.run(Case("train", 8, batch=2))
    assert timed.steps_s == [timed.seconds]
    assert session.steps == 1
    after = flatten(session.trainer.weights())
    assert all(np.abs(after[path] - x).max() > 0 for path, x in before.items())


def test_the_figures(tiny: Callable[[str], Path]) -> None:
    subject = TrainedSubject(**model_of(str(tiny("gpt2"))), backend="torch")
    about = {"device": "cpu", "dtype": "float32", "threads": 1}
    contestant = run.Contestant(subject, None, about, bandwidth=1e9, peak=1e9)  # type: ignore[arg-type]
    case = Case("train", 16, batch=4)
    assert (case.name, case.before) == ("train b4x16", 0)
    found = run.result(contestant, case, [Timed(0.5, steps_s=[0.4, 0.6])], 2**40)
    flops = training_flops(subject.architecture(), 16)
    assert found.samples_tps == [128]
    assert (found.p50_ms, found.limit_by, found.in_cache, found.bytes_per_token) == (
        500,
        "compute",
        None,
        None,
    )
    assert found.flops_per_token == pytest.approx(flops)
    assert found.share == pytest.approx(128 * flops / 1e9)


def test_recipes(tmp_path: Path) -> None:
    fields, config = recipe_of("baby")
    assert (fields["model"], fields["dropout"], config.schedule.batch, config.model.context) == (
        "baby recipe",
        0.2,
        64,
        256,
    )
    assert TrainedSubject(**fields, backend="torch").architecture().vocab_size == 65
    fields, _ = recipe_of("stories")
    assert (fields["stored"], fields["compile"]) == ("bfloat16", True)
    assert TrainedSubject(**fields, backend="torch").architecture().vocab_size == 2048
    path = tmp_path / "r.toml"
    path.write_text(
        '[model]\nvocab = 300\nwidth = 32\n[data]\ntokenizer = "gpt2"\n[optimizer]\noptimizer = "muon"\n'
    )
    fields, _ = recipe_of(str(path))
    assert fields["optimizer"].name == "muon"
    assert fields["config"]["vocab_size"] == 300
    path.write_text('[data]\ntokenizer = "somewhere"\n')
    with pytest.raises(UsageError, match=r"tokenizer is 'somewhere': add its size as vocab = N$"):
        recipe_of(str(path))
    path.write_text('[model]\nfrom = "m"\nlora_rank = 8\n')
    with pytest.raises(
        UsageError, match=r"has lora_rank = 8: bench measures only the training of all weights"
    ):
        recipe_of(str(path))
    with pytest.raises(
        UsageError, match=r"^--recipe is 'big': choose tiny, .*, or a TOML file of minigen train$"
    ):
        recipe_of("big")
