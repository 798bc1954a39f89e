"""The doctor: well models pass, and each check finds the illness that it is for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from minigen.errors import MinigenError
from minigen.training import checkpoint, doctor
from minigen.training.setup import Setup
from minigen.training.trainer import Step, Trainer
from minigen.tree import flatten, unflatten

New = Callable[..., Any]


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "FIT_STEPS", 60)
    monkeypatch.setattr(doctor, "FIT_ROWS", 1)
    monkeypatch.setattr(doctor, "FIT_SHARE", 0.6)


def failed(setup: Setup, folder: Path) -> list[str]:
    return [check.name for check in doctor.checks(setup, folder) if not check.passed]


@pytest.mark.parametrize(
    "changes",
    [
        {"model": "gpt", "dropout": 0.3},
        {"optimizer": "muon", "save_dtype": "bfloat16"},
        {"model": "gru", "lr": 0.03},
    ],
)
def test_well_models(new: New, tmp_path: Path, changes: dict[str, Any]) -> None:
    found = list(doctor.checks(new(**changes), tmp_path / "run"))
    assert [check.name for check in found if not check.passed] == []
    assert len(found) == 8


@dataclass(frozen=True)
class Broken:
    """A model with its logits changed by `change(ops, ids, logits)`."""

    whole: Any
    change: Callable[[Any, Any, Any], Any]

    def __getattr__(self, name: str) -> Any:
        return getattr(self.whole, name)

    def forward(self, ops: Any, params: Any, ids: Any, state: Any = None, at: Any = None) -> Any:
        return self.change(ops, ids, self.whole.forward(ops, params, ids, state, at))


def test_a_model_that_looks_ahead(new: New, tmp_path: Path) -> None:
    def peek(ops: Any, ids: Any, logits: Any) -> Any:
        T = logits.shape[1]
        later = ops.take(logits, [min(t + 1, T - 1) for t in range(T)], axis=1)
        return logits + 0.5 * later

    setup = new()
    sick = failed(replace(setup, architecture=Broken(setup.architecture, peek)), tmp_path / "run")
    assert {"nothing sees the future", "no gradient from the future"} <= set(sick)
    assert "accumulation" not in sick


def test_a_model_that_sees_one_token(new: New, tmp_path: Path) -> None:
    setup = new()
    V = setup.architecture.vocab_size
    table = np.eye(V, dtype=np.float32) * 0.1

    def pairs(ops: Any, ids: Any, logits: Any) -> Any:
        return 0 * logits + ops.embedding(ids, ops.asarray(table))

    assert "the past counts" in failed(
        replace(setup, architecture=Broken(setup.architecture, pairs)), tmp_path / "run"
    )


def test_weights_that_begin_too_large(
    new: New, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    setup = new()
    large = unflatten({path: x * 40 for path, x in flatten(setup.initial()).items()})
    monkeypatch.setattr(Setup, "initial", lambda self: large)
    assert "the first loss" in failed(setup, tmp_path / "run")


def test_accumulation_that_counts_batches_alike(
    new: New, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = Trainer.step

    def mean(self: Trainer, batches: Any, lr: float, number: int) -> Step:
        found = whole(self, batches, lr, number)
        return replace(found, grad_norm=found.grad_norm * len(batches))

    monkeypatch.setattr(Trainer, "step", mean)
    assert failed(new(), tmp_path / "run") == ["accumulation"]


def test_a_resume_that_forgets_the_optimizer(
    new: New, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = checkpoint.read_state

    def forget(folder: Path) -> Any:
        return {
            name: np.zeros_like(x) if name.startswith("optimizer") else x
            for name, x in whole(folder).items()
        }

    monkeypatch.setattr(checkpoint, "read_state", forget)
    assert failed(new(), tmp_path / "run") == ["resume"]


def test_a_checkpoint_of_other_weights(
    new: New, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from minigen.training import saving

    whole = saving.to_tensors
    monkeypatch.setattr(
        saving, "to_tensors", lambda *args: {name: x[::-1] for name, x in whole(*args).items()}
    )
    assert failed(new(), tmp_path / "run") == ["the saved model"]


def test_a_model_that_does_not_learn(
    new: New, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = Trainer.step
    monkeypatch.setattr(
        Trainer, "step", lambda self, batches, lr, number: whole(self, batches, 0.0, number)
    )
    assert failed(new(), tmp_path / "run") == ["overfits one batch"]


def test_an_error_is_a_finding(new: New, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def burst(self: Trainer, *rest: Any) -> Step:
        raise MinigenError("out of memory in a training step: lower the batch size")

    monkeypatch.setattr(Trainer, "step", burst)
    found = {check.name: check for check in doctor.checks(new(), tmp_path / "run")}
    assert found["accumulation"].found == "out of memory in a training step: lower the batch size"
    assert found["nothing sees the future"].passed


@pytest.mark.parametrize(
    ("place", "deterministic", "exact"),
    [("cpu", False, True), ("cuda:0", True, True), ("cuda:0", False, False)],
)
def test_a_resume_is_exact_where_training_is_deterministic(
    new: New, tmp_path: Path, place: str, deterministic: bool, exact: bool
) -> None:
    setup = new(deterministic=deterministic)
    elsewhere = replace(setup, ops=SimpleNamespace(device=place, dtype="float32"))  # type: ignore[arg-type]
    assert doctor.Examination(elsewhere, tmp_path).exact is exact
