"""What training computes with, against the operations of generation: the same numbers, faster, and dropout."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pytest

from minigen.backends import Backend, get_backend
from minigen.layers.cells import CELLS, RecurrentBlock, cell_shapes
from minigen.layers.param import as_arrays, initialise
from minigen.layers.step import Step


def training_ops(ops: Backend, rate: float = 0.0) -> Any:
    if ops.name == "torch":
        from minigen.backends.torch.kernels import TrainingOps

        return TrainingOps(ops, rate, False)
    from minigen.backends.mlx.training import TrainingOps as MLXTrainingOps

    return MLXTrainingOps(ops, rate)


def with_gradients(ops: Backend, f: Any, arrays: list[Any]) -> list[Any]:
    """f(*arrays), and the gradients of a weighted sum of it."""
    if ops.name == "torch":
        import torch

        leaves = [x.detach().clone().requires_grad_() for x in arrays]
        y = f(*leaves)
        spread = torch.linspace(-1, 1, y.numel()).to(y).reshape(y.shape)
        return [ops.numpy(x).copy() for x in (y, *torch.autograd.grad((y * spread).sum(), leaves))]
    import mlx.core as mx

    y = f(*arrays)
    spread = mx.linspace(-1, 1, y.size).astype(y.dtype).reshape(y.shape)
    found = mx.grad(lambda *xs: (f(*xs) * spread).sum(), argnums=list(range(len(arrays))))(*arrays)
    return [ops.numpy(x) for x in (y, *found)]


@pytest.mark.parametrize(("H", "G"), [(4, 4), (4, 2), (3, 1)])
@pytest.mark.parametrize("chunk", [1, 2**21])
def test_attention(
    ops: Backend, monkeypatch: pytest.MonkeyPatch, H: int, G: int, chunk: int
) -> None:
    if ops.name == "torch":
        monkeypatch.setattr("minigen.backends.torch.kernels.CHUNK", chunk)
    rng = np.random.default_rng(0)
    shapes = [(2, H, 9, 5), (2, G, 9, 5), (2, G, 9, 5)]
    arrays = [ops.asarray(rng.standard_normal(shape)) for shape in shapes]
    both = [
        with_gradients(ops, lambda q, k, v, o=o: o.attention(q, k, v, 0.7, "causal"), arrays)
        for o in (training_ops(ops), ops)
    ]
    assert all(np.abs(one - other).max() < 2e-5 for one, other in zip(*both, strict=True))


def test_attention_that_would_keep_too_much_is_the_frameworks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    torch = pytest.importorskip("torch")
    monkeypatch.setattr("minigen.backends.torch.kernels.KEPT", 100)
    monkeypatch.setattr("minigen.backends.torch.kernels.CausalAttention.apply", None)
    ops = training_ops(get_backend("torch", "cpu", "float32"))
    x = torch.ones(1, 2, 9, 4)
    assert ops.attention(x, x, x, 1.0, "causal").shape == x.shape


@pytest.mark.parametrize("name", CELLS)
def test_recurrence(ops: Backend, name: str) -> None:
    """The fused kernel is the step form, forward and backward, from any state."""
    cell, B, T, C, H = CELLS[name], 3, 7, 5, 4
    p = as_arrays(ops, initialise(cell_shapes(cell, C, H), seed=1))
    rng = np.random.default_rng(0)
    x, *state = (
        ops.asarray(rng.standard_normal(s)) for s in [(B, T, C)] + [(B, H)] * len(cell.memory)
    )
    names = list(p)

    def layer(own: Any) -> Any:
        def f(x: Any, *rest: Any) -> Any:
            weights = dict(zip(names, rest[: len(names)], strict=True))
            y, after = RecurrentBlock(cell, C, H).run(
                own, weights, x, Step(0, T), tuple(rest[len(names) :])
            )
            return own.concat([y.reshape(-1), *(h.reshape(-1) for h in after)], axis=0)

        return f

    arrays = [x, *p.values(), *state]
    both = [with_gradients(ops, layer(own), arrays) for own in (training_ops(ops), ops)]
    assert all(np.abs(one - other).max() < 1e-5 for one, other in zip(*both, strict=True))
    fused = training_ops(ops).recurrence(name, p, x, tuple(state))
    assert (fused is not None) == (ops.name == "torch")


def test_dropout(ops: Backend) -> None:
    x = ops.asarray(np.ones((40, 50), np.float32))
    plain, dropping = training_ops(ops), training_ops(ops, 0.25)
    if ops.name == "mlx":
        import mlx.core as mx

        dropping.key = mx.random.key(3)
    assert plain.dropout(x) is x
    one, two = (ops.numpy(dropping.dropout(x)) for _ in range(2))
    assert not np.array_equal(one, two)  # each site has a mask of its own
    for y in (one, two):
        assert set(np.unique(y).tolist()) == {0.0, float(np.float32(1 / 0.75))}
        assert abs((y == 0).mean() - 0.25) < 0.04


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("compiled", [False, True])
def test_embeddings_in_order_have_the_same_bits(dtype: str, compiled: bool) -> None:
    """What a training on Metal takes for its embeddings, on the CPU: row for row the same sums, for ids that repeat."""
    mx = pytest.importorskip("mlx.core")
    from minigen.backends.mlx.training import TrainingOps

    ops = get_backend("mlx", "cpu", dtype)
    rng = np.random.default_rng(0)
    ids, weight = (
        ops.asarray(rng.integers(0, 7, (5, 40))),
        ops.asarray(rng.standard_normal((9, 16))),
    )
    spread = ops.asarray(rng.standard_normal((5, 40, 16)))
    found = []
    for ordered in (False, True):
        own = TrainingOps(ops, 0.0, ordered)

        def loss(weight: Any, own: Any = own) -> Any:
            y = own.embedding(ids, weight)
            return (y * spread).sum(), y

        gradients = mx.value_and_grad(loss)
        (_, y), gradient = (mx.compile(gradients) if compiled else gradients)(weight)
        found.append([ops.numpy(x) for x in (y, gradient)])
    assert all(np.array_equal(one, other) for one, other in zip(*found, strict=True))


@pytest.mark.parametrize(
    ("accelerated", "deterministic"), [(True, True), (True, False), (False, True)]
)
def test_embeddings_are_in_order_on_metal_alone(
    monkeypatch: pytest.MonkeyPatch, accelerated: bool, deterministic: bool
) -> None:
    """A pretended GPU: its embedding is asked of the CPU's stream where training is to be deterministic."""
    mx = pytest.importorskip("mlx.core")
    from minigen.families import HubConfig, find_family
    from minigen.training.batch import Batch
    from minigen.training.trainer import Optimizer, Trainer

    streams: list[Any] = []
    take = mx.take

    def watching(x: Any, ids: Any, **how: Any) -> Any:
        streams.append(how.get("stream"))
        return take(x, ids, **how)

    monkeypatch.setattr(mx, "take", watching)
    config = {
        "model_type": "gru_lm",
        "vocab_size": 11,
        "embedding_size": 6,
        "hidden_size": 6,
        "num_layers": 1,
    }
    architecture = find_family(config).build(HubConfig(config))
    ops: Any = get_backend("mlx", "cpu", "float32")
    monkeypatch.setattr(ops, "accelerated", accelerated)
    params = initialise(architecture.shapes(), seed=1)
    trainer = Trainer(ops, architecture, params, Optimizer(), deterministic=deterministic)
    ids = np.arange(12).reshape(2, 6) % 11
    trainer.step([Batch(ids, ids, np.ones((2, 6), np.float32))], 1e-3, 0)
    assert streams == ([mx.cpu] if accelerated and deterministic else [])


def test_step_form_is_linear_in_time() -> None:
    """Indexing a time step costs a gradient of all steps: the graph must hold none of those."""
    torch = pytest.importorskip("torch")
    ops = get_backend("torch", "cpu", "float32")
    cell = CELLS["rnn"]
    p = as_arrays(ops, initialise(cell_shapes(cell, 3, 4)))
    x = torch.zeros(1, 5, 3, requires_grad=True)
    y, _ = RecurrentBlock(cell, 3, 4).run(ops, p, x, Step(0, 5), (torch.zeros(1, 4),))
    seen, todo = set(), [y.grad_fn]
    while todo:
        node = todo.pop()
        seen.add(node.name())
        todo += [following for following, _ in node.next_functions if following is not None]
    assert not [name for name in seen if "Select" in name or "Slice" in name]


def test_memory_is_kept_only_where_there_is_glibc(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch")
    from minigen.backends.torch import kernels as torch_kernels

    monkeypatch.setattr(torch_kernels.ctypes, "CDLL", lambda _: object())  # musl: no mallopt
    torch_kernels.keep_memory()
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(torch_kernels.ctypes, "CDLL", None)
    torch_kernels.keep_memory()
    assert torch_kernels.physical_cores() >= 1
