"""On tensors that have shapes and no numbers: neither the pass that a CUDA graph is made of nor a training step waits
for the device, or copies to it.

A tensor of torch's device meta stands for one on a GPU. To ask for its numbers fails by itself; what lies on the host
meanwhile is refused here. The models are those of every family, whose configs are made of one list of keys, and of
every layer that there is: what is new takes part by itself, or a test says that no model here has it.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass
from importlib import import_module
from itertools import zip_longest
from pkgutil import iter_modules
from typing import Any

import pytest

import minigen.layers
from minigen.backends.quantized import BITS, QUANTS
from minigen.errors import MinigenError
from minigen.families import FAMILIES, HubConfig, find_family
from minigen.families.rope import USED as SCALINGS
from minigen.layers.feed_forward import ACTIVATIONS

torch = pytest.importorskip("torch", reason="torch is not installed")
from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402
from torch.utils._pytree import tree_leaves  # noqa: E402

# What any family asks of its config.json; each takes what it knows.
KEYS = {
    "vocab_size": 64, "max_position_embeddings": 48, "n_positions": 48, "tie_word_embeddings": True,
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "n_embd": 32, "n_head": 4, "n_layer": 2, "embedding_size": 32, "num_layers": 2,
    "full_attn_idxs": [1],
}  # fmt: skip
SCALING = {
    "rope_theta": 1e4, "factor": 2.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 24,
}  # fmt: skip
CHANGES: dict[str, dict[str, Any]] = {
    "a window": {"sliding_window": 8},
    "an untied head": {"tie_word_embeddings": False},
    "one head of keys": {"num_key_value_heads": 1},
    **{name: {"hidden_act": name, "activation_function": name} for name in ACTIVATIONS},
    **{f"rope {kind}": {"rope_scaling": {"rope_type": kind} | SCALING} for kind in SCALINGS},
}


def build(kind: str, **changes: Any) -> Any:
    config = {"model_type": kind, **KEYS, **changes}
    return find_family(config).build(HubConfig(config))


def architectures() -> dict[str, Any]:
    """By name: each family as it is, and each change in the first family that can have it and that it makes another."""
    found = {kind: build(kind) for kind in FAMILIES}
    for name, change in CHANGES.items():
        for kind in FAMILIES:
            try:
                changed = build(kind, **change)
            except MinigenError:
                continue
            if changed not in found.values():
                found[f"{kind}, {name}"] = changed
                break
    return found


ALL = architectures()
NOT_LAYERS = ("Param", "Slot", "LentSlot", "Sinks")  # with sinks a pass goes operation by operation
DECODERS = {name: model for name, model in ALL.items() if model.timed_slots}


class NothingOnTheHost(TorchDispatchMode):
    """Refuses every operation that has a tensor on the host, before it or after it."""

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        found = function(*args, **(kwargs or {}))
        for x in tree_leaves([args, kwargs, found]):
            assert not isinstance(x, torch.Tensor) or x.is_meta, (
                f"{function} has a tensor on the host"
            )
        return found


@pytest.fixture
def counted() -> Iterator[Any]:
    """bench/counted.py, which has the tensors without values; they report that they are on a GPU."""
    module = import_module("bench.counted")
    with module.as_on_a_gpu():
        yield module


def parts(piece: Any) -> Iterator[type]:
    """The kinds of all pieces that an architecture is made of."""
    if isinstance(piece, tuple):
        for one in piece:
            yield from parts(one)
    elif is_dataclass(piece):
        yield type(piece)
        for field in fields(piece):
            yield from parts(getattr(piece, field.name))


def test_every_layer_takes_part() -> None:
    here = {kind for architecture in ALL.values() for kind in parts(architecture)}
    for info in iter_modules(minigen.layers.__path__):
        module = import_module(f"minigen.layers.{info.name}")
        for name, kind in inspect.getmembers(module, is_dataclass):
            if kind.__module__ == module.__name__ and name not in NOT_LAYERS:
                assert kind in here, (
                    f"no model of this module has a {name}: add a change that makes one"
                )


@pytest.mark.parametrize(
    "wait",
    [
        lambda x: x.sum().item(),
        lambda x: x.tolist(),
        lambda x: x.cpu(),
        lambda x: x.numpy(),
        lambda x: bool(x.any()),
        lambda x: x.nonzero(),
        lambda x: x[x > 0],
        lambda x: x + torch.ones(3),
        lambda x: torch.tensor([1.0, 2.0]).to(x.device),
        lambda x: torch.arange(3).to(x.device),
    ],
)
def test_what_is_refused(wait: Callable[[Any], Any]) -> None:
    x = torch.zeros(3, device="meta")
    with NothingOnTheHost():
        x + 1
        with pytest.raises((AssertionError, RuntimeError, TypeError)):
            wait(x)


# -- the pass that is captured ----------------------------------------------------------------------------------------
def pass_without_waiting(
    counted: Any,
    architecture: Any,
    shape: tuple[int, int],
    quant: str | None = None,
    dtype: str = "bfloat16",
) -> None:
    from minigen.backends.torch.static_step import StaticStep

    rows, T = shape
    ops = counted.MetaBackend(dtype)
    params = counted.params_without_values(ops, architecture, quant, 32)
    starts = None if rows == 1 else torch.arange(rows).numpy()
    state = architecture.new_state(ops, rows, 40, starts)
    state.length = 10
    step = StaticStep(ops, shape, 16, state)

    def record(of: Any, ids: Any) -> Any:
        return architecture.record(of, params, ids, state, tuple(range(T)))

    step.compute(
        state, record, step.ids, step.length
    )  # a first time, as before a capture: it makes the constants
    with NothingOnTheHost():
        logits = step.compute(state, record, step.ids, step.length)
    assert logits.shape == (rows, T, architecture.vocab_size)


@pytest.mark.parametrize("name", DECODERS)
def test_a_step(counted: Any, name: str) -> None:
    for shape in ((1, 1), (1, 3), (3, 1)):
        pass_without_waiting(counted, DECODERS[name], shape)


# Codes of weights and of keys and values meet in no operation: each once, together in a pass.
CODES = [*zip_longest(QUANTS, BITS)]


@pytest.mark.parametrize("kind", [name for name in DECODERS if name in FAMILIES])
@pytest.mark.parametrize(("quant", "kv_bits"), CODES)
def test_a_step_of_codes(counted: Any, kind: str, kv_bits: int | None, quant: str | None) -> None:
    for shape in ((1, 1), (3, 1)):
        pass_without_waiting(counted, DECODERS[kind].with_kv_bits(kv_bits), shape, quant)


# -- training ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", ALL)
def test_a_training_step(counted: Any, name: str) -> None:
    from minigen.backends.torch.training import TorchTraining
    from minigen.backends.training import Leaf, TrainingSettings
    from minigen.tree import flatten

    architecture, ops = ALL[name], counted.MetaBackend("bfloat16")
    shapes = {path: param.shape for path, param in flatten(architecture.shapes()).items()}
    leaves = [Leaf(path, shape, len(shape) == 2) for path, shape in shapes.items()]
    weights = {path: torch.zeros(shape).numpy() for path, shape in shapes.items()}

    def forward(of: Any, params: Any, ids: Any) -> Any:
        return architecture.forward(of, params, ids)

    training = TorchTraining(ops, forward, leaves, weights, TrainingSettings(dropout=0.1))
    values = [x.requires_grad_() for x in training.views(training.flat.detach().to(torch.bfloat16))]
    ids = torch.zeros((2, 12), dtype=torch.int64, device="meta")
    shares = torch.zeros((2, 12), device="meta")
    training.batch_loss(values, ids, ids, shares)  # makes what is the same in each step
    with NothingOnTheHost():
        loss = training.batch_loss(values, ids, ids, shares)
        gradients = torch.autograd.grad(loss, values)
    assert [x.shape for x in gradients] == [x.shape for x in values]
