"""The trainer: the same curve on both backends, honest gradients, and a resume that nobody can tell."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import minigen.backends as backends
from minigen.backends import Backend, get_backend
from minigen.errors import MinigenError, UsageError
from minigen.families import HubConfig, find_family
from minigen.layers.param import initialise
from minigen.training.trainer import Batch, Optimizer, Step, Trainer
from minigen.tree import flatten, unflatten

GPT = {
    "model_type": "gpt2",
    "vocab_size": 17,
    "n_embd": 16,
    "n_head": 2,
    "n_layer": 2,
    "n_positions": 12,
}
LLAMA = {
    "model_type": "llama", "vocab_size": 17, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 12, "tie_word_embeddings": False,
}  # fmt: skip
LSTM = {
    "model_type": "lstm_lm",
    "vocab_size": 17,
    "embedding_size": 12,
    "hidden_size": 12,
    "num_layers": 2,
}
CONFIGS: dict[str, dict[str, Any]] = {
    "gpt": GPT,
    "llama": LLAMA,
    "lstm": LSTM,
    "gru": LSTM | {"model_type": "gru_lm"},
    "rnn": LSTM | {"model_type": "rnn_lm"},
}
TEXT = (
    np.random.default_rng(0).integers(0, 17, 400) % np.arange(1, 18).repeat(24)[:400]
)  # some tokens come often


def batch(number: int, rows: int = 4, T: int = 10, masked: bool = False) -> Batch:
    rng = np.random.default_rng([7, number])
    at = rng.integers(0, len(TEXT) - T - 1, rows)[:, None] + np.arange(T)
    weights = (rng.random(at.shape) < 0.6) if masked else np.ones(at.shape)
    return Batch(TEXT[at], TEXT[at + 1], weights.astype(np.float32))


def make(
    ops: Backend, name: str = "gpt", optimizer: Optimizer | None = None, **settings: Any
) -> Trainer:
    architecture = find_family(CONFIGS[name]).build(HubConfig(CONFIGS[name]))
    params = initialise(architecture.shapes(), seed=3)
    return Trainer(ops, architecture, params, optimizer or Optimizer(), **settings)


def run(trainer: Trainer, steps: range, lr: float = 3e-3) -> list[Step]:
    return [trainer.step([batch(n, masked=True)], lr, n) for n in steps]


def same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return one.keys() == other.keys() and all(
        np.array_equal(one[name], other[name]) for name in one
    )


@pytest.mark.parametrize("name", ["gpt", "llama", "lstm"])
@pytest.mark.parametrize("kind", ["adamw", "muon"])
def test_both_backends_learn_alike(name: str, kind: str) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("mlx.core")
    curves = []
    for backend in backends.BACKENDS:
        trainer = make(get_backend(backend, "cpu", "float32"), name, Optimizer(kind, ema=0.9))
        steps = run(trainer, range(50))
        after = [trainer.losses(batch(99), averaged=averaged).mean() for averaged in (False, True)]
        curves.append([x for step in steps for x in (step.loss, step.grad_norm)] + after)
    assert np.abs(np.subtract(*curves)).max() < 1e-4
    assert curves[0][-2] < curves[0][0] - 0.15
    assert abs(curves[0][-1] - curves[0][-2]) > 1e-4  # the average is another model


@pytest.mark.parametrize("name", CONFIGS)
def test_gradients_against_differences(ops: Backend, name: str) -> None:
    """Whole model, through the weighted loss: what SGD of a known size would change is what the loss does change."""
    trainer = make(ops, name)
    one = batch(0, masked=True)
    total = float(one.weights.sum())
    start = flatten(trainer.weights())
    trainer.gradients.add_gradients(one.ids, one.targets, one.weights, total, 0)
    gradient = gradients(trainer)
    architecture = find_family(CONFIGS[name]).build(HubConfig(CONFIGS[name]))
    rng = np.random.default_rng(1)
    for path, g in gradient.items():
        # Along the gradient, and a random way too; float32 losses allow no smaller step.
        for way in (
            g / (np.linalg.norm(g) + 1e-12),
            rng.choice([-1.0, 1.0], g.shape) / np.sqrt(g.size),
        ):
            step = float(
                np.clip(0.01 * np.linalg.norm(start[path]), 0.003, 0.02)
            )  # against curvature, and rounding
            found = []
            for sign in (1, -1):
                moved = start | {path: (start[path] + sign * step * way).astype(np.float32)}
                other = Trainer(ops, architecture, unflatten(moved), Optimizer())
                found.append(
                    float((other.losses(one).astype(np.float64) * one.weights).sum()) / total
                )
            difference = (found[0] - found[1]) / (2 * step)
            assert difference == pytest.approx(float((g * way).sum()), rel=0.02, abs=5e-4), path


def gradients(trainer: Trainer) -> dict[str, Any]:
    """Those of the step under way, by path."""
    training: Any = trainer.gradients
    if hasattr(training, "parts"):
        found = {
            leaf.path: x.cpu().numpy()
            for leaf, x in zip(training.leaves, training.parts, strict=True)
        }
        return {path: found[path] for path in training.order}
    return {path: np.array(x) for path, x in training.gradient.items()}


@pytest.mark.parametrize("name", CONFIGS)
def test_gradients_in_float64(name: str) -> None:
    """Torch alone has float64: every gradient to eight digits."""
    pytest.importorskip("torch")
    ops = get_backend("torch", "cpu", "float32")
    ops.dtype = "float64"
    trainer = make(ops, name)
    training: Any = trainer.gradients
    one = batch(0, masked=True)
    total = float(one.weights.sum())

    def loss() -> float:
        part = training.add_gradients(one.ids, one.targets, one.weights, total, 0)
        training.discard()
        return float(part())

    loss()
    want = training.gradient.numpy().copy()
    flat = training.flat
    for i in np.random.default_rng(2).choice(len(want), 60, replace=False):
        kept, found = float(flat[i]), []
        for sign in (1, -1):
            flat[i] = kept + sign * 1e-5
            found.append(loss())
        flat[i] = kept
        assert (found[0] - found[1]) / 2e-5 == pytest.approx(want[i], rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("name", ["gpt", "lstm"])
@pytest.mark.parametrize("kind", ["adamw", "muon"])
def test_accumulation(ops: Backend, name: str, kind: str) -> None:
    """Two halves with different numbers of weighted tokens are the whole."""
    both, halves = (
        make(ops, name, Optimizer(kind, clip=0.2)),
        make(ops, name, Optimizer(kind, clip=0.2)),
    )
    for n in range(4):
        whole = batch(n, rows=6, masked=True)
        whole.weights[:3, 4:] = 0
        parts = [
            Batch(whole.ids[i], whole.targets[i], whole.weights[i])
            for i in (slice(0, 3), slice(3, 6))
        ]
        one, two = both.step([whole], 1e-3, n), halves.step(parts, 1e-3, n)
        assert two.loss == pytest.approx(one.loss, rel=1e-6)
        assert two.grad_norm == pytest.approx(one.grad_norm, rel=2e-6)
    mine, other = flatten(both.weights()), flatten(halves.weights())
    assert max(np.abs(mine[path] - other[path]).max() for path in mine) < 2e-5


def test_the_loss_is_the_mean_of_what_is_weighted(ops: Backend) -> None:
    trainer = make(ops)
    one = batch(5, masked=True)
    nats = trainer.losses(one)
    assert nats.shape == one.ids.shape
    assert nats.dtype == np.float32
    weights = one.weights * np.linspace(0.5, 2, one.weights.size, dtype=np.float32).reshape(
        one.weights.shape
    )
    want = float((nats * weights).sum() / weights.sum())
    assert trainer.step([replace(one, weights=weights)], 1e-3, 0).loss == pytest.approx(
        want, rel=1e-6
    )
    blind = replace(one, targets=np.where(one.weights > 0, one.targets, 0))
    assert make(ops).step([blind], 1e-3, 0) == make(ops).step([one], 1e-3, 0)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", ["gpt", "lstm"])
@pytest.mark.parametrize("kind", ["adamw", "muon"])
def test_resume_is_exact(backend: str, device: str, dtype: str, name: str, kind: str) -> None:
    ops = get_backend(backend, device, dtype)
    settings: dict[str, Any] = {"dropout": 0.2, "seed": 5}
    straight = make(ops, name, Optimizer(kind, ema=0.95), **settings)
    run(straight, range(4))
    kept = {path: x.copy() for path, x in straight.state().items()}
    tail = run(straight, range(4, 8))
    again = make(ops, name, Optimizer(kind, ema=0.95), **settings)
    run(again, range(2))  # what it was before is forgotten
    again.restore(kept)
    assert same(again.state(), kept)
    assert run(again, range(4, 8)) == tail
    assert same(again.state(), straight.state())
    for averaged in (False, True):
        assert same(
            flatten(again.weights(averaged=averaged)), flatten(straight.weights(averaged=averaged))
        )


def test_resume_before_the_first_step(ops: Backend) -> None:
    fresh, used = make(ops), make(ops)
    kept = fresh.state()
    want = run(fresh, range(3))
    run(used, range(2))
    used.restore(kept)
    assert run(used, range(3)) == want


def test_a_state_of_other_settings_is_refused(ops: Backend) -> None:
    kept = make(ops).state()
    for trainer in (make(ops, "lstm"), make(ops, optimizer=Optimizer(ema=0.9))):
        with pytest.raises(
            MinigenError, match=r"^this training state was saved with other settings or another"
        ):
            trainer.restore(kept)


def test_dropout_is_drawn_from_seed_step_and_batch(ops: Backend) -> None:
    def loss(seed: int, number: int, micro: int = 0) -> float:
        trainer = make(ops, dropout=0.3, seed=seed)
        one = batch(0)
        empty = replace(one, weights=np.zeros_like(one.weights))
        return trainer.step([empty] * micro + [one], 1e-3, number).loss

    found = {(s, n, m): loss(s, n, m) for s in (0, 1) for n in (0, 1) for m in (0, 1)}
    assert len(set(found.values())) == 8
    assert loss(1, 1, 1) == found[1, 1, 1]
    plain = make(ops).step([batch(0)], 1e-3, 0).loss
    assert abs(np.mean(list(found.values())) - plain) < 0.1
    trainer = make(ops, dropout=0.3)
    assert trainer.losses(batch(0)).mean() == pytest.approx(plain, rel=1e-6)


@pytest.mark.parametrize(("name", "sites"), [("gpt", 5), ("llama", 5), ("lstm", 2)])
def test_where_dropout_is(ops: Backend, name: str, sites: int) -> None:
    """Behind the embedding and both parts of each of two blocks; behind the embedding and every cell but the last."""
    trainer = make(ops, name, dropout=0.5)
    training: Any = trainer.gradients
    seen, dropout = [], type(training.ops).dropout

    def counted(x: Any) -> Any:
        seen.append(tuple(x.shape))
        return dropout(training.ops, x)

    training.ops.dropout = counted
    trainer.step([batch(0)], 1e-3, 0)
    assert seen == [(4, 10, 12 if name == "lstm" else 16)] * sites


@pytest.mark.filterwarnings(
    "ignore::DeprecationWarning"
)  # torch's own, when its compiler is imported,
@pytest.mark.filterwarnings(
    "ignore:The .grad attribute of a Tensor"
)  # and while it traces: seen where they are errors
@pytest.mark.parametrize("name", ["gpt", "llama", "lstm"])
@pytest.mark.usefixtures("quick_compiler")
def test_compiled(backend: str, name: str) -> None:
    """Compiled, a model learns the same."""
    ops = get_backend(backend, "cpu", "float32")
    curves = [
        [step.loss for step in run(make(ops, name, compile=flag), range(5))]
        for flag in (False, True)
    ]
    assert np.abs(np.subtract(*curves)).max() < 1e-5


def test_dropout_leaves_the_generators_alone() -> None:
    torch = pytest.importorskip("torch")
    before = torch.get_rng_state()
    run(make(get_backend("torch", "cpu", "float32"), dropout=0.3), range(2))
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("kind", ["adamw", "muon"])
@pytest.mark.parametrize("name", ["gpt", "lstm"])
def test_decay_touches_matrices_only(ops: Backend, name: str, kind: str) -> None:
    """Decay is decoupled: after one step it is exactly lr times decay of every matrix."""
    weights = {}
    for decay in (0.0, 0.5):
        trainer = make(ops, name, Optimizer(kind, weight_decay=decay))
        start = flatten(trainer.weights())
        trainer.step([batch(0)], 0.02, 0)
        weights[decay] = flatten(trainer.weights())
    for path, x in start.items():
        shrunk = weights[0.0][path] - weights[0.5][path]
        want = 0.02 * 0.5 * x if x.ndim == 2 else np.zeros_like(x)
        assert np.abs(shrunk - want).max() < 1e-6, path


def test_adamw_by_hand(ops: Backend) -> None:
    """Three steps of bias-corrected AdamW in float64, on gradients that are clipped by their common norm."""
    settings = Optimizer(betas=(0.8, 0.9), eps=1e-3, weight_decay=0.1, clip=0.3, ema=0.6)
    trainer = make(ops, "gpt", settings)
    weights = {path: x.astype(np.float64) for path, x in flatten(trainer.weights()).items()}
    average = dict(weights)
    m = {path: np.zeros_like(x) for path, x in weights.items()}
    v = {path: np.zeros_like(x) for path, x in weights.items()}
    for t in range(1, 4):
        one = batch(t)
        trainer.gradients.add_gradients(
            one.ids, one.targets, one.weights, float(one.weights.sum()), 0
        )
        g = {path: x.astype(np.float64) for path, x in gradients(trainer).items()}
        trainer.gradients.discard()
        norm = np.sqrt(sum((x**2).sum() for x in g.values()))
        assert norm > 0.3
        got = trainer.step([one], 0.01, t)
        assert got.grad_norm == pytest.approx(norm, rel=1e-5)
        for path in weights:
            gradient = g[path] * 0.3 / norm
            m[path] = 0.8 * m[path] + 0.2 * gradient
            v[path] = 0.9 * v[path] + 0.1 * gradient**2
            decay = 1 - 0.01 * 0.1 * (weights[path].ndim == 2)
            denominator = np.sqrt(v[path] / (1 - 0.9**t)) + 1e-3
            weights[path] = weights[path] * decay - 0.01 * m[path] / (1 - 0.8**t) / denominator
            keep = min(0.6, (1 + t) / (10 + t))
            average[path] = keep * average[path] + (1 - keep) * weights[path]
    for averaged, want in ((False, weights), (True, average)):
        found = flatten(trainer.weights(averaged=averaged))
        assert max(np.abs(found[path] - want[path]).max() for path in want) < 3e-6


@pytest.mark.parametrize("name", ["gpt", "lstm"])
def test_muon_takes_each_matrix_alone(ops: Backend, name: str) -> None:
    """Queries, keys, values and gates are orthogonalised apart: each has its own scale, and nearly equal directions."""
    trainer = make(ops, name, Optimizer("muon", weight_decay=0.0, clip=0.0))
    start = flatten(trainer.weights())
    trainer.step([batch(0)], 0.01, 0)
    moved = {path: x - start[path] for path, x in flatten(trainer.weights()).items()}
    path, count = (
        ("blocks.0.attention.qkv.weight", 3) if name == "gpt" else ("blocks.0.weight_ih", 4)
    )
    for part in np.split(moved[path], count):
        strengths = np.linalg.svd(part / (0.01 * 0.2 * np.sqrt(max(part.shape))), compute_uv=False)
        assert 0.5 < np.median(strengths) < 1.3
        assert strengths.max() < 1.4
    assert np.abs(moved["embedding.weight"][TEXT.max()]).max() <= 0.0101  # AdamW's first step


def test_an_optimizer_of_muon_leaves_no_weight_behind(ops: Backend) -> None:
    for name in CONFIGS:
        trainer = make(ops, name, Optimizer("muon"))
        start = flatten(trainer.weights())
        run(trainer, range(2))
        assert all(
            not np.array_equal(x, start[path]) for path, x in flatten(trainer.weights()).items()
        )


@pytest.mark.parametrize("name", ["gpt", "llama", "lstm"])
def test_bfloat16_learns_nearly_the_same(backend: str, device: str, name: str) -> None:
    curves = [
        [step.loss for step in run(make(get_backend(backend, device, dtype), name), range(30))]
        for dtype in ("float32", "bfloat16")
    ]
    assert 1e-6 < np.abs(np.subtract(*curves)).max() < 0.05
    trainer = make(get_backend(backend, device, "bfloat16"), name)
    trainer.step([batch(0)], 1e-6, 0)  # far below what bfloat16 weights could hold
    start = flatten(make(get_backend(backend, device, "float32"), name).weights())
    assert any(not np.array_equal(x, start[path]) for path, x in flatten(trainer.weights()).items())
    assert all(x.dtype == np.float32 for x in flatten(trainer.weights()).values())


def test_tied_weights_stay_tied(ops: Backend) -> None:
    trainer = make(ops, "gpt")
    assert "head.weight" not in flatten(trainer.weights())
    run(trainer, range(2))
    assert "head.weight" not in flatten(trainer.weights())


def test_a_loss_that_is_no_number(ops: Backend) -> None:
    trainer = make(ops)
    run(trainer, range(2))
    before = trainer.state()
    one = batch(0)
    bad = replace(
        one,
        weights=np.where(np.arange(one.weights.size).reshape(one.weights.shape) == 3, np.nan, 1.0),
    )
    with pytest.raises(
        MinigenError,
        match=r"^the loss is nan at step 2: lower the learning rate, which is 0\.5 there$",
    ):
        trainer.step([replace(bad, weights=bad.weights.astype(np.float32))], 0.5, 2)
    assert same(trainer.state(), before)
    with pytest.raises(MinigenError, match=r"^step 3 has no token to train on"):
        trainer.step([replace(one, weights=0 * one.weights)], 0.5, 3)
    straight = make(ops)
    run(straight, range(2))
    assert run(trainer, range(2, 4)) == run(
        straight, range(2, 4)
    )  # nothing of the failed step is left


def test_an_exploding_run_stops(ops: Backend) -> None:
    trainer = make(ops)
    with pytest.raises(
        MinigenError,
        match=r"^the (loss|gradient norm) is (nan|inf) at step \d+: lower the learning",
    ):
        run(trainer, range(50), lr=1e30)


def test_out_of_memory(ops: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = make(ops)
    said: list[Exception] = [
        MemoryError("std::bad_alloc"),
        RuntimeError("[malloc] Unable to allocate 9 bytes."),
        RuntimeError("[metal::malloc] Resource limit (499000) exceeded."),
    ]
    if ops.name == "torch":
        torch = pytest.importorskip("torch")
        said = [torch.OutOfMemoryError("CUDA out of memory"), memory_error(torch)]
    for error in said:

        def fail(*_: Any, error: Exception = error) -> Any:
            raise error

        monkeypatch.setattr(trainer.gradients, "add_gradients", fail)
        with pytest.raises(
            MinigenError, match=r"^out of memory in a training step: lower the batch size and"
        ) as caught:
            trainer.step([batch(0)], 1e-3, 0)
        assert caught.value.__cause__ is error
    for kind, words in (
        (RuntimeError, "CUDA error: an illegal memory access was encountered"),
        (ValueError, "no"),
    ):

        def break_down(*_: Any, kind: type[Exception] = kind, words: str = words) -> Any:
            raise kind(words)

        monkeypatch.setattr(trainer.gradients, "add_gradients", break_down)
        with pytest.raises(kind, match=words):
            trainer.step([batch(0)], 1e-3, 0)


def memory_error(torch: Any) -> Exception:
    try:
        torch.empty(2**50)
    except RuntimeError as error:
        return error
    raise AssertionError("a petabyte was found")


@pytest.mark.parametrize(
    ("make_bad", "message"),
    [
        (
            lambda ops: make(ops, optimizer=Optimizer("sgd")),
            "optimizer is 'sgd': choose adamw, muon",
        ),
        (lambda ops: make(ops, dropout=1.0), "dropout is 1.0: it must be a number >= 0 and < 1"),
        (
            lambda ops: make(ops, optimizer=Optimizer(ema=1.0)),
            "ema is 1.0: it must be a number >= 0 and < 1",
        ),
        (
            lambda ops: make(ops, optimizer=Optimizer(betas=(0.9, 1.0))),
            "betas is 1.0: it must be a number >= 0",
        ),
        (
            lambda ops: make(ops, optimizer=Optimizer(clip=-1.0)),
            "clip is -1.0: it must be a number >= 0",
        ),
        (
            lambda ops: make(ops, optimizer=Optimizer(weight_decay=-1.0)),
            "weight_decay is -1.0: it must be a number",
        ),
    ],
)
def test_settings_out_of_range(
    ops: Backend, make_bad: Callable[[Backend], Any], message: str
) -> None:
    with pytest.raises(UsageError, match=f"^{message}"):
        make_bad(ops)


def test_float16_is_refused(backend: str, device: str) -> None:
    with pytest.raises(
        UsageError, match=r"^the range of float16 is too small for training: choose"
    ):
        make(get_backend(backend, device, "float16"))
