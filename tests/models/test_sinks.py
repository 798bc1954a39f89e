"""Attention sinks: past its context a decoder says what one with a rolling cache says, however its text is cut."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minigen.backends import Backend, get_backend
from minigen.errors import ContextError, UsageError
from minigen.families import HubConfig, find_family
from minigen.generation.branches import Branches
from minigen.generation.loop import generate
from minigen.generation.options import Options
from minigen.generation.reader import Runner
from minigen.generation.rows import Row
from minigen.layers.param import as_arrays, initialise
from minigen.layers.positions import EXACT, Rotary
from minigen.layers.sinks import FixedPositions, Sinks, SinkStep
from minigen.models.causal import CausalLM
from minigen.tree import flatten, unflatten

WITH_KERNELS = True  # see conftest.py

Numbers = np.ndarray[Any, Any]
VOCAB, W, D, THETA = 29, 16, 6, 100.0  # so small a theta turns every dimension visibly
CONFIG = {"model_type": "mistral", "vocab_size": VOCAB, "hidden_size": 20, "intermediate_size": 14, "head_dim": D,
          "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": W,
          "rope_theta": THETA}  # fmt: skip
WINDOWS = (None, W + 3)  # of every layer that looks at sinks
OWN = (5, 14, W - 1)  # of layers that see less than the rolling window, and stay as they are
IDS = np.random.default_rng(3).integers(0, VOCAB, 50)


@cache
def built(window: int | None) -> tuple[CausalLM, Any]:
    """A plain decoder and its parameters, in which each counts."""
    config = CONFIG | {"sliding_window": window}
    decoder = find_family(config).build(HubConfig(config))
    rng = np.random.default_rng(1)
    drawn = {
        p: x + 0.4 * rng.standard_normal(x.shape)
        for p, x in flatten(initialise(decoder.shapes())).items()
    }
    assert isinstance(decoder, CausalLM)
    return decoder, unflatten(drawn)


def runner(ops: Backend, window: int | None = None, count: int | None = 4) -> Runner:
    decoder, params = built(window)
    return Runner(
        ops, decoder if count is None else decoder.with_sinks(count), as_arrays(ops, params)
    )


def read(model: Runner, ids: Any, state: Any = None) -> Numbers:
    """Logits (T, V) of one row."""
    at = range(len(ids))
    if state is None:
        state = model.architecture.new_state(model.ops, 1, len(ids))
    return model.ops.numpy(model.read(np.asarray(ids)[None], state, at))[0]


def same(got: Numbers, want: Numbers, most: float = 1e-5) -> None:
    assert got.shape == want.shape
    assert want.std() > 0.3, "too flat to show an error"
    assert np.abs(got - want).max() <= most * np.abs(want).max()


# -- the paper's own formulation, in float64 --------------------------------------------------------------------------
def rotate(x: Numbers, positions: Any) -> Numbers:
    """x (..., D) by the definition: each pair as a complex number."""
    angles = np.asarray(positions)[..., None] * THETA ** (-np.arange(0, D, 2) / D)
    turned = (x[..., : D // 2] + 1j * x[..., D // 2 :]) * np.exp(1j * angles)
    return np.concatenate([turned.real, turned.imag], axis=-1)


class Rolling:
    """Reads token by token. Keys lie unrotated in a cache that drops the oldest after the sinks, and are rotated, for
    every query anew, to where they lie in it."""

    def __init__(self, window: int | None, count: int = 4) -> None:
        self.count = count
        self.params = built(window)[1]
        self.kept: list[list[tuple[Numbers, Numbers]]] = [[] for _ in self.params["blocks"]]

    def attention(self, x: Numbers, p: Any, kept: list[tuple[Numbers, Numbers]]) -> Numbers:
        q, k, v = np.split(p["qkv"]["weight"] @ x, [4 * D, 6 * D])
        kept.append((k.reshape(2, D), v.reshape(2, D)))
        if len(kept) > W:
            del kept[self.count]
        own = len(kept) - 1  # the query's position
        seen = range(len(kept))
        heads = []
        for head, query in enumerate(q.reshape(4, D)):
            keys = np.array([rotate(kept[i][0][head // 2], i) for i in seen])
            scores = keys @ rotate(query, own) / np.sqrt(D)
            weights = np.exp(scores - scores.max())
            heads.append(weights / weights.sum() @ np.array([kept[i][1][head // 2] for i in seen]))
        return p["out"]["weight"] @ np.concatenate(heads)

    def step(self, token: int) -> Numbers:
        def norm(x: Numbers, p: Any) -> Numbers:
            return x / np.sqrt((x * x).mean() + 1e-6) * p["weight"]

        x = self.params["embedding"]["weight"][token]
        for p, kept in zip(self.params["blocks"], self.kept, strict=True):
            x = x + self.attention(norm(x, p["norm1"]), p["attention"], kept)
            gate, up = np.split(p["feed_forward"]["gate_up"]["weight"] @ norm(x, p["norm2"]), 2)
            x = x + p["feed_forward"]["down"]["weight"] @ (gate / (1 + np.exp(-gate)) * up)
        logits: Numbers = self.params["head"]["weight"] @ norm(x, self.params["norm"])
        return logits


@cache
def expected(window: int | None, count: int) -> Numbers:
    model = Rolling(window, count)
    return np.array([model.step(token) for token in IDS])


# -- what is said -----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("count", [1, 4, W - 1])
def test_it_is_a_rolling_cache(ops: Backend, window: int | None, count: int) -> None:
    model, want = runner(ops, window, count), expected(window, count)
    assert np.abs(read(model, IDS) - want).max() <= 1e-4
    assert (
        np.abs(want[W:] - read(runner(ops, window, None), IDS)[W:]).max() > 0.3
    )  # which is not what it was
    alone = ops.numpy(model.architecture.forward(ops, model.params, ops.asarray(IDS[None])))[0]
    assert np.abs(alone - want).max() <= 1e-4  # without a state too


@pytest.mark.parametrize("window", OWN)
def test_a_layer_keeps_a_shorter_window_of_its_own(ops: Backend, window: int) -> None:
    plain, model = runner(ops, window, None), runner(ops, window)
    same(read(model, IDS), read(plain, IDS))
    state = model.architecture.new_state(ops, 1, len(IDS))
    got = [read(model, IDS[a:b], state) for a, b in ((0, 18), (18, 19), (19, 20), (20, 50))]
    same(np.concatenate(got), read(plain, IDS))


@pytest.mark.parametrize("window", WINDOWS)
def test_up_to_its_context_it_is_the_plain_decoder(ops: Backend, window: int | None) -> None:
    plain, model = runner(ops, window, None), runner(ops, window)
    assert np.array_equal(read(model, IDS[:W]), read(plain, IDS[:W]))
    same(read(model, IDS)[:W], read(plain, IDS[:W]))  # and where the pass goes on


def test_any_cut_says_the_same(backend: str, device: str) -> None:
    ops, cuts = get_backend(backend, device, "float32"), st.sets(st.integers(1, len(IDS) - 1))

    @settings(deadline=None, derandomize=True, max_examples=40, database=None)
    @given(
        window=st.sampled_from([*WINDOWS, *OWN]), count=st.sampled_from([1, 4, W - 1]), cuts=cuts
    )
    def check(window: int | None, count: int, cuts: set[int]) -> None:
        model = runner(ops, window, count)
        state = model.architecture.new_state(ops, 1, len(IDS))
        got = [read(model, IDS[a:b], state) for a, b in pairwise([0, *sorted(cuts), len(IDS)])]
        same(np.concatenate(got), read(model, IDS))

    check()


@pytest.mark.parametrize("window", [None, 5])
@pytest.mark.parametrize("length", [0, 3, W - 1, W, W + 1, 30, 49])
def test_rewind(ops: Backend, window: int | None, length: int) -> None:
    model, others = runner(ops, window), IDS[::-1]
    state = model.architecture.new_state(ops, 1, 100)
    for part in (IDS[:20], IDS[20:21], IDS[21:]):
        read(model, part, state)
    state.rewind(length)
    want = read(model, np.concatenate([IDS[:length], others]))[length:]
    same(read(model, others[:7], state), want[:7])
    same(np.concatenate([read(model, [token], state) for token in others[7:]]), want[7:])


def test_rows_of_one_length(ops: Backend) -> None:
    model, rows = runner(ops), np.array([IDS, IDS[::-1]])
    state = model.architecture.new_state(ops, 2, 50)
    got = [
        ops.numpy(model.read(rows[:, a:b], state, range(b - a)))
        for a, b in ((0, 18), (18, 19), (19, 50))
    ]
    for row, logits in zip(rows, np.concatenate(got, axis=1), strict=True):
        same(logits, read(model, row))


def test_generate_goes_past_the_context(ops: Backend) -> None:
    rolling, prompt = Rolling(None), list(IDS[:10])
    logits = [rolling.step(token) for token in prompt][-1]
    want = []
    for _ in range(40):
        want.append(int(logits.argmax()))
        logits = rolling.step(want[-1])
    row = Row(prompt)
    for _ in generate(runner(ops), [row], Options.of(temperature=0, max_tokens=40)):
        pass
    assert row.ids == want
    assert len(set(want)) > 3


# -- the work ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("window", "most"), [(None, W - 1), (5, 4)])
def test_what_is_looked_at_is_bounded(
    ops: Backend, monkeypatch: pytest.MonkeyPatch, window: int | None, most: int
) -> None:
    model, seen = runner(ops, window), []
    attention = ops.attention

    def spy(q: Any, k: Any, v: Any, scale: float, mask: Any) -> Any:
        seen.append((q.shape[2], k.shape[2]))
        assert q.shape[-1] == k.shape[-1] == v.shape[-1]  # kernels are made for one width
        return attention(q, k, v, scale, mask)

    monkeypatch.setattr(ops, "attention", spy)
    state = model.architecture.new_state(ops, 1, 200)
    for T in (W + 1, 1, 3, 40, 1, 1, 7):
        read(model, np.resize(IDS, T), state)
    assert [S for T, S in seen if T == 1] == [most + 1] * 6
    assert all(most + T >= S for T, S in seen[2:])
    assert seen[0] == (W + 1, W + 1)


def test_far_along_a_text(ops: Backend) -> None:
    """What a token finds is exact where float32 no longer tells positions well, alone or among others."""
    start, sinks, rng = 1_000_000, Sinks(4, W), np.random.default_rng(0)
    assert start > EXACT
    rotary, total = Rotary(D, THETA), start + 3
    q, k, v = (rng.standard_normal((1, 1, n, D)).astype(np.float32) for n in (3, 4 + W, 4 + W))
    held = [*range(4), *range(total - W, total)]  # the others are never looked at
    keys = rotary.apply(ops, ops.asarray(k), FixedPositions(np.array([held])))
    between = ops.zeros((1, 1, total - W - 4, D))
    keys, values = (
        ops.concat([x[:, :, :4], between, x[:, :, 4:]], axis=2) for x in (keys, ops.asarray(v))
    )

    def turn(x: Any, step: Any) -> Any:
        return rotary.apply(ops, x, step)

    def found(a: int, b: int) -> Numbers:
        step, end = SinkStep(start + a, b - a, sinks), start + b
        x = step.attend(
            ops, ops.asarray(q[:, :, a:b]), keys[:, :, :end], values[:, :, :end], turn, None, 1.0
        )
        return ops.numpy(x)[0, 0]

    together, alone = found(0, 3), np.concatenate([found(t, t + 1) for t in range(3)])
    for t in range(3):
        seen = [0, 1, 2, 3, *range(4 + W - 12 - 2 + t, 4 + W - 2 + t)]
        scores = rotate(k[0, 0, seen], np.arange(W)) @ rotate(q[0, 0, t], W - 1)
        weights = np.exp(scores) / np.exp(scores).sum()
        assert np.abs(together[t] - weights @ v[0, 0, seen]).max() <= 1e-5
        assert np.abs(alone[t] - weights @ v[0, 0, seen]).max() <= 1e-5


def test_angles_are_float32_below(ops: Backend) -> None:
    """As they always were, to the bit, also in a pass that goes beyond."""
    rotary, positions = Rotary(D, THETA), np.array([[0, 1, 777, EXACT - 1, EXACT, 2**20]])
    cos, sin = (ops.numpy(x)[0, 0] for x in rotary.rotations(ops, FixedPositions(positions)))
    old, new = (
        positions[0, :4, None].astype(np.float32) * rotary.frequencies(),
        positions[0, 4:, None] * rotary.frequencies().astype(np.float64),
    )
    for turned, function in ((cos, np.cos), (sin, np.sin)):
        assert np.abs(turned[:4] - function(old)).max() <= 1e-7
        assert np.abs(turned[4:] - function(new)).max() <= 1e-7
    below, _ = rotary.rotations(ops, FixedPositions(positions[:, :4]))
    assert np.array_equal(ops.numpy(below)[0, 0], np.cos(old))


# -- what is refused --------------------------------------------------------------------------------------------------
def test_with_sinks() -> None:
    plain = built(None)[0]
    model = plain.with_sinks()
    assert (plain.context, model.context, model.sinks) == (W, None, Sinks(4, W))
    assert model.with_sinks(2) == plain.with_sinks(2)
    assert replace(model, context=W, sinks=None) == plain
    for count in (-1, 0, W):
        with pytest.raises(
            UsageError,
            match=f"^{count} attention sinks do not fit the context of 16: choose 1 to 15$",
        ):
            plain.with_sinks(count)


def test_learned_positions_have_an_end() -> None:
    config = {
        "model_type": "gpt2",
        "vocab_size": VOCAB,
        "n_embd": 12,
        "n_head": 3,
        "n_layer": 2,
        "n_positions": 64,
    }
    gpt2 = find_family(config).build(HubConfig(config))
    assert isinstance(gpt2, CausalLM)
    with pytest.raises(
        ContextError, match=r"need rotary positions: this model's learned positions end at 64$"
    ):
        gpt2.with_sinks()


def test_without_positions(ops: Backend) -> None:
    """A decoder that has none at all sees no more than others: its cut does not matter either."""
    decoder, params = built(None)
    blocks = tuple(
        replace(block, attention=replace(block.attention, rotary=None)) for block in decoder.blocks
    )
    model = Runner(ops, replace(decoder, blocks=blocks).with_sinks(), as_arrays(ops, params))
    state = model.architecture.new_state(ops, 1, 50)
    got = [
        read(model, IDS[a:b], state)
        for a, b in ((0, 14), (14, 20), *((i, i + 1) for i in range(20, 50)))
    ]
    same(np.concatenate(got), read(model, IDS))


def test_what_cannot_go_past_the_window(ops: Backend) -> None:
    model = runner(ops)

    def grow(length: int, tokens: Sequence[int]) -> Any:
        state = model.architecture.new_state(ops, 1, 50)
        read(model, IDS[:length], state)
        return Branches(model, state).append(
            tokens, [-1, 0, -1, 2][: len(tokens)], [len(tokens) - 1]
        )

    assert (
        np.abs(
            ops.numpy(grow(W - 2, [1, 2, 3, 4]))[0] - read(model, [*IDS[: W - 2], 3, 4])[-1]
        ).max()
        <= 1e-4
    )
    with pytest.raises(
        ContextError, match="with attention sinks, branches of a text end at 16 tokens"
    ):
        grow(W - 1, [1, 2, 3, 4])
    state = model.architecture.new_state(ops, 2, 50, np.array([0, 3]))
    model.read(np.array([IDS[:W], IDS[:W]]), state)
    with pytest.raises(AssertionError, match="padded"):
        model.read(IDS[:2, None], state)


# -- a model as large as those that people have --
@pytest.mark.usefixtures("compiled_kernels")
def test_a_model_that_starts_the_kernels_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """Past its window it says with the kernels what it says by torch alone."""
    monkeypatch.setattr("minigen.backends.cpu.compiling.is_compiled", lambda: True)
    decoder, params = large()

    def write(kernels: str) -> tuple[list[int], bool]:
        monkeypatch.setenv("MINIGEN_KERNELS", kernels)
        ops: Any = get_backend("torch", "cpu", "float32")
        model = Runner(ops, decoder, as_arrays(ops, params))
        row = Row(list(range(20)))
        for _ in generate(model, [row], Options.of(temperature=0, max_tokens=60)):
            pass
        return row.ids, bool(ops.kernels.started)

    with_kernels, without = write("1"), write("0")
    assert (with_kernels[1], without[1]) == (True, False)
    assert with_kernels[0] == without[0]
    assert len(set(with_kernels[0])) > 20


def large() -> tuple[CausalLM, Any]:
    """An embedding of 4 MB, and heads of a width that kernels take."""
    config = CONFIG | {
        "vocab_size": 2**14,
        "hidden_size": 64,
        "head_dim": 16,
        "max_position_embeddings": 32,
    }
    decoder = find_family(config).build(HubConfig(config))
    rng = np.random.default_rng(1)
    drawn = {
        p: x + 0.1 * rng.standard_normal(x.shape)
        for p, x in flatten(initialise(decoder.shapes())).items()
    }
    assert isinstance(decoder, CausalLM)
    return decoder.with_sinks(4), unflatten(drawn)
