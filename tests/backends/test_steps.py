"""Passes of few tokens that are recorded: the logits and texts that torch's operations give, whatever a state does.

Both ways: programs for a CPU, by numba, and passes at positions on the device, which a GPU captures as graphs and the
CPU runs as they are.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minigen.model import Model, load

pytest.importorskip("torch", reason="torch is not installed")
DEVICE = os.environ.get("MINIGEN_TEST_TORCH_DEVICE", "cpu")

FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "gpt2": ("gpt2", {}),
    "llama": ("llama", {}),
    "mistral": ("llama", {"model_type": "mistral", "sliding_window": 5}),
    "qwen2": ("llama", {"model_type": "qwen2"}),
    "wide": (
        "llama",
        {"hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 4, "head_dim": 16},
    ),
    "heads of 32": ("llama", {"head_dim": 32, "num_attention_heads": 3, "num_key_value_heads": 1}),
    "heads of 64": ("llama", {"head_dim": 64}),
    "qwen3": ("llama", {"model_type": "qwen3", "head_dim": 24}),
}
BOUND = {
    "float32": 2e-5,
    "bfloat16": 0.12,
}  # of the largest logit: torch rounds each operation, the program none


@pytest.fixture(params=["programs", "static", "traced"])
def models(
    request: pytest.FixtureRequest,
    make_model: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
    trace_passes: Callable[[Any], list[bool]],
) -> Callable[..., tuple[Model, Model]]:
    """A model that records its steps, and the same that computes one operation after the other."""
    static = request.param != "programs"
    if not static:
        request.getfixturevalue("compiled_kernels")

    def make(name: str, dtype: str = "float32", **held: Any) -> tuple[Model, Model]:
        base, changes = FAMILIES[name]
        folder, device = make_model(base, **changes), DEVICE if static else "cpu"
        fast: Any = load(folder, "torch", device, dtype, **held)
        with monkeypatch.context() as patch:
            patch.setenv("MINIGEN_KERNELS", "0")
            plain: Any = load(folder, "torch", device, dtype, **held)
        plain.runner.ops.static = None
        if static:
            from minigen.backends.torch.graphs import StaticSteps

            fast.runner.ops.static = StaticSteps(fast.runner.ops)
            if request.param == "traced":
                trace_passes(fast.runner.ops.static)
        else:
            fast.runner.ops.kernels.started = fast.runner.ops.kernels.compiled is not None
        return fast, plain

    return make


def held(model: Any) -> Any:
    """What the backend keeps for each state."""
    ops = model.runner.ops
    return ops.kernels.steps.programs if ops.static is None else ops.static.states


def programs(model: Any, state: Any) -> list[Any]:
    known = held(model).get(state)
    if known is None:
        return []
    if model.runner.ops.static is None:
        return [program for program in known.values() if program]
    return [step for kind in known.kinds.values() if kind.possible for step in kind.steps.values()]


DTYPES = ("float32", "bfloat16")
WEIGHTS = [*product(FAMILIES, DTYPES, (None,)), *product(["wide"], DTYPES, ("8", "mixed"))]
# Traced, which takes most of the time, each operation once: what tracing could lose depends neither on the dtype nor on
# how wide a head is, and the same operations run as "static" in all of them.
TRACED = [
    *product(("gpt2", "llama", "mistral", "qwen3"), ("float32",), (None,)),
    ("wide", "bfloat16", "mixed"),
]
WAYS = ("programs", "static")
CACHES = list(product(("heads of 32", "heads of 64"), (8, 4), DTYPES))
TRACED_CACHES = [("heads of 32", 8, "bfloat16"), ("heads of 64", 4, "float32")]


@pytest.mark.parametrize(
    ("models", "name", "dtype", "quant"),
    [
        *((way, *weights) for way in WAYS for weights in WEIGHTS),
        *(("traced", *weights) for weights in TRACED),
    ],
    indirect=["models"],
)
def test_logits(models: Any, name: str, dtype: str, quant: str | None) -> None:
    """Single tokens, blocks of several, and batches padded on the left; past the window of a family that has one."""
    found = logits_of(models(name, dtype, quant=quant))
    assert all(
        np.abs(fast - plain).max() <= BOUND[dtype] * np.abs(plain).max() for fast, plain in found
    )


@pytest.mark.parametrize(
    ("models", "name", "bits", "dtype"),
    [
        *((way, *cache) for way in WAYS for cache in CACHES),
        *(("traced", *cache) for cache in TRACED_CACHES),
    ],
    indirect=["models"],
)
def test_logits_of_a_quantized_cache(models: Any, name: str, bits: int, dtype: str) -> None:
    """The last bit of a key may decide its code: what differs by that is a share of what the bits lose."""
    bound = {"float32": 2e-3, "bfloat16": 0.05 if bits == 8 else 0.3}[dtype]
    for fast, plain in logits_of(models(name, dtype, kv_bits=bits)):
        assert np.sqrt(((fast - plain) ** 2).mean()) <= bound * plain.std()


def logits_of(pair: tuple[Any, Any]) -> list[tuple[Any, Any]]:
    """Of a model that records its steps and of one that does not: of one row, and of three."""
    prompts, both = [[5, 77, 3, 9], [200, 1], list(range(30, 50))], []
    for rows, blocks in ((prompts[:1], (1, 1, 1, 3, 3, 3, 9, 9, 9, 1)), (prompts, (1, 1, 1, 1))):
        found = []
        for model in pair:
            _, state = model.runner.prefill(rows, 100)
            ids = np.random.default_rng(0).integers(0, 200, (len(rows), sum(blocks)))
            logits, at = [], 0
            for T in blocks:
                block = ids[:, at : at + T]
                logits.append(model.runner.ops.numpy(model.runner.read(block, state, range(T))))
                at += T
            assert state.length == max(map(len, rows)) + sum(blocks)
            found.append(np.concatenate(logits, axis=1))
            assert model is pair[1] or len(programs(model, state)) == len(set(blocks))
        assert found[0].shape == found[1].shape
        both.append((found[0], found[1]))
    return both


TEXTS = [("gpt2", None), ("llama", None), ("heads of 64", 8), ("heads of 32", 4)]


@pytest.mark.parametrize(
    ("models", "name", "bits"),
    [
        *((way, *text) for way in WAYS for text in TEXTS),
        ("traced", "gpt2", None),
        ("traced", "heads of 64", 8),
    ],
    indirect=["models"],
)
def test_the_same_text(models: Any, name: str, bits: int | None) -> None:
    prompts = [[5, 77, 3, 9], [200, 1], list(range(30, 50))]
    for settings in ({"temperature": 0.0}, {"seed": 7}, {"beams": 3}):
        for batch in (prompts[:1], prompts[:1] if "beams" in settings else prompts):
            told = [
                model.generate_ids(batch, max_tokens=24, **settings)
                for model in models(name, kv_bits=bits)
            ]
            assert told[0] == told[1]


@pytest.mark.parametrize(
    ("models", "bits"),
    [*product(WAYS, (None, 8)), ("traced", None)],
    indirect=["models"],
)
def test_a_state_that_moves(models: Any, bits: int | None) -> None:
    """Rewound, forked, given more room, restored: what was recorded is used where it lies still, and nowhere else."""
    pair, found = models("heads of 64", kv_bits=bits), []
    for model in pair:
        runner, seen = model.runner, []
        _, state = runner.prefill([[5, 77, 3, 9]], 12)

        def step(state: Any, token: int, runner: Any = runner, seen: list[Any] = seen) -> None:
            seen.append(runner.ops.numpy(runner.decode([token], state)).copy())

        for token in (1, 2, 3):
            step(state, token)
        state.rewind(5)
        step(state, 8)
        other = state.fork(runner.ops, 1)
        for token in (4, 5, 6):
            step(state, token)
            step(other, token + 1)
        state.reserve(runner.ops, 40)
        for token in range(10, 30):
            step(state, token)
        other.restore({name: x.clone() for name, x in state.arrays().items()}, state.length)
        other.reserve(runner.ops, 40)
        step(other, 7)
        found.append(np.concatenate(seen))
    assert (
        np.abs(found[0] - found[1]).max()
        < (2e-5 if bits is None else 2e-3) * np.abs(found[1]).max()
    )


def test_logits_are_the_callers(models: Any) -> None:
    """What a step gave is not changed by the next."""
    runner = models("llama")[0].runner
    _, state = runner.prefill([[5, 77]], 20)
    for token in (1, 2):
        runner.decode([token], state)
    first = runner.decode([3], state)
    kept = runner.ops.numpy(first).copy()
    runner.decode([4], state)
    assert np.array_equal(runner.ops.numpy(first), kept)


def test_what_is_not_recorded(models: Any) -> None:
    """Attention sinks go by torch, and on a CPU groups of a cache that are no multiple of 32."""
    from dataclasses import replace

    model = models("llama")[0]
    runner = replace(model.runner, architecture=model.architecture.with_sinks(2))
    _, state = runner.prefill([[5, 77]], 20)
    for token in (1, 2, 3):
        runner.decode([token], state)
    assert programs(model, state) == []
    assert state.length == 5
    narrow = models("llama", kv_bits=8)[0]
    _, state = narrow.runner.prefill([[5, 77]], 20)
    for token in (1, 2, 3):
        narrow.runner.decode([token], state)
    assert len(programs(narrow, state)) == (0 if narrow.runner.ops.static is None else 1)


def test_programs_end_with_their_states(models: Any) -> None:
    model = models("llama")[0]
    _, state = model.runner.prefill([[5, 77]], 20)
    for token in (1, 2, 3):
        model.runner.decode([token], state)
    assert len(held(model)) == 1
    del state
    assert len(held(model)) == 0
